//! The effect of each step on the state. The functions do not check whether a step is possible: `properties.rs` offers only the
//! possible ones.
//!
//! In the model, writers set or remove one key, and workers compute its value under a *lease*. A *claim* is the right of a
//! transaction to set a key that has no value; it and a lease are *flights*. A transaction *announces* a key to hide its value
//! until the change is *through*, that is, in the tier. `mod.rs` has the details.
//!
//! A *tier* is a cache in memory that several processes share. `state.rs` lists the steps, and `scenarios.rs` the *variants*, each
//! of which is the protocol with one rule broken.

use super::scenarios::{Keys, Variant};
use super::state::{Flight, Outcome, Read, State, Value, Work, Worker, Write, Writer};

impl State {
    /// Returns whether an announcement hides the value from readers.
    pub fn is_covered(&self) -> bool {
        self.announced != 0 && !self.uncovered
    }

    /// Voids the flight of the key, because the key is set or removed. The flight stays until it is ended, but its value must not
    /// become the value of the key. If the flight is a claim, its writer notes how many changes are through now (see
    /// [`State::land`]).
    pub fn void(&mut self) {
        if let Some(flight) = &mut self.flight {
            flight.void = true;
            if let Some(by) = flight.claimed_by {
                let through = self.through.len() as u8;
                self.writers[usize::from(by)].voided_at.get_or_insert(through);
            }
        }
    }

    /// Ends the claim of a writer. Returns whether the claim was still valid.
    pub fn end_claim(&mut self, model: &Keys, number: usize) -> bool {
        let claim = self.writers[number].claim.take();
        self.writers[number].won = false;
        match self.flight.filter(|flight| Some(flight.lease) == claim) {
            Some(flight) => {
                self.flight = None;
                !flight.void || model.variant == Variant::VoidedClaimLands
            }
            None => model.variant == Variant::ClaimTakesNoSlot,
        }
    }

    /// Ends the claim of a writer with a value. If the claim is valid, the value becomes the value of the key. If the claim was
    /// voided, the value is not stored. It counts as set immediately before the change that has voided the claim, so it gets the
    /// place before that change in `through`.
    pub fn land(&mut self, model: &Keys, number: usize) {
        if self.end_claim(model, number) {
            self.replace(model, number);
            if let Some(value) = self.entry {
                self.store(model, value);
            }
            return;
        }
        let place = self.writers[number].voided_at.map_or(self.through.len(), usize::from);
        self.through.insert(place, number as u8);
        if model.variant == Variant::VoidedClaimRemoves {
            self.entry = None;
        }
    }

    /// Makes a value the value of the key. Announcements still hide it, except in a mistaken variant.
    pub fn store(&mut self, model: &Keys, value: Value) {
        self.entry = Some(value);
        self.uncovered = model.variant == Variant::PublishedOverAnnouncement && self.announced != 0;
    }

    /// Replaces the value of the key by the value that a writer sets, or by none if the writer removes the key. The change of the
    /// writer is then through.
    pub fn replace(&mut self, model: &Keys, number: usize) {
        self.entry = model.changes[number].sets().then_some(Value::Set(number as u8));
        self.uncovered = false;
        self.through.push(number as u8);
    }

