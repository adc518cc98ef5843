//! Cached queries whose functions call the cache. A session that runs a query for others must not wait for another session, because
//! that session may wait for it. The *leader* is the session that runs a query while others wait for its result.
//!
//! Many tests end with a check of shared memory: `findings` returns what `cache_check()` reports, and must be empty.

use super::calls::run;
use super::slow::{
    Gate, RoomyDatabase, ask, ask_all, assert_all, cache, gated, locked, only, runs, rush, slow,
};
use crate::memory::findings;
use pg_cache_testbed::wait_until;
use std::thread;

/// Functions that call each other's query, or their own query, through the cache. A session takes an advisory lock for such a call,
/// until the end of its transaction. The lock tells a function that it runs inside of such a call.
const FUNCTIONS: &str = "CREATE FUNCTION is_inside() RETURNS boolean STABLE LANGUAGE sql AS
        $$ SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) $$;
    CREATE FUNCTION calls(name text, query text) RETURNS text STABLE LANGUAGE plpgsql AS
        $$ BEGIN
             IF is_inside() THEN RETURN name; END IF;
             PERFORM pg_advisory_xact_lock_shared(1), pg_sleep(0.4);
             RETURN name || ' ' || (SELECT v FROM cache_query(query) AS q(v text));
           END $$;
    CREATE FUNCTION one() RETURNS text STABLE LANGUAGE sql AS $$ SELECT calls('one', 'SELECT two() AS v FROM runs') $$;
    CREATE FUNCTION two() RETURNS text STABLE LANGUAGE sql AS $$ SELECT calls('two', 'SELECT one() AS v FROM runs') $$;
    CREATE FUNCTION same() RETURNS text STABLE LANGUAGE sql AS $$ SELECT calls('same', 'SELECT same() AS v FROM runs') $$";

/// Opens sessions whose waits end neither by the check for deadlocks nor by the wait timeout. The statement timeout makes a test
/// fail instead of hanging.
fn connect(database: &RoomyDatabase, number: usize) -> Vec<postgres::Client> {
    let mut sessions = database.sessions(number);
    for session in &mut sessions {
        run(
            session,
            "SET deadlock_timeout = '1min'; SET pg_cache.wait_timeout = '1h'; SET statement_timeout = '2min'",
        );
    }
    sessions
}

/// The first query calls the second, and the second calls the first. If leaders waited, two sessions that each lead one of the
/// queries would wait for each other.
#[test]
fn two_queries_that_call_each_other_do_not_hang() {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    run(&mut witness, FUNCTIONS);
    for number in [2, 2, 10] {
        let mut sessions = connect(&database, number);
        let outcomes = rush(&mut sessions, |number, session| {
            let query = if number.is_multiple_of(2) {
                "SELECT one() AS v FROM runs"
            } else {
                "SELECT two() AS v FROM runs"
            };
            ask(session, &cache(query))
        });
        for (number, outcome) in outcomes.into_iter().enumerate() {
            let expected = if number.is_multiple_of(2) { "one two" } else { "two one" };
            assert_eq!(outcome.answer, only(expected), "{outcome:?}");
        }
    }
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// A query calls itself through the cache. Its session must not wait for itself.
#[test]
fn a_query_that_calls_itself_does_not_hang() {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    run(&mut witness, FUNCTIONS);
    for number in [1, 5] {
        let mut sessions = connect(&database, number);
        assert_all(&ask_all(&mut sessions, &cache("SELECT same() AS v FROM runs")), &only("same same"));
    }
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// The result of an inner query is stored, and the inner query runs once. The result of the outer query is not stored.
#[test]
fn an_inner_query_runs_once() {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    run(
        &mut witness,
        &format!(
            "CREATE FUNCTION inner_call() RETURNS text STABLE LANGUAGE sql AS
                 $f$ SELECT v FROM cache_query($$ {} $$) AS q(v text) $f$",
            slow(0.5)
        ),
    );
    let mut sessions = connect(&database, 10);
    for round in 0..2 {
        let outcomes = ask_all(&mut sessions, &cache("SELECT inner_call() AS v"));
        assert_all(&outcomes, &only("1"));
        assert!(outcomes.iter().all(|outcome| outcome.has_run()), "{outcomes:?}");
        assert_eq!(runs(&mut witness), 1, "{round}");
    }
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// A session that leads a query does not wait for the leader of an inner query, but runs the inner query itself.
#[test]
fn a_leader_waits_for_no_other_leader() {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    let inner = gated();
    run(
        &mut witness,
        &format!(
            "CREATE FUNCTION inner_call() RETURNS text STABLE LANGUAGE sql AS
                 $f$ SELECT v FROM cache_query($$ {inner} $$) AS q(v text) $f$"
        ),
    );
    let mut sessions = connect(&database, 2);
    let [leader, outer] = &mut sessions[..] else { panic!("there are two sessions") };
    thread::scope(|threads| {
        let gate = Gate::close(&database);
        let leading = threads.spawn(|| ask(leader, &cache(&inner)));
        wait_until("the leader to run", || locked(&mut witness) == 1 || leading.is_finished());
        let asking = threads.spawn(|| ask(outer, &cache("SELECT inner_call() AS v")));
        wait_until("both to run", || locked(&mut witness) == 2 || asking.is_finished());
        drop(gate);
        assert_eq!(asking.join().expect("it does not panic").answer, only("1"));
        assert_eq!(leading.join().expect("it does not panic").answer, only("1"));
    });
    assert_eq!(runs(&mut witness), 2);
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}
