//! Tests of notes (`src/store/note.rs`). The *note* of an entry has its tags. That of a query result also has *facts*: the
//! relations that the query has read, and its text.

use crate::store::kind::{self, BYTEA, JSONB, LEFT_OUT, NOTHING, RESULT, ROWS, TEXT, VARIES};
use crate::store::note::{self, Facts, Form, RelationBytes, Terms};
use pg_cache_core::{Kind, NOTE_BYTES_MAX};

/// The most tags of an entry, each as long as a tag may be.
const LONG_TAGS: [&[u8]; 32] = [&[b't'; 256]; 32];

fn facts<'a>(read: &'a [RelationBytes], defined: &'a [RelationBytes], text: &'a str) -> Facts<'a> {
    Facts {
        rows: 30,
        form: Form::Json,
        clock: true,
        names_more: false,
        settings: false,
        environment: 0x0102_0304_0506_0708,
        role: 16384,
        read,
        defined,
        text: text.as_bytes(),
        is_cut: false,
        terms: None,
        has_own_terms: false,
    }
}

fn oids(count: u32) -> Vec<RelationBytes> {
    (0..count).map(|oid| (16384 + oid).to_ne_bytes()).collect()
}

fn tags_of(kind: Kind, note: &[u8]) -> Vec<&[u8]> {
    note::tags(kind, note).collect()
}

/// Tags and facts come out as they were put in. Fails if a part is left out or has another place when it is read.
#[test]
fn a_note_returns_what_was_put_in() {
    let (read, defined) = (oids(3), oids(2));
    let tags_of_test: [&[&[u8]]; 4] = [&[], &[b"a"], &[b"orders", b"pages"], &LONG_TAGS];
    for tags in tags_of_test {
        for form in [Form::Rows, Form::Json, Form::Value] {
            for (clock, settings) in [(false, false), (true, false), (false, true), (true, true)] {
                let given = Facts { form, clock, settings, ..facts(&read, &defined, "SELECT 'é'") };
                let note = note::of_result(tags, &given).expect("there is memory");
                for kind in [NOTHING, RESULT, ROWS, VARIES, LEFT_OUT] {
                    assert_eq!(tags_of(kind, &note), tags);
                    assert_eq!(note::facts(kind, &note), Some(given));
                }
            }
        }
    }
    for ttl_ms in [None, Some(0), Some(60_000)] {
        let terms = Some(Terms { arguments: b"[1]", ttl_ms });
        let given = Facts { terms, has_own_terms: true, ..facts(&read, &defined, "SELECT $1") };
        let mut note = note::of_result(&[b"a"], &given).expect("there is memory");
        assert_eq!(note::facts(ROWS, &note), Some(given));
        // The terms of a note that was read from a table do not count. Nothing else changes.
        note::disown_terms(ROWS, &mut note);
        assert_eq!(note::facts(ROWS, &note), Some(Facts { has_own_terms: false, ..given }));
        assert_eq!(tags_of(ROWS, &note), [b"a"]);
    }
    let empty = facts(&[], &[], "");
    let note = note::of_result(&[], &empty).expect("there is memory");
    assert_eq!(note::facts(RESULT, &note), Some(empty));
}

/// Other entries have tags only, also if the bytes could be a note with facts. Fails if the number of tags is read from them.
#[test]
fn a_value_that_was_set_has_tags_only() {
    for kind in [JSONB, TEXT, BYTEA, Kind::COUNTER] {
        let tags: [&[u8]; 2] = [b"ab", b"c"];
        let note = note::of_tags(&tags).expect("there is memory");
        assert_eq!(note.len(), note::len(&tags));
        assert_eq!(tags_of(kind, &note), tags);
        assert_eq!(note::facts(kind, &note), None);
        assert_eq!(tags_of(kind, &[]), [] as [&[u8]; 0]);
        let of_result = note::of_result(&tags, &facts(&[], &[], "")).expect("there is memory");
        assert_eq!(note::facts(kind, &of_result), None);
    }
}

