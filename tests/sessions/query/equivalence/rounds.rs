//! Random queries run with and without the cache, between random changes. Both must always return the same rows. One thread does
//! everything in turn, so nothing changes between the two runs. `PG_CACHE_TEST_SEED` repeats a failed run. Some sessions also
//! *verify* their hits: pg_cache itself runs the query again and compares the rows (`pg_cache.verify_rate`).

use super::cached::{Answer, cost, is_hit};
use super::changes::{self, Made};
use super::grammar::{self, Text};
use super::{is_long, set_up};
use crate::hunter::dice::{Dice, seed};
use crate::memory::{cluster, findings};
use pg_cache_testbed::{Cluster, Conf};
use postgres::Client;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// The number of sessions that read. They also make changes, as the writer does.
const READERS: usize = 2;
/// The number of queries that are asked again and again.
const QUERIES: usize = 12;
/// The most that a query may cost, by the estimate of the planner.
const COST_MAX: u64 = 400;
/// A run ends when it has found so many wrong answers.
const FINDINGS_MAX: usize = 5;

/// A session that reads, with its role and settings.
struct Reader {
    session: Client,
    settings: BTreeMap<&'static str, &'static str>,
    /// Sets the share of hits that the session verifies.
    verifies: String,
}

/// A query, and what is known about it. All maps have the settings of a session as their key.
struct Asked {
    text: Text,
    /// The column definition list, and the number of changes of definitions before it was made.
    columns: HashMap<String, (u64, Option<String>)>,
    /// For both forms of the result: the number of changes when it was last asked for.
    last: HashMap<(String, bool), u64>,
}

/// A random run: its sessions, and its counts.
struct Run {
    dice: Dice,
    writer: Client,
    readers: Vec<Reader>,
    queries: Vec<Asked>,
    made: Made,
    /// Whether the transaction of a change is open.
    in_change: bool,
    /// The committed changes, the latest last.
    changes: Vec<String>,
    /// The number of changes of definitions.
    definitions: u64,
    /// The number of comparisons.
    checks: u64,
    /// The number of comparisons in which the query failed.
    failed: u64,
    /// The number of comparisons that were hits.
    hits: u64,
    /// The number of comparisons of a result that had been asked for since the last change.
    repeated: u64,
    /// How many of these comparisons were hits.
    repeated_hits: u64,
    /// How often each status was seen.
    statuses: BTreeMap<String, u64>,
    /// How often each status was the reason why a repeated result was no hit.
    reasons: BTreeMap<String, u64>,
    findings: Vec<String>,
}

/// How the transaction of a change ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Commit,
    RolledBack,
    SavepointReleased,
    /// The transaction commits, and the change was rolled back.
    SavepointRolledBack,
    /// As above, by the exception handler of a PL/pgSQL block.
    Exception,
    TwoPhases,
    TwoPhasesRolledBack,
}

impl Ending {
    const ALL: [Self; 10] = [
        Self::Commit,
        Self::Commit,
        Self::Commit,
        Self::Commit,
        Self::RolledBack,
        Self::SavepointReleased,
        Self::SavepointRolledBack,
        Self::Exception,
        Self::TwoPhases,
        Self::TwoPhasesRolledBack,
    ];

    fn commits(self) -> bool {
        matches!(self, Self::Commit | Self::SavepointReleased | Self::TwoPhases)
    }
}

impl Reader {
    /// Returns the role and the settings as statements for this transaction only.
    fn restored(&self) -> String {
        let role = self.settings.get("role").unwrap_or(&"postgres");
        let path = self.settings.get("search_path").unwrap_or(&"public");
        let row_security = self.settings.get("row_security").unwrap_or(&"on");
        format!(
            "SET LOCAL ROLE {role}; SET LOCAL search_path = {path}; SET LOCAL row_security = {row_security}"
        )
    }
}

/// A session that waits for another one would wait forever, because one thread does everything.
const TIMEOUTS: &str = "SET statement_timeout = '30s'; SET lock_timeout = '10s'";

/// Puts a session's transaction into the state in which changes are made.
const AS_OWNER: &str = "SET LOCAL ROLE postgres; SET LOCAL search_path = public; SET LOCAL row_security = on";

