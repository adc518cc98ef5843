//! The records of segments in shared memory: which table a segment is, and how full it is.
//!
//! ```text
//! word 0   database : 32 | table : 32       0 if the segment is free
//! word 1   file : 32     | turn : 32        turn: the order in which segments were begun; 0 if no location leads to it
//! word 2   to be freed : 1 | rows : 24 | bytes of the table : 39
//! word 3   began : 32    | expires : 32     the tick of the first row, and the latest tick at which a row is of use
//! ```
//!
//! A tick is 50 ms on the clock of `pg/clock.rs`. A *segment* is a table of saved values, one of `pgcache.segment_1` to
//! `segment_8` in some database. Segments are numbered for the whole server, from 0. A number without a table is *free*. A segment
//! with a table is *in use*, *retired* or *empty*. Retiring it drops its *locations*, the words in shared memory that lead to its
//! rows, which is always possible. Its table is emptied when no other session has a lock on it, which may take as long as a
//! transaction of that session.
//!
//! The *saver*, the worker of the table's database, writes the record (`saver/`). Other processes may read it, and may only ask for
//! the segment ([`Record::ask_to_free`]) or do what a function here allows while that saver does not run.

use crate::pg::shared::{self, HotTier};
use pg_cache_core::{SEGMENTS_MAX, SegmentRecord};

// The words of a record.
const OWNER: usize = 0;
const FILE: usize = 1;
const USE: usize = 2;
const TICKS: usize = 3;
// The parts of the word of the use. 39 bits are 512 GB, and 24 bits 16 million values; larger numbers are cut to these.
const BYTES_BITS: u32 = 39;
const ROWS_BITS: u32 = 24;
const TO_BE_FREED: u64 = 1 << 63;
/// One hour (in milliseconds) after the first row of a segment was written, its rows that are still in use are copied on, and the
/// others leave the disk. This does not hold for the segment that is being filled.
const KEPT_MS: u64 = 60 * 60 * 1000;

/// The content of a segment's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The OID of the database.
    pub database: u32,
    /// The OID of the table.
    pub table: u32,
    /// The number of the table's file, by which a rewritten table is noticed. 0 if the segment is retired or new.
    pub file: u32,
    /// The order in which segments were begun: a smaller number is older. 0 if the segment is retired or empty.
    pub turn: u32,
    /// The bytes of the table.
    pub bytes: u64,
    /// The number of values that were appended.
    pub rows: u32,
    /// Whether the saver of another database waits for this segment's space.
    pub is_to_be_freed: bool,
    /// The tick at which the first row was written, or at which the segment was retired.
    pub began: u32,
    /// The latest tick at which a value may be served.
    pub expires: u32,
}

impl Record {
    /// Reads the words one after the other, or returns None if the segment is free. The saver may write meanwhile, so the words may
    /// be from different moments.
    fn of(words: SegmentRecord<'_>) -> Option<Self> {
        let owner = words.word(OWNER);
        let (file, usage, ticks) = (words.word(FILE), words.word(USE), words.word(TICKS));
        (owner != 0).then_some(Self {
            database: (owner >> 32) as u32,
            table: owner as u32,
            file: (file >> 32) as u32,
            turn: file as u32,
            bytes: usage & ((1 << BYTES_BITS) - 1),
            rows: (usage >> BYTES_BITS) as u32 & ((1 << ROWS_BITS) - 1),
            is_to_be_freed: usage & TO_BE_FREED != 0,
            began: (ticks >> 32) as u32,
            expires: ticks as u32,
        })
    }

    /// Returns the record of a segment, or None if the segment is free.
    pub fn read(tier: &HotTier, segment: u16) -> Option<Self> {
        Self::of(tier.segment(segment)?)
    }

    /// Returns whether no location leads to the segment, but its table still has rows.
    pub fn is_retired(&self) -> bool {
        self.turn == 0 && self.bytes > 0
    }

    /// Returns whether the table has no rows, so that values can be saved in it from its first block on.
    pub fn is_empty(&self) -> bool {
        self.turn == 0 && self.bytes == 0
    }

    /// Whether the segment has had rows for longer than it should.
    pub fn is_old(&self) -> bool {
        shared::ms_since(self.began) >= KEPT_MS
    }

