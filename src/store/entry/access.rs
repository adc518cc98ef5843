//! Whether the session and the space may use the cache for an operation. Each function returns the *keyspace*, the part of the
//! cache that holds the keys of the space (`store/keyspace.rs`), for one kind of operation, or says why the operation must do
//! without the cache: a setting, a parallel worker, recovery, a snapshot of unknown age, or a key that cannot be stored. The
//! functions for changes and counters also count as a use of the cache for a query of `cache_fetch` that is running
//! (`pg/observer.rs`); `reading.rs` and `listing.rs` count reads themselves. The caller must have checked the privilege of the
//! role.
//!
//! A *space* is a named cache with its own options. A *stamp* is a number on the clock of changes (`docs/architecture.md`). The
//! *safe stamp* of a transaction that keeps one snapshot is a stamp from before that snapshot (`transaction/safe_stamp.rs`).

use crate::pg::error::Refused;
use crate::pg::{observer, settings, shared, transaction};
use crate::store::keyspace::{Keyspace, why_unfit};
use crate::store::space::Space;
use crate::store::status::{self, Status};
use crate::store::transaction::safe_stamp;
use pgrx::prelude::PgSqlErrorCode;

/// The reason why a standby does not cache.
const RECOVERY: &str = "the server is in recovery";

/// Returns the keyspace for a read. The setting `pg_cache.bypass` forbids only reads.
#[inline]
pub fn keyspace_for_reading(space: &Space) -> Result<Keyspace, Status> {
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
pub fn keyspace_to_change(space: &Space, key: &[u8]) -> Result<Keyspace, Status> {
    observer::note_cache();
    if transaction::is_parallel_worker() {
        return Err(Status::Refused("a parallel worker commits nothing"));
    }
    let keyspace = keyspace_in_use(space)?;
    why_unfit(key).map_or(Ok(keyspace), |why| Err(Status::Refused(why)))
}

/// Does the same as [`keyspace_to_change`] for a value that is computed if it is not found. Also returns an error if the
/// transaction has no safe stamp.
pub fn keyspace_to_compute(space: &Space, key: &[u8]) -> Result<Keyspace, Status> {
    has_safe_stamp()?;
    keyspace_to_change(space, key)
}

/// Returns the keyspace for an addition to a counter. Returns an error for a key that cannot be stored, but not in a parallel
/// worker: an addition takes effect at once and needs no commit.
pub fn keyspace_to_count(space: &Space, key: &[u8]) -> Result<Keyspace, Status> {
    observer::note_cache();
    let keyspace = keyspace_in_use(space)?;
    why_unfit(key).map_or(Ok(keyspace), |why| Err(Status::Refused(why)))
}

/// Returns the keyspace in which something of a space can be invalidated, or none if there is no cache; the status then says why.
/// Settings and options that switch the cache off do not matter here: the values would be outdated once it is switched on again.
/// Returns an error in a parallel worker. Returns an error during recovery too: a standby caches nothing, so the values are on the
/// primary server.
pub fn keyspace_for_invalidation(space: &Space) -> Result<Option<Keyspace>, Refused> {
    if transaction::is_parallel_worker() {
        // A value that is not stored does no harm, but a value that is not invalidated would be wrong. So this is an error, not a
        // status.
        let code = PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_STATE;
        return Err(Refused::new(code, "cannot invalidate cached values in a parallel worker")
            .hint("Declare the calling function PARALLEL RESTRICTED."));
    }
    // The result of a query that invalidates must not be stored: a hit would not invalidate.
    observer::note_cache();
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

/// Returns the reason why this server has no tier now.
#[cold]
fn no_cache() -> Status {
    Status::Bypass(match shared::is_in_recovery() {
        true => RECOVERY,
        false => "there is no cache in this server",
    })
}
