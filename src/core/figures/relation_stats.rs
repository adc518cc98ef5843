//! The figures of relations: how often each relation has changed, when it changed last, and how many entries its changes killed.
//!
//! These figures stand on the cache line of the relation's fences, which belongs to this relation alone (`fence.rs`). Access rules:
//! - A writer that lowers a relation's fence with [`Tier::lower_as`] also increments the number of changes and stores the time. The
//!   writer has just changed another word of the same line, so this touches no additional line and disturbs no other backend.
//! - A backend that removes an entry that was not right any more notes which relation killed it. It adds to the relation's figure
//!   when it holds no lock any more, once for a series of entries that the same relation killed. Readers that find a dead entry
//!   write nothing.
//! - Every access is a single atomic step on a single word. So a reset may write 0 while other backends add.
//!
//! An entry is counted when its room is reclaimed, not when it dies, because no code looks at the entry at that moment. Its death
//! is attributed to the first relation among its dependencies that has changed since its stamp. If the entry expired before or at
//! the time of the relation's last change, the relation is not blamed: only the time of the last change is known.
//!
//! A relation keeps its record for as long as the region lives (`fence.rs`). If PostgreSQL reuses the OID of a dropped relation or
//! database, the new relation continues the old figures. When all records are in use, several relations share a record and cannot
//! be told apart, so the figures of such records are reported without a name.

use crate::fence::{FenceId, Lowered, Stamp};
use crate::figures::deltas::Tally;
use crate::layout::{AT_CHANGES, AT_KILLED, AT_LAST};
use crate::sync::Ordering;
use crate::terms::{Host, RelationStats};
use crate::tier::Tier;
use crate::tier::entry::{Entry, Header};

/// Entries that one relation killed, during one hold of a lock.
#[derive(Default)]
pub(crate) struct Toll {
    record: usize,
    killed: u32,
}

impl<H: Host> Tier<'_, H> {
    /// Lowers a fence with a number that was drawn for it ([`Fences::lower_as`](crate::Fences::lower_as)). If the fence is a
    /// relation's, it also counts the change. This takes a bounded time, does not allocate, and never fails.
    pub fn lower_as(&self, fence: FenceId, number: Stamp) -> Lowered {
        let fences = self.fences();
        let lowered = fences.lower_as(fence, number);
        // The filter passes only one of the relation's two fences, so a change that raises both counts once.
        if let Some(record) = fences.record_of_any(fence) {
            self.region.word(record + AT_CHANGES).fetch_add(1, Ordering::Relaxed);
            self.region.store(record + AT_LAST, self.host.now().into());
        }
        lowered
    }

    /// Notes which relation killed an entry that is being removed. The entry's blocks must still be its own.
    #[inline]
    pub(crate) fn note_killed(&self, tally: &mut Tally, entry: &Entry<'_>, header: &Header) {
        if header.dependencies() > 0 {
            self.note_killed_by(tally, entry, header);
        }
    }

    /// A separate function, so that entries without dependencies do not pay for the loop.
    #[inline(never)]
    fn note_killed_by(&self, tally: &mut Tally, entry: &Entry<'_>, header: &Header) {
        let fences = self.fences();
        let killer = (0..header.dependencies()).find_map(|place| {
            let fence = entry.dependency(&self.layout, header, place);
            let record = fences.record_of(fence)?;
            let in_time = || u64::from(header.expires()) > self.region.load(record + AT_LAST);
            (fences.passed(fence, header.stamp()) && in_time()).then_some(record)
        });
        let Some(record) = killer else { return };
        if tally.toll.record != record {
            self.settle_toll(&mut tally.toll);
            tally.toll.record = record;
        }
        tally.toll.killed += 1;
    }

    /// Adds the noted number to the relation's figure.
    pub(crate) fn settle_toll(&self, toll: &mut Toll) {
        let killed = std::mem::take(&mut toll.killed);
        if killed > 0 {
            self.region.word(toll.record + AT_KILLED).fetch_add(killed.into(), Ordering::Relaxed);
        }
    }

    /// Returns the figures of the relations of a database that have changed or killed entries since the last reset. The last item
    /// has no name: it is the sum of all records that several relations of any databases share.
    pub fn relation_stats(&self, database: u32) -> impl Iterator<Item = RelationStats> {
        let stats = |(record, owner): (usize, Option<(u32, u32)>)| RelationStats {
            relation: owner.map(|(_, relation)| relation),
            changes: self.region.load(record + AT_CHANGES),
            killed: self.region.load(record + AT_KILLED),
            last: self.region.load(record + AT_LAST) as u32,
        };
        let of_database =
            move |(_, owner): &(usize, Option<(u32, u32)>)| owner.is_some_and(|(of, _)| of == database);
        let own = self.fences().records().filter(of_database).map(stats);
        let shared = std::iter::once_with(move || {
            let records = self.fences().records().filter(|(_, owner)| owner.is_none());
            records.map(stats).fold(RelationStats::default(), RelationStats::and)
        });
        own.chain(shared).filter(RelationStats::is_any)
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

impl RelationStats {
    fn is_any(&self) -> bool {
        self.changes > 0 || self.killed > 0
    }

    /// Adds the figures of both, for a sum without a name.
    fn and(self, other: Self) -> Self {
        Self {
            relation: None,
            changes: self.changes.wrapping_add(other.changes),
            killed: self.killed.wrapping_add(other.killed),
            last: self.last.max(other.last),
        }
    }
}
