//! A shard: a lock, a hash index over the entries whose keys hash to it, their eviction queues, and a share of the blocks.
//!
//! Access rules:
//! - *Writers* hold the shard's lock. Every change to the links of a bucket must happen inside [`Guard::change`], during which the
//!   shard's `version` is odd.
//! - *Readers* hold no lock. A reader reads `version`, walks the bucket, reads the header of the entry, and reads `version` again.
//!   If both reads return the same even number, no entry was linked or unlinked in between, so the reader found a live entry of
//!   this key. The reader also notes the version of the entry's *zone*. A zone is 64 KB of blocks, and its version moves whenever
//!   an entry that begins in it dies. Then the reader copies the value and finally reads the zone version again. If the zone
//!   version did not move, the entry lived during the whole copy. A live entry is never rewritten except for single words, such as
//!   its expiry time or its counter.
//! - Blocks belong to their shard; an entry belongs to the shard of its key. An entry may use blocks of other shards. The locks of
//!   these shards are then acquired one after the other, never two at once.
//!
//! Why a reader never accepts the bytes of a dead entry: a writer that frees an entry must first move the zone version, and then
//! give the blocks back under a lock. The next writer that takes these blocks under that lock executes a release fence before it
//! stores the first word. A reader that saw such a word executes an acquire fence before it reads the zone version again, and
//! therefore sees that it moved. (Boehm, "Can seqlocks get along with programming language memory models?", 2012.)
//!
//! A panic while the lock is held poisons the shard: reads miss, writes are refused, and [`crate::Tier::try_check`] reports it.

use crate::blocks::{Bitmap, Run};
use crate::fence::reduce;
use crate::layout::{LINE, Layout};
use crate::region::Region;
use crate::sync::{AtomicU64, Ordering, fence, pause};
use crate::tier::entry::{Entry, HEADER_WORDS, HIDDEN, Header, IN_MAIN, LINKED, NONE, RUN_BLOCKS_MIN};
use crate::tier::eviction::{Streak, Victim};
use crate::tier::flight::Flights;
use crate::{Host, Key};

// Line 0: the word that readers look at.
const AT_VERSION: usize = 0;
// Lines 1 and 2: only accessed under the lock.
const AT_CURSOR: usize = LINE;
const AT_FREE: usize = LINE + 1;
const AT_QUEUES: usize = LINE + 2;
const AT_ENTRIES: usize = LINE + 6;
const AT_EVICTED: usize = LINE + 7;
const AT_SWEPT: usize = 2 * LINE;
const AT_HIDDEN: usize = 2 * LINE + 1;
const AT_LEASES: usize = 2 * LINE + 2;
const AT_POLICY: usize = 2 * LINE + 3;
const AT_FLIGHTS: usize = 2 * LINE + 4;
/// Words of a queue's state: its two ends, and the number of blocks in it.
const QUEUE_WORDS: usize = 2;

/// Bit of a version: a writer is changing links right now.
const CHANGING: u64 = 1;
/// Bit of a version: the shard is switched off.
const POISONED: u64 = 1 << 63;

/// How many times a reader looks at an odd version before it stops waiting.
const PATIENCE: u32 = 200;

/// An entry that a reader found, and the zone version that later tells whether the entry is still alive.
pub(crate) struct Sighting<'m> {
    pub entry: Entry<'m>,
    pub header: Header,
    zone: &'m AtomicU64,
    moved: u64,
}

impl Sighting<'_> {
    /// Returns whether the entry has lived until now. If it has, everything read of it since the lookup is valid.
    #[inline(always)]
    pub(crate) fn lived(&self) -> bool {
        fence(Ordering::Acquire);
        self.zone.load(Ordering::Relaxed) == self.moved
    }
}

/// The two queues of a shard. Entries leave them by eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Queue {
    Small,
    Main,
}

impl Queue {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Small => Self::Main,
            Self::Main => Self::Small,
        }
    }
}

/// The outcome of a lookup without a lock.
pub(crate) enum Look<'m> {
    Found(Sighting<'m>),
    Absent,
    /// A writer interfered, so the lookup has no result.
    Disturbed,
    Poisoned,
}

