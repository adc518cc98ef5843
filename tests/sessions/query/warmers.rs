//! Warmers: a background worker keeps the results of named queries, the *warmers*, stored. Sessions of the owner of a warmer find
//! its result. The *launcher* is the process that starts the workers.
//!
//! A test must not call `cache_query` to learn whether a result is stored, because the call would store the result. `is_stored`
//! asks `cache_explain` instead.

use super::calls::{answer, run, text};
use crate::memory::findings;
use pg_cache_testbed::{Cluster, Conf, Stop, wait_at_most, wait_until};
use postgres::{Client, NoTls};
use std::time::{Duration, Instant};

/// The query of most tests, and the columns of its result.
pub(super) const COUNT: &str = "SELECT count(*) AS n FROM t";
pub(super) const COLUMNS: &str = "n bigint";

/// Starts a cluster with the extension, the roles `app` and `other` that may write to the cache, and a table of `app`.
pub(super) fn start() -> Cluster {
    start_with(&Conf::preloaded())
}

pub(super) fn start_with(conf: &Conf) -> Cluster {
    let cluster = Cluster::start(conf);
    let mut admin = cluster.connect("postgres");
    prepare(&mut admin);
    run(
        &mut admin,
        "CREATE ROLE app LOGIN; CREATE ROLE other LOGIN; GRANT CREATE ON SCHEMA public TO app, other",
    );
    run(&mut admin, "SELECT cache_grant('default', 'public', 'write')");
    run(&mut app(&cluster), "CREATE TABLE t (v int); INSERT INTO t SELECT generate_series(1, 10)");
    cluster
}

pub(super) fn prepare(admin: &mut Client) {
    run(admin, "CREATE EXTENSION pg_cache");
}

/// Opens a session of a role.
pub(super) fn connect(cluster: &Cluster, database: &str, role: &str) -> Client {
    let mut config = postgres::Config::new();
    config.host_path(cluster.socket_dir()).user(role).dbname(database);
    config.connect(NoTls).unwrap_or_else(|error| panic!("{role}: {error}\n{}", cluster.log()))
}

pub(super) fn app(cluster: &Cluster) -> Client {
    connect(cluster, "postgres", "app")
}

/// Adds a warmer. `more` has further arguments, each after a comma.
pub(super) fn add(session: &mut Client, name: &str, query: &str, more: &str) {
    run(session, &format!("SELECT cache_warmer_add('{name}', $q${query}$q${more})"));
}

/// The number of seconds that a test waits for a worker. A worker may have to wait for its turn, and a warmer rests for up to a
/// minute after failures: the longer, the slower the machine is.
pub(super) const PATIENCE: u64 = 240;

/// Returns whether the result of a query is stored for this session, without running the query.
pub(super) fn is_stored(session: &mut Client, query: &str) -> bool {
    let state =
        text(session, &format!("SELECT value FROM cache_explain($q${query}$q$) WHERE property = 'state'"));
    state == "hot" || state == "hit: table"
}

/// Waits until the result is stored, and expects that a client gets it. Returns the first value.
pub(super) fn wait_warm(session: &mut Client, query: &str, columns: &str) -> String {
    wait_at_most(PATIENCE, &format!("{query} to be stored"), || is_stored(session, query));
    let value = text(session, &format!("SELECT * FROM cache_query($q${query}$q$) AS ({columns})"));
    let status = text(session, "SELECT cache_status()");
    assert!(status == "hot" || status == "hit: table", "{query}: {status}");
    value
}

/// Returns a column of the view for a warmer.
pub(super) fn shown(session: &mut Client, name: &str, column: &str) -> String {
    text(session, &format!("SELECT {column} FROM cache_warmers WHERE name = '{name}'"))
}

/// Returns how often a warmer has run, or 0 if there is no such warmer.
pub(super) fn runs(session: &mut Client, name: &str) -> u64 {
    shown(session, name, "runs").parse().unwrap_or(0)
}

