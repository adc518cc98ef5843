//! A session waits for the run of a leader, and the leader waits for a lock of the session, directly or through other sessions. The
//! server's own check sees only the locks. So a waiting session that blocks its leader must run the query itself, soon after
//! `deadlock_timeout`. No session must get an error that it would not get without the cache.
//!
//! The *leader* is the session that runs a query while others wait for its result. A *flight* is a run of a query that other
//! sessions may wait for. `slow.rs` has the database, and counts sessions: `locked` those that wait for a lock, `waiting` those
//! that wait for a leader, and `runs` the runs of queries that read the table `runs`.

use super::calls::{Answer, run};
use super::slow::{Outcome, RoomyDatabase, ask, ask_all, assert_all, cache, locked, only, runs, waiting};
use crate::memory::findings;
use pg_cache_testbed::wait_until;
use postgres::Client;
use std::thread;
use std::time::{Duration, Instant};

/// The status of a call that ran the query beside another session.
const BESIDE: &str = "miss: another session is computing the value";

/// The time after which a session has not noticed a deadlock soon, even on a slow machine.
const LONG: Duration = Duration::from_secs(60);

/// Opens a session whose waits only the check for deadlocks ends. The statement timeout makes a test fail instead of hanging.
fn connect(database: &RoomyDatabase) -> Client {
    let mut session = database.connect();
    run(
        &mut session,
        "SET deadlock_timeout = '200ms'; SET pg_cache.wait_timeout = '1h'; SET statement_timeout = '2min'",
    );
    session
}

/// Asserts that the session has run the query itself, with this answer, and long before its statement timeout.
fn assert_beside(outcome: &Outcome, expected: &Answer, case: &str) {
    assert_eq!(outcome.answer, *expected, "{case}");
    assert!(outcome.has_run(), "{case}: {outcome:?}");
    assert!(outcome.took < LONG, "{case}: {outcome:?}");
}

/// Returns the query that waits until no session holds this advisory lock.
fn waits_for(lock: u32) -> String {
    format!("SELECT (SELECT sum(v) FROM t)::text || waits_for({lock}) AS v FROM runs")
}

/// A session that holds an advisory lock needs no other lock for the query [`waits_unless_it_holds`], so it cannot deadlock without
/// the cache.
const UNLESS_IT_HOLDS: &str = "CREATE FUNCTION waits_unless_it_holds(lock bigint) RETURNS text STABLE LANGUAGE sql AS
    $$ SELECT CASE WHEN EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid())
                   THEN '' ELSE waits_for($1) END $$";

/// Returns the query that waits until no session holds this advisory lock, unless its own session holds one.
fn waits_unless_it_holds(lock: u32) -> String {
    format!("SELECT sum(v)::text || waits_unless_it_holds({lock}) AS v FROM t, runs")
}

