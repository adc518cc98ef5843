//! Tests of states that a superuser's changes by hand, a caught error or a second thread can cause. None may crash the
//! server, end the session or give a wrong result. A table that the library cannot read must end in an error of the statement,
//! with a hint ([`refused`]); the other tests say what they expect. A *fill* is a call of `cache_fetch` that runs its query.

use pg_cache_testbed::{Cluster, Conf, Database};
use postgres::Client;
use postgres::error::SqlState;

/// Runs statements that must succeed.
fn run(session: &mut Client, statements: &str) {
    session.batch_execute(statements).unwrap_or_else(|error| panic!("{statements}: {error}"));
}

/// Runs a statement that must end in an error with SQLSTATE 55000 and a hint, and returns the message. The session must survive
/// the error.
fn refused(session: &mut Client, statement: &str) -> String {
    let error = session.batch_execute(statement).expect_err(statement);
    let error = error.as_db_error().unwrap_or_else(|| panic!("{statement}: the session ended: {error}"));
    assert_eq!(error.code(), &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "{statement}: {}", error.message());
    assert!(error.hint().is_some(), "{statement}: no hint");
    error.message().to_owned()
}

/// The library reads its tables by column position. Each reader must report an error if a column has another type.
#[test]
fn a_column_of_another_type_is_an_error() {
    let (resolve, list) = ("SELECT cache_get('k', space => 's')", "SELECT * FROM cache_spaces");
    let (set, watches) = ("SELECT cache_set('k', '1', tags => '{t}')", "SELECT * FROM cache_watches");
    // A change of a table, and the statements that read the changed column. The worst case is a small integer where the library
    // expects the address of a text or of an interval.
    let cases: [(&str, &[&str]); 9] = [
        ("spaces ALTER quota TYPE text", &[resolve, list]),
        ("spaces ALTER default_ttl TYPE integer USING 1", &[resolve, list]),
        ("spaces ALTER scope TYPE bigint USING 1", &[resolve, list]),
        ("spaces ALTER enabled TYPE text", &[resolve, list]),
        ("spaces DROP COLUMN max_ttl", &[resolve, list]),
        ("spaces ALTER number TYPE text", &[resolve, list]),
        ("spaces ALTER name TYPE integer USING 1", &[resolve, list]),
        ("grants ALTER privilege TYPE integer USING 1", &[resolve]),
        ("watches ALTER tags TYPE integer USING 1", &[set, watches]),
    ];
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE ROLE reader_of_columns; CREATE TABLE t ();
         SELECT cache_create_space('s', default_ttl => '1 h', scope => 'role'), cache_watch('t', '{t}'),
             cache_grant('s', 'reader_of_columns', 'read'), cache_grant('default', 'reader_of_columns', 'admin');
         DO $$ DECLARE name text; holder regclass; BEGIN
             FOR name, holder IN SELECT conname, conrelid FROM pg_constraint
                 WHERE connamespace = 'pgcache'::regnamespace AND contype = 'c'
             LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', holder, name); END LOOP;
         END $$",
    );
    for (change, statements) in cases {
        for statement in statements {
            run(
                &mut session,
                &format!("BEGIN; ALTER TABLE pgcache.{change}; SET LOCAL ROLE reader_of_columns"),
            );
            let message = refused(&mut session, statement);
            assert!(message.contains("of table \"pgcache."), "{change}: {message}");
            run(&mut session, "ROLLBACK");
        }
    }
    for statement in [resolve, list, set, watches] {
        run(&mut session, statement);
    }
    run(&mut session, "DROP OWNED BY reader_of_columns; DROP ROLE reader_of_columns");
}

/// The server's scan of a relation that has no storage of its own would follow a null pointer. So the library must refuse such a
/// relation.
#[test]
fn a_view_in_the_place_of_a_table_is_an_error() {
    let database = Database::create();
    let mut session = database.connect();
    run(&mut session, "SELECT cache_create_space('s')");
    run(&mut session, "ALTER TABLE pgcache.spaces RENAME TO moved");
    for relation in [
        "VIEW pgcache.spaces AS SELECT * FROM pgcache.moved",
        "TABLE pgcache.spaces (LIKE pgcache.moved) PARTITION BY LIST (number)",
    ] {
        run(&mut session, &format!("CREATE {relation}"));
        let message = refused(&mut session, "SELECT cache_get('k', space => 's')");
        assert_eq!(message, "\"pgcache.spaces\" is not a table");
        let kind = relation.split(' ').next().expect("a word");
        run(&mut session, &format!("DROP {kind} pgcache.spaces"));
    }
    run(&mut session, "ALTER TABLE pgcache.moved RENAME TO spaces; SELECT cache_get('k', space => 's')");
}

