//! The global allocator of the library: memory comes from the system. If the system has none, small *pieces* come from a reserve. A
//! piece is the memory of one allocation.
//!
//! Rust aborts the process if memory for a plain `Box` or `String` cannot be allocated, and the postmaster then ends all sessions.
//! So two rules hold in this library:
//! - a piece whose size comes from data must be requested in a way that can fail (`try_reserve`, or the helpers in `memory.rs`);
//! - a loop over data that allocates small pieces must call [`is_short`] in each turn, and end with an error if it returns true
//!   (`memory::check` does both).
//!
//! The reserve serves everything else: texts of errors, what pgrx allocates to raise them, nodes of small maps. It is a static of
//! the library, so neither the server's allocations nor those of other libraries can use it up.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

static RESERVE: Reserve = Reserve {
    memory: UnsafeCell::new(Memory { _bytes: [0; BYTES] }),
    taken: UnsafeCell::new([false; BLOCKS]),
    locked: AtomicBool::new(false),
    used: AtomicUsize::new(0),
};

/// The bytes of a block. A piece must not need a larger alignment.
const BLOCK_BYTES: usize = 256;
const BLOCKS: usize = 1024;
/// The bytes of the reserve: 256 kB.
const BYTES: usize = BLOCK_BYTES * BLOCKS;
/// The largest piece that the reserve gives, in bytes. The texts of errors and the nodes of maps are smaller. A piece whose size
/// comes from data can be larger, so requests for such pieces must be able to fail.
const PIECE_BYTES_MAX: usize = 16 * 1024;
/// If the system can allocate a piece of this size, it has memory again.
const PROBE_BYTES: usize = BYTES;

/// Returns whether the reserve is in use and the system still has no memory.
#[inline]
pub fn is_short() -> bool {
    RESERVE.used.load(Ordering::Relaxed) > 0 && !has_memory_again()
}

/// Returns whether a part of the reserve is in use. A new piece of memory may be a part of it, so it must not be kept for later.
#[inline]
pub fn is_reserve_used() -> bool {
    RESERVE.used.load(Ordering::Relaxed) > 0
}

/// Makes the allocations of a first panic that do not go through Rust's allocator. pgrx keeps the location of a panic in a
/// thread-local variable. The C library notes the destructor of such a variable, and aborts the process if it has no memory for
/// that. Must be called while the server loads the library, so that every process inherits these allocations.
pub fn prepare_to_panic() {
    let _ = std::panic::catch_unwind(|| std::panic::panic_any(()));
}

/// Returns whether the system can allocate [`PROBE_BYTES`] now.
#[cold]
fn has_memory_again() -> bool {
    let Ok(layout) = Layout::from_size_align(PROBE_BYTES, 16) else { return false };
    // SAFETY: the size is not zero, and the piece is freed at once.
    unsafe {
        let probe = from_system(layout);
        if !probe.is_null() {
            System.dealloc(probe, layout);
        }
        !probe.is_null()
    }
}

struct Allocator;

// SAFETY: each piece comes from the system or from the reserve, whose addresses differ, and returns to where it came from.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that the system requires.
        let found = unsafe { from_system(layout) };
        if found.is_null() { RESERVE.take(layout) } else { found }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if fails() {
            return RESERVE.take_zeroed(layout);
        }
        // SAFETY: the caller's promises are those that the system requires.
        let found = unsafe { System.alloc_zeroed(layout) };
        if found.is_null() { RESERVE.take_zeroed(layout) } else { found }
    }

    #[inline]
    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        if RESERVE.has(start) {
            RESERVE.give_back(start, layout);
        } else {
            // SAFETY: the piece came from the system, with this layout.
            unsafe { System.dealloc(start, layout) };
        }
    }

    #[inline]
    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !(RESERVE.has(start) || size > layout.size() && fails()) {
            // SAFETY: the piece came from the system, with this layout; the caller promises the rest.
            let moved = unsafe { System.realloc(start, layout, size) };
            if !moved.is_null() {
                return moved;
            }
        }
        // SAFETY: the caller promises that the size is legal for this alignment.
        unsafe { self.move_to_new(start, layout, size) }
    }
}

impl Allocator {
    /// Moves a piece to a new one of another size. A piece of the system moves to the reserve, because the system could not
    /// reallocate it. Returns a null pointer if there is no room: the piece then stays as it is.
    ///
    /// # Safety
    /// The caller must keep the promises of `realloc`.
    #[cold]
    unsafe fn move_to_new(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises. Both pieces are at least as large as the copied bytes, and they do not overlap.
        unsafe {
            let new = Layout::from_size_align_unchecked(size, layout.align());
            let moved = if RESERVE.has(start) { self.alloc(new) } else { RESERVE.take(new) };
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(start, size.min(layout.size()));
                self.dealloc(start, layout);
            }
            moved
        }
    }
}

/// Allocates from the system only.
///
/// # Safety
/// The caller must keep the promises of `alloc`.
#[inline]
unsafe fn from_system(layout: Layout) -> *mut u8 {
    if fails() {
        return std::ptr::null_mut();
    }
    // SAFETY: as the caller promises.
    unsafe { System.alloc(layout) }
}

