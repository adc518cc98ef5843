//! Storage of a shard: blocks of 16 bytes, handed out in runs, one bit for each.
//!
//! A bit is set while its block is in use. There are no lists in the free space, so there is nothing to corrupt
//! and nothing to merge: neighbours that are free are one run. The search goes round from where it ended
//! last (next fit). Entries are evicted in about the order they came in, so free space opens up ahead of the search.
//!
//! Access: under the shard's lock only. A block that belongs to a linked entry stays in use for as long as the lock of that entry's shard is
//! held, so a holder of that lock may ask for this one bit.

use crate::layout::Layout;
use crate::region::Region;

/// A run of consecutive blocks of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Its first block, by number within the region.
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

    /// Takes the next free run of at least `least` blocks at or after `cursor`, at most `want` of them, going round
    /// once and looking at no more than about `effort` words of the bitmap. Says where to go on the next time.
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
            // A word that was looked at for a few blocks costs as much as for all.
            left = left.saturating_sub((end - at).max(64));
            at = end;
            if at >= self.blocks {
                if wrapped {
                    return (None, 0);
                }
                (wrapped, at) = (true, 0);
            } else if wrapped && at > from {
                // A run may begin before `from` and end behind it, so this is after one past it was looked at.
                return (None, at);
            }
            if left == 0 {
                return (None, at);
            }
        }
    }

    /// The largest free run around a block, which has at most `want` blocks, taken if it has at least `least`.
    ///
    /// Room that was just made is found here without a search.
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

    /// Gives blocks back. False if one of them was free or is none of this shard: then none is given back.
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

    /// How many blocks are in use, counted one by one.
    pub(crate) fn count(&self) -> u32 {
        (0..self.blocks).filter(|block| self.in_use(*block)).count() as u32
    }

    /// Whether a block of this shard is in use.
    pub(crate) fn holds(&self, block: u32) -> bool {
        self.local(block).is_some_and(|local| self.in_use(local))
    }

    fn local(&self, block: u32) -> Option<u32> {
        block.checked_sub(self.first).filter(|local| *local < self.blocks)
    }

    fn in_use(&self, local: u32) -> bool {
        self.region.load(self.at + (local / 64) as usize) >> (local % 64) & 1 == 1
    }

    /// The first block in `from..end` that is free, or in use; `end` if there is none.
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

    /// The first of the free blocks that end with this one, which is free; none before `least`.
    fn free_since(&self, local: u32, least: u32) -> u32 {
        let mut at = local;
        while at > least {
            // The bits below `at` in its word, or in the word before if it is the first there, moved to the top.
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
