//! Tests that a session drops old state before it *fills*, that is, before it runs the query of `cache_fetch` and stores the
//! result. Its plans, the expressions and types of its functions, and its resolved search path outlive the server's invalidation
//! messages. A result that is computed with them could be wrong for other sessions. Each test has an old session, which has planned
//! and resolved before a change, and a new one.

use pg_cache_testbed::Database;
use postgres::Client;

/// Creates a database with two schemas, the roles `<name>_group` and `<name>`, and a space in which each role has its
/// own entries. Roles belong to the whole cluster, so each test uses other names.
fn database(name: &str) -> (Database, Client) {
    let database = Database::create();
    let mut owner = database.connect();
    owner
        .batch_execute(&format!(
            "CREATE SCHEMA a; CREATE SCHEMA b; CREATE ROLE {name}_group; CREATE ROLE {name};
             GRANT {name}_group TO {name}; GRANT USAGE ON SCHEMA b TO {name};
             SELECT cache_create_space('own', scope => 'role'), cache_grant('own', '{name}', 'read'),
                    cache_grant('own', '{name}', 'write')"
        ))
        .expect("schemas, roles and a space");
    (database, owner)
}

/// Opens a session of the role with the search path `a, b`.
fn member(database: &Database, name: &str) -> Client {
    let mut session = database.connect();
    session.batch_execute(&format!("SET ROLE {name}; SET search_path = a, b, public")).expect("it is set");
    session
}

/// Drops the roles of a test, which would outlive its database.
fn forget_roles(owner: &mut Client, name: &str) {
    owner
        .batch_execute(&format!(
            "SELECT cache_drop_space('own'); DROP OWNED BY {name}, {name}_group CASCADE; DROP ROLE {name}, {name}_group"
        ))
        .expect("they are dropped");
}

/// Returns the result of the query through the cache, in the space in which each role has its own entries.
fn fetch(session: &mut Client, query: &str) -> Option<String> {
    let call = "SELECT cache_fetch('k', $1, space => 'own')::text";
    session.query_one(call, &[&query]).expect("it fetches").get(0)
}

/// Returns the result of the query without the cache.
fn direct(session: &mut Client, query: &str) -> Option<String> {
    session.query_one(&format!("SELECT to_jsonb(({query}))::text"), &[]).expect("it reads").get(0)
}

/// Fills in the old session first, then reads in a new one. The new session must be given the result that it computes
/// itself.
fn assert_renewed(old: &mut Client, new: &mut Client, query: &str) {
    let given = [fetch(old, query), fetch(new, query)];
    assert_eq!(given[1], direct(new, query), "{query}: the old session was given {:?}", given[0]);
}

/// A session resolves its search path again when a row of `pg_namespace` or `pg_authid` changes. A revoke of a membership changes
/// neither. So a fill must resolve it itself. Otherwise, it would read the table that the role may no longer use.
#[test]
fn a_fill_after_the_revoke_of_a_role_does_not_read_the_schema_that_the_role_could_use() {
    let (database, mut owner) = database("renewal_path");
    owner
        .batch_execute(
            "GRANT USAGE ON SCHEMA a TO renewal_path_group;
             CREATE TABLE a.t AS SELECT 'a' AS v; CREATE TABLE b.t AS SELECT 'b' AS v; GRANT SELECT ON a.t, b.t TO PUBLIC;
             CREATE FUNCTION public.look() RETURNS text STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT v FROM t); END'",
        )
        .expect("tables");
    for query in ["SELECT v FROM t", "SELECT look()"] {
        owner.batch_execute("GRANT renewal_path_group TO renewal_path").expect("it is granted");
        let mut old = member(&database, "renewal_path");
        assert_eq!(fetch(&mut old, query).as_deref(), Some("\"a\""));
        owner.batch_execute("REVOKE renewal_path_group FROM renewal_path").expect("it is revoked");
        let mut new = member(&database, "renewal_path");
        assert_renewed(&mut old, &mut new, query);
        assert_eq!(fetch(&mut old, query).as_deref(), Some("\"b\""), "{query}");
    }
    forget_roles(&mut owner, "renewal_path");
}