/// A shard, identified by its number.
#[derive(Clone, Copy)]
pub(crate) struct Shard<'m> {
    region: Region<'m>,
    layout: &'m Layout,
    pub number: u32,
    at: usize,
}

impl<'m> Shard<'m> {
    pub(crate) fn new(region: Region<'m>, layout: &'m Layout, number: u32) -> Self {
        Self { region, layout, number, at: layout.shard_at(number) }
    }

    /// Returns the shard of a key. The shard is chosen by the low half of the hash, the bucket by the high half.
    pub(crate) fn of_hash(region: Region<'m>, layout: &'m Layout, hash: u64) -> Self {
        Self::new(region, layout, reduce(hash << 32, layout.shards))
    }

    /// Initializes the count of free blocks of a new shard.
    pub(crate) fn format(&self) {
        self.region.store(self.at + AT_FREE, self.layout.blocks.into());
    }

    /// Prefetches the cache line that holds the bucket of a hash.
    #[inline(always)]
    pub(crate) fn fetch_bucket(&self, hash: u32) {
        let number = self.bucket_of(hash);
        self.region.prefetch(self.at + self.layout.buckets_at + (number / 2) as usize);
    }

    /// Prefetches the cache lines of the first entry in the bucket of a hash. The entry may die at any moment, so this function
    /// reads nothing of it.
    #[inline(always)]
    pub(crate) fn fetch_entry(&self, hash: u32) {
        let block = self.bucket(self.bucket_of(hash));
        if block != NONE {
            let entry = self.entry(block);
            entry.prefetch_header();
            entry.prefetch();
            self.region.prefetch(self.layout.visited_bit(block).0);
        }
    }

    /// Looks up a key without a lock.
    #[inline(always)]
    pub(crate) fn look(&self, key: &Key<'_>) -> Look<'m> {
        let version = self.region.word(self.at + AT_VERSION);
        let before = version.load(Ordering::Acquire);
        if before & (CHANGING | POISONED) != 0 {
            return if before & POISONED != 0 { Look::Poisoned } else { Look::Disturbed };
        }
        let undisturbed = || {
            fence(Ordering::Acquire);
            version.load(Ordering::Relaxed) == before
        };
        let Some((entry, header)) = self.walk(key, STEPS_MAX, |_| true) else {
            return if undisturbed() { Look::Absent } else { Look::Disturbed };
        };
        let zone = self.region.word(self.layout.zone_at(entry.block));
        // Acquire: the later copy must not read anything older than this load.
        let moved = zone.load(Ordering::Acquire);
        if undisturbed() { Look::Found(Sighting { entry, header, zone, moved }) } else { Look::Disturbed }
    }

    /// Gives a writer a moment to finish its change. The writer may have died during the change, so the wait is bounded.
    #[cold]
    pub(crate) fn wait(&self) {
        for _ in 0..PATIENCE {
            if self.region.load(self.at + AT_VERSION) & (CHANGING | POISONED) != CHANGING {
                return;
            }
            pause();
        }
    }

    /// Marks an entry as visited. The visited bits are stored apart from the entries: an entry may die at any moment, and its words
    /// then belong to another entry.
    #[inline(always)]
    pub(crate) fn visit(&self, block: u32) {
        let (at, mask) = self.layout.visited_bit(block);
        let word = self.region.word(at);
        if word.load(Ordering::Relaxed) & mask == 0 {
            word.fetch_or(mask, Ordering::Relaxed);
        }
    }

    /// Walks a bucket and returns the first entry of a key whose header is `wanted`. Without the lock the links may lead anywhere,
    /// so the number of steps is bounded.
    ///
    /// If a key has several entries, all but the last are hidden. So the first entry tells whether a transaction is changing the
    /// key.
    #[inline(always)]
    fn walk(
        &self,
        key: &Key<'_>,
        mut steps: u32,
        wanted: impl Fn(&Header) -> bool,
    ) -> Option<(Entry<'m>, Header)> {
        let hash = key.print();
        let mut block = self.bucket(self.bucket_of(hash));
        while block != NONE && steps > 0 {
            let entry = self.entry(block);
            entry.prefetch();
            let words = entry.header_words()?;
            let first = words[0].load(Ordering::Relaxed);
            if (first >> 32) as u32 == hash {
                let header = Header::of(words);
                if entry.is_of(self.layout, &header, key) && wanted(&header) {
                    return Some((entry, header));
                }
            }
            block = first as u32;
            steps -= 1;
        }
        None
    }

    fn entry(&self, block: u32) -> Entry<'m> {
        Entry::new(self.region, self.layout, block)
    }

