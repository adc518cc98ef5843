//! Tests a small tier with threads that read, write and remove at the same time.
//!
//! In the first and the last test, each value begins with its key and its version, from which all its other bytes follow
//! (`values/mod.rs`). In the first test, the tier is so small that entries are evicted, and their blocks reused, while readers copy
//! them.
//!
//! The last test runs the protocols under real concurrency. The source of each value is a number in memory. It
//! changes only between announcing and confirming, or between raising and lowering a fence. A reader that reads the
//! number and then the tier must not find an older number in the tier.
//!
//! A *stamp* is a number of the clock of changes, which each committed change increments. A *shard* is a part of the tier with a
//! lock of its own. A *tier* is a cache in memory that several processes share. A *fence* is a word in shared memory that says when
//! a dependency of entries last changed.

mod values;

use pg_cache_core::testing::{self, SpinningHost, memory, value};
use pg_cache_core::{
    Acquired, Counter, FenceId, FlightRequest, Key, NewValue, Owner, Region, Sizes, Stamp, Stored, Tier,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use values::{Random, content, size_of, verify};

/// Sizes for eight threads, and two shards.
const SIZES: Sizes = Sizes { reserved_fences: 8, tag_fences: 64, backends: 8, ..testing::SIZES };

/// Stops all threads when one of them panics. Otherwise the others would run for ever and hide the failure.
struct StopOnDrop<'s>(&'s AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Lets the threads work for the duration of the test, and then until `enough` holds. Without enough interference
/// between the threads the test would prove nothing, so it fails after ten times the duration. Stops the threads in any case.
fn go_on_until(stop: &AtomicBool, enough: impl Fn() -> bool) {
    let _stop = StopOnDrop(stop);
    let started = Instant::now();
    while started.elapsed() < duration() || !enough() {
        assert!(!stop.load(Ordering::Relaxed), "somebody has stopped");
        assert!(started.elapsed() < duration() * 10, "too little happens");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Formats a tier of two shards, so small that every block is soon reused.
fn small_tier() -> (Vec<AtomicU64>, SpinningHost) {
    let memory = memory(256 * 1024);
    let host = SpinningHost::new(SIZES.shards);
    Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    (memory, host)
}

/// The number of keys of the first test. The last one uses 40 of them.
const KEYS: u64 = 400;

/// Returns the duration of a test, which is longer with `PG_CACHE_TEST_LONG`.
fn duration() -> Duration {
    let long = std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty());
    Duration::from_secs(if long { 60 } else { 3 })
}

/// Two writers, a remover and three readers. A reader must never get bytes of two values, or the value of another
/// key.
#[test]
fn readers_never_see_a_torn_or_foreign_value() {
    let seed = Instant::now().elapsed().as_nanos() as u64 ^ u64::from(std::process::id()) << 20 | 1;
    println!("seed {seed}");
    let (memory, host) = small_tier();
    let stop = AtomicBool::new(false);
    let hits = AtomicU64::new(0);

    std::thread::scope(|scope| {
        for backend in 0..6u32 {
            let (memory, host, stop, hits) = (&memory, &host, &stop, &hits);
            scope.spawn(move || {
                let _stop = StopOnDrop(stop);
                let tier = Tier::attach(Region::of_words(memory), host, backend).expect("it is formatted");
                let mut random = Random::new(seed.wrapping_mul(u64::from(backend) + 1));
                let mut found = Vec::new();
                let scope = tier.scope(1, 1, 0);
                while !stop.load(Ordering::Relaxed) {
                    let number = random.below(KEYS);
                    let bytes = number.to_le_bytes();
                    let key = Key::new(scope, &bytes, number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
                        .expect("a legal key");
                    match backend {
                        // There are two writers. One of them also cancels some of its reservations.
                        0 | 1 => {
                            let version = random.below(u64::MAX);
                            let content = content(number, version, size_of(version));
                            // The highest bits of a hash select one of the 64 fences. No fence changes in this test.
                            let dependencies: [FenceId; 1] = [tier.fences().tag(version << 40)];
                            let new =
                                NewValue { stamp: tier.fences().now(), ..value(&content, &dependencies) };
                            match (
                                backend == 1 && version.is_multiple_of(7),
                                tier.reserve(&key, &new, Default::default()),
                            ) {
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
                            if let Ok(meta) = tier.get(&key, Stamp::LATEST, &mut found) {
                                assert_eq!(meta.value_len, found.len());
                                verify(number, &found);
                                hits.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                }
            });
        }
        let tier = Tier::attach(Region::of_words(&memory), &host, 7).expect("it is formatted");
        go_on_until(&stop, || {
            hits.load(Ordering::Relaxed) >= 10_000
                && tier.counted(Counter::Evicted) >= 1000
                && tier.counted(Counter::Retry) >= 100
        });
    });

    let tier = Tier::attach(Region::of_words(&memory), &host, 7).expect("it is formatted");
    assert_eq!(tier.check(), Vec::<String>::new());
    let (retries, evicted) = (tier.counted(Counter::Retry), tier.counted(Counter::Evicted));
    println!("{} hits, {evicted} evictions, {retries} disturbed reads", hits.load(Ordering::Relaxed));
}

/// A check must find nothing in a sound tier while writers work. It looks at one shard after the other, and the
/// entries are spread over many shards that change meanwhile.
#[test]
fn a_check_finds_nothing_in_a_sound_tier_while_writers_work() {
    const SHARDS: u32 = 16;
    let memory = memory(1024 * 1024);
    let host = SpinningHost::new(SHARDS);
    let sizes = Sizes { shards: SHARDS, ..SIZES };
    Tier::format(Region::of_words(&memory), sizes, &host, 0).expect("it fits");
    let stop = AtomicBool::new(false);
    let checks = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for backend in 0..2u32 {
            let (memory, host, stop) = (&memory, &host, &stop);
            scope.spawn(move || {
                let _stop = StopOnDrop(stop);
                let tier = Tier::attach(Region::of_words(memory), host, backend).expect("it is formatted");
                let mut random = Random::new(u64::from(backend) + 1);
                let content = vec![b'x'; 40_000];
                let scope = tier.scope(1, backend, 0);
                let fence = tier.fences().tag(u64::from(backend) << 58);
                while !stop.load(Ordering::Relaxed) {
                    let number = random.below(128);
                    let bytes = number.to_le_bytes();
                    let key = Key::new(scope, &bytes, number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
                        .expect("a legal key");
                    let length = 100 << random.below(9);
                    let new = NewValue { stamp: tier.fences().now(), ..value(&content[..length], &[]) };
                    if let Ok(reservation) = tier.reserve(&key, &new, Default::default()) {
                        tier.publish(&key, reservation);
                    }
                    if number.is_multiple_of(4) {
                        tier.remove(&key);
                    }
                    // A check reports a fence only if several looks find it raised with the same word. Each `lower` changes
                    // the word, so the check must not report this fence.
                    if number.is_multiple_of(8) {
                        tier.fences().raise(fence);
                        tier.fences().lower(fence);
                    }
                }
            });
        }
        let (memory, host, stop, checks) = (&memory, &host, &stop, &checks);
        scope.spawn(move || {
            let _stop = StopOnDrop(stop);
            let tier = Tier::attach(Region::of_words(memory), host, 7).expect("it is formatted");
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(tier.check(), Vec::<String>::new());
                checks.fetch_add(1, Ordering::Relaxed);
            }
        });
        let tier = Tier::attach(Region::of_words(memory), host, 6).expect("it is formatted");
        go_on_until(stop, || checks.load(Ordering::Relaxed) >= 5 && tier.counted(Counter::Evicted) >= 200);
    });
    println!("{} checks", checks.load(Ordering::Relaxed));
}

/// The source of truth beside the tier. It holds the committed number of each key, and a lock that makes the writers
/// of a key take turns, like a row lock.
struct Source {
    /// The committed number of each key.
    committed: Vec<AtomicU64>,
    /// The lock of each key: true while a writer holds it.
    writing: Vec<AtomicBool>,
}

impl Source {
    fn new() -> Self {
        Self {
            committed: (0..KEYS).map(|_| AtomicU64::new(1)).collect(),
            writing: (0..KEYS).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// Calls `before`, commits the next number or gives up, and calls `after`. Does nothing if another writer holds
    /// the lock of the key.
    fn change(&self, key: u64, commit: bool, before: impl FnOnce(u64) -> bool, after: impl FnOnce(bool)) {
        if self.writing[key as usize].swap(true, Ordering::Acquire) {
            return;
        }
        let next = self.committed[key as usize].load(Ordering::SeqCst) + 1;
        if before(next) {
            // Let other threads run between the steps, where a mistake would show.
            std::thread::yield_now();
            if commit {
                self.committed[key as usize].store(next, Ordering::SeqCst);
                std::thread::yield_now();
            }
            after(commit);
        }
        self.writing[key as usize].store(false, Ordering::Release);
    }
}

/// Returns the committed number that a value of this key carries as its version. Panics if the value is torn or another key's.
fn number_of(key: u64, bytes: &[u8]) -> u64 {
    verify(key, bytes);
    u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes"))
}

/// A reader reads the committed number, then the tier, then the committed number again. The number in the tier must
/// lie between the two. Backends 0 and 1 change keys, backend 2 computes values, and backends 3 to 5 read.
#[test]
fn a_visible_change_is_never_followed_by_an_older_value() {
    let seed = u64::from(std::process::id()) << 20 | 1;
    println!("seed {seed}");
    let (memory, host) = small_tier();
    let source = Source::new();
    let stop = AtomicBool::new(false);
    let (hits, fills) = (AtomicU64::new(0), AtomicU64::new(0));

    std::thread::scope(|scope| {
        for backend in 0..6u32 {
            let (memory, host, stop, hits, fills, source) = (&memory, &host, &stop, &hits, &fills, &source);
            scope.spawn(move || {
                let _stop = StopOnDrop(stop);
                let tier = Tier::attach(Region::of_words(memory), host, backend).expect("it is formatted");
                let mut random = Random::new(seed.wrapping_mul(u64::from(backend) + 1));
                let mut found = Vec::new();
                let scope = tier.scope(1, 1, 0);
                while !stop.load(Ordering::Relaxed) {
                    let dice = random.below(1 << 40);
                    // Keys with even numbers are set. Keys with odd numbers are computed and depend on a tag.
                    let number = random.below(40);
                    let bytes = number.to_le_bytes();
                    let key = Key::new(scope, &bytes, number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
                        .expect("a legal key");
                    // The highest six bits of a hash select one of the 64 fences, so each key has a fence of its own.
                    let tag = tier.fences().tag(number << 58);
                    let put = |version: u64, stamp: Stamp, dependencies: &[FenceId]| {
                        let content = content(number, version, (version % 300) as usize);
                        let new = NewValue { stamp, ..value(&content, dependencies) };
                        tier.reserve(&key, &new, Default::default())
                    };
                    let committed = &source.committed[number as usize];
                    match (backend, number % 2) {
                        (0 | 1, 0) => {
                            let reservation = std::cell::Cell::new(None);
                            source.change(
                                number,
                                !dice.is_multiple_of(4),
                                |next| {
                                    let reserved = match dice % 3 {
                                        0 => tier.reserve_removal(&key),
                                        _ => put(next, tier.fences().now(), &[]),
                                    };
                                    let Ok(reserved) = reserved else { return false };
                                    tier.announce(&key, &reserved);
                                    reservation.set(Some(reserved));
                                    true
                                },
                                |commit| match (reservation.take(), commit) {
                                    (Some(reserved), true) => tier.confirm(&key, reserved),
                                    (Some(reserved), false) => tier.withdraw(&key, reserved),
                                    (None, _) => {}
                                },
                            );
                        }
                        (0 | 1, _) => source.change(
                            number,
                            !dice.is_multiple_of(4),
                            |_| {
                                tier.fences().raise(tag);
                                true
                            },
                            |commit| match commit {
                                true => tier.fences().lower(tag),
                                false => tier.fences().withdraw(tag),
                            },
                        ),
                        // Fills, with a lease, or with a stamp and a tag. A fill must read the source after it has
                        // acquired the lease or taken the stamp.
                        (2, 0) => {
                            if let Acquired::Lead(lease) = tier.acquire(
                                &key,
                                FlightRequest::lease(Owner { session: backend, role: 0 }, u32::MAX),
                            ) {
                                match put(committed.load(Ordering::SeqCst), lease.stamp, &[]) {
                                    Ok(reserved) => {
                                        if tier.publish_leased(&key, reserved, lease.id) != Stored::Dropped {
                                            fills.fetch_add(1, Ordering::Relaxed);
                                        }
                                    }
                                    Err(_) => {
                                        tier.release_lease(&key, lease.id);
                                    }
                                }
                            }
                        }
                        (2, _) => {
                            let stamp = tier.fences().now();
                            if let Ok(reserved) = put(committed.load(Ordering::SeqCst), stamp, &[tag]) {
                                tier.publish(&key, reserved);
                                fills.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        _ => {
                            let floor = committed.load(Ordering::SeqCst);
                            if tier.get(&key, Stamp::LATEST, &mut found).is_ok() {
                                let found = number_of(number, &found);
                                let ceiling = committed.load(Ordering::SeqCst);
                                assert!(found >= floor, "key {number}: {found} after {floor} was committed");
                                assert!(found <= ceiling, "key {number}: {found} before it was committed");
                                hits.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                }
            });
        }
        go_on_until(&stop, || {
            hits.load(Ordering::Relaxed) >= 10_000 && fills.load(Ordering::Relaxed) >= 1000
        });
    });

    let tier = Tier::attach(Region::of_words(&memory), &host, 7).expect("it is formatted");
    assert_eq!(tier.check(), Vec::<String>::new());
    let usage = tier.usage();
    assert_eq!((usage.announced, usage.flights), (0, 0));
    println!("{} hits, {} fills", hits.load(Ordering::Relaxed), fills.load(Ordering::Relaxed));
}
