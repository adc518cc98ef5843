//! Making many entries wrong at once, in a time that does not depend on how many there are.

use super::arguments;
use crate::pg::error::Refused;
use crate::pg::varlena::{TextArgument, TextsArgument};
use crate::store::entry;
use pgrx::prelude::*;

/// Makes all values a miss that have a tag.
#[pg_extern(volatile, parallel_restricted)]
fn cache_invalidate_tag(tag: Option<TextArgument<'_>>) {
    let tag = arguments::tag(tag.map(|tag| tag.0));
    entry::invalidate_tag(tag.unwrap_or_else(|refused| Refused::raise(refused)));
}

/// Makes all values a miss that have one of some tags.
#[pg_extern(volatile, parallel_restricted)]
fn cache_invalidate_tags(tags: Option<TextsArgument<'_>>) {
    let tags = arguments::tags_to_invalidate(tags).unwrap_or_else(|refused| Refused::raise(refused));
    tags.into_iter().for_each(entry::invalidate_tag);
}

/// Makes all values of a space a miss, or of all spaces: `*`.
#[pg_extern(volatile, parallel_restricted)]
fn cache_flush(space: Option<TextArgument<'_>>) {
    let everything = space.is_some_and(|space| space.0 == b"*");
    if !everything {
        arguments::space(space).unwrap_or_else(|refused| Refused::raise(refused));
    }
    entry::flush(everything);
}
