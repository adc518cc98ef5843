//! The steps of the client: its reads, and its calls of `cache_changes` and `cache_seq`.
//!
//! The *cursor* of the client is the number of the last record that it has applied. A *reset* is the answer that the client may
//! have missed records. A *variant* is the protocol with one rule broken. `owed` are the changes that the client must know after an
//! answer, and `proven` those that no local read may miss any more. `mod.rs` explains the model.

use super::scenarios::{Journal, Variant};
use super::state::{Body, CHANGES, Call, Caller, Client, Entry, Flight, Read, Scan, State};
use crate::memory::LATEST;

impl Client {
    /// Returns the next step of the read.
    pub fn next_read(&self, model: &Journal) -> Read {
        model.reading()[usize::from(self.flight.at)]
    }

    /// Returns whether the read may go on, or begin: it begins only if the client has a cursor and no value.
    pub fn may_read(&self, model: &Journal) -> bool {
        let may_begin =
            self.value.is_none() && (self.cursor.is_some() || model.variant == Variant::ReadsBeforeSeq);
        self.flight.at > 0 || may_begin
    }

    /// Drops the local value, and makes sure that the answer of a read that is under way is not kept.
    fn drop_value(&mut self) {
        self.value = None;
        self.flight.is_named = true;
    }

    /// Applies the records of an answer, and moves the cursor to the number `up_to`.
    fn apply(&mut self, model: &Journal, scan: Scan, up_to: u8) {
        self.proven |= scan.owed;
        self.applied |= scan.records;
        if scan.records & model.naming() != 0 {
            self.drop_value();
        }
        // With two callers, this may set the cursor back. Then the client applies some records again.
        self.cursor = Some(up_to);
    }

    /// Applies a reset, after which the client must ask for a new cursor. `seq` is the number of the tail, which only a variant
    /// takes.
    fn reset(&mut self, model: &Journal, scan: Scan, seq: u8) {
        self.proven |= scan.owed;
        let spared = self.flight;
        self.drop_value();
        if model.variant == Variant::ResetSparesFlight {
            self.flight = spared;
        }
        self.cursor = (model.variant == Variant::ResetTellsTail).then_some(seq);
    }
}

impl State {
    /// Takes a step of the read.
    pub fn read(&mut self, model: &Journal, step: Read) {
        let flight = &mut self.client.flight;
        flight.at += 1;
        match step {
            Read::Note => flight.is_named = false,
            Read::Look => {
                let holds = |entry: &Entry| self.fence.holds(entry.stamp, LATEST);
                let is_right = |entry: &Entry| holds(entry) || model.variant == Variant::IgnoresFence;
                match self.entry.filter(is_right) {
                    // The answer needs no snapshot.
                    Some(entry) => {
                        *flight = Flight { at: flight.at + 1, value: entry.value, is_hit: true, ..*flight };
                    }
                    None => flight.stamp = self.now,
                }
            }
            Read::Snapshot => {
                let seen = if model.variant == Variant::Standby { self.replayed } else { self.spread };
                flight.value = seen & model.concerning();
                if model.stores {
                    self.entry = Some(Entry { value: flight.value, stamp: flight.stamp });
                }
            }
            Read::Keep => {
                if !flight.is_named || model.variant == Variant::KeepsNamed {
                    self.client.value = Some(flight.value);
                }
                self.client.flight = Flight::default();
            }
        }
    }

    /// Returns the steps that a caller may take.
    pub fn calls(&self, model: &Journal, caller: usize) -> Vec<Call> {
        let next = match self.client.callers[caller] {
            Caller::Idle if self.client.cursor.is_none() => Call::SendSeq,
            Caller::Idle => Call::Begin,
            Caller::Header(_) => Call::Header,
            Caller::Copy(..) => Call::Copy,
            Caller::Tail(scan, None)
                if scan.position < self.tail && model.variant == Variant::GivesUpWaiting =>
            {
                return vec![Call::Tail, Call::GiveUp];
            }
            Caller::Tail(..) => Call::Tail,
            Caller::Changes(..) | Caller::Reset(..) => Call::Apply,
            Caller::SeqSent => Call::TakeSeq,
            Caller::Seq(_) => Call::ApplySeq,
        };
        vec![next]
    }

