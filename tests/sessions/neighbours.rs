//! Tests with other extensions that use the same hooks and callbacks, loaded before and after pg_cache. Every extension
//! must be called, and none may hide anything from another.

use crate::fences::{fetch, is_cached};
use crate::memory::{cluster, findings};
use crate::transaction::{get, set};
use pg_cache_testbed::{Conf, Server};
use postgres::Client;
use postgres::error::ErrorPosition;
use std::path::Path;

/// Load orders: pg_cache is the first, the middle and the last library.
const ORDERS: [&str; 3] = [
    "pg_cache, pg_stat_statements, auto_explain",
    "auto_explain, pg_cache, pg_stat_statements",
    "pg_stat_statements, auto_explain, pg_cache",
];

/// Returns the position of a statement's error, as the server reports it: in characters, from 1 on. `None` means that the error
/// has no position.
fn position(session: &mut Client, statement: &str) -> Option<u32> {
    let error = session.batch_execute(statement).expect_err("it fails");
    match error.as_db_error().expect("the server says so").position() {
        Some(ErrorPosition::Original(at)) => Some(*at),
        _ => None,
    }
}

/// In every load order, pg_cache invalidates, pg_stat_statements counts and auto_explain logs. Errors keep their position in the
/// statement.
#[test]
fn hooks_chain_in_every_order() {
    if ["pg_stat_statements", "auto_explain"].into_iter().any(|library| Server::from_env().lacks(library)) {
        return;
    }
    for order in ORDERS {
        let conf = Conf::preloaded()
            .set("shared_preload_libraries", order)
            .set("pg_stat_statements.track", "all")
            .set("auto_explain.log_min_duration", "0")
            .set("auto_explain.log_analyze", "on")
            .set("auto_explain.log_nested_statements", "on");
        let cluster = cluster(&conf);
        let mut session = cluster.connect("postgres");
        session.batch_execute("CREATE EXTENSION pg_stat_statements").expect("it installs");
        session.batch_execute("CREATE TABLE t AS SELECT 1 AS v; CREATE TABLE other (v int)").expect("tables");
        assert_eq!(fetch(&mut session, "t"), 1);
        assert!(is_cached(&mut session, "t"), "{order}");
        session.batch_execute("INSERT INTO other VALUES (1)").expect("it writes");
        assert!(is_cached(&mut session, "t"), "{order}");
        session.batch_execute("UPDATE t SET v = 2").expect("it writes");
        assert!(!is_cached(&mut session, "t"), "{order}");
        assert_eq!(fetch(&mut session, "t"), 2);
        session.batch_execute("EXPLAIN ANALYZE UPDATE t SET v = 3").expect("it writes");
        assert_eq!(fetch(&mut session, "t"), 3);
        // `COMMIT PREPARED` passes the hook for utility commands, as EXPLAIN does.
        session.batch_execute("BEGIN; UPDATE t SET v = 4; PREPARE TRANSACTION 'p'").expect("it is prepared");
        assert_eq!(fetch(&mut session, "t"), 3);
        assert!(is_cached(&mut session, "t"), "{order}");
        session.batch_execute("COMMIT PREPARED 'p'").expect("it commits");
        assert!(!is_cached(&mut session, "t"), "{order}");

        let calls = |session: &mut Client, like: &str| -> i64 {
            let query = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements WHERE query LIKE $1";
            session.query_one(query, &[&like]).expect("a view").get(0)
        };
        assert_eq!(calls(&mut session, "UPDATE t SET v = $1"), 2, "{order}");
        assert_eq!(calls(&mut session, "COMMIT PREPARED %"), 1, "{order}");
        assert_eq!(calls(&mut session, "SELECT v FROM t"), 3, "{order}: what is run to fill");
        let log = cluster.log();
        assert!(log.contains("Query Text: UPDATE t SET v = 2"), "{order}");
        assert!(log.contains("Query Text: SELECT v FROM t"), "{order}");

        assert_eq!(position(&mut session, "SELECT v FROM no_such_table"), Some(15), "{order}");
        assert_eq!(position(&mut session, "CREATE TABLE u (i no_such_type)"), Some(19), "{order}");
        assert_eq!(position(&mut session, "SELECT 1 / v FROM t WHERE nothing"), Some(27), "{order}");
        let error = session.batch_execute("SELECT v / 0 FROM t").expect_err("by zero");
        assert_eq!(error.as_db_error().expect("the server says so").message(), "division by zero");
        assert_eq!(findings(&mut session), Vec::<String>::new());
    }
}

