//! Compares the figures of spaces with the entries that a check has passed. `check/shard.rs` adds each entry to the figures of its
//! space, and `check/mod.rs` asks for the differences after the walk through all shards.
//!
//! A *space* is a set of keys in one database. The *cell* of a space is the place of its counts in shared memory
//! (`figures/statistics.rs`). Spaces without a fence of their own share the last cell. A *block* is 16 bytes of the memory for
//! entries.
//!
//! The figures of several shards are never of one moment. So each difference is a *finding in doubt*, which is reported only if
//! several looks find it (`check/mod.rs`).
//!
//! A *shard* is a part of the tier, the cache, with a lock of its own. It is *poisoned*, that is, switched off, after a panic under
//! its lock.

use super::blocks::NumberHasher;
use super::findings::FINDINGS_PER_SHARD;
use crate::figures::{Counts, entries};
use crate::host::Host;
use crate::tier::Tier;
use std::collections::{HashMap, TryReserveError};
use std::hash::BuildHasherDefault;

/// The figures of spaces, by database and space.
pub(super) type WalkedSpaces = HashMap<u64, WalkedSpace, BuildHasherDefault<NumberHasher>>;

/// The entries and blocks of one space that a walk has counted.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct WalkedSpace {
    /// The number of entries.
    pub entries: u64,
    /// The number of blocks.
    pub blocks: u64,
}

/// The figures in the cells of spaces (`figures/statistics.rs`), and what a walk has found of the spaces.
///
/// Other backends may work between one shard and the next. Figures that change meanwhile cannot be compared, so the cells are read
/// before and after the walk.
pub(super) struct Spaces {
    /// The counts and the blocks in each cell before the walk.
    before: Vec<(Counts, u64)>,
    /// The entries and blocks that the walk has counted, by database and space.
    pub walked: WalkedSpaces,
    /// The number of blocks in use, by the bitmaps of all shards.
    pub used: u64,
    /// Whether a shard is switched off. The entries of such a shard are unknown.
    pub poisoned: bool,
}

impl Spaces {
    pub(super) fn of<H: Host>(tier: &Tier<'_, H>) -> Result<Self, TryReserveError> {
        Ok(Self { before: Self::cells(tier)?, walked: WalkedSpaces::default(), used: 0, poisoned: false })
    }

    /// Reads the counts and the blocks in each cell.
    fn cells<H: Host>(tier: &Tier<'_, H>) -> Result<Vec<(Counts, u64)>, TryReserveError> {
        let statistics = &tier.statistics;
        let mut cells = Vec::new();
        for cell in statistics.cells() {
            cells.try_reserve(1)?;
            cells.push((statistics.counts(cell), statistics.blocks(cell)));
        }
        Ok(cells)
    }

    /// Compares the cells with what the walk has found, unless they have changed during the walk.
    pub(super) fn complaints<H: Host>(self, tier: &Tier<'_, H>) -> Result<Vec<String>, TryReserveError> {
        let now = Self::cells(tier)?;
        if self.poisoned {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        found.try_reserve_exact(now.len())?;
        found.resize(now.len(), WalkedSpace::default());
        for (space_id, walked) in self.walked {
            let cell = &mut found[tier.cell_of(space_id) as usize];
            cell.entries += walked.entries;
            cell.blocks += walked.blocks;
        }
        let mut complaints = Vec::new();
        for (cell, (found, (before, now))) in found.iter().zip(self.before.iter().zip(&now)).enumerate() {
            let (counts, blocks) = now;
            // A cell also counts reserved blocks, which belong to no entry yet. So it may count more blocks than were found.
            if before == now && (entries(counts) != found.entries || *blocks < found.blocks) {
                complaints.push(format!(
                    "cell {cell}: {} entries in {} blocks are there, {} and {blocks} are counted",
                    found.entries,
                    found.blocks,
                    entries(counts),
                ));
            }
        }
        let counted = now.iter().fold(0_u64, |sum, (_, blocks)| sum.saturating_add(*blocks));
        if self.before == now && counted != self.used {
            complaints.push(format!("{} blocks are in use, the spaces' are {counted}", self.used));
        }
        // Damage may change all cells. The first findings are enough, as for a shard.
        complaints.truncate(FINDINGS_PER_SHARD);
        Ok(complaints)
    }
}
