//! A shard whose lock this process holds: its buckets, its blocks and its flights. A *shard* is a part of the tier, the cache, with
//! a lock of its own. Each operation that changes links, queues or blocks gets a [`Guard`] first. `shard.rs` has the rules, and
//! `queues.rs` the eviction queues.
//!
//! An entry is *linked* while it is in the chain of its hash bucket, where readers find it. An *announced* change of a key is a
//! *hidden* entry that hides the key's value until the change is confirmed (`tier/publishing.rs`). A *zone* is 64 KB of blocks with
//! a version that moves when an entry in it dies (`tier/shard.rs`). A *flight* is the right to publish a value that is being
//! computed, and a *lease* is one of its kinds (`tier/flight.rs`). A *run* is a row of neighbouring blocks.

use super::entry::Entry;
use super::flight::Flights;
use super::header::{HIDDEN, Header, LINKED};
use super::runs::{NONE, RUN_BLOCKS_MIN};
use super::shard::{
    AT_CURSOR, AT_ENTRIES, AT_FLIGHTS, AT_FREE, AT_HIDDEN, AT_LEASES, AT_SWEPT, AT_VERSION, CHANGING,
    POISONED, STEPS_MAX, Shard,
};
use crate::blocks::{Bitmap, Run};
use crate::host::Host;
use crate::key::Key;
use crate::layout::{BLOCK_WORDS, LINE};
use crate::sync::{Ordering, fence};

/// A shard whose lock this process holds. Dropping the guard releases the lock.
pub(crate) struct Guard<'m, H: Host> {
    pub(super) shard: Shard<'m>,
    host: &'m H,
    /// Whether a panic was already unwinding when the lock was acquired. The holder is then cleaning up, and its release of the
    /// lock does not poison the shard.
    unwinding: bool,
}

impl<H: Host> Drop for Guard<'_, H> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.unwinding {
            // The panic may have left a change half done. Poisoning the shard hides it until the region is formatted again.
            self.set(AT_VERSION, self.get(AT_VERSION) | POISONED);
        }
        self.host.unlock(self.shard.index);
    }
}

impl<'m> Shard<'m> {
    /// Acquires the lock. The process must not hold the lock of another shard. A panic before the guard is dropped switches the
    /// shard off, so code under the lock must not raise errors.
    pub(crate) fn lock<H: Host>(self, host: &'m H) -> Guard<'m, H> {
        host.lock(self.index);
        Guard { shard: self, host, unwinding: std::thread::panicking() }
    }
}

impl<'m, H: Host> Guard<'m, H> {
    /// Returns a word of the shard's control block, by its number in `shard.rs`.
    pub(super) fn get(&self, word: usize) -> u64 {
        self.shard.region.load(self.shard.at + word)
    }

    pub(super) fn set(&self, word: usize, value: u64) {
        self.shard.region.store(self.shard.at + word, value);
    }

    pub(super) fn add(&self, word: usize, by: i64) {
        self.set(word, self.get(word).wrapping_add_signed(by));
    }

    /// Whether the shard is switched off (`shard.rs`). Its entries must not be used then.
    pub(crate) fn poisoned(&self) -> bool {
        self.shard.poisoned()
    }

    pub(crate) fn entry(&self, block: u32) -> Entry<'m> {
        self.shard.entry(block)
    }

