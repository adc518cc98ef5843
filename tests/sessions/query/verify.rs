//! Verified hits: for a share of the hits (`pg_cache.verify_rate`), pg_cache runs the query again, and compares its rows with the
//! stored ones (`query/verify.rs`). With broken fences, each kind of hit must be found to be wrong, and otherwise none. The metrics
//! count each hit once. `pg_cache.break_fencing` exists in debug builds only (`src/pg/settings/broken.rs`). A *fence* is a word in
//! shared memory that says when something that values depend on last changed (`docs/invalidation.md`). A *marker* is an entry
//! without a result: here it says that results of the query are not stored any more.
//!
//! Many tests end with a check of shared memory: `findings` returns what `cache_check()` reports, and must be empty.

use super::calls::{answer, run, text};
use crate::memory::{cluster, findings};
use crate::metrics::metrics;
use crate::tables::{one, only_tables};
use pg_cache_testbed::{Cluster, Conf, wait_until};
use postgres::Client;
use std::collections::BTreeMap;

/// The status of a query whose results are not stored any more.
const FAILED: &str = "refused: verification failed: a stored result of the query was wrong";

/// Runs statements that raise no fence.
fn spoil(writer: &mut Client, statements: &str) {
    run(writer, "SET pg_cache.break_fencing = never");
    run(writer, statements);
    run(writer, "RESET pg_cache.break_fencing");
}

const TABLE: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, i FROM generate_series(1, 3) AS i;
    CREATE FUNCTION f() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT sum(v) FROM t); END'";

/// A function that the planner calls, and that waits while another session holds a lock. So the query waits before it has a
/// snapshot.
const HOLD: &str = "CREATE FUNCTION hold() RETURNS int IMMUTABLE LANGUAGE sql AS
    'SELECT pg_advisory_lock_shared(1); SELECT pg_advisory_unlock_shared(1); SELECT 0'";

/// Starts a cluster that verifies all hits, with a session that calls and a session that writes.
fn start(conf: Conf) -> (Cluster, Client, Client) {
    let cluster = cluster(&conf.set("pg_cache.verify_rate", "1").set("pg_cache.min_cost", "0"));
    let [mut caller, writer] = [(); 2].map(|()| cluster.connect("postgres"));
    run(&mut caller, TABLE);
    (cluster, caller, writer)
}

/// Returns the metrics of verification that are not 0, except times, by the values of their labels: `same`, `different`, and the
/// reasons for which a hit was not compared (`UNVERIFIED` in `src/store/metrics/`).
fn counted(session: &mut Client) -> BTreeMap<String, u64> {
    let all = metrics(session).into_iter().filter_map(|(name, value)| {
        let name = name.strip_prefix("pgcache_verif").map(|name| name.replace(['{', '}', '"'], " "))?;
        (value > 0.0 && !name.contains("seconds")).then_some((name, value as u64))
    });
    all.map(|(name, value)| (name.split('=').nth(1).unwrap_or(&name).trim().to_owned(), value)).collect()
}

/// Runs an action, and asserts that it counts exactly these verifications.
fn expect(session: &mut Client, expected: &[(&str, u64)], action: impl FnOnce(&mut Client)) {
    let before = counted(session);
    action(session);
    let after = counted(session);
    let moved = after.into_iter().filter_map(|(name, value)| {
        let by = value - before.get(&name).unwrap_or(&0);
        (by > 0).then_some((name, by))
    });
    let expected: BTreeMap<_, _> = expected.iter().map(|(name, by)| ((*name).to_owned(), *by)).collect();
    assert_eq!(moved.collect::<BTreeMap<_, _>>(), expected);
}

/// Returns the value of a call, and the status after it.
fn seen(session: &mut Client, call: &str) -> (String, String) {
    (text(session, call), text(session, "SELECT cache_status()"))
}

