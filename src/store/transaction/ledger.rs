//! The *ledger*: the changes that a transaction has made in the cache, in order, and how the transaction sees them itself.
//! `pending.rs` owns it and gives it to `commit.rs`.
//!
//! For each key and each fence the ledger finds the latest change in constant time. Rolling a savepoint back removes its changes;
//! releasing a savepoint only moves a mark. Both must work without allocating, because they run where errors are not allowed.
//!
//! The *tier* is the cache in shared memory, and a *space* is a named cache, a set of keys in it. A *fence* is a word in shared
//! memory that says when something that values depend on last changed (`docs/architecture.md`).

use super::change::{Action, Basis, Change, JournalName, OwnKey, Value};
use super::own_patterns::OwnPatterns;
use super::savepoint::SavepointMarks;
use crate::pg::memory::{self, OutOfMemory};
use crate::pg::{settings, shared, transaction};
use crate::store::keyspace::Keyspace;
use crate::store::status::Status;
use foldhash::fast::FixedState;
use pg_cache_core::{FenceId, KeyMark};
use std::collections::{HashMap, TryReserveError};
use std::hash::Hash;

/// The transaction's own state of a key.
#[derive(Debug)]
pub enum OwnState<'p> {
    /// The transaction has not changed the key: ask the tier.
    Nothing,
    /// The transaction has set the key to this value.
    Set(&'p Value),
    /// The transaction has given the key another time to live, which ends at this tick (`pg/clock.rs`).
    Touched(u32),
    /// The transaction has removed the key, or has changed a dependency of the value it set, or has set an expiry that has
    /// passed.
    Gone,
}

/// If the ledger has this many fences, [`Ledger::invalidate`] adds the fence of the whole database instead of another one. A commit
/// raises and lowers each fence, so this bounds its time.
const FENCES_MAX: usize = 4096;

/// [`Ledger::clear`] keeps the allocated memory of at most this many changes.
const KEPT_MAX: usize = 32;

/// The reason why a change was not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRecorded {
    /// The pending changes would exceed the limit on the transaction's memory.
    TooLarge,
    OutOfMemory,
}

impl From<OutOfMemory> for NotRecorded {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl From<TryReserveError> for NotRecorded {
    fn from(_: TryReserveError) -> Self {
        Self::OutOfMemory
    }
}

impl From<NotRecorded> for Status {
    fn from(why: NotRecorded) -> Self {
        match why {
            NotRecorded::TooLarge => {
                Self::Refused("the transaction holds back more than pg_cache.max_transaction_size")
            }
            NotRecorded::OutOfMemory => OutOfMemory.into(),
        }
    }
}

/// All changes of a transaction.
///
/// The changes of one key, or of one fence, form a chain from the latest to the first. A new change replaces an earlier one of
/// the same key or fence if both belong to the same savepoint. Releasing a savepoint only moves a mark, so it can leave several
/// changes of the same key in one savepoint. Only the latest of them counts; [`tidy`](Self::tidy) removes the others when there
/// are many.
#[derive(Debug)]
pub struct Ledger {
    /// The changes of inner savepoints come after those of outer ones.
    changes: Vec<Change>,
    /// The index in `changes` at which each open savepoint begins.
    savepoints: SavepointMarks,
    /// The latest change of each key and each fence.
    latest: LatestChanges,
    /// The fences that were invalidated, sorted.
    fences: Vec<FenceId>,
    /// The patterns that the transaction has invalidated.
    patterns: OwnPatterns,
    /// The size of all changes in bytes, as it counts towards the limit.
    bytes: usize,
    /// The sequence number of the last change; 0 before the first one.
    last_sequence: u64,
    /// The number of changes that the commit covers, once it has begun; 0 before. These changes must keep their indexes. Any change
    /// behind them is late.
    begun: usize,
    /// Whether a savepoint with changes was released after `tidy` last ran.
    released: bool,
    /// The number of changes that the last run of `tidy` left.
    tidied: usize,
}

/// The indexes of the latest changes, where the chains begin.
#[derive(Debug)]
struct LatestChanges {
    /// Keyed by the hash of the key. Keys with the same hash share a chain.
    of_keys: HashMap<u64, usize, FixedState>,
    of_fences: HashMap<FenceId, usize, FixedState>,
}

impl LatestChanges {
    const NONE: Self = Self {
        of_keys: HashMap::with_hasher(FixedState::with_seed(0)),
        of_fences: HashMap::with_hasher(FixedState::with_seed(0)),
    };

