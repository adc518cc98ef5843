//! Resolves the name of a space: finds its OID, its options, and the privilege of a role in it. Each SQL function that takes the
//! name of a space calls this first, and gets a [`Space`] or the error for the user.
//!
//! The session remembers the spaces that it has used, each for the role that used it, until it learns that a table of pg_cache has
//! changed (`catalog::generation` in `pg/catalog.rs`). So an access to the last space that the session used costs a comparison of
//! names and roles. `keyspace.rs` has the *keyspace* of a space: the part of the cache in shared memory that holds its keys.

use super::options::{Notify, Options};
use super::privileges::{Privilege, grant_hint, granted, require_owner};
use super::rows::{DEFAULT, DEFAULT_OID, require_tables, unknown};
use crate::pg::catalog::{self, Rows, Table, spaces};
use crate::pg::encoding::shown;
use crate::pg::error::Refused;
use crate::pg::local::local;
use crate::pg::memory;
use crate::pg::role::Role;
use crate::pg::settings;
use crate::store::keyspace::{Keyspace, Tiers};
use pgrx::prelude::PgSqlErrorCode;
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The OID of the hidden space of observed statements (`query/observe.rs`). The server gives no object such a small OID.
const OBSERVED_OID: u32 = 1;
/// The share of the memory for entries that the hidden space may use.
const OBSERVED_SHARE: u64 = 32;

/// A space as it was resolved for a role.
#[derive(Debug)]
pub struct Space {
    /// The OID of the space, in the tables and in the tier.
    pub oid: u32,
    /// The name of the space.
    pub name: String,
    /// The options of the space.
    pub options: Options,
    /// The highest privilege of the role; none if it has no privilege.
    granted: Option<Privilege>,
    /// The role for which the space was resolved.
    role: Role,
    /// The keyspace of the space's keys, once it was found.
    keyspace: OnceCell<Keyspace>,
}

local! {
    static KNOWN: RefCell<Known> = RefCell::new(Known::NOTHING);
}

/// The spaces and privileges that this session remembers.
struct Known {
    /// The `catalog::generation` as of which everything here is valid.
    generation: u64,
    /// The space that was used last.
    last: Option<Rc<Space>>,
    /// The spaces by their name and the OID of the role for which they were resolved.
    spaces: BTreeMap<(String, u32), Rc<Space>>,
    /// Whether a role has the privilege write in any space, and so may invalidate tags.
    writers: BTreeMap<u32, bool>,
}

impl Known {
    const NOTHING: Self =
        Self { generation: 0, last: None, spaces: BTreeMap::new(), writers: BTreeMap::new() };
}

/// The most spaces, and the most roles, that a session remembers. If there are more spaces, the session forgets all spaces. If
/// there are more roles, it does not remember the others.
const KNOWN_MAX: usize = 1024;

/// Returns a space if the current role has this privilege in it. Otherwise, or if there is no such space, returns an error. May
/// raise errors.
#[inline]
pub fn with_privilege(name: &[u8], needed: Privilege) -> Result<Rc<Space>, Refused> {
    with_privilege_of(Role::current(), name, needed)
}

/// Does the same as [`with_privilege`] for a given role.
#[inline]
pub fn with_privilege_of(role: Role, name: &[u8], needed: Privilege) -> Result<Rc<Space>, Refused> {
    let last = || {
        KNOWN.with_borrow(|known| {
            let last = known.last.as_ref().filter(|_| known.generation == catalog::generation());
            last.filter(|space| space.name.as_bytes() == name && space.role == role).cloned()
        })
    };
    let mut known = last();
    if known.as_ref().is_some_and(|space| space.options.redis) {
        // A transaction that takes no locks learns of no changes. Values of a space that was dropped or left Redis must not get
        // there.
        catalog::accept_changes();
        known = last();
    }
    let space = known.map_or_else(|| resolve(name, role), Ok)?;
    match space.granted {
        Some(granted) if granted >= needed => Ok(space),
        _ => Err(space.denied(needed)),
    }
}

/// Returns a space without a check of privileges. The caller must know that the owner of the extension has allowed what the current
/// role is about to do.
pub fn without_privilege(name: &[u8]) -> Result<Rc<Space>, Refused> {
    resolve(name, Role::current())
}

/// Returns a space for a role, from memory or from the tables. Does not check the privilege. An error if there is no such space.
#[cold]
fn resolve(name: &[u8], role: Role) -> Result<Rc<Space>, Refused> {
    let Ok(name) = std::str::from_utf8(name) else { return Err(unknown(&shown(name))) };
    let at = (name.to_owned(), role.oid());
    let remembered = up_to_date(|known| {
        let space = known.spaces.get(&at).cloned()?;
        known.last = Some(Rc::clone(&space));
        Some(space)
    });
    if let Some(space) = remembered {
        return Ok(space);
    }
    // The generation must be read before the tables. If it has changed afterwards, the space is not remembered.
    let generation = catalog::generation();
    let space = Rc::new(load(name, role)?.ok_or_else(|| unknown(name))?);
    // The session keeps this memory for long, so it must not come from the reserve (`pg/allocator.rs`).
    memory::check();
    up_to_date(|known| {
        if known.generation == generation {
            if known.spaces.len() >= KNOWN_MAX {
                known.spaces.clear();
            }
            known.spaces.insert(at, Rc::clone(&space));
            known.last = Some(Rc::clone(&space));
        }
    });
    Ok(space)
}

