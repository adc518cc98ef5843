//! Tests of the journal with one thread, for the rules in `mod.rs`. The *journal* is a ring in shared memory whose *records* name
//! what has changed. A *life* of it begins when it is first used, and ends when the memory is formatted, or revived with a record
//! that is not whole. The caller chooses the *base*, from which the numbers of the life count, above all numbers of earlier lives.
//! A *batch* is the records of one call of `append`.
//! `Journal::reserve` stands for a writer that was interrupted before it wrote.

use super::line::{Record, What};
use super::reading::Lost;
use super::ring::Journal;
use crate::key::KEY_BYTES_MAX;
use crate::layout::Sizes;
use crate::region::Region;
use crate::testing::{SIZES, TestHost, memory};
use crate::tier::Tier;

/// The lines of the ring. A batch of more than four lines is replaced by one record.
const LINES: u32 = 16;
/// The base of the first life: any number that leaves room for smaller ones.
const BASE: u64 = 1 << 40;

/// Runs a test with a journal whose life has begun.
fn with_journal(test: impl FnOnce(Journal<'_>)) {
    let words = memory(128 * 1024);
    let host = TestHost::default();
    let sizes = Sizes { journal_lines: LINES, ..SIZES };
    let tier = Tier::format(Region::of_words(&words), sizes, &host, 0).expect("it fits");
    let journal = tier.journal();
    journal.begin(|| BASE);
    test(journal);
}

/// Returns the record of a key, with a different number in each field.
fn key(name: &[u8]) -> Record<'_> {
    Record { what: What::Key, database: 5, object: 7, role: 9, name }
}

fn append(journal: &Journal<'_>, records: &[Record<'_>]) {
    journal.append(records.iter().copied(), 3);
}

/// Reads the record behind a number. Returns its number, its kind and a copy of its name.
fn next(journal: &Journal<'_>, after: u64) -> Result<Option<(u64, What, Vec<u8>)>, Lost> {
    let mut name = [0; KEY_BYTES_MAX];
    let next = journal.read(after, &mut name)?;
    Ok(next.map(|next| {
        assert_eq!(next.tick, 3);
        (next.number, next.record.what, next.record.name.to_vec())
    }))
}

/// Names of each length must come back whole: one that fits into the first line, and those that take further lines. Fails if a
/// field or a byte of a name is lost, or if a number does not lead to the next record.
#[test]
fn records_are_read_as_they_were_appended() {
    for length in (0..=100).chain([KEY_BYTES_MAX - 1, KEY_BYTES_MAX]) {
        with_journal(|journal| {
            // A longer ring, so that the longest name does not count as a large batch. It lies over other parts of the region,
            // which this test does not use.
            let journal = Journal { lines: 1 << 10, ..journal };
            let name: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let tag = Record { what: What::Tag, role: 0, ..key(&name) };
            append(&journal, &[key(&name), tag]);
            let mut buffer = [0; KEY_BYTES_MAX];
            let first = journal.read(BASE, &mut buffer).expect("it is there").expect("it is written");
            assert_eq!(first.record, key(&name), "{length}");
            let number = first.number;
            let second = journal.read(number, &mut buffer).expect("it is there").expect("it is written");
            assert_eq!((second.record, Some(second.number)), (tag, journal.last()), "{length}");
            assert_eq!(journal.read(second.number, &mut buffer), Ok(None));
        });
    }
}

/// A reader waits for a slow writer and does not skip its record, even if later records are written.
#[test]
fn a_reader_stops_before_a_record_that_is_not_written() {
    with_journal(|journal| {
        let slow = journal.reserve(1);
        append(&journal, &[key(b"late")]);
        assert_eq!(next(&journal, BASE), Ok(None));
        slow.write(std::iter::once(key(b"slow")), 3);
        assert_eq!(next(&journal, BASE), Ok(Some((BASE + 1, What::Key, b"slow".to_vec()))));
        assert_eq!(next(&journal, BASE + 1), Ok(Some((BASE + 2, What::Key, b"late".to_vec()))));
    });
}

/// A reader whose next record was overwritten must learn that it has lost records. Fails if it gets a later record instead.
#[test]
fn a_reader_that_the_ring_has_come_around_to_has_lost_records() {
    with_journal(|journal| {
        (0..LINES).for_each(|_| append(&journal, &[key(b"k")]));
        assert!(next(&journal, BASE).is_ok(), "the ring is just full");
        append(&journal, &[key(b"k")]);
        assert_eq!(next(&journal, BASE), Err(Lost));
        assert_eq!(journal.oldest(), Some(BASE + 1));
        assert!(next(&journal, BASE + 1).is_ok_and(|next| next.is_some()));
        // Lines that are only reserved count, too: their writer may be writing.
        let _slow = journal.reserve(1);
        assert_eq!(next(&journal, BASE + 1), Err(Lost));
    });
}

