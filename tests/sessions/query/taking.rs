//! Sessions that wait while another session, the *leader*, runs the same query. A waiting session takes the leader's result only if
//! its own call would find that result in the cache. Some tests change the cache, the tables or privileges while the leader runs.
//! The last tests compute stored results again.
//!
//! `slow.rs` has the *gate*: a lock at which the query of the leader waits until the test opens it. So a test decides how long the
//! leader runs.
//!
//! Many tests end with a check of shared memory: `findings` returns what `cache_check()` reports, and must be empty.

use super::calls::{call, run};
use super::slow::{
    Gate, Outcome, RoomyDatabase, SETUP, ask, ask_all, assert_all, cache, gated, locked, only, runs, rush,
    waiting,
};
use crate::memory::findings;
use pg_cache_testbed::{Database, wait_until};
use postgres::Client;
use std::thread;

/// Runs `statement`, which must wait at the gate, in a new session: the leader. Meanwhile runs `calls` in all `sessions`, each with
/// the number of its session. When at least `number` sessions wait for the leader, calls `then` and opens the gate. Returns the
/// outcome of the leader, and those of the sessions in their order.
fn beside_a_leader(
    database: &RoomyDatabase,
    witness: &mut Client,
    statement: &str,
    sessions: &mut [Client],
    number: i64,
    calls: impl Fn(usize, &mut Client) -> Outcome + Send + Sync,
    then: impl FnOnce(&mut Client),
) -> (Outcome, Vec<Outcome>) {
    let mut leader = database.connect();
    thread::scope(|threads| {
        let gate = Gate::close(database);
        let leading = threads.spawn(|| ask(&mut leader, statement));
        wait_until("the leader to run", || locked(witness) > 0 || leading.is_finished());
        let asking = threads.spawn(|| rush(sessions, calls));
        wait_until("the others to wait", || waiting(witness) >= number || asking.is_finished());
        then(witness);
        drop(gate);
        let others = asking.join().expect("no session fails");
        (leading.join().expect("it does not panic"), others)
    })
}

/// The call of the leader has no tags, so callers with a tag cannot take its result. Together they need one more run. The test
/// tolerates two.
#[test]
fn a_result_without_the_tags_of_the_waiting_session_is_not_taken() {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    let mut sessions = database.sessions(6);
    let query = gated();
    let tagged = call(&query, "v text", "tags => '{x}'");
    let (leader, others) = beside_a_leader(
        &database,
        &mut witness,
        &cache(&query),
        &mut sessions,
        6,
        |_, session| ask(session, &tagged),
        |_| (),
    );
    assert_eq!(leader.answer, only("1"));
    assert_all(&others, &only("1"));
    let count = runs(&mut witness);
    assert!((2..=3).contains(&count), "{count} runs: {others:?}");
    assert_eq!(ask(&mut witness, &tagged).status, "hot");
    run(&mut witness, "SELECT cache_invalidate_tag('x')");
    let outcome = ask(&mut witness, &tagged);
    assert!(outcome.answer == only("1") && outcome.has_run(), "{outcome:?}");
}

