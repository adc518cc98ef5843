//! Tests of `cache_advise()`, which tells which statements are worth caching, in which form, and how much time that saves
//! (`docs/advice.md`). It reads the statistics of `pg_stat_statements`, or those of the *observing mode* (`pg_cache.observe`), in
//! which pg_cache finds out which statements of the client would have been hits. The tests run a workload with known costs: a
//! function in C sleeps, so the costs do not depend on the machine.

use crate::memory::cluster;
use pg_cache_testbed::{Cluster, Conf, Database, Server, wait_at_most, wait_until};
use postgres::{Client, SimpleQueryMessage};
use std::path::Path;
use std::time::{Duration, Instant};

/// A row of `cache_advise()`.
#[derive(Clone, Debug)]
struct Row {
    /// The advice: a form in which to cache the statement (`view`, `cache`, `stale_ok`), `observe`, `warm`, `stop caching`, or
    /// `note`.
    advice: String,
    /// The text of the statement; empty in a note.
    query: String,
    /// The time that the advice saves, in milliseconds per second; None if it is not known.
    saves: Option<f64>,
    /// The reason in words.
    reason: String,
    /// The statement to run.
    statement: Option<String>,
}

fn advise(session: &mut Client) -> Vec<Row> {
    let rows = session.query("SELECT * FROM cache_advise(1000)", &[]).expect("it answers");
    let row = |row: &postgres::Row| Row {
        advice: row.get(0),
        query: row.get::<_, Option<String>>(1).unwrap_or_default(),
        saves: row.get(2),
        reason: row.get(3),
        statement: row.get(4),
    };
    rows.iter().map(row).collect()
}

/// Returns the advice for a statement whose text begins like this.
fn of<'r>(rows: &'r [Row], query: &str) -> Vec<&'r str> {
    rows.iter().filter(|row| row.query.starts_with(query)).map(|row| row.advice.as_str()).collect()
}

fn run(session: &mut Client, sql: &str) {
    session.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// Returns the value of a query with one row and one column, as text.
fn one(session: &mut Client, sql: &str) -> Option<String> {
    let messages = session.simple_query(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    })
}

