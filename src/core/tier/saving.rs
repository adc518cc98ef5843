//! Saving entries: hands entries to a saver, which copies them to a place outside of the region.
//!
//! The saver works in three steps:
//! 1. [`Tier::mark_oldest`] or [`Tier::mark_bucket`] chooses entries of one shard in one hold of the lock, and *marks* them.
//! 2. [`Tier::read_marked`] copies their bytes, without a lock, and the saver writes the copies.
//! 3. [`Tier::locate`] adds the location of a copy to the directory, if the marked entry is still there.
//!
//! Why a location never leads to an old copy: an entry is marked only in step 1. New entries are not marked, and a new time to live
//! takes the mark away. So a marked entry of this key that step 3 finds at the same block is the entry that step 1 has marked. The
//! only exception would be another step 1 in the meantime. A [`Batch`] comes from one hold of the lock, in which a key has one
//! visible entry, and only one saver works for a database. So a batch has at most one copy of each key, and a second batch does not
//! begin before the first one has ended. Comparing blocks and stamps instead of the mark would not be enough: both recur within a
//! few changes of a hot key. (A later note that the entry was valid, `reading.rs`, leaves the mark: the copy may then be served
//! stale for a shorter time.)
//!
//! A *shard* is a part of the tier with a lock of its own. The *saver* is the worker of the extension that copies the values of a
//! database to tables (`store/table/saver/`). A *space* is a set of keys in one database. The *directory* of a shard has the
//! location of each copy (`directory.rs`).

use super::Tier;
use super::entry::Entry;
use super::freeing::Unlinked;
use super::guard::Guard;
use super::header::{HEADER_BYTES, HIDDEN, Header, LINKED, MARKED};
use super::judge::Judge;
use super::shard::Shard;
use super::streak::Queue;
use crate::fence::FenceId;
use crate::figures::Counter;
use crate::host::Host;
use crate::location::Location;
use crate::value::{Kind, Meta, StaleOk};
use std::collections::TryReserveError;

/// The most entries of each queue that the search for entries to save looks at in one hold of the lock.
const LOOKED_AT_MAX: u32 = 256;

/// Marked entries of one shard, from one hold of its lock. The saver must read and locate them before it marks others.
#[derive(Debug, Default)]
pub struct Batch {
    marked: Vec<Marked>,
}

impl Batch {
    /// Makes an empty batch for up to `most` entries, or returns an error if there is no memory for it.
    pub fn with_room(most: usize) -> Result<Self, TryReserveError> {
        let mut marked = Vec::new();
        marked.try_reserve_exact(most)?;
        Ok(Self { marked })
    }

    /// Returns the marked entries.
    pub fn marked(&self) -> &[Marked] {
        &self.marked
    }

    fn is_full(&self) -> bool {
        self.marked.len() == self.marked.capacity()
    }
}

/// An entry that is being saved.
#[derive(Clone, Copy, Debug)]
pub struct Marked {
    /// The shard of the entry's key.
    shard: u32,
    /// The first block of the entry.
    block: u32,
    /// The header of the entry when it was marked.
    header: Header,
    /// The properties of the value.
    meta: Meta,
    /// The number of bytes of the note.
    note_len: usize,
}

impl Marked {
    /// Returns the OID of the space.
    pub fn space(&self) -> u32 {
        self.header.space()
    }

    /// Returns the role that owns the entry, or 0.
    pub fn role(&self) -> u32 {
        self.header.role()
    }

    /// Returns the properties of the value.
    pub fn meta(&self) -> Meta {
        self.meta
    }

    /// Returns the length of the note in bytes.
    pub fn note_len(&self) -> usize {
        self.note_len
    }

    /// Returns the length of the key in bytes.
    pub fn key_len(&self) -> usize {
        self.header.key_len()
    }

    /// Returns the number of dependencies.
    pub fn dependency_count(&self) -> usize {
        self.header.dependency_count()
    }

    /// Whether the entry is still the one that was marked. `guard` must be that of the entry's shard.
    fn is_still<H: Host>(&self, guard: &Guard<'_, H>) -> bool {
        let is_it = |entry: Entry<'_>| {
            let header = entry.header();
            entry.block == self.block
                && header.has(MARKED)
                && !header.has(HIDDEN)
                && header.hash() == self.header.hash()
                && header.space_id() == self.header.space_id()
                && header.role() == self.header.role()
        };
        !guard.poisoned() && guard.in_bucket(guard.bucket_of(self.header.hash())).any(is_it)
    }
}

