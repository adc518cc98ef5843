//! The part `outward-off` of the report: measures the cost of the journal while the broadcast is off, beside a server without a
//! journal. The *journal* is a ring in shared memory, in which each commit records what it has changed in the cache. The
//! *broadcast* (`pg_cache.notify`) sends these changes with NOTIFY, and is off here.

use super::CLIENTS;
use super::contest::{BY_WORK, Contender, Contest, table};
use super::side::{Side, quiet};
use crate::data::{FIRST_KEY, FIRST_WRITTEN_KEY, KEYS, VALUE_BYTES, json};
use crate::drive::Load;
use crate::drive::wire::{Task, Until};
use crate::pace::Pace;
use crate::plan::Given;
use crate::report::notation::count;
use crate::report::section::Section;
use std::time::Duration;

/// The name of the contender without a journal.
const WITHOUT: &str = "without a journal";
/// The name of the contender with a journal and without the broadcast.
const OFF: &str = "with a journal, broadcast off";
/// The clients of a turn, all of which send one request at a time.
const LOAD: Load = Load { clients: CLIENTS, pipeline: 1, keys: 1 };
/// A write to a table that values depend on.
const UPDATE: &str = "UPDATE watched SET balance = balance + 1 WHERE id = $1";

/// Returns about how long the part takes: two contenders in each of three contests (`contest.rs`), with one round more than counts,
/// and 14 s for the start.
pub fn estimate(pace: &Pace) -> Duration {
    pace.read * (2 * (pace.read_rounds + 1)) as u32
        + pace.write * (4 * (pace.write_rounds + 1)) as u32
        + Duration::from_secs(14)
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let start = |journal: &str| {
        let conf = quiet().set("pg_cache.hot_size", "128MB").set("pg_cache.notify", "off");
        let side = Side::start(&conf.set("pg_cache.journal_size", journal));
        for first in [FIRST_KEY, FIRST_WRITTEN_KEY] {
            side.execute(&format!(
                "SELECT count(cache_set(({first} + i)::text, '{}', '1 day')) FROM generate_series(0, {KEYS} - 1) AS i",
                json()
            ));
        }
        side.execute(&format!(
            "CREATE TABLE watched (id bigint PRIMARY KEY, balance bigint NOT NULL DEFAULT 0, filler text NOT NULL DEFAULT repeat('x', 80))
                 WITH (fillfactor = 50);
             INSERT INTO watched (id) SELECT {FIRST_KEY} + i FROM generate_series(0, {KEYS} - 1) AS i;
             SELECT cache_watch('watched'), cache_set('dependent', '1', '1 day', tags => '{{watched}}')"
        ));
        side.execute("VACUUM (ANALYZE) watched");
        side.execute("CHECKPOINT");
        side
    };
    let sides = [start("0"), start("8MB")];
    let hold = |title: &str, statement: &'static str, given, span, rounds| {
        let lane = |name, side| {
            let side: &Side = side;
            Contender::new(name, move |seed| {
                side.run(Task { statement, given, load: LOAD, seed }, Until::Over(span))
            })
        };
        Contest::hold(title, rounds, vec![lane(WITHOUT, &sides[0]), lane(OFF, &sides[1])])
    };
    let contests = [
        hold("cache_get", "SELECT cache_get($1)", Given::Key, pace.read, pace.read_rounds),
        hold(
            "cache_set",
            "SELECT cache_set($1, $2, '1 day')",
            Given::WrittenKeyAndJson,
            pace.write,
            pace.write_rounds,
        ),
        hold("UPDATE of a watched table", UPDATE, Given::Row, pace.write, pace.write_rounds),
    ];
    Section {
        id: "outward-off".into(),
        title: "The journal while the broadcast is off".into(),
        goals: contests.iter().map(Contest::goal_of_no_cost).collect(),
        tables: vec![table(&contests, "operations", "× without a journal")],
        explained: vec![format!(
            "Prepared statements over a Unix socket by {CLIENTS} clients, with random ones of {} keys of 13 bytes and values of {VALUE_BYTES} \
             bytes, or of as many rows: all reads in the first contest, all writes in the others, each in its own transaction. Commits wait \
             for no disk. Two servers with the same settings, except that one has `pg_cache.journal_size` = 0, take turns of {} ms and {} ms in \
             {} and {} rounds. `pg_cache.notify` is off on both. {BY_WORK}",
            count(KEYS as f64),
            pace.read.as_millis(),
            pace.write.as_millis(),
            pace.read_rounds,
            pace.write_rounds,
        )],
        figures: serde_json::json!({ "contests": contests }),
    }
}
