//! Sessions that ask for one key at once but cannot use each other's results must not wait in line. Also, each call must be counted
//! once, however often it looks for the result. `slow.rs` has the database with slow queries, and counts sessions: `running` those
//! in such a query, and `locked` those that wait for a lock. A *fence* is a word in shared memory that says when something that
//! values depend on last changed (`docs/invalidation.md`).

use super::calls::{run, text};
use super::slow::{
    Outcome, RoomyDatabase, ask, ask_all, ask_all_at_gate, cache, gated, locked, only, running, rush, slow,
};
use pg_cache_testbed::{wait_at_most, wait_until};
use postgres::Client;
use std::thread;

/// The number of sessions. Two of them may run the query one after the other. The other sessions then run it at the same time.
const SESSIONS: usize = 8;

/// Runs a statement for each session, and asserts that no more than two of the calls run one after the other. `statement` makes the
/// statement of a session, with a query that takes this number of seconds.
fn assert_no_line(
    database: &RoomyDatabase,
    sessions: &mut [Client],
    statement: impl Fn(usize, f64) -> String + Sync,
) {
    let mut witness = database.connect();
    // On a slow machine, a session may begin to run when others have already finished. So the next query takes longer. If the
    // sessions run one after the other, they do so however long the query takes.
    for seconds in [0.8, 2.0, 5.0, 10.0] {
        let mut at_once = 0;
        let outcomes: Vec<Outcome> = thread::scope(|threads| {
            let asking =
                threads.spawn(|| rush(sessions, |number, session| ask(session, &statement(number, seconds))));
            wait_at_most(180, "the sessions to run", || {
                at_once = running(&mut witness).max(at_once);
                asking.is_finished()
            });
            asking.join().expect("no session fails")
        });
        assert!(outcomes.iter().all(|outcome| outcome.answer == only("1")), "{outcomes:?}");
        if at_once >= SESSIONS as i64 - 2 {
            return;
        }
    }
    panic!("the sessions ran one after the other: {}", statement(0, 10.0));
}

/// A session cannot use the result of a call with other tags.
#[test]
fn sessions_with_different_tags_do_not_wait_in_line() {
    let database = RoomyDatabase::new();
    let statement = |number: usize, seconds: f64| {
        let query = slow(seconds);
        format!(
            "SELECT * FROM public.cache_query($q${query}$q$, tags => '{{tag_{number}}}') AS result(v text)"
        )
    };
    assert_no_line(&database, &mut database.sessions(SESSIONS), statement);
}

/// A key of `cache_fetch` holds the result of one query.
#[test]
fn different_queries_for_one_key_do_not_wait_in_line() {
    let database = RoomyDatabase::new();
    let statement = |number: usize, seconds: f64| {
        format!("SELECT public.cache_fetch('k', $q${} LIMIT 1 + {number}$q$)#>>'{{}}'", slow(seconds))
    };
    assert_no_line(&database, &mut database.sessions(SESSIONS), statement);
}

/// The own transaction has invalidated what the result depends on, so the session must run the query itself.
#[test]
fn sessions_with_changes_of_their_own_do_not_wait_in_line() {
    let database = RoomyDatabase::new();
    let mut sessions = database.sessions(SESSIONS);
    // A result that depends on the table gives it a fence of its own, by which the invalidations below are known.
    ask(&mut sessions[0], &cache("SELECT v::text FROM t"));
    sessions.iter_mut().for_each(|session| run(session, "BEGIN; SELECT cache_invalidate_relation('t')"));
    assert_no_line(&database, &mut sessions, |_, seconds| cache(&slow(seconds)));
}

/// The plan of a volatile query shows that its result will not be stored, so no session must wait for its end.
#[test]
fn sessions_do_not_wait_for_a_query_whose_plan_is_refused() {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    let volatile = cache("SELECT (random() < 2)::text AS v FROM runs, pg_advisory_xact_lock_shared(1)");
    let mut sessions = database.sessions(SESSIONS);
    let outcomes = ask_all_at_gate(&database, &mut sessions, &mut witness, &volatile, SESSIONS);
    assert!(outcomes.iter().all(|outcome| outcome.answer == only("true")), "{outcomes:?}");
}

