//! Tests of what an operator sees of the copies in Redis (`mod.rs`): the view `cache_workers`, the findings of `cache_health()`,
//! the metrics, and the settings. The worker learns of changes from the *journal*, a ring in shared memory whose records name what
//! has changed.

use super::{
    await_all, await_down, await_success, await_value, fill, held, is_connected, of_worker, reload, run,
    settle, start, value, writes_to,
};
use crate::metrics::{metric, metrics};
use crate::table_faults::health;
use crate::tables::one;
use pg_cache_testbed::{Conf, Redis, RedisConf, wait_until};
use postgres::Client;

/// Returns whether a finding has all these words, which must be in lower case.
fn finds(session: &mut Client, words: &[&str]) -> bool {
    health(session).iter().any(|finding| words.iter().all(|word| finding.to_lowercase().contains(word)))
}

/// The view, the metrics and the findings show whether the worker is connected, and how far Redis is behind, before, during and
/// after an outage.
#[test]
fn the_view_shows_how_far_redis_is() {
    let redis = Redis::start_with(&RedisConf::tcp().max_memory("100mb", "allkeys-lru"));
    let (_cluster, mut session) = start(&writes_to(&redis.url()));
    fill(&mut session, "k", 100, "1");
    settle(&mut session);
    wait_until("no finding", || health(&mut session).is_empty());
    await_success(&mut session);
    let row = "SELECT concat_ws(', ', kind, database, connected, lag, lag_time, error)
                 FROM cache_workers WHERE kind = 'redis'";
    assert_eq!(one::<String>(&mut session, row), "redis, t, 0, 00:00:00");
    let resyncs = of_worker(&mut session, "resyncs").expect("there is a number");
    let metrics = ["redis_up", "redis_lag_lines", "redis_lag_seconds", "redis_resyncs_total"];
    let shown = |session: &mut Client| metrics.map(|name| metric(session, &format!("pgcache_{name}")));
    assert_eq!(shown(&mut session), [1.0, 0.0, 0.0, resyncs.parse().expect("a number")]);
    let failures = metric(&mut session, "pgcache_worker_errors_total");
    redis.pause();
    await_down(&mut session);
    fill(&mut session, "k", 100, "2");
    wait_until("the lag to grow", || {
        of_worker(&mut session, "lag >= 100 AND lag_time > '0.5 s' AND NOT connected AND error IS NOT NULL")
            .as_deref()
            == Some("true")
    });
    wait_until("the finding", || finds(&mut session, &["redis"]));
    let [up, lines, seconds, _] = shown(&mut session);
    assert_eq!(up, 0.0);
    assert!(lines >= 100.0 && seconds > 0.5, "{lines} lines, {seconds} s");
    assert!(metric(&mut session, "pgcache_worker_errors_total") > failures);
    redis.resume();
    wait_until("the end of the lag", || {
        of_worker(&mut session, "connected AND lag = 0 AND lag_time = '0' AND error IS NULL").as_deref()
            == Some("true")
    });
    wait_until("no finding", || health(&mut session).is_empty());
    assert_eq!(of_worker(&mut session, "resyncs"), Some(resyncs), "the journal reaches back");
    redis.kill();
    await_down(&mut session);
    redis.restart();
    wait_until("a resync", || {
        of_worker(&mut session, "connected AND resyncs > 1").as_deref() == Some("true")
    });
    let resyncs = of_worker(&mut session, "resyncs").expect("there is a number");
    let counted = metric(&mut session, "pgcache_redis_resyncs_total");
    assert_eq!(counted, resyncs.parse::<f64>().expect("a number"));
    await_all(&[&redis], &mut session);
}

/// The settings of Redis that keep it from being a cache are findings.
#[test]
fn unsuitable_settings_of_redis_are_found() {
    let redis = Redis::start();
    let (_cluster, mut session) = start(&writes_to(&redis.url()));
    wait_until("no limit to be found", || finds(&mut session, &["redis", "no limit"]));
    redis.command(&["CONFIG", "SET", "maxmemory", "50mb"]);
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    wait_until("the policy to be found", || finds(&mut session, &["will refuse"]));
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lfu"]);
    wait_until("no finding", || health(&mut session).is_empty());
    redis.kill();
    wait_until("the outage to be found", || finds(&mut session, &["redis", "not answer"]));
}

/// Without a URL there is no worker. A reload starts and ends it, and the keys go with it.
#[test]
fn a_reload_starts_and_ends_the_worker() {
    let redis = Redis::start();
    let (_cluster, mut session) = start(&Conf::preloaded());
    fill(&mut session, "k", 500, "1");
    assert_eq!(of_worker(&mut session, "pid"), None);
    assert!(!metrics(&mut session).contains_key("pgcache_redis_up"), "there is no Redis");
    assert_eq!(health(&mut session), Vec::<String>::new());
    reload(&mut session, "pg_cache.redis_url", &redis.url());
    await_all(&[&redis], &mut session);
    run(&mut session, "SELECT cache_set('t', '1', tags => '{t}', space => 'r')");
    await_value(&redis, "t", Some("1"));
    reload(&mut session, "pg_cache.redis_url", "");
    wait_until("the keys to leave", || redis.command(&["DBSIZE"]) == "0");
    wait_until("the worker's end", || of_worker(&mut session, "pid").is_none());
    run(&mut session, "SELECT cache_set('k1', '2', space => 'r')");
    reload(&mut session, "pg_cache.redis_url", &redis.url());
    await_value(&redis, "k1", Some("2"));
    await_all(&[&redis], &mut session);
}

