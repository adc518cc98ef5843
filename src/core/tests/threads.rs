//! Readers, writers and deleters on one small tier, each value carrying a checksum of its key and content.
//!
//! The tier is so small that blocks are reused all the time: what a reader is copying is evicted under its hands.

use pg_cache_core::{Counter, FenceId, Host, Key, Kind, NewValue, Region, Sizes, Stamp, Tier};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

struct SpinHost {
    locks: Vec<AtomicBool>,
}

impl Host for &SpinHost {
    fn now(&self) -> u32 {
        1
    }
    fn lock(&self, shard: u32) {
        while self.locks[shard as usize].swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
    }
    fn unlock(&self, shard: u32) {
        self.locks[shard as usize].store(false, Ordering::Release);
    }
}

/// A small generator of our own: a test's threads must not share one.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

const KEYS: u64 = 400;

/// Whose value it is, which one, and bytes that follow from both: a mixture of two is recognised at every byte.
fn content(key: u64, version: u64, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 16);
    bytes.extend_from_slice(&key.to_le_bytes());
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend((0..size).map(|at| (version.rotate_left(at as u32 % 64) ^ key) as u8));
    bytes
}

fn verify(key: u64, bytes: &[u8]) {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    assert_eq!(number(0), key, "another key's value");
    assert_eq!(bytes, content(key, number(8), bytes.len() - 16), "a torn value");
}

fn size_of(version: u64) -> usize {
    match version % 50 {
        0 => 9_000,
        1..=4 => 1_500,
        other => other as usize * 5,
    }
}

/// Runs for as long as `PG_CACHE_TEST_LONG` says, or a moment.
fn duration() -> Duration {
    let long = std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty());
    Duration::from_secs(if long { 60 } else { 3 })
}

#[test]
fn readers_never_see_a_torn_or_foreign_value() {
    let seed = Instant::now().elapsed().as_nanos() as u64 ^ u64::from(std::process::id()) << 20 | 1;
    println!("seed {seed}");
    let memory: Vec<AtomicU64> = (0..256 * 1024 / 8).map(|_| AtomicU64::new(0)).collect();
    let sizes =
        Sizes { bytes: 0, reserved_fences: 8, relation_fences: 0, tag_fences: 64, counters: 8, shards: 2 };
    let host = SpinHost { locks: (0..2).map(|_| AtomicBool::new(false)).collect() };
    Tier::format(Region::of_words(&memory), sizes, &host, 0).expect("it fits");
    let stop = AtomicBool::new(false);
    let hits = AtomicU64::new(0);

    std::thread::scope(|scope| {
        for backend in 0..6u32 {
            let (memory, host, stop, hits) = (&memory, &host, &stop, &hits);
            scope.spawn(move || {
                let tier = Tier::attach(Region::of_words(memory), host, backend).expect("it is formatted");
                let mut random = Random(seed.wrapping_mul(u64::from(backend) + 1) | 1);
                let mut value = Vec::new();
                let scope = tier.scope(1, 1, 0);
                while !stop.load(Ordering::Relaxed) {
                    let number = random.below(KEYS);
                    let bytes = number.to_le_bytes();
                    let key = Key::new(scope, &bytes, number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
                        .expect("a legal key");
                    match backend {
                        // Two writers, one of them also taking back what it has begun.
                        0 | 1 => {
                            let version = random.below(u64::MAX);
                            let content = content(number, version, size_of(version));
                            let dependencies: [FenceId; 1] = [tier.fences().tag(version << 40)];
                            let new = NewValue {
                                bytes: &content,
                                kind: Kind(1),
                                stamp: tier.fences().now(),
                                expires: u32::MAX,
                                cost: 0,
                                dependencies: &dependencies,
                            };
                            match (backend == 1 && version.is_multiple_of(7), tier.reserve(&key, &new)) {
                                (true, Ok(reservation)) => tier.cancel(reservation),
                                (false, Ok(reservation)) => {
                                    tier.publish(&key, reservation);
                                }
                                (_, Err(_)) => {}
                            }
                        }
                        2 => {
                            tier.remove(&key);
                            if number.is_multiple_of(16) {
                                tier.sweep(64);
                            }
                        }
                        _ => {
                            if let Ok(meta) = tier.get(&key, Stamp::LATEST, &mut value) {
                                assert_eq!(meta.value_len, value.len());
                                verify(number, &value);
                                hits.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                }
            });
        }
        // For its time, and then for as long as it takes until everybody was in everybody's way: else it proves nothing.
        let tier = Tier::attach(Region::of_words(&memory), &host, 7).expect("it is formatted");
        let started = Instant::now();
        while started.elapsed() < duration()
            || hits.load(Ordering::Relaxed) < 10_000
            || tier.counted(Counter::Evicted) < 1000
            || tier.counted(Counter::Retry) < 100
        {
            assert!(started.elapsed() < duration() * 10, "too little happens");
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
    });

    let tier = Tier::attach(Region::of_words(&memory), &host, 7).expect("it is formatted");
    assert_eq!(tier.check(), Vec::<String>::new());
    let (retries, evicted) = (tier.counted(Counter::Retry), tier.counted(Counter::Evicted));
    println!("{} hits, {evicted} evictions, {retries} disturbed reads", hits.load(Ordering::Relaxed));
}
