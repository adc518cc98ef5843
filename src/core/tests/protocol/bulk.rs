//! Marks of records: an entry depends on one row of a relation by the fence of the row's tag and by the *bulk fence* of the
//! relation. A writer *reports* a row that it changes: it raises the fence of the row's tag. A writer that has not reported all
//! of its rows must raise the bulk fence, but only if the record of the relation is marked. `fence/mod.rs` of the core has the
//! rules.
//!
//! The model has one relation with two rows, and the entries depend on the first row. Every writer raises the fence of the record
//! if it finds the record, or else the unclaimed fence (`claims.rs`). `fence/mod.rs` calls the former the first fence of the
//! record. A writer looks for the record and for the mark, raises its fences, and looks again until the count of claims stays the
//! same. A fill claims the record, marks it, counts the mark (`BumpMark`), and then looks at the fence of the record. If that fence
//! is at rest, the bulk fence takes over its number (`CoverBulk`), and the mark is *settled*. Otherwise the entry also depends on
//! the fence of the record.
//!
//! A writer that will not look again claims the record, and raises the bulk fence whether it finds the mark or not: a fill may mark
//! the record and settle the mark before the writer raises the fence of the record.
//!
//! `main.rs` explains variants and verdicts, and how to read a counterexample. `as_built/` does not compare this model with the
//! code, so a change of the steps in `fence/records.rs` must be made here, too.
//!
//! A *stamp* is a number of the clock of changes, which each committed change increments. A reader with a *safe stamp* may not see
//! changes after that stamp. A *fill* computes an entry and stores it. To *claim* a record is to create it for the relation.

use stateright::{Model, Property};

use crate::memory::{Fence, LATEST};
use crate::{Verdict, check, long};

/// The fence of the record that every writer raises. The fences have the order in which the code raises and lowers them.
const ANY: usize = 0;
const BULK: usize = 1;
const UNCLAIMED: usize = 2;
/// The fence of the tag of the first row.
const TAG: usize = 3;
const FENCES: usize = 4;

/// The rows that a writer changes, in order. The tag of the second row is no dependency, so its fence is not in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Rows {
    /// The writer changes the first row and reports it.
    First,
    /// The writer changes the second row and reports it.
    Second,
    /// The writer changes the second row and reports it. Then it changes the first row without reporting it.
    SecondThenFirstUnreported,
}

/// One atomic step of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Write {
    /// Reads the count of claims. From the second time on, decides whether to look again.
    Count,
    /// Looks for the record.
    LookRecord,
    /// Claims the record. Only a writer that will not look again takes this step.
    Claim,
    /// Looks for the mark.
    LookMark,
    /// Raises one of the fences that the writer must raise.
    Raise(usize),
    /// The commit: the writer's change becomes visible.
    Show,
    /// Draws the number of the change.
    Draw,
    /// Lowers one of its fences.
    Lower(usize),
}

/// One atomic step of a fill. The steps from `Claim` to `CompareAny` are those of `claims.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fill {
    Stamp,
    /// Takes a snapshot, and computes the value on it.
    Snapshot,
    Claim,
    /// Reads whether the record is settled. If it is, the fill goes on with `Mark`.
    ReadSettled,
    BumpClaim,
    LookUnclaimed,
    CoverAny,
    SettleRecord,
    /// Reads the number of the fence of the record, and decides whether the entry also depends on the unclaimed fence.
    CompareAny,
    /// Marks the record, and reads its state in the same step. If the mark is settled, this is the last step.
    Mark,
    /// Counts the mark as a claim.
    BumpMark,
    /// Looks at the fence of the record, and decides whether the entry also depends on it.
    LookAny,
    /// Gives the bulk fence the number of the fence of the record.
    CoverBulk,
    /// Settles the mark.
    SettleMark,
}

