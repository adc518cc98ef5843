//! Returns the result of a query, stored or new (`cache_query` and its family). `fill.rs` has the steps for a missing result,
//! `ticket.rs` and `refusals.rs` the rules for storing it.
//!
//! The *key* of a result is a hash of everything that decides about it except data and definitions: the text of the query, its
//! arguments, the relations that the caller has named as its dependencies, and the *environment*: the role, the search path and the
//! settings (`pg/environment.rs`). Two queries with the same key cannot be found, so a hit compares nothing else.
//!
//! The environment has two digests. The *basic* one leaves out the settings that only `current_setting` can read. If a query reads
//! settings, its result lies under the key with the *full* digest, and a marker under the basic key says so. One run of the query
//! stores both, with a fill for each key (`ticket.rs`).

use super::clock;
use super::compress;
use super::counts::count_found;
use super::fill;
use super::freshness::Look;
use super::job::{Found, Job, Rules, Wanted};
use super::refusals;
use super::run;
use super::texts::{Known, know};
use super::ticket::TIMES_UNTIL_LEFT_OUT;
use super::verify;
use crate::pg::environment;
use crate::pg::jsonb;
use crate::pg::memory::{self, OutOfMemory};
use crate::pg::observer::Seen;
use crate::pg::query::{self, Arguments, Query, Snapshot, Value};
use crate::pg::reader::Reader;
use crate::pg::rows::{Replayed, Room, Sink};
use crate::pg::shared;
use crate::pg::varlena::Varlena;
use crate::store::entry::{self, Accepts};
use crate::store::keyspace;
use crate::store::kind::{self, DIFFERED, JSON, LEFT_OUT, ROWS, VARIES};
use crate::store::latency::{self, Short};
use crate::store::note::{self, Form, OnlyNote, Terms};
use crate::store::space::Space;
use crate::store::status::{self, Object, Status};
use pg_cache_core::{Buffer, Kind, Meta, NOTE_BYTES_MAX};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::rc::Rc;

/// The bytes of a SHA-256 hash.
const HASH_BYTES: usize = 32;
type Hash = [u8; HASH_BYTES];

/// The bits of a jsonb's first word that count the elements of an array.
const ELEMENTS: u32 = 0x0fff_ffff;

/// The longest time to live of a result that read the clock, in milliseconds, unless the caller has asked for another one.
const CLOCK_MS_MAX: u64 = 60_000;

/// A call of `cache_query` or of one of its family.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The text of the query, as the caller has passed it.
    pub text: &'a [u8],
    pub arguments: Arguments<'a>,
    pub ttl_ms: Option<u64>,
    pub tags: &'a [&'a [u8]],
    pub stale_ok_ms: Option<u64>,
    pub refresh: bool,
    /// Sorted, without duplicates.
    pub depends: Option<&'a [u32]>,
    /// The role with whose privileges the query reads a relation.
    pub reader: Option<Reader>,
}

impl Asked<'_> {
    pub(super) fn wanted(&self) -> Wanted<'_> {
        let Asked { ttl_ms, tags, stale_ok_ms, refresh, depends, .. } = *self;
        Wanted { ttl_ms, tags, stale_ok_ms, refresh, depends }
    }

    /// Returns the terms by which a worker can run the query again. None for calls that a worker cannot repeat: those of wrappers
    /// of functions and of cached views, and those with `depends`.
    fn terms(&self) -> Option<Terms<'_>> {
        let Arguments::Json(array) = self.arguments else { return None };
        let is_plain = self.depends.is_none() && self.reader.is_none();
        is_plain.then(|| Terms { arguments: array.bytes(), ttl_ms: self.ttl_ms })
    }

    /// Returns the key of the result in this environment: the prefix, and the hash in hexadecimal digits.
    fn key(&self, form: Form, text: &Known, environment: &Hash) -> Vec<u8> {
        let mut digest = Sha256::new().chain_update([form as u8]).chain_update(text.hash);
        let count = self.depends.map_or(u64::MAX, |oids| oids.len() as u64);
        digest.update(count.to_le_bytes());
        self.depends.unwrap_or_default().iter().for_each(|oid| digest.update(oid.to_le_bytes()));
        digest.update(environment);
        digest.update([u8::from(self.reader.is_some())]);
        if let Some(Reader { relation, role }) = self.reader {
            digest.update(relation.to_le_bytes());
            digest.update(role.oid().to_le_bytes());
        }
        digest.update(self.arguments.bytes());
        let hash: Hash = digest.finalize().into();
        keyspace::query_key(&hash)
    }
}

