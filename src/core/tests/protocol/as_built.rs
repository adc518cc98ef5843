//! Compares four models with the code: `read_rule.rs`, `set_and_fence.rs`, `keys/`, and `table.rs` for one key in one
//! segment. The models are as built and have few actors. The rows of `table.rs` are the test's.
//! The test takes every step that such a model can take with the real tier, too. Both must give the same answers and
//! end in the same state.
//!
//! The walk reaches each state on one path, and tries each step from that state after the same path on a new tier. So
//! the results of these modules about the order of steps also hold for the operations of the real tier. A step that
//! only the model has, such as a commit becoming visible, does nothing with the tier.

use std::cell::Cell;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::atomic::AtomicU64;

use pg_cache_core::{
    Acquired, Batch, Cost, FenceId, Fences, FlightRequest, Host, Key, Kind, Lease, Location, Meta, Miss,
    NewValue, Owner, Region, Reservation, Sizes, Stamp, Stored, Tier, Unclaimed,
};
use stateright::Model;

use crate::keys::{self, Change, Keys, Value, Work};
use crate::memory::{Fence, LATEST};
use crate::read_rule::{self, Fill, ReadRule, Write};
use crate::reader::{Outcome, Read, Reader};
use crate::say;
use crate::set_and_fence::{self, Act, SetAndFence};
use crate::table::{self, Table};

/// Takes every step from every state of a model. For each step, calls `replay` with the initial state and the path that
/// ends with the step. `replay` must take the path on a new tier, and panic if the tier and the model differ.
fn walk<M>(name: &str, model: &M, replay: impl Fn(&M::State, &[(M::Action, M::State)]))
where
    M: Model,
    M::State: Clone + Eq + Hash,
    M::Action: Clone,
{
    let actions = |state: &M::State| {
        let mut actions = vec![];
        model.actions(state, &mut actions);
        actions
    };
    let (mut seen, mut steps) = (HashSet::new(), 0);
    for start in model.init_states() {
        let mut path: Vec<(M::Action, M::State)> = vec![];
        let mut ahead = vec![actions(&start)];
        while let Some(left) = ahead.last_mut() {
            let Some(action) = left.pop() else {
                ahead.pop();
                path.pop();
                continue;
            };
            let here = path.last().map_or(&start, |(_, state)| state);
            let Some(next) = model.next_state(here, action.clone()) else { continue };
            path.push((action, next.clone()));
            replay(&start, &path);
            steps += 1;
            if seen.insert(next.clone()) {
                ahead.push(actions(&next));
            } else {
                path.pop();
            }
        }
    }
    assert!(steps > seen.len(), "{name}: nothing was walked");
    say(&format!("  as built, {name:<46} {:>9} states {steps:>9} steps", seen.len()));
}

/// A clock that the test sets. There is only one thread, so locks do nothing.
#[derive(Default)]
struct TestHost(Cell<u32>);

impl Host for &TestHost {
    fn now(&self) -> u32 {
        self.0.get()
    }
    fn lock(&self, _: u32) {}
    fn unlock(&self, _: u32) {}
}

/// The size of the region: enough for the few entries that exist at the same time, and quick to format.
const REGION_BYTES: usize = 10 * 1024;

/// The same for a region with a directory, which has the records of all segments.
const TABLE_REGION_BYTES: usize = 64 * 1024;

/// Runs a test on a new tier.
fn with_tier(test: impl FnOnce(Tier<'_, &TestHost>)) {
    let memory: Vec<_> = (0..REGION_BYTES / 8).map(|_| AtomicU64::new(0)).collect();
    let host = TestHost::default();
    test(format(&memory, &host));
}

fn format<'m>(memory: &'m [AtomicU64], host: &'m TestHost) -> Tier<'m, &'m TestHost> {
    format_with(memory, host, 0)
}

