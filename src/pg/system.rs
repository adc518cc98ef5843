//! The server's own catalogs, read by their indexes: what its caches do not tell, because it is being written in this moment or because
//! this transaction has changed it.

#![allow(unsafe_code)]

use pgrx::pg_sys;
use std::ffi::{CStr, c_void};

/// A catalog with an index of it, the column of numbers with which the latter begins, and how to copy what is needed of a row.
///
/// A scan hands out a row where it lies, on a page that all processes share. VACUUM and others overwrite columns of a row in place (the
/// number of its pages, for instance). So no reference to a row is made, and only columns are read that change with a new row.
pub struct Catalog<T> {
    table: u32,
    index: u32,
    column: i16,
    copy: unsafe fn(*const c_void) -> T,
}

impl<T> Catalog<T> {
    /// # Safety
    /// The index is one of that catalog and begins with that column, an oid; `copy` takes a row of that catalog.
    pub(super) const unsafe fn new(
        table: u32,
        index: u32,
        column: i16,
        copy: unsafe fn(*const c_void) -> T,
    ) -> Self {
        Self { table, index, column, copy }
    }

    /// The number of the catalog itself.
    pub const fn number(&self) -> u32 {
        self.table
    }
}

/// A relation.
pub struct Class {
    relname: pg_sys::NameData,
    pub relnamespace: pg_sys::Oid,
    pub relkind: u8,
    pub relpersistence: u8,
}

impl Class {
    /// Its name.
    pub fn name(&self) -> &[u8] {
        // SAFETY: an array of bytes, of which each is one.
        let bytes = unsafe { &*(&raw const self.relname.data).cast::<[u8; pg_sys::NAMEDATALEN as usize]>() };
        CStr::from_bytes_until_nul(bytes).map_or(bytes, CStr::to_bytes)
    }
}

/// A type.
pub struct Type {
    pub typelem: pg_sys::Oid,
    pub typrelid: pg_sys::Oid,
    pub typcategory: u8,
}

/// A table that is a part of another.
pub struct Inheritance {
    pub whole: u32,
}

/// The relations, by their number.
// SAFETY: pg_class and the index of its first column.
pub const CLASSES: Catalog<Class> = unsafe { Catalog::new(1259, 2662, 1, class) };
/// The types, by their number.
// SAFETY: pg_type and the index of its first column.
pub const TYPES: Catalog<Type> = unsafe { Catalog::new(1247, 2703, 1, of_type) };
/// The roles, by their number.
// SAFETY: pg_authid and the index of its first column; a row begins with these columns.
pub const ROLES: Catalog<pg_sys::FormData_pg_authid> =
    unsafe { Catalog::new(1260, 2677, 1, prefix::<pg_sys::FormData_pg_authid>) };
/// Which table is a part of which, by the part.
// SAFETY: pg_inherits and the index of its first column and its last but one.
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

/// What a row begins with, of a catalog that is never overwritten in place.
///
/// # Safety
/// A row of the catalog begins with a `T`.
pub(super) unsafe fn prefix<T: Copy>(row: *const c_void) -> T {
    // SAFETY: as the caller promises.
    unsafe { row.cast::<T>().read() }
}

unsafe fn inheritance(row: *const c_void) -> Inheritance {
    // SAFETY: a row of pg_inherits, which begins with two numbers: the part's and the whole's.
    Inheritance { whole: unsafe { row.cast::<pg_sys::Oid>().add(1).read() }.to_u32() }
}

/// As of when a catalog is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum When {
    Now,
    /// The same with what the command has written that is running.
    AsWritten,
    /// As if this transaction had done nothing.
    BeforeUs,
}

/// Calls with the rows of a catalog that have a number in its index's column.
pub fn each_row<T>(catalog: &Catalog<T>, number: u32, when: When, mut with: impl FnMut(&T)) {
    let lock = pg_sys::AccessShareLock as i32;
    // SAFETY: as the server reads its catalogs: by an index, with a snapshot of its own, with one that sees all that is written, or with
    // one that is registered while it is used (and so is a copy of our own), in which none of this transaction's commands has happened. A
    // row is one of its catalog, and stands until the next one is asked for. An error gives it all back.
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

/// What is read of the row of a catalog's object.
pub fn row<T, R>(catalog: &Catalog<T>, number: u32, when: When, mut read: impl FnMut(&T) -> R) -> Option<R> {
    let mut found = None;
    each_row(catalog, number, when, |row| found = Some(read(row)));
    found
}
