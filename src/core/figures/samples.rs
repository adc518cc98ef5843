//! A sample of the hits of each backend, from which the hits of a key are estimated: `cache_top` and the view `cache_entries` show
//! the estimate, and by it workers choose the results that they keep warm (`store/kept.rs` of the extension).
//!
//! ```text
//! in the slot of a backend:   number of samples, on a line of its own | hashes of keys, the oldest is overwritten
//! ```
//!
//! A backend remembers about one of 64 hits: it stores the hash of the key. Its *slot* is a part of the shared memory that only the
//! backend itself writes (`statistics.rs`), so a hit on an entry never writes to a word that other backends write. A later backend
//! with the same slot continues with the samples that it finds. A *space* is a set of keys in one database.

use crate::layout::{AT_SAMPLED, LINE, SAMPLES};
use crate::region::Region;

/// One of this many hits is remembered.
pub(crate) const SAMPLED_EVERY: u64 = 64;

/// Whether the hit with this number is remembered: its number among the hits that the backend has counted for the space. The factor
/// is 2^64 divided by the golden ratio, so the products spread evenly. So a backend that reads the same keys in turns does not
/// always remember the same one.
#[inline(always)]
pub(super) fn is_sampled(number: u64) -> bool {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) < u64::MAX / SAMPLED_EVERY
}

/// Remembers a hit on the key with this hash. `slot` is the position of the own backend's slot.
#[cold]
#[inline(never)]
pub(super) fn remember(region: &Region<'_>, slot: usize, hash: u64) {
    let number = region.load(slot + AT_SAMPLED);
    region.store(slot + AT_SAMPLED + LINE + number as usize % SAMPLES, hash);
    region.store(slot + AT_SAMPLED, number.wrapping_add(1));
}

/// Returns the hashes in the slot at a position. The backend of the slot may write meanwhile. Each result is the hash of a key that
/// was hit, or 0 if the number of samples became visible before the hash.
pub(super) fn of_slot(region: &Region<'_>, slot: usize) -> impl Iterator<Item = u64> {
    let samples = region.load(slot + AT_SAMPLED).min(SAMPLES as u64) as usize;
    (0..samples).map(move |at| region.load(slot + AT_SAMPLED + LINE + at))
}
