//! Converts SQL intervals. A month counts as 30 days, and a day as 24 hours.

use pgrx::prelude::Interval;

/// Returns the milliseconds of an interval. A fraction of a millisecond is dropped.
pub fn ms(interval: Interval) -> i128 {
    let days = i128::from(interval.months()) * 30 + i128::from(interval.days());
    (days * 24 * 60 * 60 * 1_000_000 + i128::from(interval.micros())) / 1000
}

/// Returns the interval of a number of milliseconds, in days and a time of day; as a time only if it has too many days.
pub fn of_ms(ms: u64) -> Interval {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let micros = |ms: u64| ms as i64 * 1000;
    let days = i32::try_from(ms / DAY_MS).ok();
    let by_days = days.and_then(|days| Interval::new(0, days, micros(ms % DAY_MS)).ok());
    by_days.unwrap_or_else(|| Interval::from_micros(micros(ms)))
}
