//! The part `day` of the report, a day with cached dashboards: sessions ask for dashboards of the sample shop (`examples/shop.sql`)
//! while orders arrive. The part compares five ways to serve the dashboards, called *columns* ([`mod@column`]). Each column runs
//! alone, in *periods* of its own ([`period`]): a warm-up, and then a time in which each request is noted.
//!
//! [`dashboards`] draws the queries, [`orders`] writes the orders and tells how old an answer is, and [`flight`] measures what
//! single flight (one session computes a result, the others wait for it) costs. The chart is `report/day.rs`.

mod column;
mod dashboards;
mod flight;
mod orders;
mod period;

use crate::pace::Pace;
use crate::queries::shop;
use crate::queries::stage::{self, Stage};
use crate::report::day::{Day, Served};
use crate::report::notation::{count, digits, time};
use crate::report::section::{Goal, Section, Table};
use crate::rounds::turns;
use crate::statistics::percentile;
use column::Column;
use dashboards::{Dashboard, Subject};
use orders::{CUSTOMER_EVERY, Log, PRODUCT_EVERY};
use period::{Outcome, Plan, Sessions};
use pg_cache_testbed::Server;
use std::process::Command;
use std::time::Duration;

/// How old an answer may be in a real day, in the columns whose answers may be outdated. Each of them uses the time in its own way:
/// as `stale_ok`, the argument of `cache_query` with which a call accepts rows that were right at some moment within this time; as
/// the time to live of a row in the hand-written cache table; and as the time from one refresh of the materialized views to the
/// next. The benchmark shortens the time ([`Choice::scale`]).
const FIVE_MINUTES: Duration = Duration::from_secs(300);
/// The number of sessions that ask for dashboards.
const SESSIONS: u32 = 100;
/// The seed of all random choices.
const SEED: u64 = 20_260_101;
/// The number of orders that are committed per second.
const ORDERS_PER_SECOND: u32 = 30;
/// The share of all cores that the dashboards need without a cache. With a larger share, the benchmark would measure how long
/// requests queue.
const LOAD: f64 = 0.5;

/// A goal of `stale_ok`: the least hit ratio.
const HITS_MIN: f64 = 0.90;
/// A goal of `stale_ok`: the least share of the runs of queries that it saves.
const SAVED_MIN: f64 = 0.95;
/// A goal of `stale_ok`: the greatest 95th percentile of the times, in nanoseconds.
const P95_MAX: f64 = 200e6;

/// The numbers that the user may set by environment variables.
struct Choice {
    /// The factor by which five minutes are shortened.
    scale: f64,
    /// The number of sessions that ask for dashboards.
    sessions: u32,
    /// The seed of all random choices.
    seed: u64,
}

impl Choice {
    /// Reads the variables. The default of the scale depends on the pace. Panics if a variable is not a number.
    fn read(pace: &Pace) -> Self {
        Self {
            scale: variable("DAY_SCALE").unwrap_or(pace.day_scale),
            sessions: variable("DAY_SESSIONS").unwrap_or(SESSIONS),
            seed: variable("DAY_SEED").unwrap_or(SEED),
        }
    }

    /// Returns the time that stands for [`FIVE_MINUTES`].
    fn fresh_for(&self) -> Duration {
        FIVE_MINUTES.div_f64(self.scale)
    }
}

