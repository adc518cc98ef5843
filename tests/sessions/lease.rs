//! Tests of leases and claims: of many sessions, one computes and the others wait. Some sessions are cancelled,
//! terminated or killed meanwhile. No lease and no claim may outlive its end, and nothing older than its lease may be
//! stored.

use crate::memory::{cluster, findings};
use pg_cache_testbed::{Cluster, Conf, Database, wait_until};
use postgres::Client;
use postgres::error::SqlState;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

const CROWD: usize = 100;

fn crowded() -> Cluster {
    cluster(&Conf::preloaded().set("max_connections", "150"))
}

/// The result of `cache_acquire`: the status, the value, the lease.
type Answer = (String, Option<String>, Option<i64>);

fn acquire(session: &mut Client, key: &str, how: &str) -> Result<Answer, postgres::Error> {
    let query = format!("SELECT status, value #>> '{{}}', lease FROM cache_acquire($1{how})");
    session.query_one(&query, &[&key]).map(|row| (row.get(0), row.get(1), row.get(2)))
}

fn ask(session: &mut Client, key: &str) -> Answer {
    acquire(session, key, "").expect("asking works")
}

fn status(session: &mut Client, key: &str) -> String {
    ask(session, key).0
}

/// Acquires a lease that lasts longer than any test.
fn lead(session: &mut Client, key: &str) -> i64 {
    let lease = acquire(session, key, ", hold => '1 hour'").expect("asking works").2;
    lease.filter(|lease| *lease > 0).expect("nobody else computes it")
}

fn land(session: &mut Client, key: &str, value: &str, lease: i64) -> bool {
    session
        .query_one("SELECT cache_set($1, to_jsonb($2::text), lease => $3)", &[&key, &value, &lease])
        .expect("setting works")
        .get(0)
}

fn set_absent(session: &mut Client, key: &str) -> bool {
    session
        .query_one("SELECT cache_set($1, to_jsonb(pg_backend_pid()), mode => 'absent')", &[&key])
        .expect("setting works")
        .get(0)
}

fn pid(session: &mut Client) -> i32 {
    session.query_one("SELECT pg_backend_pid()", &[]).expect("it lives").get(0)
}

/// Terminates a session and waits until it is gone.
fn terminate(witness: &mut Client, pid: i32) {
    witness.execute("SELECT pg_terminate_backend($1)", &[&pid]).expect("it is told to end");
    wait_until("the session's end", || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
        witness.query_one(query, &[&pid]).expect("there is a view").get::<_, i64>(0) == 0
    });
}

/// Returns how many sessions wait for another session that computes.
fn waiting(witness: &mut Client) -> i64 {
    witness
        .query_one(
            "SELECT count(*) FROM pg_stat_activity
              WHERE wait_event_type = 'Extension' AND backend_type = 'client backend'",
            &[],
        )
        .expect("there is a view")
        .get(0)
}

/// Runs the same call in all sessions at once, and returns which sessions won.
fn rush(sessions: &mut [Client], what: impl Fn(&mut Client) -> bool + Sync) -> Vec<usize> {
    let barrier = Barrier::new(sessions.len());
    thread::scope(|threads| {
        let rushing: Vec<_> = sessions
            .iter_mut()
            .map(|session| {
                threads.spawn(|| {
                    barrier.wait();
                    what(session)
                })
            })
            .collect();
        let won = rushing.into_iter().map(|thread| thread.join().expect("no session fails"));
        won.enumerate().filter(|(_, won)| *won).map(|(number, _)| number).collect()
    })
}

fn only(winners: &[usize]) -> usize {
    let [winner] = winners else { panic!("{} have won", winners.len()) };
    *winner
}

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

