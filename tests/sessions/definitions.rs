//! Tests of changes of definitions: they must invalidate results of queries, with or without a command that announces them.
//! Commands that change nothing on which the result of a query depends must not. A *fence* is a word in shared memory that says
//! when something that values depend on last changed (`docs/invalidation.md`).

use crate::fences::is_cached;
use crate::memory::cluster;
use pg_cache_testbed::{Conf, Database, Server, wait_until};
use postgres::Client;
use postgres::types::ToSql;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A change of definitions and its effect on the result of a query. There are two schemas, `a` and `b`; `a` comes first
/// in the search path. One session runs `setup` and `change`, another one fetches `query`.
struct Case {
    name: &'static str,
    setup: &'static str,
    query: &'static str,
    change: &'static str,
    /// The results before and after the change. `None` means that the query fails.
    results: (i32, Option<i32>),
}

/// A constant of its own, because two tests use it.
const DISCARDED: Case = Case {
    name: "DISCARD drops what depends on a temporary table",
    setup: "CREATE TEMP TABLE mine (i int);
            CREATE FUNCTION b.f(mine) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 3'",
    query: "SELECT f(NULL)",
    change: "DISCARD TEMP",
    results: (3, None),
};

/// All changes that must invalidate.
const CASES: [Case; 8] = [
    DISCARDED,
    Case {
        name: "CREATE TABLE of a name that shadows another",
        setup: "CREATE TABLE b.t AS SELECT 1 AS v",
        query: "SELECT count(*) FROM t",
        change: "CREATE TABLE a.t (v int)",
        results: (1, Some(0)),
    },
    Case {
        name: "SELECT INTO one",
        setup: "CREATE TABLE b.t AS SELECT 1 AS v",
        query: "SELECT v FROM t",
        change: "SELECT 2 AS v INTO a.t",
        results: (1, Some(2)),
    },
    Case {
        name: "DROP VIEW of one that shadows another",
        setup: "CREATE VIEW b.w AS SELECT 1 AS v; CREATE VIEW a.w AS SELECT 2 AS v",
        query: "SELECT v FROM w",
        change: "DROP VIEW a.w",
        results: (2, Some(1)),
    },
    Case {
        name: "DROP FUNCTION",
        setup: "CREATE FUNCTION b.g() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'",
        query: "SELECT g()",
        change: "DROP FUNCTION g",
        results: (1, None),
    },
    Case {
        name: "C code gives a table a name that shadows another",
        setup: "CREATE TABLE b.t AS SELECT 1 AS v; CREATE TABLE a.other AS SELECT 2 AS v",
        query: "SELECT v FROM t",
        change: "SELECT rename_in_c('a.other'::regclass, 't')",
        results: (1, Some(2)),
    },
    Case {
        name: "C code renames a view",
        setup: "CREATE TABLE b.u AS SELECT 1 AS v; CREATE VIEW b.w AS SELECT v FROM b.u",
        query: "SELECT v FROM w",
        change: "SELECT rename_in_c('b.w'::regclass, 'renamed')",
        results: (1, None),
    },
    Case {
        name: "C code creates collations",
        setup: r#"CREATE COLLATION b."de-x-icu" (locale = 'C')"#,
        query: r#"SELECT ('a' < 'B' COLLATE "de-x-icu")::int"#,
        change: "SELECT pg_import_system_collations('a')",
        results: (0, Some(1)),
    },
];

/// Returns whether the server has collations of ICU. Panics if it has none although it was not configured without ICU.
fn has_icu(session: &mut Client) -> bool {
    let query = "SELECT EXISTS (SELECT FROM pg_collation WHERE collname = 'de-x-icu')";
    let has = session.query_one(query, &[]).expect("a catalog").get(0);
    assert!(
        has || Server::from_env().is_without_icu(),
        "a server that was built with ICU has its collations"
    );
    has
}

/// Fetches the query under the key `k`. `None` means that the call fails.
fn fetch(session: &mut Client, query: &str) -> Option<i32> {
    let call = "SELECT cache_fetch('k', $1)::int";
    session.query_one(call, &[&query]).ok().map(|row| row.get(0))
}

/// Opens two sessions with the schemas in their search path. The second session creates `rename_in_c`: a function that renames a
/// relation without a command, and that only debug builds have (`src/pg/definition.rs`).
fn sessions(database: &Database) -> [Client; 2] {
    let mut sessions = [(); 2].map(|()| database.connect());
    sessions[1]
        .batch_execute(
            "CREATE SCHEMA a; CREATE SCHEMA b;
             CREATE FUNCTION rename_in_c(oid, cstring) RETURNS void
                AS '$libdir/pg_cache', 'rename_in_c_wrapper' LANGUAGE C STRICT",
        )
        .expect("schemas");
    for session in &mut sessions {
        session.batch_execute("SET search_path = a, b, pg_catalog, public").expect("it is set");
    }
    sessions
}

