//! Known ways to break a cache of query results, one test each. Each test has a result that is a hit, and then a reason why that
//! result must not be served.

use super::calls::{
    Expect, answer, assert_right, cached, cached_with, call, compare, compare_to, fill, run, text,
};
use crate::memory::{cluster, findings};
use pg_cache_testbed::{Conf, Database, Server, wait_until};
use postgres::Client;
use std::path::Path;

/// Asserts the rows and the status of a cached query with options. The rows are the values of a single column.
fn assert_call(session: &mut Client, query: &str, options: &str, rows: &[&str], expect: Expect) {
    let (found, status) = cached_with(session, query, "v text", options);
    let rows: Vec<_> = rows.iter().map(|value| vec![Some((*value).to_owned())]).collect();
    assert_eq!(found, Ok(rows), "{query} with {options}: {status:?}");
    assert!(expect.fits(&status), "{query} with {options}: status {status:?} instead of {expect:?}");
}

/// Returns the seconds that the stored result of a query still lives, or None if there is none.
fn seconds_left(session: &mut Client, query: &str, args: &str) -> Option<f64> {
    let ask = format!(
        "SELECT extract(epoch FROM public.cache_ttl(public.cache_key($cached${query}$cached$, {args})))::text"
    );
    text(session, &ask).parse().ok()
}

/// `depends` decides when the result becomes invalid, so results with other `depends` are different results.
#[test]
fn the_same_text_with_other_depends_is_another_result() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(&mut session, "CREATE TABLE t AS SELECT 1 AS v; CREATE TABLE u AS SELECT 1 AS v");
    let query = "SELECT v::text AS v FROM t";
    for options in ["depends => '{}'", "depends => '{u}'", "", "depends => '{t}'", "depends => '{t,u}'"] {
        assert_call(&mut session, query, options, &["1"], Expect::Stored);
        assert_call(&mut other, query, options, &["1"], Expect::Hit);
    }
    // The order and repetitions do not matter.
    assert_call(&mut other, query, "depends => '{u,t,u}'", &["1"], Expect::Hit);
    run(&mut session, "UPDATE t SET v = 2");
    for session in [&mut session, &mut other] {
        assert_call(session, query, "depends => '{}'", &["1"], Expect::Hit);
        assert_call(session, query, "depends => '{u}'", &["1"], Expect::Hit);
    }
    assert_call(&mut session, query, "", &["2"], Expect::Fresh);
    assert_call(&mut session, query, "depends => '{t}'", &["2"], Expect::Fresh);
    assert_call(&mut session, query, "depends => '{t,u}'", &["2"], Expect::Fresh);
    run(&mut session, "UPDATE u SET v = 2");
    assert_call(&mut session, query, "depends => '{}'", &["1"], Expect::Hit);
    assert_call(&mut session, query, "depends => '{u}'", &["2"], Expect::Fresh);
    assert_call(&mut session, query, "", &["2"], Expect::Hit);
}

/// A caller with a tag relies on the invalidation of the tag, so a result that was stored without the tag is no hit.
#[test]
fn a_result_without_the_callers_tags_is_no_hit() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(&mut session, "CREATE TABLE t AS SELECT 1 AS v");
    // With `depends => '{}'`, only the tag invalidates.
    let query = "SELECT v::text AS v FROM t";
    let with = |tags: &str| format!("depends => '{{}}', tags => '{{{tags}}}'");
    assert_call(&mut session, query, "depends => '{}'", &["1"], Expect::Stored);
    assert_call(&mut session, query, &with("a"), &["1"], Expect::Fresh);
    assert_call(&mut other, query, &with("a"), &["1"], Expect::Hit);
    // The result has more tags than this caller needs.
    assert_call(&mut other, query, "depends => '{}'", &["1"], Expect::Hit);
    assert_call(&mut other, query, &with("b"), &["1"], Expect::Fresh);
    assert_call(&mut other, query, &with("a,b"), &["1"], Expect::Fresh);
    assert_call(&mut other, query, &with("b"), &["1"], Expect::Hit);
    run(&mut session, "UPDATE t SET v = 2");
    assert_call(&mut other, query, &with("a,b"), &["1"], Expect::Hit);
    run(&mut session, "SELECT cache_invalidate_tag('b')");
    assert_call(&mut other, query, &with("a,b"), &["2"], Expect::Fresh);
    run(&mut session, "UPDATE t SET v = 3; SELECT cache_invalidate_tag('a')");
    assert_call(&mut other, query, &with("a"), &["3"], Expect::Fresh);
    assert_call(&mut other, query, &with("a"), &["3"], Expect::Hit);
}

/// A caller that accepts results of at most some age must not get an older one, also if that still lives.
#[test]
fn a_result_older_than_the_callers_ttl_is_no_hit() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(&mut session, "CREATE TABLE t AS SELECT 1 AS v");
    let query = "SELECT v::text AS v FROM t";
    assert_call(&mut session, query, "depends => '{}', ttl => '1 h'", &["1"], Expect::Stored);
    run(&mut session, "UPDATE t SET v = 2; SELECT pg_sleep(0.3)");
    assert_call(&mut other, query, "depends => '{}', ttl => '1 h'", &["1"], Expect::Hit);
    assert_call(&mut other, query, "depends => '{}', ttl => '30 s'", &["1"], Expect::Hit);
    assert_call(&mut other, query, "depends => '{}', ttl => '200 ms'", &["2"], Expect::Fresh);
    // This result lives as long as its own caller has said.
    run(&mut session, "UPDATE t SET v = 3; SELECT pg_sleep(0.3)");
    assert_call(&mut other, query, "depends => '{}', ttl => '1 h'", &["3"], Expect::Fresh);
}

/// The setting of a session may come from the server's configuration, which changes while the session runs.
#[test]
fn a_time_zone_that_the_configuration_changes_is_a_change() {
    let cluster = cluster(&Conf::preloaded().set("TimeZone", "UTC"));
    let [mut session, mut other] = [(); 2].map(|()| cluster.connect("postgres"));
    run(&mut session, "CREATE TABLE t AS SELECT '2026-01-02 03:04:05+00'::timestamptz AS at");
    let query = "SELECT at::text AS v FROM t";
    fill(&mut session, query, "v text");
    assert_right(&mut other, query, "v text", Expect::Hit);
    for (zone, shown) in [("Asia/Tokyo", "2026-01-02 12:04:05+09"), ("UTC", "2026-01-02 03:04:05+00")] {
        run(&mut session, &format!("ALTER SYSTEM SET TimeZone = '{zone}'"));
        run(&mut session, "SELECT pg_reload_conf()");
        for session in [&mut session, &mut other] {
            wait_until("the new time zone", || text(session, "SHOW TimeZone") == zone);
            let expect = if zone == "UTC" { Expect::Hit } else { Expect::Anything };
            assert_right(session, query, "v text", expect);
            assert_eq!(text(session, &call(query, "v text", "")), shown);
        }
    }
}

