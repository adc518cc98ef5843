//! A *tier*, the cache of the crate `pg_cache_core`, in this process's own memory, so that measurements of the core need no server.
//! This file has what PostgreSQL provides in a server: the memory of the tier, called its *region*, the locks and the clock.
//!
//! A *shard* is a part of a tier with a lock of its own. A *fence* is a word in the region that says when a dependency of entries
//! last changed. A *stamp* is a number on the clock of these changes (`src/core/fence/mod.rs`).

use pg_cache_core::{Cost, Host, Key, Kind, NewValue, Region, Scope, Sizes, Stamp, Tier};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The number of words in a cache line. A region begins on a cache line.
const LINE: usize = Region::ALIGNMENT / 8;

/// Memory for a region.
pub struct Memory {
    /// The memory, a cache line longer than the region.
    words: Vec<AtomicU64>,
    /// The position of the first word of the region, which begins on a cache line.
    start: usize,
    /// The number of words of the region.
    count: usize,
}

impl Memory {
    /// Allocates zeroed memory and touches every page, so that no measurement includes the first use of a page. A rest of `bytes`
    /// that is less than 8 is left out.
    pub fn of_bytes(bytes: usize) -> Self {
        let count = bytes / 8;
        // `black_box` hides that the value is 0. For known zeroes, the system would provide each page only on its first use.
        let words: Vec<_> = (0..count + LINE).map(|_| AtomicU64::new(black_box(0))).collect();
        let start = words.as_ptr().align_offset(Region::ALIGNMENT).min(LINE);
        Self { words, start, count }
    }

    /// Returns the whole memory as a region.
    pub fn region(&self) -> Region<'_> {
        Region::of_words(&self.words[self.start..self.start + self.count])
    }
}

/// The host of a tier that only one thread uses: it needs no locks. Its clock stands still, so nothing expires.
pub struct Alone;

impl Host for Alone {
    fn now(&self) -> u32 {
        1
    }
    fn lock(&self, _: u32) {}
    fn unlock(&self, _: u32) {}
}

/// Returns the sizes of a tier, with as many fences as in a small installation. The core chooses the number of shards.
/// [`Tier::format`] ignores `bytes` and takes the region's own size, so a caller that only formats may pass 0. At most 4 threads
/// may use the tier.
pub fn sizes(bytes: usize) -> Sizes {
    Sizes {
        bytes,
        reserved_fences: 64,
        relation_fences: 256,
        tag_fences: 16_384,
        backends: 4,
        shards: 0,
        locations: 0,
        journal_lines: 0,
        // No measurement invalidates by a pattern, and the places for patterns would take more memory than the small tiers have.
        patterns: 0,
    }
}

/// Returns the scope of all entries in a measurement: their database, their space and their role.
pub fn scope<H: Host>(tier: &Tier<'_, H>) -> Scope {
    tier.scope(1, 1, 0)
}

/// Returns a key in the scope. `hash` must be the same for the same bytes. `bytes` must not be empty, nor longer than a key may be.
pub fn key(scope: Scope, bytes: &[u8], hash: u64) -> Key<'_> {
    Key::new(scope, bytes, hash).expect("no key here is empty or longer than keys may be")
}

/// Returns a value that never expires, depends on nothing, and has no known cost. No change is later than its stamp.
pub fn value(bytes: &[u8]) -> NewValue<'_> {
    NewValue {
        bytes,
        note: &[],
        kind: Kind(1),
        stamp: Stamp::LATEST,
        expires: u32::MAX,
        cost: Cost::NONE,
        dependencies: &[],
    }
}

/// The host of a tier that threads share. Its locks spin, and its clock stands still.
pub struct Spinning {
    locks: Vec<AtomicBool>,
}

impl Spinning {
    /// Creates the locks for a tier of these sizes. `sizes.bytes` must be the size of its region.
    pub fn of(sizes: Sizes) -> Self {
        let shards = Tier::<&Self>::shards_of(sizes).expect("the tier is large enough");
        Self { locks: (0..shards).map(|_| AtomicBool::new(false)).collect() }
    }
}

impl Host for &Spinning {
    fn now(&self) -> u32 {
        1
    }
    fn lock(&self, shard: u32) {
        while self.locks[shard as usize].swap(true, Ordering::Acquire) {
            // The holder of the lock may need this core to continue.
            std::thread::yield_now();
        }
    }
    fn unlock(&self, shard: u32) {
        self.locks[shard as usize].store(false, Ordering::Release);
    }
}