/// Starts a server that counts statements, with the tables of the workload. None if the server lacks `pg_stat_statements`.
fn counting_cluster() -> Option<Cluster> {
    let server = Server::from_env();
    if server.lacks("pg_stat_statements") {
        return None;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("sessions/slow.c");
    let library = server.compile("pg_cache_test_slow", &source);
    // Only statements that sleep take so long.
    let conf = Conf::preloaded()
        .set("shared_preload_libraries", "pg_cache, pg_stat_statements")
        .set("pg_cache.min_cost", "20ms");
    let cluster = Cluster::start(&conf);
    let mut session = cluster.connect("postgres");
    run(
        &mut session,
        &format!(
            "CREATE SCHEMA counts; CREATE EXTENSION pg_stat_statements SCHEMA counts; CREATE EXTENSION pg_cache;
             CREATE FUNCTION slow(bigint) RETURNS bigint STABLE STRICT LANGUAGE c AS '{library}', 'slow';
             CREATE FUNCTION slow_and_unknown(bigint) RETURNS bigint STABLE LANGUAGE plpgsql
                 AS 'BEGIN PERFORM pg_sleep(0.05); RETURN $1; END';
             CREATE TABLE orders (id bigint PRIMARY KEY, amount bigint);
             INSERT INTO orders SELECT i, i FROM generate_series(1, 1000) AS i;
             CREATE TABLE one_row AS SELECT 1::bigint AS id;
             CREATE TABLE busy (id bigint);
             CREATE TABLE parts (id bigint) PARTITION BY RANGE (id);
             CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
             CREATE TABLE loaded (id bigint);
             CREATE SEQUENCE numbers;
             CREATE SCHEMA hidden; CREATE TABLE hidden.secret AS SELECT 1::bigint AS id"
        ),
    );
    // Rows that this session has changed must not be counted after the reset.
    run(&mut session, "SELECT pg_stat_force_next_flush()");
    run(&mut session, "CREATE DATABASE other");
    run(&mut session, "SELECT pg_stat_reset(), counts.pg_stat_statements_reset()");
    drop(session);
    Some(cluster)
}

const CALLS: usize = 10;

/// Statements that are worth caching, each with the advice that it must get. `work_once` completes a statement that ends in `WHERE
/// id` with another argument for each call, and commits a change before each call of one that ends in `busy` or `parts`.
const WORTHY: [(&str, &str); 9] = [
    ("SELECT slow(count(*)) AS n FROM orders", "view"),
    ("SELECT slow(id) AS id FROM one_row", "cache"),
    ("SELECT slow(id), slow(id) FROM one_row", "cache"),
    ("SELECT slow(max(amount)) AS \"a$$b\" FROM orders", "view"),
    // One commit has loaded a thousand rows.
    ("SELECT slow(count(*)) AS rows FROM loaded", "view"),
    // A commit before each call.
    ("SELECT slow(count(*)) AS busy FROM busy", "stale_ok"),
    ("SELECT slow(count(*)) AS parts FROM parts", "stale_ok"),
    ("SELECT slow(id) AS with_argument FROM one_row WHERE id", "observe"),
    ("SELECT slow_and_unknown(id) FROM one_row", "observe"),
];

/// Statements that are not worth caching, or that the cache would refuse.
const UNWORTHY: [&str; 19] = [
    "SELECT slow(id), random() FROM one_row",
    "SELECT slow(id), nextval('numbers') FROM one_row",
    "SELECT slow(id) FROM one_row FOR UPDATE",
    "SELECT slow(id) FROM temporary",
    "SELECT slow(count(*)) FROM pg_class",
    "SELECT slow(last_value) FROM numbers",
    "SELECT slow(count(*)) FROM orders TABLESAMPLE SYSTEM (100)",
    "SELECT slow(id), xmin FROM one_row",
    "SELECT slow(id), pg_backend_pid() FROM one_row",
    "SELECT slow(id) FROM foreign_rows",
    "INSERT INTO one_row SELECT slow(id) FROM one_row WHERE false RETURNING slow(id)",
    "UPDATE one_row SET id = slow(id) WHERE id < 0",
    "DELETE FROM one_row WHERE slow(id) < 0",
    "WITH gone AS (DELETE FROM busy WHERE id < 0 RETURNING id) SELECT slow(id) FROM one_row",
    "DO 'BEGIN PERFORM pg_sleep(0.05); END'",
    "EXPLAIN ANALYZE SELECT slow(id) FROM one_row",
    "SELECT amount FROM orders WHERE id = 7",
    "SELECT count(*) FROM orders",
    "SELECT slow(id) FROM gone",
];

/// Runs the workload. A pause of the machine can make a quick statement slow, and a slow one much slower. The workload then does
/// not have its known costs, so it runs again.
fn work(cluster: &Cluster, session: &mut Client) {
    run(
        session,
        "CREATE TEMPORARY TABLE temporary AS SELECT 1::bigint AS id;
         CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
         CREATE FOREIGN TABLE foreign_rows (id bigint) SERVER files OPTIONS (program 'echo 1')",
    );
    let has_paused = "SELECT EXISTS (SELECT FROM counts.pg_stat_statements
                       WHERE calls >= 5 AND mean_exec_time > CASE WHEN query ~ 'slow|sleep' THEN 300 ELSE 10 END)";
    wait_at_most(600, "a workload without a pause", || {
        work_once(cluster, session);
        one(session, has_paused).as_deref() == Some("f")
    });
}

/// Resets what the server has counted, and runs the workload once.
fn work_once(cluster: &Cluster, session: &mut Client) {
    run(
        session,
        "DROP TABLE IF EXISTS gone; CREATE TABLE gone AS SELECT 1::bigint AS id;
         TRUNCATE loaded; SELECT pg_stat_force_next_flush()",
    );
    run(
        session,
        "SELECT pg_stat_reset(), counts.pg_stat_statements_reset(), cache_observed_reset();
         INSERT INTO loaded SELECT i FROM generate_series(1, 1000) AS i",
    );
    for call in 0..CALLS {
        // A few observed calls must not replace what is known of all calls.
        run(session, &format!("SET pg_cache.observe = {}", call < 3));
        for (statement, _) in WORTHY {
            if statement.ends_with("busy") || statement.ends_with("parts") {
                run(session, &format!("INSERT INTO busy VALUES ({call}); INSERT INTO parts VALUES ({call})"));
            }
            match statement.strip_suffix(" WHERE id") {
                Some(_) => run(session, &format!("{statement} <> {}", call + 2)),
                None => run(session, statement),
            }
        }
        for statement in UNWORTHY {
            run(session, statement);
        }
        if call < 3 {
            run(session, "SELECT slow(id) FROM one_row ORDER BY id");
        }
        run(session, "SET search_path = hidden, public; SELECT slow(id) FROM secret; RESET search_path");
    }
    run(session, "DROP TABLE gone");
    let mut other = cluster.connect("other");
    for _ in 0..CALLS {
        run(&mut other, "SELECT count(*) AS other, pg_sleep(0.05) IS NULL FROM (SELECT) AS one");
    }
}