    /// Takes a step of a writer.
    pub fn write(&mut self, model: &Keys, number: usize, step: Write) {
        use Variant::*;
        let bit = 1 << number;
        let uncover = |announced: u8| if model.variant == AnnouncementIsAFlag { 0 } else { announced & !bit };
        self.writers[number].at += 1;
        match step {
            Write::Announce => {
                self.announced |= bit;
                self.uncovered = false;
                if model.variant == VoidsWhenAnnounced {
                    self.void();
                }
            }
            Write::Show => self.visible |= bit,
            Write::LookForValue => {
                let taken = self.flight.is_some_and(|flight| flight.claimed_by.is_some());
                self.writers[number].refused = self.entry.is_some() || self.announced != 0 || taken;
            }
            Write::Claim => {
                let changing = self.announced != 0 && model.variant != ClaimedBesideAnnouncement;
                let taken = self.flight.is_some_and(|flight| flight.claimed_by.is_some());
                if (self.entry.is_some() || changing || taken) && model.variant != LookedThenClaimed {
                    self.writers[number].refused = true;
                    return;
                }
                self.writers[number].won = true;
                if model.variant == ClaimTakesNoSlot {
                    return;
                }
                self.leases += 1;
                let lease = self.leases;
                self.writers[number].claim = Some(lease);
                if model.variant == ClaimLeavesLease && self.flight.is_some() {
                    return;
                }
                // The claim takes the place of a lease, if the key has one. So no worker holds a lease any more.
                let claimed_by = Some(number as u8);
                self.flight = Some(Flight { lease, void: false, overdue: false, claimed_by });
                self.workers.iter_mut().for_each(|worker| worker.leads = false);
            }
            Write::Release => {
                if model.variant == AbortKeepsClaim {
                    self.writers[number].won = false;
                } else {
                    self.end_claim(model, number);
                }
            }
            Write::Publish => {
                self.visible |= bit;
                self.land(model, number);
            }
            Write::Confirm if model.changes[number].claims() => {
                self.land(model, number);
                self.announced = uncover(self.announced);
                self.uncovered = false;
            }
            Write::Confirm => {
                if !matches!(model.variant, VoidsNothing | VoidsWhenAnnounced) {
                    self.void();
                }
                self.replace(model, number);
                self.announced = uncover(self.announced);
            }
            // An aborted writer has one step left, `Withdraw` or `Release`, and its steps are counted from 0 again.
            Write::Abort => {
                let writer = &mut self.writers[number];
                (writer.at, writer.aborted) = (0, true);
            }
            Write::Withdraw => {
                self.announced = uncover(self.announced);
                if model.changes[number].claims() {
                    self.end_claim(model, number);
                }
                match model.variant {
                    WithdrawRemoves => self.entry = None,
                    WithdrawVoids => self.void(),
                    _ => {}
                }
            }
            Write::AtOnce => {
                if model.variant != AtOnceVoidsNothing {
                    self.void();
                }
                self.visible |= bit;
                self.replace(model, number);
                if let Some(value) = self.entry {
                    self.store(model, value);
                }
            }
            Write::RemoveFirst => {
                self.void();
                self.entry = None;
            }
            Write::Replace => {
                self.void();
                self.replace(model, number);
            }
            Write::Uncover => {
                // This variant has no other step that makes the change. A value that was stored since `RemoveFirst` stays if the
                // change is a removal.
                if model.variant == RemovedBeforeAnnounced {
                    let kept = self.entry;
                    self.replace(model, number);
                    self.entry = self.entry.or(kept);
                }
                self.announced = uncover(self.announced);
            }
        }
    }

    /// Ends the flight of a worker's lease, if the key still has this flight. Returns whether the worker's value may be stored: the
    /// flight must not be void.
    ///
    /// The *epoch* is the number of restarts. A restart ends all flights, and begins the numbers of leases again with 1. So a lease
    /// from an earlier epoch has no flight, although a new lease may have the same number.
    fn end_lease(&mut self, model: &Keys, number: usize) -> bool {
        let Worker { lease, epoch, .. } = self.workers[number];
        let known = model.variant == Variant::LeaseWithoutEpoch || epoch == self.epoch;
        let own =
            |flight: &Flight| known && (flight.lease == lease || model.variant == Variant::AnyLeaseLands);
        match self.flight.filter(own) {
            Some(flight) => {
                self.flight = None;
                !flight.void
            }
            None => false,
        }
    }

