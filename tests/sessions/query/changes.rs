//! Every way to write (`writes/paths.rs`) to what a query reads. After the commit, the next cached result must be fresh, whether
//! the query names the table itself, a view on it, a view on that view, or a function that reads it.

use super::calls::{Expect, assert_right, compare, fill, run};
use crate::memory::findings;
use crate::writes::paths::{PARTITIONED, paths};
use crate::writes::table::prepare;
use pg_cache_testbed::Database;
use postgres::Client;
use postgres::error::SqlState;

/// The columns of the result of each query.
const COLUMNS: &str = "v text";

/// Creates what reads a table in all ways, and returns the queries. Views are left out if `without_views`: the server refuses some
/// changes of a table that a view depends on.
fn readers(session: &mut Client, table: &str, without_views: bool) -> Vec<String> {
    // All columns count.
    let rows = format!("string_agg(x::text, ' ' ORDER BY x::text) AS v FROM {table} AS x");
    run(
        session,
        &format!(
            "CREATE FUNCTION sql_{table}() RETURNS text STABLE LANGUAGE sql AS $$ SELECT {rows} $$;
             CREATE FUNCTION plpgsql_{table}() RETURNS text STABLE LANGUAGE plpgsql AS
                 $$ DECLARE r text; BEGIN SELECT {rows} INTO r; RETURN r; END $$;
             CREATE FUNCTION dynamic_{table}() RETURNS text STABLE LANGUAGE plpgsql AS
                 $f$ DECLARE r text; BEGIN EXECUTE $$ SELECT {rows} $$ INTO r; RETURN r; END $f$"
        ),
    );
    let mut queries = vec![
        format!("SELECT {rows}"),
        format!("SELECT (SELECT {rows})"),
        format!("SELECT sql_{table}() AS v"),
        format!("SELECT plpgsql_{table}() AS v"),
        format!("SELECT dynamic_{table}() AS v"),
    ];
    if !without_views {
        run(
            session,
            &format!(
                "CREATE VIEW view_{table} AS SELECT {rows}; CREATE VIEW view_view_{table} AS SELECT v || '' AS v FROM view_{table}"
            ),
        );
        queries.extend([format!("SELECT v FROM view_{table}"), format!("SELECT v FROM view_view_{table}")]);
    }
    queries
}

/// Each way to write, for each table that it changes, through each way to read it. After the commit, the next result is computed
/// anew, and the one after it is a hit again, in another session.
#[test]
fn the_next_result_is_fresh_after_each_way_to_write() {
    let database = Database::create();
    let mut wrong = Vec::new();
    let mut with_views = 0;
    for (number, path) in paths().enumerate() {
        for without_views in [false, true] {
            let schema = format!("q{number}_{}", usize::from(without_views));
            let [mut writer, mut reader] = [(); 2].map(|()| database.connect());
            prepare(&mut writer, &schema, path.setup);
            run(&mut reader, &format!("SET search_path = {schema}, public"));
            let mut queries: Vec<String> = Vec::new();
            for table in path.changes {
                queries.extend(readers(&mut writer, table, without_views));
            }
            let mut at_first = |session: &mut Client, expect| {
                for query in &queries {
                    let fault = compare(session, query, COLUMNS, expect);
                    wrong.extend(fault.map(|fault| format!("{}, at first: {fault}", path.name)));
                }
            };
            at_first(&mut writer, Expect::Stored);
            at_first(&mut reader, Expect::Hit);
            run(&mut writer, "BEGIN");
            if let Err(error) = writer.batch_execute(path.write) {
                // A view depends on the table.
                let refused = [SqlState::DEPENDENT_OBJECTS_STILL_EXIST, SqlState::FEATURE_NOT_SUPPORTED];
                let is_refused = error.code().is_some_and(|code| refused.contains(code));
                assert!(is_refused && !without_views, "{}: {error:?}", path.name);
                continue;
            }
            run(&mut writer, "COMMIT");
            for (session, expect) in [(&mut reader, Expect::Fresh), (&mut writer, Expect::Hit)] {
                for query in &queries {
                    let fault = compare(session, query, COLUMNS, expect);
                    wrong.extend(fault.map(|fault| format!("{}: {fault}", path.name)));
                }
            }
            with_views += usize::from(!without_views);
            break;
        }
    }
    let shown: Vec<_> = wrong.iter().take(40).collect();
    assert!(wrong.is_empty(), "{} cases:\n{shown:#?}", wrong.len());
    assert!(with_views * 2 > paths().count(), "most ways to write work beside views");
    assert_eq!(findings(&mut database.connect()), Vec::<String>::new());
}

