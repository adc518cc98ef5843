//! Values that mean something else in another session or at another time, such as cursors and anonymous records, and how rows are
//! stored. A stored result must have the values that the query itself returns. `calls.rs` has the calls: `compare` runs a query
//! with and without the cache, and returns what is wrong, if anything; `Expect` is the status that the cached call must have.

use super::super::calls::{Expect, answer, assert_right, cached, cached_with, compare, fill, run, text};
use pg_cache_testbed::Database;

/// `SELECT FOR UPDATE` changes the system column `xmax` of a row, and is no write.
#[test]
fn the_system_columns_of_transactions_are_not_stored() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE TABLE t AS SELECT 1 AS v; CREATE VIEW versions AS SELECT xmin::text AS v, xmax::text AS w FROM t;
         CREATE FUNCTION newest() RETURNS text STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT max(xmax::text) FROM t); END';
         CREATE FUNCTION first() RETURNS text STABLE LANGUAGE sql AS 'SELECT xmax::text FROM t LIMIT 1'",
    );
    for query in [
        "SELECT xmax::text AS v FROM t",
        "SELECT v::text FROM t WHERE xmax <> '0'",
        "SELECT count(*)::text AS v FROM t AS a WHERE EXISTS (SELECT FROM t AS b WHERE a.xmax <> b.xmin)",
        "SELECT w AS v FROM versions",
        "SELECT newest() AS v",
        "SELECT first() AS v",
        "SELECT cmax::text AS v FROM t ORDER BY cmin",
    ] {
        for _ in 0..2 {
            assert_right(
                &mut session,
                query,
                "v text",
                Expect::Refused("refused: the query reads xmin, xmax, cmin or cmax"),
            );
            run(&mut other, "BEGIN; SELECT FROM t FOR UPDATE; COMMIT");
        }
    }
    // A lock of a row changes neither `ctid` nor `tableoid`, so results with them may be stored. A write to the table must
    // invalidate them.
    for query in ["SELECT ctid::text AS v FROM t", "SELECT tableoid::regclass::text AS v FROM t"] {
        assert_right(&mut session, query, "v text", Expect::Anything);
        run(&mut other, "BEGIN; SELECT FROM t FOR UPDATE; COMMIT; UPDATE t SET v = v + 1");
        run(&mut other, "VACUUM FULL t");
        assert_right(&mut session, query, "v text", Expect::Fresh);
    }
}

/// A function that fetches from a cursor of its caller returns another row each time.
#[test]
fn a_function_that_fetches_from_the_callers_cursor_is_not_stored() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE TABLE t AS SELECT generate_series(1, 9) AS v;
         CREATE FUNCTION next(c refcursor) RETURNS int STABLE LANGUAGE plpgsql AS
             'DECLARE r int; BEGIN FETCH c INTO r; RETURN r; END';
         CREATE FUNCTION own() RETURNS int STABLE LANGUAGE plpgsql AS
             'DECLARE c CURSOR FOR SELECT v FROM t ORDER BY v; r int; BEGIN OPEN c; FETCH c INTO r; CLOSE c; RETURN r; END'",
    );
    for declare in ["CURSOR FOR", "SCROLL CURSOR FOR", "CURSOR WITH HOLD FOR"] {
        run(&mut session, &format!("BEGIN; DECLARE c {declare} SELECT v FROM t ORDER BY v"));
        for row in 1..=3 {
            let (rows, status) = cached(&mut session, "SELECT next('c')::text AS v", "v text");
            assert_eq!(rows, Ok(vec![vec![Some(row.to_string())]]), "{declare}: {status}");
            assert!(status.starts_with("refused: "), "{declare}: {status}");
        }
        run(&mut session, "COMMIT");
        if declare.contains("HOLD") {
            for row in 4..=5 {
                // The rows of a held cursor are kept without a query.
                let (rows, status) = cached(&mut session, "SELECT next('c')::text AS v", "v text");
                assert_eq!(rows, Ok(vec![vec![Some(row.to_string())]]), "{status}");
            }
            run(&mut session, "CLOSE c");
        }
    }
    // A function with a cursor of its own only reads.
    fill(&mut session, "SELECT own()::text AS v", "v text");
    run(&mut session, "DELETE FROM t WHERE v = 1");
    assert_right(&mut session, "SELECT own()::text AS v", "v text", Expect::Fresh);
}

