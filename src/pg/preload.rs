//! Ensures that the postmaster loads the library. Shared memory can be requested at no other time, so a later load is an error that
//! explains the repair. Also tells whether the postmaster loads this library before all others.

#![allow(unsafe_code)]

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::ffi::CStr;

/// Raises an error unless the postmaster is loading the library. The error names the commands that repair the configuration.
///
/// CREATE EXTENSION, LOAD and `session_preload_libraries` load the library too late and end here.
pub fn require() {
    // SAFETY: a plain global of the server, constant except during the postmaster's start-up.
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

/// Returns whether `shared_preload_libraries` names this library first: then the postmaster has loaded no other library before. Must
/// be called while the postmaster loads the library.
pub fn is_first() -> bool {
    let all = preload_libraries();
    let first = all.split(',').next().unwrap_or_default().trim().trim_matches('"');
    first.strip_prefix("$libdir/").unwrap_or(first) == "pg_cache"
}

/// Returns the libraries that are preloaded now, as the setting spells them.
fn preload_libraries() -> String {
    // SAFETY: the server's own string for a built-in setting. It is never freed while we read it, and is NULL only before settings
    // exist.
    let raw = unsafe { pg_sys::shared_preload_libraries_string };
    if raw.is_null() {
        return String::new();
    }
    // SAFETY: checked for NULL above; a setting is NUL-terminated.
    unsafe { CStr::from_ptr(raw) }.to_string_lossy().into_owned()
}

/// Returns `current` with pg_cache in front, as the value for ALTER SYSTEM SET: in the first place, commits cost least
/// ([`is_first`]). Each library is a literal of its own, because the server would take one literal for one library.
fn preload_list_with_us(current: &str) -> String {
    let others = current.split(',').map(|library| library.trim().trim_matches('"'));
    std::iter::once("pg_cache")
        .chain(others.filter(|library| !library.is_empty() && *library != "pg_cache"))
        .map(|library| format!("'{}'", library.replace('\'', "''")))
        .collect::<Vec<_>>()
        .join(", ")
}
