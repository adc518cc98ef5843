//! What happened, counted by space without anybody waiting for anybody.
//!
//! ```text
//! slot   of a backend: for each row the number of its space's cell, on one line | rows of counts
//! cell   of a space: whose it is, bytes in use, hand | counts that are in no row | counts at the last reset
//! ```
//!
//! Access rules:
//! - A backend writes the rows of its own slot, by plain loads and stores, and nobody else does. There are few of them:
//!   when all are taken, one is *folded* into its cell and given to the space that needs one. A backend that comes later goes
//!   on with the rows it finds.
//! - Cells belong to everybody, by atomic additions. There goes what is folded, what befalls a space that the acting
//!   backend has no row for, and the change of the bytes in use, which is noted once for each hold of a lock (`tally.rs`).
//! - Whoever wants totals adds up a cell and all rows that bear its number. Each count is right, and all together are as old as
//!   the reading takes. A fold moves counts from here to there, so the reader begins again if one was under way.
//! - A space has the cell with the number of its fence, which is never given back, so that the number is known for ever
//!   where it was known once. Spaces that have no fence of their own share the last cell.
//!
//! No number that is read from the memory says where something is written: the number in a row is compared with what is
//! known, and leads to a cell only if there is such a one.

use crate::layout::{AT_FOLDS_BEGUN, AT_FOLDS_ENDED, CELL_WORDS, LINE, Layout, ROW_WORDS, ROWS, SLOT_WORDS};
use crate::region::Region;
use crate::sync::{AtomicU64, Ordering, fence};
use crate::terms::{Host, Scope, SpaceStats};
use crate::tier::Tier;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Counter {
    /// A value was found and served.
    Hit,
    /// No entry of that key.
    MissAbsent,
    /// The entry's time was over.
    MissExpired,
    /// Something the entry depends on has changed, or is about to.
    MissFenced,
    /// The reader had itself changed something the entry depends on.
    MissOwn,
    /// The tier, or the shard, is switched off.
    MissOff,
    /// A read had to be repeated because a writer got in its way.
    Retry,
    /// A value was stored.
    Stored,
    /// A value was not made visible: something was there already, the lease was void, or the shard has been switched off.
    Dropped,
    /// A value was not stored for want of room.
    RefusedFull,
    /// A value was not stored because it is larger than the tier takes.
    RefusedSize,
    /// A value was not stored because the space may not take more.
    RefusedQuota,
    /// A value was not stored because the shard is switched off.
    RefusedOff,
    /// A value was not stored because its transaction held back too much already. The caller's to [note](Tier::note).
    RefusedTransaction,
    /// Microseconds that hits have saved. The caller's to [note](Tier::note).
    Saved,
    /// An entry made way for another value of its key, whether it was still right or not.
    Replaced,
    /// An entry was removed because it was told to.
    Removed,
    /// An entry went because its time was over.
    Expired,
    /// An entry went because something it depends on had changed.
    Fenced,
    /// An entry that was still right went to make room.
    Evicted,
    /// An entry that was still right went because its space may not take more.
    EvictedQuota,
    /// An entry that was evicted to make room, out of the small queue: as a rule nobody had ever asked for it. What nobody
    /// asked for in the main queue is not among them.
    EvictedUnread,
}

impl Counter {
    /// All of them, in order.
    pub const ALL: [Self; 22] = [
        Self::Hit,
        Self::MissAbsent,
        Self::MissExpired,
        Self::MissFenced,
        Self::MissOwn,
        Self::MissOff,
        Self::Retry,
        Self::Stored,
        Self::Dropped,
        Self::RefusedFull,
        Self::RefusedSize,
        Self::RefusedQuota,
        Self::RefusedOff,
        Self::RefusedTransaction,
        Self::Saved,
        Self::Replaced,
        Self::Removed,
        Self::Expired,
        Self::Fenced,
        Self::Evicted,
        Self::EvictedQuota,
        Self::EvictedUnread,
    ];

    /// The ways an entry goes: each that was stored goes one of them, or is there.
    const GONE: std::ops::RangeInclusive<usize> = Self::Replaced as usize..=Self::EvictedQuota as usize;
}

const _: () = assert!(Counter::ALL.len() <= ROW_WORDS);

/// The counts of a space.
pub(crate) type Counts = [u64; ROW_WORDS];

