//! Watches the executor: the hook runs when a plan starts.
//!
//! During a fill, the hook reports the relations of the plan (`observer.rs`). Outside of fills, it checks only whether a fill is
//! running and whether the plan writes to a system catalog, and it restores one flag (`restore_prepared_functions`). A write to a
//! catalog that all databases share takes the same locks as a harmless command, so the hook must report it (`definition.rs`).

#![allow(unsafe_code)]

#[cfg(debug_assertions)]
use super::targets;
use super::{definition, observer};
use pgrx::prelude::*;

/// The hook that was installed before ours, if any.
static mut PREVIOUS: pg_sys::ExecutorStart_hook_type = None;

unsafe extern "C-unwind" {
    /// Called without pgrx, whose guard would rebuild errors.
    fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int);
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
            attend(query);
        }
        // If the plan's start ends in an error, this value is not restored, and the functions that it has prepared count.
        let had_prepared = observer::has_prepared_functions();
        match PREVIOUS {
            Some(previous) => previous(query, flags),
            None => standard_ExecutorStart(query, flags),
        }
        observer::restore_prepared_functions(had_prepared);
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

/// Reports a plan to the running fill, and makes it run without parallel workers. A separate function, so that a session without a
/// fill pays for one check only.
#[cold]
#[inline(never)]
unsafe fn attend(query: *mut pg_sys::QueryDesc) {
    // SAFETY: as in `start`.
    unsafe {
        see((*query).plannedstmt);
        if (*(*query).plannedstmt).parallelModeNeeded {
            (*query).plannedstmt = without_workers((*query).plannedstmt);
        }
    }
}

/// Returns a shallow copy of the plan that runs without parallel workers: this process cannot observe what functions read in a
/// worker.
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

/// Notes the relations of a plan, and separately those that are in it only as parts of other relations, and whether it uses
/// TABLESAMPLE. This function must neither fail nor raise errors, because its caller has no guard: without memory, it notes that
/// something was lost.
unsafe fn see(plan: *const pg_sys::PlannedStmt) {
    observer::with_fill(|fill| {
        let mut parts = Vec::new();
        // SAFETY: a plan's lists hold nodes of these types. The plans of subqueries are in a list of their own.
        unsafe {
            fill.sampled |= samples((*plan).planTree)
                || nodes::<pg_sys::Plan>((*plan).subplans).any(|plan| samples(*plan));
            for part in nodes::<pg_sys::AppendRelInfo>((*plan).appendRelations) {
                // The branches of a UNION ALL are in the same list, but are parts of no relation.
                if (*part).is_null() || (**part).parent_reloid == pg_sys::InvalidOid {
                    continue;
                }
                if parts.try_reserve(1).is_err() {
                    fill.lost = true;
                    return;
                }
                parts.push((**part).child_relid);
            }
            parts.sort_unstable();
            for (index, entry) in nodes::<pg_sys::RangeTblEntry>((*plan).rtable).enumerate() {
                let oid = (**entry).relid;
                if oid != pg_sys::InvalidOid {
                    fill.note_relation(oid.to_u32(), parts.binary_search(&(index as u32 + 1)).is_ok());
                }
            }
        }
    });
}

/// Returns whether a plan uses TABLESAMPLE.
unsafe fn samples(plan: *const pg_sys::Plan) -> bool {
    use pg_sys::NodeTag::*;
    if plan.is_null() {
        return false;
    }
    // SAFETY: every node begins with its tag, which names its type, and every plan node begins with a `Plan`.
    unsafe {
        let inner = match (*plan).type_ {
            T_SampleScan => return true,
            T_SubqueryScan => return samples((*plan.cast::<pg_sys::SubqueryScan>()).subplan),
            T_Append => (*plan.cast::<pg_sys::Append>()).appendplans,
            T_MergeAppend => (*plan.cast::<pg_sys::MergeAppend>()).mergeplans,
            T_CustomScan => (*plan.cast::<pg_sys::CustomScan>()).custom_plans,
            _ => std::ptr::null_mut(),
        };
        samples((*plan).lefttree)
            || samples((*plan).righttree)
            || nodes::<pg_sys::Plan>(inner).any(|plan| samples(*plan))
    }
}

/// Returns the nodes of a list, as pointers to its cells. The list must be null or hold pointers to nodes of type `T`.
pub(super) unsafe fn nodes<T>(list: *const pg_sys::List) -> impl Iterator<Item = *const *const T> {
    // SAFETY: a list is a length and an array of as many pointers; an empty list is a null pointer.
    let (cells, length) = unsafe {
        if list.is_null() { (std::ptr::null_mut(), 0) } else { ((*list).elements, (*list).length) }
    };
    // SAFETY: `index` is within the array, and a cell is a pointer to a node.
    (0..length as usize).map(move |index| unsafe { cells.add(index).cast::<*const T>().cast_const() })
}
