//! The changes of names and rules that the DDL race (`mod.rs`) tries, each with a query whose result changes. While the transaction
//! of a change *stands*, it has become visible and has not sent its catalog invalidation messages. Meanwhile, another session
//! *fills*: it runs the query through the cache, which may store the result. `stand.rs` runs the changes.
//!
//! A new change must be added to [`CHANGES`]. Its query must return one number: the first one of `results` before the change, and
//! the second one after it. After a change of what the search path leads to, sessions ask `cache_query` under another key. The last
//! test of `stand.rs` leaves such changes out. It finds them by "schema" in `name`, and since PostgreSQL 16 by "race_group" in
//! `change`.

use postgres::Client;

/// A change. The query runs as the role `race_member`, with the schemas `a` and `b` first in the search path. A superuser runs
/// `setup` and `change`.
pub struct Change {
    /// The change in words. Panics and findings show it, and `stand.rs` searches it for "schema".
    pub name: &'static str,
    /// Runs after the statements of [`set_up`], before the query runs for the first time.
    pub setup: &'static str,
    /// Must not contain `$$`, because it also stands in the body of a function.
    pub query: &'static str,
    /// One statement or several, which run in one message.
    pub change: &'static str,
    /// The result before the change, and after it.
    pub results: (i32, i32),
    /// Whether a fill waits for the change, because it reads a relation that the change locks until its messages are sent.
    pub blocks: bool,
    /// Whether the change is allowed in a transaction block, and so can be prepared.
    pub in_block: bool,
    /// Whether it is a change of roles, which a session in any database can make. `change` must name no object of the database
    /// then.
    pub of_roles: bool,
}

/// The values of the fields that a change does not state.
const PLAIN: Change = Change {
    name: "",
    setup: "",
    query: "",
    change: "",
    results: (1, 2),
    blocks: false,
    in_block: true,
    of_roles: false,
};

/// A table with one row, which members of `race_group` may see.
const POLICY: &str = "CREATE TABLE b.t AS SELECT 1 AS v; ALTER TABLE b.t ENABLE ROW LEVEL SECURITY;
     CREATE POLICY p ON b.t TO race_group USING (true)";
/// The same table, but `race_member` is not a member of `race_group`.
const POLICY_FOR_OTHERS: &str =
    "CREATE TABLE b.t AS SELECT 1 AS v; ALTER TABLE b.t ENABLE ROW LEVEL SECURITY;
     CREATE POLICY p ON b.t TO race_group USING (true); REVOKE race_group FROM race_member";
/// A query finds the table of the first schema, unless the change hides it.
const TWO_TABLES: &str = "CREATE TABLE a.t AS SELECT 1 AS v; CREATE TABLE b.t AS SELECT 2 AS v";
/// A partitioned table with one row, and a table with one row that is no partition yet.
const PARTITIONS: &str = "CREATE TABLE b.t (v int) PARTITION BY LIST (v);
     CREATE TABLE b.one PARTITION OF b.t FOR VALUES IN (1); CREATE TABLE b.two (v int);
     INSERT INTO b.t VALUES (1); INSERT INTO b.two VALUES (2)";
/// A partitioned table with two rows, each in a partition of its own.
const ATTACHED: &str = "CREATE TABLE b.t (v int) PARTITION BY LIST (v);
     CREATE TABLE b.one PARTITION OF b.t FOR VALUES IN (1); CREATE TABLE b.two PARTITION OF b.t FOR VALUES IN (2);
     INSERT INTO b.t VALUES (1), (2)";

