//! The effect of each step of callers and writers. The functions do not check whether a step is possible: `properties.rs` offers
//! only the possible ones.
//!
//! In the model, callers want the result of one query. A caller that has the *flight* of the key computes the result for all, and
//! the others wait for it. `mod.rs` has the details. The *mark* of the flight says that another caller waits for it.
//!
//! The *leader* is the caller that has the flight. A *stamp* is a number of the clock of changes, which each committed change
//! increments. The *arrival* of a caller is the number that it draws from this clock when it begins. `state.rs` lists the steps,
//! and `scenarios.rs` the *variants*, each of which is the protocol with one rule broken.

use super::scenarios::{Flights, Variant};
use super::state::{Call, Entry, Flight, Frame, Outcome, Phase, Slot, State, Write};
use crate::memory::LATEST;

impl State {
    /// Returns whether a stored result is valid now.
    fn is_valid(&self, model: &Flights, entry: &Entry) -> bool {
        let forgiven = entry.born_invalid && model.is(Variant::InvalidIsAHit);
        forgiven || self.fence.holds(entry.stamp, LATEST) && self.flushed <= entry.stamp
    }

    /// Returns the flight of a key, if it is not over.
    fn leading(&self, key: u8) -> Option<&Flight> {
        self.slots[usize::from(key)].flight.as_ref().filter(|flight| flight.stamp >= self.flushed)
    }

    /// Takes a step of the present call of a session.
    pub fn call(&mut self, model: &Flights, number: usize, step: Call) {
        let mut call = self.sessions[number].call;
        if let Some(full) = model.plans[number].full.filter(|_| step == Call::Begin && self.varies) {
            call.key = full;
        }
        let key = usize::from(call.key);
        match step {
            Call::Begin => {
                call.expected = self.visible;
                match self.entries[key].filter(|entry| self.is_valid(model, entry)) {
                    Some(entry) => call.take(&entry, Outcome::Hit, Outcome::StaleHit),
                    None => {
                        if model.is(Variant::RemovesInvalid) {
                            self.entries[key] = None;
                        }
                        call.phase = model.looks();
                        if !model.is(Variant::DrawsAfterLook) {
                            self.draw(model, &mut call);
                        }
                    }
                }
            }
            Call::Draw => {
                self.draw(model, &mut call);
                call.phase = Phase::Sleeps;
            }
            Call::Look => self.look(model, number, &mut call),
            Call::Mark => {
                let slot = &mut self.slots[key];
                slot.waited |= slot.flight.is_some();
                call.phase = match model.variant {
                    Variant::MarksAfterLook => Phase::Sleeps,
                    _ => Phase::Looks,
                };
            }
            Call::Reset => (call.phase, call.woken) = (Phase::Sleeps, false),
            Call::Rise => {
                call.woken &= model.is(Variant::ResetsAfterLook);
                call.phase = model.looks();
            }
            Call::GiveUp => {
                let now = self.ticks;
                if let Some(flight) = &mut self.slots[key].flight {
                    (flight.given_up, flight.given_up_at) = (flight.given_up + 1, now);
                }
                call.phase = Phase::RunsAlone;
            }
            Call::CheckDeadlock => {
                call.checked = model.is(Variant::ChecksOnce);
                if self.is_deadlocked(model, number) {
                    self.broke_deadlock = true;
                    call.phase = Phase::RunsAlone;
                }
            }
            Call::Nest => {
                call.nested = true;
                let inner = Frame { key: model.plans[number].nested.unwrap_or_default(), ..Frame::default() };
                self.sessions[number].outer = Some(std::mem::replace(&mut call, inner));
            }
            Call::Plan => {
                (self.varies, call.planned, call.value) = (true, true, self.visible);
                call.moves_mark = self.slots[key].waited && !model.is(Variant::MovesWithoutMark);
                call.phase = if self.slots[key].waited { Phase::WakesThenLooks } else { Phase::Looks };
                self.slots[key].end_with_result(model, true);
                call.key = model.plans[number].full.unwrap_or(call.key);
            }
            Call::Move => call.key = model.plans[number].full.unwrap_or(call.key),
            Call::Run => {
                self.runs += 1;
                if !call.planned {
                    call.value = self.visible;
                }
                call.phase = match model.variant {
                    Variant::StampAfterRun => Phase::Stamps,
                    Variant::WakesFirst => Phase::WakesFirst,
                    _ => Phase::Lands,
                };
            }
            Call::Stamp => {
                (call.stamp, call.phase) = (self.now, Phase::Lands);
                if let Some(flight) = &mut self.slots[key].flight {
                    flight.stamp = self.now;
                }
            }
            Call::RunAlone => {
                self.runs += 1;
                call.end(Outcome::Alone);
            }
            Call::Fail if call.phase == Phase::RunsAlone => call.end(Outcome::Failed),
            Call::Land | Call::Fail | Call::Refuse => self.land(model, number, &mut call, step),
            Call::Wake => {
                self.wake(&mut call);
                match call.phase {
                    Phase::WakesFirst => call.phase = Phase::Lands,
                    Phase::WakesThenLooks => call.phase = Phase::Looks,
                    _ => call.phase = Phase::Done,
                }
            }
            Call::Die => return self.die(model, number),
        }
        let session = &mut self.sessions[number];
        session.call = call;
        if call.phase == Phase::Done {
            session.call = Frame { phase: Phase::Done, outcome: call.outcome, ..Frame::default() };
            // The query goes on after a nested call, unless that call has failed.
            let is_stale = matches!(call.outcome, Some(Outcome::StaleHit | Outcome::StaleWait));
            if let Some(outer) = session.outer.take_if(|_| !is_stale) {
                session.call = outer;
            }
        }
    }

