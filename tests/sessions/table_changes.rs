//! Tests of values in tables whose keys change while the table tier is at work, or while it is not: no change may bring an older
//! value back. Also tests of sizes that make no sense, and of commands on all tables of a database.
//!
//! The *table tier* saves values in tables before they leave the memory (`docs/tables.md`). A *segment* is one of the eight tables
//! of saved values of a database. A *location* says in shared memory where in the segments the value of a key is; the *directory*
//! has the locations, up to a fixed number. The *saver* is the part of a database's worker that saves values, and the *launcher* is
//! the process that starts the workers.
//!
//! Many tests end with a check of shared memory: `findings` returns what `cache_check()` reports, and must be empty.

use crate::memory::{cluster, findings};
use crate::table_faults::{connect, health};
use crate::tables::{conf, one, save, size, status_of, wait_saved, with_tables};
use pg_cache_testbed::{Cluster, Stop, wait_at_most, wait_until};
use postgres::Client;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Returns whether `make test-long` runs the tests.
fn is_long() -> bool {
    std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty())
}

/// Allows or forbids workers of databases. `setting` is an `ALTER SYSTEM` command for `pg_cache.max_workers`.
fn set_max_workers(session: &mut Client, setting: &str) {
    session.batch_execute(setting).expect("a setting");
    session.batch_execute("SELECT pg_reload_conf()").expect("a reload");
}

/// Ends the workers of all databases, and keeps the launcher from starting others: five of its steps must pass without one.
fn stop_workers(session: &mut Client) {
    set_max_workers(session, "ALTER SYSTEM SET pg_cache.max_workers = 0");
    let mut steps = BTreeSet::new();
    wait_until("the end of all workers", || {
        let query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'pg_cache worker'";
        if one::<i64>(session, query) > 0 {
            steps.clear();
        }
        steps.insert(one::<String>(
            session,
            "SELECT last_step::text FROM cache_workers WHERE kind = 'launcher'",
        ));
        steps.len() > 5
    });
}

/// Allows workers again.
fn allow_workers(session: &mut Client) {
    set_max_workers(session, "ALTER SYSTEM RESET pg_cache.max_workers");
}

/// Values that are only in tables are changed while no worker runs. The changes must count at once, after the worker is back, and
/// after a clean restart.
#[test]
fn changes_without_a_worker_count() {
    let cluster = with_tables("8MB");
    let mut session = connect(&cluster, "postgres");
    session
        .batch_execute(
            "CREATE TABLE pages AS SELECT 1 AS id; SELECT cache_create_space('flushed', tiers => 'table')",
        )
        .expect("a table");
    let fetch = "SELECT cache_fetch('sum', 'SELECT sum(id) FROM pages') #>> '{}'";
    for key in ["kept", "deleted", "matched:1", "set"] {
        let set = format!("SELECT cache_set_text('{key}', 'old', '1 hour')");
        assert!(one::<bool>(&mut session, &set));
    }
    save(&mut session, "tagged", "old");
    session
        .batch_execute("SELECT cache_set_text('key', 'old', '1 hour', space => 'flushed')")
        .expect("a value");
    ["kept", "deleted", "matched:1", "set"].into_iter().for_each(|key| wait_saved(&mut session, key));
    for read in ["SELECT cache_get_text('key', 'flushed')", fetch] {
        wait_until("the value to be saved", || {
            assert!(one::<Option<String>>(&mut session, read).is_some());
            one::<Option<String>>(&mut session, "SELECT cache_status()").as_deref() == Some("hit: table")
        });
    }
    stop_workers(&mut session);
    for change in [
        "SELECT cache_delete('deleted')",
        "SELECT cache_invalidate_tag('tag')",
        "SELECT cache_invalidate_pattern('matched:*')",
        "SELECT cache_set_text('set', 'new', '1 hour')",
        "SELECT cache_flush('flushed')",
        "UPDATE pages SET id = 2",
    ] {
        session.batch_execute(change).expect(change);
    }
    let check = |session: &mut Client, when: &str| {
        let value = |session: &mut Client, key: &str| status_of(session, key).0;
        // The worker may just copy the value to another table and empty this one. Until then, a read is a miss.
        wait_until("the unchanged value", || value(session, "kept").as_deref() == Some("old"));
        for key in ["deleted", "tagged", "matched:1"] {
            assert_eq!(value(session, key), None, "{when}: {key}");
        }
        assert_eq!(value(session, "set").as_deref(), Some("new"), "{when}");
        let flushed: Option<String> = one(session, "SELECT cache_get_text('key', 'flushed')");
        assert_eq!(flushed, None, "{when}");
        assert_eq!(one::<String>(session, fetch), "2", "{when}");
        assert_eq!(findings(session), Vec::<String>::new(), "{when}");
    };
    check(&mut session, "without a worker");
    allow_workers(&mut session);
    wait_saved(&mut session, "set");
    check(&mut session, "with a worker again");
    drop(session);
    cluster.stop(Stop::Fast);
    cluster.resume();
    check(&mut cluster.connect("postgres"), "after a restart");
}

