//! What a relation is to the cache: remembered by each session until the server says that it has changed.

#![allow(unsafe_code)]

use super::catalog;
use super::local::local;
use super::memory;
use super::number::number_type;
use super::role::Role;
use super::system::{self, CLASSES, INHERITS, When};
use foldhash::fast::FixedState;
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::rc::Rc;

/// A relation by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(u32);

number_type!(Number, "regclass");

/// Relations by their numbers: an array. What is null in it is left out.
#[derive(Debug)]
pub struct Numbers(pub Vec<u32>);

number_type!(@argument Numbers, "regclass[]", Self(Vec::new()));

impl FromDatum for Numbers {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        let (mut elements, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        // SAFETY: the caller promises a Datum of an array of numbers of relations, of whose type these are the properties. The
        // server returns two arrays of `count` in the memory of the statement.
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
            let number = |at: usize| (!*nulls.add(at)).then(|| (*elements.add(at)).value() as u32);
            Some(Self(memory::collect((0..count as usize).filter_map(number))))
        }
    }
}

impl Number {
    /// The relation of a number.
    pub fn of(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }

    /// Its name without its schema, in the database's encoding, if there is such a relation.
    pub fn name(self) -> Option<Vec<u8>> {
        // SAFETY: a question to the server's catalogs, which returns a string of its own or nothing.
        let name = unsafe { pg_sys::get_rel_name(self.0.into()) };
        // SAFETY: not null, and ends with a zero.
        (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_bytes().to_vec())
    }

    /// Whether the current role owns it.
    pub fn is_mine(self) -> bool {
        // SAFETY: a question to the server's catalogs, about a relation that is there.
        unsafe {
            #[cfg(feature = "pg15")]
            let mine = pg_sys::pg_class_ownercheck(self.0.into(), pg_sys::GetUserId());
            #[cfg(not(feature = "pg15"))]
            let mine =
                pg_sys::object_ownercheck(pg_sys::RelationRelationId, self.0.into(), pg_sys::GetUserId());
            mine
        }
    }

    /// The role that owns it, if this session sees such a relation.
    pub fn owner(self) -> Option<Role> {
        with_class(self.0, |row| Role::from_number(row.relowner.to_u32()))
    }

    /// What kind of relation it is, in words, if it is none whose changes can be watched.
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

    /// What kind of relation it is, in words, if it has no rows of its own that could change.
    pub fn unwritable(self) -> Option<&'static str> {
        let (kind, ..) = class(self.0)?;
        match kind {
            pg_sys::RELKIND_VIEW => Some("a view"),
            _ => (!WITH_ROWS.contains(&kind)).then_some("no table"),
        }
    }
}

/// What writing to a relation means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Nothing: an index, a sequence, a temporary table, a view, one of our own tables.
    Irrelevant,
    /// What names and rules mean may have changed.
    Catalog,
    /// Its rows have changed, and with them those of all tables that it is a part of, by partitioning or inheritance.
    Rows { ancestors: Rc<[u32]> },
}

/// Kinds of relations whose rows are written to.
const WITH_ROWS: [u8; 4] = [
    pg_sys::RELKIND_RELATION,
    pg_sys::RELKIND_PARTITIONED_TABLE,
    pg_sys::RELKIND_MATVIEW,
    pg_sys::RELKIND_FOREIGN_TABLE,
];
/// The first number that is not of the system's own objects.
const FIRST_NORMAL: u32 = pg_sys::FirstNormalObjectId;
/// Catalogs whose changes are no changes of definitions: large objects with their indexes, whose locks are kept too; subscriptions, how
/// far they have come with each table, and from where; comments and security labels.
const ROWS: [u32; 11] = [2613, 2683, 2995, 2996, 6100, 6102, 6000, 2609, 2396, 3596, 3592];
/// Catalogs that all databases share: roles, memberships, settings of roles and databases, privileges on settings, databases,
/// tablespaces. Harmless commands lock them like others; `definition.rs` tells of their changes.
const TOLD: [u32; 6] = [1260, 1261, 2964, 6243, 1262, 1213];
/// Whoever has seen more relations than that begins to remember anew.
const KNOWN_MAX: usize = 65_536;

