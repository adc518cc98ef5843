//! Compares answers of the tier with the model.
//!
//! A *tier* is a cache in memory that several processes share. A *stamp* is a number of the clock of changes, which each committed
//! change increments. A *space* is a set of keys in one database. A *note* is bytes that are stored beside a value. A *claim* is
//! the right to set a key that has no value. A *stale* value is not valid any more but may still be served for some time.

use super::action::SPACES;
use super::keys::{class, content, with_key};
use super::model::{Known, Model, NOTED_EVERY, may_forget};
use pg_cache_core::testing::TestHost;
use pg_cache_core::{
    Cost, Counter, FenceId, Freshness, Kind, Location, Meta, Miss, NewValue, Refusal, Stamp, Stored, Tier,
};
use std::time::Duration;

/// Returns the number of entries and the bytes of each space below `SPACES` that was used, except this space.
pub fn innocents(tier: &Tier<'_, &TestHost>, space: u8) -> Vec<(u64, u64)> {
    let others = (0..SPACES).filter(|other| *other != space);
    others
        .filter_map(|other| tier.space_stats(1, other.into()))
        .map(|stats| (stats.entries, stats.bytes()))
        .collect()
}

/// Asserts that the space has no entry left that a quota could evict: only counters, and memory that is reserved or announced.
pub fn nothing_is_left_to_evict(tier: &Tier<'_, &TestHost>, space: u8) {
    for entry in (0..).map_while(|bucket| tier.inspect(bucket).expect("there is memory")).flatten() {
        let spared = entry.space != u32::from(space) || entry.meta.kind == Kind::COUNTER;
        assert!(spared, "{entry:?} could have gone");
    }
}

/// Returns a new value of a key, as of now on the model's clock. Values of other moments or with other expiries nearly always
/// differ from it. `tags` is the set of its tags.
pub fn new_value(model: &Model, key: u8, size: usize, tags: u8, expires: u32) -> Known {
    let salt = model.now.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(expires);
    let value = content(key, size, salt);
    Known {
        key,
        value,
        kind: Kind(key % 4),
        expires,
        stamp: model.now,
        tags,
        stale_ok: None,
        killed: false,
        alone: false,
    }
}

/// Returns a value of the model as the tier takes it. `dependencies` must be the fences of its tags.
pub fn as_value<'v>(known: &'v Known, dependencies: &'v [FenceId]) -> NewValue<'v> {
    // The model's clock and the tier's clock move together, so the numbers of stamps are equal.
    NewValue {
        bytes: &known.value,
        note: note_of(known.kind, &known.value),
        kind: known.kind,
        stamp: stamp(known.stamp),
        expires: known.expires,
        cost: Cost::of(Duration::from_micros(7)),
        dependencies,
    }
}

/// Returns the note of a value: its first 0 to 12 bytes, so that a note of another value is noticed. A counter has none.
pub fn note_of(kind: Kind, value: &[u8]) -> &[u8] {
    match kind {
        Kind::COUNTER => &[],
        _ => &value[..value.len() % 13],
    }
}

/// Returns the tier's stamp for a moment on the model's clock. Both clocks start at 0 and are moved by the same
/// actions.
pub fn stamp(moment: u64) -> Stamp {
    Stamp::from_u64(moment)
}

/// Notes in the model that a store has ended with `stored`, and asserts that this was a possible result. `absent` says that the
/// value was stored under a claim, which is granted only if the key has no value.
pub fn published(
    tier: &Tier<'_, &TestHost>,
    model: &mut Model,
    key: u8,
    known: Known,
    stored: Stored,
    absent: bool,
    now: u32,
) {
    let valid = model.entries.get(&key).is_some_and(|known| model.verdict(known, now).is_ok());
    let claimed = model.flights.get(&class(key)).is_some_and(|flight| flight.deadline.is_none());
    if stored != Stored::Dropped {
        model.count(key, Counter::Stored);
    }
    match (stored, absent) {
        // A refused claim stores nothing.
        (Stored::Dropped, _) => {}
        // The claim has replaced the flight of a session that was computing the value.
        (_, true) => assert!(model.flights.remove(&class(key)).is_none() || !claimed, "it is claimed"),
        (_, false) => model.changed(key),
    }
    match stored {
        Stored::New => assert!(!valid || may_forget(tier, model, key), "a valid entry was overlooked"),
        Stored::Replaced => assert!(valid && !absent, "nothing was there to replace"),
        Stored::Dropped => {
            assert!(
                absent && (valid || claimed || model.changing.contains(&key)),
                "dropped without a reason"
            );
            return;
        }
    }
    model.put(tier, key, known);
}

/// Counts a refusal, and asserts that the tier may refuse the value. An entry of the harness takes far less than 600 bytes beside
/// its value: its key has at most 151. The tier may always be full: the model does not know how fragmented its blocks are.
pub fn expect_refusal(
    tier: &Tier<'_, &TestHost>,
    model: &mut Model,
    key: u8,
    known: &Known,
    refusal: Refusal,
) {
    model.count_refusal(key, refusal);
    match refusal {
        Refusal::TooLarge => assert!(known.value.len() + 600 > tier.entry_bytes_max(), "it is not too large"),
        Refusal::Full => {}
        other => panic!("refused: {other:?}"),
    }
}

