//! Tests of entries that depend on single rows of a relation: on the tags of the rows and on the bulk fence
//! (`Fences::row_dependency_fences`). `tests/protocol/bulk.rs` tries every order of the steps.
//!
//! The *record* of a relation holds two fences: the *first fence*, which every writer raises, and the *bulk fence*, which a writer
//! raises unless it has reported all rows that it changes. The record is *marked* once an entry depends on its bulk fence. Writers
//! that find no record raise an *unclaimed* fence that relations share. A record or a mark is *settled* once no writer can be at
//! work that does not know of it. `fence/mod.rs` has the rules. A *tier* is a cache in memory that several processes share.
#![cfg(not(any(loom, counting)))]

use pg_cache_core::testing::{SIZES, TestHost, memory, value};
use pg_cache_core::{FenceId, InvalidBecause, Key, Miss, NewValue, Reader, Region, Sizes, Stamp, Tier};
use std::sync::atomic::{AtomicU64, Ordering};

type TestTier<'t> = Tier<'t, &'t TestHost>;

/// The relation with the rows.
const RELATION: u32 = 7;
/// The bytes of a region.
const BYTES: usize = 256 * 1024;

/// Runs a test on a new tier with this many records, and checks the tier afterwards.
fn with_tier(relation_fences: u32, test: impl FnOnce(&TestTier<'_>)) {
    let (memory, host) = (memory(BYTES), TestHost::default());
    let sizes = Sizes { relation_fences, ..SIZES };
    let tier = Tier::format(Region::of_words(&memory), sizes, &host, 0).expect("it fits");
    test(&tier);
    assert_eq!(tier.check(), Vec::<String>::new());
}

/// Returns the fence of the tag of a row: one of 16.
fn row(tier: &TestTier<'_>, number: u64) -> FenceId {
    tier.fences().tag(number << 60)
}

fn key<'k>(tier: &TestTier<'_>) -> Key<'k> {
    Key::new(tier.scope(1, 1, 0), b"key", 1).expect("a legal key")
}

/// Returns the fences that an entry depends on for rows of a relation, without those of tags.
fn fences_of(tier: &TestTier<'_>, relation: u32, stamp: Stamp) -> Vec<FenceId> {
    let (bulk, more) = tier.fences().row_dependency_fences(1, relation, stamp);
    [Some(bulk)].into_iter().chain(more).flatten().collect()
}

/// Stores an entry with this stamp that depends on row 1 of a relation. Returns the fences without that of the tag.
fn put(tier: &TestTier<'_>, relation: u32, stamp: Stamp) -> Vec<FenceId> {
    let fences = fences_of(tier, relation, stamp);
    let dependencies = [&[row(tier, 1)], fences.as_slice()].concat();
    tier.put(&key(tier), &NewValue { stamp, ..value(b"value", &dependencies) }).expect("it is stored");
    fences
}

/// Reads the key, for a reader that may see all changes.
fn get(tier: &TestTier<'_>) -> Result<(), Miss> {
    get_as_of(tier, Stamp::LATEST)
}

/// Reads the key, for a reader that may not see changes after `safe_stamp`.
fn get_as_of(tier: &TestTier<'_>, safe_stamp: Stamp) -> Result<(), Miss> {
    tier.get(&key(tier), safe_stamp, &mut Vec::new()).map(drop)
}

/// Returns the fences of a writer of a relation that reports these rows: it raises the fences of their tags. Without rows, it
/// reports none.
fn fences_to_raise(tier: &TestTier<'_>, relation: u32, reported: &[u64]) -> Vec<FenceId> {
    let first = tier.fences().fence_to_raise(1, relation);
    let bulk = tier.fences().bulk_fence_to_raise(1, relation).filter(|_| reported.is_empty());
    [first].into_iter().chain(bulk).chain(reported.iter().map(|number| row(tier, *number))).collect()
}

