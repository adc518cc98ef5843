//! A prepared transaction: its changes become visible by COMMIT PREPARED, which may run in another backend and after
//! a restart of the server. `src/store/transaction/prepared/` of the extension has the rules.
//!
//! The fences of the transaction are kept in shared memory. A backend that tries to commit it raises them before the
//! attempt. It lowers them with a new number whether the attempt succeeds or fails: an error may come after the
//! commit, and the backend cannot know whether it did. A restart here is one that loses the shared memory. The list of
//! fences is lost with it, so the backend then raises the fence of the database, on which every entry depends. (A
//! restart that keeps a saved cache also keeps the list.) While the transaction is only prepared, no fence is raised:
//! its changes are not visible, so the cached values are right. (This is a transaction that a command prepares.
//! `names.rs` also has the other kind, whose fences are raised while it is prepared.)
//!
//! A *fence* is a word in shared memory that says when a dependency of entries last changed. A *fill* computes an entry and stores
//! it.

use stateright::{Model, Property};

use crate::memory::Fence;
use crate::reader::{Entry, Outcome, Read, Reader, View, program};
use crate::{Verdict, check};

/// The fence of what the transaction changed.
const CHANGED: usize = 0;
/// The fence of the transaction's database.
const DATABASE: usize = 1;
/// The fences that the entry depends on.
const DEPENDENCIES: [usize; 2] = [CHANGED, DATABASE];

/// One atomic step of a backend that executes COMMIT PREPARED.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// Raises the fence of the changes, or, if the list of fences is lost, that of the database.
    Raise,
    /// The transaction's changes become visible.
    Commit,
    /// An error, or the end of the backend, before the commit or after it. The backend does not learn which.
    Fail,
    /// Draws the number of the change.
    Draw,
    /// Lowers the fence with that number.
    Lower,
    // Only variants have the following steps.
    /// Takes the raise back.
    Withdraw,
    /// Lowers the fence, and takes the raises of all backends back.
    Clear,
    /// Sets `seq` of the fence to the number, and takes no raise back.
    MoveSeq,
}

/// One step of the only fill: it takes its stamp, reads the source on a snapshot, and publishes the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fill {
    Stamp,
    Snapshot,
    Publish,
}

/// One step of one actor, or a restart of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Backend(usize, Act),
    Filler(Fill),
    Reader(Read),
    /// ROLLBACK PREPARED.
    RollBack,
    /// The server restarts, once.
    Restart,
}

/// The progress of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Stage {
    #[default]
    Idle,
    Raised,
    /// The attempt is over. The value says whether the transaction is known to be committed.
    Tried(bool),
    Drawn,
    Over,
}

/// The progress of a backend that ends the prepared transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Backend {
    stage: Stage,
    /// The fence that it raises. None before that.
    fence: Option<u8>,
    /// The number that it has drawn.
    number: u8,
}

/// The state of the model between two steps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The clock of changes.
    now: u8,
    /// The fence of what the transaction changed, and the fence of its database.
    fences: [Fence; 2],
    /// Whether the list of the transaction's fences is still in shared memory.
    known: bool,
    /// Whether the transaction is still prepared.
    prepared: bool,
    /// 1 if the transaction is committed, and 0 before that.
    visible: u8,
    /// Whether the server has restarted, which loses the shared memory.
    restarted: bool,
    /// The backends that try to end the transaction.
    backends: Vec<Backend>,
    /// How many steps the fill has taken.
    filled: u8,
    /// The entry that the fill stores.
    entry: Entry,
    /// The reader.
    reader: Reader,
}

/// The protocol as it is built, and with one rule broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The protocol as it is built.
    AsBuilt,
    /// A backend does not raise the fence. It only moves `seq` after the attempt.
    NotRaised,
    /// A backend whose attempt has failed withdraws the fence.
    ErrorWithdraws,
    /// A backend whose attempt has failed leaves the fence raised.
    ErrorLeavesPending,
    /// A backend that lowers the fence clears the raises of all backends.
    PendingIsAFlag,
    /// After a restart, a backend raises no fence, instead of the fence of the database.
    ForgottenByRestart,
    /// A backend whose attempt has succeeded withdraws the fence.
    CommitWithdraws,
}

