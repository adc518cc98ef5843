//! Tests of spaces, grants and watches across sessions, dumps and restores, replication, copies of databases, and standbys. A
//! *space* is a named cache with its own options. A *grant* lets a role read or write in a space. A *watch* makes a tag stand for a
//! table, so that writes to the table invalidate the values with the tag.

use pg_cache_testbed::{Cluster, Conf, Database, Stop, wait_until};
use postgres::Client;
use postgres::error::SqlState;
use std::io::Write;
use std::process::Stdio;

/// Returns the text value of a key in a space, `None` for a miss, or the server's error.
fn get(session: &mut Client, key: &str, space: &str) -> Result<Option<String>, postgres::Error> {
    session.query_one("SELECT cache_get_text($1, $2)", &[&key, &space]).map(|row| row.get(0))
}

/// Runs statements that must succeed.
fn run(session: &mut Client, statements: &str) {
    session.batch_execute(statements).unwrap_or_else(|error| panic!("{statements}: {error}"));
}

/// A session keeps copies of spaces and grants. It must read them again when another session has committed a change of them.
#[test]
fn changes_of_a_space_apply_to_the_next_transaction_of_other_sessions() {
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
    // Changes of the table by hand count too, because a trigger reports them.
    run(&mut two, "UPDATE pgcache.spaces SET enabled = false WHERE name = 's'");
    assert_eq!(get(&mut one, "k", "s").expect("it may"), None);
    run(&mut two, "UPDATE pgcache.spaces SET enabled = true; SELECT cache_drop_space('s')");
    let unknown = get(&mut one, "k", "s").expect_err("it is gone");
    assert_eq!(unknown.code(), Some(&SqlState::UNDEFINED_OBJECT));
    run(&mut two, "SELECT cache_create_space('s')");
    assert_eq!(get(&mut one, "k", "s").expect("there is another one"), None);
    run(&mut one, "DROP ROLE spaces_reader");
}

/// The owner of a database is the only member of `pg_database_owner`. A session must notice a change of the owner, although no
/// row of the extension's tables has changed.
#[test]
fn a_former_owner_of_the_database_loses_the_grants_of_pg_database_owner() {
    let database = Database::create();
    let mut session = database.connect();
    let owned_by = |role| format!("ALTER DATABASE {} OWNER TO {role}", database.name());
    run(&mut session, "CREATE ROLE spaces_owner; CREATE ROLE spaces_heir");
    run(&mut session, &owned_by("spaces_owner"));
    run(&mut session, "SELECT cache_create_space('s'), cache_grant('s', 'pg_database_owner', 'read')");
    run(&mut session, "SET ROLE spaces_owner");
    assert!(get(&mut session, "k", "s").is_ok());
    run(&mut database.connect(), &owned_by("spaces_heir"));
    let refused = get(&mut session, "k", "s").expect_err("it owns nothing");
    assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    run(&mut session, &format!("RESET ROLE; {}", owned_by("postgres")));
    run(&mut session, "DROP ROLE spaces_owner; DROP ROLE spaces_heir");
}

/// A role that may write to all tables must not give itself a privilege, or change what others have created, by writing to the
/// tables of the extension.
#[test]
fn a_role_that_writes_all_data_writes_no_grant() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE ROLE writer_of_all IN ROLE pg_write_all_data, pg_read_all_data;
         SELECT cache_create_space('s'), cache_set_text('k', 'secret', space => 's');
         CREATE TABLE t (i int);
         SELECT cache_watch('t', '{a}'), cache_on_event('e', ARRAY['k'], space => 's');
         SET ROLE writer_of_all",
    );
    for attack in [
        "INSERT INTO pgcache.grants SELECT number, 'writer_of_all', 'read' FROM pgcache.spaces WHERE name = 's'",
        "INSERT INTO pgcache.dumped_grants SELECT number, 's', 'writer_of_all', 'read' FROM pgcache.spaces WHERE name = 's'",
        "UPDATE pgcache.spaces SET jitter = 0.5 WHERE name = 's'",
        "DELETE FROM pgcache.watches",
        "UPDATE pgcache.events SET targets = '{other}'",
    ] {
        let refused = session.batch_execute(attack).expect_err(attack);
        assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{attack}: {refused}");
    }
    let refused = get(&mut session, "k", "s").expect_err("it has no privilege");
    assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    // The table's owner may write to it.
    run(&mut session, "RESET ROLE; UPDATE pgcache.spaces SET jitter = 0.5 WHERE name = 's'");
    run(&mut session, "DROP ROLE writer_of_all");
}

