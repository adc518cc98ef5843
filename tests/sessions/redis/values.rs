//! Tests that each kind of change reaches the copies in Redis (`mod.rs`), and that a rollback does not. The worker that makes the
//! copies learns of changes from the *journal*, a ring in shared memory whose records name what has changed. A *fence* is a word in
//! shared memory that says when something that values depend on last changed (`docs/invalidation.md`).

use super::storm::storm;
use super::{
    PREFIX, await_all, await_value, compare, fill, held, in_r, is_set, reload, run, settle, start, value,
    writes_to,
};
use crate::tables::one;
use pg_cache_testbed::{Cluster, Redis, wait_until};
use postgres::Client;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Starts Redis and a cluster that writes to it. The session is in the database `postgres`, which has the spaces `r`, whose values
/// are copied to Redis, and `plain`, whose values are not.
fn with_redis() -> (Redis, Cluster, Client) {
    let redis = Redis::start();
    let (cluster, session) = start(&writes_to(&redis.url()));
    (redis, cluster, session)
}

/// Every change of a key reaches Redis: set, overwrite, delete, count, touch and expire. A change in a space without `redis` does
/// not.
#[test]
fn changes_of_keys_reach_redis() {
    let (redis, _cluster, mut session) = with_redis();
    for (command, key, expected) in [
        ("cache_set('a', '{\"x\": [1, 2]}', space => 'r')", "a", Some("{\"x\": [1, 2]}")),
        ("cache_set('a', '2', space => 'r')", "a", Some("2")),
        ("cache_delete('a', 'r')", "a", None),
        ("cache_set_text('a', 'text', space => 'r')", "a", Some("\"text\"")),
        ("cache_set('a', '3', '0', space => 'r')", "a", None),
        ("cache_incr('n', 5, '1 hour', 'r')", "n", Some("5")),
        ("cache_incr('n', -7, space => 'r')", "n", Some("-2")),
        ("cache_delete_many('{n,a}', 'r')", "n", None),
        ("cache_set_many('{\"m1\": 1, \"m2\": 2}', space => 'r')", "m2", Some("2")),
        ("cache_set('m1', '7', mode => 'absent', space => 'r')", "m1", Some("1")),
        ("cache_set('m1', '8', mode => 'present', space => 'r')", "m1", Some("8")),
        ("cache_set('short', '1', '1 s', space => 'r')", "m1", Some("8")),
        ("cache_set('m1', '9', space => 'plain')", "m1", Some("8")),
    ] {
        run(&mut session, &format!("SELECT {command}"));
        await_value(&redis, key, expected);
    }
    let left = |redis: &Redis| redis.connect().send(&["PTTL", &in_r("m2")]).integer();
    assert!(left(&redis) > 1_800_000);
    run(&mut session, "SELECT cache_touch('m2', '10 minutes', 'r')");
    wait_until("the shorter time to live", || left(&redis) <= 600_000);
    wait_until("the end of the short value", || held(&[&redis]).len() == 2);
    compare(&[&redis], &mut session);
}

/// A value leaves Redis with its tag, and with a change of a watched table. Values with other tags stay.
#[test]
fn invalidations_remove_values() {
    let (redis, _cluster, mut session) = with_redis();
    run(
        &mut session,
        "CREATE TABLE t (v int); SELECT cache_watch('t');
         SELECT cache_set('ab', '1', tags => '{a,b}', space => 'r'), cache_set('b', '1', tags => '{b}', space => 'r'),
                cache_set('none', '1', space => 'r')",
    );
    run(
        &mut session,
        "SELECT cache_set('of t', '1', tags => '{t}', space => 'r'), cache_set('of both', '1', tags => '{t,a}', space => 'r')",
    );
    await_all(&[&redis], &mut session);
    let there = |redis: &Redis| -> Vec<String> {
        let keys = held(&[redis]).into_keys();
        keys.map(|key| String::from_utf8_lossy(&key[in_r("").len()..]).into_owned()).collect()
    };
    assert_eq!(there(&redis), ["ab", "b", "none", "of both", "of t"]);
    for (command, left) in [
        (
            "BEGIN; INSERT INTO t VALUES (1); SELECT cache_invalidate_tag('a'); ROLLBACK",
            vec!["ab", "b", "none", "of both", "of t"],
        ),
        ("SELECT cache_invalidate_tag('a')", vec!["b", "none", "of t"]),
        ("INSERT INTO t VALUES (1)", vec!["b", "none"]),
        ("SELECT cache_invalidate_tags('{unknown,b}')", vec!["none"]),
    ] {
        run(&mut session, command);
        settle(&mut session);
        assert_eq!(there(&redis), left, "{command}");
    }
    // The same keys again.
    run(&mut session, "SELECT cache_set('ab', '2', tags => '{a,b}', space => 'r')");
    run(&mut session, "SELECT cache_set('of t', '2', tags => '{t}', space => 'r')");
    settle(&mut session);
    assert_eq!(there(&redis), ["ab", "none", "of t"]);
    run(&mut session, "SELECT cache_invalidate_relation('t'), cache_invalidate_tag('b')");
    settle(&mut session);
    assert_eq!(there(&redis), ["none"]);
    compare(&[&redis], &mut session);
}