/// Reads a key and compares the answer with the model's. The tier must never serve what the model would not. If it serves less, it
/// must have had a reason to forget the value.
pub fn expect(tier: &Tier<'_, &TestHost>, model: &mut Model, key: u8, now: u32) {
    let mut value = Vec::new();
    let answer = match with_key(tier, key, |key| tier.get(key, Stamp::LATEST, &mut value)) {
        Err(Miss::Saved(location)) => {
            let answer = get_saved(tier, model, (key, now), location, &mut value, false);
            answer.map(|(meta, _)| meta)
        }
        answer => {
            model.count_read(key, answer.map(|_| ()));
            answer
        }
    };
    let verdict = model.expected(key, now);
    match answer {
        Ok(meta) => {
            let known = verdict.expect("served what the model would not");
            assert_eq!(value, known.value, "another value");
            assert_eq!((meta.kind, meta.expires), (known.kind, known.expires));
            // A comparison with patterns renews the stamp.
            assert!((known.stamp..=model.now).contains(&meta.stamp.as_u64()), "stamp {:?}", meta.stamp);
            assert!(meta.stamp.as_u64() == known.stamp || model.patterns.has_any(), "renewed for nothing");
            note_valid(model, key, now);
        }
        Err(Miss::Absent) => {
            // The entry was swept or evicted, or never existed.
            assert!(verdict.is_err() || may_forget(tier, model, key), "forgot without a reason");
        }
        Err(miss) => {
            let verdict = verdict.map(|_| ());
            assert!(verdict == Err(miss) || may_forget(tier, model, key), "{miss:?} instead of {verdict:?}");
        }
    }
}

/// Reads a saved value as the server does (`src/store/table/reading.rs`), and counts the read. A copy of another key, or one that
/// no reader will get again, loses its location. `stale` says whether the reader accepts a stale value.
fn get_saved(
    tier: &Tier<'_, &TestHost>,
    model: &mut Model,
    (key, now): (u8, u32),
    location: Location,
    value: &mut Vec<u8>,
    stale: bool,
) -> Result<(Meta, Freshness), Miss> {
    let copy = model.saver.copy(location);
    let answer = with_key(tier, key, |name| {
        assert_eq!(tier.location(name), Some(location), "it stood a moment ago");
        if !copy.is_of(key) {
            tier.forget_location(name, location);
            return Err(Miss::Absent);
        }
        if tier.is_saved_useless(name.scope(), &copy.saved()) {
            tier.forget_location(name, location);
        }
        tier.note_asked(name, location);
        match stale {
            false => tier.judge_saved(name.scope(), &copy.saved(), Stamp::LATEST).map(|()| Freshness::Valid),
            true => tier.judge_saved_stale(name.scope(), &copy.saved(), Stamp::LATEST),
        }
    });
    *value = copy.value.clone();
    let outcome = answer.map(|freshness| (copy.meta, freshness));
    // A stale hit counts as the miss that a reader gets if it does not accept stale values.
    let counted = match outcome {
        Ok((_, Freshness::Valid)) => Ok(()),
        Ok((_, Freshness::Stale { .. })) => model.expected(key, now).map(|_| ()),
        Err(miss) => Err(miss),
    };
    with_key(tier, key, |name| match counted {
        Ok(()) => tier.count_for_space(name.scope(), Counter::HitSaved, 1),
        Err(miss) => {
            tier.count_miss(name.scope(), miss);
            model.count_read(key, Err(miss));
        }
    });
    outcome
}

/// Notes in the model that a reader found the value valid, if the last such note is old enough, as the tier does it.
pub fn note_valid(model: &mut Model, key: u8, now: u32) {
    if let Some(Known { stale_ok: Some(stale_ok), .. }) = model.entries.get_mut(&key)
        && now - stale_ok.valid_at >= NOTED_EVERY
    {
        stale_ok.valid_at = now;
    }
}

/// Reads a key, accepting a stale value, and compares the answer with the model's.
pub fn expect_stale(tier: &Tier<'_, &TestHost>, model: &mut Model, key: u8, now: u32) {
    let mut value = Vec::new();
    let answer = match with_key(tier, key, |key| tier.get_stale(key, Stamp::LATEST, &mut value)) {
        Err(Miss::Saved(location)) => get_saved(tier, model, (key, now), location, &mut value, true),
        answer => {
            // A stale hit counts as a miss: the one that a reader gets if it does not accept stale values.
            let counted = match answer {
                Ok((_, Freshness::Valid)) => Ok(()),
                Ok((_, Freshness::Stale { .. })) => model.expected(key, now).map(|_| ()),
                Err(miss) => Err(miss),
            };
            model.count_read(key, counted);
            answer
        }
    };
    match (answer, model.expected_stale(key, now)) {
        (Ok((_, freshness)), Ok((known, expected))) => {
            assert_eq!((freshness, &value), (expected, &known.value));
            if freshness == Freshness::Valid {
                note_valid(model, key, now);
            }
        }
        (Ok((_, freshness)), Err(miss)) => panic!("{freshness:?} instead of {miss:?}"),
        (Err(Miss::Absent), expected) => {
            assert!(expected.is_err() || may_forget(tier, model, key), "forgot what may still be served");
        }
        (Err(miss), expected) => {
            let expected = expected.map(|(_, freshness)| freshness);
            assert!(
                expected == Err(miss) || may_forget(tier, model, key),
                "{miss:?} instead of {expected:?}"
            );
        }
    }
}

/// Returns the number of a counter.
pub fn counter(known: &Known) -> i64 {
    i64::from_ne_bytes(known.value.clone().try_into().expect("a counter has eight bytes"))
}
