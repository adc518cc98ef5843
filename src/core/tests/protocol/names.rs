//! A prepared transaction's name, given to another when it has ended: who ends one by its name ends what has the name by then.
//!
//! The first transaction is prepared and has a record: its name, and what it has changed (`src/store/prepared.rs` in the extension). Who
//! ends what has the name looks for the record, raises what it says, and asks the server; the second transaction is prepared under the same
//! name meanwhile. That is done by a command, so that there is a record of it too, or without one: then its own fence is raised from before
//! it is prepared until somebody sees that it is over.

use stateright::{Model, Property};

use crate::memory::Fence;
use crate::reader::{Entry, Outcome, Read, Reader, View, program};
use crate::{Verdict, check, long};

/// The fences of what the transactions change stand at their numbers, and behind them that of their database.
const DATABASE: usize = 2;
const FIRST: u8 = 0;
const SECOND: u8 = 1;

/// One atomic step of who ends what has the name. What looks at records is one step, because it has their lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Asks the server whether anything has the name.
    Ask,
    Find,
    Raise,
    /// The server ends what has the name now.
    Finish,
    /// An error, before that or after it: it is not told which.
    Fail,
    Draw,
    Lower,
    Retire,
}

/// One of who prepares the second transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prepare {
    Record,
    /// The server gives it the name, which must be free.
    Name,
    /// Others may end it.
    Stand,
    Fail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fill {
    Stamp,
    Snapshot,
    Publish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Ender(usize, End),
    Preparer(Prepare),
    /// Somebody sees that the second one is over, of which no command has told.
    SettleDraw,
    SettleLower,
    Filler(Fill),
    Reader(Read),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Slot {
    #[default]
    Free,
    Preparing,
    Prepared,
    Gone,
    Unnamed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    slot: Slot,
    transaction: u8,
    enders: u8,
}

impl Record {
    fn has_name(self) -> bool {
        ![Slot::Free, Slot::Unnamed].contains(&self.slot)
    }

    fn retire(&mut self, variant: Variant) {
        let keep = self.enders > 0 && variant != Variant::GoneIsFree;
        self.slot = if keep { Slot::Gone } else { Slot::Free };
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Stage {
    #[default]
    Idle,
    Asked,
    Found,
    Raised,
    /// Done with the attempt, whether that succeeded.
    Tried(bool),
    Drawn(bool),
    Lowered(bool),
    Over,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ender {
    stage: Stage,
    commits: bool,
    /// Whether anything had the name when it asked.
    there: bool,
    record: Option<u8>,
    fence: Option<u8>,
    number: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Preparing {
    #[default]
    Idle,
    Recorded,
    Named,
    Over,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    now: u8,
    fences: [Fence; 3],
    visible: u8,
    /// Who has the name.
    named: Option<u8>,
    records: Vec<Record>,
    /// Those that are being prepared and have found no record.
    unrecorded: u8,
    enders: [Ender; 2],
    preparing: Preparing,
    /// The second one's record.
    own: Option<u8>,
    settling: Option<u8>,
    /// Somebody has found the first one's record, and has committed the second one.
    mistaken: bool,
    /// Whose change the value depends on. A value that depends on both would be saved by the fence of the wrong one.
    depends: u8,
    filled: u8,
    entry: Entry,
    reader: Reader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    AsBuilt,
    /// Whoever prepares does not ask who is at ending what had the name.
    GivenAtOnce,
    /// A record is free when its transaction has ended, whoever still has it in hand.
    GoneIsFree,
    /// Nobody doubts a record because the name is being prepared.
    NoDoubt,
    /// Nor because somebody prepares who has found no record.
    UnrecordedNotCounted,
    /// Who stands leaves the record of one that has ended unnoticed.
    OthersStay,
    /// Who is told that nothing has the name asks the server all the same.
    NothingIsTried,
    /// The same, with everything raised.
    NothingIsTriedWithAll,
    /// The fences of one that is prepared without a command are not raised before it has the name.
    UnnamedNotRaised,
    /// They are lowered as if it had changed nothing.
    UnnamedWithdrawn,
}

/// How the second one is prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Command,
    /// By a command, where there is one record only.
    CommandWithoutRoom,
    Nobody,
}

#[derive(Clone, Debug)]
pub struct Names {
    variant: Variant,
    by: By,
    /// Also with values that depend on the first one, and somebody who rolls back.
    all: bool,
}

const FILL: [Fill; 3] = [Fill::Stamp, Fill::Snapshot, Fill::Publish];

impl Names {
    fn ends(&self, state: &State, ender: &Ender) -> Vec<End> {
        let next = if ender.fence.is_some() { End::Draw } else { End::Retire };
        match ender.stage {
            Stage::Idle => vec![End::Ask],
            Stage::Asked => vec![End::Find],
            Stage::Found => vec![End::Raise],
            Stage::Raised if self.may_finish(state) => vec![End::Finish, End::Fail],
            Stage::Raised => vec![End::Fail],
            Stage::Tried(true) => vec![next, End::Fail],
            Stage::Tried(false) => vec![next],
            Stage::Drawn(_) => vec![End::Lower],
            Stage::Lowered(_) => vec![End::Retire],
            Stage::Over => vec![],
        }
    }

    /// While it is being prepared nobody else may end it.
    fn may_finish(&self, state: &State) -> bool {
        match state.named {
            Some(SECOND) => state.preparing == Preparing::Over,
            named => named.is_some(),
        }
    }

    fn end(&self, state: &mut State, number: usize, step: End) {
        let variant = self.variant;
        let State { enders, records, fences, .. } = state;
        let ender = &mut enders[number];
        match step {
            End::Ask => {
                (ender.there, ender.stage) = (state.named.is_some() || !ender.commits, Stage::Asked);
            }
            End::Find => {
                ender.stage = Stage::Found;
                let is_preparing = |record: &Record| record.slot == Slot::Preparing;
                let in_doubt = state.unrecorded > 0 && variant != Variant::UnrecordedNotCounted
                    || records.iter().any(is_preparing) && variant != Variant::NoDoubt;
                let fence = match records.iter().position(|record| record.slot == Slot::Prepared) {
                    Some(found) => {
                        records[found].enders += 1;
                        ender.record = Some(found as u8);
                        Some(if in_doubt { DATABASE as u8 } else { records[found].transaction })
                    }
                    None if ender.there || variant == Variant::NothingIsTriedWithAll => Some(DATABASE as u8),
                    None => {
                        if variant != Variant::NothingIsTried {
                            ender.stage = Stage::Over;
                        }
                        None
                    }
                };
                ender.fence = fence.filter(|_| ender.commits);
            }
            End::Raise => {
                ender.stage = Stage::Raised;
                ender.fence.into_iter().for_each(|fence| fences[usize::from(fence)].raise());
            }
            End::Finish => {
                ender.stage = Stage::Tried(true);
                let ended = state.named.take().expect("something has the name");
                if ender.commits {
                    state.visible |= 1 << ended;
                    state.mistaken |= ended == SECOND && ender.fence == Some(FIRST);
                }
            }
            End::Fail => ender.stage = Stage::Tried(false),
            End::Draw => {
                state.now += 1;
                ender.number = state.now;
                ender.stage = Stage::Drawn(ender.stage == Stage::Tried(true));
            }
            End::Lower => {
                let fence = ender.fence.expect("it has raised one");
                fences[usize::from(fence)].lower(ender.number);
                ender.stage = Stage::Lowered(ender.stage == Stage::Drawn(true));
            }
            End::Retire => {
                let succeeded = [Stage::Tried(true), Stage::Lowered(true)].contains(&ender.stage);
                if let Some(record) = ender.record.map(|record| &mut records[usize::from(record)]) {
                    record.enders = record.enders.saturating_sub(1);
                    if succeeded || record.slot == Slot::Gone {
                        record.retire(variant);
                    }
                }
                // What it holds no more does not tell states apart.
                *ender = Ender { stage: Stage::Over, commits: ender.commits, ..Ender::default() };
            }
        }
    }

    fn prepares(&self, state: &State) -> Vec<Prepare> {
        match state.preparing {
            Preparing::Idle => vec![Prepare::Record],
            Preparing::Recorded if state.named.is_none() => vec![Prepare::Name, Prepare::Fail],
            Preparing::Recorded => vec![Prepare::Fail],
            Preparing::Named => vec![Prepare::Stand],
            Preparing::Over => vec![],
        }
    }

    fn prepare(&self, state: &mut State, step: Prepare) {
        let State { records, fences, own, .. } = state;
        match step {
            Prepare::Record => {
                state.preparing = Preparing::Recorded;
                let by_command = self.by != By::Nobody;
                let in_use = |record: &Record| record.has_name() && record.enders > 0;
                if by_command && records.iter().any(in_use) && self.variant != Variant::GivenAtOnce {
                    state.preparing = Preparing::Over;
                    return;
                }
                *own = records.iter().position(|record| record.slot == Slot::Free).map(|place| place as u8);
                match *own {
                    Some(own) => {
                        let slot = if by_command { Slot::Preparing } else { Slot::Unnamed };
                        records[usize::from(own)] = Record { slot, transaction: SECOND, enders: 0 };
                    }
                    None => state.unrecorded += 1,
                }
                if !by_command && self.variant != Variant::UnnamedNotRaised {
                    fences[usize::from(SECOND)].raise();
                }
            }
            Prepare::Name => {
                state.named = Some(SECOND);
                state.preparing = Preparing::Named;
            }
            Prepare::Stand => {
                state.preparing = Preparing::Over;
                if self.by == By::Nobody {
                    return;
                }
                if self.variant != Variant::OthersStay {
                    let others = records.iter_mut().filter(|record| record.slot == Slot::Prepared);
                    others.for_each(|record| record.retire(self.variant));
                }
                match *own {
                    Some(own) => records[usize::from(own)].slot = Slot::Prepared,
                    None => state.unrecorded -= 1,
                }
            }
            Prepare::Fail => {
                state.preparing = Preparing::Over;
                match own.take() {
                    Some(own) => records[usize::from(own)].slot = Slot::Free,
                    None => state.unrecorded -= 1,
                }
                if self.by == By::Nobody && self.variant != Variant::UnnamedNotRaised {
                    fences[usize::from(SECOND)].withdraw();
                }
            }
        }
    }

    /// Whether the second one is over, and its fences are raised, because nobody was told.
    fn is_to_settle(&self, state: &State) -> bool {
        let unnamed = |own: u8| state.records[usize::from(own)].slot == Slot::Unnamed;
        self.by == By::Nobody
            && state.preparing == Preparing::Over
            && state.named != Some(SECOND)
            && state.own.is_some_and(unnamed)
    }

    fn settle(&self, state: &mut State) {
        let fence = &mut state.fences[usize::from(SECOND)];
        let number = state.settling.take().expect("it has drawn a number");
        match self.variant {
            Variant::UnnamedNotRaised => fence.seq = fence.seq.max(number),
            Variant::UnnamedWithdrawn => fence.withdraw(),
            _ => {
                fence.lower(number);
            }
        }
        let own = state.own.take().expect("it has a record");
        state.records[usize::from(own)].slot = Slot::Free;
    }
}

impl State {
    fn fill(&mut self, step: Fill) {
        self.filled += 1;
        match step {
            Fill::Stamp => self.entry.stamp = self.now,
            Fill::Snapshot => self.entry.value = self.visible,
            Fill::Publish => {}
        }
    }

    fn read(&mut self, step: Read) {
        let view = View {
            now: self.now,
            fences: &self.fences,
            visible: self.visible,
            relevant: 1 << self.depends,
            rows: !0,
            aborted: false,
            disturbed: true,
        };
        self.reader.step(step, &self.program(), &view, self.entry);
    }

    /// What the reader does.
    fn program(&self) -> Vec<Read> {
        program(self.reader.repeatable, &[usize::from(self.depends), DATABASE])
    }
}

impl Model for Names {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let first = Record { slot: Slot::Prepared, transaction: FIRST, enders: 0 };
        let mut records = vec![first];
        if self.by != By::CommandWithoutRoom {
            records.push(Record::default());
        }
        let ender = |commits| Ender { commits, ..Ender::default() };
        let start = |depends, commits| State {
            now: 0,
            fences: Default::default(),
            visible: 0,
            named: Some(FIRST),
            records: records.clone(),
            unrecorded: 0,
            enders: [ender(true), ender(commits)],
            preparing: Preparing::Idle,
            own: None,
            settling: None,
            mistaken: false,
            depends,
            filled: 0,
            entry: Entry::default(),
            reader: Reader::new(false),
        };
        match self.all {
            true => vec![start(FIRST, true), start(SECOND, true), start(FIRST, false), start(SECOND, false)],
            false => vec![start(SECOND, true)],
        }
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        for (number, ender) in state.enders.iter().enumerate() {
            actions.extend(self.ends(state, ender).into_iter().map(|step| Step::Ender(number, step)));
        }
        actions.extend(self.prepares(state).into_iter().map(Step::Preparer));
        if self.is_to_settle(state) {
            actions.push(if state.settling.is_none() { Step::SettleDraw } else { Step::SettleLower });
        }
        actions.extend(FILL.get(usize::from(state.filled)).map(|step| Step::Filler(*step)));
        let published = (usize::from(state.filled) == FILL.len()).then_some(0);
        let next = state.reader.next(&state.program(), published.into_iter());
        actions.extend(next.into_iter().map(Step::Reader));
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Ender(number, step) => self.end(&mut state, number, step),
            Step::Preparer(step) => self.prepare(&mut state, step),
            Step::SettleDraw => {
                state.now += 1;
                state.settling = Some(state.now);
            }
            Step::SettleLower => self.settle(&mut state),
            Step::Filler(step) => state.fill(step),
            Step::Reader(step) => state.read(step),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(NOT_STALE, |_, state: &State| state.reader.outcome != Some(Outcome::Stale)),
            Property::always(NOT_FUTURE, |_, state: &State| state.reader.outcome != Some(Outcome::Future)),
            Property::always("nothing is pending for ever", |model: &Self, state: &State| {
                let at_work = |ender: &Ender| ![Stage::Idle, Stage::Over].contains(&ender.stage);
                let is_prepared = model.by == By::Nobody
                    && (state.preparing != Preparing::Over || state.named == Some(SECOND));
                state.enders.iter().any(at_work)
                    || is_prepared
                    || model.is_to_settle(state)
                    || state.fences.iter().all(|fence| fence.pending == 0)
            }),
            Property::sometimes("both have had the name and are committed", |_, state: &State| {
                state.visible == 0b11
            }),
            Property::sometimes("a hit with the second one's change in it", |_, state: &State| {
                state.reader.hit(|reader| reader.visible & 1 << SECOND != 0)
            }),
        ];
        // Only who is not seen may be taken for another.
        match (self.by, self.variant) {
            (By::Nobody, _) => {
                properties.push(Property::sometimes(MISTAKEN, |_, state: &State| state.mistaken))
            }
            (_, Variant::AsBuilt) => {
                properties
                    .push(Property::always("nobody ends another one than found", |_, state: &State| {
                        !state.mistaken
                    }));
            }
            _ => {}
        }
        properties
    }
}

const NOT_STALE: &str = "no stale read";
const NOT_FUTURE: &str = "no read from the future";
const MISTAKEN: &str = "the record of another that had the name";

#[test]
fn names() {
    use Variant::*;
    use Verdict::*;
    let run = |variant, by, verdict| {
        check(&format!("names: {variant:?}, {by:?}"), Names { variant, by, all: long() }, verdict);
    };
    for by in [By::Command, By::CommandWithoutRoom, By::Nobody] {
        run(AsBuilt, by, Right);
    }
    for variant in [GivenAtOnce, GoneIsFree, NoDoubt, OthersStay, NothingIsTried] {
        run(variant, By::Command, Breaks(NOT_STALE));
    }
    run(NothingIsTriedWithAll, By::Command, Harmless);
    run(UnrecordedNotCounted, By::CommandWithoutRoom, Breaks(NOT_STALE));
    for variant in [UnnamedNotRaised, UnnamedWithdrawn] {
        run(variant, By::Nobody, Breaks(NOT_STALE));
    }
}
