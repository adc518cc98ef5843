//! Tests of the table tier (`docs/tables.md`): values that left the memory are found in tables, no change of a key brings an old
//! value back, and nothing that a DBA does to the tables, to databases or to the workers causes an error or a wrong value.
//!
//! The tests wait until the background worker has saved values, so each of them has a cluster of its own, with a small memory tier.
//!
//! A *segment* is one of the eight tables `pgcache.segment_1` to `pgcache.segment_8` of a database. A *location* is an entry in
//! shared memory that says where in the segments the value of a key is. The *launcher* is a background worker that starts a
//! *worker* for each database that has values to save or notifications to send. The *saver* is the part of a worker that saves. The
//! *table tier* saves values in tables before they leave the memory.
//!
//! Many tests end with a check of shared memory: `findings` returns what `cache_check()` reports, and must be empty.

use crate::memory::{cluster, findings};
use pg_cache_testbed::{Cluster, Conf, Stop, wait_at_most, wait_until};
use postgres::Client;
use std::time::{Duration, Instant};

/// Starts a cluster with the least memory and with a table tier of this size.
pub fn with_tables(table_size: &str) -> Cluster {
    cluster(&conf(table_size))
}

/// Returns the settings of a cluster with a table tier of this size. The sweep interval is short, so that the launcher soon
/// starts a worker.
pub fn conf(table_size: &str) -> Conf {
    Conf::preloaded()
        .set("pg_cache.hot_size", "1MB")
        .set("pg_cache.table_size", table_size)
        .set("pg_cache.sweep_interval", "500ms")
}

