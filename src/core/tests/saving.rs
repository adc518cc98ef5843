//! Tests of saved values. They check which changes of a key forget its location, and when a saver may add the location of a copy.
//! They also check that an operation which must know whether a key has a value looks for a saved value, too.
//!
//! A *tier* is a cache in memory that several processes share. The *saver* copies entries to a place outside of it
//! (`tier/saving.rs`): it marks an entry, copies it, and *locates* the copy, that is, adds its *location* to the directory
//! (`tier/directory.rs`). A location is a *segment*, a part of that place, for example a table, and a position in it. The directory
//! consists of *sets* of eight locations; the hash of a key chooses its set. A saved copy that becomes an entry again is
//! *promoted*.
//!
//! The name of a test says what must hold. A comment "Found if …" says which mistake the test would find, where the name does not.
//!
//! A *shard* is a part of the tier with a lock of its own. An *announced* change of a key hides the key's value until the change is
//! confirmed (`tier/publishing.rs`).
#![cfg(not(any(loom, counting)))]

use pg_cache_core::testing::{SIZES, TestHost, memory, owner, value};
use pg_cache_core::{
    Acquired, Batch, Counter, FenceId, FlightRequest, IncrError, Key, Kind, Location, Marked, Meta, Miss,
    NewValue, Reader, Region, ReserveOptions, Reserved, SavedValue, Sizes, StaleOk, Stamp, Stored, Tier,
    Unclaimed,
};

type TestTier<'t> = Tier<'t, &'t TestHost>;

const DATABASE: u32 = 1;

/// Runs a test on a new tier with one shard and 64 locations, at tick 1, and checks the tier afterwards.
fn with_tier(test: impl FnOnce(&TestTier<'_>, &TestHost)) {
    let memory = memory(256 * 1024);
    let host = TestHost::default();
    host.now.set(1);
    let sizes = Sizes { shards: 1, locations: 64, ..SIZES };
    let tier = Tier::format(Region::of_words(&memory), sizes, &host, 0).expect("it fits");
    test(&tier, &host);
    assert_eq!(tier.check(), Vec::<String>::new());
}

/// Returns a key whose hash is made from its bytes, as FNV-1a does it.
fn key<'k>(tier: &TestTier<'_>, bytes: &'k [u8]) -> Key<'k> {
    let hash =
        bytes.iter().fold(7_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    Key::new(tier.scope(DATABASE, 1, 0), bytes, hash).expect("a legal key")
}

/// Returns a value as of now that expires at tick 100.
fn new<'v>(tier: &TestTier<'_>, bytes: &'v [u8], dependencies: &'v [FenceId]) -> NewValue<'v> {
    NewValue { stamp: tier.fences().now(), expires: 100, ..value(bytes, dependencies) }
}

fn put(tier: &TestTier<'_>, key: &Key<'_>, bytes: &[u8]) {
    tier.put(key, &new(tier, bytes, &[])).expect("it is stored");
}

/// Marks up to 64 entries of the shard that have no location, the oldest first. Marks an entry again if it still has a mark from an
/// earlier call.
fn mark(tier: &TestTier<'_>) -> Batch {
    let mut batch = Batch::with_room(64).expect("there is memory");
    tier.mark_oldest(0, DATABASE, true, |_| true, &mut batch);
    batch
}

/// Returns the only marked entry of a batch.
fn only(batch: &Batch) -> &Marked {
    assert_eq!(batch.marked().len(), 1, "one entry is to be saved");
    &batch.marked()[0]
}

/// Returns a location in segment 3; any segment would do.
fn at(position: u64) -> Location {
    Location::new(3, position).expect("a legal location")
}

/// Saves the only entry without a location at a position in segment 3, and removes the entry from the memory.
fn save(tier: &TestTier<'_>, position: u64) {
    assert!(tier.locate(only(&mark(tier)), at(position), true), "nothing has changed");
}

fn get(tier: &TestTier<'_>, key: &Key<'_>) -> Result<Vec<u8>, Miss> {
    let mut found = Vec::new();
    tier.get(key, Stamp::LATEST, &mut found).map(|_| found)
}

