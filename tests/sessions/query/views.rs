//! Cached views (`cache_create_view`) and wrappers of functions (`cache_wrap`), from several sessions and through a dump. A
//! *wrapper* is a function with the same arguments that returns the cached result of another function. The *token* of a cached view
//! names the role with whose privileges its query reads tables: the owner of the view. The SQL of both is in
//! `tests/pg_regress/sql/views.sql` and `functions.sql`.

use super::calls::{answer, run, text};
use pg_cache_testbed::Database;
use postgres::Client;
use std::io::Write;
use std::process::Stdio;

/// Returns the rows of a statement, and the status of the session's last call. The rows are separated by blanks, and their values
/// by `|`; nulls are left out.
fn seen(session: &mut Client, statement: &str) -> (String, String) {
    let rows = answer(session, statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
    let rows = rows.into_iter().map(|row| row.into_iter().flatten().collect::<Vec<_>>().join("|"));
    let rows = rows.collect::<Vec<_>>().join(" ");
    (rows, text(session, "SELECT public.cache_status()"))
}

/// Returns what [`seen`] must return.
fn is(rows: &str, status: &str) -> (String, String) {
    (rows.to_owned(), status.to_owned())
}

/// Sessions of one role share the rows of a cached view, and a write of any session makes it fresh for all.
#[test]
fn a_write_makes_a_cached_view_fresh_for_every_session() {
    let database = Database::create();
    let [mut one, mut two] = [(); 2].map(|()| database.connect());
    run(
        &mut one,
        "CREATE TABLE sales (region text, cents int); INSERT INTO sales VALUES ('north', 1), ('south', 2);
         SELECT cache_create_view('by_region', 'SELECT region, sum(cents) AS cents FROM sales GROUP BY region')",
    );
    let all = "SELECT * FROM by_region ORDER BY region";
    assert_eq!(seen(&mut one, all), is("north|1 south|2", "miss: not there"));
    assert_eq!(seen(&mut two, all), is("north|1 south|2", "hot"));
    // A comment and a filter of a tool change nothing.
    let with_comment = "-- Metabase:: userID: 1\nSELECT cents FROM by_region WHERE region = 'south' LIMIT 1";
    assert_eq!(seen(&mut two, with_comment), is("2", "hot"));
    run(&mut two, "INSERT INTO sales VALUES ('west', 3)");
    assert_eq!(seen(&mut one, all), is("north|1 south|2 west|3", "invalidated: table sales"));
    assert_eq!(seen(&mut two, all), is("north|1 south|2 west|3", "hot"));
    // A view and a materialized view over the view see the same.
    run(
        &mut one,
        "CREATE VIEW above AS SELECT * FROM by_region; CREATE MATERIALIZED VIEW kept AS TABLE above",
    );
    run(&mut two, "TRUNCATE sales; INSERT INTO sales VALUES ('east', 4)");
    assert_eq!(seen(&mut one, "SELECT * FROM above"), is("east|4", "invalidated: table sales"));
    run(&mut two, "REFRESH MATERIALIZED VIEW kept");
    assert_eq!(text(&mut one, "SELECT region FROM kept"), "east");

    // Prepared statements and cursors.
    let statement = one.prepare("SELECT cents FROM by_region WHERE region = $1").expect("it prepares");
    for cents in [4, 5] {
        let rows = one.query(&statement, &[&"east"]).expect("it runs");
        assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<i64>>(), [cents]);
        run(&mut two, "UPDATE sales SET cents = 5");
    }
    run(&mut one, "BEGIN; DECLARE c CURSOR FOR SELECT * FROM by_region; FETCH 1 FROM c");
    run(&mut two, "DELETE FROM sales");
    run(&mut one, "MOVE BACKWARD ALL FROM c");
    assert_eq!(text(&mut one, "FETCH 1 FROM c"), "east");
    assert_eq!(seen(&mut one, all), is("", "invalidated: table sales"));
    run(&mut one, "COMMIT");
}

