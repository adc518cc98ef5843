//! Tests of changes of definitions: they must invalidate results of queries, with or without a command that announces them.
//! Commands that change nothing on which the result of a query depends must not.

use crate::fences::is_cached;
use pg_cache_testbed::{Database, Server, wait_until};
use postgres::Client;

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

/// Commands that change no name and no rule on which the result of a query can depend: they concern indexes, statistics,
/// triggers, comments, rows, large objects, or temporary tables. Each statement runs by itself, because some are not allowed in a
/// transaction block.
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
