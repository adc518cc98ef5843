//! Tests the statistics of relations: how often a relation has changed, when it changed last, and how many entries its changes have
//! *killed*, which means invalidated. Each killed entry must be counted once, when its memory is reclaimed
//! (`figures/relation_stats.rs`).
//!
//! A *tick* is the unit of time, which the host of the tier chooses. The *record* of a relation holds its fences (`fence/mod.rs`).
//! A *tier* is a cache in memory that several processes share.
#![cfg(not(any(loom, counting)))]

use pg_cache_core::testing::{SIZES, TestHost, memory, value};
use pg_cache_core::{
    Counter, FenceId, Key, NewValue, Region, RelationFence, RelationStats, Reserved, Sizes, Stamp, Tier,
};
use std::sync::atomic::AtomicU64;

const DATABASE: u32 = 1;

/// A tier for relations, used by one backend.
struct Bed<'m> {
    /// The tier under test.
    tier: Tier<'m, &'m TestHost>,
    /// The host of the tier, whose clock the tests set.
    host: &'m TestHost,
}

/// Runs a test on a new tier with this number of records of relations, at tick 10.
fn with_bed(relation_fences: u32, test: impl FnOnce(Bed<'_>)) {
    let memory: Vec<AtomicU64> = memory(512 * 1024);
    let host = TestHost::default();
    host.now.set(10);
    let sizes = Sizes { relation_fences, backends: 4, ..SIZES };
    let tier = Tier::format(Region::of_words(&memory), sizes, &host, 0).expect("it fits");
    test(Bed { tier, host: &host });
}

impl Bed<'_> {
    /// Returns the fence that every write of a relation raises, and claims a record for the relation.
    fn relation(&self, number: u32) -> FenceId {
        self.tier.fences().claim_fence(DATABASE, number, RelationFence::Any)
    }

    /// Changes a dependency, and commits.
    fn change(&self, fence: FenceId) {
        self.tier.fences().raise(fence);
        let _ = self.tier.lower_as(fence, self.tier.fences().draw());
    }

    /// Calls `use_key` with the key of a number. The factor, 2^64 divided by the golden ratio, spreads consecutive numbers.
    fn key<T>(&self, number: u32, use_key: impl FnOnce(&Key<'_>) -> T) -> T {
        let hash = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        use_key(&Key::new(self.tier.scope(DATABASE, 1, 0), &number.to_le_bytes(), hash).expect("a legal key"))
    }

    /// Stores a value under each of these keys, as of now.
    fn put(&self, numbers: std::ops::Range<u32>, expires: u32, dependencies: &[FenceId]) {
        for number in numbers {
            let stamp = self.tier.fences().now();
            let value = NewValue { stamp, expires, ..value(&[7; 100], dependencies) };
            self.key(number, |key| self.tier.put(key, &value)).expect("it is stored");
        }
    }

    /// Returns the statistics of a relation, or those of a relation without changes if it has none.
    fn stats(&self, relation: u32) -> RelationStats {
        let all = self.tier.relation_stats(DATABASE).collect::<Vec<_>>();
        all.into_iter().find(|stats| stats.relation == Some(relation)).unwrap_or_default()
    }

    /// Returns the number of counted entries that a relation has killed.
    fn killed(&self, relation: u32) -> u64 {
        self.stats(relation).killed
    }

    /// Removes all dead entries: there are fewer buckets than the budget.
    fn sweep(&self) {
        self.tier.sweep(100_000);
    }
}

/// Each change of a relation must count once, with the tick of the last one. Aborts, other fences, and relations of other databases
/// must not count.
#[test]
fn changes_are_counted_with_their_time() {
    with_bed(4, |bed| {
        let [one, other] = [7, 8].map(|number| bed.relation(number));
        assert_eq!(bed.tier.relation_stats(DATABASE).collect::<Vec<_>>(), [], "nothing has changed");
        bed.change(one);
        bed.host.now.set(25);
        bed.change(one);
        let expected = RelationStats { relation: Some(7), changes: 2, killed: 0, last_change: 25 };
        assert_eq!(bed.tier.relation_stats(DATABASE).collect::<Vec<_>>(), [expected]);
        // An abort is no change. Changing the relation's bulk fence, a tag or the definitions does not count as
        // another change of the relation.
        bed.tier.fences().raise(other);
        bed.tier.fences().withdraw(other);
        bed.change(bed.tier.fences().claim_fence(DATABASE, 7, RelationFence::Bulk));
        bed.change(bed.tier.fences().tag(7));
        bed.change(bed.tier.fences().reserved(Reserved::Definitions(DATABASE)));
        assert_eq!(bed.tier.relation_stats(DATABASE).collect::<Vec<_>>(), [expected]);
        // A relation of another database may have the same number.
        bed.change(bed.tier.fences().claim_fence(2, 7, RelationFence::Any));
        assert_eq!(bed.tier.relation_stats(DATABASE).collect::<Vec<_>>(), [expected]);
        assert_eq!(
            bed.tier.relation_stats(2).collect::<Vec<_>>(),
            [RelationStats { changes: 1, ..expected }]
        );
    });
}

/// An invalidated entry must count once when it is replaced, removed or swept, and not before. A valid entry that goes in these
/// ways must not count.
#[test]
fn an_invalidated_entry_is_counted_once_however_it_is_removed() {
    with_bed(4, |bed| {
        let table = bed.relation(7);
        bed.put(0..5, 1_000, &[table]);
        bed.put(5..6, 1_000, &[]);
        bed.change(table);
        assert_eq!(bed.killed(7), 0, "nobody has looked at them");
        // Replace the value twice. The second time the replaced value was right, so it must not count.
        bed.put(0..1, 1_000, &[table]);
        bed.put(0..1, 1_000, &[table]);
        assert_eq!(bed.killed(7), 1);
        assert!(!bed.key(1, |key| bed.tier.remove(key)), "it was not right any more");
        assert_eq!(bed.killed(7), 2);
        // A transaction announces and confirms a removal.
        bed.key(2, |key| {
            let removal = bed.tier.reserve_removal(key).expect("there is room");
            bed.tier.announce(key, &removal);
            bed.tier.confirm(key, removal);
        });
        assert_eq!(bed.killed(7), 3);
        let before = bed.tier.counted(Counter::Fenced);
        bed.sweep();
        assert_eq!((bed.killed(7), bed.tier.counted(Counter::Fenced) - before), (5, 2));
        bed.sweep();
        assert_eq!(bed.killed(7), 5);
        // An entry that was right when it was removed was not invalidated by a change.
        bed.key(0, |key| bed.tier.remove(key));
        bed.change(table);
        assert_eq!((bed.killed(7), bed.stats(7).changes), (5, 2));
        assert_eq!(bed.tier.usage().entries, 1);
    });
}

/// An invalidated entry must count if eviction removes it. A valid entry that is evicted must not count.
#[test]
fn an_invalidated_entry_that_is_evicted_is_counted() {
    with_bed(4, |bed| {
        let [one, other] = [7, 8].map(|number| bed.relation(number));
        bed.put(0..300, 1_000, &[one]);
        bed.put(300..400, 1_000, &[one, other]);
        bed.put(400..500, 1_000, &[other]);
        assert_eq!(bed.tier.counted(Counter::Evicted), 0, "there is room for all");
        bed.change(other);
        // Reading the new entries makes eviction keep them, so that older entries must go.
        for number in 10_000..20_000 {
            bed.put(number..number + 1, 1_000, &[]);
            for number in number - 20..=number {
                let _ = bed.key(number, |key| bed.tier.get(key, Stamp::LATEST, &mut Vec::new()));
            }
        }
        assert_eq!(bed.tier.counted(Counter::Fenced), 200);
        assert_eq!((bed.killed(7), bed.killed(8)), (0, 200));
        assert!(bed.tier.counted(Counter::Evicted) > 300);
        assert_eq!(bed.tier.check(), Vec::<String>::new());
    });
}

/// An invalidated entry must count if a quota removes it. A valid entry that the quota evicts must not count.
#[test]
fn an_invalidated_entry_that_a_quota_removes_is_counted() {
    with_bed(4, |bed| {
        let table = bed.relation(7);
        bed.put(0..20, 1_000, &[table]);
        bed.change(table);
        bed.put(20..40, 1_000, &[table]);
        assert!(bed.tier.trim(&bed.tier.scope(DATABASE, 1, 0), 0, 100_000));
        assert_eq!(bed.tier.counted(Counter::EvictedQuota), 20);
        assert_eq!(bed.killed(7), 20);
    });
}

/// The entries belong to seven spaces, and one hold of the lock counts for at most four separately (`figures/deltas.rs`). Each
/// entry must count once all the same.
#[test]
fn entries_of_many_spaces_are_counted_once() {
    with_bed(4, |bed| {
        let table = bed.relation(7);
        for number in 0..300 {
            let scope = bed.tier.scope(DATABASE, number % 7, 0);
            let hash = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let key = Key::new(scope, b"key", hash).expect("a legal key");
            bed.tier
                .put(&key, &NewValue { stamp: bed.tier.fences().now(), ..value(&[7], &[table]) })
                .expect("there is room");
        }
        bed.change(table);
        bed.sweep();
        assert_eq!((bed.killed(7), bed.tier.counted(Counter::Fenced)), (300, 300));
    });
}

/// An entry must count for the first relation among its dependencies that has changed since its stamp. A tag that has changed, too,
/// does not matter, and an entry that only a tag has invalidated must count for no relation.
#[test]
fn an_entry_counts_for_its_first_changed_relation() {
    with_bed(4, |bed| {
        let [one, other] = [7, 8].map(|number| bed.relation(number));
        let tag = bed.tier.fences().tag(7);
        bed.put(0..1, 1_000, &[tag, one, other]);
        bed.change(tag);
        bed.put(0..1, 1_000, &[tag, one, other]);
        assert_eq!((bed.killed(7), bed.killed(8)), (0, 0), "it died of the tag");
        bed.change(tag);
        bed.change(other);
        bed.put(0..1, 1_000, &[tag, one, other]);
        assert_eq!((bed.killed(7), bed.killed(8)), (0, 1));
        bed.change(other);
        bed.change(one);
        bed.put(0..1, 1_000, &[tag, one, other]);
        assert_eq!((bed.killed(7), bed.killed(8)), (1, 1));
    });
}

/// A change at the tick at which an entry expires, or after it, must not count as the reason for its end, however late its memory
/// is reclaimed.
#[test]
fn an_entry_that_had_expired_before_the_change_is_not_counted() {
    with_bed(4, |bed| {
        let table = bed.relation(7);
        bed.put(0..1, 20, &[table]);
        bed.put(1..2, 20, &[table]);
        bed.put(2..3, 21, &[table]);
        bed.put(3..4, 21, &[table]);
        bed.host.now.set(20);
        bed.change(table);
        bed.host.now.set(50);
        bed.put(0..1, 1_000, &[table]);
        bed.put(2..3, 1_000, &[table]);
        assert_eq!(bed.killed(7), 1);
        bed.sweep();
        assert_eq!((bed.killed(7), bed.tier.counted(Counter::Expired)), (2, 2));
    });
}

/// A reset must set the counts of one database to 0, and of no other one. Entries that were invalidated before it and are removed
/// after it must still count.
#[test]
fn a_reset_begins_anew() {
    with_bed(4, |bed| {
        let table = bed.relation(7);
        bed.put(0..2, 1_000, &[table]);
        bed.change(table);
        bed.change(bed.tier.fences().claim_fence(2, 9, RelationFence::Any));
        bed.put(0..1, 1_000, &[table]);
        bed.tier.reset_relation_stats(DATABASE);
        assert_eq!(bed.tier.relation_stats(DATABASE).collect::<Vec<_>>(), []);
        assert_eq!(bed.tier.relation_stats(2).count(), 1, "another database's");
        // These entries were invalidated before the reset and are removed after it.
        bed.sweep();
        let expected = RelationStats { relation: Some(7), changes: 0, killed: 1, last_change: 10 };
        assert_eq!(bed.tier.relation_stats(DATABASE).collect::<Vec<_>>(), [expected]);
        bed.change(table);
        assert_eq!(bed.stats(7).changes, 1);
    });
}

/// With more relations than records, some relations share a record. All shared records together must be one row without a name,
/// which each database sees: the relations may belong to any database.
#[test]
fn shared_records_are_one_row_without_a_name() {
    with_bed(4, |bed| {
        let fences: Vec<_> = (1..=4).map(|number| bed.relation(number)).collect();
        let more = bed.relation(100);
        let shared = fences.iter().position(|fence| *fence == more).expect("it shares one");
        fences.iter().for_each(|fence| bed.change(*fence));
        bed.change(more);
        bed.put(0..3, 1_000, &[more]);
        bed.change(more);
        bed.sweep();
        let stats = bed.tier.relation_stats(DATABASE).collect::<Vec<_>>();
        let mut named: Vec<_> = stats.iter().filter_map(|stats| stats.relation).collect();
        named.sort_unstable();
        let alone: Vec<_> = (1..=4).filter(|number| *number != shared as u32 + 1).collect();
        assert_eq!(named, alone);
        let expected = RelationStats { relation: None, changes: 3, killed: 3, last_change: 10 };
        assert_eq!(stats.last(), Some(&expected));
        assert_eq!(bed.tier.relation_stats(2).collect::<Vec<_>>(), [expected], "they may be of any database");
        bed.tier.reset_relation_stats(2);
        assert_eq!(bed.tier.relation_stats(DATABASE).count(), 3);
    });
    // Without records there are no statistics.
    with_bed(0, |bed| {
        let table = bed.relation(7);
        bed.put(0..1, 1_000, &[table]);
        bed.change(table);
        bed.sweep();
        assert_eq!(bed.tier.relation_stats(DATABASE).collect::<Vec<_>>(), []);
        assert_eq!(bed.tier.counted(Counter::Fenced), 1);
    });
}

/// A reader that misses an invalidated entry must not count it.
#[test]
fn a_reader_counts_no_invalidated_entry() {
    with_bed(4, |bed| {
        let table = bed.relation(7);
        bed.put(0..1, 1_000, &[table]);
        bed.change(table);
        for _ in 0..3 {
            assert!(bed.key(0, |key| bed.tier.get(key, Stamp::LATEST, &mut Vec::new())).is_err());
        }
        assert_eq!(bed.killed(7), 0);
    });
}
