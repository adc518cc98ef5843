//! A hundred clients of a pool with twenty server connections ask for one slow result. A session that waits keeps its server
//! connection, so the waiting sessions can take up the whole pool. Clients that first ask with `cache_acquire` keep no connection.
//! The *leader* is the session that runs a query while others wait for its result.
//!
//! Many tests end with a check of shared memory: `findings` returns what `cache_check()` reports, and must be empty.

use super::calls::{answer, run, text};
use super::slow::{Gate, RoomyDatabase, assert_all_answers, cache, gated, locked, only, runs, rush, waiting};
use crate::memory::findings;
use pg_cache_testbed::{Pooler, wait_until};
use postgres::Client;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const CONNECTIONS: u32 = 20;
const CLIENTS: usize = 100;

/// A call that has nothing to do with the slow query.
const UNRELATED: &str = "SELECT cache_get_text('unrelated')";

/// Opens the pool, a session outside of the pool, the clients, and one client for unrelated calls.
fn pooled() -> (RoomyDatabase, Pooler, Client, Vec<Client>, Client) {
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    run(&mut witness, "SELECT cache_set_text('unrelated', 'value')");
    let pooler = Pooler::start(database.cluster(), CONNECTIONS);
    let clients = (0..CLIENTS).map(|_| pooler.connect(database.name())).collect();
    let other = pooler.connect(database.name());
    (database, pooler, witness, clients, other)
}

/// Waits until all server connections of the pool have ended, because sessions report their statistics when they end. Returns how
/// often the query has run.
fn runs_of(pooler: Pooler, witness: &mut Client) -> i64 {
    drop(pooler);
    wait_until("the end of the server connections", || {
        let others = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
        text(witness, others) == "0"
    });
    runs(witness)
}

/// All clients get the result of one run. Meanwhile the leader and the waiting sessions have all connections, so a call of another
/// client is only served when the leader has finished.
#[test]
fn waiting_sessions_take_up_the_pool() {
    let (database, pooler, mut witness, mut clients, mut other) = pooled();
    let statement = cache(&gated());
    let may_finish = AtomicBool::new(false);
    thread::scope(|threads| {
        let gate = Gate::close(&database);
        let asking = threads.spawn(|| rush(&mut clients, |_, client| answer(client, &statement)));
        wait_until("the pool to be taken up", || {
            (locked(&mut witness), waiting(&mut witness)) == (1, i64::from(CONNECTIONS) - 1)
                || asking.is_finished()
        });
        let unrelated = threads.spawn(|| {
            let found = answer(&mut other, UNRELATED);
            (found, may_finish.load(Ordering::SeqCst))
        });
        // If there were a free connection, it would serve the call in this time.
        thread::sleep(Duration::from_millis(500));
        may_finish.store(true, Ordering::SeqCst);
        drop(gate);
        let (found, was_after) = unrelated.join().expect("it does not panic");
        assert_eq!(found, only("value"));
        assert!(was_after, "the call was served before the leader had finished");
        assert_all_answers(&asking.join().expect("no client fails"), &only("1"));
    });
    drop((clients, other));
    assert_eq!(runs_of(pooler, &mut witness), 1);
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// With `cache_acquire(…, wait => '0')` in front, one client is told to compute, and the others ask again later. They keep no
/// connection meanwhile, so a call of another client is served at once.
#[test]
fn clients_that_acquire_leave_the_pool_to_others() {
    let (database, pooler, mut witness, mut clients, mut other) = pooled();
    let acquire =
        "SELECT status, value #>> '{}', lease FROM cache_acquire('report', wait => '0', hold => '1 min')";
    let get = |client: &mut Client| {
        let mut has_computed = false;
        loop {
            let row = answer(client, acquire).expect("asking works").remove(0);
            match [0, 1, 2].map(|column| row[column].as_deref()) {
                [Some("hit"), Some(value), None] => return (value.to_owned(), has_computed),
                [Some("compute"), None, Some(lease)] => {
                    has_computed = true;
                    let set = format!(
                        "SELECT cache_set('report', to_jsonb(v), lease => {lease}) FROM ({}) AS q",
                        gated()
                    );
                    assert_eq!(answer(client, &set), only("t"));
                }
                [Some("wait"), None, None] => thread::sleep(Duration::from_millis(100)),
                other => panic!("{other:?}"),
            }
        }
    };
    thread::scope(|threads| {
        let gate = Gate::close(&database);
        let asking = threads.spawn(|| rush(&mut clients, |_, client| get(client)));
        wait_until("the leader to run", || locked(&mut witness) == 1 || asking.is_finished());
        for _ in 0..5 {
            assert_eq!(answer(&mut other, UNRELATED), only("value"));
        }
        assert_eq!(locked(&mut witness), 1, "the leader has not finished");
        drop(gate);
        let found = asking.join().expect("no client fails");
        assert!(found.iter().all(|(value, _)| value == "1"), "{found:?}");
        assert_eq!(found.iter().filter(|(_, has_computed)| *has_computed).count(), 1);
    });
    drop((clients, other));
    assert_eq!(runs_of(pooler, &mut witness), 1);
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// Callers with `stale_ok` do not wait while another session refreshes the result, so the pool has free connections.
#[test]
fn callers_with_stale_ok_leave_the_pool_to_others() {
    let (database, pooler, mut witness, mut clients, mut other) = pooled();
    let statement = cache(&gated()).replace("$cached$)", "$cached$, stale_ok => '1 min')");
    let refresh = statement.replace("'1 min'", "'1 min', refresh => true");
    assert_eq!(answer(&mut witness, &statement), only("1"));
    run(&mut witness, "UPDATE t SET v = 2");
    let mut refresher = database.connect();
    thread::scope(|threads| {
        let gate = Gate::close(&database);
        let refreshing = threads.spawn(|| answer(&mut refresher, &refresh));
        wait_until("the query to run", || locked(&mut witness) == 1 || refreshing.is_finished());
        assert_all_answers(&rush(&mut clients, |_, client| answer(client, &statement)), &only("1"));
        assert_eq!(answer(&mut other, UNRELATED), only("value"));
        assert_eq!(locked(&mut witness), 1, "the query has not finished");
        drop(gate);
        assert_eq!(refreshing.join().expect("it does not panic"), only("2"));
    });
    assert_all_answers(&rush(&mut clients, |_, client| answer(client, &statement)), &only("2"));
    drop((clients, other, refresher));
    run(&mut witness, "SELECT pg_stat_force_next_flush()");
    assert_eq!(runs_of(pooler, &mut witness), 2);
}