    #[inline]
    fn bucket_of(&self, hash: u32) -> u32 {
        reduce(u64::from(hash) << 32, self.layout.buckets)
    }

    #[inline]
    fn bucket(&self, number: u32) -> u32 {
        let word = self.region.load(self.at + self.layout.buckets_at + (number / 2) as usize);
        (word >> (number % 2 * 32)) as u32
    }

    fn set_bucket(&self, number: u32, block: u32) {
        set_half(&self.region, self.at + self.layout.buckets_at, number, block);
    }

    pub(crate) fn poisoned(&self) -> bool {
        self.region.load(self.at + AT_VERSION) & POISONED != 0
    }

    /// Acquires the lock.
    pub(crate) fn lock<H: Host>(self, host: &'m H) -> Guard<'m, H> {
        host.lock(self.number);
        Guard { shard: self, host, unwinding: std::thread::panicking() }
    }
}

/// More steps than a bucket has entries, unless the hash is bad: the average is at most four. Readers report a miss for an entry
/// beyond this limit. A lock holder walks to the end of the bucket, because it must not overlook an entry that it has to remove.
const STEPS_MAX: u32 = 4096;

/// How many of the entries before a victim in its bucket are prefetched.
const NEIGHBOURS_FORESEEN: u32 = 3;

/// How many entries ahead in the queue a header is prefetched.
const FORESEEN: u32 = 16;

/// Writes one half of a word in an array of 32-bit numbers. The caller must hold the lock.
fn set_half(region: &Region<'_>, at: usize, number: u32, value: u32) {
    let at = at + (number / 2) as usize;
    let shift = number % 2 * 32;
    let word = region.load(at);
    region.store(at, word & !(u64::from(u32::MAX) << shift) | u64::from(value) << shift);
}

/// A shard whose lock this process holds. Dropping the guard releases the lock.
pub(crate) struct Guard<'m, H: Host> {
    shard: Shard<'m>,
    host: &'m H,
    /// Whether a panic was already unwinding when the lock was acquired. The holder is then cleaning up, and its release of the
    /// lock does not poison the shard.
    unwinding: bool,
}

impl<H: Host> Drop for Guard<'_, H> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.unwinding {
            // The panic may have left a change half done. Poisoning the shard hides it for good.
            self.set(AT_VERSION, self.get(AT_VERSION) | POISONED);
        }
        self.host.unlock(self.shard.number);
    }
}

impl<'m, H: Host> Guard<'m, H> {
    fn get(&self, word: usize) -> u64 {
        self.shard.region.load(self.shard.at + word)
    }

    fn set(&self, word: usize, value: u64) {
        self.shard.region.store(self.shard.at + word, value);
    }

    fn add(&self, word: usize, by: i64) {
        self.set(word, self.get(word).wrapping_add_signed(by));
    }

    pub(crate) fn poisoned(&self) -> bool {
        self.shard.poisoned()
    }

