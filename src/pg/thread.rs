//! A process of the server with a second thread: the worker of Redis, whose second thread talks to Redis (`src/redis/`). The second
//! thread must never call the server (`local.rs` refuses it the state of the session). The server's signal handlers must run in the
//! first thread only, and the process must end although the other thread runs.

#![allow(unsafe_code)]

use pgrx::prelude::*;
use std::ffi::c_int;

/// Runs a function that starts threads, with all signals blocked: a thread begins with the blocked signals of the thread that
/// starts it. So signals are delivered to the first thread only.
pub fn with_signals_blocked<R>(start: impl FnOnce() -> R) -> R {
    // SAFETY: both sets are initialised before they are read, and the mask of this thread is restored. If the function panics, the
    // process ends: no caller catches panics.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before);
        let started = start();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        started
    }
}

/// Makes this process end right after the server's callbacks, without the destructors of libraries: another thread could use what
/// they destroy. Must be called before any other callback is registered: callbacks run in the reverse order, and this one must run
/// last.
pub fn end_without_destructors() {
    // SAFETY: only this process accesses its list of callbacks, and the function stays loaded as long as the library does.
    unsafe { pg_sys::on_proc_exit(Some(end), pg_sys::Datum::null()) };
}

unsafe extern "C-unwind" fn end(code: c_int, _nothing: pg_sys::Datum) {
    // SAFETY: ends the process. The server's callbacks have run.
    unsafe { libc::_exit(code) }
}
