//! The positions of all structures in the region, the shared memory of the tier (the cache) as words of 64 bits. The files that use
//! the region find their words through a [`Layout`].
//!
//! ```text
//! header   magic, layout version, sizes; the clock of changes (`fence/mod.rs`) on a line of its own
//! fences   reserved | relations | unclaimed (a line each) | tags  see fence/
//! slots    statistics: a slot for each backend                   see figures/statistics.rs
//! cells    statistics: a cell for each space                     see figures/statistics.rs
//! segments what the saver notes of its segments                  see segments.rs
//! journal  what has changed, by name                             see journal/
//! patterns which keys were invalidated by a pattern              see patterns/
//! zones    versions by which a reader learns that an entry died  see tier/shard.rs
//! visited  one bit for each entry: has a reader asked for it?    see tier/shard.rs
//! shards   control | flights | buckets | ghosts | bitmap | directory   see tier/shard.rs, tier/directory.rs
//! blocks   of the first shard, of the second one, ...            see tier/entry.rs
//! ```
//!
//! A *shard* is a part of the tier with a lock of its own. A *fence* is a word that says when a dependency of entries last changed.
//! A *space* is a set of keys in one database. A *record* is the place of one thing in a table of fixed size, for instance of the
//! fences of a relation. The listed files explain the other words.
//!
//! Blocks are numbered from the start of the region. So a block's number gives the position of its words, in every shard. Block 0
//! lies in the header and never belongs to an entry.
//!
//! The layout is a function of the [`Sizes`] alone. The header stores the sizes. A backend that attaches computes the layout from
//! them and keeps its own copy, so that later damage to the region cannot move anything.
//!
//! Rules for a new part:
//! - Each part begins on a cache line (`line_up`), so that writers of a part do not disturb readers of its neighbours. `lines.rs`
//!   tests some of them.
//! - Its words must be added in [`Layout::of`] and, if it lies before the zones, in [`Layout::words_before_zones`] in the same way:
//!   both compute the position of the zones.
//! - A new field of [`Sizes`] also needs a word of the header, in [`Layout::format`] and in [`Layout::read`].
//! - It changes [`VERSION`], and belongs in the maps above and in `lib.rs`.

use crate::location::SEGMENTS_MAX;
use crate::region::{Region, RegionError};
use crate::sync::Ordering;

/// The version of the layout. It must change whenever the meaning of a word changes. `tests/faults.rs` repeats the number.
pub(crate) const VERSION: u64 = 13;

/// "pgcache" and a NUL byte, in the byte order of the machine that formatted the region.
const MAGIC: u64 = u64::from_ne_bytes(*b"pgcache\0");

/// The words of a cache line.
pub(crate) const LINE: usize = 8;

// The last word of the first line is the sink (`Region::SINK`), which accesses outside the region use. It must have no other
// meaning.
const HEADER_WORDS: usize = 3 * LINE;
const AT_MAGIC: usize = 0;
const AT_VERSION: usize = 1;
const AT_WORDS: usize = 2;
const AT_RESERVED: usize = 3;
const AT_RELATIONS: usize = 4;
const AT_TAGS: usize = 5;
const AT_BACKENDS: usize = 6;
const AT_SHARDS: usize = LINE;
const AT_SWEEP: usize = LINE + 1;
/// How many folds of rows of statistics have begun, and how many have ended (`figures/statistics.rs`).
pub(crate) const AT_FOLDS_BEGUN: usize = LINE + 2;
pub(crate) const AT_FOLDS_ENDED: usize = LINE + 3;
/// Grows whenever an entry depends on a relation whose record is not settled: see `fence/mod.rs`.
pub(crate) const AT_CLAIMS: usize = LINE + 4;
const AT_LOCATIONS: usize = LINE + 5;
const AT_JOURNAL: usize = LINE + 6;
const AT_PATTERNS: usize = LINE + 7;
/// The clock of changes. Every committing writer moves it, so no word that readers need may be on its line.
pub(crate) const AT_NOW: usize = 2 * LINE;

