//! Tests of all ways to write to a table, combined with all ways to end a transaction. Values that depend on the table
//! must never be served after a commit, and must be hits again after a rollback. If a way to write is missing from
//! `PATHS`, that is a bug of this file.

use pg_cache_testbed::{Database, wait_until};
use postgres::Client;

/// A way to write.
struct Path {
    name: &'static str,
    /// Statements that create more objects. `t (id int primary key, v int)` with rows 1 to 3 is always there.
    setup: &'static str,
    write: &'static str,
    /// The tables that the write changes. Values that depend on them must be invalidated.
    changes: &'static [&'static str],
}

const fn path(
    name: &'static str,
    setup: &'static str,
    write: &'static str,
    changes: &'static [&'static str],
) -> Path {
    Path { name, setup, write, changes }
}

const PARTITIONED: &str = "CREATE TABLE p (id int, v int) PARTITION BY RANGE (id);
    CREATE TABLE p_low PARTITION OF p FOR VALUES FROM (0) TO (10);
    CREATE TABLE p_high PARTITION OF p FOR VALUES FROM (10) TO (100) PARTITION BY RANGE (id);
    CREATE TABLE p_high_1 PARTITION OF p_high FOR VALUES FROM (10) TO (50);
    INSERT INTO p VALUES (1, 1), (11, 1)";
const FAMILY: &str =
    "CREATE TABLE child (t_id int REFERENCES t ON DELETE CASCADE, v int); INSERT INTO child VALUES (1, 1)";

