//! Appends *records* to the journal of changes: a ring in shared memory, from which caches outside of the database learn which
//! keys, tags, spaces and relations have changed (`journal/mod.rs` of the core). Each record names one change.
//!
//! A record must be appended after its change is visible to all sessions. Every change of a key is appended here: by a commit
//! (`transaction/commit.rs`), by COMMIT PREPARED (`transaction/prepared/`), by `cache_incr`, and when the result of a query is
//! stored under a key that the caller chose. An entry that is evicted or expires has no record: its value has not changed, so a
//! copy outside of the database stays right. The functions of this file neither fail nor allocate, because they run after a commit.
//!
//! A *life* of the journal begins when it is first used, and ends when its memory is formatted or damaged. A *space* is a named
//! cache. A *fence* is a word in shared memory that says when something that values depend on last changed
//! (`docs/architecture.md`).

use crate::pg::clock;
use crate::pg::shared::{self, HotTier};
use crate::store::keyspace::Keyspace;
use pg_cache_core::{Event, FenceId, Record, What};

/// The most by which the number of the last record may grow per second, on average. The numbers of a life begin at the time of its
/// start, in seconds, times this constant. So they are greater than all numbers of earlier lives, unless the system's clock was set
/// back.
const NUMBERS_PER_SECOND: u128 = 1 << 20;

/// Appends records, and wakes the processes that wait for changes. Counts the records of tags as invalidations by tag, also if the
/// server has no journal.
pub fn append<'r>(tier: &HotTier, records: impl Iterator<Item = Record<'r>> + Clone) {
    let (mut count, mut tags) = (0_u64, 0);
    for record in records.clone() {
        count += 1;
        tags += u64::from(record.what == What::Tag);
    }
    if count == 0 {
        return;
    }
    tier.count_event(Event::ByTag, tags);
    begin(tier);
    tier.journal().append(records, shared::tick());
    shared::wake_sleepers();
}

/// Appends the record of a key that was changed immediately, and not by the commit of a transaction.
pub fn key_changed(keyspace: &Keyspace, key: &[u8]) {
    append(keyspace.tier, std::iter::once(of_key(keyspace, key)));
}

/// Appends a record which says that everything in this database has changed.
pub fn everything_changed(tier: &HotTier) {
    append(tier, std::iter::once(of_database(shared::database())));
}

/// Begins a life of the journal, unless it is in one.
pub fn begin(tier: &HotTier) {
    tier.journal().begin(|| (u128::from(clock::unix_us()) * NUMBERS_PER_SECOND / 1_000_000) as u64);
}

/// Returns the record of a key.
pub fn of_key<'k>(keyspace: &Keyspace, key: &'k [u8]) -> Record<'k> {
    let scope = &keyspace.scope;
    let (database, object, role) = (shared::database(), scope.space(), scope.role());
    Record { what: What::Key, database, object, role, name: key }
}

/// Returns the record which says that everything in a database has changed.
pub fn of_database(database: u32) -> Record<'static> {
    Record { database, ..Record::EVERYTHING }
}

/// Returns the record for a fence that a writer has lowered. None if the fence belongs to no relation, or to a relation on which
/// no cache outside of the database depends. If several relations share the fence, the record says that everything has changed.
pub fn of_fence(tier: &HotTier, fence: FenceId) -> Option<Record<'static>> {
    let named = tier.fences().relation_to_name(fence)?;
    if tier.fences().is_bulk(fence) {
        // A bulk fence is raised by a write whose changed rows are unknown. So their tags are unknown, too.
        return Some(of_database(shared::database()));
    }
    Some(named.map_or_else(
        || of_database(shared::database()),
        |(database, object)| Record { what: What::Relation, database, object, ..Record::EVERYTHING },
    ))
}
