//! The foreign table `cache_view_owner`, which tells a function whose view the server is reading.
//!
//! PostgreSQL reads the tables of a view with the privileges of the view's owner, or with those of the current role if the view has
//! the option `security_invoker`. It always calls the functions of a view as the current role. So a function in a view cannot know
//! the owner of the view, or whether a view calls it at all. The function of a cached view, `cache_view_rows` (`api/view.rs`),
//! needs to know both. It must read the hidden view with the privileges with which the public view reads its tables, and must not
//! do so for a role that calls the function itself and names the hidden view.
//!
//! The foreign table has one row with a *token*: the role with whose privileges the table is read, and a proof. That role is the
//! view's owner if a view without `security_invoker` reads the table, and the current role otherwise. A cached view reads the token
//! and passes it to its function. The proof is a keyed hash of the role and of the transaction. The key is a random number that
//! never leaves the memory of this session. So no session can make a token of another role. A token is not valid in another
//! session, nor in a later transaction of the same session: by then, the session may have lost the right to read the view.

#![allow(unsafe_code)]

use super::error::Refused;
use super::local::local;
use super::memory;
use super::role::Role;
use super::varlena::Varlena;
use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;
use sha2::{Digest, Sha256};
use std::cell::Cell;

type Key = [u8; 32];

local! {
    /// The key for proofs. None until the session makes or checks its first token.
    static KEY: Cell<Option<Key>> = Cell::new(None);
}

/// Returns the session's key for proofs. Raises an error if the machine has no random numbers.
fn key() -> Key {
    KEY.get().unwrap_or_else(|| {
        let mut key = Key::default();
        // SAFETY: fills the array.
        if !unsafe { pg_sys::pg_strong_random(key.as_mut_ptr().cast(), key.len()) } {
            pgrx::error!("could not generate a random number");
        }
        KEY.set(Some(key));
        key
    })
}

fn proof(role: [u8; 4]) -> [u8; 32] {
    let transaction = transaction().to_le_bytes();
    Sha256::new().chain_update(key()).chain_update(role).chain_update(transaction).finalize().into()
}

/// Returns the number of the transaction, which no other transaction of this session has.
fn transaction() -> u32 {
    // SAFETY: a session has an entry in the process array, and only the session itself changes this field.
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    return unsafe { (*pg_sys::MyProc).lxid };
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    // SAFETY: as above.
    return unsafe { (*pg_sys::MyProc).vxid.lxid };
}

/// Returns the role of a token: 4 bytes with the OID of the role, and 32 bytes with the proof. Returns an error if it is not a
/// token of this transaction.
pub fn role(token: &[u8]) -> Result<Role, Refused> {
    let role = token.split_first_chunk::<4>().filter(|(role, given)| proof(**role) == *given);
    let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
    role.map(|(role, _)| Role::from_oid(u32::from_ne_bytes(*role)))
        .ok_or_else(|| Refused::new(code, "token does not belong to this transaction"))
}

/// The state of a scan: the token, and whether it was returned.
struct Scan {
    token: pg_sys::Datum,
    is_over: bool,
}

/// The result of the handler of a foreign data wrapper: a pointer to the functions of the wrapper.
#[derive(Debug)]
pub struct Handler(*mut pg_sys::FdwRoutine);

// SAFETY: returns a pointer, as the type `fdw_handler` requires.
unsafe impl BoxRet for Handler {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: as above.
        unsafe { fcinfo.return_raw_datum(self.0.into()) }
    }
}

// SAFETY: the definition of `pgcache.view_owner_handler` (`api/view.rs`) is written by hand, and its result has the SQL type that
// `RETURN_SQL` names. The type is never an argument.
unsafe impl SqlTranslatable for Handler {
    const TYPE_IDENT: &'static str = "pg_cache::Handler";
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::Skip);
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("pg_catalog.fdw_handler")));
}

