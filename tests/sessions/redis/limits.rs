//! The limits that hold while Redis is disturbed and after it is back: how long SQL commands take, how much memory the worker
//! needs, and how soon Redis has the values again. Other tests prove that no value is wrong, and this one how long things take.

use super::{
    PREFIX, await_all, differences, fill, is_connected, of_worker, presence, reload, start, writes_to,
};
use pg_cache_testbed::{Proxy, Redis, RedisConf, wait_at_most};
use postgres::Client;
use std::time::{Duration, Instant};

/// How long 99 % of the SQL commands may take. A command that waits for an answer of Redis takes twice as long:
/// `pg_cache.redis_timeout`.
const SLOWEST: Duration = Duration::from_millis(250);
/// How soon the worker must be connected after Redis is back.
const CONNECTED: Duration = Duration::from_secs(2);
/// How soon, in seconds, all keys in Redis must be right, and four fifths of the values must be there.
const RIGHT: u64 = 60;
/// How much more memory the worker may use while Redis takes no changes, in kilobytes.
const MEMORY: u64 = 50 << 10;

/// A disturbance of Redis.
struct Outage<'s> {
    name: &'static str,
    /// Whether the worker loses its connection, and connects again when Redis is back.
    disconnects: bool,
    begin: Box<dyn Fn(&mut Client) + 's>,
    end: Box<dyn Fn(&mut Client) + 's>,
}

/// Makes an outage that SQL has no part in.
fn outage<'s>(
    name: &'static str,
    disconnects: bool,
    begin: impl Fn() + 's,
    end: impl Fn() + 's,
) -> Outage<'s> {
    Outage { name, disconnects, begin: Box::new(move |_| begin()), end: Box::new(move |_| end()) }
}

/// Sets values and invalidates tags for a time, as fast as one session can. Returns the times of the commands, sorted.
fn times(session: &mut Client, span: Duration) -> Vec<Duration> {
    let change = "SELECT cache_set('m' || $1::int % 500, to_jsonb($1::int), tags => ARRAY['t' || $1::int % 50], space => 'r'),
                         cache_invalidate_tag('t' || ($1::int + 7) % 50), cache_get('f1', 'r')";
    let change = session.prepare(change).expect("it is prepared");
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < span {
        let call = Instant::now();
        session.execute(&change, &[&(times.len() as i32)]).expect("no command fails");
        times.push(call.elapsed());
    }
    times.sort();
    times
}

/// Returns the time within which this share of the commands has ended.
fn share(times: &[Duration], share: f64) -> Duration {
    times[((times.len() - 1) as f64 * share) as usize]
}

/// Returns the memory of the worker that is its own, in kilobytes.
fn memory(session: &mut Client) -> u64 {
    let Some(pid) = of_worker(session, "pid") else { return 0 };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let own = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    own.and_then(|own| own.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}

/// Redis is disturbed in each way while a session works: no command fails or waits, and the worker's memory is bounded. Afterwards,
/// the worker is soon connected, the values are soon right, and soon most of them are there.
#[test]
fn an_outage_costs_sql_nothing_and_is_soon_over() {
    let long = std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty());
    let redis = Redis::start_with(&RedisConf::tcp().user("worker", "secret", "~* &* +@all"));
    let other = Redis::start_with(&RedisConf::tcp());
    let proxy = Proxy::start(redis.port());
    let url = redis.url_at(&proxy.address());
    let (_cluster, mut session) = start(&writes_to(&url));
    (1..=6).for_each(|part| fill(&mut session, &format!("f{part}-"), 500, "1"));
    fill(&mut session, "f", 1, "1");
    await_all(&[&redis], &mut session);
    let outages = [
        outage("killed, restarts empty", true, || redis.kill(), || redis.restart()),
        outage("stands still", true, || redis.pause(), || redis.resume()),
        outage("network cut", true, || proxy.cut(), || proxy.restore()),
        outage(
            "slow network, 50 ms in each direction",
            false,
            || proxy.delay(Duration::from_millis(50)),
            || proxy.restore(),
        ),
        outage(
            "full",
            false,
            || _ = redis.command(&["CONFIG", "SET", "maxmemory", "1"]),
            || _ = redis.command(&["CONFIG", "SET", "maxmemory", "0"]),
        ),
        outage(
            "read-only replica",
            true,
            || _ = redis.command(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]),
            || _ = redis.command(&["REPLICAOF", "NO", "ONE"]),
        ),
        outage(
            "wrong password",
            true,
            || {
                redis.command(&["ACL", "SETUSER", "worker", "resetpass", ">another"]);
                redis.command(&["CLIENT", "KILL", "USER", "worker"]);
            },
            // The other tests' helper is the default user, which needs no password.
            || _ = redis.command(&["ACL", "SETUSER", "worker", "resetpass", ">secret"]),
        ),
        Outage {
            name: "a host that does not resolve",
            // The worker ends with the old URL, and another one starts: this is no return of Redis.
            disconnects: false,
            begin: Box::new(|session| {
                reload(session, "pg_cache.redis_url", "redis://no-such-host.invalid:6379")
            }),
            end: Box::new(|session| reload(session, "pg_cache.redis_url", &url)),
        },
    ];
    let mut reconnects = Vec::new();
    for (number, Outage { name, disconnects, begin, end }) in outages.into_iter().enumerate() {
        let without = times(&mut session, Duration::from_secs(1));
        await_right(&redis, &mut session);
        let before = memory(&mut session);
        begin(&mut session);
        // The first outage is so long that the worker's pauses between two attempts have reached their limit.
        let span = if long || number == 0 { Duration::from_secs(8) } else { Duration::from_secs(2) };
        let during = times(&mut session, span);
        let grown = memory(&mut session).saturating_sub(before);
        if disconnects {
            wait_at_most(RIGHT, "the worker to notice", || !is_connected(&mut session));
        }
        end(&mut session);
        let back = Instant::now();
        wait_at_most(RIGHT, "a connection", || is_connected(&mut session));
        let connected = back.elapsed();
        await_right(&redis, &mut session);
        let right = back.elapsed();
        println!(
            "{name}: p99 {:?} without and {:?} during, median {:?} and {:?}, {} commands; {grown} kB more; connected after \
             {connected:?}, right after {right:?}",
            share(&without, 0.99),
            share(&during, 0.99),
            share(&without, 0.5),
            share(&during, 0.5),
            during.len()
        );
        assert!(share(&during, 0.99) < SLOWEST, "{name}: p99 {:?}", share(&during, 0.99));
        assert!(grown < MEMORY, "{name}: the worker has {grown} kB more");
        assert!(right < Duration::from_secs(RIGHT), "{name}: {right:?}");
        reconnects.extend(disconnects.then_some(connected));
    }
    // The first time is that of the long outage. The median of the others leaves out a busy moment of the machine.
    assert!(reconnects[0] < CONNECTED * 2, "connected after {:?}", reconnects[0]);
    reconnects.sort();
    assert!(reconnects[reconnects.len() / 2] < CONNECTED, "connected after {reconnects:?}");
}

/// Waits until Redis has all changes, each key is right, and at least four fifths of the values are there.
fn await_right(redis: &Redis, session: &mut Client) {
    wait_at_most(RIGHT, "the values to be right", || {
        of_worker(session, "connected AND lag = 0").as_deref() == Some("true")
            && differences(&[redis], PREFIX, &mut [("postgres", session)]).is_empty()
            && {
                let (present, live) = presence(&[redis], session);
                present * 5 >= live * 4
            }
    });
}