/// Every function that returns results of queries, each with a call that returns the sum of the column.
const CALLS: [(&str, &str); 9] = [
    ("rows", "SELECT * FROM cache_query('SELECT sum(v) FROM t') AS (sum bigint)"),
    ("rows of a type", "SELECT sum(v) FROM cache_query(NULL::t, 'SELECT * FROM t')"),
    ("arguments", "SELECT * FROM cache_query('SELECT sum(v) FROM t WHERE id > $1', '[0]') AS (sum bigint)"),
    ("json", "SELECT cache_query_json('SELECT sum(v) FROM t') -> 0 ->> 'sum'"),
    (
        "json with status",
        "SELECT value -> 0 ->> 'all' FROM cache_query_json_status('SELECT sum(v) AS \"all\" FROM t')",
    ),
    ("fetch", "SELECT cache_fetch('k', 'SELECT sum(v) FROM t')::text"),
    ("call", "SELECT cache_call('f()')::text"),
    ("wrapper", "SELECT f_cached()"),
    ("view", "SELECT sum FROM cached"),
];

/// Creates the wrapper and the view of [`CALLS`].
const CREATE: &str =
    "SELECT cache_wrap('f()'); SELECT cache_create_view('cached', 'SELECT sum(v) AS sum FROM t')";

/// Fails if a wrong stored result of one of the functions is not found, is returned, or is not reported to the operator.
#[test]
fn verification_finds_a_broken_fence_in_every_kind_of_hit() {
    let (cluster, mut caller, mut writer) = start(Conf::preloaded());
    run(&mut caller, CREATE);
    for (kind, call) in CALLS {
        run(
            &mut caller,
            "TRUNCATE t; INSERT INTO t VALUES (1, 1), (2, 2), (3, 3); SELECT cache_flush('default')",
        );
        assert_eq!(text(&mut caller, call), "6", "{kind}");
        expect(&mut caller, &[("same", 1)], |caller| {
            assert_eq!(seen(caller, call), ("6".to_owned(), "hot".to_owned()), "{kind}");
        });
        spoil(&mut writer, "INSERT INTO t VALUES (4, 10)");
        // The caller gets the rows of the query, not the stored ones.
        expect(&mut caller, &[("different", 1)], |caller| {
            assert_eq!(seen(caller, call), ("16".to_owned(), FAILED.to_owned()), "{kind}");
        });
        // From now on, every call runs the query, also after a change with a fence.
        run(&mut writer, "INSERT INTO t VALUES (5, 100)");
        expect(&mut caller, &[], |caller| {
            for _ in 0..2 {
                assert_eq!(seen(caller, call), ("116".to_owned(), FAILED.to_owned()), "{kind}");
            }
        });
        let state = "SELECT state FROM cache_queries WHERE state LIKE 'verification failed at 20%'";
        assert_ne!(text(&mut caller, state), "", "{kind}");
        assert_eq!(text(&mut caller, "SELECT severity FROM cache_health()"), "error", "{kind}");
        // A flush of the space ends it.
        run(&mut caller, "SELECT cache_flush('default')");
        assert_eq!(text(&mut caller, state), "", "{kind}");
        assert_eq!(text(&mut caller, "SELECT severity FROM cache_health()"), "", "{kind}");
        assert_eq!(text(&mut caller, call), "116", "{kind}");
        expect(&mut caller, &[("same", 1)], |caller| {
            assert_eq!(seen(caller, call), ("116".to_owned(), "hot".to_owned()), "{kind}");
        });
    }
    let log = cluster.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("found a wrong result")).collect();
    assert_eq!(lines.len(), CALLS.len(), "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains("WARNING:  ")), "{lines:#?}");
    let first = "Rows stored: 1, rows of the query: 1. Role: postgres. Depends on: table t. Query: SELECT sum(v) FROM t";
    assert!(lines[0].ends_with(first), "{}", lines[0]);
    assert!(lines[8].contains("table t, view cached_uncached"), "{}", lines[8]);
    assert_eq!(findings(&mut caller), Vec::<String>::new());
}

/// After a failed verification, the query is not stored any more. Fails if `refresh => true` does not end that, or if other queries
/// under the same key suffer.
#[test]
fn refresh_lets_a_query_be_stored_again() {
    let (_cluster, mut caller, mut writer) = start(Conf::preloaded());
    for (call, refresh) in [
        (
            "SELECT * FROM cache_query('SELECT sum(v) FROM t') AS (sum bigint)",
            "SELECT * FROM cache_query('SELECT sum(v) FROM t', refresh => true) AS (sum bigint)",
        ),
        (
            "SELECT cache_fetch('k', 'SELECT sum(v) FROM t')",
            "SELECT cache_fetch('k', 'SELECT sum(v) FROM t', refresh => true)",
        ),
    ] {
        run(&mut caller, call);
        spoil(&mut writer, "UPDATE t SET v = v + 1");
        run(&mut caller, call);
        assert_eq!(seen(&mut caller, call).1, FAILED);
        // Another query under the same key, or the same query in another form, is not concerned.
        run(&mut caller, "SELECT cache_fetch('k', 'SELECT 7')");
        assert_eq!(seen(&mut caller, "SELECT cache_fetch('k', 'SELECT 7')").1, "hot");
        assert_eq!(seen(&mut caller, refresh).1, "done");
        assert_eq!(seen(&mut caller, call).1, "hot");
        run(&mut writer, "UPDATE t SET v = v + 1");
        assert!(seen(&mut caller, call).1.starts_with("invalidated: table t"));
        assert_eq!(seen(&mut caller, call).1, "hot");
    }
}

/// A wrong stored result is found in transactions of all kinds: also in one that keeps its snapshot, and by a role that may only
/// read. Then a marker keeps the query from being stored. The marker survives changes of the data and a clean restart.
#[test]
fn a_wrong_result_is_found_in_every_transaction() {
    let (cluster, mut caller, mut writer) = start(Conf::preloaded());
    let call = "SELECT * FROM cache_query('SELECT sum(v) FROM t') AS (sum bigint)";
    run(
        &mut writer,
        "CREATE ROLE reader; GRANT SELECT ON t TO reader; SELECT cache_grant('default', 'reader', 'write')",
    );
    let change = "UPDATE t SET v = v + 1";
    for (begin, end) in [
        ("BEGIN READ ONLY", "COMMIT"),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ", "COMMIT"),
        ("BEGIN; SAVEPOINT s", "ROLLBACK"),
        ("SET ROLE reader", "RESET ROLE"),
    ] {
        run(&mut caller, "SELECT cache_flush('default')");
        run(&mut caller, &format!("{begin}; {end}"));
        if begin.starts_with("SET") {
            run(&mut caller, &format!("{begin}; {call}; {end}"));
            run(
                &mut writer,
                "SELECT cache_revoke('default', 'reader', 'write'); SELECT cache_grant('default', 'reader', 'read')",
            );
        } else {
            run(&mut caller, call);
        }
        spoil(&mut writer, change);
        run(&mut caller, begin);
        expect(&mut cluster.connect("postgres"), &[("different", 1)], |_| {
            assert_eq!(seen(&mut caller, call).1, FAILED, "{begin}");
        });
        run(&mut caller, end);
    }
    run(&mut caller, "SELECT cache_flush('default')");
    run(&mut caller, call);
    spoil(&mut writer, change);
    run(&mut caller, call);
    drop((caller, writer));
    cluster.restart(pg_cache_testbed::Stop::Fast, &Conf::preloaded().set("pg_cache.min_cost", "0"));
    assert_eq!(seen(&mut cluster.connect("postgres"), call).1, FAILED);
}

/// Hits of all kinds, in all places where a query can be called, are right.
#[test]
fn verification_finds_nothing_without_a_fault() {
    let (cluster, mut caller, mut writer) = start(Conf::preloaded());
    run(&mut caller, CREATE);
    for (_, call) in CALLS {
        run(&mut caller, call);
    }
    expect(&mut caller, &[("same", 9)], |caller| {
        for (kind, call) in CALLS {
            assert_eq!(seen(caller, call), ("6".to_owned(), "hot".to_owned()), "{kind}");
        }
    });
    let begins = ["BEGIN READ ONLY", "BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN; SAVEPOINT a"];
    // Results of functions in PL/pgSQL vary on all settings, so these transactions have results of their own.
    let calls = CALLS.iter().filter(|(kind, _)| !["call", "wrapper"].contains(kind));
    expect(&mut caller, &[("same", 21)], |caller| {
        for begin in begins {
            run(caller, begin);
            for (_, call) in calls.clone() {
                assert_eq!(seen(caller, call).1, "hot", "{begin}");
            }
            run(caller, "COMMIT");
        }
    });
    // A cursor that is read in parts, and a cached query that calls the cache.
    expect(&mut caller, &[("same", 2)], |caller| {
        run(caller, "BEGIN; DECLARE c CURSOR FOR SELECT * FROM cache_query(NULL::t, 'SELECT * FROM t')");
        assert_eq!(text(caller, "FETCH 1 FROM c"), "1");
        assert_eq!(text(caller, "FETCH 1 FROM c"), "2");
        run(caller, "COMMIT");
        let nested = "SELECT * FROM cache_query('SELECT sum FROM cached') AS (sum bigint)";
        assert_eq!(seen(caller, nested), ("6".to_owned(), "refused: the query calls the cache".to_owned()));
    });
    // The transaction sees rows of its own, which no stored result has.
    expect(&mut caller, &[], |caller| {
        run(caller, "BEGIN; INSERT INTO t VALUES (4, 4)");
        assert_eq!(seen(caller, CALLS[0].1).0, "10");
        run(caller, "ROLLBACK");
    });
    // One statement calls for each row of a table, while another session changes the rows. Each hit is newer than the snapshot of
    // the statement.
    let slow = "SELECT count(*), count(DISTINCT cache_fetch('k', 'SELECT sum(v) FROM t')), max(pg_sleep(0.002)::text)
                  FROM generate_series(1, 100) AS i";
    std::thread::scope(|scope| {
        let caller = &mut caller;
        let statement = scope.spawn(move || run(caller, slow));
        while !statement.is_finished() {
            run(&mut writer, "UPDATE t SET v = v + 1");
        }
    });
    assert_eq!(counted(&mut caller).get("different"), None, "{}", cluster.log());
    assert_eq!(text(&mut caller, "SELECT cache_health()"), "");
}

/// A value that comes from a table is verified like one from memory.
#[test]
fn verification_finds_a_wrong_result_in_a_table() {
    let (_cluster, mut caller, mut writer) = start(Conf::preloaded().set("pg_cache.table_size", "16MB"));
    only_tables(&mut caller);
    for call in [
        "SELECT * FROM cache_query('SELECT sum(v) FROM t') AS (sum bigint)",
        "SELECT cache_fetch('k', 'SELECT sum(v) FROM t')",
    ] {
        run(&mut caller, call);
        wait_until("a hit in a table", || seen(&mut caller, call).1 == "hit: table");
        expect(&mut caller, &[("same", 1)], |caller| assert_eq!(seen(caller, call).1, "hit: table"));
        spoil(&mut writer, "UPDATE t SET v = v + 1");
        expect(&mut caller, &[("different", 1)], |caller| assert_eq!(seen(caller, call).1, FAILED));
        expect(&mut caller, &[], |caller| assert_eq!(seen(caller, call).1, FAILED));
    }
}

/// Rows are compared as a multiset. Fails if the same rows in another order count as different, or another number of copies as the
/// same.
#[test]
fn the_order_of_rows_does_not_count_and_their_number_does() {
    let (_cluster, mut caller, mut writer) = start(Conf::preloaded());
    run(
        &mut caller,
        "CREATE TABLE m (a int, b text, c numeric[]); INSERT INTO m VALUES (1, 'x', '{1}'), (1, 'x', '{1}'), (2, NULL, NULL)",
    );
    let rows = "SELECT count(*) FROM cache_query(NULL::m, 'SELECT * FROM m')";
    let json = "SELECT jsonb_array_length(cache_query_json('SELECT * FROM m'))";
    let large = "INSERT INTO m SELECT 3, repeat('long', 2000), NULL FROM generate_series(1, 3); INSERT INTO m VALUES (4, repeat('x', 3), '{1,NULL}')";
    run(&mut caller, large);
    for call in [rows, json] {
        run(&mut caller, "SELECT cache_flush('default')");
        run(&mut caller, call);
        // The same rows in another order.
        let turn = "CREATE TEMP TABLE copy AS SELECT * FROM m ORDER BY b; DELETE FROM m; INSERT INTO m SELECT * FROM copy ORDER BY a DESC; DROP TABLE copy";
        spoil(&mut writer, turn);
        expect(&mut caller, &[("same", 1)], |caller| {
            assert_eq!(seen(caller, call), ("7".to_owned(), "hot".to_owned()))
        });
        // The same set of rows, but one of them has another number of copies.
        spoil(
            &mut writer,
            "DELETE FROM m WHERE ctid = (SELECT min(ctid) FROM m WHERE a = 1); INSERT INTO m VALUES (2, NULL, NULL)",
        );
        expect(&mut caller, &[("different", 1)], |caller| {
            assert_eq!(seen(caller, call), ("7".to_owned(), FAILED.to_owned()))
        });
    }
}

/// Differences that prove nothing count as skipped, and change nothing.
#[test]
fn a_hit_that_cannot_be_compared_is_skipped() {
    let (_cluster, mut caller, mut writer) = start(Conf::preloaded());
    run(
        &mut caller,
        "CREATE TABLE s (id int PRIMARY KEY, v int, f float8, n numeric, p numeric(10, 2), i interval);
         INSERT INTO s VALUES (1, 1, 0.1, 1, 1, '1 day');
         CREATE TYPE pair AS (a text, b int);
         CREATE FUNCTION dated() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT sum(v) FROM s WHERE now() > to_timestamp(id)); END'",
    );
    let change = "UPDATE s SET v = v + 1, f = f + 1, n = n + 1, p = p + 1, i = i + '1 day';
        INSERT INTO s SELECT max(id) + 1, 0, 1, 3, 0, '1 hour' FROM s";
    for (reason, query) in [
        ("unclear", "SELECT v FROM s LIMIT 1"),
        ("unclear", "SELECT v FROM s ORDER BY f DESC LIMIT 1"),
        ("unclear", "SELECT v FROM s OFFSET 0"),
        ("unclear", "SELECT * FROM (SELECT v FROM s ORDER BY f DESC LIMIT 1) AS x"),
        ("unclear", "SELECT DISTINCT ON (f > 0) v FROM s ORDER BY f > 0, f DESC"),
        ("unclear", "SELECT v + row_number() OVER () FROM s"),
        ("unclear", "SELECT array_agg(v) FROM s"),
        ("unclear", "SELECT string_agg(v::text, ',' ORDER BY f) FROM s"),
        ("unclear", "SELECT sum(f) FROM s"),
        ("unclear", "SELECT v FROM s WHERE now() > to_timestamp(id)"),
        ("unclear", "SELECT dated()"),
        ("unclear", "SELECT ARRAY(SELECT v FROM s)"),
        ("unclear", "SELECT md5(ARRAY(SELECT v FROM s)::text)"),
        ("unclear", "SELECT DISTINCT n FROM s"),
        ("unclear", "SELECT n, count(*) FROM s GROUP BY n"),
        ("unclear", "SELECT n FROM s UNION SELECT 1"),
        ("unclear", "SELECT i FROM s EXCEPT SELECT interval '1 hour'"),
        ("unclear", "SELECT max(n) FROM s"),
        ("unclear", "SELECT max(i * 2) FROM s"),
        ("unclear", "SELECT n FROM s ORDER BY n DESC LIMIT 1"),
        ("unclear", "SELECT array_agg(n ORDER BY n) FROM s"),
        ("unclear", "SELECT sum(DISTINCT n) FROM s"),
        ("unclear", "SELECT percentile_disc(1) WITHIN GROUP (ORDER BY n) FROM s"),
        ("unclear", "SELECT max(f) FROM s"),
        ("unclear", "SELECT ROW(v::text, v)::pair FROM s"),
        ("different", "SELECT ARRAY(SELECT v FROM s ORDER BY v)"),
        ("different", "SELECT DISTINCT v FROM s"),
        ("different", "SELECT p, count(DISTINCT n) FROM s GROUP BY p"),
        ("different", "SELECT v FROM s UNION SELECT 1"),
        ("different", "SELECT n FROM s UNION ALL SELECT 1"),
        ("different", "SELECT max(p), max(v::text), sum(n) FROM s"),
        ("different", "SELECT v FROM s ORDER BY id LIMIT 1"),
        ("different", "SELECT v FROM s ORDER BY v DESC LIMIT 1"),
        ("different", "SELECT v, sum(v) FROM s GROUP BY v ORDER BY 2 DESC, v LIMIT 1"),
        ("different", "SELECT v + rank() OVER (ORDER BY id) FROM s"),
        ("different", "SELECT string_agg(v::text, ',' ORDER BY v::text) FROM s"),
    ] {
        let call = format!("SELECT count(cache_query_json($q${query}$q$))");
        run(&mut caller, "SELECT cache_flush('default')");
        run(&mut caller, &call);
        expect(&mut caller, &[("same", 1)], |caller| assert_eq!(seen(caller, &call).1, "hot", "{query}"));
        spoil(&mut writer, change);
        expect(&mut caller, &[(reason, 1)], |caller| {
            let status = if reason == "different" { FAILED } else { "hot" };
            assert_eq!(seen(caller, &call).1, status, "{query}");
        });
    }

    // A caller who accepts an outdated result gets one.
    let call = "SELECT cache_query_json('SELECT v FROM s', stale_ok => '1 hour', ttl => '1 hour')";
    run(&mut caller, call);
    run(&mut writer, "UPDATE s SET v = v + 1");
    expect(&mut caller, &[("stale_ok", 1)], |caller| assert_eq!(seen(caller, call).1, "stale"));

    // The caller has declared the dependencies.
    let call = "SELECT cache_query_json('SELECT v FROM s', depends => '{}')";
    run(&mut caller, call);
    run(&mut writer, "UPDATE s SET v = v + 1");
    expect(&mut caller, &[("depends", 1)], |caller| assert_eq!(seen(caller, call).1, "hot"));

    // A result under a chosen key may be that of another role, or of other settings.
    let call = "SELECT cache_fetch('chosen', 'SELECT to_timestamp(0)')";
    run(&mut caller, call);
    run(&mut caller, "SET TimeZone = 'Asia/Tokyo'");
    expect(&mut caller, &[("session", 1)], |caller| assert_eq!(seen(caller, call).1, "hot"));
    run(&mut caller, "RESET TimeZone");
    expect(&mut caller, &[("same", 1)], |caller| assert_eq!(seen(caller, call).1, "hot"));

    // A hit waits for no lock, and neither does its verification.
    let call = "SELECT cache_query_json('SELECT sum(v) FROM s')";
    run(&mut caller, call);
    run(&mut writer, "BEGIN; LOCK TABLE s");
    expect(&mut caller, &[("locked", 1)], |caller| assert_eq!(seen(caller, call).1, "hot"));
    run(&mut writer, "ROLLBACK");
    expect(&mut caller, &[("same", 1)], |caller| assert_eq!(seen(caller, call).1, "hot"));

    // A change that commits while the query runs.
    run(&mut caller, HOLD);
    let call = "SELECT cache_query_json('SELECT sum(v) FROM s WHERE id > hold()')";
    run(&mut caller, call);
    run(&mut writer, "SELECT pg_advisory_lock(1)");
    expect(&mut caller, &[("changed", 1)], |caller| {
        std::thread::scope(|scope| {
            let statement = scope.spawn(move || seen(caller, call).1);
            let waiting = "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
            wait_until("the query to wait", || one::<bool>(&mut writer, waiting));
            run(&mut writer, "UPDATE s SET v = v + 1");
            run(&mut writer, "SELECT pg_advisory_unlock(1)");
            assert_eq!(statement.join().expect("it returns"), "hot");
        });
    });
}

