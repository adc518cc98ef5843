//! The steps that are possible in a state, and the properties of every state.
//!
//! In the model, callers want the result of one query. A caller that has the *flight* of the key computes the result for all, and
//! the others wait for it. `mod.rs` has the details.
//!
//! The *leader* is the caller that has the flight. `state.rs` lists the steps, and `scenarios.rs` the *variants*, each of which is
//! the protocol with one rule broken.
//!
//! An `always` property must hold in every state, and a `sometimes` property in some state. A property that a scenario need not
//! have is added only if the fields of [`Flights`] say so. A step that changes nothing must not be offered: a state counts as a
//! hang only if no step is offered.

use super::scenarios::{Flights, Query, Variant};
use super::state::{Call, KEYS, Outcome, Phase, Session, State, Step, Write, Writer};
use crate::memory::Fence;
use stateright::{Model, Property};

/// If a caller gets a result as valid, the result has all changes that were visible before the call began.
pub const NO_STALE_HIT: &str = "no stale hit";
/// If a waiter gets a result because of its stamp, the result has all changes that were visible before the call began.
pub const NO_STALE_WAIT: &str = "no stale result for a waiter";
/// As long as all callers have arrived before the first flight ends, the query runs at most twice, and once more for each death.
pub const TWO_RUNS: &str = "two runs for all who arrive together";
/// If nothing interferes, the query runs once, and once more for each death.
pub const ONE_RUN: &str = "one run if nothing interferes";
/// No caller waits for more than two flights or leads after waiting for more than one. Each death adds one.
const TWO_FLIGHTS: &str = "two flights for each caller";
/// If a flight that began after the arrival of a waiter lands with a result while the waiter waits, the waiter takes a result and
/// never leads or waits again.
pub const NO_NEEDLESS_RUN: &str = "no needless run";
/// No caller waits for more than two flights that end without a result. If results are refused, it waits for at most one flight.
pub const TWO_FRUITLESS: &str = "two fruitless flights for each caller";
/// At most one session leads each key. Sessions whose flight another flight has replaced do not count.
pub const ONE_LEADER: &str = "one leader";
/// In each state in which no session can take a step, each call has ended.
pub const NO_HANG: &str = "each call ends";
/// At most one waiter gives a flight up in the time of one timeout.
pub const ONE_FOR_EACH_TIMEOUT: &str = "one gives up for each timeout";

