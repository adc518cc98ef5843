//! The changes that a transaction has made in the cache, in order, as it sees them itself.

use crate::pg::memory::{self, OutOfMemory};
use crate::pg::{settings, shared, transaction};
use crate::store::change::{Basis, Change, OwnKey, Value, What};
use crate::store::savepoint::Savepoints;
use crate::store::space::Place;
use foldhash::fast::FixedState;
use pg_cache_core::{FenceId, KeyMark};
use std::collections::{HashMap, TryReserveError};
use std::hash::Hash;

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

/// Why a change is not remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unheld {
    /// The transaction holds back too much already.
    TooMuch,
    OutOfMemory,
}

impl From<OutOfMemory> for Unheld {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl From<TryReserveError> for Unheld {
    fn from(_: TryReserveError) -> Self {
        Self::OutOfMemory
    }
}

/// All changes of a transaction.
///
/// Changes of one key, or of one fence, form a chain from the latest to the first. A change takes the place of an earlier one of the
/// same if both belong to one savepoint. Releasing a savepoint moves a mark only, and so can leave several changes of the same in one
/// savepoint, of which the latest counts: [`tidy`](Self::tidy) removes the others when they are many.
#[derive(Debug)]
pub struct Ledger {
    /// Those of inner savepoints behind those of outer ones.
    changes: Vec<Change>,
    savepoints: Savepoints,
    latest: Latest,
    /// The fences in order.
    fences: Vec<FenceId>,
    bytes: usize,
    last: u64,
    /// So many changes a commit goes by that has begun: they keep their places, and what comes behind them is late.
    begun: usize,
    /// Whether a savepoint with changes was released after the last tidying.
    released: bool,
    /// How many changes the last tidying left.
    tidied: usize,
}

/// The places of the latest changes, where the chains begin.
#[derive(Debug)]
struct Latest {
    /// By the hash of the key. Keys of one hash share a chain.
    of_keys: HashMap<u64, usize, FixedState>,
    of_fences: HashMap<FenceId, usize, FixedState>,
}

impl Latest {
    const NONE: Self = Self {
        of_keys: HashMap::with_hasher(FixedState::with_seed(0)),
        of_fences: HashMap::with_hasher(FixedState::with_seed(0)),
    };

    fn make_room(&mut self, what: &What) -> Result<(), TryReserveError> {
        match what {
            What::Invalidate(_) => self.of_fences.try_reserve(1),
            _ => self.of_keys.try_reserve(1),
        }
    }

    /// Puts a place at the beginning of its chain, and returns the one that was there. There is room for it.
    fn push(&mut self, what: &What, place: usize) -> Option<usize> {
        match what {
            What::Invalidate(fence) => self.of_fences.insert(*fence, place),
            What::Set(key, _) | What::Remove(key) | What::Touch(key, _) => {
                self.of_keys.insert(key.hash, place)
            }
        }
    }

    /// Takes the first place off a chain. Does not allocate.
    fn pop(&mut self, what: &What, older: Option<usize>) {
        /// An insertion would ask for room, though it replaces.
        fn set<K: Hash + Eq>(chains: &mut HashMap<K, usize, FixedState>, key: &K, older: Option<usize>) {
            match (older, chains.get_mut(key)) {
                (Some(older), Some(latest)) => *latest = older,
                _ => _ = chains.remove(key),
            }
        }
        match what {
            What::Invalidate(fence) => set(&mut self.of_fences, fence, older),
            What::Set(key, _) | What::Remove(key) | What::Touch(key, _) => {
                set(&mut self.of_keys, &key.hash, older);
            }
        }
    }

