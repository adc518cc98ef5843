//! Compares the version of the extension in this database with the version of the loaded library.
//!
//! The SQL objects of a database keep the version that CREATE EXTENSION or ALTER EXTENSION UPDATE gave them, and the library
//! keeps its version until the server is restarted. So every combination can occur. The library serves the versions from
//! [`OLDEST_SERVED`] up to its own. If a database has any other version, the library does not read the tables of the extension
//! there, and each call of its functions raises an error. The hint says how to repair it.

#![allow(unsafe_code)]

use super::error::Refused;
use pgrx::prelude::*;

/// The version of the library.
const LIBRARY: &str = env!("CARGO_PKG_VERSION");

/// The oldest version of the SQL objects that this library serves. If a release raises it, users of older versions must run ALTER
/// EXTENSION UPDATE before they can use the cache again.
const OLDEST_SERVED: Version = Version([0, 1, 0]);

/// A version: major, minor and patch. A missing number is 0. A suffix, as in `0.2.0-beta1`, is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version([u32; 3]);

impl Version {
    /// Reads a version. None if the text is not one.
    fn read(text: &str) -> Option<Self> {
        let mut version = [0; 3];
        let mut parts = text.split('-').next()?.split('.');
        for (to, part) in version.iter_mut().zip(&mut parts) {
            *to = part.parse().ok()?;
        }
        parts.next().is_none().then_some(Self(version))
    }

    fn of_library() -> Option<Self> {
        Self::read(LIBRARY)
    }
}

/// Returns the version of the extension with this OID, from its row in `pg_extension`. None if there is no row. May raise errors.
fn of_extension(extension: u32) -> Option<String> {
    let lock = pg_sys::AccessShareLock as i32;
    let mut found = None;
    // SAFETY: scans a catalog by the index of its OIDs, as the server does. The tuple is valid until the next one is fetched. The
    // column is a text, which the conversion copies.
    unsafe {
        let mut key: pg_sys::ScanKeyData = std::mem::zeroed();
        let equal = pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber;
        let (column, oid) = (pg_sys::Anum_pg_extension_oid as i16, pg_sys::Oid::from(extension));
        pg_sys::ScanKeyInit(&raw mut key, column, equal, pg_sys::F_OIDEQ.into(), oid.into());
        let relation = pg_sys::table_open(pg_sys::ExtensionRelationId, lock);
        let index = pg_sys::ExtensionOidIndexId.into();
        let scan = pg_sys::systable_beginscan(relation, index, true, std::ptr::null_mut(), 1, &raw mut key);
        let tuple = pg_sys::systable_getnext(scan);
        if !tuple.is_null() {
            let (column, mut is_null) = (pg_sys::Anum_pg_extension_extversion as i32, false);
            let value = pg_sys::heap_getattr(tuple, column, (*relation).rd_att, &mut is_null);
            found = String::from_datum(value, is_null);
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, lock);
    }
    found
}

/// Returns an error unless the library serves the version of the extension with this OID. If the extension has no row in
/// `pg_extension`, there is no version to refuse, and the result is Ok. May raise errors.
pub fn require_served(extension: u32) -> Result<(), Refused> {
    let Some(text) = of_extension(extension) else { return Ok(()) };
    // If the text is not a version, `version` is None. None is less than any version, so the extension counts as too old.
    let version = Version::read(&text);
    if version >= Some(OLDEST_SERVED) && version <= Version::of_library() {
        return Ok(());
    }
    let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
    let hint = if version > Version::of_library() {
        format!("Install version {text} of pg_cache or a later one, and restart the server.")
    } else {
        "Run ALTER EXTENSION pg_cache UPDATE;".to_owned()
    };
    Err(Refused::new(
        code,
        format!("the loaded library of pg_cache does not serve version {text} of the extension"),
    )
    .detail(format!(
        "The library has version {LIBRARY}, and the extension in this database has version {text}."
    ))
    .hint(hint))
}

/// Returns an error if the version of the extension with this OID is newer than the library. The scripts of CREATE EXTENSION and
/// ALTER EXTENSION UPDATE ask this at their beginning, when the row in `pg_extension` already has the version that they install.
/// The error occurs if the files of a newer version were installed while the server still runs the library that it loaded at its
/// start. May raise errors.
pub fn require_library_for(extension: u32) -> Result<(), Refused> {
    let Some(text) = of_extension(extension) else { return Ok(()) };
    if Version::read(&text) <= Version::of_library() {
        return Ok(());
    }
    let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
    Err(Refused::new(code, format!("version {text} of pg_cache needs a newer library than the loaded one"))
        .detail(format!("The server has loaded version {LIBRARY} of the library at its start."))
        .hint("Restart the server, and repeat the command."))
}