    /// Draws the arrival of a call from the clock of changes.
    fn draw(&mut self, model: &Flights, call: &mut Frame) {
        if !model.is(Variant::ArrivalIsRead) {
            self.now += 1;
        }
        (call.arrival, call.arrived_at) = (self.now, self.ticks);
    }

    /// Looks under the shard's lock: takes the result of the key if the caller may, begins the flight if there is none, or waits
    /// for the present one.
    fn look(&mut self, model: &Flights, number: usize, call: &mut Frame) {
        use Variant::{
            DrawsAfterLook, DrawsEachTime, LeaderWaits, LevelIsIgnored, MarksAfterLook, MarksBeforeLook,
            MarksBeforeLookTwice, MovesWithNewSnapshot, NoMarks, ResetsAfterLook, TakesAny, WaitsForItself,
        };
        let key = usize::from(call.key);
        let has_waited = call.waits_for > 0;
        if let Some(entry) = self.entries[key] {
            let valid = if has_waited { Outcome::WaitedForValid } else { Outcome::Hit };
            if self.is_valid(model, &entry) {
                return call.take(&entry, valid, Outcome::StaleHit);
            }
            let is_later = call.arrival > 0 && entry.stamp >= call.arrival;
            if is_later || has_waited && model.is(TakesAny) {
                return call.take(&entry, Outcome::WaitedForLater, Outcome::StaleWait);
            }
        }
        if model.is(DrawsEachTime) && has_waited {
            self.now += 1;
            call.arrival = self.now;
        }
        self.late |= self.landed && !has_waited;
        self.needless |= call.has_result;
        if model.is(MovesWithNewSnapshot) {
            call.planned = false;
        }
        let Some(flight) = self.leading(call.key).copied() else { return self.begin(model, number, call) };
        let leads = self.sessions[number].outer.is_some_and(|outer| outer.phase == Phase::Runs);
        let is_own = usize::from(flight.leader) == number;
        let may_wait = match model.variant {
            LeaderWaits => !is_own,
            WaitsForItself => is_own || !leads,
            _ => !leads,
        };
        let slot = &mut self.slots[key];
        if !may_wait || slot.fruitless >= 2 && !model.is(LevelIsIgnored) {
            call.phase = Phase::RunsAlone;
            return;
        }
        if model.is(MarksBeforeLookTwice) && !slot.waited {
            call.phase = Phase::Marks;
            return;
        }
        slot.waited |= !matches!(model.variant, MarksAfterLook | MarksBeforeLook | NoMarks);
        (call.planned, call.stamp, call.value) = (false, 0, 0);
        if call.waits_for != flight.leader + 1 {
            (call.waits_for, call.flights) = (flight.leader + 1, call.flights + 1);
        }
        call.phase = match model.variant {
            MarksAfterLook => Phase::Marks,
            ResetsAfterLook => Phase::Resets,
            DrawsAfterLook if call.arrival == 0 => Phase::Draws,
            _ => Phase::Sleeps,
        };
    }

