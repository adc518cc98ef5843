//! Queues of sessions that wait until another session has finished its work on a key: it computes the value, or has a lease for it,
//! the right to set it (`store/waiting.rs`).
//!
//! Each queue is a condition (`condition.rs`). Keys share queues by their hash, so a session may be woken for another key; it then
//! looks at its own key and sleeps again. A session must call [`Waiter::of`] once. Then it calls [`Waiter::mark`], looks at the
//! key, and calls [`Waiter::sleep`], in turns.

#![allow(unsafe_code)]

use super::condition::{self, Condition};
use super::{clock, shared};
use pgrx::prelude::*;
use std::marker::PhantomData;

/// Wakes all sessions that wait for a key with this hash. The call is bounded, cannot fail and does not allocate. The caller must
/// not hold any lock.
pub fn wake(hash: u64) {
    if let Some(queue) = shared::queue(hash) {
        queue.wake();
    }
}

/// Wakes the sessions that wait for any key. The same rules hold.
pub fn wake_all() {
    (0..shared::QUEUES as u64).for_each(wake);
}

/// The membership of a session in a queue, until dropped.
#[derive(Debug)]
pub struct Waiter {
    queue: &'static Condition,
    /// Makes this type not `Send`: the server knows one queue for each session, so a session must have one `Waiter` at a time.
    alone: PhantomData<*const ()>,
}

impl Waiter {
    /// Enters the queue of a key. A change of the key wakes this session only after [`Self::mark`]. None if there is no cache.
    pub fn of(hash: u64) -> Option<Self> {
        let queue = shared::queue(hash)?;
        queue.enter();
        Some(Self { queue, alone: PhantomData })
    }

    /// Sets the mark. The session must call this before it looks at its key: every change after that wakes it.
    pub fn mark(&self) {
        self.queue.mark();
    }

    /// Sleeps until another session wakes this one, or until so many milliseconds are over. If the session is cancelled or
    /// terminated meanwhile, this raises an error, which drops this value. The caller must not hold any lock.
    pub fn sleep(&self, ms: u64) {
        self.queue.sleep(ms);
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        condition::leave();
    }
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
