//! Many sessions ask for the same keys at once. One of them must get the lease or the claim, and no other. A *lease* is the task to
//! compute the value of a key, which `cache_acquire` gives to one caller. A *claim* is the right of a transaction to set a key that
//! has no value (`cache_set` with mode `absent`).

use super::calls::{acquire, ask, only, pid, set_absent, status, terminate};
use crate::memory::{cluster, findings};
use pg_cache_testbed::{Cluster, Conf, wait_at_most, wait_until};
use postgres::Client;
use postgres::error::SqlState;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// The number of sessions.
const CROWD: usize = 100;

/// Starts a cluster with room for the crowd.
fn crowded() -> Cluster {
    cluster(&Conf::preloaded().set("max_connections", "150"))
}

/// Runs the same call in all sessions at once, and returns the positions of the sessions that won: their call returned true.
fn rush(sessions: &mut [Client], call: impl Fn(&mut Client) -> bool + Sync) -> Vec<usize> {
    let barrier = Barrier::new(sessions.len());
    thread::scope(|threads| {
        let rushing: Vec<_> = sessions
            .iter_mut()
            .map(|session| {
                threads.spawn(|| {
                    barrier.wait();
                    call(session)
                })
            })
            .collect();
        let won = rushing.into_iter().map(|thread| thread.join().expect("no session fails"));
        won.enumerate().filter(|(_, won)| *won).map(|(number, _)| number).collect()
    })
}