/// Another URL moves the keys, also if the old server hangs.
#[test]
fn a_reload_moves_the_keys_to_another_server() {
    let [first, second, third] = [(); 3].map(|()| Redis::start_with(&RedisConf::tcp()));
    let (_cluster, mut session) = start(&writes_to(&first.url()));
    fill(&mut session, "k", 900, "1");
    run(&mut session, "SELECT cache_set('t', '1', tags => '{t}', space => 'r')");
    await_all(&[&first], &mut session);
    reload(&mut session, "pg_cache.redis_url", &second.url());
    wait_until("the keys to arrive", || held(&[&second]).len() == 901);
    wait_until("the keys to leave", || first.command(&["DBSIZE"]) == "0");
    await_all(&[&second], &mut session);
    run(&mut session, "SELECT cache_delete('k1', 'r'), cache_invalidate_tag('t')");
    settle(&mut session);
    assert_eq!((held(&[&first]).len(), held(&[&second]).len()), (0, 899));
    second.pause();
    reload(&mut session, "pg_cache.redis_url", &third.url());
    wait_until("the keys to arrive", || held(&[&third]).len() == 899);
    await_all(&[&third], &mut session);
    second.resume();
}

/// Other settings take effect with a reload, too.
#[test]
fn a_changed_timeout_keeps_the_keys() {
    let redis = Redis::start();
    let (_cluster, mut session) = start(&writes_to(&redis.url()));
    fill(&mut session, "k", 500, "1");
    await_all(&[&redis], &mut session);
    let worker = of_worker(&mut session, "pid");
    reload(&mut session, "pg_cache.redis_timeout", "2s");
    wait_until("another worker", || {
        let now = of_worker(&mut session, "pid");
        now.is_some() && now != worker && is_connected(&mut session)
    });
    await_all(&[&redis], &mut session);
    // A reload that changes nothing for the worker leaves it alone.
    let worker = of_worker(&mut session, "pid");
    reload(&mut session, "pg_cache.sweep_interval", "30min");
    run(&mut session, "SELECT cache_set('k1', '2', space => 'r')");
    await_value(&redis, "k1", Some("2"));
    assert_eq!(of_worker(&mut session, "pid"), worker);
}

/// A text that is not a URL of a Redis is refused with a hint, and the worker goes on with the present URL.
#[test]
fn a_bad_url_is_refused_with_a_hint() {
    let redis = Redis::start();
    let (_cluster, mut session) = start(&writes_to(&redis.url()));
    run(&mut session, "SELECT cache_set('k', '1', space => 'r')");
    await_value(&redis, "k", Some("1"));
    for url in [
        "http://127.0.0.1:6379",
        "127.0.0.1:6379",
        "redis:127.0.0.1",
        "redis://",
        "redis://host:port",
        "redis://host:70000",
        "redis+sentinel://127.0.0.1:26379",
        "redis+cluster://",
        "unix://",
        " ",
    ] {
        let error = session
            .batch_execute(&format!("ALTER SYSTEM SET pg_cache.redis_url = '{url}'"))
            .expect_err(&format!("{url:?} is no URL"));
        let error = error.as_db_error().expect("it is an error of the server").clone();
        assert!(error.hint().is_some(), "{url:?}: {error:?}");
    }
    for (setting, bad) in
        [("pg_cache.redis_timeout", "-1"), ("pg_cache.redis_timeout", "0"), ("pg_cache.redis_max_ttl", "0")]
    {
        session
            .batch_execute(&format!("ALTER SYSTEM SET {setting} = '{bad}'"))
            .expect_err(&format!("{setting} = {bad}"));
    }
    session.batch_execute("SET pg_cache.redis_url = ''").expect_err("a session cannot set it");
    run(&mut session, "SELECT cache_set('k', '2', space => 'r')");
    await_value(&redis, "k", Some("2"));
    assert_eq!(value(&redis, "k").as_deref(), Some("2"));
}

/// Without a journal, changes cannot be followed: nothing is written, and the view says why.
#[test]
fn without_a_journal_nothing_is_written() {
    let redis = Redis::start();
    let (_cluster, mut session) = start(&writes_to(&redis.url()).set("pg_cache.journal_size", "0"));
    fill(&mut session, "k", 10, "1");
    wait_until("the error", || {
        of_worker(&mut session, "error").is_some_and(|error| error.contains("journal"))
    });
    wait_until("the finding", || finds(&mut session, &["redis"]));
    assert_eq!(held(&[&redis]).len(), 0);
}
