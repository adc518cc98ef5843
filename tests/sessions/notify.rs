//! Tests of the notifications about changes in the cache, with real listeners, and of the journal that they are made from. The
//! *journal* is a ring of records of changes, in shared memory. A *cursor* is the number of the last change that a reader of the
//! journal knows. A *reset* is an answer that tells a reader to drop all values, because the journal does not have all changes
//! since its cursor.
//!
//! A worker sends the notifications for a database that has changes. It reads the changes since it last sent some, up to a limit:
//! these are a *batch*. `src/store/broadcast.rs` describes the payload of a notification. Each test has a cluster of its own,
//! because a worker serves one database at a time and at most `pg_cache.max_workers` run.

use crate::memory::{cluster, findings};
use crate::tables::one;
use pg_cache_testbed::{Cluster, Conf, Stop, wait_until};
use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Starts a cluster with the extension and with the settings that all tests have.
fn with_extension() -> Cluster {
    cluster(&Conf::preloaded())
}

/// Returns the payloads that arrive within a time, or until `is_enough` says so.
fn payloads(
    listener: &mut Client,
    time: Duration,
    mut is_enough: impl FnMut(&[Value]) -> bool,
) -> Vec<Value> {
    let (began, mut found) = (Instant::now(), Vec::new());
    while began.elapsed() < time && !is_enough(&found) {
        let mut notifications = listener.notifications();
        let mut next = notifications.timeout_iter(Duration::from_millis(200));
        while let Some(notification) = next.next().expect("the connection lives") {
            found.push(serde_json::from_str(notification.payload()).expect("it is JSON"));
        }
    }
    found
}

/// Returns all names in some payloads. `of` returns the list of names in a payload, such as its member `tags`, or null if the
/// payload has none.
fn names(payloads: &[Value], of: impl Fn(&Value) -> &Value) -> Vec<String> {
    let names = payloads.iter().filter_map(|payload| of(payload).as_array());
    names.flatten().map(|name| name.as_str().expect("a name is a string").to_owned()).collect()
}

/// How long a test waits for notifications that must arrive.
const PATIENCE: Duration = Duration::from_secs(120);

/// Returns the payloads that arrive until one covers the last change that is in the journal now. The member `seq` of a payload has
/// the number before its first change and that of its last one.
fn drain(listener: &mut Client, writer: &mut Client) -> Vec<Value> {
    let to: i64 = one(writer, "SELECT cache_seq()");
    let is_last =
        |found: &[Value]| found.last().is_some_and(|payload| payload["seq"][1].as_i64() >= Some(to));
    let found = payloads(listener, PATIENCE, is_last);
    assert!(is_last(&found), "{found:?}");
    found
}

