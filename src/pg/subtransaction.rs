//! Runs a function in a subtransaction, as PL/pgSQL runs a block with an EXCEPTION clause. After an error, the subtransaction is
//! rolled back, so the transaction can go on. The verification of hits, the observing of statements, `cache_warm` and
//! `cache_advise` use this file.

#![allow(unsafe_code)]

use super::error::{Failure, SqlState};
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use std::ffi::CString;
use std::panic::AssertUnwindSafe;

/// Runs a function in a subtransaction. If the function raises an error, rolls the subtransaction back and returns the error. As in
/// PL/pgSQL, a cancelled query is not caught, and neither is a statement that took too long.
pub fn attempt<R>(work: impl FnOnce() -> R) -> Result<R, Failure> {
    catch(work).map_err(Caught::swallowed)
}

/// Does the same as [`attempt`], but always rolls the subtransaction back, so that no lock remains. A wait for a lock in it ends
/// with an error after `lock_timeout_ms` milliseconds. The result must own all data that it refers to.
pub fn probe<R>(lock_timeout_ms: u32, work: impl FnOnce() -> R) -> Result<R, Failure> {
    let limited = || {
        let value = CString::new(lock_timeout_ms.to_string()).unwrap_or_default();
        // SAFETY: sets a setting as SET LOCAL does. The end of the subtransaction restores it.
        unsafe {
            pg_sys::set_config_option(
                c"lock_timeout".as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_LOCAL,
                true,
                0,
                false,
            );
        }
        work()
    };
    run(limited, false).map_err(Caught::swallowed)
}

/// An error that was caught, after its subtransaction was rolled back.
pub struct Caught(CaughtError);

impl Caught {
    /// Returns the SQLSTATE and the message of the error. None if it is a panic of Rust code, which is a bug.
    pub fn failure(&self) -> Option<Failure> {
        match &self.0 {
            CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => {
                Some(Failure::of(report))
            }
            CaughtError::RustPanic { .. } => None,
        }
    }

    /// Returns the SQLSTATE and the message of an error that a function may swallow, and raises other errors again.
    fn swallowed(self) -> Failure {
        match self.failure() {
            Some(failure) if failure.code != SqlState::QUERY_CANCELED => failure,
            _ => self.raise(),
        }
    }

    /// Raises the error again.
    pub fn raise(self) -> ! {
        self.0.rethrow()
    }
}

/// Does the same as [`attempt`], but returns every error. The caller must raise errors that no function may swallow: those of a
/// cancelled query, and those without a [`failure`](Caught::failure).
#[allow(clippy::result_large_err)] // Errors are rare, and a box would need memory.
pub fn catch<R>(work: impl FnOnce() -> R) -> Result<R, Caught> {
    run(work, true)
}

/// Runs a function in a subtransaction, and then releases the subtransaction or rolls it back.
#[allow(clippy::result_large_err)] // As above.
fn run<R>(work: impl FnOnce() -> R, keeps_changes: bool) -> Result<R, Caught> {
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
        unsafe {
            match keeps_changes {
                true => pg_sys::ReleaseCurrentSubTransaction(),
                false => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
            }
        }
        restore();
        Ok(result)
    }))
    .catch_others(|caught| {
        restore();
        // SAFETY: as above. PL/pgSQL also rolls back before it decides whether the error is caught.
        unsafe { pg_sys::RollbackAndReleaseCurrentSubTransaction() };
        restore();
        Err(Caught(caught))
    })
    .execute()
}
