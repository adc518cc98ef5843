//! Tests of prepared transactions. `COMMIT PREPARED`, in any session and also after a restart of the server, must invalidate what
//! the transaction changed. Until then, and after `ROLLBACK PREPARED`, the old values must stay hits. A *fence* is a word in shared
//! memory that says when something that values depend on last changed (`docs/invalidation.md`).

use crate::fences::is_cached;
use crate::memory::{cluster, findings};
use crate::transaction::{get, set};
use pg_cache_testbed::{Cluster, Conf, Stop, wait_until};
use postgres::Client;
use postgres::error::SqlState;

/// Changes that a transaction makes to `k`, which has the tag `t`. `COMMIT PREPARED` publishes no value that the transaction has
/// set, so after each of these changes `k` is a miss. The flag says whether the change also invalidates `innocent`, another key of
/// the same space (a named cache). The pattern `k` does so although it does not match `innocent`: a prepared transaction keeps no
/// patterns, so `COMMIT PREPARED` invalidates the whole space instead. One test uses the third and the fifth change by their
/// position.
const CHANGES: [(&str, bool); 8] = [
    ("SELECT cache_set_text('k', 'new')", false),
    ("SELECT cache_set_text('k', 'new', tags => '{t}'), cache_delete('none')", false),
    ("SELECT cache_delete('k')", false),
    ("SELECT cache_touch('k', '1 day')", false),
    ("SELECT cache_invalidate_tag('t')", false),
    ("SELECT cache_invalidate_pattern('k')", true),
    ("SELECT cache_flush('default')", true),
    ("SELECT cache_flush('*')", true),
];

/// The cache is small, because the tests check all of it many times.
fn conf() -> Conf {
    Conf::preloaded().set("pg_cache.hot_size", "4MB").set("pg_cache.fence_slots", "65536")
}

/// Stores the old values, and creates a table to write to.
fn fill(session: &mut Client) {
    session.batch_execute("CREATE TABLE IF NOT EXISTS log (what text)").expect("a table");
    session.batch_execute("SELECT cache_set_text('k', 'old', tags => '{t}')").expect("it is stored");
    assert!(set(session, "innocent", "old"));
}

/// Begins a transaction, makes the change and prepares the transaction.
fn prepare(session: &mut Client, gid: &str, change: &str) {
    let transaction =
        format!("BEGIN; INSERT INTO log VALUES ('{gid}'); {change}; PREPARE TRANSACTION '{gid}'");
    session.batch_execute(&transaction).unwrap_or_else(|error| panic!("{transaction}: {error}"));
}

/// Returns the values of `k` and `innocent`.
fn values(session: &mut Client) -> [Option<String>; 2] {
    ["k", "innocent"].map(|key| get(session, key))
}

/// The value that [`fill`] stores under both keys.
fn old() -> Option<String> {
    Some("old".to_owned())
}

/// Asserts that no fence is left raised, and that no structure of the cache is damaged. A commit *raises* a fence before its change
/// becomes visible, and must lower it afterwards.
fn assert_quiet(session: &mut Client) {
    assert_eq!(findings(session), Vec::<String>::new());
}

/// The session that prepared the transaction commits it, or another one does. Both sessions must read the old values before, and
/// no old value of `k` afterwards.
#[test]
fn a_prepared_change_invalidates_at_commit_prepared_and_not_before() {
    let cluster = cluster(&conf());
    let [mut one, mut two] = [(); 2].map(|()| cluster.connect("postgres"));
    for (change, all) in CHANGES {
        for by_another in [false, true] {
            fill(&mut one);
            prepare(&mut one, "p", change);
            // This also holds for the session that prepared the transaction, because the transaction does not belong to
            // it any more.
            for session in [&mut one, &mut two] {
                assert_eq!(values(session), [old(), old()], "{change}");
            }
            assert_quiet(&mut two);
            let committer = if by_another { &mut two } else { &mut one };
            committer.batch_execute("COMMIT PREPARED 'p'").expect("it commits");
            for session in [&mut one, &mut two] {
                assert_eq!(values(session), [None, old().filter(|_| !all)], "{change}");
            }
            assert_quiet(&mut two);
            assert!(set(&mut two, "k", "newer"));
            assert_eq!(get(&mut one, "k").as_deref(), Some("newer"), "{change}");
        }
    }
}

