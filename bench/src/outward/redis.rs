//! The part `outward-redis` of the report: measures how fast the Redis worker copies values, how far Redis is behind at a given
//! rate, and what the copies cost the sessions that set values. The worker, the sessions and a real Redis share the cores of the
//! machine. A *contender* is one of the alternatives that a measurement compares. The *journal* is a ring in shared memory whose
//! records name what has changed. A *space* is a named cache; Redis gets copies of the values of spaces with `redis => true`. The
//! `lag` of the worker in `cache_workers` is the number of changes that Redis does not have yet.

use super::CLIENTS;
use super::contest::{BY_WORK, Contender, Contest, table};
use super::side::{Side, quiet};
use crate::data::{FIRST_KEY, KEYS, SAVED_BYTES, VALUE_BYTES};
use crate::drive::Load;
use crate::drive::wire::{Task, Until};
use crate::pace::Pace;
use crate::plan::Given;
use crate::report::notation::{count, rate, time, with_interval};
use crate::report::section::{Section, Table};
use crate::report::target::Target;
use crate::statistics::{Summary, percentile};
use pg_cache_testbed::Redis;
use postgres::{Client, Statement};
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How many entries per second are copied.
const COPIED: Target = Target { goal: 50_000.0, floor: 25_000.0 };
/// The sets per second with Redis, divided by those without it.
const SETS: Target = Target { goal: 0.9, floor: 0.8 };
/// Rounds in which values are copied as fast as possible. With fewer rounds, the median would have no interval of 95 % confidence.
const ROUNDS: usize = 6;
/// Sets of one transaction, if values are set as fast as possible. The journal names the keys of a transaction only if there are at
/// most 1000.
const BATCH: u64 = 500;
/// Tags that one transaction invalidates. The journal names the tags of a transaction only if there are at most 1000.
const TAGS: u64 = 1000;
/// The rate of sets at which the lag is measured, per second.
const RATE: u64 = 10_000;
/// The time between two transactions of these sets.
const PERIOD: Duration = Duration::from_millis(10);
/// The time between two looks at the lag. It must be neither a multiple nor a divisor of [`PERIOD`]: otherwise all looks would come
/// at the same point of a period.
const LOOK: Duration = Duration::from_millis(7);
/// The memory for values: it holds everything that one round sets.
const HOT_SIZE: &str = "512MB";
/// The memory for the journal of changes: it holds the records of everything that one round sets.
const JOURNAL_SIZE: &str = "64MB";
/// The name of the contender without Redis.
const OFF: &str = "without Redis";
/// The name of the contender with Redis.
const ON: &str = "with Redis";
/// The statement of both contenders.
const STATEMENT: &str = "SELECT cache_set($1, $2, '1 day', space => 'copied')";

/// Returns about how long the part takes.
pub fn estimate(pace: &Pace) -> Duration {
    // Each round of a burst copies about 40 000 values per second. The turns of the two contenders take 150 ms besides their
    // measured time, and starting and filling the servers takes about 12 s.
    Duration::from_secs(1) * (burst(pace) / 40_000) as u32 * (ROUNDS + 1) as u32
        + at_rate(pace)
        + (pace.write + Duration::from_millis(150)) * (2 * (pace.write_rounds + 1)) as u32
        + Duration::from_secs(12)
}

/// Returns how many values a round sets as fast as possible: fewer in a quick run.
fn burst(pace: &Pace) -> u64 {
    if pace.fillings < Pace::FULL.fillings { 40_000 } else { 200_000 }
}

