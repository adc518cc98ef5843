//! Conditions on which a result depends besides its text: settings, temporary objects, privileges and the clock. A session must not
//! get a result that was computed under other conditions. `calls.rs` has the calls: `compare` runs a query with and without the
//! cache, and returns what is wrong, if anything; `Expect` is the status that the cached call must have.

use super::super::calls::{
    Expect, answer, assert_right, cached, cached_with, call, compare, fill, run, text,
};
use super::seconds_left;
use crate::memory::{cluster, findings};
use pg_cache_testbed::{Conf, Database, Server, wait_until};
use postgres::Client;
use std::path::Path;

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

/// A setting of a library decides what an operator returns. A session may set it before the library is loaded, when the server
/// knows only its name, or after that. The query itself may load the library.
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

/// PostgreSQL finds a temporary table before all others of its name. A session with such a table must not get the result of the
/// other table, and must not replace that result.
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
        wrong.extend(compare(session, query, "v text", expect).map(|fault| format!("{when}: {fault}")));
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

/// A name in a literal of a type such as `regclass` is no identifier of the text. It may still be the name of a temporary table.
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

/// The current schema may be the session's own schema for temporary objects. Fails if a query that returns its name is stored.
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

/// Without USAGE on a schema, a role does not find the objects in it, although it may keep privileges on them.
#[test]
fn a_revoked_usage_of_a_schema_ends_the_hits() {
    let cluster = cluster(&Conf::preloaded());
    let mut owner = cluster.connect("postgres");
    // `-` stands for all roles (PUBLIC).
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

/// A security label may decide who may read a table or call a function. Fails if a result from before a change of a label is a hit.
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

/// A word such as `today` stands for the clock, in a literal, in an argument or in a table. So the result lives at most 60 seconds,
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
    // The result must be stored, with more than `least` and at most `most` seconds left to live. `args` is an SQL expression: NULL
    // if the query has no arguments.
    let mut check = |session: &mut Client, query: &str, args: &str, most: f64, least: f64| {
        let options = if args == "NULL" { String::new() } else { format!("args => {args}") };
        let (rows, status) = cached_with(session, query, "v text", &options);
        if let Err(error) = rows {
            wrong.push(format!("{query}: {error}"));
            return;
        }
        // A result that is not stored would be right, too, but each of these must be stored.
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

/// The arguments of a call are stored side by side. The search for words of the clock must find a word at the beginning of an
/// argument, after the end of another one.
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
