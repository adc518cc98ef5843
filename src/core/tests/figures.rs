//! The figures of the whole tier, read together: each event is counted once, and the figures of a space are those that
//! `space_stats` returns.
//!
//! A *tier* is a cache in memory that several processes share. A *fence* is a word in shared memory that says when a dependency of
//! entries last changed. A *space* is a set of keys in one database. A backend counts for a few spaces at a time, each in a *row*
//! of its own, and *folds* a row into the common counts of its space when another space needs the row (`figures/statistics.rs`).
#![cfg(not(any(loom, counting)))]

use pg_cache_core::testing::{self, TestHost, memory, value};
use pg_cache_core::{
    Counter, Event, FenceId, Glob, Key, NewValue, Operation, Region, RelationFence, Reserved, Sizes, Stamp,
    Tier, bucket_limit_nanos,
};
use std::time::Duration;

/// Room for the fences of a few databases and of more spaces than a backend has rows for.
const SIZES: Sizes = Sizes { reserved_fences: 32, backends: 4, patterns: 4, ..testing::SIZES };

/// The events that invalidations count, in the order of their sources.
const SOURCES: [Event; 7] = [
    Event::ByRelation,
    Event::ByTag,
    Event::ByPattern,
    Event::BySpace,
    Event::ByDatabase,
    Event::ByDefinitions,
    Event::ByRoles,
];

/// Lowers each kind of fence a different number of times. Each source must be counted as often as it happened, whichever backend
/// lowers, and sources that invalidate no entry must not be counted.
#[test]
fn each_invalidation_is_counted_once_by_its_source() {
    let words = memory(2048 * 1024);
    let host = TestHost::default();
    let tiers = [
        Tier::format(Region::of_words(&words), SIZES, &host, 0).expect("it fits"),
        Tier::attach(Region::of_words(&words), &host, 1).expect("it is formatted"),
    ];
    let fences = tiers[0].fences();
    let (database, scope) = (5, tiers[0].scope(5, 1, 0));
    let reserved = |which| fences.reserved(which);
    let lowered: [(FenceId, u64); 10] = [
        (fences.claim_fence(database, 7, RelationFence::Any), 1),
        (fences.claim_fence(database, 7, RelationFence::Bulk), 20),
        (fences.tag_of(database, 9), 20),
        (reserved(Reserved::Space { database, space: 1 }), 4),
        (reserved(Reserved::Database(database)), 5),
        (reserved(Reserved::Definitions(database)), 6),
        (reserved(Reserved::Roles), 7),
        (reserved(Reserved::Watches(database)), 20),
        (reserved(Reserved::Trees(database)), 20),
        (reserved(Reserved::Grants(database)), 20),
    ];
    for (fence, times) in lowered {
        for tier in (0..times).map(|time| &tiers[time as usize % 2]) {
            fences.raise(fence);
            let _ = tier.lower_as(fence, fences.draw());
        }
    }
    tiers[0].count_event(Event::ByTag, 2);
    for tier in [&tiers[0], &tiers[1], &tiers[0]] {
        let pattern = Glob::new(b"a*").expect("a legal pattern");
        let announced = tier.announce_pattern(&scope, pattern).expect("there is a place");
        tier.confirm_pattern(announced, fences.draw());
    }
    // A change that is withdrawn counts for nothing.
    fences.raise(lowered[2].0);
    fences.withdraw(lowered[2].0);
    let figures = tiers[1].figures().expect("there is memory");
    assert_eq!(SOURCES.map(|source| figures.events.counted(source)), [1, 2, 3, 4, 5, 6, 7]);
    tiers[1].count_event(Event::Notified, 8);
    tiers[0].count_event(Event::Notified, 9);
    assert_eq!(tiers[0].figures().expect("there is memory").events.counted(Event::Notified), 17);
}