impl Handler {
    /// Makes the functions that the server calls to read the foreign table.
    pub fn new() -> Self {
        // SAFETY: the memory is zeroed, which is valid for a routine, and the tag says what it is.
        unsafe {
            let routine = memory::cleared(size_of::<pg_sys::FdwRoutine>()).cast::<pg_sys::FdwRoutine>();
            (*routine).type_ = pg_sys::NodeTag::T_FdwRoutine;
            (*routine).GetForeignRelSize = Some(estimate);
            (*routine).GetForeignPaths = Some(add_path);
            (*routine).GetForeignPlan = Some(plan);
            (*routine).BeginForeignScan = Some(begin);
            (*routine).IterateForeignScan = Some(next);
            (*routine).ReScanForeignScan = Some(begin_again);
            (*routine).EndForeignScan = Some(end);
            Self(routine)
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn estimate(
    _planner: *mut pg_sys::PlannerInfo,
    table: *mut pg_sys::RelOptInfo,
    _oid: pg_sys::Oid,
) {
    // SAFETY: the planner's own description of the table.
    unsafe { (*table).rows = 1.0 };
}

#[pg_guard]
unsafe extern "C-unwind" fn add_path(
    planner: *mut pg_sys::PlannerInfo,
    table: *mut pg_sys::RelOptInfo,
    _oid: pg_sys::Oid,
) {
    let none = std::ptr::null_mut();
    // SAFETY: calls the planner as the documentation of foreign data wrappers describes. If the table refers to other relations by
    // LATERAL, the path must name them as its required outer relations.
    unsafe {
        let path = pg_sys::create_foreignscan_path(
            planner,
            table,
            std::ptr::null_mut(),
            1.0,
            #[cfg(feature = "pg18")]
            0,
            0.0,
            0.01,
            std::ptr::null_mut(),
            (*table).lateral_relids,
            std::ptr::null_mut(),
            #[cfg(any(feature = "pg17", feature = "pg18"))]
            std::ptr::null_mut(),
            none,
        );
        pg_sys::add_path(table, path.cast());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn plan(
    _planner: *mut pg_sys::PlannerInfo,
    table: *mut pg_sys::RelOptInfo,
    _oid: pg_sys::Oid,
    _path: *mut pg_sys::ForeignPath,
    targets: *mut pg_sys::List,
    clauses: *mut pg_sys::List,
    outer: *mut pg_sys::Plan,
) -> *mut pg_sys::ForeignScan {
    let none = || std::ptr::null_mut::<pg_sys::List>();
    // SAFETY: as above. The executor checks all clauses.
    unsafe {
        let clauses = pg_sys::extract_actual_clauses(clauses, false);
        pg_sys::make_foreignscan(targets, clauses, (*table).relid, none(), none(), none(), none(), outer)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn begin(node: *mut pg_sys::ForeignScanState, _flags: i32) {
    // SAFETY: the executor calls this once for each scan. The state lives in the memory of the query.
    unsafe {
        let mut role = pg_sys::GetUserId();
        let checked = checked_as(node);
        if checked != pg_sys::InvalidOid {
            role = checked;
        }
        let role = role.to_u32().to_ne_bytes();
        let mut token = [0; 4 + 32];
        token[..4].copy_from_slice(&role);
        token[4..].copy_from_slice(&proof(role));
        let scan = memory::cleared(size_of::<Scan>()).cast::<Scan>();
        scan.write(Scan { token: Varlena::of(&token).into_datum(), is_over: false });
        (*node).fdw_state = scan.cast();
    }
}

/// Returns the role with whose privileges a view reads the table; 0 for the current role.
///
/// # Safety
/// The node must be that of a scan which the executor begins.
unsafe fn checked_as(node: *const pg_sys::ForeignScanState) -> pg_sys::Oid {
    // SAFETY: as the caller promises. The plan names the table by its index in the range table, counted from 1.
    unsafe {
        let plan = (*node).ss.ps.plan.cast::<pg_sys::ForeignScan>();
        #[cfg(feature = "pg15")]
        {
            let entries = (*(*node).ss.ps.state).es_range_table;
            let index = (*plan).scan.scanrelid as usize - 1;
            (*(*(*entries).elements.add(index)).ptr_value.cast::<pg_sys::RangeTblEntry>()).checkAsUser
        }
        #[cfg(not(feature = "pg15"))]
        {
            (*plan).checkAsUser
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn next(node: *mut pg_sys::ForeignScanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: `begin` has made the state. The slot has the one column of the table, and is empty: the executor has cleared it since
    // the last row.
    unsafe {
        let scan = &mut *(*node).fdw_state.cast::<Scan>();
        if scan.is_over {
            return std::ptr::null_mut();
        }
        scan.is_over = true;
        let slot = (*node).ss.ss_ScanTupleSlot;
        *(*slot).tts_values = scan.token;
        *(*slot).tts_isnull = false;
        pg_sys::ExecStoreVirtualTuple(slot)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn begin_again(node: *mut pg_sys::ForeignScanState) {
    // SAFETY: as above.
    unsafe { (*(*node).fdw_state.cast::<Scan>()).is_over = false };
}

#[pg_guard]
unsafe extern "C-unwind" fn end(_node: *mut pg_sys::ForeignScanState) {}
