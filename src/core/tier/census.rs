//! Counts what is in the tier, the cache, for the views of an operator: the entries of each space, and how full the tables of fixed
//! size are.
//!
//! A count of entries reads the header of every entry of the tier. It holds the lock of one *shard*, a part of the tier, for a few
//! hash buckets at a time, so other backends never wait long. Entries that are stored or removed meanwhile may be counted or not.
//! The caller must not hold a lock.
//!
//! A *space* is a set of keys in one database. A *fence* is a word in shared memory that says when a dependency of entries last
//! changed. A *flight* is the right to publish a value that is being computed. A *stale* value is one that is not valid any more
//! but may still be served.

use super::Tier;

use super::header::{HIDDEN, LINKED};
use super::judge::Judge;
use super::shard::Shard;
use crate::host::Host;
use crate::layout::{BLOCK_BYTES, LOCATIONS_OF_SET, RESERVED_WORDS};

/// The entries of a space, and the bytes of their blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// The OID of the database.
    pub database: u32,
    /// The OID of the space.
    pub space: u32,
    /// The number of entries that a reader may still get, perhaps only as stale values.
    pub live: u64,
    /// The bytes of these entries.
    pub live_bytes: u64,
    /// The number of entries that no reader can ever get again: they have expired, a dependency has changed, or their space or
    /// database was flushed. Their memory is reclaimed when it is needed.
    pub dead: u64,
    /// The bytes of these entries.
    pub dead_bytes: u64,
}

/// How full a table of fixed size is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fullness {
    /// The number of places that are taken.
    pub used: u64,
    /// The number of all places.
    pub capacity: u64,
}

impl<H: Host> Tier<'_, H> {
    /// Counts the entries in the next buckets of one shard, from bucket `from` on. Buckets are numbered through all shards. Adds
    /// the entries to the item of their space; entries of spaces without an item are not counted, and neither are those of a shard
    /// that is switched off. `spaces` must be sorted by database and space. Returns the bucket to continue with, or None if there
    /// is no bucket `from`.
    pub fn count_entries(&self, from: u64, spaces: &mut [Census]) -> Option<u64> {
        let page = self.page(from)?;
        let mut judge = Judge::new(self);
        let guard = self.locked(page.shard);
        guard.prefetch_buckets(page.buckets.clone());
        for entry in page.buckets.filter(|_| !guard.poisoned()).flat_map(|bucket| guard.in_bucket(bucket)) {
            let header = entry.header();
            if !header.has(LINKED) || header.has(HIDDEN) {
                continue;
            }
            let place = (header.database(), header.space());
            let Ok(at) = spaces.binary_search_by_key(&place, |item| (item.database, item.space)) else {
                continue;
            };
            let blocks = entry.runs(&self.layout, &header).map(|run| u64::from(run.run.blocks));
            let bytes = blocks.sum::<u64>() * BLOCK_BYTES as u64;
            let item = &mut spaces[at];
            let (count, sum) = match judge.is_useless(&entry, &header) {
                None => (&mut item.live, &mut item.live_bytes),
                Some(_) => (&mut item.dead, &mut item.dead_bytes),
            };
            *count += 1;
            *sum = sum.saturating_add(bytes);
        }
        drop(guard);
        Some(page.next)
    }

    /// Returns how many of the slots of reserved fences are taken: by databases, by spaces, and by the others in `Reserved`.
    pub fn space_records(&self) -> Fullness {
        let slots = self.layout.sizes.reserved_fences;
        let marks = (0..slots).map(|slot| self.layout.reserved_at + slot as usize * RESERVED_WORDS);
        self.fill(marks, slots)
    }

    /// Returns how many of the records of relations are taken.
    pub fn relation_records(&self) -> Fullness {
        let used = self.fences().records().count() as u64;
        Fullness { used, capacity: self.layout.sizes.relation_fences.into() }
    }

    /// Returns how many fences of tags have had a committed change or have a pending one: for tags, and for all that shares these
    /// fences.
    pub fn tag_fences(&self) -> Fullness {
        let slots = self.layout.sizes.tag_fences;
        self.fill((0..slots).map(|slot| self.layout.tags_at + slot as usize), slots)
    }

    /// Returns how many slots have a flight that is not over.
    pub fn flight_slots(&self) -> Fullness {
        let capacity = u64::from(self.layout.shards) * u64::from(self.layout.flights);
        Fullness { used: self.usage().flights, capacity }
    }

    /// Returns how many locations of the directory are taken: how many values are saved.
    pub fn saved_values(&self) -> Fullness {
        let shards = (0..self.layout.shards).map(|number| Shard::new(self.region, &self.layout, number));
        let used = shards.fold(0, |sum: u64, shard| sum.wrapping_add(shard.locations()));
        let capacity = self.layout.shards * self.layout.location_sets * LOCATIONS_OF_SET as u32;
        Fullness { used, capacity: capacity.into() }
    }

    /// Counts the words that are not 0.
    fn fill(&self, words: impl Iterator<Item = usize>, capacity: u32) -> Fullness {
        let used = words.filter(|at| self.region.load(*at) != 0).count() as u64;
        Fullness { used, capacity: capacity.into() }
    }
}
