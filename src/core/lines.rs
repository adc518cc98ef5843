//! Tests of the cache-line layout: a word that is often written must not share its line with words that other processes read.
//!
//! Most tests change a fence or the clock of changes and look which word of the *region*, the shared memory, has changed. So they
//! test the real position of a word, not the position that the layout intends.
//!
//! A *fence* is a word that says when a dependency of values last changed; it is *reserved* if it is that of a database or a space.
//! The *record* of a relation holds its fences (`fence/mod.rs`).

use crate::fence::{FenceId, RelationFence, Reserved, Stamp};
use crate::key::Key;
use crate::layout::{CELL_WORDS, LINE, Layout, SLOT_WORDS, Sizes};
use crate::region::Region;
use crate::testing::{SIZES, TestHost, memory, value};
use crate::tier::Tier;
use crate::value::NewValue;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

const REGION_WORDS: usize = 128 * 1024 / 8;

/// Sizes that do not fill whole cache lines, and some that do. The next part of the region must begin on a line in every case.
fn sizes() -> impl Iterator<Item = Sizes> {
    let numbers = [0, 1, 5, 8];
    numbers.into_iter().flat_map(move |reserved| {
        numbers.into_iter().flat_map(move |relations| {
            [1, 7, 8].into_iter().map(move |others| Sizes {
                bytes: REGION_WORDS * 8,
                reserved_fences: reserved,
                relation_fences: relations,
                tag_fences: others,
                backends: others,
                shards: 1 + others % 3,
                locations: others % 100,
                journal_lines: others % 3 * 5,
                patterns: others % 4,
            })
        })
    })
}

