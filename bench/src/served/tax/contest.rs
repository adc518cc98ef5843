//! Compares several *contenders* of the part `tax` of the report: in a *contest*, the same statement runs on several servers, or on
//! several tables.
//!
//! A contest consists of *pairs*. In a pair, each contender has several short turns, and the contenders take them one after the
//! other, so that other activity of the machine affects all of them equally. In each pair, all contenders do the same number of
//! operations, so that their tables change equally much. A pair gives one time of each contender.
//!
//! The servers are restarted before each group of pairs: the memory layout of a server process may influence its speed, and all its
//! sessions inherit the layout. Without restarts, all pairs would have the same layout.

use super::sides::{Side, restart};
use crate::counters::{Counts, Meter};
use crate::drive::Load;
use crate::drive::one_core::OneCore;
use crate::drive::wire::{Pool, Task, Until};
use crate::pace::Pace;
use crate::plan::Given;
use crate::rounds::turns;
use std::time::Duration;

/// A contender: a statement on a server.
pub struct Contender<'a> {
    /// The name as shown.
    pub name: &'static str,
    /// The server.
    pub side: &'a Side,
    /// The schema of the tables.
    pub schema: &'static str,
    /// A statement about a row of a table in the schema. Its parameter `$1` is the number of the row.
    pub statement: String,
}

/// The results of one contender, pair by pair. `costs` is empty if the rules do not count them.
#[derive(Default)]
pub struct Found {
    /// Nanoseconds per operation: 10^9 divided by the operations per second of all clients together, on average over the turns.
    pub times: Vec<f64>,
    /// The cost of one operation in the processes of the server.
    pub costs: Vec<Counts>,
}

/// The rules of a contest: how many turns and pairs it has, and how long they are.
#[derive(Clone, Copy)]
pub struct Rules {
    /// The number of sessions that work at the same time.
    pub clients: u32,
    /// The number of pairs: each gives one time, and one cost, of each contender.
    pub pairs: usize,
    /// The turns of each contender in a pair.
    pub turns: usize,
    /// About how long a turn of the first contender takes. A probe before the first pair finds how many operations that is, and
    /// every turn of every contender does that many.
    pub turn: Duration,
    /// How many pairs the servers serve before they are restarted.
    pub pairs_per_start: usize,
    /// Whether the cost of an operation is counted too.
    pub counted: bool,
}

/// About how long a restart of the servers takes.
const START: Duration = Duration::from_millis(1200);

impl Rules {
    /// Returns the rules for contenders whose speeds are similar. The caller sets `counted` to false if perf cannot count, which
    /// saves time.
    pub fn close(pace: &Pace, clients: u32) -> Self {
        let Pace { turns, turn, pairs_per_start, write_rounds: pairs, .. } = *pace;
        Self { clients, pairs, turns, turn, pairs_per_start, counted: true }
    }

    /// Returns the rules for contenders whose speeds are far apart. Fewer and shorter turns are enough for them, and the servers
    /// are not restarted between pairs.
    pub fn far(pace: &Pace, clients: u32) -> Self {
        let close = Self::close(pace, clients);
        Self { turns: 2, turn: close.turn / 2, pairs_per_start: close.pairs, ..close }
    }

    /// The cost is counted in one run of each pair. Returns how many times the operations of a turn this run has.
    fn counted_turns(&self) -> usize {
        (self.turns / 2).max(2)
    }

    /// Returns about how long the contest takes, with this number of contenders.
    pub fn estimate(&self, contenders: u32) -> Duration {
        // One turn is added for the start, and a fixed time for the start of the program that counts.
        let each = self.turn * (self.turns + self.counted_turns() + 1) as u32 + Duration::from_millis(120);
        each * contenders * self.pairs as u32 + START * self.pairs.div_ceil(self.pairs_per_start) as u32
    }
}

