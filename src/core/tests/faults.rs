//! What goes wrong: requests for blocks that fail, memory that somebody has written over, memory that is none of ours.

// Of the model's harness only the host is used here.
#[allow(dead_code)]
mod harness;

use harness::TestHost;
use pg_cache_core::{
    Buffer, Counter, FenceId, Host, Key, Kind, Meta, NewValue, Refusal, Region, RegionError, Scope, Sizes,
    Stamp, Stored, Tier,
};
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

const SIZES: Sizes =
    Sizes { bytes: 0, reserved_fences: 4, relation_fences: 4, tag_fences: 16, counters: 1, shards: 2 };

fn memory(bytes: usize) -> Vec<AtomicU64> {
    (0..bytes / 8).map(|_| AtomicU64::new(0)).collect()
}

fn value<'v>(bytes: &'v [u8], dependencies: &'v [FenceId]) -> NewValue<'v> {
    NewValue { bytes, kind: Kind(1), stamp: Stamp::VOID, expires: u32::MAX, cost: 0, dependencies }
}

fn small_key(scope: Scope, bytes: &[u8; 4], number: u32) -> Key<'_> {
    Key::new(scope, bytes, u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15)).expect("a legal key")
}

/// The n-th request for blocks fails, and all after it, for n from 1 until as many as are needed succeed: the value is then
/// stored, or it is refused and nothing else has changed.
#[test]
fn whichever_request_for_blocks_fails_nothing_is_half_done() {
    let mut refused = 0;
    // The last two are spread over shards.
    for size in [10, 700, 2_000, 3_500, 4_200] {
        for failing in 1..200 {
            let memory = memory(96 * 1024);
            let host = TestHost::default();
            let sizes = Sizes { shards: 4, ..SIZES };
            let tier = Tier::format(Region::of_words(&memory), sizes, &host, 0).expect("it fits");
            let scope = tier.scope(1, 1, 0);
            // Full, with holes of many sizes, so that a large value is put together from many runs.
            for number in 0..1_000u32 {
                let bytes = number.to_le_bytes();
                let key = Key::new(scope, &bytes, u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15))
                    .expect("a legal key");
                let content = vec![1; 20 + (number as usize * 37) % 150];
                tier.put(&key, &value(&content, &[])).expect("a small value is stored");
                if number % 3 == 0 {
                    tier.remove(&key);
                }
            }
            host.failing.set(failing);
            let content = vec![7; size];
            let key = Key::new(scope, b"the one", 42).expect("a legal key");
            let outcome = tier.put(&key, &value(&content, &[]));
            let enough = host.failing.replace(0) > 1;
            assert_eq!(tier.check(), Vec::<String>::new(), "{size} bytes, request {failing}");
            let mut found = Vec::new();
            match outcome {
                Ok(_) => {
                    tier.get(&key, Stamp::LATEST, &mut found).expect("it was stored");
                    assert_eq!(found, content);
                }
                Err(refusal) => {
                    assert_eq!(refusal, Refusal::Full);
                    assert!(tier.get(&key, Stamp::LATEST, &mut found).is_err());
                    refused += 1;
                }
            }
            // Nothing is lost: without entries only the block stays in use that is never given out.
            tier.remove(&key);
            for number in 0..1_000u32 {
                tier.remove(&small_key(scope, &number.to_le_bytes(), number));
            }
            assert_eq!(tier.usage().used_bytes, 16, "{size} bytes, request {failing}");
            if enough {
                assert_eq!(outcome, Ok(Stored::New));
                break;
            }
            assert!(failing < 199, "{size} bytes take too many requests");
        }
    }
    // Some of them in the middle of a chain.
    assert!(refused > 10, "only {refused} were refused");
}

/// A tier with some of everything in it.
fn lived_in<'m>(memory: &'m [AtomicU64], host: &'m TestHost) -> Tier<'m, &'m TestHost> {
    let tier = Tier::format(Region::of_words(memory), SIZES, host, 0).expect("it fits");
    every_operation(&tier, 1);
    tier
}

