//! Tables that a query reads although its text or its plan does not show it. A write to such a table must invalidate the stored
//! result. `calls.rs` has the calls: `compare` runs a query with and without the cache, and returns what is wrong, if anything;
//! `Expect` is the status that the cached call must have.

use super::super::calls::{Expect, answer, cached_with, compare, run};
use crate::memory::cluster;
use pg_cache_testbed::{Conf, Database};

/// A table that occurs only in a subquery of an expression, at any place of a query, is a dependency.
#[test]
fn a_table_read_only_in_a_subquery_expression_is_a_dependency() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE TABLE t AS SELECT generate_series(1, 3) AS v; CREATE TABLE hidden AS SELECT 1 AS v; CREATE VIEW seen AS SELECT v FROM hidden;
         CREATE FUNCTION id(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT $1';
         CREATE FUNCTION hides() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT max(v) FROM hidden); END'",
    );
    let mut wrong = Vec::new();
    for query in [
        "SELECT (SELECT sum(v) FROM hidden)::text AS v",
        "SELECT (SELECT sum(v) FROM seen)::text AS v",
        "SELECT (v + (SELECT max(v) FROM hidden))::text AS v FROM t ORDER BY 1",
        "SELECT v::text FROM t WHERE v > (SELECT max(v) FROM hidden) ORDER BY 1",
        "SELECT v::text FROM t WHERE v IN (SELECT v FROM hidden) ORDER BY 1",
        "SELECT v::text FROM t WHERE v <> ALL (SELECT v FROM hidden) ORDER BY 1",
        "SELECT v::text FROM t WHERE EXISTS (SELECT FROM hidden WHERE hidden.v = t.v) ORDER BY 1",
        "SELECT v::text FROM t WHERE NOT EXISTS (SELECT FROM seen WHERE seen.v = t.v) ORDER BY 1",
        "SELECT CASE WHEN v > 2 THEN (SELECT max(v) FROM hidden) ELSE 0 END::text AS v FROM t ORDER BY 1",
        "SELECT coalesce(NULL, (SELECT max(v) FROM hidden))::text AS v",
        "SELECT v::text FROM t ORDER BY v LIMIT (SELECT max(v) FROM hidden)",
        "SELECT v::text FROM t ORDER BY v OFFSET (SELECT max(v) FROM hidden)",
        "SELECT v::text FROM t ORDER BY (v * (SELECT CASE WHEN max(v) > 1 THEN -1 ELSE 1 END FROM hidden))",
        "SELECT id((SELECT max(v) FROM hidden))::text AS v",
        "SELECT ARRAY(SELECT v FROM hidden ORDER BY v)::text AS v",
        "SELECT v::text FROM generate_series(1, (SELECT max(v) FROM hidden)) AS v ORDER BY 1",
        "SELECT sum(v) FILTER (WHERE v > (SELECT min(v) FROM hidden))::text AS v FROM t",
        "SELECT (sum(v) OVER (ORDER BY v ROWS (SELECT max(v) FROM hidden) PRECEDING))::text AS v FROM t ORDER BY t.v",
        "SELECT count(*)::text AS v FROM t GROUP BY v > (SELECT max(v) FROM hidden) ORDER BY 1",
        "SELECT count(*)::text AS v FROM t HAVING count(*) > (SELECT max(v) FROM hidden)",
        "VALUES ((SELECT sum(v) FROM hidden)::text)",
        "WITH c AS MATERIALIZED (SELECT v FROM hidden) SELECT (SELECT sum(v) FROM c)::text AS v",
        "WITH RECURSIVE c AS (SELECT 1 AS v UNION ALL SELECT v + 1 FROM c WHERE v < (SELECT max(v) FROM hidden)) SELECT count(*)::text AS v FROM c",
        "SELECT l.v::text FROM t, LATERAL (SELECT max(h.v) + t.v AS v FROM hidden AS h) AS l ORDER BY 1",
        "SELECT t.v::text FROM t LEFT JOIN hidden AS h ON h.v = t.v WHERE (SELECT true FROM hidden LIMIT 1) ORDER BY 1",
        "SELECT v::text FROM t WHERE v = id((SELECT max(v) FROM hidden)) ORDER BY 1",
        "SELECT v::text FROM t WHERE v > hides() ORDER BY 1",
        "SELECT (SELECT (SELECT (SELECT max(v) FROM hidden)))::text AS v",
        "SELECT (ROW(1, (SELECT max(v) FROM hidden)) < ROW(1, 3))::text AS v",
        "SELECT v::text FROM t INTERSECT SELECT v::text FROM hidden ORDER BY 1",
    ] {
        for write in [
            "UPDATE hidden SET v = v + 1",
            "INSERT INTO hidden VALUES (2)",
            "TRUNCATE hidden",
            "INSERT INTO hidden VALUES (1)",
        ] {
            wrong.extend(compare(&mut session, query, "v text", Expect::Anything));
            wrong.extend(compare(&mut other, query, "v text", Expect::Hit));
            run(&mut other, write);
            wrong.extend(compare(&mut session, query, "v text", Expect::Invalidated("table hidden")));
        }
    }
    assert!(wrong.is_empty(), "{} cases: {wrong:#?}", wrong.len());
}

