//! The part `queries-writes` of the report: measures cached and uncached reads beside writes. A share of the requests changes a row
//! of a table that the reads depend on, which invalidates all stored results of the table. This shows at which share the cache
//! loses. A *contender* is one of the alternatives that a measurement compares: here, the read without the cache, and with it.

use super::race::{Race, summary};
use super::shop::{COLUMNS, DASHBOARD_30, FEW_ORDERS, fill};
use super::stage::{SPACE, Stage, cached};
use crate::data::{FEW_KEYS, FIRST_KEY, KEYS};
use crate::drive::Load;
use crate::drive::wire::{Other, Task, Until};
use crate::hot_tier::duel::Contender;
use crate::pace::Pace;
use crate::plan::Given;
use crate::report::notation::{count, digits, rate, with_interval};
use crate::report::section::{Section, Table};
use crate::statistics::Summary;
use std::cell::Cell;
use std::time::Duration;

/// The shares of writes in all requests, in percent.
const SHARES: [u32; 4] = [0, 1, 10, 50];
/// The clients, which send one request at a time.
const CLIENTS: u32 = 4;
/// The rounds of a race (`race.rs`): with fewer, the median would have no interval of 95 % confidence.
const ROUNDS: usize = 6;
/// The name of a space, a named cache, that stores only results of queries that took at least 1 ms, which is the default of
/// `pg_cache.min_cost`.
const COSTLY: &str = "costly";

/// The names of the contenders.
const UNCACHED: &str = "uncached";
const CACHED: &str = "cached";
const CACHED_IF_COSTLY: &str = "cached if it took 1 ms";

/// A read, and the write beside it.
struct Subject<'a> {
    /// The title in the report.
    title: &'static str,
    /// The read without a cache.
    statement: &'a str,
    /// The parameters of the read.
    given: Given,
    /// The read with the cache: a name, the space, and the statement.
    cached: &'a [(&'static str, &'static str, String)],
    /// The write. Its parameter is the number of a row.
    write: &'a str,
    /// The duration of a turn.
    span: Duration,
}

/// Returns the duration of a turn of the primary-key read and of the dashboard.
fn spans(pace: &Pace) -> [Duration; 2] {
    [pace.read / 2, pace.read]
}

/// Returns about how long the part takes.
pub fn estimate(pace: &Pace) -> Duration {
    // At each share of writes, the read by primary key has three contenders, and the dashboard has two. A turn ends when each of
    // the 4 clients has its last answer. Each of them may have asked for a dashboard just before, and 4 dashboards of about 100 ms
    // take 400 ms on one core.
    let [by_key, dashboard] = spans(pace);
    let turns = (SHARES.len() * (ROUNDS + 1)) as u32;
    let between = pace.warm_up + Duration::from_millis(50);
    ((by_key + between) * 3 + (dashboard + between + Duration::from_millis(400)) * 2) * turns
        + Duration::from_secs(12)
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let stage = Stage::start();
    fill(&stage, FEW_ORDERS);
    stage.execute(&format!(
        "CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL, filler text NOT NULL) WITH (fillfactor = 50);
         INSERT INTO account SELECT {FIRST_KEY} + i, 0, repeat('x', 80) FROM generate_series(0, {KEYS} - 1) AS i;
         SELECT cache_create_space('{COSTLY}', min_cost => '1 ms')"
    ));
    stage.execute("VACUUM (ANALYZE) account");
    stage.execute("CHECKPOINT");
    let [by_key_span, dashboard_span] = spans(pace);

    let by_key = "SELECT id, balance, filler FROM account WHERE id = $1";
    let by_key_cached = |options: &str| {
        let columns = "id bigint, balance bigint, filler text";
        let options = format!(", jsonb_build_array($1){options}");
        format!("SELECT * FROM {}", cached(by_key, columns, &options))
    };
    let subjects = [
        Subject {
            title: "a row by primary key",
            statement: by_key,
            given: Given::FewRows,
            cached: &[
                (CACHED, SPACE, by_key_cached("")),
                (CACHED_IF_COSTLY, COSTLY, by_key_cached(&format!(", space => '{COSTLY}'"))),
            ],
            write: "UPDATE account SET balance = balance + 1 WHERE id = $1",
            span: by_key_span,
        },
        Subject {
            title: "30 rows of the dashboard",
            statement: DASHBOARD_30,
            given: Given::Nothing,
            cached: &[(CACHED, SPACE, format!("SELECT * FROM {}", cached(DASHBOARD_30, COLUMNS, "")))],
            write: &format!(
                "UPDATE orders SET status = status WHERE order_id = (1 + $1 % {FEW_ORDERS})::int"
            ),
            span: dashboard_span,
        },
    ];
    let results: Vec<Beside> = subjects
        .iter()
        .flat_map(|subject| SHARES.map(|percent| subject.beside(&stage, percent, pace)))
        .collect();

    let mut table =
        Table::new(3, ["read", "writes", "contender", "requests per second", "× uncached", "hits"]);
    for result in &results {
        table.rows.extend(result.rows());
    }
    let losses: Vec<String> = results.iter().flat_map(Beside::losses).collect();
    let losses = match &losses[..] {
        [] => "No cached contender was slower than the uncached one.".to_owned(),
        _ => format!("The cache loses here: {}.", losses.join("; ")),
    };
    let figures: Vec<_> = results
        .iter()
        .map(|result| {
            serde_json::json!({
                "read": result.title, "writes_percent": result.percent, "race": result.race, "hits": result.cached,
            })
        })
        .collect();
    Section {
        id: "queries-writes".into(),
        title: "Cached reads beside writes".into(),
        goals: Vec::new(),
        tables: vec![table],
        explained: vec![
            losses,
            format!(
                "Prepared statements over a Unix socket by {CLIENTS} clients, which send one request at a time and share the cores with the server. \
                 Each request is a write with the probability of the column. Requests per second count reads and writes. The column of \
                 hits is the share of the reads that found a stored result. Commits do not wait for the disk."
            ),
            format!(
                "The primary-key read asks for one of {} rows of a table with {}; the write changes one of these rows. A change of any row \
                 invalidates all stored rows of the table. The contender \"{CACHED_IF_COSTLY}\" has the default of `pg_cache.min_cost`: the \
                 read is faster, so nothing is stored. The other cached contender stores everything. The dashboard is that of a shop with \
                 {} orders, whose query takes about 0.1 s; the write changes an order. Turns of {} and {} ms after a warm-up, {ROUNDS} rounds.",
                count(FEW_KEYS as f64),
                count(KEYS as f64),
                count(f64::from(FEW_ORDERS)),
                by_key_span.as_millis(),
                dashboard_span.as_millis(),
            ),
        ],
        figures: figures.into(),
    }
}