/// Found if a copy lacks the dependencies or the stale time of the entry, or if a set gets two locations for one key.
#[test]
fn a_saved_value_is_found_by_its_location_after_it_left_the_memory() {
    with_tier(|tier, _| {
        let key = key(tier, b"key");
        let relation = tier.fences().tag(1 << 60);
        let stale_ok = StaleOk { ticks: 5, valid_at: 1 };
        let reserved = tier.reserve(&key, &new(tier, b"value", &[relation]), Some(stale_ok).into());
        tier.publish(&key, reserved.expect("there is room"));
        let batch = mark(tier);
        let marked = only(&batch);
        assert_eq!(
            (marked.space(), marked.role(), marked.key_len(), marked.dependency_count()),
            (1, 0, 3, 1)
        );
        let (mut name, mut fences) = (vec![0; 3], vec![FenceId::from_number(0)]);
        let mut bytes = vec![0; marked.meta().value_len];
        assert_eq!(tier.read_marked(marked, &mut name, &mut fences, &mut [], &mut bytes), Some(stale_ok));
        assert_eq!((&name[..], &bytes[..], &fences[..]), (&b"key"[..], &b"value"[..], &[relation][..]));
        assert!(tier.locate(marked, at(8), false));
        assert_eq!(get(tier, &key), Ok(b"value".to_vec()), "it is in both places");
        assert!(mark(tier).marked().is_empty(), "it is saved already");
        assert!(!tier.locate(marked, at(9), false), "a set never has two locations with the same bits");
        tier.forget_location(&key, at(8));
        assert!(tier.locate(only(&mark(tier)), at(10), true), "a forgotten copy is saved again");
        assert_eq!(get(tier, &key), Err(Miss::Saved(at(10))));
        assert_eq!(tier.peek(&key, Stamp::LATEST), Err(Miss::Saved(at(10))));
    });
}

/// New entries enter the main queue while much of the memory is free, and the small one afterwards. Found if the search looks at
/// the small queue only, or stops before the old end of the main queue is saved.
#[test]
fn the_oldest_entries_of_both_queues_are_saved() {
    let memory = memory(512 * 1024);
    let host = TestHost::default();
    let sizes = Sizes { shards: 1, locations: 16_384, ..SIZES };
    let tier = Tier::format(Region::of_words(&memory), sizes, &host, 0).expect("it fits");
    let name = |number: u32| number.to_le_bytes();
    let (mut saved, mut next) = (0, 0);
    let put_until_evicted = |most: u64, next: &mut u32| {
        while tier.counted(Counter::Evicted) < most {
            put(&tier, &key(&tier, &name(*next)), b"value");
            *next += 1;
        }
    };
    put_until_evicted(1, &mut next);
    assert!(next > 2_000, "the queues are too short for this test");
    // No reader has asked for any entry, so the first ones are at the old end of the main queue.
    let oldest = name(0);
    let first = key(&tier, &oldest);
    assert!(tier.peek(&first, Stamp::LATEST).is_ok());
    for _ in 0..8 {
        let batch = mark(&tier);
        for marked in batch.marked() {
            saved += 1;
            assert!(tier.locate(marked, at(saved), false));
        }
    }
    assert!(tier.location(&first).is_some(), "the oldest entry of the main queue is not saved");
    assert!(
        (1..20).any(|age| tier.location(&key(&tier, &name(next - age))).is_none()),
        "young ones are saved"
    );
}

