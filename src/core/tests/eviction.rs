//! Tests of what the eviction keeps (`tier/eviction.rs`): small entries before large ones, expensive entries before cheap ones, and
//! entries in use before those of a scan or a loop.
//!
//! An entry takes 64 bytes beside its value, rounded up to 16 bytes: about 238 entries with a value of 2 000 bytes fit.
//!
//! A *tier* is a cache in memory that several processes share. A *shard* is a part of the tier with a lock of its own. New entries
//! enter the *small queue* of a full shard, and leave it for the *main queue* if a reader has asked for them. An entry at the end
//! of the main queue that was asked for, or is heavier than the average, gets another *round* there.
#![cfg(not(any(loom, counting)))]

use pg_cache_core::testing::{SIZES, TestHost, memory, value};
use pg_cache_core::{Cost, Key, NewValue, Region, Sizes, Stamp, Tier};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// The bytes of a tier with one shard. About 490 KB of them are for entries.
const BYTES: usize = 512 << 10;

/// Formats a tier with one shard.
fn format<'m>(memory: &'m [AtomicU64], host: &'m TestHost) -> Tier<'m, &'m TestHost> {
    let sizes = Sizes { shards: 1, ..SIZES };
    Tier::format(Region::of_words(memory), sizes, host, 0).expect("it fits")
}

/// Calls `use_key` with the key of a number. The factor, 2^64 divided by the golden ratio, spreads consecutive numbers.
fn with_key<T>(tier: &Tier<'_, &TestHost>, number: u64, use_key: impl FnOnce(&Key<'_>) -> T) -> T {
    let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    use_key(&Key::new(tier.scope(1, 1, 0), &number.to_le_bytes(), hash).expect("a legal key"))
}

/// Asks for a key, and stores a value of this size and cost if the key has none. Returns whether it had one.
fn ask(tier: &Tier<'_, &TestHost>, number: u64, bytes: usize, cost: Cost) -> bool {
    with_key(tier, number, |key| {
        let hit = tier.get(key, Stamp::LATEST, &mut Vec::new()).is_ok();
        if !hit {
            tier.put(key, &NewValue { cost, ..value(&vec![1; bytes], &[]) }).expect("it is stored");
        }
        hit
    })
}

/// Returns whether a key has a value. This does not count as a read for the policy.
fn is_there(tier: &Tier<'_, &TestHost>, number: u64) -> bool {
    with_key(tier, number, |key| tier.peek(key, Stamp::LATEST).is_ok())
}

/// Returns the cost of a computation that took this many milliseconds.
fn millis(number: u64) -> Cost {
    Cost::of(Duration::from_millis(number))
}

/// Requests keys of two kinds at random, all of them equally often. Even keys are of the first kind. `size_and_cost` returns the
/// size and the cost of a kind, and receives whether it is the first one. Returns the hits of each kind, in percent. The first
/// requests, with which the tier fills, do not count.
fn hits_of_two_kinds(keys: u64, size_and_cost: impl Fn(bool) -> (usize, Cost)) -> (u32, u32) {
    let (memory, host) = (memory(BYTES), TestHost::default());
    let tier = format(&memory, &host);
    let (mut hits, mut asked) = ([0, 0], [0, 0]);
    let mut random = 1_u64;
    for step in 0..30_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = (random >> 33) % keys;
        let kind = (number % 2) as usize;
        let (bytes, cost) = size_and_cost(kind == 0);
        let hit = ask(&tier, number, bytes, cost);
        if step > 10_000 {
            hits[kind] += u32::from(hit);
            asked[kind] += 1;
        }
    }
    assert_eq!(tier.check(), Vec::<String>::new());
    (hits[0] * 100 / asked[0], hits[1] * 100 / asked[1])
}

/// All small entries would fit, beside about a sixth of the large ones. A policy that ignores sizes would keep about 23 % of each
/// kind.
#[test]
fn small_entries_stay_before_large_ones() {
    let (small, large) = hits_of_two_kinds(1_000, |first| (if first { 200 } else { 4000 }, Cost::NONE));
    assert!(small > 60 && large < 30, "{small} % of the small ones, {large} % of the large ones");
}

/// A policy that ignores costs would keep about 46 % of each kind.
#[test]
fn expensive_entries_stay_before_cheap_ones() {
    let (dear, cheap) =
        hits_of_two_kinds(1_000, |first| (1000, if first { millis(1000) } else { millis(10) }));
    assert!(dear > 55 && cheap < 35, "{dear} % of the expensive ones, {cheap} % of the cheap ones");
}

/// An entry of the first kind has about a twelfth of the size and of the cost of the others. So both kinds are worth the same for
/// each byte, and must have about the same share of hits.
#[test]
fn size_and_cost_can_make_up_for_each_other() {
    let kind = |first| if first { (100, millis(10)) } else { (2000, millis(125)) };
    let (small, large) = hits_of_two_kinds(1_000, kind);
    assert!(small.abs_diff(large) < 15, "{small} % of the small ones, {large} % of the large ones");
}

/// All known costs are equal here, so each of them is the average cost. Both kinds must have about the same share of hits.
#[test]
fn an_entry_of_unknown_cost_weighs_as_much_as_one_of_average_cost() {
    let kind = |first| (1000, if first { Cost::NONE } else { millis(100) });
    let (unknown, known) = hits_of_two_kinds(1_000, kind);
    assert!(unknown.abs_diff(known) < 5, "{unknown} % without a cost, {known} % with a cost");
}

