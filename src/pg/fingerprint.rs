//! Digests of everything outside of the database that stored values depend on: the programs that computed them, and settings.
//! `restart.rs` loads a saved cache only if both digests are the same as when the cache was saved.

#![allow(unsafe_code)]

use pgrx::pg_sys;
use sha2::{Digest as _, Sha256};
use std::ffi::CStr;
use std::os::unix::fs::MetadataExt;

/// A SHA-256 hash.
pub type Digest = [u64; 4];

/// Returns the digest of some parts. It covers the length of each part, so the same bytes, divided into parts in another way, have
/// another digest. Allocates nothing.
pub fn digest<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_ne_bytes());
        hash.update(part);
    }
    let bytes = hash.finalize();
    std::array::from_fn(|word| u64::from_ne_bytes(std::array::from_fn(|at| bytes[word * 8 + at])))
}

/// Returns the digest of the program and the libraries that this process consists of: the server, this library, the libraries for
/// collations, and so on. A file counts by its path, size and time of change. Must be called when the process starts: later, an
/// upgrade may have replaced files that the process still uses. Returns None if the system does not tell the files, or if one of
/// them is gone.
pub fn programs() -> Option<Digest> {
    let maps = std::fs::read("/proc/self/maps").ok()?;
    let maps = String::from_utf8_lossy(&maps);
    let mut paths: Vec<&str> = maps.lines().filter_map(program_of).collect();
    paths.sort_unstable();
    paths.dedup();
    let mut described = Vec::with_capacity(paths.len());
    for path in paths {
        let file = std::fs::metadata(path).ok()?;
        described.push(format!("{path} {} {}.{:09}", file.len(), file.mtime(), file.mtime_nsec()));
    }
    (!described.is_empty()).then(|| digest(described.iter().map(String::as_bytes)))
}

/// Returns the file of a line of the list of mappings, if it is a program or a library. A line ends with the path, and its second
/// word tells with an x whether the memory has code. The data of a library may be mapped without any code, so a name with `.so`
/// counts as well.
fn program_of(line: &str) -> Option<&str> {
    let path = line.get(line.find('/')?..)?;
    let has_code = line.split(' ').nth(1).is_some_and(|access| access.contains('x'));
    (has_code || path.contains(".so")).then_some(path)
}

/// The settings on which the results of queries depend, or by which the server finds the libraries that compute them.
const SETTINGS: [&CStr; 27] = [
    c"DateStyle",
    c"IntervalStyle",
    c"TimeZone",
    c"array_nulls",
    c"backslash_quote",
    c"bytea_output",
    c"default_text_search_config",
    c"dynamic_library_path",
    c"extra_float_digits",
    c"gin_fuzzy_search_limit",
    c"lc_monetary",
    c"lc_numeric",
    c"lc_time",
    c"lo_compat_privileges",
    c"local_preload_libraries",
    c"plpgsql.variable_conflict",
    c"quote_all_identifiers",
    c"row_security",
    c"search_path",
    c"session_preload_libraries",
    c"session_replication_role",
    c"shared_preload_libraries",
    c"standard_conforming_strings",
    c"timezone_abbreviations",
    c"transform_null_equals",
    c"xmlbinary",
    c"xmloption",
];

/// Returns the digest of [`SETTINGS`], as this process has them; an unknown setting counts as empty. Allocates nothing and raises
/// no error.
pub fn settings() -> Digest {
    digest(SETTINGS.iter().map(|name| {
        // SAFETY: returns a null pointer for an unknown name. The text is used before the next call.
        let value = unsafe { pg_sys::GetConfigOption(name.as_ptr(), true, false) };
        // SAFETY: a text of the server that ends with a zero.
        if value.is_null() { &b""[..] } else { unsafe { CStr::from_ptr(value) }.to_bytes() }
    }))
}