/// Returns for how long values are set at a rate.
fn at_rate(pace: &Pace) -> Duration {
    (pace.at_rate / 6).max(Duration::from_secs(2))
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let copying = Copying::start();
    let version = copying.redis.info("redis_version").unwrap_or_default();
    let speeds = copying.speeds(pace);
    let lag = copying.lag(pace);
    let removals = copying.removals();
    let without = Side::start(&quiet().set("pg_cache.hot_size", HOT_SIZE));
    make_space(&without);
    let (contest, most_lag) = copying.contest(&without, pace);
    let resyncs = copying.resyncs();
    assert_eq!(resyncs, copying.resyncs_before, "the worker has followed the journal without a gap");
    let copied = Summary::of(&speeds).expect("there are rounds");
    let mut fast = Table::new(1, ["values are set as fast as possible", "per second"]);
    fast.rows.push(vec!["entries copied to Redis".into(), with_interval(copied, rate)]);
    let mut behind = Table::new(1, ["lag", "p50", "p99", "longest", "at the end"]);
    for (name, cells) in [
        ("changes that Redis does not have", lag.percentiles(&lag.changes).map(count)),
        ("age of the oldest of them", lag.percentiles(&lag.nanoseconds).map(time)),
    ] {
        behind.rows.push([name.into()].into_iter().chain(cells).collect());
    }
    let removed = Summary::of(&removals).expect("there are rounds");
    let mut tags = Table::new(1, ["tags that are invalidated in one transaction", "per second"]);
    tags.rows.push(vec!["tags whose values have left Redis".into(), with_interval(removed, rate)]);
    let goals = vec![
        COPIED.at_least(&format!("entries of {SAVED_BYTES} bytes copied to Redis per second"), copied, count),
        contest.goal(&SETS, "sets per second with Redis, of those without it"),
    ];
    let contests = [contest];
    Section {
        id: "outward-redis".into(),
        title: "Copies in Redis".into(),
        goals,
        tables: vec![fast, behind, tags, table(&contests, "sets", "× without Redis")],
        explained: vec![
            format!(
                "Redis {version} on the same machine, over a Unix socket, holds copies of the values of one space. Everything is set with \
                 `cache_set`, all operations writes: JSON strings under keys of 13 bytes, without tags. Commits wait for no disk. The worker, \
                 the clients, and Redis share the cores."
            ),
            format!(
                "First table: one client sets {} values of {SAVED_BYTES} bytes inside SQL as fast as it can, {BATCH} in each transaction. A round ends when the \
                 worker's lag is 0, which means that Redis has confirmed all of them. The rate is the number of values divided by the time from \
                 the first set on. The figure is the median of {ROUNDS} rounds with the same keys and other values. Afterwards, Redis had the \
                 last value of each key.",
                count(burst(pace) as f64)
            ),
            format!(
                "Second table: one client sets such values at a rate of {} per second ({} were reached) for {} s, in transactions {} ms apart. \
                 Another session looks at `lag` and `lag_time` in `cache_workers` each {} ms.",
                count(RATE as f64),
                count(lag.done),
                at_rate(pace).as_secs(),
                PERIOD.as_millis(),
                LOOK.as_millis()
            ),
            format!(
                "Third table: each of {} values has a tag of its own, all of which one transaction invalidates. A round ends when Redis has \
                 confirmed all removals. The figure is the median of {ROUNDS} rounds.",
                count(TAGS as f64)
            ),
            format!(
                "Fourth table: prepared statements over a Unix socket by {CLIENTS} clients, values of {VALUE_BYTES} bytes under random ones of {} \
                 keys. Each set commits. Two servers with the same settings, except that one has a Redis, take turns of {} ms in {} rounds. \
                 After each turn, the worker catches up before the next turn begins; it was at most {} changes behind. {BY_WORK}",
                count(KEYS as f64),
                pace.write.as_millis(),
                pace.write_rounds,
                count(most_lag as f64)
            ),
        ],
        figures: serde_json::json!({ "copied": speeds, "lag": lag, "removals": removals, "contests": contests, "most_lag": most_lag }),
    }
}

/// Creates the space whose values are copied if there is a Redis.
fn make_space(side: &Side) {
    side.execute("SELECT cache_create_space('copied', redis => true)");
}

/// A server that copies values to a Redis.
struct Copying {
    side: Side,
    redis: Redis,
    /// How often the worker had compared all keys in Redis with the cache when it was ready. It does so after it has lost track of
    /// the journal, which must not happen in this part.
    resyncs_before: u64,
}

impl Copying {
    /// Starts a Redis and a server that copies to it, and waits until the worker is ready.
    fn start() -> Self {
        let redis = Redis::start();
        let url = format!("unix://{}", redis.socket().display());
        let conf = quiet()
            .set("pg_cache.hot_size", HOT_SIZE)
            .set("pg_cache.journal_size", JOURNAL_SIZE)
            .set("pg_cache.redis_url", &url);
        let side = Side::start(&conf);
        make_space(&side);
        let mut copying = Self { side, redis, resyncs_before: 0 };
        copying.settle();
        copying.resyncs_before = copying.resyncs();
        copying
    }

    /// Returns how many changes Redis does not have yet. The worker must be connected.
    fn behind(&self) -> u64 {
        self.side.number("SELECT max(lag) FROM cache_workers WHERE kind = 'redis' AND connected")
    }

