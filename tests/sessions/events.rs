//! Tests of events with several sessions. An *event* is a name with *targets*: keys, patterns and tags (`cache_on_event`). A
//! session that emits the event (`cache_emit`) invalidates all of its targets (`docs/invalidation.md`). The tests ask which targets
//! the session knows, and when other sessions see the effect.

use pg_cache_testbed::Database;
use postgres::Client;
use std::io::Write;
use std::process::Stdio;

fn run(session: &mut Client, statements: &str) {
    session.batch_execute(statements).unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}

/// Returns the text that a query returns, or `None` if it is null.
fn text(session: &mut Client, query: &str) -> Option<String> {
    session.query_one(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
}

const GET: &str = "SELECT cache_get_text('user:1')";
const SET: &str = "SELECT cache_set_text('user:1', 'v'), cache_set_text('page', 'v', tags => '{user:1}')";
const EMIT: &str = "SELECT cache_emit('changed', '{\"id\": 1}')";

/// An emitter knows the targets that were committed before its transaction began, also if it has emitted the event before. It does
/// not know uncommitted ones.
#[test]
fn an_emitter_knows_the_committed_targets() {
    let database = Database::create();
    let [mut admin, mut emitter, mut reader] = [(); 3].map(|()| database.connect());
    run(&mut admin, &format!("{SET}; {EMIT}"));
    run(&mut emitter, EMIT);
    assert_eq!(text(&mut reader, GET).as_deref(), Some("v"));
    run(&mut admin, "BEGIN; SELECT cache_on_event('changed', ARRAY['user:{id}'])");
    run(&mut emitter, EMIT);
    assert_eq!(text(&mut reader, GET).as_deref(), Some("v"));
    run(&mut admin, "COMMIT");
    run(&mut emitter, EMIT);
    assert_eq!(text(&mut reader, GET), None);
    run(&mut admin, SET);
    run(&mut admin, "SELECT cache_off_event('changed')");
    run(&mut emitter, EMIT);
    assert_eq!(text(&mut reader, GET).as_deref(), Some("v"));
}

/// A transaction that has emitted an event before, and takes no locks, also knows the targets that were committed since.
#[test]
fn a_running_transaction_knows_targets_that_were_committed_since() {
    let database = Database::create();
    let [mut admin, mut emitter, mut reader] = [(); 3].map(|()| database.connect());
    run(&mut admin, SET);
    run(&mut emitter, &format!("BEGIN; {EMIT}"));
    run(&mut admin, "SELECT cache_on_event('changed', ARRAY['user:{id}'])");
    run(&mut emitter, &format!("{EMIT}; COMMIT"));
    assert_eq!(text(&mut reader, GET), None);
}

/// Other sessions see the effect of an event when its transaction commits, also if it was prepared. A rollback, also to a
/// savepoint, undoes the event.
#[test]
fn an_event_takes_effect_with_its_transaction() {
    let database = Database::create();
    let [mut emitter, mut reader] = [(); 2].map(|()| database.connect());
    run(&mut emitter, "SELECT cache_on_event('changed', ARRAY['user:{id}', 'tag:user:{id}'])");
    let both = "SELECT concat(cache_get_text('user:1'), cache_get_text('page'))";
    let endings = [
        (vec!["COMMIT"], ""),
        (vec!["ROLLBACK"], "vv"),
        (vec!["PREPARE TRANSACTION 'events'", "COMMIT PREPARED 'events'"], ""),
        (vec!["PREPARE TRANSACTION 'events'", "ROLLBACK PREPARED 'events'"], "vv"),
    ];
    for (ending, expected) in endings {
        run(&mut reader, SET);
        run(&mut emitter, &format!("BEGIN; CREATE TABLE IF NOT EXISTS x (); {EMIT}"));
        assert_eq!(text(&mut emitter, both).as_deref(), Some(""), "{ending:?}");
        for step in &ending {
            assert_eq!(text(&mut reader, both).as_deref(), Some("vv"), "before {step}");
            run(&mut emitter, step);
        }
        assert_eq!(text(&mut reader, both).as_deref(), Some(expected), "{ending:?}");
    }
    run(&mut reader, SET);
    run(&mut emitter, &format!("BEGIN; SAVEPOINT s; {EMIT}; ROLLBACK TO s; COMMIT"));
    assert_eq!(text(&mut reader, both).as_deref(), Some("vv"));
}

/// Caches outside of the database learn which keys and tags an event has invalidated.
#[test]
fn the_journal_names_the_targets_of_an_event() {
    let database = Database::create();
    let mut session = database.connect();
    run(&mut session, "SELECT cache_on_event('changed', ARRAY['user:{id}', 'tag:user:{id}'])");
    let since: i64 = session.query_one("SELECT cache_seq()", &[]).expect("a number").get(0);
    run(&mut session, EMIT);
    let changes = format!(
        "SELECT string_agg(kind || ' ' || name, ', ' ORDER BY kind) FROM cache_changes({since}) WHERE kind <> 'none'"
    );
    assert_eq!(text(&mut session, &changes).as_deref(), Some("key user:1, tag user:1"));
}

/// A dump brings events with their spaces.
#[test]
fn a_dump_carries_events() {
    let [from, to] = [(); 2].map(|()| Database::create_empty());
    let mut session = from.connect();
    run(
        &mut session,
        "CREATE EXTENSION pg_cache; SELECT cache_create_space('shop');
         SELECT cache_on_event('changed', ARRAY['user:{id}']), cache_on_event('changed', ARRAY['cart:{id}'], 'shop')",
    );
    let dump = from.client("pg_dump").output().expect("pg_dump runs");
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let mut psql = to.client("psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut restore = psql.spawn().expect("psql runs");
    restore.stdin.take().expect("a pipe").write_all(&dump.stdout).expect("psql reads");
    assert!(restore.wait().expect("psql ends").success());
    let mut session = to.connect();
    let events = "SELECT string_agg(concat_ws(' ', event, space, targets), ', ') FROM cache_events";
    assert_eq!(
        text(&mut session, events).as_deref(),
        Some("changed default {\"user:{id}\"}, changed shop {\"cart:{id}\"}")
    );
    run(&mut session, SET);
    run(&mut session, EMIT);
    assert_eq!(text(&mut session, GET), None);
}
