//! Runs a query of a caller with the caller's privileges, on a given snapshot: as a scalar subquery for `cache_fetch` ([`scalar`]),
//! with rows that go to a sink ([`rows`], `pg/rows/sink.rs`), or as one jsonb ([`json`]). A read-only execution is enforced, unless
//! the query itself writes or locks rows: [`rows`] and [`json`] then run it on a snapshot that the server takes for it.

#![allow(unsafe_code)]

use super::binding::bind;
use super::parsing::{Parsed, WRITES, parse, parse_as, refuse_utility, refuse_writes};
use super::preparing::{prepare, prepare_as, relations, rows_of};
use super::spi::{Snapshot, on_snapshot, within_spi};
#[cfg(debug_assertions)]
use super::statement::Arguments;
use super::statement::Query;
use crate::pg::context::{self, Context};
use crate::pg::encoding::shown;
use crate::pg::error::Refused;
#[cfg(debug_assertions)]
use crate::pg::jsonb::Array;
use crate::pg::rows::columns::is_composite;
use crate::pg::rows::{Sink, receiver};
use crate::pg::{memory, observer, varlena};
use pgrx::prelude::*;
use std::ffi::{CStr, c_char};

/// The value of a query as jsonb.
#[derive(Debug)]
pub struct Value {
    /// The bytes of the jsonb without their header.
    pub bytes: Vec<u8>,
    /// Whether the query has returned composite values: the jsonb has the names of their attributes.
    pub has_composites: bool,
}

/// Runs a query as a scalar subquery, and returns its value. Returns None if the value is null, or if there is no row. Before the
/// query runs, `before` is called with the relations that it names, also through views. Relations that its functions read are not
/// among them.
///
/// Raises the errors of the query, with their position in it. A query that writes, or that returns more than one column or row, is
/// an error.
pub fn scalar(query: &Query<'_>, on: Snapshot, before: &mut dyn FnMut(&[u32])) -> Option<Value> {
    context::within(query.caller, query.text, |context| try_scalar(query, on, before, context))
}

/// Does the same as [`scalar`]. But an error with which this library refuses the query is returned, and not raised.
fn try_scalar(
    query: &Query<'_>,
    on: Snapshot,
    before: &mut dyn FnMut(&[u32]),
    context: Context,
) -> Result<Option<Value>, Refused> {
    // SAFETY: the SPI connection is open while anything that the query returns is in use.
    within_spi(on, || unsafe { value_of(query, on, before, context) })
}

/// Runs a query and sends its rows to `sink`. `before` is called as by [`scalar`]. Raises the errors of the query, and an error if
/// the rows do not have the columns that the sink expects.
pub fn rows(query: &Query<'_>, on: Snapshot, before: &mut dyn FnMut(&[u32]), sink: &mut Sink) {
    context::within(query.caller, query.text, |context| {
        // SAFETY: as above.
        within_spi(on, || unsafe { send_rows(query, on, before, sink, context) })
    });
}

/// Runs a query, and returns its rows as a jsonb: an array with an object for each row. `before` is called as by [`scalar`]. Raises
/// the errors of the query.
pub fn json(query: &Query<'_>, on: Snapshot, before: &mut dyn FnMut(&[u32])) -> Value {
    context::within(query.caller, query.text, |context| {
        // SAFETY: as above. The connection is still open while the bytes are copied.
        within_spi(on, || unsafe {
            let mut sink = Sink::of_any_columns();
            send_rows(query, on, before, &mut sink, context)?;
            let bytes = memory::copy(varlena::content(sink.to_jsonb()));
            Ok(Value { bytes, has_composites: sink.has_composites() })
        })
    })
}

/// Does the work of [`try_scalar`] while the SPI connection is open.
///
/// # Safety
/// An SPI connection must be open.
unsafe fn value_of(
    query: &Query<'_>,
    on: Snapshot,
    before: &mut dyn FnMut(&[u32]),
    context: Context,
) -> Result<Option<Value>, Refused> {
    // SAFETY: as the caller promises.
    unsafe {
        let parsed = parse(query)?;
        refuse_unless_scalar(query.text, &parsed)?;
        let (mut values, nulls) = bind(query.arguments, &parsed.types, context)?;
        let plan = prepare(query.text, &parsed.types)?;
        if observer::locks_rows() {
            let code = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
            return Err(Refused::new(code, WRITES).detail("FOR UPDATE and FOR SHARE lock rows."));
        }
        before(&relations(plan));
        // This snapshot is taken after the tables are locked, as the server does for a statement of its own. A snapshot from before
        // a wait for a TRUNCATE would find the table empty, though no committed state was empty.
        on_snapshot(on, || {
            let found = run(query.text, plan, &mut values, &nulls)?;
            Ok(found.map(|(datum, kind)| Value {
                bytes: memory::copy(varlena::content(to_jsonb(datum, kind))),
                has_composites: is_composite(kind),
            }))
        })
    }
}

