//! Tests of a transaction's changes when the session or the commit does not complete: terminated sessions, cancelled statements and
//! failed commits. None of these changes may become visible. Also tests of transactions that are too large for their limit or for
//! the cache, and of the moment when a value expires. No fence may stay raised. A *fence* is a word in shared memory that says when
//! something that values depend on last changed (`docs/invalidation.md`). A transaction *raises* the fences of what it has changed
//! before its changes become visible, and lowers them afterwards. Values with a raised fence are misses.

use crate::memory::{cluster, findings};
use pg_cache_testbed::{Conf, Database, wait_until};
use postgres::Client;
use postgres::error::SqlState;
use std::time::{Duration, Instant};

/// Returns the text value of a key in the default space, or `None` for a miss.
pub fn get(session: &mut Client, key: &str) -> Option<String> {
    session.query_one("SELECT cache_get_text($1)", &[&key]).expect("reading works").get(0)
}

/// Sets a key in the default space. Returns false if the value was refused.
pub fn set(session: &mut Client, key: &str, value: &str) -> bool {
    session.query_one("SELECT cache_set_text($1, $2)", &[&key, &value]).expect("setting works").get(0)
}

/// A session is terminated inside a transaction. Others must still read the old value, and no fence may stay raised.
#[test]
fn a_session_that_ends_in_a_transaction_leaves_no_change() {
    let cluster = cluster(&Conf::preloaded());
    let mut witness = cluster.connect("postgres");
    assert!(set(&mut witness, "k", "old"));
    let mut session = cluster.connect("postgres");
    session.batch_execute("BEGIN; CREATE TABLE t (); SAVEPOINT s").expect("it begins");
    assert!(set(&mut session, "k", "new"));
    session.batch_execute("SELECT cache_invalidate_tag('t'), cache_flush('default')").expect("it goes on");
    let process: i32 = session.query_one("SELECT pg_backend_pid()", &[]).expect("it lives").get(0);
    witness.execute("SELECT pg_terminate_backend($1)", &[&process]).expect("it is told to end");
    wait_until("its end", || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
        witness.query_one(query, &[&process]).expect("there is a view").get::<_, i64>(0) == 0
    });
    assert_eq!(get(&mut witness, "k").as_deref(), Some("old"));
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// After a write, the session reads from the catalogs which tables its tables are a part of. It may have to wait for a lock on
/// `pg_inherits` then. If it is stopped there, its transaction must end with all its locks, and change nothing.
#[test]
fn a_session_that_is_stopped_while_it_looks_up_its_written_tables_leaves_no_change() {
    let database = Database::create();
    let mut witness = database.connect();
    witness.batch_execute("CREATE TABLE t AS SELECT 1 AS v; SELECT cache_watch('t')").expect("a table");
    witness.batch_execute("SELECT cache_set_text('tagged', 'old', tags => '{t}')").expect("it is stored");
    assert!(set(&mut witness, "k", "old"));
    for ask in [
        "SELECT cache_get_text('k')",
        "SELECT cache_fetch('f', 'SELECT v FROM t')",
        "COMMIT",
        "PREPARE TRANSACTION 'stopped'",
    ] {
        for stop in ["pg_cancel_backend", "pg_terminate_backend"] {
            let mut session = database.connect();
            let process: i32 = session.query_one("SELECT pg_backend_pid()", &[]).expect("it lives").get(0);
            session.batch_execute("BEGIN; INSERT INTO t VALUES (2)").expect("it writes");
            assert!(set(&mut session, "k", "new"));
            witness.batch_execute("BEGIN; LOCK pg_inherits IN ACCESS EXCLUSIVE MODE").expect("it locks");
            let asking = std::thread::spawn(move || (session.batch_execute(ask).is_err(), session));
            let count = |witness: &mut Client, query: &str| -> i64 {
                witness.query_one(query, &[&process]).expect("there is a view").get(0)
            };
            wait_until("it to wait", || {
                count(&mut witness, "SELECT count(*) FROM pg_locks WHERE pid = $1 AND NOT granted") == 1
            });
            witness.execute(&format!("SELECT {stop}($1)"), &[&process]).expect("it is told to stop");
            let (stopped, mut session) = asking.join().expect("it asks");
            assert!(stopped, "{ask}, {stop}");
            witness.batch_execute("COMMIT").expect("it gives the lock back");
            if stop == "pg_cancel_backend" {
                session.batch_execute("ROLLBACK").expect("it goes on");
                assert_eq!(get(&mut session, "k").as_deref(), Some("old"), "{ask}");
            }
            drop(session);
            wait_until("its end", || {
                count(&mut witness, "SELECT count(*) FROM pg_stat_activity WHERE pid = $1") == 0
            });
            witness
                .batch_execute("BEGIN; LOCK t IN ACCESS EXCLUSIVE MODE NOWAIT; ROLLBACK")
                .unwrap_or_else(|error| panic!("{ask}, {stop}: {error}"));
            for key in ["k", "tagged"] {
                assert_eq!(get(&mut witness, key).as_deref(), Some("old"), "{key}: {ask}, {stop}");
            }
            assert_eq!(findings(&mut witness), Vec::<String>::new(), "{ask}, {stop}");
        }
    }
}

