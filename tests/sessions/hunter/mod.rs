//! The staleness hunter. Writers change tables in random ways, names and rules included, in two databases. Readers
//! check each value that they get. Meanwhile, sessions are cancelled and terminated.
//!
//! A table holds one *version*, a number that grows with each commit. A transaction that is rolled back writes a
//! negative number. Each value that a reader gets must lie between two bounds:
//!
//! - *At least*: the largest version whose commit has returned to a writer before the statement began, or that a writer or a
//!   reader has seen before. A version that a reader has seen counts only if rows hold it, not names or rules.
//! - *At most*: the largest version for which a writer has sent a commit before the statement ended.
//!
//! Writers keep pace with the number of reads, so that the share of hits is about the same on every machine. `PG_CACHE_TEST_SEED`
//! repeats the actions of a failed run, but not their timing. A *fence* is a word in shared memory that says when something that
//! values depend on last changed (`docs/invalidation.md`).
//!
//! - `table`: the tables, functions and rules that hold a version, and the queries that find it.
//! - `path`: ways to write a version to rows; `definition`: ways to make one visible by a change of names or rules.
//! - `write`, `read`: the loops of writers and readers; `session`: their sessions.
//! - `rows`: another hunt, for invalidation by rows, patterns and events.
//! - `hunt`: the state that they share, and the hunt itself; `dice`: its random numbers.

mod definition;
pub mod dice;
mod hunt;
mod path;
mod read;
mod rows;
mod session;
mod table;
mod write;

use crate::memory::{cluster, findings};
use hunt::{Outcome, Plan, hunt};
use pg_cache_testbed::{Cluster, Conf, wait_until};
use std::time::Duration;

/// The two databases. A session works in one of them and changes it now and then.
const DATABASES: [&str; 2] = ["hunt_one", "hunt_two"];
/// The number of writers.
const WRITERS: usize = 2;
/// The number of readers.
const READERS: usize = 3;
/// The usual number of reads for each write: writers pause while there are fewer.
const PACE: u64 = 15;
/// One in this number of writes changes names or rules. Such a change invalidates the results of all queries in its database, or on
/// the server if it is a change of roles, so it is rare. Other writes invalidate only what depends on their table.
const DEFINING_ONE_IN: u64 = 80;

/// The bytes of a value in the hunt in which values come back from tables: all values together are larger than the memory.
const WIDTH: usize = 24_000;
/// The size of the tables: all present values fit into them, but not all that are saved during the hunt, so tables are emptied.
const TABLE_SIZE: &str = "16MB";

/// Returns whether `make test-long` runs the tests.
fn is_long() -> bool {
    std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty())
}

/// Nearly all writes change rows. More than 70 % of the reads must be hits, because a miss reads the table and proves nothing.
#[test]
fn no_reader_gets_a_stale_value_while_rows_change_and_sessions_end() {
    let cluster = cluster(&Conf::preloaded());
    let time = Duration::from_secs(if is_long() { 180 } else { 10 });
    let outcome = hunt(&cluster, Plan::new(time, DEFINING_ONE_IN));
    assert_exact(&cluster, &outcome);
    assert!(
        outcome.hits * 10 > outcome.reads * 7,
        "{} hits of {} reads prove little",
        outcome.hits,
        outcome.reads
    );
}

/// The values leave the memory as soon as they are saved, so most hits come from tables: they must be more than half of the reads.
#[test]
fn no_reader_gets_a_stale_value_from_a_table() {
    let outcome = hunt_in_tables(Plan { tiers: "table", ..table_plan() });
    assert!(
        outcome.table_hits * 2 > outcome.reads,
        "{} of {} reads were hits in a table",
        outcome.table_hits,
        outcome.reads
    );
}

/// The memory is so small that it evicts values all the time, and each hit in a table brings a value back. These hits must be more
/// than 10 % of the reads.
#[test]
fn no_reader_gets_a_stale_value_that_comes_back_from_a_table() {
    // Large values make reads slow, so there are few writes.
    let plan = Plan { width: WIDTH, pace: PACE, defining_one_in: DEFINING_ONE_IN / 2, ..table_plan() };
    let outcome = hunt_in_tables(plan);
    assert!(
        outcome.table_hits * 10 > outcome.reads,
        "{} of {} reads were hits in a table",
        outcome.table_hits,
        outcome.reads
    );
}

/// A value is saved some time after it was computed. So the writers must not be too fast: they rest, and on a machine whose readers
/// are slow, they wait for more reads.
fn table_plan() -> Plan {
    let time = Duration::from_secs(if is_long() { 180 } else { 10 });
    Plan { rest: Duration::from_millis(30), pace: 2 * PACE, ..Plan::new(time, DEFINING_ONE_IN) }
}

