//! Finds out which definitions the change of an object changes: that of a relation, the meaning of a name, or other ones
//! ([`Changed`]). A *definition* is anything in the catalogs that decides what a query means. `definition.rs` and `command/` call
//! the functions of this file. The receiver of the report then invalidates the stored results that depend on the definition. The
//! functions read catalogs: they must be called within a transaction, and may raise errors.
//!
//! An object that this transaction has created concerns other sessions only by its name, because no result of theirs can use an
//! object that was not committed yet. A renamed or moved object concerns them by the name that it had before this transaction, and
//! by the present one. Names in between were never seen by other sessions.

use super::relation;
use super::system::{self, CLASSES, Class, FUNCTIONS, INDEXES, Name, SCHEMAS, Schema, TYPES, When};
use pgrx::pg_sys;

/// A changed definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed<'n> {
    /// The definition of the relation with this OID in this database.
    Relation(u32),
    /// The meaning of a name in this database: an object of this name is created or dropped, or gets or loses this name, or is
    /// moved to another schema; or privileges on a schema or a function of this name change.
    Name(&'n [u8]),
    /// Any other definition of this database.
    Other,
    /// Definitions that concern all databases: a change of roles or memberships, or a direct write to a catalog that all databases
    /// share.
    Roles,
    /// The extension pg_cache is dropped in this database.
    Extension,
}

/// How an object is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Created,
    Altered,
    Dropped,
}