/// A writer that wakes up after the ring has come around must not make its old record look like the later one, nor the later record
/// like one that is still to be written.
#[test]
fn a_writer_that_was_overtaken_damages_no_later_record() {
    with_journal(|journal| {
        let slow = journal.reserve(1);
        (0..LINES).for_each(|_| append(&journal, &[key(b"later")]));
        slow.write(std::iter::once(key(b"slow!")), 3);
        // The words of the line are those of the slow writer now, and the header is that of the later one.
        assert_eq!(next(&journal, BASE + 16), Err(Lost));
        assert_eq!(next(&journal, BASE + 1), Ok(Some((BASE + 2, What::Key, b"later".to_vec()))));
    });
}

/// A number of another life must never lead to a record of this one. Nor may a second call of `begin` change the base.
#[test]
fn numbers_of_other_lives_are_lost() {
    with_journal(|journal| {
        append(&journal, &[key(b"k")]);
        for number in [0, 1, BASE - 1, BASE + 2, u64::MAX] {
            assert_eq!(next(&journal, number), Err(Lost), "{number}");
        }
        journal.begin(|| 2 * BASE);
        assert_eq!(journal.last(), Some(BASE + 1), "the life goes on");
    });
}

/// A number in the middle of a record must not make a part of its name look like a record.
#[test]
fn a_name_is_never_read_as_a_record() {
    with_journal(|journal| {
        append(&journal, &[key(&[0xff; 100])]);
        assert_eq!(journal.last(), Some(BASE + 3));
        assert_eq!(next(&journal, BASE + 1), Err(Lost));
        assert_eq!(next(&journal, BASE + 2), Err(Lost));
    });
}

/// A large batch becomes one record that stands for all of it: the space if all keys are in one space, otherwise the database, or
/// all databases. Fails if the record does not cover one of the batch.
#[test]
fn a_large_batch_is_replaced() {
    let of_space = Record { what: What::Space, role: 0, ..key(b"") };
    let tag = Record { what: What::Tag, object: 0, ..key(b"t") };
    let foreign = Record { database: 6, ..tag };
    let all = Record { database: 5, ..Record::EVERYTHING };
    for (other, cover) in
        [(key(b"k"), of_space), (of_space, of_space), (tag, all), (foreign, Record::EVERYTHING)]
    {
        with_journal(|journal| {
            append(&journal, &[key(b"k"), key(b"k"), key(b"k"), other]);
            assert_eq!(journal.last(), Some(BASE + 4), "a quarter of the ring");
            append(&journal, &[key(b"k"), key(b"k"), key(b"k"), key(b"k"), other]);
            assert_eq!(journal.last(), Some(BASE + 5));
            let mut name = [0; KEY_BYTES_MAX];
            let next = journal.read(BASE + 4, &mut name).expect("it is there").expect("it is written");
            assert_eq!(next.record, cover);
        });
    }
}

/// A region that is saved in a file and copied back at the next start of the server keeps its journal, if all records are whole. A
/// record that was reserved and never written would make readers wait for ever, so the journal then begins a new life.
#[test]
fn a_revived_journal_is_whole() {
    with_journal(|journal| {
        (0..40).for_each(|_| append(&journal, &[key(&[1; 60])]));
        journal.revive();
        assert_eq!(journal.last(), Some(BASE + 80));
        let _interrupted = journal.reserve(1);
        journal.revive();
        assert_eq!(journal.last(), None);
        journal.begin(|| 2 * BASE);
        assert_eq!(next(&journal, 2 * BASE), Ok(None), "nothing is left of the other life");
        append(&journal, &[key(b"k")]);
        assert_eq!(next(&journal, 2 * BASE), Ok(Some((2 * BASE + 1, What::Key, b"k".to_vec()))));
    });
}

/// Without lines, appending must do nothing. Fails if it reserves lines.
#[test]
fn without_lines_there_is_no_journal() {
    with_journal(|journal| {
        let journal = Journal { lines: 0, ..journal };
        append(&journal, &[key(b"k")]);
        assert!(!journal.exists());
        assert_eq!(journal.last(), Some(BASE), "nothing was reserved");
    });
}

/// A relation may be marked as one that must be named while a batch is written. No record is lost then: the last line stands for
/// all that have no line. `expected` is the place of that line among the records that are read, or 0 if there is none.
#[test]
fn records_without_a_line_are_replaced_and_not_lost() {
    for (lines, records, expected) in [(1, 2, 1), (2, 3, 2), (2, 1, 2), (2, 2, 0)] {
        with_journal(|journal| {
            journal.reserve(lines).write((0..records).map(|_| key(b"k")), 3);
            let (mut at, mut kinds) = (BASE, Vec::new());
            while let Some((number, what, _)) = next(&journal, at).expect("nothing is lost") {
                at = number;
                kinds.push(what);
            }
            assert_eq!(Some(at), journal.last());
            let replaced = kinds.iter().position(|what| *what == What::Database).map_or(0, |at| at + 1);
            assert_eq!(replaced, expected, "{lines} lines for {records} records: {kinds:?}");
        });
    }
}
