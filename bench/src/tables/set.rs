//! The part `tables-set` of the report: measures what the table tier, which saves values in tables, costs the sessions that set new
//! keys. The saver, a background worker, works beside them on the same cores.

use super::side::{HOT_SIZE, Side, TABLE_BYTES, with_tables, without_tables};
use super::{SAVED_BYTES, Target};
use crate::data::FIRST_KEY;
use crate::drive::Load;
use crate::drive::wire::{Pool, Task, Until};
use crate::pace::Pace;
use crate::plan::Given;
use crate::report::notation::{digits, rate, with_interval};
use crate::report::section::{Goal, Section, Table};
use crate::rounds::turns;
use crate::statistics::{Summary, pair_ratios};
use serde::Serialize;
use std::time::Duration;

/// In a full memory: the sets per second with the table tier, divided by those without it.
const FULL: Target = Target { goal: 0.9, floor: 0.8 };
/// In a memory with room: the sets per second with the table tier, divided by those without it.
const ROOMY: Target = Target { goal: 0.97, floor: 0.93 };
/// The number of sessions that set values at the same time.
const CLIENTS: u32 = 8;
/// The size of a memory in which all values of a run have room.
const ROOMY_SIZE: &str = "2GB";
/// The pause before each turn, in which the saver catches up with what the other side has set.
const PAUSE: Duration = Duration::from_millis(500);
const STATEMENT: &str = "SELECT cache_set_text($1, $2, '1 day')";
/// The names of the two servers in the report.
const ON: &str = "with the table tier";
const OFF: &str = "without the table tier";

/// Returns about how long the part takes.
pub fn estimate(pace: &Pace) -> Duration {
    // Two comparisons of two servers, with one round more than counts. Starting and filling the servers takes about 15 s.
    (span(pace) + PAUSE) * (4 * (pace.write_rounds + 1)) as u32 + Duration::from_secs(15)
}

/// Returns the duration of a turn: longer than those of other writes, so that the saver does most of its work within the turn.
fn span(pace: &Pace) -> Duration {
    pace.write * 3
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let contests = [
        Contest::hold("full memory", HOT_SIZE, pace, |side| {
            side.fill_memory("default", FIRST_KEY);
        }),
        Contest::hold("memory with room", ROOMY_SIZE, pace, |_| ()),
    ];
    let mut table = Table::new(2, ["", "contender", "sets per second", "× other"]);
    for contest in &contests {
        let rows = [(ON, &contest.on, with_interval(contest.ratio, digits)), (OFF, &contest.off, "1".into())];
        for (place, (name, rates, ratio)) in rows.into_iter().enumerate() {
            let title = if place == 0 { contest.title } else { "" };
            let rates = Summary::of(rates).expect("there are rounds");
            table.rows.push(vec![title.into(), name.into(), with_interval(rates, rate), ratio]);
        }
    }
    Section {
        id: "tables-set".into(),
        title: "Sets with the table tier".into(),
        goals: vec![contests[0].goal(&FULL), contests[1].goal(&ROOMY)],
        tables: vec![table],
        explained: vec![format!(
            "`cache_set_text` of new keys of 13 bytes with values of {SAVED_BYTES} bytes, all operations writes: prepared statements over a \
             Unix socket by {CLIENTS} clients. Each set commits. The full memory has {HOT_SIZE}, and each set evicts a value; the memory \
             with room has {ROOMY_SIZE}, and evicts none. Both sides have the default settings of the saver. The servers run side by \
             side and take turns of {} ms in {} rounds, with a pause of {} ms before each turn, so that the saver of one side does not \
             slow down the other. `× other` is a ratio of rates: more is better.",
            span(pace).as_millis(),
            pace.write_rounds,
            PAUSE.as_millis(),
        )],
        figures: serde_json::json!({ "contests": contests }),
    }
}

/// The comparison of a server with the table tier and one without, which run in turns: their rates in sets per second, round by
/// round.
#[derive(Serialize)]
struct Contest {
    /// The title in the report.
    title: &'static str,
    /// The rates with the table tier.
    on: Vec<f64>,
    /// The rates without the table tier.
    off: Vec<f64>,
    /// `on` divided by `off`, round by round.
    ratio: Summary,
}

impl Contest {
    /// Starts two servers with memories of `hot_size`, prepares both, and sets values on them in turns.
    fn hold(title: &'static str, hot_size: &str, pace: &Pace, prepare: impl Fn(&Side)) -> Self {
        let sides =
            [with_tables(hot_size, TABLE_BYTES), without_tables(hot_size)].map(|conf| Side::start(&conf));
        sides.iter().for_each(prepare);
        let mut pools = [Pool::default(), Pool::default()];
        let mut rates = [Vec::new(), Vec::new()];
        let load = Load { clients: CLIENTS, pipeline: 1, keys: 1 };
        let before = sides.each_ref().map(evicted);
        for round in 0..=pace.write_rounds {
            for turn in turns(round, 2) {
                std::thread::sleep(PAUSE);
                let task =
                    Task { statement: STATEMENT, given: Given::NewKeyAndText, load, seed: round as u64 };
                let run = pools[turn].run(&sides[turn].cluster, task, Until::Over(span(pace)));
                rates[turn].push(run.unwrap_or_else(|error| panic!("{title}: {error:#}")).per_second);
            }
        }
        for (side, before) in sides.iter().zip(before) {
            let is_full = hot_size == HOT_SIZE;
            assert_eq!(evicted(side) > before, is_full, "the memory evicts values only if it is full");
        }
        // The first round does not count.
        let [on, off] = rates.map(|all| all[1..].to_vec());
        let ratio = Summary::of(&pair_ratios(&on, &off)).expect("there are rounds");
        Self { title, on, off, ratio }
    }

    /// Returns the goal that the server with the table tier is nearly as fast as the other one.
    fn goal(&self, target: &Target) -> Goal {
        target.at_least(
            &format!("{}: sets per second, of those without the table tier", self.title),
            self.ratio,
            digits,
        )
    }
}

/// Returns how many values were evicted so far.
fn evicted(side: &Side) -> u64 {
    side.number("SELECT coalesce(sum(evicted), 0)::bigint FROM cache_stats")
}