impl Run {
    fn new(cluster: &Cluster, seed: u64, verifies: bool) -> Self {
        let mut writer = cluster.connect("postgres");
        let connect = || {
            let mut session = cluster.connect("postgres");
            session.batch_execute(TIMEOUTS).expect("it is set");
            session
        };
        set_up(&mut writer);
        // The first reader verifies all its hits.
        let reader = |number: usize| {
            let mut session = connect();
            let verifies = format!("SET pg_cache.verify_rate = {}", u8::from(verifies && number == 0));
            session.batch_execute(&verifies).expect("it is set");
            Reader { session, settings: BTreeMap::new(), verifies }
        };
        let mut run = Self {
            dice: Dice(seed),
            writer: connect(),
            readers: (0..READERS).map(reader).collect(),
            queries: Vec::new(),
            made: Made::default(),
            in_change: false,
            changes: Vec::new(),
            definitions: 0,
            checks: 0,
            failed: 0,
            hits: 0,
            repeated: 0,
            repeated_hits: 0,
            statuses: BTreeMap::new(),
            reasons: BTreeMap::new(),
            findings: Vec::new(),
        };
        run.queries = (0..QUERIES).map(|_| run.new_query()).collect();
        run
    }

    /// Makes a change or none, and compares some queries.
    fn step(&mut self) {
        match self.dice.roll(12) {
            0..=5 => self.change(),
            6 => self.set(),
            7 => self.keep_snapshot(),
            _ => {}
        }
        for _ in 0..1 + self.dice.roll(8) {
            let reader = self.dice.roll(READERS);
            self.check(reader, false);
        }
    }

    /// Compares in a transaction that keeps its snapshot, while another session changes rows.
    fn keep_snapshot(&mut self) {
        let reader = self.dice.roll(READERS);
        let level = ["REPEATABLE READ", "SERIALIZABLE"][self.dice.roll(2)];
        let begin = format!("BEGIN ISOLATION LEVEL {level}; SELECT");
        self.readers[reader].session.batch_execute(&begin).expect("it begins");
        // A new query would be planned by the writer, which must not wait for this transaction.
        self.in_change = true;
        self.changes.push("a transaction that keeps its snapshot".to_owned());
        for _ in 0..1 + self.dice.roll(3) {
            self.check(reader, true);
            let mut made = self.made;
            let change = changes::choose(&mut self.dice, &mut made);
            if !change.is_definition {
                let statements = change.statements;
                self.writer
                    .batch_execute(&statements)
                    .unwrap_or_else(|error| panic!("{statements}: {error:?}"));
                self.changes.insert(self.changes.len() - 1, format!("beside a snapshot: {statements}"));
            }
            self.check(reader, true);
        }
        self.readers[reader].session.batch_execute("COMMIT").expect("it ends");
        self.changes.pop();
        self.in_change = false;
    }

    /// Changes the role or a setting of a reader.
    fn set(&mut self) {
        let (name, value) = changes::setting(&mut self.dice);
        let reader = &mut self.readers[self.dice.roll(READERS)];
        // Readers often have the same settings, so that one asks for what the other has stored.
        if self.dice.roll(3) == 0 {
            let reset = format!("RESET ROLE; RESET ALL; {TIMEOUTS}; {}", reader.verifies);
            reader.session.batch_execute(&reset).expect("it is reset");
            // A setting of no library is empty after that, and not as before it was first set.
            reader.settings.retain(|name, _| name.starts_with("app."));
            reader.settings.values_mut().for_each(|value| *value = "''");
        }
        reader.session.batch_execute(&format!("SET {name} = {value}")).expect("it is set");
        reader.settings.insert(name, value);
    }