/// After `ROLLBACK PREPARED`, the old values must be hits, with their time to live from before.
#[test]
fn a_prepared_transaction_that_is_rolled_back_changes_nothing() {
    let cluster = cluster(&conf());
    let [mut one, mut two] = [(); 2].map(|()| cluster.connect("postgres"));
    fill(&mut one);
    for (change, _) in CHANGES {
        prepare(&mut one, "p", change);
        two.batch_execute("ROLLBACK PREPARED 'p'").expect("it is rolled back");
        for session in [&mut one, &mut two] {
            assert_eq!(values(session), [old(), old()], "{change}");
        }
    }
    let short: bool =
        one.query_one("SELECT cache_ttl('k') < '1 hour'", &[]).expect("it has a time to live").get(0);
    assert!(short, "nor was it touched");
    assert_quiet(&mut two);
}

/// The transaction has changed nothing in the cache, or has rolled its change back to a savepoint. Its commit must leave all
/// values.
#[test]
fn a_prepared_transaction_without_changes_in_the_cache_invalidates_nothing() {
    let cluster = cluster(&conf());
    let mut session = cluster.connect("postgres");
    fill(&mut session);
    for undone in ["", "SAVEPOINT s; SELECT cache_flush('*'); ROLLBACK TO s"] {
        prepare(&mut session, "p", undone);
        session.batch_execute("COMMIT PREPARED 'p'").expect("it commits");
        assert_eq!(values(&mut session), [old(), old()]);
    }
}

/// The key `k` exists in three spaces, and in one of them for two roles. A record that held only the key would remove all of
/// them.
#[test]
fn a_prepared_delete_removes_only_the_key_of_its_space_and_role() {
    let cluster = cluster(&conf());
    let mut session = cluster.connect("postgres");
    session
        .batch_execute("SELECT cache_create_space('a'), cache_create_space('b'), cache_create_space('r', scope => 'role')")
        .expect("there are spaces");
    session
        .batch_execute(
            "CREATE ROLE reader; SELECT cache_grant('r', 'reader', 'write'); CREATE TABLE log (what text)",
        )
        .expect("there is a role");
    let own = "SELECT cache_set_text('k', 'old', space => 'r')";
    session.batch_execute(&format!("SET ROLE reader; {own}; RESET ROLE; {own}")).expect("each has its own");
    session
        .batch_execute("SELECT cache_set_text('k', 'old', space => s) FROM unnest('{a,b}'::text[]) AS s")
        .expect("they are stored");
    let get = |session: &mut Client, space: &str| -> Option<String> {
        session.query_one("SELECT cache_get_text('k', $1)", &[&space]).expect("reading works").get(0)
    };
    prepare(&mut session, "p", "SELECT cache_delete('k', 'a'), cache_delete('k', 'r')");
    assert_eq!(["a", "b", "r"].map(|space| get(&mut session, space)), [old(), old(), old()]);
    session.batch_execute("COMMIT PREPARED 'p'").expect("it commits");
    assert_eq!(["a", "b", "r"].map(|space| get(&mut session, space)), [None, old(), None]);
    session.batch_execute("SET ROLE reader").expect("it has the role");
    assert_eq!(get(&mut session, "r"), old(), "another role's");
    session.batch_execute("RESET ROLE").expect("it goes back");
    assert_quiet(&mut session);
}

/// A name can be used again. The changes of an earlier transaction of that name must then be forgotten.
#[test]
fn a_reused_name_stands_for_the_latest_prepared_transaction() {
    let cluster = cluster(&conf());
    let mut session = cluster.connect("postgres");
    fill(&mut session);
    for end in ["COMMIT PREPARED 'p'", "ROLLBACK PREPARED 'p'"] {
        prepare(&mut session, "p", "SELECT cache_flush('*')");
        session.batch_execute(end).expect("it ends");
        fill(&mut session);
        prepare(&mut session, "p", "SELECT cache_invalidate_tag('t')");
        prepare(&mut session, "q", "SELECT cache_delete('innocent')");
        session.batch_execute("COMMIT PREPARED 'p'").expect("it commits");
        assert_eq!(values(&mut session), [None, old()]);
        session.batch_execute("COMMIT PREPARED 'q'").expect("it commits");
        assert_eq!(values(&mut session), [None, None]);
    }
    assert_quiet(&mut session);
}