/// Three sessions must not take the leader's result: the first has a temporary table of the same name, the second has another
/// column list, and the third has another `DateStyle`. The fourth calls like the leader, and must get the result without a run.
#[test]
fn a_session_that_would_get_other_rows_does_not_take_the_result() {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    let mut sessions = database.sessions(4);
    run(&mut sessions[0], "CREATE TEMP TABLE t AS SELECT 100 AS v");
    run(&mut sessions[2], "SET DateStyle = 'German'");
    run(&mut witness, "CREATE TABLE days AS SELECT '2026-01-02'::date AS day");
    let query =
        "SELECT (SELECT sum(v) FROM t)::text || (SELECT day FROM days)::text || waits_for(1) AS v FROM runs";
    let (leader, others) = beside_a_leader(
        &database,
        &mut witness,
        &cache(query),
        &mut sessions,
        1,
        |number, session| match number {
            1 => ask(session, &call(query, "v int", "")),
            _ => ask(session, &cache(query)),
        },
        |_| (),
    );
    assert_eq!(leader.answer, only("12026-01-02"));
    assert_eq!(others[0].answer, only("1002026-01-02"), "{others:?}");
    assert!(others[1].answer.as_ref().is_err_and(|error| error.starts_with("42804: ")), "{others:?}");
    assert_eq!(others[2].answer, only("102.01.2026"), "{others:?}");
    assert_eq!(others[3].answer, only("12026-01-02"), "{others:?}");
    assert!(!others[3].has_run(), "{others:?}");
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// The callers of `cache_fetch` choose the key. Callers that use one key for different queries or arguments each get their own
/// value.
#[test]
fn callers_of_one_key_with_different_queries_get_their_own_values() {
    let database = RoomyDatabase::new();
    let mut sessions = database.sessions(12);
    let fetch = |number: usize| match number % 3 {
        0 => "SELECT cache_fetch('k', $$ SELECT '0' || nap(0.3) $$)",
        1 => "SELECT cache_fetch('k', $$ SELECT $1::text || nap(0.3) $$, '[1]')",
        _ => "SELECT cache_fetch('k', $$ SELECT $1::text || nap(0.3) $$, '[2]')",
    };
    for _ in 0..3 {
        let outcomes = rush(&mut sessions, |number, session| ask(session, fetch(number)));
        for (number, outcome) in outcomes.into_iter().enumerate() {
            assert_eq!(outcome.answer, only(&format!("\"{}\"", number % 3)), "{outcome:?}");
        }
    }
    assert_eq!(findings(&mut database.connect()), Vec::<String>::new());
}

/// While the leader runs, another session flushes spaces, deletes the key, invalidates a tag or a table, creates a table, or
/// updates a row. All sessions still get the result. The query runs at most three times, and the run of the leader counts.
#[test]
fn changes_while_the_leader_runs_leave_no_session_waiting() {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    let mut sessions = database.sessions(8);
    let query = gated();
    let statement = call(&query, "v text", "tags => '{x}'");
    for change in [
        "SELECT cache_flush()",
        "SELECT cache_flush('*')",
        &format!("SELECT cache_delete(cache_key($cached${query}$cached$))"),
        "SELECT cache_invalidate_tag('x')",
        "SELECT cache_invalidate_relation('t')",
        "CREATE TABLE nap_table ()",
        "UPDATE t SET v = v",
    ] {
        run(&mut witness, "SELECT cache_flush()");
        let before = runs(&mut witness);
        let ask_it = |_: usize, session: &mut Client| ask(session, &statement);
        let apply = |witness: &mut Client| run(witness, change);
        let (leader, others) =
            beside_a_leader(&database, &mut witness, &statement, &mut sessions, 8, ask_it, apply);
        assert_eq!(leader.answer, only("1"), "{change}");
        assert_all(&others, &only("1"));
        let count = runs(&mut witness) - before;
        assert!((1..=3).contains(&count), "{change}: {count} runs: {others:?}");
        let outcome = ask(&mut witness, &statement);
        assert_eq!(outcome.answer, only("1"), "{change}");
    }
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// A session that asks after a `REVOKE` gets the error of the missing privilege. The leader began before the `REVOKE` and gets the
/// result.
#[test]
fn a_revoked_privilege_counts_for_a_session_that_asks_after_it() {
    let database = Database::create();
    let mut witness = database.connect();
    run(&mut witness, SETUP);
    run(
        &mut witness,
        "CREATE ROLE flight_reader; SELECT cache_grant('default', 'flight_reader', 'write');
         GRANT SELECT ON t, runs TO flight_reader",
    );
    let mut sessions: Vec<_> = (0..6).map(|_| database.connect()).collect();
    sessions
        .iter_mut()
        .for_each(|session| run(session, "SET ROLE flight_reader; SET pg_cache.wait_timeout = '1min'"));
    let statement = cache("SELECT (SELECT sum(v) FROM t)::text || waits_for(1) AS v FROM runs");
    run(&mut witness, "SELECT pg_advisory_lock(1)");
    let (leader, others) = sessions.split_at_mut(1);
    thread::scope(|threads| {
        let leading = threads.spawn(|| ask(&mut leader[0], &statement));
        wait_until("the leader to run", || locked(&mut witness) == 1);
        run(&mut witness, "REVOKE SELECT ON t FROM flight_reader");
        let asking = threads.spawn(|| ask_all(others, &statement));
        wait_until("the others to wait", || waiting(&mut witness) == 5 || asking.is_finished());
        run(&mut witness, "SELECT pg_advisory_unlock(1)");
        assert_eq!(leading.join().expect("it does not panic").answer, only("1"));
        let outcomes = asking.join().expect("no session fails");
        assert_all(&outcomes, &Err("42501: permission denied for table t".to_owned()));
    });
    drop(sessions);
    run(
        &mut witness,
        "DROP OWNED BY flight_reader; SELECT cache_revoke('default', 'flight_reader', 'write'); DROP ROLE flight_reader",
    );
}

/// Sessions in which the cache is switched off do not wait for a leader.
#[test]
fn sessions_without_the_cache_do_not_wait() {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    let mut sessions = database.sessions(2);
    run(&mut sessions[0], "SET pg_cache.enabled = off");
    run(&mut sessions[1], "SET pg_cache.bypass = on");
    let statement = cache(&gated());
    let mut leader = database.connect();
    thread::scope(|threads| {
        let gate = Gate::close(&database);
        let leading = threads.spawn(|| ask(&mut leader, &statement));
        wait_until("the leader to run", || locked(&mut witness) == 1 || leading.is_finished());
        let asking = threads.spawn(|| ask_all(&mut sessions, &statement));
        wait_until("all to run", || locked(&mut witness) == 3 || asking.is_finished());
        drop(gate);
        assert_all(&asking.join().expect("no session fails"), &only("1"));
        assert_eq!(leading.join().expect("it does not panic").answer, only("1"));
    });
}

/// Callers with `refresh` get a result that was computed after their call began. Meanwhile, other callers do not wait: they get the
/// stored result, which is the old one until the new one is stored.
#[test]
fn callers_that_refresh_get_a_new_result() {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    let mut sessions = database.sessions(10);
    // The result depends on nothing, so only a refresh shows a change.
    let query = "SELECT v::text || nap(0.6) AS v FROM t, runs";
    let statement = call(query, "v text", "depends => '{}'");
    let refresh = call(query, "v text", "depends => '{}', refresh => true");
    assert_eq!(ask(&mut witness, &statement).answer, only("1"));
    for round in 2..4 {
        run(&mut witness, &format!("UPDATE t SET v = {round}"));
        let old = round - 1;
        let asked = rush(&mut sessions, |number, session| match number {
            0..5 => (true, ask(session, &refresh)),
            _ => (false, ask(session, &statement)),
        });
        for (refreshes, outcome) in asked {
            let right = [only(&round.to_string()), only(&old.to_string())];
            assert!(right[..if refreshes { 1 } else { 2 }].contains(&outcome.answer), "{outcome:?}");
            assert!(refreshes || outcome.status == "hot", "{outcome:?}");
        }
        assert_eq!(ask(&mut witness, &statement).answer, only(&round.to_string()));
    }
}

/// When the query runs again, the new result replaces the stored one, with the dependencies and the tags of the new run. A table
/// that only the earlier run read does not invalidate the new result.
#[test]
fn a_new_run_replaces_the_dependencies_of_the_stored_result() {
    let database = RoomyDatabase::new();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut other,
        "CREATE TABLE choice AS SELECT true AS first; CREATE TABLE a AS SELECT 1 AS v; CREATE TABLE b AS SELECT 10 AS v;
         CREATE FUNCTION chosen() RETURNS text STABLE LANGUAGE plpgsql AS
             $$ BEGIN
                  IF (SELECT first FROM choice) THEN RETURN (SELECT v FROM a); END IF;
                  RETURN (SELECT v FROM b);
                END $$",
    );
    let accept = call("SELECT chosen() AS v", "v text", "stale_ok => '1 h', tags => '{x}'");
    let strict = call("SELECT chosen() AS v", "v text", "tags => '{x}'");
    let assert_is = |session: &mut Client, statement: &str, value: &str, status: &str| {
        let outcome = ask(session, statement);
        assert_eq!((outcome.answer, &*outcome.status), (only(value), status), "{statement}");
    };
    assert_is(&mut session, &accept, "1", "miss: not there");
    run(&mut other, "UPDATE choice SET first = false");
    assert_is(&mut session, &accept, "1", "stale");
    assert_is(&mut session, &strict, "10", "invalidated: table choice");
    run(&mut other, "UPDATE a SET v = 2");
    assert_is(&mut session, &accept, "10", "hot");
    run(&mut other, "UPDATE b SET v = 20");
    assert_is(&mut session, &accept, "10", "stale");
    assert_is(&mut session, &strict, "20", "invalidated: table b");
    // `stale_ok` forgives changes of rows, but never the invalidation of a tag.
    run(&mut other, "SELECT cache_invalidate_tag('x')");
    assert_is(&mut session, &accept, "20", "invalidated: tag x");
}