    pub(crate) fn entry(&self, block: u32) -> Entry<'m> {
        self.shard.entry(block)
    }

    pub(crate) fn bitmap(&self) -> Bitmap<'m> {
        Bitmap::new(self.shard.region, self.shard.layout, self.shard.number)
    }

    /// Returns how many blocks the shard has.
    pub(crate) fn capacity(&self) -> u32 {
        self.shard.layout.blocks
    }

    pub(crate) fn number(&self) -> u32 {
        self.shard.number
    }

    /// Returns how many entries have their keys in this shard.
    pub(crate) fn entries(&self) -> u64 {
        self.get(AT_ENTRIES)
    }

    /// Returns how many of the shard's blocks are free.
    pub(crate) fn free_blocks(&self) -> u32 {
        self.get(AT_FREE) as u32
    }

    /// Runs `what`, which changes links, while the version is odd. Readers wait or retry during that time.
    pub(crate) fn change<T>(&self, what: impl FnOnce() -> T) -> T {
        let version = self.shard.region.word(self.shard.at + AT_VERSION);
        let before = version.load(Ordering::Relaxed);
        version.store(before | CHANGING, Ordering::Relaxed);
        fence(Ordering::Release);
        let result = what();
        version.store((before | CHANGING).wrapping_add(1) & !POISONED | before & POISONED, Ordering::Release);
        result
    }

    /// Returns the entry of a key that is not hidden, with its header.
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
        let Shard { region, layout, number, at } = self.shard;
        Flights::new(region, layout, number, at + AT_FLIGHTS)
    }

    /// Returns a new lease number. It has 32 bits, so that the holder can combine it with other data. The number is unique in this
    /// region until it repeats after four billion leases. A repeated number does harm only if it meets the same key.
    pub(crate) fn next_lease(&self) -> u64 {
        self.add(AT_LEASES, 1);
        self.get(AT_LEASES)
            .wrapping_mul(u64::from(self.shard.layout.shards))
            .wrapping_add(u64::from(self.shard.number))
            & u64::from(u32::MAX)
    }

    /// Takes blocks of this shard: one run of at least `least` and at most `want` blocks. The search looks at about `effort` words
    /// of the bitmap.
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
            u64::from(run.first + run.blocks - self.shard.layout.first_block(self.shard.number)),
        );
        self.taken(Some(run))
    }

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

    /// Puts an entry that is not yet visible at the end of its bucket. So announcements stay at the front, and old entries, which
    /// are evicted first, are found after few steps. The caller must be inside [`change`](Self::change) and must also put the entry
    /// into a queue.
    pub(crate) fn link(&self, entry: &Entry<'m>, header: &Header) {
        let bucket = self.shard.bucket_of(header.hash());
        entry.set_next(NONE);
        match self.in_bucket(bucket).last() {
            Some(last) => last.set_next(entry.block),
            None => self.shard.set_bucket(bucket, entry.block),
        }
        entry.set_flag(LINKED, true);
        self.add(AT_ENTRIES, 1);
    }

    /// Puts an announcement at the front of its bucket: it must be the first entry of its key that a reader meets. The caller must
    /// be inside [`change`](Self::change).
    pub(crate) fn link_hidden(&self, entry: &Entry<'m>) {
        let bucket = self.shard.bucket_of(entry.header().hash());
        entry.set_next(self.shard.bucket(bucket));
        self.shard.set_bucket(bucket, entry.block);
        entry.set_flag(LINKED | HIDDEN, true);
        self.add(AT_HIDDEN, 1);
    }

    /// Removes an entry from its bucket and its queue. The caller must be inside [`change`](Self::change). The blocks stay in use.
    /// No new reader can find the entry, and a reader that has found it will learn that it died.
    pub(crate) fn unlink(&self, entry: &Entry<'m>, header: &Header) {
        self.detach(entry, header);
        self.move_zone(entry.block);
    }

    fn detach(&self, entry: &Entry<'m>, header: &Header) {
        self.unchain(entry, header.hash());
        self.dequeue(entry, header);
        self.add(AT_ENTRIES, -1);
        entry.set_flag(LINKED, false);
    }

    /// Removes the oldest entries of a queue from their buckets and from the queue, in one change. It does not tell readers that
    /// already found these entries: the caller must [move their zones](Self::move_zones) before it gives any of their blocks back.
    pub(crate) fn detach_oldest(&self, streak: &Streak) {
        let victims = streak.victims();
        let Some(last) = victims.last() else { return };
        self.foresee_neighbours(victims);
        self.change(|| {
            for victim in victims {
                let entry = self.entry(victim.block);
                self.unchain(&entry, victim.hash);
                entry.set_flag(LINKED, false);
            }
        });
        let (newest, _) = self.ends(streak.queue);
        let oldest = self.entry(last.block).newer();
        if oldest != NONE {
            self.entry(oldest).set_older(NONE);
        }
        self.set_ends(streak.queue, if oldest == NONE { NONE } else { newest }, oldest);
        let blocks: i64 = victims.iter().map(|victim| i64::from(victim.blocks)).sum();
        self.add(Self::queue_at(streak.queue) + 1, -blocks);
        self.add(AT_ENTRIES, -(victims.len() as i64));
        self.add(AT_EVICTED, streak.evicted() as i64);
    }

    /// Prefetches the entries that stand before the victims in their buckets: first the first entry of every bucket, then the
    /// second of every bucket, and so on. If it went through one bucket after the other, it would wait for memory at each step.
    fn foresee_neighbours(&self, victims: &[Victim]) {
        let mut before = [NONE; Streak::MOST];
        for (before, victim) in before.iter_mut().zip(victims) {
            *before = self.shard.bucket(self.bucket_of(victim.hash));
        }
        for _ in 0..NEIGHBOURS_FORESEEN {
            let is_other = |before: u32, victim: &Victim| before != victim.block && before != NONE;
            for (before, victim) in before.iter().zip(victims) {
                if is_other(*before, victim) {
                    self.entry(*before).foresee();
                }
            }
            for (before, victim) in before.iter_mut().zip(victims) {
                if is_other(*before, victim) {
                    *before = self.entry(*before).next();
                }
            }
        }
    }

    /// Moves the zone versions of dead entries, so that readers learn of their death. Neighbours share a zone, and one move is
    /// enough for them.
    pub(crate) fn move_zones(&self, gone: &[Victim]) {
        let zone_at = |victim: &Victim| self.shard.layout.zone_at(victim.block);
        for neighbours in gone.chunk_by(|one, next| zone_at(one) == zone_at(next)) {
            self.move_zone(neighbours[0].block);
        }
    }

    /// Removes an announcement from its bucket. The caller must be inside [`change`](Self::change).
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

    /// Moves the version of the zone that a block lies in. Entries of several shards may begin in one zone, so no single lock
    /// protects the version, and the step is atomic. The release order waits until all earlier stores are visible, which takes
    /// time. That is why eviction moves a zone once for many entries.
    fn move_zone(&self, block: u32) {
        if self.is_block(block) {
            self.shard.region.word(self.shard.layout.zone_at(block)).fetch_add(1, Ordering::Release);
        }
    }

    /// Returns whether a block number lies in the area of blocks. For any other number, the computed place of its zone or visited
    /// bit may belong to something else.
    fn is_block(&self, block: u32) -> bool {
        self.shard.layout.block_at(block) < self.shard.region.len()
    }

    fn unchain(&self, entry: &Entry<'m>, hash: u32) {
        let bucket = self.shard.bucket_of(hash);
        let next = entry.next();
        if self.shard.bucket(bucket) == entry.block {
            self.shard.set_bucket(bucket, next);
        } else if let Some(before) = self.in_bucket(bucket).find(|before| before.next() == entry.block) {
            before.set_next(next);
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

    /// Returns how many entries a bucket can have at most: all linked entries of the shard. A count larger than the blocks can hold
    /// is damage, and the limit is then `STEPS_MAX`.
    fn chain_max(&self) -> u32 {
        let linked = self.entries().saturating_add(self.hidden());
        let possible = self.shard.layout.blocks_total() / u64::from(RUN_BLOCKS_MIN);
        if linked <= possible { STEPS_MAX.max(linked as u32) } else { STEPS_MAX }
    }

    /// Returns the entries of a bucket.
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
            block = entry.next();
            Some(entry)
        })
    }

    /// Prefetches the first entry of each bucket in a range. Without it, the caller would wait for memory at each bucket.
    pub(crate) fn foresee_buckets(&self, buckets: std::ops::Range<u32>) {
        for bucket in buckets {
            self.shard.region.prefetch(self.shard.layout.block_at(self.shard.bucket(bucket)));
        }
    }

    /// Returns the bucket where the sweep of this shard continues.
    pub(crate) fn swept(&self) -> u32 {
        self.get(AT_SWEPT) as u32
    }

    pub(crate) fn set_swept(&self, bucket: u32) {
        self.set(AT_SWEPT, bucket.into());
    }
}

