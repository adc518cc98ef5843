//! The core by itself, measured in this process: no server, no client, nothing between the clock and the tier.

pub mod duel;
pub mod get;
pub mod innocents;
pub mod memory;
pub mod put;

use crate::tier_bed::{Spinning, key, scope, value};
use pg_cache_core::{Host, Key, Scope, Stamp, Tier};
use quick_cache::DefaultHashBuilder as Hashing;
use std::hash::BuildHasher;

/// Length of the keys.
const KEY_BYTES: usize = 20;
/// Length of small values.
const VALUE_BYTES: usize = 100;

/// The key of a number.
fn key_bytes(number: u64) -> [u8; KEY_BYTES] {
    let mut bytes = *b"00000000000000000000";
    let mut rest = number;
    for digit in bytes.iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    bytes
}

/// Writes entries by the number of their key.
struct Writer<'t, 'm, H> {
    tier: &'t Tier<'m, H>,
    scope: Scope,
    hashing: Hashing,
    content: Vec<u8>,
}

impl<'t, 'm, H: Host> Writer<'t, 'm, H> {
    fn new(tier: &'t Tier<'m, H>) -> Self {
        Self { tier, scope: scope(tier), hashing: Hashing::with_seeds(1, 2, 3, 4), content: Vec::new() }
    }

    fn key<'k>(&self, bytes: &'k [u8; KEY_BYTES]) -> Key<'k> {
        key(self.scope, bytes, BuildHasher::hash_one(&self.hashing, &bytes[..]))
    }

    /// Stores a value of `size` bytes. The tiers here are never switched off, and nothing is too large for them.
    fn put(&mut self, number: u64, size: usize) {
        if self.content.len() < size {
            self.content.resize(size, b'x');
        }
        let bytes = key_bytes(number);
        self.tier.put(&self.key(&bytes), &value(&self.content[..size])).expect("there is room");
    }
}

impl<H: Host> Writer<'_, '_, H> {
    /// Asks for a key without wanting its value. Whether it is there.
    fn ask(&self, number: u64) -> bool {
        self.tier.get(&self.key(&key_bytes(number)), Stamp::LATEST, &mut ()).is_ok()
    }

    fn remove(&self, number: u64) {
        self.tier.remove(&self.key(&key_bytes(number)));
    }
}

/// The bytes of a number of megabytes.
const fn megabytes(number: usize) -> usize {
    number << 20
}

/// As text: 1.5 MB, 128 KB.
fn size(bytes: f64) -> String {
    match bytes {
        many if many >= 1048576.0 => format!("{:.1} MB", many / 1048576.0),
        some if some >= 1024.0 => format!("{:.1} KB", some / 1024.0),
        few => format!("{few:.0} bytes"),
    }
}

/// A tier with real locks.
type Shared<'m, 'l> = Tier<'m, &'l Spinning>;