impl Model for Flights {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let session = |plan: &super::scenarios::Plan| {
            let mut session = Session::default();
            session.call.key = plan.key;
            session
        };
        vec![State {
            now: 1,
            fence: Fence::default(),
            flushed: 0,
            visible: 0,
            writers: vec![Writer::default(); self.writers],
            varies: false,
            slots: Default::default(),
            entries: [None; KEYS],
            sessions: self.plans.iter().map(session).collect(),
            ticks: 0,
            removals: 0,
            flushes: 0,
            deaths: 0,
            runs: 0,
            landed: false,
            late: false,
            needless: false,
            broke_deadlock: false,
            replaced: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        for (number, writer) in state.writers.iter().enumerate() {
            let next = [Write::Raise, Write::Show, Write::Draw, Write::Lower].get(usize::from(writer.at));
            if writer.aborted {
                continue;
            }
            actions.extend(next.map(|step| Step::Writer(number, *step)));
            if self.aborts && next == Some(&Write::Show) {
                actions.push(Step::Writer(number, Write::Withdraw));
            }
        }
        for number in 0..state.sessions.len() {
            self.calls(state, number, |call| actions.push(Step::Caller(number, call)));
        }
        actions.extend((state.removals < self.removals).then_some(Step::Remove));
        actions.extend((state.flushes < self.flushes).then_some(Step::Flush));
        actions.extend((state.ticks < self.ticks).then_some(Step::Tick));
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Caller(number, call) => state.call(self, number, call),
            Step::Writer(number, step) => state.write(number, step),
            Step::Remove => {
                state.visible |= 1 << (self.writers as u8 + state.removals);
                state.removals += 1;
                state.entries = [None; KEYS];
                state
                    .slots
                    .iter_mut()
                    .flat_map(|slot| &mut slot.flight)
                    .for_each(|flight| flight.void = true);
            }
            Step::Flush => {
                state.visible |= 1 << (self.writers as u8 + self.removals + state.flushes);
                state.flushes += 1;
                state.now += 1;
                state.flushed = state.now;
            }
            Step::Tick => state.ticks += 1,
        }
        state.renumber();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(NO_STALE_HIT, |_, state: &State| state.ends(Outcome::StaleHit) == 0),
            Property::always(NO_STALE_WAIT, |_, state: &State| state.ends(Outcome::StaleWait) == 0),
            Property::always(NO_HANG, |model: &Self, state: &State| !model.hangs(state)),
            Property::always(ONE_LEADER, |_, state: &State| {
                (0..KEYS as u8).all(|key| {
                    let leads = |session: &&Session| {
                        let is_at_work = |phase| {
                            matches!(
                                phase,
                                Phase::Plans | Phase::Runs | Phase::Lands | Phase::Stamps | Phase::WakesFirst
                            )
                        };
                        let calls = [Some(session.call), session.outer];
                        calls.iter().flatten().any(|call| {
                            call.key == key && is_at_work(call.phase) && call.stamp >= state.flushed
                        })
                    };
                    state.sessions.iter().filter(leads).count() <= 1
                })
            }),
            Property::always(TWO_FRUITLESS, |model: &Self, state: &State| {
                let most = if model.query == Query::IsRefused { 1 } else { 2 };
                state.sessions.iter().all(|session| session.call.fruitless <= most)
            }),
        ];
        // Two cases break this property. A removal also removes the stored result. A waiter that moves to the key with its settings
        // has not marked a flight of that key yet, and a new caller may begin and end such a flight before.
        if self.removals == 0 && self.plans.iter().all(|plan| plan.full.is_none()) {
            properties.push(Property::always(NO_NEEDLESS_RUN, |_, state: &State| !state.needless));
        }
        let never_fails = self.query == Query::Works && self.removals + self.flushes + self.ticks == 0;
        let is_plain = !self.checks && self.plans.iter().all(|plan| plan.nested.is_none());
        if never_fails && is_plain {
            properties.push(Property::always(TWO_RUNS, |_, state: &State| {
                state.late || state.runs <= 2 + state.deaths
            }));
            // A leader does not count its flight of the key without settings. A waiter counts both flights of one leader as one.
            properties.push(Property::always(TWO_FLIGHTS, |_, state: &State| {
                state.sessions.iter().all(|session| session.call.flights <= 2 + state.deaths)
            }));
        }
        if never_fails && is_plain && self.writers == 0 {
            properties.push(Property::always(ONE_RUN, |_, state: &State| state.runs <= 1 + state.deaths));
            properties.push(Property::sometimes("all others wait", |model: &Self, state: &State| {
                state.ends(Outcome::WaitedForValid) + 1 + usize::from(model.deaths) == state.sessions.len()
            }));
        }
        if self.ticks > 0 {
            properties.push(Property::always(ONE_FOR_EACH_TIMEOUT, |_, state: &State| {
                let flights = state.slots.iter().filter_map(|slot| slot.flight);
                flights.into_iter().all(|flight| flight.given_up <= state.ticks - flight.begun_at)
            }));
            properties.push(Property::sometimes("all others give up", |_, state: &State| {
                state.ends(Outcome::Alone) + 1 == state.sessions.len()
            }));
        }
        self.add_sometimes(&mut properties);
        properties
    }
}

impl State {
    /// Returns how many calls have ended with this outcome.
    fn ends(&self, outcome: Outcome) -> usize {
        self.sessions.iter().filter(|session| session.call.outcome == Some(outcome)).count()
    }
}

impl Flights {
    /// Offers the next steps of a session.
    fn calls(&self, state: &State, number: usize, mut offer: impl FnMut(Call)) {
        let session = &state.sessions[number];
        let call = &session.call;
        let nests = self.plans[number].nested.is_some() && session.outer.is_none() && !call.nested;
        let is_blocked = state.lock_holder(self, number).is_some();
        match call.phase {
            Phase::Begins => {
                // Sessions with the same plan behave alike. So it is enough that they begin in the order of their numbers.
                let is_next = number == 0
                    || self.plans[number - 1] != self.plans[number]
                    || state.sessions[number - 1].call.phase != Phase::Begins;
                if is_next {
                    offer(Call::Begin);
                }
            }
            Phase::Draws => offer(Call::Draw),
            // The call has found out under the shard's lock that the result varies on settings.
            Phase::Looks if state.varies && self.plans[number].full.is_some_and(|full| full != call.key) => {
                offer(Call::Move);
            }
            Phase::Looks => offer(Call::Look),
            Phase::Plans => offer(Call::Plan),
            Phase::Marks => offer(Call::Mark),
            Phase::Resets => offer(Call::Reset),
            Phase::Stamps => offer(Call::Stamp),
            Phase::Sleeps => {
                if call.woken {
                    offer(Call::Rise);
                }
                if state.may_give_up(self, call) {
                    offer(Call::GiveUp);
                }
                // A check that finds no deadlock changes nothing. So only the variant that counts the checks has such a step.
                let checks = match self.variant {
                    Variant::NoDeadlockCheck => false,
                    Variant::ChecksOnce => !call.checked,
                    _ => state.is_deadlocked(self, number),
                };
                if self.checks && !call.woken && checks {
                    offer(Call::CheckDeadlock);
                }
            }
            Phase::Runs | Phase::RunsAlone if nests => offer(Call::Nest),
            Phase::Runs | Phase::RunsAlone if is_blocked => {
                if state.is_deadlocked_by_locks(self, number) {
                    offer(Call::Fail);
                }
            }
            Phase::Runs => offer(Call::Run),
            Phase::RunsAlone => offer(Call::RunAlone),
            Phase::Lands => {
                match self.query {
                    Query::Works => offer(Call::Land),
                    Query::Fails => offer(Call::Fail),
                    Query::IsRefused => offer(Call::Refuse),
                    Query::MayFail => {
                        offer(Call::Land);
                        offer(Call::Fail);
                    }
                };
            }
            Phase::Wakes | Phase::WakesFirst | Phase::WakesThenLooks => offer(Call::Wake),
            Phase::Done => {}
        }
        let may_die = match call.phase {
            Phase::Begins | Phase::Done => false,
            Phase::Wakes => self.is(Variant::DiesBeforeWake),
            _ => true,
        };
        if may_die && state.deaths < self.deaths {
            offer(Call::Die);
        }
    }

