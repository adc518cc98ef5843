//! The fences of a real tier beside those of the models `read_rule.rs` and `set_and_fence.rs`, which explain the actors and their
//! steps; `fence/mod.rs` of the core has the protocol. A *path* is a list of steps, each with the model's state after it. A
//! *variant* is a model with one rule broken; these tests take the models as built.
//!
//! A *stamp* is a number of the clock of changes, which each committed change increments. A reader with a *safe stamp* may not see
//! changes after that stamp. A *tier* is a cache in memory that several processes share. A *fence* is a word in shared memory that
//! says when a dependency of entries last changed.

use pg_cache_core::{FenceId, Fences, Stamp};

use super::tier::with_tier;
use super::walk::walk;
use crate::memory::{Fence, LATEST};
use crate::read_rule::{self, Fill, ReadRule, Write};
use crate::reader::{Outcome, Read, Reader};
use crate::set_and_fence::{self, Act, SetAndFence};

/// Converts a number of a model to a stamp of the code. A model's clock begins at 0, like the clock of a new region.
fn moment(number: u8) -> Stamp {
    if number == LATEST { Stamp::LATEST } else { Stamp::from_u64(number.into()) }
}

/// Returns the tag fence that stands for a fence of a model. The tier has 16 tag fences, and the highest four bits of
/// the hash select one, so different numbers below 16 get different fences.
fn tag(fences: &Fences<'_>, number: usize) -> FenceId {
    fences.tag((number as u64) << 60)
}

/// Asserts that the clock and the fences of the tier are as in the model. The code shows no `seq`, so two questions enclose it.
fn same_fences(fences: &Fences<'_>, now: u8, expected: &[Fence]) {
    assert_eq!(fences.now(), moment(now));
    for (number, expected) in expected.iter().enumerate() {
        let fence = tag(fences, number);
        assert_eq!(fences.pending(fence), u64::from(expected.pending), "fence {number}");
        assert!(
            !fences.has_changed_since(fence, moment(expected.seq)),
            "fence {number} is beyond {expected:?}"
        );
        let before = expected.seq.checked_sub(1);
        assert!(
            before.is_none_or(|before| fences.has_changed_since(fence, moment(before))),
            "fence {number}: {expected:?}"
        );
    }
}

/// Takes a reader's step with the tier, for an entry with this stamp, and compares the result with the model's.
fn same_reading(fences: &Fences<'_>, step: Read, stamp: u8, now: u8, after: &Reader) {
    match step {
        // The reader takes its safe stamp from the clock.
        Read::Horizon => assert_eq!(fences.now(), moment(now)),
        Read::Check(fence) => {
            let missed = matches!(after.outcome, Some(Outcome::Miss | Outcome::MissForNothing));
            let holds = fences.holds(tag(fences, fence), moment(stamp), moment(after.safe_stamp));
            assert_eq!(holds, !missed, "{after:?}");
        }
        _ => {}
    }
}

/// Takes a path of the read rule with the fences of a new tier. Panics if an answer or the last state differs from the model's.
fn replay_read_rule(path: &[(read_rule::Step, read_rule::State)]) {
    with_tier(|tier| {
        let fences = tier.fences();
        for (step, after) in path {
            match *step {
                read_rule::Step::Writer(number, write) => {
                    let number = after.writers[number].number;
                    match write {
                        Write::Raise(fence) => fences.raise(tag(&fences, fence)),
                        Write::Draw => assert_eq!(fences.draw(), moment(number)),
                        Write::Lower(fence) => {
                            let _ = fences.lower_as(tag(&fences, fence), moment(number));
                        }
                        Write::Withdraw(fence) => fences.withdraw(tag(&fences, fence)),
                        Write::Show | Write::Send | Write::Abort => {}
                        other => unreachable!("{other:?} is of a variant"),
                    }
                }
                read_rule::Step::Filler(number, Fill::Stamp) => {
                    assert_eq!(fences.now(), moment(after.fillers[number].stamp));
                }
                read_rule::Step::Filler(..) => {}
                read_rule::Step::Reader(number, read) => {
                    let reader = &after.readers[number];
                    let stamp = reader.found.map_or(0, |found| after.fillers[usize::from(found)].stamp);
                    same_reading(&fences, read, stamp, after.now, reader);
                }
            }
        }
        if let Some((_, state)) = path.last() {
            same_fences(&fences, state.now, &state.fences);
        }
    });
}

/// Takes a path of transactions that set values and change dependencies, with the fences of a new tier. Panics if an answer or the
/// last state differs from the model's.
fn replay_set_and_fence(
    model: &SetAndFence,
    start: &set_and_fence::State,
    path: &[(set_and_fence::Step, set_and_fence::State)],
) {
    with_tier(|tier| {
        let fences = tier.fences();
        let mut before = start;
        for (step, after) in path {
            match *step {
                set_and_fence::Step::Transaction(number, act) => {
                    let (was, one) = (&before.transactions[number], &after.transactions[number]);
                    let judged = |fine: bool| assert_eq!(was.dropped || !fine, one.dropped, "{step:?}");
                    match act {
                        Act::Stamp => assert_eq!(fences.now(), moment(one.stamp)),
                        Act::Raise(fence) => fences.raise(tag(&fences, fence)),
                        Act::Draw => assert_eq!(fences.draw(), moment(one.number)),
                        Act::Lower(fence) => {
                            let lowered = fences.lower_as(tag(&fences, fence), moment(one.number));
                            if model.depends_on(fence) {
                                judged(lowered.was_alone_since(moment(one.stamp)));
                            }
                        }
                        Act::Look(fence) => {
                            judged(fences.holds(tag(&fences, fence), moment(one.stamp), Stamp::LATEST));
                        }
                        Act::Withdraw(fence) => fences.withdraw(tag(&fences, fence)),
                        Act::Compute(_) | Act::Show | Act::Publish | Act::Abort => {}
                        Act::LookAtOwn(_) => unreachable!("{act:?} is of a variant"),
                    }
                }
                set_and_fence::Step::Reader(read) => {
                    let found = after.reader.found.map(usize::from);
                    let stamp = found.map_or(0, |found| after.transactions[found].number);
                    same_reading(&fences, read, stamp, after.now, &after.reader);
                }
            }
            before = after;
        }
        same_fences(&fences, before.now, &before.fences);
    });
}

/// The operations on fences must give the answers and end in the states of the two models, on every path that `walk` takes.
#[test]
fn fences_are_as_modelled() {
    // One filler is enough here: a second one would take the same steps.
    let model = ReadRule::new(read_rule::Variant::AsBuilt, &[(&[1], true), (&[0, 1], true)], 1, 1, &[0, 1]);
    walk("read rule", &model, |_, path| replay_read_rule(path));
    let model = SetAndFence::two_setters(set_and_fence::Variant::AsBuilt);
    walk("set and fence, two setters", &model, |start, path| replay_set_and_fence(&model, start, path));
    let model = SetAndFence::setter_and_writer(set_and_fence::Variant::AsBuilt);
    walk("set and fence, a writer", &model, |start, path| replay_set_and_fence(&model, start, path));
}
