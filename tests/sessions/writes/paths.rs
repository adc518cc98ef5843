//! The ways to write to a table, statements of writers that find no row to change, and statements that do not write. The other
//! files of this folder combine them. A way to write that is missing here is not tested.
//!
//! A new way to write also needs an entry in `IN_BULK` of `rows.rs` if pg_cache does not learn which rows it changes. `IDS` there
//! must have the ids of the rows that it writes.

use pg_cache_testbed::Server;

/// A way to write.
pub struct Path {
    /// A name that begins with "deferred" means that the write happens at the commit.
    pub name: &'static str,
    /// Statements that create more objects, or a query with the suffix ` \gexec`, whose rows are these statements (as in psql).
    /// `t (id int primary key, v int)` with rows 1 to 3 is always there.
    pub setup: &'static str,
    /// Statements that must be allowed in a transaction block, in one message.
    pub write: &'static str,
    /// Tables that the write changes, perhaps not all of them. Values that depend on them must be invalidated.
    pub changes: &'static [&'static str],
}

const fn path(
    name: &'static str,
    setup: &'static str,
    write: &'static str,
    changes: &'static [&'static str],
) -> Path {
    Path { name, setup, write, changes }
}

/// A partitioned table `p` of two levels.
pub const PARTITIONED: &str = "CREATE TABLE p (id int, v int) PARTITION BY RANGE (id);
    CREATE TABLE p_low PARTITION OF p FOR VALUES FROM (0) TO (10);
    CREATE TABLE p_high PARTITION OF p FOR VALUES FROM (10) TO (100) PARTITION BY RANGE (id);
    CREATE TABLE p_high_1 PARTITION OF p_high FOR VALUES FROM (10) TO (50);
    INSERT INTO p VALUES (1, 1), (11, 1)";

/// A table with a foreign key to `t` that cascades.
const FAMILY: &str =
    "CREATE TABLE child (t_id int REFERENCES t ON DELETE CASCADE, v int); INSERT INTO child VALUES (1, 1)";

/// Returns all ways to write that the server under test has.
pub fn paths() -> impl Iterator<Item = &'static Path> {
    PATHS.iter().chain(of_this_major(NEWER_PATHS))
}

/// Returns all statements that find no row to change and that the server under test has.
pub fn no_ops() -> impl Iterator<Item = &'static NoOp> {
    NO_OPS.iter().chain(of_this_major(NEWER_NO_OPS))
}

