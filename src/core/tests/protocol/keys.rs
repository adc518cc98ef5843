//! The protocol of one key. The actors are transactions that set or remove the key, callers that do so at once,
//! callers that compute its value under a lease, and transactions that claim the key to set it only if it has no
//! value.
//!
//! Each step is what the tier does under one hold of the shard's lock. A change is *visible* when other sessions can
//! see it in the source. It is *through* when the tier has it. The key is announced from before the change is visible
//! until it is through, which hides its value meanwhile. A computed value is the set of the changes that were visible
//! to the session that computed it. A set whose value is dropped at commit (see `set_and_fence.rs`) is confirmed as a
//! removal.
//!
//! A lease records what was visible when it was acquired. The tier's caller refuses a value that was computed on an
//! older snapshot, in the statement that acquires the lease. A value that is set under a claim, while another actor
//! sets or removes the key, counts as having been set before that change.

use stateright::{Model, Property};

use crate::{Verdict, check, long};

/// A change that an actor makes to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// In a transaction, which may abort.
    Set,
    Remove,
    /// Without a transaction: visible and through in one step.
    SetAtOnce,
    RemoveAtOnce,
    /// In a transaction that claims the key, announces it because the transaction has changed more than the key, and
    /// confirms it.
    SetAbsent,
    /// In a transaction that claims the key and has changed nothing else, so that its value need not be announced.
    PublishAbsent,
}

impl Change {
    fn sets(self) -> bool {
        matches!(self, Self::Set | Self::SetAtOnce | Self::SetAbsent | Self::PublishAbsent)
    }

