//! The read rule: a reader gets an entry only if each of the entry's fences has no pending raise and has not moved
//! since the entry's stamp. `fence/mod.rs` of the core has the rule, and `fence/fences.rs` the code; `as_built/fences.rs` takes the
//! steps of this model as built with it.
//!
//! A value is the set of the changes that are in it. A value is *stale* if it lacks a change that was visible when
//! its reader began. It is *from the future* if it has a change that the snapshot of a REPEATABLE READ reader lacks.
//! In the model, an entry can still be found after it was replaced. No tier keeps as much, so a rule that holds here
//! holds for every tier.
//!
//! Each writer changes rows and catalogs. Its rows are visible with the commit (`Show`). Its catalog changes are
//! visible to a session that accepts invalidation messages after they were sent (`Send`), which is later. The two are
//! separate bits of a value: see [`CATALOGS`]. Only some variants have the steps for catalogs, because these steps
//! multiply the states.
//!
//! A *fence* is a word in shared memory that says when a dependency of entries last changed. A *stamp* is a number of the clock of
//! changes, which each committed change increments. A *tier* is a cache in memory that several processes share. A *fill* computes
//! an entry and stores it.

use stateright::{Model, Property};

use crate::memory::Fence;
use crate::reader::{Entry, Outcome, Read, Reader, View, program};
use crate::{Verdict, check, long};

/// The number of dependencies, each with a fence.
const FENCES: usize = 2;

/// The bits of the writers' catalog changes. The lower half of a value has their row changes. So there may be at most four writers.
const CATALOGS: u8 = 0xf0;

/// One atomic step of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// Raises this fence.
    Raise(usize),
    /// The writer's changed rows become visible: the commit.
    Show,
    /// The writer's catalog invalidations are sent: sessions that plan from now on see its changed catalogs.
    Send,
    /// Draws a number from the clock of changes.
    Draw,
    /// Lowers this fence with the drawn number.
    Lower(usize),
    /// Aborts, instead of `Show` and the steps after it.
    Abort,
    /// Takes the raise of this fence back, after an abort.
    Withdraw(usize),
    // Only variants have the following steps.
    /// Sets `seq` to the drawn number, unless `seq` is greater.
    MoveSeq(usize),
    /// Takes the raise back.
    MovePending(usize),
    /// Takes the raise back, and sets `seq` to the drawn number in any case.
    Overwrite(usize),
    /// Takes the raises of all writers back.
    Clear(usize),
}

/// One atomic step of a fill. A fill under REPEATABLE READ takes the same steps: its stamp is its safe stamp (`reader.rs`), and
/// any time may pass before its snapshot and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fill {
    /// Reads the stamp from the clock of changes.
    Stamp,
    /// Accepts invalidation messages, and plans with the catalogs as they are at that moment.
    Plan,
    /// Takes a snapshot and reads the source with it.
    Snapshot,
    /// Stores the entry.
    Publish,
}

/// One step of one actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Writer(usize, Write),
    Filler(usize, Fill),
    Reader(usize, Read),
}

/// The progress of a writer: a transaction that changes what the fences stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Writer {
    /// How many steps of its program it has taken. The program of an abort counts from 0 again.
    at: u8,
    /// How many fences it had raised when it aborted. None if it has not aborted.
    aborted: Option<u8>,
    /// The number that it has drawn.
    pub number: u8,
}

/// The progress of a fill, which computes a value and stores it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filler {
    /// How many steps of its program it has taken.
    at: u8,
    /// The stamp of the value.
    pub stamp: u8,
    /// The changes that the value contains, as bits.
    value: u8,
}

/// The state of the model between two steps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// The clock of changes.
    pub now: u8,
    /// The fences.
    pub fences: [Fence; FENCES],
    /// The changes that are visible, as bits.
    visible: u8,
    /// The writers.
    pub writers: Vec<Writer>,
    /// The fills.
    pub fillers: Vec<Filler>,
    /// The readers.
    pub readers: Vec<Reader>,
}

