//! Tags with placeholders, such as `order:{id}`: the entries of a changed row leave, and the entries of other rows stay.
//! `cache_watch` gives such a tag to a table, and creates a trigger there that reports the changed rows. `writes::rows` tests every
//! way to write. This file tests values of all types, savepoints, rows that no trigger has reported, tables that get and lose
//! parents, and the trigger's comings and goings.
//!
//! At the commit, pg_cache compares the number of rows that the trigger has reported with the server's own counters of changed
//! rows. If they differ, or if the counters are not complete (`track_counts`), the entries of all rows of the table leave.
//!
//! A *fence* is a word in shared memory that says when something that values depend on last changed (`docs/invalidation.md`).

use pg_cache_testbed::Database;
use postgres::Client;
use postgres::error::{DbError, SqlState};

fn run(session: &mut Client, statements: &str) {
    session.batch_execute(statements).unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}

/// Runs a statement that must end in an error of the server, and returns the error.
fn refused(session: &mut Client, statement: &str) -> DbError {
    let error = session.batch_execute(statement).expect_err(statement);
    error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error:?}")).clone()
}

/// Returns the only column of the only row of a query.
fn one<T: for<'a> postgres::types::FromSql<'a>>(session: &mut Client, query: &str) -> T {
    session.query_one(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
}

/// Stores an entry with a tag under the tag's own name, until it is a hit.
fn set(session: &mut Client, tag: &str) {
    pg_cache_testbed::wait_until("an entry with the tag", || {
        let set = "SELECT cache_set_text($1, 'v', tags => ARRAY[$1])";
        session.query_one(set, &[&tag]).expect("it is set");
        is_hit(session, tag)
    });
}

fn is_hit(session: &mut Client, tag: &str) -> bool {
    session.query_one("SELECT cache_get_text($1) IS NOT NULL", &[&tag]).expect("a read").get(0)
}

/// Stores entries with the tags, each twice. The first one claims and marks the record of the table (`src/core/fence/mod.rs`), so
/// it also depends on fences that commits to other tables raise.
fn store<T: AsRef<str>>(session: &mut Client, tags: &[T]) {
    tags.iter().chain(tags).for_each(|tag| set(session, tag.as_ref()));
}

/// Stores entries with the tags, runs the statements, and returns for each tag whether its entry is a hit afterwards.
fn hits_after(session: &mut Client, tags: &[&str], statements: &str) -> Vec<bool> {
    store(session, tags);
    run(session, statements);
    tags.iter().map(|tag| is_hit(session, tag)).collect()
}

/// Returns the tables that have a trigger of a watch.
fn triggers(session: &mut Client) -> Vec<String> {
    one(
        session,
        "SELECT coalesce(array_agg(tgrelid::regclass::text ORDER BY tgrelid::regclass::text), '{}') FROM pg_trigger WHERE tgname LIKE 'pg\\_cache\\_rows%'",
    )
}

/// A database with the table `t`, whose rows are watched with the tag `t:{id}`.
fn with_table() -> (Database, Client) {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, 0 FROM generate_series(1, 10) AS i;
         SELECT cache_watch('t', ARRAY['t:{id}'])",
    );
    (database, session)
}