/// Values leave Redis with the rows that they stand for, with patterns and with events. Values of other rows stay.
#[test]
fn rows_patterns_and_events_remove_values() {
    let (redis, _cluster, mut session) = with_redis();
    run(
        &mut session,
        "CREATE TABLE t (id int, v int); INSERT INTO t VALUES (1, 0), (2, 0), (3, 0); SELECT cache_watch('t', ARRAY['t:{id}']);
         SELECT cache_on_event('e', ARRAY['key:{id}', 'tag:e:{id}', 'match:p:{id}:*'], 'r')",
    );
    let all = "SELECT cache_set('row 1', '1', tags => '{t:1}', space => 'r'), cache_set('row 2', '1', tags => '{t:2}', space => 'r'),
                      cache_set('key:1', '1', space => 'r'), cache_set('key:2', '1', space => 'r'), cache_set('p:1:x', '1', space => 'r'),
                      cache_set('p:2:x', '1', space => 'r'), cache_set('of e 1', '1', tags => '{e:1}', space => 'r')";
    let there = |redis: &Redis| -> Vec<String> {
        let keys = held(&[redis]).into_keys();
        keys.map(|key| String::from_utf8_lossy(&key[in_r("").len()..]).into_owned()).collect()
    };
    let names = ["key:1", "key:2", "of e 1", "p:1:x", "p:2:x", "row 1", "row 2"];
    for (command, left) in [
        ("UPDATE t SET v = 1 WHERE id = 3", &names[..]),
        ("UPDATE t SET v = 1 WHERE id = 1", &["key:1", "key:2", "of e 1", "p:1:x", "p:2:x", "row 2"]),
        ("TRUNCATE t", &["key:1", "key:2", "of e 1", "p:1:x", "p:2:x"]),
        ("SELECT cache_invalidate_tag('e:1')", &["key:1", "key:2", "p:1:x", "p:2:x", "row 1", "row 2"]),
        ("SELECT cache_emit('e', '{\"id\": 1}')", &["key:2", "p:2:x", "row 1", "row 2"]),
        (
            "SELECT cache_invalidate_pattern('p:2:*', 'r')",
            &["key:1", "key:2", "of e 1", "p:1:x", "row 1", "row 2"],
        ),
    ] {
        // While the first value that depends on a table is stored, the table shares a fence with other tables, so a commit of
        // another session may invalidate the value. The second value depends on the table's own fence. So all are stored twice.
        run(&mut session, all);
        run(&mut session, all);
        settle(&mut session);
        assert_eq!(there(&redis), names, "before {command}");
        run(&mut session, command);
        settle(&mut session);
        assert_eq!(there(&redis), left, "after {command}");
        compare(&[&redis], &mut session);
    }
}

/// If a tag that a key no longer has is invalidated, Redis may lose the key's value, but never has a wrong one. The key's present
/// tag still removes the value.
#[test]
fn a_tag_that_a_key_has_no_longer_leaves_its_value() {
    let (redis, _cluster, mut session) = with_redis();
    run(&mut session, "SELECT cache_set('k', '1', tags => '{a}', space => 'r')");
    await_value(&redis, "k", Some("1"));
    run(&mut session, "SELECT cache_set('k', '2', tags => '{b}', space => 'r')");
    await_value(&redis, "k", Some("2"));
    run(&mut session, "SELECT cache_invalidate_tag('a')");
    settle(&mut session);
    compare(&[&redis], &mut session);
    run(&mut session, "SELECT cache_invalidate_tag('b')");
    settle(&mut session);
    assert_eq!(value(&redis, "k"), None);
}

