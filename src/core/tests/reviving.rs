//! Tests of regions that are copied byte by byte and then used again, as at a restart of the server (`tier/reviving.rs` has the
//! rules). `tests/model.rs` restarts at random moments, too.
//!
//! A *fence* is a word in shared memory that says when a dependency of entries last changed. A *shard* is a part of the tier with a
//! lock of its own. An *announced* change of a key hides the key's value until the change is confirmed (`tier/publishing.rs`). The
//! *region* is the memory of the tier, in words of 64 bits.
#![cfg(not(any(loom, counting)))]

// This test uses only the damage functions and the number of cases of the harness.
#[allow(dead_code)]
mod harness;

use harness::damage::{LIVED_IN, every_operation, lived_in, scribble};
use pg_cache_core::testing::{SIZES, TestHost, memory, owner, value};
use pg_cache_core::{
    Acquired, FenceId, FlightRequest, Key, Miss, NewValue, Region, RegionError, RelationFence, ReviveError,
    Scope, Sizes, Stamp, Tier,
};
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

type TestTier<'m> = Tier<'m, &'m TestHost>;

/// The size of most regions of these tests.
const BYTES: usize = 256 * 1024;

/// Copies the words of a region, as a file would.
fn copy(memory: &[AtomicU64]) -> Vec<AtomicU64> {
    memory.iter().map(|word| AtomicU64::new(word.load(Ordering::Relaxed))).collect()
}

/// Revives a region of the usual sizes for one backend, with no fence that will be raised again.
fn revive<'m>(memory: &'m [AtomicU64], host: &'m TestHost) -> Result<TestTier<'m>, ReviveError> {
    Tier::revive(Region::of_words(memory), SIZES, host, [])
}

/// Returns the key of a number. The factor, 2^64 divided by the golden ratio, spreads consecutive numbers over all hashes.
fn key(scope: Scope, number: u32, bytes: &[u8; 4]) -> Key<'_> {
    Key::new(scope, bytes, u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15)).expect("a legal key")
}

fn with_key<T>(tier: &TestTier<'_>, number: u32, use_key: impl FnOnce(&Key<'_>) -> T) -> T {
    use_key(&key(tier.scope(1, 1, 0), number, &number.to_le_bytes()))
}

/// Stores a value as of now.
fn put(tier: &TestTier<'_>, number: u32, dependencies: &[FenceId]) {
    let stamp = tier.fences().now();
    let new = NewValue { stamp, ..value(&[7; 100], dependencies) };
    with_key(tier, number, |key| tier.put(key, &new)).expect("it is stored");
}

fn get(tier: &TestTier<'_>, number: u32) -> Result<(), Miss> {
    with_key(tier, number, |key| tier.get(key, Stamp::LATEST, &mut Vec::new()).map(drop))
}

/// Changes a dependency, and commits.
fn change(tier: &TestTier<'_>, fence: FenceId) {
    tier.fences().raise(fence);
    tier.fences().lower(fence);
}

/// Valid entries must stay hits, and changed ones misses. A raised fence must count as changed, and an announced change as
/// committed. Reservations and leases must be gone, and the blocks of reservations free.
#[test]
fn entries_and_invalidations_survive_and_unfinished_work_does_not() {
    let (before, host) = (memory(BYTES), TestHost::default());
    let tier = Tier::format(Region::of_words(&before), SIZES, &host, 0).expect("it fits");
    let tag = |number: u64| tier.fences().tag(number << 60);
    let [quiet, changed, raised] = [1, 5, 9].map(tag);
    for (number, tag) in (1..).zip([quiet, changed, raised]) {
        put(&tier, number, &[tag]);
    }
    (4..7).for_each(|number| put(&tier, number, &[]));
    change(&tier, changed);
    tier.fences().raise(raised);
    let used = tier.usage().used_bytes;
    let reserved = with_key(&tier, 7, |key| tier.reserve(key, &value(&[1; 900], &[]), Default::default()));
    let announced = with_key(&tier, 4, |key| {
        let reservation =
            tier.reserve(key, &value(&[1; 500], &[]), Default::default()).expect("there is room");
        tier.announce(key, &reservation);
        reservation
    });
    let lease = with_key(&tier, 8, |key| tier.acquire(key, FlightRequest::lease(owner(1), 50)));
    assert!(reserved.is_ok() && matches!(lease, Acquired::Lead(_)));
    let after = copy(&before);
    let revived = revive(&after, &host).expect("it is sound");
    let answers: Vec<_> = (1..7).map(|number| get(&revived, number)).collect();
    assert_eq!(answers, [Ok(()), Err(Miss::Fenced), Err(Miss::Fenced), Err(Miss::Absent), Ok(()), Ok(())]);
    let usage = revived.usage();
    assert_eq!((usage.entries, usage.announced, usage.flights), (5, 0, 0));
    assert!(usage.used_bytes < used, "{} of {used} bytes are in use", usage.used_bytes);
    assert_eq!(revived.check(), Vec::<String>::new());
    // The changes after the restart are later than those before it.
    put(&revived, 1, &[changed, raised]);
    assert_eq!(get(&revived, 1), Ok(()));
    change(&revived, raised);
    assert_eq!(get(&revived, 1), Err(Miss::Fenced));
    // In the old region, the announcement still stands.
    with_key(&tier, 4, |key| tier.withdraw(key, announced));
}

