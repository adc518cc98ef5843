//! Runs the scripts that use the cache through drivers of other languages. If a result is not the expected one, a script says so
//! and ends with an error.

use pg_cache_testbed::{Cluster, Conf, Pooler};
use std::path::Path;
use std::process::Command;

/// Returns an environment variable that names a program or directory of a script. `make/clients.sh` sets them; for a
/// single test, set them by hand.
fn named(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run make test ONLY=clients"))
}

/// Runs a script with a direct connection to the server, then through a pooler. `more` holds further arguments of the script.
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

#[test]
fn python() {
    run(&named("PG_CACHE_TEST_PYTHON"), "clients.py", &[]);
}

/// Node looks for modules beside the script. They are in another directory, which the argument names.
#[test]
fn node() {
    run("node", "clients.mjs", &[named("PG_CACHE_TEST_NODE_MODULES")]);
}