/// What a session remembers. The numbers are the server's own: nobody chooses them to make them collide.
struct Known {
    alone: HashMap<u32, Relation, FixedState>,
    /// Those that are part of another. A change of any relation may be one of a tree, and is not told of those below.
    parts: HashMap<u32, Relation, FixedState>,
    /// Temporary ones, with their indexes and whatever else belongs to them, which who makes them locks as a writer does. They stay
    /// temporary, so this outlives messages.
    temporary: HashSet<u32, FixedState>,
    /// At so many of them, those that were dropped are sorted out.
    temporary_max: usize,
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
    /// Grows whenever something is forgotten.
    static GENERATION: Cell<u64> = Cell::new(0);
}

/// What [`of`] has said stays true as long as this is the same, if it was the same before it was asked.
#[inline]
pub fn generation() -> u64 {
    GENERATION.get()
}

fn forget(what: impl FnOnce(&mut Known)) {
    GENERATION.set(generation() + 1);
    KNOWN.with_borrow_mut(what);
}

/// The server says that a relation has changed, or, with 0, that any may have. Never while what is known is borrowed: nothing of
/// the server is called then.
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

/// What is remembered of a relation: for those who may not ask the server, because the transaction is over.
pub fn remembered(number: u32) -> Option<Relation> {
    KNOWN.with_borrow(|known| known.alone.get(&number).or_else(|| known.parts.get(&number)).cloned())
}

/// Whether it is temporary, as far as it was ever found out. The server empties temporary tables itself, after the last moment at which
/// it may be asked anything, and each time says that they have changed.
pub fn was_temporary(number: u32) -> bool {
    KNOWN.with_borrow(|known| known.temporary.contains(&number))
}

/// Remembers a temporary relation, or forgets it if it is gone: its number may be given to another relation. May ask the server.
fn note_temporary(number: u32, is_temporary: bool) {
    let is_full = KNOWN.with_borrow_mut(|known| {
        if !is_temporary {
            known.temporary.remove(&number);
        } else if known.temporary.try_reserve(1).is_ok() {
            known.temporary.insert(number);
        }
        known.temporary.len() >= known.temporary_max
    });
    if is_full {
        // The relations that are left are as many as the session keeps itself.
        let known = KNOWN.with_borrow(|known| memory::try_collect(known.temporary.iter().copied()));
        let mut dropped = known.unwrap_or_else(|short| short.raise());
        dropped.retain(|number| !self::is_temporary(*number));
        KNOWN.with_borrow_mut(|known| {
            dropped.iter().for_each(|number| _ = known.temporary.remove(number));
            known.temporary_max = KNOWN_MAX.max(known.temporary.len() * 2);
        });
    }
}

/// Whether it may be a part of others, as far as it is remembered.
pub fn may_be_part(number: u32) -> bool {
    KNOWN.with_borrow(|known| !known.alone.contains_key(&number))
}

/// Forgets everything. A relation may be given a parent by a change of which no message tells.
#[cold]
pub fn forget_all() {
    forget(|known| {
        known.alone.clear();
        known.parts.clear();
    });
}

/// What a relation is. Asks the server's catalogs if it has to, so it may raise an error, and no lock may be held.
pub fn of(number: u32) -> Relation {
    if let Some(known) = remembered(number) {
        return known;
    }
    let before = generation();
    if !KNOWN.with_borrow_mut(|known| std::mem::replace(&mut known.watching, true)) {
        // SAFETY: the server's own list, which this backend alone has; the function stays as long as the library does.
        unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(changed), pg_sys::Datum::null()) };
    }
    let found = look_up(number);
    KNOWN.with_borrow_mut(|known| {
        // What has changed while it was looked up is not remembered.
        if generation() == before {
            let is_part = matches!(&found, Relation::Rows { ancestors } if !ancestors.is_empty());
            let map = if is_part { &mut known.parts } else { &mut known.alone };
            if map.len() >= KNOWN_MAX {
                map.clear();
            }
            if map.try_reserve(1).is_ok() {
                map.insert(number, found.clone());
            }
        }
    });
    found
}

