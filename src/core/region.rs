//! A block of bytes as words: the only place that turns memory into something to work with.
//!
//! Access rules:
//! - Everything that is shared is an atomic 64-bit word. Whoever reads a word that another process writes gets
//!   the old word or the new one, never a mixture, and never undefined behaviour. What several words mean
//!   together is the business of the rooms above, each of which says under which lock or version.
//! - Positions are word numbers from the start of the region, so that it means the same at every address.
//! - A position outside the region is a sign of damage, not a reason to bring the server down: it leads
//!   to the [sink](Region::SINK), a word whose content nobody believes.

#![allow(unsafe_code)]

use crate::sync::{AtomicU64, Ordering};

/// Bytes that cannot be used as a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// The memory does not start on a cache line.
    #[error("the memory is not aligned to {} bytes", Region::ALIGNMENT)]
    Misaligned,
    /// There is not enough memory for the structures.
    #[error("{bytes} bytes are too few: at least {needed} are needed")]
    TooSmall {
        /// What was given.
        bytes: usize,
        /// What would do.
        needed: usize,
    },
    /// The memory was not formatted by us.
    #[error("the memory is not formatted")]
    Unformatted,
    /// There is more memory than block numbers can count.
    #[error("{bytes} bytes are too many: at most 64 GB can be used")]
    TooLarge {
        /// What was given.
        bytes: usize,
    },
    /// Another version of this library formatted the memory.
    #[error("the memory has layout {found}, this library knows layout {known}")]
    OtherLayout {
        /// The layout version in the memory.
        found: u64,
        /// The one that this library works with.
        known: u64,
    },
    /// The header contradicts itself or the memory's size.
    #[error("the header of the memory is damaged")]
    Damaged,
}

/// Shared memory as a slice of atomic words.
#[derive(Clone, Copy)]
pub struct Region<'m> {
    words: &'m [AtomicU64],
}

impl<'m> Region<'m> {
    /// Where a region has to start: on a cache line, so that what is laid out by lines lies on lines.
    pub const ALIGNMENT: usize = 64;

    /// The word that reads and writes outside of the region end up in.
    pub(crate) const SINK: usize = 7;

    /// The region over a block of memory that other threads or processes may share.
    ///
    /// # Safety
    /// For the whole of `'m`, `start` must point to `bytes` bytes that are mapped, initialised (any content
    /// will do), and accessed by nothing but regions, in this process and in others.
    #[cfg(not(any(loom, counting)))]
    pub unsafe fn from_raw(start: *mut u8, bytes: usize) -> Result<Self, RegionError> {
        if !(start as usize).is_multiple_of(Self::ALIGNMENT) {
            return Err(RegionError::Misaligned);
        }
        let needed = Self::ALIGNMENT;
        if bytes < needed {
            return Err(RegionError::TooSmall { bytes, needed });
        }
        // SAFETY: the caller promises that the memory is valid for 'm and only accessed through regions, that
        // is, atomically; the start is aligned (checked above), any bit pattern is a valid u64, AtomicU64 has
        // the representation of u64, and bytes / 8 words do not exceed the block.
        let words = unsafe { std::slice::from_raw_parts(start.cast::<AtomicU64>(), bytes / 8) };
        Ok(Self { words })
    }

    /// The region over words that are already atomic: of a test, or of a model checker.
    pub fn of_words(words: &'m [AtomicU64]) -> Self {
        Self { words }
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> usize {
        self.words.len() * 8
    }

    /// Its size in words.
    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }

    /// The word at a position, or the sink.
    #[inline]
    pub(crate) fn word(&self, at: usize) -> &'m AtomicU64 {
        match self.words.get(at) {
            Some(word) => word,
            None => self.sink(),
        }
    }

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

    /// Reads a word whose neighbours are not needed with it.
    #[inline]
    pub(crate) fn load(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::Relaxed)
    }

    /// Writes a word under a lock, or before anybody can see it.
    #[inline]
    pub(crate) fn store(&self, at: usize, value: u64) {
        self.word(at).store(value, Ordering::Relaxed);
    }

    /// Asks the processor to bring a word's cache line near, because it will be read soon.
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

    /// Exactly `N` words from a position on, unless the region ends before.
    #[inline(always)]
    pub(crate) fn chunk<const N: usize>(&self, at: usize) -> Option<&'m [AtomicU64; N]> {
        self.run(at, N)?.first_chunk()
    }

    /// `count` words from a position on, unless the region ends before.
    #[inline(always)]
    pub(crate) fn run(&self, at: usize, count: usize) -> Option<&'m [AtomicU64]> {
        self.words.get(at..at.wrapping_add(count))
    }

    /// All words from a position on, unless the region ends before.
    #[inline(always)]
    pub(crate) fn since(&self, at: usize) -> Option<&'m [AtomicU64]> {
        self.words.get(at..)
    }
}

