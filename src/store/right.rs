//! The rights of a transaction: leases that it has acquired, keys that it has claimed, and leases that end when it commits.
//!
//! A right takes effect at once. It is taken back when the transaction, or the savepoint in which it was given, is rolled back. A
//! lease outlives the commit of its transaction, because its holder may compute the value in a later transaction or in another
//! session.

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

/// The kind of a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A lease that this transaction has acquired.
    Lease,
    /// A key that this transaction has claimed: no other transaction may set it with `mode => 'absent'` meanwhile.
    Claim,
    /// A lease with which this transaction has set a value, whichever session acquired it. It ends when the transaction commits.
    Landing,
}

/// The most leases and claims of one transaction. Only a transaction that loses track of its leases can reach it.
const RIGHTS_MAX: usize = 1 << 16;

/// All rights of a transaction.
#[derive(Debug)]
pub struct Rights {
    /// The rights of inner savepoints come after those of outer ones. A right that is not in `known` has ended.
    list: Vec<Right>,
    savepoints: Savepoints,
    /// The rights that have not ended.
    known: HashSet<(u64, Kind), FixedState>,
}

/// Below this number of rights in the list, `tidy` is not worth its time.
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

    /// Reserves memory for one more right, so that `add` cannot fail. Returns an error if there are too many rights, or no
    /// memory.
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

    /// Adds a right, unless it is there already. The caller must have made [room](Self::make_room) for it.
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

    /// Removes the rights that have ended. The time is proportional to the length of the list, so it must only be called when
    /// more than half of the rights have ended.
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

    /// Gives up the leases without ending them: the holders of their numbers can still use them. Does not allocate.
    pub fn hand_over_leases(&mut self) {
        self.known.retain(|(_, kind)| *kind != Kind::Lease);
    }

    /// Ends the claims and the landings after a commit. The leases that the transaction acquired stay. Does not allocate.
    pub fn committed(self) {
        self.end_all(Kind::Lease);
    }

    /// Ends the leases and the claims after an abort. A lease with which the transaction has set a value stays if the transaction
    /// did not acquire it itself, so its holder can set the value again. Does not allocate.
    pub fn aborted(self) {
        self.end_all(Kind::Landing);
    }

    /// Ends all rights except those of one kind.
    fn end_all(self, but: Kind) {
        let Self { list, known, .. } = self;
        let ends = |right: &Right| right.kind != but && known.contains(&(right.number, right.kind));
        list.into_iter().filter(ends).for_each(Right::end);
    }

    /// Releases a savepoint. Does not allocate.
    pub fn released(&mut self, depth: i32) {
        self.savepoints.release(depth);
    }

    /// Rolls back a savepoint and those inside it, and ends their leases and claims. Does not allocate.
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
