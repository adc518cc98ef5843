//! Allocations that can fail without ending the process (`allocator.rs` says why that matters): memory of the running statement,
//! and Rust lists and copies whose size comes from data.
//!
//! Memory of the statement is requested in a mode in which the server returns null instead of raising an error. There are two
//! reasons. First, a call that may raise an error must go through pgrx's guard, which costs more than the allocation of a small
//! piece. Second, the guard copies an error into the current memory context. If there is no memory for the copy, the guard is
//! called again with the error about the copy, until the server gives up. So code that allocates much through the guard must do so
//! in a context of its own ([`Scratch`]), which leaves room for the copy.

#![allow(unsafe_code)]

use super::allocator;
use super::error::{OrRaise, Refused};
use super::local::check_thread;
use pgrx::pg_sys;
use pgrx::prelude::PgSqlErrorCode;
use std::collections::TryReserveError;
use std::ffi::{CString, c_int, c_void};

unsafe extern "C" {
    fn palloc_extended(size: usize, flags: c_int) -> *mut c_void;
}

/// The largest size that the server allocates, in bytes (`MaxAllocSize`). For a larger request, the server raises the error for an
/// invalid size, not that for missing memory.
pub const LARGEST: usize = 0x3fff_ffff;

/// Allocates zeroed bytes in the current context. Raises an error if there is no memory.
pub fn cleared(bytes: usize) -> *mut c_void {
    let start = try_cleared(bytes);
    if start.is_null() {
        OutOfMemory.raise();
    }
    start
}

/// Allocates zeroed bytes in the current context. Returns a null pointer if there is no memory. Raises an error above
/// [`LARGEST`], so the caller must not hold a lock.
#[inline]
pub fn try_cleared(bytes: usize) -> *mut c_void {
    const FLAGS: u32 = pg_sys::MCXT_ALLOC_NO_OOM | pg_sys::MCXT_ALLOC_ZERO;
    if bytes > LARGEST {
        return too_large(bytes);
    }
    check_thread();
    // SAFETY: the size is allowed, and the flags make the function return a null pointer if there is no memory: it raises no error.
    unsafe { palloc_extended(bytes, FLAGS as c_int) }
}

#[cold]
#[inline(never)]
fn too_large(bytes: usize) -> *mut c_void {
    // SAFETY: any size may be passed; the server raises an error, because this size is too large.
    unsafe { pg_sys::palloc0(bytes) }
}

/// A memory context for short-lived data, below the context that was current. It is the current context until this value is
/// dropped. Values of this type must be dropped in the reverse order of their creation.
#[derive(Debug)]
pub struct Scratch {
    context: pg_sys::MemoryContext,
    before: pg_sys::MemoryContext,
}

impl Scratch {
    pub fn new() -> Self {
        // SAFETY: makes an ordinary context below the current one.
        unsafe {
            let before = pg_sys::CurrentMemoryContext;
            // The first block has 8 kB.
            let context = pg_sys::AllocSetContextCreateInternal(
                before,
                c"pg_cache scratch".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize * 8,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            pg_sys::CurrentMemoryContext = context;
            Self { context, before }
        }
    }

    /// Calls `call` while the previous context is current.
    pub fn outside<R>(&self, call: impl FnOnce() -> R) -> R {
        // SAFETY: both contexts exist as long as the call that made this value. Code that catches an error sets the current context
        // itself.
        unsafe {
            pg_sys::CurrentMemoryContext = self.before;
            let result = call();
            pg_sys::CurrentMemoryContext = self.context;
            result
        }
    }

    /// Frees all memory of the context. The caller must not use any of it afterwards.
    pub fn clear(&self) {
        // SAFETY: `new` made the context, and the caller uses no memory of it any more.
        unsafe { pg_sys::MemoryContextReset(self.context) };
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: `new` made the context.
        unsafe {
            pg_sys::CurrentMemoryContext = self.before;
            pg_sys::MemoryContextDelete(self.context);
        }
    }
}

/// An allocation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl OutOfMemory {
    /// Raises the server's error for this.
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

impl From<TryReserveError> for Refused {
    fn from(short: TryReserveError) -> Self {
        OutOfMemory::from(short).into()
    }
}

impl From<TryReserveError> for OutOfMemory {
    fn from(_: TryReserveError) -> Self {
        Self
    }
}

/// Copies a slice. Fails if there is no memory.
pub fn try_copy<T: Copy>(from: &[T]) -> Result<Vec<T>, OutOfMemory> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(from.len())?;
    copy.extend_from_slice(from);
    Ok(copy)
}

/// Returns a list of so many zero bytes. Raises an error if there is no memory.
pub fn zeroed(bytes: usize) -> Vec<u8> {
    let mut list = Vec::new();
    reserve(&mut list, bytes);
    list.resize(bytes, 0);
    list
}

/// Copies a slice. Raises an error if there is no memory.
pub fn copy<T: Copy>(from: &[T]) -> Vec<T> {
    try_copy(from).or_raise()
}

/// Copies two slices, one behind the other. Raises an error if there is no memory.
pub fn joined<T: Copy>(first: &[T], second: &[T]) -> Vec<T> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(first.len() + second.len()).or_raise();
    copy.extend_from_slice(first);
    copy.extend_from_slice(second);
    copy
}

/// Collects items into a list. Fails if there is no memory.
pub fn try_collect<T>(items: impl Iterator<Item = T>) -> Result<Vec<T>, OutOfMemory> {
    let mut list = Vec::new();
    list.try_reserve(items.size_hint().0)?;
    for item in items {
        list.try_reserve(1)?;
        list.push(item);
    }
    Ok(list)
}

/// Collects items into a list. Raises an error if there is no memory.
pub fn collect<T>(items: impl Iterator<Item = T>) -> Vec<T> {
    try_collect(items).or_raise()
}

/// Reserves room for more items in a list. Raises an error if there is no memory.
#[inline]
pub fn reserve<T>(list: &mut Vec<T>, more: usize) {
    list.try_reserve(more).or_raise();
}

/// Adds an item to a list. Raises an error if there is no memory.
#[inline]
pub fn push<T>(list: &mut Vec<T>, item: T) {
    reserve(list, 1);
    list.push(item);
}

/// Raises an error if the system has no memory, so that small pieces come from the reserve. A loop over data that allocates small
/// pieces must call this in each turn.
#[inline]
pub fn check() {
    if allocator::is_short() {
        OutOfMemory.raise();
    }
}

/// Copies the bytes and adds a terminating zero. Raises an error if there is no memory. Returns None if the bytes contain a zero.
pub fn terminated(bytes: &[u8]) -> Option<CString> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len() + 1).or_raise();
    copy.extend_from_slice(bytes);
    copy.push(0);
    CString::from_vec_with_nul(copy).ok()
}
