//! Every way to write beside entries that depend on single rows (a tag with a placeholder, `cache_watch`). After the commit, no
//! entry of a changed row is served. The entries of other rows stay hits, if the write reports which rows it changes. A *fence* is
//! a word in shared memory that says when something that values depend on last changed (`docs/invalidation.md`).

use super::paths::paths;
use super::table::prepare;
use pg_cache_testbed::{Database, wait_until};
use postgres::Client;

/// The ids of the rows that have entries: all those that the paths write, and some that do not exist.
const IDS: [i32; 12] = [0, 1, 2, 3, 4, 7, 8, 9, 11, 12, 40, 99];

/// The paths that do not report which rows they change, so they invalidate the entries of all rows of a table. The names must be in
/// the order of `paths()`.
const IN_BULK: &[&str] = &[
    "TRUNCATE",
    "TRUNCATE CASCADE",
    "TRUNCATE of a partition",
    "DROP of a partition",
    "DETACH PARTITION",
    "DETACH of a partition below",
    "ATTACH PARTITION",
    "ALTER TABLE INHERIT",
    "ALTER TABLE NO INHERIT",
    "DROP of an heir",
    "DROP of an heir with its schema",
    "DROP of a table between",
    "ALTER TABLE that rewrites",
    "ADD COLUMN",
    "DROP COLUMN",
    "RENAME COLUMN",
    "LOCK and UPDATE",
    "cache_invalidate_relation",
    "cache_invalidate_relation of a partition",
    "SET EXPRESSION of a stored column",
    "SET EXPRESSION of a virtual column",
];

/// Returns the text that a query returns.
fn text(session: &mut Client, query: &str) -> Option<String> {
    session.query_one(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
}

/// Returns the first column of a table whose rows can be watched, if it has the type `int`.
fn column(session: &mut Client, table: &str) -> Option<String> {
    let query = format!(
        "SELECT max(attname::text) FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = attrelid
         WHERE attrelid = '{table}'::regclass AND attnum = 1 AND atttypid = 'int'::regtype AND relkind <> 'm'"
    );
    text(session, &query)
}

/// The rows of a table with an id. Their places also change if an update leaves the text as it was.
#[derive(PartialEq, Eq)]
struct Truth {
    /// The texts of the rows.
    rows: String,
    /// The table and the position of each row.
    places: String,
}

/// Returns the rows of a table with this id, or None if the table or the column is gone.
fn truth(session: &mut Client, table: &str, column: &str, id: i32) -> Option<Truth> {
    let query = format!(
        "SELECT concat(string_agg(r::text, ' ' ORDER BY r::text)),
             concat(string_agg(tableoid || ' ' || ctid, ' ' ORDER BY tableoid, ctid))
         FROM {table} AS r WHERE {column} = {id}"
    );
    let row = session.query_one(&query, &[]).ok()?;
    Some(Truth { rows: row.get(0), places: row.get(1) })
}

/// Fails if a way to write leaves an entry of a changed row valid, or if a way that reports its rows invalidates the entries of
/// other rows.
#[test]
fn no_path_leaves_the_entry_of_a_changed_row_and_most_leave_the_others() {
    let database = Database::create();
    let [mut session, mut reader] = [(); 2].map(|()| database.connect());
    let mut in_bulk = Vec::new();
    for (number, path) in paths().enumerate() {
        let schema = format!("rows_{number}");
        prepare(&mut session, &schema, path.setup);
        reader.batch_execute(&format!("SET search_path = {schema}, public")).expect("a schema");
        let tables: Vec<(&str, String)> =
            path.changes.iter().filter_map(|table| Some((*table, column(&mut session, table)?))).collect();
        for (table, column) in &tables {
            let watch = format!("SELECT cache_watch('{table}', ARRAY['{schema}.{table}:{{{column}}}'])");
            session.batch_execute(&watch).unwrap_or_else(|error| panic!("{watch}: {error:?}"));
        }
        let mut before = Vec::new();
        for (table, column) in &tables {
            for id in IDS {
                let found = truth(&mut session, table, column, id).expect("a table");
                let rows = &found.rows;
                let key = format!("{schema}.{table}:{id}");
                // The first entry of a table may also depend on fences that other sessions raise, so it is stored until it is a
                // hit.
                let get = format!("SELECT cache_get_text('{key}')");
                wait_until("an entry", || {
                    let set = format!("SELECT cache_set_text('{key}', '{rows}', tags => '{{{key}}}')");
                    session.batch_execute(&set).expect("it is stored");
                    text(&mut session, &get).is_some()
                });
                before.push((key, *table, column, id, found));
            }
        }
        session.batch_execute(&format!("BEGIN; {}; COMMIT", path.write)).unwrap_or_else(|error| {
            panic!("{}: {error:?}", path.name);
        });
        let mut lost = 0;
        for (key, table, column, id, then) in before {
            let now = truth(&mut reader, table, column, id);
            match text(&mut reader, &format!("SELECT cache_get_text('{key}')")) {
                Some(cached) => assert_eq!(Some(cached), now.map(|now| now.rows), "{}: {key}", path.name),
                None => lost += usize::from(now == Some(then)),
            }
        }
        if lost > 0 {
            in_bulk.push(path.name);
        }
        session.batch_execute("RESET search_path").expect("it is reset");
    }
    let expected: Vec<&str> =
        IN_BULK.iter().copied().filter(|name| paths().any(|path| path.name == *name)).collect();
    assert_eq!(in_bulk, expected);
}