    /// Begins the flight of a key, under the same hold of the lock as the look that has found no flight.
    fn begin(&mut self, model: &Flights, number: usize, call: &mut Frame) {
        use Variant::{
            LevelNotInherited, MovedMarkIsOwed, MovesWithNewStamp, OnlyWaitersInherit, ReplacedForgetsMark,
        };
        let slot = &mut self.slots[usize::from(call.key)];
        // A flight inherits the mark of the flight that it replaces.
        slot.waited &= !model.is(ReplacedForgetsMark);
        slot.owed &= call.waits_for > 0 || !model.is(OnlyWaitersInherit);
        if call.moves_mark {
            slot.owed |= model.is(MovedMarkIsOwed);
            slot.waited |= !model.is(MovedMarkIsOwed);
        }
        if model.is(LevelNotInherited) {
            slot.fruitless = 0;
        }
        if !call.planned || model.is(MovesWithNewStamp) {
            call.stamp = self.now;
        }
        slot.flight = Some(Flight {
            leader: number as u8,
            stamp: call.stamp,
            void: false,
            begun_at: self.ticks,
            given_up_at: 0,
            given_up: 0,
        });
        if model.plans[number].full.is_some_and(|full| full != call.key) {
            // The call keeps its arrival, because it may have to wait for the other key.
            call.phase = Phase::Plans;
            return;
        }
        let Frame { key, stamp, value, planned, nested, flights, .. } = *call;
        let phase = Phase::Runs;
        *call = Frame { phase, key, stamp, value, planned, nested, flights: flights + 1, ..Frame::default() };
    }

    /// Ends the flight of a session: with a result, or without one.
    fn land(&mut self, model: &Flights, number: usize, call: &mut Frame, step: Call) {
        let key = usize::from(call.key);
        self.landed = true;
        call.end(if step == Call::Fail { Outcome::Failed } else { Outcome::Led });
        let is_own = |flight: &Flight| usize::from(flight.leader) == number;
        let Some(flight) = self.slots[key].flight.filter(is_own) else {
            // Another flight has replaced this one. The other flight has inherited the mark, and its leader will wake the waiters.
            self.replaced = true;
            return;
        };
        let born_invalid = !self.fence.holds(call.stamp, LATEST) || self.flushed > call.stamp;
        let mut entry = Entry { stamp: call.stamp, value: call.value, born_invalid };
        if model.is(Variant::StoredWithNewStamp) && born_invalid {
            entry.stamp = self.now;
        }
        let slot = &mut self.slots[key];
        let must_wake = slot.waited || model.is(Variant::NoMarks);
        let is_asked_for = must_wake || slot.owed;
        if step != Call::Land || flight.void {
            slot.end_fruitless(model);
            slot.fruitless = match step {
                Call::Refuse if !model.is(Variant::RefusedIsAnError) => 2,
                Call::Land if model.is(Variant::VoidIsNotCounted) => slot.fruitless,
                _ => (slot.fruitless + 1).min(2),
            };
            for session in &mut self.sessions {
                let waits = session.call.phase != Phase::Done && session.call.waits_for == flight.leader + 1;
                session.call.fruitless += u8::from(waits && session.call.key == call.key);
            }
        } else {
            slot.end_with_result(model, born_invalid);
            for waiter in self.sessions.iter_mut().map(|session| &mut session.call) {
                let is_later = waiter.waits_for > 0 && flight.stamp >= waiter.arrival;
                waiter.has_result |= is_later && waiter.arrival > 0 && waiter.key == call.key;
            }
            if !born_invalid || is_asked_for && !model.is(Variant::InvalidNotStored) {
                slot.fruitless = 0;
                self.entries[key] = Some(entry);
            } else if model.is(Variant::UnstoredRemoves) {
                self.entries[key] = None;
            }
        }
        if must_wake && !model.is(Variant::WakesFirst) {
            call.phase = Phase::Wakes;
        }
    }

