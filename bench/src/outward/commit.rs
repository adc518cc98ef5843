//! The part `outward-commit` of the report: measures what the *broadcast* costs writers that invalidate a tag with each commit,
//! while a session listens. With the broadcast (`pg_cache.notify`), a background worker sends the changes in the cache with NOTIFY.
//! For comparison, a trigger calls `pg_notify` in the transaction of the writer. A *contender* is one of the alternatives that a
//! measurement compares.

use super::contest::{BY_WORK, Contender, Contest, table};
use super::listener::Listener;
use super::side::{Side, quiet};
use super::switch::{Subject, notifications};
use super::{BROADCAST, CLIENTS};
use crate::data::{FIRST_KEY, KEYS};
use crate::pace::Pace;
use crate::plan::Given;
use crate::report::notation::count;
use crate::report::section::Section;
use crate::test_servers;
use pg_cache_testbed::Conf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The name of the contender without the broadcast.
const OFF: &str = "without the broadcast";
/// The name of the contender with the broadcast.
const ON: &str = "with the broadcast";
/// The name of the contender whose table has a hand-written trigger.
const TRIGGER: &str = "a trigger with pg_notify";
/// An update of a row, whose trigger invalidates the tag of the row.
const UPDATE: &str = "UPDATE cached SET balance = balance + 1 WHERE id = $1";
/// An update of a row of the table whose trigger calls `pg_notify`.
const UPDATE_BY_TRIGGER: &str = "UPDATE notified SET balance = balance + 1 WHERE id = $1";
/// An invalidation of a tag without an update.
const INVALIDATE: &str = "SELECT cache_invalidate_tag('account:' || $1)";
/// The time of a turn besides its work: the settings are changed, and the worker and the listener catch up.
const BETWEEN: Duration = Duration::from_millis(150);

/// Returns about how long the part takes.
pub fn estimate(pace: &Pace) -> Duration {
    // The contests have three, two and three contenders, with one round more than counts. The last contest, in which commits wait
    // for the disk, has fewer rounds. Starting the two servers and filling their tables takes about 12 s.
    let turns = 3 * (pace.read_rounds + 1) + 5 * (pace.write_rounds + 1);
    (pace.write + BETWEEN) * turns as u32 + Duration::from_secs(12)
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let quiet = Stage::make(&quiet());
    let update = quiet.updates("UPDATE with a trigger that invalidates", pace.write_rounds, pace.write);
    let alone = quiet.invalidations("invalidation alone", pace.write_rounds, pace.write);
    let notifications = quiet.end();
    let durable = Stage::make(&test_servers::conf());
    let durable_update = durable.updates("UPDATE that waits for the disk", pace.read_rounds, pace.write);
    durable.end();
    let what = "commits per second with the broadcast, of those without it";
    let goals = [&update, &alone].map(|contest| contest.goal(&BROADCAST, what));
    let contests = [update, alone, durable_update];
    Section {
        id: "outward-commit".into(),
        title: "Commits with the broadcast".into(),
        goals: goals.into(),
        tables: vec![table(&contests, "commits", "× without the broadcast")],
        explained: vec![
            format!(
                "Prepared statements over a Unix socket by {CLIENTS} clients, all operations writes, each in its own transaction. An UPDATE \
                 changes one of {} rows by primary key, and a trigger for each row, in PL/pgSQL, invalidates a tag of the row. `{TRIGGER}`: \
                 the same UPDATE on a table of the same kind, whose trigger calls `pg_notify` with the same name. `{}` is \
                 `cache_invalidate_tag` without a table. One session listens on the channels of all contenders, and reads at once.",
                count(KEYS as f64),
                contests[1].title(),
            ),
            format!(
                "`pg_cache.notify` is switched on and off by a reload, before each turn, on one server with the same sessions. In both states, \
                 commits write to the journal of changes, and the worker reads it. The contenders take turns of {} ms, {} rounds of them, and \
                 {} rounds where commits wait for the disk. In the first two contests, `synchronous_commit` and `fsync` are off, so no time for \
                 the disk hides the cost of the broadcast. The third contest has no goal, because the time of the disk varies more than that. The clients, the worker and the listener share the cores. {BY_WORK}",
                pace.write.as_millis(),
                pace.write_rounds,
                pace.read_rounds,
            ),
            format!(
                "The listener of the first two contests received {} notifications for {} that the worker sent, and each one of the trigger.",
                count(notifications.received as f64),
                count(notifications.sent as f64),
            ),
        ],
        figures: serde_json::json!({ "contests": contests, "sent": notifications.sent, "received": notifications.received }),
    }
}

