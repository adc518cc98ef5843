//! Looks for the stored result of a query under its key (`asked.rs`), and decides whether the result of a run may be stored there
//! ([`Rules`]).
//!
//! A *marker* is an entry without a result (`store/kind.rs`). A query that reads settings has two entries: a marker under the
//! *basic key*, which leaves out most settings, and the result under the *full key*, which has all settings. So a search looks
//! under the basic key first. If it finds the marker ([`VARIES`]), it continues with the full key. The *note* of an entry has its
//! tags and some facts about the query (`store/note.rs`).

use super::asked::Asked;
use super::clock;
use super::compress;
use super::counts::count_found;
use super::freshness::Look;
use super::job::{Found, Rules};
use super::run;
use super::texts::{Known, know};
use super::verify;
use crate::pg::environment;
use crate::pg::memory::{self, OutOfMemory};
use crate::pg::observer::Seen;
use crate::pg::rows::Room;
use crate::pg::shared;
use crate::store::entry::{self, Accepts};
use crate::store::keyspace::QueryKey;
use crate::store::kind::{self, DIFFERED, LEFT_OUT, VARIES};
use crate::store::latency::{self, ShortOperation};
use crate::store::note::{self, Form, OnlyNote};
use crate::store::space::Space;
use crate::store::status::{self, Object, Status};
use pg_cache_core::{Buffer, Kind, Meta, NOTE_BYTES_MAX};
use std::collections::BTreeSet;
use std::rc::Rc;

/// The longest time to live of a result that read the clock, in milliseconds, unless the caller has asked for another one.
const CLOCK_MS_MAX: u64 = 60_000;

/// The buffer into which an entry is read. It accepts the entry if it is a marker, or a result that the call can use. With `NOTE`,
/// it also receives the note. Only calls with tags, and sessions with a schema for temporary objects, need the note to decide.
struct Candidate<'a, const NOTE: bool> {
    room: Room,
    /// The kind of the result that the call can use.
    kind: Kind,
    search: &'a Search<'a>,
    note: Vec<u8>,
    /// Why the buffer has not accepted the result.
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
        !kind::is_marker(meta.kind)
    }

    fn accepts(&mut self, meta: &Meta) -> bool {
        let asked = self.search.asked;
        let is_older = |ttl_ms| shared::ms_since(meta.created) >= ttl_ms;
        let lacks = |tag: &&[u8]| !note::tags(meta.kind, &self.note).any(|own| own == *tag);
        let facts = || note::facts(meta.kind, &self.note);
        self.unwanted = if kind::is_marker(meta.kind) {
            // `find_any` handles the marker.
            None
        } else if kind::decompressed(meta.kind).unwrap_or(meta.kind) != self.kind {
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
            // The names in the text are known (`may_be_temporary`), but the query may use further names.
            Some(Status::Miss(TEMPORARY))
        } else {
            None
        };
        self.unwanted.is_none()
    }
}

/// Why there is no result if its key holds the marker [`LEFT_OUT`].
const TOO_LATE: &str = "invalidated before it could be stored";

/// Why no result is found or stored if a name that the query uses may be that of a temporary object of this session.
const TEMPORARY: &str = "the query may mean temporary objects of this session";

/// The search for the result of a query.
#[derive(Debug)]
pub(super) struct Search<'a> {
    pub(super) asked: &'a Asked<'a>,
    form: Form,
    known: Rc<Known>,
    /// The key under which the search looks: the basic key, and the full key after the search has found [`VARIES`].
    pub(super) key: QueryKey,
    /// Whether `key` is the full key.
    pub(super) is_full: bool,
    /// The number of results in a row that were invalid before they could be stored. The marker [`LEFT_OUT`] has this number. 0 if
    /// the search has not found that marker.
    times_left_out: u8,
    /// Whether the search has found the marker [`DIFFERED`]: a stored result was wrong, so no results of the query are stored.
    is_suspended: bool,
}

impl<'a> Search<'a> {
    /// Makes a search that begins with the basic key.
    pub(super) fn new(asked: &'a Asked<'a>, form: Form) -> Result<Self, OutOfMemory> {
        let known = know(asked.text)?;
        let key = asked.key(form, &known, &environment::basic());
        Ok(Self { asked, form, known, key, is_full: false, times_left_out: 0, is_suspended: false })
    }

    /// Returns the full key of the result for this session.
    pub(super) fn full_key(&self) -> QueryKey {
        self.asked.key(self.form, &self.known, &environment::full())
    }

    /// Looks for a stored result of this kind that the call can use. Counts it (`counts.rs`), unless the call should renew it.
    pub(super) fn find(&mut self, space: &Space, kind: Kind, look: &Look) -> Found<(Meta, Room)> {
        let began = latency::begin(ShortOperation::Query);
        match self.find_any(space, kind, look) {
            Some((meta, _)) if look.renews(&meta) => Found::Old(meta.stamp),
            Some(found) => {
                count_found(space, &found.0, began);
                Found::Result(found)
            }
            None => Found::Nothing,
        }
    }

    /// Does the same as [`find`](Self::find), but also returns a result that the call should renew, and leaves out these counts.
    /// If there is no result, the status says why.
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
        if kind::decompressed(meta.kind).is_some() {
            room = decompressed(&room, meta)?;
        }
        // Under the full key, this marker leads nowhere.
        if meta.kind == VARIES {
            status::set(Status::Miss("the key holds another kind of value"));
            return None;
        }
        Some((meta, room))
    }

    /// Returns the metadata and the note of the entry, which may be a marker. Does not check whether the call could use the entry
    /// by its kind, tags and age. If the basic key holds [`VARIES`], looks under the full key, which is then the `key` of the
    /// search. Does not count as a read. If there is no entry, or another marker, the status says why there is no result.
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
    pub(super) fn is_marked_as_wrong(&mut self, space: &Space) -> bool {
        self.peek(space).is_some_and(|(meta, _)| meta.kind == DIFFERED)
    }

    /// Looks under the key for a marker, or for a result of this kind that the call can use.
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

    /// Returns whether a name that the query has used may be that of a temporary object of this session: a name in its text, or one
    /// that the run does not show, for instance in the text of a function.
    fn may_have_meant_temporary(&self, seen: &Seen) -> bool {
        self.may_be_temporary() || run::may_name_more(seen) && environment::has_temporary_objects()
    }

    /// Returns whether a name in the text of the query may be that of a temporary relation or type of this session. The server
    /// usually looks for these before it looks into the schemas of the search path. If the names are not known, the answer is yes
    /// for each session that has a schema for temporary objects.
    pub(super) fn may_be_temporary(&self) -> bool {
        let are_temporary =
            |names: &BTreeSet<Vec<u8>>| environment::in_temporary_schema(names.iter().map(Vec::as_slice));
        environment::has_temporary_schema() && self.known.text.identifiers.as_ref().is_none_or(are_temporary)
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
        // A volatile query is refused by `refusals.rs`, with a status that names the volatile function.
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
        (!self.is_full).then(|| (memory::copy(&self.full_key()), VARIES))
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

/// Decompresses a value. If that is not possible, returns None, and the status says why.
fn decompressed(room: &Room, meta: Meta) -> Option<Room> {
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