/// Found if a change of a key does not forget its location, or does not remove the mark of its entry.
#[test]
fn every_change_of_a_key_makes_its_copies_useless() {
    type Change = fn(&TestTier<'_>, &Key<'_>);
    let set: Change = |tier, key| put(tier, key, b"new");
    let confirm: Change = |tier, key| {
        let reserved = tier.reserve(key, &new(tier, b"new", &[]), Default::default()).expect("there is room");
        tier.announce(key, &reserved);
        assert_eq!(get(tier, key), Err(Miss::Fenced), "an announced key misses in both places");
        tier.confirm(key, reserved);
    };
    let confirm_removal: Change = |tier, key| {
        let reserved = tier.reserve_removal(key).expect("there is room");
        tier.announce(key, &reserved);
        tier.confirm(key, reserved);
    };
    // Without a stamp, `confirm_as` drops the new value and removes the key.
    let dropped_set: Change = |tier, key| {
        let reserved = tier.reserve(key, &new(tier, b"new", &[]), Default::default()).expect("there is room");
        tier.announce(key, &reserved);
        tier.confirm_as(key, reserved, None);
    };
    let lease: Change = |tier, key| {
        let Acquired::Lead(lease) = tier.acquire(key, FlightRequest::lease(owner(1), 50)) else {
            panic!("there is no other flight")
        };
        let reserved = tier.reserve(key, &new(tier, b"new", &[]), Default::default()).expect("there is room");
        assert_ne!(tier.publish_leased(key, reserved, lease.id), Stored::Dropped);
    };
    let changes: [(&str, Change); 8] = [
        ("set", set),
        ("confirmed set", confirm),
        ("confirmed removal", confirm_removal),
        ("set whose value is dropped", dropped_set),
        ("leased set", lease),
        ("removal", |tier, key| _ = tier.remove(key)),
        ("removal by mark", |tier, key| tier.remove_marked(&key.mark())),
        ("touch", |tier, key| _ = tier.touch(key, 50)),
    ];
    for (what, change) in changes {
        for in_memory in [true, false] {
            with_tier(|tier, _| {
                let key = key(tier, b"key");
                put(tier, &key, b"old");
                assert!(tier.locate(only(&mark(tier)), at(8), !in_memory));
                change(tier, &key);
                assert_eq!(tier.location(&key), None, "{what}, in memory: {in_memory}");
                assert_ne!(get(tier, &key), Err(Miss::Saved(at(8))), "{what}");
            });
        }
        // The same change between the copy and its location.
        with_tier(|tier, _| {
            let key = key(tier, b"key");
            put(tier, &key, b"old");
            let batch = mark(tier);
            change(tier, &key);
            assert!(!tier.locate(only(&batch), at(8), false), "{what}: a copy of the old value");
            assert_eq!(tier.location(&key), None, "{what}");
        });
    }
}

/// Found if `locate` compares the block and the stamp of an entry instead of its mark. Each put frees the blocks of the value that
/// it replaces, the memory has room for fewer than 4000 such entries, and the search for free blocks wraps around. So within 10 000
/// rounds, a new value gets the block of the marked entry more than once.
#[test]
fn a_value_at_the_block_of_the_old_one_is_not_taken_for_it() {
    with_tier(|tier, _| {
        let key = key(tier, b"key");
        put(tier, &key, b"old");
        let batch = mark(tier);
        let clock = tier.fences().now();
        for round in 0..10_000 {
            put(tier, &key, b"new");
            assert!(!tier.locate(only(&batch), at(8), false), "round {round}");
        }
        assert_eq!(tier.fences().now(), clock, "all values have the same stamp");
    });
}

/// Found if an announced change does not hide the saved value, or if the withdrawal of the change forgets the location.
#[test]
fn a_withdrawn_change_leaves_the_saved_value() {
    with_tier(|tier, _| {
        let key = key(tier, b"key");
        put(tier, &key, b"value");
        save(tier, 8);
        let reserved = tier.reserve_removal(&key).expect("there is room");
        tier.announce(&key, &reserved);
        assert_eq!(get(tier, &key), Err(Miss::Fenced));
        assert_eq!(tier.peek(&key, Stamp::LATEST), Err(Miss::Fenced));
        tier.withdraw(&key, reserved);
        assert_eq!(get(tier, &key), Err(Miss::Saved(at(8))));
    });
}

