//! Tests of what pg_cache finds out about a query: from its tree, and by observing what it reads and calls while it runs
//! (`src/pg/analysis.rs`, `src/pg/observer.rs`). A *fill* is a query whose result may be stored. `src/pg/probe.rs` has the
//! functions of debug builds that the tests call, and the list of all *traits*: what a result depends on besides rows, and what the
//! query does besides reading.

use pg_cache_testbed::Database;
use postgres::Client;

/// Creates the functions of a debug build that tell what pg_cache has found out about a query.
fn with_seen_of(session: &mut Client) {
    session
        .batch_execute(
            "CREATE FUNCTION seen_of(cstring, oid DEFAULT 0) RETURNS text STRICT LANGUAGE c
                 AS '$libdir/pg_cache', 'seen_of_wrapper';
             CREATE FUNCTION is_known_built_in(oid) RETURNS bool STRICT LANGUAGE c
                 AS '$libdir/pg_cache', 'is_known_built_in_wrapper'",
        )
        .expect("functions of a debug build");
}

/// The traits of a query, the relations whose rows its result depends on, and the relations that it names.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// The traits as text, such as `reads_settings` and `reads_clock`, with `; ` between them, in the order of `src/pg/probe.rs`. A
    /// trait with `=` names the first function for which the query has it.
    traits: String,
    /// The relations whose rows the result depends on, sorted by name.
    rows: Vec<String>,
    /// The relations that the query names, sorted by name.
    named: Vec<String>,
}

/// Runs a query as a fill does. `kind` is the type of its parameter, or empty.
fn seen(session: &mut Client, query: &str, kind: &str) -> Seen {
    let call = "SELECT seen_of($1::text::cstring, CASE WHEN $2 = '' THEN 0 ELSE $2::regtype END)";
    let all: String =
        session.query_one(call, &[&query, &kind]).unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0);
    let mut lines = all.split('\n').map(str::to_owned);
    let mut next = || lines.next().expect("three lines");
    let (traits, rows, named) = (next(), next(), next());
    let mut names = |oids: String| {
        let names = "SELECT coalesce(array_agg(name ORDER BY name), '{}')
                     FROM (SELECT o::oid::regclass::text FROM unnest(string_to_array($1, ' ')) AS o WHERE o <> '') AS _(name)";
        session.query_one(names, &[&oids]).expect("names").get(0)
    };
    Seen { traits, rows: names(rows), named: names(named) }
}

