//! Measures the *core* of pg_cache alone: the crate `pg_cache_core` in `src/core/`, the cache in shared memory without PostgreSQL.
//! It runs in this process, so the times contain no work of a server or a client.
//!
//! A *tier* is one cache of the core, in one block of memory, its *region*. pg_cache has one tier, in shared memory; these
//! measurements have tiers in the memory of this process (`private_tier.rs`).
//!
//! [`get`] measures hits, [`put`] the storing of values, [`memory`] the share of the memory that values get, and [`innocents`] the
//! hits of unchanged entries while others are written. [`duel`] compares two contenders, the alternatives that a measurement
//! compares.

pub mod duel;
pub mod get;
pub mod innocents;
pub mod memory;
pub mod put;

use crate::private_tier::{Spinning, key, scope, value};
use pg_cache_core::{Host, Key, Scope, Stamp, Tier};
use quick_cache::DefaultHashBuilder as Hashing;
use std::hash::BuildHasher;

/// The length of the keys, in bytes.
const KEY_BYTES: usize = 20;
/// The length of small values, in bytes.
const VALUE_BYTES: usize = 100;

/// Returns the key for a number.
fn key_bytes(number: u64) -> [u8; KEY_BYTES] {
    let mut bytes = *b"00000000000000000000";
    let mut rest = number;
    for digit in bytes.iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    bytes
}

/// Stores, looks up and removes entries by the numbers of their keys.
struct Writer<'t, 'm, H> {
    tier: &'t Tier<'m, H>,
    /// The database, the space and the role of all keys.
    scope: Scope,
    /// The hash function. All writers have the same seeds, so each of them finds the entries of the others.
    hashing: Hashing,
    /// Bytes of which each value is a prefix.
    content: Vec<u8>,
}

impl<'t, 'm, H: Host> Writer<'t, 'm, H> {
    fn new(tier: &'t Tier<'m, H>) -> Self {
        Self { tier, scope: scope(tier), hashing: Hashing::with_seeds(1, 2, 3, 4), content: Vec::new() }
    }

    fn key<'k>(&self, bytes: &'k [u8; KEY_BYTES]) -> Key<'k> {
        key(self.scope, bytes, BuildHasher::hash_one(&self.hashing, &bytes[..]))
    }

    /// Stores a value of `size` bytes. Panics if the tier refuses it (`Refusal` in the core has the reasons). The tiers of this
    /// benchmark refuse none: no value is too large for them, and a part of a tier is switched off only after a panic in it.
    fn put(&mut self, number: u64, size: usize) {
        if self.content.len() < size {
            self.content.resize(size, b'x');
        }
        let bytes = key_bytes(number);
        self.tier.put(&self.key(&bytes), &value(&self.content[..size])).expect("there is room");
    }
}

impl<H: Host> Writer<'_, '_, H> {
    /// Looks up a key without copying its value. Returns whether the tier has it. The stamp `LATEST` makes the reader one that may
    /// see all committed changes.
    fn ask(&self, number: u64) -> bool {
        self.tier.get(&self.key(&key_bytes(number)), Stamp::LATEST, &mut ()).is_ok()
    }

    fn remove(&self, number: u64) {
        self.tier.remove(&self.key(&key_bytes(number)));
    }
}

/// Returns the bytes of a number of megabytes.
const fn megabytes(number: usize) -> usize {
    number << 20
}

/// Formats a size: 1.5 MB, 128 KB.
fn size(bytes: f64) -> String {
    match bytes {
        many if many >= 1048576.0 => format!("{:.1} MB", many / 1048576.0),
        some if some >= 1024.0 => format!("{:.1} KB", some / 1024.0),
        few => format!("{few:.0} bytes"),
    }
}

/// A tier whose locks work, so that several threads may use it.
type Shared<'m, 'l> = Tier<'m, &'l Spinning>;
