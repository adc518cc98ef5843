//! One period of a column of the part `day` of the report, that is, of one way to serve the dashboards: the sessions ask for
//! dashboards, and another session commits orders. The warm-up lasts until the hit ratio is level. After it, the sessions note each
//! request for a while.

use super::column::{self, Column, Source};
use super::dashboards::{Dashboard, Subject};
use super::orders::{self, Log, Written};
use crate::eviction::traces::{Random, Zipf};
use crate::queries::stage::Stage;
use postgres::Client;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The setting of all periods.
pub struct Plan<'a> {
    /// The dashboards that are asked for.
    pub dashboards: &'a [Dashboard],
    /// The mean time between an answer and the next request of a session. The times are drawn from an exponential distribution.
    pub think: Duration,
    /// The number of orders that are committed per second.
    pub orders_per_second: u32,
    /// The time for which a stored result may be used in the columns [`StaleOk`](Column::StaleOk), [`Table`](Column::Table) and
    /// [`Views`](Column::Views), whose answers may be outdated. It stands for five minutes in a real day (`FIVE_MINUTES` in
    /// `mod.rs`).
    pub fresh_for: Duration,
    /// The seed of all random choices.
    pub seed: u64,
}

/// The sessions of all periods, which stay connected.
pub struct Sessions {
    /// The sessions that ask for dashboards.
    pub readers: Vec<Client>,
    /// The session that commits the orders.
    pub writer: Client,
    /// The session that refreshes the materialized views.
    pub refresher: Client,
}

/// A request that began after the warm-up.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// When the request began.
    started: Instant,
    /// The time of the request.
    took: Duration,
    /// Where the rows of the answer came from.
    source: Source,
    /// The table that the dashboard is about.
    subject: Subject,
    /// The id of the newest row of the subject in the answer. The ids grow in the order of the commits (`orders.rs`).
    newest: i64,
    /// The id of the newest row of the subject whose commit was acknowledged when the request began.
    acknowledged: i64,
}

/// The results of a period. The results of periods of the same column can be added.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The time of each request in nanoseconds.
    pub times: Vec<u64>,
    /// For each answer, the nanoseconds for which it was outdated when it was requested. 0 if it was not outdated.
    pub ages: Vec<u64>,
    /// The number of answers that were stored results.
    pub stored: u64,
    /// The number of answers that another session has computed while this session waited for them.
    pub waited: u64,
    /// The number of answers for which the query was run.
    pub computed: u64,
    /// The runs of queries that the server has counted meanwhile.
    pub executed: u64,
    /// The seconds for which requests were noted.
    pub seconds: f64,
    /// The duration of the warm-up, in seconds.
    pub warm_up_seconds: f64,
    /// Whether the hit ratio was not level at the end of the warm-up.
    pub unlevel: bool,
    /// The number of orders that were committed.
    pub orders: u64,
    /// The seconds for which orders were committed.
    pub order_seconds: f64,
    /// The longest time by which an order was late.
    pub most_behind: Duration,
}

