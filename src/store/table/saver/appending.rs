//! Appends copies of entries, or of rows, to the current segment: the table of saved values that the saver of this database is
//! filling (`saver/mod.rs`). Returns where each copy is. A copy counts only once its *location* is in the directory in shared
//! memory (`core/tier/directory.rs`), which is up to the caller.

use super::{ROW_BYTES, Saver};
use crate::pg::memory;
use crate::pg::segment::{self, Segment, SegmentRow};
use crate::pg::settings;
use crate::pg::shared;
use crate::store::table::record::{self, Record};
use crate::store::table::row::{self, FORMAT};
use pg_cache_core::{FenceId, Location, Meta, StaleOk};

/// A copy of an entry or of a row, on its way to a row.
pub(super) struct Copied {
    /// The key.
    pub key: Vec<u8>,
    /// The fences of the value's dependencies.
    pub dependencies: Vec<FenceId>,
    /// The bytes of the note (`store/note.rs`), followed by the bytes of the value.
    pub content: Vec<u8>,
    /// The number of bytes of the note.
    pub note_len: usize,
    /// The properties of the value.
    pub meta: Meta,
    /// How long the value may be served stale. None if it may not be.
    pub stale_ok: Option<StaleOk>,
    /// The OID of the space.
    pub space: u32,
    /// The OID of the role that owns the entry, or 0.
    pub role: u32,
}

impl Saver {
    /// Appends values to the current segment. Returns the location of each, or None for a value whose parts are not consecutive.
    /// None altogether if nothing was appended: no segment has room now, or the table of the current one is locked or was
    /// rewritten. May raise errors.
    pub(super) fn append(&mut self, copies: &[Copied]) -> Option<Vec<Option<Location>>> {
        let wanted = copies.iter().map(|one| ROW_BYTES + (one.key.len() + one.content.len()) as u64).sum();
        let (number, mut record) = self.current(wanted)?;
        let Some(segment) = Segment::to_append(record.table) else {
            // Another session has locked the table. The values are marked again, and go to the next segment then.
            self.begin();
            return None;
        };
        if segment.file() != record.file {
            drop(segment);
            self.free(number);
            return None;
        }
        let fences: Vec<Vec<u8>> = memory::collect(copies.iter().map(|one| {
            memory::collect(one.dependencies.iter().flat_map(|fence| fence.number().to_ne_bytes()))
        }));
        let (mut rows, mut heads) = (Vec::new(), Vec::new());
        for (one, dependencies) in copies.iter().zip(&fences) {
            self.item += 1;
            memory::push(&mut heads, rows.len());
            row::parts_of(self.row(one, dependencies), |part| memory::push(&mut rows, part));
        }
        let positions = segment.append(&rows);
        let place = |(index, head): (usize, &usize)| {
            let end = heads.get(index + 1).copied().unwrap_or(rows.len());
            let parts = positions.get(*head..end)?;
            let follows = |pair: &[u64]| segment::is_next(pair[0], pair[1]);
            let is_consecutive = parts.windows(2).all(follows);
            parts.first().filter(|_| is_consecutive).and_then(|first| Location::new(number, *first))
        };
        let places = memory::collect(heads.iter().enumerate().map(place));
        record.bytes = segment.bytes();
        record.rows = record.rows.saturating_add(heads.len() as u32);
        record.expires = copies.iter().map(last_tick).fold(record.expires, u32::max);
        record.write(self.tier, number);
        Some(places)
    }

    /// Returns a value as one row. `dependencies` are its fences in the form of the row.
    fn row<'r>(&self, one: &'r Copied, dependencies: &'r [u8]) -> SegmentRow<'r> {
        let stale_ok = one.stale_ok.unwrap_or(StaleOk { ticks: 0, valid_at: 0 });
        SegmentRow {
            format: FORMAT,
            kind: one.meta.kind.0.into(),
            part: 0,
            space: one.space,
            role: one.role,
            item: self.item,
            stamp: one.meta.stamp.as_u64() as i64,
            cost: one.meta.cost.micros() as i64,
            created: one.meta.created,
            expires: one.meta.expires,
            stale_ticks: stale_ok.ticks,
            valid_at: stale_ok.valid_at,
            length: one.content.len() as u32,
            note: one.note_len as u32,
            epoch: shared::content_id(),
            key: &one.key,
            dependencies,
            value: &one.content,
        }
    }

    /// Returns the segment to append to. Goes on to an empty segment if the current one has no room for `wanted` more bytes. None
    /// if there is no segment to go on to.
    fn current(&self, wanted: u64) -> Option<(u16, Record)> {
        let youngest =
            self.records().filter(|(_, record)| record.turn > 0).max_by_key(|(_, record)| record.turn);
        if let Some((number, record)) = youngest
            && record.bytes + wanted <= Self::segment_bytes()
        {
            return Some((number, record));
        }
        self.begin()
    }

    /// Begins an empty segment: it becomes the one to append to. None if there is no empty segment, or no room for another one.
    fn begin(&self) -> Option<(u16, Record)> {
        let (number, mut record) = self.records().find(|(_, record)| record.is_empty())?;
        if !self.has_room() {
            return None;
        }
        let mut turn = 0;
        record::each(self.tier, |_, other| turn = turn.max(other.turn));
        record = Record { turn: turn + 1, began: shared::tick(), expires: 0, rows: 0, bytes: 0, ..record };
        record.write(self.tier, number);
        Some((number, record))
    }

    /// Returns the bytes that count towards `pg_cache.table_size`.
    pub(super) fn counted(&self) -> u64 {
        record::counted(self.tier, settings::table_bytes(), Self::segment_bytes())
    }

    /// Returns whether another segment may be begun. All databases share `pg_cache.table_size`. If their segments fill it, the
    /// oldest segment of the server must be freed first: by this saver, or by the saver of its database, which is asked for that.
    /// If that database has no saver for some time, the launcher (the background worker that starts the others) retires the
    /// segment.
    fn has_room(&self) -> bool {
        if self.counted() + Self::segment_bytes() <= settings::table_bytes() {
            return true;
        }
        let mut oldest: Option<(u16, Record)> = None;
        record::each(self.tier, |number, record| {
            if record.turn > 0 && oldest.is_none_or(|(_, known)| record.turn < known.turn) {
                oldest = Some((number, record));
            }
        });
        if let Some((number, record)) = oldest.filter(|(_, record)| !record.is_to_be_freed) {
            record.ask_to_free(self.tier, number);
        }
        false
    }
}

/// Returns the last tick (`pg/clock.rs`) at which a value may be served, stale or not.
fn last_tick(one: &Copied) -> u32 {
    one.meta.expires.saturating_add(one.stale_ok.map_or(0, |stale_ok| stale_ok.ticks))
}
