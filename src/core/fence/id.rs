//! The names of fences: the positions of their words in the *region*, the shared memory of the cache as words of 64 bits. A *fence*
//! is a word that says when a dependency of entries last changed. The other files of this folder find a fence once and pass its
//! name on, and each entry stores the names of its dependencies.
//!
//! The *record* of a relation holds its two fences. A *reserved fence* is that of a database, a space (a set of keys in one
//! database), or another object in `reserved.rs`. It has a *slot*: a cache line with its mark, which says whose fence it is, and
//! with the pattern fence of a space. The *cell* of a space is the place of its counts in shared memory (`figures/statistics.rs`).

use crate::layout::{AT_ANY, AT_BULK, LINE, Layout, RELATION_WORDS, RESERVED_WORDS};

/// The name of a fence: the position of its word. An entry stores this for each dependency.
///
/// A name in a damaged entry may be the position of any word, or lie outside of the region, where each access goes to the sink
/// (`region.rs`). Such a word is only read, and never written to: a writer raises only the fences that it has looked up itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FenceId(pub(crate) u32);

impl FenceId {
    /// Returns the fence as a number: different for any two fences of a region.
    pub fn number(self) -> u32 {
        self.0
    }

    /// Returns the fence with this number. The number must come from [`number`](Self::number) in the same region; otherwise the
    /// fence may be any word, and must not be raised.
    pub fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// Returns the cell with the statistics of the space that has this fence. The cell has the same number as the slot of the
    /// fence. Spaces that have found no slot share the last cell.
    pub(crate) fn cell(self, layout: &Layout) -> u32 {
        match (self.0 as usize).checked_sub(layout.reserved_at) {
            Some(words) => ((words / RESERVED_WORDS) as u32).min(layout.cells() - 1),
            None => layout.cells() - 1,
        }
    }
}

/// One of the two fences of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationFence {
    /// Raised by every write.
    Any,
    /// Raised by writes that do not report which rows they change.
    Bulk,
}

/// Returns an unclaimed fence by its index: one of those for the relations that have no record (`fence/mod.rs`).
pub(super) fn unclaimed_fence(layout: &Layout, index: u32) -> FenceId {
    FenceId((layout.unclaimed_at + index as usize * LINE) as u32)
}

/// Returns the reserved fence of a slot (`reserved.rs`): the third word. The first word is the slot's mark, the fourth one is the
/// pattern fence, and the others are not used.
pub(super) fn reserved_fence(layout: &Layout, slot: u32) -> FenceId {
    FenceId((layout.reserved_at + slot as usize * RESERVED_WORDS) as u32 + 2)
}

/// Returns the pattern fence (`patterns/mod.rs`) in the slot of a reserved fence. None if the fence has no slot.
pub(super) fn pattern_fence(layout: &Layout, FenceId(at): FenceId) -> Option<FenceId> {
    (layout.reserved_at..layout.relations_at).contains(&(at as usize)).then_some(FenceId(at + 1))
}

/// Returns the position of the record in a slot of the table of relations.
pub(super) fn record(layout: &Layout, slot: u32) -> usize {
    layout.relations_at + slot as usize * RELATION_WORDS
}

/// Returns one of the two fences of the record in a slot.
pub(super) fn relation_fence(layout: &Layout, slot: u32, which: RelationFence) -> FenceId {
    let word = match which {
        RelationFence::Any => AT_ANY,
        RelationFence::Bulk => AT_BULK,
    };
    FenceId((record(layout, slot) + word) as u32)
}
