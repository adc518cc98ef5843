//! The changes of relations that are *named*, that is, have a record in the journal: those of relations that are *marked*
//! (`Fences::mark_named` in `fence/records.rs`). A session marks a relation before it gives a value out of the database that
//! depends on it.
//!
//! In this file, a *record* is that of the relation in the table of fences, as in `claims.rs`. The model has one relation, which
//! has no record at first. A writer raises and lowers fences as in `claims.rs`: the unclaimed fence if it finds no record. Then it
//! asks whether the relations of the fences that it has raised are marked, and if so, names its change. The unclaimed fence belongs
//! to several relations, so it tells none. A session computes a value, and gives it out only if its fences are at rest and have no
//! later number. Or it finds the value stored, with the fences that the value depends on. In either case it must look at the
//! unclaimed fence, too, until the record is settled (`claims.rs`); here it never is. `mod.rs` has the rest: a record
//! of the journal that a writer appends after the session has looked is ahead of the client's cursor.
//!
//! A *stamp* is a number of the clock of changes, which each committed change increments. A *variant* is the protocol with one rule
//! broken.

use stateright::{Model, Property};

use crate::memory::{Fence, LATEST};
use crate::{Verdict, check};

/// One atomic step of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Write {
    /// Notes the count of claims.
    Count,
    /// Looks for the record.
    Look,
    /// Raises the fence that `Look` has found: the record's, or else the unclaimed fence.
    Raise,
    /// Raises the fence of the record, if the count of claims has changed since `Count`.
    LookAgain,
    /// The commit: the writer's change becomes visible.
    Show,
    /// Draws a number, and lowers each raised fence with it.
    Lower,
    /// Asks whether the relation is marked.
    Ask,
    /// Names the change in the journal, if the relation was marked as of `Ask`.
    Append,
}

/// One atomic step of a session that gives a value out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Give {
    /// Claims the record of the relation.
    Claim,
    Mark,
    Stamp,
    /// Takes a snapshot, and computes the value on it.
    Snapshot,
    /// Counts the claim.
    Bump,
    /// Decides whether the value depends on the unclaimed fence.
    Depend,
    /// Compares the fences with the stamp, and gives the value out if it is right.
    Check,
    /// Marks the relation, and takes the value back if the mark is new. If it is not, the session skips the `Check` that follows.
    MarkOrTakeBack,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Writer(usize, Write),
    Session(Give),
    /// Another session marks the relation.
    OtherMark,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Writer {
    /// How many steps the writer has taken.
    at: u8,
    /// The count of claims as of `Count`.
    counted: u8,
    /// Whether `Look` has found the record.
    found: bool,
    /// Whether it has raised the unclaimed fence, and the fence of the record.
    raised: [bool; 2],
    /// Whether the relation was marked as of `Ask`, and a fence told the writer that it is this relation.
    is_marked: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    /// The clock of changes.
    now: u8,
    /// The count of claims.
    claims: u8,
    /// Whether a search for the relation finds a record.
    is_claimed: bool,
    /// Whether a session has marked the relation, so that its changes must be named.
    is_marked: bool,
    /// The unclaimed fence: writers raise it while the relation has no record.
    unclaimed: Fence,
    /// The fence of the relation's record.
    record: Fence,
    /// The changes that are visible, one bit for each writer.
    visible: u8,
    /// The writers.
    writers: Vec<Writer>,
    /// The changes that are named in the journal, as bits.
    named: u8,
    /// How many steps the session has taken.
    at: u8,
    /// The stamp of the session's value.
    stamp: u8,
    /// The changes in the session's value, as bits.
    value: u8,
    /// Whether the value also depends on the unclaimed fence.
    on_unclaimed: bool,
    /// Whether the session gives the value out.
    is_given: bool,
}

/// The protocol as it is built, with one rule broken, or built in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// The protocol as it is built.
    AsBuilt,
    /// The session marks the relation after it has looked at the fences.
    MarksLast,
    /// The session marks the relation after it has looked at the fences, and looks again only if the mark is new.
    TrustsOtherMark,
    /// The session does not look at any fence.
    ChecksNothing,
    /// The session looks only at the fence of the record.
    ChecksRecord,
    /// The session does not count its claim.
    NoBump,
    /// A writer asks before it raises a fence.
    AsksBeforeRaising,
    /// A writer asks after it has raised its fences, before it lowers them.
    AsksBeforeLowering,
    /// A writer looks for the record again when it asks. The fence that it has raised does not matter. The session looks at no
    /// fence.
    AsksByRelation,
}

/// The model: a variant, and where the value comes from.
#[derive(Clone, Debug)]
struct Naming {
    /// The rule that is broken, if any.
    variant: Variant,
    /// Whether the session finds the value stored, instead of computing it.
    is_stored: bool,
    /// The number of writers.
    writers: usize,
}

impl Naming {
    /// Returns the steps of a writer, in order.
    fn writing(&self) -> Vec<Write> {
        use Write::*;
        let mut steps = vec![Count, Look, Raise, LookAgain, Show, Lower];
        let at = match self.variant {
            Variant::AsksBeforeRaising => 2,
            Variant::AsksBeforeLowering => 4,
            _ => steps.len(),
        };
        steps.insert(at, Ask);
        steps.push(Append);
        steps
    }

