//! This process: its database, its slot among all processes, its interrupts; and whether the server is in recovery. The slot says
//! which word of shared memory belongs to this process, where each process has one.

#![allow(unsafe_code)]

use crate::pg::local::check_thread;
use pgrx::pg_sys;

unsafe extern "C" {
    /// Called without pgrx's guard: on a standby it runs at each end of a transaction. It raises no error.
    pub(super) fn RecoveryInProgress() -> bool;
}

/// Returns whether the server is in recovery, for instance as a standby.
pub fn is_in_recovery() -> bool {
    check_thread();
    // SAFETY: reads whether recovery has ended, and raises no error.
    unsafe { RecoveryInProgress() }
}

/// Returns a random number, at least 0 and less than 1.
pub fn chance() -> f64 {
    check_thread();
    // SAFETY: this backend's own random state, which the server seeded when the backend started.
    unsafe { pg_sys::pg_prng_double(&raw mut pg_sys::pg_global_prng_state) }
}

/// Raises an error here if the session was cancelled or terminated. The caller must not hold any lock.
pub fn check_for_interrupts() {
    pgrx::check_for_interrupts!();
}

/// Returns this backend's slot among all backends that may exist, counted from 0. The process must have an entry in the server's
/// process array; the postmaster has none.
pub fn slot() -> u32 {
    // SAFETY: this process has an entry in the process array, and its index never changes. `tier.rs` checks that before it
    // attaches.
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    let slot = unsafe { (*pg_sys::MyProc).pgprocno };
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    // SAFETY: a plain global.
    let slot = unsafe { pg_sys::MyProcNumber };
    slot as u32
}

/// Returns the present time, in microseconds since 2000.
pub fn time_now() -> pg_sys::TimestampTz {
    // SAFETY: only reads the system's clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// Returns the OID of this session's database; 0 in a background worker that is connected to no database.
pub fn database() -> u32 {
    // SAFETY: a plain global, constant once a session has begun.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
}
