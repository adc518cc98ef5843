//! Queries whose results must not be stored, or only for a short time, because a later change could not be noticed. The query still
//! runs each time, and the status says why its result is not stored. A *fence* is a word in shared memory that says when something
//! that values depend on last changed (`docs/invalidation.md`).

use super::calls::{Expect, answer, assert_right, cached, cached_with, compare, fill, run, text};
use crate::memory::findings;
use pg_cache_testbed::Database;
use postgres::Client;

/// Calls the cached query twice. Each call must succeed, and its status must begin with `why`, so the query has run. Returns what
/// is wrong, or None. The rows are not compared, because the query may return other rows each time.
fn assert_refused(session: &mut Client, query: &str, why: &str) -> Option<String> {
    for _ in 0..2 {
        let (rows, status) = cached(session, query, "v text");
        if rows.is_err() || !status.starts_with(why) {
            return Some(format!("{query}: {rows:?}, status {status:?} instead of {why:?}"));
        }
    }
    None
}

/// The status names the volatile function, wherever the query calls it.
#[test]
fn volatile_functions_are_refused_by_name() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE TABLE t AS SELECT generate_series(1, 3) AS v; CREATE VIEW dice AS SELECT random()::text AS v;
         CREATE FUNCTION careless() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT max(v)::text FROM t); END';
         CREATE FUNCTION careful() RETURNS text STABLE LANGUAGE plpgsql AS 'BEGIN RETURN careless(); END';
         CREATE FUNCTION hasty() RETURNS text STABLE LANGUAGE sql AS 'SELECT careless()'",
    );
    let mut wrong = Vec::new();
    for (query, function) in [
        ("SELECT careless() AS v", "function careless()"),
        ("SELECT random()::text AS v", "function random()"),
        ("SELECT v FROM dice", "function random()"),
        ("SELECT v::text FROM t ORDER BY random()", "function random()"),
        ("SELECT v::text FROM t WHERE EXISTS (SELECT random())", "function random()"),
        ("WITH c AS (SELECT random() AS r) SELECT v::text FROM t, c WHERE r >= 0", "function random()"),
        ("SELECT clock_timestamp()::text AS v", "function clock_timestamp()"),
        ("SELECT timeofday() AS v", "function timeofday()"),
        ("SELECT gen_random_uuid()::text AS v", "function gen_random_uuid()"),
        ("SELECT set_config('app.x', '1', false) AS v", "function set_config(text,text,boolean)"),
        ("SELECT pg_sleep(0)::text AS v", "function pg_sleep(double precision)"),
        ("SELECT pg_relation_size('t')::text AS v", "function pg_relation_size(regclass)"),
        ("SELECT pg_advisory_lock_shared(7)::text AS v", "function pg_advisory_lock_shared(bigint)"),
    ] {
        let why = format!("refused: {function} is volatile");
        wrong.extend(assert_refused(&mut session, query, &why));
    }
    // With `depends`, the caller says when the result changes.
    let (rows, status) = cached_with(&mut session, "SELECT careless() AS v", "v text", "depends => '{t}'");
    assert_eq!((rows, status.as_str()), (Ok(vec![vec![Some("3".to_owned())]]), "miss: not there"));
    let (_, status) = cached_with(&mut session, "SELECT careless() AS v", "v text", "depends => '{t}'");
    assert_eq!(status, "hot");
    run(&mut session, "INSERT INTO t VALUES (4)");
    let (rows, _) = cached_with(&mut session, "SELECT careless() AS v", "v text", "depends => '{t}'");
    assert_eq!(rows, Ok(vec![vec![Some("4".to_owned())]]));
    // The declaration of a function counts, not its calls. Its reads are dependencies all the same.
    for query in ["SELECT careful() AS v", "SELECT hasty() AS v"] {
        wrong.extend(compare(&mut session, query, "v text", Expect::Anything));
        run(&mut session, "INSERT INTO t SELECT max(v) + 1 FROM t");
        wrong.extend(compare(&mut session, query, "v text", Expect::Fresh));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// These functions are declared `STABLE`, and report the state of the server, of the session or of the transaction.
#[test]
fn functions_that_read_the_state_of_the_server_are_refused_by_name() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE TABLE t AS SELECT 1 AS v; CREATE VIEW backend AS SELECT pg_backend_pid()::text AS v;
         CREATE FUNCTION pid() RETURNS text STABLE LANGUAGE plpgsql AS 'BEGIN RETURN pg_backend_pid(); END'",
    );
    let mut wrong = Vec::new();
    for (query, function) in [
        ("SELECT pg_backend_pid()::text AS v", "pg_backend_pid()"),
        ("SELECT v FROM backend", "pg_backend_pid()"),
        ("SELECT pid() AS v", "pg_backend_pid()"),
        ("SELECT v::text FROM t WHERE pg_backend_pid() > 0", "pg_backend_pid()"),
        ("SELECT txid_current_if_assigned()::text AS v", "txid_current_if_assigned()"),
        ("SELECT pg_current_xact_id_if_assigned()::text AS v", "pg_current_xact_id_if_assigned()"),
        ("SELECT pg_current_snapshot()::text AS v", "pg_current_snapshot()"),
        ("SELECT txid_current_snapshot()::text AS v", "txid_current_snapshot()"),
        ("SELECT coalesce(inet_client_addr()::text, '') AS v", "inet_client_addr()"),
        ("SELECT pg_postmaster_start_time()::text AS v", "pg_postmaster_start_time()"),
        ("SELECT pg_conf_load_time()::text AS v", "pg_conf_load_time()"),
        ("SELECT pg_my_temp_schema()::text AS v", "pg_my_temp_schema()"),
        ("SELECT pg_trigger_depth()::text AS v", "pg_trigger_depth()"),
        ("SELECT pg_stat_get_tuples_inserted('t'::regclass)::text AS v", "pg_stat_get_tuples_inserted(oid)"),
        ("SELECT count(*)::text AS v FROM pg_cursor()", "pg_cursor()"),
        ("SELECT count(*)::text AS v FROM pg_prepared_statement()", "pg_prepared_statement()"),
    ] {
        let why = format!("refused: function {function} reads the state of the server");
        wrong.extend(assert_refused(&mut session, query, &why));
    }
    // These functions assign a transaction ID, which counts as a write.
    for query in ["SELECT txid_current()::text AS v", "SELECT pg_current_xact_id()::text AS v"] {
        wrong.extend(assert_refused(&mut session, query, "refused: "));
        let first = answer(&mut session, &super::calls::call(query, "v text", ""));
        let second = answer(&mut session, &super::calls::call(query, "v text", ""));
        assert_ne!(first, second, "{query}");
    }
    // Views over such functions.
    for view in
        ["pg_stat_activity", "pg_locks", "pg_cursors", "pg_prepared_statements", "pg_stat_user_tables"]
    {
        let query = format!("SELECT count(*)::text AS v FROM {view}");
        wrong.extend(assert_refused(&mut session, &query, "refused: "));
    }
    // These read only what a result varies on, so they are either stored or not, and right in any case.
    for query in [
        "SELECT current_user::text AS v",
        "SELECT session_user::text AS v",
        "SELECT current_schema()::text AS v",
        "SELECT current_schemas(true)::text AS v",
        "SELECT current_database()::text AS v",
        "SELECT version() AS v",
        "SELECT current_setting('TimeZone') AS v",
        "SELECT setting AS v FROM pg_settings WHERE name = 'search_path'",
        "SELECT current_setting('app.missing', true) AS v",
        "SELECT current_query() AS v",
    ] {
        for setting in
            ["", "SET search_path = pg_catalog, public; SET TimeZone = 'Asia/Tokyo'; SET app.missing = 'x'"]
        {
            run(&mut session, setting);
            for _ in 0..2 {
                // The text of the query of the session is another one with the call around it.
                if query.contains("current_query") {
                    wrong.extend(assert_refused(&mut session, query, "refused: "));
                } else {
                    wrong.extend(compare(&mut session, query, "v text", Expect::Anything));
                }
            }
        }
        run(&mut session, "RESET search_path; RESET TimeZone; RESET app.missing");
    }
    assert!(wrong.is_empty(), "{} cases: {wrong:#?}", wrong.len());
}

