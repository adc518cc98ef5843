//! Tests the steps of a commit in the tier: for a transaction that changes a dependency of a value and also sets the value (*Set
//! and fence* in `fence/mod.rs`), for the removal of a key, and for removals by a key's mark, which is the key without its bytes
//! (`KeyMark`).
//!
//! A *tier* is a cache in memory that several processes share. An *announced* change of a key hides the key's value until the
//! change is confirmed (`tier/publishing.rs`). A *lease* is the right to compute the value of a key; a change of the key *voids* it
//! (`tier/flight.rs`). A *stamp* is a number of the clock of changes, which each committed change increments.

use pg_cache_core::testing::{SIZES, TestHost, memory, value};
use pg_cache_core::{
    Acquired, FenceId, FlightRequest, Key, Miss, NewValue, Owner, Region, Stamp, Stored, Tier,
};

/// Sets a key under a tag that the transaction itself changes. Calls `others` twice, to act as other sessions: with false before
/// the changes are visible, and with true after the transaction has drawn its number. Returns what a reader gets afterwards.
fn set_and_fence(others: impl Fn(&Tier<'_, &TestHost>, FenceId, bool)) -> Result<Vec<u8>, Miss> {
    let memory = memory(48 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    let fences = tier.fences();
    // Any hash will do: the key depends on one tag only.
    let tag = fences.tag(7 << 60);
    let key = Key::new(tier.scope(1, 1, 0), b"key", 1).expect("a legal key");
    tier.put(&key, &NewValue { stamp: fences.now(), ..value(b"old", &[tag]) }).expect("there is room");

    let set_at = fences.now();
    let dependencies = [tag];
    let reservation =
        tier.reserve(&key, &NewValue { stamp: set_at, ..value(b"new", &dependencies) }, Default::default());
    let reservation = reservation.expect("there is room");
    fences.raise(tag);
    tier.announce(&key, &reservation);
    others(&tier, tag, false);
    let mut found = Vec::new();
    assert_eq!(
        tier.get(&key, Stamp::LATEST, &mut found),
        Err(Miss::Fenced),
        "the old value is about to be wrong"
    );

    let number = fences.draw();
    others(&tier, tag, true);
    let alone = fences.lower_as(tag, number).was_alone_since(set_at);
    tier.confirm_as(&key, reservation, alone.then_some(number));
    assert_eq!(tier.check(), Vec::<String>::new());
    tier.get(&key, Stamp::LATEST, &mut found).map(|_| found)
}

/// If no other session changes the tag, the value must be a hit after the commit, although its own transaction has changed the
/// tag.
#[test]
fn a_value_set_together_with_its_change_is_a_hit() {
    assert_eq!(set_and_fence(|_, _, _| ()), Ok(b"new".into()));
}

/// If another session changes the tag, before or after the changes are visible, the new value must be dropped, because it may
/// lack that change. The old value must be gone, too: a reader gets neither.
#[test]
fn a_change_by_another_session_drops_the_new_value_and_the_old_one() {
    let changes = |tier: &Tier<'_, &TestHost>, tag| {
        tier.fences().raise(tag);
        tier.fences().lower(tag);
    };
    assert_eq!(
        set_and_fence(|tier, tag, visible| if !visible {
            changes(tier, tag)
        }),
        Err(Miss::Absent)
    );
    assert_eq!(
        set_and_fence(|tier, tag, visible| if visible {
            changes(tier, tag)
        }),
        Err(Miss::Absent)
    );
}

/// A change of the tag that another session aborts must not cause the value to be dropped.
#[test]
fn an_aborted_change_of_another_session_drops_no_value() {
    for at in [false, true] {
        let outcome = set_and_fence(|tier, tag, visible| {
            if visible == at {
                tier.fences().raise(tag);
                tier.fences().withdraw(tag);
            }
        });
        assert_eq!(outcome, Ok(b"new".into()));
    }
}

/// A removal that is confirmed with a stamp must leave no value. A tier that took the announcement for a value would serve it as
/// an empty one, and its blocks would stay in use.
#[test]
fn a_removal_confirmed_as_of_a_commit_leaves_no_value() {
    let memory = memory(48 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    let key = Key::new(tier.scope(1, 1, 0), b"key", 1).expect("a legal key");
    tier.put(&key, &value(b"old", &[])).expect("there is room");
    let reservation = tier.reserve_removal(&key).expect("there is room");
    tier.announce(&key, &reservation);
    tier.confirm_as(&key, reservation, Some(tier.fences().draw()));
    assert_eq!(tier.get(&key, Stamp::LATEST, &mut Vec::new()), Err(Miss::Absent));
    assert_eq!((tier.check(), tier.usage().used_bytes), (Vec::new(), 0));
}

/// Removing by a mark must remove the key, and keep the keys that differ from it in hash, space, role or database.
#[test]
fn a_key_goes_by_its_mark_and_takes_nothing_else_with_it() {
    let memory = memory(48 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    let key =
        |space, role, bytes, hash| Key::new(tier.scope(1, space, role), bytes, hash).expect("a legal key");
    let others = [
        key(1, 0, b"other", 2),
        key(2, 0, b"key", 1),
        key(1, 7, b"key", 1),
        Key::new(tier.scope(2, 1, 0), b"key", 1).expect("a legal key"),
    ];
    let gone = key(1, 0, b"key", 1);
    for key in others.iter().chain([&gone]) {
        tier.put(key, &value(b"old", &[])).expect("there is room");
    }
    tier.remove_marked(&gone.mark());
    assert_eq!(tier.get(&gone, Stamp::LATEST, &mut Vec::new()), Err(Miss::Absent));
    for other in &others {
        assert!(tier.get(other, Stamp::LATEST, &mut Vec::new()).is_ok(), "{other:?}");
    }
    // A mark that has no entry removes nothing.
    tier.remove_marked(&gone.mark());
    assert_eq!((tier.check(), tier.usage().entries), (Vec::new(), 4));
}

/// Removing by a mark must void a lease of the key, so that the value of the lease is dropped. It must keep an announced change:
/// when that is confirmed, it is later than the removal.
#[test]
fn removing_by_a_mark_voids_a_lease_and_keeps_an_announced_change() {
    let memory = memory(48 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    let key = Key::new(tier.scope(1, 1, 0), b"key", 1).expect("a legal key");
    let Acquired::Lead(lease) = tier.acquire(&key, FlightRequest::lease(Owner { session: 1, role: 0 }, 100))
    else {
        panic!("nobody else is at it")
    };
    tier.remove_marked(&key.mark());
    let computed = tier.reserve(&key, &value(b"computed", &[]), Default::default()).expect("there is room");
    assert_eq!(tier.publish_leased(&key, computed, lease.id), Stored::Dropped);

    tier.put(&key, &value(b"old", &[])).expect("there is room");
    let announced = tier.reserve(&key, &value(b"new", &[]), Default::default()).expect("there is room");
    tier.announce(&key, &announced);
    tier.remove_marked(&key.mark());
    assert_eq!((tier.check(), tier.usage().announced, tier.usage().entries), (Vec::new(), 1, 0));
    tier.confirm(&key, announced);
    let mut found = Vec::new();
    assert_eq!(tier.get(&key, Stamp::LATEST, &mut found).map(|_| found), Ok(b"new".into()));
    assert_eq!((tier.check(), tier.usage().announced), (Vec::new(), 0));
}

/// A mark cannot distinguish keys of one scope that have the same hash. So removing by the mark must remove all of them: a key
/// that it left could be the one that was meant.
#[test]
fn keys_that_share_a_hash_go_together_however_many_they_are() {
    let memory = memory(256 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    let names: Vec<_> = (0..40_u32).map(u32::to_ne_bytes).collect();
    let keys = names.iter().map(|name| Key::new(tier.scope(1, 1, 0), name, 1).expect("a legal key"));
    for key in keys.clone() {
        tier.put(&key, &value(&[7; 900], &[])).expect("there is room");
    }
    // All 40 entries fit. The low limit only shows that the removal has many entries to find.
    assert!(tier.usage().entries > 17);
    keys.take(1).for_each(|key| tier.remove_marked(&key.mark()));
    assert_eq!((tier.check(), tier.usage().entries, tier.usage().used_bytes), (Vec::new(), 0, 0));
}
