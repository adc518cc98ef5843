//! Leases: one caller computes a value, inside or outside of the database. The other callers wait for it, or take a *stale* value,
//! one that is not valid any more but may still be served. `cache_acquire` and `cache_release` call this file.
//!
//! A lease is a *flight* of the core (`flights.rs`): the right to publish the value of a key. A session that runs a query for the
//! key has a *fill*, and a *claim* is the right of a transaction to set a key that has no value. The *tier* is the cache in shared
//! memory. A *stamp* is a number on the clock of changes (`docs/architecture.md`); the *safe stamp* of a transaction is one from
//! before its snapshot. A *tick* is 50 ms on the clock of `pg/clock.rs`.

use crate::pg::memory::OutOfMemory;
use crate::pg::queue;
use crate::pg::{settings, shared, snapshot, transaction};
use crate::store::entry::{self, hit_of_own};
use crate::store::flights;
use crate::store::keyspace::{Keyspace, hash};
use crate::store::kind;
use crate::store::space::Space;
use crate::store::status::{self, IN_FLIGHT, Status};
use crate::store::table::reading;
use crate::store::transaction::{HeldKind, OwnState, pending, safe_stamp};
use crate::store::waiting::{LockTimeout, Wait};
use pg_cache_core::{Acquired, Buffer, FlightRequest, Freshness, InFlight, Key, Meta, Miss, Purpose};

/// The answer to a caller that wants a value, or wants to compute it.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// There is a valid value.
    Hit(Meta),
    /// There is a value that is not valid any more, but may be served until this tick (`pg/clock.rs`).
    Stale(Meta, u32),
    /// There is no value: the caller must compute it, under this lease if there is one.
    Compute(Option<i64>),
    /// Another caller is computing the value.
    Wait,
}

/// How long a caller waits for another one, and how long it may hold a lease.
#[derive(Clone, Copy, Debug)]
pub struct AcquireOptions {
    /// Milliseconds to wait for another caller's value.
    pub wait_ms: u64,
    /// Milliseconds for which the lease may be held. None if the caller only looks and wants no lease.
    pub hold_ms: Option<u64>,
}

/// Looks for a value, and acquires the lease to compute it if there is none. Takes effect at once, independent of the transaction,
/// with one exception: if the transaction or the savepoint is rolled back, the lease is released. The error says that the wait has
/// reached `lock_timeout`. Raises an error if the session is cancelled, or if there is no memory for the value.
pub fn acquire(
    space: &Space,
    key: &[u8],
    options: AcquireOptions,
    into: &mut impl Buffer,
) -> Result<Answer, LockTimeout> {
    let keyspace = match entry::keyspace_to_compute(space, key) {
        Ok(keyspace) => keyspace,
        Err(status) => {
            status::set(status);
            return Ok(Answer::Compute(None));
        }
    };
    let hash = hash(key);
    let Some(name) = keyspace.key(key, hash) else { return Ok(Answer::Compute(None)) };
    let (mut wait, mut rounds) = (Wait::begin(), 0);
    loop {
        // The mark must be set before the look: every change after the mark wakes this session.
        wait.mark();
        let seen = look(&keyspace, &name, key, hash, into);
        if !into.was_allocated() {
            OutOfMemory.raise();
        }
        let (stale, miss) = match seen {
            Seen::Valid(meta, own) => {
                status::set(match (wait.has_begun(), own) {
                    (true, _) => Status::Waited,
                    (false, true) => Status::Own,
                    (false, false) => Status::Hot,
                });
                return Ok(Answer::Hit(meta));
            }
            Seen::Stale(meta, until, miss) => (Some((meta, until)), miss),
            Seen::Nothing(miss) => (None, miss),
        };
        let taken = match options.hold_ms {
            None => keyspace.tier.leader(&name).map_or(Taken::ByNobody, Taken::By),
            Some(hold_ms) => take(&keyspace, &name, key, hold_ms),
        };
        match next(taken, stale, miss, rounds < ROUNDS_MAX) {
            Next::Answer(answer, status) => {
                if let Answer::Stale(_, until) = answer {
                    let valid_at = until.saturating_sub(keyspace.tier.stale_ticks(&name));
                    keyspace.count_stale(valid_at);
                }
                status::set(status);
                return Ok(answer);
            }
            Next::LookAgain => rounds += 1,
            Next::WaitFor(leader) => {
                let overdue_ms = match leader.purpose {
                    // A claim has no deadline: it ends with its transaction.
                    Purpose::Claim => u64::MAX,
                    // At the tick of its deadline the leader still has the lease, so the wait is one millisecond longer.
                    Purpose::Lease | Purpose::Fill => shared::ms_until(leader.deadline) + 1,
                };
                let left_ms = options.wait_ms.saturating_sub(wait.elapsed_ms());
                if left_ms == 0 || !wait.sleep(&keyspace, hash, leader.owner, left_ms.min(overdue_ms))? {
                    status::set(IN_FLIGHT);
                    return Ok(Answer::Wait);
                }
            }
        }
    }
}

