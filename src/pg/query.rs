//! Running a caller's query, with the caller's privileges, on a snapshot of our choosing.

#![allow(unsafe_code)]

use super::error::Refused;
use super::{memory, observer, varlena};
use pgrx::prelude::*;
use std::ffi::{CStr, CString, c_char};

/// On which snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// A new one: all that is committed now.
    New,
    /// The transaction's own.
    Transaction,
    /// That of the query around, where no new one may be taken: while that query runs in parallel.
    Active,
}

/// Whether the transaction looks at the database as it was at one moment: REPEATABLE READ, or SERIALIZABLE.
#[inline]
pub fn looks_at_one_moment() -> bool {
    // SAFETY: a plain global of this session.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// Whether the transaction does, or the next one may before anything is said of it.
#[inline]
pub fn looks_at_moments() -> bool {
    // SAFETY: as above.
    looks_at_one_moment() || unsafe { pg_sys::DefaultXactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// Whether the query around runs in parallel. Our function gets there only by way of one that was wrongly declared.
pub fn is_parallel() -> bool {
    // SAFETY: a plain question.
    unsafe { pg_sys::IsInParallelMode() }
}

/// Whether the server has to know of everything that the transaction reads.
#[inline]
pub fn is_serializable() -> bool {
    // SAFETY: as above.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_SERIALIZABLE as i32 }
}

/// Learns of all catalog changes that were announced so far.
pub fn accept_messages() {
    // SAFETY: the server's own function, within a transaction.
    unsafe { pg_sys::AcceptInvalidationMessages() };
}

/// Drops the session's cached plans, its resolved search path, and what it remembers of memberships of roles, as PostgreSQL does when
/// schemas and roles change. Plans that are running are not disturbed.
///
/// Memberships, because PostgreSQL may keep an old list of them: a message that arrives while the list is collected is forgotten when the
/// list is complete.
pub fn forget_catalogs() {
    use pg_sys::SysCacheIdentifier::{AUTHMEMROLEMEM, NAMESPACEOID};
    accept_messages();
    let every_object = 0;
    for cache in [NAMESPACEOID, AUTHMEMROLEMEM] {
        // SAFETY: the server's own function, within a transaction. The callbacks are those that a message would call.
        unsafe { pg_sys::CallSyscacheCallbacks(cache as i32, every_object) };
    }
}

/// The first column of the first row, as jsonb; null if it is null, or if there is no row.
///
/// Errors of the query are raised as they are.
pub fn first_value(
    text: &CStr,
    arguments: &[Option<CString>],
    on: Snapshot,
) -> Result<Option<Vec<u8>>, Refused> {
    // SAFETY: the server's own function, outside of any lock.
    unsafe {
        // Definitions are to be as new as the rows; others are told of them when they next lock what they have not locked yet.
        pg_sys::AcceptInvalidationMessages();
    }
    on_snapshot(on, || {
        // SAFETY: as functions in other languages run a query: connected while anything that the query returns is in use.
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

/// Runs something while a snapshot is active: whatever it returns, the snapshot is taken off again. What raises an error does not come
/// back here: then the server takes off all that the (sub)transaction has put on, and ends its connections to the programming interface.
fn on_snapshot<R>(on: Snapshot, run: impl FnOnce() -> R) -> R {
    // SAFETY: plain requests, in a transaction. Where no snapshot is active, the server is asked for the transaction's, which it refuses
    // with an error if it must not take one.
    unsafe {
        pg_sys::PushActiveSnapshot(match on {
            Snapshot::New => pg_sys::GetLatestSnapshot(),
            Snapshot::Active if pg_sys::ActiveSnapshotSet() => pg_sys::GetActiveSnapshot(),
            Snapshot::Active | Snapshot::Transaction => pg_sys::GetTransactionSnapshot(),
        });
    }
    let result = run();
    // SAFETY: the one from above. What has run in between has taken off what it has put on.
    unsafe { pg_sys::PopActiveSnapshot() };
    result
}

/// The value, as the bytes of a jsonb.
///
/// # Safety
/// We are connected to the server's programming interface.
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
        // That is taken when the tables are locked, as the server does for a statement of its own. One that was taken before waiting for
        // a TRUNCATE would find the table empty, though it never was.
        on_snapshot(on, || {
            let found = run(plan, &mut values, &nulls)?;
            Ok(found.map(|(datum, kind)| memory::copy(varlena::content(to_jsonb(datum, kind)))))
        })
    }
}

/// The types that the query infers for its parameters.
///
/// # Safety
/// We are connected to the server's programming interface.
unsafe fn parameter_types(text: &CStr) -> Result<Vec<pg_sys::Oid>, Refused> {
    // SAFETY: the parser's own functions on a text that ends with a zero; what it returns lives as long as our connection.
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
        if let Some(place) =
            types.iter().position(|kind| [pg_sys::InvalidOid, pg_sys::UNKNOWNOID].contains(kind))
        {
            let code = PgSqlErrorCode::ERRCODE_INDETERMINATE_DATATYPE;
            return Err(Refused::new(
                code,
                format!("could not determine data type of parameter ${}", place + 1),
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

/// The values of the parameters, read as text of their types.
///
/// # Safety
/// We are connected to the server's programming interface.
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
            // SAFETY: the type's own input function, on a text that ends with a zero.
            unsafe {
                pg_sys::getTypeInputInfo(*kind, &raw mut input, &raw mut parameter);
                pg_sys::OidInputFunctionCall(input, text.as_ptr().cast_mut(), parameter, -1)
            }
        }));
    }
    Ok((values, nulls))
}

/// The plan of a query, whose tables are locked by now.
///
/// # Safety
/// We are connected to the server's programming interface. The text was parsed as one statement.
unsafe fn prepare(text: &CStr, types: &[pg_sys::Oid]) -> pg_sys::SPIPlanPtr {
    // SAFETY: as the caller promises. The plan is of one statement, and lives as long as our connection.
    unsafe {
        let plan = pg_sys::SPI_prepare(text.as_ptr(), types.len() as i32, types.as_ptr().cast_mut());
        if plan.is_null() {
            pgrx::error!("the query cannot be prepared");
        }
        let sources = pg_sys::SPI_plan_get_plan_sources(plan);
        let source = (*(*sources).elements).ptr_value.cast::<pg_sys::CachedPlanSource>();
        // As the rules have rewritten it: with what the views in it call.
        if pg_sys::contain_volatile_functions((*source).query_list.cast()) {
            observer::note_volatile();
        }
        if types.is_empty() {
            // Parts of tables are locked by the planner only. It is asked once: without parameters, what it says is kept.
            let planned = pg_sys::SPI_plan_get_cached_plan(plan);
            if !planned.is_null() {
                pg_sys::ReleaseCachedPlan(planned, std::ptr::null_mut());
            }
        }
        plan
    }
}

/// The first column of the first row, with its type, on the snapshot that is active.
///
/// # Safety
/// We are connected to the server's programming interface, and the plan is of this connection, with as many parameters as there are values.
unsafe fn run(
    plan: pg_sys::SPIPlanPtr,
    values: &mut [pg_sys::Datum],
    nulls: &[c_char],
) -> Result<Option<(pg_sys::Datum, pg_sys::Oid)>, Refused> {
    // SAFETY: the server's programming interface, as its documentation has it used. Read only: on the snapshot that is active,
    // and a statement that writes is an error. Where the status says that rows were selected, there is a table of them.
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
        // A function that returns `void` returns a Datum that is no value of anything.
        Ok((!is_null && kind != pg_sys::VOIDOID).then_some((datum, kind)))
    }
}

/// A value as jsonb, by SQL's own function for that.
///
/// # Safety
/// We are connected to the server's programming interface; the Datum is of that type, and not null.
unsafe fn to_jsonb(datum: pg_sys::Datum, kind: pg_sys::Oid) -> pg_sys::Datum {
    if kind == pg_sys::JSONBOID {
        return datum;
    }
    let (mut kind, mut datum) = (kind, datum);
    // SAFETY: as the caller promises; the result lives as long as our connection.
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
        // A function of that name for the value's own type may return anything.
        if is_null || pg_sys::SPI_gettypeid((*table).tupdesc, 1) != pg_sys::JSONBOID {
            pgrx::error!("the value cannot be made jsonb");
        }
        json
    }
}

/// For tests, in their builds only: whether a query is refused, by a caller that does not raise why
/// (`CREATE FUNCTION … AS '$libdir/pg_cache', 'is_refused_wrapper'`).
#[cfg(debug_assertions)]
#[pg_extern(sql = false)]
fn is_refused(text: &CStr) -> bool {
    first_value(text, &[], Snapshot::New).is_err()
}
