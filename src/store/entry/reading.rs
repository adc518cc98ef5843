//! Finds the value of a key as this session must see it: a change of the own transaction, an entry of the memory, or a value that
//! is saved in a table. `cache_get` and stored queries read through this file.
//!
//! The *tier* is the cache in shared memory. A *fence* is a word in shared memory that says when something that values depend on
//! last changed, and a *stamp* is a number on the clock of changes (`docs/architecture.md`). The *safe stamp* of a transaction is a
//! stamp from before its snapshot: the transaction must not see later changes (`transaction/safe_stamp.rs`). An *outdated* value is
//! one that only changes of rows have made invalid.

use super::access::keyspace_for_reading;
use crate::pg::{observer, shared};
use crate::store::keyspace::{Keyspace, hash, why_unfit};
use crate::store::latency::{self, ShortOperation};
use crate::store::prefetch;
use crate::store::space::Space;
use crate::store::status::{self, Status};
use crate::store::table::reading as table;
use crate::store::transaction::{OwnState, Value, pending, safe_stamp};
use pg_cache_core::{Buffer, FenceId, Key, Location, Meta, Miss, Operation, Reader, Stamp};
use std::time::Instant;

/// The values that a caller accepts besides valid ones, and whether the caller repeats a look. [`Reader`] explains the fields.
#[derive(Clone, Copy, Debug, Default)]
pub struct Accepts {
    /// If this is set, the caller accepts a value whose stamp is this one or a later one, even if the value is not valid.
    pub arrived: Option<Stamp>,
    /// If this is set, the caller accepts an outdated value that was valid at this tick (`pg/clock.rs`) or later.
    pub outdated_since: Option<u32>,
    /// Whether the look was counted before. Then it counts neither a hit nor a miss.
    pub repeats: bool,
}

/// Copies a value into a buffer, if there is a value for this session, and returns its metadata. If None is returned, the status
/// says why, and the content of the buffer must not be used.
#[inline(always)]
pub fn read(space: &Space, key: &[u8], into: &mut impl Buffer) -> Option<Meta> {
    let began = latency::begin(ShortOperation::Get);
    let found = read_accepting(space, key, Accepts::default(), into);
    if let Some(began) = began {
        count_time(began, [Operation::GetFromMemory, Operation::GetFromTable]);
    }
    found
}

/// Counts the time of a read that has found a value. `operations` are the one for a value from memory, and the one for a value from
/// a table.
#[cold]
#[inline(never)]
pub fn count_time(began: Instant, operations: [Operation; 2]) {
    match status::current() {
        Some(Status::Hot) => latency::end(began, operations[0]),
        Some(Status::Table) => latency::end(began, operations[1]),
        _ => {}
    }
}

/// Does the same as [`read`] for a caller that also accepts some values that are not valid. Does not count the time.
#[inline(always)]
pub fn read_accepting(space: &Space, key: &[u8], accepts: Accepts, into: &mut impl Buffer) -> Option<Meta> {
    look_if_allowed(space, key, accepts, &mut Some(into))
}

/// Returns the metadata of a value, if there is a value for this session. Does not count as a read.
pub fn peek(space: &Space, key: &[u8]) -> Option<Meta> {
    look_if_allowed(space, key, Accepts::default(), &mut None::<&mut ()>)
}

/// Looks for a value, unless the session or the space must not read from the cache. Sets the status of the session.
#[inline(always)]
fn look_if_allowed(
    space: &Space,
    key: &[u8],
    accepts: Accepts,
    into: &mut Option<&mut impl Buffer>,
) -> Option<Meta> {
    observer::note_cache();
    let outcome = match keyspace_for_reading(space) {
        Ok(keyspace) => {
            if into.is_some() {
                prefetch::of_scan(&keyspace, key);
            }
            look_accepting(&keyspace, key, accepts, into)
        }
        Err(status) => Err(status),
    };
    match outcome {
        Ok(_) if into.as_ref().is_some_and(|into| !into.was_allocated()) => {
            status::set(Status::Miss("out of memory"));
            None
        }
        Ok((meta, source)) => {
            status::set(match source {
                // Only an outdated value has another `valid_at`.
                _ if meta.valid_at != u32::MAX => Status::Stale,
                Source::Memory => Status::Hot,
                Source::Table => Status::Table,
                Source::Own => Status::Own,
            });
            Some(meta)
        }
        Err(status) => {
            status::set(status);
            None
        }
    }
}

/// Where a value was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Memory,
    Table,
    /// The own transaction has set it.
    Own,
}

