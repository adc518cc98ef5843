//! `stale_ok`: a caller accepts a result that lacks the last changes of rows, up to some age (`docs/freshness.md`). Early renewal:
//! one caller computes a result again shortly before it expires, and the other callers get the stored result meanwhile. `load.rs`
//! has the sessions that call and write all the time, and `slow.rs` the slow queries.
//!
//! A call that gets such an older result has the status `stale`. A call that renews a result early has the status `done`.
//! `docs/status.md` has all statuses.
//!
//! Many tests end with a check of shared memory: `findings` returns what `cache_check()` reports, and must be empty.

use super::calls::{Answer, Expect, answer, cached_with, call, run, text};
use super::load::{Course, Load, Record};
use super::slow::{
    RoomyDatabase, SETUP, ask, assert_in_an_attempt, cache, ensure, is_long, locked, only, runs, rush,
    waiting,
};
use crate::memory::findings;
use pg_cache_testbed::{Database, wait_until};
use postgres::Client;
use std::thread;
use std::time::{Duration, Instant};

/// The query of most tests here.
const SUM: &str = "SELECT sum(v)::text AS v FROM t";

/// Returns the statement with a call that accepts a result of this age.
fn accept(query: &str, age: &str) -> String {
    call(query, "v text", &format!("stale_ok => '{age}'"))
}

/// Asserts the value and the status of a call.
fn assert_is(session: &mut Client, statement: &str, value: &str, status: &str) {
    let outcome = ask(session, statement);
    assert_eq!((outcome.answer, &*outcome.status), (only(value), status), "{statement}");
}

/// The pause of a reader between two calls, where a test has few readers.
const PACE: Duration = Duration::from_millis(20);

/// Each commit of the writer invalidates the result, and the query takes longer than the time between two commits. Callers that
/// accept rows of the last three seconds still get a stored result, with rows of at most this age, and the query runs once for each
/// renewal.
#[test]
fn callers_that_accept_three_seconds_are_served_while_a_writer_commits() {
    assert_in_an_attempt(|| {
        let database = RoomyDatabase::new();
        let mut witness = database.connect();
        let query = "SELECT v::text || nap(0.3) AS v FROM t, runs";
        assert_is(&mut witness, &accept(query, "3 s"), "1", "miss: not there");
        let load = Load {
            query,
            groups: &[(8, "stale_ok => '3 s'")],
            pace: PACE,
            written: &["t"],
            time: Duration::from_secs(8),
        };
        let record = load.run(&database, |_| ());
        // The accepted age, a run, and some time for a slow machine.
        record.assert_not_older(0, Duration::from_millis(3_000 + 300 + 500));
        assert_eq!(findings(&mut witness), Vec::<String>::new());
        record.ensure_mostly_served(0)?;
        let found = &record.groups[0];
        let stale = found.iter().filter(|read| read.outcome.status == "stale").count();
        ensure(stale * 2 > found.len(), || format!("{stale} of {} were stale", found.len()))?;
        // An early renewal hardly ever comes less than a second after the previous run.
        let runs = runs(&mut witness);
        ensure((2..=12).contains(&runs), || format!("{runs} runs"))
    });
}

/// Returns whether an answer is right after a change. The number is the last value that was committed before the change.
type IsRight<'f> = &'f dyn Fn(&Answer, i64) -> bool;

/// A role that reads the table `guarded` with `stale_ok`, and a session that changes what the role may see.
struct Guarded {
    admin: Client,
    reader: Client,
}

impl Guarded {
    const QUERY: &str = "SELECT sum(v)::text AS v FROM guarded";

    /// Creates the table `guarded` with a policy, its space, and the role `stale_guard`, and opens both sessions.
    fn new(database: &RoomyDatabase) -> Self {
        let [mut admin, mut reader] = [(); 2].map(|()| database.connect());
        run(
            &mut admin,
            "CREATE TABLE guarded AS SELECT 1 AS v; ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
             CREATE POLICY p ON guarded USING (true); CREATE ROLE stale_guard; GRANT SELECT ON guarded TO stale_guard;
             SELECT cache_create_space('guarded'), cache_grant('guarded', 'stale_guard', 'write')",
        );
        run(&mut reader, "SET ROLE stale_guard");
        Self { admin, reader }
    }

