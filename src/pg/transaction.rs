//! Transaction events of this session, passed on to one listener.
//!
//! The order in which PostgreSQL commits decides what may happen when:
//!
//! 1. *before commit*: the last moment at which anything may fail. Other sessions cannot see the changes yet.
//! 2. *committed*: other sessions see the changed rows. The locks are still held, and the catalog invalidations have not been
//!    sent, so a session that plans now may still use the old catalogs.
//! 3. *settled*: the invalidations are sent and the locks are released. Every session that accepts invalidation messages from now
//!    on sees all that the transaction has changed.
//!
//! After 1 an error would restart the server, so 2 and 3 must neither raise an error nor allocate.
//!
//! A transaction that is prepared for a two-phase commit passes *before prepare* and *prepared* instead. *Aborted* is also called
//! when the session is killed.

#![allow(unsafe_code)]

use super::local::{check_thread, local};
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::c_void;

/// Receives the events of this session's transactions.
///
/// Most transactions change nothing that the listener cares about, and pgrx's guard against errors costs more than the rest.
/// `has_nothing` and `over` are therefore called outside of that guard: they must neither raise an error nor panic.
pub trait Listener {
    /// Whether nothing is kept for the transaction so far, and nothing has to be prepared for its end. If the transaction has no
    /// transaction id either, its other events are not passed on.
    fn has_nothing() -> bool;
    /// The transaction has ended, in whatever way. Called last.
    fn over();
    /// The transaction is about to commit. May raise errors, which abort it.
    fn before_commit();
    /// The transaction is about to be prepared, and another session may commit it later. May raise errors.
    fn before_prepare();
    /// The transaction is prepared and does not belong to this session any more. Must not fail.
    fn prepared();
    /// Other sessions see the changed rows, and the locks are still held. Must not fail.
    fn committed();
    /// Other sessions see everything that has changed. Follows each `committed`. Must not fail.
    fn settled();
    /// The transaction is rolled back.
    fn aborted();
    /// A savepoint at this depth has been released: its changes now belong to the level around it.
    fn released(depth: i32);
    /// A savepoint at this depth has been rolled back.
    fn rolled_back(depth: i32);
}

/// Registers a listener. Must be called once, while the server loads the library: every process inherits the callbacks, and of the
/// callbacks before a commit the first that was registered runs last, when no other library writes any more.
pub fn listen<L: Listener>() {
    // SAFETY: the server's own lists, which this process alone has; the functions stay as long as the library does.
    unsafe {
        pg_sys::RegisterXactCallback(Some(transaction::<L>), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(savepoint::<L>), std::ptr::null_mut());
        pg_sys::RegisterResourceReleaseCallback(Some(released::<L>), std::ptr::null_mut());
    }
}

local! {
    /// Whether `committed` was called and `settled` was not yet.
    static UNSETTLED: Cell<bool> = Cell::new(false);
}

unsafe extern "C" {
    /// As they are: what is asked for with every change need not go through the guard for errors.
    fn GetCurrentCommandId(used: bool) -> pg_sys::CommandId;
    fn GetCurrentTransactionNestLevel() -> std::ffi::c_int;
    fn GetTopTransactionIdIfAny() -> pg_sys::TransactionId;
}

/// Whether the transaction has a number, which it is given with its first change of the database. It still has it when it is told
/// that it is over.
#[inline]
pub fn has_number() -> bool {
    check_thread();
    // SAFETY: reads a variable, and raises no error.
    unsafe { GetTopTransactionIdIfAny() != pg_sys::InvalidTransactionId }
}

/// The number of the command that runs: it grows with each command of the transaction that has written something.
pub fn command() -> u32 {
    check_thread();
    // SAFETY: reads a variable, which does not count as writing, and raises no error.
    unsafe { GetCurrentCommandId(false) }
}

/// The command that runs writes something of which the server does not count it as writing: it empties in place what this transaction
/// has made, or has emptied before.
pub fn note_change() {
    // SAFETY: what the server does itself in a command that writes.
    unsafe { pg_sys::GetCurrentCommandId(true) };
}

/// The same for whoever comes after the last command: it is another number if that one has written something.
pub fn command_after_all() -> u32 {
    // SAFETY: what the server does itself between commands.
    unsafe { pg_sys::CommandCounterIncrement() };
    command()
}