/// The values of each type, as SQL, of which no two have the same text.
const VALUES: &[(&str, &[&str])] = &[
    ("int2", &["-32768", "0", "7"]),
    ("int4", &["-2147483648", "10", "2147483647"]),
    ("int8", &["-9223372036854775808", "0", "9223372036854775807"]),
    ("numeric", &["1.0", "1.00", "1", "-0.5", "'NaN'", "1e40"]),
    ("float4", &["0.1", "1e30", "'-Infinity'"]),
    ("float8", &["0.1", "0.3", "1e300", "1.0 / 3"]),
    ("bool", &["true", "false"]),
    ("text", &["''", "'a''b'", "E'two\\nlines'", "'{braces}'", "'back\\slash'", "'*?'", "'%_'", "'a b '"]),
    ("varchar(10)", &["'a'", "'a '"]),
    ("char(5)", &["'a'", "'ab'"]),
    ("name", &["'a'", "'b'"]),
    ("\"char\"", &["'a'", "'b'"]),
    ("bytea", &["'\\x00ff'", "'\\x'", "'abc'"]),
    ("uuid", &["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "'00000000-0000-0000-0000-000000000000'"]),
    ("date", &["'2026-01-02'", "'2026-02-01'", "'0044-03-15 BC'", "'infinity'"]),
    ("timestamp", &["'2026-01-02 03:04:05.678'", "'2026-02-01'"]),
    ("timestamptz", &["'2026-07-01 12:00+02'", "'2026-07-01 12:00+00'"]),
    ("timetz", &["'12:00+02'", "'12:00+00'"]),
    ("interval", &["'1 day 02:03:04'", "'-1 mons'"]),
    ("money", &["'1234.5'::numeric", "'-1'::numeric"]),
    ("inet", &["'10.0.0.1'", "'::1/64'"]),
    ("cidr", &["'10.0.0.0/8'", "'::1/128'"]),
    ("jsonb", &["'{\"a\": [1, 2]}'", "'null'"]),
    ("int[]", &["'{1,2}'", "'{}'", "'{{1},{NULL}}'"]),
    ("timestamptz[]", &["ARRAY['2026-07-01 12:00+02'::timestamptz]", "'{}'"]),
    ("mood", &["'sad'", "'it''s ok'"]),
    ("positive", &["1", "2"]),
    ("citext_like", &["'Foo'", "'foo'"]),
];

/// The text of a value in a tag is the documented one. The settings of the session that changes the row do not matter.
#[test]
fn values_of_all_types_become_the_texts_of_their_casts() {
    let database = Database::create();
    let [mut session, mut writer] = [(); 2].map(|()| database.connect());
    let blind = match database.cluster().server().is_without_icu() {
        true => "locale = 'C'",
        false => "provider = icu, locale = 'und-u-ks-level2', deterministic = false",
    };
    run(
        &mut session,
        &format!(
            "CREATE TYPE mood AS ENUM ('sad', 'it''s ok'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
             CREATE COLLATION blind ({blind}); CREATE DOMAIN citext_like AS text COLLATE blind;"
        ),
    );
    run(
        &mut writer,
        "SET DateStyle = 'German'; SET TimeZone = 'Asia/Tokyo'; SET IntervalStyle = 'sql_standard'; SET extra_float_digits = -5;
         SET bytea_output = 'escape'; SET search_path = pg_catalog; SET quote_all_identifiers = on",
    );
    for (number, (kind, values)) in VALUES.iter().enumerate() {
        let table = format!("types_{number}");
        run(
            &mut session,
            &format!(
                "CREATE TABLE {table} (c {kind}, n int); INSERT INTO {table} VALUES {};
                 SELECT cache_watch('{table}', ARRAY['{table}:{{c}}'])",
                values
                    .iter()
                    .enumerate()
                    .map(|(at, value)| format!("({value}, {at})"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        );
        let texts: Vec<String> = {
            let mut transaction = session.transaction().expect("a transaction");
            transaction
                .batch_execute(
                    "SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL TimeZone = 'UTC'; SET LOCAL IntervalStyle = 'postgres';
                     SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; SET LOCAL lc_monetary = 'C';
                     SET LOCAL search_path = pg_catalog; SET LOCAL quote_all_identifiers = off",
                )
                .expect("settings");
            let query = format!("SELECT c::text FROM public.{table} ORDER BY n");
            transaction.query(&query, &[]).expect("texts").iter().map(|row| row.get(0)).collect()
        };
        let tags: Vec<String> = texts.iter().map(|text| format!("{table}:{text}")).collect();
        for changed in 0..tags.len() {
            store(&mut session, &tags);
            run(&mut writer, &format!("UPDATE public.{table} SET n = n WHERE n = {changed}"));
            for (at, tag) in tags.iter().enumerate() {
                assert_eq!(
                    is_hit(&mut session, tag),
                    at != changed,
                    "{kind}: {tag:?}, and {changed} has changed"
                );
            }
        }
    }
}

/// Values of every plane of Unicode, several columns, nulls, and tags beyond the limit of 256 bytes.
#[test]
fn strange_values_and_several_columns() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE TABLE t (a text, b text, n int); SELECT cache_watch('t', ARRAY['t:{a}:{b}', 'a:{a}', 'double {{brace}} {b}'])",
    );
    let mut strange: Vec<String> = (0..17_u32)
        .filter_map(|plane| char::from_u32(plane << 16 | 0x2A7))
        .map(|letter| format!("x{letter}"))
        .collect();
    strange.extend(["'", "\"", "\n", "\\", "{a}", "%s", "\u{1}", " "].map(String::from));
    for value in &strange {
        session.execute("INSERT INTO t VALUES ($1, 'b', 1)", &[value]).expect("a row");
    }
    for value in &strange {
        let tags = [format!("t:{value}:b"), format!("a:{value}"), String::from("a:other")];
        store(&mut session, &tags);
        session.execute("UPDATE t SET n = 2 WHERE a = $1", &[value]).expect("an update");
        let hits = tags.each_ref().map(|tag| is_hit(&mut session, tag));
        assert_eq!(hits, [false, false, true], "{value:?}");
    }
    // A row with a null has no tag of that column, and its other tags are invalidated all the same.
    run(&mut session, "INSERT INTO t VALUES (NULL, 'only', 1), ('null b', NULL, 1)");
    let tags = ["t::only", "a:", "double {brace} only", "a:null b", "a:other"];
    let hits = hits_after(&mut session, &tags, "UPDATE t SET n = 2 WHERE a IS NULL OR b IS NULL");
    assert_eq!(hits, [true, true, false, false, true]);
    // Tags have 256 bytes at most. A row whose tag would be longer has no tag, because no entry can have it.
    session.execute("INSERT INTO t VALUES ($1, 'long', 1)", &[&"l".repeat(10_000)]).expect("a row");
    let longest = format!("a:{}", "m".repeat(254));
    session.execute("INSERT INTO t VALUES ($1, 'long', 1)", &[&"m".repeat(254)]).expect("a row");
    let hits = hits_after(
        &mut session,
        &[&longest, "double {brace} long", "a:other"],
        "DELETE FROM t WHERE b = 'long'",
    );
    assert_eq!(hits, [false, false, true]);
}

/// The changes of a savepoint count if the savepoint is released, and do not if it is rolled back: for tags, and for the numbers of
/// rows that are compared.
#[test]
fn savepoints() {
    let (_database, mut session) = with_table();
    let tags = ["t:1", "t:2", "t:3", "t:4"];
    let hits = hits_after(
        &mut session,
        &tags,
        "BEGIN; UPDATE t SET v = 1 WHERE id = 1; SAVEPOINT a; UPDATE t SET v = 1 WHERE id = 2; SAVEPOINT b;
         UPDATE t SET v = 1 WHERE id = 3; ROLLBACK TO b; RELEASE a; COMMIT",
    );
    assert_eq!(hits, [false, false, true, true]);
    let hits = hits_after(
        &mut session,
        &tags,
        "BEGIN; SAVEPOINT a; UPDATE t SET v = 2 WHERE id < 4; ROLLBACK TO a; SAVEPOINT c; SAVEPOINT d;
         DELETE FROM t WHERE id = 4; RELEASE d; ROLLBACK TO c; UPDATE t SET v = 2 WHERE id = 1; COMMIT",
    );
    assert_eq!(hits, [false, true, true, true]);
    let hits = hits_after(&mut session, &tags, "BEGIN; UPDATE t SET v = 3; ROLLBACK");
    assert_eq!(hits, [true; 4]);
}

/// The own transaction sees its changes at once: the entries of changed rows are misses, and those of others hits.
#[test]
fn the_own_transaction_misses_the_entries_of_its_rows() {
    let (_database, mut session) = with_table();
    let hits = hits_after(&mut session, &["t:1", "t:2"], "BEGIN; UPDATE t SET v = 1 WHERE id = 1");
    assert_eq!(hits, [false, true]);
    run(&mut session, "ROLLBACK");
    assert!(is_hit(&mut session, "t:1"));
}

/// Rows that no trigger has reported invalidate the entries of all rows: if the trigger is disabled for a part of a transaction, or
/// if it is gone.
#[test]
fn rows_that_no_trigger_has_told_invalidate_all() {
    let (_database, mut session) = with_table();
    let tags = ["t:1", "t:9"];
    // The function of the library is not called for this row; the command itself counts as a change of all rows, too.
    run(&mut session, "ALTER TABLE t DISABLE TRIGGER ALL");
    let hits = hits_after(&mut session, &tags, "UPDATE t SET v = 1 WHERE id = 1");
    assert_eq!(hits, [false, false]);
    run(&mut session, "ALTER TABLE t ENABLE TRIGGER ALL");
    run(&mut session, "DELETE FROM pg_trigger WHERE tgname LIKE 'pg\\_cache\\_rows%'");
    let hits = hits_after(&mut session, &tags, "UPDATE t SET v = 2 WHERE id = 1");
    assert_eq!(hits, [false, false]);
}

/// A statement in a session without counters reports its rows, and cannot prove it.
#[test]
fn without_counters_all_entries_leave() {
    let (_database, mut session) = with_table();
    let tags = ["t:1", "t:9"];
    let off = "SET track_counts = off; UPDATE t SET v = 1 WHERE id = 1; SET track_counts = on";
    assert_eq!(hits_after(&mut session, &tags, off), [false, false]);
    let partly = "BEGIN; UPDATE t SET v = 2 WHERE id = 1; SET LOCAL track_counts = off; UPDATE t SET v = 2 WHERE id = 9; COMMIT";
    assert_eq!(hits_after(&mut session, &tags, partly), [false, false]);
    assert_eq!(hits_after(&mut session, &tags, "UPDATE t SET v = 3 WHERE id = 1"), [false, true]);
}

/// A watch that begins or ends invalidates the entries that could have one of its tags, and no others: such an entry gets or loses
/// its dependency on the rows.
#[test]
fn a_watch_that_begins_or_ends_invalidates_the_entries_of_its_tags() {
    let (_database, mut session) = with_table();
    let tags = ["w:1", "t:1", "other"];
    let hits = hits_after(&mut session, &tags, "SELECT cache_watch('t', ARRAY['w:{id}'])");
    assert_eq!(hits, [false, true, true]);
    let hits = hits_after(&mut session, &tags, "SELECT cache_watch('t', ARRAY['w:{id}'])");
    assert_eq!(hits, [true, true, true]);
    let hits = hits_after(&mut session, &tags, "BEGIN; SELECT cache_unwatch('t'); ROLLBACK");
    assert_eq!(hits, [true, true, true]);
    let hits = hits_after(&mut session, &tags, "SELECT cache_unwatch('t')");
    assert_eq!(hits, [false, false, true]);
    let hits = hits_after(&mut session, &tags, "UPDATE t SET v = 1");
    assert_eq!(hits, [true, true, true]);
}

/// Found by an attack: while the schema of the extension had another name, the list of watches was empty, and a row counted as
/// reported without any tag.
#[test]
fn a_row_without_a_template_is_not_reported() {
    let (_database, mut session) = with_table();
    let renamed = "ALTER SCHEMA pgcache RENAME TO elsewhere; UPDATE t SET v = 1 WHERE id = 1; ALTER SCHEMA elsewhere RENAME TO pgcache";
    store(&mut session, &["t:1", "t:2"]);
    renamed.split("; ").for_each(|statement| run(&mut session, statement));
    assert!(!is_hit(&mut session, "t:1"));
}

/// Found by an attack: a trigger that was disabled and enabled again runs no more for replicated changes. `cache_watch` repairs it.
#[test]
fn a_trigger_that_was_enabled_again_is_created_anew() {
    let (_database, mut session) = with_table();
    run(&mut session, "ALTER TABLE t DISABLE TRIGGER ALL; ALTER TABLE t ENABLE TRIGGER ALL");
    let replicated = "SET session_replication_role = replica; UPDATE t SET v = 1 WHERE id = 1; RESET session_replication_role";
    assert_eq!(hits_after(&mut session, &["t:1", "t:2"], replicated), [false, false]);
    run(&mut session, "SELECT cache_watch('t', ARRAY['t:{id}'])");
    assert_eq!(hits_after(&mut session, &["t:1", "t:2"], replicated), [false, true]);
    assert_eq!(triggers(&mut session), ["t"]);
}

/// Found by an attack: tags with placeholders of many tables could become the same tag, which then had too many dependencies for
/// entries of any role.
#[test]
fn tags_that_begin_alike_count_as_one_for_the_limits() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "DO $$ BEGIN FOR i IN 1..64 LOOP EXECUTE format('CREATE TABLE t%s (c%s int)', i, i);
         PERFORM cache_watch(format('t%s', i)::regclass, ARRAY[format('s:{c%s}', i)]); END LOOP; END $$;
         CREATE TABLE t65 (c65 int)",
    );
    let error = refused(&mut session, "SELECT cache_watch('t65', ARRAY['s:{c65}'])");
    assert_eq!(error.code(), &SqlState::PROGRAM_LIMIT_EXCEEDED);
    run(&mut session, "SELECT cache_watch('t65', ARRAY['other:{c65}'])");
    store(&mut session, &["s:1", "s:2"]);
    assert_eq!(hits_after(&mut session, &["s:1", "s:2"], "INSERT INTO t64 VALUES (1)"), [false, true]);
}

/// Another trigger with the same function would count each row twice, and so make up for a row that was not reported.
#[test]
fn another_trigger_with_the_function_is_refused() {
    let (_database, mut session) = with_table();
    run(
        &mut session,
        "CREATE TRIGGER mine AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION pgcache.rows_changed()",
    );
    let error = refused(&mut session, "UPDATE t SET v = 1");
    assert_eq!(error.code(), &SqlState::E_R_I_E_TRIGGER_PROTOCOL_VIOLATED);
    // Neither call takes this trigger for the one of the watch.
    run(&mut session, "SELECT cache_unwatch('t'); SELECT cache_watch('t', ARRAY['t:{id}'])");
    assert_eq!(triggers(&mut session), ["t"]);
    run(&mut session, "DROP TRIGGER mine ON t");
    assert_eq!(hits_after(&mut session, &["t:1", "t:2"], "UPDATE t SET v = 1 WHERE id = 1"), [false, true]);
    let error = refused(&mut session, "SELECT pgcache.rows_changed()");
    assert_eq!(error.code(), &SqlState::E_R_I_E_TRIGGER_PROTOCOL_VIOLATED);
}

/// More changed rows than a transaction can name by tags invalidate all entries, and raise no error.
#[test]
fn very_many_rows_invalidate_all() {
    let (_database, mut session) = with_table();
    run(&mut session, "INSERT INTO t SELECT i, 0 FROM generate_series(11, 20000) AS i");
    let hits = hits_after(&mut session, &["t:1", "t:20000"], "UPDATE t SET v = 1 WHERE id < 20000");
    assert_eq!(hits, [false, false]);
    let hits = hits_after(&mut session, &["t:1", "t:20000"], "UPDATE t SET v = 1 WHERE id < 1000");
    assert_eq!(hits, [false, true]);
}

/// The commit of a prepared transaction, by another session, invalidates the entries of its rows, and perhaps those of all rows. A
/// rollback invalidates none.
#[test]
fn prepared_transactions() {
    let (database, mut session) = with_table();
    let name = database.name();
    let mut other = database.connect();
    store(&mut session, &["t:1"]);
    run(&mut session, &format!("BEGIN; UPDATE t SET v = 1 WHERE id = 1; PREPARE TRANSACTION '{name}'"));
    run(&mut other, &format!("COMMIT PREPARED '{name}'"));
    assert!(!is_hit(&mut session, "t:1"));
    set(&mut session, "t:1");
    set(&mut session, "t:9");
    run(&mut session, &format!("BEGIN; UPDATE t SET v = 2 WHERE id = 1; PREPARE TRANSACTION '{name}'"));
    run(&mut other, &format!("ROLLBACK PREPARED '{name}'"));
    let hits = hits_after(&mut session, &["t:1", "t:9"], "SELECT 1");
    assert_eq!(hits, [true, true]);
}

/// A transaction invalidates a table and is prepared, while no entry depends on rows of the table. The entries that are stored
/// between the preparation and the commit must leave, too.
#[test]
fn entries_that_are_stored_between_prepare_and_commit() {
    let (database, mut session) = with_table();
    let name = database.name();
    run(&mut session, &format!("BEGIN; SELECT cache_invalidate_relation('t'); PREPARE TRANSACTION '{name}'"));
    store(&mut session, &["t:1"]);
    run(&mut session, &format!("COMMIT PREPARED '{name}'"));
    assert!(!is_hit(&mut session, "t:1"));
}

/// Tables that become parts of a watched table after the watch have the trigger as long as they are parts.
#[test]
fn parts_that_come_and_go_later() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE TABLE p (id int, v int) PARTITION BY RANGE (id);
         CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (100);
         SELECT cache_watch('p', ARRAY['p:{id}']);
         CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (100) TO (200);
         CREATE TABLE p_3 (id int, v int); ALTER TABLE p ATTACH PARTITION p_3 FOR VALUES FROM (200) TO (300);
         CREATE TABLE p_4 PARTITION OF p FOR VALUES FROM (300) TO (400) PARTITION BY LIST (id);
         CREATE TABLE p_4_all PARTITION OF p_4 DEFAULT;
         CREATE TABLE other (id int, v int);
         INSERT INTO p SELECT i, 0 FROM generate_series(0, 399) AS i",
    );
    assert_eq!(triggers(&mut session), ["p_1", "p_2", "p_3", "p_4_all"]);
    for changed in [5, 105, 205, 305] {
        let tags = [format!("p:{changed}"), "p:399".into(), "p:0".into()];
        let tags = tags.each_ref().map(String::as_str);
        let hits = hits_after(&mut session, &tags, &format!("UPDATE p SET v = 1 WHERE id = {changed}"));
        assert_eq!(hits, [false, true, true], "row {changed}");
    }
    // A row that moves to another partition has an old and a new tag.
    let hits = hits_after(&mut session, &["p:5", "p:1005", "p:6"], "UPDATE p SET id = 150 WHERE id = 5");
    assert_eq!(hits, [false, true, true]);
    run(&mut session, "ALTER TABLE p DETACH PARTITION p_2");
    assert_eq!(triggers(&mut session), ["p_1", "p_3", "p_4_all"]);
    run(&mut session, "ALTER TABLE p DETACH PARTITION p_1 CONCURRENTLY");
    assert_eq!(triggers(&mut session), ["p_3", "p_4_all"]);
    run(&mut session, "SELECT cache_unwatch('p')");
    assert_eq!(triggers(&mut session), [""; 0]);

    run(
        &mut session,
        "CREATE TABLE above (id int, v int); SELECT cache_watch('above', ARRAY['above:{id}']);
         CREATE TABLE heir () INHERITS (above); CREATE TABLE late (id int, v int); CREATE TABLE below () INHERITS (late);
         ALTER TABLE late INHERIT above; INSERT INTO heir VALUES (1, 0); INSERT INTO below VALUES (2, 0), (3, 0)",
    );
    assert_eq!(triggers(&mut session), ["above", "below", "heir", "late"]);
    let tags = ["above:1", "above:2", "above:3"];
    assert_eq!(hits_after(&mut session, &tags, "UPDATE above SET v = 1 WHERE id = 2"), [true, false, true]);
    assert_eq!(hits_after(&mut session, &tags, "DELETE FROM heir"), [false, true, true]);
    run(&mut session, "ALTER TABLE late NO INHERIT above");
    assert_eq!(triggers(&mut session), ["above", "heir"]);
}

