//! Runs the scripts beside this file that use the cache through drivers of other languages: `clients.py`, `introspection.py` and
//! `clients.mjs`. A script that gets a wrong result prints it and ends with a non-zero status. A script that gets only expected
//! results prints `done` last.

use pg_cache_testbed::{Cluster, Conf, Pooler};
use std::path::Path;
use std::process::Command;

/// Returns the value of an environment variable that names a program or a directory which a script needs. `make/clients.sh` sets
/// these variables; for a single test, set them by hand. Panics if the variable is not set.
pub(crate) fn named(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run make test ONLY=clients"))
}

/// Runs a script with a direct connection to the server, then through a pooler, and fails unless both runs succeed.
///
/// The first argument of the script is `prepared` or `unprepared`: whether statements that the driver prepares by name may be used.
/// pgbouncer loses them before version 1.21. `more` holds the further arguments.
fn run(interpreter: &str, script: &str, more: &[String]) {
    let cluster = Cluster::start(&Conf::preloaded());
    let mut session = cluster.connect("postgres");
    session.batch_execute("CREATE EXTENSION pg_cache").expect("it installs");
    let pooler = Pooler::start(&cluster, 2);
    let follows = if pooler.prepares() { "prepared" } else { "unprepared" };
    for (host, prepared) in [(cluster.socket_dir(), "prepared"), (pooler.socket_dir(), follows)] {
        session.batch_execute("SELECT cache_flush('*')").expect("it is flushed");
        let mut command = cluster.point_here(Command::new(interpreter));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script));
        command.arg(prepared).args(more);
        let output = command.env("PGHOST", host).output().expect("it starts");
        assert!(
            output.status.success() && output.stdout.ends_with(b"done\n"),
            "{script}, {prepared}, {}: {}\n{}{}",
            host.display(),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert_eq!(session.query("SELECT cache_check()", &[]).expect("it can be checked").len(), 0);
}

/// `psycopg` gives and gets the values, errors and leases that its users expect.
#[test]
fn python() {
    run(&named("PG_CACHE_TEST_PYTHON"), "clients.py", &[]);
}

/// SQLAlchemy treats a view of `cache_create_view` as a table, in its introspection, in statements and in the ORM.
#[test]
fn sqlalchemy() {
    run(&named("PG_CACHE_TEST_PYTHON"), "introspection.py", &[]);
}

/// `node-postgres` gives and gets the values and errors that its users expect. Node looks for modules beside the script. They are
/// in another directory, which the argument names.
#[test]
fn node() {
    run("node", "clients.mjs", &[named("PG_CACHE_TEST_NODE_MODULES")]);
}