/// Returns those of the items that the server under test has. Each item has the major version of PostgreSQL since which it exists.
fn of_this_major<T>(newer: &'static [(u32, T)]) -> impl Iterator<Item = &'static T> {
    let major = Server::from_env().major();
    newer.iter().filter(move |(since, _)| *since <= major).map(|(_, newer)| newer)
}

/// The ways to write that every server has.
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
    // Before PostgreSQL 18, a backend keeps the weak locks (up to ROW EXCLUSIVE) of 16 relations in fast-path slots, and further
    // ones in the main lock table. pg_cache reads both places (`src/pg/locks.rs`).
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

/// A table whose primary key has a range without overlaps.
const TEMPORAL: &str =
    "CREATE TABLE stays (id int4range, at daterange, v int, PRIMARY KEY (id, at WITHOUT OVERLAPS));
     INSERT INTO stays VALUES ('[1,2)', '[2026-01-01,2026-02-01)', 1)";

/// A table with a generated column that is not stored.
const VIRTUAL: &str =
    "CREATE TABLE g (id int PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2) VIRTUAL);
     INSERT INTO g (id, v) VALUES (1, 1), (2, 2)";

/// The ways to write that came later, each with the major version in which it came.
const NEWER_PATHS: &[(u32, Path)] = &[
    (
        17,
        path(
            "MERGE RETURNING",
            "",
            "WITH m AS (MERGE INTO t USING (VALUES (1), (9)) AS s (id) ON s.id = t.id
                 WHEN MATCHED THEN UPDATE SET v = 7 WHEN NOT MATCHED THEN INSERT VALUES (s.id, 7) RETURNING merge_action())
             SELECT count(*) FROM m",
            &["t"],
        ),
    ),
    (
        17,
        path(
            "MERGE WHEN NOT MATCHED BY SOURCE",
            "",
            "MERGE INTO t USING (VALUES (1), (2)) AS s (id) ON s.id = t.id WHEN NOT MATCHED BY SOURCE THEN DELETE",
            &["t"],
        ),
    ),
    (
        17,
        path(
            "MERGE into an updatable view",
            "CREATE VIEW s AS SELECT * FROM t",
            "MERGE INTO s USING (VALUES (1)) AS n (id) ON n.id = s.id WHEN MATCHED THEN UPDATE SET v = 8",
            &["t"],
        ),
    ),
    (
        17,
        path(
            "COPY FROM that skips lines",
            "",
            "COPY t FROM PROGRAM 'echo x,1 && echo 4,4' WITH (FORMAT csv, ON_ERROR ignore)",
            &["t"],
        ),
    ),
    (
        17,
        path(
            "SET EXPRESSION of a stored column",
            "CREATE TABLE g (id int PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2) STORED); INSERT INTO g (id, v) VALUES (1, 1)",
            "ALTER TABLE g ALTER twice SET EXPRESSION AS (v * 3)",
            &["g"],
        ),
    ),
    (
        18,
        path(
            "RETURNING OLD and NEW",
            "",
            "WITH w AS (UPDATE t SET v = 5 WHERE id = 1 RETURNING OLD.v AS o, NEW.v AS n) SELECT sum(n - o) FROM w",
            &["t"],
        ),
    ),
    (18, path("UPDATE beside a virtual column", VIRTUAL, "UPDATE g SET v = 5 WHERE id = 1", &["g"])),
    (18, path("SET EXPRESSION of a virtual column", VIRTUAL, "ALTER TABLE g ALTER twice SET EXPRESSION AS (v * 3)", &["g"])),
    (18, path("INSERT without overlaps", TEMPORAL, "INSERT INTO stays VALUES ('[1,2)', '[2026-02-01,2026-03-01)', 2)", &["stays"])),
    (18, path("UPDATE of a key without overlaps", TEMPORAL, "UPDATE stays SET at = '[2026-01-01,2026-01-15)'", &["stays"])),
];

/// Statements that do not write to `t`, each with a name. Values that depend on `t` must stay hits.
pub const HARMLESS: &[(&str, &str)] = &[
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
    // A transaction without a transaction ID has written nothing, so its write locks do not count.
    ("a lock alone", "LOCK t IN ROW EXCLUSIVE MODE"),
    ("EXPLAIN of a write", "EXPLAIN UPDATE t SET v = 2"),
];

/// A statement that locks tables as a writer and finds no row to change in some of them.
pub struct NoOp {
    /// A name that begins with "deferred" means that the tables are locked and changed at the commit.
    pub name: &'static str,
    /// As in [`Path`].
    pub setup: &'static str,
    /// The statement. It can be repeated.
    pub statement: &'static str,
    /// Tables whose rows stay the same, although the statement locks them, or tables below them, as a writer.
    pub unchanged: &'static [&'static str],
    /// A similar statement that finds a row to change.
    pub write: &'static str,
    /// Some tables that `write` changes.
    pub changes: &'static [&'static str],
}

/// Makes a [`NoOp`]. The arguments are its fields, in their order.
const fn no_op(
    name: &'static str,
    setup: &'static str,
    statement: &'static str,
    unchanged: &'static [&'static str],
    write: &'static str,
    changes: &'static [&'static str],
) -> NoOp {
    NoOp { name, setup, statement, unchanged, write, changes }
}