impl Outcome {
    /// Adds the results of another period.
    pub fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        self.ages.extend(other.ages);
        self.stored += other.stored;
        self.waited += other.waited;
        self.computed += other.computed;
        self.executed += other.executed;
        self.seconds += other.seconds;
        self.warm_up_seconds += other.warm_up_seconds;
        self.unlevel |= other.unlevel;
        self.orders += other.orders;
        self.order_seconds += other.order_seconds;
        self.most_behind = self.most_behind.max(other.most_behind);
    }

    /// Adds a request. `log` knows when each commit was acknowledged, and so since when the answer is outdated. The age is at least
    /// 1 ns if the answer is outdated, because 0 stands for an answer that is not.
    fn note(&mut self, sample: &Sample, log: &Log) {
        let since = log.outdated_since(sample.subject, sample.newest, sample.acknowledged);
        let age =
            since.map(|since| sample.started.saturating_duration_since(since).max(Duration::from_nanos(1)));
        self.ages.push(nanoseconds(age.unwrap_or_default()));
        self.times.push(nanoseconds(sample.took));
        match sample.source {
            Source::Stored => self.stored += 1,
            Source::Waited => self.waited += 1,
            Source::Computed => self.computed += 1,
        }
    }

    /// Returns how many answers missed a commit that was acknowledged before their request.
    pub fn outdated(&self) -> u64 {
        self.ages.iter().filter(|age| **age > 0).count() as u64
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Finds out when the hit ratio is *level*: the ratios of two *windows* in a row differ by at most [`LEVEL`]. A window is a quarter
/// of [`Plan::fresh_for`].
struct Levels {
    /// The hit ratio of the last window. None before the first one.
    last: Option<f64>,
    /// The requests and the hits at the end of the last window.
    counts: [u64; 2],
}

/// The largest difference of two hit ratios that count as equal.
const LEVEL: f64 = 0.03;

impl Levels {
    fn begin() -> Self {
        Self { last: None, counts: [0, 0] }
    }

    /// Ends a window, and returns whether the hit ratio is level. The arguments are the numbers since the beginning of the period.
    fn is_level(&mut self, requests: u64, hits: u64) -> bool {
        let [requests_before, hits_before] = std::mem::replace(&mut self.counts, [requests, hits]);
        let ratio = (hits - hits_before) as f64 / (requests - requests_before).max(1) as f64;
        let last = self.last.replace(ratio);
        last.is_some_and(|last| (last - ratio).abs() <= LEVEL)
    }
}

/// The state that the threads of a period share.
#[derive(Default)]
struct Shared {
    /// The number of requests so far.
    requests: AtomicU64,
    /// The number of requests so far that got a stored result.
    hits: AtomicU64,
    /// Whether requests are noted: after the warm-up.
    notes: AtomicBool,
    /// Tells the threads to end.
    ends: AtomicBool,
}

impl Plan<'_> {
    /// Returns the least and the most time of the warm-up of a column. If results expire, the warm-up must not be shorter than
    /// their life: before, no result has expired, so the hit ratio would be too high.
    pub fn warm_up(&self, column: Column) -> [Duration; 2] {
        let [least, most] = if column.is_exact() { [1, 4] } else { [4, 8] };
        [self.fresh_for * least / 4, self.fresh_for * most / 4]
    }

    /// Returns the time for which requests are noted. If results expire, it is as long as their life, so that each result expires
    /// once.
    pub fn span(&self, column: Column) -> Duration {
        if column.is_exact() { self.fresh_for / 2 } else { self.fresh_for }
    }

    /// Runs a period. `number` must be another one for each period: with the seed, it decides the random choices.
    pub fn run(
        &self,
        stage: &Stage,
        sessions: &mut Sessions,
        log: &Log,
        column: Column,
        number: u64,
    ) -> Outcome {
        column.prepare(stage, self.dashboards);
        let shared = Shared::default();
        let ends = || shared.ends.load(Ordering::Relaxed);
        let popularity = Zipf::new(self.dashboards.len() as u32, 1.0);
        let samples = Mutex::new(Vec::new());
        let mut outcome = Outcome::default();
        std::thread::scope(|scope| {
            for (place, reader) in sessions.readers.iter_mut().enumerate() {
                let (shared, samples, popularity) = (&shared, &samples, &popularity);
                let seed = (self.seed + number) << 32 | place as u64;
                scope.spawn(move || {
                    let noted = self.read(reader, log, column, shared, popularity, seed);
                    samples.lock().expect("no session panics with it").extend(noted);
                });
            }
            let began = Instant::now();
            let writer = &mut sessions.writer;
            let writes =
                scope.spawn(|| orders::write(writer, log, self.orders_per_second, self.seed + number, ends));
            if column == Column::Views {
                let refresher = &mut sessions.refresher;
                scope.spawn(|| column::refresh(refresher, self.dashboards.len(), self.fresh_for, ends));
            }
            let guard = EndsOnPanic(&shared);
            outcome.unlevel = !self.wait_until_level(column, &shared);
            outcome.warm_up_seconds = began.elapsed().as_secs_f64();
            let before = column::executed(stage);
            shared.notes.store(true, Ordering::Relaxed);
            let noting = Instant::now();
            std::thread::sleep(self.span(column));
            shared.notes.store(false, Ordering::Relaxed);
            outcome.seconds = noting.elapsed().as_secs_f64();
            outcome.executed = column::executed(stage) - before;
            drop(guard);
            let Written { orders, most_behind } = writes.join().expect("the orders are written");
            (outcome.orders, outcome.most_behind) = (orders, most_behind);
            outcome.order_seconds = began.elapsed().as_secs_f64();
        });
        column.clean(stage, self.dashboards);
        for sample in samples.into_inner().expect("no session panics with it") {
            outcome.note(&sample, log);
        }
        outcome
    }

    /// Waits until the hit ratio is level. Returns false if it is not level at the end of the longest warm-up.
    fn wait_until_level(&self, column: Column, shared: &Shared) -> bool {
        let [least, most] = self.warm_up(column);
        let (began, window, mut levels) = (Instant::now(), self.fresh_for / 4, Levels::begin());
        loop {
            std::thread::sleep(window);
            let counts = [&shared.requests, &shared.hits].map(|count| count.load(Ordering::Relaxed));
            let is_level = levels.is_level(counts[0], counts[1]);
            let elapsed = began.elapsed();
            if is_level && elapsed >= least || elapsed >= most {
                return is_level;
            }
        }
    }

    /// Asks for dashboards until the period ends. Returns the requests that began after the warm-up.
    fn read(
        &self,
        session: &mut Client,
        log: &Log,
        column: Column,
        shared: &Shared,
        popularity: &Zipf,
        seed: u64,
    ) -> Vec<Sample> {
        let (mut random, mut samples) = (Random::of_seed(seed), Vec::new());
        loop {
            // The longest pause is cut, so that the period ends soon.
            let pause = self.think.mul_f64((-(1.0 - random.fraction()).ln()).min(5.0));
            std::thread::sleep(pause);
            if shared.ends.load(Ordering::Relaxed) {
                return samples;
            }
            let place = popularity.draw(&mut random) as usize;
            let dashboard = &self.dashboards[place];
            let is_noted = shared.notes.load(Ordering::Relaxed);
            let acknowledged = log.newest(dashboard.subject);
            let started = Instant::now();
            let answer = column.request(session, place, dashboard, self.dashboards.len(), self.fresh_for);
            let took = started.elapsed();
            shared.hits.fetch_add(u64::from(answer.source == Source::Stored), Ordering::Relaxed);
            shared.requests.fetch_add(1, Ordering::Relaxed);
            if is_noted {
                let (source, newest) = (answer.source, answer.newest);
                samples.push(Sample {
                    started,
                    took,
                    source,
                    subject: dashboard.subject,
                    newest,
                    acknowledged,
                });
            }
        }
    }
}

/// Ends the period when it is dropped, also by a panic. Without it, the threads would go on for ever after a panic.
struct EndsOnPanic<'a>(&'a Shared);

impl Drop for EndsOnPanic<'_> {
    fn drop(&mut self) {
        self.0.ends.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if the hit ratio is level after the first window, or if the ratio of a window includes the windows before it.
    #[test]
    fn two_equal_windows_are_level() {
        let mut levels = Levels::begin();
        assert!(!levels.is_level(100, 50));
        assert!(!levels.is_level(200, 140), "50 % and 90 %");
        assert!(levels.is_level(300, 229), "90 % and 89 %");
    }

    /// Fails if a period counts twice or not at all, or if an answer with the age 0 counts as outdated.
    #[test]
    fn periods_are_added() {
        let period = |ages: &[u64], executed| Outcome {
            ages: ages.to_vec(),
            times: vec![7; ages.len()],
            executed,
            seconds: 2.0,
            ..Outcome::default()
        };
        let mut sum = Outcome::default();
        sum.add(period(&[0, 5], 3));
        sum.add(period(&[0, 0, 9], 4));
        assert_eq!((sum.times.len(), sum.executed, sum.outdated(), sum.seconds), (5, 7, 2, 4.0));
    }
}
