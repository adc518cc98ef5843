//! The option `keep_warm` of a space: workers keep this number of the most valuable results of the space stored, without a warmer.
//! A *space* is a named cache with options of its own; the tests use the space `default`, in which each role may write.
//! A worker *renews* a result: it runs the query again after a change has invalidated the result, or before the result expires.
//!
//! A test must not call `cache_query` to learn whether a result is stored, because the call would store the result. `state` asks
//! the view `cache_queries` instead. Definitions and roles must not change after the first result is stored: such a change ends the
//! keeping.
//!
//! A *warmer* is a named query whose result a background worker keeps stored.
//!
//! Many tests end with a check of shared memory: `findings` returns what `cache_check()` reports, and must be empty.

use super::calls::{run, text};
use super::slow::{assert_in_an_attempt, ensure};
use super::warmers::PATIENCE;
use crate::memory::findings;
use pg_cache_testbed::{Cluster, Conf, Stop, wait_at_most, wait_until};
use postgres::{Client, NoTls};
use std::time::{Duration, Instant};

/// Queries from the cheapest to the most expensive one. The function `nap` is in SQL, so the results do not vary on all settings.
const CHEAP: &str = "SELECT count(*) AS n FROM t";
const MIDDLE: &str = "SELECT count(nap(0.4)) AS n FROM (SELECT count(*) FROM t) AS one";
const COSTLY: &str = "SELECT count(nap(2)) AS n FROM (SELECT count(*) FROM t) AS one";

/// Returns the settings of the server.
fn conf() -> Conf {
    // A result must outlast the sweeps that follow its invalidation.
    Conf::preloaded().set("pg_cache.sweep_interval", "100ms")
}

/// Starts a cluster with the extension, the roles `app` and `other` that may write to the cache, and a table with ten rows. `more`
/// has further statements of the superuser.
fn start(keep_warm: u32, more: &str) -> (Cluster, Client) {
    start_with(&conf(), keep_warm, more)
}

/// Does the same as [`start`] with other settings of the server.
fn start_with(conf: &Conf, keep_warm: u32, more: &str) -> (Cluster, Client) {
    let cluster = Cluster::start(conf);
    let mut admin = cluster.connect("postgres");
    run(
        &mut admin,
        "CREATE EXTENSION pg_cache; CREATE ROLE app LOGIN; CREATE ROLE other LOGIN; GRANT CREATE ON SCHEMA public TO app, other;
         CREATE TABLE t AS SELECT generate_series(1, 10) AS v; GRANT SELECT ON t TO PUBLIC;
         CREATE FUNCTION nap(seconds float8) RETURNS text STABLE LANGUAGE sql AS $$ SELECT 'x' FROM pg_sleep($1) $$",
    );
    run(&mut admin, more);
    run(
        &mut admin,
        &format!(
            "SELECT cache_grant('default', 'public', 'write'), cache_alter_space('default', keep_warm => {keep_warm})"
        ),
    );
    (cluster, admin)
}

/// Opens a session of a role.
fn connect(cluster: &Cluster, role: &str) -> Client {
    let mut config = postgres::Config::new();
    config.host_path(cluster.socket_dir()).user(role).dbname("postgres");
    config.connect(NoTls).unwrap_or_else(|error| panic!("{role}: {error}\n{}", cluster.log()))
}

/// Returns the result of a query. `options` are further arguments, each after a comma.
fn ask(session: &mut Client, query: &str, options: &str) -> String {
    text(session, &format!("SELECT * FROM cache_query($q${query}$q${options}) AS (n text)"))
}

/// Calls `cache_query` for queries whose results are numbers.
fn count(session: &mut Client, query: &str) -> String {
    text(session, &format!("SELECT * FROM cache_query($q${query}$q$) AS (n bigint)"))
}

/// Returns the state of the stored result of a query that a role has run. It is empty if there is no such result. The condition on
/// `form` leaves out the mark of a query whose results vary on all settings: this entry has no result, and its `form` is null.
fn state(admin: &mut Client, role: &str, query: &str) -> String {
    let states = "SELECT string_agg(state, ', ') FROM cache_queries WHERE form <> ''";
    text(admin, &format!("{states} AND role = '{role}' AND query = $q${query}$q$"))
}