/// An index of another table with the name of the extension's index must not be used to find rows.
#[test]
fn an_index_of_another_table_is_not_used() {
    let database = Database::create();
    let mut session = database.connect();
    run(&mut session, "SELECT cache_create_space('s'), cache_set_text('k', 'v', space => 's')");
    run(
        &mut session,
        "ALTER INDEX pgcache.spaces_name_key RENAME TO moved;
         CREATE TABLE pgcache.other (a text, name text);
         CREATE INDEX spaces_name_key ON pgcache.other (name)",
    );
    let mut other = database.connect();
    let found: Option<String> =
        other.query_one("SELECT cache_get_text('k', 's')", &[]).expect("it finds the space").get(0);
    assert_eq!(found.as_deref(), Some("v"));
}

/// A function catches every error that `cache_fetch` can end in, and then continues to use the server's programming interface
/// (SPI). A fill that left the stack of that interface unbalanced would make the function fail, or leave a warning in the log.
#[test]
fn errors_of_a_fill_leave_the_spi_stack_balanced() {
    let cluster = Cluster::start(&Conf::preloaded());
    let mut session = cluster.connect("postgres");
    run(
        &mut session,
        r#"CREATE EXTENSION pg_cache;
        CREATE TABLE t AS SELECT 1 AS v;
        CREATE FUNCTION fails() RETURNS int LANGUAGE plpgsql STABLE AS $$
        BEGIN
            PERFORM v FROM t;
            RAISE EXCEPTION 'in a function';
        END $$;
        CREATE FUNCTION survives(query text, args jsonb) RETURNS int LANGUAGE plpgsql AS $$
        DECLARE total int := 0; row record;
        BEGIN
            FOR row IN SELECT i FROM generate_series(1, 3) AS i LOOP
                BEGIN
                    PERFORM cache_fetch('key ' || row.i, query, args => args);
                    RAISE WARNING 'no error';
                EXCEPTION WHEN OTHERS THEN total := total + row.i;
                END;
                EXECUTE 'INSERT INTO t VALUES ($1)' USING row.i;
                SELECT total + count(*) INTO total FROM t WHERE v > 1;
            END LOOP;
            RETURN total;
        END $$"#,
    );
    for (query, args) in [
        ("", "[]"),
        ("SELECT 1; SELECT 2", "[]"),
        ("SELECT", "[1]"),
        ("SELECT $1::int", "[]"),
        ("SELECT $1::int", "[\"x\"]"),
        ("DELETE FROM t RETURNING v", "[]"),
        ("SELECT nothing FROM nowhere", "[]"),
        ("SELECT 1 / (v - v) FROM t", "[]"),
        ("SELECT fails()", "[]"),
        ("SELECT v INTO other FROM t", "[]"),
    ] {
        for commit in ["COMMIT", "ROLLBACK"] {
            run(&mut session, "BEGIN");
            let total: i32 = session
                .query_one("SELECT survives($1, $2::text::jsonb)", &[&query, &args])
                .unwrap_or_else(|error| panic!("{query}: {error:?}"))
                .get(0);
            // The numbers of the three errors add up to 6. The rows above 1 are none, one and two after the three rounds.
            assert_eq!(total, 6 + 1 + 2, "{query}");
            run(&mut session, "DELETE FROM t WHERE ctid <> (SELECT min(ctid) FROM t); UPDATE t SET v = 1");
            run(&mut session, commit);
        }
    }
    // A caller inside the library may ignore an error that it gets back. The programming interface must be balanced
    // then, too. `is_refused` is such a caller, in debug builds only (`src/pg/query/running.rs`).
    run(
        &mut session,
        "CREATE FUNCTION is_refused(cstring) RETURNS bool LANGUAGE c AS '$libdir/pg_cache', 'is_refused_wrapper';
         DO $$ BEGIN
             PERFORM v FROM t;
             ASSERT is_refused(''), 'no statement';
             ASSERT is_refused('SELECT 1; SELECT 2'), 'two';
             ASSERT is_refused('SELECT $1::int'), 'a parameter without a value';
             ASSERT NOT is_refused('SELECT v FROM t'), 'a query';
             PERFORM v FROM t;
         END $$",
    );
    let log = cluster.log();
    for complaint in
        ["non-empty SPI stack", "snapshot reference leak", "snapshots seem to leak", "no error", "WARNING"]
    {
        assert!(!log.contains(complaint), "{complaint}:\n{log}");
    }
}

/// A library may start threads. The session's state must refuse access from another thread, in each session: the postmaster has
/// loaded the library, and the sessions are its children. The function starts a thread that tries, in debug builds only
/// (`src/pg/local.rs`).
#[test]
fn another_thread_is_refused_the_state_of_the_session() {
    let database = Database::create();
    for mut session in [(); 2].map(|()| database.connect()) {
        run(
            &mut session,
            "CREATE OR REPLACE FUNCTION refuses_threads() RETURNS bool LANGUAGE c AS '$libdir/pg_cache', 'refuses_threads_wrapper'",
        );
        let refuses: bool = session.query_one("SELECT refuses_threads()", &[]).expect("it lives").get(0);
        assert!(refuses);
        run(&mut session, "SELECT cache_set_text('k', 'v'), cache_get_text('k')");
    }
}