/// Found if `claim`, `acquire`, `add` or `incr` looks only at the memory to find out whether the key has a value.
#[test]
fn a_saved_value_counts_when_the_key_must_have_none() {
    with_tier(|tier, _| {
        let key = key(tier, b"key");
        put(tier, &key, b"value");
        save(tier, 8);
        let reader: Reader<'_> = Stamp::LATEST.into();
        assert_eq!(tier.claim(&key, Some(reader), owner(1)), Err(Unclaimed::Saved(at(8))));
        let request = FlightRequest::lease(owner(1), 50).unless_present(reader);
        assert_eq!(tier.acquire(&key, request), Acquired::Saved(at(8)));
        assert_eq!(tier.add(&key, 1), Some(Err(IncrError::Saved(at(8)))));
        assert_eq!(
            tier.incr(&key, 1, &value(&[], &[]), ReserveOptions::default()),
            Err(IncrError::Saved(at(8)))
        );
        let promoted = promote(tier, &key, b"value", 8);
        assert_eq!(promoted, Stored::New);
        assert_eq!(tier.claim(&key, Some(reader), owner(1)), Err(Unclaimed::Present));
        assert_eq!(tier.acquire(&key, request), Acquired::Present);
        assert_eq!(tier.add(&key, 1), Some(Err(IncrError::OtherKind(Kind(1)))));
    });
}

/// Promotes a value with these bytes, as the copy at a position in segment 3. The value was first stored at tick 1.
fn promote(tier: &TestTier<'_>, key: &Key<'_>, bytes: &[u8], position: u64) -> Stored {
    let reserved = tier.reserve(key, &new(tier, bytes, &[]), Default::default()).expect("there is room");
    tier.promote(key, reserved, at(position), 1)
}

/// Found if a promotion does not look at the location again, or replaces a newer value.
#[test]
fn a_value_is_promoted_only_while_its_location_stands() {
    with_tier(|tier, _| {
        let key = key(tier, b"key");
        put(tier, &key, b"old");
        save(tier, 8);
        put(tier, &key, b"new");
        assert_eq!(promote(tier, &key, b"old", 8), Stored::Dropped, "the key was set");
        assert_eq!(get(tier, &key), Ok(b"new".to_vec()));
        save(tier, 9);
        assert_eq!(promote(tier, &key, b"old", 8), Stored::Dropped, "another value was saved");
        assert_eq!(promote(tier, &key, b"new", 9), Stored::New);
        assert_eq!(promote(tier, &key, b"new", 9), Stored::Dropped, "it is in memory already");
        assert_eq!(get(tier, &key), Ok(b"new".to_vec()));
        assert!(mark(tier).marked().is_empty(), "a promoted value is saved already");
    });
}

/// Found if readers get the promoted value before the announced change is confirmed, or afterwards.
#[test]
fn a_promotion_goes_behind_an_announced_change() {
    with_tier(|tier, _| {
        let key = key(tier, b"key");
        put(tier, &key, b"old");
        save(tier, 8);
        let reserved =
            tier.reserve(&key, &new(tier, b"new", &[]), Default::default()).expect("there is room");
        tier.announce(&key, &reserved);
        assert_eq!(promote(tier, &key, b"old", 8), Stored::New);
        assert_eq!(get(tier, &key), Err(Miss::Fenced));
        tier.confirm(&key, reserved);
        assert_eq!(get(tier, &key), Ok(b"new".to_vec()));
    });
}

/// Found if a promotion voids the lease of its key, as a change does.
#[test]
fn flights_survive_a_promotion() {
    with_tier(|tier, _| {
        let key = key(tier, b"key");
        put(tier, &key, b"value");
        save(tier, 8);
        let Acquired::Lead(lease) = tier.acquire(&key, FlightRequest::lease(owner(1), 50)) else {
            panic!("there is no other flight")
        };
        assert_eq!(promote(tier, &key, b"value", 8), Stored::New);
        assert!(tier.lease(&key, lease.id).is_some(), "a promotion changes nothing");
    });
}

/// Found if the saver marks a counter, an entry of a space that it does not want, or an entry of another database.
#[test]
fn counters_and_values_that_are_not_admitted_stay_in_memory() {
    with_tier(|tier, _| {
        tier.incr(&key(tier, b"counter"), 1, &value(&[], &[]), ReserveOptions::default())
            .expect("it is stored");
        put(tier, &key(tier, b"key"), b"value");
        let mut batch = Batch::with_room(64).expect("there is memory");
        tier.mark_oldest(0, DATABASE, true, |space| space != 1, &mut batch);
        assert!(batch.marked().is_empty());
        tier.mark_oldest(0, DATABASE + 1, true, |_| true, &mut batch);
        assert!(batch.marked().is_empty(), "entries of another database");
        assert_eq!(mark(tier).marked().len(), 1, "the value, and not the counter");
    });
}

