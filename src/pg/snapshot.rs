//! Whether the snapshot of the statement that runs is newer than a moment.
//!
//! A value that is stored under a lease is right as of the lease only if the snapshot it was computed on was taken after the lease was
//! acquired. Two facts prove that:
//!
//! - *The statement began later.* All snapshots of a message from the client are taken after the message arrived, and all snapshots of a
//!   cursor, which may outlive its message, after the cursor was opened. (REPEATABLE READ is the business of `store/horizon.rs`.)
//! - *The snapshot sees as much.* Within one message, for instance in a function that acquires a lease and goes on to compute, the session
//!   remembers what a new snapshot looked like when it acquired its latest lease. A snapshot that sees everything that one saw is as good.
//!
//! The first fact compares times of the system's clock. If the clock is set back while a statement runs, and that statement is then handed
//! a lease that another session acquired meanwhile, the comparison is wrong. The session's own leases do not depend on the clock.

#![allow(unsafe_code)]

use super::allocator;
use super::local::local;
use pgrx::prelude::*;
use std::cell::RefCell;

/// What a snapshot could see that was taken after a moment.
struct Sight {
    moment: u64,
    /// Transactions from this number on had not ended.
    end: u32,
    /// Transactions before `end` that had not ended either, in order.
    running: Vec<u32>,
}

local! {
    static LATEST: RefCell<Sight> = RefCell::new(Sight { moment: 0, end: 0, running: Vec::new() });
}

/// Remembers what a new snapshot sees, which is all that was committed before a moment that has passed. May raise an error.
pub fn remember(moment: u64) {
    // SAFETY: a plain question. The server takes no snapshot of its own choosing while a query runs in parallel.
    if unsafe { pg_sys::IsInParallelMode() } {
        return;
    }
    // SAFETY: as a transaction in which a query runs may ask for a new snapshot. It stands until the next one is asked for.
    let snapshot = unsafe { &*pg_sys::GetLatestSnapshot() };
    LATEST.with_borrow_mut(|latest| {
        // What cannot be remembered is as if it had not been.
        latest.moment = 0;
        latest.running.clear();
        let has_room = latest.running.try_reserve(snapshot.xcnt as usize).is_ok();
        if allocator::is_short() {
            // What the session remembers must not lie in the reserve.
            latest.running = Vec::new();
        } else if has_room {
            latest.running.extend(running(snapshot));
            latest.running.sort_unstable();
            latest.end = snapshot.xmax.into_inner();
            latest.moment = moment;
        }
    });
}

/// Whether what the statement computes is certain to include all that was committed before a moment.
pub fn is_newer_than(moment: u64) -> bool {
    if began() > moment {
        return true;
    }
    // SAFETY: plain questions; the snapshot stays while the statement runs that it was taken for, and we only look at it here.
    let active = unsafe { pg_sys::ActiveSnapshotSet().then(|| &*pg_sys::GetActiveSnapshot()) };
    active.is_some_and(|active| {
        LATEST.with_borrow(|latest| latest.moment >= moment && sees_all_of(active, latest))
    })
}

/// When the statement began, or the cursor was opened that it is read through.
fn began() -> u64 {
    // SAFETY: a plain question, and a plain global: null, or a portal that lives while it runs.
    let (message, portal) =
        unsafe { (pg_sys::GetCurrentStatementStartTimestamp(), pg_sys::ActivePortal.as_ref()) };
    let began = portal.map_or(message, |portal| portal.creation_time.min(message));
    u64::try_from(began).unwrap_or(0)
}

/// Whether a snapshot sees every transaction ended that had ended in a sight. Savepoints end with their transactions, so the numbers of
/// transactions are enough.
fn sees_all_of(snapshot: &pg_sys::SnapshotData, sight: &Sight) -> bool {
    let is_usual =
        snapshot.snapshot_type == pg_sys::SnapshotType::SNAPSHOT_MVCC && !snapshot.takenDuringRecovery;
    is_usual
        && !precedes(snapshot.xmax.into_inner(), sight.end)
        && running(snapshot)
            .filter(|number| precedes(*number, sight.end))
            .all(|number| sight.running.binary_search(&number).is_ok())
}

/// The transactions that had not ended when a snapshot was taken, but for the session's own.
fn running(snapshot: &pg_sys::SnapshotData) -> impl Iterator<Item = u32> {
    let (first, count) = (snapshot.xip, snapshot.xcnt as usize);
    // SAFETY: the snapshot has so many numbers there.
    (0..count).map(move |place| unsafe { *first.add(place) }.into_inner())
}

/// Whether a transaction has an earlier number than another: numbers go round, and none that matters is half a round away.
fn precedes(one: u32, other: u32) -> bool {
    (one.wrapping_sub(other) as i32) < 0
}
