//! The part `tables-restart` of the report: measures a clean restart of three servers: one without pg_cache, one whose memory for
//! values is full, and one whose tables for values are full, too. Measures how much later than on the first server a session can
//! connect, and how many values are still found. The *table tier* saves values in tables before they leave the memory.

use super::side::{BATCH, HOT_SIZE, Side, TABLE_BYTES, with_tables, without_tables};
use super::{SAVED_BYTES, Target};
use crate::data::FIRST_KEY;
use crate::pace::Pace;
use crate::report::notation::{digits, with_interval};
use crate::report::section::{Goal, Section, Table};
use crate::rounds::turns;
use crate::statistics::Summary;
use crate::test_servers;
use pg_cache_testbed::{Cluster, Conf, Stop};
use serde::Serialize;
use std::time::{Duration, Instant};

/// How many seconds later the first session may connect than without pg_cache.
const LATER: Target = Target { goal: 0.5, floor: 1.0 };
/// The least hit ratio after the restart, as a share of that before.
const KEPT_MIN: f64 = 0.99;
/// The length of the values that fill the tables: large ones fill them sooner.
const LARGE_BYTES: usize = 1000;
/// The share of `pg_cache.table_size` from which on the tables count as full: 6 of 8. A database has eight tables for values, of
/// which one is always empty and another is being filled.
const FULL: f64 = 0.75;
/// The distance of the keys that are looked up: one in ten.
const STEP: u64 = 10;

/// Returns the size of the table tier in bytes: a quarter of the full one in a quick run.
fn table_bytes(pace: &Pace) -> u64 {
    if pace.fillings < Pace::FULL.fillings { TABLE_BYTES / 4 } else { TABLE_BYTES }
}

/// Returns about how long the part takes: the tables are filled with about 30 MB per second, and a round takes about 6 s.
pub fn estimate(pace: &Pace) -> Duration {
    let filling = Duration::from_secs(5 + table_bytes(pace) / (30 << 20));
    filling + Duration::from_secs(6) * pace.fillings as u32
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let bytes = table_bytes(pace);
    let bare = Cluster::start(&test_servers::settings(Conf::bare()));
    let contents = [
        Content::make("full memory", &without_tables(HOT_SIZE), SAVED_BYTES, None),
        Content::make("full memory and full tables", &filling(bytes), LARGE_BYTES, Some(bytes)),
    ];
    let clusters = [&bare, &contents[0].side.cluster, &contents[1].side.cluster];
    // `clusters`, `stops` and `starts` have the server without pg_cache first, then those of `contents`.
    let mut found = contents.each_ref().map(|_| Found::default());
    let mut without = Vec::new();
    for round in 0..pace.fillings {
        let before = contents.each_ref().map(Content::hit_ratio);
        let stops = clusters.map(|cluster| seconds(|| cluster.stop(Stop::Fast)));
        let mut starts = [0.0; 3];
        for turn in turns(round, 3) {
            starts[turn] = start(clusters[turn]);
        }
        without.push(starts[0]);
        for (place, content) in contents.iter().enumerate() {
            content.side.connect();
            found[place].start.push(starts[place + 1]);
            found[place].later.push(starts[place + 1] - starts[0]);
            found[place].stop_later.push(stops[place + 1] - stops[0]);
            found[place].kept.push(content.hit_ratio() / before[place]);
        }
    }
    section(pace, bytes, &contents, &found, &without)
}

/// Returns the settings of a server whose tables are filled quickly, with room for this many bytes.
fn filling(bytes: u64) -> Conf {
    with_tables(HOT_SIZE, bytes).set("pg_cache.save_rate", "1000000")
}

/// A server with content.
struct Content {
    title: &'static str,
    side: Side,
    /// The key after the last one that was set. The first one is [`FIRST_KEY`].
    end: u64,
}

/// The figures of a server, round by round.
#[derive(Default, Serialize)]
struct Found {
    /// The seconds from the start to the first session's answer.
    start: Vec<f64>,
    /// By how many seconds `start` is longer than on the server without pg_cache.
    later: Vec<f64>,
    /// How many seconds longer the stop took than that of the server without pg_cache.
    stop_later: Vec<f64>,
    /// The hit ratio after the restart, divided by that before.
    kept: Vec<f64>,
}

