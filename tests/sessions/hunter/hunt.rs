//! The state that all threads of a hunt share, and the hunt itself: writers write versions, which are growing numbers, to tables,
//! and readers check that no value from the cache is an older version than it may be (`mod.rs`). A *fence* is a word in shared
//! memory that says when something that values depend on last changed (`docs/invalidation.md`).

use super::dice::{Dice, seed};
use super::session::READER;
use super::table::Table;
use super::{DATABASES, PACE, READERS, WRITERS};
use pg_cache_testbed::Cluster;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// The least number of reads of a hunt, and how often its time may pass until then.
const READS_MIN: u64 = 4000;
const TIMES_MAX: u32 = 30;

/// How to hunt.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The duration of the hunt. On a slow machine, it takes longer: see [`Hunt::is_enough`].
    pub time: Duration,
    /// Whether to end as soon as a stale value is found.
    pub until_found: bool,
    /// One in this number of writes changes names or rules. Such a write invalidates the results of all queries in the
    /// database.
    pub defining_one_in: u64,
    /// The tiers in which the spaces keep their values: the option `tiers` of a space.
    pub tiers: &'static str,
    /// Whether readers use `cache_query` and `cache_query_json` instead of `cache_fetch`.
    pub queries: bool,
    /// Whether every second reader verifies all its hits. Must be false in a hunt with broken fences: after a difference, a query
    /// is not cached any more, so the readers would not get the stale values that the hunt must find.
    pub verifies: bool,
    /// The number of reads for each write: writers pause while there are fewer.
    pub pace: u64,
    /// A value has at least this number of bytes.
    pub width: usize,
    /// The least time between two writes of a writer. A value needs some time to be saved.
    pub rest: Duration,
}

impl Plan {
    /// A hunt for `time` that changes names or rules with one in this number of writes.
    pub fn new(time: Duration, defining_one_in: u64) -> Self {
        Self {
            time,
            until_found: false,
            defining_one_in,
            tiers: "both",
            queries: false,
            verifies: true,
            pace: PACE,
            width: 0,
            rest: Duration::ZERO,
        }
    }
}

/// The state that all threads share. Each thread has a slot, a position in `sessions`: writers the slots from 0 on, readers the
/// slots behind them.
pub struct Hunt<'c> {
    /// The server of the hunt.
    pub cluster: &'c Cluster,
    /// The tables, functions and rules that hold a version, of all databases.
    pub tables: Vec<Table>,
    /// The position in `tables` of the table that each writer writes to. Readers prefer these: a stale value is most likely
    /// there.
    pub focus: [AtomicUsize; WRITERS],
    /// The process ID of each session's backend, or 0 while the session is not connected.
    pub sessions: [AtomicI32; WRITERS + READERS],
    /// Tells all threads to end.
    pub over: AtomicBool,
    /// The number of values that readers got with `cache_fetch` or `cache_query`, or asked for with `cache_acquire`.
    pub reads: AtomicU64,
    /// The number of these reads that were hits.
    pub hits: AtomicU64,
    /// The number of hits whose value came from a table.
    pub table_hits: AtomicU64,
    /// The number of writes that have begun.
    pub writes: AtomicU64,
    /// How to hunt.
    pub plan: Plan,
    /// The number of writes that changed names or rules.
    pub definitions: AtomicU64,
    /// The number of reads and writes that ended in an error. Most were cancelled or terminated.
    pub errors: AtomicU64,
    /// The number of values below the lower bound of their statement (`mod.rs`), and of values in a REPEATABLE READ transaction
    /// that differ from the table.
    pub stale: AtomicU64,
    /// The number of values above the upper bound, and of values that are no committed version.
    pub future: AtomicU64,
    /// Descriptions of the first findings.
    findings: Mutex<Vec<String>>,
}

impl Hunt<'_> {
    /// Keeps the description of a finding, if there are fewer than ten.
    pub fn report(&self, finding: String) {
        let mut findings = self.findings.lock().expect("nobody panics with it");
        if findings.len() < 10 {
            findings.push(finding);
        }
    }

    /// Compares the value that a statement returned with the bounds of `mod.rs`. `at_least` must be the table's bound from before
    /// the statement began. Must be called after the statement has ended. `how` names the read in a finding.
    pub fn judge(&self, table: &Table, at_least: i64, value: Option<&str>, how: &str) {
        let at_most = table.at_most.load(SeqCst);
        let value = value.and_then(|value| version_of(value).parse::<i64>().ok());
        let found = value.unwrap_or(-1);
        if found < 0 || found > at_most {
            self.future.fetch_add(1, SeqCst);
        } else if found < at_least {
            self.stale.fetch_add(1, SeqCst);
        } else {
            // Until its commit returns, a change of names or rules reaches the sessions one after the other. So what one reader
            // has seen, another one need not see yet.
            if !table.kind.is_defined() {
                table.at_least.fetch_max(found, SeqCst);
            }
            return;
        }
        self.report(format!(
            "{how} of {} in {}: {value:?}, and it must be from {at_least} to {at_most}",
            table.name, DATABASES[table.database]
        ));
    }

    /// Returns whether the hunt proves something. The first read of each entry is a miss, so few reads say nothing of the share of
    /// hits, and few writes change no names and no rules.
    fn is_enough(&self) -> bool {
        self.reads.load(SeqCst) >= READS_MIN && self.definitions.load(SeqCst) > 0
    }

    /// Counts a read with this status of the session, and whether it was a hit.
    pub fn count(&self, status: Option<&str>) {
        let from_table = status == Some("hit: table");
        self.reads.fetch_add(1, SeqCst);
        self.hits.fetch_add(u64::from(status == Some("hot") || from_table), SeqCst);
        self.table_hits.fetch_add(u64::from(from_table), SeqCst);
    }

    /// Chooses a table of the database for a read: in one case of three the table of a writer, if it is in this database.
    pub fn choose(&self, database: usize, dice: &mut Dice) -> &Table {
        let focus = &self.tables[self.focus[dice.roll(WRITERS)].load(SeqCst)];
        if focus.database == database && dice.roll(3) == 0 {
            return focus;
        }
        loop {
            let table = &self.tables[dice.roll(self.tables.len())];
            if table.database == database {
                return table;
            }
        }
    }

    /// Cancels and terminates sessions at random. On a slow machine, it waits for some reads in between: otherwise, the sessions
    /// would hardly ever finish anything.
    fn disturb(&self, seed: u64) {
        const READS_BETWEEN: u64 = 10;
        let mut dice = Dice(seed);
        let mut client = self.cluster.connect("postgres");
        while !self.over.load(SeqCst) {
            let (reads, began) = (self.reads.load(SeqCst), Instant::now());
            std::thread::sleep(Duration::from_millis(5 + dice.roll(40) as u64));
            while self.reads.load(SeqCst) < reads + READS_BETWEEN && began.elapsed() < Duration::from_secs(1)
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            let process = self.sessions[dice.roll(self.sessions.len())].load(SeqCst);
            let how = if dice.roll(4) == 0 { "terminate" } else { "cancel" };
            if process != 0 {
                let call = format!("SELECT pg_{how}_backend({process})");
                client.batch_execute(&call).expect("the server lives");
            }
        }
    }
}