/// Runs a test with a new tier, and with a function that makes a change and returns the positions of the words that have changed.
fn with_tier(sizes: Sizes, test: impl FnOnce(&Tier<'_, &TestHost>, &dyn Fn(&dyn Fn()) -> Vec<usize>)) {
    let words = memory(REGION_WORDS * 8);
    let host = TestHost::default();
    // A tick of 0 would be no change of the words that hold ticks.
    host.now.set(1);
    let tier = Tier::format(Region::of_words(&words), sizes, &host, 0).expect("it fits");
    let content = || words.iter().map(|word| word.load(Relaxed)).collect::<Vec<_>>();
    let moved = |action: &dyn Fn()| {
        let before = content();
        action();
        let after = content();
        (0..REGION_WORDS).filter(|at| before[*at] != after[*at]).collect()
    };
    test(&tier, &moved);
}

/// Every read checks the fences of its database and space. Each commit that writes another word of the same line would slow the
/// reads down. Fails if two reserved fences, or a reserved and another fence, share a line.
#[test]
fn a_reserved_fence_has_a_line_for_itself() {
    for sizes in sizes() {
        with_tier(sizes, |tier, moved| {
            let fences = tier.fences();
            let line_of = |fence: FenceId| {
                let [at] = moved(&|| fences.raise(fence))[..] else { panic!("a fence is one word") };
                at / LINE
            };
            let lines: Vec<usize> = fences.all_fences().map(line_of).collect();
            // Each has its pattern fence beside it.
            let (reserved, others) = lines.split_at(2 * sizes.reserved_fences as usize);
            let distinct: BTreeSet<usize> = reserved.iter().copied().collect();
            assert_eq!(2 * distinct.len(), reserved.len(), "{sizes:?}: two on one line");
            assert!(others.iter().all(|line| !distinct.contains(line)), "{sizes:?}: one beside others");
            // All fences lie between the header and the statistics.
            let header = tier.layout.reserved_at / LINE;
            let behind = tier.layout.slots_at / LINE;
            assert!(lines.iter().all(|line| (header..behind).contains(line)), "{sizes:?}");
        });
    }
}

/// The mark of a reserved fence must stand on the line of the fence, because a caller that looks up the mark then uses the fence.
#[test]
fn a_reserved_fence_lies_beside_its_identity() {
    with_tier(SIZES, |tier, moved| {
        let fences = tier.fences();
        let written = moved(&|| {
            let fence = fences.reserved(Reserved::Database(7));
            assert!((fence.0 as usize) < tier.layout.relations_at, "it has one of its own");
            fences.raise(fence);
        });
        let [identity, fence] = written[..] else { panic!("{written:?}") };
        assert_eq!(identity / LINE, fence / LINE);
    });
}

/// Each relation's record must have a line for itself. Looks at all words of the record that are written when the relation changes
/// and when an invalidated entry is removed: the identity, two fences, and three figures. Fails if they are not on one line, or if
/// two relations share it.
#[test]
fn a_relation_has_a_line_for_itself() {
    for sizes in sizes() {
        with_tier(sizes, |tier, moved| {
            let fences = tier.fences();
            let is_of_record = |at: &usize| (tier.layout.relations_at..tier.layout.unclaimed_at).contains(at);
            let mut lines = BTreeSet::new();
            for number in 0..sizes.relation_fences {
                let change = || {
                    let [any, bulk] = [RelationFence::Any, RelationFence::Bulk]
                        .map(|which| fences.claim_fence(1, number, which));
                    let scope = tier.scope(1, 1, 0);
                    let bytes = number.to_le_bytes();
                    let key = Key::new(scope, &bytes, 1).expect("a legal key");
                    let dependencies = [any, bulk];
                    let value = NewValue { stamp: fences.now(), ..value(&[1; 10], &dependencies) };
                    tier.put(&key, &value).expect("there is room");
                    for fence in [any, bulk] {
                        fences.raise(fence);
                        let _ = tier.lower_as(fence, fences.draw());
                    }
                    tier.remove(&key);
                };
                let written: Vec<usize> = moved(&change).into_iter().filter(is_of_record).collect();
                assert_eq!(written.len(), 6, "{sizes:?}: {written:?}");
                let of_record: BTreeSet<usize> = written.iter().map(|at| at / LINE).collect();
                assert_eq!(of_record.len(), 1, "{sizes:?}: {written:?}");
                assert!(lines.insert(written[0] / LINE), "{sizes:?}: two relations on one line");
            }
            let tag = moved(&|| fences.raise(fences.tag(0)));
            assert!(!lines.contains(&(tag[0] / LINE)), "{sizes:?}: a tag beside a relation");
        });
    }
}

/// Every committing writer moves the clock, so nothing else may lie on its line. Fails if another operation writes to the line, or
/// if a part of the region begins there.
#[test]
fn the_clock_has_a_line_for_itself() {
    for sizes in sizes() {
        with_tier(sizes, |tier, moved| {
            let fences = tier.fences();
            let tag = fences.tag(0);
            fences.raise(tag);
            let by_committing = moved(&|| fences.lower(tag));
            let [clock, _tag] = by_committing[..] else { panic!("{by_committing:?}") };
            let line = clock / LINE * LINE..clock / LINE * LINE + LINE;
            assert!(!line.contains(&0), "the magic is on it");
            assert!(line.end <= tier.layout.reserved_at, "a part of the region begins on it");
            // Only a commit writes on the clock's line. The words that a backend reads when it attaches stand on other lines.
            let by_others = moved(&|| everything(tier));
            assert!(!by_others.is_empty());
            let intruder = by_others.iter().find(|at| line.contains(at));
            assert_eq!(intruder, None, "{sizes:?}: word {clock} is the clock");
            let region = tier.region;
            assert!(line.filter(|at| *at != clock).all(|at| region.load(at) == 0), "{sizes:?}");
        });
    }
}

/// Stores and reads more entries than fit, and sweeps: operations that must not move the clock.
fn everything(tier: &Tier<'_, &TestHost>) {
    let scope = tier.scope(1, 1, 0);
    for number in 0..200u64 {
        let bytes = number.to_le_bytes();
        // Any hash will do that differs between the keys.
        let key = Key::new(scope, &bytes, number << 40).expect("a legal key");
        let value = NewValue { stamp: tier.fences().now(), expires: 2, ..value(&[1; 300], &[]) };
        tier.put(&key, &value).expect("there is room, or an entry can be evicted");
        tier.get(&key, Stamp::LATEST, &mut Vec::new()).expect("it was just stored");
    }
    tier.sweep(1000);
}

/// The slots of backends, the cells of spaces and the shards must each begin on a line of their own: if two of them shared a line,
/// writers of one would slow down those of the other. Fails if a size does not fill whole lines and the next part begins where it
/// ends.
#[test]
fn slots_and_shards_begin_on_lines() {
    for sizes in sizes() {
        let layout = Layout::of(sizes).expect("it fits");
        let slot = |index: u32| layout.slots_at + index as usize * SLOT_WORDS;
        for index in 0..layout.sizes.backends {
            assert!(slot(index).is_multiple_of(LINE), "{sizes:?}: slot {index}");
        }
        assert!(slot(layout.sizes.backends) <= layout.cells_at, "{sizes:?}: slots reach into cells");
        let cell = |index: u32| layout.cells_at + index as usize * CELL_WORDS;
        for index in 0..layout.cells() {
            assert!(cell(index).is_multiple_of(LINE), "{sizes:?}: cell {index}");
        }
        assert!(cell(layout.cells()) <= layout.zone_at(0), "{sizes:?}: cells reach into zones");
        for index in 0..layout.shards {
            assert!(layout.shard_at(index).is_multiple_of(LINE), "{sizes:?}: shard {index}");
        }
        // The parts that readers look at without a lock must not share a line with the parts that are written under it.
        for part in [layout.zone_at(0), layout.bitmap_at, layout.block_at(layout.first_block(0))] {
            assert!(part.is_multiple_of(LINE), "{sizes:?}: {part}");
        }
    }
    assert_eq!(Region::ALIGNMENT, LINE * 8);
}