/// The answer for a caller that has found no valid value.
enum Next {
    /// The call ends with this answer and this status.
    Answer(Answer, Status),
    /// Another session stored the value after `look` and before `take`.
    LookAgain,
    /// Another session is computing the value or has claimed the key.
    WaitFor(InFlight),
}

/// Decides between computing the value, serving a stale one, and waiting. `may_look_again` limits the number of rounds, in case
/// `look` and `take` never agree because the entry is damaged.
fn next(taken: Taken, stale: Option<(Meta, u32)>, miss: Status, may_look_again: bool) -> Next {
    match (taken, stale) {
        (Taken::Lease(lease), _) => Next::Answer(Answer::Compute(Some(lease)), miss),
        (Taken::Refused(why), _) => Next::Answer(Answer::Compute(None), why),
        (Taken::ByValue, _) if may_look_again => Next::LookAgain,
        (_, Some((meta, until))) => Next::Answer(Answer::Stale(meta, until), Status::Stale),
        // A session must not wait for a value that its own transaction has to compute.
        (Taken::By(leader), None) if pending::holds(leader.id) => Next::Answer(Answer::Wait, IN_FLIGHT),
        (Taken::By(leader), None) => Next::WaitFor(leader),
        (Taken::ByNobody | Taken::ByValue, None) => Next::Answer(Answer::Compute(None), miss),
    }
}

/// The most rounds in which `take` finds a value and `look` then does not. Without damage, a second round is rare.
const ROUNDS_MAX: u32 = 64;

/// The value of a key as this session sees it.
enum Seen {
    /// There is a valid value. The flag tells whether the own transaction has set it.
    Valid(Meta, bool),
    /// There is only a stale value, which may be served until this tick. The status says why there is no valid one.
    Stale(Meta, u32, Status),
    /// There is no value. The status says why.
    Nothing(Status),
}

/// Looks for the value of a key as this session sees it.
fn look(keyspace: &Keyspace, name: &Key<'_>, key: &[u8], hash: u64, into: &mut impl Buffer) -> Seen {
    if settings::bypasses() {
        return Seen::Nothing(Status::Bypass("pg_cache.bypass is on"));
    }
    pending::with_own(keyspace, key, hash, |own, changed| {
        let touched = match own {
            OwnState::Nothing => None,
            OwnState::Touched(expires) => Some(expires),
            OwnState::Set(value) => {
                return match hit_of_own(value, &mut Some(into)) {
                    Ok(meta) => Seen::Valid(meta, true),
                    Err(status) => Seen::Nothing(status),
                };
            }
            OwnState::Gone => return Seen::Nothing(Status::Miss("removed by this transaction")),
        };
        let reader = safe_stamp::reader(changed);
        let outcome = match keyspace.tier.get_stale(name, reader, into) {
            Err(Miss::Saved(location)) => reading::read_stale(keyspace, name, location, reader, into),
            outcome => outcome,
        };
        match outcome {
            Ok((meta, Freshness::Valid)) => {
                Seen::Valid(Meta { expires: touched.unwrap_or(meta.expires), ..meta }, false)
            }
            // The result of a query is outdated for callers of `cache_fetch` only. They forgive changes of rows, and no others.
            Ok((meta, Freshness::Stale { .. })) if kind::is_of_query(meta.kind) => {
                Seen::Nothing(status::of_stale(keyspace.tier, &keyspace.scope, name, reader))
            }
            Ok((meta, Freshness::Stale { until })) => {
                Seen::Stale(meta, until, status::of_stale(keyspace.tier, &keyspace.scope, name, reader))
            }
            Err(miss) => Seen::Nothing(status::of_miss(miss, keyspace.tier, &keyspace.scope, name, reader)),
        }
    })
}

