//! A shard, a part of the tier (the cache in shared memory): a lock, a hash index over the entries whose keys hash to it, their
//! eviction queues, and a share of the blocks. This file finds entries without the lock; `guard.rs` works under it.
//!
//! Access rules:
//! - *Writers* hold the shard's lock. Every change to the links of a bucket must happen inside `Guard::change`, during which the
//!   shard's `version` is odd.
//! - *Readers* hold no lock. A reader reads `version`, walks the bucket, reads the header of the entry, and reads `version` again.
//!   If both reads return the same even number, no entry was linked or unlinked in between, so the reader found a live entry of
//!   this key. The reader also notes the version of the entry's *zone*. A zone is 64 KB of blocks, and its version moves when
//!   entries that begin in it die: once for each of them, or once for several that die together. Then the reader copies the value
//!   and finally reads the zone version again. If the zone version did not move, the entry lived during the whole copy. A live
//!   entry is never rewritten except for single words, such as its expiry time or its counter.
//! - Blocks belong to their shard; an entry belongs to the shard of its key. An entry may use blocks of other shards. The locks of
//!   these shards are then acquired one after the other, never two at once.
//!
//! Why a reader never accepts the bytes of a dead entry: a writer that frees an entry must first move the zone version, and then
//! give the blocks back under a lock. The next writer that takes these blocks under that lock executes a release fence before it
//! stores the first word. A reader that saw such a word executes an acquire fence before it reads the zone version again, and
//! therefore sees that it moved. (Boehm, "Can seqlocks get along with programming language memory models?", 2012. These fences are
//! instructions of the processor, not those of `fence/`.)
//!
//! A panic while the lock is held *poisons* the shard: it is switched off. Reads miss, writes are refused, and
//! [`crate::Tier::try_check`] reports it.
//!
//! An entry is *linked* while it is in the chain of its hash bucket. A *hidden* entry is an announced change, which hides the value
//! of its key until the change is confirmed (`publishing.rs`). A *flight* says which session computes the value of a key
//! (`flight.rs`). A *location* says where the copy of a value is saved (`directory.rs`).

use super::entry::Entry;
use super::header::Header;
use super::runs::NONE;
use crate::hash::reduce;
use crate::key::Key;
use crate::layout::{LINE, Layout};
use crate::region::Region;
use crate::sync::{AtomicU64, Ordering, fence, pause};

// The words of the control block: three cache lines of eight words (`CONTROL_WORDS` in `layout.rs`), all of them 0 in a new shard
// except `AT_FREE`. Line 0 has the word that readers look at; no other word may be in it, because its line would move between
// processors. All words of lines 1 and 2 have a use, so another one needs a larger `CONTROL_WORDS`.
/// The version of the links, with two bits of state: [`CHANGING`] and [`POISONED`].
pub(super) const AT_VERSION: usize = 0;
// Lines 1 and 2 are only accessed under the lock.
/// The block, counted from the shard's first, at which the next search for free blocks begins.
pub(super) const AT_CURSOR: usize = LINE;
/// The number of free blocks.
pub(super) const AT_FREE: usize = LINE + 1;
/// The state of both eviction queues, [`QUEUE_WORDS`] each.
pub(super) const AT_QUEUES: usize = LINE + 2;
/// The number of linked entries that are not hidden.
pub(super) const AT_ENTRIES: usize = LINE + 6;
/// The number of blocks of the entries that were evicted so far while they were still valid.
pub(super) const AT_EVICTED: usize = LINE + 7;
/// The bucket at which the sweep of this shard continues.
pub(super) const AT_SWEPT: usize = 2 * LINE;
/// The number of hidden entries.
pub(super) const AT_HIDDEN: usize = 2 * LINE + 1;
/// The number of IDs that were given out, for flights of all purposes.
pub(super) const AT_LEASES: usize = 2 * LINE + 2;
/// The state of the eviction policy, see `eviction.rs`.
pub(super) const AT_POLICY: usize = 2 * LINE + 3;
/// The number of slots that have a flight.
pub(super) const AT_FLIGHTS: usize = 2 * LINE + 4;
/// The averages of the eviction policy, see `weight.rs`.
pub(super) const AT_AVERAGES: usize = 2 * LINE + 5;
/// How long entries stay in the main queue, see `MainLap` in `eviction.rs`.
pub(super) const AT_MAIN_LAP: usize = 2 * LINE + 6;
/// The number of locations in the directory of the shard.
pub(super) const AT_LOCATIONS: usize = 2 * LINE + 7;
/// The words of a queue's state: its two ends (newest : 32 | oldest : 32), and the number of blocks in it.
pub(super) const QUEUE_WORDS: usize = 2;

/// Bit of a version: a writer is changing links right now.
pub(super) const CHANGING: u64 = 1;
/// Bit of a version: the shard is switched off.
pub(super) const POISONED: u64 = 1 << 63;

/// How many times a reader looks at an odd version before it stops waiting.
const PATIENCE: u32 = 200;

/// An entry that a reader found, and the zone version that later tells whether the entry is still alive.
pub(crate) struct Sighting<'m> {
    /// The entry.
    pub entry: Entry<'m>,
    /// The header of the entry, as it was found.
    pub header: Header,
    /// The version of the entry's zone.
    zone: &'m AtomicU64,
    /// The value of that version when the entry was found.
    moved: u64,
}

impl Sighting<'_> {
    /// Returns whether the entry has lived until now. If it has, everything read of it since the lookup is valid. If not, the
    /// caller must discard what it has read.
    #[inline(always)]
    pub(crate) fn lived(&self) -> bool {
        fence(Ordering::Acquire);
        self.zone.load(Ordering::Relaxed) == self.moved
    }
}

