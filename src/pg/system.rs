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
    let Catalog { table, index, column, copy } = *catalog;
    // SAFETY: what the catalog says of itself; a row is one of it, and stands until the next one is asked for.
    unsafe {
        each_tuple([table, index], column, number, when, |tuple, _| {
            with(&copy(pg_sys::GETSTRUCT(tuple).cast()));
        });
    }
}

/// Calls with the tuples of a catalog that have a number in a column, and with their description.
///
/// # Safety
/// The two numbers are those of a catalog and of an index of it that begins with that column, an oid.
unsafe fn each_tuple(
    [table, index]: [u32; 2],
    column: i16,
    number: u32,
    when: When,
    mut with: impl FnMut(pg_sys::HeapTuple, pg_sys::TupleDesc),
) {
    let lock = pg_sys::AccessShareLock as i32;
    // SAFETY: as the server reads its catalogs: by an index, with a snapshot of its own, with one that sees all that is written, or with
    // one that is registered while it is used (and so is a copy of our own), in which none of this transaction's commands has happened. A
    // tuple stands until the next one is asked for. An error gives it all back.
    unsafe {
        let relation = pg_sys::table_open(table.into(), lock);
        let mut key = pg_sys::ScanKeyData::default();
        let equal = pg_sys::BTEqualStrategyNumber as u16;
        pg_sys::ScanKeyInit(&raw mut key, column, equal, pg_sys::F_OIDEQ.into(), number.into());
        let snapshot = match when {
            When::Now => std::ptr::null_mut(),
            When::AsWritten => &raw mut pg_sys::SnapshotSelfData,
            When::BeforeUs => {
                let before = pg_sys::RegisterSnapshot(pg_sys::GetCatalogSnapshot(table.into()));
                (*before).curcid = pg_sys::FirstCommandId;
                before
            }
        };
        let scan = pg_sys::systable_beginscan(relation, index.into(), true, snapshot, 1, &raw mut key);
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            with(tuple, (*relation).rd_att);
        }
        pg_sys::systable_endscan(scan);
        if when == When::BeforeUs {
            pg_sys::UnregisterSnapshot(snapshot);
        }
        pg_sys::table_close(relation, lock);
    }
}

/// A kind of object that all databases share, and that roles have privileges on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    Database,
    Tablespace,
}

/// Whether this transaction has changed the privileges on an object: a GRANT of privileges that its role may not grant changes none.
pub fn has_changed_privileges(kind: Shared, number: u32) -> bool {
    use pg_sys::ObjectType::{OBJECT_DATABASE, OBJECT_TABLESPACE};
    let (catalog, object, owner, column) = match kind {
        Shared::Database => {
            let columns = (pg_sys::Anum_pg_database_datdba, pg_sys::Anum_pg_database_datacl);
            ([1262, 2672], OBJECT_DATABASE, columns.0, columns.1)
        }
        Shared::Tablespace => {
            let columns = (pg_sys::Anum_pg_tablespace_spcowner, pg_sys::Anum_pg_tablespace_spcacl);
            ([1213, 2697], OBJECT_TABLESPACE, columns.0, columns.1)
        }
    };
    let read = |when| {
        let mut found = None;
        // SAFETY: pg_database and pg_tablespace, each with the index of its first column, and with columns for its owner, which is never
        // null, and its privileges. These are an array, which is a varlena; null stands for the owner's and the public's usual ones.
        unsafe {
            each_tuple(catalog, 1, number, when, |tuple, description| {
                let mut is_null = true;
                let value = pg_sys::heap_getattr(tuple, column as i32, description, &mut is_null);
                let array = if is_null {
                    let owner = pg_sys::heap_getattr(tuple, owner as i32, description, &mut is_null);
                    pg_sys::acldefault(object, pg_sys::Oid::from(owner.value() as u32)).cast()
                } else {
                    pg_sys::pg_detoast_datum(value.cast_mut_ptr())
                };
                let bytes = pgrx::varlena::vardata_any(array).cast::<u8>();
                let length = pgrx::varlena::varsize_any_exhdr(array);
                found = Some(std::slice::from_raw_parts(bytes, length).to_vec());
            });
        }
        found
    };
    read(When::BeforeUs) != read(When::AsWritten)
}

/// A row of pg_shdepend begins so: an object of a database, and what it depends on.
#[derive(Clone, Copy)]
#[repr(C)]
struct Dependency {
    database: pg_sys::Oid,
    _object: [u32; 3],
    _on_class: pg_sys::Oid,
    on: pg_sys::Oid,
}

/// Whether anything belonged to a role before this transaction, or was granted to it, in this database or for all of them.
pub fn had_anything(role: u32) -> bool {
    /// pg_shdepend with the index of what its objects depend on: a class, and a number in that.
    const DEPENDENCIES: [u32; 2] = [1214, 1233];
    // SAFETY: a plain global, constant in a session.
    let here = unsafe { pg_sys::MyDatabaseId };
    let mut found = false;
    // SAFETY: that index begins with the fifth column. A row begins with these columns, and is never overwritten in place.
    unsafe {
        each_tuple(DEPENDENCIES, 5, ROLES.number(), When::BeforeUs, |tuple, _| {
            let row = prefix::<Dependency>(pg_sys::GETSTRUCT(tuple).cast());
            let is_near = row.database == here || row.database == pg_sys::InvalidOid;
            found |= is_near && row.on.to_u32() == role;
        });
    }
    found
}

/// What is read of the row of a catalog's object.
pub fn row<T, R>(catalog: &Catalog<T>, number: u32, when: When, mut read: impl FnMut(&T) -> R) -> Option<R> {
    let mut found = None;
    each_row(catalog, number, when, |row| found = Some(read(row)));
    found
}
