//! The tier, the cache in shared memory, as its users see it: a map from keys to values that may evict entries at any time. The
//! extension makes one tier for the server, and each backend attaches to it.
//!
//! A *shard* is a part of the tier with a lock of its own (`shard.rs`). An operation that changes a key holds the lock of the key's
//! shard. It gives blocks in other shards back after it has released that lock. Most reads take no lock; `reading.rs` has the
//! exceptions. This file makes a [`Tier`] and the scopes of its keys. A *scope* is the database, the space (a set of keys in one
//! database) and the role of a key (`key.rs` of the core). The operations are in files of their own:
//!
//! - A get: `reading.rs` finds an entry through `shard.rs`. `entry.rs`, `header.rs` and `runs.rs` say where its bytes are.
//! - A set: `publishing.rs` takes blocks through `allocation.rs`, writes the entry with `writer.rs`, and links it through
//!   `guard.rs`.
//! - When no block is free, `allocation.rs` asks `eviction.rs` for entries to evict. They are a streak (`streak.rs`): the oldest
//!   entries of one of the eviction queues (`queues.rs`). `weight.rs` compares what entries are worth.
//! - `removing.rs` and `updating.rs` change or end living entries. `freeing.rs` gives their blocks back.
//! - `acquiring.rs` begins and ends flights: the rights to publish a value that is still being computed, and claims of keys.
//!   `flight.rs` keeps them.
//! - `directory.rs` knows where values are saved outside of the region. `saving.rs` hands entries to the saver, and `promoting.rs`
//!   brings saved values back.
//! - `patterns.rs` announces and confirms invalidations by a pattern, and compares keys with them.
//! - `exporting.rs` finds the values of which a store outside of the server gets copies.
//! - `reviving.rs` makes a region usable again that was copied from a file.
//! - `quota.rs` keeps a space within its quota. `judge.rs` finds entries that will never be served again.
//! - `page.rs` divides a walk through all entries into pages, one for each hold of a lock.
//! - `deltas.rs` and `statistics.rs` keep and return the figures. `inspecting.rs`, `census.rs` and `check/` look through the
//!   whole tier. `tests.rs` has the tests that need to see several of these parts.

pub(crate) mod acquiring;
mod allocation;
pub(crate) mod census;
mod check;
mod deltas;
mod directory;
mod entry;
mod eviction;
pub(crate) mod exporting;
pub(crate) mod flight;
mod freeing;
mod guard;
mod header;
pub(crate) mod inspecting;
mod judge;
mod page;
mod patterns;
pub(crate) mod promoting;
mod publishing;
mod queues;
mod quota;
mod reading;
mod removing;
pub(crate) mod reviving;
mod runs;
pub(crate) mod saving;
mod shard;
pub(crate) mod statistics;
mod streak;
#[cfg(all(test, not(any(loom, counting))))]
mod tests;
mod updating;
mod weight;
mod writer;

use crate::fence::{Fences, Reserved};
use crate::figures::Statistics;
use crate::host::Host;
use crate::journal::Journal;
use crate::key::{Key, Scope};
use crate::layout::{BLOCK_BYTES, Layout, Sizes};
use crate::patterns::Patterns;
use crate::region::{Region, RegionError};
use guard::Guard;
use runs::blocks_of;
use shard::Shard;

/// An entry may take at most the blocks of the tier divided by this, so that one value never evicts most other entries.
/// [`Tier::new`] allows more in a very small tier.
const ENTRY_SHARE: u64 = 8;

/// A tier in a region, as one backend sees it.
#[derive(Debug)]
pub struct Tier<'m, H> {
    pub(crate) region: Region<'m>,
    pub(crate) layout: Layout,
    pub(crate) host: H,
    pub(crate) statistics: Statistics<'m>,
    /// The most bytes that an entry may take. A header with a larger number is damaged.
    pub(crate) entry_bytes_max: usize,
}

