//! The part `tax` of the report: measures how much the library slows down writes to tables that cached values depend on: the *tax
//! on writes*.
//!
//! The contenders are servers that run the same statement: one without the library, one with pg_cache, and a second one without the
//! library, which shows the noise of the machine. For comparison, two more contenders report each change by a hand-written trigger:
//! one with `pg_notify`, and one that deletes from Redis.
//!
//! `sides` starts the servers, `operation` lists the statements, and `contest` times them. The contenders take turns, and a *pair*
//! is one round of such turns. `instructions` counts the instructions of a statement.

mod contest;
mod instructions;
mod operation;
mod sides;

use crate::counters::{Counters, Counts};
use crate::data::KEYS;
use crate::pace::Pace;
use crate::report::notation::{count, digits, time, with_interval};
use crate::report::section::{Goal, Section, Table};
use crate::statistics::{Summary, pair_ratios};
use contest::{Contender, Found, Rules, hold};
use operation::{OPERATIONS, Operation};
use serde::Serialize;
use sides::{NOTIFY, PLAIN, REDIS, Sides};
use std::time::Duration;

/// The names of the contenders. The ratios compare all of them with the first.
const WITHOUT: &str = "without the library";
const WITH: &str = "with pg_cache";
const CONTROL: &str = "without the library, once more";
const BY_NOTIFY: &str = "without, a trigger with pg_notify";
const BY_REDIS: &str = "without, a trigger that deletes from Redis";
/// The numbers of clients. Each operation is compared with each of them.
const CLIENTS: [u32; 2] = [1, 8];
/// How much longer a write may take with pg_cache, as a fraction of its time, by the median.
const TAX_MAX: f64 = 0.03;

/// Returns about how long the part takes.
pub fn estimate(pace: &Pace) -> Duration {
    let each = |operation: &Operation, clients: u32| {
        // The speeds of the contenders with triggers are far from the first one's. The slowest needs several times as long for the
        // same number of operations, so all three together need about half as long again as three equal ones.
        let far =
            if operation.writes { Rules::far(pace, clients).estimate(3) * 3 / 2 } else { Duration::ZERO };
        Rules::close(pace, clients).estimate(3) + far
    };
    let all = OPERATIONS.iter().flat_map(|operation| CLIENTS.map(|clients| each(operation, clients)));
    all.sum::<Duration>() + Duration::from_secs(40)
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let sides = Sides::make();
    let counters = Counters::of_process(std::process::id());
    let mut rivalries = Vec::new();
    for operation in &OPERATIONS {
        for clients in CLIENTS {
            let title =
                format!("{}, {clients} client{}", operation.name, if clients == 1 { "" } else { "s" });
            let close = [
                operation.contender(WITHOUT, &sides.without, PLAIN),
                operation.contender(WITH, &sides.with, PLAIN),
                operation.contender(CONTROL, &sides.control, PLAIN),
            ];
            let rules = Rules { counted: counters.work(), ..Rules::close(pace, clients) };
            let found = hold(
                &close,
                rules,
                || {
                    close.iter().for_each(|contender| contender.side.clear(contender.schema));
                    sides.depend();
                },
                || sides.check_dependents(!operation.writes),
            );
            let mut rivalry = Rivalry::of(title, operation.writes, &close, &found);
            if operation.writes {
                let mut far = vec![
                    operation.contender(WITHOUT, &sides.without, PLAIN),
                    operation.contender(BY_NOTIFY, &sides.without, NOTIFY),
                ];
                if sides.reaches_redis {
                    far.push(operation.contender(BY_REDIS, &sides.without, REDIS));
                }
                let rules = Rules { counted: counters.work(), ..Rules::far(pace, clients) };
                let clear = || far.iter().for_each(|contender| contender.side.clear(contender.schema));
                let found = hold(&far, rules, clear, || ());
                // The first contender has a row from the comparison before.
                rivalry.rivals.extend(Rivalry::of(String::new(), true, &far, &found).rivals.split_off(1));
            }
            rivalries.push(rivalry);
        }
    }
    sides.check_alike();
    let instructions = instructions::can_be_counted().then(|| instructions::measure(&sides, &OPERATIONS));
    let tables = [table(&rivalries)].into_iter().chain(instructions.as_deref().map(instructions::table));
    Section {
        id: "tax".into(),
        title: "Cost for writers".into(),
        goals: rivalries.iter().map(Rivalry::goal).collect(),
        tables: tables.collect(),
        explained: explained(pace, &counters, sides.reaches_redis, instructions.is_some()),
        figures: serde_json::json!({ "rivalries": rivalries, "instructions": instructions }),
    }
}

/// One operation, with the results of all contenders.
#[derive(Serialize)]
struct Rivalry {
    title: String,
    /// Whether the operation writes: this decides the goal.
    writes: bool,
    /// The contenders. The first is the server without the library.
    rivals: Vec<Rival>,
}

