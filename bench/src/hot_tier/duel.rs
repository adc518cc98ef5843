//! Runs two *contenders*, the alternatives that a measurement compares, in rounds. In each round, each contender runs once, so that
//! other activity of the machine affects both equally. The work of a contender is a function, which may also ask a server.

use crate::report::notation::{digits, time, with_interval};
use crate::report::section::{Goal, Table};
use crate::rounds::turns;
use crate::statistics::{Summary, pair_ratios};
use serde::Serialize;

/// A contender. Its function does the work and returns the nanoseconds of one operation.
pub struct Contender<'a> {
    /// The name as shown.
    pub name: String,
    /// Does the work of one round.
    pub run: Box<dyn FnMut() -> f64 + 'a>,
}

impl<'a> Contender<'a> {
    pub fn new(name: impl Into<String>, run: impl FnMut() -> f64 + 'a) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// Two contenders, with their results over all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Duel {
    /// The title in the report.
    pub title: String,
    /// The name of our contender, the first one.
    pub own_name: String,
    /// The name of the other contender.
    pub other_name: String,
    /// Nanoseconds of one operation of our contender, one number for each round.
    pub own: Vec<f64>,
    /// Nanoseconds of one operation of the other contender, one number for each round.
    pub other: Vec<f64>,
    /// The median over the rounds of our contender, with its confidence interval.
    pub own_median: Summary,
    /// The median over the rounds of the other contender, with its confidence interval.
    pub other_median: Summary,
    /// The median of our time divided by the other's time, round by round, and its confidence interval.
    pub ratio: Summary,
}

/// Runs two contenders in turns, after one round that does not count. There must be at least one round.
pub fn compare(title: &str, rounds: usize, own: Contender<'_>, other: Contender<'_>) -> Duel {
    let mut contenders = [own, other];
    let mut times = [Vec::new(), Vec::new()];
    for contender in &mut contenders {
        (contender.run)();
    }
    for round in 0..rounds {
        for turn in turns(round, 2) {
            times[turn].push((contenders[turn].run)());
        }
    }
    let [own, other] = times;
    let [own_name, other_name] = contenders.map(|contender| contender.name);
    Duel::of(title, (own_name, own), (other_name, other))
}

impl Duel {
    /// Creates a duel from the names and the results of the rounds. Both must have the same number of rounds, at least one.
    pub fn of(title: &str, own: (String, Vec<f64>), other: (String, Vec<f64>)) -> Self {
        let median = |samples: &[f64]| Summary::of(samples).expect("there is at least one round");
        Self {
            title: title.into(),
            own_median: median(&own.1),
            other_median: median(&other.1),
            ratio: median(&pair_ratios(&own.1, &other.1)),
            own_name: own.0,
            own: own.1,
            other_name: other.0,
            other: other.1,
        }
    }

    /// Returns the goal that our contender takes at most `at_most` times as long as the other, by the median. The sentence in the
    /// report begins with `wanted`.
    pub fn goal(&self, wanted: &str, at_most: f64) -> Goal {
        Goal {
            wanted: format!("{wanted}, at most {at_most} times"),
            found: with_interval(self.ratio, digits),
            met: self.ratio.median <= at_most,
        }
    }
}

/// Returns duels as a table. The column `× other` is the time of our contender, divided by that of the other one: less is better.
pub fn table(duels: &[Duel]) -> Table {
    let mut table = Table::new(2, ["", "contender", "one operation", "× other"]);
    for duel in duels {
        let ratio = with_interval(duel.ratio, digits);
        table.rows.push(vec![
            duel.title.clone(),
            duel.own_name.clone(),
            with_interval(duel.own_median, time),
            ratio,
        ]);
        table.rows.push(vec![
            String::new(),
            duel.other_name.clone(),
            with_interval(duel.other_median, time),
            "1".into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A contender's time depends on the round here. Fails if the first round counts, if the contenders do not take turns, if times
    /// of different rounds are compared, or if a goal is missed when the ratio equals its limit.
    #[test]
    fn lanes_take_turns_and_are_compared_round_by_round() {
        let order = std::cell::RefCell::new(Vec::new());
        let contender = |name: &'static str, time: f64| {
            let order = &order;
            Contender::new(name, move || {
                order.borrow_mut().push(name);
                time * order.borrow().len().div_ceil(2) as f64
            })
        };
        let duel = compare("t", 2, contender("a", 3.0), contender("b", 2.0));
        assert_eq!(*order.borrow(), ["a", "b", "a", "b", "b", "a"]);
        assert_eq!((duel.own.as_slice(), duel.other.as_slice()), (&[6.0, 9.0][..], &[4.0, 6.0][..]));
        assert_eq!(duel.ratio.median, 1.5);
        assert!(duel.goal("w", 1.5).met && !duel.goal("w", 1.49).met);
    }
}