/// Called for each changed definition. May raise errors.
pub type Report = fn(Changed<'_>);

/// The first OID of an object that does not belong to the system itself.
const FIRST_NORMAL: u32 = pg_sys::FirstNormalObjectId;
/// The languages of functions in `pg_language` that a result may depend on without depending on all definitions: `internal`, which
/// is also that of aggregates, and `c`.
const NATIVE: [u32; 2] = [12, 13];
/// The index access methods of the server itself, by their OIDs in `pg_am`: btree, hash, gist, gin, spgist, brin. They change no
/// result.
const EXACT_METHODS: [u32; 6] = [403, 405, 783, 2742, 4000, 3580];
/// The prefix of the name of the transient table that a rewrite of a table uses.
const TRANSIENT: &[u8] = b"pg_temp_";
/// The prefix of the names of the array types of transient tables.
const TRANSIENT_ARRAY: &[u8] = b"_pg_temp_";
/// The prefixes of the names of schemas that hold the temporary relations of a session.
const TEMPORARY_SCHEMAS: [&[u8]; 2] = [b"pg_temp_", b"pg_toast_temp_"];

/// The row of an object: before this transaction, before the running command, and as it is written now.
struct Versions<T> {
    before: Option<T>,
    previous: Option<T>,
    now: Option<T>,
}

impl<T: Copy> Versions<T> {
    fn of(catalog: &system::Catalog<T>, oid: u32) -> Self {
        let [before, previous, now] = [When::BeforeUs, When::Now, When::AsWritten]
            .map(|when| system::row(catalog, oid, when, |row| *row));
        Self { before, previous, now }
    }

    /// Returns the row as it is now. If the object is gone, returns the row that it had.
    fn latest(&self) -> Option<T> {
        self.now.or(self.previous).or(self.before)
    }

    /// Returns whether this transaction has created the object.
    fn is_new(&self) -> bool {
        self.before.is_none()
    }

    /// Returns whether the running command has given the object another name or schema.
    fn has_moved(&self, place: impl Fn(&T) -> (&Name, pg_sys::Oid)) -> bool {
        self.previous.as_ref().zip(self.now.as_ref()).is_none_or(|(previous, now)| {
            let (previous, now) = (place(previous), place(now));
            previous.0.bytes() != now.0.bytes() || previous.1 != now.1
        })
    }

    /// Reports the names of the object: the one before this transaction, and the present one.
    fn report_names(&self, report: Report, name: impl Fn(&T) -> &Name) {
        let [before, now] = [&self.before, &self.now].map(|row| row.as_ref().map(|row| name(row).bytes()));
        before.into_iter().for_each(|name| report(Changed::Name(name)));
        now.filter(|_| before != now).into_iter().for_each(|name| report(Changed::Name(name)));
    }
}

/// Reports a change of a relation. `column` is the number of the changed column, or 0. `is_internal` says whether the server makes
/// the change as a part of another one. Temporary relations, TOAST tables and transient tables concern no other session.
pub fn relation(oid: u32, column: i32, how: How, is_internal: bool, report: Report) {
    let versions = Versions::of(&CLASSES, oid);
    let Some(row) = versions.latest() else { return report(Changed::Other) };
    match row.relkind {
        _ if row.relpersistence == pg_sys::RELPERSISTENCE_TEMP => return,
        pg_sys::RELKIND_TOASTVALUE => return,
        pg_sys::RELKIND_INDEX | pg_sys::RELKIND_PARTITIONED_INDEX => return index(oid, &row, report),
        _ if is_internal && row.relname.bytes().starts_with(TRANSIENT) => return,
        _ => {}
    }
    let how = if column == 0 { how } else { How::Altered };
    let has_moved = how != How::Altered || versions.has_moved(|row| (&row.relname, row.relnamespace));
    if has_moved {
        versions.report_names(report, |row| &row.relname);
    }
    match row.relkind {
        _ if versions.is_new() => {}
        // No result depends on the relation of a composite type, only on the type.
        pg_sys::RELKIND_COMPOSITE_TYPE if has_moved => {}
        pg_sys::RELKIND_COMPOSITE_TYPE => report(Changed::Other),
        _ => {
            report(Changed::Relation(oid));
            if column != 0 {
                row_type(&row, report);
            }
        }
    }
    if how == How::Dropped {
        above(oid, report);
    }
}

/// Reports a change of an index. An index of an access method of the server itself changes no result. Another one may, for instance
/// one that finds approximate neighbours.
fn index(oid: u32, row: &Class, report: Report) {
    if EXACT_METHODS.contains(&row.relam.to_u32()) {
        return;
    }
    let table = [When::AsWritten, When::BeforeUs]
        .iter()
        .find_map(|when| system::row(&INDEXES, oid, *when, |row| row.indrelid.to_u32()));
    match table {
        Some(table) => relation(table, 0, How::Altered, false, report),
        None => report(Changed::Other),
    }
}

/// Reports a change of the columns of a relation as a change of its row type. A text may use the type by its name. Functions that
/// are not native need not count: a result that has called one depends on all definitions.
fn row_type(row: &Class, report: Report) {
    report(Changed::Name(row.relname.bytes()));
    let kind = row.reltype.to_u32();
    let array = system::row(&TYPES, kind, When::AsWritten, |row| row.typarray.to_u32()).unwrap_or(0);
    let is_used = |(catalog, object): &(u32, u32)| match *catalog {
        _ if (*catalog, *object) == (TYPES.oid(), array) => false,
        _ if *catalog == FUNCTIONS.oid() => is_native(*object),
        _ => true,
    };
    if [kind, array]
        .iter()
        .filter(|kind| **kind != 0)
        .any(|kind| system::dependents_of_type(*kind).iter().any(is_used))
    {
        report(Changed::Other);
    }
}

/// Returns whether a function is one that a result may depend on without depending on all definitions. True if there is no such
/// function.
fn is_native(oid: u32) -> bool {
    oid < FIRST_NORMAL
        || system::row(&FUNCTIONS, oid, When::AsWritten, |row| row.prolang.to_u32())
            .is_none_or(|language| NATIVE.contains(&language))
}

/// Reports the tables above a relation in inheritance trees as changed.
fn above(oid: u32, report: Report) {
    relation::ancestors(oid).into_iter().for_each(|above| report(Changed::Relation(above)));
}

/// Reports that a table has got a parent or has lost it, as a change of the parent and the tables above it. A temporary table
/// concerns no other session.
pub fn inheritance(child: u32, parent: u32, report: Report) {
    if is_temporary(child) {
        return;
    }
    if parent == 0 {
        return report(Changed::Other);
    }
    report(Changed::Relation(parent));
    above(parent, report);
}

/// Reports a change of a policy or a rule as a change of its relation.
pub fn rule(catalog: &system::Catalog<system::Rule>, oid: u32, report: Report) {
    let of = |when: &When| system::row(catalog, oid, *when, |row| row.relation.to_u32());
    match [When::AsWritten, When::BeforeUs].iter().find_map(of) {
        Some(of) => relation(of, 0, How::Altered, false, report),
        None => report(Changed::Other),
    }
}

/// Reports a change of a type. The row type of a relation changes with the relation, and an array type with its elements. Array
/// types have names of their own.
pub fn of_type(oid: u32, how: How, report: Report) {
    let versions = Versions::of(&TYPES, oid);
    let Some(row) = versions.latest() else { return report(Changed::Other) };
    let is_array = row.typelem != pg_sys::InvalidOid && row.typcategory == pg_sys::TYPCATEGORY_ARRAY;
    let is_of_relation = row.typrelid != pg_sys::InvalidOid;
    let is_transient = || row.typname.bytes().starts_with(TRANSIENT_ARRAY);
    let is_temporary = || {
        let is_of_session = |row: &Schema| is_of_session(row.nspname.bytes());
        system::row(&SCHEMAS, row.typnamespace.to_u32(), When::AsWritten, is_of_session) == Some(true)
    };
    if is_of_relation || is_array && (is_transient() || is_temporary()) {
        return;
    }
    let has_moved = how != How::Altered || versions.has_moved(|row| (&row.typname, row.typnamespace));
    if has_moved {
        versions.report_names(report, |row| &row.typname);
    } else if !is_array && !versions.is_new() {
        report(Changed::Other);
    }
}

/// Reports a change of a function, of its owner or of the privileges on it.
pub fn function(oid: u32, how: How, report: Report) {
    let versions = Versions::of(&FUNCTIONS, oid);
    if versions.latest().is_none() {
        return report(Changed::Other);
    }
    versions.report_names(report, |row| &row.proname);
    // A view, an operator or an aggregate may call a function without its name in the text of the query.
    let languages = [versions.before, versions.now].map(|row| row.map(|row| row.prolang.to_u32()));
    let is_native = || oid < FIRST_NORMAL || languages.iter().flatten().any(|of| NATIVE.contains(of));
    if how != How::Dropped && !versions.is_new() && is_native() {
        report(Changed::Other);
    }
}

/// Reports a change of a schema, of its owner or of the privileges on it.
pub fn schema(oid: u32, report: Report) {
    let versions = Versions::of(&SCHEMAS, oid);
    let Some(row) = versions.latest() else { return report(Changed::Other) };
    if !is_of_session(row.nspname.bytes()) {
        versions.report_names(report, |row| &row.nspname);
    }
}

/// Returns whether the schema of this name holds the temporary objects of a session.
fn is_of_session(schema: &[u8]) -> bool {
    TEMPORARY_SCHEMAS.iter().any(|prefix| schema.starts_with(prefix))
}

/// Returns whether a relation is temporary, as its row is written.
fn is_temporary(oid: u32) -> bool {
    let persistence = system::row(&CLASSES, oid, When::AsWritten, |row| row.relpersistence);
    persistence == Some(pg_sys::RELPERSISTENCE_TEMP)
}