/// A function may open a cursor and return its name. The caller then fetches from the cursor. A hit would return the name of a
/// cursor that is not open.
#[test]
fn a_function_that_opens_a_cursor_for_its_caller_is_not_stored() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE TABLE t AS SELECT generate_series(1, 3) AS v;
         CREATE FUNCTION opens() RETURNS text STABLE LANGUAGE plpgsql AS
             $$ DECLARE c refcursor := 'mine'; BEGIN OPEN c FOR SELECT v FROM t ORDER BY v; RETURN c; END $$",
    );
    for round in 0..3 {
        run(&mut session, "BEGIN");
        let (rows, status) = cached(&mut session, "SELECT opens() AS v", "v text");
        assert_eq!(rows, Ok(vec![vec![Some("mine".to_owned())]]), "{round}: {status}");
        assert_eq!(
            answer(&mut session, "FETCH 1 FROM mine"),
            Ok(vec![vec![Some("1".to_owned())]]),
            "{round}: {status}"
        );
        run(&mut session, "COMMIT");
    }
}

/// A function that is declared `STABLE` may call built-in functions that are volatile. They read data that changes at any time
/// without a commit.
#[test]
fn volatile_built_in_functions_inside_of_stable_ones_are_right() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE TABLE t AS SELECT 1 AS v; CREATE SEQUENCE s; SELECT nextval('s');
         CREATE FUNCTION current() RETURNS text STABLE LANGUAGE plpgsql AS 'BEGIN RETURN currval(''s''); END';
         CREATE FUNCTION last() RETURNS text STABLE LANGUAGE plpgsql AS 'BEGIN RETURN lastval(); END';
         CREATE FUNCTION seen() RETURNS text STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT last_value FROM s); END';
         CREATE FUNCTION size() RETURNS text STABLE LANGUAGE plpgsql AS 'BEGIN RETURN pg_relation_size(''t''); END';
         CREATE FUNCTION sql_current() RETURNS text STABLE LANGUAGE sql AS 'SELECT currval(''s'')::text';
         CREATE FUNCTION large() RETURNS text STABLE LANGUAGE plpgsql AS
             'BEGIN RETURN (SELECT count(*) FROM pg_largeobject_metadata); END'",
    );
    let mut wrong = Vec::new();
    for query in [
        "SELECT current() AS v",
        "SELECT last() AS v",
        "SELECT seen() AS v",
        "SELECT size() AS v",
        "SELECT sql_current() AS v",
        "SELECT large() AS v",
    ] {
        for _ in 0..3 {
            wrong.extend(compare(&mut session, query, "v text", Expect::Anything));
            run(
                &mut session,
                "SELECT nextval('s'); INSERT INTO t SELECT generate_series(1, 500); SELECT lo_create(0)",
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Each backend numbers anonymous record types by itself, so a number means another type in another backend. Results with named
/// types are stored.
#[test]
fn a_column_of_an_anonymous_record_type_is_not_stored() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE TABLE t AS SELECT 1 AS a, 'one' AS b; CREATE TYPE pair AS (a int, b text);
         CREATE TYPE nested AS (p pair, q pair[]);
         CREATE FUNCTION anonymous() RETURNS record STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT ROW(a, b) FROM t); END'",
    );
    // Each backend numbers its types from 0. So the other one has another type behind the same number.
    for (session, rows) in [(&mut session, "ROW(1, 'x'::text)"), (&mut other, "ROW('x'::text, now(), 1.5)")] {
        run(session, &format!("SELECT r FROM (SELECT {rows} AS r) AS s; SELECT {rows} = {rows}"));
    }
    for (query, columns) in [
        ("SELECT ROW(1, 'one'::text) AS r", "r record"),
        ("SELECT s AS r FROM (SELECT a, b FROM t) AS s", "r record"),
        ("SELECT ARRAY[ROW(1, 2), ROW(3, 4)] AS r", "r record[]"),
        ("SELECT anonymous() AS r", "r record"),
        ("SELECT (SELECT s FROM (SELECT b, a FROM t) AS s) AS r", "r record"),
        ("SELECT array_agg(s) AS r FROM (SELECT a, b FROM t) AS s", "r record[]"),
    ] {
        for session in [&mut session, &mut other] {
            for _ in 0..2 {
                assert_right(
                    session,
                    query,
                    columns,
                    Expect::Refused("refused: column r is an anonymous record"),
                );
            }
        }
    }
    for (query, columns) in [
        ("SELECT t AS r FROM t", "r t"),
        ("SELECT ROW(1, 'one')::pair AS r", "r pair"),
        ("SELECT ARRAY[ROW(1, 'one'), NULL]::pair[] AS r", "r pair[]"),
        ("SELECT ROW(ROW(1, 'one'), ARRAY[ROW(2, 'two')]::pair[])::nested AS r", "r nested"),
        ("SELECT a, b FROM t", "a int, b text"),
        ("SELECT to_jsonb(s) AS r FROM (SELECT a, b FROM t) AS s", "r jsonb"),
        ("SELECT (ROW(1, 'one'))::text AS r", "r text"),
    ] {
        fill(&mut session, query, columns);
        assert_right(&mut other, query, columns, Expect::Hit);
    }
    // A named type that changes is another type.
    fill(&mut other, "SELECT ROW(1, 'one')::pair AS r", "r pair");
    run(&mut session, "ALTER TYPE pair ADD ATTRIBUTE c int");
    for session in [&mut session, &mut other] {
        assert_right(session, "SELECT ROW(1, 'one')::pair AS r", "r pair", Expect::Fresh);
    }
    for query in ["SELECT t AS r FROM t", "SELECT ARRAY[ROW(1, 'one', 3)]::pair[] AS r"] {
        let columns = if query.contains("pair") { "r pair[]" } else { "r t" };
        fill(&mut session, query, columns);
        run(
            &mut other,
            "ALTER TABLE t ADD c int; ALTER TYPE pair DROP ATTRIBUTE c; ALTER TYPE pair ADD ATTRIBUTE c int",
        );
        assert_right(&mut session, query, columns, Expect::Fresh);
        run(&mut other, "ALTER TABLE t DROP c");
        assert_right(&mut session, query, columns, Expect::Anything);
        assert_right(&mut other, query, columns, Expect::Anything);
    }
}

