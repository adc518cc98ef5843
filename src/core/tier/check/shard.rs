//! Checks one shard, a part of the tier with a lock of its own: its entries, its eviction queues, its flights and its directory.
//! The caller holds the lock of the shard, so all findings here are certain (`check/mod.rs`).
//!
//! An entry is *linked* while it is in the chain of its hash bucket. A *hidden* entry is an announced change, which hides the value
//! of its key until the change is confirmed (`publishing.rs`); it is in no queue. A *run* is a row of neighbouring blocks.

use super::blocks::{AllBlocks, Blocks, ShardBlocks};
use super::findings::FINDINGS_PER_SHARD;
use super::spaces::WalkedSpaces;
use crate::blocks::Bitmap;
use crate::host::Host;
use crate::tier::Tier;
use crate::tier::entry::Entry;
use crate::tier::guard::Guard;
use crate::tier::header::{HIDDEN, Header, IN_MAIN, LINKED};
use crate::tier::streak::Queue;
use std::collections::TryReserveError;

/// Checks a shard, whose lock the caller holds. Adds its blocks to `owned` and its entries to `walked`. Ends early when there are
/// enough complaints.
pub(super) fn check_shard<H: Host>(
    guard: &Guard<'_, H>,
    tier: &Tier<'_, H>,
    owned: &mut AllBlocks,
    walked: &mut WalkedSpaces,
    complaints: &mut Vec<String>,
) -> Result<(), TryReserveError> {
    let mut walk = ShardWalk {
        guard,
        tier,
        owned,
        walked,
        complaints,
        mine: ShardBlocks::of_shard(&tier.layout, guard.index())?,
        linked: Blocks::default(),
        hidden: 0,
        queued: [0; 2],
    };
    guard.prefetch_blocks();
    for bucket in 0..guard.buckets() {
        if !walk.check_bucket(bucket)? {
            return Ok(());
        }
    }
    walk.check_counts();
    walk.complaints.extend(guard.flights().complaints(FINDINGS_PER_SHARD));
    walk.complaints.extend(guard.directory_complaints(FINDINGS_PER_SHARD));
    for queue in [Queue::Small, Queue::Main] {
        check_queue(guard, queue, &walk.linked, walk.queued[queue as usize], walk.complaints)?;
    }
    Ok(())
}

/// The walk through the entries of a shard.
struct ShardWalk<'w, H: Host> {
    /// The shard, whose lock is held.
    guard: &'w Guard<'w, H>,
    /// The tier.
    tier: &'w Tier<'w, H>,
    /// The blocks of the entries of all shards so far.
    owned: &'w mut AllBlocks,
    /// The figures of the spaces so far.
    walked: &'w mut WalkedSpaces,
    /// The errors that were found.
    complaints: &'w mut Vec<String>,
    /// The blocks of this shard's entries.
    mine: ShardBlocks,
    /// The first blocks of all entries that buckets lead to.
    linked: Blocks,
    /// The number of hidden entries: announced changes.
    hidden: u64,
    /// The blocks of the entries of each queue.
    queued: [u64; 2],
}

impl<H: Host> ShardWalk<'_, H> {
    /// Checks the entries of a bucket. Returns false when there are enough complaints.
    fn check_bucket(&mut self, bucket: u32) -> Result<bool, TryReserveError> {
        let guard = self.guard;
        for entry in guard.in_bucket(bucket) {
            let header = entry.header();
            if self.complaints.len() >= FINDINGS_PER_SHARD {
                return Ok(false);
            }
            self.linked.try_reserve(1)?;
            if !self.linked.insert(entry.block) {
                self.complaints.push(format!("bucket {bucket} leads to block {} twice", entry.block));
                break;
            }
            if !header.has(LINKED) || header.key_len() == 0 {
                self.complaints
                    .push(format!("bucket {bucket} leads to block {}, which is no entry", entry.block));
                break;
            }
            if guard.bucket_of(header.hash()) != bucket {
                self.complaints.push(format!("the entry in block {} is in the wrong bucket", entry.block));
            }
            if header.has(HIDDEN) {
                self.hidden += 1;
            } else {
                self.queued[usize::from(header.has(IN_MAIN))] += u64::from(header.blocks());
            }
            self.check_runs(&entry, &header)?;
        }
        Ok(true)
    }

    /// Checks that the blocks of an entry are in use, and that no other entry has them.
    fn check_runs(&mut self, entry: &Entry<'_>, header: &Header) -> Result<(), TryReserveError> {
        let layout = &self.tier.layout;
        self.walked.try_reserve(1)?;
        let space = self.walked.entry(header.space_id()).or_default();
        space.entries += u64::from(!header.has(HIDDEN));
        let mut bytes = 0;
        'runs: for data in entry.runs(layout, header) {
            bytes += data.byte_len();
            space.blocks += u64::from(data.run.blocks);
            if data.run.blocks > layout.blocks {
                self.complaints.push(format!("the entry in block {} is larger than the shard", entry.block));
                break;
            }
            let owner = layout.shard_of_block(data.run.first);
            let are_in_use =
                owner < layout.shards && Bitmap::new(self.tier.region, layout, owner).are_in_use(data.run);
            if are_in_use && self.mine.add_own(data.run, layout) {
                self.owned.add(data.run);
                continue;
            }
            // The slow way finds the block that is not in order, or blocks of another shard.
            for block in data.run.first..data.run.first.saturating_add(data.run.blocks) {
                if !self.mine.add(block, layout)? {
                    self.complaints.push(format!("block {block} belongs to two entries"));
                    // The chain of runs may be a cycle.
                    break 'runs;
                }
                let shard = layout.shard_of_block(block);
                if shard >= layout.shards || !Bitmap::new(self.tier.region, layout, shard).is_in_use(block) {
                    self.complaints.push(format!("block {block} belongs to an entry and is free"));
                    break 'runs;
                }
            }
            self.owned.add(data.run);
        }
        if bytes < header.byte_len() {
            let (block, wanted) = (entry.block, header.byte_len());
            self.complaints.push(format!("the entry in block {block} has {bytes} of its {wanted} bytes"));
        }
        Ok(())
    }

    /// Compares the numbers of entries and of hidden entries with the counts of the shard.
    fn check_counts(&mut self) {
        let (entries, hidden) = (self.guard.entries(), self.guard.hidden());
        if self.linked.len() as u64 != entries.wrapping_add(hidden) || self.hidden != hidden {
            self.complaints.push(format!(
                "{} entries are linked, {} of them hidden; {entries} and {hidden} are counted",
                self.linked.len(),
                self.hidden,
            ));
        }
    }
}

