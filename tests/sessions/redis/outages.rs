//! Redis is down, stands still, or has lost its data. Afterwards each key in Redis has the value of the cache, or is absent. The
//! *journal* is a ring in shared memory whose records name what has changed: the Redis worker (`mod.rs`) reads it to learn which
//! keys it must copy anew. In a *resync*, the worker compares all keys of Redis with the cache, and writes all values again, for
//! instance after Redis has lost its data, or when the journal has overwritten records that the worker still needs.

use super::storm::storm;
use super::{
    await_all, await_down, await_refill, await_success, compare, fill, held, is_connected, of_worker, run,
    settle, start, value, writes_to,
};
use pg_cache_testbed::{Redis, RedisConf, wait_until};

/// The values that were set while Redis was not there yet arrive when it is.
#[test]
fn redis_may_be_down_when_the_server_starts() {
    let redis = Redis::start_with(&RedisConf::tcp());
    redis.kill();
    let (_cluster, mut session) = start(&writes_to(&redis.url()));
    fill(&mut session, "k", 2000, "1");
    run(&mut session, "SELECT cache_delete('k1', 'r'), cache_invalidate_tag('t')");
    wait_until("an error", || of_worker(&mut session, "error").is_some());
    assert!(!is_connected(&mut session));
    redis.restart();
    wait_until("a connection", || is_connected(&mut session));
    await_all(&[&redis], &mut session);
    await_success(&mut session);
}

/// A Redis that has lost everything gets the live entries again.
#[test]
fn a_redis_that_restarts_empty_is_refilled() {
    let redis = Redis::start_with(&RedisConf::tcp());
    let (_cluster, mut session) = start(&writes_to(&redis.url()));
    (1..=10).for_each(|part| fill(&mut session, &format!("k{part}-"), 500, "1"));
    await_all(&[&redis], &mut session);
    redis.kill();
    run(&mut session, "SELECT cache_set('k1-1', '2', space => 'r'), cache_delete('k1-2', 'r')");
    await_down(&mut session);
    redis.restart();
    wait_until("a connection", || is_connected(&mut session));
    await_refill(&[&redis], &mut session);
    compare(&[&redis], &mut session);
    // The worker goes on as before.
    run(&mut session, "SELECT cache_delete('k1-1', 'r'), cache_set('k1-3', '3', space => 'r')");
    settle(&mut session);
    assert_eq!((value(&redis, "k1-1"), value(&redis, "k1-3").as_deref()), (None, Some("3")));
    assert!(of_worker(&mut session, "resyncs").is_some_and(|count| count != "0"));
}

/// A Redis that has old data has outdated values of keys that nothing has changed while it was down.
#[test]
fn a_redis_that_restarts_with_old_data_is_corrected() {
    let redis = Redis::start_with(&RedisConf::tcp());
    let (_cluster, mut session) = start(&writes_to(&redis.url()));
    fill(&mut session, "k", 900, "1");
    run(
        &mut session,
        "SELECT count(cache_set('t' || i, '1', tags => '{t}', space => 'r')) FROM generate_series(1, 300) AS i",
    );
    await_all(&[&redis], &mut session);
    redis.save();
    fill(&mut session, "k", 300, "2");
    run(&mut session, "SELECT count(cache_delete('k' || i, 'r')) FROM generate_series(301, 600) AS i");
    run(&mut session, "SELECT cache_invalidate_tag('t')");
    settle(&mut session);
    assert_eq!(held(&[&redis]).len(), 600);
    redis.kill();
    await_down(&mut session);
    redis.restart();
    wait_until("a connection", || is_connected(&mut session));
    compare(&[&redis], &mut session);
    await_all(&[&redis], &mut session);
}

/// The journal no longer reaches back to what Redis has.
#[test]
fn redis_may_be_down_for_longer_than_the_journal_reaches() {
    let redis = Redis::start_with(&RedisConf::tcp());
    let (_cluster, mut session) = start(&writes_to(&redis.url()).set("pg_cache.journal_size", "64kB"));
    (1..=4).for_each(|part| fill(&mut session, &format!("k{part}-"), 500, "1"));
    await_all(&[&redis], &mut session);
    redis.pause();
    for round in 2..=8 {
        for part in 1..=3 {
            fill(&mut session, &format!("k{part}-"), 500, &round.to_string());
        }
    }
    run(&mut session, "SELECT count(cache_delete('k1-' || i, 'r')) FROM generate_series(1, 500) AS i");
    await_down(&mut session);
    // More records than the journal has room for, each in a transaction of its own.
    for number in 0..1500 {
        run(&mut session, &format!("SELECT cache_set('more {}', '{number}', space => 'r')", number % 10));
    }
    redis.resume();
    wait_until("a connection", || is_connected(&mut session));
    compare(&[&redis], &mut session);
    await_refill(&[&redis], &mut session);
    compare(&[&redis], &mut session);
}

/// Redis stands still while sessions change keys, and goes on with commands that it had received before. Nothing that was overtaken
/// comes back.
#[test]
fn a_redis_that_stands_still_ends_with_the_last_values() {
    let redis = Redis::start_with(&RedisConf::tcp());
    let (cluster, mut session) = start(&writes_to(&redis.url()));
    storm(
        &cluster,
        &mut session,
        |storm, session| {
            for _ in 0..3 {
                storm.await_commits(1000);
                redis.pause();
                storm.await_commits(1000);
                wait_until("the worker to notice", || !is_connected(session));
                storm.await_commits(2000);
                redis.resume();
                wait_until("a connection", || is_connected(session));
            }
            // The last time, it goes on after the last change.
            redis.pause();
            storm.await_commits(1000);
        },
        || {
            redis.resume();
            vec![&redis]
        },
    );
    await_all(&[&redis], &mut session);
}

/// A short stop, which no timeout notices, delays the changes only.
#[test]
fn a_short_stop_loses_nothing() {
    let redis = Redis::start_with(&RedisConf::tcp());
    let (cluster, mut session) = start(&writes_to(&redis.url()).set("pg_cache.redis_timeout", "20s"));
    settle(&mut session);
    let resyncs = of_worker(&mut session, "resyncs");
    storm(
        &cluster,
        &mut session,
        |storm, _| {
            for _ in 0..5 {
                storm.await_commits(500);
                redis.pause();
                storm.await_commits(200);
                redis.resume();
            }
        },
        || vec![&redis],
    );
    await_all(&[&redis], &mut session);
    assert_eq!(of_worker(&mut session, "resyncs"), resyncs);
}

/// Redis is killed again and again while sessions change keys.
#[test]
fn a_redis_that_is_killed_in_a_storm_ends_with_the_last_values() {
    let redis = Redis::start_with(&RedisConf::tcp());
    let (cluster, mut session) = start(&writes_to(&redis.url()));
    storm(
        &cluster,
        &mut session,
        |storm, session| {
            for round in 0..3 {
                storm.await_commits(1000);
                if round == 1 {
                    redis.save();
                    storm.await_commits(500);
                }
                redis.kill();
                storm.await_commits(500);
                redis.restart();
                wait_until("a connection", || is_connected(session));
            }
        },
        || vec![&redis],
    );
    await_all(&[&redis], &mut session);
}