    fn claims(self) -> bool {
        matches!(self, Self::SetAbsent | Self::PublishAbsent)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    Announce,
    /// The commit.
    Show,
    Confirm,
    Abort,
    Withdraw,
    AtOnce,
    /// Claims the key if it has no value; otherwise the claim is refused and the writer stops.
    Claim,
    /// Ends a claim that the writer gave up before it announced anything.
    Release,
    /// Publishes without an announcement: visible and through in one step.
    Publish,
    // Only variants have the following steps.
    RemoveFirst,
    Replace,
    Uncover,
    LookForValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    Acquire,
    /// Takes a snapshot and computes the value on it.
    Compute,
    Publish,
    GiveUp,
    // Only variants have the following steps.
    LookForLeader,
    CheckLease,
    Store,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Read {
    Begin,
    Look,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Writer(usize, Write),
    Worker(usize, Work),
    Reader(Read),
    /// The deadline of the flight passes.
    TimePasses,
    /// Shared memory starts empty again. Applications keep their leases across the restart.
    Restart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// Set by this writer.
    Set(u8),
    /// Computed, with these changes in it.
    Computed(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flight {
    pub lease: u8,
    pub void: bool,
    pub overdue: bool,
    pub claimed_by: Option<u8>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Writer {
    at: u8,
    aborted: bool,
    /// The lease number of its claim.
    pub claim: Option<u8>,
    /// Whether its claim was granted, because there was no value, and has not ended.
    won: bool,
    /// Whether its claim was refused, because of a value, an announcement or another writer's claim.
    pub refused: bool,
    /// How many changes were through when its claim was voided.
    voided_at: Option<u8>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Worker {
    at: u8,
    pub epoch: u8,
    pub lease: u8,
    pub value: u8,
    /// The changes that were visible when it acquired the lease.
    as_of: u8,
    /// Whether it holds a lease whose deadline has not passed.
    leads: bool,
    /// Whether its value was stored (true) or refused (false). None before that.
    pub stored: Option<bool>,
}

impl Worker {
    /// Returns whether its snapshot misses a change that was visible when it acquired the lease.
    pub fn is_of_before_lease(&self) -> bool {
        self.as_of & !self.value != 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Miss,
    Hit(Value),
    Stale,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    // The state of the source.
    visible: u8,
    // The state of the tier.
    /// The writers whose announcements stand, as bits.
    pub announced: u8,
    /// Whether the value is served although the key is announced. Only mistaken variants set this.
    uncovered: bool,
    pub entry: Option<Value>,
    pub flight: Option<Flight>,
    leases: u8,
    pub epoch: u8,
    // Facts that the model remembers in order to judge the outcome.
    through: Vec<u8>,
    pub writers: Vec<Writer>,
    pub workers: Vec<Worker>,
    begun: bool,
    expected: u8,
    aborts_seen: bool,
    pub outcome: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    AsBuilt,
    NotAnnounced,
    AnnouncedWhenVisible,
    AnnouncementIsAFlag,
    RemovedBeforeAnnounced,
    ConfirmInTwoSteps,
    PublishedOverAnnouncement,
    CheckedThenStored,
    VoidsNothing,
    VoidsWhenAnnounced,
    AtOnceVoidsNothing,
    WithdrawRemoves,
    DroppedIsWithdrawn,
    AnyLeaseLands,
    AcquiredWithoutLooking,
    LookedThenAcquired,
    LeaseWithoutEpoch,
    LeaseBetterThanSnapshot,
    WithdrawVoids,
    ReplacedThenUncovered,
    ClaimTakesNoSlot,
    LookedThenClaimed,
    ClaimLeavesLease,
    VoidedClaimLands,
    VoidedClaimRemoves,
    AbortKeepsClaim,
    ClaimedBesideAnnouncement,
}

#[derive(Clone, Debug)]
pub struct Keys {
    variant: Variant,
    pub changes: &'static [Change],
    workers: usize,
    restarts: bool,
    /// Whether the key has no value at first.
    pub empty: bool,
    /// Whether a worker acquires its lease in the statement that computes, whose snapshot is older.
    one_statement: bool,
}

impl Keys {
    /// Two transactions that announce the same key.
    pub fn two_transactions(variant: Variant) -> Self {
        Self {
            variant,
            changes: &[Change::Set, Change::Remove],
            workers: 1,
            restarts: false,
            empty: false,
            one_statement: false,
        }
    }

    pub fn two_sets(variant: Variant) -> Self {
        Self {
            variant,
            changes: &[Change::Set, Change::Set],
            workers: 1,
            restarts: false,
            empty: false,
            one_statement: false,
        }
    }

    pub fn at_once(variant: Variant) -> Self {
        let changes = &[Change::Set, Change::SetAtOnce, Change::RemoveAtOnce];
        Self { variant, changes, workers: 1, restarts: false, empty: false, one_statement: false }
    }

    pub fn two_workers(variant: Variant) -> Self {
        Self {
            variant,
            changes: &[Change::Remove],
            workers: 2,
            restarts: false,
            empty: false,
            one_statement: false,
        }
    }

    pub fn restart(variant: Variant) -> Self {
        Self {
            variant,
            changes: &[Change::Set],
            workers: 2,
            restarts: true,
            empty: false,
            one_statement: false,
        }
    }

    pub fn everybody(variant: Variant) -> Self {
        let changes = &[Change::Set, Change::Remove, Change::SetAtOnce];
        Self { variant, changes, workers: 2, restarts: false, empty: false, one_statement: false }
    }

    /// A worker that computes the value before it acquires the lease.
    pub fn one_statement(variant: Variant) -> Self {
        Self { one_statement: true, ..Self::two_transactions(variant) }
    }

    /// Two transactions that claim the key; only one may be the first to set it.
    pub fn two_claims(variant: Variant) -> Self {
        let changes = &[Change::SetAbsent, Change::PublishAbsent];
        Self { variant, changes, workers: 1, restarts: false, empty: true, one_statement: false }
    }

    /// A transaction that claims the key beside a plain set.
    pub fn claim_and_set(variant: Variant) -> Self {
        let changes = &[Change::SetAbsent, Change::Set];
        Self { variant, changes, workers: 1, restarts: false, empty: true, one_statement: false }
    }

    /// A claim beside two removals: one removal makes the claim possible, the other one comes in between.
    pub fn claim_and_removal(variant: Variant) -> Self {
        let changes = &[Change::PublishAbsent, Change::Remove, Change::RemoveAtOnce];
        Self { variant, changes, workers: 1, restarts: false, empty: false, one_statement: false }
    }

    fn writes(&self, change: Change) -> &'static [Write] {
        use Write::{
            Announce, AtOnce, Claim, Confirm, LookForValue, Publish, RemoveFirst, Replace, Show, Uncover,
            Withdraw,
        };
        match (change, self.variant) {
            (Change::SetAbsent, Variant::LookedThenClaimed) => {
                &[LookForValue, Claim, Announce, Show, Confirm]
            }
            (Change::PublishAbsent, Variant::LookedThenClaimed) => &[LookForValue, Claim, Publish],
            (Change::SetAbsent, _) => &[Claim, Announce, Show, Confirm],
            (Change::PublishAbsent, _) => &[Claim, Publish],
            (Change::SetAtOnce | Change::RemoveAtOnce, _) => &[AtOnce],
            (_, Variant::NotAnnounced) => &[Show, Confirm],
            (_, Variant::AnnouncedWhenVisible) => &[Show, Announce, Confirm],
            (_, Variant::RemovedBeforeAnnounced) => &[RemoveFirst, Announce, Show, Uncover],
            (_, Variant::DroppedIsWithdrawn) => &[Announce, Show, Withdraw],
            (_, Variant::ConfirmInTwoSteps) => &[Announce, Show, Uncover, Replace],
            (_, Variant::ReplacedThenUncovered) => &[Announce, Show, Replace, Uncover],
            _ => &[Announce, Show, Confirm],
        }
    }

    fn work(&self) -> &'static [Work] {
        use Work::{Acquire, CheckLease, Compute, LookForLeader, Publish, Store};
        match self.variant {
            _ if self.one_statement => &[Compute, Acquire, Publish],
            Variant::CheckedThenStored => &[Acquire, Compute, CheckLease, Store],
            Variant::LookedThenAcquired => &[LookForLeader, Acquire, Compute, Publish],
            _ => &[Acquire, Compute, Publish],
        }
    }

    fn is_over(&self, number: usize, writer: &Writer) -> bool {
        writer.refused
            || usize::from(writer.at)
                == if writer.aborted { 1 } else { self.writes(self.changes[number]).len() }
    }

    /// Returns whether a worker holds a lease that it has not ended.
    fn is_at_work(&self, worker: &Worker) -> bool {
        let at = usize::from(worker.at);
        self.work()[..at].contains(&Work::Acquire) && at < self.work().len()
    }
}

impl State {
    pub fn is_covered(&self) -> bool {
        self.announced != 0 && !self.uncovered
    }

    fn void(&mut self) {
        if let Some(flight) = &mut self.flight {
            flight.void = true;
            if let Some(by) = flight.claimed_by {
                let through = self.through.len() as u8;
                self.writers[usize::from(by)].voided_at.get_or_insert(through);
            }
        }
    }

    /// Ends the claim of a writer. Returns whether the claim was still valid.
    fn end_claim(&mut self, model: &Keys, number: usize) -> bool {
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

    /// Stores the value of a claim. If the claim is valid, the value replaces what the key has. If the claim was
    /// voided, the value counts as set before the change that voided it.
    fn land(&mut self, model: &Keys, number: usize) {
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

    fn store(&mut self, model: &Keys, value: Value) {
        self.entry = Some(value);
        self.uncovered = model.variant == Variant::PublishedOverAnnouncement && self.announced != 0;
    }

    /// Replaces the value of the key by the result of the change.
    fn replace(&mut self, model: &Keys, number: usize) {
        self.entry = model.changes[number].sets().then_some(Value::Set(number as u8));
        self.uncovered = false;
        self.through.push(number as u8);
    }

    fn write(&mut self, model: &Keys, number: usize, step: Write) {
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
                if model.variant == RemovedBeforeAnnounced {
                    let kept = self.entry;
                    self.replace(model, number);
                    self.entry = self.entry.or(kept);
                }
                self.announced = uncover(self.announced);
            }
        }
    }

    /// Ends the flight of a worker's lease. Returns whether its value may be stored.
    fn end(&mut self, model: &Keys, number: usize) -> bool {
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

    fn work(&mut self, model: &Keys, number: usize, step: Work) {
        self.workers[number].at += 1;
        match step {
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
                let refused = checks && self.workers[number].is_of_before_lease();
                let lands = self.end(model, number) && !refused;
                let worker = &mut self.workers[number];
                (worker.stored, worker.leads) = (Some(lands), false);
                let value = Value::Computed(worker.value);
                if lands {
                    self.store(model, value);
                }
            }
            Work::CheckLease => {
                let lands = self.end(model, number);
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
                self.end(model, number);
                let worker = &mut self.workers[number];
                worker.at = model.work().len() as u8;
                worker.leads = false;
            }
        }
    }

    fn read(&mut self, model: &Keys, step: Read) {
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

    fn look(&self) -> Outcome {
        let Some(value) = self.entry.filter(|_| !self.is_covered()) else { return Outcome::Miss };
        let place = |change: u8| self.through.iter().position(|through| *through == change);
        let expected = (0..8).filter(|change| self.expected >> change & 1 == 1);
        // Of several sets, the value of the last one through counts. A change that is not through at all must have
        // been missed.
        let missed = match value {
            Value::Computed(with) => self.expected & !with != 0,
            Value::Set(by) => {
                expected.into_iter().any(|change| place(change).is_none_or(|at| place(by) < Some(at)))
            }
        };
        if missed { Outcome::Stale } else { Outcome::Hit(value) }
    }

    fn restart(&mut self, model: &Keys) {
        for (number, writer) in self.writers.iter_mut().enumerate() {
            let end = model.writes(model.changes[number]).len() as u8;
            if self.visible >> number & 1 == 1 && writer.at < end {
                writer.at = end;
                self.through.push(number as u8);
            } else if writer.aborted || writer.at > 0 && writer.at < end {
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

impl Model for Keys {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            visible: 0,
            announced: 0,
            uncovered: false,
            entry: (!self.empty).then_some(Value::Computed(0)),
            flight: None,
            leases: 0,
            epoch: 0,
            through: vec![],
            writers: vec![Writer::default(); self.changes.len()],
            workers: vec![Worker::default(); self.workers],
            begun: false,
            expected: 0,
            aborts_seen: false,
            outcome: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        for (number, writer) in state.writers.iter().enumerate() {
            let (writes, at) = (self.writes(self.changes[number]), usize::from(writer.at));
            if writer.refused {
                continue;
            }
            if writer.aborted {
                // Without an announcement there is nothing to withdraw.
                let back = if state.announced >> number & 1 == 1 { Write::Withdraw } else { Write::Release };
                actions.extend((at == 0).then_some(Step::Writer(number, back)));
                continue;
            }
            actions.extend(writes.get(at).map(|write| Step::Writer(number, *write)));
            if at > 0 && matches!(writes[at - 1], Write::Announce | Write::Claim) {
                actions.push(Step::Writer(number, Write::Abort));
            }
        }
        for (number, worker) in state.workers.iter().enumerate() {
            let mut work = |step| actions.push(Step::Worker(number, step));
            let free = state.flight.is_none_or(|flight| flight.overdue && flight.claimed_by.is_none());
            let looks = match self.variant {
                Variant::AcquiredWithoutLooking => None,
                Variant::LookedThenAcquired => Some(Work::LookForLeader),
                _ => Some(Work::Acquire),
            };
            match self.work().get(usize::from(worker.at)) {
                // Another session leads: the worker asks again later.
                step if step.copied() == looks && !free => {}
                Some(step) => work(*step),
                None => {}
            }
            if self.is_at_work(worker) && worker.stored.is_none() {
                work(Work::GiveUp);
            }
        }
        if !state.begun {
            actions.push(Step::Reader(Read::Begin));
        } else if state.outcome.is_none() {
            actions.push(Step::Reader(Read::Look));
        }
        // A claim has no deadline.
        if state.flight.is_some_and(|flight| !flight.overdue && flight.claimed_by.is_none()) {
            actions.push(Step::TimePasses);
        }
        if self.restarts && state.epoch == 0 {
            actions.push(Step::Restart);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Writer(number, step) => state.write(self, number, step),
            Step::Worker(number, step) => state.work(self, number, step),
            Step::Reader(step) => state.read(self, step),
            Step::TimePasses => {
                if let Some(flight) = &mut state.flight {
                    flight.overdue = true;
                }
                state.workers.iter_mut().for_each(|worker| worker.leads = false);
            }
            Step::Restart => state.restart(self),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(NOT_STALE, |_, state: &State| state.outcome != Some(Outcome::Stale)),
            Property::always(LAST_THROUGH, |_, state: &State| match state.entry {
                Some(Value::Set(by)) => state.through.last() == Some(&by),
                Some(Value::Computed(with)) => state.through.iter().all(|change| with >> change & 1 == 1),
                None => true,
            }),
            Property::always(NOTHING_LOST, |model: &Self, state: &State| {
                let removed = |change: &u8| !model.changes[usize::from(*change)].sets();
                let empty = model.empty && state.through.is_empty();
                let last = state.through.last();
                state.entry.is_some() || state.epoch > 0 || empty || last.is_some_and(removed)
            }),
            Property::always(ONE_CLAIM, |_, state: &State| {
                state.writers.iter().filter(|writer| writer.won).count() <= 1
            }),
            Property::always(LATER_IS_LATER, |_, state: &State| match state.entry {
                Some(Value::Set(by)) => state.writers[usize::from(by)].voided_at.is_none(),
                _ => true,
            }),
            Property::always(CLAIMS_END, |model: &Self, state: &State| {
                let over = |by: u8| {
                    let by = usize::from(by);
                    model.is_over(by, &state.writers[by])
                };
                state.flight.and_then(|flight| flight.claimed_by).is_none_or(|by| !over(by))
            }),
            Property::always(ONE_LEADER, |_, state: &State| {
                state.workers.iter().filter(|worker| worker.leads).count() <= 1
            }),
            Property::always("announcements end", |model: &Self, state: &State| {
                let mut writers = state.writers.iter().enumerate();
                state.announced == 0 || writers.any(|(number, writer)| !model.is_over(number, writer))
            }),
            Property::sometimes(
                "a computed value with a change in it is a hit",
                |_, state: &State| matches!(state.outcome, Some(Outcome::Hit(Value::Computed(with))) if with != 0),
            ),
            Property::sometimes("a computed value comes too late", |_, state: &State| {
                state.workers.iter().any(|worker| worker.stored == Some(false))
            }),
        ];
        if !self.empty && self.changes.iter().any(|change| matches!(change, Change::Set | Change::Remove)) {
            properties.push(Property::sometimes(
                "the old value is a hit behind an abort",
                |_, state: &State| {
                    state.aborts_seen && state.outcome == Some(Outcome::Hit(Value::Computed(0)))
                },
            ));
        }
        if self.changes.iter().any(|change| change.claims()) {
            properties.push(Property::sometimes("one who claims is refused", |_, state: &State| {
                state.writers.iter().any(|writer| writer.refused)
            }));
            properties.push(Property::sometimes(
                "what was claimed is a hit",
                |model: &Self, state: &State| {
                    matches!(state.outcome, Some(Outcome::Hit(Value::Set(by)))
                    if model.changes[usize::from(by)].claims())
                },
            ));
            properties.push(Property::sometimes("a claim overtakes a lease", |_, state: &State| {
                state.flight.is_some_and(|flight| flight.claimed_by.is_some())
                    && state.workers.iter().any(|worker| worker.lease > 0 && worker.stored.is_none())
            }));
        }
        if self.changes.iter().filter(|change| change.claims()).count() > 1 {
            properties.push(Property::sometimes("one claims after the other gave up", |_, state: &State| {
                state.writers.iter().any(|writer| writer.aborted)
                    && state.writers.iter().any(|writer| writer.won && !writer.aborted)
            }));
        }
        if self.changes.iter().any(|change| change.claims())
            && self.changes.iter().any(|change| !change.claims())
        {
            properties.push(Property::sometimes("a claim is voided", |_, state: &State| {
                state.writers.iter().any(|writer| writer.voided_at.is_some())
            }));
        }
        if self.changes.contains(&Change::Set) {
            properties.push(Property::sometimes("a set value is a hit", |_, state: &State| {
                matches!(state.outcome, Some(Outcome::Hit(Value::Set(_))))
            }));
        }
        if self.changes.iter().all(|change| change.claims()) {
            properties.push(Property::always(ONE_FIRST, |_, state: &State| state.through.len() <= 1));
        }
        // A claim on a key without a value and a plain set can be through in one order only.
        if self.changes.len() > 1 && !self.empty {
            properties.push(Property::sometimes("two are through in both orders", |_, state: &State| {
                state.through.first() > state.through.get(1) && state.through.len() > 1
            }));
        }
        if self.workers > 1 {
            properties.push(Property::sometimes("one leads after the other", |_, state: &State| {
                state.workers.iter().all(|worker| worker.lease > 0) && state.epoch == 0
            }));
        }
        properties
    }
}

const NOT_STALE: &str = "no stale read";
const LAST_THROUGH: &str = "what stands is of the last change through";
const NOTHING_LOST: &str = "only a removal leaves nothing";
const ONE_LEADER: &str = "one leader";
const ONE_CLAIM: &str = "one claim";
const ONE_FIRST: &str = "one is the first to set it";
const LATER_IS_LATER: &str = "what is set after a claim stays";
const CLAIMS_END: &str = "claims end";

#[test]
fn keys() {
    use Variant::*;
    use Verdict::*;
    let run = |name: &str, make: fn(Variant) -> Keys, variant, verdict| {
        check(&format!("keys, {name}: {variant:?}"), make(variant), verdict);
    };
    let transactions = |variant, verdict| run("two transactions", Keys::two_transactions, variant, verdict);
    let workers = |variant, verdict| run("two workers", Keys::two_workers, variant, verdict);
    let at_once = |variant, verdict| run("at once", Keys::at_once, variant, verdict);
    let restart = |variant, verdict| run("restart", Keys::restart, variant, verdict);
    transactions(AsBuilt, Right);
    run("two sets", Keys::two_sets, AsBuilt, Right);
    at_once(AsBuilt, Right);
    workers(AsBuilt, Right);
    restart(AsBuilt, Right);
    run("one statement", Keys::one_statement, AsBuilt, Right);
    if long() {
        run("everybody", Keys::everybody, AsBuilt, Right);
    }
    for variant in [
        NotAnnounced,
        AnnouncedWhenVisible,
        AnnouncementIsAFlag,
        RemovedBeforeAnnounced,
        ConfirmInTwoSteps,
        PublishedOverAnnouncement,
        CheckedThenStored,
        VoidsNothing,
        VoidsWhenAnnounced,
        // A set whose value is dropped at commit must still remove the value that the key had.
        DroppedIsWithdrawn,
    ] {
        transactions(variant, Breaks(NOT_STALE));
    }
    transactions(CheckedThenStored, Breaks(LAST_THROUGH));
    transactions(WithdrawRemoves, Breaks(NOTHING_LOST));
    at_once(AtOnceVoidsNothing, Breaks(NOT_STALE));
    workers(AnyLeaseLands, Breaks(NOT_STALE));
    workers(AcquiredWithoutLooking, Breaks(ONE_LEADER));
    workers(LookedThenAcquired, Breaks(ONE_LEADER));
    restart(LeaseWithoutEpoch, Breaks(NOT_STALE));
    run("one statement", Keys::one_statement, LeaseBetterThanSnapshot, Breaks(NOT_STALE));
    run("one statement", Keys::one_statement, LeaseBetterThanSnapshot, Breaks(LAST_THROUGH));
    let claims = |variant, verdict| run("two claims", Keys::two_claims, variant, verdict);
    let beside_set = |variant, verdict| run("claim and set", Keys::claim_and_set, variant, verdict);
    let beside_removal =
        |variant, verdict| run("claim and removal", Keys::claim_and_removal, variant, verdict);
    claims(AsBuilt, Right);
    beside_set(AsBuilt, Right);
    beside_removal(AsBuilt, Right);
    claims(ClaimTakesNoSlot, Breaks(ONE_CLAIM));
    claims(ClaimTakesNoSlot, Breaks(ONE_FIRST));
    claims(LookedThenClaimed, Breaks(ONE_CLAIM));
    claims(ClaimLeavesLease, Breaks(ONE_CLAIM));
    claims(AbortKeepsClaim, Breaks(CLAIMS_END));
    beside_set(VoidedClaimLands, Breaks(LATER_IS_LATER));
    beside_set(VoidedClaimRemoves, Breaks(NOTHING_LOST));
    // A writer that has only announced its set has not set the key yet, and will void the claim when it confirms.
    // Refusing the claim only saves work that would probably be lost.
    beside_set(ClaimedBesideAnnouncement, Harmless);
    transactions(WithdrawVoids, Harmless);
    transactions(ReplacedThenUncovered, Harmless);
}
