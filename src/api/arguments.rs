//! Checks of the arguments of SQL functions. The error of each check says what is wrong and, where useful, what to use instead. An
//! argument is None if the caller passed null.

use crate::pg::encoding::shown;
use crate::pg::error::Refused;
use crate::pg::jsonb::{self, Member};
use crate::pg::varlena::{JsonbArgument, TextArgument, TextsArgument};
use crate::pg::{interval, memory};
use crate::store::entry::Mode;
use crate::store::note::TAG_BYTES_MAX;
use crate::store::space::{self, Privilege, Space};
use pg_cache_core::{Glob, KEY_BYTES_MAX};
use pgrx::prelude::*;
use std::rc::Rc;

/// The most tags of a value. 32 tags of the greatest length take about 8 kB in the note of an entry (`store/note.rs`), which has at
/// most 16 kB. Each tag is also one of the 255 dependencies that an entry can have.
const TAGS_MAX: usize = 32;
/// The longest time to live: a leap year, in milliseconds.
pub const TTL_MS_MAX: i128 = 366 * 24 * 60 * 60 * 1000;

/// Returns the error for an argument that is null and must not be null. `what` is the name of the argument.
pub fn null(what: &str) -> Refused {
    Refused::new(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("{what} must not be null"))
}

/// Returns an error for an invalid argument.
pub fn invalid(message: impl Into<String>) -> Refused {
    Refused::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message)
}

/// Checks that an argument has 1 to `most` bytes, and returns them. `what` is the name of the argument.
fn sized<'a>(what: &str, bytes: &'a [u8], most: usize) -> Result<&'a [u8], Refused> {
    match bytes.len() {
        0 => Err(invalid(format!("{what} must not be empty"))),
        length if length > most => Err(invalid(format!("{what} must not be longer than {most} bytes"))
            .detail(format!("It has {length} bytes."))),
        _ => Ok(bytes),
    }
}

/// Returns the bytes of a key. Null is an error. An empty key and a key that is too long are not: `store` never stores a value
/// under such a key, and reading it is a miss.
pub fn key<'a>(argument: Option<TextArgument<'a>>) -> Result<&'a [u8], Refused> {
    argument.map(TextArgument::bytes).ok_or_else(|| null("key"))
}

/// Returns the bytes of each key of an array, like [`key`]. A null array and a null element are errors.
pub fn keys<'a>(argument: Option<TextsArgument<'a>>) -> Result<Vec<&'a [u8]>, Refused> {
    let keys = argument.ok_or_else(|| null("keys"))?.0;
    let mut checked = Vec::new();
    memory::reserve(&mut checked, keys.len());
    for bytes in keys {
        checked.push(key(bytes.map(TextArgument))?);
    }
    Ok(checked)
}

/// Returns the names and values of a JSON object whose members are to be stored. Null and JSON that is not an object are errors.
pub fn entries<'a>(argument: Option<JsonbArgument<'a>>) -> Result<Vec<Member<'a>>, Refused> {
    let object = argument.ok_or_else(|| null("entries"))?;
    jsonb::members(object).ok_or_else(|| {
        invalid("entries must be a JSON object")
            .hint("Use entries => '{\"key\": \"value\"}'. A value can be any JSON.")
    })
}

/// Returns the keys and values of two arrays that are to be stored. The arrays must have the same length and must not have null
/// elements. A null array is an error, too.
pub fn pairs<'a>(
    keys: Option<TextsArgument<'a>>,
    values: Option<Vec<Option<&'a [u8]>>>,
) -> Result<Vec<Member<'a>>, Refused> {
    let keys = self::keys(keys)?;
    let values = values.ok_or_else(|| null("values"))?;
    if keys.len() != values.len() {
        let code = PgSqlErrorCode::ERRCODE_ARRAY_ELEMENT_ERROR;
        return Err(Refused::new(code, "keys and values must have the same number of elements")
            .detail(format!("Number of keys: {}. Number of values: {}.", keys.len(), values.len())));
    }
    let mut pairs = Vec::new();
    memory::reserve(&mut pairs, keys.len());
    for (key, bytes) in keys.into_iter().zip(values) {
        pairs.push((key, value(bytes)?));
    }
    Ok(pairs)
}

