//! The context of errors in a caller's query: where in the query they are, and which function of this library runs it.
//!
//! pgrx rebuilds an error that passes its guard from SQLSTATE, message, detail and hint. A SQLSTATE that pgrx does not know becomes
//! XX000, and texts that are not UTF-8 are damaged. Everything else is lost: the position, the query that the position belongs to,
//! the context, and the names of the object. So a frame on the server's stack of error contexts keeps copies of the last errors
//! when the server raises them, and adds what was lost when pgrx raises the error again.

#![allow(unsafe_code)]

use super::error::Refused;
use super::memory;
use pgrx::pg_sys::panic::{CaughtError, ErrorReportWithLevel};
use pgrx::prelude::*;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

unsafe extern "C-unwind" {
    // Called without pgrx: an error that one of them raises must reach the server's handler through the frames of the server.
    fn geterrcode() -> c_int;
    fn geterrposition() -> c_int;
    fn errcode(sqlstate: c_int) -> c_int;
    fn errmsg_internal(format: *const c_char, ...) -> c_int;
    fn errdetail_internal(format: *const c_char, ...) -> c_int;
    fn errhint(format: *const c_char, ...) -> c_int;
    fn errposition(position: c_int) -> c_int;
    fn internalerrposition(position: c_int) -> c_int;
    fn internalerrquery(query: *const c_char) -> c_int;
    fn set_errcontext_domain(domain: *const c_char) -> c_int;
    fn errcontext_msg(format: *const c_char, ...) -> c_int;
    fn err_generic_string(field: c_int, text: *const c_char) -> c_int;
    fn CopyErrorData() -> *mut pg_sys::ErrorData;
    fn FreeErrorData(error: *mut pg_sys::ErrorData);
}

/// A frame on the server's stack of error contexts, in the memory of the statement. If the query fails, the frame stays on the
/// stack until the error leaves the function: the server's handler then resets the stack.
#[repr(C)]
struct Frame {
    callback: pg_sys::ErrorContextCallback,
    /// The line that says whose query it is, a string that ends with a zero.
    caller: *const c_char,
    /// The text of the query, a string that ends with a zero.
    query: *const c_char,
    /// The memory context of the statement, in which copies of errors are kept.
    memory: pg_sys::MemoryContext,
    /// The number of the parameter whose value is being converted, or 0.
    parameter: c_int,
    /// The last errors that the server raised, in a ring. The query may have caught some, and may have raised an earlier one again.
    raised: [*mut pg_sys::ErrorData; KEPT],
    /// The slot of the next error in `raised`.
    next: usize,
    /// The error that pgrx raises again, or null.
    again: *const pg_sys::ErrorData,
}

/// How many of the last errors are kept. The server does not call this file when a handler raises an error again, so that error
/// must be among them. If the query has raised this many errors since, the error only loses its position and its context.
const KEPT: usize = 8;

/// The context of a running query.
#[derive(Clone, Copy, Debug)]
pub struct Context(*mut Frame);

/// Runs a query of a caller by `run`. The context of its errors has the line `caller`, such as `query of cache_fetch, key "x"`, and
/// the position in the query. Raises the error that `run` returns.
pub fn within<R>(caller: &str, query: &CStr, run: impl FnOnce(Context) -> Result<R, Refused>) -> R {
    let context = Context::enter(caller, query);
    match catch_unwind(AssertUnwindSafe(|| run(context))) {
        Ok(Ok(result)) => {
            context.leave();
            result
        }
        Ok(Err(refused)) => refused.raise(),
        Err(payload) => {
            if let Some(CaughtError::PostgresError(report)) = payload.downcast_ref() {
                context.raise_again(report);
            }
            resume_unwind(payload)
        }
    }
}

impl Context {
    /// Puts a frame on the stack. The query must live as long as the frame, which is until [`leave`](Self::leave) or an error.
    fn enter(caller: &str, query: &CStr) -> Self {
        // SAFETY: the memory is zeroed, which is valid for a frame, and aligned for every type. It lives as long as the statement.
        // The copy of the line has a zero after its end.
        unsafe {
            let copy = memory::cleared(caller.len() + 1).cast::<u8>();
            copy.copy_from_nonoverlapping(caller.as_ptr(), caller.len());
            let frame = memory::cleared(size_of::<Frame>()).cast::<Frame>();
            (*frame).callback.callback = Some(describe);
            (*frame).callback.arg = frame.cast();
            (*frame).callback.previous = pg_sys::error_context_stack;
            (*frame).caller = copy.cast();
            (*frame).query = query.as_ptr();
            (*frame).memory = pg_sys::CurrentMemoryContext;
            pg_sys::error_context_stack = &raw mut (*frame).callback;
            Self(frame)
        }
    }

    /// Takes the frame off the stack.
    fn leave(self) {
        // SAFETY: the frame is the last one on the stack, because every later one was removed by the code that added it.
        unsafe { pg_sys::error_context_stack = (*self.0).callback.previous };
    }

