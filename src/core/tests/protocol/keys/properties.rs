//! The steps that are possible in a state, and the properties of every state.
//!
//! In the model, writers set or remove one key, and workers compute its value under a *lease*. A *claim* is the right of a
//! transaction to set a key that has no value; it and a lease are *flights*. A transaction *announces* a key to hide its value
//! until the change is *through*, that is, in the tier. `mod.rs` has the details. `state.rs` lists the steps, and `scenarios.rs`
//! the *variants*, each of which is the protocol with one rule broken.

use super::scenarios::{Keys, Variant};
use super::state::{Change, Outcome, Read, State, Step, Value, Work, Worker, Write, Writer};
use stateright::{Model, Property};

/// No reader gets a value from before a change that was visible when the reader began.
pub const NOT_STALE: &str = "no stale read";
/// A set value is that of the last change that is through. A computed value contains all changes that are through.
pub const LAST_THROUGH: &str = "what stands is of the last change through";
/// The key has no value only in three cases: it had none at first and no change is through, the last change that is through is a
/// removal, or the server has restarted.
pub const NOTHING_LOST: &str = "only a removal leaves nothing";
/// At most one worker has a lease whose deadline has not passed.
pub const ONE_LEADER: &str = "one leader";
/// At most one claim is granted and has not ended.
pub const ONE_CLAIM: &str = "one claim";
/// If all writers claim the key, at most one of them sets it.
pub const ONE_FIRST: &str = "one is the first to set it";
/// The value of a voided claim never replaces the value that was set meanwhile.
pub const LATER_IS_LATER: &str = "what is set after a claim stays";
/// No claim outlives its writer.
pub const CLAIMS_END: &str = "claims end";

