//! The extension's own tables: read like the server reads its catalogs, and written as their owner.
//!
//! Readers remember what they have read and compare [`generation`]: it changes as soon as this session learns that one of the
//! tables, or who belongs to which role, has changed. It learns that like it does of a changed table: by an invalidation message, which
//! a trigger on the tables sends with the commit, and which is read at the latest when the next transaction begins.

#![allow(unsafe_code)]

use super::error::Refused;
use super::local::local;
use super::memory;
use super::observer;
use super::query;
use super::varlena;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::{CStr, CString};

const SCHEMA: &CStr = c"pgcache";

/// A table of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Spaces,
    Grants,
    Watches,
}

impl Table {
    fn name(self) -> &'static CStr {
        match self {
            Self::Spaces => c"spaces",
            Self::Grants => c"grants",
            Self::Watches => c"watches",
        }
    }
}

/// Which rows of a table are looked for: those have an index.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'n> {
    All,
    /// All rows, with those that running transactions have added, and with those that they have removed.
    AllUncommitted,
    /// The space of this name.
    Named(&'n str),
    /// The grants in the space of this number.
    OfSpace(u32),
}

local! {
    static GENERATION: Cell<u64> = Cell::new(1);
    static WATCHING: Cell<bool> = Cell::new(false);
    /// The tables by their number, once they have been found; 0 before.
    static TABLES: Cell<[u32; 3]> = Cell::new([0; 3]);
}

/// Changes whenever what was read of the tables may be out of date.
#[inline]
pub fn generation() -> u64 {
    GENERATION.get()
}

fn advance() {
    GENERATION.set(GENERATION.get() + 1);
}

#[pg_guard]
unsafe extern "C-unwind" fn relation_changed(_nothing: pg_sys::Datum, relation: pg_sys::Oid) {
    // Number 0 stands for all of them.
    if relation == pg_sys::InvalidOid || TABLES.get().contains(&relation.to_u32()) {
        TABLES.set([0; 3]);
        advance();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn roles_changed(_nothing: pg_sys::Datum, _cache: i32, _hash: u32) {
    advance();
}

fn watch() {
    if !WATCHING.replace(true) {
        let nothing = pg_sys::Datum::null();
        // SAFETY: the server's own lists, which this backend alone has; the functions stay as long as the library does.
        unsafe {
            pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), nothing);
            // A database's owner is a member of pg_database_owner.
            use pg_sys::SysCacheIdentifier::{AUTHMEMROLEMEM, AUTHOID, DATABASEOID};
            for cache in [AUTHOID, AUTHMEMROLEMEM, DATABASEOID] {
                pg_sys::CacheRegisterSyscacheCallback(cache as i32, Some(roles_changed), nothing);
            }
        }
    }
}

/// The number of a table in this database, or none while there is no such extension.
pub fn number(table: Table) -> Option<u32> {
    watch();
    let known = TABLES.get()[table as usize];
    if known != 0 {
        return Some(known);
    }
    let schema = schema()?;
    // SAFETY: a question to the server's catalogs, by a name that ends with a zero.
    let found = unsafe { pg_sys::get_relname_relid(table.name().as_ptr(), schema.into()).to_u32() };
    let mut tables = TABLES.get();
    tables[table as usize] = found;
    TABLES.set(tables);
    (found != 0).then_some(found)
}

/// The number of the extension's own schema. It was made by the extension, which refuses one that somebody else made.
pub fn schema() -> Option<u32> {
    // SAFETY: a question to the server's catalogs, by a name that ends with a zero.
    let schema = unsafe { pg_sys::get_namespace_oid(SCHEMA.as_ptr(), true) };
    (schema != pg_sys::InvalidOid).then(|| schema.to_u32())
}

/// The role that owns the extension's tables, and so the extension.
pub fn owner() -> Option<pg_sys::Oid> {
    let table = number(Table::Spaces)?;
    // SAFETY: opens a table by its number and closes it again; what is read in between is the server's own entry for it.
    unsafe {
        let relation = pg_sys::table_open(table.into(), pg_sys::AccessShareLock as i32);
        let owner = (*(*relation).rd_rel).relowner;
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
        Some(owner)
    }
}

