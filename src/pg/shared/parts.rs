//! The parts of shared memory beside the tier, which is the cache itself: queues, names, sleepers, the state of background workers,
//! the list of warmers and the table of observed statements. `layout.rs` says what each is and where it lies, and a new part needs
//! a place there first. A *warmer* is a query whose result a background worker keeps stored.
//!
//! A *fence* is the word in shared memory that says when a dependency of values last changed.

#![allow(unsafe_code)]

use super::control::CONTROL;
use super::host::{LWLockAcquire, LWLockRelease, NAME};
use super::layout::{
    QUEUES, names, observed_at, queues, redis_state_at, sizes, sleepers, waits_at, warm_list_at, workers,
};
use super::process::{database, slot};
use super::tier::tier;
use crate::pg::condition::Condition;
use crate::pg::name_slot::{NAME_SLOTS, Slot};
use crate::pg::observed::Observed;
use crate::pg::redis_state::RedisState;
use crate::pg::sleepers::Sleepers;
use crate::pg::warm_list::WarmList;
use crate::pg::worker_slot::{DATABASE_SLOTS, WORKER_SLOTS, WorkerSlot};
use pgrx::pg_sys;
use std::sync::atomic::{AtomicU64, Ordering};

/// Returns a word for each backend, by its slot: the process that it waits for, or 0 (`deadlock.rs`). Empty if there is no cache.
pub fn waits() -> &'static [AtomicU64] {
    let control = CONTROL.load(Ordering::Relaxed);
    if control.is_null() {
        return &[];
    }
    let sizes = sizes();
    // SAFETY: `start_up` has formatted the words, and they exist as long as shared memory does. The sizes are those of `start_up`.
    unsafe { std::slice::from_raw_parts(waits_at(control, sizes), sizes.backends as usize) }
}

/// Returns the slot of the launcher. None if there is no cache.
pub fn launcher_slot() -> Option<&'static WorkerSlot> {
    worker_slots().next()
}

/// Returns the slot of the Redis worker. None if there is no cache.
pub fn redis_slot() -> Option<&'static WorkerSlot> {
    worker_slots().nth(1)
}

/// Returns the slots of the workers of databases.
pub fn database_slots() -> impl Iterator<Item = &'static WorkerSlot> {
    worker_slots().skip(2).take(DATABASE_SLOTS)
}

/// Returns the slots of the workers that run warmers.
pub fn warmer_slots() -> impl Iterator<Item = &'static WorkerSlot> {
    worker_slots().skip(2 + DATABASE_SLOTS)
}

/// Returns the list of warmers. None if there is no cache.
pub fn warm_list() -> Option<&'static WarmList> {
    let control = CONTROL.load(Ordering::Relaxed);
    // SAFETY: `start_up` has formatted it, and it exists as long as shared memory does.
    (!control.is_null()).then(|| unsafe { &*warm_list_at(control) })
}

/// Calls `with` with the table of observed statements, while this process holds the table's lock. `with` must not call the server
/// and must not panic. Returns None if there is no cache, or if the server is in recovery.
pub fn with_observed<R>(with: impl FnOnce(&Observed) -> R) -> Option<R> {
    let shards = tier()?.shards();
    let control = CONTROL.load(Ordering::Relaxed);
    if control.is_null() {
        return None;
    }
    // SAFETY: the tranche has a lock for each shard and one more (`request`). The table was formatted by `start_up`, and exists as
    // long as shared memory does. This process holds no other lock of the tranche, and `with` raises no error.
    unsafe {
        let lock = &raw mut (*pg_sys::GetNamedLWLockTranche(NAME.as_ptr()).add(shards as usize)).lock;
        LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let result = with(&*observed_at(control));
        LWLockRelease(lock);
        Some(result)
    }
}

/// Returns the state of the Redis worker. None if there is no cache.
pub fn redis_state() -> Option<&'static RedisState> {
    let control = CONTROL.load(Ordering::Relaxed);
    // SAFETY: `start_up` has formatted it, and it exists as long as shared memory does.
    (!control.is_null()).then(|| unsafe { &*redis_state_at(control) })
}

/// Returns the slots of all background workers: the launcher's, the Redis worker's, those of the workers of databases, and those of
/// the workers that run warmers. There are none if there is no cache.
pub fn worker_slots() -> impl Iterator<Item = &'static WorkerSlot> {
    let control = CONTROL.load(Ordering::Relaxed);
    let count = if control.is_null() { 0 } else { WORKER_SLOTS };
    // SAFETY: `start_up` has formatted the slots, and they exist as long as shared memory does.
    (0..count).map(move |index| unsafe { &*workers(control).add(index) })
}

/// Asks that the next change in this process's database wakes this process; in a process without a database, the next change in any
/// database does. The process must look for changes between this call and its sleep. It must not rely on being woken: another
/// process may replace it.
pub fn wake_on_change() {
    if let Some(sleepers) = known_sleepers() {
        sleepers.arm(database(), slot());
    }
}

/// Wakes the processes that wait for changes in this database. The change must have been written to the journal before. Bounded,
/// cannot fail and does not allocate.
#[inline]
pub fn wake_sleepers() {
    if let Some(sleepers) = known_sleepers() {
        sleepers.take(database(), set_latch);
    }
}

#[inline]
fn known_sleepers() -> Option<&'static Sleepers> {
    let control = CONTROL.load(Ordering::Relaxed);
    // SAFETY: `start_up` has formatted them, and they exist as long as shared memory does.
    (!control.is_null()).then(|| unsafe { &*sleepers(control) })
}

#[cold]
fn set_latch(number: u32) {
    // SAFETY: a number of a process that has stored it itself. The list exists as long as shared memory does. The process may have
    // ended: then its place is free or belongs to another one, and a latch that is set for no reason does no harm.
    unsafe { pg_sys::SetLatch(&raw mut (*(*pg_sys::ProcGlobal).allProcs.add(number as usize)).procLatch) };
}

/// Returns the slot for the name of the tag or definition that a fence belongs to. Several fences share a slot, so the caller must
/// check that the slot holds the name of this fence (`name_slot.rs`). None if there is no cache.
pub fn name_slot(fence_number: u32) -> Option<&'static Slot> {
    let control = CONTROL.load(Ordering::Relaxed);
    // SAFETY: `start_up` has formatted the slots, and they exist as long as shared memory does.
    (!control.is_null()).then(|| unsafe { &*names(control).add(fence_number as usize % NAME_SLOTS) })
}

/// Returns the queue of the sessions that wait for a key with this hash. Keys share queues, so a session may be woken by a change
/// of another key. None if there is no cache.
pub fn queue(hash: u64) -> Option<&'static Condition> {
    let control = CONTROL.load(Ordering::Relaxed);
    // SAFETY: `start_up` has formatted the queues, and they exist as long as shared memory does.
    (!control.is_null()).then(|| unsafe { &*queues(control).add((hash % QUEUES as u64) as usize) })
}
