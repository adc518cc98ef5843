//! What a jsonb consists of: the members of an object as values of their own, the elements of an array as text.

#![allow(unsafe_code)]

use super::memory::{self, Scratch};
use super::varlena::JsonbArgument;
use pgrx::pg_sys;
use std::ffi::{CStr, CString};

/// Whether the bits that a jsonb begins with say all of this.
fn is(argument: JsonbArgument<'_>, what: u32) -> bool {
    argument.bytes().first_chunk().is_some_and(|head| u32::from_ne_bytes(*head) & what == what)
}

/// Name and binary form.
pub type Member<'a> = (&'a [u8], &'a [u8]);

/// All members; none if the jsonb is no object. All in the memory of the statement.
pub fn members<'a>(argument: JsonbArgument<'a>) -> Option<Vec<Member<'a>>> {
    if !is(argument, pg_sys::JB_FOBJECT) {
        return None;
    }
    let mut members = Vec::new();
    let mut name: &[u8] = &[];
    // SAFETY: the iterator hands out keys as strings with their lengths, which stay as long as what it walks through, and values
    // that become a jsonb each.
    unsafe {
        let mut iterator = walk(argument);
        let mut item = pg_sys::JsonbValue::default();
        let scratch = Scratch::new();
        loop {
            pgrx::check_for_interrupts!();
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
                    let bytes = scratch.outside(|| memory::cleared(length)).cast::<u8>();
                    bytes.copy_from_nonoverlapping(pgrx::varlena::vardata_any(value).cast(), length);
                    scratch.clear();
                    memory::push(&mut members, (name, std::slice::from_raw_parts(bytes, length)));
                }
                _ => {}
            }
        }
    }
}

/// The elements of an array as text, and none for each that is null; strings as what they say. None if it is no array. A null by
/// itself is an array of nothing.
pub fn elements(argument: JsonbArgument<'_>) -> Option<Vec<Option<CString>>> {
    use pg_sys::{JsonbIteratorToken as Token, jbvType};
    if !is(argument, pg_sys::JB_FARRAY) {
        return None;
    }
    let is_scalar = is(argument, pg_sys::JB_FSCALAR);
    let mut elements = Vec::new();
    // SAFETY: the iterator hands out strings with their lengths, and other elements that the server writes as text.
    unsafe {
        let mut iterator = walk(argument);
        let mut item = pg_sys::JsonbValue::default();
        let scratch = Scratch::new();
        loop {
            match pg_sys::JsonbIteratorNext(&raw mut iterator, &raw mut item, true) {
                Token::WJB_DONE => return Some(elements),
                Token::WJB_ELEM if is_scalar && item.type_ != jbvType::jbvNull => return None,
                Token::WJB_ELEM if is_scalar => {}
                Token::WJB_ELEM if item.type_ == jbvType::jbvNull => memory::push(&mut elements, None),
                Token::WJB_ELEM if item.type_ == jbvType::jbvString => {
                    let string = item.val.string;
                    let bytes = std::slice::from_raw_parts(string.val.cast::<u8>(), string.len as usize);
                    // Text of the server, which has no zeroes.
                    memory::push(&mut elements, memory::terminated(bytes));
                }
                Token::WJB_ELEM => {
                    let element = pg_sys::JsonbValueToJsonb(&raw mut item);
                    let text = pg_sys::JsonbToCString(std::ptr::null_mut(), &raw mut (*element).root, 0);
                    memory::push(&mut elements, memory::terminated(CStr::from_ptr(text).to_bytes()));
                    scratch.clear();
                }
                _ => {}
            }
        }
    }
}

/// An iterator over a copy of a jsonb in the memory of the statement.
unsafe fn walk(argument: JsonbArgument<'_>) -> *mut pg_sys::JsonbIterator {
    // SAFETY: the argument is a jsonb behind its header, copied to where it is aligned as the server wants it.
    unsafe {
        let bytes = argument.bytes();
        let copy = memory::cleared(bytes.len()).cast::<u8>();
        copy.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        pg_sys::JsonbIteratorInit(copy.cast())
    }
}
