//! The part `tables-read` of the report: measures reads with the table tier, which saves values in tables before they leave memory:
//! reads of values that are only in a table, of values in memory, and of keys without a value (misses).

use super::Target;
use super::side::{HOT_SIZE, PATIENCE, Side, TABLE_BYTES, with_tables, without_tables};
use crate::data::KEYS;
use crate::drive::in_sql;
use crate::drive::one_core::OneCore;
use crate::hot_tier::duel::{Contender, Duel, compare, table};
use crate::pace::Pace;
use crate::report::notation::{count, digits, with_interval};
use crate::report::section::{Goal, Section};
use std::time::{Duration, Instant};

/// The time of a hit in a table, divided by the time of the hand-written lookup.
const TABLE_HIT: Target = Target { goal: 0.35, floor: 0.6 };
/// The time of a miss with the table tier, divided by the time of a miss without it.
const MISS: Target = Target { goal: 1.2, floor: 2.0 };

/// The names of the three servers in the report.
const ON: &str = "pg_cache with the table tier";
const OFF: &str = "pg_cache without the table tier";
const CONTROL: &str = "without the table tier, once more";

/// The space whose values are only in tables, and a space without values.
const SPACES: &str =
    "SELECT cache_create_space('saved', tiers => 'table'); SELECT cache_create_space('nothing')";
/// The expressions that the reads evaluate for each `key`. `lookup_sql` is the hand-written lookup of `setup.sql`.
const SAVED_HIT: &str = "cache_get_text(key, 'saved')";
const MEMORY_HIT: &str = "cache_get_text(key)";
/// True for a miss, and null otherwise, so that `count` counts misses.
const MISSED: &str = "nullif(cache_get_text(key, 'nothing') IS NULL, false)";
const BY_HAND: &str = "lookup_sql(key)";

/// Returns about how long the part takes.
pub fn estimate(pace: &Pace) -> Duration {
    // Four duels of two contenders, each with one round that does not count. Starting and filling three servers takes about 15 s.
    pace.read * (8 * (pace.read_rounds + 1)) as u32 + Duration::from_secs(15)
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let on = Side::start(&with_tables(HOT_SIZE, TABLE_BYTES));
    let [off, control] = [(), ()].map(|()| Side::start(&without_tables(HOT_SIZE)));
    for side in [&on, &off, &control] {
        side.set_up_table();
        side.execute(SPACES);
        side.number("SELECT count(*) FROM entry WHERE cache_set_text(key, value, '1 day')");
    }
    on.wait_until_saved(KEYS);
    on.number("SELECT count(*) FROM entry WHERE cache_set_text(key, value, '1 day', space => 'saved')");
    wait_until_in_tables_only(&on);

    let contender = |name: &'static str, side, expression| {
        Contender::new(name, move || nanoseconds(side, expression, pace))
    };
    let rounds = pace.read_rounds;
    let hit = compare(
        "hit in a table",
        rounds,
        contender(ON, &on, SAVED_HIT),
        contender("table, SQL function", &on, BY_HAND),
    );
    let miss = compare("miss", rounds, contender(ON, &on, MISSED), contender(OFF, &off, MISSED));
    let memory =
        compare("hit in memory", rounds, contender(ON, &on, MEMORY_HIT), contender(OFF, &off, MEMORY_HIT));
    let noise = compare(
        "hit in memory",
        rounds,
        contender(CONTROL, &control, MEMORY_HIT),
        contender(OFF, &off, MEMORY_HIT),
    );
    check(&on, rounds);

    let goals = vec![
        TABLE_HIT.at_most("time of a hit in a table, compared with the table's SQL function", hit.ratio),
        MISS.at_most("time of a miss in both places, compared with a miss in memory alone", miss.ratio),
        unchanged(&memory, &noise),
    ];
    let duels = [hit, miss, memory, noise];
    Section {
        id: "tables-read".into(),
        title: "Reads with the table tier".into(),
        goals,
        tables: vec![table(&duels)],
        explained: vec![format!(
            "Reads inside SQL by 1 client, no writes: one SELECT evaluates the expression for {} keys of 13 bytes in random order, with values \
             of 100 bytes. The values of the table hits are in a space with `tiers => 'table'`, so no read brings one back into memory. The \
             hand-written function looks into an UNLOGGED table with an index. The first two contenders share a server; the others compare \
             a server that saves values in tables with servers that have neither a table tier nor its directory. Two of these servers \
             compared with each other show the noise of the machine. The two sides take turns, in {rounds} rounds; `× other` is a ratio of \
             times.",
            count(KEYS as f64)
        )],
        figures: serde_json::json!({ "duels": duels }),
    }
}

