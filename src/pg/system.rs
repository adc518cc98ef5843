//! The server's own catalogs, read by their indexes: what its caches do not tell, because it is being written in this moment or because
//! this transaction has changed it.

#![allow(unsafe_code)]

use pgrx::pg_sys;
use std::marker::PhantomData;

/// A catalog with an index of it, the column of numbers with which the latter begins, and what its rows begin with.
pub struct Catalog<T> {
    table: u32,
    index: u32,
    column: i16,
    row: PhantomData<T>,
}

impl<T> Catalog<T> {
    /// What a row begins with must be `T`.
    pub(super) const fn new(table: u32, index: u32, column: i16) -> Self {
        Self { table, index, column, row: PhantomData }
    }

    /// The number of the catalog itself.
    pub const fn number(&self) -> u32 {
        self.table
    }
}

/// A table that is a part of another.
#[repr(C)]
pub struct Inheritance {
    part: u32,
    pub whole: u32,
}

/// The relations, by their number.
pub const CLASSES: Catalog<pg_sys::FormData_pg_class> = Catalog::new(1259, 2662, 1);
/// The types, by their number.
pub const TYPES: Catalog<pg_sys::FormData_pg_type> = Catalog::new(1247, 2703, 1);
/// The roles, by their number.
pub const ROLES: Catalog<pg_sys::FormData_pg_authid> = Catalog::new(1260, 2677, 1);
/// Which table is a part of which, by the part.
pub const INHERITS: Catalog<Inheritance> = Catalog::new(2611, 2680, 1);

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
    // one that is registered while it is used, and in which none of this transaction's commands has happened. A row begins as its
    // catalog says, and stands as long as the scan is there. An error gives it all back.
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
            with(&*pg_sys::GETSTRUCT(tuple).cast::<T>());
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