/// Runs the printed statement of a row as often as the workload has run the original one. Returns the time, without the time that
/// an empty statement takes to the server and back, and the number of hits.
fn replay(session: &mut Client, row: &Row) -> (f64, usize) {
    let statement = row.statement.as_ref().expect("it has a statement");
    let query = match row.advice.as_str() {
        "view" => {
            let name = statement.split('\'').nth(1).expect("the name of the view");
            if one(session, &format!("SELECT to_regclass('{name}')")).is_none() {
                run(session, statement);
            }
            format!("SELECT * FROM {name}")
        }
        _ => statement.clone(),
    };
    run(session, "SELECT cache_flush('*')");
    let (mut took, mut hits) = (0.0, 0);
    for _ in 0..CALLS {
        if row.advice == "stale_ok" {
            run(session, "INSERT INTO busy VALUES (1); INSERT INTO parts VALUES (1)");
        }
        let began = Instant::now();
        run(session, "SELECT");
        let trip = began.elapsed();
        let began = Instant::now();
        run(session, &query);
        took += began.elapsed().saturating_sub(trip).as_secs_f64();
        let status = one(session, "SELECT cache_status()").unwrap_or_default();
        hits += usize::from(["hot", "stale"].contains(&status.as_str()));
    }
    (took, hits)
}

/// The advice names the statements that are worth caching, with the form that fits, and no others. Each printed statement runs as
/// it is printed. If the application runs the printed statements instead, it saves the promised time, within a fifth.
#[test]
fn the_advice_finds_what_is_worth_caching_and_keeps_its_promise() {
    let Some(cluster) = counting_cluster() else { return };
    let mut session = cluster.connect("postgres");
    work(&cluster, &mut session);
    let mut admin = cluster.connect("postgres");
    let seconds =
        "SELECT extract(epoch FROM clock_timestamp() - stats_reset) FROM counts.pg_stat_statements_info";
    let seconds: f64 = one(&mut admin, seconds).and_then(|text| text.parse().ok()).expect("a number");
    let mut rows = advise(&mut admin);
    let last = rows.pop().expect("a summary");
    assert_eq!(last.advice, "note", "{last:?}");
    assert!(last.reason.contains("that the cache would refuse"), "{last:?}");
    assert!(last.reason.contains("not understood in this session"), "{last:?}");

    for (statement, advice) in WORTHY {
        assert_eq!(of(&rows, statement), [advice], "{statement}: {rows:#?}");
    }
    assert_eq!(rows.len(), WORTHY.len(), "{rows:#?}");
    assert!(rows.windows(2).all(|pair| pair[0].saves.unwrap_or(-1.0) >= pair[1].saves.unwrap_or(-1.0)));

    for (statement, advice) in WORTHY.iter().filter(|(_, advice)| *advice != "observe") {
        let row = rows.iter().find(|row| row.query.starts_with(statement) && row.advice == *advice);
        let row = row.expect("it was found above");
        let uncached = format!(
            "SELECT total_exec_time / 1000 FROM counts.pg_stat_statements WHERE toplevel AND query = $query${statement}$query$"
        );
        let uncached: f64 = one(&mut admin, &uncached).and_then(|text| text.parse().ok()).expect("a number");
        let promised = row.saves.expect("a saving") * seconds;
        // A busy machine can make a replay slow, but not each of them.
        let (mut saved, mut hits) = (0.0, 0);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(120) {
            let (took, found) = replay(&mut admin, row);
            (saved, hits) = ((uncached - took) * 1000.0, found);
            if (saved - promised).abs() <= 0.2 * promised && hits >= CALLS - 2 {
                break;
            }
        }
        assert!(
            (saved - promised).abs() <= 0.2 * promised,
            "{saved} ms saved by {hits} hits, promised {promised} by {row:#?}"
        );
        assert!(hits >= CALLS - 2, "{hits} hits of {row:#?}");
    }
    // The advice for what is cached now is gone, except for views, whose statements the cache does not know.
    let rows = advise(&mut admin);
    assert!(rows.iter().all(|row| row.advice != "cache"), "{rows:#?}");
    // In a session that does not find the functions of the extension, the statements name their schema.
    run(
        &mut admin,
        "CREATE SCHEMA tables; ALTER TABLE orders SET SCHEMA tables; ALTER FUNCTION slow SET SCHEMA tables",
    );
    run(&mut admin, "SET search_path = tables");
    let query = "SELECT statement FROM public.cache_advise() WHERE advice = 'view'";
    let statement = one(&mut admin, query).expect("a view is still worth it");
    assert!(statement.starts_with("SELECT public.cache_create_view("), "{statement}");
}

