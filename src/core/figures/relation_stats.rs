//! The figures of relations: how often each relation has changed, when it changed last, and how many entries its changes *killed*.
//! A change of a relation kills an entry that depends on the relation: the entry is no longer valid.
//!
//! The figures are in the relation's *record*, on the same cache line as the relation's *fences*, the words that say when the
//! relation last changed (`fence/mod.rs`). A *hold* is the time from acquiring to releasing a lock. Access rules:
//! - A writer that lowers a relation's fence with [`lower_as`](crate::Tier::lower_as) also increments the number of changes and
//!   stores the time. The writer has just changed another word of the same line, so this touches no additional line. A writer of a
//!   relation that has no record yet lowers another fence, and counts nothing.
//! - A backend that removes a killed entry notes the relation in `Kills`. Kills of the same relation in a row are added to its
//!   figure at once, after the lock was released. If the next killed entry belongs to another relation, the kills before it are
//!   added while the lock is held. Readers that find a killed entry write nothing.
//! - Every access is a single atomic step on a single word. So a reset may write 0 while other backends add.
//!
//! A killed entry is counted when its memory is reclaimed, because no code looks at the entry at the moment of the change. The kill
//! is counted for the first relation among the entry's dependencies that has changed since the entry's stamp. If the entry expired
//! before or at the time of the relation's last change, it is not counted for that relation: only the time of the last change is
//! known, so the entry may have expired before any change.
//!
//! A relation keeps its record while sessions use the region (`fence/reviving.rs`). If PostgreSQL reuses the OID of a dropped
//! relation or database, the new relation continues the old figures. When all records are in use, several relations share a record
//! and cannot be told apart, so the figures of such records are reported without a name.
//!
//! The *region* is the shared memory of the tier, the cache. The *stamp* of an entry is the number of the clock of changes as of
//! which its value is right. A *tick* is the unit of time.

use crate::layout::AT_KILLED;
use crate::region::Region;
use crate::sync::Ordering;

/// Counts the entries that a relation killed and that are removed during one hold of a lock.
#[derive(Default)]
pub(crate) struct Kills {
    /// The position of the relation's record in the region.
    record: usize,
    /// The number of kills that are not in the record yet.
    count: u32,
}

impl Kills {
    /// Counts an entry that the relation with this record killed. If another relation killed the entries before it, their count is
    /// settled first.
    #[inline]
    pub(crate) fn add(&mut self, record: usize, region: &Region<'_>) {
        if self.record != record {
            self.settle(region);
            self.record = record;
        }
        self.count += 1;
    }

    /// Adds the count to the figure in the relation's record, and resets the count to 0.
    #[inline]
    pub(crate) fn settle(&mut self, region: &Region<'_>) {
        let count = std::mem::take(&mut self.count);
        if count > 0 {
            region.word(self.record + AT_KILLED).fetch_add(count.into(), Ordering::Relaxed);
        }
    }
}

/// The statistics of a relation. The counts begin at the last reset, or at the claim of the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelationStats {
    /// The OID of the relation. It is None for the sum of all records that several relations share.
    pub relation: Option<u32>,
    /// The number of transactions that changed the relation.
    pub changes: u64,
    /// The number of entries that a change of the relation invalidated and whose memory has been reclaimed.
    pub killed: u64,
    /// The tick of the last change, which a reset does not clear; 0 if there was none.
    pub last_change: u32,
}

impl RelationStats {
    pub(crate) fn is_nonzero(&self) -> bool {
        self.changes > 0 || self.killed > 0
    }

    /// Returns the sum of both figures, without the name of a relation.
    pub(crate) fn sum(self, other: Self) -> Self {
        Self {
            relation: None,
            changes: self.changes.wrapping_add(other.changes),
            killed: self.killed.wrapping_add(other.killed),
            last_change: self.last_change.max(other.last_change),
        }
    }
}
