//! Determines the meaning of a relation for the cache: what a write to it invalidates ([`of`]), and whether a cached value may
//! depend on it. A write to a table also invalidates values that depend on its *ancestors*, the tables above it in partition and
//! inheritance trees. Each session remembers the answers of [`of`] until the server reports a change of the relation.
//!
//! A function that looks up a catalog must be called within a transaction, and may raise errors of the server. [`remembered`],
//! [`was_temporary`], [`may_be_part`], [`generation`] and [`forget_all`] ask only the memory of the session, and cannot fail.

#![allow(unsafe_code)]

use super::catalog;
use super::encoding::shown;
use super::error::OrRaise;
use super::local::local;
use super::memory;
use super::oid_alias::oid_alias;
use super::role::Role;
use super::system::{self, CLASSES, INHERITS, When};
use foldhash::fast::FixedState;
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::rc::Rc;

/// A relation, by its OID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationOid(u32);

oid_alias!(RelationOid, "regclass");

/// An array of relations, by their OIDs. A null element becomes 0.
#[derive(Debug)]
pub struct RelationOids(pub Vec<u32>);

oid_alias!(@argument RelationOids, "regclass[]", Self(Vec::new()));

impl FromDatum for RelationOids {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        let (mut elements, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        // SAFETY: the caller promises a Datum of an array of regclass, and the arguments describe that type. The server returns two
        // arrays of `count` elements in the memory of the statement.
        unsafe {
            pg_sys::deconstruct_array(
                pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast(),
                pg_sys::REGCLASSOID,
                size_of::<pg_sys::Oid>() as i32,
                true,
                b'i' as std::ffi::c_char,
                &raw mut elements,
                &raw mut nulls,
                &raw mut count,
            );
            let oid = |at: usize| if *nulls.add(at) { 0 } else { (*elements.add(at)).value() as u32 };
            Some(Self(memory::collect((0..count as usize).map(oid))))
        }
    }
}

// SAFETY: the result borrows nothing of the Datum.
unsafe impl pgrx::datum::UnboxDatum for RelationOid {
    type As<'src> = Self;

    unsafe fn unbox<'src>(datum: pgrx::datum::Datum<'src>) -> Self
    where
        Self: 'src,
    {
        // SAFETY: the caller promises a Datum of a regclass, which is an OID.
        Self(datum.sans_lifetime().value() as u32)
    }
}

impl IntoDatum for RelationOid {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(pg_sys::Oid::from(self.0).into())
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::REGCLASSOID
    }
}

impl RelationOid {
    /// Makes a `RelationOid` of a relation's OID.
    pub fn of(oid: u32) -> Self {
        Self(oid)
    }

    pub fn get(self) -> u32 {
        self.0
    }

    /// Returns the view that has a row type. None for any other type.
    pub fn of_row_type_of_view(kind: u32) -> Option<Self> {
        // SAFETY: looks up catalogs. The server returns 0 for any other type, and for what does not exist.
        let (oid, kind) = unsafe {
            let oid = pg_sys::get_typ_typrelid(kind.into());
            (oid, pg_sys::get_rel_relkind(oid))
        };
        (kind as u8 == pg_sys::RELKIND_VIEW).then(|| Self(oid.to_u32()))
    }

