//! Queries of sqlsmith, a generator that knows nothing about pg_cache, run with and without the cache, between changes of rows.
//! Both must return the same rows or fail with the same error. `PG_CACHE_TEST_SEED` repeats a failed run.
//!
//! sqlsmith reads the catalogs of a database of its own, `forge`, which has the schema of `schema.rs`. The queries run in another
//! database. So `forge` can have other catalogs, which lead sqlsmith to queries that return rows and can be stored ([`NARROWED`]).

use super::cached::{Answer, cost, is_hit};
use super::changes::of_rows;
use super::grammar::Text;
use super::{is_long, schema, set_up};
use crate::hunter::dice::{Dice, seed};
use crate::memory::{cluster, findings};
use pg_cache_testbed::{Cluster, Conf};
use postgres::Client;
use std::collections::{BTreeMap, VecDeque};
use std::process::Command;
use std::time::{Duration, Instant};

/// How many queries one run of sqlsmith prints.
const BATCH: usize = 500;
/// How many of the last queries are asked again after each change, and how many new ones come before the next change.
const KEPT: usize = 24;
const NEW: usize = 12;
/// The most that a query may cost, by the estimate of the planner.
const COST_MAX: u64 = 50_000;
/// A run ends when it has found so many wrong answers.
const FINDINGS_MAX: usize = 5;
/// A query that runs longer has no result to compare.
const TIMEOUT: &str = "SET statement_timeout = '10s'";
const TIMED_OUT: &str = "57014";

/// Changes the catalogs that sqlsmith reads. Most of its own choices give `cast(null as box) |&> cast(null as box)`, because no
/// column has the type. It looks for `pg_proc` along the search path, and for operators in `pg_catalog`. Of the functions without
/// arguments, which would be a part of almost all queries and keep them from being stored, some are left. A result that reads the
/// clock may be stored, and then differs from the next one.
const NARROWED: &str = "
    SET allow_system_table_mods = on;
    CREATE VIEW information_schema.used_types AS
        SELECT atttypid AS type FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid
         WHERE relkind IN ('r', 'v', 'm', 'p') AND attnum > 0 AND relnamespace::regnamespace::text IN ('public', 'a', 'b', 'c')
        UNION SELECT unnest('{bool, int4, int8, numeric, text, interval}'::regtype[]);
    CREATE VIEW information_schema.pg_proc AS
        SELECT * FROM pg_catalog.pg_proc
         WHERE provolatile <> 'v' AND prorettype IN (TABLE information_schema.used_types)
           AND proargtypes::oid[] <@ ARRAY(SELECT type FROM information_schema.used_types)
           AND (pronargs > 0 OR pronamespace <> 'pg_catalog'::regnamespace OR prokind = 'a'
                OR proname IN ('current_database', 'current_setting', 'version'))
           AND proname !~ '^(age$|pg_stat|pg_.*size)';
    -- sqlsmith leaves out operators without a result. Its own questions to the catalogs need those of the last types.
    UPDATE pg_operator SET oprresult = 0
     WHERE NOT (oprleft IN (TABLE information_schema.used_types) AND oprright IN (TABLE information_schema.used_types))
       AND 0 NOT IN (oprleft, oprright) AND oprleft NOT IN ('oid'::regtype, 'name'::regtype, '\"char\"'::regtype, 'int2'::regtype);
    -- These have few rows each.
    DO $$ BEGIN FOR i IN 3..19 LOOP EXECUTE format('DROP TABLE wide_%s', i); END LOOP; END $$";

/// A query of sqlsmith, and the session that asks for it.
struct Asked {
    text: Text,
    /// The column definition list. None if only `cache_query_json` can return the query's rows.
    columns: Option<String>,
    reader: usize,
}

/// Counts of comparisons.
#[derive(Debug, Default)]
struct Counts {
    /// The queries of sqlsmith that were compared.
    queries: u64,
    /// Those that returned rows, that failed, or whose result changes by itself.
    with_rows: u64,
    failed: u64,
    unsteady: u64,
    /// The queries that were not compared: too expensive, too slow, or one of too many that fail or return no rows.
    left_out: u64,
    /// The calls right after the same call, of queries that do not fail, and the hits among them.
    repeated: u64,
    repeated_hits: u64,
    /// The calls after a change, and the hits among them.
    after_change: u64,
    after_change_hits: u64,
    /// How often each status was that of a repeated call.
    statuses: BTreeMap<String, u64>,
}

struct Run<'a> {
    cluster: &'a Cluster,
    dice: Dice,
    writer: Client,
    /// A session of the superuser, and one of a role with row security.
    readers: [Client; 2],
    forge: Client,
    kept: VecDeque<Asked>,
    changes: Vec<String>,
    counts: Counts,
    findings: Vec<String>,
}