/// A setting of a library decides what an operator returns. It may be set before the library is loaded, when it is a mere name, and
/// after that. The library may be loaded by the query itself.
#[test]
fn a_setting_of_a_library_is_part_of_the_context() {
    let database = Database::create();
    if database.cluster().server().lacks("pg_trgm") {
        return;
    }
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE EXTENSION pg_trgm;
         CREATE TABLE words AS SELECT unnest('{word,words,wording,sword,other}'::text[]) AS w",
    );
    drop(session);
    let mut wrong = Vec::new();
    for query in [
        "SELECT w AS v FROM words WHERE w % 'word' ORDER BY 1",
        "SELECT show_limit()::text AS v",
        "SELECT w AS v FROM words WHERE 'word' <% w ORDER BY 1",
    ] {
        // With the default, in a session that has loaded the library, and in one that has not.
        let [mut loaded, mut new] = [(); 2].map(|()| database.connect());
        run(&mut loaded, "SELECT show_limit()");
        wrong.extend(compare(&mut loaded, query, "v text", Expect::Anything));
        wrong.extend(compare(&mut loaded, query, "v text", Expect::Anything));
        wrong.extend(compare(&mut new, query, "v text", Expect::Anything));
        for limit in ["0.9", "0.2", "1.0"] {
            let set = format!(
                "SET pg_trgm.similarity_threshold = {limit}; SET pg_trgm.word_similarity_threshold = {limit}"
            );
            let mut before = database.connect();
            run(&mut before, &set);
            // Directly, the query would load the library, so the cached query comes first.
            let (rows, _) = cached(&mut before, query, "v text");
            let direct = answer(&mut before, query);
            if rows != direct {
                wrong.push(format!(
                    "{query}, {limit} set before the library is loaded: {rows:?}, not {direct:?}"
                ));
            }
            run(&mut loaded, &set);
            wrong.extend(compare(&mut loaded, query, "v text", Expect::Anything));
            wrong.extend(compare(&mut loaded, query, "v text", Expect::Hit));
            let mut later = database.connect();
            wrong.extend(compare(&mut later, query, "v text", Expect::Anything));
            run(&mut later, &set);
            wrong.extend(compare(&mut later, query, "v text", Expect::Anything));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A temporary table is found before all others. A session that has one of the same name must not get the result of the other
/// table, and must not replace it.
#[test]
fn a_temporary_table_that_shadows_makes_no_hit() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE TABLE t AS SELECT 'real' AS v; CREATE TYPE kind AS (a int); CREATE VIEW seen AS SELECT v FROM t;
         CREATE FUNCTION read() RETURNS text STABLE LANGUAGE sql AS 'SELECT v FROM t';
         CREATE FUNCTION dynamic() RETURNS text STABLE LANGUAGE plpgsql AS
             $$ DECLARE r text; BEGIN EXECUTE 'SELECT v FROM t' INTO r; RETURN r; END $$",
    );
    let queries = [
        "SELECT v FROM t",
        "SELECT v FROM \"t\"",
        "SELECT (SELECT v FROM t)",
        "SELECT read() AS v",
        "SELECT dynamic() AS v",
        "SELECT v FROM seen",
        "SELECT v FROM public.t",
    ];
    let mut wrong = Vec::new();
    let mut check = |when: &str, session: &mut Client, query: &str, expect| {
        wrong.extend(compare(session, query, "v text", expect).map(|what| format!("{when}: {what}")));
    };
    for make in ["CREATE TEMP TABLE t AS SELECT 'mine' AS v", "CREATE TEMP VIEW t AS SELECT 'mine' AS v"] {
        for session in [&mut session, &mut other] {
            queries.iter().for_each(|query| _ = cached(session, query, "v text"));
            queries.iter().for_each(|query| check("at first", session, query, Expect::Hit));
        }
        run(&mut session, make);
        for query in queries {
            let is_hidden = !query.contains("public") && !query.contains("seen");
            let expect = if is_hidden { Expect::Fresh } else { Expect::Anything };
            check(make, &mut session, query, expect);
            check(make, &mut session, query, expect);
            check(make, &mut other, query, Expect::Hit);
        }
        // With the temporary schema at the end of the search path, it hides nothing.
        run(&mut session, "SET search_path = public, pg_temp");
        queries
            .iter()
            .for_each(|query| check("at the end of the path", &mut session, query, Expect::Anything));
        run(&mut session, "RESET search_path; DISCARD TEMP");
        for query in queries {
            check("after DISCARD TEMP", &mut session, query, Expect::Hit);
            check("after DISCARD TEMP", &mut other, query, Expect::Hit);
        }
    }
    // In the transaction that creates it, and after its rollback.
    run(&mut session, "BEGIN; CREATE TEMP TABLE t AS SELECT 'mine' AS v");
    check("in the transaction that creates it, or after it", &mut session, "SELECT v FROM t", Expect::Fresh);
    check(
        "in the transaction that creates it, or after it",
        &mut session,
        "SELECT read() AS v",
        Expect::Fresh,
    );
    run(&mut session, "ROLLBACK");
    check("in the transaction that creates it, or after it", &mut session, "SELECT v FROM t", Expect::Hit);
    // A temporary type hides the type of a cast.
    let query = "SELECT (json_populate_record(NULL::kind, '{\"a\": 1, \"b\": 2}'))::text AS v";
    fill(&mut session, query, "v text");
    run(&mut session, "CREATE TYPE pg_temp.kind AS (a int, b int)");
    check("in the transaction that creates it, or after it", &mut session, query, Expect::Fresh);
    check("in the transaction that creates it, or after it", &mut other, query, Expect::Hit);
    assert!(wrong.is_empty(), "{} cases: {wrong:#?}", wrong.len());
    assert_eq!(findings(&mut other), Vec::<String>::new());
}

