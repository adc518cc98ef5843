//! The isolation of sessions: a stored result is served only to a session for which the query returns the same rows.
//!
//! The *context* of a session is what a query may read besides tables: role, tenant, search path, time zone. Each test goes through
//! a table of *cells*. A cell is a kind of context and a place where a query reads it. A *visit* is a session with a context that
//! runs the query of a cell, directly and cached. Both must give the same answer. A model of the cache says which visits must be
//! hits, so a cache that stores nothing fails as well as one that leaks.

use super::calls::{Expect, answer, assert_right, cached, compare, fill, run, text};
use crate::memory::cluster;
use pg_cache_testbed::{Cluster, Conf, Database};
use postgres::{Client, NoTls};
use std::collections::BTreeSet;

/// Where a query reads the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Text,
    View,
    InvokerView,
    SqlFunction,
    SqlDefiner,
    PlpgsqlFunction,
    PlpgsqlDefiner,
    Policy,
    /// A policy that calls a function in PL/pgSQL.
    PolicyFunction,
}

use Place::*;

const PLACES: [Place; 9] = [
    Text,
    View,
    InvokerView,
    SqlFunction,
    SqlDefiner,
    PlpgsqlFunction,
    PlpgsqlDefiner,
    Policy,
    PolicyFunction,
];

/// The kinds of context: a name, and a condition on the columns `owner` and `tenant`.
const CONTEXTS: [(&str, &str); 3] = [
    ("user", "owner = current_user"),
    ("tenant", "tenant = current_setting('app.tenant', true)"),
    ("none", "owner IS NOT NULL"),
];

/// A place, and a kind of context by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    place: Place,
    context: &'static str,
}

/// Returns all cells.
fn cells() -> Vec<Cell> {
    PLACES
        .iter()
        .flat_map(|place| CONTEXTS.iter().map(|(context, _)| Cell { place: *place, context }))
        .collect()
}

/// The columns of the result of every cell.
const COLUMNS: &str = "v text";

impl Cell {
    /// Returns the query. Its text is the same for all visits. It shows a time, whose form depends on the session.
    fn query(self) -> String {
        let context = self.context;
        let condition = CONTEXTS.iter().find(|(name, _)| *name == context).map_or("", |(_, found)| found);
        let of_table =
            |table: &str| format!("SELECT v || ' ' || at::text AS v FROM {table}_{context} ORDER BY 1");
        let of_function = |function: &str| format!("SELECT v FROM {function}_{context}() AS v ORDER BY 1");
        match self.place {
            Text => format!("SELECT v || ' ' || at::text AS v FROM docs WHERE {condition} ORDER BY 1"),
            View => of_table("view"),
            InvokerView => of_table("invoker"),
            SqlFunction => of_function("sql"),
            SqlDefiner => of_function("sql_definer"),
            PlpgsqlFunction => of_function("plpgsql"),
            PlpgsqlDefiner => of_function("plpgsql_definer"),
            Policy => of_table("secured"),
            PolicyFunction => of_table("judged"),
        }
    }

    /// Returns whether the result depends on custom settings, as far as the cache can know: the query reads one, or calls a
    /// function in PL/pgSQL, which might.
    fn varies_with_settings(self) -> bool {
        let is_plpgsql = [PlpgsqlFunction, PlpgsqlDefiner, PolicyFunction].contains(&self.place);
        self.context == "tenant" || is_plpgsql
    }

    /// Returns whether the query calls a function that a user has made. Every definition counts for such a query.
    fn calls_function(self) -> bool {
        [SqlFunction, SqlDefiner, PlpgsqlFunction, PlpgsqlDefiner, PolicyFunction].contains(&self.place)
    }

    /// Returns whether the query reads the table `docs`.
    fn reads_docs(self) -> bool {
        ![Policy, PolicyFunction].contains(&self.place)
    }
}

const ROLES: [&str; 3] = ["alice", "bob", "carol"];

