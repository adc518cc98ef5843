//! Tests of the messages on the channel of a database in Redis: which keys the Redis worker (`mod.rs`) has set and removed there.
//! `mod.rs` also explains the refill, after which keys may be told again.

use super::{PREFIX, await_value, in_r, run, settle, start, writes_to};
use pg_cache_testbed::{Connection, Redis};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Subscribes to a channel.
fn subscribe(redis: &Redis, channel: &str) -> Connection {
    let mut connection = redis.connect();
    connection.send(&["SUBSCRIBE", channel]);
    connection
}

/// Collects the keys of messages until one of them says that a key was set, or until three minutes have passed. Returns the keys
/// that were set, and those that were removed. A refill may tell a key again, so the last key must be another one each time.
fn told(connection: &mut Connection, until: &str) -> [BTreeSet<String>; 2] {
    let mut found = [BTreeSet::new(), BTreeSet::new()];
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(180) && !found[0].contains(until) {
        let Some(message) = connection.message(Duration::from_millis(100)) else { continue };
        let payload = message.list().pop().expect("a message has a payload").bytes();
        let payload: serde_json::Value = serde_json::from_slice(&payload).expect("it is JSON");
        let object = payload.as_object().expect("it is an object");
        let mut count = 0;
        for (member, keys) in object {
            let into = ["set", "removed"]
                .iter()
                .position(|name| name == member)
                .unwrap_or_else(|| panic!("{payload}"));
            for key in keys.as_array().expect("it is a list") {
                found[into].insert(key.as_str().expect("a key is a text").to_owned());
                count += 1;
            }
        }
        assert!((1..=1000).contains(&count), "{count} keys in a message");
    }
    found
}

fn keys(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| in_r(name)).collect()
}

/// Each change is announced on the channel of its database, after Redis has it.
#[test]
fn changes_are_told_on_the_channel_of_the_database() {
    let redis = Redis::start();
    let (cluster, mut session) = start(&writes_to(&redis.url()));
    run(&mut session, "CREATE DATABASE other");
    let mut other = cluster.connect("other");
    super::prepare(&mut other);
    run(&mut session, "SELECT cache_set('first', '1', space => 'r')");
    await_value(&redis, "first", Some("1"));
    // The refill of the start would tell keys in another order than that of their changes.
    settle(&mut session);
    let mut listener = subscribe(&redis, &format!("{PREFIX}postgres"));
    run(&mut other, "SELECT cache_set('elsewhere', '1', space => 'r')");
    for name in ["a", "b", "c\"\n\u{1f600}"] {
        session
            .execute("SELECT cache_set($1, '1', tags => ARRAY['t'], space => 'r')", &[&name])
            .expect("it is set");
    }
    run(&mut session, "SELECT cache_set('hidden', '1', space => 'plain')");
    run(&mut session, "SELECT cache_set('end 0', '1', space => 'r')");
    let [mut set, removed] = told(&mut listener, &in_r("end 0"));
    // The message of the first key may come after the subscription, or again because of the refill.
    set.remove(&in_r("first"));
    assert_eq!(set, keys(&["a", "b", "c\"\n\u{1f600}", "end 0"]));
    assert_eq!(removed, keys(&[]));
    assert_eq!(redis.command(&["GET", &in_r("a")]), "1", "it is there when it is told");
    for (command, expected, end) in [
        ("SELECT cache_delete('a', 'r')", vec!["a"], "end 1"),
        ("SELECT cache_invalidate_tag('t')", vec!["b", "c\"\n\u{1f600}"], "end 2"),
        ("SELECT cache_flush('r')", vec!["first", "end 0", "end 1", "end 2"], "end 3"),
    ] {
        run(&mut session, command);
        settle(&mut session);
        run(&mut session, &format!("SELECT cache_set('{end}', '1', space => 'r')"));
        let [_, removed] = told(&mut listener, &in_r(end));
        // A key that is gone already may be told again.
        assert!(removed.is_superset(&keys(&expected)), "{command}: {removed:?}");
    }
}

/// A message names at most a thousand keys, and no key is left out.
#[test]
fn many_changes_are_told_in_several_messages() {
    let redis = Redis::start();
    let (_cluster, mut session) = start(&writes_to(&redis.url()));
    let mut listener = subscribe(&redis, &format!("{PREFIX}postgres"));
    let names: Vec<String> = (1..=2500).map(|number| format!("k{number}")).collect();
    let expected: BTreeSet<_> = names.iter().map(|name| in_r(name)).collect();
    run(
        &mut session,
        "SELECT count(cache_set('k' || i, '1', tags => '{t}', space => 'r')) FROM generate_series(1, 900) AS i",
    );
    run(
        &mut session,
        "SELECT count(cache_set('k' || i, '1', tags => '{t}', space => 'r')) FROM generate_series(901, 1700) AS i",
    );
    run(
        &mut session,
        "SELECT count(cache_set('k' || i, '1', tags => '{t}', space => 'r')) FROM generate_series(1701, 2500) AS i",
    );
    settle(&mut session);
    run(&mut session, "SELECT cache_set('end', '1', space => 'r')");
    let [set, _] = told(&mut listener, &in_r("end"));
    assert!(set.is_superset(&expected), "{} of {}", set.len(), expected.len());
    run(&mut session, "SELECT cache_invalidate_tag('t')");
    settle(&mut session);
    run(&mut session, "SELECT cache_set('last', '1', space => 'r')");
    let [_, removed] = told(&mut listener, &in_r("last"));
    assert!(removed.is_superset(&expected), "{} of {}", removed.len(), expected.len());
}
