//! Warmers on bad days: crashes, locks, databases that appear later, many roles, restores with odd rows, and servers without a
//! place for a worker. The view `cache_warmers` must say what happens. A *warmer* is a named query whose result a background worker
//! keeps stored. The *launcher* is the process that starts the workers.

use super::calls::{answer, run, text};
use super::warmers::{
    COLUMNS, COUNT, PATIENCE, add, app, connect, is_stored, prepare, runs, shown, start, start_with,
    wait_shown, wait_warm,
};
use pg_cache_testbed::{Cluster, Conf, Stop, wait_at_most, wait_until};
use postgres::Client;
use std::time::{Duration, Instant};

/// Opens a session as soon as the server accepts it.
fn reconnect(cluster: &Cluster) -> Client {
    let mut session = None;
    wait_until("a session", || {
        session = cluster.try_connect("postgres").ok();
        session.as_mut().is_some_and(|session| session.simple_query("").is_ok())
    });
    session.expect("a session")
}

/// Prepares another database in which every role may write to the cache.
fn prepare_database(cluster: &Cluster, name: &str) {
    let mut session = cluster.connect(name);
    prepare(&mut session);
    run(&mut session, "SELECT cache_grant('default', 'public', 'write')");
}

/// A warmer that crashes the server does not run again at once. The other warmers run after a pause, which grows with each crash.
#[test]
fn a_crashing_warmer_waits() {
    let cluster = start();
    let mut admin = cluster.connect("postgres");
    run(
        &mut admin,
        "CREATE FUNCTION crash() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
             EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'kill -9 ' || pg_backend_pid());
             PERFORM pg_sleep(60); RETURN 1;
         END $$;
         CREATE TABLE other_table AS SELECT 1 AS n",
    );
    let good = "SELECT n FROM other_table";
    run(&mut admin, "BEGIN");
    add(&mut admin, "a good one", good, "");
    add(&mut admin, "crash", "SELECT crash() AS n", "");
    run(&mut admin, "COMMIT");
    let crashes = || cluster.log().matches("was terminated by signal 9").count();
    wait_until("the crash", || crashes() == 1);
    let mut admin = reconnect(&cluster);
    assert_eq!(shown(&mut admin, "a good one", "state"), "paused");
    assert_eq!(shown(&mut admin, "crash", "error"), "57P02: the server has crashed during this run");
    wait_until("the good one after the pause", || is_stored(&mut admin, good));
    assert_eq!(shown(&mut admin, "crash", "state || ' ' || runs"), "failing 1");
    assert_eq!(crashes(), 1);
    let log = cluster.log();
    assert!(
        log.contains("pg_cache runs no warmers for 10 s, because a process has crashed; warmer "),
        "{log}"
    );
    assert!(log.contains("ran, and rests for 60 s"), "{log}");
    assert_eq!(text(&mut admin, "SELECT cache_warmer_drop('crash')"), "t");
    // The next crash is not the fault of a warmer. The server cannot know that, so the pause doubles.
    let pid = text(&mut admin, "SELECT pg_backend_pid()").parse().expect("a number");
    cluster.crash(pid);
    wait_until("the longer pause", || cluster.log().contains("pg_cache runs no warmers for 20 s"));
    assert_eq!(shown(&mut reconnect(&cluster), "a good one", "state"), "paused");
}

/// A lock on one table stops the warmers that read it, and no others. A run has the settings of a session, so sessions find its
/// results.
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
        wait_at_most(PATIENCE, "another attempt", || runs(&mut session, "locked") > before);
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

