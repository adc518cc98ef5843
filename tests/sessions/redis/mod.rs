//! Tests of the copies in Redis, with real Redis servers. A background worker copies the values of each space with `redis => true`
//! to Redis, and follows their changes after each commit. At the end of nearly every test, each key in Redis must have the value
//! that the cache has. No SQL command may fail because of Redis: every helper panics if one does.
//!
//! For each tag, Redis has *sets* of the keys that have the tag, by which the worker finds these keys when the tag changes. In a
//! *refill*, the worker writes all values of the memory to Redis, for instance after Redis has lost its data. In a *resync*, it
//! compares all keys of Redis with the cache, and then refills. The column `resyncs` of `cache_workers` counts these.

mod failover;
mod limits;
mod links;
mod messages;
mod names;
mod outages;
mod pressure;
mod restarts;
mod secrets;
mod servers;
mod shown;
mod storm;
mod values;

use crate::memory::cluster;
use crate::tables::one;
use pg_cache_testbed::{Cluster, Conf, Redis, Reply, wait_at_most, wait_until};
use postgres::Client;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The default of `pg_cache.redis_prefix`.
const PREFIX: &str = "pg_cache:";

/// Returns the settings of a cluster whose worker writes to this Redis.
fn writes_to(url: &str) -> Conf {
    Conf::preloaded().set("pg_cache.redis_url", url)
}

/// Returns the settings of a small cache. The server saves it quickly when it stops, also on a slow disk.
fn small(conf: Conf) -> Conf {
    conf.set("pg_cache.hot_size", "4MB")
        .set("pg_cache.fence_slots", "65536")
        .set("pg_cache.journal_size", "1MB")
}

/// Starts a cluster with a session in the database postgres, which is prepared.
fn start(conf: &Conf) -> (Cluster, Client) {
    let cluster = cluster(conf);
    let mut session = cluster.connect("postgres");
    prepare(&mut session);
    (cluster, session)
}

