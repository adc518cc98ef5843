//! Tests of partitions and inheritance that change while a transaction writes, or between two writes of a session. A write must
//! invalidate what depends on the tables above, as they are at its commit.

use super::paths::PARTITIONED;
use super::table::{is_hit, prepare, set, watch};
use pg_cache_testbed::{Database, wait_until};
use postgres::Client;

/// `DETACH PARTITION ... CONCURRENTLY` uses two transactions. After the first, the rows of the partition do not belong
/// to the table any more. The second one waits for transactions that may still see them there. A value computed between
/// the two is correct. A value computed before the first must be invalidated.
#[test]
fn a_concurrently_detached_partition_invalidates_values_of_the_whole_table() {
    let database = Database::create();
    let [mut reader, mut old, mut writer] = [(); 3].map(|()| database.connect());
    for (number, end) in ["is waited for", "is cancelled", "is terminated"].into_iter().enumerate() {
        let schema = format!("detached{number}");
        let mut session = database.connect();
        prepare(&mut session, &schema, PARTITIONED);
        watch(&mut session, &schema, &["p", "p_low"]);
        for session in [&mut reader, &mut old, &mut writer] {
            session.batch_execute(&format!("SET search_path = {schema}, public")).expect("it is set");
        }
        let key = format!("{schema}_sum");
        let sum = |session: &mut Client| -> i64 {
            let fetch = "SELECT cache_fetch($1, 'SELECT count(*) FROM p')::bigint";
            session.query_one(fetch, &[&key]).expect("it counts").get(0)
        };
        let is_cached = |session: &mut Client| -> bool {
            session.query_one("SELECT cache_exists($1)", &[&key]).expect("it looks").get(0)
        };
        wait_until("a result from before", || {
            assert_eq!(sum(&mut reader), 2, "{end}");
            is_cached(&mut reader)
        });
        assert!(is_hit(&mut reader, &schema, "p"), "{end}");
        // A transaction that has read the table delays the second transaction, and its snapshot is from before the
        // first.
        old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM p").expect("it reads");
        let pid: i32 = writer.query_one("SELECT pg_backend_pid()", &[]).expect("it lives").get(0);
        let detaching = std::thread::spawn(move || {
            (writer.batch_execute("ALTER TABLE p DETACH PARTITION p_low CONCURRENTLY"), writer)
        });
        wait_until("the first transaction", || {
            let pending = "SELECT count(*) FROM pg_inherits WHERE inhdetachpending";
            reader.query_one(pending, &[]).expect("a catalog").get::<_, i64>(0) == 1
        });
        assert!(!is_cached(&mut reader) && !is_hit(&mut reader, &schema, "p"), "{end}");
        assert_eq!(sum(&mut old), 2, "{end}: as it was");
        wait_until("a result between the two", || {
            assert_eq!(sum(&mut reader), 1, "{end}");
            is_cached(&mut reader)
        });
        assert_eq!(sum(&mut old), 2, "{end}: as it was, beside a new one");
        // During the detach, only older snapshots see the rows of the partition in the table.
        reader.batch_execute("INSERT INTO p_low VALUES (2, 2)").expect("it writes");
        assert_eq!((sum(&mut reader), sum(&mut old)), (1, 2), "{end}");
        set(&mut reader, &schema, "p_low");
        if number > 0 {
            let stop = if number == 1 { "pg_cancel_backend" } else { "pg_terminate_backend" };
            reader.execute(&format!("SELECT {stop}({pid})"), &[]).expect("it is told to stop");
        }
        if number == 0 {
            old.batch_execute("COMMIT").expect("it ends");
        }
        let (outcome, mut session) = detaching.join().expect("the thread ends");
        assert_eq!(outcome.is_ok(), number == 0, "{end}");
        if number > 0 {
            assert_eq!((sum(&mut reader), sum(&mut old)), (1, 2), "{end}");
            old.batch_execute("COMMIT").expect("it ends");
            session = database.connect();
            session.batch_execute(&format!("SET search_path = {schema}, public")).expect("it is set");
            session.batch_execute("ALTER TABLE p DETACH PARTITION p_low FINALIZE").expect("it goes");
        }
        writer = session;
        assert!(!is_hit(&mut reader, &schema, "p_low"), "{end}: its definition has changed");
        assert_eq!((sum(&mut reader), sum(&mut old)), (1, 1), "{end}");
        // The former partition is an independent table now.
        set(&mut reader, &schema, "p");
        reader.batch_execute("INSERT INTO p_low VALUES (2, 2)").expect("it writes");
        assert!(is_hit(&mut reader, &schema, "p"), "{end}");
        assert!(is_cached(&mut reader), "{end}");
        reader.batch_execute("INSERT INTO p VALUES (12, 2)").expect("it writes");
        assert!(!is_hit(&mut reader, &schema, "p"), "{end}");
        assert_eq!(sum(&mut reader), 2, "{end}");
    }
}

