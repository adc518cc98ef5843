//! Describes or checks a query without running it: for `cache_explain`, for `cache_advise`, for warmers and cached views that are
//! about to be created, and for the verification of hits. A *fill* is a query whose result may be stored.

#![allow(unsafe_code)]

use super::binding::bind;
use super::parsing::{parse, parse_as, refuse_utility, refuse_writes};
use super::preparing::{analyze_as, prepare, prepare_as, relations, rows_of, source_of};
use super::spi::{Snapshot, within_spi};
use super::statement::{Arguments, Query};
use crate::pg::error::Refused;
use crate::pg::jsonb::Array;
use crate::pg::reader::Reader;
use crate::pg::rows::Sink;
use crate::pg::rows::columns::{definition_list, distinct_definition_list, type_name};
use crate::pg::typed::Typed;
use crate::pg::{context, memory, observer, unclear};
use std::ffi::CStr;

/// The description of a query before it runs.
#[derive(Debug)]
pub struct Described {
    /// The relations that it names, also through views.
    pub relations: Vec<u32>,
    /// The columns that it returns, as a column definition list such as `id integer, name text`.
    pub columns: String,
    /// The name of the first column whose type is an anonymous record.
    pub anonymous_record: Option<Vec<u8>>,
}

/// Parses, rewrites and plans a query, and reports to the running fill what its tree shows, but does not run it. Raises the errors
/// of the query and of its arguments.
pub fn describe(query: &Query<'_>, on: Snapshot) -> Described {
    context::within(query.caller, query.text, |context| {
        // SAFETY: the SPI connection is open while anything that the query returns is in use. A plan of one statement has one
        // source, which describes its rows.
        within_spi(on, || unsafe {
            let parsed = parse(query)?;
            refuse_utility(&parsed)?;
            bind(query.arguments, &parsed.types, context)?;
            let plan = prepare(query.text, &parsed.types)?;
            if parsed.writes() {
                observer::note_writes();
            }
            let descriptor = rows_of(plan)?;
            let mut sink = Sink::of_any_columns();
            sink.require(descriptor)?;
            Ok(Described {
                relations: relations(plan),
                columns: definition_list(descriptor),
                anonymous_record: sink.anonymous_record().map(memory::copy),
            })
        })
    })
}

/// Returns whether a query may return different rows for the same data (`unclear.rs`). Plans it, but does not run it. With a
/// `reader`, the query must be one that reads a relation as another role. Raises the errors of the query.
pub fn is_unclear(query: &Query<'_>, reader: Option<Reader>) -> bool {
    context::within(query.caller, query.text, |_| {
        // SAFETY: the SPI connection is open while anything that the query returns is in use.
        within_spi(Snapshot::Active, || unsafe {
            let parsed = parse_as(reader, query)?;
            refuse_utility(&parsed)?;
            let plan = prepare_as(reader, query.text, &parsed.types)?;
            Ok(unclear::are_unclear((*source_of(plan)).query_list))
        })
    })
}

/// A query as its analysis shows it, without values for its parameters.
#[derive(Debug)]
pub struct Sketch {
    /// The relations that it names, also through views.
    pub relations: Vec<u32>,
    /// The columns that it returns, as a column definition list. Columns with equal names get different ones.
    pub columns: String,
    /// Whether the names of its columns differ, so that a view can have them.
    pub fits_view: bool,
    /// Whether it summarizes rows: by an aggregate, a window function, GROUP BY or DISTINCT.
    pub summarizes: bool,
    /// The types of its parameters.
    pub parameters: Vec<String>,
    /// The name of the first column whose type is an anonymous record.
    pub anonymous_record: Option<Vec<u8>>,
}

/// Parses and rewrites a query, and reports to the running fill what its tree shows. Neither plans nor runs it, so that none of its
/// functions are called. Raises the errors of the query.
pub fn sketch(text: &CStr) -> Sketch {
    let query = Query { caller: "query of cache_advise", text, arguments: Arguments::Json(Array::EMPTY) };
    context::within(query.caller, text, |_| {
        // SAFETY: the SPI connection is open while anything that the query returns is in use.
        within_spi(Snapshot::Active, || unsafe {
            let parsed = parse(&query)?;
            refuse_utility(&parsed)?;
            refuse_writes(&parsed)?;
            let tree = parsed.query;
            let summarizes = (*tree).hasAggs
                || (*tree).hasWindowFuncs
                || !(*tree).groupClause.is_null()
                || !(*tree).distinctClause.is_null();
            let plan = analyze_as(None, text, &parsed.types)?;
            let descriptor = rows_of(plan)?;
            let mut sink = Sink::of_any_columns();
            sink.require(descriptor)?;
            let (columns, fits_view) = distinct_definition_list(descriptor);
            Ok(Sketch {
                relations: relations(plan),
                columns,
                fits_view,
                summarizes,
                parameters: memory::collect(parsed.types.iter().map(|kind| type_name((kind.to_u32(), -1)))),
                anonymous_record: sink.anonymous_record().map(memory::copy),
            })
        })
    })
}

/// Checks a query that is to run later: its syntax, its names, and that its arguments have the types of its parameters. Does not
/// plan it. Raises the errors of the query, with their position in it.
pub fn check(query: &Query<'_>) {
    context::within(query.caller, query.text, |context| {
        // SAFETY: the SPI connection is open while anything that the query returns is in use.
        within_spi(Snapshot::Active, || unsafe {
            let parsed = parse(query)?;
            refuse_utility(&parsed)?;
            refuse_writes(&parsed)?;
            bind(query.arguments, &parsed.types, context).map(|_| ())
        })
    });
}

/// Returns an error unless a text is a query without parameters that a view can have. Raises the errors of the server.
///
/// # Safety
/// An SPI connection must be open.
pub unsafe fn require_view(text: &CStr) -> Result<(), Refused> {
    let none = Typed::none();
    let query = Query { caller: "", text, arguments: Arguments::Typed(&none) };
    // SAFETY: as the caller promises.
    unsafe {
        let parsed = parse(&query)?;
        refuse_utility(&parsed)?;
        refuse_writes(&parsed)
    }
}