/// Receives a stored result. With `NOTE`, also receives the note, to compare it with what the caller asks for.
struct Candidate<'a, const NOTE: bool> {
    room: Room,
    kind: Kind,
    search: &'a Search<'a>,
    note: Vec<u8>,
    /// Why the value was not accepted.
    unwanted: Option<Status>,
}

impl<const NOTE: bool> Buffer for Candidate<'_, NOTE> {
    const WANTS_NOTE: bool = NOTE;

    fn note_target(&mut self, bytes: usize) -> &mut [u8] {
        // The vector has room for the longest note.
        self.note.resize(bytes.min(self.note.capacity()), 0);
        &mut self.note
    }

    fn allocate(&mut self, meta: &Meta) -> &mut [u8] {
        self.room.allocate(meta)
    }

    fn was_allocated(&self) -> bool {
        self.room.was_allocated()
    }

    fn is_hit(&self, meta: &Meta) -> bool {
        !kind::is_mark(meta.kind)
    }

    fn accepts(&mut self, meta: &Meta) -> bool {
        let asked = self.search.asked;
        let is_older = |ttl_ms| shared::ms_since(meta.created) >= ttl_ms;
        let lacks = |tag: &&[u8]| !note::tags(meta.kind, &self.note).any(|own| own == *tag);
        let facts = || note::facts(meta.kind, &self.note);
        self.unwanted = if kind::is_mark(meta.kind) {
            None
        } else if kind::behind(meta.kind).unwrap_or(meta.kind) != self.kind {
            Some(Status::Miss("the key holds another kind of value"))
        } else if asked.ttl_ms.is_some_and(is_older) {
            Some(Status::Miss("older than ttl"))
        } else if NOTE && asked.tags.iter().any(lacks) {
            Some(Status::Miss("stored without a tag of this call"))
        } else if NOTE
            && environment::has_temporary_schema()
            && facts().is_none_or(|facts| facts.names_more)
            && environment::has_temporary_objects()
        {
            Some(Status::Miss(TEMPORARY))
        } else {
            None
        };
        self.unwanted.is_none()
    }
}

/// The reason when the last result was invalid before it could be stored.
const TOO_LATE: &str = "invalidated before it could be stored";

/// The reason when a name may be that of a temporary object of this session.
const TEMPORARY: &str = "the query may mean temporary objects of this session";

/// A result that is looked for, and the key that it lies under.
#[derive(Debug)]
pub(super) struct Search<'a> {
    asked: &'a Asked<'a>,
    form: Form,
    known: Rc<Known>,
    pub(super) key: Vec<u8>,
    /// Whether the key has the digest of the full environment.
    pub(super) is_full: bool,
    /// The number of results in a row that were invalid before they could be stored. A marker under the key counts them.
    times_left_out: u8,
    /// Whether a marker under the key says that a stored result was wrong.
    is_suspended: bool,
}

impl<'a> Search<'a> {
    pub(super) fn new(asked: &'a Asked<'a>, form: Form) -> Result<Self, OutOfMemory> {
        let known = know(asked.text)?;
        let key = asked.key(form, &known, &environment::basic());
        Ok(Self { asked, form, known, key, is_full: false, times_left_out: 0, is_suspended: false })
    }

    pub(super) fn full_key(&self) -> Vec<u8> {
        self.asked.key(self.form, &self.known, &environment::full())
    }

    /// Looks for a stored result of this kind.
    fn find(&mut self, space: &Space, kind: Kind, look: &Look) -> Found<(Meta, Room)> {
        let began = latency::begin(Short::Query);
        match self.find_any(space, kind, look) {
            Some((meta, _)) if look.renews(&meta) => Found::Old(meta.stamp),
            Some(found) => {
                count_found(space, &found.0, began);
                Found::Result(found)
            }
            None => Found::Nothing,
        }
    }