/// Holds the contest, and returns the results in the order of the contenders. `prepare` is called before each pair, and `check`
/// after it, both while no session of the contest is open. The first contender sets the number of operations. Contenders of the
/// same server must stand next to each other: otherwise that server would be restarted twice at the same time. Panics if a
/// statement fails.
pub fn hold(contenders: &[Contender<'_>], rules: Rules, prepare: impl Fn(), check: impl Fn()) -> Vec<Found> {
    let load = Load { clients: rules.clients, pipeline: 1, keys: 1 };
    // As in the other parts, a single client and its server share a core. The servers inherit the core, because this thread starts
    // them.
    let _alone = (rules.clients == 1).then(|| OneCore::hold(&[]).expect("a core can be chosen"));
    let mut sides: Vec<&Side> = contenders.iter().map(|contender| contender.side).collect();
    sides.dedup_by(|one, other| std::ptr::eq(*one, *other));
    restart(&sides);
    // `moment` is the number of a turn in the whole contest, and the seed of the keys. So in the same turn, all contenders use the
    // same keys, and in another turn other ones. Only the two probes below have the numbers of turns of the first pair.
    let work = |pool: &mut Pool, contender: &Contender<'_>, moment: usize, until: Until| {
        let task = Task { statement: &contender.statement, given: Given::Row, load, seed: moment as u64 };
        pool.run(&contender.side.cluster, task, until)
            .unwrap_or_else(|error| panic!("{}: {error:#}", contender.name))
    };
    let speed = {
        let mut pool = Pool::default();
        work(&mut pool, &contenders[0], 0, Until::Over(rules.turn));
        work(&mut pool, &contenders[0], 1, Until::Over(rules.turn * 2)).per_second
    };
    let operations = ((speed * rules.turn.as_secs_f64()) as u64).max(u64::from(rules.clients));

    let mut found: Vec<Found> = contenders.iter().map(|_| Found::default()).collect();
    for pair in 0..rules.pairs {
        if pair > 0 && pair.is_multiple_of(rules.pairs_per_start) {
            restart(&sides);
        }
        prepare();
        let first = pair * (rules.turns + 2);
        let mut pools: Vec<Pool> = contenders.iter().map(|_| Pool::default()).collect();
        for (pool, contender) in pools.iter_mut().zip(contenders) {
            // These operations are not timed: each new session prepares the plan, and fills its caches of relations.
            work(pool, contender, first, Until::Done(operations));
        }
        let mut times = vec![0.0; contenders.len()];
        for turn in 0..rules.turns {
            for place in turns(pair * rules.turns + turn, contenders.len()) {
                times[place] += 1e9
                    / work(&mut pools[place], &contenders[place], first + 1 + turn, Until::Done(operations))
                        .per_second;
            }
        }
        for (found, time) in found.iter_mut().zip(times) {
            found.times.push(time / rules.turns as f64);
        }
        if rules.counted {
            for place in turns(pair, contenders.len()) {
                let processes = pools[place].processes(&contenders[place].side.cluster, load.clients);
                let meter = Meter::start(&processes.expect("the sessions are there")).ok();
                let some = Until::Done(operations * rules.counted_turns() as u64);
                let done =
                    work(&mut pools[place], &contenders[place], first + 1 + rules.turns, some).operations;
                let counts = meter.and_then(|meter| meter.stop().ok()).unwrap_or_default();
                found[place].costs.push(each(counts, done));
            }
        }
        drop(pools);
        check();
    }
    found
}

/// Divides the counts of some operations by their number.
fn each(counts: Counts, operations: u64) -> Counts {
    let each = |count: Option<f64>| count.map(|count| count / operations as f64);
    Counts {
        nanoseconds: each(counts.nanoseconds),
        instructions: each(counts.instructions),
        cycles: each(counts.cycles),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a count is not divided, or if a count that perf could not make becomes a number.
    #[test]
    fn counts_are_divided_by_the_number_of_operations() {
        let counts = Counts { nanoseconds: Some(100.0), instructions: Some(50.0), cycles: None };
        let one = Counts { nanoseconds: Some(10.0), instructions: Some(5.0), cycles: None };
        assert_eq!(each(counts, 10), one);
    }

    /// Fails if a pace has fewer than 20 pairs, or an odd number of turns. The orders themselves are tested in `rounds.rs`.
    #[test]
    fn each_contender_goes_first_equally_often_in_a_pair() {
        for pace in [Pace::FULL, Pace::QUICK] {
            let rules = Rules::close(&pace, 1);
            assert!(rules.pairs >= 20);
            // Every second turn runs through the contenders backwards. With an even number of turns, each pair has as many turns in
            // one direction as in the other. The order of three contenders repeats after six turns. So in a full run, with 12 turns
            // in a pair, each contender is equally often the first in each pair. Over the 40 turns of a quick run, two contenders
            // differ by at most one turn as the first.
            assert!(rules.turns.is_multiple_of(2));
        }
    }
}
