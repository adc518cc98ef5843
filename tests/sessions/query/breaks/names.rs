//! Numbers and names of objects as values: `regclass` and its relatives. A result with such a value must not outlive a change of
//! the name. `compare` (`calls.rs`) runs a query with and without the cache, and returns what is wrong, if anything.

use super::super::calls::{Expect, compare, run};
use crate::memory::cluster;
use pg_cache_testbed::{Conf, Database};

/// A value of a type such as `regclass` is the OID of an object, and its text is the name of the object. The name can change
/// without a change of the table that holds the value, and so can the OID of a name. The values come from a table, so the query has
/// no constant that shows the object.
#[test]
fn a_renamed_object_counts_where_a_table_holds_its_number_or_name() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE TABLE u AS SELECT 1 AS v; CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TYPE pair AS (a int, b int);
         CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE SCHEMA s; CREATE TABLE s.w (); CREATE DOMAIN small AS int;
         CREATE COLLATION plain FROM \"C\"; CREATE OPERATOR @#@ (FUNCTION = int4pl, LEFTARG = int, RIGHTARG = int);
         CREATE TABLE refs AS SELECT 'u'::regclass AS r, 'u'::regclass::oid AS o, 'pair'::regtype AS t, 'f'::regproc AS p,
             'f()'::regprocedure AS pp, 's'::regnamespace AS n, 's.w'::regclass AS w, 'u' AS name, 'happy'::mood AS m,
             ROW(1, 2)::pair AS c, ARRAY['u'::regclass] AS rs, 5::small AS d, 'plain'::regcollation AS l, '@#@(int,int)'::regoperator AS op",
    );
    let mut wrong = Vec::new();
    // Queries, each with statements that change its result, and with those that undo the change. Each statement is a transaction.
    for (query, change, undo) in [
        ("SELECT r::text AS v FROM refs", "ALTER TABLE u RENAME TO u2", "ALTER TABLE u2 RENAME TO u"),
        ("SELECT 'is ' || r AS v FROM refs", "ALTER TABLE u RENAME TO u2", "ALTER TABLE u2 RENAME TO u"),
        ("SELECT format('%s', r) AS v FROM refs", "ALTER TABLE u RENAME TO u2", "ALTER TABLE u2 RENAME TO u"),
        (
            "SELECT to_jsonb(r)::text AS v FROM refs",
            "ALTER TABLE u RENAME TO u2",
            "ALTER TABLE u2 RENAME TO u",
        ),
        ("SELECT rs::text AS v FROM refs", "ALTER TABLE u RENAME TO u2", "ALTER TABLE u2 RENAME TO u"),
        ("SELECT refs::text AS v FROM refs", "ALTER TABLE u RENAME TO u2", "ALTER TABLE u2 RENAME TO u"),
        (
            "SELECT string_agg(r::text, ',') AS v FROM refs",
            "ALTER TABLE u SET SCHEMA s",
            "ALTER TABLE s.u SET SCHEMA public",
        ),
        ("SELECT w::text AS v FROM refs", "ALTER SCHEMA s RENAME TO s2", "ALTER SCHEMA s2 RENAME TO s"),
        (
            "SELECT o::regclass::text AS v FROM refs",
            "ALTER TABLE u RENAME TO u2",
            "ALTER TABLE u2 RENAME TO u",
        ),
        (
            "SELECT name::regclass::oid::int8 - o::int8 || '' AS v FROM refs",
            "ALTER TABLE u RENAME TO u2; CREATE TABLE u ()",
            "DROP TABLE u; ALTER TABLE u2 RENAME TO u",
        ),
        (
            "SELECT t::text AS v FROM refs",
            "ALTER TYPE pair RENAME TO pair2",
            "ALTER TYPE pair2 RENAME TO pair",
        ),
        (
            "SELECT format_type(t, NULL) AS v FROM refs",
            "ALTER TYPE pair RENAME TO pair2",
            "ALTER TYPE pair2 RENAME TO pair",
        ),
        (
            "SELECT pg_typeof(c)::text AS v FROM refs",
            "ALTER TYPE pair RENAME TO pair2",
            "ALTER TYPE pair2 RENAME TO pair",
        ),
        (
            "SELECT pg_typeof(d)::text AS v FROM refs",
            "ALTER DOMAIN small RENAME TO smaller",
            "ALTER DOMAIN smaller RENAME TO small",
        ),
        (
            "SELECT p::text AS v FROM refs",
            "ALTER FUNCTION f() RENAME TO f2",
            "ALTER FUNCTION f2() RENAME TO f",
        ),
        (
            "SELECT p::text AS v FROM refs",
            "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "DROP FUNCTION f(int)",
        ),
        (
            "SELECT pp::text AS v FROM refs",
            "ALTER FUNCTION f() RENAME TO f2",
            "ALTER FUNCTION f2() RENAME TO f",
        ),
        ("SELECT n::text AS v FROM refs", "ALTER SCHEMA s RENAME TO s2", "ALTER SCHEMA s2 RENAME TO s"),
        (
            "SELECT l::text AS v FROM refs",
            "ALTER COLLATION plain RENAME TO plainer",
            "ALTER COLLATION plainer RENAME TO plain",
        ),
        (
            "SELECT op::text AS v FROM refs",
            "ALTER OPERATOR @#@ (int, int) SET SCHEMA s",
            "ALTER OPERATOR s.@#@ (int, int) SET SCHEMA public",
        ),
        (
            "SELECT m::text AS v FROM refs",
            "ALTER TYPE mood RENAME VALUE 'happy' TO 'glad'",
            "ALTER TYPE mood RENAME VALUE 'glad' TO 'happy'",
        ),
        (
            "SELECT to_jsonb(refs) ->> 'm' AS v FROM refs",
            "ALTER TYPE mood RENAME VALUE 'happy' TO 'glad'",
            "ALTER TYPE mood RENAME VALUE 'glad' TO 'happy'",
        ),
        (
            "SELECT (m > 'sad')::text || enum_range(m)::text AS v FROM refs",
            "ALTER TYPE mood ADD VALUE 'mad' BEFORE 'happy'",
            "SELECT",
        ),
        (
            "SELECT to_jsonb(c)::text AS v FROM refs",
            "ALTER TYPE pair RENAME ATTRIBUTE a TO z",
            "ALTER TYPE pair RENAME ATTRIBUTE z TO a",
        ),
        (
            "SELECT row_to_json(u)::text AS v FROM u",
            "ALTER TABLE u RENAME v TO w",
            "ALTER TABLE u RENAME w TO v",
        ),
        (
            "SELECT tableoid::regclass::text AS v FROM u",
            "ALTER TABLE u RENAME TO u2; CREATE VIEW u AS SELECT *, tableoid FROM u2",
            "DROP VIEW u; ALTER TABLE u2 RENAME TO u",
        ),
        (
            "SELECT has_table_privilege('pg_monitor', o, 'SELECT')::text AS v FROM refs",
            "GRANT SELECT ON u TO pg_monitor",
            "REVOKE SELECT ON u FROM pg_monitor",
        ),
        (
            "SELECT has_schema_privilege('pg_monitor', n, 'USAGE')::text AS v FROM refs",
            "GRANT USAGE ON SCHEMA s TO pg_monitor",
            "REVOKE USAGE ON SCHEMA s FROM pg_monitor",
        ),
        (
            "SELECT pg_table_is_visible(o)::text AS v FROM refs",
            "ALTER TABLE u SET SCHEMA s",
            "ALTER TABLE s.u SET SCHEMA public",
        ),
        (
            "SELECT coalesce(obj_description(o, 'pg_class'), '') AS v FROM refs",
            "COMMENT ON TABLE u IS 'about'",
            "COMMENT ON TABLE u IS NULL",
        ),
        (
            "SELECT coalesce(col_description(o, 1), '') AS v FROM refs",
            "COMMENT ON COLUMN u.v IS 'about'",
            "COMMENT ON COLUMN u.v IS NULL",
        ),
        (
            "SELECT pg_get_functiondef(pp) AS v FROM refs",
            "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
            "SELECT",
        ),
        (
            "SELECT coalesce(to_regclass(name || '2')::text, '') AS v FROM refs",
            "CREATE TABLE u2 ()",
            "DROP TABLE u2",
        ),
        (
            "SELECT coalesce(to_regtype(name || '2')::text, '') AS v FROM refs",
            "CREATE TYPE u2 AS ENUM ()",
            "DROP TYPE u2",
        ),
        (
            "SELECT coalesce(to_regproc(name || '2')::text, '') AS v FROM refs",
            "CREATE FUNCTION u2() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "DROP FUNCTION u2()",
        ),
        (
            "SELECT (SELECT count(*) FROM json_populate_record(NULL::pair, '{\"a\": 1}') AS j WHERE j.a IS NULL)::text AS v",
            "ALTER TYPE pair RENAME ATTRIBUTE a TO z; ALTER TYPE pair RENAME ATTRIBUTE b TO a",
            "ALTER TYPE pair RENAME ATTRIBUTE a TO b; ALTER TYPE pair RENAME ATTRIBUTE z TO a",
        ),
    ] {
        for statement in [change, undo] {
            for _ in 0..2 {
                let fault = compare(&mut session, query, "v text", Expect::Anything);
                wrong.extend(fault.map(|fault| format!("before {statement}: {fault}")));
            }
            for statement in statement.split("; ") {
                run(&mut other, statement);
            }
            for session in [&mut session, &mut other] {
                let fault = compare(session, query, "v text", Expect::Anything);
                wrong.extend(fault.map(|fault| format!("after {statement}: {fault}")));
            }
        }
    }
    // The names of roles belong to the cluster.
    let cluster = cluster(&Conf::preloaded());
    let mut session = cluster.connect("postgres");
    run(
        &mut session,
        "CREATE ROLE one; CREATE TABLE refs AS SELECT 'one'::regrole AS r, 'one'::regrole::oid AS o",
    );
    for query in ["SELECT r::text AS v FROM refs", "SELECT pg_get_userbyid(o)::text AS v FROM refs"] {
        for name in ["two", "one"] {
            for _ in 0..2 {
                wrong.extend(compare(&mut session, query, "v text", Expect::Anything));
            }
            let old = if name == "two" { "one" } else { "two" };
            run(&mut session, &format!("ALTER ROLE {old} RENAME TO {name}"));
            wrong.extend(compare(&mut session, query, "v text", Expect::Anything));
        }
    }
    assert!(wrong.is_empty(), "{} cases: {wrong:#?}", wrong.len());
}
