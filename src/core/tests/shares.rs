//! Tests the slots for leases, fills and claims, here called places (`tier/flight.rs` has their rules). No space and no role may
//! take so many places that the others get none.
//!
//! A *fill* and a *lease* are rights to compute the value of a key, and a *claim* is the right to set a key that has no value. A
//! *tier* is a cache in memory that several processes share.

use pg_cache_core::testing::{SIZES, TestHost, memory, value};
use pg_cache_core::{
    Acquired, FlightRequest, Key, Limit, NewValue, Owner, Purpose, Region, Reserved, Sizes, Stamp, Stored,
    Tier, Unclaimed,
};

type TestTier<'m> = Tier<'m, &'m TestHost>;

/// Runs a test on a tier with one shard, which has eight sets of 64 places, and checks the tier afterwards.
fn with_tier(test: impl FnOnce(&TestTier<'_>, &TestHost)) {
    let host = TestHost::default();
    host.now.set(1);
    let memory = memory(2 << 20);
    let sizes = Sizes { reserved_fences: 64, shards: 1, ..SIZES };
    let tier = Tier::format(Region::of_words(&memory), sizes, &host, 0).expect("it fits");
    test(&tier, &host);
    assert_eq!(tier.check(), Vec::<String>::new());
}

/// The role that takes all places that it gets.
const EVIL: u32 = 66;
/// A role that needs a few places.
const GOOD: u32 = 7;
/// A deadline that does not pass. (The largest tick is that of claims.)
const FOREVER: u32 = u32::MAX - 1;

/// Calls `act` with the key of a space that has this number.
fn with_key<T>(tier: &TestTier<'_>, space: u32, number: u64, act: impl FnOnce(&Key<'_>) -> T) -> T {
    let bytes = number.to_be_bytes();
    act(&Key::new(tier.scope(1, space, 0), &bytes, number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .expect("a key"))
}

/// Returns an owner. Each role has one session here.
fn owner(role: u32) -> Owner {
    Owner { session: role, role }
}

/// Asks for a lease that does not end by itself.
fn lease(tier: &TestTier<'_>, space: u32, role: u32, number: u64) -> Acquired {
    with_key(tier, space, number, |key| tier.acquire(key, FlightRequest::lease(owner(role), FOREVER)))
}

/// Asks for a fill that does not end by itself.
fn fill(tier: &TestTier<'_>, space: u32, role: u32, number: u64) -> Acquired {
    with_key(tier, space, number, |key| tier.acquire(key, FlightRequest::fill(owner(role), FOREVER)))
}

/// Claims a key, if it has no value.
fn claim(tier: &TestTier<'_>, space: u32, role: u32, number: u64) -> Result<u64, Unclaimed> {
    with_key(tier, space, number, |key| tier.claim(key, Some(Stamp::LATEST.into()), owner(role)))
}

/// Stores a value under a lease, a fill or a claim.
fn publish(tier: &TestTier<'_>, space: u32, number: u64, flight: u64) -> Stored {
    let value = NewValue { stamp: tier.fences().now(), ..value(b"value", &[]) };
    with_key(tier, space, number, |key| {
        let reservation = tier.reserve(key, &value, Default::default()).expect("there is room");
        tier.publish_leased(key, reservation, flight)
    })
}

/// Returns the ID of the lease or the fill. Fails if there is none.
fn leads(acquired: Acquired) -> u64 {
    match acquired {
        Acquired::Lead(lease) => lease.id,
        other => panic!("{other:?}"),
    }
}

/// These are more keys than there are places.
const MANY: std::ops::Range<u64> = 0..5_000;

/// A role that asks for every lease is refused, and so are its space and the role in other spaces. Another role in
/// another space must still get leases and claims.
#[test]
fn a_space_and_a_role_that_take_all_leases_are_refused_themselves() {
    with_tier(|tier, _| {
        let got = MANY.filter(|number| matches!(lease(tier, 1, EVIL, *number), Acquired::Lead(_))).count();
        // With 8 of 64 places reserved for fills, the role is refused once it has 45 places of a set, because 11 are free then.
        assert!((300..450).contains(&got), "{got} leases for one role in one space");
        // A role in a space gets no more places. Another role in the same space, and the same role in another space,
        // reach a limit as well.
        for number in MANY {
            assert!(!matches!(lease(tier, 1, EVIL, number), Acquired::Lead(_)), "it took all that it may");
        }
        let limits: Vec<_> = (10_000..10_100)
            .map(|number| (lease(tier, 1, GOOD, number), lease(tier, 3, EVIL, number)))
            .collect();
        assert!(limits.iter().all(|(space, _)| *space == Acquired::NoSlot(Limit::Space)), "{limits:?}");
        assert!(limits.iter().all(|(_, role)| *role == Acquired::NoSlot(Limit::Role)), "{limits:?}");
        // Another role in another space finds a place for each of 40 keys, which are spread over the sets.
        (20_000..20_040).for_each(|number| {
            leads(lease(tier, 2, GOOD, number));
        });
        claim(tier, 2, GOOD, 30_000).expect("there is a place for a claim");
    });
}

/// Many roles in one space together must leave places to other spaces: the limit of the space counts for all of its roles.
#[test]
fn many_roles_in_one_space_take_no_more_than_the_space_may() {
    with_tier(|tier, _| {
        for number in MANY {
            lease(tier, 1, 1_000 + number as u32 % 100, number);
        }
        (20_000..20_040).for_each(|number| {
            leads(lease(tier, 2, GOOD, number));
        });
    });
}

/// When leases and claims have taken all the places that they may have, every fill must still get a place and be
/// stored.
#[test]
fn leases_and_claims_keep_no_fill_from_its_place() {
    with_tier(|tier, _| {
        // Sixty parties, each a space and a role of its own, are enough to take all places that leases and claims may have. Bit 20
        // makes the keys of claims differ from those of leases.
        for party in 100..160 {
            for number in 0..1_000 {
                lease(tier, party, party, u64::from(party) << 32 | number);
                let _ = claim(tier, party, party, u64::from(party) << 32 | 1 << 20 | number);
            }
        }
        let refused = (0..100).filter(|number| lease(tier, 2, GOOD, *number) == Acquired::NoSlot(Limit::All));
        assert!(refused.count() > 50, "the test does not take all places");
        for number in 0..100 {
            let flight = leads(fill(tier, 2, GOOD, number));
            assert_eq!(publish(tier, 2, number, flight), Stored::New);
        }
    });
}

/// Only its own transaction can end a claim. So claims of one role must leave places to fills, leases and claims of others.
#[test]
fn claims_of_one_role_leave_places_to_fills_leases_and_claims() {
    with_tier(|tier, _| {
        let refusals: Vec<_> = MANY.filter_map(|number| claim(tier, 1, EVIL, number).err()).collect();
        assert!(refusals.len() > 4_000, "{} are refused", refusals.len());
        assert!(refusals.iter().all(|why| *why == Unclaimed::NoSlot(Limit::Space)));
        for number in 20_000..20_010 {
            leads(fill(tier, 2, GOOD, number));
            leads(lease(tier, 2, GOOD, 1_000 + number));
            claim(tier, 2, GOOD, 2_000 + number).expect("there is a place for a claim");
        }
    });
}

/// One role runs fills inside of fills, as queries do that call `cache_fetch` themselves. They must leave places to the fills of
/// others.
#[test]
fn fills_of_one_role_leave_places_to_fills_of_others() {
    with_tier(|tier, _| {
        let got = MANY.filter(|number| matches!(fill(tier, 1, EVIL, *number), Acquired::Lead(_))).count();
        // The role gets 52 of the 64 places of a set, because 12 are free then.
        assert!(got < 500, "{got} fills");
        (20_000..20_040).for_each(|number| {
            leads(fill(tier, 2, GOOD, number));
        });
    });
}

/// A committed flush of a space ends its leases and frees their places. It must not end claims.
#[test]
fn leases_end_with_a_flush_of_their_space_and_claims_do_not() {
    with_tier(|tier, _| {
        for space in [1, 3] {
            MANY.for_each(|number| {
                lease(tier, space, space, number);
            });
        }
        let lost = leads(lease(tier, 2, GOOD, 1));
        claim(tier, 2, GOOD, 2).expect("there is a place for a claim");
        let before = tier.usage().flights;
        let fence = tier.fences().reserved(Reserved::Space { database: 1, space: 1 });
        tier.fences().raise(fence);
        assert_eq!(tier.usage().flights, before, "a flush that may be rolled back ends nothing");
        tier.fences().lower(fence);
        // Most of the leases are those of space 1, which came first.
        assert!(tier.usage().flights < before / 2, "leases of the flushed space count no more");
        let fence = tier.fences().reserved(Reserved::Space { database: 1, space: 2 });
        tier.fences().raise(fence);
        tier.fences().lower(fence);
        let leader = |number| with_key(tier, 2, number, |key| tier.leader(key)).map(|leader| leader.purpose);
        assert_eq!((leader(1), leader(2)), (None, Some(Purpose::Claim)));
        let again = leads(lease(tier, 2, GOOD, 1));
        assert_eq!(publish(tier, 2, 1, lost), Stored::Dropped, "another caller computes it");
        assert_eq!(publish(tier, 2, 1, again), Stored::New);
        // The places of the flushed space are free again.
        let got = MANY.filter(|number| matches!(lease(tier, 1, 9, *number), Acquired::Lead(_))).count();
        assert!(got > 50, "{got} leases after the flush");
    });
}

/// The places of leases must be free when their deadline has passed.
#[test]
fn leases_out_of_time_are_free() {
    with_tier(|tier, host| {
        for number in MANY {
            with_key(tier, 1, number, |key| tier.acquire(key, FlightRequest::lease(owner(EVIL), 10)));
        }
        assert_eq!(lease(tier, 1, GOOD, 9_999), Acquired::NoSlot(Limit::Space));
        host.now.set(10);
        assert_eq!(tier.usage().flights, 0);
        let got = MANY.filter(|number| matches!(lease(tier, 1, GOOD, *number), Acquired::Lead(_))).count();
        assert!(got > 300, "{got} leases");
    });
}

/// A fill must replace a lease of its key, and the value of that lease must be refused. It must not replace another fill.
#[test]
fn a_fill_goes_before_the_lease_of_its_key() {
    with_tier(|tier, _| {
        let overtaken = leads(lease(tier, 1, EVIL, 1));
        let flight = leads(fill(tier, 1, GOOD, 1));
        assert!(matches!(fill(tier, 1, EVIL, 1), Acquired::Busy(_)), "one query is run at a time");
        assert!(matches!(lease(tier, 1, EVIL, 1), Acquired::Busy(_)));
        assert_eq!(publish(tier, 1, 1, overtaken), Stored::Dropped);
        assert_eq!(publish(tier, 1, 1, flight), Stored::New);
        // A change of the key voids a fill as it voids a lease.
        let flight = leads(fill(tier, 1, GOOD, 1));
        with_key(tier, 1, 1, |key| tier.remove(key));
        assert_eq!(publish(tier, 1, 1, flight), Stored::Dropped);
    });
}

/// A lease must contain the time on the host's clock at which it was acquired, also when it is looked up by its ID.
#[test]
fn a_lease_says_when_it_was_acquired() {
    with_tier(|tier, host| {
        host.moment.set(77);
        let Acquired::Lead(lease) = lease(tier, 1, GOOD, 1) else { panic!("nobody computes it") };
        assert_eq!(lease.acquired, 77);
        assert_eq!(with_key(tier, 1, 1, |key| tier.lease(key, lease.id)), Some(lease));
    });
}

/// A caller that guesses the ID of a fill must not get it as a lease: the fill does not keep the time at which it was acquired.
#[test]
fn a_fill_is_no_lease() {
    with_tier(|tier, _| {
        let flight = leads(fill(tier, 1, GOOD, 1));
        assert_eq!(with_key(tier, 1, 1, |key| tier.lease(key, flight)), None);
        assert_eq!(publish(tier, 1, 1, flight), Stored::New, "the fill goes on");
    });
}