/// Waits until the stored result of a query that a role has run is valid.
fn wait_valid(admin: &mut Client, role: &str, query: &str) {
    wait_at_most(PATIENCE, &format!("{query} of {role} to be valid"), || {
        state(admin, role, query) == "valid"
    });
}

/// Changes the table `t`, and waits until the results of these queries of `app` are valid again. The change invalidates them at
/// once.
fn change(admin: &mut Client, kept: &[&str]) {
    run(admin, "INSERT INTO t VALUES (0)");
    kept.iter().for_each(|query| wait_valid(admin, "app", query));
}

/// Asserts that no worker renews a result of `app`, while workers renew other results twice.
fn assert_not_renewed(admin: &mut Client, query: &str, kept: &[&str]) {
    for _ in 0..2 {
        change(admin, kept);
        let state = state(admin, "app", query);
        assert!(state.starts_with("invalid: "), "{query} is {state}");
    }
}

/// The state of a result that a change of the table `t` has invalidated.
const OUTDATED: &str = "invalid: table t";

/// After a change of rows, a worker renews only the most valuable results, and sessions find them.
#[test]
fn the_most_valuable_results_are_renewed() {
    let (cluster, mut admin) = start(2, "");
    let mut app = connect(&cluster, "app");
    // The worker may look before the last result is stored.
    for query in [COSTLY, MIDDLE, CHEAP] {
        count(&mut app, query);
    }
    // On a busy machine, the cheap query may take long.
    let cost =
        format!("SELECT cost < interval '0.1 s' FROM cache_queries WHERE form <> '' AND query = '{CHEAP}'");
    wait_until("the cheap query to be cheap", || {
        let is_cheap = text(&mut admin, &cost) == "t";
        if !is_cheap {
            text(&mut app, &format!("SELECT * FROM cache_query('{CHEAP}', refresh => true) AS (n bigint)"));
        }
        is_cheap
    });
    for _ in 0..3 {
        change(&mut admin, &[MIDDLE, COSTLY]);
        assert_eq!(state(&mut admin, "app", CHEAP), OUTDATED);
    }
    let kept = "SELECT count(*) FILTER (WHERE keep_warm = 'kept') || ' of ' || count(*) FROM cache_queries";
    assert_eq!(text(&mut admin, kept), "2 of 3");
    assert_eq!(count(&mut app, MIDDLE), "1");
    assert_eq!(text(&mut app, "SELECT cache_status()"), "hot");
    assert_eq!(findings(&mut admin), Vec::<String>::new());
}

/// Hits make a result more valuable.
#[test]
fn hits_count() {
    let (cluster, mut admin) = start(1, "");
    let mut app = connect(&cluster, "app");
    count(&mut app, COSTLY);
    count(&mut app, MIDDLE);
    change(&mut admin, &[COSTLY]);
    assert_eq!(state(&mut admin, "app", MIDDLE), OUTDATED);
    count(&mut app, MIDDLE);
    let statement = app
        .prepare(&format!("SELECT * FROM cache_query($q${MIDDLE}$q$) AS (n bigint)"))
        .expect("it is right");
    for _ in 0..8_000 {
        app.query(&statement, &[]).expect("a hit");
    }
    // The worker walks through all results every few seconds. The next walk finds the new order.
    change(&mut admin, &[MIDDLE]);
    assert_not_renewed(&mut admin, COSTLY, &[MIDDLE]);
}

