//! What a transaction is entitled to: leases that it was given, keys that it has claimed, leases that it will land at its commit.
//!
//! They are given at once, and taken back when the transaction, or the savepoint, is rolled back in which they were given. A lease
//! outlives the commit of its transaction, because whoever computes may go on in another one, or in another session.

use crate::pg::queue;
use crate::store::change::OwnKey;
use std::collections::BTreeSet;

/// A lease or a claim of this transaction.
#[derive(Debug)]
struct Right {
    key: OwnKey,
    number: u64,
    kind: Kind,
    depth: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A lease that this transaction was given.
    Lease,
    /// A key that it is to be the first to set.
    Claim,
    /// A lease, whoever was given it, with which it has set a value. It ends when the transaction commits.
    Landing,
}

/// More than anybody needs who has not forgotten what he was given.
const RIGHTS_MAX: usize = 1 << 16;

/// All of a transaction.
#[derive(Debug)]
pub struct Rights {
    /// Those of inner savepoints behind those of outer ones.
    list: Vec<Right>,
    known: BTreeSet<(u64, Kind)>,
}

impl Rights {
    pub const NONE: Self = Self { list: Vec::new(), known: BTreeSet::new() };

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn has_room(&self) -> bool {
        self.list.len() < RIGHTS_MAX
    }

    /// Notes one, each once.
    pub fn add(&mut self, key: OwnKey, number: u64, kind: Kind, depth: i32) {
        if self.known.insert((number, kind)) {
            self.list.push(Right { key, number, kind, depth });
        }
    }

    pub fn has(&self, number: u64, kind: Kind) -> bool {
        self.known.contains(&(number, kind))
    }

    /// Forgets a lease that has ended.
    pub fn forget_lease(&mut self, number: u64) {
        if self.known.remove(&(number, Kind::Lease)) {
            self.list.retain(|right| (right.number, right.kind) != (number, Kind::Lease));
        }
    }

    /// Leaves the leases to whoever knows them.
    pub fn hand_over_leases(&mut self) {
        self.list.retain(|right| right.kind != Kind::Lease);
        self.known.retain(|(_, kind)| *kind != Kind::Lease);
    }

    /// The transaction has committed: what it has set has landed.
    pub fn committed(self) {
        self.list.into_iter().filter(|right| right.kind != Kind::Lease).for_each(|right| right.end());
    }

    /// It has been rolled back. Who was to land it may still do so, unless the lease was this transaction's.
    pub fn aborted(self) {
        self.list.into_iter().filter(|right| right.kind != Kind::Landing).for_each(|right| right.end());
    }

    /// A savepoint of this depth has been released.
    pub fn released(&mut self, depth: i32) {
        let inner = self.list.iter_mut().rev().take_while(|right| right.depth >= depth);
        inner.for_each(|right| right.depth = depth - 1);
    }

    /// It has been rolled back, with those inside of it.
    pub fn rolled_back(&mut self, depth: i32) {
        while let Some(right) = self.list.pop_if(|right| right.depth >= depth) {
            self.known.remove(&(right.number, right.kind));
            if right.kind != Kind::Landing {
                right.end();
            }
        }
    }
}

impl Right {
    fn end(self) {
        if let Some(key) = self.key.key() {
            self.key.place.tier.release_lease(&key, self.number);
            queue::wake(self.key.hash);
        }
    }
}