/// A record holds 144 keys and 1024 fences (`src/pg/prepared.rs`). If there are more keys, the fences of their spaces replace them.
/// If there are more fences, for instance of tags, the fence of the database replaces them.
#[test]
fn too_many_changes_for_a_record_invalidate_more_than_they_changed() {
    let cluster = cluster(&conf());
    let mut session = cluster.connect("postgres");
    let each = |what: &str, count: u32| format!("SELECT {what} FROM generate_series(1, {count}) AS i");
    // A change, a key that it changes, and the value that `innocent` has afterwards.
    for (change, changed, innocent) in [
        (each("cache_delete('key ' || i)", 140), "key 140", old()),
        (each("cache_delete('key ' || i)", 1000), "key 1000", None),
        (each("cache_invalidate_tag('tag ' || i)", 120), "tagged 120", old()),
        (each("cache_invalidate_tag('tag ' || i)", 1000), "tagged 1000", old()),
        (each("cache_invalidate_tag('tag ' || i)", 1100), "tagged 1000", None),
        (each("cache_invalidate_tag('tag ' || i), cache_delete('key ' || i)", 120), "key 120", old()),
    ] {
        fill(&mut session);
        assert!(set(&mut session, changed, "old"));
        session
            .batch_execute(
                "SELECT cache_set_text('tagged ' || i, 'old', tags => ARRAY['tag ' || i]) FROM generate_series(1, 1000) AS i",
            )
            .expect("they are stored");
        prepare(&mut session, "p", &change);
        assert_eq!(get(&mut session, changed), old());
        session.batch_execute("COMMIT PREPARED 'p'").expect("it commits");
        assert_eq!([get(&mut session, changed), get(&mut session, "innocent")], [None, innocent], "{change}");
        assert_quiet(&mut session);
    }
}

/// Failures of `PREPARE TRANSACTION`: it is not allowed, the name is too long or taken, or the server has no free slot for it.
/// None of them may invalidate anything.
#[test]
fn a_failed_prepare_invalidates_nothing() {
    let cluster = cluster(&conf().set("max_prepared_transactions", "1"));
    let [mut one, mut two] = [(); 2].map(|()| cluster.connect("postgres"));
    fill(&mut one);
    let fails = |session: &mut Client, change: &str, gid: &str, code: SqlState| {
        let transaction = format!("BEGIN; {change}; PREPARE TRANSACTION '{gid}'");
        let error = session.batch_execute(&transaction).expect_err("it cannot be prepared");
        assert_eq!(error.code(), Some(&code), "{error}");
    };
    let temporary = "CREATE TEMPORARY TABLE s (); SELECT cache_flush('*')";
    fails(&mut one, temporary, "p", SqlState::FEATURE_NOT_SUPPORTED);
    fails(&mut one, "SELECT cache_flush('*')", &"long".repeat(50), SqlState::INVALID_PARAMETER_VALUE);
    assert_eq!(values(&mut two), [old(), old()]);
    // The name is taken, and the server has no second slot for a prepared transaction.
    prepare(&mut one, "p", "SELECT cache_invalidate_tag('t')");
    fails(&mut two, "SELECT cache_flush('*')", "p", SqlState::DUPLICATE_OBJECT);
    fails(&mut two, "SELECT cache_flush('*')", "q", SqlState::OUT_OF_MEMORY);
    two.batch_execute("PREPARE TRANSACTION 'outside of a block'").expect("a warning");
    assert_eq!(values(&mut two), [old(), old()]);
    one.batch_execute("COMMIT PREPARED 'p'").expect("it commits");
    assert_eq!(values(&mut two), [None, old()]);
    assert_quiet(&mut two);
}

/// Only the role that prepared a transaction, or a superuser, may commit it. The attempt of another role must invalidate nothing.
#[test]
fn a_refused_commit_prepared_invalidates_nothing() {
    let cluster = cluster(&conf());
    let mut session = cluster.connect("postgres");
    session.batch_execute("CREATE ROLE passer_by").expect("a role");
    let commits = |session: &mut Client| {
        session.batch_execute("SET ROLE passer_by").expect("it may");
        let refused = session.batch_execute("COMMIT PREPARED 'p'").expect_err("it may not");
        assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
        session.batch_execute("RESET ROLE").expect("it may");
        assert_eq!(values(session), [old(), old()]);
        assert_quiet(session);
    };
    fill(&mut session);
    prepare(&mut session, "p", "SELECT cache_set_text('k', 'new')");
    commits(&mut session);
    // After a crash, the server has no record of the changes. A refused commit must not invalidate anything then
    // either.
    cluster.stop(Stop::Immediate);
    cluster.resume();
    let mut session = cluster.connect("postgres");
    fill(&mut session);
    commits(&mut session);
    session.batch_execute("COMMIT PREPARED 'p'").expect("it may");
    assert_eq!(values(&mut session), [None, None]);
}

