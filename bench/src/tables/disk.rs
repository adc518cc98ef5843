//! The part `tables-disk` of the report: measures the space that many values take: in the tables of the cache, in a hand-written
//! table with its index, and in Redis.

use super::SAVED_BYTES;
use super::side::{HOT_SIZE, Side, TABLE_BYTES, with_tables};
use crate::data::FIRST_KEY;
use crate::pace::Pace;
use crate::report::notation::{count, digits};
use crate::report::section::{Section, Table};
use pg_cache_testbed::Redis;
use std::time::Duration;

/// The bytes of shared memory for one location: an entry of the directory, which says where a saved value is.
const LOCATION_BYTES: u64 = 8;

/// Returns the number of values that are stored.
fn values(pace: &Pace) -> u64 {
    if is_quick(pace) { 200_000 } else { 1_000_000 }
}

/// Returns whether this is a quick run, which stores less.
fn is_quick(pace: &Pace) -> bool {
    pace.fillings < Pace::FULL.fillings
}

/// Returns about how long the part takes: in a second, about 40 000 values are saved, and stored in the table and in Redis.
pub fn estimate(pace: &Pace) -> Duration {
    Duration::from_secs(5 + values(pace) / 40_000)
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let values = values(pace);
    // With the default of `pg_cache.save_rate`, the saver, the background worker that saves the values, would be the slowest part
    // of the filling.
    let conf = with_tables(HOT_SIZE, TABLE_BYTES).set("pg_cache.save_rate", "1000000");
    let side = Side::start(&conf);
    side.execute("SELECT cache_create_space('saved', tiers => 'table')");
    side.fill("saved", FIRST_KEY, values, SAVED_BYTES, true);
    let saved = side.saved();
    let own = side.number(
        "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
         WHERE relnamespace = 'pgcache'::regnamespace AND relname ~ '^segment_[0-9]+$'",
    );
    side.execute(&format!(
        "CREATE UNLOGGED TABLE entry (key text PRIMARY KEY, value text NOT NULL);
         INSERT INTO entry SELECT i::text, repeat('x', {SAVED_BYTES})
         FROM generate_series({FIRST_KEY}::bigint, {FIRST_KEY}::bigint + {values} - 1) AS i"
    ));
    let table = side.number("SELECT pg_table_size('entry')");
    let index = side.number("SELECT pg_indexes_size('entry')");
    let redis = in_redis(values);

    let mut rows = Table::new(1, ["", "bytes", "per value", "× table and index"]);
    for (name, bytes) in [
        ("pg_cache, its tables on the disk", own),
        ("pg_cache, its directory in memory", values * LOCATION_BYTES),
        ("hand-written table and index", table + index),
        ("the table without its index", table),
        ("Redis, in memory", redis),
    ] {
        rows.rows.push(vec![
            name.into(),
            format!("{} MB", digits(bytes as f64 / 1048576.0)),
            digits(bytes as f64 / values as f64),
            digits(bytes as f64 / (table + index) as f64),
        ]);
    }
    Section {
        id: "tables-disk".into(),
        title: "Space of saved values".into(),
        goals: Vec::new(),
        tables: vec![rows],
        explained: vec![format!(
            "{} values of {SAVED_BYTES} bytes with keys of 13 bytes. The hand-written table is UNLOGGED and freshly filled, and its primary key is \
             the key. The figure of Redis is the growth of `used_memory`. The directory counts {LOCATION_BYTES} bytes for each value. {} of \
             the values can be found.",
            count(values as f64),
            count(saved as f64),
        )],
        figures: serde_json::json!({
            "values": values, "saved": saved, "own": own, "table": table, "index": index, "redis": redis,
        }),
    }
}

/// Returns the bytes of memory that this number of values takes in Redis, with their keys.
fn in_redis(values: u64) -> u64 {
    let redis = Redis::start();
    let used = || -> u64 {
        redis.info("used_memory").and_then(|used| used.parse().ok()).expect("Redis tells its memory")
    };
    let before = used();
    // The digit 1 and 12 digits are the keys from `FIRST_KEY` on.
    redis.command(&[
        "EVAL",
        "for i = 0, ARGV[1] - 1 do redis.call('SET', string.format('1%012d', i), ARGV[2]) end",
        "0",
        &values.to_string(),
        &"x".repeat(SAVED_BYTES),
    ]);
    assert_eq!(redis.command(&["DBSIZE"]), values.to_string(), "Redis holds the values");
    used() - before
}