/// Entries that are there, after all that was stored and all that went.
pub(crate) fn entries(counts: &Counts) -> u64 {
    let gone = counts[Counter::GONE].iter().fold(0, |sum: u64, count| sum.wrapping_add(*count));
    not_negative(counts[Counter::Stored as usize].wrapping_sub(gone))
}

/// What was read while others were at work may for a moment have gone before it came.
fn not_negative(difference: u64) -> u64 {
    (difference as i64).max(0) as u64
}

// A cell.
const AT_PLACE: usize = 0;
const AT_BLOCKS: usize = 1;
const AT_HAND: usize = 2;
const AT_COUNTS: usize = LINE;
const AT_BASELINE: usize = LINE + ROW_WORDS;

/// Where a backend is that has no slot: outside of the region, where no row is found.
const NOWHERE: usize = usize::MAX / 2;
/// How often a reader begins again because rows are being folded.
const PATIENCE: u32 = 32;

/// All statistics, as one backend sees them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Statistics<'m> {
    region: Region<'m>,
    /// The slot of this backend.
    own: usize,
    slots_at: usize,
    slots: usize,
    cells_at: usize,
    /// The last one is everybody's who has none.
    cells: u32,
}

impl<'m> Statistics<'m> {
    /// Those of a backend. One whose number has no slot adds to the cells at once.
    pub(crate) fn of(region: Region<'m>, layout: &Layout, backend: u32) -> Self {
        let slot =
            (backend < layout.sizes.counters).then_some(layout.counters_at + backend as usize * SLOT_WORDS);
        Self {
            region,
            own: slot.unwrap_or(NOWHERE),
            slots_at: layout.counters_at,
            slots: layout.sizes.counters as usize,
            cells_at: layout.cells_at,
            cells: layout.cells(),
        }
    }

    /// Counts what happened in the space of a cell.
    #[inline(always)]
    pub(crate) fn count(&self, cell: u32, what: Counter) {
        let home = cell as usize % ROWS;
        if self.region.load(self.own + home) == mark(cell) {
            self.add_to_row(home, what as usize, 1);
        } else {
            self.add(cell, what, 1);
        }
    }

    /// The same if it is not in the row where it is looked for first, or happened more than once.
    #[inline(never)]
    pub(crate) fn add(&self, cell: u32, what: Counter, by: u64) {
        if self.own == NOWHERE {
            self.add_to_cell(cell, what as usize, by);
        } else {
            let row = self.row_of(mark(cell)).unwrap_or_else(|| self.take_row(cell));
            self.add_to_row(row, what as usize, by);
        }
    }

    /// Counts what befell a space that is not what this backend is busy with: it gets no row for that.
    pub(crate) fn add_foreign(&self, cell: u32, what: usize, by: u64) {
        let home = cell as usize % ROWS;
        let in_home = self.region.load(self.own + home) == mark(cell);
        match in_home.then_some(home).or_else(|| self.row_of(mark(cell))) {
            Some(row) if self.own != NOWHERE => self.add_to_row(row, what, by),
            _ => self.add_to_cell(cell, what, by),
        }
    }

    /// Adds to the blocks that a space has, or takes from them.
    pub(crate) fn add_blocks(&self, cell: u32, by: i64) {
        if by != 0 {
            self.cell_word(cell, AT_BLOCKS).fetch_add(by as u64, Ordering::Relaxed);
        }
    }

    /// Blocks that a space has: of its entries, and of what is reserved for such.
    pub(crate) fn blocks(&self, cell: u32) -> u64 {
        not_negative(self.cell_word(cell, AT_BLOCKS).load(Ordering::Relaxed))
    }

    /// Where the hand of a space's own evictions stands. Any number, if the memory is damaged.
    pub(crate) fn hand(&self, cell: u32) -> u64 {
        self.cell_word(cell, AT_HAND).load(Ordering::Relaxed)
    }

    pub(crate) fn set_hand(&self, cell: u32, hand: u64) {
        self.cell_word(cell, AT_HAND).store(hand, Ordering::Relaxed);
    }

    /// Whether a cell belongs to more than one space.
    pub(crate) fn is_shared(&self, cell: u32) -> bool {
        cell + 1 >= self.cells
    }

