//! Makes a region, the shared memory of a tier (the cache), usable again. It was copied byte by byte after the last process that
//! used it had ended in order: the extension saves it in a file at a shutdown, and calls [`Tier::revive`] at the next start.
//!
//! Entries, fences, the clock of changes, and statistics stay. The remains of the ended processes go:
//! - A raised fence counts as changed (`fence/reviving.rs`), and an announced change as committed: the announcement and the present
//!   entry of its key are removed, and an announced pattern (`patterns/mod.rs`) becomes live.
//! - Leases, fills and claims, the rights to set keys (`flight.rs`), end.
//! - The journal, the ring of records that name changes, begins a new life if one of its records is not whole.
//! - Blocks that no entry has are free. They belonged to reservations.
//!
//! A sound region has no other remains: a process changes the links of a shard only while it holds the shard's lock, and then it
//! ends the change. So everything else that is not in order is damage, and the region is refused. Access: no other process may use
//! the region meanwhile. The locks are taken only because the operations of a shard need a guard.
//!
//! A *fence* is a word that says when a dependency of entries last changed; it is *raised* while a transaction commits a change. A
//! change of a key is *announced* while its transaction commits (`publishing.rs`). A *shard* is a part of the tier with a lock of
//! its own.

use super::Tier;
use super::entry::Entry;
use super::freeing::Unlinked;
use super::guard::Guard;
use super::header::{HIDDEN, Header, LINKED};
use super::shard::{AT_FREE, AT_VERSION, CHANGING, POISONED};
use crate::blocks::{Bitmap, Run};
use crate::fence::{Dependents, FenceId};
use crate::figures::Counter;
use crate::host::Host;
use crate::key::KEY_BYTES_MAX;
use crate::layout::{BLOCK_BYTES, Layout, Sizes};
use crate::region::{Region, RegionError};
use std::collections::TryReserveError;

/// The reason why a region cannot be used again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviveError {
    /// The header is not that of a region of this library.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The region was formatted with other sizes.
    #[error("the memory has other sizes")]
    OtherSizes,
    /// A process died during a change, or a part of the tier was switched off.
    #[error("a part of the memory was switched off")]
    Off,
    /// A structure is damaged.
    #[error("the memory is damaged: {0}")]
    Damaged(String),
    /// There is too little memory for the work.
    #[error("there is not enough memory to check it")]
    OutOfMemory,
}

impl From<TryReserveError> for ReviveError {
    fn from(_: TryReserveError) -> Self {
        Self::OutOfMemory
    }
}

fn damaged(what: &str) -> ReviveError {
    ReviveError::Damaged(what.into())
}

impl<'m, H: Host> Tier<'m, H> {
    /// Makes a copied region usable, and attaches to it. `raised` are fences that the caller is going to raise again, for changes
    /// that are still to come; their relations keep their records. No other process may use the region meanwhile. If this fails,
    /// the region must be formatted.
    ///
    /// `sizes.bytes` is ignored: the region's own size counts.
    pub fn revive(
        region: Region<'m>,
        sizes: Sizes,
        host: H,
        raised: impl IntoIterator<Item = FenceId>,
    ) -> Result<Self, ReviveError> {
        let layout = Layout::read(&region)?;
        let wanted = Layout::of(Sizes { bytes: region.bytes(), ..sizes })?;
        // A region knows its number of shards, so the layouts are equal only if both are computed from that number.
        if layout != Layout::of(Sizes { shards: wanted.shards, ..wanted.sizes })? {
            return Err(ReviveError::OtherSizes);
        }
        let tier = Self::new(region, layout, host, 0);
        let change = tier.fences().settle_all().ok_or_else(|| damaged("its clock of changes is wrong"))?;
        if let Some(finding) = tier.patterns().revive(change) {
            return Err(ReviveError::Damaged(finding));
        }
        tier.statistics.end_folds();
        tier.journal().revive();
        for shard in 0..tier.layout.shards {
            let guard = tier.locked(shard);
            if guard.get(AT_VERSION) & (CHANGING | POISONED) != 0 {
                return Err(ReviveError::Off);
            }
            guard.flights().end_all();
            tier.remove_announced(&guard)?;
        }
        let mut dependents = Dependents::none(&tier.fences())?;
        raised.into_iter().for_each(|fence| dependents.add(&tier.fences(), fence));
        tier.recount(&mut dependents)?;
        tier.fences().give_back_records(dependents, change);
        match tier.try_check()?.into_iter().next() {
            Some(finding) => Err(ReviveError::Damaged(finding)),
            None => Ok(tier),
        }
    }

