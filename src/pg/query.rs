//! Runs a caller's query with the caller's privileges, on a given snapshot. Also reports the transaction's isolation level, and drops the
//! session's cached plans and catalog data before a fill.

#![allow(unsafe_code)]

use super::error::Refused;
use super::{memory, observer, varlena};
use pgrx::prelude::*;
use std::ffi::{CStr, CString, c_char};

/// The snapshot that a query runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// A new snapshot: it sees all that is committed now.
    New,
    /// The transaction's own snapshot.
    Transaction,
    /// The snapshot of the enclosing query, where no new one may be taken: while that query runs in parallel.
    Active,
}

/// Returns whether the transaction keeps one snapshot: REPEATABLE READ or SERIALIZABLE.
#[inline]
pub fn keeps_one_snapshot() -> bool {
    // SAFETY: a plain global of this session.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// Returns whether this transaction keeps one snapshot, or the next one will by default.
#[inline]
pub fn may_keep_one_snapshot() -> bool {
    // SAFETY: as above.
    keeps_one_snapshot() || unsafe { pg_sys::DefaultXactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// Returns whether the enclosing query runs in parallel. Our function gets there only through a function that was wrongly declared
/// PARALLEL SAFE.
pub fn is_parallel() -> bool {
    // SAFETY: only reads a variable.
    unsafe { pg_sys::IsInParallelMode() }
}

/// Returns whether the transaction is SERIALIZABLE: the server must then know of everything that it reads.
#[inline]
pub fn is_serializable() -> bool {
    // SAFETY: as above.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_SERIALIZABLE as i32 }
}

/// Accepts all catalog invalidations that were announced so far.
pub fn accept_messages() {
    // SAFETY: the server's own function, called within a transaction.
    unsafe { pg_sys::AcceptInvalidationMessages() };
}

/// Drops the session's cached plans, its resolved search path, and its cached role memberships, as PostgreSQL does when schemas and roles
/// change. Running plans are not disturbed.
///
/// Memberships are dropped because PostgreSQL may keep an outdated list of them: it loses a message that arrives while it collects the
/// list.
pub fn forget_catalogs() {
    use pg_sys::SysCacheIdentifier::{AUTHMEMROLEMEM, NAMESPACEOID};
    accept_messages();
    let every_object = 0;
    for cache in [NAMESPACEOID, AUTHMEMROLEMEM] {
        // SAFETY: the server's own function, called within a transaction. It calls the callbacks that an invalidation message would call.
        unsafe { pg_sys::CallSyscacheCallbacks(cache as i32, every_object) };
    }
}

/// Runs a query and returns the first column of its first row as jsonb. Returns None if that is null, or if there is no row.
///
/// Errors of the query are raised unchanged.
pub fn first_value(
    text: &CStr,
    arguments: &[Option<CString>],
    on: Snapshot,
) -> Result<Option<Vec<u8>>, Refused> {
    // SAFETY: the server's own function, called while no lock is held.
    unsafe {
        // Definitions must be at least as new as the rows. Without this call, the session would learn of changes only when it next locks
        // a relation that it has not locked yet.
        pg_sys::AcceptInvalidationMessages();
    }
    on_snapshot(on, || {
        // SAFETY: follows the rules of the server programming interface (SPI): the connection is open while anything that the query
        // returns is in use.
        unsafe {
            if pg_sys::SPI_connect() != pg_sys::SPI_OK_CONNECT as i32 {
                pgrx::error!("cannot connect to the server's programming interface");
            }
            let value = value_of(text, arguments, on);
            pg_sys::SPI_finish();
            value
        }
    })
}

/// Calls `run` while a snapshot is active, and removes the snapshot when `run` returns. An error that is raised does not return here: the
/// server then removes all snapshots of the (sub)transaction and closes its SPI connections.
fn on_snapshot<R>(on: Snapshot, run: impl FnOnce() -> R) -> R {
    // SAFETY: called within a transaction. If no snapshot is active, this asks for the transaction's snapshot. The server raises an error
    // if the transaction must not take one.
    unsafe {
        pg_sys::PushActiveSnapshot(match on {
            Snapshot::New => pg_sys::GetLatestSnapshot(),
            Snapshot::Active if pg_sys::ActiveSnapshotSet() => pg_sys::GetActiveSnapshot(),
            Snapshot::Active | Snapshot::Transaction => pg_sys::GetTransactionSnapshot(),
        });
    }
    let result = run();
    // SAFETY: removes the snapshot that was pushed above. `run` has removed every snapshot that it has pushed itself.
    unsafe { pg_sys::PopActiveSnapshot() };
    result
}

/// Returns the value as the bytes of a jsonb.
///
/// # Safety
/// An SPI connection must be open.
unsafe fn value_of(
    text: &CStr,
    arguments: &[Option<CString>],
    on: Snapshot,
) -> Result<Option<Vec<u8>>, Refused> {
    // SAFETY: as the caller promises.
    unsafe {
        let types = parameter_types(text)?;
        let (mut values, nulls) = bind(arguments, &types)?;
        let plan = prepare(text, &types);
        // This snapshot is taken after the tables are locked, as the server does for a statement of its own. A snapshot from before a
        // wait for a TRUNCATE would find the table empty, though no committed state was empty.
        on_snapshot(on, || {
            let found = run(plan, &mut values, &nulls)?;
            Ok(found.map(|(datum, kind)| memory::copy(varlena::content(to_jsonb(datum, kind)))))
        })
    }
}

/// Returns the types that the query infers for its parameters.
///
/// # Safety
/// An SPI connection must be open.
unsafe fn parameter_types(text: &CStr) -> Result<Vec<pg_sys::Oid>, Refused> {
    // SAFETY: the parser's own functions, called with a text that ends with a zero. Their results live as long as the SPI connection.
    unsafe {
        let statements = pg_sys::pg_parse_query(text.as_ptr());
        let count = if statements.is_null() { 0 } else { (*statements).length };
        if count != 1 {
            let message = if count == 0 { "query is empty" } else { "query must be a single statement" };
            return Err(Refused::new(PgSqlErrorCode::ERRCODE_SYNTAX_ERROR, message)
                .detail(format!("It has {count} statements.")));
        }
        let statement = (*(*statements).elements).ptr_value.cast::<pg_sys::RawStmt>();
        let (mut types, mut count) = (std::ptr::null_mut(), 0);
        let query = pg_sys::parse_analyze_varparams(
            statement,
            text.as_ptr(),
            &raw mut types,
            &raw mut count,
            std::ptr::null_mut(),
        );
        let types = if count == 0 { &[][..] } else { std::slice::from_raw_parts(types, count as usize) };
        let types = memory::copy(types);
        if let Some(index) =
            types.iter().position(|kind| [pg_sys::InvalidOid, pg_sys::UNKNOWNOID].contains(kind))
        {
            let code = PgSqlErrorCode::ERRCODE_INDETERMINATE_DATATYPE;
            return Err(Refused::new(
                code,
                format!("could not determine data type of parameter ${}", index + 1),
            ));
        }
        if (*query).commandType != pg_sys::CmdType::CMD_SELECT {
            return Err(Refused::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "query must be a SELECT",
            ));
        }
        Ok(types)
    }
}

/// Converts the arguments from text to the parameters' types.
///
/// # Safety
/// An SPI connection must be open.
unsafe fn bind(
    arguments: &[Option<CString>],
    types: &[pg_sys::Oid],
) -> Result<(Vec<pg_sys::Datum>, Vec<c_char>), Refused> {
    if arguments.len() != types.len() {
        let code = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;
        return Err(Refused::new(code, "args does not match the parameters of the query").detail(format!(
            "It has {} elements, and the query has {} parameters.",
            arguments.len(),
            types.len()
        )));
    }
    let (mut values, mut nulls) = (Vec::new(), Vec::new());
    memory::reserve(&mut values, types.len());
    memory::reserve(&mut nulls, types.len());
    for (text, kind) in arguments.iter().zip(types) {
        nulls.push(if text.is_some() { b' ' } else { b'n' } as c_char);
        values.push(text.as_ref().map_or(pg_sys::Datum::null(), |text| {
            let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
            // SAFETY: calls the type's own input function, with a text that ends with a zero.
            unsafe {
                pg_sys::getTypeInputInfo(*kind, &raw mut input, &raw mut parameter);
                pg_sys::OidInputFunctionCall(input, text.as_ptr().cast_mut(), parameter, -1)
            }
        }));
    }
    Ok((values, nulls))
}

/// Returns the plan of a query, after its tables have been locked.
///
/// # Safety
/// An SPI connection must be open, and the text must have been parsed as a single statement.
unsafe fn prepare(text: &CStr, types: &[pg_sys::Oid]) -> pg_sys::SPIPlanPtr {
    // SAFETY: as the caller promises. The plan has one statement, and lives as long as the SPI connection.
    unsafe {
        let plan = pg_sys::SPI_prepare(text.as_ptr(), types.len() as i32, types.as_ptr().cast_mut());
        if plan.is_null() {
            pgrx::error!("the query cannot be prepared");
        }
        let sources = pg_sys::SPI_plan_get_plan_sources(plan);
        let source = (*(*sources).elements).ptr_value.cast::<pg_sys::CachedPlanSource>();
        // This checks the query after rewriting, so that functions in views count.
        if pg_sys::contain_volatile_functions((*source).query_list.cast()) {
            observer::note_volatile();
        }
        if types.is_empty() {
            // Only the planner locks partitions and children. It runs once: without parameters, the plan is kept.
            let planned = pg_sys::SPI_plan_get_cached_plan(plan);
            if !planned.is_null() {
                pg_sys::ReleaseCachedPlan(planned, std::ptr::null_mut());
            }
        }
        plan
    }
}

/// Returns the first column of the first row, with its type. The query runs on the active snapshot.
///
/// # Safety
/// An SPI connection must be open. The plan must belong to this connection and have as many parameters as there are values.
unsafe fn run(
    plan: pg_sys::SPIPlanPtr,
    values: &mut [pg_sys::Datum],
    nulls: &[c_char],
) -> Result<Option<(pg_sys::Datum, pg_sys::Oid)>, Refused> {
    // SAFETY: uses SPI as its documentation describes. The execution is read-only: it runs on the active snapshot, and a statement that
    // writes is an error. If the status says that rows were selected, there is a table of rows.
    unsafe {
        let status = pg_sys::SPI_execute_snapshot(
            plan,
            values.as_mut_ptr(),
            nulls.as_ptr(),
            pg_sys::GetActiveSnapshot(),
            std::ptr::null_mut(),
            true,
            true,
            1,
        );
        if status != pg_sys::SPI_OK_SELECT as i32 {
            let code = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
            return Err(Refused::new(code, "query must return rows"));
        }
        let table = pg_sys::SPI_tuptable;
        if pg_sys::SPI_processed == 0 || (*(*table).tupdesc).natts == 0 {
            return Ok(None);
        }
        let mut is_null = false;
        let datum = pg_sys::SPI_getbinval(*(*table).vals, (*table).tupdesc, 1, &raw mut is_null);
        let kind = pg_sys::SPI_gettypeid((*table).tupdesc, 1);
        // A function that returns `void` returns a Datum that represents no value.
        Ok((!is_null && kind != pg_sys::VOIDOID).then_some((datum, kind)))
    }
}

/// Converts a value to jsonb by SQL's `to_jsonb`.
///
/// # Safety
/// An SPI connection must be open. The Datum must be of the given type and not null.
unsafe fn to_jsonb(datum: pg_sys::Datum, kind: pg_sys::Oid) -> pg_sys::Datum {
    if kind == pg_sys::JSONBOID {
        return datum;
    }
    let (mut kind, mut datum) = (kind, datum);
    // SAFETY: as the caller promises. The result lives as long as the SPI connection.
    unsafe {
        let status = pg_sys::SPI_execute_with_args(
            c"SELECT pg_catalog.to_jsonb($1)".as_ptr(),
            1,
            &raw mut kind,
            &raw mut datum,
            c" ".as_ptr(),
            true,
            1,
        );
        if status != pg_sys::SPI_OK_SELECT as i32 || pg_sys::SPI_processed != 1 {
            pgrx::error!("the value cannot be made jsonb");
        }
        let mut is_null = false;
        let table = pg_sys::SPI_tuptable;
        let json = pg_sys::SPI_getbinval(*(*table).vals, (*table).tupdesc, 1, &raw mut is_null);
        // An overloaded `to_jsonb` for the value's type may return another type.
        if is_null || pg_sys::SPI_gettypeid((*table).tupdesc, 1) != pg_sys::JSONBOID {
            pgrx::error!("the value cannot be made jsonb");
        }
        json
    }
}

/// Returns whether a query is refused, without raising the reason. For tests, in debug builds only (`CREATE FUNCTION … AS
/// '$libdir/pg_cache', 'is_refused_wrapper'`).
#[cfg(debug_assertions)]
#[pg_extern(sql = false)]
fn is_refused(text: &CStr) -> bool {
    first_value(text, &[], Snapshot::New).is_err()
}