/// The outcome of a lookup without a lock. Only `Found` and `Absent` tell of the key.
pub(crate) enum Look<'m> {
    /// The key has this entry, perhaps a hidden one.
    Found(Sighting<'m>),
    /// The key has no entry.
    Absent,
    /// A writer interfered, so the lookup has no result.
    Disturbed,
    /// The shard is switched off.
    Poisoned,
}

/// A shard, identified by its index.
#[derive(Clone, Copy)]
pub(crate) struct Shard<'m> {
    /// The shared memory.
    pub(super) region: Region<'m>,
    /// The positions of all structures in the region.
    pub(super) layout: &'m Layout,
    /// The number of the shard.
    pub index: u32,
    /// The position of the shard's first word.
    pub(super) at: usize,
}

impl<'m> Shard<'m> {
    pub(crate) fn new(region: Region<'m>, layout: &'m Layout, index: u32) -> Self {
        Self { region, layout, index, at: layout.shard_at(index) }
    }

    /// Returns the shard of a key. The shard is chosen by the low half of the hash, the bucket by the high half.
    pub(crate) fn of_hash(region: Region<'m>, layout: &'m Layout, hash: u64) -> Self {
        Self::new(region, layout, reduce(hash << 32, layout.shards))
    }

    /// Initializes the count of free blocks of a new shard. All other words must be 0 already.
    pub(crate) fn format(&self) {
        self.region.store(self.at + AT_FREE, self.layout.blocks.into());
    }

    /// Prefetches the cache line that holds the bucket of a hash.
    #[inline(always)]
    pub(crate) fn prefetch_bucket(&self, hash: u32) {
        let bucket = self.bucket_of(hash);
        self.region.prefetch(self.at + self.layout.buckets_at + (bucket / 2) as usize);
    }

    /// Prefetches the cache lines of the first entry in the bucket of a hash. The entry may die at any moment, so this function
    /// reads nothing of it. If the bucket is empty, the reader will look for a location, so its cache line is prefetched instead.
    #[inline(always)]
    pub(crate) fn prefetch_entry(&self, hash: u32) {
        let block = self.bucket(self.bucket_of(hash));
        if block != NONE {
            let entry = self.entry(block);
            entry.prefetch_header();
            entry.prefetch();
            self.region.prefetch(self.layout.visited_bit(block).0);
        } else {
            self.prefetch_location(hash);
        }
    }

    /// Prefetches the cache line of the directory that may have the location of a hash.
    #[inline(always)]
    pub(crate) fn prefetch_location(&self, hash: u32) {
        if let Some(set) = self.location_set(hash) {
            self.region.prefetch(set);
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

    /// Walks a bucket and returns the first entry of a key whose header is `wanted`. Passes at most `steps` entries: without the
    /// lock the links may lead anywhere, and the caller must check afterwards that the version has not changed.
    ///
    /// If a key has several entries, all but the last are hidden. So the first entry tells whether a transaction is changing the
    /// key.
    #[inline(always)]
    pub(super) fn walk(
        &self,
        key: &Key<'_>,
        mut steps: u32,
        wanted: impl Fn(&Header) -> bool,
    ) -> Option<(Entry<'m>, Header)> {
        let hash = key.fingerprint();
        let mut block = self.bucket(self.bucket_of(hash));
        while block != NONE && steps > 0 {
            let entry = self.entry(block);
            entry.prefetch();
            let words = entry.header_words()?;
            let first = words[0].load(Ordering::Relaxed);
            if (first >> 32) as u32 == hash {
                let header = Header::load(words);
                if entry.is_of(self.layout, &header, key) && wanted(&header) {
                    return Some((entry, header));
                }
            }
            block = first as u32;
            steps -= 1;
        }
        None
    }

    pub(super) fn entry(&self, block: u32) -> Entry<'m> {
        Entry::new(self.region, self.layout, block)
    }

    /// Returns the index of the bucket for the 32 bits of the hash that an entry keeps.
    #[inline]
    pub(super) fn bucket_of(&self, hash: u32) -> u32 {
        reduce(u64::from(hash) << 32, self.layout.buckets)
    }

    /// Returns the first block of the first entry in a bucket, or [`NONE`] if the bucket is empty. A word has two buckets.
    #[inline]
    pub(super) fn bucket(&self, index: u32) -> u32 {
        let word = self.region.load(self.at + self.layout.buckets_at + (index / 2) as usize);
        (word >> (index % 2 * 32)) as u32
    }

    /// Writes a bucket. The caller must hold the lock, and must be inside `Guard::change`.
    pub(super) fn set_bucket(&self, index: u32, block: u32) {
        set_half(&self.region, self.at + self.layout.buckets_at, index, block);
    }

    /// Returns whether the shard is switched off. It stays off until the region is formatted again.
    pub(crate) fn poisoned(&self) -> bool {
        self.region.load(self.at + AT_VERSION) & POISONED != 0
    }
}

/// The most entries that a reader passes in a bucket. A bucket has fewer unless the hash is bad: a full shard has about four
/// entries for each bucket at most, because there is a bucket for every 256 bytes and the smallest entry takes 64. Readers report a
/// miss for an entry beyond this limit. A lock holder walks to the end of the bucket, because it must not overlook an entry that it
/// has to remove.
pub(super) const STEPS_MAX: u32 = 4096;

/// Writes one half of a word in an array of 32-bit numbers. The caller must hold the lock.
pub(super) fn set_half(region: &Region<'_>, at: usize, index: u32, value: u32) {
    let at = at + (index / 2) as usize;
    let shift = index % 2 * 32;
    let word = region.load(at);
    region.store(at, word & !(u64::from(u32::MAX) << shift) | u64::from(value) << shift);
}
