//! Tests of keys and values in encodings other than UTF-8, and of bytes that are invalid in the encoding.

use pg_cache_testbed::Database;
use postgres::Client;
use postgres::error::{DbError, SqlState};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Output;

/// Runs a query that must end in an error of the server, and returns that.
fn refused(session: &mut Client, query: &str) -> DbError {
    let error = session.batch_execute(query).expect_err("it is an error");
    error.as_db_error().unwrap_or_else(|| panic!("{query}: {error:?}")).clone()
}

/// Runs psql with a client encoding. It sends the bytes of the query unchanged. Of an error, it prints only the SQLSTATE.
fn psql(database: &Database, encoding: &str, query: &[u8]) -> Output {
    let mut psql = database.client("psql");
    psql.env("PGCLIENTENCODING", encoding).args(["-XAtq", "-v", "VERBOSITY=sqlstate", "-c"]);
    psql.arg(OsStr::from_bytes(query)).output().expect("psql starts")
}

/// In a UTF-8 database, every key, value and tag must be valid UTF-8 (SQLSTATE 22021), also if the client declares SQL_ASCII.
#[test]
fn bytes_that_are_no_utf_8_are_refused() {
    let database = Database::create();
    for encoding in ["UTF8", "SQL_ASCII"] {
        for query in [
            &b"SELECT cache_get('\xff')"[..],
            b"SELECT cache_set_text('k', '\xc3')",
            b"SELECT cache_set('k', '\"\xed\xa0\x80\"')",
            b"SELECT cache_invalidate_tag('\xc0\x80')",
        ] {
            let output = psql(&database, encoding, query);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("22021"), "{encoding}: {}: {said}", String::from_utf8_lossy(query));
        }
    }
    let mut session = database.connect();
    for query in [
        "SELECT cache_get(E'\\xff')",
        "SELECT cache_set_text('k', E'\\xed\\xa0\\x80')",
        "SELECT cache_set_text('k', convert_from('\\xff', 'UTF8'))",
    ] {
        assert_eq!(refused(&mut session, query).code(), &SqlState::CHARACTER_NOT_IN_REPERTOIRE, "{query}");
    }
    let nothing: Option<String> =
        session.query_one("SELECT cache_get_text('k')", &[]).expect("it works").get(0);
    assert_eq!(nothing, None);
}

/// The same key must be found from a client with another encoding.
#[test]
fn a_key_is_the_same_in_every_client_encoding() {
    let database = Database::create();
    database.connect().batch_execute("SELECT cache_set_text('schlüssel', 'wört')").expect("it is set");
    let output = psql(&database, "LATIN1", b"SELECT cache_get_text('schl\xfcssel')");
    assert_eq!(output.stdout, b"w\xf6rt\n");
    psql(&database, "LATIN1", b"SELECT cache_set_text('\xfc', '\xe4', tags => '{\xf6}')");
    let mut session = database.connect();
    let found: String = session.query_one("SELECT cache_get_text('ü')", &[]).expect("it works").get(0);
    assert_eq!(found, "ä");
    session.batch_execute("SELECT cache_invalidate_tag('ö')").expect("it works");
    assert_eq!(psql(&database, "LATIN1", b"SELECT cache_get_text('\xfc')").stdout, b"\n");
    // If the client's encoding lacks a character of the value, the client gets an error.
    session.batch_execute("SELECT cache_set_text('k', '鍵')").expect("it is set");
    assert!(
        String::from_utf8_lossy(&psql(&database, "LATIN1", b"SELECT cache_get_text('k')").stderr)
            .contains("22P05")
    );
}

