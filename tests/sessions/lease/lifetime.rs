//! A lease outlives a session whose client disconnects, but not a crash of the server. A *lease* is the task to compute the value
//! of a key, which `cache_acquire` gives to one caller.

use super::calls::{acquire_long, ask, pid, set_under_lease, status};
use crate::memory::{cluster, findings};
use pg_cache_testbed::{Conf, wait_until};

/// Behind a pooler, an application's next transaction may run in another session, and the pooler may close the first one. The lease
/// must survive that.
#[test]
fn a_lease_goes_on_when_its_session_ends_in_order() {
    let cluster = cluster(&Conf::preloaded());
    let [mut one, mut two, mut three] = [(); 3].map(|()| cluster.connect("postgres"));
    let (lease, gone) = (acquire_long(&mut one, "k"), pid(&mut one));
    drop(one);
    wait_until("its end", || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
        two.query_one(query, &[&gone]).expect("there is a view").get::<_, i64>(0) == 0
    });
    assert_eq!(status(&mut two, "k"), "wait");
    assert_eq!(findings(&mut two), Vec::<String>::new());
    three.batch_execute("BEGIN").expect("it begins");
    assert!(set_under_lease(&mut three, "k", "v", lease));
    assert_eq!(status(&mut two, "k"), "wait", "not before it has committed");
    three.batch_execute("COMMIT").expect("it commits");
    assert_eq!(ask(&mut two, "k").1.as_deref(), Some("v"));
    assert!(!set_under_lease(&mut two, "k", "again", lease));
}

/// The number of a lease contains the epoch of shared memory: a random number that the server draws when it initializes the
/// memory. Without the epoch, a lease from before the crash would be equal to one from after it, and its outdated value would be
/// stored.
#[test]
fn a_lease_from_before_a_crash_is_refused() {
    // A cache of this size has one shard (a part with a lock of its own), so the numbers of leases are consecutive.
    let cluster =
        cluster(&Conf::preloaded().set("restart_after_crash", "on").set("pg_cache.hot_size", "1MB"));
    let [mut leader, mut victim] = [(); 2].map(|()| cluster.connect("postgres"));
    let leases: Vec<i64> = (0..20)
        .map(|_| {
            let lease = acquire_long(&mut leader, "k");
            assert!(
                leader
                    .query_one("SELECT cache_release('k', $1)", &[&lease])
                    .expect("it works")
                    .get::<_, bool>(0)
            );
            lease
        })
        .collect();
    let last = acquire_long(&mut leader, "k");
    cluster.kill(pid(&mut victim));
    wait_until("everybody's end", || leader.batch_execute("SELECT 1").is_err());
    let mut session = None;
    wait_until("the server to come back", || {
        session = cluster.try_connect("postgres").ok();
        session.is_some()
    });
    let mut session = session.expect("it has come back");
    // Apart from the epoch, the new leases get the same numbers.
    let new = acquire_long(&mut session, "k");
    for old in leases.into_iter().chain([last]) {
        assert_ne!(old, new);
        assert!(!set_under_lease(&mut session, "k", "old", old), "it is from another life");
        assert!(
            !session.query_one("SELECT cache_release('k', $1)", &[&old]).expect("it works").get::<_, bool>(0)
        );
    }
    let landed = set_under_lease(&mut session, "k", "new", new);
    assert!(
        landed,
        "{:?}",
        session.query_one("SELECT cache_status()", &[]).map(|row| row.get::<_, String>(0))
    );
    assert_eq!(ask(&mut session, "k").1.as_deref(), Some("new"));
    assert_eq!(findings(&mut session), Vec::<String>::new());
}
