//! Tests what the tier tells about a miss (`Tier::why_fenced`), and the list of a scope's keys (`Tier::keys_between`).
//!
//! A *tier* is a cache in memory that several processes share. A *fence* is a word in shared memory that says when a dependency of
//! entries last changed. A *scope* is the database, the space and the role of a key.
#![cfg(not(any(loom, counting)))]

use pg_cache_core::testing::{SIZES, TestHost, memory, value};
use pg_cache_core::{
    FenceId, InvalidBecause, Key, KeyPage, NewValue, Reader, Region, Reserved, Scope, Stamp, Tier,
};

type TestTier<'t> = Tier<'t, &'t TestHost>;

/// Runs a test on a new tier, and checks the tier afterwards.
fn with_tier(test: impl FnOnce(&TestTier<'_>)) {
    let memory = memory(256 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    test(&tier);
    assert_eq!(tier.check(), Vec::<String>::new());
}

/// Returns a key whose hash is made from its bytes, as FNV-1a does it.
fn key(scope: Scope, bytes: &[u8]) -> Key<'_> {
    let hash =
        bytes.iter().fold(7_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    Key::new(scope, bytes, hash).expect("a legal key")
}

/// Stores a value as of now.
fn put(tier: &TestTier<'_>, key: &Key<'_>, dependencies: &[FenceId]) {
    let new = NewValue { stamp: tier.fences().now(), ..value(b"value", dependencies) };
    tier.put(key, &new).expect("it is stored");
}

/// The explanation must name the dependency that made the entry invalid for this reader, and the reason. It must be None without an
/// entry and for a valid one.
#[test]
fn a_miss_is_explained_by_the_dependency_that_changed() {
    with_tier(|tier| {
        let key = key(tier.scope(1, 1, 0), b"key");
        let fences = tier.fences();
        // The highest bits of a hash select one of the 16 fences of tags.
        let [one, other] = [fences.tag(1 << 60), fences.tag(7 << 60)];
        let why = |reader: Reader<'_>| tier.why_fenced(&key, reader);
        let latest: Reader<'_> = Stamp::LATEST.into();
        assert_eq!(why(latest), None, "no entry");
        put(tier, &key, &[one, other]);
        assert_eq!(why(latest), None, "a hit");
        assert_eq!(why(Reader { changed_fences: &[other], ..latest }), Some(InvalidBecause::Own(other)));
        fences.raise(other);
        assert_eq!(why(latest), Some(InvalidBecause::Changed(other)), "it is about to change");
        fences.lower(other);
        assert_eq!(why(latest), Some(InvalidBecause::Changed(other)));
        let before = fences.now();
        fences.raise(one);
        fences.lower(one);
        put(tier, &key, &[one, other]);
        assert_eq!(
            why(before.into()),
            Some(InvalidBecause::Newer(one)),
            "the entry is newer than the reader"
        );
        let [definitions, roles] =
            [Reserved::Definitions(1), Reserved::Roles].map(|what| fences.reserved(what));
        put(tier, &key, &[definitions, roles]);
        // When both have changed, the answer is the roles: a change of roles is also one of definitions, and says more.
        for fence in [definitions, roles] {
            fences.raise(fence);
            fences.lower(fence);
            assert_eq!(why(latest), Some(InvalidBecause::Changed(fence)));
        }
        let (record, _) = fences.dependency_fences(1, 7, fences.now());
        put(tier, &key, &[record]);
        assert_eq!(why(Reader { tracked: true, ..latest }), Some(InvalidBecause::Tracked(record)));
        // A writer of relation 8 has found no record, and has raised the unclaimed fence (`fence/mod.rs`). So the entry depends on
        // that fence, too.
        let (unclaimed, stamp) = (fences.fence_to_raise(1, 8), fences.now());
        fences.raise(unclaimed);
        let (record, beside) = fences.dependency_fences(1, 8, stamp);
        put(tier, &key, &[record, beside.expect("a writer is under way")]);
        assert_eq!(
            why(latest),
            Some(InvalidBecause::Changed(record)),
            "the relation that the fence stands for"
        );
        fences.withdraw(unclaimed);
        let removal = tier.reserve_removal(&key).expect("there is room");
        tier.announce(&key, &removal);
        assert_eq!(why(latest), Some(InvalidBecause::Key));
        tier.withdraw(&key, removal);
        assert_eq!(why(latest), None);
    });
}

/// Other sessions replace, add and remove values between the steps of a list. A key that has a value all the time must be in the
/// list exactly once: a missing or a repeated key makes the sorted list differ.
#[test]
fn a_key_that_has_a_value_all_the_time_is_listed_exactly_once() {
    with_tier(|tier| {
        let scope = tier.scope(1, 1, 0);
        let stable: Vec<_> = (0..100).map(|number| format!("stable {number:03}")).collect();
        stable.iter().for_each(|name| put(tier, &key(scope, name.as_bytes()), &[]));
        let (mut found, mut bucket, mut round) = (Vec::new(), 0, 0);
        while let Some(KeyPage { keys, next }) =
            tier.keys_between(&scope, bucket, None, None).expect("memory")
        {
            found.extend(keys.into_iter().map(|key| String::from_utf8(key).expect("letters")));
            stable.iter().for_each(|name| put(tier, &key(scope, name.as_bytes()), &[]));
            tier.remove(&key(scope, format!("other {}", round - 1).as_bytes()));
            put(tier, &key(scope, format!("other {round}").as_bytes()), &[]);
            (bucket, round) = (next, round + 1);
        }
        found.retain(|name| name.starts_with("stable"));
        found.sort();
        assert_eq!(found, stable);
        assert!(round > 2, "the list takes several steps");
    });
}

/// A list contains exactly the keys of its scope, and of these only those between its limits. The limits themselves
/// are not in it.
#[test]
fn the_keys_of_a_scope_are_listed_without_those_of_others() {
    with_tier(|tier| {
        let [mine, other_space, other_role] = [tier.scope(1, 1, 0), tier.scope(1, 2, 0), tier.scope(1, 1, 9)];
        let names: Vec<_> = (0..200).map(|number| format!("{number:03}")).collect();
        for scope in [mine, other_space, other_role] {
            names.iter().for_each(|name| put(tier, &key(scope, name.as_bytes()), &[]));
        }
        put(tier, &key(other_space, b"alone"), &[]);
        let list = |after: Option<&[u8]>, before: Option<&[u8]>| {
            let (mut found, mut bucket) = (Vec::new(), 0);
            while let Some(KeyPage { keys, next }) =
                tier.keys_between(&mine, bucket, after, before).expect("memory")
            {
                assert!(next > bucket, "each call goes on");
                found.extend(keys.into_iter().map(|key| String::from_utf8(key).expect("digits")));
                bucket = next;
            }
            found.sort();
            found
        };
        assert_eq!(list(None, None), names);
        assert_eq!(list(Some(b"150"), None), names[151..]);
        assert_eq!(list(Some(b"150"), Some(b"160")), names[151..160]);
    });
}