impl Subject<'_> {
    /// Runs the contenders with a share of writes. Before each turn, the contender runs for a while without being measured.
    fn beside(&self, stage: &Stage, percent: u32, pace: &Pace) -> Beside {
        let other = Other { statement: self.write, given: Given::FewRows, share: f64::from(percent) / 100.0 };
        let load = Load { clients: CLIENTS, pipeline: 1, keys: 1 };
        let seeds = Cell::new(0);
        let send = |statement: &str, span| {
            let seed = seeds.replace(seeds.get() + 1);
            let task = Task { statement, given: self.given, load, seed };
            1e9 / stage.run(task, Some(other), Until::Over(span)).per_second
        };
        let counts: Vec<Cell<[u64; 2]>> = self.cached.iter().map(|_| Cell::default()).collect();
        let mut contenders = vec![Contender::new(UNCACHED, || {
            send(self.statement, pace.warm_up);
            send(self.statement, self.span)
        })];
        for ((name, space, statement), counts) in self.cached.iter().zip(&counts) {
            let send = &send;
            contenders.push(Contender::new(*name, move || {
                send(statement, pace.warm_up);
                let before = stage.reads(space);
                let time = send(statement, self.span);
                let after = stage.reads(space);
                let [hits, misses] = counts.get();
                counts.set([hits + after[0] - before[0], misses + after[1] - before[1]]);
                time
            }));
        }
        let race = Race::hold(self.title, ROUNDS, contenders);
        let cached = self.cached.iter().zip(&counts).map(|((name, ..), counts)| (*name, share(counts.get())));
        Beside { title: self.title, percent, cached: cached.collect(), race }
    }
}

/// Returns the share of hits in all reads.
fn share([hits, misses]: [u64; 2]) -> f64 {
    hits as f64 / (hits + misses).max(1) as f64
}

/// The results of a read beside a share of writes.
struct Beside {
    /// The title of the read.
    title: &'static str,
    /// The share of writes, in percent.
    percent: u32,
    /// The names of the cached contenders, and the share of hits in their reads.
    cached: Vec<(&'static str, f64)>,
    /// The times of the contenders.
    race: Race,
}

impl Beside {
    /// Returns the requests per second of a contender, divided by those of the uncached one.
    fn ratio(&self, name: &str) -> Summary {
        self.race.ratio(UNCACHED, name)
    }

    /// Returns the rows of the table.
    fn rows(&self) -> Vec<Vec<String>> {
        let rates = |name| with_interval(summary(self.race.times(name)).inverted(1e9), rate);
        let first = |name: &str| vec![self.title.to_owned(), format!("{} %", self.percent), name.to_owned()];
        let mut uncached = first(UNCACHED);
        uncached.extend([rates(UNCACHED), "1".into(), "–".into()]);
        let cached = self.cached.iter().map(|(name, hits)| {
            let mut row = first(name);
            let ratio = with_interval(self.ratio(name), digits);
            row.extend([rates(name), ratio, format!("{} %", digits(hits * 100.0))]);
            row
        });
        std::iter::once(uncached).chain(cached).collect()
    }

    /// Returns the contenders that were slower than the uncached one, by the median, in words.
    fn losses(&self) -> Vec<String> {
        let slower = self.cached.iter().filter(|(name, _)| self.ratio(name).median < 1.0);
        let words = |(name, _): &(&str, f64)| {
            let ratio = digits(self.ratio(name).median);
            format!("{}, {} % writes, {name}: {ratio} × uncached", self.title, self.percent)
        };
        slower.map(words).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a ratio is upside down, or if a contender that is faster than the uncached read counts as a loss.
    #[test]
    fn losses_are_named() {
        let contender = |name, time: f64| Contender::new(name, move || time);
        let race = Race::hold(
            "a read",
            6,
            vec![contender(UNCACHED, 1000.0), contender(CACHED, 500.0), contender(CACHED_IF_COSTLY, 2000.0)],
        );
        let cached = vec![(CACHED, 0.5), (CACHED_IF_COSTLY, 0.0)];
        let beside = Beside { title: "a read", percent: 10, cached, race };
        assert_eq!(beside.losses(), ["a read, 10 % writes, cached if it took 1 ms: 0.50 × uncached"]);
        assert_eq!(beside.rows()[1][3..], ["2.00 M (2.00 – 2.00 M)", "2.00 (2.00 – 2.00)", "50.0 %"]);
    }

    /// Fails if a space without reads has a share that is not a number, or if the share is not that of all reads.
    #[test]
    fn no_reads_have_no_hits() {
        assert_eq!(share([0, 0]), 0.0);
        assert_eq!(share([3, 1]), 0.75);
    }
}
