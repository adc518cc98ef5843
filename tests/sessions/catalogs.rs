//! Tests of catalog changes that must invalidate cached results, and of others that must not: in shared catalogs, from other
//! databases, and where no command or invalidation message reports them. A *fence* is a word in shared memory that says when
//! something that values depend on last changed (`docs/invalidation.md`). `findings` (`memory.rs`) returns what `cache_check()`
//! finds wrong in the cache, and `is_cached` (`fences.rs`) returns whether a key is a hit.

use crate::fences::is_cached;
use crate::memory::{cluster, findings};
use pg_cache_testbed::{Cluster, Conf, Stop, wait_until};
use postgres::Client;

/// The settings of a small cache, because `cache_check()` looks at all of it.
fn conf() -> Conf {
    Conf::preloaded().set("pg_cache.hot_size", "4MB").set("pg_cache.fence_slots", "65536")
}

/// Runs statements that must succeed.
fn run(session: &mut Client, statements: &str) {
    session.batch_execute(statements).unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}

/// Returns the text of the single value that a `SELECT` returns, or `None` if it is null or there is no row.
fn value(session: &mut Client, statement: &str) -> Option<String> {
    let row = session.query_one(&format!("SELECT ({statement})::text"), &[]);
    row.unwrap_or_else(|error| panic!("{statement}: {error:?}")).get(0)
}

/// Creates a database with the extension, and opens a session in it.
fn create(cluster: &Cluster, name: &str) -> Client {
    run(&mut cluster.connect("postgres"), &format!("CREATE DATABASE {name}"));
    let mut session = cluster.connect(name);
    run(&mut session, "CREATE EXTENSION pg_cache");
    session
}

/// Fetches the query under the key `k`, and returns its result as text.
fn fetch(session: &mut Client, query: &str) -> Option<String> {
    value(session, &format!("SELECT cache_fetch('k', $q${query}$q$) #>> '{{}}'"))
}

/// Each change is made in the other database. It must invalidate the result, and the query must return another result afterwards:
/// a case whose result stays the same proves nothing. The cases build on each other.
#[test]
fn shared_catalogs_that_change_in_another_database_invalidate_results_here() {
    let cluster = cluster(&conf());
    let (mut here, mut there) = (create(&cluster, "here"), create(&cluster, "there"));
    run(&mut there, "CREATE ROLE one; CREATE ROLE two; CREATE ROLE member");
    let cases = [
        ("pg_has_role('member', 'pg_database_owner', 'USAGE')", "ALTER DATABASE here OWNER TO member"),
        ("has_database_privilege('one', 'here', 'CREATE')", "GRANT CREATE ON DATABASE here TO one"),
        (
            "has_tablespace_privilege('one', 'pg_default', 'CREATE')",
            "GRANT CREATE ON TABLESPACE pg_default TO one",
        ),
        (
            "has_parameter_privilege('one', 'log_statement', 'SET')",
            "GRANT SET ON PARAMETER log_statement TO one",
        ),
        (
            "pg_has_role('member', 'two', 'USAGE')",
            "UPDATE pg_authid SET rolsuper = true WHERE rolname = 'member'",
        ),
        ("pg_has_role('one', 'two', 'USAGE')", "GRANT two TO one"),
        ("pg_has_role('one', 'two', 'USAGE')", "ALTER ROLE one NOINHERIT"),
        ("pg_has_role('one', 'two', 'MEMBER')", "DELETE FROM pg_auth_members"),
        ("pg_has_role('one', 'two', 'MEMBER')", "ALTER GROUP two ADD USER one"),
        (
            "pg_has_role('one', 'two', 'MEMBER')",
            "COPY pg_auth_members TO PROGRAM 'cat > members'; DELETE FROM pg_auth_members",
        ),
        ("pg_has_role('one', 'two', 'MEMBER')", "COPY pg_auth_members FROM PROGRAM 'cat members'"),
        ("has_database_privilege('one', 'here', 'CREATE')", "DROP OWNED BY one"),
        ("to_regrole('renamed')::text", "ALTER ROLE two RENAME TO renamed"),
    ];
    let mut unchanged = Vec::new();
    for (what, change) in cases {
        // Since PostgreSQL 16, the membership decides whether it is inherited, not the role.
        if change.contains("NOINHERIT") && cluster.server().major() > 15 {
            continue;
        }
        let query = format!("SELECT {what}");
        run(&mut here, "SELECT cache_delete('k')");
        let before = fetch(&mut here, &query);
        assert!(is_cached(&mut here, "k"), "before {change}");
        run(&mut there, change);
        assert!(!is_cached(&mut here, "k"), "after {change}");
        if fetch(&mut here, &query) == before {
            unchanged.push(change);
        }
    }
    assert_eq!(unchanged, Vec::<&str>::new(), "these changes prove nothing");
    assert_eq!(findings(&mut here), Vec::<String>::new());
}

