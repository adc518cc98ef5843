//! Tests of sessions that wait in `cache_acquire` until another session has computed the value, or has given up. The session that
//! computes has a *lease*: the task to compute the value of a key, which `cache_acquire` gives to one caller.

use super::calls::{Answer, acquire, acquire_long, ask, pid, set_under_lease, status, terminate, waiting};
use crate::memory::{cluster, findings};
use pg_cache_testbed::{Cluster, Conf, wait_until};
use postgres::Client;
use postgres::error::SqlState;
use std::thread;

/// The arguments of `cache_acquire` with which a session waits longer than any test takes. A lease that it then gets lasts as long.
const PATIENTLY: &str = ", wait => '1 hour', hold => '1 hour'";

/// Sessions that wait in `cache_acquire`, each in a thread of its own: the threads, and the process IDs of the sessions.
struct Waiters(Vec<thread::JoinHandle<Result<Answer, postgres::Error>>>, Vec<i32>);

impl Waiters {
    /// Starts sessions that run `before` and then wait for the key `k`. Returns when all of them wait. No other session of the
    /// cluster may wait.
    fn of(cluster: &Cluster, witness: &mut Client, number: usize, before: &str) -> Self {
        let mut sessions: Vec<_> = (0..number).map(|_| cluster.connect("postgres")).collect();
        sessions.iter_mut().for_each(|session| session.batch_execute(before).expect("it is legal"));
        let pids = sessions.iter_mut().map(pid).collect();
        let wait = |mut session: Client| thread::spawn(move || acquire(&mut session, "k", PATIENTLY));
        let threads = sessions.into_iter().map(wait).collect();
        wait_until("all to wait", || waiting(witness) == number as i64);
        Self(threads, pids)
    }

    /// Waits for all answers.
    fn end(self) -> Vec<Result<Answer, postgres::Error>> {
        wait_until("their answers", || self.0.iter().all(thread::JoinHandle::is_finished));
        self.0.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    }
}

/// All waiting sessions get the value when the transaction that has set it commits, and not before.
#[test]
fn a_waiting_session_gets_the_value_when_it_is_committed() {
    let cluster = cluster(&Conf::preloaded());
    let [mut leader, mut witness] = [(); 2].map(|()| cluster.connect("postgres"));
    // A set with the lease, a set without it, and a set in mode `absent`, which takes precedence over the lease.
    let values = [
        "SELECT cache_set('k', '\"v\"', lease => $1)",
        "SELECT cache_set('k', '\"v\"') AND $1::bigint > 0",
        "SELECT cache_set('k', '\"v\"', mode => 'absent') AND $1::bigint > 0",
    ];
    for set in values {
        let lease = acquire_long(&mut leader, "k");
        let waiters = Waiters::of(&cluster, &mut witness, 10, "");
        leader.batch_execute("BEGIN").expect("it begins");
        assert!(leader.query_one(set, &[&lease]).expect("setting works").get::<_, bool>(0));
        // A session that wakes up in between goes on waiting: the value is not committed yet.
        wait_until("all to wait", || waiting(&mut witness) == 10);
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
fn a_waiting_session_is_the_next_to_compute() {
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
                let wait = |mut session: Client| thread::spawn(move || acquire(&mut session, "k", PATIENTLY));
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
            assert!(!set_under_lease(&mut leader, "k", "late", lease), "somebody else has computed it since");
        }
        assert_eq!(ask(&mut witness, "k").1.as_deref(), Some("v"));
        witness.batch_execute("SELECT cache_delete('k')").expect("it is removed");
        // The client of the session that was told to compute has disconnected, so its lease is still valid: another session may
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

/// A cancel, a terminate and the timeouts end a wait. The lease of the computing session stays valid.
#[test]
fn a_session_that_is_disturbed_while_it_waits_leaves_nothing() {
    let cluster = cluster(&Conf::preloaded());
    let [mut leader, mut witness] = [(); 2].map(|()| cluster.connect("postgres"));
    let lease = acquire_long(&mut leader, "k");
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
        let error = acquire(&mut session, "k", PATIENTLY).expect_err("it does not wait for ever");
        assert_eq!(error.code(), Some(&code));
        // The timeout may also cancel this statement.
        wait_until("the end of the timeout", || session.batch_execute(&format!("RESET {setting}")).is_ok());
        assert_eq!(status(&mut session, "k"), "wait", "the session goes on");
    }
    assert_eq!(findings(&mut witness), Vec::<String>::new());
    assert!(set_under_lease(&mut leader, "k", "v", lease), "nobody has taken anything from the leader");
    assert_eq!(status(&mut witness, "k"), "hit");
}

/// A flush ends the leases of its space, so one of the waiting sessions computes next.
#[test]
fn a_waiting_session_computes_when_the_space_is_flushed() {
    let cluster = cluster(&Conf::preloaded());
    let [mut leader, mut witness] = [(); 2].map(|()| cluster.connect("postgres"));
    acquire_long(&mut leader, "k");
    let waiters = Waiters::of(&cluster, &mut witness, 3, "");
    witness.batch_execute("SELECT cache_flush('default')").expect("it is flushed");
    wait_until("one to be told", || waiters.0.iter().any(thread::JoinHandle::is_finished));
    witness.batch_execute("SELECT cache_set('k', '\"v\"')").expect("setting works");
    let answers: Vec<_> = waiters.end().into_iter().map(|answer| answer.expect("undisturbed").0).collect();
    assert_eq!(answers.iter().filter(|status| *status == "compute").count(), 1, "{answers:?}");
}
