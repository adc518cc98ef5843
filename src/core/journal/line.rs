//! The lines of the journal, and the records in them. The *journal* is a ring in shared memory whose *records* name what has
//! changed (`mod.rs`). `ring.rs` writes records through this file, and `reading.rs` reads them.
//!
//! ```text
//! header   lap : 32 | checksum : 18 | kind : 3 | length of the name : 11
//! first line of a record     database : 32 | object : 32   role : 32 | tick : 32   5 words of the name
//! further lines              7 words of the name
//! ```
//!
//! The *lap* counts how often the ring has been gone around (`mod.rs`). The kind of a further line is 0. So a number that leads to
//! the middle of a record never makes part of a name look like a record.
//!
//! A *space* is a set of keys in one database. A *tick* is the unit of time of the cache. The *region* is its shared memory.

use crate::hash::scatter;
use crate::key::KEY_BYTES_MAX;
use crate::layout::LINE;
use crate::region::Region;
use crate::sync::Ordering;

/// The words of a line beside its header.
const BODY: usize = LINE - 1;
/// The bytes of the name in the first line of a record.
const FIRST_BYTES: usize = 5 * 8;
/// The bytes of the name in a further line of a record.
const PART_BYTES: usize = BODY * 8;

// The bits of the header. The length of a name is at most `KEY_BYTES_MAX`, which has 11 bits.
const LENGTH_BITS: u32 = 11;
const KIND_BITS: u32 = 3;
const SUM_BITS: u32 = 18;
const SUM_MASK: u64 = (1 << SUM_BITS) - 1;

/// The kind of a line that continues the record of the line before it.
const PART: u64 = 0;

/// The meaning of a record. The number is the kind in the header, which has three bits: 0 is `PART`, so there may be one more. It
/// must be added to `of_number`, and to `Record::cover` unless the record of the whole database may stand for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// The key `name` of the space `object` has another value, or none.
    Key = 1,
    /// Everything with the tag `name` has changed.
    Tag,
    /// The relation `object` has changed.
    Relation,
    /// Everything in the space `object` has changed.
    Space,
    /// Everything in the database has changed, or in all databases if `database` is 0.
    Database,
    /// The privileges of roles in the database have changed, or in all databases if `database` is 0. No value has changed, but a
    /// reader that follows the journal as a role may have missed changes that the role could not see.
    Privileges,
}

impl What {
    fn of_number(number: u64) -> Option<Self> {
        [Self::Key, Self::Tag, Self::Relation, Self::Space, Self::Database, Self::Privileges]
            .into_iter()
            .find(|what| *what as u64 == number)
    }
}

/// A change, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The meaning of the record.
    pub what: What,
    /// The OID of the database.
    pub database: u32,
    /// The OID of a space or of a relation, or 0.
    pub object: u32,
    /// The OID of the role that the key belongs to; 0 if it belongs to all roles.
    pub role: u32,
    /// The key or the tag; empty for other records. At most as long as a key may be; the rest of a longer name is cut off.
    pub name: &'a [u8],
}

impl Record<'_> {
    /// The record that says that everything has changed in all databases.
    pub const EVERYTHING: Record<'static> =
        Record { what: What::Database, database: 0, object: 0, role: 0, name: &[] };

    /// Returns a record without a name that stands for this one: that of the key's space, or of the database.
    pub(super) fn cover(&self) -> Record<'static> {
        let Self { database, object, .. } = *self;
        match self.what {
            What::Key | What::Space => Record { what: What::Space, database, object, role: 0, name: &[] },
            _ => Record { database, ..Record::EVERYTHING },
        }
    }

    /// Returns a record that stands for a cover and for one more record.
    pub(super) fn with(self, other: &Record<'_>) -> Record<'static> {
        let (cover, other) = (self.cover(), other.cover());
        match () {
            () if cover == other => cover,
            () if cover.database == other.database => {
                Record { database: cover.database, ..Record::EVERYTHING }
            }
            () => Record::EVERYTHING,
        }
    }

    fn name(&self) -> &[u8] {
        &self.name[..self.name.len().min(KEY_BYTES_MAX)]
    }

    /// Returns how many lines the record takes.
    pub(super) fn lines(&self) -> u64 {
        lines_of(self.name().len())
    }

    /// Writes the record to the lines that `line` returns for its parts: 0 is the first. The caller must have reserved these lines
    /// (`ring.rs`). The first line is written last, so a reader that finds it finds the others.
    pub(super) fn write<'m>(&self, tick: u32, line: impl Fn(u64) -> Line<'m>) {
        let name = self.name();
        let (first, rest) = name.split_at(name.len().min(FIRST_BYTES));
        for (part, bytes) in (1..).zip(rest.chunks(PART_BYTES)) {
            let mut words = [0; BODY];
            pack(bytes, &mut words);
            line(part).write(PART, 0, &words);
        }
        let mut words = [0; BODY];
        words[0] = u64::from(self.database) << 32 | u64::from(self.object);
        words[1] = u64::from(self.role) << 32 | u64::from(tick);
        pack(first, &mut words[2..]);
        line(0).write(self.what as u64, name.len(), &words);
    }
}

