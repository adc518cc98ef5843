//! Tests that a value which was computed from a snapshot older than its lease is not stored. Such a value may lack a change that
//! was committed before the lease was acquired. Fences (`docs/invalidation.md`) invalidate a value only after changes that come
//! later than its lease, so nothing would ever invalidate this one.
//!
//! A *lease* is the task to compute the value of a key, which `cache_acquire` gives to one caller.

use super::calls::{acquire, acquire_long};
use crate::memory::findings;
use pg_cache_testbed::{Database, wait_until};
use postgres::Client;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A lease starts now, but its holder may compute from a snapshot of the time when its transaction began. A value from before a
/// change must not be stored.
#[test]
fn a_value_from_a_snapshot_older_than_its_lease_is_not_served_after_a_change() {
    let database = Database::create();
    let [mut old, mut writer] = [(); 2].map(|()| database.connect());
    writer
        .batch_execute("CREATE TABLE t AS SELECT 1 AS v; SELECT cache_watch('t')")
        .expect("a watched table");
    let set = "SELECT cache_set('k', to_jsonb(v), tags => '{t}', lease => $1) FROM t";
    let read = "SELECT cache_exists('k')";
    for takes_over in [false, true] {
        old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM t").expect("it looks");
        writer.batch_execute("UPDATE t SET v = v + 1").expect("a change");
        // The session uses its own lease, or one that another session acquired after the change.
        let lease = acquire_long(if takes_over { &mut writer } else { &mut old }, "k");
        let stored: bool = old.query_one(set, &[&lease]).expect("it sets").get(0);
        old.batch_execute("COMMIT").expect("it commits");
        let served: bool = writer.query_one(read, &[]).expect("it reads").get(0);
        assert_eq!((stored, served), (false, false), "another's lease: {takes_over}");
    }
    // A transaction that began after the change computes a value that others may be given.
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").expect("it begins");
    let lease = acquire_long(&mut old, "k");
    assert!(old.query_one(set, &[&lease]).expect("it sets").get::<_, bool>(0));
    old.batch_execute("COMMIT").expect("it commits");
    assert!(writer.query_one(read, &[]).expect("it reads").get::<_, bool>(0));
}

/// Creates a table and a function that waits at a gate. Returns a session that holds the gate closed.
fn gated(database: &Database) -> Client {
    let mut gate = database.connect();
    gate.batch_execute(
        "CREATE TABLE t AS SELECT 1 AS v;
         CREATE FUNCTION gate(anything bigint) RETURNS boolean LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN true; END';
         SELECT pg_advisory_lock(1)",
    )
    .expect("it is legal");
    gate
}

/// Runs the statement `query`, which waits at the gate. While it waits, runs `meanwhile` in the gate's session, and then opens
/// the gate. Returns whether the statement stored its value, and its status. The gate is closed again afterwards.
fn overtaken(database: &Database, gate: &mut Client, query: &str, meanwhile: &str) -> (bool, String) {
    let (mut worker, mut witness) = (database.connect(), database.connect());
    thread::scope(|threads| {
        let waiting = threads.spawn(move || {
            let stored: bool = worker.query_one(query, &[]).expect("it works").get(0);
            let why: String = worker.query_one("SELECT cache_status()", &[]).expect("it says").get(0);
            (stored, why)
        });
        wait_until("the statement to be at the gate", || {
            let query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            witness.query_one(query, &[]).expect("there is a view").get::<_, i64>(0) == 1
        });
        gate.batch_execute(meanwhile).expect("a change");
        gate.batch_execute("SELECT pg_advisory_unlock(1)").expect("it opens");
        let outcome = waiting.join().expect("it does not panic");
        gate.batch_execute("SELECT pg_advisory_lock(1)").expect("it shuts");
        outcome
    })
}

/// The status of a set that is refused for the reason of these tests.
const BEFORE_THE_LEASE: &str = "refused: the statement's snapshot is older than the lease";