/// Hunts on a server with little memory whose spaces save their values in tables, and asserts that no value was wrong.
fn hunt_in_tables(plan: Plan) -> Outcome {
    // The database `postgres` also has a worker for a while. With two workers, one of the other databases would wait for its turn.
    let conf = Conf::preloaded()
        .set("pg_cache.hot_size", "1MB")
        .set("pg_cache.table_size", TABLE_SIZE)
        .set("pg_cache.max_workers", "4");
    let cluster = cluster(&conf);
    let outcome = hunt(&cluster, plan);
    assert_exact(&cluster, &outcome);
    outcome
}

/// One in three writes changes names or rules here. So the results of queries rarely live long, and the share of hits is small:
/// it must be more than 10 %.
#[test]
fn no_reader_gets_a_stale_value_while_names_and_rules_change() {
    let cluster = cluster(&Conf::preloaded());
    let outcome = hunt(&cluster, Plan::new(Duration::from_secs(if is_long() { 120 } else { 5 }), 3));
    assert_exact(&cluster, &outcome);
    assert!(
        outcome.hits * 10 > outcome.reads,
        "{} hits of {} reads prove little",
        outcome.hits,
        outcome.reads
    );
}

/// The results of queries, some of which join tables that are written in one transaction.
#[test]
fn no_reader_gets_a_stale_result_of_a_query_while_rows_change_and_sessions_end() {
    let cluster = cluster(&Conf::preloaded());
    let time = Duration::from_secs(if is_long() { 180 } else { 10 });
    let outcome = hunt(&cluster, Plan { queries: true, ..Plan::new(time, DEFINING_ONE_IN) });
    assert_exact(&cluster, &outcome);
    assert!(
        outcome.hits * 10 > outcome.reads * 6,
        "{} hits of {} reads prove little",
        outcome.hits,
        outcome.reads
    );
}

/// As above, but one in three writes changes names or rules.
#[test]
fn no_reader_gets_a_stale_result_of_a_query_while_names_and_rules_change() {
    let cluster = cluster(&Conf::preloaded());
    let time = Duration::from_secs(if is_long() { 120 } else { 5 });
    let outcome = hunt(&cluster, Plan { queries: true, ..Plan::new(time, 3) });
    assert_exact(&cluster, &outcome);
    assert!(
        outcome.hits * 10 > outcome.reads * 2,
        "{} hits of {} reads prove little",
        outcome.hits,
        outcome.reads
    );
}

/// As above, but the results come back from tables.
#[test]
fn no_reader_gets_a_stale_result_of_a_query_from_a_table() {
    let outcome = hunt_in_tables(Plan { tiers: "table", queries: true, ..table_plan() });
    assert!(
        outcome.table_hits * 3 > outcome.reads,
        "{} of {} reads were hits in a table",
        outcome.table_hits,
        outcome.reads
    );
}

/// Asserts that no reader was given a wrong value, and that no fence stays raised when all sessions have ended.
fn assert_exact(cluster: &Cluster, outcome: &Outcome) {
    assert_eq!((outcome.stale, outcome.future), (0, 0), "{:#?}", outcome.findings);
    assert!(outcome.findings.is_empty(), "{:#?}", outcome.findings);
    assert!(outcome.definitions > 0, "no name and no rule has changed");
    let mut witness = cluster.connect("postgres");
    wait_until("the end of all sessions", || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
        witness.query_one(query, &[]).expect("there is a view").get::<_, i64>(0) == 1
    });
    // The run of each verified hit has returned the stored result, or the hit could not be compared.
    let verified = witness.query_one("SELECT verified, different, skipped FROM cache_verification", &[]);
    let verified = verified.expect("a view");
    let [verified, different, skipped] = [0, 1, 2].map(|at| verified.get::<_, i64>(at));
    println!("hunt: verified = {verified}, different = {different}, skipped = {skipped}");
    assert_eq!(different, 0, "{}", cluster.log());
    assert!(verified > 0, "no hit was verified, and {skipped} were skipped");
    // The server's own workers raise fences for a moment. A fence that stays raised is a leak.
    wait_until("all fences to be lowered", || findings(&mut witness).is_empty());
}

/// Checks the hunter itself: with broken fences, it must find stale values. `pg_cache.break_fencing` exists in debug builds only
/// (`src/pg/settings/broken.rs`).
#[test]
fn the_hunter_finds_stale_values_if_fences_are_broken() {
    // Lowering fences early is wrong only for changes of names and rules. A result of `cache_query` depends on few of these, so the
    // moment in which it would be stored is rarely met. `ddl_race` meets it.
    for (how, defining_one_in, queries) in [
        ("never", DEFINING_ONE_IN, false),
        ("never", DEFINING_ONE_IN, true),
        ("late", DEFINING_ONE_IN, false),
        ("uncounted", DEFINING_ONE_IN, false),
        ("early", 2, false),
    ] {
        let cluster = cluster(&Conf::preloaded().set("pg_cache.break_fencing", how));
        let plan = Plan::new(Duration::from_secs(300), defining_one_in);
        let outcome = hunt(&cluster, Plan { until_found: true, verifies: false, queries, ..plan });
        assert!(outcome.stale > 0, "{how}: it has found nothing in {} reads", outcome.reads);
    }
}
