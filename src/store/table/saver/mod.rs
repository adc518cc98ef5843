//! The saver of a database: copies entries to its segments, the tables of saved values (`record.rs`), and frees segments.
//! `workers/saving.rs` calls it about every 100 milliseconds, and more often while many entries are evicted.
//!
//! Rules:
//! - Only the worker of the database runs this code, so there is one saver for a database.
//! - Each method must be called in a transaction of the worker. An error ends the saver. That loses nothing: a row without a
//!   *location* in the directory, the list in shared memory of where values are saved, does not exist (`core/tier/directory.rs`).
//!   The next saver reads from the records (`record.rs`) which tables are segments, how full they are, and which one is the
//!   current one.
//! - The saver fills one segment after the other. When the current one is full, it goes on with an empty one. As soon as no segment
//!   is empty, the saver frees the oldest one, and copies rows that readers have asked for to the current segment first, up to a
//!   quarter of a segment. `freeing.rs` has the other reasons to free a segment. So there are no deleted rows, and no old snapshot
//!   can make a table grow.
//!
//! ```text
//! mod.rs         the saver and the segments of its database
//! saving.rs      chooses entries and saves them
//! walk.rs        the rounds and pauses of the walk through all entries
//! appending.rs   appends copies to the current segment
//! freeing.rs     frees segments, and copies their rows on
//! ```

mod appending;
mod freeing;
mod saving;
mod walk;

use super::holdings::SEGMENTS_LEAST;
use super::record::{self, Record};
use crate::pg::catalog;
use crate::pg::memory;
use crate::pg::segment::{self, Segment};
use crate::pg::settings;
use crate::pg::shared::{self, HotTier};
use crate::store::keyspace::Tiers;
use pg_cache_core::Batch;
use std::collections::BTreeMap;
use walk::Walk;

/// The number of tables that `sql/segments.sql` creates.
pub const SEGMENTS: usize = 8;

/// The most entries that the saver marks in one hold of a shard's lock, so that the lock is held for a short time. It marks the
/// entries that it is about to copy; a change of an entry takes the mark away (`saving.rs`).
const MARKED_MAX: usize = 128;

/// The most bytes that are appended at once, unless one value is larger. This bounds the memory of the copies.
const APPENDED_MAX: usize = 1 << 20;

/// The least size of a segment in bytes: eight blocks of 8 kB.
const SEGMENT_BYTES_MIN: u64 = 64 << 10;

/// An estimate of the bytes that a row takes besides its key, its note and its value. It only serves to compare sizes with limits.
const ROW_BYTES: u64 = 120;

/// A saver. It exists as long as its worker.
#[derive(Debug)]
pub struct Saver {
    tier: &'static HotTier,
    /// The segments of this database, in the order of their names.
    segments: Vec<u16>,
    /// The number of the last value. The values of a saver are numbered from 1 on.
    item: i64,
    /// The generation of the extension's tables (`catalog::generation`), and where each space of this database keeps its entries as
    /// of then. The generation is 0 before the first look.
    spaces: (u64, BTreeMap<u32, Tiers>),
    /// The memory for the list of marked entries (`saving.rs`), which is used again and again.
    batch: Batch,
    /// The walk through all entries (`walk.rs`).
    walk: Walk,
    /// The number of evictions at the last look for entries that will be evicted soon.
    evicted: u64,
    /// Whether marked entries could not be saved. The next look must then mark them again.
    has_failed: bool,
    /// How many values were saved.
    pub saved: u64,
    /// How many copies came too late, because the entry had changed.
    pub outdated: u64,
}

/// How many entries were to be saved because they will be evicted soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DueEntries {
    None,
    Few,
    /// At least one full batch of a shard, from which values were saved. More entries may be due, and may be evicted before a later
    /// call would save them.
    Many,
}

impl Saver {
    /// Makes the saver of this database, and makes its tables segments. None if there is no tier with a directory, no memory, or
    /// if fewer than [`SEGMENTS_LEAST`] tables are segments. No other saver of the database may exist.
    pub fn new() -> Option<Self> {
        let tier = shared::tier().filter(|tier| tier.has_directory())?;
        let mut saver = Self {
            tier,
            segments: Vec::new(),
            item: 0,
            spaces: (0, BTreeMap::new()),
            batch: Batch::with_room(MARKED_MAX).ok()?,
            walk: Walk::default(),
            evicted: 0,
            // An earlier saver may have marked entries that it did not save.
            has_failed: true,
            saved: 0,
            outdated: 0,
        };
        let tables = segments_of_extension();
        // The extension may have been dropped, and created again, while no worker ran. The records of its old tables are then
        // still there.
        record::each(tier, |number, record| {
            if record.database == shared::database() && !tables.contains(&record.table) {
                tier.forget_segment(number);
                record::release(tier, number);
            }
        });
        for table in tables {
            let Some(number) = record::adopt(tier, table) else { break };
            memory::push(&mut saver.segments, number);
            saver.verify(number);
        }
        if saver.segments.len() >= SEGMENTS_LEAST {
            return Some(saver);
        }
        // This database has too few segments to save values. It gives the empty ones back, so that another database may have
        // enough.
        let unused = saver.records().filter(|(_, record)| record.is_empty());
        unused.for_each(|(number, _)| record::release(tier, number));
        None
    }

    /// Frees a segment ([`Self::free`]) whose table has another file than its record says: the table has become a segment in
    /// [`Self::new`], the segment is retired, or a command has rewritten the table. This also holds for a table that cannot be
    /// locked at once, because a command may be rewriting it. The record gets the present size first: a table with rows must not
    /// count as empty if it cannot be emptied now.
    fn verify(&self, number: u16) {
        let Some(record) = Record::read(self.tier, number) else { return };
        let (file, bytes) =
            Segment::to_read(record.table).map_or((0, record.bytes), |open| (open.file(), open.bytes()));
        if file == 0 || file != record.file {
            Record { bytes, ..record }.write(self.tier, number);
            self.free(number);
        }
    }

    /// Returns the records of this database's segments, each with the number of its segment.
    fn records(&self) -> impl Iterator<Item = (u16, Record)> + '_ {
        self.segments.iter().filter_map(|number| Some((*number, Record::read(self.tier, *number)?)))
    }

    /// Returns the size of a full segment in bytes. It does not depend on the number of databases, although all databases share
    /// `pg_cache.table_size`.
    fn segment_bytes() -> u64 {
        (settings::table_bytes() / SEGMENTS as u64).max(SEGMENT_BYTES_MIN)
    }

    /// Returns whether a segment of this database must be freed soon: because none is empty, or because another database waits for
    /// the space of one.
    pub fn needs_segment(&self) -> bool {
        !self.records().any(|(_, record)| record.is_empty())
            || self.records().any(|(_, record)| record.is_to_be_freed)
    }

    /// Returns whether no segment of this database has rows.
    pub fn is_empty(&self) -> bool {
        self.records().all(|(_, record)| record.is_empty())
    }

    /// Returns whether all tables are there. If not, the extension was dropped, and the segments become free.
    fn has_tables(&self) -> bool {
        let tables = segments_of_extension();
        let gone = self.records().filter(|(_, record)| !tables.contains(&record.table));
        let gone: Vec<u16> = memory::collect(gone.map(|(number, _)| number));
        gone.iter().for_each(|number| {
            self.tier.forget_segment(*number);
            record::release(self.tier, *number);
        });
        gone.is_empty()
    }
}

/// Returns the tables of this database that the saver may write to.
fn segments_of_extension() -> Vec<u32> {
    catalog::schema_of_extension().map_or(Vec::new(), |schema| segment::all(schema, SEGMENTS))
}