const PATHS: &[Path] = &[
    path("INSERT", "", "INSERT INTO t VALUES (4, 4)", &["t"]),
    path("UPDATE", "", "UPDATE t SET v = 2 WHERE id = 1", &["t"]),
    path("DELETE", "", "DELETE FROM t WHERE id = 1", &["t"]),
    path("INSERT ON CONFLICT", "", "INSERT INTO t VALUES (1, 9) ON CONFLICT (id) DO UPDATE SET v = 9", &["t"]),
    path(
        "MERGE",
        "",
        "MERGE INTO t USING (VALUES (1), (9)) AS s (id) ON s.id = t.id
         WHEN MATCHED THEN UPDATE SET v = 7 WHEN NOT MATCHED THEN INSERT VALUES (s.id, 7)",
        &["t"],
    ),
    path("writable CTE", "", "WITH w AS (UPDATE t SET v = 5 RETURNING id) SELECT count(*) FROM w", &["t"]),
    path("EXPLAIN ANALYZE of a write", "", "EXPLAIN ANALYZE UPDATE t SET v = 5", &["t"]),
    path("COPY FROM", "", "COPY t FROM PROGRAM 'echo 4,4' WITH (FORMAT csv)", &["t"]),
    path("TRUNCATE", "", "TRUNCATE t", &["t"]),
    path("TRUNCATE CASCADE", FAMILY, "TRUNCATE t CASCADE", &["t", "child"]),
    path("ON DELETE CASCADE", FAMILY, "DELETE FROM t WHERE id = 1", &["t", "child"]),
    path(
        "ON UPDATE CASCADE",
        "CREATE TABLE child (t_id int REFERENCES t ON UPDATE CASCADE); INSERT INTO child VALUES (1)",
        "UPDATE t SET id = 9 WHERE id = 1",
        &["t", "child"],
    ),
    path(
        "ON DELETE SET NULL",
        "CREATE TABLE child (t_id int REFERENCES t ON DELETE SET NULL); INSERT INTO child VALUES (1)",
        "DELETE FROM t WHERE id = 1",
        &["t", "child"],
    ),
    path(
        "row trigger",
        "CREATE TABLE log (id int);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (NEW.id); RETURN NEW; END';
         CREATE TRIGGER note AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION note()",
        "INSERT INTO t VALUES (4, 4)",
        &["t", "log"],
    ),
    path(
        "deferred trigger",
        "CREATE TABLE log (id int);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (NEW.id); RETURN NEW; END';
         CREATE CONSTRAINT TRIGGER note AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note()",
        "INSERT INTO t VALUES (4, 4)",
        &["t", "log"],
    ),
    path(
        "trigger that writes elsewhere instead",
        "CREATE TABLE log (id int);
         CREATE FUNCTION divert() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (NEW.id); RETURN NULL; END';
         CREATE TRIGGER divert BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION divert()",
        "INSERT INTO t VALUES (4, 4)",
        &["log"],
    ),
    path(
        "rule",
        "CREATE TABLE log (id int); CREATE RULE also AS ON INSERT TO t DO ALSO INSERT INTO log VALUES (NEW.id)",
        "INSERT INTO t VALUES (4, 4)",
        &["t", "log"],
    ),
    path("updatable view", "CREATE VIEW s AS SELECT * FROM t", "UPDATE s SET v = 8", &["t"]),
    path(
        "view with INSTEAD OF trigger",
        "CREATE VIEW s AS SELECT 1 AS id;
         CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE t SET v = 8; RETURN NEW; END';
         CREATE TRIGGER instead INSTEAD OF INSERT ON s FOR EACH ROW EXECUTE FUNCTION instead()",
        "INSERT INTO s VALUES (1)",
        &["t"],
    ),
    path("partition routing", PARTITIONED, "INSERT INTO p VALUES (12, 1)", &["p", "p_high", "p_high_1"]),
    path("a partition, directly", PARTITIONED, "INSERT INTO p_high_1 VALUES (12, 1)", &["p", "p_high", "p_high_1"]),
    path("row moving between partitions", PARTITIONED, "UPDATE p SET id = 12 WHERE id = 1", &["p", "p_low", "p_high_1"]),
    path("TRUNCATE of a partition", PARTITIONED, "TRUNCATE p_high", &["p", "p_high", "p_high_1"]),
    path("DROP of a partition", PARTITIONED, "DROP TABLE p_low", &["p"]),
    path("DETACH PARTITION", PARTITIONED, "ALTER TABLE p DETACH PARTITION p_low", &["p"]),
    path(
        "DETACH of a partition below",
        PARTITIONED,
        "ALTER TABLE p_high DETACH PARTITION p_high_1",
        &["p", "p_high"],
    ),
    path(
        "ATTACH PARTITION",
        "CREATE TABLE p (id int, v int) PARTITION BY RANGE (id);
         CREATE TABLE p_new (id int, v int); INSERT INTO p_new VALUES (1, 1)",
        "ALTER TABLE p ATTACH PARTITION p_new FOR VALUES FROM (0) TO (10)",
        &["p"],
    ),
    path("inheritance", "CREATE TABLE heir () INHERITS (t)", "INSERT INTO heir VALUES (7, 7)", &["t", "heir"]),
    path(
        "inheritance from two",
        "CREATE TABLE u (w int); CREATE TABLE heir () INHERITS (t, u)",
        "INSERT INTO heir VALUES (7, 7, 7)",
        &["t", "u", "heir"],
    ),
    path(
        "ALTER TABLE INHERIT",
        "CREATE TABLE heir (id int NOT NULL, v int); INSERT INTO heir VALUES (7, 7)",
        "ALTER TABLE heir INHERIT t",
        &["t"],
    ),
    path(
        "ALTER TABLE NO INHERIT",
        "CREATE TABLE heir () INHERITS (t); INSERT INTO heir VALUES (7, 7)",
        "ALTER TABLE heir NO INHERIT t",
        &["t"],
    ),
    path("DROP of an heir", "CREATE TABLE heir () INHERITS (t); INSERT INTO heir VALUES (7, 7)", "DROP TABLE heir", &["t"]),
    path(
        "DROP of an heir with its schema",
        "DROP SCHEMA IF EXISTS away CASCADE; CREATE SCHEMA away;
         CREATE TABLE away.heir () INHERITS (t); INSERT INTO away.heir VALUES (7, 7)",
        "DROP SCHEMA away CASCADE",
        &["t"],
    ),
    path(
        "DROP of a table between",
        "CREATE TABLE between () INHERITS (t); CREATE TABLE heir () INHERITS (between); INSERT INTO heir VALUES (7, 7)",
        "DROP TABLE between CASCADE",
        &["t"],
    ),
    path("ALTER TABLE that rewrites", "", "ALTER TABLE t ALTER v TYPE bigint", &["t"]),
    path("ADD COLUMN", "", "ALTER TABLE t ADD w int DEFAULT 7", &["t"]),
    path("DROP COLUMN", "", "ALTER TABLE t DROP v", &["t"]),
    path("RENAME COLUMN", "", "ALTER TABLE t RENAME v TO w", &["t"]),
    path("RENAME TABLE", "", "ALTER TABLE t RENAME TO renamed", &["t"]),
    path("SET SCHEMA", "DROP SCHEMA IF EXISTS away CASCADE; CREATE SCHEMA away", "ALTER TABLE t SET SCHEMA away", &["t"]),
    path("DROP TABLE", "", "DROP TABLE t", &["t"]),
    path("DROP TABLE CASCADE", FAMILY, "DROP TABLE t CASCADE", &["t"]),
    path(
        "REFRESH MATERIALIZED VIEW",
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM t",
        "REFRESH MATERIALIZED VIEW m",
        &["m"],
    ),
    path(
        "REFRESH MATERIALIZED VIEW CONCURRENTLY",
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM t; CREATE UNIQUE INDEX ON m (id); UPDATE t SET v = 77",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY m",
        &["m"],
    ),
    path("PL/pgSQL", "", "DO 'BEGIN UPDATE t SET v = 3; END'", &["t"]),
    path(
        "PL/pgSQL with dynamic SQL",
        "",
        "DO $$ BEGIN EXECUTE format('UPDATE %I SET v = 3', 't'); END $$",
        &["t"],
    ),
    path(
        "PL/pgSQL beside an exception",
        "",
        "DO $$ BEGIN UPDATE t SET v = 3; BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END; END $$",
        &["t"],
    ),
    path(
        "a function in a SELECT",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'UPDATE t SET v = 4; SELECT 1'",
        "SELECT f()",
        &["t"],
    ),
    path("LOCK and UPDATE", "", "LOCK t IN ACCESS EXCLUSIVE MODE; UPDATE t SET v = 3", &["t"]),
    path("unlogged table", "CREATE UNLOGGED TABLE u (id int)", "INSERT INTO u VALUES (1)", &["u"]),
    path("replica role", "", "SET LOCAL session_replication_role = replica; UPDATE t SET v = 3", &["t"]),
    path("cache disabled", "", "SET LOCAL pg_cache.enabled = off; UPDATE t SET v = 3", &["t"]),
    path("cache bypassed", "", "SET LOCAL pg_cache.bypass = on; UPDATE t SET v = 3", &["t"]),
    path("prepared statement", "", "PREPARE w AS UPDATE t SET v = 3; EXECUTE w; DEALLOCATE w", &["t"]),
    path(
        "twenty tables",
        "SELECT format('CREATE TABLE many_%s (id int)', i) FROM generate_series(1, 20) AS i \\gexec",
        "DO $$ BEGIN FOR i IN 1..20 LOOP EXECUTE format('INSERT INTO many_%s VALUES (1)', i); END LOOP; END $$",
        &["many_1", "many_10", "many_16", "many_17", "many_20"],
    ),
    path("cache_invalidate_relation", "", "SELECT public.cache_invalidate_relation('t')", &["t"]),
    path(
        "cache_invalidate_relation of a partition",
        PARTITIONED,
        "SELECT public.cache_invalidate_relation('p_high_1')",
        &["p", "p_high", "p_high_1"],
    ),
];

