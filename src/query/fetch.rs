//! Returns a value by its key, or computes it by running a query (`cache_fetch`). `fill.rs` has the steps for a missing result,
//! `ticket.rs` and `refusals.rs` the rules for storing it.
//!
//! A call without `refresh` must first draw whether its hit is verified (`verify.rs`). If it is drawn, the call goes on with
//! [`verified`], which looks for the value itself. Otherwise it looks with [`find`], and calls [`fill()`] if there is no value to
//! return.

use super::counts::count_found;
use super::fill;
use super::freshness::Look;
use super::job::{Found, Job, Rules, Wanted};
use super::refusals;
use super::texts::{Known, know};
use super::verify;
use crate::pg::jsonb::Array;
use crate::pg::memory::{self, OutOfMemory};
use crate::pg::observer::Seen;
use crate::pg::query::{self, Query, Snapshot, Value};
use crate::pg::relation;
use crate::pg::varlena::Varlena;
use crate::store::entry;
use crate::store::keyspace;
use crate::store::kind::{DIFFERED, JSONB, NOTHING, RESULT};
use crate::store::latency::{self, ShortOperation};
use crate::store::note::Form;
use crate::store::space::Space;
use crate::store::status::{self, Object, Status};
use pg_cache_core::{Buffer, Kind, Meta, Stamp};
use sha2::{Digest, Sha256};
use std::rc::Rc;

/// The length of an identity in bytes. A value of the kind `RESULT` consists of the bytes of a jsonb, followed by the identity. A
/// value of the kind `NOTHING` consists of the identity only.
pub const IDENTITY_BYTES: usize = 32;

/// The identity of a result besides its key: a SHA-256 hash of the query's text, its arguments, and the relations that the caller
/// has named as dependencies. A call must never return a value with another identity, so it must be infeasible to find two queries
/// with the same identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity([u8; IDENTITY_BYTES]);

impl Identity {
    /// Returns the identity of a result. `depends` must be sorted. None and an empty list are different: an empty list says that
    /// the result depends on no relation.
    pub fn of(query: &[u8], arguments: Array<'_>, depends: Option<&[u32]>) -> Self {
        // The lengths must be part of the hash: otherwise bytes of one part could be taken for bytes of another.
        let mut digest = Sha256::new().chain_update((query.len() as u64).to_le_bytes()).chain_update(query);
        let count = depends.map_or(u64::MAX, |oids| oids.len() as u64);
        digest.update(count.to_le_bytes());
        depends.unwrap_or_default().iter().for_each(|oid| digest.update(oid.to_le_bytes()));
        digest.update(arguments.bytes());
        Self(digest.finalize().into())
    }
}

/// A buffer for the value under the key of a call. It accepts the result of the call's query. It also accepts a value of another
/// kind, such as a text of `cache_set_text`, so that `cache_fetch` can raise the error for that kind. A jsonb or a counter that was
/// set is a miss.
struct Candidate {
    value: Varlena,
    identity: Identity,
    /// The reason if the value was not accepted.
    unwanted: Option<Status>,
}

impl Buffer for Candidate {
    fn allocate(&mut self, meta: &Meta) -> &mut [u8] {
        self.value.allocate(meta)
    }

    fn was_allocated(&self) -> bool {
        self.value.was_allocated()
    }

    fn accepts(&mut self, meta: &Meta) -> bool {
        let is_other = || self.value.was_allocated() && !self.value.bytes().ends_with(&self.identity.0);
        self.unwanted = match meta.kind {
            RESULT | NOTHING if is_other() => Some(OTHER_QUERY),
            JSONB | Kind::COUNTER => Some(NO_QUERY),
            _ => None,
        };
        self.unwanted.is_none()
    }
}

const OTHER_QUERY: Status = Status::Miss("the key holds the result of another query or of other arguments");
const NO_QUERY: Status = Status::Miss("the key holds a value that was set, not the result of a query");

/// Looks for a value under this key that is the result of this query.
pub fn find(space: &Space, key: &[u8], identity: Identity, look: &Look) -> Found<(Meta, Varlena)> {
    let mut candidate = Candidate { value: Varlena::default(), identity, unwanted: None };
    let began = latency::begin(ShortOperation::Query);
    let found = entry::read_accepting(space, key, look.accepts(), &mut candidate);
    let Some(found) = found else {
        candidate.unwanted.into_iter().for_each(status::set);
        return Found::Nothing;
    };
    if [RESULT, NOTHING].contains(&found.kind) && look.renews(&found) {
        return Found::Old(found.stamp);
    }
    count_found(space, &found, began);
    Found::Result((found, candidate.value))
}

/// A call of `cache_fetch` that has no stored result to return, or whose stored result must be verified or renewed.
#[derive(Debug)]
pub struct Fetch<'a> {
    pub key: &'a [u8],
    pub query: Query<'a>,
    pub identity: Identity,
}

/// The value that a call of `cache_fetch` returns.
pub enum Answer {
    Stored(Meta, Varlena),
    /// The bytes of a jsonb, or None for a null.
    New(Option<Value>),
}

