//! Tests of the cache in the server's shared memory: its size, a server without it, and its loss in a crash. A *fence* is a word in
//! shared memory that says when something that values depend on last changed (`docs/invalidation.md`).

use pg_cache_testbed::{Cluster, Conf, Database};
use postgres::Client;
use postgres::error::SqlState;
use std::time::{Duration, Instant};

/// Returns what `cache_check()` reports: damaged structures, and fences that stay raised, for instance by a commit that waits. It
/// does not report keys that a commit has announced as changed. Empty if it finds nothing.
///
/// A session or a worker that gets no processor in the middle of its commit keeps its fences raised. So if only raised fences are
/// found, the check is repeated for some seconds.
pub fn findings(session: &mut Client) -> Vec<String> {
    let began = Instant::now();
    loop {
        let rows = session.query("SELECT cache_check()", &[]).expect("it can be checked");
        let found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let are_raised = found.iter().all(|finding| finding.ends_with("fences are raised"));
        if found.is_empty() || !are_raised || began.elapsed() > Duration::from_secs(4) {
            return found;
        }
    }
}

/// Starts a cluster for one test, with the extension installed.
pub fn cluster(conf: &Conf) -> Cluster {
    let cluster = Cluster::start(conf);
    cluster.connect("postgres").batch_execute("CREATE EXTENSION pg_cache").expect("it installs");
    cluster
}

/// A new, renamed or changed setting fails here until the list and the README have it. The prefix `pg_cache` is reserved.
#[test]
fn settings_have_units_defaults_and_descriptions() {
    let database = Database::create();
    let mut session = database.connect();
    let rows = session
        .query(
            "SELECT name, CASE WHEN name IN ('pg_cache.min_cost', 'pg_cache.sweep_interval') THEN boot_val ELSE current_setting(name) END,
                    unit, context, short_desc <> '' FROM pg_settings
              WHERE name LIKE 'pg_cache.%' ORDER BY 1",
            &[],
        )
        .expect("settings are a table");
    let found: Vec<(String, String, Option<String>, String, bool)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))).collect();
    let expected = [
        ("pg_cache.bypass", "off", None, "user"),
        ("pg_cache.compress_above", "100kB", Some("kB"), "sighup"),
        ("pg_cache.default_ttl", "5min", Some("ms"), "user"),
        ("pg_cache.enabled", "on", None, "user"),
        ("pg_cache.fence_slots", "1048576", None, "postmaster"),
        ("pg_cache.hot_size", "128MB", Some("kB"), "postmaster"),
        ("pg_cache.journal_size", "8MB", Some("kB"), "postmaster"),
        ("pg_cache.max_result_size", "8MB", Some("kB"), "sighup"),
        ("pg_cache.max_transaction_size", "64MB", Some("kB"), "sighup"),
        ("pg_cache.max_value_size", "8MB", Some("kB"), "sighup"),
        ("pg_cache.max_workers", "2", None, "sighup"),
        // Test clusters have other values of this setting and of sweep_interval. The view has the defaults in milliseconds.
        ("pg_cache.min_cost", "1", Some("ms"), "sighup"),
        ("pg_cache.notify", "on", None, "sighup"),
        ("pg_cache.notify_channel", "pg_cache", None, "sighup"),
        ("pg_cache.observe", "off", None, "superuser"),
        ("pg_cache.redis_ca_file", "", None, "sighup"),
        ("pg_cache.redis_max_ttl", "1h", Some("ms"), "sighup"),
        ("pg_cache.redis_prefix", "pg_cache:", None, "sighup"),
        ("pg_cache.redis_timeout", "500ms", Some("ms"), "sighup"),
        ("pg_cache.save_on_shutdown", "on", None, "sighup"),
        ("pg_cache.save_rate", "20000", None, "sighup"),
        ("pg_cache.sweep_interval", "5000", Some("ms"), "sighup"),
        ("pg_cache.table_entries", "1000000", None, "postmaster"),
        ("pg_cache.table_size", "0", Some("kB"), "sighup"),
        ("pg_cache.track_latency", "64", None, "user"),
        ("pg_cache.verify_rate", "0", None, "superuser"),
        ("pg_cache.wait_timeout", "3s", Some("ms"), "user"),
    ];
    let readme = include_str!("../../README.md");
    for (name, value, ..) in expected {
        let shown = match value {
            "1" => "`1ms`".to_owned(),
            "5000" => "`5s`".to_owned(),
            "" => "empty".to_owned(),
            value => format!("`{value}`"),
        };
        assert!(readme.contains(&format!("| `{name}` | {shown} | ")), "README has nothing of {name}");
    }
    assert_eq!(
        found,
        expected.map(|(name, value, unit, context)| {
            (name.to_owned(), value.to_owned(), unit.map(str::to_owned), context.to_owned(), true)
        })
    );
    let error =
        session.batch_execute("SET pg_cache.no_such_setting = 1").expect_err("there is no such setting");
    assert_eq!(error.code(), Some(&SqlState::INVALID_NAME));
}