    /// Returns a query for all rows of the relation, which must exist.
    pub fn all_rows(self) -> CString {
        // SAFETY: looks up catalogs. The server returns new strings that end with a zero, or null for what does not exist.
        let name = unsafe {
            let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(self.0.into()));
            let name = pg_sys::get_rel_name(self.0.into());
            if name.is_null() {
                pgrx::error!("relation with OID {} does not exist", self.0);
            }
            CStr::from_ptr(pg_sys::quote_qualified_identifier(schema, name))
        };
        memory::terminated(&[b"SELECT v.* FROM ", name.to_bytes(), b" AS v"].concat()).unwrap_or_default()
    }

    /// Returns the relation's name without its schema, in the database's encoding, if there is such a relation.
    pub fn name(self) -> Option<Vec<u8>> {
        // SAFETY: looks up a catalog; the server returns a new string or null.
        let name = unsafe { pg_sys::get_rel_name(self.0.into()) };
        // SAFETY: not null, and ends with a zero.
        (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_bytes().to_vec())
    }

    /// Returns whether the relation is a view, but no materialized one.
    pub fn is_view(self) -> bool {
        class(self.0).is_some_and(|(kind, ..)| kind == pg_sys::RELKIND_VIEW)
    }

    /// Returns whether the relation is a materialized view.
    pub fn is_materialized_view(self) -> bool {
        class(self.0).is_some_and(|(kind, ..)| kind == pg_sys::RELKIND_MATVIEW)
    }

    /// Returns whether the current role owns the relation. The relation must exist: otherwise the server raises an error.
    pub fn is_owned_by_current_role(self) -> bool {
        // SAFETY: looks up a catalog, for a relation that exists.
        unsafe {
            #[cfg(feature = "pg15")]
            let mine = pg_sys::pg_class_ownercheck(self.0.into(), pg_sys::GetUserId());
            #[cfg(not(feature = "pg15"))]
            let mine =
                pg_sys::object_ownercheck(pg_sys::RelationRelationId, self.0.into(), pg_sys::GetUserId());
            mine
        }
    }

    /// Returns the role that owns the relation, if this session sees such a relation.
    pub fn owner(self) -> Option<Role> {
        with_class(self.0, |row| Role::from_oid(row.relowner.to_u32()))
    }

    /// Returns the kind of the relation in words, if its changes cannot be watched (`cache_watch`). None if they can be watched,
    /// and also if there is no such relation: the caller must check that first.
    pub fn unwatchable(self) -> Option<&'static str> {
        if self.0 < FIRST_NORMAL {
            return Some("a system catalog");
        }
        let (kind, persistence, schema) = class(self.0)?;
        self.unwritable().or(match kind {
            pg_sys::RELKIND_FOREIGN_TABLE => Some("a foreign table"),
            _ if persistence == pg_sys::RELPERSISTENCE_TEMP => Some("a temporary table"),
            _ => (Some(schema) == catalog::schema()).then_some("a table of pg_cache"),
        })
    }

    /// Returns the kind of the relation in words, if it has no rows of its own that could change. None if it has such rows, and
    /// also if there is no such relation.
    pub fn unwritable(self) -> Option<&'static str> {
        let (kind, ..) = class(self.0)?;
        match kind {
            pg_sys::RELKIND_VIEW => Some("a view"),
            _ => (!WITH_ROWS.contains(&kind)).then_some("no table"),
        }
    }
}

/// The meaning of a write to a relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Nothing: an index, a TOAST table, a sequence, a temporary table, a view, a table of pg_cache, a catalog in `REPORTED`, or a
    /// relation that this transaction has both created and dropped.
    Irrelevant,
    /// Definitions may have changed.
    Catalog,
    /// The relation's rows have changed, and with them the rows of all its ancestors, by partitioning or inheritance.
    Rows { ancestors: Rc<[u32]>, evidence: Evidence },
}

/// How to find out whether a transaction has changed rows of a relation on which it holds no lock of a writer but ROW EXCLUSIVE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// By the lock alone: the server does not count the changes of such a relation for certain, so the relation counts as changed.
    Lock,
    /// By the counters of the transaction (`row_changes.rs`). The relation is an ordinary table or a partition, with the access
    /// method `heap`.
    Counters,
    /// Not needed: a partitioned table has no rows of its own. A transaction that changes rows of a partition locks the partition.
    NoRows,
}

