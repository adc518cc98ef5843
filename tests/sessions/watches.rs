//! Tests of watches and grants of several sessions: how much of a tag one owner of tables can use, and which calls wait
//! for which transactions. A *watch* (`cache_watch`) makes tags stand for a table: a write to the table invalidates all values with
//! one of the tags.

use pg_cache_testbed::Database;
use postgres::Client;
use postgres::error::{DbError, SqlState};

/// The most relations of one owner that one tag may stand for. `src/store/watch.rs` has these three limits.
const OF_OWNER: usize = 16;
/// The most relations of all owners that one tag may stand for.
const OF_TAG: usize = 64;
/// The most tags that may stand for one relation.
const TAGS: usize = 32;

/// Runs statements that must succeed.
fn run(session: &mut Client, statements: &str) {
    session.batch_execute(statements).unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}

/// Runs a statement that must end in an error of the server, and returns the error.
fn refused(session: &mut Client, statement: &str) -> DbError {
    let error = session.batch_execute(statement).expect_err(statement);
    error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error:?}")).clone()
}

/// Returns the text that a query returns, or `None` if it is null.
fn text(session: &mut Client, query: &str) -> Option<String> {
    session.query_one(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
}

/// Creates a role that may write in the default space, and its tables `<role>1` to `<role><count>`. `drop_roles` removes both.
fn with_tables(session: &mut Client, role: &str, count: usize) {
    run(
        session,
        &format!(
            "CREATE ROLE {role}; GRANT CREATE ON SCHEMA public TO {role}; SELECT cache_grant('default', '{role}', 'write');
             SET ROLE {role};
             DO $$ BEGIN FOR i IN 1..{count} LOOP EXECUTE format('CREATE TABLE {role}%s (id int)', i); END LOOP; END $$;
             RESET ROLE"
        ),
    );
}

/// Drops the roles with all that they own and are granted in this database. They belong to the whole cluster, so each test must
/// do so.
fn drop_roles(session: &mut Client, roles: &[&str]) {
    run(session, "RESET ROLE");
    for role in roles {
        run(session, &format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    }
}

/// Watches the tables of `with_tables` one by one with the tag, until a call is refused. Returns the number of successful calls
/// and the error, if any.
fn watch_all(session: &mut Client, role: &str, count: usize, tag: &str) -> (usize, Option<DbError>) {
    for i in 1..=count {
        if let Err(error) = session.execute(&format!("SELECT cache_watch('{role}{i}', '{{{tag}}}')"), &[]) {
            return (i - 1, error.as_db_error().cloned());
        }
    }
    (count, None)
}

/// An entry has at most 255 dependencies. A tag that stood for more tables would make every set with this tag be refused, for all
/// roles.
#[test]
fn the_owner_of_three_hundred_tables_cannot_make_every_set_with_a_tag_be_refused() {
    let database = Database::create();
    let mut session = database.connect();
    with_tables(&mut session, "watches_many", 300);
    let mut attacker = database.connect();
    run(&mut attacker, "SET ROLE watches_many");
    // The limit holds for each of several tags, because an entry may have several.
    for tag in ["pages", "orders", "prices"] {
        let tables = 300;
        let (watched, error) = watch_all(&mut attacker, "watches_many", tables, tag);
        assert_eq!(watched, OF_OWNER, "{tag}");
        let error = error.expect("it is refused");
        assert_eq!(error.code(), &SqlState::PROGRAM_LIMIT_EXCEEDED);
        let message =
            format!("tag \"{tag}\" would stand for more than {OF_OWNER} relations of role watches_many");
        assert_eq!(error.message(), message);
        assert!(error.hint().is_some_and(|hint| hint.contains("cache_watch")), "{error:?}");
    }
    // The limit also holds inside a single transaction, at each isolation level.
    let more = "DO $$ BEGIN FOR i IN 20..120 LOOP PERFORM cache_watch(('watches_many' || i)::regclass, '{pages}'); END LOOP; END $$";
    for begin in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN ISOLATION LEVEL SERIALIZABLE"] {
        run(&mut attacker, begin);
        assert_eq!(refused(&mut attacker, more).code(), &SqlState::PROGRAM_LIMIT_EXCEEDED, "{begin}");
        run(&mut attacker, "ROLLBACK");
    }
    let set = "SELECT cache_set_text('k', 'v', tags => '{pages,orders,prices}')";
    assert!(session.query_one(set, &[]).expect("it works").get::<_, bool>(0));
    assert_eq!(text(&mut session, "SELECT cache_get_text('k')").as_deref(), Some("v"));
    let fetch = "SELECT cache_fetch('f', 'SELECT count(*) FROM watches_many1', tags => '{pages,orders,prices}')::text";
    assert_eq!(text(&mut session, fetch).as_deref(), Some("0"));
    assert_eq!(text(&mut session, "SELECT cache_status()").as_deref(), Some("miss: not there"));
    // An existing watch may be repeated, and the owner of the extension may exceed the limit.
    run(&mut attacker, "SELECT cache_watch('watches_many1', '{pages}')");
    run(&mut session, "SELECT cache_watch('watches_many17', '{pages}')");
    drop_roles(&mut session, &["watches_many"]);
}

/// The limit must hold for two transactions that do not see each other's rows.
#[test]
fn uncommitted_watches_count_towards_the_limit_of_a_tag() {
    let database = Database::create();
    let mut session = database.connect();
    with_tables(&mut session, "watches_open", 40);
    let [mut one, mut two] = [(); 2].map(|()| database.connect());
    run(&mut one, "SET ROLE watches_open; BEGIN");
    assert_eq!(watch_all(&mut one, "watches_open", OF_OWNER, "open").0, OF_OWNER);
    run(&mut two, "SET ROLE watches_open; SET lock_timeout = '5s'");
    let error = refused(&mut two, "SELECT cache_watch('watches_open20', '{open}')");
    assert_eq!(error.code(), &SqlState::PROGRAM_LIMIT_EXCEEDED, "{error:?}");
    run(&mut one, "ROLLBACK");
    run(&mut two, "SELECT cache_watch('watches_open20', '{open}')");
    drop_roles(&mut session, &["watches_open"]);
}

/// The owner of the extension may exceed the limit for one owner, but not the other two.
#[test]
fn the_limits_of_tags_and_relations_hold_for_the_owner_of_the_extension_too() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "DO $$ BEGIN FOR i IN 1..70 LOOP EXECUTE format('CREATE TABLE t%s (id int)', i); END LOOP; END $$",
    );
    let (watched, error) = watch_all(&mut session, "t", 70, "all");
    assert_eq!(watched, OF_TAG);
    let error = error.expect("it is refused");
    assert_eq!(
        (error.code(), error.message()),
        (&SqlState::PROGRAM_LIMIT_EXCEEDED, "tag \"all\" would stand for more than 64 relations")
    );
    // Dropped tables make room.
    run(&mut session, "DROP TABLE t1; SELECT cache_watch('t70', '{all}')");
    assert!(
        session
            .query_one("SELECT cache_set_text('k', 'v', tags => '{all}')", &[])
            .expect("it works")
            .get::<_, bool>(0)
    );
    // The tags of one table are limited, because every session remembers them.
    let tags = |from: usize, to: usize| (from..to).map(|i| format!("tag {i}")).collect::<Vec<_>>().join(",");
    run(&mut session, &format!("SELECT cache_watch('t2', '{{{}}}')", tags(0, TAGS - 1)));
    let error = refused(&mut session, "SELECT cache_watch('t2', '{one too many}')");
    assert_eq!(
        (error.code(), error.message()),
        (&SqlState::PROGRAM_LIMIT_EXCEEDED, "more than 32 tags would stand for \"t2\"")
    );
}

