//! SQL functions for caches outside of the database, which follow the journal of changes (`docs/near-caches.md`). The *journal* is
//! a ring in shared memory whose records name what has changed.

use super::arguments::{self, invalid, null};
use super::value::Stored;
use crate::pg::error::{OrRaise, Refused};
use crate::pg::shared;
use crate::pg::varlena::{Jsonb, Text, TextArgument, Varlena};
use crate::store::changes::{self, Kind};
use crate::store::near;
use crate::store::space::Privilege;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;

/// Returns the number of the last change in the journal, or 0 if there is no journal.
#[pg_extern(volatile, parallel_restricted)]
fn cache_seq() -> i64 {
    changes::last().unwrap_or(0) as i64
}

/// Returns the changes that the caller may know of, beginning with the first change after the number `since`. `max_rows` limits the
/// number of rows. A change of a watched relation always has a row for each of its tags, so the last change may exceed the limit.
#[pg_extern(volatile, parallel_restricted)]
#[allow(clippy::type_complexity)]
fn cache_changes(
    since: Option<i64>,
    max_rows: default!(Option<i32>, "1000"),
) -> TableIterator<
    'static,
    (
        name!(seq, i64),
        name!(kind, &'static str),
        name!(space, Option<String>),
        name!(name, Option<Text>),
        name!(at, Option<TimestampWithTimeZone>),
    ),
> {
    let read = || -> Result<_, Refused> {
        let since = since.ok_or_else(|| null("since"))?;
        let most = max_rows.ok_or_else(|| null("max_rows"))?;
        let most = usize::try_from(most).ok().filter(|most| *most > 0);
        let most = most.ok_or_else(|| invalid("max_rows must be greater than zero"))?;
        // Numbers of changes are positive. No journal has had a change with the number 0, so the answer to 0 is a reset.
        Ok(changes::since(u64::try_from(since).unwrap_or(0), most))
    };
    let changes = read().or_raise();
    TableIterator::new(changes.into_iter().map(|change| {
        let kind = match change.kind {
            Kind::Key => "key",
            Kind::Tag => "tag",
            Kind::Space => "space",
            Kind::Database => "database",
            Kind::Reset => "reset",
            Kind::Nothing => "none",
        };
        (
            change.number as i64,
            kind,
            change.space.map(|space| space.to_string()),
            change.name.map(|name| Text(Varlena::of(&name))),
            change.tick.and_then(|tick| TimestampWithTimeZone::try_from(shared::time_of(tick)).ok()),
        )
    }))
}

/// Returns the value of a key, and what a cache that follows the journal needs besides: whether it may keep the value, for how
/// long, and the tags. Always returns one row. If there is no value, `keep` is false and the other columns are null.
#[pg_extern(volatile, parallel_restricted)]
#[allow(clippy::type_complexity)]
fn cache_get_near(
    key: Option<TextArgument<'_>>,
    space: default!(Option<TextArgument<'_>>, "'default'"),
) -> TableIterator<
    'static,
    (
        name!(value, Option<Jsonb>),
        name!(keep, bool),
        name!(ttl, Option<Interval>),
        name!(tags, Option<Vec<Text>>),
    ),
> {
    let read = || -> Result<_, Refused> {
        let Some(TextArgument(key)) = key else { return Err(null("key")) };
        let space = arguments::space(space, Privilege::Read)?;
        let Some(found) = near::read(&space, key) else { return Ok((None, false, None, None)) };
        let value = Jsonb::of_found_at(key, found.meta.kind, found.value)?;
        let ttl = Interval::from_micros(shared::ms_until(found.meta.expires) as i64 * 1000);
        let tags = found.tags.iter().map(|tag| Text(Varlena::of(tag))).collect::<Vec<_>>();
        Ok((Some(value), found.may_be_kept, Some(ttl), Some(tags).filter(|tags| !tags.is_empty())))
    };
    TableIterator::once(read().or_raise())
}