fn raise(tier: &TestTier<'_>, fences: &[FenceId]) {
    fences.iter().for_each(|fence| tier.fences().raise(*fence));
}

fn lower(tier: &TestTier<'_>, fences: &[FenceId]) {
    let change = tier.fences().draw();
    fences.iter().for_each(|fence| _ = tier.lower_as(*fence, change));
}

/// Changes a relation: the reported rows, or any.
fn change(tier: &TestTier<'_>, relation: u32, reported: &[u64]) {
    let fences = fences_to_raise(tier, relation, reported);
    raise(tier, &fences);
    lower(tier, &fences);
}

/// An entry must outlast the changes of other rows if these are reported. It must be invalid after a change of its own row, and
/// after a change that does not report its rows.
#[test]
fn an_entry_outlasts_reported_changes_of_other_rows_only() {
    with_tier(4, |tier| {
        let fences = tier.fences();
        fences.dependency_fences(1, RELATION, fences.now());
        assert_eq!(fences.bulk_fence_to_raise(1, RELATION), None, "no entry depends on single rows");
        let claims = fences.claim_count();
        let bulk = put(tier, RELATION, fences.now());
        assert_ne!(fences.claim_count(), claims, "writers must look again");
        assert_eq!(
            bulk,
            Vec::from_iter(fences.bulk_fence_to_raise(1, RELATION)),
            "nothing but the bulk fence"
        );
        assert!(fences.is_bulk(bulk[0]) && !fences.is_bulk(fences.fence_to_raise(1, RELATION)));
        for reported in [&[2, 3][..], &[1, 2], &[]] {
            let claims = fences.claim_count();
            assert_eq!(put(tier, RELATION, fences.now()), bulk);
            assert_eq!(fences.claim_count(), claims, "the mark is settled, and not new");
            let changes = fences_to_raise(tier, RELATION, reported);
            raise(tier, &changes);
            let expected = if reported == [2, 3] { Ok(()) } else { Err(Miss::Fenced) };
            assert_eq!(get(tier), expected, "{reported:?} may change");
            lower(tier, &changes);
            assert_eq!(get(tier), expected, "{reported:?} has changed");
        }
        let why = tier.why_fenced(&key(tier), Reader::from(Stamp::LATEST));
        assert_eq!(why, Some(InvalidBecause::Changed(bulk[0])));
        assert_eq!(fences.relation_of(bulk[0]), Some((1, RELATION)), "the explanation names the relation");
        assert_eq!(fences.bulk_fence_to_raise(1, 8), None, "other relations are not marked");
    });
}

/// A writer that has looked before the mark does not raise the bulk fence. The entry must depend on the first fence until that
/// writer has ended, and no entry from before its change may be valid after that.
#[test]
fn a_writer_that_looked_before_the_mark_invalidates() {
    with_tier(4, |tier| {
        let fences = tier.fences();
        let before = fences.now();
        fences.dependency_fences(1, RELATION, before);
        let changes = fences_to_raise(tier, RELATION, &[]);
        assert_eq!(changes, [fences.fence_to_raise(1, RELATION)]);
        raise(tier, &changes);
        let both = put(tier, RELATION, before);
        assert_eq!(both[1..], changes, "the writer raises only this one");
        assert_eq!(get(tier), Err(Miss::Fenced), "the writer may commit now");
        lower(tier, &changes);
        assert_eq!(get(tier), Err(Miss::Fenced), "and it has committed");
        // An entry that is computed after that change, from before it, or for a reader from before it.
        let after = fences.now();
        assert_eq!(put(tier, RELATION, before), both[..1], "the mark is settled");
        assert_eq!(get(tier), Err(Miss::Fenced), "the bulk fence has taken over the number");
        assert_eq!(put(tier, RELATION, after), both[..1]);
        assert_eq!((get(tier), get_as_of(tier, before)), (Ok(()), Err(Miss::Fenced)));
    });
}

