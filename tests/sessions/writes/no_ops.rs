//! Statements that lock a table as a writer and change no row of it, in a transaction that writes to another table. Values that
//! depend on the unchanged table must stay hits, and must be invalidated by the same statement as soon as it finds a row. A change
//! that the server does not count must invalidate as well. `src/pg/row_changes.rs` explains the counters.
//!
//! A *fence* is a word in shared memory that says when something that values depend on last changed (`docs/invalidation.md`).
//!
//! Many tests end with a check of shared memory: `findings` returns what `cache_check()` reports, and must be empty.

use super::paths::{PARTITIONED, no_ops};
use super::table::{is_hit, prepare, set, watch};
use crate::memory::{cluster, findings};
use pg_cache_testbed::{Conf, Database, Server, wait_until};
use postgres::Client;
use std::path::Path;

/// The ways to commit a transaction. The prepared transaction gets another name each time.
const COMMITS: [&str; 3] =
    ["COMMIT", "RELEASE s; COMMIT", "PREPARE TRANSACTION 'gid'; COMMIT PREPARED 'gid'"];

/// Creates the table to which the transactions of these tests write in any case.
fn add_other(session: &mut Client) {
    session.batch_execute("CREATE TABLE other (v int)").expect("a table");
}

/// Runs statements, which `; ` separates, each as a message of its own.
fn run(session: &mut Client, statements: &str) {
    for statement in statements.split("; ").filter(|statement| !statement.is_empty()) {
        session.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
}

/// Statements find no row in a table. The values that depend on the table are hits for the writer before the commit, and for all
/// sessions after it.
#[test]
fn statements_that_find_no_row_invalidate_nothing() {
    let database = Database::create();
    let mut reader = database.connect();
    let mut wrong = Vec::new();
    for (number, no_op) in no_ops().enumerate() {
        for (round, end) in COMMITS.iter().enumerate() {
            let mut writer = database.connect();
            let schema = format!("n{number}_{round}");
            prepare(&mut writer, &schema, no_op.setup);
            add_other(&mut writer);
            watch(&mut writer, &schema, no_op.unchanged);
            let begin = if end.starts_with("RELEASE") { "BEGIN; SAVEPOINT s" } else { "BEGIN" };
            // The second time, the session remembers the tables and their fences.
            for time in ["at first", "again"] {
                run(&mut writer, begin);
                run(&mut writer, "INSERT INTO other VALUES (1)");
                let mut expect = |when: &str, session: &mut Client| {
                    for table in no_op.unchanged {
                        if !is_hit(session, &schema, table) {
                            wrong.push(format!("{}, {end}, {time}: {table} is a miss {when}", no_op.name));
                        }
                    }
                };
                writer
                    .batch_execute(no_op.statement)
                    .unwrap_or_else(|error| panic!("{}: {error:?}", no_op.name));
                expect("for the writer", &mut writer);
                run(&mut writer, &end.replace("gid", &schema));
                expect("after the commit", &mut reader);
                expect("for the writer, after the commit", &mut writer);
            }
        }
    }
    let findings = findings(&mut reader);
    assert!(findings.is_empty(), "{findings:?}");
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// In one transaction, a statement first finds no row, and then a similar statement finds one. The values that depend on the table
/// must become invalid, although the session has found the table unchanged before.
#[test]
fn a_statement_that_finds_a_row_invalidates() {
    let database = Database::create();
    let mut reader = database.connect();
    let mut wrong = Vec::new();
    for (number, no_op) in no_ops().enumerate() {
        for (round, end) in COMMITS.iter().enumerate() {
            let mut writer = database.connect();
            let schema = format!("r{number}_{round}");
            prepare(&mut writer, &schema, no_op.setup);
            add_other(&mut writer);
            watch(&mut writer, &schema, no_op.changes);
            let begin = if end.starts_with("RELEASE") { "BEGIN; SAVEPOINT s" } else { "BEGIN" };
            run(&mut writer, begin);
            run(&mut writer, "INSERT INTO other VALUES (1)");
            for statement in [no_op.statement, no_op.write] {
                writer.batch_execute(statement).unwrap_or_else(|error| panic!("{}: {error:?}", no_op.name));
            }
            // A statement whose name begins with "deferred" changes the table only at the commit (`paths.rs`). Until then, the
            // values are hits for the writer, too.
            let is_deferred = no_op.name.starts_with("deferred");
            for table in no_op.changes {
                if !is_deferred && is_hit(&mut writer, &schema, table) {
                    wrong.push(format!("{}, {end}: {table} is a hit for the writer", no_op.name));
                }
                if !is_hit(&mut reader, &schema, table) {
                    wrong.push(format!("{}, {end}: {table} is a miss before the commit", no_op.name));
                }
            }
            run(&mut writer, &end.replace("gid", &schema));
            for table in no_op.changes {
                if is_hit(&mut reader, &schema, table) || is_hit(&mut writer, &schema, table) {
                    wrong.push(format!("{}, {end}: {table} is a hit after the commit", no_op.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// A savepoint that is rolled back leaves the lock that the transaction took before it, and no changed row.
#[test]
fn a_change_that_is_rolled_back_with_a_savepoint_counts_no_more() {
    let database = Database::create();
    let mut session = database.connect();
    prepare(&mut session, "undone", "");
    add_other(&mut session);
    watch(&mut session, "undone", &["t"]);
    let change = "UPDATE t SET v = v + 1 WHERE id = 1";
    for (statements, hit) in [
        (format!("LOCK t IN ROW EXCLUSIVE MODE; SAVEPOINT s; {change}; ROLLBACK TO s"), true),
        (
            format!(
                "DELETE FROM t WHERE false; SAVEPOINT a; SAVEPOINT b; {change}; RELEASE b; ROLLBACK TO a"
            ),
            true,
        ),
        (format!("{change}; SAVEPOINT s; {change}; ROLLBACK TO s"), false),
        (format!("SAVEPOINT a; {change}; SAVEPOINT b; {change}; ROLLBACK TO b; RELEASE a"), false),
        (format!("SAVEPOINT a; {change}; ROLLBACK TO a; SAVEPOINT b; {change}; RELEASE b"), false),
    ] {
        set(&mut session, "undone", "t");
        run(&mut session, &format!("BEGIN; INSERT INTO other VALUES (1); {statements}"));
        assert_eq!(is_hit(&mut session, "undone", "t"), hit, "{statements}");
        run(&mut session, "COMMIT");
        assert_eq!(is_hit(&mut session, "undone", "t"), hit, "{statements}");
    }
}

/// A result that depends on a table without changed rows is stored, although the transaction holds the lock of a writer on it.
#[test]
fn a_result_that_reads_an_unchanged_table_is_stored() {
    let database = Database::create();
    let [mut writer, mut reader] = [(); 2].map(|()| database.connect());
    prepare(&mut writer, "stored", "");
    add_other(&mut writer);
    let call = "SELECT public.cache_fetch($1, 'SELECT sum(v) FROM stored.t')::bigint";
    for (key, statement, is_stored) in
        [("none", "UPDATE t SET v = 9 WHERE false", true), ("some", "UPDATE t SET v = 9 WHERE id = 1", false)]
    {
        let mut store = || -> bool {
            run(&mut writer, &format!("BEGIN; INSERT INTO other VALUES (1); {statement}"));
            let _: i64 = writer.query_one(call, &[&key]).expect("it computes").get(0);
            run(&mut writer, "COMMIT");
            reader.query_one("SELECT cache_exists($1)", &[&key]).expect("it looks").get(0)
        };
        // The first result of a table may also depend on fences that other sessions raise.
        if is_stored {
            wait_until(statement, store);
        } else {
            assert!(!store(), "{statement}");
        }
    }
}

/// Each of these transactions changes a row of `t`, and the server does not count all changes of `t`.
const UNCOUNTED: &[(&str, &str)] = &[
    (
        "in the whole session",
        "SET track_counts = off; BEGIN; INSERT INTO other VALUES (1); {}; COMMIT; RESET track_counts",
    ),
    (
        "from the beginning",
        "SET track_counts = off; BEGIN; INSERT INTO other VALUES (1); {}; SET track_counts = on; COMMIT; RESET track_counts",
    ),
    (
        "from the beginning, until the row is written",
        "SET track_counts = off; BEGIN; INSERT INTO other VALUES (1); {on}; COMMIT; RESET track_counts",
    ),
    (
        "for a part",
        "BEGIN; INSERT INTO other VALUES (1); SET LOCAL track_counts = off; {}; SET LOCAL track_counts = on; COMMIT",
    ),
    ("until the end", "BEGIN; INSERT INTO other VALUES (1); SET LOCAL track_counts = off; {}; COMMIT"),
    (
        "when the table is opened",
        "BEGIN; INSERT INTO other VALUES (1); SET LOCAL track_counts = off; {on}; COMMIT",
    ),
    (
        "in a savepoint",
        "BEGIN; INSERT INTO other VALUES (1); SAVEPOINT s; SET LOCAL track_counts = off; {}; SET LOCAL track_counts = on; RELEASE s; COMMIT",
    ),
    (
        "after a savepoint has restored it",
        "BEGIN; SET LOCAL track_counts = off; SAVEPOINT s; SET LOCAL track_counts = on; ROLLBACK TO s; INSERT INTO other VALUES (1); {}; \
         SET LOCAL track_counts = on; COMMIT",
    ),
    (
        "before a savepoint restores it",
        "BEGIN; INSERT INTO other VALUES (1); SAVEPOINT s; SET LOCAL track_counts = off; DELETE FROM t WHERE false; ROLLBACK TO s; \
         SELECT quiet(); COMMIT",
    ),
    ("in a function", "BEGIN; INSERT INTO other VALUES (1); SELECT quiet(); COMMIT"),
    (
        "in a function, and counted before",
        "BEGIN; INSERT INTO other VALUES (1); DELETE FROM t WHERE false; SELECT quiet(); COMMIT",
    ),
    (
        "in a prepared transaction",
        "BEGIN; INSERT INTO other VALUES (1); SELECT quiet(); PREPARE TRANSACTION 'quiet'; COMMIT PREPARED 'quiet'",
    ),
];

/// Returns the statements with the change of `t` in place of `{}`, and with one that switches the counters on in place of `{on}`.
fn with_change(statements: &str) -> String {
    let on = "UPDATE t SET v = v + 1 + loud() WHERE id = 1";
    statements.replace("{}", "UPDATE t SET v = v + 1 WHERE id = 1").replace("{on}", on)
}

/// Changes that the server does not count invalidate. After each such transaction, the server counts the changes of the next one
/// again.
#[test]
fn changes_that_are_not_counted_invalidate() {
    let database = Database::create();
    let [mut session, mut reader] = [(); 2].map(|()| database.connect());
    prepare(
        &mut session,
        "quiet",
        "CREATE FUNCTION quiet() RETURNS void LANGUAGE sql SET track_counts = off AS 'UPDATE quiet.t SET v = v + 1 WHERE id = 1';
         CREATE FUNCTION loud() RETURNS int LANGUAGE plpgsql AS
             'BEGIN PERFORM set_config(''track_counts'', ''on'', true); RETURN 0; END'",
    );
    add_other(&mut session);
    watch(&mut session, "quiet", &["t"]);
    let sum = |session: &mut Client| -> i64 {
        session.query_one("SELECT sum(v) FROM quiet.t", &[]).expect("it adds").get(0)
    };
    let mut wrong = Vec::new();
    for (when, statements) in UNCOUNTED {
        set(&mut session, "quiet", "t");
        let before = sum(&mut session);
        run(&mut session, &with_change(statements));
        assert_eq!(sum(&mut session), before + 1, "{when}: it has changed");
        if is_hit(&mut reader, "quiet", "t") {
            wrong.push(format!("{when}: a hit"));
        }
        set(&mut session, "quiet", "t");
        run(&mut session, "BEGIN; INSERT INTO other VALUES (1); UPDATE t SET v = 9 WHERE false; COMMIT");
        if !is_hit(&mut reader, "quiet", "t") {
            wrong.push(format!("{when}: a miss after the next transaction"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// `track_counts` may be off for a role or in the configuration file, and the file may change while a transaction is open.
#[test]
fn changes_that_roles_and_files_keep_from_being_counted_invalidate() {
    let cluster = cluster(&Conf::preloaded().set("track_counts", "off"));
    let [mut session, mut other] = [(); 2].map(|()| cluster.connect("postgres"));
    prepare(&mut session, "quiet", "");
    add_other(&mut session);
    watch(&mut session, "quiet", &["t"]);
    let change = "UPDATE t SET v = v + 1 WHERE id = 1";
    run(&mut session, &format!("BEGIN; INSERT INTO other VALUES (1); {change}"));
    run(&mut other, "ALTER SYSTEM SET track_counts = on; SELECT pg_reload_conf()");
    let is_on = |session: &mut Client| -> bool {
        session.query_one("SELECT current_setting('track_counts') = 'on'", &[]).expect("a setting").get(0)
    };
    wait_until("the setting to arrive", || is_on(&mut session));
    run(&mut session, "COMMIT");
    assert!(!is_hit(&mut session, "quiet", "t"), "the file has switched it on");
    set(&mut session, "quiet", "t");
    run(&mut session, "BEGIN; INSERT INTO other VALUES (1); UPDATE t SET v = 9 WHERE false; COMMIT");
    assert!(is_hit(&mut session, "quiet", "t"), "it is on");
    run(&mut session, "ALTER ROLE CURRENT_USER SET track_counts = off");
    let mut session = cluster.connect("postgres");
    run(
        &mut session,
        &format!("SET search_path = quiet, public; BEGIN; INSERT INTO other VALUES (1); {change}; COMMIT"),
    );
    assert!(!is_hit(&mut session, "quiet", "t"), "the role has switched it off");
}

/// Only the access method `heap` counts its changes for certain. The access method of this test does not count the rows that it
/// inserts.
#[test]
fn changes_of_tables_with_other_access_methods_invalidate() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("sessions/uncounted.c");
    let library = Server::from_env().compile("pg_cache_test_uncounted", &source);
    let database = Database::create();
    let mut session = database.connect();
    prepare(
        &mut session,
        "methods",
        &format!(
            "CREATE FUNCTION uncounted_handler(internal) RETURNS table_am_handler LANGUAGE c AS '{library}', 'uncounted_handler';
             CREATE ACCESS METHOD uncounted TYPE TABLE HANDLER uncounted_handler;
             CREATE TABLE u (v int) USING uncounted;
             CREATE TABLE p (v int) PARTITION BY LIST (v); CREATE TABLE p_1 PARTITION OF p DEFAULT USING uncounted"
        ),
    );
    add_other(&mut session);
    watch(&mut session, "methods", &["u", "p", "p_1"]);
    run(
        &mut session,
        "BEGIN; INSERT INTO other VALUES (1); INSERT INTO u VALUES (1); INSERT INTO p VALUES (1); COMMIT",
    );
    let rows: i64 = session.query_one("SELECT count(*) FROM u, p", &[]).expect("it counts").get(0);
    assert_eq!(rows, 1);
    for table in ["u", "p", "p_1"] {
        assert!(!is_hit(&mut session, "methods", table), "{table}");
    }
}

/// The server does not count the changed rows of a foreign table. So if an update of a partitioned table also looks at a partition
/// that is a foreign table, it counts as a change of the partitioned table, even if it has found no row. The other partitions count
/// as unchanged.
#[test]
fn partitions_that_are_foreign_tables_count_as_changed() {
    let database = Database::create();
    if database.cluster().server().lacks("postgres_fdw") {
        return;
    }
    let mut session = database.connect();
    let here = |name: &str| format!("current_setting('{name}')");
    let options = format!(
        "SELECT format('host %L, port %L, dbname %L', split_part({}, ', ', 1), {}, current_database())",
        here("unix_socket_directories"),
        here("port")
    );
    let options: String = session.query_one(&options, &[]).expect("it formats").get(0);
    let user: String =
        session.query_one("SELECT format('user %L', current_user)", &[]).expect("it formats").get(0);
    prepare(
        &mut session,
        "foreign_leaf",
        &format!(
            "{PARTITIONED}; CREATE TABLE far (id int, v int); CREATE EXTENSION postgres_fdw;
             CREATE SERVER there FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({options});
             CREATE USER MAPPING FOR CURRENT_USER SERVER there OPTIONS ({user});
             CREATE FOREIGN TABLE p_far PARTITION OF p FOR VALUES FROM (200) TO (300) SERVER there
                 OPTIONS (schema_name 'foreign_leaf', table_name 'far')"
        ),
    );
    add_other(&mut session);
    watch(&mut session, "foreign_leaf", &["p", "p_low", "p_high"]);
    run(&mut session, "BEGIN; INSERT INTO other VALUES (1); UPDATE p SET v = 9 WHERE v = 77; COMMIT");
    let hits = ["p", "p_low", "p_high"].map(|table| is_hit(&mut session, "foreign_leaf", table));
    assert_eq!(hits, [false, true, true]);
}

/// A worker that polls a queue finds a job now and then, and notes each of its visits in another table. Thirty dashboards show the
/// queue. Only the jobs make them miss.
#[test]
fn a_queue_that_is_polled_in_vain_stays_cached() {
    let database = Database::create();
    let [mut worker, mut reader] = [(); 2].map(|()| database.connect());
    prepare(
        &mut worker,
        "queue",
        "CREATE TABLE jobs (id int PRIMARY KEY, kind int, taken bool NOT NULL DEFAULT false);
         INSERT INTO jobs SELECT i, i % 30, true FROM generate_series(1, 300) AS i; CREATE TABLE visits (at timestamptz)",
    );
    const DASHBOARDS: i32 = 30;
    const VISITS: i32 = 150;
    let poll = "INSERT INTO visits VALUES (now()); UPDATE jobs SET taken = true WHERE id IN
                    (SELECT id FROM jobs WHERE NOT taken ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)";
    let (mut hits, mut reads) = (0, 0);
    for visit in 0..VISITS {
        if visit == VISITS / 2 {
            worker.batch_execute("INSERT INTO jobs VALUES (1000, 1)").expect("a job");
        }
        worker.batch_execute(&format!("BEGIN; {poll}; COMMIT")).expect("it polls");
        for dashboard in 0..DASHBOARDS {
            let key = format!("dashboard {dashboard}");
            if visit > 0 {
                let is_there = "SELECT cache_exists($1)";
                hits += i32::from(reader.query_one(is_there, &[&key]).expect("it looks").get::<_, bool>(0));
                reads += 1;
            }
            let query =
                format!("SELECT count(*) FILTER (WHERE taken) FROM queue.jobs WHERE kind = {dashboard}");
            let count: i64 = reader
                .query_one("SELECT cache_fetch($1, $2)::bigint", &[&key, &query])
                .expect("it computes")
                .get(0);
            let job = i64::from(dashboard == 1 && visit >= VISITS / 2);
            assert_eq!(count, 10 + job, "{key} at visit {visit}");
        }
    }
    assert!(hits * 100 >= reads * 99, "{hits} hits of {reads} reads");
}
