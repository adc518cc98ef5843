//! The library works only when the postmaster loads it: shared memory can be asked for at no other time.

#![allow(unsafe_code)]

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::ffi::CStr;

/// Raises one error, which names the commands that repair it, unless the postmaster is loading us.
///
/// Whoever loads the library later lands here: CREATE EXTENSION, LOAD, `session_preload_libraries`.
pub fn require() {
    // SAFETY: a plain global of the server, constant outside the postmaster's start-up.
    if unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        return;
    }
    let error = ErrorReport::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "pg_cache must be loaded when the server starts",
        "preload::require",
    )
    .set_detail("It keeps its cache in shared memory, which a running server cannot add.")
    .set_hint(format!(
        "Run ALTER SYSTEM SET shared_preload_libraries = {}; then restart the server and repeat the command.",
        preload_list_with_us(&preload_libraries()),
    ));
    error.report(PgLogLevel::ERROR);
}

/// The libraries that are preloaded now, as the setting spells them.
fn preload_libraries() -> String {
    // SAFETY: the server's own string for a built-in setting: never freed while we read it, and NULL
    // only before settings exist.
    let raw = unsafe { pg_sys::shared_preload_libraries_string };
    if raw.is_null() {
        return String::new();
    }
    // SAFETY: checked for NULL above; a setting is NUL-terminated.
    unsafe { CStr::from_ptr(raw) }.to_string_lossy().into_owned()
}

/// `current` with pg_cache appended, as the value of an ALTER SYSTEM SET: each library a literal of its
/// own, since one literal would be taken for one library.
fn preload_list_with_us(current: &str) -> String {
    current
        .split(',')
        .map(|library| library.trim().trim_matches('"'))
        .filter(|library| !library.is_empty() && *library != "pg_cache")
        .chain(["pg_cache"])
        .map(|library| format!("'{}'", library.replace('\'', "''")))
        .collect::<Vec<_>>()
        .join(", ")
}
