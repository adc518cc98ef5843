//! Warmers on bad days: crashes, locks, databases that appear later, many roles, restores with odd rows, and servers without a
//! place for a worker. The view must say what happens.

use super::calls::run;
use super::warmers::{
    COLUMNS, COUNT, add, app, connect, runs, shown, start, start_with, wait_shown, wait_warm,
};
use pg_cache_testbed::{Conf, Stop, wait_until};

/// A lock on one table stops the warmers that read it, and no others. Sessions find the results of a run, whose settings are
/// theirs.
#[test]
fn a_lock_stops_only_the_warmers_that_need_it() {
    let cluster = start();
    let (mut session, mut admin) = (app(&cluster), cluster.connect("postgres"));
    // This query varies on all settings.
    run(
        &mut session,
        "CREATE TABLE locked AS SELECT 1 AS n; CREATE FUNCTION total() RETURNS bigint STABLE LANGUAGE plpgsql AS
             $$ BEGIN RETURN (SELECT count(*) FROM t); END $$",
    );
    let (free, locked) = ("SELECT total() AS n", "SELECT n FROM locked");
    add(&mut session, "free", free, "");
    add(&mut session, "locked", locked, "");
    wait_warm(&mut session, free, COLUMNS);
    wait_warm(&mut session, locked, "n int");
    run(&mut session, "UPDATE locked SET n = 2");
    run(&mut admin, "BEGIN; LOCK TABLE locked");
    wait_shown(&mut session, "locked", "error", "55P03: the run has waited too long for a lock");
    for step in 1..=3 {
        let before = runs(&mut session, "locked");
        run(&mut session, "INSERT INTO t VALUES (1)");
        assert_eq!(wait_warm(&mut session, free, COLUMNS), (10 + step).to_string());
        wait_until("another attempt", || runs(&mut session, "locked") > before);
    }
    assert_eq!(shown(&mut session, "locked", "state"), "failing");
    run(&mut admin, "COMMIT");
    assert_eq!(wait_warm(&mut session, locked, "n int"), "2");
    wait_shown(&mut session, "locked", "state", "warm");
}

/// The view tells which warmer runs, which one is outdated, and which one no worker looks at.
#[test]
fn the_view_tells_what_runs() {
    let cluster = start();
    let (mut session, mut admin) = (app(&cluster), cluster.connect("postgres"));
    run(&mut session, "BEGIN");
    add(&mut session, "long", "SELECT 1 AS n FROM pg_sleep(600)", "");
    add(&mut session, "next", COUNT, "");
    run(&mut session, "COMMIT");
    wait_shown(&mut session, "long", "state", "running");
    assert_eq!(shown(&mut session, "long", "runs || coalesce(error, '')"), "0");
    assert_eq!(shown(&mut session, "next", "state"), "outdated");
    wait_shown(&mut session, "next", "state", "waiting");
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_cache warmer' AND wait_event = 'PgSleep'";
    run(&mut admin, cancel);
    wait_shown(&mut session, "long", "state", "failing");
    wait_shown(&mut session, "next", "state", "warm");
    // After a clean restart, the result is there although the warmer has not run.
    run(&mut session, "SELECT cache_warmer_drop('long')");
    drop((session, admin));
    cluster.restart(Stop::Fast, &Conf::preloaded());
    let mut session = app(&cluster);
    wait_shown(&mut session, "next", "state", "warm");
    assert_eq!(shown(&mut session, "next", "runs"), "0");
}

/// The view tells why no worker runs.
#[test]
fn the_view_tells_why_there_is_no_worker() {
    // The launcher of pg_cache and that of logical replication take both places.
    let cluster = start_with(&Conf::preloaded().set("max_worker_processes", "2"));
    let mut session = app(&cluster);
    add(&mut session, "count", COUNT, "");
    wait_shown(&mut session, "count", "error", "the server has no free place for a worker");
    assert_eq!(shown(&mut session, "count", "state"), "waiting");
    drop(session);
    cluster.restart(Stop::Fast, &Conf::preloaded().set("max_worker_processes", "0"));
    assert_eq!(shown(&mut app(&cluster), "count", "error"), "the launcher of pg_cache does not run");
}
