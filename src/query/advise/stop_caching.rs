//! Advises which stored results should not be cached:
//! - those of a query that is *left out*: its results were invalid before they could be stored (`query/ticket.rs`);
//! - those of a text with many results, none of which was read again, in a *space* (a named cache) whose hit ratio is too low to
//!   save time.
//!
//! The file changes nothing: each row has a command for the operator, which removes the results or calls the query in another way.

use super::candidates::without_strings;
use super::format::{concatenated, percent, quoted, shortened, whole};
use super::row::Advice;
use super::statements::LOCK_TIMEOUT_MS;
use super::stored::Groups;
use super::words::Words;
use crate::pg::shared::{self, HotTier};
use crate::pg::{memory, query, role, subtransaction};
use crate::query::worth::Costs;
use pg_cache_core::Counter;

/// The least reads of a space before its hit ratio counts.
const READS_MIN: f64 = 100.0;
/// The least results of a text, none of which was read lately, before the advice is to remove them.
const UNREAD_MIN: f64 = 10.0;

/// Adds the advice about stored results that should not be cached.
pub fn stop_caching(tier: &HotTier, groups: &Groups, words: &Words, rows: &mut Vec<Advice>) {
    for ((space, text), group) in groups {
        memory::check();
        let query = Some(shortened(text));
        let remove = || {
            let begin = format!(
                "SELECT count({p}cache_delete(key, space)) FROM {p}cache_queries WHERE space = {} AND query = ",
                role::literal(space),
                p = words.prefix
            );
            concatenated(&[begin.as_bytes(), &quoted(text), b";"])
        };
        if let Some(by) = &group.left_out {
            // The names of the tables are empty if a change of something else has invalidated the results.
            let by = if by.is_empty() { "a table" } else { by };
            let reason = format!(
                "changes of {by} invalidate it faster than it runs, so nothing is stored\nrun the query without the cache, or accept old rows"
            );
            let sketch = without_strings(text, false)
                .ok()
                .and_then(|text| subtransaction::probe(LOCK_TIMEOUT_MS, || query::sketch(&text)).ok());
            let in_space = match &**space {
                "default" => String::new(),
                name => format!(", space => {}", role::literal(name)),
            };
            let more = format!(", stale_ok => '1 min'{in_space}");
            let statement = Some(sketch.map_or_else(remove, |sketch| words.query(text, &sketch, &more)));
            memory::push(rows, Advice { advice: "stop caching", query, saves: None, reason, statement });
            continue;
        }
        let Some(stats) = tier.space_stats(shared::database(), group.space_oid) else { continue };
        let sum = |all: &[Counter]| all.iter().map(|what| stats.counted(*what) as f64).sum::<f64>();
        let hits = sum(&[Counter::Hit, Counter::HitSaved]);
        let reads = hits + sum(&[Counter::MissAbsent, Counter::MissExpired, Counter::MissFenced]);
        let results = group.results.max(1.0);
        let needed = Costs::of(group.cost_ms / results, group.rows / results).break_even();
        if reads >= READS_MIN && hits / reads < needed && group.hits == 0 && results >= UNREAD_MIN {
            let reason = format!(
                "{} results are stored, none of which was read again lately\nhit ratio of the space {}, break-even at {}: run the query without the cache",
                whole(results),
                percent(hits / reads),
                percent(needed)
            );
            let statement = Some(remove());
            memory::push(rows, Advice { advice: "stop caching", query, saves: None, reason, statement });
        }
    }
}