/// A saved value is set again, and the new value is evicted before it is saved. The old value must not come back, also not when the
/// worker does. Each round begins with the old value in a table.
#[test]
fn a_value_that_is_lost_before_it_is_saved_uncovers_no_older_one() {
    let cluster = with_tables("8MB");
    let mut session = connect(&cluster, "postgres");
    for round in 0..2 {
        let [old, new] = ["old", "new"].map(|name| format!("{name}{round}"));
        save(&mut session, "key", &old);
        stop_workers(&mut session);
        assert!(one::<bool>(&mut session, &format!("SELECT cache_set_text('key', '{new}', '1 hour')")));
        wait_until("the new value to be evicted", || {
            // More bytes than the memory has. A read makes the value stay longer, so there is one after all of them only.
            let push = "SELECT count(cache_set_text('push' || i, repeat('v', 1000))) FROM generate_series(1, 3000) AS i";
            session.batch_execute(push).expect("values are set");
            let found = status_of(&mut session, "key").0;
            assert!(found.is_none() || found.as_ref() == Some(&new), "{found:?}");
            found.is_none()
        });
        allow_workers(&mut session);
        save(&mut session, "other", "value");
        assert_eq!(status_of(&mut session, "key").0, None, "round {round}");
        assert_eq!(findings(&mut session), Vec::<String>::new());
    }
}

/// The number of keys that are set and read all the time.
const HOT: usize = 10;

