//! Tests of the identity of results: `cache_fetch` returns only what its own query with its own arguments returned,
//! whichever other queries use the same key at the same time. A *fill* is a call of `cache_fetch` that runs its query.

use pg_cache_testbed::{Database, wait_until};
use postgres::Client;
use postgres::error::SqlState;

/// Returns the single value of a query, which must not be null.
fn value<T: for<'v> postgres::types::FromSql<'v>>(session: &mut Client, query: &str) -> T {
    session.query_one(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
}

/// Returns the status of the session's last call.
fn status(session: &mut Client) -> String {
    value(session, "SELECT cache_status()")
}

/// The status of a fetch whose key holds the result of another query.
const OTHER: &str = "miss: the key holds the result of another query or of other arguments";

/// Two sessions fetch the same keys with their own arguments, while hits, misses and fills of both overlap. Each must get the
/// result of its own arguments.
#[test]
fn sessions_that_share_keys_get_their_own_arguments() {
    let database = Database::create();
    database.connect().batch_execute("CREATE TABLE t AS SELECT 1000 AS v").expect("a table");
    let fetching: Vec<_> = (1..=2)
        .map(|own: i64| {
            let mut session = database.connect();
            std::thread::spawn(move || {
                let call = session
                    .prepare(
                        "SELECT cache_fetch('k' || i % 3, 'SELECT v + $1::int FROM t', jsonb_build_array($1::bigint))::bigint,
                                cache_fetch('k' || i % 3, 'SELECT v + $1::int FROM t', jsonb_build_array($1::bigint))::bigint
                           FROM generate_series(1, 500) AS i",
                    )
                    .expect("it is prepared");
                for _ in 0..4 {
                    for row in session.query(&call, &[&own]).expect("it fetches") {
                        assert_eq!([row.get::<_, i64>(0), row.get::<_, i64>(1)], [1000 + own; 2]);
                    }
                }
            })
        })
        .collect();
    fetching.into_iter().for_each(|thread| thread.join().expect("every value is its own"));
    let faults: i64 = value(&mut database.connect(), "SELECT count(*) FROM cache_check()");
    assert_eq!(faults, 0);
}

/// While one session computes, a session with another query under the same key neither waits nor gets the first one's
/// result. A session that waits for the key itself gets it.
#[test]
fn a_fetch_does_not_wait_for_another_query_of_its_key() {
    let database = Database::create();
    let [mut gate, mut leader, mut other, mut waiter] = [(); 4].map(|()| database.connect());
    gate.batch_execute(
        "CREATE FUNCTION gated() RETURNS text STABLE LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN ''led''; END';
         SELECT pg_advisory_lock(1)",
    )
    .expect("a gate");
    let waits = |gate: &mut Client, event: &'static str, what: &str| {
        wait_until(what, || {
            let query = format!(
                "SELECT count(*) = 1 FROM pg_stat_activity
                  WHERE wait_event_type = '{event}' AND datname = current_database() AND backend_type = 'client backend'"
            );
            value(gate, &query)
        });
    };
    let leading = std::thread::spawn(move || {
        let led: String = value(&mut leader, "SELECT cache_fetch('k', 'SELECT gated()') #>> '{}'");
        (led, status(&mut leader))
    });
    waits(&mut gate, "Lock", "the leader to compute");
    let found: String = value(&mut other, "SELECT cache_fetch('k', 'SELECT ''other''') #>> '{}'");
    assert_eq!(found, "other");
    assert!(!value::<bool>(&mut other, "SELECT cache_exists('k')"), "only the leader stores its result");
    let waiting = std::thread::spawn(move || -> String {
        value(&mut waiter, "SELECT status || ' ' || value FROM cache_acquire('k', wait => '1 hour')")
    });
    waits(&mut gate, "Extension", "the waiter to wait");
    gate.batch_execute("SELECT pg_advisory_unlock(1)").expect("it opens");
    assert_eq!(leading.join().expect("it computes"), ("led".to_owned(), "miss: not there".to_owned()));
    assert_eq!(waiting.join().expect("it waits"), "hit \"led\"");
    let found: String = value(&mut other, "SELECT cache_fetch('k', 'SELECT ''other''') #>> '{}'");
    assert_eq!((found.as_str(), status(&mut other).as_str()), ("other", OTHER));
}

/// A fetch never returns a value that was set: neither one that was set under a lease (`cache_acquire`) nor one that may be served
/// stale.
#[test]
fn values_of_leases_and_stale_values_are_not_fetched() {
    let database = Database::create();
    let mut session = database.connect();
    let lease: i64 = value(&mut session, "SELECT lease FROM cache_acquire('k')");
    let fetch = "SELECT cache_fetch('k', 'SELECT 1')::int";
    assert_eq!(value::<i32>(&mut session, fetch), 1);
    assert!(!value::<bool>(&mut session, &format!("SELECT cache_set('k', '2', lease => {lease})")));
    assert_eq!((value::<i32>(&mut session, fetch), status(&mut session).as_str()), (1, "hot"));
    session.batch_execute("SELECT cache_delete('k')").expect("it is deleted");
    let lease: i64 = value(&mut session, "SELECT lease FROM cache_acquire('k')");
    let set = format!("SELECT cache_set('k', '2', tags => '{{t}}', stale_ok => '1 h', lease => {lease})");
    assert!(value::<bool>(&mut session, &set));
    session.batch_execute("SELECT cache_invalidate_tag('t')").expect("it is invalidated");
    assert_eq!(value::<String>(&mut session, "SELECT status FROM cache_acquire('k', hold => NULL)"), "stale");
    assert_eq!(value::<i32>(&mut session, fetch), 1);
    let found: String = value(&mut session, "SELECT status || ' ' || value FROM cache_acquire('k')");
    assert_eq!(found, "hit 1");
}

