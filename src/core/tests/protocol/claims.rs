//! Claims of records: a relation gets a record when an entry first depends on it. The *record* holds the fence of the relation. A
//! writer that looked for the record before that does not know of it. `fence/mod.rs` of the core has the rules, and
//! `fence/records.rs` the code. No test compares the model with the code, so a new order of steps there must be made here, too.
//!
//! The model has one relation. A writer that finds no record raises the *unclaimed* fence, and looks for a record
//! again after that. A fill claims the record, counts the claim (`Bump`), and then reads the unclaimed fence to
//! decide whether its entry must depend on that fence, too. When a fill has seen the unclaimed fence at rest after a
//! claim, it marks the record as *settled*. Then fills do not look at the unclaimed fence any more; their stamps do not matter.
//! Before that mark, the record's fence takes over the number of the unclaimed fence (`Cover`): an entry with an earlier
//! stamp and a reader with a safe stamp must still find that number.
//!
//! A *stamp* is a number of the clock of changes, which each committed change increments. A reader with a *safe stamp* may not see
//! changes after that stamp. A *fill* computes an entry and stores it. To *claim* a record is to create it for the relation.

use stateright::{Model, Property};

use crate::memory::{Fence, LATEST};
use crate::{Verdict, check, long};

/// One atomic step of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Write {
    /// Notes the count of claims.
    Count,
    /// Looks for the record.
    Look,
    /// Raises the fence that `Look` has found: the record's, or else the unclaimed fence.
    Raise,
    /// Raises the fence of the record, if the count of claims has changed since `Count` and the record exists now.
    LookAgain,
    /// The commit: the writer's change becomes visible.
    Show,
    /// Draws the number of the change.
    Draw,
    /// Lowers the unclaimed fence, if the writer has raised it.
    LowerUnclaimed,
    /// Lowers the fence of the record, if the writer has raised it.
    LowerRecord,
}

/// One atomic step of a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fill {
    Stamp,
    /// Takes a snapshot, and computes the value on it.
    Snapshot,
    Claim,
    /// Reads whether the record is settled.
    Settled,
    /// Counts the claim. The model does this in any case, and the code only if `Settled` found that the record is not settled.
    Bump,
    /// Reads whether the unclaimed fence is at rest, and its number.
    Rest,
    /// Gives the record's fence the number of the unclaimed fence, if `Rest` found that fence at rest.
    Cover,
    /// Settles the record, if `Rest` found the fence at rest.
    Settle,
    /// Decides whether the entry also depends on the unclaimed fence.
    Depend,
    Publish,
}

/// One step of any actor. There is one reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Writer(usize, Write),
    Filler(usize, Fill),
    /// The reader will keep one snapshot, and notes its safe stamp before it takes the snapshot.
    Keep,
    /// The reader begins.
    Begin,
    /// The reader reads the entry of a fill. It checks all fences in one step, which is enough here because
    /// `read_rule.rs` covers the separate steps.
    Read(usize),
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
    /// The number that it has drawn.
    number: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Filler {
    /// How many steps the fill has taken.
    at: u8,
    /// The stamp of the entry.
    stamp: u8,
    /// The changes that the value contains, one bit for each writer.
    value: u8,
    /// Whether the record was settled as of `Settled`.
    settled: bool,
    /// Whether the unclaimed fence was at rest as of `Rest`.
    rested: bool,
    /// The number of the unclaimed fence as of `Rest`.
    changed: u8,
    /// Whether the entry also depends on the unclaimed fence.
    on_unclaimed: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    /// The clock of changes.
    now: u8,
    /// The count of claims.
    claims: u8,
    /// Whether a search for the relation finds a record.
    is_claimed: bool,
    /// Whether entries need not depend on the unclaimed fence any more.
    is_settled: bool,
    /// The unclaimed fence: writers raise it while the relation has no record.
    unclaimed: Fence,
    /// The fence of the relation's record.
    record: Fence,
    /// The changes that are visible, one bit for each writer.
    visible: u8,
    /// The writers.
    writers: Vec<Writer>,
    /// The fills.
    fillers: Vec<Filler>,
    /// The safe stamp of a reader that keeps one snapshot.
    safe_stamp: Option<u8>,
    /// The changes that the reader must see, once it has begun. With a safe stamp, it must not see any others.
    begun: Option<u8>,
    /// Whether the read has ended.
    has_read: bool,
    /// Whether the reader got a value without a change that it must see.
    stale: bool,
    /// Whether the reader, with a safe stamp, got a value with a change that it must not see.
    newer: bool,
    /// The number of hits.
    hits: u8,
    /// The hits on entries of fills that found the record settled.
    settled_hits: u8,
}

