//! Prepares a query: has the server rewrite and plan it, and reads in the result what the query reads and returns. While the
//! query's result may be stored, this file reports its tree to `observer.rs`, before the planner changes anything in it.

#![allow(unsafe_code)]

use crate::pg::error::Refused;
use crate::pg::reader::{Reader, Reading, begin_reading};
use crate::pg::{analysis, executor, memory, observer};
use pgrx::prelude::*;
use std::ffi::{CStr, c_int};

/// Returns the plan of a query, after its tables have been locked. If the query has parameters, its partitions and children are not
/// locked until it runs.
///
/// # Safety
/// An SPI connection must be open, and the text must have been parsed as a single statement.
pub(super) unsafe fn prepare(text: &CStr, types: &[pg_sys::Oid]) -> Result<pg_sys::SPIPlanPtr, Refused> {
    // SAFETY: as the caller promises.
    unsafe { prepare_as(None, text, types) }
}

/// Does the same as [`prepare`]. If `reader` is not None, it names a relation that the query reads as another role, and the text
/// must have a list of columns with the name of a relation, such as `v.*`.
///
/// # Safety
/// As for [`prepare`].
pub(super) unsafe fn prepare_as(
    reader: Option<Reader>,
    text: &CStr,
    types: &[pg_sys::Oid],
) -> Result<pg_sys::SPIPlanPtr, Refused> {
    // SAFETY: as the caller promises.
    unsafe {
        let plan = analyze_as(reader, text, types)?;
        if types.is_empty() {
            // Only the planner locks partitions and children. It runs once: without parameters, the plan is kept.
            let planned = pg_sys::SPI_plan_get_cached_plan(plan);
            if !planned.is_null() {
                pg_sys::ReleaseCachedPlan(planned, std::ptr::null_mut());
            }
        }
        Ok(plan)
    }
}

/// Does the same as [`prepare_as`], but does not plan the query.
///
/// # Safety
/// As for [`prepare_as`].
pub(super) unsafe fn analyze_as(
    reader: Option<Reader>,
    text: &CStr,
    types: &[pg_sys::Oid],
) -> Result<pg_sys::SPIPlanPtr, Refused> {
    // SAFETY: as the caller promises. The plan has one statement, and lives as long as the SPI connection.
    unsafe {
        // `executor.rs` makes a plan run without parallel workers if a function in a worker could read what no observer sees.
        let options = pg_sys::CURSOR_OPT_PARALLEL_OK as c_int;
        let plan = match reader {
            None => {
                let (count, types) = (types.len() as c_int, types.as_ptr().cast_mut());
                pg_sys::SPI_prepare_cursor(text.as_ptr(), count, types, options)
            }
            Some(reader) => {
                let reading = Reading::of(reader);
                pg_sys::SPI_prepare_params(text.as_ptr(), Some(begin_reading), reading, options)
            }
        };
        if plan.is_null() {
            pgrx::error!("the query cannot be prepared");
        }
        let source = source_of(plan);
        // The checks see the query after rewriting, so that views count.
        analysis::note_queries((*source).query_list);
        if executor::nodes::<pg_sys::Query>((*source).query_list).any(|query| locks_rows(*query)) {
            observer::note_locks();
        }
        Ok(plan)
    }
}

/// Returns whether a query, or a query in its FROM or WITH clause, locks rows. The server itself refuses all other queries that
/// lock rows, because the execution is read-only (`running.rs`).
///
/// # Safety
/// The query must be an analyzed one.
unsafe fn locks_rows(query: *const pg_sys::Query) -> bool {
    // SAFETY: as the caller promises. The lists of a query hold nodes of these types.
    unsafe {
        pg_sys::check_stack_depth();
        !(*query).rowMarks.is_null()
            || executor::nodes::<pg_sys::RangeTblEntry>((*query).rtable)
                .any(|entry| !(**entry).subquery.is_null() && locks_rows((**entry).subquery))
            || executor::nodes::<pg_sys::CommonTableExpr>((*query).cteList)
                .any(|entry| locks_rows((**entry).ctequery.cast()))
    }
}

/// Returns the source of a plan with one statement.
///
/// # Safety
/// The plan must have one statement, and must exist as long as the source is in use.
pub(super) unsafe fn source_of(plan: pg_sys::SPIPlanPtr) -> *const pg_sys::CachedPlanSource {
    // SAFETY: as the caller promises.
    unsafe {
        let sources = pg_sys::SPI_plan_get_plan_sources(plan);
        (*(*sources).elements).ptr_value.cast::<pg_sys::CachedPlanSource>()
    }
}

/// Returns the descriptor of the rows that a plan returns. Returns an error if it returns none.
///
/// # Safety
/// The plan must have one statement.
pub(super) unsafe fn rows_of(plan: pg_sys::SPIPlanPtr) -> Result<pg_sys::TupleDesc, Refused> {
    // SAFETY: as the caller promises.
    let descriptor = unsafe { (*source_of(plan)).resultDesc };
    if descriptor.is_null() {
        let code = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
        return Err(Refused::new(code, "query must return rows"));
    }
    Ok(descriptor)
}

/// Returns the relations that a query names, also through views.
///
/// # Safety
/// The plan must have one statement.
pub(super) unsafe fn relations(plan: pg_sys::SPIPlanPtr) -> Vec<u32> {
    // SAFETY: as the caller promises. The list holds OIDs.
    unsafe {
        let list = (*source_of(plan)).relationOids;
        let count = if list.is_null() { 0 } else { (*list).length as usize };
        memory::collect((0..count).map(|at| (*(*list).elements.add(at)).oid_value.to_u32()))
    }
}
