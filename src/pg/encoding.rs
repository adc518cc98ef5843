//! Text in the database's encoding, which need not be UTF-8.

#![allow(unsafe_code)]

use pgrx::pg_sys;
use std::borrow::Cow;
use std::fmt::Write;

/// Some text of the database as a string, if that can be had as it stands: in a database of another encoding than UTF-8, if it is
/// ASCII.
pub fn letters(text: &[u8]) -> Option<&str> {
    // SAFETY: a plain question.
    let is_utf8 = unsafe { pg_sys::GetDatabaseEncoding() } == pg_sys::pg_enc::PG_UTF8 as i32;
    std::str::from_utf8(text).ok().filter(|letters| is_utf8 || letters.is_ascii())
}

/// More than this of a name nobody reads, and a message that outgrows the server's memory would end the server.
const SHOWN_BYTES_MAX: usize = 1024;

/// A name as a message can show it. A message has to be in the database's encoding, of which we only know that it contains
/// ASCII: what is no UTF-8 is shown by its bytes.
pub fn shown(name: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(name) {
        Ok(letters) if name.len() <= SHOWN_BYTES_MAX => Cow::Borrowed(letters),
        _ => {
            let mut shown = String::new();
            for byte in name.iter().take(SHOWN_BYTES_MAX) {
                // Writing to a String does not fail.
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
