//! The rows of segments, the tables that hold saved values (`segment.rs`): their columns, and how they are formed and read. A row is
//! read from the bytes of its tuple, without the server's functions: they would cost a quarter of the time of a read.
//!
//! Everything in a tuple may be wrong, because a superuser can write to the tables, and a disk can be damaged. [`read`] returns None
//! unless the bytes have the form of a row. It does not know whether their content makes sense.

#![allow(unsafe_code)]

use super::varlena;
use pgrx::prelude::*;

/// The columns of a segment, in the order of `sql/segments.sql`.
pub(super) const COLUMNS: usize = 18;
/// The types of the columns.
pub(super) const TYPES: [pg_sys::Oid; COLUMNS] = [
    pg_sys::INT2OID,
    pg_sys::INT2OID,
    pg_sys::INT4OID,
    pg_sys::OIDOID,
    pg_sys::OIDOID,
    pg_sys::INT8OID,
    pg_sys::INT8OID,
    pg_sys::INT8OID,
    pg_sys::INT4OID,
    pg_sys::INT4OID,
    pg_sys::INT4OID,
    pg_sys::INT4OID,
    pg_sys::INT4OID,
    pg_sys::INT4OID,
    pg_sys::INT4OID,
    pg_sys::BYTEAOID,
    pg_sys::BYTEAOID,
    pg_sys::BYTEAOID,
];
/// The bytes of all columns before the first bytea: no column is null, and the order of the columns leaves no gap between them.
const FIXED_BYTES: usize = 68;

/// A row of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentRow<'r> {
    /// The version of the row format.
    pub format: i16,
    /// The kind of the value.
    pub kind: i16,
    /// The number of this part of the value, from 0 on.
    pub part: i32,
    /// The OID of the space.
    pub space: u32,
    /// The role that owns the value, or 0.
    pub role: u32,
    /// A number that all parts of a value share. Each saver (`store/table/saver/`) numbers its values from 1 on, so values of
    /// different savers may have the same number: a reader also checks that each part follows the one before it.
    pub item: i64,
    /// The stamp: a number of the clock of changes (`docs/architecture.md`) that was taken before the value was computed.
    pub stamp: i64,
    /// How long the value took to compute, in microseconds.
    pub cost: i64,
    /// When the value was stored, in ticks (`clock.rs`).
    pub created: u32,
    /// When the value expires, in ticks.
    pub expires: u32,
    /// For how many ticks the value may be served stale. 0 if it may not be served stale.
    pub stale_ticks: u32,
    /// The last tick at which the value was known to be valid.
    pub valid_at: u32,
    /// The length of the whole note (`store/note.rs`) and value in bytes.
    pub length: u32,
    /// The length of the note in bytes.
    pub note: u32,
    /// The content of the memory tier to which stamps, ticks and fences belong (`shared::content_id`).
    pub epoch: u32,
    pub key: &'r [u8],
    /// The fences of the value's dependencies, four bytes each.
    pub dependencies: &'r [u8],
    /// This part of the note and the value, which follow each other.
    pub value: &'r [u8],
}

impl SegmentRow<'_> {
    /// The most bytes of key, dependencies and value together, so that a row fits into a block: a row of 8160 bytes does, and the
    /// header and the other columns of a row take less than 120. The rest is spare.
    pub const BYTES_MAX: usize = 7900;
}

/// Forms a tuple in the current memory context.
///
/// # Safety
/// The descriptor must have the columns of a segment.
pub(super) unsafe fn form(descriptor: pg_sys::TupleDesc, row: &SegmentRow<'_>) -> pg_sys::HeapTuple {
    let signed = |number: u32| pg_sys::Datum::from(number as i32);
    let mut values = [
        row.format.into(),
        row.kind.into(),
        row.part.into(),
        pg_sys::Oid::from(row.space).into(),
        pg_sys::Oid::from(row.role).into(),
        row.item.into(),
        row.stamp.into(),
        row.cost.into(),
        signed(row.created),
        signed(row.expires),
        signed(row.stale_ticks),
        signed(row.valid_at),
        signed(row.length),
        signed(row.note),
        signed(row.epoch),
        varlena::Varlena::of(row.key).into_datum(),
        varlena::Varlena::of(row.dependencies).into_datum(),
        varlena::Varlena::of(row.value).into_datum(),
    ];
    let mut nulls = [false; COLUMNS];
    // SAFETY: one value and one flag for each column, as the caller promises.
    unsafe { pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr()) }
}