    /// Writes the record, except for the database and the table, which stay until [`release`]. Only the saver of the database may
    /// call this.
    pub fn write(&self, tier: &HotTier, segment: u16) {
        if let Some(words) = tier.segment(segment) {
            words.set_word(USE, self.usage());
            words.set_word(TICKS, u64::from(self.began) << 32 | u64::from(self.expires));
            words.set_word(FILE, u64::from(self.file) << 32 | u64::from(self.turn));
        }
    }

    /// Asks the saver of the segment's database to free the segment, unless the use of the segment has changed since the record was
    /// read. Any process may call this.
    pub fn ask_to_free(&self, tier: &HotTier, segment: u16) {
        if let Some(words) = tier.segment(segment) {
            let usage = self.usage();
            words.replace(USE, usage, usage | TO_BE_FREED);
        }
    }

    /// Returns the word of the segment's use.
    fn usage(&self) -> u64 {
        let rows = u64::from(self.rows.min((1 << ROWS_BITS) - 1));
        let bytes = self.bytes.min((1 << BYTES_BITS) - 1);
        u64::from(self.is_to_be_freed) << 63 | rows << BYTES_BITS | bytes
    }
}

/// Calls `with` with each segment that is not free, of all databases.
pub fn each(tier: &HotTier, mut with: impl FnMut(u16, Record)) {
    for segment in 0..SEGMENTS_MAX {
        if let Some(record) = Record::read(tier, segment) {
            with(segment, record);
        }
    }
}

/// Returns the bytes of all segments of the server.
pub fn bytes(tier: &HotTier) -> u64 {
    let mut sum: u64 = 0;
    each(tier, |_, record| sum = sum.saturating_add(record.bytes));
    sum
}

/// Returns the bytes that count towards `limit`, which is `pg_cache.table_size`. `segment_bytes` is the size of a full segment.
/// Retired segments count, too, but they leave room for two segments, so that tables that cannot be emptied never keep all
/// databases from saving.
pub fn counted(tier: &HotTier, limit: u64, segment_bytes: u64) -> u64 {
    let (mut in_use, mut retired) = (0_u64, 0_u64);
    each(tier, |_, record| {
        let sum = if record.is_retired() { &mut retired } else { &mut in_use };
        *sum = sum.saturating_add(record.bytes);
    });
    in_use.saturating_add(retired.min(limit.saturating_sub(2 * segment_bytes)))
}

/// Makes the values of a segment misses. The next append to the segment is possible only after its table was emptied, because no
/// table has the file 0. Another process than the saver of the segment's database may call this only while that saver does not run.
pub fn retire(tier: &HotTier, segment: u16) {
    tier.forget_segment(segment);
    if let Some(record) = Record::read(tier, segment).filter(|record| record.turn > 0) {
        let began = shared::tick();
        // The table may have rows that were not counted, so that it must not seem to be empty.
        let bytes = record.bytes.max(1);
        Record { file: 0, turn: 0, rows: 0, bytes, is_to_be_freed: false, began, expires: 0, ..record }
            .write(tier, segment);
    }
}

/// Returns the segment of a table of this database, and makes the table a segment if it is none. None if the server has no free
/// segment: there are 1024. Only the saver of the database may call this.
pub fn adopt(tier: &HotTier, table: u32) -> Option<u16> {
    let mine = u64::from(shared::database()) << 32 | u64::from(table);
    let owner = |segment: u16| tier.segment(segment).map_or(0, |words| words.word(OWNER));
    let known = (0..SEGMENTS_MAX).find(|segment| owner(*segment) == mine);
    known.or_else(|| {
        (0..SEGMENTS_MAX)
            .find(|segment| tier.segment(*segment).is_some_and(|words| words.replace(OWNER, 0, mine)))
    })
}

/// Makes a segment free. No location may lead to it (`forget_segment`). The word with the table must become 0 last: after that, the
/// saver of any database may [`adopt`] the segment. Another process than the saver of its database may call this only while that
/// saver does not run.
pub fn release(tier: &HotTier, segment: u16) {
    if let Some(words) = tier.segment(segment) {
        [FILE, USE, TICKS, OWNER].into_iter().for_each(|index| words.set_word(index, 0));
    }
}