    /// Wakes all callers that have registered.
    fn wake(&mut self, by: &mut Frame) {
        by.woken = false;
        for session in &mut self.sessions {
            let call = &mut session.call;
            use Phase::{Draws, Looks, Marks, Resets, Sleeps};
            call.woken |= matches!(call.phase, Draws | Looks | Marks | Resets | Sleeps);
        }
    }

    /// Ends a session. Its flights end without a result, and sessions that wait for them are woken.
    fn die(&mut self, model: &Flights, number: usize) {
        self.deaths += 1;
        let mut must_wake = false;
        for slot in &mut self.slots {
            if slot.flight.is_some_and(|flight| usize::from(flight.leader) == number)
                && !model.is(Variant::DeathKeepsSlot)
            {
                must_wake |= slot.waited;
                slot.end_fruitless(model);
                slot.owed &= !model.is(Variant::DeathForgetsMark);
                self.landed = true;
            }
        }
        must_wake &= !model.is(Variant::DeathDoesNotWake);
        let phase = if must_wake { Phase::Wakes } else { Phase::Done };
        let call = &mut self.sessions[number].call;
        *call = Frame { phase, outcome: Some(Outcome::Died), ..Frame::default() };
        self.sessions[number].outer = None;
    }

    /// Returns the session that keeps another session from running its query, because it holds a lock that the query needs.
    pub fn lock_holder(&self, model: &Flights, number: usize) -> Option<usize> {
        let needed = model.plans[number].needs?;
        let holds = |other: &usize| {
            *other != number && model.plans[*other].holds == Some(needed) && !self.sessions[*other].is_done()
        };
        (0..self.sessions.len()).find(holds)
    }

    /// Returns whether a session that waits for a flight is among the transitive blockers of its leader.
    pub fn is_deadlocked(&self, model: &Flights, waiter: usize) -> bool {
        self.is_its_own_blocker(model, waiter, self.leader_of(waiter), !model.is(Variant::ChecksLocksOnly))
    }

    /// Returns whether a session that waits for a lock is among its own transitive blockers, by locks alone. The server finds such
    /// a deadlock itself.
    pub fn is_deadlocked_by_locks(&self, model: &Flights, number: usize) -> bool {
        self.is_its_own_blocker(model, number, self.lock_holder(model, number), false)
    }

    /// Returns the leader of the key of a session's present call.
    fn leader_of(&self, number: usize) -> Option<usize> {
        self.leading(self.sessions[number].call.key).map(|flight| usize::from(flight.leader))
    }

    /// Returns whether the chain of blockers that begins with the session `at` leads to the session `number`. In the model, each
    /// session has at most one blocker.
    fn is_its_own_blocker(
        &self,
        model: &Flights,
        number: usize,
        mut at: Option<usize>,
        follows_flights: bool,
    ) -> bool {
        for _ in 0..=self.sessions.len() {
            let Some(session) = at else { return false };
            if session == number {
                return true;
            }
            let call = &self.sessions[session].call;
            at = match call.phase {
                Phase::Runs | Phase::RunsAlone => self.lock_holder(model, session),
                Phase::Sleeps if !call.woken && follows_flights => self.leader_of(session),
                _ => None,
            };
        }
        false
    }

