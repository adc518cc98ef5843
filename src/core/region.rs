//! The region, the shared memory of the tier (the cache), as words: the only file of the core that turns raw memory into a type
//! that safe code can use. It also has two helpers for tests: `Mapping`, a file mapped into memory, and `FailingAllocator`, an
//! allocator that fails on purpose.
//!
//! Access rules:
//! - All shared memory is accessed as atomic 64-bit words. A process that reads a word while another process writes it gets the old
//!   word or the new one, never a mixture, and it is never undefined behaviour. `copy_bytes` is weaker: it may return a mixture of
//!   old and new bytes, even within a word. Its callers must check afterwards that no process wrote meanwhile.
//! - The meaning of several words together is up to the modules that use the region. Each of them says which lock or version
//!   protects its words.
//! - Positions are word numbers from the start of the region, so they mean the same at every address.
//! - A position outside the region is a sign of damage, but must not bring the server down. Such an access goes to the
//!   [sink](Region::SINK), a word whose content is never trusted.

#![allow(unsafe_code)]

use crate::sync::{AtomicU64, Ordering};

/// The reason why memory cannot be used as a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// The memory does not start on a cache line.
    #[error("the memory is not aligned to {} bytes", Region::ALIGNMENT)]
    Misaligned,
    /// The memory is too small for the structures.
    #[error("{bytes} bytes are too few: at least {needed} are needed")]
    TooSmall {
        /// The bytes of the memory.
        bytes: usize,
        /// The number of bytes that are needed at least.
        needed: usize,
    },
    /// The memory was not formatted by this library.
    #[error("the memory is not formatted")]
    Unformatted,
    /// The memory has more blocks or fences (words that say when a dependency of entries last changed, `fence/mod.rs`) than their
    /// 32-bit numbers can count.
    #[error("{bytes} bytes are too many: at most 64 GB can be used")]
    TooLarge {
        /// The bytes of the memory.
        bytes: usize,
    },
    /// Another version of this library formatted the memory.
    #[error("the memory has layout {found}, this library knows layout {known}")]
    OtherLayout {
        /// The layout version in the memory.
        found: u64,
        /// The layout version of this library.
        known: u64,
    },
    /// The header (`layout.rs`) contradicts itself or the size of the memory.
    #[error("the header of the memory is damaged")]
    Damaged,
}

/// Shared memory as a slice of atomic words.
#[derive(Clone, Copy)]
pub struct Region<'m> {
    words: &'m [AtomicU64],
}

impl<'m> Region<'m> {
    /// The alignment of a region: a cache line. So structures that are laid out in lines start on lines.
    pub const ALIGNMENT: usize = 64;

    /// The position of the sink: the word that an access outside the region reads or writes. It lies in the header (`layout.rs`),
    /// which must not use this word for anything else.
    pub(crate) const SINK: usize = 7;

    /// Makes a region of a block of memory that other threads or processes may share. The words of the model checker `loom`, and
    /// those that count writes (`counting.rs`), do not have the form of a plain word, so this function does not exist for them.
    ///
    /// # Safety
    /// For the whole of `'m`, `start` must point to `bytes` bytes that are mapped, initialised (any content will do), and accessed
    /// by nothing but regions, in this process and in others.
    #[cfg(not(any(loom, counting)))]
    pub unsafe fn from_raw(start: *mut u8, bytes: usize) -> Result<Self, RegionError> {
        if !(start as usize).is_multiple_of(Self::ALIGNMENT) {
            return Err(RegionError::Misaligned);
        }
        let needed = Self::ALIGNMENT;
        if bytes < needed {
            return Err(RegionError::TooSmall { bytes, needed });
        }
        // SAFETY: the caller promises that the memory is valid for 'm and is accessed only through regions, that is, atomically.
        // The start is aligned, as checked above. Any bit pattern is a valid u64, AtomicU64 has the representation of u64, and
        // bytes / 8 words do not exceed the block.
        let words = unsafe { std::slice::from_raw_parts(start.cast::<AtomicU64>(), bytes / 8) };
        Ok(Self { words })
    }

    /// Makes a region of words that are already atomic: those of a test or of a model checker. There must be at least one cache
    /// line of them. The start is not checked for alignment, on which only the speed depends.
    pub fn of_words(words: &'m [AtomicU64]) -> Self {
        Self { words }
    }

    /// Returns the size in bytes.
    pub fn bytes(&self) -> usize {
        self.words.len() * 8
    }

