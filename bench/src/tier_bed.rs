//! A tier in this process's own memory: what is measured of the core needs no server.

use pg_cache_core::{Cost, Host, Key, Kind, NewValue, Region, Scope, Sizes, Stamp, Tier};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Words of a cache line, on which a region begins.
const LINE: usize = Region::ALIGNMENT / 8;

/// Memory for a region.
pub struct Memory {
    words: Vec<AtomicU64>,
    start: usize,
    count: usize,
}

impl Memory {
    /// Zeroes, all of them touched: the first use of a page is not to be measured.
    pub fn of_bytes(bytes: usize) -> Self {
        let count = bytes / 8;
        // Known zeroes would be left to the system, which gives a page when somebody comes to it.
        let words: Vec<_> = (0..count + LINE).map(|_| AtomicU64::new(black_box(0))).collect();
        let start = words.as_ptr().align_offset(Region::ALIGNMENT).min(LINE);
        Self { words, start, count }
    }

    /// All of it.
    pub fn region(&self) -> Region<'_> {
        Region::of_words(&self.words[self.start..self.start + self.count])
    }
}

/// The surroundings of a tier that one thread has for itself.
pub struct Alone;

impl Host for Alone {
    fn now(&self) -> u32 {
        1
    }
    fn lock(&self, _: u32) {}
    fn unlock(&self, _: u32) {}
}

/// A tier of a size, with as many fences as a small installation would have.
pub fn sizes(bytes: usize) -> Sizes {
    Sizes { bytes, reserved_fences: 64, relation_fences: 256, tag_fences: 16_384, counters: 4, shards: 0 }
}

/// The scope that everything is stored in.
pub fn scope<H: Host>(tier: &Tier<'_, H>) -> Scope {
    tier.scope(1, 1, 0)
}

/// A key of that scope.
pub fn key(scope: Scope, bytes: &[u8], hash: u64) -> Key<'_> {
    Key::new(scope, bytes, hash).expect("no key here is empty or longer than keys may be")
}

/// A value that is right for ever and depends on nothing.
pub fn value(bytes: &[u8]) -> NewValue<'_> {
    NewValue {
        bytes,
        kind: Kind(1),
        stamp: Stamp::LATEST,
        expires: u32::MAX,
        cost: Cost::NONE,
        dependencies: &[],
    }
}

/// The surroundings of a tier that threads share: locks that spin.
pub struct Spinning {
    locks: Vec<AtomicBool>,
}

impl Spinning {
    /// Locks for a tier of these sizes.
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
            // The holder may need this very core to go on.
            std::thread::yield_now();
        }
    }
    fn unlock(&self, shard: u32) {
        self.locks[shard as usize].store(false, Ordering::Release);
    }
}
