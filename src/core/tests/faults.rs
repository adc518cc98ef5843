//! Tests for faults: requests for blocks that fail, overwritten memory, memory that is no region, panics, and disturbed readers.
//!
//! A value that gets too few blocks is refused as a whole. In overwritten memory, every operation must end, and none may crash;
//! cached values may be lost or overwritten. A panic under a shard's lock switches the shard off, so that no reader sees a change
//! half done.
//!
//! A *tier* is a cache in memory that several processes share. An entry is *spread* if it may have blocks in other shards than that
//! of its key. A *shard* is a part of the tier with a lock of its own. Entries lie in *blocks* of 16 bytes; adjacent free blocks
//! are a *run*. A *sweep* walks through the entries and removes those that can never be served again. A *reservation* is blocks
//! with a value that is not published yet.

// This test uses only the damage functions and the number of cases of the harness.
#[allow(dead_code)]
mod harness;

use harness::damage::{every_operation, lived_in, scribble};
use pg_cache_core::testing::{SIZES, TestHost, memory, value};
use pg_cache_core::{
    Buffer, Counter, Host, IncrError, Key, Kind, Meta, NewValue, Refusal, Region, RegionError, Reservation,
    ReserveOptions, Scope, Sizes, Stamp, Stored, Tier,
};
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// Returns a key whose hash is made from the number. The factor, 2^64 divided by the golden ratio, spreads consecutive numbers.
fn small_key(scope: Scope, bytes: &[u8; 4], number: u32) -> Key<'_> {
    Key::new(scope, bytes, u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15)).expect("a legal key")
}

/// The n-th request for blocks fails, and all requests after it. n goes from 1 up until the store needs fewer requests. Each time
/// the value must be stored whole, or be refused as `Full`. After that, all structures must be sound, and no block may be lost.
/// Other entries may have been evicted in either case.
#[test]
fn whichever_request_for_blocks_fails_nothing_is_half_done() {
    let mut refused = 0;
    // Values of the last two sizes are spread over shards.
    for size in [10, 700, 2_000, 3_500, 4_200] {
        for failing in 1..200 {
            let memory = memory(100 * 1024);
            let host = TestHost::default();
            let sizes = Sizes { shards: 4, ..SIZES };
            let tier = Tier::format(Region::of_words(&memory), sizes, &host, 0).expect("it fits");
            let scope = tier.scope(1, 1, 0);
            // The tier is full, with free runs of many sizes, so that a large value needs many runs.
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
            // No block may be lost: when all entries are removed, no block may be in use.
            tier.remove(&key);
            for number in 0..1_000u32 {
                tier.remove(&small_key(scope, &number.to_le_bytes(), number));
            }
            assert_eq!(tier.usage().used_bytes, 0, "{size} bytes, request {failing}");
            if enough {
                assert_eq!(outcome, Ok(Stored::New));
                break;
            }
            assert!(failing < 199, "{size} bytes take too many requests");
        }
    }
    // With n = 1, each of the five sizes is refused once. More refusals than these show that later requests failed, too, when the
    // value already had a part of its blocks.
    assert!(refused > 10, "only {refused} were refused");
}

proptest! {
    #![proptest_config(harness::cases(300))]

    /// Every operation must end and none may crash, with any content of the memory: an endless loop or a panic fails the test. The
    /// check need not find every damaged bit (any bytes are a possible value), but it must end, too.
    #[test]
    fn a_scribbled_region_costs_misses_and_no_more(
        scribbles in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>(), 0u8..5), 1..60),
    ) {
        let memory = memory(48 * 1024);
        let host = TestHost::default();
        host.now.set(1);
        let tier = lived_in(&memory, &host);
        for (place, bits, how) in scribbles {
            scribble(&memory, place.index(memory.len()), how, bits);
        }
        every_operation(&tier, 1);
        every_operation(&tier, 2);
        tier.check();
        // The header may be damaged, too. Then a new process cannot attach, or it attaches and must survive the
        // damage as well.
        if let Ok(again) = Tier::attach(Region::of_words(&memory), &host, 0) {
            every_operation(&again, 3);
        }
    }
}

/// Damages one word after the other, except those that are 0. The check must find more than a third of the damaged words: it
/// cannot know whether keys, values, lifetimes and stamps are right. The entries are little more than headers, so that most words
/// belong to structures.
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
            // Two of the low bits are flipped. In most words they belong to a link, a count, a length or the flags.
            word.store(old ^ 0x11, Ordering::Relaxed);
            damaged += 1;
            found += usize::from(!tier.check().is_empty());
            word.store(old, Ordering::Relaxed);
        }
    }
    assert!(found * 3 > damaged, "{found} of {damaged} damaged words were noticed");
}

