//! Runs the *contenders* of the plan (`plan.rs`), the alternatives that a measurement compares, in *rounds*. In each round, each
//! contender runs once, so that other activity of the machine affects all of them equally.

use crate::counters::{Counters, Counts, Meter};
use crate::drive::Driver;
use crate::pace::Pace;
use crate::plan::Measurement;
use crate::progress::Progress;
use crate::test_servers::TestServers;
use anyhow::Result;
use std::time::Duration;

/// The results of all runs of one contender in one measurement, one per round.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Operations per second.
    pub per_second: Vec<f64>,
    /// The cost of one operation on the server, from the counting rounds. Empty if the measurement is not counted, or if perf
    /// cannot count on this machine.
    pub cost: Vec<Counts>,
}

/// Runs all measurements: a warm-up, the timed rounds, and then the rounds that count the server's cost. The samples have the same
/// order as the measurements and contenders of the plan.
pub fn run(
    test_servers: &TestServers,
    plan: &[Measurement],
    pace: &Pace,
    counters: &Counters,
) -> Result<Vec<Vec<Samples>>> {
    let drivers: Vec<Vec<Driver>> = plan
        .iter()
        .map(|measurement| {
            measurement
                .contenders
                .iter()
                .map(|contender| Driver::new(test_servers, measurement, contender))
                .collect()
        })
        .collect();
    let mut samples: Vec<Vec<Samples>> =
        drivers.iter().map(|contender| vec![Samples::default(); contender.len()]).collect();
    let mut progress = Progress::begin("with servers", estimate(plan, pace, counters));

    progress.say("warming up");
    for driver in drivers.iter().flatten() {
        // The first run only finds the speed, for drivers that need a number of operations. The second then has the right length.
        driver.run(pace.warm_up / 4)?;
        driver.run(pace.warm_up)?;
    }

    let steps = plan.iter().map(|measurement| pace.rounds(measurement.side)).max().unwrap_or(0);
    for step in 0..steps {
        for (index, measurement) in plan.iter().enumerate() {
            let Some(round) = round_in(step, steps, pace.rounds(measurement.side)) else { continue };
            progress.say(&format!(
                "round {} of {steps}: {}, {}",
                step + 1,
                measurement.group,
                measurement.title
            ));
            for turn in turns(round, drivers[index].len()) {
                let run = drivers[index][turn].run(pace.span(measurement.side))?;
                samples[index][turn].per_second.push(run.per_second);
            }
        }
    }

    for round in 0..if counters.work() { pace.counted_rounds } else { 0 } {
        for (index, measurement) in plan.iter().enumerate().filter(|(_, measurement)| measurement.counted) {
            progress.say(&format!(
                "counting, {} of {}: {}, {}",
                round + 1,
                pace.counted_rounds,
                measurement.group,
                measurement.title
            ));
            for turn in turns(round, drivers[index].len()) {
                samples[index][turn].cost.push(cost(&drivers[index][turn], pace.counted)?);
            }
        }
    }
    progress.end();
    Ok(samples)
}

/// Returns the server's cost of one more operation: the difference of a long and a short run. The costs of connecting, preparing
/// and disconnecting are the same in both runs and cancel out. A session that stays connected has no such costs.
fn cost(driver: &Driver, [short, long]: [Duration; 2]) -> Result<Counts> {
    let processes = driver.server_processes()?;
    let count = |span| -> Result<(u64, Counts)> {
        // If perf fails now, after it worked at the start, the row loses its cost, but the run keeps its results.
        let meter = Meter::start(&processes).ok();
        let run = driver.run(span)?;
        let counts = meter.and_then(|meter| meter.stop().ok()).unwrap_or_default();
        Ok((run.operations, counts))
    };
    let start = if driver.connects() { count(short)? } else { (0, Counts::NOTHING) };
    Ok(difference(start, count(long)?))
}

/// Returns the additional cost of each additional operation. A run is given as its number of operations and their total cost. A
/// cost is `None` if a count is missing, or if the second run did no more operations than the first.
fn difference((fewer, less): (u64, Counts), (more, most): (u64, Counts)) -> Counts {
    let operations = more.saturating_sub(fewer);
    let each = |least: Option<f64>, most: Option<f64>| {
        (operations > 0).then_some(())?;
        Some((most? - least?) / operations as f64)
    };
    Counts {
        nanoseconds: each(less.nanoseconds, most.nanoseconds),
        instructions: each(less.instructions, most.instructions),
        cycles: each(less.cycles, most.cycles),
    }
}