    /// Forgets all, and keeps the room.
    fn clear(&mut self) {
        self.of_keys.clear();
        self.of_fences.clear();
    }
}

/// So few changes are never worth tidying.
const UNTIDY: usize = 64;

impl Ledger {
    pub const EMPTY: Self = Self {
        changes: Vec::new(),
        savepoints: Savepoints::NONE,
        latest: Latest::NONE,
        fences: Vec::new(),
        bytes: 0,
        last: 0,
        begun: 0,
        released: false,
        tidied: 0,
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
    pub fn add_if_it_fits(&mut self, what: What) -> Result<(), Unheld> {
        let depth = transaction::depth();
        let most = settings::max_transaction_bytes();
        if self.bytes_with(&what, depth) > most && self.released && self.changes.len() > self.tidied / 16 * 17
        {
            self.tidy();
        }
        if self.bytes_with(&what, depth) > most {
            return Err(Unheld::TooMuch);
        }
        self.put(what, depth)
    }

    /// The bytes of all changes with one more.
    fn bytes_with(&self, what: &What, depth: i32) -> usize {
        let freed = self.replaced_by(what, depth).map_or(0, |place| self.changes[place].what.bytes());
        self.bytes - freed + what.bytes()
    }

    /// The place of the change that a new one replaces: the latest of the same, if it belongs to the same savepoint, and no commit goes
    /// by it.
    fn replaced_by(&self, what: &What, depth: i32) -> Option<usize> {
        let first = self.savepoints.first(depth, self.changes.len()).max(self.begun);
        self.latest_like(what).filter(|place| *place >= first)
    }

    /// Adds an invalidation: of what is larger, if there are too many.
    pub fn invalidate(&mut self, place: &Place, fence: FenceId) -> Result<(), Unheld> {
        let known = self.latest_of(fence).is_some() || place.fences.contains(&fence);
        let fence = if known || self.fences.len() < FENCES_MAX { fence } else { place.fences[0] };
        self.add(What::Invalidate(fence))
    }

    /// Adds a change.
    pub fn add(&mut self, what: What) -> Result<(), Unheld> {
        self.put(what, transaction::depth())
    }

    /// Adds a change that is later than all others. If there is no memory for it, nothing has changed.
    fn put(&mut self, what: What, depth: i32) -> Result<(), Unheld> {
        if self.released && self.changes.len() >= 2 * self.tidied + UNTIDY {
            self.tidy();
        }
        let replaced = self.replaced_by(&what, depth);
        self.make_room(&what, replaced)?;
        self.last += 1;
        self.place(Change { what, at: self.last, older: None }, depth, replaced);
        Ok(())
    }

    /// Everything that [`place`](Self::place) needs memory for.
    fn make_room(&mut self, what: &What, replaced: Option<usize>) -> Result<(), Unheld> {
        if replaced.is_some() {
            return Ok(());
        }
        self.latest.make_room(what)?;
        if let What::Invalidate(_) = what {
            self.fences.try_reserve(1)?;
        }
        self.savepoints.make_room()?;
        Ok(self.changes.try_reserve(1)?)
    }

    /// Puts a change in the place of another, or behind all others. There is room for it.
    fn place(&mut self, change: Change, depth: i32, replaced: Option<usize>) {
        self.bytes += change.what.bytes();
        if let Some(place) = replaced {
            self.bytes -= self.changes[place].what.bytes();
            let older = self.changes[place].older;
            self.changes[place] = Change { older, ..change };
            return;
        }
        let place = self.changes.len();
        if let What::Invalidate(fence) = change.what
            && let Err(at) = self.fences.binary_search(&fence)
        {
            self.fences.insert(at, fence);
        }
        self.savepoints.add(depth, place);
        let older = self.latest.push(&change.what, place);
        self.changes.push(Change { older, ..change });
    }

    /// Removes each change that has a later one of the same in its savepoint: a loop of savepoints would grow without end otherwise.
    /// Does not allocate. Takes time for all changes, so it is called when as many were added since the last time.
    fn tidy(&mut self) {
        if self.begun > 0 {
            return;
        }
        let (mut kept, mut first) = (0, 0);
        let mut savepoints = std::mem::replace(&mut self.savepoints, Savepoints::NONE);
        let mut marks = savepoints.places().peekable();
        self.latest.clear();
        for place in 0..self.changes.len() {
            while let Some(mark) = marks.next_if(|mark| **mark == place) {
                (*mark, first) = (kept, kept);
            }
            let same = self.latest_like(&self.changes[place].what).filter(|same| *same >= first);
            let to = same.unwrap_or(kept);
            self.changes.swap(to, place);
            match same {
                // The earlier one lies behind all that are kept now.
                Some(_) => {
                    self.bytes -= self.changes[place].what.bytes();
                    self.changes[to].older = self.changes[place].older;
                }
                None => {
                    self.changes[to].older = self.latest.push(&self.changes[to].what, to);
                    kept += 1;
                }
            }
        }
        drop(marks);
        self.changes.truncate(kept);
        (self.savepoints, self.released, self.tidied) = (savepoints, false, kept);
    }

    /// A savepoint is released: its changes belong to the one around it. Does not allocate.
    pub fn released(&mut self, depth: i32) {
        self.released |= self.savepoints.release(depth);
    }

    /// Forgets the changes of a savepoint, and of those inside of it. Does not allocate.
    pub fn rolled_back(&mut self, depth: i32) {
        let Some(first) = self.savepoints.roll_back(depth) else { return };
        while self.changes.len() > first
            && let Some(Change { what, older, .. }) = self.changes.pop()
        {
            self.bytes -= what.bytes();
            self.latest.pop(&what, older);
            if let (What::Invalidate(fence), None) = (&what, older)
                && let Ok(at) = self.fences.binary_search(fence)
            {
                self.fences.remove(at);
            }
        }
        self.tidied = self.tidied.min(self.changes.len());
    }

    /// The place of the latest change of a key.
    pub fn latest(&self, place: &Place, key: &[u8], hash: u64) -> Option<usize> {
        let is_it = |at: &usize| self.changes[*at].what.key().is_some_and(|own| own.is(place, key));
        std::iter::successors(self.latest.of_keys.get(&hash).copied(), |at| self.changes[*at].older)
            .find(is_it)
    }

    /// The place of the latest invalidation of a fence.
    fn latest_of(&self, fence: FenceId) -> Option<usize> {
        self.latest.of_fences.get(&fence).copied()
    }

    /// The place of the latest change of the same key or fence.
    fn latest_like(&self, what: &What) -> Option<usize> {
        match what {
            What::Invalidate(fence) => self.latest_of(*fence),
            What::Set(key, _) | What::Remove(key) | What::Touch(key, _) => {
                self.latest(&key.place, &key.bytes, key.hash)
            }
        }
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
    pub fn in_short(&self) -> Result<(Vec<FenceId>, Vec<KeyMark>), OutOfMemory> {
        let is_fill = |what: &What| matches!(what, What::Set(_, Value { basis: Basis::Lease(_), .. }));
        let changes = self.changes.iter().filter(|change| !is_fill(&change.what));
        let keys = changes.filter_map(|change| change.what.key()?.key());
        Ok((memory::try_copy(&self.fences)?, memory::try_collect(keys.map(|key| key.mark()))?))
    }
}
