//! Slow queries that many sessions ask for at once: a database for them, the number of their runs, and the sessions that wait.
//!
//! The statistics of the table `runs` count the runs of a query: each query of these tests scans that table once. A session reports
//! its statistics after each call ([`ask`]), and at its end.

use super::calls::{Answer, answer, call, run, text};
use pg_cache_testbed::{Cluster, Clusters, Conf, Taken, wait_until};
use postgres::Client;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Clusters with room for hundreds of sessions. On a slow machine, a run may take long, and no session may lose its patience with
/// it.
static CROWDED: Clusters =
    Clusters::new(|| Conf::preloaded().set("max_connections", "400").set("pg_cache.wait_timeout", "1min"));

/// Creates the table `t` with one row, the table `runs`, and functions that take a while. The functions are declared `STABLE`, so
/// results of queries that call them are stored. The result of a query that calls a function in PL/pgSQL varies on all settings.
/// Results do not vary because of the functions in SQL.
pub const SETUP: &str = "CREATE TABLE runs AS SELECT 1 AS one; CREATE TABLE t AS SELECT 1 AS v;
    CREATE FUNCTION nap(seconds float8) RETURNS text STABLE LANGUAGE sql AS $$ SELECT '' FROM pg_sleep($1) $$;
    CREATE FUNCTION waits_for(lock bigint) RETURNS text STABLE LANGUAGE sql AS
        $$ SELECT '' FROM pg_advisory_xact_lock_shared($1) $$;
    CREATE FUNCTION plpgsql_waits_for(lock bigint) RETURNS text STABLE LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_advisory_xact_lock_shared($1); RETURN ''; END $$";

/// A database in a cluster with room for hundreds of sessions, which no other test uses meanwhile. It has the extension and
/// [`SETUP`], and is dropped with this value.
#[derive(Debug)]
pub struct RoomyDatabase {
    cluster: Taken,
    name: String,
}

impl RoomyDatabase {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("slow_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let database = Self { cluster: CROWDED.take(), name };
        run(&mut database.cluster().connect("postgres"), &format!("CREATE DATABASE {}", database.name));
        run(&mut database.connect(), &format!("CREATE EXTENSION pg_cache; {SETUP}"));
        database
    }

    /// Returns its cluster.
    pub fn cluster(&self) -> &'static Cluster {
        self.cluster.cluster()
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn connect(&self) -> Client {
        self.cluster().connect(&self.name)
    }

    /// Opens this number of sessions.
    pub fn sessions(&self, number: usize) -> Vec<Client> {
        (0..number).map(|_| self.connect()).collect()
    }
}

impl Drop for RoomyDatabase {
    fn drop(&mut self) {
        if let Ok(mut session) = self.cluster().try_connect("postgres") {
            let _ = session.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        }
    }
}

/// Returns whether the tests may take minutes (`make test-long`).
pub fn is_long() -> bool {
    std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty())
}

/// Returns a query that takes this number of seconds and returns the sum of `t`.
pub fn slow(seconds: f64) -> String {
    format!("SELECT (SELECT sum(v) FROM t)::text || nap({seconds}) AS v FROM runs")
}

/// A gate, which holds up all runs of [`gated`] until this value is dropped. So a test decides how long a run takes, however slow
/// the machine is. A test must drop it before it waits for a session at the gate, also if the test fails: a scope of threads waits
/// for its threads.
pub struct Gate {
    /// Has the advisory lock 1.
    _session: Client,
}

impl Gate {
    pub fn close(database: &RoomyDatabase) -> Self {
        let mut session = database.connect();
        run(&mut session, "SELECT pg_advisory_lock(1)");
        Self { _session: session }
    }
}

/// Returns a query that waits while there is a [`Gate`], and returns the sum of `t`. A session at the gate waits for a lock
/// ([`locked`]).
pub fn gated() -> String {
    "SELECT (SELECT sum(v) FROM t)::text || waits_for(1) AS v FROM runs".to_owned()
}

/// Returns the call of `cache_query` for a query with one column of text.
pub fn cache(query: &str) -> String {
    call(query, "v text", "")
}

/// Returns the answer that consists of one value.
#[allow(clippy::unnecessary_wraps)] // It is compared with other answers.
pub fn only(value: &str) -> Answer {
    Ok(vec![vec![Some(value.to_owned())]])
}

/// The outcome of a call.
#[derive(Debug)]
pub struct Outcome {
    pub answer: Answer,
    /// What `cache_status()` says after the call (`docs/status.md`). Empty if the call failed.
    pub status: String,
    pub took: Duration,
}

impl Outcome {
    /// Returns whether the call ran the query itself.
    pub fn has_run(&self) -> bool {
        !["hot", "stale", "waited"].contains(&&*self.status)
    }
}