/// Results of several roles are kept, of each form, with arguments, tags and settings. One worker serves all roles in turns.
#[test]
fn results_of_any_form_and_role_are_kept() {
    let conf = conf().set("pg_cache.max_workers", "1");
    let (cluster, mut admin) = start_with(
        &conf,
        100,
        "CREATE FUNCTION f(int) RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) + $1 FROM t'; ALTER ROLE app SET timezone = 'Asia/Tokyo'",
    );
    let [mut app, mut other] = ["app", "other"].map(|role| connect(&cluster, role));
    let with_args = "SELECT (count(*) + $1 + $2)::text AS n FROM t";
    let of_settings = "SELECT current_setting('timezone') || count(*) AS n FROM t";
    ask(&mut app, with_args, ", '[1, 2]', tags => '{a,b}', ttl => '1 hour'");
    ask(&mut app, of_settings, "");
    text(&mut app, &format!("SELECT cache_query_json('{CHEAP}')"));
    text(&mut app, "SELECT cache_call('f(int)', '[7]')");
    count(&mut other, CHEAP);
    let forms = "SELECT string_agg(DISTINCT form, ' ' ORDER BY form) FROM cache_queries WHERE role = 'app' AND form IS NOT NULL";
    assert_eq!(text(&mut admin, forms), "json rows value");
    let results = "SELECT count(*) FILTER (WHERE state = 'valid' AND rows IS NOT NULL) FROM cache_queries";
    for _ in 0..3 {
        run(&mut admin, "INSERT INTO t VALUES (0)");
        wait_at_most(PATIENCE, "all results", || text(&mut admin, results) == "5");
    }
    let call = format!(
        "SELECT * FROM cache_query($q${with_args}$q$, '[1, 2]', tags => '{{b}}', ttl => '1 hour') AS (n text)"
    );
    assert_eq!(text(&mut app, &call), "16");
    assert_eq!(text(&mut app, "SELECT cache_status()"), "hot");
    assert_eq!(ask(&mut app, of_settings, ""), "Asia/Tokyo13");
    assert_eq!(text(&mut app, "SELECT cache_status()"), "hot");
    assert_eq!(text(&mut app, "SELECT cache_call('f(int)', '[7]')"), "20");
    assert_eq!(text(&mut app, "SELECT cache_status()"), "hot");
}

/// A worker never runs code that the role itself has not run: after a change of a function, workers do not renew a result that
/// calls it.
#[test]
fn a_changed_function_does_not_run() {
    let define = |word: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION f() RETURNS int STABLE LANGUAGE plpgsql AS
                 $$ BEGIN RAISE LOG '{word} as %', session_user; RETURN 1; END $$"
        )
    };
    let (cluster, mut admin) = start(100, "");
    let [mut app, mut other] = ["app", "other"].map(|role| connect(&cluster, role));
    run(&mut other, &define("benign"));
    let query = "SELECT count(*) + f() AS n FROM t";
    count(&mut app, query);
    change(&mut admin, &[query]);
    wait_at_most(PATIENCE, "runs in the log", || cluster.log().matches("benign as app").count() >= 2);
    run(&mut other, &define("malicious"));
    count(&mut app, CHEAP);
    assert_not_renewed(&mut admin, query, &[CHEAP]);
    assert!(!cluster.log().contains("malicious as"), "{}", cluster.log());
    // The role itself runs the new function, and the worker does so from then on.
    count(&mut app, query);
    change(&mut admin, &[query, CHEAP]);
    wait_at_most(PATIENCE, "the worker to run it", || cluster.log().matches("malicious as app").count() >= 2);
}

/// No worker keeps the results of superusers, of sessions with other settings or another current role, of calls with `depends`, and
/// of wrappers of functions.
#[test]
fn some_results_are_not_kept() {
    let (cluster, mut admin) = start(
        100,
        "CREATE FUNCTION f(int) RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) + $1 FROM t'; GRANT other TO app;
         SELECT cache_wrap('f(int)')",
    );
    let [mut app, mut changed, mut set] = [(); 3].map(|()| connect(&cluster, "app"));
    count(&mut app, CHEAP);
    count(&mut admin, CHEAP);
    run(&mut set, "SET timezone = 'Asia/Tokyo'");
    let of_other_settings = "SELECT count(*) + 1 AS n FROM t";
    count(&mut set, of_other_settings);
    run(&mut changed, "SET ROLE other");
    let of_other_role = "SELECT count(*) + 2 AS n FROM t";
    count(&mut changed, of_other_role);
    let declared = "SELECT count(*) + 3 AS n FROM t";
    text(&mut app, &format!("SELECT * FROM cache_query($q${declared}$q$, depends => '{{t}}') AS (n bigint)"));
    text(&mut app, "SELECT f_cached(1)");
    assert_eq!(text(&mut admin, "SELECT count(*) FROM cache_queries WHERE rows IS NOT NULL"), "6");
    let superuser = text(&mut admin, "SELECT current_user");
    for _ in 0..3 {
        change(&mut admin, &[CHEAP]);
        assert_eq!(
            text(&mut admin, "SELECT count(*) FROM cache_queries WHERE state = 'valid' AND rows IS NOT NULL"),
            "1"
        );
        for (role, query) in [
            (superuser.as_str(), CHEAP),
            ("app", of_other_settings),
            ("other", of_other_role),
            ("app", declared),
        ] {
            // A result that no worker can keep is soon removed.
            assert_ne!(state(&mut admin, role, query), "valid", "{query} of {role}");
        }
    }
}

