//! Counts the writes to the region. A hit on an entry that was read before must take no lock, and must write only to the slot of
//! its own backend: to the count of hits, and for about one of 64 hits to the sample of hits. (The exceptions are an entry that may
//! be served stale, and one that must be compared with a newer pattern: `tier/reading.rs`.) Each write to a shared word takes its
//! cache line away from all other processors.
//!
//! This file is compiled with `--cfg counting` only. Then each word of the region counts the writes to it.
//!
//! A *hold* is the time from acquiring to releasing a lock. A *fence* is a word in shared memory that says when a dependency of
//! entries last changed. The *region* is the memory of the tier, the cache, in words of 64 bits. A *space* is a set of keys in one
//! database. The *slot* of a backend is its own part of the statistics. A *zone* is 64 KB of blocks with a version that moves when
//! an entry in it dies (`tier/shard.rs`).
#![cfg(counting)]

use pg_cache_core::testing::{self, TestHost, memory, value};
use pg_cache_core::{AtomicU64, Counter, FenceId, Key, NewValue, Region, RelationFence, Sizes, Stamp, Tier};

/// How many hits or misses are counted together.
const HITS: u64 = 1000;
/// The number of the tested backend's slot of statistics.
const BACKEND: u32 = 1;
/// Sizes with eight reserved fences, which a test below counts on.
const SIZES: Sizes = Sizes { reserved_fences: 8, backends: 4, shards: 1, ..testing::SIZES };

/// Returns the words that were written since the last call: the position of each, the number of stores to it, and the
/// number of atomic read-modify-write operations on it.
fn written(words: &[AtomicU64]) -> Vec<(usize, u64, u64)> {
    let writes = words.iter().map(AtomicU64::take_writes).enumerate();
    writes
        .filter(|(_, writes)| *writes != (0, 0))
        .map(|(at, (stores, changes))| (at, stores, changes))
        .collect()
}

/// The rule in the head of this file, for values of three sizes. Prefetching must write nothing at all, and a miss on an
/// invalidated entry only its count. The test fails if any other word of the region is written.
#[test]
fn a_hit_writes_to_its_own_statistics_only() {
    let words = memory(1024 * 1024);
    let host = TestHost::default();
    let sizes = Sizes { shards: 4, ..SIZES };
    let tier = Tier::format(Region::of_words(&words), sizes, &host, BACKEND).expect("it fits");
    let other = Tier::attach(Region::of_words(&words), &host, BACKEND + 1).expect("it is there");
    let scope = tier.scope(1, 1, 0);
    let table = tier.fences().claim_fence(1, 7, RelationFence::Any);
    let dependencies = [tier.fences().tag(7), tier.fences().tag(u64::MAX), table];
    let key = Key::new(scope, b"a key", 42).expect("a legal key");
    // The value is on a few cache lines, on many, and spread over the shards.
    for size in [100, 700, 40_000] {
        let bytes = vec![1; size];
        let value = NewValue { note: b"note", stamp: tier.fences().now(), ..value(&bytes, &dependencies) };
        tier.put(&key, &value).expect("there is room");
        let mut found = Vec::new();
        let mut hit = || assert!(tier.get(&key, Stamp::LATEST, &mut found).is_ok());

        // The first hit sets the visited bit of the entry. It shows that the test can see a write.
        written(&words);
        hit();
        let first = written(&words);
        assert_eq!(first.iter().map(|(_, _, changes)| changes).sum::<u64>(), 1, "{size} bytes: {first:?}");

        let (before, locks) = (tier.counted(Counter::Hit), host.locks.get());
        (0..HITS).for_each(|_| hit());
        let writes = written(&words);
        // Only the count of hits is written for each hit. The other words are samples, with two stores for about one of 64 hits:
        // about 31 stores, to a factor of two.
        assert_eq!(tier.counted(Counter::Hit), before + HITS);
        let (counts, samples): (Vec<_>, Vec<_>) = writes.iter().partition(|(_, stores, _)| *stores == HITS);
        assert_eq!(counts.len(), 1, "{size} bytes: {writes:?}");
        let stores: u64 = samples.iter().map(|(_, stores, _)| stores).sum();
        assert!((HITS / 64..=HITS / 16).contains(&stores), "{size} bytes: {stores} stores of samples");
        assert!(writes.iter().all(|(_, _, changes)| *changes == 0), "{size} bytes: {writes:?}");
        // A hit of another backend writes to none of these words.
        let hit_elsewhere = || assert!(other.get(&key, Stamp::LATEST, &mut Vec::new()).is_ok());
        (0..HITS).for_each(|_| hit_elsewhere());
        let is_same = |(at, ..): &(usize, u64, u64)| writes.iter().any(|(other, ..)| other == at);
        assert!(!written(&words).iter().any(is_same), "{size} bytes");
        assert_eq!(host.locks.get(), locks, "a hit takes no lock");
        assert_eq!(found.len(), size);

        // Prefetching must not write anything.
        tier.prefetch_bucket(key.mark());
        tier.prefetch_entry(key.mark());
        tier.prefetch_for_change(key.mark());
        assert_eq!((written(&words), host.locks.get()), (Vec::new(), locks), "{size} bytes");

        // A miss on an invalidated entry must write to no word except the count of such misses. In particular, it must not write
        // to the relation's record.
        tier.fences().raise(table);
        let _ = tier.lower_as(table, tier.fences().draw());
        assert!(tier.get(&key, Stamp::LATEST, &mut found).is_err());
        written(&words);
        (0..HITS).for_each(|_| assert!(tier.get(&key, Stamp::LATEST, &mut found).is_err()));
        let writes = written(&words);
        let [(_, HITS, 0)] = writes[..] else { panic!("{size} bytes: {writes:?}") };
        assert_eq!(host.locks.get(), locks, "a miss takes no lock");
    }
}

