//! Walks through the saved values of this database: for views, and for `cache_keys`. It reads each row, so it is not meant for
//! frequent calls. `reading.rs` has the rules for reading a row.
//!
//! The *directory* in shared memory has the *location* of each saved value: the *segment*, which is a table, and the position of
//! the row in it. A *note* is bytes that are stored beside a value (`store/note.rs`).

use super::reading::{AfterError, copy};
use super::record::Record;
use super::row;
use crate::pg::memory;
use crate::pg::segment::{Segment, SegmentRow};
use crate::pg::shared::{self, HotTier};
use crate::store::keyspace::hash;
use pg_cache_core::{Key, Location, Meta, NOTE_BYTES_MAX, SavedValue, Stamp};

/// Calls `with` with the key, the properties and the note (`store/note.rs`) of each saved value in one *shard*, a part of the
/// cache, that a reader would get now. May raise errors.
///
/// Values of a table that another session has locked are left out. The table is locked against changes of its definition while
/// `with` runs.
pub fn each_in_shard(tier: &HotTier, shard: u32, mut with: impl FnMut(&Key<'_>, Meta, &[u8])) {
    let mut locations = Vec::new();
    tier.each_location(shard, |location, _| memory::push(&mut locations, location));
    // The rows of a table are read in the order of its blocks.
    locations.sort_unstable_by_key(|location| (location.segment(), location.position()));
    // A location that another session moved within its set of the directory (`core/tier/directory.rs`) meanwhile was found twice.
    locations.dedup();
    for of_segment in locations.chunk_by(|one, next| one.segment() == next.segment()) {
        let record = of_segment.first().and_then(|location| Record::read(tier, location.segment()));
        let Some(record) = record.filter(|record| record.database == shared::database()) else { continue };
        let open = Segment::to_read(record.table).filter(|open| open.file() == record.file);
        let Some(segment) = open else { continue };
        for location in of_segment {
            shared::check_for_interrupts();
            let unreadable = AfterError(|| tier.forget_in_shard(shard, *location));
            let Some(found) = segment.row(location.position()) else { continue };
            let first = found.row();
            let saved = saved(tier, &segment, *location, &first);
            // An error of the caller says nothing about the row.
            std::mem::forget(unreadable);
            if let Some(Saved { key, meta, note }) = saved {
                with(&key, meta, &note);
            }
        }
    }
}

/// A saved value as its row tells it.
struct Saved<'r> {
    /// The key.
    key: Key<'r>,
    /// The properties of the value.
    meta: Meta,
    /// The note (`store/note.rs`).
    note: Vec<u8>,
}

/// Returns the value that begins in a row, if a reader would get it.
fn saved<'r>(
    tier: &HotTier,
    segment: &Segment,
    location: Location,
    first: &SegmentRow<'r>,
) -> Option<Saved<'r>> {
    let (meta, dependencies) = (row::meta(first), row::dependencies(first));
    let scope = tier.scope(shared::database(), first.space, first.role);
    let stale_ok = row::stale_ok(first);
    let saved = SavedValue { key: first.key, meta, dependencies: &dependencies, stale_ok };
    let key = Key::new(scope, first.key, hash(first.key))?;
    let is_readable = row::is_current(first)
        && first.part == 0
        && first.note <= first.length.min(NOTE_BYTES_MAX as u32)
        && tier.location(&key) == Some(location)
        && tier.judge_saved(&scope, &saved, Stamp::LATEST).is_ok();
    let note = if is_readable { note_of(segment, location, first)? } else { return None };
    Some(Saved { key, meta, note })
}

/// Returns the note of the value that begins in a row. A note that continues in the next row is copied with the whole value.
fn note_of(segment: &Segment, location: Location, first: &SegmentRow<'_>) -> Option<Vec<u8>> {
    let length = first.note as usize;
    if let Some(note) = first.value.get(..length) {
        return Some(memory::copy(note));
    }
    let found = segment.row(location.position())?;
    let mut note = memory::zeroed(length);
    let mut value = memory::zeroed(row::meta(first).value_len);
    copy(segment, location.position(), &found, &mut note, &mut value).then_some(note)
}
