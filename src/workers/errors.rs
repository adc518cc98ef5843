//! Counts the errors of background workers, in the slot of the worker and in the statistics of the server.

use crate::pg::error::SqlState;
use crate::pg::shared;
use crate::pg::worker_slot::WorkerSlot;
use pg_cache_core::Event;

/// Notes that a step of the worker with this slot has ended with an error.
pub fn note(slot: &WorkerSlot, error: SqlState) {
    slot.note_error(error, shared::tick());
    if let Some(tier) = shared::tier() {
        tier.count_event(Event::WorkerFailed, 1);
    }
}