/// A function of the query fetches the key that is being fetched. Both calls must return their own results. A result that used
/// the cache is not stored. An endless recursion must end in the server's error for a stack that is too deep.
#[test]
fn a_query_may_fetch_its_own_key() {
    let database = Database::create();
    let mut session = database.connect();
    session
        .batch_execute(
            "CREATE FUNCTION inner_one() RETURNS int STABLE LANGUAGE plpgsql AS
                 $$ BEGIN RETURN cache_fetch('k', 'SELECT 1')::int; END $$;
             CREATE FUNCTION endless() RETURNS int STABLE LANGUAGE plpgsql AS
                 $$ BEGIN RETURN cache_fetch('k', 'SELECT endless()')::int; END $$",
        )
        .expect("functions");
    for _ in 0..2 {
        assert_eq!(value::<i32>(&mut session, "SELECT cache_fetch('k', 'SELECT 10 + inner_one()')::int"), 11);
        assert!(status(&mut session).starts_with("refused: the query "));
        assert!(!value::<bool>(&mut session, "SELECT cache_exists('k')"));
    }
    let error = session.query("SELECT cache_fetch('k', 'SELECT endless()')", &[]).expect_err("it has no end");
    assert_eq!(error.code(), Some(&SqlState::STATEMENT_TOO_COMPLEX), "{error:?}");
    assert_eq!(value::<i32>(&mut session, "SELECT cache_fetch('k', 'SELECT 1')::int"), 1);
    assert_eq!(value::<i64>(&mut session, "SELECT count(*) FROM cache_check()"), 0);
}

/// Each call returns the result of its own arguments: in a loop of dynamic SQL whose errors are caught, and in parallel workers.
#[test]
fn identities_hold_in_loops_of_dynamic_sql_and_in_parallel_queries() {
    let database = Database::create();
    let mut session = database.connect();
    session
        .batch_execute(
            "CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) AS i; ANALYZE t;
             CREATE FUNCTION loops() RETURNS text LANGUAGE plpgsql AS $$
             DECLARE found int; failed int := 0; place text;
             BEGIN
                 FOR i IN 1 .. 1000 LOOP
                     BEGIN
                         EXECUTE 'SELECT cache_fetch($1, $2, $3)::int' INTO found
                             USING 'k', 'SELECT 100 / ($1::int % 5)', jsonb_build_array(i);
                         ASSERT found = 100 / (i % 5), i;
                     EXCEPTION WHEN division_by_zero THEN
                         failed := failed + 1;
                         GET STACKED DIAGNOSTICS place = PG_EXCEPTION_CONTEXT;
                         ASSERT place LIKE '%query of cache_fetch, key \"k\"%', place;
                         ASSERT length(place) < 1000, place;
                     END;
                 END LOOP;
                 RETURN failed || ' ' || cache_get('k');
             END $$;
             CREATE FUNCTION fetches(i int) RETURNS int PARALLEL SAFE COST 10000 LANGUAGE plpgsql AS
                 $$ BEGIN RETURN cache_fetch('p', 'SELECT $1::int', jsonb_build_array(i))::int; END $$;
             SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0",
        )
        .expect("functions");
    // The last value that was computed is that of 999.
    assert_eq!(value::<String>(&mut session, "SELECT loops()"), "200 25");
    assert_eq!(value::<i32>(&mut session, "SELECT cache_fetch('p', 'SELECT $1::int', '[7]')::int"), 7);
    let plan: String = session
        .query("EXPLAIN (COSTS OFF) SELECT sum(fetches(i)), sum(i) FROM t", &[])
        .expect("it explains")
        .iter()
        .map(|row| row.get::<_, String>(0))
        .collect();
    assert!(plan.contains("Gather"), "{plan}");
    let row = session.query_one("SELECT sum(fetches(i)), sum(i) FROM t", &[]).expect("it fetches");
    assert_eq!(row.get::<_, i64>(0), row.get::<_, i64>(1));
}

/// A fetch whose result is refused because another session has set the key meanwhile must leave that newer value.
#[test]
fn a_refused_fetch_leaves_the_newer_value_of_another_session() {
    let database = Database::create();
    let [mut gate, mut fetching] = [(); 2].map(|()| database.connect());
    gate.batch_execute(
        "CREATE FUNCTION gated() RETURNS text STABLE LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN ''older''; END';
         SELECT pg_advisory_lock(1)",
    )
    .expect("a gate");
    let fetch = std::thread::spawn(move || {
        let found: String =
            value(&mut fetching, "SELECT cache_fetch('k', 'SELECT gated()', depends => '{}') #>> '{}'");
        (found, status(&mut fetching))
    });
    wait_until("the query to run", || {
        let query = "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
        value(&mut gate, query)
    });
    gate.batch_execute("SELECT cache_set('k', '\"newer\"')").expect("it is set");
    gate.batch_execute("SELECT pg_advisory_unlock(1)").expect("the gate opens");
    let (found, status) = fetch.join().expect("it fetches");
    assert_eq!((&*found, &*status), ("older", "refused: another session has changed the key meanwhile"));
    assert_eq!(value::<String>(&mut gate, "SELECT cache_get('k') #>> '{}'"), "newer");
}
