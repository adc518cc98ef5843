//! A *contest* runs *contenders*, the alternatives that a part of the report compares, in *rounds*: in each round, each contender
//! has one *turn*, so that other activity of the machine affects all of them equally. Then it compares the rates of each contender
//! with those of the first, round by round.

use crate::report::notation::{rate, with_interval};
use crate::report::section::{Goal, Table};
use crate::report::target::Target;
use crate::rounds::turns;
use crate::statistics::{Summary, pair_ratios};
use serde::Serialize;

/// The speed of a contender in one turn.
#[derive(Clone, Copy)]
pub struct Turn {
    /// Operations per second.
    pub per_second: f64,
    /// Operations per second of the processor time of the sessions. `None` if the kernel does not tell it.
    pub of_work: Option<f64>,
}

/// A contender.
pub struct Contender<'a> {
    /// The name as shown.
    name: &'static str,
    /// Does the work of one turn. The number of the round is the seed of the random keys.
    run: Box<dyn FnMut(u64) -> Turn + 'a>,
}

impl<'a> Contender<'a> {
    pub fn new(name: &'static str, run: impl FnMut(u64) -> Turn + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// The results of a contest.
#[derive(Serialize)]
pub struct Contest {
    title: String,
    /// The contenders. The first is the one that the others are compared with.
    rivals: Vec<Rival>,
}

/// The results of a contender.
#[derive(Serialize)]
struct Rival {
    name: &'static str,
    elapsed: Compared,
    /// `None` if the kernel does not tell the processor time.
    of_work: Option<Compared>,
}

/// Rates of a contender, compared with those of the first one.
#[derive(Serialize)]
struct Compared {
    /// Operations per second, round by round.
    rates: Vec<f64>,
    summary: Summary,
    /// The median of the rates divided by those of the first contender, round by round.
    ratio: Summary,
}

impl Compared {
    /// Compares the rates of a contender with those of the first. Returns `None` if there are no rounds.
    fn with(own: Vec<f64>, first: &[f64]) -> Option<Self> {
        Some(Self { summary: Summary::of(&own)?, ratio: Summary::of(&pair_ratios(&own, first))?, rates: own })
    }
}

impl Contest {
    /// Runs the contenders in turns, after one round that does not count. There must be at least one round.
    pub fn hold(title: &str, rounds: usize, mut contenders: Vec<Contender<'_>>) -> Self {
        let mut found: Vec<Vec<Turn>> = contenders.iter().map(|_| Vec::new()).collect();
        for round in 0..=rounds {
            for place in turns(round, contenders.len()) {
                let turn = (contenders[place].run)(round as u64);
                if round > 0 {
                    found[place].push(turn);
                }
            }
        }
        let elapsed = |turns: &[Turn]| turns.iter().map(|turn| turn.per_second).collect::<Vec<_>>();
        let of_work = |turns: &[Turn]| turns.iter().map(|turn| turn.of_work).collect::<Option<Vec<_>>>();
        let first = (elapsed(&found[0]), of_work(&found[0]));
        let rivals = contenders.iter().zip(&found).map(|(contender, turns)| Rival {
            name: contender.name,
            elapsed: Compared::with(elapsed(turns), &first.0).expect("there are rounds"),
            of_work: of_work(turns).zip(first.1.as_ref()).and_then(|(own, first)| Compared::with(own, first)),
        });
        Self { title: title.into(), rivals: rivals.collect() }
    }

    /// Returns the title.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Returns the ratio of the second contender, the one that the contest is about.
    fn ratio(&self) -> Summary {
        self.rivals[1].elapsed.ratio
    }

    /// Returns the goal that the second contender is nearly as fast as the first. In the report, `what` follows the title of the
    /// contest.
    pub fn goal(&self, target: &Target, what: &str) -> Goal {
        target.at_least(&format!("{}: {what}", self.title), self.ratio(), near_one)
    }

    /// Returns the goal that the second contender is not measurably slower than the first: the confidence interval of the ratio of
    /// their rates does not end below 1.
    pub fn goal_of_no_cost(&self) -> Goal {
        Goal {
            wanted: format!("{}: no measurable cost: the interval does not end below 1", self.title),
            found: with_interval(self.ratio(), near_one),
            met: self.ratio().high >= 1.0,
        }
    }
}

/// Formats a ratio of rates. The third digit after the decimal point matters.
fn near_one(ratio: f64) -> String {
    format!("{ratio:.3}")
}

/// Explains the last two columns of a table of contests.
pub const BY_WORK: &str = "The ratios compare rates: more is better. The last two columns divide the operations by the processor time of the \
     sessions: they show what a session does itself, and leave out what other processes take from the cores.";

/// Returns contests as a table. `operations` is the name of the operations of all contests. The columns with `versus` are ratios of
/// rates.
pub fn table(contests: &[Contest], operations: &str, versus: &str) -> Table {
    let (elapsed, of_work) = (
        format!("{operations} per second"),
        format!("{operations} per second of the sessions' processor time"),
    );
    let mut table = Table::new(2, ["", "contender", &elapsed, versus, &of_work, versus]);
    for contest in contests {
        for (place, rival) in contest.rivals.iter().enumerate() {
            let cells = |compared: &Compared| {
                let ratio = if place == 0 { "1".into() } else { with_interval(compared.ratio, near_one) };
                [with_interval(compared.summary, rate), ratio]
            };
            let mut row =
                vec![if place == 0 { contest.title.clone() } else { String::new() }, rival.name.into()];
            row.extend(cells(&rival.elapsed));
            row.extend(rival.of_work.as_ref().map_or_else(|| ["–".into(), "–".into()], cells));
            table.rows.push(row);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Returns a turn in which the sessions had the processor for half of the time.
    fn turn(per_second: f64) -> Turn {
        Turn { per_second, of_work: Some(per_second * 2.0) }
    }

    /// Holds a contest of six rounds. The rates of the second contender are `share` of those of the first, which differ from round
    /// to round.
    fn contest(share: f64) -> Contest {
        let contender =
            |share: f64| Contender::new("n", move |round| turn((round + 1) as f64 * 100.0 * share));
        Contest::hold("t", 6, vec![contender(1.0), contender(share)])
    }

    /// Fails if the first round counts, if the contenders do not take turns, or if rates of different rounds are compared.
    #[test]
    fn lanes_take_turns_and_are_compared_round_by_round() {
        let order = RefCell::new(Vec::new());
        let contender = |name: &'static str, rate: f64| {
            let order = &order;
            Contender::new(name, move |round| {
                order.borrow_mut().push(name);
                turn(rate * 10_f64.powi(round as i32))
            })
        };
        let found = Contest::hold("t", 2, vec![contender("off", 2.0), contender("on", 1.0)]);
        assert_eq!(*order.borrow(), ["off", "on", "on", "off", "on", "off"]);
        assert_eq!(found.rivals[1].elapsed.rates, [10.0, 100.0]);
        assert_eq!(found.ratio().median, 0.5);
    }

    /// Fails if the goal is judged by another contender, by the floor, or by an end of the confidence interval.
    #[test]
    fn the_second_contender_is_judged_by_its_median() {
        let target = Target { goal: 0.97, floor: 0.95 };
        assert!(contest(0.98).goal(&target, "w").met && !contest(0.96).goal(&target, "w").met);
        let goal = contest(0.96).goal(&target, "w");
        assert_eq!(goal.wanted, "t: w, at least 0.970 (acceptable: 0.950)");
        assert_eq!(goal.found, "0.960 (0.960 – 0.960)");
    }

    /// Fails if a contender that is as fast or faster misses the goal, or if one that is slower in each round meets it.
    #[test]
    fn no_cost_is_an_interval_that_reaches_one() {
        assert!(contest(1.0).goal_of_no_cost().met && contest(1.1).goal_of_no_cost().met);
        assert!(!contest(0.99).goal_of_no_cost().met);
    }

    /// Fails if the first contender is compared with itself, if the title is repeated, or if the two kinds of rates are mixed up.
    #[test]
    fn a_table_has_the_title_once() {
        let table = table(&[contest(0.5)], "sets", "× off");
        let first = ["t", "n", "450 (200 – 700)", "1", "900 (400 – 1.40 k)", "1"];
        assert_eq!(table.rows[0], first);
        let second =
            ["", "n", "225 (100 – 350)", "0.500 (0.500 – 0.500)", "450 (200 – 700)", "0.500 (0.500 – 0.500)"];
        assert_eq!(table.rows[1], second);
    }

    /// Fails if a processor time that is not known in one turn becomes a number.
    #[test]
    fn an_unknown_processor_time_is_a_dash() {
        let contender = |unknown| {
            Contender::new("n", move |round| Turn { of_work: (round != unknown).then_some(1.0), ..turn(1.0) })
        };
        let table = table(&[Contest::hold("t", 6, vec![contender(9), contender(3)])], "sets", "× off");
        assert_eq!(table.rows[0][4..], ["1.00 (1.00 – 1.00)", "1"]);
        assert_eq!(table.rows[1][4..], ["–", "–"]);
    }
}