impl<H: Host> Tier<'_, H> {
    /// Marks entries of a database that will be evicted soon and are not saved yet: the oldest ones of the eviction queues of one
    /// shard. With `again`, also entries that have a mark and no location: an earlier attempt has failed, or their location was
    /// pushed out of the directory. `admits` tells by the OID of its space whether an entry is to be saved; it is called under the
    /// lock, so it must be short and must not call the tier. Marks at most as many entries as the batch has room for, after
    /// emptying the batch.
    pub fn mark_oldest(
        &self,
        shard: u32,
        database: u32,
        again: bool,
        admits: impl Fn(u32) -> bool,
        batch: &mut Batch,
    ) {
        batch.marked.clear();
        if shard >= self.layout.shards {
            return;
        }
        let mut judge = Judge::new(self);
        let guard = self.locked(shard);
        for queue in [Queue::Small, Queue::Main] {
            let mut left = if guard.poisoned() { 0 } else { LOOKED_AT_MAX };
            let mut next = guard.oldest(queue);
            while let Some(entry) = next.filter(|_| left > 0 && !batch.is_full()) {
                if again || !entry.header().has(MARKED) {
                    self.mark(&guard, &entry, database, &admits, &mut judge, batch);
                }
                next = guard.newer(&entry);
                left -= 1;
            }
        }
    }

    /// Does the same as [`mark_oldest`](Self::mark_oldest) for entries without a mark in some buckets, in any place of the queues.
    /// Buckets are counted over all shards. Returns the bucket to continue with, or None behind the last one. If the batch is full
    /// within a bucket, the rest of the bucket waits for the next walk.
    pub fn mark_bucket(
        &self,
        from: u64,
        database: u32,
        admits: impl Fn(u32) -> bool,
        batch: &mut Batch,
    ) -> Option<u64> {
        batch.marked.clear();
        let buckets = u64::from(self.layout.buckets);
        let shard = u32::try_from(from / buckets).ok().filter(|shard| *shard < self.layout.shards)?;
        let mut judge = Judge::new(self);
        let guard = self.locked(shard);
        let first = (from % buckets) as u32;
        let until = self.layout.buckets.min(first.saturating_add(super::judge::BUCKETS_PER_HOLD));
        guard.prefetch_buckets(first..until);
        let mut at = first;
        while at < until && !guard.poisoned() && !batch.is_full() {
            for entry in guard.in_bucket(at) {
                // A marked entry has had its turn. Most of these were saved, and may have lost their location for lack of room:
                // saving such an entry again would push another location out. It is saved when it is about to be evicted.
                if entry.header().has(MARKED) {
                    continue;
                }
                self.mark(&guard, &entry, database, &admits, &mut judge, batch);
            }
            at += 1;
        }
        let at = if guard.poisoned() { until } else { at };
        Some(from - u64::from(first) + u64::from(at))
    }

    /// Marks an entry and adds it to the batch, if it is to be saved: it is in the database, is admitted, is no counter, may still
    /// be served, and has no location.
    fn mark(
        &self,
        guard: &Guard<'_, H>,
        entry: &Entry<'_>,
        database: u32,
        admits: impl Fn(u32) -> bool,
        judge: &mut Judge<'_, '_, H>,
        batch: &mut Batch,
    ) {
        let header = entry.header();
        let is_wanted = header.has(LINKED)
            && !header.has(HIDDEN)
            && header.database() == database
            && header.kind() != Kind::COUNTER
            && !batch.is_full()
            && guard.shard.location(header.hash()).is_none()
            && admits(header.space())
            && judge.is_useless(entry, &header).is_none();
        if is_wanted {
            entry.set_flag(MARKED, true);
            let (shard, block) = (guard.index(), entry.block);
            let meta = entry.meta(&self.layout, &header);
            let note_len = entry.note(&self.layout, &header).length;
            batch.marked.push(Marked { shard, block, header, meta, note_len });
        }
    }

    /// Copies the key, the dependencies, the note and the value of a marked entry, and returns how long it may be served stale, or
    /// None if it may not be. Takes no lock. The slices should have the lengths that [`Marked`] tells. The copy is right only if
    /// [`locate`](Self::locate) later finds the entry unchanged.
    pub fn read_marked(
        &self,
        marked: &Marked,
        key: &mut [u8],
        dependencies: &mut [FenceId],
        note: &mut [u8],
        value: &mut [u8],
    ) -> Option<StaleOk> {
        let entry = Entry::new(self.region, &self.layout, marked.block);
        let header = &marked.header;
        entry.copy(&self.layout, header, header.key_at(), key);
        for (index, fence) in dependencies.iter_mut().enumerate() {
            *fence = entry.dependency(&self.layout, header, index);
        }
        entry.copy(&self.layout, header, entry.note(&self.layout, header).at, note);
        entry.copy_value(&self.layout, header, value);
        entry.stale_ok(&self.layout, header)
    }

    /// Adds the location of a marked entry's copy to the directory. Returns false, and then the copy must not be used, if the entry
    /// has changed or gone since it was marked, or if the directory already has a location with these bits. With `leave`, the entry
    /// leaves the memory, and only the copy stays.
    pub fn locate(&self, marked: &Marked, location: Location, leave: bool) -> bool {
        let guard = Shard::new(self.region, &self.layout, marked.shard).lock(&self.host);
        if !marked.is_still(&guard) || !guard.add_location(marked.header.hash(), location) {
            return false;
        }
        if leave {
            let entry = guard.entry(marked.block);
            let mut unlinked = Unlinked::default();
            self.drop_entry(&guard, &entry, &entry.header(), Counter::Evicted, &mut unlinked);
            drop(guard);
            self.release_all(&mut unlinked);
        }
        true
    }
}

// The dependencies begin directly behind the header, so the header must end at a whole word.
const _: () = assert!(HEADER_BYTES.is_multiple_of(8));