/// The protocol as it is built, and with one rule broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// The protocol as it is built.
    AsBuilt,
    /// A writer does not look for a record again.
    NeverLooksAgain,
    /// A writer looks again before it raises the fence that it found first.
    LooksAgainBeforeRaising,
    /// A fill does not count its claim.
    NoBump,
    /// An entry never depends on the unclaimed fence.
    NoUnclaimedFence,
    /// A fill settles the record although the unclaimed fence is raised.
    SettledThoughPending,
    /// A fill settles the record before it looks at the unclaimed fence.
    SettledBeforeItRests,
    /// The record's fence never takes over the number of the unclaimed fence, and `NotBehind` applies, too.
    NotCovered,
    /// The record's fence takes over that number after the record is settled.
    CoveredAfterSettled,
    /// An entry does not depend on the unclaimed fence for the reason that the record's fence has a smaller number.
    NotBehind,
}

/// The model: a variant, and how many writers and fills there are.
#[derive(Clone, Debug)]
struct Claims {
    /// The rule that is broken, if any.
    variant: Variant,
    /// Whether other relations share the record. Such a record is never settled.
    shared: bool,
    /// The number of writers.
    writers: usize,
    /// The number of fills.
    fillers: usize,
}

impl Claims {
    /// Returns the steps of a writer, in order.
    fn writing(&self) -> Vec<Write> {
        use Write::*;
        let again: &[Write] = match self.variant {
            Variant::NeverLooksAgain => &[Raise],
            Variant::LooksAgainBeforeRaising => &[LookAgain, Raise],
            _ => &[Raise, LookAgain],
        };
        [Count, Look].iter().chain(again).chain(&[Show, Draw, LowerUnclaimed, LowerRecord]).copied().collect()
    }

    /// Returns the steps of a fill, in order.
    fn filling(&self) -> Vec<Fill> {
        use Fill::*;
        let mut steps = vec![Stamp, Snapshot, Claim, Settled, Bump];
        steps.extend(match self.variant {
            Variant::SettledBeforeItRests => [Settle, Rest, Cover],
            Variant::CoveredAfterSettled => [Rest, Settle, Cover],
            _ => [Rest, Cover, Settle],
        });
        steps.extend([Depend, Publish]);
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
            Write::Raise if writer.found => {
                writer.raised[1] = true;
                state.record.raise();
            }
            Write::Raise => {
                writer.raised[0] = true;
                state.unclaimed.raise();
            }
            Write::LookAgain => {
                if state.claims != writer.counted && state.is_claimed && !writer.raised[1] {
                    writer.raised[1] = true;
                    state.record.raise();
                }
            }
            Write::Show => state.visible |= 1 << number,
            Write::Draw => {
                state.now += 1;
                writer.number = state.now;
            }
            Write::LowerUnclaimed if writer.raised[0] => _ = state.unclaimed.lower(writer.number),
            Write::LowerRecord if writer.raised[1] => _ = state.record.lower(writer.number),
            Write::LowerUnclaimed | Write::LowerRecord => {}
        }
    }

    /// Takes a step of a fill.
    fn fill(&self, state: &mut State, number: usize, step: Fill) {
        let filler = &mut state.fillers[number];
        filler.at += 1;
        match step {
            Fill::Stamp => filler.stamp = state.now,
            Fill::Snapshot => filler.value = state.visible,
            Fill::Claim => state.is_claimed = true,
            Fill::Settled => filler.settled = state.is_settled,
            Fill::Bump => state.claims += 1,
            Fill::Rest => {
                filler.rested = state.unclaimed.pending == 0;
                filler.changed = state.unclaimed.seq;
            }
            Fill::Cover => {
                if !filler.settled && filler.rested && !self.shared && self.variant != Variant::NotCovered {
                    state.record.seq = state.record.seq.max(filler.changed);
                }
            }
            Fill::Settle => {
                let rested = filler.rested
                    || [Variant::SettledBeforeItRests, Variant::SettledThoughPending].contains(&self.variant);
                if !filler.settled && rested && !self.shared {
                    state.is_settled = true;
                }
            }
            Fill::Depend => {
                let is_behind = state.record.seq < filler.changed
                    && ![Variant::NotCovered, Variant::NotBehind].contains(&self.variant);
                filler.on_unclaimed = !filler.settled
                    && self.variant != Variant::NoUnclaimedFence
                    && (!filler.rested || filler.changed > filler.stamp || is_behind);
            }
            Fill::Publish => {}
        }
    }

    /// Takes the reader's only read, of the entry of a fill, and judges the value if it is a hit.
    fn read(state: &mut State, number: usize) {
        let filler = &state.fillers[number];
        let safe_stamp = state.safe_stamp.unwrap_or(LATEST);
        let holds = |fence: Fence| fence.holds(filler.stamp, safe_stamp);
        if holds(state.record) && (!filler.on_unclaimed || holds(state.unclaimed)) {
            state.hits += 1;
            state.settled_hits += u8::from(filler.settled);
            let begun = state.begun.unwrap_or(0);
            state.stale |= begun & !filler.value != 0;
            state.newer |= state.safe_stamp.is_some() && filler.value & !begun != 0;
        }
        state.has_read = true;
    }
}

