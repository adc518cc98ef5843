//! Reading and changing entries: the operations behind the SQL functions.
//!
//! Each operation first looks at what the own transaction has changed, and then at the tier. Changes go into the ledger and take
//! effect for other sessions when the transaction commits. Counters are in `counter.rs`. Each operation sets the status of the
//! session.
//!
//! *Limits*: a value that exceeds a limit is refused with a status, never with an error. Its key's previous value is outdated, so
//! it is removed when the transaction commits. It stays if the new value was set with [`Mode::Absent`] or [`Mode::Lease`], because
//! these never replace a value. A key that cannot be stored has no value.

use crate::pg::error::{OrRaise, Refused};
use crate::pg::memory::OutOfMemory;
use crate::pg::{memory, names, observer, settings, shared, transaction};
use crate::store::flights;
use crate::store::note;
use crate::store::prefetch;
use crate::store::space::{self, Keyspace, Space, hash, unfit};
use crate::store::status::{self, Object, Status};
use crate::store::table::{listing, reading};
use crate::store::transaction::{Basis, HeldKind, Own, OwnKey, Value, pending, safe_stamp};
use crate::store::watch;
use pg_cache_core::{
    Buffer, Counter, DEPENDENCIES_MAX, FenceId, Key, Kind, Location, Meta, Miss, Reader, StaleOk, Stamp,
};
use pgrx::prelude::PgSqlErrorCode;
use std::collections::BTreeSet;

/// The kinds of values that callers set. `query/fetch.rs` has the kinds of query results, and the core has `Kind::COUNTER`.
/// `is_readable_as` in `api/value.rs` says which kind can be read as which type.
pub const JSONB: Kind = Kind(1);
pub const TEXT: Kind = Kind(2);
pub const BYTEA: Kind = Kind(3);

/// Copies a value into a buffer, if there is a value for this session.
#[inline(always)]
pub fn read(space: &Space, key: &[u8], into: &mut impl Buffer) -> Option<Meta> {
    look_as_told(space, key, &mut Some(into))
}

/// Returns the metadata of a value, if there is a value for this session. Does not count as a read.
pub fn peek(space: &Space, key: &[u8]) -> Option<Meta> {
    look_as_told(space, key, &mut None::<&mut ()>)
}