/// A statement's snapshot is older than a lease that the statement acquires while it runs. A value that it computes must not be
/// stored under that lease.
#[test]
fn a_statement_that_acquires_its_lease_after_it_has_looked_stores_nothing_old() {
    let database = Database::create();
    let mut gate = gated(&database);
    let change = "UPDATE t SET v = v + 1";
    // The first statement uses its own lease; the second uses one that another session acquired meanwhile.
    let own = "SELECT cache_set('k', to_jsonb(s.sum), lease => l.lease)
                 FROM (SELECT sum(v) FROM t) AS s, LATERAL cache_acquire(CASE WHEN gate(s.sum) THEN 'k' END) AS l";
    let found = overtaken(&database, &mut gate, own, change);
    assert_eq!(found, (false, BEFORE_THE_LEASE.to_owned()));
    let others = "SELECT cache_set('k', to_jsonb(s.sum), lease => cache_get_text(CASE WHEN gate(s.sum) THEN 'lease' END)::bigint)
                    FROM (SELECT sum(v) FROM t) AS s";
    let acquire = format!("{change}; SELECT cache_set_text('lease', lease::text) FROM cache_acquire('k')");
    let found = overtaken(&database, &mut gate, others, &acquire);
    assert_eq!(found, (false, BEFORE_THE_LEASE.to_owned()));
    // A STABLE function uses the snapshot of its caller.
    gate.batch_execute(
        "CREATE FUNCTION stable_set(lease bigint) RETURNS boolean STABLE LANGUAGE plpgsql AS
             'BEGIN RETURN cache_set(''k'', (SELECT to_jsonb(sum(v)) FROM t), lease => lease); END'",
    )
    .expect("it is legal");
    let stable = "SELECT stable_set(l.lease) FROM cache_acquire(CASE WHEN gate(1) THEN 'k' END) AS l";
    let found = overtaken(&database, &mut gate, stable, change);
    assert_eq!(found, (false, BEFORE_THE_LEASE.to_owned()));
    let looked = acquire_without_hold(&mut gate);
    assert_eq!(looked, "compute", "nothing was stored, and no lease is left");
}

/// Returns the status of the key `k`, without acquiring a lease.
fn acquire_without_hold(session: &mut Client) -> String {
    acquire(session, "k", ", hold => NULL").expect("looking works").0
}

/// A cursor reads with the snapshot of the moment when it was opened. It may store a value only under a lease that was acquired
/// before that moment.
#[test]
fn a_cursor_that_was_opened_before_the_lease_stores_nothing_old() {
    let database = Database::create();
    let [mut session, mut writer] = [(); 2].map(|()| database.connect());
    writer.batch_execute("CREATE TABLE t AS SELECT 1 AS v").expect("a table");
    for lease_is_old in [false, true] {
        session.batch_execute("BEGIN").expect("it begins");
        let mut lease = 0;
        if lease_is_old {
            lease = acquire_long(&mut session, "k");
        }
        session
            .batch_execute(
                "DECLARE c CURSOR FOR SELECT cache_set('k', to_jsonb(sum(v)), lease => current_setting('my.lease')::bigint) FROM t",
            )
            .expect("it is opened");
        writer.batch_execute("UPDATE t SET v = v + 1").expect("a change");
        if !lease_is_old {
            lease = acquire_long(&mut session, "k");
        }
        session.batch_execute(&format!("SET my.lease = {lease}")).expect("it is legal");
        let stored: bool = session.query_one("FETCH c", &[]).expect("it works").get(0);
        assert_eq!(stored, lease_is_old);
        session.batch_execute("COMMIT; SELECT cache_delete('k')").expect("it commits");
    }
}