/// The queues, for the eviction policy (`eviction.rs`).
impl<'m, H: Host> Guard<'m, H> {
    fn queue_at(queue: Queue) -> usize {
        AT_QUEUES + queue as usize * QUEUE_WORDS
    }

    fn ends(&self, queue: Queue) -> (u32, u32) {
        let ends = self.get(Self::queue_at(queue));
        ((ends >> 32) as u32, ends as u32)
    }

    fn set_ends(&self, queue: Queue, newest: u32, oldest: u32) {
        self.set(Self::queue_at(queue), u64::from(newest) << 32 | u64::from(oldest));
    }

    /// Returns how many blocks the entries of a queue have.
    pub(crate) fn queued(&self, queue: Queue) -> u64 {
        self.get(Self::queue_at(queue) + 1)
    }

    /// Returns the entry that has been in a queue for the longest time.
    pub(crate) fn oldest(&self, queue: Queue) -> Option<Entry<'m>> {
        let (_, oldest) = self.ends(queue);
        (oldest != NONE).then(|| self.entry(oldest))
    }

    /// Puts an entry that is in no queue at the young end of a queue.
    pub(crate) fn enqueue(&self, queue: Queue, entry: &Entry<'m>, header: &Header) {
        let (newest, oldest) = self.ends(queue);
        entry.set_newer(NONE);
        entry.set_older(newest);
        entry.set_flag(IN_MAIN, queue == Queue::Main);
        if newest != NONE {
            self.entry(newest).set_newer(entry.block);
        }
        self.set_ends(queue, entry.block, if oldest == NONE { entry.block } else { oldest });
        self.add(Self::queue_at(queue) + 1, header.blocks().into());
    }

    /// Removes an entry from its queue.
    pub(crate) fn dequeue(&self, entry: &Entry<'m>, header: &Header) {
        let queue = if entry.word(4) & IN_MAIN != 0 { Queue::Main } else { Queue::Small };
        let (mut newest, mut oldest) = self.ends(queue);
        let (newer, older) = (entry.newer(), entry.older());
        if newer == NONE {
            newest = older;
        } else {
            self.entry(newer).set_older(older);
        }
        if older == NONE {
            oldest = newer;
        } else {
            self.entry(older).set_newer(newer);
        }
        self.set_ends(queue, newest, oldest);
        self.add(Self::queue_at(queue) + 1, -i64::from(header.blocks()));
    }

    /// Clears the visited bit of an entry and returns whether it was set.
    pub(crate) fn take_visit(&self, entry: &Entry<'m>) -> bool {
        let (at, mask) = self.shard.layout.visited_bit(entry.block);
        let word = self.shard.region.word(at);
        self.is_block(entry.block)
            && word.load(Ordering::Relaxed) & mask != 0
            && word.fetch_and(!mask, Ordering::Relaxed) & mask != 0
    }

    /// Returns the word that the policy may use as it likes.
    pub(crate) fn policy_state(&self) -> u64 {
        self.get(AT_POLICY)
    }

    pub(crate) fn set_policy_state(&self, state: u64) {
        self.set(AT_POLICY, state);
    }

    /// Returns the entry that came into the queue directly after this entry.
    pub(crate) fn newer(&self, entry: &Entry<'m>) -> Option<Entry<'m>> {
        let newer = entry.newer();
        (newer != NONE).then(|| self.entry(newer))
    }

    /// Returns whether an entry was visited, and leaves the bit as it is.
    pub(crate) fn is_visited(&self, entry: &Entry<'m>) -> bool {
        let (at, mask) = self.shard.layout.visited_bit(entry.block);
        self.is_block(entry.block) && self.shard.region.load(at) & mask != 0
    }

    /// Prefetches data that the next evictions of a queue will need. A memory access takes much longer than the work on the data.
    /// So each step is prefetched some evictions ahead: an entry's header, then its bucket, then its neighbours in the bucket.
    pub(crate) fn foresee_next(&self, queue: Queue) {
        let (region, layout) = (self.shard.region, self.shard.layout);
        let bucket_of = |entry: &Entry<'m>| self.shard.bucket_of((entry.word(0) >> 32) as u32);
        let neighbour = |entry: &Entry<'m>| self.shard.bucket(bucket_of(entry));
        let Some(first) = self.oldest(queue) else { return };
        let second = self.entry(first.newer());
        region.prefetch(layout.block_at(self.entry(neighbour(&second)).next()));
        let third = self.entry(second.newer());
        region.prefetch(layout.block_at(neighbour(&third)));
        let fifth = self.entry(self.entry(third.newer()).newer());
        region.prefetch(self.shard.at + layout.buckets_at + (bucket_of(&fifth) / 2) as usize);
        region.prefetch(
            self.shard.at + layout.ghosts_at + (self.ghost_of((fifth.word(0) >> 32) as u32) / 2) as usize,
        );
        region.prefetch(layout.block_at(self.entry(fifth.newer()).newer()));
    }

    /// Prefetches data for the eviction of an entry, and the header of an entry further on in its queue: a memory access takes much
    /// longer than the work on the data. Entries that were stored one after the other mostly lie next to each other, so the later
    /// header is guessed from the distance in blocks.
    pub(crate) fn foresee(&self, entry: &Entry<'m>, header: &Header) {
        let (region, layout) = (self.shard.region, self.shard.layout);
        let ahead = layout.block_at(entry.block.wrapping_add(header.blocks().wrapping_mul(FORESEEN)));
        region.prefetch(ahead);
        region.prefetch(ahead + HEADER_WORDS - 1);
        let bucket = self.shard.bucket_of(header.hash());
        region.prefetch(self.shard.at + layout.buckets_at + (bucket / 2) as usize);
        let ghost = self.ghost_of(header.hash());
        region.prefetch(self.shard.at + layout.ghosts_at + (ghost / 2) as usize);
    }

    /// Returns how many entries this shard has evicted so far.
    pub(crate) fn evicted(&self) -> u64 {
        self.get(AT_EVICTED)
    }

    /// Returns the ghost slot for a hash: the memory of an earlier eviction, in 32 bits.
    pub(crate) fn ghost(&self, hash: u32) -> u32 {
        let number = self.ghost_of(hash);
        let word =
            self.shard.region.load(self.shard.at + self.shard.layout.ghosts_at + (number / 2) as usize);
        (word >> (number % 2 * 32)) as u32
    }

    pub(crate) fn set_ghost(&self, hash: u32, ghost: u32) {
        let number = self.ghost_of(hash);
        set_half(&self.shard.region, self.shard.at + self.shard.layout.ghosts_at, number, ghost);
    }

    fn ghost_of(&self, hash: u32) -> u32 {
        // Uses other bits of the hash than the bucket, which uses the upper ones.
        reduce(u64::from(hash.wrapping_mul(0x9e37_79b1)) << 32, self.shard.layout.ghosts)
    }
}