/// Makes the view of the observing mode, as a part of the extension, with these rows.
fn observe(session: &mut Client, rows: &str) {
    let drop = "ALTER EXTENSION pg_cache DROP VIEW cache_observed; DROP VIEW cache_observed";
    if one(session, "SELECT to_regclass('cache_observed')").is_some() {
        run(session, drop);
    }
    run(
        session,
        &format!(
            "CREATE VIEW cache_observed AS
             SELECT 'app'::text AS role, query_id::bigint, query::text, calls::bigint, hits::bigint, hits::numeric / calls AS hit_ratio,
                    run_ms::float8, saved_ms::float8, refused::text, invalidated_by::text, clock_timestamp() - interval '100 s' AS since
               FROM (VALUES {rows}) AS v (query_id, query, calls, hits, run_ms, saved_ms, refused, invalidated_by);
             ALTER EXTENSION pg_cache ADD VIEW cache_observed"
        ),
    );
}

/// Without `pg_stat_statements`, the advice comes from the observing mode. Its figures count, also for statements with parameters.
#[test]
fn the_observing_mode_is_evidence() {
    let database = Database::create();
    let mut session = database.connect();
    run(&mut session, "CREATE TABLE t (id bigint, amount bigint); INSERT INTO t VALUES (1, 1)");
    observe(
        &mut session,
        "(1, 'SELECT amount FROM t WHERE id = $1', 100, 90, 50, 4500, NULL, NULL),
         (2, 'SELECT amount AS never_again FROM t WHERE id = $1', 100, 0, 50, 0, NULL, NULL),
         (3, 'SELECT sum(amount) FROM t', 100, 5, 50, 250, NULL, 'table t'),
         (4, 'SELECT min(amount) FROM t', 100, 99, 2000, 198000, NULL, 'table t'),
         (5, 'SELECT max(amount) FROM t', 100, 0, 50, 0, 'function f() is volatile', NULL),
         (6, 'SELECT nothing FROM no_table', 100, 90, 50, 4500, NULL, NULL),
         (7, 'SELECT count(*) FROM t', 100, 99, 0.1, 9.9, NULL, NULL),
         (8, 'SELECT amount FROM t WHERE', 100, 90, 50, 4500, NULL, NULL)",
    );
    let rows = advise(&mut session);
    let found = rows.iter().filter(|row| row.advice != "note");
    let found: Vec<_> = found.map(|row| (row.advice.as_str(), row.query.as_str())).collect();
    let expected = [
        ("view", "SELECT min(amount) FROM t"),
        ("stale_ok", "SELECT sum(amount) FROM t"),
        ("cache", "SELECT amount FROM t WHERE id = $1"),
        ("warm", "SELECT min(amount) FROM t"),
    ];
    assert_eq!(found, expected, "{rows:#?}");
    // 90 hits of 50 ms in 100 s, less what hits cost.
    let saves = rows[2].saves.expect("a saving");
    assert!((saves - (4500.0 - 90.0 * 0.05) / 100.0).abs() < 0.5, "{saves}");
    assert!(rows[2].reason.contains("observed in 100 calls"), "{rows:#?}");
    let statement = rows[2].statement.as_ref().expect("a statement");
    assert!(statement.contains("args => '[null]' /* $1: bigint */"), "{statement}");
    for row in &rows[..4] {
        run(&mut session, row.statement.as_ref().expect("a statement"));
    }
    assert!(rows[4].reason.starts_with("pg_stat_statements is not installed"), "{rows:#?}");
    assert!(rows[5].reason.contains("\n2 not understood"), "{rows:#?}");
    assert!(!rows[5].reason.contains("none worth caching"), "{rows:#?}");

    // A view of this name that does not belong to the extension is not read.
    run(&mut session, "ALTER EXTENSION pg_cache DROP VIEW cache_observed");
    assert!(advise(&mut session).iter().all(|row| row.advice == "note"));
}

