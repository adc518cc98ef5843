//! Reads and writes the extension's own tables (`sql/schema.sql`). A *space* is a set of keys with options of its own. A *grant* is
//! a privilege of a role in a space. A *watch* has tags that stand for a relation: a change of the relation invalidates the values
//! with these tags. A *warmer* is a query whose result is kept stored. An *event* is a name with what it invalidates. Reads scan a
//! table as the server scans its catalogs. Writes run as the tables' owner.
//!
//! Readers remember what they have read, together with [`generation`]. It changes as soon as this session learns that one of the
//! tables, a role, a membership or a database has changed. The session learns it from an invalidation message, as for any changed
//! table: a trigger on the tables sends the message with the commit. The session reads it at the latest when its next transaction
//! begins.

#![allow(unsafe_code)]

use super::error::{OrRaise, Refused};
use super::local::local;
use super::memory;
use super::observer;
use super::transaction;
use super::varlena::{self, OwnedJsonb};
use super::version;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::{CStr, CString};

/// The schema of the extension's own tables.
const SCHEMA: &CStr = c"pgcache";

/// A table of the extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Spaces,
    Grants,
    Watches,
    Warmers,
    Events,
}

impl Table {
    fn name(self) -> &'static CStr {
        match self {
            Self::Spaces => c"spaces",
            Self::Grants => c"grants",
            Self::Watches => c"watches",
            Self::Warmers => c"warmers",
            Self::Events => c"events",
        }
    }
}

/// The columns of `pgcache.spaces`, counted from 0, in the order of `sql/schema.sql`. A new column of a table must be the last one,
/// because the library may serve an older version of the extension, whose tables do not have it.
pub mod spaces {
    pub const OID: usize = 0;
    pub const NAME: usize = 1;
    pub const DEFAULT_TTL: usize = 2;
    pub const MAX_TTL: usize = 3;
    pub const TTL_POLICY: usize = 4;
    pub const JITTER: usize = 5;
    pub const TIERS: usize = 6;
    pub const SCOPE: usize = 7;
    pub const QUOTA: usize = 8;
    pub const MAX_VALUE: usize = 9;
    pub const COMPRESS_ABOVE: usize = 10;
    pub const MIN_COST: usize = 11;
    pub const MAX_RESULT_SIZE: usize = 12;
    pub const KEEP_WARM: usize = 13;
    pub const REDIS: usize = 14;
    pub const NOTIFY: usize = 15;
    pub const ENABLED: usize = 16;
}

/// The columns of `pgcache.warmers`, in the same way.
pub mod warmers {
    pub const NUMBER: usize = 0;
    pub const OWNER: usize = 1;
    pub const NAME: usize = 2;
    pub const QUERY: usize = 3;
    pub const ARGS: usize = 4;
    pub const EVERY: usize = 5;
    pub const TTL: usize = 6;
    pub const TAGS: usize = 7;
    pub const SPACE: usize = 8;
}

/// The columns of `pgcache.events`, in the same way.
pub mod events {
    pub const EVENT: usize = 0;
    pub const SPACE: usize = 1;
    pub const TARGETS: usize = 2;
}

/// The rows of a table to read. `Named` and `OfSpace` use an index.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'n> {
    All,
    /// All rows, including those that other running transactions have added or removed.
    AllUncommitted,
    /// The space with this name.
    Named(&'n str),
    /// The grants in the space with this OID.
    OfSpace(u32),
}

local! {
    /// Begins with 1, so a reader can use 0 for "nothing read yet".
    static GENERATION: Cell<u64> = Cell::new(1);
    /// Whether this session has registered its callbacks.
    static WATCHING: Cell<bool> = Cell::new(false);
    /// The OIDs of the tables, once they have been found; 0 before.
    static TABLES: Cell<[u32; 5]> = Cell::new([0; 5]);
    /// Whether the library is known to serve the version of the extension in this database (`version.rs`).
    static SERVED: Cell<bool> = Cell::new(false);
}

/// Returns a counter that changes whenever data read from the tables may be outdated.
#[inline]
pub fn generation() -> u64 {
    GENERATION.get()
}

/// Learns of the changes that other sessions have committed. A transaction usually does so when it locks a table. May raise errors.
pub fn accept_changes() {
    // SAFETY: the server's own function, within a transaction. It calls the callbacks that were registered for changes.
    unsafe { pg_sys::AcceptInvalidationMessages() };
}

