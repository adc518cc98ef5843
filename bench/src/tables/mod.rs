//! The parts about the table tier, in which pg_cache saves values in tables before they are evicted from memory.
//!
//! [`read`] compares hits and misses, and [`set`] compares sets, both between servers that save values in tables and servers that
//! do not. [`save`] measures how fast values are saved, and how many in time. [`disk`] compares the space that values take, and
//! [`restart`] measures what a clean restart costs and keeps. [`side`] starts the servers.

pub mod disk;
pub mod read;
pub mod restart;
pub mod save;
pub mod set;
mod side;

use crate::data::SAVED_BYTES;
use crate::report::notation::{digits, with_interval};
use crate::report::section::Goal;
use crate::statistics::Summary;

/// A limit. `goal` is the wanted result, and `floor` the worst acceptable one. Only the goal decides whether the report shows ✓.
struct Target {
    goal: f64,
    floor: f64,
}

impl Target {
    /// Returns the goal that the median of a ratio of times is at most as large as wanted. `floor` is then above `goal`. `what`
    /// begins the sentence.
    fn at_most(&self, what: &str, ratio: Summary) -> Goal {
        Goal {
            wanted: format!("{what}, at most {} times (acceptable: {})", self.goal, self.floor),
            found: with_interval(ratio, digits),
            met: ratio.median <= self.goal,
        }
    }

    /// Returns the goal that the median of a figure is at least as large as wanted, in the given notation.
    fn at_least(&self, what: &str, found: Summary, notation: impl Fn(f64) -> String) -> Goal {
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

    /// Fails if a goal is judged by the floor or by an end of the interval, if a limit counts as missed when it is just reached, or
    /// if the text leaves out the floor.
    #[test]
    fn a_goal_is_met_by_the_median_and_names_the_floor() {
        let target = Target { goal: 0.5, floor: 0.25 };
        let found = |median| Summary { samples: 6, median, low: 0.1, high: 0.9, confidence: 0.96 };
        assert!(target.at_most("w", found(0.5)).met && !target.at_most("w", found(0.51)).met);
        assert!(
            target.at_least("w", found(0.5), digits).met && !target.at_least("w", found(0.49), digits).met
        );
        assert_eq!(target.at_most("w", found(0.4)).wanted, "w, at most 0.5 times (acceptable: 0.25)");
        assert_eq!(target.at_least("w", found(0.4), digits).found, "0.40 (0.10 – 0.90)");
    }
}