    /// Waits until the worker is connected and Redis has confirmed all changes.
    fn settle(&self) {
        let settled = "SELECT count(*) FROM cache_workers WHERE kind = 'redis' AND connected AND lag = 0";
        self.side.wait_until("Redis to have all changes", Duration::from_millis(5), || {
            self.side.number(settled) == 1
        });
    }

    fn resyncs(&self) -> u64 {
        self.side.number("SELECT max(resyncs) FROM cache_workers WHERE kind = 'redis'")
    }

    /// Copies values as fast as possible. Returns the entries per second, round by round.
    fn speeds(&self, pace: &Pace) -> Vec<f64> {
        let count = burst(pace);
        let mut setter = Setter::of(&self.side, count);
        let mut run = |_| {
            let started = Instant::now();
            (0..count / BATCH).for_each(|_| setter.set(BATCH));
            self.settle();
            count as f64 / started.elapsed().as_secs_f64()
        };
        // The first round touches the memory for the first time, and does not count.
        run(0);
        let speeds = (0..ROUNDS).map(run).collect();
        assert_eq!(self.copies_of(&setter.last_value(), count), count, "Redis has the last values");
        speeds
    }

    /// Invalidates tags, each of which one value has, in one transaction. Returns the tags per second, round by round.
    fn removals(&self) -> Vec<f64> {
        let run = |_| {
            self.side.execute(&format!(
                "SELECT count(cache_set('tagged ' || i, '1', '1 day', ARRAY['tag ' || i], 'copied')) FROM generate_series(1, {TAGS}) AS i"
            ));
            self.settle();
            let started = Instant::now();
            self.side.execute(&format!(
                "SELECT cache_invalidate_tags(array_agg('tag ' || i)) FROM generate_series(1, {TAGS}) AS i"
            ));
            self.settle();
            TAGS as f64 / started.elapsed().as_secs_f64()
        };
        (0..ROUNDS).map(run).collect()
    }

    /// Returns how many of the first `count` keys have this value in Redis.
    fn copies_of(&self, value: &str, count: u64) -> u64 {
        let script = "local copies = 0
             for i = 0, ARGV[1] - 1 do
                 if redis.call('GET', ARGV[2] .. string.format('1%012d', i)) == ARGV[3] then copies = copies + 1 end
             end
             return copies";
        let prefix = "pg_cache:postgres:copied:";
        let answer = self.redis.command(&["EVAL", script, "0", &count.to_string(), prefix, value]);
        answer.parse().unwrap_or_else(|_| panic!("Redis answers {answer}"))
    }

    /// Sets values at the rate on one thread, and looks at the lag on another.
    fn lag(&self, pace: &Pace) -> Lag {
        let mut setter = Setter::of(&self.side, burst(pace));
        let mut observer = self.side.cluster.connect("postgres");
        let look = "SELECT lag, coalesce(extract(epoch FROM lag_time), 0)::float8 FROM cache_workers WHERE kind = 'redis' AND connected";
        let look = observer.prepare(look).expect("it can be prepared");
        let (mut lag, is_over) = (Lag::default(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let setting = scope.spawn(|| {
                // A panic must end the other thread, too.
                let over = Over(&is_over);
                let done = setter.set_at(RATE, at_rate(pace));
                drop(over);
                done
            });
            while !is_over.load(Relaxed) {
                let row = observer.query_one(&look, &[]).expect("the worker is connected");
                lag.changes.push(row.get::<_, i64>(0) as f64);
                lag.nanoseconds.push(row.get::<_, f64>(1) * 1e9);
                std::thread::sleep(LOOK);
            }
            lag.done = setting.join().expect("the client has no errors");
        });
        self.settle();
        lag
    }

    /// Sets values on this server and on one without Redis, in turns. Also returns how many changes Redis did not have at the end
    /// of a turn, at most.
    fn contest(&self, without: &Side, pace: &Pace) -> (Contest, u64) {
        let load = Load { clients: CLIENTS, pipeline: 1, keys: 1 };
        let task = |seed| Task { statement: STATEMENT, given: Given::WrittenKeyAndJson, load, seed };
        let mut most_lag = 0;
        let contenders = vec![
            Contender::new(OFF, |round| without.run(task(round), Until::Over(pace.write))),
            Contender::new(ON, |round| {
                let turn = self.side.run(task(round), Until::Over(pace.write));
                most_lag = most_lag.max(self.behind());
                self.settle();
                turn
            }),
        ];
        let contest = Contest::hold("cache_set", pace.write_rounds, contenders);
        (contest, most_lag)
    }
}

