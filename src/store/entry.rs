//! Entries as callers mean them: what the own transaction says of a key first, and behind it what the tier has.

use crate::pg::error::Refused;
use crate::pg::memory::OutOfMemory;
use crate::pg::{memory, observer, queue, settings, shared, transaction};
use crate::store::change::{Basis, OwnKey, Value};
use crate::store::foresight;
use crate::store::horizon;
use crate::store::lease;
use crate::store::ledger::Own;
use crate::store::pending;
use crate::store::right;
use crate::store::space::{self, Place, Space, hash};
use crate::store::status::{self, Status};
use crate::store::watch;
use pg_cache_core::{
    Buffer, Cost, Counter, DEPENDENCIES_MAX, FenceId, IncrError, Key, Kind, Lingering, Meta, NewValue, Stamp,
};
use pgrx::prelude::PgSqlErrorCode;
use std::collections::BinaryHeap;

/// What a value is: it can only be read as that.
pub const JSONB: Kind = Kind(1);
pub const TEXT: Kind = Kind(2);
pub const BYTEA: Kind = Kind(3);

/// Copies a value, if there is one for this session.
#[inline(always)]
pub fn read(space: &Space, key: &[u8], into: &mut impl Buffer) -> Option<Meta> {
    look_as_told(space, key, &mut Some(into))
}

/// What is known of a value, if there is one for this session. Does not count as a read.
pub fn peek(space: &Space, key: &[u8]) -> Option<Meta> {
    look_as_told(space, key, &mut None::<&mut ()>)
}

/// The same, unless the session or the space is told not to read.
#[inline(always)]
fn look_as_told(space: &Space, key: &[u8], into: &mut Option<&mut impl Buffer>) -> Option<Meta> {
    observer::note_cache();
    let outcome = match place_for_reading(space) {
        Ok(place) => {
            if into.is_some() {
                foresight::look_ahead(&place, key);
            }
            look(&place, key, into)
        }
        Err(status) => Err(status),
    };
    match outcome {
        Ok(_) if into.as_ref().is_some_and(|into| !into.had_room()) => {
            status::set(Status::Miss("out of memory"));
            None
        }
        Ok((meta, own)) => {
            status::set(if own { Status::Own } else { Status::Hot });
            Some(meta)
        }
        Err(status) => {
            status::set(status);
            None
        }
    }
}

#[inline]
fn place_for_reading(space: &Space) -> Result<Place, Status> {
    if settings::bypasses() {
        return Err(Status::Bypass("pg_cache.bypass is on"));
    }
    if transaction::is_parallel_worker() {
        return Err(Status::Bypass("a parallel worker does not know what the transaction has changed"));
    }
    has_memory(space)?;
    has_safe_stamp()?;
    place_in_use(space)
}

/// Whether the transaction may be served anything, and may compute a value.
#[inline]
fn has_safe_stamp() -> Result<(), Status> {
    match horizon::is_unknown() {
        true => Err(Status::Bypass("the transaction's snapshot may be of any time")),
        false => Ok(()),
    }
}

/// Not if the space keeps nothing in memory: what was stored there before it was told so may be older than what its callers could
/// not store since.
#[inline]
fn has_memory(space: &Space) -> Result<(), Status> {
    if space.options.in_memory { Ok(()) } else { Err(Status::Bypass(NOT_IN_MEMORY)) }
}

/// Where the values of a space are, if it is in use.
#[inline]
fn place_in_use(space: &Space) -> Result<Place, Status> {
    if !settings::is_enabled() {
        return Err(Status::Bypass("pg_cache.enabled is off"));
    }
    if !space.options.enabled {
        return Err(Status::Bypass("the space is not enabled"));
    }
    space.place().ok_or_else(no_cache)
}

/// The same, for what waits until the transaction commits.
fn place_to_change(space: &Space) -> Result<Place, Status> {
    observer::note_cache();
    if transaction::is_parallel_worker() {
        return Err(Status::Refused("a parallel worker commits nothing"));
    }
    place_in_use(space)
}

