//! Tests of logical replication: the subscriber's apply workers execute no statements, but their changes must invalidate values
//! like any other commit. Values that depend on other tables must stay hits. A *fence* is a word in shared memory that says when
//! something that values depend on last changed (`docs/invalidation.md`). A transaction *raises* the fences of what it has changed
//! before its changes become visible, and lowers them afterwards. Values with a raised fence are misses.

use crate::memory::{cluster, findings};
use crate::transaction::get;
use pg_cache_testbed::{Cluster, Conf, Server, Stop, wait_at_most, wait_until};
use postgres::Client;
use postgres::error::SqlState;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// Creates the table on each of the two servers.
const TABLES: &str = "CREATE TABLE t (id int PRIMARY KEY, v int)";

/// A query that returns the content of `t`, summarized.
const TRUTH: &str = "SELECT count(*) || ' of ' || coalesce(sum(v), 0) FROM t";

/// The settings of the subscriber. The cache is small, because the tests check all of it many times. No value expires during a
/// test.
fn conf() -> Conf {
    Conf::preloaded()
        .set("pg_cache.hot_size", "4MB")
        .set("pg_cache.fence_slots", "65536")
        .set("pg_cache.default_ttl", "1h")
}

/// Two servers, each with a superuser's session. The publisher (session `source`) publishes its table `t`. The subscriber
/// (session `target`) has pg_cache, the same table, and the table `outside`, which is not replicated.
struct Pair {
    publisher: Cluster,
    subscriber: Cluster,
    source: Client,
    target: Client,
}

impl Pair {
    /// Starts both servers, without a subscription.
    fn start() -> Self {
        Self::start_with(&Conf::bare())
    }

    /// Does the same with these settings of the publisher.
    fn start_with(publisher: &Conf) -> Self {
        let (publisher, subscriber) = (Cluster::start(publisher), cluster(&conf()));
        let [mut source, mut target] = [&publisher, &subscriber].map(|cluster| cluster.connect("postgres"));
        source.batch_execute(TABLES).expect("a table");
        source.batch_execute("CREATE PUBLICATION p FOR TABLE t").expect("it is published");
        target.batch_execute(TABLES).expect("a table");
        target
            .batch_execute("CREATE TABLE outside AS SELECT 7 AS v; SELECT cache_watch('t', '{t}')")
            .expect("it is there");
        Self { publisher, subscriber, source, target }
    }

    /// Creates the subscription with these options.
    fn subscribe(&mut self, options: &str) {
        let from = self.publisher.socket_dir().display();
        let subscription = format!(
            "CREATE SUBSCRIPTION s CONNECTION 'host={from} user=postgres dbname=postgres' PUBLICATION p
             WITH ({options})"
        );
        self.target.batch_execute(&subscription).expect("it subscribes");
    }

    /// Waits until each table is in the state `r` (ready): copied, and applied by the subscription's main worker.
    fn until_copied(&mut self) {
        wait_until("the first copy of the tables", || {
            let query = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'";
            self.target.query_one(query, &[]).expect("a catalog").get::<_, i64>(0) == 0
        });
    }

