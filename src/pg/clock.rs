//! Time in ticks that never go back, even if the system's clock is changed.
//!
//! A lifetime ends at a tick. Rounding shortens a lifetime by less than 100 ms and never extends it: an entry is never served after its
//! time.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds per tick. The server's uptime and an entry's lifetime together must fit into 32 bits of ticks, which are 6.8 years.
const TICK_MS: u64 = 50;
/// How far the clock may lag behind: the kernel updates it with its timer, at least a hundred times a second.
const LAG_MS: u64 = 10;

/// Returns milliseconds on a clock that only goes forward; it began at some moment before the server started. Reading it needs no system
/// call, and it is as coarse as the kernel's timer.
pub fn now_ms() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// Returns the present time on the clock by which the server reports when a statement began: microseconds since 2000. Unlike the other
/// clocks here, this one goes back when the system's clock is set back.
pub fn statement_clock() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    let seconds = (time.tv_sec as u64).saturating_sub(SECONDS_TO_2000);
    seconds * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// Seconds from the system's epoch (1970) to the server's (2000).
const SECONDS_TO_2000: u64 = 10_957 * 24 * 60 * 60;

/// Returns the present tick of a clock that began at `began_ms`.
#[inline]
pub fn tick(began_ms: u64) -> u32 {
    (now_ms().saturating_sub(began_ms) / TICK_MS) as u32
}

/// Returns the tick at which a lifetime ends that begins now. The clock's lag is subtracted, because a reader's clock may be that much
/// behind.
pub fn tick_in(began_ms: u64, lifetime_ms: u64) -> u32 {
    let end = now_ms().saturating_sub(began_ms) + lifetime_ms;
    u32::try_from(end.saturating_sub(LAG_MS) / TICK_MS).unwrap_or(u32::MAX)
}

/// Converts milliseconds to ticks, rounded down, but at least 1.
pub fn ticks(ms: u64) -> u32 {
    u32::try_from((ms / TICK_MS).max(1)).unwrap_or(u32::MAX)
}

/// Returns the milliseconds from the beginning of the clock to a tick.
pub fn ms_of(tick: u32) -> u64 {
    u64::from(tick) * TICK_MS
}

/// Returns the milliseconds since a tick; 0 if the tick has not come yet.
pub fn ms_since(began_ms: u64, tick: u32) -> u64 {
    now_ms().saturating_sub(began_ms).saturating_sub(u64::from(tick) * TICK_MS)
}

/// Returns the milliseconds from now until a tick; 0 if the tick is over.
pub fn ms_until(began_ms: u64, tick: u32) -> u64 {
    (u64::from(tick) * TICK_MS).saturating_sub(now_ms().saturating_sub(began_ms))
}