/// An entry of the kind counter has no room for a number. An addition must be refused, and the tier must not retry for
/// ever.
#[test]
fn a_counter_without_its_word_is_not_added_to() {
    let memory = memory(48 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    // The header of 56 bytes and the key of 8 bytes fill their blocks, so there is no word for a number.
    let key = Key::new(tier.scope(1, 1, 0), b"no value", 1).expect("a legal key");
    tier.put(&key, &NewValue { kind: Kind::COUNTER, ..value(&[], &[]) }).expect("it is stored");
    // The 1000th lock fails the test. It would otherwise run for ever.
    host.patience.set(1_000);
    assert_eq!(
        tier.incr(&key, 1, &value(&[], &[]), ReserveOptions::default()),
        Err(IncrError::Refused(Refusal::Off))
    );
    assert_eq!(tier.check(), Vec::<String>::new());
}

/// The chain of a bucket leads from its entry back to the same entry. The check must report that. A sweep must remove the entry
/// once, and must not follow the cycle for ever under the lock.
#[test]
fn a_chain_that_goes_round_is_swept_once() {
    let memory = memory(48 * 1024);
    let host = TestHost::default();
    let sizes = Sizes { shards: 1, ..SIZES };
    let tier = Tier::format(Region::of_words(&memory), sizes, &host, 0).expect("it fits");
    let key = Key::new(tier.scope(77, 78, 0), b"key", 1).expect("a legal key");
    tier.put(&key, &value(b"value", &[])).expect("it is stored");
    // Word 2 of an entry holds its database and its space. The lower half of word 0 holds the next entry of the chain:
    // the test puts the entry itself there. A block is two words.
    let at =
        memory.iter().position(|word| word.load(Ordering::Relaxed) == 77 << 32 | 78).expect("it is there");
    let block = (at - 2) / 2;
    memory[at - 2].fetch_or(block as u64, Ordering::Relaxed);
    let twice = format!("leads to block {block} twice");
    assert!(tier.check().iter().any(|finding| finding.ends_with(&twice)));
    host.now.set(u32::MAX);
    assert_eq!(tier.sweep(10_000), 1);
}

/// A commit must not fail, even if the clock of changes contains the largest number: an overflow would panic. The test overwrites
/// one word after the other, because exactly one of them is the clock.
#[test]
fn a_clock_of_changes_at_its_end_is_no_reason_to_fail() {
    let memory = memory(48 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    let mut clocks = 0;
    for word in &memory {
        let old = word.swap(u64::MAX, Ordering::Relaxed);
        clocks += usize::from(tier.fences().now() > Stamp::LATEST);
        let fence = tier.fences().tag(1);
        tier.fences().raise(fence);
        tier.fences().lower(fence);
        word.store(old, Ordering::Relaxed);
    }
    assert_eq!(clocks, 1);
}

/// Formatting must refuse memory that is too small. Attaching must refuse memory that is not formatted, is
/// truncated, or has another layout.
#[test]
fn memory_that_is_no_region_is_refused() {
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
    // Word 1 is the version of the layout.
    memory[1].store(99, Ordering::Relaxed);
    assert_eq!(attach(&memory), Err(RegionError::OtherLayout { found: 99, known: 13 }));
}

/// A panic while a shard's lock is held must switch the shard off: reads miss, writes are refused, and the check says so. The host
/// of this test panics when the tier asks whether a request for blocks is to fail, which is under the lock.
#[test]
fn a_panic_under_the_lock_switches_the_shard_off() {
    /// Whether a request for blocks panics.
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

/// A session that panics while it holds no lock, and cancels its reservation during unwinding, must not switch anything off,
/// although it releases a lock while a panic unwinds.
#[test]
fn cancelling_while_a_panic_unwinds_switches_nothing_off() {
    /// A reservation that is cancelled when its owner panics, as a session does it.
    struct Begun<'t, 'm>(&'t Tier<'m, &'m TestHost>, Option<Reservation>);
    impl Drop for Begun<'_, '_> {
        fn drop(&mut self) {
            self.0.cancel(self.1.take().expect("it is there until now"));
        }
    }
    let memory = memory(48 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    let key = Key::new(tier.scope(1, 1, 0), b"key", 1).expect("a legal key");
    tier.put(&key, &value(b"value", &[])).expect("it is stored");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _begun = Begun(&tier, tier.reserve(&key, &value(b"other", &[]), Default::default()).ok());
        panic!("as the test wants it");
    }));
    assert!(panicked.is_err());
    assert_eq!(tier.check(), Vec::<String>::new());
    tier.get(&key, Stamp::LATEST, &mut Vec::new()).expect("it is still there");
}

/// All keys have the same hash, so they share one bucket of thousands of entries. A reader passes at most 4096 of them
/// (`STEPS_MAX` in `tier/shard.rs`) and then misses. A holder of the lock must pass all of them: removed keys must be gone, and
/// nothing may be lost.
#[test]
fn a_bucket_of_thousands_loses_nothing() {
    const MANY: usize = 5_000;
    let memory = memory(1 << 20);
    let host = TestHost::default();
    let sizes = Sizes { shards: 1, ..SIZES };
    let tier = Tier::format(Region::of_words(&memory), sizes, &host, 0).expect("it fits");
    let scope = tier.scope(1, 1, 0);
    let names: Vec<[u8; 4]> = (0..MANY as u32).map(u32::to_le_bytes).collect();
    let key = |number: usize| Key::new(scope, &names[number], 7).expect("a legal key");
    let put = |number| assert_eq!(tier.put(&key(number), &value(b"old", &[])), Ok(Stored::New));
    (0..4_096).for_each(put);
    // The announcements are at the front of the chain, so the last of the other entries are more than 4096 steps away.
    let announced: Vec<_> =
        (4_096..4_110).map(|number| (number, tier.reserve_removal(&key(number)))).collect();
    for (number, reservation) in &announced {
        tier.announce(&key(*number), reservation.as_ref().expect("there is room"));
    }
    assert!(tier.remove(&key(4_095)));
    for (number, reservation) in announced {
        tier.withdraw(&key(number), reservation.expect("there was room"));
    }
    assert_eq!(tier.get(&key(4_095), Stamp::LATEST, &mut Vec::new()), Err(pg_cache_core::Miss::Absent));
    (4_096..MANY).for_each(put);
    assert_eq!(tier.check(), Vec::<String>::new());
    for number in 0..MANY {
        assert_eq!(tier.remove(&key(number)), number != 4_095);
    }
    assert_eq!(tier.usage().used_bytes, 0);
}

/// A buffer that replaces the reader's entry each time the reader asks for room, and gives less room than needed.
struct Meddler<'t, 'm> {
    /// The tier under test.
    tier: &'t Tier<'m, &'m TestHost>,
    /// The key that is read.
    key: Key<'t>,
    /// The room that it gives.
    short: [u8; 3],
    /// How often the reader has asked. The hundredth time fails the test instead of letting it run for ever.
    asked: u32,
}

impl Buffer for Meddler<'_, '_> {
    fn allocate(&mut self, _: &Meta) -> &mut [u8] {
        self.asked += 1;
        assert!(self.asked < 100, "the read goes on for ever");
        self.tier.put(&self.key, &value(b"content", &[])).unwrap();
        &mut self.short
    }
}

/// A reader that is disturbed in every attempt must take the lock in the end. It must fill the room that it is given, and not write
/// behind the end of it.
#[test]
fn a_read_that_is_always_disturbed_ends_with_a_buffer_of_any_size() {
    let memory = memory(64 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).unwrap();
    let key = small_key(tier.scope(1, 1, 0), b"mine", 1);
    tier.put(&key, &value(b"content", &[])).unwrap();
    let mut meddler = Meddler { tier: &tier, key, short: [0; 3], asked: 0 };
    let meta = tier.get(&key, Stamp::LATEST, &mut meddler).unwrap();
    assert_eq!((meta.value_len, &meddler.short), (7, b"con"));
    // The reader was disturbed in every attempt until it took the lock: it repeats a read eight times (`tier/reading.rs`).
    assert!(tier.counted(Counter::Retry) >= 8);
}

/// A buffer that changes the length of the reader's value each time the reader asks for room.
struct Stretcher<'t, 'm> {
    /// The tier under test.
    tier: &'t Tier<'m, &'m TestHost>,
    /// The key that is read.
    key: Key<'t>,
    /// The room that the reader got last.
    room: Vec<u8>,
    /// How often the reader has asked for room.
    asked: usize,
}

impl Buffer for Stretcher<'_, '_> {
    fn allocate(&mut self, meta: &Meta) -> &mut [u8] {
        self.asked += 1;
        assert!(self.asked < 100, "the read goes on for ever");
        self.tier.put(&self.key, &value(&vec![1; self.asked % 2], &[])).expect("it is stored");
        self.room.resize(meta.value_len, 0);
        &mut self.room
    }
}

/// A value whose length changes in every attempt, also between two holds of the lock, must end the read with a miss.
#[test]
fn a_read_whose_value_never_keeps_its_length_ends() {
    let memory = memory(64 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    let key = small_key(tier.scope(1, 1, 0), b"mine", 1);
    tier.put(&key, &value(b"", &[])).expect("it is stored");
    let mut stretcher = Stretcher { tier: &tier, key, room: Vec::new(), asked: 0 };
    let outcome = tier.get(&key, Stamp::LATEST, &mut stretcher);
    assert_eq!(outcome, Err(pg_cache_core::Miss::Absent));
}