/// Walks through a queue of a shard from its oldest entry. `linked` has the first blocks of all entries of the shard, and `blocks`
/// is the number of blocks that the entries of the queue have.
fn check_queue<H: Host>(
    guard: &Guard<'_, H>,
    queue: Queue,
    linked: &Blocks,
    blocks: u64,
    complaints: &mut Vec<String>,
) -> Result<(), TryReserveError> {
    if guard.queued(queue) != blocks {
        complaints.push(format!(
            "the {queue:?} queue counts {} blocks, its entries have {blocks}",
            guard.queued(queue)
        ));
    }
    let mut seen = Blocks::default();
    let mut older = 0;
    let mut next: Option<Entry<'_>> = guard.oldest(queue);
    while let Some(entry) = next.filter(|_| complaints.len() < FINDINGS_PER_SHARD) {
        seen.try_reserve(1)?;
        if !linked.contains(&entry.block) || !seen.insert(entry.block) {
            complaints.push(format!(
                "the {queue:?} queue leads to block {}, which does not belong there",
                entry.block
            ));
            return Ok(());
        }
        if entry.older() != older {
            complaints.push(format!(
                "block {} does not know the one before it in the {queue:?} queue",
                entry.block
            ));
        }
        older = entry.block;
        next = (entry.newer() != 0).then(|| guard.entry(entry.newer()));
    }
    Ok(())
}

#[cfg(all(test, not(any(loom, counting))))]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::layout::Sizes;
    use crate::region::Region;
    use crate::testing::{SIZES, TestHost, memory, value};
    use crate::tier::header::CHAINED;
    use crate::tier::runs::{RUN_BLOCKS_MIN, link_at};

    /// Damage may turn the chain of an entry's runs into a cycle. The check must end after the first turn and report it once. If it
    /// followed the cycle, it would report each block again. The damaged length does not fit the counts of the shard either, so
    /// there are a few more complaints.
    #[test]
    fn an_entry_whose_runs_go_round_is_complained_of_once() {
        let memory = memory(1024 * 1024);
        let host = TestHost::default();
        let sizes = Sizes { shards: 1, ..SIZES };
        let tier = Tier::format(Region::of_words(&memory), sizes, &host, 0).expect("it fits");
        let key = Key::new(tier.scope(1, 1, 0), b"key", 1).expect("a legal key");
        tier.put(&key, &value(b"value", &[])).expect("it is stored");
        let guard = tier.shard_of(&key).lock(&tier.host);
        let (entry, header) = guard.find(&key).expect("it was just stored");
        // Makes the entry as long as possible, with a chain of runs in which each run is the first one again.
        entry.set_flag(CHAINED, true);
        entry.set_word(3, header.words[3] | u64::from(u32::MAX));
        entry.set_word(6, header.words[6] | u64::from(RUN_BLOCKS_MIN));
        let run = crate::blocks::Run { first: entry.block, blocks: RUN_BLOCKS_MIN };
        tier.region.store(link_at(&tier.layout, run), u64::from(run.first) << 32 | u64::from(run.blocks));
        let mut complaints = Vec::new();
        let mut walked = WalkedSpaces::default();
        let mut owned = AllBlocks::of(&tier.layout).expect("there is memory");
        check_shard(&guard, &tier, &mut owned, &mut walked, &mut complaints).expect("there is memory");
        assert!((1..10).contains(&complaints.len()), "{} complaints", complaints.len());
    }
}
