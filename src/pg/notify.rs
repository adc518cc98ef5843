//! Notifications: what the command NOTIFY does, for the background worker that reports changes in the cache (`workers/sending.rs`).

#![allow(unsafe_code)]

use super::memory;
use pgrx::prelude::*;
use std::ffi::{CStr, c_char};

unsafe extern "C-unwind" {
    /// Not bound by pgrx. Queues a notification that the commit of the transaction sends.
    fn Async_Notify(channel: *const c_char, payload: *const c_char);
}

/// A payload must have fewer bytes than this: the server's own limit (`NOTIFY_PAYLOAD_MAX_LENGTH`).
pub const PAYLOAD_BYTES: usize = 8000;

/// Sends a notification when the transaction commits. The payload must be in the encoding of the database; one with a zero byte is
/// not sent. Raises the server's error if the channel or the payload is too long.
#[allow(ffi_unwind_calls)] // The guard catches the error, and no value on this stack needs to be dropped but the copy of the payload.
pub fn send(channel: &CStr, payload: &str) {
    let Some(payload) = memory::terminated(payload.as_bytes()) else { return };
    // SAFETY: the server's own function, called within a transaction, with texts that end with a zero. It copies them.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| Async_Notify(channel.as_ptr(), payload.as_ptr()));
    }
}

/// Returns how full the server's queue of notifications is, from 0 to 1. It fills if a listening session does not read, and then
/// all commits that notify would fail. Must be called within a transaction.
pub fn queue_usage() -> f64 {
    // SAFETY: the server's own function without arguments, which returns a float8. It does not use the call information.
    unsafe {
        let usage = pgrx::direct_function_call::<f64>(pg_sys::pg_notification_queue_usage, &[]);
        usage.unwrap_or_default()
    }
}
