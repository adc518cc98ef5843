//! Frees segments: copies the rows that are still needed to the current segment, and empties the table of the segment.
//!
//! A table can be emptied only while no other session has a lock on it. If a session has one, the segment is *retired*: no location
//! leads to its rows any more, and its table is emptied later (`record.rs`). A *location* says in which row a saved value is.

use super::appending::Copied;
use super::{APPENDED_MAX, MARKED_MAX, ROW_BYTES, SEGMENTS, Saver};
use crate::pg::memory;
use crate::pg::segment::Segment;
use crate::pg::settings;
use crate::pg::shared;
use crate::store::keyspace::hash;
use crate::store::table::record::{self, Record};
use crate::store::table::{reading, row};
use pg_cache_core::{Key, Location, SavedValue};

/// The rows of a segment that the saver copies to another segment before it frees the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// Those that a reader has asked for, up to a quarter of a segment.
    Asked,
    /// All that are in use.
    All,
}

impl Saver {
    /// Empties the tables of retired segments, and frees one segment that is due, the oldest first. A segment is due if its rows
    /// have all expired or are mostly out of use, or if it is too old. It is also due if another database waits for its space, if
    /// the segments exceed `pg_cache.table_size`, or if no segment is empty. Without `copies`, no row is copied on: that may need
    /// disk space. Returns whether a table was emptied, and None if the tables are gone: then the saver must end.
    pub fn maintain(&mut self, copies: bool) -> Option<bool> {
        if !self.has_tables() {
            return None;
        }
        let retired: Vec<u16> = memory::collect(
            self.records().filter(|(_, record)| record.is_retired()).map(|(number, _)| number),
        );
        let emptied = retired.into_iter().filter(|number| self.empty(*number)).count() > 0;
        let Some((number, keep)) = self.segment_to_free() else { return Some(emptied) };
        if copies {
            self.copy_on(number, keep);
        }
        Some(self.free(number) || emptied)
    }

    /// Returns the oldest segment that is to be freed, and which of its rows are copied on before.
    fn segment_to_free(&self) -> Option<(u16, Keep)> {
        let youngest = self.records().map(|(_, record)| record.turn).max().filter(|turn| *turn > 0)?;
        let (used, now) = (self.used_rows(), shared::tick());
        let has_empty = self.records().any(|(_, record)| record.is_empty());
        let too_large = self.counted() > settings::table_bytes();
        let mut due: Option<(u32, u16, Keep)> = None;
        for (number, record) in self.records().filter(|(_, record)| record.turn > 0) {
            let used = used.iter().find(|(of, _)| *of == number).map_or(0, |(_, count)| *count);
            let is_youngest = record.turn == youngest;
            let keep = if record.expires <= now || used == 0 && !is_youngest {
                Some(Keep::All)
            } else if record.is_to_be_freed || too_large {
                Some(Keep::Asked)
            } else if !is_youngest && (used * 2 < record.rows || record.is_old()) {
                Some(Keep::All)
            } else if !has_empty && !is_youngest {
                Some(Keep::Asked)
            } else {
                None
            };
            if let Some(keep) = keep
                && due.is_none_or(|(turn, ..)| record.turn < turn)
            {
                due = Some((record.turn, number, keep));
            }
        }
        due.map(|(_, number, keep)| (number, keep))
    }

    /// Returns how many rows of each segment of this database have a location.
    fn used_rows(&self) -> [(u16, u32); SEGMENTS] {
        let mut used = [(u16::MAX, 0); SEGMENTS];
        used.iter_mut().zip(&self.segments).for_each(|(count, number)| count.0 = *number);
        for shard in 0..self.tier.shards() {
            self.tier.each_location(shard, |location, _| {
                if let Some((_, count)) = used.iter_mut().find(|(number, _)| *number == location.segment()) {
                    *count += 1;
                }
            });
        }
        used
    }

