//! The services of the server that the core (`pg_cache_core`, which knows no PostgreSQL) uses: locks, and the clock. A *shard* is a
//! part of the cache with a lock of its own. The *tier* is the cache itself.

#![allow(unsafe_code)]

use super::process::check_for_interrupts;
use crate::pg::clock;
use crate::pg::local::check_thread;
use pg_cache_core::{Host, Tier};
use pgrx::prelude::*;
use std::ffi::CStr;
use std::time::Duration;

unsafe extern "C" {
    /// These functions are called without pgrx's guard, which costs more than the lock itself: a change of a key takes and releases
    /// two locks, and so does a commit that has written. They raise an error only if 200 locks are held, or if the lock to release
    /// is not held.
    pub fn LWLockAcquire(lock: *mut pg_sys::LWLock, mode: pg_sys::LWLockMode::Type) -> bool;
    pub fn LWLockRelease(lock: *mut pg_sys::LWLock);
}

/// The name of the shared memory and of the tranche of its locks.
pub(super) const NAME: &CStr = c"pg_cache";

/// The tier as the whole library uses it.
pub type HotTier = Tier<'static, Backend>;

/// The services of the server that the core uses.
#[derive(Debug)]
pub struct Backend {
    /// An array with a lock for each shard.
    locks: *mut pg_sys::LWLockPadded,
    /// The number of locks.
    shards: u32,
    /// When the clock began, see `clock.rs`.
    began_ms: u64,
}

// SAFETY: the locks are in shared memory and made for concurrent use. Only the session's thread acquires and releases them
// (`lock_of`).
unsafe impl Send for Backend {}
// SAFETY: as above.
unsafe impl Sync for Backend {}

impl Host for Backend {
    #[inline]
    fn now(&self) -> u32 {
        clock::tick(self.began_ms)
    }

    fn moment(&self) -> u64 {
        clock::statement_clock()
    }

    fn lock(&self, shard: u32) {
        // SAFETY: a lock of the tranche. Only the core has a Backend. It holds one lock at a time and calls no function of the
        // server while it holds one. So no other process can wait for us in a cycle, and no error can leave the lock held.
        unsafe { LWLockAcquire(self.lock_of(shard), pg_sys::LWLockMode::LW_EXCLUSIVE) };
    }

    fn unlock(&self, shard: u32) {
        // SAFETY: as in `lock`; the core releases the lock that it has acquired.
        unsafe { LWLockRelease(self.lock_of(shard)) };
    }

    fn pause(&self) {
        check_for_interrupts();
        std::thread::sleep(PAUSE);
    }
}

/// How long `cache_check` waits before it looks at a finding again: a finding may be a commit that is under way. The time is longer
/// than a commit takes in shared memory, and than a descheduled session waits for a processor.
const PAUSE: Duration = Duration::from_millis(50);

impl Backend {
    /// Makes the host of this process's tier.
    ///
    /// # Safety
    /// Shared memory must exist and contain a lock for each of `shards` shards, as `creation.rs` asks for.
    pub(super) unsafe fn new(shards: u32, began_ms: u64) -> Self {
        // SAFETY: as the caller promises.
        Self { locks: unsafe { pg_sys::GetNamedLWLockTranche(NAME.as_ptr()) }, shards, began_ms }
    }

    /// Returns the lock of a shard. The core reads the number of shards from shared memory, which may be damaged: shards beyond the
    /// last lock share that lock.
    fn lock_of(&self, shard: u32) -> *mut pg_sys::LWLock {
        check_thread();
        let index = shard.min(self.shards.saturating_sub(1)) as usize;
        // SAFETY: within the tranche, which has a lock for each shard, and at least one. A padded lock begins with the lock.
        unsafe { &raw mut (*self.locks.add(index)).lock }
    }
}
