//! The steps of the writers, and a crash.
//!
//! A writer makes a change visible, reserves the lines of a *record* in the *journal*, a ring of lines, and writes them. A crash
//! loses the journal; then a new *life* of it begins. `mod.rs` has the details. `state.rs` lists the steps, and `scenarios.rs` the
//! *variants*, each of which is the protocol with one rule broken.

use super::scenarios::{Journal, Variant};
use super::state::{Caller, Flight, Line, Name, Read, State, Write, Writer};
use crate::memory::Fence;

impl Write {
    /// Returns which line of its record a step is about. 0 for steps that are about no line.
    fn part(self) -> u8 {
        match self {
            Self::Claim(part) | Self::Body(part) | Self::Header(part) => part,
            _ => 0,
        }
    }
}

impl State {
    /// Returns the steps that a writer may take.
    pub fn writes(&self, model: &Journal, number: usize) -> Vec<Write> {
        let writer = &self.writers[number];
        let Some(id) = model.id(number, writer.change) else { return vec![] };
        if writer.skips {
            return vec![Write::Skip];
        }
        let next = model.writing(id)[usize::from(writer.at)];
        let fails = next == Write::Reserve
            && model.name(id) == Name::Everything
            && model.variant == Variant::ErrorAppendsNothing;
        if fails { vec![next, Write::Fail] } else { vec![next] }
    }

    /// Takes a step of a writer.
    pub fn write(&mut self, model: &Journal, number: usize, step: Write) {
        let writer = &mut self.writers[number];
        let id = model.id(number, writer.change).expect("it has one");
        writer.at += 1;
        let position = writer.position + step.part();
        let lap = position / model.lines + 1;
        let line = &mut self.lines[usize::from(position % model.lines)];
        match step {
            Write::Raise => self.fence.raise(),
            Write::Show => {
                self.visible |= 1 << id;
                if !model.spreads {
                    self.spread |= 1 << id;
                }
            }
            Write::Spread => self.spread |= 1 << id,
            Write::Lower => {
                self.now += 1;
                self.fence.lower(self.now);
            }
            Write::Reserve => {
                writer.position = self.tail;
                self.tail += model.parts(id);
                self.numbers[usize::from(id)] = self.base + self.tail;
            }
            // A writer of a later lap has come first. Then no reader accepts this position.
            Write::Claim(_) if line.lap > lap => self.end(model, number),
            Write::Claim(_) if line.is_claimed && model.variant == Variant::LeavesBusyLine => {
                self.end(model, number);
            }
            Write::Claim(_) if line.is_claimed => writer.skips = true,
            Write::Claim(_) => *line = Line { lap, is_claimed: true, ..*line },
            Write::Skip => {
                self.tail += model.lines;
                self.end(model, number);
            }
            Write::Body(part) => line.body = Some((id, part)),
            Write::Header(part) => {
                let replaces = [Variant::ReplacesLaterLap, Variant::JustStores].contains(&model.variant);
                if line.lap <= lap || replaces {
                    *line = Line { lap, is_claimed: false, sum: Some((id, part)), body: line.body };
                }
            }
            Write::Fail => self.end(model, number),
        }
        let writer = &self.writers[number];
        if writer.change < model.changes[number].len() as u8
            && usize::from(writer.at) == model.writing(id).len()
        {
            self.end(model, number);
        }
    }

    /// Ends the change that a writer is at. Lines that the writer has claimed, and not written, are lost for readers.
    fn end(&mut self, model: &Journal, number: usize) {
        let writer = &mut self.writers[number];
        let id = model.id(number, writer.change).expect("it has one");
        for part in (0..model.parts(id)).filter(|_| model.claims() && model.variant != Variant::KeepsClaims) {
            let position = writer.position + part;
            let line = &mut self.lines[usize::from(position % model.lines)];
            if line.is_claimed && line.lap == position / model.lines + 1 {
                *line = Line { lap: line.lap, ..Line::default() };
            }
        }
        self.written |= 1 << id;
        *writer = Writer { change: writer.change + 1, ..Writer::default() };
    }

    /// Restarts the server after a crash. The memory is lost, and so is every change that is not visible yet: its writer
    /// will make it again. Answers that the server has sent still arrive.
    pub fn crash(&mut self, model: &Journal) {
        self.base += match model.variant {
            Variant::SameBase => 0,
            Variant::BaseAtOldTail => self.tail,
            _ => self.tail + 1,
        };
        self.tail = 0;
        self.lines.fill(Line::default());
        self.spread = self.visible;
        (self.now, self.fence, self.entry) = (0, Fence::default(), None);
        self.crashed = true;
        for number in 0..self.writers.len() {
            let writer = &mut self.writers[number];
            let Some(id) = model.id(number, writer.change) else { continue };
            let recorded = &mut self.numbers[usize::from(id)];
            if self.visible >> id & 1 == 0 {
                *recorded = 0;
                *writer = Writer { change: writer.change, ..Writer::default() };
            } else {
                if *recorded == 0 {
                    *recorded = self.base;
                }
                self.end(model, number);
            }
        }
        if self.client.next_read(model) != Read::Keep {
            self.client.flight = Flight::default();
        }
        for caller in &mut self.client.callers {
            if !matches!(caller, Caller::Changes(..) | Caller::Reset(..) | Caller::Seq(_)) {
                *caller = Caller::Idle;
            }
        }
    }
}
