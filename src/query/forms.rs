//! The forms in which the result of a query is stored and returned: rows, or a jsonb of all rows or of the only value. The types of
//! this file implement the trait [`Job`], which has the rules for its methods and their order (`job.rs`). `fetch.rs` has the form
//! of `cache_fetch`.

use super::freshness::Look;
use super::job::{Found, Job};
use super::refusals;
use super::search::Search;
use crate::pg::jsonb;
use crate::pg::query::{self, Query, Snapshot, Value};
use crate::pg::reader::Reader;
use crate::pg::rows::{Replayed, Room, Sink};
use crate::store::kind::{JSON, ROWS};
use crate::store::note::{Form, Terms};
use crate::store::space::Space;
use crate::store::status::{self, Status};
use pg_cache_core::{Kind, Meta};

/// The bits of a jsonb's first word that count the elements of an array.
const ELEMENTS: u32 = 0x0fff_ffff;

/// A query whose rows go to the caller of a set-returning function.
pub(super) struct Rows<'a, 's> {
    search: Search<'a>,
    query: Query<'a>,
    sink: &'s mut Sink,
    /// The most bytes of rows that are kept for storing, before compression.
    most_bytes: usize,
    /// Whether the rows of the run are compared with stored rows, and not stored.
    compares: bool,
}

impl<'a, 's> Rows<'a, 's> {
    pub(super) fn new(search: Search<'a>, query: Query<'a>, sink: &'s mut Sink, space: &Space) -> Self {
        let most_bytes = space.options.max_result_bytes().min(usize::MAX as u64) as usize;
        Self { search, query, sink, most_bytes, compares: false }
    }
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
pub(super) enum Answer {
    Stored(Room),
    New(Value),
}

impl Answer {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Stored(room) => room.bytes(),
            Self::New(value) => &value.bytes,
        }
    }
}

/// A query whose result is stored as one jsonb: of all rows, or of the only value.
pub(super) struct Jsonb<'a, const IS_SCALAR: bool> {
    pub(super) search: Search<'a>,
    query: Query<'a>,
    /// The metadata of the entry that the result was found in.
    pub(super) meta: Option<Meta>,
}

pub(super) type Json<'a> = Jsonb<'a, false>;
pub(super) type Scalar<'a> = Jsonb<'a, true>;

impl<'a, const IS_SCALAR: bool> Jsonb<'a, IS_SCALAR> {
    pub(super) fn new(search: Search<'a>, query: Query<'a>) -> Self {
        Self { search, query, meta: None }
    }
}

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
