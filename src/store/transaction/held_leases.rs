//! The leases that a transaction holds: those that it has acquired, the keys that it has claimed, and the leases with which it has
//! set a value. The last two end when it commits. `pending.rs` owns the list.
//!
//! A *lease* is the right to compute the value of a key. It takes effect at once. It is released when the transaction, or the
//! savepoint in which it was acquired, is rolled back. An acquired lease outlives the commit of its transaction, because its holder
//! may compute the value in a later transaction or in another session.
//!
//! A *claim* is the right of a transaction to set a key that has no value, and a *fill* the right of a session to store the result
//! of a query that it runs. The tier, the cache in shared memory, counts them and leases as *flights* (`store/flights.rs`).

use super::change::OwnKey;
use super::savepoint::SavepointMarks;
use crate::pg::memory::OutOfMemory;
use crate::pg::queue;
use crate::store::status::Status;
use foldhash::fast::FixedState;
use std::collections::HashSet;

/// A lease, a fill or a claim of this transaction. In this file, lease stands for all of them.
#[derive(Debug)]
struct HeldLease {
    /// The key of the lease.
    key: OwnKey,
    /// The number of the flight in the tier (`store/flights.rs`).
    number: u64,
    /// How the transaction came to hold the lease.
    kind: Kind,
}

/// How a transaction came to hold a lease, which decides when the lease ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A lease that this transaction has acquired.
    Lease,
    /// A fill that this transaction has acquired. It ends with the call that runs the query, so it is left only after an error.
    Fill,
    /// A key that this transaction has claimed: no other transaction may set it with `mode => 'absent'` meanwhile.
    Claim,
    /// A lease with which this transaction has set a value, whichever session acquired it. It ends when the transaction commits.
    UsedLease,
}

/// The most leases and claims of one transaction that have not ended. It bounds the memory that they take.
const HELD_MAX: usize = 1 << 16;

/// All leases and claims that a transaction holds.
#[derive(Debug)]
pub struct HeldLeases {
    /// The leases of inner savepoints come after those of outer ones. A lease that is not in `not_ended` has ended.
    list: Vec<HeldLease>,
    /// The index in `list` at which each open savepoint begins.
    savepoints: SavepointMarks,
    /// The leases that have not ended.
    not_ended: HashSet<(u64, Kind), FixedState>,
}

/// `make_room` tidies the list once it has this many leases more than twice the number of those that have not ended. Before that,
/// `tidy` is not worth its time.
const UNTIDY: usize = 64;

impl HeldLeases {
    pub const NONE: Self = Self {
        list: Vec::new(),
        savepoints: SavepointMarks::NONE,
        not_ended: HashSet::with_hasher(FixedState::with_seed(0)),
    };

    /// Returns whether the transaction has no lease and no savepoint with leases, not even ended ones.
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

    /// Adds a lease, unless it is there already. `depth` must be that of the innermost open savepoint. The caller must have made
    /// [room](Self::make_room) for the lease.
    pub fn add(&mut self, key: OwnKey, number: u64, kind: Kind, depth: i32) {
        if self.not_ended.insert((number, kind)) {
            self.savepoints.add(depth, self.list.len());
            self.list.push(HeldLease { key, number, kind });
        }
    }

    /// Returns whether the transaction holds a lease that has not ended.
    pub fn has(&self, number: u64, kind: Kind) -> bool {
        self.not_ended.contains(&(number, kind))
    }

    /// Returns whether the transaction has a fill that has not ended.
    pub fn has_fill(&self) -> bool {
        self.not_ended.iter().any(|(_, kind)| *kind == Kind::Fill)
    }

    /// Forgets a lease of this kind that has ended.
    pub fn forget(&mut self, number: u64, kind: Kind) {
        self.not_ended.remove(&(number, kind));
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

    /// Gives up the acquired leases without ending them, because the transaction was prepared: the holders of their numbers can
    /// still use them. The caller must then call [`aborted`](Self::aborted), which ends the claims and keeps the used leases: the
    /// values that a prepared transaction has set are dropped. Does not allocate.
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

    /// Ends all leases and claims except those of the kind `but`.
    fn end_all(self, but: Kind) {
        let Self { list, not_ended, .. } = self;
        let ends = |lease: &HeldLease| lease.kind != but && not_ended.contains(&(lease.number, lease.kind));
        list.into_iter().filter(ends).for_each(HeldLease::end);
    }

    /// Releases the savepoint of this depth: its leases now belong to the level above it. Does not allocate.
    pub fn released(&mut self, depth: i32) {
        self.savepoints.release(depth);
    }

    /// Rolls back the savepoint of this depth and those inside it, and ends the leases and claims that were acquired in them. A
    /// lease that was only used in them stays. Does not allocate.
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
    /// Ends the lease in the tier, and wakes the sessions that wait for its key. A fill has failed.
    fn end(self) {
        if let Some(key) = self.key.key() {
            match self.kind {
                Kind::Fill => self.key.keyspace.tier.fail_fill(&key, self.number, 1),
                _ => self.key.keyspace.tier.release_lease(&key, self.number),
            };
            queue::wake(self.key.hash);
        }
    }
}
