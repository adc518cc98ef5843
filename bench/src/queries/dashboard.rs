//! The part `queries-dashboard` of the report: measures the dashboard of the sample shop, a query of about two seconds, in three
//! ways: the query itself, a *cold* call of `cache_query`, which runs the query and stores its rows, and a *hot* call, which
//! returns the stored rows. Each is measured in a loop in the server, and as a request of a client.

use super::race::{Race, at_least, table, times};
use super::shop::{COLUMNS, DASHBOARD, FEW_ORDERS, ORDERS, fill};
use super::stage::{MANY_PASSES, SPACE, Stage, cached};
use crate::hot_tier::duel::Contender;
use crate::pace::Pace;
use crate::plan::Given;
use crate::report::notation::count;
use crate::report::section::Section;
use std::time::Duration;

/// The goal: the time of a miss, divided by that of a hit, is at least this.
const COLD_TO_HOT: f64 = 3000.0;
/// The rounds of a race (`race.rs`): with fewer, the median would have no interval of 95 % confidence.
const ROUNDS: usize = 6;

/// The names of the contenders, the three ways to get the rows.
const QUERY: &str = "the query itself";
const COLD: &str = "cold: invalidated, runs and stores";
const HOT: &str = "hot: a hit";

/// A small change of the shop, which invalidates the dashboard.
const CHANGE: &str = "UPDATE products SET name = name WHERE product_id = 1";

/// Returns about how long the part takes. The dashboard of the whole shop takes about two seconds.
pub fn estimate(pace: &Pace) -> Duration {
    // The milliseconds of loading the shop, and those of the dashboard's query. In each round, each of the two races runs the query
    // twice: by itself, and in a cold call. A race begins with one round that does not count.
    let [loading, dashboard] = if is_full(pace) { [30_000, 2000] } else { [6000, 150] };
    Duration::from_millis(loading) + (Duration::from_millis(dashboard) * 4 + pace.read) * (ROUNDS + 1) as u32
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let stage = Stage::start();
    let orders = if is_full(pace) { ORDERS } else { FEW_ORDERS };
    fill(&stage, orders);
    let hit = cached(DASHBOARD, COLUMNS, "");
    // Counting whole rows makes the server compute all columns.
    stage.create_loop("query", "count(result)", &format!("({DASHBOARD}) AS result"));
    stage.create_loop("cached", "count(*)", &hit);
    let select = format!("SELECT * FROM {hit}");

    let stage = &stage;
    // Runs a cold call, and checks that it was a miss.
    let cold = |run: &dyn Fn() -> f64| {
        stage.execute(CHANGE);
        let [_, misses] = stage.reads(SPACE);
        let time = run();
        let [_, after] = stage.reads(SPACE);
        assert_eq!(after, misses + 1, "a cold call is a miss");
        time
    };
    // Runs hot calls, which need a stored result.
    let hot = |run: &dyn Fn() -> f64| {
        stage.loop_once("cached");
        stage.only_hits(SPACE, run)
    };
    let span = pace.read / 2;
    let in_server = Race::hold(
        "in the server, a loop of PL/pgSQL, 1 session",
        ROUNDS,
        vec![
            Contender::new(HOT, || hot(&|| stage.loop_for("cached", MANY_PASSES, span))),
            Contender::new(COLD, || cold(&|| stage.loop_once("cached"))),
            Contender::new(QUERY, || stage.loop_once("query")),
        ],
    );
    let to_client = Race::hold(
        "to the client, prepared, over a Unix socket, 1 client",
        ROUNDS,
        vec![
            Contender::new(HOT, || hot(&|| stage.wire(&select, Given::Nothing, span))),
            Contender::new(COLD, || cold(&|| stage.once(&select))),
            Contender::new(QUERY, || stage.once(DASHBOARD)),
        ],
    );

    // `at_least` ends the sentence with the least ratio of the times.
    let goal = |place: &str, race: &Race| {
        let what = format!("{place}, a cold call takes, of the time of a hot one");
        at_least(&what, race.ratio(COLD, HOT), COLD_TO_HOT, times)
    };
    let goals = vec![goal("in the server", &in_server), goal("to the client", &to_client)];
    let races = [&in_server, &to_client];
    Section {
        id: "queries-dashboard".into(),
        title: "The shop's dashboard, cold and hot".into(),
        goals,
        tables: vec![table(&races)],
        explained: vec![format!(
            "The dashboard of the sample shop with {} orders: 192 rows of 8 columns, from a join of four tables. Before each cold call, an UPDATE of \
             one product commits, so the call finds an invalid result, runs the query and stores the rows. In the server, the clock of the \
             server times a statement in a loop of PL/pgSQL, without any client. The query itself and the cold call may use all cores; for \
             the hot calls, client and server share one core. {ROUNDS} rounds. The ratios are of times.",
            count(f64::from(orders))
        )],
        figures: serde_json::json!({ "races": races, "orders": orders }),
    }
}

/// Returns whether the shop has all its orders: in a full run. A quick run, which has a smaller [`Pace::fillings`], takes the small
/// shop, so its ratios are smaller.
fn is_full(pace: &Pace) -> bool {
    pace.fillings >= Pace::FULL.fillings
}
