//! The changes that a transaction has made in the cache, in order, as it sees them itself.

use crate::pg::{settings, shared, transaction};
use crate::store::change::{Basis, Change, OwnKey, Value, What};
use crate::store::space::Place;
use pg_cache_core::{FenceId, KeyMark};
use std::collections::BTreeSet;

/// What the transaction says of a key itself.
#[derive(Debug)]
pub enum Own<'p> {
    /// Nothing: ask the tier.
    Nothing,
    /// It has set it.
    Set(&'p Value),
    /// It has given it another time to live.
    Touched(u32),
    /// It has removed it, or has changed what its own value depends on, or has given it a time that is over.
    Gone,
}

/// So many fences a transaction raises. Whoever invalidates more tags than that invalidates the database.
const FENCES_MAX: usize = 4096;

/// All changes of a transaction.
#[derive(Debug)]
pub struct Ledger {
    /// Those of inner savepoints behind those of outer ones.
    changes: Vec<Change>,
    /// Hashes of keys, each with where a change of it is.
    by_key: BTreeSet<(u64, usize)>,
    by_fence: BTreeSet<(FenceId, usize)>,
    /// The fences in order.
    fences: Vec<FenceId>,
    bytes: usize,
    last: u64,
    /// So many changes a commit goes by that has begun: they keep their places, and what comes behind them is late.
    begun: usize,
}

impl Ledger {
    pub const EMPTY: Self = Self {
        changes: Vec::new(),
        by_key: BTreeSet::new(),
        by_fence: BTreeSet::new(),
        fences: Vec::new(),
        bytes: 0,
        last: 0,
        begun: 0,
    };

    /// Whether nothing was ever changed, not even in a savepoint that was rolled back.
    #[inline]
    pub fn is_untouched(&self) -> bool {
        self.last == 0
    }

    /// The changes.
    #[inline]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// A commit has begun that goes by these changes.
    #[inline]
    pub fn begin(&mut self) {
        self.begun = self.changes.len();
    }

    /// What was changed after that.
    pub fn late(&self) -> &[Change] {
        self.changes.get(self.begun..).unwrap_or_default()
    }

    /// The fences of what was invalidated, in order.
    #[inline]
    pub fn fences(&self) -> &[FenceId] {
        &self.fences
    }

    /// Adds a change, unless the transaction holds back too much already.
    pub fn add_if_it_fits(&mut self, what: What) -> Result<(), ()> {
        let depth = transaction::depth();
        let replaced = self.replaced_by(&what, depth);
        let freed = replaced.map_or(0, |place| self.changes[place].what.bytes());
        if self.bytes - freed + what.bytes() > settings::max_transaction_bytes() {
            return Err(());
        }
        self.put(what, depth, replaced);
        Ok(())
    }

    /// Where the change is whose place a new one takes: the latest of the same, if it was made in the same savepoint, and no commit goes
    /// by it.
    fn replaced_by(&self, what: &What, depth: i32) -> Option<usize> {
        match what {
            What::Invalidate(fence) => self.latest_of(*fence),
            What::Set(key, _) | What::Remove(key) | What::Touch(key, _) => {
                self.latest(&key.place, &key.bytes, key.hash)
            }
        }
        .filter(|place| *place >= self.begun && self.changes[*place].depth == depth)
    }

    /// Adds an invalidation: of what is larger, if there are too many.
    pub fn invalidate(&mut self, place: &Place, fence: FenceId) {
        let known = self.latest_of(fence).is_some() || place.fences.contains(&fence);
        let fence = if known || self.fences.len() < FENCES_MAX { fence } else { place.fences[0] };
        self.add(What::Invalidate(fence));
    }

    /// Adds a change.
    pub fn add(&mut self, what: What) {
        let depth = transaction::depth();
        let replaced = self.replaced_by(&what, depth);
        self.put(what, depth, replaced);
    }

    /// Adds a change that is later than all others.
    fn put(&mut self, what: What, depth: i32, replaced: Option<usize>) {
        self.last += 1;
        self.place(Change { what, depth, at: self.last }, replaced);
    }

