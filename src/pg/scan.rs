//! The keys that a scan is about to pass, told from those that it has passed.
//!
//! A scan hands over the rows of a page where they lie, one after the other. Rows of one length therefore come at one distance, and
//! as far behind a key as it stands behind the one before, there lies the next. So it can be looked for in the tier before we
//! are asked for it: what a hit costs is mostly to wait for memory, and that time is the executor's to fill.
//!
//! It is a guess, and is used for nothing but to bring memory near. Keys that are computed lie at one address, those of an index scan
//! in no order, and with rows of different length one distance hardly equals the last: then nothing is guessed.

#![allow(unsafe_code)]

use super::local::local;
use std::cell::Cell;
use std::marker::PhantomData;

/// Pages of memory are at least as large: where one byte can be read, all can.
const PAGE_BYTES: usize = 4096;
/// So much is read of what may be a key. Longer ones are not guessed.
const PEEKED_BYTES: usize = 64;

local! {
    /// Where the last key lay, and how far from the one before.
    static LAST: Cell<(usize, usize)> = Cell::new((0, 0));
}

/// Keys at one distance, as long as the key that it was found by stands.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'k> {
    key: *const u8,
    distance: usize,
    of: PhantomData<&'k [u8]>,
}

/// A copy of what is probably a key.
#[derive(Debug)]
pub struct Guess {
    bytes: [u8; PEEKED_BYTES],
    length: usize,
}

impl Guess {
    /// The key.
    #[inline]
    pub fn key(&self) -> &[u8] {
        &self.bytes[1..=self.length]
    }
}

/// The scan that a key belongs to, if it is part of one. To be asked for each key, in order.
#[inline]
pub fn of(key: &[u8]) -> Option<Scan<'_>> {
    let at = key.as_ptr() as usize;
    let (last, last_distance) = LAST.get();
    let distance = at.wrapping_sub(last);
    LAST.set((at, distance));
    let is_one = distance == last_distance && distance != 0 && !key.is_empty();
    is_one.then_some(Scan { key: key.as_ptr(), distance, of: PhantomData })
}

impl Scan<'_> {
    /// Where the key lies that comes so many keys after this one.
    #[inline]
    pub fn place(&self, ahead: usize) -> usize {
        (self.key as usize).wrapping_add(self.distance.wrapping_mul(ahead))
    }

    /// That key, if it lies on the same page and is as short as keys in tables are.
    #[inline]
    pub fn key(&self, ahead: usize) -> Option<Guess> {
        let page = |at: usize| at / PAGE_BYTES;
        // With the byte before it, which holds its length.
        let start = self.place(ahead).wrapping_sub(1);
        let here = page(self.key as usize);
        if page(start) != here || page(start + PEEKED_BYTES - 1) != here {
            return None;
        }
        // SAFETY: the first byte of the key lies on this page, and the key still stands.
        let bytes = unsafe { peek(self.key.with_addr(start)) }?;
        // A short text's header is its length with itself, and a bit.
        let length = usize::from(bytes[0] >> 1).wrapping_sub(1);
        (bytes[0] & 1 == 1 && (1..PEEKED_BYTES).contains(&length)).then_some(Guess { bytes, length })
    }
}

/// Bytes that others may write to at the same time: what comes of that is a wrong guess. Only machine code may read memory that belongs to
/// no object of ours, or to one that others write to. On processors that this is not written for, nothing is guessed.
///
/// # Safety
/// They lie in readable memory.
#[inline(always)]
unsafe fn peek(start: *const u8) -> Option<[u8; PEEKED_BYTES]> {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::__m128i;
        let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
        // SAFETY: as the caller promises. These loads have no alignment to keep to.
        unsafe {
            std::arch::asm!(
                "movdqu {a}, [{start}]",
                "movdqu {b}, [{start} + 16]",
                "movdqu {c}, [{start} + 32]",
                "movdqu {d}, [{start} + 48]",
                start = in(reg) start,
                a = out(xmm_reg) a,
                b = out(xmm_reg) b,
                c = out(xmm_reg) c,
                d = out(xmm_reg) d,
                options(pure, readonly, nostack, preserves_flags),
            );
            Some(std::mem::transmute::<[__m128i; PEEKED_BYTES / 16], [u8; PEEKED_BYTES]>([a, b, c, d]))
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = start;
        None
    }
}
