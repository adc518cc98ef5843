//! Looking for keys before they are asked for: those of a scan, and those of a list.
//!
//! What a hit costs is mostly to wait for memory, first for the bucket and then for the entry it names. Who knows which keys come next
//! can have both fetched while he is busy with others.

use super::space::{Place, Space, hash};
use crate::pg::local::local;
use crate::pg::scan;
use pg_cache_core::KeyMark;
use std::cell::Cell;

/// How many keys ahead an entry is fetched, and its bucket: about as long before as memory takes.
const ENTRY_AHEAD: usize = 2;
const BUCKET_AHEAD: usize = 4;

/// A key whose bucket was fetched.
#[derive(Clone, Copy, Debug)]
struct Fetched {
    /// Where it lies.
    place: usize,
    mark: KeyMark,
}

local! {
    /// The latest of them, in turn.
    static FETCHED: [Cell<Option<Fetched>>; SLOTS] = [const { Cell::new(None) }; SLOTS];
    static TURN: Cell<usize> = Cell::new(0);
}
const SLOTS: usize = 8;

/// Fetches the entry of a key whose bucket was fetched some keys ago, and the bucket of one further on.
#[inline]
pub fn look_ahead(place: &Place, key: &[u8]) {
    let Some(scan) = scan::of(key) else { return };
    let turn = TURN.get().wrapping_add(1);
    TURN.set(turn);
    if let Some(fetched) = FETCHED[(turn + ENTRY_AHEAD) % SLOTS].get()
        && fetched.place == scan.place(ENTRY_AHEAD)
    {
        place.tier.fetch_entry(fetched.mark);
    }
    let Some(guess) = scan.key(BUCKET_AHEAD) else { return };
    let Some(key) = place.key(guess.key(), hash(guess.key())) else { return };
    place.tier.fetch_bucket(key.mark());
    FETCHED[(turn + BUCKET_AHEAD) % SLOTS]
        .set(Some(Fetched { place: scan.place(BUCKET_AHEAD), mark: key.mark() }));
}

/// The same for the keys of a list, of which the one at this place is about to be asked for.
#[inline]
pub fn look_ahead_among(space: &Space, keys: &[&[u8]], at: usize) {
    let Some(place) = space.place() else { return };
    let mark = |key: &&[u8]| place.key(key, hash(key)).map(|key| key.mark());
    if let Some(key) = keys.get(at + BUCKET_AHEAD).and_then(mark) {
        place.tier.fetch_bucket(key);
    }
    if let Some(key) = keys.get(at + ENTRY_AHEAD).and_then(mark) {
        place.tier.fetch_entry(key);
    }
}
