//! The figures of relations: how often each relation has changed, when it changed last, and how many entries its changes killed.
//!
//! These figures stand on the cache line of the relation's fences, which belongs to this relation alone (`fence/mod.rs`). Access rules:
//! - A writer that lowers a relation's fence with [`lower_as`](crate::Tier::lower_as) also increments the number of changes and stores the time. The
//!   writer has just changed another word of the same line, so this touches no additional line and disturbs no other backend.
//! - A backend that removes an entry that was not right any more notes which relation killed it. It adds to the relation's figure
//!   when it holds no lock any more, once for a series of entries that the same relation killed. Readers that find a dead entry
//!   write nothing.
//! - Every access is a single atomic step on a single word. So a reset may write 0 while other backends add.
//!
//! An entry is counted when its memory is reclaimed, not when it dies, because no code looks at the entry at that moment. Its death
//! is attributed to the first relation among its dependencies that has changed since its stamp. If the entry expired before or at
//! the time of the relation's last change, the relation is not blamed: only the time of the last change is known.
//!
//! A relation keeps its record for as long as the region lives (`fence/mod.rs`). If PostgreSQL reuses the OID of a dropped relation or
//! database, the new relation continues the old figures. When all records are in use, several relations share a record and cannot
//! be told apart, so the figures of such records are reported without a name.

use crate::layout::AT_KILLED;
use crate::region::Region;
use crate::sync::Ordering;

/// Entries that one relation killed, during one hold of a lock.
#[derive(Default)]
pub(crate) struct Kills {
    record: usize,
    count: u32,
}

impl Kills {
    /// Adds an entry. If another relation killed the entries before it, they are settled first.
    #[inline]
    pub(crate) fn add(&mut self, record: usize, region: &Region<'_>) {
        if self.record != record {
            self.settle(region);
            self.record = record;
        }
        self.count += 1;
    }

    /// Adds the number to the relation's figure.
    #[inline]
    pub(crate) fn settle(&mut self, region: &Region<'_>) {
        let count = std::mem::take(&mut self.count);
        if count > 0 {
            region.word(self.record + AT_KILLED).fetch_add(count.into(), Ordering::Relaxed);
        }
    }
}

/// The statistics of a relation. The counts begin at the last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelationStats {
    /// The OID of the relation. None for the relations that share records, counted together.
    pub relation: Option<u32>,
    /// The number of transactions that changed the relation.
    pub changes: u64,
    /// The number of entries that a change of the relation invalidated and whose memory has been reclaimed.
    pub killed: u64,
    /// The tick of the last change.
    pub last: u32,
}

impl RelationStats {
    pub(crate) fn is_any(&self) -> bool {
        self.changes > 0 || self.killed > 0
    }

    /// Adds the figures of both, for a sum without a name.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            relation: None,
            changes: self.changes.wrapping_add(other.changes),
            killed: self.killed.wrapping_add(other.killed),
            last: self.last.max(other.last),
        }
    }
}