/// Waits until the memory holds no value of the space `saved`. A value leaves the memory shortly after it was saved, so counting saved
/// values is not enough. The look-up does not count as a read, and moves no value. `OFFSET 0` keeps the subquery, so that
/// `cache_status` tells of the look-up of the same row. Panics after [`PATIENCE`].
fn wait_until_in_tables_only(on: &Side) {
    const LOOK: &str = "SELECT count(*) FILTER (WHERE is_there AND place <> 'hit: table')
        FROM (SELECT cache_exists(key, 'saved') AS is_there, cache_status() AS place FROM entry OFFSET 0) AS looked";
    let deadline = Instant::now() + PATIENCE;
    loop {
        match on.number(LOOK) {
            0 => return,
            left => assert!(Instant::now() < deadline, "{left} values do not leave the memory"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Returns the nanoseconds of one read. `expression` must not be null for any key (see [`in_sql`]).
fn nanoseconds(side: &Side, expression: &str, pace: &Pace) -> f64 {
    let _alone = OneCore::hold(&[side.backend()]).expect("a core can be chosen");
    let run = in_sql::run(&mut side.session(), expression, pace.read);
    1e9 / run.unwrap_or_else(|error| panic!("{error:#}")).per_second
}

/// Checks that each read of a saved value was answered from a table, after this number of rounds. No read was a miss, because
/// [`in_sql`] fails on a miss.
fn check(on: &Side, rounds: usize) {
    let hits = on.number("SELECT hits_table FROM cache_stats_detail WHERE space = 'saved'");
    let others = "SELECT hits_hot + promoted FROM cache_stats_detail WHERE space = 'saved'";
    assert!(hits >= KEYS * rounds as u64, "only {hits} reads took a value from a table");
    assert_eq!(on.number(others), 0, "reads that did not take the value from a table");
}

/// Returns the goal that the table tier does not make a hit in memory slower. It is met if the lower end of the ratio's interval is
/// at most 1, or at most the upper end of the ratio of two equal servers.
fn unchanged(memory: &Duel, noise: &Duel) -> Goal {
    Goal {
        wanted: "the table tier does not change the time of a hit in memory, within the noise".into(),
        found: format!(
            "{}; {CONTROL}: {}",
            with_interval(memory.ratio, digits),
            with_interval(noise.ratio, digits)
        ),
        met: memory.ratio.low <= noise.ratio.high.max(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a difference that two equal servers also show counts as a cost, if a greater one does not, or if a faster hit does.
    #[test]
    fn a_hit_in_memory_may_be_as_slow_as_the_noise_allows() {
        let duel =
            |times: [f64; 6]| Duel::of("t", ("own".into(), times.to_vec()), ("other".into(), vec![1.0; 6]));
        let noise = duel([0.98, 0.99, 1.0, 1.0, 1.01, 1.02]);
        assert!(unchanged(&duel([1.01, 1.02, 1.03, 1.03, 1.03, 1.04]), &noise).met);
        assert!(!unchanged(&duel([1.03, 1.03, 1.03, 1.03, 1.03, 1.04]), &noise).met);
        assert!(unchanged(&duel([0.9; 6]), &noise).met, "faster is fine");
    }
}