    /// Writes down whose a cell is, for those who read the figures. Turned over, so that it is never 0.
    pub(crate) fn name(&self, cell: u32, place: u64) {
        let word = self.cell_word(cell, AT_PLACE);
        if !self.is_shared(cell) && word.load(Ordering::Relaxed) != !place {
            word.store(!place, Ordering::Relaxed);
        }
    }

    /// All cells.
    pub(crate) fn cells(&self) -> std::ops::Range<u32> {
        0..self.cells
    }

    /// The counts of a cell since the region was formatted.
    pub(crate) fn counts(&self, cell: u32) -> Counts {
        self.undisturbed(|| {
            let mut counts = self.words(self.cell_at(cell) + AT_COUNTS);
            for row_at in self.rows(|found| found == mark(cell)) {
                add_up(&mut counts, &self.words(row_at));
            }
            counts
        })
    }

    /// How often something happened in all spaces together.
    fn total(&self, what: Counter) -> u64 {
        let what = what as usize;
        self.undisturbed(|| {
            let cells = self.cells().map(|cell| self.cell_at(cell) + AT_COUNTS);
            cells
                .chain(self.rows(|_| true))
                .fold(0, |sum: u64, at| sum.wrapping_add(self.region.load(at + what)))
        })
    }

    fn stats(&self, cell: u32) -> SpaceStats {
        let mut counts = self.counts(cell);
        let entries = entries(&counts);
        let baseline = self.words(self.cell_at(cell) + AT_BASELINE);
        for (count, baseline) in counts.iter_mut().zip(baseline) {
            *count = not_negative(count.wrapping_sub(baseline));
        }
        let place = !self.cell_word(cell, AT_PLACE).load(Ordering::Relaxed);
        let space = (!self.is_shared(cell)).then_some(((place >> 32) as u32, place as u32));
        SpaceStats { space, entries, blocks: self.blocks(cell), counts }
    }

    /// Nobody's count is written to: what there is now is what is subtracted from now on.
    fn reset(&self, cell: u32) {
        let counts = self.counts(cell);
        for (what, count) in counts.into_iter().enumerate() {
            self.region.store(self.cell_at(cell) + AT_BASELINE + what, count);
        }
    }

    fn is_named(&self, cell: u32) -> bool {
        self.cell_word(cell, AT_PLACE).load(Ordering::Relaxed) != 0
    }

    #[inline(always)]
    fn add_to_row(&self, row: usize, what: usize, by: u64) {
        let word = self.region.word(self.own + LINE + row * ROW_WORDS + what);
        word.store(word.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }

    fn add_to_cell(&self, cell: u32, what: usize, by: u64) {
        self.cell_word(cell, AT_COUNTS + what).fetch_add(by, Ordering::Relaxed);
    }

    fn row_of(&self, mark: u64) -> Option<usize> {
        (0..ROWS).find(|row| self.region.load(self.own + row) == mark)
    }

    /// A row for a space that has none.
    fn take_row(&self, cell: u32) -> usize {
        let row = self.row_of(0).map_or(cell as usize % ROWS, |free| {
            let home = cell as usize % ROWS;
            if self.region.load(self.own + home) == 0 { home } else { free }
        });
        self.fold(row);
        self.region.store(self.own + row, mark(cell));
        row
    }

    /// Moves the counts of a row into the cell they belong to. Counts of no cell come from damage, and are forgotten.
    fn fold(&self, row: usize) {
        let Some(cell) = self.region.load(self.own + row).checked_sub(1) else { return };
        let cell = u32::try_from(cell).ok().filter(|cell| *cell < self.cells);
        self.region.word(AT_FOLDS_BEGUN).fetch_add(1, Ordering::Relaxed);
        fence(Ordering::Release);
        for what in 0..ROW_WORDS {
            let at = self.own + LINE + row * ROW_WORDS + what;
            let count = self.region.load(at);
            if let Some(cell) = cell.filter(|_| count != 0) {
                self.add_to_cell(cell, what, count);
            }
            self.region.store(at, 0);
        }
        self.region.store(self.own + row, 0);
        self.region.word(AT_FOLDS_ENDED).fetch_add(1, Ordering::Release);
    }

    /// Reads while no row is being folded; after some attempts all the same, because somebody may have died in it.
    fn undisturbed<T>(&self, read: impl Fn() -> T) -> T {
        for _ in 0..PATIENCE {
            let ended = self.region.word(AT_FOLDS_ENDED).load(Ordering::Acquire);
            let result = read();
            fence(Ordering::Acquire);
            if self.region.load(AT_FOLDS_BEGUN) == ended {
                return result;
            }
        }
        read()
    }

    /// Where the rows are that bear such a mark.
    fn rows(&self, wanted: impl Fn(u64) -> bool) -> impl Iterator<Item = usize> {
        let slots = (0..self.slots).map(|slot| self.slots_at + slot * SLOT_WORDS);
        slots
            .flat_map(|slot| (0..ROWS).map(move |row| (slot + row, slot + LINE + row * ROW_WORDS)))
            .filter(move |(mark_at, _)| wanted(self.region.load(*mark_at)))
            .map(|(_, row_at)| row_at)
    }

    fn words(&self, at: usize) -> Counts {
        std::array::from_fn(|what| self.region.load(at + what))
    }

    fn cell_at(&self, cell: u32) -> usize {
        self.cells_at + cell.min(self.cells - 1) as usize * CELL_WORDS
    }

    fn cell_word(&self, cell: u32, word: usize) -> &'m AtomicU64 {
        self.region.word(self.cell_at(cell) + word)
    }
}