#[test]
fn of_a_hundred_one_computes() {
    let cluster = crowded();
    let mut witness = cluster.connect("postgres");
    let mut sessions: Vec<_> = (0..CROWD).map(|_| cluster.connect("postgres")).collect();
    let acquire = |session: &mut Client| {
        let (status, value, lease) = ask(session, "k");
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

/// Behind a pooler, an application's next transaction may run in another session, and its first session may end in
/// order. The lease must survive that.
#[test]
fn a_lease_goes_on_when_its_session_ends_in_order() {
    let cluster = cluster(&Conf::preloaded());
    let [mut one, mut two, mut three] = [(); 3].map(|()| cluster.connect("postgres"));
    let (lease, gone) = (lead(&mut one, "k"), pid(&mut one));
    drop(one);
    wait_until("its end", || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
        two.query_one(query, &[&gone]).expect("there is a view").get::<_, i64>(0) == 0
    });
    assert_eq!(status(&mut two, "k"), "wait");
    assert_eq!(findings(&mut two), Vec::<String>::new());
    three.batch_execute("BEGIN").expect("it begins");
    assert!(land(&mut three, "k", "v", lease));
    assert_eq!(status(&mut two, "k"), "wait", "not before it has committed");
    three.batch_execute("COMMIT").expect("it commits");
    assert_eq!(ask(&mut two, "k").1.as_deref(), Some("v"));
    assert!(!land(&mut two, "k", "again", lease));
}

/// Sessions that wait in `cache_acquire`, each in a thread of its own, longer than any test takes.
struct Waiters(Vec<thread::JoinHandle<Result<Answer, postgres::Error>>>, Vec<i32>);

impl Waiters {
    fn of(cluster: &Cluster, witness: &mut Client, number: usize, before: &str) -> Self {
        let mut sessions: Vec<_> = (0..number).map(|_| cluster.connect("postgres")).collect();
        sessions.iter_mut().for_each(|session| session.batch_execute(before).expect("it is legal"));
        let pids = sessions.iter_mut().map(pid).collect();
        let wait =
            |mut session: Client| thread::spawn(move || acquire(&mut session, "k", ", wait => '1 hour'"));
        let threads = sessions.into_iter().map(wait).collect();
        wait_until("all to wait", || waiting(witness) == number as i64);
        Self(threads, pids)
    }

    fn end(self) -> Vec<Result<Answer, postgres::Error>> {
        wait_until("their answers", || self.0.iter().all(thread::JoinHandle::is_finished));
        self.0.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    }
}

#[test]
fn who_waits_gets_the_value_when_it_is_committed() {
    let cluster = cluster(&Conf::preloaded());
    let [mut leader, mut witness] = [(); 2].map(|()| cluster.connect("postgres"));
    // A set with the lease, a set without it, and a set in mode `absent`, which takes precedence over the lease.
    let values = [
        "SELECT cache_set('k', '\"v\"', lease => $1)",
        "SELECT cache_set('k', '\"v\"') AND $1::bigint > 0",
        "SELECT cache_set('k', '\"v\"', mode => 'absent') AND $1::bigint > 0",
    ];
    for set in values {
        let lease = lead(&mut leader, "k");
        let waiters = Waiters::of(&cluster, &mut witness, 10, "");
        leader.batch_execute("BEGIN").expect("it begins");
        assert!(leader.query_one(set, &[&lease]).expect("setting works").get::<_, bool>(0));
        assert_eq!(waiting(&mut witness), 10, "it is not committed yet");
        leader.batch_execute("COMMIT").expect("it commits");
        for answer in waiters.end() {
            let (status, value, lease) = answer.expect("nobody was disturbed");
            assert_eq!((&*status, value.as_deref(), lease), ("hit", Some("v"), None));
        }
        leader.batch_execute("SELECT cache_delete('k')").expect("it is removed");
        leader.execute("SELECT cache_release('k', $1)", &[&lease]).expect("it is given back");
    }
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// When a computation ends without a value, exactly one of the waiting sessions computes next. The others keep waiting.
#[test]
fn who_waits_is_the_next_to_compute() {
    let cluster = cluster(&Conf::preloaded());
    let [mut leader, mut witness] = [(); 2].map(|()| cluster.connect("postgres"));
    // The four ways to end: the lease is released, rolled back, its session is terminated, or its time is over.
    for how in 0..4 {
        let hold = if how == 3 { ", hold => '200 ms'" } else { ", hold => '1 hour'" };
        leader.batch_execute("BEGIN").expect("it begins");
        let lease = acquire(&mut leader, "k", hold).expect("asking works").2.expect("nobody computes it");
        if how != 1 {
            leader.batch_execute("COMMIT").expect("it commits");
        }
        let waiters = match how {
            // The lease is so short that the sessions cannot be counted while they wait for it.
            3 => {
                let mut sessions: Vec<_> = (0..10).map(|_| cluster.connect("postgres")).collect();
                let pids = sessions.iter_mut().map(pid).collect();
                let wait = |mut session: Client| {
                    thread::spawn(move || acquire(&mut session, "k", ", wait => '1 hour'"))
                };
                Waiters(sessions.into_iter().map(wait).collect(), pids)
            }
            _ => Waiters::of(&cluster, &mut witness, 10, ""),
        };
        match how {
            0 => assert!(
                leader
                    .query_one("SELECT cache_release('k', $1)", &[&lease])
                    .expect("it is given back")
                    .get::<_, bool>(0)
            ),
            1 => leader.batch_execute("ROLLBACK").expect("it rolls back"),
            2 => {
                terminate(&mut witness, pid(&mut leader));
                leader = cluster.connect("postgres");
            }
            _ => {}
        }
        wait_until("one to be told", || waiters.0.iter().any(thread::JoinHandle::is_finished));
        witness.batch_execute("SELECT cache_set('k', '\"v\"')").expect("setting works");
        let answers: Vec<_> =
            waiters.end().into_iter().map(|answer| answer.expect("undisturbed").0).collect();
        assert_eq!(answers.iter().filter(|status| *status == "compute").count(), 1, "{how}: {answers:?}");
        assert_eq!(answers.iter().filter(|status| *status == "hit").count(), 9, "{how}: {answers:?}");
        if how == 3 {
            assert!(!land(&mut leader, "k", "late", lease), "somebody else has computed it since");
        }
        assert_eq!(ask(&mut witness, "k").1.as_deref(), Some("v"));
        witness.batch_execute("SELECT cache_delete('k')").expect("it is removed");
        // The session that was told to compute has ended in order, so its lease is still in force for sessions that
        // know its number.
        wait_until("the lease's end", || {
            leader
                .batch_execute("SELECT cache_set('k', '1', mode => 'absent'); SELECT cache_delete('k')")
                .expect("a claim ends a lease");
            acquire(&mut witness, "k", ", hold => NULL").expect("looking works").0 == "compute"
        });
    }
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

#[test]
fn who_is_disturbed_in_waiting_leaves_nothing() {
    let cluster = cluster(&Conf::preloaded());
    let [mut leader, mut witness] = [(); 2].map(|()| cluster.connect("postgres"));
    let lease = lead(&mut leader, "k");
    let disturb = |witness: &mut Client, before: &str, how: &str| {
        let waiters = Waiters::of(&cluster, witness, 5, before);
        if !how.is_empty() {
            for pid in &waiters.1 {
                witness.execute(&format!("SELECT {how}($1)"), &[pid]).expect("it is told");
            }
        }
        let errors = waiters.end().into_iter().map(|answer| answer.expect_err("it is disturbed"));
        errors.map(|error| error.code().cloned()).collect::<Vec<_>>()
    };
    let cancelled = disturb(&mut witness, "", "pg_cancel_backend");
    assert_eq!(cancelled, vec![Some(SqlState::QUERY_CANCELED); 5]);
    let ended = disturb(&mut witness, "", "pg_terminate_backend");
    // Some clients see only that the connection is closed.
    assert!(ended.iter().flatten().all(|code| *code == SqlState::ADMIN_SHUTDOWN), "{ended:?}");
    // These waits end by timeouts, perhaps before the sessions could be counted.
    for (setting, code) in
        [("statement_timeout", SqlState::QUERY_CANCELED), ("lock_timeout", SqlState::LOCK_NOT_AVAILABLE)]
    {
        let mut session = cluster.connect("postgres");
        session.batch_execute(&format!("SET {setting} = 100")).expect("it is legal");
        let error = acquire(&mut session, "k", ", wait => '1 hour'").expect_err("it does not wait for ever");
        assert_eq!(error.code(), Some(&code));
        assert_eq!(status(&mut session, "k"), "wait", "the session goes on");
    }
    assert_eq!(findings(&mut witness), Vec::<String>::new());
    assert!(land(&mut leader, "k", "v", lease), "nobody has taken anything from the leader");
    assert_eq!(status(&mut witness, "k"), "hit");
}

#[test]
fn a_lease_from_before_a_crash_is_refused() {
    // The cache has one shard, so the numbers of leases are consecutive.
    let cluster =
        cluster(&Conf::preloaded().set("restart_after_crash", "on").set("pg_cache.hot_size", "1MB"));
    let [mut leader, mut victim] = [(); 2].map(|()| cluster.connect("postgres"));
    let leases: Vec<i64> = (0..20)
        .map(|_| {
            let lease = lead(&mut leader, "k");
            assert!(
                leader
                    .query_one("SELECT cache_release('k', $1)", &[&lease])
                    .expect("it works")
                    .get::<_, bool>(0)
            );
            lease
        })
        .collect();
    let last = lead(&mut leader, "k");
    cluster.kill(pid(&mut victim));
    wait_until("everybody's end", || leader.batch_execute("SELECT 1").is_err());
    let mut session = None;
    wait_until("the server to come back", || {
        session = cluster.try_connect("postgres").ok();
        session.is_some()
    });
    let mut session = session.expect("it has come back");
    // The new leases get the same numbers, but in another epoch.
    let new = lead(&mut session, "k");
    for old in leases.into_iter().chain([last]) {
        assert_ne!(old, new);
        assert!(!land(&mut session, "k", "old", old), "it is from another life");
        assert!(
            !session.query_one("SELECT cache_release('k', $1)", &[&old]).expect("it works").get::<_, bool>(0)
        );
    }
    let landed = land(&mut session, "k", "new", new);
    assert!(
        landed,
        "{:?}",
        session.query_one("SELECT cache_status()", &[]).map(|row| row.get::<_, String>(0))
    );
    assert_eq!(ask(&mut session, "k").1.as_deref(), Some("new"));
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

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
fn who_finds_no_place_for_a_claim_is_told_so() {
    let cluster = cluster(&Conf::preloaded().set("pg_cache.hot_size", "1MB"));
    let mut session = cluster.connect("postgres");
    session
        .batch_execute(
            "BEGIN;
             SELECT count(cache_set('k ' || i, '1', mode => 'absent')) FROM generate_series(1, 2000) AS i",
        )
        .expect("setting works");
    let why: String = session.query_one("SELECT cache_status()", &[]).expect("it says").get(0);
    assert_eq!(why, "refused: the space has its share of the places for leases and claims");
}

/// All operations run at once, while another session keeps cancelling and terminating sessions.
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
                            // The application continues too, and releases the lease that it cannot use.
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
    thread::scope(|threads| {
        let workers: Vec<_> = (0..SESSIONS).map(|seed| threads.spawn(move || work(seed))).collect();
        let enough = |count: &AtomicU64, least| count.load(Ordering::Relaxed) >= least;
        let mut round = 0;
        wait_until("enough of everything", || {
            round += 1;
            let how = if round % 3 == 0 { "pg_terminate_backend" } else { "pg_cancel_backend" };
            witness
                .batch_execute(&format!(
                    "SELECT {how}(pid) FROM pg_stat_activity WHERE application_name = 'storm' ORDER BY random() LIMIT 1"
                ))
                .expect("it can be told");
            enough(&hits, 100) && enough(&computed, 100) && enough(&errors, 200)
        });
        calm.store(true, Ordering::Relaxed);
        workers.into_iter().for_each(|worker| worker.join().expect("it does not panic"));
    });
    wait_until("all to be gone", || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'storm'";
        witness.query_one(query, &[]).expect("there is a view").get::<_, i64>(0) == 0
    });
    assert_eq!(findings(&mut witness), Vec::<String>::new());
    for key in 0..KEYS {
        let key = format!("k{key}");
        witness.execute("SELECT cache_delete($1)", &[&key]).expect("it is removed");
        let looked = acquire(&mut witness, &key, ", hold => NULL").expect("looking works").0;
        assert_eq!(looked, "compute", "{key} is still somebody's");
        assert!(set_absent(&mut witness, &key), "{key} is still claimed");
    }
}

/// A lease starts now, but its holder may compute from a snapshot of the time when its transaction began.
#[test]
fn what_an_old_transaction_computes_under_a_lease_is_not_served_after_a_change() {
    let database = Database::create();
    let [mut old, mut writer] = [(); 2].map(|()| database.connect());
    writer
        .batch_execute("CREATE TABLE t AS SELECT 1 AS v; SELECT cache_watch('t')")
        .expect("a watched table");
    let set = "SELECT cache_set('k', to_jsonb(v), tags => '{t}', lease => $1) FROM t";
    let read = "SELECT cache_exists('k')";
    for takes_over in [false, true] {
        old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM t").expect("it looks");
        writer.batch_execute("UPDATE t SET v = v + 1").expect("a change");
        // The session uses its own lease, or one that another session acquired after the change.
        let lease = lead(if takes_over { &mut writer } else { &mut old }, "k");
        let stored: bool = old.query_one(set, &[&lease]).expect("it sets").get(0);
        old.batch_execute("COMMIT").expect("it commits");
        let served: bool = writer.query_one(read, &[]).expect("it reads").get(0);
        assert_eq!((stored, served), (false, false), "another's lease: {takes_over}");
    }
    // A transaction that began after the change computes a value that others may be given.
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").expect("it begins");
    let lease = lead(&mut old, "k");
    assert!(old.query_one(set, &[&lease]).expect("it sets").get::<_, bool>(0));
    old.batch_execute("COMMIT").expect("it commits");
    assert!(writer.query_one(read, &[]).expect("it reads").get::<_, bool>(0));
}

/// Creates a table and a function that waits at a gate. Returns a session that holds the gate closed.
fn gated(database: &Database) -> Client {
    let mut gate = database.connect();
    gate.batch_execute(
        "CREATE TABLE t AS SELECT 1 AS v;
         CREATE FUNCTION gate(anything bigint) RETURNS boolean LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN true; END';
         SELECT pg_advisory_lock(1)",
    )
    .expect("it is legal");
    gate
}

/// Runs a statement that reads the table and then waits at the gate. Meanwhile changes the table, then opens the gate.
/// Returns whether the statement stored its value, and its status.
fn overtaken(database: &Database, gate: &mut Client, query: &str, meanwhile: &str) -> (bool, String) {
    let (mut worker, mut witness) = (database.connect(), database.connect());
    thread::scope(|threads| {
        let waiting = threads.spawn(move || {
            let stored: bool = worker.query_one(query, &[]).expect("it works").get(0);
            let why: String = worker.query_one("SELECT cache_status()", &[]).expect("it says").get(0);
            (stored, why)
        });
        wait_until("the statement to be at the gate", || {
            let query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            witness.query_one(query, &[]).expect("there is a view").get::<_, i64>(0) == 1
        });
        gate.batch_execute(meanwhile).expect("a change");
        gate.batch_execute("SELECT pg_advisory_unlock(1)").expect("it opens");
        let outcome = waiting.join().expect("it does not panic");
        gate.batch_execute("SELECT pg_advisory_lock(1)").expect("it shuts");
        outcome
    })
}

const BEFORE_THE_LEASE: &str = "refused: the statement looks at the database as of before the lease";

/// A statement's snapshot is older than a lease that the statement acquires while it runs.
#[test]
fn a_statement_that_acquires_its_lease_after_it_has_looked_stores_nothing_old() {
    let database = Database::create();
    let mut gate = gated(&database);
    let change = "UPDATE t SET v = v + 1";
    // The first statement uses its own lease; the second uses one that another session acquired meanwhile.
    let own = "SELECT cache_set('k', to_jsonb(s.sum), lease => l.lease)
                 FROM (SELECT sum(v) FROM t) AS s, LATERAL cache_acquire(CASE WHEN gate(s.sum) THEN 'k' END) AS l";
    let found = overtaken(&database, &mut gate, own, change);
    assert_eq!(found, (false, BEFORE_THE_LEASE.to_owned()));
    let others = "SELECT cache_set('k', to_jsonb(s.sum), lease => cache_get_text(CASE WHEN gate(s.sum) THEN 'lease' END)::bigint)
                    FROM (SELECT sum(v) FROM t) AS s";
    let acquire = format!("{change}; SELECT cache_set_text('lease', lease::text) FROM cache_acquire('k')");
    let found = overtaken(&database, &mut gate, others, &acquire);
    assert_eq!(found, (false, BEFORE_THE_LEASE.to_owned()));
    // A STABLE function uses the snapshot of its caller.
    gate.batch_execute(
        "CREATE FUNCTION stable_set(lease bigint) RETURNS boolean STABLE LANGUAGE plpgsql AS
             'BEGIN RETURN cache_set(''k'', (SELECT to_jsonb(sum(v)) FROM t), lease => lease); END'",
    )
    .expect("it is legal");
    let stable = "SELECT stable_set(l.lease) FROM cache_acquire(CASE WHEN gate(1) THEN 'k' END) AS l";
    let found = overtaken(&database, &mut gate, stable, change);
    assert_eq!(found, (false, BEFORE_THE_LEASE.to_owned()));
    let looked = acquire_without_hold(&mut gate);
    assert_eq!(looked, "compute", "nothing was stored, and no lease is left");
}

fn acquire_without_hold(session: &mut Client) -> String {
    acquire(session, "k", ", hold => NULL").expect("looking works").0
}

#[test]
fn a_cursor_that_was_opened_before_the_lease_stores_nothing_old() {
    let database = Database::create();
    let [mut session, mut writer] = [(); 2].map(|()| database.connect());
    writer.batch_execute("CREATE TABLE t AS SELECT 1 AS v").expect("a table");
    for lease_is_old in [false, true] {
        session.batch_execute("BEGIN").expect("it begins");
        let mut lease = 0;
        if lease_is_old {
            lease = lead(&mut session, "k");
        }
        session
            .batch_execute(
                "DECLARE c CURSOR FOR SELECT cache_set('k', to_jsonb(sum(v)), lease => current_setting('my.lease')::bigint) FROM t",
            )
            .expect("it is opened");
        writer.batch_execute("UPDATE t SET v = v + 1").expect("a change");
        if !lease_is_old {
            lease = lead(&mut session, "k");
        }
        session.batch_execute(&format!("SET my.lease = {lease}")).expect("it is legal");
        let stored: bool = session.query_one("FETCH c", &[]).expect("it works").get(0);
        assert_eq!(stored, lease_is_old);
        session.batch_execute("COMMIT; SELECT cache_delete('k')").expect("it commits");
    }
}

/// A function acquires a lease and then computes in later statements. It must store its value, even if other sessions
/// commit changes meanwhile.
#[test]
fn a_function_that_acquires_a_lease_and_goes_on_to_compute_stores_its_value() {
    let database = Database::create();
    let [mut session, mut writer] = [(); 2].map(|()| database.connect());
    session
        .batch_execute(
            "CREATE TABLE t AS SELECT 1 AS v;
             CREATE FUNCTION computed(key text) RETURNS boolean LANGUAGE plpgsql AS
                 'DECLARE lease bigint; x jsonb; BEGIN
                      SELECT l.lease INTO lease FROM cache_acquire(key) AS l;
                      PERFORM pg_sleep(0.001);
                      SELECT to_jsonb(sum(v)) INTO x FROM t;
                      RETURN cache_set(key, x, lease => lease);
                  END';
             CREATE PROCEDURE computes(key text) LANGUAGE plpgsql AS
                 'DECLARE lease bigint; BEGIN
                      SELECT l.lease INTO lease FROM cache_acquire(key) AS l;
                      COMMIT;
                      PERFORM pg_sleep(0.001), set_config(''my.stored'', cache_set(key, to_jsonb(sum(v)), lease => lease)::text, false)
                         FROM t;
                      COMMIT;
                  END'",
        )
        .expect("it is legal");
    let commits = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    thread::scope(|threads| {
        threads.spawn(|| {
            // The number is bounded, so that the thread also ends if the test fails.
            while !over.load(Ordering::Relaxed) && commits.fetch_add(1, Ordering::Relaxed) < 20_000 {
                writer.batch_execute("UPDATE t SET v = v + 1").expect("a change");
            }
        });
        for round in 0..50 {
            let function = format!("SELECT computed('f {round}')");
            let stored: bool = session.query_one(&function, &[]).expect("it works").get(0);
            session.batch_execute(&format!("CALL computes('p {round}')")).expect("it works");
            // The next two statements are in one message.
            session
                .batch_execute(&format!("SELECT set_config('my.lease', lease::text, false) FROM cache_acquire('s {round}');
                     SELECT set_config('my.set', cache_set('s {round}', to_jsonb(v), lease => current_setting('my.lease')::bigint)::text, false) FROM t"))
                .expect("it works");
            let others = session
                .query_one(
                    "SELECT current_setting('my.stored')::boolean, current_setting('my.set')::boolean",
                    &[],
                )
                .expect("they are set");
            assert_eq!((stored, others.get(0), others.get(1)), (true, true, true), "round {round}");
        }
        over.store(true, Ordering::Relaxed);
        assert!(commits.load(Ordering::Relaxed) > 50, "others have hardly committed");
    });
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// An imported snapshot may be of any time.
#[test]
fn an_imported_snapshot_stores_nothing_under_a_lease() {
    let database = Database::create();
    let [mut old, mut session, mut writer] = [(); 3].map(|()| database.connect());
    writer.batch_execute("CREATE TABLE t AS SELECT 1 AS v").expect("a table");
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").expect("it begins");
    let snapshot: String = old.query_one("SELECT pg_export_snapshot()", &[]).expect("it is exported").get(0);
    writer.batch_execute("UPDATE t SET v = v + 1").expect("a change");
    session
        .batch_execute(&format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '{snapshot}'"
        ))
        .expect("it is imported");
    // The transaction is given no lease, and may not use a lease of another session.
    for number in 0..2 {
        let key = format!("k {number}");
        let lease = match number {
            0 => acquire(&mut session, &key, "").expect("asking works").2.expect("it is told to compute"),
            _ => lead(&mut writer, &key),
        };
        assert_eq!(lease == 0, number == 0);
        let set = "SELECT cache_set($1, to_jsonb(v), lease => $2), v FROM t";
        let row = session.query_one(set, &[&key, &lease]).expect("it sets");
        assert_eq!((row.get::<_, bool>(0), row.get::<_, i32>(1)), (false, 1));
        let why: String = session.query_one("SELECT cache_status()", &[]).expect("it says").get(0);
        let unknown = "refused: the transaction's snapshot may be of any time";
        assert_eq!(why, if number == 0 { "refused: the lease is over" } else { unknown });
    }
    session.batch_execute("COMMIT").expect("it commits");
    for key in ["k 0", "k 1"] {
        assert!(!writer.query_one("SELECT cache_exists($1)", &[&key]).expect("it reads").get::<_, bool>(0));
    }
}

/// A role that may write in one small space takes all places for leases and claims that it can get.
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
    let take = |session: &mut Client, from: i32| -> i64 {
        let query = "SELECT count(*) FILTER (WHERE lease > 0)
                       FROM generate_series($1, $1 + 8000) AS i, cache_acquire('k ' || i, 'small', hold => '1 hour')";
        session.query_one(query, &[&from]).expect("asking works").get(0)
    };
    let why = |session: &mut Client| -> String {
        session.query_one("SELECT cache_status()", &[]).expect("it says").get(0)
    };
    let share = "refused: the space has its share of the places for leases and claims";
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

#[test]
fn who_waits_for_a_lease_computes_when_the_space_is_flushed() {
    let cluster = cluster(&Conf::preloaded());
    let [mut leader, mut witness] = [(); 2].map(|()| cluster.connect("postgres"));
    lead(&mut leader, "k");
    let waiters = Waiters::of(&cluster, &mut witness, 3, "");
    witness.batch_execute("SELECT cache_flush('default')").expect("it is flushed");
    wait_until("one to be told", || waiters.0.iter().any(thread::JoinHandle::is_finished));
    witness.batch_execute("SELECT cache_set('k', '\"v\"')").expect("setting works");
    let answers: Vec<_> = waiters.end().into_iter().map(|answer| answer.expect("undisturbed").0).collect();
    assert_eq!(answers.iter().filter(|status| *status == "compute").count(), 1, "{answers:?}");
}
