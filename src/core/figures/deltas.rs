//! Deltas: the changes that one *hold* of a lock, from acquiring to releasing it, makes to the figures of spaces and relations. A
//! *space* is a set of keys in one database, and its *cell* is the place of its counts in shared memory. `tier/deltas.rs` notes the
//! changes here. They are added to shared memory after the hold, and some of them already during the hold if it concerns more than
//! a few spaces, or several relations.
//!
//! One hold may evict dozens of entries, mostly of few spaces. The cells of the spaces are words that all backends write to. So a
//! hold writes each cell once, not once for every entry. The blocks of a space are added to its cell after they were taken, and
//! before any backend can give them back; they are subtracted after they were given back. So a cell never shows fewer blocks than
//! the space has, except for the blocks that backends are taking at this moment.
//!
//! A change of a relation *kills* an entry that depends on it: the entry is not valid any more (`relation_stats.rs`). To *settle*
//! deltas is to add them to shared memory.

use super::counter::Counter;
use super::relation_stats::Kills;
use super::statistics::Statistics;
use crate::key::Scope;

/// How many spaces have a delta. When another space comes, the noted changes are first added to the cells.
const SPACES: usize = 4;
/// The first of the counters of the ways in which an entry can end. The others follow it, up to `EvictedUnread`.
const FIRST: usize = Counter::Replaced as usize;
/// The number of the counters from [`FIRST`] to `EvictedUnread`.
const WAYS: usize = Counter::EvictedUnread as usize - FIRST + 1;

/// The changes of a few spaces, and the entries that a relation killed.
#[derive(Default)]
pub(crate) struct Deltas {
    /// The deltas. The first `count` of them are in use.
    spaces: [Delta; SPACES],
    /// The number of deltas in use.
    count: usize,
    /// The entries that a relation killed (`relation_stats.rs`).
    pub kills: Kills,
}

/// The changes of one space.
#[derive(Clone, Copy, Default)]
pub(crate) struct Delta {
    /// The database and the space in one word.
    space_id: u64,
    /// The number of the space's cell.
    cell: u32,
    /// The sum of `ways`. It is 0 if there is nothing to add to counters.
    gone: u32,
    /// The number to add to each of the counters, from [`FIRST`] on.
    ways: [u32; WAYS],
    /// The number to add to the space's blocks.
    blocks: i64,
}

impl Deltas {
    /// Begins a hold on behalf of a space. The cell of this space then needs no search. The deltas must be new.
    #[inline(always)]
    pub(crate) fn begin(&mut self, scope: &Scope) {
        (self.spaces[0].space_id, self.spaces[0].cell) = (scope.space_id(), scope.cell);
        self.count = 1;
    }

    /// Returns the position of a space's delta, if it has one. The position holds until the next [`add`](Self::add), which may give
    /// the delta to another space.
    #[inline]
    pub(crate) fn position(&self, space_id: u64) -> Option<usize> {
        self.spaces[..self.count.min(SPACES)].iter().position(|delta| delta.space_id == space_id)
    }

    /// Returns the delta at a position.
    #[inline]
    pub(crate) fn at(&mut self, position: usize) -> &mut Delta {
        &mut self.spaces[position]
    }

    /// Gives a space that has no delta one, and returns its position. If all deltas are taken, they are settled first. `cell` must
    /// be the space's cell.
    #[inline]
    pub(crate) fn add(&mut self, space_id: u64, cell: u32, statistics: &Statistics<'_>) -> usize {
        if self.count == SPACES {
            self.settle(statistics);
            self.count = 0;
        }
        let position = self.count;
        self.spaces[position] = Delta { space_id, cell, ..Delta::default() };
        self.count += 1;
        position
    }

    /// Adds the changes to the cells and the kills to the relation, and clears them. Deltas that are dropped without this call make
    /// the figures wrong.
    #[inline]
    pub(crate) fn settle(&mut self, statistics: &Statistics<'_>) {
        for delta in self.spaces.iter_mut().take(self.count) {
            statistics.add_blocks(delta.cell, std::mem::take(&mut delta.blocks));
            if delta.gone > 0 {
                delta.settle_gone(statistics);
            }
        }
        self.kills.settle(statistics.region());
    }
}

impl Delta {
    /// Notes that `times` entries of the space have gone. A counter that is none of the ways in which an entry ends is ignored.
    #[inline]
    pub(crate) fn note_gone(&mut self, how: Counter, times: u32) {
        if let Some(count) = (how as usize).checked_sub(FIRST).and_then(|way| self.ways.get_mut(way)) {
            *count += times;
            self.gone += times;
        }
    }

    /// Notes that the space has `by` blocks more, or fewer if `by` is negative.
    #[inline]
    pub(crate) fn note_blocks(&mut self, by: i64) {
        self.blocks += by;
    }

    /// Adds the numbers of entries that have gone to the counters, and clears them. A separate function, because most holds remove
    /// no entry.
    #[inline(never)]
    fn settle_gone(&mut self, statistics: &Statistics<'_>) {
        for (way, count) in std::mem::take(&mut self.ways).into_iter().enumerate() {
            if count > 0 {
                statistics.add_foreign(self.cell, FIRST + way, count.into());
            }
        }
        self.gone = 0;
    }
}