/// The scan stores 30 000 entries of 128 bytes, about eight times as many as fit. The 150 entries in use have 2 064 bytes each.
/// They must stay although the scanned ones are smaller.
#[test]
fn a_scan_of_small_entries_does_not_displace_larger_ones_in_use() {
    let (memory, host) = (memory(BYTES), TestHost::default());
    let tier = format(&memory, &host);
    let in_use = 150;
    let (mut asked, mut hits) = (0, 0);
    for step in 0..30_000 {
        ask(&tier, 1_000 + step, 50, Cost::NONE);
        if step % 10 == 0 {
            let hit = ask(&tier, step / 10 % in_use, 2000, Cost::NONE);
            asked += u32::from(step > 10_000);
            hits += u32::from(step > 10_000 && hit);
        }
    }
    assert!(hits * 100 > asked * 80, "{hits} of {asked}");
}

/// The holes between entries of different sizes are no room. If a tier with such holes counted as one that still fills, all new
/// entries would enter the main queue, and the scan would displace the entries in use.
#[test]
fn a_scan_of_mixed_sizes_does_not_displace_entries_in_use() {
    let (memory, host) = (memory(BYTES), TestHost::default());
    let tier = format(&memory, &host);
    let in_use = 120;
    let (mut asked, mut hits) = (0, 0);
    let mut random = 1_u64;
    for step in 0..30_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bytes = if random >> 63 == 0 { 16_000 } else { 1000 + (random >> 33) as usize % 3000 };
        ask(&tier, 1_000 + step, bytes, Cost::NONE);
        if step % 2 == 0 {
            let hit = ask(&tier, step / 2 % in_use, 2000, Cost::NONE);
            asked += u32::from(step > 10_000);
            hits += u32::from(step > 10_000 && hit);
        }
    }
    assert!(hits * 100 > asked * 80, "{hits} of {asked}");
}

/// Between two requests for a key in use, about 800 new entries come, more than three times as many as fit. The entries in use must
/// stay all the same: they fit into the main queue, and once the tier is full, no other entry gets there.
#[test]
fn entries_that_return_late_stay_if_nothing_better_is_there() {
    let (memory, host) = (memory(BYTES), TestHost::default());
    let tier = format(&memory, &host);
    let in_use = 100;
    let (mut asked, mut hits) = (0, 0);
    for step in 0..30_000 {
        ask(&tier, 1_000 + step, 2000, Cost::NONE);
        if step % 8 == 0 {
            let hit = ask(&tier, step / 8 % in_use, 2000, Cost::NONE);
            asked += u32::from(step > 10_000);
            hits += u32::from(step > 10_000 && hit);
        }
    }
    assert!(hits * 100 > asked * 80, "{hits} of {asked}");
}

/// All entries return equally late. If all of them went to the main queue, each would leave before it is asked for again,
/// and no request would be a hit. More than 15 % must be hits; about 24 % of the entries fit.
#[test]
fn a_loop_does_not_displace_the_entries_that_fit() {
    let (memory, host) = (memory(BYTES), TestHost::default());
    let tier = format(&memory, &host);
    let keys = 1_000;
    let hits = (0..50 * keys).filter(|step| ask(&tier, step % keys, 2000, Cost::NONE)).count() as u64;
    assert!(hits * 100 > 50 * keys * 15, "{hits} of {}", 50 * keys);
}

/// Entries of the greatest cost must outlive many cheap ones, and must leave in the end if no reader asks for them.
#[test]
fn an_expensive_entry_without_visits_leaves_in_the_end() {
    let (memory, host) = (memory(BYTES), TestHost::default());
    let tier = format(&memory, &host);
    for number in 0..100 {
        ask(&tier, number, 500, Cost::of(Duration::MAX));
        ask(&tier, number, 500, Cost::of(Duration::MAX));
    }
    let left = || (0..100).filter(|number| is_there(&tier, *number)).count();
    // Each of the cheap entries is asked for once more, so that it goes to the main queue: one with an odd number at once, and one
    // with an even number 20 numbers later.
    for number in 1_000..3_000 {
        ask(&tier, number, 500, millis(1));
        ask(&tier, number - 20 + number % 2 * 20, 500, millis(1));
    }
    assert!(left() > 80, "{} of 100 are there", left());
    for number in 3_000..40_000 {
        ask(&tier, number, 500, millis(1));
        ask(&tier, number - 20 + number % 2 * 20, 500, millis(1));
    }
    assert_eq!(left(), 0);
}

/// If all entries deserve another round, the search for a victim gives a bounded number of them another round, and evicts the next
/// one. Without the bound, it would pass all entries under the lock.
#[test]
fn a_new_entry_finds_room_although_all_others_have_rounds_left() {
    let (memory, host) = (memory(BYTES), TestHost::default());
    let tier = format(&memory, &host);
    for number in 0..20_000 {
        // The entries get more expensive all the time, so that new ones are above the average.
        let cost = Cost::of(Duration::from_micros(2 + number * number));
        ask(&tier, number, 100, cost);
        ask(&tier, number, 100, cost);
    }
    assert!(!ask(&tier, 30_000, 100, millis(1)));
    assert!(is_there(&tier, 30_000));
    assert_eq!(tier.check(), Vec::<String>::new());
}
