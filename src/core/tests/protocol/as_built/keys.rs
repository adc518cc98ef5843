//! One key of a real tier beside that of the model `keys/`, whose `mod.rs` explains the writers, the workers and their steps. A
//! *path* is a list of steps, each with the model's state after it. A *variant* is a model with one rule broken; these tests take
//! the model as built.
//!
//! The *flight* of the key is a lease, a fill or a claim that the tier has recorded. A *tier* is a cache in memory that several
//! processes share. A *fill* and a *lease* are rights to compute the value of a key, and a *claim* is the right to set a key that
//! has no value.

use std::sync::atomic::AtomicU64;

use pg_cache_core::testing::{TestHost, memory, owner};
use pg_cache_core::{Acquired, FlightRequest, Host, Lease, Miss, Reservation, Stamp, Stored};

use super::tier::{REGION_BYTES, TestTier, format, reserve, with_key};
use super::walk::walk;
use crate::keys::{self, Change, Keys, Value, Work};

/// The hold time of a flight, in ticks of the test clock.
const HOLD: u32 = 10;

/// One key in a real tier, with the reservations, leases and claims that the actors hold.
struct Twin<'t> {
    memory: &'t [AtomicU64],
    host: &'t TestHost,
    tier: TestTier<'t>,
    /// The announced change of each writer.
    announced: Vec<Option<Reservation>>,
    /// The lease of each worker. A worker keeps it across a restart.
    leases: Vec<Option<Lease>>,
    /// The ID of the claim of each writer.
    claims: Vec<Option<u64>>,
}