    /// Returns whether a waiter may give its flight up.
    pub fn may_give_up(&self, model: &Flights, call: &Frame) -> bool {
        let Some(flight) = self.leading(call.key) else { return false };
        let mut since = flight.begun_at.max(call.arrived_at);
        if !model.is(Variant::GivesUpByItself) {
            since = since.max(flight.given_up_at);
        }
        call.phase == Phase::Sleeps && !call.woken && self.ticks > since
    }

    /// Takes a step of a writer.
    pub fn write(&mut self, number: usize, step: Write) {
        let writer = &mut self.writers[number];
        writer.at += 1;
        match step {
            Write::Raise => self.fence.raise(),
            Write::Show => self.visible |= 1 << number,
            Write::Draw => {
                self.now += 1;
                writer.number = self.now;
            }
            Write::Lower => {
                self.fence.lower(writer.number);
                writer.number = 0;
            }
            Write::Withdraw => {
                self.fence.withdraw();
                writer.aborted = true;
            }
        }
    }

    /// Renumbers the clock. States that differ only in numbers without a meaning then become equal. Stamps and the numbers of
    /// changes keep their order. An arrival is only compared with stamps, so it becomes the next greater one of these numbers.
    /// Every field of the state that holds a number of the clock must be in this function.
    pub fn renumber(&mut self) {
        let mut numbers: Vec<u8> = vec![0, self.now, self.flushed, self.fence.seq];
        numbers.extend(self.writers.iter().map(|writer| writer.number));
        numbers.extend(self.slots.iter().filter_map(|slot| slot.flight).map(|flight| flight.stamp));
        numbers.extend(self.entries.iter().flatten().map(|entry| entry.stamp));
        let calls = self.sessions.iter().flat_map(|session| [Some(session.call), session.outer]);
        numbers.extend(calls.flatten().map(|call| call.stamp));
        numbers.sort_unstable();
        numbers.dedup();
        let rank = |number: &mut u8| *number = numbers.partition_point(|other| other < number) as u8;
        [&mut self.now, &mut self.flushed, &mut self.fence.seq].into_iter().for_each(rank);
        self.writers.iter_mut().for_each(|writer| rank(&mut writer.number));
        self.slots.iter_mut().flat_map(|slot| &mut slot.flight).for_each(|flight| rank(&mut flight.stamp));
        self.entries.iter_mut().flatten().for_each(|entry| rank(&mut entry.stamp));
        for session in &mut self.sessions {
            for call in [Some(&mut session.call), session.outer.as_mut()].into_iter().flatten() {
                rank(&mut call.stamp);
                rank(&mut call.arrival);
            }
        }
    }
}

impl Slot {
    /// Ends the flight without a result. The next flight owes its result to the waiters of this flight, and to the waiters to which
    /// this flight owed its result.
    fn end_fruitless(&mut self, model: &Flights) {
        let is_kept = !model.is(Variant::FruitlessForgetsMark);
        self.end(model, self.waited || self.owed && is_kept);
    }

    /// Ends the flight with a result. The next flight owes its result to the waiters of this flight, because they have not looked
    /// yet.
    fn end_with_result(&mut self, model: &Flights, born_invalid: bool) {
        let is_kept = born_invalid || !model.is(Variant::ValidForgetsMark);
        self.end(model, self.waited && is_kept || self.owed && model.is(Variant::MarkLasts));
    }

    fn end(&mut self, model: &Flights, owed: bool) {
        (self.flight, self.waited) = (None, false);
        self.owed = owed && !model.is(Variant::MarkEndsWithFlight);
    }
}

impl Frame {
    /// Ends the call with a stored result.
    fn take(&mut self, entry: &Entry, right: Outcome, stale: Outcome) {
        self.end(if self.expected & !entry.value == 0 { right } else { stale });
    }

    fn end(&mut self, outcome: Outcome) {
        (self.phase, self.outcome) = (Phase::Done, Some(outcome));
    }
}

impl Flights {
    /// The phase of a call that is about to look under the shard's lock.
    fn looks(&self) -> Phase {
        match self.variant {
            Variant::MarksBeforeLook | Variant::MarksBeforeLookTwice => Phase::Marks,
            _ => Phase::Looks,
        }
    }
}
