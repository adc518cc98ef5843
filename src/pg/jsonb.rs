//! Takes a jsonb apart, and converts it to text and to and from integers. The members of an object become separate jsonb values,
//! and the elements of an array become text or the text of SQL arrays.

#![allow(unsafe_code)]

use super::error::Refused;
use super::memory::{self, Scratch};
use super::multiset::{self, Multiset};
use super::varlena::{Jsonb, JsonbArgument, OwnedJsonb, Varlena};
use pgrx::prelude::*;
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
    // SAFETY: the iterator returns keys as strings with their lengths, which live as long as the copy that it walks through. It
    // returns values that the server can convert to a jsonb each.
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

/// Returns the names and values of all members, or None if the jsonb is not an object. They are in the memory of the statement.
pub fn elements_by_name<'a>(argument: JsonbArgument<'a>) -> Option<Vec<(&'a [u8], Element)>> {
    if !is(argument, pg_sys::JB_FOBJECT) {
        return None;
    }
    let mut members = Vec::new();
    // SAFETY: the copy of the object lives as long as the members are in use. The iterator returns the key of a member before its
    // value.
    unsafe {
        let mut iterator = walk(argument);
        let mut item = pg_sys::JsonbValue::default();
        let mut name: &[u8] = &[];
        loop {
            pgrx::check_for_interrupts!();
            match pg_sys::JsonbIteratorNext(&raw mut iterator, &raw mut item, true) {
                pg_sys::JsonbIteratorToken::WJB_DONE => return Some(members),
                pg_sys::JsonbIteratorToken::WJB_KEY => {
                    let key = item.val.string;
                    name = std::slice::from_raw_parts(key.val.cast(), key.len as usize);
                }
                pg_sys::JsonbIteratorToken::WJB_VALUE => memory::push(&mut members, (name, Element(item))),
                _ => {}
            }
        }
    }
}

/// Returns whether two jsonb, without their headers, are arrays of the same elements, each as often, in any order.
pub fn have_same_elements(one: &[u8], other: &[u8]) -> bool {
    let elements = |bytes: &[u8]| multiset_of_elements(OwnedJsonb::of_bytes(bytes).as_argument());
    elements(one).is_some_and(|one| elements(other) == Some(one))
}

/// Returns the elements of a jsonb as a multiset. None if the jsonb is not an array.
fn multiset_of_elements(argument: JsonbArgument<'_>) -> Option<Multiset> {
    if !is(argument, pg_sys::JB_FARRAY) || is(argument, pg_sys::JB_FSCALAR) {
        return None;
    }
    let mut elements = Multiset::default();
    // SAFETY: as in `members`.
    unsafe {
        let iterator = walk(argument);
        let scratch = Scratch::new();
        walk_elements(iterator, |item| {
            let value = pg_sys::JsonbValueToJsonb(item).cast();
            let length = pgrx::varlena::varsize_any_exhdr(value);
            let bytes = std::slice::from_raw_parts(pgrx::varlena::vardata_any(value).cast(), length);
            elements.add(multiset::of_bytes(bytes));
            scratch.clear();
        });
    }
    Some(elements)
}

/// A JSON array.
#[derive(Clone, Copy, Debug)]
pub struct Array<'a>(Option<JsonbArgument<'a>>);

impl<'a> Array<'a> {
    /// An array without elements.
    pub const EMPTY: Self = Self(None);

    /// Returns an argument as an array. A JSON null counts as an array without elements. Returns None for any other JSON that is no
    /// array. (The server stores a scalar as an array with one element and the bit `JB_FSCALAR`.)
    pub fn of(argument: JsonbArgument<'a>) -> Option<Self> {
        let has = |what| is(argument, what);
        if !has(pg_sys::JB_FARRAY) {
            return None;
        }
        let word =
            |at: usize| argument.bytes().get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word));
        if has(pg_sys::JB_FSCALAR) {
            let is_null =
                word(4).is_some_and(|entry| entry & pg_sys::JENTRY_TYPEMASK == pg_sys::JENTRY_ISNULL);
            return is_null.then_some(Self::EMPTY);
        }
        let count = word(0).map_or(0, |head| head & pg_sys::JB_CMASK);
        Some(Self((count > 0).then_some(argument)))
    }

    /// Returns the binary form; no bytes for an empty array. `[1]` and `[1.0]` are equal in SQL, but their bytes differ.
    pub fn bytes(self) -> &'a [u8] {
        self.0.map_or(&[], JsonbArgument::bytes)
    }

    /// Returns the elements. They are in the memory of the statement.
    pub fn elements(self) -> Vec<Element> {
        let mut elements = Vec::new();
        if let Some(argument) = self.0 {
            // SAFETY: the copy of the array lives as long as the elements are in use.
            unsafe { walk_elements(walk(argument), |item| memory::push(&mut elements, Element(*item))) };
        }
        elements
    }
}