/// Statements that find no row to change, and that came later, each with the major version in which it came.
const NEWER_NO_OPS: &[(u32, NoOp)] = &[
    (
        17,
        no_op(
            "MERGE RETURNING",
            "",
            "WITH m AS (MERGE INTO t USING (VALUES (1)) AS s (id) ON s.id = t.id WHEN MATCHED AND t.v = 99 THEN DELETE RETURNING t.id)
             SELECT count(*) FROM m",
            &["t"],
            "WITH m AS (MERGE INTO t USING (VALUES (1)) AS s (id) ON s.id = t.id WHEN MATCHED AND t.v = 1 THEN DELETE RETURNING t.id)
             SELECT count(*) FROM m",
            &["t"],
        ),
    ),
    (
        17,
        no_op(
            "COPY FROM that skips all lines",
            "",
            "COPY t FROM PROGRAM 'echo x,1' WITH (FORMAT csv, ON_ERROR ignore)",
            &["t"],
            "COPY t FROM PROGRAM 'echo 4,4' WITH (FORMAT csv, ON_ERROR ignore)",
            &["t"],
        ),
    ),
    (
        18,
        no_op(
            "a virtual column",
            VIRTUAL,
            "UPDATE g SET v = 9 WHERE twice = 99",
            &["g"],
            "UPDATE g SET v = 9 WHERE twice = 2",
            &["g"],
        ),
    ),
    (
        18,
        no_op(
            "a key without overlaps",
            TEMPORAL,
            "DELETE FROM stays WHERE at @> date '2027-01-01'",
            &["stays"],
            "DELETE FROM stays WHERE at @> date '2026-01-01'",
            &["stays"],
        ),
    ),
];

