//! The storing and replacing of results: refreshes, changes during the run, and touches. A *fill* is a query whose result may be
//! stored. `calls.rs` has the calls; `Expect` is the status that a cached call must have. The *context* of a session is what a
//! query may read besides tables, such as settings.

use super::super::calls::{Expect, answer, cached, cached_with, fill, run, text};
use super::{assert_call, seconds_left};
use crate::memory::findings;
use pg_cache_testbed::{Database, wait_until};

/// A refresh stores a new result. The changes that invalidate the first result must invalidate the new one, too, and the new one
/// must vary with the same settings.
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
/// also not to sessions that call before the fill ends.
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
    // The time that the query takes decides for how long it is left out: ten seconds.
    run(
        &mut gate,
        "CREATE TABLE t AS SELECT 1 AS v;
         CREATE FUNCTION held(v int) RETURNS int STABLE LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_sleep(1), pg_advisory_xact_lock_shared(2); RETURN v; END'",
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
