//! Time in ticks that never go back, whatever happens to the system's clock.
//!
//! A lifetime ends at a tick. What is lost by rounding is less than 100 ms, and always on the same side: an entry is served until
//! that long before its time, and never after it.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds of a tick. In 32 bits they last for six years, of a server's life and of an entry's together.
const TICK_MS: u64 = 50;
/// How far the clock may lag behind: the kernel moves it with its timer, a hundred times a second or more.
const LAG_MS: u64 = 10;

/// Milliseconds since some moment before the server started, on a clock that only goes forward. Read without asking the kernel,
/// and as coarse as its timer.
pub fn now_ms() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// The present moment on the clock by which the server says when a statement began: microseconds since 2000. Unlike the other clocks
/// here, this one goes back when the system's clock is set back.
pub fn statement_clock() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    let seconds = (time.tv_sec as u64).saturating_sub(SECONDS_TO_2000);
    seconds * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// From the system's beginning of time to the server's.
const SECONDS_TO_2000: u64 = 10_957 * 24 * 60 * 60;

/// The present tick of a clock that began at some moment.
#[inline]
pub fn tick(began_ms: u64) -> u32 {
    (now_ms().saturating_sub(began_ms) / TICK_MS) as u32
}

/// The tick at which a lifetime is over that begins now. The lag is taken off, because it may stand between this tick and
/// whoever reads by it.
pub fn tick_in(began_ms: u64, lifetime_ms: u64) -> u32 {
    let end = now_ms().saturating_sub(began_ms) + lifetime_ms;
    u32::try_from(end.saturating_sub(LAG_MS) / TICK_MS).unwrap_or(u32::MAX)
}

/// Ticks of a span of time: at least one, and else not more than it has.
pub fn ticks(ms: u64) -> u32 {
    u32::try_from((ms / TICK_MS).max(1)).unwrap_or(u32::MAX)
}

/// Milliseconds since a tick.
pub fn ms_since(began_ms: u64, tick: u32) -> u64 {
    now_ms().saturating_sub(began_ms).saturating_sub(u64::from(tick) * TICK_MS)
}

/// Milliseconds from now until a tick.
pub fn ms_until(began_ms: u64, tick: u32) -> u64 {
    (u64::from(tick) * TICK_MS).saturating_sub(now_ms().saturating_sub(began_ms))
}
