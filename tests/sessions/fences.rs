//! Tests of the fences of relations: each raised fence is lowered again, while commits wait for a standby and while sessions
//! are cancelled, terminated or killed. Also tests which results are not stored because no fence covers them, databases with a
//! reused OID, and which tables take a fence.
//!
//! A *fence* is a word in shared memory for each dependency of cached values, such as a table. A commit raises the fences of its
//! changes before these are visible, and lowers them afterwards. A value is a hit only while none of its fences is raised:
//! `docs/invalidation.md`. `findings` (`memory.rs`) reports fences that are raised.

use crate::memory::{cluster, findings};
use crate::transaction::get;
use pg_cache_testbed::{Cluster, Conf, wait_at_most, wait_until};
use postgres::Client;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The cache is small, because the tests check all of it many times. By default, sessions do not wait for a standby. A
/// session that sets `synchronous_commit = on` waits, because the standby does not exist. No value expires during a test.
fn conf() -> Conf {
    Conf::preloaded()
        .set("pg_cache.hot_size", "4MB")
        .set("pg_cache.fence_slots", "65536")
        .set("pg_cache.default_ttl", "1h")
        .set("synchronous_standby_names", "nobody")
        .set("synchronous_commit", "local")
}

/// Creates tables with one row each, and stores a value for each that depends on it, as [`fetch`] does.
fn tables(session: &mut Client, names: &[&str]) {
    for name in names {
        session.batch_execute(&format!("CREATE TABLE {name} AS SELECT 1 AS v")).expect("a table");
        fetch(session, name);
    }
}

/// Fetches column `v` of the table, with the table's name as the key.
pub fn fetch(session: &mut Client, table: &str) -> i32 {
    let query = format!("SELECT cache_fetch('{table}', 'SELECT v FROM {table}')::int");
    session.query_one(&query, &[]).expect("it fetches").get(0)
}

/// Returns whether the key is a hit.
pub fn is_cached(session: &mut Client, key: &str) -> bool {
    session.query_one("SELECT cache_exists($1)", &[&key]).expect("it looks").get(0)
}

/// Returns the process id of a session's backend.
fn process(session: &mut Client) -> i32 {
    session.query_one("SELECT pg_backend_pid()", &[]).expect("it lives").get(0)
}

/// While a commit waits, its change is not visible and its fence is raised. Values that depend on the changed table are misses
/// and cannot be stored. Values of other tables stay hits, and no other session waits. A cancel or a terminate ends only the
/// wait: the transaction is committed on this server. After a terminate, the client does not learn of that.
#[test]
fn no_other_session_waits_while_a_commit_waits_for_a_standby() {
    let cluster = cluster(&conf());
    let mut witness = cluster.connect("postgres");
    // A session that waits for the commit would wait for ever.
    witness.batch_execute("SET statement_timeout = '2 min'").expect("it is set");
    tables(&mut witness, &["a", "b"]);
    for (round, by) in (2..).zip(["pg_cancel_backend", "pg_terminate_backend"]) {
        let before = fetch(&mut witness, "a");
        assert!(is_cached(&mut witness, "a") && is_cached(&mut witness, "b"));
        let mut writer = cluster.connect("postgres");
        writer.batch_execute("SET synchronous_commit = on").expect("it is set");
        let number = process(&mut writer);
        let commit = std::thread::spawn(move || writer.batch_execute(&format!("UPDATE a SET v = {round}")));
        wait_until("the writer to wait", || {
            let query = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'";
            witness.query_one(query, &[&number]).expect("a view").get::<_, i64>(0) == 1
        });
        for _ in 0..3 {
            assert_eq!(fetch(&mut witness, "a"), before, "from the table, where the change is not visible");
            assert!(!is_cached(&mut witness, "a"), "and not kept");
            assert_eq!(fetch(&mut witness, "b"), 1);
            assert!(is_cached(&mut witness, "b"), "what it has not written is a hit");
        }
        assert_eq!(findings(&mut witness).len(), 1, "the fence is raised");
        // Other sessions commit meanwhile, also to the same tables, as far as row locks allow.
        witness
            .batch_execute("INSERT INTO b SELECT 1 WHERE false; INSERT INTO a SELECT 1 WHERE false")
            .expect("it writes");
        assert_eq!(fetch(&mut witness, "a"), before);
        assert!(!is_cached(&mut witness, "a"));
        witness.execute(&format!("SELECT {by}({number})"), &[]).expect("it is told to stop");
        let outcome = commit.join().expect("the thread ends");
        assert_eq!(outcome.is_ok(), by == "pg_cancel_backend", "it was committed here all the same");
        wait_until("nothing to be raised any more", || findings(&mut witness).is_empty());
        assert_eq!(fetch(&mut witness, "a"), round);
        assert!(is_cached(&mut witness, "a"));
        fetch(&mut witness, "b");
    }
}

