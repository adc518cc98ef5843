//! Statistics: counts of events for each space, a set of keys in one database. No backend waits for another one to count. The tier
//! (the cache) counts here, and `tier/statistics.rs` returns the counts.
//!
//! ```text
//! slot   of a backend: for each row the mark of its space's cell, on one line | rows of counts | sampled hits, see `samples.rs`
//!        | counts of events of the server, see `event.rs` | histograms, see `latency.rs`
//! cell   of a space: its space_id, blocks in use, hand | counts that are in no row | counts at the last reset | its name
//! ```
//!
//! The mark of a row is the number of its cell plus 1, or 0 if the row is free. The space_id is database and space in one word. The
//! hand is the position of the space's own evictions (`tier/quota.rs`).
//!
//! Access rules:
//! - Only a backend itself writes the rows of its slot, with plain loads and stores. A slot has few rows. When all are taken, the
//!   backend *folds* one into its cell and gives the row to the space that needs one. A later backend with the same slot continues
//!   with the rows that it finds.
//! - Every backend may write cells, by atomic additions. A cell receives folded counts, events of spaces that the acting backend
//!   has no row for, and the changes of the blocks in use, which are noted once for each hold of a lock (`deltas.rs`). The
//!   space_id, the hand and the counts at the last reset are written by single stores.
//! - A slot also has counts that belong to no space. Only its backend writes them, and no fold moves them.
//! - A reader of totals adds up a cell and all rows with the cell's mark. Other backends go on counting meanwhile, so the counts
//!   are not all of one moment. A fold moves counts from a row to a cell, so the reader begins again if a fold was under way.
//! - A space has the cell with the number of its fence's slot. Slots are never given back, so a backend that knows the number once
//!   knows it for ever. Spaces without a fence of their own share the last cell.
//! - Backends that write the name of a space at the same time write the same words. The first word, which is never 0 in a name, is
//!   written last: a reader that finds the same one before and after it reads the others finds the whole name.
//!
//! A number that is read from the memory may be damaged, so it must be checked before it decides where something is written. The
//! mark of a row leads to a cell only if that cell exists.
//!
//! The *region* is the shared memory of the tier, as words of 64 bits. A *fence* is a word in it that says when something that
//! values depend on last changed (`fence/mod.rs`); the fence of a space has a *slot*, which is not the slot of a backend. A
//! *reservation* is blocks with a value that is not published yet.

use super::counter::{Counter, Counts, entries, not_negative};
use super::event::{Event, Events};
use super::latency::{Histograms, Operation, bucket_of};
use super::samples;
use crate::layout::{
    AT_EVENTS, AT_FOLDS_BEGUN, AT_FOLDS_ENDED, AT_HISTOGRAMS, BLOCK_BYTES, CELL_WORDS, HISTOGRAM_WORDS, LINE,
    Layout, NAME_WORDS, ROW_WORDS, ROWS, SLOT_WORDS,
};
use crate::region::Region;
use crate::sync::{AtomicU64, Ordering, fence};
use std::collections::TryReserveError;

// The words of a cell, in the order of the head of this file.
const AT_SPACE: usize = 0;
const AT_BLOCKS: usize = 1;
const AT_HAND: usize = 2;
const AT_COUNTS: usize = LINE;
const AT_BASELINE: usize = LINE + ROW_WORDS;
const AT_NAME: usize = LINE + 2 * ROW_WORDS;

/// The most bytes of the name of a space: its words hold a byte with the length of the name, and the name.
pub const SPACE_NAME_BYTES_MAX: usize = NAME_WORDS * 8 - 1;

/// The slot of a backend that has none: a position outside the region. Accesses there go to the sink (`region.rs`).
const NOWHERE: usize = usize::MAX / 2;
/// How often a reader begins again at once because rows are being folded.
const ATTEMPTS: u32 = 32;
/// How often it then begins again after letting another thread run. A model checker explores every attempt, so it gets few.
const YIELDS: u32 = if cfg!(loom) { 0 } else { 2_000 };

/// The statistics of a space. The counts begin at the last reset, except in [`Figures`], where no reset changes them. Entries and
/// bytes are the present ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceStats {
    /// The OIDs of the database and of the space. None for the spaces that share the last cell, counted together.
    pub space: Option<(u32, u32)>,
    /// The number of entries, valid or not.
    pub entries: u64,
    /// The number of blocks in use.
    pub(crate) blocks: u64,
    /// The counts of the events, by the number of the counter.
    pub(crate) counts: Counts,
}

