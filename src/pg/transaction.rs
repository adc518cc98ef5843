//! The state of this session's transaction, as the server knows it: its id, its command, its savepoint, its isolation level. The
//! changes that the transaction has made in the cache are in `store/transaction/`.

#![allow(unsafe_code)]

use super::local::check_thread;
use pgrx::prelude::*;

unsafe extern "C" {
    /// These functions are called without pgrx's guard: they run with every change and raise no error.
    fn GetCurrentCommandId(used: bool) -> pg_sys::CommandId;
    fn GetCurrentTransactionNestLevel() -> std::ffi::c_int;
    fn GetTopTransactionIdIfAny() -> pg_sys::TransactionId;
}

/// Returns whether the transaction has a transaction id. PostgreSQL assigns the id with the transaction's first change of the
/// database. The id is still set while the end-of-transaction callbacks run.
#[inline]
pub fn has_xid() -> bool {
    check_thread();
    // SAFETY: reads a variable, and raises no error.
    unsafe { GetTopTransactionIdIfAny() != pg_sys::InvalidTransactionId }
}

/// Returns whether the transaction has used a temporary relation or schema, perhaps in a savepoint that was rolled back.
#[inline]
pub fn has_used_temporary() -> bool {
    // SAFETY: a plain global of this session.
    unsafe { pg_sys::MyXactFlags & pg_sys::XACT_FLAGS_ACCESSEDTEMPNAMESPACE as i32 != 0 }
}

/// Returns the id of the running command. It grows with each command of the transaction that has written.
pub fn command_id() -> u32 {
    check_thread();
    // SAFETY: reads a variable and raises no error. The argument `false` means that the command does not count as a writer.
    unsafe { GetCurrentCommandId(false) }
}

/// Marks the running command as a writer. TRUNCATE needs this: if this subtransaction has created or already emptied the table, the
/// server empties the table in place and does not count the command as a writer.
pub fn note_change() {
    // SAFETY: the server calls the same function in each command that writes.
    unsafe { pg_sys::GetCurrentCommandId(true) };
}

/// Like [`command_id`], for the code that runs after the last command: the id grows if that command has written.
pub fn next_command_id() -> u32 {
    // SAFETY: the server calls the same function between commands.
    unsafe { pg_sys::CommandCounterIncrement() };
    command_id()
}

/// Returns whether this process is a parallel worker of another session's query. A worker does not know what the transaction has
/// changed and has nothing of its own to commit. None of our functions for the cache is PARALLEL SAFE, so they reach a worker only
/// through a function that was wrongly declared so.
#[inline]
pub fn is_parallel_worker() -> bool {
    // SAFETY: a plain global.
    unsafe { pg_sys::ParallelWorkerNumber >= 0 }
}

/// Returns the nesting depth of savepoints; 1 outside of all savepoints.
pub fn depth() -> i32 {
    check_thread();
    // SAFETY: reads a variable, and raises no error.
    unsafe { GetCurrentTransactionNestLevel() }
}

/// Returns whether the transaction keeps one snapshot: REPEATABLE READ or SERIALIZABLE.
#[inline]
pub fn keeps_one_snapshot() -> bool {
    // SAFETY: a plain global of this session.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// Returns whether this transaction keeps one snapshot, or the next one will by default.
#[inline]
pub fn may_keep_one_snapshot() -> bool {
    // SAFETY: as above.
    keeps_one_snapshot() || unsafe { pg_sys::DefaultXactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// Returns whether the enclosing query runs in parallel. The functions that run a caller's query, such as `cache_fetch`, are
/// PARALLEL UNSAFE. So a parallel query reaches them only through a function that was wrongly declared PARALLEL SAFE or PARALLEL
/// RESTRICTED.
pub fn is_parallel() -> bool {
    // SAFETY: only reads a variable.
    unsafe { pg_sys::IsInParallelMode() }
}

/// Returns whether the transaction is SERIALIZABLE: the server must then know of everything that it reads.
#[inline]
pub fn is_serializable() -> bool {
    // SAFETY: as above.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_SERIALIZABLE as i32 }
}
