//! Passes the events of this session's transactions on to one listener, which publishes the transaction's changes in the cache or
//! takes them back (`store/transaction/pending.rs`).
//!
//! The order in which PostgreSQL commits a transaction decides what the listener may do at each event:
//!
//! 1. *before commit*: the last event that may raise an error. Other sessions cannot see the changes yet.
//! 2. *committed*: other sessions see the changed rows. The locks are still held, and the catalog invalidations have not been sent,
//!    so a session that plans a query now may still use the old catalogs.
//! 3. *settled*: the invalidations are sent and the locks are released. Every session that accepts invalidation messages from now
//!    on sees all changes of the transaction.
//!
//! In events 2 and 3, an error of a transaction that has a transaction id would restart the server. The listener must therefore
//! neither raise an error nor allocate in events 2 and 3.
//!
//! A transaction that is prepared for a two-phase commit gets the events *before prepare* and *prepared* instead. The listener also
//! gets *aborted* when the session is terminated within a transaction.

#![allow(unsafe_code)]

use super::local::local;
use super::preload;
use super::row_changes::Counters;
#[cfg(debug_assertions)]
use super::targets;
use super::transaction;
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::c_void;

/// Receives the events of this session's transactions.
///
/// Most transactions change nothing that the listener follows, and pgrx's guard against errors costs more than the rest of the
/// call. `has_nothing`, `undone` and `over` are therefore called outside of that guard: they must neither raise an error nor panic.
/// A panic in `committed` or `settled` ends the process if the transaction has a transaction id.
pub trait Listener {
    /// Returns true if the listener keeps nothing for the transaction and needs no preparation for its end. Then `released` and
    /// `rolled_back` are not called. If the transaction has no transaction id either, only `undone` and `over` are called.
    fn has_nothing() -> bool;
    /// The transaction has ended: by commit, abort or prepare. This is always the last event.
    fn over();
    /// The transaction is about to commit. `counters` has the server's counters of changed rows, if the transaction has a transaction
    /// id and they are complete. This method may raise errors, which abort the transaction.
    fn before_commit(counters: Option<Counters>);
    /// The transaction is about to be prepared; another session may commit it later. This method may raise errors.
    fn before_prepare();
    /// The transaction is prepared and no longer belongs to this session. This method must not fail.
    fn prepared();
    /// Other sessions see the changed rows, and the locks are still held. This method must not fail.
    fn committed();
    /// Other sessions see all changes. This event follows each `committed`. This method must not fail.
    fn settled();
    /// The transaction is rolled back. This method must not fail.
    fn aborted();
    /// The transaction or a savepoint has been rolled back. This method is called outside of the guard, before `aborted` or
    /// `rolled_back`.
    fn undone();
    /// A savepoint at this depth has been released: its changes now belong to the level above it. This method must not fail.
    fn released(depth: i32);
    /// A savepoint at this depth has been rolled back. This method must not fail.
    fn rolled_back(depth: i32);
}

/// Registers a listener. Must be called once, while the server loads the library, so that every process inherits the callbacks.
pub fn listen<L: Listener>() {
    IS_FIRST.set(preload::is_first());
    // SAFETY: only this process accesses these lists of the server, and the functions stay loaded as long as the library does.
    unsafe {
        pg_sys::RegisterXactCallback(Some(on_transaction::<L>), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(on_savepoint::<L>), std::ptr::null_mut());
        pg_sys::RegisterResourceReleaseCallback(Some(on_release::<L>), std::ptr::null_mut());
    }
}

local! {
    /// True between `committed` and `settled`.
    static UNSETTLED: Cell<bool> = Cell::new(false);
    /// Whether the postmaster has loaded no other library before this one.
    static IS_FIRST: Cell<bool> = Cell::new(false);
}

/// Returns whether tables may still change between `before_commit` and the moment at which the changes are visible. Two things can
/// change them then:
/// - a library that was loaded earlier, because PostgreSQL runs callbacks in the reverse order of their registration;
/// - the server itself, when it drops temporary tables with `ON COMMIT DROP`: the server also drops the objects that depend
///   on them.
#[inline]
pub fn may_change_late() -> bool {
    !IS_FIRST.get() || transaction::has_used_temporary()
}

