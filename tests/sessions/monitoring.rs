//! The views of an operator on the tables of saved values: counts of reads, workers, disk in use, entries, and findings.

use crate::tables::{one, only_tables, save, with_tables};
use pg_cache_testbed::{Cluster, Conf, Stop, wait_until};
use postgres::Client;

/// Returns the single number that a query returns.
fn number(session: &mut Client, query: &str) -> i64 {
    session.query_one(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
}

/// Returns the findings of `cache_health()`: severity, finding and command.
fn findings(session: &mut Client) -> Vec<(String, String, String)> {
    let rows =
        session.query("SELECT severity, finding, command FROM cache_health()", &[]).expect("it answers");
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

/// In a space with `tiers => 'table'`, an entry leaves the memory when it is saved. Reads return it from the table and count as
/// hits. In a space with `tiers => 'both'`, the first read promotes it: it brings the entry back into memory. Fails if a view
/// counts one of these reads otherwise, or does not show the worker.
#[test]
fn a_read_from_a_table_is_counted_as_a_hit_and_the_worker_is_shown() {
    let cluster = Cluster::start(&Conf::preloaded().set("pg_cache.table_size", "64MB"));
    let mut session = cluster.connect("postgres");
    session
        .batch_execute(
            "CREATE EXTENSION pg_cache;
             SELECT cache_create_space('s', tiers => 'table');
             SELECT cache_set_text('k' || i, 'value', '1 hour', space => 's') FROM generate_series(1, 10) AS i",
        )
        .expect("values are stored");
    let entries = "SELECT entries FROM cache_stats_detail WHERE space = 's'";
    wait_until("all values are saved and have left the memory", || number(&mut session, entries) == 0);
    let read = "SELECT cache_get_text('k1', 's') || ' ' || cache_status()";
    let mut assert_reads = |expected: [&str; 2]| {
        let reads = [(); 2].map(|()| session.query_one(read, &[]).expect("it reads").get::<_, String>(0));
        assert_eq!(reads, expected);
        session
            .batch_execute("SELECT cache_alter_space('s', tiers => 'both')")
            .expect("the option is changed");
    };
    assert_reads(["value hit: table", "value hit: table"]);
    assert_reads(["value hit: table", "value hot"]);
    let row = session
        .query_one(
            "SELECT hits, misses, hit_ratio, hits_hot, hits_table, misses_absent, promoted
             FROM cache_stats JOIN cache_stats_detail USING (space) WHERE space = 's'",
            &[],
        )
        .expect("there are statistics");
    let counts: Vec<i64> = [0, 1, 3, 4, 5, 6].into_iter().map(|column| row.get(column)).collect();
    assert_eq!(counts, [4, 0, 1, 3, 0, 1]);
    assert_eq!(row.get::<_, f64>(2), 1.0);

    let used = |resource: &str, database: &str| {
        format!(
            "SELECT used FROM cache_usage WHERE resource = '{resource}' AND database {database} AND used < capacity"
        )
    };
    assert!((9..=10).contains(&number(&mut session, &used("saved values", "IS NULL"))));
    let all = number(&mut session, &used("saved bytes", "IS NULL"));
    assert!(all > 0, "a table has rows");
    assert_eq!(number(&mut session, &used("saved bytes", "= 'postgres'")), all);

    let workers = "SELECT count(*) FROM cache_workers AS w JOIN pg_stat_activity AS a USING (pid)
                   WHERE w.kind = 'worker' AND w.database = 'postgres' AND a.datname = 'postgres' AND w.saved >= 10
                     AND w.last_step >= w.started";
    wait_until("the worker says that it has saved the values", || number(&mut session, workers) == 1);
    assert_eq!(findings(&mut session), []);
}

/// A finding is reported as long as its cause exists. A server without a cache reports nothing else.
#[test]
fn each_cause_that_keeps_the_cache_from_working_is_a_finding() {
    let missing = (
        "error".to_owned(),
        "values are not saved in tables because the launcher is not running".to_owned(),
        "ALTER SYSTEM SET max_worker_processes = 8;".to_owned(),
    );
    let small = (
        "warning".to_owned(),
        "pg_cache.table_size is too small".to_owned(),
        "ALTER SYSTEM SET pg_cache.table_size = '8MB'; SELECT pg_reload_conf();".to_owned(),
    );
    let off = (
        "warning".to_owned(),
        "the cache is switched off".to_owned(),
        "ALTER SYSTEM SET pg_cache.hot_size = '128MB';".to_owned(),
    );
    let conf =
        |size: &str| Conf::preloaded().set("max_worker_processes", "0").set("pg_cache.table_size", size);
    let cluster = Cluster::start(&conf("1MB"));
    let mut session = cluster.connect("postgres");
    session.batch_execute("CREATE EXTENSION pg_cache").expect("the extension installs");
    assert_eq!(findings(&mut session), [missing.clone(), small.clone()]);
    for command in small.2.split("; ") {
        session.batch_execute(command).expect("the command of the finding can be run");
    }
    wait_until("the larger size is in effect", || findings(&mut session) == [missing.clone()]);
    session.batch_execute("ALTER SYSTEM RESET pg_cache.table_size").expect("it is reset");

    cluster.restart(Stop::Fast, &conf("0"));
    assert_eq!(findings(&mut cluster.connect("postgres")), []);
    cluster.restart(Stop::Fast, &conf("1MB").set("pg_cache.hot_size", "0"));
    assert_eq!(findings(&mut cluster.connect("postgres")), [off]);
}

/// The views know both places: an entry is shown with where it is, with its tags, and with its hits in either place.
#[test]
fn the_views_show_saved_values() {
    let cluster = with_tables("64MB");
    let mut session = cluster.connect("postgres");
    session.batch_execute("SELECT cache_set_text('memory', 'v')").expect("a value");
    // From now on, values leave the memory when they are saved. `save` gives its value the tag `tag` (`tables.rs`).
    only_tables(&mut session);
    save(&mut session, "small", "value");
    // The longest tags do not fit into one row, and neither does this value.
    let tags = "ARRAY(SELECT lpad(i::text, 256, 'tag') FROM generate_series(1, 32) AS i)";
    let set = format!("SELECT cache_set_text('large', repeat('v', 20000), tags => {tags})");
    session.batch_execute(&set).expect("a value");
    wait_until("the value to be saved", || {
        let place = "SELECT coalesce((SELECT tier FROM cache_entries WHERE key = 'large'), '')";
        one::<String>(&mut session, place) == "table"
    });
    let listed = |session: &mut Client| -> Vec<(String, String, i64, Option<i32>)> {
        let query = "SELECT key, tier, size, cardinality(tags) FROM cache_entries";
        let rows = session.query(query, &[]).expect("the entries");
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
    };
    let entry = |key: &str, tier: &str, size, tags| (key.to_owned(), tier.to_owned(), size, tags);
    let (large, small) = (entry("large", "table", 20_000, Some(32)), entry("small", "table", 5, Some(1)));
    let found = listed(&mut session);
    assert_eq!((found.len(), &found[0], &found[2]), (3, &large, &small));
    let same_tags =
        format!("SELECT tags @> {tags} AND tags <@ {tags} FROM cache_entries WHERE key = 'large'");
    assert!(one::<bool>(&mut session, &same_tags));
    assert_eq!(one::<String>(&mut session, "SELECT cache_get_text('large')"), "v".repeat(20_000));
    // Reads of a table count as hits of the key. The view shows an estimate.
    session.query("SELECT count(cache_get_text('small')) FROM generate_series(1, 2000)", &[]).expect("reads");
    let hits: i64 = one(&mut session, "SELECT hits FROM cache_entries WHERE key = 'small'");
    assert!((1_000..4_000).contains(&hits), "{hits} hits");
    // A value that is promoted is in both places, and still has its tags.
    session.batch_execute("UPDATE pgcache.spaces SET tiers = 'both' WHERE number = 0").expect("an option");
    assert_eq!(one::<String>(&mut session, "SELECT cache_get_text('small')"), "value");
    let keys = "SELECT string_agg(key, ' ') FROM cache_keys() AS key";
    assert_eq!(one::<String>(&mut session, keys), "large memory small");
    assert!(listed(&mut session).contains(&entry("small", "both", 5, Some(1))));
    assert_eq!(one::<i64>(&mut session, "SELECT count(*) FROM cache_keys('*', 'default', 1, 'large')"), 1);
    session.batch_execute("SELECT cache_invalidate_tag('tag')").expect("an invalidation");
    let left: Vec<String> = listed(&mut session).into_iter().map(|(key, ..)| key).collect();
    assert_eq!(left, ["large", "memory"]);
    session.batch_execute("BEGIN; SELECT cache_delete('large')").expect("a removal");
    assert_eq!(one::<String>(&mut session, keys), "memory");
}