/// A token of a view's owner gives its rights to no other role: it is valid in its own transaction only. After that, the session
/// may have lost the role.
#[test]
fn a_token_of_another_session_or_role_is_refused() {
    let database = Database::create();
    let [mut owner, mut other] = [(); 2].map(|()| database.connect());
    run(
        &mut owner,
        "CREATE ROLE views_thief; SELECT cache_grant('default', 'views_thief', 'write');
         CREATE TABLE secrets (secret text); INSERT INTO secrets VALUES ('x');
         SELECT cache_create_view('revealed', 'SELECT * FROM secrets')",
    );
    let read = |token: &str| {
        format!(
            "SELECT * FROM cache_view_rows({token}, NULL::revealed_uncached, NULL, NULL, NULL, 'default') AS r"
        )
    };
    run(&mut owner, "BEGIN");
    let token = text(&mut owner, "SELECT token FROM cache_view_owner");
    assert_eq!(text(&mut owner, &read(&format!("'{token}'"))), "x");
    run(&mut owner, "COMMIT");
    let refused = Err("42501: token does not belong to this transaction".to_owned());
    assert_eq!(answer(&mut owner, &read(&format!("'{token}'"))), refused);
    assert_eq!(answer(&mut other, &read(&format!("'{token}'"))), refused);
    // It reads views only.
    let table = read("(SELECT token FROM cache_view_owner)").replace("revealed_uncached", "secrets");
    let no_view = "22023: view must be a null of the row type of a view".to_owned();
    assert_eq!(answer(&mut owner, &table), Err(no_view));
    run(&mut other, "SET ROLE views_thief");
    assert_eq!(answer(&mut other, &read(&format!("'{token}'"))), refused);
    let denied = Err("42501: permission denied for view revealed_uncached".to_owned());
    assert_eq!(answer(&mut other, &read("(SELECT token FROM cache_view_owner)")), denied);
    assert_eq!(answer(&mut other, &read("NULL")), denied);
    // A token begins with the OID of its role, followed by a proof, a keyed hash. The proof of one role does not prove another
    // role: here the superuser with the OID 10.
    let of_owner = "(SELECT '\\x0a000000'::bytea || substr(token, 5) FROM cache_view_owner)";
    assert_eq!(answer(&mut other, &read(of_owner)), refused);
    // A stored result does not help either.
    assert_eq!(seen(&mut owner, "SELECT * FROM revealed"), is("x", "hot"));
    assert_eq!(answer(&mut other, &read("(SELECT token FROM cache_view_owner)")), denied);
    // The role may make a view of its own over the hidden view, but that view may not read it.
    run(&mut owner, "CREATE SCHEMA of_thief AUTHORIZATION views_thief");
    run(
        &mut other,
        &format!("CREATE VIEW of_thief.stolen AS {}", read("(SELECT token FROM cache_view_owner)")),
    );
    assert_eq!(answer(&mut other, "SELECT * FROM of_thief.stolen"), denied);
    assert_eq!(
        answer(&mut owner, "SELECT * FROM of_thief.stolen"),
        denied,
        "the rights of the view's owner count"
    );
    run(&mut owner, "DROP OWNED BY views_thief; SELECT cache_revoke('default', 'views_thief', 'write')");
    run(&mut owner, "DROP ROLE views_thief");
}

/// A function that the query of a cached view calls runs as the reader, also while the view is computed, and cannot read more than
/// the reader may.
#[test]
fn functions_of_a_cached_view_run_as_the_reader() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE ROLE views_author; CREATE ROLE views_guest; CREATE SCHEMA own AUTHORIZATION views_author;
         GRANT USAGE ON SCHEMA own TO views_guest; SELECT cache_grant('default', 'views_author', 'write');
         SET ROLE views_author;
         CREATE TABLE own.rows AS SELECT i FROM generate_series(1, 3) AS i;
         CREATE FUNCTION own.reader() RETURNS text STABLE LANGUAGE plpgsql AS 'BEGIN RETURN current_user; END';
         CREATE FUNCTION own.folded() RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN current_user; END';
         CREATE FUNCTION own.hidden() RETURNS bigint STABLE LANGUAGE plpgsql
             AS 'BEGIN RETURN (SELECT count(*) FROM own.seen_uncached); END';
         SELECT public.cache_create_view('own.seen', 'SELECT i, own.reader() AS r, own.folded() AS f FROM own.rows');
         SELECT public.cache_create_view('own.nested', 'SELECT own.hidden() AS n FROM own.rows');
         GRANT SELECT ON own.seen, own.nested TO views_guest;
         RESET ROLE",
    );
    for role in ["views_guest", "views_author", "postgres"] {
        run(&mut session, &format!("SET ROLE {role}"));
        let expected = format!("1|{role}|{role}");
        let first = "SELECT * FROM own.seen WHERE i = 1";
        assert_eq!(seen(&mut session, first), is(&expected, "miss: not there"));
        assert_eq!(seen(&mut session, first), is(&expected, "hot"));
    }
    run(&mut session, "SET ROLE views_guest");
    let denied = Err("42501: permission denied for view seen_uncached".to_owned());
    assert_eq!(answer(&mut session, "SELECT * FROM own.nested"), denied);
    assert_eq!(text(&mut session, "SELECT current_user"), "views_guest");
    run(
        &mut session,
        "RESET ROLE; DROP SCHEMA own CASCADE; SELECT cache_revoke('default', 'views_author', 'write');
         DROP ROLE views_author, views_guest",
    );
}

