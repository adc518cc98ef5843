//! Tracks the functions that this session calls. It knows since when the session has compiled functions: the compiled form may keep
//! what a name or a type meant then. It also finds the functions that keep the types they have looked up once. A moment is a
//! *stamp* here, a number on the clock of changes: each committing transaction that changes a dependency of cached values draws a
//! new one.
//!
//! A *fill* is a query whose result may be stored. Code of this file that looks up a catalog must be called within a transaction,
//! and may raise errors of the server.

#![allow(unsafe_code)]

use super::call::{self, C, Call};
use super::encoding::shown;
use super::local::local;
use super::{memory, observer, shared};
use pg_cache_core::Stamp;
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::CStr;

local! {
    /// A moment from before the session compiled its first function, by calling or creating one. None if it has compiled none.
    static FIRST_COMPILED: Cell<Option<Stamp>> = Cell::new(None);
}

/// Notes that a function is about to be called. This runs for each function of each plan, so the usual case must cost next to
/// nothing.
#[inline]
pub fn note_call(function: u32) {
    note_compiling();
    observer::note_function(function);
    if observer::is_filling() && !observer::is_noted(function) {
        note_in_fill(function);
    }
}

/// Notes the call in the running fill. A separate function, so that a session without a fill pays for one check only. It runs under
/// the guard for the same reason as [`begin`].
#[cold]
#[inline(never)]
fn note_in_fill(function: u32) {
    let note = || observer::note_call(function, &Call::of(function));
    // SAFETY: the server calls this, and no value on this stack needs to be dropped.
    unsafe { pg_sys::panic::pgrx_extern_c_guard(note) };
}

/// Notes that a function may be compiled next: because it is called, or checked when it is created.
#[inline]
pub fn note_compiling() {
    if FIRST_COMPILED.get().is_none() {
        begin();
    }
}

/// Stores the current moment; the void stamp if there is no cache. The server calls this from C, and our errors must not unwind
/// through C frames, so the code runs under the guard.
#[cold]
fn begin() {
    let now = || FIRST_COMPILED.set(Some(shared::tier().map_or(Stamp::VOID, |tier| tier.fences().now())));
    // SAFETY: the server calls this, and no value on this stack needs to be dropped.
    unsafe { pg_sys::panic::pgrx_extern_c_guard(now) };
}

/// Returns a moment before which this session has compiled no function. If it is unknown, or no function was compiled yet, returns
/// [`Stamp::VOID`], which is before every change.
pub fn compiled_since() -> Stamp {
    FIRST_COMPILED.get().unwrap_or(Stamp::VOID)
}

/// Returns whether a function keeps types of tables and columns until the session ends: a PL/pgSQL function that declares a
/// variable by `%TYPE` or `%ROWTYPE`. Its compiled form survives changes of these tables. Returns true if there is no such
/// function.
pub fn keeps_types(function: u32) -> bool {
    let plpgsql = call::plpgsql();
    with_source(function, |language, source| language == plpgsql && declares_by_reference(source))
        .unwrap_or(true)
}

/// Returns a copy of the source of a function. None if there is no such function.
pub fn source(function: u32) -> Option<Vec<u8>> {
    with_source(function, |_, source| memory::copy(source))
}

/// Returns whether a function is written in C: the executor does not report what C code reads. Returns true if there is no such
/// function.
pub fn is_native(function: u32) -> bool {
    call::find(function).is_none_or(|found| found.language == C)
}

/// Returns a function with its argument types, such as `function f(integer)`, and with the schema if the search path does not find
/// it. None if there is no such function, or if the current role may not call it, unless `all` is set.
pub fn in_words(function: u32, all: bool) -> Option<String> {
    call::find(function)?;
    // SAFETY: looks up catalogs, for a function that exists. The server returns a new string that ends with a zero.
    unsafe {
        let (caller, execute) = (pg_sys::GetUserId(), pg_sys::ACL_EXECUTE as pg_sys::AclMode);
        #[cfg(feature = "pg15")]
        let allowed = pg_sys::pg_proc_aclcheck(function.into(), caller, execute);
        #[cfg(not(feature = "pg15"))]
        let allowed = pg_sys::object_aclcheck(pg_sys::ProcedureRelationId, function.into(), caller, execute);
        let is_found = allowed == pg_sys::AclResult::ACLCHECK_OK && may_use_schema_of(function);
        if !all && !is_found {
            return None;
        }
        let name = CStr::from_ptr(pg_sys::format_procedure(function.into()));
        Some(format!("function {}", shown(name.to_bytes())))
    }
}

/// Returns whether the current role may use the schema of a function.
fn may_use_schema_of(function: u32) -> bool {
    // SAFETY: looks up catalogs.
    unsafe {
        let (schema, usage) =
            (pg_sys::get_func_namespace(function.into()), pg_sys::ACL_USAGE as pg_sys::AclMode);
        #[cfg(feature = "pg15")]
        let allowed = pg_sys::pg_namespace_aclcheck(schema, pg_sys::GetUserId(), usage);
        #[cfg(not(feature = "pg15"))]
        let allowed =
            pg_sys::object_aclcheck(pg_sys::NamespaceRelationId, schema, pg_sys::GetUserId(), usage);
        allowed == pg_sys::AclResult::ACLCHECK_OK
    }
}

/// Calls `read` with the language and the source of a function. Returns None if there is no such function.
fn with_source<R>(function: u32, read: impl FnOnce(u32, &[u8]) -> R) -> Option<R> {
    let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
    // SAFETY: a look-up in the server's cache of pg_proc. The entry is released after the last access, and the copy of the source
    // lives until the statement ends.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(cache, function.into());
        if tuple.is_null() {
            return None;
        }
        let language = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>()).prolang.to_u32();
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

/// Returns whether a source contains `%TYPE` or `%ROWTYPE`, perhaps with spaces after the percent sign. A match inside of a comment
/// counts, too. So does a comment directly after a percent sign, because `TYPE` may follow it.
fn declares_by_reference(source: &[u8]) -> bool {
    source.split(|byte| *byte == b'%').skip(1).any(|after| {
        let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'\x0b';
        let word = &after[after.iter().take_while(|byte| is_space(byte)).count()..];
        [&b"type"[..], b"rowtype", b"--", b"/*"]
            .iter()
            .any(|name| word.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)))
    })
}
