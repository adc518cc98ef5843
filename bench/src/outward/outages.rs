//! The part `outward-outages` of the report: measures how long commands of sessions take while the Redis that gets copies of their
//! values is disturbed, beside the time right before. Also measures how soon the Redis worker, the background worker that writes
//! the copies, is connected again, and how soon Redis has the values again.
//!
//! A *space* is a named cache; Redis gets copies of the values of spaces with `redis => true`. The `lag` of the worker in
//! `cache_workers` is the number of changes that Redis does not have yet.

use super::CLIENTS;
use super::side::{Side, quiet};
use crate::pace::Pace;
use crate::report::notation::{count, time};
use crate::report::section::{Goal, Section, Table};
use crate::statistics::percentile;
use pg_cache_testbed::{Proxy, Redis, RedisConf};
use postgres::Client;
use serde::Serialize;
use std::time::{Duration, Instant};

/// The values that Redis must have again after an outage.
const VALUES: u64 = 20_000;
/// The share of these values that Redis must have before an outage counts as over.
const SHARE: f64 = 0.8;
/// How soon the worker must be connected after Redis is back.
const CONNECTED: Duration = Duration::from_secs(2);
/// How soon Redis must have all changes and the share of the values after it is back.
const COMPLETE: Duration = Duration::from_secs(60);
/// The time of an outage besides its two measurements: the worker connects, and the values are written again.
const AFTERWARDS: Duration = Duration::from_secs(6);
/// The command of the sessions: a change of a value that is copied, and an invalidation of a tag that some values have.
const COMMAND: &str =
    "SELECT cache_set('m' || $1::bigint, '1', tags => ARRAY['t' || $1::bigint % 100], space => 'copied'),
                              cache_invalidate_tag('t' || ($1::bigint + 7) % 100)";

/// Returns about how long the part takes: five outages, and 8 s for the start.
pub fn estimate(pace: &Pace) -> Duration {
    (span(pace) * 2 + AFTERWARDS) * 5 + Duration::from_secs(8)
}

/// Returns how long commands are measured before an outage, and during it.
fn span(pace: &Pace) -> Duration {
    (pace.at_rate / 6).max(Duration::from_secs(1))
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let redis = Redis::start_with(&RedisConf::tcp());
    let version = redis.info("redis_version").unwrap_or_default();
    let proxy = Proxy::start(redis.port());
    let url = redis.url_at(&proxy.address());
    let side = Side::start(&quiet().set("pg_cache.hot_size", "128MB").set("pg_cache.redis_url", &url));
    side.execute("SELECT cache_create_space('copied', redis => true)");
    let values = format!(
        "SELECT count(cache_set('f' || i, '\"a value\"', '1 day', space => 'copied')) FROM generate_series(1, {VALUES}) AS i"
    );
    side.execute(&values);
    let stage = Stage { side, redis };
    stage.await_complete();
    let delay = Duration::from_millis(20);
    let (redis, proxy) = (&stage.redis, &proxy);
    let set_limit = |bytes: &str| _ = redis.command(&["CONFIG", "SET", "maxmemory", bytes]);
    let mut sessions: Vec<_> = (0..CLIENTS).map(|_| stage.side.cluster.connect("postgres")).collect();
    // The first commands of a session are slower, so these do not count.
    stage.commands(&mut sessions, span(pace) / 4);
    let mut measured =
        |name, begin: &dyn Fn(), end: &dyn Fn()| stage.outage(name, &mut sessions, span(pace), begin, end);
    let outages = [
        measured("killed, restarts empty", &|| redis.kill(), &|| redis.restart()),
        measured("stands still (SIGSTOP)", &|| redis.pause(), &|| redis.resume()),
        measured("network cut", &|| proxy.cut(), &|| proxy.restore()),
        measured("slow network, 20 ms in each direction", &|| proxy.delay(delay), &|| proxy.restore()),
        measured("full, noeviction", &|| set_limit("1"), &|| set_limit("0")),
    ];
    let mut table = Table::new(
        1,
        [
            "Redis",
            "p50 before",
            "p50 during",
            "p99 before",
            "p99 during",
            "connected after",
            "complete after",
        ],
    );
    for outage in &outages {
        let cells = [
            outage.before[0],
            outage.during[0],
            outage.before[1],
            outage.during[1],
            outage.connected,
            outage.complete,
        ];
        table.rows.push([outage.name.to_owned()].into_iter().chain(cells.map(time)).collect());
    }
    let longest = |of: fn(&Outage) -> f64| outages.iter().map(of).fold(0.0, f64::max);
    let goal = |wanted: &str, limit: Duration, found: f64| Goal {
        wanted: format!("{wanted} within {} s", limit.as_secs()),
        found: time(found),
        met: found < limit.as_secs_f64() * 1e9,
    };
    Section {
        id: "outward-outages".into(),
        title: "Commands while Redis is disturbed".into(),
        goals: vec![
            goal(
                "after the longest outage, the worker is connected",
                CONNECTED,
                longest(|outage| outage.connected),
            ),
            goal(
                "all changes and 80 % of the values are in Redis",
                COMPLETE,
                longest(|outage| outage.complete),
            ),
        ],
        tables: vec![table],
        explained: vec![format!(
            "Redis {version} on the same machine, over TCP and a proxy. {CLIENTS} sessions set values of a space that is copied, and invalidate a \
             tag with each of these commands, all operations writes, each in its own transaction, as prepared statements over a Unix socket. \
             They run for {} s before an outage, and for {} s during it, without a pause. Commits wait for no disk. The sessions, the worker and \
             Redis share the cores. The last two columns count from the moment at which Redis is back: until the worker is connected, and until \
             Redis has all changes and at least 80 % of {} values that were stored before. A worker that kept its connection is connected at \
             once.",
            span(pace).as_secs_f64(),
            span(pace).as_secs_f64(),
            count(VALUES as f64),
        )],
        figures: serde_json::json!({ "outages": outages }),
    }
}