/// Changes arrive as few notifications, with the names that every role may know. Each change is covered by the numbers of a
/// payload.
#[test]
fn a_listener_receives_the_names_that_all_roles_may_know() {
    let cluster = with_extension();
    let [mut writer, mut listener] = [(); 2].map(|()| cluster.connect("postgres"));
    writer
        .batch_execute(
            "SELECT cache_create_space('open'), cache_create_space('closed'), cache_create_space('told', notify => 'names'),
                    cache_create_space('numbers', notify => 'numbers'), cache_create_space('own', scope => 'role');
             SELECT cache_grant(space, 'public', 'read') FROM unnest('{open,numbers,own}'::text[]) AS space;
             CREATE TABLE t (v int); SELECT cache_watch('t', '{watched}');",
        )
        .expect("spaces and a watch");
    listener.batch_execute("LISTEN pg_cache").expect("it listens");
    // The new watch changes everything, so it must be in an earlier batch.
    writer.batch_execute("SELECT cache_set('first', '1')").expect("it sets");
    drain(&mut listener, &mut writer);
    let from: i64 = one(&mut writer, "SELECT cache_seq()");
    // Each statement is a transaction of its own.
    for statement in [
        "SELECT cache_set('a', '1', tags => '{watched}', space => 'open')",
        "SELECT keep FROM cache_get_near('a', 'open')",
        "INSERT INTO t VALUES (1)",
        "SELECT cache_set('secret', '1', space => space) FROM unnest('{closed,numbers,own,default}'::text[]) AS space",
        "SELECT cache_set(E'quote\"\\\\\\n\u{1f600}', '1', space => 'told')",
        // A letter of each plane of Unicode that has letters, with quotes and a newline.
        "SELECT cache_invalidate_tag('a''b\"' || chr(10) || string_agg(chr(plane * 65536 + 8000), '')) FROM generate_series(0, 16) AS plane",
        "SELECT cache_flush('open')",
        "SELECT cache_flush('closed')",
    ] {
        writer.batch_execute(statement).expect("it changes something");
    }
    let found = drain(&mut listener, &mut writer);
    assert_eq!(names(&found, |payload| &payload["keys"]["open"]), ["a"]);
    assert_eq!(names(&found, |payload| &payload["keys"]["told"]), ["quote\"\\\n\u{1f600}"]);
    let mut tags = names(&found, |payload| &payload["tags"]);
    tags.sort();
    let planes = (0..=16).filter_map(|plane| char::from_u32(plane * 0x1_0000 + 8000));
    assert_eq!(tags, [format!("a'b\"\n{}", planes.collect::<String>()), "watched".to_owned()]);
    assert_eq!(names(&found, |payload| &payload["spaces"]), ["open"]);
    assert!(found.iter().all(|payload| !payload.to_string().contains("secret")), "{found:?}");
    // The numbers leave no gap: a payload begins where those before it have ended, or earlier.
    let mut reached = from;
    for payload in &found {
        let [first, last] = [0, 1].map(|at| payload["seq"][at].as_i64().expect("a number"));
        assert!(first <= reached && last >= reached || reached == from, "{found:?}");
        reached = reached.max(last);
    }
    wait_until("the view to count them", || {
        let sent = "SELECT coalesce(max(notifications), 0)::bigint FROM cache_workers WHERE kind = 'worker'";
        one::<i64>(&mut writer, sent) >= found.len() as i64
    });
    assert_eq!(findings(&mut writer), Vec::<String>::new());
}

/// A payload has fewer than 8000 bytes. Names beyond that go into further payloads, and too many names are left out.
#[test]
fn long_names_are_split_and_many_are_left_out() {
    let cluster = with_extension();
    let [mut writer, mut listener] = [(); 2].map(|()| cluster.connect("postgres"));
    writer.batch_execute("SELECT cache_grant('default', 'public', 'read')").expect("it grants");
    listener.batch_execute("LISTEN pg_cache").expect("it listens");
    // The worker must have caught up, so that the next transaction is a batch of its own.
    writer.batch_execute("SELECT cache_set('first', '1')").expect("it sets");
    drain(&mut listener, &mut writer);
    writer
        .batch_execute(
            "SELECT count(cache_set(repeat(chr(10), 1000) || i, '1')) FROM generate_series(1, 20) AS i",
        )
        .expect("it sets");
    let found = drain(&mut listener, &mut writer);
    let keys = names(&found, |payload| &payload["keys"]["default"]);
    // A payload may still be on its way after the first one with the last number.
    let count = |more: &[Value]| keys.len() + names(more, |payload| &payload["keys"]["default"]).len();
    let more = payloads(&mut listener, PATIENCE, |more| count(more) >= 20);
    assert_eq!(count(&more), 20);
    assert!(found.iter().chain(&more).all(|payload| payload.to_string().len() < 8000));
    // A worker that happens to look while the commit writes to the journal finds a part of the keys, and may name these.
    wait_until("many names to be left out", || {
        writer
            .batch_execute(
                "SELECT count(cache_set(repeat('k', 500) || i, '1')) FROM generate_series(1, 500) AS i",
            )
            .expect("it sets");
        drain(&mut listener, &mut writer).iter().all(|payload| payload["keys"] == Value::Null)
    });
    let before: i64 = one(&mut writer, "SELECT cache_seq()");
    writer.batch_execute("SELECT cache_flush('*')").expect("it flushes");
    let mut found = drain(&mut listener, &mut writer);
    found.retain(|payload| payload["seq"][1].as_i64() > Some(before));
    assert_eq!(found.iter().map(|payload| &payload["all"]).collect::<Vec<_>>(), [&json!(true)]);
}

