//! Computes and stores results for workers: those of warmers (`store/warmer.rs`), and those that are kept warm (`store/kept.rs`).
//! No caller gets them. A *tick* is 50 ms on the clock of `pg/clock.rs`.

use super::asked::Asked;
use super::fill;
use super::forms::{Json, Rows, Scalar};
use super::job::{Found, Job, Rules};
use super::refusals;
use super::search::Search;
use super::ticket::TIMES_UNTIL_LEFT_OUT;
use super::verify;
use crate::pg::memory::OutOfMemory;
use crate::pg::query::Query;
use crate::pg::rows::Sink;
use crate::pg::shared;
use crate::store::entry;
use crate::store::kind::{self, JSON, ROWS, VARIES};
use crate::store::note::{self, Form};
use crate::store::space::Space;
use crate::store::status::{self, Status};
use pg_cache_core::Meta;
use std::ffi::CStr;

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
        kind::decompressed(meta.kind).unwrap_or(meta.kind) == expected
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
    Ok(search.key == *key || search.full_key() == *key)
}

/// Computes and stores the result of a query in this form, unless it is stored already and `asked.refresh` is false. `text` must be
/// the text of `asked`. Returns whether the result is stored now; if not, the status says why. The query does not run if the
/// session may not compute or read values of the space, or if the query is left out (`TIMES_UNTIL_LEFT_OUT` in `ticket.rs`). Raises
/// the errors of the query.
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
    let mut sink = Sink::discarding();
    let is_done = match form {
        Form::Rows => compute(space, asked, &mut Rows::new(search, query, &mut sink, space)),
        Form::Json => compute(space, asked, &mut Json::new(search, query)),
        Form::Value => compute(space, asked, &mut Scalar::new(search, query)),
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
    if job.rules().times_left_out() >= TIMES_UNTIL_LEFT_OUT && !asked.refresh {
        status::set(refusals::LEAVES_OUT);
        return false;
    }
    // After a success, `fill` keeps the status of the miss. Without a miss, it sets `Done`.
    status::forget();
    fill::fill(space, &wanted, None, job);
    status::current() == Some(Status::Done)
}
