//! The form of a value in rows: its note (`store/note.rs`) and the value follow each other. The first row holds as much of them as
//! fits into a block. Further rows, the *parts*, hold the rest. They have neither key nor dependencies: they must directly follow
//! the first row, and a reader recognizes them by `item` and `part` (`reading.rs`).
//!
//! Everything in a row may be wrong (`pg/segment.rs`). A caller must not use the properties or the dependencies of a row unless
//! [`is_current`] accepts the row.
//!
//! A *segment* is a table of saved values. A *note* is bytes that are stored beside a value. The *fences* of a value are numbers
//! that stand for what it depends on (`docs/architecture.md`).

use crate::pg::memory;
use crate::pg::segment::SegmentRow;
use crate::pg::shared;
use pg_cache_core::{Cost, FenceId, Kind, Meta, StaleOk, Stamp};
use std::time::Duration;

/// The version of the row format. A row of another format is no value. It must change whenever the meaning of a column changes.
pub const FORMAT: i16 = 4;

/// Calls `with` with each row of a value, in order. `whole` is the first row with the whole note and value in it. Its key and its
/// dependencies always fit into one row: they are limited by `KEY_BYTES_MAX` and `DEPENDENCIES_MAX` of the core.
pub fn parts_of<'r>(whole: SegmentRow<'r>, mut with: impl FnMut(SegmentRow<'r>)) {
    let room = SegmentRow::BYTES_MAX.saturating_sub(whole.key.len() + whole.dependencies.len());
    let (first, mut rest) = whole.value.split_at(whole.value.len().min(room));
    with(SegmentRow { value: first, ..whole });
    let mut part = 0;
    while !rest.is_empty() {
        let (value, behind) = rest.split_at(rest.len().min(SegmentRow::BYTES_MAX));
        part += 1;
        with(SegmentRow { part, key: &[], dependencies: &[], value, ..whole });
        rest = behind;
    }
}

/// Returns the properties of the value that a row holds, or begins to hold.
pub fn meta(row: &SegmentRow<'_>) -> Meta {
    Meta {
        value_len: row.length.saturating_sub(row.note) as usize,
        kind: Kind(row.kind as u8),
        stamp: Stamp::from_u64(row.stamp as u64),
        created: row.created,
        expires: row.expires,
        cost: Cost::of(Duration::from_micros(row.cost as u64)),
        valid_at: u32::MAX,
    }
}

/// Returns for how long the value may be served stale, or None if it may not be.
pub fn stale_ok(row: &SegmentRow<'_>) -> Option<StaleOk> {
    (row.stale_ticks > 0).then_some(StaleOk { ticks: row.stale_ticks, valid_at: row.valid_at })
}

/// Returns the dependencies of the value. Raises an error if there is no memory.
pub fn dependencies(row: &SegmentRow<'_>) -> Vec<FenceId> {
    let (numbers, _) = row.dependencies.as_chunks::<4>();
    memory::collect(numbers.iter().map(|number| FenceId::from_number(u32::from_ne_bytes(*number))))
}

/// Returns whether a row belongs to the present content of the memory tier (`shared::content_id`), and has the format that this
/// library reads.
pub fn is_current(row: &SegmentRow<'_>) -> bool {
    row.format == FORMAT && row.epoch == shared::content_id()
}
