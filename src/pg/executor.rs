//! Watches the executor: the hook runs when a plan starts.
//!
//! During a *fill*, which is a query whose result may be stored, the hook reports the relations of the plan (`observer.rs`).
//! Outside of fills, it checks only whether a fill is running and whether the plan writes to a system catalog, and it restores one
//! number (`observer::restore_prepared_functions`). A write to a catalog that all databases share takes the same locks as a
//! harmless command, so the locks do not show it, and the hook must report it (`definition.rs`).

#![allow(unsafe_code)]

use super::observer::{self, Seen, note, note_leaf};
#[cfg(debug_assertions)]
use super::targets;
pub(super) use super::tree::nodes;
use super::{cursor, definition, tree};
use pgrx::prelude::*;
use std::collections::{BTreeSet, TryReserveError};
use std::ffi::c_void;

/// The hook that was installed before ours, if any.
static mut PREVIOUS: pg_sys::ExecutorStart_hook_type = None;

unsafe extern "C-unwind" {
    /// Called without pgrx, whose guard would rebuild errors.
    pub(super) fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int);
}

/// Installs the executor hook. Must be called while the server loads the library.
pub fn hook() {
    // SAFETY: the postmaster runs this alone, before it has children. Our hook calls the previous hook.
    unsafe {
        PREVIOUS = pg_sys::ExecutorStart_hook;
        pg_sys::ExecutorStart_hook = Some(start);
    }
}

/// The hook has no guard, so that errors of the query pass through unchanged. No value on this stack needs to be dropped.
#[allow(ffi_unwind_calls)]
unsafe extern "C-unwind" fn start(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int) {
    // SAFETY: the next function is called as the server would call it. The plan lives as long as the query does.
    unsafe {
        #[cfg(debug_assertions)]
        targets::of_plan((*query).plannedstmt);
        if !(*(*query).plannedstmt).resultRelations.is_null() {
            note_targets((*query).plannedstmt);
        }
        if observer::is_filling() {
            report_plan(query);
        }
        // If the plan's start ends in an error, this value is not restored, and the functions that it has prepared count.
        let prepared = observer::prepared_functions();
        match PREVIOUS {
            Some(previous) => previous(query, flags),
            None => standard_ExecutorStart(query, flags),
        }
        observer::restore_prepared_functions(prepared);
    }
}

/// Reports a plan that writes to a system catalog. The plan must have a list of target relations.
unsafe fn note_targets(plan: *const pg_sys::PlannedStmt) {
    // SAFETY: `resultRelations` holds indexes into the plan's list of relations, counted from 1.
    unsafe {
        let targets = (*plan).resultRelations;
        for at in 0..(*targets).length as usize {
            let index = (*(*targets).elements.add(at)).int_value as usize;
            let entry =
                (*(*(*plan).rtable).elements.add(index - 1)).ptr_value.cast::<pg_sys::RangeTblEntry>();
            if (*entry).relid.to_u32() < pg_sys::FirstNormalObjectId {
                definition::catalog_written((*entry).relid.to_u32());
            }
        }
    }
}

/// Reports a plan to the running fill, and makes it run without parallel workers if it may call functions that are not built in:
/// these may read more, and only their own process could observe that. A separate function, so that a session without a fill pays
/// for one check only.
#[cold]
#[inline(never)]
unsafe fn report_plan(query: *mut pg_sys::QueryDesc) {
    // SAFETY: as in `start`.
    unsafe {
        cursor::note_start(query);
        note_plan((*query).plannedstmt);
        if (*(*query).plannedstmt).parallelModeNeeded
            && observer::calls_functions()
            && !observer::note_workers()
        {
            (*query).plannedstmt = without_workers((*query).plannedstmt);
        }
    }
}

/// Returns a shallow copy of the plan that runs without parallel workers.
///
/// The original stays unchanged, because the plan may be cached for other executions. The copy is made in the memory context of the
/// query.
#[pg_guard]
unsafe extern "C-unwind" fn without_workers(plan: *const pg_sys::PlannedStmt) -> *mut pg_sys::PlannedStmt {
    // SAFETY: the copy has the size of a plan, and lives in the context in which the query's descriptor was just made.
    unsafe {
        let alone = pg_sys::palloc(size_of::<pg_sys::PlannedStmt>()).cast::<pg_sys::PlannedStmt>();
        alone.copy_from_nonoverlapping(plan, 1);
        (*alone).parallelModeNeeded = false;
        alone
    }
}

/// Notes what a plan reads, and whether it writes or locks rows.
#[pg_guard]
unsafe extern "C-unwind" fn note_plan(plan: *const pg_sys::PlannedStmt) {
    let mut seen = Seen { plans: 1, ..Seen::default() };
    // SAFETY: a plan's lists hold nodes of these types. The plans of subqueries are in a list of their own.
    unsafe {
        let locks = |mark: *const *const pg_sys::PlanRowMark| {
            (**mark).markType <= pg_sys::RowMarkType::ROW_MARK_KEYSHARE
        };
        seen.locks_rows = nodes::<pg_sys::PlanRowMark>((*plan).rowMarks).any(locks);
        seen.writes = (*plan).commandType != pg_sys::CmdType::CMD_SELECT || (*plan).hasModifyingCTE;
        note_plan_node((*plan).planTree, &mut seen);
        nodes::<pg_sys::Plan>((*plan).subplans).for_each(|plan| note_plan_node(*plan, &mut seen));
        seen.lost |= note_relations(plan, &mut seen).is_err();
    }
    observer::with_fill(|fill| fill.add(&seen));
}