/// Creates a space `r` whose values are written to Redis, a space `plain` whose values are not, and the function that [`compare`]
/// needs.
fn prepare(session: &mut Client) {
    session
        .batch_execute(
            "CREATE EXTENSION IF NOT EXISTS pg_cache;
             SELECT cache_create_space('r', default_ttl => '1 hour', redis => true), cache_create_space('plain');
             CREATE FUNCTION json_of(k text, s text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
                 RETURN cache_get(k, s)::text;
             EXCEPTION WHEN datatype_mismatch THEN
                 BEGIN
                     RETURN to_json(cache_get_text(k, s))::text;
                 EXCEPTION WHEN datatype_mismatch THEN
                     RETURN to_json(cache_get_bytes(k, s)::text)::text;
                 END;
             END $$",
        )
        .expect("it is prepared");
}

/// Runs an SQL command, which must not be refused.
fn run(session: &mut Client, command: &str) {
    session.batch_execute(command).unwrap_or_else(|error| panic!("{command}: {error:?}"));
}

/// Changes a setting with `ALTER SYSTEM` and reloads.
fn reload(session: &mut Client, name: &str, value: &str) {
    run(session, &format!("ALTER SYSTEM SET {name} = '{}'", value.replace('\'', "''")));
    run(session, "SELECT pg_reload_conf()");
}

/// Returns a value of the worker's row in `cache_workers`, or `None` if there is no worker or if it is null.
fn of_worker(session: &mut Client, expression: &str) -> Option<String> {
    one(session, &format!("SELECT max(({expression})::text) FROM cache_workers WHERE kind = 'redis'"))
}

/// Returns whether the worker is connected.
fn is_connected(session: &mut Client) -> bool {
    of_worker(session, "connected").as_deref() == Some("true")
}

/// Waits until the worker has noticed that it has no connection.
fn await_down(session: &mut Client) {
    wait_until("the worker to notice", || {
        // It may notice only when it has something to write.
        run(session, "SELECT cache_set('notice', '1', space => 'r')");
        of_worker(session, "connected").as_deref() == Some("false")
    });
}

/// Waits until the last step of the worker was a success.
fn await_success(session: &mut Client) {
    wait_until("the last error to be over", || of_worker(session, "error").is_none());
}

/// Waits until the worker says that Redis has all changes so far.
fn settle(session: &mut Client) {
    // After an outage or a burst, the worker has many seconds of work.
    wait_at_most(300, "Redis to have all changes", || {
        of_worker(session, "connected AND lag = 0").as_deref() == Some("true")
    });
}

/// Returns the values in Redis by their key. Sets of tags are left out, and must expire. Every key must have the prefix.
fn held(nodes: &[&Redis]) -> BTreeMap<Vec<u8>, String> {
    held_beneath(nodes, PREFIX)
}

/// Returns the same as [`held`] for another prefix than the default.
fn held_beneath(nodes: &[&Redis], prefix: &str) -> BTreeMap<Vec<u8>, String> {
    let mut values = BTreeMap::new();
    for node in nodes {
        let mut connection = node.connect();
        let keys = connection.scan("*");
        let ask = |command: &str| -> Vec<Vec<Vec<u8>>> {
            keys.iter().map(|key| vec![command.as_bytes().to_vec(), key.clone()]).collect()
        };
        let [replies, left] = ["GET", "PTTL"].map(|command| connection.pipeline(&ask(command)));
        for ((key, reply), left) in keys.into_iter().zip(replies).zip(left) {
            let shown = String::from_utf8_lossy(&key).into_owned();
            assert!(shown.starts_with(prefix), "{shown:?} has not the prefix");
            if is_set(&shown) && left.integer() == -1 {
                // A set gets its first member and its time to live by two commands, and the scan may come in between.
                wait_until("a set to get a time to live", || {
                    connection.send(&[b"PTTL".as_slice(), &key]).integer() != -1
                });
            } else {
                assert_ne!(left.integer(), -1, "{shown:?} never expires");
            }
            match reply {
                Reply::Text(value) => {
                    values.insert(key, String::from_utf8(value).expect("JSON is UTF-8"));
                }
                // It has expired since the scan.
                Reply::Nil => {}
                reply => assert!(is_set(&shown), "{shown:?}: {reply:?}"),
            }
        }
    }
    values
}

/// Returns whether a Redis key is that of a set of tags.
fn is_set(key: &str) -> bool {
    key.split(':').any(|part| part.ends_with("#tags"))
}

/// Returns the Redis key of a key in the space `r` of the database postgres.
fn in_r(key: &str) -> String {
    format!("{PREFIX}postgres:r:{key}")
}

/// Returns the value that Redis has for a key in the space `r` of the database postgres.
fn value(redis: &Redis, key: &str) -> Option<String> {
    redis.connect().send(&["GET", &in_r(key)]).text()
}

/// Waits until Redis has this value, or none.
fn await_value(redis: &Redis, key: &str, expected: Option<&str>) {
    wait_until(&format!("{key:?} to be {expected:?}"), || value(redis, key).as_deref() == expected);
}

/// Returns the parts of a Redis key: database, space, key.
fn parts(prefix: &str, key: &[u8]) -> Option<[String; 3]> {
    let key = String::from_utf8(key.to_vec()).ok()?;
    let mut parts = key.strip_prefix(prefix)?.splitn(3, ':');
    let mut unescaped = || {
        let part = parts.next()?;
        let (mut bytes, mut rest) = (Vec::new(), part.bytes());
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'%' => {
                    let digits = [rest.next()?, rest.next()?];
                    u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
                }
                byte => byte,
            });
        }
        String::from_utf8(bytes).ok()
    };
    let names = [unescaped()?, unescaped()?];
    let [database, space] = names;
    Some([database, space, parts.next()?.to_owned()])
}