/// Returns the number in an environment variable, or `None` if it is not set.
fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// Returns about how long the part takes.
pub fn estimate(pace: &Pace) -> Duration {
    let fresh_for = Choice::read(pace).fresh_for();
    let rounds = pace.day_rounds as u32;
    // The numbers count quarters of `fresh_for`. An exact column mostly takes 2 quarters for the warm-up, and then 2 in which
    // requests are noted. Another column, whose results expire, mostly takes 5 and then 4 (`Plan::warm_up` and `Plan::span`).
    let periods = Column::ALL.map(|column| fresh_for * if column.is_exact() { 4 } else { 9 } / 4);
    periods.iter().sum::<Duration>() * rounds + flight::estimate(pace) + Duration::from_secs(15)
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    if !has_statistics() {
        return Section {
            explained: vec!["Left out: this PostgreSQL comes without pg_stat_statements, which counts the runs of the queries.".into()],
            ..section()
        };
    }
    let choice = Choice::read(pace);
    let stage = Stage::start_with(
        &stage::conf()
            .set("shared_preload_libraries", "pg_cache, pg_stat_statements")
            .set("pg_stat_statements.track", "all")
            .set("pg_stat_statements.max", "10000")
            .set("max_parallel_workers_per_gather", "0")
            .set("max_connections", &(choice.sessions + 20).to_string()),
    );
    shop::fill(&stage, pace.day_orders);
    stage.execute("CREATE EXTENSION pg_stat_statements; CREATE INDEX ON orders (ordered_at); ANALYZE");
    let dashboards = dashboards::draw(&mut stage.session(), choice.seed, pace.day_dashboards);
    let mean_cost = mean_cost(&dashboards);
    eprintln!("    {} dashboards, {} ms on average", dashboards.len(), digits(mean_cost.as_secs_f64() * 1e3));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let plan = Plan {
        dashboards: &dashboards,
        think: think(choice.sessions, cores, mean_cost),
        orders_per_second: ORDERS_PER_SECOND,
        fresh_for: choice.fresh_for(),
        seed: choice.seed,
    };
    let connect = || stage.cluster.connect("postgres");
    let mut sessions = Sessions {
        readers: (0..choice.sessions).map(|_| connect()).collect(),
        writer: connect(),
        refresher: connect(),
    };
    let log = Log::begin(&mut stage.session());
    let mut outcomes = Column::ALL.map(|_| Outcome::default());
    for round in 0..pace.day_rounds {
        for place in turns(round, Column::ALL.len()) {
            let column = Column::ALL[place];
            let number = (round * Column::ALL.len() + place) as u64;
            let outcome = plan.run(&stage, &mut sessions, &log, column, number);
            check(column, &outcome);
            eprintln!("    {}, {}: {} requests", column.name(), column.detail(), outcome.times.len());
            outcomes[place].add(outcome);
        }
    }
    drop(sessions);
    let flight = flight::measure(&stage, pace);

    let served: Vec<Served> = Column::ALL
        .iter()
        .zip(outcomes.iter_mut())
        .map(|(column, outcome)| served(*column, outcome))
        .collect();
    let day = Day {
        scale: choice.scale,
        sessions: choice.sessions,
        dashboards: dashboards.len(),
        orders_per_second: ORDERS_PER_SECOND,
        served,
    };
    let mut goals = goals(&day);
    goals.extend(flight.goals());
    Section {
        goals,
        tables: vec![table(&day), flight.table()],
        explained: explained(pace, &choice, &plan, &outcomes, mean_cost, cores),
        figures: serde_json::json!({
            "day": day, "hit": flight.hit, "miss": flight.miss, "seed": choice.seed,
            "think_seconds": plan.think.as_secs_f64(), "mean_cost_seconds": mean_cost.as_secs_f64(),
            "costs_seconds": dashboards.iter().map(|one| one.cost.as_secs_f64()).collect::<Vec<_>>(),
        }),
        ..section()
    }
}

/// Returns the section without results.
fn section() -> Section {
    Section {
        id: "day".into(),
        title: "A day with dashboards and orders".into(),
        goals: Vec::new(),
        tables: Vec::new(),
        explained: Vec::new(),
        figures: serde_json::Value::Null,
    }
}

/// Returns whether the installation under test has pg_stat_statements.
fn has_statistics() -> bool {
    let pg_config = Server::from_env().program("pg_config");
    let output = Command::new(pg_config).arg("--pkglibdir").output().expect("pg_config runs");
    let directory = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    std::path::Path::new(&directory).join("pg_stat_statements.so").exists()
}

/// Panics if a period cannot be right: if an exact column has returned an outdated answer, or if the clients and the server do not
/// agree on the runs.
fn check(column: Column, outcome: &Outcome) {
    let name = format!("{}, {}", column.name(), column.detail());
    assert!(!outcome.times.is_empty(), "{name}: no session has asked");
    let outdated = outcome.outdated();
    assert!(
        !column.is_exact() || outdated == 0,
        "{name}: {outdated} of {} answers missed a commit that was acknowledged before their request",
        outcome.ages.len()
    );
    // Some requests at the beginning and at the end of the period are counted by the clients only, or by the server only.
    let (computed, executed) = (outcome.computed as f64, outcome.executed as f64);
    let slack = 50.0 + computed / 20.0;
    assert!(executed > computed - slack, "{name}: {computed} answers were computed, by {executed} runs");
    // The refreshes of views are runs without a request.
    let others = column == Column::Views || executed < computed + slack;
    assert!(others, "{name}: {executed} runs for {computed} computed answers");
}