/// An entry may have a mark and no location: its location was pushed out of a full directory, or was never added. Found if every
/// search marks such an entry again, and not only a search with `again`. A saver with no other work would then save the same
/// entries again and again, and each new location would push another one out.
#[test]
fn an_entry_is_marked_again_only_if_the_saver_wants_it() {
    with_tier(|tier, _| {
        let key = key(tier, b"key");
        put(tier, &key, b"value");
        let mut batch = Batch::with_room(8).expect("there is memory");
        for (again, marks) in [(false, 1), (false, 0), (true, 1), (false, 0)] {
            tier.mark_oldest(0, DATABASE, again, |_| true, &mut batch);
            assert_eq!(batch.marked().len(), marks);
        }
        assert!(tier.touch(&key, 90), "the key has an entry, whose mark this removes");
        tier.mark_oldest(0, DATABASE, false, |_| true, &mut batch);
        assert_eq!(batch.marked().len(), 1);
    });
}

/// Found if another location of the shard is forgotten, too, or if a call with a shard that does not exist forgets a location.
#[test]
fn a_location_is_forgotten_by_its_shard_alone() {
    with_tier(|tier, _| {
        let [one, other] = [&b"one"[..], b"other"].map(|name| key(tier, name));
        put(tier, &one, b"value");
        save(tier, 1);
        put(tier, &other, b"value");
        save(tier, 2);
        tier.forget_in_shard(0, at(3));
        tier.forget_in_shard(1, at(1));
        assert_eq!([&one, &other].map(|key| tier.location(key)), [Some(at(1)), Some(at(2))]);
        tier.forget_in_shard(0, at(1));
        assert_eq!([&one, &other].map(|key| tier.location(key)), [None, Some(at(2))]);
    });
}

/// Found if the walk does not end, or skips most entries.
#[test]
fn a_walk_through_the_buckets_marks_every_entry_once() {
    with_tier(|tier, _| {
        let names: Vec<_> = (0..100_u8).map(|number| vec![b'k', number]).collect();
        names.iter().for_each(|name| put(tier, &key(tier, name), b"value"));
        let (mut batch, mut from, mut position) = (Batch::with_room(7).expect("there is memory"), 0, 0);
        let mut located = 0;
        while let Some(next) = tier.mark_bucket(from, DATABASE, |_| true, &mut batch) {
            assert!(next > from || !batch.marked().is_empty(), "it goes on");
            for marked in batch.marked() {
                position += 1;
                located += u32::from(tier.locate(marked, at(position), false));
            }
            // A full batch leaves entries of its last bucket to the next call.
            from = next;
        }
        assert!(located > 50, "{located} of 100 entries are saved; the directory has 64 locations");
    });
}

/// Returns whether a reader may get a saved value, or the reason why not. The value must be of space 1 of database 1.
fn judged(tier: &TestTier<'_>, saved: &SavedValue<'_>, reader: Reader<'_>) -> Result<(), Miss> {
    tier.judge_saved(key(tier, b"key").scope(), saved, reader)
}