/// Waits until a column of the view begins with a text.
pub(super) fn wait_shown(session: &mut Client, name: &str, column: &str, value: &str) {
    let mut last = String::new();
    let deadline = Instant::now() + Duration::from_secs(PATIENCE);
    while !last.starts_with(value) || last.is_empty() {
        assert!(Instant::now() < deadline, "{name}: {column} is {last}, not {value}");
        last = shown(session, name, column);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The worker stores the entry that sessions of the owner find. Sessions of another role do not find it.
#[test]
fn a_warmer_stores_the_entry_of_its_owner() {
    let cluster = start();
    let (mut session, mut admin) = (app(&cluster), cluster.connect("postgres"));
    add(&mut session, "count", COUNT, "");
    assert_eq!(wait_warm(&mut session, COUNT, COLUMNS), "10");
    assert_eq!(wait_warm(&mut app(&cluster), COUNT, COLUMNS), "10");
    run(&mut session, "GRANT SELECT ON t TO other");
    let mut other = connect(&cluster, "postgres", "other");
    assert!(!is_stored(&mut other, COUNT) && !is_stored(&mut admin, COUNT));
    // This warmer has arguments, tags, a time to live, and a table in the role's own schema.
    run(&mut admin, "CREATE SCHEMA app AUTHORIZATION app; ALTER ROLE app SET timezone = 'Asia/Tokyo'");
    run(&mut admin, "ALTER ROLE app SET work_mem = '5MB'; ALTER DATABASE postgres SET datestyle = 'German'");
    let mut session = app(&cluster);
    run(&mut session, "CREATE TABLE app.inner AS SELECT now() AS v");
    let query = "SELECT count(*) AS n, min(v)::text AS v FROM app.inner WHERE $1 > 0";
    add(&mut session, "inner", query, ", args => '[7]', tags => '{a,b}', ttl => '1 hour'");
    let call = format!(
        "SELECT * FROM cache_query($q${query}$q$, args => '[7]', tags => '{{b}}', ttl => '1 hour') AS (n bigint, v text)"
    );
    wait_shown(&mut session, "inner", "state", "warm");
    // A worker that started before the change of the role has the old settings. The next worker has the new ones.
    wait_at_most(PATIENCE, "the entry of the new settings", || {
        let key = text(&mut session, &format!("SELECT cache_key($q${query}$q$, args => '[7]')"));
        text(&mut session, &format!("SELECT count(*) FROM cache_queries WHERE key = '{key}'")) == "1"
    });
    text(&mut session, &call);
    assert_eq!(text(&mut session, "SELECT cache_status()"), "hot");
    assert_eq!(findings(&mut admin), Vec::<String>::new());
}

/// The result of a query that reads settings, or that calls a function in PL/pgSQL, varies on all settings. The worker runs the
/// query in a READ ONLY transaction, and stores the result of sessions whose transactions are not READ ONLY.
#[test]
fn a_warmer_stores_results_that_vary_on_settings() {
    let cluster = start();
    let mut session = app(&cluster);
    run(
        &mut session,
        "CREATE FUNCTION f() RETURNS text STABLE LANGUAGE plpgsql AS
             $$ BEGIN RETURN current_setting('transaction_read_only'); END $$",
    );
    let queries = ["SELECT current_setting('transaction_read_only') AS n", "SELECT f() AS n"];
    queries.iter().for_each(|query| add(&mut session, query.split('(').next().expect("a part"), query, ""));
    for query in queries {
        assert_eq!(wait_warm(&mut session, query, "n text"), "off");
    }
}

/// The warmers run after a clean restart, and after a crash, which empties the cache.
#[test]
fn all_warmers_run_after_a_restart() {
    let cluster = start();
    let mut admin = cluster.connect("postgres");
    run(&mut admin, "CREATE DATABASE second");
    prepare(&mut cluster.connect("second"));
    run(&mut cluster.connect("second"), "SELECT cache_grant('default', 'public', 'write')");
    let query = |number: usize| format!("SELECT count(*) + {number} AS n FROM t");
    let of_second = "SELECT 2 AS n";
    {
        let mut session = app(&cluster);
        (0..5).for_each(|number| add(&mut session, &format!("w{number}"), &query(number), ""));
        let mut second = connect(&cluster, "second", "other");
        add(&mut second, "w", of_second, "");
        (0..5).for_each(|number| drop(wait_warm(&mut session, &query(number), COLUMNS)));
        wait_warm(&mut second, of_second, "n int");
    }
    for stop in [Stop::Fast, Stop::Immediate] {
        cluster.restart(stop, &Conf::preloaded());
        let mut session = app(&cluster);
        for number in 0..5 {
            assert_eq!(wait_warm(&mut session, &query(number), COLUMNS), (10 + number).to_string());
        }
        wait_warm(&mut connect(&cluster, "second", "other"), of_second, "n int");
    }
    run(&mut app(&cluster), "INSERT INTO t VALUES (0)");
    assert_eq!(wait_warm(&mut app(&cluster), &query(0), COLUMNS), "11");
}

/// A warmer runs after a change of a table, and after a refresh of a materialized view.
#[test]
fn a_warmer_runs_after_an_invalidation() {
    let cluster = start();
    let mut session = app(&cluster);
    run(
        &mut session,
        "CREATE MATERIALIZED VIEW m AS SELECT sum(v) AS s FROM t; CREATE UNIQUE INDEX ON m (s)",
    );
    let of_view = "SELECT s AS n FROM m";
    add(&mut session, "count", COUNT, "");
    add(&mut session, "view", of_view, "");
    assert_eq!(wait_warm(&mut session, COUNT, COLUMNS), "10");
    assert_eq!(wait_warm(&mut session, of_view, COLUMNS), "55");
    for step in 1..=3 {
        run(&mut session, "INSERT INTO t VALUES (100)");
        assert_eq!(wait_warm(&mut session, COUNT, COLUMNS), (10 + step).to_string());
        assert!(is_stored(&mut session, of_view), "the view was not refreshed");
        let how = if step == 2 { "" } else { "CONCURRENTLY" };
        run(&mut session, &format!("REFRESH MATERIALIZED VIEW {how} m"));
        assert_eq!(wait_warm(&mut session, of_view, COLUMNS), (55 + 100 * step).to_string());
    }
    // A result is stored shortly before its run ends.
    wait_shown(&mut session, "view", "state", "warm");
    let runs = runs(&mut session, "view");
    assert_eq!(runs, 4, "one run for each refresh");
}

/// The recipe of docs/warmers.md: thirty dashboards on one materialized view. Fails if a refresh does not renew all results, or
/// renews one twice.
#[test]
fn one_refresh_warms_thirty_dashboards() {
    let cluster = start();
    let mut session = app(&cluster);
    run(
        &mut session,
        "CREATE MATERIALIZED VIEW sales AS SELECT v % 30 AS shop, sum(v) AS total FROM generate_series(1, 3000) AS v
             GROUP BY 1;
         CREATE UNIQUE INDEX ON sales (shop)",
    );
    let dashboard = "SELECT total FROM sales WHERE shop = $1";
    run(
        &mut session,
        &format!(
            "SELECT cache_warmer_add('shop ' || shop, $q${dashboard}$q$, jsonb_build_array(shop))
               FROM generate_series(0, 29) AS shop"
        ),
    );
    let are_stored = |session: &mut Client| {
        let stored = format!(
            "SELECT count(*) FROM generate_series(0, 29) AS shop,
                 cache_explain($q${dashboard}$q$, jsonb_build_array(shop)) AS e
             WHERE e.property = 'state' AND e.value = 'hot'"
        );
        text(session, &stored) == "30"
    };
    wait_at_most(PATIENCE, "all dashboards", || are_stored(&mut session));
    for _ in 0..2 {
        wait_shown(&mut session, "shop 7", "state", "warm");
        let before = runs(&mut session, "shop 7");
        run(&mut session, "REFRESH MATERIALIZED VIEW CONCURRENTLY sales");
        wait_at_most(PATIENCE, "all dashboards again", || are_stored(&mut session));
        wait_shown(&mut session, "shop 7", "state", "warm");
        assert_eq!(runs(&mut session, "shop 7"), before + 1);
    }
    let call = format!("SELECT * FROM cache_query($q${dashboard}$q$, '[7]') AS (total bigint)");
    assert_eq!(text(&mut session, &call), "149200");
    assert_eq!(text(&mut session, "SELECT cache_status()"), "hot");
}

/// A warmer computes its result again when the result is about to expire. With `every`, it also renews a valid result.
#[test]
fn a_warmer_runs_when_its_result_is_old() {
    let cluster = start();
    let mut session = app(&cluster);
    add(&mut session, "ttl", COUNT, ", ttl => '2 s'");
    add(&mut session, "every", "SELECT 1 AS n", ", every => '1.5 s'");
    add(&mut session, "once", "SELECT 2 AS n", ", every => '1 month', ttl => '1 month'");
    for name in ["ttl", "every"] {
        // The query reads the number of runs and the state at the same moment. A run that goes on is not counted, and is not shown
        // as a failure.
        let query = format!("SELECT runs >= 4, state, error FROM cache_warmers WHERE name = '{name}'");
        wait_at_most(PATIENCE, &format!("runs of {name}"), || {
            let rows = answer(&mut session, &query).expect("a row");
            let state = rows[0][1].clone().unwrap_or_default();
            assert!(["waiting", "outdated", "running", "warm"].contains(&state.as_str()), "{name}: {state}");
            assert_eq!(rows[0][2], None, "{name}");
            rows[0][0].as_deref() == Some("t") && state == "warm"
        });
    }
    wait_warm(&mut session, "SELECT 2 AS n", "n int");
    wait_shown(&mut session, "once", "state", "warm");
    assert_eq!(runs(&mut session, "once"), 1);
}

/// A warmer runs after its result was flushed, after a tag was invalidated, and after a call without the tag replaced the result.
#[test]
fn a_warmer_runs_after_its_result_was_flushed() {
    let cluster = start();
    let (mut session, mut admin) = (app(&cluster), cluster.connect("postgres"));
    add(&mut session, "count", COUNT, ", tags => '{mine}'");
    wait_warm(&mut session, COUNT, COLUMNS);
    run(&mut admin, "SELECT cache_flush('*')");
    wait_at_most(PATIENCE, "a run after the flush", || runs(&mut session, "count") == 2);
    run(&mut session, "SELECT cache_invalidate_tag('mine')");
    wait_at_most(PATIENCE, "a run after the tag was invalidated", || runs(&mut session, "count") == 3);
    wait_warm(&mut session, COUNT, COLUMNS);
    // This call stores a result without the tag of the warmer, so the warmer must run again.
    text(&mut session, &format!("SELECT * FROM cache_query('{COUNT}', refresh => true) AS ({COLUMNS})"));
    wait_at_most(PATIENCE, "a run for the tag", || runs(&mut session, "count") == 4);
}

/// One failing warmer does not stop the nine others, and the view shows its error.
#[test]
fn one_failure_stops_no_other_warmer() {
    let cluster = start();
    let mut session = app(&cluster);
    let query = |number: usize| format!("SELECT {number} / (count(*) - 10 + {number} - 3) AS n FROM t");
    (0..10).for_each(|number| add(&mut session, &format!("w{number}"), &query(number), ""));
    for number in (0..10).filter(|number| *number != 3) {
        wait_warm(&mut session, &query(number), COLUMNS);
    }
    wait_shown(&mut session, "w3", "state", "failing");
    assert_eq!(shown(&mut session, "w3", "error"), "22012: division by zero");
    wait_until("the pauses to grow", || runs(&mut session, "w3") >= 3);
    let rows = answer(&mut session, "SELECT name, ok, error FROM cache_warm()").expect("it runs");
    let failed: Vec<_> = rows.iter().filter(|row| row[1] == Some("f".to_owned())).collect();
    assert_eq!(rows.len(), 10);
    assert_eq!(failed, [&["w3", "f", "22012: division by zero"].map(|text| Some(text.to_owned())).to_vec()]);
    run(&mut session, "INSERT INTO t VALUES (1)");
    for number in (0..10).filter(|number| *number != 2) {
        wait_warm(&mut session, &query(number), COLUMNS);
    }
    wait_shown(&mut session, "w3", "state", "warm");
    assert_eq!(shown(&mut session, "w3", "error"), "");
}

/// The view shows why a result cannot be stored. The pauses between the runs grow.
#[test]
fn a_query_that_cannot_be_stored_is_shown() {
    let cluster = start();
    let (mut session, mut admin) = (app(&cluster), cluster.connect("postgres"));
    let began = Instant::now();
    add(&mut session, "random", "SELECT random() AS n", "");
    wait_shown(&mut session, "random", "state", "not stored");
    assert_eq!(shown(&mut session, "random", "error"), "refused: function random() is volatile");
    // A role without rights sees no row. The superuser sees the row and the text of the query, and so does a member of pg_monitor,
    // which includes pg_read_all_stats.
    run(&mut admin, "CREATE ROLE watcher LOGIN IN ROLE pg_monitor; CREATE ROLE stranger LOGIN");
    let row = "SELECT name, owner, query FROM cache_warmers";
    assert_eq!(
        answer(&mut connect(&cluster, "postgres", "stranger"), row).expect("rows"),
        Vec::<Vec<_>>::new()
    );
    let expected = [["random", "app", "SELECT random() AS n"].map(|text| Some(text.to_owned())).to_vec()];
    assert_eq!(answer(&mut admin, row).expect("rows"), expected);
    assert_eq!(answer(&mut connect(&cluster, "postgres", "watcher"), row).expect("rows"), expected);
    // The pauses double. Those before the fourth run take about 1, 2 and 4 seconds.
    wait_until("four runs", || runs(&mut session, "random") >= 4);
    assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
}

/// The view says why a warmer cannot run: the owner, its rights, or a table of the query has changed or is gone.
#[test]
fn a_warmer_that_cannot_run_says_why() {
    let cluster = start();
    let (mut session, mut admin) = (app(&cluster), cluster.connect("postgres"));
    run(
        &mut admin,
        "CREATE TABLE secret AS SELECT 1 AS v; GRANT SELECT ON secret TO other; CREATE ROLE gone LOGIN",
    );
    run(&mut session, "CREATE TABLE dropped AS SELECT 1 AS v");
    let mut other = connect(&cluster, "postgres", "other");
    let of_secret = "SELECT v AS n FROM secret";
    add(&mut other, "secret", of_secret, "");
    add(&mut session, "dropped", "SELECT v AS n FROM dropped", "");
    add(&mut connect(&cluster, "postgres", "gone"), "gone", "SELECT 1 AS n", ", every => '1 s'");
    wait_warm(&mut other, of_secret, "n int");
    wait_warm(&mut session, "SELECT v AS n FROM dropped", "n int");
    wait_until("the run of the third role", || runs(&mut admin, "gone") >= 2);
    let number = text(&mut admin, "SELECT 'gone'::regrole::oid");

    run(&mut admin, "REVOKE SELECT ON secret FROM other");
    wait_shown(&mut other, "secret", "error", "42501: permission denied for table secret");
    run(&mut session, "DROP TABLE dropped");
    wait_shown(&mut session, "dropped", "error", "42P01: relation \"dropped\" does not exist");
    run(&mut admin, "DROP ROLE gone");
    wait_shown(&mut admin, "gone", "state", "owner dropped");
    assert_eq!(shown(&mut admin, "gone", "owner"), "");
    // The last run may not have ended yet.
    let workers = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_cache warmer' AND usesysid = {number}"
    );
    wait_until("the end of its worker", || text(&mut admin, &workers) == "0");
    let after = runs(&mut admin, "gone");

    run(&mut admin, "GRANT SELECT ON secret TO other; SELECT cache_revoke('default', 'public', 'write')");
    wait_shown(&mut other, "secret", "error", "42501: permission denied for space \"default\"");
    run(
        &mut admin,
        "SELECT cache_grant('default', 'other', 'write'), cache_grant('default', 'app', 'write')",
    );
    wait_shown(&mut other, "secret", "state", "warm");
    run(&mut admin, "ALTER ROLE other NOLOGIN");
    wait_shown(&mut admin, "secret", "state", "owner may not log in");
    run(&mut admin, "ALTER ROLE other LOGIN; UPDATE secret SET v = 2");
    assert_eq!(wait_warm(&mut other, of_secret, "n int"), "2");
    run(&mut admin, "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; UPDATE secret SET v = 3");
    run(
        &mut admin,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_cache warmer'",
    );
    wait_shown(&mut admin, "secret", "state", "owner cannot connect");
    run(&mut admin, "GRANT CONNECT ON DATABASE postgres TO PUBLIC");
    assert_eq!(wait_warm(&mut other, of_secret, "n int"), "3");

    assert_eq!(runs(&mut admin, "gone"), after, "a dropped role runs nothing");
    add(&mut session, "next", COUNT, "");
    assert_eq!(shown(&mut admin, "gone", "name"), "", "its warmers are removed");
}

/// After `DROP EXTENSION`, no warmers are left for a new `CREATE EXTENSION`.
#[test]
fn a_dropped_extension_leaves_no_warmers() {
    let cluster = start();
    let (mut session, mut admin) = (app(&cluster), cluster.connect("postgres"));
    run(&mut session, "CREATE TABLE log (v int)");
    add(&mut session, "count", COUNT, ", every => '1 s'");
    wait_until("a run", || runs(&mut session, "count") >= 1);
    run(&mut admin, "DROP EXTENSION pg_cache");
    wait_until("the end of the worker", || {
        text(&mut admin, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_cache warmer'")
            == "0"
    });
    // A table of the same name in a schema of another role must not be trusted.
    run(&mut admin, "CREATE SCHEMA pgcache AUTHORIZATION other");
    let forged = "CREATE TABLE pgcache.spaces (); CREATE TABLE pgcache.proof (v text);
         CREATE FUNCTION pgcache.forge() RETURNS int LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO pgcache.proof VALUES (session_user); RETURN 1; END $$;
         CREATE TABLE pgcache.warmers AS SELECT 1::oid AS number, 10::oid AS owner, 'x'::text AS name,
             'SELECT pgcache.forge() AS n'::text AS query, NULL::jsonb AS args, '1 s'::interval AS every,
             NULL::interval AS ttl, NULL::text[] AS tags, 'default'::text AS space";
    run(&mut connect(&cluster, "postgres", "other"), forged);
    cluster.restart(Stop::Fast, &Conf::preloaded());
    let mut admin = cluster.connect("postgres");
    run(&mut admin, "CREATE DATABASE next");
    prepare(&mut cluster.connect("next"));
    run(&mut cluster.connect("next"), "SELECT cache_grant('default', 'public', 'write')");
    // The launcher starts a worker for each database, one after the other. When the warmer of the last database runs, workers have
    // looked into all databases.
    let mut next = connect(&cluster, "next", "app");
    add(&mut next, "one", "SELECT 1 AS n", "");
    wait_warm(&mut next, "SELECT 1 AS n", "n int");
    assert_eq!(text(&mut admin, "SELECT count(*) FROM pgcache.proof"), "0");
    run(&mut admin, "DROP SCHEMA pgcache CASCADE");
    prepare(&mut admin);
    assert_eq!(text(&mut admin, "SELECT count(*) FROM cache_warmers"), "0");
}

/// The session user of the worker is the owner, so a function cannot become another role.
#[test]
fn a_malicious_query_gains_nothing() {
    let cluster = start();
    let mut session = app(&cluster);
    let attacks = [
        "RESET SESSION AUTHORIZATION",
        "SET SESSION AUTHORIZATION DEFAULT",
        "SET SESSION AUTHORIZATION postgres",
        "SET ROLE postgres",
        "RESET ROLE",
        "SET ROLE NONE",
        "RESET ALL",
    ];
    for (number, attack) in attacks.iter().enumerate() {
        let create = format!(
            "CREATE FUNCTION attack{number}() RETURNS int LANGUAGE plpgsql AS $$
             BEGIN
                 BEGIN EXECUTE '{attack}'; EXCEPTION WHEN OTHERS THEN NULL; END;
                 RAISE LOG 'proof {number}: % %', session_user, current_user;
                 RETURN {number};
             END $$"
        );
        run(&mut session, &create);
        add(&mut session, &format!("a{number}"), &format!("SELECT attack{number}() AS n"), "");
    }
    // A function that changes a setting of its session does not disturb the others.
    let change = "CREATE FUNCTION change() RETURNS text LANGUAGE sql AS $$ SELECT set_config('timezone', 'Asia/Tokyo', false) $$";
    run(&mut session, change);
    add(&mut session, "change", "SELECT change() AS n", "");
    add(&mut session, "count", COUNT, "");
    wait_warm(&mut session, COUNT, COLUMNS);
    wait_until("all attacks", || {
        let log = cluster.log();
        (0..attacks.len()).all(|number| log.contains(&format!("proof {number}: ")))
    });
    wait_until("the change", || runs(&mut session, "change") > 0);
    let log = cluster.log();
    let proofs = log
        .lines()
        .filter_map(|line| line.split_once("proof "))
        .filter_map(|(_, proof)| proof.split_once(": "));
    let others: Vec<_> = proofs.filter(|(_, who)| *who != "app app" && !who.starts_with('%')).collect();
    assert_eq!(others, []);
    run(&mut session, "INSERT INTO t VALUES (1)");
    assert_eq!(wait_warm(&mut session, COUNT, COLUMNS), "11");
}

/// A role that may write to all tables, or that owns the tables of the extension, must not run queries as another role.
#[test]
fn no_role_writes_a_warmer_of_another() {
    let cluster = start();
    let (mut session, mut admin) = (app(&cluster), cluster.connect("postgres"));
    add(&mut session, "count", COUNT, ", every => '1 s'");
    run(&mut admin, "CREATE ROLE writer LOGIN IN ROLE pg_write_all_data, pg_read_all_data, pg_monitor");
    let mut writer = connect(&cluster, "postgres", "writer");
    for (attack, of) in [
        (
            "INSERT INTO pgcache.warmers VALUES (1, 10, 'w', 'SELECT 1', NULL, NULL, NULL, NULL, 'default')",
            "postgres",
        ),
        ("UPDATE pgcache.warmers SET query = 'SELECT 2'", "app"),
        ("UPDATE pgcache.warmers SET owner = 10", "postgres"),
        (
            "INSERT INTO pgcache.dumped_warmers VALUES ('postgres', 'w', 'SELECT 1', NULL, NULL, NULL, NULL, 'default')",
            "postgres",
        ),
    ] {
        let refused = format!("42501: permission denied to write a warmer of role {of}");
        assert_eq!(answer(&mut writer, attack), Err(refused), "{attack}");
    }
    wait_shown(&mut session, "count", "state", "warm");
    // The owner of the tables can disable the triggers.
    run(&mut admin, "ALTER TABLE pgcache.warmers OWNER TO writer; GRANT USAGE ON SCHEMA pgcache TO writer");
    run(
        &mut writer,
        "ALTER TABLE pgcache.warmers DISABLE TRIGGER ALL;
         INSERT INTO pgcache.warmers VALUES (1, 10, 'forged', 'SELECT 1', NULL, NULL, NULL, NULL, 'default')",
    );
    cluster.restart(Stop::Fast, &Conf::preloaded());
    let (mut admin, mut writer) = (cluster.connect("postgres"), connect(&cluster, "postgres", "writer"));
    let own = "INSERT INTO pgcache.warmers
         VALUES (2, 'writer'::regrole, 'own', 'SELECT 1 AS n', NULL, NULL, NULL, NULL, 'default');
         ALTER TABLE pgcache.warmers ENABLE ALWAYS TRIGGER changed;
         UPDATE pgcache.warmers SET every = '1 s' WHERE name = 'own'";
    run(&mut writer, own);
    wait_shown(&mut writer, "own", "state", "warm");
    for name in ["forged", "count"] {
        assert_eq!(shown(&mut admin, name, "state || ' ' || runs"), "not trusted 0");
    }
    assert_eq!(text(&mut admin, "SELECT count(*) FROM cache_warm()"), "0");
}

/// Adds a warmer whose query runs for ten minutes. Returns when the query runs.
pub(super) fn run_long(cluster: &Cluster, database: &str) -> Client {
    let mut session = connect(cluster, database, "app");
    add(&mut session, "long", "SELECT 1 AS n FROM pg_sleep(600)", "");
    let mut admin = cluster.connect("postgres");
    wait_until("the query to run", || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_cache warmer' AND wait_event = 'PgSleep'
             AND query LIKE '%pg_sleep(600)%' AND usename = 'app'";
        text(&mut admin, query) == "1"
    });
    session
}

/// A command that needs a database for itself ends its workers.
#[test]
fn a_running_warmer_is_in_nobodys_way() {
    let cluster = start();
    let mut admin = cluster.connect("postgres");
    run(&mut admin, "CREATE DATABASE second");
    prepare(&mut cluster.connect("second"));
    run(&mut cluster.connect("second"), "SELECT cache_grant('default', 'public', 'write')");
    drop(run_long(&cluster, "second"));
    wait_until("the client to leave", || {
        text(
            &mut admin,
            "SELECT count(*) FROM pg_stat_activity WHERE datname = 'second' AND backend_type = 'client backend'",
        ) == "0"
    });
    assert_eq!(
        text(
            &mut admin,
            "SELECT database || ' ' || kind FROM cache_workers WHERE kind = 'warmer' AND database = 'second'"
        ),
        "second warmer"
    );
    let began = Instant::now();
    run(&mut admin, "CREATE DATABASE copy TEMPLATE second");
    run(&mut admin, "ALTER DATABASE copy RENAME TO copied");
    run(&mut admin, "DROP DATABASE second");
    run(&mut admin, "DROP DATABASE copied");
    // The query of the warmer would take ten minutes.
    assert!(began.elapsed() < Duration::from_secs(120), "{:?}", began.elapsed());
    let mut session = run_long(&cluster, "postgres");
    run(&mut admin, "CREATE DATABASE third");
    run(&mut admin, "DROP DATABASE third");
    run(&mut admin, "DROP EXTENSION pg_cache");
    drop((session.batch_execute("SELECT 1"), admin));
    let began = Instant::now();
    cluster.stop(Stop::Fast);
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
}

/// A long query ends with the server, and by `statement_timeout` or `pg_cancel_backend`, as in a session of the owner.
#[test]
fn a_long_query_can_be_ended() {
    let cluster = start();
    let mut admin = cluster.connect("postgres");
    let mut session = run_long(&cluster, "postgres");
    run(
        &mut admin,
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_cache warmer' AND wait_event = 'PgSleep'",
    );
    wait_shown(&mut session, "long", "error", "57014: canceling statement due to user request");
    run(
        &mut admin,
        "ALTER ROLE app SET statement_timeout = '200 ms'; SELECT pg_terminate_backend(pid)
        FROM pg_stat_activity WHERE backend_type = 'pg_cache warmer'",
    );
    wait_shown(&mut session, "long", "error", "57014: canceling statement due to statement timeout");
    run(
        &mut admin,
        "ALTER ROLE app RESET statement_timeout; SELECT pg_terminate_backend(pid)
        FROM pg_stat_activity WHERE backend_type = 'pg_cache warmer'",
    );
    wait_at_most(PATIENCE, "the query to run", || {
        text(&mut admin, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "1"
    });
    drop((session, admin));
    let began = Instant::now();
    cluster.stop(Stop::Fast);
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
}

/// A warmer that takes longer than its `every` rests for as long as its run took, and the other warmers run meanwhile.
#[test]
fn a_slow_warmer_neither_piles_up_nor_starves_others() {
    let cluster = start();
    let mut session = app(&cluster);
    let slow = "SELECT count(*) AS n FROM generate_series(1, 3000) AS a, generate_series(1, 3000) AS b";
    add(&mut session, "slow", slow, ", every => '1 ms'");
    add(&mut session, "fast", COUNT, ", every => '1 ms'");
    wait_at_most(PATIENCE, "the slow one", || runs(&mut session, "slow") >= 1);
    let (began, slow_before, fast_before) =
        (Instant::now(), runs(&mut session, "slow"), runs(&mut session, "fast"));
    wait_at_most(PATIENCE, "runs of the slow one", || runs(&mut session, "slow") >= slow_before + 4);
    let elapsed = began.elapsed();
    let took: f64 = shown(&mut session, "slow", "extract(epoch FROM duration)").parse().expect("a number");
    assert!(elapsed.as_secs_f64() >= 3.0, "four runs in {elapsed:?}, one in {took} s");
    assert!(runs(&mut session, "fast") >= fast_before + 2);
    // The worker is replaced although it always has something to do.
    let pid = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_cache warmer' AND usename = 'app'";
    let first = text(&mut session, pid);
    let other = |pid: String| !pid.is_empty() && pid != first;
    let deadline = Instant::now() + Duration::from_secs(PATIENCE);
    while !other(text(&mut session, pid)) {
        assert!(Instant::now() < deadline, "the worker stays");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// An owner whose warmers are always due does not keep the worker from other owners.
#[test]
fn a_busy_owner_leaves_its_place() {
    let cluster = start_with(&Conf::preloaded().set("pg_cache.max_workers", "1"));
    let (mut session, mut other) = (app(&cluster), connect(&cluster, "postgres", "other"));
    let slow = "SELECT count(*) + $1 AS n FROM generate_series(1, 700) AS a, generate_series(1, 700) AS b";
    let many = format!(
        "SELECT count(cache_warmer_add('w' || n, '{slow}', jsonb_build_array(n), every => '1 ms')) FROM generate_series(1, 30) AS n"
    );
    assert_eq!(text(&mut session, &many), "30");
    wait_at_most(PATIENCE, "the first run", || {
        text(&mut session, "SELECT max(runs) FROM cache_warmers") != "0"
    });
    add(&mut other, "one", "SELECT 1 AS n", ", every => '1 ms'");
    wait_at_most(PATIENCE, "turns of the other", || runs(&mut other, "one") >= 3);
    let least = "SELECT min(runs) FROM cache_warmers";
    wait_at_most(PATIENCE, "all of the busy one", || text(&mut session, least) != "0");
}

/// If there are more owners than workers, the owners take turns.
#[test]
fn many_owners_take_turns() {
    let cluster = start_with(&Conf::preloaded().set("pg_cache.max_workers", "1"));
    let mut admin = cluster.connect("postgres");
    run(&mut admin, "GRANT SELECT ON t TO PUBLIC");
    let mut sessions = Vec::new();
    for number in 0..5 {
        run(&mut admin, &format!("CREATE ROLE r{number} LOGIN"));
        let mut session = connect(&cluster, "postgres", &format!("r{number}"));
        add(&mut session, "count", COUNT, "");
        sessions.push(session);
    }
    for expected in ["10", "11"] {
        sessions.iter_mut().for_each(|session| assert_eq!(wait_warm(session, COUNT, COLUMNS), expected));
        run(&mut admin, "INSERT INTO t VALUES (1)");
    }
    let workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_cache warmer'";
    assert!(["0", "1"].contains(&text(&mut admin, workers).as_str()));
}

/// A warmer exists from the commit on, however long its transaction takes, and not after a rollback.
#[test]
fn a_warmer_exists_from_its_commit_on() {
    let cluster = start();
    let [mut session, mut other, mut reader] = [(); 3].map(|()| app(&cluster));
    run(&mut session, "BEGIN");
    add(&mut session, "late", COUNT, "");
    run(&mut other, "BEGIN");
    add(&mut other, "never", "SELECT 1 AS n", "");
    let workers =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_cache warmer' AND usename = 'app'";
    wait_until("a worker", || text(&mut reader, workers) == "1");
    assert_eq!(text(&mut reader, "SELECT count(*) FROM cache_warmers"), "0");
    run(&mut other, "ROLLBACK");
    run(&mut session, "COMMIT");
    wait_warm(&mut reader, COUNT, COLUMNS);
    assert_eq!(text(&mut reader, "SELECT string_agg(name, ',') FROM cache_warmers"), "late");
    assert_eq!(text(&mut reader, "SELECT cache_warmer_drop('late')"), "t");
    assert_eq!(text(&mut reader, "SELECT cache_warmer_drop('late')"), "f");
    wait_until("the end of the worker", || text(&mut reader, workers) == "0");
}

/// Found on a slow machine: the launcher took the role of a transaction that was still running for a dropped one, if no later
/// transaction had ended. It removed the role from its list, so no worker ran for it.
#[test]
fn a_role_that_a_slow_transaction_creates_gets_a_worker() {
    let cluster = start();
    let mut admin = cluster.connect("postgres");
    run(&mut admin, "BEGIN; CREATE ROLE late LOGIN; SET LOCAL ROLE late");
    add(&mut admin, "slow", "SELECT 1 AS n", "");
    // Time for the launcher to look at the role several times. The test also succeeds if it does not look.
    std::thread::sleep(Duration::from_secs(4));
    run(&mut admin, "COMMIT");
    wait_until("a run", || runs(&mut admin, "slow") > 0);
}

/// The number of warmers is limited, and as many warmers as the limit allows all run.
#[test]
fn as_many_warmers_as_there_may_be() {
    let cluster = start();
    let mut session = app(&cluster);
    let many =
        "SELECT count(cache_warmer_add('w' || n, 'SELECT count(*) + $1 AS n FROM t', jsonb_build_array(n)))
                  FROM generate_series(1, 250) AS n";
    assert_eq!(text(&mut session, many), "250");
    let one_more = answer(&mut session, "SELECT cache_warmer_add('more', 'SELECT 1')");
    assert_eq!(one_more, Err("54000: role app would have more than 250 warmers".to_owned()));
    let warm = "SELECT count(*) FROM cache_warmers WHERE state = 'warm'";
    wait_at_most(PATIENCE, "all of them", || text(&mut session, warm) == "250");
    run(&mut session, "INSERT INTO t VALUES (1)");
    wait_at_most(PATIENCE, "all of them again", || {
        text(&mut session, "SELECT count(*) FROM cache_warmers WHERE runs >= 2 AND state = 'warm'") == "250"
    });
    // The database has a limit, too.
    let mut admin = cluster.connect("postgres");
    run(
        &mut admin,
        "DO $$ BEGIN FOR n IN 1..3 LOOP EXECUTE 'CREATE ROLE many' || n || ' LOGIN'; END LOOP; END $$",
    );
    for number in 1..=3 {
        let mut session = connect(&cluster, "postgres", &format!("many{number}"));
        let many = "SELECT count(cache_warmer_add('w' || n, 'SELECT 1')) FROM generate_series(1, 250) AS n";
        assert_eq!(text(&mut session, many), "250");
    }
    let one_more = answer(&mut admin, "SELECT cache_warmer_add('more', 'SELECT 1')");
    assert_eq!(one_more, Err("54000: the database would have more than 1000 warmers".to_owned()));
}

/// A dump names the owners, so a restore does not give a warmer to another role.
#[test]
fn a_dump_has_the_warmers() {
    let cluster = start();
    let (mut session, mut admin) = (app(&cluster), cluster.connect("postgres"));
    run(&mut admin, "CREATE ROLE leaves LOGIN");
    run(&mut admin, "CREATE DATABASE copy");
    add(&mut session, "count", COUNT, ", every => '1 day', tags => '{a,\"b,c\"}'");
    add(&mut session, "args", "SELECT $1::text AS n", ", args => '[\"it''s\"]', ttl => '1 hour'");
    add(&mut connect(&cluster, "postgres", "leaves"), "lost", "SELECT 1 AS n", "");
    let dump = cluster.client("pg_dump").output().expect("pg_dump runs");
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    run(&mut admin, "DROP ROLE leaves");
    let dumped = String::from_utf8(dump.stdout).expect("a dump is a text");
    let mut restore = cluster.client("psql");
    restore.env("PGDATABASE", "copy").args(["-q", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
    restore.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut child = restore.stderr(std::process::Stdio::piped()).spawn().expect("psql starts");
    std::io::Write::write_all(&mut child.stdin.take().expect("its input"), dumped.as_bytes())
        .expect("it reads");
    let output = child.wait_with_output().expect("psql ends");
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{messages}");
    assert!(messages.contains("role \"leaves\" does not exist"), "{messages}");
    let list =
        "SELECT name, owner, query, args, every, ttl, tags, space FROM cache_warmers WHERE owner IS NOT NULL";
    let of_copy = answer(&mut cluster.connect("copy"), list);
    assert_eq!(of_copy, answer(&mut admin, list));
    assert_eq!(of_copy.expect("rows").len(), 2);
    wait_warm(&mut connect(&cluster, "copy", "app"), COUNT, COLUMNS);
}

/// `cache_warm` runs the warmers of its caller, and no others, in the session of the caller.
#[test]
fn warming_now() {
    // Without workers, nothing else runs the warmers.
    let cluster = start_with(&Conf::preloaded().set("pg_cache.max_workers", "0"));
    let (mut session, mut other) = (app(&cluster), connect(&cluster, "postgres", "other"));
    add(&mut session, "count", COUNT, "");
    add(&mut session, "broken", "SELECT 1 / v AS n FROM t", "");
    run(&mut session, "INSERT INTO t VALUES (0)");
    assert_eq!(
        text(&mut session, "SELECT ok AND error IS NULL AND duration > '0' FROM cache_warm('count')"),
        "t"
    );
    // No worker looks whether the result is stored, and the view says why.
    let waiting = "waiting pg_cache.max_workers is 0";
    assert_eq!(shown(&mut session, "count", "state || ' ' || error"), waiting);
    assert!(is_stored(&mut session, COUNT) && !is_stored(&mut other, COUNT));
    assert_eq!(text(&mut other, "SELECT count(*) FROM cache_warm()"), "0");
    let unknown = answer(&mut other, "SELECT * FROM cache_warm('count')");
    assert_eq!(unknown, Err("42704: role other has no warmer \"count\"".to_owned()));
    let all = answer(&mut session, "SELECT name, ok, error FROM cache_warm() ORDER BY name").expect("rows");
    assert_eq!(all[0][2].as_deref(), Some("22012: division by zero"));
    assert_eq!(all[1][1].as_deref(), Some("t"));
    // In a transaction that has changed the table, the result cannot be stored, and the transaction goes on.
    run(&mut session, "BEGIN; INSERT INTO t VALUES (1)");
    let in_transaction = text(&mut session, "SELECT error FROM cache_warm('count')");
    assert_eq!(in_transaction, "bypass: this transaction has changed table t");
    run(&mut session, "COMMIT");
    // A cancelled call ends.
    add(&mut session, "long", "SELECT 1 AS n FROM pg_sleep(600)", "");
    run(&mut session, "SET statement_timeout = '500 ms'");
    let cancelled = answer(&mut session, "SELECT * FROM cache_warm('long')");
    run(&mut session, "RESET statement_timeout");
    assert_eq!(cancelled, Err("57014: canceling statement due to statement timeout".to_owned()));
    assert_eq!(
        shown(&mut session, "long", "runs || ' ' || state || ' ' || error"),
        "1 failing 57014: the run was cancelled"
    );
}

/// On a standby, nothing runs.
#[test]
fn a_standby_runs_no_warmers() {
    let primary = start();
    add(&mut app(&primary), "count", COUNT, "");
    let standby = Cluster::start(&Conf::preloaded());
    standby.stop(Stop::Fast);
    standby.follow(&primary);
    standby.resume();
    let mut session = app(&standby);
    let waiting = "waiting the server is in recovery";
    assert_eq!(shown(&mut session, "count", "state || ' ' || error"), waiting);
    let warm = text(&mut session, "SELECT error FROM cache_warm()");
    assert_eq!(warm, "bypass: the server is in recovery");
    let workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pg_cache%'";
    assert_eq!(text(&mut session, workers), "0");
    drop(session);
    run(&mut standby.connect("postgres"), "SELECT pg_promote()");
    wait_warm(&mut app(&standby), COUNT, COLUMNS);
}

/// Logical replication copies the rows of all tables, but the OID of an owner may be that of another role here. So a subscriber
/// must keep such rows out.
#[test]
fn a_replicated_warmer_is_kept_out() {
    let cluster = Cluster::start(&Conf::preloaded());
    let mut session = cluster.connect("postgres");
    run(&mut session, "CREATE EXTENSION pg_cache; SET session_replication_role = replica");
    run(
        &mut session,
        "INSERT INTO pgcache.warmers (number, owner, name, query, tags, space)
         VALUES (999, 10, 'foreign', 'SELECT 1', '{}', 'default')",
    );
    assert_eq!(text(&mut session, "SELECT count(*) FROM pgcache.warmers"), "0");
    run(&mut session, "RESET session_replication_role; SELECT cache_warmer_add('own', 'SELECT 1')");
    run(&mut session, "SET session_replication_role = replica; DELETE FROM pgcache.warmers");
    assert_eq!(text(&mut session, "SELECT count(*) FROM pgcache.warmers"), "1");
}

/// A run must not write. Still, a query sees the settings of a usual session, and sessions find the result of a query that varies
/// on all settings.
#[test]
fn a_read_only_run_has_the_settings_of_a_session() {
    let cluster = start();
    let mut session = app(&cluster);
    run(
        &mut session,
        "CREATE FUNCTION total() RETURNS bigint STABLE LANGUAGE plpgsql AS
             $$ BEGIN RETURN (SELECT count(*) FROM t); END $$;
         CREATE FUNCTION read_only() RETURNS text STABLE LANGUAGE plpgsql AS
             $$ BEGIN RETURN current_setting('transaction_read_only') || (SELECT count(*) FROM t); END $$",
    );
    let (total, read_only) = ("SELECT total() AS n", "SELECT read_only() AS n");
    add(&mut session, "total", total, "");
    add(&mut session, "read only", read_only, "");
    assert_eq!(wait_warm(&mut session, total, COLUMNS), "10");
    assert_eq!(wait_warm(&mut session, read_only, "n text"), "off10");
    run(&mut session, "INSERT INTO t VALUES (1)");
    assert_eq!(wait_warm(&mut session, total, COLUMNS), "11");
    // A session whose transactions are read-only by default has its own results.
    run(&mut session, "SET default_transaction_read_only = on");
    assert!(!is_stored(&mut session, total));
}

/// A run must not write, and a query that ends its own process must not keep the other warmers of the role from running.
#[test]
fn a_query_that_writes_or_dies_harms_no_other_warmer() {
    let cluster = Cluster::start(&Conf::preloaded());
    let mut session = cluster.connect("postgres");
    run(
        &mut session,
        "CREATE EXTENSION pg_cache; CREATE TABLE t AS SELECT 1 AS a; CREATE TABLE written (a int);
         CREATE FUNCTION writes() RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO written VALUES (1); RETURN 1; END $$;
         CREATE FUNCTION dies() RETURNS int LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(1); RETURN 1; END $$;
         SELECT cache_warmer_add('dies', 'SELECT dies()'), cache_warmer_add('good', 'SELECT a FROM t'),
                cache_warmer_add('writes', 'SELECT writes()')",
    );
    let mut is = |name: &str, condition: &str| {
        let query = format!(
            "SELECT coalesce(bool_or({condition}), false)::text FROM cache_warmers WHERE name = '{name}'"
        );
        text(&mut session, &query) == "true"
    };
    wait_at_most(PATIENCE, "the query to be refused", || is("writes", "error LIKE '25006%'"));
    wait_at_most(PATIENCE, "the query to end its process", || {
        is("dies", "error = '57P01: the process of the run has ended'")
    });
    let mut witness = cluster.connect("postgres");
    for _ in 0..3 {
        run(&mut witness, "UPDATE t SET a = a + 1");
        wait_at_most(PATIENCE, "the other warmer to run", || is_stored(&mut witness, "SELECT a FROM t"));
    }
    assert_eq!(text(&mut witness, "SELECT count(*) FROM written"), "0");
}
