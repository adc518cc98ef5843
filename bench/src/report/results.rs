//! The results of a run, in the form in which the JSON file has them. A run makes the measurements of the *plan* (`plan.rs`), each
//! of which compares *contenders*, alternatives that do the same work. It also measures the other *parts* of the report
//! (`parts.rs`). [`Report::new`] computes the results of the plan from the samples of its rounds. Each part computes its own
//! [`Section`].
//!
//! `--redraw` reads the JSON file of an earlier run. A new field here therefore makes all older files unreadable, unless it is an
//! `Option`.

use super::notation::{digits, with_interval};
use super::section::{Goal, Section};
use crate::counters::Counts;
use crate::machine::Machine;
use crate::pace::Pace;
use crate::plan::{Limit, Measurement, Shown, Wanted};
use crate::rounds::Samples;
use crate::statistics::{Summary, pair_ratios};
use serde::{Deserialize, Serialize};

/// All results of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Whether the run had fewer and shorter rounds. Such results must not be quoted.
    pub quick: bool,
    /// The argument of `--only`: the run made only the measurements and parts whose id contains this text. `None` if it made all.
    pub only: Option<String>,
    /// Rounds of each reading measurement.
    pub read_rounds: usize,
    /// Rounds of each writing measurement.
    pub write_rounds: usize,
    /// Rounds in which the server's cost was counted.
    pub counted_rounds: usize,
    /// The machine of the measurement.
    pub machine: Machine,
    /// A sentence that says which events perf could count on the servers. Empty if no measurement of the plan was made.
    pub counters: String,
    /// The results of the plan's measurements.
    pub measurements: Vec<Measured>,
    /// The results of the other parts.
    pub sections: Vec<Section>,
}

/// The samples of the measurements of the plan. All fields are empty if none was made.
#[derive(Default)]
pub struct SideBySide {
    /// The measurements that were made.
    pub plan: Vec<Measurement>,
    /// A sentence that says which events perf could count.
    pub counters: String,
    /// The samples, in the order of the measurements in `plan` and of their contenders.
    pub samples: Vec<Vec<Samples>>,
}

/// One measurement, with the results of its contenders.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The name for programs.
    pub id: String,
    /// The table that the measurement belongs to. The measurements of a table are adjacent.
    pub group: String,
    /// The title of the measurement within its table.
    pub title: String,
    /// The figure that is shown first.
    pub shown_as: Shown,
    /// The number of connections.
    pub clients: u32,
    /// Requests that a client sends before it waits for their answers.
    pub pipeline: u32,
    /// The names of the contenders that the ratios refer to.
    pub references: Vec<String>,
    /// The results of the contenders.
    pub contenders: Vec<Entry>,
    /// The goals, with their results.
    pub goals: Vec<Goal>,
}

/// The results of one contender. A cost is `None` if it was not counted, or if perf could not count it in every round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The name of the contender.
    pub name: String,
    /// The speed of the contender. Its ratios compare speeds, so more is better. Ratios of costs compare costs: less is better.
    pub operations_per_second: Figure,
    /// Processor time of the server for one operation.
    pub server_nanoseconds: Option<Figure>,
    /// Instructions of the server for one operation.
    pub server_instructions: Option<Figure>,
    /// Cycles of the server for one operation.
    pub server_cycles: Option<Figure>,
}

/// One quantity, with its summary and the values of its rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// The median and its confidence interval.
    pub summary: Summary,
    /// The ratios to the references, computed round by round.
    pub ratios: Vec<Ratio>,
    /// The value of each round, in order.
    pub rounds: Vec<f64>,
}

/// The comparison with a reference.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ratio {
    /// The name of the reference.
    pub to: String,
    /// The contender's figure divided by the reference's figure: the median over the rounds.
    pub summary: Summary,
}

impl Report {
    /// Returns the report. Computes the results of the plan's measurements from their samples.
    pub fn new(
        pace: &Pace,
        quick: bool,
        only: Option<String>,
        machine: Machine,
        found: SideBySide,
        sections: Vec<Section>,
    ) -> Self {
        Self {
            quick,
            only,
            read_rounds: pace.read_rounds,
            write_rounds: pace.write_rounds,
            counted_rounds: pace.counted_rounds,
            machine,
            counters: found.counters,
            sections,
            measurements: found
                .plan
                .iter()
                .zip(&found.samples)
                .map(|(measurement, samples)| Measured::new(measurement, samples))
                .collect(),
        }
    }

    /// Returns the measurements, grouped by the table that they share.
    pub fn groups(&self) -> impl Iterator<Item = &[Measured]> {
        self.measurements.chunk_by(|one, next| one.group == next.group)
    }
}

impl Measured {
    /// Computes the results of one measurement from its samples, which have the order of its contenders.
    fn new(measurement: &Measurement, samples: &[Samples]) -> Self {
        let by_name = |name: &str| measurement.contenders.iter().position(|contender| contender.name == name);
        let figure = |own: &Samples, of: &dyn Fn(&Samples) -> Option<Vec<f64>>| {
            let references = measurement.references.iter().filter_map(|name| {
                let theirs = of(samples.get(by_name(name)?)?)?;
                Some(((*name).to_owned(), theirs))
            });
            Figure::new(of(own)?, references)
        };
        let cost = |own: &Samples, kind: fn(&Counts) -> Option<f64>| {
            figure(own, &|samples| samples.cost.iter().map(kind).collect())
        };
        let contenders: Vec<Entry> = measurement
            .contenders
            .iter()
            .zip(samples)
            .filter_map(|(contender, own)| {
                Some(Entry {
                    name: contender.name.into(),
                    operations_per_second: figure(own, &|samples| Some(samples.per_second.clone()))?,
                    server_nanoseconds: cost(own, |counts| counts.nanoseconds),
                    server_instructions: cost(own, |counts| counts.instructions),
                    server_cycles: cost(own, |counts| counts.cycles),
                })
            })
            .collect();
        let goals = measurement.wanted.iter().filter_map(|wanted| {
            let entry = contenders.iter().find(|entry| entry.name == wanted.of)?;
            Some(goal(wanted, &measurement.title, entry.operations_per_second.ratio_to(wanted.to)?))
        });
        Self {
            id: measurement.id.clone(),
            goals: goals.collect(),
            group: measurement.group.into(),
            title: measurement.title.clone(),
            shown_as: measurement.shown_as,
            clients: measurement.clients,
            pipeline: measurement.pipeline,
            references: measurement.references.iter().map(|name| (*name).to_owned()).collect(),
            contenders,
        }
    }
}

