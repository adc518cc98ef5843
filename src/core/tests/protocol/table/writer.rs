//! The steps of the writer, which makes the changes of the scenario one after the other.
//!
//! In the model, values are in the *tier* (the cache in memory) or saved in rows of tables; a *location* in memory says where the
//! row of a value is. A writer must *forget* the location of the old value when it changes a key. `mod.rs` has the details.
//! `state.rs` lists the steps, and `scenarios.rs` the *variants*, each of which is the protocol with one rule broken.

use super::scenarios::{Table, Variant};
use super::state::{State, Write};

impl State {
    /// Takes one step of the present change, which has the index `self.change` in the scenario. `self.at` is the index of the next
    /// step in the change. After the last step, the next change begins.
    pub fn write(&mut self, model: &Table, step: Write) {
        let change = model.changes[usize::from(self.change)];
        let key = change.key();
        self.at += 1;
        match step {
            Write::Announce => self.announced[key] = self.allocate(self.next_value(key)),
            Write::Show => self.show(key, change.removes()),
            Write::Confirm => {
                let block = self.announced[key].filter(|_| !change.removes());
                self.change(model, key, block);
            }
            Write::Withdraw => {
                self.announced[key] = None;
                // An aborted change has no further steps, so the next change begins.
                self.at = u8::MAX;
            }
            Write::AtOnce => {
                let value = self.next_value(key);
                let block = if change.removes() { None } else { self.allocate(value) };
                self.show(key, change.removes());
                self.change(model, key, block);
            }
            Write::Touch => {
                // A touch gives an entry another time to live, and forgets the location of a saved value. If the key has no entry,
                // the saved value is lost, so the touch counts as a removal.
                self.show(key, self.entries[key].is_none());
                if model.forgets_in_change() {
                    self.forget(model, key);
                }
                self.through[key] = self.visible[key];
                if let Some(entry) = &mut self.entries[key] {
                    self.touches[key] |= 1 << self.visible[key];
                    self.blocks[entry.block].version = self.visible[key];
                    // As built, a touched entry loses the mark of the saver.
                    entry.marked &= model.variant == Variant::KeepsMarkWhenTouched;
                }
            }
            Write::Forget => self.forget(model, key),
        }
        if usize::from(self.at) >= model.writing(change).len() {
            (self.change, self.at) = (self.change + 1, 0);
        }
    }
}