/// Notes the relations of a plan, and separately the *parts*: relations that are in it only as partitions or children of other
/// relations. A *leaf* is a partition that is not partitioned itself.
unsafe fn note_relations(plan: *const pg_sys::PlannedStmt, seen: &mut Seen) -> Result<(), TryReserveError> {
    /// The index of a part in the range table of the plan, counted from 1, and that of the relation of which it is a part.
    struct Part {
        index: u32,
        whole: u32,
    }
    // SAFETY: a plan's lists hold nodes of these types. The indexes of relations are within its range table.
    unsafe {
        let mut parts = Vec::new();
        // The range table contains all leaf partitions that were left over when the plan was made. Those that the executor leaves
        // out are among them.
        for part in nodes::<pg_sys::AppendRelInfo>((*plan).appendRelations) {
            // The branches of a UNION ALL are in the same list, but are parts of no relation.
            if !(*part).is_null() && (**part).parent_reloid != pg_sys::InvalidOid {
                parts.try_reserve(1)?;
                parts.push(Part { index: (**part).child_relid, whole: (**part).parent_relid });
            }
        }
        parts.sort_unstable_by_key(|part| part.index);
        let whole_of = |index: u32| {
            let found = parts.binary_search_by_key(&index, |part| part.index).ok()?;
            parts.get(found).map(|part| part.whole)
        };
        let entries = (*plan).rtable;
        let entry_of = |index: u32| {
            let cell = (*entries).elements.add(index as usize - 1);
            (*cell).ptr_value.cast::<pg_sys::RangeTblEntry>().cast_const()
        };
        let is_partitioned =
            |entry: *const pg_sys::RangeTblEntry| (*entry).relkind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE;
        // The partitioned tables that have a leaf, by their indexes.
        let mut with_leaves = BTreeSet::new();
        for index in 1..=nodes::<pg_sys::RangeTblEntry>(entries).count() as u32 {
            let entry = entry_of(index);
            let oid = (*entry).relid.to_u32();
            if oid == 0 {
                continue;
            }
            let whole = whole_of(index);
            seen.lost |= !note(&mut seen.relations_named, oid);
            seen.note_relation(oid, whole.is_some());
            if (*entry).relkind as u8 == pg_sys::RELKIND_VIEW {
                seen.lost |= !note(&mut seen.views, oid);
            }
            if whole.is_some() && !is_partitioned(entry) {
                let root = std::iter::successors(whole, |index| whole_of(*index)).last().unwrap_or(index);
                if is_partitioned(entry_of(root)) {
                    let root_oid = (*entry_of(root)).relid.to_u32();
                    seen.lost |= !note_leaf(&mut seen.leaves, root_oid, oid);
                    seen.lost |= !note(&mut with_leaves, root);
                }
            }
        }
        for (index, entry) in (1..).zip(nodes::<pg_sys::RangeTblEntry>(entries)) {
            if is_partitioned(*entry) && whole_of(index).is_none() && !with_leaves.contains(&index) {
                seen.lost |= !note(&mut seen.leafless, (**entry).relid.to_u32());
            }
        }
    }
    Ok(())
}

/// Notes whether a plan uses TABLESAMPLE, or reads `xmin`, `xmax`, `cmin` or `cmax`.
unsafe fn note_plan_node(plan: *const pg_sys::Plan, seen: &mut Seen) {
    use pg_sys::NodeTag::*;
    if plan.is_null() {
        return;
    }
    // SAFETY: every node begins with its tag, which names its type, and every plan node begins with a `Plan`. Only scans name the
    // columns of relations.
    unsafe {
        pg_sys::check_stack_depth();
        let inner = match (*plan).type_ {
            T_SampleScan => {
                seen.sampled = true;
                std::ptr::null_mut()
            }
            T_SubqueryScan => {
                note_plan_node((*plan.cast::<pg_sys::SubqueryScan>()).subplan, seen);
                std::ptr::null_mut()
            }
            T_Append => (*plan.cast::<pg_sys::Append>()).appendplans,
            T_MergeAppend => (*plan.cast::<pg_sys::MergeAppend>()).mergeplans,
            T_CustomScan => (*plan.cast::<pg_sys::CustomScan>()).custom_plans,
            _ => std::ptr::null_mut(),
        };
        let none = std::ptr::null_mut();
        let reads = |list: *mut pg_sys::List| reads_system_columns(list.cast(), none);
        seen.system_columns |= reads((*plan).targetlist) || reads((*plan).qual);
        note_plan_node((*plan).lefttree, seen);
        note_plan_node((*plan).righttree, seen);
        nodes::<pg_sys::Plan>(inner).for_each(|plan| note_plan_node(*plan, seen));
    }
}

/// Returns whether an expression reads `xmin`, `xmax`, `cmin` or `cmax`. The server calls this for each node of an expression.
#[pg_guard]
#[allow(ffi_unwind_calls)] // The guard catches the error, and no value on this stack needs to be dropped.
unsafe extern "C-unwind" fn reads_system_columns(node: *mut pg_sys::Node, none: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: a node's tag names its type. The walker takes any node of an expression.
    unsafe {
        match (*node).type_ {
            pg_sys::NodeTag::T_Var => tree::is_transactional((*node.cast::<pg_sys::Var>()).varattno),
            _ => pg_sys::ffi::pg_guard_ffi_boundary(|| {
                tree::expression_tree_walker(node, reads_system_columns, none)
            }),
        }
    }
}
