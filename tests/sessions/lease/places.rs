//! Leases and claims of one space or one role never take all places. A place is a slot in shared memory (`src/core/tier/flight.rs`)
//! for one lease, claim or fill. The size of the cache decides how many there are. A *lease* is the task to compute the value of a
//! key, which `cache_acquire` gives to one caller. A *claim* is the right of a transaction to set a key that has no value
//! (`cache_set` with mode `absent`), and a *fill* is a call of `cache_fetch` that runs its query.

use super::calls::{pid, terminate};
use crate::memory::{cluster, findings};
use pg_cache_testbed::{Conf, Database};
use postgres::Client;
use postgres::error::SqlState;

/// There are more concurrent computations than the smallest cache has places for leases. Callers without a lease are
/// told to compute too.
#[test]
fn hundreds_compute_at_once() {
    let cluster = cluster(&Conf::preloaded().set("pg_cache.hot_size", "1MB"));
    let mut session = cluster.connect("postgres");
    let query = "SELECT count(*) FILTER (WHERE status = 'compute'), count(nullif(lease, 0))
                   FROM generate_series(1, $1) AS i, cache_acquire('k ' || i)";
    let row = session.query_one(query, &[&150_i32]).expect("asking works");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (150, 150), "each has a lease");
    // The first 150 of these keys have leases already, so their status is `wait`.
    let row = session.query_one(query, &[&1000_i32]).expect("asking works");
    let (computing, leases): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!(computing, 850);
    assert!(leases < 850, "{leases} more leases in so small a cache");
    assert!(!session
        .query_one("SELECT bool_and(cache_set('k ' || i, '1', mode => 'absent')) FROM generate_series(2000, 2500) AS i", &[])
        .expect("setting works")
        .get::<_, bool>(0), "there is no place for so many claims, either");
    assert_eq!(findings(&mut session), Vec::<String>::new());
    let database = Database::create();
    let mut usual = database.connect();
    let row = usual.query_one(query, &[&1000_i32]).expect("asking works");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1000, 1000), "a usual cache has places");
}

/// The status names the limit that was reached, so that the caller does not look for another session that computes.
#[test]
fn the_status_says_that_no_place_is_left_for_a_claim() {
    let cluster = cluster(&Conf::preloaded().set("pg_cache.hot_size", "1MB"));
    let mut session = cluster.connect("postgres");
    session
        .batch_execute(
            "BEGIN;
             SELECT count(cache_set('k ' || i, '1', mode => 'absent')) FROM generate_series(1, 2000) AS i",
        )
        .expect("setting works");
    let why: String = session.query_one("SELECT cache_status()", &[]).expect("it says").get(0);
    assert_eq!(why, "refused: the space has used up its share of leases and claims");
}

