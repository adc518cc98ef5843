//! Looking for keys before they are asked for: those of a scan, and those of a list.
//!
//! What a hit costs is mostly to wait for memory, first for the bucket and then for the entry it names. Who knows which keys come next
//! can have both fetched while he is busy with others.

use super::space::{Space, hash};
use crate::pg::scan;
use pg_cache_core::Foreseen;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How many keys ahead an entry is fetched, and its bucket: about as long before as memory takes.
const ENTRY_AHEAD: usize = 2;
const BUCKET_AHEAD: usize = 4;

/// The keys whose buckets were fetched lately, in turn: where each lies, and its hash. A backend has one thread.
static PLACES: [AtomicUsize; 8] = [const { AtomicUsize::new(0) }; 8];
static HASHES: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];
static TURN: AtomicUsize = AtomicUsize::new(0);

/// Fetches the entry of a key whose bucket was fetched some keys ago, and the bucket of one further on.
#[inline]
pub fn look_ahead(space: &Space, key: &[u8]) {
    let Some(scan) = scan::of(key) else { return };
    let turn = TURN.load(Ordering::Relaxed).wrapping_add(1);
    TURN.store(turn, Ordering::Relaxed);
    let slot = (turn + ENTRY_AHEAD) % PLACES.len();
    if PLACES[slot].load(Ordering::Relaxed) == scan.place(ENTRY_AHEAD) {
        space.tier.fetch_entry(Foreseen::from_bits(HASHES[slot].load(Ordering::Relaxed)));
    }
    let Some(guess) = scan.key(BUCKET_AHEAD) else { return };
    let Some(key) = space.key(guess.key(), hash(guess.key())) else { return };
    space.tier.fetch_bucket(key.foreseen());
    let slot = (turn + BUCKET_AHEAD) % PLACES.len();
    PLACES[slot].store(scan.place(BUCKET_AHEAD), Ordering::Relaxed);
    HASHES[slot].store(key.foreseen().to_bits(), Ordering::Relaxed);
}

/// The same for the keys of a list, of which the one at this place is about to be asked for.
#[inline]
pub fn look_ahead_among(keys: &[&[u8]], place: usize) {
    let Some(space) = Space::default() else { return };
    let foreseen = |key: &&[u8]| space.key(key, hash(key)).map(|key| key.foreseen());
    if let Some(key) = keys.get(place + BUCKET_AHEAD).and_then(foreseen) {
        space.tier.fetch_bucket(key);
    }
    if let Some(key) = keys.get(place + ENTRY_AHEAD).and_then(foreseen) {
        space.tier.fetch_entry(key);
    }
}