fn look_up(number: u32) -> Relation {
    if number < FIRST_NORMAL {
        let rows = || Relation::Rows { ancestors: Rc::default() };
        return match number {
            _ if ROWS.contains(&number) => rows(),
            _ if TOLD.contains(&number) => Relation::Irrelevant,
            _ => Relation::Catalog,
        };
    }
    // If there is none, this transaction has dropped it. What it has made as well, nobody else has ever seen.
    let now = class(number);
    let Some((kind, persistence, schema)) = now.or_else(|| class_before(number)) else {
        return Relation::Irrelevant;
    };
    note_temporary(number, now.is_some_and(|(_, persistence, _)| persistence == pg_sys::RELPERSISTENCE_TEMP));
    if !WITH_ROWS.contains(&kind)
        || persistence == pg_sys::RELPERSISTENCE_TEMP
        || Some(schema) == catalog::schema()
    {
        return Relation::Irrelevant;
    }
    let mut ancestors = Vec::new();
    let mut at = number;
    for seen in 0.. {
        ancestors_of(at, &mut ancestors);
        match ancestors.get(seen) {
            Some(next) => at = *next,
            None => break,
        }
    }
    Relation::Rows { ancestors: ancestors.into() }
}

/// Whether each change of what a query reads there can be seen at its commit. Of a catalog it cannot, because its locks are given
/// back before; nor of a sequence, nor of a foreign table, nor of a temporary table, which is another one for each session. Our
/// own tables say otherwise what they have to say.
pub fn is_followed(number: u32) -> bool {
    number >= FIRST_NORMAL
        && class(number).is_some_and(|(kind, persistence, schema)| {
            ![pg_sys::RELKIND_SEQUENCE, pg_sys::RELKIND_FOREIGN_TABLE].contains(&kind)
                && persistence != pg_sys::RELPERSISTENCE_TEMP
                && Some(schema) != catalog::schema()
        })
}

/// Whether other tables inherit from it, or did so once. Partitions do not count as that.
pub fn is_inheritance_parent(number: u32) -> bool {
    let is_parent = |row: &pg_sys::FormData_pg_class| {
        row.relhassubclass && row.relkind as u8 != pg_sys::RELKIND_PARTITIONED_TABLE
    };
    with_class(number, is_parent).unwrap_or(false)
}

/// Whether it is one of the server's catalogs.
pub fn is_catalog(number: u32) -> bool {
    number < FIRST_NORMAL
}

/// Whether its rows are on another server.
pub fn is_foreign(number: u32) -> bool {
    class(number).is_some_and(|(kind, ..)| kind == pg_sys::RELKIND_FOREIGN_TABLE)
}

/// Whether it is the session's own.
pub fn is_temporary(number: u32) -> bool {
    class(number).is_some_and(|(_, persistence, _)| persistence == pg_sys::RELPERSISTENCE_TEMP)
}

/// Whether who reads it may decide what is read: whether it has row security.
pub fn has_row_security(number: u32) -> bool {
    with_class(number, |row| row.relrowsecurity).unwrap_or(false)
}

/// Kind, persistence and schema, if there is such a relation.
fn class(number: u32) -> Option<(u8, u8, u32)> {
    with_class(number, |row| (row.relkind as u8, row.relpersistence as u8, row.relnamespace.to_u32()))
}

fn with_class<R>(number: u32, read: impl FnOnce(&pg_sys::FormData_pg_class) -> R) -> Option<R> {
    // SAFETY: a look-up in the server's cache of pg_class, whose entries are copies of this process, released again.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, number.into());
        if tuple.is_null() {
            return None;
        }
        let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let found = read(&*row);
        pg_sys::ReleaseSysCache(tuple);
        Some(found)
    }
}

/// The same as it was before this transaction, if there was such a relation.
fn class_before(number: u32) -> Option<(u8, u8, u32)> {
    system::row(&CLASSES, number, When::BeforeUs, |row| {
        (row.relkind, row.relpersistence, row.relnamespace.to_u32())
    })
}

/// Adds the tables that one is directly a part of, if they are not there yet; also those of which this transaction has made it no part
/// any more, because its rows are gone from them.
fn ancestors_of(number: u32, found: &mut Vec<u32>) {
    for when in [When::Now, When::BeforeUs] {
        system::each_row(&INHERITS, number, when, |row| {
            if !found.contains(&row.whole) {
                memory::push(found, row.whole);
            }
        });
    }
}
