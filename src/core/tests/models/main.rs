//! Tests the tier itself while a few operations are interleaved, with the values that the memory model allows a load to return.
//!
//! This file is compiled with `--cfg loom` only. Then the words of the region are loom's, and a relaxed load may return any of the
//! last seven stores to its word that no fence, acquire or lock rules out. So these models test the memory orderings of versions
//! and zones in `tier/shard.rs`, on the code that runs in production, not on a copy of it.
//!
//! `world.rs` has the parts that the models share, `journal.rs` the models of the journal, and `saving.rs` those of saved values.
//!
//! Each test lists the results that must occur. It fails if another result occurs, or if one of them never does. The threads note
//! the results in `ledger`. The word `source` stands for the data that the values are computed from: a change sets it from 1 to 2.
//!
//! Loom has no total order of sequentially consistent accesses: it treats them as acquire and release. The models of
//! fences here need nothing more, because a reader that relies on a change has read the change from the source. These
//! models do not cover the protocols that need one order over clock, fence and snapshot.
//!
//! An *announced* change of a key hides the key's value until the change is confirmed (`tier/publishing.rs`). A *space* is a set of
//! keys in one database. A *fence* is a word in shared memory that says when a dependency of entries last changed. A *zone* has a
//! version by which a reader learns that an entry died.
#![cfg(loom)]

mod journal;
mod saving;
mod world;

use loom::sync::atomic::Ordering::SeqCst;
use pg_cache_core::{AnnouncedPattern, Glob, Miss, Owner, Reservation, Stamp};
use world::{
    Image, LoomTier, NEWCOMER, Preemptions, Work, World, explore, get, get_stale, peek, put, remove, reserve,
    settled, together, with_key,
};

// How often loom may interrupt a thread, in the short run (`make test`) and in the long one (`PG_CACHE_TEST_LONG`): see
// `Preemptions` in `world.rs`. More interruptions mean more orders to try, and so more time.

/// A model with a reader needs no interruptions in the short run: the values that a load may return already place the reader
/// anywhere in the writer's work.
const READER: Preemptions = [Some(0), Some(1)];
/// With reused blocks or two changes there are so many stores to choose from that one more interruption takes minutes
/// or longer.
const READER_OF_MUCH: Preemptions = [Some(0), Some(0)];
/// The lock makes writers take turns. That leaves so few orders that the search needs no limit.
const WRITERS: Preemptions = [None, None];
/// Writers of one space also meet at the space's cell, which the lock does not protect. In models with many other
/// steps, that leaves too many orders for the short run.
const WRITERS_OF_MUCH: Preemptions = [Some(3), None];
/// A fill and a change share more than the lock: the clock, the fence and the source. So there are many orders, and the search
/// needs a limit.
const FILL: Preemptions = [Some(1), Some(2)];

/// The first value of a key, in blocks that were never used. No zone moves, so the reader depends on the version
/// alone.
#[test]
fn a_new_value_is_absent_or_whole() {
    let image = Image::of(|_| ());
    explore("new value", &image, READER, &["Err(Absent)", "Ok(1)"], |world| {
        together(
            world,
            [Box::new(|tier, _| put(tier, 1, 1)), Box::new(|tier, world| world.ledger.note(get(tier, 1)))],
        );
        settled(&world.tier(0));
    });
}

/// The key has a value at every moment, so a reader must find one, the old or the new.
#[test]
fn a_replaced_value_is_never_missing() {
    let image = Image::of(|tier| put(tier, 1, 1));
    explore("replaced value", &image, READER, &["Ok(1)", "Ok(2)"], |world| {
        together(
            world,
            [Box::new(|tier, _| put(tier, 1, 2)), Box::new(|tier, world| world.ledger.note(get(tier, 1)))],
        );
        assert_eq!(get(&world.tier(0), 1), Ok(2));
        settled(&world.tier(0));
    });
}

/// The tier is full. A new entry evicts the entry that is being read, and is written into the same blocks. The reader must get the
/// whole old value or none.
#[test]
fn an_evicted_value_is_whole_or_absent() {
    let (image, victim) = Image::full();
    explore("evicted value", &image, READER_OF_MUCH, &["Err(Absent)", "Ok(1)"], move |world| {
        together(
            world,
            [
                Box::new(|tier, _| put(tier, NEWCOMER, 1)),
                Box::new(move |tier, world| world.ledger.note(get(tier, victim))),
            ],
        );
        assert_eq!(get(&world.tier(0), NEWCOMER), Ok(1));
        settled(&world.tier(0));
    });
}

