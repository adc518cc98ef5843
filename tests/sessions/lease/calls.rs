//! Helpers of the tests of leases: calls of the functions under test, and queries about the sessions of a cluster. A *lease* is the
//! task to compute the value of a key, which `cache_acquire` gives to one caller.

use pg_cache_testbed::wait_until;
use postgres::Client;

/// The result of `cache_acquire`: the status, the value as text, the lease. The lease is 0 if the caller must compute without
/// one, and `None` if it need not compute or only looks (`hold => NULL`).
pub type Answer = (String, Option<String>, Option<i64>);

/// Calls `cache_acquire`. `how` holds further arguments, which begin with a comma.
pub fn acquire(session: &mut Client, key: &str, how: &str) -> Result<Answer, postgres::Error> {
    let query = format!("SELECT status, value #>> '{{}}', lease FROM cache_acquire($1{how})");
    session.query_one(&query, &[&key]).map(|row| (row.get(0), row.get(1), row.get(2)))
}

/// Calls `cache_acquire` without waiting. If there is no value and no session computes it, this acquires a lease.
pub fn ask(session: &mut Client, key: &str) -> Answer {
    acquire(session, key, "").expect("asking works")
}

/// Like `ask`, but returns only the status.
pub fn status(session: &mut Client, key: &str) -> String {
    ask(session, key).0
}

/// Acquires a lease that lasts longer than any test. Another session must not hold one for the key.
pub fn acquire_long(session: &mut Client, key: &str) -> i64 {
    let lease = acquire(session, key, ", hold => '1 hour'").expect("asking works").2;
    lease.filter(|lease| *lease > 0).expect("nobody else computes it")
}

/// Sets the value under a lease. Returns whether the set was accepted.
pub fn set_under_lease(session: &mut Client, key: &str, value: &str, lease: i64) -> bool {
    session
        .query_one("SELECT cache_set($1, to_jsonb($2::text), lease => $3)", &[&key, &value, &lease])
        .expect("setting works")
        .get(0)
}

/// Sets the key to the session's process ID with mode `absent`, which claims the key until the transaction ends. Returns false if
/// there is a value, or another session has claimed the key.
pub fn set_absent(session: &mut Client, key: &str) -> bool {
    session
        .query_one("SELECT cache_set($1, to_jsonb(pg_backend_pid()), mode => 'absent')", &[&key])
        .expect("setting works")
        .get(0)
}

/// Returns the process ID of a session's backend.
pub fn pid(session: &mut Client) -> i32 {
    session.query_one("SELECT pg_backend_pid()", &[]).expect("it lives").get(0)
}

/// Terminates a session and waits until it is gone.
pub fn terminate(witness: &mut Client, pid: i32) {
    witness.execute("SELECT pg_terminate_backend($1)", &[&pid]).expect("it is told to end");
    wait_until("the session's end", || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
        witness.query_one(query, &[&pid]).expect("there is a view").get::<_, i64>(0) == 0
    });
}

/// Returns how many sessions of the cluster wait for another session that computes.
pub fn waiting(witness: &mut Client) -> i64 {
    witness
        .query_one(
            "SELECT count(*) FROM pg_stat_activity
              WHERE wait_event_type = 'Extension' AND backend_type = 'client backend'",
            &[],
        )
        .expect("there is a view")
        .get(0)
}

/// Returns the only winner. Panics if there is none, or several.
pub fn only(winners: &[usize]) -> usize {
    let [winner] = winners else { panic!("{} have won", winners.len()) };
    *winner
}
