//! The protocol of a prepared transaction's name. A second transaction may get the name when the first has ended. A
//! session that ends a transaction by its name ends the transaction that has the name at that moment.
//!
//! The first transaction is prepared. It has a record of what it has changed (`src/store/transaction/prepared/` in the
//! extension), unless it was prepared in an earlier life of the server, from which no cache was saved. An *ender* is a session that
//! ends a transaction by its name. It asks the server which transaction has the name, looks for the record of that transaction,
//! raises the recorded fence, or that of the database if there is no record, and lets the server end the transaction that has the
//! name. An ender that rolls back raises no fence.
//!
//! Meanwhile the second transaction is prepared under the same name. If a command prepares it, it has a record, too.
//! If it is prepared without a command, its own fence is raised before it is prepared, and stays raised until a
//! session sees that it is over. The first transaction may also be ended *unnoticed*, without a command, so that its
//! record stays behind.
//!
//! A *fence* is a word in shared memory that says when a dependency of entries last changed.

use stateright::{Model, Property};

use crate::memory::Fence;
use crate::reader::{Entry, Outcome, Read, Reader, View, program};
use crate::{Verdict, check, long};

/// The fences of the two transactions have the numbers of the transactions. The fence of their database comes after
/// them.
const DATABASE: usize = 2;
/// The number of the first transaction.
const FIRST: u8 = 0;
/// The number of the second transaction.
const SECOND: u8 = 1;

/// One atomic step of an ender. A look at the records is one step, because the ender holds their lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Asks the server which transaction has the name.
    Ask,
    /// Looks for the record of that transaction.
    Find,
    /// Asks again, and starts over if another transaction has the name now. If the name is unchanged and there is no
    /// record, the transaction was prepared in an earlier life of the server.
    AskAgain,
    /// Raises the fence of the record, or that of the database. An ender that rolls back raises none.
    Raise,
    /// The server ends the transaction that has the name now.
    Finish,
    /// An error before `Finish` or after it. The ender does not learn which.
    Fail,
    /// Draws the number of the change.
    Draw,
    /// Lowers the raised fence with that number.
    Lower,
    /// Stops using the record. If the ender knows that the transaction is ended, the record ends, too.
    Retire,
}

/// One atomic step of the session that prepares the second transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prepare {
    /// Takes a record. A command fails here if an ender still uses a record of the same name. Without a command, the fence of the
    /// transaction is raised.
    Record,
    /// The server gives the name to the transaction. The name must be free.
    Name,
    /// From now on other sessions may end the transaction.
    Stand,
    /// An error before the transaction has the name. Its record is given back.
    Fail,
}

/// One step of the only fill: it takes its stamp, reads the source on a snapshot, and publishes the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fill {
    Stamp,
    Snapshot,
    Publish,
}

/// One step of one actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Ender(usize, End),
    Preparer(Prepare),
    /// The first transaction is rolled back without a command.
    Unnoticed,
    /// A session sees that the second transaction is over, although no command reported its end, and draws a number
    /// for its fence.
    SettleDraw,
    /// The session of `SettleDraw` lowers the fence with the number that it has drawn, and frees the record.
    SettleLower,
    Filler(Fill),
    Reader(Read),
}

/// The use of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Slot {
    #[default]
    Free,
    /// A command is preparing the transaction.
    Preparing,
    Prepared,
    /// The transaction has ended, but other enders still use the record. The name must not be given away yet.
    Gone,
    /// The transaction is prepared without a command, so the record does not have its name.
    Unnamed,
}

/// The record of a prepared transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    slot: Slot,
    /// The transaction whose changes it has.
    transaction: u8,
    /// How many enders use the record.
    enders: u8,
}

impl Record {
    /// Whether the record has the name of its transaction.
    fn has_name(self) -> bool {
        ![Slot::Free, Slot::Unnamed].contains(&self.slot)
    }

    /// Ends the record. It becomes free when no ender uses it any more.
    fn retire(&mut self, variant: Variant) {
        let keep = self.enders > 0 && variant != Variant::GoneIsFree;
        self.slot = if keep { Slot::Gone } else { Slot::Free };
    }
}

