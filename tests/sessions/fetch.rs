//! Tests of `cache_fetch` while other sessions or the same transaction interfere: which results are stored, and which must not be.
//! A *fill* is a call of `cache_fetch` that finds no result, so that it runs the query. A *fence* is a word in shared memory that
//! says when something that values depend on last changed (`docs/invalidation.md`).

use crate::fences::is_cached;
use pg_cache_testbed::{Database, wait_until};
use postgres::{Client, SimpleQueryMessage};

/// Fetches a query under a key, and returns its result as text, or `None` if it is null.
fn fetch(session: &mut Client, key: &str, query: &str) -> Option<String> {
    let call = "SELECT cache_fetch($1, $2)::text";
    session.query_one(call, &[&key, &query]).expect("it is fetched").get(0)
}

/// A fill waits for a `TRUNCATE`. With a snapshot from before the wait, it would find an empty table, which no
/// transaction has committed.
#[test]
fn a_fill_that_waits_for_a_truncate_sees_the_rows_of_that_transaction() {
    let database = Database::create();
    let mut writer = database.connect();
    writer
        .batch_execute(
            "CREATE TABLE t AS SELECT 1 AS v;
             CREATE TABLE p (id int, v int) PARTITION BY RANGE (id);
             CREATE TABLE p_low PARTITION OF p FOR VALUES FROM (0) TO (10);
             INSERT INTO p VALUES (1, 1)",
        )
        .expect("tables");
    for (table, insert) in [("t", "INSERT INTO t VALUES (2)"), ("p_low", "INSERT INTO p VALUES (1, 2)")] {
        writer.batch_execute(&format!("BEGIN; TRUNCATE {table}; {insert}")).expect("it writes");
        let mut reader = database.connect();
        let query = if table == "t" { "SELECT v FROM t" } else { "SELECT v FROM p" };
        let reading = std::thread::spawn(move || fetch(&mut reader, query, query));
        let mut witness = database.connect();
        wait_until("the reader to wait", || {
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
            witness.query_one(waits, &[]).expect("there is a view").get::<_, i64>(0) == 1
        });
        writer.batch_execute("COMMIT").expect("it commits");
        assert_eq!(reading.join().expect("it reads").as_deref(), Some("2"), "{table}");
        assert_eq!(fetch(&mut witness, query, query).as_deref(), Some("2"), "{table}");
    }
}

/// A session processes invalidation messages when it acquires a lock on a relation that it does not hold yet. In a long
/// transaction, this may never happen. A fill must process them all the same. Otherwise it would store the result of the old
/// function.
#[test]
fn a_fill_in_an_old_transaction_uses_new_definitions() {
    let database = Database::create();
    let [mut old, mut other] = [(); 2].map(|()| database.connect());
    let define = |v| {
        format!(
            "CREATE OR REPLACE FUNCTION f() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN {v}; END'"
        )
    };
    other.batch_execute(&define(1)).expect("a function");
    old.batch_execute("BEGIN").expect("it begins");
    // After these two calls, the transaction holds all locks that the call needs.
    for key in ["a", "b"] {
        assert_eq!(fetch(&mut old, key, "SELECT f()").as_deref(), Some("1"));
    }
    other.batch_execute(&define(2)).expect("another one");
    assert_eq!(fetch(&mut old, "c", "SELECT f()").as_deref(), Some("2"));
    assert_eq!(fetch(&mut other, "c", "SELECT f()").as_deref(), Some("2"));
}

/// Asserts that each of the sessions fetches what the query returns when the session runs it directly.
fn assert_fresh(sessions: [&mut Client; 2], key: &str, query: &str) {
    for session in sessions {
        let row = session.query_opt(query, &[]).expect("it reads");
        let direct: Option<i64> = row.and_then(|row| row.get(0));
        assert_eq!(fetch(session, key, query), direct.map(|value| value.to_string()), "{query}");
    }
}