/// Creates the roles, and all objects of the cells in the schemas `a` and `b`, with different rows.
///
/// `alice` may read the table, `bob` each of its columns, and `carol` all columns but `v`. Views and functions belong to the
/// superuser, and all three may use them.
fn prepare(session: &mut Client) {
    // `-` stands for all roles (PUBLIC).
    run(session, "SELECT cache_grant('default', '-', 'write')");
    for role in ROLES {
        run(session, &format!("CREATE ROLE {role} LOGIN"));
    }
    for schema in ["a", "b"] {
        run(
            session,
            &format!(
                "CREATE SCHEMA {schema}; GRANT USAGE ON SCHEMA {schema} TO alice, bob, carol;
                 SET search_path = {schema}, public;
                 CREATE TABLE docs (owner name DEFAULT current_user, tenant text DEFAULT current_setting('app.tenant', true), v text,
                                    at timestamptz DEFAULT '2026-03-04 05:06:07+00');
                 GRANT INSERT ON docs TO alice, bob, carol"
            ),
        );
        // The defaults of the columns read the context when rows are inserted.
        for role in ["postgres", "alice", "bob", "carol"] {
            for tenant in ["t1", "t2"] {
                run(
                    session,
                    &format!(
                        "SET ROLE {role}; SET app.tenant = '{tenant}';
                         INSERT INTO docs (v) VALUES ('{schema} {role} {tenant}'); RESET ROLE"
                    ),
                );
            }
        }
        run(
            session,
            "REVOKE INSERT ON docs FROM alice, bob, carol;
             GRANT SELECT ON docs TO alice;
             GRANT SELECT (owner, tenant, v, at) ON docs TO bob;
             GRANT SELECT (owner, tenant, at) ON docs TO carol",
        );
        for (context, condition) in CONTEXTS {
            let rows =
                format!("SELECT v || '' '' || at::text FROM docs WHERE {}", condition.replace('\'', "''"));
            let quoted = condition.replace('\'', "''");
            run(
                session,
                &format!(
                    "CREATE VIEW view_{context} AS SELECT v, at FROM docs WHERE {condition};
                     CREATE VIEW invoker_{context} WITH (security_invoker = true) AS SELECT v, at FROM docs WHERE {condition};
                     CREATE FUNCTION sql_{context}() RETURNS SETOF text STABLE LANGUAGE sql AS '{rows}';
                     CREATE FUNCTION sql_definer_{context}() RETURNS SETOF text STABLE SECURITY DEFINER LANGUAGE sql AS '{rows}';
                     CREATE FUNCTION plpgsql_{context}() RETURNS SETOF text STABLE LANGUAGE plpgsql AS
                         'BEGIN RETURN QUERY {rows}; END';
                     CREATE FUNCTION plpgsql_definer_{context}() RETURNS SETOF text STABLE SECURITY DEFINER LANGUAGE plpgsql AS
                         'BEGIN RETURN QUERY {rows}; END';
                     CREATE FUNCTION allows_{context}(owner name, tenant text) RETURNS boolean STABLE LANGUAGE plpgsql AS
                         'BEGIN RETURN {quoted}; END';
                     CREATE TABLE secured_{context} AS SELECT * FROM docs; ALTER TABLE secured_{context} ENABLE ROW LEVEL SECURITY;
                     CREATE POLICY p ON secured_{context} USING ({condition});
                     CREATE TABLE judged_{context} AS SELECT * FROM docs; ALTER TABLE judged_{context} ENABLE ROW LEVEL SECURITY;
                     CREATE POLICY p ON judged_{context} USING (allows_{context}(owner, tenant));
                     GRANT SELECT ON view_{context}, invoker_{context}, secured_{context}, judged_{context} TO alice, bob, carol"
                ),
            );
        }
    }
    run(session, "RESET search_path");
}

/// Starts a cluster with room for all results. No result expires, also if the visits take minutes on a slow machine.
fn start() -> Cluster {
    cluster(&Conf::preloaded().set("pg_cache.hot_size", "64MB").set("pg_cache.default_ttl", "1h"))
}