/// The bytes of a block, the unit of storage. With 16, the 32-bit number of a block reaches 64 GB.
pub const BLOCK_BYTES: usize = 16;
/// The words of a block.
pub(crate) const BLOCK_WORDS: usize = BLOCK_BYTES / 8;
/// The blocks of a cache line.
const LINE_BLOCKS: usize = LINE / BLOCK_WORDS;
/// The number of blocks that share a version: 64 KB.
const ZONE_BLOCKS: u32 = 4096;
/// The number of blocks that share a visited bit. An entry has at least as many blocks, so each entry has a bit of its own.
const VISITED_BLOCKS: u32 = 4;
/// There is one bucket for this many bytes of blocks.
const BYTES_PER_BUCKET: usize = 256;
/// There is one ghost, the memory of an eviction, for this many bytes of blocks.
const BYTES_PER_GHOST: usize = 512;
/// The intended bytes of a shard. If `Sizes::shards` is 0, a region has at most [`SHARDS_MAX`] shards, so the shards of a region
/// above 2 GB are larger.
const SHARD_BYTES: usize = 2 << 20;
const SHARDS_MAX: usize = 1024;
/// The smallest useful shard: a few entries. Tests use it to reach every corner case. Models of interleavings (`--cfg loom`) take
/// each step in every order, so they must do with less.
const SHARD_BLOCKS_MIN: usize = if cfg!(loom) { 48 } else { 128 };

/// A reserved fence, that of a database, a space and the like (`fence/reserved.rs`), has a cache line of its own, with an identity,
/// the fence, and the pattern fence of a space.
pub(crate) const RESERVED_WORDS: usize = LINE;
/// The words of the head of a slot for a pattern, and the words for the bytes of the pattern.
pub(crate) const PATTERN_HEAD_WORDS: usize = 4;
pub(crate) const PATTERN_WORDS: usize = 128;
/// A relation has a record on a cache line of its own. Its first word is the identity of the relation.
pub(crate) const RELATION_WORDS: usize = LINE;
/// 1 if other relations share the record.
pub(crate) const AT_SHARED: usize = 1;
/// The fence that every write raises.
pub(crate) const AT_ANY: usize = 2;
/// The fence that only writes in bulk raise, see `RelationFence::Bulk`.
pub(crate) const AT_BULK: usize = 3;
/// How many transactions have changed the relation.
pub(crate) const AT_CHANGES: usize = 4;
/// The tick of the last change.
pub(crate) const AT_LAST: usize = 5;
/// How many entries the changes have killed, that is, made invalid (`figures/relation_stats.rs`).
pub(crate) const AT_KILLED: usize = 6;
/// Flags: [`SETTLED`], [`WATCHED`], [`BULK`] and [`BULK_SETTLED`].
pub(crate) const AT_STATE: usize = 7;
/// The record is settled: see `fence/mod.rs`.
pub(crate) const SETTLED: u64 = 1;
/// Changes of the relation are named in the journal: see `fence/records.rs`.
pub(crate) const WATCHED: u64 = 2;
/// Entries may depend on the second fence, so writers must raise it ([`BULK`]). The second fence has taken over the changes of the
/// first one from before ([`BULK_SETTLED`]). See `fence/mod.rs`.
pub(crate) const BULK: u64 = 4;
pub(crate) const BULK_SETTLED: u64 = 8;
/// There is one unclaimed fence for this many records, up to a limit. Writers of relations that have claimed no record share them.
const RECORDS_PER_UNCLAIMED: u32 = 32;
const UNCLAIMED_MAX: u32 = 256;
/// The number of spaces that a backend counts for in its own slot, and the words of a row of counts. The marks of all rows fill one
/// line.
pub(crate) const ROWS: usize = if cfg!(loom) { 1 } else { LINE };
pub(crate) const ROW_WORDS: usize = 4 * LINE;
/// The words of the journal before its lines.
pub(crate) const JOURNAL_HEAD_WORDS: usize = 2 * LINE;
/// The words of a record of a segment.
pub(crate) const SEGMENT_WORDS: usize = 4;
/// The number of sampled hits that a backend remembers.
pub(crate) const SAMPLES: usize = if cfg!(loom) { LINE } else { 128 };
/// The words of a slot of statistics: the marks of the rows, the rows, the number of samples on a line of its own, the samples, the
/// counts of events of the server, and the histograms.
pub(crate) const SLOT_WORDS: usize = AT_HISTOGRAMS + HISTOGRAMS * HISTOGRAM_WORDS;
/// The place of the number of samples in a slot.
pub(crate) const AT_SAMPLED: usize = LINE + ROWS * ROW_WORDS;
/// The place of the counts of events of the server in a slot, and their number of words.
pub(crate) const AT_EVENTS: usize = AT_SAMPLED + LINE + SAMPLES;
pub(crate) const EVENT_WORDS: usize = 3 * LINE;
/// The place of the histograms in a slot, their number, and the words of each.
pub(crate) const AT_HISTOGRAMS: usize = AT_EVENTS + EVENT_WORDS;
pub(crate) const HISTOGRAMS: usize = LINE;
pub(crate) const HISTOGRAM_WORDS: usize = if cfg!(loom) { 2 } else { 4 * LINE };
/// The words of a space's cell: one line, the counts of the cell, the counts at the last reset, and the name of the space.
pub(crate) const CELL_WORDS: usize = LINE + 2 * ROW_WORDS + NAME_WORDS;
/// The words of the name of a space.
pub(crate) const NAME_WORDS: usize = LINE;
/// The words of a shard's control block.
pub(crate) const CONTROL_WORDS: usize = 3 * LINE;
/// There is one slot for a flight, a key that a session computes or claims (`tier/flight.rs`), for this many bytes of blocks,
/// within limits. The slots take one to two and a half percent of a tier up to 2 GB, and less of a larger one. A model of
/// interleavings has one key in flight, and each look at another slot would be one more step to interleave.
const BYTES_PER_FLIGHT: usize = 2 << 10;
const FLIGHTS_LEAST: usize = if cfg!(loom) { 1 } else { 32 };
const FLIGHTS_MOST: usize = if cfg!(loom) { 1 } else { 512 };
/// The number of slots that a key may be in. A shard has one or more whole sets of this size, or one smaller set.
pub(crate) const SLOTS_OF_SET: u32 = 64;
/// The words of a slot for a flight: a hash and a record.
pub(crate) const FLIGHT_WORDS: usize = 6;
/// The locations that a key may be in: one set of the directory, a cache line. A location says where a value is saved
/// (`tier/directory.rs`).
pub(crate) const LOCATIONS_OF_SET: usize = LINE;

