//! SQL functions that read or change many keys in one call, such as `cache_set_many`. Each key is treated as by the function for
//! one key.

use super::arguments;
use super::value::{Stored, is_readable_as};
use crate::pg::error::{OrRaise, Refused};
use crate::pg::jsonb::Member;
use crate::pg::varlena::{
    Bytea, ByteasArgument, Jsonb, JsonbArgument, Text, TextArgument, TextsArgument, Varlena,
};
use crate::pg::{memory, shared};
use crate::store::entry::{self, Mode, NewEntry, RETURNED_BYTES_MAX};
use crate::store::kind::{BYTEA, JSONB, TEXT};
use crate::store::prefetch;
use crate::store::space::{Privilege, Space};
use crate::store::status::{self, Status};
use pg_cache_core::{Buffer, Kind, Meta};
use pgrx::prelude::*;

/// The estimated memory of a row besides its key and its value, in bytes.
const ROW_BYTES: usize = 64;

/// The buffer for a value of one type. It takes no bytes of a value that the type cannot represent.
struct Destination {
    kind: Kind,
    value: Varlena,
}

impl Buffer for Destination {
    fn allocate(&mut self, meta: &Meta) -> &mut [u8] {
        if is_readable_as(meta.kind, self.kind) { Buffer::allocate(&mut self.value, meta) } else { &mut [] }
    }

    fn was_allocated(&self) -> bool {
        self.value.was_allocated()
    }
}

/// Returns a row for each key whose value the type `T` can represent, in the order of the keys. Leaves out the other values. Stops
/// before a row with which the result would exceed [`RETURNED_BYTES_MAX`], unless it is the first row.
///
/// The status says that the result was cut off, or else how many values were left out, or else that there are values. If no key has
/// a value, the status says why the last key has none.
fn get_many<T: Stored>(
    keys: Option<TextsArgument<'_>>,
    space: Option<TextArgument<'_>>,
) -> TableIterator<'static, (Text, T)> {
    let read = || -> Result<_, Refused> {
        let keys = arguments::keys(keys)?;
        let space = arguments::space(space, Privilege::Read)?;
        let (mut found, mut bytes, mut left_out) = (Vec::new(), 0, 0);
        for (at, key) in keys.iter().enumerate() {
            shared::check_for_interrupts();
            prefetch::of_list(&space, &keys, at);
            let mut into = Destination { kind: T::KIND, value: Varlena::default() };
            let Some(meta) = entry::read(&space, key, &mut into) else { continue };
            let Some(value) = T::of_found(meta.kind, into.value) else {
                left_out += 1;
                continue;
            };
            bytes += ROW_BYTES + key.len() + meta.value_len;
            if bytes > RETURNED_BYTES_MAX && !found.is_empty() {
                status::set(Status::Cut);
                return Ok(found);
            }
            memory::push(&mut found, (Text(Varlena::of(key)), value));
        }
        match found.is_empty() {
            _ if left_out > 0 => status::set(Status::LeftOut(left_out)),
            // The read of the last key has set the status.
            true => {}
            false => status::set(Status::Hot),
        }
        Ok(found)
    };
    TableIterator::new(read().or_raise())
}