impl<'a> Run<'a> {
    fn new(cluster: &'a Cluster, seed: u64) -> Self {
        let mut writer = cluster.connect("postgres");
        set_up(&mut writer);
        writer.batch_execute("CREATE DATABASE forge").expect("it is created");
        let mut forge = cluster.connect("forge");
        forge.batch_execute(schema::SETUP).expect("a schema");
        forge.batch_execute(NARROWED).expect("other catalogs");
        let reader = |role| {
            let mut session = cluster.connect("postgres");
            session.batch_execute(&format!("SET ROLE {role}; {TIMEOUT}")).expect("it is set");
            session
        };
        Self {
            cluster,
            dice: Dice(seed),
            writer,
            readers: [reader("postgres"), reader("alice")],
            forge,
            kept: VecDeque::new(),
            changes: Vec::new(),
            counts: Counts::default(),
            findings: Vec::new(),
        }
    }

    /// Returns the read-only statements of a run of sqlsmith.
    fn batch(&mut self) -> Vec<String> {
        let target = format!(
            "host={} user=postgres dbname=forge options='-c search_path=information_schema,public,pg_catalog'",
            self.cluster.socket_dir().display()
        );
        let mut command = Command::new("sqlsmith");
        command.args(["--dry-run", "--exclude-catalog"]);
        command.arg(format!("--max-queries={BATCH}")).arg(format!("--seed={}", self.dice.roll(1 << 30)));
        let output = command.arg(format!("--target={target}")).output().expect("sqlsmith starts");
        let printed = String::from_utf8_lossy(&output.stdout);
        let statements: Vec<String> = printed.split(";\n").map(str::trim).map(str::to_owned).collect();
        assert!(
            output.status.success() && statements.len() >= BATCH,
            "sqlsmith: {}, {} statements\n{}",
            output.status,
            statements.len(),
            String::from_utf8_lossy(&output.stderr)
        );
        statements.into_iter().filter(|statement| is_query(statement)).collect()
    }

    /// Returns the column definition list of a query, by the columns of a view on it.
    fn columns(&mut self, query: &str) -> Option<String> {
        let columns = "SELECT concat('(', string_agg(concat('c', attnum, ' ', format_type(atttypid, -1)), ', ' ORDER BY attnum), ')')
                         FROM pg_attribute WHERE attrelid = 'described'::regclass";
        let mut transaction = self.forge.transaction().expect("it begins");
        transaction.batch_execute(&format!("CREATE VIEW described AS {query}")).ok()?;
        Some(transaction.query_one(columns, &[]).expect("a catalog").get(0))
    }

    /// Asks for a new query, twice through the cache. Makes a change after some of them, and asks again for the last ones.
    fn step(&mut self, query: String) {
        let sampled = query.contains("tablesample ") && self.dice.roll(8) > 0;
        let text = Text::plain(&if sampled { without_samples(&query) } else { query });
        let reader = self.dice.roll(self.readers.len());
        let session = &mut self.readers[reader];
        // A query that cannot be planned fails at once.
        let is_dear = cost(session, &text.query).is_some_and(|cost| cost > COST_MAX);
        let first = if is_dear { None } else { Some(text.direct(session)) };
        // Most queries of sqlsmith return no rows, and many read what the role may not read. Some of these are enough.
        match first {
            Some(Answer::Rows(rows)) if !rows.is_empty() || self.dice.roll(12) == 0 => {
                self.counts.with_rows += u64::from(!rows.is_empty());
            }
            Some(Answer::Failed(code, _)) if code != TIMED_OUT && self.dice.roll(4) == 0 => {
                self.counts.failed += 1;
            }
            _ => {
                self.counts.left_out += 1;
                return;
            }
        }
        let columns = self.columns(&text.query).filter(|_| self.dice.roll(5) > 0);
        let asked = Asked { text, columns, reader };
        self.counts.queries += 1;
        self.compare(&asked, true);
        self.kept.push_back(asked);
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
        if self.counts.queries.is_multiple_of(NEW as u64) {
            self.change();
        }
    }

    /// Changes some rows, and asks again for the last queries.
    fn change(&mut self) {
        let change = of_rows(&mut self.dice);
        self.writer.batch_execute(&change).unwrap_or_else(|error| panic!("{change}: {error:?}"));
        self.changes.push(change);
        for asked in std::mem::take(&mut self.kept) {
            self.compare(&asked, false);
            self.kept.push_back(asked);
        }
    }