/// Opens a session as a role.
fn connect(cluster: &Cluster, role: &str) -> Client {
    let mut config = postgres::Config::new();
    config.host_path(cluster.socket_dir()).user(role).dbname("postgres");
    config.connect(NoTls).unwrap_or_else(|error| panic!("{role}: {error}"))
}

/// A session with its context.
#[derive(Clone, Copy, Debug)]
struct Visit {
    /// The role that has opened the session: `role` itself, or a superuser who uses SET ROLE.
    login: &'static str,
    /// The role that runs the query.
    role: &'static str,
    /// The tenant, a setting that policies read.
    tenant: &'static str,
    /// The first schema of the search path.
    schema: &'static str,
    /// Settings that change how times are shown.
    time: &'static str,
}

/// Returns whether `make test-long` runs the tests.
fn is_long() -> bool {
    std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty())
}

/// Returns the visits of a cell.
fn visits() -> Vec<Visit> {
    let mut visits = Vec::new();
    for role in ROLES {
        for login in [role, "postgres"] {
            for schema in ["a", "b"] {
                for time in [
                    "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'",
                    "SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'ISO'",
                    "SET TimeZone = 'UTC'; SET DateStyle = 'German'",
                ] {
                    // In a short run, the tenants differ with the first of the three times only. So three times make five visits.
                    let tenants =
                        if is_long() || visits.len() % 5 == 0 { &["t1", "t2", ""][..] } else { &["t1"] };
                    for tenant in tenants.iter().copied() {
                        visits.push(Visit { login, role, tenant, schema, time });
                    }
                }
            }
        }
    }
    visits
}

impl Visit {
    /// Gives a session of its login the context.
    fn enter(&self, session: &mut Client) {
        let Self { login, role, tenant, schema, time } = self;
        let role = if login == role { String::new() } else { format!("SET ROLE {role}; ") };
        run(
            session,
            &format!("{role}SET app.tenant = '{tenant}'; SET search_path = {schema}, public; {time}"),
        );
    }
}

/// Visits each cell with each context, twice. A visit must be a hit if the same context has visited the cell before, and must run
/// the query otherwise. The tenant is part of the context only where a query may read it. The second round uses other sessions, and
/// all its visits must be hits.
#[test]
fn a_result_is_shared_within_its_context_and_with_no_other() {
    let cluster = start();
    prepare(&mut cluster.connect("postgres"));
    let mut wrong = Vec::new();
    let (mut hits, mut visited) = (0, 0);
    let logins = ["alice", "bob", "carol", "postgres"];
    let mut known = BTreeSet::new();
    for round in 0..2 {
        let mut sessions = logins.map(|login| connect(&cluster, login));
        for visit in visits() {
            let at = logins.iter().position(|login| *login == visit.login).expect("a login");
            let session = &mut sessions[at];
            visit.enter(session);
            for cell in cells() {
                let tenant = if cell.varies_with_settings() { visit.tenant } else { "" };
                let query = cell.query();
                let key = (query.clone(), visit.login, visit.role, visit.schema, visit.time, tenant);
                let expect = if known.contains(&key) { Expect::Hit } else { Expect::Stored };
                let direct = answer(session, &query);
                let (rows, status) = cached(session, &query, COLUMNS);
                visited += 1;
                hits += usize::from(status == "hot");
                if rows != direct {
                    wrong.push(format!(
                        "{round}, {cell:?}, {visit:?}: {rows:?} instead of {direct:?}, {status:?}"
                    ));
                } else if direct.is_ok() && !expect.fits(&status) {
                    wrong.push(format!("{round}, {cell:?}, {visit:?}: {status:?} instead of {expect:?}"));
                }
                if direct.is_ok() {
                    known.insert(key);
                }
            }
            run(session, "RESET ROLE");
        }
    }
    let shown: Vec<_> = wrong.iter().take(30).collect();
    assert!(wrong.is_empty(), "{} of {visited} visits ({hits} hits):\n{shown:#?}", wrong.len());
}