/// A statement sets a key and is then cancelled. Its own session must read no value afterwards.
#[test]
fn a_cancelled_statement_drops_its_changes() {
    let cluster = cluster(&Conf::preloaded());
    let mut session = cluster.connect("postgres");
    let error = session
        .batch_execute("SET statement_timeout = 200; SELECT cache_set_text('k', 'never'), pg_sleep(60)")
        .expect_err("it is cancelled");
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    assert_eq!(get(&mut session, "k"), None);
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// A list of keys may be very long, so the call must check for interrupts.
#[test]
fn a_call_over_many_keys_can_be_cancelled_in_the_middle() {
    const KEYS: i64 = 3_000_000;
    let cluster = cluster(&Conf::preloaded());
    let [mut session, mut witness] = [(); 2].map(|()| cluster.connect("postgres"));
    let process: i32 = session.query_one("SELECT pg_backend_pid()", &[]).expect("it lives").get(0);
    let missed = |witness: &mut Client| -> i64 {
        let row =
            witness.query_one("SELECT misses_absent FROM cache_stats_detail WHERE space = 'default'", &[]);
        row.expect("there is a view").get(0)
    };
    wait_until("a call that is told to stop in time", || {
        let before = missed(&mut witness);
        let reading = std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let query = "SELECT count(*) FROM cache_get_many(ARRAY(SELECT 'k' || i FROM generate_series(1, $1::bigint) AS i))";
                session.query_one(query, &[&KEYS]).map(|row| row.get::<_, i64>(0))
            });
            wait_until("it to be at it", || missed(&mut witness) > before || reading.is_finished());
            witness.execute("SELECT pg_cancel_backend($1)", &[&process]).expect("it is told to stop");
            reading.join().expect("it reads")
        });
        // If the machine was busy, the call had ended before.
        let Err(error) = reading else { return false };
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
        let looked_for = missed(&mut witness) - before;
        assert!(looked_for < KEYS, "it went on to the end");
        looked_for > 0
    });
}

/// The check for serialization failures comes after pg_cache has raised the fences and announced the keys, which makes them misses.
/// A commit that fails there must withdraw both. Otherwise, `cache_check()` finds the fences, and the newer value of a key is a
/// miss.
#[test]
fn a_commit_that_fails_after_raising_its_fences_is_taken_back() {
    let cluster = cluster(&Conf::preloaded());
    let [mut one, mut two, mut witness] = [(); 3].map(|()| cluster.connect("postgres"));
    witness.batch_execute("CREATE TABLE t AS SELECT 1 AS i").expect("a table");
    assert!(set(&mut witness, "k", "old"));
    // Each transaction reads the table that the other one then changes.
    let begin = "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT sum(i) FROM t";
    one.batch_execute(begin).expect("it begins");
    two.batch_execute(begin).expect("it begins");
    for session in [&mut one, &mut two] {
        session.batch_execute("INSERT INTO t VALUES (2)").expect("it writes");
        assert!(set(session, "k", "new"));
        session
            .batch_execute("SELECT cache_set_text('fresh', 'new', tags => '{t}'), cache_delete('gone'), cache_invalidate_tag('t')")
            .expect("it invalidates");
    }
    one.batch_execute("COMMIT").expect("the first one wins");
    assert_eq!(get(&mut witness, "k").as_deref(), Some("new"));
    assert!(set(&mut witness, "k", "newer"));
    let error = two.batch_execute("COMMIT").expect_err("the second one loses");
    assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE));
    // The server sends the error before it takes anything back. A session that answers the next statement has taken
    // everything back.
    two.batch_execute("SELECT 1").expect("it goes on");
    assert_eq!(get(&mut witness, "k").as_deref(), Some("newer"));
    assert_eq!(findings(&mut witness), Vec::<String>::new(), "no fence is left raised");
}

