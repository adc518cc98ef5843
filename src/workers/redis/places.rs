//! The names of databases and spaces. Redis keys begin with these names, but the worker is connected to no database.
//!
//! A space has a name here if a session has used the space while it had `redis => true` (`Keyspace::of`). It keeps the name when
//! the option changes, because Redis may have keys of the space for some time.

use crate::pg::background::{self, Database};
use crate::pg::memory;
use crate::pg::shared::HotTier;
use pg_cache_redis::Names;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// A space whose values may be in Redis.
#[derive(Debug)]
pub struct Place {
    /// The text with which the Redis keys of the space begin.
    pub prefix: String,
    /// The text with which the Redis keys of its database begin.
    pub database_prefix: String,
    /// The name of its database, for the names of sets.
    pub database: Vec<u8>,
    /// The channel on which changes are announced.
    pub channel: String,
    /// Whether the encoding of the database is UTF-8.
    pub is_utf8: bool,
}

/// The databases and spaces that the worker knows.
#[derive(Debug)]
pub struct Places {
    /// The cache in shared memory.
    tier: &'static HotTier,
    /// The rules by which Redis keys are built.
    names: Names,
    /// The databases, by their OIDs.
    databases: HashMap<u32, Database>,
    /// The spaces, by the OIDs of their databases and their own OIDs.
    spaces: HashMap<(u32, u32), Rc<Place>>,
    /// The OIDs of spaces, by the beginning of their Redis keys. If a dropped space and a newer space have the same name, this is
    /// the newer one. As a rule, the newer one has the greater OID.
    by_prefix: HashMap<String, (u32, u32)>,
    /// The beginnings of Redis keys that no space has, as of the last refresh.
    unknown: HashSet<String>,
    /// The OIDs of databases that do not exist, as of the last refresh.
    gone: HashSet<u32>,
    /// Whether the row of a database of a known space has changed or is gone since the last call of `check`, for instance because
    /// the database was renamed or dropped.
    is_outdated: bool,
    /// The beginnings of keys that a dropped space and a newer one share. These keys must be compared.
    superseded: Vec<String>,
}

impl Places {
    /// Reads the names of the databases. May raise errors.
    pub fn read(tier: &'static HotTier, names: Names) -> Self {
        let mut places = Self {
            tier,
            names,
            databases: HashMap::new(),
            spaces: HashMap::new(),
            by_prefix: HashMap::new(),
            unknown: HashSet::new(),
            gone: HashSet::new(),
            is_outdated: false,
            superseded: Vec::new(),
        };
        places.refresh();
        places
    }

    /// Returns the rules by which Redis keys are built.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Reads the names of the databases again. Returns whether a database of a known space was changed or dropped since the last
    /// call. The caller must then compare all keys. May raise errors.
    pub fn check(&mut self) -> bool {
        self.refresh();
        std::mem::take(&mut self.is_outdated)
    }

    /// Returns the beginning of keys that a dropped space and a newer one share. Returns each beginning once. The caller must scan
    /// these keys, because some may be those of the dropped space. None if there is no further one.
    pub fn superseded(&mut self) -> Option<String> {
        self.superseded.pop()
    }

    /// Reads the names of all databases. Forgets the names of all spaces if the database of a known space has changed.
    fn refresh(&mut self) {
        let all = background::in_transaction(background::all_databases);
        let databases: HashMap<u32, Database> =
            all.into_iter().map(|database| (database.oid, database)).collect();
        let is_outdated = |database: &u32| databases.get(database) != self.databases.get(database);
        if self.spaces.keys().any(|(database, _)| is_outdated(database)) {
            self.forget();
            self.is_outdated = true;
        }
        self.databases = databases;
        self.unknown.clear();
        self.gone.clear();
    }

    /// Forgets the names of all spaces, because they may have changed.
    pub fn forget(&mut self) {
        self.spaces.clear();
        self.by_prefix.clear();
        self.unknown.clear();
    }

    /// Returns a space by the OIDs of its database and its own OID. None if no session has used it while it had `redis => true`, if
    /// its database does not exist, or if a newer space has its name. May raise errors.
    pub fn find(&mut self, database: u32, space: u32) -> Option<Rc<Place>> {
        if let Some(place) = self.spaces.get(&(database, space)) {
            return Some(Rc::clone(place))
                .filter(|place| self.by_prefix.get(&place.prefix) == Some(&(database, space)));
        }
        let name = String::from_utf8(self.tier.space_name(database, space)?).ok()?;
        if !self.databases.contains_key(&database) && !self.gone.contains(&database) {
            // The database is new, or was dropped.
            self.refresh();
            if !self.databases.contains_key(&database) {
                self.gone.insert(database);
            }
        }
        let Database { name: of_database, is_utf8, .. } = self.databases.get(&database)?;
        memory::check();
        let place = Rc::new(Place {
            prefix: self.names.space(of_database, &name),
            database_prefix: self.names.database(of_database),
            database: of_database.clone(),
            channel: self.names.channel(of_database),
            is_utf8: *is_utf8,
        });
        self.spaces.insert((database, space), Rc::clone(&place));
        match self.by_prefix.get(&place.prefix).copied() {
            Some(known) if known > (database, space) => return None,
            Some(_) => self.superseded.push(place.prefix.clone()),
            None => {}
        }
        self.by_prefix.insert(place.prefix.clone(), (database, space));
        Some(place)
    }

    /// Returns any space of a database. None if the database has no known space. May raise errors.
    pub fn any_of(&mut self, database: u32) -> Option<Rc<Place>> {
        let spaces = self.all().into_iter().filter(|(oid, _)| *oid == database);
        // `find` does not return a space that a newer one has replaced.
        spaces.into_iter().find_map(|(_, space)| self.find(database, space))
    }

    /// Returns the OIDs of the database and the space that a Redis key names, and the key in the space. None if the key has another
    /// form. The inner None stands for a space that is not known. May raise errors.
    #[allow(clippy::type_complexity)]
    pub fn parse<'k>(&mut self, redis_key: &'k [u8]) -> Option<(Option<(u32, u32)>, &'k [u8])> {
        let (_, _, key) = self.names.parse(redis_key)?;
        let prefix = std::str::from_utf8(&redis_key[..redis_key.len() - key.len()]).ok()?;
        if !self.by_prefix.contains_key(prefix) && !self.unknown.contains(prefix) {
            for (database, space) in self.all() {
                self.find(database, space);
            }
            self.unknown.insert(prefix.to_owned());
        }
        Some((self.by_prefix.get(prefix).copied(), key))
    }

    /// Returns the OIDs of all spaces that have a name here, each with the OID of its database.
    fn all(&self) -> Vec<(u32, u32)> {
        memory::collect(self.tier.named_spaces())
    }
}
