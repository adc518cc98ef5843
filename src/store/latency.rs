//! Times some of the operations of a session, for `cache_latency` and the metrics.
//!
//! Reading the clock twice takes about a fifth of the time of a hit. So a session does not time each short operation, but one of
//! every 64 (`pg_cache.track_latency`). The times are in the *slot* of the session's own backend, its part of the statistics in
//! shared memory (`figures/latency.rs` of the core), so timing writes to no word that other backends write.

use crate::pg::local::local;
use crate::pg::{settings, shared};
use pg_cache_core::Operation;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// The short operations, of which only some are timed.
#[derive(Clone, Copy, Debug)]
pub enum ShortOperation {
    Get,
    Query,
    Set,
}

local! {
    /// How many operations of each kind have passed since the last one that was timed.
    static PASSED: [Cell<u32>; 3] = [const { Cell::new(0) }; 3];
}

/// Begins an operation. Returns the time if the operation is to be timed: then the caller must pass it to [`end`], unless the
/// operation does not count, such as a miss.
#[inline(always)]
pub fn begin(operation: ShortOperation) -> Option<Instant> {
    let every = settings::track_latency();
    let passed = &PASSED[operation as usize];
    let number = passed.get().wrapping_add(1);
    if number < every {
        passed.set(number);
        return None;
    }
    begin_timed(passed, every)
}

#[cold]
#[inline(never)]
fn begin_timed(passed: &Cell<u32>, every: u32) -> Option<Instant> {
    passed.set(0);
    (every > 0).then(Instant::now)
}

/// Counts an operation that began at this time and ends now.
#[cold]
#[inline(never)]
pub fn end(began: Instant, operation: Operation) {
    count(operation, began.elapsed());
}

/// Counts a long operation, unless nothing is timed.
pub fn end_long(operation: Operation, took: Duration) {
    if settings::track_latency() > 0 {
        count(operation, took);
    }
}

fn count(operation: Operation, took: Duration) {
    if let Some(tier) = shared::tier() {
        tier.count_latency(operation, took);
    }
}