/// Looks for a value, unless the session or the space must not read from the cache.
#[inline(always)]
fn look_as_told(space: &Space, key: &[u8], into: &mut Option<&mut impl Buffer>) -> Option<Meta> {
    observer::note_cache();
    let outcome = match keyspace_for_reading(space) {
        Ok(keyspace) => {
            if into.is_some() {
                prefetch::of_scan(&keyspace, key);
            }
            look(&keyspace, key, into)
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

#[inline]
fn keyspace_for_reading(space: &Space) -> Result<Keyspace, Status> {
    if settings::bypasses() {
        return Err(Status::Bypass("pg_cache.bypass is on"));
    }
    if transaction::is_parallel_worker() {
        return Err(Status::Bypass("a parallel worker does not know what the transaction has changed"));
    }
    has_safe_stamp()?;
    keyspace_in_use(space)
}

/// Returns an error if the transaction has no safe stamp: then it gets no value and must not compute one for others.
#[inline]
fn has_safe_stamp() -> Result<(), Status> {
    match safe_stamp::is_unknown() {
        true => Err(Status::Bypass(status::SNAPSHOT_OF_UNKNOWN_AGE)),
        false => Ok(()),
    }
}

/// Returns the keyspace of the values of a space, if the cache and the space are enabled.
#[inline]
fn keyspace_in_use(space: &Space) -> Result<Keyspace, Status> {
    if !settings::is_enabled() {
        return Err(Status::Bypass("pg_cache.enabled is off"));
    }
    if !space.options.enabled {
        return Err(Status::Bypass("the space is not enabled"));
    }
    space.keyspace().ok_or_else(no_cache)
}

/// Returns the keyspace for a change that is held back until the transaction commits. Returns an error in a parallel worker, and
/// for a key that cannot be stored.
fn keyspace_to_change(space: &Space, key: &[u8]) -> Result<Keyspace, Status> {
    observer::note_cache();
    if transaction::is_parallel_worker() {
        return Err(Status::Refused("a parallel worker commits nothing"));
    }
    let keyspace = keyspace_in_use(space)?;
    unfit(key).map_or(Ok(keyspace), |why| Err(Status::Refused(why)))
}

/// Does the same for a value that is computed if it is not found. The transaction must also have a safe stamp.
pub fn keyspace_to_compute(space: &Space, key: &[u8]) -> Result<Keyspace, Status> {
    has_safe_stamp()?;
    keyspace_to_change(space, key)
}

/// Returns the keyspace for an addition to a counter. Returns an error for a key that cannot be stored.
pub fn keyspace_to_count(space: &Space, key: &[u8]) -> Result<Keyspace, Status> {
    observer::note_cache();
    let keyspace = keyspace_in_use(space)?;
    unfit(key).map_or(Ok(keyspace), |why| Err(Status::Refused(why)))
}

const RECOVERY: &str = "the server is in recovery";

#[cold]
fn no_cache() -> Status {
    Status::Bypass(match shared::is_in_recovery() {
        true => RECOVERY,
        false => "there is no cache in this server",
    })
}

/// Where a value was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Memory,
    Table,
    /// The own transaction has set it.
    Own,
}

/// Looks for the value of a key as this session must see it.
#[inline(always)]
fn look(
    keyspace: &Keyspace,
    bytes: &[u8],
    into: &mut Option<&mut impl Buffer>,
) -> Result<(Meta, Source), Status> {
    // A key that cannot be stored may have a gigabyte, so it is never hashed.
    if let Some(why) = unfit(bytes) {
        return Err(Status::Miss(why));
    }
    let hash = hash(bytes);
    let Some(key) = keyspace.key(bytes, hash) else { return Err(Status::Miss("not there")) };
    if pending::is_empty() {
        return ask(keyspace, &key, &[], into);
    }
    look_beside_own(keyspace, &key, bytes, hash, into)
}

/// Asks the tier for a value.
#[inline(always)]
fn ask(
    keyspace: &Keyspace,
    key: &Key<'_>,
    changed: &[FenceId],
    into: &mut Option<&mut impl Buffer>,
) -> Result<(Meta, Source), Status> {
    let reader = safe_stamp::reader(changed);
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
    reading::read(keyspace, key, location, reader, into)
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
    into: &mut Option<&mut impl Buffer>,
) -> Result<(Meta, Source), Status> {
    pending::with_own(keyspace, bytes, hash, |own, changed| {
        if let Own::Nothing | Own::Touched(_) = own {
            let (meta, source) = ask(keyspace, key, changed, into)?;
            let expires = if let Own::Touched(expires) = own { expires } else { meta.expires };
            return Ok((Meta { expires, ..meta }, source));
        }
        match own {
            Own::Set(value) => hit_of_own(value, into).map(|meta| (meta, Source::Own)),
            _ => Err(Status::Miss("removed by this transaction")),
        }
    })
}

/// Copies a value that the own transaction has set, if it has not expired.
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
fn is_there(keyspace: &Keyspace, key: &[u8]) -> bool {
    look(keyspace, key, &mut None::<&mut ()>).is_ok()
}

/// A value to be set.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'a> {
    pub bytes: &'a [u8],
    pub kind: Kind,
    /// The time to live in milliseconds, or none for the default. With 0 the value is refused like one that exceeds a limit.
    pub ttl_ms: Option<u64>,
    pub tags: &'a [&'a [u8]],
    /// Milliseconds for which the value may be served as a stale value, to callers that accept one, after it has stopped being
    /// valid.
    pub stale_ok_ms: Option<u64>,
    pub mode: Mode,
}

/// The condition on which a value is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Always,
    /// Only if there is no value, no other session has claimed the key, and no commit that is under way changes it.
    Absent,
    /// Only if there is a value.
    Present,
    /// Only if this lease can still be used, and neither the key nor a dependency of the value has changed since it was acquired.
    Lease(i64),
}

/// Sets a value. Other sessions see it when the transaction commits. Returns false if the value is refused; see *Limits* above for
/// the previous value of the key.
pub fn set(space: &Space, key: &[u8], new: &NewEntry<'_>) -> bool {
    let outcome = try_set(space, key, new);
    status::set(outcome.err().unwrap_or(Status::Done));
    outcome.is_ok()
}

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
        // The value of a lease is a fill: it does not make the previous value wrong.
        Mode::Absent | Mode::Lease(_) => false,
    };
    hold_back(space, &keyspace, key, new).inspect_err(|_| {
        if replaces {
            remove_previous(&keyspace, key);
        }
    })
}

