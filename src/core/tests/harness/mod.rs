//! A test harness that runs the same actions on a tier and on a naive model, and compares the two.
//!
//! The model is a map of entries, a clock, and the number of the last change of each fence. The tier may forget an
//! entry after it had to make room, but it must never serve a value that the model would not serve. After every step
//! the harness verifies all structures of the tier and compares the counters.
//!
//! `tests/model.rs` chooses the actions at random, and the fuzzer and `tests/replay.rs` decode them from bytes ([`story`]).
//! [`damage`] has no model: it runs operations while the memory is overwritten. No test uses all of this module, so each
//! one declares it with `allow(dead_code)`.
//!
//! The *region* is the shared memory of the tier, as words of 64 bits. A *shard* is a part of the tier with a lock of its own. A
//! *tier* is a cache in memory that several processes share. A *fence* is a word in shared memory that says when a dependency of
//! entries last changed.

mod action;
mod both;
mod changes;
pub mod damage;
mod expectations;
mod flights;
mod keys;
mod model;
mod patterns;
mod quota;
mod saving;
pub mod story;
mod values;

pub use action::{Action, KEYS, OTHER_SPACES, SPACES};

use both::{Begun, Both};
use keys::with_key;
use model::{CLAIMERS, Model, OWNER, SETTER, SLOTS};
use patterns::SLOTS_OF_PATTERNS;
use pg_cache_core::testing::TestHost;
use pg_cache_core::{Region, Sizes, Tier};
use proptest::test_runner::{Config as ProptestConfig, RngSeed};
use std::sync::atomic::{AtomicU64, Ordering};

/// Returns the configuration of a property test with this number of cases. `make test` repeats the same cases, so that
/// it gives the same result for the same code. `make test-long` tries other cases, and twenty times as many.
/// `PG_CACHE_TEST_SEED` repeats a run whose seed was printed. Without it, `make test` uses 2026; any fixed number would do.
pub fn cases(number: u32) -> ProptestConfig {
    let long = std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty());
    let given = std::env::var("PG_CACHE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let fresh = || {
        u64::from(std::process::id())
            ^ std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs() << 20)
    };
    let seed = given.unwrap_or_else(|| if long { fresh() } else { 2026 });
    println!("PG_CACHE_TEST_SEED={seed}");
    ProptestConfig {
        cases: if long { number * 20 } else { number },
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    }
}

/// The number of the lock at which the test fails, because a step and the check after it do not seem to end. It is
/// chosen far above what they need.
const LOCKS_PER_STEP: u32 = 50_000;

/// The memory of a region. Each run formats it anew.
pub struct Harness {
    memory: Vec<AtomicU64>,
    shards: u32,
}

impl Harness {
    /// Allocates a region for this number of shards, with `bytes` beside its header, fences, statistics and directory. Its words
    /// are not 0 at first, because formatting must not rely on that.
    pub fn new(bytes: usize, shards: u32) -> Self {
        let bytes = bytes + Tier::<&TestHost>::bytes_beside_entries(Self::sizes(shards));
        Self { memory: (0..bytes / 8).map(|_| AtomicU64::new(0xdead_beef)).collect(), shards }
    }

    /// Returns the sizes of a region of the harness.
    fn sizes(shards: u32) -> Sizes {
        Sizes {
            bytes: 0,
            // One for the database, and one for each space.
            reserved_fences: 1 + u32::from(SPACES + OTHER_SPACES),
            relation_fences: 4,
            tag_fences: 16,
            backends: SLOTS,
            shards,
            // Few, so that a full set of the directory forgets locations.
            locations: 16,
            journal_lines: 0,
            // Few, so that some runs retire patterns.
            patterns: SLOTS_OF_PATTERNS,
        }
    }

    /// Runs the actions on a new tier and on its model. Panics if they differ. Does nothing if the region is too small for
    /// this number of shards.
    pub fn run(&self, actions: &[Action]) {
        let host = TestHost::default();
        host.now.set(1);
        let spare: Vec<AtomicU64> = self.memory.iter().map(|_| AtomicU64::new(0xdead_beef)).collect();
        let (mut memory, mut copy) = (&self.memory, &spare);
        let mut tier = match Tier::format(Region::of_words(memory), Self::sizes(self.shards), &host, 0) {
            Ok(tier) => tier,
            Err(pg_cache_core::RegionError::TooSmall { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        let mut model = Model::default();
        let mut begun = Begun::default();
        let mut backend = 0;
        for (step, action) in actions.iter().enumerate() {
            if let Action::Reattach = action {
                // The last of these numbers has no slot of statistics.
                backend = (backend + 1) % (SLOTS + 1);
                tier = Tier::attach(Region::of_words(memory), &host, backend)
                    .expect("what was formatted can be attached");
            }
            if let Action::Restart = action {
                for (word, copied) in memory.iter().zip(copy) {
                    copied.store(word.load(Ordering::Relaxed), Ordering::Relaxed);
                }
                (memory, copy) = (copy, memory);
                tier = Tier::revive(Region::of_words(memory), Self::sizes(self.shards), &host, [])
                    .expect("a sound region can be revived");
                begun = Begun::default();
                model.restart(&tier, host.now.get());
            }
            host.patience.set(LOCKS_PER_STEP);
            let now = host.now.get();
            Both { tier: &tier, host: &host, model: &mut model, begun: &mut begun, now }.act(action);
            // Writers of the test may have fences raised, which is no error here.
            let held: Vec<_> =
                tier.check().into_iter().filter(|finding| !finding.ends_with("fences are raised")).collect();
            assert!(held.is_empty(), "after step {step}, {action:?}: {held:?}");
            model.expect_counts(&tier, step, action);
            model.expect_relation(&tier, step, action);
        }
        model.expect_sums(&tier);
        host.patience.set(LOCKS_PER_STEP);
        for (_, _, reservation) in begun.reserved {
            tier.cancel(reservation);
        }
        for (key, _, reservation) in begun.announced {
            with_key(&tier, key, |key| tier.withdraw(key, reservation));
        }
        for pattern in begun.patterns {
            tier.withdraw_pattern(pattern);
        }
        for owner in [OWNER, SETTER, CLAIMERS[0], CLAIMERS[1]] {
            tier.release_leases_of(owner);
        }
        // When every key is removed, no entry may be in use.
        for key in 0..KEYS {
            with_key(&tier, key, |key| tier.remove(key));
            assert_eq!(with_key(&tier, key, |key| tier.location(key)), None, "a removed key is still saved");
        }
        let usage = tier.usage();
        assert_eq!((usage.entries, usage.announced, usage.flights), (0, 0, 0));
        // The limit is below the four blocks of 16 bytes that the smallest entry or reservation has.
        assert!(usage.used_bytes <= 16, "{} bytes have leaked", usage.used_bytes);
        for stats in tier.all_stats() {
            assert_eq!((stats.entries, stats.bytes()), (0, 0), "{:?}", stats.space);
        }
    }
}