/// Returns the value, stored or new. Verifies a stored value (`verify.rs`).
pub fn verified(space: &Space, wanted: &Wanted<'_>, fetch: Fetch<'_>) -> Result<Answer, OutOfMemory> {
    let mut job = FetchJob::of(fetch)?;
    let old = match verify::find(space, wanted, &wanted.look(true), true, &mut job) {
        Found::Result(answer) => return Ok(answer),
        Found::Old(stamp) => Some(stamp),
        Found::Nothing => None,
    };
    Ok(fill::fill(space, wanted, old, &mut job))
}

/// Computes the value, or waits for the session that computes it (`fill.rs`). `old` is the stamp of the value that the call renews.
pub fn fill(
    space: &Space,
    wanted: &Wanted<'_>,
    old: Option<Stamp>,
    fetch: Fetch<'_>,
) -> Result<Answer, OutOfMemory> {
    Ok(fill::fill(space, wanted, old, &mut FetchJob::of(fetch)?))
}

/// The rules for a result under a key that the caller has chosen: the key, the identity of the result, and the facts about the
/// query.
struct ChosenKey<'a> {
    key: &'a [u8],
    identity: Identity,
    known: Rc<Known>,
}

impl Rules for ChosenKey<'_> {
    const KEY_IS_CHOSEN: bool = true;

    fn key(&self) -> &[u8] {
        self.key
    }

    fn known(&self) -> &Known {
        &self.known
    }

    fn check(&self, space: &Space, seen: &Seen) -> Result<(), Status> {
        let secured = seen.relations.iter().find(|oid| relation::has_row_security(**oid));
        if let Some(oid) = secured.filter(|_| !space.options.by_role) {
            let text = "refused: {} has row security, and the space is shared by all roles";
            return Err(Status::Of(text, Object::Relation(*oid)));
        }
        Ok(())
    }

    fn min_cost_ms(&self, space: &Space) -> Option<u64> {
        space.options.min_cost_ms
    }

    /// The marker of a wrong result must have a key of its own: under the key of the caller, it would take the place of the
    /// caller's value, and every set of the key would remove it.
    fn mark_key(&self) -> Vec<u8> {
        let digest = Sha256::new().chain_update(self.identity.0).chain_update(self.key);
        memory::copy(&keyspace::query_key(&digest.finalize().into()))
    }

    fn is_suspended(&self, space: &Space) -> bool {
        let status = status::current();
        let found = entry::peek(space, &self.mark_key());
        status.map_or_else(status::forget, status::set);
        found.is_some_and(|meta| meta.kind == DIFFERED)
    }
}

/// The job of a call of `cache_fetch`.
struct FetchJob<'a> {
    query: Query<'a>,
    rules: ChosenKey<'a>,
}

impl<'a> FetchJob<'a> {
    fn of(Fetch { key, query, identity }: Fetch<'a>) -> Result<Self, OutOfMemory> {
        let known = know(query.text.to_bytes())?;
        Ok(Self { query, rules: ChosenKey { key, identity, known } })
    }
}

impl<'a> Job for FetchJob<'a> {
    const FORM: Form = Form::Value;

    type Rules = ChosenKey<'a>;
    type Result = Answer;
    type Stored = (Meta, Varlena);

    fn rules(&self) -> &ChosenKey<'a> {
        &self.rules
    }

    fn look(&mut self, space: &Space, look: &Look) -> Found<(Meta, Varlena)> {
        find(space, self.rules.key, self.rules.identity, look)
    }

    fn give(&mut self, (meta, value): (Meta, Varlena)) -> Option<Answer> {
        Some(Answer::Stored(meta, value))
    }

    fn meta(stored: &(Meta, Varlena)) -> Meta {
        stored.0
    }

    fn is_same(&mut self, (meta, value): &(Meta, Varlena), result: &Answer) -> bool {
        let Answer::New(value_of_run) = result else { return true };
        let stored = value.bytes().strip_suffix(&self.rules.identity.0).unwrap_or(value.bytes());
        match value_of_run {
            Some(new) => meta.kind == RESULT && new.bytes == stored,
            None => meta.kind == NOTHING,
        }
    }

    fn run(&mut self, on: Snapshot, before: &mut dyn FnMut(&[u32])) -> Answer {
        Answer::New(query::scalar(&self.query, on, before))
    }

    fn has_composites(&self, result: &Answer) -> bool {
        matches!(result, Answer::New(Some(value)) if value.has_composites)
    }

    fn query(&self) -> &Query<'_> {
        &self.query
    }

    fn rows(&self, result: &Answer) -> u64 {
        u64::from(matches!(result, Answer::New(Some(_))))
    }

    fn with_value(
        &mut self,
        space: &Space,
        result: &mut Answer,
        store: impl FnOnce(Kind, &[u8]) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let mut nothing = Vec::new();
        let (kind, bytes) = match result {
            Answer::New(Some(value)) => (RESULT, &mut value.bytes),
            _ => (NOTHING, &mut nothing),
        };
        let length = bytes.len();
        refusals::admit_size(space, length)?;
        refusals::admit_value(space, length)?;
        bytes.try_reserve_exact(IDENTITY_BYTES).map_err(OutOfMemory::from)?;
        bytes.extend_from_slice(&self.rules.identity.0);
        let stored = store(kind, bytes);
        bytes.truncate(length);
        stored
    }
}