/// Makes all that was remembered outdated.
fn advance() {
    GENERATION.set(GENERATION.get() + 1);
}

/// The server reports that a relation has changed, or, with OID 0, that any relation may have changed. The tables are looked up
/// again afterwards, because one of them may be gone.
#[pg_guard]
unsafe extern "C-unwind" fn relation_changed(_nothing: pg_sys::Datum, relation: pg_sys::Oid) {
    if relation == pg_sys::InvalidOid || TABLES.get().contains(&relation.to_u32()) {
        TABLES.set([0; 5]);
        SERVED.set(false);
        advance();
    }
}

/// The server reports that a role, a membership or a database has changed.
#[pg_guard]
unsafe extern "C-unwind" fn roles_changed(_nothing: pg_sys::Datum, _cache: i32, _hash: u32) {
    advance();
}

/// Registers the callbacks, once in a session. Must be called before anything that is remembered is read.
fn watch() {
    if !WATCHING.replace(true) {
        let nothing = pg_sys::Datum::null();
        // SAFETY: only this backend accesses these lists of the server, and the functions stay loaded as long as the library does.
        unsafe {
            pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), nothing);
            // DATABASEOID is in the list because the owner of a database is a member of pg_database_owner.
            use pg_sys::SysCacheIdentifier::{AUTHMEMROLEMEM, AUTHOID, DATABASEOID};
            for cache in [AUTHOID, AUTHMEMROLEMEM, DATABASEOID] {
                pg_sys::CacheRegisterSyscacheCallback(cache as i32, Some(roles_changed), nothing);
            }
        }
    }
}

/// Returns the OID of a table in this database, or None if the extension does not exist here.
pub fn table_oid(table: Table) -> Option<u32> {
    watch();
    let known = TABLES.get()[table as usize];
    if known != 0 {
        return Some(known);
    }
    let schema = schema()?;
    // SAFETY: looks up a catalog, by a name that ends with a zero.
    let found = unsafe { pg_sys::get_relname_relid(table.name().as_ptr(), schema.into()).to_u32() };
    let mut tables = TABLES.get();
    tables[table as usize] = found;
    TABLES.set(tables);
    (found != 0).then_some(found)
}

/// Returns the OID of the extension's schema. CREATE EXTENSION refuses a schema of this name that exists already, so where the
/// extension exists, the schema is the extension's. In a database without the extension, another role may have created a schema of
/// this name.
pub fn schema() -> Option<u32> {
    // SAFETY: looks up a catalog, by a name that ends with a zero.
    let schema = unsafe { pg_sys::get_namespace_oid(SCHEMA.as_ptr(), true) };
    (schema != pg_sys::InvalidOid).then(|| schema.to_u32())
}

/// Returns an error unless the library serves the version of the extension in this database. May raise errors.
///
/// The version changes with ALTER EXTENSION UPDATE only, whose scripts announce a change of the tables (`require_library`). So a
/// version that is served is remembered until then.
pub fn require_served() -> Result<(), Refused> {
    if SERVED.get() {
        return Ok(());
    }
    // A script already sees the version that it leads to, which may be an intermediate one.
    // SAFETY: a plain global of this process.
    if unsafe { pg_sys::creating_extension } {
        return Ok(());
    }
    // A change of this table is what announces another version, so the table must be known before the version is remembered.
    if let (Some(extension), Some(_)) = (extension(), table_oid(Table::Spaces)) {
        version::require_served(extension)?;
        SERVED.set(true);
    }
    Ok(())
}

/// Begins a script of CREATE EXTENSION or ALTER EXTENSION UPDATE: returns an error if the script needs a newer library than the
/// loaded one. Sessions learn with the commit that the version has changed.
pub fn require_library() -> Result<(), Refused> {
    if let Some(extension) = extension() {
        version::require_library_for(extension)?;
    }
    if let Some(spaces) = table_oid(Table::Spaces) {
        announce_change(spaces.into());
    }
    Ok(())
}

