//! Parses and analyzes the text of a query, and refuses statements that are no queries. All results of the server live as long as
//! the open connection to the server's programming interface (SPI).

#![allow(unsafe_code)]

use super::statement::{Arguments, Query};
use crate::pg::error::Refused;
use crate::pg::memory;
use crate::pg::reader::{Reader, Reading, begin_reading};
use crate::pg::typed::Typed;
use pgrx::prelude::*;
use std::ffi::{CStr, c_int};

/// A statement, as the server has parsed and analyzed it, and the types of its parameters.
pub(super) struct Parsed {
    statement: *mut pg_sys::Node,
    pub(super) query: *const pg_sys::Query,
    pub(super) types: Vec<pg_sys::Oid>,
}

impl Parsed {
    /// Returns whether the statement changes rows.
    ///
    /// # Safety
    /// The SPI connection of [`parse`] must still be open.
    pub(super) unsafe fn writes(&self) -> bool {
        // SAFETY: as the caller promises.
        unsafe { (*self.query).commandType != pg_sys::CmdType::CMD_SELECT || (*self.query).hasModifyingCTE }
    }
}

/// Parses and analyzes a text, which must be a single statement. The query infers the types of its parameters.
///
/// # Safety
/// An SPI connection must be open.
pub(super) unsafe fn parse(query: &Query<'_>) -> Result<Parsed, Refused> {
    // SAFETY: as the caller promises.
    unsafe { parse_as(None, query) }
}

/// Does the same as [`parse`]. If `reader` is not None, it names a relation that the query reads as another role: see
/// [`prepare_as`](super::preparing::prepare_as).
///
/// # Safety
/// As for [`parse`].
pub(super) unsafe fn parse_as(reader: Option<Reader>, query: &Query<'_>) -> Result<Parsed, Refused> {
    let text = query.text;
    // SAFETY: the parser's own functions, called with a text that ends with a zero. Their results live as long as the SPI
    // connection.
    unsafe {
        let statements = pg_sys::pg_parse_query(text.as_ptr());
        let count = if statements.is_null() { 0 } else { (*statements).length };
        let code = PgSqlErrorCode::ERRCODE_SYNTAX_ERROR;
        match count {
            0 => return Err(Refused::new(code, "query is empty")),
            1 => {}
            _ => {
                return Err(Refused::new(code, "query must be a single statement")
                    .detail(format!("It has {count} statements.")));
            }
        }
        let statement = (*(*statements).elements).ptr_value.cast::<pg_sys::RawStmt>();
        if let Some(reader) = reader {
            let none = std::ptr::null_mut();
            let (setup, reading) = (Some(begin_reading as _), Reading::of(reader));
            let query = pg_sys::parse_analyze_withcb(statement, text.as_ptr(), setup, reading, none);
            return Ok(Parsed { statement: (*statement).stmt, query, types: Vec::new() });
        }
        if let Arguments::Typed(Typed { types, .. }) = query.arguments {
            let count = types.len() as c_int;
            let none = std::ptr::null_mut();
            let query =
                pg_sys::parse_analyze_fixedparams(statement, text.as_ptr(), types.as_ptr(), count, none);
            return Ok(Parsed { statement: (*statement).stmt, query, types: memory::copy(types) });
        }
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
        if let Some(at) =
            types.iter().position(|kind| [pg_sys::InvalidOid, pg_sys::UNKNOWNOID].contains(kind))
        {
            let code = PgSqlErrorCode::ERRCODE_INDETERMINATE_DATATYPE;
            let number = at + 1;
            return Err(Refused::new(code, format!("could not determine data type of parameter ${number}"))
                .hint(format!("Use the parameter in the query with a cast, for example ${number}::text.")));
        }
        Ok(Parsed { statement: (*statement).stmt, query, types })
    }
}

/// Returns an error if the statement changes rows.
///
/// # Safety
/// The result of [`parse`] must still exist. The statement must be a query.
pub(super) unsafe fn refuse_writes(parsed: &Parsed) -> Result<(), Refused> {
    let refused = Refused::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, WRITES);
    // SAFETY: as the caller promises.
    unsafe {
        if (*parsed.query).commandType != pg_sys::CmdType::CMD_SELECT {
            return Err(refused.detail(format!("It is {}.", command_of(parsed.statement))));
        }
        if (*parsed.query).hasModifyingCTE {
            return Err(refused.detail("A statement in its WITH clause changes data."));
        }
    }
    Ok(())
}

/// Returns an error unless the statement is a query: a SELECT, or a statement that changes rows and may return them.
///
/// # Safety
/// The result of [`parse`] must still exist.
pub(super) unsafe fn refuse_utility(parsed: &Parsed) -> Result<(), Refused> {
    use pg_sys::{CmdType, NodeTag};
    let unsupported = |message| Refused::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message);
    // SAFETY: as the caller promises. The tag of a node names its type.
    unsafe {
        if (*parsed.query).commandType != CmdType::CMD_UTILITY {
            return Ok(());
        }
        let utility = (*parsed.query).utilityStmt;
        let is_into = (*utility).type_ == NodeTag::T_CreateTableAsStmt
            && (*utility.cast::<pg_sys::CreateTableAsStmt>()).is_select_into;
        Err(match is_into {
            true => unsupported(WRITES).detail("SELECT INTO creates a table."),
            false => unsupported("query must be a SELECT").detail(format!("It is {}.", command_of(utility))),
        })
    }
}

/// The message for a query that writes or locks rows.
pub(super) const WRITES: &str = "query must not write";

/// Returns the name of a statement's command.
///
/// # Safety
/// The node must be a statement.
unsafe fn command_of(statement: *mut pg_sys::Node) -> String {
    // SAFETY: as the caller promises. The server's names of commands are constants.
    unsafe {
        let name = pg_sys::GetCommandTagName(pg_sys::CreateCommandTag(statement));
        CStr::from_ptr(name).to_string_lossy().into_owned()
    }
}