    /// Makes a change, in a random session.
    fn change(&mut self) {
        let before = self.made;
        let change = changes::choose(&mut self.dice, &mut self.made);
        let ending =
            if change.in_block { Ending::ALL[self.dice.roll(Ending::ALL.len())] } else { Ending::Commit };
        let statements = &change.statements;
        // The session that changes: none is the writer.
        let reader = Some(self.dice.roll(READERS + 1)).filter(|who| *who < READERS && change.in_block);
        let run = |run: &mut Self, statements: &str| {
            let session = match reader {
                Some(reader) => &mut run.readers[reader].session,
                None => &mut run.writer,
            };
            session.batch_execute(statements).unwrap_or_else(|error| panic!("{statements}: {error:?}"));
        };
        let restored = reader.map_or(AS_OWNER.to_owned(), |reader| self.readers[reader].restored());
        // Compares in the open transaction, and in the other reader, which a change of definitions may lock out.
        let look = |run: &mut Self| {
            for _ in 0..run.dice.roll(4) {
                match reader {
                    Some(reader) if run.dice.roll(3) > 0 => run.check(reader, true),
                    _ if change.is_definition => {}
                    _ => {
                        let other =
                            reader.map_or_else(|| run.dice.roll(READERS), |reader| (reader + 1) % READERS);
                        run.check(other, false);
                    }
                }
            }
        };
        self.in_change = true;
        self.changes.push(format!("{reader:?} {ending:?}, not ended: {statements}"));
        if !change.in_block {
            run(self, statements);
        } else {
            run(self, &format!("BEGIN; {AS_OWNER}"));
            match ending {
                Ending::Commit | Ending::RolledBack | Ending::TwoPhases | Ending::TwoPhasesRolledBack => {
                    run(self, &format!("{statements}; {restored}"));
                }
                Ending::SavepointReleased => {
                    run(self, &format!("SAVEPOINT s; {statements}; {restored}"));
                    look(self);
                    run(self, "RELEASE s");
                }
                Ending::SavepointRolledBack => {
                    run(self, &format!("SAVEPOINT s; {statements}; {restored}"));
                    look(self);
                    run(self, &format!("ROLLBACK TO s; {restored}"));
                }
                Ending::Exception => {
                    let block = format!(
                        "DO $do$ BEGIN EXECUTE $x${statements}$x$; PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END $do$"
                    );
                    run(self, &format!("{block}; {restored}"));
                }
            }
            look(self);
            match ending {
                Ending::RolledBack => run(self, "ROLLBACK"),
                Ending::TwoPhases | Ending::TwoPhasesRolledBack => {
                    run(self, "PREPARE TRANSACTION 'change'");
                    if !change.is_definition {
                        let reader = self.dice.roll(READERS);
                        self.check(reader, false);
                    }
                    let end = if ending.commits() { "COMMIT" } else { "ROLLBACK" };
                    run(self, &format!("{end} PREPARED 'change'"));
                }
                _ => run(self, "COMMIT"),
            }
        }
        self.changes.pop();
        self.in_change = false;
        if ending.commits() {
            self.changes.push(format!("{reader:?} {ending:?}: {statements}"));
        } else {
            self.made = before;
        }
        // A change that was rolled back counts, too: columns that were described meanwhile may be those of the change.
        self.definitions += u64::from(change.is_definition);
    }

    /// Returns a query that takes some milliseconds at most, by the estimate of the planner.
    fn new_query(&mut self) -> Asked {
        loop {
            let text = grammar::query(&mut self.dice);
            if cost(&mut self.writer, &text.inlined()).is_some_and(|cost| cost < COST_MAX) {
                return Asked { text, columns: HashMap::new(), last: HashMap::new() };
            }
        }
    }

    /// Compares the answers to a query in this reader. `in_block` says that the reader has a transaction open, which an error of
    /// the query must not end.
    fn check(&mut self, reader: usize, in_block: bool) {
        let asked = self.dice.roll(QUERIES);
        // The planner might wait for a change of definitions that has not ended.
        if !self.in_change && self.dice.roll(12) == 0 {
            self.queries[asked] = self.new_query();
        }
        let (as_json, direct_first) = (self.dice.roll(5) == 0, self.dice.roll(2) == 0);
        let Reader { session, settings, .. } = &mut self.readers[reader];
        let asked = &mut self.queries[asked];
        let text = &asked.text;
        let key = settings.iter().map(|(name, value)| format!("{name} = {value}; ")).collect::<String>();
        let mut guarded = |ask: &mut dyn FnMut(&mut Client) -> (Answer, String)| {
            if !in_block {
                return ask(session);
            }
            session.batch_execute("SAVEPOINT looked").expect("the transaction is whole");
            let found = ask(session);
            let end =
                if found.0.has_failed() { "ROLLBACK TO looked; RELEASE looked" } else { "RELEASE looked" };
            session.batch_execute(end).expect("it is there");
            found
        };
        let columns = match asked.columns.get(&key) {
            Some((definitions, columns)) if *definitions == self.definitions && !in_block => columns.clone(),
            _ => {
                let mut columns = None;
                guarded(&mut |session| {
                    columns = text.columns(session);
                    match columns {
                        Some(_) => (Answer::Rows(Vec::new()), String::new()),
                        None => (Answer::Failed(String::new(), String::new()), String::new()),
                    }
                });
                if !in_block {
                    asked.columns.insert(key.clone(), (self.definitions, columns.clone()));
                }
                columns
            }
        };
        let mut direct = || {
            guarded(&mut |session| {
                let answer = if as_json { text.direct_json(session) } else { text.direct(session) };
                (answer, String::new())
            })
            .0
        };
        let first = direct_first.then(&mut direct);
        let (cached, status) = guarded(&mut |session| match &columns {
            _ if as_json => text.cached_json(session),
            Some(columns) => text.cached(session, columns),
            // A query that cannot be planned has no columns. It must fail all the same.
            None => text.cached(session, "(c1 int)"),
        });
        let direct = match first {
            Some(direct) => direct,
            None => {
                guarded(&mut |session| {
                    let answer = if as_json { text.direct_json(session) } else { text.direct(session) };
                    (answer, String::new())
                })
                .0
            }
        };
        self.checks += 1;
        self.failed += u64::from(direct.has_failed());
        let hit = is_hit(&status);
        self.hits += u64::from(hit);
        // A change whose transaction is open is the last one, and does not count yet.
        let changes = (self.changes.len() - usize::from(self.in_change)) as u64;
        let before = asked.last.get(&(key.clone(), as_json)).copied();
        if !cached.is_same(&direct, text.is_ordered) && self.findings.len() < FINDINGS_MAX {
            let since = &self.changes
                [before.map_or(self.changes.len().saturating_sub(8), |before| before as usize)..];
            self.findings.push(format!(
                "check {}, session {reader}, in a transaction: {in_block}, JSON: {as_json}\n{}\narguments: {:?}\nsettings: {key}\ncolumns: {columns:?}\nstatus: {status}\ncached: {cached:?}\ndirect: {direct:?}\nchanges since it was last asked for ({before:?}): {since:#?}",
                self.checks, text.query, text.arguments
            ));
        }
        if direct.has_failed() {
            return;
        }
        *self.statuses.entry(status.clone()).or_default() += 1;
        if in_block {
            return;
        }
        if before == Some(changes) {
            self.repeated += 1;
            self.repeated_hits += u64::from(hit);
            if !hit {
                *self.reasons.entry(status).or_default() += 1;
            }
        }
        asked.last.insert((key, as_json), changes);
    }

