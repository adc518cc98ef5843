//! Tests of the digests of a session's environment, that is, of its roles, its search path and its settings. The key of each stored
//! result contains a digest, so a session gets only results from sessions with the same digest. The *basic digest* covers the
//! settings that can change the result of any query. The *full digest* covers all settings that can differ between sessions; it
//! is for queries that read settings by name (`src/pg/environment/digest.rs`). So a setting that can change a result must change
//! the basic digest, and any other setting must change the full digest only. Functions that only debug builds have return the
//! digests.

use pg_cache_testbed::{Cluster, Conf, Database, Server, wait_until};
use postgres::Client;

/// Declares the functions of debug builds.
const FUNCTIONS: &str = "
    CREATE FUNCTION environment_digest(bool) RETURNS text LANGUAGE c VOLATILE
        AS '$libdir/pg_cache', 'environment_digest_wrapper';
    CREATE FUNCTION names_temporary(text[]) RETURNS bool LANGUAGE c VOLATILE
        AS '$libdir/pg_cache', 'names_temporary_wrapper';
    CREATE FUNCTION names_in_search_path() RETURNS text[] LANGUAGE c VOLATILE
        AS '$libdir/pg_cache', 'names_in_search_path_wrapper'";

/// Opens a session in a database that has the functions.
fn session(database: &Database) -> Client {
    let mut session = database.connect();
    session.batch_execute(FUNCTIONS).unwrap();
    session
}

/// Returns the basic and the full digest.
fn digests(session: &mut Client) -> (String, String) {
    let row =
        session.query_one("SELECT public.environment_digest(false), public.environment_digest(true)", &[]);
    let row = row.unwrap();
    (row.get(0), row.get(1))
}

/// Loads those of these libraries that the server has.
fn load(session: &mut Client, libraries: &[&str]) {
    for library in libraries.iter().filter(|library| !Server::from_env().lacks(library)) {
        session.batch_execute(&format!("LOAD '{library}'")).unwrap();
    }
}

fn basic(session: &mut Client) -> String {
    digests(session).0
}

/// Fails if a session could get a result that was computed under another value of one of these settings, or if the digests do not
/// return with the value.
#[test]
fn a_setting_that_can_change_results_changes_the_digests() {
    let database = Database::create();
    let mut session = session(&database);
    load(&mut session, &["pg_trgm", "plpgsql"]);
    let before = digests(&mut session);
    for (change, undo) in [
        ("SET TimeZone = 'Asia/Tokyo'", "RESET TimeZone"),
        ("SET DateStyle = 'German'", "RESET DateStyle"),
        ("SET IntervalStyle = 'iso_8601'", "RESET IntervalStyle"),
        ("SET extra_float_digits = 0", "RESET extra_float_digits"),
        ("SET bytea_output = 'escape'", "RESET bytea_output"),
        ("SET lc_numeric = 'POSIX'", "RESET lc_numeric"),
        ("SET lc_monetary = 'POSIX'", "RESET lc_monetary"),
        ("SET lc_time = 'POSIX'", "RESET lc_time"),
        ("SET lc_messages = 'POSIX'", "RESET lc_messages"),
        ("SET search_path = other, public", "RESET search_path"),
        ("SET search_path = ''", "RESET search_path"),
        ("SET search_path = pg_temp, \"$user\", public", "RESET search_path"),
        ("SET row_security = off", "RESET row_security"),
        ("SET ROLE pg_monitor", "RESET ROLE"),
        ("SET SESSION AUTHORIZATION pg_monitor", "RESET SESSION AUTHORIZATION"),
        ("SET xmlbinary = 'hex'", "RESET xmlbinary"),
        ("SET xmloption = 'document'", "RESET xmloption"),
        ("SET default_text_search_config = 'simple'", "SET default_text_search_config TO DEFAULT"),
        ("SET timezone_abbreviations = 'India'", "RESET timezone_abbreviations"),
        ("SET array_nulls = off", "RESET array_nulls"),
        ("SET transform_null_equals = on", "RESET transform_null_equals"),
        ("SET quote_all_identifiers = on", "RESET quote_all_identifiers"),
        ("SET backslash_quote = off", "RESET backslash_quote"),
        ("SET standard_conforming_strings = off", "RESET standard_conforming_strings"),
        ("SET gin_fuzzy_search_limit = 5", "RESET gin_fuzzy_search_limit"),
        ("SET session_replication_role = 'replica'", "RESET session_replication_role"),
        ("SET client_encoding = 'LATIN1'", "RESET client_encoding"),
        ("SET lo_compat_privileges = on", "RESET lo_compat_privileges"),
        ("SET pg_trgm.similarity_threshold = 0.5", "RESET pg_trgm.similarity_threshold"),
        ("SET plpgsql.variable_conflict = 'use_column'", "RESET plpgsql.variable_conflict"),
    ] {
        if change.contains("pg_trgm") && database.cluster().server().lacks("pg_trgm") {
            continue;
        }
        session.batch_execute(change).unwrap();
        let during = digests(&mut session);
        assert_ne!(during.0, before.0, "basic, {change}");
        assert_ne!(during.1, before.1, "full, {change}");
        session.batch_execute(undo).unwrap();
        assert_eq!(digests(&mut session), before, "{undo}");
    }
}