/// Calls `with` with what the session remembers, emptied first if it is outdated.
fn up_to_date<R>(with: impl FnOnce(&mut Known) -> R) -> R {
    KNOWN.with_borrow_mut(|known| {
        if known.generation != catalog::generation() {
            *known = Known { generation: catalog::generation(), ..Known::NOTHING };
        }
        with(known)
    })
}

/// Reads a space from the tables.
fn load(name: &str, role: Role) -> Result<Option<Space>, Refused> {
    require_tables()?;
    let mut found = (name == DEFAULT).then_some((DEFAULT_OID, Options::BUILT_IN));
    catalog::read(Table::Spaces, Rows::Named(name), |row| {
        found = Some((row.oid(spaces::OID).unwrap_or_default(), Options::of(row)));
    });
    let Some((oid, options)) = found else { return Ok(None) };
    let granted = granted(role, Rows::OfSpace(oid));
    let keyspace = OnceCell::new();
    Ok(Some(Space { oid, name: name.to_owned(), options, granted, role, keyspace }))
}

/// Returns a keyspace of this database for operations that belong to no space. None if there is no cache, or if the extension does
/// not exist in this database.
pub fn any_keyspace() -> Option<Keyspace> {
    resolve(DEFAULT.as_bytes(), Role::current()).ok()?.keyspace()
}

/// Returns the default space if the current role owns the extension. `what` is as for [`require_owner`].
pub fn default_for_owner(what: &str) -> Result<Rc<Space>, Refused> {
    require_owner(what)?;
    resolve(DEFAULT.as_bytes(), Role::current())
}

/// Returns the default space if the current role may write in any space. Tags belong to the database, so each role that may write
/// in some space may invalidate them.
pub fn require_tag_writer() -> Result<Rc<Space>, Refused> {
    require_writer()?;
    resolve(DEFAULT.as_bytes(), Role::current())
}

/// Returns an error unless the current role has the privilege write in at least one space.
fn require_writer() -> Result<(), Refused> {
    require_tables()?;
    let role = Role::current();
    let may = match up_to_date(|known| known.writers.get(&role.oid()).copied()) {
        Some(may) => may,
        None => {
            let generation = catalog::generation();
            let may = granted(role, Rows::All) >= Some(Privilege::Write);
            memory::check();
            up_to_date(|known| {
                if known.generation == generation && known.writers.len() < KNOWN_MAX {
                    known.writers.insert(role.oid(), may);
                }
            });
            may
        }
    };
    if may {
        return Ok(());
    }
    let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
    Err(Refused::new(code, "permission denied to invalidate tags")
        .detail("This requires the privilege write in at least one space.")
        .hint(grant_hint(DEFAULT, role, Privilege::Write)))
}

/// Returns the hidden space of observed statements, with the options of the default space. It has no name, so no view shows it, and
/// no function reaches it. Returns an error if the extension does not exist in this database.
pub fn observed() -> Result<Space, Refused> {
    let role = Role::current();
    let default = resolve(DEFAULT.as_bytes(), role)?;
    let options = Options {
        tiers: Tiers::Hot,
        by_role: false,
        quota: Some(settings::hot_bytes() as u64 / OBSERVED_SHARE),
        keep_warm: 0,
        redis: false,
        notify: Notify::Off,
        ..default.options.clone()
    };
    let (name, granted, keyspace) = (String::new(), Some(Privilege::Admin), OnceCell::new());
    Ok(Space { oid: OBSERVED_OID, name, options, granted, role, keyspace })
}

impl Space {
    /// Returns whether the role for which the space was resolved has a privilege.
    pub fn allows(&self, needed: Privilege) -> bool {
        self.granted >= Some(needed)
    }

    fn denied(&self, needed: Privilege) -> Refused {
        let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
        Refused::new(code, format!("permission denied for space \"{}\"", self.name))
            .detail(format!("Role {} does not have the privilege {}.", self.role.quoted(), needed.name()))
            .hint(grant_hint(&self.name, self.role, needed))
    }

    /// Returns the keyspace of the space's keys, or none if there is no cache.
    #[inline]
    pub fn keyspace(&self) -> Option<Keyspace> {
        if let Some(keyspace) = self.keyspace.get() {
            return Some(*keyspace);
        }
        let keyspace = self.find()?;
        Some(*self.keyspace.get_or_init(|| keyspace))
    }

    /// Makes the keyspace. In a space with `scope => 'role'`, it is that of the role for which the space was resolved.
    #[cold]
    fn find(&self) -> Option<Keyspace> {
        let role = if self.options.by_role { self.role.oid() } else { 0 };
        // Redis does not know roles. A dump may have restored a row that has both options.
        let exported_as = Some(self.name.as_str()).filter(|_| self.options.redis && role == 0);
        Keyspace::of(self.oid, role, self.options.tiers, self.options.quota, exported_as)
    }
}
