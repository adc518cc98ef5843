//! SQL functions that invalidate many entries at once. The time of a call does not depend on the number of entries. Other sessions
//! see the invalidation when the transaction commits.

use super::arguments;
use crate::pg::error::{OrRaise, Refused};
use crate::pg::shared;
use crate::pg::varlena::{TextArgument, TextsArgument};
use crate::store::entry;
use crate::store::space::{self, Privilege};
use pgrx::prelude::*;

/// Invalidates all values of the database that have a tag. The role needs the privilege write in at least one space: tags belong to
/// the database, not to a space.
#[pg_extern(volatile, parallel_restricted)]
fn cache_invalidate_tag(tag: Option<TextArgument<'_>>) {
    let invalidate = || -> Result<_, Refused> {
        let tag = arguments::tag(tag.map(|tag| tag.0))?;
        entry::invalidate_tag(&*space::require_tag_writer()?, tag)
    };
    invalidate().or_raise();
}

/// Does the same for all values that have at least one of these tags.
#[pg_extern(volatile, parallel_restricted)]
fn cache_invalidate_tags(tags: Option<TextsArgument<'_>>) {
    let invalidate = || -> Result<_, Refused> {
        let tags = arguments::tags_to_invalidate(tags)?;
        let space = space::require_tag_writer()?;
        tags.into_iter().try_for_each(|tag| {
            shared::check_for_interrupts();
            entry::invalidate_tag(&space, tag)
        })
    };
    invalidate().or_raise();
}

/// Invalidates the values of a space whose keys match a pattern. In a space with values for each role, the call invalidates only
/// values of the current role.
#[pg_extern(volatile, parallel_restricted)]
fn cache_invalidate_pattern(
    pattern: Option<TextArgument<'_>>,
    space: default!(Option<TextArgument<'_>>, "'default'"),
) {
    let invalidate = || -> Result<_, Refused> {
        let pattern = arguments::pattern_to_invalidate(pattern)?;
        entry::invalidate_pattern(&*arguments::space(space, Privilege::Write)?, pattern)
    };
    invalidate().or_raise();
}

/// Invalidates all values of a space. This requires the privilege admin. If the space is `*`, the call invalidates all values in
/// all spaces of the database, which only the owner of the extension may do.
#[pg_extern(volatile, parallel_restricted)]
fn cache_flush(space: default!(Option<TextArgument<'_>>, "'default'")) {
    let flush = || -> Result<_, Refused> {
        if space.is_some_and(|space| space.0 == b"*") {
            return entry::flush(&*space::default_for_owner("flush all spaces")?, true);
        }
        entry::flush(&*arguments::space(space, Privilege::Admin)?, false)
    };
    flush().or_raise();
}
