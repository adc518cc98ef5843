//! A hunt for stale entries of single rows. Each row holds a version that grows with each commit, as in `mod.rs`, and each row has
//! one writer. The entries of a row leave in one of three ways:
//!
//! - *Reported*: a watch with placeholders reports the rows that change (`orders`, and the partitioned table `parts`).
//! - *Pattern*: the writer itself calls `cache_invalidate_pattern`.
//! - *Event*: a trigger of the application calls `cache_emit`, whose targets are a key, a tag and a pattern.
//!
//! Meanwhile, other sessions lock the same tables as writers and change no row.

use super::dice::{Dice, seed};
use pg_cache_testbed::{Cluster, Conf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// The tables, each with the rows 0 to `ROWS` - 1.
const TABLES: [&str; 4] = ["orders", "parts", "by_pattern", "by_event"];
/// The number of rows of each table.
const ROWS: usize = 16;
/// The number of writers.
const WRITERS: usize = 3;
/// The number of readers.
const READERS: usize = 3;
/// Readers ask this many times for each write, so that the share of hits is about the same on every machine.
const READS_PER_WRITE: u64 = 12;

/// A row of a table.
#[derive(Default)]
struct Row {
    /// The largest version whose commit has returned, or that a reader has seen.
    at_least: AtomicI64,
    /// The largest version for which a commit was sent.
    at_most: AtomicI64,
}

struct Hunt<'c> {
    cluster: &'c Cluster,
    rows: Vec<Row>,
    over: AtomicBool,
    reads: AtomicU64,
    hits: AtomicU64,
    writes: AtomicU64,
    findings: Mutex<Vec<String>>,
}

const SETUP: &str = "CREATE EXTENSION pg_cache; CREATE TABLE log (at timestamptz, note text);
    CREATE TABLE orders (id int PRIMARY KEY, v bigint, half int);
    CREATE TABLE parts (id int, v bigint, half int) PARTITION BY LIST (half);
    CREATE TABLE parts_0 PARTITION OF parts FOR VALUES IN (0);
    CREATE TABLE by_pattern (id int PRIMARY KEY, v bigint, half int);
    CREATE TABLE by_event (id int PRIMARY KEY, v bigint, half int);
    SELECT cache_watch('orders', ARRAY['orders:{id}']), cache_watch('parts', ARRAY['parts:{id}:']);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
    CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM cache_emit('changed', jsonb_build_object('id', coalesce(NEW.id, OLD.id))); RETURN NULL; END $$;
    CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON by_event FOR EACH ROW EXECUTE FUNCTION tell();
    SELECT cache_on_event('changed', ARRAY['by_event:{id}', 'match:by_event:{id}:*', 'tag:tagged_event:{id}'])";

/// Returns a statement that gives rows of a table a version, in one of many ways. `ids` are the writer's own rows.
fn change(table: &str, ids: &[usize], version: i64, dice: &mut Dice) -> String {
    let list = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let values = ids.iter().map(|id| format!("({id}, {version}, 0)")).collect::<Vec<_>>().join(", ");
    let is_parts = table == "parts";
    match dice.roll(9) {
        0 => format!("UPDATE {table} SET v = {version} WHERE id IN ({list})"),
        1 => format!("UPDATE {table} SET v = {version}, half = 1 - half WHERE id IN ({list})"),
        2 => format!("DELETE FROM {table} WHERE id IN ({list}); INSERT INTO {table} VALUES {values}"),
        3 if !is_parts => {
            format!("INSERT INTO {table} VALUES {values} ON CONFLICT (id) DO UPDATE SET v = excluded.v")
        }
        4 => format!(
            "MERGE INTO {table} AS t USING (VALUES {values}) AS n (id, v, half) ON t.id = n.id
             WHEN MATCHED THEN UPDATE SET v = n.v WHEN NOT MATCHED THEN INSERT VALUES (n.id, n.v, n.half)"
        ),
        5 => format!(
            "SAVEPOINT a; UPDATE {table} SET v = -1 WHERE id IN ({list}); ROLLBACK TO a;
             UPDATE {table} SET v = {version} WHERE id IN ({list})"
        ),
        6 => format!(
            "DO $$ BEGIN UPDATE {table} SET v = -1 WHERE id IN ({list});
             BEGIN UPDATE {table} SET v = -2 WHERE id IN ({list}); PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN
             UPDATE {table} SET v = {version} WHERE id IN ({list}); END; END $$"
        ),
        // The trigger of the application does not run in this role.
        7 if table != "by_event" => format!(
            "SET LOCAL session_replication_role = 'replica'; WITH w AS (UPDATE {table} SET v = {version} WHERE id IN ({list}) RETURNING 1)
             SELECT count(*) FROM w"
        ),
        _ => format!(
            "PREPARE p (bigint) AS UPDATE {table} SET v = $1 WHERE id IN ({list}); EXECUTE p (-1); EXECUTE p ({version}); DEALLOCATE p"
        ),
    }
}