/// Where nothing is stored, a reader of a cached view still gets the rows, with the privileges of the owner.
#[test]
fn a_cached_view_works_where_nothing_is_stored() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE ROLE views_maker; CREATE ROLE views_visitor; CREATE SCHEMA own AUTHORIZATION views_maker;
         GRANT USAGE ON SCHEMA own TO views_visitor; SELECT cache_grant('default', 'views_maker', 'read');
         SELECT cache_grant('default', 'views_visitor', 'read');
         SET ROLE views_maker;
         CREATE TABLE own.numbers AS SELECT i FROM generate_series(1, 3) AS i;
         CREATE FUNCTION own.total() RETURNS bigint STABLE SECURITY DEFINER LANGUAGE sql AS 'SELECT sum(i) FROM own.numbers';
         SELECT public.cache_create_view('own.doubled', 'SELECT i * 2 AS n, current_user AS reader FROM own.numbers');
         SELECT public.cache_wrap('own.total()');
         GRANT SELECT ON own.doubled TO views_visitor;
         RESET ROLE; SET ROLE views_visitor",
    );
    let rows = "2|views_visitor 4|views_visitor 6|views_visitor";
    let mut expect = |begin: &[&str], end: &str, status: &str| {
        begin.iter().for_each(|statement| run(&mut session, statement));
        for _ in 0..2 {
            assert_eq!(
                seen(&mut session, "SELECT * FROM own.doubled ORDER BY n"),
                is(rows, status),
                "{begin:?}"
            );
            assert_eq!(seen(&mut session, "SELECT own.total_cached()"), is("6", status), "{begin:?}");
        }
        run(&mut session, end);
    };
    let refused = "refused: the role does not have the privilege write";
    expect(&[], "", refused);
    expect(&["SET pg_cache.enabled = off"], "RESET pg_cache.enabled", "bypass: pg_cache.enabled is off");
    let grants = "RESET ROLE; SELECT cache_grant('default', 'views_maker', 'write');
                  SELECT cache_grant('default', 'views_visitor', 'write'); SET ROLE views_visitor";
    let keeping = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    expect(&[grants, keeping], "COMMIT", "bypass: the transaction keeps one snapshot");
    // In a read-only transaction, the rows are stored.
    expect(&["BEGIN READ ONLY", "SELECT * FROM own.doubled", "SELECT own.total_cached()"], "COMMIT", "hot");
    run(
        &mut session,
        "RESET ROLE; DROP SCHEMA own CASCADE; SELECT cache_revoke('default', 'views_maker', 'write');
         SELECT cache_revoke('default', 'views_visitor', 'write'); DROP ROLE views_maker, views_visitor",
    );
}