/// Several backends count for more spaces than a backend has rows for, so that rows are folded. The figures must have each count
/// once, and must not change when the statistics are reset.
#[test]
fn the_figures_have_every_count_of_every_space() {
    let words = memory(2048 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&words), SIZES, &host, 0).expect("it fits");
    let others = [1, 2]
        .map(|backend| Tier::attach(Region::of_words(&words), &host, backend).expect("it is formatted"));
    let spaces = 1..=12;
    for space in spaces.clone() {
        for (number, tier) in others.iter().enumerate() {
            let key = Key::new(tier.scope(1, space, 0), b"key", 42).expect("a legal key");
            let bytes = [1; 100];
            let new = NewValue { stamp: tier.fences().now(), ..value(&bytes, &[]) };
            tier.put(&key, &new).expect("there is room");
            for _ in 0..space * (number as u32 + 1) {
                tier.get(&key, Stamp::LATEST, &mut Vec::new()).expect("it is there");
            }
            tier.count_for_space(key.scope(), Counter::FillTime, 1000);
        }
    }
    let check = |is_reset: bool| {
        let figures = tier.figures().expect("there is memory");
        for space in spaces.clone() {
            let found = figures.of_space(1, space).expect("it has figures");
            let counted = [Counter::Hit, Counter::Stored, Counter::Replaced, Counter::FillTime];
            let counted = counted.map(|what| found.counted(what));
            assert_eq!(counted, [u64::from(space) * 3, 2, 1, 2000], "space {space}");
            let known = tier.space_stats(1, space).expect("it has statistics");
            assert_eq!((found.entries, found.bytes()), (1, known.bytes()));
            assert_eq!(*found == known, !is_reset);
        }
        // The spaces that share a cell come first.
        assert_eq!((figures.spaces().len(), figures.spaces()[0].space), (13, None));
        assert!(figures.of_space(2, 1).is_none());
    };
    check(false);
    tier.reset_all_stats();
    check(true);
}

/// Each time must be in the bucket that it belongs to, and in the sum, of its operation only.
#[test]
fn times_are_counted_by_operation() {
    let words = memory(2048 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&words), SIZES, &host, 0).expect("it fits");
    let other = Tier::attach(Region::of_words(&words), &host, 3).expect("it is formatted");
    for (number, operation) in Operation::ALL.into_iter().enumerate() {
        let took = Duration::from_nanos(bucket_limit_nanos(number).expect("a limit"));
        tier.count_latency(operation, took);
        other.count_latency(operation, took + Duration::from_nanos(1));
    }
    tier.count_latency(Operation::Fill, Duration::MAX);
    let figures = other.figures().expect("there is memory");
    for (number, operation) in Operation::ALL.into_iter().enumerate() {
        let (found, limit) = (figures.histograms.of(operation), bucket_limit_nanos(number).expect("a limit"));
        let is_fill = operation == Operation::Fill;
        assert_eq!((found.buckets[number], found.buckets[number + 1]), (1, 1), "{operation:?}");
        assert_eq!(found.count(), 2 + u64::from(is_fill), "{operation:?}");
        assert_eq!(found.buckets.last(), Some(&u64::from(is_fill)), "{operation:?}");
        assert_eq!(found.sum_nanos == 2 * limit + 1, !is_fill, "{operation:?}");
    }
}

/// Everything that the metrics are made of must be read without the lock of any shard. A hit may need such a lock after writers
/// have disturbed it.
#[test]
fn reading_figures_takes_no_lock() {
    let words = memory(2048 * 1024);
    let host = TestHost::default();
    let sizes = Sizes { locations: 64, journal_lines: 64, ..SIZES };
    let tier = Tier::format(Region::of_words(&words), sizes, &host, 0).expect("it fits");
    let key = Key::new(tier.scope(1, 1, 0), b"key", 42).expect("a legal key");
    tier.put(&key, &value(&[1; 100], &[])).expect("there is room");
    let locks = host.locks.get();
    assert!(locks > 0, "the test sees locks");
    let _ = tier.figures().expect("there is memory");
    let _ = (tier.space_records(), tier.relation_records(), tier.saved_values(), tier.block_bytes());
    let _ = (tier.journal().last(), tier.journal().oldest());
    assert_eq!(host.locks.get(), locks);
}
