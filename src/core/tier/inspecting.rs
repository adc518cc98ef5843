//! Shows the content of a tier, the cache: its entries, and how full it is. The view `cache_entries` and the function `cache_keys`,
//! for instance, use it. It walks through the hash buckets of one *shard* after the other, a part of the tier with a lock of its
//! own. The caller must not hold a lock. A function that a caller passes as `wanted` runs under the lock of a shard: it must not
//! take a lock, and must not raise an error.
//!
//! A *space* is a set of keys in one database. A *scope* is the database, the space and the role of a key. A *flight* is the right
//! to publish a value for a key: a lease, a fill or a claim (`tier/flight.rs`). A *hidden* entry is an announced change: it hides
//! the value of its key until the change is confirmed. A *note* is bytes that are stored beside a value. A *reservation* is blocks
//! with a value that is not published yet.

use super::Tier;
use super::entry::{Entry, Part};
use super::flight::{InFlight, Purpose};
use super::header::{HIDDEN, Header};
use super::judge::BUCKETS_PER_HOLD;
use super::shard::Shard;
use crate::host::Host;
use crate::key::{KEY_BYTES_MAX, Scope};
use crate::layout::{BLOCK_BYTES, Layout};
use crate::value::{Kind, Meta};
use std::collections::TryReserveError;

/// An entry as [`crate::Tier::inspect`] shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The OID of the database.
    pub database: u32,
    /// The OID of the space.
    pub space: u32,
    /// The role that owns the entry, or 0.
    pub role: u32,
    /// The bytes of the key.
    pub key: Vec<u8>,
    /// The note of the value.
    pub note: Vec<u8>,
    /// The kind, the stamp and the other properties of the value.
    pub meta: Meta,
    /// Whether a reader would get the entry now.
    pub valid: bool,
}

/// Some keys of a scope, see [`crate::Tier::keys_between`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPage {
    /// The keys, in no order. The list may be empty although further buckets have keys.
    pub keys: Vec<Vec<u8>>,
    /// The bucket at which the next call continues. Buckets are numbered through all shards.
    pub next: u64,
}

/// Some entries of a database, see [`crate::Tier::entries_of`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryPage {
    /// The entries, in no order. The list may be empty although further buckets have entries.
    pub entries: Vec<Inspected>,
    /// The bucket at which the next call continues.
    pub next: u64,
}

/// How full the tier is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The number of entries, valid or not.
    pub entries: u64,
    /// Bytes of blocks in use, by entries and reservations.
    pub used_bytes: u64,
    /// Bytes of all blocks.
    pub block_bytes: u64,
    /// Bytes of fences, with the records of relations.
    pub fence_bytes: u64,
    /// Bytes of slots for flights.
    pub flight_bytes: u64,
    /// Bytes of statistics, of backends and of spaces.
    pub statistics_bytes: u64,
    /// The number of flights: values that are being computed and keys that are claimed.
    pub flights: u64,
    /// The number of claimed keys.
    pub claims: u64,
    /// The number of announced changes that are neither confirmed nor withdrawn yet.
    pub announced: u64,
    /// The number of shards.
    pub shards: u32,
    /// The number of shards that are switched off.
    pub shards_off: u32,
}

