//! Versions of the extension: an upgrade leads to what CREATE EXTENSION makes, the library serves older versions or says what to
//! do, and the files of a newer version do not disturb a running server.
//!
//! Only the current version can be built here. So the tests make older and newer versions from it: scripts with other names and
//! without some functions, and a library in which only the text of the version differs.

use pg_cache_testbed::{Cluster, Conf, Installation, Stop, wait_until};
use postgres::Client;
use postgres::error::SqlState;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Made-up versions. The library does not serve the first one. It serves the second one, because a suffix does not count. The third
/// one is the next release.
const TOO_OLD: &str = "0.0.9";
const OLD: &str = "0.1.0-old";
const NEXT: &str = "0.1.1";
/// The functions that the older versions do not have yet.
const ADDED: [&str; 2] = ["cache_ttl", "cache_touch"];

/// All objects of the extension, with everything that CREATE EXTENSION decides about them. An object of a new kind needs a line
/// here: without one, only its name and its comment are compared.
const OBJECTS: &str = "
    SELECT pg_describe_object(d.classid, d.objid, 0) || E'\n  ' || concat_ws(E'\n  ',
        'comment: ' || obj_description(d.objid, d.classid::regclass::name),
        (SELECT 'function: ' || pg_get_functiondef(p.oid) || ' owner ' || proowner::regrole || ' privileges ' || coalesce(proacl::text, '')
           FROM pg_proc AS p WHERE d.classid = 'pg_proc'::regclass AND p.oid = d.objid),
        (SELECT concat_ws(' ', 'relation:', relkind, relpersistence, relowner::regrole, relacl, reloptions, relreplident, relrowsecurity,
                          CASE WHEN relkind = 'v' THEN pg_get_viewdef(c.oid) END)
           FROM pg_class AS c WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid),
        (SELECT string_agg(concat_ws(' ', attnum, attname, format_type(atttypid, atttypmod), attnotnull, attcollation::regcollation, attacl,
                                     pg_get_expr(adbin, adrelid), col_description(attrelid, attnum)), E'\n  ' ORDER BY attnum)
           FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
          WHERE d.classid = 'pg_class'::regclass AND attrelid = d.objid AND attnum > 0),
        (SELECT string_agg(conname || ' ' || pg_get_constraintdef(oid), E'\n  ' ORDER BY conname)
           FROM pg_constraint WHERE d.classid = 'pg_class'::regclass AND conrelid = d.objid),
        (SELECT string_agg(pg_get_indexdef(indexrelid), E'\n  ' ORDER BY indexrelid::regclass::text)
           FROM pg_index WHERE d.classid = 'pg_class'::regclass AND indrelid = d.objid),
        (SELECT string_agg(concat(pg_get_triggerdef(oid), ' ', tgenabled), E'\n  ' ORDER BY tgname)
           FROM pg_trigger WHERE d.classid = 'pg_class'::regclass AND tgrelid = d.objid AND NOT tgisinternal),
        (SELECT concat_ws(' ', 'schema:', nspowner::regrole, nspacl) FROM pg_namespace WHERE d.classid = 'pg_namespace'::regclass AND oid = d.objid),
        (SELECT concat_ws(' ', 'type:', typowner::regrole, typacl, typtype, typlen, typbyval, typalign, typstorage, typinput, typoutput)
           FROM pg_type WHERE d.classid = 'pg_type'::regclass AND oid = d.objid),
        (SELECT concat_ws(' ', 'cast:', castfunc::regprocedure, castcontext, castmethod) FROM pg_cast WHERE d.classid = 'pg_cast'::regclass AND oid = d.objid),
        (SELECT concat_ws(' ', 'wrapper:', fdwowner::regrole, fdwacl, fdwhandler::regproc, fdwvalidator::regproc, fdwoptions)
           FROM pg_foreign_data_wrapper WHERE d.classid = 'pg_foreign_data_wrapper'::regclass AND oid = d.objid),
        (SELECT concat_ws(' ', 'server:', srvowner::regrole, srvacl, srvtype, srvversion, srvoptions)
           FROM pg_foreign_server WHERE d.classid = 'pg_foreign_server'::regclass AND oid = d.objid),
        (SELECT 'dumped: ' || condition
           FROM pg_extension, unnest(extconfig, extcondition) AS dumped(relation, condition)
          WHERE extname = 'pg_cache' AND d.classid = 'pg_class'::regclass AND relation = d.objid))
      FROM pg_depend AS d
     WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
       AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_cache')";

