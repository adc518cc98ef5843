//! Reads the server's own catalogs by their indexes: the rows of an object before this transaction, before the running command, and
//! as they are written now ([`When`]). `altered.rs` and `relation.rs` compare them. The server's caches cannot answer these
//! questions, because a row is just being written, or because this transaction has changed it.

#![allow(unsafe_code)]

use super::memory;
use pgrx::pg_sys;
use std::ffi::{CStr, c_void};

/// A catalog with one of its indexes, the OID column with which the index begins, and a function that copies the needed columns of
/// a row.
///
/// A scan returns a row in place, on a page that all processes share. VACUUM and other commands overwrite some columns in place,
/// for instance the number of the table's pages. So no code may make a reference to a row, and it may only read columns that never
/// change within a row version.
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

    /// Returns the OID of the catalog itself.
    pub const fn oid(&self) -> u32 {
        self.table
    }
}

/// The name of an object, as a column of a catalog holds it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Name(pg_sys::NameData);

impl Name {
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: an array of bytes is read as one of `u8`, which has the same size.
        let bytes = unsafe { &*(&raw const self.0.data).cast::<[u8; pg_sys::NAMEDATALEN as usize]>() };
        CStr::from_bytes_until_nul(bytes).map_or(bytes, CStr::to_bytes)
    }
}

/// Columns of `pg_class`.
#[derive(Clone, Copy)]
pub struct Class {
    pub relname: Name,
    pub relnamespace: pg_sys::Oid,
    /// The row type.
    pub reltype: pg_sys::Oid,
    /// The access method.
    pub relam: pg_sys::Oid,
    pub relkind: u8,
    pub relpersistence: u8,
}

/// Columns of `pg_type`.
#[derive(Clone, Copy)]
pub struct Type {
    pub typname: Name,
    pub typnamespace: pg_sys::Oid,
    pub typelem: pg_sys::Oid,
    pub typrelid: pg_sys::Oid,
    pub typarray: pg_sys::Oid,
    pub typcategory: u8,
}

/// The first columns of a row of `pg_proc`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Function {
    _oid: pg_sys::Oid,
    pub proname: Name,
    pub pronamespace: pg_sys::Oid,
    _proowner: pg_sys::Oid,
    pub prolang: pg_sys::Oid,
}

/// The first columns of a row of `pg_namespace`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Schema {
    _oid: pg_sys::Oid,
    pub nspname: Name,
}

/// The first columns of a row of `pg_policy` or `pg_rewrite`: the OID and the name of the policy or rule, and the OID of its
/// relation.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Rule {
    _oid: pg_sys::Oid,
    _name: Name,
    pub relation: pg_sys::Oid,
}

/// The first columns of a row of `pg_index`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Index {
    _indexrelid: pg_sys::Oid,
    pub indrelid: pg_sys::Oid,
}

/// A row of `pg_inherits`: the parent of a table.
pub struct Inheritance {
    pub whole: u32,
}

/// Relations, by their OID.
// SAFETY: the numbers of pg_class and of the index of its first column.
pub const CLASSES: Catalog<Class> = unsafe { Catalog::new(1259, 2662, 1, class) };
/// Types, by their OID.
// SAFETY: the numbers of pg_type and of the index of its first column.
pub const TYPES: Catalog<Type> = unsafe { Catalog::new(1247, 2703, 1, of_type) };
/// Functions, by their OID.
// SAFETY: the numbers of pg_proc and of the index of its first column; a row begins with these columns.
pub const FUNCTIONS: Catalog<Function> = unsafe { Catalog::new(1255, 2690, 1, prefix::<Function>) };
/// Schemas, by their OID.
// SAFETY: the numbers of pg_namespace and of the index of its first column; a row begins with these columns.
pub const SCHEMAS: Catalog<Schema> = unsafe { Catalog::new(2615, 2685, 1, prefix::<Schema>) };
/// Policies, by their OID.
// SAFETY: the numbers of pg_policy and of the index of its first column; a row begins with these columns.
pub const POLICIES: Catalog<Rule> = unsafe { Catalog::new(3256, 3257, 1, prefix::<Rule>) };
/// Rules, by their OID.
// SAFETY: the numbers of pg_rewrite and of the index of its first column; a row begins with these columns.
pub const RULES: Catalog<Rule> = unsafe { Catalog::new(2618, 2692, 1, prefix::<Rule>) };
/// Indexes, by their OID in `pg_class`.
// SAFETY: the numbers of pg_index and of the index of its first column. A row begins with these columns. The server overwrites
// other columns in place, and `index` reads only these.
pub const INDEXES: Catalog<Index> = unsafe { Catalog::new(2610, 2679, 1, prefix::<Index>) };
/// Roles, by their OID.
// SAFETY: the numbers of pg_authid and of the index of its first column; a row begins with these columns.
pub const ROLES: Catalog<pg_sys::FormData_pg_authid> =
    unsafe { Catalog::new(1260, 2677, 1, prefix::<pg_sys::FormData_pg_authid>) };
