//! Tests with failing memory allocations. The affected call must miss, or do nothing and report that in its result, or raise the
//! server's error for it (SQLSTATE 53200). No session may end, and `cache_check()` must find nothing afterwards.

use crate::memory::{cluster, findings};
use pg_cache_testbed::{Cluster, Conf, wait_until};
use postgres::Client;
use postgres::error::SqlState;

/// Returns whether `make test-long` runs the tests.
fn is_long() -> bool {
    std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty())
}

/// Starts a server in which tests can make allocations of the library fail, with the tables and the space of [`CALLS`].
/// `fail_allocation` exists in debug builds only (`src/pg/allocator.rs`), and counts the allocations of its own session. The
/// cache is small, so that `cache_check()` is quick.
fn failing_cluster() -> Cluster {
    let cluster =
        cluster(&Conf::preloaded().set("pg_cache.hot_size", "2MB").set("pg_cache.fence_slots", "1024"));
    cluster
        .connect("postgres")
        .batch_execute(
            "CREATE FUNCTION fail_allocation(bigint, boolean) RETURNS boolean LANGUAGE c STRICT
                 AS '$libdir/pg_cache', 'fail_allocation_wrapper';
             CREATE TABLE t AS SELECT i AS v FROM generate_series(1, 100) AS i;
             CREATE TABLE parts (v int) PARTITION BY RANGE (v)",
        )
        .expect("tables");
    let mut session = cluster.connect("postgres");
    for number in 1..=20 {
        let part = format!(
            "CREATE TABLE part_{number} PARTITION OF parts FOR VALUES FROM ({number}) TO ({})",
            number + 1
        );
        session.batch_execute(&part).expect("a partition");
    }
    session
        .batch_execute("SELECT cache_create_space('mine'), cache_watch('t', '{t, u}'), cache_watch('parts')")
        .expect("a space");
    cluster
}

/// Calls of the SQL functions, some with long arguments, and other statements that run code of the library. Each must succeed while
/// no allocation fails, in any state in which the calls before it, complete or failed, leave the server. ` ;; ` separates
/// statements that must not share a message: `COMMIT PREPARED` is not allowed among several statements.
const CALLS: [&str; 54] = [
    "SELECT cache_set_text('k', repeat('x', 100000))",
    "SELECT cache_set('k' || i, to_jsonb(i), tags => ARRAY['t', 'v' || i]) FROM generate_series(1, 100) AS i",
    "SELECT cache_set_bytes('b', '\\x00', mode => 'absent')",
    "SELECT cache_set_text('k', 'v', mode => 'present', stale_ok => '1 s')",
    "SELECT cache_get('k1'), cache_get_text('k'), cache_get_bytes('none')",
    "SELECT cache_exists('k'), cache_ttl('k')",
    "SELECT cache_get_many(array_agg('k' || i)) FROM generate_series(1, 500) AS i",
    "SELECT cache_set_many(jsonb_object_agg('m' || i, i)) FROM generate_series(1, 100) AS i",
    "SELECT cache_delete_many(array_agg('m' || i)) FROM generate_series(1, 100) AS i",
    "SELECT cache_delete('k')",
    "SELECT cache_touch('k1', '1 min')",
    "SELECT cache_incr('count', 2)",
    "SELECT cache_set_text('number', '7'), cache_incr('number'), cache_get('number'), cache_get_text('number')",
    "SELECT cache_set('number', '7'), cache_incr('number'); BEGIN; SELECT cache_set('own', '7', tags => '{t}'), cache_incr('own'); COMMIT",
    "SELECT cache_set_many_text('{n1,n2}', ARRAY['v', repeat('v', 10000)]), (SELECT count(*) FROM cache_get_many_text('{n1,n2,k1}'))",
    "SELECT cache_set_text('n1', repeat('x', 9000000)), cache_touch('n2', '0'), cache_touch_many('{n1,n2}', '1 min')",
    "SELECT cache_keys(max_keys => 5000)",
    "SELECT cache_keys('k*')",
    "SELECT cache_invalidate_tag('t')",
    "SELECT cache_invalidate_pattern('k1*'), cache_set_text('k11', 'v'), cache_get_text('k1')",
    "SELECT cache_invalidate_tags(array_agg('tag' || i)) FROM generate_series(1, 500) AS i",
    "SELECT cache_flush('default')",
    "SELECT cache_fetch('f', 'SELECT sum(v) FROM t', refresh => true)",
    "SELECT cache_fetch('g', 'SELECT sum(v) + $1::int + length($2::text) FROM parts',
            args => jsonb_build_array(1, repeat('x', 100000)), tags => '{t, parts}', refresh => true)",
    "SELECT cache_fetch('h', 'SELECT repeat(''x'', 100000)', refresh => true)",
    "SELECT cache_fetch('i', 'SELECT 1' || repeat(' ', 100000), refresh => true)",
    "SELECT cache_fetch('j', 'SELECT 1', refresh => true, depends => array_fill('t'::regclass, '{10000}'))",
    "SELECT * FROM cache_acquire('l')",
    "SELECT cache_release('m', (SELECT COALESCE(lease, 0) FROM cache_acquire('m')))",
    "SELECT cache_set_text('l', 'v', lease => (SELECT COALESCE(lease, 0) FROM cache_acquire('l')))",
    "SELECT cache_status()",
    "SELECT cache_check()",
    "SELECT * FROM cache_health()",
    "SELECT * FROM cache_advise()",
    "SELECT * FROM cache_spaces",
    "SELECT * FROM cache_queries",
    "SELECT * FROM cache_dependencies",
    "SELECT * FROM cache_stats",
    "SELECT * FROM cache_stats_detail",
    "SELECT * FROM cache_usage",
    "SELECT * FROM cache_workers",
    "SELECT * FROM cache_watches",
    "SELECT cache_warmer_add('w', 'SELECT sum(v) + $1::int FROM t', '[1]', tags => '{t}');
     SELECT count(*) FROM cache_warm(), cache_warmers; SELECT cache_warmer_drop('w')",
    "SELECT * FROM cache_relations",
    "SELECT cache_stats_reset()",
    "SELECT cache_create_space('new', default_ttl => '1 h', scope => 'role'), cache_drop_space('new')",
    "SELECT cache_alter_space('mine', jitter => 0.1)",
    "SELECT cache_grant('mine', 'pg_monitor', 'read'), cache_revoke('mine', 'pg_monitor', 'read')",
    "SELECT cache_watch('t', '{w}'), cache_unwatch('t'), cache_watch('t', '{t, u}')",
    "SELECT cache_invalidate_relation('parts')",
    "INSERT INTO parts SELECT 1 + i % 20 FROM generate_series(1, 100) AS i; SELECT cache_get('k1')",
    "BEGIN; SAVEPOINT a; INSERT INTO t VALUES (1); SELECT cache_set_text('s' || i, 'v') FROM generate_series(1, 50) AS i;
     SAVEPOINT b; SELECT cache_invalidate_tag('b'); ROLLBACK TO b; RELEASE a; SELECT cache_get_text('s1'); COMMIT",
    "BEGIN; SELECT cache_set_text('p' || i, 'v') FROM generate_series(1, 300) AS i; INSERT INTO parts VALUES (3);
     PREPARE TRANSACTION 'p' ;; COMMIT PREPARED 'p'",
    "CREATE TABLE made (v int); ALTER TABLE made ADD w int; DROP TABLE made",
];

