//! The note of an entry: bytes that are stored beside its value, with its tags, and with the *facts*, what is known of a query
//! result besides its value. Most hits do not read it: it is for the views, for `cache_explain`, and for copies of values outside
//! of the database. A hit of `cache_query` reads it only if the caller has tags, or if the session has a schema for temporary
//! objects (`query/search.rs`).
//!
//! An entry depends on the fences of its tags, words in shared memory that say when a tag was last invalidated
//! (`docs/architecture.md`). Fences have no names, so the note has the names.
//!
//! | part | bytes |
//! |---|---|
//! | number of tags | 1; only in the notes of query results |
//! | each tag | 1 for its length minus one, followed by the tag: no tag is empty or longer than 256 bytes |
//! | facts | only in notes of query results: a head of fixed length, the OIDs of relations, optional *terms*, the query text |
//!
//! The *terms* are the rest of the call that has stored the result, by which a worker can make the call again (`kept.rs`). The kind
//! of the entry tells whether it is a query result ([`kind::is_of_query`]). The note of another entry ends with its tags.

use super::kind;
use crate::pg::encoding;
use crate::pg::memory::{self, OutOfMemory};
use pg_cache_core::{Buffer, Kind, Meta, NOTE_BYTES_MAX};

/// The most bytes of a tag. A note has the length of a tag, minus one, in one byte.
pub const TAG_BYTES_MAX: usize = 256;

/// The form in which the caller gets a query result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Rows: `cache_query`.
    Rows,
    /// One jsonb with an array of all rows: `cache_query_json`.
    Json,
    /// The only value of the query, as jsonb or null: `cache_fetch` and `cache_call`.
    Value,
}

/// An OID of a relation, in the bytes of this machine.
pub type RelationBytes = [u8; 4];

/// The facts that a worker needs, besides the text, the form and the tags, to run a query again (`kept.rs`). Only notes of
/// results in spaces with the option `keep_warm` have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms<'a> {
    /// The arguments: the bytes of a jsonb, or no bytes.
    pub arguments: &'a [u8],
    /// The time to live in milliseconds that the call has asked for.
    pub ttl_ms: Option<u64>,
}

/// The facts about a query result besides its value. The fences and the key of an entry decide whether the result may be served,
/// and not the facts, with one exception: a session with temporary objects gets no result with `names_more` (`query/search.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// How many rows the query has returned.
    pub rows: u64,
    pub form: Form,
    /// Whether the query has read the clock.
    pub clock: bool,
    /// Whether the query has read settings of the session.
    pub settings: bool,
    /// Whether the query may use names that are not in its text.
    pub names_more: bool,
    /// The OID of the role whose privileges counted, `current_user`.
    pub role: u32,
    /// The relations whose rows the result depends on.
    pub read: &'a [RelationBytes],
    /// The other relations on whose definitions the result depends, for instance views and the parents of partitions.
    pub defined: &'a [RelationBytes],
    /// The text of the query, as far as it fits.
    pub text: &'a [u8],
    /// Whether the text of the query is longer than `text`. [`of_result`] also notes it if it cuts `text` off itself, and leaves
    /// out the terms of a text that is cut already.
    pub is_cut: bool,
    /// [`of_result`] leaves them out if the note has no room for them and the whole text.
    pub terms: Option<Terms<'a>>,
    /// The beginning of the basic digest of the environment (`pg/environment/`) in which the query ran, if the key does not
    /// depend on the environment. Otherwise 0.
    pub environment: u64,
}

/// A buffer that receives the note of a value, but not its bytes.
#[derive(Debug)]
pub struct OnlyNote(pub Vec<u8>);

impl OnlyNote {
    /// Makes a buffer with room for the longest note. Raises an error if there is no memory.
    pub fn new() -> Self {
        let mut note = Vec::new();
        memory::reserve(&mut note, NOTE_BYTES_MAX);
        Self(note)
    }
}

impl Buffer for OnlyNote {
    const WANTS_NOTE: bool = true;

    fn note_target(&mut self, bytes: usize) -> &mut [u8] {
        self.0.resize(bytes.min(self.0.capacity()), 0);
        &mut self.0
    }

    fn allocate(&mut self, _: &Meta) -> &mut [u8] {
        &mut []
    }
}

