//! Prefetches the memory of keys that will be asked for next: the keys of a table scan (for `entry/reading.rs`), and the keys of a
//! list (for functions with many keys).
//!
//! Most of the time of a hit is spent waiting for memory, first for the hash bucket and then for the entry. If the next keys are
//! known, the processor can fetch their buckets and entries while the session works on other keys. Only the bucket says where the
//! entry is, so a key's bucket is prefetched two keys earlier than its entry. A wrong guess does no harm.

use super::keyspace::{Keyspace, hash, why_unfit};
use super::space::Space;
use crate::pg::local::local;
use crate::pg::scan;
use pg_cache_core::KeyMark;
use std::cell::Cell;

/// How many keys ahead an entry is prefetched. This distance and the next one roughly match the latency of memory.
const ENTRY_AHEAD: usize = 2;
/// How many keys ahead a bucket is prefetched.
const BUCKET_AHEAD: usize = 4;

/// A key whose bucket was prefetched.
#[derive(Clone, Copy, Debug)]
struct Prefetched {
    /// The address of the key in the scan.
    address: usize,
    /// The key without its bytes, by which the tier finds the bucket.
    mark: KeyMark,
}

local! {
    /// The keys whose buckets were prefetched last, as a ring buffer.
    static PREFETCHED: [Cell<Option<Prefetched>>; SLOTS] = [const { Cell::new(None) }; SLOTS];
    /// Counts the calls. Its remainder is a position in the ring buffer.
    static TURN: Cell<usize> = Cell::new(0);
}
/// The length of the ring buffer. It must be greater than `BUCKET_AHEAD`.
const SLOTS: usize = 8;

/// Prefetches the entry of a key whose bucket was prefetched some keys ago, and the bucket of a later key. Must be called for each
/// key of a scan, in order, with the key that the caller is about to ask for (`pg/scan.rs`).
#[inline]
pub fn of_scan(keyspace: &Keyspace, key: &[u8]) {
    let Some(scan) = scan::of(key) else { return };
    let turn = TURN.get().wrapping_add(1);
    TURN.set(turn);
    if let Some(prefetched) = PREFETCHED[(turn + ENTRY_AHEAD) % SLOTS].get()
        && prefetched.address == scan.address(ENTRY_AHEAD)
    {
        keyspace.tier.prefetch_entry(prefetched.mark);
    }
    let Some(guess) = scan.key(BUCKET_AHEAD) else { return };
    let Some(key) = keyspace.key(guess.key(), hash(guess.key())) else { return };
    keyspace.tier.prefetch_bucket(key.mark());
    PREFETCHED[(turn + BUCKET_AHEAD) % SLOTS]
        .set(Some(Prefetched { address: scan.address(BUCKET_AHEAD), mark: key.mark() }));
}

/// Does the same as [`of_scan`] for the keys of a list. The caller is about to ask for the key at position `at`.
#[inline]
pub fn of_list(space: &Space, keys: &[&[u8]], at: usize) {
    let Some(keyspace) = space.keyspace() else { return };
    // A key that cannot be stored may have a gigabyte, so it is never hashed.
    let mark = |key: &&[u8]| match why_unfit(key) {
        None => keyspace.key(key, hash(key)).map(|key| key.mark()),
        Some(_) => None,
    };
    if let Some(key) = keys.get(at + BUCKET_AHEAD).and_then(mark) {
        keyspace.tier.prefetch_bucket(key);
    }
    if let Some(key) = keys.get(at + ENTRY_AHEAD).and_then(mark) {
        keyspace.tier.prefetch_entry(key);
    }
}
