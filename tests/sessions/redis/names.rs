//! Tests of which values the Redis worker (`mod.rs`) copies to Redis, and under which keys. A key in Redis begins with the prefix
//! (`pg_cache.redis_prefix`), the name of the database and that of the space.

use super::{
    PREFIX, await_all, await_value, compare, differences, fill, held, held_beneath, is_set, of_worker,
    prepare, reload, run, settle, start, value, writes_to,
};
use crate::memory::findings;
use pg_cache_testbed::{Redis, wait_until};

/// Returns the keys in Redis without the sets of tags.
fn keys(redis: &Redis) -> Vec<String> {
    held(&[redis]).into_keys().map(|key| String::from_utf8_lossy(&key).into_owned()).collect()
}

/// Only values of a space with `redis => true` are copied: those that are set after the option was switched on and before it is
/// switched off.
#[test]
fn the_option_of_a_space_decides() {
    let redis = Redis::start();
    let (_cluster, mut session) = start(&writes_to(&redis.url()));
    for space in ["plain", "default", "r"] {
        run(&mut session, &format!("SELECT cache_set('k', '\"{space}\"', space => '{space}')"));
    }
    await_value(&redis, "k", Some("\"r\""));
    settle(&mut session);
    assert_eq!(keys(&redis), ["pg_cache:postgres:r:k"]);
    run(
        &mut session,
        "SELECT cache_alter_space('default', redis => true), cache_alter_space('plain', redis => true)",
    );
    run(
        &mut session,
        "SELECT cache_set('k', '1', space => 'default'), cache_set('l', '1', space => 'plain')",
    );
    await_all(&[&redis], &mut session);
    assert_eq!(
        keys(&redis),
        ["pg_cache:postgres:default:k", "pg_cache:postgres:plain:l", "pg_cache:postgres:r:k"]
    );
    run(&mut session, "SELECT cache_alter_space('r', redis => false)");
    settle(&mut session);
    run(&mut session, "SELECT cache_set('k', '2', space => 'r'), cache_set('m', '1', space => 'plain')");
    settle(&mut session);
    assert_eq!(
        keys(&redis),
        ["pg_cache:postgres:default:k", "pg_cache:postgres:plain:l", "pg_cache:postgres:plain:m"]
    );
    run(&mut session, "SELECT cache_alter_space('r', redis => true)");
    run(&mut session, "SELECT cache_set('k', '3', space => 'r')");
    await_value(&redis, "k", Some("3"));
    // A change that is rolled back changes nothing.
    run(&mut session, "BEGIN; SELECT cache_alter_space('r', redis => false); ROLLBACK");
    run(&mut session, "SELECT cache_set('k', '4', space => 'r')");
    await_value(&redis, "k", Some("4"));
    // Other options leave this one as it is.
    run(&mut session, "SELECT cache_alter_space('r', max_ttl => '2 hours')");
    run(&mut session, "SELECT cache_set('k', '5', space => 'r')");
    await_value(&redis, "k", Some("5"));
    compare(&[&redis], &mut session);
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// Entries that belong to a role must not leave the database.
#[test]
fn spaces_of_roles_refuse_redis() {
    let redis = Redis::start();
    let (_cluster, mut session) = start(&writes_to(&redis.url()));
    run(&mut session, "SELECT cache_create_space('own', scope => 'role')");
    for refused in [
        "SELECT cache_create_space('both', scope => 'role', redis => true)",
        "SELECT cache_alter_space('own', redis => true)",
        "SELECT cache_alter_space('r', scope => 'role')",
    ] {
        let error = session.batch_execute(refused).expect_err(refused);
        let message = error.as_db_error().map(|error| error.message().to_owned()).unwrap_or_default();
        assert!(message.contains("scope"), "{refused}: {error:?}");
    }
    run(&mut session, "SELECT cache_set('k', '1', space => 'own'), cache_set('k', '2', space => 'r')");
    await_value(&redis, "k", Some("2"));
    settle(&mut session);
    assert_eq!(keys(&redis), ["pg_cache:postgres:r:k"]);
}

/// Each database has its own keys, also if its name has characters that separate the parts of a Redis key.
#[test]
fn databases_and_spaces_have_their_own_keys() {
    let redis = Redis::start();
    let (cluster, mut session) = start(&writes_to(&redis.url()));
    let odd = "a:r%b#\u{e9}\u{7f}";
    run(&mut session, &format!("CREATE DATABASE \"{odd}\""));
    run(&mut session, "CREATE DATABASE postgre");
    let [mut other, mut third] = [odd, "postgre"].map(|name| cluster.connect(name));
    for session in [&mut other, &mut third] {
        prepare(session);
    }
    run(&mut other, "SELECT cache_create_space('s:%#\u{65e5}', redis => true)");
    for (session, value) in [(&mut session, 1), (&mut other, 2), (&mut third, 3)] {
        run(session, &format!("SELECT cache_set('k', '{value}', tags => '{{t}}', space => 'r')"));
    }
    run(&mut other, "SELECT cache_set('k:k', '4', space => 's:%#\u{65e5}')");
    wait_until("all keys", || held(&[&redis]).len() == 4);
    settle(&mut session);
    let name = "a%3Ar%25b%23%C3%A9%7F";
    let expected = [
        format!("{PREFIX}{name}:r:k"),
        format!("{PREFIX}{name}:s%3A%25%23%E6%97%A5:k:k"),
        format!("{PREFIX}postgre:r:k"),
        format!("{PREFIX}postgres:r:k"),
    ];
    assert_eq!(keys(&redis), expected);
    let mut all = [("postgres", &mut session), (odd, &mut other), ("postgre", &mut third)];
    assert_eq!(differences(&[&redis], PREFIX, &mut all), Vec::<String>::new());
    // A change in one database leaves the others alone.
    run(&mut third, "SELECT cache_invalidate_tag('t')");
    settle(&mut third);
    assert_eq!(held(&[&redis]).len(), 3);
    run(&mut session, "SELECT cache_flush('*')");
    wait_until("the flush", || keys(&redis) == expected[..2]);
    run(&mut other, "SELECT cache_delete('k', 'r')");
    settle(&mut other);
    assert_eq!(keys(&redis), expected[1..2]);
    // A worker must not keep a database from being dropped.
    drop((other, third));
    run(&mut session, &format!("DROP DATABASE \"{odd}\""));
    run(&mut session, "DROP DATABASE postgre");
    wait_until("the keys of the dropped database to leave", || keys(&redis).is_empty());
}

/// After a database was renamed, its values are under keys with the new name.
#[test]
fn a_renamed_database_takes_its_keys_along() {
    let redis = Redis::start();
    let (cluster, mut session) = start(&writes_to(&redis.url()));
    run(&mut session, "CREATE DATABASE old");
    let mut inside = cluster.connect("old");
    prepare(&mut inside);
    run(&mut inside, "SELECT cache_set('k', '1', space => 'r')");
    wait_until("the key", || keys(&redis) == ["pg_cache:old:r:k"]);
    drop(inside);
    wait_until("the session's end", || session.batch_execute("ALTER DATABASE old RENAME TO new").is_ok());
    let mut inside = cluster.connect("new");
    run(&mut inside, "SELECT cache_set('k', '2', space => 'r'), cache_set('l', '2', space => 'r')");
    wait_until("the keys of the new name", || {
        let keys = keys(&redis);
        keys.contains(&"pg_cache:new:r:k".to_owned()) && keys.contains(&"pg_cache:new:r:l".to_owned())
    });
}

/// Keys may have all characters, also those that have a meaning in patterns, in clusters and in keys of Redis.
#[test]
fn keys_may_have_all_characters() {
    let redis = Redis::start();
    let (_cluster, mut session) = start(&writes_to(&redis.url()));
    let mut names: Vec<String> = (0..=16)
        .filter_map(|plane| char::from_u32(plane * 0x10000 + 0x1f34))
        .map(|letter| format!("plane {letter}"))
        .collect();
    names.extend(
        [
            "*",
            "?",
            "[a-z]",
            "\\",
            "\\*",
            "{}",
            "{a}b",
            "{",
            "}",
            "'",
            "\"",
            "\n",
            "\r\n",
            "\t",
            "\u{1}",
            "\u{7f}",
            " ",
            "  two  ",
            ":",
            "a:b",
            "r:k",
            "%3A",
            "%",
            "#tags:1:2",
            "a#b",
            "postgres:r:k",
            "e\u{301}",
            "\u{e9}",
            "\u{10ffff}",
            "$1",
            "--",
            "-1",
        ]
        .map(str::to_owned),
    );
    names.push("k".repeat(1024));
    names.push("\u{1f600}".repeat(256));
    run(
        &mut session,
        "SELECT cache_create_space('r*', redis => true), cache_create_space('[r]', redis => true)",
    );
    for space in ["r", "r*", "[r]"] {
        session
            .execute(
                "SELECT cache_set_text(k, k, space => $2, tags => ARRAY[left(k, 64), 'all']) FROM unnest($1::text[]) AS k",
                &[&names, &space],
            )
            .expect("they are set");
    }
    await_all(&[&redis], &mut session);
    let count = |redis: &Redis, space: &str| {
        let prefix = format!("{PREFIX}postgres:{space}:");
        keys(redis).iter().filter(|key| key.starts_with(&prefix)).count()
    };
    let counts = |redis: &Redis| ["r", "r*", "[r]"].map(|space| count(redis, space));
    assert_eq!(counts(&redis), [names.len(); 3]);
    for name in &names {
        let text = value(&redis, name).unwrap_or_else(|| panic!("{name:?} is missing"));
        assert_eq!(serde_json::from_str::<String>(&text).expect("it is JSON"), *name);
    }
    // Neither name must be used as a pattern: its flush would then hit other spaces, or miss its own.
    run(&mut session, "SELECT cache_flush('r*')");
    settle(&mut session);
    assert_eq!(counts(&redis), [names.len(), 0, names.len()]);
    run(&mut session, "SELECT cache_flush('[r]')");
    settle(&mut session);
    assert_eq!(counts(&redis), [names.len(), 0, 0]);
    // Half of the keys leave with their tags, the others are deleted.
    for (number, name) in names.iter().enumerate() {
        let command = if number % 2 == 0 {
            "SELECT cache_invalidate_tag(left($1, 64))"
        } else {
            "SELECT cache_delete($1, 'r')"
        };
        session.execute(command, &[name]).expect("it is removed");
    }
    settle(&mut session);
    assert_eq!(keys(&redis), Vec::<String>::new());
}

/// A key of the cache that looks like that of a set of tags, or like that of another space, is only a key. The Redis key of a set
/// is `<prefix><database>#tags:<bucket>:<hash of the tag>`; a *bucket* is a stretch of time (`src/redis/names.rs`).
#[test]
fn a_key_never_names_something_else() {
    let redis = Redis::start();
    let (_cluster, mut session) = start(&writes_to(&redis.url()));
    run(&mut session, "SELECT cache_set('k', '1', tags => '{t}', space => 'r')");
    await_value(&redis, "k", Some("1"));
    let mut keys =
        redis.connect().scan("*").into_iter().map(|key| String::from_utf8_lossy(&key).into_owned());
    let set = keys.find(|key| is_set(key)).expect("there is a set");
    run(&mut session, "SELECT cache_create_space('#tags', redis => true)");
    let imitation = set.split_once("#tags:").expect("it has a bucket").1.to_owned();
    session
        .execute(
            "SELECT cache_set($1, '2', space => '#tags'), cache_set('#tags:' || $1, '3', space => 'r')",
            &[&imitation],
        )
        .expect("they are set");
    await_all(&[&redis], &mut session);
    run(&mut session, "SELECT cache_invalidate_tag('t')");
    settle(&mut session);
    assert_eq!(value(&redis, "k"), None);
    assert_eq!(held(&[&redis]).len(), 2);
}

/// The prefix may have blanks and characters with a meaning in patterns. A change by reload moves the keys.
#[test]
fn the_prefix_can_be_changed() {
    let redis = Redis::start();
    let (_cluster, mut session) = start(&writes_to(&redis.url()));
    fill(&mut session, "k", 100, "1");
    run(&mut session, "SELECT cache_set('tagged', '1', tags => '{t}', space => 'r')");
    await_all(&[&redis], &mut session);
    let foreign = ["my cache b:", "my cache [ab]:x", "my cache ?"];
    for key in foreign {
        redis.command(&["SET", key, "mine"]);
    }
    let beneath = |redis: &Redis, prefix: &str| {
        redis.connect().scan("*").iter().filter(|key| key.starts_with(prefix.as_bytes())).count()
    };
    let prefix = "my cache [ab]*?\\ é:";
    reload(&mut session, "pg_cache.redis_prefix", prefix);
    wait_until("the keys to move", || beneath(&redis, prefix) >= 101 && beneath(&redis, PREFIX) == 0);
    redis.command(&["DEL", foreign[0], foreign[1], foreign[2]]);
    wait_until("the worker", || of_worker(&mut session, "connected").as_deref() == Some("true"));
    settle(&mut session);
    run(&mut session, "SELECT cache_invalidate_tag('t'), cache_delete('k1', 'r')");
    settle(&mut session);
    assert_eq!(held_beneath(&[&redis], prefix).len(), 99);
    assert_eq!(differences(&[&redis], prefix, &mut [("postgres", &mut session)]), Vec::<String>::new());
}

/// A space may be dropped and created again with its name. The tags, tables and flushes of the database must reach its values,
/// however often that happens. Fails if the worker takes one of the dropped spaces for the present one.
#[test]
fn a_space_that_is_created_again_is_followed() {
    let redis = Redis::start();
    let (_cluster, mut session) = start(&writes_to(&redis.url()));
    run(&mut session, "CREATE TABLE t (v int); SELECT cache_watch('t', '{watched}')");
    for round in ["1", "2", "3"] {
        run(&mut session, &format!("SELECT cache_set('k', '{round}', tags => '{{a}}', space => 'r')"));
        run(&mut session, &format!("SELECT cache_set('w', '{round}', tags => '{{watched}}', space => 'r')"));
        await_value(&redis, "k", Some(round));
        await_value(&redis, "w", Some(round));
        run(&mut session, "SELECT cache_invalidate_tag('a')");
        await_value(&redis, "k", None);
        run(&mut session, "INSERT INTO t VALUES (1)");
        await_value(&redis, "w", None);
        run(&mut session, "SELECT cache_set('k', '0', space => 'r')");
        await_value(&redis, "k", Some("0"));
        run(&mut session, "SELECT cache_flush('*')");
        await_value(&redis, "k", None);
        run(&mut session, "SELECT cache_drop_space('r')");
        run(&mut session, "SELECT cache_create_space('r', redis => true)");
    }
    settle(&mut session);
    assert_eq!(keys(&redis), Vec::<String>::new());
}

/// A transaction that used a space before it was dropped and created again must not write a value under the name of the new space.
#[test]
fn a_session_that_knows_a_dropped_space_writes_nothing_in_its_name() {
    let redis = Redis::start();
    let (cluster, mut session) = start(&writes_to(&redis.url()));
    let mut old = cluster.connect("postgres");
    run(&mut old, "BEGIN; SELECT cache_set('other', '1', space => 'r')");
    run(&mut session, "SELECT cache_drop_space('r')");
    run(&mut session, "SELECT cache_create_space('r', redis => true)");
    run(&mut session, "SELECT cache_set('k', '\"new\"', space => 'r')");
    await_value(&redis, "k", Some("\"new\""));
    run(&mut old, "SELECT cache_set('k', '\"old\"', space => 'r'); COMMIT");
    // The session has learned of the new space, so this is an ordinary change of it.
    await_value(&redis, "k", Some("\"old\""));
    compare(&[&redis], &mut session);
    run(&mut session, "SELECT cache_set('k', '\"newest\"', space => 'r')");
    await_value(&redis, "k", Some("\"newest\""));
    await_all(&[&redis], &mut session);
}

/// A dump may restore a space with both `scope => 'role'` and `redis => true`. Its values belong to single roles, so they must not
/// get to Redis, neither after a set nor by a refill.
#[test]
fn a_restored_space_of_roles_is_not_copied() {
    let redis = Redis::start();
    let (_cluster, mut session) = start(&writes_to(&redis.url()));
    run(
        &mut session,
        "INSERT INTO pgcache.spaces (number, name, scope, redis) VALUES (4000000000, 'restored', 'role', true)",
    );
    run(
        &mut session,
        "SELECT cache_set('secret', '1', space => 'restored'), cache_set('k', '1', space => 'r')",
    );
    await_value(&redis, "k", Some("1"));
    run(&mut session, "SELECT cache_flush('*')");
    run(
        &mut session,
        "SELECT cache_set('secret', '2', space => 'restored'), cache_set('k', '2', space => 'r')",
    );
    await_value(&redis, "k", Some("2"));
    settle(&mut session);
    assert_eq!(keys(&redis), ["pg_cache:postgres:r:k"]);
}
