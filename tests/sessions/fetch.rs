//! Fills that others interfere with.

use pg_cache_testbed::{Database, wait_until};
use postgres::Client;

fn fetch(session: &mut Client, key: &str, query: &str) -> Option<String> {
    let call = "SELECT cache_fetch($1, $2)::text";
    session.query_one(call, &[&key, &query]).expect("it is fetched").get(0)
}

/// Who waits for a TRUNCATE and looks at a moment before it would find an empty table, which nobody has ever committed.
#[test]
fn a_fill_that_waits_for_a_truncate_sees_what_came_with_it() {
    let database = Database::create();
    let mut writer = database.connect();
    writer
        .batch_execute(
            "CREATE TABLE t AS SELECT 1 AS v;
             CREATE TABLE p (id int, v int) PARTITION BY RANGE (id);
             CREATE TABLE p_low PARTITION OF p FOR VALUES FROM (0) TO (10);
             INSERT INTO p VALUES (1, 1)",
        )
        .expect("tables");
    for (table, insert) in [("t", "INSERT INTO t VALUES (2)"), ("p_low", "INSERT INTO p VALUES (1, 2)")] {
        writer.batch_execute(&format!("BEGIN; TRUNCATE {table}; {insert}")).expect("it writes");
        let mut reader = database.connect();
        let query = if table == "t" { "SELECT v FROM t" } else { "SELECT v FROM p" };
        let reading = std::thread::spawn(move || fetch(&mut reader, query, query));
        let mut witness = database.connect();
        wait_until("the reader to wait", || {
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
            witness.query_one(waits, &[]).expect("there is a view").get::<_, i64>(0) == 1
        });
        writer.batch_execute("COMMIT").expect("it commits");
        assert_eq!(reading.join().expect("it reads").as_deref(), Some("2"), "{table}");
        assert_eq!(fetch(&mut witness, query, query).as_deref(), Some("2"), "{table}");
    }
}

/// A session hears of new definitions when it locks what it has not locked yet: perhaps never, in a long transaction.
#[test]
fn a_fill_in_an_old_transaction_knows_new_definitions() {
    let database = Database::create();
    let [mut old, mut other] = [(); 2].map(|()| database.connect());
    let define = |v| {
        format!(
            "CREATE OR REPLACE FUNCTION f() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN {v}; END'"
        )
    };
    other.batch_execute(&define(1)).expect("a function");
    old.batch_execute("BEGIN").expect("it begins");
    // Whatever is locked on the way is locked afterwards.
    for key in ["a", "b"] {
        assert_eq!(fetch(&mut old, key, "SELECT f()").as_deref(), Some("1"));
    }
    other.batch_execute(&define(2)).expect("another one");
    assert_eq!(fetch(&mut old, "c", "SELECT f()").as_deref(), Some("2"));
    assert_eq!(fetch(&mut other, "c", "SELECT f()").as_deref(), Some("2"));
}

/// Roles are the whole cluster's, and any change of them invalidates the results of queries in all databases. Other names are a
/// database's own.
#[test]
fn what_is_renamed_is_renamed_in_its_database_unless_it_is_a_role() {
    let databases = [(); 2].map(|()| Database::create_where_roles_change());
    let [mut one, mut other] = [&databases[0], &databases[1]].map(Database::connect);
    one.batch_execute("CREATE TABLE t (); CREATE ROLE fetch_one").expect("a table and a role");
    // Whether the same is a hit afterwards, for a query that would fail. Others may change roles beside us: then it is neither.
    let stays = |other: &mut Client, one: &mut Client, command: &str| {
        assert_eq!(fetch(other, "key", "SELECT 1").as_deref(), Some("1"));
        one.batch_execute(command).expect("it is renamed");
        let found = other.query_one("SELECT cache_get('key')::text", &[]).expect("it looks");
        other.execute("SELECT cache_delete('key')", &[]).expect("it is removed");
        found.get::<_, Option<String>>(0).is_some()
    };
    wait_until("renamed tables to leave the result", || {
        stays(&mut other, &mut one, "ALTER TABLE t RENAME TO u; ALTER TABLE u RENAME TO t")
    });
    assert!(!stays(&mut other, &mut one, "ALTER ROLE fetch_one RENAME TO fetch_other"));
    one.batch_execute("DROP ROLE fetch_other").expect("it goes");
}
