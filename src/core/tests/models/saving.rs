//! Models of saved values: the *saver*, one of the backends, copies an entry to a place outside of the region and adds the
//! *location* of the copy to the directory (`tier/directory.rs`). Others change the key or read it meanwhile.
//!
//! A copy never changes and its place is never used again here, so it is just a number. `tests/protocol/table/` has the model of
//! the whole protocol, with places that are used again. `main.rs` explains `READER`, `WRITERS` and the results.
//!
//! There is no model of [`note_asked`](pg_cache_core::Tier::note_asked) beside a removal. The removal empties the location's word
//! with a plain store, and the compare-and-exchange of `note_asked` must not bring the location back. By the memory model, it
//! cannot: its store directly follows, in the order of the stores to the word, the store that it has read. Loom does not know this
//! rule. It allows an order in which a plain store of another thread comes between the two.

use super::world::{Image, LoomTier, explore, get, put, remove, settled, together, with_key};
use super::{READER, WRITERS};
use loom::sync::atomic::Ordering::SeqCst;
use pg_cache_core::{Batch, Location, Miss};

/// Returns the location of a copy with this version.
fn at(version: u64) -> Location {
    Location::new(1, version).expect("a legal location")
}

/// Returns a tier with a directory and version 1 of key 1.
fn in_memory() -> Image {
    Image::with_directory(|tier| put(tier, 1, 1))
}

/// Returns a tier in which version 1 of key 1 has left the memory, because it was saved.
fn in_a_table() -> Image {
    Image::with_directory(|tier| {
        put(tier, 1, 1);
        assert_eq!(save(tier, true), Some(1));
        assert_eq!(get(tier, 1), Err(Miss::Saved(at(1))));
    })
}

/// Saves the entry of key 1. With `leave`, it leaves the memory. Returns the version of the copy, or None if there was no entry, or
/// if the copy came too late.
fn save(tier: &LoomTier<'_>, leave: bool) -> Option<u64> {
    let mut batch = Batch::with_room(1).expect("there is memory");
    tier.mark_oldest(0, 1, true, |_| true, &mut batch);
    let marked = batch.marked().first()?;
    let mut bytes = [0; 16];
    assert_eq!(marked.meta().value_len, bytes.len());
    tier.read_marked(marked, &mut [0; 8], &mut [], &mut [], &mut bytes);
    // The copy may be torn. Only `locate` tells whether it is good.
    let [low, high] = [0, 8].map(|from| bytes[from..from + 8].to_vec()).map(number);
    let version = low & u64::from(u32::MAX);
    let is_located = tier.locate(marked, at(version.max(1)), leave);
    assert!(!is_located || low == high, "a torn copy has a location: {bytes:x?}");
    is_located.then_some(version)
}

/// Returns the number that eight bytes stand for.
fn number(bytes: Vec<u8>) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

/// Reads key 1 as the store does: first the memory, and then the copy, if its location still stands. Returns the version and
/// whether it came from a copy.
fn read(tier: &LoomTier<'_>) -> Result<(u64, bool), Miss> {
    match get(tier, 1) {
        Err(Miss::Saved(found)) => match with_key(tier, 1, |key| tier.location(key)) == Some(found) {
            true => Ok((found.position(), true)),
            false => Err(Miss::Absent),
        },
        other => other.map(|version| (version, false)),
    }
}

/// A reader that begins after a set must not get the copy of the old value. A result is a pair: the source when the reader begins,
/// which is 2 after the set, and the answer of [`read`], which has the version and whether it came from a copy. So
/// `(2, Ok((1, true)))` is forbidden.
#[test]
fn a_saved_value_is_not_found_after_its_key_was_set() {
    let expected = ["(1, Err(Absent))", "(1, Ok((1, true)))", "(1, Ok((2, false)))", "(2, Ok((2, false)))"];
    explore("saved and set", &in_a_table(), READER, &expected, |world| {
        together(
            world,
            [
                Box::new(|tier, world| {
                    put(tier, 1, 2);
                    world.source.store(2, SeqCst);
                }),
                Box::new(|tier, world| {
                    let begun = world.source.load(SeqCst);
                    world.ledger.note((begun, read(tier)));
                }),
            ],
        );
        let tier = world.tier(0);
        assert_eq!(with_key(&tier, 1, |key| tier.location(key)), None);
        settled(&tier);
    });
}

/// The same with a removal: the key has no entry, so forgetting the location is the whole change.
#[test]
fn a_saved_value_is_not_found_after_its_key_was_removed() {
    let expected = ["(1, Err(Absent))", "(1, Ok((1, true)))", "(2, Err(Absent))"];
    explore("saved and removed", &in_a_table(), READER, &expected, |world| {
        together(
            world,
            [
                Box::new(|tier, world| {
                    remove(tier, 1);
                    world.source.store(2, SeqCst);
                }),
                Box::new(|tier, world| {
                    let begun = world.source.load(SeqCst);
                    world.ledger.note((begun, read(tier)));
                }),
            ],
        );
        settled(&world.tier(0));
    });
}

/// An entry leaves the memory when it is saved. A reader must find the value in one of the two places.
#[test]
fn a_value_that_leaves_the_memory_is_never_missing() {
    let expected = ["Ok((1, false))", "Ok((1, true))"];
    explore("leaves the memory", &in_memory(), READER, &expected, |world| {
        together(
            world,
            [
                Box::new(|tier, _| assert_eq!(save(tier, true), Some(1))),
                Box::new(|tier, world| world.ledger.note(read(tier))),
            ],
        );
        settled(&world.tier(0));
    });
}

/// A key is set while its entry is saved. A location must lead to a copy of the new value, or there must be none.
#[test]
fn a_location_leads_to_the_value_that_was_set_last() {
    let expected = ["None", "Some(2)"];
    explore("set while it is saved", &in_memory(), WRITERS, &expected, |world| {
        together(
            world,
            [
                Box::new(|tier, _| {
                    save(tier, false);
                }),
                Box::new(|tier, _| put(tier, 1, 2)),
            ],
        );
        let tier = world.tier(0);
        world.ledger.note(with_key(&tier, 1, |key| tier.location(key)).map(Location::position));
        assert_eq!(get(&tier, 1), Ok(2));
        settled(&tier);
    });
}
