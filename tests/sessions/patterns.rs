//! Tests of `cache_invalidate_pattern`: after its commit, no session gets an earlier value of a matching key. The earlier value may
//! have been in memory or in a table, or a session may have been computing it. Keys that do not match stay hits.
//! `docs/invalidation.md` says what a pattern means.

use crate::memory::{cluster, findings};
use crate::tables::{save, status_of, wait_saved, with_tables};
use crate::transaction::{get, set};
use pg_cache_testbed::{Conf, Database, Stop, wait_until};
use postgres::Client;
use postgres::error::SqlState;
use std::time::{Duration, Instant};

/// Runs statements that must succeed.
fn run(session: &mut Client, statements: &str) {
    session.batch_execute(statements).unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}

/// Invalidates a pattern in the default space.
fn invalidate(session: &mut Client, pattern: &str) {
    session.execute("SELECT cache_invalidate_pattern($1)", &[&pattern]).expect(pattern);
}

/// Sets keys in the default space.
fn fill(session: &mut Client, keys: &[&str]) {
    keys.iter().for_each(|key| assert!(set(session, key, "v"), "{key}"));
}

/// Returns those of the keys that are hits.
fn hits<'k>(session: &mut Client, keys: &[&'k str]) -> Vec<&'k str> {
    keys.iter().filter(|key| get(session, key).is_some()).copied().collect()
}

/// Returns the status of the session's last call.
fn status(session: &mut Client) -> String {
    session.query_one("SELECT cache_status()", &[]).expect("there is a status").get(0)
}

const KEYS: [&str; 4] = ["user:42:name", "user:42:mail", "user:421:name", "user:42"];

/// The session that invalidates a pattern misses the matching keys at once. Other sessions miss them when it commits.
#[test]
fn a_pattern_takes_effect_with_the_commit() {
    let database = Database::create();
    let [mut one, mut two] = [(); 2].map(|()| database.connect());
    fill(&mut one, &KEYS);
    run(&mut one, "BEGIN");
    invalidate(&mut one, "user:42:*");
    assert_eq!(hits(&mut one, &KEYS), KEYS[2..]);
    assert_eq!(get(&mut one, KEYS[0]), None);
    assert_eq!(status(&mut one), "miss: removed by this transaction");
    assert_eq!(hits(&mut two, &KEYS), KEYS, "it is not committed");
    run(&mut one, "COMMIT");
    for session in [&mut one, &mut two] {
        assert_eq!(get(session, KEYS[0]), None);
        assert_eq!(status(session), "invalidated: a pattern that matches the key");
        assert_eq!(hits(session, &KEYS), KEYS[2..]);
    }
    assert!(set(&mut two, KEYS[0], "new"));
    assert_eq!(get(&mut one, KEYS[0]).as_deref(), Some("new"));
    assert_eq!(findings(&mut one), Vec::<String>::new());
}

/// A rollback, also to a savepoint, and the end of a session undo the pattern.
#[test]
fn a_rollback_leaves_no_trace_of_a_pattern() {
    let database = Database::create();
    let [mut one, mut two] = [(); 2].map(|()| database.connect());
    fill(&mut one, &KEYS);
    run(&mut one, "BEGIN; SELECT cache_invalidate_pattern('*'); ROLLBACK");
    assert_eq!(hits(&mut one, &KEYS), KEYS);
    run(
        &mut one,
        "BEGIN; SELECT cache_invalidate_pattern('*mail'); SAVEPOINT s; SELECT cache_invalidate_pattern('*')",
    );
    assert_eq!(hits(&mut one, &KEYS), [""; 0]);
    run(&mut one, "ROLLBACK TO s");
    assert_eq!(hits(&mut one, &KEYS), [KEYS[0], KEYS[2], KEYS[3]]);
    run(&mut one, "SAVEPOINT r; SELECT cache_invalidate_pattern('*name'); RELEASE r; ROLLBACK TO s; COMMIT");
    assert_eq!(hits(&mut two, &KEYS), [KEYS[0], KEYS[2], KEYS[3]]);
    // A deferred constraint makes the commit fail after the pattern was announced, or before: both must leave nothing.
    run(&mut one, "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)");
    let commit = "BEGIN; INSERT INTO t VALUES (1), (1); SELECT cache_invalidate_pattern('*'); COMMIT";
    one.batch_execute(commit).expect_err("there are two of them");
    run(&mut one, "ROLLBACK");
    run(&mut one, "BEGIN; SELECT cache_invalidate_pattern('*')");
    let process: i32 = one.query_one("SELECT pg_backend_pid()", &[]).expect("it lives").get(0);
    two.execute("SELECT pg_terminate_backend($1)", &[&process]).expect("it is told to end");
    wait_until("its end", || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
        two.query_one(query, &[&process]).expect("there is a view").get::<_, i64>(0) == 0
    });
    assert_eq!(hits(&mut two, &KEYS), [KEYS[0], KEYS[2], KEYS[3]]);
    assert_eq!(findings(&mut two), Vec::<String>::new());
}

