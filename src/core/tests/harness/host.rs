//! A host that checks how the tier uses it.

use pg_cache_core::Host;
use std::cell::Cell;

/// A host with a clock that only moves when the test sets it, locks that detect a second held lock, and requests for
/// blocks that can fail.
#[derive(Default)]
pub struct TestHost {
    pub now: Cell<u32>,
    held: Cell<Option<u32>>,
    /// The number of the request for blocks from which on all requests fail: 1 is the next request. It counts down to
    /// 1. 0 means that none fails.
    pub failing: Cell<u32>,
    /// The number of the lock that fails the test, because the operation does not seem to end. It counts down to 1. 0
    /// means no limit.
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
    }
    fn unlock(&self, shard: u32) {
        assert_eq!(self.held.replace(None), Some(shard), "a lock is released that is not held");
    }
    fn refuses_blocks(&self) -> bool {
        let left = self.failing.get();
        self.failing.set(if left > 1 { left - 1 } else { left });
        left == 1
    }
}
