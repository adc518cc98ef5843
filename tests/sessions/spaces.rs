//! Spaces and grants as other sessions, restores and standbys meet them.

use pg_cache_testbed::{Cluster, Conf, Database, Stop};
use postgres::Client;
use postgres::error::SqlState;
use std::io::Write;
use std::process::Stdio;

fn get(session: &mut Client, key: &str, space: &str) -> Result<Option<String>, postgres::Error> {
    session.query_one("SELECT cache_get_text($1, $2)", &[&key, &space]).map(|row| row.get(0))
}

fn run(session: &mut Client, statements: &str) {
    session.batch_execute(statements).unwrap_or_else(|error| panic!("{statements}: {error}"));
}

#[test]
fn what_one_session_changes_of_a_space_the_next_transaction_of_others_knows() {
    let database = Database::create();
    let [mut one, mut two] = [(); 2].map(|()| database.connect());
    run(&mut one, "SELECT cache_create_space('s'), cache_set_text('k', 'v', space => 's')");
    run(&mut two, "CREATE ROLE spaces_reader; SELECT cache_grant('s', 'spaces_reader', 'read')");
    run(&mut one, "SET ROLE spaces_reader");
    assert_eq!(get(&mut one, "k", "s").expect("it may").as_deref(), Some("v"));

    run(&mut two, "BEGIN; SELECT cache_revoke('s', 'spaces_reader', 'read')");
    assert!(get(&mut one, "k", "s").is_ok(), "not committed yet");
    run(&mut two, "COMMIT");
    let refused = get(&mut one, "k", "s").expect_err("it may no more");
    assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));

    run(&mut one, "RESET ROLE");
    run(&mut two, "SELECT cache_alter_space('s', enabled => false)");
    assert_eq!(get(&mut one, "k", "s").expect("it may"), None);
    run(&mut two, "SELECT cache_alter_space('s', enabled => true)");
    assert_eq!(get(&mut one, "k", "s").expect("it may").as_deref(), Some("v"));
    // By hand, too: a trigger on the table tells it.
    run(&mut two, "UPDATE pgcache.spaces SET enabled = false WHERE name = 's'");
    assert_eq!(get(&mut one, "k", "s").expect("it may"), None);
    run(&mut two, "UPDATE pgcache.spaces SET enabled = true; SELECT cache_drop_space('s')");
    let unknown = get(&mut one, "k", "s").expect_err("it is gone");
    assert_eq!(unknown.code(), Some(&SqlState::UNDEFINED_OBJECT));
    run(&mut two, "SELECT cache_create_space('s')");
    assert_eq!(get(&mut one, "k", "s").expect("there is another one"), None);
    run(&mut one, "DROP ROLE spaces_reader");
}

#[test]
fn spaces_of_two_databases_have_nothing_in_common() {
    let databases = [(); 2].map(|()| Database::create());
    let [mut one, mut two] = databases.each_ref().map(Database::connect);
    for (session, value) in [(&mut one, "one"), (&mut two, "two")] {
        run(session, "SELECT cache_create_space('s')");
        run(session, &format!("SELECT cache_set_text('k', '{value}', tags => '{{t}}', space => 's')"));
    }
    run(&mut one, "SELECT cache_invalidate_tag('t'), cache_flush('s'), cache_flush('*')");
    assert_eq!(get(&mut one, "k", "s").expect("it may"), None);
    assert_eq!(get(&mut two, "k", "s").expect("it may").as_deref(), Some("two"));
}

