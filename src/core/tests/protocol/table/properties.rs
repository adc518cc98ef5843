//! The steps that are possible in a state, and the properties of every state.
//!
//! In the model, the *saver* copies entries to rows of *segments*, which are tables. A *location* in memory says where the row of a
//! value is; it is found by the *bits* of the key, a part of its hash that keys may share. A *decider* sets a key only if it has no
//! value. `mod.rs` has the details. `state.rs` lists the steps, and `scenarios.rs` the *variants*, each of which is the protocol
//! with one rule broken.

use super::scenarios::{Table, Variant};
use super::state::{
    BLOCKS, Entry, KEYS, Location, Outcome, REWRITTEN, Read, Reader, Saver, State, Step, Value, Write,
};
use stateright::{Model, Property};

/// No reader gets an older version than the one that was visible when it began.
pub const NOT_STALE: &str = "no stale read";
/// No reader gets a value of a key that was removed before the reader began.
pub const NOT_REMOVED: &str = "no read of a removed key";
/// No reader gets the properties of one value with the bytes of another one, or a value of another key.
pub const WHOLE: &str = "what is read is whole and of its key";
/// A row that becomes an entry has the last version that the tier has.
pub const PROMOTED_IS_PRESENT: &str = "what is promoted is present";
/// Each location leads to a row with the last version that the tier has, unless the file of the table is not the
/// recorded one.
pub const SAVED_IS_PRESENT: &str = "what has a location is present";
/// No decider sets a key that has a value which a reader could get.
pub const NOT_OVERLOOKED: &str = "no decider overlooks a value";

impl Model for Table {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let mut blocks = [Value::default(); BLOCKS];
        let mut entries = [None; KEYS];
        for key in (0..KEYS).filter(|key| self.present[*key]) {
            blocks[key] = Value { key, version: 0, bytes: (key, 0) };
            entries[key] = Some(Entry { block: key, marked: false });
        }
        vec![State {
            blocks,
            entries,
            announced: [None; KEYS],
            locations: Default::default(),
            segments: Default::default(),
            visible: [0; KEYS],
            through: [0; KEYS],
            removals: [0; KEYS],
            touches: [0; KEYS],
            change: 0,
            at: 0,
            saver: Saver::Idle,
            readers: vec![Reader::default(); self.readers + self.deciders],
            restarted: false,
            promoted_old: false,
            overlooked: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        if let Some(change) = self.changes.get(usize::from(state.change)) {
            let next = self.writing(*change)[usize::from(state.at)];
            actions.push(Step::Writer(next));
            if next == Write::Show {
                actions.push(Step::Writer(Write::Withdraw));
            }
        }
        let may_evict = |key: &usize| !self.leaves && state.entries[*key].is_some();
        actions.extend((0..KEYS).filter(may_evict).map(Step::Evict));
        actions.extend(state.savings(self).into_iter().map(Step::Saver));
        if self.variant == Variant::TwoSavers && state.entries.iter().flatten().any(|entry| !entry.marked) {
            actions.push(Step::OtherSaver);
        }
        let may_rewrite = |segment: &usize| {
            self.rewrites && !state.segments[*segment].rows.is_empty() && !state.is_locked(*segment)
        };
        actions.extend((0..self.segments).filter(may_rewrite).map(Step::Rewrite));
        if self.rewrites && !state.restarted {
            actions.push(Step::Restart);
        }
        for (number, reader) in state.readers.iter().enumerate() {
            let begins = || self.read.iter().map(move |key| Step::Reader(number, Read::Begin(*key)));
            match self.reading(number).get(usize::from(reader.at)) {
                Some(Read::Begin(_)) => actions.extend(begins()),
                Some(step) => actions.push(Step::Reader(number, *step)),
                None if !self.decides(number) => actions.extend(begins()),
                None => {}
            }
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Writer(step) => state.write(self, step),
            Step::Evict(key) => state.entries[key] = None,
            Step::Saver(step) => state.save(self, step),
            Step::OtherSaver => state.entries.iter_mut().flatten().for_each(|entry| entry.marked = true),
            Step::Rewrite(segment) => {
                let segment = &mut state.segments[segment];
                segment.rows.reverse();
                segment.file = REWRITTEN;
            }
            Step::Restart => state.restart(),
            Step::Reader(number, step) => state.read(self, number, step),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn ends(state: &State, outcome: Outcome) -> bool {
            state.readers.iter().any(|reader| reader.outcome == Some(outcome))
        }
        let mut properties = vec![
            Property::always(NOT_STALE, |_, state: &State| !ends(state, Outcome::Stale)),
            Property::always(NOT_REMOVED, |_, state: &State| !ends(state, Outcome::Removed)),
            Property::always(WHOLE, |_, state: &State| !ends(state, Outcome::Torn)),
            Property::always(PROMOTED_IS_PRESENT, |_, state: &State| !state.promoted_old),
            Property::always(NOT_OVERLOOKED, |_, state: &State| !state.overlooked),
            Property::always(SAVED_IS_PRESENT, |_, state: &State| {
                let is_present = |at: &Location| {
                    let as_recorded = state.segments[at.segment].is_as_recorded();
                    let row = state.row(*at);
                    !as_recorded || row.is_some_and(|row| row.version == state.through[row.key])
                };
                state.locations.iter().flatten().all(is_present)
            }),
            Property::sometimes("a copy comes too late", |model: &Self, state: &State| match &state.saver {
                Saver::Locating(left) => !state.is_still(model, &left[0].0),
                _ => false,
            }),
            Property::sometimes("a position is used again", |_, state: &State| {
                // The first truncation gives the file the number 1.
                state.segments.iter().any(|segment| segment.file == 1 && !segment.rows.is_empty())
            }),
            Property::sometimes(
                "a reader keeps the saver from a segment",
                |_, state: &State| matches!(state.saver, Saver::Emptied(segment) if state.is_locked(segment)),
            ),
            Property::sometimes(
                "a reader finds that its location has gone",
                |model: &Self, state: &State| {
                    let has_gone = |reader: &Reader| {
                        reader.location.is_some() && reader.location != state.location(model, reader.key)
                    };
                    state.readers.iter().any(|reader| reader.locked && has_gone(reader))
                },
            ),
        ];
        if self.readers > 0 {
            properties.push(Property::sometimes("a saved value is a hit", |_, state: &State| {
                ends(state, Outcome::SavedHit)
            }));
            properties.push(Property::sometimes("a value of the memory is a hit", |_, state: &State| {
                ends(state, Outcome::Hit)
            }));
        }
        if self.deciders > 1 {
            properties
                .push(Property::sometimes("one decider finds the other's value", |_, state: &State| {
                    ends(state, Outcome::First) && ends(state, Outcome::Present)
                }));
            properties.push(Property::sometimes(
                "both set the key, as it was evicted",
                |_, state: &State| {
                    state.readers.iter().filter(|reader| reader.outcome == Some(Outcome::First)).count() > 1
                },
            ));
        }
        properties
    }
}