/// Asserts that queries without parameters have the expected traits. The table has each query with its traits.
fn assert_traits(session: &mut Client, table: &[(&str, &str)]) {
    let mut wrong = String::new();
    for (query, expected) in table {
        let found = seen(session, query, "").traits;
        if found != *expected {
            wrong += &format!("{query}\n  expected: {expected}\n  found:    {found}\n");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// A new version of PostgreSQL may bring stable functions, which must then be put into the right list of `src/pg/built_in.rs`.
#[test]
fn every_stable_built_in_function_is_in_a_list() {
    let database = Database::create();
    let mut session = database.connect();
    with_seen_of(&mut session);
    let unknown: Vec<String> = session
        .query_one(
            "SELECT coalesce(array_agg(oid || ' ' || oid::regprocedure), '{}') FROM pg_proc
             WHERE oid < 12000 AND provolatile = 's' AND NOT is_known_built_in(oid)
                 AND proname !~ '(sel|typanalyze|_validator)$'",
            &[],
        )
        .expect("pg_proc")
        .get(0);
    assert_eq!(unknown, Vec::<String>::new());
}

/// The tree of a query and its run tell its traits: what its result depends on besides rows, such as settings or the clock, and
/// what it does besides reading.
#[test]
fn the_traits_of_a_query_are_seen() {
    let database = Database::create();
    let mut session = database.connect();
    with_seen_of(&mut session);
    session
        .batch_execute(
            r#"
            CREATE TABLE t (v int, day date, at timestamptz, doc jsonb, name text, c regclass);
            INSERT INTO t VALUES (1, '2026-01-01', '2026-01-01', '{"b": "2026-01-01"}', '2026-01-01', 't');
            CREATE VIEW v_xmin AS SELECT xmin AS x, v FROM t;
            CREATE VIEW v_now AS SELECT v, now() AS n FROM t;
            CREATE FUNCTION f_sql(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1';
            CREATE FUNCTION f_stable(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT max(v) + $1 FROM t';
            CREATE FUNCTION f_pl(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 + 1; END';
            CREATE FUNCTION f_pid() RETURNS int STABLE LANGUAGE sql AS 'SELECT max(pg_backend_pid()) FROM t';
            CREATE FUNCTION f_setting() RETURNS text STABLE LANGUAGE sql AS 'SELECT max(current_setting(''work_mem'')) FROM t';
            CREATE FUNCTION f_lock() RETURNS int LANGUAGE plpgsql AS
                'DECLARE found int; BEGIN SELECT v INTO found FROM t FOR UPDATE; RETURN found; END';
            CREATE FUNCTION f_write() RETURNS int LANGUAGE plpgsql AS 'BEGIN UPDATE t SET v = v; RETURN 1; END';
            CREATE FUNCTION f_xmin() RETURNS text STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT xmin::text FROM t); END';
            CREATE FUNCTION f_xmax() RETURNS bigint STABLE LANGUAGE plpgsql AS
                $$BEGIN RETURN (SELECT count(*) FROM t WHERE xmax::text = '1'); END$$;
            CREATE FUNCTION same(int, int) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 = $2; END';
            CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = same);
            CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
            CREATE DOMAIN positive AS int CHECK (f_pl(VALUE) > 0);
            CREATE DOMAIN object AS regclass;
            CREATE TYPE pair AS (a int, b date);
            CREATE TYPE place AS (a int, b regclass);
            CREATE FUNCTION f_cast(pair) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
            CREATE CAST (pair AS int) WITH FUNCTION f_cast(pair);
            CREATE FUNCTION f_c(oid) RETURNS bool IMMUTABLE LANGUAGE c AS '$libdir/pg_cache', 'is_known_built_in_wrapper';
            CREATE FUNCTION f_c_stable(oid) RETURNS bool STABLE LANGUAGE c AS '$libdir/pg_cache', 'is_known_built_in_wrapper';
            CREATE VIEW v_pl AS SELECT f_pl(v) AS v FROM t;
            CREATE FUNCTION c_call_handler() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
            CREATE LANGUAGE other HANDLER c_call_handler;
            CREATE FUNCTION f_other(int) RETURNS int IMMUTABLE LANGUAGE other AS 'BEGIN RETURN $1 + 1; END';
            CREATE FUNCTION f_inner(int) RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN f_other($1); END';
            CREATE TABLE secured (v int);
            ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
            ALTER TABLE secured FORCE ROW LEVEL SECURITY;
            CREATE POLICY p ON secured USING (f_sql(v) > 0);
            CREATE ROLE seen_reader;
            "#,
        )
        .expect("objects");
    let pl = "reads_settings; user_function";
    let stable_pl = "reads_settings; reads_clock; user_function";
    assert_traits(
        &mut session,
        &[
            // Nothing.
            ("SELECT v + 1 FROM t WHERE name LIKE 'a%' ORDER BY v", ""),
            ("SELECT count(*), sum(v), jsonb_agg(doc), string_agg(name, ',') FROM t GROUP BY v", ""),
            ("SELECT ctid, tableoid FROM t", ""),
            ("SELECT '2026-01-01'::date, '{1}'::int[], 'a'::text", ""),
            ("SELECT name::int FROM t WHERE false", ""),
            ("SELECT current_user, session_user, current_catalog", ""),
            ("SELECT row_number() OVER (ORDER BY v RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING) FROM t", ""),
            ("SELECT f_c(1)", "reads_settings"),
            ("SELECT f_c_stable(1)", "reads_settings"),
            ("WITH a AS (SELECT 1) SELECT * FROM a", ""),
            ("SELECT to_char(at, 'YYYY'), date_trunc('day', at), at + '1 day'::interval FROM t", ""),
            ("SELECT to_date(name, 'YYYY-MM-DD'), age(at, at) FROM t", ""),
            ("SELECT name::numeric FROM t WHERE v = 2", ""),
            // The state of the server.
            ("SELECT pg_backend_pid()", "server_state=function pg_backend_pid()"),
            ("SELECT txid_current()", "server_state=function txid_current()"),
            ("SELECT f_pid()", "server_state=function pg_backend_pid(); reads_clock; user_function"),
            ("SELECT v FROM t WHERE v = pg_backend_pid()", "server_state=function pg_backend_pid()"),
            (
                "SELECT count(*) FROM pg_stat_get_activity(NULL)",
                "server_state=function pg_stat_get_activity(integer)",
            ),
            (
                "SELECT count(*) FROM t HAVING max(pg_backend_pid()) > 0",
                "server_state=function pg_backend_pid()",
            ),
            (
                "SELECT has_table_privilege('t', 'select')",
                "server_state=function has_table_privilege(text,text)",
            ),
            ("SELECT to_regtype('int4') IS NULL", "server_state=function to_regtype(text); names_objects"),
            (
                "SELECT to_regclass('t') IS NULL",
                "server_state=function to_regclass(text); untracked; names_objects",
            ),
            // Settings.
            ("SELECT current_setting('work_mem')", "reads_settings"),
            ("SELECT f_setting()", "reads_settings; reads_clock; user_function"),
            ("SELECT count(*) FROM pg_show_all_settings()", "server_state=function pg_show_all_settings()"),
            // The clock.
            ("SELECT now() > at FROM t", "reads_clock"),
            ("SELECT current_date", "reads_clock"),
            ("SELECT v FROM t WHERE at > localtimestamp", "reads_clock"),
            ("SELECT age(at) IS NULL FROM t", "reads_clock"),
            ("SELECT n FROM v_now", "reads_clock"),
            ("SELECT name::date FROM t", "reads_clock"),
            ("SELECT ('{' || name || '}')::timestamp[] FROM t", "reads_clock"),
            ("SELECT ('[' || name || ',)')::daterange FROM t", "reads_clock"),
            ("SELECT ('(1,' || name || ')')::pair FROM t", "reads_clock"),
            ("SELECT b FROM t, jsonb_to_record(doc) AS x(b date)", "reads_clock"),
            ("SELECT d FROM XMLTABLE('/r' PASSING '<r><d>2026-01-01</d></r>' COLUMNS d date)", "reads_clock"),
            ("SELECT f_stable(1)", "reads_clock; user_function"),
            // Functions that are not built in.
            ("SELECT f_sql(1)", "user_function"),
            ("SELECT v FROM t WHERE f_sql(1) = 3", "user_function"),
            ("SELECT f_pl(1)", pl),
            ("SELECT v FROM v_pl", pl),
            ("SELECT f_xmin() FROM t WHERE false", stable_pl),
            ("SELECT v FROM t WHERE v === 1", pl),
            ("SELECT total(v) FROM t", "user_function"),
            ("SELECT total(v) OVER () FROM t", "user_function"),
            ("SELECT v::positive FROM t", pl),
            ("SELECT ROW(1, '2026-01-01')::pair::int", pl),
            (
                "SELECT f_other(1)",
                "foreign_language=function f_other(integer); reads_settings; user_function",
            ),
            (
                "SELECT f_inner(1)",
                "foreign_language=function f_other(integer); reads_settings; reads_clock; user_function",
            ),
            // System columns.
            ("SELECT xmin::text FROM t", "system_columns"),
            ("SELECT v FROM t WHERE cmax::text = '0'", "system_columns"),
            ("SELECT x::text FROM v_xmin", "system_columns"),
            ("SELECT f_xmin()", "reads_settings; reads_clock; system_columns; user_function"),
            ("SELECT f_xmax()", "reads_settings; reads_clock; system_columns; user_function"),
            // Names of objects.
            ("SELECT 't'::regclass::oid", "names_objects"),
            ("SELECT '{t}'::regclass[]", "names_objects"),
            ("SELECT c FROM t", "names_objects"),
            ("SELECT 't'::object", "names_objects"),
            ("SELECT NULL::place", "names_objects"),
            ("SELECT to_tsvector('english', name) FROM t", "names_objects"),
            ("SELECT pg_typeof(v) FROM t", "names_objects"),
            // Writes and locks.
            ("SELECT v FROM t FOR SHARE", "locks_rows"),
            ("SELECT v FROM (SELECT v FROM t FOR UPDATE) AS a", "locks_rows"),
            ("WITH a AS (UPDATE t SET v = v RETURNING v) SELECT v FROM a", "writes"),
            ("UPDATE t SET v = v", "writes"),
            ("SELECT f_lock()", "volatile=function f_lock(); reads_settings; locks_rows; user_function"),
            ("SELECT f_write()", "volatile=function f_write(); reads_settings; writes; user_function"),
            // Chance.
            ("SELECT random() > 2", "volatile=function random(); server_state=function random()"),
            ("SELECT count(*) > 1000 FROM t TABLESAMPLE system (100)", "sampled"),
        ],
    );
    for (kind, expected) in [("regclass", "names_objects"), ("regtype[]", "names_objects"), ("int", "")] {
        assert_eq!(seen(&mut session, "SELECT v FROM t WHERE $1 IS NULL", kind).traits, expected, "{kind}");
    }
    // A policy becomes a part of the query.
    session.batch_execute("GRANT SELECT ON secured TO seen_reader; SET ROLE seen_reader").expect("a role");
    assert_traits(&mut session, &[("SELECT v FROM secured", "user_function")]);
    session.batch_execute("RESET ROLE").expect("the owner again");
    session.batch_execute("DROP OWNED BY seen_reader; DROP ROLE seen_reader").expect("it drops the role");
}

/// PL/pgSQL prepares an expression once in a transaction. If that was before the fill, the fill must prepare it again
/// (`query/fetch.rs`), and must know that it must.
#[test]
fn calls_that_an_earlier_statement_has_prepared_are_seen() {
    let database = Database::create();
    let mut session = database.connect();
    with_seen_of(&mut session);
    session
        .batch_execute(
            "CREATE FUNCTION c_call_handler() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
             CREATE LANGUAGE other HANDLER c_call_handler;
             CREATE FUNCTION other() RETURNS int IMMUTABLE LANGUAGE other AS 'BEGIN RETURN 1; END';
             CREATE FUNCTION f_state() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN pg_backend_pid(); END';
             CREATE FUNCTION f_other() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN other() + f_none(); END';
             CREATE FUNCTION f_none() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
        )
        .expect("functions");
    for (query, expected) in [
        ("SELECT f_state()", "server_state=function pg_backend_pid(); "),
        ("SELECT f_other()", "foreign_language=function other(); "),
        ("SELECT f_none()", ""),
    ] {
        session.batch_execute("BEGIN").expect("it begins");
        for _ in 0..2 {
            session.batch_execute(query).expect("it calls the function");
            let expected = format!("{expected}reads_settings; reads_clock; user_function");
            assert_eq!(seen(&mut session, query, "").traits, expected, "{query}");
        }
        session.batch_execute("ROLLBACK").expect("it ends");
    }
}

/// The rows of leaf partitions take the place of the rows of their partitioned table, unless there are more than 16.
#[test]
fn the_leaves_of_the_executed_plan_are_seen() {
    let database = Database::create();
    let mut session = database.connect();
    with_seen_of(&mut session);
    session
        .batch_execute(
            "CREATE TABLE p (v int, w int) PARTITION BY RANGE (v);
             CREATE TABLE p_0 PARTITION OF p FOR VALUES FROM (0) TO (10);
             CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (10) TO (20);
             CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (20) TO (30) PARTITION BY RANGE (w);
             CREATE TABLE p_2a PARTITION OF p_2 FOR VALUES FROM (0) TO (10);
             CREATE TABLE p_2b PARTITION OF p_2 FOR VALUES FROM (10) TO (20);
             CREATE TABLE empty (v int) PARTITION BY RANGE (v);
             CREATE TABLE many (v int) PARTITION BY RANGE (v);
             CREATE TABLE t (v int); INSERT INTO t VALUES (15);
             CREATE TABLE parent (v int); CREATE TABLE child () INHERITS (parent);
             CREATE VIEW over_p AS SELECT v FROM p WHERE v < 20;
             CREATE FUNCTION f() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT max(v) FROM p WHERE v < 10); END'",
        )
        .expect("tables");
    for n in 10..27 {
        let create = format!("CREATE TABLE many_{n} PARTITION OF many FOR VALUES FROM ({n}) TO ({n} + 1)");
        session.batch_execute(&create).expect("a partition");
    }
    let sixteen: Vec<_> = (10..26).map(|n| format!("many_{n}")).collect();
    let sixteen = sixteen.join(" ");
    for (query, rows, named) in [
        ("SELECT v FROM p", "p_0 p_1 p_2a p_2b", "p p_0 p_1 p_2 p_2a p_2b"),
        ("SELECT v FROM p WHERE v = 5", "p_0", "p p_0"),
        ("SELECT v FROM p WHERE v = 25 AND w = 5", "p_2a", "p p_2 p_2a"),
        ("SELECT v FROM p_2 WHERE w = 5", "p_2a", "p_2 p_2a"),
        ("SELECT v FROM p_2a", "p_2a", "p_2a"),
        // No leaf is left over.
        ("SELECT v FROM p WHERE v = 500", "p", "p"),
        ("SELECT v FROM p WHERE false", "p", "p"),
        ("SELECT v FROM ONLY p", "p", "p"),
        ("SELECT v FROM empty", "empty", "empty"),
        ("SELECT a.v FROM p AS a, p AS b WHERE a.v = 5 AND b.v = 500", "p", "p p_0"),
        // The executor leaves out leaves that the planner could not.
        ("SELECT v FROM p WHERE v = (SELECT v FROM t) AND w = 0", "p_0 p_1 p_2a t", "p p_0 p_1 p_2 p_2a t"),
        ("SELECT t.v FROM t JOIN p ON p.v = t.v WHERE p.v < 20", "p_0 p_1 t", "p p_0 p_1 t"),
        ("SELECT max(v) FROM p WHERE v < 20", "p_0 p_1", "p p_0 p_1"),
        ("SELECT v FROM p WHERE v < 10 UNION ALL SELECT v FROM t", "p_0 t", "p p_0 t"),
        ("SELECT v FROM over_p", "p_0 p_1", "over_p p p_0 p_1"),
        ("SELECT f()", "p_0", "p p_0"),
        // More than 16.
        ("SELECT v FROM many WHERE v < 26", &sixteen, &format!("many {sixteen}")),
        ("SELECT v FROM many", "many", &format!("many {sixteen} many_26")),
        // A table that others inherit from.
        ("SELECT v FROM parent", "parent", "child parent"),
        ("SELECT v FROM child", "child", "child"),
    ] {
        let found = seen(&mut session, query, "");
        assert_eq!((found.rows.join(" ").as_str(), found.named.join(" ").as_str()), (rows, named), "{query}");
    }
}

/// A result depends on the definitions of all relations that it names, also if the planner removes them.
#[test]
fn the_relations_that_a_query_names_are_seen() {
    let database = Database::create();
    let mut session = database.connect();
    with_seen_of(&mut session);
    session
        .batch_execute(
            "CREATE TABLE t (v int PRIMARY KEY); CREATE TABLE u (v int PRIMARY KEY); CREATE TABLE x (v int);
             CREATE TYPE pair AS (a int, b x); CREATE DOMAIN pairs AS pair[];
             CREATE VIEW a AS SELECT v FROM t; CREATE VIEW b AS SELECT v FROM a;
             CREATE FUNCTION f() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM b); END'",
        )
        .expect("tables");
    for (query, rows, named) in [
        ("SELECT v FROM b", "t", "a b t"),
        ("SELECT 1 WHERE false AND EXISTS (SELECT FROM b)", "", "a b t"),
        ("SELECT t.v FROM t LEFT JOIN u ON u.v = t.v", "t u", "t u"),
        ("WITH c AS (SELECT v FROM u) SELECT (SELECT max(v) FROM c), v FROM a", "t u", "a t u"),
        ("WITH c AS (SELECT v FROM u) SELECT v FROM t", "t", "t u"),
        ("SELECT f()", "t", "a b t"),
        ("SELECT NULL::x", "", "x"),
        ("SELECT NULL::pairs", "", "pair x"),
        ("SELECT * FROM jsonb_populate_record(NULL::pair, '{}')", "", "pair x"),
        ("SELECT 1", "", ""),
    ] {
        let found = seen(&mut session, query, "");
        assert_eq!((found.rows.join(" ").as_str(), found.named.join(" ").as_str()), (rows, named), "{query}");
    }
}

/// A cursor that was opened before the fill shows rows of an older snapshot.
#[test]
fn reading_from_a_cursor_that_was_open_before_is_seen() {
    let database = Database::create();
    let mut session = database.connect();
    with_seen_of(&mut session);
    session
        .batch_execute(
            "CREATE TABLE t AS SELECT generate_series(1, 10) AS v;
             CREATE FUNCTION next(refcursor) RETURNS int STABLE LANGUAGE plpgsql AS
                 'DECLARE found int; BEGIN FETCH $1 INTO found; RETURN found; END';
             CREATE FUNCTION skip(refcursor) RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN MOVE $1; RETURN 1; END';
             CREATE FUNCTION own() RETURNS bigint STABLE LANGUAGE plpgsql AS
                 'DECLARE mine CURSOR FOR SELECT v FROM t; one int; sum bigint := 0;
                  BEGIN
                      OPEN mine; FETCH mine INTO one; sum := sum + one; CLOSE mine;
                      FOR one IN SELECT v FROM t LOOP sum := sum + one; END LOOP;
                      RETURN sum;
                  END'",
        )
        .expect("functions");
    let own = "reads_settings; reads_clock; user_function";
    let foreign = "reads_settings; reads_clock; user_function; foreign_portal";
    session.batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT v FROM t").expect("a cursor");
    assert_traits(
        &mut session,
        &[("SELECT own()", own), ("SELECT next('c')", foreign), ("SELECT skip('c')", foreign)],
    );
    // The fill itself may run inside of a plan that has started before.
    let nested: String = session
        .query_one(
            "SELECT string_agg(split_part(seen_of('SELECT own()'), E'\\n', 1), ',') FROM t WHERE v = 1",
            &[],
        )
        .expect("it runs")
        .get(0);
    assert_eq!(nested, own);
}

/// The findings of a fill count for the fill around it.
#[test]
fn findings_of_an_inner_fill_count_for_the_outer_one() {
    let database = Database::create();
    let mut session = database.connect();
    with_seen_of(&mut session);
    session
        .batch_execute(
            "CREATE TABLE p (v int) PARTITION BY RANGE (v); CREATE TABLE p_0 PARTITION OF p FOR VALUES FROM (0) TO (10);
             CREATE VIEW w AS SELECT v, xmin, current_setting('work_mem'), now(), pg_backend_pid(), 'p'::regclass FROM p",
        )
        .expect("tables");
    let inner = "SELECT * FROM w";
    let expected =
        "server_state=function pg_backend_pid(); reads_settings; reads_clock; system_columns; names_objects";
    let outer = format!("SELECT length(seen_of('{inner}', 0)) > 0");
    let [inner, outer] = [inner, outer.as_str()].map(|query| seen(&mut session, query, ""));
    assert_eq!(inner.traits, expected);
    assert_eq!(outer.traits, format!("volatile=function seen_of(cstring,oid); {expected}"));
    assert_eq!((&inner.rows, &inner.named), (&outer.rows, &outer.named));
    assert_eq!(inner.rows, ["p_0"]);
}