/// In a plan, the branches of a `UNION ALL` look like partitions of a table, but they are tables of their own. A write to either
/// must invalidate the result.
#[test]
fn the_branches_of_a_union_all_are_dependencies() {
    let database = Database::create();
    let [mut writer, mut reader] = [(); 2].map(|()| database.connect());
    writer
        .batch_execute(
            "CREATE TABLE a AS SELECT 1 AS v; CREATE TABLE b AS SELECT 2 AS v;
             CREATE VIEW joined AS SELECT v FROM a UNION ALL SELECT v FROM b",
        )
        .expect("tables");
    for query in [
        "SELECT sum(v) FROM (SELECT v FROM a UNION ALL SELECT v FROM b) AS u",
        "SELECT sum(v) FROM joined",
        "SELECT v::bigint FROM a WHERE v > 1000 UNION ALL SELECT v FROM b WHERE v > 1000 LIMIT 1",
    ] {
        for table in ["a", "b"] {
            assert_fresh([&mut writer, &mut reader], query, query);
            writer.batch_execute(&format!("INSERT INTO {table} VALUES (10), (2000)")).expect("it writes");
            assert_fresh([&mut writer, &mut reader], query, query);
            writer.batch_execute(&format!("DELETE FROM {table} WHERE v > 1000")).expect("it writes");
            assert_fresh([&mut writer, &mut reader], query, query);
        }
    }
}

/// Parallel workers of a query inside a function are other processes, whose reads the fill does not observe. So a fill runs all
/// plans without parallel workers. Otherwise, a write to a table that only they have read would not invalidate the result.
#[test]
fn reads_of_parallel_workers_in_functions_are_dependencies() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    session
        .batch_execute(
            "CREATE TABLE hidden AS SELECT 1 AS v;
             CREATE TABLE many AS SELECT v FROM generate_series(1, 1000) AS v; ANALYZE many;
             CREATE FUNCTION look(int) RETURNS int STABLE PARALLEL SAFE COST 100000 LANGUAGE plpgsql AS
                 'BEGIN RETURN (SELECT v FROM hidden); END';
             CREATE FUNCTION looks() RETURNS SETOF bigint STABLE LANGUAGE plpgsql AS
                 'BEGIN RETURN QUERY SELECT sum(look(v)) FROM many; END';
             SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
             SET parallel_leader_participation = off",
        )
        .expect("functions");
    // The session keeps this plan, which is a parallel one.
    session.batch_execute("SELECT looks()").expect("it looks");
    for _ in 0..2 {
        assert_fresh([&mut session, &mut other], "k", "SELECT looks()");
        session.batch_execute("UPDATE hidden SET v = v + 1").expect("it writes");
    }
    assert_fresh([&mut session, &mut other], "k", "SELECT looks()");
}

/// A session keeps the plan of a function, with the relations that it found when it planned. Other sessions may find
/// different ones, so a fill must not use such a plan after a change of names.
#[test]
fn a_plan_from_before_a_change_of_names_computes_nothing_for_others() {
    let database = Database::create();
    let [mut old, mut new] = [(); 2].map(|()| database.connect());
    new.batch_execute(
        "CREATE SCHEMA ahead; CREATE TABLE t AS SELECT 1 AS v;
         CREATE FUNCTION f() RETURNS bigint STABLE LANGUAGE plpgsql AS
             'DECLARE found int; BEGIN SELECT v INTO found FROM t; RETURN found; END'",
    )
    .expect("a function");
    for session in [&mut old, &mut new] {
        session.batch_execute("SET search_path = ahead, public").expect("it is set");
    }
    assert_eq!(fetch(&mut old, "k", "SELECT f()").as_deref(), Some("1"));
    new.batch_execute("CREATE TABLE ahead.t AS SELECT 2 AS v").expect("another one of that name");
    assert_eq!(fetch(&mut old, "k", "SELECT f()").as_deref(), Some("2"));
    assert_fresh([&mut new, &mut old], "k", "SELECT f()");
}

