//! Memory that may not be there: of the running statement, and lists and copies of Rust's whose size comes from data.
//!
//! The server is asked for memory of the statement in a way in which it returns nothing instead of raising an error: a call that may
//! raise one goes through pgrx's guard, which costs more than to allocate a small piece. There is another reason. The guard copies the
//! error into the current memory context, and if there is no memory for that it is called again with the error about the copy, until
//! the server gives up. So whatever allocates much through the guard does that in a context of its own ([`Scratch`]), which keeps room
//! for the copy.

#![allow(unsafe_code)]

use super::allocator;
use super::error::Refused;
use super::local::check_thread;
use pgrx::pg_sys;
use pgrx::prelude::PgSqlErrorCode;
use std::collections::TryReserveError;
use std::ffi::{CString, c_int, c_void};

unsafe extern "C" {
    fn palloc_extended(size: usize, flags: c_int) -> *mut c_void;
}

/// The largest piece that the server gives. To ask for more is an error of its own.
const LARGEST: usize = 0x3fff_ffff;

/// So many zeroed bytes in the current context, or an error is raised.
pub fn cleared(bytes: usize) -> *mut c_void {
    let start = try_cleared(bytes);
    if start.is_null() {
        OutOfMemory.raise();
    }
    start
}

/// So many zeroed bytes in the current context, or a null pointer. The core asks for room before it takes a lock.
#[inline]
pub fn try_cleared(bytes: usize) -> *mut c_void {
    const FLAGS: u32 = pg_sys::MCXT_ALLOC_NO_OOM | pg_sys::MCXT_ALLOC_ZERO;
    if bytes > LARGEST {
        return too_large(bytes);
    }
    check_thread();
    // SAFETY: of a size that is allowed, and told to return a null pointer if there is no memory: it raises no error.
    unsafe { palloc_extended(bytes, FLAGS as c_int) }
}

#[cold]
#[inline(never)]
fn too_large(bytes: usize) -> *mut c_void {
    // SAFETY: any size; that it cannot be had is an error.
    unsafe { pg_sys::palloc0(bytes) }
}

/// A memory context for what is needed for a moment only, and the current one until this is dropped.
#[derive(Debug)]
pub struct Scratch {
    context: pg_sys::MemoryContext,
    before: pg_sys::MemoryContext,
}

impl Scratch {
    pub fn new() -> Self {
        // SAFETY: the parameters of an ordinary context, below the current one.
        unsafe {
            let before = pg_sys::CurrentMemoryContext;
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

    /// Calls with the context current again that was before.
    pub fn outside<R>(&self, call: impl FnOnce() -> R) -> R {
        // SAFETY: both contexts are there as long as the call lasts in which this was made. Whoever catches an error sets the current
        // context himself.
        unsafe {
            pg_sys::CurrentMemoryContext = self.before;
            let result = call();
            pg_sys::CurrentMemoryContext = self.context;
            result
        }
    }

    /// Frees what lies in it.
    pub fn clear(&self) {
        // SAFETY: made in `new`, and the caller has left nothing there.
        unsafe { pg_sys::MemoryContextReset(self.context) };
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: made in `new`.
        unsafe {
            pg_sys::CurrentMemoryContext = self.before;
            pg_sys::MemoryContextDelete(self.context);
        }
    }
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
