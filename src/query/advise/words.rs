//! Puts the decisions about statements into words.

use super::candidates::{Candidate, Counts};
use super::changes::Changes;
use super::format::{concatenated, percent, quoted, shortened, time, whole, window};
use super::row::{Advice, note};
use super::statements::{Evidences, Statement};
use crate::pg::query::Sketch;
use crate::pg::relation;
use crate::pg::role::Role;
use crate::pg::statement_counts::Observed;
use crate::query::worth::{Choice, Costs, Verdict};
use crate::store::space;
use std::collections::BTreeSet;

/// The names that the printed statements need in this session.
pub struct Words {
    /// The schema of the extension and a point. Empty if the search path finds the functions of the extension.
    pub prefix: String,
    /// The quoted name of the database.
    pub database: String,
}

impl Words {
    /// Returns the rows about a statement: one for the choice of the verdict, and one more if a worker should compute the result.
    /// `observed` has the counts of the observing mode if the verdict is based on them, and `seconds` is the time for which the
    /// statements were counted.
    pub fn of(
        &self,
        candidate: &Candidate,
        observed: Option<&Observed>,
        verdict: &Verdict,
        changes: &Changes,
        seconds: f64,
    ) -> Vec<Advice> {
        let Candidate { id, statement, sketch, .. } = candidate;
        let ttl = verdict.ttl.map_or_else(String::new, |ttl| format!(", ttl => '{ttl}'"));
        let Costs { uncached, .. } = verdict.costs;
        let mut reason = format!("{} calls of {}", whole(statement.calls), time(uncached));
        if statement.rows >= statement.calls {
            let rows = statement.rows / statement.calls;
            reason += &format!(" and {} row{}", whole(rows), if rows < 1.5 { "" } else { "s" });
        }
        reason += &format!(" in {}", window(seconds));
        if let Some(ratio) = verdict.hit_ratio {
            let (ratio, needed) = (percent(ratio), percent(verdict.break_even));
            reason += &format!("\nexpected hit ratio {ratio}, break-even at {needed}: ");
            reason += &match observed {
                Some(seen) => {
                    format!("observed in {} calls in {}", whole(seen.calls), window(seen.seconds))
                }
                None if changes.commits < 1.0 => "no commit changed its tables".to_owned(),
                None => {
                    let plural = if changes.commits < 1.5 { "" } else { "s" };
                    format!("at most {} commit{plural} changed its tables", whole(changes.commits))
                }
            };
        }
        if let Some((table, writes)) = changes.most {
            let name = relation::name(table, space::may_monitor()).unwrap_or_else(|| "a table".to_owned());
            reason +=
                &format!("\n{name}: at most {:.1} writes per minute", writes * 60.0 / seconds.max(1e-3));
        }
        let row = |advice, saves, reason: String, run: Vec<u8>| Advice {
            advice,
            query: Some(shortened(&statement.text)),
            saves,
            reason,
            statement: Some(run),
        };
        let mut rows = Vec::new();
        match verdict.choice {
            Choice::Cache => {
                rows.push(row(
                    "cache",
                    Some(verdict.saves),
                    reason,
                    self.query(&statement.text, sketch, &ttl),
                ));
            }
            Choice::StaleOk => {
                reason += "\nits callers get rows that are up to a minute old";
                let stale_ok = ", stale_ok => '1 min'";
                let run = self.query(&statement.text, sketch, stale_ok);
                rows.push(row("stale_ok", Some(verdict.saves), reason, run));
            }
            Choice::View => {
                let name = view_name(*id, &candidate.roots);
                reason += &format!("\nread the view {name} instead");
                let run = self.call(
                    &format!("SELECT {}cache_create_view('{name}', ", self.prefix),
                    statement,
                    &ttl,
                );
                rows.push(row("view", Some(verdict.saves), reason, run));
            }
            Choice::Observe => {
                reason += match sketch.parameters.is_empty() {
                    true => "\ncalls functions, so it is not known which tables it reads",
                    false => "\nhas parameters: it is not known how often a call repeats an earlier one",
                };
                reason += &format!("\nsaves up to {:.2} ms per second", verdict.saves);
                let run = format!("ALTER DATABASE {} SET pg_cache.observe = on;", self.database);
                rows.push(row("observe", None, reason, run.into_bytes()));
            }
        }
        if let Some(saves) = verdict.warm {
            let most = statement.roles.iter().max_by(|a, b| a.1.total_cmp(b.1)).map(|(role, _)| *role);
            let role =
                most.map_or_else(String::new, |role| format!(" as role {}", Role::from_oid(role).quoted()));
            let reason = format!(
                "each miss takes {}; a worker computes the result after each change\nrun it{role}, in addition to the other advice for this query",
                time(verdict.costs.miss)
            );
            let run = format!("SELECT {}cache_warmer_add('statement {id}', ", self.prefix);
            rows.push(row("warm", Some(saves), reason, self.call(&run, statement, &ttl)));
        }
        rows
    }