/// A change after results were stored.
struct Change {
    change: &'static str,
    /// Takes the change back.
    undo: &'static str,
    /// The role whose results are checked.
    role: &'static str,
    /// Whether the change concerns a cell. Its next result must then be computed anew. Otherwise, the stored result must still be a
    /// hit, unless the query calls a function of a user.
    concerns: fn(Cell) -> bool,
}

const CHANGES: &[Change] = &[
    Change {
        change: "REVOKE SELECT ON docs FROM alice",
        undo: "GRANT SELECT ON docs TO alice",
        role: "alice",
        concerns: |cell| cell.reads_docs(),
    },
    Change {
        change: "REVOKE SELECT (v) ON docs FROM bob",
        undo: "GRANT SELECT (v) ON docs TO bob",
        role: "bob",
        concerns: |cell| cell.reads_docs(),
    },
    Change {
        change: "GRANT SELECT (v) ON docs TO carol",
        undo: "REVOKE SELECT (v) ON docs FROM carol",
        role: "carol",
        concerns: |cell| cell.reads_docs(),
    },
    Change {
        change: "REVOKE USAGE ON SCHEMA a FROM alice",
        undo: "GRANT USAGE ON SCHEMA a TO alice",
        role: "alice",
        concerns: |_| true,
    },
    Change {
        change: "REVOKE SELECT ON view_user FROM alice",
        undo: "GRANT SELECT ON view_user TO alice",
        role: "alice",
        concerns: |cell| cell == Cell { place: View, context: "user" },
    },
    Change {
        change: "REVOKE SELECT ON invoker_tenant FROM alice",
        undo: "GRANT SELECT ON invoker_tenant TO alice",
        role: "alice",
        concerns: |cell| cell == Cell { place: InvokerView, context: "tenant" },
    },
    Change {
        change: "REVOKE SELECT ON secured_none FROM alice",
        undo: "GRANT SELECT ON secured_none TO alice",
        role: "alice",
        concerns: |cell| cell == Cell { place: Policy, context: "none" },
    },
    Change {
        change: "REVOKE EXECUTE ON FUNCTION sql_user() FROM PUBLIC",
        undo: "GRANT EXECUTE ON FUNCTION sql_user() TO PUBLIC",
        role: "alice",
        concerns: Cell::calls_function,
    },
    Change {
        change: "REVOKE EXECUTE ON FUNCTION plpgsql_none() FROM PUBLIC",
        undo: "GRANT EXECUTE ON FUNCTION plpgsql_none() TO PUBLIC",
        role: "alice",
        concerns: Cell::calls_function,
    },
    Change {
        change: "ALTER POLICY p ON secured_none USING (false)",
        undo: "ALTER POLICY p ON secured_none USING (owner IS NOT NULL)",
        role: "alice",
        concerns: |cell| cell == Cell { place: Policy, context: "none" },
    },
    Change {
        change: "ALTER POLICY p ON secured_user TO bob",
        undo: "ALTER POLICY p ON secured_user TO PUBLIC",
        role: "alice",
        concerns: |cell| cell == Cell { place: Policy, context: "user" },
    },
    Change {
        change: "DROP POLICY p ON secured_tenant",
        undo: "CREATE POLICY p ON secured_tenant USING (tenant = current_setting('app.tenant', true))",
        role: "alice",
        concerns: |cell| cell == Cell { place: Policy, context: "tenant" },
    },
    Change {
        change: "CREATE POLICY more ON secured_none AS RESTRICTIVE USING (owner = current_user)",
        undo: "DROP POLICY more ON secured_none",
        role: "alice",
        concerns: |cell| cell == Cell { place: Policy, context: "none" },
    },
    Change {
        change: "ALTER TABLE secured_user DISABLE ROW LEVEL SECURITY",
        undo: "ALTER TABLE secured_user ENABLE ROW LEVEL SECURITY",
        role: "bob",
        concerns: |cell| cell == Cell { place: Policy, context: "user" },
    },
    Change {
        change: "ALTER TABLE secured_tenant OWNER TO alice",
        undo: "ALTER TABLE secured_tenant OWNER TO postgres; GRANT SELECT ON secured_tenant TO alice",
        role: "alice",
        concerns: |cell| cell == Cell { place: Policy, context: "tenant" },
    },
    Change {
        change: "CREATE OR REPLACE FUNCTION allows_none(owner name, tenant text) RETURNS boolean STABLE LANGUAGE plpgsql AS
                 'BEGIN RETURN false; END'",
        undo: "CREATE OR REPLACE FUNCTION allows_none(owner name, tenant text) RETURNS boolean STABLE LANGUAGE plpgsql AS
               'BEGIN RETURN true; END'",
        role: "alice",
        concerns: Cell::calls_function,
    },
    Change {
        change: "ALTER FUNCTION sql_user() SECURITY DEFINER",
        undo: "ALTER FUNCTION sql_user() SECURITY INVOKER",
        role: "carol",
        concerns: Cell::calls_function,
    },
    Change {
        change: "ALTER FUNCTION plpgsql_user() SET search_path = b",
        undo: "ALTER FUNCTION plpgsql_user() RESET search_path",
        role: "alice",
        concerns: Cell::calls_function,
    },
    Change {
        change: "ALTER VIEW view_none SET (security_invoker = true)",
        undo: "ALTER VIEW view_none RESET (security_invoker)",
        role: "carol",
        concerns: |cell| cell == Cell { place: View, context: "none" },
    },
    Change {
        change: "CREATE OR REPLACE VIEW view_user AS SELECT v, at FROM docs WHERE owner <> current_user",
        undo: "CREATE OR REPLACE VIEW view_user AS SELECT v, at FROM docs WHERE owner = current_user",
        role: "bob",
        concerns: |cell| cell == Cell { place: View, context: "user" },
    },
    Change {
        change: "ALTER TABLE docs RENAME COLUMN v TO w",
        undo: "ALTER TABLE docs RENAME COLUMN w TO v",
        role: "alice",
        concerns: |cell| cell.reads_docs(),
    },
    Change {
        change: "ALTER ROLE alice BYPASSRLS",
        undo: "ALTER ROLE alice NOBYPASSRLS",
        role: "alice",
        concerns: |_| true,
    },
    Change {
        change: "ALTER ROLE carol SUPERUSER",
        undo: "ALTER ROLE carol NOSUPERUSER",
        role: "carol",
        concerns: |_| true,
    },
    Change { change: "GRANT alice TO carol", undo: "REVOKE alice FROM carol", role: "carol", concerns: |_| true },
    Change {
        change: "INSERT INTO docs VALUES ('alice', 't1', 'a later', '2026-01-01 00:00+00')",
        undo: "DELETE FROM docs WHERE v = 'a later'",
        role: "alice",
        concerns: |cell| cell.reads_docs(),
    },
    // The setting counts for sessions that begin later.
    Change {
        change: "ALTER ROLE alice SET app.tenant = 't2'",
        undo: "ALTER ROLE alice RESET app.tenant",
        role: "alice",
        concerns: |_| false,
    },
    Change {
        change: "CREATE TABLE unrelated (id int); GRANT SELECT ON unrelated TO alice",
        undo: "DROP TABLE unrelated",
        role: "alice",
        concerns: |_| false,
    },
];