    /// Takes a step of a caller. `step` matters only where a caller has a choice: its state says the rest.
    pub fn call(&mut self, model: &Journal, number: usize, step: Call) {
        let next = match self.client.callers[number] {
            Caller::Idle => match self.client.cursor {
                Some(cursor) => self.begin(model, cursor),
                None => Caller::SeqSent,
            },
            Caller::Header(scan) => self.read_header(model, scan),
            Caller::Copy(scan, sum) => self.copy(model, scan, sum),
            Caller::Tail(scan, _) if step == Call::GiveUp => self.lost(scan),
            Caller::Tail(scan, copied) => self.compare_tail(model, scan, copied),
            Caller::Changes(scan, up_to) => {
                self.client.apply(model, scan, up_to);
                Caller::Idle
            }
            Caller::Reset(scan, seq) => {
                self.client.reset(model, scan, seq);
                Caller::Idle
            }
            Caller::SeqSent => Caller::Seq(self.base + self.tail),
            Caller::Seq(seq) => {
                if self.client.cursor.is_none() || model.variant == Variant::SeqReplacesCursor {
                    self.client.cursor = Some(seq);
                }
                Caller::Idle
            }
        };
        self.client.callers[number] = next;
    }

    /// Begins a call of `cache_changes` with the number `since`.
    fn begin(&self, model: &Journal, since: u8) -> Caller {
        let position = since.saturating_sub(self.base);
        let scan = Scan { position, part: 0, records: 0, owed: self.owed() };
        let is_below = since < self.base && model.variant != Variant::AcceptsBelowBase;
        if is_below || position > self.tail || self.is_lapped(model, scan) {
            return self.lost(scan);
        }
        Caller::Header(scan)
    }

    /// Reads the header of a line. A line of an earlier lap, or one that is claimed, is not written yet; if it is not the first
    /// line of its record, the answer is a reset. A line of a later lap is lost, so the answer is a reset, too.
    fn read_header(&self, model: &Journal, scan: Scan) -> Caller {
        let position = scan.position + scan.part;
        let line = self.lines[usize::from(position % model.lines)];
        let lap = position / model.lines + 1;
        match line.lap {
            found if found == lap && !line.is_claimed => Caller::Copy(scan, line.sum),
            found if found > lap && model.variant == Variant::WaitsForLaterLap => self.stop(scan),
            found if found > lap => self.lost(scan),
            _ if scan.part == 0 => Caller::Tail(scan, None),
            _ => self.lost(scan),
        }
    }

    /// Copies a line, and goes on to the next line of its record, or to the tail.
    fn copy(&self, model: &Journal, scan: Scan, sum: Option<Body>) -> Caller {
        let position = scan.position + scan.part;
        let body = self.lines[usize::from(position % model.lines)].body;
        let Some((id, part)) = body.filter(|_| body == sum || !model.has_checksum()) else {
            return self.lost(scan);
        };
        if part != scan.part {
            return self.lost(scan);
        }
        if part + 1 < model.parts(id) {
            return Caller::Header(Scan { part: part + 1, ..scan });
        }
        match model.variant {
            Variant::NoTailAfterCopy | Variant::ClaimsWithoutTail => self.go_on(model, scan, Some(id)),
            _ => Caller::Tail(scan, Some(id)),
        }
    }

    /// Compares the tail with the position, after the record of the change `copied` was copied, or (None) after a line was found
    /// that is not written yet.
    fn compare_tail(&self, model: &Journal, scan: Scan, copied: Option<u8>) -> Caller {
        if self.is_lapped(model, scan) {
            return self.lost(scan);
        }
        let skips = model.variant == Variant::SkipsUnwritten && scan.position < self.tail;
        if copied.is_some() || skips { self.go_on(model, scan, copied) } else { self.stop(scan) }
    }

    /// Returns whether the ring does not reach back to the position any more.
    fn is_lapped(&self, model: &Journal, scan: Scan) -> bool {
        self.tail > scan.position + model.lines
    }

    /// Continues behind a copied record, or (None) behind a line that is not written, which only a variant does.
    fn go_on(&self, model: &Journal, scan: Scan, copied: Option<u8>) -> Caller {
        let record = copied.map_or(0, |id| 1 << id);
        let position = scan.position + copied.map_or(1, |id| model.parts(id));
        Caller::Header(Scan { position, part: 0, records: scan.records | record, ..scan })
    }

    /// Ends the call with the records that were read.
    fn stop(&self, scan: Scan) -> Caller {
        Caller::Changes(scan, self.base + scan.position)
    }

    /// Ends the call with a reset. Everything that all sessions see now is in the values that the client will read after it.
    fn lost(&self, scan: Scan) -> Caller {
        Caller::Reset(Scan { owed: self.spread, ..scan }, self.base + self.tail)
    }

    /// Returns the changes that a call that begins now must tell of: those whose record is written, as are all records
    /// before it in this life.
    fn owed(&self) -> u8 {
        let is_written = |id: usize| self.written >> id & 1 == 1;
        let first_unwritten = (0..CHANGES)
            .filter(|id| self.numbers[*id] > self.base && !is_written(*id))
            .map(|id| self.numbers[id])
            .min()
            .unwrap_or(u8::MAX);
        (0..CHANGES)
            .filter(|id| is_written(*id) && self.numbers[*id] < first_unwritten)
            .fold(0, |owed, id| owed | 1 << id)
            & self.visible
    }
}
