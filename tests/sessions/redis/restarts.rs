//! Tests in which the server of PostgreSQL stops, crashes and prepares transactions while its Redis worker (`mod.rs`) writes to
//! Redis. Afterwards each key in Redis must have the value of the cache, or be absent. A `Proxy` between the worker and Redis can
//! hold back what they send, until `restore` is called.

use super::{
    await_all, await_refill, await_value, compare, fill, held, of_worker, run, settle, small, start, value,
    writes_to,
};
use crate::memory::findings;
use crate::tables::one;
use pg_cache_testbed::{Conf, Proxy, Redis, RedisConf, Stop, wait_until};
use std::time::{Duration, Instant};

/// A prepared transaction changes Redis at its commit only. A crash in between changes nothing of that.
#[test]
fn a_prepared_transaction_reaches_redis_when_it_commits() {
    let redis = Redis::start();
    let (cluster, mut session) = start(&writes_to(&redis.url()));
    let set = "SELECT cache_set('a', '1', space => 'r'), cache_set('b', '1', tags => '{t}', space => 'r'),
                      cache_set('c', '1', space => 'r')";
    let prepare =
        "BEGIN; SELECT cache_set('a', '2', space => 'r'), cache_invalidate_tag('t'), cache_delete('c', 'r'),
                                 cache_set('new', '1', space => 'r'); PREPARE TRANSACTION 'p'";
    for end in ["ROLLBACK PREPARED 'p'", "COMMIT PREPARED 'p'"] {
        run(&mut session, set);
        await_all(&[&redis], &mut session);
        run(&mut session, prepare);
        run(&mut session, "SELECT cache_set('between', '1', space => 'r')");
        await_value(&redis, "between", Some("1"));
        settle(&mut session);
        let values = ["a", "b", "c", "new"].map(|key| value(&redis, key));
        assert_eq!(values, [Some("1".into()), Some("1".into()), Some("1".into()), None]);
        run(&mut session, end);
        compare(&[&redis], &mut session);
        if end.starts_with("COMMIT") {
            let old = ["a", "b", "c"]
                .map(|key| value(&redis, key))
                .into_iter()
                .flatten()
                .find(|value| value == "1");
            assert_eq!(old, None, "{end}");
        }
    }
    run(&mut session, set);
    await_all(&[&redis], &mut session);
    run(&mut session, prepare);
    cluster.restart(Stop::Immediate, &Conf::preloaded());
    let mut session = cluster.connect("postgres");
    compare(&[&redis], &mut session);
    assert_eq!(held(&[&redis]).len(), 0, "the cache is empty after a crash");
    run(&mut session, "SELECT cache_set('a', '3', space => 'r')");
    await_value(&redis, "a", Some("3"));
    run(&mut session, "COMMIT PREPARED 'p'");
    compare(&[&redis], &mut session);
    assert_ne!(value(&redis, "a").as_deref(), Some("3"));
}