    /// Returns whether a part of the region, in bytes from its start, must be copied. It need not be if it has only free blocks. No
    /// other process may use the region meanwhile.
    pub fn is_in_use(&self, part: std::ops::Range<usize>) -> bool {
        let blocks = part.start / BLOCK_BYTES..part.end.div_ceil(BLOCK_BYTES);
        let (Ok(first), Ok(end)) = (u32::try_from(blocks.start), u32::try_from(blocks.end)) else {
            return true;
        };
        if first < self.layout.first_block(0) {
            return true;
        }
        let run = Run { first, blocks: end.saturating_sub(first) };
        let shard_of = |block| self.layout.shard_of_block(block).min(self.layout.shards - 1);
        (shard_of(first)..=shard_of(end.saturating_sub(1)))
            .any(|shard| Bitmap::new(self.region, &self.layout, shard).has_used(run))
    }

    /// Removes the announcements of a shard with the present entries of their keys.
    fn remove_announced(&self, guard: &Guard<'_, H>) -> Result<(), ReviveError> {
        let buckets = if guard.hidden() == 0 { 0 } else { guard.buckets() };
        for bucket in 0..buckets {
            let mut entries = Vec::new();
            for entry in guard.in_bucket(bucket) {
                entries.try_reserve(1)?;
                entries.push(entry);
            }
            for announced in entries.iter().filter(|entry| entry.header().has(HIDDEN)) {
                let changed = announced.header();
                let is_present = |(entry, header): &(&Entry<'_>, Header)| {
                    header.has(LINKED)
                        && !header.has(HIDDEN)
                        && self.have_same_key((announced, &changed), (entry, header))
                };
                let mut present = entries.iter().map(|entry| (entry, entry.header())).filter(is_present);
                let present = present.next();
                guard.change(|| guard.unlink_hidden(announced));
                // A copy of the present value that was saved outside of the region is as uncertain.
                guard.forget_location(changed.hash());
                if let Some((entry, header)) = present {
                    let mut unlinked = Unlinked::default();
                    self.drop_entry(guard, entry, &header, Counter::Removed, &mut unlinked);
                    // The blocks of a spread entry need no release: `recount` finds all free blocks later.
                    unlinked.deltas.settle(&self.statistics);
                }
            }
        }
        Ok(())
    }

    /// Whether two entries have the same key in the same space and for the same role.
    fn have_same_key(&self, one: (&Entry<'_>, &Header), other: (&Entry<'_>, &Header)) -> bool {
        let key = |(entry, header): (&Entry<'_>, &Header)| {
            let mut bytes = [0; KEY_BYTES_MAX];
            let length = header.key_len().min(bytes.len());
            entry.copy(&self.layout, header, header.key_at(), &mut bytes[..length]);
            (header.hash(), header.space_id(), header.role(), length, bytes)
        };
        key(one) == key(other)
    }

    /// Finds the blocks of all entries, and the relations that they depend on. All other blocks become free. Corrects the counts of
    /// free blocks and of the blocks of each space.
    fn recount(&self, dependents: &mut Dependents) -> Result<(), ReviveError> {
        let (layout, fences) = (&self.layout, self.fences());
        let bitmap = |shard| Bitmap::new(self.region, layout, shard);
        let mut free = numbers(layout.shards, layout.blocks.into())?;
        let mut of_cells = numbers(layout.cells(), 0)?;
        (0..layout.shards).for_each(|shard| bitmap(shard).clear());
        // The cell of the space that was met last: mostly the next entry is in the same space.
        let mut last = (0, self.cell_of(0));
        for shard in 0..layout.shards {
            let guard = self.locked(shard);
            guard.prefetch_blocks();
            for entry in (0..guard.buckets()).flat_map(|bucket| guard.in_bucket(bucket)) {
                let header = entry.header();
                if header.space_id() != last.0 {
                    last = (header.space_id(), self.cell_of(header.space_id()));
                }
                for data in entry.runs(layout, &header) {
                    let owner = layout.shard_of_block(data.run.first);
                    if owner >= layout.shards || !bitmap(owner).take_exactly(data.run) {
                        return Err(damaged("two entries have the same block"));
                    }
                    free[owner as usize] -= u64::from(data.run.blocks);
                    of_cells[last.1 as usize] += u64::from(data.run.blocks);
                }
                for index in 0..header.dependency_count() {
                    dependents.add(&fences, entry.dependency(layout, &header, index));
                }
            }
        }
        for (shard, free) in (0..).zip(free) {
            self.locked(shard).set(AT_FREE, free);
        }
        for (cell, blocks) in (0..).zip(of_cells) {
            self.statistics.set_blocks(cell, blocks);
        }
        Ok(())
    }
}

/// Returns a list of `count` times the same value.
fn numbers(count: u32, value: u64) -> Result<Vec<u64>, TryReserveError> {
    let mut numbers = Vec::new();
    numbers.try_reserve_exact(count as usize)?;
    numbers.resize(count as usize, value);
    Ok(numbers)
}