/// Returns the version in a value that was made wider, as [`Plan::width`] asks for.
pub fn version_of(value: &str) -> &str {
    value.trim_matches(['"', ' '])
}

/// The counts of a hunt when it is over. [`Hunt`] explains each field.
#[derive(Debug)]
pub struct Outcome {
    pub reads: u64,
    pub hits: u64,
    pub table_hits: u64,
    pub stale: u64,
    pub future: u64,
    pub definitions: u64,
    pub findings: Vec<String>,
}

/// Hunts in two new databases, which it creates. So a cluster can have one hunt only.
pub fn hunt(cluster: &Cluster, plan: Plan) -> Outcome {
    let seed = seed();
    let mut tables = Vec::new();
    let mut owner = cluster.connect("postgres");
    owner.batch_execute(&format!("CREATE ROLE {READER}")).expect("a role");
    for (database, name) in DATABASES.iter().enumerate() {
        owner.batch_execute(&format!("CREATE DATABASE {name}")).expect("a database");
        let mut session = cluster.connect(name);
        // The space `default` has options only if it has a row.
        session
            .batch_execute(&format!(
                "CREATE EXTENSION pg_cache; ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC;
                 SELECT cache_create_space('own', scope => 'role');
                 SELECT cache_grant(space, '{READER}', privilege)
                   FROM unnest('{{default,own}}'::text[]) AS space, unnest('{{read,write}}'::text[]) AS privilege;
                 INSERT INTO pgcache.spaces (number, name) VALUES (0, 'default');
                 UPDATE pgcache.spaces SET tiers = '{}'",
                plan.tiers
            ))
            .expect("it installs");
        Table::create_all(database, &mut session, &mut tables);
    }
    let hunt = Hunt {
        cluster,
        tables,
        focus: Default::default(),
        sessions: Default::default(),
        over: AtomicBool::new(false),
        reads: AtomicU64::new(0),
        hits: AtomicU64::new(0),
        table_hits: AtomicU64::new(0),
        writes: AtomicU64::new(0),
        plan,
        definitions: AtomicU64::new(0),
        errors: AtomicU64::new(0),
        stale: AtomicU64::new(0),
        future: AtomicU64::new(0),
        findings: Mutex::new(Vec::new()),
    };
    let began = Instant::now();
    std::thread::scope(|scope| {
        let hunt = &hunt;
        /// Ends the hunt for all threads if one of them panics.
        struct Over<'h>(&'h AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, SeqCst);
            }
        }
        for slot in 0..WRITERS + READERS {
            scope.spawn(move || {
                let _over = Over(&hunt.over);
                // Each thread has numbers of its own. The seed itself is for the thread that disturbs.
                let seed = seed ^ (slot as u64 + 1) << 56;
                if slot < WRITERS { hunt.write(slot, seed) } else { hunt.read(slot, seed) }
            });
        }
        scope.spawn(move || {
            let _over = Over(&hunt.over);
            hunt.disturb(seed);
        });
        let is_early = || {
            let passed = began.elapsed();
            passed < plan.time || !plan.until_found && !hunt.is_enough() && passed < plan.time * TIMES_MAX
        };
        while !hunt.over.load(SeqCst) && is_early() {
            let found = hunt.stale.load(SeqCst) > 0;
            if plan.until_found && found {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        hunt.over.store(true, SeqCst);
    });
    let [reads, hits, table_hits, writes, definitions, errors, stale, future] = [
        &hunt.reads,
        &hunt.hits,
        &hunt.table_hits,
        &hunt.writes,
        &hunt.definitions,
        &hunt.errors,
        &hunt.stale,
        &hunt.future,
    ]
    .map(|count| count.load(SeqCst));
    println!(
        "hunt: seed = {seed}, {:.1} s, reads = {reads}, hits = {hits} ({table_hits} in tables), writes = {writes}, definitions = {definitions}, disturbed = {errors}, \
         stale = {stale}, future = {future}",
        began.elapsed().as_secs_f64()
    );
    let findings = hunt.findings.into_inner().expect("nobody panics with it");
    Outcome { reads, hits, table_hits, stale, future, definitions, findings }
}
