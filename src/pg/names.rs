//! The names of tags that were invalidated lately, and of definitions that have changed, in shared memory. A *tag* is a name that a
//! caller gives to values, to invalidate them together. A *definition* here is the meaning of a name in a query (`altered.rs`).
//!
//! An entry knows its tags and definitions only by their *fences*, the words that tell when each was last invalidated
//! (`docs/architecture.md`). The fence of a tag or definition is found by a hash of its name. A session that invalidates one notes
//! the name here, so that another session can say what has made its entry a miss. The table is small: each fence has one slot,
//! fences share slots, and a slot keeps the latest name. A name may be missing or may belong to another fence, so a reader must
//! check that the name leads to its fence.

use super::name_slot::BYTES_MAX;
use super::{memory, shared};

/// Notes the name of a tag or definition that is being invalidated. Does nothing if there is no cache, if the name is too long for
/// a slot, or if another session writes the slot. Cannot fail.
pub fn note(fence_number: u32, name: &[u8]) {
    let Some(slot) = shared::name_slot(fence_number).filter(|_| name.len() <= BYTES_MAX) else { return };
    let known = slot.read(fence_number);
    if known.is_none_or(|(bytes, length)| bytes[..length] != *name) {
        slot.write(fence_number, name);
    }
}

/// Returns the name that was noted last for a fence, if it is still known. The caller must check that this name leads to the fence.
/// Raises an error if there is no memory.
pub fn of(fence_number: u32) -> Option<Vec<u8>> {
    let (bytes, length) = shared::name_slot(fence_number)?.read(fence_number)?;
    Some(memory::copy(&bytes[..length]))
}
