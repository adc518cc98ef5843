//! Tests of exported values: which entries are exported, when a value is not, and what is told of its dependencies.
//!
//! An entry is *exported* if a store outside of the server gets a copy of its value (`tier/exporting.rs`). A *tier* is a cache in
//! memory that several processes share. A *fence* is a word in shared memory that says when a dependency of entries last changed.
//!
//! The name of a test says what must hold. A comment "Found if …" says which mistake the test would find.
#![cfg(not(any(loom, counting)))]

use pg_cache_core::testing::{SIZES, TestHost, memory, value};
use pg_cache_core::{
    Key, NewValue, Region, RelationFence, ReserveOptions, SPACE_NAME_BYTES_MAX, Scope, Sizes, Stamp, Tier,
};

type TestTier<'t> = Tier<'t, &'t TestHost>;

const DATABASE: u32 = 1;
const SPACE: u32 = 2;

/// Runs a test on a new tier with one shard, at tick 1, and checks the tier afterwards.
fn with_tier(test: impl FnOnce(&TestTier<'_>, &TestHost)) {
    let memory = memory(256 * 1024);
    let host = TestHost::default();
    host.now.set(1);
    let sizes = Sizes { shards: 1, ..SIZES };
    let tier = Tier::format(Region::of_words(&memory), sizes, &host, 0).expect("it fits");
    test(&tier, &host);
    assert_eq!(tier.check(), Vec::<String>::new());
}

fn key<'k>(scope: Scope, bytes: &'k [u8]) -> Key<'k> {
    let hash = bytes.iter().fold(7, |hash: u64, byte| hash.wrapping_mul(31) ^ u64::from(*byte));
    Key::new(scope, bytes, hash).expect("a legal key")
}

/// Stores a value, exported or not.
fn store(tier: &TestTier<'_>, key: &Key<'_>, new: &NewValue<'_>, is_exported: bool) {
    let options = ReserveOptions { is_exported, ..ReserveOptions::default() };
    tier.publish(key, tier.reserve(key, new, options).expect("there is room"));
}

/// Returns all keys of exported entries.
fn exported_keys(tier: &TestTier<'_>) -> Vec<Vec<u8>> {
    let (mut keys, mut bucket) = (Vec::new(), 0);
    while let Some(page) = tier.exported_keys(bucket).expect("there is memory") {
        assert!(page.next > bucket, "each page goes on");
        keys.extend(page.keys.into_iter().map(|found| found.key));
        bucket = page.next;
    }
    keys.sort();
    keys
}

/// Found if the bit of exported entries is read as a part of the length, or set for all entries.
#[test]
fn only_entries_that_were_stored_so_are_exported() {
    with_tier(|tier, _| {
        let scope = tier.scope(DATABASE, SPACE, 0);
        let note = [5; 300];
        let noted = NewValue { note: &note, expires: 100, ..value(&[7; 1000], &[]) };
        store(tier, &key(scope, b"exported"), &noted, true);
        store(tier, &key(scope, b"inner"), &noted, false);
        let own = tier.scope(DATABASE, SPACE, 9);
        store(tier, &key(own, b"of a role"), &noted, true);
        assert_eq!(exported_keys(tier), [b"exported".to_vec()]);
        let found = tier.export(&key(scope, b"exported")).expect("there is memory").expect("it is valid");
        assert_eq!((found.value, found.note, found.meta.expires), (vec![7; 1000], note.to_vec(), 100));
        assert_eq!(tier.export(&key(scope, b"inner")), Ok(None));
        assert_eq!(tier.export(&key(scope, b"absent")), Ok(None));
    });
}