/// Statements that write run each time, exactly once for each call, and what they return is not stored.
#[test]
fn statements_that_write_or_lock_run_each_time() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, v text); CREATE TABLE log (v text); CREATE SEQUENCE s;
         INSERT INTO t (v) VALUES ('first'); CREATE VIEW locked AS SELECT v FROM t FOR UPDATE;
         CREATE FUNCTION logs() RETURNS text LANGUAGE sql AS $$ INSERT INTO log VALUES ('logged') RETURNING v $$",
    );
    let mut wrong = Vec::new();
    // Each statement, and a query whose number must grow by one with each run (that of the sequence is not checked).
    for (query, changes) in [
        ("INSERT INTO log VALUES ('a') RETURNING v", "SELECT count(*) FROM log"),
        ("UPDATE t SET v = v || '+' RETURNING v", "SELECT max(length(v)) FROM t"),
        ("WITH w AS (INSERT INTO log VALUES ('b') RETURNING v) SELECT v FROM w", "SELECT count(*) FROM log"),
        ("WITH w AS (UPDATE t SET v = v || '+') SELECT v FROM t", "SELECT max(length(v)) FROM t"),
        ("SELECT logs() AS v", "SELECT count(*) FROM log"),
        (
            "DELETE FROM log WHERE ctid = (SELECT min(ctid) FROM log) RETURNING v",
            "SELECT 100 - count(*) FROM log",
        ),
        ("SELECT nextval('s')::text AS v", "SELECT last_value + is_called::int FROM s"),
    ] {
        let mut before: i64 = text(&mut session, changes).parse().expect("a number");
        for _ in 0..2 {
            let (rows, status) = cached(&mut session, query, "v text");
            let after: i64 = text(&mut session, changes).parse().expect("a number");
            let count = rows.as_ref().map_or(0, Vec::len);
            if count != 1
                || !status.starts_with("refused: ")
                || after != before + 1 && !query.contains("nextval")
            {
                wrong.push(format!("{query}: {rows:?}, {status:?}, {before} and {after}"));
            }
            before = after;
        }
        // A rollback takes it back.
        run(&mut session, "BEGIN");
        let (_, _) = cached(&mut session, query, "v text");
        run(&mut session, "ROLLBACK");
        let after: i64 = text(&mut session, changes).parse().expect("a number");
        if after != before && !query.contains("nextval") {
            wrong.push(format!("{query}: {before} and {after} after a rollback"));
        }
    }
    // Locks are taken, and last until the end of the transaction.
    for query in [
        "SELECT v FROM t FOR UPDATE",
        "SELECT v FROM t FOR NO KEY UPDATE",
        "SELECT v FROM (SELECT v FROM t FOR UPDATE) AS s",
        "SELECT v FROM locked",
        "WITH c AS (SELECT v FROM t FOR UPDATE) SELECT v FROM c",
    ] {
        run(&mut session, "BEGIN");
        wrong.extend(assert_refused(&mut session, query, "refused: "));
        let skipped = answer(&mut other, "SELECT v FROM t FOR UPDATE SKIP LOCKED");
        if skipped != Ok(Vec::new()) {
            wrong.push(format!("{query}: the row is not locked: {skipped:?}"));
        }
        run(&mut session, "COMMIT");
        wrong.extend(compare(&mut session, query, "v text", Expect::Refused("refused: ")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// Reads that no fence covers: temporary tables, catalogs, sequences, samples, large objects and the cache itself.
#[test]
fn reads_without_a_fence_are_refused_by_name() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE TABLE t AS SELECT generate_series(1, 100) AS v; CREATE SEQUENCE s; SELECT nextval('s'); ANALYZE t;
         CREATE TEMP TABLE mine AS SELECT 1 AS v; CREATE TEMP VIEW my_view AS SELECT v FROM t;
         CREATE FUNCTION reads_mine() RETURNS text STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT v FROM mine); END';
         CREATE FUNCTION tables() RETURNS text STABLE LANGUAGE plpgsql AS
             'BEGIN RETURN (SELECT count(*) FROM pg_class WHERE relkind = ''r''); END';
         SELECT lo_from_bytea(4711, 'large')",
    );
    let mut wrong = Vec::new();
    // A session without temporary tables.
    let why = "refused: changes of table pg_class cannot be followed";
    wrong.extend(assert_refused(&mut database.connect(), "SELECT tables() AS v", why));
    for (query, why) in [
        ("SELECT v::text FROM mine", "refused: table mine is temporary"),
        ("SELECT (SELECT max(v) FROM mine)::text AS v", "refused: table mine is temporary"),
        ("SELECT reads_mine() AS v", "refused: table mine is temporary"),
        ("SELECT count(*)::text AS v FROM my_view", "refused: view my_view is temporary"),
        ("SELECT count(*)::text AS v FROM pg_class", "refused: changes of table pg_class cannot be followed"),
        ("SELECT count(*)::text AS v FROM pg_tables", "refused: "),
        ("SELECT count(*)::text AS v FROM information_schema.columns", "refused: "),
        ("SELECT last_value::text AS v FROM s", "refused: changes of sequence s cannot be followed"),
        ("SELECT nextval('s')::text AS v", "refused: "),
        ("SELECT currval('s')::text AS v", "refused: function currval(regclass) is volatile"),
        ("SELECT lastval()::text AS v", "refused: function lastval() is volatile"),
        (
            "SELECT pg_sequence_last_value('s')::text AS v",
            "refused: function pg_sequence_last_value(regclass) is volatile",
        ),
        (
            "SELECT count(*)::text AS v FROM t TABLESAMPLE BERNOULLI (50)",
            "refused: the query uses TABLESAMPLE",
        ),
        (
            "SELECT (SELECT count(*) FROM t TABLESAMPLE SYSTEM (50))::text AS v",
            "refused: the query uses TABLESAMPLE",
        ),
        ("SELECT length(lo_get(4711))::text AS v", "refused: "),
        ("SELECT to_regclass('t')::text AS v", "refused: "),
        ("SELECT count(*)::text AS v FROM pgcache.spaces", "refused: "),
    ] {
        wrong.extend(assert_refused(&mut session, query, why));
    }
    // The caller may declare the dependencies of all but temporary tables and samples.
    let by = "depends => '{t}', tags => '{catalog}'";
    let query = "SELECT count(*)::text AS v FROM pg_class WHERE relname = 'made'";
    // Each count is the one before the command. After `CREATE TABLE`, the call may return the stored count or the new one, because
    // the result depends on `t` and on the tag only.
    for (expected, command) in [
        ("0", "CREATE TABLE made (id int)"),
        ("0", "SELECT cache_invalidate_tag('catalog')"),
        ("1", "SELECT"),
    ] {
        let (rows, _) = cached_with(&mut session, query, "v text", by);
        if rows != Ok(vec![vec![Some(expected.to_owned())]])
            && command != "SELECT cache_invalidate_tag('catalog')"
        {
            wrong.push(format!("{command}: {rows:?}"));
        }
        run(&mut session, command);
    }
    for query in ["SELECT v::text FROM mine", "SELECT count(*)::text AS v FROM t TABLESAMPLE BERNOULLI (50)"]
    {
        let (rows, status) = cached_with(&mut session, query, "v text", "depends => '{}'");
        if rows.is_err() || !status.starts_with("refused: ") {
            wrong.push(format!("{query} with depends: {rows:?} {status}"));
        }
    }
    let ask =
        "SELECT value FROM cache_explain('SELECT last_value::text AS v FROM s') WHERE property = 'cacheable'";
    if text(&mut session, ask) != "no: changes of sequence s cannot be followed" {
        wrong.push(format!("cache_explain of a sequence: {}", text(&mut session, ask)));
    }
    assert!(wrong.is_empty(), "{} cases: {wrong:#?}", wrong.len());
}