#[repr(align(4096))]
struct Memory {
    _bytes: [u8; BYTES],
}

/// The reserve: an array of blocks. A piece takes adjacent blocks.
struct Reserve {
    memory: UnsafeCell<Memory>,
    /// Whether each block belongs to a piece.
    taken: UnsafeCell<[bool; BLOCKS]>,
    /// A spinlock that guards `taken`. It is held for one search through `taken` at most.
    locked: AtomicBool,
    /// The number of blocks that are taken.
    used: AtomicUsize,
}

// SAFETY: `taken` is only accessed under the lock, and each block of `memory` belongs to at most one piece at a time.
unsafe impl Sync for Reserve {}

impl Reserve {
    /// Returns whether a piece is one of the reserve.
    #[inline]
    fn has(&self, start: *mut u8) -> bool {
        (start as usize).wrapping_sub(self.memory.get() as usize) < BYTES
    }

    /// Returns a piece, or a null pointer if the piece is too large or not enough adjacent blocks are free.
    #[cold]
    fn take(&self, layout: Layout) -> *mut u8 {
        if layout.size() > PIECE_BYTES_MAX || layout.align() > BLOCK_BYTES {
            return std::ptr::null_mut();
        }
        let count = blocks_of(layout);
        self.with_taken(|taken| {
            let Some(first) = taken.windows(count).position(|blocks| !blocks.contains(&true)) else {
                return std::ptr::null_mut();
            };
            taken[first..first + count].fill(true);
            self.used.fetch_add(count, Ordering::Relaxed);
            self.memory.get().cast::<u8>().wrapping_add(first * BLOCK_BYTES)
        })
    }

    #[cold]
    fn take_zeroed(&self, layout: Layout) -> *mut u8 {
        let start = self.take(layout);
        if !start.is_null() {
            // SAFETY: a piece of this size, which no other code refers to yet.
            unsafe { start.write_bytes(0, layout.size()) };
        }
        start
    }

    /// Frees a piece of the reserve. The layout must be the one that it was taken with.
    #[cold]
    fn give_back(&self, start: *mut u8, layout: Layout) {
        let first = (start as usize - self.memory.get() as usize) / BLOCK_BYTES;
        let count = blocks_of(layout);
        self.with_taken(|taken| taken[first..first + count].fill(false));
        self.used.fetch_sub(count, Ordering::Relaxed);
    }

    /// Calls `with` with the marks of the blocks, under the spinlock. `with` must not panic, allocate or call this again.
    fn with_taken<R>(&self, with: impl FnOnce(&mut [bool; BLOCKS]) -> R) -> R {
        while self.locked.swap(true, Ordering::Acquire) {
            std::hint::spin_loop();
        }
        // SAFETY: the lock is held, and `with` neither panics nor calls this function again.
        let result = with(unsafe { &mut *self.taken.get() });
        self.locked.store(false, Ordering::Release);
        result
    }
}

/// Returns how many blocks a piece takes: at least one.
fn blocks_of(layout: Layout) -> usize {
    layout.size().div_ceil(BLOCK_BYTES).max(1)
}

/// Returns whether this allocation must fail on purpose. Only in debug builds, for tests.
#[inline]
fn fails() -> bool {
    #[cfg(debug_assertions)]
    return failing::now();
    #[cfg(not(debug_assertions))]
    false
}

/// Allocations that fail on purpose, for tests, in debug builds only: `CREATE FUNCTION … AS '$libdir/pg_cache',
/// 'fail_allocation_wrapper'`.
#[cfg(debug_assertions)]
mod failing {
    use pgrx::prelude::*;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

    /// The number of allocations until one fails, counted down to 1; 0 if none will fail.
    static LEFT: AtomicU64 = AtomicU64::new(0);
    /// Whether all later allocations fail, too.
    static ALL: AtomicBool = AtomicBool::new(false);
    /// Whether an allocation has failed since the last call of `fail_allocation`.
    static HAS_FAILED: AtomicBool = AtomicBool::new(false);

    /// Counts an allocation, and returns whether it must fail.
    pub fn now() -> bool {
        match LEFT.load(Relaxed) {
            0 => false,
            1 => {
                if !ALL.load(Relaxed) {
                    LEFT.store(0, Relaxed);
                }
                HAS_FAILED.store(true, Relaxed);
                true
            }
            left => {
                LEFT.store(left - 1, Relaxed);
                false
            }
        }
    }

    /// Makes the n-th allocation from now on fail, and all later ones if `all` is set; 0 means that none fails.
    /// Returns whether an allocation has failed since the last call.
    #[pg_extern(sql = false)]
    fn fail_allocation(nth: i64, all: bool) -> bool {
        let has_failed = HAS_FAILED.swap(false, Relaxed);
        ALL.store(all, Relaxed);
        LEFT.store(u64::try_from(nth).unwrap_or(0), Relaxed);
        has_failed
    }
}