/// A session reads the space and its grants one after the other. A change that commits in between must apply to the next call.
#[test]
fn a_change_during_the_lookup_of_a_space_is_not_missed() {
    let database = Database::create();
    let [mut one, mut two] = [(); 2].map(|()| database.connect());
    run(&mut two, "SELECT cache_create_space('s'), cache_set_text('k', 'v', space => 's')");
    run(&mut two, "CREATE ROLE spaces_slow; SELECT cache_grant('s', 'spaces_slow', 'read')");
    // The first session will read the space's row and then wait for this lock to read the grants.
    run(&mut two, "BEGIN; LOCK TABLE pgcache.grants; SELECT cache_alter_space('s', enabled => false)");
    run(&mut one, "SET ROLE spaces_slow");
    let looking = std::thread::spawn(move || {
        let _ = get(&mut one, "k", "s");
        one
    });
    let waits =
        "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'pgcache.grants'::regclass)";
    wait_until("the reader to wait", || two.query_one(waits, &[]).expect("it says").get(0));
    run(&mut two, "COMMIT");
    let mut one = looking.join().expect("it ends");
    assert_eq!(get(&mut one, "k", "s").expect("it may"), None);
    run(&mut two, "SELECT cache_revoke('s', 'spaces_slow', 'read')");
    assert!(get(&mut one, "k", "s").is_err());
    run(&mut two, "DROP ROLE spaces_slow");
}

/// Values are found by the numbers of their spaces, and the restored rows have the old numbers. The values of the former
/// extension must be misses all the same.
#[test]
fn a_recreated_extension_finds_no_values_of_restored_spaces() {
    let database = Database::create();
    let mut session = database.connect();
    run(&mut session, "SELECT cache_create_space('s'), cache_set_text('k', 'v', space => 's')");
    run(&mut session, "SELECT cache_set_text('k', 'v')");
    run(&mut session, "CREATE TABLE kept AS TABLE pgcache.spaces");
    run(&mut session, "DROP EXTENSION pg_cache");
    run(&mut session, "CREATE EXTENSION pg_cache; INSERT INTO pgcache.spaces SELECT * FROM kept");
    assert_eq!(get(&mut session, "k", "s").expect("it is there"), None);
    assert_eq!(get(&mut session, "k", "default").expect("it is there"), None);
    run(&mut session, "SELECT cache_set_text('k', 'v', space => 's')");
    assert_eq!(get(&mut session, "k", "s").expect("it is there").as_deref(), Some("v"));
}

/// The number of the default space is 0. A space whose number is the OID of the extension's table is an ordinary space, and must
/// not get the values of the default space.
#[test]
fn a_restored_space_with_the_oid_of_the_spaces_table_is_not_the_default_space() {
    let database = Database::create();
    let mut session = database.connect();
    let restored = "INSERT INTO pgcache.spaces (number, name) VALUES ('pgcache.spaces'::regclass, 'twin')";
    run(&mut session, restored);
    run(&mut session, "SELECT cache_set_text('k', 'v')");
    assert_eq!(get(&mut session, "k", "twin").expect("it may"), None);
}

/// A scan for each of the 100 spaces would make the view slow in databases with many spaces.
#[test]
fn the_view_of_spaces_scans_the_grants_once() {
    let database = Database::create();
    let mut session = database.connect();
    run(&mut session, "CREATE ROLE spaces_many");
    run(&mut session, "INSERT INTO pgcache.spaces (number, name) SELECT i, i FROM generate_series(1, 100) i");
    run(
        &mut session,
        "INSERT INTO pgcache.grants SELECT i, 'spaces_many', 'read' FROM generate_series(1, 100) i",
    );
    run(&mut session, "SET ROLE spaces_many");
    let scans = "SELECT seq_scan + coalesce(idx_scan, 0) FROM pg_stat_xact_all_tables
                 WHERE schemaname = 'pgcache' AND relname = 'grants'";
    let mut transaction = session.transaction().expect("it begins");
    let seen = transaction.query_one("SELECT count(*) FROM cache_spaces", &[]).expect("it may");
    assert_eq!(seen.get::<_, i64>(0), 100);
    assert_eq!(transaction.query_one(scans, &[]).expect("it says").get::<_, i64>(0), 1);
    drop(transaction);
    run(&mut session, "RESET ROLE; DROP ROLE spaces_many");
}