/// `CREATE TABLE AS` inside `EXPLAIN ANALYZE` is not a command of its own, but it creates a table. A result that was read from
/// another table of that name must be invalidated.
#[test]
fn a_table_created_by_explain_analyze_may_shadow_another() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    session.batch_execute("CREATE SCHEMA ahead; CREATE TABLE t AS SELECT 1::bigint AS v").expect("a table");
    for session in [&mut session, &mut other] {
        session.batch_execute("SET search_path = ahead, public").expect("it is set");
    }
    assert_fresh([&mut session, &mut other], "k", "SELECT v FROM t");
    session
        .batch_execute("EXPLAIN ANALYZE CREATE TABLE ahead.t AS SELECT 2::bigint AS v")
        .expect("it explains");
    assert_fresh([&mut session, &mut other], "k", "SELECT v FROM t");
}

/// A volatile function may return a different result each time, or change something. So its result must not be stored, unless
/// the caller declares the dependencies with `depends`.
#[test]
fn the_result_of_a_volatile_function_is_not_stored() {
    let database = Database::create();
    let mut session = database.connect();
    session
        .batch_execute(
            "CREATE SEQUENCE s; CREATE TABLE t AS SELECT 1 AS v; CREATE VIEW dice AS SELECT random() AS v;
             CREATE FUNCTION careless() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT v FROM t); END'",
        )
        .expect("they are there");
    for query in [
        "SELECT nextval('s')",
        "SELECT v FROM dice",
        "SELECT careless()",
        "WITH c AS (SELECT random() AS r) SELECT v FROM t, c WHERE r >= 0",
        "SELECT v FROM t WHERE EXISTS (SELECT random())",
    ] {
        for _ in 0..2 {
            fetch(&mut session, "k", query);
            let status: String = session.query_one("SELECT cache_status()", &[]).expect("it says").get(0);
            let names_function = status.starts_with("refused: function ") && status.ends_with(" is volatile");
            let has_written = status == "refused: the query has written something";
            // The first call of nextval writes WAL, so the transaction gets an ID, and counts as one that has written. Most later
            // calls write no WAL.
            assert!(names_function || query.contains("nextval") && has_written, "{query}: {status}");
        }
    }
    let call = "SELECT cache_fetch('k', 'SELECT careless()', depends => '{t}'), cache_exists('k')";
    let stored: bool = session.query_one(call, &[]).expect("it fetches").get(1);
    assert!(stored, "depends names the dependencies");
}

/// Roles belong to the whole cluster: a change of roles invalidates the results of queries in all databases. Other
/// names belong to one database.
#[test]
fn a_renamed_role_invalidates_in_other_databases_and_a_renamed_table_does_not() {
    let databases = [(); 2].map(|()| Database::create());
    let [mut one, mut other] = [&databases[0], &databases[1]].map(Database::connect);
    one.batch_execute("CREATE TABLE t (); CREATE ROLE fetch_one").expect("a table and a role");
    // Returns whether a stored result is still a hit after a command.
    let stays = |other: &mut Client, one: &mut Client, command: &str| {
        assert_eq!(fetch(other, "key", "SELECT 1").as_deref(), Some("1"));
        one.batch_execute(command).expect("it is renamed");
        let found = other.query_one("SELECT cache_get('key')::text", &[]).expect("it looks");
        other.execute("SELECT cache_delete('key')", &[]).expect("it is removed");
        found.get::<_, Option<String>>(0).is_some()
    };
    let renames = "ALTER TABLE t RENAME TO u; ALTER TABLE u RENAME TO t";
    assert!(stays(&mut other, &mut one, renames), "a table belongs to one database");
    assert!(!stays(&mut other, &mut one, "ALTER ROLE fetch_one RENAME TO fetch_other"));
    one.batch_execute("DROP ROLE fetch_other").expect("it goes");
}

