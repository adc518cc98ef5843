//! Compares two multisets of values without keeping the values: by the number of values, and by the sums of two hashes of each
//! value. The sums do not depend on the order. The chance that two different multisets count as equal is about one in 2^128.
//! `query/verify.rs` compares the rows of a stored result with those of a new run in this way.

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use std::hash::Hasher;

/// A multiset of values, reduced to the number of the values and the sums of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Multiset {
    count: u64,
    sums: [u64; 2],
}

impl Multiset {
    /// Adds a value by its fingerprint.
    pub fn add(&mut self, print: Fingerprint) {
        self.count += 1;
        for (sum, hash) in self.sums.iter_mut().zip(print.0) {
            *sum = sum.wrapping_add(hash);
        }
    }
}

/// The hashes of a value.
#[derive(Clone, Copy, Debug)]
pub struct Fingerprint([u64; 2]);

/// Makes the fingerprint of a value from its parts. A printer need not be dropped, so an error may pass it as a longjmp.
pub struct Printer([FoldHasher<'static>; 2]);

impl Printer {
    /// Makes the printer of one value. All printers have the same seeds.
    pub fn new() -> Self {
        Self([1, 2].map(|seed| FoldHasher::with_seed(seed, SharedSeed::global_fixed())))
    }

    /// Adds a part. Its length separates it from the next part.
    pub fn add(&mut self, part: &[u8]) {
        for hasher in &mut self.0 {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
    }

    /// Adds a number, or a number that stands for a null.
    pub fn add_number(&mut self, number: u64) {
        self.0.iter_mut().for_each(|hasher| hasher.write_u64(number));
    }

    /// Returns the fingerprint of the parts.
    pub fn finish(self) -> Fingerprint {
        Fingerprint(self.0.map(|hasher| hasher.finish()))
    }
}

/// Returns the fingerprint of some bytes.
pub fn of_bytes(bytes: &[u8]) -> Fingerprint {
    let mut printer = Printer::new();
    printer.add(bytes);
    printer.finish()
}
