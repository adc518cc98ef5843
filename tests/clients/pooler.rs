//! Tests behind pgbouncer in transaction mode: each transaction of a client session may use another server connection. They prove
//! what the section "Use it behind pgbouncer" of the README promises. `clients.py` tests leases behind the pooler.

use pg_cache_testbed::{Cluster, Conf, Pooler};
use postgres::types::Type;
use postgres::{Client, SimpleQueryMessage};
use std::collections::BTreeSet;

/// Starts a cluster and a pooler with this number of server connections for each database.
fn pooled(connections: u32) -> (Cluster, Pooler) {
    let cluster = Cluster::start(&Conf::preloaded());
    cluster.connect("postgres").batch_execute("CREATE EXTENSION pg_cache").expect("it installs");
    let pooler = Pooler::start(&cluster, connections);
    (cluster, pooler)
}

/// Returns the first column of the first row of a query: `None` if it is null or there is no row. The query uses the simple
/// protocol, so nothing is prepared.
fn ask(session: &mut Client, query: &str) -> Option<String> {
    let answer = session.simple_query(query).unwrap_or_else(|error| panic!("{query}: {error:?}"));
    answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
        _ => None,
    })?
}

/// Returns the text value of a key, or `None` for a miss.
fn get(session: &mut Client, key: &str) -> Option<String> {
    ask(session, &format!("SELECT cache_get_text('{key}')"))
}

/// Runs this number of transactions in a session, and returns the process ids of the backends that served them.
fn backends(session: &mut Client, transactions: usize) -> BTreeSet<String> {
    (0..transactions).filter_map(|_| ask(session, "SELECT pg_backend_pid()")).collect()
}

/// The open transaction keeps one server connection, so the second session uses the other. That session must see no change before
/// the commit, and none at all after a rollback.
#[test]
fn a_transaction_sees_its_changes_at_once_and_others_see_them_at_commit() {
    let (_cluster, pooler) = pooled(2);
    let [mut one, mut two] = [(); 2].map(|()| pooler.connect("postgres"));
    ask(&mut one, "SELECT cache_set_text('k', 'old', tags => '{t}')");
    for (end, expected) in [("ROLLBACK", "old"), ("COMMIT", "new")] {
        one.batch_execute("BEGIN").expect("it begins");
        ask(&mut one, "SELECT cache_set_text('k', 'new')");
        ask(&mut one, "SELECT cache_invalidate_tag('t')");
        ask(&mut one, "SELECT cache_set_text('tagged', 'new', tags => '{t}')");
        assert_eq!(get(&mut one, "k").as_deref(), Some("new"));
        assert_eq!(get(&mut two, "k").as_deref(), Some("old"), "before {end}");
        assert_eq!(get(&mut two, "tagged"), None, "before {end}");
        one.batch_execute(end).expect("it ends");
        assert_eq!(get(&mut two, "k").as_deref(), Some(expected), "after {end}");
        assert_eq!(get(&mut one, "k").as_deref(), Some(expected), "after {end}");
    }
    assert_eq!(get(&mut two, "tagged").as_deref(), Some("new"));
    assert_eq!(ask(&mut two, "SELECT cache_check()"), None);
}

/// Entries, counters and tags are in shared memory, so each statement may use another server connection. A state that a backend
/// kept for itself would show as an old value, a wrong count or a missing invalidation on the next connection.
#[test]
fn statements_on_changing_server_connections_see_one_cache() {
    let (_cluster, pooler) = pooled(3);
    let mut session = pooler.connect("postgres");
    assert_eq!(backends(&mut session, 9).len(), 3, "the server connections take turns");
    for round in 0..9 {
        let number = round.to_string();
        ask(&mut session, &format!("SELECT cache_set_text('k', '{round}', tags => '{{t{}}}')", round % 2));
        for _ in 0..3 {
            assert_eq!(get(&mut session, "k"), Some(number.clone()));
        }
        assert_eq!(
            ask(&mut session, "SELECT cache_incr('rounds')"),
            Some((round + 1).to_string()),
            "one counter for all"
        );
        match round % 3 {
            0 => ask(&mut session, &format!("SELECT cache_invalidate_tag('t{}')", round % 2)),
            1 => ask(&mut session, "SELECT cache_delete('k')"),
            _ => ask(&mut session, "SELECT cache_touch('k', '1 day')"),
        };
        for _ in 0..3 {
            assert_eq!(get(&mut session, "k"), (round % 3 == 2).then(|| number.clone()));
        }
    }
}

/// As documented, `SET` stays in the server connection and reaches the client that uses it next. `SET LOCAL` does not. Fails if one
/// of them behaves like the other: with `pg_cache.bypass`, each read is a miss.
#[test]
fn a_set_reaches_the_next_client_and_a_set_local_does_not() {
    let (_cluster, pooler) = pooled(1);
    let mut one = pooler.connect("postgres");
    let mut two = pooler.connect("postgres");
    ask(&mut one, "SELECT cache_set_text('k', 'v')");

    one.batch_execute("BEGIN; SET LOCAL pg_cache.bypass = on").expect("it begins");
    assert_eq!(get(&mut one, "k"), None);
    one.batch_execute("COMMIT").expect("it ends");
    assert_eq!(get(&mut two, "k").as_deref(), Some("v"));

    one.batch_execute("SET pg_cache.bypass = on").expect("it is set");
    assert_eq!(get(&mut two, "k"), None, "the other client uses the same server connection");
    drop(one);
    assert_eq!(get(&mut two, "k"), None, "the setting outlives the client that has set it");
    two.batch_execute("RESET pg_cache.bypass").expect("it is reset");
    assert_eq!(get(&mut two, "k").as_deref(), Some("v"));
}

