//! Converts SQL intervals. A month counts as 30 days, and a day as 24 hours.

use pgrx::prelude::Interval;

/// Returns the milliseconds of an interval. A fraction of a millisecond is dropped.
pub fn ms(interval: Interval) -> i128 {
    let days = i128::from(interval.months()) * 30 + i128::from(interval.days());
    (days * 24 * 60 * 60 * 1_000_000 + i128::from(interval.micros())) / 1000
}

/// Returns the interval of a number of milliseconds, in days and a time of day. The number of days is at most 2147483647, the most
/// that an interval can have (5.8 million years). A longer time is shown as that many days and its time of day.
pub fn of_ms(ms: u64) -> Interval {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let days = i32::try_from(ms / DAY_MS).unwrap_or(i32::MAX);
    let micros = (ms % DAY_MS) as i64 * 1000;
    // Without months, an interval may have any number of days and microseconds.
    Interval::new(0, days, micros).unwrap_or_else(|_| Interval::from_micros(micros))
}