    /// Reserves the memory for one [`push`](Self::push) of this action.
    fn make_room(&mut self, action: &Action) -> Result<(), TryReserveError> {
        match action {
            Action::Invalidate(..) => self.of_fences.try_reserve(1),
            _ => self.of_keys.try_reserve(1),
        }
    }

    /// Puts an index at the beginning of its chain and returns the previous beginning. The caller must have made room for it.
    fn push(&mut self, action: &Action, index: usize) -> Option<usize> {
        match action {
            Action::Invalidate(fence, _) => self.of_fences.insert(*fence, index),
            Action::Set(key, _) | Action::Remove(key) | Action::Touch(key, _) => {
                self.of_keys.insert(key.hash, index)
            }
        }
    }

    /// Removes the first index of a chain. Does not allocate.
    fn pop(&mut self, action: &Action, previous: Option<usize>) {
        /// Replaces the beginning of a chain. `HashMap::insert` is not used, because it would reserve memory even when it
        /// replaces.
        fn set<K: Hash + Eq>(chains: &mut HashMap<K, usize, FixedState>, key: &K, previous: Option<usize>) {
            match (previous, chains.get_mut(key)) {
                (Some(previous), Some(latest)) => *latest = previous,
                _ => _ = chains.remove(key),
            }
        }
        match action {
            Action::Invalidate(fence, _) => set(&mut self.of_fences, fence, previous),
            Action::Set(key, _) | Action::Remove(key) | Action::Touch(key, _) => {
                set(&mut self.of_keys, &key.hash, previous);
            }
        }
    }

    /// Removes all chains but keeps the allocated memory.
    fn clear(&mut self) {
        self.of_keys.clear();
        self.of_fences.clear();
    }
}

/// Below this number of changes, `tidy` is not worth its time.
const UNTIDY: usize = 64;

impl Ledger {
    pub const EMPTY: Self = Self {
        changes: Vec::new(),
        savepoints: SavepointMarks::NONE,
        latest: LatestChanges::NONE,
        fences: Vec::new(),
        patterns: OwnPatterns::NONE,
        bytes: 0,
        last_sequence: 0,
        begun: 0,
        released: false,
        tidied: 0,
    };

    /// Forgets all changes. The next transaction reuses the memory of a short list. Does not allocate.
    pub fn clear(&mut self) {
        if self.changes.capacity() > KEPT_MAX {
            *self = Self::EMPTY;
            return;
        }
        self.changes.clear();
        self.savepoints.clear();
        self.latest.clear();
        self.fences.clear();
        self.patterns = OwnPatterns::NONE;
        (self.bytes, self.last_sequence, self.begun) = (0, 0, 0);
        (self.released, self.tidied) = (false, 0);
    }

    /// Returns whether the transaction has never changed anything, not even in a savepoint that was rolled back.
    #[inline]
    pub fn is_untouched(&self) -> bool {
        self.last_sequence == 0
    }

    /// Returns whether the transaction has no changes now.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.patterns.is_empty()
    }

    /// Returns the patterns that were invalidated.
    pub fn patterns(&self) -> &OwnPatterns {
        &self.patterns
    }

    /// Returns the changes in order, without the patterns.
    #[inline]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Marks the current changes as covered by a commit that begins now.
    #[inline]
    pub fn begin(&mut self) {
        self.begun = self.changes.len();
        self.patterns.begin();
    }

