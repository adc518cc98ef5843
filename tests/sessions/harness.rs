//! Tests of the test harness itself (`tests/harness/`): a cluster that outlives its test would disturb every later test. The
//! *keeper* of a cluster is a small process that stops the server and removes its directory when the owner is gone
//! (`harness/home.rs`).

use pg_cache_testbed::{Cluster, Conf, Database, wait_until};
use std::process::Command;

/// The keeper of the cluster must have stopped the server and removed its directory.
#[test]
fn a_dropped_cluster_leaves_neither_process_nor_directory() {
    let cluster = Cluster::start(&Conf::bare());
    let home = cluster.socket_dir().to_owned();
    let postmaster = postmaster_pid(&cluster);
    drop(cluster);
    assert!(!home.exists(), "{} is still there", home.display());
    wait_until("the postmaster's end", || !process_exists(postmaster));
}

/// PostgreSQL refuses to drop a database with open sessions, unless they are ended first. A test may leave some.
#[test]
fn a_dropped_database_is_gone_despite_open_sessions() {
    // The other database is in the same cluster, which stays with this test.
    let [database, other] = [(); 2].map(|()| Database::create_empty());
    let name = database.name().to_owned();
    let _session = database.connect();
    drop(database);
    let count: i64 = other
        .connect()
        .query_one("SELECT count(*) FROM pg_database WHERE datname = $1", &[&name])
        .expect("the cluster lives")
        .get(0);
    assert_eq!(count, 0);
}

/// The keeper of a cluster writes the crash lines of the server's log to standard error, where `make/test.sh` finds them. Runs
/// the ignored test below in another process, and reads what its keeper has written.
#[test]
fn a_crash_that_no_test_notices_is_reported_when_its_cluster_goes() {
    let this = std::env::current_exe().expect("the path of this program");
    let test = ["--ignored", "--exact", "harness::a_session_crashes"];
    let output = Command::new(this).args(test).output().expect("it runs");
    assert!(output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("was terminated by signal 11"), "{told}");
}

/// Crashes a backend and drops the cluster. It checks nothing itself: the test above reads what the keeper writes.
#[test]
#[ignore = "the test above runs it"]
fn a_session_crashes() {
    let cluster = Cluster::start(&Conf::bare());
    let mut session = cluster.connect("postgres");
    let mut witness = cluster.connect("postgres");
    // The backend starts the shell, so the backend is the shell's parent.
    session.batch_execute("COPY (SELECT) TO PROGRAM 'kill -SEGV $PPID'").expect_err("the session is gone");
    // The postmaster logs the crash, and then ends the other sessions.
    wait_until("the end of all sessions", || witness.simple_query("").is_err());
}

/// Returns the process id of the cluster's postmaster.
fn postmaster_pid(cluster: &Cluster) -> u32 {
    cluster
        .connect("postgres")
        .query_one("SELECT pg_read_file('postmaster.pid')", &[])
        .expect("the superuser reads it")
        .get::<_, String>(0)
        .lines()
        .next()
        .and_then(|pid| pid.parse().ok())
        .expect("its first line is the pid")
}

fn process_exists(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}