/// A few keys are set and read all the time, while so many other values are saved that tables are emptied again and again. So the
/// same blocks, rows and locations come back, and the saver copies on what was asked for while it changes. No reader may get a
/// version that was replaced before the read began.
///
/// A value that is read all the time and never set must mostly outlive the table that it is in.
#[test]
fn no_reader_gets_an_older_version_while_tables_are_emptied() {
    let cluster = with_tables("1MB");
    let mut session = connect(&cluster, "postgres");
    save(&mut session, "asked", "value");
    create_set_all(&mut session);
    // The last version of each key whose commit has returned, and the last one that was sent.
    let [committed, sent] = [(); 2].map(|()| (0..HOT).map(|_| AtomicI64::new(0)).collect::<Vec<AtomicI64>>());
    let (over, from_tables) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut lost, mut asked, mut emptied) = (0_i64, 0, 0_i64);
    std::thread::scope(|scope| {
        let (cluster, committed, sent) = (&cluster, &committed, &sent);
        let (over, from_tables) = (&over, &from_tables);
        let _over = Over(over);
        // The writer sets a key many times in a row, so that the blocks of its values come back while it is saved.
        scope.spawn(move || {
            let _over = Over(over);
            let mut session = cluster.connect("postgres");
            let mut number = 1_u64;
            while !over.load(SeqCst) {
                number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (key, count) = ((number >> 33) as usize % HOT, 1 + (number >> 48) as i64 % 200);
                let first = committed[key].load(SeqCst) + 1;
                let last = first + count;
                sent[key].store(last, SeqCst);
                session
                    .batch_execute(&format!("CALL set_all('hot{key}', {first}, {last})"))
                    .expect("it is set");
                committed[key].store(last, SeqCst);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        // Two readers.
        for _ in 0..2 {
            scope.spawn(move || {
                let _over = Over(over);
                let mut session = cluster.connect("postgres");
                for key in (0..HOT).cycle().take_while(|_| !over.load(SeqCst)) {
                    let least = committed[key].load(SeqCst);
                    let (value, status) = status_of(&mut session, &format!("hot{key}"));
                    let most = sent[key].load(SeqCst);
                    if let Some(value) = value {
                        let version: i64 = value.parse().expect("a version");
                        assert!(
                            (least..=most).contains(&version),
                            "{version}, not {least} to {most}: {status:?}"
                        );
                    }
                    from_tables.fetch_add(u64::from(status.as_deref() == Some("hit: table")), SeqCst);
                }
            });
        }
        // Values that fill the tables. A table has room for about 200 of them.
        let wanted = if is_long() { 200 } else { 24 };
        let mut next = 0;
        wait_at_most(600, "the tables to be emptied", || {
            assert!(!over.load(SeqCst), "another thread has failed");
            let set = format!(
                "SELECT count(*) FILTER (WHERE cache_set_text('push' || i, repeat('v', 500), '1 hour'))
                 FROM generate_series({next}, {next} + 19) AS i"
            );
            assert_eq!(one::<i64>(&mut session, &set), 20, "a value is refused");
            next += 20;
            asked += 1;
            if status_of(&mut session, "asked").0.is_none() {
                lost += 1;
                assert!(one::<bool>(&mut session, "SELECT cache_set_text('asked', 'value', '1 hour')"));
            }
            emptied = one(&mut session, "SELECT coalesce(max(freed), 0)::bigint FROM cache_workers");
            emptied >= wanted
        });
    });
    let from_tables = from_tables.load(SeqCst);
    println!("tables: {emptied} emptied, {from_tables} hits in tables, lost {lost} times in {asked} reads");
    assert!(from_tables > 100, "only {from_tables} reads got a value from a table");
    assert!(lost * 2 < emptied, "a value that is asked for is lost with {lost} of {emptied} tables");
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// Creates a procedure that sets the versions `first` to `last` of a key, each in a transaction of its own.
fn create_set_all(session: &mut Client) {
    session
        .batch_execute(
            "CREATE PROCEDURE set_all(key text, first int8, last int8) LANGUAGE plpgsql AS $$ BEGIN
                 FOR version IN first..last LOOP PERFORM cache_set_text(key, version::text, '1 hour'); COMMIT; END LOOP;
             END $$",
        )
        .expect("a procedure");
}

/// The memory is full, so the few blocks that become free are used again within some sets. A key is set many times in a row while
/// it is saved, and read when other values have pushed it out of the memory. Fails if the saver takes an entry for the one that it
/// has copied because it is in the same block.
#[test]
fn a_key_that_is_set_often_in_a_full_memory_has_no_older_copy() {
    const KEYS: usize = 60;
    let cluster = with_tables("16MB");
    let mut session = cluster.connect("postgres");
    create_set_all(&mut session);
    let over = AtomicBool::new(false);
    let (mut last, mut from_tables, mut gone) = ([0_i64; KEYS], 0, 0);
    std::thread::scope(|scope| {
        let (cluster, over) = (&cluster, &over);
        let _over = Over(over);
        scope.spawn(move || {
            let _over = Over(over);
            let mut session = cluster.connect("postgres");
            for next in (0_u64..).step_by(20).take_while(|_| !over.load(SeqCst)) {
                let set = format!(
                    "SELECT count(cache_set_text('push' || i, repeat('v', 300), '1 hour')) FROM generate_series({next}, {next} + 19) AS i"
                );
                session.batch_execute(&set).expect("values are set");
            }
        });
        let (began, time) = (Instant::now(), Duration::from_secs(if is_long() { 120 } else { 10 }));
        for key in (0..KEYS).cycle() {
            let (value, status) = status_of(&mut session, &format!("hot{key}"));
            let right = Some(last[key].to_string());
            assert!(value.is_none() || value == right, "{value:?}, not {right:?}: {status:?}");
            from_tables += i32::from(status.as_deref() == Some("hit: table"));
            gone += i32::from(value.is_none());
            if began.elapsed() > time && from_tables > 50 {
                break;
            }
            assert!(began.elapsed() < 20 * time, "only {from_tables} reads got a value from a table");
            assert!(!over.load(SeqCst), "the other thread has failed");
            let (first, count) = (last[key] + 1, 50 + key as i64);
            last[key] = first + count;
            session
                .batch_execute(&format!("CALL set_all('hot{key}', {first}, {})", last[key]))
                .expect("it is set");
        }
    });
    println!("tables: {} sets, {from_tables} hits in tables, {gone} misses", last.iter().sum::<i64>());
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// Ends all threads of a test when it is dropped, also by a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// A superuser rewrites tables that have several versions of a value, so that rows change their places. All rows have the same
/// size and key, so the location of a row leads to another version afterwards.
#[test]
fn a_rewritten_table_leads_to_no_older_version() {
    let cluster = with_tables("8MB");
    let mut session = connect(&cluster, "postgres");
    for (round, rewrite) in [
        "VACUUM FULL pgcache.segment_#",
        "CREATE INDEX turned ON pgcache.segment_# (item DESC); CLUSTER pgcache.segment_# USING turned; DROP INDEX pgcache.turned",
        "VACUUM FULL pgcache.segment_#",
    ]
    .into_iter()
    .enumerate()
    {
        for version in 1..=5 {
            save(&mut session, "key", &format!("version {version} of round {round}"));
        }
        stop_workers(&mut session);
        for number in 1..=8 {
            for command in rewrite.split("; ") {
                let command = command.replace('#', &number.to_string());
                session.batch_execute(&command).unwrap_or_else(|error| panic!("{command}: {error:?}"));
            }
        }
        for _ in 0..2 {
            let (value, status) = status_of(&mut session, "key");
            let right = format!("version 5 of round {round}");
            assert!(value.is_none() || value.as_ref() == Some(&right), "{rewrite}: {value:?}, {status:?}");
        }
        allow_workers(&mut session);
        assert_eq!(findings(&mut session), Vec::<String>::new());
    }
    save(&mut session, "key", "value");
}

/// Two databases have the same keys, in spaces of the same numbers. Neither may get or lose values by the other's changes.
#[test]
fn databases_with_the_same_keys_have_their_own_saved_values() {
    let cluster = with_tables("8MB");
    let mut one_database = connect(&cluster, "postgres");
    one_database.batch_execute("CREATE DATABASE other").expect("a database");
    let mut other = connect(&cluster, "other");
    let mut sessions = [&mut one_database, &mut other];
    for (number, session) in sessions.iter_mut().enumerate() {
        for key in 0..30 {
            let set = format!("SELECT cache_set_text('k{key}', 'of {number}', '1 hour')");
            assert!(one::<bool>(session, &set));
        }
    }
    for session in &mut sessions {
        (0..30).for_each(|key| wait_saved(session, &format!("k{key}")));
    }
    sessions[0]
        .batch_execute("SELECT cache_delete('k' || i) FROM generate_series(0, 29, 2) AS i")
        .expect("values are deleted");
    for key in 0..30 {
        let name = format!("k{key}");
        let expected = [(key % 2 == 1).then(|| "of 0".to_owned()), Some("of 1".to_owned())];
        assert_eq!([0, 1].map(|number| status_of(sessions[number], &name).0), expected, "{name}");
    }
    sessions[0].batch_execute("SELECT cache_flush('*')").expect("a database is flushed");
    for key in 0..30 {
        let name = format!("k{key}");
        let expected = [None, Some("of 1".to_owned())];
        assert_eq!([0, 1].map(|number| status_of(sessions[number], &name).0), expected, "{name}, flushed");
    }
}

/// A value expires while no worker runs. Its row stays in the table, and no reader may get it.
#[test]
fn expired_values_are_misses_without_a_worker() {
    let cluster = with_tables("8MB");
    let mut session = connect(&cluster, "postgres");
    save(&mut session, "lasting", "value");
    // On a slow machine, the value may expire before it is saved or before the workers have ended. It is then set again.
    let clock = "SELECT extract(epoch FROM clock_timestamp())::float8";
    let (mut is_saved, mut end) = (false, 0.0);
    while !is_saved {
        let set = "SELECT cache_set_text('short', 'value', '10 s')";
        assert!(one::<bool>(&mut session, set));
        end = one::<f64>(&mut session, clock) + 10.0;
        wait_until("the value to be saved or to expire", || {
            let (value, status) = status_of(&mut session, "short");
            value.is_none() || status.as_deref() == Some("hit: table")
        });
        stop_workers(&mut session);
        is_saved = status_of(&mut session, "short").1.as_deref() == Some("hit: table");
        if !is_saved {
            allow_workers(&mut session);
        }
    }
    wait_until("the end of its time", || {
        let now: f64 = one(&mut session, clock);
        let value = status_of(&mut session, "short").0;
        assert!(value.is_none() || now <= end, "it is there {} s after its end", now - end);
        value.is_none()
    });
    for _ in 0..20 {
        assert_eq!(status_of(&mut session, "short").0, None);
        assert!(!one::<bool>(&mut session, "SELECT cache_exists('short')"));
    }
    let listed = "SELECT count(*) FROM cache_entries WHERE key = 'short'";
    assert_eq!(one::<i64>(&mut session, listed), 0);
    assert!(rows_like(&mut session, "key = 'short'") > 0, "its row is still there");
    assert_eq!(status_of(&mut session, "lasting").0.as_deref(), Some("value"));
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// Returns the number of rows of all segments that meet a condition.
fn rows_like(session: &mut Client, condition: &str) -> i64 {
    let count = |number| format!("(SELECT count(*) FROM pgcache.segment_{number} WHERE {condition})");
    let counts: Vec<String> = (1..=8).map(count).collect();
    one(session, &format!("SELECT {}", counts.join(" + ")))
}

/// A space with `tiers => 'hot'` has no row in any table, even if values of other spaces are saved.
#[test]
fn values_of_a_hot_space_are_never_saved() {
    let cluster = with_tables("8MB");
    let mut session = connect(&cluster, "postgres");
    session.batch_execute("SELECT cache_create_space('secret', tiers => 'hot')").expect("a space");
    for round in 0..3 {
        let set = format!("SELECT cache_set_text('key{round}', 'value', '1 hour', space => 'secret')");
        assert!(one::<bool>(&mut session, &set));
        save(&mut session, &format!("other{round}"), "value");
    }
    let number = "space = (SELECT number FROM pgcache.spaces WHERE name = 'secret')";
    assert_eq!(rows_like(&mut session, number), 0);
    assert!(rows_like(&mut session, "space = 0") >= 3, "values of the other space are saved");
    assert_eq!(
        one::<Option<String>>(&mut session, "SELECT cache_get_text('key0', 'secret')").as_deref(),
        Some("value")
    );
}

/// Superusers cancel the worker all the time while it saves. It must stay, report the error, and save all values afterwards.
#[test]
fn a_cancelled_worker_goes_on() {
    let cluster = with_tables("8MB");
    let mut session = connect(&cluster, "postgres");
    save(&mut session, "first", "value");
    let worker =
        "SELECT pid FROM cache_workers WHERE kind = 'worker' AND database = 'postgres' AND saved > 0";
    let process: i32 = one(&mut session, worker);
    let mut key = 0;
    wait_until("the worker to report the cancellation", || {
        let set = format!(
            "SELECT count(cache_set_text('k' || i, repeat('v', 1000) || i, '1 hour')) FROM generate_series({key}, {key} + 19) AS i"
        );
        session.batch_execute(&set).expect("values are set");
        key += 20;
        for _ in 0..20 {
            let cancel = format!("SELECT pg_cancel_backend({process})");
            assert!(one::<bool>(&mut session, &cancel), "the worker has ended: {}", cluster.log());
        }
        one(&mut session, "SELECT EXISTS (SELECT FROM cache_workers WHERE error = '57014')")
    });
    wait_until("the worker to go on", || {
        one(&mut session, "SELECT NOT EXISTS (SELECT FROM cache_workers WHERE error IS NOT NULL)")
    });
    save(&mut session, "last", "value");
    assert_eq!(one::<i32>(&mut session, worker), process, "the worker has ended");
    assert_eq!(status_of(&mut session, "first").0.as_deref(), Some("value"));
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// Sets 300 values of 1 kB, and asserts that each of them is right or a miss. Returns how many are there.
fn set_and_read(session: &mut Client, why: &str) -> usize {
    let set = "SELECT count(*) FILTER (WHERE cache_set_text('k' || i, repeat('v', 1000) || i, '1 hour'))
               FROM generate_series(0, 299) AS i";
    assert_eq!(one::<i64>(session, set), 300, "{why}: a value is refused");
    let is_there = |key: &usize| {
        let value = status_of(session, &format!("k{key}")).0;
        assert!(value.is_none() || value == Some("v".repeat(1000) + &key.to_string()), "{why}: {value:?}");
        value.is_some()
    };
    (0..300).filter(is_there).count()
}

/// `pg_cache.table_size` is smaller than a block or than a table, or larger than any disk. No size may lead to an error or to a
/// wrong value, and the tables must stay within a small one.
#[test]
fn any_size_of_the_tables_can_be_set() {
    let cluster = with_tables("8MB");
    let mut session = connect(&cluster, "postgres");
    save(&mut session, "first", "value");
    let most: i64 =
        one(&mut session, "SELECT max_val::int8 FROM pg_settings WHERE name = 'pg_cache.table_size'");
    for kilobytes in [1, 8, 60, 100, most] {
        session
            .batch_execute(&format!("ALTER SYSTEM SET pg_cache.table_size = '{kilobytes}kB'"))
            .expect("a setting");
        session.batch_execute("SELECT pg_reload_conf()").expect("a reload");
        let shown = "SELECT setting::int8 FROM pg_settings WHERE name = 'pg_cache.table_size'";
        wait_until("the size to be in effect", || one::<i64>(&mut session, shown) == kilobytes);
        let why = format!("{kilobytes} kB");
        set_and_read(&mut session, &why);
        if kilobytes == most {
            save(&mut session, "last", "value");
        } else {
            // A table has at least 64 kB.
            let limit = kilobytes.max(64) * 1024 + (64 << 10);
            wait_until("the tables to be within their size", || size(&mut session) <= limit);
            let finding = "pg_cache.table_size is too small".to_owned();
            wait_until("the finding", || health(&mut session).contains(&finding));
        }
        set_and_read(&mut session, &why);
        assert_eq!(findings(&mut session), Vec::<String>::new(), "{why}");
    }
    let error = session.batch_execute("ALTER SYSTEM SET pg_cache.table_size = '-1'").expect_err("refused");
    assert_eq!(error.code().map(|code| code.code().to_owned()).as_deref(), Some("22023"));
}

/// Without a directory, nothing is saved, all values are in memory, and `cache_health()` says so. A tiny directory forgets most
/// locations, so most values are misses once they have left the memory, and none is wrong.
#[test]
fn a_small_directory_or_none_costs_hits_only() {
    for entries in ["0", "1", "64"] {
        let cluster = cluster(&conf("8MB").set("pg_cache.table_entries", entries));
        let mut session = connect(&cluster, "postgres");
        let mut found = set_and_read(&mut session, entries);
        if entries == "0" {
            assert_eq!(found, 300, "all values are in memory");
            assert_eq!(rows_like(&mut session, "true"), 0);
            let finding = "values are not saved in tables because pg_cache.table_entries is 0";
            assert_eq!(health(&mut session), [finding]);
            let command: String = one(&mut session, "SELECT command FROM cache_health()");
            session.batch_execute(&command).expect("the command of the finding can be run");
        } else {
            wait_until("most locations to be forgotten", || {
                found = set_and_read(&mut session, entries);
                found < 300
            });
            // A value that is saved last has the youngest location.
            save(&mut session, "last", "value");
        }
        assert_eq!(findings(&mut session), Vec::<String>::new(), "{entries}");
    }
}

/// A superuser takes a table away from the extension, drops it, and gives the extension another one of that name. Reads return the
/// right value or none, and saving goes on.
#[test]
fn a_dropped_segment_costs_its_values_only() {
    let cluster = with_tables("8MB");
    let mut session = connect(&cluster, "postgres");
    for key in 0..20 {
        save(&mut session, &format!("key{key}"), &format!("value{key}"));
    }
    let refused =
        session.batch_execute("DROP TABLE pgcache.segment_1").expect_err("it belongs to the extension");
    assert_eq!(refused.code().map(|code| code.code().to_owned()).as_deref(), Some("2BP01"));
    for number in [1, 2] {
        for command in [
            "ALTER EXTENSION pg_cache DROP TABLE pgcache.segment_#",
            "DROP TABLE pgcache.segment_#",
            "CREATE UNLOGGED TABLE pgcache.segment_# (LIKE pgcache.segment_8 INCLUDING ALL)",
            "ALTER EXTENSION pg_cache ADD TABLE pgcache.segment_#",
        ] {
            session.batch_execute(&command.replace('#', &number.to_string())).expect(command);
            for key in 0..20 {
                let value = status_of(&mut session, &format!("key{key}")).0;
                assert!(value.is_none() || value == Some(format!("value{key}")), "{command}: {value:?}");
            }
            save(&mut session, "other", "value");
        }
        assert_eq!(findings(&mut session), Vec::<String>::new());
    }
}

/// Runs commands that touch all tables of a database while a session sets values and the worker saves them. None may fail, and the
/// dump has no rows of the tables.
#[test]
fn commands_on_the_whole_database_run_beside_the_worker() {
    let cluster = with_tables("2MB");
    let mut session = connect(&cluster, "postgres");
    save(&mut session, "first", "value");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (cluster, over) = (&cluster, &over);
        let _over = Over(over);
        scope.spawn(move || {
            let mut session = cluster.connect("postgres");
            let mut next = 0;
            while !over.load(SeqCst) {
                let set = format!(
                    "SELECT count(cache_set_text('k' || i, repeat('v', 700) || i, '1 hour')) FROM generate_series({next}, {next} + 9) AS i"
                );
                session.batch_execute(&set).expect("values are set");
                next += 10;
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        // A command that waits for the worker would end with an error.
        session.batch_execute("SET statement_timeout = '60 s'").expect("a limit");
        for _ in 0..if is_long() { 20 } else { 2 } {
            for command in [
                "VACUUM FULL",
                "VACUUM (FREEZE, ANALYZE)",
                "ALTER EXTENSION pg_cache UPDATE",
                "REINDEX SYSTEM postgres",
                "CREATE DATABASE copied",
                "DROP DATABASE copied",
                "CHECKPOINT",
            ] {
                session.batch_execute(command).unwrap_or_else(|error| panic!("{command}: {error:?}"));
            }
            let dump = cluster.client("pg_dump").arg("postgres").output().expect("pg_dump runs");
            assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
            assert!(!String::from_utf8_lossy(&dump.stdout).contains("segment_"), "the dump has saved values");
        }
    });
    save(&mut session, "last", "value");
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// A database is dropped while its values are set and saved. Its space must be free afterwards, and other databases go on.
#[test]
fn a_database_can_be_dropped_while_its_values_are_saved() {
    let cluster = with_tables("8MB");
    let mut session = connect(&cluster, "postgres");
    for _ in 0..if is_long() { 10 } else { 2 } {
        session.batch_execute("CREATE DATABASE busy").expect("a database");
        let mut busy = connect(&cluster, "busy");
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                for next in (0..).step_by(10) {
                    let set = format!(
                        "SELECT count(cache_set_text('k' || i, repeat('v', 700), '1 hour')) FROM generate_series({next}, {next} + 9) AS i"
                    );
                    // The command ends this session.
                    if busy.batch_execute(&set).is_err() {
                        break;
                    }
                }
            });
            let saved = "SELECT coalesce(sum(used), 0)::int8 FROM cache_usage WHERE resource = 'saved bytes' AND database = 'busy'";
            wait_until("values to be saved", || one::<i64>(&mut session, saved) > 100_000);
            session.batch_execute("DROP DATABASE busy WITH (FORCE)").expect("it is dropped");
            writer.join().expect("the writer has ended");
        });
        let all = "SELECT coalesce(sum(used), 0)::int8 FROM cache_usage WHERE resource = 'saved bytes' AND database IS NULL";
        wait_until("the space to be free", || one::<i64>(&mut session, all) == size(&mut session));
        save(&mut session, "key", "value");
        assert_eq!(findings(&mut session), Vec::<String>::new());
    }
}

/// A name, and a way to end the server that loses the cache, and to start it again. It is called when a table has just been emptied
/// and the next one is begun. Its argument is the process ID of the worker.
type End = (&'static str, fn(&Cluster, i32));

/// The server ends without a shutdown while the worker goes on to another table. After the start, no value of before may be there,
/// and values can be saved again.
#[test]
fn a_crash_while_tables_are_switched_brings_no_value_back() {
    let ends: [End; 2] = [
        ("the worker is killed", |cluster, worker| cluster.crash(worker)),
        ("the server is stopped at once", |cluster, _| {
            cluster.stop(Stop::Immediate);
            cluster.resume();
        }),
    ];
    let cluster = with_tables("1MB");
    let mut session = connect(&cluster, "postgres");
    for (round, (what, end)) in ends.into_iter().cycle().take(if is_long() { 30 } else { 4 }).enumerate() {
        save(&mut session, "key", &format!("value{round}"));
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (cluster, over) = (&cluster, &over);
            let _over = Over(over);
            scope.spawn(move || {
                let mut session = cluster.connect("postgres");
                for next in (0..).step_by(10).take_while(|_| !over.load(SeqCst)) {
                    let set = format!(
                        "SELECT count(cache_set_text('k' || i % 1000, repeat('v', 700), '1 hour')) FROM generate_series({next}, {next} + 9) AS i"
                    );
                    // The crash ends this session.
                    if session.batch_execute(&set).is_err() {
                        break;
                    }
                }
            });
            let worker = "SELECT pid FROM cache_workers WHERE kind = 'worker' AND database = 'postgres'";
            let freed = "SELECT coalesce(max(freed), 0)::bigint FROM cache_workers";
            let before: i64 = one(&mut session, freed);
            wait_until("a table to be emptied", || one::<i64>(&mut session, freed) > before);
            end(cluster, one(&mut session, worker));
        });
        session = cluster.connect("postgres");
        assert_eq!(status_of(&mut session, "key").0, None, "{what}");
        for key in 0..1000 {
            assert_eq!(status_of(&mut session, &format!("k{key}")).0, None, "{what}");
        }
        assert_eq!(findings(&mut session), Vec::<String>::new(), "{what}");
    }
    save(&mut session, "key", "value");
}
