//! Functions that this session calls: since when, and which keep types that they have looked up once.

#![allow(unsafe_code)]

use super::local::local;
use super::{observer, shared};
use pg_cache_core::Stamp;
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::CStr;

local! {
    /// A moment before the session compiled its first function, by calling or creating one. None before that.
    static FIRST_COMPILED: Cell<Option<Stamp>> = Cell::new(None);
}

/// A function is about to be called. Called for each function of each plan, so the usual case must cost next to nothing.
#[inline]
pub fn note_call(function: u32) {
    note_compiling();
    observer::note_function(function);
}

/// A function may be about to be compiled: to be called, or to be checked when it is created.
#[inline]
pub fn note_compiling() {
    if FIRST_COMPILED.get().is_none() {
        begin();
    }
}

/// The server calls this from C, where an error of ours must not unwind through.
#[cold]
fn begin() {
    let now = || FIRST_COMPILED.set(Some(shared::tier().map_or(Stamp::VOID, |tier| tier.fences().now())));
    // SAFETY: called by the server, with nothing to drop in between.
    unsafe { pg_sys::panic::pgrx_extern_c_guard(now) };
}

/// A moment before which this session has compiled no function.
pub fn compiled_since() -> Stamp {
    FIRST_COMPILED.get().unwrap_or(Stamp::VOID)
}

/// Whether a function keeps types of tables and columns for as long as the session lives: one in PL/pgSQL that declares a variable by
/// `%TYPE` or `%ROWTYPE`. Its compiled form survives changes of these tables.
pub fn keeps_types(function: u32) -> bool {
    // SAFETY: a question to the server's catalogs, by a name that ends with a zero.
    let plpgsql = unsafe { pg_sys::get_language_oid(c"plpgsql".as_ptr(), true) };
    with_function(function, |language, source| language == plpgsql && declares_by_reference(source))
        .unwrap_or(true)
}

/// Whether a function is written in C: the executor does not tell what it reads.
pub fn is_native(function: u32) -> bool {
    const C: u32 = 13;
    with_function(function, |language, _| language.to_u32() == C).unwrap_or(true)
}

/// Calls with the language of a function and its source. None if there is no such function.
fn with_function<R>(function: u32, read: impl FnOnce(pg_sys::Oid, &[u8]) -> R) -> Option<R> {
    let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
    // SAFETY: a look-up in the server's cache of pg_proc. The copies that are read live as long as the statement.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(cache, function.into());
        if tuple.is_null() {
            return None;
        }
        let language = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>()).prolang;
        let mut is_null = true;
        let column = pg_sys::Anum_pg_proc_prosrc as pg_sys::AttrNumber;
        let source = pg_sys::SysCacheGetAttr(cache, tuple, column, &raw mut is_null);
        let source = match is_null {
            true => c"",
            false => CStr::from_ptr(pg_sys::text_to_cstring(source.cast_mut_ptr())),
        };
        pg_sys::ReleaseSysCache(tuple);
        Some(read(language, source.to_bytes()))
    }
}

/// Whether a source has `%TYPE` or `%ROWTYPE`, perhaps with spaces after the sign. One in a comment counts as well, and a comment after a
/// sign as what may follow it.
fn declares_by_reference(source: &[u8]) -> bool {
    source.split(|byte| *byte == b'%').skip(1).any(|after| {
        let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'\x0b';
        let word = &after[after.iter().take_while(|byte| is_space(byte)).count()..];
        [&b"type"[..], b"rowtype", b"--", b"/*"]
            .iter()
            .any(|name| word.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)))
    })
}
