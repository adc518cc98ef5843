//! Sessions ask for a few slow results in all kinds of transactions. Meanwhile, sessions write, and the test cancels and terminates
//! sessions. A *flight* is a run of a query that other sessions may wait for.
//!
//! At the end, shared memory is checked: `findings` returns what `cache_check()` reports, and must be empty.

use super::calls::{answer, run, text};
use super::slow::{RoomyDatabase, cache, slow};
use crate::hunter::dice::{Dice, seed};
use crate::memory::findings;
use pg_cache_testbed::{wait_at_most, wait_until};
use postgres::Client;
use postgres::error::SqlState;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The statements before and after a call.
const FRAMES: [[&str; 2]; 10] = [
    ["", ""],
    ["", ""],
    ["BEGIN", "COMMIT"],
    ["BEGIN", "ROLLBACK"],
    ["BEGIN; SAVEPOINT s", "ROLLBACK TO s; COMMIT"],
    ["BEGIN ISOLATION LEVEL REPEATABLE READ", "COMMIT"],
    ["BEGIN ISOLATION LEVEL SERIALIZABLE", "COMMIT"],
    ["BEGIN; INSERT INTO other VALUES (1)", "COMMIT"],
    ["BEGIN; SET LOCAL statement_timeout = '10ms'", "COMMIT"],
    ["BEGIN; SET LOCAL pg_cache.wait_timeout = '5ms'", "COMMIT"],
];

/// Counts of what happened to the sessions of the storm.
#[derive(Default)]
struct Counts {
    /// The last value of `t` whose commit was acknowledged.
    committed: AtomicI64,
    /// The number of calls that waited for another session.
    waited: AtomicU64,
    /// The number of calls that neither found a stored result nor waited.
    ran: AtomicU64,
    /// The number of steps that ended in an error.
    errors: AtomicU64,
}

/// Takes one step of a session. Returns a description of a wrong answer, or None. An error of the server, such as a cancel, is not
/// a wrong answer.
fn step(session: &mut Client, dice: &mut Dice, counts: &Counts) -> Result<Option<String>, postgres::Error> {
    if dice.roll(4) == 0 {
        let row = session.query_one("UPDATE t SET v = v + 1 RETURNING v", &[])?;
        counts.committed.fetch_max(row.get::<_, i32>(0).into(), Ordering::SeqCst);
        return Ok(None);
    }
    let [before, behind] = FRAMES[dice.roll(FRAMES.len())];
    let statement = cache(&slow(0.01 + 0.02 * dice.roll(3) as f64));
    let least = counts.committed.load(Ordering::SeqCst);
    session.batch_execute(before)?;
    let found: String = session.query_one(&statement, &[])?.get(0);
    let status: String = session.query_one("SELECT cache_status()", &[])?.get(0);
    session.batch_execute(behind)?;
    let count = if status == "waited" { &counts.waited } else { &counts.ran };
    count.fetch_add(u64::from(status != "hot"), Ordering::Relaxed);
    let is_old = found.parse::<i64>().is_ok_and(|found| found < least);
    Ok(is_old.then(|| format!("{before}; {statement}: {found} instead of {least} or more, {status}")))
}

/// No answer must lack a change that was committed before its call. After the storm, no flight must be left that makes a session
/// wait.
#[test]
fn a_storm_of_calls_and_cancels_leaves_no_flight() {
    const SESSIONS: usize = 12;
    let seed = seed();
    println!("the seed is {seed}: PG_CACHE_TEST_SEED={seed} repeats the choices");
    let database = RoomyDatabase::new();
    let mut witness = database.connect();
    run(&mut witness, "CREATE TABLE other (v int)");
    let (counts, calm, begin) = (Counts::default(), AtomicBool::new(false), Instant::now());
    let connect = || -> Option<Client> {
        let mut session = database.cluster().try_connect(database.name()).ok()?;
        let set = "SET application_name = 'storm'; SET deadlock_timeout = '100ms'; SET pg_cache.wait_timeout = '1min'";
        session.batch_execute(set).ok().map(|()| session)
    };
    let work = |number: usize| -> Vec<String> {
        let mut dice = Dice(seed.wrapping_add(number as u64));
        let (mut session, mut wrong) = (None, Vec::new());
        // The time is bounded, so that the thread also ends if the test fails.
        while !calm.load(Ordering::Relaxed) && begin.elapsed() < Duration::from_secs(250) {
            let Some(current) = session.as_mut() else {
                session = connect();
                continue;
            };
            match step(current, &mut dice, &counts) {
                Ok(fault) => wrong.extend(fault),
                Err(error) => {
                    let known = [
                        SqlState::QUERY_CANCELED,
                        SqlState::ADMIN_SHUTDOWN,
                        SqlState::T_R_SERIALIZATION_FAILURE,
                    ];
                    // An error without a code does not come from the server: the connection has ended.
                    if error.code().is_some_and(|code| !known.contains(code)) {
                        wrong.push(format!("{error:?}"));
                    }
                    counts.errors.fetch_add(1, Ordering::Relaxed);
                    if current.batch_execute("ROLLBACK").is_err() {
                        session = None;
                    }
                }
            }
        }
        wrong
    };
    let wrong: Vec<String> = thread::scope(|threads| {
        let workers: Vec<_> = (0..SESSIONS)
            .map(|number| {
                let work = &work;
                threads.spawn(move || work(number))
            })
            .collect();
        let mut round = 0;
        let enough = |count: &AtomicU64, least| count.load(Ordering::Relaxed) >= least;
        wait_at_most(240, "enough of everything", || {
            round += 1;
            let how = if round % 5 == 0 { "pg_terminate_backend" } else { "pg_cancel_backend" };
            let disturb = format!(
                "SELECT {how}(pid) FROM pg_stat_activity
                  WHERE application_name = 'storm' AND datname = current_database() ORDER BY random() LIMIT 1"
            );
            run(&mut witness, &disturb);
            thread::sleep(Duration::from_millis(20));
            let has_all =
                enough(&counts.waited, 100) && enough(&counts.ran, 100) && enough(&counts.errors, 50);
            has_all && begin.elapsed() > Duration::from_secs(4)
        });
        calm.store(true, Ordering::Relaxed);
        workers.into_iter().flat_map(|worker| worker.join().expect("it does not panic")).collect()
    });
    assert!(wrong.is_empty(), "{} cases: {:#?}", wrong.len(), wrong.iter().take(10).collect::<Vec<_>>());
    wait_until("all to be gone", || {
        let left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'storm' AND datname = current_database()";
        text(&mut witness, left) == "0"
    });
    let mut session = database.connect();
    run(&mut session, "SET pg_cache.wait_timeout = '1h'; SET statement_timeout = '50s'");
    for number in 0..3 {
        let statement = cache(&slow(0.01 + 0.02 * f64::from(number)));
        let direct = answer(&mut session, "SELECT sum(v)::text FROM t");
        // The first call may run the query without storing the result. During the storm, the query may have failed, or its results
        // may have become invalid so often that pg_cache stores none for a while (`TIMES_UNTIL_LEFT_OUT` in `src/query/ticket.rs`).
        wait_until("the result to be stored", || {
            assert_eq!(answer(&mut session, &statement), direct);
            text(&mut session, "SELECT cache_status()") == "hot"
        });
    }
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}