/// Returns the OID of the extension's schema, if it belongs to the extension and the library serves the extension's version. Slower
/// than [`schema`]. A caller that writes to tables of the schema must ask this: after DROP EXTENSION, another role may have created
/// a schema of this name, with tables like the extension's.
pub fn schema_of_extension() -> Option<u32> {
    let schema = schema().filter(|_| require_served().is_ok())?;
    // SAFETY: looks up a catalog.
    let owner = unsafe { pg_sys::getExtensionOfObject(pg_sys::NamespaceRelationId, schema.into()) };
    (extension() == Some(owner.to_u32())).then_some(schema)
}

/// Returns whether a table is the one that CREATE EXTENSION has made. A caller that does for other roles what the rows of the
/// table say must ask this: after DROP EXTENSION, another role may have created a schema and a table of these names.
pub fn is_of_extension(table: Table) -> bool {
    let Some(oid) = table_oid(table).filter(|_| schema_of_extension().is_some()) else { return false };
    // SAFETY: looks up a catalog.
    let owner = unsafe { pg_sys::getExtensionOfObject(pg_sys::RelationRelationId, oid.into()) };
    extension() == Some(owner.to_u32())
}

/// Returns the OID of the extension. None if it does not exist in this database.
pub fn extension() -> Option<u32> {
    // SAFETY: looks up a catalog, by a name that ends with a zero.
    let extension = unsafe { pg_sys::get_extension_oid(c"pg_cache".as_ptr(), true) };
    (extension != pg_sys::InvalidOid).then(|| extension.to_u32())
}

/// Returns the owner of `pgcache.spaces`, as which `write` runs. None if the extension does not exist here.
pub fn owner() -> Option<pg_sys::Oid> {
    let table = table_oid(Table::Spaces)?;
    // SAFETY: opens a table by its OID and closes it again. In between, it reads the server's own entry for the table.
    unsafe {
        let relation = pg_sys::table_open(table.into(), pg_sys::AccessShareLock as i32);
        let owner = (*(*relation).rd_rel).relowner;
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
        Some(owner)
    }
}

/// The types of a table's columns, from the descriptor of this scan. A dropped column has type 0.
#[derive(Debug)]
struct Columns {
    table: Table,
    types: Vec<pg_sys::Oid>,
}

impl Columns {
    /// # Safety
    /// The relation must be open.
    unsafe fn of(table: Table, relation: pg_sys::Relation) -> Self {
        // SAFETY: as the caller promises. `SPI_gettypeid` reads a descriptor and needs no SPI connection.
        let types = unsafe {
            let description = (*relation).rd_att;
            memory::collect(
                (1..=(*description).natts).map(|column| pg_sys::SPI_gettypeid(description, column)),
            )
        };
        Self { table, types }
    }

    /// Raises an error if a column, counted from 0, exists and has none of these types. The error names the first type as the
    /// expected one.
    fn require(&self, column: usize, types: &[pg_sys::Oid]) {
        if self.types.get(column).is_some_and(|kind| !types.contains(kind)) {
            self.refuse(column, types[0]);
        }
    }