    /// Returns the size in words.
    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }

    /// Returns the word at a position, or the sink if the position is outside the region.
    #[inline]
    pub(crate) fn word(&self, at: usize) -> &'m AtomicU64 {
        match self.words.get(at) {
            Some(word) => word,
            None => self.sink(),
        }
    }

    /// Returns the sink. A region that is too short to have one uses a word of this process.
    #[cold]
    #[inline(never)]
    fn sink(&self) -> &'m AtomicU64 {
        #[cfg(not(loom))]
        {
            static NOWHERE: AtomicU64 = AtomicU64::new(0);
            self.words.get(Self::SINK).unwrap_or(&NOWHERE)
        }
        #[cfg(loom)]
        {
            &self.words[Self::SINK]
        }
    }

    /// Reads a word on its own, with no ordering against other words.
    #[inline]
    pub(crate) fn load(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::Relaxed)
    }

    /// Writes a word, with no order against other words. The caller must hold the lock that protects the word, or be its only
    /// writer, or write a value that is right in any order with the writes of others.
    #[inline]
    pub(crate) fn store(&self, at: usize, value: u64) {
        self.word(at).store(value, Ordering::Relaxed);
    }

    /// Prefetches the cache line of a word that will be read soon.
    #[inline(always)]
    pub(crate) fn prefetch(&self, at: usize) {
        #[cfg(all(target_arch = "x86_64", not(loom)))]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let line = self.words.as_ptr().wrapping_add(at).cast::<i8>();
            // SAFETY: a prefetch reads nothing and never faults, wherever the pointer leads.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
        }
        #[cfg(not(all(target_arch = "x86_64", not(loom))))]
        let _ = at;
    }

    /// Returns exactly `N` words from a position on, or None if the region ends before.
    #[inline(always)]
    pub(crate) fn array_at<const N: usize>(&self, at: usize) -> Option<&'m [AtomicU64; N]> {
        self.slice_at(at, N)?.first_chunk()
    }

    /// Returns `count` words from a position on, or None if the region ends before.
    #[inline(always)]
    pub(crate) fn slice_at(&self, at: usize, count: usize) -> Option<&'m [AtomicU64]> {
        self.words.get(at..at.wrapping_add(count))
    }

    /// Returns all words from a position on, or None if the position is outside the region.
    #[inline(always)]
    pub(crate) fn from(&self, at: usize) -> Option<&'m [AtomicU64]> {
        self.words.get(at..)
    }
}

/// Copies bytes out of shared words, from byte `skip` on. Fills `into` completely. If the words end before `into` is full, leaves
/// `into` unchanged. If another process writes the words meanwhile, the copy may be a mixture of old and new bytes.
#[inline(always)]
pub(crate) fn copy_bytes(words: &[AtomicU64], skip: usize, into: &mut [u8]) {
    if (words.len() * 8).checked_sub(skip).is_none_or(|rest| rest < into.len()) {
        return;
    }
    #[cfg(all(target_arch = "x86_64", not(any(loom, counting))))]
    if let Some(last) = into.len().checked_sub(16) {
        // SAFETY: the code reads bytes skip..skip + len of the words and writes bytes 0..len of `into`. The check above covers the
        // first range, so both are valid. They cannot overlap, because `into` is borrowed mutably. Other processes may write the
        // words meanwhile: each of these loads is a relaxed atomic load of every byte in it. Machine code can express that, unlike
        // Rust.
        unsafe {
            std::arch::asm!(
                "2:",
                "movdqu {bytes}, [{from} + {at}]",
                "movdqu [{to} + {at}], {bytes}",
                "add {at}, 16",
                "cmp {at}, {last}",
                "jb 2b",
                "movdqu {bytes}, [{from} + {last}]",
                "movdqu [{to} + {last}], {bytes}",
                from = in(reg) words.as_ptr().cast::<u8>().add(skip),
                to = in(reg) into.as_mut_ptr(),
                last = in(reg) last,
                at = inout(reg) 0_usize => _,
                bytes = out(xmm_reg) _,
                options(nostack),
            );
        }
        return;
    }
    // On other machines, under a model checker, with words that count writes (`counting.rs`), and for fewer than 16 bytes, the copy
    // goes word by word: the end of the first word, whole words, and the beginning of the last word.
    let (words, skip) = (&words[skip / 8..], skip % 8);
    let (head, body) = into.split_at_mut(if skip == 0 { 0 } else { into.len().min(8 - skip) });
    let (whole, tail) = body.as_chunks_mut::<8>();
    let mut words = words.iter().map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
    if !head.is_empty() {
        let first = words.next().unwrap_or_default();
        head.copy_from_slice(&first[skip..skip + head.len()]);
    }
    for (bytes, word) in whole.iter_mut().zip(&mut words) {
        *bytes = word;
    }
    if !tail.is_empty() {
        let last = words.next().unwrap_or_default();
        tail.copy_from_slice(&last[..tail.len()]);
    }
}

