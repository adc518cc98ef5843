//! A tally: notes what one hold of a lock does to the spaces, and which relations killed entries, and adds it to shared memory
//! after the hold.
//!
//! One hold may evict dozens of entries, mostly of few spaces. The cells of the spaces are words that all backends write to. So a
//! hold writes each cell once, not once for every entry. The blocks of a space are added to its cell after they were taken, and
//! before any backend can give them back; they are subtracted after they were given back. So a cell never shows fewer blocks than
//! the space has, except for the blocks that backends are taking at this moment.

use crate::figures::relation_stats::Toll;
use crate::figures::statistics::Counter;
use crate::terms::{Host, Scope};
use crate::tier::Tier;

/// How many spaces a tally can hold. When another space comes, the noted changes are first added to the cells.
const SPACES: usize = 4;
/// The first of the counters for the fates of an entry. The others follow it.
const FIRST: usize = Counter::Replaced as usize;
const WAYS: usize = Counter::EvictedUnread as usize - FIRST + 1;

/// The changes of a few spaces.
#[derive(Default)]
pub(crate) struct Tally {
    changes: [Change; SPACES],
    count: usize,
    pub toll: Toll,
}

/// The changes of one space.
#[derive(Clone, Copy, Default)]
struct Change {
    place: u64,
    cell: u32,
    /// How many entries have gone, over all ways together.
    gone: u32,
    ways: [u32; WAYS],
    blocks: i64,
}

impl Tally {
    /// Begins a tally for a hold on behalf of a space. The cell of this space then needs no search.
    #[inline(always)]
    pub(crate) fn begin(&mut self, scope: &Scope) {
        (self.changes[0].place, self.changes[0].cell) = (scope.place(), scope.cell);
        self.count = 1;
    }
}

impl<H: Host> Tier<'_, H> {
    /// Notes that entries of a space have gone.
    pub(crate) fn note_gone(&self, tally: &mut Tally, place: u64, how: Counter, times: u32) {
        let change = self.change_of(tally, place);
        if let Some(count) = (how as usize).checked_sub(FIRST).and_then(|way| change.ways.get_mut(way)) {
            *count += times;
            change.gone += times;
        }
    }

    /// Notes that a space has `by` blocks more, or fewer if `by` is negative.
    #[inline]
    pub(crate) fn note_blocks(&self, tally: &mut Tally, place: u64, by: i64) {
        self.change_of(tally, place).blocks += by;
    }

    #[inline]
    fn change_of<'t>(&self, tally: &'t mut Tally, place: u64) -> &'t mut Change {
        let known = tally.changes[..tally.count.min(SPACES)].iter().position(|change| change.place == place);
        let at = known.unwrap_or_else(|| self.another(tally, place));
        &mut tally.changes[at]
    }

    #[inline(never)]
    fn another(&self, tally: &mut Tally, place: u64) -> usize {
        if tally.count == SPACES {
            self.settle(tally);
            tally.count = 0;
        }
        let at = tally.count;
        tally.changes[at] = Change { place, cell: self.cell_of(place), ..Change::default() };
        tally.count += 1;
        at
    }

    /// Adds the notes to the cells and to the relation, and clears them.
    #[inline]
    pub(crate) fn settle(&self, tally: &mut Tally) {
        for change in tally.changes.iter_mut().take(tally.count) {
            self.statistics.add_blocks(change.cell, std::mem::take(&mut change.blocks));
            if change.gone > 0 {
                self.settle_gone(change);
            }
        }
        self.settle_toll(&mut tally.toll);
    }

    #[inline(never)]
    fn settle_gone(&self, change: &mut Change) {
        for (way, count) in std::mem::take(&mut change.ways).into_iter().enumerate() {
            if count > 0 {
                self.statistics.add_foreign(change.cell, FIRST + way, count.into());
            }
        }
        change.gone = 0;
    }
}