/// A missing view, library or privilege becomes a note that says what to do, and never an error.
#[test]
fn what_is_missing_is_a_note() {
    let database = Database::create();
    if Server::from_env().lacks("pg_stat_statements") {
        return;
    }
    let mut session = database.connect();
    let first = |session: &mut Client| {
        let rows = advise(session);
        assert!(rows.iter().all(|row| row.advice == "note"), "{rows:#?}");
        let summary = &rows.last().expect("a summary").reason;
        assert!(summary.contains(", none worth caching"), "{summary}");
        (rows[0].reason.clone(), rows[0].statement.clone().unwrap_or_default())
    };
    let (reason, statement) = first(&mut session);
    assert!(reason.starts_with("pg_stat_statements is not installed"), "{reason}");
    run(&mut session, &statement);
    let (reason, statement) = first(&mut session);
    assert!(reason.starts_with("pg_stat_statements is not in shared_preload_libraries"), "{reason}");
    assert_eq!(statement, "ALTER SYSTEM SET shared_preload_libraries = 'pg_cache', 'pg_stat_statements';");
    // A view of this name that does not belong to the extension is not read.
    run(
        &mut session,
        "DROP EXTENSION pg_stat_statements; CREATE VIEW pg_stat_statements AS SELECT 1 / 0 AS queryid",
    );
    assert!(first(&mut session).0.starts_with("pg_stat_statements is not installed"));
    for n in ["0", "1001", "NULL"] {
        session.simple_query(&format!("SELECT cache_advise({n})")).expect_err("a wrong argument");
    }
}

