//! Tests of invalidations by a pattern: which keys they remove, when a slot is retired, and when an entry is renewed.
//!
//! Each pattern is kept in a *slot* of shared memory until it is *retired* for a newer one. A *space* is a set of keys in one
//! database. An *announced* change of a key hides the key's value until the change is confirmed (`tier/publishing.rs`). To *renew*
//! an entry that no pattern matches is to give it a later stamp, so that it is not compared with the same patterns again. The
//! *floor* of a space is its fence, which gets the number of a retired pattern (`patterns/mod.rs`).

use crate::fence::{Reserved, Stamp};
use crate::glob::Glob;
use crate::key::{Key, Scope};
use crate::layout::Sizes;
use crate::patterns::AnnouncedPattern;
use crate::reader::{InvalidBecause, Miss};
use crate::region::Region;
use crate::testing::{SIZES, TestHost, memory, value};
use crate::tier::Tier;
use crate::value::NewValue;

const SLOTS: u32 = 4;

fn with_tier(test: impl FnOnce(&Tier<'_, &TestHost>)) {
    let words = memory(64 << 10);
    let host = TestHost::default();
    let sizes = Sizes { reserved_fences: 8, patterns: SLOTS, shards: 2, ..SIZES };
    let tier = Tier::format(Region::of_words(&words), sizes, &host, 0).expect("it fits");
    test(&tier);
    assert_eq!(tier.check(), Vec::<String>::new());
}

fn with_key<T>(scope: Scope, bytes: &[u8], use_key: impl FnOnce(&Key<'_>) -> T) -> T {
    let hash =
        bytes.iter().fold(7_u64, |hash, byte| hash.rotate_left(9) ^ u64::from(*byte)).wrapping_mul(0x9e37);
    use_key(&Key::new(scope, bytes, hash).expect("a legal key"))
}

fn put(tier: &Tier<'_, &TestHost>, scope: Scope, key: &[u8]) {
    let value = NewValue { stamp: tier.fences().now(), ..value(b"v", &[]) };
    with_key(scope, key, |key| tier.put(key, &value)).expect("it is stored");
}

fn get(tier: &Tier<'_, &TestHost>, scope: Scope, key: &[u8]) -> Result<u64, Miss> {
    with_key(scope, key, |key| tier.get(key, Stamp::LATEST, &mut Vec::new())).map(|meta| meta.stamp.as_u64())
}

fn announce(tier: &Tier<'_, &TestHost>, scope: Scope, pattern: &str) -> AnnouncedPattern {
    tier.announce_pattern(&scope, Glob::new(pattern.as_bytes()).expect("it is a pattern"))
        .expect("there is room")
}

fn invalidate(tier: &Tier<'_, &TestHost>, scope: Scope, pattern: &str) {
    let announced = announce(tier, scope, pattern);
    tier.confirm_pattern(announced, tier.fences().draw());
}

/// A pattern removes the keys that it matches from the announcement on, and no others. A pattern that is withdrawn leaves all keys.
#[test]
fn a_pattern_removes_what_it_matches() {
    with_tier(|tier| {
        let scope = tier.scope(1, 1, 0);
        put(tier, scope, b"user:42:name");
        put(tier, scope, b"user:43:name");
        let announced = announce(tier, scope, "user:42:*");
        assert_eq!(get(tier, scope, b"user:42:name"), Err(Miss::Fenced), "it is about to be invalidated");
        let why = with_key(scope, b"user:42:name", |key| tier.why_fenced(key, Stamp::LATEST));
        assert_eq!(why, Some(InvalidBecause::Pattern));
        assert!(get(tier, scope, b"user:43:name").is_ok());
        tier.withdraw_pattern(announced);
        assert!(get(tier, scope, b"user:42:name").is_ok());
        invalidate(tier, scope, "user:42:*");
        assert_eq!(get(tier, scope, b"user:42:name"), Err(Miss::Fenced));
        assert!(get(tier, scope, b"user:43:name").is_ok());
        put(tier, scope, b"user:42:name");
        assert!(get(tier, scope, b"user:42:name").is_ok(), "it was set after the pattern");
        tier.sweep(1000);
        assert!(get(tier, scope, b"user:42:name").is_ok());
    });
}

/// A pattern concerns one space and one role. Fails if either is not compared.
#[test]
fn a_pattern_is_of_one_scope() {
    with_tier(|tier| {
        let scopes = [(1, 1, 0), (1, 2, 0), (2, 1, 0), (1, 1, 7)]
            .map(|(database, space, role)| tier.scope(database, space, role));
        scopes.iter().for_each(|scope| put(tier, *scope, b"k"));
        invalidate(tier, scopes[3], "*");
        let hits = scopes.map(|scope| get(tier, scope, b"k").is_ok());
        assert_eq!(hits, [true, true, true, false]);
        invalidate(tier, scopes[0], "*");
        let hits = scopes.map(|scope| get(tier, scope, b"k").is_ok());
        assert_eq!(hits, [false, true, true, false]);
    });
}

/// An entry that no pattern matches is compared once: the read renews it. Retired patterns invalidate entries from before them, and
/// no later ones.
#[test]
fn an_entry_is_compared_once_and_outlives_no_retired_pattern() {
    with_tier(|tier| {
        let scope = tier.scope(1, 1, 0);
        put(tier, scope, b"read");
        for number in 0..SLOTS / 2 {
            invalidate(tier, scope, &format!("x{number}"));
        }
        assert_eq!(get(tier, scope, b"read"), Ok(0), "the entry was compared, and the copy is as it was");
        assert_eq!(get(tier, scope, b"read"), Ok(u64::from(SLOTS / 2)), "it has the stamp of the comparison");
        let space = tier.fences().reserved(Reserved::Space { database: 1, space: 1 });
        assert!(!tier.fences().has_changed_since(space, Stamp::VOID), "no slot was retired yet");
        let announced: Vec<_> = (0..SLOTS / 2).map(|_| announce(tier, scope, "y*")).collect();
        announced.into_iter().for_each(|pattern| tier.withdraw_pattern(pattern));
        assert!(get(tier, scope, b"read").is_ok());
        // Each new pattern sweeps a part of the entries when more than half of the slots are taken: too small a part for four
        // slots.
        for number in 0..3 * SLOTS {
            invalidate(tier, scope, &format!("z{number}"));
        }
        assert!(tier.fences().has_changed_since(space, Stamp::VOID), "slots were retired");
        assert_eq!(
            get(tier, scope, b"read"),
            Err(Miss::Fenced),
            "four slots are retired before a sweep gets to the entry"
        );
        put(tier, scope, b"new");
        assert!(get(tier, scope, b"new").is_ok());
    });
}

/// While all slots are announced, there is no room for another pattern.
#[test]
fn announced_patterns_are_not_retired() {
    with_tier(|tier| {
        let scope = tier.scope(1, 1, 0);
        let announced: Vec<_> = (0..SLOTS).map(|_| announce(tier, scope, "a")).collect();
        let glob = Glob::new(b"b").expect("it is a pattern");
        assert_eq!(tier.announce_pattern(&scope, glob), None);
        announced.into_iter().for_each(|pattern| tier.withdraw_pattern(pattern));
        invalidate(tier, scope, "b");
    });
}

/// A pattern takes the slot of the space with the most patterns. Fails if the oldest pattern of all is retired.
#[test]
fn a_greedy_space_retires_its_own_patterns() {
    with_tier(|tier| {
        let [modest, greedy] = [1, 2].map(|space| tier.scope(1, space, 0));
        put(tier, modest, b"k");
        invalidate(tier, modest, "x");
        for _ in 0..3 * SLOTS {
            invalidate(tier, greedy, "y");
        }
        let floor = tier.fences().reserved(Reserved::Space { database: 1, space: 1 });
        assert!(!tier.fences().has_changed_since(floor, Stamp::VOID), "the modest space lost its pattern");
        assert!(get(tier, modest, b"k").is_ok());
    });
}

/// The sweep removes what a pattern matches and renews the rest.
#[test]
fn the_sweep_removes_and_renews() {
    with_tier(|tier| {
        let scope = tier.scope(1, 1, 0);
        for number in 0..50 {
            put(tier, scope, format!("{}:{number}", if number % 2 == 0 { "even" } else { "odd" }).as_bytes());
        }
        invalidate(tier, scope, "odd:*");
        assert_eq!(tier.sweep(100_000), 25);
        assert_eq!(get(tier, scope, b"even:2"), Ok(1), "it was renewed");
        assert_eq!(get(tier, scope, b"odd:1"), Err(Miss::Absent));
    });
}

/// There is no room for a pattern if the space has no cache line of its own, or if the region has no slots.
#[test]
fn there_may_be_no_room() {
    let words = memory(64 << 10);
    let host = TestHost::default();
    for sizes in [Sizes { reserved_fences: 0, patterns: 4, ..SIZES }, Sizes { patterns: 0, ..SIZES }] {
        let tier = Tier::format(Region::of_words(&words), sizes, &host, 0).expect("it fits");
        let glob = Glob::new(b"*").expect("it is a pattern");
        assert_eq!(tier.announce_pattern(&tier.scope(1, 1, 0), glob), None);
    }
}

/// Comparisons with many slow patterns end: the key counts as matched. The time of an honest comparison is far below the limit.
#[test]
fn slow_patterns_cost_a_miss() {
    with_tier(|tier| {
        let scope = tier.scope(1, 1, 0);
        let slow = format!("*{}b", "a".repeat(500));
        let key = [b'a'; 1024];
        put(tier, scope, &key);
        invalidate(tier, scope, &slow);
        assert!(get(tier, scope, &key).is_ok());
        put(tier, scope, b"other");
        for _ in 1..SLOTS {
            invalidate(tier, scope, &slow);
        }
        assert!(get(tier, scope, b"other").is_ok());
    });
}

/// The comparison of leading bytes never rejects a key that the pattern matches. Compares with the pattern itself, for many pairs.
#[test]
fn prefixes_agree_with_patterns() {
    let texts = ["", "a", "ab", "abcdefg", "abcdefgh", "abcdefghi", "b", "abx", "*", "?", "\\", "abcdef"];
    let patterns =
        ["*", "a*", "ab?*", "abcdefg*", "abcdefgh*", "abcdefghi", "\\a*", "ab\\*", "abcdef?", "a", "?b*"];
    for pattern in patterns {
        let glob = Glob::new(pattern.as_bytes()).expect("it is a pattern");
        for key in texts.iter().filter(|key| !key.is_empty()) {
            with_tier(|tier| {
                let scope = tier.scope(1, 1, 0);
                put(tier, scope, key.as_bytes());
                invalidate(tier, scope, pattern);
                let is_hit = get(tier, scope, key.as_bytes()).is_ok();
                assert_eq!(is_hit, !glob.matches(key.as_bytes()), "{pattern} and {key}");
            });
        }
    }
}
