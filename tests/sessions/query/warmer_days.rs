//! Warmers on bad days: crashes, locks, databases that appear later, many roles, restores with odd rows, and servers without a
//! place for a worker. The view must say what happens.

use super::calls::run;
use super::warmers::{COUNT, add, app, connect, runs, shown, start, start_with, wait_shown};
use pg_cache_testbed::{Conf, Stop};

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