/// A function acquires a lease and then computes in later statements. It must store its value, even if other sessions
/// commit changes meanwhile.
#[test]
fn a_function_that_acquires_a_lease_and_goes_on_to_compute_stores_its_value() {
    let database = Database::create();
    let [mut session, mut writer] = [(); 2].map(|()| database.connect());
    session
        .batch_execute(
            "CREATE TABLE t AS SELECT 1 AS v;
             CREATE FUNCTION computed(key text) RETURNS boolean LANGUAGE plpgsql AS
                 'DECLARE lease bigint; x jsonb; BEGIN
                      SELECT l.lease INTO lease FROM cache_acquire(key) AS l;
                      PERFORM pg_sleep(0.001);
                      SELECT to_jsonb(sum(v)) INTO x FROM t;
                      RETURN cache_set(key, x, lease => lease);
                  END';
             CREATE PROCEDURE computes(key text) LANGUAGE plpgsql AS
                 'DECLARE lease bigint; BEGIN
                      SELECT l.lease INTO lease FROM cache_acquire(key) AS l;
                      COMMIT;
                      PERFORM pg_sleep(0.001), set_config(''my.stored'', cache_set(key, to_jsonb(sum(v)), lease => lease)::text, false)
                         FROM t;
                      COMMIT;
                  END'",
        )
        .expect("it is legal");
    // The rounds go on until others have committed in between.
    const COMMITS: u64 = 50;
    let commits = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    let began = Instant::now();
    thread::scope(|threads| {
        threads.spawn(|| {
            // The number is bounded, so that the thread also ends if the test fails.
            while !over.load(Ordering::Relaxed) && commits.fetch_add(1, Ordering::Relaxed) < 20_000 {
                writer.batch_execute("UPDATE t SET v = v + 1").expect("a change");
            }
        });
        let mut round = 0;
        while round < 50
            || commits.load(Ordering::Relaxed) <= COMMITS && began.elapsed() < Duration::from_secs(120)
        {
            round += 1;
            let function = format!("SELECT computed('f {round}')");
            let stored: bool = session.query_one(&function, &[]).expect("it works").get(0);
            session.batch_execute(&format!("CALL computes('p {round}')")).expect("it works");
            // The next two statements are in one message.
            session
                .batch_execute(&format!("SELECT set_config('my.lease', lease::text, false) FROM cache_acquire('s {round}');
                     SELECT set_config('my.set', cache_set('s {round}', to_jsonb(v), lease => current_setting('my.lease')::bigint)::text, false) FROM t"))
                .expect("it works");
            let others = session
                .query_one(
                    "SELECT current_setting('my.stored')::boolean, current_setting('my.set')::boolean",
                    &[],
                )
                .expect("they are set");
            assert_eq!((stored, others.get(0), others.get(1)), (true, true, true), "round {round}");
        }
        over.store(true, Ordering::Relaxed);
        assert!(commits.load(Ordering::Relaxed) > COMMITS, "others have hardly committed");
    });
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// An imported snapshot may be of any time, so no value that was computed from it may be stored under a lease.
#[test]
fn an_imported_snapshot_stores_nothing_under_a_lease() {
    let database = Database::create();
    let [mut old, mut session, mut writer] = [(); 3].map(|()| database.connect());
    writer.batch_execute("CREATE TABLE t AS SELECT 1 AS v").expect("a table");
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").expect("it begins");
    let snapshot: String = old.query_one("SELECT pg_export_snapshot()", &[]).expect("it is exported").get(0);
    writer.batch_execute("UPDATE t SET v = v + 1").expect("a change");
    session
        .batch_execute(&format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '{snapshot}'"
        ))
        .expect("it is imported");
    // The transaction is given no lease, and may not use a lease of another session.
    for number in 0..2 {
        let key = format!("k {number}");
        let lease = match number {
            0 => acquire(&mut session, &key, "").expect("asking works").2.expect("it is told to compute"),
            _ => acquire_long(&mut writer, &key),
        };
        assert_eq!(lease == 0, number == 0);
        let set = "SELECT cache_set($1, to_jsonb(v), lease => $2), v FROM t";
        let row = session.query_one(set, &[&key, &lease]).expect("it sets");
        assert_eq!((row.get::<_, bool>(0), row.get::<_, i32>(1)), (false, 1));
        let why: String = session.query_one("SELECT cache_status()", &[]).expect("it says").get(0);
        let unknown = "refused: the age of the transaction's snapshot is unknown";
        assert_eq!(why, if number == 0 { "refused: the lease is over" } else { unknown });
    }
    session.batch_execute("COMMIT").expect("it commits");
    for key in ["k 0", "k 1"] {
        assert!(!writer.query_one("SELECT cache_exists($1)", &[&key]).expect("it reads").get::<_, bool>(0));
    }
}