/// A set with mode `absent` claims its key until the transaction ends. Exactly one session gets the claim, and the next one gets it
/// when the first rolls back, is terminated, or disconnects.
#[test]
fn of_a_hundred_one_is_the_first_to_set_a_key() {
    let cluster = crowded();
    let mut witness = cluster.connect("postgres");
    let mut sessions: Vec<_> = (0..CROWD).map(|_| cluster.connect("postgres")).collect();
    let begin = |session: &mut Client| session.batch_execute("BEGIN").expect("it begins");
    sessions.iter_mut().for_each(begin);
    let set = |session: &mut Client| set_absent(session, "k");

    let first = only(&rush(&mut sessions, set));
    assert_eq!(status(&mut witness, "k"), "wait", "somebody is at it");
    sessions[first].batch_execute("ROLLBACK; BEGIN").expect("it rolls back");
    let second = only(&rush(&mut sessions, set));
    let mut second = sessions.remove(second);
    assert!(rush(&mut sessions, set).is_empty(), "it is claimed");

    terminate(&mut witness, pid(&mut second));
    let third = only(&rush(&mut sessions, set));
    // A savepoint can hold the claim, and a rollback to it gives the claim back.
    sessions[third].batch_execute("ROLLBACK; BEGIN; SAVEPOINT s").expect("it rolls back");
    assert!(set(&mut sessions[third]));
    let mut third = sessions.remove(third);
    let mut others = sessions;
    assert!(rush(&mut others, set).is_empty(), "it is claimed");
    third.batch_execute("ROLLBACK TO s").expect("it rolls back");
    let fourth = only(&rush(&mut others, set));
    let value = pid(&mut others[fourth]).to_string();
    others[fourth].batch_execute("COMMIT").expect("it commits");
    assert!(rush(&mut others, set).is_empty(), "there is a value");
    others.iter_mut().for_each(|session| assert_eq!(ask(session, "k").1.as_deref(), Some(&*value)));
    // A client disconnects in the middle of its transaction.
    witness.batch_execute("SELECT cache_delete('k')").expect("it is removed");
    let mut leaver = others.remove(0);
    let leaving = pid(&mut leaver);
    leaver.batch_execute("ROLLBACK; BEGIN").expect("it begins");
    assert!(set(&mut leaver));
    drop(leaver);
    wait_until("its end", || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
        witness.query_one(query, &[&leaving]).expect("there is a view").get::<_, i64>(0) == 0
    });
    only(&rush(&mut others, set));
    drop(others);
    drop(third);
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// Exactly one session gets the lease of a key. When it rolls back or is terminated, exactly one other session gets it.
#[test]
fn of_a_hundred_one_computes() {
    let cluster = crowded();
    let mut witness = cluster.connect("postgres");
    let mut sessions: Vec<_> = (0..CROWD).map(|_| cluster.connect("postgres")).collect();
    // The lease must not end by itself.
    let acquire = |session: &mut Client| {
        let (status, value, lease) = acquire(session, "k", ", hold => '1 hour'").expect("asking works");
        assert_eq!((value, status == "compute"), (None, lease.is_some()));
        status == "compute"
    };
    sessions.iter_mut().for_each(|session| session.batch_execute("BEGIN").expect("it begins"));
    let first = only(&rush(&mut sessions, acquire));
    sessions[first].batch_execute("ROLLBACK").expect("it rolls back");
    let second = only(&rush(&mut sessions, acquire));
    // A committed lease also ends with a terminated session, because that session will not compute.
    sessions[second].batch_execute("COMMIT").expect("it commits");
    let mut second = sessions.remove(second);
    assert!(rush(&mut sessions, acquire).is_empty(), "somebody computes");
    terminate(&mut witness, pid(&mut second));
    let third = only(&rush(&mut sessions, acquire));
    // The same holds for a session that is terminated in the middle of its transaction.
    let mut third = sessions.remove(third);
    terminate(&mut witness, pid(&mut third));
    let fourth = only(&rush(&mut sessions, acquire));
    let fourth = sessions.remove(fourth);
    sessions.iter_mut().for_each(|session| session.batch_execute("COMMIT").expect("it commits"));
    drop(fourth); // with its transaction, and so with the lease
    wait_until("the fourth one's end", || status(&mut witness, "k") == "compute");
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// All operations run at once, while another session keeps cancelling and terminating sessions. Afterwards, no key may still have
/// a lease or a claim. The leases last an hour, so they do not end by themselves.
#[test]
fn a_storm_of_cancels_and_ends_leaves_no_lease_and_no_claim() {
    const KEYS: u64 = 5;
    const SESSIONS: usize = 16;
    let cluster = cluster(&Conf::preloaded());
    let mut witness = cluster.connect("postgres");
    let calm = AtomicBool::new(false);
    let [hits, computed, errors] = [(); 3].map(|()| AtomicU64::new(0));
    let connect = |name: &str| {
        let mut session = cluster.connect("postgres");
        session.batch_execute(&format!("SET application_name = '{name}'")).ok().map(|()| session)
    };
    let work = |seed: usize| {
        let mut session = None;
        let mut random = seed as u64 * 7919 + 1;
        while !calm.load(Ordering::Relaxed) {
            let Some(current) = session.as_mut() else {
                session = connect("storm");
                continue;
            };
            // Knuth's generator for 64 bits. Its upper bits are the random ones.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (key, what) = (format!("k{}", (random >> 33) % KEYS), (random >> 50) % 6);
            let outcome = (|| {
                match what {
                0 => current.batch_execute(&format!("SELECT cache_delete('{key}')")),
                1 => current.batch_execute(&format!(
                    "BEGIN; SELECT cache_set('{key}', '1', mode => 'absent'); SELECT pg_sleep(0.002); COMMIT"
                )),
                2 => current.batch_execute(&format!(
                    "BEGIN; SELECT cache_acquire('{key}'); SAVEPOINT s; SELECT cache_set('{key}', '2', mode => 'absent');
                     ROLLBACK TO s; SELECT cache_set('{key}', '3', mode => 'absent'), pg_sleep(0.001); ROLLBACK"
                )),
                _ => {
                    let (status, _, lease) = acquire(current, &key, ", wait => '20 ms', hold => '1 hour'")?;
                    hits.fetch_add(u64::from(status == "hit"), Ordering::Relaxed);
                    if let Some(lease) = lease {
                        let set = "SELECT cache_set($1, '0', '50 ms', lease => $2), pg_sleep(0.001)";
                        if let Err(error) = current.query_one(set, &[&key, &lease]) {
                            // Like an application, this one goes on after the error, and releases the lease that it cannot use.
                            let _ = current.batch_execute("ROLLBACK");
                            let mut release =
                                || current.execute("SELECT cache_release($1, $2)", &[&key, &lease]);
                            while release().is_err_and(|error| !error.is_closed() && error.code() == Some(&SqlState::QUERY_CANCELED)) {}
                            return Err(error);
                        }
                        computed.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                }
            }
            })();
            if outcome.is_err() {
                errors.fetch_add(1, Ordering::Relaxed);
                if current.batch_execute("ROLLBACK").is_err() {
                    session = None;
                }
            }
        }
    };
    /// Ends the storm also if the wait below panics. Otherwise, the threads would go on for ever.
    struct Calm<'c>(&'c AtomicBool);
    impl Drop for Calm<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    thread::scope(|threads| {
        let workers: Vec<_> = (0..SESSIONS).map(|seed| threads.spawn(move || work(seed))).collect();
        let calming = Calm(&calm);
        let enough = |count: &AtomicU64, least| count.load(Ordering::Relaxed) >= least;
        let mut round = 0;
        wait_at_most(600, "enough of everything", || {
            round += 1;
            let how = if round % 3 == 0 { "pg_terminate_backend" } else { "pg_cancel_backend" };
            witness
                .batch_execute(&format!(
                    "SELECT {how}(pid) FROM pg_stat_activity WHERE application_name = 'storm' ORDER BY random() LIMIT 1"
                ))
                .expect("it can be told");
            enough(&hits, 100) && enough(&computed, 100) && enough(&errors, 200)
        });
        drop(calming);
        workers.into_iter().for_each(|worker| worker.join().expect("it does not panic"));
    });
    wait_until("all to be gone", || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'storm'";
        witness.query_one(query, &[]).expect("there is a view").get::<_, i64>(0) == 0
    });
    // A fence marks a change that is being committed (`docs/invalidation.md`). `findings` reports fences that are not lowered.
    wait_until("all fences to be lowered", || findings(&mut witness).is_empty());
    for key in 0..KEYS {
        let key = format!("k{key}");
        witness.execute("SELECT cache_delete($1)", &[&key]).expect("it is removed");
        let looked = acquire(&mut witness, &key, ", hold => NULL").expect("looking works").0;
        assert_eq!(looked, "compute", "{key} is still somebody's");
        assert!(set_absent(&mut witness, &key), "{key} is still claimed");
    }
}