impl<'m, H: Host> Tier<'m, H> {
    /// Formats a region as an empty tier. No other process may use the region meanwhile.
    ///
    /// `sizes.bytes` is ignored: the region's own size counts. `backend` is the number of the caller's slot of statistics. Two
    /// processes must not use the same number at the same time. A backend without a slot passes `sizes.backends` or more.
    pub fn format(region: Region<'m>, sizes: Sizes, host: H, backend: u32) -> Result<Self, RegionError> {
        let layout = Layout::of(Sizes { bytes: region.bytes(), ..sizes })?;
        layout.format(&region);
        for shard in 0..layout.shards {
            Shard::new(region, &layout, shard).format();
        }
        Ok(Self::new(region, layout, host, backend))
    }

    /// Makes the tier of a region that is formatted with this layout.
    fn new(region: Region<'m>, layout: Layout, host: H, backend: u32) -> Self {
        let share = layout.blocks_total() / ENTRY_SHARE;
        // In a tier with room for a few entries, an eighth would be too little for any entry. There, an entry may have 2 KB, but at
        // most half of the blocks.
        let blocks = share.max(u64::from(blocks_of(2048)).min(layout.blocks_total() / 2));
        Self {
            region,
            statistics: Statistics::of(region, &layout, backend),
            layout,
            host,
            entry_bytes_max: blocks as usize * BLOCK_BYTES,
        }
    }

    /// Attaches to the tier in a region that was formatted before, perhaps by another process and at another address. `backend` is
    /// as in [`format`](Self::format).
    pub fn attach(region: Region<'m>, host: H, backend: u32) -> Result<Self, RegionError> {
        Ok(Self::new(region, Layout::read(&region)?, host, backend))
    }

    /// Returns how many locks a tier of these sizes needs of its host.
    pub fn shards_of(sizes: Sizes) -> Result<u32, RegionError> {
        Layout::of(sizes).map(|layout| layout.shards)
    }

    /// Returns the bytes that a region of these sizes uses for its header, fences, statistics, records of segments, journal,
    /// patterns and directory. They do not depend on the bytes for entries, unlike the zones, the visited bits and the control data
    /// of the shards, which are not included.
    pub fn bytes_beside_entries(sizes: Sizes) -> usize {
        (Layout::words_before_zones(&sizes) + Layout::directory_words(&sizes)) * 8
    }

    /// Returns the fences of the tier.
    pub fn fences(&self) -> Fences<'_> {
        Fences::new(self.region, &self.layout)
    }

    fn patterns(&self) -> Patterns<'_> {
        Patterns::new(self.region, &self.layout)
    }

    /// Returns the journal of the tier.
    pub fn journal(&self) -> Journal<'m> {
        Journal::new(self.region, &self.layout)
    }

    /// Returns the scope of a space's keys: those of one role, or those of all roles if `role` is 0.
    ///
    /// The first call for a space gives it its statistics, so that they are listed.
    pub fn scope(&self, database: u32, space: u32, role: u32) -> Scope {
        let scope = self.scope_of(database, space, role);
        self.statistics.set_space_id(scope.cell, scope.space_id());
        scope
    }

    /// Returns the scope that an entry names. Unlike [`scope`](Self::scope), it does not add the space to the statistics. Both
    /// claim the fences of the database and the space if they have none yet.
    pub(crate) fn scope_of(&self, database: u32, space: u32, role: u32) -> Scope {
        let fences = self.fences();
        let fences = [
            fences.reserved(Reserved::Database(database)),
            fences.reserved(Reserved::Space { database, space }),
        ];
        let patterns = self.fences().patterns_of(fences[1]);
        Scope { database, space, role, fences, patterns, cell: fences[1].cell(&self.layout) }
    }

    /// Returns the most bytes that an entry may take, with its header, its dependencies and its key.
    pub fn entry_bytes_max(&self) -> usize {
        self.entry_bytes_max
    }

    /// Acquires the lock of a shard. The caller must not hold another one.
    fn locked(&self, shard: u32) -> Guard<'_, H> {
        Shard::new(self.region, &self.layout, shard).lock(&self.host)
    }

    pub(crate) fn shard_of(&self, key: &Key<'_>) -> Shard<'_> {
        Shard::of_hash(self.region, &self.layout, key.hash)
    }
}