/// The names are from the server, so that no harmless setting is missing here that this version has. `counting` has those settings
/// that are in no list of `src/pg/environment/harmless.rs`, so that they are part of the basic digest. A new setting of the server
/// must be added to one of the two lists.
#[test]
fn a_setting_that_cannot_change_results_changes_the_full_digest_only() {
    let database = Database::create();
    let mut session = session(&database);
    let counting = [
        "DateStyle",
        "IntervalStyle",
        "TimeZone",
        "allow_system_table_mods",
        "array_nulls",
        "backslash_quote",
        "bytea_output",
        "client_encoding",
        "composite_type_mismatch",
        "default_text_search_config",
        "dynamic_library_path",
        "extra_float_digits",
        "gin_fuzzy_search_limit",
        "ignore_checksum_failure",
        "ignore_system_indexes",
        "lc_messages",
        "lc_monetary",
        "lc_numeric",
        "lc_time",
        "lo_compat_privileges",
        "local_preload_libraries",
        "quote_all_identifiers",
        "restrict_nonsystem_relation_kind",
        "row_security",
        "search_path",
        "session_preload_libraries",
        "session_replication_role",
        "standard_conforming_strings",
        "stats_fetch_consistency",
        "timezone_abbreviations",
        "transform_null_equals",
        "xmlbinary",
        "xmloption",
        "zero_damaged_pages",
    ];
    // A value that the setting does not have and probably accepts. A timeout of a millisecond would end the session.
    let settings = session
        .query(
            "SELECT name, CASE vartype WHEN 'bool' THEN CASE setting WHEN 'on' THEN 'off' ELSE 'on' END
                                       WHEN 'enum' THEN (SELECT min(v) FROM unnest(enumvals) v WHERE v <> setting)
                                       WHEN 'string' THEN 'changed'
                                       ELSE CASE setting WHEN max_val THEN min_val
                                                         ELSE (setting::float8 + CASE vartype WHEN 'real' THEN 0.125 ELSE 1 END)::text
                                            END END
             FROM pg_settings WHERE context IN ('user', 'superuser') AND name NOT LIKE '%.%' AND name NOT LIKE '%timeout'
                 AND NOT 'NO_RESET' = ANY (pg_settings_get_flags(name)) ORDER BY 1",
            &[],
        )
        .unwrap();
    let before = digests(&mut session);
    let (mut changed, mut refused) = (0, Vec::new());
    for setting in &settings {
        let (name, value): (&str, Option<&str>) = (setting.get(0), setting.get(1));
        if counting.contains(&name) {
            continue;
        }
        let Some(value) = value else { continue };
        if session.batch_execute(&format!("SET {name} = '{value}'")).is_err() {
            refused.push(name.to_owned());
            continue;
        }
        let during = digests(&mut session);
        assert_eq!(during.0, before.0, "basic, {name}");
        // The server's own code overrides a few values.
        changed += i32::from(during.1 != before.1);
        session.batch_execute(&format!("RESET {name}")).unwrap();
        assert_eq!(digests(&mut session), before, "RESET {name}");
    }
    assert!(changed > 100, "only {changed} settings changed the full digest; refused: {refused:?}");
}

