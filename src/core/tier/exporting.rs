//! Finds the values of which a store outside of the server, such as Redis, gets copies, and the names of their spaces. A *space* is
//! a set of keys in one database.
//!
//! An entry is *exported* if it was stored with `ReserveOptions::is_exported`. A process that follows the *journal*, the ring of
//! records that name changes (`journal/mod.rs`), keeps the copies: after each change of a key it looks at the key again, by
//! [`Tier::export`]. So it always copies the present value, and the order of the records does not matter.
//!
//! A *shard* is a part of the tier with a lock of its own. A *note* is bytes that are stored beside a value. The *record* of a
//! relation holds its fences, the words that say when it last changed (`fence/mod.rs`). [`Tier::export`] and
//! [`Tier::exported_keys`] take the lock of a shard; their caller must not hold one.

use super::Tier;
use super::entry::{Entry, Part};
use super::header::{HIDDEN, Header};
use crate::host::Host;
use crate::key::{Key, Scope};
use crate::value::Meta;
use std::collections::TryReserveError;

/// A value with what a store outside of the server must know to keep a copy of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The kind of the value, when it expires, and its other properties.
    pub meta: Meta,
    /// The bytes of the value.
    pub value: Vec<u8>,
    /// The note of the value.
    pub note: Vec<u8>,
    /// The relations that the value depends on: the database and the OID of each. From now on, the journal names their changes.
    /// Left out are relations that share a record, and those on whose rows alone the value depends: a change that the journal does
    /// not name by tags counts as a change of the whole database.
    pub relations: Vec<(u32, u32)>,
}

/// A key of an exported entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedKey {
    /// The OID of the database.
    pub database: u32,
    /// The OID of the space.
    pub space: u32,
    /// The bytes of the key.
    pub key: Vec<u8>,
}

/// Some keys of exported entries, see [`Tier::exported_keys`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedPage {
    /// The keys, in no order. The list may be empty although further buckets have keys.
    pub keys: Vec<ExportedKey>,
    /// The bucket at which the next call continues.
    pub next: u64,
}

impl<H: Host> Tier<'_, H> {
    /// Returns the value of a key if it is exported and a reader would get it now, and if no transaction is about to change the
    /// key. Does not count as a read. Takes the lock of the key's shard. Returns an error if there is no memory for the copies.
    pub fn export(&self, key: &Key<'_>) -> Result<Option<Exported>, TryReserveError> {
        let now = self.host.now();
        let guard = self.shard_of(key).lock(&self.host);
        if guard.poisoned() || guard.is_changing(key) {
            return Ok(None);
        }
        let Some((entry, header)) = guard.find(key).filter(|(_, header)| header.is_exported()) else {
            return Ok(None);
        };
        let mut relations = Vec::new();
        for fence in self.dependencies_of(entry.block) {
            // This must come before the look whether the entry is valid, see `Fences::mark_named`.
            self.fences().mark_relation_named(fence);
            let relation = self.fences().relation_of(fence);
            if let Some(relation) = relation.filter(|_| !self.fences().is_bulk(fence)) {
                relations.try_reserve(1)?;
                relations.push(relation);
            }
        }
        if !self.is_valid_in(&key.scope, &entry, &header, now) {
            return Ok(None);
        }
        let value = self.copy_part(&entry, &header, entry.value(&self.layout, &header))?;
        let note = self.copy_part(&entry, &header, entry.note(&self.layout, &header))?;
        Ok(Some(Exported { meta: entry.meta(&self.layout, &header), value, note, relations }))
    }

    /// Returns the keys of the exported entries in the next buckets, `from` first, whether they are valid or not. Entries that
    /// belong to a single role are left out. Returns None if there is no bucket with the number `from`. The numbers of buckets run
    /// through all shards. Returns an error if there is no memory for the copies.
    pub fn exported_keys(&self, from: u64) -> Result<Option<ExportedPage>, TryReserveError> {
        let Some(page) = self.page(from) else { return Ok(None) };
        let mut keys = Vec::new();
        let guard = self.locked(page.shard);
        guard.prefetch_buckets(page.buckets.clone());
        for entry in page.buckets.filter(|_| !guard.poisoned()).flat_map(|bucket| guard.in_bucket(bucket)) {
            let header = entry.header();
            if header.has(HIDDEN) || !header.is_exported() || header.role() != 0 {
                continue;
            }
            keys.try_reserve(1)?;
            keys.push(ExportedKey {
                database: header.database(),
                space: header.space(),
                key: self.copy_part(
                    &entry,
                    &header,
                    Part { at: header.key_at(), length: header.key_len() },
                )?,
            });
        }
        Ok(Some(ExportedPage { keys, next: page.next }))
    }

    /// Copies a part of an entry. The caller must hold the lock of its shard.
    pub(super) fn copy_part(
        &self,
        entry: &Entry<'_>,
        header: &Header,
        part: Part,
    ) -> Result<Vec<u8>, TryReserveError> {
        // The length of a damaged entry must not decide how much memory is requested.
        let length = part.length.min(self.entry_bytes_max);
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length)?;
        bytes.resize(length, 0);
        entry.copy(&self.layout, header, part.at, &mut bytes);
        Ok(bytes)
    }

    /// Notes the name of a space in shared memory, for processes that are not connected to its database. Backends that call this
    /// for a space at the same time must pass the same name. Does nothing if the space has no cell, the place of its statistics, of
    /// its own (`figures/statistics.rs`).
    pub fn set_space_name(&self, scope: &Scope, name: &[u8]) {
        self.statistics.set_space_name(scope.cell, name);
    }

    /// Returns the OIDs of the database and the space for each space whose name was noted, also for spaces that were dropped since.
    pub fn named_spaces(&self) -> impl Iterator<Item = (u32, u32)> {
        self.statistics.named_spaces()
    }

    /// Returns the name of a space, if it was noted.
    pub fn space_name(&self, database: u32, space: u32) -> Option<Vec<u8>> {
        self.fences().known_space(database, space).and_then(|slot| self.statistics.space_name(slot))
    }
}