impl Twin<'_> {
    /// Reserves a value of the model: a byte that says whether it was set or computed, and the model's number.
    fn reserve(&self, value: Value) -> Reservation {
        let bytes = match value {
            Value::Set(by) => [0, by],
            Value::Computed(with) => [1, with],
        };
        reserve(&self.tier, &bytes, u32::MAX)
    }

    /// Takes a step with the tier, and compares the answers with `after`, the model's next state.
    fn step(&mut self, model: &Keys, before: &keys::State, step: keys::Step, after: &keys::State) {
        match step {
            keys::Step::Writer(number, keys::Write::Claim) => {
                let claim = with_key(&self.tier, |key| {
                    self.tier.claim(key, Some(Stamp::LATEST.into()), owner(number as u32))
                })
                .ok();
                assert_eq!(claim.is_none(), after.writers[number].refused);
                self.claims[number] = claim;
            }
            keys::Step::Writer(number, write) => self.write(model.changes[number], number, write),
            keys::Step::Worker(number, work) => {
                // The tier knows nothing of restarts: its caller puts the epoch, the number of restarts, into the lease and checks
                // it.
                let of_this_life = before.workers[number].epoch == before.epoch;
                self.work(number, work, &after.workers[number], of_this_life);
            }
            keys::Step::TimePasses => self.host.now.set(self.host.now() + HOLD),
            keys::Step::Restart => {
                self.tier = format(self.memory, self.host, 0);
                self.announced.iter_mut().for_each(|announced| *announced = None);
                self.claims.iter_mut().for_each(|claim| *claim = None);
            }
            keys::Step::Reader(_) => {}
        }
    }

    /// Takes a step of a writer.
    fn write(&mut self, change: Change, number: usize, write: keys::Write) {
        let set = || self.reserve(Value::Set(number as u8));
        match (write, change) {
            (keys::Write::Announce, _) => {
                let reservation = match change {
                    Change::Set | Change::SetAbsent => set(),
                    _ => with_key(&self.tier, |key| self.tier.reserve_removal(key)).expect("there is room"),
                };
                with_key(&self.tier, |key| self.tier.announce(key, &reservation));
                self.announced[number] = Some(reservation);
            }
            (keys::Write::Confirm, Change::SetAbsent) => {
                let reservation = self.announced[number].take().expect("it is announced");
                let claim = self.claims[number].take().expect("it is claimed");
                with_key(&self.tier, |key| {
                    self.tier.confirm_claimed(key, reservation, claim, Some(Stamp::VOID))
                });
            }
            (keys::Write::Publish, _) => {
                let reservation = set();
                let claim = self.claims[number].take().expect("it is claimed");
                with_key(&self.tier, |key| self.tier.publish_leased(key, reservation, claim));
            }
            (keys::Write::Release, _) => self.release(number),
            (keys::Write::Confirm, _) => {
                let reservation = self.announced[number].take().expect("it is announced");
                with_key(&self.tier, |key| self.tier.confirm(key, reservation));
            }
            (keys::Write::Withdraw, _) => {
                let reservation = self.announced[number].take().expect("it is announced");
                with_key(&self.tier, |key| self.tier.withdraw(key, reservation));
                if self.claims[number].is_some() {
                    self.release(number);
                }
            }
            (keys::Write::AtOnce, Change::SetAtOnce) => {
                let reservation = set();
                assert_ne!(with_key(&self.tier, |key| self.tier.publish(key, reservation)), Stored::Dropped);
            }
            (keys::Write::AtOnce, _) => {
                with_key(&self.tier, |key| self.tier.remove(key));
            }
            (keys::Write::Show | keys::Write::Abort, _) => {}
            (other, _) => unreachable!("{other:?} is of a variant"),
        }
    }

    /// Ends the claim of a writer, which must have one.
    fn release(&mut self, number: usize) {
        let claim = self.claims[number].take().expect("it is claimed");
        assert!(with_key(&self.tier, |key| self.tier.release_lease(key, claim)), "nobody else ends a claim");
    }

    /// Takes a step of a worker. `of_this_life` says whether its lease was acquired after the last restart, and `worker` is its
    /// state after the step.
    fn work(&mut self, number: usize, work: Work, worker: &keys::Worker, of_this_life: bool) {
        match work {
            Work::Acquire => {
                let deadline = self.host.now() + HOLD;
                match with_key(&self.tier, |key| {
                    self.tier.acquire(key, FlightRequest::lease(owner(number as u32), deadline))
                }) {
                    Acquired::Lead(lease) => self.leases[number] = Some(lease),
                    other => panic!("it should lead, and is told {other:?}"),
                }
            }
            Work::Compute => {}
            Work::Publish => {
                let lease = self.leases[number].expect("it has one").id;
                // The tier knows nothing of snapshots: its caller refuses the value and releases the lease.
                let refused = of_this_life && worker.has_snapshot_older_than_lease();
                if refused {
                    with_key(&self.tier, |key| self.tier.release_lease(key, lease));
                }
                let lands = of_this_life && !refused && {
                    let reservation = self.reserve(Value::Computed(worker.value));
                    with_key(&self.tier, |key| self.tier.publish_leased(key, reservation, lease))
                        != Stored::Dropped
                };
                assert_eq!(Some(lands), worker.stored);
            }
            Work::GiveUp => {
                let lease = self.leases[number].expect("it has one").id;
                if of_this_life {
                    with_key(&self.tier, |key| self.tier.release_lease(key, lease));
                }
            }
            other => unreachable!("{other:?} is of a variant"),
        }
    }

    /// Asserts that the tier is in the model's state. The last check may begin a flight, so the tier must not be used
    /// after this.
    fn compare(&self, state: &keys::State) {
        let mut bytes = vec![];
        let found = with_key(&self.tier, |key| self.tier.get(key, Stamp::LATEST, &mut bytes)).map(|_| bytes);
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
        // Session 9 is none of the actors, so it must not get the lease.
        if state.flight.is_some_and(|flight| !flight.overdue) {
            let asked =
                with_key(&self.tier, |key| self.tier.acquire(key, FlightRequest::lease(owner(9), u32::MAX)));
            assert!(matches!(asked, Acquired::Busy(_)), "{asked:?} while somebody leads");
        }
    }
}

/// Takes a path of the key protocol with a new tier. Panics if an answer or the last state differs from the model's.
fn replay_keys(model: &Keys, start: &keys::State, path: &[(keys::Step, keys::State)]) {
    let memory = memory(REGION_BYTES);
    let host = TestHost::default();
    let tier = format(&memory, &host, 0);
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
        with_key(&twin.tier, |key| twin.tier.publish(key, first));
    }
    let mut before = start;
    for (step, after) in path {
        twin.step(model, before, *step, after);
        before = after;
    }
    twin.compare(before);
}

/// The operations on a key must give the answers and end in the states of the model, on every path that `walk` takes.
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