    /// Returns whether a call has not ended and no session can take a step. Deaths, writers, timeouts, removals and flushes do not
    /// count as steps, because a caller must not depend on them.
    fn hangs(&self, state: &State) -> bool {
        let mut goes_on = false;
        for number in 0..state.sessions.len() {
            self.calls(state, number, |call| goes_on |= call != Call::Die);
        }
        !goes_on && !state.sessions.iter().all(Session::is_done)
    }

    /// Adds properties that show that the scenario is not empty.
    fn add_sometimes(&self, properties: &mut Vec<Property<Self>>) {
        let mut sometimes = |name, condition| properties.push(Property::sometimes(name, condition));
        if self.query == Query::Works && self.plans.iter().all(|plan| plan.nested.is_none()) {
            sometimes("a waiter gets a valid result", |_, state| state.ends(Outcome::WaitedForValid) > 0);
        }
        if self.query == Query::Works && !self.checks {
            sometimes("a hit", |_, state| state.ends(Outcome::Hit) > 0);
        }
        if self.writers > 0 && self.query == Query::Works {
            sometimes("a waiter gets an invalid result", |_, state| state.ends(Outcome::WaitedForLater) > 0);
            sometimes("a result is invalid when it lands", |_, state| {
                state.entries.iter().flatten().any(|entry| entry.born_invalid)
            });
            sometimes("two runs for callers that arrive together", |_, state| {
                !state.late && state.runs == 2 && state.deaths == 0
            });
            sometimes("a late caller runs the query a third time", |_, state| state.runs > 2);
            sometimes("a change is visible without a number when a caller begins", |_, state| {
                let begins =
                    |session: &Session| session.call.phase == Phase::Looks && session.call.expected != 0;
                state.fence == Fence { seq: 0, pending: 1 } && state.sessions.iter().any(begins)
            });
        }
        if self.writers > 0 && self.plans.len() > 3 {
            sometimes("two waiters get an invalid result", |_, state| {
                state.ends(Outcome::WaitedForLater) > 1
            });
        }
        if self.plans.iter().any(|plan| plan.full.is_some()) {
            sometimes("a leader waits for the key with its settings", |_, state| {
                let has_moved =
                    |session: &Session| session.call.moves_mark && session.call.phase == Phase::Sleeps;
                state.sessions.iter().any(has_moved)
            });
        }
        if self.query == Query::Fails {
            sometimes("a caller waits for two flights that fail", |_, state| {
                state.sessions.iter().any(|session| session.call.fruitless == 2)
            });
            sometimes("a caller runs alone", |_, state| state.ends(Outcome::Alone) > 0);
        }
        if self.query == Query::MayFail {
            sometimes("a waiter gets a result after a failure", |_, state| {
                state.ends(Outcome::Failed) > 0
                    && state.ends(Outcome::WaitedForValid) + state.ends(Outcome::WaitedForLater) > 0
            });
        }
        if self.query == Query::IsRefused {
            sometimes("all run alone, except for the leaders of two flights", |_, state| {
                state.ends(Outcome::Alone) + 2 == state.sessions.len()
            });
        }
        if self.removals > 0 {
            sometimes("a flight is void", |_, state| state.slots[0].flight.is_some_and(|flight| flight.void));
        }
        if self.flushes > 0 {
            sometimes("a flight is replaced", |_, state| state.replaced);
        }
        if self.deaths > 0 {
            sometimes("another session leads after a death", |_, state| {
                state.ends(Outcome::Died) > 0 && state.ends(Outcome::Led) > 0 && state.runs == 2
            });
        }
        if self.checks {
            sometimes("a check finds a deadlock", |_, state| state.broke_deadlock);
        }
        if self.plans.iter().any(|plan| plan.nested.is_some()) {
            sometimes("a nested call runs alone", |_, state| {
                state
                    .sessions
                    .iter()
                    .any(|session| session.outer.is_some() && session.call.phase == Phase::RunsAlone)
            });
        }
    }
}