/// A *placeholder* is a setting that no library has defined. Fails if it separates the results of queries that do not read
/// settings, or if it does not separate the others.
#[test]
fn a_placeholder_changes_the_full_digest_only() {
    let database = Database::create();
    let mut session = session(&database);
    let before = digests(&mut session);
    session.batch_execute("SET app.tenant = 'a'").unwrap();
    let a = digests(&mut session);
    session.batch_execute("SET app.tenant = 'b'").unwrap();
    let b = digests(&mut session);
    session.batch_execute("SET app.tenant = ''").unwrap();
    let empty = digests(&mut session);
    assert_eq!((&a.0, &b.0, &empty.0), (&before.0, &before.0, &before.0));
    assert!(a.1 != before.1 && b.1 != before.1 && a.1 != b.1 && empty.1 != a.1 && empty.1 != b.1);
    // `current_setting` returns an empty text after a reset, and null for a setting that the session has never set.
    session.batch_execute("RESET app.tenant").unwrap();
    let reset = digests(&mut session);
    assert_eq!(reset.0, before.0);
    assert_ne!(reset.1, before.1);
}

/// Fails if a setting still counts as a placeholder after its library was loaded, or if the digest uses the freed record of a
/// placeholder.
#[test]
fn a_library_replaces_its_placeholders() {
    let database = Database::create();
    if database.cluster().server().lacks("pg_trgm") {
        return;
    }
    let mut session = session(&database);
    let before = basic(&mut session);
    session
        .batch_execute("SET pg_trgm.similarity_threshold = 0.5; SET pg_trgm.unknown = 1; SET other.one = 1")
        .unwrap();
    let placeholders = digests(&mut session);
    assert_eq!(placeholders.0, before);
    // The number of settings stays the same if as many placeholders go as settings come.
    session.batch_execute("LOAD 'pg_trgm'").unwrap();
    let loaded = digests(&mut session);
    assert_ne!(loaded.0, before);
    session.batch_execute("RESET pg_trgm.similarity_threshold").unwrap();
    assert_eq!(basic(&mut session), before);
    assert_ne!(digests(&mut session).1, loaded.1);
}

/// Fails if a session that has loaded more libraries than another one gets no results of it, although all settings have their
/// defaults.
#[test]
fn loading_a_library_changes_nothing_by_itself() {
    let database = Database::create();
    let mut session = session(&database);
    let before = digests(&mut session);
    load(&mut session, &["pg_trgm", "plpgsql", "auto_explain"]);
    assert_eq!(digests(&mut session), before);
    session.batch_execute("SET auto_explain.log_min_duration = 100").unwrap();
    assert_eq!(basic(&mut session), before.0);
    assert_ne!(digests(&mut session).1, before.1);
}

/// Fails if a session with other settings of pg_cache stores its results where other sessions do not look.
#[test]
fn our_own_settings_change_the_full_digest_only() {
    let database = Database::create();
    let mut session = session(&database);
    let before = digests(&mut session);
    session.batch_execute("SET pg_cache.bypass = on; SET pg_cache.default_ttl = '1min'").unwrap();
    assert_eq!(basic(&mut session), before.0);
    assert_ne!(digests(&mut session).1, before.1);
}