/// `ALTER TABLE mid INHERIT top` locks the tables below `mid` only for reading. So a transaction may have written to them whose
/// commit still waits, and that commit has raised no fence of the new ancestor `top`. Values of `top` may be stored meanwhile.
/// When the waiting commit ends, it finds that a tree has grown, and changes the database's fence of trees. Every value that
/// depends on a table with children also depends on that fence (`src/store/watch.rs`), so all these values are invalidated.
#[test]
fn tables_written_by_a_waiting_commit_may_get_new_ancestors() {
    let cluster = cluster(&conf());
    let mut witness = cluster.connect("postgres");
    witness
        .batch_execute(
            "CREATE TABLE mid (v int); CREATE TABLE leaf () INHERITS (mid); CREATE TABLE top (v int);
             SELECT cache_watch('top')",
        )
        .expect("a tree");
    witness.batch_execute("SELECT cache_set_text('apart', 'v')").expect("it is stored");
    let count = |session: &mut Client| -> i32 {
        let query = "SELECT cache_fetch('count', 'SELECT count(*) FROM top')::int";
        session.query_one(query, &[]).expect("it counts").get(0)
    };
    let mut writer = cluster.connect("postgres");
    writer.batch_execute("INSERT INTO leaf VALUES (1)").expect("it writes");
    writer.batch_execute("SET synchronous_commit = on").expect("it is set");
    let number = process(&mut writer);
    let commit = std::thread::spawn(move || writer.batch_execute("INSERT INTO leaf VALUES (2)"));
    wait_until("the writer to wait", || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'";
        witness.query_one(query, &[&number]).expect("a view").get::<_, i64>(0) == 1
    });
    witness.batch_execute("ALTER TABLE mid INHERIT top").expect("it grows");
    assert!(is_cached(&mut witness, "apart"), "what depends on no table is a hit");
    assert_eq!(count(&mut witness), 1, "what the writer has written before");
    witness.batch_execute("SELECT cache_set_text('tagged', 'one', tags => '{top}')").expect("it is stored");
    assert!(is_cached(&mut witness, "count") && is_cached(&mut witness, "tagged"));
    witness.execute(&format!("SELECT pg_cancel_backend({number})"), &[]).expect("it is told to wait no more");
    commit.join().expect("the thread ends").expect("it has committed");
    assert_eq!(count(&mut witness), 2);
    assert!(!is_cached(&mut witness, "tagged"));
}

/// A generator of pseudo-random numbers, with Knuth's constants for 64 bits. A seed gives the same numbers in every run. The
/// lower bits of the state are not random enough, so `below` uses the upper ones.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The number of tables in the storm.
const MANY: u32 = 200;