/// A saved value must be refused in each case in which an entry with the same properties is refused: the reader has changed a
/// dependency or the space, a dependency is about to change or has changed, or the value has expired. A value that may be served
/// stale must be served exactly as long as such an entry.
#[test]
fn a_saved_value_is_judged_like_an_entry() {
    with_tier(|tier, host| {
        let (scope, fences) = (tier.scope(DATABASE, 1, 0), tier.fences());
        let [one, other] = [fences.tag(1 << 60), fences.tag(7 << 60)];
        let dependencies = [one, other];
        let meta = Meta {
            value_len: 5,
            kind: Kind(1),
            stamp: fences.now(),
            created: 1,
            expires: 10,
            cost: pg_cache_core::Cost::NONE,
            valid_at: u32::MAX,
        };
        let saved = SavedValue { key: b"k", meta, dependencies: &dependencies, stale_ok: None };
        let latest: Reader<'_> = Stamp::LATEST.into();
        assert_eq!(judged(tier, &saved, latest), Ok(()));
        assert_eq!(judged(tier, &saved, Reader { changed_fences: &[other], ..latest }), Err(Miss::Own));
        let space = scope.fences()[1];
        assert_eq!(judged(tier, &saved, Reader { changed_fences: &[space], ..latest }), Err(Miss::Own));
        fences.raise(other);
        assert_eq!(judged(tier, &saved, latest), Err(Miss::Fenced), "it is about to change");
        assert!(!tier.is_saved_useless(&scope, &saved), "the change may be withdrawn");
        fences.withdraw(other);
        assert_eq!(judged(tier, &saved, latest), Ok(()));
        host.now.set(10);
        assert_eq!(judged(tier, &saved, latest), Err(Miss::Expired));
        assert!(tier.is_saved_useless(&scope, &saved));
        let stale_ok = SavedValue { stale_ok: Some(StaleOk { ticks: 5, valid_at: 4 }), ..saved };
        let freshness = |saved| tier.judge_saved_stale(&scope, saved, latest);
        assert_eq!(freshness(&stale_ok), Ok(pg_cache_core::Freshness::Stale { until: 15 }));
        assert!(!tier.is_saved_useless(&scope, &stale_ok));
        host.now.set(8);
        fences.raise(one);
        fences.lower(one);
        assert_eq!(freshness(&stale_ok), Ok(pg_cache_core::Freshness::Stale { until: 9 }));
        assert_eq!(freshness(&saved), Err(Miss::Fenced));
        assert!(tier.is_saved_useless(&scope, &saved));
        host.now.set(9);
        assert_eq!(freshness(&stale_ok), Err(Miss::Fenced));
        assert!(tier.is_saved_useless(&scope, &stale_ok));
        host.now.set(2);
        let database = fences.reserved(Reserved::Database(DATABASE));
        fences.raise(database);
        fences.lower(database);
        assert_eq!(freshness(&stale_ok), Err(Miss::Fenced), "a flushed value is never served");
        assert!(tier.is_saved_useless(&scope, &stale_ok));
    });
}

/// Found if another location than the oldest is forgotten, or if one is forgotten although a slot is free.
#[test]
fn a_full_set_forgets_its_oldest_location() {
    with_tier(|tier, _| {
        // The hashes of all keys begin with the same three bits, which choose one of the eight sets. Their lowest bits, the
        // fingerprints, differ.
        let names: Vec<_> = (0..12_u8).map(|number| [b'k', number]).collect();
        let scope = tier.scope(DATABASE, 0, 0);
        let keys: Vec<_> =
            names.iter().enumerate().map(|(number, name)| same_set(scope, name, number)).collect();
        for (position, key) in (1..).zip(&keys) {
            put(tier, key, b"value");
            save(tier, position);
        }
        let found: Vec<_> = keys.iter().filter_map(|key| tier.location(key)).collect();
        assert_eq!(found, (5..=12).map(at).collect::<Vec<_>>());
        tier.forget_location(&keys[7], at(8));
        put(tier, &keys[0], b"value");
        save(tier, 13);
        let found: Vec<_> = keys.iter().filter_map(|key| tier.location(key)).collect();
        assert_eq!(found.len(), 8, "the free slot is used before a location is forgotten: {found:?}");
    });
}

/// Returns a key of the first set: the first three bits of its hash are 0. `Key::new` mixes the scope into a hash and spreads it,
/// so this does the same with one hash after another, and takes the suitable one with this number. The scope must have no role and
/// space 0.
fn same_set(scope: pg_cache_core::Scope, bytes: &[u8], number: usize) -> Key<'_> {
    let is_of_first_set = |hash: &u64| {
        let product = u128::from(*hash) * 0x9e37_79b9_7f4a_7c15;
        (product as u64 ^ (product >> 64) as u64) >> 61 == 0
    };
    let hash = (1..).filter(is_of_first_set).nth(number).unwrap_or_default();
    Key::new(scope, bytes, hash ^ u64::from(DATABASE).rotate_left(48)).expect("a legal key")
}

