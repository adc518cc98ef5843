//! Observes what a query reads and calls while it runs: every relation of every plan that starts meanwhile, also inside of functions, and
//! every function that a plan prepares to call.
//!
//! Only fills are observed. Outside of fills, the executor hook makes two checks only: whether a fill is running, and whether the plan
//! writes to a system catalog. A write to a catalog that all databases share takes the same locks as a harmless command, so the hook must
//! report it (`definition.rs`).

#![allow(unsafe_code)]

use super::allocator;
use super::local::local;
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

/// The relations and functions that a fill has read and called.
#[derive(Debug, Default)]
pub struct Seen {
    /// Relations that were named by a query. A table stands for all its partitions and children.
    pub relations: BTreeSet<u32>,
    /// Relations that were read as partitions or children of other relations.
    pub parts: BTreeSet<u32>,
    /// Whether the query read the cache. A value from the cache depends on more than was observed.
    pub cache: bool,
    /// Whether observations were lost because memory was short.
    pub lost: bool,
    /// Whether the query itself calls a volatile function.
    pub volatile: bool,
    /// Whether the query uses TABLESAMPLE.
    pub sampled: bool,
    /// Functions that are not built in.
    pub functions: BTreeSet<u32>,
    /// Whether a built-in function was called whose result depends on state that no fence covers.
    pub untracked: bool,
}

local! {
    /// One element for each running fill; the innermost is the last.
    static FILLS: RefCell<Vec<Seen>> = RefCell::new(Vec::new());
}

local! {
    /// Whether this transaction has prepared a call of an untracked function. PL/pgSQL prepares an expression once in a transaction, so a
    /// later fill that evaluates the expression again does not observe the call.
    static HAS_PREPARED_UNTRACKED: Cell<bool> = Cell::new(false);
}

local! {
    /// Like [`HAS_PREPARED_UNTRACKED`], for functions that are not built in. Functions that plans call do not count: a plan prepares its
    /// calls anew whenever it starts.
    static HAS_PREPARED_FUNCTIONS: Cell<bool> = Cell::new(false);
}

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
        super::targets::of_plan((*query).plannedstmt);
        if !(*(*query).plannedstmt).resultRelations.is_null() {
            note_targets((*query).plannedstmt);
        }
        if is_filling() {
            attend(query);
        }
        // If the plan's start ends in an error, this value is not restored, and the functions that it has prepared count.
        let has_prepared = HAS_PREPARED_FUNCTIONS.get();
        match PREVIOUS {
            Some(previous) => previous(query, flags),
            None => standard_ExecutorStart(query, flags),
        }
        HAS_PREPARED_FUNCTIONS.set(has_prepared);
    }
}

/// Reports a plan that writes to a system catalog.
unsafe fn note_targets(plan: *const pg_sys::PlannedStmt) {
    // SAFETY: `resultRelations` holds positions in the plan's list of relations, counted from 1.
    unsafe {
        let targets = (*plan).resultRelations;
        for at in 0..(*targets).length as usize {
            let place = (*(*targets).elements.add(at)).int_value as usize;
            let entry =
                (*(*(*plan).rtable).elements.add(place - 1)).ptr_value.cast::<pg_sys::RangeTblEntry>();
            if (*entry).relid.to_u32() < pg_sys::FirstNormalObjectId {
                super::definition::catalog_written((*entry).relid.to_u32());
            }
        }
    }
}

/// A separate function, so that a session without a fill pays for one check only.
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

/// Built-in functions whose results depend on state that no fence covers: indexes, files, constraints, triggers, statistics,
/// publications, replication origins, new schemas, and names of relations.
const UNTRACKED: [u32; 39] = [
    636, 637, 638, 1079, 1387, 1643, 1662, 1665, 2079, 2507, 2508, 2556, 2730, 2999, 3034, 3035, 3082, 3083,
    3084, 3382, 3403, 3415, 3454, 3495, 3537, 3778, 3781, 3839, 3842, 3843, 3954, 4086, 6005, 6119, 6120,
    6121, 6173, 6174, 6197,
];

/// The same list as a set of bits: it is searched for every function of every plan.
const UNTRACKED_BITS: [u64; 97] = {
    let (mut bits, mut place) = ([0; 97], 0);
    while place < UNTRACKED.len() {
        bits[UNTRACKED[place] as usize / 64] |= 1 << (UNTRACKED[place] % 64);
        place += 1;
    }
    bits
};