fn format_with<'m>(memory: &'m [AtomicU64], host: &'m TestHost, locations: u32) -> Tier<'m, &'m TestHost> {
    let sizes = Sizes {
        bytes: 0,
        reserved_fences: 4,
        relation_fences: 0,
        tag_fences: 16,
        backends: 1,
        shards: 1,
        locations,
    };
    Tier::format(Region::of_words(memory), sizes, host, 0).expect("it is large enough")
}

/// Converts a number of a model to a stamp of the code. A model's clock begins at 0, like the clock of a new region.
fn moment(number: u8) -> Stamp {
    if number == LATEST { Stamp::LATEST } else { Stamp::from_u64(number.into()) }
}

/// Returns the tag fence that stands for a fence of a model. The tier has 16 tag fences, and the highest four bits of
/// the hash select one, so different numbers below 16 get different fences.
fn tag(fences: &Fences<'_>, number: usize) -> FenceId {
    fences.tag((number as u64) << 60)
}

/// Asserts that the clock and the fences of the tier are as in the model.
fn same_fences(fences: &Fences<'_>, now: u8, expected: &[Fence]) {
    assert_eq!(fences.now(), moment(now));
    for (number, expected) in expected.iter().enumerate() {
        let fence = tag(fences, number);
        assert_eq!(fences.pending(fence), u64::from(expected.pending), "fence {number}");
        assert!(
            !fences.has_changed_since(fence, moment(expected.seq)),
            "fence {number} is beyond {expected:?}"
        );
        let before = expected.seq.checked_sub(1);
        assert!(
            before.is_none_or(|before| fences.has_changed_since(fence, moment(before))),
            "fence {number}: {expected:?}"
        );
    }
}

/// Takes a reader's step, for an entry with this stamp, and compares the result with the model's.
fn same_reading(fences: &Fences<'_>, step: Read, stamp: u8, now: u8, after: &Reader) {
    match step {
        Read::Horizon => assert_eq!(fences.now(), moment(now)),
        Read::Check(fence) => {
            let missed = matches!(after.outcome, Some(Outcome::Miss | Outcome::MissForNothing));
            let holds = fences.holds(tag(fences, fence), moment(stamp), moment(after.safe_stamp));
            assert_eq!(holds, !missed, "{after:?}");
        }
        _ => {}
    }
}

/// Takes a path of the read rule with the fences of a new tier.
fn replay_read_rule(path: &[(read_rule::Step, read_rule::State)]) {
    with_tier(|tier| {
        let fences = tier.fences();
        for (step, after) in path {
            match *step {
                read_rule::Step::Writer(number, write) => {
                    let number = after.writers[number].number;
                    match write {
                        Write::Raise(fence) => fences.raise(tag(&fences, fence)),
                        Write::Draw => assert_eq!(fences.draw(), moment(number)),
                        Write::Lower(fence) => {
                            let _ = fences.lower_as(tag(&fences, fence), moment(number));
                        }
                        Write::Withdraw(fence) => fences.withdraw(tag(&fences, fence)),
                        Write::Show | Write::Send | Write::Abort => {}
                        other => unreachable!("{other:?} is of a variant"),
                    }
                }
                read_rule::Step::Filler(number, Fill::Stamp) => {
                    assert_eq!(fences.now(), moment(after.fillers[number].stamp));
                }
                read_rule::Step::Filler(..) => {}
                read_rule::Step::Reader(number, read) => {
                    let reader = &after.readers[number];
                    let stamp = reader.found.map_or(0, |found| after.fillers[usize::from(found)].stamp);
                    same_reading(&fences, read, stamp, after.now, reader);
                }
            }
        }
        if let Some((_, state)) = path.last() {
            same_fences(&fences, state.now, &state.fences);
        }
    });
}