/// The progress of an ender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Stage {
    #[default]
    Idle,
    Asked,
    /// It has looked for the record and must ask again.
    Looked,
    /// It knows which fence to raise, if any.
    Found,
    Raised,
    /// The attempt is over. The value says whether the transaction is known to be ended.
    Tried(bool),
    /// The value is that of `Tried`, here and in `Lowered`.
    Drawn(bool),
    Lowered(bool),
    Over,
}

/// The progress of a session that ends a transaction by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ender {
    stage: Stage,
    /// Whether it commits the transaction or rolls it back.
    commits: bool,
    /// The transaction that had the name when it asked.
    asked: Option<u8>,
    /// The record that it uses. None if it has found none.
    record: Option<u8>,
    /// The fence that it raises. None if it rolls back.
    fence: Option<u8>,
    /// The number that it has drawn.
    number: u8,
}

/// How far the second transaction is prepared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Preparing {
    #[default]
    Idle,
    /// It has a record.
    Recorded,
    /// It has the name, and other sessions cannot end it yet.
    Named,
    /// It is prepared, or was given up.
    Over,
}

/// The state of the model between two steps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The clock of changes.
    now: u8,
    /// The fences of the two transactions, and the fence of the database.
    fences: [Fence; 3],
    /// The committed transactions, one bit for each.
    visible: u8,
    /// The transaction that has the name.
    named: Option<u8>,
    /// The records of the transactions.
    records: Vec<Record>,
    /// The sessions that end a transaction by its name.
    enders: [Ender; 2],
    /// The preparation of the second transaction.
    preparing: Preparing,
    /// The record of the second transaction.
    own: Option<u8>,
    /// The number that was drawn for the fence of the second transaction (`SettleDraw`).
    settling: Option<u8>,
    /// Whether an ender has committed the second transaction although it had raised the fence of the first one.
    mistaken: bool,
    /// The transaction whose change the value depends on. It must be one transaction only: a value that depends on
    /// both would be saved by the fence of the wrong one.
    depends: u8,
    /// How many steps the fill has taken.
    filled: u8,
    /// The entry that depends on the first transaction.
    entry: Entry,
    /// The reader of the entry.
    reader: Reader,
}

/// The protocol as it is built, and with one rule broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The protocol as it is built.
    AsBuilt,
    /// The session that prepares does not check whether an ender still uses a record of the name.
    GivenAtOnce,
    /// An ender ignores that another transaction is being prepared under the name.
    RivalIgnored,
    /// An ender that has found a record does not ask again.
    NotConfirmed,
    /// A record becomes free when its transaction has ended, although other enders still use it.
    GoneIsFree,
    /// An ender looks for the record by the name instead of by the transaction's id.
    FoundByName,
    /// An ender that finds no record continues as if the transaction had changed nothing.
    MissedIsNothing,
    /// An ender that finds no record raises the fence of the database even if another transaction has the name by now.
    MissedIsEverything,
    /// The fence of a transaction that is prepared without a command is not raised before it has the name.
    UnnamedNotRaised,
    /// That fence is withdrawn as if the transaction had changed nothing.
    UnnamedWithdrawn,
}

/// How the second transaction is prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Command,
    /// No command: a subscription with `two_phase` prepares it in C code.
    Nobody,
}

/// The facts that are known about the first transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    Recorded,
    /// It has a record, and may end unnoticed.
    Unnoticed,
    /// It was prepared in an earlier life of the server.
    Unrecorded,
}

/// The model: a variant, and how both transactions are prepared.
#[derive(Clone, Debug)]
pub struct Names {
    /// The rule that is broken, if any.
    variant: Variant,
    /// How the second transaction is prepared.
    by: By,
    /// The facts that are known about the first transaction.
    first: First,
    /// Whether to include values that depend on the first transaction, and an ender that rolls back.
    all: bool,
}

/// The steps of the fill, in order.
const FILL: [Fill; 3] = [Fill::Stamp, Fill::Snapshot, Fill::Publish];

