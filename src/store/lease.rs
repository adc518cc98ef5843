//! Leases: one caller computes a value, inside or outside of the database, and the other callers wait for it or take a stale one.
//!
//! The tier records which session computes which key (`flight.rs` of the core) and has its own number for each lease. The number
//! that callers get has the epoch of shared memory in front of it, so a lease from before a crash is never mistaken for a current
//! one.

use crate::pg::error::OrRaise;
use crate::pg::memory::{self, OutOfMemory};
use crate::pg::queue::{self, Waiter};
use crate::pg::role::Role;
use crate::pg::{query, session, settings, shared, snapshot};
use crate::store::entry::{self, hit_of_own};
use crate::store::space::{Place, Space, hash};
use crate::store::status::{self, Status};
use crate::store::transaction::{HeldKind, Own, OwnKey, pending, safe_stamp};
use pg_cache_core::{
    Acquired, Buffer, Freshness, InFlight, Key, Limit, Meta, Owner, Purpose, Stamp, Unclaimed,
};

/// The answer to a caller that wants a value, or wants to compute it.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// There is a valid value.
    Hit(Meta),
    /// There is a value that is not valid any more, but may be served until this tick.
    Stale(Meta, u32),
    /// There is no value: the caller must compute it, under this lease if there is one.
    Compute(Option<i64>),
    /// Another caller is computing the value.
    Wait,
}

/// The wait ended because of `lock_timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockTimeout;

/// How long a caller waits for another one, and how long it may hold a lease.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Milliseconds to wait for another caller's value.
    pub wait_ms: u64,
    /// Milliseconds for which the lease may be held. None if the caller only looks and wants no lease.
    pub hold_ms: Option<u64>,
}

/// Looks for a value, and acquires the lease to compute it if there is none. Takes effect at once, independent of the
/// transaction, with one exception: if the transaction is rolled back, the lease is released.
pub fn acquire(
    space: &Space,
    key: &[u8],
    asked: Asked,
    into: &mut impl Buffer,
) -> Result<Answer, LockTimeout> {
    let place = match entry::place_to_compute(space) {
        Ok(place) => place,
        Err(status) => {
            status::set(status);
            return Ok(Answer::Compute(None));
        }
    };
    let hash = hash(key);
    let Some(name) = place.key(key, hash) else { return Ok(Answer::Compute(None)) };
    let (began, mut waiter, mut rounds) = (queue::now_ms(), None::<Waiter>, 0);
    loop {
        if let Some(waiter) = &waiter {
            waiter.mark();
        }
        let seen = look(&place, &name, key, hash, into);
        if !into.had_room() {
            OutOfMemory.raise();
        }
        let (stale, miss) = match seen {
            Seen::Right(meta, own) => {
                status::set(match (waiter, own) {
                    (Some(_), _) => Status::Waited,
                    (None, true) => Status::Own,
                    (None, false) => Status::Hot,
                });
                return Ok(Answer::Hit(meta));
            }
            Seen::Stale(meta, until, miss) => (Some((meta, until)), miss),
            Seen::Nothing(miss) => (None, miss),
        };
        let taken = match asked.hold_ms {
            None => place.tier.leader(&name).map_or(Taken::ByNobody, Taken::By),
            Some(hold_ms) => take(&place, &name, key, hold_ms),
        };
        let leader = match (taken, stale) {
            (Taken::Lease(lease), _) => {
                status::set(miss);
                return Ok(Answer::Compute(Some(lease)));
            }
            (Taken::Refused(why), _) => {
                status::set(why);
                return Ok(Answer::Compute(None));
            }
            // Another session stored the value after `look` and before `take`. The number of rounds is limited in case the two
            // never agree because the entry is damaged.
            (Taken::ByValue, _) if rounds < ROUNDS_MAX => {
                rounds += 1;
                continue;
            }
            (_, Some((meta, until))) => {
                status::set(Status::Stale);
                return Ok(Answer::Stale(meta, until));
            }
            (Taken::By(leader), None) if pending::holds(leader.number) => None,
            (Taken::By(leader), None) => Some(leader),
            (Taken::ByNobody | Taken::ByValue, None) => {
                status::set(miss);
                return Ok(Answer::Compute(None));
            }
        };
        let waited = queue::now_ms().saturating_sub(began);
        let left = asked.wait_ms.saturating_sub(waited);
        // A session must not wait for a value that its own transaction has to compute.
        let Some(leader) = leader.filter(|_| left > 0) else {
            status::set(Status::Miss("somebody else computes it"));
            return Ok(Answer::Wait);
        };
        let Some(waiter) = &waiter else {
            waiter = Waiter::of(hash);
            if waiter.is_none() {
                return Ok(Answer::Wait);
            }
            continue;
        };
        let patience = queue::lock_timeout_ms().map(|most| most.saturating_sub(waited));
        if patience == Some(0) {
            return Err(LockTimeout);
        }
        let overdue = match leader.purpose {
            Purpose::Claim => u64::MAX,
            // At the tick of its deadline the leader still has the lease, so the wait is one millisecond longer.
            Purpose::Lease | Purpose::Fill => shared::ms_until(leader.deadline) + 1,
        };
        waiter.sleep(left.min(overdue).min(patience.unwrap_or(u64::MAX)));
    }
}