/// A result of a partitioned table depends on the rows of the partitions that its plan reads. A change of another partition leaves
/// it, and a change of one of them ends it, however the change is made.
#[test]
fn a_result_of_some_partitions_outlives_changes_of_the_others() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    let mut wrong = Vec::new();
    // Changes, each with whether it invalidates results of `p_low`, and of `p_high` or the partition below it. Each one invalidates
    // results of `p`.
    for (number, (change, low, high)) in [
        ("INSERT INTO p VALUES (2, 2)", true, false),
        ("INSERT INTO p VALUES (12, 2)", false, true),
        ("INSERT INTO p_high_1 VALUES (12, 2)", false, true),
        ("UPDATE p SET v = v + 1 WHERE id = 1", true, false),
        ("UPDATE p SET id = 12 WHERE id = 1", true, true),
        ("DELETE FROM p_high", false, true),
        ("TRUNCATE p_low", true, false),
        ("TRUNCATE p_high_1", false, true),
        ("TRUNCATE p_high", false, true),
        ("TRUNCATE p", true, true),
        ("TRUNCATE ONLY p_high_1", false, true),
        ("COPY p FROM PROGRAM 'echo 3,3' WITH (FORMAT csv)", true, false),
        ("DROP TABLE p_high_1", false, true),
        ("ALTER TABLE p_high DETACH PARTITION p_high_1", false, true),
        ("SELECT cache_invalidate_relation('p_low')", true, false),
        ("SELECT cache_invalidate_relation('p_high')", false, true),
        ("SELECT cache_invalidate_relation('p')", true, true),
    ]
    .iter()
    .enumerate()
    {
        let schema = format!("parts{number}");
        prepare(&mut session, &schema, PARTITIONED);
        run(&mut other, &format!("SET search_path = {schema}, public"));
        run(
            &mut session,
            "CREATE VIEW all_rows AS SELECT * FROM p;
             CREATE FUNCTION counts() RETURNS text STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT sum(v) FROM p_low); END'",
        );
        let of_low = [
            "SELECT sum(v)::text AS v FROM p WHERE id < 5",
            "SELECT sum(v)::text AS v FROM p_low",
            "SELECT sum(v)::text AS v FROM all_rows WHERE id = 1",
            "SELECT counts() AS v",
        ];
        let of_high =
            ["SELECT sum(v)::text AS v FROM p WHERE id = 11", "SELECT sum(v)::text AS v FROM p_high"];
        let of_all = ["SELECT sum(v)::text AS v FROM p", "SELECT count(*)::text AS v FROM all_rows"];
        let all = || of_low.iter().chain(&of_high).chain(&of_all);
        all().for_each(|query| fill(&mut session, query, COLUMNS));
        run(&mut other, change);
        let is_ddl = change.starts_with("DROP") || change.starts_with("ALTER");
        for (queries, is_changed) in [(&of_low[..], *low), (&of_high, *high), (&of_all, true)] {
            for query in queries {
                // This call is no change of the tables below, whose own results it leaves.
                let names_part = query.contains("FROM p_") || query.contains("counts");
                let is_above = *change == "SELECT cache_invalidate_relation('p')" && names_part;
                let expect = match is_changed {
                    _ if is_above => Expect::Anything,
                    true => Expect::Fresh,
                    // Every definition counts for a function, and for a query that names the table above.
                    false if is_ddl => Expect::Anything,
                    // The query reads none of the changed partitions.
                    false => Expect::Hit,
                };
                for (session, expect) in [(&mut other, expect), (&mut session, Expect::Hit)] {
                    let fault = compare(session, query, COLUMNS, expect);
                    wrong.extend(fault.map(|fault| format!("{change}: {fault}")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases: {wrong:#?}", wrong.len());
}

/// A refresh of a materialized view that is rolled back, and a write to the table below it, leave results of the view.
#[test]
fn a_result_of_a_materialized_view_ends_with_its_refresh_only() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut session,
        "CREATE TABLE t AS SELECT 1 AS v; CREATE MATERIALIZED VIEW m AS SELECT v, 1 AS k FROM t; CREATE UNIQUE INDEX ON m (k);
         CREATE VIEW seen AS SELECT v FROM m;
         CREATE FUNCTION f() RETURNS text STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT v FROM m); END'",
    );
    let queries = ["SELECT v::text FROM m", "SELECT v::text FROM seen", "SELECT f() AS v"];
    for (change, is_fresh) in [
        ("UPDATE t SET v = v + 1", false),
        ("BEGIN; REFRESH MATERIALIZED VIEW m; ROLLBACK", false),
        ("REFRESH MATERIALIZED VIEW m", true),
        ("UPDATE t SET v = v + 1", false),
        ("REFRESH MATERIALIZED VIEW CONCURRENTLY m", true),
        ("REFRESH MATERIALIZED VIEW m WITH NO DATA", true),
        ("REFRESH MATERIALIZED VIEW m", true),
    ] {
        for query in queries {
            assert_right(&mut session, query, COLUMNS, Expect::Anything);
            assert_right(&mut session, query, COLUMNS, Expect::Hit);
        }
        run(&mut other, change);
        for query in queries {
            let expect = if is_fresh { Expect::Fresh } else { Expect::Hit };
            if let Some(wrong) = compare(&mut session, query, COLUMNS, expect) {
                panic!("{change}: {wrong}");
            }
        }
    }
}
