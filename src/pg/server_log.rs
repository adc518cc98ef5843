//! Warnings for the server's log that clients do not get.

#![allow(unsafe_code)]

use super::error::Refused;
use pgrx::prelude::*;

/// Writes a warning to the server's log. The client does not get it, even if `client_min_messages` asks for it.
pub fn warn(reason: Refused) {
    /// Restores `client_min_messages` when it is dropped, also after an error.
    struct Restore(i32);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: a plain global of this session.
            unsafe { pg_sys::client_min_messages = self.0 };
        }
    }
    // SAFETY: as above. The server sends a message to the client only if its level is at least this one.
    let _restore = unsafe {
        let restore = Restore(pg_sys::client_min_messages);
        pg_sys::client_min_messages = PgLogLevel::ERROR as i32;
        restore
    };
    reason.warn();
}