/// Takes a path of a transaction that sets a value and changes its dependencies, with the fences of a new tier.
fn replay_set_and_fence(
    model: &SetAndFence,
    start: &set_and_fence::State,
    path: &[(set_and_fence::Step, set_and_fence::State)],
) {
    with_tier(|tier| {
        let fences = tier.fences();
        let mut before = start;
        for (step, after) in path {
            match *step {
                set_and_fence::Step::Transaction(number, act) => {
                    let (was, one) = (&before.transactions[number], &after.transactions[number]);
                    let judged = |fine: bool| assert_eq!(was.dropped || !fine, one.dropped, "{step:?}");
                    match act {
                        Act::Stamp => assert_eq!(fences.now(), moment(one.stamp)),
                        Act::Raise(fence) => fences.raise(tag(&fences, fence)),
                        Act::Draw => assert_eq!(fences.draw(), moment(one.number)),
                        Act::Lower(fence) => {
                            let lowered = fences.lower_as(tag(&fences, fence), moment(one.number));
                            if model.depends_on(fence) {
                                judged(lowered.was_alone_since(moment(one.stamp)));
                            }
                        }
                        Act::Look(fence) => {
                            judged(fences.holds(tag(&fences, fence), moment(one.stamp), Stamp::LATEST));
                        }
                        Act::Withdraw(fence) => fences.withdraw(tag(&fences, fence)),
                        Act::Compute(_) | Act::Show | Act::Publish | Act::Abort => {}
                        Act::LookAtOwn(_) => unreachable!("{act:?} is of a variant"),
                    }
                }
                set_and_fence::Step::Reader(read) => {
                    let found = after.reader.found.map(usize::from);
                    let stamp = found.map_or(0, |found| after.transactions[found].number);
                    same_reading(&fences, read, stamp, after.now, &after.reader);
                }
            }
            before = after;
        }
        same_fences(&fences, before.now, &before.fences);
    });
}

fn owner(number: usize) -> Owner {
    Owner { session: number as u32, role: 0 }
}

/// The hold time of a flight, in ticks of the test clock.
const HOLD: u32 = 10;

/// One key in a real tier, with the reservations, leases and claims that the actors hold.
struct Twin<'t> {
    memory: &'t [AtomicU64],
    host: &'t TestHost,
    tier: Tier<'t, &'t TestHost>,
    announced: Vec<Option<Reservation>>,
    leases: Vec<Option<Lease>>,
    claims: Vec<Option<u64>>,
}

