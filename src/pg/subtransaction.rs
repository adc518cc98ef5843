//! Runs a function in a subtransaction, as PL/pgSQL runs a block with an EXCEPTION clause.

#![allow(unsafe_code)]

use super::error::Failure;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use std::panic::AssertUnwindSafe;

/// Runs a function in a subtransaction. If the function raises an error, rolls the subtransaction back and returns the error. As in
/// PL/pgSQL, a cancelled query is not caught, and neither is a statement that took too long.
pub fn attempt<R>(work: impl FnOnce() -> R) -> Result<R, Failure> {
    // SAFETY: follows PL/pgSQL: the subtransaction begins and ends in the memory context, with the resource owner and with the
    // stack of error contexts of the caller. A frame of an error context that the error leaves on the stack is gone with its
    // function.
    let (context, owner, contexts) = unsafe {
        let state = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner, pg_sys::error_context_stack);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::CurrentMemoryContext = state.0;
        state
    };
    let restore = || {
        // SAFETY: the values from before.
        unsafe {
            pg_sys::CurrentMemoryContext = context;
            pg_sys::CurrentResourceOwner = owner;
            pg_sys::error_context_stack = contexts;
        }
    };
    PgTryBuilder::new(AssertUnwindSafe(|| {
        let result = work();
        // SAFETY: ends the subtransaction that has begun above.
        unsafe { pg_sys::ReleaseCurrentSubTransaction() };
        restore();
        Ok(result)
    }))
    .catch_others(|caught| {
        restore();
        // SAFETY: as above. PL/pgSQL also rolls back before it decides whether the error is caught.
        unsafe { pg_sys::RollbackAndReleaseCurrentSubTransaction() };
        restore();
        match caught {
            CaughtError::PostgresError(ref report) | CaughtError::ErrorReport(ref report)
                if report.sql_error_code() != PgSqlErrorCode::ERRCODE_QUERY_CANCELED =>
            {
                Err(Failure::of(report))
            }
            other => other.rethrow(),
        }
    })
    .execute()
}