/// Statements that are not writes. Values that depend on the table must stay hits.
const HARMLESS: &[(&str, &str)] = &[
    ("SELECT", "SELECT * FROM t"),
    ("SELECT FOR UPDATE", "SELECT * FROM t FOR UPDATE"),
    ("SELECT FOR KEY SHARE", "SELECT * FROM t FOR KEY SHARE"),
    ("ANALYZE", "ANALYZE t"),
    ("CREATE INDEX", "CREATE INDEX ON t (v)"),
    ("CREATE STATISTICS", "CREATE STATISTICS s ON id, v FROM t"),
    (
        "a foreign key to it is checked",
        "CREATE TABLE child (t_id int REFERENCES t); INSERT INTO child VALUES (1)",
    ),
    ("another table", "CREATE TABLE other AS SELECT * FROM t; UPDATE other SET v = 2"),
    ("a temporary table", "CREATE TEMP TABLE mine AS SELECT * FROM t; UPDATE mine SET v = 2"),
    ("a temporary table of its name", "CREATE TEMP TABLE t (id int); INSERT INTO t VALUES (1)"),
    ("a lock alone", "LOCK t IN ROW EXCLUSIVE MODE"),
    ("EXPLAIN of a write", "EXPLAIN UPDATE t SET v = 2"),
];

