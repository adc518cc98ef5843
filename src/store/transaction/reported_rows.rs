//! The changed rows that the trigger of a watched table has reported (`store/row_tags.rs`), counted for each relation. The
//! transaction invalidates the tags of each reported row.
//!
//! If the number of reported rows equals the number that the server has counted, then all changed rows were reported.
//! `table_writes/` compares both at the commit: if they differ, it invalidates all values that depend on single rows of the
//! relation.

use crate::pg::error::OrRaise;
use crate::pg::local::local;
use crate::pg::memory::OutOfMemory;
use crate::pg::transaction;
use std::cell::RefCell;
use std::ops::AddAssign;

/// A number of rows, before and after their changes: an update has both, an insert only the new row, a delete only the old one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// The number of rows before their changes.
    pub old: u64,
    /// The number of rows after their changes.
    pub new: u64,
}

impl AddAssign for Reported {
    fn add_assign(&mut self, other: Self) {
        self.old += other.old;
        self.new += other.new;
    }
}

/// The rows of one relation that were reported in one savepoint.
#[derive(Clone, Copy, Debug)]
struct Counted {
    /// The OID of the relation.
    relation: u32,
    /// The nesting level of the savepoint.
    depth: i32,
    /// The numbers of reported old and new rows.
    reported: Reported,
    /// Whether the tags of a changed row could not be invalidated.
    is_incomplete: bool,
}

local! {
    /// The reported rows of the transaction. Those of inner savepoints come after those of outer ones.
    static REPORTED: RefCell<Vec<Counted>> = RefCell::new(Vec::new());
}

/// Calls `with` with the counts of a relation in the innermost savepoint. Raises an error if there is no memory for them.
fn count(relation: u32, with: impl FnOnce(&mut Counted)) {
    let depth = transaction::depth();
    let counted: Result<(), OutOfMemory> = REPORTED.with_borrow_mut(|all| {
        let is_it = |counted: &Counted| counted.relation == relation && counted.depth == depth;
        if !all.iter().any(is_it) {
            all.try_reserve(1)?;
            all.push(Counted { relation, depth, reported: Reported::default(), is_incomplete: false });
        }
        if let Some(counted) = all.iter_mut().rfind(|counted| is_it(counted)) {
            with(counted);
        }
        Ok(())
    });
    counted.or_raise();
}

/// Notes that the tags of a changed row of a relation were invalidated. May raise errors.
pub fn count_reported(relation: u32, has_old: bool, has_new: bool) {
    count(relation, |counted| counted.reported += Reported { old: has_old.into(), new: has_new.into() });
}

/// Notes that the tags of a changed row of a relation could not be invalidated. May raise errors.
pub fn mark_incomplete(relation: u32) {
    count(relation, |counted| counted.is_incomplete = true);
}

/// Returns whether the tags of a changed row of a relation could not be invalidated.
pub fn is_incomplete(relation: u32) -> bool {
    REPORTED
        .with_borrow(|all| all.iter().any(|counted| counted.relation == relation && counted.is_incomplete))
}

/// Returns the number of reported rows of a relation. None if the tags of a changed row could not be invalidated. Cannot fail.
pub fn of(relation: u32) -> Option<Reported> {
    let mut sum = Reported::default();
    REPORTED.with_borrow(|all| {
        all.iter().filter(|counted| counted.relation == relation).try_for_each(|counted| {
            sum += counted.reported;
            (!counted.is_incomplete).then_some(())
        })
    })?;
    Some(sum)
}

/// Releases a savepoint: its rows now belong to the savepoint around it. Does not allocate.
pub fn released(depth: i32) {
    REPORTED.with_borrow_mut(|all| {
        let mut at = all.iter().position(|counted| counted.depth >= depth).unwrap_or(all.len());
        while at < all.len() {
            let inner = all[at];
            let is_outer =
                |counted: &Counted| counted.relation == inner.relation && counted.depth == depth - 1;
            match all[..at].iter().position(is_outer) {
                Some(outer) => {
                    all[outer].reported += inner.reported;
                    all[outer].is_incomplete |= inner.is_incomplete;
                    all.remove(at);
                }
                None => {
                    all[at].depth = depth - 1;
                    at += 1;
                }
            }
        }
    });
}

/// Removes the rows of a savepoint and of the savepoints inside it. Does not allocate.
pub fn rolled_back(depth: i32) {
    REPORTED.with_borrow_mut(|all| all.retain(|counted| counted.depth < depth));
}

/// Forgets all rows, at the end of the transaction. Cannot fail.
pub fn end() {
    if let Ok(mut all) = REPORTED.try_borrow_mut() {
        all.clear();
    }
}