/// The revoke happens in another database, so the definitions of this one do not change. The fill must notice the change of roles
/// all the same.
#[test]
fn a_fill_after_a_revoke_in_another_database_does_not_read_the_schema_that_the_role_could_use() {
    let (database, mut owner) = database("renewal_far_path");
    let far = Database::create();
    let mut elsewhere = far.connect();
    owner
        .batch_execute(
            "GRANT USAGE ON SCHEMA a TO renewal_far_path_group;
             CREATE TABLE a.t AS SELECT 'a' AS v; CREATE TABLE b.t AS SELECT 'b' AS v; GRANT SELECT ON a.t, b.t TO PUBLIC",
        )
        .expect("tables");
    let mut old = member(&database, "renewal_far_path");
    assert_eq!(fetch(&mut old, "SELECT v FROM t").as_deref(), Some("\"a\""));
    elsewhere.batch_execute("REVOKE renewal_far_path_group FROM renewal_far_path").expect("it is revoked");
    let mut new = member(&database, "renewal_far_path");
    assert_renewed(&mut old, &mut new, "SELECT v FROM t");
    forget_roles(&mut owner, "renewal_far_path");
}

/// The plan contains the policies that applied to the role when the session planned. The revoke happens in another
/// database, so the definitions of this one do not change. (PostgreSQL 15.20 makes a new plan by itself when roles
/// change; 15.18 does not.)
#[test]
fn a_fill_after_a_revoke_in_another_database_does_not_use_a_plan_of_the_old_policies() {
    let (database, mut owner) = database("renewal_plan");
    let far = Database::create();
    let mut elsewhere = far.connect();
    owner
        .batch_execute(
            "CREATE TABLE b.t AS SELECT 1 AS v; ALTER TABLE b.t ENABLE ROW LEVEL SECURITY; GRANT SELECT ON b.t TO PUBLIC;
             CREATE POLICY p ON b.t TO renewal_plan_group USING (true);
             CREATE FUNCTION public.look() RETURNS bigint STABLE LANGUAGE plpgsql AS
                 'DECLARE found bigint; BEGIN SELECT count(*) INTO found FROM t; RETURN found; END';
             CREATE FUNCTION public.look_in_expression() RETURNS bigint STABLE LANGUAGE plpgsql AS
                 'BEGIN RETURN (SELECT count(*) FROM t); END'",
        )
        .expect("a table with a policy");
    for (allow, forbid) in [
        ("GRANT renewal_plan_group TO renewal_plan", "REVOKE renewal_plan_group FROM renewal_plan"),
        ("ALTER ROLE renewal_plan BYPASSRLS", "ALTER ROLE renewal_plan NOBYPASSRLS"),
    ] {
        for query in ["SELECT count(*) FROM t", "SELECT look()", "SELECT look_in_expression()"] {
            elsewhere.batch_execute(allow).expect("it is allowed");
            let mut old = member(&database, "renewal_plan");
            let prepared =
                old.prepare("SELECT cache_fetch('k', $1, space => 'own')::text").expect("it is prepared");
            let fetch_prepared = |session: &mut Client| -> Option<String> {
                session.query_one(&prepared, &[&query]).expect("it fetches").get(0)
            };
            // PostgreSQL may use a generic plan from the sixth execution on.
            for _ in 0..6 {
                old.batch_execute("SELECT cache_delete('k', space => 'own')").expect("it is removed");
                assert_eq!(fetch_prepared(&mut old).as_deref(), Some("1"), "{query}");
            }
            elsewhere.batch_execute(forbid).expect("it is forbidden");
            let found = fetch_prepared(&mut old);
            let mut new = member(&database, "renewal_plan");
            let given = fetch(&mut new, query);
            assert_eq!(given.as_deref(), Some("0"), "{forbid}; {query}: what the old session has stored");
            assert_eq!(found.as_deref(), Some("0"), "{forbid}; {query}");
        }
    }
    forget_roles(&mut owner, "renewal_plan");
}