    /// Compares a call, and a repeated call, with the query before and after them.
    fn compare(&mut self, asked: &Asked, is_new: bool) {
        let session = &mut self.readers[asked.reader];
        let first = asked.direct(session);
        let calls = [asked.cached(session), asked.cached(session)];
        let last = asked.direct(session);
        let counts = &mut self.counts;
        // A sample may have the same rows twice, by chance.
        let is_steady = first.is_same(&last, false) && !asked.text.query.contains("tablesample ");
        let hits = calls.each_ref().map(|(_, status)| is_hit(status));
        counts.unsteady += u64::from(is_new && !is_steady);
        if !first.has_failed() {
            counts.repeated += 1;
            counts.repeated_hits += u64::from(hits[1]);
            *counts.statuses.entry(calls[1].1.clone()).or_default() += 1;
            if !is_new {
                counts.after_change += 1;
                counts.after_change_hits += u64::from(hits[0]);
            }
        }
        for (place, (cached, status)) in calls.iter().enumerate() {
            let has_timed_out = matches!(cached, Answer::Failed(code, _) if code == TIMED_OUT);
            // A query whose result changes by itself must not be stored.
            let is_right =
                if is_steady { has_timed_out || cached.is_same(&first, false) } else { !hits[place] };
            if !is_right && self.findings.len() < FINDINGS_MAX {
                self.findings.push(format!(
                    "call {}, new: {is_new}, reader {}, columns: {:?}, status: {status}, the query itself is steady: {is_steady}\n{}\ncached: {cached:?}\ndirect: {first:?}\nthen:   {last:?}\nlast changes: {:#?}",
                    place + 1,
                    asked.reader,
                    asked.columns,
                    asked.text.query,
                    &self.changes[self.changes.len().saturating_sub(4)..],
                ));
            }
        }
    }
}

impl Asked {
    fn direct(&self, session: &mut Client) -> Answer {
        if self.columns.is_some() { self.text.direct(session) } else { self.text.direct_json(session) }
    }

    fn cached(&self, session: &mut Client) -> (Answer, String) {
        match &self.columns {
            Some(columns) => self.text.cached(session, columns),
            None => self.text.cached_json(session),
        }
    }
}

/// Returns whether a statement of sqlsmith only reads.
fn is_query(statement: &str) -> bool {
    let lower = statement.to_lowercase();
    let writes = ["insert into ", "update ", "delete from ", "merge into "];
    (lower.starts_with("select") || lower.starts_with("with"))
        && !writes.iter().any(|write| lower.contains(write))
}

/// Returns a query of sqlsmith without its TABLESAMPLE clauses, such as `tablesample system (3.8)`.
fn without_samples(query: &str) -> String {
    let mut parts = query.split("tablesample ");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        whole.push_str(part.split_once(')').map_or("", |(_, rest)| rest));
    }
    whole
}

/// Compares until the number of queries, the time or the findings are reached.
fn run(cluster: &Cluster, queries: u64, time: Duration) -> Run<'_> {
    let (seed, began) = (seed(), Instant::now());
    println!("sqlsmith: seed = {seed}");
    let mut run = Run::new(cluster, seed);
    let goes_on = |run: &Run<'_>| {
        run.counts.queries < queries && began.elapsed() < time && run.findings.len() < FINDINGS_MAX
    };
    while goes_on(&run) {
        for query in run.batch() {
            if goes_on(&run) {
                run.step(query);
            }
        }
    }
    println!("sqlsmith: seed = {seed}, {:.1} s, {:#?}", began.elapsed().as_secs_f64(), run.counts);
    run
}

#[test]
#[ignore = "make/sqlsmith.sh runs it"]
fn queries_of_sqlsmith_return_the_same_rows_with_and_without_the_cache() {
    let cluster = cluster(&Conf::preloaded().set("autovacuum", "off"));
    let (most, least, seconds) = if is_long() { (3_000, 1_000, 900) } else { (300, 100, 240) };
    let mut run = run(&cluster, most, Duration::from_secs(seconds));
    assert!(run.findings.is_empty(), "{}", run.findings.join("\n\n"));
    let Counts {
        queries,
        with_rows,
        failed,
        unsteady,
        repeated,
        repeated_hits,
        after_change,
        after_change_hits,
        ..
    } = run.counts;
    assert!(queries >= least, "{queries} queries");
    assert!(with_rows * 3 >= queries && failed * 4 < queries && unsteady * 4 < queries, "{:?}", run.counts);
    // Measured: 81 to 86 % of the repeated calls, and 50 to 67 % of the calls after a change, are hits.
    assert!(repeated_hits * 10 >= repeated * 6, "{repeated_hits} hits of {repeated} repeated calls");
    assert!(
        after_change_hits * 4 >= after_change,
        "{after_change_hits} hits of {after_change} calls after a change"
    );
    assert_eq!(findings(&mut run.writer), Vec::<String>::new());
}

/// Checks the comparison itself: without fences, the changes leave stale results, and a comparison must find one.
#[test]
#[ignore = "make/sqlsmith.sh runs it"]
fn queries_of_sqlsmith_find_stale_results_if_fences_are_broken() {
    let cluster = cluster(&Conf::preloaded().set("autovacuum", "off").set("pg_cache.break_fencing", "never"));
    let run = run(&cluster, 2_000, Duration::from_secs(240));
    assert!(!run.findings.is_empty(), "no result was stale: {:?}", run.counts);
}
