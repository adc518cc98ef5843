//! The statistics of spaces and relations, for the users of a tier, the cache in shared memory. A *space* is a set of keys in one
//! database. `figures/` has the structures and their access rules.
//!
//! A *fence* is a word in shared memory that says when something that entries depend on last changed (`fence/mod.rs`). The *record*
//! of a relation holds its fences. *Reserved* fences are those of databases, spaces, definitions and the like, not of relations or
//! tags (`fence/reserved.rs`). A transaction *raises* the fences of its changes before it commits, and *lowers* them afterwards
//! with a number of the clock of changes. A *scope* is the database, the space and the role of a key.
//!
//! The *cell* of a space is the place of its counts in shared memory (`figures/statistics.rs`). A space has a cell of its own if it
//! has a reserved fence. Their number is limited. The spaces that have found none free share the *last cell*.

use super::Tier;

use crate::fence::{FenceId, Lowered, ReservedKind, Stamp};
use crate::figures::{Counter, Event, Figures, Operation, RelationStats, SAMPLED_EVERY, SpaceStats};
use crate::host::Host;
use crate::key::{Key, Scope};
use crate::layout::{AT_CHANGES, AT_KILLED, AT_LAST, BLOCK_BYTES};
use crate::sync::Ordering;
use std::collections::TryReserveError;
use std::time::Duration;

/// A sample of hits, see [`crate::Tier::sampled_hits`].
#[derive(Clone, Debug)]
pub struct SampledHits {
    /// The hashes of the keys, sorted.
    hashes: Vec<u64>,
}

impl SampledHits {
    /// Estimates how many of the latest hits were hits on a key. A backend samples about one of 64 hits, and remembers its last 128
    /// samples. So the estimate covers about the last 8 000 hits of each backend.
    pub fn of(&self, key: &Key<'_>) -> u64 {
        let from = self.hashes.partition_point(|hash| *hash < key.hash);
        self.hashes[from..].iter().take_while(|hash| **hash == key.hash).count() as u64 * SAMPLED_EVERY
    }
}

/// Returns the event to count when a reserved fence of this kind is lowered. Watches, inheritance trees and privileges have none.
fn event_of(kind: ReservedKind) -> Option<Event> {
    match kind {
        ReservedKind::Database => Some(Event::ByDatabase),
        ReservedKind::Definitions => Some(Event::ByDefinitions),
        ReservedKind::Roles => Some(Event::ByRoles),
        ReservedKind::Space => Some(Event::BySpace),
        ReservedKind::Other => None,
    }
}

