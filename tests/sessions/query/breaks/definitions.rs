//! Changes of definitions that must invalidate a stored result, and work of the server that changes no definition and must leave
//! the result a hit. `calls.rs` has the calls: `compare` runs a query with and without the cache, and returns what is wrong, if
//! anything; `Expect` is the status that the cached call must have.

use super::super::calls::{Expect, answer, assert_right, cached, compare, compare_to, fill, run};
use pg_cache_testbed::Database;

/// The planner computes an `IMMUTABLE` function once, and inlines functions in SQL. Then the plan does not contain the function any
/// more. Still, a new definition must invalidate the result, in all sessions, however deep the function is. PostgreSQL's own
/// sessions may keep the old result in the plan of another function, so the right answer is that of a new session.
#[test]
fn a_replaced_immutable_function_counts_wherever_it_was_computed() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE TABLE t AS SELECT 1 AS v;
         CREATE FUNCTION inner_sql() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
         CREATE FUNCTION inner_plpgsql() RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
         CREATE VIEW folded AS SELECT v + inner_sql() + inner_plpgsql() AS v FROM t;
         CREATE FUNCTION outer_sql() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT inner_sql() + inner_plpgsql()';
         CREATE FUNCTION outer_plpgsql() RETURNS int IMMUTABLE LANGUAGE plpgsql AS
             'BEGIN RETURN inner_sql() + inner_plpgsql(); END';
         CREATE FUNCTION outer_new() RETURNS int IMMUTABLE LANGUAGE sql BEGIN ATOMIC SELECT inner_sql() + inner_plpgsql(); END;
         CREATE FUNCTION table_sql() RETURNS TABLE (v int) STABLE LANGUAGE sql AS 'SELECT v + outer_sql() FROM t';
         CREATE FUNCTION add(v int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT v + inner_sql() + inner_plpgsql()';
         CREATE OPERATOR @# (FUNCTION = add, RIGHTARG = int)",
    );
    let queries = [
        "SELECT inner_sql()::text AS v",
        "SELECT inner_plpgsql()::text AS v",
        "SELECT v::text FROM t WHERE v <= inner_sql()",
        "SELECT v::text FROM folded",
        "SELECT outer_sql()::text AS v",
        "SELECT outer_plpgsql()::text AS v",
        "SELECT outer_new()::text AS v",
        "SELECT v::text FROM table_sql()",
        "SELECT (@# 5)::text AS v",
        "SELECT t.v::text FROM t JOIN LATERAL (SELECT outer_plpgsql() AS w) AS l ON w > 1",
    ];
    let mut wrong = Vec::new();
    for (round, replace) in [
        "CREATE OR REPLACE FUNCTION inner_sql() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 0'",
        "CREATE OR REPLACE FUNCTION inner_plpgsql() RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 20; END'",
        "ALTER FUNCTION inner_sql() RENAME TO gone;
         CREATE FUNCTION inner_sql() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 3'",
        "CREATE OR REPLACE FUNCTION inner_sql() RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 4; END'",
    ]
    .iter()
    .enumerate()
    {
        for query in queries {
            let direct = answer(&mut database.connect(), query);
            for (session, expect) in [(&mut session, Expect::Anything), (&mut other, Expect::Hit)] {
                wrong.extend(compare_to(&direct, session, query, "v text", expect));
            }
        }
        run(&mut other, replace);
        for query in queries {
            let direct = answer(&mut database.connect(), query);
            // The session that computes next may be either of the two.
            let (first, second) =
                if round % 2 == 0 { (&mut session, &mut other) } else { (&mut other, &mut session) };
            for (session, expect) in [(first, Expect::Fresh), (second, Expect::Hit)] {
                let fault = compare_to(&direct, session, query, "v text", expect);
                wrong.extend(fault.map(|fault| format!("{replace}: {fault}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A sort calls the comparison function of the operator's family, which the text names nowhere.
#[test]
fn a_replaced_comparison_function_of_an_operator_class_counts() {
    let database = Database::create();
    let mut session = database.connect();
    let compare_by = |sign: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION by_value(int, int) RETURNS int IMMUTABLE LANGUAGE sql
                 AS 'SELECT {sign} (CASE WHEN $1 < $2 THEN 1 WHEN $1 > $2 THEN -1 ELSE 0 END)'"
        )
    };
    run(
        &mut session,
        &format!(
            "{};
             CREATE OPERATOR |<| (LEFTARG = int, RIGHTARG = int, FUNCTION = int4lt);
             CREATE OPERATOR |=| (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);
             CREATE OPERATOR |>| (LEFTARG = int, RIGHTARG = int, FUNCTION = int4gt);
             CREATE OPERATOR CLASS by_values FOR TYPE int USING btree AS
                 OPERATOR 1 |<|, OPERATOR 3 |=|, OPERATOR 5 |>|, FUNCTION 1 by_value(int, int);
             CREATE TABLE t AS SELECT v FROM unnest('{{2,1,3}}'::int[]) AS v",
            compare_by("-")
        ),
    );
    let query = "SELECT v::text FROM t ORDER BY v USING |<|";
    fill(&mut session, query, "v text");
    run(&mut session, &compare_by("+"));
    assert_right(&mut session, query, "v text", Expect::Fresh);
}

/// A partition may itself be partitioned. If a partition is attached, detached or created below it, the whole table changes, also
/// if it had no partition before.
#[test]
fn a_partition_attached_below_another_changes_the_whole() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE TABLE p (id int, v int) PARTITION BY RANGE (id);
         CREATE TABLE p_low PARTITION OF p FOR VALUES FROM (0) TO (10);
         CREATE TABLE p_high PARTITION OF p FOR VALUES FROM (10) TO (100) PARTITION BY RANGE (id);
         CREATE TABLE new_one AS SELECT 11 AS id, 1 AS v; CREATE TABLE new_two AS SELECT 55 AS id, 1 AS v;
         CREATE TABLE new_three AS SELECT 200 AS id, 1 AS v;
         INSERT INTO p VALUES (1, 1)",
    );
    let queries = [
        "SELECT count(*)::text AS v FROM p",
        "SELECT count(*)::text AS v FROM p WHERE id > 10",
        "SELECT count(*)::text AS v FROM p_high",
        "SELECT (SELECT count(*) FROM p)::text AS v",
    ];
    let mut wrong = Vec::new();
    // Changes, and whether each one changes `p_high` or a table below it. Each one changes `p`.
    for (change, is_below) in [
        ("ALTER TABLE p_high ATTACH PARTITION new_one FOR VALUES FROM (10) TO (50)", true),
        ("ALTER TABLE p_high ATTACH PARTITION new_two DEFAULT", true),
        ("INSERT INTO p VALUES (12, 1), (60, 1)", true),
        ("TRUNCATE new_two", true),
        ("ALTER TABLE p ATTACH PARTITION new_three DEFAULT", false),
        ("ALTER TABLE p_high DETACH PARTITION new_one", true),
        ("ALTER TABLE p_high DETACH PARTITION new_two", true),
        (
            "CREATE TABLE p_high_3 PARTITION OF p_high FOR VALUES FROM (50) TO (90) PARTITION BY RANGE (id);
             CREATE TABLE p_high_3_1 PARTITION OF p_high_3 FOR VALUES FROM (50) TO (60);
             INSERT INTO p VALUES (51, 1)",
            true,
        ),
        ("ALTER TABLE p_high_3 ATTACH PARTITION new_one FOR VALUES FROM (60) TO (61)", true),
        ("ALTER TABLE p_high_3 DETACH PARTITION p_high_3_1 CONCURRENTLY", true),
        ("DROP TABLE p_high_3", true),
        ("ALTER TABLE p DETACH PARTITION p_high", false),
    ] {
        if change.contains("FROM (60)") {
            run(&mut other, "DELETE FROM new_one; INSERT INTO new_one VALUES (60, 1)");
        }
        for query in queries {
            wrong.extend(compare(&mut session, query, "v text", Expect::Anything));
            wrong.extend(compare(&mut other, query, "v text", Expect::Hit));
        }
        run(&mut other, change);
        for query in queries {
            let expect = if query.contains("p_high") && !is_below { Expect::Anything } else { Expect::Fresh };
            wrong.extend(
                compare(&mut session, query, "v text", expect).map(|fault| format!("{change}: {fault}")),
            );
            wrong.extend(
                compare(&mut other, query, "v text", Expect::Hit).map(|fault| format!("{change}: {fault}")),
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A transaction that has changed definitions gets results with the new ones. Other transactions get results with the old ones,
/// until the commit.
#[test]
fn uncommitted_definitions_count_in_their_transaction_only() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE SCHEMA ahead; CREATE TABLE t AS SELECT 1 AS v, 2 AS w; CREATE VIEW seen AS SELECT v FROM t;
         CREATE FUNCTION f() RETURNS int STABLE LANGUAGE sql AS 'SELECT v FROM t';
         CREATE FUNCTION g(x int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT x + 1';
         CREATE TABLE p (id int) PARTITION BY LIST (id); CREATE TABLE p_1 PARTITION OF p FOR VALUES IN (1); INSERT INTO p VALUES (1);
         CREATE TABLE part AS SELECT 2 AS id;
         CREATE CAST (text AS integer) WITH INOUT AS ASSIGNMENT;
         CREATE OPERATOR @#@ (FUNCTION = int4pl, LEFTARG = int, RIGHTARG = int)",
    );
    for session in [&mut session, &mut other] {
        run(session, "SET search_path = ahead, public");
    }
    let queries = [
        "SELECT v::text FROM t",
        "SELECT v::text FROM seen",
        "SELECT f()::text AS v",
        "SELECT g(v)::text AS v FROM t",
        "SELECT count(*)::text AS v FROM p",
        "SELECT (v @#@ v)::text AS v FROM t",
    ];
    let mut wrong = Vec::new();
    for change in [
        "ALTER TABLE t RENAME v TO old; ALTER TABLE t RENAME w TO v",
        "CREATE TABLE ahead.t AS SELECT 3 AS v",
        "CREATE OR REPLACE VIEW public.seen AS SELECT w AS v FROM t",
        "CREATE OR REPLACE FUNCTION public.f() RETURNS int STABLE LANGUAGE sql AS 'SELECT w FROM t'",
        "CREATE VIEW ahead.seen AS SELECT w AS v FROM t",
        "CREATE FUNCTION ahead.f() RETURNS int STABLE LANGUAGE sql AS 'SELECT w FROM t'",
        "CREATE FUNCTION ahead.g(x int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT x + 100'",
        "ALTER TABLE p ATTACH PARTITION part FOR VALUES IN (2)",
        "DROP TABLE p_1",
        "DROP OPERATOR @#@ (int, int); CREATE OPERATOR @#@ (FUNCTION = int4mi, LEFTARG = int, RIGHTARG = int)",
        "DROP VIEW public.seen; ALTER TABLE t ALTER v TYPE bigint USING v * 10; CREATE VIEW public.seen AS SELECT v FROM t",
    ] {
        for end in ["ROLLBACK", "SAVEPOINT", "COMMIT"] {
            for query in queries {
                wrong.extend(compare(&mut session, query, "v text", Expect::Anything));
                wrong.extend(compare(&mut other, query, "v text", Expect::Hit));
            }
            let begin = if end == "SAVEPOINT" { "BEGIN; SAVEPOINT s" } else { "BEGIN" };
            run(&mut session, begin);
            run(&mut session, change);
            for query in queries {
                // An error would end the transaction.
                run(&mut session, "SAVEPOINT q");
                let direct = answer(&mut session, query);
                run(&mut session, "ROLLBACK TO q");
                let (rows, status) = cached(&mut session, query, "v text");
                run(&mut session, "ROLLBACK TO q");
                if rows != direct {
                    wrong.push(format!(
                        "{change}, in the transaction: {query}: {rows:?}, not {direct:?}, {status}"
                    ));
                }
            }
            // The change holds locks, so others can ask only for what it does not lock.
            if change.starts_with("CREATE FUNCTION") || change.starts_with("CREATE TABLE") {
                for query in queries {
                    let fault = compare(&mut other, query, "v text", Expect::Hit);
                    wrong.extend(fault.map(|fault| format!("{change}, beside the transaction: {fault}")));
                }
            }
            run(&mut session, if end == "SAVEPOINT" { "ROLLBACK TO s; COMMIT" } else { end });
            let expect = if end == "COMMIT" { Expect::Anything } else { Expect::Hit };
            for query in queries {
                let fault = compare(&mut other, query, "v text", expect);
                wrong.extend(fault.map(|fault| format!("{change} {end}: {fault}")));
                let fault = compare(&mut session, query, "v text", Expect::Anything);
                wrong.extend(fault.map(|fault| format!("{change} {end}: {fault}")));
            }
        }
        // The next change begins with the first state of what the queries read.
        run(
            &mut other,
            "DROP SCHEMA ahead CASCADE; CREATE SCHEMA ahead; DROP VIEW public.seen; DROP TABLE public.t, p;
             DROP TABLE IF EXISTS part;
             CREATE TABLE public.t AS SELECT 1 AS v, 2 AS w; CREATE VIEW public.seen AS SELECT v FROM t;
             CREATE OR REPLACE FUNCTION public.f() RETURNS int STABLE LANGUAGE sql AS 'SELECT v FROM t';
             CREATE TABLE public.p (id int) PARTITION BY LIST (id); CREATE TABLE public.p_1 PARTITION OF p FOR VALUES IN (1);
             INSERT INTO p VALUES (1); CREATE TABLE public.part AS SELECT 2 AS id",
        );
    }
    assert!(wrong.is_empty(), "{} cases: {wrong:#?}", wrong.len());
}

/// Autovacuum analyzes and vacuums tables and catalogs at any time. This changes no definition, so all results must stay hits.
#[test]
fn analyze_and_vacuum_leave_all_results() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE TABLE t AS SELECT generate_series(1, 100) AS v;
         CREATE FUNCTION f() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT sum(v) FROM t'",
    );
    let queries = ["SELECT sum(v)::text AS v FROM t", "SELECT f()::text AS v"];
    let mut wrong = Vec::new();
    for statement in [
        "ANALYZE t",
        "VACUUM t",
        "VACUUM (FREEZE) t",
        "ANALYZE pg_class",
        "ANALYZE pg_attribute",
        "ANALYZE pg_proc",
        "ANALYZE pg_type",
        "ANALYZE pg_statistic",
        "VACUUM pg_class",
        "VACUUM pg_attribute",
        "VACUUM (FREEZE) pg_proc",
        "ANALYZE",
        "CREATE INDEX ON t (v)",
        "REINDEX TABLE t",
    ] {
        for query in queries {
            wrong.extend(compare(&mut session, query, "v text", Expect::Anything));
        }
        run(&mut other, statement);
        for query in queries {
            let fault = compare(&mut session, query, "v text", Expect::Hit);
            wrong.extend(fault.map(|fault| format!("{statement}: {fault}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