/// `COMMIT PREPARED` fails for an unknown name, in a transaction block, and in another database. Whether pg_cache or the server
/// finds the error first, no fence may stay raised, and the message must be the server's.
#[test]
fn a_failed_commit_prepared_leaves_no_fence_raised() {
    let cluster = cluster(&conf());
    let [mut one, mut two] = [(); 2].map(|()| cluster.connect("postgres"));
    one.batch_execute("CREATE DATABASE other").expect("another database");
    let mut other = cluster.connect("other");
    other.batch_execute("CREATE EXTENSION pg_cache").expect("it installs");
    assert!(set(&mut other, "theirs", "old"));
    fill(&mut one);
    prepare(&mut one, "p", "SELECT cache_delete('innocent'), cache_invalidate_tag('t')");
    let fails = |session: &mut Client, command: &str, code: SqlState| {
        let error = session.batch_execute(command).expect_err("it cannot be committed");
        assert_eq!(error.code(), Some(&code), "{error}");
        error.as_db_error().expect("the server says so").message().to_owned()
    };
    // The message must be the server's own, although pg_cache finds the error first.
    let unknown = fails(&mut two, "COMMIT PREPARED 'none'", SqlState::UNDEFINED_OBJECT);
    assert_eq!(unknown, fails(&mut two, "ROLLBACK PREPARED 'none'", SqlState::UNDEFINED_OBJECT));
    let block = "SELECT 1; COMMIT PREPARED 'p'";
    fails(&mut two, block, SqlState::ACTIVE_SQL_TRANSACTION);
    let savepoint = "BEGIN; SAVEPOINT s; COMMIT PREPARED 'p'";
    fails(&mut two, savepoint, SqlState::ACTIVE_SQL_TRANSACTION);
    assert_quiet(&mut one);
    two.batch_execute("ROLLBACK").expect("it ends");
    fails(&mut other, "ROLLBACK PREPARED 'p'", SqlState::FEATURE_NOT_SUPPORTED);
    assert_eq!(values(&mut one), [old(), old()], "nothing has changed");
    fails(&mut other, "COMMIT PREPARED 'p'", SqlState::FEATURE_NOT_SUPPORTED);
    assert_quiet(&mut one);
    assert_eq!(get(&mut other, "theirs"), old());
    fill(&mut one);
    one.batch_execute("COMMIT PREPARED 'p'").expect("it commits");
    assert_eq!(values(&mut one), [None, None], "it was not forgotten");
    assert_quiet(&mut one);
}

/// After a start with an empty cache, there is no record of what a prepared transaction changed. So its commit must invalidate
/// everything in its database.
#[test]
fn a_commit_prepared_after_the_loss_of_the_cache_invalidates_everything() {
    let cluster = cluster(&conf());
    // The ways to lose the cache: a restart that does not save it, an immediate shutdown, and a killed session.
    let lives: [fn(&Cluster); 3] = [
        |cluster| cluster.restart(Stop::Fast, &conf().set("pg_cache.save_on_shutdown", "off")),
        |cluster| cluster.restart(Stop::Immediate, &conf()),
        |cluster| {
            let mut victim = cluster.connect("postgres");
            let process = victim.query_one("SELECT pg_backend_pid()", &[]).expect("it lives").get(0);
            cluster.crash(process);
        },
    ];
    for end_this_life in lives {
        let mut session = cluster.connect("postgres");
        fill(&mut session);
        prepare(&mut session, "p", "SELECT cache_invalidate_tag('t')");
        prepare(&mut session, "q", "SELECT cache_invalidate_tag('t')");
        drop(session);
        end_this_life(&cluster);
        let mut session = cluster.connect("postgres");
        assert_eq!(values(&mut session), [None, None]);
        fill(&mut session);
        session.batch_execute("ROLLBACK PREPARED 'q'").expect("it is rolled back");
        assert_eq!(values(&mut session), [old(), old()]);
        session.batch_execute("COMMIT PREPARED 'p'").expect("it commits");
        assert_eq!(values(&mut session), [None, None]);
        // Transactions that are prepared after the restart have a record again.
        fill(&mut session);
        prepare(&mut session, "p", "SELECT cache_invalidate_tag('t')");
        session.batch_execute("COMMIT PREPARED 'p'").expect("it commits");
        assert_eq!(values(&mut session), [None, old()]);
        assert_quiet(&mut session);
    }
}