/// The same, for a value that is looked for and otherwise computed.
pub fn place_to_compute(space: &Space) -> Result<Place, Status> {
    has_memory(space)?;
    has_safe_stamp()?;
    place_to_change(space)
}

#[cold]
fn no_cache() -> Status {
    Status::Bypass(match shared::is_in_recovery() {
        true => "recovery",
        false => "there is no cache in this server",
    })
}

/// A value as this session has to see it, and whether it is its own.
#[inline(always)]
fn look(place: &Place, bytes: &[u8], into: &mut Option<&mut impl Buffer>) -> Result<(Meta, bool), Status> {
    let hash = hash(bytes);
    let Some(key) = place.key(bytes, hash) else { return Err(Status::Miss("not there")) };
    if pending::is_empty() {
        return ask(place, &key, &[], into);
    }
    look_beside_own(place, &key, bytes, hash, into)
}

/// What the tier says.
#[inline(always)]
fn ask(
    place: &Place,
    key: &Key<'_>,
    changed: &[FenceId],
    into: &mut Option<&mut impl Buffer>,
) -> Result<(Meta, bool), Status> {
    let reader = horizon::reader(changed);
    match into {
        Some(into) => place.tier.get(key, reader, *into),
        None => place.tier.peek(key, reader),
    }
    .map(|meta| (meta, false))
    .map_err(Status::from)
}

/// The same in a transaction that has changed something. Apart, so that those that only read do not pay for it.
#[cold]
#[inline(never)]
fn look_beside_own(
    place: &Place,
    key: &Key<'_>,
    bytes: &[u8],
    hash: u64,
    into: &mut Option<&mut impl Buffer>,
) -> Result<(Meta, bool), Status> {
    pending::with_own(place, bytes, hash, |own, changed| {
        if let Own::Nothing | Own::Touched(_) = own {
            let (meta, _) = ask(place, key, changed, into)?;
            let expires = if let Own::Touched(expires) = own { expires } else { meta.expires };
            return Ok((Meta { expires, ..meta }, false));
        }
        match own {
            Own::Set(value) => hit_of_own(value, into).map(|meta| (meta, true)),
            _ => Err(Status::Miss("removed by this transaction")),
        }
    })
}

/// A value that the own transaction has set, if its time is not over.
pub fn hit_of_own(value: &Value, into: &mut Option<&mut impl Buffer>) -> Result<Meta, Status> {
    let meta = value.meta();
    if meta.expires <= shared::tick() {
        return Err(Status::Miss("expired"));
    }
    if let Some(into) = into {
        let room = into.room(&meta);
        let length = room.len().min(value.bytes.len());
        room[..length].copy_from_slice(&value.bytes[..length]);
    }
    Ok(meta)
}

/// Whether there is a value, whatever the session is told about reading: for those who change it.
fn is_there(place: &Place, key: &[u8]) -> bool {
    look(place, key, &mut None::<&mut ()>).is_ok()
}

/// A value to be set.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'a> {
    pub bytes: &'a [u8],
    pub kind: Kind,
    pub ttl_ms: Option<u64>,
    pub tags: &'a [&'a [u8]],
    /// How long it may be served to those who ask for it after it has stopped being right.
    pub stale_ok_ms: Option<u64>,
    pub mode: Mode,
}

/// On what condition a value is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Always,
    /// If there is none, and nobody else is about to set it on this condition.
    Absent,
    /// If there is one.
    Present,
    /// If nothing has changed since the lease was given under which it was computed.
    Lease(i64),
}

/// Sets a value, for others when the transaction commits. False if it is not stored.
pub fn set(space: &Space, key: &[u8], new: &NewEntry<'_>) -> bool {
    let outcome = try_set(space, key, new);
    status::set(outcome.err().unwrap_or(Status::Done));
    outcome.is_ok()
}