/// A long text is cut off at the end of a character, and the note says so. Fails if the note is longer than an entry takes, if
/// there is room for another character, or if half a character remains.
#[test]
fn a_long_text_is_cut_at_a_character() {
    let relations = oids(100);
    for letter in ["x", "é", "€", "😀"] {
        for tags in [&[] as &[&[u8]], &LONG_TAGS] {
            for shift in ["", "x", "xx", "xxx"] {
                let text = shift.to_owned() + &letter.repeat(NOTE_BYTES_MAX);
                let given = facts(&relations, &relations, &text);
                let note = note::of_result(tags, &given).expect("there is memory");
                assert!(note.len() <= NOTE_BYTES_MAX && note.len() + letter.len() > NOTE_BYTES_MAX);
                let found = note::facts(ROWS, &note).expect("it is whole");
                let cut = std::str::from_utf8(found.text).expect("it ends with a character");
                assert!(text.starts_with(cut));
                assert_eq!(found, Facts { text: found.text, is_cut: true, ..given });
                assert_eq!(tags_of(ROWS, &note), tags);
            }
        }
    }
}

/// A text that fits exactly is not cut. Fails if the room is counted wrongly.
#[test]
fn a_text_that_just_fits_stays_whole() {
    let rest = note::of_result(&[b"tag"], &facts(&oids(5), &[], "")).expect("there is memory").len();
    let relations = oids(5);
    let text = "x".repeat(NOTE_BYTES_MAX - rest);
    let given = facts(&relations, &[], &text);
    let note = note::of_result(&[b"tag"], &given).expect("there is memory");
    assert_eq!((note.len(), note::facts(ROWS, &note)), (NOTE_BYTES_MAX, Some(given)));
    let longer = text + "x";
    let note = note::of_result(&[b"tag"], &facts(&relations, &[], &longer)).expect("there is memory");
    assert!(note.len() == NOTE_BYTES_MAX && note::facts(ROWS, &note).is_some_and(|facts| facts.is_cut));
}

/// More relations than fit are left out. Fails if the note becomes too long, or if the tags suffer.
#[test]
fn relations_without_room_are_left_out() {
    let many = oids(100_000);
    let note = note::of_result(&LONG_TAGS, &facts(&many, &many, "SELECT 1")).expect("there is memory");
    assert!(note.len() <= NOTE_BYTES_MAX);
    let found = note::facts(ROWS, &note).expect("it is whole");
    assert!(found.read.len() > 1000 && many.starts_with(found.read));
    assert_eq!((found.defined, found.is_cut), (&[] as &[RelationBytes], true));
    assert_eq!(tags_of(ROWS, &note), LONG_TAGS);
}

/// Reading a damaged note of any kind ends, and never panics: notes that end early, and notes with any byte changed.
#[test]
fn damaged_notes_are_read_without_panic() {
    let (read, defined) = (oids(3), oids(2));
    let tags: [&[u8]; 3] = [b"a", b"long enough", &[b'x'; 256]];
    let whole = note::of_result(&tags, &facts(&read, &defined, "SELECT 1")).expect("there is memory");
    let read_all = |note: &[u8]| {
        for kind in (0..=u8::MAX).map(Kind) {
            let tags: usize = note::tags(kind, note).map(<[u8]>::len).sum();
            assert!(tags <= note.len());
            if let Some(facts) = note::facts(kind, note) {
                assert!(kind::is_of_query(kind));
                assert!(4 * (facts.read.len() + facts.defined.len()) + facts.text.len() <= note.len());
            }
        }
    };
    for end in 0..=whole.len() {
        read_all(&whole[..end]);
    }
    for at in 0..whole.len() {
        for byte in [0, 1, 2, 31, 127, 255, whole[at] ^ 1, whole[at] ^ 128] {
            let mut damaged = whole.clone();
            damaged[at] = byte;
            read_all(&damaged);
        }
    }
    read_all(&[255; 4096]);
    read_all(&[0; 4096]);
}

/// Results of queries depend on definitions, too, so no copy of them may leave. Fails if a new kind is not among those of queries.
#[test]
fn results_of_queries_never_leave_the_server() {
    for kind in (0..=u8::MAX).map(Kind) {
        assert!(!(kind::is_of_query(kind) && kind::may_leave(kind)), "{kind:?}");
        let behind = kind::decompressed(kind);
        assert!(
            behind.is_none_or(|behind| kind::is_of_query(behind) && kind::decompressed(behind).is_none())
        );
    }
}
