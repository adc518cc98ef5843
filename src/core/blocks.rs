//! Storage of a shard: blocks of 16 bytes, allocated in runs, with one bit for each block.
//!
//! A bit is set while its block is in use. The free space has no lists, so there is nothing to corrupt and nothing to merge: free
//! neighbours are one run. A search continues where the last one ended (next fit) and goes round. Entries are evicted in about the
//! order in which they came in, so free space opens up ahead of the search.
//!
//! Access: the bitmap is read and written only under the shard's lock, with one exception. While a lock is held, a block of a
//! linked entry of that shard always stays in use. So the holder may read the bit of such a block, even in another shard.

use crate::layout::Layout;
use crate::region::Region;

/// A run of consecutive blocks of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The first block of the run, by number within the region.
    pub first: u32,
    pub blocks: u32,
}

/// The bitmap of one shard.
#[derive(Clone, Copy)]
pub(crate) struct Bitmap<'m> {
    region: Region<'m>,
    at: usize,
    blocks: u32,
    /// The number of the shard's first block.
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

    /// Takes the next free run of at least `least` blocks at or after `cursor`, and at most `want` blocks of it. The search goes
    /// round once and looks at no more than about `effort` words of the bitmap. Also returns the cursor for the next search.
    pub(crate) fn take(&self, least: u32, want: u32, cursor: u32, effort: u32) -> (Option<Run>, u32) {
        let from = if cursor < self.blocks { cursor } else { 0 };
        let (mut at, mut left, mut wrapped) = (from, effort.saturating_mul(64), false);
        loop {
            let limit = self.blocks.min(at.saturating_add(left));
            let start = self.next(at, true, limit);
            let end = self.next(start, false, self.blocks.min(start.saturating_add(want)));
            if start < limit && end - start >= least {
                self.set(start, end - start, true);
                return (Some(Run { first: self.first + start, blocks: end - start }), end);
            }
            // Looking at a word for a few of its blocks costs as much as for all.
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

    /// Takes the largest free run around a block, with at most `want` blocks. Takes nothing if the run has fewer than `least`.
    ///
    /// This finds blocks that were freed a moment ago without a search.
    pub(crate) fn take_around(&self, block: u32, least: u32, want: u32) -> Option<Run> {
        let local = self.local(block)?;
        if self.in_use(local) {
            return None;
        }
        let start = self.free_since(local, local.saturating_sub(want));
        let end = self.next(start, false, self.blocks.min(start.saturating_add(want)));
        if end - start < least {
            return None;
        }
        self.set(start, end - start, true);
        Some(Run { first: self.first + start, blocks: end - start })
    }

    /// Gives blocks back. Returns false if one of them is already free or not in this shard; then no block is given back.
    pub(crate) fn give(&self, run: Run) -> bool {
        let Some(start) = self.local(run.first) else { return false };
        if run.blocks == 0
            || run.blocks > self.blocks - start
            || self.next(start, true, start + run.blocks) != start + run.blocks
        {
            return false;
        }
        self.set(start, run.blocks, false);
        true
    }

    /// Returns how many blocks are in use, counted one by one.
    pub(crate) fn count(&self) -> u32 {
        (0..self.blocks).filter(|block| self.in_use(*block)).count() as u32
    }

    /// Returns whether a block is in this shard and in use.
    pub(crate) fn holds(&self, block: u32) -> bool {
        self.local(block).is_some_and(|local| self.in_use(local))
    }

    fn local(&self, block: u32) -> Option<u32> {
        block.checked_sub(self.first).filter(|local| *local < self.blocks)
    }

    fn in_use(&self, local: u32) -> bool {
        self.region.load(self.at + (local / 64) as usize) >> (local % 64) & 1 == 1
    }

    /// Returns the first block in `from..end` that is free, or in use if `free` is false; `end` if there is none.
    fn next(&self, from: u32, free: bool, end: u32) -> u32 {
        let mut at = from;
        while at < end {
            let word = self.region.load(self.at + (at / 64) as usize);
            let wanted = if free { !word } else { word } >> (at % 64);
            if wanted != 0 {
                return (at + wanted.trailing_zeros()).min(end);
            }
            at += 64 - at % 64;
        }
        end
    }

    /// Returns the first of the consecutive free blocks that end with `local`, which must be free. Never looks before `least`.
    fn free_since(&self, local: u32, least: u32) -> u32 {
        let mut at = local;
        while at > least {
            // The bits of the blocks below `at` in one word, shifted to the top. The word is the one before if `at` is the first of
            // its word.
            let bits = (at - 1) % 64 + 1;
            let below = self.region.load(self.at + ((at - 1) / 64) as usize) << (64 - bits);
            let free = below.leading_zeros().min(bits);
            at -= free;
            if free < bits {
                break;
            }
        }
        at.max(least)
    }

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