/// Errors of the run do not reach the caller: whether a query fails may depend on the order in which the server evaluates its
/// conditions. A cancelled call ends.
#[test]
fn errors_and_cancels_of_the_run_are_told_apart() {
    let (cluster, mut caller, mut writer) = start(Conf::preloaded());
    let call = "SELECT cache_query_json('SELECT 6 / v AS six FROM t')";
    run(&mut caller, call);
    spoil(&mut writer, "UPDATE t SET v = 0 WHERE id = 1");
    expect(&mut caller, &[("error", 1)], |caller| assert_eq!(seen(caller, call).1, "hot"));
    assert!(!cluster.log().contains("found a wrong result"));
    run(&mut writer, "UPDATE t SET v = 1");

    run(&mut caller, HOLD);
    let call = "SELECT * FROM cache_query('SELECT id FROM t WHERE id = 1 + hold()') AS (one int)";
    run(&mut caller, call);
    run(&mut writer, "SELECT pg_advisory_lock(1)");
    // The lock times out in the run, not in the hit.
    run(&mut caller, "SET lock_timeout = '20ms'");
    run(&mut caller, "SET client_min_messages = log");
    expect(&mut caller, &[("error", 1)], |caller| {
        assert_eq!(seen(caller, call), ("1".to_owned(), "hot".to_owned()));
    });
    run(&mut caller, "RESET lock_timeout");
    expect(&mut caller, &[("error", 1)], |caller| {
        // The limit is only for the call, not for the metrics.
        run(caller, "SET statement_timeout = '500ms'");
        let error = answer(caller, call).expect_err("it takes too long");
        assert!(error.starts_with("57014: canceling statement due to statement timeout"), "{error}");
        run(caller, "RESET statement_timeout");
    });
    let pid: i32 = one(&mut caller, "SELECT pg_backend_pid()");
    expect(&mut cluster.connect("postgres"), &[("error", 1)], |other| {
        std::thread::scope(|scope| {
            let caller = &mut caller;
            let statement = scope.spawn(move || answer(caller, call));
            let waiting = "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
            wait_until("the query to wait", || one::<bool>(other, waiting));
            run(other, &format!("SELECT pg_cancel_backend({pid})"));
            let error = statement.join().expect("it ends").expect_err("it was cancelled");
            assert!(error.starts_with("57014"), "{error}");
        });
    });
    run(&mut writer, "SELECT pg_advisory_unlock(1)");
    expect(&mut caller, &[("same", 1)], |caller| assert_eq!(seen(caller, call).1, "hot"));
    assert_eq!(findings(&mut caller), Vec::<String>::new());
}

