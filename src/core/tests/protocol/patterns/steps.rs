//! The steps of the actors, as changes of the state.
//!
//! In the model, writers invalidate keys by patterns, fills store values, a saver copies them to rows, and readers must get no
//! value from before a pattern that matches its key. A *slot* holds one pattern. A pattern is *announced* while its transaction
//! commits, and *retired* when another one needs its slot; the *floor* of the space then refuses older values. To *renew* an entry
//! is to give it a later stamp. `mod.rs` has the details. `state.rs` lists the steps, and `scenarios.rs` the *variants*, each of
//! which is the protocol with one rule broken.

use super::scenarios::{Patterns, Variant};
use super::state::{Entry, Fill, Outcome, Read, Slot, State, Write};
use crate::memory::LATEST;

/// Returns the steps of a read, in order.
pub fn reading(slots: usize) -> Vec<Read> {
    let looks = (0..slots).map(Read::Slot);
    [Read::Begin, Read::Floor, Read::Patterns, Read::Clock]
        .into_iter()
        .chain(looks)
        .chain([Read::FloorAgain, Read::Renew])
        .collect()
}

impl State {
    /// Takes a step of the writer of a pattern.
    pub fn write(&mut self, model: &Patterns, writer: usize, step: Write) {
        let mut me = self.writers[writer];
        match step {
            Write::Take => {
                if !self.take(model, &mut me) {
                    self.writers[writer] = me;
                    return;
                }
            }
            Write::Stamp => (me.stamp, me.value) = (self.now, self.visible | 1 << writer),
            Write::Announce => {
                if let Some(slot) = me.slot {
                    self.slots[slot] = Slot::Announced(writer);
                }
            }
            Write::Raise if me.flushes => self.space.raise(),
            Write::Raise => self.patterns.raise(),
            Write::Show => self.visible |= 1 << writer,
            Write::Draw => {
                self.now += 1;
                me.number = self.now;
            }
            Write::Live => {
                if let Some(slot) = me.slot {
                    self.slots[slot] = Slot::Live(writer, me.number);
                }
            }
            Write::Lower if me.flushes => _ = self.space.lower(me.number),
            Write::Lower => _ = self.patterns.lower(me.number),
            // The code looks at one slot after the other, and then at the floor. A pattern that is announced meanwhile gets a later
            // number, and so removes the value.
            Write::Decide => {
                let is_other = |slot: &Slot| match slot {
                    Slot::Announced(pattern) => model.matches(*pattern, 0),
                    Slot::Live(pattern, number) => {
                        *number > me.stamp && *number != me.number && model.matches(*pattern, 0)
                    }
                    Slot::Free | Slot::Taken => false,
                };
                // If the space was flushed instead, the transaction's own change of its fence does not count, see
                // `set_and_fence.rs`.
                let floor = self.space.holds(me.stamp, LATEST);
                let is_right = floor && !self.slots.iter().any(is_other);
                me.publishes = match model.variant {
                    Variant::OwnKeepsStamp => Some(me.stamp),
                    Variant::OwnIgnoresOthers => Some(me.number),
                    _ => is_right.then_some(me.number),
                };
            }
            Write::Publish => {
                if let Some(stamp) = me.publishes {
                    self.store(0, stamp, me.value);
                }
            }
            Write::Abort => {
                me.aborted = true;
                match me.flushes {
                    true => self.space.withdraw(),
                    false => self.patterns.withdraw(),
                }
                if let Some(slot) = me.slot.filter(|_| model.variant != Variant::KeepsAborted) {
                    self.slots[slot] = Slot::Free;
                }
            }
        }
        me.at += 1;
        self.writers[writer] = me;
    }

