//! Tests of the largest entries: an entry may take an eighth of the blocks, and evictions make room for it.
//!
//! A *tier* is a cache in memory that several processes share.
#![cfg(not(any(loom, counting)))]

use pg_cache_core::testing::{SIZES, TestHost, memory, value};
use pg_cache_core::{Key, Refusal, Region, Sizes, Stamp, Tier};

/// The bytes of an entry beside its value: the header and a key of 8 bytes.
const BESIDE_VALUE: usize = 56 + 8;

/// Calls `use_key` with the key of a number. The factor, 2^64 divided by the golden ratio, spreads consecutive numbers.
fn with_key<T>(tier: &Tier<'_, &TestHost>, number: u64, use_key: impl FnOnce(&Key<'_>) -> T) -> T {
    let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    use_key(&Key::new(tier.scope(1, 1, 0), &number.to_le_bytes(), hash).expect("a legal key"))
}

fn put(tier: &Tier<'_, &TestHost>, number: u64, bytes: &[u8]) -> Result<(), Refusal> {
    with_key(tier, number, |key| tier.put(key, &value(bytes, &[]))).map(|_| ())
}

fn get(tier: &Tier<'_, &TestHost>, number: u64) -> Option<Vec<u8>> {
    let mut found = Vec::new();
    with_key(tier, number, |key| tier.get(key, Stamp::LATEST, &mut found)).ok().map(|_| found)
}

/// Fills a tier with small entries, and then stores the largest entries that it accepts. Each must be stored and read whole. A
/// value that is one byte larger must be refused, and the value that its key had must stay.
fn largest_entries_fit(bytes: usize, shards: u32) {
    let memory = memory(bytes);
    let host = TestHost::default();
    let sizes = Sizes { shards, ..SIZES };
    let tier = Tier::format(Region::of_words(&memory), sizes, &host, 0).expect("it fits");
    let blocks = tier.usage().block_bytes as usize;
    let most = tier.entry_bytes_max();
    assert!(most <= blocks / 8 && most > blocks / 8 - 16, "{most} of {blocks} bytes");
    // A small entry takes 144 bytes, so about as many are stored as fit.
    for number in 0..(bytes / 150) as u64 {
        put(&tier, 1_000 + number, &[1; 80]).expect("it is stored");
    }
    // Each of these entries evicts about an eighth of the others, and the last ones evict the first ones.
    for number in 0..12 {
        put(&tier, number, &vec![number as u8; most - BESIDE_VALUE]).unwrap_or_else(|refusal| {
            panic!("entry {number} in {bytes} bytes, {shards} shards: {refusal:?}")
        });
        assert_eq!(get(&tier, number), Some(vec![number as u8; most - BESIDE_VALUE]));
    }
    let stays = get(&tier, 11);
    assert_eq!(put(&tier, 11, &vec![0; most - BESIDE_VALUE + 1]), Err(Refusal::TooLarge));
    assert_eq!(get(&tier, 11), stays);
    assert_eq!(tier.check(), Vec::<String>::new());
}

/// The largest entries must fit in regions of several sizes. 0 shards means that the tier chooses their number.
#[test]
fn an_entry_may_take_an_eighth_of_the_blocks() {
    for (bytes, shards) in [(128 << 10, 1), (512 << 10, 2), (1 << 20, 4), (4 << 20, 0), (16 << 20, 0)] {
        largest_entries_fit(bytes, shards);
    }
}

/// One backend writes several large values before it publishes the first one, as a commit does. Four of the largest values, half
/// of the tier, must find room beside each other: an entry can be evicted to make room, but a reservation cannot.
#[test]
fn half_of_the_tier_can_be_reserved_at_once() {
    let memory = memory(4 << 20);
    let host = TestHost::default();
    let tier =
        Tier::format(Region::of_words(&memory), Sizes { shards: 0, ..SIZES }, &host, 0).expect("it fits");
    for number in 0..25_000 {
        put(&tier, 1_000 + number, &[1; 80]).expect("it is stored");
    }
    let bytes = vec![7; tier.entry_bytes_max() - BESIDE_VALUE];
    let reserve =
        |number| with_key(&tier, number, |key| tier.reserve(key, &value(&bytes, &[]), Default::default()));
    let reserved: Vec<_> = (0..4).map(|number| reserve(number).expect("there is room")).collect();
    for (number, reservation) in (0..).zip(reserved) {
        with_key(&tier, number, |key| tier.publish(key, reservation));
    }
    for number in 0..4 {
        assert_eq!(get(&tier, number).as_ref(), Some(&bytes));
    }
    assert_eq!(tier.check(), Vec::<String>::new());
}