/// Runs one statement in a message of its own and returns the first value: "nothing" if it is null, and `None` if there is no
/// row. Outside of a block, the statement is a transaction of its own.
fn say(session: &mut Client, statement: &str) -> Option<String> {
    let said = session.simple_query(statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
    said.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("nothing").to_owned()),
        _ => None,
    })
}

/// A transaction whose isolation level gives it one snapshot, however that level was set, must get values from before
/// its snapshot and no later ones.
#[test]
fn a_transaction_with_one_snapshot_gets_only_values_from_before_it() {
    const GET: &str = "SELECT cache_get('k')";
    const LEVEL: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ";
    let database = Database::create();
    let mut writer = database.connect();
    writer.batch_execute("CREATE TABLE t AS SELECT 0 AS v").expect("a table");
    let mut change = || -> Option<String> {
        say(&mut writer, "UPDATE t SET v = v + 1");
        fetch(&mut writer, "k", "SELECT v FROM t")
    };
    let mut other = database.connect();
    // Statements before the change, and after it. The last one returns what the transaction gets from the cache: its snapshot is
    // newer than the change.
    for (before, after) in [
        (&["SELECT 1"][..], &["SET default_transaction_isolation = 'repeatable read'", GET][..]),
        (&["RESET default_transaction_isolation", "BEGIN"], &["COMMIT AND CHAIN", LEVEL, GET]),
        (&["ROLLBACK"], &["BEGIN", LEVEL, GET]),
        (&["COMMIT"], &["BEGIN ISOLATION LEVEL REPEATABLE READ", "COMMIT AND CHAIN", GET]),
        (
            &["COMMIT"],
            &[
                "DO $$ BEGIN
                     COMMIT; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
                     PERFORM set_config('its.value', cache_get('k')::text, false);
                 END $$",
                "SELECT current_setting('its.value')",
            ],
        ),
    ] {
        before.iter().for_each(|statement| _ = say(&mut other, statement));
        let new = change();
        let said = after.iter().map(|statement| say(&mut other, statement)).last().flatten();
        assert_eq!(said, new, "{after:?}");
    }
    // From here on, the snapshots are older than the change.
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ";
    say(&mut other, begin);
    let exported = say(&mut other, "SELECT pg_export_snapshot()").expect("it has a name");
    let mut third = database.connect();
    say(&mut third, begin);
    say(&mut third, &format!("SET TRANSACTION SNAPSHOT '{exported}'"));
    change();
    for session in [&mut other, &mut third] {
        for statement in ["SELECT 1", "SET TRANSACTION READ ONLY", "BEGIN", "SAVEPOINT s"] {
            say(session, statement);
            assert_eq!(say(session, GET).as_deref(), Some("nothing"), "{statement}");
        }
    }
    // If the isolation level is set before the session begins, the session's first statement must work too. No
    // transaction precedes it, except the one that starts the session.
    let name = database.name();
    say(&mut third, "COMMIT");
    say(&mut third, &format!("ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'"));
    let new = change();
    assert_eq!(say(&mut database.connect(), GET), new);
}

