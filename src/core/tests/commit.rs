//! A transaction that changes what a value depends on and sets the value too: what it does at its commit, step by step.

// Of the model's harness only the host is used here.
#[allow(dead_code)]
mod harness;

use harness::TestHost;
use harness::damage::{SIZES, memory, value};
use pg_cache_core::{FenceId, Key, Miss, NewValue, Region, Stamp, Tier};

/// Sets a key under a tag that it changes itself, while `others` do what they do before and after the changes are visible.
/// Returns what a reader then finds.
fn set_and_fence(others: impl Fn(&Tier<'_, &TestHost>, FenceId, bool)) -> Result<Vec<u8>, Miss> {
    let memory = memory(48 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    let fences = tier.fences();
    let tag = fences.tag(7 << 60);
    let key = Key::new(tier.scope(1, 1, 0), b"key", 1).expect("a legal key");
    tier.put(&key, &NewValue { stamp: fences.now(), ..value(b"old", &[tag]) }).expect("there is room");

    let set_at = fences.now();
    let dependencies = [tag];
    let reservation = tier.reserve(&key, &NewValue { stamp: set_at, ..value(b"new", &dependencies) });
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

#[test]
fn a_value_set_along_with_the_change_it_follows_from_is_a_hit() {
    assert_eq!(set_and_fence(|_, _, _| ()), Ok(b"new".into()));
}

#[test]
fn it_is_dropped_when_somebody_else_has_changed_the_same_and_the_old_one_does_not_come_back() {
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

#[test]
fn a_change_that_somebody_else_gives_up_takes_nothing_away() {
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
