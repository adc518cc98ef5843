//! Takes a jsonb apart. The members of an object become separate jsonb values, and the elements of an array become text.

#![allow(unsafe_code)]

use super::memory::{self, Scratch};
use super::varlena::JsonbArgument;
use pgrx::pg_sys;
use std::ffi::{CStr, CString};

/// Returns whether the header of a jsonb has all of these bits.
fn is(argument: JsonbArgument<'_>, what: u32) -> bool {
    argument.bytes().first_chunk().is_some_and(|head| u32::from_ne_bytes(*head) & what == what)
}

/// The name of a member, and its value in binary form.
pub type Member<'a> = (&'a [u8], &'a [u8]);

/// Returns all members, or None if the jsonb is not an object. Names and values are in the memory of the statement.
pub fn members<'a>(argument: JsonbArgument<'a>) -> Option<Vec<Member<'a>>> {
    if !is(argument, pg_sys::JB_FOBJECT) {
        return None;
    }
    let mut members = Vec::new();
    let mut name: &[u8] = &[];
    // SAFETY: the iterator returns keys as strings with their lengths, which live as long as the copy that it walks through. It returns
    // values that the server can convert to a jsonb each.
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
                    // The server allocates at least a kilobyte for each value, so the value is copied and the server's piece freed.
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

/// Returns the elements of an array as text: strings without quotes, and None for a null. Returns None if the jsonb is not an array. A
/// jsonb null by itself counts as an empty array.
pub fn elements(argument: JsonbArgument<'_>) -> Option<Vec<Option<CString>>> {
    use pg_sys::{JsonbIteratorToken as Token, jbvType};
    if !is(argument, pg_sys::JB_FARRAY) {
        return None;
    }
    let is_scalar = is(argument, pg_sys::JB_FSCALAR);
    let mut elements = Vec::new();
    // SAFETY: the iterator returns strings with their lengths, and other elements that the server can write as text.
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
                    // The server's text contains no zeroes.
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

/// Returns an iterator over a copy of a jsonb in the memory of the statement.
unsafe fn walk(argument: JsonbArgument<'_>) -> *mut pg_sys::JsonbIterator {
    // SAFETY: the argument is a jsonb without its header. The copy is aligned as the server requires.
    unsafe {
        let bytes = argument.bytes();
        let copy = memory::cleared(bytes.len()).cast::<u8>();
        copy.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        pg_sys::JsonbIteratorInit(copy.cast())
    }
}