/// One backend frees the blocks and another takes them. The stores that a reader must see are ordered through both holds of the
/// lock. The reader must get the whole old value or none.
#[test]
fn a_removed_value_is_whole_or_absent() {
    let (image, victim) = Image::full();
    explore("removed value", &image, READER_OF_MUCH, &["Err(Absent)", "Ok(1)"], move |world| {
        together(
            world,
            [
                Box::new(move |tier, _| {
                    remove(tier, victim);
                }),
                Box::new(|tier, _| put(tier, NEWCOMER, 1)),
                Box::new(move |tier, world| world.ledger.note(get(tier, victim))),
            ],
        );
        assert_eq!(get(&world.tier(0), NEWCOMER), Ok(1));
        settled(&world.tier(0));
    });
}

/// Two backends set the same key. Either value may stay, and no block may be lost.
#[test]
fn two_backends_that_set_a_key_leave_one_value() {
    let image = Image::of(|tier| put(tier, 1, 1));
    explore("put and put", &image, WRITERS, &["Ok(2)", "Ok(3)"], |world| {
        together(world, [Box::new(|tier, _| put(tier, 1, 2)), Box::new(|tier, _| put(tier, 1, 3))]);
        world.ledger.note(get(&world.tier(0), 1));
        settled(&world.tier(0));
    });
}

/// One backend sets a key that has a value, and another removes it. The removal must find a value, and the result
/// is the new value or nothing.
#[test]
fn setting_and_removing_leave_the_value_or_nothing() {
    let image = Image::of(|tier| put(tier, 1, 1));
    explore("put and remove", &image, WRITERS, &["Err(Absent)", "Ok(2)"], |world| {
        together(
            world,
            [
                Box::new(|tier, _| put(tier, 1, 2)),
                Box::new(|tier, _| assert!(remove(tier, 1), "there was a value at every moment")),
            ],
        );
        world.ledger.note(get(&world.tier(0), 1));
        settled(&world.tier(0));
    });
}

/// Both backends need room and there is none. In a tier this small, the second backend may evict the first one's entry. At least
/// one of the new values must be there at the end.
#[test]
fn two_backends_that_evict_leave_a_sound_tier() {
    let (image, _) = Image::full();
    let expected = ["(Err(Absent), Ok(1))", "(Ok(1), Err(Absent))", "(Ok(1), Ok(1))"];
    explore("evict and evict", &image, WRITERS, &expected, |world| {
        together(
            world,
            [Box::new(|tier, _| put(tier, NEWCOMER, 1)), Box::new(|tier, _| put(tier, NEWCOMER + 1, 1))],
        );
        let tier = world.tier(0);
        world.ledger.note((get(&tier, NEWCOMER), get(&tier, NEWCOMER + 1)));
        settled(&tier);
    });
}

/// A value that was read from the source before a change, and is stored during the change or after it, must never be
/// served to a session that has seen the change. Both the writer, during and after the change, and a reader at the
/// end check this: `Ok(1)`, the old value, is not among the results.
#[test]
fn a_fill_during_a_change_is_not_served_after_it() {
    let image = Image::of(|_| ());
    let expected = ["Err(Absent)", "Err(Fenced)", "Ok(2)"];
    explore("fill and change", &image, FILL, &expected, |world| {
        together(
            world,
            [
                Box::new(|tier, world| {
                    let fences = tier.fences();
                    fences.raise(fences.tag(0));
                    world.source.store(2, SeqCst);
                    world.ledger.note(peek(tier, 1));
                    fences.lower(fences.tag(0));
                    world.ledger.note(peek(tier, 1));
                }),
                Box::new(|tier, world| {
                    let stamp = tier.fences().now();
                    let reservation = reserve(tier, 1, world.source.load(SeqCst), stamp);
                    with_key(tier, 1, |key| tier.publish(key, reservation));
                }),
            ],
        );
        world.ledger.note(get(&world.tier(0), 1));
        settled(&world.tier(0));
    });
}

/// A change that is withdrawn invalidates nothing. A value that was filled meanwhile is a hit as soon as the fence is
/// withdrawn.
#[test]
fn a_fill_during_a_change_that_is_given_up_stays() {
    let image = Image::of(|_| ());
    explore("fill and abort", &image, WRITERS, &["Ok(1)"], |world| {
        together(
            world,
            [
                Box::new(|tier, _| {
                    let fences = tier.fences();
                    fences.raise(fences.tag(0));
                    fences.withdraw(fences.tag(0));
                }),
                Box::new(|tier, _| put(tier, 1, 1)),
            ],
        );
        world.ledger.note(get(&world.tier(0), 1));
        settled(&world.tier(0));
    });
}

