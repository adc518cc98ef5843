//! The hook in which the server runs a plan that has started. Its signature differs between the versions, so a macro defines our
//! hooks: those of `client_statement.rs` and `cursor.rs`.

#![allow(unsafe_code)]

use pgrx::pg_sys;

unsafe extern "C-unwind" {
    /// Called without pgrx's guard, which turns an error into a panic and back: the error would lose its position in the statement
    /// (`docs/architecture.md`).
    #[cfg(not(feature = "pg18"))]
    pub fn standard_ExecutorRun(
        query: *mut pg_sys::QueryDesc,
        direction: pg_sys::ScanDirection::Type,
        count: u64,
        once: bool,
    );
    /// Called without pgrx's guard, which turns an error into a panic and back: the error would lose its position in the statement
    /// (`docs/architecture.md`).
    #[cfg(feature = "pg18")]
    pub fn standard_ExecutorRun(
        query: *mut pg_sys::QueryDesc,
        direction: pg_sys::ScanDirection::Type,
        count: u64,
    );
}

/// Defines the hook `$name`. It calls `$before` with the plan, then the hook in the static `$previous` or the server's own
/// function, and then `$after` with the plan, the direction and `count`, the most rows that the caller has asked for (0 for all).
/// If the plan raises an error, `$after` is not called.
///
/// The hook has no guard, so that errors of the query pass through unchanged. No value on its stack needs to be dropped. This must
/// also hold for `$before` and `$after`.
macro_rules! run_hook {
    ($name:ident, $previous:ident, $before:ident $(, $after:ident)?) => {
        #[cfg(not(feature = "pg18"))]
        #[allow(ffi_unwind_calls)]
        unsafe extern "C-unwind" fn $name(
            query: *mut pgrx::pg_sys::QueryDesc,
            direction: pgrx::pg_sys::ScanDirection::Type,
            count: u64,
            once: bool,
        ) {
            // SAFETY: the next function is called as the server would call it.
            unsafe {
                $before(query);
                match $previous {
                    Some(previous) => previous(query, direction, count, once),
                    None => $crate::pg::run_hook::standard_ExecutorRun(query, direction, count, once),
                }
                $($after(query, direction, count);)?
            }
        }

        #[cfg(feature = "pg18")]
        #[allow(ffi_unwind_calls)]
        unsafe extern "C-unwind" fn $name(
            query: *mut pgrx::pg_sys::QueryDesc,
            direction: pgrx::pg_sys::ScanDirection::Type,
            count: u64,
        ) {
            // SAFETY: the next function is called as the server would call it.
            unsafe {
                $before(query);
                match $previous {
                    Some(previous) => previous(query, direction, count),
                    None => $crate::pg::run_hook::standard_ExecutorRun(query, direction, count),
                }
                $($after(query, direction, count);)?
            }
        }
    };
}
pub(super) use run_hook;