/// All changes. Each query returns one number.
pub const CHANGES: [Change; 24] = [
    Change {
        name: "REVOKE of a role under a policy",
        setup: POLICY,
        query: "SELECT count(*) FROM t",
        change: "REVOKE race_group FROM race_member",
        results: (1, 0),
        of_roles: true,
        ..PLAIN
    },
    Change {
        name: "GRANT of a role under a policy",
        setup: POLICY_FOR_OTHERS,
        query: "SELECT count(*) FROM t",
        change: "GRANT race_group TO race_member",
        results: (0, 1),
        of_roles: true,
        ..PLAIN
    },
    Change {
        name: "ALTER ROLE ... BYPASSRLS",
        setup: "CREATE TABLE b.t AS SELECT 1 AS v; ALTER TABLE b.t ENABLE ROW LEVEL SECURITY",
        query: "SELECT count(*) FROM t",
        change: "ALTER ROLE race_member BYPASSRLS",
        results: (0, 1),
        of_roles: true,
        ..PLAIN
    },
    Change {
        name: "ALTER POLICY",
        setup: POLICY,
        query: "SELECT count(*) FROM t",
        change: "ALTER POLICY p ON b.t USING (false)",
        results: (1, 0),
        blocks: true,
        ..PLAIN
    },
    Change {
        name: "CREATE OR REPLACE FUNCTION",
        setup: "CREATE FUNCTION b.f() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
        query: "SELECT f()",
        change: "CREATE OR REPLACE FUNCTION b.f() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN 2; END'",
        ..PLAIN
    },
    Change {
        name: "CREATE OR REPLACE FUNCTION of one that is inlined",
        setup: "CREATE FUNCTION b.f() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'",
        query: "SELECT f()",
        change: "CREATE OR REPLACE FUNCTION b.f() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 2'",
        ..PLAIN
    },
    Change {
        name: "CREATE FUNCTION that shadows another",
        setup: "CREATE FUNCTION b.f() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1'",
        query: "SELECT f()",
        change: "CREATE FUNCTION a.f() RETURNS int STABLE LANGUAGE sql AS 'SELECT 2'",
        ..PLAIN
    },
    Change {
        name: "DROP FUNCTION that shadows another",
        setup: "CREATE FUNCTION b.f() RETURNS int STABLE LANGUAGE sql AS 'SELECT 2';
                CREATE FUNCTION a.f() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1'",
        query: "SELECT f()",
        change: "DROP FUNCTION a.f",
        ..PLAIN
    },
    Change {
        name: "ALTER FUNCTION ... RENAME",
        setup: "CREATE FUNCTION b.f() RETURNS int STABLE LANGUAGE sql AS 'SELECT 2';
                CREATE FUNCTION a.f() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1'",
        query: "SELECT f()",
        change: "ALTER FUNCTION a.f() RENAME TO g",
        ..PLAIN
    },
    Change {
        name: "CREATE OPERATOR that shadows another",
        setup: "CREATE FUNCTION b.one(int, int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
                CREATE FUNCTION b.two(int, int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 2';
                CREATE OPERATOR b.### (FUNCTION = b.one, LEFTARG = int, RIGHTARG = int)",
        query: "SELECT 7 ### 7",
        change: "CREATE OPERATOR a.### (FUNCTION = b.two, LEFTARG = int, RIGHTARG = int)",
        ..PLAIN
    },
    Change {
        name: "ALTER TEXT SEARCH CONFIGURATION",
        setup: "CREATE TEXT SEARCH CONFIGURATION b.words (COPY = pg_catalog.simple)",
        query: "SELECT length(to_tsvector('b.words', 'one two'))",
        change: "ALTER TEXT SEARCH CONFIGURATION b.words DROP MAPPING FOR asciiword",
        results: (2, 0),
        ..PLAIN
    },
    Change {
        name: "ALTER FUNCTION ... SET",
        setup: "CREATE FUNCTION b.f() RETURNS int STABLE LANGUAGE plpgsql SET work_mem = '1MB' AS
                    'BEGIN RETURN pg_size_bytes(current_setting(''work_mem'')) / 1048576; END'",
        query: "SELECT f()",
        change: "ALTER FUNCTION b.f() SET work_mem = '2MB'",
        ..PLAIN
    },
    Change {
        name: "ATTACH PARTITION",
        setup: PARTITIONS,
        query: "SELECT count(*) FROM t",
        change: "ALTER TABLE b.t ATTACH PARTITION b.two FOR VALUES IN (2)",
        ..PLAIN
    },
    Change {
        name: "DETACH PARTITION",
        setup: ATTACHED,
        query: "SELECT count(*) FROM t",
        change: "ALTER TABLE b.t DETACH PARTITION b.two",
        results: (2, 1),
        blocks: true,
        ..PLAIN
    },
    Change {
        name: "DETACH PARTITION CONCURRENTLY",
        setup: ATTACHED,
        query: "SELECT count(*) FROM t",
        change: "ALTER TABLE b.t DETACH PARTITION b.two CONCURRENTLY",
        results: (2, 1),
        in_block: false,
        ..PLAIN
    },
    Change {
        name: "CREATE TABLE that shadows another",
        setup: "CREATE TABLE b.t AS SELECT 1 AS v",
        query: "SELECT v FROM t",
        change: "CREATE TABLE a.t AS SELECT 2 AS v",
        ..PLAIN
    },
    Change {
        name: "DROP TABLE that shadows another",
        setup: TWO_TABLES,
        query: "SELECT v FROM t",
        change: "DROP TABLE a.t",
        blocks: true,
        ..PLAIN
    },
    Change {
        name: "swap of tables by rename",
        setup: TWO_TABLES,
        query: "SELECT v FROM t",
        change: "ALTER TABLE a.t RENAME TO old; ALTER TABLE b.t SET SCHEMA a",
        blocks: true,
        ..PLAIN
    },
    Change {
        name: "swap of schemas by rename",
        setup: TWO_TABLES,
        query: "SELECT v FROM t",
        change: "ALTER SCHEMA a RENAME TO c; ALTER SCHEMA b RENAME TO a; ALTER SCHEMA c RENAME TO b",
        ..PLAIN
    },
    Change {
        name: "REVOKE of USAGE on a schema",
        setup: TWO_TABLES,
        query: "SELECT v FROM t",
        change: "REVOKE USAGE ON SCHEMA a FROM race_group",
        ..PLAIN
    },
    Change {
        name: "REVOKE of the role that has USAGE on a schema",
        setup: TWO_TABLES,
        query: "SELECT v FROM t",
        change: "REVOKE race_group FROM race_member",
        of_roles: true,
        ..PLAIN
    },
    Change {
        name: "GRANT of USAGE on a schema",
        setup: "REVOKE USAGE ON SCHEMA a FROM race_group;
                CREATE TABLE a.t AS SELECT 2 AS v; CREATE TABLE b.t AS SELECT 1 AS v",
        query: "SELECT v FROM t",
        change: "GRANT USAGE ON SCHEMA a TO race_group",
        ..PLAIN
    },
    Change {
        name: "ALTER TABLE ... TYPE",
        setup: "CREATE TABLE b.t AS SELECT 1.25::numeric(10, 2) AS v",
        query: "SELECT (v * 100)::int FROM t",
        change: "ALTER TABLE b.t ALTER v TYPE numeric(10, 1)",
        results: (125, 130),
        blocks: true,
        ..PLAIN
    },
    Change {
        name: "CREATE OR REPLACE VIEW",
        setup: "CREATE VIEW b.w AS SELECT 1 AS v",
        query: "SELECT v FROM w",
        change: "CREATE OR REPLACE VIEW b.w AS SELECT 2 AS v",
        blocks: true,
        ..PLAIN
    },
];

/// Creates the objects that all changes need, once per cluster: two roles, and a space in which each role has its own entries.
pub fn prepare(session: &mut Client) {
    session
        .batch_execute(
            "CREATE ROLE race_group; CREATE ROLE race_member;
             SELECT cache_create_space('own', scope => 'role'), cache_grant('own', 'race_member', 'read'),
                    cache_grant('own', 'race_member', 'write')",
        )
        .expect("roles and a space");
}

/// Drops and creates the schemas, restores the roles, and runs the setup of the change `name`, which only a panic shows. Needs the
/// roles of [`prepare`].
pub fn set_up(session: &mut Client, name: &str, setup: &str) {
    session
        .batch_execute(&format!(
            "SET client_min_messages = error; DROP SCHEMA IF EXISTS a, b, c CASCADE;
             CREATE SCHEMA a; CREATE SCHEMA b; GRANT race_group TO race_member; ALTER ROLE race_member NOBYPASSRLS;
             GRANT USAGE ON SCHEMA a TO race_group; GRANT USAGE ON SCHEMA b TO race_member;
             ALTER DEFAULT PRIVILEGES IN SCHEMA a GRANT SELECT ON TABLES TO PUBLIC;
             ALTER DEFAULT PRIVILEGES IN SCHEMA b GRANT SELECT ON TABLES TO PUBLIC; {setup}"
        ))
        .unwrap_or_else(|error| panic!("{name}: {error}"));
}

impl Change {
    /// Restores the state before the change. Returns the query, or with `in_function` one that calls a PL/pgSQL function with it.
    pub fn set_up(&self, session: &mut Client, in_function: bool) -> String {
        let function = format!(
            "CREATE OR REPLACE FUNCTION public.through() RETURNS int STABLE LANGUAGE plpgsql AS
                 $$BEGIN RETURN ({}); END$$",
            self.query
        );
        set_up(session, self.name, &format!("{}; {function}", self.setup));
        if in_function { "SELECT public.through()" } else { self.query }.to_owned()
    }
}

/// Makes a session ready to run the query of a change: sets its role and search path.
pub fn become_member(session: &mut Client) {
    session
        .batch_execute("SET ROLE race_member; SET search_path = a, b, pg_catalog, public")
        .expect("it is set");
}
