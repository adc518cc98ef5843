//! A query of a caller, with its arguments.

use crate::pg::jsonb::Array;
use crate::pg::typed::Typed;
use std::ffi::CStr;

/// The query, for all functions of this folder.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The function of this library that runs the query, for the context of errors, such as `query of cache_fetch, key "x"`.
    pub caller: &'a str,
    /// The text of the query, in the encoding of the database.
    pub text: &'a CStr,
    /// The values of the parameters `$1`, `$2` and so on.
    pub arguments: Arguments<'a>,
}

/// The values of a query's parameters.
#[derive(Clone, Copy, Debug)]
pub enum Arguments<'a> {
    /// JSON that is converted to the types that the query infers.
    Json(Array<'a>),
    /// Values with the types of the parameters.
    Typed(&'a Typed),
}

impl<'a> Arguments<'a> {
    /// Returns bytes that differ for different arguments.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Json(array) => array.bytes(),
            Self::Typed(typed) => typed.bytes(),
        }
    }
}
