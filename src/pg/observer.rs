//! What a query reads, seen while it runs: every relation of every plan that is started meanwhile, in whatever function.
//!
//! Writers are not watched, and neither is anybody while nothing is being filled: then the hook asks one question and goes on.

#![allow(unsafe_code)]

use super::local::Local;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// The relations that were named: a table stands for all that is part of it.
    pub relations: BTreeSet<u32>,
    /// Whether the cache was asked: what came from it depends on more than was seen.
    pub cache: bool,
}

/// One for each fill that is going on, the innermost last.
static FILLS: Local<RefCell<Vec<Seen>>> = Local::new(RefCell::new(Vec::new()));

static mut PREVIOUS: pg_sys::ExecutorStart_hook_type = None;

unsafe extern "C-unwind" {
    /// Not by way of pgrx, whose guard would take errors apart.
    fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int);
}

/// Has the server tell of queries. To be called while it loads us.
pub fn hook() {
    // SAFETY: the postmaster runs this alone, before it has children. Whoever was hooked before is called by us.
    unsafe {
        PREVIOUS = pg_sys::ExecutorStart_hook;
        pg_sys::ExecutorStart_hook = Some(start);
    }
}

/// Without a guard, so that an error in the query passes as it is: nothing on this stack is to be dropped.
#[allow(ffi_unwind_calls)]
unsafe extern "C-unwind" fn start(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int) {
    // SAFETY: as the server would call it. The plan stands as long as the query does.
    unsafe {
        if is_filling() {
            see((*query).plannedstmt);
        }
        match PREVIOUS {
            Some(previous) => previous(query, flags),
            None => standard_ExecutorStart(query, flags),
        }
    }
}

/// Whether something is being filled.
#[inline]
pub fn is_filling() -> bool {
    FILLS.with_borrow(|fills| !fills.is_empty())
}

/// Says that the cache was asked in the middle of a fill.
#[inline]
pub fn note_cache() {
    if is_filling() {
        FILLS.with_borrow_mut(|fills| fills.iter_mut().for_each(|fill| fill.cache = true));
    }
}

/// Notes the relations of a plan, without those that are there only as parts of others.
unsafe fn see(plan: *const pg_sys::PlannedStmt) {
    // SAFETY: lists of nodes of the types that a plan has there.
    let relations: Vec<u32> = unsafe {
        let parts: BTreeSet<u32> = nodes::<pg_sys::AppendRelInfo>((*plan).appendRelations)
            .filter(|part| !(**part).is_null())
            .map(|part| (**part).child_relid)
            .collect();
        let tables = nodes::<pg_sys::RangeTblEntry>((*plan).rtable).enumerate().filter(|(place, entry)| {
            (***entry).relid != pg_sys::InvalidOid && !parts.contains(&(*place as u32 + 1))
        });
        tables.map(|(_, entry)| (**entry).relid.to_u32()).collect()
    };
    FILLS.with_borrow_mut(|fills| {
        if let Some(fill) = fills.last_mut() {
            fill.relations.extend(relations);
        }
    });
}

/// The nodes of a list.
unsafe fn nodes<T>(list: *const pg_sys::List) -> impl Iterator<Item = *const *const T> {
    // SAFETY: a list is a length and an array of as many pointers; no list is a null pointer.
    let (cells, length) = unsafe {
        if list.is_null() { (std::ptr::null_mut(), 0) } else { ((*list).elements, (*list).length) }
    };
    // SAFETY: within the array. A cell is a pointer to a node.
    (0..length as usize).map(move |place| unsafe { cells.add(place).cast::<*const T>().cast_const() })
}

/// Watches what is read while something runs. What is seen belongs to the fill around this one, too.
pub fn observe<R>(run: impl FnOnce() -> R) -> (R, Seen) {
    /// Takes the fill off the list also if what runs ends in an error.
    struct Fill;
    impl Drop for Fill {
        fn drop(&mut self) {
            FILLS.with_borrow_mut(Vec::pop);
        }
    }
    FILLS.with_borrow_mut(|fills| fills.push(Seen::default()));
    let fill = Fill;
    let result = run();
    let seen = FILLS.with_borrow_mut(|fills| fills.last_mut().map(std::mem::take)).unwrap_or_default();
    drop(fill);
    FILLS.with_borrow_mut(|fills| {
        if let Some(around) = fills.last_mut() {
            around.relations.extend(&seen.relations);
            around.cache |= seen.cache;
        }
    });
    (result, seen)
}
