//! Tests of cached results in all protocols, of large results, in transactions of all kinds and after restarts: the caller must get
//! the rows that the query itself returns. The SQL surface itself is in `tests/pg_regress/sql/query.sql`.

use super::calls::{Expect, answer, assert_right, cached, cached_with, call, compare, fill, run, text};
use crate::memory::{cluster, findings};
use crate::tables::{conf, only_tables};
use pg_cache_testbed::{Conf, Database, Stop, wait_until};
use postgres::Client;
use postgres::error::SqlState;

/// Returns a field of the kernel's status of the session's backend, in kilobytes.
fn kilobytes(session: &mut Client, field: &str) -> u64 {
    let pid = text(session, "SELECT pg_backend_pid()");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the backend lives");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the kernel tells");
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("it is a number")
}

/// Sets the greatest memory use of the session's backend so far to its current use.
fn reset_peak(session: &mut Client) {
    let pid = text(session, "SELECT pg_backend_pid()");
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("root may reset it");
}

/// A result of 10 000 rows and 10 columns of several types is stored whole.
#[test]
fn ten_thousand_rows_of_ten_columns_are_a_hit() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE TABLE wide AS
         SELECT i AS a, i::bigint * i AS b, i / 3.0 AS c, 'row ' || i AS d, i % 2 = 0 AS e, '2026-01-01'::date + i AS f,
                CASE WHEN i % 3 > 0 THEN md5(i::text) END AS g, ARRAY[i, i + 1] AS h, jsonb_build_object('i', i) AS j,
                '2026-01-01 00:00+00'::timestamptz + i * interval '1 minute' AS k
           FROM generate_series(1, 10000) AS i",
    );
    let query = "SELECT * FROM wide ORDER BY a";
    let columns =
        "a int, b bigint, c numeric, d text, e bool, f date, g text, h int[], j jsonb, k timestamptz";
    assert_right(&mut session, query, columns, Expect::Stored);
    assert_right(&mut session, query, columns, Expect::Hit);
    assert_right(&mut other, query, columns, Expect::Hit);
    run(&mut other, "UPDATE wide SET d = 'other' WHERE a = 9999");
    assert_right(&mut session, query, columns, Expect::Invalidated("table wide"));
    // A part of the result is taken, which leaves the whole.
    let part = answer(&mut other, &format!("{} ORDER BY a DESC LIMIT 2", call(query, columns, "")));
    assert_eq!(part, answer(&mut other, "SELECT * FROM wide ORDER BY a DESC LIMIT 2"));
    assert_right(&mut other, query, columns, Expect::Hit);
}

/// A hit whose row type has dropped columns returns nulls for them, and other hits of the session are not disturbed by it.
#[test]
fn hits_skip_the_dropped_columns_of_the_row_type() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE TABLE fitted (a int, gone text, b text, gone_too int, c int);
         ALTER TABLE fitted DROP COLUMN gone, DROP COLUMN gone_too, ADD COLUMN d text;
         INSERT INTO fitted SELECT i, CASE WHEN i % 2 = 0 THEN 'row ' || i END, -i, md5(i::text) FROM generate_series(1, 3000) AS i",
    );
    for rows in [0, 1, 30, 3000] {
        let query = format!("SELECT * FROM fitted WHERE a <= {rows} ORDER BY a");
        let direct = answer(&mut session, &query);
        let statement = format!("SELECT * FROM cache_query(NULL::fitted, $${query}$$)");
        wait_until(&format!("{rows} rows to be a hit"), || {
            assert_eq!(answer(&mut session, &statement), direct, "{rows} rows");
            Expect::Hit.fits(&text(&mut session, "SELECT cache_status()"))
        });
        assert_right(&mut session, &query, "a int, b text, c int, d text", Expect::Hit);
    }
}

/// A statement that gets a large hit many times keeps the memory of one, and returns all rows of each.
#[test]
fn large_hits_of_one_statement_use_the_same_memory() {
    let database = Database::create();
    let mut session = database.connect();
    // Spaces at the end do not change the query. They make the server call the function for each number.
    run(&mut session, "CREATE TABLE wide AS SELECT i, md5(i::text) AS v FROM generate_series(1, 3000) AS i");
    fill(&mut session, "SELECT * FROM wide", "i int, v text");
    run(
        &mut session,
        "BEGIN; DECLARE many NO SCROLL CURSOR FOR SELECT n, hit.* FROM generate_series(1, 40) AS n,
             LATERAL (SELECT count(*), sum(i), min(v) FROM cache_query('SELECT * FROM wide' || repeat(' ', n)) AS q(i int, v text)) AS hit",
    );
    let hits = answer(&mut session, "FETCH 30 FROM many").expect("they are hits");
    let direct = answer(&mut session, "SELECT count(*), sum(i), min(v) FROM wide").expect("it is read");
    assert_eq!(hits.len(), 30);
    assert!(hits.iter().all(|row| row[1..] == direct[0]), "{hits:?}");
    assert_eq!(text(&mut session, "SELECT cache_status()"), "hot");
    let most =
        text(&mut session, "SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'pg_cache rows'");
    assert!(["0", "1"].contains(&most.as_str()), "{most} contexts");
    run(&mut session, "COMMIT");
}

