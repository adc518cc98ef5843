//! The part `tables-save` of the report: measures how fast the *saver*, a background worker, saves values in tables: all values of
//! a full memory, and those that will be evicted soon. Also measures how many of the evicted values it has saved in time. The saver
//! works in *passes*. In each pass, it saves the values that are due.

use super::side::{BATCH, HOT_SIZE, Side, TABLE_BYTES, with_tables};
use super::{SAVED_BYTES, Target};
use crate::data::FIRST_KEY;
use crate::pace::Pace;
use crate::report::notation::{count, rate, with_interval};
use crate::report::section::{Section, Table};
use crate::statistics::Summary;
use postgres::Client;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How many values per second are saved.
const SAVED: Target = Target { goal: 300_000.0, floor: 100_000.0 };
/// The share of the values in memory that are saved when the measurement of [`backlog`] ends. The rest may have expired or been
/// evicted.
const BACKLOG: f64 = 0.9;
/// How often [`backlog`] looks how many values are saved.
const LOOK: Duration = Duration::from_millis(10);
/// The rates at which values are set, per second.
const RATES: [u64; 3] = [1000, 10_000, 50_000];
/// How often the share of the values that were saved in time is measured at each rate.
const ROUNDS: usize = 3;
/// Sets of one transaction, if values are set as fast as possible.
const SETS: u64 = 1000;
/// The time between two transactions, if values are set at a rate.
const PERIOD: Duration = Duration::from_millis(10);

/// Returns about how long the part takes.
pub fn estimate(pace: &Pace) -> Duration {
    // A round at a rate takes 4 s besides the time in which values are set. Starting and filling the servers takes about 20 s, and
    // filling the memory and saving it about 15 s.
    span(pace) * pace.fillings as u32
        + Duration::from_secs(15) * backlogs(pace) as u32
        + (at_rate(pace) + Duration::from_secs(4)) * (ROUNDS * RATES.len()) as u32
        + Duration::from_secs(20)
}

/// Returns the duration of one round in which values are set as fast as possible. It is long enough for many passes of the saver.
fn span(pace: &Pace) -> Duration {
    pace.read * 4
}

/// Returns for how long values are set at a rate. It is long enough that, at the highest rate, more values are set than the queue
/// of new entries (`src/core/tier/queues.rs`) has room for.
fn at_rate(pace: &Pace) -> Duration {
    (pace.at_rate / 10).max(Duration::from_secs(2))
}

/// Returns how often [`backlog`] is measured.
fn backlogs(pace: &Pace) -> usize {
    pace.fillings.min(ROUNDS)
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let backlog = backlog(pace);
    let speeds = Speeds::measure(pace);
    let shares = Share::measure(pace);
    let summary = |samples: &[f64]| Summary::of(samples).expect("there are rounds");
    let saved = summary(&backlog);
    let mut fast = Table::new(1, ["", "per second"]);
    for (name, samples) in [
        ("values saved of a full memory", &backlog),
        ("sets as fast as possible, 1 client in SQL", &speeds.set),
        ("values saved meanwhile", &speeds.saved),
        ("the same, by the worker's processor time", &speeds.saved_of_work),
    ] {
        fast.rows.push(vec![name.into(), with_interval(summary(samples), rate)]);
    }
    let mut table =
        Table::new(1, ["sets per second, wanted", "done", "values evicted", "of these, saved in time"]);
    for share in &shares {
        let percent = |share: f64| format!("{:.2} %", share * 100.0);
        table.rows.push(vec![
            count(share.rate as f64),
            count(share.done),
            count(share.evicted as f64),
            with_interval(summary(&share.in_time), percent),
        ]);
    }
    Section {
        id: "tables-save".into(),
        title: "Saving values in tables".into(),
        goals: vec![SAVED.at_least(
            &format!("values of {SAVED_BYTES} bytes in a memory without room, saved per second"),
            saved,
            count,
        )],
        tables: vec![fast, table],
        explained: vec![
            format!(
                "The memory of {HOT_SIZE} is full of values of {SAVED_BYTES} bytes with keys of 13 bytes. For the first row, none of them is \
                 saved yet, and no session does anything while the worker saves {:.0} % of them: the median of {} rounds. For the other \
                 rows, one client sets new keys inside SQL, all operations writes, as fast as it can, {SETS} in each transaction, and \
                 `pg_cache.save_rate` is 0, so that the worker saves only what is about to be evicted. These figures are medians of {} \
                 rounds of {} s. The worker and the client share the machine's cores.",
                BACKLOG * 100.0,
                backlogs(pace),
                pace.fillings,
                span(pace).as_secs_f64()
            ),
            format!(
                "For the second table, the client sets values at a rate for {} s, in transactions {} ms apart, and the saver has its \
                 default settings. Afterwards each key is looked up without a read: an evicted value that is in a table was saved in time. \
                 The shares are medians of {ROUNDS} rounds, with the least and the greatest.",
                at_rate(pace).as_secs(),
                PERIOD.as_millis()
            ),
        ],
        figures: serde_json::json!({ "backlog": backlog, "speeds": speeds, "shares": shares }),
    }
}