/// Calls `visit` for each element of an array.
///
/// # Safety
/// The iterator must be new, and walk through an array.
unsafe fn walk_elements(
    mut iterator: *mut pg_sys::JsonbIterator,
    mut visit: impl FnMut(&mut pg_sys::JsonbValue),
) {
    let mut item = pg_sys::JsonbValue::default();
    loop {
        pgrx::check_for_interrupts!();
        // SAFETY: as the caller promises.
        match unsafe { pg_sys::JsonbIteratorNext(&raw mut iterator, &raw mut item, true) } {
            pg_sys::JsonbIteratorToken::WJB_DONE => return,
            pg_sys::JsonbIteratorToken::WJB_ELEM => visit(&mut item),
            _ => {}
        }
    }
}

/// An element of a JSON array, or the value of a member of an object.
#[derive(Clone, Copy)]
pub struct Element(pg_sys::JsonbValue);

/// The way in which elements become elements of an SQL array.
#[derive(Clone, Copy, Debug)]
pub struct Literal {
    /// The character between elements.
    pub delimiter: u8,
    /// Whether the elements of the SQL array are JSON themselves. Otherwise an array among the elements is a further dimension.
    pub of_json: bool,
}

impl Element {
    /// Returns whether the element is an array or an object itself.
    pub fn is_nested(&self) -> bool {
        self.0.type_ == pg_sys::jbvType::jbvBinary
    }

    /// Returns the element as text: a string without quotes, any other JSON as it is written. Returns None for a null.
    pub fn text(mut self) -> Option<CString> {
        use pg_sys::jbvType;
        match self.0.type_ {
            jbvType::jbvNull => None,
            // SAFETY: the type says that this is a string. The server's text contains no zeroes.
            jbvType::jbvString => memory::terminated(unsafe { string(&self.0) }),
            _ => {
                let scratch = Scratch::new();
                // SAFETY: the element lives as long as the array does.
                let text = unsafe { memory::terminated(json(&mut self.0)) };
                drop(scratch);
                text
            }
        }
    }

    /// Returns an element that is an array itself as the text of an SQL array. Returns None for any other element. `form` is called
    /// only for an array.
    pub fn array(self, form: impl FnOnce() -> Literal) -> Option<CString> {
        let array = array_in(&self.0)?;
        let form = form();
        let mut text = Vec::new();
        // SAFETY: the element lives as long as the array does.
        unsafe { write_array(array, form, &mut text) };
        memory::terminated(&text)
    }
}

/// Returns the bytes of a string.
///
/// # Safety
/// The value must be a string.
unsafe fn string(item: &pg_sys::JsonbValue) -> &[u8] {
    // SAFETY: as the caller promises. The bytes are in the copy of the array.
    unsafe {
        let string = item.val.string;
        std::slice::from_raw_parts(string.val.cast::<u8>(), string.len as usize)
    }
}

/// Returns a value as it is written in JSON, in the current memory context.
///
/// # Safety
/// The value must come from an iterator whose array still exists.
unsafe fn json<'a>(item: &mut pg_sys::JsonbValue) -> &'a [u8] {
    // SAFETY: as the caller promises.
    unsafe {
        let value = pg_sys::JsonbValueToJsonb(item);
        let text = pg_sys::JsonbToCString(std::ptr::null_mut(), &raw mut (*value).root, 0);
        CStr::from_ptr(text).to_bytes()
    }
}

/// Returns the array that an element is, or None if it is none.
fn array_in(item: &pg_sys::JsonbValue) -> Option<*mut pg_sys::JsonbContainer> {
    if item.type_ != pg_sys::jbvType::jbvBinary {
        return None;
    }
    // SAFETY: the type says that this is a nested array or object, which begins with its header.
    unsafe {
        let container = item.val.binary.data;
        ((*container).header & pg_sys::JB_FARRAY != 0).then_some(container)
    }
}