/// The sizes of a region's parts. The whole layout follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The bytes of the whole region.
    pub bytes: usize,
    /// The number of reserved fences, each on a cache line of its own: up to five for each database, one for each space, one for
    /// roles. Each comes with a cell of statistics that a space can use.
    pub reserved_fences: u32,
    /// The number of relations that have fences of their own. When all records are taken, further relations that entries depend
    /// on share a record. If this is 0, relations use the fences of tags.
    pub relation_fences: u32,
    /// The number of fences that tags hash into.
    pub tag_fences: u32,
    /// The number of backends that have a slot of statistics.
    pub backends: u32,
    /// The number of shards, or 0 for a number that suits the size.
    pub shards: u32,
    /// The least number of locations that the directory has room for: where values are saved outside of the region. 0 if there is
    /// no such place.
    pub locations: u32,
    /// The number of lines of the journal, 64 bytes each. 0 if there is no journal.
    pub journal_lines: u32,
    /// The number of patterns that can be kept at the same time (`patterns/mod.rs`). If it is 0, an invalidation by a pattern must
    /// invalidate the whole space.
    pub patterns: u32,
}

/// The positions of a region's parts, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub sizes: Sizes,
    pub reserved_at: usize,
    pub relations_at: usize,
    pub unclaimed_at: usize,
    pub tags_at: usize,
    pub slots_at: usize,
    pub cells_at: usize,
    pub segments_at: usize,
    pub journal_at: usize,
    pub patterns_at: usize,
    zones_at: usize,
    visited_at: usize,
    shards_at: usize,
    shard_words: usize,
    blocks_at: usize,
    pub shards: u32,
    /// The number of blocks of each shard; buckets and ghosts likewise.
    pub blocks: u32,
    pub buckets: u32,
    pub ghosts: u32,
    /// The number of slots for flights of each shard.
    pub flights: u32,
    // Positions within a shard, in words.
    pub flights_at: usize,
    pub buckets_at: usize,
    pub ghosts_at: usize,
    pub bitmap_at: usize,
    pub directory_at: usize,
    /// The number of sets in the directory of each shard.
    pub location_sets: u32,
}

