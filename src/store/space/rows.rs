//! The rows of `pgcache.spaces`: reads the name and the options of one space (a named cache), or of all spaces of the database.
//! Checks no privilege: `privileges.rs` and `resolving.rs` do that.
//!
//! The space `default` always exists. It has a row only if its options were altered, so the functions for all spaces add it.

use super::options::Options;
use crate::pg::catalog::{self, Rows, Table, spaces};
use crate::pg::encoding::shown;
use crate::pg::error::Refused;
use crate::pg::role;
use pgrx::prelude::PgSqlErrorCode;

/// The most bytes of a name.
pub const NAME_BYTES_MAX: usize = 63;

/// The name of the space that always exists.
pub const DEFAULT: &str = "default";
/// The OID of the default space. No other space has it.
pub const DEFAULT_OID: u32 = 0;

/// Returns the options of a space as its row says now. None if it has no row.
pub fn options(name: &str) -> Option<Options> {
    let mut options = None;
    catalog::read(Table::Spaces, Rows::Named(name), |row| options = Some(Options::of(row)));
    options
}

/// Returns an error if the database has no tables of pg_cache, or if the library does not serve the version of the extension.
pub(super) fn require_tables() -> Result<(), Refused> {
    catalog::require_served()?;
    catalog::table_oid(Table::Spaces).map(drop).ok_or_else(|| {
        let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
        Refused::new(code, "the tables of pg_cache are missing in this database")
            .hint("Run CREATE EXTENSION pg_cache; or ALTER EXTENSION pg_cache UPDATE;")
    })
}

/// Returns the error for a space that does not exist.
pub fn unknown(name: &str) -> Refused {
    let can_be = !matches!(name, "" | "*") && name.len() <= NAME_BYTES_MAX;
    let name = shown(name.as_bytes());
    let code = PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT;
    let create = match can_be {
        true => format!("To create it, run: SELECT cache_create_space({}); ", role::literal(&name)),
        false => String::new(),
    };
    Refused::new(code, format!("space \"{name}\" does not exist"))
        .hint(format!("{create}To list the spaces, run: SELECT name FROM cache_spaces;"))
}

/// Calls `with` with the OID, name and options of every space. The default space has no row if it was never altered.
pub fn each_space(mut with: impl FnMut(u32, &str, &Options)) {
    let mut is_altered = false;
    catalog::read(Table::Spaces, Rows::All, |row| {
        let oid = row.oid(spaces::OID).unwrap_or_default();
        is_altered |= oid == DEFAULT_OID;
        // In a database with another encoding, a restored dump may have a name that cannot be shown unchanged.
        with(oid, &shown(row.text(spaces::NAME).unwrap_or_default()), &Options::of(row));
    });
    if !is_altered {
        with(DEFAULT_OID, DEFAULT, &Options::BUILT_IN);
    }
}

/// Calls `with` with the OID and the name of every space. It takes less time for each space than [`each_space`].
pub fn each_name(mut with: impl FnMut(u32, &str)) {
    let mut is_altered = false;
    catalog::read(Table::Spaces, Rows::All, |row| {
        let oid = row.oid(spaces::OID).unwrap_or_default();
        is_altered |= oid == DEFAULT_OID;
        with(oid, &shown(row.text(spaces::NAME).unwrap_or_default()));
    });
    if !is_altered {
        with(DEFAULT_OID, DEFAULT);
    }
}

/// Calls `with` with the OID and options of each space that has a row. The default space has none if it was never altered.
pub fn each_with_row(mut with: impl FnMut(u32, &Options)) {
    catalog::read(Table::Spaces, Rows::All, |row| {
        with(row.oid(spaces::OID).unwrap_or_default(), &Options::of(row));
    });
}