/// Does the work of [`rows`] while the SPI connection is open.
///
/// # Safety
/// An SPI connection must be open.
unsafe fn send_rows(
    query: &Query<'_>,
    on: Snapshot,
    before: &mut dyn FnMut(&[u32]),
    sink: &mut Sink,
    context: Context,
) -> Result<(), Refused> {
    // SAFETY: as the caller promises. A plan of one statement has one source, which describes its rows.
    unsafe {
        let reader = sink.reader();
        let parsed = parse_as(reader, query)?;
        refuse_utility(&parsed)?;
        let (values, nulls) = bind(query.arguments, &parsed.types, context)?;
        let plan = prepare_as(reader, query.text, &parsed.types)?;
        sink.require(rows_of(plan)?)?;
        before(&relations(plan));
        let writes = parsed.writes() || observer::locks_rows();
        if parsed.writes() {
            observer::note_writes();
        }
        on_snapshot(on, || receiver::fill(sink, plan, &parsed.types, &values, &nulls, writes))
    }
}

/// Returns an error unless the statement only reads, and returns one column.
///
/// # Safety
/// The result of [`parse`] must still exist.
unsafe fn refuse_unless_scalar(text: &CStr, parsed: &Parsed) -> Result<(), Refused> {
    // SAFETY: as the caller promises.
    unsafe {
        refuse_utility(parsed)?;
        refuse_writes(parsed)?;
        let query = parsed.query;
        match pg_sys::ExecCleanTargetListLength((*query).targetList) {
            1 => Ok(()),
            columns => {
                let refused = Refused::new(
                    PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
                    "query of cache_fetch must return one column",
                )
                .detail(format!("It returns {columns} columns."));
                Err(if columns == 0 { refused } else { refused.hint(all_rows(text, columns)) })
            }
        }
    }
}

/// Returns the hint for a query that returns more than one row, or more than one column. It shows how the query returns them as one
/// value.
fn all_rows(text: &CStr, columns: i32) -> String {
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || *byte == b';';
    let text = text.to_bytes();
    let text = &text[..text.iter().rposition(|byte| !is_end(byte)).map_or(0, |last| last + 1)];
    // A comment could hide what follows it.
    let is_plain = text.len() <= SHOWN_QUERY_BYTES_MAX
        && !text.contains(&b'\n')
        && !text.windows(2).any(|two| two == b"--");
    let query = if is_plain { shown(text) } else { "...".into() };
    match columns {
        1 => format!(
            "To get all rows as one value, use: SELECT jsonb_agg(value) FROM ({query}) AS all_rows(value)"
        ),
        _ => format!(
            "To get all rows as one value, use: SELECT jsonb_agg(all_rows) FROM ({query}) AS all_rows"
        ),
    }
}

/// A hint repeats a query up to this length in bytes.
const SHOWN_QUERY_BYTES_MAX: usize = 300;

/// Returns the value of the only row, with its type. None if there is no row or its value is null; an error if there are more. The
/// query runs on the active snapshot.
///
/// # Safety
/// An SPI connection must be open. The plan must belong to this connection and have as many parameters as there are values.
unsafe fn run(
    text: &CStr,
    plan: pg_sys::SPIPlanPtr,
    values: &mut [pg_sys::Datum],
    nulls: &[c_char],
) -> Result<Option<(pg_sys::Datum, pg_sys::Oid)>, Refused> {
    // SAFETY: uses SPI as its documentation describes. The execution is read-only: it runs on the active snapshot, and a statement
    // that writes is an error. It stops after two rows, because the second one is an error. If the status says that rows were
    // selected, there is a table of rows.
    unsafe {
        let status = pg_sys::SPI_execute_snapshot(
            plan,
            values.as_mut_ptr(),
            nulls.as_ptr(),
            pg_sys::GetActiveSnapshot(),
            std::ptr::null_mut(),
            true,
            true,
            2,
        );
        if status != pg_sys::SPI_OK_SELECT as i32 {
            let code = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
            return Err(Refused::new(code, "query must return rows"));
        }
        let table = pg_sys::SPI_tuptable;
        match pg_sys::SPI_processed {
            0 => return Ok(None),
            1 => {}
            _ => {
                let code = PgSqlErrorCode::ERRCODE_CARDINALITY_VIOLATION;
                return Err(Refused::new(code, "more than one row returned by the query of cache_fetch")
                    .hint(all_rows(text, 1)));
            }
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

/// Returns whether this library refuses a query, without raising the reason; errors of the server are raised. For tests, in debug
/// builds only (`CREATE FUNCTION … AS '$libdir/pg_cache', 'is_refused_wrapper'`).
#[cfg(debug_assertions)]
#[pg_extern(sql = false)]
fn is_refused(text: &CStr) -> bool {
    let query = Query { caller: "query of a test", text, arguments: Arguments::Json(Array::EMPTY) };
    let is_refused = |context| Ok(try_scalar(&query, Snapshot::New, &mut |_| {}, context).is_err());
    observer::observe(|| context::within(query.caller, text, is_refused)).0
}
