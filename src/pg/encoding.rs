//! Text in the database's encoding, which may be another one than UTF-8. `letters` returns it as a Rust string if it needs no
//! conversion; `shown` escapes it for messages.

#![allow(unsafe_code)]

use pgrx::pg_sys;
use std::borrow::Cow;
use std::fmt::Write;

/// Returns whether the database's encoding is UTF-8.
pub fn is_utf8() -> bool {
    // SAFETY: only reads a variable.
    let encoding = unsafe { pg_sys::GetDatabaseEncoding() };
    encoding == pg_sys::pg_enc::PG_UTF8 as i32
}

/// Returns text of the database as a Rust string, if it needs no conversion. If the database's encoding is not UTF-8, that holds
/// for ASCII only.
pub fn letters(text: &[u8]) -> Option<&str> {
    std::str::from_utf8(text).ok().filter(|letters| is_utf8() || letters.is_ascii())
}

/// Returns the beginning of a text of the database: at most `most` bytes, up to the end of a character.
pub fn clipped(text: &[u8], most: usize) -> &[u8] {
    if text.len() <= most {
        return text;
    }
    let (length, most) = (text.len().min(i32::MAX as usize) as i32, most.min(i32::MAX as usize) as i32);
    // SAFETY: reads characters from the beginning of the text until they have `most` bytes, which is less than its length.
    let fitting = unsafe { pg_sys::pg_mbcliplen(text.as_ptr().cast(), length, most) };
    &text[..(fitting.max(0) as usize).min(text.len())]
}

/// The most bytes of a name in a message. A longer name is cut off: pgrx copies a message by allocations that abort the process if
/// there is no memory, and the postmaster then ends all sessions.
const SHOWN_BYTES_MAX: usize = 1024;

/// Returns a name in a form that a message can contain. A message must be in the database's encoding, and all that is known of that
/// encoding is that it contains ASCII. A name that is UTF-8 is shown as it is: its bytes are in that encoding already. In a name
/// that is not UTF-8 or that is cut off, all bytes that are not printable ASCII are escaped.
pub fn shown(name: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(name) {
        Ok(letters) if name.len() <= SHOWN_BYTES_MAX => Cow::Borrowed(letters),
        _ => {
            let mut shown = String::new();
            for byte in name.iter().take(SHOWN_BYTES_MAX) {
                // Writing to a String cannot fail.
                let _ = match byte {
                    b' '..=b'~' => write!(shown, "{}", char::from(*byte)),
                    _ => write!(shown, "\\x{byte:02x}"),
                };
            }
            if name.len() > SHOWN_BYTES_MAX {
                shown += "...";
            }
            Cow::Owned(shown)
        }
    }
}
