//! How long a session waits for the run of another session, and what ends its wait. The *leader* is the session that runs a query
//! while others wait for its result. The *gate* (`slow.rs`) is a lock at which the query of the leader waits until the test opens
//! it.
//!
//! Many tests end with a check of shared memory: `findings` returns what `cache_check()` reports, and must be empty.

use super::calls::{run, text};
use super::slow::{
    Gate, Outcome, RoomyDatabase, ask, ask_all, assert_all, cache, gated, locked, only, runs, slow, waiting,
};
use crate::memory::findings;
use pg_cache_testbed::{Database, wait_until};
use postgres::Client;
use std::thread;

/// The status of a call that ran the query beside another session.
const BESIDE: &str = "miss: another session is computing the value";

/// Runs `meanwhile` while a leader runs the query of `statement`, which waits at the gate. `meanwhile` must open the gate. Asserts
/// that the leader is not disturbed.
fn while_led<R>(
    database: &RoomyDatabase,
    witness: &mut Client,
    statement: &str,
    meanwhile: impl FnOnce(&mut Client, Gate) -> R,
) -> R {
    let mut leader = database.connect();
    thread::scope(|threads| {
        let gate = Gate::close(database);
        let leading = threads.spawn(|| ask(&mut leader, statement));
        wait_until("the leader to run", || locked(witness) == 1 || leading.is_finished());
        let result = meanwhile(witness, gate);
        let outcome = leading.join().expect("it does not panic");
        assert_eq!((outcome.answer, &*outcome.status), (only("1"), "miss: not there"));
        result
    })
}

/// With `pg_cache.wait_timeout = 0`, a session runs the query itself at once.
#[test]
fn a_session_without_patience_runs_the_query_itself() {
    let database = RoomyDatabase::new();
    let [mut witness, mut session] = [(); 2].map(|()| database.connect());
    run(&mut session, "SET pg_cache.wait_timeout = 0");
    let statement = cache(&gated());
    let outcome = while_led(&database, &mut witness, &statement, |witness, gate| {
        thread::scope(|threads| {
            let asking = threads.spawn(|| ask(&mut session, &statement));
            wait_until("both to run", || locked(witness) == 2 || asking.is_finished());
            drop(gate);
            asking.join().expect("it does not panic")
        })
    });
    assert_eq!((outcome.answer, &*outcome.status), (only("1"), BESIDE));
    assert_eq!(runs(&mut witness), 2);
    assert_eq!(ask(&mut session, &statement).status, "hot");
}

