//! SQL functions that read and change the value of one key, such as `cache_get`, `cache_set` and `cache_delete`, for each type of
//! value. This file checks and converts the arguments; `store/entry/` does the work.

use super::arguments;
use crate::pg::encoding::shown;
use crate::pg::error::{OrRaise, Refused};
use crate::pg::varlena::{
    Bytea, ByteaArgument, Jsonb, JsonbArgument, Text, TextArgument, TextsArgument, Varlena,
};
use crate::pg::{jsonb, shared};
use crate::query::fetch::IDENTITY_BYTES;
use crate::store::entry::{self, NewEntry};
use crate::store::kind::{
    BYTEA, COMPRESSED_JSON, COMPRESSED_ROWS, DIFFERED, JSON, JSONB, LEFT_OUT, NOTHING, RESULT, ROWS, TEXT,
    VARIES,
};
use crate::store::space::{Privilege, Space};
use pg_cache_core::Kind;
use pgrx::prelude::*;
use std::rc::Rc;

/// An SQL type whose values can be stored in the cache.
pub(super) trait Stored: Sized + 'static {
    /// The kind of the values of this type.
    const KIND: Kind;

    /// Makes a value of this type from the bytes of a stored value. The stored value must be of this type's own kind.
    fn of_bytes(value: Varlena) -> Self;

    /// Returns the number of a counter as a value of this type. None if the type has no numbers.
    fn of_number(number: i64) -> Option<Self>;

    /// Returns a stored value of the kind `found` as a value of this type. None if this type cannot represent it.
    fn of_found(found: Kind, value: Varlena) -> Option<Self> {
        match found {
            _ if !is_readable_as(found, Self::KIND) => None,
            RESULT => Some(Self::of_bytes(value.shortened(IDENTITY_BYTES))),
            Kind::COUNTER => {
                let number = value.bytes().first_chunk().map(|word| i64::from_ne_bytes(*word));
                number.and_then(Self::of_number)
            }
            _ => Some(Self::of_bytes(value)),
        }
    }

    /// Does the same for the value of a key. If this type cannot represent the value, the error names the key and the function that
    /// reads it.
    fn of_found_at(key: &[u8], found: Kind, value: Varlena) -> Result<Self, Refused> {
        Self::of_found(found, value).ok_or_else(|| other_kind(key, found, Self::KIND))
    }
}

/// Returns whether a value of the kind `found` can be read as the kind `asked`. The result of a query is a jsonb. Only
/// `cache_fetch` can read a result that is null (`NOTHING`). A counter can be read as jsonb and as text.
pub(super) fn is_readable_as(found: Kind, asked: Kind) -> bool {
    match found {
        RESULT => asked == JSONB,
        Kind::COUNTER => asked == JSONB || asked == TEXT,
        _ => found == asked,
    }
}

impl Stored for Jsonb {
    const KIND: Kind = JSONB;

    fn of_bytes(value: Varlena) -> Self {
        Self(value)
    }

    fn of_number(number: i64) -> Option<Self> {
        Some(jsonb::of_bigint(number))
    }
}

impl Stored for Text {
    const KIND: Kind = TEXT;

    fn of_bytes(value: Varlena) -> Self {
        Self(value)
    }

    fn of_number(number: i64) -> Option<Self> {
        Some(Self(Varlena::of(number.to_string().as_bytes())))
    }
}

impl Stored for Bytea {
    const KIND: Kind = BYTEA;

    fn of_bytes(value: Varlena) -> Self {
        Self(value)
    }

    fn of_number(_: i64) -> Option<Self> {
        None
    }
}

/// Returns the value of a key, or None if there is none. A value that this type cannot represent is an error.
fn get<T: Stored>(key: Option<TextArgument<'_>>, space: Option<TextArgument<'_>>) -> Option<T> {
    let read = || -> Result<_, Refused> {
        let key = arguments::key(key)?;
        let space = arguments::space(space, Privilege::Read)?;
        let mut value = Varlena::default();
        let Some(found) = entry::read(&space, key, &mut value) else { return Ok(None) };
        T::of_found_at(key, found.kind, value).map(Some)
    };
    read().or_raise()
}

/// Returns the error for a key whose value cannot be read as the kind `asked`.
fn other_kind(key: &[u8], found: Kind, asked: Kind) -> Refused {
    let (name, function) = of_kind(found);
    let (asked, _) = of_kind(asked);
    Refused::new(
        PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
        format!("key \"{}\" holds {name}, not {asked}", shown(key)),
    )
    .hint(format!("Use {function} to read it."))
}

/// Returns the name of a kind, and of the function that reads it. A new kind (`store/kind.rs`) needs an arm here, because every
/// unknown kind counts as bytea, and an arm in [`is_readable_as`] if it can be read as another kind.
pub(super) fn of_kind(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        JSONB | RESULT => ("jsonb", "cache_get"),
        TEXT => ("text", "cache_get_text"),
        Kind::COUNTER => ("integer", "cache_get"),
        NOTHING => ("the null of a query", "cache_fetch"),
        ROWS | COMPRESSED_ROWS => ("rows", "cache_query"),
        JSON | COMPRESSED_JSON => ("rows as jsonb", "cache_query_json"),
        VARIES | LEFT_OUT | DIFFERED => ("a mark of cache_query", "cache_query"),
        _ => ("bytea", "cache_get_bytes"),
    }
}