/// PL/pgSQL keeps the type of a variable, with its precision, until the function is changed or the session ends. Such a
/// function may still compute results for its own session.
#[test]
fn a_function_with_the_type_of_a_column_that_was_altered_computes_nothing_for_others() {
    const ALTER: &str = "ALTER TABLE b.t ALTER v TYPE numeric(10, 6); UPDATE b.t SET v = 1.234567";
    let (database, mut owner) = database("renewal_type");
    let mut wrong = Vec::new();
    for (declare, body, change) in [
        ("x b.t.v%TYPE", "SELECT v INTO x FROM b.t", ALTER),
        ("x b.t.v%TYPE; r record", "FOR r IN SELECT v FROM b.t LOOP x := r.v; END LOOP", ALTER),
        ("x b.t.v%TYPE; y b.t.v%TYPE", "SELECT v INTO y FROM b.t; x := (SELECT y)", ALTER),
        ("y b.t%ROWTYPE; x numeric", "SELECT * INTO y FROM b.t; x := y.v", ALTER),
        ("x b.t.v%/**/TYPE", "SELECT v INTO x FROM b.t", ALTER),
        ("x b.t.v%--\n TYPE", "SELECT v INTO x FROM b.t", ALTER),
        ("x numeric", "x := b.inner()", ALTER),
        // After the change, the name of the type's table means another table.
        ("x t.v%TYPE", "SELECT v INTO x FROM b.exact", "CREATE TABLE a.t (v numeric(10, 6))"),
        // The function may fail in the old session.
        ("x b.d", "SELECT v INTO x FROM b.exact", "DROP DOMAIN b.d; CREATE DOMAIN b.d AS numeric(10, 6)"),
    ] {
        owner
            .batch_execute(&format!(
                "SET client_min_messages = error; SET check_function_bodies = off;
                 DROP TABLE IF EXISTS a.t, b.t, b.exact; DROP DOMAIN IF EXISTS b.d CASCADE;
                 CREATE DOMAIN b.d AS numeric(10, 2); CREATE TABLE b.t AS SELECT 1.23::numeric(10, 2) AS v;
                 CREATE TABLE b.exact AS SELECT 1.234567 AS v; GRANT SELECT ON b.t, b.exact TO PUBLIC;
                 GRANT USAGE ON SCHEMA a TO PUBLIC;
                 CREATE OR REPLACE FUNCTION b.inner() RETURNS numeric STABLE LANGUAGE plpgsql AS
                     'DECLARE x b.t.v%TYPE; BEGIN SELECT v INTO x FROM b.t; RETURN x; END';
                 CREATE OR REPLACE FUNCTION public.look() RETURNS numeric STABLE LANGUAGE plpgsql AS
                     'DECLARE {declare}; BEGIN {body}; RETURN x; END'"
            ))
            .expect("a function");
        let mut old = member(&database, "renewal_type");
        assert_eq!(fetch(&mut old, "SELECT look()").as_deref(), Some("1.23"), "{declare}; {body}");
        owner.batch_execute(change).expect("it is altered");
        let mut new = member(&database, "renewal_type");
        for refresh in ["", ", refresh => true"] {
            let fill = format!("SELECT cache_fetch('k', 'SELECT look()', space => 'own'{refresh})");
            let _ = old.query_one(&fill, &[]);
            if fetch(&mut new, "SELECT look()").as_deref() != Some("1.234567") {
                wrong.push(format!("{declare}; {body}; {change}{refresh}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    forget_roles(&mut owner, "renewal_type");
}

/// The outer function prepares the expression that calls the inner function at its first call in the transaction, which
/// is before the fill.
#[test]
fn a_function_that_calls_another_with_the_type_of_an_altered_column_computes_nothing_for_others() {
    let (database, mut owner) = database("renewal_nested");
    owner
        .batch_execute(
            "CREATE TABLE b.t AS SELECT 1.23::numeric(10, 2) AS v; GRANT SELECT ON b.t TO PUBLIC;
             CREATE FUNCTION b.inner() RETURNS numeric STABLE LANGUAGE plpgsql AS
                 'DECLARE x b.t.v%TYPE; BEGIN SELECT v INTO x FROM b.t; RETURN x; END';
             CREATE FUNCTION look() RETURNS numeric STABLE LANGUAGE plpgsql AS 'BEGIN RETURN b.inner(); END'",
        )
        .expect("functions");
    let mut old = member(&database, "renewal_nested");
    direct(&mut old, "SELECT look()");
    owner
        .batch_execute("ALTER TABLE b.t ALTER v TYPE numeric(10, 6); UPDATE b.t SET v = 1.234567")
        .expect("it is altered");
    // The first fill of a session drops its plans. A later fill drops them only if definitions or roles have changed since, or
    // if it would not observe the functions that the query calls.
    old.batch_execute("BEGIN; SELECT cache_fetch('first', 'SELECT 1', space => 'own'); SELECT look()")
        .expect("it calls");
    fetch(&mut old, "SELECT look()");
    old.batch_execute("COMMIT").expect("it commits");
    let mut new = member(&database, "renewal_nested");
    assert_eq!(fetch(&mut new, "SELECT look()").as_deref(), Some("1.234567"));
    forget_roles(&mut owner, "renewal_nested");
}

/// `CREATE FUNCTION` compiles a function to check it, and the session keeps the compiled function.
#[test]
fn a_function_that_was_created_before_a_column_was_altered_computes_nothing_for_others() {
    let (database, mut owner) = database("renewal_create");
    owner
        .batch_execute("CREATE TABLE b.t AS SELECT 1.23::numeric(10, 2) AS v; GRANT SELECT ON b.t TO PUBLIC")
        .expect("a table");
    let mut creator = database.connect();
    creator
        .batch_execute(
            "CREATE FUNCTION look() RETURNS numeric STABLE LANGUAGE plpgsql AS
                 'DECLARE x b.t.v%TYPE; BEGIN SELECT v INTO x FROM b.t; RETURN x; END'",
        )
        .expect("a function");
    owner
        .batch_execute("ALTER TABLE b.t ALTER v TYPE numeric(10, 6); UPDATE b.t SET v = 1.234567")
        .expect("it is altered");
    fetch(&mut creator, "SELECT look()");
    assert_eq!(fetch(&mut database.connect(), "SELECT look()").as_deref(), Some("1.234567"));
    drop(creator);
    forget_roles(&mut owner, "renewal_create");
}

/// Plans refer to relations and functions by OID. After the swap, the names mean other objects. Inside a transaction
/// block, a session may keep more state than outside.
#[test]
fn a_fill_after_a_swap_of_schemas_does_not_use_plans_of_the_old_names() {
    let (database, mut owner) = database("renewal_swap");
    let bodies =
        ["(SELECT v FROM t)", "(SELECT v FROM a.t)", "g()", "a.g()", "(SELECT max(v) FROM s.w)", "a.f()"];
    let mut setup = "CREATE SCHEMA s; GRANT USAGE ON SCHEMA a, s TO PUBLIC;".to_owned();
    for (schema, v) in [("a", 1), ("b", 2)] {
        setup += &format!(
            "CREATE TABLE {schema}.t AS SELECT {v} AS v; GRANT SELECT ON {schema}.t TO PUBLIC;
             CREATE FUNCTION {schema}.g() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN {v}; END';
             CREATE FUNCTION {schema}.f() RETURNS int STABLE LANGUAGE plpgsql AS
                 'DECLARE x {schema}.t.v%TYPE; BEGIN SELECT v INTO x FROM {schema}.t; RETURN x; END';"
        );
    }
    setup += "CREATE VIEW s.w AS SELECT v FROM a.t; GRANT SELECT ON s.w TO PUBLIC;";
    for (number, body) in bodies.iter().enumerate() {
        setup += &format!(
            "CREATE FUNCTION s.through_{number}() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN {body}; END';
             CREATE FUNCTION s.into_{number}() RETURNS int STABLE LANGUAGE plpgsql AS
                 'DECLARE x int; BEGIN SELECT {body} INTO x; RETURN x; END';"
        );
    }
    owner.batch_execute(&setup).expect("functions");
    for number in 0..bodies.len() {
        for function in ["through", "into"] {
            for begin in ["SELECT", "BEGIN"] {
                let query = format!("SELECT s.{function}_{number}()");
                let mut old = member(&database, "renewal_swap");
                old.batch_execute(begin).expect("it begins");
                for _ in 0..6 {
                    old.batch_execute("SELECT cache_delete('k', space => 'own')").expect("it is removed");
                    fetch(&mut old, &query);
                }
                owner
                    .batch_execute(
                        "ALTER SCHEMA a RENAME TO c; ALTER SCHEMA b RENAME TO a; ALTER SCHEMA c RENAME TO b",
                    )
                    .expect("they are swapped");
                assert_renewed(&mut old, &mut member(&database, "renewal_swap"), &query);
            }
        }
    }
    forget_roles(&mut owner, "renewal_swap");
}
