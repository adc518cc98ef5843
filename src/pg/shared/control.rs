//! The *control line*, a cache line at the beginning of our shared memory: values that the postmaster stores before any backend
//! exists. They never change until shared memory is created anew.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU64, Ordering};

/// The values that the postmaster stores before any backend exists. `start_up` in `creation.rs` must store each of
/// them.
#[repr(C, align(64))]
pub(super) struct Control {
    /// When the clock began, see `clock.rs`.
    pub(super) began_ms: AtomicU64,
    /// The time of `began_ms`, as the server counts it: microseconds since 2000.
    pub(super) began_at: AtomicI64,
    /// The seed of the hashes by which keys and tags are found.
    pub(super) hash_seed: AtomicU64,
    /// See [`epoch`].
    pub(super) epoch: AtomicU64,
    /// The timeline of the database that a saved cache belongs to; 0 if the cache was empty when the server started.
    pub(super) timeline: AtomicU64,
}

/// An epoch has 31 bits: it is the upper half of the number of a lease, which is a positive bigint (`store/flights.rs`).
pub(super) const EPOCH_MASK: u64 = (1 << 31) - 1;

/// The control line; null if there is no cache. The postmaster sets it, and each backend inherits it.
pub(super) static CONTROL: AtomicPtr<Control> = AtomicPtr::new(std::ptr::null_mut());

/// Returns a number of 31 bits that identifies the content of the memory tier, which is the cache in shared memory. A stamp, which
/// is a number of the tier's clock of changes, or a saved value that belongs to other content must not be used. Unlike the
/// [`epoch`], the number stays the same across a clean restart that keeps the tier.
pub fn content_id() -> u32 {
    let seed = hash_seed();
    ((seed ^ seed >> 32) & EPOCH_MASK) as u32
}

/// Returns the epoch: a value that is constant until shared memory is created anew, and almost certainly another one after that. It
/// has 31 bits and is not 0; without a cache it is 0.
pub fn epoch() -> u64 {
    with_control(|control| control.epoch.load(Ordering::Relaxed))
}

/// Returns the seed of the hashes; all backends share it.
#[inline]
pub fn hash_seed() -> u64 {
    with_control(|control| control.hash_seed.load(Ordering::Relaxed))
}

/// Returns when the clock began (`clock.rs`).
pub(super) fn began_ms() -> u64 {
    with_control(|control| control.began_ms.load(Ordering::Relaxed))
}

/// Returns a value from the control line, or 0 if there is no cache.
#[inline]
pub(super) fn with_control(read: impl Fn(&Control) -> u64) -> u64 {
    let control = CONTROL.load(Ordering::Relaxed);
    // SAFETY: the postmaster has set the pointer to memory that exists as long as shared memory does.
    if control.is_null() { 0 } else { read(unsafe { &*control }) }
}