/// Returns the mean time of a request without a cache. The dashboards are in the order of their popularity. By Zipf's law with skew
/// 1.0, by which `period.rs` draws the requests, the n-th dashboard is requested 1/n times as often as the first one. So 1/n is the
/// weight of its time.
fn mean_cost(dashboards: &[Dashboard]) -> Duration {
    let weights = (1..=dashboards.len()).map(|rank| 1.0 / rank as f64);
    let sum: f64 = weights.clone().sum();
    let cost: f64 = weights.zip(dashboards).map(|(weight, one)| weight * one.cost.as_secs_f64()).sum();
    Duration::from_secs_f64(cost / sum)
}

/// Returns the mean pause of a session between two requests, so that all sessions together need [`LOAD`] of the cores without a
/// cache.
fn think(sessions: u32, cores: usize, mean_cost: Duration) -> Duration {
    let between = mean_cost.mul_f64(f64::from(sessions) / (LOAD * cores as f64));
    between.saturating_sub(mean_cost)
}

/// Computes the results of a column. Sorts the samples.
fn served(column: Column, outcome: &mut Outcome) -> Served {
    outcome.times.sort_unstable();
    outcome.ages.sort_unstable();
    let part = |sorted: &[u64], part| percentile(sorted, part).unwrap_or(0) as f64;
    let requests = outcome.times.len() as f64;
    Served {
        name: column.name().into(),
        detail: column.detail().into(),
        is_cache_query: matches!(column, Column::Exact | Column::StaleOk),
        requests: outcome.times.len() as u64,
        per_second: requests / outcome.seconds,
        hits: outcome.stored as f64 / requests,
        waited: outcome.waited as f64 / requests,
        executed: outcome.executed,
        executed_per_thousand: outcome.executed as f64 / requests * 1000.0,
        p50: part(&outcome.times, 0.5),
        p95: part(&outcome.times, 0.95),
        p99: part(&outcome.times, 0.99),
        outdated: outcome.outdated(),
        age_p50: part(&outcome.ages, 0.5),
        age_max: part(&outcome.ages, 1.0),
        warm_up_seconds: outcome.warm_up_seconds,
        is_level: !outcome.unlevel,
    }
}

/// Returns the goals of `cache_query`.
fn goals(day: &Day) -> Vec<Goal> {
    let of = |column: Column| day.served.iter().find(|served| served.detail == column.detail());
    let [Some(uncached), Some(exact), Some(stale_ok)] =
        [Column::NoCache, Column::Exact, Column::StaleOk].map(of)
    else {
        return Vec::new();
    };
    let saved = 1.0 - stale_ok.executed_per_thousand / uncached.executed_per_thousand;
    let fresh_for = FIVE_MINUTES.as_nanos() as f64 / day.scale;
    let goal = |wanted: String, found: String, met| Goal { wanted, found, met };
    vec![
        goal(
            format!("stale_ok: hit ratio, at least {}", percent(HITS_MIN)),
            percent(stale_ok.hits),
            stale_ok.hits >= HITS_MIN,
        ),
        goal(
            format!("stale_ok: fewer runs for the same requests, by at least {}", percent(SAVED_MIN)),
            percent(saved),
            saved >= SAVED_MIN,
        ),
        goal(
            format!("stale_ok: 95th percentile, below {}", time(P95_MAX)),
            time(stale_ok.p95),
            stale_ok.p95 < P95_MAX,
        ),
        goal(
            format!("stale_ok: outdated for, at most {}", seconds(fresh_for)),
            seconds(stale_ok.age_max),
            stale_ok.age_max <= fresh_for,
        ),
        goal(
            "exact: outdated answers, none".into(),
            format!("{} of {}", exact.outdated, count(exact.requests as f64)),
            exact.outdated == 0,
        ),
    ]
}