    fn place(&mut self, change: Change, replaced: Option<usize>) {
        self.bytes += change.what.bytes();
        if let Some(place) = replaced {
            self.bytes -= self.changes[place].what.bytes();
            self.changes[place] = change;
            return;
        }
        let place = self.changes.len();
        match &change.what {
            What::Invalidate(fence) => {
                if let Err(at) = self.fences.binary_search(fence) {
                    self.fences.insert(at, *fence);
                }
                self.by_fence.insert((*fence, place));
            }
            What::Set(key, _) | What::Remove(key) | What::Touch(key, _) => {
                self.by_key.insert((key.hash, place));
            }
        }
        self.changes.push(change);
    }

    /// Forgets where a change was.
    fn forget_place(&mut self, what: &What, place: usize) {
        self.bytes -= what.bytes();
        match what {
            What::Invalidate(fence) => self.by_fence.remove(&(*fence, place)),
            What::Set(key, _) | What::Remove(key) | What::Touch(key, _) => {
                self.by_key.remove(&(key.hash, place))
            }
        };
    }

    /// Gives what was done in a savepoint to the one around it, in the place of what that one had done to the same: a loop of
    /// savepoints would grow without end otherwise.
    pub fn hand_over(&mut self, depth: i32) {
        let outer = self.changes.iter().rposition(|change| change.depth < depth).map_or(0, |place| place + 1);
        let inner = self.changes.split_off(outer);
        for (place, change) in inner.iter().enumerate() {
            self.forget_place(&change.what, outer + place);
        }
        for change in inner {
            let replaced = self.replaced_by(&change.what, depth - 1);
            self.place(Change { depth: depth - 1, ..change }, replaced);
        }
    }

    /// Forgets what was done in a savepoint, and in those inside of it.
    pub fn drop_from(&mut self, depth: i32) {
        while let Some(Change { what, .. }) = self.changes.pop_if(|change| change.depth >= depth) {
            self.forget_place(&what, self.changes.len());
            if let What::Invalidate(fence) = what
                && self.latest_of(fence).is_none()
            {
                self.fences.retain(|other| *other != fence);
            }
        }
    }

    /// Where the latest change of a key is.
    pub fn latest(&self, place: &Place, key: &[u8], hash: u64) -> Option<usize> {
        let is_it = |at: &usize| self.changes[*at].what.key().is_some_and(|own| own.is(place, key));
        let places = self.by_key.range((hash, 0)..=(hash, usize::MAX));
        places.rev().map(|(_, place)| *place).find(is_it)
    }

    /// Where a fence was invalidated last.
    fn latest_of(&self, fence: FenceId) -> Option<usize> {
        self.by_fence.range((fence, 0)..=(fence, usize::MAX)).next_back().map(|(_, place)| *place)
    }

    /// What it says of a key, having written under some fences.
    #[cold]
    pub fn own(&self, place: &Place, key: &[u8], hash: u64, written: &[FenceId]) -> Own<'_> {
        let Some(at) = self.latest(place, key, hash) else { return Own::Nothing };
        let change = &self.changes[at];
        match &change.what {
            What::Set(key, value) if self.is_right(change, key, value, written, transaction::command()) => {
                Own::Set(value)
            }
            What::Touch(_, expires) if *expires > shared::tick() => Own::Touched(*expires),
            _ => Own::Gone,
        }
    }

    /// Whether the transaction has not changed what a value depends on since it set it.
    ///
    /// Of tables it is known only that it has written to them, in this transaction. So a value that depends on such a table is right
    /// if nothing at all was written since it was set.
    pub fn is_right(
        &self,
        change: &Change,
        key: &OwnKey,
        value: &Value,
        written: &[FenceId],
        command: u32,
    ) -> bool {
        if value.command != command
            && value.dependencies.iter().any(|fence| written.binary_search(fence).is_ok())
        {
            return false;
        }
        value
            .fences(key)
            .all(|fence| self.latest_of(fence).is_none_or(|place| self.changes[place].at < change.at))
    }

    /// The fences and the keys that it changes. What was computed under a lease changes nothing.
    pub fn in_short(&self) -> (Vec<FenceId>, Vec<KeyMark>) {
        let is_fill = |what: &What| matches!(what, What::Set(_, Value { basis: Basis::Lease(_), .. }));
        let changes = self.changes.iter().filter(|change| !is_fill(&change.what));
        let keys = changes.filter_map(|change| change.what.key()?.key());
        (self.fences.clone(), keys.map(|key| key.mark()).collect())
    }
}