/// A session in `COMMIT PREPARED` that waits for a standby, which does not exist. It has written the commit record, but
/// other sessions do not see the changes yet.
struct Waiting {
    process: i32,
    thread: std::thread::JoinHandle<Result<(), postgres::Error>>,
}

impl Waiting {
    /// Makes a session commit `p`, and returns when the session waits for the standby.
    fn begin(mut session: Client, witness: &mut Client) -> Self {
        session.batch_execute("SET synchronous_commit = on").expect("it is set");
        let process = session.query_one("SELECT pg_backend_pid()", &[]).expect("it lives").get(0);
        let thread = std::thread::spawn(move || session.batch_execute("COMMIT PREPARED 'p'"));
        let query = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'";
        wait_until("the committer to wait", || {
            witness.query_one(query, &[&process]).expect("there is a view").get::<_, i64>(0) == 1
        });
        Self { process, thread }
    }

    /// Ends the wait with a server function, and returns what the client got. The transaction is committed in any case.
    fn stop(self, by: &str, witness: &mut Client) -> Result<(), postgres::Error> {
        witness.execute(&format!("SELECT {by}({})", self.process), &[]).expect("it is told to stop");
        self.thread.join().expect("the thread ends")
    }
}

/// A cluster whose sessions do not wait for a standby unless they set `synchronous_commit = on`.
fn cluster_with_standby() -> Cluster {
    cluster(&conf().set("synchronous_standby_names", "nobody").set("synchronous_commit", "local"))
}

/// While a `COMMIT PREPARED` waits for a standby, changed values are misses. A changed key raises the fence of its space, so all
/// values of the space are misses meanwhile, and hits again afterwards.
#[test]
fn readers_miss_during_a_commit_prepared_and_only_changed_values_miss_after_it() {
    let cluster = cluster_with_standby();
    let [mut one, mut witness] = [(); 2].map(|()| cluster.connect("postgres"));
    for (by, change) in [
        ("pg_cancel_backend", CHANGES[2].0),
        ("pg_terminate_backend", CHANGES[2].0),
        ("pg_terminate_backend", CHANGES[4].0),
    ] {
        let by_key = change == CHANGES[2].0;
        fill(&mut one);
        prepare(&mut one, "p", change);
        assert_eq!(values(&mut witness), [old(), old()]);
        let waiting = Waiting::begin(cluster.connect("postgres"), &mut witness);
        assert_eq!(values(&mut witness), [None, old().filter(|_| !by_key)]);
        // Another session that tries to commit it gets an error, and must not lower the raised fences.
        let error = one.batch_execute("COMMIT PREPARED 'p'").expect_err("it is busy");
        assert_eq!(error.code(), Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE), "{error}");
        assert_eq!(values(&mut witness), [None, old().filter(|_| !by_key)]);
        // Values that are set meanwhile and do not depend on the change must stay.
        assert!(set(&mut one, "meanwhile", "v"));
        let outcome = waiting.stop(by, &mut witness);
        assert_eq!(outcome.is_ok(), by == "pg_cancel_backend");
        wait_until("the end of it", || {
            let query = "SELECT count(*) FROM pg_prepared_xacts";
            witness.query_one(query, &[]).expect("there is a view").get::<_, i64>(0) == 0
        });
        wait_until("nothing to be raised any more", || findings(&mut witness).is_empty());
        assert_eq!(values(&mut witness), [None, old()], "{by}");
        assert_eq!(get(&mut witness, "meanwhile").as_deref(), Some("v"));
    }
}

