//! Tests of `Tier::to_counter`, which turns a value into a counter. The caller says which number the value stands for. The time
//! to live, the dependencies and the time for which the value may be served stale must stay.
//!
//! A *fence* is a word in shared memory that says when a dependency of entries last changed. An *announced* change of a key hides
//! the key's value until the change is confirmed (`tier/publishing.rs`). A *tier* is a cache in memory that several processes
//! share. A *tick* is its unit of time, which the host of the tier, here the test, chooses.
#![cfg(not(any(loom, counting)))]

use pg_cache_core::testing::{SIZES, TestHost, memory, value};
use pg_cache_core::{FenceId, IncrError, Key, Kind, Miss, NewValue, Refusal, Region, StaleOk, Stamp, Tier};

/// The kind of the values that are turned. The tier gives this number no meaning.
const TEXT: Kind = Kind(2);

/// Runs a test on a new tier with a key that has no value, and checks the tier afterwards.
fn with_tier(run: impl FnOnce(&Tier<'_, &TestHost>, &Key<'_>)) {
    let memory = memory(512 << 10);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    let key = Key::new(tier.scope(1, 1, 0), b"a key", 77).expect("a legal key");
    run(&tier, &key);
    assert_eq!(tier.check(), Vec::<String>::new());
}

/// Returns a value of the kind `TEXT` that expires at tick 500.
fn text<'v>(bytes: &'v [u8], dependencies: &'v [FenceId]) -> NewValue<'v> {
    NewValue { kind: TEXT, expires: 500, ..value(bytes, dependencies) }
}

/// Turns the value into a counter with this number, if the key still holds exactly these bytes as `TEXT`.
fn to_counter(tier: &Tier<'_, &TestHost>, key: &Key<'_>, bytes: &[u8], number: i64) -> Result<bool, Refusal> {
    tier.to_counter(key, (TEXT, bytes), number, |new, stale_ok| tier.reserve(key, new, stale_ok.into()))
}

/// Returns the kind and the bytes that a reader gets.
fn get(tier: &Tier<'_, &TestHost>, key: &Key<'_>) -> Result<(Kind, Vec<u8>), Miss> {
    let mut found = Vec::new();
    tier.get(key, Stamp::LATEST, &mut found).map(|meta| (meta.kind, found))
}

/// A value that becomes a counter must keep its expiry, its dependencies, and the time for which it may be served stale. An
/// announced change of the key must not prevent that.
#[test]
fn a_counter_keeps_the_life_and_the_dependencies_of_the_value() {
    with_tier(|tier, key| {
        // The highest bits of a hash select one of the 16 fences of tags, so these are three fences.
        let tags = [tier.fences().tag(3 << 60), tier.fences().tag(5 << 60), tier.fences().tag(7 << 60)];
        let stale_ok = Some(StaleOk { ticks: 100, valid_at: 1 });
        let reserved = tier.reserve(key, &text(b"41", &tags), stale_ok.into()).expect("it fits");
        tier.publish(key, reserved);
        assert_eq!(tier.add(key, 1), Some(Err(IncrError::OtherKind(TEXT))));
        // The announcement of another transaction hides the value from readers, but it does not stop an addition.
        let announced = tier.reserve_removal(key).expect("it fits");
        tier.announce(key, &announced);
        let mut found = [0; 4];
        let meta = tier.peek_to_add(key, &mut found).expect("it is there");
        assert_eq!((meta.kind, meta.value_len, found), (TEXT, 2, *b"41\0\0"));
        assert_eq!(to_counter(tier, key, b"41", 41), Ok(true));
        tier.withdraw(key, announced);
        assert_eq!(tier.add(key, 1), Some(Ok(42)));
        assert_eq!(get(tier, key), Ok((Kind::COUNTER, 42_i64.to_ne_bytes().to_vec())));
        assert_eq!(tier.peek(key, Stamp::LATEST).expect("it is there").expires, 500);
        tier.fences().raise(tags[2]);
        tier.fences().lower(tags[2]);
        assert_eq!(tier.add(key, 1), None);
        assert_eq!(get(tier, key), Err(Miss::Fenced));
        let stale = tier.get_stale(key, Stamp::LATEST, &mut Vec::new());
        assert!(stale.is_ok(), "the time for which it may be served stale stays");
    });
}

/// `to_counter` must return false and change nothing if the key has no value or another one, or if another session changes the
/// value, its expiry, its dependencies or its kind while the counter is being reserved.
#[test]
fn a_value_that_has_changed_meanwhile_stays() {
    with_tier(|tier, key| {
        assert_eq!(to_counter(tier, key, b"1", 1), Ok(false));
        tier.put(key, &text(b"2", &[])).expect("it is stored");
        assert_eq!(to_counter(tier, key, b"1", 1), Ok(false));
        // Another session replaces the value while the counter is being reserved.
        let tag = [tier.fences().tag(9 << 60)];
        let longer = NewValue { expires: 501, ..text(b"2", &[]) };
        for other in
            [text(b"3", &[]), text(b"2", &tag), longer, NewValue { kind: Kind(1), ..text(b"2", &[]) }]
        {
            tier.put(key, &text(b"2", &[])).expect("it is stored");
            let outcome = tier.to_counter(key, (TEXT, b"2"), 2, |new, stale_ok| {
                tier.put(key, &other).expect("it is stored");
                tier.reserve(key, new, stale_ok.into())
            });
            assert_eq!(outcome, Ok(false), "{other:?}");
            assert_eq!(get(tier, key), Ok((other.kind, other.bytes.to_vec())));
        }
    });
}