impl Hunt<'_> {
    fn row(&self, table: usize, id: usize) -> &Row {
        &self.rows[table * ROWS + id]
    }

    fn is_over(&self) -> bool {
        self.over.load(SeqCst)
    }

    /// Writes versions to the rows whose number has the remainder `slot`.
    fn write(&self, slot: usize, seed: u64) {
        let mut dice = Dice(seed);
        let mut session = self.cluster.connect("postgres");
        let mut version = 0;
        while !self.is_over() {
            if self.writes.load(SeqCst) * READS_PER_WRITE > self.reads.load(SeqCst) + 100 {
                std::thread::sleep(Duration::from_micros(200));
                continue;
            }
            self.writes.fetch_add(1, SeqCst);
            version += 1;
            let table = dice.roll(TABLES.len());
            let name = TABLES[table];
            let ids: Vec<usize> = (0..1 + dice.roll(2))
                .map(|_| slot + WRITERS * dice.roll((ROWS - slot).div_ceil(WRITERS)))
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect();
            let mut statements = format!("BEGIN; {}", change(name, &ids, version, &mut dice));
            if name == "by_pattern" {
                for id in &ids {
                    statements += &format!("; SELECT cache_invalidate_pattern('by_pattern:{id}:*')");
                }
            }
            let prepared = format!("w{slot}");
            match dice.roll(48) {
                0..6 => session.batch_execute(&format!("{statements}; ROLLBACK")).expect("a rollback"),
                how => {
                    session
                        .batch_execute(&statements)
                        .unwrap_or_else(|error| panic!("{statements}: {error:?}"));
                    ids.iter().for_each(|id| self.row(table, *id).at_most.store(version, SeqCst));
                    let end = match how {
                        // This removes the entries of all rows.
                        6 => format!("PREPARE TRANSACTION '{prepared}'; COMMIT PREPARED '{prepared}'"),
                        _ => "COMMIT".into(),
                    };
                    // Each statement is its own message: PREPARE TRANSACTION cannot run in a block with others.
                    end.split("; ").for_each(|statement| session.batch_execute(statement).expect("a commit"));
                    ids.iter().for_each(|id| _ = self.row(table, *id).at_least.fetch_max(version, SeqCst));
                }
            }
        }
    }

    /// Locks the tables as a writer, and changes no row of them.
    fn write_nothing(&self, seed: u64) {
        let mut dice = Dice(seed);
        let mut session = self.cluster.connect("postgres");
        while !self.is_over() {
            let table = TABLES[dice.roll(TABLES.len())];
            let statement = match dice.roll(3) {
                0 => format!("UPDATE {table} SET v = v WHERE false"),
                1 => format!("DELETE FROM {table} WHERE id < 0"),
                _ => format!("SELECT 1 FROM {table} WHERE v < -9 FOR UPDATE SKIP LOCKED"),
            };
            let statements = format!("BEGIN; {statement}; INSERT INTO log VALUES (now(), 'visited'); COMMIT");
            session.batch_execute(&statements).unwrap_or_else(|error| panic!("{statements}: {error:?}"));
            std::thread::sleep(Duration::from_millis(1 + dice.roll(5) as u64));
        }
    }

    /// Reads rows through the cache. Judges each value by the bounds of the row, or by the table itself in the same snapshot.
    fn read(&self, seed: u64) {
        let mut dice = Dice(seed);
        let mut session = self.cluster.connect("postgres");
        while !self.is_over() {
            let (table, id) = (dice.roll(TABLES.len()), dice.roll(ROWS));
            let name = TABLES[table];
            let (key, tags) = match (name, dice.roll(2)) {
                ("parts", _) => (format!("parts:{id}:"), format!("ARRAY['parts:{id}:']")),
                ("by_pattern", _) => (format!("by_pattern:{id}:x"), "NULL".into()),
                ("by_event", 0) => (format!("by_event:{id}:long"), "NULL".into()),
                ("by_event", _) => (format!("tagged {id}"), format!("ARRAY['tagged_event:{id}']")),
                (name, _) => (format!("{name}:{id}"), format!("ARRAY['{name}:{id}']")),
            };
            let query = format!("SELECT v FROM {name} WHERE id = {id}");
            let fetch =
                format!("SELECT cache_fetch('{key}', '{query}', tags => {tags}, depends => '{{}}')::text");
            let row = self.row(table, id);
            if dice.roll(4) == 0 {
                let mut transaction = session
                    .build_transaction()
                    .isolation_level(postgres::IsolationLevel::RepeatableRead)
                    .start()
                    .expect("a transaction");
                let truth: Option<i64> =
                    transaction.query_opt(&query, &[]).expect("a row").map(|row| row.get(0));
                let found = version(&mut transaction, &fetch);
                transaction.commit().expect("a commit");
                if found != truth {
                    self.report(format!(
                        "{key}: {found:?}, and the table has {truth:?} in the same snapshot"
                    ));
                }
                continue;
            }
            let at_least = row.at_least.load(SeqCst);
            let found = version(&mut session, &fetch);
            let is_hit: bool = session
                .query_one("SELECT cache_status() IN ('hot', 'hit: table')", &[])
                .expect("a status")
                .get(0);
            let at_most = row.at_most.load(SeqCst);
            self.reads.fetch_add(1, SeqCst);
            self.hits.fetch_add(u64::from(is_hit), SeqCst);
            match found {
                Some(found) if (at_least..=at_most).contains(&found) => {
                    row.at_least.fetch_max(found, SeqCst);
                }
                found => {
                    self.report(format!("{key}: {found:?}, and it must be from {at_least} to {at_most}"))
                }
            }
        }
    }

    fn report(&self, finding: String) {
        self.findings.lock().expect("nobody panics with it").push(finding);
    }
}