/// Other servers and files change without a commit here. Fails if a result of a foreign table is stored although the caller has not
/// passed `depends`.
#[test]
fn foreign_tables_are_refused_without_depends() {
    let database = Database::create();
    let server = database.cluster().server();
    if server.lacks("file_fdw") || server.lacks("postgres_fdw") {
        return;
    }
    let mut session = database.connect();
    let port = text(&mut session, "SHOW port");
    let socket = text(&mut session, "SELECT split_part(current_setting('unix_socket_directories'), ', ', 1)");
    let name = database.name();
    run(
        &mut session,
        &format!(
            "CREATE TABLE t AS SELECT 1 AS v; CREATE TABLE p (id int, v int) PARTITION BY RANGE (id);
             CREATE EXTENSION file_fdw; CREATE EXTENSION postgres_fdw;
             CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
             CREATE FOREIGN TABLE lines (v text) SERVER files OPTIONS (program 'date +%N', format 'text');
             CREATE SERVER there FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{socket}', port '{port}', dbname '{name}');
             CREATE USER MAPPING FOR CURRENT_USER SERVER there OPTIONS (user 'postgres');
             CREATE FOREIGN TABLE far (v int) SERVER there OPTIONS (table_name 't');
             CREATE TABLE source AS SELECT 11 AS id, 1 AS v;
             CREATE FOREIGN TABLE p_far PARTITION OF p FOR VALUES FROM (10) TO (20) SERVER there OPTIONS (table_name 'source');
             CREATE TABLE p_near PARTITION OF p FOR VALUES FROM (0) TO (10)"
        ),
    );
    let mut wrong = Vec::new();
    for (query, why) in [
        ("SELECT v FROM lines", "refused: changes of foreign table lines cannot be followed"),
        ("SELECT v::text FROM far", "refused: changes of foreign table far cannot be followed"),
        (
            "SELECT (SELECT sum(v) FROM far)::text AS v",
            "refused: changes of foreign table far cannot be followed",
        ),
        ("SELECT sum(v)::text AS v FROM p", "refused: changes of foreign table p_far cannot be followed"),
        (
            "SELECT t.v::text FROM t JOIN far ON far.v = t.v",
            "refused: changes of foreign table far cannot be followed",
        ),
    ] {
        wrong.extend(assert_refused(&mut session, query, why));
    }
    run(&mut session, "UPDATE t SET v = 2; UPDATE source SET v = 2");
    for query in ["SELECT v::text FROM far", "SELECT sum(v)::text AS v FROM p"] {
        wrong.extend(compare(&mut session, query, "v text", Expect::Refused("refused: ")));
    }
    let (_, status) = cached_with(&mut session, "SELECT v::text FROM far", "v text", "depends => '{t}'");
    assert_eq!(status, "miss: not there");
    let (_, status) = cached_with(&mut session, "SELECT v::text FROM far", "v text", "depends => '{t}'");
    assert_eq!(status, "hot");
    // A scan that reads only the near partition may be stored.
    assert_right(&mut session, "SELECT count(*)::text AS v FROM p_near", "v text", Expect::Stored);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A cached query that calls the cache by any function must not keep what the inner call returned once that is invalid.
#[test]
fn a_query_that_calls_the_cache_is_refused_or_right() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE TABLE t AS SELECT 1 AS v; CREATE TABLE u AS SELECT 1 AS v;
         CREATE VIEW through AS SELECT v FROM cache_query('SELECT v::text FROM t') AS r(v text);
         CREATE FUNCTION calls() RETURNS text LANGUAGE plpgsql AS
             $$ BEGIN RETURN (SELECT v FROM cache_query('SELECT v::text FROM t') AS r(v text)); END $$;
         CREATE FUNCTION claims() RETURNS text STABLE LANGUAGE plpgsql AS
             $$ BEGIN RETURN (SELECT v FROM cache_query('SELECT v::text FROM t') AS r(v text)); END $$",
    );
    let mut wrong = Vec::new();
    for query in [
        "SELECT v FROM cache_query('SELECT v::text FROM t') AS r(v text)",
        "SELECT u.v || r.v AS v FROM u, cache_query('SELECT v::text FROM t') AS r(v text)",
        "SELECT v FROM through",
        "SELECT calls() AS v",
        "SELECT claims() AS v",
        "SELECT (cache_fetch('inner', 'SELECT v FROM t'))::text AS v",
        "SELECT cache_query_json('SELECT v::text FROM t')::text AS v",
        "SELECT v FROM cache_query('SELECT v FROM cache_query(''SELECT v::text FROM t'') AS r(v text)') AS r(v text)",
        "SELECT coalesce(cache_get_text('set'), 'nothing') AS v",
    ] {
        for change in [
            "SELECT",
            "UPDATE t SET v = v + 1",
            "SELECT cache_set_text('set', 'v' || (SELECT v FROM t))",
            "UPDATE u SET v = v + 1",
            "SELECT cache_delete('set')",
            "SELECT cache_flush()",
        ] {
            run(&mut other, change);
            for session in [&mut session, &mut other] {
                for _ in 0..2 {
                    let fault = compare(session, query, "v text", Expect::Anything);
                    wrong.extend(fault.map(|fault| format!("{change}: {fault}")));
                }
            }
        }
    }
    // The inner result is a hit of its own.
    fill(&mut other, "SELECT v::text FROM t", "v text");
    assert!(wrong.is_empty(), "{} cases: {wrong:#?}", wrong.len());
}

