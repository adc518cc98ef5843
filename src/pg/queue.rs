//! Queues of sessions that wait until another session has finished its work on a key.
//!
//! A queue is a condition variable of the server, with a mark beside it that says whether the queue may have waiters. A session that
//! changes a key reads the mark first, so empty queues cost nothing more. Keys share queues by their hash, so a session may be woken for
//! another key; it then looks at its own key and sleeps again.
//!
//! No wakeup is lost, because both sides keep an order. A waiter enters the queue, then sets the mark, then looks at its key under the
//! lock of the key's shard, then sleeps. A session that changes a key does so under the same lock, and reads the mark afterwards. So
//! either it finds the mark, or the waiter found the change. It clears the mark before it wakes the queue: every waiter that had set the
//! mark by then is in the queue already.

#![allow(unsafe_code)]

use super::{clock, shared};
use pgrx::prelude::*;
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

/// A queue, on a cache line of its own.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Queue {
    /// The server's variable. Other processes write to it, so this code must never read it directly.
    variable: UnsafeCell<pg_sys::ConditionVariable>,
    marked: AtomicU64,
}

impl Queue {
    /// Makes this an empty queue.
    ///
    /// # Safety
    /// No other process may know the queue yet.
    pub unsafe fn format(&self) {
        // SAFETY: shared memory of the right size and alignment. The caller promises that no other process accesses it.
        unsafe { pg_sys::ConditionVariableInit(self.variable.get()) };
        self.marked.store(0, Ordering::Relaxed);
    }
}

/// Wakes all sessions that wait for a key with this hash. The call is bounded, cannot fail and does not allocate. The caller must not
/// hold any lock.
pub fn wake(hash: u64) {
    if let Some(queue) = shared::queue(hash)
        && queue.marked.load(Ordering::SeqCst) != 0
        && queue.marked.swap(0, Ordering::SeqCst) != 0
    {
        // SAFETY: the postmaster formatted the variable before any backend existed. The call takes the variable's spinlock and sets
        // latches.
        unsafe { pg_sys::ConditionVariableBroadcast(queue.variable.get()) };
    }
}

/// Wakes all waiting sessions.
pub fn wake_all() {
    (0..shared::QUEUES as u64).for_each(wake);
}

/// A session's place in a queue, until dropped.
#[derive(Debug)]
pub struct Waiter {
    queue: &'static Queue,
    /// Not Send: the server knows one place in one queue for each session.
    alone: PhantomData<*const ()>,
}

impl Waiter {
    /// Enters the queue of a key: every later change of the key wakes this session. None if there is no cache.
    pub fn of(hash: u64) -> Option<Self> {
        let queue = shared::queue(hash)?;
        // SAFETY: as in `wake`. The call also removes the session from any other queue.
        unsafe { pg_sys::ConditionVariablePrepareToSleep(queue.variable.get()) };
        Some(Self { queue, alone: PhantomData })
    }

    /// Sets the mark. The session must call this before it looks at its key: every change after that wakes it.
    pub fn mark(&self) {
        self.queue.marked.swap(1, Ordering::SeqCst);
    }

    /// Sleeps until another session wakes this one, or until the time is over. If the session is cancelled or terminated meanwhile, this
    /// raises an error.
    pub fn sleep(&self, ms: u64) {
        let ms = ms.clamp(1, i32::MAX as u64) as std::ffi::c_long;
        // SAFETY: as in `wake`. An error inside of the call passes through as a panic, which drops this value.
        unsafe { pg_sys::ConditionVariableTimedSleep(self.queue.variable.get(), ms, event()) };
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // SAFETY: removes the session from the queue that it is in, if it still is in one.
        unsafe {
            pg_sys::ConditionVariableCancelSleep();
        }
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

/// Returns the present time in milliseconds, on the clock that is used for deadlines of waiting.
pub fn now_ms() -> u64 {
    clock::now_ms()
}

/// Returns how many milliseconds this session may wait for a lock; None if `lock_timeout` is off.
pub fn lock_timeout_ms() -> Option<u64> {
    // SAFETY: a plain global that holds the session's own setting.
    let ms = unsafe { pg_sys::LockTimeout };
    u64::try_from(ms).ok().filter(|ms| *ms > 0)
}