/// Found on PostgreSQL 16: a row of `pg_auth_members` has another first column there, so `DROP ROLE` failed when it looked for
/// members of the role.
#[test]
fn a_dropped_role_invalidates_results_if_it_had_members() {
    let cluster = cluster(&conf());
    let (mut here, mut there) = (create(&cluster, "here"), create(&cluster, "there"));
    run(&mut there, "CREATE ROLE alone; CREATE ROLE team; CREATE ROLE member; GRANT team TO member");
    for (role, has_members) in [("alone", false), ("team", true)] {
        assert_eq!(fetch(&mut here, "SELECT 1").as_deref(), Some("1"));
        assert!(is_cached(&mut here, "k"), "before {role} goes");
        run(&mut there, &format!("DROP ROLE {role}"));
        assert_eq!(is_cached(&mut here, "k"), !has_members, "after {role} has gone");
    }
}

/// Defaults of settings, passwords with their end, and comments decide no privilege, so they must invalidate nothing. A command
/// that also changes an attribute must invalidate.
#[test]
fn settings_and_passwords_of_roles_invalidate_no_result() {
    let cluster = cluster(&conf());
    let (mut here, mut there) = (create(&cluster, "here"), create(&cluster, "there"));
    run(&mut there, "CREATE ROLE me LOGIN");
    assert_eq!(fetch(&mut here, "SELECT 1").as_deref(), Some("1"));
    for change in [
        "ALTER ROLE me SET work_mem = '8MB'",
        "ALTER ROLE me IN DATABASE here SET work_mem = '8MB'",
        "ALTER ROLE ALL RESET work_mem",
        "ALTER DATABASE here SET work_mem = '8MB'",
        "ALTER ROLE me RESET ALL",
        "ALTER ROLE me PASSWORD 'secret'",
        "ALTER ROLE me VALID UNTIL '2100-01-01'",
        "ALTER ROLE me PASSWORD NULL",
        "COMMENT ON ROLE me IS 'a role'",
    ] {
        for session in [&mut there, &mut here] {
            run(session, change);
        }
        assert!(is_cached(&mut here, "k"), "after {change}");
    }
    run(&mut there, "ALTER ROLE me SUPERUSER PASSWORD 'other'");
    assert!(!is_cached(&mut here, "k"));
}

/// Any role may run these commands, and without the right to grant, or without anything to drop, they change nothing. A `GRANT`
/// that changes a privilege must invalidate.
#[test]
fn grants_without_the_grant_option_invalidate_no_result_of_other_databases() {
    let cluster = cluster(&conf());
    let (mut here, mut there) = (create(&cluster, "here"), create(&cluster, "there"));
    run(&mut there, "CREATE ROLE me; CREATE ROLE other; GRANT me TO other; SET ROLE me");
    assert_eq!(fetch(&mut here, "SELECT 1").as_deref(), Some("1"));
    for change in [
        "GRANT CONNECT ON DATABASE here TO me",
        "REVOKE CONNECT ON DATABASE here FROM me",
        "DROP OWNED BY me",
        "REASSIGN OWNED BY me TO me",
    ] {
        run(&mut there, change);
        assert!(is_cached(&mut here, "k"), "after {change}");
    }
    run(&mut there, "RESET ROLE; GRANT CREATE ON TABLESPACE pg_default TO me");
    assert!(!is_cached(&mut here, "k"));
}

/// Other sessions cannot read a temporary table, so commands on it must invalidate nothing, even if it is a child of a permanent
/// table.
#[test]
fn temporary_tables_invalidate_no_result() {
    let cluster = cluster(&conf());
    let (mut here, mut other) = (create(&cluster, "here"), cluster.connect("here"));
    run(&mut here, "CREATE TABLE whole (v int); CREATE ROLE reader");
    assert_eq!(fetch(&mut here, "SELECT count(*) FROM whole").as_deref(), Some("0"));
    let mut wrong = Vec::new();
    for change in [
        "CREATE TEMP TABLE child () INHERITS (whole)",
        "CREATE TEMP TABLE parent (v int); CREATE TEMP TABLE second () INHERITS (parent)",
        "CREATE TEMP TABLE parts (v int) PARTITION BY LIST (v)",
        "CREATE TEMP TABLE part PARTITION OF parts FOR VALUES IN (1)",
        "CREATE TEMP TABLE loose (v int); ALTER TABLE parts ATTACH PARTITION loose DEFAULT",
        "ALTER TABLE parts DETACH PARTITION loose",
        "ALTER TABLE parent ADD COLUMN w int",
        "ALTER TABLE parent ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY p ON parent USING (true)",
        "ALTER POLICY p ON parent USING (v > 0)",
        "DROP POLICY p ON parent",
        "GRANT SELECT ON parent, second TO reader",
        "REVOKE SELECT ON parent FROM reader",
        "ALTER TABLE loose RENAME TO looser",
        "ALTER TABLE second NO INHERIT parent",
        "DROP TABLE second, parent, child, looser, parts",
    ] {
        for statement in change.split("; ") {
            run(&mut other, statement);
        }
        if !is_cached(&mut here, "k") {
            wrong.push(change);
            fetch(&mut here, "SELECT count(*) FROM whole");
        }
    }
    assert_eq!(wrong, Vec::<&str>::new());
}