/// A file mapped into memory and shared with every process that maps it. Tests of several processes share their region in it.
///
/// Unlike a server's shared memory, it may lie at a different address in each process, and more than once in one process.
#[cfg(all(feature = "testing", not(any(loom, counting))))]
#[derive(Debug)]
pub struct Mapping(memmap2::MmapRaw);

#[cfg(all(feature = "testing", not(any(loom, counting))))]
impl Mapping {
    /// Maps the whole of a file. The file must keep its length while it is mapped, and must be written only through mappings. So it
    /// must be a file of the test's own, in a directory of its own.
    pub fn of(file: &std::fs::File) -> std::io::Result<Self> {
        memmap2::MmapRaw::map_raw(file).map(Self)
    }

    /// Returns the words of the file. Each process makes regions and other shared structures from slices of them.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the map begins on a page, has this length, was initialised by the kernel, and stays mapped until self is dropped,
        // which the result does not outlive. Every reference to its content, in this process and in others, comes from this
        // function, so all accesses are atomic. If the file were cut short, which the caller has promised not to do, a signal would
        // end the process.
        let region = unsafe { Region::from_raw(self.0.as_mut_ptr(), self.0.len()) };
        region.map_or(&[], |region| region.words)
    }
}

/// An allocator that fails on purpose when a thread asks for that, in this thread only. Tests of allocation failures use it.
#[cfg(all(feature = "testing", not(any(loom, counting))))]
#[derive(Debug)]
pub struct FailingAllocator;

#[cfg(all(feature = "testing", not(any(loom, counting))))]
thread_local! {
    /// The number of allocations of this thread that still succeed before all fail; None if none fails.
    static ALLOCATIONS_LEFT: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
    /// The number of allocations that this thread has tried since the last call of [`FailingAllocator::with`].
    static ALLOCATIONS_TRIED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

#[cfg(all(feature = "testing", not(any(loom, counting))))]
impl FailingAllocator {
    /// Runs a call in which this thread's allocations fail after the first `allocations` ones. Returns the result and the number of
    /// allocations that were tried. Calls must not be nested. After a panic in the call, allocations go on failing.
    pub fn with<R>(allocations: u64, call: impl FnOnce() -> R) -> (R, u64) {
        ALLOCATIONS_TRIED.set(0);
        ALLOCATIONS_LEFT.set(Some(allocations));
        let result = call();
        ALLOCATIONS_LEFT.set(None);
        (result, ALLOCATIONS_TRIED.get())
    }
}

// SAFETY: the system's allocator provides all memory, and a failure is a null pointer.
#[cfg(all(feature = "testing", not(any(loom, counting))))]
unsafe impl std::alloc::GlobalAlloc for FailingAllocator {
    unsafe fn alloc(&self, layout: std::alloc::Layout) -> *mut u8 {
        ALLOCATIONS_TRIED.set(ALLOCATIONS_TRIED.get() + 1);
        match ALLOCATIONS_LEFT.get() {
            Some(0) => return std::ptr::null_mut(),
            Some(left) => ALLOCATIONS_LEFT.set(Some(left - 1)),
            None => {}
        }
        // SAFETY: the caller's promises to this function are those that the system's allocator needs.
        unsafe { std::alloc::System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: std::alloc::Layout) {
        // SAFETY: the memory came from the system's allocator, with this layout.
        unsafe { std::alloc::System.dealloc(start, layout) }
    }
}

impl std::fmt::Debug for Region<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Region").field("words", &self.words.len()).finish()
    }
}

#[cfg(all(test, not(any(loom, counting))))]
mod tests {
    use super::*;

    /// A copy that would reach behind the last word must copy nothing, even if its end overflows. Fails if a byte of `into`
    /// changes. The last bytes of the words are still copied.
    #[test]
    fn nothing_is_copied_from_behind_the_words() {
        let words = [const { AtomicU64::new(u64::MAX) }; 4];
        for length in [0, 1, 8, 16, 24] {
            for skip in [33 - length.min(1), 33, 40, usize::MAX - 15, usize::MAX - 7, usize::MAX] {
                let mut into = vec![7; length];
                copy_bytes(&words, skip, &mut into);
                assert_eq!(into, vec![7; length], "{length} bytes after {skip}");
            }
            let mut into = vec![7; length];
            copy_bytes(&words, 32 - length, &mut into);
            assert_eq!(into, vec![255; length], "the last {length} bytes");
        }
    }
}