/// The trigger goes with the last tag that has placeholders, with a rollback, with its table, and with the extension. It shows in
/// no dump of the table, and comes back with a dump of the watches.
#[test]
fn the_trigger_comes_and_goes_with_the_watch() {
    let (database, mut session) = with_table();
    run(&mut session, "BEGIN; SELECT cache_unwatch('t'); ROLLBACK");
    assert_eq!(triggers(&mut session), ["t"]);
    let table = database.client("pg_dump").args(["-t", "t"]).output().expect("pg_dump runs");
    let table = String::from_utf8(table.stdout).expect("UTF-8");
    assert!(table.contains("CREATE TABLE public.t"), "{table}");
    assert!(!table.contains("cache"), "{table}");
    run(&mut session, "UPDATE pgcache.watches SET tags = '{plain}'");
    assert_eq!(triggers(&mut session), [""; 0]);
    run(&mut session, "UPDATE pgcache.watches SET tags = ARRAY['t:{id}']");
    assert_eq!(triggers(&mut session), ["t"]);
    run(&mut session, "SELECT cache_unwatch('t')");
    run(&mut session, "BEGIN; SELECT cache_watch('t', ARRAY['t:{v}']); ROLLBACK");
    assert_eq!(triggers(&mut session), [""; 0]);
    run(&mut session, "SELECT cache_watch('t', ARRAY['t:{v}', 'plain'])");
    let dump = database.client("pg_dump").output().expect("pg_dump runs");
    run(&mut session, "DROP EXTENSION pg_cache");
    assert_eq!(triggers(&mut session), [""; 0]);
    run(&mut session, "UPDATE t SET v = 5; DROP TABLE t");

    let to = Database::create_empty();
    restore(&to, &dump.stdout);
    let mut session = to.connect();
    assert_eq!(triggers(&mut session), ["t"]);
    assert_eq!(hits_after(&mut session, &["t:0", "t:1"], "UPDATE t SET v = 2 WHERE id = 1"), [false, true]);
}

