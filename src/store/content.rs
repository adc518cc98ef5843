//! The entries that a session may see, one by one, for the view `cache_entries`. They come by *shards*, the parts of the cache in
//! shared memory: from each shard, first the entries in memory, then those that are only in a table. The uncommitted changes of the
//! own transaction are left out.

use super::keyspace::hash;
use super::space;
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
    /// The key. None if the entry belongs to another role.
    pub key: Option<Vec<u8>>,
    /// The note, which holds the tags (`note.rs`). It has no bytes if the entry belongs to another role.
    pub note: Vec<u8>,
    pub meta: Meta,
    pub place: Place,
    /// About how many of the latest hits were hits of this key, from the hits that each backend samples.
    pub hits: u64,
}

/// The rights of the role and everything else that decides how entries are shown.
struct View {
    tier: &'static HotTier,
    /// The names of the spaces that the role may see, by their OIDs.
    spaces: BTreeMap<u32, Rc<str>>,
    role: Role,
    /// Whether to show that other roles have entries of their own.
    shows_other_roles: bool,
    hits: SampledHits,
}

/// Returns the entries of all spaces that the current role may see, shard by shard. Each key appears once. An entry that changes
/// meanwhile, or that moves from a table to memory, may be missing. Raises an error if there is no memory, also while the caller
/// walks through the entries.
pub fn entries() -> impl Iterator<Item = Entry> {
    // A role that may see no space must not make the server read all rows.
    let view = shared::tier().map(View::new).filter(|view| !view.spaces.is_empty());
    view.into_iter().flat_map(|view| (0..view.tier.shards()).flat_map(move |shard| view.of_shard(shard)))
}

impl View {
    fn new(tier: &'static HotTier) -> Self {
        let mut spaces = BTreeMap::new();
        space::each_visible(|oid, name, _| {
            memory::check();
            spaces.insert(oid, Rc::from(name));
        });
        let hits = tier.sampled_hits().or_raise();
        Self { tier, spaces, role: Role::current(), shows_other_roles: space::may_monitor(), hits }
    }

    /// Returns the entries of one shard.
    fn of_shard(&self, shard: u32) -> Vec<Entry> {
        let (mut entries, mut in_memory) = (Vec::new(), BTreeSet::new());
        let buckets = self.tier.buckets_total() / u64::from(self.tier.shards());
        let mut bucket = u64::from(shard) * buckets;
        while bucket < u64::from(shard + 1) * buckets {
            shared::check_for_interrupts();
            let Some(page) = self.tier.entries_of(shared::database(), bucket).or_raise() else { break };
            for found in page.entries {
                let scope = self.tier.scope(found.database, found.space, found.role);
                let Some(key) = Key::new(scope, &found.key, hash(&found.key)) else { continue };
                // A counter is never saved. The location of another key may look like its own.
                let is_saved = found.meta.kind != Kind::COUNTER && self.tier.location(&key).is_some();
                let place = if is_saved { Place::Both } else { Place::Memory };
                self.add(&mut entries, &key, found.meta, &found.note, place);
                memory::check();
                in_memory.insert(key.mark());
            }
            bucket = page.next;
        }
        listing::each_in_shard(self.tier, shard, |key, meta, note| {
            if !in_memory.contains(&key.mark()) {
                self.add(&mut entries, key, meta, note, Place::Table);
            }
        });
        entries
    }

    /// Adds an entry, if the role may see it.
    fn add(&self, entries: &mut Vec<Entry>, key: &Key<'_>, meta: Meta, note: &[u8], place: Place) {
        let scope = key.scope();
        let is_own = scope.role() == 0 || scope.role() == self.role.oid();
        let Some(space) = self.spaces.get(&scope.space()).filter(|_| is_own || self.shows_other_roles) else {
            return;
        };
        memory::check();
        let key_bytes = is_own.then(|| memory::copy(key.bytes()));
        let note = if is_own { memory::copy(note) } else { Vec::new() };
        let hits = self.hits.of(key);
        memory::push(entries, Entry { space: space.clone(), key: key_bytes, note, meta, place, hits });
    }
}