/// Returns a goal and its result. `speed` is the speed of the contender that has the goal, divided by that of the contender it is
/// compared with. `title` is the title of the measurement.
fn goal(wanted: &Wanted, title: &str, speed: Summary) -> Goal {
    let Wanted { of, to, limit } = wanted;
    // `floor` is the worst acceptable ratio: the lowest for speeds, the highest for times.
    let (found, words, goal, floor, met, is_acceptable) = match *limit {
        Limit::FasterBy { goal, floor } => {
            let words = "speed, at least";
            (speed, words, goal, floor, speed.median >= goal, speed.median >= floor)
        }
        Limit::SlowerBy { goal, floor } => {
            let time = speed.inverted(1.0);
            (time, "time, at most", goal, floor, time.median <= goal, time.median <= floor)
        }
    };
    let warning = if is_acceptable { "" } else { ", which is beyond the acceptable limit" };
    Goal {
        wanted: format!("{title}: {of} over {to}, {words} {goal} times (acceptable: {floor})"),
        found: format!("{}{warning}", with_interval(found, digits)),
        met,
    }
}

impl Figure {
    /// Computes the summary of the rounds, and the ratios to the references. Each reference is its name and the values of its
    /// rounds. Returns `None` if there are no rounds.
    fn new(rounds: Vec<f64>, references: impl Iterator<Item = (String, Vec<f64>)>) -> Option<Self> {
        let summary = Summary::of(&rounds)?;
        let ratios = references
            .filter_map(|(to, theirs)| {
                Summary::of(&pair_ratios(&rounds, &theirs)).map(|summary| Ratio { to, summary })
            })
            .collect();
        Some(Self { summary, ratios, rounds })
    }

    /// Returns the ratio to a reference, or `None` if the reference has no such figure.
    pub fn ratio_to(&self, reference: &str) -> Option<Summary> {
        self.ratios.iter().find(|ratio| ratio.to == reference).map(|ratio| ratio.summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Contender, Side, Work};

    /// Returns samples with these speeds and with these costs, one of each for a round.
    fn samples(per_second: &[f64], nanoseconds: &[Option<f64>]) -> Samples {
        let cost =
            nanoseconds.iter().map(|nanoseconds| Counts { nanoseconds: *nanoseconds, ..Counts::default() });
        Samples { per_second: per_second.to_vec(), cost: cost.collect() }
    }

    /// Returns the results of a measurement of two contenders, `fast` and `slow`, the second of which is the reference.
    fn measured(samples: &[Samples]) -> Measured {
        const PAIR: &[Contender] = &[
            Contender { name: "fast", work: Work::Expression("1") },
            Contender { name: "slow", work: Work::Expression("2") },
        ];
        let measurement = Measurement {
            id: "id".into(),
            group: "group",
            title: "title".into(),
            side: Side::Read,
            clients: 1,
            pipeline: 1,
            keys: 1,
            contenders: PAIR,
            references: &["slow"],
            wanted: &[
                Wanted { of: "fast", to: "slow", limit: Limit::FasterBy { goal: 4.0, floor: 3.0 } },
                Wanted { of: "fast", to: "slow", limit: Limit::SlowerBy { goal: 0.2, floor: 0.3 } },
            ],
            shown_as: Shown::Rate,
            counted: true,
        };
        Measured::new(&measurement, samples)
    }

    /// Fails if a ratio is upside down, or if a goal or its acceptable limit is compared in the wrong direction.
    #[test]
    fn a_ratio_is_own_over_reference() {
        let measured = measured(&[
            samples(&[30.0, 20.0, 40.0], &[Some(5.0)]),
            samples(&[10.0, 10.0, 10.0], &[Some(10.0)]),
        ]);
        let [fast, slow] = &measured.contenders[..] else { panic!("two take part") };
        let ratio = fast.operations_per_second.ratio_to("slow").unwrap();
        assert_eq!((ratio.low, ratio.median, ratio.high), (2.0, 3.0, 4.0));
        assert_eq!(slow.operations_per_second.ratio_to("slow").unwrap().median, 1.0);
        let cost = fast.server_nanoseconds.as_ref().unwrap();
        assert_eq!((cost.summary.median, cost.ratio_to("slow").unwrap().median), (5.0, 0.5));
        // A factor of three misses the goal of four, and a third of the time is more than three tenths.
        assert!(measured.goals.iter().all(|goal| !goal.met));
        let missed: Vec<_> =
            measured.goals.iter().map(|goal| goal.found.contains("beyond the acceptable limit")).collect();
        assert_eq!(missed, [false, true]);
    }

    /// Fails if a cost that perf counted in some of the rounds only is shown.
    #[test]
    fn a_count_that_is_missing_in_a_round_is_absent() {
        let measured = measured(&[samples(&[1.0, 1.0], &[Some(5.0), None]), samples(&[1.0, 1.0], &[])]);
        assert!(measured.contenders.iter().all(|entry| entry.server_nanoseconds.is_none()));
    }
}
