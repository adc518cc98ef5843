//! The ways to serve the dashboards that the part `day` of the report compares. Each is called a *column*. `mod.rs` runs each
//! column in *periods* of its own (`period.rs`), in which sessions ask for dashboards while orders arrive.

use super::dashboards::{COLUMNS, Dashboard, MARK};
use crate::queries::stage::{Stage, cached};
use postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// One in this many dashboards, the most popular ones, has a materialized view.
pub const VIEW_EVERY: usize = 10;

/// The position of `newest` in the rows: its place in [`COLUMNS`].
const NEWEST: usize = 3;
/// The position of the status of the session in the rows, behind `newest`.
const STATUS: usize = 4;

/// How a client gets the rows of a dashboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Column {
    /// The client sends the query.
    NoCache,
    /// `cache_query` without further arguments: an answer is never outdated.
    Exact,
    /// `cache_query` with `stale_ok`: the call also accepts rows that were right at some moment within this time before the call.
    StaleOk,
    /// A hand-written cache: a table of jsonb values, each with the end of its time to live. The client looks for the row, and runs
    /// the query and writes the row if there is none or if it has expired.
    Table,
    /// Materialized views of the most popular dashboards, which another session refreshes. The other dashboards run their query.
    Views,
}

/// Where the rows of an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A stored result. With `stale_ok`, it may be one that a commit has invalidated.
    Stored,
    /// Another session that computed the result at that moment.
    Waited,
    /// The query, run for this request.
    Computed,
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// The largest primary key of the dashboard's [`Subject`](super::dashboards::Subject) in the snapshot of the result.
    pub newest: i64,
    /// Where the rows came from.
    pub source: Source,
}

impl Column {
    /// All columns, in the order of the report.
    pub const ALL: [Self; 5] = [Self::NoCache, Self::Exact, Self::StaleOk, Self::Table, Self::Views];

    /// Returns the name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoCache => "no cache",
            Self::Exact | Self::StaleOk => "cache_query",
            Self::Table => "hand-written cache table",
            Self::Views => "materialized views",
        }
    }

    /// Returns the text that tells the column apart from all others.
    pub fn detail(self) -> &'static str {
        match self {
            Self::NoCache => "each request runs its query",
            Self::Exact => "exact",
            Self::StaleOk => "stale_ok => '5 min'",
            Self::Table => "rows live 5 min",
            Self::Views => "refreshed every 5 min",
        }
    }

    /// Returns whether the column is *exact*: an answer must contain every commit that was acknowledged before its request.
    pub fn is_exact(self) -> bool {
        matches!(self, Self::NoCache | Self::Exact)
    }

    /// Prepares a period: removes what an earlier period has stored, and creates what this column needs.
    pub fn prepare(self, stage: &Stage, dashboards: &[Dashboard]) {
        stage.execute(
            "SELECT cache_flush('*');
             DROP TABLE IF EXISTS dashboard_cache;
             CREATE UNLOGGED TABLE dashboard_cache (key text PRIMARY KEY, rows jsonb NOT NULL, expires timestamptz NOT NULL)",
        );
        if self == Self::Views {
            for (place, dashboard) in dashboards[..view_count(dashboards.len())].iter().enumerate() {
                let view = view(place);
                let text = &dashboard.text;
                stage.execute(&format!(
                    "CREATE MATERIALIZED VIEW {view} AS {text}; CREATE UNIQUE INDEX ON {view} (label)"
                ));
            }
        }
    }

    /// Ends a period: drops the materialized views.
    pub fn clean(self, stage: &Stage, dashboards: &[Dashboard]) {
        if self == Self::Views {
            for place in 0..view_count(dashboards.len()) {
                stage.execute(&format!("DROP MATERIALIZED VIEW {}", view(place)));
            }
        }
    }

    /// Asks for the dashboard at the position `place`, counted from the most popular one. `dashboards` is their number. `fresh_for`
    /// is the time for which stored rows may be used. Panics if the server refuses a statement.
    pub fn request(
        self,
        session: &mut Client,
        place: usize,
        dashboard: &Dashboard,
        dashboards: usize,
        fresh_for: Duration,
    ) -> Answer {
        let text = &dashboard.text;
        let milliseconds = fresh_for.as_millis();
        match self {
            Self::NoCache => from_rows(session, text, Source::Computed),
            Self::Exact => from_cache(session, &cached(text, COLUMNS, "")),
            Self::StaleOk => {
                let options = format!(", stale_ok => '{milliseconds} ms'");
                from_cache(session, &cached(text, COLUMNS, &options))
            }
            Self::Table => {
                let look = format!(
                    "SELECT rows FROM dashboard_cache WHERE key = 'dashboard {place}' AND expires > now()"
                );
                if let Some(row) = first_row(session, &look) {
                    return Answer { newest: newest_in_json(&row), source: Source::Stored };
                }
                let fill = format!(
                    "INSERT INTO dashboard_cache
                     SELECT 'dashboard {place}', jsonb_agg(to_jsonb(result)), now() + interval '{milliseconds} ms' FROM ({text}) AS result
                     ON CONFLICT (key) DO UPDATE SET rows = excluded.rows, expires = excluded.expires RETURNING rows"
                );
                let row = first_row(session, &fill).expect("the statement returns what it has written");
                Answer { newest: newest_in_json(&row), source: Source::Computed }
            }
            Self::Views if place < view_count(dashboards) => {
                from_rows(session, &format!("SELECT * FROM {}", view(place)), Source::Stored)
            }
            Self::Views => from_rows(session, text, Source::Computed),
        }
    }
}