/// An SQL_ASCII database accepts any bytes, in keys and values too. Fails if a byte changes, or is not shown as an escape in an
/// error.
#[test]
fn a_database_without_an_encoding_keeps_bytes() {
    let database = Database::create_encoded("SQL_ASCII");
    let output = psql(
        &database,
        "SQL_ASCII",
        b"SELECT cache_set_text('\xff\xfe', '\x80', tags => '{\x81}'), cache_get_text('\xff\xfe')",
    );
    assert_eq!(output.stdout, b"t|\x80\n");
    let output = psql(
        &database,
        "SQL_ASCII",
        b"SELECT key FROM cache_get_many(ARRAY['\xff']) UNION ALL SELECT cache_get_text('\xff\xfe')",
    );
    assert_eq!(output.stdout, b"\x80\n");
    psql(&database, "SQL_ASCII", b"SELECT cache_invalidate_tag('\x81')");
    assert_eq!(psql(&database, "SQL_ASCII", b"SELECT cache_exists('\xff\xfe')").stdout, b"f\n");
    let mut session = database.connect();
    let error = refused(&mut session, "SELECT cache_set_text(E'\\xff', 'v'), cache_get(E'\\xff')");
    assert_eq!(
        (error.code(), error.message()),
        (&SqlState::DATATYPE_MISMATCH, "key \"\\xff\" holds text, not jsonb")
    );
}