    /// Notes which error pgrx raises again: the latest one with the message and the SQLSTATE of the report. If there is none, the
    /// error is raised as pgrx passes it on.
    fn raise_again(self, report: &ErrorReportWithLevel) {
        let code = report.sql_error_code();
        // SAFETY: the frame and the copies in it live as long as the statement. The message of an error is null or ends with a
        // zero.
        unsafe {
            let frame = &mut *self.0;
            let is_same = |error: *mut pg_sys::ErrorData| {
                !error.is_null()
                    && ((*error).sqlerrcode == code as c_int
                        || code == PgSqlErrorCode::ERRCODE_INTERNAL_ERROR)
                    && !(*error).message.is_null()
                    && CStr::from_ptr((*error).message).to_string_lossy() == report.message()
            };
            let latest_first = (1..=KEPT).map(|back| frame.raised[(frame.next + KEPT - back) % KEPT]);
            frame.again = { latest_first }.find(|error| is_same(*error)).unwrap_or(std::ptr::null_mut());
        }
    }

    /// Calls `convert`, which converts a parameter of the query. Its errors name the parameter by its number, counted from 1.
    pub fn of_parameter<R>(self, number: usize, convert: impl FnOnce() -> R) -> R {
        // SAFETY: as above. An error leaves the number in place: `describe` needs it when pgrx raises the error again.
        unsafe {
            (*self.0).parameter = number as c_int;
            let converted = convert();
            (*self.0).parameter = 0;
            converted
        }
    }
}

/// Adds to a message that is being raised. The server calls it for warnings and notices, too. It has no guard, so that errors pass
/// through unchanged. No value on this stack needs to be dropped.
#[allow(ffi_unwind_calls)]
unsafe extern "C-unwind" fn describe(frame: *mut c_void) {
    // SAFETY: the argument is the frame, which lives as long as the statement. The functions are the server's own, for use in such
    // a callback. They copy the texts.
    unsafe {
        let frame = frame.cast::<Frame>();
        if (*frame).again.is_null() {
            keep(frame);
        } else {
            restore((*frame).again);
        }
        set_errcontext_domain(std::ptr::null());
        if (*frame).parameter > 0 {
            errcontext_msg(c"parameter $%d".as_ptr(), (*frame).parameter);
        }
        errcontext_msg(c"%s".as_ptr(), (*frame).caller);
    }
}

/// Turns a position in the statement into a position in the query, as the server does for its own queries, and keeps a copy of the
/// error.
///
/// # Safety
/// Only for [`describe`].
#[allow(ffi_unwind_calls)]
unsafe fn keep(frame: *mut Frame) {
    // SAFETY: as the caller promises. The copy is in the memory of the frame.
    unsafe {
        let position = geterrposition();
        if position > 0 {
            errposition(0);
            internalerrposition(position);
            internalerrquery((*frame).query);
        }
        // A copy needs memory, so an error about missing memory does without.
        if geterrcode() == PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY as c_int {
            return;
        }
        let current = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = (*frame).memory;
        let copy = CopyErrorData();
        pg_sys::CurrentMemoryContext = current;
        // A warning or a notice ends nothing, and is never raised again.
        if (*copy).elevel < PgLogLevel::ERROR as c_int {
            FreeErrorData(copy);
            return;
        }
        let slot = (*frame).next % KEPT;
        if !(*frame).raised[slot].is_null() {
            FreeErrorData((*frame).raised[slot]);
        }
        (*frame).raised[slot] = copy;
        (*frame).next = (slot + 1) % KEPT;
    }
}

/// Restores everything that pgrx changes or does not pass on.
///
/// # Safety
/// Only for [`describe`].
#[allow(ffi_unwind_calls)]
unsafe fn restore(raised: *const pg_sys::ErrorData) {
    // SAFETY: as the caller promises. Each text of an error is null or ends with a zero.
    unsafe {
        errcode((*raised).sqlerrcode);
        if !(*raised).message.is_null() {
            errmsg_internal(c"%s".as_ptr(), (*raised).message);
        }
        if !(*raised).detail.is_null() {
            errdetail_internal(c"%s".as_ptr(), (*raised).detail);
        }
        if !(*raised).hint.is_null() {
            errhint(c"%s".as_ptr(), (*raised).hint);
        }
        if !(*raised).internalquery.is_null() {
            internalerrposition((*raised).internalpos);
            internalerrquery((*raised).internalquery);
        }
        if !(*raised).context.is_null() {
            set_errcontext_domain(std::ptr::null());
            errcontext_msg(c"%s".as_ptr(), (*raised).context);
        }
        for (field, text) in [
            (pg_sys::PG_DIAG_SCHEMA_NAME, (*raised).schema_name),
            (pg_sys::PG_DIAG_TABLE_NAME, (*raised).table_name),
            (pg_sys::PG_DIAG_COLUMN_NAME, (*raised).column_name),
            (pg_sys::PG_DIAG_DATATYPE_NAME, (*raised).datatype_name),
            (pg_sys::PG_DIAG_CONSTRAINT_NAME, (*raised).constraint_name),
        ] {
            if !text.is_null() {
                err_generic_string(c_int::from(field), text);
            }
        }
    }
}
