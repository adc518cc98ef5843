//! A generator of pseudo-random numbers, for tests whose actions can be repeated by their seed.

use std::time::SystemTime;

/// Returns the seed of a random test: `PG_CACHE_TEST_SEED`, or the seconds of the clock.
pub fn seed() -> u64 {
    match std::env::var("PG_CACHE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |time| time.as_secs()),
    }
}

/// The generator SplitMix64, with its published constants. The number in it is its state, which starts as the seed. Generators with
/// the same seed give the same numbers.
pub struct Dice(pub u64);

impl Dice {
    /// Returns a number below `sides`, which must not be 0.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ mixed >> 31) % sides as u64) as usize
    }
}
