//! What the server tells about the transaction of this session.
//!
//! One listener, in every process of the server. What happens when:
//! - *before commit*: the last moment at which anything may fail, and before others can see what was changed;
//! - *committed*: others can see it. An error here would restart the server, so nothing that can fail is done;
//! - *before prepare*, *prepared*: the same for a transaction that becomes nobody's. Others can end it only after the second;
//! - *aborted*: also when the session is killed, or ends in the middle.

#![allow(unsafe_code)]

use pgrx::prelude::*;
use std::ffi::c_void;

/// Who wants to know.
///
/// Most transactions change nothing that anybody here wants to know of, and going through the guard for errors costs more than all
/// the rest. So two of these are called outside of it: neither may raise an error, nor panic.
pub trait Listener {
    /// Whether nothing is kept for the transaction so far, and nothing is to be made ready for its end. If it has not changed the database
    /// either, that is not told.
    fn has_nothing() -> bool;
    /// The transaction is over, whatever has become of it, and whatever was told of it.
    fn over();
    /// The transaction is about to commit. May raise errors, which abort it.
    fn before_commit();
    /// It is about to be prepared, and somebody else may commit it. May raise errors.
    fn before_prepare();
    /// It has been prepared, and is not this session's any more. Must not fail.
    fn prepared();
    /// It has committed.
    fn committed();
    /// It has not, and will not.
    fn aborted();
    /// A savepoint at this depth has been released: what was done in it now belongs to the one around it.
    fn released(depth: i32);
    /// It has been rolled back.
    fn rolled_back(depth: i32);
}

/// Tells a listener from now on. To be called once, while the server loads us: every process of it inherits this, and of those who are
/// told before a commit the first to come is the last to be told, when nobody else will write any more.
pub fn listen<L: Listener>() {
    // SAFETY: the server's own lists, which this backend alone has; the functions stay as long as the library does.
    unsafe {
        pg_sys::RegisterXactCallback(Some(transaction::<L>), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(savepoint::<L>), std::ptr::null_mut());
    }
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
    // SAFETY: reads a variable, and raises no error.
    unsafe { GetTopTransactionIdIfAny() != pg_sys::InvalidTransactionId }
}

/// The number of the command that runs: it grows with each command of the transaction that has written something.
pub fn command() -> u32 {
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
    // SAFETY: reads a variable, and raises no error.
    unsafe { GetCurrentTransactionNestLevel() }
}

unsafe extern "C-unwind" fn transaction<L: Listener>(event: pg_sys::XactEvent::Type, _nothing: *mut c_void) {
    use pg_sys::XactEvent::*;
    if has_number() || !L::has_nothing() {
        tell::<L>(event);
    }
    if matches!(event, XACT_EVENT_COMMIT | XACT_EVENT_PREPARE | XACT_EVENT_ABORT) {
        L::over();
        #[cfg(debug_assertions)]
        super::targets::over();
    }
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
