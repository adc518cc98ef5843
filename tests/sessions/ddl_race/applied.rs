//! The DDL race for a subscription: a session computes a result after a change of a name or a rule has become visible, and before
//! the server has sent its catalog invalidation messages. No later call may be given that result (`mod.rs`). With `two_phase`, the
//! apply worker ends prepared transactions without a command, so pg_cache must notice the end in another way than by inspecting
//! commands.
//!
//! A *fence* is a word in shared memory that says when something that values depend on last changed (`docs/invalidation.md`). A
//! commit *raises* the fences of its changes before these become visible, and must lower them only after its messages are sent. A
//! transaction *stands* while it waits after it has become visible and before its messages are sent.

use super::changes::{become_member, set_up};
use super::stand::{Ground, direct, fetch, process};
use pg_cache_testbed::{Cluster, Conf, wait_until};

/// PostgreSQL removes the prepared transaction from the running ones before it sends its catalog invalidation messages. A session
/// that writes in between (here to `other`) must not conclude that the transaction has ended, and lower its fences. Otherwise, a
/// session gets the result 1 of the old function, which was stored meanwhile.
#[test]
fn a_fill_while_an_applied_commit_prepared_sends_its_messages_is_not_kept() {
    const REPLACE: &str =
        "CREATE OR REPLACE FUNCTION b.f() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN 2; END'";
    const QUERY: &str = "SELECT f()";
    let publisher = Cluster::start(&Conf::bare());
    let mut source = publisher.connect("postgres");
    source.batch_execute("CREATE TABLE sent (v int)").expect("a table");
    source.batch_execute("CREATE PUBLICATION p FOR TABLE sent").expect("it is published");
    // The library that makes transactions stand is loaded before pg_cache (`stand.rs`).
    let mut ground = Ground::new(true);
    // Logical replication sends rows, but no definitions. So a trigger at the subscriber replaces the function.
    set_up(
        &mut ground.witness,
        "a function",
        &format!(
            "CREATE TABLE sent (v int); CREATE TABLE other (v int);
             CREATE FUNCTION b.f() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
             CREATE FUNCTION public.replace_f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {REPLACE}; RETURN NULL; END$$;
             CREATE TRIGGER replaces AFTER INSERT ON sent FOR EACH ROW EXECUTE FUNCTION public.replace_f();
             ALTER TABLE sent ENABLE ALWAYS TRIGGER replaces"
        ),
    );
    let subscribe = format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host={} user=postgres dbname=postgres' PUBLICATION p WITH (two_phase = true)",
        publisher.socket_dir().display()
    );
    ground.witness.batch_execute(&subscribe).expect("it subscribes");
    let [mut filler, mut reader, mut writer, mut holder] =
        [(); 4].map(|()| ground.cluster.connect("postgres"));
    let mut count = |query: &str| -> i64 { writer.query_one(query, &[]).expect("a catalog").get(0) };
    wait_until("the subscription", || {
        count("SELECT count(*) FROM pg_subscription WHERE subtwophasestate = 'e'") == 1
    });
    source
        .batch_execute("BEGIN; INSERT INTO sent VALUES (1); PREPARE TRANSACTION 'far'")
        .expect("it is prepared");
    wait_until("the prepared transaction", || count("SELECT count(*) FROM pg_prepared_xacts") == 1);
    for session in [&mut filler, &mut reader] {
        become_member(session);
        assert_eq!([direct(session, QUERY), fetch(session, QUERY)], [1, 1]);
    }
    // From here on, the apply worker must wait for SInvalWriteLock, as `stand.rs` explains.
    ground.close();
    let holding_process = process(&mut holder);
    let hold = format!("SELECT hold_messages('{}')", ground.gate.display());
    let holding = std::thread::spawn(move || holder.batch_execute(&hold));
    ground.wait_for(holding_process, "the lock to be held", "wait_event = 'Extension'");
    source.batch_execute("COMMIT PREPARED 'far'").expect("it commits");
    wait_until("the subscription to stand", || {
        let stands = "SELECT count(*) FROM pg_stat_activity
                       WHERE backend_type LIKE 'logical replication %worker' AND wait_event = 'SInvalWrite'";
        count(stands) == 1
    });
    writer.batch_execute("INSERT INTO other VALUES (1)").expect("it writes");
    fetch(&mut filler, QUERY);
    ground.open();
    holding.join().expect("it ends").expect("it holds");
    wait_until("the new function", || {
        let mut fresh = ground.cluster.connect("postgres");
        become_member(&mut fresh);
        direct(&mut fresh, QUERY) == 2
    });
    // The transaction still has its locks until its messages are sent.
    wait_until("its end", || {
        let locks = "SELECT count(*) FROM pg_locks WHERE relation = 'sent'::regclass";
        writer.query_one(locks, &[]).expect("a view").get::<_, i64>(0) == 0
    });
    assert_eq!([&mut filler, &mut reader].map(|session| fetch(session, QUERY)), [2, 2]);
    ground.witness.batch_execute("DROP SUBSCRIPTION s").expect("it ends");
}
