//! Returns a value by its key, or computes it by running a query (`cache_fetch`). `fill.rs` has the rules by which a result is
//! stored.

use super::fill::{self, Job, Wanted};
use super::texts::{Known, know};
use crate::pg::jsonb::Array;
use crate::pg::memory::OutOfMemory;
use crate::pg::observer::Seen;
use crate::pg::query::{self, Query, Snapshot, Value};
use crate::pg::relation;
use crate::pg::varlena::Varlena;
use crate::store::entry;
use crate::store::kind::{JSONB, NOTHING, RESULT};
use crate::store::note::Form;
use crate::store::space::Space;
use crate::store::status::{self, Object, Status};
use pg_cache_core::{Buffer, Cost, Counter, FenceId, Kind, Meta};
use sha2::{Digest, Sha256};
use std::rc::Rc;

/// The bytes of an identity: those of a SHA-256 hash. A value of the kind `RESULT` is the bytes of a jsonb and behind them the
/// identity. A value of the kind `NOTHING` is only the identity.
pub const IDENTITY_BYTES: usize = 32;

/// The identity of a result besides its key: a SHA-256 of the query's text, its arguments, and the relations that the caller has
/// named as its dependencies. A value with another identity must never be returned, so it must be infeasible to find two queries
/// with the same identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity([u8; IDENTITY_BYTES]);

impl Identity {
    /// Returns the identity of a result. `depends` must be sorted. None and an empty list are different: an empty list says that
    /// the result depends on no relation.
    pub fn of(query: &[u8], arguments: Array<'_>, depends: Option<&[u32]>) -> Self {
        // The lengths separate the parts, so that no byte of one can belong to another.
        let mut digest = Sha256::new().chain_update((query.len() as u64).to_le_bytes()).chain_update(query);
        let count = depends.map_or(u64::MAX, |oids| oids.len() as u64);
        digest.update(count.to_le_bytes());
        depends.unwrap_or_default().iter().for_each(|oid| digest.update(oid.to_le_bytes()));
        digest.update(arguments.bytes());
        Self(digest.finalize().into())
    }
}

/// Receives a value, and accepts the result of its own query. It also accepts a text or bytea of `cache_set_text` or
/// `cache_set_bytes`, so that `cache_fetch` can raise the error for a value of another kind.
struct Candidate {
    value: Varlena,
    identity: Identity,
    /// Why the value was not accepted.
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

/// Returns the value, if there is one for this session and this query. Counts the cost of computing it as time saved.
pub fn read(space: &Space, key: &[u8], identity: Identity) -> Option<(Meta, Varlena)> {
    let mut candidate = Candidate { value: Varlena::default(), identity, unwanted: None };
    let found = entry::read(space, key, &mut candidate);
    if found.is_none()
        && let Some(status) = candidate.unwanted
    {
        status::set(status);
    }
    let found = found?;
    if let Some(keyspace) = space.keyspace().filter(|_| found.cost != Cost::NONE) {
        keyspace.tier.note(&keyspace.scope, Counter::Saved, found.cost.micros());
    }
    Some((found, candidate.value))
}

/// The query of a call of `cache_fetch`.
struct Fetch<'a> {
    query: Query<'a>,
    identity: Identity,
    known: Rc<Known>,
}

/// Runs the query and stores its result, if it can be stored, and returns the bytes of the jsonb, or None for a null.
pub fn fill(
    space: &Space,
    wanted: &Wanted<'_>,
    query: Query<'_>,
    identity: Identity,
) -> Result<Option<Vec<u8>>, OutOfMemory> {
    let known = know(query.text.to_bytes())?;
    let value = fill::fill(space, wanted, &mut Fetch { query, identity, known });
    Ok(value.map(|value| value.bytes))
}

impl Job for Fetch<'_> {
    const KEY_IS_CHOSEN: bool = true;
    const FORM: Form = Form::Value;

    type Result = Option<Value>;

    fn run(&mut self, on: Snapshot, before: &mut dyn FnMut(&[u32])) -> Self::Result {
        query::scalar(&self.query, on, before)
    }

    fn check(&self, space: &Space, _: &Wanted<'_>, seen: &Seen) -> Result<(), Status> {
        let secured = seen.relations.iter().find(|oid| relation::has_row_security(**oid));
        if let Some(oid) = secured.filter(|_| !space.options.by_role) {
            let text = "refused: {} has row security, and the space is shared by all roles";
            return Err(Status::Of(text, Object::Relation(*oid)));
        }
        Ok(())
    }

    fn add_definitions(&self, result: &Self::Result, seen: &Seen, fences: &mut Vec<FenceId>) {
        let has_composites = result.as_ref().is_some_and(|value| value.has_composites);
        fill::add_definitions(&self.known, seen, has_composites, fences);
    }

    fn text(&self) -> &[u8] {
        self.query.text.to_bytes()
    }

    fn rows(&self, result: &Self::Result) -> u64 {
        u64::from(result.is_some())
    }

    fn min_cost_ms(&self, space: &Space) -> Option<u64> {
        space.options.min_cost_ms
    }

    fn with_value(
        &mut self,
        space: &Space,
        result: &mut Self::Result,
        store: impl FnOnce(Kind, &[u8]) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let kind = if result.is_some() { RESULT } else { NOTHING };
        let mut nothing = Vec::new();
        let bytes = result.as_mut().map_or(&mut nothing, |value| &mut value.bytes);
        let length = bytes.len();
        fill::admit_size(space, length)?;
        fill::admit_value(space, length)?;
        bytes.try_reserve_exact(IDENTITY_BYTES).map_err(OutOfMemory::from)?;
        bytes.extend_from_slice(&self.identity.0);
        let stored = store(kind, bytes);
        bytes.truncate(length);
        stored
    }
}
