//! The memory that stored values are read into. A session keeps the memory of its last reads: the system clears each page of new
//! memory when the process first uses it, which takes longer than reading a large value.

#![allow(unsafe_code)]

use crate::pg::allocator;
use crate::pg::local::local;
use pg_cache_core::{Buffer, Meta};
use pgrx::pg_sys;
use std::cell::RefCell;

/// The unit of the memory. It has the alignment of tuples.
type Unit = u64;
const UNIT: usize = size_of::<Unit>();
const _: () = assert!(align_of::<Unit>() >= pg_sys::MAXIMUM_ALIGNOF as usize);

/// The number of pieces that a session keeps: a compressed value and the decompressed one are in use at the same time.
const KEPT: usize = 2;
/// The most bytes of a piece that is kept.
const KEPT_BYTES_MAX: usize = 2 << 20;

local! {
    /// The pieces that are not in use.
    static FREE: RefCell<[Vec<Unit>; KEPT]> = RefCell::new([const { Vec::new() }; KEPT]);
}

/// Memory for the bytes of a stored value, aligned for tuples.
#[derive(Debug, Default)]
pub struct Room {
    /// At least the memory of the value.
    units: Vec<Unit>,
    length: usize,
    is_short: bool,
}

impl Room {
    /// Returns the bytes of the value.
    pub fn bytes(&self) -> &[u8] {
        bytes_of(&self.units).get(..self.length).unwrap_or_default()
    }
}

impl Buffer for Room {
    /// The bytes have any content.
    fn allocate(&mut self, meta: &Meta) -> &mut [u8] {
        let needed = meta.value_len.div_ceil(UNIT);
        (self.length, self.is_short) = (meta.value_len, false);
        if self.units.len() < needed {
            self.units = take();
        }
        if self.units.len() < needed {
            self.units = Vec::new();
            self.is_short = self.units.try_reserve_exact(needed).is_err();
            if self.is_short {
                return &mut [];
            }
            self.units.resize(needed, 0);
        }
        bytes_of_mut(&mut self.units).get_mut(..meta.value_len).unwrap_or_default()
    }

    fn was_allocated(&self) -> bool {
        !self.is_short
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let units = std::mem::take(&mut self.units);
        // The piece may be a part of the reserve for a lack of memory (`allocator.rs`), which must become free again.
        if (1..=KEPT_BYTES_MAX / UNIT).contains(&units.len()) && !allocator::is_reserve_used() {
            give_back(units);
        }
    }
}

/// Returns the larger of the free pieces.
fn take() -> Vec<Unit> {
    FREE.with_borrow_mut(|free| free.iter_mut().max_by_key(|units| units.len()).map(std::mem::take))
        .unwrap_or_default()
}

/// Keeps a piece instead of a smaller one.
fn give_back(units: Vec<Unit>) {
    FREE.with_borrow_mut(|free| {
        if let Some(least) = free.iter_mut().min_by_key(|units| units.len())
            && least.len() < units.len()
        {
            *least = units;
        }
    });
}

fn bytes_of(units: &[Unit]) -> &[u8] {
    // SAFETY: the same memory, which any bytes are valid for.
    unsafe { std::slice::from_raw_parts(units.as_ptr().cast(), size_of_val(units)) }
}

fn bytes_of_mut(units: &mut [Unit]) -> &mut [u8] {
    // SAFETY: the same memory, which any bytes are valid for, and which only the result refers to.
    unsafe { std::slice::from_raw_parts_mut(units.as_mut_ptr().cast(), size_of_val(units)) }
}
