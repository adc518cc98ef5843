//! The schema and the table that the tests of this folder write to, and the cached values that depend on the table.

use pg_cache_testbed::wait_until;
use postgres::Client;

/// Creates a schema with the table `t`, runs the setup of a path there, and puts the schema first in the session's search path.
pub fn prepare(session: &mut Client, schema: &str, setup: &str) {
    session
        .batch_execute(&format!(
            "CREATE SCHEMA {schema}; SET search_path = {schema}, public;
             CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)"
        ))
        .expect("there is room for a schema");
    // Like psql's \gexec: the setup is a query whose rows are the statements to run.
    if let Some(query) = setup.strip_suffix(" \\gexec") {
        for row in session.query(query, &[]).expect("the setup's query works") {
            session.batch_execute(row.get(0)).expect("the setup works");
        }
    } else {
        session.batch_execute(setup).unwrap_or_else(|error| panic!("{setup}: {error}"));
    }
}

/// Watches the tables, each with a tag `<schema>_<table>`, and stores a value with each tag under the same name.
pub fn watch(session: &mut Client, schema: &str, tables: &[&str]) {
    for table in tables {
        let call = format!("SELECT cache_watch('{table}', '{{{schema}_{table}}}')");
        session.batch_execute(&call).unwrap_or_else(|error| panic!("{call}: {error}"));
    }
    // Values are set after all watches, because a new watch invalidates the values with its tag.
    tables.iter().for_each(|table| settle(session, schema, table));
}

/// Stores the value that depends on a table, and repeats this until the value is a hit. While the first value that depends on a
/// table is stored, the table shares a fence with other tables, so a commit of a worker may invalidate the value. The later values
/// depend on the table's own fence (`fence/mod.rs` of the core).
fn settle(session: &mut Client, schema: &str, table: &str) {
    wait_until("a value that depends on the table", || {
        set(session, schema, table);
        is_hit(session, schema, table)
    });
}

/// Stores the value that depends on a table of `watch`, in a transaction of its own unless one is open.
pub fn set(session: &mut Client, schema: &str, table: &str) {
    let name = format!("{schema}_{table}");
    session
        .batch_execute(&format!("SELECT cache_set_text('{name}', 'old', tags => '{{{name}}}')"))
        .expect("setting works");
}

/// Returns whether the value that depends on a table of `watch` is a hit.
pub fn is_hit(session: &mut Client, schema: &str, table: &str) -> bool {
    let name = format!("{schema}_{table}");
    session.query_one("SELECT public.cache_get_text($1) IS NOT NULL", &[&name]).expect("reading works").get(0)
}
