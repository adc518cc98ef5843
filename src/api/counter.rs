//! Counters: integers in the cache. An addition takes effect at once, except that it waits for the commit if the transaction has
//! set, removed or invalidated the key before.

use super::arguments;
use super::value::{key_in, of_kind};
use crate::pg::encoding::shown;
use crate::pg::error::{OrRaise, Refused};
use crate::pg::varlena::TextArgument;
use crate::store::counter::{self, Addition, Uncounted};
use crate::store::space::Privilege;
use pgrx::prelude::*;

/// Adds to a counter and returns its new value. The addition takes effect at once, like `nextval`. If the transaction has set,
/// removed or invalidated the key before, the addition takes effect with the commit.
///
/// A text or a jsonb that is an integer becomes a counter. Any other value is an error. If the key has no value, the call creates a
/// counter that lives for `ttl`, or for the default time to live if `ttl` is null. With mode `present`, the call never creates a
/// counter, and returns null.
///
/// If the cache cannot be used, or if the counter cannot be stored, the call raises no error: it returns `by`, or null with mode
/// `present`, and the status of the session says why. If the transaction itself has set the number, and the sum cannot be recorded,
/// the call returns the sum, but the number stays as it was.
#[pg_extern(volatile, parallel_restricted)]
fn cache_incr(
    key: Option<TextArgument<'_>>,
    by: default!(Option<i64>, "1"),
    ttl: default!(Option<Interval>, "NULL"),
    space: default!(Option<TextArgument<'_>>, "'default'"),
    mode: default!(Option<TextArgument<'_>>, "'always'"),
) -> Option<i64> {
    let (key, space) = key_in(key, space, Privilege::Write);
    let add = || -> Result<_, Refused> {
        let by = arguments::by(by)?;
        let ttl_ms = ttl.map(arguments::ttl).transpose()?;
        let addition = Addition { by, ttl_ms, only_present: arguments::only_present(mode)? };
        match counter::add(&space, key, addition) {
            Ok(sum) => Ok(Some(sum)),
            // An error would be worse for the caller than a counter that starts again.
            Err(Uncounted::Because(_)) => Ok((!addition.only_present).then_some(by)),
            // The number that the transaction has set stays as it was. An error would be worse for the caller here, too.
            Err(Uncounted::NotRecorded(sum, _)) => Ok(Some(sum)),
            Err(Uncounted::Overflow) => {
                let code = PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE;
                Err(Refused::new(code, format!("counter \"{}\" is out of range of bigint", shown(key))))
            }
            Err(Uncounted::OtherKind(found)) => {
                let (name, function) = of_kind(found);
                let code = PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH;
                Err(Refused::new(code, format!("key \"{}\" holds {name}, not integer", shown(key)))
                    .hint(format!("Use {function} to read it.")))
            }
        }
    };
    add().or_raise()
}
