//! Converts the arguments of a query to the types of its parameters. Arguments are elements of a JSON array, or values that have
//! their types already (`typed.rs`).

#![allow(unsafe_code)]

use super::statement::Arguments;
use crate::pg::context::Context;
use crate::pg::error::Refused;
use crate::pg::jsonb::{Element, Literal};
use crate::pg::memory;
use pgrx::prelude::*;
use std::ffi::c_char;

/// Converts the arguments to the parameters' types. Returns the values, and for each of them the mark that SPI expects: `n` for a
/// null, a blank for any other value. Typed arguments are returned as they are: the query must have been parsed with their types
/// (`parsing.rs`). Raises the errors of the types' input functions.
///
/// # Safety
/// An SPI connection must be open.
pub(super) unsafe fn bind(
    arguments: Arguments<'_>,
    types: &[pg_sys::Oid],
    context: Context,
) -> Result<(Vec<pg_sys::Datum>, Vec<c_char>), Refused> {
    let elements = match arguments {
        Arguments::Json(array) => array.elements(),
        Arguments::Typed(typed) => return Ok((memory::copy(&typed.values), memory::copy(&typed.nulls))),
    };
    if elements.len() != types.len() {
        let plural = if types.len() == 1 { "" } else { "s" };
        let (expected, found) = (types.len(), elements.len());
        let message = format!("query expects {expected} argument{plural}, got {found}");
        let refused = Refused::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message);
        return Err(match found {
            0 => refused.hint("Use args => '[1, \"two\"]' for the parameters $1 and $2."),
            _ => refused,
        });
    }
    let (mut values, mut nulls) = (Vec::new(), Vec::new());
    memory::reserve(&mut values, types.len());
    memory::reserve(&mut nulls, types.len());
    for (at, (element, kind)) in elements.iter().zip(types).enumerate() {
        // SAFETY: the type is the one that the query infers.
        let value = context.of_parameter(at + 1, || unsafe { value_of_type(*element, *kind) });
        nulls.push(if value.is_some() { b' ' } else { b'n' } as c_char);
        values.push(value.unwrap_or(pg_sys::Datum::null()));
    }
    Ok((values, nulls))
}

/// Converts an argument to a type. A JSON array becomes an SQL array if the type is one.
///
/// # Safety
/// The type must exist.
unsafe fn value_of_type(element: Element, kind: pg_sys::Oid) -> Option<pg_sys::Datum> {
    // SAFETY: calls the type's own input function, with a text that ends with a zero.
    unsafe {
        let of = pg_sys::get_base_element_type(kind);
        let form = || Literal {
            delimiter: type_input(of).delimiter,
            of_json: [pg_sys::JSONOID, pg_sys::JSONBOID].contains(&pg_sys::getBaseType(of)),
        };
        let array = if of == pg_sys::InvalidOid { None } else { element.array(form) };
        let text = array.or_else(|| element.text())?;
        let TypeInput { function, parameter, .. } = type_input(kind);
        Some(pg_sys::OidInputFunctionCall(function, text.as_ptr().cast_mut(), parameter, -1))
    }
}

/// The input function of a type, its second argument, and the character between elements in an array of the type.
struct TypeInput {
    function: pg_sys::Oid,
    parameter: pg_sys::Oid,
    delimiter: u8,
}

/// Returns how a text becomes a value of a type.
///
/// # Safety
/// The type must exist.
unsafe fn type_input(kind: pg_sys::Oid) -> TypeInput {
    let (mut length, mut by_value, mut alignment, mut delimiter) = (0, false, 0, 0);
    let (mut parameter, mut function) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: as the caller promises.
    unsafe {
        pg_sys::get_type_io_data(
            kind,
            pg_sys::IOFuncSelector::IOFunc_input,
            &raw mut length,
            &raw mut by_value,
            &raw mut alignment,
            &raw mut delimiter,
            &raw mut parameter,
            &raw mut function,
        );
    }
    TypeInput { function, parameter, delimiter: delimiter as u8 }
}