/// Returns how many dashboards have a materialized view.
pub fn view_count(dashboards: usize) -> usize {
    dashboards / VIEW_EVERY
}

fn view(place: usize) -> String {
    format!("dashboard_view_{place}")
}

/// Refreshes all views in rounds, one view after the other, until `ends` returns true. A round begins `every` after the beginning
/// of the last round. It must take less time than that: `ends` is called only in the pause after a round.
pub fn refresh(session: &mut Client, dashboards: usize, every: Duration, ends: impl Fn() -> bool) {
    loop {
        let next = Instant::now() + every;
        for place in 0..view_count(dashboards) {
            let text = format!("REFRESH MATERIALIZED VIEW CONCURRENTLY {}", view(place));
            session.batch_execute(&text).unwrap_or_else(|error| panic!("{error:?}: {text}"));
        }
        while Instant::now() < next {
            if ends() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Returns how many runs of dashboards and of refreshes pg_stat_statements has counted. A refresh runs the query of its view once.
/// It counts as the statement REFRESH, whose text does not contain [`MARK`].
pub fn executed(stage: &Stage) -> u64 {
    stage.number(&format!(
        "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements
         WHERE query LIKE '%{MARK}%' OR query LIKE 'REFRESH MATERIALIZED VIEW%'"
    ))
}

/// Runs a statement that returns the columns of a dashboard. The caller says where the rows come from.
fn from_rows(session: &mut Client, text: &str, source: Source) -> Answer {
    let row = first_row(session, text).unwrap_or_else(|| panic!("no rows: {text}"));
    Answer { newest: number(&row, NEWEST), source }
}

/// Runs a call of `cache_query`. The status of the call tells where the rows come from.
fn from_cache(session: &mut Client, call: &str) -> Answer {
    let text = format!("SELECT result.*, cache_status() FROM {call}");
    let row = first_row(session, &text).unwrap_or_else(|| panic!("no rows: {text}"));
    Answer { newest: number(&row, NEWEST), source: source(row.get(STATUS)) }
}

/// Returns where rows came from, according to `cache_status()`.
fn source(status: Option<&str>) -> Source {
    match status {
        Some("hot" | "stale") => Source::Stored,
        Some("waited") => Source::Waited,
        _ => Source::Computed,
    }
}

/// Reads an answer to its end, and returns its first row.
fn first_row(session: &mut Client, text: &str) -> Option<SimpleQueryRow> {
    let messages = session.simple_query(text).unwrap_or_else(|error| panic!("{error:?}: {text}"));
    messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })
}

fn number(row: &SimpleQueryRow, column: usize) -> i64 {
    row.get(column).and_then(|text| text.parse().ok()).expect("the column is a number")
}

/// Returns the column `newest` of the rows of a dashboard in a row of the cache table, where they are a jsonb array.
fn newest_in_json(row: &SimpleQueryRow) -> i64 {
    let rows: serde_json::Value =
        serde_json::from_str(row.get(0).expect("it is not null")).expect("it is a jsonb");
    rows[0]["newest"].as_i64().expect("it is a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a result that was computed for the request, or by a session that this one has waited for, counts as stored.
    #[test]
    fn only_stored_results_are_hits() {
        assert_eq!(["hot", "stale"].map(|status| source(Some(status))), [Source::Stored; 2]);
        assert_eq!(source(Some("waited")), Source::Waited);
        for status in
            ["miss: not there", "invalidated: table orders", "done", "refused: the query is volatile"]
        {
            assert_eq!(source(Some(status)), Source::Computed, "{status}");
        }
        assert_eq!(source(None), Source::Computed);
    }

    /// Fails if other columns than "no cache" and "exact" must return up-to-date rows, or if one of these two need not.
    #[test]
    fn two_columns_are_exact() {
        assert_eq!(Column::ALL.map(Column::is_exact), [true, true, false, false, false]);
    }
}