/// An error message is in the database's encoding. In encodings other than UTF-8, it shows the bytes of a name instead
/// of its non-ASCII letters.
#[test]
fn errors_name_keys_and_roles_in_any_encoding() {
    for (encoding, key, shown) in
        [("LATIN1", "ü", "\\xfc"), ("EUC_JP", "鍵", "\\xb8\\xb0"), ("UTF8", "鍵", "鍵")]
    {
        let database = Database::create_encoded(encoding);
        let mut session = database.connect();
        let found: Option<String> = session
            .query_one(
                "SELECT cache_set_text($1, $1) AND cache_get_text($1) = $1, cache_get_text($1)",
                &[&key],
            )
            .expect("it works")
            .get(1);
        assert_eq!(found.as_deref(), Some(key), "{encoding}");
        for (query, code, message) in [
            (
                format!("SELECT cache_get('{key}')"),
                SqlState::DATATYPE_MISMATCH,
                format!("key \"{shown}\" holds text, not jsonb"),
            ),
            (
                format!("SELECT cache_incr('{key}')"),
                SqlState::DATATYPE_MISMATCH,
                format!("key \"{shown}\" holds text, not integer"),
            ),
            (
                format!("SELECT cache_get('k', '{key}')"),
                SqlState::UNDEFINED_OBJECT,
                format!("space \"{shown}\" does not exist"),
            ),
        ] {
            let error = refused(&mut session, &query);
            assert_eq!((error.code(), error.message()), (&code, message.as_str()), "{encoding}: {query}");
        }
        session.batch_execute(&format!("CREATE ROLE \"{key}\"; SET ROLE \"{key}\"")).expect("a role");
        let error = refused(&mut session, "SELECT cache_get('k')");
        assert_eq!(error.code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{encoding}: {error}");
        let detail = format!("Role \"{shown}\" does not have the privilege read.");
        assert_eq!(error.detail(), Some(detail.as_str()), "{encoding}");
        session.batch_execute(&format!("RESET ROLE; DROP ROLE \"{key}\"")).expect("it goes");
    }
}

/// The names of spaces are in a table of the extension, which a dump carries to databases of other encodings. So in a database
/// that is not UTF-8, a name that is not ASCII must be refused.
#[test]
fn names_of_spaces_are_ascii_unless_the_database_is_utf_8() {
    for encoding in ["LATIN1", "EUC_JP", "SQL_ASCII"] {
        let database = Database::create_encoded(encoding);
        let mut session = database.connect();
        let error = refused(&mut session, "SELECT cache_create_space('é')");
        assert_eq!(error.code(), &SqlState::INVALID_PARAMETER_VALUE, "{encoding}: {error}");
        session
            .batch_execute("SELECT cache_create_space('e'), cache_set_text('k', 'v', space => 'e')")
            .expect("it works");
        let found: String =
            session.query_one("SELECT cache_get_text('k', 'e')", &[]).expect("it works").get(0);
        assert_eq!(found, "v", "{encoding}");
    }
    let database = Database::create();
    database.connect().batch_execute("SELECT cache_create_space('é')").expect("UTF-8 has it");
}

/// A restore into a database of another encoding converts the names, and bypasses the functions that would refuse them. The views
/// must then show the bytes of such a name instead of its non-ASCII letters, and raise no error.
#[test]
fn a_restored_space_of_another_name_breaks_no_view() {
    let database = Database::create_encoded("LATIN1");
    let mut session = database.connect();
    session
        .batch_execute("INSERT INTO pgcache.spaces (number, name) VALUES (1, 'é'), (2, 'e')")
        .expect("a hand can write it");
    for view in [
        "SELECT name FROM cache_spaces",
        "SELECT space AS name FROM cache_stats",
        "SELECT space AS name FROM cache_stats_detail",
    ] {
        let names = session.query(&format!("{view} ORDER BY name"), &[]).expect("it works");
        let names: Vec<String> = names.iter().map(|row| row.get(0)).collect();
        assert_eq!(names, ["\\xe9", "default", "e"], "{view}");
    }
    session.batch_execute("SELECT cache_stats_reset(), cache_get('k', 'e')").expect("it works");
}

/// A watch (`cache_watch`) stores the bytes of a tag in the database's encoding, as a value does. Fails if the watch and the value
/// do not mean the same tag: a write to the table would leave the value.
#[test]
fn tags_are_watched_in_any_encoding() {
    for (encoding, tag) in [("LATIN1", "ü"), ("EUC_JP", "鍵"), ("UTF8", "鍵")] {
        let database = Database::create_encoded(encoding);
        let mut session = database.connect();
        session
            .batch_execute(&format!(
                "CREATE TABLE t (i int); CREATE TABLE \"{tag}\" (i int);
                 SELECT cache_watch('t', '{{{tag}}}'), cache_watch('\"{tag}\"')"
            ))
            .unwrap_or_else(|error| panic!("{encoding}: {error}"));
        let watched: Vec<String> = session
            .query("SELECT unnest(tags) FROM cache_watches", &[])
            .expect("the view can be read")
            .iter()
            .map(|row| row.get(0))
            .collect();
        assert_eq!(watched, [tag, tag], "{encoding}");
        for table in ["t", tag] {
            let query = format!(
                "SELECT cache_set_text('k', 'v', tags => '{{{tag}}}') AND cache_get_text('k') IS NOT NULL"
            );
            assert!(session.query_one(&query, &[]).expect("it works").get::<_, bool>(0), "{encoding}");
            session.batch_execute(&format!("INSERT INTO \"{table}\" VALUES (1)")).expect("a write");
            let left: Option<String> =
                session.query_one("SELECT cache_get_text('k')", &[]).expect("it works").get(0);
            assert_eq!(left, None, "{encoding}, {table}");
        }
    }
}

/// Only the listed words of an option are valid. The error for another word must name it.
#[test]
fn options_of_a_space_are_refused_in_any_encoding() {
    for (encoding, word, shown) in
        [("LATIN1", "ü", "\\xfc"), ("EUC_JP", "鍵", "\\xb8\\xb0"), ("UTF8", "鍵", "鍵")]
    {
        let database = Database::create_encoded(encoding);
        let mut session = database.connect();
        for option in ["ttl_policy", "tiers", "scope", "notify"] {
            for call in ["cache_create_space('e'", "cache_alter_space('default'"] {
                let error = refused(&mut session, &format!("SELECT {call}, {option} => '{word}')"));
                assert_eq!(error.code(), &SqlState::INVALID_PARAMETER_VALUE, "{encoding}: {error}");
                assert_eq!(
                    error.message(),
                    format!("invalid value for option \"{option}\": \"{shown}\""),
                    "{encoding}"
                );
            }
        }
    }
}

/// The text of a query, its arguments and its errors are in the database's encoding. Each query is fetched twice: computed, then
/// from the cache.
#[test]
fn queries_and_their_arguments_are_in_any_encoding() {
    for (encoding, letter) in [("LATIN1", "ü"), ("EUC_JP", "鍵"), ("UTF8", "鍵")] {
        let database = Database::create_encoded(encoding);
        let mut session = database.connect();
        for (query, args) in [
            (format!("SELECT '{letter}'::text"), "NULL".to_owned()),
            ("SELECT $1::text".to_owned(), format!("'[\"{letter}\"]'")),
            ("SELECT $1::jsonb->>0".to_owned(), format!("'[[\"{letter}\", 1.50]]'")),
        ] {
            let call = format!("SELECT cache_fetch($1, $2, {args})->>0");
            for _ in 0..2 {
                let found: String = session
                    .query_one(&call, &[&query, &query])
                    .unwrap_or_else(|error| panic!("{encoding}: {query}: {error}"))
                    .get(0);
                assert_eq!(found, letter, "{encoding}: {query}");
            }
        }
        let error = refused(&mut session, &format!("SELECT cache_fetch('k', 'SELECT \"{letter}\"')"));
        assert_eq!(error.code(), &SqlState::UNDEFINED_COLUMN, "{encoding}: {error}");
    }
}

/// Calls each function of the extension that takes text or jsonb. Text that is not UTF-8 must be an argument like any other: a
/// call may raise an error, but not an internal one (XX000), and the session must go on.
#[test]
fn every_function_takes_text_of_any_encoding() {
    // Returns the signature of each function, and a call of it with the letter for each text, and null for other types.
    let functions = "SELECT p.oid::regprocedure::text, format('%s(%s)', p.oid::regproc, string_agg(format('%I => ', name)
                || CASE type::regtype::text WHEN 'text' THEN quote_literal($1)
                       WHEN 'text[]' THEN quote_literal(ARRAY[$1]) WHEN 'jsonb' THEN quote_literal(jsonb_build_object($1, $1))
                       ELSE 'NULL' END, ', ' ORDER BY place))
            FROM pg_proc AS p JOIN pg_depend AS d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e',
                unnest(p.proargtypes::oid[], p.proargnames[1:p.pronargs]) WITH ORDINALITY AS a (type, name, place)
            WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_cache')
            GROUP BY p.oid HAVING bool_or(type::regtype IN ('text', 'text[]', 'jsonb'))";
    for (encoding, letter) in [("LATIN1", "ü"), ("EUC_JP", "鍵"), ("UTF8", "鍵")] {
        let database = Database::create_encoded(encoding);
        let mut session = database.connect();
        let calls: Vec<(String, String)> = session
            .query(functions, &[&letter])
            .expect("the catalogs say")
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect();
        assert!(calls.len() > 25, "{calls:?}");
        assert!(calls.iter().any(|(name, _)| name == "pgcache.noop(text)"), "{calls:?}");
        for (name, call) in calls {
            if let Err(error) = session.batch_execute(&format!("SELECT * FROM {call}")) {
                let error = error.as_db_error().unwrap_or_else(|| panic!("{encoding}: {name}: {error:?}"));
                assert_ne!(error.code(), &SqlState::INTERNAL_ERROR, "{encoding}: {call}: {error:?}");
            }
        }
    }
}

