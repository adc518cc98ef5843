//! Counters: integers in the cache that sessions increment without a transaction.

use super::arguments;
use super::value::{key_in, of_kind};
use crate::pg::encoding::shown;
use crate::pg::error::{OrRaise, Refused};
use crate::pg::varlena::TextArgument;
use crate::store::entry;
use crate::store::space::Privilege;
use pg_cache_core::{IncrError, Kind};
use pgrx::prelude::*;

/// Adds to a counter and returns its new value. The addition takes effect at once, like that of a sequence. If there is no
/// counter, one is created that lives for `ttl`.
#[pg_extern(volatile, parallel_restricted)]
fn cache_incr(
    key: Option<TextArgument<'_>>,
    by: default!(Option<i64>, "1"),
    ttl: default!(Option<Interval>, "NULL"),
    space: default!(Option<TextArgument<'_>>, "'default'"),
) -> i64 {
    let (key, space) = key_in(key, space, Privilege::Write);
    let add = || -> Result<_, Refused> {
        let by = arguments::by(by)?;
        let ttl = ttl.map(arguments::ttl).transpose()?;
        entry::incr(&space, key, by, ttl).or_else(|error| refuse(key, by, error))
    };
    add().or_raise()
}

/// Turns a failure into an error for the caller. A counter for which there is no room counts nothing and returns `by`, because an
/// error would be worse for the caller.
fn refuse(key: &[u8], by: i64, error: IncrError) -> Result<i64, Refused> {
    let name = shown(key);
    match error {
        IncrError::Refused(_) => Ok(by),
        IncrError::Overflow => {
            let code = PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE;
            Err(Refused::new(code, format!("counter \"{name}\" is out of range of bigint")))
        }
        IncrError::OtherKind(found) => Err(Refused::new(
            PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            format!("key \"{name}\" holds {}, not {}", of_kind(found).0, of_kind(Kind::COUNTER).0),
        )
        .hint(format!("Use {} to read it.", of_kind(found).1))),
    }
}