/// A tag that was invalidated, a flush, and a privilege that was revoked end the keeping until the role asks again.
#[test]
fn an_invalidation_ends_the_keeping() {
    let (cluster, mut admin) =
        start(100, "CREATE TABLE secret AS SELECT 1 AS v; GRANT SELECT ON secret TO app");
    let mut app = connect(&cluster, "app");
    let (tagged, secret) = ("SELECT count(*)::text AS n FROM t", "SELECT count(*) AS n FROM t, secret");
    count(&mut app, CHEAP);
    ask(&mut app, tagged, ", tags => '{tag}'");
    count(&mut app, secret);
    change(&mut admin, &[CHEAP, tagged, secret]);
    run(&mut app, "SELECT cache_invalidate_tag('tag')");
    assert_not_renewed(&mut admin, tagged, &[CHEAP, secret]);
    run(&mut admin, "REVOKE SELECT ON secret FROM app");
    assert_not_renewed(&mut admin, secret, &[CHEAP]);
    ask(&mut app, tagged, ", tags => '{tag}'");
    change(&mut admin, &[CHEAP, tagged]);
    // Without the privilege write, the worker stores nothing.
    run(
        &mut admin,
        "SELECT cache_revoke('default', 'public', 'write'), cache_grant('default', 'other', 'write')",
    );
    let mut other = connect(&cluster, "other");
    count(&mut other, CHEAP);
    for _ in 0..2 {
        run(&mut admin, "INSERT INTO t VALUES (0)");
        wait_valid(&mut admin, "other", CHEAP);
        assert_eq!(state(&mut admin, "app", CHEAP), OUTDATED);
    }
    run(&mut admin, "SELECT cache_grant('default', 'app', 'write')");
    count(&mut app, CHEAP);
    change(&mut admin, &[CHEAP]);
    run(&mut admin, "SELECT cache_flush('*')");
    count(&mut other, CHEAP);
    run(&mut admin, "INSERT INTO t VALUES (0)");
    wait_valid(&mut admin, "other", CHEAP);
    assert_ne!(state(&mut admin, "app", CHEAP), "valid");
}