/// The rule as it is built, with one part broken, or built in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The rule as it is built.
    AsBuilt,
    /// As built, with writers that also change catalogs.
    Catalogs,
    /// Writers do not raise fences. They only move `seq` when their changes are visible.
    NoPending,
    /// A writer that lowers or withdraws a fence clears the raises of all writers.
    PendingIsAFlag,
    /// A writer raises its fences after its changes are visible.
    RaisedWhenVisible,
    /// A writer draws its number before its changes are visible.
    DrawnBeforeVisible,
    /// A writer lowers a fence in two steps: `pending` first, then `seq`.
    PendingBeforeSeq,
    /// A writer that lowers a fence overwrites `seq`, even with a smaller number.
    SeqWithoutMax,
    /// A fill takes its stamp after its snapshot.
    SnapshotBeforeStamp,
    /// A fill plans before it takes its stamp.
    PlannedBeforeStamp,
    /// A writer lowers its fences before it sends its catalog invalidations.
    LoweredBeforeSent,
    /// A REPEATABLE READ reader has no safe stamp.
    NoSafeStamp,
    /// A REPEATABLE READ reader notes its safe stamp after it has taken its snapshot.
    SafeStampAfterSnapshot,
    /// A reader checks a fence in two steps: `seq` first, then `pending`.
    TwoLoadsSeqFirst,
    /// A reader checks only the first fence of an entry.
    OneFenceOfTwo,
    /// A writer that aborts leaves its fences raised.
    AbortLeavesPending,
    /// A writer draws a number for each of its fences.
    NumberForEachFence,
    /// A writer lowers a fence in two steps: `seq` first, then `pending`.
    SeqBeforePending,
    /// A writer that aborts lowers its fences with a new number.
    WithdrawBumps,
    /// A reader checks a fence in two steps: `pending` first, then `seq`.
    TwoLoadsPendingFirst,
}

impl Variant {
    /// Whether writers also change catalogs.
    fn has_catalogs(self) -> bool {
        matches!(self, Self::Catalogs | Self::PlannedBeforeStamp | Self::LoweredBeforeSent)
    }
}

