//! The tier (the cache in memory) and the source (the database that values are computed from) as all actors of the model use them:
//! blocks, entries, locations, and the changes of a key. A change is *visible* when other sessions can see it in the source, and
//! *through* when the tier has it.
//!
//! In the model, the *saver* copies entries to rows of *segments*, which are tables. A *location* in memory says where the row of a
//! value is; it is found by the *bits* of the key, a part of its hash that keys may share. A *decider* sets a key only if it has no
//! value. `mod.rs` has the details. `state.rs` lists the steps, and `scenarios.rs` the *variants*, each of which is the protocol
//! with one rule broken.

use super::scenarios::{Table, Variant};
use super::state::{BLOCKS, Entry, KEYS, Location, Reader, Saver, State, UNKNOWN, Value};

impl State {
    /// Puts a value into the first free block, so that blocks recur as soon as possible. Returns None if no block is free.
    pub fn allocate(&mut self, value: Value) -> Option<usize> {
        let used = |block: &usize| {
            self.announced.contains(&Some(*block))
                || self.entries.iter().flatten().any(|entry| entry.block == *block)
        };
        let block = (0..BLOCKS).find(|block| !used(block))?;
        self.blocks[block] = value;
        Some(block)
    }

    /// Makes the value of the next change of a key. Must be called before [`show`](Self::show), which gives that change its
    /// version.
    pub fn next_value(&self, key: usize) -> Value {
        let version = self.visible[key] + 1;
        Value { key, version, bytes: (key, version) }
    }

    /// Returns the value of a key that is in the memory.
    pub fn in_memory(&self, key: usize) -> Option<Value> {
        self.entries[key].map(|entry| self.blocks[entry.block])
    }

    /// Returns the row at a location. None if the segment has fewer rows.
    pub fn row(&self, location: Location) -> Option<Value> {
        self.segments[location.segment].rows.get(location.position).copied()
    }

    /// Returns the youngest location with the bits of a key.
    pub fn location(&self, model: &Table, key: usize) -> Option<Location> {
        self.locations[model.bits(key)].first().copied()
    }

    /// Forgets the youngest location with the bits of a key, if there is one.
    pub fn forget(&mut self, model: &Table, key: usize) {
        let locations = &mut self.locations[model.bits(key)];
        locations.drain(..locations.len().min(1));
    }

    /// Adds a location with the bits of a key. As built, adds nothing if there is one already. Returns whether it was added.
    pub fn add(&mut self, model: &Table, key: usize, location: Location) -> bool {
        let locations = &mut self.locations[model.bits(key)];
        let has_room = locations.is_empty() || model.variant == Variant::TwoLocations;
        if has_room {
            locations.insert(0, location);
        }
        has_room
    }

    /// Makes the last visible change of a key in the tier. `entry` is the block of its value, and None for a removal. The caller
    /// must have made the change visible with [`show`](Self::show).
    pub fn change(&mut self, model: &Table, key: usize, entry: Option<usize>) {
        if model.forgets_in_change() {
            self.forget(model, key);
        }
        self.announced[key] = None;
        self.entries[key] = entry.map(|block| Entry { block, marked: false });
        self.through[key] = self.visible[key];
    }

    /// Makes a change of a key visible. It gets the next version.
    pub fn show(&mut self, key: usize, removes: bool) {
        self.visible[key] += 1;
        if removes {
            self.removals[key] |= 1 << self.visible[key];
        }
    }

    /// Whether a reader holds the lock of a segment.
    pub fn is_locked(&self, segment: usize) -> bool {
        let holds =
            |reader: &Reader| reader.locked && reader.location.is_some_and(|at| at.segment == segment);
        self.readers.iter().any(holds)
    }

    /// Restarts the server with an empty memory. Readers begin again. The scenarios with a restart have no announcements.
    pub fn restart(&mut self) {
        self.entries = [None; KEYS];
        self.locations.iter_mut().for_each(Vec::clear);
        self.segments.iter_mut().for_each(|segment| segment.recorded = UNKNOWN);
        self.saver = Saver::Idle;
        self.readers.fill(Reader::default());
        self.restarted = true;
    }
}
