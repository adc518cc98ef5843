//! The clock by which cached values expire: time in ticks of 50 ms that never go back, even if the system's clock is changed.
//!
//! A clock is known by the moment at which it *began*, in milliseconds on the clock of [`now_ms`]: this is the argument `began_ms`
//! of the functions here. All processes of a server use the same one.
//!
//! A lifetime ends at a tick. Rounding shortens a lifetime by less than 100 ms and never extends it: a value is never served after
//! its time.

use rustix::fs::{Mode, OFlags, open};
use rustix::time::{ClockId, clock_gettime};

/// Milliseconds per tick. The age of the clock and an entry's lifetime together must fit into 32 bits of ticks, which are 6.8
/// years.
const TICK_MS: u64 = 50;
/// How far the clock may lag behind, in milliseconds: the kernel updates it with its timer, at least a hundred times a second.
const LAG_MS: u64 = 10;
/// A clock that has run for this many milliseconds is not continued after a restart: half of the ticks are left for its next run.
const RESUMED_MS_MAX: u64 = TICK_MS << 31;

/// Returns milliseconds on a clock that only goes forward; it began at some moment before the server started. Reading it needs no
/// system call, and it is as coarse as the kernel's timer.
pub fn now_ms() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// Returns the present time on the clock by which the server reports when a statement began: microseconds since 2000. Unlike ticks,
/// this clock goes back when the system's clock is set back.
pub fn statement_clock() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    let seconds = (time.tv_sec as u64).saturating_sub(SECONDS_TO_2000);
    seconds * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// Returns the system's clock in microseconds since 1970. It goes back when the clock is set back.
pub fn unix_us() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// Seconds from the system's epoch (1970) to the server's (2000).
const SECONDS_TO_2000: u64 = 10_957 * 24 * 60 * 60;

/// Returns the milliseconds since a clock began. A clock that goes on after a restart of the machine began before the clock of
/// [`now_ms`] did, so `began_ms` may be a negative number, in two's complement.
#[inline]
fn elapsed_ms(began_ms: u64) -> u64 {
    now_ms().wrapping_sub(began_ms)
}

/// The state of a clock when its server stops. From it, the next server computes how long it was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The milliseconds since the clock began.
    pub elapsed_ms: u64,
    /// The milliseconds since the machine was booted. They also count while the machine is suspended.
    pub machine_ms: u64,
    /// The system's clock, in milliseconds since 1970.
    pub wall_ms: u64,
    /// The name of the machine's present run, from its boot to its shutdown; zeroes if the system does not tell it. Only within one
    /// run can two values of `machine_ms` be compared.
    pub run: [u64; 4],
}

impl Reading {
    /// Reads the clock that began at `began_ms`.
    pub fn of(began_ms: u64) -> Self {
        let ms = |clock| {
            let time = clock_gettime(clock);
            time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
        };
        // These two are read before the elapsed time: time that passes in between then counts twice after a restart. In the other
        // order it would not count at all, and lifetimes would get longer.
        let (machine_ms, wall_ms) = (ms(ClockId::Boottime), ms(ClockId::Realtime));
        Self { elapsed_ms: elapsed_ms(began_ms), machine_ms, wall_ms, run: name_of_run() }
    }

    /// Returns `began_ms` of a clock that continues this one now. The clocks drop fractions of a millisecond, and `now_ms` may lag
    /// behind by [`LAG_MS`]. Both are added to the elapsed time, so no lifetime gets longer. Returns None if a clock has gone back,
    /// or after [`RESUMED_MS_MAX`].
    pub fn resume(&self) -> Option<u64> {
        let now = Self::of(0);
        let is_same_run = self.run != [0; 4] && self.run == now.run;
        let stopped = match is_same_run {
            true => now.machine_ms.checked_sub(self.machine_ms)?,
            false => now.wall_ms.checked_sub(self.wall_ms)?,
        };
        let elapsed = self.elapsed_ms.checked_add(stopped)?.checked_add(LAG_MS + 1)?;
        (elapsed < RESUMED_MS_MAX).then(|| now.elapsed_ms.wrapping_sub(elapsed))
    }
}

/// Returns the first 32 bytes of the name that Linux gives to each run of the machine. Returns zeroes if the file cannot be read.
fn name_of_run() -> [u64; 4] {
    let mut bytes = [0; 32];
    let path = c"/proc/sys/kernel/random/boot_id";
    let read = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|file| rustix::io::read(&file, &mut bytes));
    if read != Ok(bytes.len()) {
        return [0; 4];
    }
    std::array::from_fn(|word| u64::from_ne_bytes(std::array::from_fn(|at| bytes[word * 8 + at])))
}

/// Returns the present tick.
#[inline]
pub fn tick(began_ms: u64) -> u32 {
    (elapsed_ms(began_ms) / TICK_MS) as u32
}

/// Returns the tick at which a lifetime ends that begins now: the value must not be served at that tick or later. The clock's lag
/// is subtracted, because a reader's clock may be that much behind.
pub fn tick_in(began_ms: u64, lifetime_ms: u64) -> u32 {
    let end = elapsed_ms(began_ms) + lifetime_ms;
    u32::try_from(end.saturating_sub(LAG_MS) / TICK_MS).unwrap_or(u32::MAX)
}

/// Converts a duration in milliseconds to ticks, rounded down, but at least 1. So a duration below 50 ms gets longer: a lifetime
/// must be computed by [`tick_in`] instead.
pub fn ticks(ms: u64) -> u32 {
    u32::try_from((ms / TICK_MS).max(1)).unwrap_or(u32::MAX)
}

/// Returns the first tick of which every moment is at most so many milliseconds ago. None if the present tick is not one.
pub fn tick_before(began_ms: u64, ms: u64) -> Option<u32> {
    // The present moment may be the end of the present tick, and the clock may lag.
    let whole = u32::try_from(ms.saturating_sub(LAG_MS) / TICK_MS).unwrap_or(u32::MAX);
    (whole > 0).then(|| (tick(began_ms) + 1).saturating_sub(whole))
}

/// Returns the milliseconds from the beginning of the clock to a tick.
pub fn ms_of(tick: u32) -> u64 {
    u64::from(tick) * TICK_MS
}

/// Returns the milliseconds since a tick; 0 if the tick has not come yet.
pub fn ms_since(began_ms: u64, tick: u32) -> u64 {
    elapsed_ms(began_ms).saturating_sub(u64::from(tick) * TICK_MS)
}

/// Returns the milliseconds from now until a tick; 0 if the tick is over.
pub fn ms_until(began_ms: u64, tick: u32) -> u64 {
    (u64::from(tick) * TICK_MS).saturating_sub(elapsed_ms(began_ms))
}