/// A killed worker makes the server restart, with an empty cache. The old copies must leave Redis.
#[test]
fn a_killed_worker_leaves_no_outdated_value() {
    let redis = Redis::start();
    let (cluster, mut session) = start(&writes_to(&redis.url()));
    fill(&mut session, "k", 900, "1");
    await_all(&[&redis], &mut session);
    let worker: i32 = one(&mut session, "SELECT pid FROM cache_workers WHERE kind = 'redis'");
    cluster.crash(worker);
    let mut session = cluster.connect("postgres");
    run(&mut session, "SELECT cache_set('new', '1', space => 'r')");
    await_value(&redis, "new", Some("1"));
    compare(&[&redis], &mut session);
    assert_eq!(held(&[&redis]).len(), 1);
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// A worker that is terminated starts again, and loses nothing.
#[test]
fn a_terminated_worker_starts_again() {
    let redis = Redis::start();
    let (_cluster, mut session) = start(&writes_to(&redis.url()));
    fill(&mut session, "k", 500, "1");
    await_all(&[&redis], &mut session);
    for round in 2..5 {
        let worker: i32 = one(&mut session, "SELECT pid FROM cache_workers WHERE kind = 'redis'");
        run(&mut session, &format!("SELECT pg_terminate_backend({worker}, 20000)"));
        fill(&mut session, "k", 300, &round.to_string());
        run(&mut session, &format!("SELECT cache_delete('k{}', 'r')", 300 + round));
        wait_until("another worker", || {
            of_worker(&mut session, "pid").is_some_and(|pid| pid != worker.to_string())
        });
        await_all(&[&redis], &mut session);
    }
}

/// A clean restart keeps the cache, and Redis has the same values afterwards.
#[test]
fn a_clean_restart_keeps_the_values() {
    let redis = Redis::start();
    let (cluster, mut session) = start(&writes_to(&redis.url()));
    (1..=4).for_each(|part| fill(&mut session, &format!("k{part}-"), 500, "1"));
    await_all(&[&redis], &mut session);
    // These changes may be lost for Redis, but not for the cache.
    redis.pause();
    run(&mut session, "SELECT count(cache_delete('k1-' || i, 'r')) FROM generate_series(1, 250) AS i");
    fill(&mut session, "k2-", 250, "2");
    drop(session);
    cluster.stop(Stop::Fast);
    redis.resume();
    cluster.resume();
    let mut session = cluster.connect("postgres");
    assert_eq!(one::<String>(&mut session, "SELECT cache_get('k4-1', 'r')::text"), "1", "the cache is warm");
    compare(&[&redis], &mut session);
    await_refill(&[&redis], &mut session);
    compare(&[&redis], &mut session);
    // The same, with a Redis that has lost everything meanwhile.
    drop(session);
    cluster.stop(Stop::Fast);
    redis.command(&["FLUSHALL"]);
    cluster.resume();
    let mut session = cluster.connect("postgres");
    await_refill(&[&redis], &mut session);
    compare(&[&redis], &mut session);
}

/// A fast shutdown takes less time than the worker waits for an answer while Redis hangs, whether the worker is in a command or
/// connects.
#[test]
fn a_fast_shutdown_does_not_wait_for_redis() {
    let redis = Redis::start_with(&RedisConf::tcp());
    let proxy = Proxy::start(redis.port());
    let (cluster, mut session) =
        start(&small(writes_to(&redis.url_at(&proxy.address()))).set("pg_cache.redis_timeout", "60s"));
    fill(&mut session, "k", 900, "1");
    await_all(&[&redis], &mut session);
    let stop = |what: &str| {
        let began = Instant::now();
        cluster.stop(Stop::Fast);
        assert!(began.elapsed() < Duration::from_secs(45), "{what}: {:?}", began.elapsed());
        cluster.resume();
        cluster.connect("postgres")
    };
    proxy.hold();
    fill(&mut session, "k", 900, "2");
    let mut session = stop("in the middle of a command");
    // Now the worker hangs in its first command.
    wait_until("the worker", || of_worker(&mut session, "pid").is_some());
    fill(&mut session, "k", 100, "3");
    let mut session = stop("while it connects");
    proxy.restore();
    await_refill(&[&redis], &mut session);
    redis.pause();
    fill(&mut session, "k", 900, "4");
    let mut session = stop("while Redis stands still");
    redis.resume();
    compare(&[&redis], &mut session);
    await_refill(&[&redis], &mut session);
    compare(&[&redis], &mut session);
}

/// Databases are created and dropped while the worker waits for a Redis that hangs. DROP DATABASE waits until every process has
/// absorbed a barrier. So the worker must absorb it while it waits, long before its timeout. No other command may wait either.
#[test]
fn databases_come_and_go_while_redis_hangs() {
    let redis = Redis::start_with(&RedisConf::tcp());
    let (cluster, mut session) = start(&small(writes_to(&redis.url())).set("pg_cache.redis_timeout", "60s"));
    run(&mut session, "SELECT cache_set('k', '1', space => 'r')");
    await_value(&redis, "k", Some("1"));
    redis.pause();
    run(&mut session, "SELECT cache_set('k', '2', space => 'r')");
    // A command that waits for the worker takes as long as the rest of the timeout.
    let mut run_soon = |command: &str| {
        let began = Instant::now();
        run(&mut session, command);
        assert!(began.elapsed() < Duration::from_secs(30), "{command}: {:?}", began.elapsed());
    };
    for number in 0..3 {
        run_soon(&format!("CREATE DATABASE d{number} TEMPLATE template0"));
        drop(cluster.connect(&format!("d{number}")));
        run_soon(&format!("DROP DATABASE d{number} WITH (FORCE)"));
    }
    run_soon("CREATE EXTENSION IF NOT EXISTS pg_cache; CHECKPOINT");
    redis.resume();
    await_value(&redis, "k", Some("2"));
}

/// A server that was promoted writes its own cache, which is empty at first.
#[test]
fn a_promoted_standby_takes_over() {
    let redis = Redis::start();
    let (primary, mut session) = start(&writes_to(&redis.url()));
    fill(&mut session, "k", 100, "1");
    await_all(&[&redis], &mut session);
    let standby = pg_cache_testbed::Cluster::start(&Conf::preloaded());
    standby.stop(Stop::Fast);
    standby.follow(&primary);
    standby.resume();
    // The standby has the same URL, and its cache is empty. It must not take the primary's values away.
    let mut reader = standby.connect("postgres");
    run(&mut session, "SELECT cache_set('more', '1', space => 'r')");
    await_value(&redis, "more", Some("1"));
    compare(&[&redis], &mut session);
    assert_eq!(held(&[&redis]).len(), 101, "{:?}", of_worker(&mut reader, "connected"));
    drop((session, reader));
    primary.stop(Stop::Fast);
    run(&mut standby.connect("postgres"), "SELECT pg_promote(wait_seconds => 180)");
    let mut session = standby.connect("postgres");
    run(&mut session, "SELECT cache_set('k1', '2', space => 'r')");
    await_value(&redis, "k1", Some("2"));
    compare(&[&redis], &mut session);
}

/// The network delivers commands of a worker after it has ended, and after the next worker has written newer values. The old
/// commands must not run.
#[test]
fn commands_of_a_worker_that_has_ended_never_run() {
    let redis = Redis::start_with(&RedisConf::tcp());
    let proxy = Proxy::start(redis.port());
    let (cluster, mut session) =
        start(&writes_to(&redis.url_at(&proxy.address())).set("pg_cache.redis_timeout", "30s"));
    for is_crash in [false, true] {
        run(
            &mut session,
            "SELECT cache_set('k', '\"before\"', space => 'r'), cache_set('deleted', '1', space => 'r')",
        );
        await_all(&[&redis], &mut session);
        proxy.hold_present();
        run(
            &mut session,
            "SELECT cache_set('k', '\"late\"', space => 'r'), cache_set('deleted', '2', space => 'r')",
        );
        wait_until("the worker to send", || proxy.held_pieces() > 0);
        let worker: i32 = one(&mut session, "SELECT pid FROM cache_workers WHERE kind = 'redis'");
        if is_crash {
            cluster.crash(worker);
            session = cluster.connect("postgres");
        } else {
            run(&mut session, &format!("SELECT pg_terminate_backend({worker}, 20000)"));
        }
        run(&mut session, "SELECT cache_set('k', '\"last\"', space => 'r'), cache_delete('deleted', 'r')");
        await_value(&redis, "k", Some("\"last\""));
        settle(&mut session);
        proxy.restore();
        wait_until("the old commands to arrive", || proxy.held_pieces() == 0);
        // Redis reads the commands that have arrived before it answers the second of these.
        redis.command(&["PING"]);
        redis.command(&["PING"]);
        assert_eq!(
            (value(&redis, "k").as_deref(), value(&redis, "deleted")),
            (Some("\"last\""), None),
            "{is_crash}"
        );
    }
}