/// A role sees the advice for its own statements. Statements of other roles are only counted. Texts that are broken or huge, or
/// whose tables are locked, are left out. No statement is executed.
#[test]
fn texts_that_cannot_be_judged_are_left_out() {
    let Some(cluster) = counting_cluster() else { return };
    let mut admin = cluster.connect("postgres");
    run(
        &mut admin,
        "CREATE ROLE guest; GRANT USAGE ON SCHEMA counts TO guest; GRANT SELECT ON orders, one_row TO guest;
         CREATE TABLE ran (at int);
         CREATE FUNCTION leaves_a_trace(bigint) RETURNS bigint STABLE LANGUAGE plpgsql
             AS 'BEGIN PERFORM pg_sleep(0.03); PERFORM nextval(''numbers''); RETURN $1; END'",
    );
    let huge = format!("SELECT slow(id) AS huge /* {} */, id FROM one_row", "huge ".repeat(20_000));
    for _ in 0..5 {
        run(&mut admin, "SELECT slow(o.id) AS locked FROM one_row AS o LEFT JOIN busy USING (id)");
        run(&mut admin, "SELECT leaves_a_trace(id) FROM one_row");
        run(&mut admin, &huge);
        run(&mut admin, "SET ROLE guest; SELECT slow(id) AS of_guest FROM one_row; RESET ROLE");
    }
    let before = one(&mut admin, "SELECT last_value FROM numbers");
    let mut holder = cluster.connect("postgres");
    run(&mut holder, "BEGIN; LOCK TABLE busy");
    let rows = advise(&mut admin);
    run(&mut holder, "ROLLBACK");
    assert_eq!(of(&rows, "SELECT slow(o.id) AS locked"), [""; 0], "{rows:#?}");
    assert_eq!(of(&rows, "SELECT slow(id) AS of_guest"), ["cache"], "{rows:#?}");
    assert_eq!(of(&rows, "SELECT leaves_a_trace(id)"), ["observe"], "{rows:#?}");
    assert_eq!(one(&mut admin, "SELECT last_value FROM numbers"), before, "nothing was executed");
    let summary = &rows.last().expect("a summary").reason;
    assert!(summary.contains("\n1 longer than 64 kB"), "{summary}");
    assert_eq!(of(&advise(&mut admin), "SELECT slow(o.id) AS locked"), ["cache"], "without the lock");
    let locks = "SELECT count(*) FROM pg_locks WHERE relation = 'one_row'::regclass";
    run(&mut admin, "BEGIN");
    advise(&mut admin);
    assert_eq!(one(&mut admin, locks).as_deref(), Some("0"), "no lock remains");
    run(&mut admin, "COMMIT");

    // A table that was filled before the statements are counted has not changed since.
    run(
        &mut admin,
        "INSERT INTO loaded SELECT i FROM generate_series(1, 1000) AS i; SELECT pg_stat_force_next_flush()",
    );
    wait_until("the changes to be counted", || {
        one(&mut admin, "SELECT pg_stat_get_tuples_inserted('loaded'::regclass)").as_deref() == Some("1000")
    });
    run(&mut admin, "SELECT counts.pg_stat_statements_reset()");
    for _ in 0..5 {
        run(&mut admin, "SELECT slow(count(*)) AS rows FROM loaded");
        run(&mut admin, "SET ROLE guest; SELECT slow(id) AS of_guest FROM one_row; RESET ROLE");
        run(&mut admin, "SELECT leaves_a_trace(id) FROM one_row");
    }
    assert_eq!(of(&advise(&mut admin), "SELECT slow(count(*)) AS rows"), ["view"], "it has not changed");

    // The guest sees its own statement.
    run(&mut admin, "SET ROLE guest");
    let rows = advise(&mut admin);
    assert_eq!(of(&rows, "SELECT slow(id) AS of_guest"), ["cache"], "{rows:#?}");
    assert_eq!(of(&rows, "SELECT leaves_a_trace"), [""; 0], "{rows:#?}");
    let last = rows.last().expect("a summary");
    assert!(last.reason.contains("which pg_read_all_stats may see"), "{last:?}");
    assert_eq!(last.statement.as_deref(), Some("GRANT pg_read_all_stats TO guest;"));
    run(&mut admin, "RESET ROLE; REVOKE SELECT ON counts.pg_stat_statements FROM PUBLIC; SET ROLE guest");
    let rows = advise(&mut admin);
    assert!(rows[0].reason.starts_with("pg_stat_statements cannot be read: permission denied"), "{rows:#?}");
}

/// Results that nothing reads again cost more than they save, if the hit ratio of their space is below the break-even ratio.
#[test]
fn results_that_nothing_reads_should_not_be_cached() {
    let database = Database::create();
    let mut session = database.connect();
    run(&mut session, "CREATE TABLE t (v int); SELECT cache_create_space('reports')");
    let call = |number: usize| {
        format!(
            "SELECT * FROM cache_query('SELECT v FROM t WHERE v = $1', '[{number}]', space => 'reports') AS (v int)"
        )
    };
    for number in 0..120 {
        run(&mut session, &call(number));
    }
    let stop = |rows: &[Row]| rows.iter().find(|row| row.advice == "stop caching").cloned();
    let rows = advise(&mut session);
    let row = stop(&rows).unwrap_or_else(|| panic!("{rows:#?}"));
    assert!(row.reason.starts_with("120 results are stored"), "{row:#?}");
    let removed = one(&mut session, row.statement.as_ref().expect("a statement"));
    assert_eq!(removed.as_deref(), Some("120"));
    assert!(stop(&advise(&mut session)).is_none());
}