/// A region must be refused if it has other sizes than the caller wants, if it was cut, or if one of its shards is switched off.
#[test]
fn a_region_of_other_sizes_or_with_a_shard_switched_off_is_refused() {
    let (memory, host) = (memory(48 * 1024), TestHost::default());
    lived_in(&memory, &host);
    let with = |sizes| Tier::revive(Region::of_words(&memory), sizes, &host, []).map(drop);
    for sizes in [
        Sizes { tag_fences: 17, ..LIVED_IN },
        Sizes { backends: 2, ..LIVED_IN },
        Sizes { relation_fences: 3, ..LIVED_IN },
        Sizes { reserved_fences: 5, ..LIVED_IN },
        Sizes { shards: 1, ..LIVED_IN },
    ] {
        assert_eq!(with(sizes), Err(ReviveError::OtherSizes), "{sizes:?}");
    }
    assert_eq!(with(LIVED_IN), Ok(()));
    let part = Region::of_words(&memory[..memory.len() - 8]);
    let shorter = Tier::revive(part, LIVED_IN, &host, []).map(drop);
    assert_eq!(shorter, Err(ReviveError::Region(RegionError::Damaged)));
    // Bit 63 of a shard's version switches the shard off. The versions are found by setting that bit in one word after the other:
    // as many words as there are shards must make the region refused as `Off`.
    let versions = memory.iter().filter(|word| {
        let old = word.fetch_or(1 << 63, Ordering::Relaxed);
        let is_off = with(LIVED_IN) == Err(ReviveError::Off);
        word.store(old, Ordering::Relaxed);
        is_off
    });
    assert_eq!(versions.count(), LIVED_IN.shards as usize);
}

/// The table of records fills up with relations that no entry depends on any more. A restart must give their records back: if it
/// does not, later relations find no records of their own. The entries of other relations must still see the changes of their
/// relations: otherwise a read after a change is a hit.
#[test]
fn records_of_relations_without_entries_are_given_back() {
    const RECORDS: u32 = 256;
    let sizes = Sizes { relation_fences: RECORDS, ..SIZES };
    for relations in [RECORDS / 3, RECORDS - 8, RECORDS * 2] {
        let (mut before, host) = (memory(BYTES), TestHost::default());
        Tier::format(Region::of_words(&before), sizes, &host, 0).expect("it fits");
        for restart in 0..6 {
            let after = copy(&before);
            let tier = Tier::revive(Region::of_words(&after), sizes, &host, []).expect("it is sound");
            let relations = restart * 1_000..restart * 1_000 + relations;
            for relation in relations.clone() {
                let stamp = tier.fences().now();
                let (own, beside) = tier.fences().dependency_fences(1, relation, stamp);
                let dependencies: Vec<_> = [own].into_iter().chain(beside).collect();
                // One relation in seven keeps its entry. The others store under one key, one after the other.
                put(&tier, if relation % 7 == 0 { relation } else { u32::MAX }, &dependencies);
            }
            let count = relations.len() as u32;
            // The relations of this round and of the one before.
            let rounds = u32::saturating_sub(restart, 1)..=restart;
            for relation in rounds.flat_map(|round| round * 1_000..round * 1_000 + count) {
                if get(&tier, relation).is_ok() {
                    change(&tier, tier.fences().fence_to_raise(1, relation));
                    assert_eq!(get(&tier, relation), Err(Miss::Fenced), "{relation} after restart {restart}");
                    with_key(&tier, relation, |key| tier.remove(key));
                }
                if relations.contains(&relation) && relation % 7 == 0 {
                    let (own, beside) = tier.fences().dependency_fences(1, relation, tier.fences().now());
                    put(&tier, relation, &[own].into_iter().chain(beside).collect::<Vec<_>>());
                }
            }
            assert_eq!(tier.check(), Vec::<String>::new());
            let has_own = |relation: &u32| {
                tier.fences().relation_of(tier.fences().fence_to_raise(1, *relation)) == Some((1, *relation))
            };
            // With a third as many relations as records, at least half of the relations must have records of their own.
            let own = relations.clone().filter(has_own).count();
            assert!(
                own * 2 >= relations.len() || relations.len() > RECORDS as usize / 3,
                "only {own} have records"
            );
            before = copy(&after);
        }
    }
}