/// Kinds of relations that have rows of their own.
const WITH_ROWS: [u8; 4] = [
    pg_sys::RELKIND_RELATION,
    pg_sys::RELKIND_PARTITIONED_TABLE,
    pg_sys::RELKIND_MATVIEW,
    pg_sys::RELKIND_FOREIGN_TABLE,
];
/// The first OID of an object that does not belong to the system itself.
const FIRST_NORMAL: u32 = pg_sys::FirstNormalObjectId;
/// Catalogs whose changes do not change definitions: the two catalogs of large objects, each with its index, because the locks on
/// these indexes are kept until the commit as well; subscriptions, their state for each table, and replication origins; comments.
const NOT_DEFINITIONS: [u32; 9] = [2613, 2683, 2995, 2996, 6100, 6102, 6000, 2609, 2396];
/// Catalogs for which a lock tells nothing: `definition.rs` and `command/` report the changes that matter. First those that all
/// databases share, because harmless commands lock them like others: roles, memberships, settings of roles and databases,
/// privileges on settings, databases, tablespaces. Then functions and schemas: some commands keep the lock on these catalogs, and
/// change the meaning of one name only. Then dependencies: since PostgreSQL 18, ALTER TABLE … TYPE keeps the lock on pg_depend, and
/// changes one relation only. `catalog_written` in `definition.rs` must report a direct write to each of them that can change a
/// result, so both lists must be kept in step.
const REPORTED: [u32; 9] = [1260, 1261, 2964, 6243, 1262, 1213, 1255, 2615, 2608];
/// `pg_toast`, the schema of TOAST tables and their indexes.
const TOAST_SCHEMA: u32 = 99;
/// When `alone` or `parts` has this many relations, the session clears that map before it adds another one. This bounds the memory
/// of a session.
const KNOWN_MAX: usize = 65_536;

/// The memory of a session. The keys are OIDs, which the server assigns: no user can choose them to cause collisions.
struct Known {
    /// Relations that are not parts of others: no partitions, and no tables that inherit.
    alone: HashMap<u32, Relation, FixedState>,
    /// Relations that are parts of others. A change of a relation may be a change of its tree, and the server sends no message for
    /// the relations below it. So any message clears this map.
    parts: HashMap<u32, Relation, FixedState>,
    /// Temporary relations, with their indexes and all that belongs to them. The session that makes them locks them as a writer
    /// does. A temporary relation stays temporary, so messages do not clear this set.
    temporary: HashSet<u32, FixedState>,
    /// When the set has this size, dropped relations are removed from it.
    temporary_max: usize,
    /// Whether the callback is registered.
    watching: bool,
}

local! {
    static KNOWN: RefCell<Known> = RefCell::new(Known {
        alone: HashMap::with_hasher(FixedState::with_seed(0)),
        parts: HashMap::with_hasher(FixedState::with_seed(0)),
        temporary: HashSet::with_hasher(FixedState::with_seed(0)),
        temporary_max: KNOWN_MAX,
        watching: false,
    });
}

local! {
    /// Grows whenever an answer may have become wrong. It does not grow when a full map is cleared, because answers stay true then.
    static GENERATION: Cell<u64> = Cell::new(0);
}

/// Returns a counter that grows whenever an answer of [`of`] may have become wrong. An answer is true as long as the counter has
/// the same value as before the call of [`of`]. The session may forget it all the same.
#[inline]
pub fn generation() -> u64 {
    GENERATION.get()
}

/// Forgets some answers by `what`, and makes [`generation`] grow. Cannot fail.
fn forget(what: impl FnOnce(&mut Known)) {
    GENERATION.set(generation() + 1);
    KNOWN.with_borrow_mut(what);
}

/// The server reports that a relation has changed, or, with OID 0, that any relation may have changed. This never happens while
/// `KNOWN` is borrowed: no function of the server is called then.
#[pg_guard]
unsafe extern "C-unwind" fn changed(_nothing: pg_sys::Datum, relation: pg_sys::Oid) {
    forget(|known| {
        known.parts.clear();
        if relation == pg_sys::InvalidOid {
            known.alone.clear();
        } else {
            known.alone.remove(&relation.to_u32());
        }
    });
}

/// Returns what is remembered of a relation, or None. For code that must not ask the server, because the transaction has ended.
pub fn remembered(oid: u32) -> Option<Relation> {
    KNOWN.with_borrow(|known| known.alone.get(&oid).or_else(|| known.parts.get(&oid)).cloned())
}

/// Returns whether the session has found the relation to be temporary. ON COMMIT DELETE ROWS needs this: the server empties
/// temporary tables when catalogs must not be read any more, and reports each as changed.
pub fn was_temporary(oid: u32) -> bool {
    KNOWN.with_borrow(|known| known.temporary.contains(&oid))
}