    /// While the writer of a load changes the rows, makes changes that `stale_ok` does not forgive. Each change comes after a stale
    /// result. The next call must not get a stored result. Returns the number of changes.
    fn check(&mut self, course: &Course) -> usize {
        let (admin, reader) = (&mut self.admin, &mut self.reader);
        let statement = call(Self::QUERY, "v text", "stale_ok => '1 min', space => 'guarded'");
        let delete =
            format!("SELECT cache_delete(cache_key('{}', space => 'guarded'), 'guarded')", Self::QUERY);
        let is_refused = |answer: &Answer, _| answer.as_ref().is_err_and(|said| said.starts_with("42501: "));
        let is_empty = |answer: &Answer, _| *answer == Ok(vec![vec![None]]);
        let is_new = |answer: &Answer, least| {
            let value = answer.as_ref().ok().and_then(|rows| rows[0][0].as_ref()?.parse::<i64>().ok());
            value.is_some_and(|value| value >= least)
        };
        let changes: [(&str, &str, IsRight<'_>); 5] = [
            (
                "REVOKE SELECT ON guarded FROM stale_guard",
                "GRANT SELECT ON guarded TO stale_guard",
                &is_refused,
            ),
            ("ALTER POLICY p ON guarded USING (v < 0)", "ALTER POLICY p ON guarded USING (true)", &is_empty),
            ("ALTER TABLE guarded ADD COLUMN c int", "ALTER TABLE guarded DROP COLUMN c", &is_new),
            ("SELECT cache_flush('guarded')", "SELECT", &is_new),
            // The key of the result belongs to the role, so the role itself deletes it.
            (&delete, "SELECT", &is_new),
        ];
        let mut tries = 0;
        while !course.is_over() {
            for (change, undo, is_right) in changes {
                // At the end, the writer stops, so no result becomes stale any more.
                wait_until("a stale result", || {
                    course.is_over() || ask(reader, &statement).status == "stale"
                });
                if course.is_over() {
                    break;
                }
                let least = course.commits.at(Some(Instant::now()));
                run(if change == delete { reader } else { admin }, change);
                let outcome = ask(reader, &statement);
                let status = &*outcome.status;
                assert!(
                    outcome.has_run() && is_right(&outcome.answer, least),
                    "{change}: {outcome:?}, {status}"
                );
                run(admin, undo);
                tries += 1;
            }
            thread::sleep(Duration::from_millis(500));
        }
        tries
    }
}

impl Drop for Guarded {
    /// The end of the test drops the database, but not the role, which belongs to the cluster.
    fn drop(&mut self) {
        let _ = self.admin.batch_execute("DROP OWNED BY stale_guard; DROP ROLE stale_guard");
    }
}

/// The same with the load of a busy server: fifty clients accept results of the last minute, a query takes five seconds, and a
/// writer commits every 10 ms for three minutes. Clients never wait for a renewal, and one call runs the query for each renewal.
/// Meanwhile, changes of privileges, policies and definitions, deletes and flushes are not forgiven. `target/tmp/stale_ok.svg`
/// shows each second. Runs only in `make test-long`.
#[test]
fn fifty_clients_notice_no_renewal_while_a_writer_commits() {
    if !is_long() {
        return;
    }
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    let mut guarded = Guarded::new(&database);
    // The query calls no function of its own: its result would depend on all definitions, and so on those of the guarded table.
    let (query, options) =
        ("SELECT v::text AS v FROM t, runs, pg_sleep(5)", "depends => '{t}', stale_ok => '1 min'");
    assert_is(&mut witness, &call(query, "v text", options), "1", "miss: not there");
    let time = Duration::from_secs(180);
    let groups = &[(50, options)];
    let load = Load { query, groups, pace: Duration::from_millis(100), written: &["t", "guarded"], time };
    let mut tries = 0;
    let record = load.run(&database, |course| tries = guarded.check(course));
    let seconds = record.by_second(0);
    seconds.write("stale_ok", "stale_ok => '1 min', 50 clients, a query of 5 s, a commit every 10 ms");
    assert!(tries > 100, "only {tries} changes");
    record.ensure_mostly_served(0).unwrap_or_else(|wrong| panic!("{wrong}"));
    record.assert_not_older(0, Duration::from_secs(60 + 5));
    let runs: Vec<_> = record.runs(0).iter().map(|read| (read.asked, &read.outcome)).collect();
    // The result of a run may be used for a minute. A renewal in the first half of this time is very unlikely.
    assert!((3..=6).contains(&runs.len()), "{runs:?}");
    let gaps: Vec<_> = runs.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(gaps.iter().all(|gap| gap.as_secs() >= 10), "two runs for one renewal: {gaps:?}");
    assert!(runs.iter().all(|(_, outcome)| outcome.status == "done"), "{runs:?}");
    seconds.ensure_no_cliff(95.0).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// Callers with and without `stale_ok` share a key. Callers without it never get an old result, and do not remove the stored result
/// that the callers with it use.
#[test]
fn callers_without_stale_ok_get_new_rows_beside_callers_with_it() {
    assert_in_an_attempt(|| {
        let database = RoomyDatabase::new();
        let load = Load {
            query: "SELECT v::text || nap(0.2) AS v FROM t, runs",
            groups: &[(6, "stale_ok => '3 s'"), (2, "")],
            pace: PACE,
            written: &["t"],
            time: Duration::from_secs(5),
        };
        let record = load.run(&database, |_| ());
        let strict = &record.groups[1];
        record.assert_not_older(1, Duration::ZERO);
        assert!(strict.iter().all(|read| read.outcome.status != "stale"), "it was not asked for");
        record.assert_not_older(0, Duration::from_millis(3_000 + 200 + 500));
        assert_eq!(findings(&mut database.connect()), Vec::<String>::new());
        ensure(strict.len() > 2, || format!("only {} calls: {strict:?}", strict.len()))?;
        record.ensure_mostly_served(0)
    });
}

/// The changes that `stale_ok` never forgives. Each line has the change, the statement that undoes it, and further options of the
/// call.
const NEVER_FORGIVEN: &[(&str, &str, &str)] = &[
    ("REVOKE SELECT ON t FROM stale_reader", "GRANT SELECT ON t TO stale_reader", ""),
    ("ALTER POLICY p ON t USING (v < 0)", "ALTER POLICY p ON t USING (true)", ""),
    ("CREATE POLICY q ON t AS RESTRICTIVE USING (v < 0)", "DROP POLICY q ON t", ""),
    ("ALTER TABLE t DISABLE ROW LEVEL SECURITY", "ALTER TABLE t ENABLE ROW LEVEL SECURITY", ""),
    ("ALTER TABLE t ADD COLUMN c int", "ALTER TABLE t DROP COLUMN c", ""),
    ("CREATE TABLE ahead.t AS SELECT 100 AS v", "DROP TABLE ahead.t", ""),
    ("GRANT stale_group TO stale_reader", "REVOKE stale_group FROM stale_reader", ""),
    ("SELECT cache_invalidate_tag('x')", "", ", tags => '{x,y}'"),
    ("SELECT cache_flush()", "", ""),
    ("SELECT cache_flush('*')", "", ""),
];

/// Changes of rows are forgiven. Changes of privileges, policies, definitions, names and roles, invalidated tags and flushes are
/// not forgiven, neither before nor after a change of rows.
#[test]
fn only_changes_of_rows_are_forgiven() {
    let database = Database::create();
    let [mut admin, mut reader] = [(); 2].map(|()| database.connect());
    run(&mut admin, SETUP);
    run(
        &mut admin,
        "CREATE ROLE stale_reader; CREATE ROLE stale_group; SELECT cache_grant('default', 'stale_reader', 'write');
         ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (true); GRANT SELECT ON t TO stale_reader;
         CREATE SCHEMA ahead; GRANT USAGE ON SCHEMA ahead TO stale_reader;
         ALTER DEFAULT PRIVILEGES IN SCHEMA ahead GRANT SELECT ON TABLES TO stale_reader",
    );
    run(&mut reader, "SET ROLE stale_reader; SET search_path = ahead, public");
    let mut wrong = Vec::new();
    for (change, undo, options) in NEVER_FORGIVEN {
        let options = format!("stale_ok => '1 h'{options}");
        let read = |session: &mut Client| cached_with(session, SUM, "v text", &options);
        for rows_change_first in [true, false] {
            wait_until("a result that is stored", || {
                _ = read(&mut reader);
                Expect::Hit.fits(&read(&mut reader).1)
            });
            if rows_change_first {
                wait_until("a stale result", || {
                    _ = read(&mut reader);
                    let old = answer(&mut reader, SUM);
                    run(&mut admin, "UPDATE t SET v = v + 1");
                    let (rows, status) = read(&mut reader);
                    assert!(status != "stale" || rows == old, "{change}: {rows:?} instead of {old:?}");
                    status == "stale"
                });
                run(&mut admin, change);
            } else {
                run(&mut admin, change);
                run(&mut admin, "UPDATE t SET v = v + 1");
            }
            let direct = answer(&mut reader, SUM);
            let (rows, status) = read(&mut reader);
            if rows != direct || direct.is_ok() && !Expect::Fresh.fits(&status) || status == "stale" {
                wrong
                    .push(format!("{change}, {rows_change_first}: {rows:?} instead of {direct:?}, {status}"));
            }
            run(&mut admin, undo);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(findings(&mut admin), Vec::<String>::new());
    run(
        &mut admin,
        "DROP OWNED BY stale_reader; SELECT cache_revoke('default', 'stale_reader', 'write'); DROP ROLE stale_reader, stale_group",
    );
}

/// A function that the query calls is a definition, so its change is not forgiven. A deleted result is not served either.
#[test]
fn a_changed_function_and_a_deleted_key_are_not_forgiven() {
    let database = RoomyDatabase::new();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE FUNCTION f() RETURNS text STABLE LANGUAGE sql AS 'SELECT sum(v)::text FROM t'; UPDATE t SET v = 10",
    );
    let statement = accept("SELECT f() AS v", "1 h");
    assert_is(&mut session, &statement, "10", "miss: not there");
    run(&mut other, "UPDATE t SET v = 11");
    assert_is(&mut session, &statement, "10", "stale");
    run(&mut other, "CREATE OR REPLACE FUNCTION f() RETURNS text STABLE LANGUAGE sql AS 'SELECT 42::text'");
    let outcome = ask(&mut session, &statement);
    assert!(outcome.answer == only("42") && outcome.has_run(), "{outcome:?}");

    let statement = accept(SUM, "1 h");
    assert_is(&mut session, &statement, "11", "miss: not there");
    run(&mut other, "UPDATE t SET v = 12");
    assert_is(&mut session, &statement, "11", "stale");
    run(&mut other, &format!("SELECT cache_delete(cache_key('{SUM}'))"));
    let outcome = ask(&mut session, &statement);
    assert!(outcome.answer == only("12") && outcome.has_run(), "{outcome:?}");

    let fetch = "SELECT cache_fetch('k', 'SELECT sum(v) FROM t', stale_ok => '1 h')";
    assert_is(&mut session, fetch, "12", "miss: not there");
    run(&mut other, "UPDATE t SET v = 13");
    assert_is(&mut session, fetch, "12", "stale");
    run(&mut other, "SELECT cache_delete('k')");
    assert_is(&mut session, fetch, "13", "miss: not there");
}

/// A transaction always sees its own changes.
#[test]
fn changes_of_the_own_transaction_are_not_forgiven() {
    let database = RoomyDatabase::new();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    let statement = call(SUM, "v text", "stale_ok => '1 h', tags => '{x}'");
    assert_is(&mut session, &statement, "1", "miss: not there");
    for (change, value) in [
        ("UPDATE t SET v = v + 100", "102"),
        ("INSERT INTO t VALUES (1000)", "1002"),
        ("SELECT cache_invalidate_tag('x')", "2"),
        ("ALTER TABLE t ADD COLUMN c int", "2"),
    ] {
        run(&mut other, "UPDATE t SET v = 2");
        assert_is(&mut session, &statement, "1", "stale");
        run(&mut session, &format!("BEGIN; {change}"));
        let outcome = ask(&mut session, &statement);
        assert!(outcome.answer == only(value) && outcome.has_run(), "{change}: {outcome:?}");
        // Other sessions do not see the change before its commit, so they get the outdated result.
        let outcome = ask(&mut other, &statement);
        assert!(change.starts_with("ALTER") || outcome.answer == only("1"), "{change}: {outcome:?}");
        run(&mut session, "ROLLBACK");
        assert_is(&mut session, &statement, "1", "stale");
    }
    // A transaction that flushes stores its new result for other sessions, because it has changed no rows that the result depends
    // on.
    run(&mut session, "BEGIN; SELECT cache_flush()");
    let outcome = ask(&mut session, &statement);
    assert!(outcome.answer == only("2") && outcome.has_run(), "{outcome:?}");
    assert_is(&mut other, &statement, "2", "hot");
    run(&mut session, "ROLLBACK");
    assert_is(&mut session, &statement, "2", "hot");
}

/// The accepted age is a limit, and it does not extend the time to live.
#[test]
fn a_result_is_served_up_to_the_accepted_age() {
    let database = RoomyDatabase::new();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    let mut value = 1;
    let mut change = |session: &mut Client| {
        value += 1;
        run(session, &format!("UPDATE t SET v = {value}"));
        value.to_string()
    };
    assert_is(&mut session, &cache(SUM), "1", "miss: not there");
    let new = change(&mut other);
    assert_is(&mut session, &accept(SUM, "1 h"), "1", "stale");
    // These calls have no `stale_ok`, a null, and a time of 0.
    for statement in [cache(SUM), call(SUM, "v text", "stale_ok => NULL"), accept(SUM, "0")] {
        let outcome = ask(&mut session, &statement);
        assert!(outcome.answer == only(&new) && outcome.status != "stale", "{statement}: {outcome:?}");
    }
    for statement in [call(SUM, "v text", "stale_ok => NULL"), accept(SUM, "0")] {
        let new = change(&mut other);
        assert_is(&mut session, &statement, &new, "invalidated: table t");
    }
    // The result is older than the accepted age.
    let old = ask(&mut session, &cache(SUM)).answer;
    let new = change(&mut other);
    thread::sleep(Duration::from_millis(1300));
    let outcome = ask(&mut session, &accept(SUM, "1 s"));
    assert!(outcome.answer == only(&new) && outcome.has_run(), "{outcome:?} instead of {new}, not {old:?}");
    // `stale_ok` extends neither the time to live of the stored result nor the time to live that the caller asks for.
    run(&mut session, "SELECT cache_flush()");
    let outcome = ask(&mut session, &call(SUM, "v text", "ttl => '500 ms', stale_ok => '1 h'"));
    assert!(outcome.answer == only(&new) && outcome.has_run(), "{outcome:?}");
    let new = change(&mut other);
    thread::sleep(Duration::from_millis(700));
    let outcome = ask(&mut session, &accept(SUM, "1 h"));
    assert!(outcome.answer == only(&new) && outcome.has_run(), "{outcome:?}");
    let new = change(&mut other);
    thread::sleep(Duration::from_millis(500));
    let outcome = ask(&mut session, &call(SUM, "v text", "ttl => '300 ms', stale_ok => '1 h'"));
    assert!(outcome.answer == only(&new) && outcome.has_run(), "{outcome:?}");
}

/// The age of a result counts from the last moment at which it was known to be valid, not from its computation. If the call that
/// stored the result had `stale_ok`, each hit, by any caller, shows that the result is valid.
#[test]
fn a_hit_proves_that_the_result_was_valid() {
    let database = RoomyDatabase::new();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    assert_in_an_attempt(|| {
        run(&mut other, "SELECT cache_flush(); UPDATE t SET v = 1");
        let outcome = ask(&mut session, &accept(SUM, "2 s"));
        assert!(outcome.answer == only("1") && outcome.has_run(), "{outcome:?}");
        thread::sleep(Duration::from_millis(2300));
        let hit = Instant::now();
        assert_is(&mut session, &cache(SUM), "1", "hot");
        run(&mut other, "UPDATE t SET v = 2");
        let outcome = ask(&mut session, &accept(SUM, "2 s"));
        // On a slow machine, the result may be too old again.
        ensure(hit.elapsed() < Duration::from_secs(1), || format!("it took {:?}", hit.elapsed()))?;
        assert_eq!((outcome.answer, &*outcome.status), (only("1"), "stale"));
        Ok(())
    });
}

/// A result that became invalid while its query ran is stored for callers with `stale_ok`, if the call that computed it also has
/// `stale_ok`.
#[test]
fn a_result_that_is_invalid_at_its_end_is_stored_for_callers_with_stale_ok() {
    let database = RoomyDatabase::new();
    let [mut leader, mut session, mut witness] = [(); 3].map(|()| database.connect());
    let query = "SELECT (SELECT sum(v) FROM t)::text || waits_for(1) AS v FROM runs";
    for (number, statement) in [accept(query, "1 h"), cache(query)].into_iter().enumerate() {
        run(&mut witness, "SELECT cache_flush(); UPDATE t SET v = 1");
        let before = runs(&mut witness);
        run(&mut witness, "SELECT pg_advisory_lock(1)");
        thread::scope(|threads| {
            let leading = threads.spawn(|| ask(&mut leader, &statement));
            wait_until("the query to wait", || locked(&mut witness) == 1 || leading.is_finished());
            run(&mut witness, "UPDATE t SET v = 2; SELECT pg_advisory_unlock(1)");
            assert_eq!(leading.join().expect("it does not panic").answer, only("1"));
        });
        let outcome = ask(&mut session, &accept(query, "1 h"));
        // Without `stale_ok` at the first call, the result may also be dropped.
        let is_old = outcome.answer == only("1") && !outcome.has_run();
        assert!(is_old || number > 0 && outcome.answer == only("2"), "{outcome:?}");
        let outcome = ask(&mut session, &cache(query));
        assert_eq!(outcome.answer, only("2"), "without stale_ok: {outcome:?}");
        assert_eq!(runs(&mut witness) - before, 2, "{statement}");
    }
}

/// The result of a caller without `stale_ok` becomes invalid while its query runs, several times in a row. Callers with `stale_ok`
/// still get a result: this one or the previous one.
#[test]
fn an_invalid_result_of_a_strict_caller_leaves_a_stale_one() {
    let database = RoomyDatabase::new();
    let [mut strict, mut session, mut witness] = [(); 3].map(|()| database.connect());
    let query = "SELECT (SELECT sum(v) FROM t)::text || waits_for(1) AS v FROM runs";
    assert_is(&mut session, &accept(query, "1 h"), "1", "miss: not there");
    for v in 2..6 {
        run(&mut witness, &format!("UPDATE t SET v = {v}"));
        run(&mut witness, "SELECT pg_advisory_lock(1)");
        thread::scope(|threads| {
            let asking = threads.spawn(|| ask(&mut strict, &cache(query)));
            wait_until("the query to wait", || locked(&mut witness) == 1);
            run(&mut witness, &format!("UPDATE t SET v = {}", v + 10));
            run(&mut witness, "SELECT pg_advisory_unlock(1)");
            assert_eq!(asking.join().expect("it does not panic").answer, only(&v.to_string()));
        });
        let outcome = ask(&mut session, &accept(query, "1 h"));
        let right = [only("1"), only(&v.to_string())];
        assert!(right.contains(&outcome.answer) && outcome.status == "stale", "{outcome:?}");
    }
}

/// Every function with the argument `stale_ok` returns a stale result, and refuses a negative time.
#[test]
fn every_form_accepts_stale_results() {
    let database = RoomyDatabase::new();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        &format!(
            "CREATE TYPE one_text AS (v text); CREATE FUNCTION called() RETURNS text STABLE LANGUAGE sql AS $$ {SUM} $$;
             SELECT cache_create_view('seen', '{SUM}', stale_ok => '1 h')"
        ),
    );
    for (statement, old, new) in [
        (accept(SUM, "1 h"), "1", "2"),
        (format!("SELECT * FROM cache_query(NULL::one_text, '{SUM}', stale_ok => '1 h')"), "1", "2"),
        (
            format!("SELECT cache_query_json('{SUM}', stale_ok => '1 h')"),
            r#"[{"v": "1"}]"#,
            r#"[{"v": "2"}]"#,
        ),
        (
            format!("SELECT value FROM cache_query_json_status('{SUM}', stale_ok => '1 h')"),
            r#"[{"v": "1"}]"#,
            r#"[{"v": "2"}]"#,
        ),
        (format!("SELECT cache_fetch('k', '{SUM}', stale_ok => '1 h')"), r#""1""#, r#""2""#),
        ("SELECT cache_call('called()', stale_ok => '1 h')".to_owned(), r#""1""#, r#""2""#),
        ("SELECT v FROM seen".to_owned(), "1", "2"),
    ] {
        run(&mut other, "SELECT cache_flush(); UPDATE t SET v = 1");
        let outcome = ask(&mut session, &statement);
        assert!(outcome.answer == only(old) && outcome.has_run(), "{outcome:?}");
        assert_is(&mut session, &statement, old, "hot");
        run(&mut other, "UPDATE t SET v = 2");
        assert_is(&mut session, &statement, old, "stale");
        let strict = statement.replace(", stale_ok => '1 h'", "");
        if strict != statement {
            let outcome = ask(&mut session, &strict);
            assert_eq!(outcome.answer, only(new), "{strict}");
            assert_is(&mut session, &statement, new, "hot");
        }
        if statement.contains("stale_ok") {
            for age in ["-1 s", "-1 month"] {
                let negative = statement.replace("'1 h'", &format!("'{age}'"));
                let said = answer(&mut session, &negative).expect_err("the age is negative");
                assert!(said.starts_with("22023: "), "{negative}: {said}");
            }
        }
    }
    let said = answer(&mut session, &format!("SELECT cache_create_view('bad', '{SUM}', stale_ok => '-1 s')"));
    assert!(said.is_err_and(|said| said.starts_with("22023: ")));
    run(&mut other, "SELECT cache_flush(); UPDATE t SET v = 1");
    let status = format!("SELECT status FROM cache_query_json_status('{SUM}', stale_ok => '1 h')");
    assert!(text(&mut session, &status).starts_with("invalidated: "));
    run(&mut other, "UPDATE t SET v = 2");
    assert_eq!(text(&mut session, &status), "stale");
}

/// The time to live of the result in the tests of early renewal.
const TTL: Duration = Duration::from_secs(2);

/// Sessions read a result that lives two seconds, in about 13 calls a second each. Shortly before its end, one session computes it
/// again, while the other sessions still get the old result.
fn read_a_result_that_expires(sessions: usize, time: Duration) -> Result<Record, String> {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    let (query, options) = ("SELECT v::text || nap(0.2) AS v FROM t, runs", "ttl => '2 s'");
    assert_is(&mut witness, &call(query, "v text", options), "1", "miss: not there");
    let before = runs(&mut witness);
    let groups = &[(sessions, options)];
    let load = Load { query, groups, pace: Duration::from_millis(75), written: &[], time };
    let record = load.run(&database, |_| ());
    let found = &record.groups[0];
    let ran = (runs(&mut witness) - before) as usize;
    let seconds = time.as_secs() as usize;
    assert!(found.iter().all(|read| read.outcome.answer == only("1")));
    assert_eq!(findings(&mut witness), Vec::<String>::new());
    ensure(found.len() > sessions * seconds * 2, || format!("only {} calls", found.len()))?;
    // The result is renewed about once in each life. On a slow machine the query takes longer, so the result is renewed earlier.
    let lives = seconds / TTL.as_secs() as usize;
    ensure((lives - 1..=2 * lives + 6).contains(&ran), || format!("{ran} runs in {lives} lives"))?;
    // Only the call that runs the query waits for a renewal. On a slow machine, the first call of the last moments may come late,
    // and a run may take much longer than the one before. Then the other sessions wait, too.
    let slow = record.runs(0).iter().filter(|read| read.outcome.took > Duration::from_millis(300)).count();
    let noticed: Vec<_> = found.iter().filter(|read| read.outcome.status != "hot").collect();
    let most = ran + (1 + slow) * (sessions - 1);
    ensure(noticed.len() <= most, || {
        format!("{} calls have noticed {ran} runs, {slow} of them slow", noticed.len())
    })?;
    Ok(record)
}

/// Fails if callers wait for a result that expires although calls ask for it all the time, or if several callers renew it at once.
#[test]
fn one_caller_refreshes_a_result_before_it_expires() {
    assert_in_an_attempt(|| read_a_result_that_expires(8, Duration::from_secs(8)).map(|_| ()));
}

/// Usually, each call draws a lot that decides whether it renews the result early (`src/query/freshness.rs`). When the remaining
/// time is enough for one run but not for two, the next call must renew the result with any lot. This applies to the end of
/// the time to live, and to the end of `stale_ok`.
#[test]
fn a_renewal_begins_early_enough_for_its_run() {
    let database = RoomyDatabase::new();
    let outcomes = rush(&mut database.sessions(8), |number, session| {
        // Each session has a query of its own.
        let (value, options, wait_ms) = match number % 2 {
            0 => ("'1'", "ttl => '4 s'", 2_300),
            // The time of `stale_ok` counts from the beginning of the run, which takes a second.
            _ => ("(SELECT v FROM t)", "stale_ok => '4 s'", 1_300),
        };
        let query = format!("SELECT {value} || nap(1) AS v FROM runs WHERE one <> {}", number + 10);
        let statement = call(&query, "v text", options);
        let first = ask(session, &statement);
        run(session, "UPDATE t SET v = 2");
        thread::sleep(Duration::from_millis(wait_ms));
        (first.status, ask(session, &statement).status)
    });
    // On a slow machine, the second call may come after the end.
    let is_too_late = |status: &str| status == "miss: expired" || status.starts_with("invalidated: ");
    let wrong: Vec<_> = outcomes.iter().filter(|(_, then)| then != "done" && !is_too_late(then)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(outcomes.iter().any(|(_, then)| then == "done"), "{outcomes:?}");
}

/// One caller renews a result, while all callers together make 200 calls a second. `target/tmp/early_renewal.svg` shows each
/// second. Runs only in `make test-long`.
#[test]
fn no_other_caller_waits_for_a_refresh_under_load() {
    if !is_long() {
        return;
    }
    assert_in_an_attempt(|| {
        let record = read_a_result_that_expires(16, Duration::from_secs(20))?;
        let seconds = record.by_second(0);
        seconds.write("early_renewal", "ttl => '2 s', a query of 0.2 s, about 200 calls a second");
        seconds.ensure_no_cliff(50.0)
    });
}

/// A session with `stale_ok` that has waited may get a result from before its call, if a change has come in meanwhile. Its status
/// must then be `stale`, so that the caller can tell the result from one that is later than the call.
#[test]
fn an_outdated_result_after_a_wait_is_called_stale() {
    let database = RoomyDatabase::new();
    let [mut leader, mut session, mut witness] = [(); 3].map(|()| database.connect());
    let call = accept("SELECT (SELECT sum(v) FROM t)::text || waits_for(1) AS v FROM runs", "1 h");
    run(&mut witness, "SELECT pg_advisory_lock(1)");
    thread::scope(|threads| {
        let leading = threads.spawn(|| ask(&mut leader, &call));
        wait_until("the query to wait", || locked(&mut witness) == 1 || leading.is_finished());
        let waiting_for = threads.spawn(|| ask(&mut session, &call));
        wait_until("the session to wait", || waiting(&mut witness) == 1 || waiting_for.is_finished());
        run(&mut witness, "UPDATE t SET v = 2; SELECT pg_advisory_unlock(1)");
        assert_eq!(leading.join().expect("it does not panic").answer, only("1"));
        let outcome = waiting_for.join().expect("it does not panic");
        assert_eq!((outcome.answer, &*outcome.status), (only("1"), "stale"));
    });
}