/// Whether this process helps with a query of another session. It does not know what the transaction has changed, and has nothing
/// of its own to commit. Our functions get here only by way of one that was wrongly declared PARALLEL SAFE.
#[inline]
pub fn is_parallel_worker() -> bool {
    // SAFETY: a plain global.
    unsafe { pg_sys::ParallelWorkerNumber >= 0 }
}

/// How deep in savepoints the session is; 1 outside of all.
pub fn depth() -> i32 {
    check_thread();
    // SAFETY: reads a variable, and raises no error.
    unsafe { GetCurrentTransactionNestLevel() }
}

unsafe extern "C-unwind" fn transaction<L: Listener>(event: pg_sys::XactEvent::Type, _nothing: *mut c_void) {
    use pg_sys::XactEvent::*;
    if event == XACT_EVENT_ABORT && UNSETTLED.get() {
        // A transaction without a transaction id failed after its COMMIT callbacks: its changes are visible all the same.
        settle::<L>();
        return;
    }
    if has_number() || !L::has_nothing() {
        tell::<L>(event);
        UNSETTLED.set(event == XACT_EVENT_COMMIT);
    }
    if matches!(event, XACT_EVENT_COMMIT | XACT_EVENT_PREPARE | XACT_EVENT_ABORT) && !UNSETTLED.get() {
        over::<L>();
    }
}

/// Runs when a resource owner releases its resources, in three phases. The last phase at top level comes after a commit's
/// invalidations and locks.
unsafe extern "C-unwind" fn released<L: Listener>(
    phase: pg_sys::ResourceReleasePhase::Type,
    _is_commit: bool,
    is_top_level: bool,
    _nothing: *mut c_void,
) {
    // Resource owners inside of the transaction's own repeat its phases, and so does PREPARE TRANSACTION: the first call after
    // `committed` is the right one.
    if is_top_level && phase == pg_sys::ResourceReleasePhase::RESOURCE_RELEASE_AFTER_LOCKS && UNSETTLED.get()
    {
        settle::<L>();
    }
}

#[inline(never)]
fn settle<L: Listener>() {
    UNSETTLED.set(false);
    // SAFETY: called by the server, with nothing to drop in between.
    unsafe { pg_sys::panic::pgrx_extern_c_guard(L::settled) };
    over::<L>();
}

#[inline]
fn over<L: Listener>() {
    L::over();
    #[cfg(debug_assertions)]
    super::targets::over();
}

#[inline(never)]
fn tell<L: Listener>(event: pg_sys::XactEvent::Type) {
    use pg_sys::XactEvent::*;
    let tell = || match event {
        XACT_EVENT_PRE_COMMIT => L::before_commit(),
        XACT_EVENT_PRE_PREPARE => L::before_prepare(),
        XACT_EVENT_COMMIT => L::committed(),
        XACT_EVENT_PREPARE => L::prepared(),
        XACT_EVENT_ABORT => L::aborted(),
        // A parallel worker has changed nothing of the cache: the functions are restricted to the leader.
        _ => {}
    };
    // SAFETY: called by the server, with nothing to drop in between.
    unsafe { pg_sys::panic::pgrx_extern_c_guard(tell) }
}

unsafe extern "C-unwind" fn savepoint<L: Listener>(
    event: pg_sys::SubXactEvent::Type,
    _this: pg_sys::SubTransactionId,
    _around: pg_sys::SubTransactionId,
    _nothing: *mut c_void,
) {
    if !L::has_nothing() {
        tell_of_savepoint::<L>(event);
    }
    #[cfg(debug_assertions)]
    match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => super::targets::released(depth()),
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => super::targets::rolled_back(depth()),
        _ => {}
    }
}

#[inline(never)]
fn tell_of_savepoint<L: Listener>(event: pg_sys::SubXactEvent::Type) {
    use pg_sys::SubXactEvent::*;
    let tell = || match event {
        SUBXACT_EVENT_COMMIT_SUB => L::released(depth()),
        SUBXACT_EVENT_ABORT_SUB => L::rolled_back(depth()),
        _ => {}
    };
    // SAFETY: as above.
    unsafe { pg_sys::panic::pgrx_extern_c_guard(tell) }
}