/// The types of a table's columns, as its descriptor has them in this scan. A dropped column has type 0.
#[derive(Debug)]
struct Columns {
    table: Table,
    types: Vec<pg_sys::Oid>,
}

impl Columns {
    /// # Safety
    /// The relation is open.
    unsafe fn of(table: Table, relation: pg_sys::Relation) -> Self {
        // SAFETY: as the caller promises. The function reads a descriptor, with or without a connection of its interface.
        let types = unsafe {
            let description = (*relation).rd_att;
            memory::collect(
                (1..=(*description).natts).map(|column| pg_sys::SPI_gettypeid(description, column)),
            )
        };
        Self { table, types }
    }

    /// Raises an error if a column, counted from 0, is there and of none of these types. The first is the one that it is to have.
    fn require(&self, column: usize, types: &[pg_sys::Oid]) {
        if self.types.get(column).is_some_and(|kind| !types.contains(kind)) {
            self.refuse(column, types[0]);
        }
    }

    #[cold]
    fn refuse(&self, column: usize, kind: pg_sys::Oid) -> ! {
        // SAFETY: a question to the server's catalogs about a built-in type, which returns a string of its own.
        let kind = unsafe { CStr::from_ptr(pg_sys::format_type_be(kind)) }.to_string_lossy();
        let table = self.table.name().to_string_lossy();
        let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
        Refused::new(
            code,
            format!("column {} of table \"pgcache.{table}\" is not of type {kind}", column + 1),
        )
        .detail("The table is not as CREATE EXTENSION has made it.")
        .hint("Use ALTER TABLE to give the column its type back, or drop the extension and create it again.")
        .raise()
    }
}

/// A row, while it is looked at: what is borrowed of it lies in the tuple.
///
/// Columns are counted from 0. A reader names the type that a column has; if the table's column is of another type, that is an error. Null
/// is none, and so is a column that the table does not have yet.
#[derive(Debug)]
pub struct Row<'s> {
    columns: &'s Columns,
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

impl Row<'_> {
    /// A column as a Datum of one of these types.
    fn datum(&self, column: usize, types: &[pg_sys::Oid]) -> Option<pg_sys::Datum> {
        self.columns.require(column, types);
        match self.nulls.get(column) {
            Some(false) => self.values.get(column).copied(),
            _ => None,
        }
    }

    /// A column of a type that is passed by value, or copied.
    fn copied<T: FromDatum + IntoDatum>(&self, column: usize) -> Option<T> {
        let datum = self.datum(column, &[T::type_oid()])?;
        // SAFETY: not null, and of T's own type.
        unsafe { T::from_datum(datum, false) }
    }

    /// The number of an object: an oid, a regclass or a regrole.
    pub fn number(&self, column: usize) -> Option<u32> {
        let datum = self.datum(column, &[pg_sys::OIDOID, pg_sys::REGCLASSOID, pg_sys::REGROLEOID])?;
        Some(datum.value() as u32)
    }

    /// The bytes of a text, in the database's encoding.
    pub fn text(&self, column: usize) -> Option<&[u8]> {
        let datum = self.datum(column, &[pg_sys::TEXTOID])?;
        // SAFETY: a Datum of a text, in a tuple that stands as long as the row does.
        Some(unsafe { varlena::content(datum) })
    }

    /// The same of each element of an array of texts.
    pub fn texts(&self, column: usize) -> Option<Vec<Option<&[u8]>>> {
        let datum = self.datum(column, &[pg_sys::TEXTARRAYOID])?;
        // SAFETY: a Datum of an array of texts, in a tuple that stands as long as the row does.
        Some(unsafe { varlena::contents(datum) })
    }

    pub fn interval(&self, column: usize) -> Option<Interval> {
        self.copied(column)
    }

    pub fn real(&self, column: usize) -> Option<f32> {
        self.copied(column)
    }

    pub fn integer(&self, column: usize) -> Option<i32> {
        self.copied(column)
    }

    pub fn bigint(&self, column: usize) -> Option<i64> {
        self.copied(column)
    }

    pub fn boolean(&self, column: usize) -> Option<bool> {
        self.copied(column)
    }
}

