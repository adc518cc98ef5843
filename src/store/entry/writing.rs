//! Sets values (`cache_set`). Records each value with its dependencies in the *ledger*, the list of the transaction's changes,
//! until the transaction commits. A *fence* is a word in shared memory that says when something that values depend on last changed,
//! and a *stamp* is a number on the clock of changes (`docs/architecture.md`). A *lease* is the right to compute the value of a
//! key, and a *claim* is the right to set a key that has no value (`store/flights.rs`).
//!
//! *Limits*: a value that exceeds a limit is refused with a status, never with an error. Its key's previous value is outdated, so
//! it is removed when the transaction commits. It stays if the new value was set with [`Mode::Absent`] or [`Mode::Lease`], because
//! these never make a previous value wrong. A key that cannot be stored has no value.

use super::access::keyspace_to_change;
use super::lifetime::{NO_LIFE, expires};
use super::reading::is_there;
use super::removing::{remove_previous, remove_while_disabled};
use crate::pg::memory::{self, OutOfMemory};
use crate::pg::{settings, shared, transaction};
use crate::store::keyspace::{self, Keyspace, hash};
use crate::store::latency::{self, ShortOperation};
use crate::store::space::Space;
use crate::store::status::{self, Object, Status};
use crate::store::transaction::{Basis, HeldKind, OwnKey, OwnState, Value, pending};
use crate::store::{flights, note, watch};
use pg_cache_core::{Counter, DEPENDENCIES_MAX, FenceId, Kind, Operation, StaleOk, Stamp};

/// A value to be set.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'a> {
    /// The value, in the form of its kind.
    pub bytes: &'a [u8],
    /// The kind of the value.
    pub kind: Kind,
    /// The time to live in milliseconds, or none for the default. With 0 the value is refused like one that exceeds a limit.
    pub ttl_ms: Option<u64>,
    /// The tags, without duplicates and each of 1 to 256 bytes.
    pub tags: &'a [&'a [u8]],
    /// Milliseconds for which the value may be served as a stale value, to callers that accept one, after it has stopped being
    /// valid. None if it must not be.
    pub stale_ok_ms: Option<u64>,
    /// The condition on which the value is set.
    pub mode: Mode,
}

/// The condition on which a value is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Always,
    /// Only if there is no value, no other session has claimed the key (`store/flights.rs`), and no commit that is under way
    /// changes it.
    Absent,
    /// Only if there is a value.
    Present,
    /// Only if this lease can still be used, and neither the key nor a dependency of the value has changed since it was acquired.
    Lease(i64),
}

/// The status for an operation that only changes an existing value.
pub const NO_VALUE: Status = Status::Refused("the key has no value");

/// An estimate of the bytes of an entry in addition to key and value: header, dependencies and rounding. Each dependency takes four
/// bytes, so an entry with many dependencies can need more. The commit may then refuse it, and removes the previous value.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// Sets a value. Other sessions see it when the transaction commits. Returns false if the value is refused; see *Limits* above for
/// the previous value of the key.
pub fn set(space: &Space, key: &[u8], new: &NewEntry<'_>) -> bool {
    let began = latency::begin(ShortOperation::Set);
    let outcome = try_set(space, key, new);
    if let Some(began) = began {
        latency::end(began, Operation::Set);
    }
    status::set(outcome.err().unwrap_or(Status::Done));
    outcome.is_ok()
}

/// Sets a value, or returns the reason why it is refused. Does not set the status.
fn try_set(space: &Space, key: &[u8], new: &NewEntry<'_>) -> Result<(), Status> {
    let keyspace = keyspace_to_change(space, key).inspect_err(|_| {
        if matches!(new.mode, Mode::Always | Mode::Present) {
            remove_while_disabled(space, key);
        }
    })?;
    if let Mode::Lease(lease) = new.mode {
        let number = flights::number_of(lease).ok_or(Status::Refused("the lease is over"))?;
        // The lease ends with this transaction even if the value is not stored, because its computation is done.
        pending::make_room_for_lease()?;
        pending::hold(OwnKey::new(keyspace, key)?, number, HeldKind::UsedLease);
    }
    let replaces = match new.mode {
        Mode::Always => true,
        Mode::Present if is_there(&keyspace, key) => true,
        Mode::Present => return Err(NO_VALUE),
        // The value of a lease is computed from what the database already says: it does not make the previous value wrong.
        Mode::Absent | Mode::Lease(_) => false,
    };
    hold_back(space, &keyspace, key, new).inspect_err(|_| {
        if replaces {
            remove_previous(&keyspace, key);
        }
    })
}

