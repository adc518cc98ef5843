//! Keeps the password of `pg_cache.redis_url` out of the server's log.
//!
//! The server writes the new value of a changed setting to its log, and with some settings also statements. So before a message
//! that names the setting is logged, everything in it that may be the URL is overwritten. If the client gets the message, too, it
//! gets the changed message.

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

/// Runs before a message goes to the log, in any process and any state, also after a failed allocation. It neither allocates nor
/// raises errors.
unsafe extern "C-unwind" fn on_message(data: *mut pg_sys::ErrorData) {
    // SAFETY: the server passes a message that it owns. Its texts are null or end with a zero, and may be written to. The statement
    // is null or ends with a zero.
    unsafe {
        let data = &mut *data;
        let texts = [data.message, data.detail, data.detail_log, data.hint, data.context, data.internalquery];
        // Beside an error of at least this level, the log repeats the statement, which must not be changed. So it is left out.
        let repeats = !data.hide_stmt && data.elevel >= pg_sys::log_min_error_statement;
        data.hide_stmt |= repeats && find_name(pg_sys::debug_query_string).is_some();
        let names_it = data.hide_stmt || texts.into_iter().any(|text| find_name(text).is_some());
        for text in texts.into_iter().filter(|text| names_it && !text.is_null()) {
            let bytes = std::slice::from_raw_parts_mut(text.cast::<u8>(), CStr::from_ptr(text).count_bytes());
            match find_name(text) {
                Some(end) => blank(&mut bytes[end..]),
                None => blank_url(bytes),
            }
        }
        if let Some(previous) = PREVIOUS {
            #[allow(ffi_unwind_calls)] // No value on this stack needs to be dropped.
            previous(data);
        }
    }
}

/// Returns where the name of the setting ends in a text. None if the text does not name it.
///
/// # Safety
/// The pointer must be null, or the text must end with a zero.
unsafe fn find_name(text: *const c_char) -> Option<usize> {
    if text.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    let at = bytes.windows(SETTING.len()).position(|part| part.eq_ignore_ascii_case(SETTING))?;
    Some(at + SETTING.len())
}

/// Overwrites a text from the first `=`, `'`, `:` or `/` on, except blanks and quotes: a value of the setting is quoted, follows a
/// `=`, or begins with a scheme and `://`.
fn blank(text: &mut [u8]) {
    let Some(start) = text.iter().position(|byte| matches!(byte, b'=' | b'\'' | b':' | b'/')) else {
        return blank_url(text);
    };
    text[start..]
        .iter_mut()
        .filter(|byte| !matches!(byte, b' ' | b'"' | b'\'' | b'\n'))
        .for_each(|byte| *byte = b'*');
}

/// Overwrites all from the first `://` on.
fn blank_url(text: &mut [u8]) {
    let url = text.windows(3).position(|part| part == b"://");
    if let Some(start) = url {
        text[start..].fill(b'*');
    }
}