/// A transaction announces a key, commits, and confirms. A reader that has seen the commit must not read the old value, and no
/// reader may read an uncommitted value. A result is the source before the read, the answer, and the source after the read. So the
/// results `(2, Ok(1), 2)` and `(1, Ok(2), 1)` are forbidden.
#[test]
fn an_announced_key_is_not_read_as_it_was() {
    let image = Image::of(|tier| put(tier, 1, 1));
    let expected = [
        "(1, Err(Fenced), 1)",
        "(1, Err(Fenced), 2)",
        "(1, Ok(1), 1)",
        "(1, Ok(1), 2)",
        "(1, Ok(2), 2)",
        "(2, Err(Fenced), 2)",
        "(2, Ok(2), 2)",
    ];
    explore("announce", &image, READER_OF_MUCH, &expected, |world| {
        let reservation = reserve(&world.tier(0), 1, 2, Stamp::VOID);
        together(
            world,
            [
                Box::new(|tier, world| set(tier, world, reservation)),
                Box::new(|tier, world| {
                    let floor = world.source.load(SeqCst);
                    let found = get(tier, 1);
                    world.ledger.note((floor, found, world.source.load(SeqCst)));
                }),
            ],
        );
        assert_eq!(get(&world.tier(0), 1), Ok(2));
        settled(&world.tier(0));
    });
}

/// A transaction sets the key with an announcement, and another backend removes the key meanwhile. The result is the new value or
/// nothing. The transaction must never read the old value after its own commit.
#[test]
fn an_announced_key_is_removed_before_or_after() {
    let image = Image::of(|tier| put(tier, 1, 1));
    explore("announce and remove", &image, WRITERS_OF_MUCH, &["Err(Absent)", "Ok(2)"], |world| {
        let reservation = reserve(&world.tier(0), 1, 2, Stamp::VOID);
        together(
            world,
            [
                Box::new(|tier, world| {
                    set(tier, world, reservation);
                    assert_ne!(get(tier, 1), Ok(1), "after its own commit");
                }),
                Box::new(|tier, _| {
                    remove(tier, 1);
                }),
            ],
        );
        world.ledger.note(get(&world.tier(0), 1));
        settled(&world.tier(0));
    });
}

/// Two transactions try to be the first to set a key. One of the two values must be there at the end, in any order of the steps: if
/// both claims were refused, or if both values were dropped, the key would have none.
#[test]
fn one_of_two_transactions_that_claim_a_key_sets_it() {
    let image = Image::of(|_| ());
    explore("claim and claim", &image, WRITERS, &["Ok(1)", "Ok(2)"], |world| {
        let claim = |version| -> Work {
            Box::new(move |tier, _| {
                let owner = Owner { session: version as u32, role: 0 };
                let Ok(claim) = with_key(tier, 1, |key| tier.claim(key, Some(Stamp::LATEST.into()), owner))
                else {
                    return;
                };
                let reservation = reserve(tier, 1, version, Stamp::VOID);
                with_key(tier, 1, |key| tier.publish_leased(key, reservation, claim));
            })
        };
        together(world, [claim(1), claim(2)]);
        let tier = world.tier(0);
        world.ledger.note(get(&tier, 1));
        settled(&tier);
    });
}

/// A backend that sets the key meanwhile counts as later. The claimed value must never replace its value.
#[test]
fn a_value_set_after_a_claim_stays() {
    let image = Image::of(|_| ());
    explore("claim and put", &image, WRITERS, &["Ok(2)"], |world| {
        let tier = world.tier(0);
        let claim = with_key(&tier, 1, |key| {
            tier.claim(key, Some(Stamp::LATEST.into()), Owner { session: 1, role: 0 })
        });
        let claim = claim.expect("it has no value");
        let reservation = reserve(&tier, 1, 1, Stamp::VOID);
        together(
            world,
            [
                Box::new(move |tier, _| {
                    with_key(tier, 1, |key| {
                        tier.announce(key, &reservation);
                        tier.confirm_claimed(key, reservation, claim, Some(Stamp::VOID));
                    });
                }),
                Box::new(|tier, _| put(tier, 1, 2)),
            ],
        );
        world.ledger.note(get(&tier, 1));
        settled(&tier);
    });
}

/// A value that may be served stale must be whole or absent, while a backend removes it and reuses its blocks. A reader first looks
/// for a valid value and then for a stale one. If the entry goes in between, the answer is that of the first look, `Err(Expired)`.
#[test]
fn a_stale_value_is_whole_or_absent() {
    let (image, victim) = Image::full_of_stale();
    let expected = ["Err(Absent)", "Err(Expired)", "Ok(1)"];
    explore("stale value", &image, READER_OF_MUCH, &expected, move |world| {
        together(
            world,
            [
                Box::new(move |tier, _| {
                    remove(tier, victim);
                    put(tier, NEWCOMER, 1);
                }),
                Box::new(move |tier, world| world.ledger.note(get_stale(tier, victim))),
            ],
        );
        assert_eq!(get(&world.tier(0), NEWCOMER), Ok(1));
    });
}

