//! Tests the statistics of each space (`figures/statistics.rs`), and the quota of a space (`tier/quota.rs`): a space at its quota
//! must evict its own entries only.
//!
//! A *space* is a set of keys in one database. The *cell* of a space is the place of its counts in shared memory
//! (`figures/statistics.rs`). A backend counts for a few spaces at a time, each in a *row* of its own *slot*, and *folds* a row
//! into the cell of its space when another space needs the row. A *fence* is a word in shared memory that says when a dependency of
//! entries last changed. The *quota* of a space limits the memory of its entries (`tier/quota.rs`).
#![cfg(not(any(loom, counting)))]

use pg_cache_core::testing::{SIZES, SpinningHost, TestHost, memory, value};
use pg_cache_core::{
    Buffer, Census, Counter, Host, IncrError, Key, Kind, Meta, Miss, NewValue, Quota, Refusal, Region,
    ReserveOptions, Reserved, Scope, Sizes, SpaceStats, Stamp, Tier,
};
use std::sync::atomic::{AtomicU64, Ordering};

/// Sizes with cells for the thirty spaces of these tests, which are more than the eight that a backend has rows for.
const MANY: Sizes = Sizes { reserved_fences: 64, backends: 4, shards: 2, ..SIZES };
/// A budget, in buckets, that is far more than twice the buckets of these tiers. So a trim meets each entry twice: the first time
/// it may only clear the visited bit.
const ENOUGH: u32 = 100_000;

/// Calls `use_key` with the key of a number. The factor, 2^64 divided by the golden ratio, spreads consecutive numbers over all
/// hashes.
fn with_key<T>(scope: Scope, number: u32, use_key: impl FnOnce(&Key<'_>) -> T) -> T {
    let bytes = number.to_le_bytes();
    use_key(
        &Key::new(scope, &bytes, u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15)).expect("a legal key"),
    )
}

/// Stores a value of 100 bytes under each of these keys.
fn put<H: Host>(tier: &Tier<'_, H>, scope: Scope, numbers: std::ops::Range<u32>) {
    for number in numbers {
        with_key(scope, number, |key| tier.put(key, &value(&[7; 100], &[]))).expect("it is stored");
    }
}

/// Reads these keys, and returns the number of hits.
fn get<H: Host>(tier: &Tier<'_, H>, scope: Scope, numbers: std::ops::Range<u32>) -> usize {
    numbers
        .filter(|number| {
            with_key(scope, *number, |key| tier.get(key, Stamp::LATEST, &mut Vec::new())).is_ok()
        })
        .count()
}

/// Returns the statistics of a space that has a cell of its own.
fn stats<H: Host>(tier: &Tier<'_, H>, scope: Scope) -> SpaceStats {
    tier.space_stats(scope.database, scope.space).expect("it has figures of its own")
}

fn check<H: Host>(tier: &Tier<'_, H>) {
    assert_eq!(tier.check(), Vec::<String>::new());
}

/// A buffer that wants values of one kind.
struct OfKind(Kind, Vec<u8>);

impl Buffer for OfKind {
    fn allocate(&mut self, meta: &Meta) -> &mut [u8] {
        self.1.allocate(meta)
    }

    fn accepts(&mut self, meta: &Meta) -> bool {
        meta.kind == self.0
    }
}

/// A value that the reader does not want must count as a miss, and not as a hit.
#[test]
fn unwanted_values_are_misses() {
    let memory = memory(256 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), MANY, &host, 0).expect("it fits");
    let scope = tier.scope(1, 1, 0);
    put(&tier, scope, 0..1);
    let new = value(&[7; 100], &[]);
    let get = |kind| with_key(scope, 0, |key| tier.get(key, Stamp::LATEST, &mut OfKind(kind, Vec::new())));
    assert_eq!(get(Kind(new.kind.0 + 1)).map(|_| ()), Err(Miss::Absent));
    assert_eq!(get(new.kind).map(|meta| meta.value_len), Ok(100));
    let found = stats(&tier, scope);
    assert_eq!((found.counted(Counter::Hit), found.counted(Counter::MissAbsent)), (1, 1));
}

