//! Unit tests of fences. The rules that they test are in `fence/mod.rs`.
//!
//! A *stamp* is a number of the clock of changes, which each committed change increments. A relation *claims* a *record*, which
//! holds its fences; until then, its writers raise an *unclaimed* fence that relations share. A record is *settled* once no writer
//! can be at work that does not know of it.
//!
//! A reader with a *safe stamp* may not see changes after that stamp. A relation is *marked* when the journal, which tells caches
//! outside of the database what has changed, must name its changes.

use super::{FenceId, Fences, Stamp};
use crate::layout::{Layout, Sizes};
use crate::region::Region;
use crate::testing::{SIZES, memory};
use std::collections::BTreeSet;

/// Runs a test with the fences of a small region: four records of relations, and so one unclaimed fence for all relations.
fn with_fences(test: impl FnOnce(Fences<'_>)) {
    let memory = memory(64 * 1024);
    let sizes = Sizes { bytes: memory.len() * 8, shards: 1, ..SIZES };
    let layout = Layout::of(sizes).expect("it is large enough");
    let region = Region::of_words(&memory);
    layout.format(&region);
    test(Fences::new(region, &layout));
}

/// A fence that tags share costs needless misses. With some seeds, the fast hash function of the caller differs only in a few bits
/// for names like "tag 1" and "tag 2", and half of a thousand such tags shared their fences. If hashes are scattered well, about 8
/// of the 1000 tags share a fence by chance, and about 15 have the fence of a tag of the other database.
#[test]
fn tags_with_similar_hashes_have_different_fences() {
    let memory = memory(1 << 20);
    let sizes = Sizes { bytes: memory.len() * 8, shards: 1, tag_fences: 1 << 16, ..SIZES };
    let layout = Layout::of(sizes).expect("it is large enough");
    let fences = Fences::new(Region::of_words(&memory), &layout);
    for shift in [0, 20, 40, 52] {
        let of =
            |database: u32| (0..1_000_u64).map(move |tag| fences.tag_of(database, tag << shift).number());
        let distinct: BTreeSet<u32> = of(1).collect();
        assert!(distinct.len() > 950, "{} fences, shift {shift}", distinct.len());
        let common = of(2).filter(|fence| distinct.contains(fence)).count();
        assert!(common < 50, "{common} fences of another database, shift {shift}");
    }
}

/// A transaction may publish its value as of its commit only if no other writer has used the fence since the stamp. If lowering
/// reported a shared fence as alone, such a value could miss the other writer's change.
#[test]
fn lowering_tells_whether_the_writer_was_alone() {
    with_fences(|fences| {
        let [mine, shared] = [fences.tag(0), fences.tag(u64::MAX)];
        assert_ne!(mine, shared);
        let stamp = fences.now();
        for fence in [mine, shared, shared] {
            fences.raise(fence);
        }
        let change = fences.draw();
        assert!(stamp < change && change == fences.now(), "drawing moves the clock by one");
        assert!(fences.lower_as(mine, change).was_alone_since(stamp));
        assert!(!fences.lower_as(shared, change).was_alone_since(stamp), "another change was pending");
        assert!(fences.holds(mine, change, Stamp::LATEST), "right as of the own commit");
        assert!(!fences.holds(mine, stamp, Stamp::LATEST), "wrong as of what was before it");
        assert!(!fences.holds(shared, change, Stamp::LATEST), "still pending");
        assert!(
            !fences.lower_as(shared, fences.draw()).was_alone_since(stamp),
            "another change has been since the stamp"
        );
        fences.raise(shared);
        assert!(fences.lower_as(shared, fences.draw()).was_alone_since(Stamp::from_u64(change.as_u64() + 1)));
    });
}

/// Writers may lower a fence in another order than that of their numbers. `seq` must keep the larger number. Lowering a fence that
/// is not raised must not take `pending` below 0, which would subtract from `seq`.
#[test]
fn late_lowering_takes_nothing_back() {
    with_fences(|fences| {
        let fence = fences.tag(0);
        fences.raise(fence);
        fences.raise(fence);
        let (first, second) = (fences.draw(), fences.draw());
        let _ = fences.lower_as(fence, second);
        let _ = fences.lower_as(fence, first);
        assert!(fences.has_changed_since(fence, first) && !fences.has_changed_since(fence, second));
        assert_eq!(fences.pending(fence), 0);
        assert!(!fences.lower_as(fence, second).was_alone_since(second), "nobody had raised it");
        assert_eq!(fences.pending(fence), 0, "and nothing is borrowed from seq");
        assert!(!fences.has_changed_since(fence, second));
    });
}

/// An entry claims a record, and [`Fences::fence_to_raise`] claims none. ([`Fences::claim_fence`] also claims one.) A writer that
/// looked before the claim must be covered: by the unclaimed fence until it has ended, and by the number of claims, which tells it
/// to look again.
#[test]
fn a_relation_has_a_record_once_an_entry_depends_on_it() {
    with_fences(|fences| {
        let (stamp, claims) = (fences.now(), fences.claim_count());
        let unclaimed = fences.fence_to_raise(1, 7);
        assert!(
            !fences.is_of_relation(unclaimed) && unclaimed == fences.fence_to_raise(1, 8),
            "they share one"
        );
        assert_eq!(fences.claim_count(), claims, "to ask for the fence to raise claims nothing");
        // A writer that has found no record is under way. An entry depends on both fences until that writer has ended.
        fences.raise(unclaimed);
        let (record, beside) = fences.dependency_fences(1, 7, stamp);
        assert_eq!(beside, Some(unclaimed));
        assert_ne!(fences.claim_count(), claims, "the writer is told to look again");
        assert_eq!(fences.fence_to_raise(1, 7), record);
        assert_eq!((fences.relation_of(record), fences.relation_of(unclaimed)), (Some((1, 7)), None));
        assert!(fences.is_of_unclaimed(unclaimed) && !fences.is_of_unclaimed(record));
        fences.lower(unclaimed);
        assert_eq!(
            fences.dependency_fences(1, 7, stamp).1,
            Some(unclaimed),
            "older than that writer's change"
        );
        let stamp = fences.now();
        assert_eq!(fences.dependency_fences(1, 7, stamp), (record, None));
        // The record is settled. Entries do not look at the unclaimed fence any more. The record's fence excludes earlier stamps.
        let claims = fences.claim_count();
        fences.raise(unclaimed);
        assert_eq!(fences.dependency_fences(1, 7, stamp), (record, None));
        assert_eq!(fences.dependency_fences(1, 7, Stamp::VOID), (record, None));
        assert_eq!(fences.claim_count(), claims);
        assert!(!fences.holds(record, Stamp::VOID, Stamp::LATEST), "older than the writer's change");
    });
}

/// A value that includes a change must not be served to a reader whose horizon (its safe stamp) is before the change. That also
/// holds if the relation had no record at the time of the change. The test fails if the record's fence does not take over the
/// number of the unclaimed fence and the entry does not depend on the unclaimed fence either. The second half does the same for a
/// relation that shares a record: relations 7 and 1 to 3 have taken all four.
#[test]
fn horizons_from_before_a_claim_hold() {
    with_fences(|fences| {
        let change = |relation| {
            let (horizon, fence) = (fences.now(), fences.fence_to_raise(1, relation));
            fences.raise(fence);
            fences.lower(fence);
            (horizon, fences.now())
        };
        let holds = |(own, unclaimed): (FenceId, Option<FenceId>), stamp, horizon| {
            [Some(own), unclaimed].into_iter().flatten().all(|fence| fences.holds(fence, stamp, horizon))
        };
        let (horizon, stamp) = change(7);
        let settled = fences.dependency_fences(1, 7, stamp);
        assert_eq!(settled.1, None);
        assert!(holds(settled, stamp, Stamp::LATEST) && holds(settled, stamp, stamp));
        assert!(!holds(settled, stamp, horizon));
        (1..=4).for_each(|relation| _ = fences.dependency_fences(1, relation, fences.now()));
        let unclaimed = fences.unclaimed(1, 5);
        let horizon = fences.now();
        fences.raise(unclaimed);
        fences.lower(unclaimed);
        let stamp = fences.now();
        let shared = fences.dependency_fences(1, 5, stamp);
        assert!(holds(shared, stamp, Stamp::LATEST) && !holds(shared, stamp, horizon));
    });
}

/// A shared record was not claimed for all of its relations at once, so its entries must depend on the unclaimed fence while that
/// is raised. If the record counted as settled, the last look would return no unclaimed fence.
#[test]
fn relations_that_share_a_record_are_never_settled() {
    with_fences(|fences| {
        (1..=4).for_each(|relation| _ = fences.dependency_fences(1, relation, fences.now()));
        let (shared, beside) = fences.dependency_fences(1, 5, fences.now());
        assert_eq!((fences.fence_to_raise(1, 5), beside), (shared, None));
        assert_eq!(fences.relation_of(shared), None, "the record is that of several relations");
        let unclaimed = fences.unclaimed(1, 5);
        fences.raise(unclaimed);
        assert_eq!(fences.dependency_fences(1, 5, fences.now()), (shared, Some(unclaimed)));
    });
}

/// Only relations that were marked are named in the journal. A record that several relations share cannot tell which of them has
/// changed, so the answer for it has no name.
#[test]
fn relations_are_named_once_they_are_marked() {
    with_fences(|fences| {
        let (record, _) = fences.dependency_fences(1, 7, fences.now());
        assert_eq!(fences.relation_to_name(record), None);
        assert!(fences.mark_named(1, 7) && !fences.mark_named(1, 7), "the second mark is not new");
        assert_eq!(fences.relation_to_name(record), Some(Some((1, 7))));
        assert_eq!(fences.relation_to_name(fences.tag(1)), None);
        (1..=4).for_each(|relation| _ = fences.mark_named(1, relation));
        let shared = fences.fence_to_raise(1, 4);
        assert_eq!(fences.relation_to_name(shared), Some(None));
        fences.mark_named(1, 8);
        assert!(fences.is_of_relation(fences.fence_to_raise(1, 8)), "a mark claims a record");
    });
}
