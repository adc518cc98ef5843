//! What a hold of a lock does to the spaces, and of which relations entries died in it: noted beside it, and told when it is over.
//!
//! One hold may evict dozens of entries, mostly of few spaces. Their cells are words that all backends write to, so
//! each is written once for a hold and not for every entry. The blocks of a space are told after they were given back or taken,
//! and before anybody can give back what was taken: so what a cell says is never below what the space has, but for
//! what its backends have in hand just now.

use crate::statistics::Counter;
use crate::terms::{Host, Scope};
use crate::tier::Tier;
use crate::toll::Toll;

/// Spaces that are told apart; when there are more, the cells are told before.
const SPACES: usize = 4;
/// What can become of an entry, from this one on.
const FIRST: usize = Counter::Replaced as usize;
const WAYS: usize = Counter::EvictedUnread as usize - FIRST + 1;

/// What has happened to a few spaces.
#[derive(Default)]
pub(crate) struct Tally {
    changes: [Change; SPACES],
    count: usize,
    pub toll: Toll,
}

/// What has happened to one.
#[derive(Clone, Copy, Default)]
struct Change {
    place: u64,
    cell: u32,
    /// How many have gone, in all ways together.
    gone: u32,
    ways: [u32; WAYS],
    blocks: i64,
}

impl Tally {
    /// Begins for a hold on behalf of a space, whose cell need not be looked for then.
    #[inline(always)]
    pub(crate) fn begin(&mut self, scope: &Scope) {
        (self.changes[0].place, self.changes[0].cell) = (scope.place(), scope.cell);
        self.count = 1;
    }
}

impl<H: Host> Tier<'_, H> {
    /// Entries of a space have gone.
    pub(crate) fn note_gone(&self, tally: &mut Tally, place: u64, how: Counter, times: u32) {
        let change = self.change_of(tally, place);
        if let Some(count) = (how as usize).checked_sub(FIRST).and_then(|way| change.ways.get_mut(way)) {
            *count += times;
            change.gone += times;
        }
    }

    /// A space has so many blocks more, or less.
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

    /// Tells the cells, and the relation.
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
