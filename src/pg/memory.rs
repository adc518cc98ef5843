//! Memory of the running statement, asked for without a place to jump back to.
//!
//! Whatever may raise an error is called through pgrx's guard, which saves the state of the processor first. That costs more than to
//! allocate a small piece. So the server is asked in a way in which it returns nothing instead of raising an error; only then, and for
//! sizes that it might complain of, it is asked again through the guard.

#![allow(unsafe_code)]

use super::local::check_thread;
use pgrx::pg_sys;
use std::ffi::{c_int, c_void};

unsafe extern "C" {
    fn palloc_extended(size: usize, flags: c_int) -> *mut c_void;
}

/// Far below the size of which the server says that nobody can mean it.
const SMALL: usize = 1 << 20;

/// So many zeroed bytes in the current context, or an error is raised. The core asks for room before it takes a lock.
#[inline]
pub fn cleared(bytes: usize) -> *mut c_void {
    const FLAGS: u32 = pg_sys::MCXT_ALLOC_NO_OOM | pg_sys::MCXT_ALLOC_ZERO;
    if bytes <= SMALL {
        check_thread();
        // SAFETY: of a size that is allowed, and told to return a null pointer if there is no memory: it raises no error.
        let start = unsafe { palloc_extended(bytes, FLAGS as c_int) };
        if !start.is_null() {
            return start;
        }
    }
    raising(bytes)
}

#[cold]
#[inline(never)]
fn raising(bytes: usize) -> *mut c_void {
    // SAFETY: any size; what cannot be had is an error.
    unsafe { pg_sys::palloc0(bytes) }
}