    /// Takes a part of the step `Take`. Returns whether the writer has a slot, or knows that there is none.
    fn take(&mut self, model: &Patterns, me: &mut super::state::Writer) -> bool {
        if let Some((slot, number)) = me.retiring.take() {
            if model.variant == Variant::RaisesFloorLate {
                self.space.seq = self.space.seq.max(number);
                return true;
            }
            let is_still = matches!(self.slots[slot], Slot::Live(_, found) if found == number)
                || model.variant == Variant::RetiresAnnounced
                    && matches!(self.slots[slot], Slot::Announced(_));
            if is_still {
                (self.slots[slot], me.slot) = (Slot::Taken, Some(slot));
            }
            return is_still;
        }
        let slots = &self.slots[..model.slots];
        if let Some(slot) = slots.iter().position(|slot| *slot == Slot::Free) {
            (self.slots[slot], me.slot) = (Slot::Taken, Some(slot));
            return true;
        }
        let live = slots.iter().enumerate().filter_map(|(slot, state)| match state {
            Slot::Live(_, number) => Some((slot, *number)),
            Slot::Announced(_) if model.variant == Variant::RetiresAnnounced => Some((slot, 0)),
            _ => None,
        });
        let Some((slot, number)) = live.min_by_key(|(_, number)| *number) else {
            (me.flushes, self.flushed) = (true, true);
            return true;
        };
        self.retired = true;
        match model.variant {
            Variant::RaisesNoFloor => {}
            Variant::RaisesFloorLate => (self.slots[slot], me.slot) = (Slot::Taken, Some(slot)),
            _ => self.space.seq = self.space.seq.max(number),
        }
        me.retiring = Some((slot, number));
        false
    }

    /// Stores a value in memory.
    fn store(&mut self, key: usize, stamp: u8, value: u8) {
        self.identities += 1;
        self.memory[key] = Some(Entry { stamp, value, identity: self.identities });
        self.rows[key] = None;
    }

    /// Takes a step of a fill.
    pub fn fill(&mut self, model: &Patterns, fill: usize, step: Fill) {
        let mut me = self.fills[fill];
        match step {
            Fill::Stamp => me.stamp = self.now,
            Fill::Compute => me.value = self.visible,
            Fill::Publish => {
                let stamp = if model.variant == Variant::StampsWhenStored { self.now } else { me.stamp };
                self.store(model.fills[fill], stamp, me.value);
            }
        }
        me.at += 1;
        self.fills[fill] = me;
    }

    /// Takes a step of a reader.
    pub fn read(&mut self, model: &Patterns, reader: usize, step: Read) {
        let key = model.readers[reader];
        let mut me = self.readers[reader];
        me.at += 1;
        let entry = me.found;
        let stamp = entry.map_or(0, |entry| entry.stamp);
        let floor_holds = self.space.holds(stamp, LATEST);
        match step {
            Read::Begin => {
                (me.visible, me.outcome) = (self.visible, None);
                me.found = self.memory[key].or(self.rows[key]);
                me.in_row = self.memory[key].is_none();
                if me.found.is_none() {
                    me.outcome = Some(Outcome::Absent);
                }
            }
            Read::Floor if !floor_holds => me.outcome = Some(self.floored(&me)),
            Read::Floor => {}
            Read::Patterns => {
                let holds = match model.variant {
                    Variant::IgnoresPending => self.patterns.seq <= stamp,
                    Variant::TrustsRows if me.in_row => true,
                    _ => self.patterns.holds(stamp, LATEST),
                };
                if model.variant == Variant::MissesWhileAnnounced && self.patterns.pending > 0 {
                    me.outcome = Some(self.missed(model, key, None));
                } else if holds {
                    me.outcome = Some(self.hit(model, key, &me, Outcome::QuickHit));
                    me.as_of = stamp;
                }
            }
            Read::Clock => me.as_of = self.now,
            Read::Slot(slot) => {
                let counts = match self.slots[slot] {
                    Slot::Announced(pattern) => {
                        model.variant != Variant::IgnoresAnnounced && model.matches(pattern, key)
                    }
                    Slot::Live(pattern, number) => {
                        let is_later = match model.variant {
                            Variant::ComparesEarlier => number < stamp,
                            _ => number > stamp,
                        };
                        is_later && model.matches(pattern, key)
                    }
                    Slot::Free | Slot::Taken => false,
                };
                if counts {
                    me.outcome = Some(self.missed(model, key, Some(slot)));
                }
            }
            Read::FloorAgain if !floor_holds && model.variant != Variant::ChecksFloorFirst => {
                me.outcome = Some(self.floored(&me));
            }
            Read::FloorAgain => me.outcome = Some(self.hit(model, key, &me, Outcome::Hit)),
            Read::Renew => self.renew(model, key, &me),
        }
        if let (Some(Outcome::Hit | Outcome::QuickHit), Some(entry), false) = (me.outcome, entry, me.in_row) {
            me.last_hit = Some((entry.identity, me.as_of));
        }
        if let Some(Outcome::Miss) = me.outcome
            && !floor_holds
            && self.space.pending == 0
            && let Some((identity, as_of)) = me.last_hit
            && entry.is_some_and(|entry| entry.identity == identity)
            && self.space.seq <= as_of
            && !me.in_row
        {
            self.lost_renewed = true;
        }
        let is_hit = matches!(me.outcome, Some(Outcome::Hit | Outcome::QuickHit | Outcome::Stale));
        let is_over = match step {
            Read::Renew => true,
            // The caller has its value before the entry is renewed. A quick hit in memory needs no renewal.
            _ => me.outcome.is_some() && !(is_hit && (me.in_row || step == Read::FloorAgain)),
        };
        if is_over {
            (me.at, me.reads) = (0, me.reads + 1);
        }
        self.readers[reader] = me;
    }