impl Twin<'_> {
    fn with_key<T>(&self, act: impl FnOnce(&Key<'_>) -> T) -> T {
        act(&Key::new(self.tier.scope(1, 2, 0), b"the key", 7).expect("it is a key"))
    }

    fn reserve(&self, value: Value) -> Reservation {
        let bytes = match value {
            Value::Set(by) => [0, by],
            Value::Computed(with) => [1, with],
        };
        let value = NewValue {
            bytes: &bytes,
            note: &[],
            kind: Kind(1),
            stamp: self.tier.fences().now(),
            expires: u32::MAX,
            cost: Cost::NONE,
            dependencies: &[],
        };
        self.with_key(|key| self.tier.reserve(key, &value, Default::default())).expect("there is room")
    }

    /// Takes a step with the tier, and compares the answers with the model's next state.
    fn step(&mut self, model: &Keys, before: &keys::State, step: keys::Step, after: &keys::State) {
        match step {
            keys::Step::Writer(number, keys::Write::Claim) => {
                let claim =
                    self.with_key(|key| self.tier.claim(key, Some(Stamp::LATEST.into()), owner(number))).ok();
                assert_eq!(claim.is_none(), after.writers[number].refused);
                self.claims[number] = claim;
            }
            keys::Step::Writer(number, write) => self.write(model.changes[number], number, write),
            keys::Step::Worker(number, work) => {
                // The tier knows nothing of restarts: its caller puts the epoch into the lease and checks it.
                let of_this_life = before.workers[number].epoch == before.epoch;
                self.work(number, work, &after.workers[number], of_this_life);
            }
            keys::Step::TimePasses => self.host.0.set(self.host.now() + HOLD),
            keys::Step::Restart => {
                self.tier = format(self.memory, self.host);
                self.announced.iter_mut().for_each(|announced| *announced = None);
                self.claims.iter_mut().for_each(|claim| *claim = None);
            }
            keys::Step::Reader(_) => {}
        }
    }

    fn write(&mut self, change: Change, number: usize, write: keys::Write) {
        let set = || self.reserve(Value::Set(number as u8));
        match (write, change) {
            (keys::Write::Announce, _) => {
                let reservation = match change {
                    Change::Set | Change::SetAbsent => set(),
                    _ => self.with_key(|key| self.tier.reserve_removal(key)).expect("there is room"),
                };
                self.with_key(|key| self.tier.announce(key, &reservation));
                self.announced[number] = Some(reservation);
            }
            (keys::Write::Confirm, Change::SetAbsent) => {
                let reservation = self.announced[number].take().expect("it is announced");
                let claim = self.claims[number].take().expect("it is claimed");
                self.with_key(|key| self.tier.confirm_claimed(key, reservation, claim, Some(Stamp::VOID)));
            }
            (keys::Write::Publish, _) => {
                let reservation = set();
                let claim = self.claims[number].take().expect("it is claimed");
                self.with_key(|key| self.tier.publish_leased(key, reservation, claim));
            }
            (keys::Write::Release, _) => self.release(number),
            (keys::Write::Confirm, _) => {
                let reservation = self.announced[number].take().expect("it is announced");
                self.with_key(|key| self.tier.confirm(key, reservation));
            }
            (keys::Write::Withdraw, _) => {
                let reservation = self.announced[number].take().expect("it is announced");
                self.with_key(|key| self.tier.withdraw(key, reservation));
                if self.claims[number].is_some() {
                    self.release(number);
                }
            }
            (keys::Write::AtOnce, Change::SetAtOnce) => {
                let reservation = set();
                assert_ne!(self.with_key(|key| self.tier.publish(key, reservation)), Stored::Dropped);
            }
            (keys::Write::AtOnce, _) => {
                self.with_key(|key| self.tier.remove(key));
            }
            (keys::Write::Show | keys::Write::Abort, _) => {}
            (other, _) => unreachable!("{other:?} is of a variant"),
        }
    }

    /// Ends the claim of a writer, which must have one.
    fn release(&mut self, number: usize) {
        let claim = self.claims[number].take().expect("it is claimed");
        assert!(self.with_key(|key| self.tier.release_lease(key, claim)), "nobody else ends a claim");
    }

    fn work(&mut self, number: usize, work: Work, worker: &keys::Worker, of_this_life: bool) {
        match work {
            Work::Acquire => {
                let deadline = self.host.now() + HOLD;
                match self
                    .with_key(|key| self.tier.acquire(key, FlightRequest::lease(owner(number), deadline)))
                {
                    Acquired::Lead(lease) => self.leases[number] = Some(lease),
                    other => panic!("it should lead, and is told {other:?}"),
                }
            }
            Work::Compute => {}
            Work::Publish => {
                let lease = self.leases[number].expect("it has one").id;
                // The tier knows nothing of snapshots: its caller refuses the value and releases the lease.
                let refused = of_this_life && worker.is_of_before_lease();
                if refused {
                    self.with_key(|key| self.tier.release_lease(key, lease));
                }
                let lands = of_this_life && !refused && {
                    let reservation = self.reserve(Value::Computed(worker.value));
                    self.with_key(|key| self.tier.publish_leased(key, reservation, lease)) != Stored::Dropped
                };
                assert_eq!(Some(lands), worker.stored);
            }
            Work::GiveUp => {
                let lease = self.leases[number].expect("it has one").id;
                if of_this_life {
                    self.with_key(|key| self.tier.release_lease(key, lease));
                }
            }
            other => unreachable!("{other:?} is of a variant"),
        }
    }

    /// Asserts that the tier is in the model's state. The last check may begin a flight, so the tier must not be used
    /// after this.
    fn compare(&self, state: &keys::State) {
        let mut bytes = vec![];
        let found = self.with_key(|key| self.tier.get(key, Stamp::LATEST, &mut bytes)).map(|_| bytes);
        let expected = match state.entry {
            _ if state.is_covered() => Err(Miss::Fenced),
            None => Err(Miss::Absent),
            Some(Value::Set(by)) => Ok(vec![0, by]),
            Some(Value::Computed(with)) => Ok(vec![1, with]),
        };
        assert_eq!(found, expected);
        let usage = self.tier.usage();
        assert_eq!(usage.announced, u64::from(state.announced.count_ones()));
        assert_eq!(usage.flights, u64::from(state.flight.is_some_and(|flight| !flight.overdue)));
        assert_eq!(usage.entries, u64::from(state.entry.is_some()));
        if state.flight.is_some_and(|flight| !flight.overdue) {
            let asked = self.with_key(|key| self.tier.acquire(key, FlightRequest::lease(owner(9), u32::MAX)));
            assert!(matches!(asked, Acquired::Busy(_)), "{asked:?} while somebody leads");
        }
    }
}

