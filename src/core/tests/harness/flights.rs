//! Actions on flights. A flight is the right to publish a value for a key: a lease, a fill or a claim; `tier/flight.rs`
//! has the rules. Each method does one action of `action.rs`, which explains the parameters, on the tier and on the
//! model, and asserts that the outcomes agree. `begun.leases` holds leases and fills. A flight never lacks a slot here:
//! the keys have only two hashes, so at most two of them are in flight at a time.

use super::both::Both;
use super::expectations::{as_value, expect, expect_refusal, new_value, stamp};
use super::keys::{class, dependencies, owner_of, with_key};
use super::model::{CLAIMERS, Flight, Known, OWNER, may_forget};
use super::saving::settle;
use pg_cache_core::{Acquired, Counter, FlightRequest, Purpose, Stamp, Stored, Unclaimed};

impl Both<'_> {
    /// Ends the oldest lease or fill: publishes a value with it, or gives it up.
    pub fn end_lease(&mut self, size: usize, give_up: bool) {
        let (tier, model, begun, now) = (self.tier, &mut *self.model, &mut *self.begun, self.now);
        if begun.leases.is_empty() {
            return;
        }
        let (key, lease) = begun.leases.remove(0);
        // None if the flight has ended: another flight has replaced it, or a claimed value was published.
        let flight = model.flights.get(&class(key)).copied().filter(|flight| flight.lease == lease.id);
        if flight.is_some() {
            model.flights.remove(&class(key));
        }
        if give_up {
            assert_eq!(with_key(tier, key, |key| tier.release_lease(key, lease.id)), flight.is_some());
            return;
        }
        let known = Known { stamp: lease.stamp.as_u64(), ..new_value(model, key, size, 1, now + 30) };
        let reservation = with_key(tier, key, |key| {
            tier.reserve(key, &as_value(&known, &dependencies(tier, known.tags)), Default::default())
        });
        match reservation {
            Ok(reservation) => {
                let stored = with_key(tier, key, |key| tier.publish_leased(key, reservation, lease.id));
                let entitled = flight.is_some_and(|flight| !flight.void);
                assert_eq!(stored != Stored::Dropped, entitled, "{stored:?}");
                model.count(key, if entitled { Counter::Stored } else { Counter::Dropped });
                if entitled {
                    model.put(tier, key, known);
                }
            }
            Err(refusal) => {
                expect_refusal(tier, model, key, &known, refusal);
                with_key(tier, key, |key| tier.release_lease(key, lease.id));
            }
        }
        expect(tier, model, key, now);
    }

    /// Ends the oldest claim: publishes a value with it, or gives it up. With `announced`, the key is announced first, so that its
    /// value is hidden, and the value is then confirmed, as at a commit that changes more than this key.
    pub fn end_claim(&mut self, size: usize, announced: bool, give_up: bool) {
        let (tier, model, begun, now) = (self.tier, &mut *self.model, &mut *self.begun, self.now);
        if begun.claims.is_empty() {
            return;
        }
        let (key, claim) = begun.claims.remove(0);
        let flight = model.flights.remove(&class(key)).expect("a claim is in the model until it ends");
        assert_eq!(flight.lease, claim);
        let known = new_value(model, key, size, 1, now + 30);
        let reservation = with_key(tier, key, |key| {
            tier.reserve(key, &as_value(&known, &dependencies(tier, known.tags)), Default::default())
        });
        let reservation = match reservation {
            Ok(reservation) if !give_up => reservation,
            outcome => {
                match outcome {
                    Ok(reservation) => tier.cancel(reservation),
                    Err(refusal) => expect_refusal(tier, model, key, &known, refusal),
                }
                assert!(
                    with_key(tier, key, |key| tier.release_lease(key, claim)),
                    "the claim had ended before"
                );
                return;
            }
        };
        let stored = with_key(tier, key, |key| {
            if !announced {
                return tier.publish_leased(key, reservation, claim) != Stored::Dropped;
            }
            tier.announce(key, &reservation);
            tier.confirm_claimed(key, reservation, claim, Some(stamp(known.stamp)))
        });
        assert_eq!(stored, !flight.void, "the value of a claim must be published unless the claim is void");
        model.count(key, if stored { Counter::Stored } else { Counter::Dropped });
        if stored {
            model.put(tier, key, known);
        }
        expect(tier, model, key, now);
    }

    /// Asks for a lease or a fill of a key until `hold` ticks from now. `hold` also selects the request: 3 modulo 4 is a fill, 1 is
    /// a lease, and an even number is a lease that is wanted only if there is no value. Asserts that the tier begins the flight,
    /// names the present flight or finds a value in the same cases as the model.
    pub fn acquire(&mut self, key: u8, hold: u32) {
        let (tier, model, begun, now) = (self.tier, &mut *self.model, &mut *self.begun, self.now);
        let leader = model.flights.get(&class(key)).filter(|flight| flight.leads(now, model.flushed));
        let fills = hold % 4 == 3;
        // A fill takes over from a lease.
        let leader = leader.filter(|flight| !fills || flight.purpose != Purpose::Lease);
        let owner = owner_of(OWNER, key);
        let acquire = || {
            with_key(tier, key, |key| match hold % 4 {
                0 | 2 => tier.acquire(
                    key,
                    FlightRequest::lease(owner, now + hold).unless_present(Stamp::LATEST.into()),
                ),
                1 => tier.acquire(key, FlightRequest::lease(owner, now + hold)),
                _ => tier.acquire(key, FlightRequest::fill(owner, now + hold)),
            })
        };
        let acquired = loop {
            match acquire() {
                // The key may have a saved value. It is brought back into memory, or its location is forgotten, and then the tier
                // is asked again.
                Acquired::Saved(location) => settle(tier, &model.saver, key, location),
                acquired => break acquired,
            }
        };
        let present = hold.is_multiple_of(2) && model.expected(key, now).is_ok();
        match (acquired, leader) {
            (Acquired::Present, _) => assert!(present, "there is no value"),
            // The tier may have dropped a value that the model still has (`may_forget`). Then the arms below judge its answer.
            (acquired, _) if present && !may_forget(tier, model, key) => {
                panic!("{acquired:?} beside a value")
            }
            (Acquired::Lead(lease), None) => {
                assert_eq!(lease.stamp.as_u64(), model.now);
                // A fill is no lease.
                let found = with_key(tier, key, |key| tier.lease(key, lease.id));
                assert_eq!(found, (!fills).then_some(lease));
                let deadline = Some(now + hold);
                let flight = Flight {
                    lease: lease.id,
                    owner: OWNER,
                    purpose: if fills { Purpose::Fill } else { Purpose::Lease },
                    deadline,
                    stamp: model.now,
                    void: false,
                };
                model.flights.insert(class(key), flight);
                begun.leases.push((key, lease));
            }
            (Acquired::Busy(leader), Some(flight)) => {
                let deadline = flight.deadline.unwrap_or(u32::MAX);
                assert_eq!(
                    (leader.owner, leader.purpose, leader.deadline),
                    (flight.owner, flight.purpose, deadline)
                );
            }
            (acquired, leader) => {
                panic!("{acquired:?} while {:?} leads", leader.map(|flight| flight.lease))
            }
        }
    }

    /// Claims a key. With `removed`, the tier gets no reader, so it does not look whether the key has a value that a reader would
    /// get: the caller will remove that value.
    pub fn claim(&mut self, key: u8, second: bool, removed: bool) {
        let (tier, model, begun, now) = (self.tier, &mut *self.model, &mut *self.begun, self.now);
        let owner = CLAIMERS[usize::from(second)];
        let by = owner_of(owner, key);
        let reader = (!removed).then_some(Stamp::LATEST.into());
        let claimed = loop {
            match with_key(tier, key, |key| tier.claim(key, reader, by)) {
                // As in `acquire`.
                Err(Unclaimed::Saved(location)) => settle(tier, &model.saver, key, location),
                claimed => break claimed,
            }
        };
        // Only a claim has no deadline. Leases and fills do not matter: a claim takes their place.
        let other = model.flights.get(&class(key)).filter(|flight| flight.deadline.is_none());
        match (claimed, other) {
            _ if model.changing.contains(&key) => {
                assert_eq!(claimed, Err(Unclaimed::Changing), "the key is being changed");
            }
            (_, Some(claim)) => {
                let own = (claim.owner == owner).then_some(claim.lease);
                assert_eq!(claimed, own.ok_or(Unclaimed::Claimed), "the key is claimed");
            }
            (Err(why), None) => {
                assert_eq!(why, Unclaimed::Present);
                assert!(!removed && model.expected(key, now).is_ok(), "refused without a reason");
            }
            (Ok(lease), None) => {
                let valid = model.expected(key, now).is_ok();
                assert!(removed || !valid || may_forget(tier, model, key), "there is a value");
                let (purpose, stamp) = (Purpose::Claim, model.now);
                let flight = Flight { lease, owner, purpose, deadline: None, stamp, void: false };
                model.flights.insert(class(key), flight);
                begun.claims.push((key, lease));
            }
        }
    }
}