/// A transaction sets values and invalidates a pattern. The values that it sets before the pattern are gone, and the values that it
/// sets after the pattern are hits, in the transaction and after the commit.
#[test]
fn the_order_of_sets_and_patterns_in_a_transaction_counts() {
    let database = Database::create();
    let [mut one, mut two] = [(); 2].map(|()| database.connect());
    for write in ["", "CREATE TABLE IF NOT EXISTS t (); INSERT INTO t DEFAULT VALUES;"] {
        fill(&mut one, &["a1", "a2", "a3", "b"]);
        let transaction = format!(
            "BEGIN; {write} SELECT cache_set_text('a1', 'own'), cache_set_text('b', 'own');
             SELECT cache_invalidate_pattern('a*');
             SELECT cache_set_text('a2', 'later'), cache_set_text('a4', 'later', mode => 'absent')"
        );
        run(&mut one, &transaction);
        let expected =
            [("a1", None), ("a2", Some("later")), ("a3", None), ("a4", Some("later")), ("b", Some("own"))];
        for (key, value) in expected {
            assert_eq!(get(&mut one, key).as_deref(), value, "{key}");
        }
        run(&mut one, "COMMIT");
        for session in [&mut one, &mut two] {
            for (key, value) in expected {
                assert_eq!(get(session, key).as_deref(), value, "{key} after the commit");
            }
        }
        run(&mut two, "SELECT cache_delete('a4')");
    }
}

/// A transaction sets a value before the pattern, and commits after the pattern. The value counts as older than the pattern.
#[test]
fn a_set_that_commits_after_the_pattern_is_refused() {
    let database = Database::create();
    let [mut one, mut two] = [(); 2].map(|()| database.connect());
    run(&mut one, "BEGIN; SELECT cache_set_text('k', 'old'), cache_set_text('other', 'v')");
    // With an invalidation of its own, the transaction publishes its values as of its commit.
    run(&mut two, "BEGIN; SELECT cache_set_text('k tagged', 'old', tags => '{t}')");
    run(&mut two, "SELECT cache_invalidate_tag('t'), cache_set_text('k tagged', 'old', tags => '{t}')");
    let mut three = database.connect();
    invalidate(&mut three, "k*");
    run(&mut one, "COMMIT");
    run(&mut two, "COMMIT");
    assert_eq!(hits(&mut three, &["k", "k tagged", "other"]), ["other"]);
}

/// A `cache_set` with a lease from before the pattern stores nothing under a key that matches, and stores a value under another
/// key.
#[test]
fn a_lease_from_before_the_pattern_stores_nothing() {
    let database = Database::create();
    let [mut one, mut two] = [(); 2].map(|()| database.connect());
    for (key, is_stored) in [("a", false), ("b", true)] {
        let acquire = "SELECT lease FROM cache_acquire($1, hold => '1 min')";
        let lease: i64 = one.query_one(acquire, &[&key]).expect("it is told to compute").get(0);
        invalidate(&mut two, "a*");
        let set = "SELECT cache_set($1, '1', lease => $2)";
        assert_eq!(
            one.query_one(set, &[&key, &lease]).expect("it is a lease").get::<_, bool>(0),
            is_stored,
            "{key}"
        );
        assert_eq!(get_json(&mut two, key).is_some(), is_stored, "{key}");
    }
    // The lease is used before the pattern is committed, and its transaction commits after it.
    let acquire = "SELECT lease FROM cache_acquire('a', hold => '1 min')";
    let lease: i64 = one.query_one(acquire, &[]).expect("it is told to compute").get(0);
    run(&mut one, "BEGIN");
    assert!(
        one.query_one("SELECT cache_set('a', '1', lease => $1)", &[&lease])
            .expect("a lease")
            .get::<_, bool>(0)
    );
    invalidate(&mut two, "a*");
    run(&mut one, "COMMIT");
    assert_eq!(get_json(&mut two, "a"), None);
}