fn is_untracked(function: u32) -> bool {
    UNTRACKED_BITS.get(function as usize / 64).is_some_and(|bits| bits >> (function % 64) & 1 == 1)
}

/// Notes that a plan, or a simple expression of PL/pgSQL, prepares a call of a function.
#[inline]
pub fn note_function(function: u32) {
    let is_untracked = is_untracked(function);
    if is_untracked {
        HAS_PREPARED_UNTRACKED.set(true);
    }
    if function >= pg_sys::FirstNormalObjectId {
        HAS_PREPARED_FUNCTIONS.set(true);
    }
    if is_filling() {
        FILLS.with_borrow_mut(|fills| {
            let Some(fill) = fills.last_mut() else { return };
            if function >= pg_sys::FirstNormalObjectId {
                fill.lost |= !note(&mut fill.functions, function);
            }
            fill.untracked |= is_untracked;
        });
    }
}

/// Returns whether this transaction may have prepared expressions that call untracked functions.
pub fn has_prepared_untracked() -> bool {
    HAS_PREPARED_UNTRACKED.get()
}

/// Returns whether this transaction may have prepared expressions that call functions that are not built in.
pub fn has_prepared_functions() -> bool {
    HAS_PREPARED_FUNCTIONS.get()
}

/// Forgets the prepared calls when the transaction ends. Cannot fail.
#[inline]
pub fn over() {
    HAS_PREPARED_UNTRACKED.set(false);
    HAS_PREPARED_FUNCTIONS.set(false);
}

/// Returns whether a fill is running.
#[inline]
pub fn is_filling() -> bool {
    FILLS.with_borrow(|fills| !fills.is_empty())
}

/// Notes that the cache was read; it counts for every running fill.
#[inline]
pub fn note_cache() {
    if is_filling() {
        FILLS.with_borrow_mut(|fills| fills.iter_mut().for_each(|fill| fill.cache = true));
    }
}

/// Notes that the query of the current fill, which is about to run, calls a volatile function.
pub fn note_volatile() {
    FILLS.with_borrow_mut(|fills| fills.last_mut().into_iter().for_each(|fill| fill.volatile = true));
}

/// Returns a copy of the plan that runs without parallel workers: this process cannot observe what functions read in a worker.
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

/// Notes the relations of a plan, and separately those that are in it only as parts of other relations. This function must neither fail
/// nor raise errors: its caller has no guard.
unsafe fn see(plan: *const pg_sys::PlannedStmt) {
    FILLS.with_borrow_mut(|fills| {
        let Some(fill) = fills.last_mut() else { return };
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
            for (place, entry) in nodes::<pg_sys::RangeTblEntry>((*plan).rtable).enumerate() {
                let number = (**entry).relid;
                if number != pg_sys::InvalidOid {
                    let is_part = parts.binary_search(&(place as u32 + 1)).is_ok();
                    let set = if is_part { &mut fill.parts } else { &mut fill.relations };
                    fill.lost |= !note(set, number.to_u32());
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

/// Adds a number. Returns false if there is no memory for it.
fn note(numbers: &mut BTreeSet<u32>, number: u32) -> bool {
    let has_memory = !allocator::is_short();
    if has_memory {
        numbers.insert(number);
    }
    has_memory
}

/// Returns the nodes of a list.
unsafe fn nodes<T>(list: *const pg_sys::List) -> impl Iterator<Item = *const *const T> {
    // SAFETY: a list is a length and an array of as many pointers; an empty list is a null pointer.
    let (cells, length) = unsafe {
        if list.is_null() { (std::ptr::null_mut(), 0) } else { ((*list).elements, (*list).length) }
    };
    // SAFETY: `place` is within the array, and a cell is a pointer to a node.
    (0..length as usize).map(move |place| unsafe { cells.add(place).cast::<*const T>().cast_const() })
}

/// Runs `run` and returns what it read and called. The observations count for the enclosing fill, too.
pub fn observe<R>(run: impl FnOnce() -> R) -> (R, Seen) {
    /// Removes the fill from the list, also if `run` ends in an error.
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
            around.lost |= seen.lost;
            around.lost |= !seen.relations.iter().all(|number| note(&mut around.relations, *number));
            around.lost |= !seen.parts.iter().all(|number| note(&mut around.parts, *number));
            around.cache |= seen.cache;
            around.sampled |= seen.sampled;
            around.lost |= !seen.functions.iter().all(|number| note(&mut around.functions, *number));
            around.untracked |= seen.untracked;
        }
    });
    (result, seen)
}
