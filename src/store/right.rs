//! What a transaction is entitled to: leases that it was given, keys that it has claimed, leases that it will land at its commit.
//!
//! They are given at once, and taken back when the transaction, or the savepoint, is rolled back in which they were given. A lease
//! outlives the commit of its transaction, because whoever computes may go on in another one, or in another session.

use crate::pg::memory::OutOfMemory;
use crate::pg::queue;
use crate::store::change::OwnKey;
use crate::store::savepoint::Savepoints;
use crate::store::status::Status;
use foldhash::fast::FixedState;
use std::collections::HashSet;

/// A lease or a claim of this transaction.
#[derive(Debug)]
struct Right {
    key: OwnKey,
    number: u64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// Those of inner savepoints behind those of outer ones. What is not among those known is over.
    list: Vec<Right>,
    savepoints: Savepoints,
    known: HashSet<(u64, Kind), FixedState>,
}

/// So few rights that are over are never worth removing.
const UNTIDY: usize = 64;

impl Rights {
    pub const NONE: Self = Self {
        list: Vec::new(),
        savepoints: Savepoints::NONE,
        known: HashSet::with_hasher(FixedState::with_seed(0)),
    };

    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && self.savepoints.is_empty()
    }

    /// Makes room for one more, which can be added then. An error if there are too many, or no memory.
    pub fn make_room(&mut self) -> Result<(), Status> {
        if self.list.len() >= 2 * self.known.len() + UNTIDY {
            self.tidy();
        }
        if self.known.len() >= RIGHTS_MAX {
            return Err(Status::Refused("the transaction has too many leases and claims"));
        }
        let room = self.known.try_reserve(1).and_then(|()| self.list.try_reserve(1));
        room.and_then(|()| self.savepoints.make_room()).map_err(|short| OutOfMemory::from(short).into())
    }

    /// Notes one, each once. There is [room](Self::make_room) for it.
    pub fn add(&mut self, key: OwnKey, number: u64, kind: Kind, depth: i32) {
        if self.known.insert((number, kind)) {
            self.savepoints.add(depth, self.list.len());
            self.list.push(Right { key, number, kind });
        }
    }

    pub fn has(&self, number: u64, kind: Kind) -> bool {
        self.known.contains(&(number, kind))
    }

    /// Forgets a lease that has ended.
    pub fn forget_lease(&mut self, number: u64) {
        self.known.remove(&(number, Kind::Lease));
    }

    /// Removes those that are over. Takes time for all, so it is called when more than half of them are.
    fn tidy(&mut self) {
        let mut marks = self.savepoints.places().peekable();
        let (mut place, mut kept) = (0, 0);
        self.list.retain(|right| {
            while let Some(mark) = marks.next_if(|mark| **mark <= place) {
                *mark = kept;
            }
            let stays = self.known.contains(&(right.number, right.kind));
            (place, kept) = (place + 1, kept + usize::from(stays));
            stays
        });
        marks.for_each(|mark| *mark = kept);
    }

    /// Leaves the leases to whoever knows them. Does not allocate.
    pub fn hand_over_leases(&mut self) {
        self.known.retain(|(_, kind)| *kind != Kind::Lease);
    }

    /// The transaction has committed: what it has set has landed. Does not allocate.
    pub fn committed(self) {
        self.end_all(Kind::Lease);
    }

    /// It has been rolled back. Who was to land it may still do so, unless the lease was this transaction's. Does not allocate.
    pub fn aborted(self) {
        self.end_all(Kind::Landing);
    }

    /// Ends all but those of a kind.
    fn end_all(self, but: Kind) {
        let Self { list, known, .. } = self;
        let ends = |right: &Right| right.kind != but && known.contains(&(right.number, right.kind));
        list.into_iter().filter(ends).for_each(Right::end);
    }

    /// A savepoint is released. Does not allocate.
    pub fn released(&mut self, depth: i32) {
        self.savepoints.release(depth);
    }

    /// A savepoint is rolled back, with those inside of it. Does not allocate.
    pub fn rolled_back(&mut self, depth: i32) {
        let Some(first) = self.savepoints.roll_back(depth) else { return };
        while self.list.len() > first
            && let Some(right) = self.list.pop()
        {
            if self.known.remove(&(right.number, right.kind)) && right.kind != Kind::Landing {
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
