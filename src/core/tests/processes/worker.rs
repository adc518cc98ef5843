//! The work of one process, and the check of everything that it reads. `main.rs` explains the test.

use crate::ground::{BUSY, FINDINGS, Ground, OPERATIONS, READS, TICK, VICTIM};
use crate::values::{Random, content, size_of, verify};
use pg_cache_core::testing::value;
use pg_cache_core::{
    Acquired, FenceId, FlightRequest, Host, IncrError, Key, NewValue, Owner, ReserveOptions, Scope, Stamp,
    Tier,
};
use std::sync::atomic::Ordering;

/// The part that a process plays. `Worker::step` has the operations of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Reader,
    Writer,
    /// Removes keys now and then, and reads otherwise.
    Deleter,
    /// Adds to counters.
    Adder,
    /// Sweeps, inspects buckets, and now and then moves the clock.
    Sweeper,
    /// Does the work of all others, until it is killed.
    Victim,
}

/// The parts of the processes, by their seats. The victim must have the seat `VICTIM` (`ground.rs`), and no other process its part.
pub const PARTS: [Part; 8] = [
    Part::Victim,
    Part::Reader,
    Part::Reader,
    Part::Writer,
    Part::Writer,
    Part::Deleter,
    Part::Adder,
    Part::Sweeper,
];

/// The number of keys of each kind: spread keys, keys that have the same hash and so share one bucket, and keys of counters. Keys
/// are numbers, in this order. Searching the crowded bucket takes so long that readers and kills come in between.
pub const SPREAD: u64 = 600;
pub const CROWDED: u64 = 300;
pub const COUNTERS: u64 = 20;
/// The first few keys have large values and are used in about a third of the operations, so that one process replaces a value while
/// another copies it.
pub const HOT: u64 = 4;
/// The number of all keys.
pub const KEYS: u64 = SPREAD + CROWDED + COUNTERS;

/// Returns whether a key is that of a counter.
pub fn is_counter(number: u64) -> bool {
    number >= SPREAD + CROWDED
}

/// Returns the step of a counter. Until the heir (`main.rs`) changes the region, only multiples of the step are added, so the
/// counter must hold a multiple. The heir adds 1 ([`Worker::inherit`]).
pub fn step(number: u64) -> u64 {
    number * 2 + 1
}

/// Calls `use_key` with a key. The factor, 2^64 divided by the golden ratio, spreads consecutive numbers over all hashes.
pub fn with_key<T>(scope: Scope, number: u64, use_key: impl FnOnce(&Key<'_>) -> T) -> T {
    let hash = if (SPREAD..SPREAD + CROWDED).contains(&number) { SPREAD } else { number };
    let bytes = number.to_le_bytes();
    use_key(&Key::new(scope, &bytes, hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)).expect("a legal key"))
}

/// A process at work.
pub struct Worker<'m> {
    pub ground: &'m Ground,
    pub tier: Tier<'m, &'m Ground>,
    pub scope: Scope,
    pub random: Random,
    /// The buffer for reads.
    pub value: Vec<u8>,
}

impl<'m> Worker<'m> {
    pub fn new(ground: &'m Ground, seed: u64) -> Self {
        let tier = Tier::attach(ground.region(), ground, ground.seat as u32).expect("it is formatted");
        let scope = tier.scope(1, 1, 0);
        Self { ground, tier, scope, random: Random::new(seed), value: Vec::new() }
    }

    /// Does one operation after the other until the process is told to stop.
    pub fn work(&mut self, part: Part) {
        while !self.ground.stopped() {
            self.ground.note(BUSY, 1);
            self.step(part);
            self.ground.note(BUSY, 0);
            self.ground.count(OPERATIONS);
        }
    }

    /// Does one operation of a part.
    pub fn step(&mut self, part: Part) {
        let hot = self.random.below(3) == 0;
        let mut below = |bound| self.random.below(if hot { HOT } else { bound });
        let (plain, any) = (below(SPREAD + CROWDED), below(KEYS));
        let counter = SPREAD + CROWDED + self.random.below(COUNTERS);
        match part {
            Part::Reader => self.read(any),
            Part::Writer => self.write(plain),
            // Not every time, or there would be nothing to evict.
            Part::Deleter if any.is_multiple_of(4) => {
                with_key(self.scope, any, |key| self.tier.remove(key));
            }
            Part::Deleter => self.read(any),
            Part::Adder => {
                let new = new_value(&[], self.tier.fences().now(), u32::MAX, &[]);
                // Adding is refused if there is no room. An existing entry of this key is always a counter.
                match with_key(self.scope, counter, |key| {
                    self.tier.incr(key, step(counter) as i64, &new, ReserveOptions::default())
                }) {
                    Ok(sum) => assert_counter(counter, sum as u64),
                    Err(error) => assert!(matches!(error, IncrError::Refused(_)), "{error:?}"),
                }
            }
            Part::Sweeper => {
                self.ground.control(TICK).fetch_add(u64::from(any.is_multiple_of(64)), Ordering::SeqCst);
                self.tier.sweep(64);
                self.tier.inspect(plain).expect("there is memory");
            }
            Part::Victim => {
                let others = &PARTS[VICTIM + 1..];
                let one = self.random.below(others.len() as u64);
                self.step(others[one as usize]);
            }
        }
    }