    /// Looks for a stored result of this kind. Also returns a result that the call should renew. If there is no result, the status
    /// says why.
    pub(super) fn find_any(&mut self, space: &Space, kind: Kind, look: &Look) -> Option<(Meta, Room)> {
        if self.may_be_temporary() {
            status::set(Status::Miss(TEMPORARY));
            return None;
        }
        let (mut meta, mut room) = self.look(space, kind, look)?;
        if meta.kind == VARIES {
            (self.key, self.is_full) = (self.full_key(), true);
            (meta, room) = self.look(space, kind, look)?;
        }
        (self.times_left_out, self.is_suspended) = (0, meta.kind == DIFFERED);
        if self.is_suspended {
            status::set(verify::FAILED);
            return None;
        }
        if meta.kind == LEFT_OUT {
            self.times_left_out = room.bytes().first().copied().unwrap_or(0);
            status::set(Status::Miss(TOO_LATE));
            return None;
        }
        if kind::behind(meta.kind).is_some() {
            room = inflated(&room, meta)?;
        }
        if meta.kind == VARIES {
            status::set(Status::Miss("the key holds another kind of value"));
            return None;
        }
        Some((meta, room))
    }

    /// Returns the metadata and the note of the stored result, with any tags and of any age. Does not count as a read. If there is
    /// none, the status says why.
    pub(super) fn peek(&mut self, space: &Space) -> Option<(Meta, Vec<u8>)> {
        let look = |key: &[u8]| {
            let mut only_note = OnlyNote::new();
            let accepts = Accepts { repeats: true, ..Accepts::default() };
            entry::read_accepting(space, key, accepts, &mut only_note).map(|meta| (meta, only_note.0))
        };
        let (mut meta, mut note) = look(&self.key)?;
        if meta.kind == VARIES {
            (self.key, self.is_full) = (self.full_key(), true);
            (meta, note) = look(&self.key)?;
        }
        match meta.kind {
            LEFT_OUT => status::set(Status::Miss(TOO_LATE)),
            DIFFERED => status::set(verify::FAILED),
            _ => {}
        }
        Some((meta, note))
    }

    /// Returns whether results of the query are not stored because a stored result was wrong.
    fn is_marked_as_wrong(&mut self, space: &Space) -> bool {
        self.peek(space).is_some_and(|(meta, _)| meta.kind == DIFFERED)
    }

    /// Looks for a value under the key.
    fn look(&self, space: &Space, kind: Kind, look: &Look) -> Option<(Meta, Room)> {
        let (room, unwanted) = (Room::default(), None);
        if self.asked.tags.is_empty() && !environment::has_temporary_schema() {
            let note = Vec::new();
            return self.look_with(
                space,
                look,
                Candidate::<false> { room, kind, search: self, note, unwanted },
            );
        }
        let mut note = Vec::new();
        memory::reserve(&mut note, NOTE_BYTES_MAX);
        self.look_with(space, look, Candidate::<true> { room, kind, search: self, note, unwanted })
    }

    fn look_with<const NOTE: bool>(
        &self,
        space: &Space,
        look: &Look,
        mut candidate: Candidate<'_, NOTE>,
    ) -> Option<(Meta, Room)> {
        let found = entry::read_accepting(space, &self.key, look.accepts(), &mut candidate);
        if let (None, Some(status)) = (found, candidate.unwanted) {
            status::set(status);
        }
        found.map(|meta| (meta, candidate.room))
    }

    /// Returns whether the query may have meant a temporary object of this session, in its text or in a function.
    fn may_have_meant_temporary(&self, seen: &Seen) -> bool {
        self.may_be_temporary() || run::may_name_more(seen) && environment::has_temporary_objects()
    }

    /// Returns whether a name in the query may be that of a temporary object of this session, which comes first in every search
    /// path.
    pub(super) fn may_be_temporary(&self) -> bool {
        let mean_temporary =
            |names: &BTreeSet<Vec<u8>>| environment::in_temporary_schema(names.iter().map(Vec::as_slice));
        environment::has_temporary_schema() && self.known.text.identifiers.as_ref().is_none_or(mean_temporary)
    }
}