/// Remembers a temporary relation, or forgets a relation that is not temporary or is gone: the OID may be given to another
/// relation. Reads catalogs if the set is full.
fn note_temporary(oid: u32, is_temporary: bool) {
    let is_full = KNOWN.with_borrow_mut(|known| {
        if !is_temporary {
            known.temporary.remove(&oid);
        } else if known.temporary.try_reserve(1).is_ok() {
            known.temporary.insert(oid);
        }
        known.temporary.len() >= known.temporary_max
    });
    if is_full {
        // Remove the dropped relations. The remaining ones are the temporary relations that the session really has.
        let known = KNOWN.with_borrow(|known| memory::try_collect(known.temporary.iter().copied()));
        let mut dropped = known.or_raise();
        dropped.retain(|oid| !self::is_temporary(*oid));
        KNOWN.with_borrow_mut(|known| {
            dropped.iter().for_each(|oid| _ = known.temporary.remove(oid));
            known.temporary_max = KNOWN_MAX.max(known.temporary.len() * 2);
        });
    }
}

/// Returns whether the relation may be a part of others, as far as the session remembers.
pub fn may_be_part(oid: u32) -> bool {
    KNOWN.with_borrow(|known| !known.alone.contains_key(&oid))
}

/// Forgets all relations. For changes that give a relation a parent without a message.
#[cold]
pub fn forget_all() {
    forget(|known| {
        known.alone.clear();
        known.parts.clear();
    });
}

/// Returns what a write to a relation means. It reads the catalogs if the session does not remember the relation. So it may raise
/// an error, and no lock may be held.
pub fn of(oid: u32) -> Relation {
    if let Some(known) = remembered(oid) {
        return known;
    }
    let before = generation();
    if !KNOWN.with_borrow_mut(|known| std::mem::replace(&mut known.watching, true)) {
        // SAFETY: only this backend accesses this list of the server, and the function stays loaded as long as the library does.
        unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(changed), pg_sys::Datum::null()) };
    }
    let found = look_up(oid);
    KNOWN.with_borrow_mut(|known| {
        // The answer is not remembered if a message arrived during the look-up.
        if generation() == before {
            let is_part = matches!(&found, Relation::Rows { ancestors, .. } if !ancestors.is_empty());
            let map = if is_part { &mut known.parts } else { &mut known.alone };
            if map.len() >= KNOWN_MAX {
                map.clear();
            }
            if map.try_reserve(1).is_ok() {
                map.insert(oid, found.clone());
            }
        }
    });
    found
}

/// Finds out what a write to a relation means, from the server's catalogs.
fn look_up(oid: u32) -> Relation {
    if oid < FIRST_NORMAL {
        let rows = || Relation::Rows { ancestors: Rc::default(), evidence: Evidence::Lock };
        return match oid {
            _ if NOT_DEFINITIONS.contains(&oid) => rows(),
            _ if REPORTED.contains(&oid) => Relation::Irrelevant,
            // A write to a TOAST table of a catalog comes with one to the catalog. ANALYZE keeps the lock on that of pg_statistic.
            _ if class(oid).is_some_and(|(_, _, schema)| schema == TOAST_SCHEMA) => Relation::Irrelevant,
            _ => Relation::Catalog,
        };
    }
    // If the relation does not exist, this transaction has dropped it. If this transaction had also created it, no other session
    // has ever seen it.
    let now = class(oid);
    let Some((kind, persistence, schema)) = now.or_else(|| class_before(oid)) else {
        return Relation::Irrelevant;
    };
    note_temporary(oid, now.is_some_and(|(_, persistence, _)| persistence == pg_sys::RELPERSISTENCE_TEMP));
    if !WITH_ROWS.contains(&kind)
        || persistence == pg_sys::RELPERSISTENCE_TEMP
        || Some(schema) == catalog::schema()
    {
        return Relation::Irrelevant;
    }
    Relation::Rows { ancestors: ancestors(oid).into(), evidence: evidence(oid) }
}