/// How a row says whose it is; 0 for nobody's.
#[inline(always)]
fn mark(cell: u32) -> u64 {
    u64::from(cell) + 1
}

fn add_up(sum: &mut Counts, counts: &Counts) {
    for (sum, count) in sum.iter_mut().zip(counts) {
        *sum = sum.wrapping_add(*count);
    }
}

impl<H: Host> Tier<'_, H> {
    /// The figures of a space. None if nobody has made its [scope](Self::scope) yet, or if it came so late that it shares
    /// the last cell with others: what those did together is the last of [`all_stats`](Self::all_stats).
    pub fn space_stats(&self, database: u32, space: u32) -> Option<SpaceStats> {
        self.own_cell(database, space).map(|cell| self.statistics.stats(cell))
    }

    /// The figures of all spaces that were ever used, those that are gone among them, and at the end what the spaces did
    /// together that share the last cell.
    pub fn all_stats(&self) -> impl Iterator<Item = SpaceStats> {
        let seen = |cell: &u32| self.statistics.is_shared(*cell) || self.statistics.is_named(*cell);
        self.statistics.cells().filter(seen).map(|cell| self.statistics.stats(cell))
    }

    /// Begins to count anew for one space. Entries and bytes are what they are.
    pub fn reset_stats(&self, database: u32, space: u32) {
        if let Some(cell) = self.own_cell(database, space) {
            self.statistics.reset(cell);
        }
    }

    /// Begins to count anew for all spaces. What [`counted`](Self::counted) says stays.
    pub fn reset_all_stats(&self) {
        self.statistics.cells().for_each(|cell| self.statistics.reset(cell));
    }

    /// Counts something of which the caller knows, and the tier does not: see [`Counter`].
    pub fn note(&self, scope: &Scope, what: Counter, by: u64) {
        self.statistics.add(scope.cell, what, by);
    }

    /// How often something happened, in all backends and spaces together, since the region was formatted.
    pub fn counted(&self, what: Counter) -> u64 {
        self.statistics.total(what)
    }

    /// Bytes of blocks that a space has, of its entries and of what is reserved for such: one load. With a space that shares
    /// the last cell it is all of them together.
    pub fn used_bytes(&self, scope: &Scope) -> u64 {
        self.statistics.blocks(scope.cell) * crate::layout::BLOCK_BYTES as u64
    }

    /// Whether a space has figures, and so a quota, of its own: the first ones have, as many as there are reserved fences.
    pub fn is_counted_alone(&self, scope: &Scope) -> bool {
        !self.statistics.is_shared(scope.cell)
    }

    fn own_cell(&self, database: u32, space: u32) -> Option<u32> {
        Some(self.cell_of(u64::from(database) << 32 | u64::from(space)))
            .filter(|cell| !self.statistics.is_shared(*cell))
    }

    /// The cell of database and space, as an entry keeps them.
    pub(crate) fn cell_of(&self, place: u64) -> u32 {
        let known = self.fences().known_space((place >> 32) as u32, place as u32);
        known.unwrap_or(self.layout.cells() - 1)
    }
}