impl Rules for Search<'_> {
    const KEY_IS_CHOSEN: bool = false;

    fn key(&self) -> &[u8] {
        &self.key
    }

    fn known(&self) -> &Known {
        &self.known
    }

    fn check(&self, _: &Space, seen: &Seen) -> Result<(), Status> {
        let is_declared = self.asked.depends.is_some();
        if seen.system_columns {
            return Err(Status::Refused("the query reads xmin, xmax, cmin or cmax"));
        }
        // A volatile query has another status, which says that it is volatile.
        let is_volatile = seen.volatile.is_some() && !is_declared;
        if let Some(function) = seen.server_state.filter(|_| !is_volatile) {
            return Err(Status::Of("refused: {} reads the state of the server", Object::Function(function)));
        }
        if let Some(function) = seen.foreign_language.filter(|_| !is_declared) {
            let text = "refused: {} is written in a language that pg_cache cannot follow";
            return Err(Status::Of(text, Object::Function(function)));
        }
        if seen.foreign_portal {
            return Err(Status::Refused("the query reads from a cursor that was opened before"));
        }
        let names = &self.known.text.identifiers;
        let is_temporary = |name: &Vec<u8>| name.starts_with(b"pg_temp");
        if names.as_ref().is_some_and(|names| names.iter().any(is_temporary)) {
            return Err(Status::Refused("the query names a temporary schema"));
        }
        Ok(())
    }

    fn ttl_ms_max(&self, seen: &Seen) -> Option<u64> {
        let names_moment = || clock::is_named(&self.known, self.asked.arguments);
        (seen.reads_clock || names_moment()).then_some(CLOCK_MS_MAX)
    }

    fn key_by_settings(&self) -> Option<(Vec<u8>, Kind)> {
        (!self.is_full).then(|| (self.full_key(), VARIES))
    }

    fn check_names(&self, seen: &Seen) -> Result<(), Status> {
        match self.may_have_meant_temporary(seen) {
            true => Err(Status::Refused(TEMPORARY)),
            false => Ok(()),
        }
    }

    fn min_cost_ms(&self, space: &Space) -> Option<u64> {
        Some(space.options.min_cost_ms())
    }

    fn times_left_out(&self) -> u8 {
        self.times_left_out
    }

    fn mark_key(&self) -> Vec<u8> {
        memory::copy(&self.key)
    }

    fn is_suspended(&self, _: &Space) -> bool {
        self.is_suspended
    }
}

/// Returns the value of a compressed one. If it is damaged, the status says so.
fn inflated(room: &Room, meta: Meta) -> Option<Room> {
    let mut whole = Room::default();
    let length = compress::length(room.bytes());
    let is_whole = length.is_some_and(|value_len| {
        let into = whole.allocate(&Meta { value_len, ..meta });
        into.len() == value_len && compress::decompress(room.bytes(), into)
    });
    if !is_whole {
        status::set(Status::Miss("the stored result is damaged, or there is no memory for it"));
    }
    is_whole.then_some(whole)
}

/// Puts the rows of a query into the result of the function that `sink` belongs to. `text` must be the text of `asked`. Raises the
/// errors of the query.
pub fn rows(space: &Space, asked: &Asked<'_>, text: &CStr, sink: &mut Sink) -> Result<(), OutOfMemory> {
    rows_for("query of cache_query", space, asked, text, sink)
}

/// Does the same for another function of this library, which `caller` names for the context of errors.
pub fn rows_for(
    caller: &str,
    space: &Space,
    asked: &Asked<'_>,
    text: &CStr,
    sink: &mut Sink,
) -> Result<(), OutOfMemory> {
    let (search, most_bytes) = (Search::new(asked, Form::Rows)?, most_bytes(space));
    let query = Query { caller, text, arguments: asked.arguments };
    obtain(space, asked, &mut Rows { search, query, sink, most_bytes, compares: false });
    Ok(())
}

/// Returns the result of a query, stored or new.
fn obtain<J: Job>(space: &Space, asked: &Asked<'_>, job: &mut J) -> J::Result {
    let wanted = asked.wanted();
    let old = match wanted.refresh {
        true => None,
        false => match verify::find(space, &wanted, &wanted.look(true), verify::is_drawn(), job) {
            Found::Result(result) => return result,
            Found::Old(stamp) => Some(stamp),
            Found::Nothing => None,
        },
    };
    fill::fill(space, &wanted, old, job)
}