    /// Returns the changes that were made after the commit had begun.
    pub fn late(&self) -> &[Change] {
        self.changes.get(self.begun..).unwrap_or_default()
    }

    /// Returns the fences that were invalidated, sorted.
    #[inline]
    pub fn fences(&self) -> &[FenceId] {
        &self.fences
    }

    /// Adds a change, unless the transaction's changes would then exceed `pg_cache.max_transaction_size`. Removals may take a
    /// quarter more, because a set that does not fit removes the previous value of its key.
    pub fn add_if_it_fits(&mut self, action: Action) -> Result<(), NotRecorded> {
        let depth = transaction::depth();
        let most = settings::max_transaction_bytes();
        let most = if let Action::Remove(_) = action { most.saturating_add(most / 4) } else { most };
        // Tidying may make room. It is worth its time only if the list has grown by a sixteenth since it was last tidied.
        if self.bytes_with(&action, depth) > most
            && self.released
            && self.changes.len() > self.tidied / 16 * 17
        {
            self.tidy();
        }
        if self.bytes_with(&action, depth) > most {
            return Err(NotRecorded::TooLarge);
        }
        self.put(action, depth)
    }

    /// Returns the size in bytes of all changes with one more.
    fn bytes_with(&self, action: &Action, depth: i32) -> usize {
        let freed = self.replaced_by(action, depth).map_or(0, |index| self.changes[index].action.bytes());
        self.bytes - freed + action.bytes()
    }

    /// Returns the index of the change that a new one replaces. That is the latest change of the same key or fence, if it belongs
    /// to the same savepoint and no commit covers it.
    fn replaced_by(&self, action: &Action, depth: i32) -> Option<usize> {
        let first = self.savepoints.first_of_innermost(depth, self.changes.len()).max(self.begun);
        self.latest_like(action).filter(|index| *index >= first)
    }

    /// Adds an invalidation of a fence. If the transaction has too many fences already, invalidates the whole database instead.
    pub fn invalidate(
        &mut self,
        keyspace: &Keyspace,
        fence: FenceId,
        named: JournalName,
    ) -> Result<(), NotRecorded> {
        self.add(match keyspace.fences.contains(&fence) || self.has_room_for(fence) {
            true => Action::Invalidate(fence, named),
            false => Action::Invalidate(keyspace.fences[0], JournalName::Database(shared::database())),
        })
    }

    /// Adds an invalidation of the keys that a pattern matches. If the transaction has too many patterns already, invalidates the
    /// whole space instead.
    pub fn invalidate_pattern(&mut self, keyspace: &Keyspace, pattern: Box<[u8]>) -> Result<(), NotRecorded> {
        if !self.patterns.has_room() {
            return self.invalidate(
                keyspace,
                keyspace.own_fence(),
                JournalName::Space(keyspace.scope.space()),
            );
        }
        self.patterns.add(keyspace, pattern, self.last_sequence + 1, transaction::depth())?;
        self.last_sequence += 1;
        Ok(())
    }

    /// Returns whether one more fence is not too many, or whether the transaction has invalidated this one already.
    pub fn has_room_for(&self, fence: FenceId) -> bool {
        self.latest_of(fence).is_some() || self.fences.len() < FENCES_MAX
    }

    /// Adds a change without checking the size limit.
    pub fn add(&mut self, action: Action) -> Result<(), NotRecorded> {
        self.put(action, transaction::depth())
    }

    /// Adds a change that is later than all others. If there is no memory for it, the ledger stays as it was.
    fn put(&mut self, action: Action, depth: i32) -> Result<(), NotRecorded> {
        if self.released && self.changes.len() >= 2 * self.tidied + UNTIDY {
            self.tidy();
        }
        let replaced = self.replaced_by(&action, depth);
        self.make_room(&action, replaced)?;
        self.last_sequence += 1;
        self.store(Change { action, sequence: self.last_sequence, previous: None }, depth, replaced);
        Ok(())
    }