/// A word such as `today` in a literal, in an argument or in a table stands for the clock, so the result lives at most 60 seconds,
/// unless the caller gives a time to live.
#[test]
fn a_result_that_read_the_clock_lives_at_most_a_minute() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        r#"CREATE TABLE days AS SELECT 'today' AS word; CREATE TYPE day AS (d date); CREATE TABLE t AS SELECT 1 AS v;
           CREATE VIEW recent AS SELECT v FROM t WHERE now() > '2020-01-01';
           CREATE FUNCTION sql_day() RETURNS date STABLE LANGUAGE sql AS $$ SELECT 'today'::date $$;
           CREATE FUNCTION plpgsql_day() RETURNS date STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN 'today'; END $$"#,
    );
    let mut wrong = Vec::new();
    let mut check = |session: &mut Client, query: &str, args: &str, most: f64, least: f64| {
        let options = if args == "NULL" { String::new() } else { format!("args => {args}") };
        let (rows, status) = cached_with(session, query, "v text", &options);
        if let Err(error) = rows {
            wrong.push(format!("{query}: {error}"));
            return;
        }
        // A result that is not stored is right, too, but these are.
        match seconds_left(session, query, args) {
            Some(left) if left <= most && left > least => {}
            left => wrong.push(format!("{query}, {args}: {left:?} s left, status {status:?}")),
        }
    };
    for query in [
        "SELECT 'today'::date::text AS v",
        "SELECT date 'tomorrow'::text AS v",
        "SELECT CAST('yesterday' AS date)::text AS v",
        "SELECT 'now'::timestamptz::text AS v",
        "SELECT ' ToDay '::date::text AS v",
        "SELECT 'today 05:00'::timestamp::text AS v",
        "SELECT $$today$$::date::text AS v",
        "SELECT $x$now$x$::time::text AS v",
        r"SELECT E'to\x64ay'::date::text AS v",
        r"SELECT U&'\0074oday'::date::text AS v",
        "SELECT 'to'\n'day'::date::text AS v",
        "SELECT ('{today}'::date[])::text AS v",
        "SELECT ('[today,tomorrow)'::daterange)::text AS v",
        "SELECT ('(today)'::day)::text AS v",
        "SELECT word::date::text AS v FROM days",
        "SELECT ('to' || 'day')::date::text AS v",
        "SELECT (SELECT d FROM json_to_record('{\"d\": \"today\"}') AS r(d date))::text AS v",
        "SELECT make_date(2026, 1, 1)::text || current_date::text AS v",
        "SELECT now()::text AS v",
        "SELECT current_timestamp::text AS v",
        "SELECT localtime::text AS v",
        "SELECT transaction_timestamp()::text AS v",
        "SELECT age('2020-01-01'::timestamp)::text AS v",
        "SELECT count(*)::text AS v FROM t WHERE now() > '2020-01-01'",
        "SELECT count(*)::text AS v FROM recent",
        "SELECT sql_day()::text AS v",
        "SELECT plpgsql_day()::text AS v",
    ] {
        check(&mut session, query, "NULL", 60.0, 0.0);
    }
    for (query, args) in [
        ("SELECT $1::date::text AS v", "'[\"today\"]'"),
        ("SELECT $1::timestamptz::text AS v", "'[\"now\"]'"),
        ("SELECT ($1::date[])::text AS v", "'[[\"2020-01-01\", \"tomorrow\"]]'"),
        ("SELECT $1::text::date::text AS v", "'[\"today\"]'"),
    ] {
        check(&mut session, query, args, 60.0, 0.0);
    }
    // No clock: the default of five minutes.
    for query in [
        "SELECT count(*)::text AS v FROM t",
        "SELECT '2020-01-01'::date::text AS v",
        "SELECT date_trunc('month', '2020-01-15'::timestamp)::text AS v",
        "SELECT sum(v)::text AS v FROM t WHERE v > 0",
    ] {
        check(&mut session, query, "NULL", 300.0, 61.0);
    }
    // The caller's own time to live counts.
    for (query, ttl) in
        [("SELECT current_date::text || '' AS v", "1 h"), ("SELECT 'today'::date || '' AS v", "1 h")]
    {
        let (rows, status) = cached_with(&mut session, query, "v text", &format!("ttl => '{ttl}'"));
        assert!(rows.is_ok(), "{query}: {rows:?}");
        let left = seconds_left(&mut session, query, "NULL");
        if !left.is_some_and(|left| left > 3500.0) {
            wrong.push(format!("{query}, ttl {ttl}: {left:?}, status {status:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

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
    // The view has a column that is not used here.
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

/// The planner computes an `IMMUTABLE` function once, and inlines functions in SQL. Neither is in the plan any more, and still a
/// new definition must count, in all sessions, however deep the function is. PostgreSQL's own sessions may keep the old result in
/// the plan of another function, so the right answer is that of a new session.
#[test]
fn a_replaced_immutable_function_counts_wherever_it_was_computed() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE TABLE t AS SELECT 1 AS v;
         CREATE FUNCTION inner_sql() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
         CREATE FUNCTION inner_plpgsql() RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
         CREATE VIEW folded AS SELECT v + inner_sql() + inner_plpgsql() AS v FROM t;
         CREATE FUNCTION outer_sql() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT inner_sql() + inner_plpgsql()';
         CREATE FUNCTION outer_plpgsql() RETURNS int IMMUTABLE LANGUAGE plpgsql AS
             'BEGIN RETURN inner_sql() + inner_plpgsql(); END';
         CREATE FUNCTION outer_new() RETURNS int IMMUTABLE LANGUAGE sql BEGIN ATOMIC SELECT inner_sql() + inner_plpgsql(); END;
         CREATE FUNCTION table_sql() RETURNS TABLE (v int) STABLE LANGUAGE sql AS 'SELECT v + outer_sql() FROM t';
         CREATE FUNCTION add(v int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT v + inner_sql() + inner_plpgsql()';
         CREATE OPERATOR @# (FUNCTION = add, RIGHTARG = int)",
    );
    let queries = [
        "SELECT inner_sql()::text AS v",
        "SELECT inner_plpgsql()::text AS v",
        "SELECT v::text FROM t WHERE v <= inner_sql()",
        "SELECT v::text FROM folded",
        "SELECT outer_sql()::text AS v",
        "SELECT outer_plpgsql()::text AS v",
        "SELECT outer_new()::text AS v",
        "SELECT v::text FROM table_sql()",
        "SELECT (@# 5)::text AS v",
        "SELECT t.v::text FROM t JOIN LATERAL (SELECT outer_plpgsql() AS w) AS l ON w > 1",
    ];
    let mut wrong = Vec::new();
    for (round, replace) in [
        "CREATE OR REPLACE FUNCTION inner_sql() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 0'",
        "CREATE OR REPLACE FUNCTION inner_plpgsql() RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 20; END'",
        "ALTER FUNCTION inner_sql() RENAME TO gone;
         CREATE FUNCTION inner_sql() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 3'",
        "CREATE OR REPLACE FUNCTION inner_sql() RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 4; END'",
    ]
    .iter()
    .enumerate()
    {
        for query in queries {
            let direct = answer(&mut database.connect(), query);
            for (session, expect) in [(&mut session, Expect::Anything), (&mut other, Expect::Hit)] {
                wrong.extend(compare_to(&direct, session, query, "v text", expect));
            }
        }
        run(&mut other, replace);
        for query in queries {
            let direct = answer(&mut database.connect(), query);
            // The session that computes next may be either of the two.
            let (first, second) =
                if round % 2 == 0 { (&mut session, &mut other) } else { (&mut other, &mut session) };
            for (session, expect) in [(first, Expect::Fresh), (second, Expect::Hit)] {
                let what = compare_to(&direct, session, query, "v text", expect);
                wrong.extend(what.map(|what| format!("{replace}: {what}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// White space between two literals joins them only if it contains a newline. Texts that differ in what looks harmless may mean
/// different things. The first of each pair is stored, and the second must give its own answer.
#[test]
fn texts_that_look_alike_are_different_queries() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE TABLE \"T\" AS SELECT 'upper' AS v; CREATE TABLE t AS SELECT 'lower' AS v;
         CREATE TABLE \"a b\" AS SELECT 'one' AS v; CREATE TABLE \"a  b\" AS SELECT 'two' AS v",
    );
    let mut wrong = Vec::new();
    for (one, other) in [
        ("SELECT 'a'\n'b' AS v", "SELECT 'a' 'b' AS v"),
        ("SELECT 'a'\n  \n'b' AS v", "SELECT 'a'   'b' AS v"),
        ("SELECT 'a' -- c\n'b' AS v", "SELECT 'a' /* c\n */ 'b' AS v"),
        ("SELECT 'a'\n'b' AS v", "SELECT 'a' -- c 'b' AS v\n AS v"),
        ("SELECT 'a  b' AS v", "SELECT 'a b' AS v"),
        ("SELECT 'a b' AS v", "SELECT 'a\nb' AS v"),
        ("SELECT 'a--b' AS v", "SELECT 'a--c' AS v"),
        ("SELECT 'a /* x */ b' AS v", "SELECT 'a b' AS v"),
        ("SELECT $$a -- b$$ AS v", "SELECT $$a -- c$$ AS v"),
        ("SELECT $$a  b$$ AS v", "SELECT $$a b$$ AS v"),
        ("SELECT $x$a$$  $$b$x$ AS v", "SELECT $x$a$$ $$b$x$ AS v"),
        ("SELECT E'a\\'  b' AS v", "SELECT E'a\\' b' AS v"),
        ("SELECT 'a''  b' AS v", "SELECT 'a'' b' AS v"),
        ("SELECT 'a\\' AS v", "SELECT E'a\\\\b' AS v"),
        ("SELECT v FROM \"a  b\"", "SELECT v FROM \"a b\""),
        ("SELECT v FROM t", "SELECT v FROM \"T\""),
        ("SELECT v FROM \"t\"", "SELECT v FROM \"T\""),
        ("SELECT U&'d!0061' UESCAPE '!' AS v", "SELECT U&'d!0061' UESCAPE '?' AS v"),
        ("SELECT U&'\\0061' AS v", "SELECT '\\0061' AS v"),
        ("SELECT 'a' AS v", "SELECT 'A' AS v"),
        ("SELECT length(b'1010')::text AS v", "SELECT length('1010')::text AS v"),
        ("SELECT '1'::text AS v", "SELECT '1'::bpchar::text || '' AS v"),
        ("SELECT (1 - -1)::text AS v", "SELECT (1 --1)::text AS v\n)::text AS v"),
        ("SELECT (2 /*/* */ */ + 3)::text AS v", "SELECT (2 /*/* */ + 3)::text AS v FROM t /* */ */"),
        ("SELECT 1.0::text AS v", "SELECT 1.00::text AS v"),
        ("SELECT N'a'::text AS v", "SELECT N'b'::text AS v"),
    ] {
        for (first, second) in [(one, other), (other, one)] {
            for query in [first, second, first, second] {
                wrong.extend(compare(&mut session, query, "v text", Expect::Anything));
            }
            run(&mut session, "SELECT cache_flush()");
        }
    }
    // Texts that differ only in white space and comments are one query.
    fill(&mut session, "SELECT v FROM t WHERE v = 'lower'", "v text");
    for same in [
        "SELECT  v\n FROM t\tWHERE v  =  'lower'",
        "-- Metabase:: userID: 1 queryType: native queryHash: 3c4f\nSELECT v FROM t WHERE v = 'lower'",
        "/* dashboard */ SELECT v FROM t WHERE v = 'lower' -- end",
        "SELECT v FROM t WHERE v = 'lower';",
    ] {
        wrong.extend(compare(&mut session, same, "v text", Expect::Hit));
    }
    // standard_conforming_strings decides what a backslash is.
    for setting in ["on", "off", "on"] {
        run(
            &mut session,
            &format!("SET standard_conforming_strings = {setting}; SET escape_string_warning = off"),
        );
        for query in ["SELECT 'a\\x41' AS v", "SELECT 'a\\\\b' AS v", "SELECT 'a\\'' -- x' AS v"] {
            for _ in 0..2 {
                wrong.extend(compare(&mut session, query, "v text", Expect::Anything));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A backend gives an anonymous record type a number of its own, which means another type in another backend. Named types are fine.
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

/// Without USAGE on a schema, a role does not find the objects in it, although it may keep privileges on them.
#[test]
fn a_revoked_usage_of_a_schema_ends_the_hits() {
    let cluster = cluster(&Conf::preloaded());
    let mut owner = cluster.connect("postgres");
    run(
        &mut owner,
        "SELECT cache_grant('default', '-', 'write'); CREATE ROLE reader; CREATE ROLE all_readers; GRANT all_readers TO reader;
         CREATE SCHEMA s; CREATE TABLE s.t AS SELECT 1 AS v; GRANT SELECT ON s.t TO reader;
         CREATE FUNCTION s.f() RETURNS int STABLE LANGUAGE sql AS 'SELECT v FROM s.t';
         CREATE VIEW v AS SELECT v FROM s.t; GRANT SELECT ON v TO reader",
    );
    let mut session = cluster.connect("postgres");
    run(&mut session, "SET ROLE reader");
    for (grantee, path) in [("reader", "public"), ("all_readers", "public, s"), ("PUBLIC", "s, public")] {
        run(&mut owner, &format!("GRANT USAGE ON SCHEMA s TO {grantee}"));
        run(&mut session, &format!("SET search_path = {path}"));
        let mut queries = vec!["SELECT v::text FROM s.t", "SELECT s.f()::text AS v", "SELECT v::text FROM v"];
        if path != "public" {
            queries.extend(["SELECT v::text FROM t", "SELECT f()::text AS v"]);
        }
        for query in &queries {
            fill(&mut session, query, "v text");
        }
        run(&mut owner, &format!("REVOKE USAGE ON SCHEMA s FROM {grantee}"));
        for query in &queries {
            let expect = if query.contains("FROM v") { Expect::Anything } else { Expect::Fresh };
            assert_right(&mut session, query, "v text", expect);
            let (rows, _) = cached(&mut session, query, "v text");
            assert_eq!(rows.is_err(), !query.contains("FROM v"), "{query}: {rows:?}");
        }
    }
}

/// A partition may itself be partitioned. One that is attached, detached or created below changes the whole table, also when the
/// partition that it goes to had none before.
#[test]
fn a_partition_attached_below_another_changes_the_whole() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE TABLE p (id int, v int) PARTITION BY RANGE (id);
         CREATE TABLE p_low PARTITION OF p FOR VALUES FROM (0) TO (10);
         CREATE TABLE p_high PARTITION OF p FOR VALUES FROM (10) TO (100) PARTITION BY RANGE (id);
         CREATE TABLE new_one AS SELECT 11 AS id, 1 AS v; CREATE TABLE new_two AS SELECT 55 AS id, 1 AS v;
         CREATE TABLE new_three AS SELECT 200 AS id, 1 AS v;
         INSERT INTO p VALUES (1, 1)",
    );
    let queries = [
        "SELECT count(*)::text AS v FROM p",
        "SELECT count(*)::text AS v FROM p WHERE id > 10",
        "SELECT count(*)::text AS v FROM p_high",
        "SELECT (SELECT count(*) FROM p)::text AS v",
    ];
    let mut wrong = Vec::new();
    for (change, is_below) in [
        ("ALTER TABLE p_high ATTACH PARTITION new_one FOR VALUES FROM (10) TO (50)", true),
        ("ALTER TABLE p_high ATTACH PARTITION new_two DEFAULT", true),
        ("INSERT INTO p VALUES (12, 1), (60, 1)", true),
        ("TRUNCATE new_two", true),
        ("ALTER TABLE p ATTACH PARTITION new_three DEFAULT", false),
        ("ALTER TABLE p_high DETACH PARTITION new_one", true),
        ("ALTER TABLE p_high DETACH PARTITION new_two", true),
        (
            "CREATE TABLE p_high_3 PARTITION OF p_high FOR VALUES FROM (50) TO (90) PARTITION BY RANGE (id);
             CREATE TABLE p_high_3_1 PARTITION OF p_high_3 FOR VALUES FROM (50) TO (60);
             INSERT INTO p VALUES (51, 1)",
            true,
        ),
        ("ALTER TABLE p_high_3 ATTACH PARTITION new_one FOR VALUES FROM (60) TO (61)", true),
        ("ALTER TABLE p_high_3 DETACH PARTITION p_high_3_1 CONCURRENTLY", true),
        ("DROP TABLE p_high_3", true),
        ("ALTER TABLE p DETACH PARTITION p_high", false),
    ] {
        if change.contains("FROM (60)") {
            run(&mut other, "DELETE FROM new_one; INSERT INTO new_one VALUES (60, 1)");
        }
        for query in queries {
            wrong.extend(compare(&mut session, query, "v text", Expect::Anything));
            wrong.extend(compare(&mut other, query, "v text", Expect::Hit));
        }
        run(&mut other, change);
        for query in queries {
            let expect = if query.contains("p_high") && !is_below { Expect::Anything } else { Expect::Fresh };
            wrong.extend(
                compare(&mut session, query, "v text", expect).map(|what| format!("{change}: {what}")),
            );
            wrong.extend(
                compare(&mut other, query, "v text", Expect::Hit).map(|what| format!("{change}: {what}")),
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A security label may decide who may read a table or call a function.
#[test]
fn a_security_label_ends_the_hits() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("sessions/query/label.c");
    let provider = Server::from_env().compile("pg_cache_test_label", &source);
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut other,
        &format!(
            "LOAD '{provider}'; CREATE TABLE t AS SELECT 1 AS v;
             CREATE FUNCTION f() RETURNS int STABLE LANGUAGE sql AS 'SELECT v FROM t'"
        ),
    );
    let queries = ["SELECT v::text FROM t", "SELECT f()::text AS v"];
    for label in [
        "SECURITY LABEL ON TABLE t IS 'secret'",
        "SECURITY LABEL ON COLUMN t.v IS 'secret'",
        "SECURITY LABEL ON TABLE t IS NULL",
        "SECURITY LABEL ON SCHEMA public IS 'secret'",
        "SECURITY LABEL ON FUNCTION f() IS 'secret'",
    ] {
        queries.iter().for_each(|query| fill(&mut session, query, "v text"));
        run(&mut other, label);
        for query in queries {
            if let Some(wrong) = compare(&mut session, query, "v text", Expect::Fresh) {
                panic!("{label}: {wrong}");
            }
        }
    }
}

/// A table that occurs only in a subquery of an expression, at any place of a query, is a dependency.
#[test]
fn a_table_read_only_in_a_subquery_expression_is_a_dependency() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE TABLE t AS SELECT generate_series(1, 3) AS v; CREATE TABLE hidden AS SELECT 1 AS v; CREATE VIEW seen AS SELECT v FROM hidden;
         CREATE FUNCTION id(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT $1';
         CREATE FUNCTION hides() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT max(v) FROM hidden); END'",
    );
    let mut wrong = Vec::new();
    for query in [
        "SELECT (SELECT sum(v) FROM hidden)::text AS v",
        "SELECT (SELECT sum(v) FROM seen)::text AS v",
        "SELECT (v + (SELECT max(v) FROM hidden))::text AS v FROM t ORDER BY 1",
        "SELECT v::text FROM t WHERE v > (SELECT max(v) FROM hidden) ORDER BY 1",
        "SELECT v::text FROM t WHERE v IN (SELECT v FROM hidden) ORDER BY 1",
        "SELECT v::text FROM t WHERE v <> ALL (SELECT v FROM hidden) ORDER BY 1",
        "SELECT v::text FROM t WHERE EXISTS (SELECT FROM hidden WHERE hidden.v = t.v) ORDER BY 1",
        "SELECT v::text FROM t WHERE NOT EXISTS (SELECT FROM seen WHERE seen.v = t.v) ORDER BY 1",
        "SELECT CASE WHEN v > 2 THEN (SELECT max(v) FROM hidden) ELSE 0 END::text AS v FROM t ORDER BY 1",
        "SELECT coalesce(NULL, (SELECT max(v) FROM hidden))::text AS v",
        "SELECT v::text FROM t ORDER BY v LIMIT (SELECT max(v) FROM hidden)",
        "SELECT v::text FROM t ORDER BY v OFFSET (SELECT max(v) FROM hidden)",
        "SELECT v::text FROM t ORDER BY (v * (SELECT CASE WHEN max(v) > 1 THEN -1 ELSE 1 END FROM hidden))",
        "SELECT id((SELECT max(v) FROM hidden))::text AS v",
        "SELECT ARRAY(SELECT v FROM hidden ORDER BY v)::text AS v",
        "SELECT v::text FROM generate_series(1, (SELECT max(v) FROM hidden)) AS v ORDER BY 1",
        "SELECT sum(v) FILTER (WHERE v > (SELECT min(v) FROM hidden))::text AS v FROM t",
        "SELECT (sum(v) OVER (ORDER BY v ROWS (SELECT max(v) FROM hidden) PRECEDING))::text AS v FROM t ORDER BY t.v",
        "SELECT count(*)::text AS v FROM t GROUP BY v > (SELECT max(v) FROM hidden) ORDER BY 1",
        "SELECT count(*)::text AS v FROM t HAVING count(*) > (SELECT max(v) FROM hidden)",
        "VALUES ((SELECT sum(v) FROM hidden)::text)",
        "WITH c AS MATERIALIZED (SELECT v FROM hidden) SELECT (SELECT sum(v) FROM c)::text AS v",
        "WITH RECURSIVE c AS (SELECT 1 AS v UNION ALL SELECT v + 1 FROM c WHERE v < (SELECT max(v) FROM hidden)) SELECT count(*)::text AS v FROM c",
        "SELECT l.v::text FROM t, LATERAL (SELECT max(h.v) + t.v AS v FROM hidden AS h) AS l ORDER BY 1",
        "SELECT t.v::text FROM t LEFT JOIN hidden AS h ON h.v = t.v WHERE (SELECT true FROM hidden LIMIT 1) ORDER BY 1",
        "SELECT v::text FROM t WHERE v = id((SELECT max(v) FROM hidden)) ORDER BY 1",
        "SELECT v::text FROM t WHERE v > hides() ORDER BY 1",
        "SELECT (SELECT (SELECT (SELECT max(v) FROM hidden)))::text AS v",
        "SELECT (ROW(1, (SELECT max(v) FROM hidden)) < ROW(1, 3))::text AS v",
        "SELECT v::text FROM t INTERSECT SELECT v::text FROM hidden ORDER BY 1",
    ] {
        for write in [
            "UPDATE hidden SET v = v + 1",
            "INSERT INTO hidden VALUES (2)",
            "TRUNCATE hidden",
            "INSERT INTO hidden VALUES (1)",
        ] {
            wrong.extend(compare(&mut session, query, "v text", Expect::Anything));
            wrong.extend(compare(&mut other, query, "v text", Expect::Hit));
            run(&mut other, write);
            wrong.extend(compare(&mut session, query, "v text", Expect::Invalidated("table hidden")));
        }
    }
    assert!(wrong.is_empty(), "{} cases: {wrong:#?}", wrong.len());
}

/// A refresh stores a new result. It must be invalidated by the same changes as the first one, and vary with the same settings.
#[test]
fn a_refresh_keeps_dependencies_context_and_tags() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE TABLE t AS SELECT 1 AS v; CREATE TABLE u AS SELECT 1 AS v; SET app.tenant = 'one'",
    );
    run(&mut other, "SET app.tenant = 'two'");
    let query = "SELECT current_setting('app.tenant') || ' ' || v || ' ' || (SELECT v FROM u) AS v FROM t";
    let tagged = "tags => '{x}'";
    let refresh = "tags => '{x}', refresh => true";
    assert_call(&mut session, query, tagged, &["one 1 1"], Expect::Stored);
    assert_call(&mut other, query, tagged, &["two 1 1"], Expect::Stored);
    for (change, changed) in [
        ("UPDATE t SET v = 2", "2 1"),
        ("UPDATE u SET v = 2", "2 2"),
        ("ALTER TABLE u ALTER v TYPE bigint", "2 2"),
        ("SELECT cache_invalidate_tag('x')", "2 2"),
    ] {
        let (_, status) = cached_with(&mut session, query, "v text", refresh);
        assert_eq!(status, "done", "{change}");
        let one = text(&mut session, query);
        assert_call(&mut session, query, tagged, &[&one], Expect::Hit);
        let two = text(&mut other, query);
        assert_call(&mut other, query, tagged, &[&two], Expect::Anything);
        assert_call(&mut other, query, tagged, &[&two], Expect::Hit);
        run(&mut other, change);
        assert_call(&mut session, query, tagged, &[&format!("one {changed}")], Expect::Fresh);
        assert_call(&mut other, query, tagged, &[&format!("two {changed}")], Expect::Fresh);
    }
    // A refresh by one session is for all sessions with its context, and for no other.
    run(&mut other, "RESET app.tenant; SET app.tenant = 'one'");
    assert_call(&mut other, query, refresh, &["one 2 2"], Expect::Fresh);
    assert_call(&mut session, query, tagged, &["one 2 2"], Expect::Hit);
    // A refresh without the tag is no result for a caller with the tag.
    assert_call(&mut other, query, "refresh => true", &["one 2 2"], Expect::Fresh);
    run(&mut other, "SELECT cache_invalidate_tag('x')");
    assert_call(&mut session, query, tagged, &["one 2 2"], Expect::Fresh);
    assert_call(&mut session, query, tagged, &["one 2 2"], Expect::Hit);
}

/// Holds the fill of a query while a writer commits. The writer's change is not in the result, so the result must not be served,
/// also not to sessions that come before the fill ends.
#[test]
fn a_result_stored_after_the_invalidation_is_not_served() {
    let database = Database::create();
    let [mut gate, mut writer] = [(); 2].map(|()| database.connect());
    run(
        &mut gate,
        "CREATE TABLE t AS SELECT 1 AS v;
         CREATE FUNCTION held(v int) RETURNS int STABLE LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN v; END'",
    );
    let query = "SELECT held(v)::text AS v FROM t";
    for change in [
        "UPDATE t SET v = v + 1",
        "DELETE FROM t; INSERT INTO t VALUES (7)",
        "SELECT cache_invalidate_relation('t')",
        "SELECT cache_invalidate_tag('x')",
        "CREATE OR REPLACE FUNCTION held(v int) RETURNS int STABLE LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN v + 100; END'",
    ] {
        run(&mut gate, "SELECT cache_flush(); SELECT pg_advisory_lock(1)");
        let mut filler = database.connect();
        let filling = std::thread::spawn(move || cached_with(&mut filler, query, "v text", "tags => '{x}'"));
        wait_until("the fill to wait", || {
            let waits =
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database =
                         (SELECT oid FROM pg_database WHERE datname = current_database())";
            text(&mut gate, waits) == "1"
        });
        let before = text(&mut writer, "SELECT v FROM t");
        run(&mut writer, change);
        run(&mut gate, "SELECT pg_advisory_unlock(1)");
        let (rows, status) = filling.join().expect("it runs");
        assert_eq!(rows, Ok(vec![vec![Some(before)]]), "{change}: the row from before the change, {status}");
        for options in ["tags => '{x}'", ""] {
            let direct = answer(&mut writer, query);
            let (rows, status) = cached_with(&mut writer, query, "v text", options);
            assert_eq!(rows, direct, "{change}, {options}: {status}");
            if options.contains('x') {
                assert!(Expect::Fresh.fits(&status), "{change}, {options}: {status}");
            }
        }
    }
    assert_eq!(findings(&mut gate), Vec::<String>::new());
}

/// The text of an object's number is its name, which changes without a change of the table that holds the number. The number of a
/// name changes as well. The values of these types come from a table, so the query has no constant that shows the object.
#[test]
fn a_renamed_object_counts_where_a_table_holds_its_number_or_name() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE TABLE u AS SELECT 1 AS v; CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TYPE pair AS (a int, b int);
         CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE SCHEMA s; CREATE TABLE s.w (); CREATE DOMAIN small AS int;
         CREATE COLLATION plain FROM \"C\"; CREATE OPERATOR @#@ (FUNCTION = int4pl, LEFTARG = int, RIGHTARG = int);
         CREATE TABLE refs AS SELECT 'u'::regclass AS r, 'u'::regclass::oid AS o, 'pair'::regtype AS t, 'f'::regproc AS p,
             'f()'::regprocedure AS pp, 's'::regnamespace AS n, 's.w'::regclass AS w, 'u' AS name, 'happy'::mood AS m,
             ROW(1, 2)::pair AS c, ARRAY['u'::regclass] AS rs, 5::small AS d, 'plain'::regcollation AS l, '@#@(int,int)'::regoperator AS op",
    );
    let mut wrong = Vec::new();
    for (query, change, undo) in [
        ("SELECT r::text AS v FROM refs", "ALTER TABLE u RENAME TO u2", "ALTER TABLE u2 RENAME TO u"),
        ("SELECT 'is ' || r AS v FROM refs", "ALTER TABLE u RENAME TO u2", "ALTER TABLE u2 RENAME TO u"),
        ("SELECT format('%s', r) AS v FROM refs", "ALTER TABLE u RENAME TO u2", "ALTER TABLE u2 RENAME TO u"),
        (
            "SELECT to_jsonb(r)::text AS v FROM refs",
            "ALTER TABLE u RENAME TO u2",
            "ALTER TABLE u2 RENAME TO u",
        ),
        ("SELECT rs::text AS v FROM refs", "ALTER TABLE u RENAME TO u2", "ALTER TABLE u2 RENAME TO u"),
        ("SELECT refs::text AS v FROM refs", "ALTER TABLE u RENAME TO u2", "ALTER TABLE u2 RENAME TO u"),
        (
            "SELECT string_agg(r::text, ',') AS v FROM refs",
            "ALTER TABLE u SET SCHEMA s",
            "ALTER TABLE s.u SET SCHEMA public",
        ),
        ("SELECT w::text AS v FROM refs", "ALTER SCHEMA s RENAME TO s2", "ALTER SCHEMA s2 RENAME TO s"),
        (
            "SELECT o::regclass::text AS v FROM refs",
            "ALTER TABLE u RENAME TO u2",
            "ALTER TABLE u2 RENAME TO u",
        ),
        (
            "SELECT name::regclass::oid::int8 - o::int8 || '' AS v FROM refs",
            "ALTER TABLE u RENAME TO u2; CREATE TABLE u ()",
            "DROP TABLE u; ALTER TABLE u2 RENAME TO u",
        ),
        (
            "SELECT t::text AS v FROM refs",
            "ALTER TYPE pair RENAME TO pair2",
            "ALTER TYPE pair2 RENAME TO pair",
        ),
        (
            "SELECT format_type(t, NULL) AS v FROM refs",
            "ALTER TYPE pair RENAME TO pair2",
            "ALTER TYPE pair2 RENAME TO pair",
        ),
        (
            "SELECT pg_typeof(c)::text AS v FROM refs",
            "ALTER TYPE pair RENAME TO pair2",
            "ALTER TYPE pair2 RENAME TO pair",
        ),
        (
            "SELECT pg_typeof(d)::text AS v FROM refs",
            "ALTER DOMAIN small RENAME TO smaller",
            "ALTER DOMAIN smaller RENAME TO small",
        ),
        (
            "SELECT p::text AS v FROM refs",
            "ALTER FUNCTION f() RENAME TO f2",
            "ALTER FUNCTION f2() RENAME TO f",
        ),
        (
            "SELECT p::text AS v FROM refs",
            "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "DROP FUNCTION f(int)",
        ),
        (
            "SELECT pp::text AS v FROM refs",
            "ALTER FUNCTION f() RENAME TO f2",
            "ALTER FUNCTION f2() RENAME TO f",
        ),
        ("SELECT n::text AS v FROM refs", "ALTER SCHEMA s RENAME TO s2", "ALTER SCHEMA s2 RENAME TO s"),
        (
            "SELECT l::text AS v FROM refs",
            "ALTER COLLATION plain RENAME TO plainer",
            "ALTER COLLATION plainer RENAME TO plain",
        ),
        (
            "SELECT op::text AS v FROM refs",
            "ALTER OPERATOR @#@ (int, int) SET SCHEMA s",
            "ALTER OPERATOR s.@#@ (int, int) SET SCHEMA public",
        ),
        (
            "SELECT m::text AS v FROM refs",
            "ALTER TYPE mood RENAME VALUE 'happy' TO 'glad'",
            "ALTER TYPE mood RENAME VALUE 'glad' TO 'happy'",
        ),
        (
            "SELECT to_jsonb(refs) ->> 'm' AS v FROM refs",
            "ALTER TYPE mood RENAME VALUE 'happy' TO 'glad'",
            "ALTER TYPE mood RENAME VALUE 'glad' TO 'happy'",
        ),
        (
            "SELECT (m > 'sad')::text || enum_range(m)::text AS v FROM refs",
            "ALTER TYPE mood ADD VALUE 'mad' BEFORE 'happy'",
            "SELECT",
        ),
        (
            "SELECT to_jsonb(c)::text AS v FROM refs",
            "ALTER TYPE pair RENAME ATTRIBUTE a TO z",
            "ALTER TYPE pair RENAME ATTRIBUTE z TO a",
        ),
        (
            "SELECT row_to_json(u)::text AS v FROM u",
            "ALTER TABLE u RENAME v TO w",
            "ALTER TABLE u RENAME w TO v",
        ),
        (
            "SELECT tableoid::regclass::text AS v FROM u",
            "ALTER TABLE u RENAME TO u2; CREATE VIEW u AS SELECT *, tableoid FROM u2",
            "DROP VIEW u; ALTER TABLE u2 RENAME TO u",
        ),
        (
            "SELECT has_table_privilege('pg_monitor', o, 'SELECT')::text AS v FROM refs",
            "GRANT SELECT ON u TO pg_monitor",
            "REVOKE SELECT ON u FROM pg_monitor",
        ),
        (
            "SELECT has_schema_privilege('pg_monitor', n, 'USAGE')::text AS v FROM refs",
            "GRANT USAGE ON SCHEMA s TO pg_monitor",
            "REVOKE USAGE ON SCHEMA s FROM pg_monitor",
        ),
        (
            "SELECT pg_table_is_visible(o)::text AS v FROM refs",
            "ALTER TABLE u SET SCHEMA s",
            "ALTER TABLE s.u SET SCHEMA public",
        ),
        (
            "SELECT coalesce(obj_description(o, 'pg_class'), '') AS v FROM refs",
            "COMMENT ON TABLE u IS 'about'",
            "COMMENT ON TABLE u IS NULL",
        ),
        (
            "SELECT coalesce(col_description(o, 1), '') AS v FROM refs",
            "COMMENT ON COLUMN u.v IS 'about'",
            "COMMENT ON COLUMN u.v IS NULL",
        ),
        (
            "SELECT pg_get_functiondef(pp) AS v FROM refs",
            "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
            "SELECT",
        ),
        (
            "SELECT coalesce(to_regclass(name || '2')::text, '') AS v FROM refs",
            "CREATE TABLE u2 ()",
            "DROP TABLE u2",
        ),
        (
            "SELECT coalesce(to_regtype(name || '2')::text, '') AS v FROM refs",
            "CREATE TYPE u2 AS ENUM ()",
            "DROP TYPE u2",
        ),
        (
            "SELECT coalesce(to_regproc(name || '2')::text, '') AS v FROM refs",
            "CREATE FUNCTION u2() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "DROP FUNCTION u2()",
        ),
        (
            "SELECT (SELECT count(*) FROM json_populate_record(NULL::pair, '{\"a\": 1}') AS j WHERE j.a IS NULL)::text AS v",
            "ALTER TYPE pair RENAME ATTRIBUTE a TO z; ALTER TYPE pair RENAME ATTRIBUTE b TO a",
            "ALTER TYPE pair RENAME ATTRIBUTE a TO b; ALTER TYPE pair RENAME ATTRIBUTE z TO a",
        ),
    ] {
        for statement in [change, undo] {
            for _ in 0..2 {
                let what = compare(&mut session, query, "v text", Expect::Anything);
                wrong.extend(what.map(|what| format!("before {statement}: {what}")));
            }
            for statement in statement.split("; ") {
                run(&mut other, statement);
            }
            for session in [&mut session, &mut other] {
                let what = compare(session, query, "v text", Expect::Anything);
                wrong.extend(what.map(|what| format!("after {statement}: {what}")));
            }
        }
    }
    // The names of roles belong to the cluster.
    let cluster = cluster(&Conf::preloaded());
    let mut session = cluster.connect("postgres");
    run(
        &mut session,
        "CREATE ROLE one; CREATE TABLE refs AS SELECT 'one'::regrole AS r, 'one'::regrole::oid AS o",
    );
    for query in ["SELECT r::text AS v FROM refs", "SELECT pg_get_userbyid(o)::text AS v FROM refs"] {
        for name in ["two", "one"] {
            for _ in 0..2 {
                wrong.extend(compare(&mut session, query, "v text", Expect::Anything));
            }
            let old = if name == "two" { "one" } else { "two" };
            run(&mut session, &format!("ALTER ROLE {old} RENAME TO {name}"));
            wrong.extend(compare(&mut session, query, "v text", Expect::Anything));
        }
    }
    assert!(wrong.is_empty(), "{} cases: {wrong:#?}", wrong.len());
}

/// Autovacuum analyzes and vacuums tables and catalogs at any time. That changes no definition.
#[test]
fn analyze_and_vacuum_leave_all_results() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE TABLE t AS SELECT generate_series(1, 100) AS v;
         CREATE FUNCTION f() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT sum(v) FROM t'",
    );
    let queries = ["SELECT sum(v)::text AS v FROM t", "SELECT f()::text AS v"];
    let mut wrong = Vec::new();
    for statement in [
        "ANALYZE t",
        "VACUUM t",
        "VACUUM (FREEZE) t",
        "ANALYZE pg_class",
        "ANALYZE pg_attribute",
        "ANALYZE pg_proc",
        "ANALYZE pg_type",
        "ANALYZE pg_statistic",
        "VACUUM pg_class",
        "VACUUM pg_attribute",
        "VACUUM (FREEZE) pg_proc",
        "ANALYZE",
        "CREATE INDEX ON t (v)",
        "REINDEX TABLE t",
    ] {
        for query in queries {
            wrong.extend(compare(&mut session, query, "v text", Expect::Anything));
        }
        run(&mut other, statement);
        for query in queries {
            let what = compare(&mut session, query, "v text", Expect::Hit);
            wrong.extend(what.map(|what| format!("{statement}: {what}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Large values of a table lie in another table, and functions return arrays and records in a form of their own. A stored result
/// must have the values themselves. With `depends => '{}'`, the result outlives the rows that it came from.
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

/// A function may open a cursor and return its name. The caller then fetches from the cursor, which a stored name does not open.
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

/// A function that is declared `STABLE` may call built-in functions that are volatile, because what they read changes at any time
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

/// A transaction that has changed definitions sees them itself. Others get the result with the old ones, until the commit.
#[test]
fn uncommitted_definitions_count_in_their_transaction_only() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE SCHEMA ahead; CREATE TABLE t AS SELECT 1 AS v, 2 AS w; CREATE VIEW seen AS SELECT v FROM t;
         CREATE FUNCTION f() RETURNS int STABLE LANGUAGE sql AS 'SELECT v FROM t';
         CREATE FUNCTION g(x int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT x + 1';
         CREATE TABLE p (id int) PARTITION BY LIST (id); CREATE TABLE p_1 PARTITION OF p FOR VALUES IN (1); INSERT INTO p VALUES (1);
         CREATE TABLE part AS SELECT 2 AS id;
         CREATE CAST (text AS integer) WITH INOUT AS ASSIGNMENT;
         CREATE OPERATOR @#@ (FUNCTION = int4pl, LEFTARG = int, RIGHTARG = int)",
    );
    for session in [&mut session, &mut other] {
        run(session, "SET search_path = ahead, public");
    }
    let queries = [
        "SELECT v::text FROM t",
        "SELECT v::text FROM seen",
        "SELECT f()::text AS v",
        "SELECT g(v)::text AS v FROM t",
        "SELECT count(*)::text AS v FROM p",
        "SELECT (v @#@ v)::text AS v FROM t",
    ];
    let mut wrong = Vec::new();
    for change in [
        "ALTER TABLE t RENAME v TO old; ALTER TABLE t RENAME w TO v",
        "CREATE TABLE ahead.t AS SELECT 3 AS v",
        "CREATE OR REPLACE VIEW public.seen AS SELECT w AS v FROM t",
        "CREATE OR REPLACE FUNCTION public.f() RETURNS int STABLE LANGUAGE sql AS 'SELECT w FROM t'",
        "CREATE VIEW ahead.seen AS SELECT w AS v FROM t",
        "CREATE FUNCTION ahead.f() RETURNS int STABLE LANGUAGE sql AS 'SELECT w FROM t'",
        "CREATE FUNCTION ahead.g(x int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT x + 100'",
        "ALTER TABLE p ATTACH PARTITION part FOR VALUES IN (2)",
        "DROP TABLE p_1",
        "DROP OPERATOR @#@ (int, int); CREATE OPERATOR @#@ (FUNCTION = int4mi, LEFTARG = int, RIGHTARG = int)",
        "DROP VIEW public.seen; ALTER TABLE t ALTER v TYPE bigint USING v * 10; CREATE VIEW public.seen AS SELECT v FROM t",
    ] {
        for end in ["ROLLBACK", "SAVEPOINT", "COMMIT"] {
            for query in queries {
                wrong.extend(compare(&mut session, query, "v text", Expect::Anything));
                wrong.extend(compare(&mut other, query, "v text", Expect::Hit));
            }
            let begin = if end == "SAVEPOINT" { "BEGIN; SAVEPOINT s" } else { "BEGIN" };
            run(&mut session, begin);
            run(&mut session, change);
            for query in queries {
                // An error would end the transaction.
                run(&mut session, "SAVEPOINT q");
                let direct = answer(&mut session, query);
                run(&mut session, "ROLLBACK TO q");
                let (rows, status) = cached(&mut session, query, "v text");
                run(&mut session, "ROLLBACK TO q");
                if rows != direct {
                    wrong.push(format!(
                        "{change}, in the transaction: {query}: {rows:?}, not {direct:?}, {status}"
                    ));
                }
            }
            // The change holds locks, so others can ask only for what it does not lock.
            if change.starts_with("CREATE FUNCTION") || change.starts_with("CREATE TABLE") {
                for query in queries {
                    let what = compare(&mut other, query, "v text", Expect::Hit);
                    wrong.extend(what.map(|what| format!("{change}, beside the transaction: {what}")));
                }
            }
            run(&mut session, if end == "SAVEPOINT" { "ROLLBACK TO s; COMMIT" } else { end });
            let expect = if end == "COMMIT" { Expect::Anything } else { Expect::Hit };
            for query in queries {
                let what = compare(&mut other, query, "v text", expect);
                wrong.extend(what.map(|what| format!("{change} {end}: {what}")));
                let what = compare(&mut session, query, "v text", Expect::Anything);
                wrong.extend(what.map(|what| format!("{change} {end}: {what}")));
            }
        }
        // The next change begins with the first state of what the queries read.
        run(
            &mut other,
            "DROP SCHEMA ahead CASCADE; CREATE SCHEMA ahead; DROP VIEW public.seen; DROP TABLE public.t, p;
             DROP TABLE IF EXISTS part;
             CREATE TABLE public.t AS SELECT 1 AS v, 2 AS w; CREATE VIEW public.seen AS SELECT v FROM t;
             CREATE OR REPLACE FUNCTION public.f() RETURNS int STABLE LANGUAGE sql AS 'SELECT v FROM t';
             CREATE TABLE public.p (id int) PARTITION BY LIST (id); CREATE TABLE public.p_1 PARTITION OF p FOR VALUES IN (1);
             INSERT INTO p VALUES (1); CREATE TABLE public.part AS SELECT 2 AS id",
        );
    }
    assert!(wrong.is_empty(), "{} cases: {wrong:#?}", wrong.len());
}

/// The planner leaves out a table that cannot change the result: by a constraint, a unique index or an empty condition. The
/// constraint or the index may be dropped later, and dropping an index is no change of a definition.
#[test]
fn a_table_that_the_planner_left_out_is_still_a_dependency() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "SET constraint_exclusion = on;
         CREATE TABLE a AS SELECT generate_series(1, 3) AS id; CREATE TABLE b (id int NOT NULL, v int); CREATE UNIQUE INDEX b_id ON b (id);
         INSERT INTO b VALUES (1, 1);
         CREATE TABLE limited (v int CONSTRAINT small CHECK (v < 100)); INSERT INTO limited VALUES (1);
         CREATE TABLE whole (v int CHECK (v IS NOT NULL)); CREATE TABLE heir (CONSTRAINT heirs CHECK (v > 1000)) INHERITS (whole)",
    );
    run(&mut other, "SET constraint_exclusion = on");
    let mut wrong = Vec::new();
    for (query, changes) in [
        (
            "SELECT count(*)::text AS v FROM a LEFT JOIN b ON a.id = b.id",
            &["INSERT INTO b VALUES (2, 2)", "DROP INDEX b_id", "INSERT INTO b VALUES (1, 5), (2, 6)"][..],
        ),
        (
            "SELECT count(*)::text AS v FROM limited WHERE v > 500",
            &[
                "INSERT INTO limited VALUES (5)",
                "ALTER TABLE limited DROP CONSTRAINT small",
                "INSERT INTO limited VALUES (501)",
            ],
        ),
        (
            "SELECT count(*)::text AS v FROM whole WHERE v BETWEEN 1 AND 10",
            &[
                "INSERT INTO heir VALUES (2000)",
                "INSERT INTO whole VALUES (5)",
                "ALTER TABLE heir DROP CONSTRAINT heirs",
                "INSERT INTO heir VALUES (6)",
                "CREATE TABLE late () INHERITS (whole)",
                "INSERT INTO late VALUES (7)",
                "ALTER TABLE late NO INHERIT whole",
                "INSERT INTO late VALUES (8)",
            ],
        ),
        (
            "SELECT count(*)::text AS v FROM whole WHERE v IS NULL",
            &[
                "ALTER TABLE whole DROP CONSTRAINT whole_v_check",
                "INSERT INTO whole VALUES (NULL)",
                "INSERT INTO heir VALUES (NULL)",
            ],
        ),
        (
            "SELECT count(*)::text AS v FROM a WHERE id IN (SELECT id FROM b WHERE false) OR id = 1",
            &["DELETE FROM a WHERE id = 1", "INSERT INTO a VALUES (1), (1)", "TRUNCATE b"],
        ),
    ] {
        for change in changes {
            wrong.extend(compare(&mut session, query, "v text", Expect::Anything));
            wrong.extend(compare(&mut other, query, "v text", Expect::Hit));
            run(&mut other, change);
            for session in [&mut session, &mut other] {
                let what = compare(session, query, "v text", Expect::Anything);
                wrong.extend(what.map(|what| format!("{change}: {what}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases: {wrong:#?}", wrong.len());
}

/// A query may read a table although neither its text nor a view of it names the table: in a policy, a domain, an aggregate, an
/// operator, a cast, or in a function that runs a query it is given.
#[test]
fn a_table_that_only_objects_of_the_query_read_is_a_dependency() {
    let cluster = cluster(&Conf::preloaded());
    let [mut owner, mut session, mut other] = [(); 3].map(|()| cluster.connect("postgres"));
    let has_crosstab = !cluster.server().lacks("tablefunc");
    run(
        &mut owner,
        "SELECT cache_grant('default', '-', 'write'); CREATE ROLE reader;
         CREATE TABLE hidden AS SELECT 1 AS v; CREATE TABLE t AS SELECT generate_series(1, 3) AS v; GRANT SELECT ON hidden, t TO reader;
         CREATE FUNCTION most() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT max(v) FROM hidden); END';
         CREATE FUNCTION most_of(x int) RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT max(v) + x FROM hidden); END';
         CREATE FUNCTION is_allowed(x int) RETURNS boolean STABLE LANGUAGE plpgsql AS
             'BEGIN RETURN x <> (SELECT max(v) FROM hidden); END';
         CREATE DOMAIN allowed AS int CHECK (is_allowed(VALUE));
         CREATE TYPE box_of AS (a allowed);
         CREATE FUNCTION adds(sum int, x int) RETURNS int STABLE LANGUAGE plpgsql AS
             'BEGIN RETURN coalesce(sum, 0) + x + (SELECT max(v) FROM hidden); END';
         CREATE AGGREGATE total(int) (SFUNC = adds, STYPE = int);
         CREATE OPERATOR @# (FUNCTION = most_of, RIGHTARG = int);
         CREATE TYPE wrapped AS (x int);
         CREATE FUNCTION wrap(x int) RETURNS wrapped STABLE LANGUAGE plpgsql AS
             'BEGIN RETURN ROW(x + (SELECT max(v) FROM hidden))::wrapped; END';
         CREATE CAST (int AS wrapped) WITH FUNCTION wrap(int);
         CREATE FUNCTION with_default(x int DEFAULT most()) RETURNS int STABLE LANGUAGE sql AS 'SELECT x';
         CREATE TABLE secured AS SELECT generate_series(1, 9) AS v; ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON secured USING (v <= (SELECT max(v) FROM hidden)); GRANT SELECT ON secured TO reader;
         CREATE TABLE judged AS SELECT generate_series(1, 9) AS v; ALTER TABLE judged ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON judged USING (v <= most()); GRANT SELECT ON judged TO reader;
         CREATE VIEW barrier WITH (security_barrier) AS SELECT v FROM secured WHERE EXISTS (SELECT FROM hidden WHERE v < 3);
         GRANT SELECT ON barrier TO reader",
    );
    let mut queries = vec![
        "SELECT v::text FROM secured ORDER BY 1",
        "SELECT v::text FROM judged ORDER BY 1",
        "SELECT count(*)::text AS v FROM barrier",
        "SELECT 5::allowed::text AS v",
        "SELECT (ROW(5)::box_of)::text AS v",
        "SELECT '{\"a\": 5}'::jsonb::text || (SELECT a FROM jsonb_populate_record(NULL::box_of, '{\"a\": 5}')) AS v",
        "SELECT ('{5}'::allowed[])::text AS v",
        "SELECT total(v)::text AS v FROM t",
        "SELECT (total(v) OVER (ORDER BY v))::text AS v FROM t ORDER BY t.v",
        "SELECT (@# v)::text AS v FROM t ORDER BY 1",
        "SELECT (v::wrapped)::text AS v FROM t ORDER BY 1",
        "SELECT with_default()::text AS v",
        "SELECT table_to_xml('hidden'::regclass, true, true, '')::text AS v",
        "SELECT length(schema_to_xml('public'::regnamespace, true, true, '')::text)::text AS v",
        "SELECT format('%s', most()) AS v",
    ];
    if has_crosstab {
        run(&mut owner, "CREATE EXTENSION tablefunc");
        queries.push(
            "SELECT x::text AS v FROM crosstab('SELECT 1, 1, v FROM hidden ORDER BY 1, 2, 3') AS c(k int, x int)",
        );
        queries.push(
            "SELECT branch AS v FROM connectby('(SELECT v, v - 1 AS up FROM hidden) AS h', 'v', 'up', '0', 0, ' ') AS c(k int, up int, l int, branch text)",
        );
    }
    run(&mut session, "SET ROLE reader");
    run(&mut other, "SET ROLE reader");
    let mut wrong = Vec::new();
    for query in queries {
        for write in [
            "UPDATE hidden SET v = 5",
            "INSERT INTO hidden VALUES (7)",
            "DELETE FROM hidden WHERE v > 1",
            "INSERT INTO hidden VALUES (1)",
        ] {
            for session in [&mut session, &mut other] {
                wrong.extend(compare(session, query, "v text", Expect::Anything));
            }
            run(&mut owner, write);
            for session in [&mut session, &mut other] {
                let what = compare(session, query, "v text", Expect::Anything);
                wrong.extend(what.map(|what| format!("{write}: {what}")));
            }
        }
    }
    // The same domain in arguments, which are converted before the query runs.
    for query in [
        "SELECT ($1::allowed)::text AS v",
        "SELECT ($1::allowed[])::text AS v",
        "SELECT ($1::box_of)::text AS v",
    ] {
        let args = ["'[6]'", "'[[6]]'", "'[\"(6)\"]'"]
            [usize::from(query.contains("[]")) + 2 * usize::from(query.contains("box"))];
        let literal = query.replace(
            "$1",
            ["'6'", "'{6}'", "'(6)'"]
                [usize::from(query.contains("[]")) + 2 * usize::from(query.contains("box"))],
        );
        for write in ["UPDATE hidden SET v = 1", "UPDATE hidden SET v = 6", "UPDATE hidden SET v = 2"] {
            run(&mut owner, write);
            for _ in 0..2 {
                let direct = answer(&mut session, &literal);
                let (rows, status) = cached_with(&mut session, query, "v text", &format!("args => {args}"));
                if rows != direct {
                    wrong.push(format!("{write}: {query}, {args}: {rows:?} instead of {direct:?}, {status}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases: {wrong:#?}", wrong.len());
}

/// A name in a literal of a type such as `regclass` is no identifier of the text. It may still be that of a temporary table.
#[test]
fn a_literal_that_names_a_temporary_table_is_not_shared() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(&mut session, "CREATE TABLE t (v int); CREATE TEMPORARY TABLE t (v int)");
    let query = "SELECT ('t'::regclass = 'public.t'::regclass)::text AS v";
    for _ in 0..2 {
        assert_right(&mut session, query, "v text", Expect::Refused("refused: "));
    }
    // Stored by a session without temporary tables, the result is no hit for one with them.
    fill(&mut other, query, "v text");
    assert_right(&mut session, query, "v text", Expect::Fresh);
}

/// The current schema may be the session's own schema for temporary objects.
#[test]
fn the_current_schema_is_never_that_of_another_session() {
    let database = Database::create();
    let mut sessions = [(); 2].map(|()| database.connect());
    for session in &mut sessions {
        run(session, "SET search_path = pg_temp, public; CREATE TEMPORARY TABLE x (v int)");
    }
    for query in [
        "SELECT current_schema AS v",
        "SELECT current_schema()::text AS v",
        "SELECT current_schemas(true)::text AS v",
    ] {
        let columns = if query.contains("()") || query.contains("schemas") { "v text" } else { "v name" };
        for session in &mut sessions {
            assert_right(session, query, columns, Expect::Refused("refused: "));
        }
    }
}

/// A column may have any name, also that of the relation from which the rows become JSON.
#[test]
fn a_column_with_the_name_of_the_row_source_stays_a_column() {
    let database = Database::create();
    let mut session = database.connect();
    let rows = text(&mut session, "SELECT public.cache_query_json('SELECT 1 AS pg_cache_rows, 2 AS b')");
    assert_eq!(rows, r#"[{"b": 2, "pg_cache_rows": 1}]"#);
}

/// The arguments of a call lie side by side in their stored form, so a word of one must not hide in the end of another.
#[test]
fn a_moment_in_a_later_argument_reads_the_clock() {
    let database = Database::create();
    let mut session = database.connect();
    let (query, args) = ("SELECT $1::text || $2::date AS v", r#"'["a", "today"]'"#);
    let (rows, _) = cached_with(&mut session, query, "v text", &format!("args => {args}"));
    assert!(rows.is_ok(), "{rows:?}");
    let left = seconds_left(&mut session, query, args);
    assert!(left.is_some_and(|left| left <= 60.0), "{left:?}");
}

/// A sort calls the comparison function of the operator's family, which the text names nowhere.
#[test]
fn a_replaced_comparison_function_of_an_operator_class_counts() {
    let database = Database::create();
    let mut session = database.connect();
    let compare_by = |sign: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION by_value(int, int) RETURNS int IMMUTABLE LANGUAGE sql
                 AS 'SELECT {sign} (CASE WHEN $1 < $2 THEN 1 WHEN $1 > $2 THEN -1 ELSE 0 END)'"
        )
    };
    run(
        &mut session,
        &format!(
            "{};
             CREATE OPERATOR |<| (LEFTARG = int, RIGHTARG = int, FUNCTION = int4lt);
             CREATE OPERATOR |=| (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);
             CREATE OPERATOR |>| (LEFTARG = int, RIGHTARG = int, FUNCTION = int4gt);
             CREATE OPERATOR CLASS by_values FOR TYPE int USING btree AS
                 OPERATOR 1 |<|, OPERATOR 3 |=|, OPERATOR 5 |>|, FUNCTION 1 by_value(int, int);
             CREATE TABLE t AS SELECT v FROM unnest('{{2,1,3}}'::int[]) AS v",
            compare_by("-")
        ),
    );
    let query = "SELECT v::text FROM t ORDER BY v USING |<|";
    fill(&mut session, query, "v text");
    run(&mut session, &compare_by("+"));
    assert_right(&mut session, query, "v text", Expect::Fresh);
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

/// A result that has read the clock must not live longer because a session touches its key.
#[test]
fn a_touch_does_not_prolong_a_result() {
    let database = Database::create();
    let mut session = database.connect();
    let query = "SELECT current_date::text AS v";
    fill(&mut session, query, "v text");
    let touch = format!("SELECT public.cache_touch(public.cache_key($${query}$$), '1 hour')::text");
    assert_eq!(text(&mut session, &touch), "false");
    assert!(seconds_left(&mut session, query, "NULL").is_some_and(|left| left <= 60.0));
}

/// A query whose tables change each time while it runs is left out for a while: it runs, and nothing is stored. A refresh tries
/// again.
#[test]
fn a_query_that_changes_while_it_runs_is_left_out() {
    let database = Database::create();
    let [mut gate, mut writer] = [(); 2].map(|()| database.connect());
    // The time that the query takes decides for how long it is left out: five seconds.
    run(
        &mut gate,
        "CREATE TABLE t AS SELECT 1 AS v;
         CREATE FUNCTION held(v int) RETURNS int STABLE LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_sleep(0.5), pg_advisory_xact_lock_shared(2); RETURN v; END'",
    );
    let query = "SELECT held(v)::text AS v FROM t";
    for _ in 0..2 {
        run(&mut gate, "SELECT pg_advisory_lock(2)");
        let mut filler = database.connect();
        let filling = std::thread::spawn(move || cached(&mut filler, query, "v text"));
        wait_until("the fill to wait", || {
            let waits =
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database =
                         (SELECT oid FROM pg_database WHERE datname = current_database())";
            text(&mut gate, waits) == "1"
        });
        run(&mut writer, "UPDATE t SET v = v + 1");
        run(&mut gate, "SELECT pg_advisory_unlock(2)");
        let (_, status) = filling.join().expect("it runs");
        assert_eq!(status, "refused: table t changed while the query ran");
    }
    assert_call(&mut writer, query, "", &["3"], Expect::Refused("refused: the query is invalidated faster"));
    let state = text(&mut writer, "SELECT state FROM cache_queries");
    assert!(state.starts_with("left out until "), "{state}");
    assert_call(&mut gate, query, "refresh => true", &["3"], Expect::Anything);
    assert_call(&mut writer, query, "", &["3"], Expect::Hit);
}