/// Everything a tier can be asked, on few keys. What it answers does not matter here, only that it does.
fn every_operation<H: Host>(tier: &Tier<'_, H>, salt: u64) {
    let mut found = Vec::new();
    for number in 0..40u64 {
        let scope = tier.scope(1, (number % 2) as u32, 0);
        let bytes = vec![b'k'; 1 + number as usize];
        let key = Key::new(scope, &bytes, number ^ salt).expect("a legal key");
        let content = vec![number as u8; (number as usize * 97) % 2_500];
        let tag = tier.fences().tag(number << 60);
        let dependencies = [tag, tier.fences().relation(1, number as u32 + 1, pg_cache_core::Relation::Any)];
        let _ = tier.put(&key, &value(&content, &dependencies));
        let _ = tier.get(&key, Stamp::LATEST, &mut found);
        let _ = tier.touch(&key, 100);
        let _ = tier.incr(&key, 1, &value(&[], &[]));
        if let Ok(reservation) = tier.reserve(&key, &value(&content, &[])) {
            tier.announce(&key, &reservation);
            if number % 3 == 0 { tier.withdraw(&key, reservation) } else { tier.confirm(&key, reservation) }
        }
        if let pg_cache_core::Acquired::Lead(lease) = tier.acquire(&key, 1, 50)
            && let Ok(reservation) = tier.reserve(&key, &value(&content, &[]))
        {
            tier.publish_leased(&key, reservation, lease.number);
        }
        if number % 4 == 0 {
            tier.remove(&key);
        }
        tier.fences().raise(tag);
        if number % 2 == 0 { tier.fences().lower(tag) } else { tier.fences().withdraw(tag) }
    }
    tier.sweep(100);
    let mut bucket = 0;
    while tier.inspect(bucket).is_some() {
        bucket += 1;
    }
    tier.usage();
    tier.release_leases_of(1);
    tier.counted(Counter::Hit);
}

proptest! {
    #![proptest_config(harness::cases(300))]

    /// Whatever stands in the memory, no operation crashes or goes on for ever. That damage is found is not promised of every
    /// bit (a value's bytes are anybody's guess), but checking ends, too.
    #[test]
    fn a_scribbled_region_costs_misses_and_no_more(
        scribbles in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>(), 0u8..4), 1..60),
    ) {
        let memory = memory(48 * 1024);
        let host = TestHost::default();
        host.now.set(1);
        let tier = lived_in(&memory, &host);
        for (place, bits, how) in scribbles {
            let word = place.get(&memory);
            let old = word.load(Ordering::Relaxed);
            // Wild words, small numbers that look like positions, single bits, and other words of the region.
            let new = match how {
                0 => bits,
                1 => bits % 4096,
                2 => old ^ 1 << (bits % 64),
                _ => memory[bits as usize % memory.len()].load(Ordering::Relaxed),
            };
            word.store(new, Ordering::Relaxed);
        }
        every_operation(&tier, 1);
        every_operation(&tier, 2);
        tier.check();
        // The header may be hit as well: then nobody new gets in, or gets in and fares the same.
        if let Ok(again) = Tier::attach(Region::of_words(&memory), &host, 0) {
            every_operation(&again, 3);
        }
    }
}

