//! Invalidates what depends on a tag, a relation, a space or the whole database, when the transaction commits.

use super::access::keyspace_for_invalidation;
use crate::pg::error::Refused;
use crate::pg::names;
use crate::store::keyspace;
use crate::store::space::Space;
use crate::store::status::{self, Status};
use crate::store::transaction::pending;

/// Invalidates everything in the database that depends on a tag, when the transaction commits. `space` may be any space, because
/// tags belong to all spaces.
pub fn invalidate_tag(space: &Space, tag: &[u8]) -> Result<(), Refused> {
    if let Some(keyspace) = keyspace_for_invalidation(space)? {
        let fence = keyspace::tag(keyspace.tier, tag);
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