/// The settings decide the size of shared memory. Fails if it is less than the memory for entries, or if the other structures take
/// more than 7 MB beside it.
#[test]
fn the_cache_allocates_the_configured_memory() {
    let conf = Conf::preloaded().set("pg_cache.hot_size", "16MB").set("pg_cache.fence_slots", "65536");
    let cluster = cluster(&conf.set("pg_cache.table_entries", "65536").set("pg_cache.journal_size", "1MB"));
    let mut session = cluster.connect("postgres");
    let bytes: i64 = session
        .query_one("SELECT size FROM pg_shmem_allocations WHERE name = 'pg_cache'", &[])
        .expect("it has a name")
        .get(0);
    assert!(
        (16 << 20..23 << 20).contains(&bytes),
        "16 MB for entries and some for what belongs to them: {bytes}"
    );
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// Without memory, calls must raise no error, and must report that they have neither stored nor found nor removed anything.
#[test]
fn a_hot_size_of_zero_switches_the_cache_off() {
    let cluster = cluster(&Conf::preloaded().set("pg_cache.hot_size", "0"));
    let mut session = cluster.connect("postgres");
    assert_eq!(findings(&mut session), Vec::<String>::new());
    let row = session
        .query_one(
            "SELECT cache_set_text('k', 'v', tags => '{t}'), cache_get_text('k'), cache_delete('k'), cache_exists('k'),
                    cache_ttl('k') IS NULL, cache_touch('k', '1 s'), cache_invalidate_tag('t') IS NULL, cache_flush('*') IS NULL",
            &[],
        )
        .expect("nothing is an error");
    assert_eq!(row.get::<_, Option<String>>(1), None);
    for (column, expected) in [(0, false), (2, false), (3, false), (4, true), (5, false)] {
        assert_eq!(row.get::<_, bool>(column), expected, "column {column}");
    }
}

/// A killed session may have left anything in shared memory. So the postmaster ends all sessions and initializes the memory again.
/// The cache must then be empty, and must store new values.
#[test]
fn the_cache_works_again_after_a_session_was_killed() {
    let cluster = cluster(&Conf::preloaded().set("pg_cache.hot_size", "16MB"));
    let mut victim = cluster.connect("postgres");
    victim.execute("SELECT cache_set_text('k', 'v')", &[]).expect("it is stored");
    victim
        .batch_execute("BEGIN; SELECT cache_set_text('k', 'w'), cache_invalidate_tag('t')")
        .expect("it begins");
    let process: i32 = victim.query_one("SELECT pg_backend_pid()", &[]).expect("it lives").get(0);
    cluster.crash(process);
    let mut session = cluster.connect("postgres");
    let found: Option<String> =
        session.query_one("SELECT cache_get_text('k')", &[]).expect("it works").get(0);
    assert_eq!(found, None, "the memory was made anew");
    session.execute("SELECT cache_set_text('k', 'new')", &[]).expect("it is stored");
    let found: Option<String> =
        session.query_one("SELECT cache_get_text('k')", &[]).expect("it works").get(0);
    assert_eq!(found.as_deref(), Some("new"));
    assert_eq!(findings(&mut session), Vec::<String>::new());
}