/// A writer that has looked before the mark and raises its fences after the fill's look must find the mark when it looks again.
#[test]
fn a_writer_that_looks_again_finds_the_mark() {
    with_tier(4, |tier| {
        let fences = tier.fences();
        fences.dependency_fences(1, RELATION, fences.now());
        let (claims, first) = (fences.claim_count(), fences_to_raise(tier, RELATION, &[]));
        let bulk = put(tier, RELATION, fences.now());
        raise(tier, &first);
        assert_eq!(get(tier), Ok(()), "the change is not visible yet");
        assert_ne!(fences.claim_count(), claims);
        assert_eq!(fences_to_raise(tier, RELATION, &[]), [&first[..], &bulk].concat());
        raise(tier, &bulk);
        assert_eq!(get(tier), Err(Miss::Fenced));
        lower(tier, &[first, bulk].concat());
        assert_eq!(get(tier), Err(Miss::Fenced));
    });
}

/// While the record itself is not settled, the mark must not be settled either: the first fence does not have the numbers of the
/// writers that raise the unclaimed fence.
#[test]
fn a_mark_is_settled_after_its_record() {
    with_tier(4, |tier| {
        let fences = tier.fences();
        let before = fences.now();
        let unclaimed = fences_to_raise(tier, RELATION, &[2]);
        raise(tier, &unclaimed);
        let all = put(tier, RELATION, before);
        assert_eq!(all.len(), 3);
        assert_eq!((all[1], all[2]), (unclaimed[0], fences.fence_to_raise(1, RELATION)));
        assert_eq!(get(tier), Err(Miss::Fenced), "it is not known which row that writer changes");
        assert_eq!(put(tier, RELATION, before), all, "a second look finds the same");
        lower(tier, &unclaimed);
        let after = fences.now();
        assert_eq!(put(tier, RELATION, after), all[..1]);
        assert_eq!((get(tier), get_as_of(tier, before)), (Ok(()), Err(Miss::Fenced)));
        change(tier, RELATION, &[2]);
        assert_eq!(get(tier), Ok(()));
    });
}

/// A record that relations share is marked for all of them. The mark may be older than the claim of one of them, so their entries
/// must always depend on the first fence, too.
#[test]
fn entries_of_a_shared_record_depend_on_its_first_fence() {
    with_tier(4, |tier| {
        let fences = tier.fences();
        for owner in 1..=4 {
            assert_eq!(fences_of(tier, owner, fences.now()).len(), 1, "settled at once");
        }
        let unclaimed = fences_to_raise(tier, RELATION, &[]);
        assert!(fences.is_of_unclaimed(unclaimed[0]));
        raise(tier, &unclaimed);
        let shared = put(tier, RELATION, fences.now());
        assert_eq!(shared[1..], [unclaimed[0], fences.fence_to_raise(1, RELATION)]);
        assert_eq!(get(tier), Err(Miss::Fenced), "a writer that looked before the claim");
        lower(tier, &unclaimed);
        assert_eq!(put(tier, RELATION, fences.now()), shared, "no other fence has the number of that writer");
        assert_eq!(get(tier), Ok(()));
        change(tier, RELATION, &[2]);
        assert_eq!(get(tier), Err(Miss::Fenced), "rows do not matter");
        assert_eq!(put(tier, RELATION, fences.now()), [shared[0], shared[2]]);
        assert_eq!(get(tier), Ok(()));
        // The owner of the record has the same dependencies from now on.
        let owner = (1..=4).find(|owner| fences.fence_to_raise(1, *owner) == shared[2]).expect("one of them");
        put(tier, owner, fences.now());
        assert_eq!(get(tier), Ok(()));
        change(tier, owner, &[]);
        assert_eq!(get(tier), Err(Miss::Fenced));
    });
}