/// Returns the rows of a query as a jsonb: an array of objects. `text` must be the text of `asked`. Raises the errors of the query.
pub fn json(space: &Space, asked: &Asked<'_>, text: &CStr) -> Result<Varlena, OutOfMemory> {
    json_with_meta(space, asked, text).map(|(json, _)| json)
}

/// Does the same, and returns the metadata of the entry that has the result, if it is stored.
pub fn json_with_meta(
    space: &Space,
    asked: &Asked<'_>,
    text: &CStr,
) -> Result<(Varlena, Option<Meta>), OutOfMemory> {
    let search = Search::new(asked, Form::Json)?;
    let query = Query { caller: "query of cache_query_json", text, arguments: asked.arguments };
    let mut job = Json { search, query, meta: None };
    let answer = obtain(space, asked, &mut job);
    let meta = job.meta.or_else(|| {
        let status = status::current();
        let stored = job.search.peek(space).map(|(meta, _)| meta).filter(|meta| !kind::is_mark(meta.kind));
        status.into_iter().for_each(status::set);
        stored
    });
    Ok((Varlena::of(answer.bytes()), meta))
}

/// Returns the only value of a query as a jsonb, or None for a null. `text` must be the text of `asked`. Raises the errors of the
/// query. `caller` names the function of this library for the context of errors.
pub fn value(
    caller: &str,
    space: &Space,
    asked: &Asked<'_>,
    text: &CStr,
) -> Result<Option<Varlena>, OutOfMemory> {
    let query = Query { caller, text, arguments: asked.arguments };
    let search = Search::new(asked, Form::Value)?;
    let answer = obtain(space, asked, &mut Scalar { search, query, meta: None });
    Ok(jsonb_of(answer.bytes()))
}

/// Returns the value that the bytes of a jsonb stand for. No bytes stand for a null, because every jsonb has some.
fn jsonb_of(bytes: &[u8]) -> Option<Varlena> {
    (!bytes.is_empty()).then(|| Varlena::of(bytes))
}

/// Returns the key under which the rows of a query are stored, or would be stored, for this session.
pub fn key(space: &Space, asked: &Asked<'_>) -> Result<Vec<u8>, OutOfMemory> {
    let mut search = Search::new(asked, Form::Rows)?;
    search.peek(space);
    Ok(search.key)
}

/// Returns the most bytes of a result that is stored in a space, before compression.
fn most_bytes(space: &Space) -> usize {
    space.options.max_result_bytes().min(usize::MAX as u64) as usize
}

/// A query whose rows go to the caller of a set-returning function.
struct Rows<'a, 's> {
    search: Search<'a>,
    query: Query<'a>,
    sink: &'s mut Sink,
    /// The most bytes of rows that are kept for storing.
    most_bytes: usize,
    /// Whether the rows of the run are compared with stored rows, and not stored.
    compares: bool,
}

