//! Medians and their confidence intervals.
//!
//! Timings on a shared machine have long tails and no known distribution, so this code assumes none. The bounds of a median's
//! interval are two of the samples themselves. A ratio is computed pair by pair, between runs that were close in time, before any
//! median is taken.

use serde::{Deserialize, Serialize};

/// The least confidence that an interval should have.
const CONFIDENCE: f64 = 0.95;

/// The median of some samples, and its confidence interval: the interval that probably holds the true median, which endlessly many
/// such samples would have.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many samples there were.
    pub samples: usize,
    /// The median of the samples.
    pub median: f64,
    /// The lower end of the interval, one of the samples.
    pub low: f64,
    /// The upper end of the interval, one of the samples.
    pub high: f64,
    /// The probability that the interval holds the true median. It is at least 0.95 for 6 to 1074 samples, smaller for fewer, and
    /// wrong for more (see `interval_rank`).
    pub confidence: f64,
}

impl Summary {
    /// Returns the median of `samples` and its interval, or `None` if there are no samples.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let count = samples.len();
        if count == 0 {
            return None;
        }
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (rank, confidence) = interval_rank(count);
        Some(Self {
            samples: count,
            median: f64::midpoint(sorted[(count - 1) / 2], sorted[count / 2]),
            low: sorted[rank - 1],
            high: sorted[count - rank],
            confidence,
        })
    }

    /// Returns `numerator` divided by the median and the ends: 1e9 turns operations per second into nanoseconds per operation. All
    /// three must be above 0.
    pub fn inverted(self, numerator: f64) -> Self {
        Self {
            median: numerator / self.median,
            low: numerator / self.high,
            high: numerator / self.low,
            ..self
        }
    }
}

/// Returns `of[i] / to[i]` for each run. Both must have the same number of runs, in the same order.
pub fn pair_ratios(of: &[f64], to: &[f64]) -> Vec<f64> {
    of.iter().zip(to).map(|(of, to)| of / to).collect()
}

/// Returns the value that a fraction `part` of the values, from 0 to 1, does not exceed. The values must be sorted. `None` if there
/// are none.
pub fn percentile<T: Copy>(sorted: &[T], part: f64) -> Option<T> {
    let last = sorted.len().saturating_sub(1);
    sorted.get((part * last as f64).round() as usize).copied()
}

/// Returns the rank, counted from either end, of the samples that bound the interval of the median, and the confidence of the
/// interval.
///
/// If the samples are independent and come from one continuous distribution, each is above the true median with probability 1/2.
/// The interval between the k-th lowest and the k-th highest sample misses the true median only if fewer than k samples lie on one
/// side of it. The probability of that is 2 · P(Binomial(count, 1/2) < k). The function chooses the narrowest interval with enough
/// confidence, or the whole range if there are too few samples.
///
/// `count` must be at most 1074. From 1075 on, 0.5^count is 0 as an `f64`: the function then returns the middle rank with
/// confidence 1, so the interval shrinks to the one or two samples in the middle.
fn interval_rank(count: usize) -> (usize, f64) {
    let mut best = None;
    // `exactly` is P(Binomial = rank - 1) at the start of a turn. `below` becomes P(Binomial < rank).
    let mut exactly = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut below = 0.0;
    for rank in 1..=count.div_ceil(2) {
        below += exactly;
        exactly *= (count + 1 - rank) as f64 / rank as f64;
        let confidence = (1.0 - 2.0 * below).max(0.0);
        if best.is_none() || confidence >= CONFIDENCE {
            best = Some((rank, confidence));
        }
    }
    best.unwrap_or((1, 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-9
    }

    /// Fails if a measurement without a result gets a number.
    #[test]
    fn no_samples_have_no_median() {
        assert_eq!(Summary::of(&[]), None);
    }

    /// Fails if the interval of a single sample has any confidence.
    #[test]
    fn one_sample_is_its_own_median_with_no_confidence() {
        let summary = Summary::of(&[7.0]).unwrap();
        assert_eq!((summary.low, summary.median, summary.high), (7.0, 7.0, 7.0));
        assert!(near(summary.confidence, 0.0));
    }

    /// Fails if the median of unsorted samples, or of an even number of samples, is wrong.
    #[test]
    fn an_odd_number_has_a_middle_and_an_even_one_the_mean_of_two() {
        assert!(near(Summary::of(&[3.0, 1.0, 2.0]).unwrap().median, 2.0));
        assert!(near(Summary::of(&[4.0, 1.0, 3.0, 2.0]).unwrap().median, 2.5));
    }

    /// Fails if one disturbed run changes the result.
    #[test]
    fn one_wild_run_moves_neither_the_median_nor_its_interval() {
        let mut samples: Vec<f64> = (1..=9).map(f64::from).collect();
        let calm = Summary::of(&samples).unwrap();
        samples[8] = 1e9;
        assert_eq!(Summary::of(&samples).unwrap(), calm);
    }

    // The ranks and confidences come from the standard tables of the sign test.
    /// Fails if the interval of a median does not have the confidence that the report states.
    #[test]
    fn ranks_are_those_of_the_sign_test() {
        for (count, rank, confidence) in [
            (3, 1, 0.75),
            (5, 1, 0.9375),
            (6, 1, 0.96875),
            (9, 2, 1.0 - 20.0 / 512.0),
            (20, 6, 1.0 - 2.0 * 21_700.0 / 1_048_576.0),
            (24, 7, 1.0 - 2.0 * 190_051.0 / 16_777_216.0),
            (100, 40, 0.9648),
        ] {
            let (found, sure) = interval_rank(count);
            assert_eq!(found, rank, "{count} samples");
            assert!((sure - confidence).abs() < 1e-4, "{count} samples: {sure}");
        }
    }

    /// Fails if the bounds of the interval are not the samples with these ranks.
    #[test]
    fn the_interval_of_twenty_goes_from_the_sixth_to_the_fifteenth() {
        let samples: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        let summary = Summary::of(&samples).unwrap();
        assert_eq!((summary.low, summary.median, summary.high), (6.0, 10.5, 15.0));
    }

    /// Fails if samples of different rounds are divided: the speed of the machine could change between them.
    #[test]
    fn ratios_are_taken_pair_by_pair() {
        // The machine halves its speed between the rounds: the medians differ, but the ratio stays the same.
        let ratios = pair_ratios(&[200.0, 100.0, 50.0], &[100.0, 50.0, 25.0]);
        let summary = Summary::of(&ratios).unwrap();
        assert_eq!((summary.low, summary.median, summary.high), (2.0, 2.0, 2.0));
    }

    /// Fails if a percentile is a number that was never measured, or if no values have one.
    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<u32> = (0..=100).collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|part| percentile(&values, part)), [0, 50, 99, 100].map(Some));
        assert_eq!(percentile(&[7], 0.99), Some(7));
        assert_eq!(percentile::<u32>(&[], 0.99), None);
    }

    /// Fails if the lower bound of a time is made from the lower bound of the rate.
    #[test]
    fn inverting_swaps_the_ends() {
        let rate = Summary { samples: 6, median: 2e6, low: 1e6, high: 4e6, confidence: 0.96875 };
        let time = rate.inverted(1e9);
        assert_eq!((time.low, time.median, time.high), (250.0, 500.0, 1000.0));
    }
}