/// Several writers write to up to `MANY` tables and are stopped at random moments: during the writes, during a check at
/// the commit, or while the commit waits for a standby. No fence may stay raised, and writes must invalidate afterwards. How long
/// the writes take on this machine decides when writers are stopped, and the storm goes on until enough of them were stopped and
/// enough have committed.
///
/// A transaction writes to 1, 16, 17 or `MANY` tables. Before PostgreSQL 18, a backend keeps the weak locks (up to ROW EXCLUSIVE)
/// of 16 relations in fast-path slots, and further ones in the main lock table. pg_cache reads both places (`src/pg/locks.rs`).
#[test]
fn a_storm_of_cancels_and_terminates_leaves_no_fence_raised() {
    const WRITERS: u64 = 4;
    /// The least number of rounds of a writer.
    const ROUNDS: u32 = 60;
    /// The least number of rounds that are stopped, and that commit, over all writers.
    const EACH_WAY: u32 = 21;
    const TIME_MAX: Duration = Duration::from_secs(300);
    let cluster = Arc::new(cluster(&conf()));
    let mut witness = cluster.connect("postgres");
    tables(&mut witness, &["calm"]);
    witness
        .batch_execute(&format!(
            "DO $$ BEGIN FOR i IN 1..{MANY} LOOP
                 EXECUTE format('CREATE TABLE w%s AS SELECT 0 AS v', i);
                 PERFORM cache_watch(format('w%s', i)::regclass);
             END LOOP; END $$"
        ))
        .expect("there are tables");
    witness
        .batch_execute(
            "CREATE FUNCTION write_to(n int) RETURNS void LANGUAGE plpgsql AS
             'BEGIN FOR i IN 1..n LOOP EXECUTE format(''INSERT INTO w%s VALUES (1)'', i); END LOOP; END'",
        )
        .expect("a function");
    // Values are stored after the watches, because a new watch invalidates the values with its tag.
    let store = "SELECT cache_set_text('calm tag', 'v', tags => '{calm}')";
    witness.batch_execute(store).expect("it is stored");
    fetch(&mut witness, "calm");
    // How many milliseconds two writes take on this machine: to the first tables, and to all. Timeouts are up to twice as long.
    let [few, all] = [17, MANY].map(|count| {
        let began = Instant::now();
        for _ in 0..2 {
            witness.batch_execute(&format!("SELECT write_to({count})")).expect("it writes");
        }
        began.elapsed().as_millis() as u64
    });
    let (few, all) = (few.max(15), all.max(60));
    let (left, waited) = (Arc::new(AtomicU32::new(WRITERS as u32)), Arc::new(AtomicU32::new(0)));
    // How many rounds failed or were stopped, and how many have committed.
    let counts = Arc::new([(); 2].map(|()| AtomicU32::new(0)));
    let is_enough =
        |counts: &[AtomicU32; 2]| counts.iter().all(|count| count.load(Ordering::Relaxed) >= EACH_WAY);
    let began = Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|seed| {
            let (cluster, left, waited) = (Arc::clone(&cluster), Arc::clone(&left), Arc::clone(&waited));
            let counts = Arc::clone(&counts);
            std::thread::spawn(move || {
                let mut dice = Dice(seed);
                let mut session = writer(&cluster);
                let mut rounds = 0;
                while rounds < ROUNDS || !is_enough(&counts) && began.elapsed() < TIME_MAX {
                    rounds += 1;
                    let count = [1, 16, 17, MANY][dice.below(4) as usize];
                    let timeout = 1 + dice.below(2 * if count == MANY { all } else { few });
                    let waits = if dice.below(2) == 0 { "on" } else { "local" };
                    waited.fetch_add(u32::from(waits == "on"), Ordering::Relaxed);
                    let level = if dice.below(2) == 0 { "SERIALIZABLE" } else { "READ COMMITTED" };
                    let mut run = |text: &str| session.batch_execute(text);
                    let outcome =
                        run(&format!("SET statement_timeout = {timeout}; SET synchronous_commit = {waits}"))
                            .and_then(|()| {
                                run(&format!("BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM w1"))
                            })
                            .and_then(|()| run(&format!("SELECT write_to({count})")))
                            .and_then(|()| run("COMMIT"));
                    counts[usize::from(outcome.is_ok())].fetch_add(1, Ordering::Relaxed);
                    if session.is_closed() || session.batch_execute("ROLLBACK").is_err() {
                        session = writer(&cluster);
                    }
                }
                left.fetch_sub(1, Ordering::Relaxed);
            })
        })
        .collect();
    let mut dice = Dice(99);
    while left.load(Ordering::Relaxed) > 0 {
        let by = ["pg_cancel_backend", "pg_terminate_backend"][dice.below(2) as usize];
        let stop = format!(
            "SELECT {by}(pid) FROM pg_stat_activity WHERE application_name = 'storm' ORDER BY random() LIMIT 1"
        );
        witness.batch_execute(&stop).expect("it is told");
        assert!(is_cached(&mut witness, "calm"), "a table without writes stays a hit");
        // The writers must be able to commit something in between.
        std::thread::sleep(Duration::from_millis(dice.below(few)));
    }
    writers.into_iter().for_each(|writer| writer.join().expect("the writer ends"));
    eprintln!("{:?} ended otherwise, {:?} committed, {waited:?} waited for a standby", counts[0], counts[1]);
    assert!(is_enough(&counts), "{counts:?}: it was no storm");
    wait_until("the end of all writers", || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'storm'";
        witness.query_one(query, &[]).expect("a view").get::<_, i64>(0) == 0
    });
    // A fence that stays raised is a leak. A session may leave the list of sessions before it has ended.
    wait_until("all fences to be lowered", || findings(&mut witness).is_empty());
    assert!(is_cached(&mut witness, "calm") && is_cached(&mut witness, "calm tag"));
    for count in [1, 16, 17, MANY] {
        let call = format!("SELECT cache_set_text('k', 'v', tags => '{{w{count}}}')");
        witness.batch_execute(&call).expect("it is stored");
        assert!(is_cached(&mut witness, "k"), "w{count} is a dependency as good as any");
        witness.batch_execute(&format!("SELECT write_to({count})")).expect("it writes");
        assert!(!is_cached(&mut witness, "k"), "w{count}");
    }
}