/// Returns how to find out whether a relation's rows have changed. A relation that this transaction has dropped is locked in the
/// strongest mode, so the answer for it does not matter.
fn evidence(oid: u32) -> Evidence {
    let found = with_class(oid, |row| match row.relkind as u8 {
        pg_sys::RELKIND_RELATION if row.relam == pg_sys::HEAP_TABLE_AM_OID => Evidence::Counters,
        pg_sys::RELKIND_PARTITIONED_TABLE => Evidence::NoRows,
        _ => Evidence::Lock,
    });
    found.unwrap_or(Evidence::Lock)
}

/// Returns the tables above a relation in inheritance trees, also those above it before this transaction: the relation's rows are
/// gone from them. It reads the catalogs, so it may raise errors.
pub fn ancestors(oid: u32) -> Vec<u32> {
    ancestors_at(&[When::Now, When::BeforeUs], oid)
}

/// Returns the tables above a relation in inheritance trees as of now. It reads the catalogs, so it may raise errors.
pub fn ancestors_now(oid: u32) -> Vec<u32> {
    ancestors_at(&[When::Now], oid)
}

/// The ancestors are found level by level: the list of those that were found is also the list of those whose parents are still to
/// be found.
fn ancestors_at(times: &[When], oid: u32) -> Vec<u32> {
    let mut ancestors = Vec::new();
    let mut at = oid;
    for seen in 0.. {
        ancestors_of(times, at, &mut ancestors);
        match ancestors.get(seen) {
            Some(next) => at = *next,
            None => break,
        }
    }
    ancestors
}

/// Returns whether every change of a relation can be seen at its commit. This is false for catalogs, whose locks are released
/// before the commit, for sequences and foreign tables, and for a relation that does not exist. It is false for temporary tables,
/// because each session has its own, and for pg_cache's own tables, whose changes are announced by messages (`catalog.rs`).
pub fn is_followed(oid: u32) -> bool {
    oid >= FIRST_NORMAL
        && class(oid).is_some_and(|(kind, persistence, schema)| {
            ![pg_sys::RELKIND_SEQUENCE, pg_sys::RELKIND_FOREIGN_TABLE].contains(&kind)
                && persistence != pg_sys::RELPERSISTENCE_TEMP
                && Some(schema) != catalog::schema()
        })
}

/// Returns whether other tables inherit from the relation, or once did. Partitions do not count.
pub fn is_inheritance_parent(oid: u32) -> bool {
    let is_parent = |row: &pg_sys::FormData_pg_class| {
        row.relhassubclass && row.relkind as u8 != pg_sys::RELKIND_PARTITIONED_TABLE
    };
    with_class(oid, is_parent).unwrap_or(false)
}

/// Locks relations as a query that reads them does, until the end of the transaction or savepoint. The relations need not exist.
/// Returns false if it would have to wait for a lock.
pub fn lock_at_once(relations: impl Iterator<Item = u32>) -> bool {
    // SAFETY: the server's own function, called within a transaction. It needs only the OID.
    let lock =
        |oid: u32| unsafe { pg_sys::ConditionalLockRelationOid(oid.into(), pg_sys::AccessShareLock as i32) };
    let mut relations = relations;
    relations.all(lock)
}

/// Returns what a relation is and its name, such as `table orders`, by the rules of [`name()`].
pub fn in_words(number: u32, all: bool) -> Option<String> {
    let kind = match class(number)?.0 {
        pg_sys::RELKIND_VIEW => "view",
        pg_sys::RELKIND_MATVIEW => "materialized view",
        pg_sys::RELKIND_FOREIGN_TABLE => "foreign table",
        pg_sys::RELKIND_SEQUENCE => "sequence",
        _ => "table",
    };
    Some(format!("{kind} {}", name(number, all)?))
}

/// Returns the name of a relation as an SQL identifier, with the schema if the search path does not find it. None if there is no
/// such relation, or if the current role may not read it, unless `all` is set.
pub fn name(number: u32, all: bool) -> Option<String> {
    let (_, _, schema) = class(number)?;
    // SAFETY: looks up catalogs. The server returns new strings that end with a zero, or null.
    unsafe {
        let (mut is_missing, select) = (false, pg_sys::ACL_SELECT as pg_sys::AclMode);
        let reader = pg_sys::GetUserId();
        let allowed = pg_sys::pg_class_aclcheck_ext(number.into(), reader, select, &raw mut is_missing);
        let name = pg_sys::get_rel_name(number.into());
        if is_missing || name.is_null() || !all && allowed != pg_sys::AclResult::ACLCHECK_OK {
            return None;
        }
        let schema = match pg_sys::RelationIsVisible(number.into()) {
            true => std::ptr::null_mut(),
            false => pg_sys::get_namespace_name(schema.into()),
        };
        let name = CStr::from_ptr(pg_sys::quote_qualified_identifier(schema, name));
        Some(shown(name.to_bytes()).into_owned())
    }
}

