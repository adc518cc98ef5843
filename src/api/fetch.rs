//! The SQL function that caches the result of a query under a key that the caller chooses.

use super::arguments::{self, invalid, null};
use super::value::other_kind;
use crate::pg::encoding::shown;
use crate::pg::error::{OrRaise, Refused};
use crate::pg::relation::{RelationOid, RelationOids};
use crate::pg::varlena::{Jsonb, JsonbArgument, TextArgument, TextsArgument, Varlena};
use crate::pg::{jsonb, memory};
use crate::query::fetch::{self, NOTHING, Wanted};
use crate::store::entry::JSONB;
use crate::store::space::Privilege;
use pgrx::prelude::*;

/// Returns the relations that a result depends on. Refuses a relation without rows of its own, because a write to it would never
/// be seen.
fn dependencies(numbers: RelationOids) -> Result<Vec<u32>, Refused> {
    let unwritable = |number: &u32| Some((RelationOid::of(*number), RelationOid::of(*number).unwritable()?));
    let Some((relation, what)) = numbers.0.iter().find_map(unwritable) else { return Ok(numbers.0) };
    let name = relation.name().unwrap_or_default();
    let code = PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE;
    Err(Refused::new(code, format!("cannot depend on \"{}\", which is {what}", shown(&name)))
        .hint("Name the tables and materialized views that it takes its rows from."))
}

/// Returns the value that is stored under a key. If there is none, runs the query and returns the first column of its first row
/// as jsonb. That result is stored under the key and stays valid until a transaction changes something that the query has read.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::too_many_arguments)]
fn cache_fetch(
    key: Option<TextArgument<'_>>,
    query: Option<TextArgument<'_>>,
    args: default!(Option<JsonbArgument<'_>>, "NULL"),
    ttl: default!(Option<Interval>, "NULL"),
    tags: default!(Option<TextsArgument<'_>>, "NULL"),
    stale_ok: default!(Option<Interval>, "NULL"),
    refresh: default!(Option<bool>, "false"),
    depends: default!(Option<RelationOids>, "NULL"),
    space: default!(Option<TextArgument<'_>>, "'default'"),
) -> Option<Jsonb> {
    let fetch = || -> Result<_, Refused> {
        let key = arguments::key(key)?;
        let query = memory::terminated(query.ok_or_else(|| null("query"))?.0)
            .ok_or_else(|| invalid("query must not contain a zero byte"))?;
        let arguments = args.map_or(Some(Vec::new()), jsonb::elements).ok_or_else(|| {
            invalid("args must be an array of JSON")
                .hint("Use args => '[1, \"two\"]' for the parameters $1 and $2.")
        })?;
        let ttl_ms = ttl.map(arguments::ttl).transpose()?;
        let tags = arguments::tags(tags)?;
        if stale_ok.is_some() {
            let code = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
            return Err(Refused::new(code, "argument \"stale_ok\" of cache_fetch is not supported yet"));
        }
        let refresh = refresh.ok_or_else(|| null("refresh"))?;
        let depends = depends.map(dependencies).transpose()?;
        let space = arguments::space(space, Privilege::Read)?;
        if !refresh {
            let mut value = Varlena::default();
            match fetch::read(&space, key, &mut value) {
                Some(found) if found.kind == JSONB => return Ok(Some(Jsonb(value))),
                Some(found) if found.kind == NOTHING => return Ok(None),
                Some(found) => return Err(other_kind(key, found.kind, JSONB)),
                None => {}
            }
        }
        let wanted =
            Wanted { key, query: &query, arguments: &arguments, ttl_ms, tags: &tags, refresh, depends };
        Ok(fetch::fill(&space, &wanted)?.map(|bytes| Jsonb(Varlena::of(&bytes))))
    };
    fetch().or_raise()
}
