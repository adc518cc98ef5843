//! Tests with too little memory: Redis refuses values, evicts them, or evicts the sets that name the keys of a tag (`mod.rs`); the
//! cache evicts values that Redis has. No outdated copy may stay in Redis.

use super::storm::storm;
use super::{
    await_all, compare, fill, held, in_r, is_connected, is_set, presence, run, settle, start, value,
    writes_to,
};
use crate::table_faults::health;
use pg_cache_testbed::{Redis, RedisConf, wait_until};
use postgres::Client;

/// A value that Redis refuses is removed there, so that the older one is not left.
#[test]
fn a_full_redis_has_no_outdated_value() {
    let redis = Redis::start_with(&RedisConf::tcp().max_memory("4mb", "noeviction"));
    let (cluster, mut session) = start(&writes_to(&redis.url()));
    let set = |session: &mut _, first: usize, last: usize, letter: char, length: usize| {
        run(
            session,
            &format!(
                "SELECT count(cache_set_text('k' || i, repeat('{letter}', {length}), space => 'r'))
                   FROM generate_series({first}, {last}) AS i"
            ),
        );
    };
    (0..10).for_each(|part| set(&mut session, part * 500 + 1, part * 500 + 500, 'a', 100));
    settle(&mut session);
    // Much larger values take the place of the small ones: most of them are refused.
    (0..10).for_each(|part| set(&mut session, part * 500 + 1, part * 500 + 500, 'b', 2000));
    compare(&[&redis], &mut session);
    let (present, live) = presence(&[&redis], &mut session);
    assert!(present < live, "Redis has room for all {live}");
    wait_until("the finding", || health(&mut session).iter().any(|finding| finding.contains("refuse")));
    wait_until("a connection, because only values are refused", || is_connected(&mut session));
    run(&mut session, "SELECT count(cache_delete('k' || i, 'r')) FROM generate_series(1, 900) AS i");
    run(&mut session, "SELECT cache_invalidate_tag('t')");
    compare(&[&redis], &mut session);
    storm(&cluster, &mut session, |storm, _| storm.await_commits(3000), || vec![&redis]);
    // There is room again.
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    run(&mut session, "SELECT cache_set('k1', '1', space => 'r')");
    wait_until("a value", || value(&redis, "k1").as_deref() == Some("1"));
    compare(&[&redis], &mut session);
}

/// A set of a tag is gone when the tag is invalidated. The values with the tag must not stay.
#[test]
fn an_evicted_set_of_a_tag_leaves_no_value() {
    let redis = Redis::start_with(&RedisConf::tcp());
    let (_cluster, mut session) = start(&writes_to(&redis.url()));
    run(&mut session, "CREATE TABLE t (v int); SELECT cache_watch('t', '{watched}')");
    let sets = |redis: &Redis| -> Vec<String> {
        let keys = redis.connect().scan("*").into_iter();
        keys.map(|key| String::from_utf8_lossy(&key).into_owned()).filter(|key| is_set(key)).collect()
    };
    for invalidate in ["SELECT cache_invalidate_tag('a')", "INSERT INTO t VALUES (1)"] {
        for add_later in [false, true] {
            run(
                &mut session,
                "SELECT count(cache_set('k' || i, '1', tags => '{a,watched}', space => 'r')) FROM generate_series(1, 50) AS i",
            );
            run(&mut session, "SELECT cache_set('free', '1', tags => '{other}', space => 'r')");
            await_all(&[&redis], &mut session);
            let evicted = sets(&redis);
            assert!(!evicted.is_empty());
            for set in evicted {
                redis.command(&["DEL", &set]);
            }
            if add_later {
                // The set exists again, without the earlier members.
                run(&mut session, "SELECT cache_set('late', '1', tags => '{a,watched}', space => 'r')");
                settle(&mut session);
            }
            run(&mut session, invalidate);
            compare(&[&redis], &mut session);
            let keys: Vec<_> = held(&[&redis]).into_keys().collect();
            assert_eq!(keys, [in_r("free").into_bytes()], "{invalidate}, {add_later}");
        }
    }
}