fn try_set(space: &Space, key: &[u8], new: &NewEntry<'_>) -> Result<(), Status> {
    let place = place_to_change(space)?;
    if let Mode::Lease(lease) = new.mode {
        let number = lease::number_of(lease).ok_or(Status::Refused("the lease is over"))?;
        // Whatever becomes of the value: its computation is done.
        pending::make_room_for_right()?;
        pending::entitle(OwnKey::new(place, key)?, number, right::Kind::Landing);
    }
    if !space.options.in_memory {
        return Err(Status::Refused(NOT_IN_MEMORY));
    }
    // What is certain not to fit is refused at once, and what the key has stays.
    place.admit(key.len() + new.bytes.len() + ENTRY_OVERHEAD_BYTES)?;
    // The stamp first: a watch that is committed after it makes the value a miss.
    let now = place.tier.fences().now();
    let as_of = match new.mode {
        Mode::Lease(lease) => lease::stamp(&place, key, lease)?,
        _ => now,
    };
    let mut dependencies = watch::dependencies(place.tier, new.tags, as_of);
    dependencies.try_reserve(new.tags.len()).map_err(OutOfMemory::from)?;
    dependencies.extend(new.tags.iter().map(|tag| space::tag(place.tier, tag)));
    if dependencies.len() > DEPENDENCIES_MAX {
        return Err(watch::too_many_relations(place.tier, new.tags));
    }
    let right_at = shared::tick();
    let (basis, stamp) = match new.mode {
        Mode::Always => (Basis::Plain, now),
        Mode::Present if is_there(&place, key) => (Basis::Plain, now),
        Mode::Present => return Err(Status::Refused("there is no value")),
        Mode::Absent => (Basis::Claim(claim(&place, key)?), now),
        Mode::Lease(lease) => leased(&place, key, lease, as_of, &dependencies)?,
    };
    let lingering = new.stale_ok_ms.map(|ms| Lingering { ticks: shared::ticks(ms), right_at });
    let value = Value {
        bytes: memory::try_copy(new.bytes)?.into_boxed_slice(),
        kind: new.kind,
        stamp,
        expires: expires(space, new.ttl_ms),
        dependencies: dependencies.into(),
        lingering,
        basis,
        command: transaction::command(),
    };
    Ok(pending::set(OwnKey::new(place, key)?, value)
        .inspect_err(|_| place.tier.note(&place.scope, Counter::RefusedTransaction, 1))?)
}

/// Claims a key that has no value for this session.
fn claim(place: &Place, key: &[u8]) -> Result<u64, Status> {
    let hash = hash(key);
    let gone = pending::with_own(place, key, hash, |own, _| matches!(own, Own::Gone | Own::Set(_)));
    if is_there(place, key) {
        return Err(Status::Refused("there is a value"));
    }
    lease::claim(place, key, gone)
}

/// The basis and the stamp of a value that was computed under a lease with a stamp, unless something has changed since.
fn leased(
    place: &Place,
    key: &[u8],
    lease: i64,
    stamp: Stamp,
    tags: &[FenceId],
) -> Result<(Basis, Stamp), Status> {
    let hash = hash(key);
    let number = lease::number_of(lease).ok_or(Status::Refused("the lease is over"))?;
    let dependencies = || tags.iter().chain(&place.fences);
    let own = pending::with_own(place, key, hash, |own, changed| {
        !matches!(own, Own::Nothing) || dependencies().any(|fence| changed.binary_search(fence).is_ok())
    });
    if own {
        return Err(Status::Refused("this transaction has changed the key, or what its value depends on"));
    }
    if dependencies().any(|fence| place.tier.fences().passed(*fence, stamp)) {
        return Err(Status::Refused("what the value depends on was changed since the lease"));
    }
    Ok((Basis::Lease(number), stamp))
}

const NOT_IN_MEMORY: &str = "the space keeps nothing in memory";