/// Each space must have counts, entries and bytes of its own. A reset must set the counts of one space to 0, and keep its entries
/// and bytes.
#[test]
fn figures_are_those_of_the_space() {
    let memory = memory(256 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), MANY, &host, 0).expect("it fits");
    assert_eq!(tier.space_stats(1, 1), None, "nobody has used it");
    let (one, other) = (tier.scope(1, 1, 0), tier.scope(2, 1, 5));
    put(&tier, one, 0..10);
    put(&tier, other, 0..3);
    assert_eq!(get(&tier, one, 5..12), 5);
    with_key(one, 0, |key| tier.remove(key));
    put(&tier, one, 1..2);
    let found = stats(&tier, one);
    let counted = |what| found.counted(what);
    assert_eq!(found.space, Some((1, 1)));
    assert_eq!((counted(Counter::Hit), counted(Counter::MissAbsent)), (5, 2));
    assert_eq!((counted(Counter::Stored), counted(Counter::Replaced), counted(Counter::Removed)), (11, 1, 1));
    // Header, key and value take 160 bytes: ten blocks.
    assert_eq!((found.entries, found.bytes()), (9, 9 * 160));
    let found = stats(&tier, other);
    assert_eq!((found.entries, found.bytes(), found.counted(Counter::Hit)), (3, 3 * 160, 0));
    assert_eq!(tier.used_bytes(&other), 3 * 160);
    let named: Vec<_> = tier.all_stats().map(|stats| stats.space).collect();
    assert!(named.contains(&Some((1, 1))) && named.contains(&Some((2, 1))) && named.len() == 3, "{named:?}");

    tier.reset_stats(1, 1);
    let found = stats(&tier, one);
    assert_eq!((found.entries, found.bytes(), found.counted(Counter::Hit)), (9, 9 * 160, 0));
    assert_eq!(get(&tier, one, 5..6), 1);
    assert_eq!(stats(&tier, one).counted(Counter::Hit), 1);
    assert_eq!(stats(&tier, other).counted(Counter::Stored), 3, "the other one's are as they were");
    assert_eq!(tier.counted(Counter::Hit), 6, "since the region was formatted");
    tier.reset_all_stats();
    assert_eq!(stats(&tier, other).counted(Counter::Stored), 0);
    check(&tier);
}

/// Returns the counts of the entries of some spaces of database 1. The spaces must be sorted.
fn census<H: Host>(tier: &Tier<'_, H>, spaces: &[u32]) -> Vec<Census> {
    let mut counted: Vec<_> =
        spaces.iter().map(|space| Census { database: 1, space: *space, ..Census::default() }).collect();
    let mut bucket = Some(0);
    while let Some(next) = bucket {
        bucket = tier.count_entries(next, &mut counted);
    }
    counted
}

/// A census must count entries that have expired or are invalidated as dead, and all others as live. A change that is only pending
/// must kill nothing.
#[test]
fn entries_that_no_reader_can_get_are_counted_as_dead() {
    let memory = memory(256 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), MANY, &host, 0).expect("it fits");
    let (one, other) = (tier.scope(1, 1, 0), tier.scope(1, 2, 0));
    put(&tier, one, 0..10);
    put(&tier, other, 0..5);
    put(&tier, tier.scope(2, 1, 0), 0..7);
    let tag = [tier.fences().tag(3)];
    let long = NewValue { bytes: &[7; 4_000], ..value(&[], &tag) };
    with_key(one, 20, |key| tier.put(key, &long)).expect("it is stored");
    let short_lived = NewValue { expires: 5, ..value(&[7; 100], &[]) };
    with_key(one, 21, |key| tier.put(key, &short_lived)).expect("it is stored");
    let all = stats(&tier, one).bytes();
    let of_long = all - 11 * 160;
    let expected = |live, live_bytes, dead, dead_bytes| Census {
        database: 1,
        space: 1,
        live,
        live_bytes,
        dead,
        dead_bytes,
    };
    assert_eq!(census(&tier, &[1]), [expected(12, all, 0, 0)]);

    tier.fences().raise(tag[0]);
    assert_eq!(census(&tier, &[1]), [expected(12, all, 0, 0)], "the change may still be withdrawn");
    tier.fences().lower(tag[0]);
    assert_eq!(census(&tier, &[1]), [expected(11, 11 * 160, 1, of_long)]);
    host.now.set(5);
    let [found, of_other] = census(&tier, &[1, 2])[..] else { panic!("two spaces") };
    assert_eq!(found, expected(10, 10 * 160, 2, of_long + 160));
    assert_eq!((of_other.space, of_other.live, of_other.dead), (2, 5, 0));
    // A flush of the space. A raise before it is not needed here: no other session looks meanwhile.
    tier.fences().lower(tier.fences().reserved(Reserved::Space { database: 1, space: 1 }));
    assert_eq!(census(&tier, &[1]), [expected(0, 0, 12, all)]);
}

