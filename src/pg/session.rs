//! The session as a process of the server. It is identified by its process id, and it can run a function at its end. Other files
//! ask here whether the process behind an id in shared memory is still alive.

#![allow(unsafe_code)]

use pgrx::prelude::*;
use std::ffi::c_int;
use std::sync::OnceLock;

/// Returns the process id, which identifies this session while it lives. Never 0.
pub fn pid() -> u32 {
    // SAFETY: a plain global, constant in a session.
    unsafe { pg_sys::MyProcPid as u32 }
}

/// Returns whether a session with this process id exists; a background worker counts as a session. False for 0.
pub fn is_alive(pid: u32) -> bool {
    // SAFETY: searches the server's process array, under its lock.
    c_int::try_from(pid).is_ok_and(|pid| unsafe { !pg_sys::BackendPidGetProc(pid).is_null() })
}

/// Returns whether a process is a background worker that is connected to this database. On PostgreSQL 18, each process that does
/// not serve a client counts as a background worker.
pub fn is_worker_of(pid: u32, database: u32) -> bool {
    let Ok(pid) = c_int::try_from(pid) else { return false };
    // SAFETY: as in `is_alive`. The entry stays in shared memory; if the process has ended, it may be that of another process.
    unsafe {
        let process = pg_sys::BackendPidGetProc(pid);
        if process.is_null() {
            return false;
        }
        #[cfg(not(feature = "pg18"))]
        let is_worker = (*process).isBackgroundWorker;
        #[cfg(feature = "pg18")]
        let is_worker = !(*process).isRegularBackend;
        is_worker && (*process).databaseId.to_u32() == database
    }
}

/// Returns whether a session of a client is connected to a database.
pub fn has_sessions(database: u32) -> bool {
    // SAFETY: counts entries of the server's process array, under its lock.
    unsafe { pg_sys::CountDBConnections(database.into()) > 0 }
}

/// Asks another process of the server to end, by SIGTERM. Does not wait for the end. The caller must have just found the process
/// ([`is_worker_of`]): the id of a process that has ended may be given to another one.
pub fn terminate(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        // The process may have ended meanwhile.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

static AT_END: OnceLock<fn(bool)> = OnceLock::new();

/// Registers a function that runs when the session ends, before its open transaction is rolled back. The argument is true if the
/// session ends in order, because its client has left; it is false after a fatal error or a termination. The function runs once, in
/// the session that has registered it, and must not fail. Only the first call has an effect.
pub fn at_end(call: fn(bool)) {
    if AT_END.set(call).is_ok() {
        // SAFETY: only this process accesses this list of the server, and the function stays loaded as long as the library does.
        unsafe { pg_sys::before_shmem_exit(Some(end), pg_sys::Datum::null()) };
    }
}

/// The server calls this at the end of the process with its exit code, which is 0 after an orderly end.
#[pg_guard]
unsafe extern "C-unwind" fn end(code: c_int, _nothing: pg_sys::Datum) {
    if let Some(call) = AT_END.get() {
        call(code == 0);
    }
}