/// A flush of a space and a dropped space remove the values of this space only.
#[test]
fn a_flush_empties_the_space_only() {
    let (redis, _cluster, mut session) = with_redis();
    run(
        &mut session,
        "SELECT cache_create_space('r2', redis => true), cache_create_space('r%:#', redis => true)",
    );
    let set = "SELECT count(cache_set('k' || i, '1', '1 hour', space => s))
                 FROM generate_series(1, 500) AS i, unnest('{r,r2,r%:#}'::text[]) AS s";
    let count = |redis: &Redis, space: &str| {
        let prefix = format!("{PREFIX}postgres:{space}:").into_bytes();
        held(&[redis]).keys().filter(|key| key.starts_with(&prefix)).count()
    };
    run(&mut session, set);
    await_all(&[&redis], &mut session);
    assert_eq!(["r", "r2", "r%25%3A%23"].map(|space| count(&redis, space)), [500; 3]);
    run(&mut session, "SELECT cache_flush('r')");
    settle(&mut session);
    assert_eq!(["r", "r2", "r%25%3A%23"].map(|space| count(&redis, space)), [0, 500, 500]);
    run(&mut session, "SELECT cache_drop_space('r%:#')");
    settle(&mut session);
    assert_eq!(["r", "r2", "r%25%3A%23"].map(|space| count(&redis, space)), [0, 500, 0]);
    run(&mut session, "SELECT cache_flush('*')");
    settle(&mut session);
    assert_eq!(held(&[&redis]).len(), 0);
    run(&mut session, "SELECT cache_set('k', '1', space => 'r')");
    await_value(&redis, "k", Some("1"));
    compare(&[&redis], &mut session);
}

/// Changes that a transaction or a savepoint has taken back never reach Redis.
#[test]
fn a_rollback_leaves_no_trace() {
    let (redis, _cluster, mut session) = with_redis();
    run(&mut session, "SELECT cache_set('old', '1', tags => '{t}', space => 'r')");
    await_value(&redis, "old", Some("1"));
    let has_removed = |redis: &Redis| redis.command(&["INFO", "commandstats"]).contains("cmdstat_unlink");
    for command in [
        "BEGIN; SELECT cache_set('old', '2', space => 'r'), cache_set('new', '2', space => 'r'); ROLLBACK",
        "BEGIN; SELECT cache_delete('old', 'r'), cache_invalidate_tag('t'), cache_flush('r'), cache_flush('*'); ROLLBACK",
        "BEGIN; SAVEPOINT s; SELECT cache_set('new', '3', space => 'r'), cache_delete('old', 'r'); ROLLBACK TO s; COMMIT",
    ] {
        run(&mut session, command);
    }
    session
        .batch_execute("DO $$ BEGIN PERFORM cache_set('new', '4', space => 'r'); PERFORM 1 / 0; END $$")
        .expect_err("it divides by zero");
    run(&mut session, "SELECT cache_set('last', '1', space => 'r')");
    await_value(&redis, "last", Some("1"));
    settle(&mut session);
    assert_eq!((value(&redis, "old").as_deref(), value(&redis, "new")), (Some("1"), None));
    assert!(!has_removed(&redis), "nothing was ever removed");
    compare(&[&redis], &mut session);
}