#[cfg(all(test, not(any(loom, counting))))]
mod tests {
    use super::*;
    use crate::Tier;
    use crate::layout::Sizes;
    use crate::sync::AtomicU64;

    struct Alone;

    impl Host for Alone {
        fn now(&self) -> u32 {
            1
        }
        fn lock(&self, _shard: u32) {}
        fn unlock(&self, _shard: u32) {}
    }

    /// A number that is no block has no zone and no visited bit. The computed places would hit words of another shard.
    #[test]
    fn evicting_what_is_no_block_writes_to_no_other_shard() {
        let memory: Vec<_> = (0..256 * 1024 / 8).map(|_| AtomicU64::new(0)).collect();
        let sizes =
            Sizes { bytes: 0, reserved_fences: 4, relation_fences: 0, tag_fences: 1, counters: 1, shards: 2 };
        let tier = Tier::format(Region::of_words(&memory), sizes, Alone, 0).expect("it fits");
        let (region, layout) = (tier.region, &tier.layout);
        let others = layout.block_at(layout.first_block(1))..memory.len();
        others.clone().for_each(|at| region.store(at, u64::MAX));
        let guard = Shard::new(region, layout, 0).lock(&tier.host);
        // The first number would have its zone there, the second its visited bit.
        let zone = (others.start - layout.zone_at(0)) * 4096;
        let visited = (others.start - layout.visited_bit(0).0) * 256;
        for block in [zone, visited] {
            let entry = guard.entry(block as u32);
            guard.take_visit(&entry);
            guard.change(|| guard.unlink(&entry, &entry.header()));
        }
        let written = others.filter(|at| region.load(*at) != u64::MAX).count();
        assert_eq!(written, 0);
    }
}