/// Calls with some rows of a table, as of now: with what others have committed, and with what the own transaction has done in
/// earlier statements. Whatever the transaction's own snapshot is, and without leaving a lock on the table.
pub fn read(table: Table, rows: Rows<'_>, mut with: impl FnMut(&Row<'_>)) {
    // Whatever a query learns from them does not end with the fences of what it reads.
    observer::note_cache();
    let Some(number) = number(table) else { return };
    let lock = pg_sys::AccessShareLock as i32;
    // SAFETY: as the server reads its catalogs: open, scan with a snapshot of its own, take each row apart by the table's own
    // description, close. What is scanned is a table, and the column that is looked at first is of the type that the key compares. The
    // tuple stands until the next one is asked for, and the description until the table is closed: while it is open, no command can
    // change the table. Should an error be raised, the server gives it all back with the (sub)transaction.
    unsafe {
        let relation = pg_sys::table_open(number.into(), lock);
        if (*(*relation).rd_rel).relkind as u8 != pg_sys::RELKIND_RELATION {
            refuse_relation(table);
        }
        let description = (*relation).rd_att;
        let columns = Columns::of(table, relation);
        let count = columns.types.len();
        let (mut key, keys) = key(rows);
        match rows {
            Rows::All | Rows::AllUncommitted => {}
            Rows::Named(_) => columns.require(1, &[pg_sys::TEXTOID]),
            Rows::OfSpace(_) => columns.require(0, &[pg_sys::OIDOID]),
        }
        // Zeroes are a snapshot that has seen nothing; its kind says how it judges rows.
        let mut dirty: pg_sys::SnapshotData = std::mem::zeroed();
        dirty.snapshot_type = pg_sys::SnapshotType::SNAPSHOT_DIRTY;
        let snapshot = match rows {
            Rows::AllUncommitted => &raw mut dirty,
            _ => std::ptr::null_mut(),
        };
        let index = match rows {
            Rows::All | Rows::AllUncommitted => pg_sys::InvalidOid,
            Rows::Named(_) => index(relation, c"spaces_name_key"),
            Rows::OfSpace(_) => index(relation, c"grants_pkey"),
        };
        let is_there = index != pg_sys::InvalidOid;
        let scan = pg_sys::systable_beginscan(relation, index, is_there, snapshot, keys, &raw mut key);
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let values = memory::collect(std::iter::repeat_n(pg_sys::Datum::null(), count));
            let nulls = memory::collect(std::iter::repeat_n(true, count));
            let mut row = Row { columns: &columns, values, nulls };
            pg_sys::heap_deform_tuple(tuple, description, row.values.as_mut_ptr(), row.nulls.as_mut_ptr());
            with(&row);
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, lock);
    }
}

/// Only a table has rows of its own that a scan finds.
#[cold]
fn refuse_relation(table: Table) -> ! {
    let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
    let table = table.name().to_string_lossy();
    Refused::new(code, format!("\"pgcache.{table}\" is not a table"))
        .hint("Drop the relation and give the extension's table its name back with ALTER TABLE.")
        .raise()
}

/// What to look for, and how many keys that is. A key names a column of the table; in an index it is the first.
fn key(rows: Rows<'_>) -> (pg_sys::ScanKeyData, i32) {
    // SAFETY: all zeroes are a key that nobody looks at; the other two are made by the server, for the types of their columns.
    unsafe {
        let mut key: pg_sys::ScanKeyData = std::mem::zeroed();
        let (column, equal, value) = match rows {
            Rows::All | Rows::AllUncommitted => return (key, 0),
            Rows::Named(name) => (2, pg_sys::F_TEXTEQ, name.into_datum()),
            Rows::OfSpace(number) => (1, pg_sys::F_OIDEQ, pg_sys::Oid::from(number).into_datum()),
        };
        let value = value.unwrap_or(pg_sys::Datum::null());
        let strategy = pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber;
        pg_sys::ScanKeyInit(&raw mut key, column, strategy, equal.into(), value);
        (key, 1)
    }
}