/// Evicting entries of another space must update each count of that space at most once for each hold of a lock, not once for each
/// entry: all backends write to these counts. A hold evicts more than eight entries here, on average, so updates for each entry
/// would show.
#[test]
fn evictions_update_the_counts_of_a_space_once_per_lock() {
    let words = memory(2048 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&words), SIZES, &host, BACKEND).expect("it fits");
    (0..30_000).for_each(|number| store(&tier, 1, number, &[1; 10], &[]));
    // The slot of this backend has no row of counts for space 1.
    let tier = Tier::attach(Region::of_words(&words), &host, BACKEND + 1).expect("it is formatted");
    // The first value of space 2 claims the fence of the space, so that the counted store writes no such word.
    store(&tier, 2, 1, &[1; 100], &[]);
    let (evicted, locks) = (tier.counted(Counter::Evicted), host.locks.get());
    written(&words);
    store(&tier, 2, 2, &vec![1; 60_000], &[]);
    let (evicted, locks) = (tier.counted(Counter::Evicted) - evicted, host.locks.get() - locks);
    assert!(evicted > 8 * locks && locks > 3, "{evicted} evicted under {locks} locks");
    // The header, the fences and the statistics come first in the region.
    let statistics = Tier::<&TestHost>::bytes_beside_entries(SIZES) / 8;
    let changed = written(&words).into_iter().filter(|(at, _, changes)| *at < statistics && *changes > 0);
    let often: Vec<_> = changed.map(|(_, _, changes)| changes).collect();
    // The words are: evicted entries, entries evicted from the small queue (if there were any), the blocks of their space, and
    // the blocks of the new value's space.
    assert!((3..=4).contains(&often.len()), "{often:?}");
    assert!(often.iter().all(|changes| *changes <= locks), "{often:?} under {locks} locks");
}

/// The holds of locks for a large value must evict more than 24 entries each, on average. A hold may evict 32 (`tier/freeing.rs`).
/// The entries of a hold must go as one streak (`tier/streak.rs`). The hold then moves the version of each zone that they lie in
/// once, instead of once for each entry.
#[test]
fn a_hold_for_a_large_value_evicts_in_one_streak() {
    let words = memory(2048 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&words), SIZES, &host, BACKEND).expect("it fits");
    (0..30_000).for_each(|number| store(&tier, 1, number, &[1; 100], &[]));
    let (evicted, locks) = (tier.counted(Counter::Evicted), host.locks.get());
    written(&words);
    store(&tier, 2, 1, &vec![1; 60_000], &[]);
    let (evicted, locks) = (tier.counted(Counter::Evicted) - evicted, host.locks.get() - locks);
    // No entry was read. So the only words behind the statistics with atomic read-modify-write operations are the
    // versions of zones.
    let statistics = Tier::<&TestHost>::bytes_beside_entries(SIZES) / 8;
    let changed = written(&words).into_iter().filter(|(at, ..)| *at >= statistics);
    let moved: u64 = changed.map(|(_, _, changes)| changes).sum();
    assert!(evicted > 24 * locks && locks > 3, "{evicted} evicted under {locks} locks");
    // A streak may cross the border of two zones, which have 64 KB each.
    assert!(moved <= locks + 2, "{moved} moves of zones under {locks} locks");
}

/// Removing many entries that one relation has invalidated must update the relation's count at most once for each hold of a lock.
#[test]
fn removals_update_the_count_of_a_relation_once_per_lock() {
    let words = memory(2048 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&words), SIZES, &host, BACKEND).expect("it fits");
    let table = tier.fences().claim_fence(1, 7, RelationFence::Any);
    (0..30_000).for_each(|number| store(&tier, 1, number, &[1; 10], &[table]));
    tier.fences().raise(table);
    let _ = tier.lower_as(table, tier.fences().draw());
    let (entries, locks) = (tier.usage().entries, host.locks.get());
    written(&words);
    store(&tier, 2, 2, &vec![1; 60_000], &[]);
    let (gone, locks) = (entries + 1 - tier.usage().entries, host.locks.get() - locks);
    let [stats] = tier.relation_stats(1).collect::<Vec<_>>()[..] else { panic!("there is one") };
    assert_eq!(stats.killed, gone);
    assert!(gone > 8 * locks && locks > 3, "{gone} taken out under {locks} locks");
    // The records of relations come after the header and the eight reserved fences. The header takes three cache lines.
    // Each reserved fence takes one cache line, and so does each record.
    let relations = (3 + 8) * 8..(3 + 8 + 4) * 8;
    let changed: Vec<_> = written(&words).into_iter().filter(|(at, ..)| relations.contains(at)).collect();
    let [(_, 0, changes)] = changed[..] else { panic!("{changed:?}") };
    assert!(changes <= locks, "{changes} under {locks} locks");
}

/// Stores a value in a space, under a key that is made from the number.
fn store(tier: &Tier<'_, &TestHost>, space: u32, number: u64, bytes: &[u8], dependencies: &[FenceId]) {
    let value = NewValue { stamp: tier.fences().now(), ..value(bytes, dependencies) };
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    let hash = u64::from_le_bytes(number);
    let key = Key::new(tier.scope(1, space, 0), &number, hash).expect("a legal key");
    tier.put(&key, &value).expect("there is room, or an entry can be evicted");
}
