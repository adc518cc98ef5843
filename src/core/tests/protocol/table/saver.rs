//! The steps of the saver: those that are possible in a state, and their effect.
//!
//! The *saver* marks an entry, copies it to a row of a *segment*, a table, and adds the *location* of the row to the directory.
//! `mod.rs` explains the model. `state.rs` lists the steps, and `scenarios.rs` the *variants*, each of which is the protocol with
//! one rule broken.

use super::scenarios::{Table, Variant};
use super::state::{KEYS, Location, Marked, Save, Saver, Segment, State, Value};

impl State {
    /// Returns the keys that the saver may mark, a bit for each.
    fn to_be_saved(&self, model: &Table) -> u8 {
        let wanted = |key: &usize| {
            let is_saved = self.location(model, *key).is_some();
            self.entries[*key].is_some() && (!is_saved || model.variant == Variant::TwoLocations)
        };
        (0..KEYS).filter(wanted).fold(0, |keys, key| keys | 1 << key)
    }

    /// Marks the entries of these keys, and adds them to the batch.
    fn mark(&mut self, keys: u8, batch: &mut Vec<Marked>) {
        for key in (0..KEYS).filter(|key| keys >> key & 1 == 1) {
            if let Some(entry) = &mut self.entries[key] {
                entry.marked = true;
                let version = self.blocks[entry.block].version;
                batch.push(Marked { key, block: entry.block, version });
            }
        }
    }

    /// Returns whether a marked entry is still there, as the saver sees it.
    pub fn is_still(&self, model: &Table, marked: &Marked) -> bool {
        let is_it = |key: &usize| {
            self.entries[*key].is_some_and(|entry| {
                entry.block == marked.block && (entry.marked || model.variant == Variant::ComparesBlocks)
            })
        };
        (0..KEYS).filter(|key| model.bits(*key) == model.bits(marked.key)).any(|key| is_it(&key))
    }

    /// Returns whether the saver can append this many rows. It uses no segment whose table was rewritten, or that was not emptied
    /// since a restart.
    fn has_room(&self, model: &Table, segment: usize, rows: usize) -> bool {
        let found = &self.segments[segment];
        found.is_as_recorded() && found.rows.len() + rows <= model.positions
    }

    /// Appends a row, and returns its location.
    fn append(&mut self, segment: usize, value: Value) -> Location {
        let rows = &mut self.segments[segment].rows;
        rows.push(value);
        Location { segment, position: rows.len() - 1 }
    }

    /// Forgets all locations in a segment.
    fn forget_segment(&mut self, segment: usize) {
        self.locations.iter_mut().for_each(|locations| locations.retain(|one| one.segment != segment));
    }

    /// Gives a segment an empty file with another number, and records it. There are two such numbers, so that they recur.
    fn truncate(&mut self, segment: usize) {
        let file = (self.segments[segment].recorded + 1) % 2;
        self.segments[segment] = Segment { rows: vec![], file, recorded: file };
    }

    /// Takes a step of the saver.
    pub fn save(&mut self, model: &Table, step: Save) {
        let before = std::mem::replace(&mut self.saver, Saver::Idle);
        self.saver = match (step, before) {
            (Save::Mark(keys), Saver::Copying(mut batch, copies)) => {
                self.mark(keys, &mut batch);
                Saver::Copying(batch, copies)
            }
            (Save::Mark(keys), _) => {
                let mut batch = vec![];
                self.mark(keys, &mut batch);
                Saver::Copying(batch, vec![])
            }
            (Save::Copy, Saver::Copying(batch, mut copies)) => {
                // The lengths and the properties are those that the entry had when it was marked.
                let marked = batch[copies.len()];
                copies.push(Value { version: marked.version, ..self.blocks[marked.block] });
                Saver::Copying(batch, copies)
            }
            (Save::Append(segment), Saver::Copying(batch, copies)) => {
                let places: Vec<_> = copies.into_iter().map(|copy| self.append(segment, copy)).collect();
                Saver::Locating(batch.into_iter().zip(places).collect())
            }
            (Save::Locate, Saver::Locating(mut left)) => {
                let (marked, location) = left.remove(0);
                if self.is_still(model, &marked) && self.add(model, marked.key, location) && model.leaves {
                    self.entries[marked.key] = None;
                }
                if left.is_empty() { Saver::Idle } else { Saver::Locating(left) }
            }
            (Save::Empty(segment), _) if model.variant == Variant::TruncatesFirst => {
                self.truncate(segment);
                Saver::Emptied(segment)
            }
            (Save::Empty(segment), _) => {
                self.forget_segment(segment);
                Saver::Emptied(segment)
            }
            (Save::Truncate, Saver::Emptied(segment)) if model.variant == Variant::TruncatesFirst => {
                self.forget_segment(segment);
                Saver::Idle
            }
            (Save::Truncate, Saver::Emptied(segment)) => {
                if !self.is_locked(segment) {
                    self.truncate(segment);
                }
                Saver::Idle
            }
            (Save::CopyRow(from), _) => match self.row(from) {
                Some(copy) => Saver::Moving { from, copy, to: None },
                None => Saver::Idle,
            },
            (Save::AppendRow, Saver::Moving { from, copy, .. }) => {
                Saver::Moving { from, copy, to: Some(self.append(1 - from.segment, copy)) }
            }
            (Save::Move, Saver::Moving { from, copy, to: Some(to) }) => {
                if self.location(model, copy.key) == Some(from) {
                    self.forget(model, copy.key);
                    self.add(model, copy.key, to);
                } else if model.variant == Variant::MovesWithoutLooking {
                    self.add(model, copy.key, to);
                }
                Saver::Idle
            }
            (Save::GiveUp, _) => Saver::Idle,
            (step, before) => unreachable!("{step:?} in {before:?}"),
        };
    }

    /// Returns the steps that the saver may take.
    pub fn savings(&self, model: &Table) -> Vec<Save> {
        let wanted = self.to_be_saved(model);
        let marks = (1..1 << KEYS).filter(|keys| keys & !wanted == 0).map(Save::Mark);
        let segments = 0..model.segments;
        let gives_up = (self.saver != Saver::Idle).then_some(Save::GiveUp);
        let mut steps: Vec<_> = match &self.saver {
            Saver::Idle => {
                let used = |segment: &usize| {
                    let segment = &self.segments[*segment];
                    !segment.rows.is_empty() || !segment.is_as_recorded()
                };
                let moved = self.locations.iter().flatten().filter(|from| {
                    self.segments[from.segment].is_as_recorded()
                        && model.segments > 1
                        && self.has_room(model, 1 - from.segment, 1)
                });
                let emptied = segments
                    .filter(used)
                    .filter(|segment| model.variant != Variant::TruncatesFirst || !self.is_locked(*segment));
                marks.chain(emptied.map(Save::Empty)).chain(moved.copied().map(Save::CopyRow)).collect()
            }
            Saver::Copying(batch, copies) if copies.len() < batch.len() => {
                let again = model.variant == Variant::MarksTwice && copies.is_empty() && batch.len() == 1;
                marks.filter(|_| again).chain([Save::Copy]).collect()
            }
            Saver::Copying(_, copies) => {
                segments.filter(|at| self.has_room(model, *at, copies.len())).map(Save::Append).collect()
            }
            Saver::Locating(_) => vec![Save::Locate],
            Saver::Emptied(_) => vec![Save::Truncate],
            Saver::Moving { to: None, .. } => vec![Save::AppendRow],
            Saver::Moving { .. } => vec![Save::Move],
        };
        steps.extend(gives_up);
        steps
    }
}