/// More than an entry has beside its key and value: header, dependencies and rounding.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// The tick at which a value is over that is set now: by what its caller says, by the space, or by the session's settings. Chance
/// takes something off where the space has it so, and never adds to it.
pub fn expires(space: &Space, ttl_ms: Option<u64>) -> u32 {
    let options = &space.options;
    let wanted = ttl_ms.or(options.default_ttl_ms).unwrap_or_else(settings::default_ttl_ms);
    let ttl = options.max_ttl_ms.map_or(wanted, |most| wanted.min(most));
    let spread = match options.jitter {
        0.0 => 0,
        jitter => (f64::from(jitter) * shared::chance() * ttl as f64) as u64,
    };
    shared::tick_in(ttl - spread.min(ttl))
}

/// Removes a key, for others when the transaction commits. Whether there was a value for this session.
pub fn remove(space: &Space, key: &[u8]) -> Result<bool, Refused> {
    let Some(place) = place_for_invalidation(space)? else { return Ok(false) };
    let found = is_there(&place, key);
    // Even if there is nothing: somebody may be about to commit a value, or be computing one.
    pending::remove(&place, key);
    status::set(Status::Done);
    Ok(found)
}

/// Where something of a space can be made invalid: nowhere if there is nothing. In recovery that is refused, because it would be
/// forgotten by the server that this one will become.
fn place_for_invalidation(space: &Space) -> Result<Option<Place>, Refused> {
    if transaction::is_parallel_worker() {
        // Unlike a value that is not stored, one that is not invalidated would be wrong.
        let code = PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_STATE;
        return Err(Refused::new(code, "cannot invalidate cached values in a parallel worker")
            .hint("Declare the function that does it PARALLEL RESTRICTED."));
    }
    let place = space.place();
    if place.is_none() && shared::is_in_recovery() {
        status::set(Status::Bypass("recovery"));
        let code = PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION;
        return Err(Refused::new(code, "cannot invalidate cached values during recovery")
            .hint("Nothing is cached on a standby. Invalidate on the primary server."));
    }
    if place.is_none() {
        status::set(no_cache());
    }
    Ok(place)
}

/// Gives a value another time to live, for others when the transaction commits. Whether there is one for this session.
pub fn touch(space: &Space, key: &[u8], ttl_ms: u64) -> bool {
    let touched = place_to_change(space).and_then(|place| {
        look(&place, key, &mut None::<&mut ()>)?;
        Ok(pending::touch(OwnKey::new(place, key)?, expires(space, Some(ttl_ms)))?)
    });
    status::set(touched.err().unwrap_or(Status::Done));
    touched.is_ok()
}

/// Makes everything in the database that depends on a tag a miss, for others when the transaction commits. `space` is any: tags
/// belong to all.
pub fn invalidate_tag(space: &Space, tag: &[u8]) -> Result<(), Refused> {
    if let Some(place) = place_for_invalidation(space)? {
        pending::invalidate(&place, space::tag(place.tier, tag));
        status::set(Status::Done);
    }
    Ok(())
}

/// Makes everything in the space, or in the whole database, a miss, for others when the transaction commits.
pub fn flush(space: &Space, everything: bool) -> Result<(), Refused> {
    if let Some(place) = place_for_invalidation(space)? {
        let [database, own] = place.fences;
        pending::invalidate(&place, if everything { database } else { own });
        status::set(Status::Done);
    }
    Ok(())
}

/// Makes everything a miss that depends on a relation, for others when the transaction commits. `space` is any.
pub fn invalidate_relation(space: &Space, number: u32) -> Result<(), Refused> {
    if let Some(place) = place_for_invalidation(space)? {
        pending::invalidate_relation(&place, number);
        status::set(Status::Done);
    }
    Ok(())
}

