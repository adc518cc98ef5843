//! The journal of changes: what commits and immediate operations say to it.
//!
//! A change is appended after it is visible to all sessions. Every change of a key comes through [`append`] or [`key_changed`]:
//! from a commit (`transaction/commit.rs`), from COMMIT PREPARED (`transaction/prepared.rs`), from `cache_incr` and from a stored
//! result. Entries that are evicted or expire are not in the journal: what was copied from them is as good as before.
//!
//! The functions of this file neither fail nor allocate, because they run after a commit. `docs/architecture.md` explains the word
//! fence.

use crate::pg::clock;
use crate::pg::shared::{self, HotTier};
use crate::store::keyspace::Keyspace;
use pg_cache_core::{Event, FenceId, Record, What};

/// The numbers of the journal grow by at most this much in a second, on average. A *life* of the journal is the time from its first
/// use until it is empty again after a start of the server. Its numbers begin at the present time, in seconds, times this constant:
/// above all numbers of earlier lives, unless the system's clock was set back.
const NUMBERS_PER_SECOND: u128 = 1 << 20;

/// Appends records. Also counts the tags among them, with or without a journal.
pub fn append<'r>(tier: &HotTier, records: impl Iterator<Item = Record<'r>> + Clone) {
    if records.clone().next().is_none() {
        return;
    }
    let tags = records.clone().filter(|record| record.what == What::Tag).count();
    tier.count_event(Event::ByTag, tags as u64);
    begin(tier);
    tier.journal().append(records, shared::tick());
    shared::wake_sleepers();
}

/// Appends that a key has changed, outside of a transaction's commit.
pub fn key_changed(keyspace: &Keyspace, key: &[u8]) {
    append(keyspace.tier, std::iter::once(of_key(keyspace, key)));
}

/// Appends that everything in this database has changed.
pub fn everything_changed(tier: &HotTier) {
    append(tier, std::iter::once(of_database(shared::database())));
}

/// Begins a life of the journal, if it has none.
pub fn begin(tier: &HotTier) {
    tier.journal().begin(|| (u128::from(clock::unix_us()) * NUMBERS_PER_SECOND / 1_000_000) as u64);
}

/// Returns the record of a key.
pub fn of_key<'k>(keyspace: &Keyspace, key: &'k [u8]) -> Record<'k> {
    let scope = &keyspace.scope;
    let (database, object, role) = (shared::database(), scope.space(), scope.role());
    Record { what: What::Key, database, object, role, name: key }
}

/// Returns the record of everything in a database.
pub fn of_database(database: u32) -> Record<'static> {
    Record { database, ..Record::EVERYTHING }
}

/// Returns the record of a fence that a writer has lowered, if it is that of a relation whose changes must be named. If relations
/// share the fence, everything counts as changed.
pub fn of_fence(tier: &HotTier, fence: FenceId) -> Option<Record<'static>> {
    let named = tier.fences().named(fence)?;
    if tier.fences().is_bulk(fence) {
        // The tags of the rows are not known.
        return Some(of_database(shared::database()));
    }
    Some(named.map_or_else(
        || of_database(shared::database()),
        |(database, object)| Record { what: What::Relation, database, object, ..Record::EVERYTHING },
    ))
}
