//! The leases that a transaction holds: those that it has acquired, the keys that it has claimed, and the leases with which it has
//! set a value. The last two end when it commits.
//!
//! A lease takes effect at once. It is released when the transaction, or the savepoint in which it was acquired, is rolled back. An
//! acquired lease outlives the commit of its transaction, because its holder may compute the value in a later transaction or in
//! another session.

use super::change::OwnKey;
use super::savepoint::SavepointMarks;
use crate::pg::memory::OutOfMemory;
use crate::pg::queue;
use crate::store::status::Status;
use foldhash::fast::FixedState;
use std::collections::HashSet;

/// A lease or a claim of this transaction.
#[derive(Debug)]
struct HeldLease {
    key: OwnKey,
    number: u64,
    kind: Kind,
}

/// How a transaction came to hold a lease, which decides when the lease ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A lease that this transaction has acquired.
    Lease,
    /// A key that this transaction has claimed: no other transaction may set it with `mode => 'absent'` meanwhile.
    Claim,
    /// A lease with which this transaction has set a value, whichever session acquired it. It ends when the transaction commits.
    UsedLease,
}

/// The most leases and claims of one transaction. Only a transaction that loses track of its leases can reach it.
const HELD_MAX: usize = 1 << 16;

/// All leases and claims that a transaction holds.
#[derive(Debug)]
pub struct HeldLeases {
    /// The leases of inner savepoints come after those of outer ones. A lease that is not in `not_ended` has ended.
    list: Vec<HeldLease>,
    savepoints: SavepointMarks,
    /// The leases that have not ended.
    not_ended: HashSet<(u64, Kind), FixedState>,
}

/// Below this number of leases in the list, `tidy` is not worth its time.
const UNTIDY: usize = 64;

impl HeldLeases {
    pub const NONE: Self = Self {
        list: Vec::new(),
        savepoints: SavepointMarks::NONE,
        not_ended: HashSet::with_hasher(FixedState::with_seed(0)),
    };

    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && self.savepoints.is_empty()
    }

    /// Reserves memory for one more lease, so that `add` cannot fail. Returns an error if there are too many leases, or no
    /// memory.
    pub fn make_room(&mut self) -> Result<(), Status> {
        if self.list.len() >= 2 * self.not_ended.len() + UNTIDY {
            self.tidy();
        }
        if self.not_ended.len() >= HELD_MAX {
            return Err(Status::Refused("the transaction has too many leases and claims"));
        }
        let room = self.not_ended.try_reserve(1).and_then(|()| self.list.try_reserve(1));
        room.and_then(|()| self.savepoints.make_room()).map_err(|short| OutOfMemory::from(short).into())
    }

    /// Adds a lease, unless it is there already. The caller must have made [room](Self::make_room) for it.
    pub fn add(&mut self, key: OwnKey, number: u64, kind: Kind, depth: i32) {
        if self.not_ended.insert((number, kind)) {
            self.savepoints.add(depth, self.list.len());
            self.list.push(HeldLease { key, number, kind });
        }
    }

    pub fn has(&self, number: u64, kind: Kind) -> bool {
        self.not_ended.contains(&(number, kind))
    }

    /// Forgets a lease that has ended.
    pub fn forget_lease(&mut self, number: u64) {
        self.not_ended.remove(&(number, Kind::Lease));
    }

    /// Removes the leases that have ended. The time is proportional to the length of the list, so it must only be called when
    /// more than half of the leases have ended.
    fn tidy(&mut self) {
        let mut marks = self.savepoints.first_indexes().peekable();
        let (mut index, mut kept) = (0, 0);
        self.list.retain(|lease| {
            while let Some(mark) = marks.next_if(|mark| **mark <= index) {
                *mark = kept;
            }
            let stays = self.not_ended.contains(&(lease.number, lease.kind));
            (index, kept) = (index + 1, kept + usize::from(stays));
            stays
        });
        marks.for_each(|mark| *mark = kept);
    }

    /// Gives up the leases without ending them: the holders of their numbers can still use them. Does not allocate.
    pub fn hand_over_leases(&mut self) {
        self.not_ended.retain(|(_, kind)| *kind != Kind::Lease);
    }

    /// Ends the claims and the used leases after a commit. The leases that the transaction acquired stay. Does not allocate.
    pub fn committed(self) {
        self.end_all(Kind::Lease);
    }

    /// Ends the leases and the claims after an abort. A lease with which the transaction has set a value stays if the transaction
    /// did not acquire it itself, so its holder can set the value again. Does not allocate.
    pub fn aborted(self) {
        self.end_all(Kind::UsedLease);
    }

    /// Ends all leases except those of one kind.
    fn end_all(self, but: Kind) {
        let Self { list, not_ended, .. } = self;
        let ends = |lease: &HeldLease| lease.kind != but && not_ended.contains(&(lease.number, lease.kind));
        list.into_iter().filter(ends).for_each(HeldLease::end);
    }

    /// Releases a savepoint. Does not allocate.
    pub fn released(&mut self, depth: i32) {
        self.savepoints.release(depth);
    }

    /// Rolls back a savepoint and those inside it, and ends their leases and claims. Does not allocate.
    pub fn rolled_back(&mut self, depth: i32) {
        let Some(first) = self.savepoints.roll_back(depth) else { return };
        while self.list.len() > first
            && let Some(lease) = self.list.pop()
        {
            if self.not_ended.remove(&(lease.number, lease.kind)) && lease.kind != Kind::UsedLease {
                lease.end();
            }
        }
    }
}

impl HeldLease {
    fn end(self) {
        if let Some(key) = self.key.key() {
            self.key.keyspace.tier.release_lease(&key, self.number);
            queue::wake(self.key.hash);
        }
    }
}