/// Returns the first column of the single row that a query returns.
pub fn one<T: for<'a> postgres::types::FromSql<'a>>(session: &mut Client, query: &str) -> T {
    session.query_one(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
}

/// Makes the default space keep its values in tables only: an entry leaves the memory as soon as it is saved.
pub fn only_tables(session: &mut Client) {
    let command = "INSERT INTO pgcache.spaces (number, name, tiers) VALUES (0, 'default', 'table')
                   ON CONFLICT (number) DO UPDATE SET tiers = 'table'";
    session.batch_execute(command).expect("the space is altered");
}

/// Waits until a key is served from a table.
pub fn wait_saved(session: &mut Client, key: &str) {
    wait_until("the value to be saved", || status_of(session, key).1.as_deref() == Some("hit: table"));
}

/// Returns the value of a key, and the status of the read.
pub fn status_of(session: &mut Client, key: &str) -> (Option<String>, Option<String>) {
    let value = one(session, &format!("SELECT cache_get_text('{key}')"));
    (value, one(session, "SELECT cache_status()"))
}

/// Sets a key and waits until its value is in a table only.
pub fn save(session: &mut Client, key: &str, value: &str) {
    assert!(one::<bool>(session, &format!("SELECT cache_set_text('{key}', '{value}', '1 hour', '{{tag}}')")));
    wait_saved(session, key);
}

/// More values are set than the memory has room for. All must be there, because the worker saves them before they are evicted.
#[test]
fn values_outlive_their_eviction() {
    let cluster = with_tables("64MB");
    let mut session = cluster.connect("postgres");
    let set = "SELECT count(cache_set_text('k' || i, repeat('v', 200) || i, '1 hour'))
               FROM generate_series($1::int, $1 + 99) AS i";
    // The memory has room for about three thousand of these values, and evicts new ones after some hundred others.
    for from in (0..6_000).step_by(100) {
        session.query(set, &[&from]).expect("values are set");
        wait_until("the values to be saved", || rows(&mut session) >= i64::from(from) + 100);
    }
    let right = "SELECT count(*) FROM generate_series(0, 5999) AS i
                 WHERE cache_get_text('k' || i) = repeat('v', 200) || i";
    assert_eq!(one::<i64>(&mut session, right), 6_000);
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// Returns the number of rows in all segments.
fn rows(session: &mut Client) -> i64 {
    let counts: Vec<_> =
        (1..=8).map(|number| format!("(SELECT count(*) FROM pgcache.segment_{number})")).collect();
    one(session, &format!("SELECT {}", counts.join(" + ")))
}

/// A row must fit into a block of 8192 bytes, so the smallest value takes one row, and the large ones take many.
#[test]
fn a_large_value_comes_back_whole() {
    let cluster = cluster(&conf("64MB").set("pg_cache.hot_size", "16MB"));
    let mut session = cluster.connect("postgres");
    only_tables(&mut session);
    for bytes in [7_000, 8_000, 100_000, 1_900_000] {
        let value =
            format!("(SELECT string_agg(md5(i::text), '') FROM generate_series(1, {}) AS i)", bytes / 32);
        assert!(one::<bool>(&mut session, &format!("SELECT cache_set_text('large', {value}, '1 hour')")));
        wait_until("the value to be saved", || {
            assert!(
                one::<bool>(&mut session, &format!("SELECT cache_get_text('large') = {value}")),
                "{bytes}"
            );
            one::<Option<String>>(&mut session, "SELECT cache_status()").as_deref() == Some("hit: table")
        });
    }
}

/// Each change of a key whose value is only in a table must be seen by the next read.
#[test]
fn no_change_of_a_key_brings_a_saved_value_back() {
    let cluster = with_tables("64MB");
    let mut session = cluster.connect("postgres");
    only_tables(&mut session);
    session.batch_execute("CREATE TABLE pages (id int); INSERT INTO pages VALUES (1)").expect("a table");
    for (change, expected) in [
        ("SELECT cache_set_text('key', 'new', '1 hour')", Some("new")),
        ("SELECT cache_delete('key')", None),
        ("SELECT cache_touch('key', '100 ms'); SELECT pg_sleep(0.2)", None),
        ("SELECT cache_invalidate_tag('tag')", None),
        ("SELECT cache_flush()", None),
        ("SELECT cache_flush('*')", None),
        ("BEGIN; SELECT cache_set_text('key', 'new', '1 hour'); ROLLBACK", Some("old")),
        ("BEGIN; SELECT cache_delete('key'); ROLLBACK", Some("old")),
        // COMMIT PREPARED removes the key, because the value of a prepared transaction is not kept.
        (
            "BEGIN; SELECT cache_set_text('key', 'new', '1 hour'); PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'",
            None,
        ),
        ("SELECT cache_set_text('key', 'new', '1 hour', mode => 'absent')", Some("old")),
        ("SELECT cache_set_text('key', 'new', '1 hour', mode => 'present')", Some("new")),
    ] {
        save(&mut session, "key", "old");
        for command in change.split("; ") {
            session.batch_execute(command).expect(command);
        }
        let found = status_of(&mut session, "key");
        assert_eq!(found.0.as_deref(), expected, "{change}: {found:?}");
        assert_eq!(findings(&mut session), Vec::<String>::new(), "{change}");
    }
}

/// Calls that ask whether a key has a value must find one that is only in a table.
#[test]
fn a_saved_value_counts_where_the_key_must_have_none() {
    let cluster = with_tables("64MB");
    let mut session = cluster.connect("postgres");
    only_tables(&mut session);
    save(&mut session, "key", "41");
    assert!(!one::<bool>(&mut session, "SELECT cache_set_text('key', 'x', '1 hour', mode => 'absent')"));
    save(&mut session, "key", "41");
    assert!(one::<bool>(&mut session, "SELECT cache_exists('key')"));
    assert_eq!(one::<i64>(&mut session, "SELECT cache_incr('key')"), 42);
    save(&mut session, "key", "43");
    let row = session.query_one("SELECT value, status FROM cache_acquire_text('key')", &[]).expect("a row");
    assert_eq!(
        row.get::<_, Option<String>>(0).as_deref(),
        Some("43"),
        "{:?}",
        row.get::<_, Option<String>>(1)
    );
    save(&mut session, "key", "44");
    assert!(one::<bool>(&mut session, "SELECT cache_delete('key')"));
    assert!(!one::<bool>(&mut session, "SELECT cache_exists('key')"));
}

/// A result of a query is saved with its dependencies, so a write to its table must make the saved result a miss.
#[test]
fn a_saved_result_is_invalid_after_a_write_to_its_table() {
    let cluster = with_tables("64MB");
    let mut session = cluster.connect("postgres");
    only_tables(&mut session);
    session.batch_execute("CREATE TABLE pages (id int); INSERT INTO pages VALUES (1)").expect("a table");
    let fetch = "SELECT (cache_fetch('sum', 'SELECT sum(id) FROM pages')#>>'{}')::bigint";
    for expected in 1..5_i64 {
        wait_until("the result to be saved", || {
            assert_eq!(one::<i64>(&mut session, fetch), (1..=expected).sum::<i64>());
            one::<Option<String>>(&mut session, "SELECT cache_status()").as_deref() == Some("hit: table")
        });
        let mut other = cluster.connect("postgres");
        other.execute("INSERT INTO pages VALUES ($1)", &[&(expected as i32 + 1)]).expect("a write");
    }
}

/// Returns the bytes of all segments.
pub fn size(session: &mut Client) -> i64 {
    one(session, "SELECT sum(pg_relation_size(oid))::bigint FROM pg_class WHERE relname LIKE 'segment\\_%'")
}

/// Returns whether `make test-long` runs the tests.
fn is_long() -> bool {
    std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty())
}

/// A snapshot that stays open must not make the tables grow beyond `pg_cache.table_size`. One segment more, an eighth, is
/// tolerated. The long run sets new keys for a minute, about 5000 per second.
#[test]
fn the_tables_stay_within_their_size_while_a_snapshot_is_open() {
    let cluster = with_tables("4MB");
    let mut session = cluster.connect("postgres");
    let mut old = cluster.connect("postgres");
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT cache_get_text('k1')")
        .expect("a snapshot");
    let set = "SELECT count(*) FILTER (WHERE cache_set_text('k' || i, repeat('v', 300) || i, '1 hour')) FROM generate_series($1::int, $1 + 499) AS i";
    let (mut most, mut begun, mut rounds) = (0, 0, 0);
    // Three times the size is set at least, and more until the workers have come to the fifth segment.
    let began = Instant::now();
    let least = Duration::from_secs(if is_long() { 60 } else { 0 });
    wait_at_most(600, "the workers to come to the fifth segment", || {
        let stored: i64 = session.query_one(set, &[&(rounds * 500)]).expect("values are set").get(0);
        assert_eq!(stored, 500, "a set has failed");
        most = most.max(size(&mut session));
        std::thread::sleep(Duration::from_millis(60));
        begun = begun.max(one::<i64>(
            &mut session,
            "SELECT count(*) FROM pg_class WHERE relname LIKE 'segment\\_%' AND pg_relation_size(oid) > 0",
        ));
        rounds += 1;
        rounds >= 80 && begun > 4 && began.elapsed() >= least
    });
    assert!(most <= (4 << 20) + (4 << 20) / 8, "{most} bytes");
    let dead: i64 = one(
        &mut session,
        "SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_all_tables WHERE relname LIKE 'segment\\_%'",
    );
    assert_eq!(dead, 0);
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// A superuser may do anything to the tables: reads return the right value or none, and never an error.
#[test]
fn reads_survive_any_change_of_the_tables() {
    let cluster = with_tables("8MB");
    let mut session = cluster.connect("postgres");
    only_tables(&mut session);
    let all = |command: &str| {
        (1..=8).map(|number| command.replace('#', &number.to_string())).collect::<Vec<_>>().join("; ")
    };
    for command in [
        all("TRUNCATE pgcache.segment_#"),
        all("VACUUM FULL pgcache.segment_#"),
        all("DELETE FROM pgcache.segment_#"),
        all("UPDATE pgcache.segment_# SET value = 'x'"),
        // A row with the columns of `sql/segments.sql`, and with a value that no session has set.
        all(
            "INSERT INTO pgcache.segment_# SELECT 2, 2, 0, 0, 0, 1, 0, 0, 1, 2000000000, 0, 0, 5, 0, 7, 'key', '', 'wrong'",
        ),
        all("ALTER TABLE pgcache.segment_# ADD COLUMN more int"),
        all("ALTER TABLE pgcache.segment_# DROP COLUMN more"),
        all("ALTER TABLE pgcache.segment_# SET LOGGED"),
    ] {
        for key in 0..20 {
            one::<bool>(&mut session, &format!("SELECT cache_set_text('key{key}', 'value{key}', '1 hour')"));
        }
        // Nothing is saved in a table that has, or has had, another column.
        if !command.contains("SET LOGGED") && !command.contains("COLUMN") {
            wait_saved(&mut session, "key7");
        }
        for one in command.split("; ") {
            session.batch_execute(one).unwrap_or_else(|error| panic!("{one}: {error:?}"));
        }
        for key in 0..20 {
            let (value, status) = status_of(&mut session, &format!("key{key}"));
            let right = format!("value{key}");
            assert!(value.is_none() || value.as_ref() == Some(&right), "{command}: {value:?}, {status:?}");
        }
        assert_eq!(findings(&mut session), Vec::<String>::new(), "{command}");
    }
}

/// A session that holds a lock on all segments for long delays neither reads nor sets. A read that waited would end in an error
/// after 30 seconds.
#[test]
fn a_locked_segment_is_a_miss_and_no_session_waits() {
    let cluster = with_tables("8MB");
    let mut session = cluster.connect("postgres");
    only_tables(&mut session);
    save(&mut session, "key", "value");
    let mut owner = cluster.connect("postgres");
    owner.batch_execute("BEGIN").expect("a transaction");
    for number in 1..=8 {
        owner.batch_execute(&format!("LOCK TABLE pgcache.segment_{number}")).expect("a lock");
    }
    session.batch_execute("SET statement_timeout = '30s'").expect("a limit");
    assert_eq!(status_of(&mut session, "key"), (None, Some("miss: not there".to_owned())));
    assert!(one::<bool>(&mut session, "SELECT cache_set_text('other', 'value', '1 hour')"));
    assert_eq!(status_of(&mut session, "other").0.as_deref(), Some("value"));
    owner.batch_execute("ROLLBACK").expect("the locks are released");
    wait_saved(&mut session, "other");
}

/// The server refuses to drop, rename or copy a database while another process is connected to it. So the worker must leave the
/// database when a session runs such a command. Otherwise, the command fails.
#[test]
fn workers_leave_a_database_that_is_dropped_or_copied() {
    let cluster = with_tables("8MB");
    let mut session = cluster.connect("postgres");
    for round in 0..3 {
        session.batch_execute("CREATE DATABASE busy").expect("a database");
        let mut busy = cluster.connect("busy");
        busy.batch_execute("CREATE EXTENSION pg_cache").expect("it installs");
        only_tables(&mut busy);
        save(&mut busy, "key", "value");
        drop(busy);
        wait_until("the session's end", || {
            one::<i64>(
                &mut session,
                "SELECT count(*) FROM pg_stat_activity WHERE datname = 'busy' AND backend_type = 'client backend'",
            ) == 0
        });
        session.batch_execute("CREATE DATABASE copied TEMPLATE busy").expect("the worker has left");
        let mut copied = cluster.connect("copied");
        assert_eq!(status_of(&mut copied, "key").0, None, "round {round}: the copy has no entry in memory");
        drop(copied);
        wait_until("the session's end", || {
            one::<i64>(
                &mut session,
                "SELECT count(*) FROM pg_stat_activity WHERE datname = 'copied' AND backend_type = 'client backend'",
            ) == 0
        });
        session.batch_execute("ALTER DATABASE copied RENAME TO renamed").expect("the worker has left");
        session.batch_execute("DROP DATABASE renamed").expect("the worker has left");
        session.batch_execute("DROP DATABASE busy").expect("the worker has left");
    }
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// The tables are dropped while their worker runs. A read must then return the right value or none.
#[test]
fn the_extension_can_be_dropped_and_created_again_while_values_are_saved() {
    let cluster = with_tables("8MB");
    let mut session = cluster.connect("postgres");
    for round in 0..3 {
        only_tables(&mut session);
        save(&mut session, "key", "value");
        session
            .batch_execute("DROP EXTENSION pg_cache; CREATE EXTENSION pg_cache")
            .expect("it is created again");
        let (value, status) = status_of(&mut session, "key");
        assert!(value.is_none() || value.as_deref() == Some("value"), "round {round}: {value:?} {status:?}");
    }
}

/// Returns the process IDs of the launcher and of all workers.
fn workers(session: &mut Client) -> Vec<i32> {
    let query = "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pg_cache%' ORDER BY pid";
    session.query(query, &[]).expect("a view").iter().map(|row| row.get(0)).collect()
}

/// A terminated launcher or worker is replaced by another process, and loses no saved value. Neither may delay a fast shutdown.
#[test]
fn terminated_workers_come_back_and_a_fast_shutdown_is_fast() {
    let cluster = with_tables("8MB");
    let mut session = cluster.connect("postgres");
    only_tables(&mut session);
    save(&mut session, "one", "value");
    // After the start of the server, a worker also visits the other databases.
    let mut before = Vec::new();
    wait_until("the launcher and a worker only", || {
        before = workers(&mut session);
        before.len() == 2 && savers(&mut session) == 1
    });
    session
        .batch_execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'pg_cache%'",
        )
        .expect("they end");
    assert!(one::<bool>(&mut session, "SELECT cache_set_text('two', 'value', '1 hour')"));
    wait_saved(&mut session, "two");
    assert_eq!(status_of(&mut session, "one").0.as_deref(), Some("value"), "nothing is lost");
    wait_until("the end of both", || workers(&mut session).iter().all(|pid| !before.contains(pid)));
    drop(session);
    // A worker that did not notice the shutdown would go on for a minute after it has saved the last value.
    let began = Instant::now();
    cluster.stop(Stop::Fast);
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    cluster.resume();
}

/// After a crash both places are empty, and the locations of the tables' old rows lead nowhere.
#[test]
fn a_crash_empties_both_places() {
    let cluster = with_tables("8MB");
    for victim in ["pg_cache worker", "pg_cache launcher", "client backend"] {
        let mut session = cluster.connect("postgres");
        only_tables(&mut session);
        save(&mut session, "key", "value");
        // Another worker may just visit another database, and an earlier session may just end.
        let query = format!(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = '{victim}' AND coalesce(datname, 'postgres') = 'postgres'
                 AND (pid = pg_backend_pid() OR backend_type <> 'client backend')"
        );
        cluster.crash(one(&mut session, &query));
        let mut session = cluster.connect("postgres");
        assert_eq!(status_of(&mut session, "key").0, None, "{victim}");
        save(&mut session, "key", "again");
        assert_eq!(status_of(&mut session, "key").0.as_deref(), Some("again"), "{victim}");
        assert_eq!(findings(&mut session), Vec::<String>::new(), "{victim}");
    }
}

/// With `pg_cache.table_size = 0`, saved values are misses, and new values are in memory only.
#[test]
fn switching_the_tier_off_empties_the_tables() {
    let cluster = with_tables("8MB");
    let mut session = cluster.connect("postgres");
    only_tables(&mut session);
    save(&mut session, "key", "value");
    session.batch_execute("ALTER SYSTEM SET pg_cache.table_size = 0").expect("a setting");
    session.batch_execute("SELECT pg_reload_conf()").expect("a reload");
    wait_until("the tables to be empty", || size(&mut session) == 0);
    assert_eq!(status_of(&mut session, "key").0, None);
    assert!(one::<bool>(&mut session, "SELECT cache_set_text('key', 'value', '1 hour')"));
    assert_eq!(status_of(&mut session, "key"), (Some("value".to_owned()), Some("hot".to_owned())));
}

/// 32 sessions work with the same keys, half of them in long transactions, while segments are switched and a DBA reads a table and
/// the view of all entries in a transaction. No session may wait for a lock on a relation because of that. The server logs each
/// wait of more than 10 ms.
#[test]
fn no_session_waits_while_segments_switch() {
    let cluster = cluster(
        &conf("2MB").set("log_lock_waits", "on").set("deadlock_timeout", "10ms").set("max_connections", "60"),
    );
    let mut dba = cluster.connect("postgres");
    // The worker may just be emptying the table, so this read may wait.
    dba.batch_execute("BEGIN; SELECT count(*) FROM pgcache.segment_1").expect("a look");
    let logged = cluster.log().len();
    let until = Instant::now() + Duration::from_secs(if is_long() { 60 } else { 5 });
    std::thread::scope(|scope| {
        for number in 0..32_u32 {
            let cluster = &cluster;
            scope.spawn(move || {
                let mut session = cluster.connect("postgres");
                let mut round = number;
                while Instant::now() < until {
                    round += 1;
                    let key = round.wrapping_mul(7919) % 100;
                    let work = format!(
                        "SELECT cache_set_text('k{key}', repeat('v', 700) || '{key}', '1 hour'); SELECT cache_get_text('k{}')",
                        key + 1
                    );
                    let work = match number % 2 {
                        0 => work,
                        _ => format!("BEGIN; {work}; SELECT pg_sleep(0.05); COMMIT"),
                    };
                    session.batch_execute(&work).expect("it works");
                }
            });
        }
        while Instant::now() < until {
            let entries: i64 = one(&mut dba, "SELECT count(*) FROM cache_entries");
            assert!(entries <= 100, "{entries} entries of 100 keys");
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    dba.batch_execute("ROLLBACK").expect("the look ends");
    let log = cluster.log().split_off(logged);
    let waits: Vec<_> = log.lines().filter(|line| line.contains("still waiting for")).collect();
    assert!(
        waits.iter().all(|line| !line.contains("AccessShareLock") && !line.contains("relation")),
        "{waits:#?}"
    );
    assert!(!log.contains("deadlock detected"), "{log}");
    assert_eq!(findings(&mut dba), Vec::<String>::new());
}

/// A clean restart keeps both places. Invalidations from before the stop still count.
#[test]
fn saved_values_survive_a_clean_restart() {
    let cluster = with_tables("8MB");
    let mut session = cluster.connect("postgres");
    only_tables(&mut session);
    for key in ["kept", "removed", "replaced"] {
        save(&mut session, key, "value");
    }
    session.batch_execute("SELECT cache_delete('removed')").expect("it is removed");
    session.batch_execute("SELECT cache_set_text('replaced', 'new', '1 hour')").expect("it is replaced");
    drop(session);
    cluster.stop(Stop::Fast);
    cluster.resume();
    let mut session = cluster.connect("postgres");
    // A worker may just copy the value to another table and empty this one. Until it has done so, the read is a miss.
    let kept = (Some("value".to_owned()), Some("hit: table".to_owned()));
    wait_until("the kept value", || status_of(&mut session, "kept") == kept);
    assert_eq!(status_of(&mut session, "removed").0, None);
    assert_eq!(status_of(&mut session, "replaced").0.as_deref(), Some("new"));
    save(&mut session, "another", "value");
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// A touch brings a saved value back into memory first. It may lose one that the worker saves again before the commit, so a fifth
/// of the values may be lost. On a machine with much else to do, chance decides about the first ten, so more values may follow.
#[test]
fn a_touch_keeps_a_saved_value() {
    let cluster = with_tables("8MB");
    let mut session = cluster.connect("postgres");
    only_tables(&mut session);
    let (mut kept, mut touched) = (0, 0);
    while touched < 10 || kept * 5 < touched * 4 {
        assert!(touched < 100, "{kept} of {touched} values are left");
        let key = format!("key{touched}");
        save(&mut session, &key, "value");
        assert!(one::<bool>(&mut session, &format!("SELECT cache_touch('{key}', '2 hours')")));
        kept += i32::from(status_of(&mut session, &key).0.as_deref() == Some("value"));
        touched += 1;
    }
}

/// Returns the number of workers of the database `postgres`, without the launcher.
fn savers(session: &mut Client) -> i64 {
    one(
        session,
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_cache worker' AND datname = 'postgres'",
    )
}

/// A new launcher does not know the workers of the previous one, but it must not start a second one for a database: two savers
/// could add a location for an old value.
#[test]
fn a_new_launcher_starts_no_second_worker_for_a_database() {
    let cluster = with_tables("8MB");
    let mut session = cluster.connect("postgres");
    only_tables(&mut session);
    save(&mut session, "one", "value");
    let launcher = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_cache launcher'";
    let before: i32 = one(&mut session, launcher);
    session.batch_execute(&format!("SELECT pg_terminate_backend({before})")).expect("it ends");
    wait_until("a new launcher", || {
        assert!(savers(&mut session) <= 1);
        session.query(launcher, &[]).expect("a view").iter().any(|row| row.get::<_, i32>(0) != before)
    });
    for round in 0..100 {
        session
            .batch_execute(&format!("SELECT cache_set_text('key{round}', 'value', '1 hour')"))
            .expect("it is set");
        assert!(savers(&mut session) <= 1, "two workers save the values of one database");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The bytes of tables that were dropped while no worker ran must not count any more.
#[test]
fn dropping_the_extension_without_a_worker_frees_its_space() {
    let cluster = with_tables("8MB");
    let mut session = cluster.connect("postgres");
    only_tables(&mut session);
    save(&mut session, "one", "value");
    // The server refuses `ALTER SYSTEM` among several statements, and then each statement gets a message of its own.
    session
        .batch_execute("ALTER SYSTEM SET pg_cache.max_workers = 0; SELECT pg_reload_conf()")
        .unwrap_or_else(|_| {
            session.batch_execute("ALTER SYSTEM SET pg_cache.max_workers = 0").expect("a setting");
            session.batch_execute("SELECT pg_reload_conf()").expect("a reload");
        });
    session
        .batch_execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_cache worker'",
        )
        .expect("it ends");
    wait_until("the worker's end", || savers(&mut session) == 0);
    session.batch_execute("DROP EXTENSION pg_cache; CREATE EXTENSION pg_cache").expect("it is created again");
    let used = "SELECT coalesce(sum(used), 0)::bigint FROM cache_usage WHERE resource = 'saved bytes' AND database IS NULL";
    session.batch_execute("ALTER SYSTEM RESET pg_cache.max_workers").expect("a setting");
    session.batch_execute("SELECT pg_reload_conf()").expect("a reload");
    only_tables(&mut session);
    save(&mut session, "two", "value");
    wait_until("the space of the dropped tables to be free", || {
        one::<i64>(&mut session, used) == size(&mut session)
    });
}

/// After DROP EXTENSION, another role may create a schema with the name and the tables of the extension. It must not get the values
/// that were in memory. The drop makes them invalid, and the worker writes only to tables of the extension.
#[test]
fn a_schema_of_another_role_gets_no_values() {
    let cluster = cluster(&conf("8MB").set("log_min_messages", "debug1"));
    let mut session = cluster.connect("postgres");
    only_tables(&mut session);
    save(&mut session, "one", "value");
    session
        .batch_execute("SELECT cache_set_text('two', 'secret'); DROP EXTENSION pg_cache")
        .expect("it is gone");
    session
        .batch_execute("CREATE ROLE mallory; GRANT CREATE ON DATABASE postgres TO mallory; SET ROLE mallory; CREATE SCHEMA pgcache")
        .expect("any role with the privilege may do that");
    session.batch_execute(include_str!("../../sql/segments.sql")).expect("tables like the extension's");
    drop(session);
    let ends = || cluster.log().matches("unregistering background worker \"pg_cache worker\"").count();
    // A new launcher starts a worker for each database.
    cluster.stop(Stop::Fast);
    let before = ends();
    cluster.resume();
    let mut session = cluster.connect("postgres");
    let rows = |session: &mut Client| -> i64 {
        let count = |number| format!("(SELECT count(*) FROM pgcache.segment_{number})");
        let counts: Vec<String> = (1..=8).map(count).collect();
        one(session, &format!("SELECT {}", counts.join(" + ")))
    };
    wait_until("the end of the worker", || ends() > before || rows(&mut session) > 0);
    assert_eq!(rows(&mut session), 0, "the values of all roles are in another role's tables");
}

/// Only a role that may run such a command may make the worker leave. Otherwise, any role could stop the workers of all
/// databases.
#[test]
fn a_command_that_a_role_may_not_run_stops_no_worker() {
    let cluster = with_tables("8MB");
    let mut session = cluster.connect("postgres");
    only_tables(&mut session);
    save(&mut session, "key", "value");
    let worker =
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_cache worker' AND datname = 'postgres'";
    let before: i32 = one(&mut session, worker);
    session.batch_execute("CREATE ROLE mallory").expect("a role");
    session.batch_execute("SET ROLE mallory").expect("it is a superuser's session");
    for command in [
        "CREATE DATABASE copied TEMPLATE postgres",
        "DROP DATABASE postgres",
        "ALTER DATABASE postgres RENAME TO other",
        "ALTER DATABASE postgres SET TABLESPACE pg_default",
    ] {
        assert!(session.batch_execute(command).is_err(), "{command}");
    }
    session.batch_execute("RESET ROLE").expect("the role is given back");
    assert_eq!(one::<i32>(&mut session, worker), before, "the worker has left");
}

/// In a space of scope `role`, a role must never get the saved value of another role.
#[test]
fn a_saved_value_belongs_to_its_role() {
    let cluster = with_tables("8MB");
    let mut session = cluster.connect("postgres");
    session
        .batch_execute(
            "SELECT cache_create_space('own', scope => 'role', tiers => 'table');
             CREATE ROLE alice; CREATE ROLE bob;
             SELECT cache_grant('own', role, 'write') FROM unnest('{alice,bob}'::text[]) AS role",
        )
        .expect("a space and two roles");
    let get = "SELECT cache_get_text('key', 'own')";
    for role in ["alice", "bob"] {
        session.batch_execute(&format!("SET ROLE {role}")).expect("a role");
        assert_eq!(one::<Option<String>>(&mut session, get), None, "{role} gets the value of another role");
        let set = format!("SELECT cache_set_text('key', '{role}', '1 hour', space => 'own')");
        assert!(one::<bool>(&mut session, &set));
        wait_until("the value to be saved", || {
            assert_eq!(one::<Option<String>>(&mut session, get).as_deref(), Some(role));
            one::<Option<String>>(&mut session, "SELECT cache_status()").as_deref() == Some("hit: table")
        });
    }
    session.batch_execute("SET ROLE alice").expect("a role");
    assert_eq!(one::<Option<String>>(&mut session, get).as_deref(), Some("alice"));
}
