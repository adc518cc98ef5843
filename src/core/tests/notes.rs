//! Tests of notes, the bytes that are stored beside a value. A reader of the value gets them only if its buffer asks for them
//! (`Buffer::WANTS_NOTE`), which none does here. A saver (`Tier::read_marked`) and an operator (`Tier::inspect`) always get them. A
//! *tier* is a cache in memory that several processes share.

use pg_cache_core::testing::{SIZES, TestHost, memory, value};
use pg_cache_core::{Batch, Key, Kind, NOTE_BYTES_MAX, NewValue, Refusal, Region, StaleOk, Stamp, Tier};

type TestTier<'t> = Tier<'t, &'t TestHost>;

/// Runs a test on a new tier, and checks the tier afterwards.
fn with_tier(test: impl FnOnce(&TestTier<'_>)) {
    let memory = memory(512 << 10);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    test(&tier);
    assert_eq!(tier.check(), Vec::<String>::new());
}

/// Returns a key. The number is in both halves of the hash, of which one selects the shard and the other the bucket.
fn key<'k>(tier: &TestTier<'_>, bytes: &'k [u8], hash: u64) -> Key<'k> {
    Key::new(tier.scope(1, 1, 0), bytes, hash << 40 | hash).expect("a legal key")
}

/// Stores a value with a note.
fn put(tier: &TestTier<'_>, key: &Key<'_>, note: &[u8], bytes: &[u8], stale_ok: Option<StaleOk>) {
    let new = NewValue { note, ..value(bytes, &[]) };
    let reserved = tier.reserve(key, &new, stale_ok.into()).expect("it fits");
    tier.publish(key, reserved);
}

/// Asserts that readers of the value get the value, and that an operator and a saver also get the note.
fn assert_found(tier: &TestTier<'_>, key: &Key<'_>, note: &[u8], bytes: &[u8]) {
    let mut found = Vec::new();
    let meta = tier.get(key, Stamp::LATEST, &mut found).expect("a hit");
    assert_eq!((meta.value_len, &found[..]), (bytes.len(), bytes));
    assert_eq!(tier.peek(key, Stamp::LATEST).expect("it is there").value_len, bytes.len());
    let inspected = (0..).map_while(|bucket| tier.inspect(bucket).expect("there is memory")).flatten();
    let of_key: Vec<_> = inspected.filter(|entry| entry.key == key.bytes()).collect();
    let [entry] = &of_key[..] else { panic!("one entry of the key: {of_key:?}") };
    assert_eq!((&entry.note[..], entry.meta.value_len), (note, bytes.len()));
    let mut batch = Batch::with_room(1000).expect("there is memory");
    let mut from = Some(0);
    let mut was_saved = false;
    while let Some(next) = from {
        from = tier.mark_bucket(next, 1, |_| true, &mut batch);
        for marked in batch.marked() {
            let (mut name, mut value) = (vec![0; marked.key_len()], vec![0; marked.meta().value_len]);
            let mut copy = vec![0; marked.note_len()];
            tier.read_marked(marked, &mut name, &mut [], &mut copy, &mut value);
            if name == key.bytes() {
                assert_eq!((&copy[..], &value[..]), (note, bytes));
                was_saved = true;
            }
        }
    }
    assert!(was_saved);
}

/// With notes and values of many lengths, also of none, each reader must get exactly its part. A note has two bytes of length
/// before it. In an entry that may be served stale, these begin at a word, so the notes of 5 to 7 bytes put the value before, at
/// and behind the end of a word.
#[test]
fn a_reader_gets_the_value_without_the_note() {
    with_tier(|tier| {
        for (at, stale_ok) in [None, Some(StaleOk { ticks: 100, valid_at: 1 })].into_iter().enumerate() {
            for note in [0, 1, 5, 6, 7, 8, 300] {
                for length in [0, 1, 7, 8, 9, 100] {
                    let (note, bytes) = (vec![1; note], vec![2; length]);
                    let key = key(tier, b"key", 5 + at as u64);
                    put(tier, &key, &note, &bytes, stale_ok);
                    assert_found(tier, &key, &note, &bytes);
                    let mut stale = Vec::new();
                    tier.get_stale(&key, Stamp::LATEST, &mut stale).expect("a hit");
                    assert_eq!(stale, bytes);
                    tier.remove(&key);
                }
            }
        }
    });
}

/// Every second small entry is removed before a large value is stored, so that there are many short runs of free blocks. If the
/// value takes such runs, the length of the note, the note and the value may cross the ends of runs. Each reader must get exactly
/// its part all the same. With the notes of 40 to 48 bytes, the value begins at each byte of a word.
#[test]
fn the_note_of_a_chained_entry_is_found() {
    with_tier(|tier| {
        let names: Vec<String> = (0..1500).map(|number| format!("k{number}")).collect();
        let small: Vec<Key<'_>> =
            // The factor spreads consecutive numbers over the buckets; any odd number of this size would do.
            names.iter().zip(1..).map(|(name, hash)| key(tier, name.as_bytes(), hash * 7919)).collect();
        small.iter().for_each(|key| put(tier, key, &[], &[3; 20], None));
        small.iter().step_by(2).for_each(|key| {
            tier.remove(key);
        });
        let large = key(tier, b"large", 11);
        for note in [1, 40, 41, 42, 43, 44, 45, 46, 47, 48, 1000] {
            let (note, bytes) = (vec![4; note], vec![5; 4000]);
            put(tier, &large, &note, &bytes, None);
            assert_found(tier, &large, &note, &bytes);
        }
    });
}

/// A note of the greatest length must be stored, and a longer one refused: the length of a note is stored in two bytes.
#[test]
fn a_note_has_a_limit() {
    with_tier(|tier| {
        let key = key(tier, b"key", 9);
        let note = vec![6; NOTE_BYTES_MAX + 1];
        let reserve = |note: &[u8]| {
            let new = NewValue { note, ..value(b"value", &[]) };
            tier.reserve(&key, &new, Default::default()).map(|reserved| tier.cancel(reserved))
        };
        assert_eq!(reserve(&note), Err(Refusal::TooLarge));
        assert_eq!(reserve(&note[1..]), Ok(()));
    });
}

/// A counter is read and written as one word, whose place must not depend on a note. A value that becomes a counter keeps its note.
#[test]
fn a_counter_has_its_note_behind_its_number() {
    with_tier(|tier| {
        let longest = vec![7; NOTE_BYTES_MAX];
        for (hash, note) in (9..).zip([&b""[..], b"n", b"a note", &longest]) {
            for stale_ok in [None, Some(StaleOk { ticks: 100, valid_at: 1 })] {
                let counted = key(tier, b"counter", hash);
                let one = 1_i64.to_ne_bytes();
                let new = NewValue { kind: Kind::COUNTER, note, ..value(&one, &[]) };
                let reserved = tier.reserve(&counted, &new, stale_ok.into()).expect("it fits");
                tier.publish(&counted, reserved);
                assert_eq!(tier.add(&counted, 2), Some(Ok(3)));
                assert_counter(tier, &counted, note, 3);
                let text = key(tier, b"text", hash);
                put(tier, &text, note, b"41", stale_ok);
                let made = tier.to_counter(&text, (Kind(1), b"41"), 41, |new, stale_ok| {
                    tier.reserve(&text, new, stale_ok.into())
                });
                assert_eq!(made, Ok(true));
                assert_eq!(tier.add(&text, 1), Some(Ok(42)));
                assert_counter(tier, &text, note, 42);
                [counted, text].iter().for_each(|key| _ = tier.remove(key));
            }
        }
        // A counter that is no number has no word, and loses its note.
        let wrong = key(tier, b"wrong", 8);
        tier.put(&wrong, &NewValue { kind: Kind::COUNTER, note: b"note", ..value(b"short", &[]) })
            .expect("it is stored");
        let mut found = Vec::new();
        tier.get(&wrong, Stamp::LATEST, &mut found).expect("a hit");
        assert_eq!((&found[..], note_of(tier, &wrong)), (&b"short"[..], Vec::new()));
    });
}

fn assert_counter(tier: &TestTier<'_>, key: &Key<'_>, note: &[u8], number: i64) {
    let mut found = Vec::new();
    let meta = tier.get(key, Stamp::LATEST, &mut found).expect("a hit");
    assert_eq!((meta.value_len, found), (8, number.to_ne_bytes().to_vec()));
    assert_eq!(note_of(tier, key), note);
}

/// Returns the note that an operator sees.
fn note_of(tier: &TestTier<'_>, key: &Key<'_>) -> Vec<u8> {
    let inspected = (0..).map_while(|bucket| tier.inspect(bucket).expect("there is memory")).flatten();
    let mut of_key = inspected.filter(|entry| entry.key == key.bytes());
    of_key.next().expect("the key has an entry").note
}
