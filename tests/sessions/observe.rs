//! Tests of `pg_cache.observe`. With this setting, the statements of the client run as always, and pg_cache finds out which of them
//! would have been hits (`docs/advice.md`). It must count exactly the hits that `cache_query` would have had, and give the same
//! reasons for results that would not have been stored. Nothing may change for the application.

use crate::memory::{cluster, findings};
use pg_cache_testbed::{Conf, Database, Stop};
use postgres::Client;
use postgres::error::SqlState;
use std::time::{Duration, Instant};

fn run(session: &mut Client, statements: &str) {
    session.batch_execute(statements).unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}

/// Runs a SELECT that returns one value, with the simple query protocol, and returns the value.
fn value(session: &mut Client, query: &str) -> String {
    let messages = session.simple_query(query).unwrap_or_else(|error| panic!("{query}: {error:?}"));
    let row = messages.iter().find_map(|message| match message {
        postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    row.and_then(|row| row.get(0)).unwrap_or("null").to_owned()
}

/// Opens a session whose statements are observed.
fn observed(database: &Database) -> Client {
    let mut session = database.connect();
    run(&mut session, "SET pg_cache.observe = on");
    session
}

/// The figures of a statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Figures {
    calls: i64,
    hits: i64,
    refused: Option<String>,
    invalidated_by: Option<String>,
}

/// Returns the figures of the statement with this text, as the superuser sees them. All are 0 if there is none.
fn figures(viewer: &mut Client, text: &str) -> Figures {
    let query = "SELECT COALESCE(sum(calls), 0)::bigint, COALESCE(sum(hits), 0)::bigint, max(refused), max(invalidated_by)
                   FROM cache_observed WHERE query = $1";
    let row = viewer.query_one(query, &[&text]).expect("a view");
    Figures { calls: row.get(0), hits: row.get(1), refused: row.get(2), invalidated_by: row.get(3) }
}

/// Returns calls and hits.
fn counts(viewer: &mut Client, text: &str) -> (i64, i64) {
    let figures = figures(viewer, text);
    (figures.calls, figures.hits)
}

/// A generator of pseudo-random numbers, with Knuth's constants for 64 bits. A seed gives the same numbers in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }

    fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

const TABLES: &str = "
    CREATE TABLE a (id int PRIMARY KEY, n int);
    CREATE TABLE b (id int PRIMARY KEY, n int);
    CREATE TABLE parts (day int, n int) PARTITION BY LIST (day);
    CREATE TABLE part_1 PARTITION OF parts FOR VALUES IN (1);
    CREATE TABLE part_2 PARTITION OF parts FOR VALUES IN (2);
    INSERT INTO a SELECT i, i FROM generate_series(1, 20) AS i;
    INSERT INTO b SELECT i, i FROM generate_series(1, 20) AS i;
    INSERT INTO parts SELECT 1 + i % 2, i FROM generate_series(1, 20) AS i;
    CREATE VIEW v AS SELECT id, n FROM b WHERE n > 0;
    CREATE FUNCTION sum_of_b() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT sum(n) FROM b); END';
    CREATE FUNCTION plus_one(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 1';
    CREATE FUNCTION count_of_a() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM a'";

/// Queries without parameters.
const READS: [&str; 19] = [
    "SELECT count(*) AS x FROM a",
    "SELECT a.n, b.n AS m FROM a JOIN b USING (id) ORDER BY 1, 2",
    "SELECT n FROM v ORDER BY n",
    "SELECT count(*) AS x FROM parts WHERE day = 1",
    "SELECT count(*) AS x FROM parts",
    "SELECT random() > 2 AS x",
    "SELECT count(*) AS x FROM pg_catalog.pg_class WHERE relname = 'a'",
    "SELECT sum_of_b() AS x",
    "SELECT count_of_a() AS x",
    "SELECT plus_one(n) AS x FROM a ORDER BY n",
    "SELECT current_setting('TimeZone') AS zone, count(*) AS x FROM a",
    "SELECT now() > '2000-01-01' AS later, count(*) AS x FROM b",
    "SELECT current_date > '2000-01-01' AS later",
    "SELECT pg_backend_pid() > 0 AS x",
    "SELECT cache_get('k') AS x",
    "SELECT count(*) AS x FROM a TABLESAMPLE BERNOULLI (100)",
    "SELECT xmin IS NULL AS x FROM a WHERE id = 1",
    "SELECT x.n FROM a AS x WHERE EXISTS (SELECT FROM b WHERE b.id = x.id AND b.n > 3) ORDER BY 1",
    "SELECT array_agg(n ORDER BY n) AS x FROM a WHERE id = ANY (SELECT id FROM v)",
];

const WITH_ARGUMENT: &str = "SELECT n FROM a WHERE id = $1::int";

/// Changes that another session can make while a transaction has read these tables.
const CHANGES: [&str; 7] = [
    "UPDATE a SET n = n + 1 WHERE id = 3",
    "UPDATE a SET n = n WHERE false",
    "UPDATE b SET n = n + 1 WHERE id < 4",
    "UPDATE parts SET n = n + 1 WHERE day = 1",
    "INSERT INTO parts VALUES (2, 7)",
    "INSERT INTO b SELECT COALESCE(max(id), 0) + 1, 7 FROM b",
    "DO 'BEGIN UPDATE a SET n = 0 WHERE id = 5; PERFORM count(*) FROM b; END'",
];

const DEFINITIONS: [&str; 9] = [
    "TRUNCATE b",
    "ALTER TABLE a ALTER n SET DEFAULT 7",
    "CREATE OR REPLACE VIEW v AS SELECT id, n FROM b WHERE n >= 0",
    "CREATE OR REPLACE FUNCTION sum_of_b() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT sum(n) FROM b); END'",
    "GRANT SELECT ON a TO PUBLIC",
    "COMMENT ON TABLE a IS 'a table'",
    "CREATE TABLE IF NOT EXISTS other (id int)",
    "VACUUM FULL part_1",
    "ANALYZE a",
];

/// The same application twice: `plain` runs its statements without the cache, and `cached` calls `cache_query_json`.
struct Twins {
    plain: [Client; 2],
    cached: [Client; 2],
    viewer: Client,
    hits: usize,
    misses: usize,
    refusals: usize,
}

impl Twins {
    fn both(&mut self, session: usize, statement: &str) {
        run(&mut self.plain[session], statement);
        run(&mut self.cached[session], statement);
    }

    /// Runs a query both ways, and compares what was counted with the status of the cached call.
    fn read(&mut self, session: usize, query: &str, argument: Option<i32>) {
        let before = figures(&mut self.viewer, query);
        let (plain, cached) = (&mut self.plain[session], &mut self.cached[session]);
        match argument {
            Some(argument) => {
                plain.query(query, &[&argument]).expect("it runs");
                let call = "SELECT cache_query_json($1, jsonb_build_array($2::int))::text";
                cached.query_one(call, &[&query, &argument]).expect("it runs");
            }
            None => {
                plain.simple_query(query).expect("it runs");
                let call = format!("SELECT cache_query_json($text${query}$text$)::text");
                cached.simple_query(&call).expect("it runs");
            }
        }
        let status = value(cached, "SELECT cache_status()");
        let after = figures(&mut self.viewer, query);
        assert_eq!(after.calls, before.calls + 1, "{query}");
        let is_hit = status == "hot";
        assert_eq!(after.hits - before.hits, i64::from(is_hit), "{query} {argument:?}: {status}, {after:?}");
        let refused =
            status.strip_prefix("refused: ").or(Some(&*status).filter(|it| it.starts_with("bypass: ")));
        assert_eq!(after.refused.as_deref(), refused, "{query} {argument:?}: {status}");
        match (is_hit, refused) {
            (true, _) => self.hits += 1,
            (_, Some(_)) => self.refusals += 1,
            _ => self.misses += 1,
        }
    }

    fn read_any(&mut self, chance: &mut Chance, session: usize) {
        match chance.below(4) {
            0 => self.read(session, WITH_ARGUMENT, Some(chance.below(4) as i32)),
            _ => self.read(session, chance.one_of(&READS), None),
        }
    }

    fn step(&mut self, chance: &mut Chance) {
        let session = chance.below(2);
        match chance.below(24) {
            0..8 => self.read_any(chance, session),
            8..12 => (0..3).for_each(|_| self.read_any(chance, session)),
            12..15 => self.both(session, chance.one_of(&CHANGES)),
            15 => self.both(session, chance.one_of(&DEFINITIONS)),
            16 => self.both(session, chance.one_of(&["SET TimeZone = 'UTC'", "SET TimeZone = 'Asia/Tokyo'"])),
            17 => {
                self.both(session, &format!("BEGIN; {}; ROLLBACK", chance.one_of(&CHANGES)));
            }
            18..20 => {
                // The transaction reads what it has changed, also after a savepoint.
                self.both(session, &format!("BEGIN; {}", chance.one_of(&CHANGES)));
                self.read_any(chance, session);
                self.both(session, &format!("SAVEPOINT s; {}", chance.one_of(&CHANGES)));
                self.read_any(chance, session);
                self.both(session, "ROLLBACK TO s");
                self.read_any(chance, session);
                self.both(session, chance.one_of(&["COMMIT", "ROLLBACK"]));
            }
            20..23 => {
                let level = chance.one_of(&[
                    "READ COMMITTED",
                    "REPEATABLE READ",
                    "SERIALIZABLE",
                    "READ COMMITTED READ ONLY",
                ]);
                self.both(session, &format!("BEGIN ISOLATION LEVEL {level}"));
                self.read_any(chance, session);
                self.both(1 - session, chance.one_of(&CHANGES));
                (0..3).for_each(|_| self.read_any(chance, session));
                self.both(session, "COMMIT");
            }
            _ => {
                let change = chance.one_of(&CHANGES);
                self.both(session, &format!("BEGIN; {change}; PREPARE TRANSACTION 'p'"));
                self.read_any(chance, session);
                self.both(session, chance.one_of(&["COMMIT PREPARED 'p'", "ROLLBACK PREPARED 'p'"]));
            }
        }
    }
}

/// After this time, the caches of both applications are emptied.
const EMPTIED_AFTER: Duration = Duration::from_secs(30);

/// Runs the same random sequence of reads and changes with plain statements and with `cache_query_json`, and compares each read:
/// whether it was a hit, and if its result was not stored, why. `PG_CACHE_TEST_SEED` repeats a run. Without it, the long run draws
/// a seed, and the short run always uses the same one.
#[test]
fn it_counts_the_hits_and_refusals_of_cache_query() {
    let long = std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty());
    let told = std::env::var("PG_CACHE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let fresh = || std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_micros() as u64);
    let seed = told.unwrap_or_else(|| if long { fresh() } else { 2026 });
    println!("PG_CACHE_TEST_SEED={seed}");
    let mut chance = Chance(seed);
    // The databases of a cluster share their prepared transactions and roles, so each application has its own cluster.
    let [plain, cached] = [(); 2].map(|()| cluster(&Conf::preloaded()));
    for cluster in [&plain, &cached] {
        run(&mut cluster.connect("postgres"), TABLES);
    }
    let mut twins = Twins {
        plain: [(); 2].map(|()| plain.connect("postgres")),
        cached: [(); 2].map(|()| cached.connect("postgres")),
        viewer: plain.connect("postgres"),
        hits: 0,
        misses: 0,
        refusals: 0,
    };
    twins.plain.iter_mut().for_each(|session| run(session, "SET pg_cache.observe = on"));
    let mut began = Instant::now();
    for _ in 0..if long { 5000 } else { 300 } {
        // A result that has read the clock expires after a minute, in one application some moments before the other.
        if began.elapsed() > EMPTIED_AFTER {
            twins.both(0, "SELECT cache_flush('*')");
            began = Instant::now();
        }
        twins.step(&mut chance);
    }
    let Twins { hits, misses, refusals, .. } = twins;
    println!("{hits} hits, {misses} misses, {refusals} refusals");
    assert!(hits > 50 && misses > 50 && refusals > 50, "the sequence tests too little");
    assert_eq!(findings(&mut plain.connect("postgres")), Vec::<String>::new());
}

const COUNT: &str = "SELECT count(*) FROM t";

/// A database with a table `t` of one column.
fn database_with_table() -> Database {
    let database = Database::create();
    run(&mut database.connect(), "CREATE TABLE t (v int); INSERT INTO t SELECT generate_series(1, 10)");
    database
}

/// After each way to change the table, the next call is a miss, and the view names the table. After a rollback, and after a
/// statement that changes no row, the next call is a hit.
#[test]
fn every_change_invalidates() {
    let database = database_with_table();
    let (mut session, mut viewer) = (observed(&database), database.connect());
    run(&mut session, COUNT);
    run(&mut session, COUNT);
    assert_eq!(counts(&mut viewer, COUNT), (2, 1));
    for (change, is_hit) in [
        ("UPDATE t SET v = v + 1", false),
        ("BEGIN; UPDATE t SET v = 0; TRUNCATE t; ROLLBACK", true),
        ("UPDATE t SET v = 1 WHERE false", true),
        ("TRUNCATE t", false),
        ("COPY t FROM PROGRAM 'echo 1'", false),
        ("ALTER TABLE t ADD w int", false),
        ("CREATE INDEX ON t (v)", true),
        ("DO 'BEGIN INSERT INTO t VALUES (1); END'", false),
        ("VACUUM FULL t", false),
        ("SELECT cache_invalidate_relation('t')", false),
        ("SELECT cache_set('k', '1')", true),
    ] {
        let (calls, hits) = counts(&mut viewer, COUNT);
        run(&mut viewer, change);
        run(&mut session, COUNT);
        assert_eq!(counts(&mut viewer, COUNT), (calls + 1, hits + i64::from(is_hit)), "{change}");
    }
    assert_eq!(figures(&mut viewer, COUNT).invalidated_by.as_deref(), Some("t"));
    let row = "SELECT role = current_user AND query_id <> 0 AND hit_ratio BETWEEN 0.3 AND 0.6 AND run_ms > 0 AND saved_ms > 0
                   AND since BETWEEN now() - interval '1 hour' AND clock_timestamp() AND refused IS NULL
                 FROM cache_observed WHERE query LIKE 'SELECT count%'";
    assert_eq!(value(&mut viewer, row), "t");
}

/// The application notices nothing: not in its results, errors and status, and not in the figures and entries of its spaces.
#[test]
fn nothing_changes_for_the_application() {
    let database = database_with_table();
    let (mut session, mut viewer) = (observed(&database), database.connect());
    let state = "SELECT (SELECT string_agg(s::text, ' ') FROM cache_stats_detail AS s), (SELECT count(*) FROM cache_entries),
                        (SELECT count(*) FROM cache_queries)";
    run(&mut viewer, "SELECT cache_set('k', '1', tags => '{a}')");
    run(&mut session, "SELECT cache_get('k')");
    let before: String = viewer.query_one(state, &[]).expect("figures").get(0);
    let status = value(&mut session, "SELECT cache_status()");
    assert_eq!(status, "hot");
    for (query, code) in [
        (COUNT, None),
        (COUNT, None),
        ("SELECT v / (v - 5) FROM t ORDER BY v", Some(SqlState::DIVISION_BY_ZERO)),
        ("SELECT nothing FROM t", Some(SqlState::UNDEFINED_COLUMN)),
        ("SELECT v FROM t WHERE v = 3 FOR UPDATE", None),
    ] {
        let error = session.simple_query(query).err();
        assert_eq!(error.as_ref().and_then(postgres::Error::code), code.as_ref(), "{query}");
        let position = error.as_ref().and_then(|error| error.as_db_error()?.position().cloned());
        assert_eq!(position.is_some(), code == Some(SqlState::UNDEFINED_COLUMN), "{query}");
    }
    let after: String = viewer.query_one(state, &[]).expect("figures").get(0);
    assert_eq!(after, before);
    // An error has ended the status, as it always does.
    run(&mut session, "SELECT cache_get('k')");
    assert_eq!(value(&mut session, COUNT), "10");
    assert_eq!(value(&mut session, "SELECT cache_status()"), status);
    assert_eq!(counts(&mut viewer, COUNT), (3, 2));
    let others = "SELECT count(*) FROM cache_observed WHERE query LIKE 'SELECT v%'";
    assert_eq!(value(&mut viewer, others), "0", "statements that fail or lock rows are not counted");
    // The plan is not changed, also if the query calls a function.
    run(&mut session, "CREATE FUNCTION f(int) RETURNS int STABLE PARALLEL SAFE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
                       SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0");
    let forced = "SELECT count(*) FROM t WHERE f(v) > 0";
    run(&mut session, forced);
    let figures = figures(&mut viewer, forced);
    assert_eq!(
        figures.refused.as_deref(),
        Some("functions ran in parallel workers, where pg_cache cannot observe them")
    );
    let records = "SELECT ROW(v, v) FROM t";
    run(&mut session, records);
    assert_eq!(
        self::figures(&mut viewer, records).refused.as_deref(),
        Some("a column is an anonymous record")
    );
    assert_eq!(findings(&mut viewer), Vec::<String>::new());
}

/// Only statements of the client that have run to their end count.
#[test]
fn complete_statements_of_the_client_count() {
    let database = database_with_table();
    let (mut session, mut viewer) = (observed(&database), database.connect());
    run(&mut session, "CREATE FUNCTION inner_count() RETURNS bigint STABLE LANGUAGE plpgsql AS $$
                           DECLARE n bigint; BEGIN FOR n IN SELECT v FROM t LOOP NULL; END LOOP; SELECT count(*) INTO n FROM t; RETURN n; END $$");
    for statement in [
        "DO 'BEGIN PERFORM v FROM t; PERFORM inner_count(); END'",
        "EXPLAIN ANALYZE SELECT v FROM t",
        "COPY (SELECT v FROM t) TO '/dev/null'",
        "CREATE TABLE copy AS SELECT v FROM t",
        "SELECT v INTO another FROM t",
        "BEGIN; DECLARE c CURSOR FOR SELECT v FROM t; FETCH ALL FROM c; COMMIT",
        "WITH gone AS (DELETE FROM another RETURNING v) SELECT v FROM gone",
    ] {
        run(&mut session, statement);
    }
    assert_eq!(value(&mut viewer, "SELECT count(*) FROM cache_observed"), "0");
    run(&mut session, "SELECT inner_count()");
    assert_eq!(
        value(&mut viewer, "SELECT string_agg(query || calls, ' ') FROM cache_observed"),
        "SELECT inner_count()1"
    );
    // A portal that returns a few rows, and one that goes on to the end while other statements run in between.
    let statement = session.prepare("SELECT v FROM t").expect("it is prepared");
    let mut transaction = session.transaction().expect("it begins");
    let portal = transaction.bind(&statement, &[]).expect("it is bound");
    assert_eq!(transaction.query_portal(&portal, 3).expect("rows").len(), 3);
    transaction.batch_execute("SELECT 1 AS one; SAVEPOINT s").expect("it runs");
    assert_eq!(transaction.query_portal(&portal, 0).expect("rows").len(), 7);
    assert_eq!(counts(&mut viewer, "SELECT v FROM t"), (0, 0), "another statement has begun in between");
    let portal = transaction.bind(&statement, &[]).expect("it is bound");
    assert_eq!(transaction.query_portal(&portal, 3).expect("rows").len(), 3);
    assert_eq!(transaction.query_portal(&portal, 0).expect("rows").len(), 7);
    assert_eq!(counts(&mut viewer, "SELECT v FROM t"), (1, 0));
    // An error rolls the savepoint back. Statements after it are counted.
    assert!(transaction.batch_execute("SELECT 1 / (v - 5) FROM t").is_err());
    transaction.batch_execute("ROLLBACK TO s; SELECT v FROM t").expect("it runs");
    transaction.commit().expect("it commits");
    assert_eq!(counts(&mut viewer, "SELECT v FROM t"), (2, 1));
    // Statements that SQL prepares count, and those of one message count separately.
    run(&mut session, "PREPARE p AS SELECT v + 1 FROM t; EXECUTE p; EXECUTE p; SELECT 1, 2; SELECT 1, 2, 3");
    assert_eq!(counts(&mut viewer, "PREPARE p AS SELECT v + 1 FROM t"), (2, 1));
    assert_eq!(counts(&mut viewer, "SELECT 1, 2, 3"), (1, 0));
}

/// If a statement was planned before the setting was switched on, its dependencies are not known, so it counts as refused. Its next
/// call plans it again, and counts as usual.
#[test]
fn plans_from_before_are_made_anew() {
    let database = database_with_table();
    let (mut session, mut viewer) = (database.connect(), database.connect());
    run(
        &mut session,
        "SET compute_query_id = on; SET plan_cache_mode = force_generic_plan; PREPARE p AS SELECT v FROM t; EXECUTE p",
    );
    assert_eq!(value(&mut viewer, "SELECT count(*) FROM cache_observed"), "0");
    run(&mut session, "SET pg_cache.observe = on; EXECUTE p");
    let why = figures(&mut viewer, "PREPARE p AS SELECT v FROM t").refused;
    assert_eq!(why.as_deref(), Some("planned before pg_cache observed the session"));
    run(&mut session, "EXECUTE p; EXECUTE p");
    assert_eq!(
        figures(&mut viewer, "PREPARE p AS SELECT v FROM t"),
        Figures { calls: 3, hits: 1, ..Figures::default() }
    );
}

/// With the setting off, nothing is stored and nothing is counted. Earlier counts stay until they are reset. Each database
/// shows and resets its own statements.
#[test]
fn off_stores_nothing_and_databases_are_apart() {
    let [database, other] = [(); 2].map(|()| database_with_table());
    let mut viewer = database.connect();
    let used = "SELECT COALESCE(sum(used), 0) FROM cache_usage WHERE database = current_database() AND resource = 'memory'";
    let before = value(&mut viewer, used);
    run(&mut viewer, COUNT);
    assert_eq!(value(&mut viewer, used), before);
    assert_eq!(value(&mut viewer, "SELECT count(*) FROM cache_observed"), "0");
    [&database, &other].into_iter().for_each(|database| run(&mut observed(database), COUNT));
    let mut session = observed(&database);
    run(&mut session, &format!("{COUNT}; SET pg_cache.observe = off"));
    run(&mut session, COUNT);
    assert_eq!(counts(&mut viewer, COUNT), (2, 1));
    assert_ne!(value(&mut viewer, used), before);
    run(&mut viewer, "SELECT cache_observed_reset()");
    assert_eq!(value(&mut viewer, "SELECT count(*) FROM cache_observed"), "0");
    assert_eq!(counts(&mut other.connect(), COUNT), (1, 0));
    // It can be set for a database. Only a superuser may.
    let name = database.name();
    run(&mut viewer, &format!("ALTER DATABASE {name} SET pg_cache.observe = on"));
    run(&mut database.connect(), COUNT);
    assert_eq!(counts(&mut viewer, COUNT), (1, 1));
    // Without the extension there is no cache.
    let empty = Database::create_empty();
    run(&mut empty.connect(), "SET pg_cache.observe = on; CREATE TABLE t (v int); SELECT count(*) FROM t");
}

/// A role sees its own statements. Members of `pg_read_all_stats` also see those of other roles. Neither may reset the view, nor
/// change the setting.
#[test]
fn texts_are_shown_to_the_role_and_to_readers_of_statistics() {
    let database = Database::create();
    let mut session = observed(&database);
    run(&mut session, "CREATE TABLE t (v int)");
    for role in ["observed_one", "observed_two"] {
        run(&mut session, &format!("CREATE ROLE {role}; GRANT SELECT ON t TO {role}"));
    }
    run(
        &mut session,
        "SET ROLE observed_one; SELECT random() FROM t; SET ROLE observed_two; SELECT v FROM t",
    );
    let mut viewer = database.connect();
    let rows = "SELECT string_agg(role || ': ' || COALESCE(query, '-') || COALESCE(', ' || refused, ''), '; ' ORDER BY role)
                  FROM cache_observed WHERE role LIKE 'observed%'";
    let (one, two) = (
        "observed_one: SELECT random() FROM t, function random() is volatile",
        "observed_two: SELECT v FROM t",
    );
    let mut seen_by = |role: &str, grant: &str| {
        run(&mut viewer, grant);
        run(&mut viewer, &format!("SET ROLE {role}"));
        let seen = value(&mut viewer, rows);
        let reset = viewer.batch_execute("SELECT cache_observed_reset()").err();
        let code = reset.as_ref().and_then(postgres::Error::code).cloned();
        let setting = viewer.batch_execute("SET pg_cache.observe = off").err();
        assert!(
            role == "postgres" || code == Some(SqlState::INSUFFICIENT_PRIVILEGE) && setting.is_some(),
            "{role}"
        );
        run(&mut viewer, "RESET ROLE");
        seen
    };
    assert_eq!(seen_by("observed_two", ""), two);
    assert_eq!(seen_by("observed_two", "GRANT pg_read_all_stats TO observed_two"), format!("{one}; {two}"));
    run(
        &mut session,
        "RESET ROLE; DROP OWNED BY observed_one, observed_two; DROP ROLE observed_one, observed_two",
    );
}

/// The figures and the entries are bounded: new statements and arguments displace older ones, and no value of the application.
#[test]
fn figures_and_entries_are_bounded() {
    let cluster = cluster(&Conf::preloaded().set("pg_cache.hot_size", "8MB"));
    let (mut session, mut viewer) = (cluster.connect("postgres"), cluster.connect("postgres"));
    run(
        &mut viewer,
        "CREATE TABLE t AS SELECT 1 AS v; SELECT cache_set('k' || i, to_jsonb(repeat('x', 3000))) FROM generate_series(1, 1000) AS i",
    );
    let used = "SELECT used FROM cache_usage WHERE database = 'postgres' AND resource = 'memory'";
    let used = |viewer: &mut Client| value(viewer, used).parse::<i64>().expect("a number");
    let kept = "SELECT count(cache_get('k' || i)) FROM generate_series(1, 1000) AS i";
    let before = value(&mut viewer, kept);
    assert_eq!(before, "1000");
    let used_before = used(&mut viewer);
    run(&mut session, "SET pg_cache.observe = on");
    // Each statement has another sequence of operators, so another identifier.
    let statement = |number: usize| {
        let terms = (0..12).map(|bit| if number >> bit & 1 == 0 { " + v" } else { " - v" });
        format!("SELECT v{} FROM t", terms.collect::<String>())
    };
    for number in 0..1100 {
        run(&mut session, &statement(number));
    }
    let rows: i64 = value(&mut viewer, "SELECT count(*) FROM cache_observed").parse().expect("a number");
    assert!((500..=1024).contains(&rows), "{rows} rows");
    assert_eq!(counts(&mut viewer, &statement(1099)), (1, 0));
    let by_argument = session.prepare("SELECT v FROM t WHERE v = $1").expect("it is prepared");
    for argument in 0..800 {
        session.execute(&by_argument, &[&argument]).expect("it runs");
    }
    assert_eq!(counts(&mut viewer, "SELECT v FROM t WHERE v = $1"), (800, 0));
    assert_eq!(value(&mut viewer, kept), before);
    let more = used(&mut viewer) - used_before;
    let quota = 8 * 1024 * 1024 / 32;
    assert!((quota / 2..=quota).contains(&more), "{more} bytes");
    assert_eq!(findings(&mut viewer), Vec::<String>::new());
}

/// A failed allocation in the observing never reaches the statement. `fail_allocation(n, all)` (`src/pg/allocator.rs`, in debug
/// builds only) makes the n-th allocation from then on fail, and with `all` also each later one; 0 ends that. It returns whether an
/// allocation has failed since the last call.
#[test]
fn a_failed_allocation_does_not_reach_the_statement() {
    let database = database_with_table();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE FUNCTION fail_allocation(bigint, boolean) RETURNS boolean LANGUAGE c STRICT
                           AS '$libdir/pg_cache', 'fail_allocation_wrapper'",
    );
    let fail = session.prepare("SELECT fail_allocation($1, $2)").expect("it is prepared");
    for all in [false, true] {
        for number in 1.. {
            // The table changes, so that the statement is observed anew each time.
            run(&mut session, "SET pg_cache.observe = off; INSERT INTO t VALUES (1)");
            session.query_one(&fail, &[&i64::from(number), &all]).expect("it runs");
            let result = session.simple_query(&format!(
                "SET pg_cache.observe = on; SELECT sum(v) AS x{number} FROM t WHERE v > 0"
            ));
            run(&mut session, "SET pg_cache.observe = off");
            let failed: bool = session.query_one(&fail, &[&0_i64, &false]).expect("the session lives").get(0);
            result.unwrap_or_else(|error| panic!("allocation {number}, {all}: {error:?}"));
            if !failed {
                assert!(number > 5, "few allocations failed");
                break;
            }
        }
    }
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// A standby runs the statements, and counts and stores nothing.
#[test]
fn a_standby_counts_nothing() {
    let cluster = cluster(&Conf::preloaded().set("pg_cache.observe", "on"));
    let mut session = cluster.connect("postgres");
    run(&mut session, "CREATE TABLE t (v int)");
    run(&mut session, COUNT);
    assert_eq!(counts(&mut session, COUNT), (1, 0));
    drop(session);
    cluster.stop(Stop::Fast);
    cluster.become_standby();
    cluster.resume();
    let mut session = cluster.connect("postgres");
    assert_eq!(value(&mut session, COUNT), "0");
    assert_eq!(value(&mut session, "SELECT count(*) FROM cache_observed"), "0");
}