/// A call with `refresh` replaces the result also if an older run is under way: the result of that run must not be stored later.
#[test]
fn a_refresh_takes_over_from_an_older_run() {
    let database = RoomyDatabase::new();
    let [mut older, mut session, mut witness] = [(); 3].map(|()| database.connect());
    let call = |more: &str| {
        let query = "SELECT v::text || waits_for(1) AS v FROM t";
        format!("SELECT * FROM public.cache_query($q${query}$q$, depends => '{{}}'{more}) AS result(v text)")
    };
    run(&mut witness, "SELECT pg_advisory_lock(1)");
    thread::scope(|threads| {
        let running = threads.spawn(|| ask(&mut older, &call("")));
        wait_until("the query to wait", || locked(&mut witness) == 1 || running.is_finished());
        run(&mut witness, "UPDATE t SET v = 2");
        let refreshing = threads.spawn(|| ask(&mut session, &call(", refresh => true")));
        wait_until("the second run to wait", || locked(&mut witness) == 2 || refreshing.is_finished());
        run(&mut witness, "SELECT pg_advisory_unlock(1)");
        assert_eq!(running.join().expect("it does not panic").answer, only("1"));
        let outcome = refreshing.join().expect("it does not panic");
        assert_eq!((outcome.answer, &*outcome.status), (only("2"), "done"));
    });
    let outcome = ask(&mut session, &call(""));
    assert_eq!((outcome.answer, &*outcome.status), (only("2"), "hot"));
}

/// A caller of `cache_acquire` that holds the lock which the computing session needs must not wait until its time is over.
#[test]
fn cache_acquire_ends_a_deadlock_with_a_query() {
    let database = RoomyDatabase::new();
    let [mut holder, mut leader, mut witness] = [(); 3].map(|()| database.connect());
    run(&mut holder, "SET deadlock_timeout = '100ms'; SELECT pg_advisory_lock(1)");
    thread::scope(|threads| {
        let leading = threads.spawn(|| {
            ask(&mut leader, "SELECT cache_fetch('k', 'SELECT v::text || waits_for(1) FROM t')#>>'{}'")
        });
        wait_until("the query to wait", || locked(&mut witness) == 1 || leading.is_finished());
        // The answer comes long before the end of the wait, which no test could outlast.
        assert_eq!(text(&mut holder, "SELECT status FROM cache_acquire('k', wait => '1 hour')"), "wait");
        run(&mut holder, "SELECT pg_advisory_unlock(1)");
        assert_eq!(leading.join().expect("it does not panic").answer, only("1"));
    });
}

/// A call with a time to live of 0 stores nothing, but must not keep other sessions from sharing a run.
#[test]
fn a_ttl_of_zero_does_not_end_single_flight() {
    let database = RoomyDatabase::new();
    let query = slow(0.3);
    let mut sessions = database.sessions(SESSIONS);
    let unstored = format!("SELECT * FROM public.cache_query($q${query}$q$, ttl => '0') AS result(v text)");
    assert_eq!(ask(&mut sessions[0], &unstored).status, "refused: ttl is not positive");
    let outcomes = ask_all(&mut sessions, &cache(&query));
    assert_eq!(outcomes.iter().filter(|outcome| outcome.has_run()).count(), 1, "{outcomes:?}");
}

/// Each call must count as one hit or one miss. A call that waits counts as a miss. A marker that says under which key the result
/// lies must not count as a hit.
#[test]
fn each_call_is_counted_once() {
    let database = RoomyDatabase::new();
    let mut sessions = database.sessions(SESSIONS);
    let [mut witness, mut other] = [(); 2].map(|()| database.connect());
    let mut expect = |hits: usize, misses: usize, case: &str| {
        let counts = "SELECT hits || ' ' || misses FROM cache_stats WHERE space = 'default'";
        assert_eq!(text(&mut witness, counts), format!("{hits} {misses}"), "{case}");
        run(&mut witness, "SELECT cache_stats_reset()");
    };
    run(&mut sessions[0], "SELECT cache_stats_reset()");
    // A session that asks when the result is stored would count as a hit.
    ask_all_at_gate(&database, &mut sessions, &mut other, &cache(&gated()), 1);
    expect(0, SESSIONS, "one run, and sessions that wait for it");
    ask_all(&mut sessions, &cache(&gated()));
    expect(SESSIONS, 0, "hits");
    let varies = cache("SELECT current_setting('app.tenant', true) || nap(0.01) AS v FROM runs");
    sessions.iter_mut().for_each(|session| run(session, "SET app.tenant = 'a'"));
    ask(&mut sessions[0], &varies);
    expect(0, 1, "a query that varies on settings");
    ask_all(&mut sessions, &varies);
    expect(SESSIONS, 0, "hits of such a query");
    let json = format!("SELECT value FROM cache_query_json_status($q${}$q$)", slow(0.01));
    ask(&mut sessions[0], &json);
    expect(0, 1, "a result with its metadata");
}
