//! Runs warmers, and says when a warmer must run. A *warmer* is a query whose result a background worker computes and stores before
//! a session asks for it (`store/warmer.rs`). A *tick* is 50 ms on the clock of `pg/clock.rs`.

use super::asked::Asked;
use super::prefill;
use crate::pg::error::Refused;
use crate::pg::jsonb::Array;
use crate::pg::query::Arguments;
use crate::pg::{memory, shared};
use crate::store::cause;
use crate::store::note::Form;
use crate::store::space::{self, Privilege, Space};
use crate::store::status;
use crate::store::warmer::Warmer;
use pg_cache_core::Meta;

/// The outcome of a look at a warmer: whether it must run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Its result is stored and young enough. The field is the tick at which the result was stored.
    No(u32),
    /// It has no valid result.
    Missing,
    /// Its result is valid, but older than the warmer's interval (`every`), or about to expire.
    Old,
}

/// Calls `with` with the space of a warmer, and with the call of `cache_query` whose result the warmer keeps stored.
fn with_asked<R>(
    warmer: &Warmer,
    refresh: bool,
    with: impl FnOnce(&Space, &Asked<'_>) -> Result<R, Refused>,
) -> Result<R, Refused> {
    let space = space::with_privilege(&warmer.space, Privilege::Write)?;
    let array = warmer.args.as_ref().map(|args| args.as_argument());
    let tags: Vec<&[u8]> = memory::collect(warmer.tags.iter().map(Vec::as_slice));
    let asked = Asked {
        text: &warmer.query,
        arguments: Arguments::Json(array.and_then(Array::of).unwrap_or(Array::EMPTY)),
        ttl_ms: warmer.ttl_ms(),
        tags: &tags,
        stale_ok_ms: None,
        refresh,
        depends: None,
        reader: None,
    };
    with(&space, &asked)
}

/// Returns whether a warmer must run. Must be called in a session of its owner. Does not run the query. `verified` is the tick of
/// the last [`Due::No`]: the tags of a result that was stored at this tick are not compared again.
pub fn due(warmer: &Warmer, verified: u32) -> Due {
    let stored =
        with_asked(warmer, false, |space, asked| Ok(prefill::stored(space, asked, Form::Rows, verified)?));
    match stored {
        Ok(Some(meta)) if is_old(warmer, &meta) => Due::Old,
        Ok(Some(meta)) => Due::No(meta.created),
        // If the space cannot be used, the run raises the error.
        Ok(None) | Err(_) => Due::Missing,
    }
}

/// Returns whether a valid result is older than `every`, or is about to expire.
fn is_old(warmer: &Warmer, meta: &Meta) -> bool {
    let age_ms = shared::ms_since(meta.created);
    warmer.every_ms().is_some_and(|every_ms| age_ms >= every_ms)
        || is_about_to_expire(meta, warmer.ttl_ms(), POLL_MS)
}

/// How often a worker looks at its warmers, in milliseconds.
const POLL_MS: u64 = 1000;

/// Returns whether a valid result is about to expire: a run that begins after `poll_ms` milliseconds would probably end later than
/// the result. A result is never about to expire in the first half of its life.
pub(super) fn is_about_to_expire(meta: &Meta, ttl_ms: Option<u64>, poll_ms: u64) -> bool {
    let (age_ms, left_ms) = (shared::ms_since(meta.created), shared::ms_until(meta.expires));
    let left_ms = ttl_ms.map_or(left_ms, |ttl_ms| left_ms.min(ttl_ms.saturating_sub(age_ms)));
    let took_ms = meta.cost.micros() / 1000;
    left_ms <= age_ms && left_ms <= took_ms + poll_ms
}

/// Runs a warmer, unless its result is stored and `refresh` is false. The query runs as the current role. Returns None if the
/// result is stored now, and otherwise the reason why not. Raises the errors of the query.
pub fn run(warmer: &Warmer, refresh: bool) -> Result<Option<String>, Refused> {
    with_asked(warmer, refresh, |space, asked| {
        let text = memory::terminated(asked.text).unwrap_or_default();
        status::forget();
        Ok(why_not(prefill::warm(space, asked, &text, Form::Rows)?))
    })
}

/// Returns None if a result is stored, and otherwise the reason why not.
pub(super) fn why_not(is_stored: bool) -> Option<String> {
    (!is_stored).then(|| status::current().map_or_else(|| "not stored".to_owned(), cause::in_words))
}