/// A tag can exceed the limit if the watches are older than the limit, or if a superuser wrote them by hand.
#[test]
fn a_refused_set_names_the_tag_that_stands_for_too_many_relations() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE TABLE t (id int); INSERT INTO pgcache.watches SELECT 1000000 + i, '{broad}' FROM generate_series(1, 300) AS i;
         INSERT INTO pgcache.watches VALUES ('t'::regclass, '{narrow}')",
    );
    let refused = "refused: too many dependencies, most of them relations of tag broad";
    let set = "SELECT cache_set_text('k', 'v', tags => '{narrow,broad,other}')";
    assert!(!session.query_one(set, &[]).expect("it is no error").get::<_, bool>(0));
    assert_eq!(text(&mut session, "SELECT cache_status()").as_deref(), Some(refused));
    run(&mut session, "SELECT cache_fetch('f', 'SELECT 1', tags => '{narrow,broad}')");
    assert_eq!(text(&mut session, "SELECT cache_status()").as_deref(), Some(refused));
    assert!(
        session
            .query_one("SELECT cache_set_text('k', 'v', tags => '{narrow}')", &[])
            .expect("it works")
            .get::<_, bool>(0)
    );
}

/// One session runs a call and keeps its transaction open. Meanwhile, another session runs every call about other objects, and none
/// of them may wait for a lock. Some calls also clean up rows that a drop has left behind.
#[test]
fn an_open_watch_or_grant_blocks_no_call_about_other_objects() {
    let database = Database::create();
    let mut session = database.connect();
    let roles = ["watches_one", "watches_two", "watches_gone"];
    for role in roles {
        run(&mut session, &format!("CREATE ROLE {role}"));
    }
    run(
        &mut session,
        "CREATE TABLE one (id int); CREATE TABLE two (id int); CREATE TABLE gone (id int);
         SELECT cache_create_space('one'), cache_create_space('two');
         SELECT cache_watch('one'), cache_watch('two'), cache_watch('gone');
         SELECT cache_grant(space, role, 'read') FROM unnest('{one,two,default}'::text[]) AS space,
             unnest('{watches_one,watches_two,watches_gone}'::regrole[]) AS role;
         DROP TABLE gone; DROP ROLE watches_gone",
    );
    let calls = |name: &str| {
        let role = format!("watches_{name}");
        [
            format!("cache_watch('{name}', '{{t}}')"),
            format!("cache_unwatch('{name}')"),
            format!("cache_grant('{name}', '{role}', 'write')"),
            format!("cache_grant('default', '{role}', 'write')"),
            format!("cache_revoke('{name}', '{role}', 'read')"),
            format!("cache_revoke('default', '{role}', 'read')"),
            format!("cache_alter_space('{name}', jitter => 0.5)"),
            format!("cache_create_space('new {name}')"),
            format!("cache_drop_space('{name}')"),
            format!("cache_flush('{name}')"),
            format!("cache_invalidate_relation('{name}')"),
        ]
    };
    let [mut one, mut two] = [(); 2].map(|()| database.connect());
    // A call must not wait unless the other transaction holds the same object, and that transaction stays open. The server's own
    // work may hold a lock for a moment.
    run(&mut two, "SET lock_timeout = '5s'");
    let mut blocked = Vec::new();
    for open in calls("one") {
        run(&mut one, &format!("BEGIN; SELECT {open}"));
        for call in calls("two") {
            run(&mut two, "BEGIN");
            match two.batch_execute(&format!("SELECT {call}")) {
                Ok(()) => {}
                Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                    blocked.push(format!("{call} waits for {open}"));
                }
                Err(error) => panic!("{call} beside {open}: {error:?}"),
            }
            run(&mut two, "ROLLBACK");
        }
        run(&mut one, "ROLLBACK");
    }
    assert_eq!(blocked, Vec::<String>::new());
    drop_roles(&mut session, &roles[..2]);
}