/// Takes a path of the key protocol with a new tier.
fn replay_keys(model: &Keys, start: &keys::State, path: &[(keys::Step, keys::State)]) {
    let memory: Vec<_> = (0..REGION_BYTES / 8).map(|_| AtomicU64::new(0)).collect();
    let host = TestHost::default();
    let tier = format(&memory, &host);
    let mut twin = Twin {
        memory: &memory,
        host: &host,
        tier,
        announced: model.changes.iter().map(|_| None).collect(),
        leases: start.workers.iter().map(|_| None).collect(),
        claims: model.changes.iter().map(|_| None).collect(),
    };
    if !model.empty {
        let first = twin.reserve(Value::Computed(0));
        twin.with_key(|key| twin.tier.publish(key, first));
    }
    let mut before = start;
    for (step, after) in path {
        twin.step(model, before, *step, after);
        before = after;
    }
    twin.compare(before);
}

/// One key in a real tier with a directory, and the rows of one segment.
struct TableTwin<'t> {
    tier: Tier<'t, &'t TestHost>,
    announced: Option<Reservation>,
    batch: Batch,
    copy: Option<(Vec<u8>, Meta)>,
    rows: Vec<(Vec<u8>, Meta)>,
}

/// The tick at which a version of a value expires. So the version is a property of the value.
fn expiry(version: u8) -> u32 {
    1000 + u32::from(version)
}

fn place(location: table::Location) -> Location {
    Location::new(location.segment as u16, location.position as u64 + 1).expect("it is a legal location")
}