/// The ways to end a transaction: a name, statements before and after the write, and whether the change is committed.
const ENDINGS: &[(&str, &str, &str, bool)] = &[
    ("commit", "BEGIN", "COMMIT", true),
    ("rollback", "BEGIN", "ROLLBACK", false),
    ("savepoint rolled back", "BEGIN; SAVEPOINT s", "ROLLBACK TO s; COMMIT", false),
    ("savepoint released", "BEGIN; SAVEPOINT s", "RELEASE s; COMMIT", true),
    (
        "released and rolled back",
        "BEGIN; SAVEPOINT a; SAVEPOINT b",
        "RELEASE b; ROLLBACK TO a; COMMIT",
        false,
    ),
];

/// Creates a schema with the table `t`, runs the setup there, and puts the schema first in the session's search path.
fn prepare(session: &mut Client, schema: &str, setup: &str) {
    session
        .batch_execute(&format!(
            "CREATE SCHEMA {schema}; SET search_path = {schema}, public;
             CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)"
        ))
        .expect("there is room for a schema");
    // Like psql's \gexec: the setup is a query whose rows are the statements to run.
    if let Some(query) = setup.strip_suffix(" \\gexec") {
        for row in session.query(query, &[]).expect("the setup's query works") {
            session.batch_execute(row.get(0)).expect("the setup works");
        }
    } else {
        session.batch_execute(setup).unwrap_or_else(|error| panic!("{setup}: {error}"));
    }
}

fn watch(session: &mut Client, schema: &str, tables: &[&str]) {
    for table in tables {
        let call = format!("SELECT cache_watch('{table}', '{{{schema}_{table}}}')");
        session.batch_execute(&call).unwrap_or_else(|error| panic!("{call}: {error}"));
    }
    // Values are set after all watches, because a change of the list of watches invalidates values with tags.
    tables.iter().for_each(|table| set(session, schema, table));
}

fn set(session: &mut Client, schema: &str, table: &str) {
    let name = format!("{schema}_{table}");
    session
        .batch_execute(&format!("SELECT cache_set_text('{name}', 'old', tags => '{{{name}}}')"))
        .expect("setting works");
}

fn is_hit(session: &mut Client, schema: &str, table: &str) -> bool {
    let name = format!("{schema}_{table}");
    session.query_one("SELECT public.cache_get_text($1) IS NOT NULL", &[&name]).expect("reading works").get(0)
}