/// Writes an array as the text of an SQL array.
///
/// # Safety
/// The array must exist.
unsafe fn write_array(array: *mut pg_sys::JsonbContainer, form: Literal, text: &mut Vec<u8>) {
    // SAFETY: raises an error if arrays are nested too deeply.
    unsafe { pg_sys::check_stack_depth() };
    // SAFETY: as the caller promises.
    let iterator = unsafe { pg_sys::JsonbIteratorInit(array) };
    let scratch = Scratch::new();
    let mut before = b'{';
    // SAFETY: the iterator is new. It is not in the scratch memory.
    unsafe {
        walk_elements(iterator, |item| {
            memory::push(text, before);
            before = form.delimiter;
            match (item.type_, array_in(item).filter(|_| !form.of_json)) {
                (pg_sys::jbvType::jbvNull, _) => write(text, b"NULL"),
                (_, Some(nested)) => write_array(nested, form, text),
                (pg_sys::jbvType::jbvNumeric | pg_sys::jbvType::jbvBool, _) => write(text, json(item)),
                (pg_sys::jbvType::jbvString, _) if !form.of_json => quote(text, string(item)),
                _ => quote(text, json(item)),
            }
            scratch.clear();
        });
    }
    write(text, if before == b'{' { b"{}" } else { b"}" });
}

/// Appends bytes as a quoted element of an SQL array.
fn quote(text: &mut Vec<u8>, bytes: &[u8]) {
    memory::push(text, b'"');
    for part in bytes.split_inclusive(|byte| matches!(byte, b'"' | b'\\')) {
        match part.split_last() {
            Some((special @ (b'"' | b'\\'), plain)) => {
                write(text, plain);
                write(text, &[b'\\', *special]);
            }
            _ => write(text, part),
        }
    }
    memory::push(text, b'"');
}

/// Appends bytes. Raises an error if the text would get larger than one allocation of the server can be.
fn write(text: &mut Vec<u8>, bytes: &[u8]) {
    if text.len() + bytes.len() > memory::LARGEST {
        let code = PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED;
        Refused::new(code, "array is too large").raise();
    }
    memory::reserve(text, bytes.len());
    text.extend_from_slice(bytes);
}

/// Returns an integer as a jsonb.
pub fn of_bigint(number: i64) -> Jsonb {
    let scratch = Scratch::new();
    // SAFETY: the server returns a jsonb in the scratch context, which is copied before that context ends.
    unsafe {
        let mut value = pg_sys::JsonbValue { type_: pg_sys::jbvType::jbvNumeric, ..Default::default() };
        value.val.numeric = pg_sys::int64_to_numeric(number);
        let jsonb = pg_sys::JsonbValueToJsonb(&raw mut value).cast();
        let length = pgrx::varlena::varsize_any_exhdr(jsonb);
        let bytes = std::slice::from_raw_parts(pgrx::varlena::vardata_any(jsonb).cast(), length);
        scratch.outside(|| Jsonb(Varlena::of(bytes)))
    }
}

/// Returns the integer that a jsonb is, or None if it is no integer of 64 bits.
pub fn bigint(jsonb: &Jsonb) -> Option<i64> {
    let bytes = jsonb.0.bytes();
    if bytes.is_empty() {
        return None;
    }
    let _scratch = Scratch::new();
    // SAFETY: the bytes are a jsonb without its header, and aligned: a Varlena begins at an aligned address, and its header has 4
    // bytes.
    let text = unsafe {
        CStr::from_ptr(pg_sys::JsonbToCString(std::ptr::null_mut(), bytes.as_ptr().cast_mut().cast(), 0))
    };
    text.to_str().ok()?.parse().ok()
}

/// Returns a jsonb as it is written in JSON. Returns None if it has no bytes, or if the text is not UTF-8.
pub fn text(jsonb: &Jsonb) -> Option<String> {
    let bytes = jsonb.0.bytes();
    if bytes.is_empty() {
        return None;
    }
    let _scratch = Scratch::new();
    // SAFETY: as in `bigint`.
    let text = unsafe {
        let length = bytes.len() as std::ffi::c_int;
        CStr::from_ptr(pg_sys::JsonbToCString(std::ptr::null_mut(), bytes.as_ptr().cast_mut().cast(), length))
    };
    let text = text.to_str().ok()?;
    let mut copy = Vec::new();
    memory::reserve(&mut copy, text.len());
    copy.extend_from_slice(text.as_bytes());
    String::from_utf8(copy).ok()
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