/// The model: a variant, and the number of backends that try to commit the transaction.
#[derive(Clone, Debug)]
pub struct TwoPhase {
    /// The rule that is broken, if any.
    variant: Variant,
    /// The number of backends that try to commit the transaction.
    backends: usize,
}

/// The steps of the fill, in order.
const FILL: [Fill; 3] = [Fill::Stamp, Fill::Snapshot, Fill::Publish];

impl TwoPhase {
    /// Returns the possible next steps of a backend.
    fn acts(&self, state: &State, backend: &Backend) -> Vec<Act> {
        use Variant::*;
        match (backend.stage, self.variant) {
            (Stage::Idle, _) if state.visible == 0 => vec![Act::Raise],
            (Stage::Idle, _) => vec![],
            (Stage::Raised, _) if state.prepared => vec![Act::Commit, Act::Fail],
            // The transaction is gone: another backend has ended it first.
            (Stage::Raised, _) => vec![Act::Fail],
            (Stage::Tried(false), ErrorWithdraws) | (Stage::Tried(true), CommitWithdraws) => {
                vec![Act::Withdraw]
            }
            (Stage::Tried(false), ErrorLeavesPending) => vec![],
            // The transaction is visible, but the command can still end with an error.
            (Stage::Tried(true), _) => vec![Act::Draw, Act::Fail],
            (Stage::Tried(false), _) => vec![Act::Draw],
            (Stage::Drawn, NotRaised) => vec![Act::MoveSeq],
            (Stage::Drawn, PendingIsAFlag) => vec![Act::Clear],
            (Stage::Drawn, _) => vec![Act::Lower],
            (Stage::Over, _) => vec![],
        }
    }
}

impl State {
    /// Takes a step of a backend.
    fn act(&mut self, variant: Variant, number: usize, act: Act) {
        let backend = &mut self.backends[number];
        let fence = backend.fence.map(usize::from);
        match act {
            Act::Raise => {
                backend.stage = Stage::Raised;
                backend.fence = match self.known {
                    true => Some(CHANGED as u8),
                    false => (variant != Variant::ForgottenByRestart).then_some(DATABASE as u8),
                };
                if let Some(fence) = backend.fence.filter(|_| variant != Variant::NotRaised) {
                    self.fences[usize::from(fence)].raise();
                }
            }
            Act::Commit => {
                self.visible = 1;
                self.prepared = false;
                backend.stage = Stage::Tried(true);
            }
            Act::Fail => backend.stage = Stage::Tried(false),
            Act::Draw => {
                self.now += 1;
                backend.number = self.now;
                backend.stage = Stage::Drawn;
            }
            Act::Lower | Act::Withdraw | Act::Clear | Act::MoveSeq => {
                backend.stage = Stage::Over;
                let Some(fence) = fence.map(|fence| &mut self.fences[fence]) else { return };
                match act {
                    Act::Withdraw => fence.withdraw(),
                    Act::Clear => *fence = Fence { seq: fence.seq.max(backend.number), pending: 0 },
                    Act::MoveSeq => fence.seq = fence.seq.max(backend.number),
                    _ => {
                        fence.lower(backend.number);
                    }
                }
            }
        }
    }

    /// Takes a step of the fill.
    fn fill(&mut self, step: Fill) {
        self.filled += 1;
        match step {
            Fill::Stamp => self.entry.stamp = self.now,
            Fill::Snapshot => self.entry.value = self.visible,
            Fill::Publish => {}
        }
    }

    /// Takes a step of the reader, which judges the only change.
    fn read(&mut self, step: Read) {
        let view = View {
            now: self.now,
            fences: &self.fences,
            visible: self.visible,
            relevant: 1,
            rows: !0,
            aborted: false,
            disturbed: self.backends.iter().any(|backend| backend.stage != Stage::Idle),
        };
        self.reader.step(step, &program(self.reader.repeatable, &DEPENDENCIES), &view, self.entry);
    }