/// Defines an SQL function that reads many values of one type. `returns` names the type, which must be a [`Stored`].
macro_rules! function_that_gets_many {
    ($(#[$doc:meta])* $function:ident returns $returned:ident) => {
        $(#[$doc])*
        #[pg_extern(volatile, parallel_restricted)]
        fn $function(
            keys: Option<TextsArgument<'_>>,
            space: default!(Option<TextArgument<'_>>, "'default'"),
        ) -> TableIterator<'static, (name!(key, Text), name!(value, $returned))> {
            get_many(keys, space)
        }
    };
}

function_that_gets_many! {
    /// Returns the jsonb of each key that has one.
    cache_get_many returns Jsonb
}

function_that_gets_many! {
    /// Returns the text of each key that has one.
    cache_get_many_text returns Text
}

function_that_gets_many! {
    /// Returns the bytea of each key that has one.
    cache_get_many_bytes returns Bytea
}

/// The arguments that apply to all values of a call which sets many values.
struct SetManyArguments<'a> {
    ttl: Option<Interval>,
    tags: Option<TextsArgument<'a>>,
    space: Option<TextArgument<'a>>,
}

impl<'a> SetManyArguments<'a> {
    /// Sets values of one kind. Other sessions see them when the transaction commits. Returns the number of values that were not
    /// refused. If a value is refused, the call goes on with the next one, and the status has the reason for the last refusal.
    /// `entries` returns the keys with their values.
    fn set(self, kind: Kind, entries: impl FnOnce() -> Result<Vec<Member<'a>>, Refused>) -> i64 {
        let set = || -> Result<_, Refused> {
            let space = arguments::space(self.space, Privilege::Write)?;
            let entries = entries()?;
            let ttl_ms = self.ttl.map(arguments::ttl).transpose()?;
            let tags = &arguments::tags(self.tags)?;
            let (mut stored, mut refused) = (0, None);
            for (key, bytes) in entries {
                shared::check_for_interrupts();
                let mode = Mode::Always;
                if entry::set(&space, key, &NewEntry { bytes, kind, ttl_ms, tags, stale_ok_ms: None, mode }) {
                    stored += 1;
                } else {
                    refused = status::current();
                }
            }
            refused.into_iter().for_each(status::set);
            Ok(stored)
        };
        set().or_raise()
    }
}

/// Stores each member of a JSON object under its name. Returns how many members were stored.
#[pg_extern(volatile, parallel_restricted)]
fn cache_set_many(
    entries: Option<JsonbArgument<'_>>,
    ttl: default!(Option<Interval>, "NULL"),
    tags: default!(Option<TextsArgument<'_>>, "NULL"),
    space: default!(Option<TextArgument<'_>>, "'default'"),
) -> i64 {
    SetManyArguments { ttl, tags, space }.set(JSONB, || arguments::entries(entries))
}

/// Defines an SQL function that sets many values of one kind, from an array of keys and an array of values. `takes` names the type
/// of the array of values, and `as` the constant of the kind.
macro_rules! function_that_sets_many {
    ($(#[$doc:meta])* $function:ident takes $argument:ident as $kind:ident) => {
        $(#[$doc])*
        #[pg_extern(volatile, parallel_restricted)]
        fn $function(
            keys: Option<TextsArgument<'_>>,
            values: Option<$argument<'_>>,
            ttl: default!(Option<Interval>, "NULL"),
            tags: default!(Option<TextsArgument<'_>>, "NULL"),
            space: default!(Option<TextArgument<'_>>, "'default'"),
        ) -> i64 {
            let pairs = || arguments::pairs(keys, values.map(|values| values.0));
            SetManyArguments { ttl, tags, space }.set($kind, pairs)
        }
    };
}

function_that_sets_many! {
    /// Stores each text under the key at the same position. Returns how many were stored.
    cache_set_many_text takes TextsArgument as TEXT
}

function_that_sets_many! {
    /// Stores each bytea under the key at the same position. Returns how many were stored.
    cache_set_many_bytes takes ByteasArgument as BYTEA
}

/// Returns the number of keys for which `operation` returns true. Stops at the first error and returns it.
fn count(
    keys: Option<TextsArgument<'_>>,
    space: Option<TextArgument<'_>>,
    operation: impl Fn(&Space, &[u8]) -> Result<bool, Refused>,
) -> Result<i64, Refused> {
    let keys = arguments::keys(keys)?;
    let space = arguments::space(space, Privilege::Write)?;
    let each = |key: &[u8]| {
        shared::check_for_interrupts();
        operation(&space, key).map(i64::from)
    };
    keys.into_iter().map(each).sum()
}

/// Removes the values of some keys. Returns how many keys had a value.
#[pg_extern(volatile, parallel_restricted)]
fn cache_delete_many(
    keys: Option<TextsArgument<'_>>,
    space: default!(Option<TextArgument<'_>>, "'default'"),
) -> i64 {
    count(keys, space, entry::remove).or_raise()
}

/// Gives the values of some keys another time to live, or removes the values if that time is not positive. Returns how many keys
/// have a value with the new time to live.
#[pg_extern(volatile, parallel_restricted)]
fn cache_touch_many(
    keys: Option<TextsArgument<'_>>,
    ttl: Option<Interval>,
    space: default!(Option<TextArgument<'_>>, "'default'"),
) -> i64 {
    let touch = |ttl_ms| count(keys, space, |space, key| Ok(entry::touch(space, key, ttl_ms)));
    arguments::required_ttl(ttl).and_then(touch).or_raise()
}
