//! The members of a jsonb object, as values of their own.

#![allow(unsafe_code)]

use super::varlena::JsonbArgument;
use pgrx::pg_sys;

/// Whether the jsonb is an object, by the bits that its form begins with.
fn is_object(argument: JsonbArgument<'_>) -> bool {
    argument.0.first_chunk().is_some_and(|head| u32::from_ne_bytes(*head) & pg_sys::JB_FOBJECT != 0)
}

/// Name and binary form.
pub type Member<'a> = (&'a [u8], &'a [u8]);

/// All members; none if the jsonb is no object. All in the memory of the statement.
pub fn members(argument: JsonbArgument<'_>) -> Option<Vec<Member<'_>>> {
    if !is_object(argument) {
        return None;
    }
    let mut members = Vec::new();
    let mut name: &[u8] = &[];
    // SAFETY: the argument is a jsonb behind its header, copied to where it is aligned as the server wants it. The iterator hands
    // out keys as strings with their lengths, which stay as long as the copy, and values that become a jsonb each.
    unsafe {
        let copy = pg_sys::palloc(argument.0.len()).cast::<u8>();
        copy.copy_from_nonoverlapping(argument.0.as_ptr(), argument.0.len());
        let mut iterator = pg_sys::JsonbIteratorInit(copy.cast());
        let mut item = pg_sys::JsonbValue::default();
        loop {
            match pg_sys::JsonbIteratorNext(&raw mut iterator, &raw mut item, true) {
                pg_sys::JsonbIteratorToken::WJB_DONE => return Some(members),
                pg_sys::JsonbIteratorToken::WJB_KEY => {
                    name =
                        std::slice::from_raw_parts(item.val.string.val.cast(), item.val.string.len as usize);
                }
                pg_sys::JsonbIteratorToken::WJB_VALUE => {
                    let value = pg_sys::JsonbValueToJsonb(&raw mut item).cast();
                    let length = pgrx::varlena::varsize_any_exhdr(value);
                    // What the server returns takes a kilobyte, however small it is.
                    let bytes = pg_sys::palloc(length).cast::<u8>();
                    bytes.copy_from_nonoverlapping(pgrx::varlena::vardata_any(value).cast(), length);
                    pg_sys::pfree(value.cast());
                    members.push((name, std::slice::from_raw_parts(bytes, length)));
                }
                _ => {}
            }
        }
    }
}