/// Passes an event of the transaction on. The server calls it before and after a commit or a prepare, and during an abort.
unsafe extern "C-unwind" fn on_transaction<L: Listener>(
    event: pg_sys::XactEvent::Type,
    _nothing: *mut c_void,
) {
    use pg_sys::XactEvent::*;
    if event == XACT_EVENT_ABORT {
        L::undone();
    }
    if event == XACT_EVENT_ABORT && UNSETTLED.get() {
        // A transaction without a transaction id failed after its COMMIT callbacks. Its changes are visible all the same.
        settle::<L>();
        return;
    }
    let has_xid = transaction::has_xid();
    if has_xid || !L::has_nothing() {
        match event {
            XACT_EVENT_COMMIT if has_xid => cannot_unwind(L::committed),
            XACT_EVENT_PRE_COMMIT if has_xid => {
                // SAFETY: the server calls this, and no value on this stack needs to be dropped.
                pass_on::<L>(event, unsafe { Counters::find_unguarded() });
            }
            _ => pass_on::<L>(event, None),
        }
        UNSETTLED.set(event == XACT_EVENT_COMMIT);
    }
    if matches!(event, XACT_EVENT_COMMIT | XACT_EVENT_PREPARE | XACT_EVENT_ABORT) && !UNSETTLED.get() {
        over::<L>();
    }
}

/// Runs when a resource owner releases its resources, in three phases. At top level, the last phase comes after the commit has sent
/// its invalidations and released its locks.
unsafe extern "C-unwind" fn on_release<L: Listener>(
    phase: pg_sys::ResourceReleasePhase::Type,
    _is_commit: bool,
    is_top_level: bool,
    _nothing: *mut c_void,
) {
    // Resource owners inside of the transaction's owner repeat its phases, and so does PREPARE TRANSACTION. The first call after
    // `committed` is the right one.
    if is_top_level && phase == pg_sys::ResourceReleasePhase::RESOURCE_RELEASE_AFTER_LOCKS && UNSETTLED.get()
    {
        settle::<L>();
    }
}

/// Passes *settled* on, and then the end of the transaction.
#[inline(never)]
fn settle<L: Listener>() {
    UNSETTLED.set(false);
    match transaction::has_xid() {
        true => cannot_unwind(L::settled),
        // SAFETY: the server calls this, and no value on this stack needs to be dropped.
        false => unsafe { pg_sys::panic::pgrx_extern_c_guard(L::settled) },
    }
    over::<L>();
}

/// Calls a method after a transaction with a transaction id has committed. The server would answer an error by restarting all
/// sessions. So a guard against panics would change nothing: without one, a panic ends this process, and the server does the same.
#[inline]
extern "C" fn cannot_unwind(call: impl FnOnce()) {
    call();
}

#[inline]
fn over<L: Listener>() {
    L::over();
    #[cfg(debug_assertions)]
    targets::over();
}

/// Calls the method for an event, under pgrx's guard.
#[inline(never)]
fn pass_on<L: Listener>(event: pg_sys::XactEvent::Type, counters: Option<Counters>) {
    use pg_sys::XactEvent::*;
    let call = || match event {
        XACT_EVENT_PRE_COMMIT => L::before_commit(counters),
        XACT_EVENT_PRE_PREPARE => L::before_prepare(),
        XACT_EVENT_COMMIT => L::committed(),
        XACT_EVENT_PREPARE => L::prepared(),
        XACT_EVENT_ABORT => L::aborted(),
        // The events of parallel workers: a worker holds nothing back for the end of the transaction.
        _ => {}
    };
    // SAFETY: the server calls this, and no value on this stack needs to be dropped.
    unsafe { pg_sys::panic::pgrx_extern_c_guard(call) }
}

/// Passes on that a savepoint was released or rolled back. The depth is still that of the savepoint then.
unsafe extern "C-unwind" fn on_savepoint<L: Listener>(
    event: pg_sys::SubXactEvent::Type,
    _this: pg_sys::SubTransactionId,
    _around: pg_sys::SubTransactionId,
    _nothing: *mut c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        L::undone();
    }
    if !L::has_nothing() {
        pass_on_savepoint::<L>(event);
    }
    #[cfg(debug_assertions)]
    match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => targets::released(transaction::depth()),
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => targets::rolled_back(transaction::depth()),
        _ => {}
    }
}

#[inline(never)]
fn pass_on_savepoint<L: Listener>(event: pg_sys::SubXactEvent::Type) {
    use pg_sys::SubXactEvent::*;
    let call = || match event {
        SUBXACT_EVENT_COMMIT_SUB => L::released(transaction::depth()),
        SUBXACT_EVENT_ABORT_SUB => L::rolled_back(transaction::depth()),
        _ => {}
    };
    // SAFETY: as in `pass_on`.
    unsafe { pg_sys::panic::pgrx_extern_c_guard(call) }
}