/// The planner leaves out a table that cannot change the result: by a constraint, a unique index or an empty condition. The
/// constraint or the index may be dropped later, and dropping an index is no change of a definition.
#[test]
fn a_table_that_the_planner_left_out_is_still_a_dependency() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "SET constraint_exclusion = on;
         CREATE TABLE a AS SELECT generate_series(1, 3) AS id; CREATE TABLE b (id int NOT NULL, v int); CREATE UNIQUE INDEX b_id ON b (id);
         INSERT INTO b VALUES (1, 1);
         CREATE TABLE limited (v int CONSTRAINT small CHECK (v < 100)); INSERT INTO limited VALUES (1);
         CREATE TABLE whole (v int CHECK (v IS NOT NULL)); CREATE TABLE heir (CONSTRAINT heirs CHECK (v > 1000)) INHERITS (whole)",
    );
    run(&mut other, "SET constraint_exclusion = on");
    let mut wrong = Vec::new();
    for (query, changes) in [
        (
            "SELECT count(*)::text AS v FROM a LEFT JOIN b ON a.id = b.id",
            &["INSERT INTO b VALUES (2, 2)", "DROP INDEX b_id", "INSERT INTO b VALUES (1, 5), (2, 6)"][..],
        ),
        (
            "SELECT count(*)::text AS v FROM limited WHERE v > 500",
            &[
                "INSERT INTO limited VALUES (5)",
                "ALTER TABLE limited DROP CONSTRAINT small",
                "INSERT INTO limited VALUES (501)",
            ],
        ),
        (
            "SELECT count(*)::text AS v FROM whole WHERE v BETWEEN 1 AND 10",
            &[
                "INSERT INTO heir VALUES (2000)",
                "INSERT INTO whole VALUES (5)",
                "ALTER TABLE heir DROP CONSTRAINT heirs",
                "INSERT INTO heir VALUES (6)",
                "CREATE TABLE late () INHERITS (whole)",
                "INSERT INTO late VALUES (7)",
                "ALTER TABLE late NO INHERIT whole",
                "INSERT INTO late VALUES (8)",
            ],
        ),
        (
            "SELECT count(*)::text AS v FROM whole WHERE v IS NULL",
            &[
                "ALTER TABLE whole DROP CONSTRAINT whole_v_check",
                "INSERT INTO whole VALUES (NULL)",
                "INSERT INTO heir VALUES (NULL)",
            ],
        ),
        (
            "SELECT count(*)::text AS v FROM a WHERE id IN (SELECT id FROM b WHERE false) OR id = 1",
            &["DELETE FROM a WHERE id = 1", "INSERT INTO a VALUES (1), (1)", "TRUNCATE b"],
        ),
    ] {
        for change in changes {
            wrong.extend(compare(&mut session, query, "v text", Expect::Anything));
            wrong.extend(compare(&mut other, query, "v text", Expect::Hit));
            run(&mut other, change);
            for session in [&mut session, &mut other] {
                let fault = compare(session, query, "v text", Expect::Anything);
                wrong.extend(fault.map(|fault| format!("{change}: {fault}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases: {wrong:#?}", wrong.len());
}

/// A query may read a table although neither its text nor a view of it names the table: in a policy, a domain, an aggregate, an
/// operator, a cast, or in a function that runs a query it is given.
#[test]
fn a_table_that_only_objects_of_the_query_read_is_a_dependency() {
    let cluster = cluster(&Conf::preloaded());
    let [mut owner, mut session, mut other] = [(); 3].map(|()| cluster.connect("postgres"));
    let has_crosstab = !cluster.server().lacks("tablefunc");
    // `-` stands for all roles (PUBLIC).
    run(
        &mut owner,
        "SELECT cache_grant('default', '-', 'write'); CREATE ROLE reader;
         CREATE TABLE hidden AS SELECT 1 AS v; CREATE TABLE t AS SELECT generate_series(1, 3) AS v; GRANT SELECT ON hidden, t TO reader;
         CREATE FUNCTION most() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT max(v) FROM hidden); END';
         CREATE FUNCTION most_of(x int) RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT max(v) + x FROM hidden); END';
         CREATE FUNCTION is_allowed(x int) RETURNS boolean STABLE LANGUAGE plpgsql AS
             'BEGIN RETURN x <> (SELECT max(v) FROM hidden); END';
         CREATE DOMAIN allowed AS int CHECK (is_allowed(VALUE));
         CREATE TYPE box_of AS (a allowed);
         CREATE FUNCTION adds(sum int, x int) RETURNS int STABLE LANGUAGE plpgsql AS
             'BEGIN RETURN coalesce(sum, 0) + x + (SELECT max(v) FROM hidden); END';
         CREATE AGGREGATE total(int) (SFUNC = adds, STYPE = int);
         CREATE OPERATOR @# (FUNCTION = most_of, RIGHTARG = int);
         CREATE TYPE wrapped AS (x int);
         CREATE FUNCTION wrap(x int) RETURNS wrapped STABLE LANGUAGE plpgsql AS
             'BEGIN RETURN ROW(x + (SELECT max(v) FROM hidden))::wrapped; END';
         CREATE CAST (int AS wrapped) WITH FUNCTION wrap(int);
         CREATE FUNCTION with_default(x int DEFAULT most()) RETURNS int STABLE LANGUAGE sql AS 'SELECT x';
         CREATE TABLE secured AS SELECT generate_series(1, 9) AS v; ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON secured USING (v <= (SELECT max(v) FROM hidden)); GRANT SELECT ON secured TO reader;
         CREATE TABLE judged AS SELECT generate_series(1, 9) AS v; ALTER TABLE judged ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON judged USING (v <= most()); GRANT SELECT ON judged TO reader;
         CREATE VIEW barrier WITH (security_barrier) AS SELECT v FROM secured WHERE EXISTS (SELECT FROM hidden WHERE v < 3);
         GRANT SELECT ON barrier TO reader",
    );
    let mut queries = vec![
        "SELECT v::text FROM secured ORDER BY 1",
        "SELECT v::text FROM judged ORDER BY 1",
        "SELECT count(*)::text AS v FROM barrier",
        "SELECT 5::allowed::text AS v",
        "SELECT (ROW(5)::box_of)::text AS v",
        "SELECT '{\"a\": 5}'::jsonb::text || (SELECT a FROM jsonb_populate_record(NULL::box_of, '{\"a\": 5}')) AS v",
        "SELECT ('{5}'::allowed[])::text AS v",
        "SELECT total(v)::text AS v FROM t",
        "SELECT (total(v) OVER (ORDER BY v))::text AS v FROM t ORDER BY t.v",
        "SELECT (@# v)::text AS v FROM t ORDER BY 1",
        "SELECT (v::wrapped)::text AS v FROM t ORDER BY 1",
        "SELECT with_default()::text AS v",
        "SELECT table_to_xml('hidden'::regclass, true, true, '')::text AS v",
        "SELECT length(schema_to_xml('public'::regnamespace, true, true, '')::text)::text AS v",
        "SELECT format('%s', most()) AS v",
    ];
    if has_crosstab {
        run(&mut owner, "CREATE EXTENSION tablefunc");
        queries.push(
            "SELECT x::text AS v FROM crosstab('SELECT 1, 1, v FROM hidden ORDER BY 1, 2, 3') AS c(k int, x int)",
        );
        queries.push(
            "SELECT branch AS v FROM connectby('(SELECT v, v - 1 AS up FROM hidden) AS h', 'v', 'up', '0', 0, ' ') AS c(k int, up int, l int, branch text)",
        );
    }
    run(&mut session, "SET ROLE reader");
    run(&mut other, "SET ROLE reader");
    let mut wrong = Vec::new();
    for query in queries {
        for write in [
            "UPDATE hidden SET v = 5",
            "INSERT INTO hidden VALUES (7)",
            "DELETE FROM hidden WHERE v > 1",
            "INSERT INTO hidden VALUES (1)",
        ] {
            for session in [&mut session, &mut other] {
                wrong.extend(compare(session, query, "v text", Expect::Anything));
            }
            run(&mut owner, write);
            for session in [&mut session, &mut other] {
                let fault = compare(session, query, "v text", Expect::Anything);
                wrong.extend(fault.map(|fault| format!("{write}: {fault}")));
            }
        }
    }
    // The same domain in arguments, which are converted before the query runs.
    for query in [
        "SELECT ($1::allowed)::text AS v",
        "SELECT ($1::allowed[])::text AS v",
        "SELECT ($1::box_of)::text AS v",
    ] {
        let args = ["'[6]'", "'[[6]]'", "'[\"(6)\"]'"]
            [usize::from(query.contains("[]")) + 2 * usize::from(query.contains("box"))];
        let literal = query.replace(
            "$1",
            ["'6'", "'{6}'", "'(6)'"]
                [usize::from(query.contains("[]")) + 2 * usize::from(query.contains("box"))],
        );
        for write in ["UPDATE hidden SET v = 1", "UPDATE hidden SET v = 6", "UPDATE hidden SET v = 2"] {
            run(&mut owner, write);
            for _ in 0..2 {
                let direct = answer(&mut session, &literal);
                let (rows, status) = cached_with(&mut session, query, "v text", &format!("args => {args}"));
                if rows != direct {
                    wrong.push(format!("{write}: {query}, {args}: {rows:?} instead of {direct:?}, {status}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases: {wrong:#?}", wrong.len());
}
