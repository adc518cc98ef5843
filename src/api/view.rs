//! SQL functions for cached views. A *cached view* is an ordinary view that gets its rows from the cache.

use super::arguments::{self, invalid, null};
use crate::pg::call_info::{Call, Sent};
use crate::pg::error::{OrRaise, Refused};
use crate::pg::reader::Reader;
use crate::pg::relation::RelationOid;
use crate::pg::role::Role;
use crate::pg::rows::Sink;
use crate::pg::typed::Typed;
use crate::pg::varlena::{ByteaArgument, TextArgument, TextsArgument};
use crate::pg::view_owner::{self, Handler};
use crate::pg::{create, memory, query};
use crate::query::asked::Asked;
use crate::query::result;
use crate::store::space::{self, Privilege};
use pgrx::prelude::*;

#[pg_schema]
mod pgcache {
    use super::*;

    /// Returns the functions of the foreign data wrapper that the foreign table `cache_view_owner` has.
    #[pg_extern(sql = "CREATE FUNCTION pgcache.view_owner_handler() RETURNS pg_catalog.fdw_handler
            LANGUAGE c STRICT AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';")]
    fn view_owner_handler() -> Handler {
        Handler::new()
    }
}

/// Creates a cached view: a hidden view of the query, and a public view that reads the hidden view through the cache. This only
/// checks `ttl`, `tags`, `stale_ok` and `space`: `create::view` takes them from `call`, by their places, and writes them into the
/// public view as arguments of [`cache_view_rows`].
#[pg_extern(
    volatile,
    parallel_unsafe,
    sql = "CREATE FUNCTION cache_create_view(name text, query text, ttl interval DEFAULT NULL, tags text[] DEFAULT NULL,
        stale_ok interval DEFAULT NULL, space text DEFAULT 'default')
        RETURNS regclass LANGUAGE c VOLATILE PARALLEL UNSAFE AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';"
)]
fn cache_create_view(
    name: Option<TextArgument<'_>>,
    query: Option<TextArgument<'_>>,
    ttl: Option<Interval>,
    tags: Option<TextsArgument<'_>>,
    stale_ok: Option<Interval>,
    space: Option<TextArgument<'_>>,
    call: Call,
) -> pg_sys::Oid {
    let create = || -> Result<u32, Refused> {
        let name = name.ok_or_else(|| null("name"))?;
        let query = query.ok_or_else(|| null("query"))?.bytes();
        let query = memory::terminated(query).ok_or_else(|| invalid("query must not contain a zero byte"))?;
        ttl.map(arguments::ttl).transpose()?;
        arguments::tags(tags)?;
        arguments::stale_ok(stale_ok)?;
        arguments::space(space, Privilege::Read)?;
        Ok(create::view(call, name, &query))
    };
    create().or_raise().into()
}

/// Returns the rows of the hidden view behind a cached view, stored or new. The row type of `view` names the hidden view. `token`
/// comes from the foreign table `cache_view_owner` (`pg/view_owner.rs`), and names the role with whose privileges the hidden view
/// is read and the space is used: the current role if it is null. Cached views stay when the library is updated, so the arguments
/// must keep their meaning.
#[pg_extern(
    volatile,
    parallel_unsafe,
    sql = "CREATE FUNCTION cache_view_rows(token bytea, view anyelement, ttl interval, tags text[], stale_ok interval, space text)
        RETURNS SETOF anyelement LANGUAGE c VOLATILE PARALLEL UNSAFE AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';"
)]
#[allow(clippy::too_many_arguments)]
fn cache_view_rows(
    token: Option<ByteaArgument<'_>>,
    _view: Option<pgrx::datum::AnyElement>,
    ttl: Option<Interval>,
    tags: Option<TextsArgument<'_>>,
    stale_ok: Option<Interval>,
    space: Option<TextArgument<'_>>,
    call: Call,
) -> Sent {
    let rows = || -> Result<(), Refused> {
        let view = RelationOid::of_row_type_of_view(call.argument_type(1))
            .ok_or_else(|| invalid("view must be a null of the row type of a view"))?;
        let ttl_ms = ttl.map(arguments::ttl).transpose()?;
        let tags = arguments::tags(tags)?;
        let stale_ok_ms = arguments::stale_ok(stale_ok)?;
        let role = token.map(|token| view_owner::role(token.bytes())).transpose()?;
        let role = role.unwrap_or_else(Role::current);
        let name = space.ok_or_else(|| null("space"))?.bytes();
        let space = space::with_privilege_of(role, name, Privilege::Read)?;
        let text = view.all_rows();
        let arguments = Typed::none();
        let asked = Asked {
            text: text.to_bytes(),
            arguments: query::Arguments::Typed(&arguments),
            ttl_ms,
            tags: &tags,
            stale_ok_ms,
            refresh: false,
            depends: None,
            reader: Some(Reader { relation: view.get(), role }),
        };
        Ok(result::rows_for("query of a cached view", &space, &asked, &text, &mut Sink::new(call))?)
    };
    rows().or_raise();
    Sent
}