/// In the session of the change, the result is a miss at once. For others, it is still a hit after a rollback to a savepoint, and
/// a miss after a commit. `DISCARD` is only tried outside of a transaction block.
#[test]
fn a_change_of_definitions_invalidates_at_its_commit_with_or_without_a_command() {
    for Case { name, setup, query, change, results } in CASES {
        let database = Database::create();
        let [mut reader, mut other] = sessions(&database);
        // Only a server that was built with ICU has collations to import.
        if change.contains("import") && !has_icu(&mut other) {
            continue;
        }
        other.batch_execute(setup).expect(name);
        assert_eq!(fetch(&mut reader, query), Some(results.0), "{name}");
        assert!(is_cached(&mut reader, "k"), "{name}");
        if !change.starts_with("DISCARD") {
            other.batch_execute("BEGIN; SAVEPOINT s").expect(name);
            other.batch_execute(change).expect(name);
            assert!(!is_cached(&mut other, "k"), "{name}: in the session that has changed it");
            other.batch_execute("ROLLBACK TO s; COMMIT").expect(name);
            assert!(is_cached(&mut reader, "k"), "{name}: rolled back");
        }
        other.batch_execute(change).expect(name);
        assert!(!is_cached(&mut reader, "k"), "{name}");
        assert_eq!(fetch(&mut reader, query), results.1, "{name}");
    }
}

/// The end of a session drops its temporary tables and the objects that depend on them. That must invalidate results of queries,
/// too.
#[test]
fn objects_that_a_session_drops_at_its_end_invalidate_results() {
    let database = Database::create();
    let [mut reader, mut other] = sessions(&database);
    let Case { setup, query, .. } = DISCARDED;
    other.batch_execute(setup).expect("a function");
    assert_eq!(fetch(&mut reader, query), Some(3));
    drop(other);
    wait_until("the function to be dropped", || {
        let there = "SELECT count(*) FROM pg_proc WHERE proname = 'f' AND pronamespace = 'b'::regnamespace";
        reader.query_one(there, &[]).expect("a catalog").get::<_, i64>(0) == 0
    });
    wait_until("it to be told", || !is_cached(&mut reader, "k"));
    assert_eq!(fetch(&mut reader, query), None);
}

/// Commands that change no name and no rule on which the result of a query can depend: they concern indexes, statistics, triggers,
/// comments, rows, large objects, or temporary tables. Each statement runs by itself, because some are not allowed in a transaction
/// block. They run in this order: some use or drop what earlier ones have created. `; ` stands between statements only.
const HARMLESS: [&str; 26] = [
    "CREATE INDEX t_v ON t (v)",
    "REINDEX TABLE t",
    "REINDEX INDEX CONCURRENTLY t_v",
    "DROP INDEX CONCURRENTLY t_v",
    "ANALYZE t",
    "VACUUM t",
    "CREATE STATISTICS s ON id, v FROM t",
    "DROP STATISTICS s",
    "COMMENT ON TABLE t IS 'a comment'",
    "VACUUM FULL other",
    "CLUSTER other USING other_pkey",
    "CREATE INDEX ON other (v)",
    "INSERT INTO other VALUES (777, 'a value')",
    "CREATE TRIGGER same BEFORE UPDATE ON other FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "DROP TRIGGER same ON other",
    "TRUNCATE other RESTART IDENTITY",
    "REFRESH MATERIALIZED VIEW m",
    "REFRESH MATERIALIZED VIEW CONCURRENTLY m",
    "SELECT lo_unlink(lo_create(0))",
    "CREATE TEMP TABLE mine (id serial PRIMARY KEY, v text DEFAULT 'v' CHECK (v <> ''), other int REFERENCES mine)",
    "CREATE TEMP TABLE t AS SELECT 1 AS v",
    "CREATE INDEX ON mine (v)",
    "TRUNCATE mine",
    "DROP TABLE pg_temp.t, mine",
    "BEGIN; CREATE TEMP TABLE mine (id serial) ON COMMIT DROP; COMMIT",
    "CREATE TEMP TABLE mine (id serial); DISCARD ALL",
];