/// The leader waits for an advisory lock of the session that waits for the leader.
#[test]
fn a_session_whose_lock_the_leader_needs_runs_the_query_itself() {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    let [mut leader, mut holder] = [(); 2].map(|()| connect(&database));
    let mut others: Vec<_> = (0..5).map(|_| connect(&database)).collect();
    let statement = cache(&waits_for(1));
    for (acquire, release) in [
        ("SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock(1)"),
        ("BEGIN; SELECT pg_advisory_xact_lock(1)", "COMMIT"),
        ("BEGIN; SAVEPOINT s; SELECT pg_advisory_xact_lock(1)", "ROLLBACK"),
    ] {
        run(&mut witness, "SELECT cache_flush()");
        let before = runs(&mut witness);
        run(&mut holder, acquire);
        thread::scope(|threads| {
            let leading = threads.spawn(|| ask(&mut leader, &statement));
            wait_until("the leader to wait for the lock", || locked(&mut witness) == 1);
            let waiting_others = threads.spawn(|| ask_all(&mut others, &statement));
            wait_until("the others to wait", || waiting(&mut witness) == 5 || waiting_others.is_finished());
            let outcome = ask(&mut holder, &statement);
            assert_beside(&outcome, &only("1"), acquire);
            assert_eq!(outcome.status, BESIDE, "{acquire}");
            // Each of them stops waiting for a moment to look for a deadlock.
            wait_until("the others to wait on, because they do not hold up the leader", || {
                waiting(&mut witness) == 5 || waiting_others.is_finished()
            });
            assert!(!waiting_others.is_finished(), "they have not waited for the leader");
            run(&mut holder, release);
            assert_eq!(leading.join().expect("it does not panic").answer, only("1"));
            assert_all(&waiting_others.join().expect("no session fails"), &only("1"));
        });
        run(&mut holder, "SELECT pg_stat_force_next_flush()");
        assert_eq!(runs(&mut witness) - before, 2, "{acquire}");
        assert_eq!(ask(&mut holder, &statement).status, "hot");
    }
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// The leader waits for a session that does not use the cache, and which waits for the lock of the waiting session.
#[test]
fn a_third_session_between_the_leader_and_the_waiting_session_is_seen() {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    let [mut leader, mut third, mut holder] = [(); 3].map(|()| connect(&database));
    run(&mut witness, UNLESS_IT_HOLDS);
    let statement = cache(&waits_unless_it_holds(1));
    run(&mut third, "SELECT pg_advisory_lock(1)");
    run(&mut holder, "SELECT pg_advisory_lock(2)");
    thread::scope(|threads| {
        let third = threads.spawn(|| {
            run(&mut third, "SELECT pg_advisory_lock(2)");
            run(&mut third, "SELECT pg_advisory_unlock_all()");
        });
        wait_until("the third session to wait", || locked(&mut witness) == 1);
        let leading = threads.spawn(|| ask(&mut leader, &statement));
        wait_until("the leader to wait", || locked(&mut witness) == 2);
        assert_beside(&ask(&mut holder, &statement), &only("1"), "the session that holds up the third one");
        run(&mut holder, "SELECT pg_advisory_unlock_all()");
        third.join().expect("it gets the lock");
        assert_eq!(leading.join().expect("it does not panic").answer, only("1"));
    });
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// `ALTER TABLE` waits for the session that has read the table, and the leader waits in the queue behind `ALTER TABLE`.
#[test]
fn a_leader_in_the_queue_behind_alter_table_is_not_waited_for() {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    let [mut leader, mut holder, mut altering] = [(); 3].map(|()| connect(&database));
    let statement = cache("SELECT sum(v)::text AS v FROM t, runs");
    for column in ["a", "b"] {
        let alter = format!("ALTER TABLE t ADD COLUMN {column} int");
        run(&mut witness, "SELECT cache_flush()");
        run(&mut holder, "BEGIN; SELECT v FROM t");
        thread::scope(|threads| {
            let altering = threads.spawn(|| run(&mut altering, &alter));
            wait_until("ALTER TABLE to wait", || locked(&mut witness) == 1);
            let leading = threads.spawn(|| ask(&mut leader, &statement));
            wait_until("the leader to wait", || locked(&mut witness) == 2);
            assert_beside(&ask(&mut holder, &statement), &only("1"), column);
            run(&mut holder, "COMMIT");
            altering.join().expect("it alters");
            assert_eq!(leading.join().expect("it does not panic").answer, only("1"));
        });
        assert_eq!(ask(&mut holder, &statement).answer, only("1"));
    }
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// Asserts that two sessions that wait for each other through two flights and two locks both get their answers. With the statements
/// `acquire`, the sessions take the locks that the leaders need. The statements `hold_up` run in other sessions, and must wait
/// before the leaders begin. The first session asks for the first query, whose leader waits for the second session. The second
/// session asks for the second query, whose leader waits for the first session. Each session releases its locks when it has its
/// answer. At least `beside` of the two sessions must run the query themselves.
fn assert_resolved(
    database: &RoomyDatabase,
    acquire: [&str; 2],
    hold_up: &[&str],
    queries: [&str; 2],
    release: &str,
    beside: usize,
) {
    let mut witness = database.connect();
    let mut leaders = [(); 2].map(|()| connect(database));
    let mut holders = [(); 2].map(|()| connect(database));
    let mut holding_up: Vec<_> = hold_up.iter().map(|_| connect(database)).collect();
    let statements = queries.map(cache);
    for (holder, acquire) in holders.iter_mut().zip(acquire) {
        run(holder, acquire);
    }
    thread::scope(|threads| {
        let mut asking = Vec::new();
        let mut number = 0;
        for (session, statement) in holding_up.iter_mut().zip(hold_up) {
            asking.push(threads.spawn(move || run(session, statement)));
            number += 1;
            wait_until("a session to wait", || locked(&mut witness) == number);
        }
        for (leader, statement) in leaders.iter_mut().zip(&statements) {
            asking.push(threads.spawn(move || assert_eq!(ask(leader, statement).answer, only("1"))));
            number += 1;
            wait_until("a leader to wait", || locked(&mut witness) == number);
        }
        let holding = holders.iter_mut().zip(&statements).map(|(holder, statement)| {
            threads.spawn(move || {
                let outcome = ask(holder, statement);
                run(holder, release);
                outcome
            })
        });
        let holding: Vec<_> = holding.collect();
        let outcomes = holding.into_iter().map(|thread| thread.join().expect("no session fails"));
        let outcomes: Vec<_> = outcomes.collect();
        assert_all(&outcomes, &only("1"));
        let have_run = outcomes.iter().filter(|outcome| outcome.has_run()).count();
        let is_late = |outcome: &Outcome| outcome.took > LONG;
        assert!(have_run >= beside && !outcomes.iter().any(is_late), "{outcomes:?}");
        asking.into_iter().for_each(|thread| thread.join().expect("no session fails"));
    });
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// A cycle of two flights and two advisory locks. Fails if no session of the cycle runs its query itself.
#[test]
fn a_cycle_through_two_flights_and_two_locks_is_resolved() {
    let database = RoomyDatabase::new();
    run(&mut database.connect(), UNLESS_IT_HOLDS);
    assert_resolved(
        &database,
        ["SELECT pg_advisory_lock(1)", "SELECT pg_advisory_lock(2)"],
        &[],
        [&waits_unless_it_holds(2), &waits_unless_it_holds(1)],
        "SELECT pg_advisory_unlock_all()",
        // When one session has its answer and releases its lock, the leader of the other one may finish before that one looks for a
        // deadlock.
        1,
    );
}

/// A cycle of two flights and the queues of two tables. When both sessions run their query, each waits in a queue. The server
/// resolves this by moving a session ahead in a queue.
#[test]
fn a_cycle_through_two_flights_and_two_queues_is_resolved() {
    let database = RoomyDatabase::new();
    run(&mut database.connect(), "CREATE TABLE x AS SELECT 1 AS v; CREATE TABLE y AS SELECT 1 AS v");
    assert_resolved(
        &database,
        ["BEGIN; SELECT FROM y", "BEGIN; SELECT FROM x"],
        &["ALTER TABLE x ADD COLUMN w int", "ALTER TABLE y ADD COLUMN w int"],
        ["SELECT sum(v)::text AS v FROM x, runs", "SELECT sum(v)::text AS v FROM y, runs"],
        "COMMIT",
        2,
    );
}

/// The leader waits for the lock of a session that asks for nothing. However long that takes, it is no deadlock, so the other
/// sessions must go on waiting.
#[test]
fn a_slow_lock_of_another_session_is_no_deadlock() {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    let mut sessions: Vec<_> = (0..6).map(|_| connect(&database)).collect();
    let statement = cache(&waits_for(1));
    run(&mut witness, "SELECT pg_advisory_lock(1)");
    thread::scope(|threads| {
        let asking = threads.spawn(|| ask_all(&mut sessions, &statement));
        wait_until("all to wait", || (locked(&mut witness), waiting(&mut witness)) == (1, 5));
        // The loop lasts several times the deadlock timeout. Any other session that ran the query would wait for the lock, too.
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(1200) {
            assert!(locked(&mut witness) <= 1, "only the leader runs the query");
        }
        run(&mut witness, "SELECT pg_advisory_unlock(1)");
        let outcomes = asking.join().expect("no session fails");
        assert_all(&outcomes, &only("1"));
        assert_eq!(outcomes.iter().filter(|outcome| outcome.has_run()).count(), 1, "{outcomes:?}");
    });
    assert_eq!(runs(&mut witness), 1);
}
