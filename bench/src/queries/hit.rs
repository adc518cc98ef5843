//! The part `queries-hit` of the report: measures the hit of a small result, that is, a call of `cache_query` that returns stored
//! rows: over the wire beside a SELECT by primary key, inside SQL, and as the first call of a session. A *contender* is one of the
//! alternatives that a measurement compares.

use super::race::{Race, at_most, summary, table, times};
use super::shop::{COLUMNS, DASHBOARD_1, DASHBOARD_30, FEW_ORDERS, fill};
use super::stage::{MANY_PASSES, SPACE, Stage, cached};
use crate::data::{FIRST_KEY, KEYS};
use crate::hot_tier::duel::Contender;
use crate::pace::Pace;
use crate::plan::Given;
use crate::report::notation::{count, time, with_interval};
use crate::report::section::Section;
use std::time::Duration;

/// The number of rows of the larger of the two results.
const ROWS: f64 = 30.0;
/// The goal over the wire: the time of a hit of 30 rows is at most this multiple of the time of a SELECT by primary key.
const WIRE_MAX: f64 = 2.0;
/// The goal inside SQL: a hit takes at most this many nanoseconds, without the time for its rows ([`without_rows`]).
const IN_SQL_MAX: f64 = 3000.0;

/// The names of the contenders.
const BY_KEY: &str = "SELECT by primary key";
const HIT_30: &str = "hit, 30 rows";
const HIT_1: &str = "hit, 1 row";
const TABLE_30: &str = "SELECT of the same 30 rows from an UNLOGGED table";
const SERIES_1: &str = "generate_series, 1 row";
const SERIES_30: &str = "generate_series, 30 rows";

/// The statements.
const SELECT: &str = "SELECT id, balance, filler FROM account WHERE id = $1";
const SELECT_30: &str = "SELECT * FROM page ORDER BY month, category";