/// The parents of a table, by the OID of the child.
// SAFETY: the numbers of pg_inherits and of the index of its first and its third column.
pub const INHERITS: Catalog<Inheritance> = unsafe { Catalog::new(2611, 2680, 1, inheritance) };

unsafe fn class(row: *const c_void) -> Class {
    let row = row.cast::<pg_sys::FormData_pg_class>();
    // SAFETY: a row of pg_class.
    unsafe {
        Class {
            relname: Name((*row).relname),
            relnamespace: (*row).relnamespace,
            reltype: (*row).reltype,
            relam: (*row).relam,
            relkind: (*row).relkind as u8,
            relpersistence: (*row).relpersistence as u8,
        }
    }
}

unsafe fn of_type(row: *const c_void) -> Type {
    let row = row.cast::<pg_sys::FormData_pg_type>();
    // SAFETY: a row of pg_type.
    unsafe {
        Type {
            typname: Name((*row).typname),
            typnamespace: (*row).typnamespace,
            typelem: (*row).typelem,
            typrelid: (*row).typrelid,
            typarray: (*row).typarray,
            typcategory: (*row).typcategory as u8,
        }
    }
}

/// Copies the first columns of a row. The server must never overwrite these columns in place.
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

/// The state of a catalog that is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The committed rows, with the changes of earlier commands of this transaction.
    Now,
    /// Like `Now`, with the rows that the running command has written.
    AsWritten,
    /// As if this transaction had changed nothing.
    BeforeUs,
}

/// Calls `with` for each row of a catalog that has this OID in the index's column. Must be called within a transaction. May raise
/// errors.
pub fn each_row<T>(catalog: &Catalog<T>, oid: u32, when: When, mut with: impl FnMut(&T)) {
    let Catalog { table, index, column, copy } = *catalog;
    // SAFETY: the catalog's own numbers and its own function to copy a row. The row is valid during the call.
    unsafe {
        each_tuple([table, index], &[(column, oid)], when, |tuple, _| {
            with(&copy(pg_sys::GETSTRUCT(tuple).cast()));
        });
    }
}