/// A role that may write in one small space takes all places for leases and claims that it can get. Other sessions must still be
/// able to fetch, to acquire leases and to claim keys.
#[test]
fn one_grant_to_write_switches_nothing_off_for_others() {
    // This size has a few thousand places for leases and claims.
    let cluster = cluster(&Conf::preloaded().set("pg_cache.hot_size", "16MB"));
    let [mut owner, mut evil] = [(); 2].map(|()| cluster.connect("postgres"));
    owner
        .batch_execute(
            "CREATE TABLE t AS SELECT i FROM generate_series(1, 10) AS i;
             CREATE ROLE evil; SELECT cache_create_space('small', quota => 65536), cache_grant('small', 'evil', 'write')",
        )
        .expect("it is legal");
    evil.batch_execute("SET SESSION AUTHORIZATION evil").expect("it is legal");
    let a_day = "SELECT cache_acquire('k', space => 'small', hold => '1 day')";
    let error = evil.batch_execute(a_day).expect_err("nobody computes for a day");
    assert_eq!(error.code(), Some(&SqlState::INVALID_PARAMETER_VALUE));
    // Asks for 8001 keys from this number on, and returns how many leases the session got.
    let take = |session: &mut Client, from: i32| -> i64 {
        let query = "SELECT count(*) FILTER (WHERE lease > 0)
                       FROM generate_series($1, $1 + 8000) AS i, cache_acquire('k ' || i, 'small', hold => '1 hour')";
        session.query_one(query, &[&from]).expect("asking works").get(0)
    };
    let why = |session: &mut Client| -> String {
        session.query_one("SELECT cache_status()", &[]).expect("it says").get(0)
    };
    let share = "refused: the space has used up its share of leases and claims";
    // The work of other sessions meanwhile: they fetch queries, acquire leases and claim keys. Each round uses other
    // keys.
    let others_work = |owner: &mut Client, round: &str| {
        let work = format!(
            "SELECT count(cache_fetch('{round} f ' || i, 'SELECT sum(i) FROM t')),
                    count(*) FILTER (WHERE cache_exists('{round} f ' || i)),
                    count(*) FILTER (WHERE cache_set('{round} a ' || i, '1', mode => 'absent')),
                    count(*) FILTER (WHERE (SELECT lease > 0 FROM cache_acquire('{round} l ' || i)))
               FROM generate_series(1, 30) AS i"
        );
        let row = owner.query_one(&work, &[]).expect("it works");
        let found: [i64; 4] = [row.get(0), row.get(1), row.get(2), row.get(3)];
        assert_eq!(found, [30; 4], "{round}: {}", why(owner));
        owner.batch_execute("SELECT cache_flush('default')").expect("it is flushed");
    };
    let got = take(&mut evil, 0);
    assert_eq!(why(&mut evil), share);
    assert_eq!(take(&mut evil, 0), 0, "it has its share");
    others_work(&mut owner, "beside leases");
    // A key for which another role holds a lease in the same space can still be fetched.
    let fetched = "SELECT cache_fetch('k 7', 'SELECT sum(i) FROM t', space => 'small') IS NOT NULL AND cache_exists('k 7', 'small')";
    assert!(owner.query_one(fetched, &[]).expect("it works").get::<_, bool>(0), "a fill goes before a lease");
    // A flush ends the leases.
    owner.batch_execute("SELECT cache_flush('small')").expect("it is flushed");
    let again = take(&mut evil, 100_000);
    assert!(again > got / 2, "{again} leases after the flush, {got} before");
    // Now claims, which end with their transaction, and more leases beside them.
    owner.batch_execute("SELECT cache_flush('small')").expect("it is flushed");
    evil.batch_execute("BEGIN").expect("it begins");
    let claims = "SELECT count(*) FILTER (WHERE cache_set('c ' || i, '1', '1 min', space => 'small', mode => 'absent'))
                    FROM generate_series(1, 8000) AS i";
    let claimed: i64 = evil.query_one(claims, &[]).expect("setting works").get(0);
    assert!((1_000..4_000).contains(&claimed), "{claimed} claims");
    assert_eq!(why(&mut evil), share);
    take(&mut evil, 200_000);
    others_work(&mut owner, "beside claims");
    evil.batch_execute("ROLLBACK").expect("it rolls back");
    // Dropping the space ends the leases that are left. The end of the session ends those that no other session knows.
    take(&mut evil, 300_000);
    owner
        .batch_execute("SELECT cache_drop_space('small'); SELECT cache_create_space('small'), cache_grant('small', 'evil', 'write')")
        .expect("it is dropped");
    let anew = take(&mut evil, 300_000);
    assert!(anew > got / 2, "{anew} leases in the new space, {got} in the old one");
    let leaving = pid(&mut evil);
    terminate(&mut owner, leaving);
    let mut other = cluster.connect("postgres");
    other.batch_execute("SET SESSION AUTHORIZATION evil").expect("it is legal");
    let after = take(&mut other, 300_000);
    assert!(after > got / 2, "{after} leases after the session's end, {got} before");
    others_work(&mut owner, "at last");
    assert_eq!(findings(&mut owner), Vec::<String>::new());
}