/// Uncommitted rows must stay in the transaction that wrote them, for any dependencies that the caller declares.
#[test]
fn uncommitted_rows_are_not_published_even_with_depends() {
    let database = Database::create();
    let [mut writer, mut other] = [(); 2].map(|()| database.connect());
    writer
        .batch_execute(
            "CREATE TABLE acc AS SELECT 1 AS v; CREATE TABLE calm AS SELECT 7 AS v;
             CREATE TABLE whole (v int); CREATE TABLE part () INHERITS (whole);
             CREATE FUNCTION total() RETURNS bigint VOLATILE LANGUAGE plpgsql AS
                 'BEGIN RETURN (SELECT sum(v) FROM acc); END';
             SELECT lo_from_bytea(4242, 'x')",
        )
        .expect("tables");
    for (write, query, depends) in [
        ("UPDATE acc SET v = 999", "SELECT sum(v) FROM acc", "{}"),
        ("UPDATE acc SET v = 999", "SELECT sum(v) FROM acc", "{calm}"),
        ("UPDATE acc SET v = 999", "SELECT total()", "{}"),
        ("INSERT INTO part VALUES (999)", "SELECT sum(v) FROM whole", "{}"),
        ("INSERT INTO whole VALUES (999)", "SELECT sum(v) FROM ONLY whole", "{}"),
        ("SELECT lo_put(4242, 0, '999')", "SELECT length(lo_get(4242))", "{}"),
        ("CREATE TEMP TABLE mine AS SELECT 999 AS v", "SELECT sum(v) FROM mine", "{}"),
        // Commands do not keep locks on the catalogs that they write to.
        ("CREATE INDEX ghost ON acc (v)", "SELECT count(*) FROM pg_class WHERE relname = ''ghost''", "{}"),
        ("CREATE INDEX ghost ON acc (v)", "SELECT pg_get_indexdef(to_regclass(''ghost''))", "{}"),
        ("CREATE TEMP TABLE ghost ()", "SELECT count(*) FROM pg_class WHERE relname = ''ghost''", "{calm}"),
        ("SELECT lo_create(4243)", "SELECT count(*) FROM pg_largeobject_metadata", "{}"),
    ] {
        let fetch = format!("SELECT cache_fetch('dirty', '{query}', depends => '{depends}')");
        writer.batch_execute(&format!("BEGIN; {write}; {fetch}")).expect("it fetches");
        assert!(!is_cached(&mut other, "dirty"), "{write}; {query}");
        writer.batch_execute("ROLLBACK").expect("it is rolled back");
        assert!(!is_cached(&mut other, "dirty"), "{write}; {query}");
    }
    // A transaction that has written only other tables still publishes its results.
    writer
        .batch_execute(
            "BEGIN; UPDATE acc SET v = 2; SELECT cache_fetch('clean', 'SELECT v FROM calm', depends => '{}')",
        )
        .expect("it fetches");
    assert!(is_cached(&mut other, "clean"));
    writer.batch_execute("ROLLBACK").expect("it is rolled back");
    // A result that read a temporary table is never stored.
    let own = "CREATE TEMP TABLE mine AS SELECT 1 AS v; SELECT cache_fetch('own', 'SELECT v FROM mine', depends => '{}')";
    writer.batch_execute(own).expect("it fetches");
    assert!(!is_cached(&mut other, "own"));
}