/// Returns the bytes of a tag, which must not be null, empty or longer than [`TAG_BYTES_MAX`].
pub fn tag(argument: Option<&[u8]>) -> Result<&[u8], Refused> {
    sized("tag", argument.ok_or_else(|| null("tag"))?, TAG_BYTES_MAX)
}

/// Returns a pattern over keys, of any length. Null is an error, and so is a pattern that ends in an escape character.
pub fn pattern<'a>(argument: Option<TextArgument<'a>>) -> Result<Glob<'a>, Refused> {
    Glob::new(argument.ok_or_else(|| null("pattern"))?.0).ok_or_else(|| {
        let code = PgSqlErrorCode::ERRCODE_INVALID_ESCAPE_SEQUENCE;
        Refused::new(code, "pattern must not end with an escape character")
            .hint("To match a backslash, write two backslashes.")
    })
}

/// Returns a pattern for an invalidation. It must not be empty, because it would match no key. It must not be longer than a key,
/// because its slot in shared memory has no more room (`core/patterns/`).
pub fn pattern_to_invalidate<'a>(argument: Option<TextArgument<'a>>) -> Result<Glob<'a>, Refused> {
    let bytes = sized("pattern", argument.as_ref().ok_or_else(|| null("pattern"))?.0, KEY_BYTES_MAX)?;
    pattern(Some(TextArgument(bytes)))
}

/// Returns the tags of one entry, sorted and without duplicates. A null argument means no tags. More than [`TAGS_MAX`] tags are an
/// error.
pub fn tags<'a>(argument: Option<TextsArgument<'a>>) -> Result<Vec<&'a [u8]>, Refused> {
    let mut tags = tags_to_invalidate(argument.or(Some(TextsArgument(Vec::new()))))?;
    tags.sort_unstable();
    tags.dedup();
    if tags.len() > TAGS_MAX {
        return Err(invalid(format!("a value must not have more than {TAGS_MAX} tags"))
            .detail(format!("The call names {} tags.", tags.len())));
    }
    Ok(tags)
}

/// Returns the tags whose entries are to be invalidated, in the order of the array and in any number. Null is an error.
pub fn tags_to_invalidate<'a>(argument: Option<TextsArgument<'a>>) -> Result<Vec<&'a [u8]>, Refused> {
    let tags = argument.ok_or_else(|| null("tags"))?.0;
    let mut checked = Vec::new();
    memory::reserve(&mut checked, tags.len());
    for bytes in tags {
        checked.push(tag(bytes)?);
    }
    Ok(checked)
}

/// Returns the bytes of a value. Null is an error.
pub fn value(argument: Option<&[u8]>) -> Result<&[u8], Refused> {
    argument.ok_or_else(|| {
        null("value").hint("To remove the value, run cache_delete. To store a JSON null, use 'null'::jsonb.")
    })
}

/// Returns a time to live in milliseconds. An interval of less than one millisecond, also a negative one, gives 0: the caller then
/// stores nothing. An interval longer than [`TTL_MS_MAX`] is an error.
pub fn ttl(interval: Interval) -> Result<u64, Refused> {
    if interval::ms(interval) <= 0 { Ok(0) } else { lifetime("ttl", interval) }
}

/// Returns a time to live in milliseconds. An interval of less than one millisecond, or longer than [`TTL_MS_MAX`], is an error.
/// The error names the argument `name`.
pub fn lifetime(name: &str, interval: Interval) -> Result<u64, Refused> {
    let ms = interval::ms(interval);
    if ms <= 0 {
        return Err(invalid(format!("{name} must be positive"))
            .hint(format!("Use {name} => interval '1 s' for a short life.")));
    }
    if ms > TTL_MS_MAX {
        return Err(invalid(format!("{name} must not be longer than a year"))
            .hint(format!("Use {name} => interval '1 year'.")));
    }
    Ok(ms as u64)
}

/// Returns the space with this name. If there is no such space, or if the current role lacks the privilege, that is an error.
pub fn space(argument: Option<TextArgument<'_>>, needed: Privilege) -> Result<Rc<Space>, Refused> {
    space::with_privilege(argument.ok_or_else(|| null("space"))?.0, needed)
}

