//! The SQL function `cache_fetch`, which caches the result of a query under a key that the caller chooses. This file checks the
//! arguments; `query/fetch.rs` runs the query and stores its result.

use super::arguments::{self, invalid, null};
use super::value::Stored;
use crate::pg::encoding::shown;
use crate::pg::error::{OrRaise, Refused};
use crate::pg::jsonb::Array;
use crate::pg::memory;
use crate::pg::query::{Arguments, Query};
use crate::pg::relation::{RelationOid, RelationOids};
use crate::pg::varlena::{Jsonb, JsonbArgument, TextArgument, TextsArgument, Varlena};
use crate::query::fetch::{self, Answer, Fetch, Identity};
use crate::query::{Found, Wanted, verify};
use crate::store::kind::NOTHING;
use crate::store::space::Privilege;
use pg_cache_core::Meta;
use pgrx::prelude::*;

/// Returns the OIDs of the relations of the argument `depends`, sorted and without duplicates. A null element is an error, and so
/// is a relation without rows of its own, such as a view: no commit reports a write to it. A relation that does not exist is
/// accepted.
pub(super) fn dependencies(numbers: RelationOids) -> Result<Vec<u32>, Refused> {
    if numbers.0.contains(&0) {
        return Err(null("element of depends"));
    }
    let unwritable = |number: &u32| Some((RelationOid::of(*number), RelationOid::of(*number).unwritable()?));
    let Some((relation, what)) = numbers.0.iter().find_map(unwritable) else {
        let mut oids = numbers.0;
        oids.sort_unstable();
        oids.dedup();
        return Ok(oids);
    };
    let name = relation.name().unwrap_or_default();
    let code = PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE;
    Err(Refused::new(code, format!("cannot depend on \"{}\", which is {what}", shown(&name)))
        .hint("Name the tables and materialized views that it takes its rows from."))
}

/// Returns the value that was found under a key. A value of another type is an error.
fn of_found(key: &[u8], found: Meta, value: Varlena) -> Result<Option<Jsonb>, Refused> {
    match found.kind {
        NOTHING => Ok(None),
        kind => Jsonb::of_found_at(key, kind, value).map(Some),
    }
}

/// Returns the value of a query as jsonb. Like a scalar subquery, the query must return at most one row and one column.
///
/// If the key holds the result of this query with these arguments and this `depends`, the call returns the stored result. With
/// `stale_ok`, the result may also be one that only changes of rows have made invalid, if it was valid that long ago or later. A
/// share of the calls (`pg_cache.verify_rate`) verifies the stored result first (`query/verify.rs`). If there is no such result,
/// and always with `refresh`, the call runs the query, returns the result, and stores it under the key if it may be stored
/// (`query/fetch.rs`). The call also does so in order to renew a result that will soon expire (`query/freshness.rs`).
///
/// The result stays valid until its time to live ends, or until a transaction commits a change: of the key, of one of the tags, of
/// a role, of a definition that the query may use, or of rows of a relation that the query has read. With `depends`, the rows of
/// these relations count instead of those that the query has read.
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
        let query = query.ok_or_else(|| null("query"))?.0;
        let arguments = args.map_or(Some(Array::EMPTY), Array::of).ok_or_else(|| {
            invalid("args must be an array of JSON")
                .hint("Use args => '[1, \"two\"]' for the parameters $1 and $2.")
        })?;
        let ttl_ms = ttl.map(arguments::ttl).transpose()?;
        let tags = arguments::tags(tags)?;
        let stale_ok_ms = arguments::stale_ok(stale_ok)?;
        let refresh = refresh.ok_or_else(|| null("refresh"))?;
        let depends = depends.map(dependencies).transpose()?;
        let space = arguments::space(space, Privilege::Read)?;
        let identity = Identity::of(query, arguments, depends.as_deref());
        let wanted = Wanted { ttl_ms, tags: &tags, stale_ok_ms, refresh, depends: depends.as_deref() };
        // A call that is drawn for verification does not look here: `fetch::verified` looks itself.
        let is_verified = !refresh && verify::is_drawn();
        // `true` lets the call renew a result that will soon expire. `old` is the stamp of this result, a number on the clock of
        // changes (`docs/architecture.md`). A result with another stamp is then one that another session has stored meanwhile.
        let old = match refresh || is_verified {
            true => None,
            false => match fetch::find(&space, key, identity, &wanted.look(true)) {
                Found::Result((found, value)) => return of_found(key, found, value),
                Found::Old(stamp) => Some(stamp),
                Found::Nothing => None,
            },
        };
        let text = &memory::terminated(query).ok_or_else(|| invalid("query must not contain a zero byte"))?;
        let caller = format!("query of cache_fetch, key \"{}\"", shown(key));
        let query = Query { caller: &caller, text, arguments: Arguments::Json(arguments) };
        let fetch = Fetch { key, query, identity };
        let answer = match is_verified {
            true => fetch::verified(&space, &wanted, fetch),
            false => fetch::fill(&space, &wanted, old, fetch),
        };
        match answer? {
            Answer::Stored(found, value) => of_found(key, found, value),
            Answer::New(value) => Ok(value.map(|value| Jsonb(Varlena::of(&value.bytes)))),
        }
    };
    fetch().or_raise()
}