/// An eviction must count for the space of the evicted entry, although another space is storing.
#[test]
fn an_eviction_counts_for_the_space_of_the_entry() {
    let memory = memory(256 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), MANY, &host, 0).expect("it fits");
    let scopes: Vec<_> = (1..=6).map(|space| tier.scope(1, space, 0)).collect();
    for (scope, from) in scopes.iter().zip((0..).step_by(1_000)) {
        put(&tier, *scope, from..from + 50);
    }
    let newcomer = tier.scope(1, 9, 0);
    // This backend has never worked in the other spaces.
    let tier = Tier::attach(Region::of_words(&memory), &host, 1).expect("it is formatted");
    // Reading the new entries makes eviction keep them, so that older entries of other spaces must go.
    for number in 10_000..13_000 {
        put(&tier, newcomer, number..number + 1);
        get(&tier, newcomer, number - 20..number + 1);
    }
    for scope in &scopes {
        let found = stats(&tier, *scope);
        let evicted = found.counted(Counter::Evicted);
        assert!(evicted > 0, "{found:?}");
        assert_eq!((found.entries, found.bytes()), (50 - evicted, (50 - evicted) * 160));
    }
    check(&tier);
}

/// A backend has fewer rows than this test has spaces, so most spaces take the row of another one. The estimate of hits must be
/// right in each space, to a factor of two: about one of 64 hits is sampled.
#[test]
fn hits_are_sampled_in_every_space() {
    let memory = memory(1 << 20);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), MANY, &host, 0).expect("it fits");
    for space in 1..=30 {
        let scope = tier.scope(1, space, 0);
        put(&tier, scope, 1..3);
        for _ in 0..1_000 {
            assert_eq!(get(&tier, scope, 1..2), 1);
        }
        let sampled = tier.sampled_hits().expect("there is memory");
        let hits = [1, 2].map(|number| with_key(scope, number, |key| sampled.of(key)));
        assert!((500..2_000).contains(&hits[0]) && hits[1] == 0, "space {space}: {hits:?}");
    }
}

/// A backend that gets the slot of an earlier one must not lose its counts. Counts of a backend without a slot must
/// not be lost either.
#[test]
fn a_later_backend_goes_on_where_the_one_before_ended() {
    let memory = memory(256 * 1024);
    let host = TestHost::default();
    Tier::format(Region::of_words(&memory), MANY, &host, 0).expect("it fits");
    // Backend 4 has no slot.
    for backend in [0, 1, 0, 3, 0, 4] {
        let tier = Tier::attach(Region::of_words(&memory), &host, backend).expect("it is formatted");
        let scope = tier.scope(1, 1, 0);
        put(&tier, scope, 0..1);
        get(&tier, scope, 0..10);
    }
    let tier = Tier::attach(Region::of_words(&memory), &host, 2).expect("it is formatted");
    let found = stats(&tier, tier.scope(1, 1, 0));
    assert_eq!((found.counted(Counter::Hit), found.counted(Counter::MissAbsent)), (6, 54));
    assert_eq!((found.counted(Counter::Stored), found.counted(Counter::Replaced)), (6, 5));
    assert_eq!(found.entries, 1);
    check(&tier);
}