impl TableTwin<'_> {
    fn with_key<T>(&self, act: impl FnOnce(&Key<'_>) -> T) -> T {
        act(&Key::new(self.tier.scope(1, 2, 0), b"the key", 7).expect("it is a key"))
    }

    fn location(&self) -> Option<Location> {
        self.with_key(|key| self.tier.location(key))
    }

    fn reserve(&self, bytes: &[u8], expires: u32) -> Reservation {
        let (kind, cost) = (Kind(1), Cost::NONE);
        let stamp = self.tier.fences().now();
        let value = NewValue { bytes, note: &[], kind, stamp, expires, cost, dependencies: &[] };
        self.with_key(|key| self.tier.reserve(key, &value, Default::default())).expect("there is room")
    }

    fn reserve_next(&self, before: &table::State) -> Reservation {
        let version = before.visible[0] + 1;
        self.reserve(&[version], expiry(version))
    }

    fn write(&mut self, step: table::Write, change: table::Change, before: &table::State) {
        match step {
            table::Write::Announce => {
                let reservation = match change.removes() {
                    true => self.with_key(|key| self.tier.reserve_removal(key)).expect("there is room"),
                    false => self.reserve_next(before),
                };
                self.with_key(|key| self.tier.announce(key, &reservation));
                self.announced = Some(reservation);
            }
            table::Write::Show => {}
            table::Write::Confirm => {
                let reservation = self.announced.take().expect("it is announced");
                self.with_key(|key| self.tier.confirm(key, reservation));
            }
            table::Write::Withdraw => {
                let reservation = self.announced.take().expect("it is announced");
                self.with_key(|key| self.tier.withdraw(key, reservation));
            }
            table::Write::AtOnce if change.removes() => {
                self.with_key(|key| self.tier.remove(key));
            }
            table::Write::AtOnce => {
                let reservation = self.reserve_next(before);
                assert_ne!(self.with_key(|key| self.tier.publish(key, reservation)), Stored::Dropped);
            }
            table::Write::Touch => {
                let touched = self.with_key(|key| self.tier.touch(key, expiry(before.visible[0] + 1)));
                assert_eq!(touched, before.entries[0].is_some());
            }
            table::Write::Forget => unreachable!("{step:?} is of a variant"),
        }
    }

    fn save(&mut self, step: table::Save, before: &table::State, after: &table::State) {
        match step {
            table::Save::Mark(_) => {
                self.batch = Batch::with_room(2).expect("there is memory");
                self.tier.mark_oldest(0, 1, |_| true, &mut self.batch);
                assert_eq!(self.batch.marked().len(), 1);
            }
            table::Save::Copy => {
                let marked = &self.batch.marked()[0];
                let mut value = vec![0; marked.meta().value_len];
                self.tier.read_marked(marked, &mut vec![0; marked.key_len()], &mut [], &mut [], &mut value);
                self.copy = Some((value, marked.meta()));
            }
            table::Save::Append(_) => self.rows.push(self.copy.take().expect("it was copied")),
            table::Save::Locate => {
                let location = Location::new(0, self.rows.len() as u64).expect("it is a legal location");
                let located = self.tier.locate(&self.batch.marked()[0], location, true);
                assert_eq!(located, before.entries[0].is_some() && after.entries[0].is_none());
            }
            table::Save::Empty(segment) => {
                self.tier.forget_segment(segment as u16);
            }
            table::Save::Truncate => {
                if after.segments[0].rows.is_empty() {
                    self.rows.clear();
                }
            }
            table::Save::GiveUp => self.copy = None,
            other => unreachable!("{other:?} needs two segments"),
        }
    }

    fn read(
        &mut self,
        model: &Table,
        number: usize,
        step: table::Read,
        before: &table::State,
        after: &table::State,
    ) {
        let (was, reader) = (&before.readers[number], &after.readers[number]);
        match step {
            table::Read::Locate => assert_eq!(self.location(), reader.location.map(place)),
            table::Read::LookAgain => {
                let stands = self.location() == was.location.map(place);
                assert_eq!(stands, reader.locked, "{reader:?}");
            }
            table::Read::Promote => {
                let at = was.location.expect("it has one");
                let (bytes, meta) = self.rows[at.position].clone();
                let reservation = self.reserve(&bytes, meta.expires);
                let stored =
                    self.with_key(|key| self.tier.promote(key, reservation, place(at), meta.created));
                let promoted = before.entries[0].is_none() && after.entries[0].is_some();
                assert_eq!(stored == Stored::New, promoted);
            }
            // A row of another file costs its location.
            table::Read::Row if self.location() == after.location(model, 0).map(place) => {}
            table::Read::Row | table::Read::Forget => {
                let at = was.location.expect("it has one");
                self.with_key(|key| self.tier.forget_location(key, place(at)));
            }
            table::Read::Decide => {
                match self.with_key(|key| self.tier.claim(key, Some(Stamp::LATEST.into()), owner(number))) {
                    Ok(claim) => {
                        assert_eq!(reader.outcome, Some(table::Outcome::First));
                        let reservation = self.reserve_next(before);
                        self.with_key(|key| self.tier.publish_leased(key, reservation, claim));
                    }
                    Err(Unclaimed::Present) => assert_eq!(reader.outcome, Some(table::Outcome::Present)),
                    Err(Unclaimed::Saved(at)) => assert_eq!(Some(at), reader.location.map(place)),
                    Err(other) => panic!("it is told {other:?}"),
                }
            }
            // `compare` looks in the memory. The rows are the test's.
            _ => {}
        }
    }

    fn compare(&self, model: &Table, state: &table::State) {
        let location = state.location(model, 0);
        assert_eq!(self.location(), location.map(place));
        let mut bytes = vec![];
        let found = self.with_key(|key| self.tier.get(key, Stamp::LATEST, &mut bytes));
        let found = found.map(|meta| (bytes, meta.expires));
        let as_modelled = |value: table::Value| (vec![value.bytes.1], expiry(value.version));
        let expected = match (state.in_memory(0), location) {
            _ if state.announced[0].is_some() => Err(Miss::Fenced),
            (Some(value), _) => Ok(as_modelled(value)),
            (None, Some(at)) => Err(Miss::Saved(place(at))),
            (None, None) => Err(Miss::Absent),
        };
        assert_eq!(found, expected);
        if let Some(at) = location {
            let (bytes, meta) = &self.rows[at.position];
            assert_eq!((bytes.clone(), meta.expires), as_modelled(state.segments[0].rows[at.position]));
        }
    }
}