/// Runs a dump with psql.
fn restore(database: &Database, dump: &[u8]) {
    use std::io::Write;
    let mut psql = database
        .client("psql")
        .args(["-q", "-v", "ON_ERROR_STOP=1"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("psql runs");
    psql.stdin.take().expect("a pipe").write_all(dump).expect("psql reads");
    assert!(psql.wait().expect("psql ends").success());
}

/// A role that may write to the table, and has no right in the cache, invalidates the entries of the rows that it changes.
#[test]
fn the_rows_of_a_role_without_rights_in_the_cache_are_reported() {
    let (database, mut session) = with_table();
    let role = format!("{}_writer", database.name());
    run(&mut session, &format!("CREATE ROLE {role}; GRANT SELECT, UPDATE ON t TO {role}"));
    let update = format!("SET ROLE {role}; UPDATE t SET v = 1 WHERE id = 1; RESET ROLE");
    assert_eq!(hits_after(&mut session, &["t:1", "t:2"], &update), [false, true]);
    run(&mut session, &format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

/// Since PostgreSQL 18, a generated column may be virtual: a row does not contain its value, so it cannot be a part of a tag. The
/// other columns of the table can, and so can a stored generated column.
#[test]
fn virtual_columns_are_refused_in_tags_and_others_of_their_table_work() {
    let database = Database::create();
    if database.cluster().server().major() < 18 {
        return;
    }
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE TABLE t (v int, half int GENERATED ALWAYS AS (v / 2) VIRTUAL, id int PRIMARY KEY,
             tenth int GENERATED ALWAYS AS (v / 10) STORED, last int GENERATED ALWAYS AS (id + 1));
         INSERT INTO t (id, v) SELECT i, i FROM generate_series(1, 30) AS i;
         CREATE TABLE p (id int, v int, half int GENERATED ALWAYS AS (v / 2)) PARTITION BY LIST (id);
         CREATE TABLE p_1 PARTITION OF p DEFAULT",
    );
    for (table, tag) in [("t", "t:{half}"), ("t", "t:{id}:{last}"), ("p", "p:{half}")] {
        let error = refused(&mut session, &format!("SELECT cache_watch('{table}', ARRAY['{tag}'])"));
        assert_eq!(error.code(), &SqlState::FEATURE_NOT_SUPPORTED, "{tag}: {error}");
        assert!(error.message().ends_with("cannot be a part of a tag"), "{error}");
        assert!(error.detail().is_some_and(|detail| detail.contains("virtual")), "{error:?}");
    }
    assert_eq!(triggers(&mut session), [""; 0]);
    run(&mut session, "SELECT cache_watch('t', ARRAY['t:{id}', 'tenth:{tenth}'])");
    let tags = ["t:1", "t:2", "tenth:0", "tenth:1", "tenth:2"];
    let hits = hits_after(&mut session, &tags, "UPDATE t SET v = 10 WHERE half = 0 AND id = 1");
    assert_eq!(hits, [false, true, false, false, true]);
    // Another expression of a virtual column writes no row, but changes what all rows show.
    let hits = hits_after(&mut session, &tags, "ALTER TABLE t ALTER half SET EXPRESSION AS (v / 3)");
    assert_eq!(hits, [false; 5]);
    // A virtual column may later take the name that a tag has. Its rows then count as not reported.
    run(
        &mut session,
        "ALTER TABLE t DROP tenth; ALTER TABLE t ADD tenth int GENERATED ALWAYS AS (v / 10) VIRTUAL",
    );
    let hits = hits_after(&mut session, &tags, "UPDATE t SET v = 25 WHERE id = 2");
    assert_eq!(hits, [false; 5]);
}

/// Since PostgreSQL 18, a primary key may be a period in which other rows of the same id must not be valid.
#[test]
fn rows_of_a_key_without_overlaps_are_reported() {
    let database = Database::create();
    if database.cluster().server().major() < 18 {
        return;
    }
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE TABLE stays (id int4range, at daterange, v int, PRIMARY KEY (id, at WITHOUT OVERLAPS));
         CREATE TABLE meals (stay int4range, at daterange, FOREIGN KEY (stay, PERIOD at) REFERENCES stays (id, PERIOD at));
         INSERT INTO stays VALUES ('[1,2)', '[2026-01-01,2026-02-01)', 1), ('[1,2)', '[2026-03-01,2026-04-01)', 1), ('[2,3)', '[2026-01-01,2026-02-01)', 1);
         INSERT INTO meals VALUES ('[1,2)', '[2026-01-03,2026-01-04)');
         SELECT cache_watch('stays', ARRAY['stay:{id}', 'period:{id}:{at}'])",
    );
    let tags = [
        "stay:[1,2)",
        "stay:[2,3)",
        "period:[1,2):[2026-01-01,2026-02-01)",
        "period:[1,2):[2026-03-01,2026-04-01)",
    ];
    let hits = hits_after(
        &mut session,
        &tags,
        "UPDATE stays SET at = '[2026-01-01,2026-01-15)' WHERE id = '[1,2)' AND at @> date '2026-01-05'",
    );
    assert_eq!(hits, [false, true, false, true]);
    // The check of the other table's foreign key locks the row and does not change it.
    let insert = "INSERT INTO meals VALUES ('[1,2)', '[2026-03-03,2026-03-04)')";
    assert_eq!(hits_after(&mut session, &tags, insert), [true; 4]);
}

/// The result of a query that reads a virtual column follows the column that it is computed from, and its expression.
#[test]
fn results_follow_virtual_columns() {
    let database = Database::create();
    if database.cluster().server().major() < 18 {
        return;
    }
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE TABLE t (id int PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2)); INSERT INTO t (id, v) VALUES (1, 1);
         CREATE TABLE other (id int)",
    );
    let mut check = |change: &str, sum: i64, is_kept: bool| {
        run(&mut session, change);
        let kept: bool = one(&mut session, "SELECT cache_exists('sum')");
        assert_eq!(kept, is_kept, "after {change}");
        for _ in 0..2 {
            let fetched: i64 =
                one(&mut session, "SELECT cache_fetch('sum', 'SELECT sum(twice) FROM t')::bigint");
            let queried: i64 = one(
                &mut session,
                "SELECT s FROM cache_query('SELECT sum(twice) AS s FROM t') AS r (s bigint)",
            );
            assert_eq!([fetched, queried], [sum, sum], "after {change}");
        }
        pg_cache_testbed::wait_until("a stored sum", || {
            one::<i64>(&mut session, "SELECT cache_fetch('sum', 'SELECT sum(twice) FROM t')::bigint");
            one(&mut session, "SELECT cache_exists('sum')")
        });
    };
    check("SELECT 1", 2, false);
    check("UPDATE t SET v = 5", 10, false);
    check("INSERT INTO other VALUES (1)", 10, true);
    check("ALTER TABLE t ALTER twice SET EXPRESSION AS (v * 3)", 15, false);
    check("UPDATE t SET v = 6 WHERE twice = 15", 18, false);
    check("UPDATE t SET v = 7 WHERE twice = 15", 18, true);
}