/// Fills the memory while nothing is saved, and then lets the worker save as fast as it can. Returns the values that it saves per
/// second, round by round.
fn backlog(pace: &Pace) -> Vec<f64> {
    let conf = with_tables(HOT_SIZE, TABLE_BYTES);
    let side = Side::start(&conf.set("pg_cache.table_size", "0").set("pg_cache.save_rate", "1000000"));
    let table_size = |kilobytes: u64| {
        side.execute(&format!("ALTER SYSTEM SET pg_cache.table_size = '{kilobytes}kB'"));
        side.execute("SELECT pg_reload_conf()");
    };
    let wait_for = |saved: &dyn Fn(u64) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let now = side.saved();
            if saved(now) {
                return (Instant::now(), now);
            }
            assert!(Instant::now() < deadline, "{now} values are saved");
            std::thread::sleep(LOOK);
        }
    };
    let end = side.fill_memory("default", FIRST_KEY);
    let round = |round| {
        if round > 0 {
            side.execute("SELECT cache_flush('*')");
            side.fill("default", FIRST_KEY, end - FIRST_KEY, SAVED_BYTES, false);
        }
        let present = side.number("SELECT live_entries::bigint FROM cache_stats WHERE space = 'default'");
        table_size(TABLE_BYTES >> 10);
        let (began, before) = wait_for(&|saved| saved > 0);
        let (ended, after) = wait_for(&|saved| saved as f64 >= present as f64 * BACKLOG);
        table_size(0);
        wait_for(&|saved| saved == 0);
        (after - before) as f64 / (ended - began).as_secs_f64()
    };
    (0..backlogs(pace)).map(round).collect()
}

/// Values per second, round by round.
#[derive(Default, serde::Serialize)]
struct Speeds {
    /// Values that the client has set. The client measures its own rounds, so their number may differ from that of the other lists.
    set: Vec<f64>,
    /// Values that the worker has saved.
    saved: Vec<f64>,
    /// Values that the worker has saved, per second of its processor time.
    saved_of_work: Vec<f64>,
}

/// The worker's counts so far.
struct Done {
    at: Instant,
    /// How many values it has saved.
    saved: u64,
    /// Its processor time.
    work: Duration,
}

impl Done {
    /// Waits until the worker ends a pass that has saved values, and returns its counts, which it updates after each pass. Panics
    /// if the worker saves nothing for a minute.
    fn at_end_of_pass(side: &Side) -> Self {
        let saved = || side.number("SELECT coalesce(sum(saved), 0)::bigint FROM cache_workers");
        let (before, deadline) = (saved(), Instant::now() + Duration::from_secs(60));
        loop {
            let now = saved();
            if now != before {
                return Self { at: Instant::now(), saved: now, work: processor_time(worker(side)) };
            }
            assert!(Instant::now() < deadline, "the worker saves nothing");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Returns the process ID of the worker, the only one on a server with one database in use.
fn worker(side: &Side) -> u64 {
    side.number("SELECT max(pid)::bigint FROM cache_workers WHERE kind = 'worker'")
}

/// Returns the processor time of a process, in user and kernel mode. The kernel shows it in ticks of 10 ms. 0 if there is no such
/// process.
fn processor_time(process: u64) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name of the process may contain spaces. The fields behind it begin with the third. 14 and 15 are the times in user and
    // kernel mode.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = |number: usize| -> u64 {
        fields.split_whitespace().nth(number - 3).and_then(|field| field.parse().ok()).unwrap_or(0)
    };
    Duration::from_millis(10) * (ticks(14) + ticks(15)) as u32
}

impl Speeds {
    /// Sets values as fast as possible on one thread, and reads the worker's counts on another.
    fn measure(pace: &Pace) -> Self {
        let side = Side::start(&with_tables(HOT_SIZE, TABLE_BYTES).set("pg_cache.save_rate", "0"));
        let first = side.fill_memory("default", FIRST_KEY);
        let (mut client, stop) = (Setter::of(&side, first), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let setting = scope.spawn(|| {
                let (mut set, mut begun) = (Vec::new(), Instant::now());
                let mut before = client.next;
                while !stop.load(Ordering::Relaxed) {
                    client.set(SETS);
                    if begun.elapsed() >= span(pace) {
                        set.push((client.next - before) as f64 / begun.elapsed().as_secs_f64());
                        (before, begun) = (client.next, Instant::now());
                    }
                }
                set
            });
            let mut speeds = Self::default();
            let mut before = Done::at_end_of_pass(&side);
            for _ in 0..pace.fillings {
                std::thread::sleep(span(pace));
                let now = Done::at_end_of_pass(&side);
                let saved = (now.saved - before.saved) as f64;
                speeds.saved.push(saved / (now.at - before.at).as_secs_f64());
                speeds.saved_of_work.push(saved / (now.work - before.work).as_secs_f64().max(0.01));
                before = now;
            }
            stop.store(true, Ordering::Relaxed);
            speeds.set = setting.join().expect("the client has no errors");
            speeds
        })
    }
}

