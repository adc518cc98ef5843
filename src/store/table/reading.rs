//! Reading a saved value, and bringing it back into memory. `entry/reading.rs` calls this after the memory has no entry of the key.
//! A *location* names the row in which the value begins: a *segment*, which is a table, and the position of the row in it. The
//! *directory* in shared memory has the locations (`core/tier/directory.rs`).
//!
//! The order of the steps keeps a reader from ever getting an old value:
//! 1. The memory tier has answered that the key has no entry, and where a value may be saved.
//! 2. Lock the table, without waiting. Then its rows stay until the lock is released.
//! 3. Ask for the location again. If it is the same, the row is the present value of this key, or of another key with the same bits
//!    in the directory.
//! 4. Compare the whole key with that of the row, and judge the row as the memory tier judges an entry.
//!
//! The location is forgotten if the row is missing, damaged, unreadable, or of no use to any reader, or if it belongs to another
//! key. The other key has the same bits, and the location was the only way to its row, so it loses its saved value. If the table
//! cannot be locked at once, the read is a miss, and the location stays.

use super::record::Record;
use super::row;
use crate::pg::memory;
use crate::pg::segment::{PinnedRow, Segment, SegmentRow};
use crate::pg::shared;
use crate::store::keyspace::{Keyspace, Tiers};
use crate::store::note;
use pg_cache_core::{
    Buffer, Freshness, Key, Location, Meta, Miss, NOTE_BYTES_MAX, NewValue, Reader, SavedValue, Stored,
};

/// Copies a saved value into a buffer, if this reader may see it, and makes it an entry of the memory again. Without a buffer, only
/// looks. Counts the read if there is a buffer, unless the reader repeats a look that was counted. `location` must come from a miss
/// of this key. May raise an error if the disk cannot be read.
pub fn read(
    keyspace: &Keyspace,
    key: &Key<'_>,
    location: Location,
    reader: Reader<'_>,
    into: &mut Option<&mut impl Buffer>,
) -> Result<Meta, Miss> {
    let judge = |saved: &SavedValue<'_>| keyspace.tier.judge_saved_outdated(&keyspace.scope, saved, reader);
    let outcome = fetch(keyspace, key, location, judge, into);
    if into.is_some() && !reader.repeats {
        count(keyspace, key, outcome.as_ref().err().copied());
    }
    outcome.map(|(meta, valid_at)| Meta { valid_at, ..meta })
}

/// Does the same as [`read`] for a reader that accepts a stale value.
pub fn read_stale(
    keyspace: &Keyspace,
    key: &Key<'_>,
    location: Location,
    reader: Reader<'_>,
    into: &mut impl Buffer,
) -> Result<(Meta, Freshness), Miss> {
    let judge = |saved: &SavedValue<'_>| keyspace.tier.judge_saved_stale(&keyspace.scope, saved, reader);
    let outcome = fetch(keyspace, key, location, judge, &mut Some(into));
    // A stale value counts as the miss that the read would be for a reader that does not accept stale values: the value has
    // expired, or else the fence of a dependency has moved.
    let missed = match outcome {
        Ok((_, Freshness::Valid)) => None,
        Ok((meta, Freshness::Stale { .. })) if meta.expires <= shared::tick() => Some(Miss::Expired),
        Ok((_, Freshness::Stale { .. })) => Some(Miss::Fenced),
        Err(miss) => Some(miss),
    };
    count(keyspace, key, missed);
    outcome
}

/// Counts a read: a hit, or the miss that it ended with.
fn count(keyspace: &Keyspace, key: &Key<'_>, missed: Option<Miss>) {
    match missed {
        None => keyspace.tier.count_saved_hit(key),
        Some(miss) => keyspace.tier.count_miss(&keyspace.scope, miss),
    }
}

/// Brings a saved value back into memory, or forgets it, so that an operation that decides whether the key has a value can try
/// again. The value is brought back even if its space keeps values in tables only. It is lost if there is no room in memory, or if
/// the table cannot be locked at once. May raise an error if the disk cannot be read.
pub fn bring_back_or_forget(keyspace: &Keyspace, key: &Key<'_>, location: Location) {
    let mut copy = Vec::new();
    let judge = |saved: &SavedValue<'_>| match keyspace.tier.is_saved_useless(&keyspace.scope, saved) {
        true => Err(Miss::Expired),
        false => Ok(()),
    };
    let mut memory = *keyspace;
    memory.tiers = Tiers::Both;
    let _ = fetch(&memory, key, location, judge, &mut Some(&mut copy));
    // If the value is in memory now, its location is of no use to an operation that changes the key.
    keyspace.tier.forget_location(key, location);
}

