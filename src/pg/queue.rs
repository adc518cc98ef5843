//! Queues of those who wait for somebody else to be done with a key.
//!
//! A queue is one of the server's condition variables, with a mark beside it that says whether anybody may be in it: whoever
//! changes a key looks at the mark, and nobody pays for queues that are empty. Keys share queues by their hash. To be
//! woken for nothing costs a look.
//!
//! Why nobody sleeps through his moment: who waits gets into the queue, then marks it, then looks at his key under the lock of its
//! shard, then sleeps. Who changes a key does so under that lock, and looks at the mark behind it. So he finds the mark, or the
//! other one found the change. He takes the mark off before he wakes the queue: whoever has marked it before is in it.

#![allow(unsafe_code)]

use super::{clock, shared};
use pgrx::prelude::*;
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

/// A queue, on a line of its own.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Queue {
    /// The server's. Other processes write to it, so that it is never looked at here.
    variable: UnsafeCell<pg_sys::ConditionVariable>,
    marked: AtomicU64,
}

impl Queue {
    /// Makes it an empty one.
    ///
    /// # Safety
    /// Nobody else knows it yet.
    pub unsafe fn format(&self) {
        // SAFETY: shared memory of its size and alignment, ours alone as the caller promises.
        unsafe { pg_sys::ConditionVariableInit(self.variable.get()) };
        self.marked.store(0, Ordering::Relaxed);
    }
}

/// Wakes everybody who waits for a key. Bounded; neither fails nor allocates. No lock may be held.
pub fn wake(hash: u64) {
    if let Some(queue) = shared::queue(hash)
        && queue.marked.load(Ordering::SeqCst) != 0
        && queue.marked.swap(0, Ordering::SeqCst) != 0
    {
        // SAFETY: formatted before any backend existed; takes its spinlock and sets latches.
        unsafe { pg_sys::ConditionVariableBroadcast(queue.variable.get()) };
    }
}

/// Wakes everybody who waits for any key.
pub fn wake_all() {
    (0..shared::QUEUES as u64).for_each(wake);
}

/// Somebody in a queue, until dropped.
#[derive(Debug)]
pub struct Waiter {
    queue: &'static Queue,
    /// The server knows one place in one queue for each session.
    alone: PhantomData<*const ()>,
}

impl Waiter {
    /// Gets into the queue of a key: whatever changes from now on wakes us. None if there is no cache.
    pub fn of(hash: u64) -> Option<Self> {
        let queue = shared::queue(hash)?;
        // SAFETY: as in `wake`; takes the session out of any queue it was in.
        unsafe { pg_sys::ConditionVariablePrepareToSleep(queue.variable.get()) };
        Some(Self { queue, alone: PhantomData })
    }

    /// Says that we are about to look: who changes something after that will wake us.
    pub fn mark(&self) {
        self.queue.marked.swap(1, Ordering::SeqCst);
    }

    /// Sleeps until somebody wakes us, or so long. The session can be cancelled and ended meanwhile, which is an error.
    pub fn sleep(&self, ms: u64) {
        let ms = ms.clamp(1, i32::MAX as u64) as std::ffi::c_long;
        // SAFETY: as in `wake`. An error that is raised in it passes as a panic, and drops us.
        unsafe { pg_sys::ConditionVariableTimedSleep(self.queue.variable.get(), ms, event()) };
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // SAFETY: leaves whatever queue the session is in, if it is in one still.
        unsafe {
            pg_sys::ConditionVariableCancelSleep();
        }
    }
}

/// What the session waits for, as pg_stat_activity shows it.
fn event() -> u32 {
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    {
        static EVENT: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
        // SAFETY: the server copies the name, and gives every session the same number for it.
        *EVENT.get_or_init(|| unsafe { pg_sys::WaitEventExtensionNew(c"PgCacheLease".as_ptr()) })
    }
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    pg_sys::PG_WAIT_EXTENSION
}

/// Milliseconds on the clock that deadlines of waiting are counted on.
pub fn now_ms() -> u64 {
    clock::now_ms()
}

/// Milliseconds that this session may wait for a lock; none for any time.
pub fn lock_timeout_ms() -> Option<u64> {
    // SAFETY: a plain global, the session's own setting.
    let ms = unsafe { pg_sys::LockTimeout };
    u64::try_from(ms).ok().filter(|ms| *ms > 0)
}
