//! The SQL functions that cache the results of queries under keys that pg_cache computes from the query: `cache_query`,
//! `cache_query_json`, `cache_key` and `cache_explain`. This file checks the arguments; `query/` runs the queries and stores the
//! results.

use super::arguments::{self, invalid, null};
use super::fetch::dependencies;
use crate::pg::call_info::{Call, Sent};
use crate::pg::error::{OrRaise, Refused};
use crate::pg::jsonb::Array;
use crate::pg::memory;
use crate::pg::relation::RelationOids;
use crate::pg::rows::Sink;
use crate::pg::varlena::{Jsonb, JsonbArgument, Text, TextArgument, TextsArgument, Varlena};
use crate::pg::{interval, query, shared};
use crate::query::asked::Asked;
use crate::query::explain::explain;
use crate::query::result;
use crate::store::cause;
use crate::store::space::{Privilege, Space};
use pgrx::prelude::*;
use std::ffi::CStr;
use std::rc::Rc;

/// The arguments that the functions of this file have in common.
struct Arguments<'a> {
    query: Option<TextArgument<'a>>,
    args: Option<JsonbArgument<'a>>,
    ttl: Option<Interval>,
    tags: Option<TextsArgument<'a>>,
    stale_ok: Option<Interval>,
    refresh: Option<bool>,
    depends: Option<RelationOids>,
    space: Option<TextArgument<'a>>,
}

impl<'a> Arguments<'a> {
    /// The arguments of a function that asks about a query and does not run it.
    fn of_query(
        query: Option<TextArgument<'a>>,
        args: Option<JsonbArgument<'a>>,
        depends: Option<RelationOids>,
        space: Option<TextArgument<'a>>,
    ) -> Self {
        Self { query, args, ttl: None, tags: None, stale_ok: None, refresh: Some(false), depends, space }
    }

    /// Checks the arguments, and calls `run` with the space, the call, and the text of the query with a terminating zero. The call
    /// has no *reader*: that is the role with whose privileges a cached view is read (`view.rs`).
    fn check<R>(
        self,
        run: impl FnOnce(&Rc<Space>, &Asked<'_>, &CStr) -> Result<R, Refused>,
    ) -> Result<R, Refused> {
        let text = self.query.ok_or_else(|| null("query"))?.bytes();
        let arguments = self.args.map_or(Some(Array::EMPTY), Array::of).ok_or_else(|| {
            invalid("args must be an array of JSON")
                .hint("Use args => '[1, \"two\"]' for the parameters $1 and $2.")
        })?;
        let ttl_ms = self.ttl.map(arguments::ttl).transpose()?;
        let tags = arguments::tags(self.tags)?;
        let stale_ok_ms = arguments::stale_ok(self.stale_ok)?;
        let refresh = self.refresh.ok_or_else(|| null("refresh"))?;
        let depends = self.depends.map(dependencies).transpose()?;
        let space = arguments::space(self.space, Privilege::Read)?;
        let terminated =
            memory::terminated(text).ok_or_else(|| invalid("query must not contain a zero byte"))?;
        let asked = Asked {
            text,
            arguments: query::Arguments::Json(arguments),
            ttl_ms,
            tags: &tags,
            stale_ok_ms,
            refresh,
            depends: depends.as_deref(),
            reader: None,
        };
        run(&space, &asked, &terminated)
    }

    /// Puts the rows of the query into the result of the function.
    fn send(self, call: Call) -> Sent {
        let mut sink = Sink::new(call);
        let send = |space: &Rc<Space>, asked: &Asked<'_>, text: &CStr| {
            Ok(result::rows(space, asked, text, &mut sink)?)
        };
        self.check(send).or_raise();
        Sent
    }
}

/// Returns the rows of a query, stored or new.
#[pg_extern(
    volatile,
    parallel_unsafe,
    sql = "CREATE FUNCTION cache_query(query text, args jsonb DEFAULT NULL, ttl interval DEFAULT NULL, tags text[] DEFAULT NULL,
        stale_ok interval DEFAULT NULL, refresh boolean DEFAULT false, depends regclass[] DEFAULT NULL, space text DEFAULT 'default')
        RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';"
)]
#[allow(clippy::too_many_arguments)]
fn cache_query(
    query: Option<TextArgument<'_>>,
    args: Option<JsonbArgument<'_>>,
    ttl: Option<Interval>,
    tags: Option<TextsArgument<'_>>,
    stale_ok: Option<Interval>,
    refresh: Option<bool>,
    depends: Option<RelationOids>,
    space: Option<TextArgument<'_>>,
    call: Call,
) -> Sent {
    Arguments { query, args, ttl, tags, stale_ok, refresh, depends, space }.send(call)
}

/// Does the same for arguments that are a text of JSON, for callers that pass a text. With this function, `cache_query('…', '…')`
/// also means a query and its arguments: without it, PostgreSQL would take the first literal for the row type.
#[pg_extern(
    volatile,
    parallel_unsafe,
    sql = "CREATE FUNCTION cache_query(query text, args text, ttl interval DEFAULT NULL, tags text[] DEFAULT NULL,
        stale_ok interval DEFAULT NULL, refresh boolean DEFAULT false, depends regclass[] DEFAULT NULL, space text DEFAULT 'default')
        RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';"
)]
#[allow(clippy::too_many_arguments)]
fn cache_query_with_text(
    query: Option<TextArgument<'_>>,
    args: Option<TextArgument<'_>>,
    ttl: Option<Interval>,
    tags: Option<TextsArgument<'_>>,
    stale_ok: Option<Interval>,
    refresh: Option<bool>,
    depends: Option<RelationOids>,
    space: Option<TextArgument<'_>>,
    call: Call,
) -> Sent {
    let args = args.map(JsonbArgument::parse);
    Arguments { query, args, ttl, tags, stale_ok, refresh, depends, space }.send(call)
}