/// Announces a pattern that matches the keys that begin with a byte.
fn announce_pattern(tier: &LoomTier<'_>, first: u8) -> AnnouncedPattern {
    let glob = [first, b'*'];
    let glob = Glob::new(&glob).expect("it is a pattern");
    with_key(tier, 1, |key| tier.announce_pattern(key.scope(), glob)).expect("there is room")
}

/// A transaction changes the source of a value and invalidates a pattern that matches the key. A reader that has seen the change in
/// the source must not get the value. A result is the source before the read, and the answer. So `(2, Ok(1))` is forbidden.
#[test]
fn a_pattern_that_is_visible_is_never_overlooked() {
    let image = Image::with_patterns(|tier| put(tier, 1, 1));
    let expected = ["(1, Err(Fenced))", "(1, Ok(1))", "(2, Err(Fenced))"];
    explore("pattern", &image, READER_OF_MUCH, &expected, |world| {
        together(
            world,
            [
                Box::new(|tier, world| {
                    let announced = announce_pattern(tier, 1);
                    world.source.store(2, SeqCst);
                    tier.confirm_pattern(announced, tier.fences().draw());
                }),
                Box::new(|tier, world| {
                    let seen = world.source.load(SeqCst);
                    world.ledger.note((seen, get(tier, 1)));
                }),
            ],
        );
        assert_eq!(get(&world.tier(0), 1), Err(Miss::Fenced));
    });
}

/// A pattern takes the only slot from the pattern that has invalidated the key. A reader must find the old pattern, or the floor:
/// the number of that pattern in the fence of the space (`patterns/mod.rs`).
#[test]
fn a_retired_pattern_is_never_overlooked() {
    let image = Image::with_patterns(|tier| {
        put(tier, 1, 1);
        let announced = announce_pattern(tier, 1);
        tier.confirm_pattern(announced, tier.fences().draw());
    });
    explore("retired pattern", &image, READER_OF_MUCH, &["Err(Fenced)"], |world| {
        together(
            world,
            [
                Box::new(|tier, _| {
                    let announced = announce_pattern(tier, 2);
                    tier.confirm_pattern(announced, tier.fences().draw());
                }),
                Box::new(|tier, world| world.ledger.note(get(tier, 1))),
            ],
        );
    });
}

/// The commit of a transaction that sets the key: announces the reservation, changes the source from 1 to 2, and confirms.
fn set(tier: &LoomTier<'_>, world: &World, reservation: Reservation) {
    with_key(tier, 1, |key| tier.announce(key, &reservation));
    world.source.store(2, SeqCst);
    with_key(tier, 1, |key| tier.confirm(key, reservation));
}

/// A transaction announces a key and aborts. No reader may ever read the announced value.
#[test]
fn an_announced_value_of_an_aborted_transaction_is_never_read() {
    let image = Image::of(|tier| put(tier, 1, 1));
    explore("withdraw", &image, READER_OF_MUCH, &["Err(Fenced)", "Ok(1)"], |world| {
        let reservation = reserve(&world.tier(0), 1, 2, Stamp::VOID);
        together(
            world,
            [
                Box::new(|tier, _| {
                    with_key(tier, 1, |key| tier.announce(key, &reservation));
                    with_key(tier, 1, |key| tier.withdraw(key, reservation));
                }),
                Box::new(|tier, world| world.ledger.note(get(tier, 1))),
            ],
        );
        assert_eq!(get(&world.tier(0), 1), Ok(1));
        settled(&world.tier(0));
    });
}

/// A transaction announces a removal and confirms it. No reader may take the announcement for an empty value: that would give
/// `Ok(0)`.
#[test]
fn an_announced_removal_is_never_read() {
    let image = Image::of(|tier| put(tier, 1, 1));
    explore("removal", &image, READER_OF_MUCH, &["Err(Absent)", "Err(Fenced)", "Ok(1)"], |world| {
        let reservation =
            with_key(&world.tier(0), 1, |key| world.tier(0).reserve_removal(key)).expect("there is room");
        together(
            world,
            [
                Box::new(|tier, _| {
                    with_key(tier, 1, |key| tier.announce(key, &reservation));
                    with_key(tier, 1, |key| tier.confirm(key, reservation));
                }),
                Box::new(|tier, world| world.ledger.note(peek(tier, 1))),
            ],
        );
        assert_eq!(peek(&world.tier(0), 1), Err(Miss::Absent));
        settled(&world.tier(0));
    });
}