/// Calls `with` for each tuple of a catalog that has these OIDs in these columns, with the description of the tuples.
///
/// # Safety
/// The two numbers are those of a catalog and of an index of it that begins with these one or two columns, oids. With 0 for the
/// index, the whole catalog is read.
unsafe fn each_tuple(
    [table, index]: [u32; 2],
    columns: &[(i16, u32)],
    when: When,
    mut with: impl FnMut(pg_sys::HeapTuple, pg_sys::TupleDesc),
) {
    let lock = pg_sys::AccessShareLock as i32;
    // SAFETY: follows the way in which the server reads its catalogs: by an index, with one of three snapshots. One is the scan's
    // own, one sees all that is written, and one is a registered copy in which no command of this transaction has happened; it
    // stays registered while it is used. A tuple belongs to the catalog, and is valid until the next one is fetched. If an error is
    // raised, the server releases everything.
    unsafe {
        let relation = pg_sys::table_open(table.into(), lock);
        let mut keys = [pg_sys::ScanKeyData::default(); 2];
        let equal = pg_sys::BTEqualStrategyNumber as u16;
        let count = columns.len().min(keys.len());
        for (key, (column, oid)) in keys.iter_mut().zip(columns) {
            pg_sys::ScanKeyInit(key, *column, equal, pg_sys::F_OIDEQ.into(), (*oid).into());
        }
        let snapshot = match when {
            When::Now => std::ptr::null_mut(),
            When::AsWritten => &raw mut pg_sys::SnapshotSelfData,
            When::BeforeUs => {
                let before = pg_sys::RegisterSnapshot(pg_sys::GetCatalogSnapshot(table.into()));
                (*before).curcid = pg_sys::FirstCommandId;
                before
            }
        };
        let (has_index, count, keys) = (index != 0, count as i32, keys.as_mut_ptr());
        let scan = pg_sys::systable_beginscan(relation, index.into(), has_index, snapshot, count, keys);
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

/// Returns whether this transaction has changed the privileges on an object. A GRANT by a role without the right to grant changes
/// none.
pub fn has_changed_privileges(kind: Shared, oid: u32) -> bool {
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
        // SAFETY: pg_database and pg_tablespace, each with the index of its first column, and with columns for its owner, which is
        // never null, and its privileges. These are an array, which is a varlena; null stands for the owner's and the public's
        // usual ones.
        unsafe {
            each_tuple(catalog, &[(1, oid)], when, |tuple, description| {
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

/// The first columns of a row of pg_shdepend: an object of a database, and the shared object that it depends on.
#[derive(Clone, Copy)]
#[repr(C)]
struct Dependency {
    database: pg_sys::Oid,
    _object: [u32; 3],
    _on_class: pg_sys::Oid,
    on: pg_sys::Oid,
}

/// Returns whether a role owned anything before this transaction, or had been granted anything, in this database or for all
/// databases.
pub fn had_anything(role: u32) -> bool {
    /// pg_shdepend with the index of what its objects depend on: a class, and an OID in that.
    const DEPENDENCIES: [u32; 2] = [1214, 1233];
    // SAFETY: a plain global, constant in a session.
    let here = unsafe { pg_sys::MyDatabaseId };
    let mut found = false;
    // SAFETY: that index begins with the fifth column. A row begins with these columns, and is never overwritten in place.
    unsafe {
        each_tuple(DEPENDENCIES, &[(5, ROLES.oid())], When::BeforeUs, |tuple, _| {
            let row = prefix::<Dependency>(pg_sys::GETSTRUCT(tuple).cast());
            let is_near = row.database == here || row.database == pg_sys::InvalidOid;
            found |= is_near && row.on.to_u32() == role;
        });
    }
    found
}

/// Returns whether a role had members before this transaction.
pub fn had_members(role: u32) -> bool {
    /// pg_auth_members with its index on the role and the member.
    const MEMBERSHIPS: [u32; 2] = [1261, 2694];
    /// The number of the column for the role. Since PostgreSQL 16, a row begins with its own OID.
    const ROLE: i16 = if cfg!(feature = "pg15") { 1 } else { 2 };
    let mut found = false;
    // SAFETY: that index begins with this column, an oid.
    unsafe { each_tuple(MEMBERSHIPS, &[(ROLE, role)], When::BeforeUs, |_, _| found = true) };
    found
}

/// Returns the tables and views of a schema on which GRANT may act, with the changes of this transaction. May raise errors.
pub fn tables_in(schema: u32) -> Vec<u32> {
    let kinds = [
        pg_sys::RELKIND_RELATION,
        pg_sys::RELKIND_VIEW,
        pg_sys::RELKIND_MATVIEW,
        pg_sys::RELKIND_FOREIGN_TABLE,
        pg_sys::RELKIND_PARTITIONED_TABLE,
    ];
    let mut found = Vec::new();
    // SAFETY: pg_class without an index, and the number of its column relnamespace, an oid. A tuple is a row of pg_class, and these
    // columns never change within a row version.
    unsafe {
        let column = pg_sys::Anum_pg_class_relnamespace as i16;
        each_tuple([CLASSES.oid(), 0], &[(column, schema)], When::AsWritten, |tuple, _| {
            let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
            if kinds.contains(&((*row).relkind as u8)) {
                memory::push(&mut found, (*row).oid.to_u32());
            }
        });
    }
    found
}

/// The first columns of a row of pg_depend: an object that depends on another one.
#[derive(Clone, Copy)]
#[repr(C)]
struct Dependent {
    class: pg_sys::Oid,
    object: pg_sys::Oid,
}

/// Returns the objects that depend on a type, each with the OID of its catalog. May raise errors.
pub fn dependents_of_type(oid: u32) -> Vec<(u32, u32)> {
    /// pg_depend with the index of what its objects depend on: a class, and an OID in that.
    const DEPENDENCIES: [u32; 2] = [2608, 2674];
    let mut found = Vec::new();
    // SAFETY: that index begins with the fourth and the fifth column, oids. A row begins with two OIDs, and is never overwritten in
    // place.
    unsafe {
        each_tuple(DEPENDENCIES, &[(4, TYPES.oid()), (5, oid)], When::AsWritten, |tuple, _| {
            let row = prefix::<Dependent>(pg_sys::GETSTRUCT(tuple).cast());
            memory::push(&mut found, (row.class.to_u32(), row.object.to_u32()));
        });
    }
    found
}

/// Returns what `read` makes of the row with this OID, if there is one. The rules of [`each_row`] hold.
pub fn row<T, R>(catalog: &Catalog<T>, oid: u32, when: When, mut read: impl FnMut(&T) -> R) -> Option<R> {
    let mut found = None;
    each_row(catalog, oid, when, |row| found = Some(read(row)));
    found
}