/// A new session looks up a space that it does not know yet. A sequential scan would make that slow in databases with many
/// spaces.
#[test]
fn the_lookup_of_a_space_uses_only_indexes() {
    let database = Database::create();
    let mut session = database.connect();
    run(&mut session, "CREATE ROLE spaces_one; SELECT cache_create_space('s'), cache_create_space('\u{e9}')");
    run(&mut session, "SELECT cache_grant('s', 'spaces_one', 'read'), cache_grant('\u{e9}', '-', 'read')");
    let scans = "SELECT sum(seq_scan)::int8, sum(idx_scan)::int8 FROM pg_stat_xact_all_tables
                 WHERE schemaname = 'pgcache'";
    for name in ["s", "\u{e9}"] {
        let mut reader = database.connect();
        run(&mut reader, "SET ROLE spaces_one");
        let mut transaction = reader.transaction().expect("it begins");
        transaction.query_one("SELECT cache_get_text('k', $1)", &[&name]).expect("it may");
        let scans = transaction.query_one(scans, &[]).expect("it says");
        // One index scan finds the space, one its grants.
        assert_eq!((scans.get::<_, i64>(0), scans.get::<_, i64>(1)), (0, 2), "{name}");
    }
    run(&mut session, "DROP ROLE spaces_one");
}

/// The extension's tables can be replicated. The apply worker fires only triggers that are enabled for it, and the trigger that
/// reports changes of these tables must be one of them.
#[test]
fn sessions_see_the_spaces_and_grants_that_a_subscription_applies() {
    let [from, to] = [(); 2].map(|()| Database::create());
    let [mut one, mut two] = [&from, &to].map(Database::connect);
    run(&mut one, "CREATE ROLE spaces_far; CREATE PUBLICATION p FOR ALL TABLES");
    run(&mut one, "SELECT pg_create_logical_replication_slot('spaces_far', 'pgoutput')");
    let socket = from.cluster().socket_dir().display();
    run(
        &mut two,
        &format!(
            "CREATE SUBSCRIPTION spaces_far CONNECTION 'host={socket} user=postgres dbname={}' PUBLICATION p
             WITH (create_slot = false, slot_name = 'spaces_far', copy_data = false)",
            from.name()
        ),
    );
    run(&mut one, "SELECT cache_create_space('s'), cache_grant('s', 'spaces_far', 'read')");
    let mut eyes = to.connect();
    let mut grants =
        || -> i64 { eyes.query_one("SELECT count(*) FROM pgcache.grants", &[]).expect("it says").get(0) };
    wait_until("the grant", || grants() == 1);
    run(&mut two, "SET ROLE spaces_far");
    assert!(get(&mut two, "k", "s").is_ok());
    run(&mut one, "SELECT cache_revoke('s', 'spaces_far', 'read')");
    wait_until("its end", || grants() == 0);
    // The apply worker tells the sessions of its changes a moment after these are visible.
    wait_until("the refusal", || match get(&mut two, "k", "s") {
        Ok(_) => false,
        Err(error) => error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE),
    });
    run(&mut two, "RESET ROLE");
    run(&mut two, "DROP SUBSCRIPTION spaces_far");
    run(&mut one, "DROP ROLE spaces_far");
}

/// The number of a new space is an OID. It must be another than the numbers of spaces and grants that a restore has brought.
#[test]
fn a_new_space_gets_neither_the_number_nor_the_grants_of_a_restored_space() {
    let database = Database::create();
    let mut session = database.connect();
    // The next object of the cluster gets the next OID, unless a concurrent test has taken it.
    run(
        &mut session,
        "CREATE TABLE last (); INSERT INTO pgcache.spaces (number, name)
         SELECT 'last'::regclass::oid::int8 + i, 'restored ' || i FROM generate_series(1, 50) AS i WHERE i % 2 = 1;
         INSERT INTO pgcache.grants
         SELECT 'last'::regclass::oid::int8 + i, 0, 'read' FROM generate_series(1, 50) AS i WHERE i % 2 = 0",
    );
    run(&mut session, "SELECT cache_create_space('new ' || i) FROM generate_series(1, 20) AS i");
    let readable = "SELECT count(*) FROM pgcache.spaces JOIN pgcache.grants ON space = number";
    assert_eq!(session.query_one(readable, &[]).expect("it says").get::<_, i64>(0), 0);
}

/// Invalidations of a tag, a space and all spaces must leave the values of the other database, which has the same names.
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

/// The dump is restored into another database of the cluster. Grants of a role that was dropped before must not keep it from
/// being restored.
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
    let spaces: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(spaces, [("default".into(), "8B".into()), ("s".into(), "7B".into())]);
    assert_eq!(get(&mut session, "k", "s").expect("it may"), None);
    assert_eq!(get(&mut session, "k", "default").expect("it may"), None);
    run(&mut session, "SET ROLE spaces_dumped; SELECT cache_set_text('k', 'v', space => 's')");
    assert_eq!(get(&mut session, "k", "default").expect("it may"), None);
    run(&mut session, "RESET ROLE; DROP ROLE spaces_dumped");
}