/// Finds the row of a location, judges it, and copies its value. `judge` decides whether the caller may get the value.
fn fetch<J>(
    keyspace: &Keyspace,
    key: &Key<'_>,
    location: Location,
    judge: impl FnOnce(&SavedValue<'_>) -> Result<J, Miss>,
    into: &mut Option<&mut impl Buffer>,
) -> Result<(Meta, J), Miss> {
    let tier = keyspace.tier;
    let Some(record) = Record::read(tier, location.segment()) else { return Err(Miss::Absent) };
    if record.database != shared::database() {
        return Err(Miss::Absent);
    }
    let Some(segment) = Segment::to_read(record.table) else { return Err(Miss::Absent) };
    if tier.location(key) != Some(location) {
        return Err(Miss::Absent);
    }
    let _unreadable = AfterError(|| _ = tier.forget_location(key, location));
    // A command that rewrites the table, such as VACUUM FULL, gives it another file. The location is then wrong, because rows have
    // other positions there.
    let is_of_file = segment.file() == record.file;
    let found = segment.row(location.position()).filter(|found| is_of_file && is_of(&found.row(), key));
    let Some(found) = found else {
        tier.forget_location(key, location);
        return Err(Miss::Absent);
    };
    let first = found.row();
    let (meta, dependencies, stale_ok) =
        (row::meta(&first), row::dependencies(&first), row::stale_ok(&first));
    let saved = SavedValue { key: key.bytes(), meta, dependencies: &dependencies, stale_ok };
    let judged = judge(&saved).inspect_err(|_| {
        if tier.is_saved_useless(&keyspace.scope, &saved) {
            tier.forget_location(key, location);
        }
    })?;
    let Some(into) = into else { return Ok((meta, judged)) };
    // Another length means that the caller wants no bytes, or that there is no memory. Then nothing is copied, and the read is
    // still a hit (`Buffer` in `core/reader.rs`).
    let target = into.allocate(&meta);
    if target.len() == meta.value_len {
        let mut note = memory::zeroed(first.note as usize);
        if !copy(&segment, location.position(), &found, &mut note, target) {
            tier.forget_location(key, location);
            return Err(Miss::Absent);
        }
        // A worker may run the query of a kept result, by the terms in its note (`note.rs`): the arguments and the time to live. A
        // role that may write to all tables could have written other terms to this row, so they must not count.
        note::disown_terms(meta.kind, &mut note);
        promote(keyspace, key, location, &saved, &note, target);
        // A caller that does not want the note returns no memory for it.
        let target = into.note_target(note.len());
        if target.len() == note.len() {
            target.copy_from_slice(&note);
        }
    }
    if into.accepts(&meta) { Ok((meta, judged)) } else { Err(Miss::Absent) }
}

/// Calls a function if this is dropped because an error was raised. A walk or a read that cannot read a row forgets its location by
/// this, so a disk that cannot be read costs one error for each value.
pub(super) struct AfterError<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for AfterError<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)();
        }
    }
}

/// Returns whether a row begins a value of a key, and whether its lengths fit together.
fn is_of(found: &SegmentRow<'_>, key: &Key<'_>) -> bool {
    let scope = key.scope();
    row::is_current(found)
        && found.part == 0
        && found.space == scope.space
        && found.role == scope.role
        && found.key == key.bytes()
        && found.value.len() <= found.length as usize
        && found.note <= found.length.min(NOTE_BYTES_MAX as u32)
}

/// Copies the note (`store/note.rs`) and the value that begin in a row at `position`, from this row and those that follow it.
/// `note` and `value` must have the lengths that the row tells. Returns false if a part is missing or the lengths do not fit: the
/// copies are useless then.
pub(super) fn copy(
    segment: &Segment,
    mut position: u64,
    first: &PinnedRow<'_>,
    note: &mut [u8],
    value: &mut [u8],
) -> bool {
    let item = first.row().item;
    let (mut rests, mut part) = ([note, value], 0);
    // Copies the bytes of one part to where they belong. Returns whether all is there; None if the part has more bytes than are
    // missing.
    let mut take = |mut bytes: &[u8]| {
        for rest in &mut rests {
            let (here, behind) = bytes.split_at(bytes.len().min(rest.len()));
            let (head, tail) = std::mem::take(rest).split_at_mut(here.len());
            head.copy_from_slice(here);
            (*rest, bytes) = (tail, behind);
        }
        bytes.is_empty().then(|| rests.iter().all(|rest| rest.is_empty()))
    };
    let mut is_done = take(first.row().value);
    while is_done == Some(false) {
        part += 1;
        let Some((next, found)) = segment.next_row(position) else { return false };
        let row = found.row();
        if row.item != item || row.part != part || !row::is_current(&row) || row.value.is_empty() {
            return false;
        }
        position = next;
        is_done = take(row.value);
        shared::check_for_interrupts();
    }
    is_done == Some(true)
}

/// Notes that a reader has asked for a saved value, and makes it an entry of the memory again, unless its space keeps values in
/// tables only. That may fail; the value stays saved. `bytes` are the whole value.
fn promote(
    keyspace: &Keyspace,
    key: &Key<'_>,
    location: Location,
    saved: &SavedValue<'_>,
    note: &[u8],
    bytes: &[u8],
) {
    let meta = saved.meta;
    let new = NewValue {
        bytes,
        note,
        kind: meta.kind,
        stamp: meta.stamp,
        expires: meta.expires,
        cost: meta.cost,
        dependencies: saved.dependencies,
    };
    keyspace.tier.note_asked(key, location);
    if keyspace.tiers == Tiers::Table {
        return;
    }
    if let Ok(reservation) = keyspace.reserve(key, &new, saved.stale_ok) {
        let _: Stored = keyspace.tier.promote(key, reservation, location, meta.created);
    }
}
