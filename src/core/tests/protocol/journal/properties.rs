//! The steps that are possible in a state of the model, and the properties that are checked.
//!
//! `mod.rs` explains the model: the journal, its records and their numbers, and the client with its local value and its
//! cursor. `state.rs` has the fields of a state and the steps, `scenarios.rs` the scenarios and the variants.
//!
//! An `always` property must hold in every state. A `sometimes` property must hold in some state: it shows that the scenario
//! reaches that case.

use super::scenarios::{Journal, Variant};
use super::state::{CHANGES, Caller, Client, Read, State, Step, Write, Writer};
use crate::memory::Fence;
use stateright::{Model, Property};

/// The local value has every change that it must not lack any more (`Client::proven`).
pub const BOUNDED: &str = "an answer bounds the staleness";
/// The local value has every change that concerns it and whose record the client has applied.
pub const NOT_OLDER: &str = "no value is older than an applied record";
/// Each change that the local value lacks has no number yet, or one that is greater than the cursor, if there is a cursor.
pub const AHEAD: &str = "a change that a value lacks is ahead";
/// When all writers have ended, no line is claimed. Only variants claim lines.
pub const RELEASED: &str = "no line stays claimed";

impl State {
    /// Returns the changes that the local value lacks, of those that concern it and are visible, as bits. 0 if there is no local
    /// value.
    fn lacking(&self, model: &Journal) -> u8 {
        self.client.value.map_or(0, |value| model.concerning() & self.visible & !value)
    }

    /// Returns whether the record of each change that the local value lacks is still ahead of the cursor.
    fn is_ahead(&self, model: &Journal) -> bool {
        let lacking = self.lacking(model);
        let is_behind = |id: usize| {
            let number = self.numbers[id];
            number > 0 && self.client.cursor.is_some_and(|cursor| number <= cursor)
        };
        (0..CHANGES).all(|id| lacking >> id & 1 == 0 || !is_behind(id))
    }

    /// Returns whether `is_it` is true of any caller.
    fn answers(&self, is_it: impl Fn(&Caller) -> bool) -> bool {
        self.client.callers.iter().any(is_it)
    }
}

impl Model for Journal {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            base: 1,
            tail: 0,
            lines: vec![Default::default(); usize::from(self.lines)],
            visible: 0,
            spread: 0,
            replayed: 0,
            now: 0,
            fence: Fence::default(),
            entry: None,
            crashed: false,
            writers: vec![Writer::default(); self.changes.len()],
            client: Client { callers: vec![Caller::Idle; self.callers], ..Client::default() },
            numbers: [0; CHANGES],
            written: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        for number in 0..state.writers.len() {
            let next = state.writes(self, number).into_iter();
            actions.extend(next.map(|step| Step::Writer(number, step)));
        }
        if state.client.may_read(self) {
            actions.push(Step::Reader(state.client.next_read(self)));
        }
        for caller in 0..self.callers {
            let next = state.calls(self, caller).into_iter();
            actions.extend(next.map(|step| Step::Caller(caller, step)));
        }
        if self.variant == Variant::Standby && state.replayed != state.spread {
            actions.push(Step::Replay);
        }
        if [Variant::NotifyMovesCursor, Variant::NotifyDrops].contains(&self.variant) {
            actions.push(Step::Notify);
        }
        if self.crashes && !state.crashed {
            actions.push(Step::Crash);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Writer(number, step) => state.write(self, number, step),
            Step::Reader(step) => state.read(self, step),
            Step::Caller(number, step) => state.call(self, number, step),
            Step::Replay => state.replayed = state.spread,
            Step::Notify if self.variant == Variant::NotifyDrops => state.client.value = None,
            Step::Notify => state.client.cursor = state.client.cursor.map(|_| state.base + state.tail),
            Step::Crash => state.crash(self),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(BOUNDED, |model: &Self, state: &State| {
                state.lacking(model) & state.client.proven == 0
            }),
            Property::always(NOT_OLDER, |model: &Self, state: &State| {
                state.lacking(model) & state.client.applied == 0
            }),
            Property::always(AHEAD, |model: &Self, state: &State| state.is_ahead(model)),
            Property::always(RELEASED, |model: &Self, state: &State| {
                let is_idle = |number: usize| state.writes(model, number).is_empty();
                !(0..state.writers.len()).all(is_idle) || state.lines.iter().all(|line| !line.is_claimed)
            }),
            Property::sometimes("a value with all changes is proven", |model: &Self, state: &State| {
                let all = model.concerning();
                state.client.value == Some(all) && state.client.proven & all == all
            }),
            Property::sometimes("a record drops a value", |model: &Self, state: &State| {
                let names = |caller: &Caller| match caller {
                    Caller::Changes(scan, _) => scan.records & model.naming() != 0,
                    _ => false,
                };
                state.client.value.is_some() && state.answers(names)
            }),
            Property::sometimes("an answer is not kept", |model: &Self, state: &State| {
                state.client.flight.is_named && state.client.next_read(model) == Read::Keep
            }),
        ];
        if self.changes.len() > 1 {
            properties.push(Property::sometimes(
                "the reader stops before a record that is not written",
                |_, state: &State| {
                    let stops = |caller: &Caller| match caller {
                        Caller::Changes(_, up_to) => {
                            let written = |id: usize| state.written >> id & 1 == 1;
                            (0..CHANGES).any(|id| written(id) && state.numbers[id] > *up_to)
                        }
                        _ => false,
                    };
                    state.answers(stops)
                },
            ));
        }
        if self.laps() {
            properties.push(Property::sometimes("the ring laps a reader", |_, state: &State| {
                state.answers(|caller| matches!(caller, Caller::Reset(..)))
            }));
            properties.push(Property::sometimes("the ring laps a writer", |model: &Self, state: &State| {
                let is_lapped = |number: usize| {
                    let ahead = state.writes(model, number);
                    let writes = ahead.iter().any(|step| matches!(step, Write::Body(_) | Write::Header(_)));
                    writes && state.writers[number].position + model.lines < state.tail
                };
                (0..state.writers.len()).any(is_lapped)
            }));
        }
        if self.stores {
            properties.push(Property::sometimes("a stored value is a hit", |_, state: &State| {
                state.client.flight.is_hit && !state.client.flight.is_named
            }));
        }
        if self.crashes {
            properties.push(Property::sometimes(
                "a number of another life is a reset",
                |_, state: &State| {
                    state.client.cursor.is_some_and(|cursor| cursor < state.base)
                        && state.answers(|caller| matches!(caller, Caller::Reset(..)))
                },
            ));
        }
        properties
    }
}