/// Fails if the session keeps the digest of settings that a rollback, the end of a savepoint or the end of SET LOCAL has taken
/// back.
#[test]
fn a_rollback_restores_the_digests() {
    let database = Database::create();
    let mut session = session(&database);
    session.batch_execute("SET app.tenant = 'a'").unwrap();
    let before = digests(&mut session);
    let changes = "TimeZone = 'Asia/Tokyo'; SET LOCAL app.tenant = 'b'; SET LOCAL ROLE pg_monitor";
    session.batch_execute(&format!("BEGIN; SET LOCAL {changes}")).unwrap();
    let during = digests(&mut session);
    assert!(during.0 != before.0 && during.1 != before.1);
    session.batch_execute("ROLLBACK").unwrap();
    assert_eq!(digests(&mut session), before);
    session.batch_execute("BEGIN; SAVEPOINT one; SET TimeZone = 'Asia/Tokyo'").unwrap();
    assert_ne!(basic(&mut session), before.0);
    session.batch_execute("ROLLBACK TO one").unwrap();
    assert_eq!(digests(&mut session), before);
    session.batch_execute("SET LOCAL TimeZone = 'Asia/Tokyo'; COMMIT").unwrap();
    assert_eq!(digests(&mut session), before);
}

/// Fails if a query inside of a function with a SET clause gets results that belong to the settings outside of it.
#[test]
fn a_function_has_the_digest_of_its_own_settings() {
    let database = Database::create();
    let mut session = session(&database);
    session
        .batch_execute(
            "CREATE FUNCTION in_tokyo() RETURNS text LANGUAGE plpgsql SET TimeZone = 'Asia/Tokyo'
                 AS 'BEGIN RETURN public.environment_digest(false); END';
             CREATE FUNCTION with_path() RETURNS text LANGUAGE plpgsql SET search_path = ''
                 AS 'BEGIN RETURN public.environment_digest(false); END'",
        )
        .unwrap();
    let before = basic(&mut session);
    let row = session
        .query_one(
            "SELECT environment_digest(false), in_tokyo(), with_path(), environment_digest(false)",
            &[],
        )
        .unwrap();
    let [outside, tokyo, path, after]: [String; 4] = std::array::from_fn(|column| row.get(column));
    assert_eq!((&outside, &after), (&before, &before));
    assert!(tokyo != before && path != before && tokyo != path);
    session.batch_execute("SET TimeZone = 'Asia/Tokyo'").unwrap();
    assert_eq!(basic(&mut session), tokyo);
}

/// Fails if a query inside of a SECURITY DEFINER function shares results with queries of the caller, or with direct calls of the
/// owner.
#[test]
fn a_security_definer_has_a_digest_of_its_own() {
    let database = Database::create();
    let mut session = session(&database);
    session
        .batch_execute(
            "CREATE FUNCTION as_owner() RETURNS text LANGUAGE plpgsql SECURITY DEFINER
                 AS 'BEGIN RETURN public.environment_digest(false); END'",
        )
        .unwrap();
    let own = basic(&mut session);
    session.batch_execute("SET ROLE pg_monitor").unwrap();
    let reader = basic(&mut session);
    let definer: String = session.query_one("SELECT as_owner()", &[]).unwrap().get(0);
    assert!(definer != reader && definer != own);
}

/// Fails if two sessions with the same settings share no results, because of the order of the changes, loaded libraries, or
/// temporary tables.
#[test]
fn sessions_with_equal_settings_have_equal_digests() {
    let database = Database::create();
    let mut first = session(&database);
    let mut second = database.connect();
    assert_eq!(digests(&mut first), digests(&mut second));
    first.batch_execute("SET TimeZone = 'Asia/Tokyo'; SET app.tenant = 'a'; CREATE TEMP TABLE t ()").unwrap();
    load(&mut second, &["pg_trgm"]);
    second
        .batch_execute("SET app.tenant = 'a'; SET TimeZone = 'Asia/Tokyo'; CREATE TEMP TABLE u ()")
        .unwrap();
    assert_eq!(digests(&mut first), digests(&mut second));
}

