//! Moments on the clock of the tier, which is the cache in shared memory, in ticks since the clock began. A tick is 50 ms
//! (`clock.rs`). Without a cache the clock has no beginning, and the results have no meaning.

#![allow(unsafe_code)]

use super::control::{CONTROL, began_ms};
use crate::pg::clock;
use pgrx::pg_sys;
use std::sync::atomic::Ordering;

/// Returns the present tick.
pub fn tick() -> u32 {
    clock::tick(began_ms())
}

/// Returns the tick at which a time to live ends that begins now.
pub fn tick_in(ms: u64) -> u32 {
    clock::tick_in(began_ms(), ms)
}

/// Converts milliseconds to ticks, rounded down, but at least 1.
pub fn ticks(ms: u64) -> u32 {
    clock::ticks(ms)
}

/// Returns the first tick of which every moment is at most so many milliseconds ago. None if `ms` is so small that the present tick
/// may have begun earlier than that.
pub fn tick_before(ms: u64) -> Option<u32> {
    clock::tick_before(began_ms(), ms)
}

/// Converts ticks to milliseconds.
pub fn ms_of(ticks: u32) -> u64 {
    clock::ms_of(ticks)
}

/// Returns the milliseconds since a tick; 0 if the tick has not come yet.
pub fn ms_since(tick: u32) -> u64 {
    clock::ms_since(began_ms(), tick)
}

/// Returns the milliseconds from now until a tick; 0 if the tick is over.
pub fn ms_until(tick: u32) -> u64 {
    clock::ms_until(began_ms(), tick)
}

/// Returns the time at which a tick began, in microseconds since 2000. Each tick has one time, whenever it is asked for: if the
/// system's clock is set after the server has started, the times are those of the clock as it was set before.
pub fn time_of(tick: u32) -> pg_sys::TimestampTz {
    // The pointer is null if the server has no cache. The result then has no meaning.
    let control = CONTROL.load(Ordering::Relaxed);
    // SAFETY: `start_up` has set the pointer to memory that exists as long as shared memory does.
    let began_at = if control.is_null() { 0 } else { unsafe { &*control }.began_at.load(Ordering::Relaxed) };
    began_at + clock::ms_of(tick) as i64 * 1000
}
