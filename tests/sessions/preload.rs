//! Tests that the extension installs if the server preloads pg_cache, and that the error otherwise says how to do that.

use pg_cache_testbed::{Cluster, Conf, Database, Stop};
use postgres::error::SqlState;

/// The version of the installed extension must be that of the crates of this workspace, which all have the same.
#[test]
fn extension_installs_when_preloaded() {
    let database = Database::create();
    let mut session = database.connect();
    let version: String = session
        .query_one("SELECT extversion FROM pg_extension WHERE extname = 'pg_cache'", &[])
        .expect("the extension is there")
        .get(0);
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
}

/// Runs the `ALTER SYSTEM` command of the hint unchanged and restarts the server, to prove that the advice works. The command must
/// keep the libraries that are preloaded already.
#[test]
fn without_preload_the_error_names_the_commands_that_help() {
    // These are libraries that every server has.
    let cluster = Cluster::start(&Conf::bare().set("shared_preload_libraries", "plpgsql, pgoutput"));
    let mut session = cluster.connect("postgres");
    let error = session.batch_execute("CREATE EXTENSION pg_cache").expect_err("it must not install");
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!(error.code(), &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert_eq!(error.message(), "pg_cache must be loaded when the server starts");

    let hint = error.hint().expect("a hint");
    let start = hint.find("ALTER SYSTEM").expect("a command in the hint");
    let end = start + hint[start..].find(';').expect("the command ends");
    let command = &hint[start..end];
    assert_eq!(command, "ALTER SYSTEM SET shared_preload_libraries = 'pg_cache', 'plpgsql', 'pgoutput'");

    // The failed attempt must leave nothing behind.
    let leftovers: i64 = session
        .query_one("SELECT count(*) FROM pg_namespace WHERE nspname = 'pgcache'", &[])
        .expect("the session lives")
        .get(0);
    assert_eq!(leftovers, 0);

    // `ALTER SYSTEM` overrides the configuration file that the cluster was started with.
    session.batch_execute(command).expect("the advice is valid SQL");
    drop(session);
    cluster.stop(Stop::Fast);
    cluster.resume();
    let mut session = cluster.connect("postgres");
    session.batch_execute("CREATE EXTENSION pg_cache").expect("the advice works");
    let libraries: String =
        session.query_one("SHOW shared_preload_libraries", &[]).expect("it is set").get(0);
    assert_eq!(libraries, "pg_cache, plpgsql, pgoutput");
}

/// `LOAD` must fail in the same way as `CREATE EXTENSION`.
#[test]
fn load_without_preload_is_refused() {
    let cluster = Cluster::start(&Conf::bare());
    let error = cluster.connect("postgres").batch_execute("LOAD 'pg_cache'").expect_err("it must not load");
    assert_eq!(error.code(), Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE));
}

/// After an immediate stop, the server recovers as after a crash. The preloaded library must work then.
#[test]
fn extension_works_after_an_immediate_stop() {
    let cluster = Cluster::start(&Conf::preloaded());
    cluster.connect("postgres").batch_execute("CREATE EXTENSION pg_cache").expect("it installs");
    cluster.stop(Stop::Immediate);
    cluster.resume();
    let answer: i64 =
        cluster.connect("postgres").query_one("SELECT pgcache.noop('k')", &[]).expect("it works").get(0);
    assert_eq!(answer, 0);
}