/// A prepared transaction locks the tables that it has written, but not their parents. A parent may get a new parent of its
/// own. So `COMMIT PREPARED` looks the parents up again, and if a tree grows during the commit, it invalidates all values that
/// depend on tables with children.
#[test]
fn tables_written_by_a_prepared_transaction_may_get_new_ancestors() {
    let cluster = cluster_with_standby();
    let mut session = cluster.connect("postgres");
    session.batch_execute("CREATE TABLE log (what text)").expect("a table");
    let count = |session: &mut Client| -> i32 {
        let query = "SELECT cache_fetch('count', 'SELECT count(*) FROM top')::int";
        session.query_one(query, &[]).expect("it counts").get(0)
    };
    for while_it_ends in [false, true] {
        session
            .batch_execute(
                "DROP TABLE IF EXISTS top CASCADE; DROP TABLE IF EXISTS mid CASCADE; CREATE TABLE top (v int);
                 CREATE TABLE mid (v int); CREATE TABLE leaf () INHERITS (mid)",
            )
            .expect("a tree");
        // A table that a value depends on has a place with fences of its own, its record. Tables without a record share fences, and
        // leaf has no record. If top had none either, the two might share a fence, and a write to leaf would invalidate values of
        // top by chance. So this value gives top a record.
        assert_eq!(count(&mut session), 0);
        prepare(&mut session, "p", "INSERT INTO leaf VALUES (1)");
        let waiting = while_it_ends.then(|| Waiting::begin(cluster.connect("postgres"), &mut session));
        session.batch_execute("ALTER TABLE mid INHERIT top").expect("it grows");
        assert_eq!(count(&mut session), 0);
        assert!(is_cached(&mut session, "count"), "while it ends: {while_it_ends}");
        match waiting {
            Some(waiting) => waiting.stop("pg_cancel_backend", &mut session).expect("it has committed"),
            None => session.batch_execute("COMMIT PREPARED 'p'").expect("it commits"),
        }
        assert_eq!(count(&mut session), 1, "while it ends: {while_it_ends}");
    }
    assert_quiet(&mut session);
}

/// With `max_prepared_transactions = 0`, `PREPARE TRANSACTION` and `COMMIT PREPARED` end in the server's errors and invalidate
/// nothing, and pg_cache allocates no shared memory for its records of prepared transactions.
#[test]
fn without_prepared_transactions_no_memory_is_allocated_for_them() {
    let cluster = cluster(&conf().set("max_prepared_transactions", "0"));
    let mut session = cluster.connect("postgres");
    fill(&mut session);
    let bytes: i64 = session
        .query_one("SELECT count(*) FROM pg_shmem_allocations WHERE name = 'pg_cache_prepared'", &[])
        .expect("there is a view")
        .get(0);
    assert_eq!(bytes, 0);
    for command in ["BEGIN; SELECT cache_flush('*'); PREPARE TRANSACTION 'p'", "COMMIT PREPARED 'p'"] {
        session.batch_execute(command).expect_err("it is not possible");
    }
    assert_eq!(values(&mut session), [old(), old()]);
    assert_quiet(&mut session);
}

/// With `pg_cache.hot_size = 0`, the commands must work as without the extension.
#[test]
fn transactions_can_be_prepared_without_a_cache() {
    let cluster = cluster(&conf().set("pg_cache.hot_size", "0"));
    let mut session = cluster.connect("postgres");
    session.batch_execute("CREATE TABLE log (what text)").expect("a table");
    prepare(&mut session, "p", "SELECT cache_flush('*'), cache_set_text('k', 'v')");
    session.batch_execute("COMMIT PREPARED 'p'").expect("it commits");
    let error = session.batch_execute("COMMIT PREPARED 'p'").expect_err("it has been");
    assert_eq!(error.code(), Some(&SqlState::UNDEFINED_OBJECT));
}

/// The library passes the server's commands through. Their errors must keep all fields, such as the position, the table
/// and the constraint.
#[test]
fn errors_of_other_commands_keep_all_their_fields() {
    let cluster = cluster(&conf());
    let mut session = cluster.connect("postgres");
    let error = session.batch_execute("CREATE TABLE t (i no_such_type)").expect_err("there is no such type");
    assert!(error.as_db_error().expect("the server says so").position().is_some());
    session.batch_execute("CREATE TABLE t AS SELECT 1 AS i").expect("a table");
    let error =
        session.batch_execute("ALTER TABLE t ADD CONSTRAINT c CHECK (i > 1)").expect_err("one is not");
    let error = error.as_db_error().expect("the server says so");
    assert_eq!([error.table(), error.constraint()], [Some("t"), Some("c")]);
}