impl SpaceStats {
    /// Returns the bytes of blocks in use, for entries and for reservations.
    pub fn bytes(&self) -> u64 {
        self.blocks * BLOCK_BYTES as u64
    }

    /// Returns how often an event was counted since the last reset.
    pub fn counted(&self, counter: Counter) -> u64 {
        self.counts[counter as usize]
    }
}

/// All figures of the server, read together. Each count is since the region was formatted.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The figures of the spaces, sorted by database and space.
    spaces: Vec<SpaceStats>,
    /// The counts of the whole server.
    pub events: Events,
    /// How long operations took.
    pub histograms: Histograms,
}

impl Figures {
    /// Returns the figures of a space. None if it has none of its own.
    pub fn of_space(&self, database: u32, space: u32) -> Option<&SpaceStats> {
        let at = self.spaces.binary_search_by_key(&Some((database, space)), |stats| stats.space).ok()?;
        self.spaces.get(at)
    }

    /// Returns the figures of all spaces. Those of the spaces that share the last cell come first, together.
    pub fn spaces(&self) -> &[SpaceStats] {
        &self.spaces
    }
}

/// All statistics, as one backend sees them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Statistics<'m> {
    region: Region<'m>,
    /// The slot of this backend.
    own: usize,
    /// The position of the first slot in the region.
    slots_at: usize,
    /// The number of slots.
    slots: usize,
    /// The position of the first cell in the region.
    cells_at: usize,
    /// The number of cells. Spaces without a cell of their own share the last one.
    cells: u32,
}

impl<'m> Statistics<'m> {
    /// Makes the statistics of a backend. A backend whose number has no slot adds to the cells directly.
    pub(crate) fn of(region: Region<'m>, layout: &Layout, backend: u32) -> Self {
        let slot =
            (backend < layout.sizes.backends).then_some(layout.slots_at + backend as usize * SLOT_WORDS);
        Self {
            region,
            own: slot.unwrap_or(NOWHERE),
            slots_at: layout.slots_at,
            slots: layout.sizes.backends as usize,
            cells_at: layout.cells_at,
            cells: layout.cells(),
        }
    }