impl<H: Host> Tier<'_, H> {
    /// Returns the statistics of a space. None if no backend has made its [scope](Self::scope) yet, or if the space shares the last
    /// cell. The last item of [`all_stats`](Self::all_stats) has the sums of the spaces that share the last cell.
    pub fn space_stats(&self, database: u32, space: u32) -> Option<SpaceStats> {
        self.own_cell(database, space).map(|cell| self.statistics.stats(cell))
    }

    /// Returns the statistics of all spaces that were ever used, also of dropped ones. The last item has the sums of the spaces
    /// that share the last cell.
    pub fn all_stats(&self) -> impl Iterator<Item = SpaceStats> {
        let seen = |cell: &u32| self.statistics.is_shared(*cell) || self.statistics.has_space_id(*cell);
        self.statistics.cells().filter(seen).map(|cell| self.statistics.stats(cell))
    }

    /// Resets the counts of one space. The numbers of its entries and bytes stay. Does nothing if
    /// [`space_stats`](Self::space_stats) returns None for the space.
    pub fn reset_stats(&self, database: u32, space: u32) {
        if let Some(cell) = self.own_cell(database, space) {
            self.statistics.reset(cell);
        }
    }

    /// Resets the counts of all spaces. The results of [`counted`](Self::counted) stay.
    pub fn reset_all_stats(&self) {
        self.statistics.cells().for_each(|cell| self.statistics.reset(cell));
    }

    /// Counts `by` events that the caller knows of and the tier does not: see [`Counter`].
    pub fn count_for_space(&self, scope: &Scope, counter: Counter, by: u64) {
        self.statistics.add(scope.cell, counter, by);
    }

    /// Counts `by` events of the server that the caller knows of and the tier does not: see [`Event`].
    pub fn count_event(&self, event: Event, by: u64) {
        self.statistics.count_event(event, by);
    }

    /// Counts an operation and its duration.
    pub fn count_latency(&self, of: Operation, took: Duration) {
        self.statistics.count_latency(of, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Returns all figures since the region, the shared memory of the tier, was formatted. Takes no lock. The cost grows with the
    /// number of spaces and of backends, not with the number of entries.
    pub fn figures(&self) -> Result<Figures, TryReserveError> {
        self.statistics.figures()
    }

    /// Counts a hit on a saved value.
    pub fn count_saved_hit(&self, key: &Key<'_>) {
        self.statistics.count_hit(key.scope.cell, Counter::HitSaved, key.hash);
    }

    /// Returns a sample of the latest hits of each backend.
    pub fn sampled_hits(&self) -> Result<SampledHits, TryReserveError> {
        let mut hashes = Vec::new();
        for hash in self.statistics.sampled_hits() {
            hashes.try_reserve(1)?;
            hashes.push(hash);
        }
        hashes.sort_unstable();
        Ok(SampledHits { hashes })
    }

    /// Returns how often an event happened, in all backends and spaces together, since the region was formatted.
    pub fn counted(&self, counter: Counter) -> u64 {
        self.statistics.total(counter)
    }

    /// Returns the bytes of the blocks that a space has, for entries and for reservations. For a space that shares the last cell,
    /// returns the sum of all spaces that share it. Costs one load.
    pub fn used_bytes(&self, scope: &Scope) -> u64 {
        self.statistics.blocks(scope.cell) * BLOCK_BYTES as u64
    }

    /// Returns whether a space has a cell of its own. Only such a space can have a quota.
    pub fn is_counted_alone(&self, scope: &Scope) -> bool {
        !self.statistics.is_shared(scope.cell)
    }

    /// Returns the cell of a space, or None if the space has no cell of its own.
    fn own_cell(&self, database: u32, space: u32) -> Option<u32> {
        Some(self.cell_of(u64::from(database) << 32 | u64::from(space)))
            .filter(|cell| !self.statistics.is_shared(*cell))
    }

    /// Returns the cell of a space, or the last cell if the space has none of its own. `space_id` is the word that an entry stores:
    /// the database in the upper half, the space in the lower half.
    pub(crate) fn cell_of(&self, space_id: u64) -> u32 {
        let known = self.fences().known_space((space_id >> 32) as u32, space_id as u32);
        known.unwrap_or(self.layout.cells() - 1)
    }

    /// Lowers a fence with the number that was drawn for the change ([`Fences::lower_as`](crate::Fences::lower_as)). Counts the
    /// change if it is one of a relation with a record, or if the fence is a reserved one that has an [`Event`]. Takes no lock,
    /// does not allocate, and never fails.
    pub fn lower_as(&self, fence: FenceId, change: Stamp) -> Lowered {
        let fences = self.fences();
        let lowered = fences.lower_as(fence, change);
        // A record has two fences, and a change may raise both. `record_of_first_fence` returns the record only for the fence that
        // every change raises, so a change counts once.
        if let Some(record) = fences.record_of_first_fence(fence) {
            self.region.word(record + AT_CHANGES).fetch_add(1, Ordering::Relaxed);
            self.region.store(record + AT_LAST, self.host.now().into());
            self.statistics.count_event(Event::ByRelation, 1);
        } else if let Some(event) = fences.reserved_kind(fence).and_then(event_of) {
            self.statistics.count_event(event, 1);
        }
        lowered
    }

    /// Returns the statistics of the relations of a database. Leaves out a relation if, since the last reset, it has not changed
    /// and no entry was reclaimed that it had invalidated. Relations of any databases may share a record. The sum of the shared
    /// records comes last, without the name of a relation, unless its counts are 0.
    pub fn relation_stats(&self, database: u32) -> impl Iterator<Item = RelationStats> {
        let stats = |(record, owner): (usize, Option<(u32, u32)>)| RelationStats {
            relation: owner.map(|(_, relation)| relation),
            changes: self.region.load(record + AT_CHANGES),
            killed: self.region.load(record + AT_KILLED),
            last_change: self.region.load(record + AT_LAST) as u32,
        };
        let of_database =
            move |(_, owner): &(usize, Option<(u32, u32)>)| owner.is_some_and(|(of, _)| of == database);
        let own = self.fences().records().filter(of_database).map(stats);
        let shared = std::iter::once_with(move || {
            let records = self.fences().records().filter(|(_, owner)| owner.is_none());
            records.map(stats).fold(RelationStats::default(), RelationStats::sum)
        });
        own.chain(shared).filter(RelationStats::is_nonzero)
    }

    /// Resets the counts of the relations of a database and of the shared records. The time of the last change stays.
    pub fn reset_relation_stats(&self, database: u32) {
        let records = self.fences().records();
        for (record, _) in records.filter(|(_, owner)| owner.is_none_or(|(of, _)| of == database)) {
            self.region.store(record + AT_CHANGES, 0);
            self.region.store(record + AT_KILLED, 0);
        }
    }
}
