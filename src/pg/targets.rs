//! Collects the relations that plans and commands name as their targets: a test oracle, in debug builds only.
//!
//! The transaction's locks tell what it has written (`locks.rs`). This file finds the same in another way, from the plans and
//! commands that the transaction runs. Each commit compares both (`compare` in `store/transaction/table_writes.rs`): a relation
//! that was named, and whose fence the commit does not raise, is an error.

#![allow(unsafe_code)]

use super::{relation, transaction};
use pgrx::pg_sys;
use std::cell::RefCell;

thread_local! {
    /// The named relations, each with the depth of the savepoint in which it was named.
    static NAMED: RefCell<Vec<(i32, u32)>> = const { RefCell::new(Vec::new()) };
}

/// Notes that a statement has named a relation as its target.
fn name(relation: u32) {
    let named = (transaction::depth(), relation);
    NAMED.with_borrow_mut(|all| {
        if !all.contains(&named) {
            all.push(named);
        }
    });
}

/// Returns the relations that the transaction has named so far.
pub fn named() -> Vec<u32> {
    NAMED.with_borrow(|all| all.iter().map(|(_, relation)| *relation).collect())
}

/// Moves the relations of a released savepoint to the level above it.
pub fn released(depth: i32) {
    NAMED.with_borrow_mut(|all| all.iter_mut().for_each(|(own, _)| *own = (*own).min(depth - 1)));
}

/// Forgets the relations of a savepoint that is rolled back.
pub fn rolled_back(depth: i32) {
    NAMED.with_borrow_mut(|all| all.retain(|(own, _)| *own < depth));
}

/// Forgets all relations when the transaction ends.
pub fn over() {
    NAMED.with_borrow_mut(Vec::clear);
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
            name((*entry).relid.to_u32());
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
    unsafe { relation::find(written) }.into_iter().for_each(name);
}

unsafe fn length(list: *const pg_sys::List) -> usize {
    // SAFETY: an empty list is a null pointer, and any other pointer points to a list.
    if list.is_null() { 0 } else { unsafe { (*list).length as usize } }
}
