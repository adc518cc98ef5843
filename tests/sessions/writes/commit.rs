//! Writes and other work in the middle of a commit, and writes that no fence covers. A *fence* is a word in shared memory that says
//! when something that values depend on last changed (`docs/invalidation.md`). A transaction *raises* the fences of the tables that
//! it has changed before its changes become visible, and so makes the values that depend on them misses.

use super::paths::PARTITIONED;
use super::table::{is_hit, prepare, set, watch};
use pg_cache_testbed::Database;

/// Commit callbacks of other extensions may write after pg_cache's own callback. Perhaps the session does not know the parents of
/// such a table yet, and it can no longer look them up. Values that depend on a parent must be invalidated all the same.
#[test]
fn a_write_in_the_middle_of_a_commit_invalidates() {
    let database = Database::create();
    let mut session = database.connect();
    prepare(&mut session, "late", PARTITIONED);
    watch(&mut session, "late", &["p"]);
    assert!(is_hit(&mut session, "late", "p"));
    let mut writer = database.connect();
    // This setting, which debug builds have, makes pg_cache treat all writes of the session as if they came that late.
    writer
        .batch_execute("SET pg_cache.break_fencing = late; INSERT INTO late.p_high_1 VALUES (12, 1)")
        .expect("it writes");
    assert!(!is_hit(&mut session, "late", "p"));
}

/// At a commit, the server empties temporary tables (`ON COMMIT DELETE ROWS`) and assigns a transaction ID for
/// `NOTIFY`. This happens after the last moment at which pg_cache may read catalogs. It must not invalidate anything.
#[test]
fn the_work_of_a_commit_itself_invalidates_nothing() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    prepare(&mut session, "itself", PARTITIONED);
    watch(&mut session, "itself", &["t", "p"]);
    other.batch_execute("CREATE TABLE mid (v int); CREATE TABLE leaf (v int)").expect("tables");
    session.batch_execute("INSERT INTO p VALUES (2, 2)").expect("it writes to a part");
    // A tree grows after the session has written to a partition. The commits below write to no part of a tree, so this must not
    // make them invalidate anything.
    other.batch_execute("ALTER TABLE leaf INHERIT mid").expect("it grows");
    set(&mut other, "itself", "p");
    let mut wrong = Vec::new();
    for statement in [
        "NOTIFY something",
        "CREATE TEMP TABLE kept (id int PRIMARY KEY, v text)",
        "CREATE TEMP TABLE emptied (id int PRIMARY KEY, v text) ON COMMIT DELETE ROWS",
        "CREATE TEMP TABLE dropped (id int PRIMARY KEY, v text) ON COMMIT DROP",
        "SELECT * FROM emptied",
        "SELECT * FROM kept",
        "INSERT INTO kept VALUES (1, 'v')",
        "INSERT INTO emptied SELECT 1, string_agg(md5(i::text), '') FROM generate_series(1, 1000) AS i",
        "SELECT * FROM kept",
        "CREATE TEMP TABLE added (id int) ON COMMIT DELETE ROWS",
        "ALTER TABLE added ADD v text, ADD UNIQUE (id)",
        "VACUUM FULL emptied",
        "SELECT * FROM kept",
        "BEGIN; SELECT * FROM kept; SELECT FROM t FOR UPDATE; COMMIT",
        "BEGIN; SAVEPOINT s; INSERT INTO added VALUES (1); ROLLBACK TO s; COMMIT",
    ] {
        session.batch_execute(statement).expect(statement);
        for table in ["t", "p"] {
            if !is_hit(&mut other, "itself", table) {
                wrong.push(format!("{table} after {statement}"));
                set(&mut other, "itself", table);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// At a commit, the server drops temporary tables with `ON COMMIT DROP`, after pg_cache has looked which tables the transaction has
/// changed. The server also drops the objects that depend on these tables: here a function, and the partition whose key calls the
/// function. Fails if pg_cache relies on its look because no other library was loaded before it.
#[test]
fn a_partition_that_is_dropped_with_a_temporary_table_invalidates() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    session
        .batch_execute(
            "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE RETURN $1;
             CREATE TABLE p (a int) PARTITION BY LIST (a); CREATE TABLE u (a int);
             CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1, 2) PARTITION BY RANGE (f(a));
             CREATE TABLE p11 PARTITION OF p1 DEFAULT; INSERT INTO p VALUES (1);
             SELECT cache_watch('p', '{p}')",
        )
        .expect("tables");
    other.execute("SELECT cache_set('k', '1', tags => '{p}')", &[]).expect("it stores");
    let mut hit =
        || other.query_one("SELECT cache_get('k') IS NOT NULL", &[]).expect("it reads").get::<_, bool>(0);
    assert!(hit());
    session
        .batch_execute(
            "BEGIN; CREATE TEMP TABLE tt (a int) ON COMMIT DROP; INSERT INTO u VALUES (1);
             CREATE OR REPLACE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE
                 BEGIN ATOMIC SELECT coalesce((SELECT max(a) FROM tt), $1); END;
             COMMIT",
        )
        .expect("it commits");
    let rows: i64 = session.query_one("SELECT count(*) FROM p", &[]).expect("it counts").get(0);
    assert_eq!(rows, 0, "the partition is gone");
    assert!(!hit());
}

/// The server's plans and commands name the tables that they write to. At each commit, debug builds compare these with the fences
/// that are raised (`src/pg/targets.rs`). Here a setting keeps pg_cache from raising fences, so each commit must end in an error,
/// unless the transaction has written only temporary tables. So this checks the check itself.
#[test]
fn a_written_table_without_a_fence_is_an_error_of_the_commit() {
    let database = Database::create();
    let mut session = database.connect();
    prepare(&mut session, "named", PARTITIONED);
    session
        .batch_execute(
            "CREATE MATERIALIZED VIEW m AS SELECT * FROM t;
             CREATE TEMP TABLE mine (id int); SET pg_cache.break_fencing = unseen",
        )
        .expect("it is set");
    for write in [
        "INSERT INTO t VALUES (7)",
        "UPDATE p_low SET v = 3",
        "COPY t FROM PROGRAM 'echo 8,8' WITH (FORMAT csv)",
        "TRUNCATE t",
        "REFRESH MATERIALIZED VIEW m",
        "WITH w AS (UPDATE t SET v = 9 RETURNING id) SELECT count(*) FROM w",
        "DO 'BEGIN DELETE FROM t; END'",
        "BEGIN; UPDATE t SET v = 4; SAVEPOINT s; DELETE FROM p; ROLLBACK TO s; COMMIT",
        "BEGIN; SAVEPOINT s; UPDATE t SET v = 4; RELEASE s; COMMIT",
        "BEGIN; UPDATE t SET v = 4; PREPARE TRANSACTION 'named'",
    ] {
        let error = session.batch_execute(write).expect_err(write);
        let message = error.as_db_error().expect("the server says so").message().to_owned();
        assert!(message.ends_with("is written to and not fenced"), "{write}: {message}");
    }
    for write in [
        "INSERT INTO mine VALUES (1)",
        "SELECT * FROM t FOR UPDATE",
        "BEGIN; SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; INSERT INTO mine VALUES (2); COMMIT",
    ] {
        session.batch_execute(write).unwrap_or_else(|error| panic!("{write}: {error:?}"));
    }
}