/// A session that sets one new key after the other.
struct Setter {
    session: Client,
    set: postgres::Statement,
    /// The key that is set next.
    next: u64,
}

impl Setter {
    /// Opens a session that sets the keys from `next` on.
    fn of(side: &Side, next: u64) -> Self {
        let mut session = side.cluster.connect("postgres");
        let set = format!(
            "SELECT count(*) FILTER (WHERE cache_set_text(i::text, '{}', '1 day'))
             FROM generate_series($1::bigint, $2::bigint - 1) AS i",
            "x".repeat(SAVED_BYTES)
        );
        let set = session.prepare(&set).expect("it can be prepared");
        Self { session, set, next }
    }

    /// Sets `count` values in one transaction. Panics if one of them is not stored.
    fn set(&mut self, count: u64) {
        let (from, to) = (self.next, self.next + count);
        let row = self.session.query_one(&self.set, &[&from.cast_signed(), &to.cast_signed()]);
        let stored: i64 = row.expect("values can be set").get(0);
        assert_eq!(stored.cast_unsigned(), count, "all values have room");
        self.next = to;
    }

    /// Sets values at a rate, in values per second, for `span`. Returns the rate that was reached.
    fn set_at(&mut self, rate: u64, span: Duration) -> f64 {
        let (started, before) = (Instant::now(), self.next);
        let periods = (span.as_secs_f64() / PERIOD.as_secs_f64()) as u32;
        for period in 1..=periods {
            let due = (rate as f64 * (PERIOD * period).as_secs_f64()) as u64;
            self.set(due - (self.next - before));
            std::thread::sleep((PERIOD * period).saturating_sub(started.elapsed()));
        }
        (self.next - before) as f64 / started.elapsed().as_secs_f64()
    }
}

/// The evicted values while values are set at one rate.
#[derive(serde::Serialize)]
struct Share {
    /// The wanted rate, in sets per second.
    rate: u64,
    /// The median of the rates that were reached, in sets per second.
    done: f64,
    /// The values that were evicted in all rounds.
    evicted: u64,
    /// The share of the evicted values that was saved in time, round by round.
    in_time: Vec<f64>,
}

impl Share {
    /// Measures all rates on one server, one after the other.
    fn measure(pace: &Pace) -> Vec<Self> {
        // No table may be emptied meanwhile: its values would count as not saved.
        let side = Side::start(&with_tables(HOT_SIZE, 2 * TABLE_BYTES));
        let mut client = Setter::of(&side, side.fill_memory("default", FIRST_KEY));
        let look = |next: u64| side.places("default", FIRST_KEY, next, 1);
        // In steady use, the older values are saved already. The measurement waits for that state: one second in which the saver
        // saves less than a hundredth of a batch ([`BATCH`]).
        let mut before = side.saved();
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = side.saved();
            if now > 0 && now < before + BATCH / 100 {
                break;
            }
            before = now;
        }
        let mut before = look(client.next);
        let of_rate = |rate: u64| {
            let (mut evicted, mut done, mut in_time) = (0, Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                done.push(client.set_at(rate, at_rate(pace)));
                let now = look(client.next);
                let (saved, lost) = (now.table - before.table, now.gone - before.gone);
                evicted += saved + lost;
                in_time.push(saved as f64 / (saved + lost) as f64);
                before = now;
            }
            let done = Summary::of(&done).expect("there are rounds").median;
            Self { rate, done, evicted, in_time }
        };
        RATES.into_iter().map(of_rate).collect()
    }
}