/// A listener that never reads fills the server's queue. Commits go on, the worker pauses and says so, and goes on when the queue
/// has room.
#[test]
fn a_full_queue_of_notifications_pauses_the_worker_only() {
    // The worker pauses when this part of the queue is full. A debug build has the setting, in millionths. A release build always
    // pauses at half of the queue, which has 8 GB: too much for a test.
    let cluster = cluster(&Conf::preloaded().set("pg_cache.notify_queue", "100"));
    let [mut writer, mut lazy, mut filler] = [(); 3].map(|()| cluster.connect("postgres"));
    lazy.batch_execute("LISTEN other").expect("it listens");
    lazy.batch_execute("BEGIN; SELECT 1").expect("it begins");
    let fill = "SELECT count(pg_notify('other', repeat('x', 7900) || i)) FROM generate_series(1, 500) AS i";
    filler.batch_execute(fill).expect("the queue has room");
    assert!(one::<f64>(&mut filler, "SELECT pg_notification_queue_usage()") > 0.0001);
    let waits = "SELECT EXISTS (SELECT FROM cache_health() WHERE finding LIKE 'notifications wait%')";
    wait_until("the worker to pause", || {
        writer.batch_execute("SELECT cache_set('during', '1')").expect("it sets");
        one(&mut writer, waits)
    });
    let paused: i64 = one(&mut writer, "SELECT max(notifications)::bigint FROM cache_workers");
    for number in 0..100 {
        writer.batch_execute(&format!("SELECT cache_set('k{number}', '1')")).expect("it sets");
    }
    assert_eq!(one::<i64>(&mut writer, "SELECT max(notifications)::bigint FROM cache_workers"), paused);
    lazy.batch_execute("COMMIT").expect("it ends");
    wait_until("the worker to go on", || {
        one::<i64>(&mut writer, "SELECT max(notifications)::bigint FROM cache_workers") > paused
            && !one::<bool>(&mut writer, waits)
    });
}

/// The sessions that commit at the same time while a listener does not read.
const COMMITTERS: usize = 16;
/// How many commits each of them makes.
const COMMITS: usize = 1000;

/// Lets 16 sessions commit as fast as they can, each commit with an invalidation. Returns the time of each commit, sorted. Panics
/// if one fails.
fn commit_at_once(cluster: &Cluster) -> Vec<Duration> {
    let mut times = std::thread::scope(|scope| {
        let committer = |number: usize| {
            let mut session = cluster.connect("postgres");
            let invalidate = session.prepare("SELECT cache_invalidate_tag($1)").expect("it is prepared");
            let mut times = Vec::with_capacity(COMMITS);
            for commit in 0..COMMITS {
                let began = Instant::now();
                session.execute(&invalidate, &[&format!("tag {number} {commit}")]).expect("it commits");
                times.push(began.elapsed());
            }
            times
        };
        let committers: Vec<_> =
            (0..COMMITTERS).map(|number| scope.spawn(move || committer(number))).collect();
        committers
            .into_iter()
            .flat_map(|committer| committer.join().expect("no commit fails"))
            .collect::<Vec<_>>()
    });
    times.sort();
    times
}