/// Looks for the value of a key as this session must see it. Without a buffer, copies nothing and does not count as a read. After a
/// hit, the caller must ask the buffer whether it had memory for the value.
#[inline(always)]
pub fn look(
    keyspace: &Keyspace,
    bytes: &[u8],
    into: &mut Option<&mut impl Buffer>,
) -> Result<(Meta, Source), Status> {
    look_accepting(keyspace, bytes, Accepts::default(), into)
}

/// Does the same as [`look`] for a caller that also accepts some values that are not valid.
#[inline(always)]
fn look_accepting(
    keyspace: &Keyspace,
    bytes: &[u8],
    accepts: Accepts,
    into: &mut Option<&mut impl Buffer>,
) -> Result<(Meta, Source), Status> {
    // A key that cannot be stored may be a gigabyte long, so it is never hashed.
    if let Some(why) = why_unfit(bytes) {
        return Err(Status::Miss(why));
    }
    let hash = hash(bytes);
    let Some(key) = keyspace.key(bytes, hash) else { return Err(Status::Miss("not there")) };
    if pending::is_empty() {
        return ask(keyspace, &key, &[], accepts, into);
    }
    look_beside_own(keyspace, &key, bytes, hash, accepts, into)
}

/// Asks the tier for a value. `changed` are the fences that the own transaction has changed, sorted.
#[inline(always)]
fn ask(
    keyspace: &Keyspace,
    key: &Key<'_>,
    changed: &[FenceId],
    accepts: Accepts,
    into: &mut Option<&mut impl Buffer>,
) -> Result<(Meta, Source), Status> {
    // A transaction that keeps one snapshot must only get values that fit its snapshot, so its safe stamp is not the latest one. It
    // gets no value that is accepted only because of `arrived` or `outdated_since`.
    let mut reader = Reader { repeats: accepts.repeats, ..safe_stamp::reader(changed) };
    if reader.safe_stamp == Stamp::LATEST {
        (reader.arrived, reader.outdated_since) = (accepts.arrived, accepts.outdated_since);
    }
    let outcome = match into {
        Some(into) => keyspace.tier.get(key, reader, *into),
        None => keyspace.tier.peek(key, reader),
    };
    match outcome {
        Ok(meta) => Ok((meta, Source::Memory)),
        Err(Miss::Saved(location)) => ask_table(keyspace, key, location, reader, into),
        Err(miss) => Err(status::of_miss(miss, keyspace.tier, &keyspace.scope, key, reader)),
    }
}

/// Asks the table tier for a value that is not in memory.
#[cold]
#[inline(never)]
fn ask_table(
    keyspace: &Keyspace,
    key: &Key<'_>,
    location: Location,
    reader: Reader<'_>,
    into: &mut Option<&mut impl Buffer>,
) -> Result<(Meta, Source), Status> {
    table::read(keyspace, key, location, reader, into)
        .map(|meta| (meta, Source::Table))
        .map_err(|miss| status::of_miss(miss, keyspace.tier, &keyspace.scope, key, reader))
}

/// Looks for a value in a transaction that has changed something. Not inlined, so that transactions that only read do not pay for
/// it.
#[cold]
#[inline(never)]
fn look_beside_own(
    keyspace: &Keyspace,
    key: &Key<'_>,
    bytes: &[u8],
    hash: u64,
    accepts: Accepts,
    into: &mut Option<&mut impl Buffer>,
) -> Result<(Meta, Source), Status> {
    pending::with_own(keyspace, bytes, hash, |own, changed| {
        if let OwnState::Nothing | OwnState::Touched(_) = own {
            let (meta, source) = ask(keyspace, key, changed, accepts, into)?;
            let expires = if let OwnState::Touched(expires) = own { expires } else { meta.expires };
            return Ok((Meta { expires, ..meta }, source));
        }
        match own {
            OwnState::Set(value) => hit_of_own(value, into).map(|meta| (meta, Source::Own)),
            _ => Err(Status::Miss("removed by this transaction")),
        }
    })
}

/// Copies a value that the own transaction has set, if it has not expired and the buffer accepts it.
pub fn hit_of_own(value: &Value, into: &mut Option<&mut impl Buffer>) -> Result<Meta, Status> {
    let meta = value.meta();
    if meta.expires <= shared::tick() {
        return Err(Status::Miss("expired"));
    }
    if let Some(into) = into {
        let room = into.allocate(&meta);
        let length = room.len().min(value.bytes.len());
        room[..length].copy_from_slice(&value.bytes[..length]);
        if !into.accepts(&meta) {
            return Err(Status::Miss("not there"));
        }
    }
    Ok(meta)
}

/// Returns whether there is a value for this session. Ignores the settings that turn reading off, because operations that change
/// values use it.
pub fn is_there(keyspace: &Keyspace, key: &[u8]) -> bool {
    look(keyspace, key, &mut None::<&mut ()>).is_ok()
}