    pub(crate) fn bitmap(&self) -> Bitmap<'m> {
        Bitmap::new(self.shard.region, self.shard.layout, self.shard.index)
    }

    /// Returns how many blocks the shard has.
    pub(crate) fn capacity(&self) -> u32 {
        self.shard.layout.blocks
    }

    pub(crate) fn index(&self) -> u32 {
        self.shard.index
    }

    /// Returns how many entries have their keys in this shard.
    pub(crate) fn entries(&self) -> u64 {
        self.get(AT_ENTRIES)
    }

    /// Returns how many of the shard's blocks are free.
    pub(crate) fn free_blocks(&self) -> u32 {
        self.get(AT_FREE) as u32
    }

    /// Runs `work`, which changes links, while the version is odd. Readers wait or retry during that time. Calls must not be
    /// nested: the end of the inner call would make the version even too early. If `work` panics, the version stays odd, and the
    /// guard's drop poisons the shard.
    pub(crate) fn change<T>(&self, work: impl FnOnce() -> T) -> T {
        let version = self.shard.region.word(self.shard.at + AT_VERSION);
        let before = version.load(Ordering::Relaxed);
        version.store(before | CHANGING, Ordering::Relaxed);
        fence(Ordering::Release);
        let result = work();
        version.store((before | CHANGING).wrapping_add(1) & !POISONED | before & POISONED, Ordering::Release);
        result
    }

    /// Returns the entry of a key that is not hidden, with its header, whether it is valid or not.
    pub(crate) fn find(&self, key: &Key<'_>) -> Option<(Entry<'m>, Header)> {
        self.shard.walk(key, self.chain_max(), |header| !header.has(HIDDEN))
    }

    /// Returns whether a transaction that is about to commit has announced a change of this key.
    pub(crate) fn is_changing(&self, key: &Key<'_>) -> bool {
        self.get(AT_HIDDEN) > 0
            && self.shard.walk(key, self.chain_max(), |_| true).is_some_and(|(_, header)| header.has(HIDDEN))
    }

    /// Returns the flights of this shard.
    pub(crate) fn flights(&self) -> Flights<'m> {
        let Shard { region, layout, index, at } = self.shard;
        Flights::new(region, layout, index, at + AT_FLIGHTS)
    }

    /// Returns a new lease ID. It has 32 bits, so that the holder can combine it with other data. The IDs of a shard repeat, but
    /// not before the shard has given out 2^32 divided by the number of shards: four million IDs if there are 1024 shards. A
    /// repeated ID does harm only if a session still holds the old lease of the same key.
    pub(crate) fn next_lease(&self) -> u64 {
        self.add(AT_LEASES, 1);
        self.get(AT_LEASES)
            .wrapping_mul(u64::from(self.shard.layout.shards))
            .wrapping_add(u64::from(self.shard.index))
            & u64::from(u32::MAX)
    }

    /// Takes blocks of this shard: one run of at least `least` and at most `want` blocks. The search looks at about `effort` words
    /// of the bitmap. Returns None if it finds no such run there. Counts the free blocks of the shard only: the caller must count
    /// the blocks for their space (`Tier::note_blocks`). The same holds for [`take_around`](Self::take_around) and
    /// [`give`](Self::give).
    pub(crate) fn take(&self, least: u32, want: u32, effort: u32) -> Option<Run> {
        let (run, cursor) = self.bitmap().take(least, want, self.get(AT_CURSOR) as u32, effort);
        self.set(AT_CURSOR, cursor.into());
        self.taken(run)
    }

    /// Takes blocks around a block that has just become free. The next search continues behind them, because more blocks than
    /// `want` may be free there.
    pub(crate) fn take_around(&self, block: u32, least: u32, want: u32) -> Option<Run> {
        let run = self.bitmap().take_around(block, least, want)?;
        self.set(
            AT_CURSOR,
            u64::from(run.first + run.blocks - self.shard.layout.first_block(self.shard.index)),
        );
        self.taken(Some(run))
    }

    /// Counts the blocks of a run that was just taken, and returns the run.
    fn taken(&self, run: Option<Run>) -> Option<Run> {
        if let Some(run) = run {
            self.add(AT_FREE, -i64::from(run.blocks));
            // This fence pairs with the acquire fence of a reader that still copies from these blocks.
            fence(Ordering::Release);
        }
        run
    }

    /// Gives blocks back to this shard. Returns false and changes nothing if a block is not in use or belongs to another shard.
    pub(crate) fn give(&self, run: Run) -> bool {
        let given = self.bitmap().give(run);
        if given {
            self.add(AT_FREE, run.blocks.into());
        }
        given
    }

    /// Puts an entry that is not yet visible at the end of its bucket. So announcements, which are put at the front, stay there,
    /// and old entries, which are evicted first, are found after few steps. The caller must be inside [`change`](Self::change) and
    /// must also put the entry into a queue.
    pub(crate) fn link(&self, entry: &Entry<'m>, header: &Header) {
        let bucket = self.shard.bucket_of(header.hash());
        entry.set_bucket_next(NONE);
        match self.in_bucket(bucket).last() {
            Some(last) => last.set_bucket_next(entry.block),
            None => self.shard.set_bucket(bucket, entry.block),
        }
        entry.set_flag(LINKED, true);
        self.add(AT_ENTRIES, 1);
    }

    /// Puts an announcement (`publishing.rs`) at the front of its bucket: it must be the first entry of its key that a reader
    /// meets. The caller must be inside [`change`](Self::change).
    pub(crate) fn link_hidden(&self, entry: &Entry<'m>) {
        let bucket = self.shard.bucket_of(entry.header().hash());
        entry.set_bucket_next(self.shard.bucket(bucket));
        self.shard.set_bucket(bucket, entry.block);
        entry.set_flag(LINKED | HIDDEN, true);
        self.add(AT_HIDDEN, 1);
    }

    /// Removes an entry from its bucket and its queue. The caller must be inside [`change`](Self::change). The blocks stay in use:
    /// the caller must give them back afterwards (`freeing.rs`). No new reader can find the entry, and a reader that has found it
    /// will learn that it died.
    pub(crate) fn unlink(&self, entry: &Entry<'m>, header: &Header) {
        self.detach(entry, header);
        self.move_zone(entry.block);
    }

    /// Does the work of `unlink` except for moving the zone.
    fn detach(&self, entry: &Entry<'m>, header: &Header) {
        self.unchain(entry, header.hash());
        self.dequeue(entry, header);
        self.add(AT_ENTRIES, -1);
        entry.set_flag(LINKED, false);
    }

    /// Removes an announcement from its bucket. The caller must be inside [`change`](Self::change). The entry may then be linked as
    /// an entry that readers see, or its blocks given back.
    pub(crate) fn unlink_hidden(&self, entry: &Entry<'m>) {
        self.unchain(entry, entry.header().hash());
        self.add(AT_HIDDEN, -1);
        entry.set_flag(LINKED, false);
        self.move_zone(entry.block);
        // A reader may have found this entry and not yet checked whether it is hidden. If that reader sees the HIDDEN flag cleared,
        // it must also see that the zone moved. Otherwise it would return a value that is not committed.
        fence(Ordering::Release);
        entry.set_flag(HIDDEN, false);
    }

    /// Moves the version of the zone that a block lies in (`shard.rs`). Entries of several shards may begin in one zone, so no
    /// single lock protects the version, and the step is atomic. An atomic addition may wait until all earlier stores are visible.
    /// That is why eviction moves a zone once for many entries.
    pub(super) fn move_zone(&self, block: u32) {
        if self.is_block(block) {
            self.shard.region.word(self.shard.layout.zone_at(block)).fetch_add(1, Ordering::Release);
        }
    }

    /// Returns whether a block number lies in the area of blocks. For any other number, the computed position of its zone or
    /// visited bit may belong to something else.
    pub(super) fn is_block(&self, block: u32) -> bool {
        self.shard.layout.block_at(block) < self.shard.region.len()
    }

    /// Removes an entry from its bucket. The caller must be inside [`change`](Self::change).
    pub(super) fn unchain(&self, entry: &Entry<'m>, hash: u32) {
        let bucket = self.shard.bucket_of(hash);
        let next = entry.bucket_next();
        if self.shard.bucket(bucket) == entry.block {
            self.shard.set_bucket(bucket, next);
        } else if let Some(before) = self.in_bucket(bucket).find(|before| before.bucket_next() == entry.block)
        {
            before.set_bucket_next(next);
        }
    }

    /// Returns how many announcements the shard holds.
    pub(crate) fn hidden(&self) -> u64 {
        self.get(AT_HIDDEN)
    }

    /// Returns the bucket of a hash.
    pub(crate) fn bucket_of(&self, hash: u32) -> u32 {
        self.shard.bucket_of(hash)
    }

    /// Returns how many buckets the shard has, for inspection and sweeping.
    pub(crate) fn buckets(&self) -> u32 {
        self.shard.layout.buckets
    }

    /// Returns the number of steps after which a walk of a bucket must end: the number of linked entries of the shard, but at least
    /// `STEPS_MAX`. A count larger than the blocks of the tier can hold is damage, and the limit is then `STEPS_MAX`.
    fn chain_max(&self) -> u32 {
        let linked = self.entries().saturating_add(self.hidden());
        let possible = self.shard.layout.blocks_total() / u64::from(RUN_BLOCKS_MIN);
        if linked <= possible { STEPS_MAX.max(linked as u32) } else { STEPS_MAX }
    }

    /// Returns the entries of a bucket, also the hidden ones. The caller may unlink an entry that the iterator has returned: the
    /// iterator has already read the link to the next one.
    pub(crate) fn in_bucket(&self, bucket: u32) -> impl Iterator<Item = Entry<'m>> + use<'m, H> {
        let shard = self.shard;
        let mut block = shard.bucket(bucket);
        let mut steps = self.chain_max();
        std::iter::from_fn(move || {
            if block == NONE || steps == 0 {
                return None;
            }
            steps -= 1;
            let entry = shard.entry(block);
            block = entry.bucket_next();
            Some(entry)
        })
    }

    /// Prefetches the header of the first entry of each bucket in a range. Without it, the caller would wait for memory at each
    /// bucket.
    pub(crate) fn prefetch_buckets(&self, buckets: std::ops::Range<u32>) {
        for bucket in buckets {
            self.shard.region.prefetch(self.shard.layout.block_at(self.shard.bucket(bucket)));
        }
    }

    /// Brings all blocks of the shard into the processor's cache, for a walk through all entries. In the order of the blocks, this
    /// takes a fraction of the time that the walk would wait for memory.
    pub(crate) fn prefetch_blocks(&self) {
        let first = self.shard.layout.block_at(self.shard.layout.first_block(self.shard.index));
        let words = self.shard.layout.blocks as usize * BLOCK_WORDS;
        for at in (first..first + words).step_by(LINE) {
            self.shard.region.prefetch(at);
        }
    }

    /// Returns the bucket where the sweep of this shard continues ([`crate::Tier::sweep`]).
    pub(crate) fn sweep_bucket(&self) -> u32 {
        self.get(AT_SWEPT) as u32
    }

    pub(crate) fn set_sweep_bucket(&self, bucket: u32) {
        self.set(AT_SWEPT, bucket.into());
    }
}