impl Model for Claims {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            writers: vec![Writer::default(); self.writers],
            fillers: vec![Filler::default(); self.fillers],
            ..State::default()
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        let (writing, filling) = (self.writing(), self.filling());
        for (number, writer) in state.writers.iter().enumerate() {
            let next = writing.get(usize::from(writer.at));
            actions.extend(next.map(|step| Step::Writer(number, *step)));
        }
        for (number, filler) in state.fillers.iter().enumerate() {
            let next = filling.get(usize::from(filler.at));
            actions.extend(next.map(|step| Step::Filler(number, *step)));
        }
        match state.begun {
            None if state.safe_stamp.is_none() => actions.extend([Step::Keep, Step::Begin]),
            None => actions.push(Step::Begin),
            Some(_) if !state.has_read => {
                let published = |number: &usize| usize::from(state.fillers[*number].at) == filling.len();
                actions.extend((0..self.fillers).filter(published).map(Step::Read));
            }
            Some(_) => {}
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Writer(number, step) => self.write(&mut state, number, step),
            Step::Filler(number, step) => self.fill(&mut state, number, step),
            Step::Keep => state.safe_stamp = Some(state.now),
            Step::Begin => state.begun = Some(state.visible),
            Step::Read(number) => Self::read(&mut state, number),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(NOT_STALE, |_, state: &State| !state.stale),
            Property::always(NOT_NEWER, |_, state: &State| !state.newer),
            Property::sometimes("a hit on a new value", |_, state: &State| {
                state.hits > 0 && state.visible != 0
            }),
            Property::sometimes("a hit with a safe stamp", |_, state: &State| {
                state.hits > 0 && state.safe_stamp.is_some()
            }),
        ];
        if !self.shared {
            let settled = |_: &Self, state: &State| state.settled_hits > 0;
            properties.push(Property::sometimes("a hit by a settled record", settled));
        }
        properties
    }
}

/// No reader gets a value without a change that was visible when the reader began.
const NOT_STALE: &str = "no stale read";
/// No reader with a safe stamp gets a value with a change that was not visible when the reader began.
const NOT_NEWER: &str = "no value newer than the snapshot";

/// The protocol as built must keep both properties. Each other variant must break the property that is named: a model that cannot
/// fail proves nothing.
#[test]
fn claims() {
    use Variant::*;
    let run = |variant, shared, writers, fillers, verdict| {
        let name = format!("claims: {variant:?}{}", if shared { ", shared" } else { "" });
        check(&name, Claims { variant, shared, writers, fillers }, verdict);
    };
    run(AsBuilt, false, 1, 2, Verdict::Right);
    run(AsBuilt, true, 1, 2, Verdict::Right);
    if long() {
        run(AsBuilt, false, 2, 2, Verdict::Right);
        run(AsBuilt, true, 2, 2, Verdict::Right);
    }
    for variant in [
        NeverLooksAgain,
        LooksAgainBeforeRaising,
        NoBump,
        NoUnclaimedFence,
        SettledThoughPending,
        SettledBeforeItRests,
    ] {
        run(variant, false, 1, 2, Verdict::Breaks(NOT_STALE));
    }
    for variant in [NotCovered, CoveredAfterSettled] {
        run(variant, false, 1, 2, Verdict::Breaks(NOT_NEWER));
    }
    // Only a shared record needs this rule: the fence of any other record takes over the number (`Cover`).
    run(NotBehind, true, 1, 2, Verdict::Breaks(NOT_NEWER));
}