    /// Reads a key. Fails if the value is torn, belongs to another key, or has expired.
    pub fn read(&mut self, number: u64) {
        let now = self.ground.now();
        let value = &mut self.value;
        let answer = with_key(self.scope, number, |key| self.tier.get(key, Stamp::LATEST, value));
        let Ok(meta) = answer else { return };
        assert_eq!(meta.value_len, self.value.len());
        assert!(meta.expires > now, "served at {now} what was over at {}", meta.expires);
        if is_counter(number) {
            let bytes = self.value.as_slice().try_into().expect("a counter has eight bytes");
            assert_counter(number, u64::from_ne_bytes(bytes));
        } else {
            verify(number, &self.value);
        }
        self.ground.count(READS);
    }

    /// Stores a value in one of the possible ways, or begins to: the ways 2 and 4 take the change back and store nothing. Also
    /// stores nothing if there is no room, or if another process has the lease. Once in 128 times, it invalidates the values of a
    /// tag instead.
    pub fn write(&mut self, number: u64) {
        let version = self.random.below(u64::MAX);
        let size = match number {
            0..HOT => 4_000 + version as usize % 5_000,
            HOT..SPREAD => size_of(version),
            // The values are small, so that the crowded bucket has many entries.
            _ => version as usize % 60,
        };
        let content = content(number, version, size);
        // The shift moves bits 18 to 23 of the version to the top of the hash, which selects one of the 64 fences of tags. The
        // lowest bits already select the way to store.
        let tag = self.tier.fences().tag(version << 40);
        let expires = self.ground.now() + 1 + (version >> 20) as u32 % 2_000;
        let tier = &self.tier;
        with_key(self.scope, number, |key| match version % 16 {
            // This must be seldom. An entry that was invalidated is not counted as evicted when it leaves, and the test lets the
            // processes work until enough entries were evicted (`one_life` in `main.rs`).
            0 if version.is_multiple_of(128) => {
                tier.fences().raise(tag);
                tier.fences().lower(tag);
            }
            1 => {
                if let Acquired::Lead(lease) = tier.acquire(
                    key,
                    FlightRequest::lease(Owner { session: self.ground.seat as u32, role: 0 }, expires),
                ) && let Ok(reserved) =
                    tier.reserve(key, &new_value(&content, lease.stamp, expires, &[tag]), Default::default())
                {
                    tier.publish_leased(key, reserved, lease.id);
                }
            }
            how => {
                let new = new_value(&content, tier.fences().now(), expires, std::slice::from_ref(&tag));
                let Ok(reserved) = tier.reserve(key, &new, Default::default()) else { return };
                match how {
                    2 => tier.cancel(reserved),
                    3 => {
                        tier.announce(key, &reserved);
                        tier.confirm(key, reserved);
                    }
                    4 => {
                        tier.announce(key, &reserved);
                        tier.withdraw(key, reserved);
                    }
                    _ => {
                        tier.publish(key, reserved);
                    }
                }
            }
        });
    }

    /// Reads everything that the dead processes have left, and then works with it as if nothing had happened.
    pub fn inherit(&mut self) {
        for number in 0..KEYS {
            self.read(number);
        }
        self.ground.note(FINDINGS, self.tier.check().len() as u64);
        for bucket in 0.. {
            if self.tier.inspect(bucket).expect("there is memory").is_none() {
                break;
            }
        }
        self.tier.usage();
        // From here on the values may be wrong, because changes build on structures that are half changed. Only the
        // end of each call is tested.
        for _ in 0..2 {
            for number in 0..KEYS {
                with_key(self.scope, number, |key| {
                    let _ = self.tier.get(key, Stamp::LATEST, &mut self.value);
                    let _ = self.tier.incr(
                        key,
                        1,
                        &new_value(&[], Stamp::VOID, u32::MAX, &[]),
                        ReserveOptions::default(),
                    );
                });
                if !is_counter(number) {
                    self.write(number);
                }
                if number % 3 == 0 {
                    with_key(self.scope, number, |key| self.tier.remove(key));
                }
            }
            self.tier.sweep(2_000);
            self.tier.check();
        }
    }
}

/// Makes a value with these properties for the tier.
pub fn new_value<'v>(
    bytes: &'v [u8],
    stamp: Stamp,
    expires: u32,
    dependencies: &'v [FenceId],
) -> NewValue<'v> {
    NewValue { stamp, expires, ..value(bytes, dependencies) }
}

/// Asserts that a counter holds a multiple of its step, and not 0.
pub fn assert_counter(number: u64, sum: u64) {
    assert!(sum > 0 && sum.is_multiple_of(step(number)), "counter {number} holds {sum}, a foreign number");
}
