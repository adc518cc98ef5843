//! Storage of a shard: blocks of 16 bytes, allocated in *runs* of neighbouring blocks, with one bit for each block. A *shard* is a
//! part of the tier (the cache) with a lock of its own. The *region* is the shared memory of the tier, as words of 64 bits.
//!
//! A bit is set while its block is in use. There are no lists of free blocks that could be corrupted, and freed blocks need no
//! merging: free blocks that are neighbours form one run. A search starts where the last search ended (next fit) and wraps around
//! at the end. Entries are evicted in about the order in which they were stored, so free space opens up ahead of the search.
//!
//! Access: while other processes use the region, the bitmap must only be read and written under the shard's lock, with one
//! exception. A *spread* entry may have blocks in other shards than the shard of its key. The holder of the lock of the key's shard
//! may also read the bits of these blocks. The lock keeps the entry in its hash bucket (*linked*), so its blocks stay in use.

use crate::layout::Layout;
use crate::region::Region;

/// A run of consecutive blocks of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The first block of the run. Blocks are numbered from the start of the region.
    pub first: u32,
    /// The number of blocks of the run.
    pub blocks: u32,
}

/// The bitmap of one shard.
#[derive(Clone, Copy)]
pub(crate) struct Bitmap<'m> {
    region: Region<'m>,
    /// The position of the bitmap's first word in the region.
    at: usize,
    /// The number of blocks in the shard.
    blocks: u32,
    /// The number of the shard's first block in the region.
    first: u32,
}

impl<'m> Bitmap<'m> {
    pub(crate) fn new(region: Region<'m>, layout: &Layout, shard: u32) -> Self {
        Self {
            region,
            at: layout.shard_at(shard) + layout.bitmap_at,
            blocks: layout.blocks,
            first: layout.first_block(shard),
        }
    }

    /// Takes the next free run of at least `least` blocks at or after `cursor`, and at most `want` blocks of it. `least` must be 1
    /// to `want`. The search wraps around at most once and looks at no more than about `effort` words of the bitmap. Returns the
    /// run, or None if the search found no such run, and the cursor for the next search. The cursor counts from the shard's first
    /// block.
    pub(crate) fn take(&self, least: u32, want: u32, cursor: u32, effort: u32) -> (Option<Run>, u32) {
        let from = if cursor < self.blocks { cursor } else { 0 };
        let (mut at, mut left, mut wrapped) = (from, effort.saturating_mul(64), false);
        loop {
            let limit = self.blocks.min(at.saturating_add(left));
            let start = self.next_free(at, limit);
            // If no block before the limit is free, `end` must be the limit, and not the end of a free run that begins there.
            // Otherwise the cursor would skip that run.
            let want = if start < limit { want } else { 0 };
            let end = self.next_used(start, self.blocks.min(start.saturating_add(want)));
            if start < limit && end - start >= least {
                self.set(start, end - start, true);
                return (Some(Run { first: self.first + start, blocks: end - start }), end);
            }
            // A search within a word costs as much as a search of all its 64 blocks, so it uses up 64 blocks of the limit.
            left = left.saturating_sub((end - at).max(64));
            at = end;
            if at >= self.blocks {
                if wrapped {
                    return (None, 0);
                }
                (wrapped, at) = (true, 0);
            } else if wrapped && at > from {
                // A run may begin before `from` and end after it. So the search stops only after it has passed such a run.
                return (None, at);
            }
            if left == 0 {
                return (None, at);
            }
        }
    }

    /// Takes at most `want` blocks of the free run around a block. The search for the start of the run goes back at most `want`
    /// blocks. Returns None and takes nothing if the block is in use or in another shard, or if fewer than `least` blocks are free
    /// from that start on.
    ///
    /// This finds blocks that were freed a moment ago, without a search.
    pub(crate) fn take_around(&self, block: u32, least: u32, want: u32) -> Option<Run> {
        let local = self.local(block)?;
        if self.is_set(local) {
            return None;
        }
        let start = self.start_of_free_run(local, local.saturating_sub(want));
        let end = self.next_used(start, self.blocks.min(start.saturating_add(want)));
        if end - start < least {
            return None;
        }
        self.set(start, end - start, true);
        Some(Run { first: self.first + start, blocks: end - start })
    }

    /// Gives blocks back. If the run is empty, or one of its blocks is already free or not in this shard, returns false and gives
    /// no block back.
    pub(crate) fn give(&self, run: Run) -> bool {
        let Some(start) = self.local(run.first) else { return false };
        if run.blocks == 0
            || run.blocks > self.blocks - start
            || self.next_free(start, start + run.blocks) != start + run.blocks
        {
            return false;
        }
        self.set(start, run.blocks, false);
        true
    }

    /// Gives all blocks back.
    pub(crate) fn clear(&self) {
        self.set(0, self.blocks, false);
    }

    /// Takes exactly these blocks. If the run is empty, or one of its blocks is already in use or not in this shard, returns false
    /// and takes no block.
    pub(crate) fn take_exactly(&self, run: Run) -> bool {
        let Some(start) = self.local(run.first) else { return false };
        if run.blocks == 0
            || run.blocks > self.blocks - start
            || self.next_used(start, start + run.blocks) != start + run.blocks
        {
            return false;
        }
        self.set(start, run.blocks, true);
        true
    }