/// Removes the previous value of a key whose new value is refused. If the removal cannot be recorded, but there is a value,
/// invalidates the space instead.
#[cold]
pub fn remove_previous(keyspace: &Keyspace, key: &[u8]) {
    if pending::remove(keyspace, key).is_err() && is_there(keyspace, key) {
        pending::invalidate(keyspace, keyspace.own_fence());
    }
}

/// Removes the value of a key whose new value is refused because the cache or the space is not enabled: it would be outdated once
/// they are enabled again.
#[cold]
fn remove_while_disabled(space: &Space, key: &[u8]) {
    if !transaction::is_parallel_worker()
        && unfit(key).is_none()
        && let Some(keyspace) = space.keyspace()
    {
        remove_previous(&keyspace, key);
    }
}

pub const NO_VALUE: Status = Status::Refused("the key has no value");
pub const NO_LIFE: Status = Status::Refused("ttl is not positive");

/// Returns an error for a value that exceeds a limit even in an empty cache.
fn admit(space: &Space, keyspace: &Keyspace, key: &[u8], new: &NewEntry<'_>) -> Result<(), Status> {
    if new.ttl_ms == Some(0) {
        return Err(NO_LIFE);
    }
    let limit = if new.bytes.len() > settings::max_value_bytes() {
        "larger than pg_cache.max_value_size"
    } else if space.options.max_value.is_some_and(|most| new.bytes.len() as u64 > most) {
        "larger than max_value of the space"
    } else {
        return keyspace.admit(key.len() + note::len(new.tags) + new.bytes.len() + ENTRY_OVERHEAD_BYTES);
    };
    keyspace.tier.note(&keyspace.scope, Counter::RefusedSize, 1);
    Err(Status::Refused(limit))
}

/// Records a value in the ledger.
fn hold_back(space: &Space, keyspace: &Keyspace, key: &[u8], new: &NewEntry<'_>) -> Result<(), Status> {
    admit(space, keyspace, key, new)?;
    // The stamp must be taken first: a watch that commits after the stamp then makes the value a miss.
    let now = keyspace.tier.fences().now();
    let as_of = match new.mode {
        Mode::Lease(lease) => flights::lease_stamp(keyspace, key, lease)?,
        _ => now,
    };
    let mut dependencies = watch::dependencies(keyspace.tier, new.tags, as_of);
    dependencies.try_reserve(new.tags.len()).map_err(OutOfMemory::from)?;
    dependencies.extend(new.tags.iter().map(|tag| space::tag(keyspace.tier, tag)));
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
        .inspect_err(|_| keyspace.tier.note(&keyspace.scope, Counter::RefusedTransaction, 1))?)
}

/// Claims a key for this session, if it has no value.
fn claim(keyspace: &Keyspace, key: &[u8]) -> Result<u64, Status> {
    let hash = hash(key);
    let gone = pending::with_own(keyspace, key, hash, |own, _| matches!(own, Own::Gone | Own::Set(_)));
    if is_there(keyspace, key) {
        return Err(Status::Refused("the key has a value"));
    }
    flights::claim(keyspace, key, gone)
}

/// Returns the basis and the stamp of a value that was computed under a lease. Returns an error if something that the value
/// depends on has changed since the lease.
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
        !matches!(own, Own::Nothing) || dependencies().any(|fence| changed.binary_search(fence).is_ok())
    });
    if own {
        return Err(Status::Refused("this transaction has changed the key, or what its value depends on"));
    }
    if let Some(fence) = dependencies().find(|fence| keyspace.tier.fences().has_changed_since(**fence, stamp))
    {
        let dependency = Object::Dependency(*fence, keyspace.scope.space);
        return Err(Status::Of("refused: {} changed since the lease", dependency));
    }
    Ok((Basis::Lease(number), stamp))
}

