//! Notices that a *fill*, a query whose result may be stored (`observer.rs`), reads from a cursor that was opened before it. Such a
//! result must not be stored: the rows of the cursor belong to an older snapshot, and other sessions do not have the cursor.
//!
//! The server keeps the rows of some cursors when it closes their plans, such as a cursor `WITH HOLD` after its transaction.
//! This file does not notice a read from these; `pg/query/cursors.rs` counts them instead.

#![allow(unsafe_code)]

use super::allocator;
use super::local::local;
use super::run_hook::run_hook;
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

/// The plans of a running fill.
#[derive(Debug, Default)]
struct Plans {
    /// The addresses of the plans that have started during the fill. Those of plans that have ended stay: no plan that was started
    /// before the fill can have one of them.
    started: BTreeSet<usize>,
    /// Whether a plan was continued that was started before the fill. It is also set if memory is short.
    has_read: bool,
}

/// The hook that was installed before ours, if any.
static mut PREVIOUS: pg_sys::ExecutorRun_hook_type = None;

local! {
    /// One element for each running fill; the innermost is the last.
    static FILLS: RefCell<Vec<Plans>> = RefCell::new(Vec::new());
}

local! {
    /// Whether our hook is installed. It is installed during fills only, so that other plans do not pay for it.
    static IS_HOOKED: Cell<bool> = Cell::new(false);
}

/// A running fill, until this value is dropped.
#[derive(Debug)]
pub struct Watch(());

/// Watches the plans of a fill.
pub fn watch() -> Watch {
    FILLS.with_borrow_mut(|fills| fills.push(Plans::default()));
    hook_if_filling();
    Watch(())
}

impl Watch {
    /// Returns whether the fill has read from a cursor that was opened before.
    pub fn has_read_cursor(&self) -> bool {
        FILLS.with_borrow(|fills| fills.last().is_some_and(|plans| plans.has_read))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        FILLS.with_borrow_mut(Vec::pop);
        hook_if_filling();
    }
}

/// Fills whose plans are not watched until this value is dropped.
#[derive(Debug)]
pub struct Pause(Vec<Plans>);

/// Stops watching the plans of the running fills. `observer::apart` calls this for plans that do not belong to the query of a fill.
pub fn pause() -> Pause {
    let pause = Pause(FILLS.take());
    hook_if_filling();
    pause
}

impl Drop for Pause {
    fn drop(&mut self) {
        FILLS.replace(std::mem::take(&mut self.0));
        hook_if_filling();
    }
}

/// Installs our hook if a fill is watched, and removes it otherwise.
fn hook_if_filling() {
    let is_filling = FILLS.with_borrow(|fills| !fills.is_empty());
    // SAFETY: only this thread uses the hooks (`local.rs`). Our hook calls the previous hook.
    unsafe {
        let is_ours = |hook: Hook| std::ptr::fn_addr_eq(hook, run as Hook);
        if is_filling && !IS_HOOKED.replace(true) {
            PREVIOUS = pg_sys::ExecutorRun_hook;
            pg_sys::ExecutorRun_hook = Some(run);
        }
        // If a library was loaded meanwhile whose hook calls ours, our hook stays.
        if !is_filling && IS_HOOKED.get() && pg_sys::ExecutorRun_hook.is_some_and(is_ours) {
            pg_sys::ExecutorRun_hook = PREVIOUS;
            IS_HOOKED.set(false);
        }
    }
}

/// The type of the hook, without the option.
type Hook = <pg_sys::ExecutorRun_hook_type as IntoIterator>::Item;

/// Notes that a plan starts.
pub fn note_start(plan: *const pg_sys::QueryDesc) {
    with_plans(|plans| match allocator::is_short() {
        true => plans.has_read = true,
        false => _ = plans.started.insert(plan.addr()),
    });
}

/// Notes that a plan is continued.
fn note_run(plan: *const pg_sys::QueryDesc) {
    with_plans(|plans| plans.has_read |= !plans.started.contains(&plan.addr()));
}

/// Calls `note` with the plans of the innermost running fill, if a fill is running.
fn with_plans(note: impl FnOnce(&mut Plans)) {
    FILLS.with_borrow_mut(|fills| fills.last_mut().map(note));
}

run_hook!(run, PREVIOUS, note_run);
