//! A slot in shared memory that holds the name of a tag or definition, with the number of its fence. A *tag* is a name that a
//! caller gives to values, to invalidate them together; a *definition* is what a name in a query means. A *fence* is the word in
//! shared memory that tells when the tag or definition was last invalidated (`docs/architecture.md`). `names.rs` says what the
//! names are for.
//!
//! Access rules:
//! - Each slot has a version, which is odd while a session writes the slot. A writer adds 1 before it writes and 1 afterwards.
//! - A reader must find the same even version before and after it copies the slot. Otherwise it must not use the copy.
//! - No session ever waits. If another session is writing the slot, a writer stores nothing, and a reader returns None.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// The number of slots in shared memory; they take 160 kB. The number of a fence selects its slot, so fences share slots.
pub const NAME_SLOTS: usize = 512;
/// The most bytes of a name. No tag is longer (`api/arguments.rs`), and no definition (`store/definitions.rs`).
pub const BYTES_MAX: usize = 256;

/// The name of a tag or definition, with the number of its fence.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Slot {
    version: AtomicU64,
    /// The number of the fence in the upper half, and the length of the name in bytes in the lower half. 0 if the slot is empty.
    fence_and_length: AtomicU64,
    name: [AtomicU64; BYTES_MAX / 8],
}

impl Slot {
    /// Makes this an empty slot. Must be called before any other process can access the slot.
    pub fn format(&self) {
        self.version.store(0, Ordering::Relaxed);
        self.fence_and_length.store(0, Ordering::Relaxed);
    }

    /// Returns a copy of the name and its length in bytes, if the slot holds the name of this fence and no session writes the slot
    /// meanwhile.
    pub fn read(&self, fence_number: u32) -> Option<([u8; BYTES_MAX], usize)> {
        let before = self.version.load(Ordering::Acquire);
        let fence_and_length = self.fence_and_length.load(Ordering::Relaxed);
        let mut bytes = [0; BYTES_MAX];
        for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(&self.name) {
            *bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        }
        // A memory barrier, not the fence of a tag: the loads above come before the second load of the version.
        fence(Ordering::Acquire);
        let undisturbed = before.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == before;
        let length = (fence_and_length as u32 as usize).min(BYTES_MAX);
        (undisturbed && length > 0 && fence_and_length >> 32 == u64::from(fence_number))
            .then_some((bytes, length))
    }

    /// Stores the name of a fence, unless another session is writing the slot. The name must have at most [`BYTES_MAX`] bytes.
    pub fn write(&self, fence_number: u32, name: &[u8]) {
        let before = self.version.load(Ordering::Relaxed);
        let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
        if !before.is_multiple_of(2)
            || self.version.compare_exchange(before, before.wrapping_add(1), acquire, relaxed).is_err()
        {
            return;
        }
        // The odd version must be visible before the writes below.
        fence(Ordering::Release);
        self.fence_and_length.store(u64::from(fence_number) << 32 | name.len() as u64, Ordering::Relaxed);
        for (bytes, word) in name.chunks(8).zip(&self.name) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(padded), Ordering::Relaxed);
        }
        self.version.store(before.wrapping_add(2), Ordering::Release);
    }
}
