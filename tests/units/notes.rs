//! Tests of notes (`src/store/note.rs`). The *note* of an entry is the bytes beside its value. It has the names of the entry's
//! tags. The note of a query result also has *facts*: the relations that the query has read, other relations on whose definitions
//! the result depends, some flags, and the text of the query. In spaces with the option `keep_warm`, the facts have *terms*: the
//! arguments and the time to live of the call, by which a background worker can run the query again.
//!
//! A note has at most `NOTE_BYTES_MAX` bytes. If not everything fits, relations are left out and the text is cut off.

use crate::store::kind::{self, BYTEA, JSONB, LEFT_OUT, NOTHING, RESULT, ROWS, TEXT, VARIES};
use crate::store::note::{self, Facts, Form, RelationBytes, Terms};
use pg_cache_core::{Kind, NOTE_BYTES_MAX};

/// The most tags of an entry, each as long as a tag may be.
const LONG_TAGS: [&[u8]; 32] = [&[b't'; 256]; 32];

/// Returns the facts of a result that has read and depends on these relations, whose query has this text.
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
    }
}

/// Returns so many different OIDs of relations.
fn oids(count: u32) -> Vec<RelationBytes> {
    (0..count).map(|oid| (16384 + oid).to_ne_bytes()).collect()
}

/// Returns the tags in the note of an entry of this kind.
fn tags_of(kind: Kind, note: &[u8]) -> Vec<&[u8]> {
    note::tags(kind, note).collect()
}

/// Fails if tags, facts or terms that are read from a note of a query result differ from those that were written into it.
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
        let given = Facts { terms, ..facts(&read, &defined, "SELECT $1") };
        let mut note = note::of_result(&[b"a"], &given).expect("there is memory");
        assert_eq!(note::facts(ROWS, &note), Some(given));
        assert!(note::has_own_terms(ROWS, &note));
        // A value that was saved in a table comes back with its note. Other roles may have written to the table, so its terms must
        // be marked as not its own. Fails if something else in the note changes.
        note::disown_terms(ROWS, &mut note);
        assert_eq!(note::facts(ROWS, &note), Some(given));
        assert!(!note::has_own_terms(ROWS, &note));
        assert_eq!(tags_of(ROWS, &note), [b"a"]);
    }
    let empty = facts(&[], &[], "");
    let note = note::of_result(&[], &empty).expect("there is memory");
    assert_eq!(note::facts(RESULT, &note), Some(empty));
    assert!(!note::has_own_terms(RESULT, &note));
}

/// The note of a value that a caller has set, or of a counter, is only its tags, without a number of tags before them. Fails if
/// such a note loses a tag or has another length than `note::len` says, or if a note without bytes has a tag. Also fails if bytes
/// that are the note of a query result give facts although the entry is of one of these kinds.
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

/// A long text is cut off at the end of a character, and the note says so. Fails if the note is longer than `NOTE_BYTES_MAX`, if it
/// has room for another character, if half a character remains, or if something else in the note is lost.
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

/// Fails if a text is cut although the note with it has exactly `NOTE_BYTES_MAX` bytes, or if a text with one byte more is not cut.
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

/// The tags come first, then the relations that were read, then the other relations, then the text. If the first relations fill the
/// note, the rest is left out. Fails if the note becomes too long, if it has other relations than the first ones, if it does not
/// say that the text was cut off, or if the tags are lost.
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

/// Reads damaged notes as notes of each kind: notes that end early, notes with one byte changed, and notes of 4096 equal bytes.
/// Fails if the reader panics or does not end, if it returns more bytes than the note has, or if an entry that no query has made
/// has facts.
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

/// A copy of a value outside of the server learns of changes from the journal of changes. The journal does not name changes of
/// definitions (of tables, views and functions), on which query results also depend. So a query result must never leave the server.
/// Fails if the kind of a query result may leave.
#[test]
fn results_of_queries_never_leave_the_server() {
    for kind in (0..=u8::MAX).map(Kind) {
        assert!(!(kind::is_of_query(kind) && kind::may_leave(kind)), "{kind:?}");
        // A compressed result becomes a result of another kind when it is decompressed. That kind must be one of query results, and
        // must not be a compressed one.
        let behind = kind::decompressed(kind);
        assert!(
            behind.is_none_or(|behind| kind::is_of_query(behind) && kind::decompressed(behind).is_none())
        );
    }
}