/// Redis evicts keys of all kinds at random while sessions change keys.
#[test]
fn a_redis_that_evicts_has_no_outdated_value() {
    let redis = Redis::start_with(&RedisConf::tcp().max_memory("3mb", "allkeys-random"));
    let (cluster, mut session) = start(&writes_to(&redis.url()));
    // The sessions of the storm empty the space r now and then.
    run(&mut session, "SELECT cache_create_space('large', redis => true)");
    storm(
        &cluster,
        &mut session,
        |storm, session| {
            for part in 0..10 {
                run(
                    session,
                    &format!(
                        "SELECT count(cache_set_text('large {part} ' || i, repeat('x', 1000), tags => ARRAY['l', 'l' || i % 50],
                                                     space => 'large')) FROM generate_series(1, 500) AS i"
                    ),
                );
                storm.await_commits(300);
                run(
                    session,
                    &format!(
                        "SELECT cache_invalidate_tag('l{part}'), cache_invalidate_tag('l{}')",
                        part + 20
                    ),
                );
            }
        },
        || vec![&redis],
    );
    assert_ne!(redis.info("evicted_keys").as_deref(), Some("0"), "the test evicts nothing");
    run(&mut session, "SELECT cache_invalidate_tag('l')");
    compare(&[&redis], &mut session);
}

/// `FLUSHALL` in Redis loses the values, and leaves no outdated one.
#[test]
fn a_flushed_redis_has_no_outdated_value() {
    let redis = Redis::start_with(&RedisConf::tcp());
    let (_cluster, mut session) = start(&writes_to(&redis.url()));
    run(&mut session, "SELECT cache_set('k', '1', tags => '{t}', space => 'r')");
    fill(&mut session, "f", 10, "1");
    await_all(&[&redis], &mut session);
    redis.command(&["FLUSHALL"]);
    run(&mut session, "SELECT cache_set('l', '1', tags => '{t}', space => 'r')");
    settle(&mut session);
    run(&mut session, "SELECT cache_invalidate_tag('t')");
    compare(&[&redis], &mut session);
    assert_eq!(value(&redis, "l"), None);
}

/// Redis still has values that the cache has evicted. Fails if a change of their keys, tags or tables does not reach Redis.
#[test]
fn values_that_the_cache_has_evicted_follow_changes() {
    let redis = Redis::start();
    let (_cluster, mut session) = start(&writes_to(&redis.url()).set("pg_cache.hot_size", "8MB"));
    run(&mut session, "CREATE TABLE t (v int); SELECT cache_watch('t')");
    for part in 0..20 {
        let set = format!(
            "SELECT count(cache_set_text('k' || i, repeat('x', 1500), '1 hour',
                                         CASE i % 4 WHEN 0 THEN '{{a}}' WHEN 1 THEN '{{t}}' END::text[], 'r'))
               FROM generate_series({}, {}) AS i",
            part * 500,
            part * 500 + 499
        );
        run(&mut session, &set);
        settle(&mut session);
    }
    let evicted = |session: &mut Client| -> Vec<usize> {
        let numbers: Vec<_> = held(&[&redis])
            .into_keys()
            .filter_map(|key| String::from_utf8_lossy(&key).strip_prefix(&in_r("k"))?.parse().ok())
            .collect();
        let names: Vec<_> = numbers.iter().map(|number: &usize| format!("k{number}")).collect();
        let rows = session
            .query(
                "SELECT cache_exists(k, 'r') FROM unnest($1::text[]) WITH ORDINALITY AS u (k, n) ORDER BY n",
                &[&names],
            )
            .expect("they are looked for");
        numbers
            .into_iter()
            .zip(rows)
            .filter(|(_, row)| !row.get::<_, bool>(0))
            .map(|(number, _)| number)
            .collect()
    };
    let before = evicted(&mut session);
    assert!(before.len() > 1000, "the cache has evicted only {} values that Redis has", before.len());
    run(&mut session, "SELECT cache_invalidate_tag('a')");
    run(&mut session, "INSERT INTO t VALUES (1)");
    let plain: Vec<_> = before.iter().filter(|number| *number % 4 > 1).take(300).collect();
    for (index, number) in plain.iter().enumerate() {
        let command = match index % 3 {
            0 => format!("SELECT cache_delete('k{number}', 'r')"),
            // A value that is refused, and one that never lives.
            1 => format!("SELECT cache_set_text('k{number}', repeat('x', 9000000), space => 'r')"),
            _ => format!("SELECT cache_set_text('k{number}', 'x', '0', space => 'r')"),
        };
        run(&mut session, &command);
    }
    settle(&mut session);
    let after = evicted(&mut session);
    let stale: Vec<_> = after.iter().filter(|number| *number % 4 < 2 || plain.contains(number)).collect();
    assert!(
        stale.is_empty(),
        "{} of {} are outdated: {:?}",
        stale.len(),
        before.len(),
        &stale[..stale.len().min(20)]
    );
}
