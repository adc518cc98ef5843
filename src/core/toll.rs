//! What changes of relations cost: how often each has changed, when last, and how many entries died of it.
//!
//! These figures stand on the line of the relation's fences, which belongs to it alone (`fence.rs`). Access rules:
//! - Who lowers a relation's fence by [`Tier::lower_as`] adds to its changes and writes down when. It has just changed a word
//!   of the same line, so this brings nothing nearer and takes nothing away from anybody.
//! - Who takes an entry out that was not right any more notes which relation it died of, and tells the relation when no lock
//!   is held any more, once for a streak of entries that died of the same. Readers who meet a dead entry write nothing.
//! - All of these are single atomic steps on single words, so that who resets them may write 0 beside others who add.
//!
//! So an entry is counted when its room is reclaimed, and not when it dies: nobody looks at it then. It died of the first
//! relation among its dependencies that has changed since its stamp, unless its time may have been over before that: of
//! several changes only the last one's time is known.
//!
//! A record is given to a relation for as long as the region lives (`fence.rs`). Who is given the number of a dropped
//! relation, or of a dropped database, goes on with its figures. Relations that share another one's record, because all were
//! given away, cannot be told apart: what is known of such records is told without a name.

use crate::entry::{Entry, Header};
use crate::fence::{FenceId, Lowered, Stamp};
use crate::layout::{AT_CHANGES, AT_KILLED, AT_LAST};
use crate::sync::Ordering;
use crate::tally::Tally;
use crate::terms::{Host, RelationStats};
use crate::tier::Tier;

/// Entries that died of one relation, in one hold of a lock.
#[derive(Default)]
pub(crate) struct Toll {
    record: usize,
    killed: u32,
}

impl<H: Host> Tier<'_, H> {
    /// Lowers a fence with a number that was drawn for it ([`Fences::lower_as`](crate::Fences::lower_as)). If it is a
    /// relation's, counts that it has changed. Bounded, without allocation, without failure.
    pub fn lower_as(&self, fence: FenceId, number: Stamp) -> Lowered {
        let fences = self.fences();
        let lowered = fences.lower_as(fence, number);
        // A change counts once, also when it raises the other fence of the relation, too.
        if let Some(record) = fences.record_of_any(fence) {
            self.region.word(record + AT_CHANGES).fetch_add(1, Ordering::Relaxed);
            self.region.store(record + AT_LAST, self.host.now().into());
        }
        lowered
    }

    /// Notes of what an entry died that is being taken out. Its blocks must still be its own.
    #[inline]
    pub(crate) fn note_killed(&self, tally: &mut Tally, entry: &Entry<'_>, header: &Header) {
        if header.dependencies() > 0 {
            self.note_killed_by(tally, entry, header);
        }
    }

    /// Apart, so that entries without dependencies do not pay for a loop.
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

    /// Tells the relation.
    pub(crate) fn settle_toll(&self, toll: &mut Toll) {
        let killed = std::mem::take(&mut toll.killed);
        if killed > 0 {
            self.region.word(toll.record + AT_KILLED).fetch_add(killed.into(), Ordering::Relaxed);
        }
    }

    /// The figures of the relations of a database that have changed, or had entries that died of it, since they were reset. At
    /// the end, without a name, those of the records together that more than one relation of any database share.
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

    /// Begins to count anew for the relations of a database, and for the records that are shared. When each changed last stays.
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

    /// Both together.
    fn and(self, other: Self) -> Self {
        Self {
            relation: None,
            changes: self.changes.wrapping_add(other.changes),
            killed: self.killed.wrapping_add(other.killed),
            last: self.last.max(other.last),
        }
    }
}
