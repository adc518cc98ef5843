//! Keeps the password of `pg_cache.redis_url` out of the server's log.
//!
//! The server writes the new value of a changed setting to its log, and with some settings also statements. So before a message that
//! names the setting is logged, the user and the password in it are overwritten.

#![allow(unsafe_code)]

use pgrx::prelude::*;
use std::ffi::{CStr, c_char};

/// The end of the name of the setting with the secret. A statement may write the whole name with quotes or blanks in it.
const SETTING: &[u8] = b"redis_url";

// The hook that was installed before ours, if any.
static mut PREVIOUS: pg_sys::emit_log_hook_type = None;

/// Installs the hook. Must be called while the server loads the library.
pub fn hook() {
    // SAFETY: no other thread runs, and our hook calls the previous one.
    unsafe {
        PREVIOUS = pg_sys::emit_log_hook;
        pg_sys::emit_log_hook = Some(on_message);
    }
}

/// Runs before a message goes to the log, in any process and any state, also after a failed allocation. It neither allocates nor raises
/// errors.
unsafe extern "C-unwind" fn on_message(data: *mut pg_sys::ErrorData) {
    // SAFETY: the server passes a message that it owns. Its texts are null or end with a zero, and may be written to. The statement is
    // null or ends with a zero.
    unsafe {
        for text in [(*data).message, (*data).detail, (*data).detail_log, (*data).hint, (*data).context] {
            if names_setting(text) {
                blank(std::slice::from_raw_parts_mut(text.cast(), CStr::from_ptr(text).count_bytes()));
            }
        }
        // The log repeats the statement beside an error, and it cannot be written to.
        if names_setting(pg_sys::debug_query_string) {
            (*data).hide_stmt = true;
        }
        if let Some(previous) = PREVIOUS {
            #[allow(ffi_unwind_calls)] // No value on this stack needs to be dropped.
            previous(data);
        }
    }
}

/// Returns whether a text names the setting.
///
/// # Safety
/// The pointer must be null, or the text must end with a zero.
unsafe fn names_setting(text: *const c_char) -> bool {
    // SAFETY: as the caller promises.
    !text.is_null()
        && unsafe { CStr::from_ptr(text) }
            .to_bytes()
            .windows(SETTING.len())
            .any(|part| part.eq_ignore_ascii_case(SETTING))
}

/// Overwrites all from the first `://` to the last `@`, and all from the first `pass=` on: the address of a Unix socket has the password
/// there. That may be more than the secret, never less.
fn blank(text: &mut [u8]) {
    let find = |text: &[u8], what: &[u8]| text.windows(what.len()).position(|part| part == what);
    let Some(start) = find(text, b"://").map(|at| at + 3) else { return };
    if let Some(end) = text[start..].iter().rposition(|byte| *byte == b'@') {
        text[start..start + end].fill(b'*');
    }
    if let Some(pass) = find(&text[start..], b"pass=") {
        text[start + pass + 5..].fill(b'*');
    }
}