/// Calls delete rows of dropped tables and roles. A REPEATABLE READ transaction still sees such rows after another session has
/// deleted them, and must not fail because of them.
#[test]
fn rows_that_another_session_has_cleaned_up_fail_no_call_under_repeatable_read() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE ROLE watches_late; CREATE ROLE watches_left; CREATE TABLE t (id int); CREATE TABLE gone (id int)",
    );
    run(
        &mut session,
        "SELECT cache_watch('gone'), cache_grant('default', 'watches_left', 'read'); DROP TABLE gone; DROP ROLE watches_left",
    );
    let left =
        "SELECT (SELECT count(*) FROM pgcache.watches) || ' ' || (SELECT count(*) FROM pgcache.grants)";
    let mut one = database.connect();
    run(&mut one, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(text(&mut one, left).as_deref(), Some("1 1"));
    run(
        &mut session,
        "SELECT cache_watch('t', '{a}'), cache_grant('default', 'watches_late', 'read'); SELECT cache_unwatch('t')",
    );
    assert_eq!(text(&mut session, left).as_deref(), Some("0 1"));
    run(&mut one, "SELECT cache_watch('t', '{b}'), cache_grant('default', 'watches_late', 'write'); COMMIT");
    assert_eq!(text(&mut session, left).as_deref(), Some("1 2"));
    drop_roles(&mut session, &["watches_late"]);
}

/// A watch may begin while another transaction stores a value with its tag, after that transaction has looked up the tables of the
/// tag. The value does not depend on the table, so it must not be served. The next value must depend on it.
#[test]
fn a_watch_that_begins_meanwhile_leaves_no_value_without_its_table() {
    let database = Database::create();
    let [mut one, mut two, mut reader] = [(); 3].map(|()| database.connect());
    run(&mut two, "CREATE TABLE t (id int)");
    let get = "SELECT cache_get_text('k')";
    let set =
        "SELECT cache_set_text('k', 'v', tags => '{late}'), cache_set_text('other', 'v', tags => '{other}')";
    run(&mut one, &format!("BEGIN; {set}"));
    run(&mut two, "SELECT cache_watch('t', '{late}')");
    run(&mut one, "COMMIT");
    assert_eq!(text(&mut reader, get), None);
    assert_eq!(text(&mut reader, "SELECT cache_status()").as_deref(), Some("invalidated: tag late"));
    assert_eq!(text(&mut reader, "SELECT cache_get_text('other')").as_deref(), Some("v"));
    run(&mut one, set);
    assert_eq!(text(&mut reader, get).as_deref(), Some("v"));
    run(&mut two, "INSERT INTO t VALUES (1)");
    assert_eq!(text(&mut reader, get), None);
    // After the end of the watch, values with the tag do not depend on the table any more.
    run(&mut one, set);
    run(&mut two, "SELECT cache_unwatch('t')");
    assert_eq!(text(&mut reader, get), None);
    run(&mut one, set);
    run(&mut two, "INSERT INTO t VALUES (2)");
    assert_eq!(text(&mut reader, get).as_deref(), Some("v"));
    // The tags are not known if the rows were removed by TRUNCATE.
    run(&mut two, "SELECT cache_watch('t', '{late}')");
    run(&mut one, set);
    run(&mut two, "TRUNCATE pgcache.watches");
    assert_eq!(
        ["k", "other"].map(|key| text(&mut reader, &format!("SELECT cache_get_text('{key}')"))),
        [None, None]
    );
}