/// Fails if the digest covers only the text of `search_path` and not the schemas that it leads to, or only some of many schemas.
#[test]
fn a_new_schema_in_the_search_path_changes_the_digest() {
    let database = Database::create();
    let mut session = session(&database);
    session.batch_execute("SET search_path = later, public").unwrap();
    let before = basic(&mut session);
    session.batch_execute("CREATE SCHEMA later").unwrap();
    assert_ne!(basic(&mut session), before);
    session.batch_execute("DROP SCHEMA later").unwrap();
    assert_eq!(basic(&mut session), before);
    // More schemas than the buffer for the search path has room for.
    let names: Vec<String> = (0..50).map(|number| format!("many_{number}")).collect();
    let create: String = names.iter().map(|name| format!("CREATE SCHEMA {name};")).collect();
    session.batch_execute(&format!("{create} SET search_path = {}, public", names.join(", "))).unwrap();
    let before = basic(&mut session);
    assert_eq!(basic(&mut session), before);
    session.batch_execute("DROP SCHEMA many_49; CREATE SCHEMA many_49").unwrap();
    assert_ne!(basic(&mut session), before);
}

/// Fails if a session misses a change of the configuration files, or if a setting that changes no result changes the basic digest.
#[test]
fn a_reload_changes_the_digests() {
    let cluster = Cluster::start(&Conf::preloaded());
    let mut session = cluster.connect("postgres");
    session.batch_execute(FUNCTIONS).unwrap();
    let before = digests(&mut session);
    let reload = |session: &mut Client, change: &str, name: &str, value: &str| {
        session.batch_execute(change).unwrap();
        session.batch_execute("SELECT pg_reload_conf()").unwrap();
        wait_until("the setting is loaded", || {
            session.query_one("SELECT current_setting($1)", &[&name]).unwrap().get::<_, String>(0) == value
        });
    };
    reload(&mut session, "ALTER SYSTEM SET TimeZone = 'Asia/Tokyo'", "TimeZone", "Asia/Tokyo");
    let tokyo = digests(&mut session);
    assert!(tokyo.0 != before.0 && tokyo.1 != before.1);
    reload(&mut session, "ALTER SYSTEM SET max_wal_size = '2GB'", "max_wal_size", "2GB");
    assert_eq!(basic(&mut session), tokyo.0);
    session.batch_execute("ALTER SYSTEM RESET max_wal_size").unwrap();
    session.batch_execute("ALTER SYSTEM RESET TimeZone").unwrap();
    session.batch_execute("SELECT pg_reload_conf()").unwrap();
    wait_until("the digest is the first one again", || digests(&mut session) == before);
}

/// Fails if a temporary object of a name in a query is not noticed: the session would get results about the permanent one.
#[test]
fn temporary_relations_and_types_are_found_by_name() {
    let database = Database::create();
    let mut session = session(&database);
    let mut finds = |change: &str, name: &str| -> bool {
        session.batch_execute(change).unwrap();
        session.query_one("SELECT names_temporary(ARRAY['x', $1])", &[&name]).unwrap().get(0)
    };
    assert!(!finds("", "t"));
    assert!(finds("CREATE TEMP TABLE t ()", "t"));
    assert!(!finds("", "u"));
    assert!(!finds("", &"t".repeat(100)));
    assert!(finds("CREATE TEMP VIEW u AS SELECT 1", "u"));
    assert!(finds("CREATE DOMAIN pg_temp.d AS int", "d"));
    assert!(finds("CREATE TEMP SEQUENCE s", "s"));
    assert!(!finds("DROP TABLE t", "t"));
}

/// Fails if a name in `search_path` is read in another way than the server reads it, such as a quoted one or `$user`.
#[test]
fn the_names_in_the_search_path_are_divided() {
    let database = Database::create();
    let mut session = session(&database);
    let mut names = |change: &str| -> Vec<String> {
        session.batch_execute(change).unwrap();
        session.query_one("SELECT public.names_in_search_path()", &[]).unwrap().get(0)
    };
    let user: String = database.connect().query_one("SELECT current_user::text", &[]).unwrap().get(0);
    assert_eq!(names(""), [user.as_str(), "public"]);
    assert_eq!(
        names(r#"SET search_path = Public, "A, ""b""", "$user", pg_temp"#),
        ["public", r#"A, "b""#, user.as_str(), "pg_temp"]
    );
    assert_eq!(names("SET search_path = ''"), [""]);
    assert_eq!(names("SET ROLE pg_monitor; SET search_path = \"$user\""), ["pg_monitor"]);
}