/// A transaction that has written what a query reads gets its own rows, and stores nothing for others.
#[test]
fn uncommitted_rows_are_returned_and_not_stored() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE TABLE t AS SELECT 1 AS v; CREATE TABLE u AS SELECT 1 AS v; CREATE VIEW seen AS SELECT v FROM t;
         CREATE FUNCTION f() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT v FROM t); END'",
    );
    let queries = ["SELECT v::text FROM t", "SELECT v::text FROM seen", "SELECT f()::text AS v"];
    for end in ["ROLLBACK", "COMMIT"] {
        for query in queries {
            fill(&mut session, query, "v text");
            assert_right(&mut other, query, "v text", Expect::Hit);
        }
        fill(&mut session, "SELECT v::text FROM u", "v text");
        run(&mut session, "BEGIN; UPDATE t SET v = 99");
        for query in queries {
            assert_right(&mut session, query, "v text", Expect::Fresh);
            assert_right(&mut other, query, "v text", Expect::Hit);
        }
        assert_right(&mut session, "SELECT v::text FROM u", "v text", Expect::Hit);
        run(&mut session, "SAVEPOINT s; CREATE TABLE new AS SELECT 5 AS v");
        assert_right(&mut session, "SELECT v::text FROM new", "v text", Expect::Fresh);
        run(&mut session, "ROLLBACK TO s");
        assert_right(&mut other, "SELECT v::text FROM new", "v text", Expect::Anything);
        run(&mut session, end);
        for query in queries {
            let expect = if end == "COMMIT" { Expect::Fresh } else { Expect::Hit };
            assert_right(&mut other, query, "v text", expect);
            assert_right(&mut session, query, "v text", Expect::Hit);
        }
    }
}