    /// Restarts the server. Everything that was only in memory is lost: entries, fences, the clock of changes, and
    /// the backends.
    fn restart(&mut self) {
        let over = self.visible == 1 || !self.prepared;
        let stage = if over { Stage::Over } else { Stage::Idle };
        self.backends.fill(Backend { stage, ..Backend::default() });
        *self = Self {
            now: 0,
            fences: Default::default(),
            known: false,
            restarted: true,
            filled: 0,
            entry: Entry::default(),
            reader: Reader::new(self.reader.repeatable),
            ..self.clone()
        };
    }
}

impl Model for TwoPhase {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let start = |repeatable| State {
            now: 0,
            fences: Default::default(),
            known: true,
            prepared: true,
            visible: 0,
            restarted: false,
            backends: vec![Backend::default(); self.backends],
            filled: 0,
            entry: Entry::default(),
            reader: Reader::new(repeatable),
        };
        vec![start(false), start(true)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        for (number, backend) in state.backends.iter().enumerate() {
            actions.extend(self.acts(state, backend).into_iter().map(|act| Step::Backend(number, act)));
        }
        actions.extend(FILL.get(usize::from(state.filled)).map(|step| Step::Filler(*step)));
        let published = (usize::from(state.filled) == FILL.len()).then_some(0);
        let next = state.reader.next(&program(state.reader.repeatable, &DEPENDENCIES), published.into_iter());
        actions.extend(next.into_iter().map(Step::Reader));
        if state.prepared {
            actions.push(Step::RollBack);
        }
        if !state.restarted {
            actions.push(Step::Restart);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Backend(number, act) => state.act(self.variant, number, act),
            Step::Filler(step) => state.fill(step),
            Step::Reader(step) => state.read(step),
            Step::RollBack => state.prepared = false,
            Step::Restart => state.restart(),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NOT_STALE, |_, state: &State| state.reader.outcome != Some(Outcome::Stale)),
            Property::always(NOT_FUTURE, |_, state: &State| state.reader.outcome != Some(Outcome::Future)),
            Property::always("no miss for nothing", |_, state: &State| {
                state.reader.outcome != Some(Outcome::MissForNothing)
            }),
            Property::always(ENDS, |model, state: &State| {
                let at_work = |backend: &Backend| {
                    !model.acts(state, backend).is_empty() && backend.stage != Stage::Idle
                };
                state.backends.iter().any(at_work) || state.fences.iter().all(|fence| fence.pending == 0)
            }),
            Property::sometimes("a hit while it is prepared", |_, state: &State| {
                state.prepared && state.reader.hit(|_| true)
            }),
            Property::sometimes("a hit with the change in it", |_, state: &State| {
                state.reader.hit(|reader| reader.visible == 1)
            }),
            Property::sometimes("a REPEATABLE READ hit in another life", |_, state: &State| {
                state.restarted && state.reader.hit(|reader| reader.repeatable && reader.visible == 1)
            }),
        ]
    }
}

/// See [`Outcome`] for the first two. `ENDS`: a fence stays raised only while a backend has a step left.
const NOT_STALE: &str = "no stale read";
const NOT_FUTURE: &str = "no read from the future";
const ENDS: &str = "nothing is pending for ever";

/// The protocol as built must keep all properties. Each other variant must break the property that is named.
#[test]
fn two_phase() {
    use Variant::*;
    use Verdict::*;
    let run = |variant, verdict| {
        check(&format!("two-phase commit: {variant:?}"), TwoPhase { variant, backends: 2 }, verdict);
    };
    run(AsBuilt, Right);
    for variant in [NotRaised, ErrorWithdraws, CommitWithdraws, PendingIsAFlag, ForgottenByRestart] {
        run(variant, Breaks(NOT_STALE));
    }
    run(ErrorLeavesPending, Breaks(ENDS));
}