/// Cached views, what reads them, and wrappers survive a dump and its restore, with owners and grants.
#[test]
fn a_dump_carries_cached_views_and_wrappers() {
    let from = Database::create();
    let to = Database::create_empty();
    let mut session = from.connect();
    run(
        &mut session,
        "CREATE ROLE views_dumper; CREATE ROLE views_user; CREATE SCHEMA zoo AUTHORIZATION views_dumper;
         GRANT USAGE ON SCHEMA zoo TO views_user; SELECT cache_grant('default', 'views_dumper', 'write');
         SELECT cache_grant('default', 'views_user', 'write');
         SET ROLE views_dumper;
         CREATE TABLE zoo.animals (kind varchar(9), n numeric(5,1)); INSERT INTO zoo.animals VALUES ('cat', 1), ('dog', 2.5);
         SELECT public.cache_create_view('zoo.\"All kinds\"', 'SELECT kind, sum(n)::numeric(7,1) AS \"N\" FROM zoo.animals GROUP BY 1',
             ttl => '1 day 02:03:04', tags => '{\"a b\",c}');
         CREATE VIEW zoo.a_view AS SELECT * FROM zoo.\"All kinds\" WHERE kind = 'cat';
         CREATE MATERIALIZED VIEW zoo.a_copy AS SELECT * FROM zoo.\"All kinds\";
         CREATE FUNCTION zoo.total(k text DEFAULT 'dog') RETURNS numeric STABLE LANGUAGE sql
             AS 'SELECT sum(n) FROM zoo.animals WHERE kind = k';
         REVOKE ALL ON FUNCTION zoo.total(text) FROM PUBLIC; GRANT EXECUTE ON FUNCTION zoo.total(text) TO views_user;
         SELECT public.cache_wrap('zoo.total(text)', tags => '{c}');
         GRANT SELECT ON zoo.\"All kinds\", zoo.animals TO views_user;
         RESET ROLE",
    );
    let dump = from.client("pg_dump").output().expect("pg_dump runs");
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    assert!(dump.stderr.is_empty(), "{}", String::from_utf8_lossy(&dump.stderr));
    let mut psql = to.client("psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut restore = psql.spawn().expect("psql runs");
    restore.stdin.take().expect("a pipe").write_all(&dump.stdout).expect("psql reads");
    assert!(restore.wait().expect("psql ends").success());

    let mut restored = to.connect();
    let definitions = "SELECT string_agg(pg_get_viewdef(oid), ';' ORDER BY relname) || pg_get_functiondef('zoo.total_cached'::regproc)
                           || (SELECT proacl::text || proowner::regrole FROM pg_proc WHERE proname = 'total_cached')
                           || (SELECT string_agg(relname || relowner::regrole || COALESCE(relacl::text, ''), ';' ORDER BY relname)
                                 FROM pg_class WHERE relnamespace = 'zoo'::regnamespace)
                         FROM pg_class WHERE relnamespace = 'zoo'::regnamespace AND relkind IN ('v', 'm')";
    assert_eq!(text(&mut restored, definitions), text(&mut session, definitions));
    assert_eq!(text(&mut restored, "SELECT count(*) FROM zoo.a_copy"), "2");
    run(&mut restored, "SET ROLE views_user");
    let all = "SELECT * FROM zoo.\"All kinds\" ORDER BY kind";
    assert_eq!(seen(&mut restored, all), is("cat|1.0 dog|2.5", "miss: not there"));
    assert_eq!(seen(&mut restored, all), is("cat|1.0 dog|2.5", "hot"));
    assert_eq!(seen(&mut restored, "SELECT zoo.total_cached()"), is("2.5", "miss: not there"));
    assert_eq!(seen(&mut restored, "SELECT zoo.total_cached('dog')"), is("2.5", "hot"));
    run(&mut restored, "RESET ROLE; INSERT INTO zoo.animals VALUES ('dog', 1)");
    run(&mut restored, "SET ROLE views_user");
    assert_eq!(seen(&mut restored, all), is("cat|1.0 dog|3.5", "invalidated: table zoo.animals"));
    assert_eq!(seen(&mut restored, "SELECT zoo.total_cached()"), is("3.5", "invalidated: table zoo.animals"));
    run(
        &mut restored,
        "RESET ROLE; DROP VIEW zoo.\"All kinds_uncached\" CASCADE; DROP FUNCTION zoo.total CASCADE",
    );
    assert_eq!(text(&mut restored, "SELECT to_regproc('zoo.total_cached') IS NULL"), "t");
    for session in [&mut session, &mut restored] {
        run(session, "DROP SCHEMA zoo CASCADE; SELECT cache_revoke('default', 'views_dumper', 'write')");
        run(session, "SELECT cache_revoke('default', 'views_user', 'write')");
    }
    drop((from, to));
}

/// A wrapper checks the privilege to execute its function also when the result is stored, from whichever session the privilege was
/// revoked.
#[test]
fn a_revoked_function_is_refused_on_a_hit() {
    let database = Database::create();
    let [mut admin, mut caller] = [(); 2].map(|()| database.connect());
    run(
        &mut admin,
        "CREATE ROLE views_caller; SELECT cache_grant('default', 'views_caller', 'write');
         CREATE TABLE numbers AS SELECT i FROM generate_series(1, 3) AS i; GRANT SELECT ON numbers TO views_caller;
         CREATE FUNCTION summed(int) RETURNS bigint STABLE LANGUAGE sql AS 'SELECT sum(i) * $1 FROM numbers';
         REVOKE ALL ON FUNCTION summed(int) FROM PUBLIC; GRANT EXECUTE ON FUNCTION summed(int) TO views_caller;
         SELECT cache_wrap('summed(int)')",
    );
    run(&mut caller, "SET ROLE views_caller");
    for (call, result) in
        [("SELECT summed_cached(2)", "12"), ("SELECT cache_call('summed(int)', '[2]')", "12")]
    {
        assert_eq!(seen(&mut caller, call), is(result, "miss: not there"));
        assert_eq!(seen(&mut caller, call), is(result, "hot"));
    }
    run(&mut admin, "REVOKE EXECUTE ON FUNCTION summed(int) FROM views_caller");
    let denied = Err("42501: permission denied for function summed".to_owned());
    assert_eq!(answer(&mut caller, "SELECT summed_cached(2)"), denied);
    assert_eq!(answer(&mut caller, "SELECT cache_call('summed(int)', '[2]')"), denied);
    run(&mut admin, "GRANT EXECUTE ON FUNCTION summed(int) TO views_caller");
    assert_eq!(text(&mut caller, "SELECT summed_cached(2)"), "12");
    run(&mut admin, "INSERT INTO numbers VALUES (4)");
    assert_eq!(text(&mut caller, "SELECT summed_cached(2)"), "20");
    run(
        &mut admin,
        "DROP OWNED BY views_caller; SELECT cache_revoke('default', 'views_caller', 'write'); DROP ROLE views_caller",
    );
}
