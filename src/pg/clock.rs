//! Time in ticks that never go back, whatever happens to the system's clock.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds of a tick. In 32 bits they last for six years, of a server's life and of an entry's together.
pub const TICK_MS: u64 = 50;

/// Milliseconds since some moment before the server started, on a clock that only goes forward. Read without asking the kernel,
/// and as coarse as its timer.
pub fn now_ms() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}