/// Runs the statements of a call one after the other, and stops at the first error.
fn execute(session: &mut Client, call: &str) -> Result<(), postgres::Error> {
    call.split(" ;; ").try_for_each(|statement| session.batch_execute(statement))
}

/// Runs a call while allocations fail, and returns whether one has failed. `number` counts the library's allocations from here
/// on, the first of which is number 1. With `all`, every allocation from that number on fails, otherwise only that one. False
/// means that the library has made fewer allocations than `number`. Panics if the call ends in another error than 53200, or ends
/// the session.
fn run(session: &mut Client, call: &str, number: i64, all: bool) -> bool {
    let fail = "SELECT fail_allocation($1, $2)";
    session.execute(fail, &[&number, &all]).expect("it is prepared");
    if let Err(error) = execute(session, call) {
        let code = error.code().unwrap_or_else(|| panic!("allocation {number} of {call}: {error:?}"));
        assert_eq!(code, &SqlState::OUT_OF_MEMORY, "allocation {number} of {call}: {error:?}");
    }
    // A failed transaction block must end before the next query can succeed.
    session.batch_execute("ROLLBACK").expect("the session lives");
    let failed = session.query_one(fail, &[&0_i64, &false]).expect("the session lives").get(0);
    // If the call has prepared its transaction and has not committed it, this ends it.
    let _ = session.batch_execute("ROLLBACK PREPARED 'p'");
    failed
}

/// Runs each call again and again, until it makes fewer than n allocations. The n-th one fails, first alone, then together with
/// all later ones. In the long run n takes every value, otherwise it grows in steps.
#[test]
fn a_failed_allocation_ends_no_session_and_leaves_the_cache_consistent() {
    let cluster = failing_cluster();
    let mut session = cluster.connect("postgres");
    let mut witness = cluster.connect("postgres");
    for call in CALLS {
        execute(&mut session, call).unwrap_or_else(|error| panic!("{call}: {error:?}"));
    }
    for call in CALLS {
        for all in [false, true] {
            let mut number = 1;
            while run(&mut session, call, number, all) {
                // The steps may grow, because a list grows by doubling. The first three allocations are tested one by one.
                number += if is_long() { 1 } else { 1 + number / 3 };
            }
        }
        assert_eq!(findings(&mut witness), Vec::<String>::new(), "after {call}");
        execute(&mut session, call).unwrap_or_else(|error| panic!("{call}: {error:?}"));
    }
}

