//! The entries that a session may see, one by one, for the views `cache_entries`, `cache_queries` and `cache_dependencies`. They
//! come by *shards*, the parts of the cache in shared memory: from each shard, first the entries in memory, then those that are
//! only in a table. The uncommitted changes of the own transaction are left out.
//!
//! A *space* is a named cache with its own options. A *note* is bytes that are stored beside a value: its tags, and the facts about
//! a query result (`note.rs`).

use super::keyspace::hash;
use super::space;
use super::status::{self, Status};
use super::table::listing;
use crate::pg::error::OrRaise;
use crate::pg::memory;
use crate::pg::role::Role;
use crate::pg::shared::{self, HotTier};
use pg_cache_core::{Key, Kind, Meta, SampledHits};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Where the value of an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Memory,
    Table,
    Both,
}

/// An entry as the view shows it.
#[derive(Debug)]
pub struct Entry {
    /// The name of the space.
    pub space: Rc<str>,
    /// The OID of the space.
    pub space_oid: u32,
    /// The key. None if the entry belongs to another role.
    pub key: Option<Rc<[u8]>>,
    /// The note (`note.rs`). If the entry belongs to another role, its tags and the text of its query must not be shown.
    pub note: Vec<u8>,
    /// The properties of the entry, such as its kind and its stamp.
    pub meta: Meta,
    /// The change by which the entry is not valid any more. None if a read can return the entry.
    pub invalid: Option<Status>,
    /// Where the value is: in memory, in a table, or in both.
    pub place: Place,
    /// About how many of the latest hits were hits of this key, from the hits that each backend samples.
    pub hits: u64,
}

/// The rights of the role and everything else that decides how entries are shown.
struct View {
    /// The cache in shared memory.
    tier: &'static HotTier,
    /// The names of the spaces that the role may see, by their OIDs.
    spaces: BTreeMap<u32, Rc<str>>,
    /// The role that asks.
    role: Role,
    /// Whether to show that other roles have entries of their own.
    shows_other_roles: bool,
    /// Tells by the kind of an entry, and by whether a read can return it, whether it is shown.
    wanted: fn(Kind, bool) -> bool,
    /// The sample of the latest hits, from which the hits of a key are estimated.
    hits: SampledHits,
}

/// Returns the wanted entries of all spaces that the current role may see, shard by shard. `wanted` gets the kind of an entry, and
/// whether a read can return the entry. Each key appears once. An entry that changes meanwhile, or that moves from a table to
/// memory, may be missing. Saved entries that no read can return are left out, and so are entries that have expired. Raises an
/// error if there is no memory, also while the caller walks through the entries.
pub fn entries(wanted: fn(Kind, bool) -> bool) -> impl Iterator<Item = Entry> {
    // A role that may see no space must not make the server read all rows.
    let view = shared::tier().map(|tier| View::new(tier, wanted)).filter(|view| !view.spaces.is_empty());
    view.into_iter().flat_map(|view| (0..view.tier.shards()).flat_map(move |shard| view.of_shard(shard)))
}

impl View {
    /// Reads what the current role may see. May raise errors.
    fn new(tier: &'static HotTier, wanted: fn(Kind, bool) -> bool) -> Self {
        let mut spaces = BTreeMap::new();
        space::each_visible(|oid, name, _| {
            memory::check();
            spaces.insert(oid, Rc::from(name));
        });
        let hits = tier.sampled_hits().or_raise();
        let (role, shows_other_roles) = (Role::current(), space::may_monitor());
        Self { tier, spaces, role, shows_other_roles, wanted, hits }
    }

    /// Returns the entries of one shard.
    fn of_shard(&self, shard: u32) -> Vec<Entry> {
        let (mut entries, mut in_memory) = (Vec::new(), BTreeSet::new());
        let buckets = self.tier.buckets_total() / u64::from(self.tier.shards());
        let mut bucket = u64::from(shard) * buckets;
        while bucket < u64::from(shard + 1) * buckets {
            shared::check_for_interrupts();
            let page = self.tier.entries_of(shared::database(), bucket, self.wanted).or_raise();
            let Some(page) = page else { break };
            for found in page.entries {
                let scope = self.tier.scope(found.database, found.space, found.role);
                let Some(key) = Key::new(scope, &found.key, hash(&found.key)) else { continue };
                // A counter is never saved in a table. The place of another key's saved value may look like its own.
                let is_saved = found.meta.kind != Kind::COUNTER && self.tier.location(&key).is_some();
                let place = if is_saved { Place::Both } else { Place::Memory };
                memory::check();
                in_memory.insert(key.mark());
                let invalid = match found.valid {
                    true => None,
                    false if shared::ms_until(found.meta.expires) == 0 => continue,
                    false => Some(status::of_change(self.tier, &scope, &key)),
                };
                self.add(&mut entries, &key, (found.meta, &found.note), place, invalid);
            }
            bucket = page.next;
        }
        listing::each_in_shard(self.tier, shard, |key, meta, note| {
            if (self.wanted)(meta.kind, true) && !in_memory.contains(&key.mark()) {
                self.add(&mut entries, key, (meta, note), Place::Table, None);
            }
        });
        entries
    }

    /// Adds an entry, if the role may see it.
    fn add(
        &self,
        entries: &mut Vec<Entry>,
        key: &Key<'_>,
        (meta, note): (Meta, &[u8]),
        place: Place,
        invalid: Option<Status>,
    ) {
        let scope = key.scope();
        let is_own = scope.role() == 0 || scope.role() == self.role.oid();
        let Some(space) = self.spaces.get(&scope.space()).filter(|_| is_own || self.shows_other_roles) else {
            return;
        };
        memory::check();
        let key_bytes = is_own.then(|| Rc::from(key.bytes()));
        let entry = Entry {
            space: space.clone(),
            space_oid: scope.space(),
            key: key_bytes,
            note: memory::copy(note),
            meta,
            invalid,
            place,
            hits: self.hits.of(key),
        };
        memory::push(entries, entry);
    }
}