impl Names {
    /// Returns the possible next steps of an ender.
    fn ends(&self, state: &State, ender: &Ender) -> Vec<End> {
        let next = if ender.fence.is_some() { End::Draw } else { End::Retire };
        match ender.stage {
            Stage::Idle => vec![End::Ask],
            Stage::Asked => vec![End::Find],
            Stage::Looked => vec![End::AskAgain],
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

    /// Returns whether the server ends the transaction that has the name. It refuses one that is still being
    /// prepared.
    fn may_finish(&self, state: &State) -> bool {
        match state.named {
            Some(SECOND) => state.preparing == Preparing::Over,
            named => named.is_some(),
        }
    }

    /// Takes a step of an ender.
    fn end(&self, state: &mut State, number: usize, step: End) {
        let variant = self.variant;
        let State { enders, records, fences, .. } = state;
        let ender = &mut enders[number];
        match step {
            End::Ask => {
                ender.asked = state.named;
                ender.stage = if ender.asked.is_some() { Stage::Asked } else { Stage::Over };
            }
            End::Find => {
                let has_record = |record: &Record| {
                    let found = match variant {
                        Variant::FoundByName => record.has_name(),
                        _ => ender.asked == Some(record.transaction),
                    };
                    found && [Slot::Preparing, Slot::Prepared].contains(&record.slot)
                };
                let is_rival = |record: &Record| {
                    record.slot == Slot::Preparing && ender.asked != Some(record.transaction)
                };
                if records.iter().any(is_rival) && variant != Variant::RivalIgnored {
                    // The other transaction may have the name when the server looks for it, so the ender starts over.
                    ender.stage = Stage::Idle;
                    return;
                }
                match records.iter().position(has_record) {
                    // The server reports that the transaction is busy.
                    Some(found) if records[found].slot == Slot::Preparing => ender.stage = Stage::Over,
                    Some(found) => {
                        records[found].enders += 1;
                        ender.record = Some(found as u8);
                        ender.fence = Some(records[found].transaction).filter(|_| ender.commits);
                        let asks = variant != Variant::NotConfirmed;
                        ender.stage = if asks { Stage::Looked } else { Stage::Found };
                    }
                    None if variant == Variant::MissedIsNothing => ender.stage = Stage::Found,
                    None => ender.stage = Stage::Looked,
                }
            }
            End::AskAgain => {
                let is_the_same = ender.asked == state.named;
                match ender.record {
                    Some(record) if !is_the_same => {
                        let record = &mut records[usize::from(record)];
                        record.enders = record.enders.saturating_sub(1);
                        if record.slot == Slot::Gone {
                            record.retire(variant);
                        }
                        *ender = Ender { commits: ender.commits, ..Ender::default() };
                    }
                    None if !is_the_same && variant != Variant::MissedIsEverything => {
                        ender.stage = Stage::Idle;
                    }
                    Some(_) => ender.stage = Stage::Found,
                    None => {
                        ender.fence = Some(DATABASE as u8).filter(|_| ender.commits);
                        ender.stage = Stage::Found;
                    }
                }
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
                // Forget the details of the ended ender, so that equal states are recognized as equal.
                *ender = Ender { stage: Stage::Over, commits: ender.commits, ..Ender::default() };
            }
        }
    }

    /// Returns the possible next steps of the session that prepares the second transaction.
    fn prepares(&self, state: &State) -> Vec<Prepare> {
        match state.preparing {
            Preparing::Idle => vec![Prepare::Record],
            Preparing::Recorded if state.named.is_none() => vec![Prepare::Name, Prepare::Fail],
            Preparing::Recorded => vec![Prepare::Fail],
            Preparing::Named => vec![Prepare::Stand],
            Preparing::Over => vec![],
        }
    }

    /// Takes a step of the session that prepares the second transaction.
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
                let free = records.iter().position(|record| record.slot == Slot::Free);
                let free = free.expect("there are more records than transactions");
                *own = Some(free as u8);
                let slot = if by_command { Slot::Preparing } else { Slot::Unnamed };
                records[free] = Record { slot, transaction: SECOND, enders: 0 };
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
                let own = own.expect("it has a record");
                records[usize::from(own)].slot = Slot::Prepared;
            }
            Prepare::Fail => {
                state.preparing = Preparing::Over;
                let own = own.take().expect("it has a record");
                records[usize::from(own)].slot = Slot::Free;
                if self.by == By::Nobody && self.variant != Variant::UnnamedNotRaised {
                    fences[usize::from(SECOND)].withdraw();
                }
            }
        }
    }

    /// Returns whether the second transaction is over while its fence is still raised, because no command reported
    /// its end.
    fn is_to_settle(&self, state: &State) -> bool {
        let unnamed = |own: u8| state.records[usize::from(own)].slot == Slot::Unnamed;
        self.by == By::Nobody
            && state.preparing == Preparing::Over
            && state.named != Some(SECOND)
            && state.own.is_some_and(unnamed)
    }

    /// Lowers the fence of a second transaction that has ended without a command, and frees its record.
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
    /// Takes a step of the fill.
    fn fill(&mut self, step: Fill) {
        self.filled += 1;
        match step {
            Fill::Stamp => self.entry.stamp = self.now,
            Fill::Snapshot => self.entry.value = self.visible,
            Fill::Publish => {}
        }
    }

    /// Takes a step of the reader, which judges the change that its entry depends on.
    fn read(&mut self, step: Read) {
        let view = View {
            now: self.now,
            fences: &self.fences,
            visible: self.visible,
            relevant: 1 << self.depends,
            rows: !0,
            aborted: false,
            // Needless misses are no subject of this model.
            disturbed: true,
        };
        self.reader.step(step, &self.program(), &view, self.entry);
    }

    /// Returns the steps of the reader.
    fn program(&self) -> Vec<Read> {
        program(self.reader.repeatable, &[usize::from(self.depends), DATABASE])
    }
}