/// A write through a foreign table is a write to another server, here the same one, so it is not a change that this session's
/// locks show. A transaction that has used a foreign table sees its own remote rows before they are committed, and `postgres_fdw`
/// keeps one remote snapshot until the transaction ends. A result of such a transaction must not be stored.
#[test]
fn uncommitted_and_old_rows_of_foreign_tables_are_not_published() {
    let database = Database::create();
    if database.cluster().server().lacks("postgres_fdw") {
        return;
    }
    let [mut writer, mut other] = [(); 2].map(|()| database.connect());
    let value = |session: &mut Client, query: &str| -> String {
        session.query_one(query, &[]).expect("it reads").get(0)
    };
    let here = |name: &str| format!("current_setting('{name}')");
    let options = format!(
        "SELECT format('host %L, port %L, dbname %L', split_part({}, ', ', 1), {}, current_database())",
        here("unix_socket_directories"),
        here("port")
    );
    let options = value(&mut writer, &options);
    let user = value(&mut writer, "SELECT format('user %L', current_user)");
    writer
        .batch_execute(&format!(
            "CREATE TABLE acc AS SELECT 1 AS v; CREATE EXTENSION postgres_fdw;
             CREATE SERVER there FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({options});
             CREATE USER MAPPING FOR CURRENT_USER SERVER there OPTIONS ({user});
             CREATE FOREIGN TABLE far (v int) SERVER there OPTIONS (table_name 'acc');
             CREATE FOREIGN TABLE same (v int) SERVER there OPTIONS (table_name 'acc');
             CREATE FUNCTION change() RETURNS int VOLATILE LANGUAGE plpgsql AS
                 'BEGIN UPDATE far SET v = 998; RETURN (SELECT v FROM far); END'"
        ))
        .expect("foreign tables");
    for (before, query) in [
        ("UPDATE far SET v = 999", "SELECT sum(v) FROM far"),
        ("UPDATE far SET v = 999", "SELECT sum(v) FROM same"),
        ("SELECT FROM far", "SELECT sum(v) FROM far"),
        ("SELECT", "SELECT change()"),
    ] {
        let fetch = format!("SELECT cache_fetch('dirty', '{query}', depends => '{{}}')");
        writer.batch_execute(&format!("BEGIN; {before}; {fetch}; ROLLBACK")).expect("it fetches");
        assert!(!is_cached(&mut other, "dirty"), "{before}; {query}");
    }
    let fetch = "SELECT cache_fetch('clean', 'SELECT sum(v) FROM far', depends => '{}')";
    writer.batch_execute(fetch).expect("it fetches");
    assert!(is_cached(&mut other, "clean"), "depends names the dependencies");
    // The foreign table of pg_cache, which a cached view reads, has no rows of its own.
    let fetch = "SELECT cache_fetch('behind a view', 'SELECT sum(v) FROM far', depends => '{}')";
    writer.batch_execute("SELECT cache_create_view('cached', 'SELECT 1 AS one')").expect("it creates");
    writer.batch_execute(&format!("BEGIN; SELECT FROM cached; {fetch}; COMMIT")).expect("it fetches");
    assert!(is_cached(&mut other, "behind a view"), "a cached view was read before");
}

/// No fence covers the choice of rows by `TABLESAMPLE`. No fence covers the state that some built-in functions report: indexes,
/// publications, triggers and names of relations. Results that depend on either must not be stored.
#[test]
fn results_of_reads_without_a_fence_are_not_stored() {
    let database = Database::create();
    let mut session = database.connect();
    session
        .batch_execute(
            "CREATE TABLE t AS SELECT i AS v FROM generate_series(1, 100) AS i; CREATE PUBLICATION p;
             CREATE FUNCTION indexed() RETURNS bool STABLE LANGUAGE plpgsql AS
                 'BEGIN RETURN to_regclass(''t_v'') IS NOT NULL; END';
             CREATE VIEW shown AS SELECT DISTINCT v FROM t;
             CREATE TRIGGER instead INSTEAD OF UPDATE ON shown
                 FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        )
        .expect("a table");
    for (query, change) in [
        ("SELECT count(*) FROM t TABLESAMPLE BERNOULLI (50)", "SELECT"),
        ("SELECT count(*) FROM (SELECT * FROM t TABLESAMPLE SYSTEM (50)) AS s", "SELECT"),
        ("SELECT count(*) FROM pg_get_publication_tables('p')", "ALTER PUBLICATION p ADD TABLE t"),
        ("SELECT to_regclass('t_v') IS NOT NULL", "CREATE INDEX t_v ON t (v)"),
        ("SELECT indexed()", "DROP INDEX t_v"),
        ("SELECT pg_relation_is_updatable('shown', true)", "DROP TRIGGER instead ON shown"),
    ] {
        for change in ["SELECT", change] {
            session.batch_execute(change).expect("it changes");
            let truth: Option<String> = session
                .query_one(&format!("SELECT to_jsonb(r)::text FROM ({query}) AS f(r)"), &[])
                .expect("it reads")
                .get(0);
            let fetched = fetch(&mut session, "k", query);
            assert!(query.contains("TABLESAMPLE") || fetched == truth, "{query}");
            assert!(!is_cached(&mut session, "k"), "{query}");
        }
    }
}