/// `cache_status()` reports the last operation of the server connection. Within a transaction, this is the client's own operation,
/// even if another client calls the cache in between. Fails if the status is that of the other client's miss.
#[test]
fn the_status_of_an_operation_is_reliable_in_its_transaction() {
    let (_cluster, pooler) = pooled(2);
    let [mut one, mut two] = [(); 2].map(|()| pooler.connect("postgres"));
    ask(&mut one, "SELECT cache_set_text('k', 'v')");
    for _ in 0..3 {
        one.batch_execute("BEGIN").expect("it begins");
        assert_eq!(get(&mut one, "k").as_deref(), Some("v"));
        // The open transaction keeps its server connection, so this miss happens on the other one.
        assert_eq!(get(&mut two, "none"), None);
        assert_eq!(ask(&mut one, "SELECT cache_status()").as_deref(), Some("hot"));
        one.batch_execute("COMMIT").expect("it ends");
    }
}

/// If a client disconnects inside a transaction, pgbouncer closes the server connection, and the server aborts the transaction.
/// Fails if another client then sees one of its changes.
#[test]
fn a_client_that_disconnects_in_a_transaction_leaves_no_change() {
    let (_cluster, pooler) = pooled(1);
    let mut one = pooler.connect("postgres");
    ask(&mut one, "SELECT cache_set_text('k', 'old')");
    one.batch_execute("BEGIN; CREATE TABLE t (); SELECT cache_set_text('k', 'new'), cache_invalidate_tag('t'), cache_flush('*')")
        .expect("it begins");
    drop(one);
    // pgbouncer opens another server connection for this client. The old backend may still be aborting: its changes must not be
    // visible then either.
    let mut two = pooler.connect("postgres");
    assert_eq!(get(&mut two, "k").as_deref(), Some("old"));
    assert_eq!(ask(&mut two, "SELECT cache_check()"), None);
}

/// `query_typed` parses, binds and executes an unnamed statement in one round trip, so it works with any version of pgbouncer.
/// Fails if a parameter is lost, or if a round on another server connection reads an old value.
#[test]
fn parameters_work_with_unnamed_statements() {
    let (_cluster, pooler) = pooled(2);
    let mut session = pooler.connect("postgres");
    for round in 0..8_i64 {
        let stored = session
            .query_typed(
                "SELECT cache_set_text($1, $2), cache_incr($3, $4)",
                &[
                    (&"k", Type::TEXT),
                    (&round.to_string(), Type::TEXT),
                    (&"n", Type::TEXT),
                    (&1_i64, Type::INT8),
                ],
            )
            .expect("it is set");
        assert_eq!((stored[0].get(0), stored[0].get(1)), (true, round + 1));
        let rows =
            session.query_typed("SELECT cache_get_text($1)", &[(&"k", Type::TEXT)]).expect("it is got");
        assert_eq!(rows[0].get::<_, String>(0), round.to_string());
    }
}

/// A named statement belongs to a server connection. Since version 1.21, pgbouncer prepares it again where it is
/// missing, if `max_prepared_statements` is not 0, as here. With earlier versions, it is valid only within a transaction.
#[test]
fn prepared_statements_work_across_transactions_if_the_pooler_supports_them() {
    let (_cluster, pooler) = pooled(2);
    let mut session = pooler.connect("postgres");
    let mut transaction = session.transaction().expect("it begins");
    let set = transaction.prepare("SELECT cache_set_text($1, $2)").expect("it is prepared");
    let get = transaction.prepare("SELECT cache_get_text($1)").expect("it is prepared");
    // 12 runs: PostgreSQL makes a custom plan for the first five runs of a statement. From the sixth on, it may use a generic plan.
    for round in 0..12 {
        let round = round.to_string();
        assert!(transaction.query_one(&set, &[&"k", &round]).expect("it is set").get::<_, bool>(0));
        assert_eq!(transaction.query_one(&get, &[&"k"]).expect("it is got").get::<_, String>(0), round);
    }
    transaction.commit().expect("it ends");
    if !pooler.prepares() {
        println!("this pgbouncer is older than 1.21: prepared statements across transactions are not tried");
        return;
    }
    assert_eq!(backends(&mut session, 4).len(), 2, "the server connections take turns");
    for round in 0..12 {
        let round = round.to_string();
        assert!(session.query_one(&set, &[&"k", &round]).expect("it is set").get::<_, bool>(0));
        assert_eq!(session.query_one(&get, &[&"k"]).expect("it is got").get::<_, String>(0), round);
    }
}