/// Returns how Redis differs from the cache: keys that the cache does not have, or that have another value there. `sessions` has
/// one session for each database. Reads Redis before the cache.
fn differences(nodes: &[&Redis], prefix: &str, sessions: &mut [(&str, &mut Client)]) -> Vec<String> {
    let mut different = Vec::new();
    let held: Vec<_> = held_beneath(nodes, prefix)
        .into_iter()
        .map(|(key, value)| {
            (parts(prefix, &key).unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(&key))), value)
        })
        .collect();
    for (name, session) in sessions.iter_mut() {
        let of_this: Vec<_> = held.iter().filter(|([database, ..], _)| database == name).collect();
        let keys: Vec<_> = of_this.iter().map(|([.., key], _)| key.as_str()).collect();
        let spaces: Vec<_> = of_this.iter().map(|([_, space, _], _)| space.as_str()).collect();
        let query = "SELECT json_of(k, s) FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS u (k, s, n) ORDER BY n";
        let rows = session.query(query, &[&keys, &spaces]).expect("the values are read");
        for (([_, space, key], in_redis), row) in of_this.iter().zip(rows) {
            let cached: Option<String> = row.get(0);
            if !cached.as_ref().is_some_and(|cached| is_same_json(cached, in_redis)) {
                different
                    .push(format!("{name}, {space}, {key:?}: {in_redis} in Redis, {cached:?} in the cache"));
            }
        }
    }
    let is_known = |[database, ..]: &[String; 3]| sessions.iter().any(|(name, _)| name == database);
    different.extend(
        held.iter().filter(|(parts, _)| !is_known(parts)).map(|(parts, _)| format!("{parts:?} is foreign")),
    );
    different
}

/// Returns whether two texts are the same JSON. They may escape characters in different ways.
fn is_same_json(one: &str, other: &str) -> bool {
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    one == other || parse(one).is_some_and(|json| parse(other) == Some(json))
}

/// Waits up to three minutes until each key in Redis has the value of the cache. Then makes one more change, and fails if a key has
/// another value after it: no old value may come back. No other session may change keys meanwhile.
fn compare(nodes: &[&Redis], session: &mut Client) {
    let mut different = Vec::new();
    let mut is_equal = |session: &mut Client| {
        settle(session);
        different = differences(nodes, PREFIX, &mut [("postgres", session)]);
        different.is_empty()
    };
    let deadline = Instant::now() + Duration::from_secs(180);
    while !is_equal(session) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    run(session, "SELECT cache_delete('no such key', 'r')");
    assert!(is_equal(session), "{} differ: {:#?}", different.len(), &different[..different.len().min(20)]);
}

/// Returns how many of the live entries of spaces with `redis => true` are in Redis, and how many such entries the cache has.
fn presence(nodes: &[&Redis], session: &mut Client) -> (usize, usize) {
    let query = "SELECT e.space, e.key FROM cache_entries AS e JOIN pgcache.spaces AS s ON s.name = e.space WHERE s.redis";
    let rows = session.query(query, &[]).expect("the entries are listed");
    let held = held(nodes);
    let there: std::collections::BTreeSet<_> =
        held.keys().filter_map(|key| parts(PREFIX, key)).map(|[_, space, key]| (space, key)).collect();
    let present = rows.iter().filter(|row| there.contains(&(row.get(0), row.get(1)))).count();
    (present, rows.len())
}

/// Waits until at least four fifths of the live entries are in Redis.
fn await_refill(nodes: &[&Redis], session: &mut Client) {
    let mut last = (0, 0);
    wait_until("the entries to be back", || {
        last = presence(nodes, session);
        let (present, live) = last;
        live > 0 && present * 5 >= live * 4
    });
}

/// Waits until all live entries are in Redis, and compares.
fn await_all(nodes: &[&Redis], session: &mut Client) {
    wait_until("all entries to be in Redis", || {
        let (present, live) = presence(nodes, session);
        present == live
    });
    compare(nodes, session);
}

/// Sets keys `<name>1` to `<name><count>` of the space `r`, with a value.
fn fill(session: &mut Client, name: &str, count: usize, value: &str) {
    let set = format!(
        "SELECT count(cache_set('{name}' || i, '{value}', space => 'r')) FROM generate_series(1, {count}) AS i"
    );
    run(session, &set);
}