/// The result depends on the table `t`. It must be a hit after each of the commands, and after the end of a session that leaves a
/// temporary table.
#[test]
fn commands_that_change_no_name_and_no_rule_invalidate_no_result() {
    let database = Database::create();
    let [mut reader, mut other] = [(); 2].map(|()| database.connect());
    other
        .batch_execute(
            "CREATE TABLE t AS SELECT 1 AS id, 1 AS v;
             CREATE TABLE other (id serial PRIMARY KEY, v text);
             INSERT INTO other (v) SELECT repeat('x', i * 100) FROM generate_series(1, 100) AS i;
             CREATE MATERIALIZED VIEW m AS SELECT * FROM other; CREATE UNIQUE INDEX ON m (id)",
        )
        .expect("tables");
    let mut wrong = Vec::new();
    for statement in HARMLESS {
        assert_eq!(fetch(&mut reader, "SELECT v FROM t"), Some(1));
        assert!(is_cached(&mut reader, "k"), "before {statement}");
        for statement in statement.split("; ") {
            other.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        }
        if !is_cached(&mut reader, "k") {
            wrong.push(statement);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The end of a session that leaves a temporary table must not invalidate the result either.
    other.batch_execute("CREATE TEMP TABLE mine (id serial PRIMARY KEY)").expect("a table");
    drop(other);
    wait_until("its table to be dropped", || {
        let there = "SELECT count(*) FROM pg_class WHERE relname = 'mine'";
        reader.query_one(there, &[]).expect("a catalog").get::<_, i64>(0) == 0
    });
    assert!(is_cached(&mut reader, "k"));
}

/// The objects of [`STATEMENTS`].
const OBJECTS: &str = r#"
    CREATE ROLE joe; CREATE ROLE jim;
    CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE loose (id int, d int); CREATE TABLE second (id int);
    CREATE VIEW w AS SELECT id FROM t; CREATE MATERIALIZED VIEW m AS SELECT id FROM t;
    CREATE TABLE p (id int, d int) PARTITION BY RANGE (id);
    CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (id);
    CREATE TABLE p11 PARTITION OF p1 FOR VALUES FROM (0) TO (10);
    CREATE TABLE above (id int); CREATE TABLE below () INHERITS (above);
    CREATE SEQUENCE q; CREATE SCHEMA s; CREATE TABLE s.far (id int); CREATE VIEW s.farther AS SELECT 1 AS one;
    CREATE FUNCTION f() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION native(int) RETURNS int IMMUTABLE LANGUAGE internal AS 'int4abs';
    CREATE TYPE mood AS ENUM ('a'); CREATE TYPE pair AS (a int, b int); CREATE DOMAIN few AS int;
    CREATE TABLE used (id int); CREATE TABLE user_of_type (c used, d used[]);
    CREATE TABLE computed (id int); CREATE FUNCTION twice(computed) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1.id';
    CREATE ACCESS METHOD inexact TYPE INDEX HANDLER hashhandler;
    CREATE OPERATOR CLASS inexact DEFAULT FOR TYPE int USING inexact AS OPERATOR 1 =, FUNCTION 1 hashint4(int);
    SET allow_system_table_mods = on"#;

/// Statements, each with the definitions that it must change, and with a statement that undoes it. `def` stands before a relation
/// whose definition changes. `other` stands for other definitions of the database, and `roles` for those of the server. Everything
/// else is a name that changes its meaning. A statement that changes anything must also change the definitions as a whole (`any`).
///
/// The statements run in this order, and later ones use what earlier ones have left. A name that exists neither before nor after
/// its statement, or that belongs to the server, must be in the array of [`add_definitions`].
const STATEMENTS: &[(&str, &str, &str)] = &[
    // Relations are created.
    ("CREATE TABLE new (id int)", "new _new", "DROP TABLE new"),
    ("CREATE TABLE IF NOT EXISTS t (id int)", "", ""),
    ("CREATE TABLE new (id serial PRIMARY KEY, t int REFERENCES t)", "new _new new_id_seq", "DROP TABLE new"),
    ("CREATE TABLE new AS SELECT 1 AS v", "new _new", "DROP TABLE new"),
    ("SELECT 1 AS v INTO new", "new _new", "DROP TABLE new"),
    ("CREATE MATERIALIZED VIEW new AS SELECT 1 AS v", "new _new", "DROP MATERIALIZED VIEW new"),
    ("CREATE VIEW new AS SELECT 1 AS v", "new _new", "DROP VIEW new"),
    ("CREATE SEQUENCE new", "new", "DROP SEQUENCE new"),
    ("CREATE UNLOGGED TABLE s.new (id int)", "new _new", "DROP TABLE s.new"),
    ("BEGIN; CREATE TABLE new (id int); ALTER TABLE new ADD x int; DROP TABLE new; COMMIT", "new _new", ""),
    // Relations are altered.
    ("ALTER TABLE t ADD COLUMN x int", "def:t t", "ALTER TABLE t DROP COLUMN x"),
    // Since PostgreSQL 18, this command keeps its lock on pg_depend, which once counted as a change of any definition.
    ("ALTER TABLE t ALTER v TYPE bigint", "def:t t", "ALTER TABLE t ALTER v TYPE int"),
    ("ALTER TABLE t ALTER v SET DEFAULT 1", "def:t", ""),
    ("ALTER TABLE t ADD CONSTRAINT positive CHECK (v > 0)", "def:t", ""),
    ("ALTER TABLE t RENAME CONSTRAINT positive TO negative", "", ""),
    ("ALTER TABLE t DROP CONSTRAINT negative", "def:t", ""),
    ("ALTER TABLE second ADD FOREIGN KEY (id) REFERENCES t", "def:second", ""),
    ("ALTER TABLE t OWNER TO joe", "def:t", "ALTER TABLE t OWNER TO CURRENT_USER"),
    ("ALTER TABLE t ENABLE ROW LEVEL SECURITY", "def:t", "ALTER TABLE t DISABLE ROW LEVEL SECURITY"),
    ("ALTER TABLE t FORCE ROW LEVEL SECURITY", "def:t", "ALTER TABLE t NO FORCE ROW LEVEL SECURITY"),
    ("ALTER TABLE t SET (fillfactor = 50)", "def:t", ""),
    ("ALTER TABLE loose SET UNLOGGED", "def:loose", ""),
    ("ALTER TABLE t RENAME TO t9", "def:t t _t t9 _t9", "ALTER TABLE t9 RENAME TO t"),
    (
        "BEGIN; ALTER TABLE t RENAME TO a; ALTER TABLE a RENAME TO b; COMMIT",
        "def:t t _t a _a b _b",
        "ALTER TABLE b RENAME TO t",
    ),
    ("ALTER TABLE t SET SCHEMA s", "def:t t _t", "ALTER TABLE s.t SET SCHEMA public"),
    ("ALTER TABLE t RENAME v TO v9", "def:t t", "ALTER TABLE t RENAME v9 TO v"),
    ("ALTER TABLE above ADD x int", "def:above def:below above below", "ALTER TABLE above DROP x"),
    ("ALTER TABLE used ADD x int", "def:used used other", ""),
    ("ALTER TABLE computed ADD x int", "def:computed computed", ""),
    ("ALTER INDEX t_pkey RENAME TO key", "", ""),
    ("ALTER SEQUENCE q INCREMENT 2", "def:q", ""),
    ("ALTER TABLE IF EXISTS nowhere ADD x int", "other", ""),
    ("CREATE POLICY mine ON t", "def:t", ""),
    ("ALTER POLICY mine ON t USING (v > 1)", "def:t", ""),
    ("ALTER POLICY mine ON t RENAME TO yours", "def:t", ""),
    ("DROP POLICY yours ON t", "def:t", ""),
    ("CREATE RULE quiet AS ON DELETE TO t DO INSTEAD NOTHING", "def:t", ""),
    ("ALTER TABLE t DISABLE RULE quiet", "def:t", ""),
    ("ALTER RULE quiet ON t RENAME TO loud", "def:t", ""),
    ("DROP RULE loud ON t", "def:t", ""),
    ("CREATE OR REPLACE VIEW w AS SELECT id FROM t WHERE v > 0", "def:w", ""),
    ("CREATE OR REPLACE VIEW w AS SELECT id, v FROM t", "def:w w", ""),
    ("ALTER VIEW w SET (security_barrier)", "def:w", ""),
    ("ALTER MATERIALIZED VIEW m RENAME TO m9", "def:m m _m m9 _m9", "ALTER MATERIALIZED VIEW m9 RENAME TO m"),
    // Relations are dropped.
    ("DROP VIEW w", "def:w w _w", "CREATE VIEW w AS SELECT id FROM t"),
    ("DROP TABLE second", "def:second second _second", "CREATE TABLE second (id int)"),
    ("DROP TABLE IF EXISTS nowhere", "", ""),
    // Partitions and children.
    ("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200)", "p2 _p2 def:p", ""),
    ("DROP TABLE p2", "def:p2 p2 _p2 def:p", ""),
    ("CREATE TABLE p12 PARTITION OF p1 FOR VALUES FROM (10) TO (20)", "p12 _p12 def:p1 def:p", ""),
    ("CREATE TABLE p13 PARTITION OF p1 DEFAULT", "p13 _p13 def:p1 def:p", "DROP TABLE p13"),
    ("ALTER TABLE p1 DETACH PARTITION p12", "def:p1 def:p", ""),
    ("ALTER TABLE p1 ATTACH PARTITION p12 FOR VALUES FROM (10) TO (20)", "def:p1 def:p", ""),
    ("ALTER TABLE p1 DETACH PARTITION p12 CONCURRENTLY", "def:p1 def:p", "DROP TABLE p12"),
    ("DROP TABLE p11", "def:p11 p11 _p11 def:p1 def:p", ""),
    ("CREATE TABLE beneath () INHERITS (below)", "beneath _beneath def:below def:above", ""),
    ("ALTER TABLE beneath NO INHERIT below", "def:beneath def:below def:above", ""),
    ("ALTER TABLE beneath INHERIT below", "def:beneath def:below def:above", ""),
    ("DROP TABLE beneath", "def:beneath beneath _beneath def:below def:above", ""),
    // Privileges.
    ("GRANT SELECT ON t TO joe", "def:t", ""),
    ("GRANT SELECT (id) ON t, second TO joe", "def:t def:second", ""),
    ("REVOKE ALL ON t FROM joe", "def:t", ""),
    ("GRANT USAGE ON SEQUENCE q TO joe", "def:q", ""),
    ("GRANT SELECT ON ALL TABLES IN SCHEMA s TO joe", "def:far def:farther", ""),
    ("GRANT USAGE ON SCHEMA s TO joe", "s", ""),
    ("GRANT EXECUTE ON FUNCTION f TO joe", "f", ""),
    ("GRANT EXECUTE ON FUNCTION native(int) TO joe", "native other", ""),
    ("REVOKE EXECUTE ON FUNCTION pg_catalog.int4abs FROM joe", "int4abs other", ""),
    ("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA s TO joe", "other", ""),
    ("GRANT USAGE ON TYPE mood TO joe", "other", ""),
    ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO joe", "", ""),
    // Functions.
    ("CREATE FUNCTION g() RETURNS int LANGUAGE sql AS 'SELECT 1'", "g", ""),
    ("CREATE OR REPLACE FUNCTION g() RETURNS int LANGUAGE sql AS 'SELECT 2'", "g", ""),
    ("ALTER FUNCTION g STABLE", "g", ""),
    ("ALTER FUNCTION g RENAME TO h", "g h", ""),
    ("ALTER FUNCTION h SET SCHEMA s", "h", ""),
    ("ALTER FUNCTION s.h OWNER TO joe", "h", ""),
    ("DROP FUNCTION s.h", "h", ""),
    (
        "CREATE OR REPLACE FUNCTION native(int) RETURNS int IMMUTABLE LANGUAGE internal AS 'int4um'",
        "native other",
        "",
    ),
    ("ALTER FUNCTION native(int) STRICT", "native other", ""),
    ("CREATE AGGREGATE most(int) (sfunc = int4larger, stype = int)", "most", ""),
    ("CREATE OR REPLACE AGGREGATE most(int) (sfunc = int4smaller, stype = int)", "most other", ""),
    ("DROP AGGREGATE most(int)", "most", ""),
    // Types.
    ("CREATE TYPE color AS ENUM ('red')", "color _color", ""),
    ("ALTER TYPE color ADD VALUE 'blue'", "other", ""),
    ("ALTER TYPE color RENAME VALUE 'blue' TO 'green'", "other", ""),
    ("ALTER TYPE color RENAME TO hue", "color _color hue _hue", ""),
    (
        "BEGIN; ALTER TYPE hue RENAME TO tint; ALTER TYPE tint RENAME VALUE 'green' TO 'blue'; COMMIT",
        "hue _hue tint _tint other",
        "",
    ),
    ("DROP TYPE tint", "tint _tint", ""),
    ("ALTER TYPE pair ADD ATTRIBUTE c int", "other", ""),
    ("ALTER TYPE pair RENAME TO couple", "pair _pair couple _couple", ""),
    ("DROP TYPE couple", "couple _couple", ""),
    ("CREATE TYPE pair AS (a int)", "pair _pair", ""),
    ("CREATE DOMAIN many AS int", "many _many", "DROP DOMAIN many"),
    ("ALTER DOMAIN few ADD CONSTRAINT small CHECK (VALUE < 10)", "other", ""),
    (
        "CREATE TYPE span AS RANGE (subtype = int)",
        "span _span span_multirange _span_multirange other",
        "DROP TYPE span",
    ),
    // Schemas.
    ("CREATE SCHEMA n", "n", ""),
    ("CREATE SCHEMA IF NOT EXISTS n", "", ""),
    ("ALTER SCHEMA n OWNER TO joe", "n", ""),
    ("ALTER SCHEMA n RENAME TO o", "n o", ""),
    ("CREATE TABLE o.deep (id int)", "deep _deep", ""),
    ("DROP SCHEMA o CASCADE", "o def:deep deep _deep", ""),
    // Other definitions.
    ("CREATE OPERATOR !!! (FUNCTION = int4abs, RIGHTARG = int)", "other", ""),
    ("DROP OPERATOR !!! (NONE, int)", "other", ""),
    ("CREATE CAST (mood AS int) WITH INOUT", "other", "DROP CAST (mood AS int)"),
    ("CREATE COLLATION plain (locale = 'C')", "other", "DROP COLLATION plain"),
    ("CREATE TEXT SEARCH CONFIGURATION c (COPY = simple)", "other", "DROP TEXT SEARCH CONFIGURATION c"),
    ("CREATE OPERATOR FAMILY c USING btree", "other", "DROP OPERATOR FAMILY c USING btree"),
    ("CREATE FOREIGN DATA WRAPPER c", "other", "DROP FOREIGN DATA WRAPPER c"),
    ("UPDATE pg_operator SET oprname = oprname WHERE oid = 96", "other", ""),
    ("UPDATE pg_proc SET proname = proname WHERE oid = 'f'::regproc", "other", ""),
    ("UPDATE pg_class SET relname = relname WHERE oid = 't'::regclass", "other", ""),
    ("UPDATE pg_depend SET objid = objid WHERE refobjid = 't'::regclass", "other", ""),
    ("SECURITY LABEL FOR labels ON TABLE t IS 'a label'", "other", ""),
    ("SECURITY LABEL FOR labels ON ROLE joe IS 'a label'", "roles", ""),
    // A change of a prepared transaction counts at its end.
    ("BEGIN; ALTER TABLE t ADD x int; CREATE TABLE new (); PREPARE TRANSACTION 'p'", "", ""),
    ("COMMIT PREPARED 'p'", "def:t t new _new", "ALTER TABLE t DROP x; DROP TABLE new"),
    ("BEGIN; ALTER TABLE t ADD x int; PREPARE TRANSACTION 'p'", "", ""),
    ("ROLLBACK PREPARED 'p'", "", ""),
    // Extensions.
    ("CREATE EXTENSION IF NOT EXISTS pg_cache", "", ""),
    ("ALTER EXTENSION pg_cache ADD FUNCTION f()", "", "ALTER EXTENSION pg_cache DROP FUNCTION f()"),
    // Roles.
    ("CREATE ROLE new", "", "DROP ROLE new"),
    ("CREATE USER new PASSWORD 'x' IN ROLE joe", "", "DROP ROLE new"),
    ("CREATE ROLE new ROLE joe", "roles", "DROP ROLE new"),
    ("CREATE ROLE new ADMIN joe", "roles", ""),
    ("ALTER ROLE new PASSWORD 'x'", "", ""),
    ("ALTER ROLE new SUPERUSER", "roles", ""),
    ("ALTER ROLE new RENAME TO newer", "roles", ""),
    ("DROP ROLE newer", "roles", ""),
    ("CREATE ROLE alone", "", ""),
    ("DROP ROLE alone", "", ""),
    ("DROP ROLE IF EXISTS nobody", "", ""),
    ("GRANT joe TO jim", "roles", ""),
    // An index changes no result, unless its access method may find other rows.
    ("CREATE INDEX t_v ON t USING inexact (v)", "def:t", "DROP INDEX t_v"),
    // These changes concern no result.
    ("CREATE INDEX t_v ON t (v)", "", "DROP INDEX t_v"),
    (
        "CREATE TRIGGER same BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "",
        "DROP TRIGGER same ON t",
    ),
    ("CREATE STATISTICS st ON id, v FROM t", "", "DROP STATISTICS st"),
    ("COMMENT ON TABLE t IS 'a comment'", "", ""),
    ("VACUUM FULL t", "", ""),
    ("REFRESH MATERIALIZED VIEW m", "", ""),
    ("TRUNCATE t CASCADE", "", ""),
    ("CREATE TEMP TABLE mine (id serial PRIMARY KEY, v text)", "", ""),
    ("ALTER TABLE mine ADD x int; ALTER TABLE mine RENAME TO mine2; GRANT SELECT ON mine2 TO joe", "", ""),
    ("CREATE TEMP VIEW seen AS SELECT 1 AS v; CREATE OR REPLACE TEMP VIEW seen AS SELECT 2 AS v", "", ""),
    ("CREATE POLICY mine ON mine2; DROP VIEW seen; DROP TABLE mine2", "", ""),
    ("BEGIN; SAVEPOINT a; ALTER TABLE t ADD x int; CREATE TABLE new (); ROLLBACK TO a; COMMIT", "", ""),
    ("BEGIN; ALTER TABLE t ADD x int; ROLLBACK", "", ""),
];

/// The definitions of a database, by the words of [`STATEMENTS`], each with the number of its fence.
type Definitions = BTreeMap<String, i64>;

/// Adds all relations and names that there are now to the definitions. Those of dropped objects stay, so that their change is seen.
fn add_definitions(session: &mut Client, known: &mut Definitions) {
    let query = "
        SELECT 'def:' || relname, fence_of_definition('relation', oid::bigint, '') FROM pg_class
            WHERE relkind IN ('r', 'v', 'm', 'f', 'p', 'S') AND oid >= 16384
        UNION SELECT name, fence_of_definition('name', 0, name)
            FROM (SELECT relname::text AS name FROM pg_class WHERE oid >= 16384
                UNION SELECT typname FROM pg_type WHERE oid >= 16384
                UNION SELECT proname FROM pg_proc WHERE oid >= 16384
                UNION SELECT nspname FROM pg_namespace
                UNION SELECT unnest(ARRAY['int4abs', 'a', '_a'])) AS names
        UNION SELECT kind, fence_of_definition(kind, 0, '') FROM unnest(ARRAY['any', 'other', 'roles']) AS kind";
    for row in session.query(query, &[]).expect("catalogs") {
        known.insert(row.get(0), row.get(1));
    }
}

/// Runs a statement and returns the words of the definitions that it has changed, and of those that share a fence with them.
fn changed_by(
    session: &mut Client,
    witness: &mut Client,
    statement: &str,
    known: &mut Definitions,
) -> BTreeSet<String> {
    add_definitions(witness, known);
    let now: i64 = witness.query_one("SELECT latest_change()", &[]).expect("a number").get(0);
    session.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    add_definitions(witness, known);
    let fences: Vec<i64> = known.values().copied().collect();
    let query = "SELECT f FROM unnest($1::bigint[]) AS f WHERE fence_has_changed(f, $2)";
    let changed = witness.query(query, &[&fences, &now]).expect("fences");
    let changed: BTreeSet<i64> = changed.iter().map(|row| row.get(0)).collect();
    known.iter().filter(|(_, fence)| changed.contains(fence)).map(|(word, _)| word.clone()).collect()
}

/// Creates the functions that tell which fences have changed, which only debug builds have (`src/api/definition.rs`).
/// `latest_change` returns the number of the last change, `fence_of_definition` the number of a fence by kind, OID and name, and
/// `fence_has_changed(fence, since)` whether the fence has changed after the change `since`.
fn create_functions(session: &mut Client) {
    session
        .batch_execute(
            "CREATE FUNCTION latest_change() RETURNS bigint AS '$libdir/pg_cache', 'latest_change_wrapper' LANGUAGE C;
             CREATE FUNCTION fence_of_definition(text, bigint, text) RETURNS bigint
                 AS '$libdir/pg_cache', 'fence_of_definition_wrapper' LANGUAGE C STRICT;
             CREATE FUNCTION fence_has_changed(bigint, bigint) RETURNS bool
                 AS '$libdir/pg_cache', 'fence_has_changed_wrapper' LANGUAGE C STRICT",
        )
        .expect("functions");
}

/// A label provider: the server has none.
fn load_labels(session: &mut Client) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("sessions/labels.c");
    let labels = Server::from_env().compile("pg_cache_test_labels", &source);
    session.batch_execute(&format!("LOAD '{labels}'")).expect("a library");
}

/// Each statement changes the expected definitions and no others. The cluster has many fences, so that few definitions share one by
/// chance.
#[test]
fn each_statement_changes_the_definitions_of_its_own_objects_only() {
    let conf = Conf::preloaded().set("pg_cache.fence_slots", "1048576").set("max_prepared_transactions", "2");
    let cluster = cluster(&conf);
    let [mut session, mut witness] = [(); 2].map(|()| cluster.connect("postgres"));
    create_functions(&mut session);
    load_labels(&mut session);
    session.batch_execute(OBJECTS).expect("objects");
    let (mut known, mut wrong) = (Definitions::new(), Vec::new());
    for (statement, expected, undo) in STATEMENTS {
        let changed = changed_by(&mut session, &mut witness, statement, &mut known);
        session.batch_execute(undo).unwrap_or_else(|error| panic!("{undo}: {error:?}"));
        let mut expected: BTreeSet<String> = expected.split_whitespace().map(str::to_owned).collect();
        if !expected.is_empty() {
            expected.insert("any".to_owned());
        }
        // Some names and relations share a fence.
        let fences = |words: &BTreeSet<String>| -> BTreeSet<Option<i64>> {
            words.iter().map(|word| known.get(word).copied()).collect()
        };
        if fences(&changed) != fences(&expected) {
            wrong.push(format!("{statement}: {changed:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A command waits for a lock on the table that its name stood for, and then finds another table of this name. The server reports
/// to no hook that it has enabled row security there.
#[test]
fn a_command_that_finds_another_table_of_the_same_name_after_a_wait_changes_that_one() {
    let cluster = cluster(&Conf::preloaded().set("pg_cache.fence_slots", "1048576"));
    let [mut session, mut other, mut witness] = [(); 3].map(|()| cluster.connect("postgres"));
    create_functions(&mut session);
    session.batch_execute("CREATE TABLE t (id int)").expect("a table");
    session
        .batch_execute("BEGIN; ALTER TABLE t RENAME TO past; CREATE TABLE t (id int)")
        .expect("another table");
    let waiting = std::thread::spawn(move || {
        other.batch_execute("ALTER TABLE t ENABLE ROW LEVEL SECURITY").expect("it waits");
    });
    wait_until("the command to wait", || {
        let query = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        witness.query_one(query, &[]).expect("a view").get::<_, i64>(0) == 1
    });
    let mut known = Definitions::new();
    let now: i64 = witness.query_one("SELECT latest_change()", &[]).expect("a number").get(0);
    session.batch_execute("COMMIT").expect("it commits");
    waiting.join().expect("it ends");
    let query = "SELECT relrowsecurity FROM pg_class WHERE relname = 't'";
    assert!(
        witness.query_one(query, &[]).expect("a catalog").get::<_, bool>(0),
        "it has found the new table"
    );
    add_definitions(&mut witness, &mut known);
    let query = "SELECT fence_has_changed($1, $2) OR fence_has_changed($3, $2)";
    let fences: [&(dyn ToSql + Sync); 3] = [&known["def:t"], &now, &known["other"]];
    assert!(witness.query_one(query, &fences).expect("fences").get::<_, bool>(0));
}

/// A transaction that changes very many definitions changes the other definitions of the database instead of most of them, so that
/// its commit does not take long. The limit is 4096 fences (`FENCES_MAX` in `src/store/transaction/ledger.rs`); each new function
/// changes the fence of its name.
#[test]
fn very_many_changes_of_definitions_count_as_a_change_of_the_others() {
    let database = Database::create();
    let mut session = database.connect();
    create_functions(&mut session);
    let query = "SELECT latest_change(), fence_of_definition('other', 0, '')";
    let row = session.query_one(query, &[]).expect("numbers");
    let (now, other): (i64, i64) = (row.get(0), row.get(1));
    let create = |count: i32| {
        format!(
            "DO $$ BEGIN FOR i IN 1..{count} LOOP
                EXECUTE format('CREATE FUNCTION f_{count}_%s() RETURNS int LANGUAGE sql AS ''SELECT 1''', i);
            END LOOP; END $$"
        )
    };
    let mut has_changed = |statement: &str| -> bool {
        session.batch_execute(statement).expect("functions");
        let query = "SELECT fence_has_changed($1, $2)";
        session.query_one(query, &[&other, &now]).expect("a fence").get(0)
    };
    assert!(!has_changed(&create(100)));
    assert!(has_changed(&create(4200)));
}

/// The status names the definition that has changed, if the role may know its name. Otherwise, it names only the kind.
#[test]
fn the_status_names_the_definition_that_has_changed() {
    let database = Database::create();
    let [mut reader, mut other] = sessions(&database);
    let role = format!("{}_reader", database.name());
    other
        .batch_execute(&format!(
            "CREATE TABLE b.t AS SELECT 1 AS v; CREATE ROLE {role}; GRANT USAGE ON SCHEMA a, b TO {role};
             SELECT cache_grant('default', '{role}', 'read')"
        ))
        .expect("a table");
    for (change, known, unknown) in [
        ("GRANT SELECT ON b.t TO pg_monitor", "definition of table t", "definition of a table"),
        ("CREATE TABLE a.t (v int)", "the name t", "definitions in the database"),
        (
            "CREATE OPERATOR b.!!! (FUNCTION = int4abs, RIGHTARG = int)",
            "definitions in the database",
            "definitions in the database",
        ),
        ("GRANT USAGE ON SCHEMA b TO pg_monitor", "the name b", "definitions in the database"),
    ] {
        fetch(&mut reader, "SELECT count(*) FROM t");
        other.batch_execute(change).expect(change);
        let mut status = |role: &str| -> String {
            reader.batch_execute(&format!("SET ROLE {role}; SELECT cache_get('k')")).expect("it reads");
            reader.query_one("SELECT cache_status()", &[]).expect("a status").get(0)
        };
        assert_eq!(status("NONE"), format!("invalidated: {known}"), "{change}");
        assert_eq!(status(&role), format!("invalidated: {unknown}"), "{change}");
        reader.batch_execute("RESET ROLE").expect("it is reset");
    }
    other.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).expect("it is dropped");
}