/// The index of a table that has this name. If the table has none, it is read all through.
///
/// # Safety
/// The relation is open.
unsafe fn index(relation: pg_sys::Relation, name: &CStr) -> pg_sys::Oid {
    // SAFETY: as the caller promises; questions to the server's catalogs, by a name that ends with a zero and by a number.
    unsafe {
        let index = pg_sys::get_relname_relid(name.as_ptr(), (*(*relation).rd_rel).relnamespace);
        if index != pg_sys::InvalidOid && pg_sys::IndexGetRelation(index, true) == (*relation).rd_id {
            index
        } else {
            pg_sys::InvalidOid
        }
    }
}

/// A number for a new row: no object of this cluster has had it, and none will, for some billions of them.
pub fn new_number() -> pg_sys::Oid {
    refuse_if_read_only("INSERT");
    // SAFETY: the server's own counter, which is not to be asked for more during recovery.
    unsafe { pg_sys::GetNewObjectId() }
}

/// Raises the server's own error where nothing may be written, before anything else is in the way.
fn refuse_if_read_only(statement: &str) {
    let verb = statement.split(' ').next().and_then(|verb| CString::new(verb).ok()).unwrap_or_default();
    // SAFETY: a string that ends with a zero.
    unsafe {
        pg_sys::PreventCommandIfReadOnly(verb.as_ptr());
        pg_sys::PreventCommandIfParallelMode(verb.as_ptr());
    }
}

/// Says with the commit of this transaction, and to this session at once, that a table has changed.
pub fn announce_change(table: pg_sys::Oid) {
    // SAFETY: the trigger's own table, which is locked by the statement that it belongs to.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(table) };
}

/// Runs a statement as the owner of the tables, with nobody's names in the way. Returns how many rows it wrote.
///
/// The caller has checked that who asks for it may.
pub fn write(statement: &str, arguments: &[DatumWithOid<'_>]) -> usize {
    let Some(owner) = owner() else { return 0 };
    refuse_if_read_only(statement);
    let _guard = AsOwner::new(owner);
    Spi::connect_mut(|client| client.update(statement, None, arguments).map(|table| table.len()))
        .unwrap_or_else(|error| pgrx::error!("{error}"))
}

/// Runs a statement that removes rows which are of no use any more. The statement must skip rows that another transaction has locked, so
/// that it never waits.
///
/// A transaction that looks at the database as it was at one moment leaves the rows to the next caller: it would fail on rows that have
/// been removed since.
pub fn clean_up(statement: &str) {
    if !query::looks_at_one_moment() {
        write(statement, &[]);
    }
}

/// The session while it acts as the owner. An error on the way undoes all of this with the (sub)transaction.
struct AsOwner {
    user: pg_sys::Oid,
    context: i32,
    settings: i32,
}

impl AsOwner {
    fn new(owner: pg_sys::Oid) -> Self {
        let (mut user, mut context) = (pg_sys::InvalidOid, 0);
        // SAFETY: as the server itself does for functions of another role: remember who it was, and open a level of settings
        // that is closed again by `drop`.
        let settings = unsafe {
            pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
            pg_sys::SetUserIdAndSecContext(owner, context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32);
            let settings = pg_sys::NewGUCNestLevel();
            pg_sys::set_config_option(
                c"search_path".as_ptr(),
                c"pg_catalog, pg_temp".as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
            settings
        };
        Self { user, context, settings }
    }
}

impl Drop for AsOwner {
    fn drop(&mut self) {
        // SAFETY: what `new` found.
        unsafe {
            pg_sys::AtEOXact_GUC(false, self.settings);
            pg_sys::SetUserIdAndSecContext(self.user, self.context);
        }
    }
}
