//! Tests of the workers of several databases: a database without work has no worker, and a database for which the server has no
//! tables left keeps its values in memory. A *worker* is the background process that saves the values of a database.
//!
//! Many tests end with a check of shared memory: `findings` returns what `cache_check()` reports, and must be empty.

use crate::memory::{cluster, findings};
use crate::table_faults::{connect, end_worker, health};
use crate::tables::{conf, one, save, size, status_of, wait_saved, with_tables};
use pg_cache_testbed::wait_until;

/// A worker ends when nothing is stored for some time. Values that expire later must leave the disk all the same.
#[test]
fn expired_values_leave_the_disk_without_a_worker() {
    let cluster = with_tables("8MB");
    let mut session = connect(&cluster, "postgres");
    // A worker that ended before the extension was there starts again after five seconds. On a slow machine, the value may expire
    // before it is saved, and is then set again.
    let set = "SELECT cache_set_text('key', 'value', '8 s')";
    wait_until("the value to be saved", || {
        assert!(one::<bool>(&mut session, "SELECT cache_exists('key')") || one::<bool>(&mut session, set));
        size(&mut session) > 0
    });
    end_worker(&mut session, "postgres");
    wait_until("the table to be emptied", || size(&mut session) == 0);
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// The saved values of a dropped database no longer count. Fails if `cache_usage` still shows their bytes.
#[test]
fn a_dropped_database_gives_its_space_back() {
    let cluster = with_tables("8MB");
    let mut owner = cluster.connect("postgres");
    owner.batch_execute("CREATE DATABASE other").expect("a database");
    save(&mut connect(&cluster, "other"), "key", "value");
    let used = "SELECT used FROM cache_usage WHERE resource = 'saved bytes' AND database IS NULL";
    owner.batch_execute("CREATE EXTENSION IF NOT EXISTS pg_cache").expect("it installs");
    assert!(one::<i64>(&mut owner, used) > 0);
    end_worker(&mut owner, "other");
    owner.batch_execute("DROP DATABASE other").expect("it is dropped");
    wait_until("the space to be free", || one::<i64>(&mut owner, used) == 0);
}

/// The number of databases for whose tables shared memory has records: it has 1024 records (`SEGMENTS_MAX` in
/// `src/core/location.rs`), and each database takes eight (`SEGMENTS` in `src/store/table/saver/mod.rs`).
const SAVING: usize = 128;
/// The number of workers that may run at once, and so of databases whose values are saved together.
const WORKERS: usize = 16;

/// Shared memory has records for the tables of 128 databases. Only `make test-long` creates so many.
#[test]
fn a_database_for_which_no_tables_are_left_keeps_its_values_in_memory() {
    if !std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty()) {
        return;
    }
    let conf =
        conf("64MB").set("pg_cache.max_workers", &WORKERS.to_string()).set("max_worker_processes", "40");
    let cluster = cluster(&conf);
    let mut owner = cluster.connect("postgres");
    owner.batch_execute("CREATE DATABASE pattern").expect("a database");
    drop(connect(&cluster, "pattern"));
    let create = |owner: &mut postgres::Client, number: usize| {
        let create = format!("CREATE DATABASE d{number} TEMPLATE pattern STRATEGY file_copy");
        owner.batch_execute(&create).expect("a database");
    };
    for first in (0..SAVING).step_by(WORKERS) {
        let databases = first..(first + WORKERS).min(SAVING);
        let mut sessions = Vec::new();
        for number in databases.clone() {
            create(&mut owner, number);
            let mut session = cluster.connect(&format!("d{number}"));
            let set = format!("SELECT cache_set_text('key', 'd{number}', '1 hour')");
            assert!(one::<bool>(&mut session, &set));
            sessions.push(session);
        }
        sessions.iter_mut().for_each(|session| wait_saved(session, "key"));
        databases.for_each(|number| end_worker(&mut owner, &format!("d{number}")));
    }
    assert_eq!(health(&mut owner), Vec::<String>::new());
    create(&mut owner, SAVING);
    let mut last = cluster.connect(&format!("d{SAVING}"));
    assert!(one::<bool>(&mut last, "SELECT cache_set_text('key', 'last', '1 hour')"));
    wait_until("the finding", || health(&mut owner) == ["too many databases save values in tables"]);
    // The databases that have tables go on, and no read fails.
    for number in 0..SAVING {
        let mut session = cluster.connect(&format!("d{number}"));
        assert_eq!(status_of(&mut session, "key").0, Some(format!("d{number}")));
        if number % 40 == 0 {
            save(&mut session, "other", "value");
        }
    }
    let in_memory = (Some("last".to_owned()), Some("hot".to_owned()));
    assert_eq!(status_of(&mut last, "key"), in_memory);
    let workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_cache worker' AND datname = current_database()";
    assert_eq!(one::<i64>(&mut last, workers), 0, "a worker that cannot save anything");
    // A database that is dropped gives its tables to the other one.
    owner.batch_execute("DROP DATABASE d7").expect("it is dropped");
    save(&mut last, "other", "value");
    wait_until("no finding", || health(&mut owner).is_empty());
    assert_eq!(findings(&mut owner), Vec::<String>::new());
}