/// Found if an expired, invalidated or announced value is exported.
#[test]
fn only_values_that_a_reader_would_get_are_exported() {
    with_tier(|tier, host| {
        let scope = tier.scope(DATABASE, SPACE, 0);
        let tag = tier.fences().tag(1 << 60);
        let key = key(scope, b"key");
        let new =
            |stamp: Stamp| NewValue { stamp, expires: 10, ..value(b"value", std::slice::from_ref(&tag)) };
        let is_exported = || tier.export(&key).expect("there is memory").is_some();
        store(tier, &key, &new(tier.fences().now()), true);
        assert!(is_exported());
        tier.fences().raise(tag);
        assert!(!is_exported(), "a change of the tag is about to commit");
        tier.fences().lower(tag);
        assert!(!is_exported(), "the tag has changed");
        store(tier, &key, &new(tier.fences().now()), true);
        assert!(is_exported());
        host.now.set(10);
        assert!(!is_exported(), "it has expired");
        host.now.set(1);
        let removal = tier.reserve_removal(&key).expect("there is room");
        tier.announce(&key, &removal);
        assert!(!is_exported(), "a transaction removes the key");
        tier.withdraw(&key, removal);
        assert!(is_exported());
    });
}

/// Found if a writer need not name the relation, so that a copy stays when the relation changes.
#[test]
fn the_relations_of_an_exported_value_are_named() {
    with_tier(|tier, _| {
        let scope = tier.scope(DATABASE, SPACE, 0);
        let (fence, _) = tier.fences().dependency_fences(DATABASE, 77, tier.fences().now());
        let key = key(scope, b"key");
        let new = NewValue { stamp: tier.fences().now(), ..value(b"value", std::slice::from_ref(&fence)) };
        store(tier, &key, &new, true);
        let written = tier.fences().claim_fence(DATABASE, 77, RelationFence::Any);
        assert_eq!(tier.fences().relation_to_name(written), None);
        let found = tier.export(&key).expect("there is memory").expect("it is valid");
        assert_eq!(found.relations, [(DATABASE, 77)]);
        assert_eq!(tier.fences().relation_to_name(written), Some(Some((DATABASE, 77))));
    });
}

/// Found if a value that depends on single rows leaves with every change of the relation.
#[test]
fn the_relation_of_exported_rows_is_named_and_left_out() {
    with_tier(|tier, _| {
        let fences = tier.fences();
        let settled = || fences.row_dependency_fences(DATABASE, 77, fences.now());
        settled();
        let (bulk, more) = settled();
        assert_eq!(more, [None, None]);
        let key = key(tier.scope(DATABASE, SPACE, 0), b"key");
        let new = NewValue { stamp: fences.now(), ..value(b"value", std::slice::from_ref(&bulk)) };
        store(tier, &key, &new, true);
        let found = tier.export(&key).expect("there is memory").expect("it is valid");
        assert_eq!(found.relations, []);
        assert_eq!(fences.relation_to_name(bulk), Some(Some((DATABASE, 77))));
    });
}

/// The longest name fills all its words. Found if the length or the first word is lost.
#[test]
fn the_name_of_a_space_is_found_by_its_number() {
    with_tier(|tier, _| {
        let scope = tier.scope(DATABASE, SPACE, 0);
        assert_eq!(tier.space_name(DATABASE, SPACE), None);
        let long = [b'x'; SPACE_NAME_BYTES_MAX];
        tier.set_space_name(&scope, &[b'x'; SPACE_NAME_BYTES_MAX + 1]);
        assert_eq!(tier.space_name(DATABASE, SPACE), None, "the name is too long");
        tier.set_space_name(&scope, &long);
        assert_eq!(tier.space_name(DATABASE, SPACE), Some(long.to_vec()));
        tier.set_space_name(&scope, b"renamed");
        assert_eq!(tier.space_name(DATABASE, SPACE), Some(b"renamed".to_vec()));
        assert_eq!(tier.named_spaces().collect::<Vec<_>>(), [(DATABASE, SPACE)]);
        assert_eq!(tier.space_name(DATABASE, 3), None);
        // The tier has room for the fences of two more spaces. All others share a cell of statistics.
        for space in 10..30 {
            tier.set_space_name(&tier.scope(DATABASE, space, 0), b"late");
        }
        assert_eq!(tier.space_name(DATABASE, 10), Some(b"late".to_vec()));
        assert_eq!(tier.space_name(DATABASE, 29), None);
    });
}