    /// Takes a step of a worker.
    pub fn work(&mut self, model: &Keys, number: usize, step: Work) {
        self.workers[number].at += 1;
        match step {
            // Changes nothing. `properties.rs` has the check: it offers this step only if no other flight leads. The same holds
            // for `Acquire` as built.
            Work::LookForLeader => {}
            Work::Acquire => {
                self.leases += 1;
                let flight = Flight { lease: self.leases, void: false, overdue: false, claimed_by: None };
                self.flight = Some(flight);
                let worker = &mut self.workers[number];
                (worker.lease, worker.epoch, worker.leads) = (flight.lease, self.epoch, true);
                worker.as_of = self.visible;
            }
            Work::Compute => self.workers[number].value = self.visible,
            Work::Publish => {
                let checks = model.variant != Variant::LeaseBetterThanSnapshot;
                let refused = checks && self.workers[number].has_snapshot_older_than_lease();
                let lands = self.end_lease(model, number) && !refused;
                let worker = &mut self.workers[number];
                (worker.stored, worker.leads) = (Some(lands), false);
                let value = Value::Computed(worker.value);
                if lands {
                    self.store(model, value);
                }
            }
            Work::CheckLease => {
                let lands = self.end_lease(model, number);
                self.workers[number].stored = Some(lands);
                self.workers[number].leads = false;
            }
            Work::Store => {
                let Worker { stored, value, .. } = self.workers[number];
                if stored == Some(true) {
                    self.store(model, Value::Computed(value));
                }
            }
            Work::GiveUp => {
                self.end_lease(model, number);
                let worker = &mut self.workers[number];
                worker.at = model.work().len() as u8;
                worker.leads = false;
            }
        }
    }

    /// Takes a step of the reader.
    pub fn read(&mut self, model: &Keys, step: Read) {
        match step {
            Read::Begin => {
                self.begun = true;
                self.expected = self.visible;
                let over =
                    |(number, writer): (usize, &Writer)| writer.aborted && model.is_over(number, writer);
                self.aborts_seen = self.writers.iter().enumerate().any(over);
            }
            Read::Look => self.outcome = Some(self.look()),
        }
    }

    /// Returns the result of a reader that looks now.
    pub fn look(&self) -> Outcome {
        let Some(value) = self.entry.filter(|_| !self.is_covered()) else { return Outcome::Miss };
        let place = |change: u8| self.through.iter().position(|through| *through == change);
        let expected = (0..8).filter(|change| self.expected >> change & 1 == 1);
        // A set value contains the changes that were through before it, and lacks the later ones. A visible change that is not
        // through at all cannot be in it.
        let missed = match value {
            Value::Computed(with) => self.expected & !with != 0,
            Value::Set(by) => {
                expected.into_iter().any(|change| place(change).is_none_or(|at| place(by) < Some(at)))
            }
        };
        if missed { Outcome::Stale } else { Outcome::Hit(value) }
    }

    /// Restarts the server: the tier is empty, the transactions that were not visible have aborted, and the visible
    /// changes count as through. A read that is under way ends with a miss.
    pub fn restart(&mut self, model: &Keys) {
        for (number, writer) in self.writers.iter_mut().enumerate() {
            let end = model.writes(model.changes[number]).len() as u8;
            if self.visible >> number & 1 == 1 && writer.at < end {
                writer.at = end;
                self.through.push(number as u8);
            } else if writer.aborted || writer.at > 0 && writer.at < end {
                // The restart has undone the change. So the writer is aborted, and has taken the one step of an aborted writer.
                *writer = Writer { at: 1, aborted: true, ..Writer::default() };
            }
            (writer.claim, writer.won) = (None, false);
        }
        for worker in &mut self.workers {
            worker.leads = false;
        }
        self.announced = 0;
        self.uncovered = false;
        self.entry = None;
        self.flight = None;
        self.leases = 0;
        self.epoch += 1;
        if self.begun && self.outcome.is_none() {
            self.outcome = Some(Outcome::Miss);
        }
    }
}