/// The warmers of a database run also if the database did not accept connections, or did not exist, when the server started.
#[test]
fn warmers_of_later_databases_run() {
    let cluster = start();
    let mut admin = cluster.connect("postgres");
    let query = "SELECT 1 AS n";
    for database in ["closed", "original"] {
        run(&mut admin, &format!("CREATE DATABASE {database}"));
        prepare_database(&cluster, database);
        let mut session = connect(&cluster, database, "app");
        add(&mut session, "one", query, "");
        wait_warm(&mut session, query, "n int");
    }
    run(&mut admin, "ALTER DATABASE closed ALLOW_CONNECTIONS false");
    drop(admin);
    cluster.restart(Stop::Immediate, &Conf::preloaded());
    let mut admin = cluster.connect("postgres");
    wait_warm(&mut connect(&cluster, "original", "app"), query, "n int");
    run(&mut admin, "CREATE DATABASE copy TEMPLATE original");
    run(&mut admin, "ALTER DATABASE closed ALLOW_CONNECTIONS true");
    wait_warm(&mut connect(&cluster, "copy", "app"), query, "n int");
    wait_warm(&mut connect(&cluster, "closed", "app"), query, "n int");
}

/// A database whose transactions are read-only by default keeps its warmers, also if the role of one of them was dropped.
#[test]
fn warmers_run_in_a_read_only_database() {
    let cluster = start();
    let mut admin = cluster.connect("postgres");
    run(&mut admin, "CREATE ROLE gone LOGIN");
    add(&mut connect(&cluster, "postgres", "gone"), "gone", "SELECT 2 AS n", "");
    add(&mut app(&cluster), "count", COUNT, "");
    run(&mut admin, "DROP ROLE gone; ALTER DATABASE postgres SET default_transaction_read_only = on");
    drop(admin);
    cluster.restart(Stop::Immediate, &Conf::preloaded());
    wait_warm(&mut app(&cluster), COUNT, COLUMNS);
    let mut admin = cluster.connect("postgres");
    wait_at_most(PATIENCE, "the removal", || text(&mut admin, "SELECT count(*) FROM cache_warmers") == "1");
    assert!(!cluster.log().contains("read-only transaction"), "{}", cluster.log());
}

/// A role that may write to all tables cannot exceed the limits by rows in the form of a dump, nor by rows of its own.
#[test]
fn a_restore_keeps_the_limits() {
    let cluster = start();
    let mut admin = cluster.connect("postgres");
    run(&mut admin, "CREATE ROLE writer LOGIN IN ROLE pg_write_all_data");
    let mut writer = connect(&cluster, "postgres", "writer");
    let row = |column: &str, value: &str| {
        let columns = [("name", "'w'"), ("query", "'SELECT 1'"), ("space", "'default'")];
        let others = columns.into_iter().filter(|(name, _)| *name != column);
        let (names, values): (Vec<_>, Vec<_>) = others.chain([(column, value)]).unzip();
        (names.join(", "), values.join(", "))
    };
    for (column, value, error) in [
        ("args", "'{\"a\": 1}'", "22023: args must be an array of JSON"),
        ("every", "'-1 s'", "22023: every must be positive"),
        ("ttl", "'2 years'", "22023: ttl must not be longer than a year"),
        ("tags", "'{\"\"}'", "22023: tag must not be empty"),
        ("space", "''", "42704: space \"\" does not exist"),
        ("query", "repeat(' ', 70000)", "54000: the query of a warmer must not be longer than 65536 bytes"),
    ] {
        let (names, values) = row(column, value);
        for insert in [
            format!("INSERT INTO pgcache.dumped_warmers (owner, {names}) VALUES ('writer', {values})"),
            format!(
                "INSERT INTO pgcache.warmers (number, owner, {names}) VALUES (1, 'writer'::regrole, {values})"
            ),
        ] {
            assert_eq!(answer(&mut writer, &insert), Err(error.to_owned()), "{insert}");
        }
    }
    let (names, values) = row("name", "'w' || n");
    let many = format!(
        "INSERT INTO pgcache.dumped_warmers (owner, {names}) SELECT 'writer', {values} FROM generate_series(1, 251) AS n"
    );
    let error = "54000: role writer would have more than 250 warmers";
    assert_eq!(answer(&mut writer, &many), Err(error.to_owned()));
    run(&mut writer, &many.replace("251", "250"));
    assert_eq!(text(&mut writer, "SELECT count(*) FROM cache_warmers"), "250");
}