/// The most rounds in which `take` finds a value and `look` then does not.
const ROUNDS_MAX: u32 = 64;

/// The value of a key as this session sees it.
enum Seen {
    /// There is a valid value. The flag tells whether the own transaction has set it.
    Right(Meta, bool),
    /// There is only a stale value, which may be served until this tick. The status says why there is no valid one.
    Stale(Meta, u32, Status),
    /// There is no value. The status says why.
    Nothing(Status),
}

/// Looks for the value of a key as this session sees it.
fn look(place: &Place, name: &Key<'_>, key: &[u8], hash: u64, into: &mut impl Buffer) -> Seen {
    if settings::bypasses() {
        return Seen::Nothing(Status::Bypass("pg_cache.bypass is on"));
    }
    pending::with_own(place, key, hash, |own, changed| {
        let touched = match own {
            Own::Nothing => None,
            Own::Touched(expires) => Some(expires),
            Own::Set(value) => {
                return match hit_of_own(value, &mut Some(into)) {
                    Ok(meta) => Seen::Right(meta, true),
                    Err(status) => Seen::Nothing(status),
                };
            }
            Own::Gone => return Seen::Nothing(Status::Miss("removed by this transaction")),
        };
        match place.tier.get_stale(name, safe_stamp::reader(changed), into) {
            Ok((meta, Freshness::Right)) => {
                Seen::Right(Meta { expires: touched.unwrap_or(meta.expires), ..meta }, false)
            }
            Ok((meta, Freshness::Stale { until })) => {
                Seen::Stale(meta, until, Status::Miss("only a stale value"))
            }
            Err(miss) => Seen::Nothing(miss.into()),
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

/// Makes room for a right to a key and returns the copy of the key that goes with it. This comes before the lease or claim: the
/// session must never have a right that its transaction cannot record.
fn to_entitle(place: &Place, key: &[u8]) -> Result<OwnKey, Status> {
    pending::make_room_for_lease()?;
    Ok(OwnKey::new(*place, key)?)
}

/// Returns the owner of the leases and claims of this session.
fn owner() -> Owner {
    Owner { session: session::pid(), role: Role::current().oid() }
}

/// Returns the status for a lease or a claim that did not fit.
fn no_place(limit: Limit) -> Status {
    Status::Refused(match limit {
        Limit::Space => "the space has its share of the places for leases and claims",
        Limit::Role => "the role has its share of the places for leases and claims",
        Limit::All => "all places for leases and claims are taken",
        Limit::Off => DAMAGED,
    })
}

const DAMAGED: &str = "part of the cache is switched off because it is damaged";

/// Tries to acquire the lease of a key.
fn take(place: &Place, name: &Key<'_>, key: &[u8], hold_ms: u64) -> Taken {
    let own = match to_entitle(place, key) {
        Ok(own) => own,
        Err(why) => return Taken::Refused(why),
    };
    session::at_end(give_up);
    let (owner, deadline) = (owner(), shared::tick_in(hold_ms));
    // If the own transaction has removed or set the key, or the session bypasses the cache, a value in the tier does not count.
    let blind = settings::bypasses()
        || pending::with_own(place, key, hash(key), |own, _| matches!(own, Own::Gone | Own::Set(_)));
    let acquired = pending::with_own(place, key, hash(key), |_, changed| match blind {
        true => place.tier.acquire_as_of(name, safe_stamp::current(), owner, deadline),
        false => {
            let reader = safe_stamp::reader(changed);
            place.tier.acquire_missing(name, reader, owner, deadline)
        }
    });
    match acquired {
        Acquired::Lead(lease) => {
            pending::hold(own, lease.number, HeldKind::Lease);
            if !query::looks_at_one_moment() {
                snapshot::remember(lease.acquired);
            }
            Taken::Lease(to_sql(lease.number))
        }
        Acquired::Busy(leader) => Taken::By(leader),
        Acquired::Present => Taken::ByValue,
        Acquired::NoPlace(limit) => Taken::Refused(no_place(limit)),
    }
}

/// Acquires the right to store the value that this session computes for a key. Returns the number of the right and the stamp of
/// the value. This right takes precedence over a lease of the key. It ends with [`land`], and when the transaction or savepoint
/// is rolled back. The error says why there is no right.
pub fn lead(place: &Place, key: &[u8]) -> Result<(u64, Stamp), Status> {
    let own = to_entitle(place, key)?;
    session::at_end(give_up);
    let name = place.key(key, hash(key)).ok_or(Status::Miss("not there"))?;
    match place.tier.begin_fill(&name, owner(), shared::tick_in(LEAD_MS_MAX)) {
        Acquired::Lead(fill) => {
            pending::hold(own, fill.number, HeldKind::Lease);
            Ok((fill.number, fill.stamp))
        }
        Acquired::Busy(_) | Acquired::Present => Err(Status::Miss("somebody else computes it")),
        Acquired::NoPlace(limit) => Err(Status::Refused(match limit {
            Limit::Space => "too many queries of the space are being computed",
            Limit::Role => "too many queries of the role are being computed",
            Limit::All => "too many queries are being computed",
            Limit::Off => DAMAGED,
        })),
    }
}

/// The longest time, in milliseconds, for which a session keeps other sessions from computing the same value: one hour.
const LEAD_MS_MAX: u64 = 60 * 60 * 1000;

/// Ends the right to store a value, after the value was stored or the session has given up.
pub fn land(place: &Place, key: &[u8], number: u64) {
    let hash = hash(key);
    if let Some(name) = place.key(key, hash) {
        place.tier.release_lease(&name, number);
    }
    pending::forget_lease(number);
    queue::wake(hash);
}

/// Releases a lease at once. Returns whether there was such a lease.
pub fn release(space: &Space, key: &[u8], lease: i64) -> bool {
    let hash = hash(key);
    let released = space.place().zip(number_of(lease)).is_some_and(|(place, number)| {
        // Claims and fills have numbers too. Callers never get these numbers and must not end them.
        place.key(key, hash).is_some_and(|name| {
            let is_lease = place.tier.leader(&name).is_none_or(|leader| leader.purpose == Purpose::Lease);
            is_lease && place.tier.release_lease(&name, number)
        })
    });
    if released {
        number_of(lease).into_iter().for_each(pending::forget_lease);
        queue::wake(hash);
    }
    status::set(Status::Done);
    released
}

/// Returns the stamp of a value that was computed under a lease. The error says why the value would not be stored.
pub fn stamp(place: &Place, key: &[u8], lease: i64) -> Result<Stamp, Status> {
    if safe_stamp::is_unknown() {
        return Err(Status::Refused("the transaction's snapshot may be of any time"));
    }
    let over = Status::Refused("the lease is over, or the key was changed");
    let name = place.key(key, hash(key)).ok_or(over)?;
    let number = number_of(lease).ok_or(Status::Refused("the lease is over"))?;
    let lease = place.tier.lease(&name, number).ok_or(over)?;
    // The value may have been computed from the transaction's snapshot, which may be older than the lease.
    if query::looks_at_one_moment() {
        return Ok(lease.stamp.min(safe_stamp::current()));
    }
    match snapshot::is_newer_than(lease.acquired) {
        true => Ok(lease.stamp),
        false => Err(Status::Refused("the statement looks at the database as of before the lease")),
    }
}

/// Returns the number of a lease in the tier. Returns none if it is from before shared memory was last initialized, or is not a
/// lease.
pub fn number_of(lease: i64) -> Option<u64> {
    let lease = u64::try_from(lease).ok()?;
    (lease >> 32 == shared::epoch()).then_some(lease & u64::from(u32::MAX))
}

/// The lease that callers get when they ask for one and none can be given. `cache_set` refuses a value with this lease: without a
/// lease it would take the value to be current as of the call.
pub const NONE: i64 = 0;

fn to_sql(number: u64) -> i64 {
    (shared::epoch() << 32 | number) as i64
}

/// Claims a key for the own transaction. With `despite_value`, the value that other sessions see does not count.
pub fn claim(place: &Place, key: &[u8], despite_value: bool) -> Result<u64, Status> {
    let own = to_entitle(place, key)?;
    session::at_end(give_up);
    let hash = hash(key);
    let name = place.key(key, hash).ok_or(Status::Miss("not there"))?;
    let claimed = pending::with_own(place, key, hash, |_, changed| {
        let reader = safe_stamp::reader(changed);
        place.tier.claim(&name, (!despite_value).then_some(reader), owner())
    });
    let number = claimed.map_err(|why| match why {
        Unclaimed::Present => Status::Refused("there is a value"),
        Unclaimed::Changing => Status::Refused("somebody is just changing the key"),
        Unclaimed::Claimed => Status::Refused("somebody else is about to set it"),
        Unclaimed::NoPlace(limit) => no_place(limit),
    })?;
    pending::hold(own, number, HeldKind::Claim);
    Ok(number)
}

/// Runs when the session ends. After an orderly end its leases stay for the holders of their numbers, because the client behind a
/// connection pooler may continue in another session. Otherwise no client will come back to compute, so the leases are released.
fn give_up(in_order: bool) {
    let Some(tier) = shared::tier() else { return };
    if in_order {
        tier.disown_leases_of(session::pid());
        return;
    }
    if tier.release_leases_of(session::pid()) > 0 {
        queue::wake_all();
    }
}

/// Returns a message for each lease or claim that nothing will end: those of sessions that are gone, and claims of this session
/// that its transaction does not know. May raise errors.
pub fn orphans() -> Vec<String> {
    let Some(tier) = shared::tier() else { return Vec::new() };
    let mine = session::pid();
    let flights = tier.in_flight().or_raise();
    let findings = flights.into_iter().filter_map(|flight| match flight.owner {
        0 => None,
        owner if owner == mine && flight.purpose == Purpose::Claim && !pending::holds(flight.number) => {
            Some(format!("this session has claim {} of no transaction", flight.number))
        }
        owner if session::lives(owner) => None,
        owner => Some(format!("lease or claim {} is of session {owner}, which is gone", flight.number)),
    });
    memory::collect(findings.inspect(|_| memory::check()))
}