    /// Returns the region that the statistics lie in.
    #[inline]
    pub(crate) fn region(&self) -> &Region<'m> {
        &self.region
    }

    /// Counts an event in the space of a cell. This is the fast way, for a row in its usual place; [`add`](Self::add) does the
    /// rest.
    #[inline(always)]
    pub(crate) fn count(&self, cell: u32, counter: Counter) {
        let home = cell as usize % ROWS;
        if self.region.load(self.own + home) == mark(cell) {
            self.add_to_row(home, counter as usize, 1);
        } else {
            self.add(cell, counter, 1);
        }
    }

    /// Counts a hit, and remembers some of the hits by the hash of their key.
    #[inline(always)]
    pub(crate) fn count_hit(&self, cell: u32, counter: Counter, hash: u64) {
        let home = cell as usize % ROWS;
        let number = if self.region.load(self.own + home) == mark(cell) {
            Some(self.add_to_row(home, counter as usize, 1))
        } else {
            self.add(cell, counter, 1)
        };
        if number.is_some_and(samples::is_sampled) {
            samples::remember(&self.region, self.own, hash);
        }
    }

    /// Returns the hashes of the keys of all sampled hits, in no order.
    pub(crate) fn sampled_hits(&self) -> impl Iterator<Item = u64> {
        let slots = (0..self.slots).map(|slot| self.slots_at + slot * SLOT_WORDS);
        slots.flat_map(|slot| samples::of_slot(&self.region, slot))
    }

    /// Counts `by` events. Also finds a row that is not in its usual place, and takes one if the space has none. The usual place of
    /// a cell's row is the number of the cell modulo the number of rows. Returns the count of the row, or None if the backend has
    /// no slot.
    #[inline(never)]
    pub(crate) fn add(&self, cell: u32, counter: Counter, by: u64) -> Option<u64> {
        if self.own == NOWHERE {
            self.add_to_cell(cell, counter as usize, by);
            return None;
        }
        let row = self.row_of(mark(cell)).unwrap_or_else(|| self.take_row(cell));
        Some(self.add_to_row(row, counter as usize, by))
    }

    /// Counts events of a space other than the one that this backend works for. The space gets no row for that.
    #[inline(never)]
    pub(crate) fn add_foreign(&self, cell: u32, counter: usize, by: u64) {
        let home = cell as usize % ROWS;
        let in_home = self.region.load(self.own + home) == mark(cell);
        match in_home.then_some(home).or_else(|| self.row_of(mark(cell))) {
            Some(row) if self.own != NOWHERE => _ = self.add_to_row(row, counter, by),
            _ => self.add_to_cell(cell, counter, by),
        }
    }

    /// Counts `by` events of the server. A backend without a slot counts nothing.
    #[inline]
    pub(crate) fn count_event(&self, event: Event, by: u64) {
        self.add_to_slot(AT_EVENTS + event as usize, by);
    }

    /// Counts an operation that took this number of nanoseconds. A backend without a slot counts nothing.
    pub(crate) fn count_latency(&self, of: Operation, nanos: u64) {
        let at = AT_HISTOGRAMS + of as usize * HISTOGRAM_WORDS;
        self.add_to_slot(at, nanos);
        self.add_to_slot(at + 1 + bucket_of(nanos), 1);
    }

    /// Adds to a word of this backend's slot that only this backend writes.
    #[inline]
    fn add_to_slot(&self, at: usize, by: u64) {
        if self.own != NOWHERE {
            let word = self.region.word(self.own + at);
            word.store(word.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
        }
    }

    /// Adds to the number of blocks that a space has, or subtracts if `by` is negative.
    pub(crate) fn add_blocks(&self, cell: u32, by: i64) {
        if by != 0 {
            self.cell_word(cell, AT_BLOCKS).fetch_add(by as u64, Ordering::Relaxed);
        }
    }

    /// Returns the blocks that a space has, for entries and for reservations.
    pub(crate) fn blocks(&self, cell: u32) -> u64 {
        not_negative(self.cell_word(cell, AT_BLOCKS).load(Ordering::Relaxed))
    }

    /// Corrects the number of blocks that a space has. No other backend may exist.
    pub(crate) fn set_blocks(&self, cell: u32, blocks: u64) {
        self.cell_word(cell, AT_BLOCKS).store(blocks, Ordering::Relaxed);
    }

    /// Ends the folds of backends that died during a fold. No other backend may exist.
    pub(crate) fn end_folds(&self) {
        self.region.store(AT_FOLDS_ENDED, self.region.load(AT_FOLDS_BEGUN));
    }

    /// Returns the position of the hand of a space's own evictions. It may be any number if the memory is damaged.
    pub(crate) fn hand(&self, cell: u32) -> u64 {
        self.cell_word(cell, AT_HAND).load(Ordering::Relaxed)
    }

    /// Moves the hand. The caller must hold the lock of the shard that the hand stands in (`tier/quota.rs`).
    pub(crate) fn set_hand(&self, cell: u32, hand: u64) {
        self.cell_word(cell, AT_HAND).store(hand, Ordering::Relaxed);
    }

    /// Whether spaces share a cell: it is the last one.
    pub(crate) fn is_shared(&self, cell: u32) -> bool {
        cell + 1 >= self.cells
    }

    /// Writes the space_id of a cell's space into the cell, for the readers of statistics. The bits are inverted, so that the word
    /// is never 0.
    pub(crate) fn set_space_id(&self, cell: u32, space_id: u64) {
        let word = self.cell_word(cell, AT_SPACE);
        if !self.is_shared(cell) && word.load(Ordering::Relaxed) != !space_id {
            word.store(!space_id, Ordering::Relaxed);
        }
    }

    /// Writes the name of a cell's space into the cell. Does nothing if spaces share the cell, or if the name is empty or longer
    /// than [`SPACE_NAME_BYTES_MAX`].
    pub(crate) fn set_space_name(&self, cell: u32, name: &[u8]) {
        let mut bytes = [0; NAME_WORDS * 8];
        let Some(target) = bytes.get_mut(1..=name.len()).filter(|_| !name.is_empty()) else { return };
        target.copy_from_slice(name);
        bytes[0] = name.len() as u8;
        if self.is_shared(cell) || self.space_name(cell).is_some_and(|known| known == name) {
            return;
        }
        self.cell_word(cell, AT_NAME).store(0, Ordering::Release);
        for (index, word) in bytes.as_chunks::<8>().0.iter().enumerate().rev() {
            self.cell_word(cell, AT_NAME + index).store(u64::from_le_bytes(*word), Ordering::Release);
        }
    }

    /// Returns the name of a cell's space. None if no backend has written it, or if spaces share the cell.
    pub(crate) fn space_name(&self, cell: u32) -> Option<Vec<u8>> {
        let first = self.cell_word(cell, AT_NAME).load(Ordering::Acquire);
        let length = usize::from(first as u8);
        if self.is_shared(cell) || length == 0 {
            return None;
        }
        let words: [u64; NAME_WORDS] =
            std::array::from_fn(|index| self.cell_word(cell, AT_NAME + index).load(Ordering::Acquire));
        let is_same = self.cell_word(cell, AT_NAME).load(Ordering::Acquire) == first && words[0] == first;
        is_same.then(|| words.into_iter().flat_map(u64::to_le_bytes).skip(1).take(length).collect())
    }

    /// Returns the database and the space of each cell that has a name.
    pub(crate) fn named_spaces(&self) -> impl Iterator<Item = (u32, u32)> {
        self.cells().filter(|cell| self.cell_word(*cell, AT_NAME).load(Ordering::Relaxed) != 0).map(|cell| {
            let space = !self.cell_word(cell, AT_SPACE).load(Ordering::Relaxed);
            ((space >> 32) as u32, space as u32)
        })
    }

    /// Returns the numbers of all cells.
    pub(crate) fn cells(&self) -> std::ops::Range<u32> {
        0..self.cells
    }

    /// Returns the counts of a cell since the region was formatted.
    pub(crate) fn counts(&self, cell: u32) -> Counts {
        self.undisturbed(|| {
            let mut counts = self.words(self.cell_at(cell) + AT_COUNTS);
            for row_at in self.rows(|found| found == mark(cell)) {
                add_up(&mut counts, &self.words(row_at));
            }
            counts
        })
    }

    /// Returns how often an event happened in all spaces together.
    pub(crate) fn total(&self, counter: Counter) -> u64 {
        let counter = counter as usize;
        self.undisturbed(|| {
            let cells = self.cells().map(|cell| self.cell_at(cell) + AT_COUNTS);
            cells
                .chain(self.rows(|_| true))
                .fold(0, |sum: u64, at| sum.wrapping_add(self.region.load(at + counter)))
        })
    }

    /// Returns the statistics in a cell.
    pub(crate) fn stats(&self, cell: u32) -> SpaceStats {
        let mut counts = self.counts(cell);
        let entries = entries(&counts);
        let baseline = self.words(self.cell_at(cell) + AT_BASELINE);
        for (count, baseline) in counts.iter_mut().zip(baseline) {
            *count = not_negative(count.wrapping_sub(baseline));
        }
        SpaceStats { space: self.space_of(cell), entries, blocks: self.blocks(cell), counts }
    }

    /// Returns all figures since the region was formatted, in one walk through the cells and the slots. They do not depend on
    /// resets.
    pub(crate) fn figures(&self) -> Result<Figures, TryReserveError> {
        let seen = |cell: &u32| self.is_shared(*cell) || self.has_space_id(*cell);
        let mut counts: Vec<Counts> = Vec::new();
        counts.try_reserve_exact(self.cells as usize)?;
        let (mut events, mut histograms) = (Events::default(), Histograms::default());
        self.undisturbed(|| {
            counts.clear();
            counts.extend(self.cells().map(|cell| match seen(&cell) {
                true => self.words(self.cell_at(cell) + AT_COUNTS),
                false => [0; ROW_WORDS],
            }));
            (events, histograms) = (Events::default(), Histograms::default());
            for slot in (0..self.slots).map(|slot| self.slots_at + slot * SLOT_WORDS) {
                for row in 0..ROWS {
                    let cell = (self.region.load(slot + row) as usize).wrapping_sub(1);
                    if let Some(counts) = counts.get_mut(cell) {
                        add_up(counts, &self.words(slot + LINE + row * ROW_WORDS));
                    }
                }
                events.add(|word| self.region.load(slot + AT_EVENTS + word));
                histograms.add(|word| self.region.load(slot + AT_HISTOGRAMS + word));
            }
        });
        let mut spaces = Vec::new();
        for cell in self.cells().filter(seen) {
            spaces.try_reserve(1)?;
            let counts = counts[cell as usize];
            let (space, blocks) = (self.space_of(cell), self.blocks(cell));
            spaces.push(SpaceStats { space, entries: entries(&counts), blocks, counts });
        }
        spaces.sort_unstable_by_key(|stats| stats.space);
        Ok(Figures { spaces, events, histograms })
    }

    /// Returns the database and the space of a cell. None for the cell that spaces share.
    fn space_of(&self, cell: u32) -> Option<(u32, u32)> {
        let space_id = !self.cell_word(cell, AT_SPACE).load(Ordering::Relaxed);
        (!self.is_shared(cell)).then_some(((space_id >> 32) as u32, space_id as u32))
    }

    /// Resets the counts of a cell without writing to any of them: stores the present counts, which are subtracted from now on.
    pub(crate) fn reset(&self, cell: u32) {
        let counts = self.counts(cell);
        for (counter, count) in counts.into_iter().enumerate() {
            self.region.store(self.cell_at(cell) + AT_BASELINE + counter, count);
        }
    }

    /// Whether a backend has used the space of a cell: see [`set_space_id`](Self::set_space_id).
    pub(crate) fn has_space_id(&self, cell: u32) -> bool {
        self.cell_word(cell, AT_SPACE).load(Ordering::Relaxed) != 0
    }

    /// Adds to a count and returns the sum.
    #[inline(always)]
    fn add_to_row(&self, row: usize, counter: usize, by: u64) -> u64 {
        let word = self.region.word(self.own + LINE + row * ROW_WORDS + counter);
        let sum = word.load(Ordering::Relaxed).wrapping_add(by);
        word.store(sum, Ordering::Relaxed);
        sum
    }

    fn add_to_cell(&self, cell: u32, counter: usize, by: u64) {
        self.cell_word(cell, AT_COUNTS + counter).fetch_add(by, Ordering::Relaxed);
    }

    /// Returns the row of this backend that has a mark.
    fn row_of(&self, mark: u64) -> Option<usize> {
        (0..ROWS).find(|row| self.region.load(self.own + row) == mark)
    }

    /// Takes a row for a space that has none: the usual one if it is free, or another free one, or the usual one after a fold.
    fn take_row(&self, cell: u32) -> usize {
        let row = self.row_of(0).map_or(cell as usize % ROWS, |free| {
            let home = cell as usize % ROWS;
            if self.region.load(self.own + home) == 0 { home } else { free }
        });
        self.fold(row);
        self.region.store(self.own + row, mark(cell));
        row
    }

    /// Moves the counts of a row into its cell. A row with the mark of no cell is damaged, and its counts are dropped.
    fn fold(&self, row: usize) {
        let Some(cell) = self.region.load(self.own + row).checked_sub(1) else { return };
        let cell = u32::try_from(cell).ok().filter(|cell| *cell < self.cells);
        self.region.word(AT_FOLDS_BEGUN).fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence in `undisturbed`: a reader that sees a word of this fold must also see that the fold has begun.
        fence(Ordering::Release);
        for counter in 0..ROW_WORDS {
            let at = self.own + LINE + row * ROW_WORDS + counter;
            let count = self.region.load(at);
            if let Some(cell) = cell.filter(|_| count != 0) {
                self.add_to_cell(cell, counter, count);
            }
            self.region.store(at, 0);
        }
        self.region.store(self.own + row, 0);
        self.region.word(AT_FOLDS_ENDED).fetch_add(1, Ordering::Release);
    }

    /// Reads while no row is being folded, so that a fold changes no result. If every attempt was disturbed, for example because a
    /// backend died during a fold, or because the memory is damaged, it reads anyway. Then a count may be off by the rows that are
    /// being folded.
    fn undisturbed<T>(&self, mut read: impl FnMut() -> T) -> T {
        for attempt in 0..ATTEMPTS + YIELDS {
            let ended = self.region.word(AT_FOLDS_ENDED).load(Ordering::Acquire);
            let result = read();
            fence(Ordering::Acquire);
            if self.region.load(AT_FOLDS_BEGUN) == ended {
                return result;
            }
            if attempt >= ATTEMPTS {
                crate::sync::yield_now();
            }
        }
        read()
    }

    /// Returns the positions of the rows with a wanted mark.
    fn rows(&self, wanted: impl Fn(u64) -> bool) -> impl Iterator<Item = usize> {
        let slots = (0..self.slots).map(|slot| self.slots_at + slot * SLOT_WORDS);
        slots
            .flat_map(|slot| (0..ROWS).map(move |row| (slot + row, slot + LINE + row * ROW_WORDS)))
            .filter(move |(mark_at, _)| wanted(self.region.load(*mark_at)))
            .map(|(_, row_at)| row_at)
    }

    /// Returns a row of counts from its position.
    fn words(&self, at: usize) -> Counts {
        std::array::from_fn(|counter| self.region.load(at + counter))
    }

    fn cell_at(&self, cell: u32) -> usize {
        self.cells_at + cell.min(self.cells - 1) as usize * CELL_WORDS
    }

    fn cell_word(&self, cell: u32, word: usize) -> &'m AtomicU64 {
        self.region.word(self.cell_at(cell) + word)
    }
}

/// Returns the mark that a row of this cell has. A row without a cell has the mark 0.
#[inline(always)]
fn mark(cell: u32) -> u64 {
    u64::from(cell) + 1
}

fn add_up(sum: &mut Counts, counts: &Counts) {
    for (sum, count) in sum.iter_mut().zip(counts) {
        *sum = sum.wrapping_add(*count);
    }
}