/// A server with the tables, and a session that listens.
struct Stage {
    /// Must be dropped before the server.
    listener: Listener,
    side: Side,
    heard: Arc<Heard>,
}

/// How many notifications the listener has received from the worker, and from the trigger.
#[derive(Default)]
struct Heard {
    worker: AtomicU64,
    trigger: AtomicU64,
}

/// How many notifications the worker has sent, and how many of them the listener has received.
struct Notifications {
    sent: u64,
    received: u64,
}

impl Stage {
    /// Starts the server, fills its tables, and begins to listen.
    fn make(conf: &Conf) -> Self {
        let side = Side::start(conf);
        side.execute(&format!(
            "SET bench.first_key = '{FIRST_KEY}'; SET bench.keys = '{KEYS}'; {}",
            include_str!("tables.sql")
        ));
        side.execute("VACUUM (ANALYZE) cached, notified");
        side.execute("CHECKPOINT");
        let heard = Arc::new(Heard::default());
        let hears = Arc::clone(&heard);
        let listener = Listener::start(&side.cluster, &["pg_cache", "changes"], move |notification| {
            let count = if notification.channel() == "changes" { &hears.trigger } else { &hears.worker };
            count.fetch_add(1, Relaxed);
        });
        Self { listener, side, heard }
    }

    /// Returns a statement with the number of a row as its parameter. `changes` is whether it changes something that is broadcast:
    /// `pg_notify` in a trigger is not.
    fn subject<'s>(&'s self, statement: &'s str, changes: bool, span: Duration) -> Subject<'s> {
        Subject { side: &self.side, statement, given: Given::Row, changes, span }
    }

    /// Lets the writers update rows.
    fn updates(&self, title: &str, rounds: usize, span: Duration) -> Contest {
        let subject = self.subject(UPDATE, true, span);
        let by_trigger = self.subject(UPDATE_BY_TRIGGER, false, span);
        let contenders = vec![
            Contender::new(OFF, move |round| subject.turn(false, round)),
            Contender::new(ON, move |round| subject.turn(true, round)),
            Contender::new(TRIGGER, move |round| {
                let turn = by_trigger.turn(false, round);
                // The listener must not be behind when the next turn begins.
                self.await_trigger();
                turn
            }),
        ];
        Contest::hold(title, rounds, contenders)
    }

    /// Lets the writers invalidate tags without a table.
    fn invalidations(&self, title: &str, rounds: usize, span: Duration) -> Contest {
        let subject = self.subject(INVALIDATE, true, span);
        let contender = |name, on| Contender::new(name, move |round| subject.turn(on, round));
        Contest::hold(title, rounds, vec![contender(OFF, false), contender(ON, true)])
    }

    /// Waits until the listener has received a notification of each update of the table with the trigger.
    fn await_trigger(&self) {
        let updates = self.side.number("SELECT sum(balance)::bigint FROM notified");
        self.side.wait_until("the notifications of the trigger", Duration::from_millis(5), || {
            self.heard.trigger.load(Relaxed) == updates
        });
    }

    /// Ends the listener, after it has received everything.
    fn end(self) -> Notifications {
        let sent = notifications(&self.side);
        self.side.wait_until("the notifications of the worker", Duration::from_millis(5), || {
            self.heard.worker.load(Relaxed) >= sent
        });
        drop(self.listener);
        Notifications { sent, received: self.heard.worker.load(Relaxed) }
    }
}