    /// Returns a call that ends with the text of a statement and further arguments.
    fn call(&self, beginning: &str, statement: &Statement, more: &str) -> Vec<u8> {
        concatenated(&[beginning.as_bytes(), &quoted(&statement.text), more.as_bytes(), b");"])
    }

    /// Returns the call of `cache_query` for a query. The values of its parameters are not known, so the call has nulls, and a
    /// comment with the types.
    pub fn query(&self, text: &[u8], sketch: &Sketch, more: &str) -> Vec<u8> {
        let begin = format!("SELECT * FROM {}cache_query(", self.prefix);
        let mut arguments = String::new();
        if !sketch.parameters.is_empty() {
            let nulls = vec!["null"; sketch.parameters.len()].join(", ");
            let types = sketch.parameters.iter().enumerate();
            let types: Vec<_> = types.map(|(at, kind)| format!("${}: {kind}", at + 1)).collect();
            let types = types.join(", ");
            // A role can name a type so that it would end the comment.
            let comment = if types.contains("*/") || types.contains("/*") { "" } else { &types };
            arguments = format!(", args => '[{nulls}]' /* {comment} */");
        }
        let end = format!("{arguments}{more}) AS ({});", sketch.columns);
        concatenated(&[begin.as_bytes(), &quoted(text), end.as_bytes()])
    }
}

/// Returns the name of a cached view for a statement: the name of one of its tables, and a part of the statement's identifier.
fn view_name(id: i64, roots: &BTreeSet<u32>) -> String {
    let name = roots.first().and_then(|oid| relation::name(*oid, true)).unwrap_or_default();
    let table = name.rsplit('.').next().unwrap_or_default();
    let is_plain = |letter: &char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || *letter == '_';
    let table: String = table.chars().filter(is_plain).take(32).collect();
    let table = match table.chars().next() {
        Some(first) if !first.is_ascii_digit() => table,
        _ => "result".to_owned(),
    };
    format!("{table}_cached_{:04x}", id as u16)
}

/// Returns the last row: how many statements were read, and how many were left out for which reason. `shown` is the number of rows
/// before the notes, and `left` the number of rows that the caller's limit has cut off.
pub fn summary(found: &Evidences, counts: &Counts, shown: usize, left: usize) -> Advice {
    let mut reason = format!("{} statements in {}", counts.seen, window(found.seconds));
    if shown == 0 {
        reason += ", none worth caching";
    }
    for (count, what) in [
        (left, "further rows: pass a greater n"),
        (counts.cached, "cached already"),
        (counts.refused, "that the cache would refuse"),
        (counts.unworthy, "not worth it"),
        (counts.unclear, "not understood in this session, for instance because of its search path"),
        (found.too_long, "longer than 64 kB"),
        (found.hidden, "of other roles, which pg_read_all_stats may see"),
    ] {
        if count > 0 {
            reason += &format!("\n{count} {what}");
        }
    }
    let statement =
        (found.hidden > 0).then(|| format!("GRANT pg_read_all_stats TO {};", Role::current().quoted()));
    note(reason, statement)
}