/// The fences of what a writer changes, in order, and whether it may abort.
type Plan = (&'static [usize], bool);

/// The model: the programs of all actors, which follow from a variant.
#[derive(Clone, Debug)]
pub struct ReadRule {
    /// The programs of the writers.
    writers: Vec<Writing>,
    /// The program of a fill.
    fill: Vec<Fill>,
    /// The number of fills.
    fillers: usize,
    /// The number of readers.
    readers: usize,
    /// The programs of the readers: under READ COMMITTED, then under REPEATABLE READ.
    reads: [Vec<Read>; 2],
}

/// The programs of a writer: the commit, and one abort for each number of raised fences.
#[derive(Clone, Debug)]
struct Writing {
    /// The steps of a writer that commits.
    commit: Vec<Write>,
    /// The steps of a writer that aborts after it has raised this many fences.
    aborts: Vec<Vec<Write>>,
}

impl ReadRule {
    /// Creates the model, with `fillers` fills and `readers` readers. Every entry depends on `dependencies`, and readers check them
    /// in this order. Each reader is tried under both isolation levels.
    pub fn new(
        variant: Variant,
        writers: &[Plan],
        fillers: usize,
        readers: usize,
        dependencies: &[usize],
    ) -> Self {
        let mut fill = match variant {
            Variant::SnapshotBeforeStamp => vec![Fill::Plan, Fill::Snapshot, Fill::Stamp, Fill::Publish],
            Variant::PlannedBeforeStamp => vec![Fill::Plan, Fill::Stamp, Fill::Snapshot, Fill::Publish],
            _ => vec![Fill::Stamp, Fill::Plan, Fill::Snapshot, Fill::Publish],
        };
        fill.retain(|step| variant.has_catalogs() || *step != Fill::Plan);
        let writers = writers.iter().map(|plan| Writing::new(variant, *plan)).collect();
        let reads = [false, true].map(|repeatable| reading(variant, repeatable, dependencies));
        Self { writers, fill, fillers, readers, reads }
    }

    /// Two writers that change the same dependency. The first one may abort.
    pub fn one_fence(variant: Variant) -> Self {
        Self::new(variant, &[(&[0], true), (&[0], false)], 2, 1, &[0])
    }

    /// Entries that depend on two things. One writer changes one of them, the other writer both.
    pub fn two_fences(variant: Variant) -> Self {
        Self::new(variant, &[(&[1], true), (&[0, 1], true)], 2, 1, &[0, 1])
    }

    /// Entries that depend on two things. Two writers change the first of them, and the third writer changes both.
    pub fn three_writers(variant: Variant) -> Self {
        Self::new(variant, &[(&[0], true), (&[0], false), (&[1, 0], false)], 1, 1, &[0, 1])
    }

    /// Returns the program of a reader.
    fn reads(&self, reader: &Reader) -> &[Read] {
        &self.reads[usize::from(reader.repeatable)]
    }
}

impl Writing {
    /// Makes the programs of a writer that changes these dependencies, as the variant has them.
    fn new(variant: Variant, (changes, may_abort): Plan) -> Self {
        use Variant::*;
        let raises = || changes.iter().map(|fence| Write::Raise(*fence));
        let lowers = || {
            changes.iter().flat_map(|&fence| match variant {
                NoPending => vec![Write::MoveSeq(fence)],
                PendingIsAFlag => vec![Write::MoveSeq(fence), Write::Clear(fence)],
                PendingBeforeSeq => vec![Write::MovePending(fence), Write::MoveSeq(fence)],
                SeqBeforePending => vec![Write::MoveSeq(fence), Write::MovePending(fence)],
                SeqWithoutMax => vec![Write::Overwrite(fence)],
                NumberForEachFence => vec![Write::Draw, Write::Lower(fence)],
                _ => vec![Write::Lower(fence)],
            })
        };
        let (visible, draw) = ([Write::Show, Write::Send], [Write::Draw]);
        let mut commit: Vec<_> = match variant {
            NoPending => visible.into_iter().chain(draw).chain(lowers()).collect(),
            RaisedWhenVisible => visible.into_iter().chain(raises()).chain(draw).chain(lowers()).collect(),
            DrawnBeforeVisible => raises().chain(draw).chain(visible).chain(lowers()).collect(),
            LoweredBeforeSent => {
                raises().chain([Write::Show, Write::Draw]).chain(lowers()).chain([Write::Send]).collect()
            }
            NumberForEachFence => raises().chain(visible).chain(lowers()).collect(),
            _ => raises().chain(visible).chain(draw).chain(lowers()).collect(),
        };
        commit.retain(|step| variant.has_catalogs() || *step != Write::Send);
        let undo = |fence: &usize| match variant {
            PendingIsAFlag => vec![Write::Clear(*fence)],
            WithdrawBumps => vec![Write::Draw, Write::Lower(*fence)],
            AbortLeavesPending => vec![],
            _ => vec![Write::Withdraw(*fence)],
        };
        let abort = |raised: usize| {
            let undone = changes[..raised].iter().flat_map(undo);
            [Write::Abort].into_iter().chain(undone).collect()
        };
        Self { commit, aborts: (0..=changes.len()).filter(|_| may_abort).map(abort).collect() }
    }

    /// Whether a writer has aborted and has taken back all its raises.
    fn has_aborted(&self, writer: &Writer) -> bool {
        writer.aborted.is_some_and(|raised| self.aborts[usize::from(raised)].len() == usize::from(writer.at))
    }

    /// Returns the possible next steps of a writer: none, one, or a choice between the next step and an abort.
    fn next(&self, writer: &Writer) -> [Option<Write>; 2] {
        let at = usize::from(writer.at);
        if let Some(raised) = writer.aborted {
            return [self.aborts[usize::from(raised)].get(at).copied(), None];
        }
        let done = &self.commit[..at];
        let undecided = !done.is_empty() && done.iter().all(|step| matches!(step, Write::Raise(_)));
        [self.commit.get(at).copied(), (undecided && !self.aborts.is_empty()).then_some(Write::Abort)]
    }
}

/// Returns the program of a reader.
fn reading(variant: Variant, repeatable: bool, dependencies: &[usize]) -> Vec<Read> {
    let steps = |read: Read| match (variant, read) {
        (Variant::SafeStampAfterSnapshot, Read::Horizon) => vec![],
        (Variant::SafeStampAfterSnapshot, Read::Begin) if repeatable => vec![Read::Begin, Read::Horizon],
        (Variant::NoSafeStamp, Read::Horizon) => vec![],
        (Variant::TwoLoadsSeqFirst, Read::Check(fence)) => {
            vec![Read::CheckSeq(fence), Read::CheckPending(fence)]
        }
        (Variant::TwoLoadsPendingFirst, Read::Check(fence)) => {
            vec![Read::CheckPending(fence), Read::CheckSeq(fence)]
        }
        (Variant::OneFenceOfTwo, Read::Check(fence)) if fence != dependencies[0] => vec![],
        _ => vec![read],
    };
    program(repeatable, dependencies).into_iter().flat_map(steps).collect()
}

impl State {
    /// Takes a step of a writer.
    fn write(&mut self, number: usize, step: Write) {
        let writer = &mut self.writers[number];
        writer.at += 1;
        match step {
            Write::Raise(fence) => self.fences[fence].raise(),
            Write::Show => self.visible |= 1 << number,
            Write::Send => self.visible |= CATALOGS & 0x10 << number,
            Write::Draw => {
                self.now += 1;
                writer.number = self.now;
            }
            Write::Lower(fence) => {
                self.fences[fence].lower(writer.number);
            }
            Write::Abort => {
                writer.aborted = Some(writer.at - 1);
                writer.at = 1;
            }
            Write::Withdraw(fence) => self.fences[fence].withdraw(),
            Write::MoveSeq(fence) => self.fences[fence].seq = self.fences[fence].seq.max(writer.number),
            Write::MovePending(fence) => self.fences[fence].pending -= 1,
            Write::Overwrite(fence) => {
                self.fences[fence].seq = writer.number;
                self.fences[fence].pending -= 1;
            }
            Write::Clear(fence) => self.fences[fence].pending = 0,
        }
    }

    /// Takes a step of a fill.
    fn fill(&mut self, number: usize, step: Fill) {
        let filler = &mut self.fillers[number];
        filler.at += 1;
        match step {
            Fill::Stamp => filler.stamp = self.now,
            Fill::Plan => filler.value |= self.visible & CATALOGS,
            Fill::Snapshot => filler.value |= self.visible & !CATALOGS,
            Fill::Publish => {}
        }
    }

    /// Takes a step of a reader, which judges all changes.
    fn read(&mut self, model: &ReadRule, number: usize, step: Read) {
        let writers = || model.writers.iter().zip(&self.writers);
        let has_aborted = |(writing, writer): (&Writing, &Writer)| writing.has_aborted(writer);
        let view = View {
            now: self.now,
            fences: &self.fences,
            visible: self.visible,
            relevant: !0,
            rows: !CATALOGS,
            aborted: writers().any(has_aborted),
            disturbed: writers().any(|(writing, writer)| writer.at > 0 && !writing.has_aborted(writer)),
        };
        let reader = &mut self.readers[number];
        let entry = reader.found.map(|found| &self.fillers[usize::from(found)]);
        let entry = entry.map(|filler| Entry { stamp: filler.stamp, value: filler.value });
        reader.step(step, model.reads(reader), &view, entry.unwrap_or_default());
    }

    /// Returns whether a read has ended in this way.
    fn any(&self, outcome: Outcome) -> bool {
        self.readers.iter().any(|reader| reader.outcome == Some(outcome))
    }

    /// Returns whether a read has ended with a right value, and `condition` holds for its reader.
    fn hit(&self, condition: impl Fn(&Reader) -> bool) -> bool {
        self.readers.iter().any(|reader| reader.hit(&condition))
    }
}

impl Model for ReadRule {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let kinds = |kinds: usize| (0..self.readers).map(move |number| kinds >> number & 1 == 1);
        (0..1 << self.readers)
            .map(|choice| State {
                writers: vec![Writer::default(); self.writers.len()],
                fillers: vec![Filler::default(); self.fillers],
                readers: kinds(choice).map(Reader::new).collect(),
                ..State::default()
            })
            .collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        for (number, (writing, writer)) in self.writers.iter().zip(&state.writers).enumerate() {
            actions.extend(writing.next(writer).into_iter().flatten().map(|step| Step::Writer(number, step)));
        }
        for (number, filler) in state.fillers.iter().enumerate() {
            actions.extend(self.fill.get(usize::from(filler.at)).map(|step| Step::Filler(number, *step)));
        }
        for (number, reader) in state.readers.iter().enumerate() {
            let published = |filler: &Filler| usize::from(filler.at) == self.fill.len();
            let entries = (0..self.fillers).filter(|filler| published(&state.fillers[*filler]));
            let next = reader.next(self.reads(reader), entries);
            actions.extend(next.into_iter().map(|step| Step::Reader(number, step)));
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Writer(number, step) => state.write(number, step),
            Step::Filler(number, step) => state.fill(number, step),
            Step::Reader(number, step) => state.read(self, number, step),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NOT_STALE, |_, state: &State| !state.any(Outcome::Stale)),
            Property::always(NOT_FUTURE, |_, state: &State| !state.any(Outcome::Future)),
            Property::always(NO_TRACE, |_, state: &State| !state.any(Outcome::MissForNothing)),
            Property::sometimes("a hit behind an abort", |_, state: &State| {
                state.hit(|reader| reader.after_abort)
            }),
            Property::sometimes("a READ COMMITTED hit on a new value", |_, state: &State| {
                state.hit(|reader| !reader.repeatable && reader.visible != 0)
            }),
            Property::sometimes("a REPEATABLE READ hit on a new value", |_, state: &State| {
                state.hit(|reader| reader.repeatable && reader.visible != 0)
            }),
        ]
    }
}