/// While a run takes longer than `pg_cache.wait_timeout`, a few waiting sessions run the query themselves, one after another, and
/// not each of them: each session that gives up doubles the time for the others.
#[test]
fn one_session_after_another_loses_patience() {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    let mut sessions = database.sessions(30);
    sessions.iter_mut().for_each(|session| run(session, "SET pg_cache.wait_timeout = '200ms'"));
    let statement = cache(&gated());
    let outcomes = while_led(&database, &mut witness, &statement, |witness, gate| {
        thread::scope(|threads| {
            let asking = threads.spawn(|| ask_all(&mut sessions, &statement));
            wait_until("three sessions to run it themselves", || locked(witness) > 3 || asking.is_finished());
            drop(gate);
            asking.join().expect("no session fails")
        })
    });
    assert_all(&outcomes, &only("1"));
    let beside = outcomes.iter().filter(|outcome| outcome.has_run()).count();
    assert!(outcomes.iter().all(|outcome| !outcome.has_run() || outcome.status == BESIDE), "{outcomes:?}");
    // The next sessions would have given up after further 1.6 and 3.2 seconds, and so on. If the time did not double, this would be
    // a session in each 200 ms. If it counted for each session alone, all of them would have given up at the same time.
    assert!((3..=8).contains(&beside), "{beside} have run it themselves: {outcomes:?}");
    assert_eq!(runs(&mut witness), 1 + beside as i64);
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// A cancel, a terminate and the time limits end a wait with their error. The leader and the other waiting sessions go on.
#[test]
fn a_session_can_be_disturbed_while_it_waits() {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    let mut patient = database.sessions(3);
    for (number, (before, how, code)) in [
        ("", "pg_cancel_backend", "57014: canceling statement due to user request"),
        ("", "pg_terminate_backend", ""),
        ("SET statement_timeout = '1s'", "", "57014: canceling statement due to statement timeout"),
        ("SET lock_timeout = '200ms'", "", "55P03: "),
    ]
    .into_iter()
    .enumerate()
    {
        let statement = cache(&format!("{} WHERE one <> {}", gated(), number + 10));
        let runs_before = runs(&mut witness);
        let mut disturbed = database.connect();
        let pid = text(&mut disturbed, "SELECT pg_backend_pid()");
        run(&mut disturbed, before);
        while_led(&database, &mut witness, &statement, |witness, gate| {
            thread::scope(|threads| {
                let others = threads.spawn(|| ask_all(&mut patient, &statement));
                wait_until("the others to wait", || waiting(witness) == 3 || others.is_finished());
                let asking = threads.spawn(|| disturbed.simple_query(&statement).map(|_| ()));
                if !how.is_empty() {
                    wait_until("it to wait", || waiting(witness) == 4 || others.is_finished());
                    run(witness, &format!("SELECT {how}({pid})"));
                }
                let error = asking.join().expect("it does not panic").expect_err("it is disturbed");
                let said =
                    error.as_db_error().map(|said| format!("{}: {}", said.code().code(), said.message()));
                // The client of a terminated session may only see that the connection is closed.
                assert!(code.is_empty() || said.is_some_and(|said| said.starts_with(code)), "{error:?}");
                wait_until("the others to wait on", || waiting(witness) == 3 || others.is_finished());
                drop(gate);
                let outcomes = others.join().expect("it does not panic");
                assert_all(&outcomes, &only("1"));
                let none_has_run = outcomes.iter().all(|outcome| !outcome.has_run());
                assert!(none_has_run, "{outcomes:?}");
            });
        });
        assert_eq!(runs(&mut witness) - runs_before, 1);
        if how != "pg_terminate_backend" {
            run(&mut disturbed, "RESET statement_timeout; RESET lock_timeout");
            assert_eq!(ask(&mut disturbed, &statement).status, "hot", "the session goes on");
        }
    }
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// A session in a savepoint that is cancelled while it waits goes on after a rollback to the savepoint.
#[test]
fn a_wait_that_is_cancelled_in_a_savepoint_leaves_the_transaction() {
    let database = RoomyDatabase::new();
    let [mut witness, mut session] = [(); 2].map(|()| database.connect());
    let statement = cache(&gated());
    while_led(&database, &mut witness, &statement, |witness, gate| {
        run(&mut session, "BEGIN; SET LOCAL statement_timeout = '1s'; SAVEPOINT s");
        let outcome = ask(&mut session, &statement);
        assert_eq!(outcome.answer, Err("57014: canceling statement due to statement timeout".to_owned()));
        run(&mut session, "ROLLBACK TO s; SET LOCAL statement_timeout = 0");
        let Outcome { answer, status, .. } = thread::scope(|threads| {
            let asking = threads.spawn(|| ask(&mut session, &statement));
            wait_until("it to wait again", || waiting(witness) == 1 || asking.is_finished());
            drop(gate);
            asking.join().expect("it does not panic")
        });
        assert_eq!((answer, &*status), (only("1"), "waited"));
        run(&mut session, "COMMIT");
    });
    assert_eq!(runs(&mut witness), 1);
}

/// A function of the leader catches the error of the query and goes on. The other sessions do not wait for the end of the function.
#[test]
fn an_error_that_the_leader_catches_ends_the_wait() {
    let database = RoomyDatabase::new();
    let [mut leader, mut witness] = [(); 2].map(|()| database.connect());
    let mut sessions = database.sessions(3);
    run(&mut witness, "CREATE TABLE divisors AS SELECT 0 AS d");
    let statement = cache("SELECT waits_for(1) || (1 / (SELECT min(d) FROM divisors))::text AS v FROM runs");
    let catches = format!(
        "DO $do$ BEGIN
             BEGIN
                 PERFORM v FROM ({statement}) AS q;
             EXCEPTION WHEN division_by_zero THEN NULL;
             END;
             PERFORM pg_advisory_lock(2);
         END $do$"
    );
    run(&mut witness, "SELECT pg_advisory_lock(1), pg_advisory_lock(2)");
    sessions.iter_mut().for_each(|session| run(session, "SET pg_cache.wait_timeout = '1h'"));
    thread::scope(|threads| {
        let leading = threads.spawn(|| run(&mut leader, &catches));
        wait_until("the leader to run", || locked(&mut witness) == 1);
        let asking = threads.spawn(|| ask_all(&mut sessions, &statement));
        wait_until("the others to wait", || waiting(&mut witness) == 3 || asking.is_finished());
        run(&mut witness, "UPDATE divisors SET d = 1; SELECT pg_advisory_unlock(1)");
        assert_all(&asking.join().expect("no session fails"), &only("1"));
        assert!(!leading.is_finished(), "the leader is still in its function");
        run(&mut witness, "SELECT pg_advisory_unlock(2)");
        leading.join().expect("it does not panic");
    });
}

/// `pg_stat_activity` shows that a session waits, and from PostgreSQL 17 on also for what.
#[test]
fn the_wait_has_a_name() {
    let database = RoomyDatabase::new();
    let [mut witness, mut session] = [(); 2].map(|()| database.connect());
    let name = if database.cluster().server().major() >= 17 { "PgCacheLease" } else { "Extension" };
    let statement = cache(&gated());
    let outcome = while_led(&database, &mut witness, &statement, |witness, gate| {
        thread::scope(|threads| {
            let asking = threads.spawn(|| ask(&mut session, &statement));
            wait_until("the wait to be shown", || {
                let shown = text(
                    witness,
                    "SELECT wait_event FROM pg_stat_activity
                      WHERE datname = current_database() AND wait_event_type = 'Extension' AND backend_type = 'client backend'",
                );
                shown == name || asking.is_finished()
            });
            assert!(!asking.is_finished(), "it was not shown");
            drop(gate);
            asking.join().expect("it does not panic")
        })
    });
    assert_eq!((outcome.answer, &*outcome.status), (only("1"), "waited"));
}

/// `pg_cache.wait_timeout` is a setting of the session with a default of three seconds.
#[test]
fn a_session_waits_three_seconds_by_default() {
    let database = Database::create();
    let mut session = database.connect();
    assert_eq!(text(&mut session, "SHOW pg_cache.wait_timeout"), "3s");
    run(&mut session, "SET pg_cache.wait_timeout = '1min'");
    assert_eq!(text(&mut session, "SHOW pg_cache.wait_timeout"), "1min");
    assert!(session.batch_execute("SET pg_cache.wait_timeout = -1").is_err());
}

/// A call of `cache_fetch` with the key of a query result runs its query without a *fill*, the right to store a result for which
/// others wait. So no session waits for this call. The key is not secret: `cache_queries` shows it.
#[test]
fn a_fetch_with_the_key_of_a_query_holds_up_no_session() {
    let database = RoomyDatabase::new();
    let [mut witness, mut session, mut fetching] = [(); 3].map(|()| database.connect());
    let query = slow(0.2);
    let key = text(&mut session, &format!("SELECT cache_key($q${query}$q$)"));
    run(&mut witness, "SELECT pg_advisory_lock(7)");
    let statement = format!("SELECT cache_fetch('{key}', 'SELECT waits_for(7)')");
    thread::scope(|threads| {
        let fetch = threads.spawn(|| ask(&mut fetching, &statement));
        wait_until("the fetch to run", || locked(&mut witness) == 1 || fetch.is_finished());
        let (outcome, was_running) = (ask(&mut session, &cache(&query)), !fetch.is_finished());
        run(&mut witness, "SELECT pg_advisory_unlock(7)");
        let fetched = fetch.join().expect("it does not panic");
        assert_eq!((outcome.answer, &*outcome.status), (only("1"), "miss: not there"));
        assert!(was_running, "it runs during the call");
        assert_eq!(fetched.status, "refused: the key belongs to the result of a query");
    });
    assert_eq!(ask(&mut session, &cache(&query)).status, "hot");
    // Callers may choose a key that is only similar to the key of a query result.
    for key in ["query:1", &format!("{key}0"), &key.to_uppercase()] {
        let fetch = format!("SELECT cache_fetch('{key}', 'SELECT 1')");
        assert_eq!(ask(&mut fetching, &fetch).status, "miss: not there", "{key}");
    }
}