/// Runs a statement and asks for its status. Reports the statistics of the session, unless it is in a transaction.
pub fn ask(session: &mut Client, statement: &str) -> Outcome {
    let begin = Instant::now();
    let answer = answer(session, statement);
    let took = begin.elapsed();
    let status = if answer.is_ok() { text(session, "SELECT public.cache_status()") } else { String::new() };
    // This fails if the call has failed in a transaction block.
    let _ = session.batch_execute("SELECT pg_stat_force_next_flush()");
    Outcome { answer, status, took }
}

/// Runs the same call in all sessions at once, each with the number of its session, and returns the results in this order.
pub fn rush<R: Send>(sessions: &mut [Client], call: impl Fn(usize, &mut Client) -> R + Sync) -> Vec<R> {
    let barrier = Barrier::new(sessions.len());
    let (call, barrier) = (&call, &barrier);
    thread::scope(|threads| {
        let rushing: Vec<_> = sessions
            .iter_mut()
            .enumerate()
            .map(|(number, session)| {
                threads.spawn(move || {
                    barrier.wait();
                    call(number, session)
                })
            })
            .collect();
        rushing.into_iter().map(|thread| thread.join().expect("no session fails")).collect()
    })
}

/// Runs the same statement in all sessions at once.
pub fn ask_all(sessions: &mut [Client], statement: &str) -> Vec<Outcome> {
    rush(sessions, |_, session| ask(session, statement))
}

/// Does the same as [`ask_all`] with a query that waits at the [`Gate`]. The gate opens when `witness` sees this number of sessions
/// at the gate, and all others wait for them.
pub fn ask_all_at_gate(
    database: &RoomyDatabase,
    sessions: &mut [Client],
    witness: &mut Client,
    statement: &str,
    number: usize,
) -> Vec<Outcome> {
    let expected = (number as i64, (sessions.len() - number) as i64);
    thread::scope(|threads| {
        let gate = Gate::close(database);
        let asking = threads.spawn(|| ask_all(sessions, statement));
        let mut seen = (0, 0);
        wait_until(&format!("{number} sessions to run at once: {statement}"), || {
            seen = (locked(witness), waiting(witness));
            seen == expected || asking.is_finished()
        });
        assert_eq!(seen, expected, "sessions that run and that wait: {statement}");
        drop(gate);
        asking.join().expect("no session fails")
    })
}

/// Asserts that a measurement succeeds in one of four attempts. A busy machine can spoil a measurement: if the machine runs no
/// session for a while, results expire, and callers wait that would have been served. An error of the measurement says what was
/// wrong.
pub fn assert_in_an_attempt(mut measure: impl FnMut() -> Result<(), String>) {
    let wrong: Vec<_> = (0..4).map_while(|_| measure().err()).collect();
    assert!(wrong.len() < 4, "{wrong:#?}");
}

/// Returns an error with this message if the condition does not hold.
pub fn ensure(condition: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(message()) }
}

/// Asserts that all calls have this answer.
pub fn assert_all(outcomes: &[Outcome], expected: &Answer) {
    let wrong: Vec<_> = outcomes.iter().filter(|outcome| outcome.answer != *expected).collect();
    assert!(wrong.is_empty(), "{} of {} without {expected:?}: {wrong:?}", wrong.len(), outcomes.len());
}

/// Asserts that all answers are equal to `expected`.
pub fn assert_all_answers(answers: &[Answer], expected: &Answer) {
    let wrong: Vec<_> = answers.iter().filter(|answer| *answer != expected).collect();
    assert!(wrong.is_empty(), "{} of {} without {expected:?}: {wrong:?}", wrong.len(), answers.len());
}

/// Returns how often a query that scans the table `runs` has run, as far as sessions have reported it.
pub fn runs(witness: &mut Client) -> i64 {
    count(witness, "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'runs'")
}

/// Returns how many sessions of the database wait for another session that computes.
pub fn waiting(witness: &mut Client) -> i64 {
    sessions_that(witness, "wait_event_type = 'Extension' AND backend_type = 'client backend'")
}

/// Returns how many sessions of the database are in a nap: these sessions run the query.
pub fn running(witness: &mut Client) -> i64 {
    sessions_that(witness, "wait_event = 'PgSleep'")
}

/// Returns how many sessions of the database wait for a lock.
pub fn locked(witness: &mut Client) -> i64 {
    sessions_that(witness, "wait_event_type = 'Lock'")
}

fn sessions_that(witness: &mut Client, condition: &str) -> i64 {
    count(
        witness,
        &format!("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {condition}"),
    )
}

fn count(witness: &mut Client, query: &str) -> i64 {
    text(witness, query).parse().unwrap_or_else(|error| panic!("{query}: {error}"))
}