/// An estimate of the bytes of an entry in addition to key and value: header, dependencies and rounding. Each dependency takes four
/// bytes, so an entry with many dependencies can need more. The commit may then refuse it, and removes the previous value.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// Returns the tick at which a value expires that is set now. The time to live comes from the caller, the space, or the session's
/// settings, in this order. The jitter of the space can shorten it by a random amount but never makes it longer.
pub fn expires(space: &Space, ttl_ms: Option<u64>) -> u32 {
    let ttl = space.options.ttl_ms(ttl_ms);
    let spread = match space.options.jitter {
        0.0 => 0,
        jitter => (f64::from(jitter) * shared::chance() * ttl as f64) as u64,
    };
    shared::tick_in(ttl - spread.min(ttl))
}

/// Removes a key. Other sessions see this when the transaction commits. Returns whether there was a value for this session.
pub fn remove(space: &Space, key: &[u8]) -> Result<bool, Refused> {
    let Some(keyspace) = keyspace_for_invalidation(space)? else { return Ok(false) };
    if let Some(why) = unfit(key) {
        status::set(Status::Refused(why));
        return Ok(false);
    }
    let found = is_there(&keyspace, key);
    // The removal is recorded even if there is no value: another session may be about to commit one, or may be computing one.
    if pending::remove(&keyspace, key).is_err() {
        pending::invalidate(&keyspace, keyspace.own_fence());
    }
    status::set(Status::Done);
    Ok(found)
}

/// Returns the keyspace in which something of a space can be invalidated, or none if there is no cache. Returns an error in a
/// parallel worker. Returns an error during recovery too: a standby caches nothing, so the values are on the primary server.
fn keyspace_for_invalidation(space: &Space) -> Result<Option<Keyspace>, Refused> {
    if transaction::is_parallel_worker() {
        // A value that is not stored does no harm, but a value that is not invalidated would be wrong. So this is an error, not a
        // status.
        let code = PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_STATE;
        return Err(Refused::new(code, "cannot invalidate cached values in a parallel worker")
            .hint("Declare the calling function PARALLEL RESTRICTED."));
    }
    let keyspace = space.keyspace();
    if keyspace.is_none() && shared::is_in_recovery() {
        status::set(Status::Bypass(RECOVERY));
        let code = PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION;
        return Err(Refused::new(code, "cannot invalidate cached values during recovery")
            .hint("Invalidate the values on the primary server. A standby caches nothing."));
    }
    if keyspace.is_none() {
        status::set(no_cache());
    }
    Ok(keyspace)
}

/// Gives a value another time to live, or removes it if `ttl_ms` is 0. Other sessions see this when the transaction commits.
/// Returns whether there is a value for this session with the new time to live.
pub fn touch(space: &Space, key: &[u8], ttl_ms: u64) -> bool {
    let keyspace = keyspace_to_change(space, key).inspect_err(|_| {
        if ttl_ms == 0 {
            remove_while_disabled(space, key);
        }
    });
    let touched = keyspace.and_then(|keyspace| {
        if ttl_ms == 0 {
            remove_previous(&keyspace, key);
            return Err(NO_LIFE);
        }
        look(&keyspace, key, &mut None::<&mut ()>)?;
        bring_back(&keyspace, key);
        Ok(pending::touch(OwnKey::new(keyspace, key)?, expires(space, Some(ttl_ms)))?)
    });
    status::set(touched.err().unwrap_or(Status::Done));
    touched.is_ok()
}

/// Brings a value that is only in a table back into memory: a touch changes entries of the memory only.
fn bring_back(keyspace: &Keyspace, key: &[u8]) {
    if let Some(name) = keyspace.key(key, hash(key))
        && let Err(Miss::Saved(location)) = keyspace.tier.peek(&name, Stamp::LATEST)
    {
        reading::settle(keyspace, &name, location);
    }
}

/// Invalidates everything in the database that depends on a tag, when the transaction commits. `space` may be any space, because
/// tags belong to all spaces.
pub fn invalidate_tag(space: &Space, tag: &[u8]) -> Result<(), Refused> {
    if let Some(keyspace) = keyspace_for_invalidation(space)? {
        let fence = space::tag(keyspace.tier, tag);
        names::note(fence.number(), tag);
        pending::invalidate(&keyspace, fence);
        status::set(Status::Done);
    }
    Ok(())
}

/// Invalidates everything in the space, or in the whole database, when the transaction commits.
pub fn flush(space: &Space, everything: bool) -> Result<(), Refused> {
    if let Some(keyspace) = keyspace_for_invalidation(space)? {
        let [database, own] = keyspace.fences;
        pending::invalidate(&keyspace, if everything { database } else { own });
        status::set(Status::Done);
    }
    Ok(())
}

