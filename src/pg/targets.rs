//! Collects the relations that plans and commands name as their targets: the relations whose rows they insert, update or delete.
//! The library checks itself with them, in debug builds only, so every test runs the check.
//!
//! In all builds, a commit finds the relations that it has written by the transaction's locks (`locks.rs`), and by the server's
//! counters of changed rows (`row_changes.rs`). It raises the *fence* of each: the word in shared memory that says when the
//! relation last changed (`docs/architecture.md`). A relation that is locked as for a write, and for which the server has counted
//! no changed row, is *unchanged*, and gets no fence.
//!
//! This file finds the written relations in another way: from the plans and commands themselves. Each commit compares both
//! (`check_targets_are_fenced` in `store/transaction/table_writes/`), and raises an error
//! - for a named relation that is neither fenced nor unchanged;
//! - for a relation in [`changed`] that is not fenced, even if it counts as unchanged: the executor has processed rows of it, so
//!   the counters must have missed them.

#![allow(unsafe_code)]

use super::{relation, transaction};
use pgrx::pg_sys;
use std::cell::RefCell;

thread_local! {
    /// The named relations, each with the depth of the savepoint in which it was named.
    static NAMED: RefCell<Vec<(i32, u32)>> = const { RefCell::new(Vec::new()) };
    /// The targets of which a statement has processed rows, in the same form.
    static CHANGED: RefCell<Vec<(i32, u32)>> = const { RefCell::new(Vec::new()) };
}

/// A list of relations, each with the depth of a savepoint.
type List = std::thread::LocalKey<RefCell<Vec<(i32, u32)>>>;

/// Notes a relation, at the depth of the current savepoint.
fn note(list: &'static List, relation: u32) {
    let noted = (transaction::depth(), relation);
    list.with_borrow_mut(|all| {
        if !all.contains(&noted) {
            all.push(noted);
        }
    });
}

/// Notes that a statement has named a relation as its target.
fn note_named(relation: u32) {
    note(&NAMED, relation);
}

fn relations(list: &'static List) -> Vec<u32> {
    list.with_borrow(|all| all.iter().map(|(_, relation)| *relation).collect())
}

/// Returns the relations that the transaction has named so far.
pub fn named() -> Vec<u32> {
    relations(&NAMED)
}

/// Returns the named relations that have certainly changed. Rows of a child count as rows of its parent.
pub fn changed() -> Vec<u32> {
    relations(&CHANGED)
}

/// Calls `with` with each of the lists.
fn each_list(with: impl Fn(&mut Vec<(i32, u32)>)) {
    [&NAMED, &CHANGED].into_iter().for_each(|list| list.with_borrow_mut(&with));
}

/// Moves the relations of a released savepoint to the level above it.
pub fn released(depth: i32) {
    each_list(|all| all.iter_mut().for_each(|(own, _)| *own = (*own).min(depth - 1)));
}

/// Forgets the relations of a savepoint that is rolled back.
pub fn rolled_back(depth: i32) {
    each_list(|all| all.retain(|(own, _)| *own < depth));
}

/// Forgets all relations when the transaction ends.
pub fn over() {
    each_list(Vec::clear);
}

/// The hook that was installed before ours, if any.
static mut PREVIOUS: pg_sys::ExecutorFinish_hook_type = None;

unsafe extern "C-unwind" {
    /// Called without pgrx, whose guard would rebuild errors.
    fn standard_ExecutorFinish(query: *mut pg_sys::QueryDesc);
}

/// Installs the hook at the end of a plan. Must be called while the server loads the library.
pub fn hook() {
    // SAFETY: the postmaster runs this alone, before it has children. Our hook calls the previous hook.
    unsafe {
        PREVIOUS = pg_sys::ExecutorFinish_hook;
        pg_sys::ExecutorFinish_hook = Some(finish);
    }
}

/// The hook has no guard, so that errors of the query pass through unchanged. No value on this stack needs to be dropped.
#[allow(ffi_unwind_calls)]
unsafe extern "C-unwind" fn finish(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the next function is called as the server would call it.
    unsafe {
        note_processed(query);
        match PREVIOUS {
            Some(previous) => previous(query),
            None => standard_ExecutorFinish(query),
        }
    }
}

/// Notes the target of a plan that has changed rows, in the list of [`changed`]. `query` must have run.
unsafe fn note_processed(query: *const pg_sys::QueryDesc) {
    // SAFETY: the query has a plan and a state. A plan that changes rows begins with a `ModifyTable` node, and its indexes into the
    // list of relations are counted from 1.
    unsafe {
        let (plan, state) = ((*query).plannedstmt, (*query).estate);
        if state.is_null() || (*state).es_processed == 0 || (*plan).planTree.is_null() {
            return;
        }
        let node = (*plan).planTree.cast::<pg_sys::ModifyTable>();
        if (*node).plan.type_ == pg_sys::NodeTag::T_ModifyTable && (*node).canSetTag {
            let at = (*node).nominalRelation as usize - 1;
            let entry = (*(*(*plan).rtable).elements.add(at)).ptr_value.cast::<pg_sys::RangeTblEntry>();
            note(&CHANGED, (*entry).relid.to_u32());
        }
    }
}

/// Notes the targets of a plan that starts. `plan` must be a plan.
pub unsafe fn of_plan(plan: *const pg_sys::PlannedStmt) {
    // SAFETY: `resultRelations` holds indexes into the plan's list of relations, counted from 1.
    unsafe {
        let targets = (*plan).resultRelations;
        for at in 0..length(targets) {
            let index = (*(*targets).elements.add(at)).int_value as usize;
            let entry =
                (*(*(*plan).rtable).elements.add(index - 1)).ptr_value.cast::<pg_sys::RangeTblEntry>();
            note_named((*entry).relid.to_u32());
        }
    }
}

/// Notes the targets of a command that is about to run. `node` must be a parsed statement.
pub unsafe fn of_command(node: *const pg_sys::Node) {
    use pg_sys::NodeTag::*;
    // SAFETY: every node begins with its tag, which names its type.
    unsafe {
        match (*node).type_ {
            T_CopyStmt if (*node.cast::<pg_sys::CopyStmt>()).is_from => {
                find((*node.cast::<pg_sys::CopyStmt>()).relation);
            }
            T_TruncateStmt => {
                let relations = (*node.cast::<pg_sys::TruncateStmt>()).relations;
                (0..length(relations)).for_each(|at| find((*(*relations).elements.add(at)).ptr_value.cast()));
            }
            T_RefreshMatViewStmt => find((*node.cast::<pg_sys::RefreshMatViewStmt>()).relation),
            _ => {}
        }
    }
}

unsafe fn find(written: *const pg_sys::RangeVar) {
    // SAFETY: a name from a parsed statement.
    unsafe { relation::find(written) }.into_iter().for_each(note_named);
}

unsafe fn length(list: *const pg_sys::List) -> usize {
    // SAFETY: an empty list is a null pointer, and any other pointer points to a list.
    if list.is_null() { 0 } else { unsafe { (*list).length as usize } }
}
