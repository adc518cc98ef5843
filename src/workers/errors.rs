//! Counts the errors of background workers in two places in shared memory: in the slot of the worker (`pg/worker_slot.rs`), for the
//! view `cache_workers`, and in the event counters of pg_cache, for the metrics.

use crate::pg::error::SqlState;
use crate::pg::shared;
use crate::pg::worker_slot::WorkerSlot;
use pg_cache_core::Event;

/// Notes that a step of the worker with this slot has ended with an error. The slot also keeps the SQLSTATE and the time of the
/// last error. Without a tier ([`shared::tier`]), only the slot counts the error.
pub fn note(slot: &WorkerSlot, error: SqlState) {
    slot.note_error(error, shared::tick());
    if let Some(tier) = shared::tier() {
        tier.count_event(Event::WorkerFailed, 1);
    }
}