    /// Copies rows of a segment to the current one, and moves their locations. Stops early if the segment cannot be read, or if no
    /// segment has room: the other rows are lost when the segment is freed.
    fn copy_on(&mut self, number: u16, keep: Keep) {
        let mut locations = Vec::new();
        for shard in 0..self.tier.shards() {
            self.tier.each_location(shard, |location, asked| {
                if location.segment() == number && (asked || keep == Keep::All) {
                    memory::push(&mut locations, location);
                }
            });
        }
        let mut left = match keep {
            Keep::Asked => Self::segment_bytes() / 4,
            Keep::All => u64::MAX,
        };
        let mut rest = &locations[..];
        while !rest.is_empty() {
            let Some((copies, looked)) = self.copies_of_rows(number, rest) else { return };
            rest = &rest[looked..];
            if copies.is_empty() {
                continue;
            }
            let is_within = |(_, one): &&(Location, Copied)| {
                left = left.saturating_sub(ROW_BYTES + one.content.len() as u64);
                left > 0
            };
            let count = copies.iter().take_while(is_within).count();
            let (from, copies): (Vec<_>, Vec<_>) = copies.into_iter().take(count).unzip();
            let Some(places) = self.append(&copies).filter(|_| count > 0) else { return };
            for ((from, one), to) in from.into_iter().zip(&copies).zip(places) {
                let scope = self.tier.scope(shared::database(), one.space, one.role);
                if let Some((key, to)) = Key::new(scope, &one.key, hash(&one.key)).zip(to) {
                    self.tier.move_location(&key, from, to);
                }
            }
            shared::check_for_interrupts();
        }
    }

    /// Copies the values at the first of some locations of a segment, if they may still be served. Returns them, and at how many
    /// locations it has looked. None if the segment cannot be read.
    fn copies_of_rows(
        &self,
        number: u16,
        locations: &[Location],
    ) -> Option<(Vec<(Location, Copied)>, usize)> {
        let record = Record::read(self.tier, number)?;
        let segment = Segment::to_read(record.table).filter(|open| open.file() == record.file)?;
        let copy = |location: &Location| {
            let found = segment.row(location.position())?;
            let first = found.row();
            let dependencies = row::dependencies(&first);
            let (meta, stale_ok) = (row::meta(&first), row::stale_ok(&first));
            let scope = self.tier.scope(shared::database(), first.space, first.role);
            let saved = SavedValue { key: first.key, meta, dependencies: &dependencies, stale_ok };
            if !row::is_current(&first) || first.part != 0 || self.tier.is_saved_useless(&scope, &saved) {
                return None;
            }
            let note_len = first.note.min(first.length) as usize;
            let mut content = memory::zeroed(note_len + meta.value_len);
            let (note, value) = content.split_at_mut(note_len);
            let key = memory::copy(first.key);
            let (space, role) = (first.space, first.role);
            let is_whole = reading::copy(&segment, location.position(), &found, note, value);
            let copied = Copied { key, dependencies, content, note_len, meta, stale_ok, space, role };
            is_whole.then_some((*location, copied))
        };
        let (mut copies, mut bytes, mut looked) = (Vec::new(), 0, 0);
        for location in locations.iter().take(MARKED_MAX) {
            looked += 1;
            if let Some((location, one)) = copy(location) {
                bytes += one.key.len() + one.content.len();
                memory::push(&mut copies, (location, one));
            }
            if bytes >= APPENDED_MAX {
                break;
            }
        }
        Some((copies, looked))
    }

    /// Empties a segment, or retires it if its table is locked. No location leads to it afterwards. Returns whether its table was
    /// emptied.
    pub(super) fn free(&self, number: u16) -> bool {
        let is_empty = self.empty(number);
        if !is_empty {
            record::retire(self.tier, number);
        }
        is_empty
    }

    /// Empties a segment if no other session has a lock on its table. Returns whether it was emptied; if not, nothing has changed.
    fn empty(&self, number: u16) -> bool {
        let Some(record) = Record::read(self.tier, number) else { return false };
        let Some(segment) = Segment::to_truncate(record.table) else { return false };
        self.tier.forget_segment(number);
        segment.truncate();
        Record { file: segment.file(), turn: 0, rows: 0, bytes: 0, is_to_be_freed: false, ..record }
            .write(self.tier, number);
        true
    }
}