/// One step of any actor. There is one reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Writer(usize, Write),
    Filler(usize, Fill),
    /// A fill of another relation counts its claim. If the record is shared, a writer of the other relation changes a row and
    /// reports it instead.
    Other,
    /// The reader will keep one snapshot, and notes its safe stamp before it takes the snapshot.
    Keep,
    /// The reader begins.
    Begin,
    /// The reader reads the entry of a fill. It checks all fences in one step, which is enough here because
    /// `read_rule.rs` covers the separate steps. This is the last step of the model.
    Read(usize),
}

/// The steps that a writer takes next: the next one, or the raising or lowering of several fences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Next(Write),
    Raising,
    Lowering,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Writer {
    /// The rows that it changes.
    rows: Rows,
    /// The present part of its program.
    phase: Phase,
    /// The count of claims that it has read last.
    counted: Option<u8>,
    /// How often it has looked again.
    looks: u8,
    /// Whether it will not look again.
    is_last_look: bool,
    /// Whether it has found the record of the relation.
    found_record: bool,
    /// The fences that it must raise.
    wanted: [bool; FENCES],
    /// The fences that it has raised.
    raised: [bool; FENCES],
    /// The number that it has drawn.
    number: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Filler {
    /// The next step. None once the entry is published.
    next: Option<Fill>,
    /// The stamp of the entry.
    stamp: u8,
    /// The changes that the value contains, one bit for each writer.
    value: u8,
    /// Whether the fence that the fill has looked at last had no pending changes.
    rested: bool,
    /// The number of that fence.
    changed: u8,
    /// The fences that the entry depends on.
    depends: [bool; FENCES],
    /// Whether the mark was settled as of `Mark`.
    found_settled: bool,
    /// Whether the fill may settle the mark: the record was settled as of `Mark`.
    can_settle: bool,
}

/// The state of the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Record {
    /// Whether a search for the relation finds the record.
    is_claimed: bool,
    /// Whether entries need not depend on the unclaimed fence any more.
    is_settled: bool,
    /// Whether an entry may depend on the bulk fence, so that writers must look at it.
    is_marked: bool,
    /// Whether entries of single rows need not depend on the fence of the record any more.
    is_mark_settled: bool,
}

/// How the read ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Outcome {
    /// Whether the read has ended.
    has_read: bool,
    /// Whether the reader got a value.
    is_hit: bool,
    /// The reader got a value without a change that it must see.
    is_stale: bool,
    /// The reader, with a safe stamp, got a value with a change that it must not see.
    is_newer: bool,
    /// The value contains a change.
    is_new: bool,
    /// The entry was stored by a fill that found the mark settled.
    by_settled: bool,
    /// The second row was changed after the entry's stamp.
    after_other_row: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// The clock of changes.
    now: u8,
    /// The count of claims.
    claims: u8,
    /// The record of the relation.
    record: Record,
    /// The fences, by their constants above.
    fences: [Fence; FENCES],
    /// The changes that are visible, one bit for each writer.
    visible: u8,
    /// The writers.
    writers: Vec<Writer>,
    /// The fills.
    fillers: Vec<Filler>,
    /// The number of steps that other relations still take.
    others: u8,
    /// The safe stamp of a reader that keeps one snapshot.
    safe_stamp: Option<u8>,
    /// The changes that the reader must see, once it has begun. With a safe stamp, it must not see any others.
    begun: Option<u8>,
    /// How the read ended.
    outcome: Outcome,
}