/// Returns whether a tuple with these two masks of its header has all columns of a row, and none of them null.
pub(super) fn has_all_columns([infomask, infomask2]: [u16; 2]) -> bool {
    u32::from(infomask) & pg_sys::HEAP_HASNULL == 0
        && (u32::from(infomask2) & pg_sys::HEAP_NATTS_MASK) as usize == COLUMNS
}

/// Reads a row from the bytes of a tuple behind its header, which must have all columns. Returns None if a column is not within these
/// bytes, or if it is compressed or stored outside of the tuple.
pub(super) fn read(tuple: &[u8]) -> Option<SegmentRow<'_>> {
    /// Returns the bytes of the column at a position.
    fn bytes<const N: usize>(fixed: &[u8; FIXED_BYTES], at: usize) -> [u8; N] {
        std::array::from_fn(|index| fixed[at + index])
    }
    let fixed: &[u8; FIXED_BYTES] = tuple.first_chunk()?;
    let mut rest = Rest { tuple, at: FIXED_BYTES };
    Some(SegmentRow {
        format: i16::from_ne_bytes(bytes(fixed, 0)),
        kind: i16::from_ne_bytes(bytes(fixed, 2)),
        part: i32::from_ne_bytes(bytes(fixed, 4)),
        space: u32::from_ne_bytes(bytes(fixed, 8)),
        role: u32::from_ne_bytes(bytes(fixed, 12)),
        item: i64::from_ne_bytes(bytes(fixed, 16)),
        stamp: i64::from_ne_bytes(bytes(fixed, 24)),
        cost: i64::from_ne_bytes(bytes(fixed, 32)),
        created: u32::from_ne_bytes(bytes(fixed, 40)),
        expires: u32::from_ne_bytes(bytes(fixed, 44)),
        stale_ticks: u32::from_ne_bytes(bytes(fixed, 48)),
        valid_at: u32::from_ne_bytes(bytes(fixed, 52)),
        length: u32::from_ne_bytes(bytes(fixed, 56)),
        note: u32::from_ne_bytes(bytes(fixed, 60)),
        epoch: u32::from_ne_bytes(bytes(fixed, 64)),
        key: rest.take()?,
        dependencies: rest.take()?,
        value: rest.take()?,
    })
}

/// The columns of a tuple that are not read yet. All of them are varlenas.
struct Rest<'t> {
    /// The bytes of the tuple behind its header.
    tuple: &'t [u8],
    /// The position behind the columns that were read.
    at: usize,
}

impl<'t> Rest<'t> {
    /// Returns the content of the next column. `postgres.h` and `varatt.h` of the server describe the two headers: one byte for a
    /// short varlena, which needs no alignment, and four bytes for a longer one.
    fn take(&mut self) -> Option<&'t [u8]> {
        // A byte of padding is 0, and no header begins with 0 at a position that is not a multiple of 4.
        if *self.tuple.get(self.at)? == 0 {
            self.at = self.at.next_multiple_of(4);
        }
        let varlena = self.tuple.get(self.at..)?;
        let first = usize::from(*varlena.first()?);
        let big_endian = cfg!(target_endian = "big");
        let (is_short, short) =
            if big_endian { (first >> 7 == 1, first & 0x7f) } else { (first & 1 == 1, first >> 1) };
        let (header, length) = if is_short {
            // The length of a value outside of the tuple is 0 here.
            (1, short)
        } else {
            let word = u32::from_ne_bytes(*varlena.first_chunk()?);
            // Both flags of an uncompressed value are 0.
            let (flags, long) =
                if big_endian { (word >> 30, word & 0x3fff_ffff) } else { (word & 3, word >> 2) };
            (4, if flags == 0 { long as usize } else { 0 })
        };
        self.at += length;
        varlena.get(header..length)
    }
}