/// Damage to what holds the structures together is found. Of keys, values, lifetimes and stamps nobody can say whether they
/// are right, so the entries here are little more than headers.
#[test]
fn check_finds_damage() {
    let memory = memory(16 * 1024);
    let host = TestHost::default();
    let sizes = Sizes { tag_fences: 1, shards: 1, ..SIZES };
    let tier = Tier::format(Region::of_words(&memory), sizes, &host, 0).expect("it fits");
    let scope = tier.scope(1, 1, 0);
    for number in 0..120u8 {
        let bytes = [number];
        let key = Key::new(scope, &bytes, u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .expect("a legal key");
        tier.put(&key, &value(&[number], &[])).expect("it is stored");
    }
    assert_eq!(tier.check(), Vec::<String>::new());
    let (mut found, mut damaged) = (0, 0);
    for word in &memory {
        let old = word.load(Ordering::Relaxed);
        if old != 0 {
            word.store(old ^ 0x11, Ordering::Relaxed);
            damaged += 1;
            found += usize::from(!tier.check().is_empty());
            word.store(old, Ordering::Relaxed);
        }
    }
    assert!(found * 3 > damaged, "{found} of {damaged} damaged words were noticed");
}

#[test]
fn what_is_no_region_is_refused() {
    let host = TestHost::default();
    let attach = |memory: &[AtomicU64]| Tier::attach(Region::of_words(memory), &host, 0).map(|_| ());
    let small = memory(512);
    assert!(matches!(
        Tier::format(Region::of_words(&small), SIZES, &host, 0).map(|_| ()),
        Err(RegionError::TooSmall { bytes: 512, needed }) if needed > 512
    ));
    assert_eq!(attach(&memory(0)), Err(RegionError::Unformatted));
    let memory = memory(48 * 1024);
    assert_eq!(attach(&memory), Err(RegionError::Unformatted));
    Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    assert_eq!(attach(&memory), Ok(()));
    assert_eq!(attach(&memory[..memory.len() - 8]), Err(RegionError::Damaged));
    memory[1].store(99, Ordering::Relaxed);
    assert_eq!(attach(&memory), Err(RegionError::OtherLayout { found: 99 }));
}

/// A panic in the middle of a change leaves the shard off, and nobody waiting.
#[test]
fn a_panic_under_the_lock_switches_the_shard_off() {
    struct Panicking(std::cell::Cell<bool>);
    impl Host for &Panicking {
        fn now(&self) -> u32 {
            1
        }
        fn lock(&self, _: u32) {}
        fn unlock(&self, _: u32) {}
        fn refuses_blocks(&self) -> bool {
            assert!(!self.0.get(), "as the test wants it");
            false
        }
    }
    let memory = memory(48 * 1024);
    let host = Panicking(std::cell::Cell::new(false));
    let sizes = Sizes { shards: 1, ..SIZES };
    let tier = Tier::format(Region::of_words(&memory), sizes, &host, 0).expect("it fits");
    let scope = tier.scope(1, 1, 0);
    let key = Key::new(scope, b"key", 1).expect("a legal key");
    tier.put(&key, &value(b"value", &[])).expect("it is stored");
    host.0.set(true);
    let panicked =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tier.put(&key, &value(b"other", &[]))));
    assert!(panicked.is_err());
    host.0.set(false);
    assert_eq!(tier.get(&key, Stamp::LATEST, &mut Vec::new()), Err(pg_cache_core::Miss::Off));
    assert_eq!(tier.put(&key, &value(b"other", &[])), Err(Refusal::Off));
    assert!(!tier.remove(&key));
    assert_eq!(tier.check(), ["shard 0: it is switched off after a panic"]);
    assert_eq!(tier.usage().shards_off, 1);
}

/// A buffer that makes the reader's entry die each time it is asked for room, and gives less than is needed.
struct Meddler<'t, 'm> {
    tier: &'t Tier<'m, &'m TestHost>,
    key: Key<'t>,
    short: [u8; 3],
    asked: u32,
}

impl Buffer for Meddler<'_, '_> {
    fn room(&mut self, _: &Meta) -> &mut [u8] {
        self.asked += 1;
        assert!(self.asked < 100, "the read goes on for ever");
        self.tier.put(&self.key, &value(b"content", &[])).unwrap();
        &mut self.short
    }
}

#[test]
fn a_read_that_never_has_a_quiet_moment_ends_whatever_room_it_is_given() {
    let memory = memory(64 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).unwrap();
    let key = small_key(tier.scope(1, 1, 0), b"mine", 1);
    tier.put(&key, &value(b"content", &[])).unwrap();
    let mut meddler = Meddler { tier: &tier, key, short: [0; 3], asked: 0 };
    let meta = tier.get(&key, Stamp::LATEST, &mut meddler).unwrap();
    assert_eq!((meta.value_len, &meddler.short), (7, b"con"));
    // It was disturbed until it took the lock.
    assert!(tier.counted(Counter::Retry) >= 8);
}
