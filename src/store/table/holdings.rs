//! The segments that each database has: found in one walk through the records of all segments (`record.rs`). The launcher, the
//! background worker that starts the others, reads this to decide which databases need a saver, and `cache_health` does.
//!
//! A *segment* is a table of saved values. The *saver* is the worker of a database that copies entries to its segments. A segment
//! is *retired* while its values are misses and its table waits to be emptied.

use super::record::{self, Record};
use crate::pg::memory;
use crate::pg::shared::{self, HotTier};
use pg_cache_core::SEGMENTS_MAX;
use std::collections::BTreeMap;

/// A saver needs one segment to append to, and one that is empty.
pub const SEGMENTS_LEAST: usize = 2;

/// The segments of all databases.
#[derive(Debug, Default)]
pub struct Holdings {
    /// The numbers and records of the segments, by the OID of the database.
    by_database: BTreeMap<u32, Vec<(u16, Record)>>,
    /// How many segments are free.
    free: usize,
}

impl Holdings {
    /// Reads all records. May raise errors.
    pub fn read(tier: &HotTier) -> Self {
        memory::check();
        let mut holdings = Self { by_database: BTreeMap::new(), free: SEGMENTS_MAX.into() };
        record::each(tier, |number, record| {
            memory::push(holdings.by_database.entry(record.database).or_default(), (number, record));
            holdings.free -= 1;
        });
        holdings
    }

    /// Whether a saver of the database has enough segments, or can get them.
    pub fn can_save(&self, database: u32) -> bool {
        self.free + self.by_database.get(&database).map_or(0, Vec::len) >= SEGMENTS_LEAST
    }

    /// Returns the databases whose savers have to empty tables, even if no new values are stored there. With `is_off`, the table
    /// tier is off, and all tables are to be emptied. Each of these reasons must also be one for which `Saver::maintain` frees a
    /// segment (`saver/freeing.rs`): otherwise the launcher would start savers that find nothing to do.
    pub fn to_empty(&self, is_off: bool) -> impl Iterator<Item = u32> {
        let is_due = move |segments: &[(u16, Record)]| {
            let youngest = segments.iter().map(|(_, record)| record.turn).max();
            segments.iter().any(|(_, record)| {
                record.is_to_be_freed
                    || record.is_retired()
                    || is_off && !record.is_empty()
                    || record.turn > 0 && record.expires <= shared::tick()
                    || record.turn > 0 && record.is_old() && Some(record.turn) != youngest
            })
        };
        self.by_database.iter().filter(move |(_, segments)| is_due(segments)).map(|(database, _)| *database)
    }

    /// Returns the databases that have segments.
    pub fn databases(&self) -> impl Iterator<Item = u32> {
        self.by_database.keys().copied()
    }

    /// Calls `with` with each database that has no saved values, and with its segments.
    pub fn each_unused(&self, mut with: impl FnMut(u32, &[(u16, Record)])) {
        for (database, segments) in &self.by_database {
            if segments.iter().all(|(_, record)| record.is_empty()) {
                with(*database, segments);
            }
        }
    }
}