/// Returns the jsonb that is stored under a key, or null.
#[pg_extern(volatile, parallel_restricted)]
fn cache_get(
    key: Option<TextArgument<'_>>,
    space: default!(Option<TextArgument<'_>>, "'default'"),
) -> Option<Jsonb> {
    get(key, space)
}

/// Returns the text that is stored under a key, or null.
#[pg_extern(volatile, parallel_restricted)]
fn cache_get_text(
    key: Option<TextArgument<'_>>,
    space: default!(Option<TextArgument<'_>>, "'default'"),
) -> Option<Text> {
    get(key, space)
}

/// Returns the bytea that is stored under a key, or null.
#[pg_extern(volatile, parallel_restricted)]
fn cache_get_bytes(
    key: Option<TextArgument<'_>>,
    space: default!(Option<TextArgument<'_>>, "'default'"),
) -> Option<Bytea> {
    get(key, space)
}

/// The arguments that the three functions that set a value have in common.
struct Setting<'a> {
    key: Option<TextArgument<'a>>,
    ttl: Option<Interval>,
    tags: Option<TextsArgument<'a>>,
    space: Option<TextArgument<'a>>,
    mode: Option<TextArgument<'a>>,
    stale_ok: Option<Interval>,
    lease: Option<i64>,
}

impl Setting<'_> {
    /// Records the value, which the commit stores. Returns false if the value is refused. The status then has the reason.
    fn set(self, value: Option<&[u8]>, kind: Kind) -> bool {
        let set = || -> Result<_, Refused> {
            let key = arguments::key(self.key)?;
            let space = arguments::space(self.space, Privilege::Write)?;
            let bytes = arguments::value(value)?;
            let ttl_ms = self.ttl.map(arguments::ttl).transpose()?;
            let tags = &arguments::tags(self.tags)?;
            let mode = arguments::mode(self.mode, self.lease)?;
            let stale_ok_ms = arguments::stale_ok(self.stale_ok)?;
            Ok(entry::set(&space, key, &NewEntry { bytes, kind, ttl_ms, tags, stale_ok_ms, mode }))
        };
        set().or_raise()
    }
}

/// Defines an SQL function that sets a value of one kind. All three functions take the same arguments. `takes` names the type of
/// the value, and `as` the constant of the kind.
macro_rules! function_that_sets {
    ($(#[$doc:meta])* $function:ident takes $argument:ident as $kind:ident) => {
        $(#[$doc])*
        #[pg_extern(volatile, parallel_restricted)]
        #[allow(clippy::too_many_arguments)]
        fn $function(
            key: Option<TextArgument<'_>>,
            value: Option<$argument<'_>>,
            ttl: default!(Option<Interval>, "NULL"),
            tags: default!(Option<TextsArgument<'_>>, "NULL"),
            space: default!(Option<TextArgument<'_>>, "'default'"),
            mode: default!(Option<TextArgument<'_>>, "'always'"),
            stale_ok: default!(Option<Interval>, "NULL"),
            lease: default!(Option<i64>, "NULL"),
        ) -> bool {
            let setting = Setting { key, ttl, tags, space, mode, stale_ok, lease };
            setting.set(value.map($argument::bytes), $kind)
        }
    };
}

function_that_sets! {
    /// Stores a jsonb under a key. Other sessions see it when the transaction commits. Returns false if the value is refused.
    cache_set takes JsonbArgument as JSONB
}

function_that_sets! {
    /// Stores a text under a key. Other sessions see it when the transaction commits. Returns false if the value is refused.
    cache_set_text takes TextArgument as TEXT
}

function_that_sets! {
    /// Stores a bytea under a key. Other sessions see it when the transaction commits. Returns false if the value is refused.
    cache_set_bytes takes ByteaArgument as BYTEA
}

/// Returns a key, and the space with this name. Null is an error, and so is a space that does not exist or in which the current
/// role lacks the privilege.
pub(super) fn key_in<'a>(
    key: Option<TextArgument<'a>>,
    space: Option<TextArgument<'_>>,
    needed: Privilege,
) -> (&'a [u8], Rc<Space>) {
    let checked = arguments::key(key).and_then(|key| Ok((key, arguments::space(space, needed)?)));
    checked.or_raise()
}

/// Removes a value. Other sessions see this when the transaction commits. Returns whether there was one.
#[pg_extern(volatile, parallel_restricted)]
fn cache_delete(
    key: Option<TextArgument<'_>>,
    space: default!(Option<TextArgument<'_>>, "'default'"),
) -> bool {
    let (key, space) = key_in(key, space, Privilege::Write);
    entry::remove(&space, key).or_raise()
}

/// Returns whether a key has a value.
#[pg_extern(volatile, parallel_restricted)]
fn cache_exists(
    key: Option<TextArgument<'_>>,
    space: default!(Option<TextArgument<'_>>, "'default'"),
) -> bool {
    let (key, space) = key_in(key, space, Privilege::Read);
    entry::peek(&space, key).is_some()
}

/// Returns the time until a value expires, or null if there is no value.
#[pg_extern(volatile, parallel_restricted)]
fn cache_ttl(
    key: Option<TextArgument<'_>>,
    space: default!(Option<TextArgument<'_>>, "'default'"),
) -> Option<Interval> {
    let (key, space) = key_in(key, space, Privilege::Read);
    let found = entry::peek(&space, key)?;
    Some(Interval::from_micros(shared::ms_until(found.expires) as i64 * 1000))
}

/// Gives a value another time to live, or removes the value if that time is not positive. Other sessions see this when the
/// transaction commits. Returns whether there is a value with the new time to live.
#[pg_extern(volatile, parallel_restricted)]
fn cache_touch(
    key: Option<TextArgument<'_>>,
    ttl: Option<Interval>,
    space: default!(Option<TextArgument<'_>>, "'default'"),
) -> bool {
    let (key, space) = key_in(key, space, Privilege::Write);
    let ttl = arguments::required_ttl(ttl).or_raise();
    entry::touch(&space, key, ttl)
}