/// Spreads `rounds` evenly over `steps`, so that a measurement with few rounds sees the same changes of the machine's speed as one
/// with many. Returns the number of the round that belongs to a step, or `None` if the step has none. There must be at most as many
/// rounds as steps.
fn round_in(step: usize, steps: usize, rounds: usize) -> Option<usize> {
    let done_after = |step: usize| step * rounds / steps;
    (done_after(step + 1) > done_after(step)).then(|| done_after(step))
}

/// Returns the order of the contenders in one round, by their numbers. Every second round runs backwards. In `2 * contenders`
/// rounds, each contender is the first exactly twice. So no contender always runs after the same other one, whose work may have
/// warmed or emptied the caches of the machine.
pub fn turns(round: usize, contenders: usize) -> impl Iterator<Item = usize> {
    let forth = (0..contenders).map(move |place| (place + round / 2) % contenders.max(1));
    let order: Vec<usize> = if round.is_multiple_of(2) { forth.collect() } else { forth.rev().collect() };
    order.into_iter()
}

/// Returns about how long all measurements take: the runs, and the start of a program for each run. A program starts in about 80
/// ms, and a counting round starts perf and two programs of a contender that connects.
fn estimate(plan: &[Measurement], pace: &Pace, counters: &Counters) -> Duration {
    let start = Duration::from_millis(80);
    plan.iter()
        .map(|measurement| {
            let rounds = u32::try_from(pace.rounds(measurement.side)).unwrap_or(u32::MAX);
            let mut each = pace.warm_up + (pace.span(measurement.side) + start) * rounds;
            if counters.work() && measurement.counted {
                let rounds = u32::try_from(pace.counted_rounds).unwrap_or(u32::MAX);
                each += (pace.counted[0] + pace.counted[1] + start * 3) * rounds;
            }
            each * u32::try_from(measurement.contenders.len()).unwrap_or(u32::MAX)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a round is lost or repeated, or if the rounds of a measurement are not spread over the whole run.
    #[test]
    fn every_round_happens_once_and_they_are_spread() {
        for (steps, rounds) in [(24, 24), (24, 9), (20, 6), (6, 1)] {
            let happened: Vec<_> = (0..steps).filter_map(|step| round_in(step, steps, rounds)).collect();
            assert_eq!(happened, (0..rounds).collect::<Vec<_>>());
        }
        let busy: Vec<_> = (0..20).filter(|step| round_in(*step, 20, 5).is_some()).collect();
        assert_eq!(busy, [3, 7, 11, 15, 19]);
    }

    /// Fails if a contender is left out of a round, if one is the first more often than another, or if the second round does not
    /// run backwards.
    #[test]
    fn every_contender_runs_in_each_round_and_goes_first_in_turn() {
        let mut first = [0; 3];
        for round in 0..6 {
            let mut order: Vec<_> = turns(round, 3).collect();
            first[order[0]] += 1;
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2]);
        }
        assert_eq!(first, [2, 2, 2]);
        assert_eq!(turns(0, 2).chain(turns(1, 2)).collect::<Vec<_>>(), [0, 1, 1, 0]);
    }

    /// Fails if the cost of connecting, here 1 ms in both runs, counts as a cost of the operations.
    #[test]
    fn costs_that_both_runs_have_cancel_out() {
        let counts = |nanoseconds| Counts { nanoseconds: Some(nanoseconds), ..Counts::default() };
        let cost = difference((100, counts(1e6 + 100.0 * 20.0)), (600, counts(1e6 + 600.0 * 20.0)));
        assert!((cost.nanoseconds.unwrap() - 20.0).abs() < 1e-6);
        assert_eq!(cost.instructions, None);
    }

    /// Fails if two runs with the same number of operations give a cost: a division by zero.
    #[test]
    fn runs_of_the_same_length_give_no_cost() {
        let counts = Counts { nanoseconds: Some(1.0), ..Counts::default() };
        assert_eq!(difference((100, counts), (100, counts)).nanoseconds, None);
    }
}
