//! The part `outward-calls` of the report: measures what the *broadcast* costs calls of `cache_get` and `cache_set` while no
//! session listens. With the broadcast (`pg_cache.notify`), a background worker sends the changes in the cache with NOTIFY. A
//! *contender* is one of the alternatives that a measurement compares.

use super::contest::{BY_WORK, Contender, Contest, table};
use super::side::{Side, quiet};
use super::switch::Subject;
use super::{BROADCAST, CLIENTS};
use crate::data::{FIRST_KEY, FIRST_WRITTEN_KEY, KEYS, VALUE_BYTES, json};
use crate::pace::Pace;
use crate::plan::Given;
use crate::report::notation::count;
use crate::report::section::Section;
use std::time::Duration;

/// The name of the contender without the broadcast.
const OFF: &str = "without the broadcast";
/// The name of the contender with the broadcast.
const ON: &str = "with the broadcast";
/// The time of a turn besides its work: the setting is changed, and the worker sends the rest of the changes.
const BETWEEN: Duration = Duration::from_millis(120);

/// Returns about how long the part takes: two contenders in each of two contests (`contest.rs`), with one round more than counts,
/// and 5 s for the start.
pub fn estimate(pace: &Pace) -> Duration {
    (pace.read + BETWEEN) * (2 * (pace.read_rounds + 1)) as u32
        + (pace.write + BETWEEN) * (2 * (pace.write_rounds + 1)) as u32
        + Duration::from_secs(5)
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let side = Side::start(&quiet().set("pg_cache.hot_size", "128MB"));
    for first in [FIRST_KEY, FIRST_WRITTEN_KEY] {
        let stored = side.number(&format!(
            "SELECT count(*) FILTER (WHERE cache_set(({first} + i)::text, '{}', '1 day')) FROM generate_series(0, {KEYS} - 1) AS i",
            json()
        ));
        assert_eq!(stored, KEYS, "the values are stored");
    }
    // `changes` is whether the statement changes something that is broadcast (`switch.rs`).
    let hold = |title: &str, statement: &str, given, changes, span, rounds| {
        let subject = Subject { side: &side, statement, given, changes, span };
        let contender = |name, on| Contender::new(name, move |round| subject.turn(on, round));
        Contest::hold(title, rounds, vec![contender(OFF, false), contender(ON, true)])
    };
    let get = hold("cache_get", "SELECT cache_get($1)", Given::Key, false, pace.read, pace.read_rounds);
    let set = hold(
        "cache_set",
        "SELECT cache_set($1, $2, '1 day')",
        Given::WrittenKeyAndJson,
        true,
        pace.write,
        pace.write_rounds,
    );
    let goals = vec![
        get.goal_of_no_cost(),
        set.goal(&BROADCAST, "sets per second with the broadcast, of those without it"),
    ];
    let contests = [get, set];
    Section {
        id: "outward-calls".into(),
        title: "Calls with the broadcast, without a listener".into(),
        goals,
        tables: vec![table(&contests, "calls", "× without the broadcast")],
        explained: vec![format!(
            "Prepared statements over a Unix socket by {CLIENTS} clients, with random ones of {} keys of 13 bytes and values of {VALUE_BYTES} \
             bytes: the calls of `cache_get` are all reads, those of `cache_set` all writes, each in its own transaction. `pg_cache.notify` is \
             switched by a reload before each turn, on one server with the same sessions. The turns take {} ms and {} ms, in {} and {} \
             rounds. {BY_WORK}",
            count(KEYS as f64),
            pace.read.as_millis(),
            pace.write.as_millis(),
            pace.read_rounds,
            pace.write_rounds,
        )],
        figures: serde_json::json!({ "contests": contests }),
    }
}
