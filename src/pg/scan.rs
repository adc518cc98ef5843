//! Guesses the next keys of a table scan, such as in `SELECT cache_get(key) FROM t`, so that their entries in the cache can be
//! prefetched.
//!
//! A scan passes the rows of a page in place, one after the other. Rows of equal length therefore lie at equal distances: if two
//! successive distances between keys are equal, the next key lies at the same distance again. `store/prefetch.rs` can look for that
//! key in the cache before the caller asks for it. Most of a hit's time is spent waiting for memory, and the executor's work now
//! overlaps with that wait.
//!
//! A guess is only used to bring memory near, so a wrong guess does no harm. If keys are computed, they all lie at one address.
//! Keys of an index scan lie in no order, and rows of different lengths rarely have two equal distances in a row. In these cases
//! nothing is guessed.

#![allow(unsafe_code)]

use super::local::local;
use std::cell::Cell;
use std::marker::PhantomData;

/// Memory pages have at least this size: if one byte of a page can be read, all can.
const PAGE_BYTES: usize = 4096;
/// The number of bytes that are read of a possible key: the byte with its length, and up to 63 bytes of the key. Longer keys are
/// not guessed.
const PEEKED_BYTES: usize = 64;

local! {
    /// The address of the last key, and its distance from the key before; both are 0 before the first key.
    static LAST: Cell<(usize, usize)> = Cell::new((0, 0));
}

/// A series of keys at equal distances. It is valid as long as the key that it was found by.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'k> {
    key: *const u8,
    /// The distance from one key to the next in bytes; it wraps around if the keys lie in descending order.
    distance: usize,
    of: PhantomData<&'k [u8]>,
}

/// A copy of bytes that are probably a key.
#[derive(Debug)]
pub struct Guess {
    bytes: [u8; PEEKED_BYTES],
    length: usize,
}

impl Guess {
    /// Returns the guessed key.
    #[inline]
    pub fn key(&self) -> &[u8] {
        &self.bytes[1..=self.length]
    }
}

/// Returns the scan that a key belongs to, if its distance equals the last one. Must be called for each key, in order.
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
    /// Returns the address of the key that comes `ahead` keys after this one.
    #[inline]
    pub fn address(&self, ahead: usize) -> usize {
        (self.key as usize).wrapping_add(self.distance.wrapping_mul(ahead))
    }

    /// Returns the key that comes `ahead` keys after this one, if it lies on the same page of memory as this one and has the short
    /// form of keys in tables.
    #[inline]
    pub fn key(&self, ahead: usize) -> Option<Guess> {
        let page = |at: usize| at / PAGE_BYTES;
        // The byte before the key holds its length.
        let start = self.address(ahead).wrapping_sub(1);
        let here = page(self.key as usize);
        if page(start) != here || page(start + PEEKED_BYTES - 1) != here {
            return None;
        }
        // SAFETY: all bytes lie on the page on which this key begins, and this key is still valid, so the page can be read.
        let bytes = unsafe { peek(self.key.with_addr(start)) }?;
        // The header of a short text is one byte: the length including the header, shifted left, and a bit that is set.
        let length = usize::from(bytes[0] >> 1).wrapping_sub(1);
        (bytes[0] & 1 == 1 && (1..PEEKED_BYTES).contains(&length)).then_some(Guess { bytes, length })
    }
}

/// Reads bytes that other processes may write at the same time. A torn read results in a wrong guess only. Rust code must not read
/// memory that belongs to no Rust object, or that other processes write, so this is machine code. On processors without an
/// implementation, nothing is guessed.
///
/// # Safety
/// The bytes must lie in readable memory.
#[inline(always)]
unsafe fn peek(start: *const u8) -> Option<[u8; PEEKED_BYTES]> {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::__m128i;
        let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
        // SAFETY: as the caller promises. These loads need no alignment.
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
