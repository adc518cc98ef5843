//! Converts SQL intervals. A month counts as 30 days, and a day as 24 hours.

use pgrx::prelude::Interval;

/// Returns the milliseconds of an interval.
pub fn ms(interval: Interval) -> i128 {
    let days = i128::from(interval.months()) * 30 + i128::from(interval.days());
    (days * 24 * 60 * 60 * 1_000_000 + i128::from(interval.micros())) / 1000
}
