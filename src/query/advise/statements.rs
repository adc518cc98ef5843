//! Collects the figures of statements, from `pg_stat_statements` and from the observing mode (`query/observe.rs`), which counts for
//! each statement of the client how many of its calls would have been hits.

use super::row::{Advice, note};
use crate::pg::error::{Failure, SqlState};
use crate::pg::role::{self, Role};
use crate::pg::statement_counts::{self, Counted, Observed, Windows};
use crate::pg::{memory, subtransaction};
use std::collections::BTreeMap;

/// The limit of the wait for a lock on a table of a statement, in milliseconds. After it, the statement is left out.
pub const LOCK_TIMEOUT_MS: u32 = 100;
/// The SQLSTATE that `pg_stat_statements` raises if its library is not preloaded: `object_not_in_prerequisite_state`.
const NOT_PRELOADED: &str = "55000";

/// The evidence that was collected, and what is missing.
pub struct Evidences {
    /// The statements, by the server's identifier of a statement (`queryid`).
    pub statements: BTreeMap<i64, Statement>,
    /// The counts of the observing mode, by the same identifier. The texts are moved to `statements`.
    pub observed: BTreeMap<i64, Observed>,
    /// For how long the statements were counted, in seconds.
    pub seconds: f64,
    /// An upper limit of the calls that have changed rows. None if `pg_stat_statements` has forgotten statements.
    pub writing_calls: Option<f64>,
    /// The number of statements that the caller may not see.
    pub hidden: usize,
    /// The number of statements whose texts are too long to be analyzed.
    pub too_long: usize,
    /// Rows that say which figures are missing.
    pub notes: Vec<Advice>,
}

/// A statement, with the sums over all roles.
#[derive(Debug, Default)]
pub struct Statement {
    pub text: Vec<u8>,
    /// Whether the text is that of one call, seen by the observing mode: its constants may differ from those of other calls.
    pub is_of_one_call: bool,
    pub calls: f64,
    pub total_ms: f64,
    pub rows: f64,
    /// The calls by roles. Empty if only the observing mode has seen the statement.
    pub roles: BTreeMap<u32, f64>,
}

/// Collects the figures of statements. A view that is missing, or that the caller may not read, becomes a note.
pub fn collect(windows: &Windows) -> Evidences {
    let mut found = Evidences {
        statements: BTreeMap::new(),
        observed: BTreeMap::new(),
        seconds: windows.server,
        writing_calls: None,
        hidden: 0,
        too_long: 0,
        notes: Vec::new(),
    };
    if let Some(view) = statement_counts::view("pg_cache", "cache_observed") {
        match subtransaction::attempt(|| statement_counts::observed(&view)) {
            Ok(observed) => found.observed = observed.into_iter().map(|seen| (seen.id, seen)).collect(),
            Err(failure) => {
                found.notes.push(note(format!("cache_observed cannot be read: {}", failure.message), None));
            }
        }
    }
    let name = "pg_stat_statements";
    let Some(view) = statement_counts::view(name, name) else {
        let reason = "pg_stat_statements is not installed in this database, so the advice uses the observing mode only";
        found.notes.push(note(reason.to_owned(), Some("CREATE EXTENSION pg_stat_statements;".to_owned())));
        return with_observed(found);
    };
    if !view.is_recent() {
        let reason = "this version of pg_stat_statements is older than 1.8".to_owned();
        found.notes.push(note(reason, Some("ALTER EXTENSION pg_stat_statements UPDATE;".to_owned())));
        return with_observed(found);
    }
    match subtransaction::attempt(|| statement_counts::counted(&view)) {
        Ok(counted) => {
            let info = statement_counts::view(name, "pg_stat_statements_info");
            let since = info
                .and_then(|info| subtransaction::attempt(|| statement_counts::since_reset(&info)).ok())
                .flatten();
            if let Some((seconds, is_complete)) = since {
                found.seconds = seconds;
                found.writing_calls = is_complete.then(|| counted.iter().map(|row| row.writing_calls).sum());
            }
            counted.into_iter().for_each(|row| found.add(row));
        }
        Err(failure) => found.notes.push(unreadable(&failure)),
    }
    with_observed(found)
}

/// Returns the note about a `pg_stat_statements` that cannot be read.
fn unreadable(failure: &Failure) -> Advice {
    if failure.code.to_string() == NOT_PRELOADED {
        let reason = "pg_stat_statements is not in shared_preload_libraries: add it, and restart the server";
        let libraries = subtransaction::attempt(statement_counts::preloaded).ok();
        let statement = libraries.map(|libraries| {
            let names = libraries.split(',').map(str::trim).filter(|name| !name.is_empty());
            let names: Vec<_> = names.chain(["pg_stat_statements"]).map(role::literal).collect();
            format!("ALTER SYSTEM SET shared_preload_libraries = {};", names.join(", "))
        });
        return note(reason.to_owned(), statement);
    }
    let statement = (failure.code == SqlState::INSUFFICIENT_PRIVILEGE)
        .then(|| format!("GRANT pg_read_all_stats TO {};", Role::current().quoted()));
    note(format!("pg_stat_statements cannot be read: {}", failure.message), statement)
}

/// Adds the statements that only the observing mode has seen.
fn with_observed(mut found: Evidences) -> Evidences {
    for (id, seen) in &mut found.observed {
        let text = seen.text.take();
        if let (None, Some(text)) = (found.statements.get(id), text) {
            memory::check();
            // The time of all calls is estimated from that of the calls that would have been hits.
            let total_ms = if seen.hits > 0.0 { seen.saved_ms / seen.hits * seen.calls } else { 0.0 };
            let statement =
                Statement { text, is_of_one_call: true, calls: seen.calls, total_ms, ..Statement::default() };
            found.statements.insert(*id, statement);
        }
    }
    found
}

impl Evidences {
    fn add(&mut self, row: Counted) {
        memory::check();
        let Some(id) = row.id else {
            self.hidden += 1;
            return;
        };
        let Some(text) = row.text else {
            self.too_long += 1;
            return;
        };
        let statement = self.statements.entry(id).or_default();
        statement.text = text;
        statement.calls += row.calls;
        statement.total_ms += row.total_ms;
        statement.rows += row.rows;
        *statement.roles.entry(row.role).or_default() += row.calls;
    }
}