/// The results of one contender. The ratios are to the first contender, computed pair by pair.
#[derive(Serialize)]
struct Rival {
    name: &'static str,
    /// The time of a transaction.
    nanoseconds: Compared,
    /// The cost of a transaction in the processes of the sessions: processor time and instructions. `None` if it was not counted in
    /// every pair.
    server_nanoseconds: Option<Compared>,
    server_instructions: Option<Compared>,
}

/// One quantity of a contender: its median over the pairs, and the median of its ratios to the first contender.
#[derive(Serialize)]
struct Compared {
    summary: Summary,
    ratio: Summary,
    /// The value of each pair.
    pairs: Vec<f64>,
}

impl Compared {
    /// Compares the values of a contender with those of the first, pair by pair. Returns `None` if there are no pairs.
    fn with(own: Vec<f64>, first: &[f64]) -> Option<Self> {
        Some(Self { summary: Summary::of(&own)?, ratio: Summary::of(&pair_ratios(&own, first))?, pairs: own })
    }
}

impl Rivalry {
    /// Compares the results of the contenders, pair by pair, with those of the first contender. `found` has the order of the
    /// contenders.
    fn of(title: String, writes: bool, contenders: &[Contender<'_>], found: &[Found]) -> Self {
        let cost = |own: &Found, kind: fn(&Counts) -> Option<f64>| {
            let all = |found: &Found| found.costs.iter().map(kind).collect::<Option<Vec<_>>>();
            Compared::with(all(own)?, &all(&found[0])?)
        };
        let rivals = contenders.iter().zip(found).map(|(contender, own)| Rival {
            name: contender.name,
            nanoseconds: Compared::with(own.times.clone(), &found[0].times).expect("there are pairs"),
            server_nanoseconds: cost(own, |counts| counts.nanoseconds),
            server_instructions: cost(own, |counts| counts.instructions),
        });
        Self { title, writes, rivals: rivals.collect() }
    }

    /// Returns the ratio of the times of a contender, which must take part, to those of the first.
    fn ratio(&self, name: &str) -> Summary {
        let rival = self.rivals.iter().find(|rival| rival.name == name).expect("it takes part");
        rival.nanoseconds.ratio
    }

    /// Returns the goal of the operation: a write is judged by its median, a read by whether the confidence interval of its ratio
    /// contains 1. The result also shows the control server, because the difference between two equal servers tells how precise the
    /// ratio is.
    fn goal(&self) -> Goal {
        let (with, control) = (self.ratio(WITH), self.ratio(CONTROL));
        let (wanted, met) = if self.writes {
            (format!("at most {:.0} % slower", TAX_MAX * 100.0), with.median <= 1.0 + TAX_MAX)
        } else {
            ("no measurable cost: the interval contains 1".into(), (with.low..=with.high).contains(&1.0))
        };
        Goal {
            wanted: format!("{}: {wanted}", self.title),
            found: format!("{}; {CONTROL}: {}", near_one(with), near_one(control)),
            met,
        }
    }
}

/// Formats a ratio. Near 1, the third digit after the decimal point matters.
fn near_one(ratio: Summary) -> String {
    with_interval(ratio, |ratio| if ratio < 1.995 { format!("{ratio:.3}") } else { digits(ratio) })
}

/// Returns the results as a table. The columns of the instructions are left out if perf could not count them.
fn table(rivalries: &[Rivalry]) -> Table {
    let counted = rivalries.iter().any(|rivalry| rivalry.rivals[0].server_instructions.is_some());
    let mut head =
        vec!["", "contender", "one transaction", "× without", "server's processor time", "× without"];
    if counted {
        head.extend(["server's instructions", "× without"]);
    }
    let mut table = Table::new(2, head);
    for rivalry in rivalries {
        for (place, rival) in rivalry.rivals.iter().enumerate() {
            let ratio = |compared: &Compared| if place == 0 { "1".into() } else { near_one(compared.ratio) };
            let cells = |compared: Option<&Compared>, notation: fn(f64) -> String| match compared {
                Some(compared) => [with_interval(compared.summary, notation), ratio(compared)],
                None => ["–".into(), "–".into()],
            };
            let mut row =
                vec![if place == 0 { rivalry.title.clone() } else { String::new() }, rival.name.into()];
            row.extend(cells(Some(&rival.nanoseconds), time));
            row.extend(cells(rival.server_nanoseconds.as_ref(), time));
            if counted {
                row.extend(cells(rival.server_instructions.as_ref(), count));
            }
            table.rows.push(row);
        }
    }
    table
}

/// Explains the part. `reaches_redis`: a trigger has reached Redis. `are_counted`: valgrind has counted instructions.
fn explained(pace: &Pace, counters: &Counters, reaches_redis: bool, are_counted: bool) -> Vec<String> {
    let redis = if reaches_redis {
        "The other trigger is in PL/Python: each session keeps a socket to a Redis on the same machine, sends `DEL` for each row, and waits \
         for the answer. The trigger deletes before the commit, which is too early: a reader may store the old value again."
    } else {
        "A trigger that reaches Redis is left out, because this PostgreSQL comes without PL/Python."
    };
    let instructions = if are_counted {
        "Instructions of one transaction are counted under callgrind, in separate runs, as the difference between a session with many \
         transactions and a session with few. They do not include the kernel's instructions."
    } else {
        "Instructions of one transaction are not counted, because there is no valgrind."
    };
    vec![
        format!(
            "Prepared statements over a socket, by primary key, each in its own transaction: an UPDATE of one of {} rows whose new version \
             fits on its page, an INSERT with a number from a sequence, and a SELECT. The servers are separate clusters of the same \
             build, with the same settings and data. Only one of them loads the library. That server watches both tables. Before each \
             pair it stores 1000 entries that depend on the tables by a tag, and 100 results of queries that have read the tables. \
             After a pair of writes, all of these are misses. synchronous_commit and fsync are off, so no time for the disk hides the \
             cost of the library. No vacuum and no checkpoint runs during the measurement.",
            count(KEYS as f64)
        ),
        format!(
            "The ratios compare times, so less is better. There are {} pairs. In each pair, each contender has {} turns of {} ms, one after \
             the other, with each contender first in turn, and does the same number of transactions. The servers are restarted \
             before each {}, because the memory layout of a server changes its speed by one or two percent, for all of its \
             sessions. `{CONTROL}` is a third cluster, set up like the first. Its ratio shows the noise of the machine. A goal of \
             3 % is only as reliable as the interval of that ratio is narrow. The servers' processor time is the time of the \
             sessions' processes, measured in separate runs. {}",
            pace.write_rounds,
            pace.turns,
            pace.turn.as_millis(),
            if pace.pairs_per_start == 1 { "pair".into() } else { format!("{} pairs", pace.pairs_per_start) },
            counters.verdict()
        ),
        format!(
            "The triggers are for comparison. They are AFTER triggers FOR EACH ROW, and run in separate pairs with shorter turns on the server \
             without the library. One trigger calls `pg_notify` in PL/pgSQL. No session listens, so this is the lowest cost of it. \
             {redis}"
        ),
        instructions.into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the results of six pairs, in which a transaction takes 100 ns without the library, `with` with it, and 101 ns on the
    /// control server.
    fn rivalry(writes: bool, with: &[f64]) -> Rivalry {
        let rival = |name, times: &[f64]| Rival {
            name,
            nanoseconds: Compared::with(times.to_vec(), &[100.0; 6]).unwrap(),
            server_nanoseconds: None,
            server_instructions: None,
        };
        let rivals = vec![rival(WITHOUT, &[100.0; 6]), rival(WITH, with), rival(CONTROL, &[101.0; 6])];
        Rivalry { title: "t".into(), writes, rivals }
    }

    /// Fails if the goal of a write is judged by anything but the median, or if its limit is not 3 %.
    #[test]
    fn a_write_may_take_a_little_longer_by_the_median() {
        assert!(rivalry(true, &[90.0, 103.0, 103.0, 103.0, 103.0, 150.0]).goal().met);
        assert!(!rivalry(true, &[90.0, 103.2, 103.2, 103.2, 103.2, 150.0]).goal().met);
    }

    /// Fails if the goal of a read is met although the confidence interval does not contain 1, or missed although it does.
    #[test]
    fn a_read_may_not_be_measurably_slower() {
        assert!(rivalry(false, &[99.0, 101.0, 102.0, 102.0, 102.0, 103.0]).goal().met);
        assert!(!rivalry(false, &[101.0, 101.0, 101.0, 101.0, 101.0, 101.0]).goal().met);
        let found = rivalry(false, &[98.0, 101.0, 102.0, 102.0, 102.0, 103.0]).goal().found;
        assert_eq!(found, "1.020 (0.980 – 1.030); without the library, once more: 1.010 (1.010 – 1.010)");
    }

    /// Fails if a missing count becomes a number, or if the table has columns for instructions that were not counted.
    #[test]
    fn a_missing_count_is_a_dash() {
        let table = table(&[rivalry(true, &[300.0; 6])]);
        assert_eq!(table.head.len(), 6);
        assert_eq!(table.rows[0][3..], ["1", "–", "–"]);
        assert_eq!(table.rows[1][3], "3.00 (3.00 – 3.00)");
        assert!(table.rows.iter().all(|row| row.len() == table.head.len()));
    }
}
