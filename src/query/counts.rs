//! Counts what the hits of queries have saved, how stale their results were, and how long the searches for them took. The core
//! counts the hits themselves (`core/tier/reading.rs` and `core/tier/statistics.rs`).

use crate::store::entry;
use crate::store::space::Space;
use pg_cache_core::{Cost, Counter, Meta, Operation};
use std::time::Instant;

/// Counts a stored result that a call returns: the cost of the query as time saved, and for a result that is not valid any more,
/// the time since it was last known to be valid.
///
/// Must be called right after the search, before another read: the status of the session still says whether the result came from
/// memory or from a table. Must not be called for a result that the call renews. `began` is what `latency::begin` returned before
/// the search: the time, or None if this search is not timed.
pub fn count_found(space: &Space, found: &Meta, began: Option<Instant>) {
    if let Some(began) = began {
        entry::count_time(began, [Operation::QueryFromMemory, Operation::QueryFromTable]);
    }
    let Some(keyspace) = space.keyspace() else { return };
    // Without a noted cost, it is not known what the hit has saved.
    if found.cost != Cost::NONE {
        keyspace.tier.count_for_space(&keyspace.scope, Counter::Saved, found.cost.micros());
    }
    // A valid result has `u32::MAX` here. In another result, it is the tick at which the result was last known to be valid.
    if found.valid_at != u32::MAX {
        keyspace.count_stale(found.valid_at);
    }
}
