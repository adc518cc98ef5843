//! Reads the server's own catalogs by their indexes. The server's caches cannot answer these questions, because a row is just being
//! written, or because this transaction has changed it.

#![allow(unsafe_code)]

use pgrx::pg_sys;
use std::ffi::{CStr, c_void};

/// A catalog with one of its indexes, the number column with which the index begins, and a function that copies the needed columns of a
/// row.
///
/// A scan returns a row in place, on a page that all processes share. VACUUM and other commands overwrite some columns in place, for
/// instance the number of the table's pages. So no code may make a reference to a row, and it may only read columns that never change
/// within a row version.
pub struct Catalog<T> {
    table: u32,
    index: u32,
    column: i16,
    copy: unsafe fn(*const c_void) -> T,
}

impl<T> Catalog<T> {
    /// # Safety
    /// The index must be one of that catalog and begin with that column, an oid. `copy` must accept a row of that catalog.
    pub(super) const unsafe fn new(
        table: u32,
        index: u32,
        column: i16,
        copy: unsafe fn(*const c_void) -> T,
    ) -> Self {
        Self { table, index, column, copy }
    }

    /// Returns the number of the catalog itself.
    pub const fn number(&self) -> u32 {
        self.table
    }
}

/// Columns of `pg_class`.
pub struct Class {
    relname: pg_sys::NameData,
    pub relnamespace: pg_sys::Oid,
    pub relkind: u8,
    pub relpersistence: u8,
}

impl Class {
    /// Returns the relation's name.
    pub fn name(&self) -> &[u8] {
        // SAFETY: an array of bytes is read as one of `u8`, which has the same size.
        let bytes = unsafe { &*(&raw const self.relname.data).cast::<[u8; pg_sys::NAMEDATALEN as usize]>() };
        CStr::from_bytes_until_nul(bytes).map_or(bytes, CStr::to_bytes)
    }
}

/// Columns of `pg_type`.
pub struct Type {
    pub typelem: pg_sys::Oid,
    pub typrelid: pg_sys::Oid,
    pub typcategory: u8,
}

/// A row of `pg_inherits`: the parent of a table.
pub struct Inheritance {
    pub whole: u32,
}

/// Relations, by their number.
// SAFETY: the numbers of pg_class and of the index of its first column.
pub const CLASSES: Catalog<Class> = unsafe { Catalog::new(1259, 2662, 1, class) };
/// Types, by their number.
// SAFETY: the numbers of pg_type and of the index of its first column.
pub const TYPES: Catalog<Type> = unsafe { Catalog::new(1247, 2703, 1, of_type) };
/// Roles, by their number.
// SAFETY: the numbers of pg_authid and of the index of its first column; a row begins with these columns.
pub const ROLES: Catalog<pg_sys::FormData_pg_authid> =
    unsafe { Catalog::new(1260, 2677, 1, prefix::<pg_sys::FormData_pg_authid>) };
/// The parents of a table, by the number of the child.
// SAFETY: the numbers of pg_inherits and of the index of its first and its last but one column.
pub const INHERITS: Catalog<Inheritance> = unsafe { Catalog::new(2611, 2680, 1, inheritance) };

unsafe fn class(row: *const c_void) -> Class {
    let row = row.cast::<pg_sys::FormData_pg_class>();
    // SAFETY: a row of pg_class.
    unsafe {
        Class {
            relname: (*row).relname,
            relnamespace: (*row).relnamespace,
            relkind: (*row).relkind as u8,
            relpersistence: (*row).relpersistence as u8,
        }
    }
}

unsafe fn of_type(row: *const c_void) -> Type {
    let row = row.cast::<pg_sys::FormData_pg_type>();
    // SAFETY: a row of pg_type.
    unsafe {
        Type { typelem: (*row).typelem, typrelid: (*row).typrelid, typcategory: (*row).typcategory as u8 }
    }
}

/// Copies the first columns of a row. The catalog must be one whose rows are never overwritten in place.
///
/// # Safety
/// A row of the catalog must begin with a `T`.
pub(super) unsafe fn prefix<T: Copy>(row: *const c_void) -> T {
    // SAFETY: as the caller promises.
    unsafe { row.cast::<T>().read() }
}

unsafe fn inheritance(row: *const c_void) -> Inheritance {
    // SAFETY: a row of pg_inherits, which begins with two numbers: those of the child and of the parent.
    Inheritance { whole: unsafe { row.cast::<pg_sys::Oid>().add(1).read() }.to_u32() }
}

/// The state in which a catalog is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum When {
    Now,
    /// Like `Now`, with the rows that the running command has written.
    AsWritten,
    /// As if this transaction had changed nothing.
    BeforeUs,
}

/// Calls `with` for each row of a catalog that has this number in the index's column.
pub fn each_row<T>(catalog: &Catalog<T>, number: u32, when: When, mut with: impl FnMut(&T)) {
    let lock = pg_sys::AccessShareLock as i32;
    // SAFETY: follows the way in which the server reads its catalogs: by an index, with one of three snapshots. One is the scan's own,
    // one sees all that is written, and one is a registered copy in which no command of this transaction has happened; it stays
    // registered while it is used. A row belongs to the catalog, and is valid until the next one is fetched. If an error is raised, the
    // server releases everything.
    unsafe {
        let table = pg_sys::table_open(catalog.table.into(), lock);
        let mut key = pg_sys::ScanKeyData::default();
        let equal = pg_sys::BTEqualStrategyNumber as u16;
        pg_sys::ScanKeyInit(&raw mut key, catalog.column, equal, pg_sys::F_OIDEQ.into(), number.into());
        let snapshot = match when {
            When::Now => std::ptr::null_mut(),
            When::AsWritten => &raw mut pg_sys::SnapshotSelfData,
            When::BeforeUs => {
                let before = pg_sys::RegisterSnapshot(pg_sys::GetCatalogSnapshot(catalog.table.into()));
                (*before).curcid = pg_sys::FirstCommandId;
                before
            }
        };
        let scan = pg_sys::systable_beginscan(table, catalog.index.into(), true, snapshot, 1, &raw mut key);
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            with(&(catalog.copy)(pg_sys::GETSTRUCT(tuple).cast()));
        }
        pg_sys::systable_endscan(scan);
        if when == When::BeforeUs {
            pg_sys::UnregisterSnapshot(snapshot);
        }
        pg_sys::table_close(table, lock);
    }
}

/// Returns what `read` makes of the row with this number, if there is one.
pub fn row<T, R>(catalog: &Catalog<T>, number: u32, when: When, mut read: impl FnMut(&T) -> R) -> Option<R> {
    let mut found = None;
    each_row(catalog, number, when, |row| found = Some(read(row)));
    found
}