/// If there are more spaces than cells, the last spaces share a cell. Their counts must be summed without a name, and no quota may
/// apply to them.
#[test]
fn spaces_that_come_too_late_share_the_last_cell() {
    let memory = memory(256 * 1024);
    let host = TestHost::default();
    let sizes = Sizes { reserved_fences: 3, ..MANY };
    let tier = Tier::format(Region::of_words(&memory), sizes, &host, 0).expect("it fits");
    // The database takes the first fence.
    let scopes: Vec<_> = (1..=4).map(|space| tier.scope(1, space, 0)).collect();
    for (scope, from) in scopes.iter().zip((0..).step_by(1_000)) {
        put(&tier, *scope, from..from + 5);
    }
    let all: Vec<_> = tier.all_stats().collect();
    let shared = all.last().expect("it is always there");
    assert_eq!(all.len(), 3);
    assert_eq!((shared.space, shared.entries, shared.bytes()), (None, 10, 10 * 160));
    assert!(tier.is_counted_alone(&scopes[0]) && !tier.is_counted_alone(&scopes[3]));
    assert_eq!(tier.space_stats(1, 4), None);
    // The bytes of this space alone are not known, so no quota applies to it.
    assert!(tier.trim(&scopes[3], 0, ENOUGH));
    assert!(
        with_key(scopes[3], 9, |key| tier.reserve(
            key,
            &value(b"1", &[]),
            Some(Quota { bytes: 10, budget: ENOUGH }).into()
        ))
        .map(|reservation| tier.cancel(reservation))
        .is_ok()
    );
    check(&tier);
}

/// Backends work in more spaces than they have rows for, while the main thread reads the counts. No count may ever
/// decrease, and at the end each must be exact.
#[test]
fn folding_rows_loses_nothing_and_counts_nothing_twice() {
    const ROUNDS: u64 = 3_000;
    const SPACES: u32 = 30;
    let memory = memory(256 * 1024);
    let host = SpinningHost::new(MANY.shards);
    let tier = Tier::format(Region::of_words(&memory), MANY, &host, 0).expect("it fits");
    let named = (0..SPACES).filter(|space| tier.is_counted_alone(&tier.scope(1, *space, 0)));
    assert_eq!(named.count(), SPACES as usize);
    let working = AtomicU64::new(4);
    // Backend 4 has no slot.
    std::thread::scope(|threads| {
        for backend in 1..=4 {
            let (memory, host, working) = (&memory, &host, &working);
            threads.spawn(move || {
                let tier = Tier::attach(Region::of_words(memory), host, backend).expect("it is formatted");
                let scopes: Vec<_> = (0..SPACES).map(|space| tier.scope(1, space, 0)).collect();
                for round in 0..ROUNDS {
                    for scope in &scopes {
                        assert_eq!(get(&tier, *scope, 0..1), 0);
                        tier.count_for_space(scope, Counter::Saved, round);
                    }
                }
                working.fetch_sub(1, Ordering::Release);
            });
        }
        let mut before = 0;
        while working.load(Ordering::Acquire) > 0 {
            let stats = tier.space_stats(1, 17).expect("it has figures of its own");
            let found = stats.counted(Counter::MissAbsent);
            assert!((before..=4 * ROUNDS).contains(&found), "{found} after {before}");
            before = found;
        }
    });
    for space in 0..SPACES {
        let found = tier.space_stats(1, space).expect("it has figures of its own");
        assert_eq!(found.counted(Counter::MissAbsent), 4 * ROUNDS);
        assert_eq!(found.counted(Counter::Saved), 4 * (0..ROUNDS).sum::<u64>());
    }
    assert_eq!(tier.counted(Counter::MissAbsent), u64::from(SPACES) * 4 * ROUNDS);
}