/// A listener that is idle in a transaction never reads, and the server's queue of notifications is as full as the worker lets it
/// get. Sixteen sessions commit as fast as they can: no commit fails, and commits take about as long as without the listener. If
/// they sent notifications themselves, they would wait for each other, and fail in the end.
#[test]
fn a_listener_that_never_reads_slows_no_commit() {
    let cluster = cluster(&Conf::preloaded().set("pg_cache.notify_queue", "100"));
    let [mut session, mut lazy, mut filler] = [(); 3].map(|()| cluster.connect("postgres"));
    session
        .batch_execute("SELECT cache_grant('default', 'public', 'read')")
        .expect("notifications have names");
    // The first run only warms up: the kernel allocates the pages of shared memory at their first use.
    commit_at_once(&cluster);
    let before = commit_at_once(&cluster);
    lazy.batch_execute("LISTEN pg_cache").expect("it listens");
    lazy.batch_execute("BEGIN; SELECT 1").expect("it begins");
    let fill = "SELECT count(pg_notify('other', repeat('x', 7900) || i)) FROM generate_series(1, 500) AS i";
    filler.batch_execute(fill).expect("the queue has room");
    let waits = "SELECT EXISTS (SELECT FROM cache_health() WHERE finding LIKE 'notifications wait%')";
    wait_until("the worker to pause", || {
        session.batch_execute("SELECT cache_invalidate_tag('during')").expect("it invalidates");
        one(&mut session, waits)
    });
    let usage: f64 = one(&mut session, "SELECT pg_notification_queue_usage()");
    let during = commit_at_once(&cluster);
    assert!(one::<bool>(&mut session, waits), "the worker still waits");
    assert_eq!(one::<f64>(&mut session, "SELECT pg_notification_queue_usage()"), usage, "nothing was sent");
    let of = |times: &[Duration], share: f64| times[(times.len() as f64 * share) as usize];
    let rate = |times: &[Duration]| {
        times.len() as f64 * COMMITTERS as f64 / times.iter().sum::<Duration>().as_secs_f64()
    };
    for (what, times) in [("no listener", &before), ("a listener that never reads", &during)] {
        println!("{what}: {:.0} commits/s, p50 {:?}, p99 {:?}", rate(times), of(times, 0.5), of(times, 0.99));
    }
    // Other tests run at the same time, so the bound is wide.
    assert!(of(&during, 0.5) < of(&before, 0.5) * 3 + Duration::from_millis(2), "the median is longer");
    lazy.batch_execute("COMMIT").expect("it ends");
    wait_until("the worker to go on", || !one::<bool>(&mut session, waits));
}

/// The launcher, the process that starts workers, finds the databases with changes in the journal. If it stands still while the
/// journal comes around, or ends, it does not know which databases have changes. A database without a worker must get a
/// notification all the same, without a further change.
#[test]
fn changes_that_the_launcher_has_missed_are_told() {
    // The journal has room for 1024 records. Only one database at a time has a worker, and no worker is started to save values.
    let conf = Conf::preloaded()
        .set("pg_cache.journal_size", "64kB")
        .set("pg_cache.max_workers", "1")
        .set("pg_cache.table_size", "0");
    let cluster = cluster(&conf);
    let mut busy = cluster.connect("postgres");
    busy.batch_execute("CREATE DATABASE quiet").expect("a database");
    let [mut writer, mut listener] = [(); 2].map(|()| cluster.connect("quiet"));
    writer.batch_execute("CREATE EXTENSION pg_cache").expect("it installs");
    listener.batch_execute("LISTEN pg_cache").expect("it listens");
    for is_restart in [false, true] {
        writer.batch_execute("SELECT cache_set('first', '1')").expect("it sets");
        drain(&mut listener, &mut writer);
        let worker =
            "SELECT coalesce(max(database), '') = 'postgres' FROM cache_workers WHERE kind = 'worker'";
        wait_until("the worker to serve the other database", || {
            busy.batch_execute("SELECT cache_set('first', '1')").expect("it sets");
            one(&mut busy, worker)
        });
        let launcher: i32 = one(&mut busy, "SELECT pid FROM cache_workers WHERE kind = 'launcher'");
        cluster.signal(launcher, "-STOP");
        writer.batch_execute("SELECT cache_set('missed', '1')").expect("it sets");
        let change: i64 = one(&mut writer, "SELECT cache_seq()");
        if is_restart {
            busy.batch_execute(&format!("SELECT pg_terminate_backend({launcher})"))
                .expect("it is terminated");
        } else {
            for number in 0..1500 {
                busy.batch_execute(&format!("SELECT cache_set('k{number}', '1')")).expect("it sets");
            }
        }
        cluster.signal(launcher, "-CONT");
        let is_told = |found: &[Value]| {
            let covers =
                |payload: &Value| payload["all"] == json!(true) && payload["seq"][1].as_i64() >= Some(change);
            found.iter().any(covers)
        };
        let found = payloads(&mut listener, PATIENCE, is_told);
        assert!(is_told(&found), "{is_restart}: {found:?}");
    }
}

