//! SQL functions that read or change many keys in one call.

use super::arguments;
use super::value::as_kind;
use crate::pg::error::{OrRaise, Refused};
use crate::pg::varlena::{Jsonb, JsonbArgument, Text, TextArgument, TextsArgument, Varlena};
use crate::pg::{memory, shared};
use crate::store::entry::{self, JSONB, Mode, NewEntry, RETURNED_BYTES_MAX};
use crate::store::prefetch;
use crate::store::space::Privilege;
use crate::store::status::{self, Status};
use pgrx::prelude::*;

/// The memory of one row in addition to its key and value, in bytes.
const ROW_BYTES: usize = 64;

/// Returns the jsonb of each key that has one, in the order of the keys. The call stops before the row that would exceed
/// [`RETURNED_BYTES_MAX`], unless it is the first row.
#[pg_extern(volatile, parallel_restricted)]
fn cache_get_many(
    keys: Option<TextsArgument<'_>>,
    space: default!(Option<TextArgument<'_>>, "'default'"),
) -> TableIterator<'static, (name!(key, Text), name!(value, Jsonb))> {
    let read = || -> Result<_, Refused> {
        let keys = arguments::keys(keys)?;
        let space = arguments::space(space, Privilege::Read)?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        for (at, key) in keys.iter().enumerate() {
            shared::check_for_interrupts();
            prefetch::of_list(&space, &keys, at);
            let mut value = Varlena::default();
            if let Some(meta) = entry::read(&space, key, &mut value) {
                let value = as_kind(key, meta.kind, value, JSONB)?;
                bytes += ROW_BYTES + key.len() + meta.value_len;
                if bytes > RETURNED_BYTES_MAX && !found.is_empty() {
                    status::set(Status::Cut);
                    break;
                }
                memory::push(&mut found, (Text(Varlena::of(key)), Jsonb(value)));
            }
        }
        Ok(found)
    };
    TableIterator::new(read().or_raise())
}

/// Stores each member of a JSON object under its name. Returns how many members were stored.
#[pg_extern(volatile, parallel_restricted)]
fn cache_set_many(
    entries: Option<JsonbArgument<'_>>,
    ttl: default!(Option<Interval>, "NULL"),
    tags: default!(Option<TextsArgument<'_>>, "NULL"),
    space: default!(Option<TextArgument<'_>>, "'default'"),
) -> i64 {
    let set = || -> Result<_, Refused> {
        let space = arguments::space(space, Privilege::Write)?;
        let entries = arguments::entries(entries, &space)?;
        let ttl = ttl.map(arguments::ttl).transpose()?;
        let tags = arguments::tags(tags)?;
        let stored = entries.into_iter().filter(|(key, bytes)| {
            shared::check_for_interrupts();
            let (ttl_ms, tags, mode) = (ttl, &tags, Mode::Always);
            entry::set(&space, key, &NewEntry { bytes, kind: JSONB, ttl_ms, tags, stale_ok_ms: None, mode })
        });
        Ok(stored.count() as i64)
    };
    set().or_raise()
}

/// Removes the values of some keys. Returns how many keys had a value.
#[pg_extern(volatile, parallel_restricted)]
fn cache_delete_many(
    keys: Option<TextsArgument<'_>>,
    space: default!(Option<TextArgument<'_>>, "'default'"),
) -> i64 {
    let remove = || {
        let keys = arguments::keys(keys)?;
        let space = arguments::space(space, Privilege::Write)?;
        let remove = |key| {
            shared::check_for_interrupts();
            entry::remove(&space, key).map(i64::from)
        };
        keys.into_iter().map(remove).sum::<Result<i64, _>>()
    };
    remove().or_raise()
}