#[test]
fn a_dump_carries_spaces_and_grants_but_no_values() {
    let [from, to] = [(); 2].map(|()| Database::create_empty());
    let mut session = from.connect();
    run(&mut session, "CREATE EXTENSION pg_cache; CREATE ROLE spaces_dumped; CREATE ROLE spaces_dropped");
    run(
        &mut session,
        "SELECT cache_create_space('s', max_value => 7), cache_alter_space('default', max_value => 8)",
    );
    run(&mut session, "SELECT cache_set_text('k', 'v'), cache_set_text('k', 'v', space => 's')");
    run(
        &mut session,
        "SELECT cache_grant('s', role, 'write') FROM unnest('{spaces_dumped,spaces_dropped}'::regrole[]) AS role",
    );
    run(&mut session, "SELECT cache_grant('default', 'spaces_dumped', 'read'); DROP ROLE spaces_dropped");

    let dump = from.client("pg_dump").output().expect("pg_dump runs");
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let mut psql = to.client("psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut restore = psql.spawn().expect("psql runs");
    restore.stdin.take().expect("a pipe").write_all(&dump.stdout).expect("psql reads");
    assert!(restore.wait().expect("psql ends").success());

    let mut session = to.connect();
    let rows = session
        .query("SELECT name, max_value FROM cache_spaces ORDER BY name", &[])
        .expect("the view is there");
    let spaces: Vec<(String, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(spaces, [("default".into(), 8), ("s".into(), 7)]);
    assert_eq!(get(&mut session, "k", "s").expect("it may"), None);
    assert_eq!(get(&mut session, "k", "default").expect("it may"), None);
    run(&mut session, "SET ROLE spaces_dumped; SELECT cache_set_text('k', 'v', space => 's')");
    assert_eq!(get(&mut session, "k", "default").expect("it may"), None);
    run(&mut session, "RESET ROLE; DROP ROLE spaces_dumped");
}

/// A template's spaces come along; what is cached under them does not.
#[test]
fn a_copied_database_begins_with_the_spaces_of_its_template() {
    let cluster = Cluster::start(&Conf::preloaded());
    let mut session = cluster.connect("postgres");
    run(&mut session, "CREATE DATABASE one");
    let mut one = cluster.connect("one");
    run(&mut one, "CREATE EXTENSION pg_cache; SELECT cache_create_space('s')");
    run(&mut one, "SELECT cache_set_text('k', 'v', space => 's')");
    drop(one);
    run(&mut session, "CREATE DATABASE two TEMPLATE one");
    assert_eq!(get(&mut cluster.connect("two"), "k", "s").expect("it is there"), None);
    assert_eq!(get(&mut cluster.connect("one"), "k", "s").expect("it is there").as_deref(), Some("v"));
}

#[test]
fn on_a_standby_reads_miss_nothing_is_stored_and_nothing_fails_but_invalidation() {
    let cluster = Cluster::start(&Conf::preloaded());
    run(&mut cluster.connect("postgres"), "CREATE EXTENSION pg_cache; SELECT cache_create_space('s')");
    cluster.stop(Stop::Fast);
    cluster.become_standby();
    cluster.resume();
    let mut session = cluster.connect("postgres");
    let status = |session: &mut Client| -> String {
        session.query_one("SELECT cache_status()", &[]).expect("it says").get(0)
    };
    assert_eq!(get(&mut session, "k", "s").expect("it misses"), None);
    assert_eq!(status(&mut session), "bypass: recovery");
    let stored = session.query_one("SELECT cache_set_text('k', 'v', space => 's')", &[]).expect("it may");
    assert!(!stored.get::<_, bool>(0));
    assert_eq!(status(&mut session), "bypass: recovery");
    let counted =
        session.query_one("SELECT cache_incr('c', 3), cache_touch('k', '1 s')", &[]).expect("it may");
    assert_eq!((counted.get::<_, i64>(0), counted.get::<_, bool>(1)), (3, false));
    for statement in [
        "SELECT cache_delete('k')",
        "SELECT cache_delete_many('{k}')",
        "SELECT cache_invalidate_tag('t')",
        "SELECT cache_invalidate_tags('{t}')",
        "SELECT cache_flush('s')",
        "SELECT cache_flush('*')",
    ] {
        let error = session.batch_execute(statement).expect_err(statement);
        assert_eq!(error.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION), "{statement}");
        assert!(error.as_db_error().is_some_and(|error| error.hint().is_some()), "{statement}");
    }
    assert!(get(&mut session, "k", "unknown").is_err(), "bad input is told here, too");

    // The standby becomes a server of its own, and its cache begins.
    run(&mut session, "SELECT pg_promote()");
    assert_eq!(get(&mut session, "k", "s").expect("it may"), None);
    run(&mut session, "SELECT cache_set_text('k', 'v', space => 's'), cache_invalidate_tag('t')");
    assert_eq!(get(&mut session, "k", "s").expect("it may").as_deref(), Some("v"));
}