/// Without records, an entry depends on all rows of the relation, by the fence that every writer raises.
#[test]
fn without_records_every_change_invalidates() {
    with_tier(0, |tier| {
        let fences = tier.fences();
        assert_eq!(put(tier, RELATION, fences.now()), [fences.fence_to_raise(1, RELATION)]);
        assert_eq!((get(tier), fences.bulk_fence_to_raise(1, RELATION)), (Ok(()), None));
        change(tier, RELATION, &[2]);
        assert_eq!(get(tier), Err(Miss::Fenced));
    });
}

/// Copies a region, as a restart does, and runs a test on the copy.
fn with_revived(before: &[AtomicU64], test: impl FnOnce(&TestTier<'_>)) {
    let after: Vec<_> = before.iter().map(|word| AtomicU64::new(word.load(Ordering::Relaxed))).collect();
    let host = TestHost::default();
    let tier = Tier::revive(Region::of_words(&after), SIZES, &host, []).expect("it is sound");
    test(&tier);
    assert_eq!(tier.check(), Vec::<String>::new());
}

/// After a restart, an entry that depends on the bulk fence alone must still outlast reported changes of other rows, and must be
/// invalid after any other change: its record must not be given back, and must still be marked. A record that is given back must
/// not be marked any more.
#[test]
fn marks_survive_a_restart() {
    let (before, host) = (memory(BYTES), TestHost::default());
    let tier = Tier::format(Region::of_words(&before), SIZES, &host, 0).expect("it fits");
    let bulk = put(&tier, RELATION, tier.fences().now());
    assert_eq!(bulk.len(), 1);
    for reported in [&[1][..], &[]] {
        with_revived(&before, |revived| {
            assert_eq!(revived.fences().bulk_fence_to_raise(1, RELATION), Some(bulk[0]));
            assert_eq!(get(revived), Ok(()));
            change(revived, RELATION, &[2]);
            assert_eq!(get(revived), Ok(()));
            change(revived, RELATION, reported);
            assert_eq!(get(revived), Err(Miss::Fenced), "{reported:?}");
        });
    }
    // All records are taken, so those without entries are given back, except where a search for a relation passes them.
    (1..=3).for_each(|other| assert_eq!(fences_of(&tier, other, tier.fences().now()).len(), 1));
    with_revived(&before, |revived| {
        let fences = revived.fences();
        assert_eq!((fences.bulk_fence_to_raise(1, RELATION), get(revived)), (Some(bulk[0]), Ok(())));
        for other in 1..=3 {
            let is_given_back = fences.is_of_unclaimed(fences.fence_to_raise(1, other));
            assert_eq!(fences.bulk_fence_to_raise(1, other).is_none(), is_given_back, "{other}");
        }
        assert!((1..=3).any(|other| fences.bulk_fence_to_raise(1, other).is_none()), "none is given back");
        change(revived, RELATION, &[]);
        assert_eq!(get(revived), Err(Miss::Fenced));
    });
}

/// A writer that looked before the mark may have been about to commit when the server stopped, so its change counts as committed.
#[test]
fn a_writer_under_way_at_a_restart_invalidates() {
    let (before, host) = (memory(BYTES), TestHost::default());
    let tier = Tier::format(Region::of_words(&before), SIZES, &host, 0).expect("it fits");
    tier.fences().dependency_fences(1, RELATION, tier.fences().now());
    let changes = fences_to_raise(&tier, RELATION, &[]);
    raise(&tier, &changes);
    let stamp = tier.fences().now();
    let both = put(&tier, RELATION, stamp);
    assert_eq!(both[1..], changes);
    with_revived(&before, |revived| {
        assert_eq!(get(revived), Err(Miss::Fenced));
        // The mark is not settled yet. The number of that change must not be lost when it is.
        assert_eq!(put(revived, RELATION, stamp), both[..1]);
        assert_eq!(get(revived), Err(Miss::Fenced));
        assert_eq!(put(revived, RELATION, revived.fences().now()), both[..1]);
        assert_eq!(get(revived), Ok(()));
    });
}
