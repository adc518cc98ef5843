//! Advises what is worth caching, and which stored results should not be cached (`cache_advise`). It collects the figures of
//! statements and tables, and puts the decisions of `worth.rs` into words. It runs none of the statements: it only parses and
//! analyzes their texts, in subtransactions that are rolled back, so that no lock remains.
//!
//! ```text
//! statements.rs     the figures of statements
//! changes.rs        the changes of the tables that they read
//! stored.rs         the stored results, by their texts
//! candidates.rs     which statements the cache could store
//! stop_caching.rs   which stored results should not be cached
//! words.rs          the decisions in words
//! format.rs         texts of statements and numbers
//! row.rs            a row of the advice
//! ```

mod candidates;
mod changes;
mod format;
mod row;
mod statements;
mod stop_caching;
mod stored;
mod words;

pub use row::Advice;

use super::worth::{self, Evidence, Figures, Limits, Verdict};
use crate::pg::shared;
use crate::pg::statement_counts::{self, Observed};
use crate::pg::{memory, settings};
use candidates::{Candidate, Counts, candidates};
use changes::{Changes, Tables, last_changes, writes};
use row::note;
use statements::collect;
use std::collections::BTreeSet;
use stop_caching::stop_caching;
use stored::groups;
use words::{Words, summary};

/// Returns the advice, the greatest saving first: at most `most` rows, followed by the notes. May raise errors.
pub fn advise(most: usize) -> Vec<Advice> {
    let Some(tier) = shared::tier() else {
        return vec![note("the cache is switched off: see cache_health()".to_owned(), None)];
    };
    let words = Words {
        prefix: statement_counts::prefix_of("pg_cache", "cache_advise"),
        database: statement_counts::database(),
    };
    let windows = statement_counts::windows();
    let mut found = collect(&windows);
    let mut counts = Counts { seen: found.statements.len(), ..Counts::default() };

    let groups = groups();
    // This must come before `candidates`, which takes the statements out of `found`.
    let writes = writes(&found.statements);
    let candidates = candidates(tier, &groups, &mut found, &mut counts);
    let roots: BTreeSet<u32> = candidates.iter().flat_map(|candidate| &candidate.roots).copied().collect();
    let roots = memory::collect(roots.into_iter());
    let tables = Tables {
        changed: statement_counts::rows_changed(&roots),
        last_changes: last_changes(tier),
        writes,
        writing_calls: found.writing_calls,
        windows,
        seconds: found.seconds,
    };
    let mut rows = Vec::new();
    for candidate in &candidates {
        let observed = found.observed.get(&candidate.id).filter(|seen| seen.calls >= worth::CALLS_MIN);
        match judge(candidate, observed, &tables, found.seconds) {
            Some((verdict, changes)) => {
                for row in words.of(candidate, observed, &verdict, &changes, found.seconds) {
                    memory::push(&mut rows, row);
                }
            }
            None => counts.unworthy += 1,
        }
    }
    stop_caching(tier, &groups, &words, &mut rows);
    // Rows whose saving is not known come after all others.
    rows.sort_by(|a, b| b.saves.unwrap_or(-1.0).total_cmp(&a.saves.unwrap_or(-1.0)));
    let left = rows.len().saturating_sub(most);
    rows.truncate(most);
    let shown = rows.len();
    rows.append(&mut found.notes);
    rows.push(summary(&found, &counts, shown, left));
    rows
}

/// Decides about a statement. `seconds` is the time for which the statements were counted. Returns the decision, and the changes of
/// the tables that the statement reads. None if the statement is not worth caching.
fn judge(
    candidate: &Candidate,
    observed: Option<&Observed>,
    tables: &Tables,
    seconds: f64,
) -> Option<(Verdict, Changes)> {
    let Candidate { statement, sketch, .. } = candidate;
    let changes = tables.changes_of(&candidate.roots);
    let evidence = match observed {
        Some(seen) if seen.refused.is_some() && seen.hits < 1.0 => return None,
        Some(seen) => Evidence::Observed {
            calls: seen.calls,
            hits: seen.hits,
            saved_ms: seen.saved_ms,
            seconds: seen.seconds,
            is_invalidated: seen.is_invalidated,
        },
        None if !sketch.parameters.is_empty() || candidate.reads_unknown => Evidence::Unknown,
        None => Evidence::Commits { commits: changes.commits, roles: statement.roles.len() as f64 },
    };
    let figures = Figures {
        calls: statement.calls,
        mean_ms: statement.total_ms / statement.calls,
        rows: statement.rows / statement.calls,
        seconds,
        evidence,
        reads_clock: candidate.reads_clock,
        suits_view: sketch.summarizes && sketch.fits_view,
        has_parameters: !sketch.parameters.is_empty(),
    };
    worth::decide(&figures, &limits()).map(|verdict| (verdict, changes))
}

fn limits() -> Limits {
    Limits {
        min_cost_ms: settings::min_cost_ms() as f64,
        ttl_seconds: settings::default_ttl_ms() as f64 / 1000.0,
    }
}