/// Every kind of value is JSON text.
#[test]
fn values_are_json() {
    let (redis, _cluster, mut session) = with_redis();
    let planes: String = (0..=16)
        .filter_map(|plane| char::from_u32(plane * 0x10000 + 0x1234))
        .chain("\"\\/\u{1}\u{7f}\n\r\t\u{2028}\u{fffd}\u{10ffff}é".chars())
        .collect();
    session.execute("SELECT cache_set_text('text', $1, space => 'r')", &[&planes]).expect("it is set");
    let jsonb = "{\"a\": [1, 2.50, -1e400, null, true, {}], \"\u{1f600}\": \"\\\"\\n\"}";
    session
        .execute("SELECT cache_set('jsonb', $1::text::jsonb, space => 'r')", &[&jsonb])
        .expect("it is set");
    run(
        &mut session,
        "SELECT cache_set_bytes('bytes', '\\x6869', space => 'r'), cache_set_bytes('no bytes', '', space => 'r'),
                cache_set_text('no text', '', space => 'r'), cache_set('null', 'null', space => 'r'),
                cache_set('string', '\"s\"', space => 'r'), cache_incr('max', 9223372036854775807, '1 hour', 'r'),
                cache_incr('min', -9223372036854775808, '1 hour', 'r')",
    );
    run(&mut session, "SELECT cache_set_text('large', repeat('é\"', 500000), space => 'r')");
    await_all(&[&redis], &mut session);
    let expected_jsonb: String = one(&mut session, "SELECT cache_get('jsonb', 'r')::text");
    for (key, expected) in [
        ("jsonb", expected_jsonb.as_str()),
        ("bytes", r#""\\x6869""#),
        ("no bytes", r#""\\x""#),
        ("no text", r#""""#),
        ("null", "null"),
        ("string", r#""s""#),
        ("max", "9223372036854775807"),
        ("min", "-9223372036854775808"),
    ] {
        assert_eq!(value(&redis, key).as_deref(), Some(expected), "{key}");
    }
    let text = value(&redis, "text").expect("it is there");
    assert_eq!(serde_json::from_str::<String>(&text).expect("it is JSON"), planes);
    assert_eq!(value(&redis, "large").map(|text| text.chars().count()), Some(2 + 3 * 500_000));
}

/// The time to live in Redis is the rest of that in the cache, within a second, and at most `pg_cache.redis_max_ttl`.
#[test]
fn the_time_to_live_is_that_of_the_cache_up_to_a_limit() {
    let (redis, _cluster, mut session) = with_redis();
    let left = |redis: &Redis, key: &str| redis.connect().send(&["PTTL", &in_r(key)]).integer();
    for (key, ttl) in [("short", "2 min"), ("half", "30 min"), ("long", "1 day")] {
        let in_cache = format!("SELECT 1000 * extract(epoch FROM cache_ttl('{key}', 'r'))::float8");
        let limit = 3_600_000.0;
        let mut seen = Vec::new();
        let began = Instant::now();
        // The copy lives longer by the time from the worker's look at the value to Redis. On a busy machine that may be more than a
        // second, and then the value is set again.
        loop {
            run(&mut session, &format!("SELECT cache_delete('{key}', 'r')"));
            await_value(&redis, key, None);
            run(&mut session, &format!("SELECT cache_set('{key}', '1', '{ttl}', space => 'r')"));
            await_value(&redis, key, Some("1"));
            let before: f64 = one(&mut session, &in_cache);
            let in_redis = left(&redis, key) as f64;
            let after: f64 = one(&mut session, &in_cache);
            let is_right = in_redis <= before.min(limit) + 1000.0
                && in_redis >= after.min(limit) - 10_000.0
                && (key == "long" || (in_redis - after).abs() < 1000.0 + (before - after));
            seen.push((before, in_redis, after));
            if is_right {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(120), "{key}: {seen:?}");
        }
    }
    reload(&mut session, "pg_cache.redis_max_ttl", "10s");
    wait_until("the shorter limit", || {
        run(&mut session, "SELECT cache_set('later', '1', '1 hour', space => 'r')");
        settle(&mut session);
        (1..=10_000).contains(&left(&redis, "later"))
    });
    wait_until("the limit for all", || ["half", "long"].iter().all(|key| left(&redis, key) <= 10_000));
    // For each tag, Redis has a set of the keys that have the tag (`mod.rs`). It must live longer than its members, and expire.
    run(&mut session, "SELECT cache_set('tagged', '1', tags => '{t}', space => 'r')");
    await_value(&redis, "tagged", Some("1"));
    let mut connection = redis.connect();
    let keys: Vec<_> =
        connection.scan("*").into_iter().map(|key| String::from_utf8_lossy(&key).into_owned()).collect();
    let sets: Vec<_> = keys.iter().filter(|key| is_set(key)).collect();
    assert!(!sets.is_empty(), "{keys:?}");
    for set in sets {
        let left = connection.send(&["PTTL", set]).integer();
        assert!((10_000..=200_000).contains(&left), "{set}: {left}");
    }
}

/// The worker never touches a key outside of its prefix. Fails if a key of another owner changes.
#[test]
fn foreign_keys_stay() {
    let redis = Redis::start();
    let foreign = ["pg_cache", "pg_", "other:postgres:r:k", "*", "PG_CACHE:postgres:r:k", "pg_cache;"];
    for key in foreign {
        redis.command(&["SET", key, "mine"]);
    }
    let (_cluster, mut session) = start(&writes_to(&redis.url()));
    fill(&mut session, "k", 10, "1");
    await_value(&redis, "k10", Some("1"));
    run(&mut session, "SELECT cache_set('k', '1', tags => '{t}', space => 'r')");
    for command in
        ["cache_invalidate_tag('t')", "cache_flush('r')", "cache_drop_space('r')", "cache_flush('*')"]
    {
        run(&mut session, &format!("SELECT {command}"));
        settle(&mut session);
    }
    reload(&mut session, "pg_cache.redis_url", "");
    wait_until("the keys to leave", || {
        let keys = redis.connect().scan("*");
        !keys.iter().any(|key| key.starts_with(PREFIX.as_bytes()))
    });
    for key in foreign {
        assert_eq!(redis.command(&["GET", key]), "mine");
    }
    assert_eq!(redis.command(&["DBSIZE"]), foreign.len().to_string());
}

/// The result of a query stays in the database. Fails if Redis gets one, or keeps the earlier value of a key that now has a result.
#[test]
fn results_of_queries_are_not_written() {
    let (redis, _cluster, mut session) = with_redis();
    run(
        &mut session,
        "CREATE TABLE t (v int); INSERT INTO t VALUES (1);
         SELECT cache_set('before', '1', space => 'r'), cache_set('turned', '1', space => 'r')",
    );
    await_value(&redis, "turned", Some("1"));
    run(
        &mut session,
        "SELECT cache_fetch('f', 'SELECT v FROM t', space => 'r'), cache_fetch('turned', 'SELECT v + 1 FROM t', space => 'r')",
    );
    run(&mut session, "SELECT cache_set('last', '1', space => 'r')");
    await_value(&redis, "last", Some("1"));
    settle(&mut session);
    let keys: Vec<_> =
        held(&[&redis]).into_keys().map(|key| String::from_utf8_lossy(&key).into_owned()).collect();
    assert_eq!(keys, ["before", "last"].map(in_r));
}

/// If a transaction has more than a thousand changes, the journal has one record that stands for all of them. Fails if a change of
/// such a transaction does not arrive.
#[test]
fn large_transactions_arrive_completely() {
    let (redis, _cluster, mut session) = with_redis();
    fill(&mut session, "k", 5000, "1");
    await_all(&[&redis], &mut session);
    assert_eq!(held(&[&redis]).len(), 5000);
    run(
        &mut session,
        "BEGIN; SELECT count(cache_set('k' || i, '2', space => 'r')) FROM generate_series(1, 2500) AS i;
         SELECT count(cache_delete('k' || i, 'r')) FROM generate_series(2501, 5000) AS i; COMMIT",
    );
    settle(&mut session);
    compare(&[&redis], &mut session);
    await_all(&[&redis], &mut session);
    assert_eq!(held(&[&redis]).len(), 2500);
}

/// The keys with many tags are removed in a few round trips, and not in some for each tag. The worker publishes the keys that one
/// round trip has removed with one command, so the number of these commands tells. Fails if it grows with the tags.
#[test]
fn many_tags_are_removed_together() {
    let (redis, _cluster, mut session) = with_redis();
    run(
        &mut session,
        "SELECT count(cache_set('k' || i, '1', tags => ARRAY['t' || i], space => 'r')) FROM generate_series(1, 900) AS i",
    );
    run(&mut session, "SELECT cache_set('other', '1', tags => '{other}', space => 'r')");
    await_all(&[&redis], &mut session);
    let published = || {
        let statistics = redis.info("cmdstat_publish").unwrap_or_default();
        let calls = statistics.split(',').find_map(|field| field.strip_prefix("calls=")).unwrap_or("0");
        calls.parse::<u32>().expect("it is a number")
    };
    let before = published();
    // The last statement changes a key after the tags: the removal must not take the new value along.
    run(&mut session, "SELECT cache_invalidate_tags(array_agg('t' || i)) FROM generate_series(1, 900) AS i");
    run(&mut session, "SELECT cache_set('k7', '2', tags => '{t7}', space => 'r')");
    settle(&mut session);
    await_value(&redis, "k7", Some("2"));
    let commands = published() - before;
    assert!(commands < 200, "{commands} commands for 900 tags");
    compare(&[&redis], &mut session);
    assert_eq!(held(&[&redis]).len(), 2);
    run(&mut session, "SELECT cache_invalidate_tags('{t7,other}')");
    settle(&mut session);
    assert_eq!(held(&[&redis]).len(), 0);
}

/// The sets of a tag belong to a stretch of time, a minute longer than the longest time to live. A tag has values from the end of
/// one stretch and from the beginning of the next one when it is invalidated. Only `make test-long` waits for such a moment.
#[test]
fn tags_reach_values_of_the_stretch_before() {
    if !std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty()) {
        return;
    }
    let redis = Redis::start();
    let (_cluster, mut session) = start(&writes_to(&redis.url()).set("pg_cache.redis_max_ttl", "20s"));
    const STRETCH: u64 = 80_000;
    let until_the_next_stretch = || {
        let now =
            SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_millis() as u64;
        Duration::from_millis(STRETCH - now % STRETCH)
    };
    let mut set = |key: &str| {
        run(&mut session, &format!("SELECT cache_set('{key}', '1', tags => '{{t}}', space => 'r')"));
        await_value(&redis, key, Some("1"));
    };
    // The first value needs some time on a busy machine.
    std::thread::sleep(until_the_next_stretch().saturating_sub(Duration::from_secs(3)));
    set("earlier");
    std::thread::sleep(until_the_next_stretch());
    set("later");
    run(&mut session, "SELECT cache_invalidate_tag('t')");
    settle(&mut session);
    assert_eq!(["earlier", "later"].map(|key| value(&redis, key)), [None, None]);
}

/// Values expire in Redis long before they expire in the cache. Redis must not get or keep an outdated value because of that.
#[test]
fn copies_with_a_short_life_end_with_the_last_values() {
    let redis = Redis::start();
    let (cluster, mut session) = start(&writes_to(&redis.url()).set("pg_cache.redis_max_ttl", "1s"));
    storm(&cluster, &mut session, |storm, _| storm.await_commits(8000), || vec![&redis]);
}

/// A space that is not enabled has no values, neither in the cache nor in Redis.
#[test]
fn a_space_that_is_not_enabled_has_no_value_in_redis() {
    let (redis, _cluster, mut session) = with_redis();
    fill(&mut session, "k", 100, "1");
    await_all(&[&redis], &mut session);
    run(&mut session, "SELECT cache_alter_space('r', enabled => false)");
    compare(&[&redis], &mut session);
    assert_eq!(held(&[&redis]).len(), 0);
    run(&mut session, "SELECT cache_alter_space('r', enabled => true)");
    run(&mut session, "SELECT cache_set('k1', '2', space => 'r')");
    await_value(&redis, "k1", Some("2"));
    compare(&[&redis], &mut session);
}

/// The values leave Redis with the extension, and do not come back with another one.
#[test]
fn values_leave_with_the_extension() {
    let (redis, _cluster, mut session) = with_redis();
    run(
        &mut session,
        "SELECT count(cache_set('k' || i, '1', tags => '{t}', space => 'r')) FROM generate_series(1, 100) AS i",
    );
    await_all(&[&redis], &mut session);
    run(&mut session, "DROP EXTENSION pg_cache CASCADE; DROP FUNCTION IF EXISTS json_of");
    wait_until("the values to leave", || held(&[&redis]).is_empty());
    super::prepare(&mut session);
    run(&mut session, "SELECT cache_set('k1', '2', space => 'r')");
    await_value(&redis, "k1", Some("2"));
    compare(&[&redis], &mut session);
    assert_eq!(held(&[&redis]).len(), 1);
}

/// JSON is in UTF-8, and the worker cannot convert text to it. So of a database with another encoding, Redis gets only the keys and
/// values that are ASCII. Fails if it gets a text in the other encoding, or if a value in ASCII is missing.
#[test]
fn other_encodings_are_never_written_as_they_are() {
    let (redis, cluster, mut session) = with_redis();
    for (name, encoding) in [("latin", "LATIN1"), ("ascii", "SQL_ASCII")] {
        run(&mut session, &format!("CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0"));
        let mut inside = cluster.connect(name);
        super::prepare(&mut inside);
        run(
            &mut inside,
            "SELECT cache_set('plain', '{\"a\": 1}', space => 'r'), cache_set_text('text', 'café', space => 'r'),
                    cache_set('json', '\"café\"', space => 'r'), cache_set_text('café', '1', space => 'r'),
                    cache_set_bytes('bytes', '\\xe9ff', space => 'r')",
        );
        let key = |key: &str| format!("{PREFIX}{name}:r:{key}");
        let get = |name: &str| redis.connect().send(&["GET", &key(name)]).text();
        wait_until("the value in ASCII", || get("plain").as_deref() == Some("{\"a\": 1}"));
        wait_until("the bytes", || get("bytes").as_deref() == Some(r#""\\xe9ff""#));
        settle(&mut session);
        for name in ["text", "json"] {
            let text = get(name);
            assert!(text.is_none() || text.as_deref() == Some("\"café\""), "{encoding}: {text:?}");
        }
        for key in redis.connect().scan(&format!("{PREFIX}{name}:*")) {
            assert!(std::str::from_utf8(&key).is_ok(), "{encoding}: {key:?}");
        }
    }
}
