//! Decides whether the snapshot of the running statement is newer than a given moment. A *moment* is a time on the system's clock,
//! in microseconds since 2000 (`clock::statement_clock`).
//!
//! A *lease* is the right of a caller to compute a value and to set it (`cache_acquire`). A value that is stored under a lease is
//! as new as the lease only if it was computed on a snapshot that was taken after the lease was acquired. Either of two facts
//! proves that:
//!
//! - *The statement began later.* All snapshots of a client's message are taken after the message arrived. All snapshots of a
//!   cursor, which may outlive its message, are taken after the cursor was opened. (`store/transaction/safe_stamp.rs` handles
//!   REPEATABLE READ.)
//! - *The snapshot sees as much.* Within one message, a function may acquire a lease and go on to compute. When the session
//!   acquires a lease, it remembers what a new snapshot saw at that time. A snapshot that sees all of that is as good. Only the
//!   latest lease is remembered.
//!
//! The first fact compares times of the system's clock. The comparison is wrong in one case: the clock is set back while a
//! statement runs, and the statement then gets a lease that another session acquired meanwhile. Leases that the session acquired
//! itself do not depend on the clock.

#![allow(unsafe_code)]

use super::allocator;
use super::local::local;
use pgrx::prelude::*;
use std::cell::RefCell;

/// A snapshot that was taken after `moment`: it sees the end of every transaction except those that are named here.
struct SeenBySnapshot {
    /// 0 if nothing is remembered.
    moment: u64,
    /// Transactions with this id or a later one had not ended (the snapshot's xmax).
    end: u32,
    /// Sorted ids of the transactions before `end` that had not ended either.
    running: Vec<u32>,
}

local! {
    /// The snapshot that was remembered last.
    static LATEST: RefCell<SeenBySnapshot> = RefCell::new(SeenBySnapshot { moment: 0, end: 0, running: Vec::new() });
}

/// Remembers what a new snapshot sees: at least all that was committed before `moment`, which must have passed. Must be called
/// within a transaction that takes a new snapshot for each statement. May raise an error.
pub fn remember(moment: u64) {
    // SAFETY: only reads a variable. The server takes no new snapshot while a query runs in parallel.
    if unsafe { pg_sys::IsInParallelMode() } {
        return;
    }
    // SAFETY: a transaction that runs a query may ask for a new snapshot. The snapshot stays valid until the next one is asked for.
    let snapshot = unsafe { &*pg_sys::GetLatestSnapshot() };
    LATEST.with_borrow_mut(|latest| {
        // Moment 0 means that nothing is remembered. It stays if there is no memory for the list.
        latest.moment = 0;
        latest.running.clear();
        let has_room = latest.running.try_reserve(snapshot.xcnt as usize).is_ok();
        if allocator::is_short() {
            // A list that lives as long as the session must not occupy the allocator's reserve.
            latest.running = Vec::new();
        } else if has_room {
            latest.running.extend(running(snapshot));
            latest.running.sort_unstable();
            latest.end = snapshot.xmax.into_inner();
            latest.moment = moment;
        }
    });
}

/// Returns whether the result of the running statement certainly includes all that was committed before `moment`.
pub fn is_newer_than(moment: u64) -> bool {
    if began() > moment {
        return true;
    }
    // SAFETY: only reads variables. The active snapshot stays valid while its statement runs, and is only read here.
    let active = unsafe { pg_sys::ActiveSnapshotSet().then(|| &*pg_sys::GetActiveSnapshot()) };
    active.is_some_and(|active| {
        LATEST.with_borrow(|latest| latest.moment >= moment && sees_all_of(active, latest))
    })
}

/// Returns when the statement began, or when the cursor that reads it was opened, if that was earlier.
fn began() -> u64 {
    // SAFETY: reads a variable, and a pointer that is null or points to a portal that lives while it runs.
    let (message, portal) =
        unsafe { (pg_sys::GetCurrentStatementStartTimestamp(), pg_sys::ActivePortal.as_ref()) };
    let began = portal.map_or(message, |portal| portal.creation_time.min(message));
    u64::try_from(began).unwrap_or(0)
}

/// Returns whether a snapshot sees the end of every transaction that had ended in `seen`. Returns false for a snapshot of another
/// kind, or from recovery, because its lists have another meaning. Savepoints end with their transactions, so the ids of
/// transactions suffice.
fn sees_all_of(snapshot: &pg_sys::SnapshotData, seen: &SeenBySnapshot) -> bool {
    let is_usual =
        snapshot.snapshot_type == pg_sys::SnapshotType::SNAPSHOT_MVCC && !snapshot.takenDuringRecovery;
    is_usual
        && !precedes(snapshot.xmax.into_inner(), seen.end)
        && running(snapshot)
            .filter(|xid| precedes(*xid, seen.end))
            .all(|xid| seen.running.binary_search(&xid).is_ok())
}

/// Returns the transactions with ids before the snapshot's xmax that had not ended when it was taken, except the session's own.
fn running(snapshot: &pg_sys::SnapshotData) -> impl Iterator<Item = u32> {
    let (first, count) = (snapshot.xip, snapshot.xcnt as usize);
    // SAFETY: the snapshot's array `xip` has `xcnt` elements.
    (0..count).map(move |index| unsafe { *first.add(index) }.into_inner())
}

/// Returns whether a transaction id precedes another. Ids wrap around; any two that matter are less than half the range apart.
fn precedes(one: u32, other: u32) -> bool {
    (one.wrapping_sub(other) as i32) < 0
}

/// The transactions that had a transaction ID when this value was made by [`new`](Self::new). The launcher of background workers
/// waits for their end before it takes a role for dropped, because one of them may be creating the role (`workers/warmth.rs`).
#[derive(Clone, Copy, Debug)]
pub struct EarlierTransactions {
    /// The next transaction ID at that time.
    end: pg_sys::TransactionId,
}

impl EarlierTransactions {
    /// Must be called within a transaction.
    pub fn new() -> Self {
        // The `xmax` of a snapshot is not this number: it follows the last transaction that has ended, and later ones may run.
        // SAFETY: reads a number in shared memory, under its lock.
        let next = unsafe { pg_sys::ReadNextFullTransactionId() };
        // The lower half of the number is the transaction ID.
        Self { end: pg_sys::TransactionId::from_inner(next.value as u32) }
    }

    /// Returns whether all these transactions have ended. Must be called within a transaction.
    pub fn have_ended(self) -> bool {
        // SAFETY: called within a transaction. The server returns a snapshot of its own, with the transactions of all databases.
        // The second function compares two numbers.
        unsafe { !pg_sys::TransactionIdPrecedes((*pg_sys::GetLatestSnapshot()).xmin, self.end) }
    }
}
