//! Every way to write to a table (`paths.rs`), with every way to end the transaction: values that depend on the table must be
//! misses after a commit, and hits after a rollback.
//!
//! Many tests end with a check of shared memory: `findings` returns what `cache_check()` reports, and must be empty.

use super::paths::{HARMLESS, paths};
use super::table::{is_hit, prepare, set, watch};
use crate::memory::findings;
use pg_cache_testbed::Database;
use postgres::Client;

/// The ways to end a transaction: a name, statements before and after the write, and whether the change is committed.
const ENDINGS: &[(&str, &str, &str, bool)] = &[
    ("commit", "BEGIN", "COMMIT", true),
    ("rollback", "BEGIN", "ROLLBACK", false),
    ("savepoint rolled back", "BEGIN; SAVEPOINT s", "ROLLBACK TO s; COMMIT", false),
    ("savepoint released", "BEGIN; SAVEPOINT s", "RELEASE s; COMMIT", true),
    (
        "released and rolled back",
        "BEGIN; SAVEPOINT a; SAVEPOINT b",
        "RELEASE b; ROLLBACK TO a; COMMIT",
        false,
    ),
];

/// Before the end, the values are misses for the writer and hits for others. After a commit, they are misses for all sessions.
/// After a rollback, they are hits for all sessions.
#[test]
fn every_committed_write_invalidates_values_of_the_table() {
    let database = Database::create();
    let mut reader = database.connect();
    let mut wrong = Vec::new();
    for (number, path) in paths().enumerate() {
        for (round, (ending, begin, end, commits)) in ENDINGS.iter().enumerate() {
            let mut writer = database.connect();
            let schema = format!("w{number}_{round}");
            prepare(&mut writer, &schema, path.setup);
            watch(&mut writer, &schema, path.changes);
            let mut expect = |when: &str, session: &mut Client, hit: bool| {
                for table in path.changes {
                    if is_hit(session, &schema, table) != hit {
                        let status = session.query_one("SELECT public.cache_status()", &[]);
                        let status: String = status.map_or_else(|error| error.to_string(), |row| row.get(0));
                        wrong.push(format!("{}, {ending}: {table} is {status:?} {when}", path.name));
                    }
                }
            };
            expect("at first", &mut reader, true);
            writer.batch_execute(begin).expect("it begins");
            writer.batch_execute(path.write).unwrap_or_else(|error| panic!("{}: {error:?}", path.name));
            // A deferred trigger writes only when the transaction commits.
            if !path.name.starts_with("deferred") {
                expect("for the writer himself", &mut writer, false);
            }
            expect("before the commit", &mut reader, true);
            // Each statement is a message of its own, because some must not share a message with other statements.
            for statement in end.split("; ") {
                writer.batch_execute(statement).unwrap_or_else(|error| panic!("{}: {error:?}", path.name));
            }
            expect("after the end", &mut reader, !commits);
            expect("for the writer, after the end", &mut writer, !commits);
        }
    }
    assert_eq!(findings(&mut reader), Vec::<String>::new());
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// The write is a transaction of its own, so no other statement comes between it and the commit. The second round runs with
/// everything that the session remembers from the first. After the commit, the old value must be a miss, and a new one a hit: a
/// fence (`docs/invalidation.md`) that stays raised would make it a miss for ever.
#[test]
fn a_write_that_is_a_transaction_by_itself_invalidates() {
    let database = Database::create();
    let [mut reader, mut writer] = [(); 2].map(|()| database.connect());
    let mut wrong = Vec::new();
    for (number, path) in paths().enumerate() {
        for round in 0..2 {
            let schema = format!("a{number}_{round}");
            prepare(&mut writer, &schema, path.setup);
            watch(&mut writer, &schema, path.changes);
            writer.batch_execute(path.write).unwrap_or_else(|error| panic!("{}: {error:?}", path.name));
            for table in path.changes {
                if is_hit(&mut reader, &schema, table) {
                    wrong.push(format!("{}, {round}: {table}", path.name));
                }
                set(&mut reader, &schema, table);
                if !is_hit(&mut reader, &schema, table) {
                    wrong.push(format!("{}, {round}: {table} for ever", path.name));
                }
            }
        }
    }
    assert_eq!(findings(&mut reader), Vec::<String>::new());
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// After each statement that does not write to the table, the value must still be a hit.
#[test]
fn a_statement_that_writes_nothing_invalidates_nothing() {
    let database = Database::create();
    let mut wrong = Vec::new();
    for (number, (name, statement)) in HARMLESS.iter().enumerate() {
        let mut writer = database.connect();
        let schema = format!("h{number}");
        prepare(&mut writer, &schema, "");
        watch(&mut writer, &schema, &["t"]);
        writer.batch_execute(&format!("BEGIN; {statement}; COMMIT")).expect(name);
        if !is_hit(&mut writer, &schema, "t") {
            wrong.push(*name);
        }
    }
    let mut writer = database.connect();
    prepare(&mut writer, "vacuumed", "");
    watch(&mut writer, "vacuumed", &["t"]);
    for statement in ["VACUUM t", "VACUUM FREEZE t", "CREATE INDEX CONCURRENTLY ON t (v)", "REINDEX TABLE t"]
    {
        writer.batch_execute(statement).expect(statement);
        if !is_hit(&mut writer, "vacuumed", "t") {
            wrong.push(statement);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// The second `TRUNCATE` of a transaction empties the table in place, and the server's command counter does not show it as a
/// write. A value that was set before it must be dropped all the same. Without the second `TRUNCATE`, the value is stored with
/// the commit.
#[test]
fn a_value_that_is_set_between_two_truncates_is_dropped() {
    let database = Database::create();
    let mut session = database.connect();
    prepare(&mut session, "emptied", "CREATE TABLE plain (v int)");
    watch(&mut session, "emptied", &["plain"]);
    for (then, hit) in [("TRUNCATE plain", false), ("", true)] {
        session.batch_execute("BEGIN; TRUNCATE plain; INSERT INTO plain VALUES (7)").expect("it writes");
        set(&mut session, "emptied", "plain");
        session.batch_execute(then).expect("it writes again, or not");
        session.batch_execute("COMMIT").expect("it commits");
        assert_eq!(is_hit(&mut session, "emptied", "plain"), hit, "after {then}");
    }
}