    /// Allocates all memory that [`store`](Self::store) needs.
    fn make_room(&mut self, action: &Action, replaced: Option<usize>) -> Result<(), NotRecorded> {
        if replaced.is_some() {
            return Ok(());
        }
        self.latest.make_room(action)?;
        if let Action::Invalidate(..) = action {
            self.fences.try_reserve(1)?;
        }
        self.savepoints.make_room()?;
        Ok(self.changes.try_reserve(1)?)
    }

    /// Replaces a change, or adds one behind all others. The caller must have made room for it.
    fn store(&mut self, change: Change, depth: i32, replaced: Option<usize>) {
        self.bytes += change.action.bytes();
        if let Some(index) = replaced {
            self.bytes -= self.changes[index].action.bytes();
            let previous = self.changes[index].previous;
            let mut change = Change { previous, ..change };
            change.action.cover_name_of(&self.changes[index].action);
            self.changes[index] = change;
            return;
        }
        let index = self.changes.len();
        if let Action::Invalidate(fence, _) = change.action
            && let Err(at) = self.fences.binary_search(&fence)
        {
            self.fences.insert(at, fence);
        }
        self.savepoints.add(depth, index);
        let previous = self.latest.push(&change.action, index);
        self.changes.push(Change { previous, ..change });
    }

    /// Removes each change that has a later one of the same key or fence in its savepoint. Without this, a loop of savepoints would
    /// make the ledger grow without end. Does not allocate. The time is proportional to the number of changes, so it must only be
    /// called after the list has grown by a fixed share since the last run.
    fn tidy(&mut self) {
        if self.begun > 0 {
            return;
        }
        let (mut kept, mut first) = (0, 0);
        let mut savepoints = std::mem::replace(&mut self.savepoints, SavepointMarks::NONE);
        let mut marks = savepoints.first_indexes().peekable();
        self.latest.clear();
        for index in 0..self.changes.len() {
            while let Some(mark) = marks.next_if(|mark| **mark == index) {
                (*mark, first) = (kept, kept);
            }
            let same = self.latest_like(&self.changes[index].action).filter(|same| *same >= first);
            let to = same.unwrap_or(kept);
            self.changes.swap(to, index);
            match same {
                // After the swap, the earlier change lies behind all changes that are kept.
                Some(_) => {
                    self.bytes -= self.changes[index].action.bytes();
                    let (kept, behind) = self.changes.split_at_mut(index);
                    kept[to].action.cover_name_of(&behind[0].action);
                    kept[to].previous = behind[0].previous;
                }
                None => {
                    self.changes[to].previous = self.latest.push(&self.changes[to].action, to);
                    kept += 1;
                }
            }
        }
        drop(marks);
        self.changes.truncate(kept);
        (self.savepoints, self.released, self.tidied) = (savepoints, false, kept);
    }

    /// Releases a savepoint: its changes now belong to the savepoint around it. Does not allocate.
    pub fn released(&mut self, depth: i32) {
        self.released |= self.savepoints.release(depth);
        self.patterns.released(depth);
    }

    /// Removes the changes of a savepoint and of the savepoints inside it. Does not allocate.
    pub fn rolled_back(&mut self, depth: i32) {
        self.patterns.rolled_back(depth);
        let Some(first) = self.savepoints.roll_back(depth) else { return };
        while self.changes.len() > first
            && let Some(Change { action, previous, .. }) = self.changes.pop()
        {
            self.bytes -= action.bytes();
            self.latest.pop(&action, previous);
            if let (Action::Invalidate(fence, _), None) = (&action, previous)
                && let Ok(at) = self.fences.binary_search(fence)
            {
                self.fences.remove(at);
            }
        }
        self.tidied = self.tidied.min(self.changes.len());
    }

    /// Returns the index of the latest change of a key.
    pub fn latest(&self, keyspace: &Keyspace, key: &[u8], hash: u64) -> Option<usize> {
        let is_it = |at: &usize| self.changes[*at].action.key().is_some_and(|own| own.is(keyspace, key));
        std::iter::successors(self.latest.of_keys.get(&hash).copied(), |at| self.changes[*at].previous)
            .find(is_it)
    }