impl Layout {
    pub(crate) fn of(sizes: Sizes) -> Result<Self, RegionError> {
        // There must always be a fence to share and a slot to count in.
        let sizes = Sizes { tag_fences: sizes.tag_fences.max(1), backends: sizes.backends.max(1), ..sizes };
        let words = sizes.bytes / 8;
        let reserved_at = HEADER_WORDS;
        let relations_at = reserved_at + sizes.reserved_fences as usize * RESERVED_WORDS;
        let unclaimed_at = relations_at + sizes.relation_fences as usize * RELATION_WORDS;
        let tags_at = unclaimed_at + unclaimed(&sizes) as usize * LINE;
        let slots_at = line_up(tags_at + sizes.tag_fences as usize);
        let cells_at = slots_at + sizes.backends as usize * SLOT_WORDS;
        let segments_at = cells_at + cells(&sizes) as usize * CELL_WORDS;
        let journal_at = line_up(segments_at + segment_words(&sizes));
        let patterns_at = journal_at + journal_words(&sizes);
        let zones_at = Self::words_before_zones(&sizes);
        let visited_at = line_up(zones_at + words.div_ceil(ZONE_BLOCKS as usize * BLOCK_WORDS));
        let shards_at = line_up(visited_at + words.div_ceil(VISITED_BLOCKS as usize * BLOCK_WORDS * 64));

        let too_small =
            |needed_words: usize| RegionError::TooSmall { bytes: sizes.bytes, needed: needed_words * 8 };
        let least = shards_at + ShardPlan::of(SHARD_BLOCKS_MIN, sets_of(&sizes, sizes.shards.max(1))).words();
        if words < least {
            return Err(too_small(least));
        }
        // Block numbers have 32 bits. So have fence numbers, which are word positions; all fences lie before the shards.
        if words / BLOCK_WORDS > u32::MAX as usize || shards_at > u32::MAX as usize {
            return Err(RegionError::TooLarge { bytes: sizes.bytes });
        }
        let (shards, plan) = plan_shards(&sizes, shards_at).ok_or_else(|| {
            let shards = sizes.shards.max(1);
            too_small(
                shards_at
                    + shards as usize * ShardPlan::of(SHARD_BLOCKS_MIN, sets_of(&sizes, shards)).words(),
            )
        })?;
        Ok(Self {
            sizes,
            reserved_at,
            relations_at,
            unclaimed_at,
            tags_at,
            slots_at,
            cells_at,
            segments_at,
            journal_at,
            patterns_at,
            zones_at,
            visited_at,
            shards_at,
            shard_words: plan.control_words,
            blocks_at: shards_at + shards * plan.control_words,
            shards: shards as u32,
            blocks: plan.blocks as u32,
            buckets: plan.buckets as u32,
            ghosts: plan.ghosts as u32,
            flights: plan.flights as u32,
            flights_at: CONTROL_WORDS,
            buckets_at: plan.buckets_at,
            ghosts_at: plan.ghosts_at,
            bitmap_at: plan.bitmap_at,
            directory_at: plan.directory_at,
            location_sets: plan.location_sets as u32,
        })
    }

    /// Returns the words of header, fences, statistics, records of segments, journal and patterns.
    pub(crate) fn words_before_zones(sizes: &Sizes) -> usize {
        let fences = sizes.reserved_fences as usize * RESERVED_WORDS
            + sizes.relation_fences as usize * RELATION_WORDS
            + unclaimed(sizes) as usize * LINE
            + sizes.tag_fences as usize;
        line_up(HEADER_WORDS + fences)
            + Self::statistics_words(sizes)
            + line_up(segment_words(sizes))
            + journal_words(sizes)
            + pattern_words(sizes)
    }

    /// Returns about how many words the directories of all shards have.
    pub(crate) fn directory_words(sizes: &Sizes) -> usize {
        (sizes.locations as usize).next_multiple_of(LOCATIONS_OF_SET)
    }

    /// Returns the words of statistics.
    pub(crate) fn statistics_words(sizes: &Sizes) -> usize {
        sizes.backends as usize * SLOT_WORDS + cells(sizes) as usize * CELL_WORDS
    }

    /// Returns the number of fences for relations without a record.
    pub(crate) fn unclaimed(&self) -> u32 {
        unclaimed(&self.sizes)
    }

    /// Returns the number of cells: one for each fence that may belong to a space, and one for all spaces that have none.
    pub(crate) fn cells(&self) -> u32 {
        cells(&self.sizes)
    }

