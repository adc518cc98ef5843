//! Waiting for another session to finish its work on a key.

use crate::pg::error::Refused;
use crate::pg::queue::{self, Waiter};
use pgrx::prelude::PgSqlErrorCode;

/// The wait ended because of `lock_timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockTimeout;

impl From<LockTimeout> for Refused {
    fn from(_: LockTimeout) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout")
    }
}

/// A session's wait for the value of a key. In turns, the session calls [`mark`](Self::mark), looks for the value, and calls
/// [`sleep`](Self::sleep).
#[derive(Debug)]
pub struct Wait {
    /// When the call began, on the clock of `queue::now_ms`.
    began_ms: u64,
    /// The hash of the key and the session's membership in its queue, once it waits.
    waiter: Option<(u64, Waiter)>,
}

impl Wait {
    /// Notes when a call began that may have to wait.
    pub fn begin() -> Self {
        Self { began_ms: queue::now_ms(), waiter: None }
    }

    /// Must be called before each look for the value: every change after it wakes the session.
    pub fn mark(&self) {
        if let Some((_, waiter)) = &self.waiter {
            waiter.mark();
        }
    }

    /// Returns whether the session has entered the queue of the key.
    pub fn has_begun(&self) -> bool {
        self.waiter.is_some()
    }

    /// Returns the milliseconds since the call began.
    pub fn elapsed_ms(&self) -> u64 {
        queue::now_ms().saturating_sub(self.began_ms)
    }

    /// The first call for a key enters its queue, and later calls sleep in it, for at most `most_ms`. After each call the caller
    /// must look again: a change before the session entered the queue does not wake it. Returns false if there is no queue. Raises
    /// an error if the session is cancelled.
    pub fn sleep(&mut self, hash: u64, most_ms: u64) -> Result<bool, LockTimeout> {
        let Some((_, waiter)) = self.waiter.as_ref().filter(|(of, _)| *of == hash) else {
            // A session is in one queue at a time.
            self.waiter = None;
            self.waiter = Waiter::of(hash).map(|waiter| (hash, waiter));
            return Ok(self.has_begun());
        };
        let patience_ms =
            queue::lock_timeout_ms().map_or(u64::MAX, |most| most.saturating_sub(self.elapsed_ms()));
        if patience_ms == 0 {
            return Err(LockTimeout);
        }
        waiter.sleep(most_ms.min(patience_ms));
        Ok(true)
    }
}
