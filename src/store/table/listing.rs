//! Walks through the saved values of this database, for operators. It reads each row, so it is not meant for frequent calls.

use super::reading::copy;
use super::record::Record;
use super::row;
use crate::pg::memory;
use crate::pg::segment::{Segment, SegmentRow};
use crate::pg::shared::{self, HotTier};
use crate::store::keyspace::hash;
use pg_cache_core::{Key, Location, Meta, NOTE_BYTES_MAX, SavedValue, Stamp};

/// Calls `with` with the key, the properties and the note of each saved value in one shard that a reader would get now. May raise
/// errors.
///
/// Values of a table that another session has locked are left out. The table is locked against changes of its definition while
/// `with` runs.
pub fn each_in_shard(tier: &HotTier, shard: u32, mut with: impl FnMut(&Key<'_>, Meta, &[u8])) {
    let mut locations = Vec::new();
    tier.each_location(shard, |location, _| memory::push(&mut locations, location));
    // The rows of a table are read in the order of its blocks.
    locations.sort_unstable_by_key(|location| (location.segment(), location.position()));
    // A location that another session moved within its set meanwhile was found twice.
    locations.dedup();
    for of_segment in locations.chunk_by(|one, next| one.segment() == next.segment()) {
        let record = of_segment.first().and_then(|location| Record::read(tier, location.segment()));
        let Some(record) = record.filter(|record| record.database == shared::database()) else { continue };
        let open = Segment::to_read(record.table).filter(|open| open.file() == record.file);
        let Some(segment) = open else { continue };
        for location in of_segment {
            shared::check_for_interrupts();
            let _unreadable = ForgottenAfterError { tier, shard, location: *location };
            show(tier, &segment, *location, &mut with);
        }
    }
}

/// Forgets a location if an error is raised while its row is read, as in `reading.rs`. Otherwise each later walk would fail, too.
struct ForgottenAfterError<'t> {
    tier: &'t HotTier,
    shard: u32,
    location: Location,
}

impl Drop for ForgottenAfterError<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tier.forget_in_shard(self.shard, self.location);
        }
    }
}

/// Calls `with` for the value at one location, if a reader would get it.
fn show(tier: &HotTier, segment: &Segment, location: Location, with: &mut impl FnMut(&Key<'_>, Meta, &[u8])) {
    let Some(found) = segment.row(location.position()) else { return };
    let first = found.row();
    let (meta, dependencies) = (row::meta(&first), row::dependencies(&first));
    let scope = tier.scope(shared::database(), first.space, first.role);
    let saved = SavedValue { meta, dependencies: &dependencies, stale_ok: row::stale_ok(&first) };
    let is_readable = |key: &Key<'_>| {
        row::is_current(&first)
            && first.part == 0
            && first.note <= first.length.min(NOTE_BYTES_MAX as u32)
            && tier.location(key) == Some(location)
            && tier.judge_saved(&scope, &saved, Stamp::LATEST).is_ok()
    };
    let key = Key::new(scope, first.key, hash(first.key)).filter(is_readable);
    if let Some((key, note)) = key.zip(note_of(segment, location, &first)) {
        with(&key, meta, &note);
    }
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