/// Returns how many lines a record with a name of this length takes.
fn lines_of(length: usize) -> u64 {
    1 + length.saturating_sub(FIRST_BYTES).div_ceil(PART_BYTES) as u64
}

fn pack(bytes: &[u8], words: &mut [u64]) {
    for (word, bytes) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut full = [0; 8];
        full[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_ne_bytes(full);
    }
}

fn unpack(words: &[u64], bytes: &mut [u8]) {
    for (bytes, word) in bytes.chunks_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes()[..bytes.len()]);
    }
}

/// A checksum of the body of a line. It is wrong for a mixture of the words of two writers, except by a chance of 1 to 2^18.
fn sum(words: &[u64; BODY]) -> u64 {
    words.iter().fold(0, |sum, word| scatter(sum ^ word)) & SUM_MASK
}

/// The state of a line for a reader of its lap.
#[derive(Debug)]
pub(super) enum Found<T> {
    /// The line is written.
    Written(T),
    /// The writer of the line is still busy.
    Busy,
    /// The line was overwritten, or is damaged.
    Lost,
}

/// A record that was copied out of the ring, without its name.
#[derive(Debug)]
pub(super) struct Copied {
    /// The meaning of the record.
    pub what: What,
    /// The OID of the database.
    pub database: u32,
    /// The OID of a space or of a relation, or 0.
    pub object: u32,
    /// The OID of the role that the key belongs to, or 0.
    pub role: u32,
    /// The tick at which the record was appended.
    pub tick: u32,
    /// The length of the name in bytes.
    pub length: usize,
}

impl Copied {
    pub(super) fn lines(&self) -> u64 {
        lines_of(self.length)
    }
}

/// Copies the record whose parts `line` returns. Its name goes into the first bytes of `name`. The caller must check afterwards
/// that no later writer has reserved the lines; otherwise the copy may be wrong.
pub(super) fn copy<'m>(line: impl Fn(u64) -> Line<'m>, name: &mut [u8; KEY_BYTES_MAX]) -> Found<Copied> {
    let (kind, length, words) = match line(0).read() {
        Found::Written(line) => line,
        Found::Busy => return Found::Busy,
        Found::Lost => return Found::Lost,
    };
    let (Some(what), Some(name)) = (What::of_number(kind), name.get_mut(..length)) else {
        return Found::Lost;
    };
    let (first, rest) = name.split_at_mut(length.min(FIRST_BYTES));
    unpack(&words[2..], first);
    for (part, bytes) in (1..).zip(rest.chunks_mut(PART_BYTES)) {
        // The further lines were written before the first one, so their writer cannot be busy.
        let Found::Written((PART, _, words)) = line(part).read() else { return Found::Lost };
        unpack(&words, bytes);
    }
    let [database_and_object, role_and_tick, ..] = words;
    Found::Written(Copied {
        what,
        database: (database_and_object >> 32) as u32,
        object: database_and_object as u32,
        role: (role_and_tick >> 32) as u32,
        tick: role_and_tick as u32,
        length,
    })
}

/// A line of the ring, in one of its laps. `at` is the position of its header in the region.
pub(super) struct Line<'m> {
    region: Region<'m>,
    at: usize,
    lap: u32,
}

impl<'m> Line<'m> {
    pub(super) fn new(region: Region<'m>, at: usize, lap: u32) -> Self {
        Self { region, at, lap }
    }

    /// Writes the words of the line, and then its header, unless a writer of a later lap has written the header already. In that
    /// case the words of both may be mixed, and the checksum tells readers.
    fn write(&self, kind: u64, length: usize, words: &[u64; BODY]) {
        for (index, word) in (1..).zip(words) {
            self.region.store(self.at + index, *word);
        }
        let header = u64::from(self.lap) << 32
            | sum(words) << (KIND_BITS + LENGTH_BITS)
            | kind << LENGTH_BITS
            | length as u64;
        let word = self.region.word(self.at);
        let mut found = word.load(Ordering::Relaxed);
        while (found >> 32) < u64::from(self.lap) {
            match word.compare_exchange_weak(found, header, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => found = other,
            }
        }
    }

    /// Returns kind, length and body of the line.
    fn read(&self) -> Found<(u64, usize, [u64; BODY])> {
        let header = self.region.word(self.at).load(Ordering::Acquire);
        match (header >> 32).cmp(&u64::from(self.lap)) {
            std::cmp::Ordering::Less => return Found::Busy,
            std::cmp::Ordering::Greater => return Found::Lost,
            std::cmp::Ordering::Equal => {}
        }
        let mut words = [0; BODY];
        for (index, word) in (1..).zip(&mut words) {
            *word = self.region.load(self.at + index);
        }
        if header >> (KIND_BITS + LENGTH_BITS) & SUM_MASK != sum(&words) {
            return Found::Lost;
        }
        let kind = header >> LENGTH_BITS & ((1 << KIND_BITS) - 1);
        Found::Written((kind, (header & ((1 << LENGTH_BITS) - 1)) as usize, words))
    }

    /// Returns whether a record begins in this line. False if the line is not written yet.
    pub(super) fn begins_record(&self) -> bool {
        matches!(self.read(), Found::Written((kind, ..)) if kind != PART)
    }
}