/// A space must evict its own entries only. It must keep entries that were read since its hand last passed, as long as others are
/// enough, and it must keep counters.
#[test]
fn a_space_makes_room_within_itself() {
    let memory = memory(256 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), MANY, &host, 0).expect("it fits");
    let (scope, other) = (tier.scope(1, 1, 0), tier.scope(1, 2, 0));
    put(&tier, scope, 0..200);
    put(&tier, other, 1_000..1_200);
    let counter = NewValue { expires: u32::MAX, ..value(&[], &[]) };
    for number in 2_000..2_010 {
        with_key(scope, number, |key| {
            assert_eq!(tier.incr(key, 1, &counter, ReserveOptions::default()), Ok(1))
        });
    }
    assert_eq!(get(&tier, scope, 0..50), 50);
    let quota = tier.used_bytes(&scope) - 100 * 160;
    assert!(tier.trim(&scope, quota, ENOUGH));
    assert!((quota - 160..=quota).contains(&tier.used_bytes(&scope)), "no more than necessary");
    assert_eq!(stats(&tier, scope).counted(Counter::EvictedQuota), 100);
    assert_eq!(stats(&tier, scope).counted(Counter::Evicted), 0);
    assert_eq!(get(&tier, scope, 0..50), 50, "they were asked for");
    assert_eq!(get(&tier, scope, 50..200), 50);
    // Trimming to 0 evicts all entries but the counters, and so fails.
    assert!(!tier.trim(&scope, 0, ENOUGH));
    assert_eq!(stats(&tier, scope).entries, 10);
    assert_eq!(get(&tier, scope, 2_000..2_010), 10);
    assert_eq!((get(&tier, other, 1_000..1_200), stats(&tier, other).entries), (200, 200));
    // Counters that are invalidated are removed like other entries.
    let fences = tier.fences();
    let fence = fences.reserved(pg_cache_core::Reserved::Space { database: 1, space: 1 });
    fences.raise(fence);
    fences.lower(fence);
    assert!(tier.trim(&scope, 0, ENOUGH));
    assert_eq!(stats(&tier, scope).counted(Counter::Fenced), 10);
    assert_eq!((stats(&tier, scope).entries, stats(&tier, scope).bytes()), (0, 0));
    check(&tier);
}

/// Trimming must not evict more than necessary, even if the entries share a bucket.
#[test]
fn no_more_goes_than_has_to() {
    let memory = memory(256 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), MANY, &host, 0).expect("it fits");
    let scope = tier.scope(1, 1, 0);
    for number in 0..20_u32 {
        let bytes = number.to_le_bytes();
        let key = Key::new(scope, &bytes, 7).expect("a legal key");
        tier.put(&key, &value(&[7; 100], &[])).expect("it is stored");
    }
    assert!(tier.trim(&scope, 17 * 160 + 1, ENOUGH));
    assert_eq!(stats(&tier, scope).entries, 17);
    check(&tier);
}

/// Each new value must take the memory of an older value of its space, and never the memory of another space.
#[test]
fn a_space_at_its_quota_goes_on_storing() {
    let memory = memory(256 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), MANY, &host, 0).expect("it fits");
    let (scope, other) = (tier.scope(1, 1, 0), tier.scope(1, 2, 0));
    put(&tier, other, 10_000..10_100);
    let quota = 20 * 160 + 100;
    for number in 0..1_000 {
        let stored = with_key(scope, number, |key| {
            let reservation = tier.reserve(
                key,
                &value(&[7; 100], &[]),
                Some(Quota { bytes: quota, budget: ENOUGH }).into(),
            )?;
            Ok::<_, Refusal>(tier.publish(key, reservation))
        });
        assert!(stored.is_ok(), "{number}: {stored:?}");
        assert!(tier.used_bytes(&scope) <= quota);
    }
    assert_eq!(stats(&tier, scope).entries, 20);
    assert_eq!(stats(&tier, scope).counted(Counter::EvictedQuota), 980);
    assert_eq!((stats(&tier, other).entries, tier.counted(Counter::Evicted)), (100, 0));
    // A value that is too large for the quota must not evict anything.
    let refused = with_key(scope, 5_000, |key| {
        tier.reserve(key, &value(&[7; 4_000], &[]), Some(Quota { bytes: quota, budget: ENOUGH }).into())
    });
    assert_eq!(refused.map(|_| ()), Err(Refusal::Quota));
    assert_eq!((stats(&tier, scope).entries, stats(&tier, scope).counted(Counter::RefusedQuota)), (20, 1));
    // A new counter must fit into the quota, too. Adding to an existing counter needs no memory.
    let small = NewValue { kind: Kind(1), ..value(&[], &[]) };
    let incr = |number, quota| {
        with_key(scope, number, |key| {
            tier.incr(key, 1, &small, Some(Quota { bytes: quota, budget: ENOUGH }).into())
        })
    };
    assert_eq!(incr(6_000, quota), Ok(1));
    assert_eq!(incr(6_000, 0), Ok(2));
    assert_eq!(incr(6_001, 0), Err(IncrError::Refused(Refusal::Quota)));
    check(&tier);
}