    /// Runs statements at the publisher, each in a message of its own.
    fn publish(&mut self, change: &str) {
        for statement in change.split("; ") {
            self.source.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    }

    /// Returns the major version of both servers.
    fn major(&self) -> u32 {
        self.subscriber.server().major()
    }

    /// Returns the content of the subscriber's table, as a statement sees it now.
    fn truth(&mut self) -> String {
        self.target.query_one(TRUTH, &[]).expect("it reads").get(0)
    }

    /// Returns the same through `cache_fetch`.
    fn fetched(&mut self) -> String {
        let fetch = "SELECT cache_fetch('fetched', $1) #>> '{}'";
        self.target.query_one(fetch, &[&TRUTH]).expect("it fetches").get(0)
    }

    /// Returns whether the key is a hit at the subscriber.
    fn is_cached(&mut self, key: &str) -> bool {
        self.target.query_one("SELECT cache_exists($1)", &[&key]).expect("it looks").get(0)
    }

    /// Stores values that depend on `t`, with `cache_fetch` and with a tag, and one that depends on `outside` only. An apply worker
    /// lowers its fences a moment after its changes are visible, and what was stored before that is no hit. So all of it is
    /// repeated.
    fn fill(&mut self) {
        wait_until("the values to be stored", || {
            if !self.is_cached("tagged") {
                let tagged = "SELECT cache_set_text('tagged', 'old', tags => '{t}')";
                self.target.batch_execute(tagged).expect("it is stored");
            }
            self.fetched();
            self.fetch_outside();
            ["fetched", "tagged", "outside"].iter().all(|key| self.is_cached(key))
        });
    }

    /// Stores the value that depends on `outside` only, unless it is stored.
    fn fetch_outside(&mut self) {
        let outside = "SELECT cache_fetch('outside', 'SELECT sum(v) FROM outside')";
        self.target.batch_execute(outside).expect("it fetches");
    }

    /// Reads until the subscriber's table has the publisher's content. Asserts that no value is older than the table's
    /// content before the read, and that the value of `outside` stays.
    fn follow(&mut self, change: &str) {
        let wanted: String = self.source.query_one(TRUTH, &[]).expect("it reads").get(0);
        wait_until(change, || {
            let before = self.truth();
            let tagged = get(&mut self.target, "tagged");
            let fetched = self.fetched();
            let after = self.truth();
            assert!(fetched == before || fetched == after, "{change}: {fetched} after {before}");
            assert!(tagged.is_none() || before != wanted, "{change}: what was tagged is there");
            after == wanted
        });
        assert_eq!(self.fetched(), wanted, "{change}");
        assert!(!self.is_cached("tagged"), "{change}");
        assert!(self.is_cached("outside"), "{change}: the value of another table was invalidated");
    }

    /// Returns the number of prepared transactions at the subscriber.
    fn prepared(&mut self) -> i64 {
        self.target.query_one("SELECT count(*) FROM pg_prepared_xacts", &[]).expect("a view").get(0)
    }

    /// Waits until `cache_check` reports no raised fence.
    fn until_quiet(&mut self) {
        wait_until("nothing to be raised any more", || findings(&mut self.target).is_empty());
    }
}

/// A worker of its own copies the table when the subscription begins. Its commit must invalidate.
#[test]
fn the_initial_copy_of_a_table_invalidates() {
    let mut pair = Pair::start();
    pair.publish("INSERT INTO t SELECT i, i FROM generate_series(1, 1000) AS i");
    pair.fill();
    assert_eq!(pair.fetched(), "0 of 0");
    pair.subscribe("copy_data = true");
    pair.follow("the copy");
    pair.until_copied();
    pair.until_quiet();
}

/// The main worker of the subscription applies each kind of change. Its commits must invalidate.
#[test]
fn applied_changes_invalidate() {
    let mut pair = Pair::start();
    // Since PostgreSQL 17, the slot of a subscription may be one that is copied to standbys.
    pair.subscribe(if pair.major() < 17 { "copy_data = true" } else { "copy_data = true, failover = true" });
    pair.until_copied();
    for change in [
        "INSERT INTO t VALUES (1, 1), (2, 2)",
        "UPDATE t SET v = 3 WHERE id = 1",
        "DELETE FROM t WHERE id = 2",
        "BEGIN; INSERT INTO t VALUES (5, 5); SAVEPOINT s; UPDATE t SET v = 9; ROLLBACK TO s; COMMIT",
        "TRUNCATE t",
        "INSERT INTO t SELECT i, 1 FROM generate_series(1, 5000) AS i",
    ] {
        pair.fill();
        pair.publish(change);
        pair.follow(change);
    }
    pair.until_quiet();
}

/// The publisher sends a large transaction before it has ended. The subscriber keeps it in a file and applies it at the commit,
/// which must invalidate.
#[test]
fn streamed_transactions_invalidate() {
    streamed_changes_invalidate("on");
}

/// Since PostgreSQL 16, the subscriber may apply a large transaction in a parallel worker while the publisher still sends it. The
/// commit of this worker must invalidate values. The same holds if the worker prepares the transaction, and the main worker ends
/// it.
#[test]
fn transactions_that_a_parallel_worker_applies_invalidate() {
    if Server::from_env().major() < 16 {
        return;
    }
    let mut pair = streamed_changes_invalidate("parallel, two_phase = true");
    wait_until("two phases", || {
        let query = "SELECT subtwophasestate = 'e' FROM pg_subscription";
        pair.target.query_one(query, &[]).expect("a catalog").get(0)
    });
    let parallel = "SELECT count(*) FROM pg_stat_subscription WHERE leader_pid IS NOT NULL";
    let count: i64 = pair.target.query_one(parallel, &[]).expect("a view").get(0);
    assert!(count > 0, "no parallel worker has applied anything, which proves nothing");
    for end in ["ROLLBACK PREPARED 'x'", "COMMIT PREPARED 'x'"] {
        let before = pair.truth();
        pair.fill();
        pair.publish("BEGIN; UPDATE t SET v = v + 10; PREPARE TRANSACTION 'x'");
        wait_until("it to be prepared", || pair.prepared() == 1);
        assert_eq!(pair.fetched(), before, "nothing of it is visible");
        assert!(!pair.is_cached("fetched") && !pair.is_cached("tagged") && pair.is_cached("outside"));
        pair.publish(end);
        pair.follow(end);
        wait_until("its end", || pair.prepared() == 0);
        pair.until_quiet();
    }
}

/// Applies large transactions to a subscription with this value of its option `streaming`, and returns the servers.
fn streamed_changes_invalidate(streaming: &str) -> Pair {
    let mut pair = Pair::start_with(&Conf::bare().set("logical_decoding_work_mem", "64kB"));
    pair.subscribe(&format!("streaming = {streaming}"));
    pair.until_copied();
    for change in [
        "INSERT INTO t SELECT i, 1 FROM generate_series(1, 5000) AS i",
        "BEGIN; SAVEPOINT s; UPDATE t SET v = 2; RELEASE s; SAVEPOINT s; UPDATE t SET v = 3; ROLLBACK TO s; COMMIT",
    ] {
        pair.fill();
        pair.publish(change);
        pair.follow(change);
    }
    pair.until_quiet();
    pair
}

/// The apply worker locks a table as a writer before it looks for the row, and a trigger at the subscriber may run statements that
/// find no row. If no row of the table changes, the values that depend on it must stay hits. A change of one row must invalidate
/// the values of this row, and of the whole table, and no values of other rows.
#[test]
fn applied_transactions_that_change_no_row_invalidate_nothing() {
    const KEYS: [&str; 5] = ["fetched", "tagged", "outside", "row:1", "row:3"];
    let mut pair = Pair::start();
    pair.source
        .batch_execute("CREATE TABLE noise (id int PRIMARY KEY); ALTER PUBLICATION p ADD TABLE noise")
        .expect("another table");
    pair.target
        .batch_execute(
            "CREATE TABLE noise (id int PRIMARY KEY); CREATE TABLE to_do (statement text);
             CREATE FUNCTION run_all() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS
                 'DECLARE s text; BEGIN FOR s IN SELECT statement FROM to_do LOOP EXECUTE s; END LOOP; RETURN NULL; END';
             CREATE TRIGGER run_all AFTER INSERT ON noise FOR EACH ROW EXECUTE FUNCTION run_all();
             ALTER TABLE noise ENABLE ALWAYS TRIGGER run_all;
             SELECT cache_watch('t', ARRAY['row:{id}'])",
        )
        .expect("a trigger");
    pair.subscribe("copy_data = true");
    pair.until_copied();
    pair.publish("INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)");
    wait_until("the rows", || pair.truth() == "3 of 6");
    // The publisher still has this row.
    pair.target.batch_execute("DELETE FROM t WHERE id = 2").expect("it is deleted");
    let all = [true; 5];
    let cases: [(&str, &[&str], &str, [bool; 5]); 8] = [
        ("nothing else", &[], "", all),
        (
            "rows that the subscriber lacks",
            &[],
            "UPDATE t SET v = 9 WHERE id = 2; DELETE FROM t WHERE id = 2",
            all,
        ),
        (
            "statements that find no row",
            &[
                "UPDATE t SET v = 9 WHERE id = 99",
                "DELETE FROM t WHERE false",
                "INSERT INTO t VALUES (1, 9) ON CONFLICT DO NOTHING",
                "UPDATE outside SET v = 9 WHERE false",
            ],
            "",
            all,
        ),
        ("a row of the other table", &["UPDATE outside SET v = v + 1"], "", [true, true, false, true, true]),
        ("one row", &[], "UPDATE t SET v = 9 WHERE id = 1", [false, false, true, false, true]),
        (
            "one row, by a trigger",
            &["UPDATE t SET v = v + 1 WHERE id = 3"],
            "",
            [false, false, true, true, false],
        ),
        (
            "a savepoint that is rolled back",
            &[
                "DO 'BEGIN UPDATE t SET v = 99; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN NULL; END'",
            ],
            "",
            all,
        ),
        ("all rows", &[], "TRUNCATE t", [false, false, true, false, false]),
    ];
    for (number, (what, by_trigger, change, hits)) in cases.iter().enumerate() {
        pair.target.batch_execute("TRUNCATE to_do").expect("it is emptied");
        for statement in *by_trigger {
            pair.target.execute("INSERT INTO to_do VALUES ($1)", &[statement]).expect("it is stored");
        }
        pair.until_quiet();
        pair.fill();
        for row in ["row:1", "row:3"] {
            wait_until("a value of a row", || {
                let set = "SELECT cache_set_text($1, 'v', tags => ARRAY[$1])";
                pair.target.query_one(set, &[&row]).expect("it is set");
                pair.is_cached(row)
            });
        }
        assert_eq!(KEYS.map(|key| pair.is_cached(key)), all, "before {what}");
        // One transaction, with a change of a table on which nothing depends.
        pair.publish(
            &format!("BEGIN; INSERT INTO noise VALUES ({number}); {change}; COMMIT").replace("; ; ", "; "),
        );
        wait_until(what, || {
            let query = "SELECT count(*) FROM noise";
            pair.target.query_one(query, &[]).expect("it reads").get::<_, i64>(0) == number as i64 + 1
        });
        assert_eq!(KEYS.map(|key| pair.is_cached(key)), *hits, "after {what}");
        pair.until_quiet();
        assert_eq!(KEYS.map(|key| pair.is_cached(key)), *hits, "after {what}, when all is quiet");
        let truth = pair.truth();
        assert_eq!(pair.fetched(), truth, "after {what}");
    }
}

/// A session writes at the publisher, burst after burst, and another reads at the subscriber. No value may be older than the
/// table's content before the read. After each burst, the writer waits until the reader has had a hit with the last change. So
/// changes arrive between hits and while values are stored, on fast and on slow machines.
#[test]
fn no_reader_gets_a_stale_value_while_changes_stream_in() {
    const BURSTS: i32 = 12;
    const ROUNDS: i32 = 50;
    let mut pair = Pair::start();
    pair.publish("INSERT INTO t VALUES (1, 0)");
    pair.subscribe("copy_data = true");
    pair.until_copied();
    wait_until("the value of another table to be stored", || {
        pair.fetch_outside();
        pair.is_cached("outside")
    });
    let mut source = pair.publisher.connect("postgres");
    // The greatest value of a hit.
    let seen = Arc::new(AtomicI32::new(-1));
    let of_reader = Arc::clone(&seen);
    let writer = std::thread::spawn(move || {
        for burst in 1..=BURSTS {
            for _ in 0..ROUNDS {
                source.batch_execute("UPDATE t SET v = v + 1").expect("it writes");
            }
            wait_until("a hit with the last change", || of_reader.load(Ordering::SeqCst) == burst * ROUNDS);
        }
    });
    let number = |session: &mut Client, query: &str| -> i32 {
        session.query_one(query, &[]).expect("it reads").get::<_, Option<i32>>(0).unwrap_or(-1)
    };
    let (mut reads, mut hits, mut outside, mut last) = (0, 0, 0, 0);
    wait_at_most(600, "all of it", || {
        for _ in 0..20 {
            let before = number(&mut pair.target, "SELECT v FROM t");
            let hit = number(&mut pair.target, "SELECT cache_get('v')::int");
            hits += i32::from(hit >= 0);
            seen.fetch_max(hit, Ordering::SeqCst);
            let fetched = number(&mut pair.target, "SELECT cache_fetch('v', 'SELECT v FROM t')::int");
            last = number(&mut pair.target, "SELECT v FROM t");
            assert!((before..=last).contains(&fetched), "{fetched} is not from {before} to {last}");
            outside += number(&mut pair.target, "SELECT cache_exists('outside')::int");
            reads += 1;
        }
        seen.load(Ordering::SeqCst) == BURSTS * ROUNDS
    });
    writer.join().expect("it has written");
    assert_eq!(last, BURSTS * ROUNDS);
    assert_eq!(outside, reads, "the value of another table was not always a hit");
    assert!(hits >= BURSTS, "too little was cached, which proves nothing");
    pair.until_quiet();
}

/// The apply worker prepares and commits without commands, so no statement tells the cache of the transaction's end. From the
/// preparation to the end, the transaction's fences must be raised, also across a restart. The end must lower them.
#[test]
fn a_two_phase_transaction_invalidates_when_it_ends() {
    let mut pair = Pair::start();
    pair.subscribe("two_phase = true");
    pair.until_copied();
    wait_until("two phases", || {
        let query = "SELECT subtwophasestate = 'e' FROM pg_subscription";
        pair.target.query_one(query, &[]).expect("a catalog").get(0)
    });
    pair.publish("INSERT INTO t VALUES (1, 1)");
    wait_until("the row", || pair.truth() == "1 of 1");
    for (end, restart) in [
        ("COMMIT PREPARED 'x'", None),
        ("ROLLBACK PREPARED 'x'", None),
        ("COMMIT PREPARED 'x'", Some(Stop::Fast)),
        ("COMMIT PREPARED 'x'", Some(Stop::Immediate)),
        ("ROLLBACK PREPARED 'x'", Some(Stop::Immediate)),
    ] {
        let before = pair.truth();
        pair.fill();
        pair.publish("BEGIN; UPDATE t SET v = v + 1; PREPARE TRANSACTION 'x'");
        wait_until("it to be prepared", || pair.prepared() == 1);
        if let Some(stop) = restart {
            pair.subscriber.stop(stop);
            pair.subscriber.resume();
            pair.target = pair.subscriber.connect("postgres");
            pair.fetch_outside();
            // After the restart, pg_cache first finds out which tables the prepared transaction has written. Nothing is
            // applied before.
            wait_until("the subscription to go on", || !findings(&mut pair.target).is_empty());
        }
        assert_eq!(pair.fetched(), before, "nothing of it is visible");
        assert!(!pair.is_cached("fetched") && pair.is_cached("outside"));
        // Other sessions commit meanwhile, and must not lower the transaction's fences.
        pair.target.batch_execute("INSERT INTO outside VALUES (8)").expect("it writes");
        pair.fetch_outside();
        assert_eq!(findings(&mut pair.target).len(), 1, "what it has written is raised");
        pair.publish(end);
        pair.follow(end);
        wait_until("its end", || pair.prepared() == 0);
        // The apply worker lowers the fences itself, without help of another session.
        pair.until_quiet();
        pair.fill();
    }
}

/// A trigger at the subscriber changes the cache inside the applied transaction. The changes must take effect when the
/// transaction ends: through the apply worker, also after a clean restart, or through another session.
#[test]
fn a_two_phase_transaction_may_change_the_cache() {
    let mut pair = Pair::start();
    pair.target
        .batch_execute(
            "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM public.cache_invalidate_tag(''t''), public.cache_set_text(''key'', ''new''); RETURN NEW; END';
             CREATE TRIGGER note AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION note();
             ALTER TABLE t ENABLE ALWAYS TRIGGER note",
        )
        .expect("a trigger");
    pair.subscribe("two_phase = true");
    pair.until_copied();
    wait_until("two phases", || {
        let query = "SELECT subtwophasestate = 'e' FROM pg_subscription";
        pair.target.query_one(query, &[]).expect("a catalog").get(0)
    });
    pair.target.batch_execute("SELECT cache_set_text('key', 'old')").expect("it is stored");
    pair.publish("BEGIN; INSERT INTO t VALUES (1, 1); PREPARE TRANSACTION 'x'");
    wait_until("it to be prepared", || pair.prepared() == 1);
    pair.publish("COMMIT PREPARED 'x'");
    wait_until("it to be applied", || pair.truth() == "1 of 1");
    assert_eq!(get(&mut pair.target, "key"), None);
    pair.until_quiet();
    // A clean restart keeps what is known of the prepared transaction.
    pair.target.batch_execute("SELECT cache_set_text('key', 'old', '1 hour')").expect("it is stored");
    pair.publish("BEGIN; INSERT INTO t VALUES (5, 0); PREPARE TRANSACTION 'x'");
    wait_until("it to be prepared", || pair.prepared() == 1);
    pair.subscriber.stop(Stop::Fast);
    pair.subscriber.resume();
    pair.target = pair.subscriber.connect("postgres");
    assert!(!findings(&mut pair.target).is_empty(), "its fences are not raised");
    pair.target.batch_execute("SELECT cache_set_text('tagged', 'old', tags => '{t}')").expect("it is stored");
    pair.publish("COMMIT PREPARED 'x'");
    wait_until("it to be applied", || pair.truth() == "2 of 1");
    assert_eq!(["key", "tagged"].map(|key| get(&mut pair.target, key)), [None, None]);
    pair.until_quiet();
    // Now another session ends the prepared transaction by its name.
    pair.target.batch_execute("SELECT cache_set_text('key', 'old')").expect("it is stored");
    pair.publish("BEGIN; INSERT INTO t VALUES (2, 2); PREPARE TRANSACTION 'x'");
    wait_until("it to be prepared", || pair.prepared() == 1);
    let gid: String = pair.target.query_one("SELECT gid FROM pg_prepared_xacts", &[]).expect("a view").get(0);
    // The view shows the transaction a moment before the apply worker lets go of it. Until then, the server says that it is busy.
    let commit = format!("COMMIT PREPARED '{gid}'");
    wait_until("the apply worker to let go of the transaction", || {
        match pair.target.batch_execute(&commit) {
            Err(error) if error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => false,
            done => done.map(|()| true).expect("it commits"),
        }
    });
    assert_eq!(findings(&mut pair.target), Vec::<String>::new());
    assert_eq!(get(&mut pair.target, "key"), None);
    assert_eq!(pair.fetched(), "3 of 3");
}