/// Changes privileges, policies, functions, views and roles after the results of all cells were stored. After each change, and
/// after it was taken back, the cached query must give the answer of the query itself. It must have run the query if the change
/// concerns the result, and must be a hit if it does not.
#[test]
fn a_change_of_privileges_or_policies_counts_for_stored_results() {
    let cluster = start();
    let mut owner = cluster.connect("postgres");
    prepare(&mut owner);
    run(&mut owner, "SET search_path = a, public; SET app.tenant = 't1'");
    let mut wrong = Vec::new();
    for Change { change, undo, role, concerns } in CHANGES {
        let visit = Visit { login: role, role, tenant: "t1", schema: "a", time: "SET TimeZone = 'UTC'" };
        let mut session = connect(&cluster, role);
        visit.enter(&mut session);
        let mut stored = Vec::new();
        for cell in cells() {
            let query = cell.query();
            for expect in [Expect::Anything, Expect::Hit] {
                wrong.extend(
                    compare(&mut session, &query, COLUMNS, expect)
                        .map(|fault| format!("before {change}: {cell:?}: {fault}")),
                );
            }
            stored.push((cell, answer(&mut session, &query).is_ok()));
        }
        for (when, statement) in [("after", *change), ("after the undo of", *undo)] {
            run(&mut owner, statement);
            for (cell, was_stored) in &stored {
                let expect = match concerns(*cell) {
                    true => Expect::Fresh,
                    false if cell.calls_function() || !was_stored => Expect::Anything,
                    false => Expect::Hit,
                };
                wrong.extend(
                    compare(&mut session, &cell.query(), COLUMNS, expect)
                        .map(|fault| format!("{when} {change}: {cell:?}: {fault}")),
                );
            }
        }
    }
    let shown: Vec<_> = wrong.iter().take(40).collect();
    assert!(wrong.is_empty(), "{} cases:\n{shown:#?}", wrong.len());
}