/// Values beyond `pg_cache.max_transaction_size` must be refused, and changes beyond it must not be lost: the transaction then
/// invalidates more than it has changed.
#[test]
fn the_pending_changes_of_a_transaction_are_limited() {
    let cluster = cluster(&Conf::preloaded().set("pg_cache.max_transaction_size", "64kB"));
    let mut session = cluster.connect("postgres");
    assert!(set(&mut session, "k", "old") && set(&mut session, "other", "old"));
    session.batch_execute("BEGIN").expect("it begins");
    let large = "x".repeat(40_000);
    assert!(set(&mut session, "large", &large));
    assert!(set(&mut session, "large", &large), "in the place of what it was");
    assert!(!set(&mut session, "k", &large));
    assert_eq!(get(&mut session, "k"), None, "the previous value of a refused one goes");
    assert_eq!(get(&mut session, "other").as_deref(), Some("old"));
    // Removals cannot be refused. Above the limit, a transaction invalidates the whole space instead of single keys.
    session
        .batch_execute("SELECT count(cache_delete('none ' || i)) FROM generate_series(1, 1000) AS i")
        .expect("it removes");
    assert_eq!(get(&mut session, "other"), None);
    session.batch_execute("COMMIT").expect("it commits");
    let mut witness = cluster.connect("postgres");
    assert_eq!((get(&mut witness, "other"), get(&mut witness, "large")), (None, None));
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// The cache has no room for all values of the transaction. No key may keep its old value, and `cache_check()` must find all memory
/// counted right. Both transactions also write to a table, so they have a transaction ID, and the server writes a commit record
/// for them.
#[test]
fn a_transaction_larger_than_the_cache_leaves_no_old_value() {
    let cluster = cluster(&Conf::preloaded().set("pg_cache.hot_size", "1MB"));
    let mut session = cluster.connect("postgres");
    let old =
        "INSERT INTO t SELECT i FROM generate_series(1, 100) AS i WHERE cache_set_text('k ' || i, 'old')";
    session.batch_execute("CREATE TABLE t (i int)").expect("a table");
    session.batch_execute(old).expect("old values");
    session
        .batch_execute(
            "BEGIN; INSERT INTO t VALUES (1);
             SELECT count(cache_set_text('k ' || i, repeat('x', 20000))) FROM generate_series(1, 100) AS i; COMMIT",
        )
        .expect("it commits");
    let left: i64 = session
        .query_one(
            "SELECT count(*) FROM generate_series(1, 100) AS i WHERE cache_get_text('k ' || i) = 'old'",
            &[],
        )
        .expect("reading works")
        .get(0);
    assert_eq!(left, 0);
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// The cache counts time in ticks of 50 ms, and rounding must only shorten a time to live, by less than two ticks
/// (`src/pg/clock.rs`). This test also holds on a slow machine: it compares each answer only with times that are certain bounds of
/// the moment of the answer.
#[test]
fn a_value_expires_at_most_100_ms_early_and_never_late() {
    let database = Database::create();
    let mut session = database.connect();
    let ttl = Duration::from_millis(700);
    for round in 0..3 {
        let asked = Instant::now();
        session
            .execute("SELECT cache_set_text($1, 'v', ttl => '700 ms')", &[&format!("k{round}")])
            .expect("setting works");
        let set = Instant::now();
        loop {
            let before = Instant::now();
            let hit = get(&mut session, &format!("k{round}")).is_some();
            if !hit {
                assert!(
                    asked.elapsed() >= ttl - Duration::from_millis(100),
                    "gone after {:?}",
                    asked.elapsed()
                );
                break;
            }
            assert!(before - set < ttl, "served after {:?}", before - set);
        }
    }
}
