//! What a hold of a lock does to the spaces, noted beside it and told to their cells when it is over.
//!
//! One hold may evict dozens of entries, mostly of few spaces. Their cells are words that all backends write to, so
//! each is written once for a hold and not for every entry. The blocks of a space are told after they were given back or taken,
//! and before anybody can give back what was taken: so what a cell says is never below what the space has, but for
//! what its backends have in hand just now.

use crate::entry::Header;
use crate::statistics::Counter;
use crate::terms::Host;
use crate::tier::Tier;

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
}

/// What has happened to one.
#[derive(Clone, Copy, Default)]
struct Change {
    place: u64,
    blocks: i64,
    gone: [u32; WAYS],
}

impl<H: Host> Tier<'_, H> {
    /// An entry has gone.
    pub(crate) fn note_gone(&self, tally: &mut Tally, header: &Header, how: Counter) {
        let change = self.change_of(tally, header.place());
        if let Some(count) = (how as usize).checked_sub(FIRST).and_then(|way| change.gone.get_mut(way)) {
            *count += 1;
        }
    }

    /// A space has so many blocks more, or less.
    pub(crate) fn note_blocks(&self, tally: &mut Tally, header: &Header, by: i64) {
        self.change_of(tally, header.place()).blocks += by;
    }

    fn change_of<'t>(&self, tally: &'t mut Tally, place: u64) -> &'t mut Change {
        let known = tally.changes[..tally.count].iter().position(|change| change.place == place);
        let at = known.unwrap_or_else(|| {
            if tally.count == SPACES {
                self.settle(tally);
            }
            tally.changes[tally.count] = Change { place, ..Change::default() };
            tally.count += 1;
            tally.count - 1
        });
        &mut tally.changes[at]
    }

    /// Tells the cells.
    pub(crate) fn settle(&self, tally: &mut Tally) {
        for change in &tally.changes[..tally.count] {
            let cell = self.cell_of(change.place);
            self.statistics.add_blocks(cell, change.blocks);
            for (way, count) in change.gone.iter().enumerate().filter(|(_, count)| **count > 0) {
                self.statistics.add_foreign(cell, FIRST + way, u64::from(*count));
            }
        }
        tally.count = 0;
    }
}
