//! The runs of an entry: the rows of neighbouring blocks that its bytes lie in. `entry.rs` reads and `writer.rs` writes through
//! them.
//!
//! The bytes lie in one run if a run of that length is free. Otherwise the entry is *chained*: the last word of each run, its
//! *link*, has the first block and the length of the next run. So the tier can use scattered free space. The bytes of all runs in
//! order, without the links, are the *stream* of the entry.
//!
//! An entry may be dead while a reader walks through its runs, and its links may then lead anywhere. So every walk must end by
//! itself: after as many bytes as the header tells, or at a number that is no block.

use crate::blocks::Run;
use crate::layout::{BLOCK_BYTES, BLOCK_WORDS, Layout};
use crate::region::Region;
use crate::sync::AtomicU64;

/// The block number that means "no entry": block 0 lies in the region's header.
pub(crate) const NONE: u32 = 0;
/// The blocks of the shortest run: 64 bytes, room for a header and the link to the next run. No entry has fewer blocks.
pub(crate) const RUN_BLOCKS_MIN: u32 = 4;
/// The blocks of the longest run: its length must fit into 16 bits of the header.
pub(crate) const RUN_BLOCKS_MAX: u32 = u16::MAX as u32;

/// Returns how many blocks a run needs to hold this many bytes.
pub(crate) fn blocks_of(bytes: usize) -> u32 {
    // The cast cannot lose bits: even a length from the header of a dead entry is at most about 1 GB, that is, 2^26 blocks.
    bytes.div_ceil(BLOCK_BYTES) as u32
}

/// A run of an entry. If the entry is chained, the last word of the run is the link and holds no data.
#[derive(Clone, Copy)]
pub(crate) struct DataRun {
    /// The blocks.
    pub run: Run,
    /// Whether the last word is a link.
    chained: bool,
}

impl DataRun {
    /// Returns how many bytes of the stream fit into the run.
    pub(crate) fn byte_len(&self) -> usize {
        self.run.blocks as usize * BLOCK_BYTES - 8 * usize::from(self.chained)
    }

    /// Returns the words of the run that belong to the stream.
    #[inline]
    pub(crate) fn words<'m>(&self, region: Region<'m>, layout: &Layout) -> &'m [AtomicU64] {
        let words = self.run.blocks as usize * BLOCK_WORDS - usize::from(self.chained);
        region.slice_at(layout.block_at(self.run.first), words).unwrap_or(&[])
    }
}

/// Iterates over the runs of an entry. It ends when the runs hold all bytes of the entry, so a damaged chain never loops forever.
pub(crate) struct Runs<'m> {
    /// The shared memory.
    region: Region<'m>,
    /// The positions of all structures in the region.
    layout: &'m Layout,
    /// The next run.
    next: Run,
    /// Whether the entry has several runs.
    chained: bool,
    /// Bytes not yet covered by the runs returned so far.
    bytes: usize,
}

impl<'m> Runs<'m> {
    /// Walks through the runs from the first one on, until they hold `bytes` bytes. `chained` says whether each run ends with a
    /// link.
    pub(super) fn new(
        region: Region<'m>,
        layout: &'m Layout,
        first: Run,
        chained: bool,
        bytes: usize,
    ) -> Self {
        Self { region, layout, next: first, chained, bytes }
    }
}

impl Iterator for Runs<'_> {
    type Item = DataRun;

    #[inline]
    fn next(&mut self) -> Option<DataRun> {
        if self.bytes == 0
            || self.next.blocks == 0
            || self.layout.shard_of_block(self.next.first) == self.layout.shards
        {
            return None;
        }
        let run = self.next;
        let size = run.blocks as usize * BLOCK_BYTES;
        if self.chained {
            let link = self.region.load(link_at(self.layout, run));
            self.next = Run { first: (link >> 32) as u32, blocks: (link as u32).min(RUN_BLOCKS_MAX) };
            self.bytes = self.bytes.saturating_sub(size - 8);
        } else {
            self.bytes = 0;
        }
        Some(DataRun { run, chained: self.chained })
    }
}

/// Returns the position of a run's link, the word in which a run of a chained entry names the next run.
pub(crate) fn link_at(layout: &Layout, run: Run) -> usize {
    layout.block_at(run.first) + run.blocks as usize * BLOCK_WORDS - 1
}