/// With more roles than workers, a role without work gives its place to the next role at once.
#[test]
fn idle_roles_take_no_time() {
    let cluster = start_with(&Conf::preloaded().set("pg_cache.max_workers", "1"));
    let mut admin = cluster.connect("postgres");
    for number in 0..12 {
        run(&mut admin, &format!("CREATE ROLE r{number} LOGIN"));
        add(&mut connect(&cluster, "postgres", &format!("r{number}")), "one", "SELECT 1 AS n", "");
    }
    let mut session = app(&cluster);
    add(&mut session, "often", COUNT, ", every => '1 s'");
    let least = "SELECT min(runs) FROM cache_warmers";
    wait_at_most(PATIENCE, "the first runs", || text(&mut admin, least) != "0");
    // If each of the twelve other roles kept the worker for its turn of a second, no two runs would follow each other within eleven
    // seconds. On a slow machine, workers take some time to start and to end, so a run may come later.
    let mut next = || {
        let before = runs(&mut session, "often");
        wait_at_most(PATIENCE, "the next run", || runs(&mut session, "often") > before);
        Instant::now()
    };
    let mut last = next();
    wait_at_most(PATIENCE, "two runs within eleven seconds", || {
        let before = std::mem::replace(&mut last, next());
        last - before < Duration::from_secs(11)
    });
}

/// No worker is in the way of CREATE DATABASE, also for a role that does not own the template.
#[test]
fn no_warmer_runs_in_a_template_database() {
    let cluster = start();
    let mut admin = cluster.connect("postgres");
    run(&mut admin, "CREATE ROLE creator LOGIN CREATEDB");
    run(&mut admin, "CREATE DATABASE model IS_TEMPLATE true");
    prepare_database(&cluster, "model");
    let query = "SELECT 1 AS n";
    let mut session = connect(&cluster, "model", "app");
    add(&mut session, "one", query, ", every => '1 s'");
    assert_eq!(shown(&mut session, "one", "state"), "template database");
    let mut witness = app(&cluster);
    add(&mut witness, "count", COUNT, ", every => '1 s'");
    wait_at_most(PATIENCE, "runs of a witness", || runs(&mut witness, "count") >= 3);
    assert_eq!(shown(&mut session, "one", "runs"), "0");
    // A worker of another kind may be in the database. It leaves for the command.
    drop(session);
    let clients =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'model' AND backend_type = 'client backend'";
    wait_until("the client to leave", || text(&mut admin, clients) == "0");
    run(&mut connect(&cluster, "postgres", "creator"), "CREATE DATABASE made TEMPLATE model");
    // The copy is no template.
    wait_warm(&mut connect(&cluster, "made", "app"), query, "n int");
    run(&mut admin, "ALTER DATABASE model IS_TEMPLATE false");
    wait_warm(&mut connect(&cluster, "model", "app"), query, "n int");
}

/// The log has a line for the first failure of a warmer, and for a failure with another SQLSTATE, but not for each failure.
#[test]
fn the_log_has_the_first_failure() {
    let cluster = start();
    let mut session = app(&cluster);
    add(&mut session, "count", "SELECT 1 / (count(*) - 10) AS n FROM t", "");
    let lines =
        || cluster.log().matches("LOG:  warmer \"count\" of role app in database postgres failed: ").count();
    wait_until("some failures", || runs(&mut session, "count") >= 3);
    assert_eq!(lines(), 1, "{}", cluster.log());
    assert!(cluster.log().contains("failed: 22012: division by zero"));
    run(&mut session, "ALTER TABLE t RENAME TO u");
    wait_shown(&mut session, "count", "error", "42P01");
    assert_eq!(lines(), 2);
}
