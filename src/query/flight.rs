//! Waits for another session that runs the same query (*single flight*): if several sessions miss a result at once, one of them
//! computes it.
//!
//! The session that computes a result is its *leader*; the right to compute the result is a fill (`store/flights.rs`). Moments are
//! numbers on the *clock of changes*, a counter that each commit increments if it changes a dependency of cached values
//! (`docs/architecture.md`). A waiting session draws a number from this clock when it begins to wait. The leader takes one before
//! its query takes a snapshot: the *stamp* of its result.
//!
//! The waiting session accepts a valid result. It also accepts an invalid result whose stamp is not before the number of the
//! waiting session, because the query of that result ran on a snapshot from after the call of the waiting session began. So
//! sessions that ask at the same time cost at most two runs, the run that was under way and the next one, even if writers
//! invalidate each result before it is stored.
//!
//! A session must not wait if that could harm other sessions or itself:
//! - if its transaction has written something: other sessions, also the leader, may need a lock that the transaction holds;
//! - if its transaction keeps one snapshot (REPEATABLE READ, SERIALIZABLE): the result may be newer than that snapshot;
//! - if it computes a value itself: the sessions that wait for this value would wait for the leader, too;
//! - if the leader waits for this session, directly or through other processes (`pg/deadlock.rs`).

use crate::pg::error::OrRaise;
use crate::pg::{locks, queue, settings, transaction};
use crate::store::keyspace::{Keyspace, hash};
use crate::store::transaction::pending;
use crate::store::waiting::Wait;
use pg_cache_core::{InFlight, Stamp};

/// Returns whether this session may wait for another one that runs the same query.
pub fn may_wait() -> bool {
    settings::wait_timeout_ms() > 0 && !settings::bypasses() && may_lead()
}

/// Returns whether the first three rules above allow this session to wait, and to begin a computation that others may wait for.
pub fn may_lead() -> bool {
    !transaction::keeps_one_snapshot() && !locks::has_written() && !pending::has_fill()
}

/// Returns whether a call of this session may renew a result that it could still use. Other sessions must be able to wait for such
/// a call, because the result may expire during the run. In a parallel query, a session gets no ticket (`ticket.rs`), so it could
/// not store the new result.
pub fn may_renew() -> bool {
    may_lead() && !transaction::is_parallel()
}

/// The most fills that a call waits for: the fill that was under way when the call arrived, and the next one. If the call can use
/// the result of neither, it can probably use no later one. For instance, a call with `tags` accepts only a result that was stored
/// with these tags, and the calls of the other sessions may have other tags.
const FILLS_MAX: u32 = 2;

/// The waiting of a call that has found no result.
#[derive(Debug)]
pub struct Waiting {
    wait: Wait,
    /// The number that the session drew from the clock of changes when it began to wait.
    arrived: Option<Stamp>,
    leader: Option<Leader>,
    /// How many fills the call has waited for.
    fills: u32,
}

/// The session that a call waits for.
#[derive(Debug)]
struct Leader {
    /// The number of its fill.
    fill: u64,
    /// The time at which the call began to wait for this fill, on the clock of `queue::now_ms`.
    since_ms: u64,
}

impl Waiting {
    pub fn begin() -> Self {
        Self { wait: Wait::begin(), arrived: None, leader: None, fills: 0 }
    }

    /// Returns the number that the session drew when it began to wait. None if it has not waited.
    pub fn arrived(&self) -> Option<Stamp> {
        self.arrived
    }

    /// Must be called before each look for the result: every change after this call wakes the session. Returns the same as
    /// [`arrived`](Self::arrived).
    pub fn mark(&self) -> Option<Stamp> {
        self.wait.mark();
        self.arrived
    }

    /// Waits until the key has changed, or until the wait must be checked again. The caller must then look again. `other` is the
    /// fill that the call waits for. Returns false if the call must not wait any longer. Raises an error if the session is
    /// cancelled, or if `lock_timeout` has passed.
    pub fn goes_on(&mut self, keyspace: &Keyspace, key: &[u8], other: InFlight, arrived: Stamp) -> bool {
        self.arrived = Some(arrived);
        let (now_ms, hash) = (queue::now_ms(), hash(key));
        if self.leader.as_ref().is_none_or(|leader| leader.fill != other.id) {
            if self.fills == FILLS_MAX {
                return false;
            }
            self.fills += 1;
            self.leader = Some(Leader { fill: other.id, since_ms: now_ms });
        }
        let Some(leader) = &self.leader else { return false };
        let patience_ms = settings::wait_timeout_ms();
        let mut left_ms = patience_ms.saturating_sub(now_ms.saturating_sub(leader.since_ms));
        if left_ms == 0 {
            // The call has waited for `pg_cache.wait_timeout`. `give_up` may make it wait longer, so that only a few of the waiting
            // sessions run a long query themselves.
            let Some(name) = keyspace.key(key, hash) else { return false };
            left_ms = keyspace.tier.give_up(&name, other.id, now_ms, patience_ms);
        }
        left_ms > 0 && self.wait.sleep(keyspace, hash, other.owner, left_ms).or_raise()
    }
}