    #[cold]
    fn refuse(&self, column: usize, kind: pg_sys::Oid) -> ! {
        // SAFETY: looks up a built-in type in the catalogs; the server returns a new string.
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

/// A row, while it is read: borrowed values point into the tuple.
///
/// Columns are counted from 0. A reader names the type that it expects; if the table's column has another type, an error is raised.
/// A null is None, and so is a column that the table does not have yet.
#[derive(Debug)]
pub struct Row<'s> {
    columns: &'s Columns,
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

impl Row<'_> {
    /// Returns a column as a Datum of one of these types.
    fn datum(&self, column: usize, types: &[pg_sys::Oid]) -> Option<pg_sys::Datum> {
        self.columns.require(column, types);
        match self.nulls.get(column) {
            Some(false) => self.values.get(column).copied(),
            _ => None,
        }
    }

    /// Returns a column whose type is passed by value, or whose value is copied.
    fn copied<T: FromDatum + IntoDatum>(&self, column: usize) -> Option<T> {
        let datum = self.datum(column, &[T::type_oid()])?;
        // SAFETY: the Datum is not null, and of T's own type.
        unsafe { T::from_datum(datum, false) }
    }

    /// Returns an OID: an oid, a regclass or a regrole.
    pub fn oid(&self, column: usize) -> Option<u32> {
        let datum = self.datum(column, &[pg_sys::OIDOID, pg_sys::REGCLASSOID, pg_sys::REGROLEOID])?;
        Some(datum.value() as u32)
    }

    /// Returns the bytes of a text, in the database's encoding.
    pub fn text(&self, column: usize) -> Option<&[u8]> {
        let datum = self.datum(column, &[pg_sys::TEXTOID])?;
        // SAFETY: a Datum of a text, in a tuple that lives as long as the row.
        Some(unsafe { varlena::content(datum) })
    }

    /// Returns the bytes of each element of an array of texts.
    pub fn texts(&self, column: usize) -> Option<Vec<Option<&[u8]>>> {
        let datum = self.datum(column, &[pg_sys::TEXTARRAYOID])?;
        // SAFETY: a Datum of an array of texts, in a tuple that lives as long as the row.
        Some(unsafe { varlena::contents(datum, pg_sys::TEXTOID) })
    }

    /// Returns a copy of a jsonb.
    pub fn jsonb(&self, column: usize) -> Option<OwnedJsonb> {
        let datum = self.datum(column, &[pg_sys::JSONBOID])?;
        // SAFETY: a Datum of a jsonb, in a tuple that lives as long as the row.
        Some(unsafe { OwnedJsonb::of(datum) })
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

/// Calls `with` for some rows of a table, in any order, in their present state: with the changes that others have committed, and
/// with the changes of earlier statements of this transaction. The transaction's own snapshot does not matter.
/// [`Rows::AllUncommitted`] also shows uncommitted changes of others. No lock on the table remains. If the extension does not
/// exist in this database, there are no rows. If the library does not serve its version, there are no watches, and the read of
/// another table raises an error. May raise errors.
pub fn read(table: Table, rows: Rows<'_>, mut with: impl FnMut(&Row<'_>)) {
    // A commit that changes these tables invalidates no result of a query that has read them. So a read of them counts as a read of
    // the cache, and such a result is not stored.
    observer::note_cache();
    let Some(oid) = table_oid(table) else { return };
    if let Err(refused) = require_served() {
        // Every write looks for watches. It must not fail because of the cache, and the cache has no values in this database.
        if table == Table::Watches {
            return;
        }
        refused.raise();
    }
    let lock = pg_sys::AccessShareLock as i32;
    // SAFETY: follows the way in which the server reads its catalogs: open the table, scan with a snapshot of the scan's own,
    // deform each row by the table's descriptor, close. The relation is a table, and the key's column has the type that the key
    // compares. A tuple is valid until the next one is fetched. The descriptor is valid until the table is closed: while it is
    // open, no command can change the table. If an error is raised, the server releases everything with the (sub)transaction.
    unsafe {
        let relation = pg_sys::table_open(oid.into(), lock);
        if (*(*relation).rd_rel).relkind as u8 != pg_sys::RELKIND_RELATION {
            refuse_relation(table);
        }
        let description = (*relation).rd_att;
        let columns = Columns::of(table, relation);
        let count = columns.types.len();
        let (mut key, keys) = key(rows);
        match rows {
            Rows::All | Rows::AllUncommitted => {}
            Rows::Named(_) => columns.require(spaces::NAME, &[pg_sys::TEXTOID]),
            Rows::OfSpace(_) => columns.require(0, &[pg_sys::OIDOID]),
        }
        // All zeroes are a valid snapshot without data. Its type determines how it judges rows.
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

/// Raises an error because the relation is not a table: a scan finds rows only in tables.
#[cold]
fn refuse_relation(table: Table) -> ! {
    let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
    let table = table.name().to_string_lossy();
    Refused::new(code, format!("\"pgcache.{table}\" is not a table"))
        .hint("Drop the relation and give the extension's table its name back with ALTER TABLE.")
        .raise()
}

/// Returns the scan key, and the number of keys. A key names a column of the table, counted from 1; in the index, that column is
/// the first.
fn key(rows: Rows<'_>) -> (pg_sys::ScanKeyData, i32) {
    // SAFETY: with 0 keys, the server does not read the zeroed key. The server makes the other two keys, for the types of their
    // columns.
    unsafe {
        let mut key: pg_sys::ScanKeyData = std::mem::zeroed();
        let (column, equal, value) = match rows {
            Rows::All | Rows::AllUncommitted => return (key, 0),
            Rows::Named(name) => (2, pg_sys::F_TEXTEQ, name.into_datum()),
            Rows::OfSpace(oid) => (1, pg_sys::F_OIDEQ, pg_sys::Oid::from(oid).into_datum()),
        };
        let value = value.unwrap_or(pg_sys::Datum::null());
        let strategy = pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber;
        pg_sys::ScanKeyInit(&raw mut key, column, strategy, equal.into(), value);
        (key, 1)
    }
}

/// Returns the index of a table that has this name. If there is none, the scan reads the whole table.
///
/// # Safety
/// The relation must be open.
unsafe fn index(relation: pg_sys::Relation, name: &CStr) -> pg_sys::Oid {
    // SAFETY: as the caller promises. Looks up catalogs, by a name that ends with a zero and by an OID.
    unsafe {
        let index = pg_sys::get_relname_relid(name.as_ptr(), (*(*relation).rd_rel).relnamespace);
        if index != pg_sys::InvalidOid && pg_sys::IndexGetRelation(index, true) == (*relation).rd_id {
            index
        } else {
            pg_sys::InvalidOid
        }
    }
}

/// Returns an OID for a new row, from the counter of the cluster. The counter returns an OID again only after it has wrapped
/// around, after about four billion OIDs.
pub fn new_oid() -> pg_sys::Oid {
    refuse_if_read_only("INSERT");
    // SAFETY: the server's own counter. It must not be used during recovery, which the call above refuses.
    unsafe { pg_sys::GetNewObjectId() }
}

/// Raises the server's own error if nothing may be written, before other errors can occur. The statement must begin with its
/// command in upper case, which the error names.
fn refuse_if_read_only(statement: &str) {
    let verb = statement.split(' ').next().and_then(|verb| CString::new(verb).ok()).unwrap_or_default();
    // SAFETY: a string that ends with a zero.
    unsafe {
        pg_sys::PreventCommandIfReadOnly(verb.as_ptr());
        pg_sys::PreventCommandIfParallelMode(verb.as_ptr());
    }
}

/// Makes the changes of the running command visible to the reads that follow in this transaction.
pub fn end_command() {
    // SAFETY: the server's own function, within a transaction.
    unsafe { pg_sys::CommandCounterIncrement() };
}

/// Sends an invalidation message for a table with the commit of this transaction, and to this session when the running command
/// ends.
pub fn announce_change(table: pg_sys::Oid) {
    // SAFETY: the trigger's own table, which is locked by the statement that fired the trigger, or a table that the caller has just
    // found. The server raises an error if there is no such table.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(table) };
}

/// Runs a statement as the owner of the tables, with a search path that no user's objects can shadow. Returns the number of rows
/// that it wrote, or 0 if the extension does not exist in this database. Raises the errors of the statement.
///
/// The caller must have checked that the current role may do this.
pub fn write(statement: &str, arguments: &[DatumWithOid<'_>]) -> usize {
    let Some(owner) = owner() else { return 0 };
    require_served().or_raise();
    refuse_if_read_only(statement);
    let _guard = AsOwner::new(owner);
    Spi::connect_mut(|client| client.update(statement, None, arguments).map(|table| table.len()))
        .unwrap_or_else(|error| pgrx::error!("{error}"))
}

/// Runs a statement that removes obsolete rows. The statement must skip rows that another transaction has locked, so that it never
/// waits.
///
/// A transaction that keeps one snapshot (REPEATABLE READ or SERIALIZABLE) leaves the rows to the next caller: it would fail on
/// rows that another transaction has removed since.
pub fn clean_up(statement: &str) {
    if !transaction::keeps_one_snapshot() {
        write(statement, &[]);
    }
}

/// Makes the session act as the owner, until dropped. Keeps the role, its security context and the nesting level of the settings
/// that are then restored. An error that is raised meanwhile unwinds and so drops this value, too.
struct AsOwner {
    user: pg_sys::Oid,
    context: i32,
    settings: i32,
}

impl AsOwner {
    /// Makes `owner` the current role, with a search path of its own.
    fn new(owner: pg_sys::Oid) -> Self {
        let (mut user, mut context) = (pg_sys::InvalidOid, 0);
        // SAFETY: follows the way in which the server runs functions of another role: remember the role, and open a nesting level
        // of settings, which `drop` closes again.
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
        // SAFETY: restores the state that `new` has found.
        unsafe {
            pg_sys::AtEOXact_GUC(false, self.settings);
            pg_sys::SetUserIdAndSecContext(self.user, self.context);
        }
    }
}