/// The protocol as it is built, and with one rule broken. A new variant must be added to `bulk_with_mistakes`, with the property
/// that it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// The protocol as it is built.
    AsBuilt,
    /// A writer does not look again.
    NeverLooksAgain,
    /// A writer looks again before it raises the fences that it found first.
    LooksAgainBeforeRaising,
    /// A writer reads the count of claims after it has looked for the mark.
    CountsAfterLooking,
    /// A writer that does not look again raises the bulk fence only if it has found the mark.
    LastLookIfMarked,
    /// A writer raises the bulk fence only if it has reported none of its rows.
    OneReportedRowIsEnough,
    /// A writer judges whether it has reported all rows before it changes the last one.
    JudgedEarly,
    /// A writer does not raise the fence of the tag of the row that it reports.
    TagNotRaised,
    /// A fill does not count its mark.
    NoBump,
    /// A fill counts its mark before it sets it.
    BumpBeforeMark,
    /// An entry never depends on the fence of the record.
    NeverOnAny,
    /// A fill settles the mark although the fence of the record is raised.
    SettledThoughPending,
    /// A fill settles the mark before it looks at the fence of the record.
    SettledBeforeItRests,
    /// A fill settles the mark of a record that is not settled.
    RecordNotSettled,
    /// A fill trusts the mark of a shared record, and settles it.
    SharedSettled,
    /// The bulk fence never takes over the number of the record's fence.
    NotCovered,
    /// The bulk fence takes over that number after the mark is settled.
    CoveredAfterSettled,
}

/// The record of the relation when the model begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// The relation has no record.
    Unclaimed,
    /// The relation has a settled record without a mark.
    Settled,
    /// Another relation has a settled record with a settled mark, and the relation is going to share it.
    Shared,
}

/// How often a writer looks for the record and the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looks {
    /// Until the count of claims stays the same.
    UntilUnchanged,
    /// Until the count of claims stays the same. A writer that has looked again this many times claims the record, and looks only
    /// once more.
    AtMost(u8),
    /// Once: it claims the record, looks, and raises the fences.
    Once,
}

/// The model: a variant, and how many writers and fills there are.
#[derive(Clone, Copy, Debug)]
struct Marks {
    /// The rule that is broken, if any.
    variant: Variant,
    /// The record of the relation when the model begins.
    start: Start,
    /// How often a writer looks for the record and the mark.
    looks: Looks,
    /// The number of writers.
    writers: usize,
    /// The number of fills.
    fillers: usize,
    /// The changes of the writers. The model begins with each choice of one of these for each writer.
    rows: &'static [Rows],
    /// Whether a writer raises and lowers its fences in any order.
    any_order: bool,
    /// How many claims of other relations are counted, or changes of the relation that shares the record.
    others: u8,
}

impl Rows {
    const ALL: [Self; 3] = [Self::First, Self::Second, Self::SecondThenFirstUnreported];

    /// Returns the changes in order: whether each changes the first row, and whether the row is reported.
    fn changes(self) -> &'static [(bool, bool)] {
        match self {
            Self::First => &[(true, true)],
            Self::Second => &[(false, true)],
            Self::SecondThenFirstUnreported => &[(false, true), (true, false)],
        }
    }

    fn has_first(self) -> bool {
        self.changes().iter().any(|(is_first, _)| *is_first)
    }

    fn reports_first(self) -> bool {
        self.changes().contains(&(true, true))
    }
}

impl Marks {
    /// Returns the first step of a writer.
    fn first_step(self) -> Write {
        match (self.looks, self.variant) {
            (Looks::Once, _) => Write::Claim,
            (_, Variant::CountsAfterLooking) => Write::LookRecord,
            _ => Write::Count,
        }
    }

    /// Returns whether a writer counts its rows as reported.
    fn are_reported(self, rows: Rows) -> bool {
        let is_reported = |(_, reported): &(bool, bool)| *reported;
        let changes = rows.changes();
        match self.variant {
            Variant::OneReportedRowIsEnough => changes.iter().any(is_reported),
            Variant::JudgedEarly if changes.len() > 1 => changes[..changes.len() - 1].iter().all(is_reported),
            _ => changes.iter().all(is_reported),
        }
    }

