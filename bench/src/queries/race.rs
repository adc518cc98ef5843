//! Runs several *contenders* in *rounds*, and compares the times of any two of them, round by round. A contender is one of the
//! alternatives that a section of the report compares, for instance a query, and a hit of its stored result. In each round, each
//! contender runs once, so that other work of the machine affects all of them equally.

use crate::hot_tier::duel::Contender;
use crate::report::notation::{digits, time, with_interval};
use crate::report::section::{Goal, Table};
use crate::rounds::turns;
use crate::statistics::{Summary, pair_ratios};
use serde::Serialize;

/// The results of contenders that did the same work.
#[derive(Serialize)]
pub struct Race {
    title: String,
    /// The contenders. The first is the one that the others are compared with in the table.
    runners: Vec<Runner>,
}

#[derive(Serialize)]
struct Runner {
    name: String,
    /// Nanoseconds of one operation, round by round.
    times: Vec<f64>,
    summary: Summary,
}

impl Race {
    /// Runs the contenders in turns, after one round that does not count. Their order changes from round to round (`rounds.rs`).
    /// `rounds` must be at least 1.
    pub fn hold(title: &str, rounds: usize, mut contenders: Vec<Contender<'_>>) -> Self {
        let mut times: Vec<Vec<f64>> = contenders.iter().map(|_| Vec::new()).collect();
        for contender in &mut contenders {
            (contender.run)();
        }
        for round in 0..rounds {
            for place in turns(round, contenders.len()) {
                times[place].push((contenders[place].run)());
            }
        }
        let runners = contenders.into_iter().zip(times).map(|(contender, times)| Runner {
            name: contender.name,
            summary: summary(&times),
            times,
        });
        Self { title: title.into(), runners: runners.collect() }
    }

    /// Returns the title.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Returns the names of the contenders, in their order.
    pub fn names(&self) -> Vec<&str> {
        self.runners.iter().map(|runner| runner.name.as_str()).collect()
    }

    /// Returns the nanoseconds of a contender, round by round.
    pub fn times(&self, name: &str) -> &[f64] {
        let runner = self.runners.iter().find(|runner| runner.name == name);
        &runner.unwrap_or_else(|| panic!("{} has no {name}", self.title)).times
    }

    /// Returns the median of the time of one contender divided by that of another, round by round.
    pub fn ratio(&self, of: &str, to: &str) -> Summary {
        summary(&pair_ratios(self.times(of), self.times(to)))
    }
}

/// Returns the median of some figures, and its confidence interval (`statistics.rs`). There must be at least one figure.
pub fn summary(figures: &[f64]) -> Summary {
    Summary::of(figures).expect("there is at least one round")
}

/// Returns races as a table. The column `× first` is the time of a contender, divided by that of the first one: less is better.
pub fn table(races: &[&Race]) -> Table {
    let mut table = Table::new(2, ["", "contender", "one operation", "× first"]);
    for race in races {
        for (place, runner) in race.runners.iter().enumerate() {
            let first = &race.runners[0].times;
            let ratio = match place {
                0 => "1".into(),
                _ => with_interval(summary(&pair_ratios(&runner.times, first)), digits),
            };
            let title = if place == 0 { race.title.clone() } else { String::new() };
            table.rows.push(vec![title, runner.name.clone(), with_interval(runner.summary, time), ratio]);
        }
    }
    table
}

/// Returns the goal that the median of a figure is at most `limit`. The sentence in the report begins with `what`.
pub fn at_most(what: &str, found: Summary, limit: f64, notation: impl Fn(f64) -> String) -> Goal {
    Goal {
        wanted: format!("{what}, at most {}", notation(limit)),
        found: with_interval(found, notation),
        met: found.median <= limit,
    }
}

/// Returns the goal that the median of a figure is at least `limit`. The sentence in the report begins with `what`.
pub fn at_least(what: &str, found: Summary, limit: f64, notation: impl Fn(f64) -> String) -> Goal {
    Goal {
        wanted: format!("{what}, at least {}", notation(limit)),
        found: with_interval(found, notation),
        met: found.median >= limit,
    }
}

/// Formats a ratio: a number, followed by ×.
pub fn times(ratio: f64) -> String {
    format!("{} ×", crate::report::notation::count(ratio))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Fails if the first round counts, if the contenders do not take turns, or if times of different rounds are compared.
    #[test]
    fn contenders_take_turns_and_are_compared_round_by_round() {
        let order = RefCell::new(Vec::new());
        let contender = |name: &'static str, time: f64| {
            let order = &order;
            Contender::new(name, move || {
                order.borrow_mut().push(name);
                time * order.borrow().len().div_ceil(3) as f64
            })
        };
        let race = Race::hold("t", 2, vec![contender("a", 1.0), contender("b", 2.0), contender("c", 4.0)]);
        assert_eq!(*order.borrow(), ["a", "b", "c", "a", "b", "c", "c", "b", "a"]);
        assert_eq!(race.times("b"), [4.0, 6.0]);
        assert_eq!(race.ratio("c", "a").median, 4.0);
        let rows = table(&[&race]).rows;
        assert_eq!(rows[0][..2], ["t", "a"]);
        assert_eq!(rows[2][3], "4.00 (4.00 – 4.00)");
    }

    /// Fails if a goal is judged by an end of the confidence interval, or if it is missed when the median equals the limit.
    #[test]
    fn a_goal_is_judged_by_the_median() {
        let found = |median| Summary { samples: 6, median, low: 0.5, high: 9.0, confidence: 0.96 };
        assert!(at_most("w", found(2.0), 2.0, times).met && !at_most("w", found(2.1), 2.0, times).met);
        assert!(at_least("w", found(3.0), 3.0, times).met && !at_least("w", found(2.9), 3.0, times).met);
        assert_eq!(at_least("w", found(3.0), 3000.0, times).wanted, "w, at least 3\u{202f}000 ×");
    }
}
