//! The queries of TPC-H: long analytical queries with joins, subqueries and aggregates. Each cached result must be the same as that
//! of the query without the cache.

use super::calls::{Expect, answer, compare_to, run, text};
use pg_cache_testbed::{Database, tpch};

/// The scale of the tables: about 30 000 lines of orders.
const SCALE: f64 = 0.005;
/// The scale if the variable `PG_CACHE_TEST_LONG` is set: about 600 000 lines of orders.
const LONG_SCALE: f64 = 0.1;

/// The queries that do not read the table `lineitem`.
const WITHOUT_LINES: [u32; 5] = [2, 11, 13, 16, 22];
/// The fewest queries that return rows. At the small scale, some conditions select none.
const WITH_ROWS_MIN: usize = 17;

/// Each query returns the same rows with and without the cache, and its second call is a hit, also in another session. A change of
/// one table invalidates exactly the queries that read it.
#[test]
fn tpch_queries_are_right_and_hits_and_depend_on_what_they_read() {
    let long = std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty());
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    // On a slow machine, all queries together may take minutes.
    [&mut session, &mut other]
        .into_iter()
        .for_each(|session| run(session, "SET pg_cache.default_ttl = '1h'"));
    let loaded = tpch::load(&mut session, if long { LONG_SCALE } else { SCALE });
    loaded.unwrap_or_else(|error| panic!("the tables cannot be filled: {error:?}"));
    let queries: Vec<_> = tpch::queries()
        .into_iter()
        .map(|query| {
            let explain =
                format!("SELECT value FROM cache_explain($${}$$) WHERE property = 'columns'", query.text);
            (query, text(&mut session, &explain))
        })
        .collect();

    let mut wrong = Vec::new();
    let mut with_rows = 0;
    for (query, columns) in &queries {
        let direct = answer(&mut session, query.text);
        assert!(direct.is_ok(), "query {}: {direct:?}", query.number);
        with_rows += usize::from(direct.iter().flatten().flatten().flatten().next().is_some());
        wrong.extend(compare_to(&direct, &mut session, query.text, columns, Expect::Stored));
        for session in [&mut session, &mut other] {
            wrong.extend(compare_to(&direct, session, query.text, columns, Expect::Hit));
        }
    }
    assert!(with_rows >= WITH_ROWS_MIN, "only {with_rows} queries return rows");

    run(&mut other, "UPDATE lineitem SET l_quantity = 51 - l_quantity");
    for (query, columns) in &queries {
        let expect = match WITHOUT_LINES.contains(&query.number) {
            true => Expect::Hit,
            false => Expect::Invalidated("table lineitem"),
        };
        let direct = answer(&mut session, query.text);
        wrong.extend(compare_to(&direct, &mut session, query.text, columns, expect));
        wrong.extend(compare_to(&direct, &mut other, query.text, columns, Expect::Hit));
    }
    assert_eq!(wrong, Vec::<String>::new());
}