impl<H: Host> Tier<'_, H> {
    /// Returns the entries of a bucket, and `None` behind the last bucket of the last shard. Buckets are numbered through all
    /// shards. Hidden entries and those of a shard that is switched off are left out. It copies keys and notes under the lock, so
    /// it is meant for inspection and not for hot paths. Returns an error if there is no memory for the copies.
    pub fn inspect(&self, bucket: u64) -> Result<Option<Vec<Inspected>>, TryReserveError> {
        let now = self.host.now();
        let shard = u32::try_from(bucket / u64::from(self.layout.buckets)).ok();
        let Some(shard) = shard.filter(|n| *n < self.layout.shards) else { return Ok(None) };
        let mut found = Vec::new();
        let guard = Shard::new(self.region, &self.layout, shard).lock(&self.host);
        if guard.poisoned() {
            return Ok(Some(found));
        }
        for entry in guard.in_bucket((bucket % u64::from(self.layout.buckets)) as u32) {
            let header = entry.header();
            if header.has(HIDDEN) {
                continue;
            }
            found.try_reserve(1)?;
            found.push(self.copy_of(&entry, &header, now)?);
        }
        Ok(Some(found))
    }

    /// Returns the entries of a database that are wanted, from the next buckets, `from` first. `wanted` gets the kind of an entry,
    /// and whether a reader would get the entry now. Returns None if there is no bucket with this number. Buckets are numbered
    /// through all shards. Other entries are not copied.
    pub fn entries_of(
        &self,
        database: u32,
        from: u64,
        wanted: impl Fn(Kind, bool) -> bool,
    ) -> Result<Option<EntryPage>, TryReserveError> {
        let now = self.host.now();
        self.entries_where(from, now, |entry, header| {
            header.database() == database && wanted(header.kind(), self.is_valid(entry, header, now))
        })
    }

    /// Does the same as [`entries_of`](Self::entries_of) for a caller that wants entries of some spaces, valid or not. `wanted`
    /// gets the OID of the space and the kind of an entry.
    pub fn entries_in(
        &self,
        database: u32,
        from: u64,
        wanted: impl Fn(u32, Kind) -> bool,
    ) -> Result<Option<EntryPage>, TryReserveError> {
        self.entries_where(from, self.host.now(), |_, header| {
            header.database() == database && wanted(header.space(), header.kind())
        })
    }

    /// Returns the entries that are wanted, from the next buckets, `from` first. None if there is no bucket with this number.
    fn entries_where(
        &self,
        from: u64,
        now: u32,
        wanted: impl Fn(&Entry<'_>, &Header) -> bool,
    ) -> Result<Option<EntryPage>, TryReserveError> {
        let Some(page) = self.page(from) else { return Ok(None) };
        let mut entries = Vec::new();
        let guard = self.locked(page.shard);
        guard.prefetch_buckets(page.buckets.clone());
        for entry in page.buckets.filter(|_| !guard.poisoned()).flat_map(|bucket| guard.in_bucket(bucket)) {
            let header = entry.header();
            if !header.has(HIDDEN) && wanted(&entry, &header) {
                entries.try_reserve(1)?;
                entries.push(self.copy_of(&entry, &header, now)?);
            }
        }
        Ok(Some(EntryPage { entries, next: page.next }))
    }

    /// Copies what inspection shows of an entry. The caller must hold the lock of its shard.
    fn copy_of(&self, entry: &Entry<'_>, header: &Header, now: u32) -> Result<Inspected, TryReserveError> {
        let copy = |part| self.copy_part(entry, header, part);
        Ok(Inspected {
            database: header.database(),
            space: header.space(),
            role: header.role(),
            key: copy(Part { at: header.key_at(), length: header.key_len() })?,
            note: copy(entry.note(&self.layout, header))?,
            meta: entry.meta(&self.layout, header),
            valid: self.is_valid(entry, header, now),
        })
    }

    /// Returns the keys of a scope that lie between two keys, from the next buckets, `bucket` first. Both ends are excluded; None
    /// is no limit. Returns None if there is no bucket with this number. The keys of other scopes are not copied. Keys whose
    /// entries are no longer valid may be among the result.
    pub fn keys_between(
        &self,
        scope: &Scope,
        bucket: u64,
        after: Option<&[u8]>,
        before: Option<&[u8]>,
    ) -> Result<Option<KeyPage>, TryReserveError> {
        let buckets = u64::from(self.layout.buckets);
        let shard = u32::try_from(bucket / buckets).ok();
        let Some(shard) = shard.filter(|shard| *shard < self.layout.shards) else { return Ok(None) };
        let first = bucket % buckets;
        let next = buckets.min(first + u64::from(BUCKETS_PER_HOLD));
        let mut found = Vec::new();
        let guard = Shard::new(self.region, &self.layout, shard).lock(&self.host);
        // Most of the time goes into waiting for the headers, so all of them are fetched at once.
        guard.prefetch_buckets(first as u32..next as u32);
        for at in (first..next).filter(|_| !guard.poisoned()) {
            for entry in guard.in_bucket(at as u32) {
                // The rest of the header may lie in another line of memory.
                if entry.space_id() != scope.space_id() {
                    continue;
                }
                let header = entry.header();
                if header.role() != scope.role || header.has(HIDDEN) {
                    continue;
                }
                let mut bytes = [0; KEY_BYTES_MAX];
                let Some(key) = bytes.get_mut(..header.key_len()) else { continue };
                entry.copy(&self.layout, &header, header.key_at(), key);
                if after.is_some_and(|after| &*key <= after) || before.is_some_and(|before| &*key >= before) {
                    continue;
                }
                let mut copy = Vec::new();
                copy.try_reserve_exact(key.len())?;
                copy.extend_from_slice(key);
                found.try_reserve(1)?;
                found.push(copy);
            }
        }
        Ok(Some(KeyPage { keys: found, next: bucket - first + next }))
    }

    /// Returns the bytes of all blocks, used or free.
    pub fn block_bytes(&self) -> u64 {
        self.layout.blocks_total() * BLOCK_BYTES as u64
    }

    /// Returns how full the tier is.
    pub fn usage(&self) -> Usage {
        let now = self.host.now();
        let mut usage = Usage {
            block_bytes: self.layout.blocks_total() * BLOCK_BYTES as u64,
            fence_bytes: (self.layout.slots_at - self.layout.reserved_at) as u64 * 8,
            flight_bytes: (self.layout.buckets_at - self.layout.flights_at) as u64
                * 8
                * u64::from(self.layout.shards),
            statistics_bytes: Layout::statistics_words(&self.layout.sizes) as u64 * 8,
            shards: self.layout.shards,
            ..Usage::default()
        };
        for shard in 0..self.layout.shards {
            let guard = Shard::new(self.region, &self.layout, shard).lock(&self.host);
            usage.entries = usage.entries.wrapping_add(guard.entries());
            let is_claim = |flight: &InFlight| flight.purpose == Purpose::Claim;
            usage.flights += guard.flights().all(now).count() as u64;
            usage.claims += guard.flights().all(now).filter(is_claim).count() as u64;
            usage.announced = usage.announced.wrapping_add(guard.hidden());
            usage.used_bytes +=
                u64::from(self.layout.blocks.saturating_sub(guard.free_blocks())) * BLOCK_BYTES as u64;
            usage.shards_off += u32::from(guard.poisoned());
        }
        usage
    }
}
