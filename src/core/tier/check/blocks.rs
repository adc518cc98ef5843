//! The blocks of entries, as a check finds them: whether two entries have the same block. `check/shard.rs` adds the blocks of each
//! entry that it passes, and `check/mod.rs` asks for the blocks that entries of two shards seem to share.
//!
//! A *run* is a row of neighbouring blocks (`tier/runs.rs`). A *zone* is 64 KB of blocks with a version that moves when an entry
//! that begins in it dies (`tier/shard.rs`).
//!
//! A *shard* is a part of the tier, the cache, with a lock and blocks of its own. An entry is *linked* while it is in the chain of
//! its hash bucket.

use super::findings::FINDINGS;
use crate::blocks::Run;
use crate::hash::scatter;
use crate::host::Host;
use crate::layout::Layout;
use crate::sync::{Ordering, fence};
use crate::tier::Tier;
use crate::tier::entry::Entry;
use crate::tier::shard::Shard;
use std::collections::{HashMap, HashSet, TryReserveError};
use std::hash::BuildHasherDefault;

/// A set of consecutive blocks, with a bit for each.
struct BlockSet {
    /// The number of the first block.
    first: u32,
    /// A bit for each block, 1 if the block is in the set.
    bits: Vec<u64>,
}

impl BlockSet {
    fn of(first: u32, blocks: u64) -> Result<Self, TryReserveError> {
        let words = blocks.div_ceil(64) as usize;
        let mut bits = Vec::new();
        bits.try_reserve_exact(words)?;
        bits.resize(words, 0);
        Ok(Self { first, bits })
    }

    /// Adds a run. If a block of it is in the set already, returns false and adds nothing. Blocks that the set has no bit for are
    /// left out.
    fn add(&mut self, run: Run) -> bool {
        if self.words_of(run).any(|(word, mask)| self.bits[word] & mask != 0) {
            return false;
        }
        self.words_of(run).for_each(|(word, mask)| self.bits[word] |= mask);
        true
    }

    /// Returns the words that have the bits of a run, with a mask of these bits for each.
    fn words_of(&self, run: Run) -> impl Iterator<Item = (usize, u64)> + use<> {
        let words = self.bits.len();
        let (mut index, mut left) = (run.first.wrapping_sub(self.first), run.blocks);
        std::iter::from_fn(move || {
            let word = (index / 64) as usize;
            let span = (64 - index % 64).min(left);
            if span == 0 || word >= words {
                return None;
            }
            let mask = u64::MAX >> (64 - span) << (index % 64);
            (index, left) = (index.wrapping_add(span), left - span);
            Some((word, mask))
        })
    }
}

/// A fast hash of the number of a block or a space. No caller can choose these numbers.
#[derive(Default)]
pub(super) struct NumberHasher(u64);

impl std::hash::Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32((*byte).into());
        }
    }
    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = scatter(self.0 ^ number);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// A set of the numbers of blocks.
pub(super) type Blocks = HashSet<u32, BuildHasherDefault<NumberHasher>>;

/// The blocks of all entries that a walk has passed.
pub(super) struct AllBlocks {
    /// The blocks.
    all: BlockSet,
    /// Blocks that were found in entries of different shards, perhaps of one entry after the other.
    pub twice: HashSet<u32>,
}

impl AllBlocks {
    pub(super) fn of(layout: &Layout) -> Result<Self, TryReserveError> {
        Ok(Self { all: BlockSet::of(layout.first_block(0), layout.blocks_total())?, twice: HashSet::new() })
    }

    /// Adds a run of an entry. Blocks that another entry has already are added to `twice`.
    pub(super) fn add(&mut self, run: Run) {
        if self.all.add(run) {
            return;
        }
        for block in run.first..run.first.saturating_add(run.blocks) {
            if !self.all.add(Run { first: block, blocks: 1 }) && self.twice.len() < FINDINGS {
                self.twice.insert(block);
            }
        }
    }
}

/// The blocks of one shard's entries. Most of them are blocks of that shard, too.
pub(super) struct ShardBlocks {
    /// The blocks of this shard.
    own: BlockSet,
    /// The blocks of other shards.
    others: Blocks,
}

impl ShardBlocks {
    /// Makes the empty set for the entries of a shard.
    pub(super) fn of_shard(layout: &Layout, shard: u32) -> Result<Self, TryReserveError> {
        let own = BlockSet::of(layout.first_block(shard), layout.blocks.into())?;
        Ok(Self { own, others: Blocks::default() })
    }

    /// Adds a block. Returns false if it was there already.
    pub(super) fn add(&mut self, block: u32, layout: &Layout) -> Result<bool, TryReserveError> {
        let run = Run { first: block, blocks: 1 };
        if self.covers(run, layout) {
            return Ok(self.own.add(run));
        }
        self.others.try_reserve(1)?;
        Ok(self.others.insert(block))
    }

    /// Adds a run of the shard's own blocks. If one of them was there already, or is another shard's, returns false and adds
    /// nothing.
    pub(super) fn add_own(&mut self, run: Run, layout: &Layout) -> bool {
        self.covers(run, layout) && self.own.add(run)
    }

    /// Whether all blocks of a run are the shard's own.
    fn covers(&self, run: Run, layout: &Layout) -> bool {
        let index = run.first.wrapping_sub(self.own.first);
        index < layout.blocks && run.blocks <= layout.blocks - index
    }
}

/// Returns findings for those of the suspect blocks that belong to two entries at the same time. The caller must not hold a lock.
///
/// A walk that finds a block in entries of two shards may have seen the first entry before it died, and the second entry after it
/// reused the block. So this walk notes the version of the first entry's zone, as a reader does. If the version is the same when
/// the walk finds the second entry, the first entry was still alive when the second was linked.
pub(super) fn shared_blocks<H: Host>(tier: &Tier<'_, H>, suspects: &HashSet<u32>) -> Vec<String> {
    let (region, layout) = (tier.region, &tier.layout);
    let mut findings = Vec::new();
    if suspects.is_empty() {
        return findings;
    }
    let mut owners: HashMap<u32, (usize, u64)> = HashMap::new();
    for shard in 0..layout.shards {
        let guard = Shard::new(region, layout, shard).lock(&tier.host);
        if guard.poisoned() {
            continue;
        }
        for entry in (0..guard.buckets()).flat_map(|bucket| guard.in_bucket(bucket)) {
            let zone = layout.zone_at(entry.block);
            for block in blocks_of(&entry, layout).filter(|block| suspects.contains(block)) {
                fence(Ordering::Acquire);
                let is_alive = |(zone, moved): &(usize, u64)| region.load(*zone) == *moved;
                if findings.len() < FINDINGS && owners.get(&block).is_some_and(is_alive) {
                    findings.push(format!("block {block} belongs to two entries"));
                }
                owners.insert(block, (zone, region.word(zone).load(Ordering::Acquire)));
            }
        }
    }
    findings
}

/// Returns the blocks of an entry, up to the first run that is longer than a shard.
fn blocks_of<'m>(entry: &Entry<'m>, layout: &'m Layout) -> impl Iterator<Item = u32> + use<'m> {
    let runs = entry.runs(layout, &entry.header()).map(|data| data.run);
    let runs = runs.take_while(|run| run.blocks <= layout.blocks);
    runs.flat_map(|run| run.first..run.first.saturating_add(run.blocks))
}
