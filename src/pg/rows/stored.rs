//! The form in which rows are stored.
//!
//! Rows are stored as the server's *minimal tuples*, without pointers to out-of-line values, so nothing is parsed or converted
//! when they are stored, nor when they are read.
//!
//! The stored form: [`Header`], then the type and the type modifier of each column as two 32-bit numbers, then padding to
//! [`ALIGNMENT`], then the tuples, each padded to [`ALIGNMENT`]. The form belongs to one build of the server, as the
//! cache in shared memory does.

use super::columns::{Column, fits};
use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use pgrx::prelude::*;
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

/// Appends a tuple to the bytes to store, and notes in their header the number of rows, `rows`, which includes this one. Returns
/// false if the bytes would exceed `most`, or if there is no memory.
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

/// Stored rows, whose header and checksum have been read.
#[derive(Debug)]
pub struct Stored<'b> {
    /// The number of rows.
    pub rows: u64,
    /// The types and the type modifiers of the columns.
    columns: &'b [[u8; 8]],
    tuples: &'b [u8],
}

impl<'b> Stored<'b> {
    /// Reads the header and the columns of stored rows. Returns None if the bytes are damaged.
    pub fn open(bytes: &'b [u8]) -> Option<Self> {
        let word = |at: usize| bytes.get(at..at + 4).and_then(|four| four.first_chunk().copied());
        let (columns, found) = (u32::from_ne_bytes(word(0)?), u32::from_ne_bytes(word(4)?));
        let rows = u64::from_ne_bytes(*bytes.get(8..16)?.first_chunk()?);
        if columns > pg_sys::MaxTupleAttributeNumber || found != checksum(bytes) {
            return None;
        }
        let end = size_of::<Header>() + 8 * columns as usize;
        let (columns, _) = bytes.get(size_of::<Header>()..end)?.as_chunks();
        Some(Self { rows, columns, tuples: bytes.get(padded(end)..)? })
    }

    /// Returns whether the rows can be returned as rows with these columns.
    pub fn fits(&self, mut expected: impl Iterator<Item = Column>) -> bool {
        let mut found = self.columns.iter().map(|[a, b, c, d, modifier @ ..]| {
            (u32::from_ne_bytes([*a, *b, *c, *d]), i32::from_ne_bytes(*modifier))
        });
        found.all(|found| expected.next().is_some_and(|asked| fits(asked, found)))
            && expected.next().is_none()
    }

    /// Returns the tuples.
    pub fn tuples(&self) -> Tuples<'b> {
        Tuples { rest: self.tuples, columns: self.columns.len() }
    }
}

/// The tuples of stored rows. Each of them is checked before it is returned.
#[derive(Debug)]
pub struct Tuples<'b> {
    rest: &'b [u8],
    columns: usize,
}

/// The bytes of a tuple are damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

impl Tuples<'_> {
    /// Returns the next tuple, which is aligned if the bytes are, or None after the last one. Returns an error if the bytes do not
    /// begin with a whole tuple with the right number of columns.
    #[inline]
    pub fn next(&mut self) -> Result<Option<*mut pg_sys::MinimalTupleData>, Damaged> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tuple = self.rest;
        let length = self.length().ok_or(Damaged)?;
        self.rest = tuple.get(padded(length)..).ok_or(Damaged)?;
        Ok(Some(tuple.as_ptr().cast::<pg_sys::MinimalTupleData>().cast_mut()))
    }

    /// Returns the length of the next tuple, if the tuple begins as expected.
    #[inline]
    fn length(&self) -> Option<usize> {
        let length = u32::from_ne_bytes(*self.rest.first_chunk()?) as usize;
        let natts = std::mem::offset_of!(pg_sys::MinimalTupleData, t_infomask2);
        let natts =
            u16::from_ne_bytes(*self.rest.get(natts..)?.first_chunk()?) & pg_sys::HEAP_NATTS_MASK as u16;
        (length >= TUPLE_BYTES_MIN && usize::from(natts) == self.columns).then_some(length)
    }
}

/// Returns the checksum of stored rows. It is the same in all processes.
fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = FoldHasher::with_seed(0, SharedSeed::global_fixed());
    hasher.write(bytes.get(size_of::<Header>()..).unwrap_or_default());
    hasher.finish() as u32
}

/// Returns the bytes that a tuple of this length takes.
pub fn padded(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}
