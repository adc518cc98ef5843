//! A condition variable of the server in shared memory, on which sessions wait for a change of a key (`queue.rs`). Beside it is a
//! *mark*, a word that says whether sessions may be waiting.
//!
//! After a change of a key, a session reads the mark. If it is not set, the session does nothing more: a condition without waiters
//! costs only that.
//!
//! No wakeup is lost, because both sides keep an order. A waiter enters the condition's queue, sets the mark, looks at its key, and
//! then sleeps. It looks under the lock of the key's *shard*, the part of the cache that the key is in. A session that changes a
//! key does so under the same lock, and reads the mark afterwards. So either it finds the mark, or the waiter found the change. It
//! clears the mark before it wakes the queue: every waiter that had set the mark by then is in the queue already.

#![allow(unsafe_code)]

use pgrx::prelude::*;
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU64, Ordering};

/// A condition, on a cache line of its own.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Condition {
    /// The server's variable. Other processes write to it, so this code must never read it directly.
    variable: UnsafeCell<pg_sys::ConditionVariable>,
    /// 1 if sessions may be waiting, otherwise 0.
    marked: AtomicU64,
}

impl Condition {
    /// Makes this a condition without waiters.
    ///
    /// # Safety
    /// No other process may know the condition yet.
    pub unsafe fn format(&self) {
        // SAFETY: shared memory of the right size and alignment. The caller promises that no other process accesses it.
        unsafe { pg_sys::ConditionVariableInit(self.variable.get()) };
        self.marked.store(0, Ordering::Relaxed);
    }

    /// Wakes all waiting sessions. The call is bounded, cannot fail and does not allocate. The caller must not hold any lock.
    pub fn wake(&self) {
        if self.marked.load(Ordering::SeqCst) != 0 && self.marked.swap(0, Ordering::SeqCst) != 0 {
            // SAFETY: the postmaster formatted the variable before any backend existed. The call takes the variable's spinlock and
            // sets latches.
            unsafe { pg_sys::ConditionVariableBroadcast(self.variable.get()) };
        }
    }

    /// Enters the queue, and leaves any other condition's queue: the server knows one queue for each process. The session must
    /// [`leave`] the queue when its wait is over. After an error, the server does that when it aborts the (sub)transaction.
    pub fn enter(&self) {
        // SAFETY: as in `wake`.
        unsafe { pg_sys::ConditionVariablePrepareToSleep(self.variable.get()) };
    }

    /// Sets the mark. The session must have entered the queue, and must set the mark before each look at its key.
    pub fn mark(&self) {
        self.marked.swap(1, Ordering::SeqCst);
    }

    /// Sleeps until another session wakes this one, or until so many milliseconds are over. The session must have entered the queue
    /// and looked at its key after [`mark`](Self::mark), and must look again afterwards. If the session is cancelled or terminated
    /// meanwhile, this raises an error. The caller must not hold any lock.
    pub fn sleep(&self, ms: u64) {
        let ms = ms.clamp(1, i32::MAX as u64) as std::ffi::c_long;
        // SAFETY: as in `wake`. An error inside of the call passes through as a panic.
        unsafe { pg_sys::ConditionVariableTimedSleep(self.variable.get(), ms, event()) };
    }
}

/// Leaves the queue that the session has entered, if it has entered one.
pub fn leave() {
    // SAFETY: removes the session from the queue that it is in, if it still is in one.
    unsafe {
        pg_sys::ConditionVariableCancelSleep();
    }
}

/// Returns the wait event that pg_stat_activity shows.
fn event() -> u32 {
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    {
        static EVENT: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
        // SAFETY: the server copies the name, and returns the same number for it in every session.
        *EVENT.get_or_init(|| unsafe { pg_sys::WaitEventExtensionNew(c"PgCacheLease".as_ptr()) })
    }
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    pg_sys::PG_WAIT_EXTENSION
}
