//! The form in which rows are stored, and the memory that stored values are read into.
//!
//! Rows are stored as the server's *minimal tuples*, without pointers to out-of-line values, so nothing is parsed or converted
//! when they are stored, nor when they are read.
//!
//! The stored form: [`Header`], then the type and the type modifier of each column as two 32-bit numbers, then padding to
//! [`ALIGNMENT`], then the tuples, each padded to [`ALIGNMENT`]. The form belongs to one build of the server, as the region does.

#![allow(unsafe_code)]

use super::columns::{Column, fits};
use crate::pg::memory;
use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use pg_cache_core::{Buffer, Meta};
use pgrx::prelude::*;
use std::ffi::c_void;
use std::hash::Hasher;

/// The alignment of stored tuples, and of the memory that they are read into.
const ALIGNMENT: usize = pg_sys::MAXIMUM_ALIGNOF as usize;

/// The beginning of stored rows.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Header {
    columns: u32,
    /// A hash of everything behind the header. The server trusts the form of a tuple, so damaged bytes must not reach it.
    checksum: u32,
    rows: u64,
}

/// The bytes of a minimal tuple before its column values; a stored tuple must have at least so many.
const TUPLE_BYTES_MIN: usize = std::mem::offset_of!(pg_sys::MinimalTupleData, t_bits);

/// Returns the beginning of the bytes to store, before the first tuple. None if there is no memory.
pub fn begin(columns: &[Column]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve(padded(size_of::<Header>() + 8 * columns.len())).ok()?;
    bytes.extend_from_slice(&(columns.len() as u32).to_ne_bytes());
    bytes.resize(size_of::<Header>(), 0);
    for (kind, modifier) in columns {
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&modifier.to_ne_bytes());
    }
    bytes.resize(padded(bytes.len()), 0);
    Some(bytes)
}

/// Appends a tuple to the bytes to store, and notes the number of rows in their header. Returns false if the bytes would exceed the
/// limit, or if there is no memory.
pub fn append(stored: &mut Vec<u8>, tuple: &[u8], rows: u64, most: usize) -> bool {
    let length = padded(tuple.len());
    if stored.len() + length > most || stored.try_reserve(length).is_err() {
        return false;
    }
    stored.extend_from_slice(tuple);
    stored.resize(padded(stored.len()), 0);
    let at = std::mem::offset_of!(Header, rows);
    stored[at..at + size_of::<u64>()].copy_from_slice(&rows.to_ne_bytes());
    true
}

/// Completes the bytes to store after the last tuple.
pub fn finish(stored: &mut [u8]) {
    let (at, checksum) = (std::mem::offset_of!(Header, checksum), checksum(stored));
    stored[at..at + size_of::<u32>()].copy_from_slice(&checksum.to_ne_bytes());
}

/// Stored rows, whose columns and checksum have been read.
#[derive(Debug)]
pub struct Stored<'b> {
    header: Header,
    columns: Vec<Column>,
    /// The bytes of the tuples.
    pub tuples: &'b [u8],
}

impl<'b> Stored<'b> {
    /// Reads the header and the columns of stored rows. Returns None if the bytes are damaged.
    pub fn open(bytes: &'b [u8]) -> Option<Self> {
        let word = |at: usize| bytes.get(at..at + 4).and_then(|four| four.first_chunk().copied());
        let columns = u32::from_ne_bytes(word(0)?);
        let rows = u64::from_ne_bytes(*bytes.get(8..16)?.first_chunk()?);
        if columns > pg_sys::MaxTupleAttributeNumber {
            return None;
        }
        let mut found = Vec::new();
        found.try_reserve(columns as usize).ok()?;
        for at in 0..columns as usize {
            let at = size_of::<Header>() + 8 * at;
            found.push((u32::from_ne_bytes(word(at)?), i32::from_ne_bytes(word(at + 4)?)));
        }
        let header = Header { columns, checksum: u32::from_ne_bytes(word(4)?), rows };
        let tuples = bytes.get(padded(size_of::<Header>() + 8 * columns as usize)..)?;
        (header.checksum == checksum(bytes)).then_some(Self { header, columns: found, tuples })
    }

    /// Returns whether the rows can be returned as rows with these columns.
    pub fn fits(&self, expected: &[Column]) -> bool {
        self.columns.len() == expected.len()
            && expected.iter().zip(&self.columns).all(|(asked, found)| fits(*asked, *found))
    }

    /// Returns the number of rows. Returns None if the bytes of the tuples are damaged.
    pub fn rows(&self) -> Option<u64> {
        tuples(self.tuples, self.columns.len()).filter(|count| *count == self.header.rows)
    }
}

/// Returns the checksum of stored rows. It is the same in all processes.
fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = FoldHasher::with_seed(0, SharedSeed::global_fixed());
    hasher.write(bytes.get(size_of::<Header>()..).unwrap_or_default());
    hasher.finish() as u32
}

/// Returns the number of tuples in the bytes, if they are whole tuples with so many columns. None if they are damaged.
fn tuples(bytes: &[u8], columns: usize) -> Option<u64> {
    let (mut at, mut count) = (0, 0);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        let natts = std::mem::offset_of!(pg_sys::MinimalTupleData, t_infomask2);
        let natts = u16::from_ne_bytes(*rest.get(natts..)?.first_chunk()?) & pg_sys::HEAP_NATTS_MASK as u16;
        if length < TUPLE_BYTES_MIN || padded(length) > rest.len() || usize::from(natts) != columns {
            return None;
        }
        at += padded(length);
        count += 1;
    }
    Some(count)
}

/// Returns the bytes that a tuple of this length takes.
pub fn padded(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

/// Memory of the statement for the bytes of a stored value, aligned for tuples.
#[derive(Debug)]
pub struct Room {
    start: *mut c_void,
    length: usize,
    is_short: bool,
}

impl Default for Room {
    fn default() -> Self {
        Self { start: std::ptr::null_mut(), length: 0, is_short: false }
    }
}

impl Room {
    /// Returns the bytes of the value.
    pub fn bytes(&self) -> &[u8] {
        match self.start.is_null() {
            true => &[],
            // SAFETY: `length` bytes, which are zeroed when they are allocated. Only this value refers to them.
            false => unsafe { std::slice::from_raw_parts(self.start.cast(), self.length) },
        }
    }
}

impl Buffer for Room {
    fn allocate(&mut self, meta: &Meta) -> &mut [u8] {
        if self.start.is_null() || self.length != meta.value_len {
            self.start = memory::try_cleared(meta.value_len.max(1));
            self.length = meta.value_len;
            self.is_short = self.start.is_null();
        }
        match self.start.is_null() {
            true => &mut [],
            // SAFETY: as in `bytes`.
            false => unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.length) },
        }
    }

    fn was_allocated(&self) -> bool {
        !self.is_short
    }
}
