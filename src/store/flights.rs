//! The flights of this session: leases, fills and claims, which say that the session computes or sets the value of a key. A *lease*
//! is for a caller that computes the value, a *fill* for a query that pg_cache runs (`cache_query` and its family, `cache_fetch`),
//! and a *claim* for a transaction that sets a key which has no value. The *stamp* of a lease or a fill is a moment on the clock of
//! changes (`docs/architecture.md`) before its value is computed. The value gets this stamp, so that it counts as invalid if
//! something that it depends on has changed since.
//!
//! The *tier*, the cache in shared memory, records which session computes which key (`tier/flight.rs` of the core) and has its own
//! number for each flight. The number of a lease that callers get has the *epoch* of shared memory in front of it. The epoch is
//! drawn at random when the server starts, and again after a crash. So a lease from before a restart is almost certainly not
//! mistaken for a current one.
//!
//! Rule: a session must never have a flight that its transaction cannot record, because a rollback must end it.

use crate::pg::error::OrRaise;
use crate::pg::role::Role;
use crate::pg::{locks, memory, queue, session, shared, snapshot, transaction};
use crate::store::keyspace::{Keyspace, hash};
use crate::store::status::{DAMAGED, IN_FLIGHT, SNAPSHOT_OF_UNKNOWN_AGE, Status};
use crate::store::table::reading;
use crate::store::transaction::{HeldKind, OwnKey, pending, safe_stamp};
use pg_cache_core::{Acquired, FlightRequest, InFlight, Limit, Owner, Purpose, Stamp, Unclaimed};

/// Makes room to record a flight, and returns the copy of the key that the record needs. Must be called before the flight is
/// acquired: the session must never have a flight that its transaction cannot record. [`pending::hold`] then records the flight.
pub fn prepare(keyspace: &Keyspace, key: &[u8]) -> Result<OwnKey, Status> {
    pending::make_room_for_lease()?;
    let own = OwnKey::new(*keyspace, key)?;
    session::at_end(release_leases_at_end);
    Ok(own)
}

/// Returns the owner of the flights of this session.
pub fn owner() -> Owner {
    Owner { session: session::pid(), role: Role::current().oid() }
}

/// Returns the status if there is no slot for a lease or a claim. `limit` says whose share is used up.
pub fn no_room(limit: Limit) -> Status {
    Status::Refused(match limit {
        Limit::Space => "the space has used up its share of leases and claims",
        Limit::Role => "the role has used up its share of leases and claims",
        Limit::All => "all leases and claims are in use",
        Limit::Off => DAMAGED,
    })
}

/// The answer to a session that wants to compute a value.
#[derive(Clone, Copy, Debug)]
pub enum Begun {
    /// The session computes the value: the number of its fill, and the stamp of the value.
    Fill(u64, Stamp),
    /// Another session computes the value, or has claimed the key. If the session may wait, the answer has the moment at which it
    /// began to wait.
    Busy(InFlight, Option<Stamp>),
}

/// The behaviour of a session if another session already computes the value.
#[derive(Clone, Copy, Debug)]
pub enum IfBusy {
    /// The session computes the value for itself, and does not store it.
    GiveWay,
    /// The session waits, if sessions may wait for the other one. If the session waits already, the field is the moment at which it
    /// began to wait.
    Wait(Option<Stamp>),
    /// The session takes over, and the value of the other session will not be stored.
    TakeOver,
}

/// Begins a fill: the right to store the value that this session computes for a key. A fill takes precedence over a lease of the
/// key. It ends with [`end_fill`], when the transaction or savepoint is rolled back, or after [`FILL_MS_MAX`]. The error says why
/// the session cannot store the value.
pub fn begin_fill(keyspace: &Keyspace, key: &[u8], if_busy: IfBusy) -> Result<Begun, Status> {
    let own = prepare(keyspace, key)?;
    let name = keyspace.key(key, hash(key)).ok_or(Status::Miss("not there"))?;
    let mut request = FlightRequest::fill(owner(), shared::tick_in(FILL_MS_MAX));
    if locks::has_written() {
        // The transaction holds locks that a waiting session may need.
        request = request.lone();
    }
    request = match if_busy {
        IfBusy::GiveWay => request,
        IfBusy::Wait(arrived) => request.or_wait(arrived),
        IfBusy::TakeOver => request.take_over(),
    };
    match keyspace.tier.acquire(&name, request) {
        Acquired::Lead(fill) => {
            pending::hold(own, fill.id, HeldKind::Fill);
            Ok(Begun::Fill(fill.id, fill.stamp))
        }
        Acquired::Busy(leader) => Ok(Begun::Busy(leader, None)),
        Acquired::Wait(leader, arrived) => Ok(Begun::Busy(leader, Some(arrived))),
        // Only requests with `unless_present` get these answers.
        Acquired::Present | Acquired::Saved(_) => Err(IN_FLIGHT),
        Acquired::NoSlot(limit) => Err(Status::Refused(match limit {
            Limit::Space => "the space is computing too many queries",
            Limit::Role => "the role is computing too many queries",
            Limit::All => "the server is computing too many queries",
            Limit::Off => DAMAGED,
        })),
    }
}

