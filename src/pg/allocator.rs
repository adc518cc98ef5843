//! Where Rust gets its memory: from the system, and when that has none, small pieces from a reserve.
//!
//! Rust ends the process when memory for a plain `Box` or `String` cannot be had, and the postmaster then ends all sessions. So two
//! rules hold in this library:
//! - a piece whose size comes from data must be asked for in a way that can fail (`try_reserve`, or the helpers in `memory.rs`);
//! - a loop over data that takes small pieces must ask [`is_short`] now and then, and end with an error if that says so.
//!
//! The reserve keeps everything else alive: texts of errors, what pgrx allocates to raise them, nodes of small maps. It lies in the
//! library's own data, so that neither the server's allocations nor those of other libraries can use it up.

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

const BLOCK_BYTES: usize = 256;
const BLOCKS: usize = 1024;
const BYTES: usize = BLOCK_BYTES * BLOCKS;
/// The largest piece that the reserve gives. Pieces whose size comes from data are larger sooner or later, and must be able to fail.
const PIECE_BYTES_MAX: usize = 16 * 1024;
/// The system has memory again when it gives a piece of this size.
const PROBE_BYTES: usize = BYTES;

/// Whether the reserve is in use and the system has no memory still.
#[inline]
pub fn is_short() -> bool {
    RESERVE.used.load(Ordering::Relaxed) > 0 && !has_memory_again()
}

/// Allocates what the first panic of a process allocates beside Rust's allocator: the C library ends a process that has no memory to
/// note the destructor of a thread's own variable, and pgrx keeps the place of a panic in one. To be called while the server loads us:
/// every process inherits it.
pub fn prepare_to_panic() {
    let _ = std::panic::catch_unwind(|| std::panic::panic_any(()));
}

#[cold]
fn has_memory_again() -> bool {
    let Ok(layout) = Layout::from_size_align(PROBE_BYTES, 16) else { return false };
    // SAFETY: the size is not zero; what is given is given back at once.
    unsafe {
        let probe = from_system(layout);
        if !probe.is_null() {
            System.dealloc(probe, layout);
        }
        !probe.is_null()
    }
}

struct Allocator;

// SAFETY: each piece comes from the system or from the reserve, whose addresses differ, and goes back to where it came from.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the system's.
        let found = unsafe { from_system(layout) };
        if found.is_null() { RESERVE.take(layout) } else { found }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if fails() {
            return RESERVE.take_zeroed(layout);
        }
        // SAFETY: the caller's promises are the system's.
        let found = unsafe { System.alloc_zeroed(layout) };
        if found.is_null() { RESERVE.take_zeroed(layout) } else { found }
    }

    #[inline]
    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        if RESERVE.has(start) {
            RESERVE.give_back(start, layout);
        } else {
            // SAFETY: it came from the system, with this layout.
            unsafe { System.dealloc(start, layout) };
        }
    }

    #[inline]
    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !(RESERVE.has(start) || size > layout.size() && fails()) {
            // SAFETY: it came from the system, with this layout; the caller promises the rest.
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
    /// # Safety
    /// As for `realloc`.
    #[cold]
    unsafe fn move_to_new(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises. Both pieces are as large as what is copied, and they do not overlap.
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

/// # Safety
/// As for `alloc`.
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

/// Blocks, of which a piece takes some that lie side by side.
struct Reserve {
    memory: UnsafeCell<Memory>,
    taken: UnsafeCell<[bool; BLOCKS]>,
    /// Guards `taken`. Held for a look through it, by at most one thread.
    locked: AtomicBool,
    /// How many blocks are taken.
    used: AtomicUsize,
}

// SAFETY: `taken` is accessed under the lock only, and each block of `memory` belongs to one piece at a time.
unsafe impl Sync for Reserve {}

impl Reserve {
    /// Whether a piece is one of the reserve's.
    #[inline]
    fn has(&self, start: *mut u8) -> bool {
        (start as usize).wrapping_sub(self.memory.get() as usize) < BYTES
    }

    /// A piece, or a null pointer.
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
            // SAFETY: a piece of this size, which nobody else has.
            unsafe { start.write_bytes(0, layout.size()) };
        }
        start
    }

    #[cold]
    fn give_back(&self, start: *mut u8, layout: Layout) {
        let first = (start as usize - self.memory.get() as usize) / BLOCK_BYTES;
        let count = blocks_of(layout);
        self.with_taken(|taken| taken[first..first + count].fill(false));
        self.used.fetch_sub(count, Ordering::Relaxed);
    }

    fn with_taken<R>(&self, with: impl FnOnce(&mut [bool; BLOCKS]) -> R) -> R {
        while self.locked.swap(true, Ordering::Acquire) {
            std::hint::spin_loop();
        }
        // SAFETY: the lock is held, and what is called neither panics nor comes back here.
        let result = with(unsafe { &mut *self.taken.get() });
        self.locked.store(false, Ordering::Release);
        result
    }
}

fn blocks_of(layout: Layout) -> usize {
    layout.size().div_ceil(BLOCK_BYTES).max(1)
}

/// Whether the system is to seem to have no memory. In builds for tests only.
#[inline]
fn fails() -> bool {
    #[cfg(debug_assertions)]
    return failing::now();
    #[cfg(not(debug_assertions))]
    false
}

/// Allocations that fail on purpose, in builds for tests only:
/// `CREATE FUNCTION … AS '$libdir/pg_cache', 'fail_allocation_wrapper'`.
#[cfg(debug_assertions)]
mod failing {
    use pgrx::prelude::*;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

    /// Allocations until one fails, counted down to 1; 0 for none.
    static LEFT: AtomicU64 = AtomicU64::new(0);
    /// Whether all after it fail, too.
    static ALL: AtomicBool = AtomicBool::new(false);
    static HAS_FAILED: AtomicBool = AtomicBool::new(false);

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

    /// Has the allocation of this number from now on fail, and perhaps all after it; 0 for none. Whether one has failed since the
    /// last call.
    #[pg_extern(sql = false)]
    fn fail_allocation(number: i64, all: bool) -> bool {
        let has_failed = HAS_FAILED.swap(false, Relaxed);
        ALL.store(all, Relaxed);
        LEFT.store(u64::try_from(number).unwrap_or(0), Relaxed);
        has_failed
    }
}