/// If the cluster lacks a role, the restore must warn of each grant to that role, and restore all other grants.
#[test]
fn a_restore_without_a_role_loses_only_the_grants_of_that_role() {
    let [from, to] = [(); 2].map(|()| Cluster::start(&Conf::preloaded()));
    let mut session = from.connect("postgres");
    run(
        &mut session,
        r#"CREATE EXTENSION pg_cache; CREATE ROLE stays; CREATE ROLE "Odd role"; CREATE ROLE missing; CREATE ROLE dropped;
           SELECT cache_create_space('shop');
           SELECT cache_grant('shop', 'missing', 'write'), cache_grant('shop', 'stays', 'write'), cache_grant('shop', 'dropped', 'read'),
               cache_grant('shop', 'public', 'read'), cache_grant('default', 'missing', 'read'),
               cache_grant('default', '"Odd role"', 'admin');
           DROP ROLE dropped"#,
    );
    run(&mut to.connect("postgres"), r#"CREATE ROLE stays; CREATE ROLE "Odd role""#);
    let grants = |session: &mut Client| -> Vec<String> {
        let query = "SELECT concat_ws(' ', space, grantee, privilege) FROM cache_grants";
        session.query(query, &[]).expect("the view is there").iter().map(|row| row.get(0)).collect()
    };
    let mut dumped = grants(&mut session);
    assert_eq!(dumped.len(), 5, "{dumped:?}");
    dumped.retain(|grant| !grant.contains("missing"));

    for (dump, database) in [(&["-Fc"][..], "as_archive"), (&["--inserts"][..], "as_statements")] {
        run(&mut to.connect("postgres"), &format!("CREATE DATABASE {database}"));
        let dump = from.client("pg_dump").args(dump).arg("postgres").output().expect("pg_dump runs");
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        let mut command = match database {
            "as_archive" => to.client("pg_restore"),
            _ => to.client("psql"),
        };
        match database {
            "as_archive" => command.args(["--exit-on-error", "--verbose", "--dbname", database]),
            _ => command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", database]),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut restore = command.spawn().expect("the program runs");
        restore.stdin.take().expect("a pipe").write_all(&dump.stdout).expect("it reads");
        let output = restore.wait_with_output().expect("it ends");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        let warnings = told.matches("WARNING:  role \"missing\" does not exist").count();
        let hint = "Run: CREATE ROLE missing; SELECT cache_grant('shop', 'missing', 'write');";
        assert!(warnings == 2 && told.contains(hint), "{told}");

        let mut session = to.connect(database);
        assert_eq!(grants(&mut session), dumped, "{database}");
        let left: i64 =
            session.query_one("SELECT count(*) FROM pgcache.dumped_grants", &[]).expect("it counts").get(0);
        assert_eq!(left, 0);
        run(&mut session, "SET ROLE stays; SELECT cache_set_text('k', 'v', space => 'shop')");
        assert_eq!(get(&mut session, "k", "shop").expect("it may").as_deref(), Some("v"));
    }
}

/// The table of watches stores OIDs, and a dump stores the tables' names at that time. The restore runs section by section, because
/// a session may read the list of watches before the section that restores it.
#[test]
fn a_dump_carries_watches_to_the_tables_of_their_names() {
    let [from, to] = [(); 2].map(|()| Database::create_empty());
    let mut session = from.connect();
    run(
        &mut session,
        r#"CREATE EXTENSION pg_cache; CREATE SCHEMA was;
           CREATE TABLE was.orders (id int); CREATE TABLE was."Odd name" (id int); CREATE TABLE was.dropped (id int);
           CREATE TABLE was.parts (id int) PARTITION BY RANGE (id);
           CREATE TABLE was.low PARTITION OF was.parts FOR VALUES FROM (0) TO (10);
           CREATE MATERIALIZED VIEW was.m AS SELECT 1 AS id;
           SELECT cache_watch('was.orders', '{sold,all}'), cache_watch('was."Odd name"', '{odd}'),
               cache_watch('was.parts'), cache_watch('was.m', '{m}'), cache_watch('was.dropped');
           DROP TABLE was.dropped; ALTER SCHEMA was RENAME TO shop; ALTER TABLE shop.orders RENAME TO sales"#,
    );
    let watches = |session: &mut Client| -> Vec<(String, Vec<String>)> {
        let query = "SELECT relation::text, tags FROM cache_watches ORDER BY relation::text COLLATE \"C\"";
        let rows = session.query(query, &[]).expect("the view is there");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    let number = |session: &mut Client| -> u32 {
        session.query_one("SELECT 'shop.sales'::regclass::oid", &[]).expect("it is there").get(0)
    };
    let mut dumped = watches(&mut session);
    dumped.retain(|(_, tags)| *tags != ["dropped"]);
    assert_eq!(dumped.len(), 4, "{dumped:?}");

    let dump = from.client("pg_dump").arg("-Fc").output().expect("pg_dump runs");
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let restore = |section: &str| {
        let mut command = to.client("pg_restore");
        command.args(["--exit-on-error", "--section", section, "--dbname", to.name()]);
        let mut restore = command.stdin(Stdio::piped()).spawn().expect("pg_restore runs");
        restore.stdin.take().expect("a pipe").write_all(&dump.stdout).expect("pg_restore reads");
        assert!(restore.wait().expect("pg_restore ends").success(), "{section}");
    };
    restore("pre-data");
    let mut early = to.connect();
    let store = "SELECT cache_set_text(tag, 'v', tags => ARRAY[tag]) FROM unnest('{sold,all,odd,parts,m}'::text[]) AS tag";
    run(&mut early, store);
    assert_eq!(get(&mut early, "odd", "default").expect("it may").as_deref(), Some("v"));
    restore("data");
    restore("post-data");
    assert_eq!(watches(&mut early), dumped);
    assert_ne!(number(&mut early), number(&mut session), "another table of that name");
    assert_eq!(get(&mut early, "odd", "default").expect("it may"), None, "the tag has stood for nothing");
    for (write, tags) in [
        ("INSERT INTO shop.sales VALUES (1)", &["sold", "all"][..]),
        (r#"INSERT INTO shop."Odd name" VALUES (1)"#, &["odd"]),
        ("INSERT INTO shop.low VALUES (1)", &["parts"]),
        ("REFRESH MATERIALIZED VIEW shop.m", &["m"]),
    ] {
        run(&mut early, store);
        run(&mut to.connect(), write);
        for tag in ["sold", "all", "odd", "parts", "m"] {
            let found = get(&mut early, tag, "default").expect("it may");
            assert_eq!(found.is_none(), tags.contains(&tag), "{write}: {tag}");
        }
    }
}

/// A copy of a database has the spaces of its template, but none of its cached values.
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

/// Nothing is cached during recovery. A call that would only fill the cache succeeds without an effect. A call that promises an
/// invalidation cannot keep the promise, so it must fail, and so must a change of the extension's tables.
#[test]
fn on_a_standby_reads_miss_sets_store_nothing_and_invalidations_fail() {
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
    assert_eq!(status(&mut session), "bypass: the server is in recovery");
    let stored = session.query_one("SELECT cache_set_text('k', 'v', space => 's')", &[]).expect("it may");
    assert!(!stored.get::<_, bool>(0));
    assert_eq!(status(&mut session), "bypass: the server is in recovery");
    let counted =
        session.query_one("SELECT cache_incr('c', 3), cache_touch('k', '1 s')", &[]).expect("it may");
    assert_eq!((counted.get::<_, i64>(0), counted.get::<_, bool>(1)), (3, false));
    for statement in [
        "SELECT cache_delete('k')",
        "SELECT cache_delete_many('{k}')",
        "SELECT cache_invalidate_tag('t')",
        "SELECT cache_invalidate_tags('{t}')",
        "SELECT cache_invalidate_pattern('k*')",
        "SELECT cache_flush('s')",
        "SELECT cache_flush('*')",
        "SELECT cache_drop_space('s')",
    ] {
        let error = session.batch_execute(statement).expect_err(statement);
        assert_eq!(error.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION), "{statement}");
        assert!(error.as_db_error().is_some_and(|error| error.hint().is_some()), "{statement}");
    }
    for statement in [
        "SELECT cache_create_space('t')",
        "SELECT cache_alter_space('s', scope => 'role')",
        "SELECT cache_grant('s', 'pg_monitor', 'read')",
        "SELECT cache_revoke('s', 'pg_monitor', 'read')",
    ] {
        let error = session.batch_execute(statement).expect_err(statement);
        assert_eq!(error.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION), "{statement}");
    }
    assert!(get(&mut session, "k", "unknown").is_err(), "bad input is told here, too");

    // The standby is promoted, and its cache starts to work.
    run(&mut session, "SELECT pg_promote()");
    assert_eq!(get(&mut session, "k", "s").expect("it may"), None);
    run(&mut session, "SELECT cache_set_text('k', 'v', space => 's'), cache_invalidate_tag('t')");
    assert_eq!(get(&mut session, "k", "s").expect("it may").as_deref(), Some("v"));
}