fn get_json(session: &mut Client, key: &str) -> Option<String> {
    session.query_one("SELECT cache_get($1)::text", &[&key]).expect("reading works").get(0)
}

/// If a query begins before the pattern and ends after it, its result is not served.
#[test]
fn a_result_that_is_computed_during_the_pattern_is_not_served() {
    let database = Database::create();
    let [mut one, mut two] = [(); 2].map(|()| database.connect());
    run(&mut two, "CREATE TABLE t AS SELECT 1 AS v; SELECT pg_advisory_lock(1)");
    let process: i32 = one.query_one("SELECT pg_backend_pid()", &[]).expect("it lives").get(0);
    let query = "SELECT cache_fetch('k', 'SELECT (SELECT 1 FROM (SELECT pg_advisory_xact_lock_shared(1)) AS l) + v FROM t', depends => '{t}')";
    let fetching = std::thread::spawn(move || {
        run(&mut one, query);
        one
    });
    wait_until("the query to wait", || {
        let waits = "SELECT count(*) FROM pg_locks WHERE pid = $1 AND NOT granted";
        two.query_one(waits, &[&process]).expect("there is a view").get::<_, i64>(0) == 1
    });
    invalidate(&mut two, "k");
    run(&mut two, "SELECT pg_advisory_unlock(1)");
    let mut one = fetching.join().expect("it ends");
    assert_eq!(get_json(&mut two, "k"), None);
    run(&mut one, query);
    assert_eq!(get_json(&mut two, "k").as_deref(), Some("2"), "the next result is stored");
}