    /// Empties the region and writes the header. The magic must be written last: until then, no process can attach.
    pub(crate) fn format(&self, region: &Region<'_>) {
        region.store(AT_MAGIC, 0);
        // The content of the blocks needs no reset: it has no meaning until an entry is written there.
        for at in 0..self.blocks_at {
            region.store(at, 0);
        }
        region.store(AT_VERSION, VERSION);
        region.store(AT_WORDS, region.len() as u64);
        region.store(AT_RESERVED, self.sizes.reserved_fences.into());
        region.store(AT_RELATIONS, self.sizes.relation_fences.into());
        region.store(AT_TAGS, self.sizes.tag_fences.into());
        region.store(AT_BACKENDS, self.sizes.backends.into());
        region.store(AT_SHARDS, self.shards.into());
        region.store(AT_LOCATIONS, self.sizes.locations.into());
        region.store(AT_JOURNAL, self.sizes.journal_lines.into());
        region.store(AT_PATTERNS, self.sizes.patterns.into());
        region.word(AT_MAGIC).store(MAGIC, Ordering::Release);
    }

    /// Reads the header of a formatted region.
    pub(crate) fn read(region: &Region<'_>) -> Result<Self, RegionError> {
        if region.len() < HEADER_WORDS || region.word(AT_MAGIC).load(Ordering::Acquire) != MAGIC {
            return Err(RegionError::Unformatted);
        }
        let found = region.load(AT_VERSION);
        if found != VERSION {
            return Err(RegionError::OtherLayout { found, known: VERSION });
        }
        if region.load(AT_WORDS) != region.len() as u64 {
            return Err(RegionError::Damaged);
        }
        let number = |at| u32::try_from(region.load(at)).map_err(|_| RegionError::Damaged);
        Self::of(Sizes {
            bytes: region.len() * 8,
            reserved_fences: number(AT_RESERVED)?,
            relation_fences: number(AT_RELATIONS)?,
            tag_fences: number(AT_TAGS)?,
            backends: number(AT_BACKENDS)?,
            shards: number(AT_SHARDS)
                .and_then(|shards| if shards == 0 { Err(RegionError::Damaged) } else { Ok(shards) })?,
            locations: number(AT_LOCATIONS)?,
            journal_lines: number(AT_JOURNAL)?,
            patterns: number(AT_PATTERNS)?,
        })
        .map_err(|_| RegionError::Damaged)
    }

    /// Returns the position of a shard.
    #[inline]
    pub(crate) fn shard_at(&self, shard: u32) -> usize {
        self.shards_at + shard as usize * self.shard_words
    }

    /// Returns the number of a shard's first block.
    pub(crate) fn first_block(&self, shard: u32) -> u32 {
        (self.blocks_at / BLOCK_WORDS) as u32 + shard * self.blocks
    }

    /// Returns the shard that a block belongs to, and the number of shards if the block's number is not valid.
    pub(crate) fn shard_of_block(&self, block: u32) -> u32 {
        match block.checked_sub(self.first_block(0)) {
            Some(index) => (index / self.blocks).min(self.shards),
            None => self.shards,
        }
    }

    /// Returns the position of a block's first word. An invalid number gives a position outside the region, which leads to the
    /// sink. So an access through a damaged link never writes to anything but blocks.
    #[inline(always)]
    pub(crate) fn block_at(&self, block: u32) -> usize {
        let at = block as usize * BLOCK_WORDS;
        if at < self.blocks_at { usize::MAX / 2 } else { at }
    }

    /// Returns the position of the version that tells whether an entry that begins in this block has died.
    #[inline(always)]
    pub(crate) fn zone_at(&self, block: u32) -> usize {
        self.zones_at + (block / ZONE_BLOCKS) as usize
    }

    /// Returns the bit that tells whether a reader has asked for the entry that begins in this block: the position of its word, and
    /// a mask.
    #[inline(always)]
    pub(crate) fn visited_bit(&self, block: u32) -> (usize, u64) {
        let bit = block / VISITED_BLOCKS;
        (self.visited_at + (bit / 64) as usize, 1 << (bit % 64))
    }

    /// Returns the shard that the sweep is in. The *sweep* goes round over all entries and removes useless ones
    /// (`tier/removing.rs`). Only the order of sweeping depends on this shard, so it needs no lock.
    pub(crate) fn swept_shard(&self, region: &Region<'_>) -> u32 {
        (region.load(AT_SWEEP) % u64::from(self.shards)) as u32
    }

