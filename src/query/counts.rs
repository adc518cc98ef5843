//! Counts the hits of queries.

use crate::store::entry;
use crate::store::space::Space;
use pg_cache_core::{Cost, Counter, Meta, Operation};
use std::time::Instant;

/// Counts a stored result that a call returns: the cost of the query as time saved, and the age of a result that is not valid any
/// more. `began` is the time at which the search for the result began, if this search is one of those that are timed.
pub fn count_found(space: &Space, found: &Meta, began: Option<Instant>) {
    if let Some(began) = began {
        entry::count_time(began, [Operation::QueryFromMemory, Operation::QueryFromTable]);
    }
    let Some(keyspace) = space.keyspace() else { return };
    if found.cost != Cost::NONE {
        keyspace.tier.count_for_space(&keyspace.scope, Counter::Saved, found.cost.micros());
    }
    // A valid result has no other `valid_at`.
    if found.valid_at != u32::MAX {
        keyspace.count_stale(found.valid_at);
    }
}
