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
    /// Another version of this library formatted the memory.
    #[error("the memory has layout {found}, this library knows layout {}", crate::layout::VERSION)]
    OtherLayout {
        /// The layout version in the memory.
        found: u64,
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

    /// The words from a position on, at most `count` of them, fewer at the end of the region.
    #[inline]
    pub(crate) fn run(&self, at: usize, count: usize) -> &'m [AtomicU64] {
        let end = at.saturating_add(count).min(self.words.len());
        self.words.get(at..end).unwrap_or(&[])
    }
}

impl std::fmt::Debug for Region<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Region").field("words", &self.words.len()).finish()
    }
}