    /// Returns the steps of the session, in order.
    fn giving(&self) -> Vec<Give> {
        use Give::*;
        let mut steps = match self.is_stored {
            true => vec![Stamp, Snapshot, Claim, Bump, Depend, Mark, Check],
            false => vec![Claim, Mark, Stamp, Snapshot, Bump, Depend, Check],
        };
        if self.variant == Variant::MarksLast {
            steps.retain(|step| *step != Mark);
            steps.push(Mark);
        }
        if self.variant == Variant::TrustsOtherMark {
            steps.retain(|step| *step != Mark);
            steps.extend([MarkOrTakeBack, Check]);
        }
        steps.retain(|step| *step != Bump || self.variant != Variant::NoBump);
        steps
    }

    /// Takes a step of a writer.
    fn write(&self, state: &mut State, number: usize, step: Write) {
        let writer = &mut state.writers[number];
        writer.at += 1;
        match step {
            Write::Count => writer.counted = state.claims,
            Write::Look => writer.found = state.is_claimed,
            Write::Raise => {
                writer.raised[usize::from(writer.found)] = true;
                if writer.found { state.record.raise() } else { state.unclaimed.raise() }
            }
            Write::LookAgain => {
                if state.claims != writer.counted && state.is_claimed && !writer.raised[1] {
                    writer.raised[1] = true;
                    state.record.raise();
                }
            }
            Write::Show => state.visible |= 1 << number,
            Write::Lower => {
                state.now += 1;
                let fences = [&mut state.unclaimed, &mut state.record];
                for (fence, _) in fences.into_iter().zip(writer.raised).filter(|(_, raised)| *raised) {
                    fence.lower(state.now);
                }
            }
            Write::Ask => {
                let knows = match self.variant {
                    Variant::AsksByRelation => state.is_claimed,
                    Variant::AsksBeforeRaising => writer.found,
                    _ => writer.raised[1],
                };
                writer.is_marked = knows && state.is_marked;
            }
            Write::Append if writer.is_marked => state.named |= 1 << number,
            Write::Append => {}
        }
    }

    /// Takes a step of the session.
    fn give(&self, state: &mut State, step: Give) {
        state.at += 1;
        match step {
            Give::Claim => state.is_claimed = true,
            Give::Mark => state.is_marked = true,
            Give::Stamp => state.stamp = state.now,
            Give::Snapshot => state.value = state.visible,
            Give::Bump => state.claims += 1,
            Give::Depend => {
                state.on_unclaimed = state.unclaimed.pending > 0 || state.unclaimed.seq > state.stamp;
            }
            Give::MarkOrTakeBack if state.is_marked => state.at += 1,
            Give::MarkOrTakeBack => (state.is_marked, state.is_given) = (true, false),
            Give::Check => {
                let holds = |fence: Fence| fence.holds(state.stamp, LATEST);
                let looks = ![Variant::ChecksNothing, Variant::AsksByRelation].contains(&self.variant);
                let looks_at_unclaimed = looks && state.on_unclaimed && self.variant != Variant::ChecksRecord;
                state.is_given =
                    (!looks || holds(state.record)) && (!looks_at_unclaimed || holds(state.unclaimed));
            }
        }
    }
}

impl Model for Naming {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State { writers: vec![Writer::default(); self.writers], ..State::default() }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        let (writing, giving) = (self.writing(), self.giving());
        for (number, writer) in state.writers.iter().enumerate() {
            let next = writing.get(usize::from(writer.at));
            actions.extend(next.map(|step| Step::Writer(number, *step)));
        }
        actions.extend(giving.get(usize::from(state.at)).map(|step| Step::Session(*step)));
        if state.is_claimed && !state.is_marked {
            actions.push(Step::OtherMark);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Writer(number, step) => self.write(&mut state, number, step),
            Step::Session(step) => self.give(&mut state, step),
            Step::OtherMark => state.is_marked = true,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NAMED, |model: &Self, state: &State| {
                let is_through =
                    |number: usize| usize::from(state.writers[number].at) == model.writing().len();
                let lacks = |number: usize| (state.visible & !state.value & !state.named) >> number & 1 == 1;
                let is_over = usize::from(state.at) == model.giving().len();
                !state.is_given
                    || !is_over
                    || !(0..state.writers.len()).any(|number| is_through(number) && lacks(number))
            }),
            Property::sometimes("a change after the value is named", |_, state: &State| {
                state.is_given && state.named & !state.value != 0
            }),
            Property::sometimes("a change is not named", |model: &Self, state: &State| {
                state.writers.iter().any(|writer| usize::from(writer.at) == model.writing().len())
                    && state.named == 0
            }),
            // With more than four steps, the writer has looked again.
            Property::sometimes("a writer knows only the unclaimed fence", |_, state: &State| {
                state.is_marked
                    && state.writers.iter().any(|writer| writer.raised == [true, false] && writer.at > 4)
            }),
        ]
    }
}

/// When the session has given a value out, each change that the value lacks and whose writer has ended is named.
const NAMED: &str = "a change that a value lacks is named";

/// The protocol as built must keep the property `NAMED`. Each other variant must break it, or be harmless.
#[test]
fn naming() {
    use Variant::*;
    use Verdict::*;
    let run = |variant, is_stored, verdict| {
        let source = if is_stored { "stored" } else { "computed" };
        let model = Naming { variant, is_stored, writers: 2 };
        check(&format!("naming, {source}: {variant:?}"), model, verdict);
    };
    for is_stored in [false, true] {
        run(AsBuilt, is_stored, Right);
        // The fences are at rest only if no writer has asked, or if the value has the change.
        run(AsksBeforeLowering, is_stored, Harmless);
        for variant in [MarksLast, TrustsOtherMark, ChecksNothing, ChecksRecord, NoBump, AsksBeforeRaising] {
            run(variant, is_stored, Breaks(NAMED));
        }
    }
    // Another correct way for values that are computed after the mark.
    run(AsksByRelation, false, Harmless);
}
