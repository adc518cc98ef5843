//! The steps of readers and of deciders. `state.rs` explains the steps.
//!
//! In the model, the *saver* copies entries to rows of *segments*, which are tables. A *location* in memory says where the row of a
//! value is; it is found by the *bits* of the key, a part of its hash that keys may share. A *decider* sets a key only if it has no
//! value. `mod.rs` has the details. `state.rs` lists the steps, and `scenarios.rs` the *variants*, each of which is the protocol
//! with one rule broken.

use super::scenarios::{Table, Variant};
use super::state::{Entry, Location, Outcome, Read, Reader, State, Value};

impl State {
    /// Whether the key has a value that a reader could get now.
    fn has_value(&self, model: &Table, key: usize) -> bool {
        let is_saved = |at: Location| {
            self.segments[at.segment].is_as_recorded() && self.row(at).is_some_and(|row| row.key == key)
        };
        self.entries[key].is_some() || self.location(model, key).is_some_and(is_saved)
    }

    /// Returns None if the reader may get a value, and otherwise the mistake.
    fn judge(&self, reader: &Reader, value: Value) -> Option<Outcome> {
        let key = reader.key;
        let is_set = |version: &u8| self.touches[key] >> version & 1 == 0;
        let bytes = (0..=value.version).rev().find(is_set).unwrap_or(0);
        if value.bytes != (key, bytes) {
            Some(Outcome::Torn)
        } else if value.version >= reader.expected {
            None
        } else if self.removals[key] >> reader.expected & 1 == 1 {
            Some(Outcome::Removed)
        } else {
            Some(Outcome::Stale)
        }
    }

    /// Takes a step of a reader or a decider.
    pub fn read(&mut self, model: &Table, number: usize, step: Read) {
        let mut reader = std::mem::take(&mut self.readers[number]);
        reader.at += 1;
        let key = reader.key;
        let location = self.location(model, key);
        let outcome = match step {
            Read::Begin(key) => {
                reader = Reader { at: 1, key, expected: self.visible[key], ..Reader::default() };
                None
            }
            Read::Look if self.announced[key].is_some() => {
                let goes_on = model.variant == Variant::IgnoresAnnouncements && self.entries[key].is_none();
                (!goes_on).then_some(Outcome::Miss)
            }
            Read::Look => self.in_memory(key).map(|value| self.judge(&reader, value).unwrap_or(Outcome::Hit)),
            Read::Locate => {
                reader.location = location;
                location.is_none().then_some(Outcome::Miss)
            }
            Read::Record => {
                let at = reader.location.expect("it has one");
                reader.recorded = self.segments[at.segment].recorded;
                None
            }
            Read::Lock => {
                reader.locked = true;
                None
            }
            Read::LookAgain => (location != reader.location).then_some(Outcome::Miss),
            Read::Row => {
                let at = reader.location.expect("it has one");
                let is_of_file = self.segments[at.segment].file == reader.recorded
                    || model.variant == Variant::DoesNotCompareFiles;
                let is_it = |row: &Value| {
                    is_of_file && (row.key == key || model.variant == Variant::DoesNotCompareKeys)
                };
                reader.value = self.row(at).filter(is_it);
                if reader.value.is_none() && location == reader.location {
                    self.forget(model, key);
                }
                reader.value.is_none().then_some(Outcome::Miss)
            }
            Read::Bytes => {
                let row = self.row(reader.location.expect("it has one"));
                let bytes = row.map(|row| row.bytes);
                reader.value = reader.value.zip(bytes).map(|(value, bytes)| Value { bytes, ..value });
                reader.value.is_none().then_some(Outcome::Miss)
            }
            Read::Promote => {
                let value = reader.value.expect("it has one");
                let stands = location == reader.location || model.variant == Variant::PromotesWithoutLooking;
                if stands && self.entries[key].is_none() {
                    self.promoted_old |= value.version != self.through[key];
                    self.entries[key] =
                        self.allocate(Value { key, ..value }).map(|block| Entry { block, marked: false });
                }
                Some(self.judge(&reader, value).unwrap_or(Outcome::SavedHit))
            }
            Read::Decide => self.decide(model, &mut reader, location),
            Read::Forget => {
                if location == reader.location {
                    self.forget(model, key);
                }
                // The decider begins again, except in a mistaken variant.
                let is_told = model.variant == Variant::DecidesWithoutAskingAgain;
                reader = Reader::default();
                if is_told { Some(self.set_first(model, key)) } else { None }
            }
        };
        if let Some(outcome) = outcome {
            let reading = model.reading(number);
            // A decider does not end with a miss or a hit: it goes on to `Forget`, and then decides again.
            let forgets = reading.iter().position(|step| *step == Read::Forget);
            let ends = matches!(outcome, Outcome::Present | Outcome::First);
            reader = match forgets.filter(|_| !ends) {
                Some(at) => Reader { at: at as u8, location: reader.location, ..Reader::default() },
                None => Reader { at: reading.len() as u8, outcome: Some(outcome), ..Reader::default() },
            };
        }
        self.readers[number] = reader;
    }

    /// Ends a decider that finds a value in memory, or that finds no value at all and sets the key. Returns None if a location
    /// stands: then the decider looks at the row.
    fn decide(&mut self, model: &Table, reader: &mut Reader, location: Option<Location>) -> Option<Outcome> {
        if self.entries[reader.key].is_some() {
            return Some(Outcome::Present);
        }
        reader.location = location.filter(|_| model.variant != Variant::DecidesByMemory);
        reader.expected = self.visible[reader.key];
        reader.location.is_none().then(|| self.set_first(model, reader.key))
    }

    /// Sets a key because a decider has found that it has no value.
    fn set_first(&mut self, model: &Table, key: usize) -> Outcome {
        self.overlooked |= self.has_value(model, key);
        self.entries[key] = None;
        let block = self.allocate(self.next_value(key));
        self.show(key, false);
        self.change(model, key, block);
        Outcome::First
    }
}