    /// Returns the value of a key, if the latest change of the key has set it.
    pub fn latest_set(&self, key: &OwnKey) -> Option<&Value> {
        let latest = self.latest(&key.keyspace, &key.bytes, key.hash)?;
        match &self.changes[latest].action {
            Action::Set(_, value) => Some(value),
            _ => None,
        }
    }

    /// Returns the index of the latest invalidation of a fence.
    fn latest_of(&self, fence: FenceId) -> Option<usize> {
        self.latest.of_fences.get(&fence).copied()
    }

    /// Returns the index of the latest change of the same key or fence.
    fn latest_like(&self, action: &Action) -> Option<usize> {
        match action {
            Action::Invalidate(fence, _) => self.latest_of(*fence),
            Action::Set(key, _) | Action::Remove(key) | Action::Touch(key, _) => {
                self.latest(&key.keyspace, &key.bytes, key.hash)
            }
        }
    }

    /// Returns the transaction's own state of a key. `written` holds the fences of the tables that the transaction has written,
    /// sorted.
    #[cold]
    pub fn own(&self, keyspace: &Keyspace, key: &[u8], hash: u64, written: &[FenceId]) -> OwnState<'_> {
        let Some(at) = self.latest(keyspace, key, hash) else {
            let is_gone = self.patterns.have_removed(keyspace, key, None);
            return if is_gone { OwnState::Gone } else { OwnState::Nothing };
        };
        let change = &self.changes[at];
        match &change.action {
            Action::Set(key, value)
                if self.is_valid(change, key, value, written, transaction::command_id()) =>
            {
                OwnState::Set(value)
            }
            Action::Touch(_, expires)
                if *expires > shared::tick()
                    && !self.patterns.have_removed(keyspace, key, Some(change.sequence)) =>
            {
                OwnState::Touched(*expires)
            }
            _ => OwnState::Gone,
        }
    }

    /// Returns whether a value is still valid: the transaction has not changed any of its dependencies since it set the value, and
    /// has not invalidated a pattern that matches its key.
    ///
    /// For tables, the locks only tell that this transaction has written to them, not when. So a value that depends on a written
    /// table is valid only if the transaction has written nothing at all since it set the value. `written` holds the fences of the
    /// written tables, sorted. `command_id` is the id of the running command, or at the commit that of the command that would come
    /// next: it grows with each command that writes.
    pub fn is_valid(
        &self,
        change: &Change,
        key: &OwnKey,
        value: &Value,
        written: &[FenceId],
        command_id: u32,
    ) -> bool {
        if self.patterns.have_removed(&key.keyspace, &key.bytes, Some(change.sequence)) {
            return false;
        }
        if value.command_id != command_id
            && value.dependencies.iter().any(|fence| written.binary_search(fence).is_ok())
        {
            return false;
        }
        value.fences(key).all(|fence| {
            self.latest_of(fence).is_none_or(|index| self.changes[index].sequence < change.sequence)
        })
    }

    /// Returns the fences and the keys that the transaction changes. The fence of the space replaces a pattern. Values that were
    /// computed under a lease are left out, because such a value does not change the key.
    pub fn summary(&self) -> Result<(Vec<FenceId>, Vec<KeyMark>), OutOfMemory> {
        let is_fill =
            |action: &Action| matches!(action, Action::Set(_, Value { basis: Basis::Lease(_), .. }));
        let changes = self.changes.iter().filter(|change| !is_fill(&change.action));
        let keys = changes.filter_map(|change| change.action.key()?.key());
        let spaces = self.patterns.all().iter().map(|pattern| pattern.keyspace.own_fence());
        let fences = memory::try_collect(self.fences.iter().copied().chain(spaces))?;
        Ok((fences, memory::try_collect(keys.map(|key| key.mark()))?))
    }
}