/// A function that runs with its owner's rights caches the owner's result. The caller cannot get that result in another way, and
/// the owner does not get what the function has stored under the caller's session if it could differ.
#[test]
fn a_security_definer_function_caches_for_its_owner_only() {
    let cluster = start();
    let [mut owner, mut other] = [(); 2].map(|()| cluster.connect("postgres"));
    run(
        &mut owner,
        "SELECT cache_grant('default', '-', 'write'); CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN;
         CREATE TABLE closed AS SELECT 'secret' AS v;
         CREATE VIEW caller AS SELECT session_user::text || ' ' || current_user::text AS v;
         CREATE FUNCTION secret() RETURNS text SECURITY DEFINER LANGUAGE sql AS
             $$ SELECT v FROM cache_query('SELECT v FROM closed') AS r(v text) $$;
         CREATE FUNCTION caller() RETURNS text SECURITY DEFINER LANGUAGE plpgsql AS
             $$ BEGIN RETURN (SELECT v FROM cache_query('SELECT v FROM caller') AS r(v text)); END $$;
         GRANT SELECT ON caller TO PUBLIC",
    );
    let mut alice = connect(&cluster, "alice");
    for expected in ["miss: not there", "hot"] {
        assert_eq!(text(&mut alice, "SELECT secret()"), "secret");
        assert_eq!(text(&mut alice, "SELECT cache_status()"), expected);
    }
    let (rows, _) = cached(&mut alice, "SELECT v FROM closed", "v text");
    assert_eq!(rows, Err("42501: permission denied for table closed".to_owned()));
    assert_right(&mut owner, "SELECT v FROM closed", "v text", Expect::Stored);
    // The same text, for each session user and each current user.
    for (login, called) in
        [("alice", "alice postgres"), ("bob", "bob postgres"), ("postgres", "postgres postgres")]
    {
        let mut session = connect(&cluster, login);
        for _ in 0..2 {
            assert_eq!(text(&mut session, "SELECT caller()"), called);
            assert_right(&mut session, "SELECT v FROM caller", "v text", Expect::Anything);
        }
        assert_right(&mut session, "SELECT v FROM caller", "v text", Expect::Hit);
    }
    // A superuser's result is not for the role that the superuser takes on.
    fill(&mut other, "SELECT v FROM closed", "v text");
    run(&mut other, "SET ROLE alice");
    let (rows, _) = cached(&mut other, "SELECT v FROM closed", "v text");
    assert_eq!(rows, Err("42501: permission denied for table closed".to_owned()));
    run(&mut other, "RESET ROLE; SET SESSION AUTHORIZATION bob");
    let (rows, _) = cached(&mut other, "SELECT v FROM closed", "v text");
    assert_eq!(rows, Err("42501: permission denied for table closed".to_owned()));
}

