//! Entries as callers mean them: what the own transaction says of a key first, and behind it what the tier has.

use crate::pg::error::Refused;
use crate::pg::{settings, shared, transaction};
use crate::store::pending::{self, Own, OwnKey, Value};
use crate::store::space::{self, Place, Space, hash};
use crate::store::status::{self, Status};
use pg_cache_core::{Buffer, FenceId, IncrError, Kind, Meta, NewValue, Reader, Stamp};
use pgrx::prelude::PgSqlErrorCode;
use std::collections::BTreeSet;

/// What a value is: it can only be read as that.
pub const JSONB: Kind = Kind(1);
pub const TEXT: Kind = Kind(2);
pub const BYTEA: Kind = Kind(3);

/// Copies a value, if there is one for this session.
#[inline]
pub fn read(space: &Space, key: &[u8], into: &mut impl Buffer) -> Option<Meta> {
    look_as_told(space, key, &mut Some(into))
}

/// What is known of a value, if there is one for this session. Does not count as a read.
pub fn peek(space: &Space, key: &[u8]) -> Option<Meta> {
    look_as_told(space, key, &mut None::<&mut ()>)
}

/// The same, unless the session or the space is told not to read.
#[inline]
fn look_as_told(space: &Space, key: &[u8], into: &mut Option<&mut impl Buffer>) -> Option<Meta> {
    let outcome = match place_for_reading(space) {
        Ok(place) => look(&place, key, into),
        Err(status) => Err(status),
    };
    match outcome {
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
    place_in_use(space)
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
    if transaction::is_parallel_worker() {
        return Err(Status::Refused("a parallel worker commits nothing"));
    }
    place_in_use(space)
}

#[cold]
fn no_cache() -> Status {
    Status::Bypass(match shared::is_in_recovery() {
        true => "recovery",
        false => "there is no cache in this server",
    })
}

/// A value as this session has to see it, and whether it is its own.
#[inline]
fn look(place: &Place, bytes: &[u8], into: &mut Option<&mut impl Buffer>) -> Result<(Meta, bool), Status> {
    let hash = hash(bytes);
    let Some(key) = place.key(bytes, hash) else { return Err(Status::Miss("not there")) };
    let from_tier = |into: &mut Option<&mut _>, changed: &[FenceId]| {
        let reader = Reader { horizon: Stamp::LATEST, changed };
        match into {
            Some(into) => place.tier.get(&key, reader, *into),
            None => place.tier.peek(&key, reader),
        }
        .map(|meta| (meta, false))
        .map_err(Status::from)
    };
    pending::with_own(place, bytes, hash, |own, changed| match own {
        Own::Nothing => from_tier(into, changed),
        Own::Touched(expires) => from_tier(into, changed).map(|(meta, own)| (Meta { expires, ..meta }, own)),
        Own::Set(value) => {
            let meta = value.meta();
            if meta.expires <= shared::tick() {
                return Err(Status::Miss("expired"));
            }
            if let Some(into) = into {
                into.room(&meta).copy_from_slice(&value.bytes);
            }
            Ok((meta, true))
        }
        Own::Gone => Err(Status::Miss("removed by this transaction")),
    })
}

/// Whether there is a value, whatever the session is told about reading: for those who change it.
fn is_there(place: &Place, key: &[u8]) -> bool {
    look(place, key, &mut None::<&mut ()>).is_ok()
}

/// Sets a value, for others when the transaction commits. False if it is not stored.
pub fn set(space: &Space, key: &[u8], bytes: &[u8], kind: Kind, ttl_ms: Option<u64>, tags: &[&[u8]]) -> bool {
    let outcome = try_set(space, key, bytes, kind, ttl_ms, tags);
    status::set(outcome.err().unwrap_or(Status::Done));
    outcome.is_ok()
}

fn try_set(
    space: &Space,
    key: &[u8],
    bytes: &[u8],
    kind: Kind,
    ttl_ms: Option<u64>,
    tags: &[&[u8]],
) -> Result<(), Status> {
    let place = place_to_change(space)?;
    if !space.options.in_memory {
        return Err(Status::Refused("the space keeps nothing in memory"));
    }
    let stamp = place.tier.fences().now();
    let dependencies: Box<[FenceId]> = tags.iter().map(|tag| space::tag(place.tier, tag)).collect();
    // What is certain not to fit is refused at once, and what the key has stays.
    if key.len() + bytes.len() + ENTRY_OVERHEAD_BYTES > place.entry_bytes_max() {
        return Err(Status::Refused(TOO_LARGE));
    }
    let expires = expires(space, ttl_ms);
    let value = Value { bytes: bytes.into(), kind, stamp, expires, dependencies };
    match pending::set(OwnKey::new(place, key), value) {
        true => Ok(()),
        false => Err(Status::Refused("the transaction holds back more than pg_cache.max_transaction_size")),
    }
}

pub const TOO_LARGE: &str = "larger than a twentieth of the cache, or than the space may take";

/// More than an entry has beside its key and value: header, dependencies and rounding.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// The tick at which a value is over that is set now: by what its caller says, by the space, or by the session's settings. Chance
/// takes something off where the space has it so, and never adds to it.
fn expires(space: &Space, ttl_ms: Option<u64>) -> u32 {
    let options = &space.options;
    let wanted = ttl_ms.or(options.default_ttl_ms).unwrap_or_else(settings::default_ttl_ms);
    let ttl = options.max_ttl_ms.map_or(wanted, |most| wanted.min(most));
    let spread = (f64::from(options.jitter) * shared::chance() * ttl as f64) as u64;
    shared::tick_in(ttl - spread.min(ttl))
}

/// Removes a key, for others when the transaction commits. Whether there was a value for this session.
pub fn remove(space: &Space, key: &[u8]) -> Result<bool, Refused> {
    let Some(place) = place_for_invalidation(space)? else { return Ok(false) };
    let found = is_there(&place, key);
    // Even if there is nothing: somebody may be about to commit a value, or be computing one.
    pending::remove(OwnKey::new(place, key));
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
        match pending::touch(OwnKey::new(place, key), expires(space, Some(ttl_ms))) {
            true => Ok(()),
            false => {
                Err(Status::Refused("the transaction holds back more than pg_cache.max_transaction_size"))
            }
        }
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

/// Adds to a counter, at once and for all, and returns what it holds now. A key without a value becomes a counter.
///
/// Without a cache it counts nothing, and returns what a counter would hold that has just been created.
pub fn incr(space: &Space, key: &[u8], by: i64, ttl_ms: Option<u64>) -> Result<i64, IncrError> {
    let place = match place_in_use(space) {
        Ok(place) if space.options.in_memory => place,
        Ok(_) => {
            status::set(Status::Refused("the space keeps nothing in memory"));
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
        cost: 0,
        dependencies: &[],
    };
    let outcome = place.incr(&name, by, &new);
    status::set(match outcome {
        Err(IncrError::Refused(refusal)) => refusal.into(),
        _ => Status::Done,
    });
    outcome
}

/// The keys of a space that `matches` likes and that have a value for this session, in order; at most so many.
pub fn keys(space: &Space, matches: impl Fn(&[u8]) -> bool, most: usize) -> BTreeSet<Box<[u8]>> {
    let mut found = BTreeSet::new();
    let place = match place_for_reading(space) {
        Ok(place) => place,
        Err(status) => {
            status::set(status);
            return found;
        }
    };
    status::set(Status::Hot);
    let mut add = |key: &[u8]| {
        if matches(key) && is_there(&place, key) {
            found.insert(Box::from(key));
            if found.len() > most {
                found.pop_last();
            }
        }
    };
    pending::own_keys(&place).iter().for_each(|key| add(key));
    let scope = place.scope;
    let mut bucket = 0;
    while let Some(entries) = place.tier.inspect(bucket) {
        bucket += 1;
        if bucket % 1024 == 0 {
            shared::check_for_interrupts();
        }
        let mine = entries.into_iter().filter(|entry| {
            entry.valid
                && (entry.database, entry.space, entry.role) == (scope.database, scope.space, scope.role)
        });
        mine.for_each(|entry| add(&entry.key));
    }
    found
}