impl Model for Names {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let first = Record { slot: Slot::Prepared, transaction: FIRST, enders: 0 };
        let first = if self.first == First::Unrecorded { Record::default() } else { first };
        let records = vec![first, Record::default()];
        let ender = |commits| Ender { commits, ..Ender::default() };
        let start = |depends, commits| State {
            now: 0,
            fences: Default::default(),
            visible: 0,
            named: Some(FIRST),
            records: records.clone(),
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
        if self.first == First::Unnoticed && state.named == Some(FIRST) {
            actions.push(Step::Unnoticed);
        }
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
            Step::Unnoticed => state.named = None,
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
        // Only a transaction that is prepared without a command may be mistaken for another one.
        if (self.by, self.variant) == (By::Command, Variant::AsBuilt) {
            properties.push(Property::always("an ender ends what it has found", |_, state: &State| {
                !state.mistaken
            }));
        }
        properties
    }
}

/// See [`Outcome`] for both.
const NOT_STALE: &str = "no stale read";
const NOT_FUTURE: &str = "no read from the future";

/// The protocol as built must keep all properties. Each other variant must break the property that is named, or be harmless.
#[test]
fn names() {
    use Variant::*;
    use Verdict::*;
    let run = |variant, by, first, verdict| {
        let model = Names { variant, by, first, all: long() };
        check(&format!("names: {variant:?}, {first:?}, {by:?}"), model, verdict);
    };
    for first in [First::Recorded, First::Unrecorded, First::Unnoticed] {
        run(AsBuilt, By::Command, first, Right);
    }
    run(AsBuilt, By::Nobody, First::Recorded, Right);
    for variant in [GivenAtOnce, RivalIgnored, NotConfirmed, GoneIsFree] {
        run(variant, By::Command, First::Recorded, Breaks(NOT_STALE));
    }
    run(FoundByName, By::Command, First::Unnoticed, Breaks(NOT_STALE));
    run(MissedIsNothing, By::Command, First::Unrecorded, Breaks(NOT_STALE));
    run(MissedIsEverything, By::Command, First::Unrecorded, Harmless);
    for variant in [UnnamedNotRaised, UnnamedWithdrawn] {
        run(variant, By::Nobody, First::Recorded, Breaks(NOT_STALE));
    }
}