/// Returns whether the relation is one of the server's catalogs.
pub fn is_catalog(oid: u32) -> bool {
    oid < FIRST_NORMAL
}

/// Returns whether the relation is a foreign table, which reads rows of another server or program. The extension's own foreign
/// table (`view_owner.rs`) does not count.
pub fn is_foreign(oid: u32) -> bool {
    class(oid).is_some_and(|(kind, ..)| kind == pg_sys::RELKIND_FOREIGN_TABLE) && {
        // SAFETY: looks up a catalog. The server returns 0 for an object that belongs to no extension.
        let owner = unsafe { pg_sys::getExtensionOfObject(pg_sys::RelationRelationId, oid.into()) };
        catalog::extension() != Some(owner.to_u32())
    }
}

/// Returns whether the relation is temporary.
pub fn is_temporary(oid: u32) -> bool {
    class(oid).is_some_and(|(_, persistence, _)| persistence == pg_sys::RELPERSISTENCE_TEMP)
}

/// Returns whether the relation has row security: its rows then depend on the role that reads.
pub fn has_row_security(oid: u32) -> bool {
    with_class(oid, |row| row.relrowsecurity).unwrap_or(false)
}

/// Returns kind, persistence and schema of a relation, if it exists.
fn class(oid: u32) -> Option<(u8, u8, u32)> {
    with_class(oid, |row| (row.relkind as u8, row.relpersistence as u8, row.relnamespace.to_u32()))
}

/// Returns whether a relation is an unlogged table.
pub fn is_unlogged(oid: u32) -> bool {
    class(oid).is_some_and(|(_, persistence, _)| persistence == pg_sys::RELPERSISTENCE_UNLOGGED)
}

/// Calls `read` with the row of a relation in pg_class. Returns None if there is no such relation.
fn with_class<R>(oid: u32, read: impl FnOnce(&pg_sys::FormData_pg_class) -> R) -> Option<R> {
    // SAFETY: a look-up in the server's cache of pg_class. Its entries are copies in this process; the entry is released after the
    // last access.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, oid.into());
        if tuple.is_null() {
            return None;
        }
        let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let found = read(&*row);
        pg_sys::ReleaseSysCache(tuple);
        Some(found)
    }
}

/// Returns kind, persistence and schema as they were before this transaction, if the relation existed then.
fn class_before(oid: u32) -> Option<(u8, u8, u32)> {
    system::row(&CLASSES, oid, When::BeforeUs, |row| {
        (row.relkind, row.relpersistence, row.relnamespace.to_u32())
    })
}

/// Adds the direct parents of a relation at any of these times, if they are not in the list yet.
fn ancestors_of(times: &[When], oid: u32, found: &mut Vec<u32>) {
    for when in times {
        system::each_row(&INHERITS, oid, *when, |row| {
            if !found.contains(&row.whole) {
                memory::push(found, row.whole);
            }
        });
    }
}

/// Returns the relation with this name, if there is one. The search takes no lock: if another relation gets the name at this
/// moment, the command that renames it reports its own change.
///
/// # Safety
/// The name must be from a parsed statement.
pub unsafe fn find(name: *const pg_sys::RangeVar) -> Option<u32> {
    let missing_ok = pg_sys::RVROption::RVR_MISSING_OK;
    // SAFETY: as the caller promises. If the schema or the relation is missing, the command itself will raise the error.
    let found = unsafe {
        pg_sys::RangeVarGetRelidExtended(name, pg_sys::NoLock as i32, missing_ok, None, std::ptr::null_mut())
    };
    (found != pg_sys::InvalidOid).then(|| found.to_u32())
}