/// The results of an outage. All times are in nanoseconds.
#[derive(Serialize)]
struct Outage {
    name: &'static str,
    /// The median and the 99th percentile of the commands before the outage.
    before: [f64; 2],
    /// The same during the outage.
    during: [f64; 2],
    /// From the return of Redis to the connection.
    connected: f64,
    /// From the return of Redis until it has everything.
    complete: f64,
}

/// A server that copies to a Redis.
struct Stage {
    side: Side,
    redis: Redis,
}

impl Stage {
    /// Measures commands before an outage and during it, and then the time until everything is as before.
    fn outage(
        &self,
        name: &'static str,
        sessions: &mut [Client],
        span: Duration,
        begin: &dyn Fn(),
        end: &dyn Fn(),
    ) -> Outage {
        let before = self.commands(sessions, span);
        self.await_complete();
        begin();
        let during = self.commands(sessions, span);
        end();
        let back = Instant::now();
        self.side.wait_until("a connection", Duration::from_millis(2), || self.is("connected"));
        let connected = back.elapsed();
        self.await_complete();
        let [connected, complete] = [connected, back.elapsed()].map(|time| time.as_secs_f64() * 1e9);
        Outage { name, before, during, connected, complete }
    }

    /// Lets the sessions send the command as fast as they can. Returns the median and the 99th percentile of the times. Panics if a
    /// command fails.
    fn commands(&self, sessions: &mut [Client], span: Duration) -> [f64; 2] {
        let started = Instant::now();
        let mut times: Vec<f64> = std::thread::scope(|scope| {
            let send = |(number, session): (usize, &mut Client)| {
                let command = session.prepare(COMMAND).expect("it can be prepared");
                let (mut times, mut argument) = (Vec::new(), number as i64 * 1_000);
                while started.elapsed() < span {
                    let call = Instant::now();
                    session.execute(&command, &[&(argument % 10_000)]).expect("no command fails");
                    times.push(call.elapsed().as_secs_f64() * 1e9);
                    argument += 1;
                }
                times
            };
            let threads: Vec<_> =
                sessions.iter_mut().enumerate().map(|session| scope.spawn(move || send(session))).collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().expect("no session fails"))
                .collect::<Vec<_>>()
        });
        times.sort_by(f64::total_cmp);
        [0.5, 0.99].map(|part| percentile(&times, part).unwrap_or(0.0))
    }

    /// Waits until Redis has all changes, and the share of the values. Panics if that takes too long.
    fn await_complete(&self) {
        self.side.wait_until("Redis to have everything", Duration::from_millis(20), || {
            self.is("connected AND lag = 0") && self.values() >= (VALUES as f64 * SHARE) as u64
        });
    }

    /// Returns whether a condition on the worker's row in `cache_workers` holds.
    fn is(&self, condition: &str) -> bool {
        let query = format!("SELECT count(*) FROM cache_workers WHERE kind = 'redis' AND {condition}");
        self.side.number(&query) == 1
    }

    /// Returns how many keys Redis has. Nearly all are values: the other values and the sets of tags are few.
    fn values(&self) -> u64 {
        self.redis.command(&["DBSIZE"]).parse().unwrap_or(0)
    }
}