/// `cache_watch` refuses tags that cannot stand for rows. Fails if one is accepted, or if the error has another code.
#[test]
fn bad_templates_are_refused() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE TYPE pair AS (a int, b date); CREATE DOMAIN pairs AS pair[];
         CREATE TABLE t (id int, gone int, p pair, many pairs, class regclass); ALTER TABLE t DROP COLUMN gone;
         CREATE MATERIALIZED VIEW m AS SELECT 1 AS id; CREATE VIEW w AS SELECT 1 AS id; CREATE TEMPORARY TABLE tmp (id int)",
    );
    for (table, tag, code) in [
        ("t", "t:{none}", SqlState::UNDEFINED_COLUMN),
        ("t", "t:{gone}", SqlState::UNDEFINED_COLUMN),
        ("t", "t:{ctid}", SqlState::UNDEFINED_COLUMN),
        ("t", "t:{id", SqlState::INVALID_PARAMETER_VALUE),
        ("t", "t:id}", SqlState::INVALID_PARAMETER_VALUE),
        ("t", "t:{}", SqlState::INVALID_PARAMETER_VALUE),
        ("t", "t:{{id}", SqlState::INVALID_PARAMETER_VALUE),
        ("t", "{id}", SqlState::INVALID_PARAMETER_VALUE),
        ("t", "t{id}", SqlState::INVALID_PARAMETER_VALUE),
        ("t", "t:{p}", SqlState::FEATURE_NOT_SUPPORTED),
        ("t", "t:{many}", SqlState::FEATURE_NOT_SUPPORTED),
        ("t", "t:{class}", SqlState::FEATURE_NOT_SUPPORTED),
        ("m", "m:{id}", SqlState::FEATURE_NOT_SUPPORTED),
        ("w", "w:{id}", SqlState::WRONG_OBJECT_TYPE),
        ("tmp", "tmp:{id}", SqlState::WRONG_OBJECT_TYPE),
        ("pg_class", "c:{oid}", SqlState::WRONG_OBJECT_TYPE),
    ] {
        let error = refused(&mut session, &format!("SELECT cache_watch('{table}', ARRAY['{tag}'])"));
        assert_eq!(error.code(), &code, "{tag}: {error}");
    }
    assert_eq!(triggers(&mut session), [""; 0]);
    let rows: i64 = one(&mut session, "SELECT count(*) FROM cache_watches");
    assert_eq!(rows, 0);
}
