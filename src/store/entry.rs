//! Entries as callers mean them: what the own transaction says of a key first, and behind it what the tier has.

use crate::pg::{settings, shared};
use crate::store::foresight;
use crate::store::pending::{self, Own, OwnKey, Value};
use crate::store::space::{Space, hash};
use pg_cache_core::{Buffer, FenceId, IncrError, Kind, Meta, NewValue, Reader, Stamp};

/// What a value is: it can only be read as that.
pub const JSONB: Kind = Kind(1);
pub const TEXT: Kind = Kind(2);
pub const BYTEA: Kind = Kind(3);

/// Copies a value, if there is one for this session.
#[inline]
pub fn read(key: &[u8], into: &mut impl Buffer) -> Option<Meta> {
    look(key, &mut Some(into))
}

/// What is known of a value, if there is one for this session. Does not count as a read.
pub fn peek(key: &[u8]) -> Option<Meta> {
    look(key, &mut None::<&mut ()>)
}

#[inline]
fn look(bytes: &[u8], into: &mut Option<&mut impl Buffer>) -> Option<Meta> {
    if !settings::is_enabled() || settings::bypasses() {
        return None;
    }
    let space = Space::default()?;
    if into.is_some() {
        foresight::look_ahead(space, bytes);
    }
    let hash = hash(bytes);
    let key = space.key(bytes, hash)?;
    let from_tier = |into: &mut Option<&mut _>, changed: &[FenceId]| {
        let reader = Reader { horizon: Stamp::LATEST, changed };
        match into {
            Some(into) => space.tier.get(&key, reader, *into),
            None => space.tier.peek(&key, reader),
        }
        .ok()
    };
    pending::with_own(bytes, hash, |own, changed| match own {
        Own::Nothing => from_tier(into, changed),
        Own::Touched(expires) => from_tier(into, changed).map(|meta| Meta { expires, ..meta }),
        Own::Set(value) => {
            let meta = value.meta();
            if meta.expires <= shared::tick() {
                return None;
            }
            if let Some(into) = into {
                into.room(&meta).copy_from_slice(&value.bytes);
            }
            Some(meta)
        }
        Own::Gone => None,
    })
}

/// Sets a value, for others when the transaction commits. False if it is not stored.
pub fn set(key: &[u8], bytes: &[u8], kind: Kind, ttl_ms: Option<u64>, tags: &[&[u8]]) -> bool {
    let Some(space) = Space::default().filter(|_| settings::is_enabled()) else { return false };
    let stamp = space.tier.fences().now();
    let dependencies: Box<[FenceId]> = tags.iter().map(|tag| space.tag(tag)).collect();
    // What is certain not to fit is refused at once, and what the key has stays.
    if key.len() + bytes.len() + ENTRY_OVERHEAD_BYTES > space.tier.entry_bytes_max() {
        return false;
    }
    let expires = shared::tick_in(ttl_ms.unwrap_or_else(settings::default_ttl_ms));
    pending::set(OwnKey::new(space, key), Value { bytes: bytes.into(), kind, stamp, expires, dependencies })
}

/// More than an entry has beside its key and value: header, dependencies and rounding.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// Removes a key, for others when the transaction commits. Whether there was a value for this session.
pub fn remove(key: &[u8]) -> bool {
    let Some(space) = Space::default() else { return false };
    let found = peek(key).is_some();
    // Even if there is nothing: somebody may be about to commit a value, or be computing one.
    pending::remove(OwnKey::new(space, key));
    found
}

/// Gives a value another time to live, for others when the transaction commits. Whether there is one for this session.
pub fn touch(key: &[u8], ttl_ms: u64) -> bool {
    let Some(space) = Space::default() else { return false };
    peek(key).is_some() && pending::touch(OwnKey::new(space, key), shared::tick_in(ttl_ms))
}

/// Makes everything that depends on a tag a miss, for others when the transaction commits.
pub fn invalidate_tag(tag: &[u8]) {
    if let Some(space) = Space::default() {
        pending::invalidate(space, space.tag(tag));
    }
}

/// Makes everything in the space, or in the whole database, a miss, for others when the transaction commits.
pub fn flush(everything: bool) {
    if let Some(space) = Space::default() {
        let [database, own] = space.fences;
        pending::invalidate(space, if everything { database } else { own });
    }
}

/// Adds to a counter, at once and for all, and returns what it holds now. A key without a value becomes a counter.
///
/// Without a cache it counts nothing, and returns what a counter would hold that has just been created.
pub fn incr(key: &[u8], by: i64, ttl_ms: Option<u64>) -> Result<i64, IncrError> {
    let Some(space) = Space::default().filter(|_| settings::is_enabled()) else { return Ok(by) };
    let Some(name) = space.key(key, hash(key)) else { return Ok(by) };
    let new = NewValue {
        bytes: &[],
        kind: Kind::COUNTER,
        stamp: space.tier.fences().now(),
        expires: shared::tick_in(ttl_ms.unwrap_or_else(settings::default_ttl_ms)),
        cost: 0,
        dependencies: &[],
    };
    space.tier.incr(&name, by, &new)
}