/// A pattern invalidates values that are only in a table, and values that have come back from a table to memory.
#[test]
fn a_pattern_reaches_saved_values() {
    let cluster = with_tables("64MB");
    let mut session = cluster.connect("postgres");
    crate::tables::only_tables(&mut session);
    for key in ["a:saved", "a:promoted", "b:saved", "b:promoted"] {
        save(&mut session, key, "v");
    }
    // From now on, a saved value comes back to memory when it is read.
    run(&mut session, "UPDATE pgcache.spaces SET tiers = 'both'");
    for key in ["a:promoted", "b:promoted"] {
        assert!(get(&mut session, key).is_some());
        assert_eq!(status_of(&mut session, key).1.as_deref(), Some("hot"), "{key}");
    }
    invalidate(&mut session, "a:*");
    for key in ["a:saved", "a:promoted"] {
        assert_eq!(status_of(&mut session, key).0, None, "{key}");
    }
    for key in ["b:saved", "b:promoted"] {
        assert_eq!(status_of(&mut session, key).0.as_deref(), Some("v"), "{key}");
    }
    assert!(set(&mut session, "a:saved", "new"));
    assert_eq!(status_of(&mut session, "a:saved").0.as_deref(), Some("new"));
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// In a space that keeps values in tables only, no value is in memory when the pattern is invalidated.
#[test]
fn a_pattern_reaches_values_that_are_only_in_tables() {
    let cluster = with_tables("64MB");
    let mut session = cluster.connect("postgres");
    crate::tables::only_tables(&mut session);
    for key in ["a", "b"] {
        save(&mut session, key, "v");
    }
    run(&mut session, "BEGIN");
    invalidate(&mut session, "a");
    assert_eq!(status_of(&mut session, "a").0, None);
    run(&mut session, "ROLLBACK");
    wait_saved(&mut session, "a");
    invalidate(&mut session, "a");
    assert_eq!(status_of(&mut session, "a").0, None);
    assert_eq!(status_of(&mut session, "b"), (Some("v".into()), Some("hit: table".into())));
}

/// After a clean restart, a value from before a pattern is still no hit.
#[test]
fn patterns_survive_a_restart() {
    let cluster =
        cluster(&Conf::preloaded().set("pg_cache.hot_size", "4MB").set("pg_cache.fence_slots", "65536"));
    let mut session = cluster.connect("postgres");
    fill(&mut session, &KEYS);
    invalidate(&mut session, "user:42:*");
    drop(session);
    cluster.stop(Stop::Fast);
    cluster.resume();
    let mut session = cluster.connect("postgres");
    assert_eq!(hits(&mut session, &KEYS), KEYS[2..]);
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// Sessions invalidate more patterns than the server keeps, one in each transaction. Keys that no pattern matches stay hits,
/// although no session reads them meanwhile, and matched keys stay gone. A thousand calls take a second on a quiet machine with an
/// optimized build. The limit of this test is twenty times as long, or on a slow machine a hundred times as long as other commits
/// take.
#[test]
fn many_patterns_leave_other_keys_alone() {
    let database = Database::create();
    let mut session = database.connect();
    fill(&mut session, &["hit", "x1", "x2999"]);
    let calls: String = (0..100).map(|_| "SELECT cache_invalidate_pattern('x' || nextval('n'));").collect();
    run(&mut session, "CREATE SEQUENCE n; CREATE SEQUENCE others");
    // The statements of one message would be one transaction.
    let calls: Vec<&str> = calls.split_inclusive(';').collect();
    // The time that single commits take without patterns, measured all along, because other work of the machine comes and goes.
    let (mut took, mut others) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..30 {
        let began = Instant::now();
        calls.iter().for_each(|call| run(&mut session, call));
        took += began.elapsed();
        let began = Instant::now();
        (0..10).for_each(|_| run(&mut session, "SELECT cache_invalidate_tag('x' || nextval('others'))"));
        others += began.elapsed() * 10;
    }
    assert_eq!(hits(&mut session, &["hit", "x1", "x2999"]), ["hit"]);
    let most = (others * 100).max(Duration::from_secs(60));
    assert!(took < most, "3000 patterns took {took:?}, and 3000 other commits {others:?}");
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// A transaction with more patterns than it may have (`PATTERNS_MAX` in `src/store/transaction/own_patterns.rs`) invalidates the
/// space.
#[test]
fn too_many_patterns_of_a_transaction_invalidate_the_space() {
    let database = Database::create();
    let mut session = database.connect();
    for (count, is_hit) in [(256, true), (300, false)] {
        run(&mut session, "SELECT cache_set_text('k', 'v')");
        run(
            &mut session,
            &format!(
                "SELECT count(cache_invalidate_pattern('x' || i)) FROM generate_series(1, {count}) AS i"
            ),
        );
        assert_eq!(get(&mut session, "k").is_some(), is_hit, "{count} patterns");
    }
}

/// Any key can be named by a pattern, and only `*`, `?` and `\` mean something.
#[test]
fn patterns_match_any_characters() {
    let database = Database::create();
    let mut session = database.connect();
    let keys = [
        "it's",
        "say \"hi\"",
        "two\nlines",
        "100%",
        "a_b",
        "é",
        "€",
        "😀",
        "a*b",
        "a?b",
        "a\\b",
        "[ab]",
        "{a,b}",
    ];
    let gone = |session: &mut Client, pattern: &str| {
        fill(session, &keys);
        invalidate(session, pattern);
        let left = hits(session, &keys);
        keys.iter().filter(|key| !left.contains(key)).copied().collect::<Vec<_>>()
    };
    for key in keys {
        let literal = key.replace('\\', "\\\\").replace('*', "\\*").replace('?', "\\?");
        assert_eq!(gone(&mut session, &literal), [key]);
    }
    assert_eq!(gone(&mut session, "?"), ["é", "€", "😀"]);
    assert_eq!(gone(&mut session, "a?b"), ["a_b", "a*b", "a?b", "a\\b"]);
    assert_eq!(gone(&mut session, "%"), [""; 0]);
    assert_eq!(gone(&mut session, "*\n*"), ["two\nlines"]);
    assert_eq!(gone(&mut session, &"*".repeat(1024)), keys);
}

/// Wrong patterns are errors and invalidate nothing.
#[test]
fn wrong_patterns_are_refused() {
    let database = Database::create();
    let mut session = database.connect();
    fill(&mut session, &["a", "\\"]);
    let long = "*".repeat(10_000);
    for (pattern, state) in [
        ("a\\", SqlState::INVALID_ESCAPE_SEQUENCE),
        ("", SqlState::INVALID_PARAMETER_VALUE),
        (&*long, SqlState::INVALID_PARAMETER_VALUE),
    ] {
        let error = session.execute("SELECT cache_invalidate_pattern($1)", &[&pattern]).expect_err(pattern);
        assert_eq!(error.code(), Some(&state), "{pattern}");
    }
    assert_eq!(hits(&mut session, &["a", "\\"]), ["a", "\\"]);
}

/// A pattern invalidates values of one space. In a space with values for each role, it invalidates only those of the current role.
#[test]
fn a_pattern_concerns_one_space_and_one_role() {
    let database = Database::create();
    let mut session = database.connect();
    run(&mut session, "CREATE ROLE pattern_role; SELECT cache_create_space('mine', scope => 'role')");
    run(&mut session, "SELECT cache_grant('mine', 'pattern_role', 'write'); SELECT cache_create_space('s')");
    let set = "SELECT cache_set_text('k', 'v', space => 'mine')";
    run(&mut session, &format!("{set}; SET ROLE pattern_role; {set}; RESET ROLE"));
    run(&mut session, "SELECT cache_set_text('k', 'v', space => 's'), cache_set_text('k', 'v')");
    run(&mut session, "SET ROLE pattern_role; SELECT cache_invalidate_pattern('*', 'mine')");
    let is_hit = |session: &mut Client, space: &str| {
        let get = "SELECT cache_get_text('k', $1) IS NOT NULL";
        session.query_one(get, &[&space]).expect("it may read").get::<_, bool>(0)
    };
    assert!(!is_hit(&mut session, "mine"));
    run(&mut session, "RESET ROLE");
    for space in ["mine", "s", "default"] {
        assert!(is_hit(&mut session, space), "{space}");
    }
    run(&mut session, "SELECT cache_invalidate_pattern('*', 's')");
    assert!(!is_hit(&mut session, "s") && is_hit(&mut session, "default"));
    run(&mut session, "SELECT cache_drop_space('mine'); DROP ROLE pattern_role");
}

/// A transaction that keeps one snapshot misses the keys that a pattern has invalidated after the transaction began.
#[test]
fn a_repeatable_read_transaction_misses_later_patterns() {
    let database = Database::create();
    let [mut one, mut two] = [(); 2].map(|()| database.connect());
    fill(&mut one, &["a", "b"]);
    run(&mut one, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    assert_eq!(hits(&mut one, &["a", "b"]), ["a", "b"]);
    invalidate(&mut two, "a");
    assert_eq!(hits(&mut one, &["a", "b"]), ["b"]);
    run(&mut one, "COMMIT");
}

/// Patterns that are slow on purpose must not hold up the transaction that has them: neither its reads, nor its commit, which
/// nothing can interrupt. So a key that takes too long to compare counts as matched.
#[test]
fn own_patterns_that_are_too_slow_count_as_matched() {
    let database = Database::create();
    let mut session = database.connect();
    let key = "a".repeat(1023) + "e";
    fill(&mut session, &[&key, "k"]);
    run(
        &mut session,
        "BEGIN; SELECT count(cache_invalidate_pattern('*' || repeat('a', 500) || 'b' || i)) FROM generate_series(1, 256) AS i",
    );
    assert_eq!(get(&mut session, &key), None);
    assert_eq!(status(&mut session), "miss: removed by this transaction");
    assert_eq!(get(&mut session, "k").as_deref(), Some("v"));
    run(
        &mut session,
        "SELECT count(cache_set_text(repeat('a', 1000) || i, 'v')) FROM generate_series(1, 1000) AS i; COMMIT",
    );
    assert_eq!(get(&mut session, "k").as_deref(), Some("v"));
    assert_eq!(findings(&mut session), Vec::<String>::new());
}
