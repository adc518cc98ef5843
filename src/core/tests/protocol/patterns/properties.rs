//! The steps that are possible in each state, and the properties that must hold.
//!
//! In the model, writers invalidate keys by patterns, fills store values, a saver copies them to rows, and readers must get no
//! value from before a pattern that matches its key. A *slot* holds one pattern. A pattern is *announced* while its transaction
//! commits, and *retired* when another one needs its slot; the *floor* of the space then refuses older values. To *renew* an entry
//! is to give it a later stamp. `mod.rs` has the details. `state.rs` lists the steps, and `scenarios.rs` the *variants*, each of
//! which is the protocol with one rule broken.

use stateright::{Model, Property};

use super::scenarios::{Patterns, Variant};
use super::state::{Entry, Fill, Filler, KEYS, Outcome, Reader, SLOTS, Slot, State, Step, Write, Writer};
use super::steps::reading;
use crate::memory::Fence;

/// No read ends as [`Outcome::Stale`].
pub const NOT_STALE: &str = "no value from before a visible pattern is a hit";
/// No read ends as [`Outcome::MissForNothing`].
pub const NOT_FOR_NOTHING: &str = "a key that no pattern matches is a hit";
/// The floor never refuses a value that a reader has compared as of a moment that is not before the floor.
pub const SPARES_RENEWED: &str = "a value that was compared with a pattern outlives the slot of the pattern";
/// A `sometimes` property, unlike the others: it must hold in some state.
pub const OWN_IS_HIT: &str = "a value set after its transaction's own pattern is a hit";

impl Model for Patterns {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let mut memory = [None; KEYS];
        for key in (0..KEYS).filter(|key| self.present[*key]) {
            memory[key] = Some(Entry { stamp: 0, value: 0, identity: key as u8 });
        }
        vec![State {
            now: 0,
            space: Fence::default(),
            patterns: Fence::default(),
            slots: [Slot::Free; SLOTS],
            visible: 0,
            writers: [Writer::default(); 2],
            fills: vec![Filler::default(); self.fills.len()],
            memory,
            rows: [None; KEYS],
            identities: KEYS as u8,
            readers: vec![Reader::default(); self.readers.len()],
            renewed: false,
            retired: false,
            flushed: false,
            lost_renewed: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        let all = self.writing();
        let can_abort = !matches!(self.variant, Variant::AnnouncesLate | Variant::RaisesLate);
        for (number, writer) in state.writers.iter().enumerate().filter(|(_, writer)| !writer.aborted) {
            let sets = number == 0 && self.sets_own;
            let is_of_set = |step: &Write| matches!(step, Write::Stamp | Write::Decide | Write::Publish);
            let mut steps = all.iter().filter(|step| sets || !is_of_set(step));
            let Some(next) = steps.nth(writer.at.into()) else { continue };
            actions.push(Step::Writer(number, *next));
            if *next == Write::Show && can_abort {
                actions.push(Step::Writer(number, Write::Abort));
            }
        }
        for (number, fill) in state.fills.iter().enumerate() {
            let steps = [Fill::Stamp, Fill::Compute, Fill::Publish];
            actions.extend(steps.get(usize::from(fill.at)).map(|step| Step::Fill(number, *step)));
        }
        if self.saves {
            let has_entry = |key: &usize| state.memory[*key].is_some();
            actions.extend((0..KEYS).filter(has_entry).map(Step::Save));
            actions.extend((0..KEYS).filter(has_entry).map(Step::Evict));
        }
        let steps = reading(self.slots);
        for (number, reader) in
            state.readers.iter().enumerate().filter(|(_, reader)| reader.reads < self.reads)
        {
            let is_hit = matches!(reader.outcome, Some(Outcome::Hit | Outcome::QuickHit | Outcome::Stale));
            // After a hit, only the step `Renew` is left.
            let next = if is_hit && reader.at > 0 { steps.last() } else { steps.get(usize::from(reader.at)) };
            actions.extend(next.map(|step| Step::Reader(number, *step)));
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Writer(writer, step) => state.write(self, writer, step),
            Step::Fill(fill, step) => state.fill(self, fill, step),
            Step::Save(key) => state.rows[key] = state.memory[key],
            Step::Evict(key) => state.memory[key] = None,
            Step::Reader(reader, step) => state.read(self, reader, step),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn ends(state: &State, outcome: Outcome) -> bool {
            state.readers.iter().any(|reader| reader.outcome == Some(outcome))
        }
        let mut properties = vec![
            Property::always(NOT_STALE, |_, state: &State| !ends(state, Outcome::Stale)),
            Property::always(NOT_FOR_NOTHING, |_, state: &State| !ends(state, Outcome::MissForNothing)),
            Property::always(SPARES_RENEWED, |_, state: &State| !state.lost_renewed),
            Property::sometimes("a pattern makes a miss", |_, state: &State| ends(state, Outcome::Miss)),
            Property::sometimes("a value is a hit after a comparison", |_, state: &State| {
                ends(state, Outcome::Hit)
            }),
        ];
        if self.reads > 1 {
            properties.push(Property::sometimes("a renewed value is a quick hit", |_, state: &State| {
                state.renewed && state.visible != 0 && ends(state, Outcome::QuickHit)
            }));
        }
        if self.slots == 1 {
            properties.push(Property::sometimes("a pattern is retired", |_, state: &State| state.retired));
            properties.push(Property::sometimes("a space is flushed", |_, state: &State| state.flushed));
        }
        if self.saves {
            properties.push(Property::sometimes("a saved value is a hit", |_, state: &State| {
                let is_hit = |reader: &Reader| reader.in_row && reader.outcome == Some(Outcome::Hit);
                state.readers.iter().any(is_hit)
            }));
        }
        if self.sets_own {
            properties.push(Property::sometimes(OWN_IS_HIT, |_, state: &State| {
                state.visible & 1 != 0 && ends(state, Outcome::QuickHit)
            }));
        }
        properties
    }
}
