//! The part `tags` of the report: measures how long the invalidation of a *tag* takes, a name that entries depend on. It must take
//! the same time for any number of entries. Of the timed calls after each filling, only the first invalidates entries that are
//! still valid: see [`TAGS`].

use super::cluster;
use crate::hot_tier::duel::{Contender, Duel, compare, table};
use crate::pace::Pace;
use crate::report::notation::{digits, with_interval};
use crate::report::section::{Goal, Section};
use crate::statistics::Summary;
use postgres::{Client, Statement};
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// The number of entries with the tags of one of the two contenders, the alternatives that are compared.
const FEW: u64 = 10;
/// The number of entries with the tags of the other one.
const MANY: u64 = 1_000_000;
/// The number of tags of each entry, and of timed invalidations after each filling: one for each tag. Every entry has all of these
/// tags, so the first invalidation already makes every entry invalid. When the other seven run, their tags have no valid entries.
/// The median of the eight times is therefore the time of an invalidation without valid entries. It does not show whether the first
/// one takes longer.
const TAGS: u64 = 8;
/// Entries of one transaction: few enough to stay below `pg_cache.max_transaction_size`, the memory for changes that wait for the
/// commit.
const BATCH: u64 = 100_000;
/// The largest allowed ratio between the two times, in either direction.
const RATIO_MAX: f64 = 1.2;

/// Returns about how long the part takes: a filling with many entries takes about 5 s.
pub fn estimate(pace: &Pace) -> Duration {
    Duration::from_secs(5) * (1 + pace.fillings as u32)
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let (_cluster, mut session) = cluster("512MB");
    let invalidate = session.prepare("SELECT cache_invalidate_tag($1)").expect("it can be prepared");
    // The first calls of a session are slower, because its caches are empty.
    for number in 0..100 {
        session.execute(&invalidate, &[&format!("nothing {number}")]).expect("a tag is invalidated");
    }
    let session = RefCell::new(session);
    let contender = |name: &'static str, entries: u64| {
        let (session, invalidate) = (&session, &invalidate);
        Contender::new(format!("{entries} entries under the tag"), move || {
            let mut session = session.borrow_mut();
            fill(&mut session, name, entries);
            // After the large filling, the session has worked for seconds, so the scheduler of the system prefers other processes.
            // After these calls, it does so no longer. Both contenders make them, so that they begin alike.
            for number in 0..20 {
                timed(&mut session, invalidate, &format!("nothing {number}"));
            }
            let times: Vec<f64> =
                (1..=TAGS).map(|tag| timed(&mut session, invalidate, &format!("{name} {tag}"))).collect();
            Summary::of(&times).expect("there are some").median
        })
    };
    let duel = compare("one session", pace.fillings, contender("many", MANY), contender("few", FEW));
    Section {
        id: "tags".into(),
        title: "Invalidating a tag".into(),
        goals: vec![goal(&duel)],
        tables: vec![table(std::slice::from_ref(&duel))],
        explained: vec![format!(
            "One statement and its commit, over the socket. Before each round, both sides are filled again with entries that have \
             {TAGS} tags each. Then the tags are invalidated one after the other, and `one operation` is the median of their times. \
             The figures are medians of {} rounds. The two sides take turns.",
            pace.fillings
        )],
        figures: serde_json::json!({ "duel": duel }),
    }
}

/// Returns the goal: the two times are nearly equal. The invalidation of many entries must be neither slower nor faster, because
/// the number of entries must not matter.
fn goal(duel: &Duel) -> Goal {
    Goal {
        wanted: format!(
            "invalidating {MANY} entries takes as long as invalidating {FEW}, within {:.0} %",
            (RATIO_MAX - 1.0) * 100.0
        ),
        found: with_interval(duel.ratio, digits),
        met: (1.0 / RATIO_MAX..=RATIO_MAX).contains(&duel.ratio.median),
    }
}

/// Stores entries that have all tags of the contender `name` (`many` or `few`), and checks that they exist.
fn fill(session: &mut Client, name: &str, entries: u64) {
    let tags: Vec<String> = (1..=TAGS).map(|tag| format!("{name} {tag}")).collect();
    let set = "SELECT count(*) FILTER (WHERE cache_set_text($1 || i, 'x', '1 day', $2))
               FROM generate_series($3::bigint, $4::bigint) AS i";
    let mut stored = 0;
    for first in (0..entries).step_by(BATCH as usize) {
        let last = (first + BATCH).min(entries) - 1;
        let row = session.query_one(set, &[&name, &tags, &first.cast_signed(), &last.cast_signed()]);
        stored += row.expect("entries can be set").get::<_, i64>(0).cast_unsigned();
    }
    assert_eq!(stored, entries, "all entries have room");
    let look = "SELECT count(cache_get_text($1 || i)) FROM generate_series(0, $2::bigint - 1) AS i";
    let there: i64 =
        session.query_one(look, &[&name, &entries.cast_signed()]).expect("they are asked for").get(0);
    assert_eq!(there.cast_unsigned(), entries, "all entries are there");
}

/// Returns the nanoseconds of one invalidation, including its commit.
fn timed(session: &mut Client, invalidate: &Statement, tag: &str) -> f64 {
    let started = Instant::now();
    session.execute(invalidate, &[&tag]).expect("a tag is invalidated");
    started.elapsed().as_secs_f64() * 1e9
}
