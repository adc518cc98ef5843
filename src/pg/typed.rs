//! Values with their SQL types, as arguments of a query: those of `cache_call` and of wrappers, and the parameters of a statement
//! of the client. Their bytes are a part of the key of the stored result.
//!
//! A [`Typed`] points to the arguments of the call or to the parameters of the statement, so it must be used only while that call
//! or statement runs.

#![allow(unsafe_code)]

use super::call_info::Call;
use super::error::Refused;
use super::{memory, varlena};
use pgrx::prelude::*;
use std::ffi::{CStr, c_char};

/// The arguments of a call, with their types.
#[derive(Debug)]
pub struct Typed {
    pub(super) types: Vec<pg_sys::Oid>,
    pub(super) values: Vec<pg_sys::Datum>,
    /// A space for each value, and `n` for each null, as the server's interface wants it.
    pub(super) nulls: Vec<c_char>,
    /// For each value: the OID of its type, its length in bytes (the greatest number for a null), and its bytes.
    bytes: Vec<u8>,
}

impl Typed {
    /// Returns no arguments.
    pub fn none() -> Self {
        Self { types: Vec::new(), values: Vec::new(), nulls: Vec::new(), bytes: Vec::new() }
    }

    /// Returns the arguments of a call, from an index on. May raise errors.
    pub fn of_call(call: Call, from: usize) -> Result<Self, Refused> {
        let mut typed = Self::none();
        for index in from..call.arguments() {
            let kind = pg_sys::Oid::from(call.argument_type(index));
            if [pg_sys::InvalidOid, pg_sys::UNKNOWNOID].contains(&kind) {
                let code = PgSqlErrorCode::ERRCODE_INDETERMINATE_DATATYPE;
                let number = index - from + 1;
                return Err(Refused::new(
                    code,
                    format!("could not determine data type of argument {number}"),
                ));
            }
            // SAFETY: the argument has this type.
            unsafe { typed.push(kind, call.argument(index)) };
        }
        Ok(typed)
    }

    /// Returns the parameters of a statement of the client. May raise errors.
    ///
    /// # Safety
    /// `parameters` must be null, or the parameters of a running statement.
    pub(super) unsafe fn of_parameters(parameters: pg_sys::ParamListInfo) -> Self {
        let mut typed = Self::none();
        if parameters.is_null() {
            return typed;
        }
        // SAFETY: as the caller promises. The list has as many elements as it says.
        unsafe {
            let count = (*parameters).numParams.max(0) as usize;
            for parameter in (*parameters).params.as_slice(count) {
                let is_null = parameter.isnull || parameter.ptype == pg_sys::InvalidOid;
                typed.push(parameter.ptype, (!is_null).then_some(parameter.value));
            }
        }
        typed
    }

    /// # Safety
    /// The value must have the type.
    unsafe fn push(&mut self, kind: pg_sys::Oid, value: Option<pg_sys::Datum>) {
        memory::push(&mut self.types, kind);
        memory::push(&mut self.values, value.unwrap_or(pg_sys::Datum::null()));
        memory::push(&mut self.nulls, if value.is_some() { b' ' } else { b'n' } as c_char);
        // SAFETY: as the caller promises.
        let bytes = value.map(|value| unsafe { bytes_of(kind, value) });
        self.append(&kind.to_u32().to_le_bytes());
        self.append(&bytes.as_ref().map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
        self.append(&bytes.unwrap_or_default());
    }

    fn append(&mut self, bytes: &[u8]) {
        memory::reserve(&mut self.bytes, bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the number of arguments.
    pub fn len(&self) -> usize {
        self.types.len()
    }

    /// Returns bytes that differ for different types or values. Values that are equal in SQL may have different bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Returns the bytes of a value, without the header of a varlena.
///
/// # Safety
/// The value must have the type.
unsafe fn bytes_of(kind: pg_sys::Oid, value: pg_sys::Datum) -> Vec<u8> {
    let (mut length, mut by_value) = (0, false);
    // SAFETY: as the caller promises. The type says where the bytes of the value are.
    unsafe {
        pg_sys::get_typlenbyval(kind, &raw mut length, &raw mut by_value);
        match usize::try_from(length) {
            // The bits behind a short value are not a part of it.
            Ok(length) if by_value => {
                let number = value.value() as u64;
                memory::copy(&number.to_le_bytes()[..length.min(8)])
            }
            Ok(length) => memory::copy(std::slice::from_raw_parts(value.cast_mut_ptr::<u8>(), length)),
            Err(_) if length == -1 => memory::copy(varlena::content(value)),
            Err(_) => memory::copy(CStr::from_ptr(value.cast_mut_ptr()).to_bytes()),
        }
    }
}