/// Values that are saved outside of the region may depend on relations that no entry depends on. They must not be valid
/// afterwards, because a writer may not find the record of the relation any more.
#[test]
fn saved_values_of_relations_without_entries_are_not_valid_after_a_restart() {
    // The record of the relation that has an entry is kept, and so are the records that a search for it passes. The values of the
    // passed relations must not be valid either.
    for with_entry in 0..4 {
        let (before, host) = (memory(BYTES), TestHost::default());
        let tier = Tier::format(Region::of_words(&before), SIZES, &host, 0).expect("it fits");
        let fences = (1..=4).map(|relation| tier.fences().claim_fence(1, relation, RelationFence::Any));
        let fences: Vec<_> = fences.collect();
        let stamp = tier.fences().now();
        let key = Key::new(tier.scope(1, 1, 0), b"key", 1).expect("a legal key");
        let new = NewValue { stamp, ..value(b"value", &fences[with_entry..=with_entry]) };
        tier.put(&key, &new).expect("it is stored");
        let after = copy(&before);
        let revived = Tier::revive(Region::of_words(&after), SIZES, &host, []).expect("it is sound");
        let is_valid = |fence: &&FenceId| !revived.fences().has_changed_since(**fence, stamp);
        let valid: Vec<_> = fences.iter().filter(is_valid).collect();
        assert_eq!(valid, [&fences[with_entry]]);
    }
}

/// A fence that a prepared transaction is going to raise again must stay the fence of its relation: otherwise its commit would
/// invalidate the entries of another relation.
#[test]
fn records_of_raised_fences_are_not_given_back() {
    let (before, host) = (memory(BYTES), TestHost::default());
    let tier = Tier::format(Region::of_words(&before), SIZES, &host, 0).expect("it fits");
    let fences = (1..=4).map(|relation| tier.fences().claim_fence(1, relation, RelationFence::Any));
    let fences: Vec<_> = fences.collect();
    let after = copy(&before);
    let revived = Tier::revive(Region::of_words(&after), SIZES, &host, [fences[2]]).expect("it is sound");
    assert_eq!(revived.fences().relation_of(fences[2]), Some((1, 3)));
    assert_eq!(revived.fences().fence_to_raise(1, 3), fences[2]);
    assert!(fences.iter().any(|fence| revived.fences().relation_of(*fence).is_none()), "none is given back");
}

/// The parts that `is_in_use` names, here of 1 KB, must be enough to revive all entries. In a region with few entries they must be
/// less than a quarter of it.
#[test]
fn only_parts_with_entries_need_to_be_copied() {
    let (before, host) = (memory(BYTES), TestHost::default());
    let tier = Tier::format(Region::of_words(&before), SIZES, &host, 0).expect("it fits");
    (1..20).for_each(|number| put(&tier, number, &[]));
    let part = 1024;
    let after: Vec<_> = (0..BYTES / 8).map(|_| AtomicU64::new(0)).collect();
    let mut copied = 0;
    for at in (0..BYTES).step_by(part).filter(|at| tier.is_in_use(*at..at + part)) {
        copied += part;
        for word in at / 8..(at + part) / 8 {
            after[word].store(before[word].load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
    assert!(copied < BYTES / 4, "{copied} bytes of {BYTES} are copied");
    let revived = revive(&after, &host).expect("it is sound");
    (1..20).for_each(|number| assert_eq!(get(&revived, number), Ok(())));
}

proptest! {
    #![proptest_config(harness::cases(300))]

    /// With any content of the memory, the attempt must end. A region that it accepts must pass the check, and every operation on
    /// it must end.
    #[test]
    fn a_damaged_region_is_refused_or_can_be_used(
        scribbles in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>(), 0u8..5), 0..6),
    ) {
        let memory = memory(48 * 1024);
        let host = TestHost::default();
        host.now.set(1);
        let tier = lived_in(&memory, &host);
        for number in 0..9 {
            with_key(&tier, number, |key| {
                if let Ok(reservation) = tier.reserve(key, &value(&[1; 300], &[]), Default::default()) {
                    tier.announce(key, &reservation);
                }
            });
        }
        for (place, bits, how) in scribbles {
            scribble(&memory, place.index(memory.len()), how, bits);
        }
        if let Ok(revived) = revive(&memory, &host) {
            prop_assert_eq!(revived.check(), Vec::<String>::new());
            every_operation(&revived, 1);
        }
    }
}