/// With `row_security = off`, a query that a policy would filter is an error. A stored result must not hide that.
#[test]
fn row_security_off_is_an_error_beside_a_stored_result() {
    let cluster = start();
    let mut owner = cluster.connect("postgres");
    prepare(&mut owner);
    let mut session = connect(&cluster, "alice");
    run(&mut session, "SET search_path = a, public");
    for cell in [Cell { place: Policy, context: "user" }, Cell { place: PolicyFunction, context: "none" }] {
        let query = cell.query();
        run(&mut session, "RESET row_security");
        fill(&mut session, &query, COLUMNS);
        run(&mut session, "SET row_security = off");
        assert!(answer(&mut session, &query).is_err());
        assert_right(&mut session, &query, COLUMNS, Expect::Fresh);
        run(&mut session, "SET row_security = on");
        assert_right(&mut session, &query, COLUMNS, Expect::Hit);
    }
}

/// A search path with the schema of the user (`"$user"`) means another table for each role, and changes when that schema appears.
#[test]
fn the_schema_of_the_user_is_part_of_the_search_path() {
    let cluster = start();
    let mut owner = cluster.connect("postgres");
    run(
        &mut owner,
        "SELECT cache_grant('default', '-', 'write'); CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN;
         CREATE TABLE public.t AS SELECT 'public' AS v; GRANT SELECT ON t TO PUBLIC",
    );
    let mut sessions = ["alice", "bob"].map(|role| connect(&cluster, role));
    let query = "SELECT v FROM t";
    for session in &mut sessions {
        fill(session, query, "v text");
    }
    run(
        &mut owner,
        "CREATE SCHEMA alice AUTHORIZATION alice; CREATE TABLE alice.t AS SELECT 'alice' AS v; ALTER TABLE alice.t OWNER TO alice",
    );
    let [alice, bob] = &mut sessions;
    assert_right(alice, query, "v text", Expect::Fresh);
    assert_right(bob, query, "v text", Expect::Anything);
    assert_eq!(answer(alice, query), Ok(vec![vec![Some("alice".to_owned())]]));
    for session in [&mut *alice, &mut *bob] {
        fill(session, query, "v text");
    }
    // Another session of the role learns of it, too.
    assert_right(&mut connect(&cluster, "alice"), query, "v text", Expect::Hit);
    run(&mut owner, "DROP SCHEMA alice CASCADE");
    assert_right(alice, query, "v text", Expect::Fresh);
    assert_eq!(answer(alice, query), Ok(vec![vec![Some("public".to_owned())]]));
}