/// The neighbour (`neighbour.c`) writes to a table from its callback before the commit: before pg_cache looks at the
/// transaction's locks, or after that. The write must invalidate in both cases.
#[test]
fn writes_of_a_commit_callback_invalidate_in_every_load_order() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("sessions/neighbour.c");
    let neighbour = Server::from_env().compile("pg_cache_test_neighbour", &source);
    for order in [format!("{neighbour}, pg_cache"), format!("pg_cache, {neighbour}")] {
        let cluster = cluster(&Conf::preloaded().set("shared_preload_libraries", &order));
        let [mut session, mut other] = [(); 2].map(|()| cluster.connect("postgres"));
        session
            .batch_execute(
                "CREATE TABLE t AS SELECT 1 AS v; CREATE TABLE u (v int); CREATE UNLOGGED TABLE n (v int);
                 CREATE FUNCTION quiet() RETURNS int LANGUAGE sql SET track_counts = off AS 'UPDATE t SET v = v + 1; SELECT 1';
                 CREATE TABLE whole (v int) PARTITION BY LIST (v); CREATE TABLE part PARTITION OF whole DEFAULT;
                 SELECT cache_watch('t', '{t}'), cache_watch('n', '{n}'), cache_watch('whole', '{whole}')",
            )
            .expect("tables");
        // The earlier statements of the transaction: none; a write to another table; a write to the same table; writes
        // in a savepoint that was rolled back; locks of a writer without changed rows; a change of the cache.
        let preludes = [
            "",
            "INSERT INTO u VALUES (1)",
            "UPDATE t SET v = v",
            "SAVEPOINT s; INSERT INTO n VALUES (1); INSERT INTO whole VALUES (1); ROLLBACK TO s",
            "INSERT INTO u VALUES (1); UPDATE t SET v = 0 WHERE false; DELETE FROM n WHERE false; UPDATE whole SET v = 0 WHERE v = -1",
            "SELECT cache_set('else', '1')",
        ];
        for (change, tag) in [
            ("UPDATE t SET v = v + 1", "t"),
            ("SELECT quiet()", "t"),
            ("TRUNCATE n", "n"),
            ("ALTER TABLE t ALTER v TYPE int USING v + 1", "t"),
            ("INSERT INTO n VALUES (1)", "n"),
            ("INSERT INTO part VALUES (1)", "whole"),
        ] {
            for before in preludes {
                // A session remembers the tables that it wrote to. So each case runs in a new session and in one that
                // has written before.
                let mut fresh = cluster.connect("postgres");
                for writer in [&mut fresh, &mut session] {
                    for end in ["COMMIT", "PREPARE TRANSACTION 'neighbour'; COMMIT PREPARED 'neighbour'"] {
                        let case = format!("{order}: {before}; {change}; {end}");
                        other
                            .execute("SELECT cache_set('k', '1', tags => $1)", &[&[tag].as_slice()])
                            .expect("it is set");
                        assert!(is_cached(&mut other, "k"));
                        let body = format!("BEGIN; {before}; SET LOCAL neighbour.statement = '{change}'");
                        for statement in [body.as_str()].into_iter().chain(end.split("; ")) {
                            writer
                                .batch_execute(statement)
                                .unwrap_or_else(|error| panic!("{case}: {error:?}"));
                        }
                        assert!(!is_cached(&mut other, "k"), "{case}");
                        assert!(!is_cached(writer, "k"), "{case}");
                    }
                }
            }
        }
        // An error in the callback aborts the whole transaction.
        other.batch_execute("SELECT cache_set('k', '1', tags => '{t}')").expect("it is set");
        let fails = "BEGIN; UPDATE t SET v = 0; SELECT cache_set('new', '1'); SET LOCAL neighbour.statement = 'SELECT 1/0'; COMMIT";
        session.batch_execute(fails).expect_err("the neighbour objects");
        // The server sends the error before it aborts the transaction.
        session.batch_execute("SELECT").expect("it goes on");
        assert!(is_cached(&mut other, "k"), "{order}");
        assert!(!is_cached(&mut other, "new"), "{order}");
        assert_eq!(findings(&mut session), Vec::<String>::new(), "{order}");
    }
}