fn table(day: &Day) -> Table {
    let head = [
        "",
        "hits",
        "waited",
        "runs",
        "runs per 1000",
        "requests/s",
        "p50",
        "p95",
        "p99",
        "outdated",
        "outdated for, p50",
        "at most",
    ];
    let mut table = Table::new(1, head);
    for served in &day.served {
        table.rows.push(vec![
            format!("{}, {}", served.name, served.detail),
            percent(served.hits),
            percent(served.waited),
            served.executed.to_string(),
            digits(served.executed_per_thousand),
            digits(served.per_second),
            time(served.p50),
            time(served.p95),
            time(served.p99),
            percent(served.outdated as f64 / served.requests as f64),
            seconds(served.age_p50),
            seconds(served.age_max),
        ]);
    }
    table
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn seconds(nanoseconds: f64) -> String {
    format!("{:.1} s", nanoseconds / 1e9)
}

/// Returns how the part was measured.
fn explained(
    pace: &Pace,
    choice: &Choice,
    plan: &Plan<'_>,
    outcomes: &[Outcome],
    mean_cost: Duration,
    cores: usize,
) -> Vec<String> {
    let mut costs: Vec<u64> = plan.dashboards.iter().map(|one| one.cost.as_nanos() as u64).collect();
    costs.sort_unstable();
    let [median, most] = [0.5, 1.0].map(|part| time(percentile(&costs, part).unwrap_or(0) as f64));
    let about = |subject| plan.dashboards.iter().filter(|one| one.subject == subject).count();
    let [orders, customers, products] = Subject::ALL.map(about);
    let rate = outcomes.iter().map(|outcome| outcome.orders as f64).sum::<f64>()
        / outcomes.iter().map(|outcome| outcome.order_seconds).sum::<f64>();
    let behind = outcomes.iter().map(|outcome| outcome.most_behind).max().unwrap_or_default();
    let unlevel: Vec<&str> = Column::ALL
        .iter()
        .zip(outcomes)
        .filter(|(_, outcome)| outcome.unlevel)
        .map(|(column, _)| column.detail())
        .collect();
    let unlevel = match &unlevel[..] {
        [] => "The hit ratio of each column was level at the end of its warm-up.".to_owned(),
        _ => format!("The hit ratio was not level at the end of the warm-up: {}.", unlevel.join("; ")),
    };
    let fresh_for = plan.fresh_for.as_secs_f64();
    vec![
        format!(
            "{} dashboards over the tables of a shop with {} orders: {orders} read orders, {customers} only customers, {products} only \
             products. Without a cache, they take {} to {most}, half of them at most {median}; a request takes {} on average, all by the processor time of the session. Requests \
             choose a dashboard by Zipf's law with skew 1.0, seed {}. Queries do not run in parallel.",
            plan.dashboards.len(),
            count(f64::from(pace.day_orders)),
            time(costs.first().map_or(0.0, |least| *least as f64)),
            time(mean_cost.as_nanos() as f64),
            choice.seed,
        ),
        format!(
            "{} sessions ask, wait for the answer, and pause for {} ms on average, so that the requests need {} of the {cores} cores without \
             a cache. Server and clients share the cores. Another session commits {} orders per second (due: {ORDERS_PER_SECOND}; a commit \
             was late by at most {} ms). Each order adds a row to `orders` and two to four to `order_items`; one in {CUSTOMER_EVERY} adds a \
             customer, and one in {PRODUCT_EVERY} a product.",
            choice.sessions,
            plan.think.as_millis(),
            percent(LOAD),
            digits(rate),
            behind.as_millis(),
        ),
        // Only these times are shortened. The sessions ask as often as in a real day, so a stored result gets fewer requests before
        // it expires.
        format!(
            "**Five minutes are shortened to {} s** (DAY_SCALE = {}): `stale_ok`, the time to live of the cache table, and the pause \
             between refreshes. The same requests in five minutes would give more hits. Each column has a warm-up until two windows of \
             {} s differ by at most 3 points in their hit ratio, at least {} s if results expire, and \
             then notes the requests for {} s, or for {} s if results expire; {} in turns. {unlevel}",
            digits(fresh_for),
            digits(choice.scale),
            digits(fresh_for / 4.0),
            digits(fresh_for),
            digits(fresh_for / 2.0),
            digits(fresh_for),
            if pace.day_rounds == 1 { "1 round".into() } else { format!("{} rounds", pace.day_rounds) },
        ),
        "The cache table is UNLOGGED and holds a jsonb and the end of its time to live for each dashboard. A client that finds no row \
         that is still valid runs the query and writes the row; nothing keeps other clients from doing the same."
            .into(),
        format!(
            "The {} most popular dashboards have a materialized view with a unique index. One session refreshes all of them with \
             REFRESH MATERIALIZED VIEW CONCURRENTLY. The other dashboards run their query.",
            column::view_count(plan.dashboards.len())
        ),
        "Hits are the answers from a stored result, waited those from a run of another session (single flight). Runs are counted by \
         pg_stat_statements, and include refreshes. Each answer names the newest order, customer or product in its snapshot. An answer \
         is outdated if it misses a commit that was acknowledged before its request; it is outdated since the first commit that it \
         misses. The run fails if the columns \"no cache\" or \"exact\" return an outdated answer."
            .into(),
        format!(
            "The second table has one session in a loop of PL/pgSQL, on one core, in {} rounds: a call of `cache_query` with one row, by \
             the clock of the server. Each miss has a key of its own, and is stored.",
            pace.write_rounds
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the outcome of a period with one request for each age. The requests take 1 ms, 2 ms and so on. The counts are those
    /// of stored, waited and computed answers, and of runs in the server.
    fn outcome(ages: &[u64], [stored, waited, computed, executed]: [u64; 4]) -> Outcome {
        let times = (1..=ages.len() as u64).map(|time| time * 1_000_000).collect();
        let ages = ages.to_vec();
        Outcome { times, ages, stored, waited, computed, executed, seconds: 2.0, ..Outcome::default() }
    }

    /// Fails if an outdated answer of an exact column passes.
    #[test]
    #[should_panic(expected = "1 of 4 answers missed a commit")]
    fn an_outdated_exact_answer_fails_the_run() {
        check(Column::Exact, &outcome(&[0, 0, 1, 0], [2, 0, 2, 2]));
    }

    /// Fails if an outdated answer of another column is an error, or if 500 runs for one computed answer
    /// are accepted.
    #[test]
    fn the_other_columns_may_be_outdated() {
        check(Column::StaleOk, &outcome(&[0, 0, 1, 0], [2, 0, 2, 2]));
        let unlike = std::panic::catch_unwind(|| check(Column::StaleOk, &outcome(&[0], [0, 0, 1, 500])));
        assert!(unlike.is_err());
    }

    /// Fails if a share is not computed from all requests, or if a request that waited counts as a hit.
    #[test]
    fn shares_are_those_of_all_requests() {
        let mut outcome = outcome(&[0, 4_000_000_000, 0, 2_000_000_000], [2, 1, 1, 1]);
        let served = served(Column::StaleOk, &mut outcome);
        assert_eq!((served.hits, served.waited, served.executed_per_thousand), (0.5, 0.25, 250.0));
        assert_eq!((served.per_second, served.outdated, served.age_max), (2.0, 2, 4e9));
        assert_eq!(served.p99, 4e6);
    }

    /// Fails if a goal uses the wrong column or the wrong figure.
    #[test]
    fn goals_are_those_of_stale_ok() {
        let mut columns = [
            outcome(&[0; 100], [0, 0, 100, 100]),
            outcome(&[0; 100], [10, 0, 90, 90]),
            outcome(&[0; 100], [95, 1, 4, 4]),
            outcome(&[0; 100], [0, 0, 100, 100]),
            outcome(&[0; 100], [0, 0, 100, 100]),
        ];
        let pairs = Column::ALL.iter().zip(columns.iter_mut());
        let served: Vec<_> = pairs.map(|(column, outcome)| served(*column, outcome)).collect();
        let mut day = Day { scale: 4.0, sessions: 1, dashboards: 1, orders_per_second: 1, served };
        assert!(goals(&day).iter().all(|goal| goal.met), "{:?}", goals(&day));
        let stale_ok = &mut day.served[2];
        (stale_ok.hits, stale_ok.executed_per_thousand, stale_ok.p95) = (0.89, 51.0, 201e6);
        stale_ok.age_max = 76e9;
        assert_eq!(
            goals(&day).iter().map(|goal| goal.met).collect::<Vec<_>>(),
            [false, false, false, false, true]
        );
    }

    /// Fails if a popular dashboard counts as much as another one, or if the sessions would need another share of the cores.
    #[test]
    fn the_pause_follows_the_mean_cost() {
        let dashboard = |milliseconds| Dashboard {
            text: String::new(),
            subject: Subject::Orders,
            cost: Duration::from_millis(milliseconds),
        };
        // Zipf's law asks for the first dashboard twice as often as for the second.
        let mean = mean_cost(&[dashboard(10), dashboard(40)]);
        assert_eq!(mean, Duration::from_millis(20));
        // 100 sessions with 1980 ms + 20 ms for a request make 50 requests per second, which need 1 of 2 cores.
        assert_eq!(think(100, 2, mean), Duration::from_millis(1980));
        assert_eq!(think(1, 64, mean), Duration::ZERO);
    }
}