/// A result that is too large to store streams through: the backend's memory stays within its limit, and the caller gets all rows.
#[test]
fn a_million_rows_stream_through_and_are_not_stored() {
    // The small result must outlive the large ones, which may take minutes on a slow machine.
    let cluster = cluster(&Conf::preloaded().set("pg_cache.default_ttl", "1h"));
    let mut session = cluster.connect("postgres");
    let query = "SELECT i, 'row ' || i, md5(i::text) FROM generate_series(1, 1000000) AS i";
    let columns = "i int, a text, b text";
    // The call's own memory, besides the rows, is allocated before.
    run(&mut session, "SET work_mem = '4MB'");
    fill(&mut session, "SELECT i, 'row ' || i, md5(i::text) FROM generate_series(1, 10) AS i", columns);
    let count = |function: &str| format!("SELECT count(*), sum(i), min(a), max(b) FROM ({function}) AS r");
    let direct = answer(&mut session, &count(&format!("SELECT * FROM ({query}) AS d(i, a, b)")));
    for round in 0..2 {
        reset_peak(&mut session);
        let before = kilobytes(&mut session, "VmHWM");
        let rows = answer(&mut session, &count(&call(query, columns, "")));
        let status = text(&mut session, "SELECT cache_status()");
        assert_eq!(rows, direct, "{round}");
        assert!(status.starts_with("refused: larger than max_result_size"), "{round}: {status}");
        let more = kilobytes(&mut session, "VmHWM").saturating_sub(before);
        assert!(more < 48 << 10, "{round}: {more} kB more");
    }
    // The result that was stored before stays, and new results find room.
    assert_right(
        &mut session,
        "SELECT i, 'row ' || i, md5(i::text) FROM generate_series(1, 10) AS i",
        columns,
        Expect::Hit,
    );
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// Two gigabytes of text, in rows of a megabyte, and a single value of almost a gigabyte.
#[test]
fn two_gigabytes_stream_through() {
    if !std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty()) {
        return;
    }
    let database = Database::create();
    let mut session = database.connect();
    for (query, bytes) in [
        ("SELECT repeat('x', 1000000) || i AS v FROM generate_series(1, 2100) AS i", 2_100_007_293_i64),
        ("SELECT repeat('x', 900000000) AS v", 900_000_000),
    ] {
        let sum = format!("SELECT sum(length(v))::text FROM ({}) AS r", call(query, "v text", ""));
        assert_eq!(text(&mut session, &sum), bytes.to_string());
        let status = text(&mut session, "SELECT cache_status()");
        assert!(status.starts_with("refused: larger than max_result_size"), "{status}");
    }
    fill(&mut session, "SELECT 1::text AS v", "v text");
}

/// A session that runs many different queries must not keep something of each.
#[test]
fn ten_thousand_queries_leave_the_memory_of_the_session_bounded() {
    let database = Database::create();
    let mut session = database.connect();
    run(&mut session, "CREATE TABLE t AS SELECT generate_series(1, 10) AS v");
    let many = |from: i32, to: i32| {
        format!(
            "DO $$ DECLARE r text; BEGIN
                 FOR i IN {from} .. {to} LOOP
                     SELECT v INTO r FROM public.cache_query(format('SELECT sum(v + %s)::text AS v FROM t WHERE v <> %s', i, i)) AS q(v text);
                     IF r::int <> (55 + 10 * i - CASE WHEN i <= 10 THEN i + i ELSE 0 END) THEN RAISE '% %', i, r; END IF;
                 END LOOP;
             END $$"
        )
    };
    for round in 0..10 {
        run(&mut session, &many(round * 100 + 1, round * 100 + 100));
    }
    let before = kilobytes(&mut session, "VmRSS");
    for round in 10..110 {
        run(&mut session, &many(round * 100 + 1, round * 100 + 100));
    }
    // The pages of the cache in shared memory, which the session touches, count as its own.
    let shared = 10_000 * 2;
    let more = kilobytes(&mut session, "VmRSS").saturating_sub(before);
    assert!(more < shared + (12 << 10), "{more} kB more");
    let private: u64 = text(&mut session, "SELECT sum(total_bytes)::bigint FROM pg_backend_memory_contexts")
        .parse()
        .expect("a number");
    assert!(private < 24 << 20, "{private} bytes of contexts");
}