/// Before the saver empties a segment, it may move copies that readers have asked for to another segment. Found if a location in
/// the emptied segment stays, if a location in another segment is forgotten, or if `move_location` replaces a location that is not
/// in the directory any more.
#[test]
fn a_segment_is_forgotten_as_a_whole_and_copies_that_were_asked_for_move_on() {
    with_tier(|tier, _| {
        let names: Vec<_> = (0..6_u8).map(|number| [b'k', number]).collect();
        let keys: Vec<_> = names.iter().map(|name| key(tier, name)).collect();
        let location =
            |number: u64| Location::new(1 + (number % 2) as u16, number).expect("a legal location");
        for (number, key) in (1..).zip(&keys) {
            put(tier, key, b"value");
            assert!(tier.locate(only(&mark(tier)), location(number), true));
        }
        tier.note_asked(&keys[1], location(2));
        tier.note_asked(&keys[0], location(1));
        let mut asked = Vec::new();
        tier.each_location(0, |location, was_asked| asked.extend(was_asked.then_some(location)));
        asked.sort_by_key(|location| location.position());
        assert_eq!(asked, [location(1), location(2)]);
        assert!(tier.move_location(&keys[1], location(2), at(9)));
        assert!(!tier.move_location(&keys[1], location(2), at(10)), "its location has changed");
        assert_eq!(tier.forget_segment(1), 2, "the copy at position 2 is in another segment now");
        assert_eq!(tier.location(&keys[1]), Some(at(9)));
        assert_eq!(keys.iter().filter(|key| tier.location(key).is_some()).count(), 4);
    });
}

/// A segment has 10 bits and a position 33 bits. A location must not be 0, because 0 is an empty slot of the directory.
#[test]
fn locations_that_cannot_be_are_refused() {
    assert!(Location::new(1023, 1).is_some() && Location::new(1024, 1).is_none());
    assert!(Location::new(0, 0).is_none(), "an empty word");
    let last = Location::new(1023, (1 << 33) - 1).expect("a legal location");
    assert_eq!((last.segment(), last.position()), (1023, (1 << 33) - 1));
    assert!(Location::new(0, 1 << 33).is_none());
}

/// Found if a location is stored although the tier has no directory.
#[test]
fn a_tier_without_a_directory_saves_nothing() {
    let memory = memory(64 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    let key = Key::new(tier.scope(DATABASE, 1, 0), b"key", 7).expect("a legal key");
    tier.put(&key, &value(b"value", &[])).expect("it is stored");
    let mut batch = Batch::with_room(8).expect("there is memory");
    (0..tier.shards()).for_each(|shard| {
        tier.mark_oldest(shard, DATABASE, true, |_| true, &mut batch);
        batch.marked().iter().for_each(|marked| assert!(!tier.locate(marked, at(1), false)));
    });
    assert!(!tier.has_directory());
    assert_eq!(tier.location(&key), None);
    tier.each_location(0, |location, _| panic!("{location:?}"));
}

/// A region that is revived after a restart of the server keeps its locations, except those of keys with an announced change:
/// nothing tells whether the transaction of that change has committed.
#[test]
fn a_revived_region_forgets_saved_values_that_were_about_to_change() {
    let memory = memory(256 * 1024);
    let host = TestHost::default();
    host.now.set(1);
    let sizes = Sizes { shards: 1, locations: 64, ..SIZES };
    let tier = Tier::format(Region::of_words(&memory), sizes, &host, 0).expect("it fits");
    let (kept, changing) = (key(&tier, b"kept"), key(&tier, b"changing"));
    for (position, key) in [(8, &kept), (9, &changing)] {
        put(&tier, key, b"value");
        save(&tier, position);
    }
    let reserved = tier.reserve_removal(&changing).expect("there is room");
    // The change is neither confirmed nor withdrawn, as if the server had stopped.
    tier.announce(&changing, &reserved);
    let tier = Tier::revive(Region::of_words(&memory), sizes, &host, []).expect("it is sound");
    assert_eq!(get(&tier, &key(&tier, b"kept")), Err(Miss::Saved(at(8))));
    assert_eq!(get(&tier, &key(&tier, b"changing")), Err(Miss::Absent));
}