/// Statements that find no row to change, on every server.
const NO_OPS: &[NoOp] = &[
    no_op("UPDATE WHERE false", "", "UPDATE t SET v = 9 WHERE false", &["t"], "UPDATE t SET v = 9 WHERE true", &["t"]),
    no_op("UPDATE by key", "", "UPDATE t SET v = 9 WHERE id = 99", &["t"], "UPDATE t SET v = 9 WHERE id = 1", &["t"]),
    no_op("DELETE", "", "DELETE FROM t WHERE id = 99", &["t"], "DELETE FROM t WHERE id = 1", &["t"]),
    no_op(
        "INSERT of a query",
        "",
        "INSERT INTO t SELECT id + 100, v FROM t WHERE id = 99",
        &["t"],
        "INSERT INTO t SELECT id + 100, v FROM t WHERE id = 1",
        &["t"],
    ),
    no_op(
        "ON CONFLICT DO NOTHING",
        "",
        "INSERT INTO t VALUES (1, 9) ON CONFLICT DO NOTHING",
        &["t"],
        "INSERT INTO t VALUES (9, 9) ON CONFLICT DO NOTHING",
        &["t"],
    ),
    no_op(
        "ON CONFLICT DO UPDATE WHERE",
        "",
        "INSERT INTO t VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET v = 1 WHERE t.v <> excluded.v",
        &["t"],
        "INSERT INTO t VALUES (1, 9) ON CONFLICT (id) DO UPDATE SET v = 9 WHERE t.v <> excluded.v",
        &["t"],
    ),
    no_op(
        "MERGE",
        "",
        "MERGE INTO t USING (VALUES (1)) AS s (id) ON s.id = t.id WHEN MATCHED AND t.v = 99 THEN DELETE",
        &["t"],
        "MERGE INTO t USING (VALUES (1)) AS s (id) ON s.id = t.id WHEN MATCHED AND t.v = 1 THEN DELETE",
        &["t"],
    ),
    no_op(
        "a poller",
        "",
        "UPDATE t SET v = 0 WHERE id IN (SELECT id FROM t WHERE v > 99 LIMIT 1 FOR UPDATE SKIP LOCKED)",
        &["t"],
        "UPDATE t SET v = 0 WHERE id IN (SELECT id FROM t WHERE v > 1 LIMIT 1 FOR UPDATE SKIP LOCKED)",
        &["t"],
    ),
    no_op(
        "a trigger that suppresses redundant updates",
        "CREATE TRIGGER z BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "UPDATE t SET v = v",
        &["t"],
        "UPDATE t SET v = v + 1",
        &["t"],
    ),
    no_op(
        "a trigger that writes elsewhere instead",
        "CREATE TABLE log (id int);
         CREATE FUNCTION divert() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (NEW.id); RETURN NULL; END';
         CREATE TRIGGER divert BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id > 10) EXECUTE FUNCTION divert()",
        "INSERT INTO t VALUES (11, 1)",
        &["t"],
        "INSERT INTO t VALUES (10, 1)",
        &["t", "log"],
    ),
    no_op(
        "a writable CTE",
        "",
        "WITH w AS (UPDATE t SET v = 9 WHERE id = 99 RETURNING id) SELECT count(*) FROM w",
        &["t"],
        "WITH w AS (UPDATE t SET v = 9 WHERE id = 1 RETURNING id) SELECT count(*) FROM w",
        &["t"],
    ),
    no_op(
        "EXPLAIN ANALYZE",
        "",
        "EXPLAIN ANALYZE UPDATE t SET v = 9 WHERE id = 99",
        &["t"],
        "EXPLAIN ANALYZE UPDATE t SET v = 9 WHERE id = 1",
        &["t"],
    ),
    no_op(
        "COPY FROM",
        "",
        "COPY t FROM PROGRAM 'true' WITH (FORMAT csv)",
        &["t"],
        "COPY t FROM PROGRAM 'echo 4,4' WITH (FORMAT csv)",
        &["t"],
    ),
    no_op("LOCK", "", "LOCK t IN ROW EXCLUSIVE MODE", &["t"], "DELETE FROM t", &["t"]),
    no_op(
        "an updatable view",
        "CREATE VIEW s AS SELECT * FROM t",
        "UPDATE s SET v = 9 WHERE id = 99",
        &["t"],
        "UPDATE s SET v = 9 WHERE id = 1",
        &["t"],
    ),
    no_op("ON DELETE CASCADE", FAMILY, "DELETE FROM t WHERE id > 1", &["child"], "DELETE FROM t WHERE id = 1", &["child"]),
    no_op(
        "an unpruned update of one partition",
        PARTITIONED,
        "UPDATE p SET v = v + 1 WHERE id + 0 = 11",
        &["p_low"],
        "UPDATE p SET v = v + 1 WHERE id + 0 < 99",
        &["p", "p_low", "p_high", "p_high_1"],
    ),
    no_op(
        "an unpruned update of no partition",
        PARTITIONED,
        "UPDATE p SET v = v + 1 WHERE id + 0 = 77",
        &["p", "p_low", "p_high", "p_high_1"],
        "UPDATE p SET v = v + 1 WHERE id + 0 = 11",
        &["p", "p_high", "p_high_1"],
    ),
    no_op(
        "a row that does not move between partitions",
        PARTITIONED,
        "UPDATE p SET id = 12 WHERE id = 77",
        &["p", "p_high_1"],
        "UPDATE p SET id = 12 WHERE id = 1",
        &["p", "p_low", "p_high_1"],
    ),
    no_op(
        "inheritance",
        "CREATE TABLE heir () INHERITS (t); INSERT INTO heir VALUES (7, 7)",
        "UPDATE t SET v = v + 1 WHERE id = 1",
        &["heir"],
        "UPDATE t SET v = v + 1 WHERE id = 7",
        &["t", "heir"],
    ),
    no_op(
        "inheritance, and no row at all",
        "CREATE TABLE heir () INHERITS (t); INSERT INTO heir VALUES (7, 7)",
        "DELETE FROM t WHERE id = 99",
        &["t", "heir"],
        "DELETE FROM t WHERE id = 7",
        &["t", "heir"],
    ),
    no_op(
        "deferred trigger",
        "CREATE TABLE log (id int);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN INSERT INTO log SELECT NEW.id WHERE NEW.id > 1; UPDATE t SET v = 9 WHERE id = 99; RETURN NEW; END';
         CREATE TABLE first (id int);
         CREATE CONSTRAINT TRIGGER note AFTER INSERT ON first DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note()",
        "INSERT INTO first VALUES (1)",
        &["log", "t"],
        "INSERT INTO first VALUES (2)",
        &["log"],
    ),
    no_op("unlogged table", "CREATE UNLOGGED TABLE u (id int)", "DELETE FROM u", &["u"], "INSERT INTO u VALUES (1)", &["u"]),
    // More tables than there are fast-path slots before PostgreSQL 18: their locks are in both places that `src/pg/locks.rs` reads.
    no_op(
        "twenty tables",
        "SELECT format('CREATE TABLE many_%s (id int)', i) FROM generate_series(1, 20) AS i \\gexec",
        "DO $$ BEGIN FOR i IN 1..20 LOOP EXECUTE format('DELETE FROM many_%s', i); END LOOP; END $$",
        &["many_1", "many_10", "many_16", "many_17", "many_20"],
        "DO $$ BEGIN FOR i IN 1..20 LOOP EXECUTE format('INSERT INTO many_%s VALUES (1)', i); END LOOP; END $$",
        &["many_1", "many_10", "many_16", "many_17", "many_20"],
    ),
];