/// Does the same with the type of the rows as the first argument, so that the caller needs no list of columns.
#[pg_extern(
    volatile,
    parallel_unsafe,
    sql = "CREATE FUNCTION cache_query(row_type anyelement, query text, args jsonb DEFAULT NULL, ttl interval DEFAULT NULL,
        tags text[] DEFAULT NULL, stale_ok interval DEFAULT NULL, refresh boolean DEFAULT false, depends regclass[] DEFAULT NULL,
        space text DEFAULT 'default')
        RETURNS SETOF anyelement LANGUAGE c VOLATILE PARALLEL UNSAFE AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';"
)]
#[allow(clippy::too_many_arguments)]
fn cache_query_as(
    _row_type: Option<pgrx::datum::AnyElement>,
    query: Option<TextArgument<'_>>,
    args: Option<JsonbArgument<'_>>,
    ttl: Option<Interval>,
    tags: Option<TextsArgument<'_>>,
    stale_ok: Option<Interval>,
    refresh: Option<bool>,
    depends: Option<RelationOids>,
    space: Option<TextArgument<'_>>,
    call: Call,
) -> Sent {
    if call.is_domain_over_composite(0) {
        let code = PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE;
        Refused::new(code, "row_type must not be a domain over a composite type")
            .hint("Use the composite type.")
            .raise();
    }
    Arguments { query, args, ttl, tags, stale_ok, refresh, depends, space }.send(call)
}

/// Returns the rows of a query, stored or new, as a jsonb: an array with an object for each row.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::too_many_arguments)]
fn cache_query_json(
    query: Option<TextArgument<'_>>,
    args: default!(Option<JsonbArgument<'_>>, "NULL"),
    ttl: default!(Option<Interval>, "NULL"),
    tags: default!(Option<TextsArgument<'_>>, "NULL"),
    stale_ok: default!(Option<Interval>, "NULL"),
    refresh: default!(Option<bool>, "false"),
    depends: default!(Option<RelationOids>, "NULL"),
    space: default!(Option<TextArgument<'_>>, "'default'"),
) -> Jsonb {
    let arguments = Arguments { query, args, ttl, tags, stale_ok, refresh, depends, space };
    let json = |space: &Rc<Space>, asked: &Asked<'_>, text: &CStr| Ok(result::json(space, asked, text)?);
    Jsonb(arguments.check(json).or_raise())
}

/// Does the same. Also returns the status of the call, the age of the stored result, and the time until it expires.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::too_many_arguments, clippy::type_complexity)]
fn cache_query_json_status(
    query: Option<TextArgument<'_>>,
    args: default!(Option<JsonbArgument<'_>>, "NULL"),
    ttl: default!(Option<Interval>, "NULL"),
    tags: default!(Option<TextsArgument<'_>>, "NULL"),
    stale_ok: default!(Option<Interval>, "NULL"),
    refresh: default!(Option<bool>, "false"),
    depends: default!(Option<RelationOids>, "NULL"),
    space: default!(Option<TextArgument<'_>>, "'default'"),
) -> TableIterator<
    'static,
    (
        name!(value, Jsonb),
        name!(status, Option<String>),
        name!(age, Option<Interval>),
        name!(ttl, Option<Interval>),
    ),
> {
    let arguments = Arguments { query, args, ttl, tags, stale_ok, refresh, depends, space };
    let json =
        |space: &Rc<Space>, asked: &Asked<'_>, text: &CStr| Ok(result::json_with_meta(space, asked, text)?);
    let (value, meta) = arguments.check(json).or_raise();
    let age = meta.map(|meta| interval::of_ms(shared::ms_since(meta.created)));
    let ttl = meta.map(|meta| interval::of_ms(shared::ms_until(meta.expires)));
    TableIterator::once((Jsonb(value), cause::status_in_words(), age, ttl))
}

/// Returns the key under which `cache_query` stores the result of a query for this session.
#[pg_extern(volatile, parallel_unsafe)]
fn cache_key(
    query: Option<TextArgument<'_>>,
    args: default!(Option<JsonbArgument<'_>>, "NULL"),
    depends: default!(Option<RelationOids>, "NULL"),
    space: default!(Option<TextArgument<'_>>, "'default'"),
) -> Text {
    let arguments = Arguments::of_query(query, args, depends, space);
    let key = |space: &Rc<Space>, asked: &Asked<'_>, _: &CStr| Ok(result::key(space, asked)?);
    Text(Varlena::of(&arguments.check(key).or_raise()))
}

/// Returns whether and how the result of a query is stored, without running the query.
#[pg_extern(volatile, parallel_unsafe)]
fn cache_explain(
    query: Option<TextArgument<'_>>,
    args: default!(Option<JsonbArgument<'_>>, "NULL"),
    depends: default!(Option<RelationOids>, "NULL"),
    space: default!(Option<TextArgument<'_>>, "'default'"),
) -> TableIterator<'static, (name!(property, &'static str), name!(value, String))> {
    let arguments = Arguments::of_query(query, args, depends, space);
    let explain = |space: &Rc<Space>, asked: &Asked<'_>, text: &CStr| Ok(explain(space, asked, text)?);
    TableIterator::new(arguments.check(explain).or_raise())
}
