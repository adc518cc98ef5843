//! What a query reads and calls, observed while it runs: every relation of every plan that is started meanwhile, in whatever function,
//! and every function that a plan prepares to call.
//!
//! Only fills are observed. Otherwise the hook of the executor asks two questions: whether something is being filled, and whether the plan
//! writes to a catalog that all databases share. Such a write leaves no lock that tells it from a harmless command (`definition.rs`).

#![allow(unsafe_code)]

use super::allocator;
use super::local::local;
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// The relations that were named: a table stands for all that is part of it.
    pub relations: BTreeSet<u32>,
    /// Those that were read as parts of others.
    pub parts: BTreeSet<u32>,
    /// Whether the cache was asked: what came from it depends on more than was seen.
    pub cache: bool,
    /// Whether there was no memory to note all of that.
    pub lost: bool,
    /// Whether the query itself calls what may return another thing each time.
    pub volatile: bool,
    /// Whether rows were chosen by chance.
    pub sampled: bool,
    /// Functions that are not built in.
    pub functions: BTreeSet<u32>,
    /// Whether a built-in function was called that tells of what no fence follows.
    pub untracked: bool,
}

local! {
    /// One for each fill that is going on, the innermost last.
    static FILLS: RefCell<Vec<Seen>> = RefCell::new(Vec::new());
}

local! {
    /// Whether something in this transaction has prepared to call a function that is untracked. PL/pgSQL prepares an expression once in a
    /// transaction, so a fill that evaluates it again is not told.
    static HAS_PREPARED_UNTRACKED: Cell<bool> = Cell::new(false);
}

local! {
    /// The same of functions that are not built in, but for those that plans call: a plan prepares anew whenever it starts.
    static HAS_PREPARED_FUNCTIONS: Cell<bool> = Cell::new(false);
}

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
        #[cfg(debug_assertions)]
        super::targets::of_plan((*query).plannedstmt);
        if !(*(*query).plannedstmt).resultRelations.is_null() {
            note_targets((*query).plannedstmt);
        }
        if is_filling() {
            attend(query);
        }
        // Should it end in an error, what it has prepared counts.
        let has_prepared = HAS_PREPARED_FUNCTIONS.get();
        match PREVIOUS {
            Some(previous) => previous(query, flags),
            None => standard_ExecutorStart(query, flags),
        }
        HAS_PREPARED_FUNCTIONS.set(has_prepared);
    }
}

/// Reports a plan that writes to a shared catalog.
unsafe fn note_targets(plan: *const pg_sys::PlannedStmt) {
    // SAFETY: places in the list of the plan's relations, from 1 on.
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

/// A function of its own, so that a session that fills nothing pays for one question.
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

/// Built-in functions whose results depend on what no fence follows: indexes, files, constraints, triggers, statistics, publications,
/// origins of replication, new schemas, and names of relations.
const UNTRACKED: [u32; 39] = [
    636, 637, 638, 1079, 1387, 1643, 1662, 1665, 2079, 2507, 2508, 2556, 2730, 2999, 3034, 3035, 3082, 3083,
    3084, 3382, 3403, 3415, 3454, 3495, 3537, 3778, 3781, 3839, 3842, 3843, 3954, 4086, 6005, 6119, 6120,
    6121, 6173, 6174, 6197,
];

/// The same as a set of bits, because every function of every plan is looked for in it.
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

/// A plan, or a simple expression of PL/pgSQL, prepares to call a function.
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

/// Whether expressions that call untracked functions may have been prepared before in this transaction.
pub fn has_prepared_untracked() -> bool {
    HAS_PREPARED_UNTRACKED.get()
}

/// The same of functions that are not built in.
pub fn has_prepared_functions() -> bool {
    HAS_PREPARED_FUNCTIONS.get()
}

/// The transaction is over, and with it what it has prepared. Cannot fail.
#[inline]
pub fn over() {
    HAS_PREPARED_UNTRACKED.set(false);
    HAS_PREPARED_FUNCTIONS.set(false);
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

/// Says that the query that is about to run for a fill calls what may return another thing each time.
pub fn note_volatile() {
    FILLS.with_borrow_mut(|fills| fills.last_mut().into_iter().for_each(|fill| fill.volatile = true));
}

/// The same plan for this process alone: what functions read in those that help with a query, nobody here would see.
///
/// A copy where the query itself is, because the plan may be kept for others.
#[pg_guard]
unsafe extern "C-unwind" fn without_workers(plan: *const pg_sys::PlannedStmt) -> *mut pg_sys::PlannedStmt {
    // SAFETY: memory of its size, in the context in which the query's description was just made.
    unsafe {
        let alone = pg_sys::palloc(size_of::<pg_sys::PlannedStmt>()).cast::<pg_sys::PlannedStmt>();
        alone.copy_from_nonoverlapping(plan, 1);
        (*alone).parallelModeNeeded = false;
        alone
    }
}

/// Notes the relations of a plan, and apart from them those that are there only as parts of others. Neither fails nor raises errors:
/// the caller is not guarded.
unsafe fn see(plan: *const pg_sys::PlannedStmt) {
    FILLS.with_borrow_mut(|fills| {
        let Some(fill) = fills.last_mut() else { return };
        let mut parts = Vec::new();
        // SAFETY: lists of nodes of the types that a plan has there. The plans of subqueries are a list of their own.
        unsafe {
            fill.sampled |= samples((*plan).planTree)
                || nodes::<pg_sys::Plan>((*plan).subplans).any(|plan| samples(*plan));
            for part in nodes::<pg_sys::AppendRelInfo>((*plan).appendRelations) {
                // The branches of a UNION ALL stand in the same list, and are parts of no relation.
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

/// Whether a plan chooses rows of a table by chance.
unsafe fn samples(plan: *const pg_sys::Plan) -> bool {
    use pg_sys::NodeTag::*;
    if plan.is_null() {
        return false;
    }
    // SAFETY: every node begins with its tag, which says what it is, and the node of a plan with a plan.
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

/// Adds a number. False if there is no memory for it.
fn note(numbers: &mut BTreeSet<u32>, number: u32) -> bool {
    let has_memory = !allocator::is_short();
    if has_memory {
        numbers.insert(number);
    }
    has_memory
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