/// The bytes of facts before the relations: the number of rows, the environment, the role, both numbers of relations, and the
/// flags.
const HEAD_BYTES: usize = 8 + 8 + 4 + 2 + 2 + 1;

/// The bits of the byte with the flags. Its two lowest bits are the form.
const FORM: u8 = 0b11;
const CLOCK: u8 = 1 << 2;
const SETTINGS: u8 = 1 << 3;
const CUT: u8 = 1 << 4;
const NAMES_MORE: u8 = 1 << 5;
/// The note has terms.
const TERMS: u8 = 1 << 6;
/// The terms are those of the session that ran the query ([`has_own_terms`]).
const OWN_TERMS: u8 = 1 << 7;

/// The bytes of terms before the arguments: the length of the arguments, and the time to live, which is `u64::MAX` for none.
const TERMS_HEAD_BYTES: usize = 4 + 8;

/// Returns the length in bytes of the note of some tags without facts. An entry takes a note of at most `NOTE_BYTES_MAX` bytes,
/// which is more than a value's tags can need (`api/arguments.rs`).
pub fn len(tags: &[&[u8]]) -> usize {
    tags.iter().map(|tag| 1 + tag.len()).sum()
}

/// Returns the note of a value that is not a query result. It has no bytes if there are no tags.
pub fn of_tags(tags: &[&[u8]]) -> Result<Box<[u8]>, OutOfMemory> {
    let mut note = Vec::new();
    note.try_reserve_exact(len(tags))?;
    push_tags(&mut note, tags);
    Ok(note.into_boxed_slice())
}

/// Returns the note of a query result: at most `NOTE_BYTES_MAX` bytes. Relations for which there is no room are left out, and the
/// text is cut off at the end of a character.
pub fn of_result(tags: &[&[u8]], facts: &Facts<'_>) -> Result<Box<[u8]>, OutOfMemory> {
    let mut room = NOTE_BYTES_MAX.saturating_sub(1 + len(tags) + HEAD_BYTES);
    let mut fitting = |relations: usize| {
        let count = relations.min(room / size_of::<RelationBytes>()).min(usize::from(u16::MAX));
        room -= count * size_of::<RelationBytes>();
        count
    };
    let (read, defined) = (fitting(facts.read.len()), fitting(facts.defined.len()));
    let terms_bytes = |terms: &Terms<'_>| TERMS_HEAD_BYTES + terms.arguments.len();
    let terms = facts.terms.filter(|terms| !facts.is_cut && terms_bytes(terms) + facts.text.len() <= room);
    let terms_bytes = terms.as_ref().map_or(0, terms_bytes);
    let text = encoding::clipped(facts.text, room - terms_bytes);
    let is_cut = facts.is_cut || text.len() < facts.text.len();
    let form = match facts.form {
        Form::Rows => 0,
        Form::Json => 1,
        Form::Value => 2,
    };
    let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
    let mut note = Vec::new();
    let relations = read + defined;
    let relations_bytes = relations * size_of::<RelationBytes>();
    note.try_reserve_exact(1 + len(tags) + HEAD_BYTES + relations_bytes + terms_bytes + text.len())?;
    note.push(tags.len() as u8);
    push_tags(&mut note, tags);
    note.extend_from_slice(&facts.rows.to_ne_bytes());
    note.extend_from_slice(&facts.environment.to_ne_bytes());
    note.extend_from_slice(&facts.role.to_ne_bytes());
    note.extend_from_slice(&(read as u16).to_ne_bytes());
    note.extend_from_slice(&(defined as u16).to_ne_bytes());
    note.push(
        form | flag(facts.clock, CLOCK)
            | flag(facts.settings, SETTINGS)
            | flag(facts.names_more, NAMES_MORE)
            | flag(is_cut, CUT)
            | flag(terms.is_some(), TERMS | OWN_TERMS),
    );
    note.extend_from_slice(facts.read[..read].as_flattened());
    note.extend_from_slice(facts.defined[..defined].as_flattened());
    if let Some(Terms { arguments, ttl_ms }) = terms {
        note.extend_from_slice(&(arguments.len() as u32).to_ne_bytes());
        note.extend_from_slice(&ttl_ms.unwrap_or(u64::MAX).to_ne_bytes());
        note.extend_from_slice(arguments);
    }
    note.extend_from_slice(text);
    Ok(note.into_boxed_slice())
}