fn objects(session: &mut Client) -> BTreeSet<String> {
    let rows = session.query(OBJECTS, &[]).expect("the catalogs say");
    let objects: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(objects.len() > 100, "{} objects", objects.len());
    objects
}

/// Checks that the extension in the session's database consists of the same objects as a new one of the same version.
fn assert_is_like_new(session: &mut Client, cluster: &Cluster) {
    session.batch_execute("DROP DATABASE IF EXISTS fresh WITH (FORCE)").expect("it can be dropped");
    session.batch_execute("CREATE DATABASE fresh TEMPLATE template0").expect("it can be created");
    let mut fresh = cluster.connect("fresh");
    fresh.batch_execute("CREATE EXTENSION pg_cache").expect("it installs");
    let (upgraded, fresh) = (objects(session), objects(&mut fresh));
    let only =
        |left: &BTreeSet<String>, right| left.difference(right).cloned().collect::<Vec<_>>().join("\n");
    assert!(
        upgraded == fresh,
        "only after the upgrade:\n{}\nonly in a new extension:\n{}",
        only(&upgraded, &fresh),
        only(&fresh, &upgraded)
    );
}

fn script(from: &str) -> String {
    format!("pg_cache--{from}.sql")
}

/// Splits the script of CREATE EXTENSION into the part without the functions that were added, and the statements that add them.
fn split(script: &str) -> (String, String) {
    let (mut older, mut added) = (String::new(), "SELECT pgcache.require_library();\n".to_owned());
    let mut rest = script;
    while !rest.is_empty() {
        // Statements about a function begin and end with a line.
        let begins = |line: &str| {
            ADDED.iter().any(|name| {
                line.starts_with(&format!("CREATE  FUNCTION \"{name}\"("))
                    || line.starts_with(&format!("COMMENT ON FUNCTION {name}("))
            })
        };
        let line = rest.find('\n').map_or(rest.len(), |end| end + 1);
        let length = if begins(rest) { rest.find(";\n").expect("the statement ends") + 2 } else { line };
        let to = if begins(rest) { &mut added } else { &mut older };
        to.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    for name in ADDED {
        assert_eq!(added.matches(&format!("FUNCTION \"{name}\"(")).count(), 1, "{name} in {added}");
        assert_eq!(added.matches(&format!("ON FUNCTION {name}(")).count(), 1, "{name} in {added}");
    }
    (older, added)
}

/// Makes the scripts of both older versions, and of upgrades from them. The upgrade from the oldest one is a chain.
fn add_older_versions(installation: &Installation) {
    let (older, added) = split(&installation.read(&script(VERSION)));
    for old in [TOO_OLD, OLD] {
        installation.write(&script(old), &older);
    }
    installation.write(&script(&format!("{OLD}--{VERSION}")), &added);
    installation.write(&script(&format!("{TOO_OLD}--{OLD}")), "SELECT pgcache.require_library();");
}

/// Makes the script of a newer version, and of the upgrade to it, and makes it the version of CREATE EXTENSION.
fn add_next_version(installation: &Installation) {
    installation.write(&script(NEXT), &installation.read(&script(VERSION)));
    installation.write(&script(&format!("{VERSION}--{NEXT}")), "SELECT pgcache.require_library();");
    let control = installation.read("pg_cache.control");
    installation.write("pg_cache.control", &control.replace(&format!("'{VERSION}'"), &format!("'{NEXT}'")));
}

/// Runs some SQL and checks the error, which has the code "object not in prerequisite state". Returns its hint.
fn refused(session: &mut Client, sql: &str, message: &str) -> String {
    let error = session.batch_execute(sql).expect_err("it must be refused");
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!(error.message(), message);
    assert_eq!(error.code(), &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    error.hint().unwrap_or_default().to_owned()
}

fn text(session: &mut Client, sql: &str) -> Option<String> {
    session.query_one(sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

/// Runs a client program to its end.
fn run(program: &mut Command) {
    let output = program.output().expect("it starts");
    assert!(output.status.success(), "{program:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Returns the files in a directory of the repository whose names begin with `begin` and end with `.sql`, sorted.
fn files(directory: &str, begin: &str) -> Vec<PathBuf> {
    let path = PathBuf::from(format!("{}/../{directory}", env!("CARGO_MANIFEST_DIR")));
    let Ok(entries) = std::fs::read_dir(&path) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("the directory can be read").path());
    let is_one = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(begin) && name.ends_with(".sql")
    };
    let mut files: Vec<_> = paths.filter(is_one).collect();
    files.sort();
    files
}

/// The library serves an extension of an older version. A function that this version does not have is missing, and an upgrade
/// adds it in all sessions at once.
#[test]
fn an_older_extension_works_and_an_upgrade_makes_it_like_a_new_one() {
    let installation = Installation::copy();
    add_older_versions(&installation);
    let cluster = Cluster::start_on(installation.server(), &Conf::preloaded());
    let mut session = cluster.connect("postgres");
    session.batch_execute(&format!("CREATE EXTENSION pg_cache VERSION '{OLD}'")).expect("it installs");
    session
        .batch_execute(
            "SELECT cache_create_space('s'); CREATE TABLE t (i int); SELECT cache_watch('t');
             SELECT cache_set_text('k', 'v', tags => '{t}')",
        )
        .expect("the older version works");
    let error = session.batch_execute("SELECT cache_ttl('k')").expect_err("it is not there yet");
    assert_eq!(error.code(), Some(&SqlState::UNDEFINED_FUNCTION));

    let mut other = cluster.connect("postgres");
    assert_eq!(text(&mut other, "SELECT cache_get_text('k')").as_deref(), Some("v"));
    other.batch_execute("ALTER EXTENSION pg_cache UPDATE").expect("it upgrades");
    assert_is_like_new(&mut other, &cluster);
    assert_eq!(text(&mut session, "SELECT cache_ttl('k')::text").map(|_| ()), Some(()));
    // The tables of the older version keep their content.
    assert_eq!(text(&mut session, "SELECT cache_get_text('k')").as_deref(), Some("v"));
    session
        .batch_execute("SELECT cache_set_text('x', 'v', space => 's'); INSERT INTO t VALUES (1)")
        .expect("both are there");
    assert_eq!(text(&mut session, "SELECT cache_get_text('k')"), None);
}

/// With an extension that is too old for the library, calls raise an error, and its hint helps. Meanwhile, sessions that do not
/// use the cache work. After the upgrade, all sessions see the tables of the extension.
#[test]
fn an_extension_that_is_too_old_says_how_to_upgrade_it() {
    let installation = Installation::copy();
    add_older_versions(&installation);
    let cluster = Cluster::start_on(installation.server(), &Conf::preloaded());
    let mut session = cluster.connect("postgres");
    session
        .batch_execute(&format!(
            "CREATE TABLE t (i int); CREATE EXTENSION pg_cache VERSION '{TOO_OLD}';
             INSERT INTO pgcache.spaces (number, name) VALUES (16383, 's'); INSERT INTO pgcache.watches VALUES ('t'::regclass, '{{t}}')"
        ))
        .expect("it installs");
    let message = format!("the loaded library of pg_cache does not serve version {TOO_OLD} of the extension");
    let mut hint = String::new();
    for call in [
        "cache_get_text('k')",
        "cache_set('k', '1')",
        "cache_fetch('k', 'SELECT 1')",
        "cache_query_json('SELECT 1')",
        "cache_incr('k')",
        "cache_invalidate_tag('t')",
        "cache_watch('t')",
        "cache_create_space('new')",
        "cache_grant('default', 'public', 'read')",
        "cache_flush()",
        "cache_emit('e')",
        "name FROM cache_spaces",
        "cache_keys()",
        "* FROM cache_queries",
    ] {
        hint = refused(&mut session, &format!("SELECT {call}"), &message);
        assert_eq!(hint, "Run ALTER EXTENSION pg_cache UPDATE;");
    }
    let mut writer = cluster.connect("postgres");
    writer.batch_execute("INSERT INTO t VALUES (1)").expect("a write does not need the cache");

    // An upgrade that is rolled back leaves everything as it was.
    session.batch_execute("BEGIN; ALTER EXTENSION pg_cache UPDATE").expect("the chain of scripts");
    session
        .batch_execute("SELECT cache_set_text('k', 'v', tags => '{t}'); ROLLBACK")
        .expect("the upgraded extension works");
    refused(&mut session, "SELECT cache_get_text('k')", &message);

    session.batch_execute(hint.trim_start_matches("Run ")).expect("the advice is valid SQL");
    session
        .batch_execute("SELECT cache_set_text('k', 'v', tags => '{t}', space => 's')")
        .expect("the advice works");
    // This session has looked for watches before the upgrade, and must learn of them now.
    writer.batch_execute("INSERT INTO t VALUES (2)").expect("it writes");
    assert_eq!(text(&mut session, "SELECT cache_get_text('k', 's')"), None);
    drop(writer);
    assert_is_like_new(&mut session, &cluster);
}

/// The files of a newer version are installed over a running server: its sessions, old and new ones, keep the library that the
/// server has loaded. Scripts of the newer version are refused until the server is restarted. Then the extension of the old
/// version works, and can be upgraded. A dump of the old version can be restored.
#[test]
fn a_newer_version_over_a_running_server_waits_for_the_restart() {
    let installation = Installation::copy();
    let cluster = Cluster::start_on(installation.server(), &Conf::preloaded());
    let mut session = cluster.connect("postgres");
    session.batch_execute("CREATE EXTENSION pg_cache; SELECT cache_create_space('s')").expect("it installs");
    for name in ["other", "restored"] {
        session.batch_execute(&format!("CREATE DATABASE {name}")).expect("it can be created");
    }
    // Each client program writes and reads the file, and the test's account may be another one than the server's.
    let dump = std::env::temp_dir().join(format!("pg_cache-upgrade-{}.sql", std::process::id()));
    run(cluster.client("pg_dump").arg("-f").arg(&dump));

    installation.give_library_version(VERSION, NEXT);
    add_next_version(&installation);
    session.batch_execute("SELECT cache_set_text('k', 'v')").expect("an old session works");
    let mut new = cluster.connect("postgres");
    assert_eq!(text(&mut new, "SELECT cache_get_text('k')").as_deref(), Some("v"));
    let message = format!("version {NEXT} of pg_cache needs a newer library than the loaded one");
    let mut other = cluster.connect("other");
    for (session, sql) in
        [(&mut other, "CREATE EXTENSION pg_cache"), (&mut new, "ALTER EXTENSION pg_cache UPDATE")]
    {
        assert_eq!(refused(session, sql, &message), "Restart the server, and repeat the command.");
    }
    assert_eq!(text(&mut new, "SELECT cache_get_text('k')").as_deref(), Some("v"));
    other
        .batch_execute(&format!("CREATE EXTENSION pg_cache VERSION '{VERSION}'"))
        .expect("the old version can be had");

    drop((session, new, other));
    cluster.stop(Stop::Fast);
    cluster.resume();
    assert!(
        cluster.log().contains("pg_cache starts with an empty cache"),
        "another build has loaded the cache"
    );
    let mut session = cluster.connect("postgres");
    assert_eq!(text(&mut session, "SELECT cache_get_text('k')"), None);
    session.batch_execute("SELECT cache_set_text('k', 'v', space => 's')").expect("the old extension works");
    session.batch_execute("ALTER EXTENSION pg_cache UPDATE").expect("it upgrades");
    assert_eq!(
        text(&mut session, "SELECT extversion FROM pg_extension WHERE extname = 'pg_cache'").as_deref(),
        Some(NEXT)
    );
    assert_is_like_new(&mut session, &cluster);

    run(cluster
        .client("psql")
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "restored", "-f"])
        .arg(&dump));
    std::fs::remove_file(&dump).expect("it is the test's own file");
    let mut restored = cluster.connect("restored");
    assert_eq!(
        text(&mut restored, "SELECT extversion FROM pg_extension WHERE extname = 'pg_cache'").as_deref(),
        Some(NEXT)
    );
    restored.batch_execute("SELECT cache_set_text('k', 'v', space => 's')").expect("the space was restored");

    // Back to the older library: the extension is newer than the library now.
    drop((session, restored));
    installation.give_library_version(NEXT, VERSION);
    cluster.stop(Stop::Fast);
    cluster.resume();
    let message = format!("the loaded library of pg_cache does not serve version {NEXT} of the extension");
    let mut session = cluster.connect("postgres");
    let hint = refused(&mut session, "SELECT cache_get_text('k')", &message);
    assert_eq!(hint, format!("Install version {NEXT} of pg_cache or a later one, and restart the server."));
    wait_until("the refusal to end with the extension", || {
        session.batch_execute("DROP EXTENSION pg_cache").is_ok()
    });
}

/// Each released version (`sql/released/`) can be created with the library of today, which so has all of its functions, with the
/// same signatures. The chain of upgrade scripts makes it like a new extension.
#[test]
fn every_released_version_can_be_upgraded() {
    let released = files("sql/released", "pg_cache--");
    let updates = files("sql", "pg_cache--");
    for path in &updates {
        let text = std::fs::read_to_string(path).expect("it can be read");
        let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("--"));
        assert_eq!(
            first,
            Some("SELECT pgcache.require_library();"),
            "the first statement of {}",
            path.display()
        );
    }
    if released.is_empty() {
        return;
    }
    let installation = Installation::copy();
    let cluster = Cluster::start_on(installation.server(), &Conf::preloaded());
    for path in &released {
        let name = path.file_name().and_then(|name| name.to_str()).expect("it has a name");
        let version = name.trim_start_matches("pg_cache--").trim_end_matches(".sql");
        if version != VERSION {
            installation.write(name, &std::fs::read_to_string(path).expect("it can be read"));
        }
        let mut session = cluster.connect("postgres");
        session.batch_execute(&format!("CREATE EXTENSION pg_cache VERSION '{version}'")).expect(name);
        const SYMBOLS: &str = "
            SELECT prosrc || ' ' || proargtypes::regtype[]::text || ' ' || prorettype::regtype || ' ' || proisstrict || ' ' || proretset
              FROM pg_proc WHERE probin = '$libdir/pg_cache'";
        let symbols = |session: &mut Client| -> BTreeSet<String> {
            session.query(SYMBOLS, &[]).expect("the catalogs say").iter().map(|row| row.get(0)).collect()
        };
        let old = symbols(&mut session);
        session.batch_execute("ALTER EXTENSION pg_cache UPDATE").expect(name);
        let new = symbols(&mut session);
        let symbol = |signature: &str| signature.split(' ').next().unwrap_or_default().to_owned();
        let changed: Vec<_> =
            old.difference(&new).filter(|old| new.iter().any(|new| symbol(new) == symbol(old))).collect();
        assert!(changed.is_empty(), "a released C symbol has another signature now: {changed:?}");
        assert_is_like_new(&mut session, &cluster);
        session.batch_execute("DROP EXTENSION pg_cache").expect("it can be dropped");
    }
}