/// No read ends as [`Outcome::Stale`].
const NOT_STALE: &str = "no stale read";
/// No read ends as [`Outcome::Future`].
const NOT_FUTURE: &str = "no read from the future";
/// No read ends as [`Outcome::MissForNothing`].
const NO_TRACE: &str = "no trace of an abort";

/// The rule as built must keep all properties. Each other variant must break the property that is named, or be harmless.
#[test]
fn read_rule() {
    use Variant::*;
    use Verdict::*;
    let one =
        |variant, verdict| check(&format!("read rule: {variant:?}"), ReadRule::one_fence(variant), verdict);
    let two = |variant, verdict| {
        check(&format!("read rule, two fences: {variant:?}"), ReadRule::two_fences(variant), verdict);
    };
    one(AsBuilt, Right);
    let fillers = |fillers, model| ReadRule { fillers, ..model };
    let many = if long() { 2 } else { 1 };
    check("read rule: Catalogs", fillers(many, ReadRule::one_fence(Catalogs)), Right);
    two(AsBuilt, Right);
    if long() {
        let readers = |readers, model| ReadRule { readers, ..model };
        check("read rule: AsBuilt, two readers", readers(2, ReadRule::one_fence(AsBuilt)), Right);
        check("read rule, three writers: AsBuilt", ReadRule::three_writers(AsBuilt), Right);
    }
    for variant in [
        NoPending,
        PendingIsAFlag,
        RaisedWhenVisible,
        DrawnBeforeVisible,
        PendingBeforeSeq,
        SeqWithoutMax,
        SnapshotBeforeStamp,
        PlannedBeforeStamp,
        LoweredBeforeSent,
        TwoLoadsSeqFirst,
    ] {
        one(variant, Breaks(NOT_STALE));
    }
    two(OneFenceOfTwo, Breaks(NOT_STALE));
    one(NoSafeStamp, Breaks(NOT_FUTURE));
    one(SafeStampAfterSnapshot, Breaks(NOT_FUTURE));
    one(AbortLeavesPending, Breaks(NO_TRACE));
    one(WithdrawBumps, Breaks(NO_TRACE));
    for variant in [SeqBeforePending, TwoLoadsPendingFirst] {
        one(variant, Harmless);
    }
    two(NumberForEachFence, Harmless);
}