/// `ALTER TABLE mid INHERIT top` locks the tables below `mid` only for reading. Another transaction may be writing to them at
/// that time. Its commit must also invalidate what depends on `top`, although the session remembers other parents.
#[test]
fn a_tree_may_grow_above_while_a_leaf_is_written() {
    let database = Database::create();
    let [mut writer, mut other] = [(); 2].map(|()| database.connect());
    prepare(
        &mut writer,
        "grown",
        "CREATE TABLE mid (v int); CREATE TABLE leaf () INHERITS (mid); CREATE TABLE top (v int)",
    );
    watch(&mut writer, "grown", &["top"]);
    // After this write, the session remembers the parents of `leaf`.
    writer.batch_execute("INSERT INTO leaf VALUES (1)").expect("it writes");
    writer.batch_execute("BEGIN; INSERT INTO leaf VALUES (2)").expect("it writes");
    other.batch_execute("ALTER TABLE grown.mid INHERIT grown.top").expect("it grows");
    other.batch_execute("SET search_path = grown, public").expect("it is set");
    set(&mut other, "grown", "top");
    assert!(is_hit(&mut other, "grown", "top"));
    writer.batch_execute("COMMIT").expect("it commits");
    assert!(!is_hit(&mut other, "grown", "top"));
}

/// A session that writes to a table repeatedly looks up its parents again only when these have changed. After each change, a
/// write must invalidate what depends on the table and on all tables above it, and nothing else. In the first round, the writer's
/// own session makes the changes, in the second another one.
#[test]
fn the_parents_of_a_written_table_may_change_between_two_writes() {
    let database = Database::create();
    let [mut writer, mut other] = [(); 2].map(|()| database.connect());
    prepare(
        &mut writer,
        "between",
        "CREATE TABLE a (v int); CREATE TABLE b (v int); CREATE TABLE leaf (v int); CREATE TABLE divided (v int) PARTITION BY LIST (v);
         CREATE TABLE above (v int) PARTITION BY LIST (v)",
    );
    other.batch_execute("SET search_path = between, public").expect("it is set");
    watch(&mut other, "between", &["leaf", "a", "b", "divided", "above"]);
    let mut wrong = Vec::new();
    for round in 0..2 {
        for (change, parts) in [
            ("SELECT", &["leaf"][..]),
            ("ALTER TABLE leaf INHERIT b", &["leaf", "b"]),
            ("ALTER TABLE b INHERIT a", &["leaf", "b", "a"]),
            ("BEGIN; ALTER TABLE b NO INHERIT a; ROLLBACK", &["leaf", "b", "a"]),
            ("BEGIN; SAVEPOINT s; ALTER TABLE leaf NO INHERIT b; ROLLBACK TO s; COMMIT", &["leaf", "b", "a"]),
            ("ALTER TABLE b NO INHERIT a", &["leaf", "b"]),
            ("ALTER TABLE leaf NO INHERIT b", &["leaf"]),
            ("ALTER TABLE divided ATTACH PARTITION leaf DEFAULT", &["leaf", "divided"]),
            ("ALTER TABLE above ATTACH PARTITION divided DEFAULT", &["leaf", "divided", "above"]),
            ("ALTER TABLE above DETACH PARTITION divided", &["leaf", "divided"]),
            ("ALTER TABLE divided DETACH PARTITION leaf", &["leaf"]),
            ("ALTER TABLE leaf SET UNLOGGED", &["leaf"]),
            (
                "DROP TABLE leaf; CREATE TABLE leaf (v int) INHERITS (a); SELECT public.cache_watch('leaf', '{between_leaf}')",
                &["leaf", "a"],
            ),
            ("ALTER TABLE leaf NO INHERIT a", &["leaf"]),
        ] {
            let changer = if round == 0 { &mut writer } else { &mut other };
            changer.batch_execute(change).unwrap_or_else(|error| panic!("{change}: {error:?}"));
            let all = ["leaf", "a", "b", "divided", "above"];
            all.iter().for_each(|table| set(&mut other, "between", table));
            writer.batch_execute("INSERT INTO leaf VALUES (1)").expect("it writes");
            for table in all {
                if is_hit(&mut other, "between", table) == parts.contains(&table) {
                    wrong.push(format!("{round}, {change}: {table}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
