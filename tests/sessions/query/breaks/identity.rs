//! Calls that must not share a result: the same text with other options, and texts that look alike. `calls.rs` has the calls:
//! `compare` runs a query with and without the cache, and returns what is wrong, if anything; `Expect` is the status that the
//! cached call must have.

use super::super::calls::{Expect, compare, fill, run};
use super::assert_call;
use pg_cache_testbed::Database;

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

/// A caller that accepts results up to some age must not get an older result, even if that result has not expired.
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

/// Texts with a small difference may mean different things. For instance, white space between two literals joins them only if it
/// contains a newline. The result of the first text of each pair is stored, and the second text must get its own result.
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