impl<'a> Job for Rows<'a, '_> {
    const FORM: Form = Form::Rows;

    type Rules = Search<'a>;
    type Result = ();
    type Stored = (Meta, Room);

    fn rules(&self) -> &Search<'a> {
        &self.search
    }

    fn look(&mut self, space: &Space, look: &Look) -> Found<(Meta, Room)> {
        self.search.find(space, ROWS, look)
    }

    fn give(&mut self, (_, room): (Meta, Room)) -> Option<()> {
        match self.sink.replay(&room) {
            Replayed::Sent => return Some(()),
            // The query raises the error.
            Replayed::OtherColumns => {}
            Replayed::Damaged => status::set(Status::Miss("the stored rows are damaged")),
        }
        None
    }

    fn meta(stored: &(Meta, Room)) -> Meta {
        stored.0
    }

    fn prepare_to_compare(&mut self) {
        self.compares = true;
    }

    fn is_same(&mut self, (_, room): &(Meta, Room), (): &()) -> bool {
        self.compares = false;
        self.sink.has_rows_of(room)
    }

    fn start_anew(&mut self) {
        self.compares = false;
        self.sink.start_anew();
    }

    fn run(&mut self, on: Snapshot, before: &mut dyn FnMut(&[u32])) {
        match self.compares {
            true => self.sink.compare(),
            false => self.sink.keep(self.most_bytes),
        }
        self.search.asked.reader.into_iter().for_each(|reader| self.sink.read_as(reader));
        query::rows(&self.query, on, before, self.sink);
    }

    fn check(&self) -> Result<(), Status> {
        match self.sink.anonymous_record() {
            Some(column) => Err(status::about("refused: {} is an anonymous record", "column", column)),
            None => Ok(()),
        }
    }

    fn has_composites(&self, (): &()) -> bool {
        self.sink.has_composites()
    }

    fn query(&self) -> &Query<'_> {
        &self.query
    }

    fn reader(&self) -> Option<Reader> {
        self.search.asked.reader
    }

    fn terms(&self) -> Option<Terms<'_>> {
        self.search.asked.terms()
    }

    fn rows(&self, (): &()) -> u64 {
        self.sink.rows()
    }

    fn with_value(
        &mut self,
        space: &Space,
        (): &mut (),
        store: impl FnOnce(Kind, &[u8]) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let bytes = self.sink.stored().ok_or(refusals::TOO_LARGE)?;
        refusals::admit_size(space, bytes.len())?;
        store(ROWS, bytes)
    }
}

/// A jsonb as bytes: a stored one, or the result of a query.
enum Answer {
    Stored(Room),
    New(Value),
}

impl Answer {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Stored(room) => room.bytes(),
            Self::New(value) => &value.bytes,
        }
    }
}

/// A query whose result is stored as one jsonb: of all rows, or of the only value.
struct Jsonb<'a, const IS_SCALAR: bool> {
    search: Search<'a>,
    query: Query<'a>,
    /// The metadata of the entry that the result was found in.
    meta: Option<Meta>,
}

type Json<'a> = Jsonb<'a, false>;
type Scalar<'a> = Jsonb<'a, true>;

impl<'a, const IS_SCALAR: bool> Job for Jsonb<'a, IS_SCALAR> {
    const FORM: Form = if IS_SCALAR { Form::Value } else { Form::Json };

    type Rules = Search<'a>;
    type Result = Answer;
    type Stored = (Meta, Room);

    fn rules(&self) -> &Search<'a> {
        &self.search
    }

    fn look(&mut self, space: &Space, look: &Look) -> Found<(Meta, Room)> {
        self.search.find(space, JSON, look)
    }

    fn give(&mut self, (meta, room): (Meta, Room)) -> Option<Answer> {
        self.meta = Some(meta);
        Some(Answer::Stored(room))
    }

    fn meta(stored: &(Meta, Room)) -> Meta {
        stored.0
    }

    fn is_same(&mut self, (_, room): &(Meta, Room), result: &Answer) -> bool {
        let (one, other) = (room.bytes(), result.bytes());
        one == other || !IS_SCALAR && jsonb::have_same_elements(one, other)
    }

    fn run(&mut self, on: Snapshot, before: &mut dyn FnMut(&[u32])) -> Answer {
        Answer::New(match IS_SCALAR {
            // No bytes stand for a null.
            true => query::scalar(&self.query, on, before)
                .unwrap_or(Value { bytes: Vec::new(), has_composites: false }),
            false => query::json(&self.query, on, before),
        })
    }

    fn has_composites(&self, result: &Answer) -> bool {
        matches!(result, Answer::New(value) if value.has_composites)
    }

    fn query(&self) -> &Query<'_> {
        &self.query
    }

    fn terms(&self) -> Option<Terms<'_>> {
        self.search.asked.terms()
    }

    fn rows(&self, result: &Answer) -> u64 {
        if IS_SCALAR {
            return 1;
        }
        result.bytes().first_chunk().map_or(0, |head| u64::from(u32::from_ne_bytes(*head) & ELEMENTS))
    }

    fn with_value(
        &mut self,
        space: &Space,
        result: &mut Answer,
        store: impl FnOnce(Kind, &[u8]) -> Result<(), Status>,
    ) -> Result<(), Status> {
        refusals::admit_size(space, result.bytes().len())?;
        store(JSON, result.bytes())
    }
}

