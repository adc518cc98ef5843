//! Returns the result of a query, stored or new (`cache_query` and its family). `search.rs` looks for a stored result, `fill.rs`
//! has the steps for a missing one, `ticket.rs` and `refusals.rs` the rules for storing it.

use super::asked::Asked;
use super::fill;
use super::forms::{Json, Rows, Scalar};
use super::job::{Found, Job};
use super::search::Search;
use super::verify;
use crate::pg::memory::OutOfMemory;
use crate::pg::query::Query;
use crate::pg::rows::Sink;
use crate::pg::varlena::Varlena;
use crate::store::keyspace::QueryKey;
use crate::store::kind;
use crate::store::note::Form;
use crate::store::space::Space;
use crate::store::status;
use pg_cache_core::Meta;
use std::ffi::CStr;

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
    let search = Search::new(asked, Form::Rows)?;
    let query = Query { caller, text, arguments: asked.arguments };
    obtain(space, asked, &mut Rows::new(search, query, sink, space));
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
    let mut job = Json::new(search, query);
    let answer = obtain(space, asked, &mut job);
    let meta = job.meta.or_else(|| {
        let status = status::current();
        let stored = job.search.peek(space).map(|(meta, _)| meta).filter(|meta| !kind::is_marker(meta.kind));
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
    let answer = obtain(space, asked, &mut Scalar::new(search, query));
    Ok(jsonb_of(answer.bytes()))
}

/// Returns the value that the bytes of a jsonb stand for. No bytes stand for a null, because every jsonb has some.
fn jsonb_of(bytes: &[u8]) -> Option<Varlena> {
    (!bytes.is_empty()).then(|| Varlena::of(bytes))
}

/// Returns the key under which the rows of a query are stored, or would be stored, for this session.
pub fn key(space: &Space, asked: &Asked<'_>) -> Result<QueryKey, OutOfMemory> {
    let mut search = Search::new(asked, Form::Rows)?;
    search.peek(space);
    Ok(search.key)
}