/// The longest time, in milliseconds, for which a session keeps other sessions from computing the same value: one hour.
const FILL_MS_MAX: u64 = 60 * 60 * 1000;

/// Ends a fill, after the value was stored or the session has given up. Counts this number of failures of the query.
pub fn end_fill(keyspace: &Keyspace, key: &[u8], number: u64, failures: u8) {
    let hash = hash(key);
    if let Some(name) = keyspace.key(key, hash) {
        keyspace.tier.fail_fill(&name, number, failures);
    }
    pending::forget(number, HeldKind::Fill);
    queue::wake(hash);
}

/// Returns the stamp of a value that was computed under a lease. The error says why the value would not be stored.
pub fn lease_stamp(keyspace: &Keyspace, key: &[u8], lease: i64) -> Result<Stamp, Status> {
    if safe_stamp::is_unknown() {
        return Err(Status::Refused(SNAPSHOT_OF_UNKNOWN_AGE));
    }
    // A lease is also over if its key was set or removed after the lease was acquired.
    let over = Status::Refused("the lease is over, or the key was changed");
    let name = keyspace.key(key, hash(key)).ok_or(over)?;
    let number = number_of(lease).ok_or(Status::Refused("the lease is over"))?;
    let lease = keyspace.tier.lease(&name, number).ok_or(over)?;
    // The value may have been computed from the transaction's snapshot, which may be older than the lease.
    if transaction::keeps_one_snapshot() {
        return Ok(lease.stamp.min(safe_stamp::current()));
    }
    match snapshot::is_newer_than(lease.acquired) {
        true => Ok(lease.stamp),
        false => Err(Status::Refused("the statement's snapshot is older than the lease")),
    }
}

/// Returns the number of a lease in the tier. None if the lease is from before shared memory was last initialized, or if the value
/// is no lease.
pub fn number_of(lease: i64) -> Option<u64> {
    let lease = u64::try_from(lease).ok()?;
    (lease >> 32 == shared::epoch()).then_some(lease & u64::from(u32::MAX))
}

/// Returns the lease that callers get for a number of the tier. The number has at most 32 bits, and the epoch is in the upper half.
pub fn to_sql(number: u64) -> i64 {
    (shared::epoch() << 32 | number) as i64
}

/// Claims a key for the own transaction, and returns the number of the claim. With `despite_value`, the transaction may claim the
/// key although other sessions see a value. The error says why the key cannot be claimed.
pub fn claim(keyspace: &Keyspace, key: &[u8], despite_value: bool) -> Result<u64, Status> {
    let own = prepare(keyspace, key)?;
    let hash = hash(key);
    let name = keyspace.key(key, hash).ok_or(Status::Miss("not there"))?;
    // A value that is saved in a table may keep the key from being claimed. The tier can judge a value only in memory. So the value
    // is brought back, or its location is forgotten, and then the claim is tried again.
    let claimed = loop {
        let claimed = pending::with_own(keyspace, key, hash, |_, changed| {
            let reader = safe_stamp::reader(changed);
            keyspace.tier.claim(&name, (!despite_value).then_some(reader), owner())
        });
        let Err(Unclaimed::Saved(location)) = claimed else { break claimed };
        reading::bring_back_or_forget(keyspace, &name, location);
        shared::check_for_interrupts();
    };
    let number = claimed.map_err(|why| match why {
        Unclaimed::Present | Unclaimed::Saved(_) => Status::Refused("the key has a value"),
        Unclaimed::Changing => Status::Refused("another transaction is changing the key"),
        Unclaimed::Claimed => Status::Refused("another transaction is about to set the key"),
        Unclaimed::NoSlot(limit) => no_room(limit),
    })?;
    pending::hold(own, number, HeldKind::Claim);
    Ok(number)
}

/// Runs when the session ends. After an orderly end, the leases of the session stay for the clients that know their numbers,
/// because a client behind a connection pooler may continue in another session. After another end, the leases are released, because
/// no client will return to compute.
fn release_leases_at_end(in_order: bool) {
    let Some(tier) = shared::tier() else { return };
    if in_order {
        tier.disown_leases_of(session::pid());
        return;
    }
    if tier.release_leases_of(session::pid()) > 0 {
        queue::wake_all();
    }
}

/// Returns a message for each flight that no session will end: the flights of sessions that are gone, and the claims of this
/// session that its transaction does not know. A lease without an owner belongs to the client that knows its number, and ends by
/// itself. A session may end its flights and leave while this function runs, so a message counts only if a second call returns it
/// again. May raise errors.
pub fn orphans() -> Vec<String> {
    let Some(tier) = shared::tier() else { return Vec::new() };
    let mine = session::pid();
    let flights = tier.in_flight().or_raise();
    let findings = flights.into_iter().filter_map(|flight| match flight.owner {
        0 => None,
        owner if owner == mine && flight.purpose == Purpose::Claim && !pending::holds(flight.id) => {
            Some(format!("this session has claim {} of no transaction", flight.id))
        }
        owner if session::is_alive(owner) => None,
        owner => Some(format!("lease or claim {} is of session {owner}, which is gone", flight.id)),
    });
    memory::collect(findings.inspect(|_| memory::check()))
}
