//! How long the value of an entry took to compute, in a compact form: the header of an entry has 16 bits for it (`tier/header.rs`).
//! Evictions keep expensive entries longer (`tier/weight.rs`).

use std::time::Duration;

/// A duration in 16 bits: `microseconds = mantissa : 11 << exponent : 5`. It is at most a thousandth too short, for a microsecond
/// and for a week alike. The longest duration is about 50 days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost(u16);

const MANTISSA_BITS: u32 = 11;
const MANTISSA_MAX: u64 = (1 << MANTISSA_BITS) - 1;

impl Cost {
    /// No cost, or an unknown cost.
    pub const NONE: Self = Self(0);

    /// Returns the cost of a computation that took `time`. A longer time than a cost can hold becomes the largest cost.
    pub fn of(time: Duration) -> Self {
        let most = MANTISSA_MAX << (u16::MAX >> MANTISSA_BITS);
        let micros = u64::try_from(time.as_micros()).unwrap_or(most).min(most);
        let exponent = (u64::BITS - micros.leading_zeros()).saturating_sub(MANTISSA_BITS);
        Self((exponent << MANTISSA_BITS) as u16 | (micros >> exponent) as u16)
    }

    pub(crate) fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    pub(crate) fn bits(self) -> u16 {
        self.0
    }

    /// Returns the cost in microseconds, rounded down.
    pub fn micros(self) -> u64 {
        (u64::from(self.0) & MANTISSA_MAX) << (self.0 >> MANTISSA_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cost must never be longer than the duration, and at most a thousandth shorter. Tries durations up to the longest, each
    /// about a seventh longer than the last. A longer duration must become the longest cost.
    #[test]
    fn a_cost_is_right_to_a_thousandth() {
        let mut micros: u64 = 0;
        while micros < MANTISSA_MAX << 31 {
            let kept = Cost::of(Duration::from_micros(micros)).micros();
            assert!(kept <= micros && micros - kept <= micros / 1000, "{micros} as {kept}");
            micros += micros / 7 + 1;
        }
        assert_eq!(Cost::of(Duration::MAX).micros(), MANTISSA_MAX << 31);
    }
}
