//! The patterns that a transaction has invalidated, such as `user:42:*`. They decide which keys are gone for the transaction
//! itself, and its commit announces them, so that other sessions compare their keys with them (`patterns/mod.rs` of the core). They
//! are a part of the ledger (`ledger.rs`), the list of the transaction's changes.
//!
//! A *keyspace* is the part of the cache that holds the keys of a space, a named cache (`store/keyspace.rs`).

use super::savepoint::SavepointMarks;
use crate::pg::local::local;
use crate::store::keyspace::Keyspace;
use pg_cache_core::Glob;
use std::cell::Cell;
use std::collections::TryReserveError;

/// A pattern that the transaction has invalidated.
#[derive(Debug)]
pub struct OwnPattern {
    /// The keyspace whose keys the pattern invalidates.
    pub keyspace: Keyspace,
    /// The bytes of the pattern.
    bytes: Box<[u8]>,
    /// The position in the order of the transaction's changes.
    sequence: u64,
}

impl OwnPattern {
    /// Returns the pattern. It is never None, because the caller of [`OwnPatterns::add`] passes only valid patterns.
    pub fn glob(&self) -> Option<Glob<'_>> {
        Glob::new(&self.bytes)
    }

    /// Whether the pattern matches a key of the keyspace, or whether there are too few `steps` to find out.
    fn matches(&self, keyspace: &Keyspace, key: &[u8], steps: &mut u32) -> bool {
        self.keyspace.scope.is(&keyspace.scope)
            && self.glob().is_some_and(|glob| glob.matches_within(key, steps).unwrap_or(true))
    }
}

/// The most patterns of a transaction. A transaction with more invalidates whole spaces instead. Each lookup of a key compares it
/// with all of them, and the commit needs a slot for each in shared memory.
const PATTERNS_MAX: usize = 256;
/// The most steps in which a key is compared with the patterns: some milliseconds. Beyond them, the key counts as matched.
const STEPS_MAX: u32 = 1 << 20;
/// The most steps of all comparisons of a transaction, about a second. Nothing can interrupt the comparisons of its commit.
const STEPS_OF_TRANSACTION: u32 = 1 << 28;

/// All patterns of a transaction, in order.
#[derive(Debug)]
pub struct OwnPatterns {
    /// The patterns of inner savepoints come after those of outer ones.
    list: Vec<OwnPattern>,
    /// The index in `list` at which each open savepoint begins.
    savepoints: SavepointMarks,
    /// The number of patterns that a commit covers, once it has begun. The patterns behind them are late.
    begun: usize,
}

local! {
    /// The steps that are left to the transaction. Its first pattern sets them.
    static STEPS: Cell<u32> = Cell::new(STEPS_OF_TRANSACTION);
}

impl OwnPatterns {
    pub const NONE: Self = Self { list: Vec::new(), savepoints: SavepointMarks::NONE, begun: 0 };

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns the patterns.
    pub fn all(&self) -> &[OwnPattern] {
        &self.list
    }

    /// Marks the current patterns as covered by a commit that begins now.
    pub fn begin(&mut self) {
        self.begun = self.list.len();
    }

    /// Returns the patterns that were added after the commit had begun.
    pub fn late(&self) -> &[OwnPattern] {
        self.list.get(self.begun..).unwrap_or_default()
    }

    /// Returns whether there is room for one more pattern. Without room, the caller must invalidate the whole space instead.
    pub fn has_room(&self) -> bool {
        self.list.len() < PATTERNS_MAX
    }

    /// Adds a pattern in the innermost savepoint, which has the depth `depth`. If this savepoint has the pattern already, only
    /// moves it behind the other changes.
    pub fn add(
        &mut self,
        keyspace: &Keyspace,
        bytes: Box<[u8]>,
        sequence: u64,
        depth: i32,
    ) -> Result<(), TryReserveError> {
        let first = self.savepoints.first_of_innermost(depth, self.list.len()).max(self.begun);
        let same = |own: &&mut OwnPattern| own.bytes == bytes && own.keyspace.scope.is(&keyspace.scope);
        if let Some(own) = self.list.get_mut(first..).unwrap_or_default().iter_mut().find(same) {
            own.sequence = sequence;
            return Ok(());
        }
        self.list.try_reserve(1)?;
        self.savepoints.make_room()?;
        if self.is_empty() {
            STEPS.set(STEPS_OF_TRANSACTION);
        }
        self.savepoints.add(depth, self.list.len());
        self.list.push(OwnPattern { keyspace: *keyspace, bytes, sequence });
        Ok(())
    }

    /// Returns whether a pattern has removed a key. `changed_at` is the position of the key's last change in the order of changes:
    /// only later patterns count. It is None if the transaction has not changed the key. A key that takes too long to compare
    /// counts as removed.
    #[inline]
    pub fn have_removed(&self, keyspace: &Keyspace, key: &[u8], changed_at: Option<u64>) -> bool {
        let is_later = |own: &&OwnPattern| changed_at.is_none_or(|at| own.sequence > at);
        if self.is_empty() {
            return false;
        }
        let (left, mut steps) = (STEPS.get(), STEPS.get().min(STEPS_MAX));
        let granted = steps;
        let is_removed = self.list.iter().filter(is_later).any(|own| own.matches(keyspace, key, &mut steps));
        STEPS.set(left - (granted - steps));
        is_removed
    }

    /// Releases a savepoint. Does not allocate.
    pub fn released(&mut self, depth: i32) {
        self.savepoints.release(depth);
    }

    /// Removes the patterns of a savepoint and of the savepoints inside it. Does not allocate.
    pub fn rolled_back(&mut self, depth: i32) {
        if let Some(first) = self.savepoints.roll_back(depth) {
            self.list.truncate(first);
        }
    }
}
