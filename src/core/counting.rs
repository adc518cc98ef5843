//! Atomic words that count how often they are written to. With them, `tests/counting.rs` proves that a hit writes to no word that
//! other backends write. Compiled only with `--cfg counting`.

use std::sync::atomic::{AtomicU64 as Word, Ordering};

/// A word and its counts. It has the methods of the standard type that the core uses, and no others.
#[derive(Debug)]
pub struct AtomicU64 {
    value: Word,
    /// The number of plain stores.
    stores: Word,
    /// The number of attempts at a read-modify-write, such as `fetch_add` or `compare_exchange`.
    changes: Word,
}

impl AtomicU64 {
    /// Creates a word with no writes counted.
    pub const fn new(value: u64) -> Self {
        Self { value: Word::new(value), stores: Word::new(0), changes: Word::new(0) }
    }

    /// Returns the number of stores and the number of attempts at a read-modify-write since the last call, and resets both. An
    /// attempt takes the cache line away from all other cores, whether it changes the value or not.
    pub fn take_writes(&self) -> (u64, u64) {
        (self.stores.swap(0, Ordering::Relaxed), self.changes.swap(0, Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn load(&self, order: Ordering) -> u64 {
        self.value.load(order)
    }

    #[inline]
    pub(crate) fn store(&self, value: u64, order: Ordering) {
        self.stores.fetch_add(1, Ordering::Relaxed);
        self.value.store(value, order);
    }

    #[inline]
    pub(crate) fn fetch_add(&self, by: u64, order: Ordering) -> u64 {
        self.changing().fetch_add(by, order)
    }

    #[inline]
    pub(crate) fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
        self.changing().fetch_or(bits, order)
    }

    #[inline]
    pub(crate) fn fetch_and(&self, bits: u64, order: Ordering) -> u64 {
        self.changing().fetch_and(bits, order)
    }

    #[inline]
    pub(crate) fn compare_exchange(
        &self,
        old: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.changing().compare_exchange(old, new, success, failure)
    }

    #[inline]
    pub(crate) fn compare_exchange_weak(
        &self,
        old: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.changing().compare_exchange_weak(old, new, success, failure)
    }

    /// Counts an attempt at a read-modify-write, and returns the word for it.
    fn changing(&self) -> &Word {
        self.changes.fetch_add(1, Ordering::Relaxed);
        &self.value
    }
}