/// A worker renews a result before it expires.
#[test]
fn a_result_does_not_expire() {
    let (cluster, mut admin) = start(100, "");
    let mut app = connect(&cluster, "app");
    // The worker begins three seconds before the end. A busy machine may run it too late.
    assert_in_an_attempt(|| {
        ask(&mut app, "SELECT 'x' AS n", ", ttl => '6 s'");
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(15) {
            let state = state(&mut admin, "app", "SELECT 'x' AS n");
            ensure(state == "valid", || format!("{state:?} after {:?}", began.elapsed()))?;
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(ask(&mut app, "SELECT 'x' AS n", ", ttl => '6 s'"), "x");
        let status = text(&mut app, "SELECT cache_status()");
        ensure(status == "hot", || status)
    });
}

/// A query that fails, or that ends its process, does not stop the renewal of other results. Its own result is renewed when the
/// query succeeds again.
#[test]
fn one_failure_stops_no_other_result() {
    let (cluster, mut admin) = start(
        100,
        "CREATE FUNCTION dies(bigint) RETURNS bigint STABLE LANGUAGE plpgsql AS $$ BEGIN
             IF $1 IN (12, 13) THEN PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(1); END IF; RETURN $1; END $$",
    );
    let mut app = connect(&cluster, "app");
    let (fails, dies) = ("SELECT 1 / (count(*) - 11) AS n FROM t", "SELECT dies(count(*)) AS n FROM t");
    [CHEAP, fails, dies].iter().for_each(|query| drop(count(&mut app, query)));
    // With eleven rows the first one fails, with twelve and thirteen the other one ends its process.
    change(&mut admin, &[CHEAP, dies]);
    assert_eq!(state(&mut admin, "app", fails), OUTDATED);
    for _ in 12..=13 {
        change(&mut admin, &[CHEAP, fails]);
        assert_eq!(state(&mut admin, "app", dies), OUTDATED);
    }
    change(&mut admin, &[CHEAP, fails, dies]);
    assert_eq!(findings(&mut admin), Vec::<String>::new());
}

/// After a clean restart, a worker keeps the results that the server has loaded.
#[test]
fn results_are_kept_after_a_restart() {
    let (cluster, mut admin) = start(100, "");
    let [mut app, mut other] = ["app", "other"].map(|role| connect(&cluster, role));
    count(&mut app, CHEAP);
    count(&mut other, CHEAP);
    drop((admin, app, other));
    cluster.restart(Stop::Fast, &conf());
    admin = cluster.connect("postgres");
    assert_eq!(state(&mut admin, "app", CHEAP), "valid", "it was loaded");
    for _ in 0..2 {
        change(&mut admin, &[CHEAP]);
        wait_valid(&mut admin, "other", CHEAP);
    }
}

/// `keep_warm => 0`, `enabled => false` and the end of the space end the keeping, and the worker leaves.
#[test]
fn keeping_ends_with_the_option() {
    let (cluster, mut admin) = start(100, "");
    run(&mut admin, "SELECT cache_create_space('s', keep_warm => 10), cache_grant('s', 'public', 'write')");
    let mut app = connect(&cluster, "app");
    let ask_in = |session: &mut Client| {
        text(session, &format!("SELECT * FROM cache_query('{CHEAP} WHERE true', space => 's') AS (n bigint)"))
    };
    let of_space = format!("{CHEAP} WHERE true");
    count(&mut app, CHEAP);
    ask_in(&mut app);
    change(&mut admin, &[CHEAP, &of_space]);
    run(&mut admin, "SELECT cache_alter_space('default', keep_warm => 0)");
    assert_not_renewed(&mut admin, CHEAP, &[&of_space]);
    let workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_cache warmer'";
    // A worker leaves after a minute, and another one follows.
    wait_until("a worker", || text(&mut admin, workers) == "1");
    run(&mut admin, "SELECT cache_drop_space('s')");
    wait_until("the end of the worker", || text(&mut admin, workers) == "0");
    run(&mut admin, "INSERT INTO t VALUES (0)");
    count(&mut app, CHEAP);
    assert_eq!(text(&mut admin, workers), "0");
    run(&mut admin, "SELECT cache_alter_space('default', keep_warm => 10)");
    count(&mut app, MIDDLE);
    change(&mut admin, &[MIDDLE]);
}

/// A result that comes back from a table is not kept, because a role that may write to all tables can have changed its query there.
#[test]
fn a_result_from_a_table_is_not_kept() {
    let conf = conf().set("pg_cache.table_size", "64MB");
    let hot = "SELECT cache_create_space('hot', keep_warm => 100, tiers => 'hot'), cache_grant('hot', 'public', 'write')";
    let (cluster, mut admin) = start_with(&conf, 100, hot);
    let mut app = connect(&cluster, "app");
    let saved = "SELECT count(*) + 1 AS n FROM t";
    let tiers = |tiers| format!("UPDATE pgcache.spaces SET tiers = '{tiers}' WHERE name = 'default'");
    run(&mut admin, &tiers("table"));
    wait_until("the result to be only in a table", || {
        count(&mut app, saved);
        text(&mut app, "SELECT cache_status()") == "hit: table"
    });
    run(&mut admin, &tiers("both"));
    count(&mut app, saved);
    // This space has never had tables. In the other one, a worker that does not know the new tiers yet could still move the result.
    text(&mut app, &format!("SELECT * FROM cache_query($q${CHEAP}$q$, space => 'hot') AS (n bigint)"));
    assert_not_renewed(&mut admin, saved, &[CHEAP]);
    count(&mut app, saved);
    change(&mut admin, &[saved, CHEAP]);
}

/// The planner computes constants in the predicates and expressions of indexes and statistics, as the role of the query. A worker
/// must not run such code of another role.
#[test]
fn the_planner_runs_no_code_of_an_index_or_statistics_of_another_role() {
    let (cluster, mut admin) = start(100, "");
    let [mut app, mut other] = ["app", "other"].map(|role| connect(&cluster, role));
    let objects = [
        "CREATE INDEX ON t0 (v) WHERE idx(1)",
        "CREATE INDEX ON t1 ((v + idx(1)::int), v)",
        "CREATE STATISTICS st ON (v + idx(1)::int), v FROM t2",
    ];
    let query = |at: usize| format!("SELECT count(*) AS n FROM t{at}");
    count(&mut app, CHEAP);
    for at in 0..objects.len() {
        run(&mut other, &format!("CREATE TABLE t{at} AS SELECT 1 AS v; GRANT SELECT ON t{at} TO app"));
        count(&mut app, &query(at));
    }
    run(
        &mut other,
        "CREATE FUNCTION idx(int) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS
             $$ BEGIN RAISE LOG 'idx runs as %', session_user; RETURN true; END $$",
    );
    for (at, object) in objects.into_iter().enumerate() {
        run(&mut other, object);
        run(&mut other, &format!("INSERT INTO t{at} VALUES (1)"));
        let query = query(at);
        let kept = format!("SELECT keep_warm FROM cache_queries WHERE role = 'app' AND query = '{query}'");
        wait_at_most(PATIENCE, "a look at the result", || {
            text(&mut admin, &kept).starts_with("not stored: an index")
        });
        assert_not_renewed(&mut admin, &query, &[CHEAP]);
    }
    assert!(!cluster.log().contains("idx runs as app"), "{}", cluster.log());
    // The role's own functions and those of superusers may run.
    run(&mut admin, "ALTER FUNCTION idx OWNER TO app");
    count(&mut app, &query(0));
    run(&mut other, "INSERT INTO t0 VALUES (1)");
    wait_valid(&mut admin, "app", &query(0));
}

/// While a worker waits for a lock, the owner of a view commits another definition of the view. The worker must not run it, also if
/// only a function reads the view.
#[test]
fn a_view_that_is_replaced_while_the_worker_waits_does_not_run() {
    let (cluster, mut admin) = start(
        100,
        "CREATE FUNCTION reads() RETURNS bigint STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT n FROM ev); END $$",
    );
    let [mut app, mut other] = ["app", "other"].map(|role| connect(&cluster, role));
    run(
        &mut other,
        "CREATE FUNCTION evv() RETURNS bigint STABLE LANGUAGE plpgsql AS
             $$ BEGIN RAISE LOG 'evv runs as %', session_user; RETURN 1; END $$;
         CREATE VIEW ev AS SELECT count(*) AS n FROM t; GRANT SELECT ON ev TO app",
    );
    for query in ["SELECT n FROM ev", "SELECT reads() AS n"] {
        count(&mut app, query);
        count(&mut app, CHEAP);
        change(&mut admin, &[query, CHEAP]);
        run(&mut other, "BEGIN; CREATE OR REPLACE VIEW ev AS SELECT count(*) + evv() AS n FROM t");
        run(&mut admin, "INSERT INTO t VALUES (0)");
        wait_at_most(PATIENCE, "the worker to wait", || {
            let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'ev'::regclass";
            text(&mut admin, waits) == "1"
        });
        run(&mut other, "COMMIT");
        assert_not_renewed(&mut admin, query, &[CHEAP]);
        run(&mut other, "CREATE OR REPLACE VIEW ev AS SELECT count(*) AS n FROM t");
    }
    assert!(!cluster.log().contains("evv runs as app"), "{}", cluster.log());
}

/// Dropped roles leave the list of the roles with warmers or kept results, so that there is room for other roles. If the list is
/// full, `cache_health` says so.
#[test]
fn dropped_roles_leave_room_for_others() {
    let (cluster, mut admin) = start(100, "");
    run(
        &mut admin,
        "SET client_min_messages = error; SET log_min_messages = error;
         DO $$ BEGIN FOR i IN 1..513 LOOP
             EXECUTE format('CREATE ROLE r%s', i);
             EXECUTE format('SET LOCAL ROLE r%s', i);
             PERFORM cache_warmer_add('w', 'SELECT 1');
             RESET ROLE;
         END LOOP; END $$",
    );
    let is_full =
        "SELECT count(*) FROM cache_health() WHERE finding = 'too many roles have warmers or kept results'";
    assert_eq!(text(&mut admin, is_full), "1");
    run(&mut admin, "DO $$ BEGIN FOR i IN 1..513 LOOP EXECUTE format('DROP ROLE r%s', i); END LOOP; END $$");
    wait_at_most(PATIENCE, "room in the list", || text(&mut admin, is_full) == "0");
    let mut app = connect(&cluster, "app");
    count(&mut app, CHEAP);
    change(&mut admin, &[CHEAP]);
    // The roles do not take turns any more, so the worker stays.
    let worker = "SELECT min(pid) FROM pg_stat_activity WHERE backend_type = 'pg_cache warmer'";
    wait_at_most(PATIENCE, "one worker for more than its turn", || {
        let before = text(&mut admin, worker);
        std::thread::sleep(Duration::from_secs(3));
        !before.is_empty() && before == text(&mut admin, worker)
    });
}

/// A result that no worker may renew takes no place among the results of the space, and the view does not say that it is kept. The
/// view also says why no worker can run.
#[test]
fn results_that_cannot_be_renewed_take_no_places() {
    let (cluster, mut admin) = start(1, "");
    let mut app = connect(&cluster, "app");
    let costly = format!("SELECT * FROM cache_query($q${COSTLY}$q$, tags => '{{mine}}') AS (n bigint)");
    text(&mut app, &costly);
    count(&mut app, CHEAP);
    change(&mut admin, &[COSTLY]);
    assert_eq!(state(&mut admin, "app", CHEAP), OUTDATED);
    run(&mut app, "SELECT cache_invalidate_tag('mine')");
    count(&mut app, CHEAP);
    change(&mut admin, &[CHEAP]);
    let kept = |admin: &mut Client, query: &str| {
        text(
            admin,
            &format!("SELECT keep_warm FROM cache_queries WHERE form <> '' AND query = $q${query}$q$"),
        )
    };
    assert_eq!([COSTLY, CHEAP].map(|query| kept(&mut admin, query)), ["", "kept"]);
    run(&mut admin, "SELECT cache_revoke('default', 'public', 'write')");
    let why = "waiting: the role lacks the privilege write in the space";
    assert_eq!(kept(&mut admin, CHEAP), why);
    run(&mut admin, "SELECT cache_grant('default', 'public', 'write')");
    assert_eq!(kept(&mut admin, CHEAP), "kept");
    run(&mut admin, "ALTER SYSTEM SET pg_cache.max_workers = 0");
    run(&mut admin, "SELECT pg_reload_conf()");
    wait_until("the view to know the setting", || kept(&mut admin, CHEAP).starts_with("waiting: "));
}

/// A worker stays for up to a minute after a run, and must not keep the advisory locks that a function of the query has taken.
#[test]
fn advisory_locks_end_with_the_run() {
    let (cluster, mut admin) = start(
        100,
        "CREATE FUNCTION locks() RETURNS bigint STABLE LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_lock(42); RETURN count(*) FROM t; END $$",
    );
    let mut app = connect(&cluster, "app");
    let query = "SELECT locks() AS n";
    count(&mut app, query);
    run(&mut app, "SELECT pg_advisory_unlock_all()");
    change(&mut admin, &[query]);
    let began = Instant::now();
    wait_until("the lock", || text(&mut app, "SELECT pg_try_advisory_lock(42)") == "t");
    assert!(began.elapsed() < Duration::from_secs(30), "the worker kept the lock for {:?}", began.elapsed());
}
