//! How the session reads the names in a query: the division of a text into tokens, the schemas in which names are looked up, and
//! the temporary objects, which come first. A stored result depends on these names, because a new object of such a name can change
//! what the query means (`query/run.rs`). A function that looks up a catalog must be called within a transaction, and may raise
//! errors of the server.

#![allow(unsafe_code)]

use crate::pg::local::check_thread;
use crate::pg::memory;
use pgrx::pg_sys;
use std::ffi::{CStr, c_char, c_int};

unsafe extern "C" {
    // Called without pgrx's guard: they raise no errors, and run with every hit.
    fn GetDatabaseEncoding() -> c_int;
    fn GetTempNamespaceState(schema: *mut pg_sys::Oid, toast: *mut pg_sys::Oid);
}

/// Returns what the division of a query's text into tokens depends on: whether `standard_conforming_strings` is on, and whether the
/// database's encoding is UTF-8.
pub fn lexing() -> (bool, bool) {
    check_thread();
    // SAFETY: reads variables of the server.
    unsafe {
        let is_utf8 = GetDatabaseEncoding() == pg_sys::pg_enc::PG_UTF8 as c_int;
        (pg_sys::standard_conforming_strings, is_utf8)
    }
}

/// Returns the names in the setting `search_path`, with the name of the current role in the place of `$user`. A schema of a name
/// need not exist.
pub fn search_path_names() -> Vec<Vec<u8>> {
    let mut names = Vec::new();
    check_thread();
    // SAFETY: the setting is a text that ends with a zero. The server divides a copy of it in place, so the list has pointers into
    // that copy.
    unsafe {
        let mut list = std::ptr::null_mut();
        let text = pg_sys::pstrdup(pg_sys::namespace_search_path);
        if pg_sys::SplitIdentifierString(text, b',' as c_char, &raw mut list) && !list.is_null() {
            for at in 0..(*list).length as usize {
                let mut name = (*(*list).elements.add(at)).ptr_value.cast::<c_char>().cast_const();
                if CStr::from_ptr(name) == c"$user" {
                    name = pg_sys::GetUserNameFromId(pg_sys::GetUserId(), true);
                }
                if !name.is_null() {
                    memory::push(&mut names, memory::copy(CStr::from_ptr(name).to_bytes()));
                }
            }
        }
        pg_sys::list_free(list);
        pg_sys::pfree(text.cast());
    }
    names
}

/// Returns whether the session has a schema for temporary objects.
pub fn has_temporary_schema() -> bool {
    temporary_schema() != pg_sys::InvalidOid
}

/// Returns whether the session has temporary objects. The schema for them stays until the session ends, also when it is empty.
pub fn has_temporary_objects() -> bool {
    // The OID of pg_depend, the numbers of two columns, and the OID of its index on the class and OID of the object that others
    // depend on.
    const DEPENDENCIES: u32 = 2608;
    const REFERENCED_CLASS: pg_sys::AttrNumber = 4;
    const REFERENCED: pg_sys::AttrNumber = 5;
    const BY_REFERENCED: u32 = 2674;
    let schema = temporary_schema();
    if schema == pg_sys::InvalidOid {
        return false;
    }
    let lock = pg_sys::AccessShareLock as c_int;
    // SAFETY: follows the way in which the server scans its catalogs: every object depends on its schema. An error releases
    // everything with the (sub)transaction.
    unsafe {
        let mut keys: [pg_sys::ScanKeyData; 2] = std::mem::zeroed();
        for (key, (column, value)) in
            keys.iter_mut().zip([(REFERENCED_CLASS, pg_sys::NamespaceRelationId), (REFERENCED, schema)])
        {
            let equal = pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber;
            pg_sys::ScanKeyInit(key, column, equal, pg_sys::F_OIDEQ.into(), value.into());
        }
        let depend = pg_sys::table_open(DEPENDENCIES.into(), lock);
        let scan = pg_sys::systable_beginscan(
            depend,
            BY_REFERENCED.into(),
            true,
            std::ptr::null_mut(),
            keys.len() as c_int,
            keys.as_mut_ptr(),
        );
        let has_objects = !pg_sys::systable_getnext(scan).is_null();
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(depend, lock);
        has_objects
    }
}

/// Returns whether the session has a temporary relation or type with one of these names.
pub fn in_temporary_schema<'n>(mut names: impl Iterator<Item = &'n [u8]>) -> bool {
    use pg_sys::SysCacheIdentifier::{RELNAMENSP, TYPENAMENSP};
    let schema = temporary_schema();
    schema != pg_sys::InvalidOid
        && names.any(|name| {
            let Some(name) = Name::new(name) else { return false };
            let name = pg_sys::Datum::from(name.0.as_ptr());
            // SAFETY: looks up catalogs by a name that ends with a zero, and a schema.
            [RELNAMENSP, TYPENAMENSP].into_iter().any(|cache| unsafe {
                pg_sys::SearchSysCacheExists(cache as c_int, name, schema.into(), 0.into(), 0.into())
            })
        })
}

fn temporary_schema() -> pg_sys::Oid {
    let (mut schema, mut toast) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    check_thread();
    // SAFETY: copies two variables of the server.
    unsafe { GetTempNamespaceState(&raw mut schema, &raw mut toast) };
    schema
}

/// A name as the server's caches expect it: it ends with a zero.
struct Name([u8; pg_sys::NAMEDATALEN as usize]);

impl Name {
    /// Returns None if there cannot be an object of this name.
    fn new(name: &[u8]) -> Option<Self> {
        let mut bytes = [0; pg_sys::NAMEDATALEN as usize];
        let is_possible = name.len() < bytes.len() && !name.contains(&0);
        is_possible.then(|| {
            bytes[..name.len()].copy_from_slice(name);
            Self(bytes)
        })
    }
}

/// Returns whether one of the names is that of a temporary relation or type. For tests, in debug builds only.
#[cfg(debug_assertions)]
#[pgrx::pg_extern(sql = false)]
fn names_temporary(names: Vec<String>) -> bool {
    in_temporary_schema(names.iter().map(String::as_bytes))
}

/// Returns the names in the search path. For tests, in debug builds only.
#[cfg(debug_assertions)]
#[pgrx::pg_extern(sql = false)]
fn names_in_search_path() -> Vec<String> {
    search_path_names().into_iter().map(|name| String::from_utf8_lossy(&name).into_owned()).collect()
}