impl Model for Keys {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            visible: 0,
            announced: 0,
            uncovered: false,
            entry: (!self.empty).then_some(Value::Computed(0)),
            flight: None,
            leases: 0,
            epoch: 0,
            through: vec![],
            writers: vec![Writer::default(); self.changes.len()],
            workers: vec![Worker::default(); self.workers],
            begun: false,
            expected: 0,
            aborts_seen: false,
            outcome: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        for (number, writer) in state.writers.iter().enumerate() {
            let (writes, at) = (self.writes(self.changes[number]), usize::from(writer.at));
            if writer.refused {
                continue;
            }
            if writer.aborted {
                // Without an announcement there is nothing to withdraw.
                let back = if state.announced >> number & 1 == 1 { Write::Withdraw } else { Write::Release };
                actions.extend((at == 0).then_some(Step::Writer(number, back)));
                continue;
            }
            actions.extend(writes.get(at).map(|write| Step::Writer(number, *write)));
            if at > 0 && matches!(writes[at - 1], Write::Announce | Write::Claim) {
                actions.push(Step::Writer(number, Write::Abort));
            }
        }
        for (number, worker) in state.workers.iter().enumerate() {
            let mut work = |step| actions.push(Step::Worker(number, step));
            let free = state.flight.is_none_or(|flight| flight.overdue && flight.claimed_by.is_none());
            let looks = match self.variant {
                Variant::AcquiredWithoutLooking => None,
                Variant::LookedThenAcquired => Some(Work::LookForLeader),
                _ => Some(Work::Acquire),
            };
            match self.work().get(usize::from(worker.at)) {
                // The key is claimed, or another session has a lease that is not overdue: the worker asks again later.
                step if step.copied() == looks && !free => {}
                Some(step) => work(*step),
                None => {}
            }
            if self.is_at_work(worker) && worker.stored.is_none() {
                work(Work::GiveUp);
            }
        }
        if !state.begun {
            actions.push(Step::Reader(Read::Begin));
        } else if state.outcome.is_none() {
            actions.push(Step::Reader(Read::Look));
        }
        // A claim has no deadline.
        if state.flight.is_some_and(|flight| !flight.overdue && flight.claimed_by.is_none()) {
            actions.push(Step::TimePasses);
        }
        if self.restarts && state.epoch == 0 {
            actions.push(Step::Restart);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Writer(number, step) => state.write(self, number, step),
            Step::Worker(number, step) => state.work(self, number, step),
            Step::Reader(step) => state.read(self, step),
            Step::TimePasses => {
                if let Some(flight) = &mut state.flight {
                    flight.overdue = true;
                }
                state.workers.iter_mut().for_each(|worker| worker.leads = false);
            }
            Step::Restart => state.restart(self),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(NOT_STALE, |_, state: &State| state.outcome != Some(Outcome::Stale)),
            Property::always(LAST_THROUGH, |_, state: &State| match state.entry {
                Some(Value::Set(by)) => state.through.last() == Some(&by),
                Some(Value::Computed(with)) => state.through.iter().all(|change| with >> change & 1 == 1),
                None => true,
            }),
            Property::always(NOTHING_LOST, |model: &Self, state: &State| {
                let removed = |change: &u8| !model.changes[usize::from(*change)].sets();
                let empty = model.empty && state.through.is_empty();
                let last = state.through.last();
                state.entry.is_some() || state.epoch > 0 || empty || last.is_some_and(removed)
            }),
            Property::always(ONE_CLAIM, |_, state: &State| {
                state.writers.iter().filter(|writer| writer.won).count() <= 1
            }),
            Property::always(LATER_IS_LATER, |_, state: &State| match state.entry {
                Some(Value::Set(by)) => state.writers[usize::from(by)].voided_at.is_none(),
                _ => true,
            }),
            Property::always(CLAIMS_END, |model: &Self, state: &State| {
                let over = |by: u8| {
                    let by = usize::from(by);
                    model.is_over(by, &state.writers[by])
                };
                state.flight.and_then(|flight| flight.claimed_by).is_none_or(|by| !over(by))
            }),
            Property::always(ONE_LEADER, |_, state: &State| {
                state.workers.iter().filter(|worker| worker.leads).count() <= 1
            }),
            Property::always("announcements end", |model: &Self, state: &State| {
                let mut writers = state.writers.iter().enumerate();
                state.announced == 0 || writers.any(|(number, writer)| !model.is_over(number, writer))
            }),
            Property::sometimes(
                "a computed value with a change in it is a hit",
                |_, state: &State| matches!(state.outcome, Some(Outcome::Hit(Value::Computed(with))) if with != 0),
            ),
            Property::sometimes("a computed value comes too late", |_, state: &State| {
                state.workers.iter().any(|worker| worker.stored == Some(false))
            }),
        ];
        if !self.empty && self.changes.iter().any(|change| matches!(change, Change::Set | Change::Remove)) {
            properties.push(Property::sometimes(
                "the old value is a hit behind an abort",
                |_, state: &State| {
                    state.aborts_seen && state.outcome == Some(Outcome::Hit(Value::Computed(0)))
                },
            ));
        }
        if self.changes.iter().any(|change| change.claims()) {
            properties.push(Property::sometimes("one who claims is refused", |_, state: &State| {
                state.writers.iter().any(|writer| writer.refused)
            }));
            properties.push(Property::sometimes(
                "what was claimed is a hit",
                |model: &Self, state: &State| {
                    matches!(state.outcome, Some(Outcome::Hit(Value::Set(by)))
                    if model.changes[usize::from(by)].claims())
                },
            ));
            properties.push(Property::sometimes("a claim overtakes a lease", |_, state: &State| {
                state.flight.is_some_and(|flight| flight.claimed_by.is_some())
                    && state.workers.iter().any(|worker| worker.lease > 0 && worker.stored.is_none())
            }));
        }
        if self.changes.iter().filter(|change| change.claims()).count() > 1 {
            properties.push(Property::sometimes("one claims after the other gave up", |_, state: &State| {
                state.writers.iter().any(|writer| writer.aborted)
                    && state.writers.iter().any(|writer| writer.won && !writer.aborted)
            }));
        }
        if self.changes.iter().any(|change| change.claims())
            && self.changes.iter().any(|change| !change.claims())
        {
            properties.push(Property::sometimes("a claim is voided", |_, state: &State| {
                state.writers.iter().any(|writer| writer.voided_at.is_some())
            }));
        }
        if self.changes.contains(&Change::Set) {
            properties.push(Property::sometimes("a set value is a hit", |_, state: &State| {
                matches!(state.outcome, Some(Outcome::Hit(Value::Set(_))))
            }));
        }
        if self.changes.iter().all(|change| change.claims()) {
            properties.push(Property::always(ONE_FIRST, |_, state: &State| state.through.len() <= 1));
        }
        // A claim on a key without a value and a plain set can be through in one order only.
        if self.changes.len() > 1 && !self.empty {
            properties.push(Property::sometimes("two are through in both orders", |_, state: &State| {
                state.through.first() > state.through.get(1) && state.through.len() > 1
            }));
        }
        if self.workers > 1 {
            properties.push(Property::sometimes("one leads after the other", |_, state: &State| {
                state.workers.iter().all(|worker| worker.lease > 0) && state.epoch == 0
            }));
        }
        properties
    }
}
