//! Estimates how often the tables that a statement reads have changed while the statements were counted. The *counted statements*
//! are those of `pg_stat_statements` and of the observing mode (`pg_cache.observe`). The *root* of a partition, or of a table that
//! inherits, is the topmost table above it. All changes are summed up by roots.

use super::statements::{LOCK_TIMEOUT_MS, Statement};
use crate::pg::outline::{Outline, outline};
use crate::pg::shared::{self, HotTier};
use crate::pg::statement_counts::Windows;
use crate::pg::{memory, relation, subtransaction};
use crate::store::space;
use std::collections::{BTreeMap, BTreeSet};

/// The changes of a root, and of the tables below it, by the counted statements.
#[derive(Clone, Copy, Debug, Default)]
pub struct Writes {
    /// An upper limit of the calls that have changed a row.
    pub calls: f64,
    /// The changed rows, for the statements whose row count is the number of changed rows. Other statements add nothing.
    pub rows: f64,
}

/// Returns the root of a relation: the topmost table above it, or the relation itself.
pub fn root_of(relation: u32) -> u32 {
    relation::ancestors_now(relation).last().copied().unwrap_or(relation)
}

/// Returns the changes by the counted statements, for each root. Leaves out a statement if its text cannot be parsed, or if this
/// session does not find its table by the name in the text. Must be called before `candidates::candidates`, which takes the
/// statements out of their collection.
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
            // A call that changes no row invalidates nothing. Each other call has changed at least one row, so the number of rows
            // is a limit as well.
            sum.calls += if counts_changes { statement.calls.min(statement.rows) } else { statement.calls };
            sum.rows += if counts_changes { statement.rows } else { 0.0 };
        }
    }
    writes
}

/// The changes of all tables, from several sources: the server's statistics of tables, the records of pg_cache, and the counted
/// statements.
pub struct Tables {
    /// How many rows of each root, and of the tables below it, the server has counted as inserted, updated or deleted.
    pub changed: BTreeMap<u32, f64>,
    /// For tables that cached values have depended on: how many seconds ago the last change was. A change of a partition or of a
    /// child counts as a change of the tables above it, too (`store/transaction/table_writes/fences.rs`).
    pub last_changes: BTreeMap<u32, f64>,
    /// The changes of each root by the counted statements.
    pub writes: BTreeMap<u32, Writes>,
    /// An upper limit of the calls of all statements that have changed rows of logged tables. None if it is not known.
    pub writing_calls: Option<f64>,
    /// For how long the server has counted changed rows, and how many commits it has counted.
    pub windows: Windows,
    /// For how long the statements were counted, in seconds.
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

/// The changes of the tables that a statement reads.
#[derive(Debug, Default)]
pub struct Changes {
    /// An upper limit of the commits that have changed one of the tables.
    pub commits: f64,
    /// The root with the most commits, and an upper limit of these commits.
    pub most: Option<(u32, f64)>,
}

impl Tables {
    /// Returns an upper limit of the commits that have changed one of these roots while the statements were counted. For each root,
    /// it adds two numbers:
    /// - the calls of the counted statements that change the root, as if each call were a commit;
    /// - the changed rows that these calls do not explain, for instance because a function has changed them, as if each row were a
    ///   commit. This number is at most that of all commits of the database, and at most that of all writing calls.
    ///
    /// If the server has counted rows and commits for a longer time than the statements, only the share that falls into the shorter
    /// time counts, as if changes were evenly spread.
    pub fn changes_of(&self, roots: &BTreeSet<u32>) -> Changes {
        let Windows { tables, commits, .. } = self.windows;
        // The server notes when it was told to reset the counts of tables, and does not note when a crash has reset them. Without a
        // noted time, it is not known for how long the server has counted, so the whole counts are used.
        let share = tables.map_or(1.0, |counted| (self.seconds / counted.max(1e-3)).min(1.0));
        let mut changes = Changes::default();
        for root in roots {
            // The last change was before the statements were counted.
            if self.last_changes.get(root).is_some_and(|ago| *ago > self.seconds) {
                continue;
            }
            let Writes { calls, rows } = self.writes.get(root).copied().unwrap_or_default();
            let changed = self.changed.get(root).copied().unwrap_or(0.0) * share;
            // A change of an unlogged table writes no WAL, so `writing_calls` may lack the call that has made it.
            let writing_calls = self.writing_calls.filter(|_| !relation::is_unlogged(*root));
            let limit = writing_calls.unwrap_or(f64::INFINITY).min(commits * share);
            let of_table = calls + (changed - rows).clamp(0.0, limit);
            changes.commits += of_table;
            if of_table > changes.most.map_or(0.0, |(_, most)| most) {
                changes.most = Some((*root, of_table));
            }
        }
        changes
    }
}
