//! Decides whether a query reads the clock. The result of such a query changes without a change of data, so it lives at most a
//! minute if the caller asks for no other time (`search.rs`).

use super::text;
use super::texts::{Known, know};
use crate::pg::function;
use crate::pg::jsonb::Element;
use crate::pg::memory::OutOfMemory;
use crate::pg::observer::Seen;
use crate::pg::query::Arguments;

/// Returns whether a string in the text of a query, or one of its arguments, names a moment, such as `today`.
pub fn is_named(known: &Known, arguments: Arguments<'_>) -> bool {
    let in_arguments = || match arguments {
        Arguments::Json(array) => {
            let mut texts = array.elements().into_iter().filter_map(Element::text);
            texts.any(|text| text::names_moment(text.to_bytes()))
        }
        Arguments::Typed(typed) => text::names_moment(typed.bytes()),
    };
    known.text.names_moment || in_arguments()
}

/// The names of functions and key words that read the clock.
const NAMES: [&[u8]; 11] = [
    b"age",
    b"clock_timestamp",
    b"current_date",
    b"current_time",
    b"current_timestamp",
    b"localtime",
    b"localtimestamp",
    b"now",
    b"statement_timestamp",
    b"timeofday",
    b"transaction_timestamp",
];

/// Returns whether a query that has run has read the clock, as far as pg_cache can tell. Of a function that is not built in, only
/// the volatility is known. So if only such functions may have read the clock, the query counts if the source of one of them has
/// one of [`NAMES`] or a word such as `today`, or if one of them does not exist any more.
pub fn was_read(known: &Known, arguments: Arguments<'_>, seen: &Seen) -> Result<bool, OutOfMemory> {
    if seen.reads_clock_surely || is_named(known, arguments) {
        return Ok(true);
    }
    if !seen.reads_clock {
        return Ok(false);
    }
    for function in &seen.functions {
        let Some(source) = function::source(*function) else { return Ok(true) };
        let known = know(&source)?;
        let is_of_clock = |word: &[u8]| NAMES.iter().any(|name| word.eq_ignore_ascii_case(name));
        let mut words = source.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
        if known.text.names_moment || words.any(is_of_clock) {
            return Ok(true);
        }
    }
    Ok(false)
}