/// Patterns know the characters of UTF-8. In another encoding, some bytes of a key may look like a character of UTF-8 and be
/// several, or be one character and look like several. No such key may stay after a pattern that matches it.
#[test]
fn patterns_leave_no_matching_key_in_any_encoding() {
    let cases = [
        ("LATIN1", "Ã©", "??"),
        ("LATIN1", "k:Ã©", "k:*©"),
        ("EUC_KR", "k:가", "k:?"),
        ("UTF8", "k:가", "k:?"),
        ("LATIN1", "k:é", "k:*"),
    ];
    for (encoding, key, pattern) in cases {
        let database = Database::create_encoded(encoding);
        let mut session = database.connect();
        let steps = format!(
            "SELECT cache_set_text('{key}', 'v'), cache_set_text('x', 'v'); SELECT cache_invalidate_pattern('{pattern}')"
        );
        session.batch_execute(&steps).unwrap_or_else(|error| panic!("{encoding}: {error}"));
        let left: Option<String> =
            session.query_one(&format!("SELECT cache_get_text('{key}')"), &[]).expect("it works").get(0);
        assert_eq!(left, None, "{encoding}: {key}, {pattern}");
        // A pattern of ASCII characters and stars has the same meaning in each encoding.
        let other: Option<String> =
            session.query_one("SELECT cache_get_text('x')", &[]).expect("it works").get(0);
        assert_eq!(other.is_some(), encoding == "UTF8" || pattern == "k:*", "{encoding}: {pattern}");
    }
}