/// Returns the condition under which a value is set. A lease is a condition, too, so with a lease the mode must be `always`, which
/// is the default. Null and any other name are errors. `store/entry/writing.rs` checks later whether the lease still exists.
pub fn mode(argument: Option<TextArgument<'_>>, lease: Option<i64>) -> Result<Mode, Refused> {
    let name = argument.ok_or_else(|| null("mode").hint(MODES))?.0;
    let mode = match name {
        b"always" => Mode::Always,
        b"absent" => Mode::Absent,
        b"present" => Mode::Present,
        _ => {
            return Err(
                invalid(format!("invalid value for argument \"mode\": \"{}\"", shown(name))).hint(MODES)
            );
        }
    };
    match (lease, mode) {
        (None, mode) => Ok(mode),
        (Some(lease), Mode::Always) => Ok(Mode::Lease(lease)),
        (Some(_), _) => Err(invalid("lease and mode must not be used together").hint(
            "Omit mode. A value that was computed under a lease is stored if nothing has changed since.",
        )),
    }
}

const MODES: &str = "Available values: always, absent, present.";

/// Returns whether to add to a counter only if the key has a value: true for the mode `present`, false for `always`. Null and any
/// other name are errors.
pub fn only_present(mode: Option<TextArgument<'_>>) -> Result<bool, Refused> {
    let name = mode.ok_or_else(|| null("mode").hint(MODES_OF_COUNTERS))?.0;
    match name {
        b"always" => Ok(false),
        b"present" => Ok(true),
        _ => Err(invalid(format!("mode must not be \"{}\"", shown(name))).hint(MODES_OF_COUNTERS)),
    }
}

const MODES_OF_COUNTERS: &str = "Available values: always, present.";

/// Returns the number of milliseconds for which a stale value may be served. None if a stale value must not be served: for null,
/// and for an interval from 0 to less than one millisecond. A negative interval and one longer than [`TTL_MS_MAX`] are errors.
pub fn stale_ok(argument: Option<Interval>) -> Result<Option<u64>, Refused> {
    let ms = argument.map_or(0, interval::ms);
    if ms < 0 {
        return Err(invalid("stale_ok must not be negative")
            .hint("Omit stale_ok if a value must not be returned after it has expired."));
    }
    if ms > TTL_MS_MAX {
        return Err(
            invalid("stale_ok must not be longer than a year").hint("Use stale_ok => interval '1 year'.")
        );
    }
    Ok(Some(ms as u64).filter(|ms| *ms > 0))
}

/// Returns the number of milliseconds to wait while another caller computes the value; 0 means not to wait. Null, a negative
/// interval and one longer than [`WAIT_MS_MAX`] are errors.
pub fn wait(argument: Option<Interval>) -> Result<u64, Refused> {
    let ms = interval::ms(argument.ok_or_else(|| null("wait").hint(NOT_TO_WAIT))?);
    if ms < 0 {
        return Err(invalid("wait must not be negative").hint(NOT_TO_WAIT));
    }
    if ms > WAIT_MS_MAX {
        return Err(invalid("wait must not be longer than 6 hours")
            .hint("Use wait => interval '1 minute', and call the function again."));
    }
    Ok(ms as u64)
}

const NOT_TO_WAIT: &str = "To return at once, use wait => '0'.";
/// The longest wait, in milliseconds: 6 hours. A caller that wants to wait longer calls the function again.
const WAIT_MS_MAX: i128 = 6 * 60 * 60 * 1000;

/// Returns the number of milliseconds for which a lease may be held. An interval of less than one millisecond, or longer than
/// [`HOLD_MS_MAX`], is an error.
pub fn hold(interval: Interval) -> Result<u64, Refused> {
    let ms = interval::ms(interval);
    if ms <= 0 {
        return Err(
            invalid("hold must be positive").hint("To read without acquiring a lease, use hold => NULL.")
        );
    }
    if ms > HOLD_MS_MAX {
        return Err(invalid("hold must not be longer than an hour").hint(
            "Use the longest time that the computation can take, for example hold => interval '5 minutes'.",
        ));
    }
    Ok(ms as u64)
}

/// The longest time for which a lease can be held, in milliseconds: one hour. Until a lease is released or expires, other callers
/// cannot get one.
const HOLD_MS_MAX: i128 = 60 * 60 * 1000;

/// Does the same as [`ttl`], except that null is an error.
pub fn required_ttl(interval: Option<Interval>) -> Result<u64, Refused> {
    ttl(interval.ok_or_else(|| null("ttl"))?)
}

/// Returns the number to add to a counter. Null is an error.
pub fn by(argument: Option<i64>) -> Result<i64, Refused> {
    argument.ok_or_else(|| null("by"))
}
