//! Goals with a floor. A figure should reach its *goal*; the *floor* is the worst acceptable figure. The report names both, but
//! only the goal decides whether it shows ✓.

use super::notation::{digits, with_interval};
use super::section::Goal;
use crate::statistics::Summary;

/// A limit. `goal` is the wanted result, and `floor` the worst acceptable one. If less is better ([`at_most`](Self::at_most)), the
/// floor must be above the goal; if more is better ([`at_least`](Self::at_least)), it must be below. Only the goal decides whether
/// the report shows ✓.
pub struct Target {
    pub goal: f64,
    pub floor: f64,
}

impl Target {
    /// Returns the goal that the median of a ratio of times is at most as large as wanted. The sentence in the report begins with
    /// `what`.
    pub fn at_most(&self, what: &str, ratio: Summary) -> Goal {
        Goal {
            wanted: format!("{what}, at most {} times (acceptable: {})", self.goal, self.floor),
            found: with_interval(ratio, digits),
            met: ratio.median <= self.goal,
        }
    }

    /// Returns the goal that the median of a figure is at least as large as wanted, in the given notation. The sentence in the
    /// report begins with `what`.
    pub fn at_least(&self, what: &str, found: Summary, notation: impl Fn(f64) -> String) -> Goal {
        Goal {
            wanted: format!(
                "{what}, at least {} (acceptable: {})",
                notation(self.goal),
                notation(self.floor)
            ),
            found: with_interval(found, notation),
            met: found.median >= self.goal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a goal is judged by the floor or by an end of the confidence interval, if a limit counts as missed when it is just
    /// reached, or if the text leaves out the floor.
    #[test]
    fn a_goal_is_met_by_the_median_and_names_the_floor() {
        let (most, least) = (Target { goal: 0.5, floor: 0.75 }, Target { goal: 0.5, floor: 0.25 });
        let found = |median| Summary { samples: 6, median, low: 0.1, high: 0.9, confidence: 0.96 };
        assert!(most.at_most("w", found(0.5)).met && !most.at_most("w", found(0.51)).met);
        assert!(least.at_least("w", found(0.5), digits).met && !least.at_least("w", found(0.49), digits).met);
        assert_eq!(most.at_most("w", found(0.4)).wanted, "w, at most 0.5 times (acceptable: 0.75)");
        assert_eq!(least.at_least("w", found(0.4), digits).found, "0.40 (0.10 – 0.90)");
    }
}