/// A result that is invalidated faster than it runs is not stored: callers should accept old rows, or leave the cache out. The
/// *marker* is the entry that says so. After a flush of the space it is invalid, and its query is no longer left out, so the advice
/// is to cache it.
#[test]
fn a_result_that_is_left_out_should_not_be_cached() {
    let database = Database::create();
    let [mut gate, mut writer] = [(); 2].map(|()| database.connect());
    // The time that the query takes decides for how long it is left out: at most a minute, and here five seconds.
    run(
        &mut gate,
        "CREATE TABLE t AS SELECT 1 AS v;
         CREATE FUNCTION held(v int) RETURNS int STABLE LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_sleep(0.5), pg_advisory_xact_lock_shared(2); RETURN v; END'",
    );
    observe(&mut gate, "(1, 'SELECT held(v) AS v FROM t', 100, 90, 50, 4500, NULL, NULL)");
    let query = "SELECT * FROM cache_query('SELECT held(v) AS v FROM t') AS (v int)";
    let (rows, flushed) = loop {
        for _ in 0..2 {
            run(&mut gate, "SELECT pg_advisory_lock(2)");
            let mut filler = database.connect();
            let filling = std::thread::spawn(move || run(&mut filler, query));
            wait_until("the fill to wait", || {
                let waits =
                    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database =
                             (SELECT oid FROM pg_database WHERE datname = current_database())";
                one(&mut gate, waits).as_deref() == Some("1")
            });
            run(&mut writer, "UPDATE t SET v = v + 1");
            run(&mut gate, "SELECT pg_advisory_unlock(2)");
            filling.join().expect("it runs");
        }
        let rows = advise(&mut writer);
        let is_left_out = one(&mut writer, "SELECT state FROM cache_queries WHERE state LIKE 'left out%'");
        run(&mut writer, "SELECT cache_flush('default')");
        let flushed = advise(&mut writer);
        let is_invalid = one(&mut writer, "SELECT state FROM cache_queries WHERE state LIKE 'invalid%'");
        // On a busy machine, the five seconds may have passed. Or the invalid marker was removed at once.
        if is_left_out.is_some() && is_invalid.is_some() {
            break (rows, flushed);
        }
    };
    assert_eq!(of(&flushed, "SELECT held(v) AS v FROM t"), ["cache"], "{flushed:#?}");
    let row = rows.iter().find(|row| row.advice == "stop caching").unwrap_or_else(|| panic!("{rows:#?}"));
    assert!(row.reason.starts_with("changes of table t invalidate it faster than it runs"), "{row:#?}");
    let expected =
        "SELECT * FROM cache_query($$SELECT held(v) AS v FROM t$$, stale_ok => '1 min') AS (v integer);";
    assert_eq!(row.statement.as_deref(), Some(expected));
    run(&mut writer, expected);
}

/// Results of a query are not stored any more if the verification of hits (`pg_cache.verify_rate`) has found a wrong one. So the
/// advice must not be to cache the query.
#[test]
fn a_query_whose_result_was_wrong_is_not_advised() {
    let cluster = cluster(&Conf::preloaded().set("pg_cache.verify_rate", "1").set("pg_cache.min_cost", "0"));
    let mut session = cluster.connect("postgres");
    run(&mut session, "CREATE TABLE t AS SELECT 1 AS v");
    observe(&mut session, "(1, 'SELECT v FROM t', 100, 90, 50, 4500, NULL, NULL)");
    assert_eq!(of(&advise(&mut session), "SELECT v FROM t"), ["cache"]);
    let call = "SELECT * FROM cache_query('SELECT v FROM t') AS (v int)";
    run(&mut session, call);
    // The change must not invalidate the result (`src/pg/settings/broken.rs`).
    run(&mut session, "SET pg_cache.break_fencing = never");
    run(&mut session, "UPDATE t SET v = 2");
    run(&mut session, "RESET pg_cache.break_fencing");
    assert_eq!(one(&mut session, call).as_deref(), Some("2"), "the hit is verified");
    let state = one(&mut session, "SELECT state FROM cache_queries WHERE state LIKE 'verification%'")
        .unwrap_or_default();
    assert!(state.starts_with("verification failed at "), "{state}");
    let rows = advise(&mut session);
    assert!(rows.iter().all(|row| row.advice == "note"), "{rows:#?}");
    assert!(rows.last().is_some_and(|row| row.reason.contains("\n1 cached already")), "{rows:#?}");
}

/// The analysis of a string calls the input function of its type, and that of an array of a domain calls the condition of the
/// domain. So a text with strings must not be analyzed: its author would run code as the reader of the advice.
#[test]
fn the_code_of_other_roles_does_not_run() {
    let Some(cluster) = counting_cluster() else { return };
    let mut admin = cluster.connect("postgres");
    run(
        &mut admin,
        "CREATE SEQUENCE calls;
         CREATE FUNCTION spy(int) RETURNS bool LANGUAGE plpgsql AS
             $$ BEGIN IF current_setting('app.reader', true) = 'yes' THEN PERFORM nextval('calls'); END IF; RETURN true; END $$;
         CREATE DOMAIN spying AS int CHECK (spy(value))",
    );
    let query = "SELECT slow(count(*)) AS spied, '{1,2}'::spying[] AS a FROM orders";
    let mut author = cluster.connect("postgres");
    run(&mut author, "SET pg_cache.observe = on");
    for _ in 0..6 {
        run(&mut author, query);
    }
    run(&mut admin, "SELECT counts.pg_stat_statements_reset(); SET app.reader = yes");
    assert!(one(&mut admin, "SELECT query FROM cache_observed WHERE query LIKE '%spied%'").is_some());
    let rows = advise(&mut admin);
    // A sequence keeps its value also when the advice rolls a subtransaction back.
    assert_eq!(one(&mut admin, "SELECT is_called FROM calls").as_deref(), Some("f"));
    assert!(of(&rows, "SELECT slow(count(*)) AS spied").is_empty(), "{rows:#?}");
}

