//! The names that a role may be told of spaces, and those that notifications may tell to any role. A *space* is a named cache with
//! its own options and privileges. `changes.rs` and `broadcast.rs` ask this file before they show a name.

use super::space::{self, Notify};
use crate::pg::memory;
use crate::pg::role::Role;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The spaces of the database by their OIDs. A space that may be named has its name, any other space has None.
#[derive(Debug, Default)]
pub struct Spaces(BTreeMap<u32, Option<Rc<str>>>);

impl Spaces {
    /// Returns the name of a space, or None if there is no such space or it must not be named.
    pub fn name(&self, oid: u32) -> Option<Rc<str>> {
        self.0.get(&oid)?.clone()
    }

    /// Returns whether a space exists.
    pub fn exists(&self, oid: u32) -> bool {
        self.0.contains_key(&oid)
    }

    /// Returns whether there is no space that may be named.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(Option::is_none)
    }

    fn add(&mut self, oid: u32, name: &str, is_named: bool) {
        memory::check();
        self.0.insert(oid, is_named.then(|| Rc::from(name)));
    }
}

/// Returns the spaces of the database. Those that a role may read have names; the owner of the extension may read all. May raise
/// errors.
pub fn readable_by(role: Role) -> Spaces {
    let (all, granted) = (space::is_owner(role), space::granted_to(role));
    let mut found = Spaces::default();
    space::each_space(|oid, name, _| found.add(oid, name, all || granted.contains(&oid)));
    found
}

/// The names that notifications may tell to any role.
#[derive(Debug, Default)]
pub struct Public {
    /// The spaces whose keys may be named: by their option `notify`, and by the privileges of PUBLIC. Keys that belong to single
    /// roles are never named.
    pub spaces: Spaces,
    /// Whether tags may be named. They belong to all spaces of the database, so PUBLIC must be able to read one, whose option does
    /// not forbid it.
    pub tags: bool,
}

/// Returns the names that notifications may tell. May raise errors.
pub fn public() -> Public {
    let (granted, mut found) = (space::granted_to_public(), Public::default());
    space::each_space(|oid, name, options| {
        let is_public = granted.contains(&oid);
        let is_named = match options.notify {
            Notify::Auto => is_public,
            Notify::Names => true,
            Notify::Numbers | Notify::Off => false,
        };
        found.tags |= is_public && is_named;
        found.spaces.add(oid, name, is_named && !options.by_role);
    });
    found
}
