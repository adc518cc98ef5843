//! Removes keys: because the caller asks for it, or because the new value of a key is refused. A refused value must not leave the
//! previous one behind, because that one is outdated.
//!
//! The removal is recorded in the *ledger*, the list of the transaction's changes. If that cannot be done, the whole *space*, the
//! named cache that the key is in, is invalidated.

use super::access::keyspace_for_invalidation;
use super::reading::is_there;
use crate::pg::error::Refused;
use crate::pg::transaction;
use crate::store::keyspace::{Keyspace, why_unfit};
use crate::store::space::Space;
use crate::store::status::{self, Status};
use crate::store::transaction::pending;

/// Removes a key. Other sessions see this when the transaction commits. Returns whether there was a value for this session. If the
/// removal cannot be recorded, invalidates the space instead.
pub fn remove(space: &Space, key: &[u8]) -> Result<bool, Refused> {
    let Some(keyspace) = keyspace_for_invalidation(space)? else { return Ok(false) };
    if let Some(why) = why_unfit(key) {
        status::set(Status::Refused(why));
        return Ok(false);
    }
    let found = is_there(&keyspace, key);
    // The removal is recorded even if there is no value: another session may be about to commit one, or may be computing one.
    if pending::remove(&keyspace, key).is_err() {
        pending::invalidate_space(&keyspace);
    }
    status::set(Status::Done);
    Ok(found)
}

/// Removes the previous value of a key whose new value is refused, when the transaction commits. If the removal cannot be recorded,
/// but there is a value, invalidates the space instead. May raise an error, if there is no memory for that either.
#[cold]
pub fn remove_previous(keyspace: &Keyspace, key: &[u8]) {
    if pending::remove(keyspace, key).is_ok() {
        return;
    }
    match is_there(keyspace, key) {
        true => pending::invalidate_space(keyspace),
        // A cache outside of the database may still have the value that was evicted here.
        false => pending::note_space_in_journal(keyspace),
    }
}

/// Removes the value of a key, when the transaction commits, if its new value is refused because the cache or the space is not
/// enabled: the value would be outdated once they are enabled again. Does nothing in a parallel worker, which commits nothing.
#[cold]
pub fn remove_while_disabled(space: &Space, key: &[u8]) {
    if !transaction::is_parallel_worker()
        && why_unfit(key).is_none()
        && let Some(keyspace) = space.keyspace()
    {
        remove_previous(&keyspace, key);
    }
}