/// The server does not check the rows of a domain over a composite type, so such a type is refused.
#[test]
fn a_domain_over_a_composite_type_is_no_row_type() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE TYPE pair AS (a int, b text); CREATE DOMAIN positive AS pair CHECK ((VALUE).a > 0)",
    );
    let call =
        |kind: &str| format!("SELECT * FROM public.cache_query(NULL::{kind}, 'SELECT -1, ''x''::text')");
    let refused = answer(&mut session, &call("positive"));
    assert_eq!(refused, Err("42809: row_type must not be a domain over a composite type".to_owned()));
    assert!(answer(&mut session, &call("pair")).is_ok());
}

/// A column may have any name, also the name that pg_cache gives to the source of the rows when it makes JSON of them.
#[test]
fn a_column_with_the_name_of_the_row_source_stays_a_column() {
    let database = Database::create();
    let mut session = database.connect();
    let rows = text(&mut session, "SELECT public.cache_query_json('SELECT 1 AS pg_cache_rows, 2 AS b')");
    assert_eq!(rows, r#"[{"b": 2, "pg_cache_rows": 1}]"#);
}

/// Large values of a table are in another table (TOAST), and functions return arrays and records in another form in memory. A
/// stored result must have the values themselves. With `depends => '{}'`, the result outlives the rows that it came from.
#[test]
fn a_stored_result_has_the_values_and_no_pointers() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE TYPE pair AS (a int, b text); CREATE DOMAIN long AS text; CREATE TYPE nested AS (p pair, ps pair[]);
         CREATE TABLE big (id int, plain text, outside text, d long, p pair, ps pair[], n nested, j jsonb, r numrange);
         ALTER TABLE big ALTER outside SET STORAGE EXTERNAL;
         INSERT INTO big SELECT i, v, v, v, ROW(i, v)::pair, ARRAY[ROW(i, v), NULL, ROW(i, v)]::pair[],
                                ROW(ROW(i, v), ARRAY[ROW(i, v)]::pair[])::nested, jsonb_build_object('v', v), numrange(1, (repeat('9', 6000))::numeric)
           FROM generate_series(1, 3) AS i, LATERAL (SELECT string_agg(md5(i || ' ' || k), '') AS v FROM generate_series(1, 400) AS k) AS l;
         CREATE FUNCTION expanded() RETURNS int[] STABLE LANGUAGE plpgsql AS
             'DECLARE r int[] := ARRAY[1]; BEGIN FOR i IN 2 .. 1000 LOOP r[i] := i; END LOOP; RETURN r; END';
         CREATE FUNCTION record_of() RETURNS pair STABLE LANGUAGE plpgsql AS
             'DECLARE r pair; BEGIN SELECT (p).a, (p).b INTO r FROM big WHERE id = 1; r.a := 7; RETURN r; END';
         CREATE FUNCTION rows_of() RETURNS SETOF big STABLE LANGUAGE plpgsql AS
             'DECLARE r big; BEGIN FOR r IN SELECT * FROM big ORDER BY id LOOP RETURN NEXT r; END LOOP; END'",
    );
    let columns =
        "id int, plain text, outside text, d text, p pair, ps pair[], n nested, j jsonb, r numrange";
    let queries = [
        ("SELECT * FROM big ORDER BY id", columns),
        ("SELECT * FROM rows_of()", columns),
        ("SELECT b AS r FROM big AS b ORDER BY id", "r big"),
        ("SELECT array_agg(b ORDER BY id) AS r FROM big AS b", "r big[]"),
        ("SELECT expanded() AS r", "r int[]"),
        ("SELECT record_of() AS r", "r pair"),
        ("SELECT (n).ps[1] AS r, n FROM big ORDER BY id", "r pair, n nested"),
    ];
    let direct: Vec<_> = queries.iter().map(|(query, _)| answer(&mut session, query)).collect();
    for ((query, columns), direct) in queries.iter().zip(&direct) {
        let (rows, status) = cached_with(&mut session, query, columns, "depends => '{}'");
        assert!(rows == *direct, "{query}: {status}");
        assert!(rows.is_ok() && Expect::Stored.fits(&status), "{query}: {status}");
    }
    let json = "SELECT md5(cache_query_json('SELECT * FROM big ORDER BY id', depends => '{}')::text)";
    let digest = text(&mut session, json);
    // The rows and the large values go, and others take their place.
    run(&mut session, "TRUNCATE big");
    run(
        &mut session,
        "INSERT INTO big SELECT i, repeat('other', 10000), repeat('other', 10000) FROM generate_series(1, 50) AS i",
    );
    run(&mut session, "VACUUM big");
    for ((query, columns), direct) in queries.iter().zip(&direct) {
        for session in [&mut session, &mut other] {
            let (rows, status) = cached_with(session, query, columns, "depends => '{}'");
            assert!(rows == *direct, "{query}: {status}");
            assert_eq!(status, "hot", "{query}");
        }
    }
    assert_eq!(text(&mut other, json), digest);
}

/// Found on PostgreSQL 18: the server's function that forms a row has one more argument there, so no row could be stored.
#[test]
fn rows_with_values_of_all_sizes_are_formed() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE TABLE t AS SELECT 1 AS a, 'short'::text AS b, string_agg(md5(i::text), '') AS c, NULL::date AS d, 2.5::float8 AS e
             FROM generate_series(1, 5000) AS i;
         CREATE FUNCTION pair() RETURNS t STABLE LANGUAGE sql AS 'SELECT * FROM t'",
    );
    let columns = "a int, b text, c text, d date, e float8";
    for query in ["TABLE t", "SELECT a, b, c || '!' AS c, d, e FROM t", "SELECT * FROM pair()"] {
        assert_right(&mut session, query, columns, Expect::Stored);
        assert_right(&mut session, query, columns, Expect::Hit);
    }
}