/// A trim that finds nothing to evict must stop when its budget is used up. The next trim must continue at that place: if each
/// began anew, the only entry of the space would never be found.
#[test]
fn making_room_ends_with_its_budget() {
    let memory = memory(512 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), MANY, &host, 0).expect("it fits");
    let (scope, other) = (tier.scope(1, 1, 0), tier.scope(1, 2, 0));
    put(&tier, other, 1_000..2_000);
    put(&tier, scope, 0..1);
    let buckets =
        (0..).take_while(|bucket| tier.inspect(*bucket).expect("there is memory").is_some()).count() as u32;
    let mut calls = 0;
    loop {
        // The third lock of a call fails the test. A budget of 64 buckets is one hold of a lock, or two if the shard that the
        // hand stands in ends before that.
        host.patience.set(3);
        calls += 1;
        if tier.trim(&scope, 0, 64) {
            break;
        }
        assert!(calls * 64 < 2 * buckets + 256, "it does not come round");
    }
    host.patience.set(0);
    assert_eq!(stats(&tier, scope).entries, 0);
    check(&tier);
}

/// Several backends store at the same time. Together they must never exceed the quota by more than the values that are being
/// reserved, one for each backend.
#[test]
fn several_backends_that_store_at_once_keep_to_the_quota() {
    const ENTRY: u64 = 160;
    const QUOTA: u64 = 50 * ENTRY;
    let memory = memory(256 * 1024);
    let host = SpinningHost::new(MANY.shards);
    let tier = Tier::format(Region::of_words(&memory), MANY, &host, 0).expect("it fits");
    let scope = tier.scope(1, 1, 0);
    let working = AtomicU64::new(3);
    std::thread::scope(|threads| {
        for backend in 1..=3 {
            let (memory, host, working) = (&memory, &host, &working);
            threads.spawn(move || {
                let tier = Tier::attach(Region::of_words(memory), host, backend).expect("it is formatted");
                let scope = tier.scope(1, 1, 0);
                let mut granted = 0;
                for number in 0..4_000 {
                    let number = number * 3 + backend;
                    with_key(scope, number, |key| {
                        if let Ok(reservation) = tier.reserve(
                            key,
                            &value(&[7; 100], &[]),
                            Some(Quota { bytes: QUOTA, budget: ENOUGH }).into(),
                        ) {
                            granted += 1;
                            if number % 7 == 0 {
                                tier.cancel(reservation);
                            } else {
                                tier.publish(key, reservation);
                            }
                        }
                    });
                }
                assert!(granted > 1_000, "{granted} were granted");
                working.fetch_sub(1, Ordering::Release);
            });
        }
        while working.load(Ordering::Acquire) > 0 {
            let used = tier.used_bytes(&scope);
            assert!(used <= QUOTA + 3 * ENTRY, "{used} bytes");
        }
    });
    assert!(tier.used_bytes(&scope) <= QUOTA);
    check(&tier);
}

/// The statistics of 256 reserved fences and 120 backends must take 817 280 bytes, less than a megabyte. The test fails when a
/// slot (5440 bytes) or a cell (640 bytes) gets another size.
#[test]
fn statistics_take_less_than_a_megabyte() {
    let sizes = Sizes { reserved_fences: 256, backends: 120, ..SIZES };
    let memory = memory(2 << 20);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), sizes, &host, 0).expect("it fits");
    let taken = tier.usage().statistics_bytes;
    assert_eq!(taken, 120 * 5_440 + 257 * 640);
    let without = Sizes { reserved_fences: 0, backends: 0, ..sizes };
    let beside = Tier::<&TestHost>::bytes_beside_entries;
    // With both set to 0, the region still has one slot and one cell.
    assert_eq!(beside(sizes) - beside(without), 256 * 64 + taken as usize - 640);
}
