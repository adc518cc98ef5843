//! Memory that may not be there: of the running statement, and lists and copies of Rust's whose size comes from data.
//!
//! Memory of the statement is asked for without a place to jump back to. Whatever may raise an error is called through pgrx's guard, which saves the state of the processor first. That costs more than to
//! allocate a small piece. So the server is asked in a way in which it returns nothing instead of raising an error; only then, and for
//! sizes that it might complain of, it is asked again through the guard.

#![allow(unsafe_code)]

use super::allocator;
use super::error::Refused;
use pgrx::pg_sys;
use pgrx::prelude::PgSqlErrorCode;
use std::collections::TryReserveError;
use std::ffi::{CString, c_int, c_void};

unsafe extern "C" {
    fn palloc_extended(size: usize, flags: c_int) -> *mut c_void;
}

/// Far below the size of which the server says that nobody can mean it.
const SMALL: usize = 1 << 20;

/// So many zeroed bytes in the current context, or an error is raised. The core asks for room before it takes a lock.
#[inline]
pub fn cleared(bytes: usize) -> *mut c_void {
    const FLAGS: u32 = pg_sys::MCXT_ALLOC_NO_OOM | pg_sys::MCXT_ALLOC_ZERO;
    if bytes <= SMALL {
        // SAFETY: of a size that is allowed, and told to return a null pointer if there is no memory: it raises no error.
        let start = unsafe { palloc_extended(bytes, FLAGS as c_int) };
        if !start.is_null() {
            return start;
        }
    }
    raising(bytes)
}

#[cold]
#[inline(never)]
fn raising(bytes: usize) -> *mut c_void {
    // SAFETY: any size; what cannot be had is an error.
    unsafe { pg_sys::palloc0(bytes) }
}

/// Memory that could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl OutOfMemory {
    /// Raises the server's error.
    #[cold]
    pub fn raise(self) -> ! {
        Refused::from(self).raise()
    }
}

impl From<OutOfMemory> for Refused {
    fn from(_: OutOfMemory) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of memory")
    }
}

impl From<TryReserveError> for OutOfMemory {
    fn from(_: TryReserveError) -> Self {
        Self
    }
}

/// A copy.
pub fn try_copy<T: Copy>(from: &[T]) -> Result<Vec<T>, OutOfMemory> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(from.len())?;
    copy.extend_from_slice(from);
    Ok(copy)
}

/// The same, or an error is raised.
pub fn copy<T: Copy>(from: &[T]) -> Vec<T> {
    try_copy(from).unwrap_or_else(|short| short.raise())
}

/// A list of some items.
pub fn try_collect<T>(items: impl Iterator<Item = T>) -> Result<Vec<T>, OutOfMemory> {
    let mut list = Vec::new();
    list.try_reserve(items.size_hint().0)?;
    for item in items {
        list.try_reserve(1)?;
        list.push(item);
    }
    Ok(list)
}

/// The same, or an error is raised.
pub fn collect<T>(items: impl Iterator<Item = T>) -> Vec<T> {
    try_collect(items).unwrap_or_else(|short| short.raise())
}

/// Makes room for more items in a list, or an error is raised.
#[inline]
pub fn reserve<T>(list: &mut Vec<T>, more: usize) {
    list.try_reserve(more).unwrap_or_else(|short| OutOfMemory::from(short).raise());
}

/// Adds an item to a list, or an error is raised.
#[inline]
pub fn push<T>(list: &mut Vec<T>, item: T) {
    reserve(list, 1);
    list.push(item);
}

/// Raises an error if the system has no memory, and small pieces come from the reserve. To be asked in each turn of a loop over data that
/// takes such.
#[inline]
pub fn check() {
    if allocator::is_short() {
        OutOfMemory.raise();
    }
}

/// The bytes with a zero behind them, or an error is raised. None if there is a zero among them.
pub fn terminated(bytes: &[u8]) -> Option<CString> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len() + 1).unwrap_or_else(|short| OutOfMemory::from(short).raise());
    copy.extend_from_slice(bytes);
    copy.push(0);
    CString::from_vec_with_nul(copy).ok()
}