fn replay_table(model: &Table, start: &table::State, path: &[(table::Step, table::State)]) {
    let memory: Vec<_> = (0..TABLE_REGION_BYTES / 8).map(|_| AtomicU64::new(0)).collect();
    let host = TestHost::default();
    let mut twin = TableTwin {
        tier: format_with(&memory, &host, 8),
        announced: None,
        batch: Batch::default(),
        copy: None,
        rows: vec![],
    };
    let first = twin.reserve(&[0], expiry(0));
    twin.with_key(|key| twin.tier.publish(key, first));
    let mut before = start;
    for (step, after) in path {
        match *step {
            table::Step::Writer(step) => {
                twin.write(step, model.changes[usize::from(before.change)], before);
            }
            table::Step::Saver(step) => twin.save(step, before, after),
            table::Step::Reader(number, step) => twin.read(model, number, step, before, after),
            other => unreachable!("{other:?} is not of these scenarios"),
        }
        before = after;
    }
    twin.compare(model, before);
}

#[test]
fn fences_are_as_modelled() {
    // One filler is enough here: a second one would take the same steps.
    let model = ReadRule::new(read_rule::Variant::AsBuilt, &[(&[1], true), (&[0, 1], true)], 1, 1, &[0, 1]);
    walk("read rule", &model, |_, path| replay_read_rule(path));
    let model = SetAndFence::two_setters(set_and_fence::Variant::AsBuilt);
    walk("set and fence, two setters", &model, |start, path| replay_set_and_fence(&model, start, path));
    let model = SetAndFence::setter_and_writer(set_and_fence::Variant::AsBuilt);
    walk("set and fence, a writer", &model, |start, path| replay_set_and_fence(&model, start, path));
}

#[test]
fn keys_are_as_modelled() {
    let walk = |name: &str, make: fn(keys::Variant) -> Keys| {
        let model = make(keys::Variant::AsBuilt);
        walk(name, &model, |start, path| replay_keys(&model, start, path));
    };
    walk("keys, two transactions", Keys::two_transactions);
    walk("keys, at once", Keys::at_once);
    walk("keys, two workers", Keys::two_workers);
    walk("keys, restart", Keys::restart);
    walk("keys, one statement", Keys::one_statement);
    walk("keys, two claims", Keys::two_claims);
    walk("keys, claim and set", Keys::claim_and_set);
    walk("keys, claim and removal", Keys::claim_and_removal);
}

#[test]
fn saved_values_are_as_modelled() {
    let walk = |name: &str, make: fn(table::Variant) -> Table| {
        let model = make(table::Variant::AsBuilt);
        walk(name, &model, |start, path| replay_table(&model, start, path));
    };
    walk("table, leaves", Table::leaves);
    walk("table, leaves for deciders", Table::leaves_for_deciders);
}