/// Adds to a counter, at once and for all, and returns what it holds now. A key without a value becomes a counter.
///
/// Without a cache it counts nothing, and returns what a counter would hold that has just been created.
pub fn incr(space: &Space, key: &[u8], by: i64, ttl_ms: Option<u64>) -> Result<i64, IncrError> {
    observer::note_cache();
    let place = match place_in_use(space) {
        Ok(place) if space.options.in_memory => place,
        Ok(_) => {
            status::set(Status::Refused(NOT_IN_MEMORY));
            return Ok(by);
        }
        Err(status) => {
            status::set(status);
            return Ok(by);
        }
    };
    let hash = hash(key);
    // What the own transaction has set will take the counter's place when it commits.
    let set = pending::with_own(&place, key, hash, |own, _| match own {
        Own::Set(value) => Some(value.kind),
        _ => None,
    });
    if let Some(kind) = set {
        return Err(IncrError::OtherKind(kind));
    }
    let Some(name) = place.key(key, hash) else { return Ok(by) };
    let new = NewValue {
        bytes: &[],
        kind: Kind::COUNTER,
        stamp: place.tier.fences().now(),
        expires: expires(space, ttl_ms),
        cost: Cost::NONE,
        dependencies: &[],
    };
    let outcome = place.incr(&name, by, &new);
    queue::wake(hash);
    status::set(match outcome {
        Err(IncrError::Refused(refusal)) => refusal.into(),
        _ => Status::Done,
    });
    outcome
}

/// The most bytes that a call with several results returns, whatever the cache holds and however often the call names a key.
pub const RETURNED_BYTES_MAX: usize = 64 << 20;

/// The memory of a key in a list beside its bytes.
const KEY_OVERHEAD_BYTES: usize = 32;

/// The keys of a space that `matches` likes and that have a value for this session, in order: the first `most` of them, as far as
/// they fit into [`RETURNED_BYTES_MAX`]. May raise errors.
pub fn keys(space: &Space, matches: impl Fn(&[u8]) -> bool, most: usize) -> Vec<Vec<u8>> {
    observer::note_cache();
    let place = match place_for_reading(space) {
        Ok(place) => place,
        Err(status) => {
            status::set(status);
            return Vec::new();
        }
    };
    status::set(Status::Hot);
    // The largest one on top, which is the first to go.
    let (mut found, mut bytes) = (BinaryHeap::new(), 0);
    // The least key that was left out: the keys behind it do not fit either.
    let mut end: Option<Vec<u8>> = None;
    let mut add = |key: Vec<u8>| {
        // A long pattern takes its time with each key.
        shared::check_for_interrupts();
        memory::check();
        let fits = end.as_ref().is_none_or(|end| key < *end);
        if fits && matches(&key) && is_there(&place, &key) {
            found.try_reserve(1).unwrap_or_else(|short| OutOfMemory::from(short).raise());
            bytes += KEY_OVERHEAD_BYTES + key.len();
            found.push(key);
            while found.len() > most || bytes > RETURNED_BYTES_MAX {
                if found.len() <= most {
                    status::set(Status::Cut);
                }
                let Some(last) = found.pop() else { break };
                bytes -= KEY_OVERHEAD_BYTES + last.len();
                end = Some(last);
            }
        }
    };
    let mut own = pending::own_keys(&place);
    own.sort_unstable();
    own.dedup();
    let scope = place.scope;
    let mut bucket = 0;
    let inspect =
        |bucket| place.tier.inspect(bucket).unwrap_or_else(|short| OutOfMemory::from(short).raise());
    while let Some(entries) = inspect(bucket) {
        bucket += 1;
        if bucket % 1024 == 0 {
            shared::check_for_interrupts();
        }
        let mine = entries.into_iter().filter(|entry| {
            entry.valid
                && (entry.database, entry.space, entry.role) == (scope.database, scope.space, scope.role)
                && own.binary_search(&entry.key).is_err()
        });
        mine.for_each(|entry| add(entry.key));
    }
    own.into_iter().for_each(add);
    found.into_sorted_vec()
}
