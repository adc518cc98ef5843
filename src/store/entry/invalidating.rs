//! Invalidates what depends on a tag, a relation, a *space* (a named cache) or the whole database, or has a key that a pattern
//! matches, when the transaction commits. `cache_invalidate_tag`, `cache_flush` and the like call this file, and events
//! (`store/event.rs`). If there is no cache, these functions do nothing and return Ok, and the status says why. During recovery and
//! in a parallel worker, they return an error (`access.rs`). The caller must have checked the privilege of the role.
//!
//! A value depends on *fences*, words in shared memory that say when a tag, a relation or a space last changed
//! (`docs/architecture.md`). The functions here record which fences the commit must raise.

use super::access::keyspace_for_invalidation;
use crate::pg::error::{OrRaise, Refused};
use crate::pg::{encoding, memory, names};
use crate::store::definitions;
use crate::store::keyspace;
use crate::store::space::Space;
use crate::store::status::{self, Status};
use crate::store::transaction::{JournalName, pending};
use pg_cache_core::Glob;

/// Invalidates everything in the database that depends on a tag, when the transaction commits. `space` may be any space, because
/// tags belong to all spaces.
pub fn invalidate_tag(space: &Space, tag: &[u8]) -> Result<(), Refused> {
    if let Some(keyspace) = keyspace_for_invalidation(space)? {
        let fence = keyspace::tag(keyspace.tier, tag);
        names::note(fence.number(), tag);
        let name = memory::try_copy(tag).or_raise().into_boxed_slice();
        pending::invalidate(&keyspace, fence, JournalName::Tag(name));
        status::set(Status::Done);
    }
    Ok(())
}

/// Invalidates the values of a space whose keys a pattern matches, when the transaction commits. In a space with values for each
/// role, invalidates only those of the current role.
///
/// A pattern knows the characters of UTF-8 only. In a database with another encoding, a pattern that depends on where characters
/// end invalidates the whole space.
pub fn invalidate_pattern(space: &Space, pattern: Glob<'_>) -> Result<(), Refused> {
    if let Some(keyspace) = keyspace_for_invalidation(space)? {
        let knows_characters = || !pattern.bytes().contains(&b'?') && pattern.bytes().is_ascii();
        match encoding::is_utf8() || knows_characters() {
            true => pending::invalidate_pattern(&keyspace, pattern),
            false => pending::invalidate_space(&keyspace),
        }
        status::set(Status::Done);
    }
    Ok(())
}

/// Invalidates everything in the space, or with `everything`, in all spaces of the database, when the transaction commits.
pub fn flush(space: &Space, everything: bool) -> Result<(), Refused> {
    if let Some(keyspace) = keyspace_for_invalidation(space)? {
        match everything {
            true => pending::invalidate_database(&keyspace),
            false => pending::invalidate_space(&keyspace),
        }
        status::set(Status::Done);
    }
    Ok(())
}

/// Invalidates everything that depends on a relation or on a table above it in an inheritance tree, when the transaction commits.
/// `space` may be any space.
pub fn invalidate_relation(space: &Space, relation: u32) -> Result<(), Refused> {
    if let Some(keyspace) = keyspace_for_invalidation(space)? {
        pending::invalidate_relation(&keyspace, relation);
        // A result that has read some partitions of a table depends on these, and only on the definition of the table.
        let definition = definitions::of_relation(keyspace.tier, relation);
        pending::invalidate(&keyspace, definition, JournalName::Unnamed);
        status::set(Status::Done);
    }
    Ok(())
}