/// Invalidates everything that depends on a relation, when the transaction commits. `space` may be any space.
pub fn invalidate_relation(space: &Space, relation: u32) -> Result<(), Refused> {
    if let Some(keyspace) = keyspace_for_invalidation(space)? {
        pending::invalidate_relation(&keyspace, relation);
        status::set(Status::Done);
    }
    Ok(())
}

/// The most bytes that a call with several results returns, regardless of the size of the cache and of how often the call names a
/// key.
pub const RETURNED_BYTES_MAX: usize = 64 << 20;

/// The memory of a key in a list in addition to its bytes, in bytes.
const KEY_OVERHEAD_BYTES: usize = 32;

/// Returns the keys of a space that follow `after`, that `matches` accepts and that have a value for this session, sorted. Returns
/// the first `most` of them, as far as they fit into [`RETURNED_BYTES_MAX`]. May raise errors.
///
/// A key that has a value during the whole call is not missed, even if other sessions change it meanwhile: an entry stays in its
/// bucket, a new value of a key takes the place of the old one in one step, and the tables are walked after the memory. There is one
/// exception: a value that was only in a table when the call began, and is only in memory when the walk reaches that table.
pub fn keys(
    space: &Space,
    matches: impl Fn(&[u8]) -> bool,
    after: Option<&[u8]>,
    most: usize,
) -> Vec<Vec<u8>> {
    observer::note_cache();
    let keyspace = match keyspace_for_reading(space) {
        Ok(keyspace) => keyspace,
        Err(status) => {
            status::set(status);
            return Vec::new();
        }
    };
    status::set(Status::Hot);
    let mut own = pending::own_keys(&keyspace);
    own.sort_unstable();
    own.dedup();
    let mut first = FirstKeys { most, found: BTreeSet::new(), bytes: 0, end: None };
    let add = |first: &mut FirstKeys, key: Vec<u8>| {
        // Matching a long pattern takes time with each key, so cancellation is checked for each key.
        shared::check_for_interrupts();
        memory::check();
        if first.has_room_for(&key) && matches(&key) && is_there(&keyspace, &key) {
            first.add(key);
        }
    };
    let mut bucket = 0;
    loop {
        shared::check_for_interrupts();
        let found = keyspace.tier.keys_between(&keyspace.scope, bucket, after, first.end.as_deref());
        let Some(page) = found.or_raise() else { break };
        let others = page.keys.into_iter().filter(|key| own.binary_search(key).is_err());
        others.for_each(|key| add(&mut first, key));
        bucket = page.next;
    }
    let is_after = |key: &[u8]| after.is_none_or(|after| key > after);
    for shard in 0..keyspace.tier.shards() {
        listing::each_in_shard(keyspace.tier, shard, |key, _, _| {
            let is_wanted = key.scope().is(&keyspace.scope)
                && is_after(key.bytes())
                && own.binary_search_by(|own| own.as_slice().cmp(key.bytes())).is_err();
            if is_wanted {
                add(&mut first, memory::copy(key.bytes()));
            }
        });
    }
    own.into_iter().filter(|key| is_after(key)).for_each(|key| add(&mut first, key));
    memory::collect(first.found.into_iter())
}

/// The first keys, in order, of those that were added.
struct FirstKeys {
    most: usize,
    /// When there are too many, the last one is removed.
    found: BTreeSet<Vec<u8>>,
    bytes: usize,
    /// The least key that was left out. Keys behind it do not fit either.
    end: Option<Vec<u8>>,
}

impl FirstKeys {
    fn has_room_for(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| key < end.as_slice())
    }

    fn add(&mut self, key: Vec<u8>) {
        let length = key.len();
        if !self.found.insert(key) {
            return;
        }
        self.bytes += KEY_OVERHEAD_BYTES + length;
        while self.found.len() > self.most || self.bytes > RETURNED_BYTES_MAX {
            if self.found.len() <= self.most {
                status::set(Status::Cut);
            }
            let Some(last) = self.found.pop_last() else { break };
            self.bytes -= KEY_OVERHEAD_BYTES + last.len();
            self.end = Some(last);
        }
    }
}