/// The settings take effect with a reload. A name that must be quoted works. With a name that the server would refuse, nothing is
/// sent, and `cache_health()` reports it.
#[test]
fn the_channel_can_be_changed_and_switched_off() {
    let cluster = with_extension();
    let [mut session, mut listener] = [(); 2].map(|()| cluster.connect("postgres"));
    listener.batch_execute(r#"LISTEN "Mein Kanal "" ä""#).expect("it listens");
    let set = |session: &mut Client, assignment: &str| {
        session.batch_execute(&format!("ALTER SYSTEM SET {assignment}")).expect("it is set");
        session.batch_execute("SELECT pg_reload_conf()").expect("it reloads");
    };
    set(&mut session, r#"pg_cache.notify_channel = 'Mein Kanal " ä'"#);
    wait_until("a notification on the new channel", || {
        session.batch_execute("SELECT cache_set('a', '1')").expect("it sets");
        !payloads(&mut listener, Duration::from_secs(1), |found| !found.is_empty()).is_empty()
    });
    // The notifications of all these changes must have arrived before the next step.
    session.batch_execute("SELECT cache_set('a', '1')").expect("it sets");
    drain(&mut listener, &mut session);
    set(&mut session, &format!("pg_cache.notify_channel = '{}'", "x".repeat(64)));
    let finding =
        "SELECT EXISTS (SELECT FROM cache_health() WHERE finding LIKE '%is not the name of a channel')";
    wait_until("the finding", || one(&mut session, finding));
    // The session may learn of the setting before the worker does.
    wait_until("a change that is not told", || {
        session.batch_execute("SELECT cache_set('a', '2')").expect("it sets");
        payloads(&mut listener, Duration::from_secs(1), |found| !found.is_empty()).is_empty()
    });
    set(&mut session, "pg_cache.notify = off");
    wait_until("no finding", || !one::<bool>(&mut session, finding));
}

/// A cursor survives a clean restart, and a crash is a reset: the cache is empty then.
#[test]
fn a_cursor_survives_a_restart_and_a_crash_resets_it() {
    let cluster = with_extension();
    let mut session = cluster.connect("postgres");
    session.batch_execute("SELECT cache_set('a', '1')").expect("it sets");
    let cursor: i64 = one(&mut session, "SELECT cache_seq()");
    session.batch_execute("SELECT cache_set('b', '1')").expect("it sets");
    cluster.restart(Stop::Fast, &Conf::preloaded());
    let mut session = cluster.connect("postgres");
    session.batch_execute("SELECT cache_set('c', '1')").expect("it sets");
    let changes =
        "SELECT string_agg(kind || coalesce(' ' || name, ''), ',' ORDER BY seq) FROM cache_changes(";
    assert_eq!(one::<String>(&mut session, &format!("{changes}{cursor})")), "key b,key c");
    cluster.restart(Stop::Immediate, &Conf::preloaded());
    let mut session = cluster.connect("postgres");
    assert_eq!(one::<String>(&mut session, &format!("{changes}{cursor})")), "reset");
    let newer: i64 = one(&mut session, "SELECT cache_seq()");
    assert!(newer > cursor, "{newer}");
}

/// A prepared transaction loses the names of its changes. If it has changed the cache, its commit says that everything in the
/// database has changed. A write to a table that no tag stands for appends no record. Nothing is told before the commit, and
/// nothing after a rollback.
#[test]
fn a_prepared_transaction_changes_everything() {
    let cluster = cluster(&Conf::preloaded().set("max_prepared_transactions", "5"));
    let mut session = cluster.connect("postgres");
    session.batch_execute("CREATE TABLE t (v int)").expect("objects");
    let kinds = |session: &mut Client, cursor: i64| -> Option<String> {
        one(session, &format!("SELECT string_agg(kind, ',') FROM cache_changes({cursor})"))
    };
    for (change, expected) in [
        ("SELECT cache_set('a', '1')", Some("database")),
        ("SELECT cache_invalidate_tag('x')", Some("database")),
        ("INSERT INTO t VALUES (1)", None),
    ] {
        let cursor: i64 = one(&mut session, "SELECT cache_seq()");
        session.batch_execute(&format!("BEGIN; {change}; PREPARE TRANSACTION 'p'")).expect("it is prepared");
        assert_eq!(kinds(&mut session, cursor), None, "{change}");
        session.batch_execute("COMMIT PREPARED 'p'").expect("it commits");
        assert_eq!(kinds(&mut session, cursor).as_deref(), expected, "{change}");
        let cursor: i64 = one(&mut session, "SELECT cache_seq()");
        session.batch_execute(&format!("BEGIN; {change}; PREPARE TRANSACTION 'p'")).expect("it is prepared");
        session.batch_execute("ROLLBACK PREPARED 'p'").expect("it ends");
        assert_eq!(kinds(&mut session, cursor), None, "{change}");
    }
}

/// A crash between PREPARE TRANSACTION and its COMMIT loses the names of the changes. The commit must say that everything in the
/// database has changed, also if the transaction was prepared before the crash, and the journal began a new life since.
#[test]
fn a_transaction_that_was_prepared_before_a_crash_changes_everything() {
    let conf = Conf::preloaded().set("max_prepared_transactions", "5");
    let cluster = cluster(&conf);
    let mut session = cluster.connect("postgres");
    session.batch_execute("CREATE TABLE t (v int); SELECT cache_watch('t', '{watched}')").expect("objects");
    for (number, change) in
        ["SELECT cache_invalidate_tag('x')", "SELECT cache_set('a', '2')", "INSERT INTO t VALUES (1)"]
            .iter()
            .enumerate()
    {
        let prepare = format!("BEGIN; {change}; PREPARE TRANSACTION 'p{number}'");
        session.batch_execute(&prepare).expect("it is prepared");
    }
    drop(session);
    cluster.restart(Stop::Immediate, &conf);
    let mut session = cluster.connect("postgres");
    for number in 0..3 {
        session.batch_execute("SELECT cache_set('other', '1')").expect("it sets");
        let cursor: i64 = one(&mut session, "SELECT cache_seq()");
        session.batch_execute(&format!("COMMIT PREPARED 'p{number}'")).expect("it commits");
        let kinds = format!("SELECT string_agg(DISTINCT kind, ',') FROM cache_changes({cursor})");
        assert_eq!(one::<String>(&mut session, &kinds), "database", "{number}");
    }
}

/// A role is not told of changes that it may not see. So whenever a role may lose or get a privilege, all caches that follow the
/// journal must forget everything, in all databases if roles have changed.
#[test]
fn changes_of_roles_and_grants_change_everything() {
    let cluster = cluster(&Conf::preloaded().set("max_prepared_transactions", "5"));
    let mut session = cluster.connect("postgres");
    session.batch_execute("CREATE ROLE g; CREATE ROLE u IN ROLE g; CREATE ROLE v ROLE u").expect("roles");
    session.batch_execute("CREATE DATABASE other").expect("a database");
    let mut other = cluster.connect("other");
    other.batch_execute("CREATE EXTENSION pg_cache").expect("it installs");
    let revoke = "REVOKE g FROM u";
    for (change, in_other) in [
        ("SELECT cache_grant('default', 'g', 'read')", false),
        ("SELECT cache_revoke('default', 'g', 'read')", false),
        ("ALTER ROLE u NOINHERIT", true),
        (revoke, true),
        ("GRANT g TO u", true),
        ("DROP ROLE v", true),
        ("BEGIN; REVOKE g FROM u; SELECT cache_grant('default', 'g', 'read'); COMMIT", true),
        ("BEGIN; SELECT cache_revoke('default', 'g', 'read'); GRANT g TO u; COMMIT", true),
        ("BEGIN; REVOKE g FROM u; PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'", true),
    ] {
        let cursor: i64 = one(&mut session, "SELECT cache_seq()");
        // Each statement is a request of its own: COMMIT PREPARED must not run in a transaction.
        change.split("; ").for_each(|statement| session.batch_execute(statement).expect(change));
        let told = format!("SELECT count(*) > 0 FROM cache_changes({cursor}) WHERE kind = 'database'");
        assert!(one::<bool>(&mut session, &told), "{change}");
        assert_eq!(one::<bool>(&mut other, &told), in_other, "{change}");
    }
}

/// Tags belong to all spaces of a database. The option of one space must not tell them to roles that may read nothing.
#[test]
fn a_space_that_only_its_option_names_tells_no_tags() {
    let cluster = with_extension();
    let [mut writer, mut listener] = [(); 2].map(|()| cluster.connect("postgres"));
    writer.batch_execute("SELECT cache_create_space('told', notify => 'names')").expect("a space");
    listener.batch_execute("LISTEN pg_cache").expect("it listens");
    // The new extension changes everything, so it must be in an earlier batch.
    writer.batch_execute("SELECT cache_set('first', '1')").expect("it sets");
    drain(&mut listener, &mut writer);
    writer.batch_execute("SELECT cache_invalidate_tag('secret')").expect("it invalidates");
    writer.batch_execute("SELECT cache_set('a', '1', tags => '{secret}', space => 'told')").expect("it sets");
    let found = drain(&mut listener, &mut writer);
    assert_eq!(names(&found, |payload| &payload["keys"]["told"]), ["a"]);
    assert!(found.iter().all(|payload| !payload.to_string().contains("secret")), "{found:?}");
}

/// Invalidations at several rates per second all reach a listener by name, soon after the commit.
#[test]
fn no_invalidation_is_lost_at_any_rate() {
    let cluster = with_extension();
    let [mut writer, mut listener] = [(); 2].map(|()| cluster.connect("postgres"));
    writer
        .batch_execute("SELECT cache_grant('default', 'public', 'read')")
        .expect("notifications have names");
    listener.batch_execute("LISTEN pg_cache").expect("it listens");
    writer.batch_execute("SELECT cache_set('first', '1')").expect("it sets");
    drain(&mut listener, &mut writer);
    let invalidate = writer.prepare("SELECT cache_invalidate_tag($1)").expect("it is prepared");
    for (rate, count) in [(1, 3), (100, 300), (1000, 3000)] {
        let sent = std::thread::scope(|scope| {
            let listening = scope.spawn(|| {
                let mut arrived = Vec::<(String, Instant)>::new();
                let began = Instant::now();
                while arrived.len() < count as usize && began.elapsed() < PATIENCE {
                    let mut notifications = listener.notifications();
                    let mut next = notifications.timeout_iter(Duration::from_millis(100));
                    while let Some(notification) = next.next().expect("the connection lives") {
                        let payload: Value =
                            serde_json::from_str(notification.payload()).expect("it is JSON");
                        let tags = names(&[payload], |payload| &payload["tags"]);
                        arrived.extend(tags.into_iter().map(|tag| (tag, Instant::now())));
                    }
                }
                arrived
            });
            let (began, mut sent) = (Instant::now(), Vec::new());
            for number in 0..count {
                std::thread::sleep((Duration::from_secs(1) * number / rate).saturating_sub(began.elapsed()));
                sent.push(Instant::now());
                writer.execute(&invalidate, &[&format!("{rate} {number}")]).expect("it invalidates");
            }
            let arrived = listening.join().expect("the listener lives");
            let mut times: Vec<_> = sent
                .iter()
                .enumerate()
                .map(|(number, sent)| {
                    let tag = format!("{rate} {number}");
                    let found = arrived.iter().find(|(arrived, _)| *arrived == tag);
                    found.unwrap_or_else(|| panic!("{tag:?} is lost")).1.duration_since(*sent)
                })
                .collect();
            times.sort();
            times
        });
        let [half, most] = [0.5, 0.99].map(|part| sent[(sent.len() as f64 * part) as usize]);
        println!("{rate} per second: p50 {half:?}, p99 {most:?}");
        // Half of them come far sooner on an idle machine. A worker that was not woken would need a second.
        assert!(half < Duration::from_millis(500), "{rate} per second: {half:?}");
    }
}

/// A reader that was cut off for ten seconds, at 1000 changes per second, must get each change afterwards, and no reset.
#[test]
fn ten_thousand_changes_are_read_later_without_a_reset() {
    let cluster = with_extension();
    let mut session = cluster.connect("postgres");
    let cursor: i64 = one(&mut session, "SELECT cache_seq()");
    session
        .batch_execute(
            "CREATE PROCEDURE change() LANGUAGE plpgsql AS $$
             BEGIN
                 FOR number IN 1..10000 LOOP
                     PERFORM cache_set('key ' || number, '1');
                     COMMIT;
                 END LOOP;
             END $$",
        )
        .expect("a procedure");
    session.batch_execute("CALL change()").expect("each change commits");
    let changes = format!("FROM cache_changes({cursor}, 1000000) WHERE kind =");
    let keys = format!("SELECT count(DISTINCT name) {changes} 'key' AND name LIKE 'key %'");
    assert_eq!(one::<i64>(&mut session, &keys), 10_000);
    assert_eq!(one::<i64>(&mut session, &format!("SELECT count(*) {changes} 'reset'")), 0);
}

/// A promoted standby knows nothing of the changes on the old primary, so a cursor from there must get a reset, however many
/// changes follow.
#[test]
fn a_cursor_of_the_old_primary_gets_a_reset_after_a_promotion() {
    let primary = with_extension();
    let mut session = primary.connect("postgres");
    session.batch_execute("SELECT cache_set('key', '1')").expect("it sets");
    let cursor: i64 = one(&mut session, "SELECT cache_seq()");
    let standby = with_extension();
    standby.stop(Stop::Fast);
    standby.follow(&primary);
    standby.resume();
    primary.stop(Stop::Immediate);
    let mut session = standby.connect("postgres");
    session.query_one("SELECT pg_promote()", &[]).expect("it is promoted");
    let first = format!("SELECT kind FROM cache_changes({cursor}) LIMIT 1");
    assert_eq!(one::<String>(&mut session, &first), "reset", "before the first change");
    session
        .batch_execute(
            "SELECT count(cache_set('key ' || number, '2')) FROM generate_series(1, 500) AS number",
        )
        .expect("it sets");
    assert_eq!(one::<String>(&mut session, &first), "reset", "after some changes");
}