/// Sets this flag when it is dropped.
struct Over<'f>(&'f AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// How far Redis was behind while values were set at a rate.
#[derive(Default, Serialize)]
struct Lag {
    /// The rate that was reached, in sets per second.
    done: f64,
    /// How many changes Redis did not have, at each look.
    changes: Vec<f64>,
    /// The age of the oldest of these changes, at each look.
    nanoseconds: Vec<f64>,
}

impl Lag {
    /// Returns the median, the 99th percentile and the greatest of the looks, and the last one. 0 without looks.
    fn percentiles(&self, looks: &[f64]) -> [f64; 4] {
        let mut sorted = looks.to_vec();
        sorted.sort_by(f64::total_cmp);
        let [median, most, longest] = [0.5, 0.99, 1.0].map(|part| percentile(&sorted, part).unwrap_or(0.0));
        [median, most, longest, looks.last().copied().unwrap_or(0.0)]
    }
}

/// A session that sets a range of keys again and again, from [`FIRST_KEY`] on, each time with another value.
struct Setter {
    session: Client,
    set: Statement,
    /// The number of keys.
    keys: u64,
    /// How many values were set so far.
    done: u64,
}

impl Setter {
    /// Opens a session. `keys` must be a multiple of the sets of each transaction.
    fn of(side: &Side, keys: u64) -> Self {
        let mut session = side.cluster.connect("postgres");
        let set =
            "SELECT count(*) FILTER (WHERE cache_set(i::text, $3::text::jsonb, '1 day', space => 'copied'))
                   FROM generate_series($1::bigint, $2::bigint - 1) AS i";
        let set = session.prepare(set).expect("it can be prepared");
        Self { session, set, keys, done: 0 }
    }

    /// Sets `count` values in one transaction. Panics if one of them is not stored.
    fn set(&mut self, count: u64) {
        let from = FIRST_KEY + self.done % self.keys;
        let (from, to) = (from.cast_signed(), (from + count).cast_signed());
        let row = self.session.query_one(&self.set, &[&from, &to, &value(self.done / self.keys)]);
        let stored: i64 = row.expect("values can be set").get(0);
        assert_eq!(stored.cast_unsigned(), count, "all values have room");
        self.done += count;
    }

    /// Sets values at a rate, in values per second, for `span`. Returns the rate that was reached.
    fn set_at(&mut self, rate: u64, span: Duration) -> f64 {
        let (started, before) = (Instant::now(), self.done);
        let periods = (span.as_secs_f64() / PERIOD.as_secs_f64()) as u32;
        let each = (rate as f64 * PERIOD.as_secs_f64()) as u64;
        for period in 1..=periods {
            self.set(each);
            std::thread::sleep((PERIOD * period).saturating_sub(started.elapsed()));
        }
        (self.done - before) as f64 / started.elapsed().as_secs_f64()
    }

    /// Returns the value of all keys, if the last walk through them is complete.
    fn last_value(&self) -> String {
        value((self.done - 1) / self.keys)
    }
}

/// Returns the JSON value that is set in a walk through the keys: a string of [`SAVED_BYTES`] bytes, with its quotes.
fn value(walk: u64) -> String {
    format!("\"{walk:0digits$}\"", digits = SAVED_BYTES - 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if two rounds set the same value, so that an old copy would count as the last one, or if a value has another length.
    #[test]
    fn each_walk_has_a_value_of_its_own() {
        assert_ne!(value(1), value(2));
        assert_eq!([1, 12].map(|walk| value(walk).len()), [SAVED_BYTES; 2]);
    }

    /// Fails if the median, the 99th percentile, the greatest or the last of the looks is wrong, or if a list without looks ends
    /// the part with a panic.
    #[test]
    fn a_lag_that_stays_is_seen() {
        let lag = Lag::default();
        assert_eq!(lag.percentiles(&[1.0, 9.0, 2.0]), [2.0, 9.0, 9.0, 2.0]);
        assert_eq!(lag.percentiles(&[]), [0.0; 4]);
    }

    /// Fails if a transaction would leave the range of keys, or if the journal would not name the keys of a transaction.
    #[test]
    fn transactions_fill_the_range_of_keys_exactly() {
        for pace in [Pace::FULL, Pace::QUICK] {
            assert!(burst(&pace).is_multiple_of(BATCH) && BATCH <= 1000);
            assert!(burst(&pace).is_multiple_of(RATE / 100));
        }
    }
}