/// Results of all forms are hits after a clean restart, and are invalidated by changes after it.
#[test]
fn results_are_hits_after_a_clean_restart() {
    let cluster = cluster(&Conf::preloaded().set("pg_cache.hot_size", "16MB"));
    let mut session = cluster.connect("postgres");
    run(
        &mut session,
        "CREATE TYPE pair AS (a int, b text); CREATE TYPE mood AS ENUM ('sad', 'happy');
         CREATE TABLE t AS SELECT i AS v, ROW(i, 'x')::pair AS p, 'happy'::mood AS m FROM generate_series(1, 3) AS i;
         CREATE FUNCTION f() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT sum(v) FROM t); END'",
    );
    let queries = [
        ("SELECT v::text FROM t ORDER BY v", "v text"),
        ("SELECT p, m FROM t ORDER BY v", "p pair, m mood"),
        ("SELECT f()::text AS v", "v text"),
        ("SELECT v FROM t WHERE false", "v int"),
        ("SELECT current_setting('app.tenant', true) AS v", "v text"),
        ("SELECT string_agg(md5(i::text), ',') AS v FROM generate_series(1, 20000) AS i", "v text"),
    ];
    run(&mut session, "SET app.tenant = 'one'");
    queries.iter().for_each(|(query, columns)| fill(&mut session, query, columns));
    let json = "SELECT cache_query_json('SELECT v FROM t ORDER BY v')::text";
    assert_eq!(text(&mut session, json), r#"[{"v": 1}, {"v": 2}, {"v": 3}]"#);
    drop(session);
    for round in 0..2 {
        cluster.stop(Stop::Fast);
        cluster.resume();
        let mut session = cluster.connect("postgres");
        run(&mut session, "SET app.tenant = 'one'");
        let wrong: Vec<_> = queries
            .iter()
            .filter_map(|(query, columns)| compare(&mut session, query, columns, Expect::Hit))
            .collect();
        assert!(wrong.is_empty(), "{round}: {wrong:#?}");
        assert_eq!(text(&mut session, json), r#"[{"v": 1}, {"v": 2}, {"v": 3}]"#);
        assert_eq!(text(&mut session, "SELECT cache_status()"), "hot");
        // Another tenant is still another one.
        run(&mut session, "SET app.tenant = 'two'");
        let (query, columns) = queries[4];
        let expect = if round == 0 { Expect::Fresh } else { Expect::Hit };
        assert_right(&mut session, query, columns, expect);
        assert_eq!(findings(&mut session), Vec::<String>::new());
    }
    let mut session = cluster.connect("postgres");
    run(&mut session, "SET app.tenant = 'one'; UPDATE t SET v = v + 1");
    for (query, columns) in &queries[..4] {
        assert_right(&mut session, query, columns, Expect::Fresh);
    }
    // A definition that changes after the restart counts, too.
    cluster.stop(Stop::Fast);
    cluster.resume();
    let mut session = cluster.connect("postgres");
    run(&mut session, "ALTER TYPE pair ADD ATTRIBUTE c int");
    let (query, columns) = queries[1];
    assert_right(&mut session, query, columns, Expect::Fresh);
    run(&mut session, "CREATE OR REPLACE FUNCTION f() RETURNS int STABLE LANGUAGE sql AS 'SELECT 42'");
    assert_right(&mut session, "SELECT f()::text AS v", "v text", Expect::Fresh);
    // A crash empties the cache.
    drop(session);
    cluster.stop(Stop::Immediate);
    cluster.resume();
    let mut session = cluster.connect("postgres");
    assert_right(&mut session, "SELECT f()::text AS v", "v text", Expect::Stored);
}

/// A result that is only in the tables of the cache is served outdated to a caller that accepts it, as one in memory is.
#[test]
fn an_outdated_result_is_served_from_a_table() {
    let cluster = cluster(&conf("64MB").set("pg_cache.hot_size", "16MB"));
    let mut session = cluster.connect("postgres");
    only_tables(&mut session);
    run(&mut session, "CREATE TABLE t AS SELECT 1 AS v");
    let mut ask = |more: &str| {
        let value =
            text(&mut session, &format!("SELECT * FROM cache_query('SELECT v FROM t'{more}) AS r(v int)"));
        (value, text(&mut session, "SELECT cache_status()"))
    };
    let accepts = ", stale_ok => '1 hour'";
    wait_until("the result to be saved", || ask(accepts) == ("1".to_owned(), "hit: table".to_owned()));
    run(&mut cluster.connect("postgres"), "UPDATE t SET v = 2");
    assert_eq!(ask(accepts), ("1".to_owned(), "stale".to_owned()));
    assert_eq!(ask("").0, "2");
}

/// Results that are only in the tables of the cache are hits, also large ones, until something that they depend on changes.
#[test]
fn results_in_the_table_tier_are_hits_until_a_change() {
    let cluster = cluster(&conf("64MB").set("pg_cache.hot_size", "16MB"));
    let mut session = cluster.connect("postgres");
    only_tables(&mut session);
    run(
        &mut session,
        "CREATE TABLE t AS SELECT i AS v, md5(i::text) AS w FROM generate_series(1, 2000) AS i; CREATE VIEW seen AS SELECT v, w FROM t;
         SET app.tenant = 'one'",
    );
    let queries = [
        ("SELECT sum(v)::text AS v FROM t", "v text"),
        ("SELECT v, w FROM seen ORDER BY v", "v int, w text"),
        ("SELECT current_setting('app.tenant') || v AS v FROM t WHERE v = 1", "v text"),
        ("SELECT v FROM t WHERE false", "v int"),
    ];
    for change in [
        "UPDATE t SET w = 'changed' WHERE v = 1",
        "ALTER TABLE t ALTER w TYPE varchar(100); ALTER TABLE t ALTER w TYPE text",
        "SELECT cache_invalidate_relation('t')",
    ] {
        for (query, columns) in queries {
            wait_until("the result to be saved", || {
                let direct = answer(&mut session, query);
                let (rows, status) = cached(&mut session, query, columns);
                assert_eq!(rows, direct, "{query}: {status}");
                status == "hit: table"
            });
        }
        let mut other = cluster.connect("postgres");
        run(&mut other, "SET app.tenant = 'two'");
        let (query, columns) = queries[2];
        assert_right(&mut other, query, columns, Expect::Fresh);
        if change.starts_with("ALTER") {
            run(&mut other, "DROP VIEW seen");
        }
        run(&mut other, change);
        if change.starts_with("ALTER") {
            run(&mut other, "CREATE VIEW seen AS SELECT v, w FROM t");
        }
        for (query, columns) in queries {
            assert_right(&mut session, query, columns, Expect::Fresh);
        }
    }
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// The extended protocol: prepared statements with parameters, named portals with a fetch size, and binary values.
#[test]
fn prepared_statements_and_portals_return_the_result() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(&mut session, "CREATE TABLE t AS SELECT i AS id, 'row ' || i AS v FROM generate_series(1, 10) AS i");
    let statement = "SELECT * FROM cache_query($1, $2::text::jsonb, tags => $3) AS r(id int, v text)";
    let prepared = session.prepare(statement).expect("it is prepared");
    let query = "SELECT id, v FROM t WHERE id > $1 ORDER BY id";
    for (from, expected) in [(3, 7), (5, 5), (3, 7), (100, 0), (5, 5)] {
        let args = format!("[{from}]");
        let tags = vec!["x"];
        let rows = session.query(&prepared, &[&query, &args, &tags]).expect("it runs");
        assert_eq!(rows.len(), expected, "{from}");
        if let Some(row) = rows.first() {
            assert_eq!(
                (row.get::<_, i32>(0), row.get::<_, &str>(1)),
                (from + 1, &*format!("row {}", from + 1))
            );
        }
        // The other session prepares it with each call.
        let rows = other.query(statement, &[&query, &args, &tags]).expect("it runs");
        assert_eq!(rows.len(), expected, "{from}");
        assert_eq!(text(&mut other, "SELECT cache_status()"), "hot");
    }
    run(&mut other, "INSERT INTO t VALUES (200, 'new')");
    let rows = session.query(&prepared, &[&query, &"[100]", &vec!["x"]]).expect("it runs");
    assert_eq!(rows.len(), 1);
    // A portal that is closed before its end stores all rows or none.
    for take in [0, 1, 4, 20] {
        run(&mut session, "SELECT cache_flush()");
        let mut transaction = session.transaction().expect("it begins");
        let portal = transaction.bind(&prepared, &[&query, &"[0]", &vec!["x"]]).expect("it binds");
        if take > 0 {
            let rows = transaction.query_portal(&portal, take).expect("it fetches");
            assert_eq!(rows.len(), usize::try_from(take).expect("small").min(11));
            let more = transaction.query_portal(&portal, 3).expect("it fetches");
            assert_eq!(more.len(), (11 - rows.len()).min(3), "{take}");
        }
        transaction.commit().expect("it commits");
        let direct = other.query("SELECT id, v FROM t ORDER BY id", &[]).expect("it reads").len();
        for session in [&mut session, &mut other] {
            let rows = session.query(statement, &[&query, &"[0]", &vec!["x"]]).expect("it runs");
            assert_eq!(rows.len(), direct, "{take}");
        }
    }
    // Two portals at once, of a result that changes between them.
    let mut transaction = session.transaction().expect("it begins");
    let one = transaction.bind(&prepared, &[&query, &"[0]", &vec!["x"]]).expect("it binds");
    assert_eq!(transaction.query_portal(&one, 2).expect("it fetches").len(), 2);
    run(&mut other, "DELETE FROM t WHERE id > 5");
    let two = transaction.bind(&prepared, &[&query, &"[0]", &vec!["x"]]).expect("it binds");
    assert_eq!(transaction.query_portal(&two, 0).expect("it fetches").len(), 5);
    assert_eq!(transaction.query_portal(&one, 0).expect("it fetches").len(), 9);
    transaction.commit().expect("it commits");
    // The result of a prepared statement whose types have changed.
    run(&mut other, "ALTER TABLE t ALTER id TYPE bigint");
    let error =
        session.query(&prepared, &[&query, &"[0]", &vec!["x"]]).expect_err("the column list is wrong");
    assert_eq!(error.code(), Some(&SqlState::DATATYPE_MISMATCH));
}

/// Hits and fills in transactions of all kinds. A *fill* runs the query and stores its result.
#[test]
fn every_kind_of_transaction_gets_what_the_query_returns() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(&mut session, "CREATE TABLE t AS SELECT 1 AS v");
    let query = "SELECT v::text FROM t";
    let mut wrong = Vec::new();
    for (begin, at_first, then) in [
        ("BEGIN", Expect::Stored, Expect::Hit),
        ("BEGIN READ ONLY", Expect::Stored, Expect::Hit),
        ("BEGIN ISOLATION LEVEL READ UNCOMMITTED", Expect::Stored, Expect::Hit),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ", Expect::Refused("bypass: "), Expect::Refused("bypass: ")),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", Expect::Fresh, Expect::Fresh),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", Expect::Fresh, Expect::Fresh),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE", Expect::Fresh, Expect::Fresh),
    ] {
        for end in ["COMMIT", "ROLLBACK"] {
            run(&mut session, "SELECT cache_flush()");
            run(&mut session, begin);
            for expect in [at_first, then] {
                let fault = compare(&mut session, query, "v text", expect);
                wrong.extend(fault.map(|fault| format!("{begin}: {fault}")));
            }
            run(&mut other, "UPDATE t SET v = v + 1");
            let fault = compare(&mut other, query, "v text", Expect::Fresh);
            wrong.extend(fault.map(|fault| format!("the other, {begin}: {fault}")));
            for _ in 0..2 {
                let fault = compare(&mut session, query, "v text", Expect::Anything);
                wrong.extend(fault.map(|fault| format!("after the change, {begin}: {fault}")));
            }
            run(&mut session, end);
            let fault = compare(&mut session, query, "v text", Expect::Hit);
            wrong.extend(fault.map(|fault| format!("{begin} {end}: {fault}")));
        }
    }
    // A rolled back transaction or savepoint has computed the result that others see, so it may stay.
    run(&mut session, "SELECT cache_flush()");
    run(&mut session, "BEGIN; SAVEPOINT s");
    wrong.extend(compare(&mut session, query, "v text", Expect::Stored));
    run(&mut session, "ROLLBACK TO s");
    wrong.extend(compare(&mut session, query, "v text", Expect::Hit));
    run(&mut session, "ROLLBACK");
    // A hit assigns no transaction ID.
    run(&mut session, "BEGIN");
    wrong.extend(compare(&mut session, query, "v text", Expect::Hit));
    let id = text(&mut session, "SELECT coalesce(pg_current_xact_id_if_assigned()::text, 'none')");
    run(&mut session, "COMMIT");
    run(&mut session, "SELECT cache_flush()");
    run(&mut session, "BEGIN");
    wrong.extend(compare(&mut session, query, "v text", Expect::Stored));
    let id_of_fill = text(&mut session, "SELECT coalesce(pg_current_xact_id_if_assigned()::text, 'none')");
    run(&mut session, "COMMIT");
    assert_eq!((id.as_str(), id_of_fill.as_str()), ("none", "none"));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A query that ends half way, by an error, a cancel or a terminated session, stores nothing and holds nothing.
