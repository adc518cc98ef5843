//! The parts that the tests of this crate share: hosts, and the memory, the sizes and the values of a small tier. A *tier* is the
//! cache, and its *host* is the process that it runs in (`host.rs`), which lends it locks and a clock.
//!
//! Unit tests see the inside of the crate, and the tests in `tests/` only its interface. Both use this file, so it belongs to the
//! crate. It exists only with the feature `testing`, which shipped builds do not have.
//!
//! The *region* is the shared memory of the tier, as words of 64 bits. A *shard* is a part of the tier with a lock of its own. A
//! *flight* is the right to publish a value that is being computed (`tier/flight.rs`).

use crate::fence::{FenceId, Stamp};
use crate::figures::Cost;
use crate::host::Host;
use crate::layout::Sizes;
use crate::sync::AtomicU64;
use crate::tier::flight::Owner;
use crate::value::{Kind, NewValue};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The sizes of a small tier for one backend, without saved values and without a journal. `bytes` is 0, because
/// [`Tier::format`](crate::Tier::format) takes the size of the region.
pub const SIZES: Sizes = Sizes {
    bytes: 0,
    reserved_fences: 4,
    relation_fences: 4,
    tag_fences: 16,
    backends: 1,
    shards: 2,
    locations: 0,
    journal_lines: 0,
    patterns: 0,
};

/// Returns zeroed memory for a region.
pub fn memory(bytes: usize) -> Vec<AtomicU64> {
    (0..bytes / 8).map(|_| AtomicU64::new(0)).collect()
}

/// Returns a value that never expires. Its stamp is [`Stamp::VOID`], so any change of a dependency makes it invalid, even a change
/// before it was stored.
pub fn value<'v>(bytes: &'v [u8], dependencies: &'v [FenceId]) -> NewValue<'v> {
    NewValue {
        bytes,
        note: &[],
        kind: Kind(1),
        stamp: Stamp::VOID,
        expires: u32::MAX,
        cost: Cost::NONE,
        dependencies,
    }
}

/// Returns the owner of a flight in a session without a role.
pub fn owner(session: u32) -> Owner {
    Owner { session, role: 0 }
}

/// A host for one thread that checks how the tier uses it. Its clock only moves when the test sets it, its locks detect a second
/// held lock, and requests for blocks can fail.
#[derive(Default)]
pub struct TestHost {
    /// The tick.
    pub now: Cell<u32>,
    /// The time that [`Host::moment`] returns.
    pub moment: Cell<u64>,
    /// The shard whose lock is held.
    held: Cell<Option<u32>>,
    /// How many locks were taken.
    pub locks: Cell<u64>,
    /// The number of the request for blocks from which on all requests fail: 1 is the next request. It counts down to 1. 0 means
    /// that none fails.
    pub failing: Cell<u32>,
    /// The number of the lock that fails the test, because the operation does not seem to end. It counts down to 1. 0 means no
    /// limit.
    pub patience: Cell<u32>,
}

impl Host for &TestHost {
    fn now(&self) -> u32 {
        self.now.get()
    }
    fn lock(&self, shard: u32) {
        assert_eq!(self.held.replace(Some(shard)), None, "a second lock is taken");
        let left = self.patience.get();
        assert_ne!(left, 1, "this goes on for ever");
        self.patience.set(left.saturating_sub(1));
        self.locks.set(self.locks.get() + 1);
    }
    fn unlock(&self, shard: u32) {
        assert_eq!(self.held.replace(None), Some(shard), "a lock is released that is not held");
    }
    fn moment(&self) -> u64 {
        self.moment.get()
    }
    fn refuses_blocks(&self) -> bool {
        let left = self.failing.get();
        self.failing.set(if left > 1 { left - 1 } else { left });
        left == 1
    }
}

/// A host for many threads, whose locks spin. Its clock stands at tick 1.
pub struct SpinningHost {
    locks: Vec<AtomicBool>,
}

impl SpinningHost {
    /// Creates the locks for this number of shards.
    pub fn new(shards: u32) -> Self {
        Self { locks: (0..shards).map(|_| AtomicBool::new(false)).collect() }
    }
}

impl Host for &SpinningHost {
    fn now(&self) -> u32 {
        1
    }
    fn lock(&self, shard: u32) {
        while self.locks[shard as usize].swap(true, Ordering::Acquire) {
            // The holder of the lock may need this processor to continue.
            std::thread::yield_now();
        }
    }
    fn unlock(&self, shard: u32) {
        self.locks[shard as usize].store(false, Ordering::Release);
    }
    fn pause(&self) {
        std::thread::sleep(Duration::from_millis(50));
    }
}