/// Returns the metadata of the stored result of a query in this form, if a call of `cache_query` or of one of its family in this
/// session would return it. Does not count as a read. The tags of a result that was stored at the tick `verified` are not compared
/// again. The session must have no temporary objects.
pub fn stored(
    space: &Space,
    asked: &Asked<'_>,
    form: Form,
    verified: u32,
) -> Result<Option<Meta>, OutOfMemory> {
    let mut search = Search::new(asked, form)?;
    let mut found = entry::peek(space, &search.key);
    if found.is_some_and(|meta| meta.kind == VARIES) {
        (search.key, search.is_full) = (search.full_key(), true);
        found = entry::peek(space, &search.key);
    }
    let expected = if form == Form::Rows { ROWS } else { JSON };
    let is_usable = |meta: &Meta| {
        kind::behind(meta.kind).unwrap_or(meta.kind) == expected
            && asked.ttl_ms.is_none_or(|ttl_ms| shared::ms_since(meta.created) < ttl_ms)
    };
    let mut has_tags = |meta: &Meta| {
        asked.tags.is_empty()
            || meta.created == verified
            || search.peek(space).is_some_and(|(meta, note)| {
                asked.tags.iter().all(|tag| note::tags(meta.kind, &note).any(|own| own == *tag))
            })
    };
    Ok(found.filter(|meta| is_usable(meta) && has_tags(meta)))
}

/// Returns whether this session would store the result of a query in this form under this key. The key may be the one with or
/// without all settings.
pub fn has_key(asked: &Asked<'_>, form: Form, key: &[u8]) -> Result<bool, OutOfMemory> {
    let search = Search::new(asked, form)?;
    Ok(search.key == key || search.full_key() == key)
}

/// Computes and stores the result of a query in this form, unless it is stored already and `asked.refresh` is false. `text` must be
/// the text of `asked`. Returns whether the result is stored now; if not, the status says why. The query does not run if the
/// session may not compute or read values of the space, or if the query is left out. Raises the errors of the query.
pub fn warm(space: &Space, asked: &Asked<'_>, text: &CStr, form: Form) -> Result<bool, OutOfMemory> {
    let mut search = Search::new(asked, form)?;
    let may_store = entry::keyspace_to_compute(space, &search.key).map(|_| ());
    let may_read = || entry::keyspace_for_reading(space).map(|_| ());
    if let Err(status) = may_store.and_then(|()| may_read()) {
        status::set(status);
        return Ok(false);
    }
    if search.is_marked_as_wrong(space) {
        status::set(verify::FAILED);
        return Ok(false);
    }
    let query = Query { caller: "query of a warmer", text, arguments: asked.arguments };
    let (mut sink, most_bytes) = (Sink::discarding(), most_bytes(space));
    let is_done = match form {
        Form::Rows => {
            compute(space, asked, &mut Rows { search, query, sink: &mut sink, most_bytes, compares: false })
        }
        Form::Json => compute(space, asked, &mut Json { search, query, meta: None }),
        Form::Value => compute(space, asked, &mut Scalar { search, query, meta: None }),
    };
    let status = status::current();
    let is_stored = is_done || stored(space, &Asked { refresh: false, ..*asked }, form, 0)?.is_some();
    status.into_iter().for_each(status::set);
    Ok(is_stored)
}

/// Computes a result, unless it is stored and `asked.refresh` is false, or the query is left out. Returns whether the result is
/// certainly stored; if not, the status may say why.
fn compute<'a, J: Job<Rules = Search<'a>>>(space: &Space, asked: &Asked<'_>, job: &mut J) -> bool {
    let wanted = asked.wanted();
    if !asked.refresh
        && let Found::Result(stored) = job.look(space, &wanted.look(false))
        && job.give(stored).is_some()
    {
        return true;
    }
    if job.rules().times_left_out >= TIMES_UNTIL_LEFT_OUT && !asked.refresh {
        status::set(refusals::LEAVES_OUT);
        return false;
    }
    // After a success, `fill` keeps the status of the miss. Without a miss, it sets `Done`.
    status::forget();
    fill::fill(space, &wanted, None, job);
    status::current() == Some(Status::Done)
}