/// The setting takes a share from 0 to 1, and only from a superuser.
#[test]
fn a_share_of_the_hits_is_verified() {
    let (_cluster, mut caller, _writer) = start(Conf::preloaded());
    for wrong in ["-0.1", "1.1", "'often'", "'NaN'"] {
        let error =
            answer(&mut caller, &format!("SET pg_cache.verify_rate = {wrong}")).expect_err("it is refused");
        assert!(error.starts_with("22023: "), "{error}");
    }
    run(&mut caller, "CREATE ROLE guest; SET ROLE guest");
    let denied = answer(&mut caller, "SET pg_cache.verify_rate = 0");
    assert_eq!(denied, Err("42501: permission denied to set parameter \"pg_cache.verify_rate\"".to_owned()));
    let denied = answer(&mut caller, "SELECT * FROM cache_verification").expect_err("it is refused");
    assert!(denied.starts_with("42501: "), "{denied}");
    run(&mut caller, "RESET ROLE");
    let calls = |times: u32| {
        format!("SELECT count(cache_fetch('share', 'SELECT sum(v) FROM t')) FROM generate_series(1, {times})")
    };
    run(&mut caller, &calls(1));
    run(&mut caller, "SET pg_cache.verify_rate = 0");
    expect(&mut caller, &[], |caller| run(caller, &calls(1000)));
    run(&mut caller, "SET pg_cache.verify_rate = 0.1");
    let before = counted(&mut caller).get("same").copied().unwrap_or(0);
    run(&mut caller, &calls(2000));
    let verified = counted(&mut caller)["same"] - before;
    // Ten standard deviations around 200.
    assert!((65..335).contains(&verified), "{verified} of 2000");
    run(&mut caller, "SET pg_cache.verify_rate = 1");
    expect(&mut caller, &[("same", 2000 - verified)], |caller| run(caller, &calls(2000 - verified as u32)));
    // 2000 hits without a difference show that at most 3 of 2000 hits are wrong.
    let shown = answer(
        &mut caller,
        "SELECT verified - 2000, different, skipped, consistency, nines FROM cache_verification",
    );
    let shown = shown.expect("a view").swap_remove(0);
    let shown: Vec<_> = shown.into_iter().map(Option::unwrap_or_default).collect();
    assert_eq!(shown[1..], ["0", "0", "at least 99.8 %", "2.8"], "{shown:?}");
}