/// If a parent has no columns, `INHERIT` does not change the catalog rows of the child, so no invalidation message names the
/// child. The writer's session must look up the parents of its table again all the same. Otherwise, its write would invalidate
/// nothing that depends on `top`.
#[test]
fn a_write_invalidates_results_of_a_parent_without_columns() {
    let cluster = cluster(&conf());
    let (mut writer, mut other) = (create(&cluster, "here"), cluster.connect("here"));
    run(&mut other, "CREATE TABLE top (); CREATE TABLE mid (v int); SELECT cache_watch('top')");
    // The writer's session now remembers that its table has no parents.
    run(&mut writer, "INSERT INTO mid VALUES (1)");
    run(&mut other, "ALTER TABLE mid INHERIT top; SELECT cache_set_text('tagged', 'v', tags => '{top}')");
    for count in 1..4 {
        assert_eq!(fetch(&mut other, "SELECT count(*) FROM top"), Some(count.to_string()));
        // `tagged` is set only once, so only the first write finds it.
        assert!(is_cached(&mut other, "k") && (count > 1 || is_cached(&mut other, "tagged")));
        run(&mut writer, "INSERT INTO mid VALUES (1)");
        assert!(!is_cached(&mut other, "k") && !is_cached(&mut other, "tagged"));
    }
}

/// Roles belong to the whole cluster. So the record of a prepared transaction that has changed roles must also have the fence of
/// the roles, even if it cannot hold the other fences one by one.
#[test]
fn a_prepared_grant_invalidates_in_other_databases_at_its_commit() {
    let cluster = cluster(&conf().set("max_locks_per_transaction", "256"));
    let (mut here, mut there) = (create(&cluster, "here"), create(&cluster, "there"));
    run(&mut there, "CREATE ROLE one; CREATE ROLE two; CREATE TABLE t (v int)");
    let query = "SELECT pg_has_role('one', 'two', 'USAGE')";
    let many: String =
        (0..200).map(|i| format!("; CREATE TABLE t{i} (v int); INSERT INTO t{i} VALUES (1)")).collect();
    let tags = "; SELECT cache_invalidate_tag('tag ' || i) FROM generate_series(1, 1100) AS i";
    // Further changes of the transaction, and whether the server is restarted cleanly before the commit. The record must survive
    // the restart. A record holds 1024 fences. With more, as the tags here, it holds those of the database instead, and must keep
    // that of the roles.
    for (more, restarts) in [("", false), (&many[..], false), (tags, false), ("", true)] {
        run(&mut there, &format!("BEGIN; GRANT two TO one{more}; PREPARE TRANSACTION 'p'"));
        if restarts {
            drop((here, there));
            cluster.restart(Stop::Fast, &conf());
            (here, there) = (cluster.connect("here"), cluster.connect("there"));
        }
        assert_eq!(fetch(&mut here, query).as_deref(), Some("false"));
        assert!(is_cached(&mut here, "k"));
        run(&mut there, "COMMIT PREPARED 'p'");
        assert!(!is_cached(&mut here, "k"), "restarts: {restarts}");
        assert_eq!(fetch(&mut here, query).as_deref(), Some("true"));
        run(&mut there, "REVOKE two FROM one");
    }
}

/// A snapshot taken on a standby is older than the changes that the server replays until its promotion. Fences do not
/// cover those changes, so a transaction that began before the promotion must get no value at all.
#[test]
fn a_snapshot_from_before_a_promotion_is_served_nothing_newer() {
    let primary = Cluster::start(&conf());
    let mut source = create(&primary, "here");
    run(&mut source, "CREATE TABLE t AS SELECT 1 AS v");
    let standby = Cluster::start(&conf());
    standby.stop(Stop::Fast);
    standby.follow(&primary);
    standby.resume();
    let (mut old, mut new) = (standby.connect("here"), standby.connect("here"));
    run(&mut old, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(value(&mut old, "SELECT v FROM t").as_deref(), Some("1"));
    run(&mut source, "UPDATE t SET v = 2");
    wait_until("the change to be replayed", || value(&mut new, "SELECT v FROM t").as_deref() == Some("2"));
    run(&mut new, "SELECT pg_promote()");
    assert_eq!(fetch(&mut new, "SELECT v FROM t").as_deref(), Some("2"));
    assert!(is_cached(&mut new, "k"));
    assert_eq!(fetch(&mut old, "SELECT v FROM t").as_deref(), Some("1"), "what its snapshot sees");
    assert_eq!(value(&mut old, "SELECT cache_get('k')"), None);
    // The old snapshot must not get a lease either, under which it could publish what it sees.
    run(&mut new, "SELECT cache_delete('k')");
    let leased = "SELECT cache_set('k', to_jsonb((SELECT v FROM t)), lease => lease) FROM cache_acquire('k')";
    assert_eq!(value(&mut old, leased).as_deref(), Some("false"));
    run(&mut old, "ROLLBACK");
    assert_eq!(fetch(&mut new, "SELECT v FROM t").as_deref(), Some("2"));
    assert_eq!(
        value(&mut old, "SELECT cache_get('k')").as_deref(),
        Some("2"),
        "the next transaction is served"
    );
}
