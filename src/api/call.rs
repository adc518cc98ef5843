//! The SQL functions that cache the results of functions: `cache_call`, `cache_wrap`, and the function that wrappers call. They
//! make a query of the function's signature (`pg/signature.rs`), whose result is then cached like that of `cache_query`. A function
//! with an argument whose type depends on the call, such as `anyelement`, cannot be cached (`require_types`).

use super::arguments::{self, invalid, null};
use super::fetch::dependencies;
use crate::pg::call_info::{Call, Sent};
use crate::pg::error::{OrRaise, Refused};
use crate::pg::jsonb::Array;
use crate::pg::relation::RelationOids;
use crate::pg::rows::Sink;
use crate::pg::signature::{FunctionOid, Signature};
use crate::pg::typed::Typed;
use crate::pg::varlena::{Jsonb, JsonbArgument, TextArgument, TextsArgument};
use crate::pg::{create, query};
use crate::query::asked::Asked;
use crate::query::result;
use crate::store::space::Privilege;
use pgrx::prelude::*;

/// Returns the result of a function as jsonb, stored or new. If the function returns a set, the result is an array.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::too_many_arguments)]
fn cache_call(
    func: Option<FunctionOid>,
    args: default!(Option<JsonbArgument<'_>>, "NULL"),
    ttl: default!(Option<Interval>, "NULL"),
    tags: default!(Option<TextsArgument<'_>>, "NULL"),
    stale_ok: default!(Option<Interval>, "NULL"),
    refresh: default!(Option<bool>, "false"),
    depends: default!(Option<RelationOids>, "NULL"),
    space: default!(Option<TextArgument<'_>>, "'default'"),
) -> Option<Jsonb> {
    let result = || -> Result<_, Refused> {
        let function = func.ok_or_else(|| null("func"))?;
        let array = args.map_or(Some(Array::EMPTY), Array::of).ok_or_else(|| {
            invalid("args must be an array of JSON").hint("Use args => '[1, \"two\"]' for two arguments.")
        })?;
        let ttl_ms = ttl.map(arguments::ttl).transpose()?;
        let tags = arguments::tags(tags)?;
        let stale_ok_ms = arguments::stale_ok(stale_ok)?;
        let refresh = refresh.ok_or_else(|| null("refresh"))?;
        let depends = depends.map(dependencies).transpose()?;
        let space = arguments::space(space, Privilege::Read)?;
        let signature = Signature::of(function)?;
        signature.require_types()?;
        signature.require_arguments(array.elements().len())?;
        let text = signature.value_query(array.elements().len());
        let asked = Asked {
            text: text.to_bytes(),
            arguments: query::Arguments::Json(array),
            ttl_ms,
            tags: &tags,
            stale_ok_ms,
            refresh,
            depends: depends.as_deref(),
            reader: None,
        };
        let caller = format!("query of cache_call, function {}", signature.shown());
        Ok(result::value(&caller, &space, &asked, &text)?.map(Jsonb))
    };
    result().or_raise()
}

/// Creates the *wrapper* of a function: a function with the same signature, and with the suffix `_cached` behind its name. It
/// returns the result of the function, stored or new. The caller must own the function. This only checks `ttl`, `tags` and `space`:
/// `create::wrapper` takes them from `call`, by their places, and writes them into the body of the wrapper. The search path of the
/// declaration is a precondition of `create::wrapper`.
#[pg_extern(
    volatile,
    parallel_unsafe,
    sql = "CREATE FUNCTION cache_wrap(func regprocedure, ttl interval DEFAULT NULL, tags text[] DEFAULT NULL,
        space text DEFAULT 'default')
        RETURNS regprocedure LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
        AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';"
)]
fn cache_wrap(
    func: Option<FunctionOid>,
    ttl: Option<Interval>,
    tags: Option<TextsArgument<'_>>,
    space: Option<TextArgument<'_>>,
    call: Call,
) -> pg_sys::Oid {
    let create = || -> Result<u32, Refused> {
        let function = func.ok_or_else(|| null("func"))?;
        ttl.map(arguments::ttl).transpose()?;
        arguments::tags(tags)?;
        arguments::space(space, Privilege::Read)?;
        let signature = Signature::of(function)?;
        signature.require_owner()?;
        signature.require_types()?;
        create::wrapper(call, &signature)
    };
    create().or_raise().into()
}

/// Returns the rows of a function, stored or new. The wrappers that `cache_wrap` creates call it. `call` has the function, as a
/// regprocedure, followed by the arguments for the function. Wrappers stay when the library is updated, so the arguments must keep
/// their meaning.
#[pg_extern(
    volatile,
    parallel_unsafe,
    sql = "CREATE FUNCTION cache_wrapped(ttl interval, tags text[], space text, VARIADIC call \"any\")
        RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';"
)]
fn cache_wrapped(
    ttl: Option<Interval>,
    tags: Option<TextsArgument<'_>>,
    space: Option<TextArgument<'_>>,
    call: Call,
) -> Sent {
    /// The index of the argument that is the function.
    const FUNCTION: usize = 3;
    let rows = || -> Result<(), Refused> {
        let ttl_ms = ttl.map(arguments::ttl).transpose()?;
        let tags = arguments::tags(tags)?;
        let space = arguments::space(space, Privilege::Read)?;
        let signature = Signature::of(create::wrapped(call, FUNCTION)?)?;
        let values = Typed::of_call(call, FUNCTION + 1)?;
        signature.require_arguments(values.len())?;
        let text = signature.rows_query(values.len());
        let asked = Asked {
            text: text.to_bytes(),
            arguments: query::Arguments::Typed(&values),
            ttl_ms,
            tags: &tags,
            stale_ok_ms: None,
            refresh: false,
            depends: None,
            reader: None,
        };
        let caller = format!("query of a cached function, {}", signature.shown());
        Ok(result::rows_for(&caller, &space, &asked, &text, &mut Sink::new(call))?)
    };
    rows().or_raise();
    Sent
}