/// Returns about how long the part takes.
pub fn estimate(pace: &Pace) -> Duration {
    // Two races of four contenders, then one race of two contenders in new sessions, and the rest of the part.
    (pace.read / 2 + Duration::from_millis(20)) * (8 * (pace.read_rounds + 1)) as u32
        + Duration::from_millis(15) * (2 * pace.write_rounds) as u32
        + Duration::from_secs(15)
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let (stage, span) = (Stage::start(), pace.read / 2);
    fill(&stage, FEW_ORDERS);
    create_accounts(&stage);
    stage.execute(&format!("CREATE UNLOGGED TABLE page AS {DASHBOARD_30}"));
    let [hit_30, hit_1] = [DASHBOARD_30, DASHBOARD_1].map(|query| cached(query, COLUMNS, ""));
    for (hit, rows) in [(&hit_30, 30), (&hit_1, 1)] {
        // The first call stores the result, so that the races have only hits.
        for _ in ["miss", "hit"] {
            assert_eq!(stage.number(&format!("SELECT count(*) FROM {hit}")), rows, "rows of {hit}");
        }
    }
    let select_hit = [&hit_30, &hit_1].map(|hit| format!("SELECT * FROM {hit}"));

    let wire = |name, statement: &str, given| {
        let (stage, statement) = (&stage, statement.to_owned());
        Contender::new(name, move || stage.wire(&statement, given, span))
    };
    let over_wire = stage.only_hits(SPACE, || {
        Race::hold(
            "over the wire, prepared, 1 client, no writes",
            pace.read_rounds,
            vec![
                wire(BY_KEY, SELECT, Given::Row),
                wire(HIT_30, &select_hit[0], Given::Nothing),
                wire(HIT_1, &select_hit[1], Given::Nothing),
                wire(TABLE_30, SELECT_30, Given::Nothing),
            ],
        )
    });

    let looped = |name, function: &'static str, source: &str| {
        stage.create_loop(function, "count(*)", source);
        let stage = &stage;
        Contender::new(name, move || stage.loop_for(function, MANY_PASSES, span))
    };
    let contenders = vec![
        looped(SERIES_1, "series_1", "generate_series(1, 1)"),
        looped(SERIES_30, "series_30", "generate_series(1, 30)"),
        looped(HIT_1, "hit_1", &hit_1),
        looped(HIT_30, "hit_30", &hit_30),
    ];
    let in_sql = stage.only_hits(SPACE, || {
        Race::hold("inside SQL, in a loop of PL/pgSQL, no writes", pace.read_rounds, contenders)
    });

    let first = |name, statement: &str| {
        let (stage, statement) = (&stage, statement.to_owned());
        Contender::new(name, move || stage.in_new_session(&statement))
    };
    let by_key = format!("SELECT id, balance, filler FROM account WHERE id = {FIRST_KEY}");
    let in_new_session = stage.only_hits(SPACE, || {
        Race::hold(
            "first statement of a new session, simple protocol, no writes",
            pace.write_rounds,
            vec![first(BY_KEY, &by_key), first(HIT_30, &select_hit[0])],
        )
    });

    let goals = vec![
        at_most(
            "over the wire, a hit of 30 rows takes, of the time of a SELECT by primary key",
            over_wire.ratio(HIT_30, BY_KEY),
            WIRE_MAX,
            times,
        ),
        at_most(
            "inside SQL, a hit takes without the time of its rows",
            summary(&without_rows(in_sql.times(HIT_1), in_sql.times(HIT_30))),
            IN_SQL_MAX,
            time,
        ),
    ];
    let races = [&over_wire, &in_sql, &in_new_session];
    Section {
        id: "queries-hit".into(),
        title: "Hits of small cached results".into(),
        goals,
        tables: vec![table(&races)],
        explained: vec![
            format!(
                "The cached result is a page of the sample shop's dashboard: rows of 8 columns of the types date, text, numeric and bigint. The \
                 SELECT by primary key returns a random one of {} rows with two bigints and a text of 80 bytes. Over the wire and inside \
                 SQL, client and server share one core, and each turn takes {} ms, in {} rounds. In all tables of this part, the ratios are \
                 of times: less is better.",
                count(KEYS as f64),
                span.as_millis(),
                pace.read_rounds,
            ),
            format!(
                "Inside SQL, each pass of the loop is a statement of its own, `PERFORM count(*) FROM cache_query(…)`, by the clock of the server. \
                 The time without rows is extrapolated to 0 rows from the times of 1 and of 30 rows. It includes the time of the statement. \
                 Beyond the same statement with `generate_series`, a hit of 1 row takes {}.",
                with_interval(summary(&beyond(in_sql.times(HIT_1), in_sql.times(SERIES_1))), time)
            ),
            format!(
                "A new session is connected when the time begins, and has run nothing. There are {} new sessions of each kind.",
                pace.write_rounds
            ),
        ],
        figures: serde_json::json!({ "races": races }),
    }
}

/// Creates the table that the SELECT by primary key reads.
fn create_accounts(stage: &Stage) {
    stage.execute(&format!(
        "CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL, filler text NOT NULL);
         INSERT INTO account SELECT {FIRST_KEY} + i, i * 7919 % 100000, repeat('x', 80) FROM generate_series(0, {KEYS} - 1) AS i"
    ));
    stage.execute("VACUUM (ANALYZE) account");
}

/// Returns how many nanoseconds longer a contender takes than another one, round by round.
fn beyond(own: &[f64], other: &[f64]) -> Vec<f64> {
    own.iter().zip(other).map(|(own, other)| own - other).collect()
}

/// Returns the time of a hit without its rows, round by round, from the times of a hit of one row and of [`ROWS`] rows: the line
/// through the two times, continued to 0 rows.
fn without_rows(one: &[f64], many: &[f64]) -> Vec<f64> {
    one.iter().zip(many).map(|(one, many)| one - (many - one) / (ROWS - 1.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if the time of a row counts as part of the hit. Here, a hit takes 2 µs, and a row 0.1 µs.
    #[test]
    fn the_rows_are_left_out() {
        let [found] = without_rows(&[2100.0], &[5000.0])[..] else { panic!("one round") };
        assert!((found - 2000.0).abs() < 1e-6, "{found}");
    }
}