#[test]
fn a_query_that_ends_half_way_leaves_nothing() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE TABLE t AS SELECT generate_series(1, 100000) AS v;
         CREATE FUNCTION slow(v int) RETURNS int STABLE LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN v; END'",
    );
    // An error in the last row.
    let query = "SELECT (100 / (100000 - v))::text AS v FROM t";
    for _ in 0..2 {
        let (rows, _) = cached(&mut session, query, "v text");
        assert_eq!(rows, Err("22012: division by zero".to_owned()));
    }
    run(&mut session, "DELETE FROM t WHERE v = 100000 OR v > 1000");
    fill(&mut session, query, "v text");
    // A cancelled query, by the timeout and by another session, and a terminated session.
    run(&mut other, "SELECT pg_advisory_lock(1)");
    let query = "SELECT sum(slow(v))::text AS v FROM t";
    run(&mut session, "SET statement_timeout = '1s'");
    let (rows, _) = cached(&mut session, query, "v text");
    assert_eq!(rows, Err("57014: canceling statement due to statement timeout".to_owned()));
    run(&mut session, "RESET statement_timeout");
    for stop in ["pg_cancel_backend", "pg_terminate_backend"] {
        let mut victim = database.connect();
        let pid = text(&mut victim, "SELECT pg_backend_pid()");
        let statement = call(query, "v text", "");
        let running = std::thread::spawn(move || victim.simple_query(&statement).is_err());
        wait_until("the query to wait", || {
            let waits = format!("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = {pid}");
            text(&mut other, &waits) == "1"
        });
        run(&mut other, &format!("SELECT {stop}({pid})"));
        assert!(running.join().expect("it ends"), "{stop}");
    }
    run(&mut other, "SELECT pg_advisory_unlock(1)");
    assert_right(&mut other, query, "v text", Expect::Stored);
    assert_right(&mut session, query, "v text", Expect::Hit);
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// The options of the space, and the settings that switch the cache off, decide what is stored. Fails if a call gets another status
/// or other rows than those of the query.
#[test]
fn a_space_decides_what_is_stored() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE TABLE t AS SELECT generate_series(1, 100) AS v;
         SELECT cache_create_space('small', max_result_size => 100), cache_create_space('slow', min_cost => '1 min'),
                cache_create_space('other'), cache_create_space('off', enabled => false)",
    );
    let query = "SELECT v::text FROM t ORDER BY v";
    let mut wrong = Vec::new();
    for (options, statuses) in [
        (
            "space => 'small'",
            ["refused: larger than max_result_size", "refused: larger than max_result_size"],
        ),
        (
            "space => 'slow'",
            ["refused: computed in less than min_cost", "refused: computed in less than min_cost"],
        ),
        ("space => 'other'", ["miss: not there", "hot"]),
        ("space => 'off'", ["bypass: the space is not enabled", "bypass: the space is not enabled"]),
        ("space => 'other', ttl => '0'", ["", ""]),
        ("", ["miss: not there", "hot"]),
    ] {
        for expected in statuses {
            let direct = answer(&mut session, query);
            let (rows, status) = cached_with(&mut session, query, "v text", options);
            if rows != direct || !status.starts_with(expected) {
                wrong.push(format!(
                    "{options}: {status:?} instead of {expected:?}, {} rows",
                    rows.map_or(0, |rows| rows.len())
                ));
            }
        }
    }
    for (set, status) in [
        ("SET pg_cache.bypass = on", "bypass: pg_cache.bypass is on"),
        ("SET pg_cache.bypass = off; SET pg_cache.enabled = off", "bypass: pg_cache.enabled is off"),
        ("RESET pg_cache.bypass; RESET pg_cache.enabled", "hot"),
    ] {
        run(&mut session, set);
        let direct = answer(&mut session, query);
        let (rows, said) = cached(&mut session, query, "v text");
        if rows != direct || said != status {
            wrong.push(format!("{set}: {said:?} instead of {status:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