    pub(crate) fn advance_sweep(&self, region: &Region<'_>) {
        region.word(AT_SWEEP).fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of blocks of all shards.
    pub(crate) fn blocks_total(&self) -> u64 {
        u64::from(self.blocks) * u64::from(self.shards)
    }
}

/// The parts of a shard with a given number of blocks, in words.
struct ShardPlan {
    blocks: usize,
    buckets: usize,
    ghosts: usize,
    flights: usize,
    buckets_at: usize,
    ghosts_at: usize,
    bitmap_at: usize,
    directory_at: usize,
    location_sets: usize,
    /// All words of the shard except its blocks.
    control_words: usize,
}

impl ShardPlan {
    fn of(blocks: usize, location_sets: usize) -> Self {
        let buckets = (blocks * BLOCK_BYTES / BYTES_PER_BUCKET).max(4).next_multiple_of(2);
        let ghosts = (blocks * BLOCK_BYTES / BYTES_PER_GHOST).max(4).next_multiple_of(2);
        let flights = (blocks * BLOCK_BYTES / BYTES_PER_FLIGHT).clamp(FLIGHTS_LEAST, FLIGHTS_MOST);
        let set = flights.min(SLOTS_OF_SET as usize);
        let flights = flights / set * set;
        let buckets_at = CONTROL_WORDS + flights * FLIGHT_WORDS;
        let ghosts_at = buckets_at + buckets / 2;
        let bitmap_at = line_up(ghosts_at + ghosts / 2);
        let directory_at = line_up(bitmap_at + blocks.div_ceil(64));
        let control_words = directory_at + location_sets * LOCATIONS_OF_SET;
        Self {
            blocks,
            buckets,
            ghosts,
            flights,
            buckets_at,
            ghosts_at,
            bitmap_at,
            directory_at,
            location_sets,
            control_words,
        }
    }

    fn words(&self) -> usize {
        self.control_words + self.blocks * BLOCK_WORDS
    }
}

/// Returns the number of shards and the largest shard that fits, or None if the smallest does not fit.
fn plan_shards(sizes: &Sizes, shards_at: usize) -> Option<(usize, ShardPlan)> {
    let words = sizes.bytes / 8 - shards_at;
    let shards = match sizes.shards {
        0 => (words.saturating_sub(Layout::directory_words(sizes)) * 8 / SHARD_BYTES)
            .clamp(1, SHARDS_MAX)
            .next_power_of_two()
            .min(SHARDS_MAX),
        shards => shards as usize,
    };
    let shard_words = words / shards / LINE * LINE;
    let plan = |blocks| ShardPlan::of(blocks, sets_of(sizes, shards as u32));
    // Start with the number of blocks that would fit if blocks were all, then reduce it.
    let mut blocks = shard_words.saturating_sub(plan(0).control_words) / LINE * LINE_BLOCKS;
    while blocks >= SHARD_BLOCKS_MIN && plan(blocks).words() > shard_words {
        let excess = (plan(blocks).words() - shard_words) / BLOCK_WORDS;
        // Removing one block frees more than its own words. Removing half of the excess each time does not go too far.
        blocks -= (excess / 2).next_multiple_of(LINE_BLOCKS).max(LINE_BLOCKS);
    }
    (blocks >= SHARD_BLOCKS_MIN).then(|| (shards, plan(blocks)))
}

fn segment_words(sizes: &Sizes) -> usize {
    if sizes.locations == 0 { 0 } else { usize::from(SEGMENTS_MAX) * SEGMENT_WORDS }
}

fn journal_words(sizes: &Sizes) -> usize {
    if sizes.journal_lines == 0 { 0 } else { JOURNAL_HEAD_WORDS + sizes.journal_lines as usize * LINE }
}

fn pattern_words(sizes: &Sizes) -> usize {
    match sizes.patterns as usize {
        0 => 0,
        slots => LINE + line_up(slots * (PATTERN_HEAD_WORDS + PATTERN_WORDS)),
    }
}

/// Returns how many sets the directory of each shard has.
fn sets_of(sizes: &Sizes, shards: u32) -> usize {
    sizes.locations.div_ceil(shards).div_ceil(LOCATIONS_OF_SET as u32) as usize
}

fn cells(sizes: &Sizes) -> u32 {
    sizes.reserved_fences.saturating_add(1)
}

fn unclaimed(sizes: &Sizes) -> u32 {
    sizes.relation_fences.div_ceil(RECORDS_PER_UNCLAIMED).min(UNCLAIMED_MAX)
}

fn line_up(words: usize) -> usize {
    words.next_multiple_of(LINE)
}