    /// Returns the outcome of a read that the floor has ended.
    fn floored(&self, _: &super::state::Reader) -> Outcome {
        if self.retired || self.flushed { Outcome::Miss } else { Outcome::MissForNothing }
    }

    /// Returns the outcome of a read that the pattern in a slot has ended. Without a slot, any pattern may be the cause.
    fn missed(&self, model: &Patterns, key: usize, slot: Option<usize>) -> Outcome {
        let patterns = match slot.map(|slot| self.slots[slot]) {
            Some(Slot::Announced(pattern) | Slot::Live(pattern, _)) => pattern..pattern + 1,
            _ => 0..2,
        };
        let is_cause = |pattern: usize| {
            let writer = &self.writers[pattern];
            let is_under_way = writer.slot.is_some() && !writer.aborted;
            model.matches(pattern, key) && is_under_way
        };
        if patterns.into_iter().any(is_cause) { Outcome::Miss } else { Outcome::MissForNothing }
    }

    /// Returns the outcome of a read that is not a miss.
    fn hit(&self, model: &Patterns, key: usize, me: &super::state::Reader, how: Outcome) -> Outcome {
        let matching =
            (0..2).filter(|pattern| model.matches(*pattern, key)).fold(0, |all, one| all | 1 << one);
        let value = me.found.map_or(0, |entry| entry.value);
        if me.visible & matching & !value != 0 { Outcome::Stale } else { how }
    }

    /// Renews the entry that a reader has found, or makes the saved value that it has found an entry.
    fn renew(&mut self, model: &Patterns, key: usize, me: &super::state::Reader) {
        let Some(found) = me.found else { return };
        if me.in_row {
            if self.memory[key].is_none() && self.rows[key].is_some_and(|row| row.identity == found.identity)
            {
                let stamp = if model.variant == Variant::PromotesAnew { self.now } else { found.stamp };
                self.memory[key] = Some(Entry { stamp, ..found });
            }
            return;
        }
        let as_of = if model.variant == Variant::RenewsAsOfLater { self.now } else { me.as_of };
        if let Some(entry) = &mut self.memory[key]
            && model.variant != Variant::NeverRenews
            && (entry.identity == found.identity || model.variant == Variant::RenewsAnother)
            && entry.stamp < as_of
        {
            entry.stamp = as_of;
            self.renewed = true;
        }
    }
}
