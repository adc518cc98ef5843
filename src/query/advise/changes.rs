//! Counts the changes of the tables that statements read.

use super::statements::{LOCK_TIMEOUT_MS, Statement};
use crate::pg::outline::{Outline, outline};
use crate::pg::shared::{self, HotTier};
use crate::pg::statement_counts::Windows;
use crate::pg::{memory, relation, subtransaction};
use crate::store::space;
use std::collections::{BTreeMap, BTreeSet};

/// The changes of a table and its partitions by the counted statements: at most so many calls and changed rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Writes {
    pub calls: f64,
    pub rows: f64,
}

/// Returns the topmost table that a relation is a part of.
pub fn root_of(relation: u32) -> u32 {
    relation::ancestors_now(relation).last().copied().unwrap_or(relation)
}

/// Returns what the statements have changed, by the topmost tables. A statement whose table is unknown in this session is left out.
pub fn writes(statements: &BTreeMap<i64, Statement>) -> BTreeMap<u32, Writes> {
    let verbs: [&[u8]; 7] = [b"insert", b"update", b"delete", b"merge", b"copy", b"refresh", b"truncate"];
    let mut writes = BTreeMap::new();
    for statement in statements.values() {
        memory::check();
        shared::check_for_interrupts();
        let may_write = verbs
            .iter()
            .any(|verb| statement.text.windows(verb.len()).any(|part| part.eq_ignore_ascii_case(verb)));
        if !may_write {
            continue;
        }
        let Some(text) = memory::terminated(&statement.text) else { continue };
        let found = subtransaction::probe(LOCK_TIMEOUT_MS, || match outline(&text) {
            Outline::Writes { targets, counts_changes } => {
                (memory::collect(targets.into_iter().map(root_of)), counts_changes)
            }
            _ => (Vec::new(), false),
        });
        let (targets, counts_changes) = found.unwrap_or_default();
        for root in targets {
            let sum: &mut Writes = writes.entry(root).or_default();
            // A call that changes no row invalidates nothing.
            sum.calls += if counts_changes { statement.calls.min(statement.rows) } else { statement.calls };
            sum.rows += if counts_changes { statement.rows } else { 0.0 };
        }
    }
    writes
}

/// The counted changes of tables.
pub struct Tables {
    /// The rows that were changed in each table.
    pub changed: BTreeMap<u32, f64>,
    /// For tables that cached values have depended on: how many seconds ago the last change was.
    pub last_changes: BTreeMap<u32, f64>,
    pub writes: BTreeMap<u32, Writes>,
    pub writing_calls: Option<f64>,
    pub windows: Windows,
    /// For how long the statements were counted.
    pub seconds: f64,
}

/// Returns how many seconds ago the last change of each table was, for tables that cached values have depended on. Returns nothing
/// if the caller may not see statistics.
pub fn last_changes(tier: &HotTier) -> BTreeMap<u32, f64> {
    let mut last = BTreeMap::new();
    if space::may_monitor() {
        for stats in tier.relation_stats(shared::database()) {
            if let (Some(oid), true) = (stats.relation, stats.last_change > 0) {
                memory::check();
                last.insert(oid, shared::ms_since(stats.last_change) as f64 / 1000.0);
            }
        }
    }
    last
}

/// The changes of the tables of a statement.
#[derive(Debug, Default)]
pub struct Changes {
    pub commits: f64,
    /// The table with the most commits, and an upper limit of these commits.
    pub most: Option<(u32, f64)>,
}

impl Tables {
    /// Returns an upper limit of the commits that have changed one of these tables while the statements were counted. Each call of
    /// a statement that writes to a table counts as one commit. Each changed row that these statements do not explain counts as one
    /// commit, too, up to the number of calls that have changed rows of any table.
    pub fn changes_of(&self, roots: &BTreeSet<u32>) -> Changes {
        let Windows { tables, commits, .. } = self.windows;
        // It is not known since when tables without a reset were counted: a crash also begins the counts anew. So all counts count.
        let share = tables.map_or(1.0, |counted| (self.seconds / counted.max(1e-3)).min(1.0));
        let mut changes = Changes::default();
        for root in roots {
            if self.last_changes.get(root).is_some_and(|ago| *ago > self.seconds) {
                continue;
            }
            let Writes { calls, rows } = self.writes.get(root).copied().unwrap_or_default();
            let changed = self.changed.get(root).copied().unwrap_or(0.0) * share;
            // Changes of an unlogged table write no WAL, so the calls that make them are not counted as writing ones.
            let writing_calls = self.writing_calls.filter(|_| !relation::is_unlogged(*root));
            let most = writing_calls.unwrap_or(f64::INFINITY).min(commits * share);
            let of_table = calls + (changed - rows).clamp(0.0, most);
            changes.commits += of_table;
            if of_table > changes.most.map_or(0.0, |(_, most)| most) {
                changes.most = Some((*root, of_table));
            }
        }
        changes
    }
}
