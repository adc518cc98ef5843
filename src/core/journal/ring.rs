//! The ring of the journal, and how records are appended to it. The *journal* names what has changed, for caches outside of the
//! database. `mod.rs` has the rules for writers.
//!
//! A *record* names one change, and takes one or more *lines* of the ring. The *lap* of a line counts how often the ring has been
//! gone around. A *batch* is the records of one commit.

use super::line::{Line, Record};
use crate::layout::{JOURNAL_HEAD_WORDS, LINE, Layout};
use crate::region::Region;
use crate::sync::{Ordering, fence};

/// A batch with more records is replaced by one record that stands for all of them. `docs/near-caches.md` names this limit.
pub const BATCH_MAX: usize = 1000;
/// A batch that takes more than one in this many lines of the ring is replaced, too, so that one commit does not push all earlier
/// records out.
const RING_SHARE: u64 = 4;

/// The position of the base from the start of the journal, in words. It has a cache line of its own.
const AT_BASE: usize = 0;
/// The position of the tail from the start of the journal, in words. It has a cache line of its own.
pub(super) const AT_TAIL: usize = LINE;

/// The journal of a region. It may have no lines: then nothing is appended, and every reader has lost everything.
#[derive(Clone, Copy, Debug)]
pub struct Journal<'m> {
    /// The shared memory.
    pub(super) region: Region<'m>,
    /// The position of the journal in the region, in words.
    pub(super) at: usize,
    /// The number of lines of the ring.
    pub(super) lines: u64,
}

/// The size of a batch in the ring.
enum Size {
    /// The number of lines that all records take together.
    Lines(u64),
    /// Too many. This record stands for all of them.
    Replaced(Record<'static>),
}

impl<'m> Journal<'m> {
    pub(crate) fn new(region: Region<'m>, layout: &Layout) -> Self {
        Self { region, at: layout.journal_at, lines: layout.sizes.journal_lines.into() }
    }

    /// Returns whether the journal has room for records.
    pub fn exists(&self) -> bool {
        self.lines > 0
    }

    /// Begins a life of the journal if it has none: all its numbers are greater than `base`. Several processes may call this at the
    /// same time. `base` must not be 0, and must be greater than all numbers of earlier lives.
    pub fn begin(&self, base: impl FnOnce() -> u64) {
        if self.exists() && self.base() == 0 {
            let word = self.region.word(self.at + AT_BASE);
            // If another process was first, its base counts.
            let _ = word.compare_exchange(0, base().max(1), Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// Returns the number of the last record, whether it is written yet or not, or the base if there is no record. None before the
    /// first life.
    pub fn last(&self) -> Option<u64> {
        let base = self.base();
        (base > 0).then(|| base + self.tail())
    }

    /// Appends records, in order and without others between them. The changes that they name must be visible to all sessions
    /// already. `records` should yield the same records each time that it is cloned; otherwise some of them may be replaced by one
    /// that says that everything has changed.
    ///
    /// Neither waits nor allocates nor fails. The life of the journal must have begun ([`begin`](Self::begin)).
    pub fn append<'r>(&self, records: impl Iterator<Item = Record<'r>> + Clone, tick: u32) {
        if !self.exists() {
            return;
        }
        match self.measure(records.clone()) {
            Size::Lines(0) => {}
            Size::Lines(lines) => self.reserve(lines).write(records, tick),
            Size::Replaced(record) => self.reserve(1).write(std::iter::once(record), tick),
        }
    }

    /// Returns how many lines a batch takes in the ring, or the record that replaces it.
    fn measure<'r>(&self, records: impl Iterator<Item = Record<'r>> + Clone) -> Size {
        let (mut lines, mut count) = (0, 0);
        for record in records.clone() {
            lines += record.lines();
            count += 1;
        }
        if count <= BATCH_MAX && lines <= (self.lines / RING_SHARE).max(1) {
            return Size::Lines(lines);
        }
        let cover = |cover: Option<Record<'static>>, record: Record<'_>| {
            Some(cover.map_or_else(|| record.cover(), |cover| cover.with(&record)))
        };
        Size::Replaced(records.fold(None, cover).unwrap_or(Record::EVERYTHING))
    }

    /// Reserves lines for a batch. The caller must [write](Reserved::write) them, or readers wait for them for ever.
    pub(super) fn reserve(&self, lines: u64) -> Reserved<'m> {
        let at = self.region.word(self.at + AT_TAIL).fetch_add(lines, Ordering::AcqRel);
        // A reader that sees any word of these lines must also see that they are reserved.
        fence(Ordering::Release);
        Reserved { journal: *self, at, end: at + lines }
    }

    pub(super) fn base(&self) -> u64 {
        self.region.word(self.at + AT_BASE).load(Ordering::SeqCst)
    }

    pub(super) fn tail(&self) -> u64 {
        self.region.word(self.at + AT_TAIL).load(Ordering::Acquire)
    }

    /// Returns the line at a position, and its lap.
    pub(super) fn line(&self, position: u64) -> Line<'m> {
        let index = (position % self.lines) as usize;
        let lap = (position / self.lines + 1) as u32;
        Line::new(self.region, self.at + JOURNAL_HEAD_WORDS + index * LINE, lap)
    }
}

/// Lines that are reserved, and not written yet.
pub(super) struct Reserved<'m> {
    /// The journal that the lines belong to.
    journal: Journal<'m>,
    /// The position of the first line that is not written yet.
    at: u64,
    /// The position behind the last line.
    end: u64,
}

impl Reserved<'_> {
    /// Writes all of the reserved lines. If the records take fewer lines than were reserved, or more, the rest of the lines says
    /// that everything in all databases has changed. This happens if a relation has become one that must be named since the records
    /// were measured.
    pub(super) fn write<'r>(mut self, records: impl Iterator<Item = Record<'r>>, tick: u32) {
        let mut records = records.fuse().peekable();
        while self.at < self.end {
            let room = self.end - self.at;
            let next = records
                .next()
                .filter(|record| record.lines() < room || record.lines() == room && records.peek().is_none());
            let record = next.unwrap_or(Record::EVERYTHING);
            record.write(tick, |part| self.journal.line(self.at + part));
            self.at += record.lines();
        }
    }
}