/// Settings that change what a query returns, and settings that a query can only read. For each, the result with one value must not
/// be served to a session with another one, and must be a hit for another session with the same value.
#[test]
fn every_setting_that_changes_a_result_is_part_of_the_context() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE TABLE t AS SELECT 1 AS v, 0.1::float8 / 3 AS f, '1 mon 2 days'::interval AS i, 1234.5::money AS m, '\\xff'::bytea AS b,
             'running dogs'::text AS w, NULL::int AS n, '2026-03-04 12:00+00'::timestamptz AS at, 'public'::text AS schema;
         CREATE SCHEMA \"Mixed\"; CREATE TABLE \"Mixed\".t AS SELECT 2 AS v",
    );
    let mut wrong = Vec::new();
    for (setting, values, query) in [
        ("TimeZone", ["UTC", "Asia/Tokyo"], "SELECT at::text AS v FROM t"),
        (
            "TimeZone",
            ["UTC", "Asia/Tokyo"],
            "SELECT '2026-01-01 00:00'::timestamptz::text || extract(epoch FROM '2026-01-01 00:00'::timestamptz) AS v",
        ),
        ("DateStyle", ["ISO, MDY", "ISO, DMY"], "SELECT '02/03/2026'::date::text AS v"),
        ("DateStyle", ["ISO", "SQL"], "SELECT to_jsonb(at)::text || at AS v FROM t"),
        ("IntervalStyle", ["postgres", "iso_8601"], "SELECT i::text AS v FROM t"),
        ("extra_float_digits", ["1", "-5"], "SELECT f::text AS v FROM t"),
        ("bytea_output", ["hex", "escape"], "SELECT b::text AS v FROM t"),
        ("lc_monetary", ["C", "C.UTF-8"], "SELECT m::text AS v FROM t"),
        ("lc_time", ["C", "C.UTF-8"], "SELECT to_char(at, 'TMMonth') AS v FROM t"),
        (
            "timezone_abbreviations",
            ["Default", "Australia"],
            "SELECT '2026-01-01 00:00 EST'::timestamptz::text AS v",
        ),
        (
            "default_text_search_config",
            ["pg_catalog.simple", "pg_catalog.english"],
            "SELECT to_tsvector(w)::text AS v FROM t",
        ),
        (
            "default_text_search_config",
            ["pg_catalog.simple", "pg_catalog.english"],
            "SELECT (w @@ 'run')::text AS v FROM t",
        ),
        ("transform_null_equals", ["off", "on"], "SELECT count(*)::text AS v FROM t WHERE n = NULL"),
        ("array_nulls", ["on", "off"], "SELECT ('{NULL}'::text[])[1] AS v"),
        ("quote_all_identifiers", ["off", "on"], "SELECT quote_ident(schema) AS v FROM t"),
        ("xmloption", ["content", "document"], "SELECT coalesce(current_setting('xmloption'), '') AS v"),
        ("search_path", ["public", "\"Mixed\", public"], "SELECT v::text FROM t"),
        ("search_path", ["public", "\"Mixed\", public"], "SELECT 't'::regclass::text AS v"),
        ("search_path", ["public", "public, pg_catalog"], "SELECT current_setting('search_path') AS v"),
        ("client_encoding", ["UTF8", "LATIN1"], "SELECT pg_client_encoding()::text AS v"),
        ("standard_conforming_strings", ["on", "off"], r"SELECT 'a\\b'::text AS v"),
        // Only a query that asks for them depends on these.
        ("work_mem", ["4MB", "5MB"], "SELECT current_setting('work_mem') AS v"),
        ("application_name", ["a", "b"], "SELECT current_setting('application_name') AS v"),
        (
            "application_name",
            ["a", "b"],
            "SELECT setting AS v FROM pg_settings WHERE name = 'application_name'",
        ),
        ("statement_timeout", ["1min", "2min"], "SELECT current_setting('statement_timeout') AS v"),
        ("client_min_messages", ["notice", "warning"], "SELECT current_setting('client_min_messages') AS v"),
        ("enable_seqscan", ["on", "off"], "SELECT current_setting('enable_' || 'seqscan') AS v FROM t"),
        ("app.tenant", ["one", "two"], "SELECT current_setting('app.tenant') AS v"),
        ("app.tenant", ["one", "two"], "SELECT v::text FROM t WHERE current_setting('app.tenant') = 'one'"),
        ("app.tenant", ["one", "two"], "SELECT (SELECT max(current_setting('app.tenant')) FROM t) AS v"),
        ("pg_cache.default_ttl", ["5min", "6min"], "SELECT current_setting('pg_cache.default_ttl') AS v"),
        (
            "default_transaction_read_only",
            ["off", "on"],
            "SELECT current_setting('transaction_read_only') AS v",
        ),
    ] {
        for value in [values[0], values[1], values[0]] {
            let set = match setting {
                "search_path" => format!("SET search_path = {value}"),
                _ => format!("SET {setting} = '{value}'"),
            };
            for (number, session) in [&mut session, &mut other].into_iter().enumerate() {
                run(session, &set);
                // A view over all settings is not stored.
                let may_store = !query.contains("pg_settings");
                let expect = if number == 1 && may_store { Expect::Hit } else { Expect::Anything };
                let fault = compare(session, query, COLUMNS, expect);
                wrong.extend(fault.map(|fault| format!("{setting} = {value}: {fault}")));
            }
        }
        for session in [&mut session, &mut other] {
            run(session, &format!("RESET {setting}"));
        }
    }
    assert!(wrong.is_empty(), "{} cases: {wrong:#?}", wrong.len());
}