/// Returns the version in the value of a row: an array with one row object.
fn version(session: &mut impl postgres::GenericClient, fetch: &str) -> Option<i64> {
    let value: Option<String> =
        session.query_one(fetch, &[]).unwrap_or_else(|error| panic!("{fetch}: {error:?}")).get(0);
    let value = value?;
    value.trim_matches(|letter: char| !letter.is_ascii_digit() && letter != '-').parse().ok()
}

/// Hunts for some time, or until something is found, after more statements of setup. Returns reads, hits and findings.
fn hunt(conf: &Conf, more: &str, time: Duration) -> (u64, u64, Vec<String>) {
    let cluster = Cluster::start(&conf.clone().set("max_prepared_transactions", "10"));
    let mut owner = cluster.connect("postgres");
    owner.batch_execute(SETUP).expect("a setup");
    for table in TABLES {
        let insert =
            format!("INSERT INTO {table} SELECT i, 0, i % 2 FROM generate_series(0, {ROWS} - 1) AS i");
        owner.batch_execute(&insert).expect("rows");
    }
    owner.batch_execute(more).expect("more setup");
    let hunt = Hunt {
        cluster: &cluster,
        rows: (0..TABLES.len() * ROWS).map(|_| Row::default()).collect(),
        over: AtomicBool::new(false),
        reads: AtomicU64::new(0),
        hits: AtomicU64::new(0),
        writes: AtomicU64::new(0),
        findings: Mutex::new(Vec::new()),
    };
    let (seed, began) = (seed(), Instant::now());
    /// Ends the hunt for all threads if one of them panics.
    struct Over<'h>(&'h AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    std::thread::scope(|scope| {
        let hunt = &hunt;
        for slot in 0..=WRITERS + READERS {
            scope.spawn(move || {
                let _over = Over(&hunt.over);
                let seed = seed ^ (slot as u64 + 1) << 56;
                match slot {
                    0 => hunt.write_nothing(seed),
                    slot if slot <= WRITERS => hunt.write(slot - 1, seed),
                    _ => hunt.read(seed),
                }
            });
        }
        let _over = Over(&hunt.over);
        let has_found = || !hunt.findings.lock().expect("nobody panics with it").is_empty();
        // The first read of each entry is a miss, so few reads say nothing of the share of hits.
        let is_early = || began.elapsed() < time || hunt.reads.load(SeqCst) < 2000;
        while !hunt.is_over() && is_early() && !has_found() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let [reads, hits, writes] = [&hunt.reads, &hunt.hits, &hunt.writes].map(|count| count.load(SeqCst));
    let findings = hunt.findings.into_inner().expect("nobody panics with it");
    println!(
        "rows: seed = {seed}, reads = {reads}, hits = {hits}, writes = {writes}, findings = {}",
        findings.len()
    );
    (reads, hits, findings)
}

fn time() -> Duration {
    Duration::from_secs(if super::is_long() { 120 } else { 5 })
}

/// No reader gets an old version of a row, and most reads are hits, because a write removes the entries of its rows only.
#[test]
fn no_reader_gets_an_old_version_of_a_row() {
    let (reads, hits, findings) = hunt(&Conf::preloaded(), "", time());
    assert_eq!(findings, Vec::<String>::new());
    assert!(hits * 10 > reads * 7, "{hits} hits of {reads} reads");
}

/// Disables the triggers that report changed rows for the watches. The commit must notice that changed rows were not reported.
const UNREPORTED: &str = "ALTER TABLE orders DISABLE TRIGGER ALL; ALTER TABLE parts DISABLE TRIGGER ALL";

/// Fails if an entry of a row outlives a change of the row that the trigger has not reported.
#[test]
fn no_reader_gets_an_old_version_of_a_row_that_is_not_told() {
    let (_, hits, findings) = hunt(&Conf::preloaded(), UNREPORTED, time() / 2);
    assert_eq!(findings, Vec::<String>::new());
    assert!(hits > 0);
}

/// Checks the hunt itself: if the commit does not compare, it must find old versions.
#[test]
fn the_hunt_finds_old_versions_if_rows_are_not_compared() {
    let conf = Conf::preloaded().set("pg_cache.break_fencing", "unreported");
    let (reads, _, findings) = hunt(&conf, UNREPORTED, Duration::from_secs(300));
    assert!(!findings.is_empty(), "nothing was found in {reads} reads");
}