/// The result of asking for a lease.
enum Taken {
    /// This session has acquired the lease.
    Lease(i64),
    /// A session is computing the value, or has claimed the key. It may be this session.
    By(InFlight),
    /// The key has a value by now.
    ByValue,
    /// No session is computing the value, and the caller did not ask for a lease.
    ByNobody,
    /// No session is computing the value, and this session cannot get a lease.
    Refused(Status),
}

/// Tries to acquire the lease of a key.
fn take(keyspace: &Keyspace, name: &Key<'_>, key: &[u8], hold_ms: u64) -> Taken {
    let own = match flights::prepare(keyspace, key) {
        Ok(own) => own,
        Err(why) => return Taken::Refused(why),
    };
    let request = FlightRequest::lease(flights::owner(), shared::tick_in(hold_ms));
    // If the own transaction has removed or set the key, or the session bypasses the cache, a value in the tier does not count.
    let blind = settings::bypasses()
        || pending::with_own(keyspace, key, hash(key), |own, _| {
            matches!(own, OwnState::Gone | OwnState::Set(_))
        });
    let acquired = loop {
        let acquired = pending::with_own(keyspace, key, hash(key), |_, changed| match blind {
            true => keyspace.tier.acquire(name, request.as_of(safe_stamp::current())),
            false => keyspace.tier.acquire(name, request.unless_present(safe_stamp::reader(changed))),
        });
        let Acquired::Saved(location) = acquired else { break acquired };
        reading::bring_back_or_forget(keyspace, name, location);
        shared::check_for_interrupts();
    };
    match acquired {
        Acquired::Lead(lease) => {
            pending::hold(own, lease.id, HeldKind::Lease);
            // The running statement may go on to compute the value, but can store it only if its snapshot is as new as the lease.
            // The remembered snapshot decides that. In a transaction that keeps one snapshot, the safe stamp limits the value's
            // stamp instead.
            if !transaction::keeps_one_snapshot() {
                snapshot::remember(lease.acquired);
            }
            Taken::Lease(flights::to_sql(lease.id))
        }
        Acquired::Busy(leader) | Acquired::Wait(leader, _) => Taken::By(leader),
        Acquired::Present | Acquired::Saved(_) => Taken::ByValue,
        Acquired::NoSlot(limit) => Taken::Refused(flights::no_room(limit)),
    }
}

/// Releases a lease at once. Returns whether there was such a lease.
pub fn release(space: &Space, key: &[u8], lease: i64) -> bool {
    let hash = hash(key);
    let released = space.keyspace().zip(flights::number_of(lease)).is_some_and(|(keyspace, number)| {
        // Claims and fills have numbers too. Callers never get these numbers and must not end them.
        keyspace.key(key, hash).is_some_and(|name| {
            let is_lease = keyspace.tier.leader(&name).is_none_or(|leader| leader.purpose == Purpose::Lease);
            is_lease && keyspace.tier.release_lease(&name, number)
        })
    });
    if released {
        let number = flights::number_of(lease);
        number.into_iter().for_each(|number| pending::forget(number, HeldKind::Lease));
        queue::wake(hash);
    }
    status::set(Status::Done);
    released
}

/// The lease that callers get when they ask for one and none can be given. `cache_set` refuses a value with this lease: without a
/// lease it would take the value to be current as of the call. No lease has the number 0, because the epoch in its upper half is
/// never 0.
pub const UNAVAILABLE: i64 = 0;