/// The neighbour changes the cache while the transaction commits, perhaps when pg_cache's own commit has begun. Its
/// change of a key must replace the transaction's own change.
#[test]
fn cache_changes_of_a_commit_callback_take_effect_in_every_load_order() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("sessions/neighbour.c");
    let neighbour = Server::from_env().compile("pg_cache_test_neighbour", &source);
    for order in [format!("{neighbour}, pg_cache"), format!("pg_cache, {neighbour}")] {
        // The cache is small, because the test checks all of it many times.
        let conf = Conf::preloaded().set("pg_cache.hot_size", "4MB").set("pg_cache.fence_slots", "65536");
        let cluster = cluster(&conf.set("shared_preload_libraries", &order));
        let mut other = cluster.connect("postgres");
        other.batch_execute("CREATE TABLE u (v int)").expect("a table");
        for before in [
            "SELECT",
            "INSERT INTO u VALUES (1)",
            "SELECT cache_set_text('k', 'own')",
            "INSERT INTO u VALUES (1); SELECT cache_set_text('k', 'own')",
            "INSERT INTO u VALUES (1); SELECT cache_delete('k'), cache_invalidate_tag('x')",
        ] {
            // `values` are those that the key may have afterwards. A value that the neighbour sets when pg_cache's commit has
            // begun is dropped, so null is one of them.
            for (change, key, values) in [
                ("SELECT cache_delete('k')", "k", &[None][..]),
                ("SELECT cache_set_text('k', 'late')", "k", &[None, Some("late")]),
                ("SELECT cache_set_text('k', 'late', tags => '{x}')", "k", &[None, Some("late")]),
                ("SELECT cache_invalidate_tag('x')", "tagged", &[None]),
                ("SELECT cache_flush('default')", "k", &[None]),
            ] {
                let case = format!("{order}: {before}; {change}");
                let mut writer = cluster.connect("postgres");
                assert!(set(&mut other, "k", "old"), "{case}");
                other
                    .batch_execute("SELECT cache_set_text('tagged', 'old', tags => '{x}')")
                    .expect("it is set");
                let transaction = |change: &str| {
                    format!(
                        "BEGIN; {before}; SELECT set_config('neighbour.statement', $${change}$$, true); COMMIT"
                    )
                };
                writer
                    .batch_execute(&transaction(&format!("{change}, 1 / 0")))
                    .expect_err("the neighbour fails");
                // A session that answers the next statement has aborted the transaction completely.
                writer.batch_execute("SELECT").expect("it goes on");
                for session in [&mut other, &mut writer] {
                    assert_eq!(get(session, "k").as_deref(), Some("old"), "{case}");
                    assert_eq!(get(session, "tagged").as_deref(), Some("old"), "{case}");
                }
                writer.batch_execute(&transaction(change)).unwrap_or_else(|error| panic!("{case}: {error}"));
                for session in [&mut other, &mut writer] {
                    let found = get(session, key);
                    assert!(values.contains(&found.as_deref()), "{case}: {found:?}");
                }
                assert_eq!(findings(&mut other), Vec::<String>::new(), "{case}");
                assert!(set(&mut other, "k", "new"), "{case}");
                assert_eq!(get(&mut writer, "k").as_deref(), Some("new"), "{case}");
            }
        }
    }
}