/// The texts of the observing mode are those of one call, and may be cut. Neither may be printed as the statement of all calls.
#[test]
fn the_text_of_one_call_stands_for_no_others() {
    let Some(cluster) = counting_cluster() else { return };
    let mut admin = cluster.connect("postgres");
    run(&mut admin, "SET pg_cache.observe = on");
    let long = format!("SELECT slow(count(*)) AS long /*{}*/ FROM orders WHERE id > amount", "x".repeat(475));
    for call in 0..6 {
        run(&mut admin, &format!("SELECT slow(count(*)) AS constant FROM orders WHERE id = {}", call % 2));
        run(&mut admin, &long);
        run(&mut admin, "SELECT slow(count(*)) AS whole FROM orders");
    }
    run(&mut admin, "SET pg_cache.observe = off");
    run(&mut admin, "SELECT counts.pg_stat_statements_reset()");
    let rows = advise(&mut admin);
    assert_eq!(of(&rows, "SELECT slow(count(*)) AS whole"), ["view"], "{rows:#?}");
    assert!(of(&rows, "SELECT slow(count(*)) AS constant").is_empty(), "{rows:#?}");
    assert!(of(&rows, "SELECT slow(count(*)) AS long").is_empty(), "{rows:#?}");
}

/// A role can give a type a name that would end the comment in which the statement shows the types of its parameters.
#[test]
fn the_name_of_a_type_does_not_end_the_comment() {
    let Some(cluster) = counting_cluster() else { return };
    let mut admin = cluster.connect("postgres");
    run(
        &mut admin,
        "CREATE TABLE victim (id int);
         CREATE DOMAIN \"x*/) AS (n bigint); DROP TABLE victim; SELECT (/*\" AS int",
    );
    let query = "SELECT slow(id) AS n FROM one_row WHERE id >= 0::\"x*/) AS (n bigint); DROP TABLE victim; SELECT (/*\"";
    run(&mut admin, "SET pg_cache.observe = on");
    for _ in 0..6 {
        run(&mut admin, query);
    }
    let rows = advise(&mut admin);
    let found = rows.iter().find(|row| row.advice == "cache").unwrap_or_else(|| panic!("{rows:#?}"));
    let statement = found.statement.as_ref().expect("a statement");
    run(&mut admin, statement);
    assert!(one(&mut admin, "SELECT to_regclass('victim')").is_some(), "{statement}");
}

/// The server counts no WAL for changes of an unlogged table, so such changes must not be taken for calls that change nothing.
#[test]
fn changes_of_unlogged_tables_count() {
    let Some(cluster) = counting_cluster() else { return };
    let mut admin = cluster.connect("postgres");
    run(
        &mut admin,
        "CREATE UNLOGGED TABLE quick (id int, v int); INSERT INTO quick SELECT i, i FROM generate_series(1, 100) AS i;
         CREATE FUNCTION change() RETURNS void LANGUAGE plpgsql AS $$ BEGIN UPDATE quick SET v = v + 1 WHERE id = 1; END $$",
    );
    run(&mut admin, "SELECT counts.pg_stat_statements_reset(), pg_stat_reset()");
    for _ in 0..10 {
        run(&mut admin, "SELECT change()");
        run(&mut admin, "SELECT slow(sum(v)) AS quick FROM quick");
    }
    run(&mut admin, "SELECT pg_stat_force_next_flush()");
    let rows = advise(&mut admin);
    assert_eq!(of(&rows, "SELECT slow(sum(v)) AS quick"), ["stale_ok"], "{rows:#?}");
}