/// Opens a session of a writer.
fn writer(cluster: &Cluster) -> Client {
    let mut session = cluster.connect("postgres");
    // The test finds writers by this name. It may stop the session during this statement. After a terminate, the first round
    // fails. After a cancel, the session has no name and is not stopped from outside again.
    session.batch_execute("SET application_name = 'storm'").ok();
    session
}

/// A killed backend may have raised fences. The server must start with an empty cache, with no fence raised, and with writes that
/// invalidate.
#[test]
fn a_server_that_crashes_in_a_storm_of_commits_returns_with_an_empty_cache() {
    let cluster = Arc::new(cluster(&conf()));
    let mut witness = cluster.connect("postgres");
    tables(&mut witness, &["a", "calm"]);
    for round in 1..=3 {
        fetch(&mut witness, "calm");
        assert!(is_cached(&mut witness, "calm"));
        let over = Arc::new(AtomicBool::new(false));
        let commits = Arc::new(AtomicU32::new(0));
        let sessions: Vec<_> = (0..4).map(|_| cluster.connect("postgres")).collect();
        let mut processes = Vec::new();
        let writers: Vec<_> = sessions
            .into_iter()
            .map(|mut session| {
                processes.push(process(&mut session));
                let (over, commits) = (Arc::clone(&over), Arc::clone(&commits));
                std::thread::spawn(move || {
                    let write = "INSERT INTO a VALUES (2); SELECT cache_fetch('n', 'SELECT count(*) FROM a')";
                    while !over.load(Ordering::Relaxed) && session.batch_execute(write).is_ok() {
                        commits.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        wait_at_most(600, "many commits", || commits.load(Ordering::Relaxed) > 200 * round);
        cluster.kill(processes[round as usize]);
        wait_until("the end of all sessions", || witness.batch_execute("SELECT 1").is_err());
        over.store(true, Ordering::Relaxed);
        writers.into_iter().for_each(|writer| writer.join().expect("it ends"));
        wait_until("the server's return", || cluster.try_connect("postgres").is_ok());
        witness = cluster.connect("postgres");
        assert_eq!(get(&mut witness, "calm"), None, "it begins empty");
        let entries: i64 =
            witness.query_one("SELECT count(*) FROM cache_keys()", &[]).expect("it looks").get(0);
        assert_eq!(entries, 0);
        assert_eq!(findings(&mut witness), Vec::<String>::new());
        let pairs = "SELECT cache_fetch('n', 'SELECT count(*) FROM a')::bigint, (SELECT count(*) FROM a)";
        for _ in 0..2 {
            let row = witness.query_one(pairs, &[]).expect("it reads");
            assert_eq!(row.get::<_, i64>(0), row.get::<_, i64>(1));
            witness.batch_execute("INSERT INTO a VALUES (3)").expect("it writes");
            assert!(!is_cached(&mut witness, "n"));
        }
    }
}

/// Large objects and subscriptions hold data, not definitions. A change of their catalogs must not invalidate results of other
/// tables, as a change of definitions does.
#[test]
fn changes_of_large_objects_and_subscriptions_invalidate_no_other_values() {
    let cluster = cluster(&conf());
    let mut session = cluster.connect("postgres");
    tables(&mut session, &["calm"]);
    let fetch = |session: &mut Client, table: &str| -> i64 {
        let query = format!("SELECT cache_fetch('{table}', 'SELECT count(*) FROM {table}')::bigint");
        session.query_one(&query, &[]).expect("it fetches").get(0)
    };
    assert_eq!(fetch(&mut session, "pg_largeobject"), 0);
    session.batch_execute("SELECT lo_from_bytea(0, 'x')").expect("it is written");
    assert_eq!(fetch(&mut session, "pg_largeobject"), 1);
    assert!(is_cached(&mut session, "calm"));
    assert_eq!(fetch(&mut session, "pg_subscription"), 0);
    assert_eq!(fetch(&mut session, "pg_subscription_rel"), 0);
    let subscribe = "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (connect = false)";
    session.batch_execute(subscribe).expect("it is written down");
    assert_eq!(fetch(&mut session, "pg_subscription"), 1);
    assert!(is_cached(&mut session, "calm"));
}

/// No fence covers sequences, temporary and foreign tables, large objects that functions read, the extension's own tables and the
/// cache itself, and some catalogs. A result that read one of them must not be stored. With `depends`, it is stored, except if it
/// read a temporary table or the cache.
#[test]
fn results_that_read_objects_without_a_fence_are_not_stored() {
    let cluster = cluster(&conf());
    let mut session = cluster.connect("postgres");
    tables(&mut session, &["t"]);
    session
        .batch_execute(
            "CREATE SEQUENCE s; CREATE TEMP TABLE mine (v int); CREATE VIEW w AS SELECT v FROM t;
             CREATE TABLE whole (v int); CREATE TEMP TABLE part () INHERITS (whole); CREATE TABLE pgcache.ours (v int);
             CREATE FUNCTION object() RETURNS int STABLE LANGUAGE sql AS 'SELECT length(lo_get(4242))';
             CREATE FUNCTION keys() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM cache_keys()';
             CREATE FUNCTION counted() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT cache_incr(''n'', 0)';
             CREATE FUNCTION asked() RETURNS int STABLE LANGUAGE sql AS
                 'SELECT count(value)::int FROM cache_acquire(''new'', hold => NULL)';
             SELECT lo_from_bytea(4242, 'x')",
        )
        .expect("they are there");
    let far = [
        ("SELECT count(*)::int FROM far", "COPY (SELECT 2) TO PROGRAM 'cat >> far'"),
        ("SELECT count(*)::int FROM divided", "COPY (SELECT 2) TO PROGRAM 'cat >> far'"),
    ];
    let has_far = !cluster.server().lacks("file_fdw");
    if has_far {
        session
            .batch_execute(
                "CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
                 CREATE FOREIGN TABLE far (v int) SERVER files OPTIONS (program 'cat far');
                 CREATE TABLE divided (v int) PARTITION BY LIST (v);
                 CREATE FOREIGN TABLE far_part PARTITION OF divided DEFAULT SERVER files OPTIONS (program 'cat far');
                 COPY (SELECT 1) TO PROGRAM 'cat > far'",
            )
            .expect("they are there");
    }
    // Queries, and for each a change of what it reads.
    let near = [
        ("SELECT last_value::int FROM s", "SELECT nextval('s'), nextval('s')"),
        ("SELECT count(*)::int FROM mine", "INSERT INTO mine VALUES (1)"),
        ("SELECT count(*)::int FROM whole", "INSERT INTO part VALUES (1)"),
        ("SELECT length(lo_get(4242))", "SELECT lo_put(4242, 1, 'y')"),
        ("SELECT object()::int", "SELECT lo_unlink(4242), lo_from_bytea(4242, 'again')"),
        ("SELECT count(*)::int FROM pgcache.ours", "INSERT INTO pgcache.ours VALUES (1)"),
        ("SELECT count(*)::int FROM pgcache.spaces", "SELECT cache_create_space('one')"),
        ("SELECT count(*)::int FROM cache_spaces", "SELECT cache_create_space('two')"),
        ("SELECT count(*)::int FROM cache_watches", "SELECT cache_watch('t')"),
        ("SELECT keys()::int", "SELECT cache_set('new', '1')"),
        ("SELECT asked()::int", "SELECT cache_delete('new')"),
        ("SELECT counted()::int", "SELECT cache_incr('n')"),
        ("SELECT count(*)::int FROM pg_indexes", "CREATE INDEX ON t (v)"),
        ("SELECT count(*)::int FROM pg_largeobject_metadata", "SELECT lo_create(0)"),
        ("SELECT count(*)::int FROM pg_description", "COMMENT ON TABLE t IS 'a table'"),
    ];
    for (query, change) in near.into_iter().chain(far.into_iter().filter(|_| has_far)) {
        let fetch = format!("SELECT cache_fetch('q', '{query}')::int");
        let ask = |session: &mut Client, query: &str| -> i32 {
            session.query_one(query, &[]).expect("it reads").get(0)
        };
        for change in ["", change] {
            session.batch_execute(change).expect("it changes something");
            let fetched = ask(&mut session, &fetch);
            assert_eq!(fetched, ask(&mut session, query), "{query}");
            assert!(!is_cached(&mut session, "q"), "{query}");
        }
    }
    session.batch_execute("SELECT cache_fetch('w', 'SELECT v FROM w')").expect("it fetches");
    assert!(is_cached(&mut session, "w"), "a view is what it reads");
    let stated = "SELECT cache_fetch('stated', 'SELECT count(*) FROM pg_class', depends => '{}')";
    session.batch_execute(stated).expect("it fetches");
    assert!(is_cached(&mut session, "stated"), "depends names the dependencies");
}

/// The OID of a dropped database can be reused: after some billions of objects, or with `CREATE DATABASE ... OID`. The new
/// database must not find the values of the old one.
#[test]
fn a_database_with_a_reused_oid_finds_no_old_values() {
    let cluster = cluster(&conf());
    let mut session = cluster.connect("postgres");
    session.batch_execute("CREATE DATABASE twin").expect("a database");
    cluster.connect("twin").batch_execute("CREATE EXTENSION pg_cache").expect("the extension installs");
    for round in 0..2 {
        session.batch_execute("CREATE DATABASE again TEMPLATE twin OID 99999").expect("a database");
        let mut inside = cluster.connect("again");
        assert_eq!(get(&mut inside, "k"), None, "round {round}");
        inside.batch_execute("SELECT cache_set_text('k', '1')").expect("it sets");
        assert!(get(&mut inside, "k").is_some());
        drop(inside);
        session.batch_execute("DROP DATABASE again WITH (FORCE)").expect("it is dropped");
    }
}

/// The server has 8192 records for relations, each with its fences, and gives none to another relation while it runs. If each new
/// relation took one, the 900 tables of the procedure `come_and_go`, each with 8 indexes and a TOAST table with its index, would
/// use them all up. Then watched tables would share records with written ones, and their values would be invalidated. This takes a
/// minute, so this test runs only in the long run.
#[test]
fn tables_that_no_value_depends_on_take_no_fence() {
    if !std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty()) {
        return;
    }
    let cluster = cluster(&conf());
    let mut session = cluster.connect("postgres");
    session
        .batch_execute(
            "CREATE PROCEDURE come_and_go(kind text) LANGUAGE plpgsql AS $$ BEGIN
                 FOR i IN 1..450 LOOP
                     EXECUTE format('CREATE %s TABLE moment (a int UNIQUE, b int UNIQUE, c int UNIQUE, d int UNIQUE,
                         e int UNIQUE, f int UNIQUE, g int UNIQUE, t text UNIQUE)', kind);
                     IF kind = 'TEMP' THEN COMMIT; END IF;
                     DROP TABLE moment;
                     COMMIT;
                 END LOOP; END $$;
             CREATE PROCEDURE make(name text, count int) LANGUAGE plpgsql AS $$ BEGIN
                 FOR i IN 1..count LOOP EXECUTE format('CREATE TABLE %s_%s ()', name, i); END LOOP; END $$;
             CREATE PROCEDURE store() LANGUAGE plpgsql AS $$ BEGIN
                 FOR i IN 1..40 LOOP PERFORM cache_set('k' || i, '1', tags => ARRAY['t' || i]); END LOOP; END $$;
             CREATE PROCEDURE write() LANGUAGE plpgsql AS $$ BEGIN
                 FOR i IN 1..1000 LOOP EXECUTE format('INSERT INTO written_%s DEFAULT VALUES', i); COMMIT; END LOOP;
                 END $$",
        )
        .expect("procedures");
    for call in ["come_and_go('TEMP')", "come_and_go('')", "make('watched', 40)", "make('written', 1000)"] {
        session.batch_execute(&format!("CALL {call}")).expect(call);
    }
    let watch = "SELECT cache_watch(format('watched_%s', i)::regclass, ARRAY['t' || i]) FROM generate_series(1, 40) AS i";
    session.batch_execute(watch).expect("they are watched");
    session.batch_execute("CALL store()").expect("it sets");
    session.batch_execute("CALL write()").expect("it writes");
    let gone = "SELECT count(*) FROM generate_series(1, 40) AS i WHERE NOT cache_exists('k' || i)";
    assert_eq!(session.query_one(gone, &[]).expect("it looks").get::<_, i64>(0), 0, "innocents are gone");
}