    /// Takes a step of a writer.
    fn write(self, state: &mut State, number: usize, step: Write) {
        use Variant::{CountsAfterLooking, LooksAgainBeforeRaising, NeverLooksAgain};
        let State { writers, record, fences, claims, .. } = state;
        let writer = &mut writers[number];
        writer.phase = match step {
            Write::Count => {
                let before = writer.counted.replace(*claims);
                match before {
                    None if self.variant == CountsAfterLooking => Phase::Raising,
                    None => Phase::Next(Write::LookRecord),
                    Some(before) if before == *claims => match self.variant {
                        LooksAgainBeforeRaising => Phase::Raising,
                        _ => Phase::Next(Write::Show),
                    },
                    Some(_) => {
                        writer.looks += 1;
                        match Looks::AtMost(writer.looks) == self.looks {
                            true => Phase::Next(Write::Claim),
                            false => Phase::Next(Write::LookRecord),
                        }
                    }
                }
            }
            Write::LookRecord => {
                writer.found_record = record.is_claimed;
                Phase::Next(Write::LookMark)
            }
            Write::Claim => {
                record.is_claimed = true;
                writer.found_record = true;
                writer.is_last_look = true;
                Phase::Next(Write::LookMark)
            }
            Write::LookMark => {
                writer.wanted[if writer.found_record { ANY } else { UNCLAIMED }] = true;
                writer.wanted[TAG] = writer.rows.reports_first() && self.variant != Variant::TagNotRaised;
                let is_marked = record.is_claimed && record.is_marked;
                let is_always = writer.is_last_look && self.variant != Variant::LastLookIfMarked;
                let is_unreported = writer.is_last_look || !self.are_reported(writer.rows);
                writer.wanted[BULK] |= is_always || is_marked && is_unreported;
                match (self.variant, writer.counted) {
                    (CountsAfterLooking, None) | (LooksAgainBeforeRaising, _) => Phase::Next(Write::Count),
                    _ => Phase::Raising,
                }
            }
            Write::Raise(fence) => {
                fences[fence].raise();
                writer.raised[fence] = true;
                Phase::Raising
            }
            Write::Show => {
                state.visible |= 1 << number;
                Phase::Next(Write::Draw)
            }
            Write::Draw => {
                state.now += 1;
                writer.number = state.now;
                Phase::Lowering
            }
            Write::Lower(fence) => {
                fences[fence].lower(writer.number);
                writer.raised[fence] = false;
                Phase::Lowering
            }
        };
        if writer.phase == Phase::Raising && writer.raised == writer.wanted {
            let looks_again =
                !writer.is_last_look && ![NeverLooksAgain, LooksAgainBeforeRaising].contains(&self.variant);
            writer.phase = Phase::Next(if looks_again { Write::Count } else { Write::Show });
        }
    }

    /// Takes a step of a fill. Returns the next one.
    fn fill(self, state: &mut State, number: usize, step: Fill) -> Option<Fill> {
        use Fill::*;
        let is_shared = self.start == Start::Shared;
        let State { fillers, record, fences, .. } = state;
        let filler = &mut fillers[number];
        match step {
            Stamp => {
                filler.stamp = state.now;
                Some(Snapshot)
            }
            Snapshot => {
                filler.value = state.visible;
                Some(Claim)
            }
            Claim => {
                record.is_claimed = true;
                Some(ReadSettled)
            }
            ReadSettled if record.is_settled && !is_shared => Some(self.first_of_mark()),
            ReadSettled => Some(BumpClaim),
            BumpClaim => {
                state.claims += 1;
                Some(LookUnclaimed)
            }
            LookUnclaimed => {
                filler.look(fences[UNCLAIMED]);
                Some(if filler.rested && !is_shared { CoverAny } else { CompareAny })
            }
            CoverAny => {
                fences[ANY].seq = fences[ANY].seq.max(filler.changed);
                Some(SettleRecord)
            }
            SettleRecord => {
                record.is_settled = true;
                Some(CompareAny)
            }
            CompareAny => {
                let is_behind = fences[ANY].seq < filler.changed;
                filler.depends[UNCLAIMED] = !filler.rested || filler.changed > filler.stamp || is_behind;
                Some(self.first_of_mark())
            }
            Mark | BumpMark | LookAny | CoverBulk | SettleMark => self.mark(state, number, step),
        }
    }