    /// Returns whether any of these blocks is in use. Blocks of other shards do not count.
    pub(crate) fn has_used(&self, run: Run) -> bool {
        let start = run.first.saturating_sub(self.first).min(self.blocks);
        let end = run.first.saturating_add(run.blocks).saturating_sub(self.first).min(self.blocks);
        self.next_used(start, end) < end
    }

    /// Returns whether all blocks of a run are in this shard and in use.
    pub(crate) fn are_in_use(&self, run: Run) -> bool {
        self.local(run.first).is_some_and(|start| {
            run.blocks <= self.blocks - start
                && self.next_free(start, start + run.blocks) == start + run.blocks
        })
    }

    /// Returns how many blocks are in use. It looks at all words of the bitmap, so this is only for checks.
    pub(crate) fn count(&self) -> u32 {
        let in_word = |at: u32| {
            // The last word may have more bits than the shard has blocks left.
            let unused = 64 - (self.blocks - at).min(64);
            (self.region.load(self.at + (at / 64) as usize) << unused).count_ones()
        };
        (0..self.blocks).step_by(64).map(in_word).sum()
    }

    /// Returns whether a block is in this shard and in use.
    pub(crate) fn is_in_use(&self, block: u32) -> bool {
        self.local(block).is_some_and(|local| self.is_set(local))
    }

    /// Converts the number of a block in the region to its number in the shard. Returns None if the block is in another shard.
    fn local(&self, block: u32) -> Option<u32> {
        block.checked_sub(self.first).filter(|local| *local < self.blocks)
    }

    fn is_set(&self, local: u32) -> bool {
        self.region.load(self.at + (local / 64) as usize) >> (local % 64) & 1 == 1
    }

    /// Returns the first block in `from..end` that is free, or `end` if there is none.
    fn next_free(&self, from: u32, end: u32) -> u32 {
        self.next(from, end, |word| !word)
    }

    /// Returns the first block in `from..end` that is in use, or `end` if there is none.
    fn next_used(&self, from: u32, end: u32) -> u32 {
        self.next(from, end, |word| word)
    }

    /// Returns the first block in `from..end` whose bit is set after `wanted` has converted the word of the bitmap, or `end` if
    /// there is none.
    fn next(&self, from: u32, end: u32, wanted: impl Fn(u64) -> u64) -> u32 {
        let mut at = from;
        while at < end {
            let word = self.region.load(self.at + (at / 64) as usize);
            let rest = wanted(word) >> (at % 64);
            if rest != 0 {
                return (at + rest.trailing_zeros()).min(end);
            }
            at += 64 - at % 64;
        }
        end
    }

    /// Returns the first block of the free run that ends with `block`, which must be free. Never returns a block before
    /// `lower_bound`.
    fn start_of_free_run(&self, block: u32, lower_bound: u32) -> u32 {
        let mut at = block;
        while at > lower_bound {
            // Shifts the bits of the blocks just below `at` to the top of the word, so that leading zeros count free blocks. If
            // `at` is the first block of its word, these bits are in the word before it.
            let bits = (at - 1) % 64 + 1;
            let below = self.region.load(self.at + ((at - 1) / 64) as usize) << (64 - bits);
            let free = below.leading_zeros().min(bits);
            at -= free;
            if free < bits {
                break;
            }
        }
        at.max(lower_bound)
    }

    /// Writes the bits of `blocks` blocks from block `start` of the shard on. All of them must be in the shard.
    fn set(&self, start: u32, blocks: u32, used: bool) {
        let (mut at, end) = (start, start + blocks);
        while at < end {
            let word_at = self.at + (at / 64) as usize;
            let span = (64 - at % 64).min(end - at);
            let mask = (u64::MAX >> (64 - span)) << (at % 64);
            let old = self.region.load(word_at);
            self.region.store(word_at, if used { old | mask } else { old & !mask });
            at += span;
        }
    }
}

#[cfg(all(test, not(any(loom, counting))))]
mod tests {
    use super::*;
    use crate::layout::Sizes;
    use crate::testing::{SIZES, memory};

    /// If the cursor went beyond the limit, later searches would pass free blocks. If it stayed behind, they would search the same
    /// words again.
    #[test]
    fn a_search_that_reaches_its_limit_leaves_the_cursor_at_the_limit() {
        let memory = memory(64 * 1024);
        let sizes = Sizes { bytes: memory.len() * 8, shards: 1, ..SIZES };
        let layout = Layout::of(sizes).expect("it is large enough");
        let region = Region::of_words(&memory);
        layout.format(&region);
        let bitmap = Bitmap::new(region, &layout, 0);
        assert_eq!(bitmap.take(1, 8, 0, 0), (None, 0), "no word may be searched");
        let first = layout.first_block(0);
        assert_eq!(bitmap.take(64, 64, 0, 1), (Some(Run { first, blocks: 64 }), 64));
        assert_eq!(bitmap.take(1, 8, 0, 1), (None, 64), "all blocks of the word are in use");
        assert_eq!(bitmap.take(1, 8, 64, 1), (Some(Run { first: first + 64, blocks: 8 }), 72));
    }
}