#[test]
fn what_depends_on_a_table_goes_with_the_commit_of_whatever_writes_to_it() {
    let database = Database::create();
    let mut reader = database.connect();
    let mut wrong = Vec::new();
    for (number, path) in PATHS.iter().enumerate() {
        for (round, (ending, begin, end, commits)) in ENDINGS.iter().enumerate() {
            let mut writer = database.connect();
            let schema = format!("w{number}_{round}");
            prepare(&mut writer, &schema, path.setup);
            watch(&mut writer, &schema, path.changes);
            let mut expect = |when: &str, session: &mut Client, hit: bool| {
                for table in path.changes {
                    if is_hit(session, &schema, table) != hit {
                        let what = if hit { "a miss" } else { "a hit" };
                        wrong.push(format!("{}, {ending}: {table} is {what} {when}", path.name));
                    }
                }
            };
            expect("at first", &mut reader, true);
            writer.batch_execute(begin).expect("it begins");
            writer.batch_execute(path.write).unwrap_or_else(|error| panic!("{}: {error:?}", path.name));
            if !path.name.starts_with("deferred") {
                expect("for the writer himself", &mut writer, false);
            }
            expect("before the commit", &mut reader, true);
            // Each statement is a message of its own, because some must not share a message with other statements.
            for statement in end.split("; ") {
                writer.batch_execute(statement).unwrap_or_else(|error| panic!("{}: {error:?}", path.name));
            }
            expect("after the end", &mut reader, !commits);
            expect("for the writer, after the end", &mut writer, !commits);
        }
    }
    let findings = reader.query("SELECT cache_check()", &[]).expect("it checks");
    assert!(findings.is_empty(), "{:?}", findings[0].get::<_, String>(0));
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// The write is a transaction of its own, so no other statement comes between it and the commit. The second round runs
/// with everything that the session remembers from the first.
#[test]
fn what_depends_on_a_table_goes_with_a_write_that_is_a_transaction_by_itself() {
    let database = Database::create();
    let [mut reader, mut writer] = [(); 2].map(|()| database.connect());
    let mut wrong = Vec::new();
    for (number, path) in PATHS.iter().enumerate() {
        for round in 0..2 {
            let schema = format!("a{number}_{round}");
            prepare(&mut writer, &schema, path.setup);
            watch(&mut writer, &schema, path.changes);
            writer.batch_execute(path.write).unwrap_or_else(|error| panic!("{}: {error:?}", path.name));
            for table in path.changes {
                if is_hit(&mut reader, &schema, table) {
                    wrong.push(format!("{}, {round}: {table}", path.name));
                }
                set(&mut reader, &schema, table);
                if !is_hit(&mut reader, &schema, table) {
                    wrong.push(format!("{}, {round}: {table} for ever", path.name));
                }
            }
        }
    }
    let findings = reader.query("SELECT cache_check()", &[]).expect("it checks");
    assert!(findings.is_empty(), "{:?}", findings[0].get::<_, String>(0));
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_writes_nothing_to_a_table_leaves_what_depends_on_it() {
    let database = Database::create();
    let mut wrong = Vec::new();
    for (number, (name, statement)) in HARMLESS.iter().enumerate() {
        let mut writer = database.connect();
        let schema = format!("h{number}");
        prepare(&mut writer, &schema, "");
        watch(&mut writer, &schema, &["t"]);
        writer.batch_execute(&format!("BEGIN; {statement}; COMMIT")).expect(name);
        if !is_hit(&mut writer, &schema, "t") {
            wrong.push(*name);
        }
    }
    let mut writer = database.connect();
    prepare(&mut writer, "vacuumed", "");
    watch(&mut writer, "vacuumed", &["t"]);
    for statement in ["VACUUM t", "VACUUM FREEZE t", "CREATE INDEX CONCURRENTLY ON t (v)", "REINDEX TABLE t"]
    {
        writer.batch_execute(statement).expect(statement);
        if !is_hit(&mut writer, "vacuumed", "t") {
            wrong.push(statement);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// `DETACH PARTITION ... CONCURRENTLY` uses two transactions. After the first, the rows of the partition do not belong
/// to the table any more. The second one waits for transactions that may still see them there. A value computed between
/// the two is correct. A value computed before the first must be invalidated.
#[test]
fn a_part_that_goes_concurrently_takes_along_what_depends_on_the_whole() {
    let database = Database::create();
    let [mut reader, mut old, mut writer] = [(); 3].map(|()| database.connect());
    for (number, end) in ["is waited for", "is cancelled", "is terminated"].into_iter().enumerate() {
        let schema = format!("detached{number}");
        let mut session = database.connect();
        prepare(&mut session, &schema, PARTITIONED);
        watch(&mut session, &schema, &["p", "p_low"]);
        for session in [&mut reader, &mut old, &mut writer] {
            session.batch_execute(&format!("SET search_path = {schema}, public")).expect("it is set");
        }
        let key = format!("{schema}_sum");
        let sum = |session: &mut Client| -> i64 {
            let fetch = "SELECT cache_fetch($1, 'SELECT count(*) FROM p')::bigint";
            session.query_one(fetch, &[&key]).expect("it counts").get(0)
        };
        let is_cached = |session: &mut Client| -> bool {
            session.query_one("SELECT cache_exists($1)", &[&key]).expect("it looks").get(0)
        };
        assert_eq!(sum(&mut reader), 2, "{end}");
        assert!(is_cached(&mut reader) && is_hit(&mut reader, &schema, "p"), "{end}");
        // A transaction that has read the table delays the second transaction, and its snapshot is from before the
        // first.
        old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM p").expect("it reads");
        let pid: i32 = writer.query_one("SELECT pg_backend_pid()", &[]).expect("it lives").get(0);
        let detaching = std::thread::spawn(move || {
            (writer.batch_execute("ALTER TABLE p DETACH PARTITION p_low CONCURRENTLY"), writer)
        });
        wait_until("the first transaction", || {
            let pending = "SELECT count(*) FROM pg_inherits WHERE inhdetachpending";
            reader.query_one(pending, &[]).expect("a catalog").get::<_, i64>(0) == 1
        });
        assert!(!is_cached(&mut reader) && !is_hit(&mut reader, &schema, "p"), "{end}");
        assert_eq!(sum(&mut old), 2, "{end}: as it was");
        wait_until("a result between the two", || {
            assert_eq!(sum(&mut reader), 1, "{end}");
            is_cached(&mut reader)
        });
        assert_eq!(sum(&mut old), 2, "{end}: as it was, beside a new one");
        // During the detach, only older snapshots see the rows of the partition in the table.
        reader.batch_execute("INSERT INTO p_low VALUES (2, 2)").expect("it writes");
        assert_eq!((sum(&mut reader), sum(&mut old)), (1, 2), "{end}");
        set(&mut reader, &schema, "p_low");
        if number > 0 {
            let stop = if number == 1 { "pg_cancel_backend" } else { "pg_terminate_backend" };
            reader.execute(&format!("SELECT {stop}({pid})"), &[]).expect("it is told to stop");
        }
        if number == 0 {
            old.batch_execute("COMMIT").expect("it ends");
        }
        let (outcome, mut session) = detaching.join().expect("the thread ends");
        assert_eq!(outcome.is_ok(), number == 0, "{end}");
        if number > 0 {
            assert_eq!((sum(&mut reader), sum(&mut old)), (1, 2), "{end}");
            old.batch_execute("COMMIT").expect("it ends");
            session = database.connect();
            session.batch_execute(&format!("SET search_path = {schema}, public")).expect("it is set");
            session.batch_execute("ALTER TABLE p DETACH PARTITION p_low FINALIZE").expect("it goes");
        }
        writer = session;
        assert!(!is_hit(&mut reader, &schema, "p_low"), "{end}: its definition has changed");
        assert_eq!((sum(&mut reader), sum(&mut old)), (1, 1), "{end}");
        // The former partition is an independent table now.
        set(&mut reader, &schema, "p");
        reader.batch_execute("INSERT INTO p_low VALUES (2, 2)").expect("it writes");
        assert!(is_hit(&mut reader, &schema, "p"), "{end}");
        assert!(is_cached(&mut reader), "{end}");
        reader.batch_execute("INSERT INTO p VALUES (12, 2)").expect("it writes");
        assert!(!is_hit(&mut reader, &schema, "p"), "{end}");
        assert_eq!(sum(&mut reader), 2, "{end}");
    }
}

/// Commit callbacks of other extensions may write after pg_cache's own callback. The session may not know the parents
/// of such a table.
#[test]
fn what_is_written_in_the_middle_of_a_commit_is_fenced_after_it() {
    let database = Database::create();
    let mut session = database.connect();
    prepare(&mut session, "late", PARTITIONED);
    watch(&mut session, "late", &["p"]);
    assert!(is_hit(&mut session, "late", "p"));
    let mut writer = database.connect();
    // This setting makes pg_cache treat all writes of the session as if they came that late.
    writer
        .batch_execute("SET pg_cache.break_fencing = late; INSERT INTO late.p_high_1 VALUES (12, 1)")
        .expect("it writes");
    assert!(!is_hit(&mut session, "late", "p"));
}

/// At a commit, the server empties temporary tables (`ON COMMIT DELETE ROWS`) and assigns a transaction ID for
/// `NOTIFY`. This happens after the last moment at which pg_cache may read catalogs. It must not invalidate anything.
#[test]
fn what_a_commit_does_of_itself_leaves_what_depends_on_anything() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    prepare(&mut session, "itself", PARTITIONED);
    watch(&mut session, "itself", &["t", "p"]);
    other.batch_execute("CREATE TABLE mid (v int); CREATE TABLE leaf (v int)").expect("tables");
    session.batch_execute("INSERT INTO p VALUES (2, 2)").expect("it writes to a part");
    // The write to a partition does not make it a part of another table.
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

/// The server's plans and commands name the tables that they write to. At each commit, builds for tests compare these
/// with the fences that are raised. Here the setting raises no fence, so each commit must end in an error.
#[test]
fn what_a_statement_names_and_nobody_fences_is_an_error_of_its_commit() {
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

/// The second `TRUNCATE` of a transaction empties the table in place, and the server's command counter does not show it
/// as a write.
#[test]
fn a_value_that_is_set_between_two_truncates_is_dropped() {
    let database = Database::create();
    let mut session = database.connect();
    prepare(&mut session, "emptied", "CREATE TABLE plain (v int)");
    watch(&mut session, "emptied", &["plain"]);
    for (then, hit) in [("TRUNCATE plain", false), ("", true)] {
        session.batch_execute("BEGIN; TRUNCATE plain; INSERT INTO plain VALUES (7)").expect("it writes");
        set(&mut session, "emptied", "plain");
        session.batch_execute(then).expect("it writes again, or not");
        session.batch_execute("COMMIT").expect("it commits");
        assert_eq!(is_hit(&mut session, "emptied", "plain"), hit, "after {then}");
    }
}

/// `ALTER TABLE … INHERIT` locks the tables below only for reading. Another transaction may be writing to them at that
/// time.
#[test]
fn a_tree_may_grow_above_while_a_leaf_is_written() {
    let database = Database::create();
    let [mut writer, mut other] = [(); 2].map(|()| database.connect());
    prepare(
        &mut writer,
        "grown",
        "CREATE TABLE mid (v int); CREATE TABLE leaf () INHERITS (mid); CREATE TABLE top (v int)",
    );
    watch(&mut writer, "grown", &["top"]);
    // After this write, the session remembers the parents of `leaf`.
    writer.batch_execute("INSERT INTO leaf VALUES (1)").expect("it writes");
    writer.batch_execute("BEGIN; INSERT INTO leaf VALUES (2)").expect("it writes");
    other.batch_execute("ALTER TABLE grown.mid INHERIT grown.top").expect("it grows");
    other.batch_execute("SET search_path = grown, public").expect("it is set");
    set(&mut other, "grown", "top");
    assert!(is_hit(&mut other, "grown", "top"));
    writer.batch_execute("COMMIT").expect("it commits");
    assert!(!is_hit(&mut other, "grown", "top"));
}

/// A session that writes to a table repeatedly looks up its parents again only when these have changed.
#[test]
fn what_a_written_table_is_a_part_of_may_change_between_two_writes() {
    let database = Database::create();
    let [mut writer, mut other] = [(); 2].map(|()| database.connect());
    prepare(
        &mut writer,
        "between",
        "CREATE TABLE a (v int); CREATE TABLE b (v int); CREATE TABLE leaf (v int); CREATE TABLE divided (v int) PARTITION BY LIST (v);
         CREATE TABLE above (v int) PARTITION BY LIST (v)",
    );
    other.batch_execute("SET search_path = between, public").expect("it is set");
    watch(&mut other, "between", &["leaf", "a", "b", "divided", "above"]);
    let mut wrong = Vec::new();
    for round in 0..2 {
        for (change, parts) in [
            ("SELECT", &["leaf"][..]),
            ("ALTER TABLE leaf INHERIT b", &["leaf", "b"]),
            ("ALTER TABLE b INHERIT a", &["leaf", "b", "a"]),
            ("BEGIN; ALTER TABLE b NO INHERIT a; ROLLBACK", &["leaf", "b", "a"]),
            ("BEGIN; SAVEPOINT s; ALTER TABLE leaf NO INHERIT b; ROLLBACK TO s; COMMIT", &["leaf", "b", "a"]),
            ("ALTER TABLE b NO INHERIT a", &["leaf", "b"]),
            ("ALTER TABLE leaf NO INHERIT b", &["leaf"]),
            ("ALTER TABLE divided ATTACH PARTITION leaf DEFAULT", &["leaf", "divided"]),
            ("ALTER TABLE above ATTACH PARTITION divided DEFAULT", &["leaf", "divided", "above"]),
            ("ALTER TABLE above DETACH PARTITION divided", &["leaf", "divided"]),
            ("ALTER TABLE divided DETACH PARTITION leaf", &["leaf"]),
            ("ALTER TABLE leaf SET UNLOGGED", &["leaf"]),
            (
                "DROP TABLE leaf; CREATE TABLE leaf (v int) INHERITS (a); SELECT public.cache_watch('leaf', '{between_leaf}')",
                &["leaf", "a"],
            ),
            ("ALTER TABLE leaf NO INHERIT a", &["leaf"]),
        ] {
            let changer = if round == 0 { &mut writer } else { &mut other };
            changer.batch_execute(change).unwrap_or_else(|error| panic!("{change}: {error:?}"));
            let all = ["leaf", "a", "b", "divided", "above"];
            all.iter().for_each(|table| set(&mut other, "between", table));
            writer.batch_execute("INSERT INTO leaf VALUES (1)").expect("it writes");
            for table in all {
                if is_hit(&mut other, "between", table) == parts.contains(&table) {
                    wrong.push(format!("{round}, {change}: {table}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