    /// Prints the counts.
    fn report(&self, seed: u64, began: Instant) {
        println!(
            "equivalence: seed = {seed}, {:.1} s, checks = {}, failed = {}, hits = {}, repeated = {}, repeated hits = {}, changes = {}",
            began.elapsed().as_secs_f64(),
            self.checks,
            self.failed,
            self.hits,
            self.repeated,
            self.repeated_hits,
            self.changes.len()
        );
        println!("statuses: {:#?}\nrepeated results that were no hits: {:#?}", self.statuses, self.reasons);
    }
}

/// The least number of checks, so that the shares of failures and hits mean something on a slow machine, too.
const CHECKS_MIN: u64 = 1_000;

/// Compares until the number of checks, the time or the findings are reached.
fn run(cluster: &Cluster, checks: u64, time: Duration, verifies: bool) -> Run {
    let (seed, began) = (seed(), Instant::now());
    println!("equivalence: seed = {seed}");
    let mut run = Run::new(cluster, seed, verifies);
    let goes_on = |made: u64| made < checks && (began.elapsed() < time || made < CHECKS_MIN);
    while goes_on(run.checks) && run.findings.len() < FINDINGS_MAX {
        run.step();
    }
    run.report(seed, began);
    run
}

/// At least 60 % of the results that were asked for since the last change must be hits: a cache that stores nothing would also
/// return the same rows.
#[test]
fn random_queries_return_the_same_rows_with_and_without_the_cache() {
    let cluster = cluster(&Conf::preloaded().set("autovacuum", "off"));
    let (checks, seconds) = if is_long() { (60_000, 300) } else { (3_000, 12) };
    let mut run = run(&cluster, checks, Duration::from_secs(seconds), true);
    assert!(run.findings.is_empty(), "{}", run.findings.join("\n\n"));
    assert!(run.failed * 4 < run.checks, "{} of {} queries failed", run.failed, run.checks);
    let Run { repeated, repeated_hits, .. } = run;
    assert!(repeated_hits * 10 >= repeated * 6, "{repeated_hits} hits of {repeated} repeated results");
    assert_eq!(findings(&mut run.writer), Vec::<String>::new());
    let (verified, different) = verification(&mut run.writer);
    assert_eq!(different, 0, "{}", cluster.log());
    assert!(verified > 0, "no hit was verified");
}

/// Returns how many hits were verified, and how many of them were wrong.
fn verification(session: &mut Client) -> (i64, i64) {
    let row = session.query_one("SELECT verified, different, skipped FROM public.cache_verification", &[]);
    let row = row.expect("a view");
    println!(
        "verified = {}, different = {}, skipped = {}",
        row.get::<_, i64>(0),
        row.get::<_, i64>(1),
        row.get::<_, i64>(2)
    );
    (row.get(0), row.get(1))
}

/// Checks the verification of hits itself: without fences, random changes leave stale results, and a verified hit must find one.
#[test]
fn verification_of_random_queries_finds_stale_results_if_fences_are_broken() {
    let cluster = cluster(&Conf::preloaded().set("pg_cache.break_fencing", "never"));
    let (seed, began) = (seed(), Instant::now());
    println!("equivalence: seed = {seed}");
    let mut run = Run::new(&cluster, seed, true);
    loop {
        (0..20).for_each(|_| run.step());
        let (verified, different) = verification(&mut run.writer);
        if different > 0 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(240), "nothing was stale in {verified} verified hits");
    }
}