/// Allocations fail as in the test above, each time in a new session, which remembers nothing of the catalogs yet: the n-th
/// allocation and all later ones fail, and n grows in steps. The last call names a space that does not exist, so it always ends in
/// an error. No session may end.
#[test]
fn a_failed_allocation_in_a_new_session_does_not_end_it() {
    let cluster = failing_cluster();
    let mut witness = cluster.connect("postgres");
    for call in [
        "SELECT cache_get('k1')",
        "SELECT cache_set_text('k', 'v', tags => '{t}')",
        "INSERT INTO parts VALUES (1)",
        "SELECT cache_fetch('g', 'SELECT sum(v) FROM parts', refresh => true)",
        "SELECT cache_get('k', space => 'none')",
    ] {
        let mut number = 1;
        loop {
            let mut session = cluster.connect("postgres");
            let failing = run_any(&mut session, call, number);
            if !failing {
                break;
            }
            number += 1 + number / 4;
        }
        assert_eq!(findings(&mut witness), Vec::<String>::new(), "after {call}");
    }
}

/// The same as `run` with `all`, for a call that may end in any error of the server. Panics if the session ends.
fn run_any(session: &mut Client, call: &str, number: i64) -> bool {
    let fail = "SELECT fail_allocation($1, $2)";
    session.execute(fail, &[&number, &true]).expect("it is prepared");
    if let Err(error) = session.batch_execute(call) {
        assert!(error.code().is_some(), "allocation {number} of {call}: {error:?}");
    }
    session.query_one(fail, &[&0_i64, &false]).expect("the session lives").get(0)
}

/// Limits the address space to several amounts above the session's current size, and runs calls that need some megabytes. A call
/// may only fail with 53200. The amounts are the multiples of 256 kB below 12 MB in the long run, else those of 768 kB below 4
/// MB.
#[test]
fn without_address_space_calls_end_in_errors_and_sessions_go_on() {
    let cluster =
        cluster(&Conf::preloaded().set("pg_cache.hot_size", "32MB").set("pg_cache.fence_slots", "1024"));
    let mut session = cluster.connect("postgres");
    session
        .batch_execute(
            "CREATE TABLE o AS SELECT jsonb_object_agg('k' || i, repeat('x', 20)) AS members,
                    array_agg('k' || i) AS keys FROM generate_series(1, 10000) AS i;
             CREATE TABLE t AS SELECT 1 AS v;
             SELECT cache_set_many(members) FROM o; SELECT cache_set_text('large', repeat('x', 1500000))",
        )
        .expect("it is stored");
    let calls = [
        "SELECT cache_get_text('large')",
        "SELECT cache_set_text('large', repeat('y', 1500000))",
        "SELECT count(*) FROM o, cache_get_many(keys)",
        "SELECT cache_set_many(members) FROM o",
        "SELECT cache_delete_many(keys) FROM o",
        "SELECT cache_fetch('f', 'SELECT repeat(''x'', 1500000) FROM t', refresh => true)",
        "SELECT cache_fetch('g', 'SELECT length($1::text) FROM t', args => jsonb_build_array(repeat('x', 1500000)), refresh => true)",
        "SELECT cache_keys(max_keys => 1000000)",
        "SELECT cache_invalidate_tags(keys) FROM o",
        "SELECT count(cache_set_text('n' || i, 'v')) FROM generate_series(1, 20000) AS i",
        "SELECT count(*) FROM cache_check()",
    ];
    let bands: Vec<u64> = match is_long() {
        true => (0..48).map(|band| band << 18).collect(),
        false => (0..6).map(|band| (band * 3) << 18).collect(),
    };
    let mut refused = 0;
    // Opens a session whose address space may grow by `more` bytes.
    let begin = |more| {
        let mut session = cluster.connect("postgres");
        session.batch_execute("SELECT cache_get('warm')").expect("it works");
        let process: i32 = session.query_one("SELECT pg_backend_pid()", &[]).expect("it lives").get(0);
        cluster.limit_address_space(process, more);
        session
    };
    for more in bands {
        let mut session = begin(more);
        for call in calls {
            // Memory that an earlier call has left allocated counts towards the limit. In the long run, each call has the whole
            // amount.
            if is_long() {
                session = begin(more);
            }
            if let Err(error) = session.batch_execute(call) {
                let code = error.code().unwrap_or_else(|| panic!("{more} bytes more, {call}: {error:?}"));
                assert_eq!(code, &SqlState::OUT_OF_MEMORY, "{more} bytes more, {call}: {error:?}");
                refused += 1;
            }
        }
    }
    // Otherwise, the limits would have had next to no effect.
    assert!(refused > 10, "only {refused} calls were refused");
    let mut witness = cluster.connect("postgres");
    wait_until("the end of all transactions", || findings(&mut witness).is_empty());
    assert!(!cluster.log().contains("was terminated by signal"), "a session has crashed");
}
