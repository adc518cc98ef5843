//! The session as a process of the server: what others know it by, and how it ends.

#![allow(unsafe_code)]

use pgrx::prelude::*;
use std::ffi::c_int;
use std::sync::OnceLock;

/// The number that this session is known by while it lives. Never 0.
pub fn number() -> u32 {
    // SAFETY: a plain global, constant in a session.
    unsafe { pg_sys::MyProcPid as u32 }
}

/// Whether there is a session of this number.
pub fn lives(number: u32) -> bool {
    // SAFETY: looks through the server's array of processes, under its lock.
    c_int::try_from(number).is_ok_and(|pid| unsafe { !pg_sys::BackendPidGetProc(pid).is_null() })
}

static LAST_WILL: OnceLock<fn(bool)> = OnceLock::new();

/// Calls when the session ends, before its open transaction is rolled back, and says whether it ends in order: because its client
/// has left, and not by an error, or because somebody has ended it. Once in each session; what is called must not fail.
pub fn at_end(call: fn(bool)) {
    if LAST_WILL.set(call).is_ok() {
        // SAFETY: the server's own list, which this process alone has; the function stays as long as the library does.
        unsafe { pg_sys::before_shmem_exit(Some(end), pg_sys::Datum::null()) };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn end(code: c_int, _nothing: pg_sys::Datum) {
    if let Some(call) = LAST_WILL.get() {
        call(code == 0);
    }
}
