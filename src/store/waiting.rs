//! Waiting for another session, the *leader*, to finish its work on a key. `lease.rs` (`cache_acquire`) and `query/flight.rs`
//! (`cache_query`) wait through a [`Wait`]: they look for the value in a loop, and sleep in between until a session that changes
//! the key wakes them.
//!
//! The waiting sessions of a key form a queue (`pg/queue.rs`). A wait must end if the leader waits for this session
//! (`pg/deadlock.rs`), and after `lock_timeout`.

use crate::pg::deadlock::{self, Note};
use crate::pg::error::Refused;
use crate::pg::queue::{self, Waiter};
use crate::store::keyspace::Keyspace;
use crate::store::latency;
use pg_cache_core::{Counter, Operation};
use pgrx::prelude::PgSqlErrorCode;
use std::time::Instant;

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
    /// The time at which the call began, on the clock of `queue::now_ms`.
    began_ms: u64,
    /// The hash of the key, and the session's place in the queue of that hash. None until the session waits.
    waiter: Option<(u64, Waiter)>,
    /// The session that is waited for. None until the session waits.
    leader: Option<Leader>,
    /// The part of the cache with the key, and the time at which the session first slept. None until then.
    slept: Option<(Keyspace, Instant)>,
}

/// The session that this one waits for.
#[derive(Debug)]
struct Leader {
    /// The process id of the leader.
    process: u32,
    /// The time at which the waiting session last looked for a deadlock, or began to wait for this leader.
    checked_ms: u64,
    _note: Option<Note>,
}

impl Wait {
    /// Notes the time at which a call begins that may have to wait.
    pub fn begin() -> Self {
        Self { began_ms: queue::now_ms(), waiter: None, leader: None, slept: None }
    }

    /// Must be called before each look for the value. Every change after this call wakes the session.
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

    /// The first call for a key enters its queue. Later calls sleep in the queue for at most `most_ms`. After each call the caller
    /// must look again, because a change before the session entered the queue does not wake the session. `leader` is the process
    /// that the session waits for; 0 if no process computes the value.
    ///
    /// Returns false if the session must not wait: there is no queue, or the leader waits for this session. Raises an error if the
    /// session is cancelled.
    pub fn sleep(
        &mut self,
        keyspace: &Keyspace,
        hash: u64,
        leader: u32,
        most_ms: u64,
    ) -> Result<bool, LockTimeout> {
        if self.waiter.as_ref().is_none_or(|(of, _)| *of != hash) {
            // A session is in one queue at a time.
            self.waiter = None;
            self.waiter = Waiter::of(hash).map(|waiter| (hash, waiter));
            return Ok(self.has_begun());
        }
        let patience_ms =
            queue::lock_timeout_ms().map_or(u64::MAX, |most| most.saturating_sub(self.elapsed_ms()));
        if patience_ms == 0 {
            return Err(LockTimeout);
        }
        let Some(check_ms) = self.until_check(leader) else { return Ok(false) };
        if let Some((_, waiter)) = &self.waiter {
            self.slept.get_or_insert_with(|| (*keyspace, Instant::now()));
            waiter.sleep(most_ms.min(patience_ms).min(check_ms));
        }
        Ok(true)
    }

    /// Looks for a deadlock if `deadlock_timeout` has passed since the last look. Returns the milliseconds until the next look, or
    /// None if there is a deadlock.
    fn until_check(&mut self, process: u32) -> Option<u64> {
        let (now_ms, timeout_ms) = (queue::now_ms(), deadlock::timeout_ms());
        if self.leader.as_ref().is_none_or(|leader| leader.process != process) {
            // The note of the previous leader must be dropped first: both notes use the same word, and dropping clears it.
            self.leader = None;
            self.leader = Some(Leader { process, checked_ms: now_ms, _note: Note::of(process) });
        }
        let leader = self.leader.as_mut()?;
        let checked_ago_ms = now_ms.saturating_sub(leader.checked_ms);
        if checked_ago_ms < timeout_ms {
            return Some(timeout_ms - checked_ago_ms);
        }
        leader.checked_ms = now_ms;
        (process == 0 || !deadlock::waits_for_me(process)).then_some(timeout_ms)
    }
}

impl Drop for Wait {
    /// Counts the wait, if the session has slept. So a caller must drop the wait before it computes the value itself.
    fn drop(&mut self) {
        if let Some((Keyspace { tier, scope, .. }, since)) = self.slept {
            let took = since.elapsed();
            tier.count_for_space(&scope, Counter::Waited, 1);
            tier.count_for_space(&scope, Counter::WaitTime, took.as_micros() as u64);
            latency::end_long(Operation::Wait, took);
        }
    }
}