impl Content {
    /// Starts a server and fills its memory. With `table_bytes`, the size of the table tier, fills its tables instead, which fills
    /// the memory, too.
    fn make(title: &'static str, conf: &Conf, value_bytes: usize, table_bytes: Option<u64>) -> Self {
        let side = Side::start(conf);
        let used = "SELECT used::bigint FROM cache_usage WHERE resource = 'saved bytes' AND database IS NULL";
        let end = match table_bytes {
            None => side.fill_memory("default", FIRST_KEY),
            Some(bytes) => {
                let mut next = FIRST_KEY;
                while (side.number(used) as f64) < bytes as f64 * FULL {
                    side.fill("default", next, BATCH, value_bytes, true);
                    next += BATCH;
                }
                next
            }
        };
        Self { title, side, end }
    }

    /// Returns the share of the keys that were set whose values a read would find, from a sample of one in [`STEP`].
    fn hit_ratio(&self) -> f64 {
        self.side.places("default", FIRST_KEY, self.end, STEP).found()
    }
}

/// Starts a server that was stopped. Returns the seconds until the first session has an answer.
fn start(cluster: &Cluster) -> f64 {
    std::thread::scope(|scope| {
        scope.spawn(|| cluster.resume());
        seconds(|| {
            while !cluster
                .try_connect("postgres")
                .is_ok_and(|mut session| session.simple_query("SELECT 1").is_ok())
            {
                std::thread::sleep(Duration::from_millis(1));
            }
        })
    })
}

/// Returns how many seconds the work takes.
fn seconds(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64()
}

/// Shows the results. `found` has the order of `contents`; `without` has the seconds of the server without pg_cache.
fn section(pace: &Pace, bytes: u64, contents: &[Content], found: &[Found], without: &[f64]) -> Section {
    let summary = |samples: &[f64]| Summary::of(samples).expect("there are rounds");
    let time = |seconds: f64| format!("{} s", digits(seconds));
    let mut table = Table::new(
        1,
        ["", "first connection after", "later than without", "stop takes longer", "hit ratio kept"],
    );
    table.rows.push(
        [
            "without pg_cache".into(),
            with_interval(summary(without), time),
            "0".into(),
            "0".into(),
            "–".into(),
        ]
        .to_vec(),
    );
    let mut goals = Vec::new();
    for (content, found) in contents.iter().zip(found) {
        let (later, kept) = (summary(&found.later), summary(&found.kept));
        table.rows.push(vec![
            content.title.into(),
            with_interval(summary(&found.start), time),
            with_interval(later, time),
            with_interval(summary(&found.stop_later), time),
            with_interval(kept, digits),
        ]);
        goals.push(Goal {
            wanted: format!(
                "{}: first connection at most {} s later than without pg_cache (acceptable: {} s)",
                content.title, LATER.goal, LATER.floor
            ),
            found: with_interval(later, time),
            met: later.median <= LATER.goal,
        });
        goals.push(Goal {
            wanted: format!("{}: hit ratio at least {KEPT_MIN} of that before the restart", content.title),
            found: with_interval(kept, digits),
            met: kept.median >= KEPT_MIN,
        });
    }
    Section {
        id: "tables-restart".into(),
        title: "Clean restart".into(),
        goals,
        tables: vec![table],
        explained: vec![format!(
            "Three servers are stopped with `pg_ctl stop -m fast`, and started one after the other, in turns, {} times. The time runs until the \
             first session has an answer. The memory of {HOT_SIZE} is full of values of {SAVED_BYTES} bytes. The third server has \
             `pg_cache.table_size` = {} MB, and its tables are filled with values of {LARGE_BYTES} bytes up to {:.0} %, because one of \
             the eight tables is always empty. The saved memory is in the system's cache of files. The hit ratio is the share of one in {STEP} \
             of all keys that were set, in either place.",
            pace.fillings,
            bytes >> 20,
            FULL * 100.0,
        )],
        figures: serde_json::json!({ "without": without, "found": found, "table_bytes": bytes }),
    }
}