/// PL/pgSQL prepares an expression when a transaction first evaluates it. This may happen before the fill, which must still
/// notice that the expression calls `to_regclass`, and not store the result.
#[test]
fn calls_of_a_function_are_seen_if_the_transaction_has_called_it_before() {
    let database = Database::create();
    let mut session = database.connect();
    session
        .batch_execute(
            "CREATE FUNCTION indexed() RETURNS bool STABLE LANGUAGE plpgsql AS
                 'BEGIN RETURN to_regclass(''t_v'') IS NOT NULL; END';
             CREATE FUNCTION through() RETURNS bool STABLE LANGUAGE plpgsql AS 'BEGIN RETURN indexed(); END'",
        )
        .expect("functions");
    // The first fill of a session drops its plans. A later fill drops them only if definitions or roles have changed since, or
    // if it would not observe the functions that the query calls.
    fetch(&mut session, "first", "SELECT 1");
    for query in ["SELECT indexed()", "SELECT through()"] {
        session.batch_execute(&format!("BEGIN; {query}")).expect("it calls");
        for _ in 0..2 {
            fetch(&mut session, "k", query);
            assert!(!is_cached(&mut session, "k"), "{query}");
        }
        session.batch_execute("COMMIT").expect("it commits");
    }
}

/// A table gets fences of its own when a result first depends on it. A transaction that keeps a snapshot from before must
/// not get that result if the table has changed in between.
#[test]
fn a_snapshot_from_before_the_first_result_of_a_table_is_kept() {
    let database = Database::create();
    let [mut old, mut new] = [(); 2].map(|()| database.connect());
    new.batch_execute("CREATE TABLE t AS SELECT 1 AS v").expect("a table");
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT v FROM t").expect("it has a snapshot");
    new.batch_execute("UPDATE t SET v = 2").expect("it is changed");
    assert_eq!(fetch(&mut new, "k", "SELECT v FROM t").as_deref(), Some("2"));
    assert_eq!(fetch(&mut old, "k", "SELECT v FROM t").as_deref(), Some("1"));
    old.batch_execute("COMMIT").expect("it ends");
    assert_eq!(fetch(&mut old, "k", "SELECT v FROM t").as_deref(), Some("2"));
}

/// A relation on which no value has depended yet shares one of 256 fences with other relations. A write to one of the others
/// during the first fill must not make its result useless. With a probability of 99.7 %, one of 1500 other tables shares the
/// fence.
#[test]
fn writes_to_other_tables_do_not_spoil_the_first_result_of_a_table() {
    let database = Database::create();
    let [mut gate, mut filler, mut other] = [(); 3].map(|()| database.connect());
    let tables =
        "DO $$ BEGIN FOR i IN 1 .. 1500 LOOP EXECUTE format('CREATE TABLE o%s (v int)', i); END LOOP; END $$";
    let insert = tables.replace("CREATE TABLE o%s (v int)", "INSERT INTO o%s VALUES (1)");
    let setup = "CREATE TABLE t AS SELECT 1 AS v;
        CREATE FUNCTION waits(v int) RETURNS int STABLE LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN v; END'";
    other.batch_execute(setup).expect("a table and a function");
    other.batch_execute(tables).expect("1500 tables");
    gate.batch_execute("SELECT pg_advisory_lock(1)").expect("it locks");
    let filling = std::thread::spawn(move || fetch(&mut filler, "k", "SELECT waits(v) FROM t"));
    wait_until("the fill to wait", || {
        let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database =
                     (SELECT oid FROM pg_database WHERE datname = current_database())";
        gate.query_one(waits, &[]).expect("there is a view").get::<_, i64>(0) == 1
    });
    other.batch_execute(&insert).expect("it writes");
    gate.batch_execute("SELECT pg_advisory_unlock(1)").expect("it unlocks");
    assert_eq!(filling.join().expect("it runs").as_deref(), Some("1"));
    assert_eq!(say(&mut gate, "SELECT cache_get('k')").as_deref(), Some("1"));
    assert_eq!(say(&mut gate, "SELECT cache_status()").as_deref(), Some("hot"));
}
