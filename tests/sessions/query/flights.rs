//! Many sessions ask for a result that is not stored. One of them, the leader, runs the query, and the others wait for its result.
//! Such a run that other sessions may wait for is a *flight*. `slow.rs` has the database, the slow queries, and the count of their
//! runs, which comes from the server's statistics of a table. A query of `gated` waits while a test has a `Gate`: `locked` counts
//! the sessions that run it and wait there, `waiting` those that wait for a leader.

use super::calls::{call, run, text};
use super::slow::{
    Gate, Outcome, RoomyDatabase, ask, ask_all, ask_all_at_gate, assert_all, cache, gated, locked, only,
    runs, rush, slow, waiting,
};
use crate::memory::findings;
use pg_cache_testbed::wait_until;
use postgres::Client;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::Duration;

/// Asserts that one of the calls ran the query, and that the others got its result.
fn assert_one_has_run(outcomes: &[Outcome], case: &str) {
    let runners: Vec<_> = outcomes.iter().filter(|outcome| outcome.has_run()).collect();
    assert_eq!(runners.len(), 1, "{case}: {runners:?}");
    let misses = ["miss: not there", "invalidated: space default"];
    assert!(misses.contains(&&*runners[0].status), "{case}: {runners:?}");
}

/// One of a hundred sessions runs a slow query, and all sessions get its result. The same holds for a query whose result varies on
/// settings, and for a thousand calls.
#[test]
fn of_a_hundred_sessions_one_runs_a_cold_query() {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    let mut sessions = database.sessions(100);
    // The result of the second query varies on all settings, because it calls a function in PL/pgSQL.
    let queries = [gated(), gated().replace("waits_for", "plpgsql_waits_for")];
    for query in &queries {
        let before = runs(&mut witness);
        let outcomes = ask_all_at_gate(&database, &mut sessions, &mut witness, &cache(query), 1);
        assert_all(&outcomes, &only("1"));
        assert_eq!(runs(&mut witness) - before, 1, "{query}");
        assert_one_has_run(&outcomes, query);
        let waited = outcomes.iter().filter(|outcome| outcome.status == "waited").count();
        assert_eq!(waited, 99, "{query}: {outcomes:?}");
    }
    let before = runs(&mut witness);
    let statement = cache(&slow(0.1));
    let outcomes = rush(&mut sessions, |_, session| [(); 10].map(|()| ask(session, &statement)));
    let outcomes: Vec<_> = outcomes.into_iter().flatten().collect();
    assert_all(&outcomes, &only("1"));
    assert_eq!((outcomes.len(), runs(&mut witness) - before), (1000, 1));
    assert_one_has_run(&outcomes, "a thousand calls");
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// If the leader is terminated, is cancelled or runs into its time limit, only the leader gets an error. One of the waiting
/// sessions runs the query again, so there are two runs.
#[test]
fn the_next_session_leads_when_the_leader_ends() {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    let mut sessions = database.sessions(20);
    for (number, (end, code)) in
        [("pg_terminate_backend", ""), ("pg_cancel_backend", "57014"), ("timeout", "57014")]
            .into_iter()
            .enumerate()
    {
        // Each round has another query text, so no round finds a result of an earlier one.
        let statement = cache(&format!("{} WHERE one <> {}", gated(), number + 10));
        let before = runs(&mut witness);
        let mut leader = database.connect();
        if end == "timeout" {
            run(&mut leader, "SET statement_timeout = '2s'");
        }
        let pid = text(&mut leader, "SELECT pg_backend_pid()");
        let (outcomes, error) = thread::scope(|threads| {
            let gate = Gate::close(&database);
            let leading = threads.spawn(|| {
                let error = leader.simple_query(&statement).err();
                // The statistics count the runs, so the leader reports its statistics. If it was terminated, this call fails, and
                // the session has reported them at its end.
                let _ = leader.batch_execute("SELECT pg_stat_force_next_flush()");
                error
            });
            wait_until("the leader to run", || locked(&mut witness) == 1 || leading.is_finished());
            let asking = threads.spawn(|| ask_all(&mut sessions, &statement));
            wait_until("the others to wait", || waiting(&mut witness) == 20 || leading.is_finished());
            if end != "timeout" {
                run(&mut witness, &format!("SELECT {end}({pid})"));
            }
            let error = leading.join().expect("it does not panic");
            wait_until("the next leader to run", || {
                (locked(&mut witness), waiting(&mut witness)) == (1, 19) || asking.is_finished()
            });
            drop(gate);
            (asking.join().expect("no session fails"), error.expect("the leader is told"))
        });
        // An empty code stands for any error.
        assert!(code.is_empty() || error.code().is_some_and(|said| said.code() == code), "{end}: {error:?}");
        assert_all(&outcomes, &only("1"));
        wait_until("the end of the leader", || {
            let alive = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
            end != "pg_terminate_backend" || text(&mut witness, &alive) == "0"
        });
        assert_eq!(runs(&mut witness) - before, 2, "{end}");
        assert_eq!(outcomes.iter().filter(|outcome| outcome.has_run()).count(), 1, "{end}: {outcomes:?}");
    }
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// A leader stores its result when its call ends. So other sessions wait neither for the end of its transaction nor for a client
/// that fetches the rows one by one. After a rollback, the result stays stored.
#[test]
fn an_open_transaction_of_the_leader_holds_up_no_session() {
    let database = RoomyDatabase::new();
    let [mut leader, mut witness] = [(); 2].map(|()| database.connect());
    let mut sessions = database.sessions(5);
    let query = "SELECT v || nap(0.1) AS v FROM runs, generate_series(1, 3) AS v";
    let three = Ok(["1", "2", "3"].map(|v| vec![Some(v.to_owned())]).to_vec());
    for end in ["ROLLBACK", "COMMIT"] {
        run(&mut witness, "SELECT cache_flush()");
        let mut transaction = leader.transaction().expect("it begins");
        let statement = transaction.prepare(&cache(query)).expect("it is prepared");
        let portal = transaction.bind(&statement, &[]).expect("it binds");
        assert_eq!(transaction.query_portal(&portal, 1).expect("it fetches").len(), 1);
        let outcomes = ask_all(&mut sessions, &cache(query));
        assert_all(&outcomes, &three);
        assert!(outcomes.iter().all(|outcome| outcome.status == "hot"), "{outcomes:?}");
        assert_eq!(transaction.query_portal(&portal, 0).expect("it fetches").len(), 2);
        if end == "COMMIT" { transaction.commit() } else { transaction.rollback() }.expect(end);
        assert_eq!(ask(&mut witness, &cache(query)).status, "hot", "{end}");
    }
    // A client fetches the rows of a cached view one by one.
    run(&mut witness, &format!("SELECT cache_create_view('seen', $$ {query} $$)"));
    run(&mut leader, "BEGIN; DECLARE c CURSOR FOR SELECT v FROM seen; FETCH 1 FROM c");
    let outcomes = ask_all(&mut sessions, "SELECT v FROM seen");
    assert_all(&outcomes, &three);
    assert!(outcomes.iter().all(|outcome| outcome.status == "hot"), "{outcomes:?}");
    assert_eq!(text(&mut leader, "FETCH 1 FROM c"), "2");
    run(&mut leader, "COMMIT");
}

/// While a writer commits every 10 ms, no result is valid when its run ends. Sessions that ask at the same time still share the
/// runs, at most two, and no session gets a result that lacks a change which was committed before its call.
#[test]
fn sessions_share_runs_while_a_writer_commits() {
    const WAVES: usize = 6;
    const SESSIONS: usize = 20;
    let database = RoomyDatabase::new();
    let [mut writer, mut witness] = [(); 2].map(|()| database.connect());
    let mut sessions = database.sessions(SESSIONS);
    let (committed, over) = (AtomicI64::new(1), AtomicBool::new(false));
    // The writer also commits while the runs after the first one of a wave sleep.
    let statement = cache(&gated().replace(" AS v", " || nap(0.4) AS v"));
    let mut runs_of_waves = Vec::new();
    let wait_for_commits = || {
        let before = committed.load(Ordering::SeqCst);
        // The first of them may have been visible before.
        wait_until("two more commits", || committed.load(Ordering::SeqCst) >= before + 2);
    };
    thread::scope(|threads| {
        threads.spawn(|| {
            let mut v = 1;
            while !over.load(Ordering::Relaxed) {
                v += 1;
                run(&mut writer, &format!("UPDATE t SET v = {v}"));
                committed.store(v, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(10));
            }
        });
        let over = EndsWithThis(&over);
        for _ in 0..WAVES {
            // The result of the wave before may have been valid when its run ended.
            wait_for_commits();
            let before = runs(&mut witness);
            let old = thread::scope(|threads| {
                let gate = Gate::close(&database);
                let asking = threads.spawn(|| {
                    rush(&mut sessions, |_, session| {
                        let least = committed.load(Ordering::SeqCst);
                        let outcome = ask(session, &statement);
                        let found = match outcome.answer.as_deref() {
                            Ok([row]) => row[0].as_ref().and_then(|v| v.parse::<i64>().ok()),
                            _ => None,
                        };
                        found.is_none_or(|found| found < least).then_some((least, outcome))
                    })
                });
                // Sessions that ask later, when the second run has begun, would need a third run.
                wait_until("all sessions to ask", || {
                    (locked(&mut witness), waiting(&mut witness)) == (1, SESSIONS as i64 - 1)
                        || asking.is_finished()
                });
                wait_for_commits();
                drop(gate);
                asking.join().expect("no session fails")
            });
            let old: Vec<_> = old.into_iter().flatten().collect();
            assert!(old.is_empty(), "answers without a change that was committed before: {old:?}");
            runs_of_waves.push(runs(&mut witness) - before);
        }
        drop(over);
    });
    // The result of the first run is never valid at its end.
    assert_eq!(runs_of_waves, [2; WAVES]);
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// Sets a flag when it is dropped, so that a thread that looks at the flag also ends if the test fails.
struct EndsWithThis<'f>(&'f AtomicBool);

impl Drop for EndsWithThis<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A query that always fails raises its error in each session. After two failed runs, no session waits for another.
#[test]
fn a_failing_query_makes_sessions_wait_for_two_runs_at_most() {
    const SESSIONS: usize = 30;
    let database = RoomyDatabase::new();
    let [mut witness, mut keeper] = [(); 2].map(|()| database.connect());
    let mut sessions = database.sessions(SESSIONS);
    // Each run waits for the lock that the table names when it begins. So each lock lets a known number of runs fail.
    run(&mut witness, "CREATE TABLE divisors AS SELECT 0 AS d, 2 AS lock");
    let query = "SELECT waits_for((SELECT min(lock) FROM divisors)) || (1 / (SELECT min(d) FROM divisors))::text AS v FROM runs";
    let error = Err("22012: division by zero".to_owned());
    run(&mut keeper, "SELECT pg_advisory_lock(2), pg_advisory_lock(3), pg_advisory_lock(4)");
    let outcomes = thread::scope(|threads| {
        // If the test fails, the end of this session lets the others go on.
        let mut keeper = keeper;
        let asking = threads.spawn(|| ask_all(&mut sessions, &cache(query)));
        let mut left = SESSIONS as i64;
        for (lock, at_once) in [(2, 1), (3, 1), (4, left - 2)] {
            wait_until(&format!("{at_once} sessions to run, and the others to wait"), || {
                (locked(&mut witness), waiting(&mut witness)) == (at_once, left - at_once)
            });
            left -= at_once;
            run(&mut keeper, &format!("UPDATE divisors SET lock = {}", lock + 1));
            run(&mut keeper, &format!("SELECT pg_advisory_unlock({lock})"));
        }
        asking.join().expect("no session fails")
    });
    assert_all(&outcomes, &error);
    run(&mut witness, "UPDATE divisors SET lock = 1");
    assert_all(&ask_all_at_gate(&database, &mut sessions, &mut witness, &cache(query), SESSIONS), &error);
    // After a result is stored, sessions wait again.
    run(&mut witness, "UPDATE divisors SET d = 1");
    let outcome = ask(&mut witness, &cache(query));
    assert!(outcome.answer == only("1") && outcome.has_run(), "{outcome:?}");
    assert_eq!(ask(&mut witness, &cache(query)).status, "hot");
    run(&mut witness, "UPDATE divisors SET d = 1");
    let before = runs(&mut witness);
    assert_all(&ask_all_at_gate(&database, &mut sessions, &mut witness, &cache(query), 1), &only("1"));
    assert_eq!(runs(&mut witness) - before, 1);
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// A query whose result is never stored runs in each session. The first sessions may wait, because they cannot know that. Later
/// sessions do not wait.
#[test]
fn no_session_waits_for_a_query_that_is_not_stored() {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    let mut sessions = database.sessions(20);
    run(&mut witness, "SELECT cache_create_space('small', max_result_size => 1000)");
    let text_of_2000 = "SELECT repeat('x', 2000) || waits_for(1) AS v FROM runs";
    for (query, options, status, expected) in [
        (
            "SELECT '1' AS v FROM runs, pg_advisory_xact_lock_shared(1)",
            "",
            "refused: function pg_advisory_xact_lock_shared(bigint) is volatile",
            only("1"),
        ),
        (text_of_2000, "space => 'small'", "refused: larger than max_result_size", only(&"x".repeat(2000))),
    ] {
        let statement = call(query, "v text", options);
        let is_told = |outcome: &Outcome| {
            let says = [status, "miss: another session is computing the value"];
            says.into_iter().any(|says| outcome.status.starts_with(says))
        };
        let first = ask_all(&mut sessions, &statement);
        assert_all(&first, &expected);
        assert!(first.iter().all(is_told), "{query}: {first:?}");
        let before = runs(&mut witness);
        let second = ask_all_at_gate(&database, &mut sessions, &mut witness, &statement, 20);
        assert_all(&second, &expected);
        assert!(second.iter().all(is_told), "{query}: {second:?}");
        assert_eq!(runs(&mut witness) - before, 20);
    }
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// Sessions of two tenants ask for the same text at once, before the cache knows that its result varies on the setting. Each gets
/// the rows of its own tenant, and sessions of one tenant share a run.
#[test]
fn tenants_that_ask_at_once_get_their_own_rows() {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    let mut sessions = database.sessions(20);
    run(
        &mut witness,
        "CREATE TABLE rents AS SELECT unnest('{one,two}'::text[]) AS tenant;
         CREATE VIEW seen AS SELECT tenant FROM rents WHERE tenant = current_setting('app.tenant');
         CREATE FUNCTION plpgsql_seen() RETURNS text STABLE LANGUAGE plpgsql AS
             $$ BEGIN RETURN (SELECT tenant FROM rents WHERE tenant = current_setting('app.tenant')); END $$;
         CREATE FUNCTION hidden() RETURNS text STABLE LANGUAGE sql AS $$ SELECT plpgsql_seen() FROM rents LIMIT 1 $$",
    );
    let tenant = |number: usize| if number.is_multiple_of(2) { "one" } else { "two" };
    for (number, session) in sessions.iter_mut().enumerate() {
        run(session, &format!("SET app.tenant = '{}'", tenant(number)));
    }
    for (query, expected_runs) in [
        // The plans of the first two queries show that they read settings, so the two tenants run the query at the same time.
        ("SELECT current_setting('app.tenant') || waits_for(1) AS v FROM runs", 2..=2),
        ("SELECT tenant || waits_for(1) AS v FROM seen, runs", 2..=2),
        ("SELECT plpgsql_seen() || nap(0.5) AS v FROM runs", 2..=2),
        // Only the run of this query shows that it reads settings.
        ("SELECT hidden() || nap(0.5) AS v FROM runs", 2..=20),
    ] {
        for round in 0..2 {
            let before = runs(&mut witness);
            let outcomes = if round == 0 && query.contains("waits_for") {
                ask_all_at_gate(&database, &mut sessions, &mut witness, &cache(query), 2)
            } else {
                ask_all(&mut sessions, &cache(query))
            };
            for (number, outcome) in outcomes.iter().enumerate() {
                assert_eq!(outcome.answer, only(tenant(number)), "{query}, {round}: {outcome:?}");
            }
            let count = runs(&mut witness) - before;
            // In the second round, at least two sessions fewer run the query: none for the first three queries.
            let is_right =
                if round == 0 { expected_runs.contains(&count) } else { count <= expected_runs.end() - 2 };
            assert!(is_right, "{query}, {round}: {count} runs, {outcomes:?}");
        }
    }
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// All functions that cache the result of a query share its run.
#[test]
fn every_form_of_a_cached_query_shares_the_run() {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    let mut sessions = database.sessions(10);
    let query = slow(0.3);
    run(
        &mut witness,
        &format!(
            "CREATE TYPE one_text AS (v text);
             CREATE FUNCTION called() RETURNS text STABLE LANGUAGE sql AS $$ {query} $$;
             CREATE FUNCTION wrapped() RETURNS text STABLE LANGUAGE sql AS $$ {query} $$;
             SELECT cache_wrap('wrapped()'), cache_create_view('seen', $$ {query} $$)"
        ),
    );
    let quoted = format!("$cached${query}$cached$");
    for (form, statement, expected) in [
        ("cache_query", cache(&query), "1"),
        ("with a row type", format!("SELECT * FROM cache_query(NULL::one_text, {quoted})"), "1"),
        (
            "with arguments",
            // The duration becomes an argument, which is inserted into the call.
            cache(&query.replace("0.3", "$1::float8")).replace("$cached$)", "$cached$, '[0.3]')"),
            "1",
        ),
        ("cache_query_json", format!("SELECT cache_query_json({quoted})"), r#"[{"v": "1"}]"#),
        (
            "cache_query_json_status",
            format!("SELECT value FROM cache_query_json_status({quoted})"),
            r#"[{"v": "1"}]"#,
        ),
        ("cache_fetch", format!("SELECT cache_fetch('k', {quoted})"), r#""1""#),
        ("cache_call", "SELECT cache_call('called()')".to_owned(), r#""1""#),
        ("cache_wrap", "SELECT wrapped_cached()".to_owned(), "1"),
        ("cache_create_view", "SELECT v FROM seen".to_owned(), "1"),
    ] {
        run(&mut witness, "SELECT cache_flush()");
        let before = runs(&mut witness);
        let outcomes = ask_all(&mut sessions, &statement);
        assert_all(&outcomes, &only(expected));
        assert_eq!(runs(&mut witness) - before, 1, "{form}");
        assert_one_has_run(&outcomes, form);
    }
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// A transaction that has written something, or that keeps one snapshot, neither waits for a run nor makes another session wait for
/// its own run: the two sessions run the query at the same time.
#[test]
fn a_transaction_that_may_see_other_rows_takes_part_in_no_flight() {
    let database = RoomyDatabase::new();
    let [mut special, mut usual, mut witness] = [(); 3].map(|()| database.connect());
    run(&mut witness, "CREATE TABLE other (v int)");
    let statement = cache(&gated());
    for begin in [
        "BEGIN; INSERT INTO other VALUES (1)",
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
    ] {
        for special_is_first in [true, false] {
            run(&mut witness, "SELECT cache_flush()");
            run(&mut special, begin);
            let (first, second) =
                if special_is_first { (&mut special, &mut usual) } else { (&mut usual, &mut special) };
            let ask_one = |session: &mut Client| ask(session, &statement);
            thread::scope(|threads| {
                let gate = Gate::close(&database);
                let first = threads.spawn(move || ask_one(first));
                wait_until("the first to run", || locked(&mut witness) == 1 || first.is_finished());
                let second = threads.spawn(move || ask_one(second));
                wait_until(&format!("both to run: {begin}, {special_is_first}"), || {
                    locked(&mut witness) == 2 || second.is_finished()
                });
                drop(gate);
                for asking in [first, second] {
                    let outcome = asking.join().expect("it does not panic");
                    assert_eq!(outcome.answer, only("1"), "{begin}: {outcome:?}");
                    assert!(outcome.has_run(), "{begin}: {outcome:?}");
                }
            });
            run(&mut special, "COMMIT");
        }
    }
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// A change that the leader's snapshot lacks must be in the answer of a session that asks after its commit. So a session that
/// arrives while the leader runs takes the result of the next run.
#[test]
fn a_session_that_arrives_after_a_change_gets_a_result_with_the_change() {
    let database = RoomyDatabase::new();
    let [mut leader, mut writer, mut witness] = [(); 3].map(|()| database.connect());
    let mut sessions = database.sessions(10);
    let statement = cache(&gated());
    let before = runs(&mut witness);
    let found = thread::scope(|threads| {
        let gate = Gate::close(&database);
        let leading = threads.spawn(|| ask(&mut leader, &statement));
        wait_until("the leader to run", || locked(&mut witness) == 1 || leading.is_finished());
        run(&mut writer, "UPDATE t SET v = 2");
        let asking = threads.spawn(|| ask_all(&mut sessions, &statement));
        wait_until("the others to wait", || waiting(&mut witness) == 10 || asking.is_finished());
        drop(gate);
        assert_eq!(leading.join().expect("it does not panic").answer, only("1"));
        asking.join().expect("no session fails")
    });
    assert_all(&found, &only("2"));
    assert_eq!(runs(&mut witness) - before, 2);
    let outcome = ask(&mut writer, &statement);
    assert_eq!((outcome.answer, &*outcome.status), (only("2"), "hot"));
}
