//! The statistics of spaces and relations, for the users of a tier. `figures/` has the structures and their access rules.
//!
//! The *record* of a relation holds its fences (`fence/mod.rs`). The *cell* of a space is the place of its counts in shared memory
//! (`figures/statistics.rs`). A *scope* is the database, the space and the role of a key.

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
    /// Returns about how many of the latest hits were hits of a key. Each backend remembers about one of 64 hits, and the last 128
    /// of these: hits out of about its last 8 000.
    pub fn of(&self, key: &Key<'_>) -> u64 {
        let from = self.hashes.partition_point(|hash| *hash < key.hash);
        self.hashes[from..].iter().take_while(|hash| **hash == key.hash).count() as u64 * SAMPLED_EVERY
    }
}

/// Returns the event that is counted when a reserved fence is lowered. None if no entry is invalidated, or only by its tags.
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
    /// cell with others. The last item of [`all_stats`](Self::all_stats) has those spaces' statistics together.
    pub fn space_stats(&self, database: u32, space: u32) -> Option<SpaceStats> {
        self.own_cell(database, space).map(|cell| self.statistics.stats(cell))
    }

    /// Returns the statistics of all spaces that were ever used, also of dropped ones. The last item has those of all spaces that
    /// share the last cell.
    pub fn all_stats(&self) -> impl Iterator<Item = SpaceStats> {
        let seen = |cell: &u32| self.statistics.is_shared(*cell) || self.statistics.is_named(*cell);
        self.statistics.cells().filter(seen).map(|cell| self.statistics.stats(cell))
    }

    /// Resets the counts of one space. Entries and bytes stay. Does nothing if the space has no statistics of its own, where
    /// [`space_stats`](Self::space_stats) returns None.
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
    pub fn note(&self, scope: &Scope, counter: Counter, by: u64) {
        self.statistics.add(scope.cell, counter, by);
    }

    /// Counts `by` events of the server that the caller knows of and the tier does not: see [`Event`].
    pub fn count_event(&self, event: Event, by: u64) {
        self.statistics.count_event(event, by);
    }

    /// Counts an operation that took so long.
    pub fn count_latency(&self, of: Operation, took: Duration) {
        self.statistics.count_latency(of, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Returns all figures since the region was formatted. It takes no lock, and its cost grows with the number of spaces and of
    /// backends, not with that of entries.
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

    /// Returns the bytes of blocks that a space has, for entries and for reservations. It is one load. For a space that shares the
    /// last cell, it is the sum of all spaces that share it.
    pub fn used_bytes(&self, scope: &Scope) -> u64 {
        self.statistics.blocks(scope.cell) * BLOCK_BYTES as u64
    }

    /// Whether a space has statistics of its own, and so can have a quota. The first spaces have, as long as reserved fences are
    /// left.
    pub fn is_counted_alone(&self, scope: &Scope) -> bool {
        !self.statistics.is_shared(scope.cell)
    }

    /// Returns the cell of a space, or None if it has none of its own.
    fn own_cell(&self, database: u32, space: u32) -> Option<u32> {
        Some(self.cell_of(u64::from(database) << 32 | u64::from(space)))
            .filter(|cell| !self.statistics.is_shared(*cell))
    }

    /// Returns the cell of a space, which is given as an entry stores it: database and space in one word. It is the last cell if
    /// the space has none of its own.
    pub(crate) fn cell_of(&self, space_id: u64) -> u32 {
        let known = self.fences().known_space((space_id >> 32) as u32, space_id as u32);
        known.unwrap_or(self.layout.cells() - 1)
    }

    /// Lowers a fence with a number that was drawn for it ([`Fences::lower_as`](crate::Fences::lower_as)). It also counts the
    /// change if the fence is reserved, or if it is the one that every write of a relation raises. It takes no lock, does not
    /// allocate, and never fails.
    pub fn lower_as(&self, fence: FenceId, change: Stamp) -> Lowered {
        let fences = self.fences();
        let lowered = fences.lower_as(fence, change);
        // The filter passes only one of the relation's two fences, so a change that raises both counts once.
        if let Some(record) = fences.record_of_any(fence) {
            self.region.word(record + AT_CHANGES).fetch_add(1, Ordering::Relaxed);
            self.region.store(record + AT_LAST, self.host.now().into());
            self.statistics.count_event(Event::ByRelation, 1);
        } else if let Some(event) = fences.reserved_kind(fence).and_then(event_of) {
            self.statistics.count_event(event, 1);
        }
        lowered
    }

    /// Returns the figures of the relations of a database that have changed or killed entries since the last reset. The records
    /// that several relations of any databases share are summed up in one item without a name. It comes last, and only if its
    /// counts are not all 0.
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