/// Returns an error for a value that exceeds a limit even in an empty cache.
fn check_limits(space: &Space, keyspace: &Keyspace, key: &[u8], new: &NewEntry<'_>) -> Result<(), Status> {
    if new.ttl_ms == Some(0) {
        return Err(NO_LIFE);
    }
    let limit = if new.bytes.len() > settings::max_value_bytes() {
        "larger than pg_cache.max_value_size"
    } else if space.options.max_value.is_some_and(|most| new.bytes.len() as u64 > most) {
        "larger than max_value of the space"
    } else {
        return keyspace.check_size(key.len() + note::len(new.tags) + new.bytes.len() + ENTRY_OVERHEAD_BYTES);
    };
    keyspace.tier.count_for_space(&keyspace.scope, Counter::RefusedSize, 1);
    Err(Status::Refused(limit))
}

/// Checks the limits and the condition, and records a value with its dependencies in the ledger. The error says why the value is
/// refused.
fn hold_back(space: &Space, keyspace: &Keyspace, key: &[u8], new: &NewEntry<'_>) -> Result<(), Status> {
    check_limits(space, keyspace, key, new)?;
    // The stamp must be taken first: a watch (`watch.rs`) that commits after the stamp then makes the value a miss.
    let now = keyspace.tier.fences().now();
    let as_of = match new.mode {
        Mode::Lease(lease) => flights::lease_stamp(keyspace, key, lease)?,
        _ => now,
    };
    let mut dependencies = watch::dependencies(keyspace.tier, new.tags, as_of);
    dependencies.try_reserve(new.tags.len()).map_err(OutOfMemory::from)?;
    dependencies.extend(new.tags.iter().map(|tag| keyspace::tag(keyspace.tier, tag)));
    if dependencies.len() > DEPENDENCIES_MAX {
        return Err(watch::too_many_relations(keyspace.tier, new.tags));
    }
    let valid_at = shared::tick();
    let (basis, stamp) = match new.mode {
        Mode::Always | Mode::Present => (Basis::Plain, now),
        Mode::Absent => (Basis::Claim(claim(keyspace, key)?), now),
        Mode::Lease(lease) => leased(keyspace, key, lease, as_of, &dependencies)?,
    };
    let stale_ok = new.stale_ok_ms.map(|ms| StaleOk { ticks: shared::ticks(ms), valid_at });
    let value = Value {
        bytes: memory::try_copy(new.bytes)?.into_boxed_slice(),
        note: note::of_tags(new.tags)?,
        kind: new.kind,
        stamp,
        expires: expires(space, new.ttl_ms),
        dependencies: dependencies.into(),
        stale_ok,
        basis,
        command_id: transaction::command_id(),
    };
    Ok(pending::set(OwnKey::new(*keyspace, key)?, value)
        .inspect_err(|_| keyspace.tier.count_for_space(&keyspace.scope, Counter::RefusedTransaction, 1))?)
}

/// Claims a key for this session, if it has no value for this session. Returns the number of the claim. If the own transaction has
/// removed the value that other sessions see, that value does not count.
fn claim(keyspace: &Keyspace, key: &[u8]) -> Result<u64, Status> {
    let hash = hash(key);
    let gone =
        pending::with_own(keyspace, key, hash, |own, _| matches!(own, OwnState::Gone | OwnState::Set(_)));
    if is_there(keyspace, key) {
        return Err(Status::Refused("the key has a value"));
    }
    flights::claim(keyspace, key, gone)
}

/// Returns the basis and the stamp of a value that was computed under a lease. `stamp` is the stamp of the lease, and `tags` are
/// the fences of the value's tags and of the relations that they stand for. Returns an error if something that the value depends on
/// has changed since the lease.
fn leased(
    keyspace: &Keyspace,
    key: &[u8],
    lease: i64,
    stamp: Stamp,
    tags: &[FenceId],
) -> Result<(Basis, Stamp), Status> {
    let hash = hash(key);
    let number = flights::number_of(lease).ok_or(Status::Refused("the lease is over"))?;
    let dependencies = || tags.iter().chain(&keyspace.fences);
    let own = pending::with_own(keyspace, key, hash, |own, changed| {
        !matches!(own, OwnState::Nothing) || dependencies().any(|fence| changed.binary_search(fence).is_ok())
    });
    if own {
        return Err(Status::Refused("this transaction has changed the key, or what its value depends on"));
    }
    let name = keyspace.key(key, hash);
    if name.is_some_and(|name| keyspace.tier.is_removed_by_pattern(&name, stamp, None)) {
        return Err(Status::Refused("a pattern that matches the key was invalidated since the lease"));
    }
    if let Some(fence) = dependencies().find(|fence| keyspace.tier.fences().has_changed_since(**fence, stamp))
    {
        let dependency = Object::Dependency(*fence, keyspace.scope.space);
        return Err(Status::Of("refused: {} changed since the lease", dependency));
    }
    Ok((Basis::Lease(number), stamp))
}
