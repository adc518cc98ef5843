//! Tracks the functions that this session calls. It knows since when the session has compiled functions. It also finds the
//! functions that keep the types they have looked up once. A moment is a *stamp* here, a number on the clock of changes
//! (`docs/architecture.md`).

#![allow(unsafe_code)]

use super::analysis::Call;
use super::encoding::shown;
use super::local::local;
use super::{observer, shared};
use pg_cache_core::Stamp;
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};

local! {
    /// A moment before the session compiled its first function, by calling or creating one. None before that.
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
    let plpgsql = plpgsql();
    with_source(function, |language, source| language == plpgsql && declares_by_reference(source))
        .unwrap_or(true)
}

/// Returns whether a function is written in C: the executor does not report what C code reads. Returns true if there is no such
/// function.
pub fn is_native(function: u32) -> bool {
    find(function).is_none_or(|found| found.language == C)
}

/// The OID of the language `internal` in pg_language.
pub const INTERNAL: u32 = 12;
/// The OID of the language `c` in pg_language.
pub const C: u32 = 13;
/// The OID of the language `sql` in pg_language.
pub const SQL: u32 = 14;

/// Returns the OID of the language `plpgsql` in pg_language, or 0 if it is not installed.
pub fn plpgsql() -> u32 {
    // SAFETY: looks up a catalog, by a name that ends with a zero.
    unsafe { pg_sys::get_language_oid(c"plpgsql".as_ptr(), true) }.to_u32()
}

/// What pg_proc says about a function.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// The OID of its language.
    pub language: u32,
    /// Its `provolatile`.
    pub volatility: u8,
    pub is_aggregate: bool,
}

/// Returns what pg_proc says about a function. None if there is no such function.
pub fn find(function: u32) -> Option<Function> {
    // SAFETY: a look-up in the server's cache of pg_proc. The entry is released after the last access.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as i32, function.into());
        if tuple.is_null() {
            return None;
        }
        let row = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
        let found = Function {
            language: row.prolang.to_u32(),
            volatility: row.provolatile as u8,
            is_aggregate: row.prokind as u8 == pg_sys::PROKIND_AGGREGATE,
        };
        pg_sys::ReleaseSysCache(tuple);
        Some(found)
    }
}

/// Returns a function with its argument types, such as `function f(integer)`, and with the schema if the search path does not find
/// it. None if there is no such function, or if the current role may not call it, unless `all` is set.
pub fn in_words(function: u32, all: bool) -> Option<String> {
    find(function)?;
    // SAFETY: looks up catalogs, for a function that exists. The server returns a new string that ends with a zero.
    unsafe {
        let (caller, execute) = (pg_sys::GetUserId(), pg_sys::ACL_EXECUTE as pg_sys::AclMode);
        #[cfg(feature = "pg15")]
        let allowed = pg_sys::pg_proc_aclcheck(function.into(), caller, execute);
        #[cfg(not(feature = "pg15"))]
        let allowed = pg_sys::object_aclcheck(pg_sys::ProcedureRelationId, function.into(), caller, execute);
        if !all && allowed != pg_sys::AclResult::ACLCHECK_OK {
            return None;
        }
        let name = CStr::from_ptr(pg_sys::format_procedure(function.into()));
        Some(format!("function {}", shown(name.to_bytes())))
    }
}

unsafe extern "C-unwind" {
    /// The server's walkers, which pgrx does not bind for every version.
    #[cfg_attr(not(feature = "pg15"), link_name = "query_tree_walker_impl")]
    pub(super) fn query_tree_walker(
        query: *mut pg_sys::Query,
        walker: Walker,
        context: *mut c_void,
        flags: c_int,
    ) -> bool;
    #[cfg_attr(not(feature = "pg15"), link_name = "expression_tree_walker_impl")]
    pub(super) fn expression_tree_walker(
        node: *mut pg_sys::Node,
        walker: Walker,
        context: *mut c_void,
    ) -> bool;
}

pub(super) type Walker = unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut c_void) -> bool;

/// Returns the first volatile function that a tree of queries calls, or 0 if it calls none.
///
/// # Safety
/// The node must be a query, a list of queries, or null.
pub unsafe fn first_volatile(queries: *mut pg_sys::Node) -> u32 {
    let mut found = 0_u32;
    // SAFETY: as the caller promises. The walk stops at the first volatile function, whose number it stores in `found`.
    unsafe { find_volatile(queries, (&raw mut found).cast()) };
    found
}

/// The server calls this for each node of a tree.
#[pg_guard]
#[allow(ffi_unwind_calls)] // The guard catches the error, and no value on this stack needs to be dropped.
unsafe extern "C-unwind" fn find_volatile(node: *mut pg_sys::Node, found: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: a node's tag names its type. The walkers take any node, and a query has a walker of its own.
    unsafe {
        pg_sys::check_functions_in_node(node, Some(is_volatile), found)
            || pg_sys::ffi::pg_guard_ffi_boundary(|| match (*node).type_ {
                pg_sys::NodeTag::T_Query => query_tree_walker(node.cast(), find_volatile, found, 0),
                _ => expression_tree_walker(node, find_volatile, found),
            })
    }
}

/// The server calls this for each function of a node.
#[pg_guard]
unsafe extern "C-unwind" fn is_volatile(function: pg_sys::Oid, found: *mut c_void) -> bool {
    // SAFETY: looks up a catalog. `found` is the variable of `first_volatile`.
    unsafe {
        let is_it = pg_sys::func_volatile(function) as u8 == pg_sys::PROVOLATILE_VOLATILE;
        if is_it {
            *found.cast::<u32>() = function.to_u32();
        }
        is_it
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