/// Copies bytes out of shared words, from byte `skip` on. Fills `into`, unless the words end before: then it is
/// left as it is.
#[inline(always)]
pub(crate) fn copy_bytes(words: &[AtomicU64], skip: usize, into: &mut [u8]) {
    if (words.len() * 8).checked_sub(skip).is_none_or(|rest| rest < into.len()) {
        return;
    }
    #[cfg(all(target_arch = "x86_64", not(any(loom, counting))))]
    if let Some(last) = into.len().checked_sub(16) {
        // SAFETY: reads skip..skip + len of the words and writes 0..len of `into`, which was checked above; both are valid for
        // that, and cannot overlap because `into` is borrowed mutably. Others may write the words meanwhile: each of these
        // loads is a relaxed atomic one of every byte in it, which machine code, unlike Rust, can say.
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
    // Elsewhere, and before a model checker, word by word: the end of the first, whole ones, and the beginning of the last.
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

/// A file in memory, shared with every process that maps it: where tests of several processes meet.
///
/// Unlike a server's shared memory it may lie at another address in each of them, and more than once in one.
#[cfg(all(feature = "testing", not(any(loom, counting))))]
#[derive(Debug)]
pub struct Mapping(memmap2::MmapRaw);

#[cfg(all(feature = "testing", not(any(loom, counting))))]
impl Mapping {
    /// Maps the whole of a file. It must keep its length for as long as it is mapped, and nobody may write to it but
    /// through mappings: it is to be a file of the test's own, in a directory of its own.
    pub fn of(file: &std::fs::File) -> std::io::Result<Self> {
        memmap2::MmapRaw::map_raw(file).map(Self)
    }

    /// Its words. Slices of them make regions and whatever else the processes share.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the map begins on a page, is of this length, was written by the kernel, and stands until self is
        // dropped, which the result does not outlive. Nobody has a reference to what is in it, here or in another
        // process, that does not come from here: all accesses are atomic. Were the file cut short, which the
        // caller has promised not to do, the process would end by a signal.
        let region = unsafe { Region::from_raw(self.0.as_mut_ptr(), self.0.len()) };
        region.map_or(&[], |region| region.words)
    }
}

/// An allocator whose memory can seem to be used up, for the thread that says so: where tests of what then happens begin.
#[cfg(all(feature = "testing", not(any(loom, counting))))]
#[derive(Debug)]
pub struct FailingAllocator;

#[cfg(all(feature = "testing", not(any(loom, counting))))]
thread_local! {
    /// Allocations until all fail, counted down to 0; none for no failure.
    static LEFT: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
    static ASKED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

#[cfg(all(feature = "testing", not(any(loom, counting))))]
impl FailingAllocator {
    /// Calls while every allocation of this thread fails that comes after so many. How many were asked for.
    pub fn with<R>(allocations: u64, call: impl FnOnce() -> R) -> (R, u64) {
        ASKED.set(0);
        LEFT.set(Some(allocations));
        let result = call();
        LEFT.set(None);
        (result, ASKED.get())
    }
}

// SAFETY: all memory is the system's; what fails is a null pointer.
#[cfg(all(feature = "testing", not(any(loom, counting))))]
unsafe impl std::alloc::GlobalAlloc for FailingAllocator {
    unsafe fn alloc(&self, layout: std::alloc::Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        match LEFT.get() {
            Some(0) => return std::ptr::null_mut(),
            Some(left) => LEFT.set(Some(left - 1)),
            None => {}
        }
        // SAFETY: the caller's promises are the system's.
        unsafe { std::alloc::System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: std::alloc::Layout) {
        // SAFETY: it came from the system, with this layout.
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
