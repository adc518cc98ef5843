//! Making many entries wrong at once, in a time that does not depend on how many there are.

use super::arguments;
use crate::pg::error::Refused;
use crate::pg::shared;
use crate::pg::varlena::{TextArgument, TextsArgument};
use crate::store::entry;
use crate::store::space::{self, Privilege};
use pgrx::prelude::*;

/// Makes all values a miss that have a tag.
#[pg_extern(volatile, parallel_restricted)]
fn cache_invalidate_tag(tag: Option<TextArgument<'_>>) {
    let invalidate = || {
        let tag = arguments::tag(tag.map(|tag| tag.0))?;
        entry::invalidate_tag(&*space::for_tags()?, tag)
    };
    invalidate().unwrap_or_else(|refused| Refused::raise(refused));
}

/// Makes all values a miss that have one of some tags.
#[pg_extern(volatile, parallel_restricted)]
fn cache_invalidate_tags(tags: Option<TextsArgument<'_>>) {
    let invalidate = || {
        let tags = arguments::tags_to_invalidate(tags)?;
        let space = space::for_tags()?;
        tags.into_iter().try_for_each(|tag| {
            shared::check_for_interrupts();
            entry::invalidate_tag(&space, tag)
        })
    };
    invalidate().unwrap_or_else(|refused| Refused::raise(refused));
}

/// Makes all values of a space a miss, or of all spaces: `*`.
#[pg_extern(volatile, parallel_restricted)]
fn cache_flush(space: Option<TextArgument<'_>>) {
    let flush = || {
        if space.is_some_and(|space| space.0 == b"*") {
            return entry::flush(&*space::of_owner("flush all spaces")?, true);
        }
        entry::flush(&*arguments::space(space, Privilege::Admin)?, false)
    };
    flush().unwrap_or_else(|refused| Refused::raise(refused));
}