fn push_tags(note: &mut Vec<u8>, tags: &[&[u8]]) {
    for tag in tags {
        note.push(tag.len().saturating_sub(1) as u8);
        note.extend_from_slice(tag);
    }
}

/// Returns the tags in the note of an entry of this kind. A note that is damaged ends early.
pub fn tags(kind: Kind, note: &[u8]) -> Tags<'_> {
    match note.split_first() {
        Some((count, rest)) if kind::is_of_query(kind) => Tags { left: usize::from(*count), rest },
        _ => Tags { left: usize::MAX, rest: note },
    }
}

/// The tags of a note. Behind them, `rest` is the rest of the note.
#[derive(Clone, Debug)]
pub struct Tags<'a> {
    /// The most tags that follow.
    left: usize,
    /// The rest of the note, behind the tags that were returned.
    rest: &'a [u8],
}

impl<'a> Iterator for Tags<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let (length, behind) = self.rest.split_first()?;
        let (tag, next) = behind.split_at_checked(usize::from(*length) + 1)?;
        self.rest = next;
        Some(tag)
    }
}

/// Returns the facts in the note of an entry of this kind. None if the entry is no query result, or if the note is damaged.
pub fn facts(kind: Kind, note: &[u8]) -> Option<Facts<'_>> {
    if !kind::is_of_query(kind) {
        return None;
    }
    let mut tags = tags(kind, note);
    tags.by_ref().for_each(drop);
    let (rows, rest) = tags.rest.split_first_chunk()?;
    let (environment, rest) = rest.split_first_chunk()?;
    let (role, rest) = rest.split_first_chunk()?;
    let (read, rest) = rest.split_first_chunk()?;
    let (defined, rest) = rest.split_first_chunk()?;
    let (flags, rest) = rest.split_first()?;
    let bytes = |count| usize::from(u16::from_ne_bytes(count)) * size_of::<RelationBytes>();
    let (read, rest) = rest.split_at_checked(bytes(*read))?;
    let (defined, rest) = rest.split_at_checked(bytes(*defined))?;
    let (terms, text) = match flags & TERMS {
        0 => (None, rest),
        _ => {
            let (length, rest) = rest.split_first_chunk()?;
            let (ttl_ms, rest) = rest.split_first_chunk()?;
            let (arguments, text) = rest.split_at_checked(u32::from_ne_bytes(*length) as usize)?;
            let ttl_ms = Some(u64::from_ne_bytes(*ttl_ms)).filter(|ttl_ms| *ttl_ms != u64::MAX);
            (Some(Terms { arguments, ttl_ms }), text)
        }
    };
    Some(Facts {
        rows: u64::from_ne_bytes(*rows),
        form: match flags & FORM {
            0 => Form::Rows,
            1 => Form::Json,
            2 => Form::Value,
            _ => return None,
        },
        clock: flags & CLOCK != 0,
        settings: flags & SETTINGS != 0,
        names_more: flags & NAMES_MORE != 0,
        environment: u64::from_ne_bytes(*environment),
        role: u32::from_ne_bytes(*role),
        read: read.as_chunks().0,
        defined: defined.as_chunks().0,
        text,
        is_cut: flags & CUT != 0,
        terms,
    })
}

/// Returns whether the note of an entry of this kind has terms that the session that ran the query has written to memory. The terms
/// of a value that was read from a table do not count: other roles may have written to the table.
pub fn has_own_terms(kind: Kind, note: &[u8]) -> bool {
    flags_at(kind, note).and_then(|at| note.get(at)).is_some_and(|flags| flags & OWN_TERMS != 0)
}

/// Marks the terms in the note of an entry of this kind as not its own. Must be called for each note that was read from a table.
pub fn disown_terms(kind: Kind, note: &mut [u8]) {
    let flags = flags_at(kind, note).and_then(|at| note.get_mut(at));
    flags.into_iter().for_each(|flags| *flags &= !OWN_TERMS);
}

/// Returns the position of the byte with the flags in the note of an entry of this kind. None if the entry is no query result. The
/// note of a marker without facts ends before this position.
fn flags_at(kind: Kind, note: &[u8]) -> Option<usize> {
    let mut tags = kind::is_of_query(kind).then(|| tags(kind, note))?;
    tags.by_ref().for_each(drop);
    Some(note.len() - tags.rest.len() + HEAD_BYTES - 1)
}