    /// Returns the first step of a fill that is not one of `claims.rs`.
    fn first_of_mark(self) -> Fill {
        if self.variant == Variant::BumpBeforeMark { Fill::BumpMark } else { Fill::Mark }
    }

    /// Takes a step of a fill that marks the record. Returns the next one.
    fn mark(self, state: &mut State, number: usize, step: Fill) -> Option<Fill> {
        use Fill::*;
        use Variant::*;
        let is_shared = self.start == Start::Shared && self.variant != SharedSettled;
        let State { fillers, record, fences, .. } = state;
        let filler = &mut fillers[number];
        match step {
            Mark => {
                record.is_marked = true;
                filler.depends[BULK] = true;
                filler.depends[TAG] = true;
                filler.found_settled = record.is_mark_settled && !is_shared;
                let is_record_settled = record.is_settled || self.variant == RecordNotSettled;
                filler.can_settle = is_record_settled && !is_shared;
                match self.variant {
                    _ if filler.found_settled => None,
                    NoBump | BumpBeforeMark => Some(LookAny),
                    _ => Some(BumpMark),
                }
            }
            BumpMark => {
                state.claims += 1;
                match self.variant {
                    BumpBeforeMark => Some(Mark),
                    SettledBeforeItRests if filler.can_settle => Some(SettleMark),
                    _ => Some(LookAny),
                }
            }
            LookAny => {
                filler.look(fences[ANY]);
                let settles = filler.can_settle && filler.rested;
                filler.depends[ANY] = !settles && self.variant != NeverOnAny;
                match self.variant {
                    SettledThoughPending if filler.can_settle && !settles => Some(SettleMark),
                    NotCovered | CoveredAfterSettled if settles => Some(SettleMark),
                    _ => settles.then_some(CoverBulk),
                }
            }
            CoverBulk => {
                fences[BULK].seq = fences[BULK].seq.max(filler.changed);
                (![CoveredAfterSettled, SettledBeforeItRests].contains(&self.variant)).then_some(SettleMark)
            }
            SettleMark => {
                record.is_mark_settled = true;
                match self.variant {
                    SettledBeforeItRests => Some(LookAny),
                    CoveredAfterSettled => Some(CoverBulk),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Takes the reader's only read, of the entry of a fill, and judges the value if it is a hit.
    fn read(state: &mut State, number: usize) {
        let filler = &state.fillers[number];
        let safe_stamp = state.safe_stamp.unwrap_or(LATEST);
        let mut dependencies = (0..FENCES).filter(|fence| filler.depends[*fence]);
        state.outcome.has_read = true;
        if !dependencies.all(|fence| state.fences[fence].holds(filler.stamp, safe_stamp)) {
            return;
        }
        let of = |is_it: fn(&Writer) -> bool| {
            let writers = state.writers.iter().enumerate().filter(|(_, writer)| is_it(writer));
            writers.fold(0, |bits, (number, _)| bits | 1 << number)
        };
        let first: u8 = of(|writer| writer.rows.has_first());
        let began_with = state.begun.unwrap_or(0);
        let is_later = |writer: &Writer| writer.rows == Rows::Second && writer.number > filler.stamp;
        state.outcome = Outcome {
            has_read: true,
            is_hit: true,
            is_stale: began_with & first & !filler.value != 0,
            is_newer: state.safe_stamp.is_some() && filler.value & first & !began_with != 0,
            is_new: filler.value & first != 0,
            by_settled: filler.found_settled,
            after_other_row: state.writers.iter().any(is_later),
        };
    }
}

impl Filler {
    /// Looks at a fence.
    fn look(&mut self, fence: Fence) {
        (self.rested, self.changed) = (fence.pending == 0, fence.seq);
    }
}

impl Model for Marks {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let has_record = self.start == Start::Settled;
        let is_foreign = self.start == Start::Shared;
        let record = Record {
            is_claimed: has_record,
            is_settled: has_record || is_foreign,
            is_marked: is_foreign,
            is_mark_settled: is_foreign,
        };
        let writer = |rows| Writer {
            rows,
            phase: Phase::Next(self.first_step()),
            counted: None,
            looks: 0,
            is_last_look: false,
            found_record: false,
            wanted: [false; FENCES],
            raised: [false; FENCES],
            number: 0,
        };
        // Each list of writers, without the lists that only have another order.
        let mut lists = vec![Vec::new()];
        for _ in 0..self.writers {
            lists = lists
                .iter()
                .flat_map(|list: &Vec<usize>| {
                    let least = list.last().copied().unwrap_or(0);
                    (least..self.rows.len()).map(|rows| [list.as_slice(), &[rows]].concat())
                })
                .collect();
        }
        let writers = lists.iter().map(|list| list.iter().map(|rows| writer(self.rows[*rows])).collect());
        let state = |writers| State {
            now: 0,
            claims: 0,
            record,
            fences: Default::default(),
            visible: 0,
            writers,
            fillers: vec![Filler { next: Some(Fill::Stamp), ..Filler::default() }; self.fillers],
            others: self.others,
            safe_stamp: None,
            begun: None,
            outcome: Outcome::default(),
        };
        writers.map(state).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        if state.outcome.has_read {
            return;
        }
        for (number, writer) in state.writers.iter().enumerate() {
            let mut add = |is_next: &dyn Fn(usize) -> bool, step: fn(usize) -> Write| {
                let fences = (0..FENCES).filter(|fence| is_next(*fence));
                let most = if self.any_order { FENCES } else { 1 };
                actions.extend(fences.take(most).map(|fence| Step::Writer(number, step(fence))));
            };
            match writer.phase {
                Phase::Raising => add(&|fence| writer.wanted[fence] && !writer.raised[fence], Write::Raise),
                Phase::Lowering => add(&|fence| writer.raised[fence], Write::Lower),
                Phase::Next(step) => actions.push(Step::Writer(number, step)),
            }
        }
        for (number, filler) in state.fillers.iter().enumerate() {
            actions.extend(filler.next.map(|step| Step::Filler(number, step)));
        }
        if state.others > 0 {
            actions.push(Step::Other);
        }
        match state.begun {
            None if state.safe_stamp.is_none() => actions.extend([Step::Keep, Step::Begin]),
            None => actions.push(Step::Begin),
            Some(_) => {
                let published = |number: &usize| state.fillers[*number].next.is_none();
                actions.extend((0..self.fillers).filter(published).map(Step::Read));
            }
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Writer(number, step) => self.write(&mut state, number, step),
            Step::Filler(number, step) => state.fillers[number].next = self.fill(&mut state, number, step),
            Step::Other => {
                state.others -= 1;
                match self.start {
                    Start::Shared => {
                        state.now += 1;
                        state.fences[ANY].seq = state.now;
                    }
                    _ => state.claims += 1,
                }
            }
            Step::Keep => state.safe_stamp = Some(state.now),
            Step::Begin => state.begun = Some(state.visible),
            Step::Read(number) => Self::read(&mut state, number),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(NOT_STALE, |_, state: &State| !state.outcome.is_stale),
            Property::always(NOT_NEWER, |_, state: &State| !state.outcome.is_newer),
            Property::sometimes("a hit on a new value", |_, state: &State| state.outcome.is_new),
            Property::sometimes("a hit with a safe stamp", |_, state: &State| {
                state.outcome.is_hit && state.safe_stamp.is_some()
            }),
        ];
        // The mark of a shared record is never settled, and the first fill settles any other.
        if self.start != Start::Shared && self.fillers > 1 {
            let by_settled = |_: &Self, state: &State| state.outcome.by_settled;
            properties.push(Property::sometimes("a hit by a settled mark", by_settled));
        }
        // An entry always depends on the fence of a shared record. A writer that looks once raises the bulk fence in any case.
        if self.start != Start::Shared && self.looks != Looks::Once {
            let after_other_row = |_: &Self, state: &State| state.outcome.after_other_row;
            properties.push(Property::sometimes("a hit although another row has changed", after_other_row));
        }
        properties
    }
}

/// No reader gets a value without a change that was visible when the reader began.
const NOT_STALE: &str = "no stale read";
/// No reader with a safe stamp gets a value with a change that was not visible when the reader began.
const NOT_NEWER: &str = "no value newer than the snapshot";

/// Checks a model. Prints how many writers, fills and steps of other relations it has.
fn run(model: Marks, verdict: Verdict) {
    let Marks { variant, start, looks, writers, fillers, others, .. } = model;
    check(&format!("bulk: {variant:?}, {start:?}, {looks:?}, {writers}/{fillers}/{others}"), model, verdict);
}

/// Returns the model of a variant, with one writer and two fills.
fn of(variant: Variant, start: Start) -> Marks {
    Marks {
        variant,
        start,
        looks: Looks::UntilUnchanged,
        writers: 1,
        fillers: 2,
        rows: &Rows::ALL,
        any_order: false,
        others: 0,
    }
}

/// The protocol as built must keep both properties.
#[test]
fn bulk() {
    for start in [Start::Settled, Start::Unclaimed, Start::Shared] {
        let built = Marks { others: 1, ..of(Variant::AsBuilt, start) };
        for looks in [Looks::UntilUnchanged, Looks::AtMost(1), Looks::Once] {
            run(Marks { looks, fillers: 1, ..built }, Verdict::Right);
            if long() {
                run(Marks { looks, ..built }, Verdict::Right);
            }
        }
        if long() {
            run(Marks { any_order: true, others: 0, ..built }, Verdict::Right);
        }
    }
    run(of(Variant::AsBuilt, Start::Settled), Verdict::Right);
    if long() {
        // The same for a relation without a record of its own has 36 million states.
        let two = Marks { writers: 2, fillers: 1, others: 1, ..of(Variant::AsBuilt, Start::Settled) };
        run(two, Verdict::Right);
    }
}

/// Each variant must break the property that is named: a model that cannot fail proves nothing.
#[test]
fn bulk_with_mistakes() {
    use Variant::*;
    for variant in [
        NeverLooksAgain,
        LooksAgainBeforeRaising,
        CountsAfterLooking,
        OneReportedRowIsEnough,
        JudgedEarly,
        TagNotRaised,
        NoBump,
        BumpBeforeMark,
        NeverOnAny,
        SettledThoughPending,
        SettledBeforeItRests,
    ] {
        run(of(variant, Start::Settled), Verdict::Breaks(NOT_STALE));
    }
    for variant in [NotCovered, CoveredAfterSettled] {
        run(of(variant, Start::Settled), Verdict::Breaks(NOT_NEWER));
    }
    let last = of(LastLookIfMarked, Start::Settled);
    run(Marks { looks: Looks::Once, ..last }, Verdict::Breaks(NOT_STALE));
    let last =
        Marks { looks: Looks::AtMost(1), others: 1, fillers: 1, ..of(LastLookIfMarked, Start::Unclaimed) };
    run(last, Verdict::Breaks(NOT_STALE));
    let rows = &[Rows::SecondThenFirstUnreported];
    run(Marks { rows, ..of(RecordNotSettled, Start::Unclaimed) }, Verdict::Breaks(NOT_NEWER));
    run(Marks { fillers: 1, others: 1, ..of(SharedSettled, Start::Shared) }, Verdict::Breaks(NOT_NEWER));
}
