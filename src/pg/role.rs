//! Who acts: the role whose rights count at this moment, after SET ROLE and inside of SECURITY DEFINER functions.

#![allow(unsafe_code)]

use super::encoding::shown;
use pgrx::callconv::{Arg, ArgAbi};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;
use std::ffi::{CStr, CString};

/// A role by its number; 0 is everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role(u32);

impl Role {
    /// The role whose rights count now.
    #[inline]
    pub fn current() -> Self {
        // SAFETY: a plain question.
        Self(unsafe { pg_sys::GetUserId() }.to_u32())
    }

    /// Who may look at statistics.
    pub const MONITOR: Self = Self(pg_sys::ROLE_PG_MONITOR);

    /// The role of a number.
    pub fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    #[inline]
    pub fn number(self) -> u32 {
        self.0
    }

    /// Whether it stands for everybody.
    pub fn is_everybody(self) -> bool {
        self.0 == 0
    }

    /// Whether it may do whatever another role may.
    pub fn has_rights_of(self, other: Self) -> bool {
        // SAFETY: a question to the server's catalogs; a role that is gone has nobody's rights.
        other.is_everybody() || unsafe { pg_sys::has_privs_of_role(self.0.into(), other.0.into()) }
    }

    /// Whether there is such a role. A number can be written down of one that there is not.
    pub fn exists(self) -> bool {
        self.name().is_some()
    }

    fn name(self) -> Option<CString> {
        // SAFETY: a question to the server's catalogs, which returns a string of its own or nothing.
        let name = unsafe { pg_sys::GetUserNameFromId(self.0.into(), true) };
        // SAFETY: not null, and ends with a zero.
        (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_owned())
    }

    /// Its name as an identifier, for people to read and to paste.
    pub fn quoted(self) -> String {
        let Some(name) = self.name() else { return self.0.to_string() };
        // SAFETY: a string that ends with a zero; what is returned is the same one or another of the statement's memory.
        let quoted = unsafe { CStr::from_ptr(pg_sys::quote_identifier(name.as_ptr())) };
        shown(quoted.to_bytes()).into_owned()
    }
}

/// Some text as a literal of SQL.
pub fn literal(text: &str) -> String {
    let escaped = text.replace('\'', "''");
    match text.contains('\\') {
        true => format!(" E'{}'", escaped.replace('\\', "\\\\")),
        false => format!("'{escaped}'"),
    }
}

impl FromDatum for Role {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        (!is_null).then(|| Self(datum.value() as u32))
    }
}

// SAFETY: a regrole is a number that is passed by value.
unsafe impl<'fcx> ArgAbi<'fcx> for Role {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: as the caller promises.
        unsafe { arg.unbox_arg_using_from_datum().unwrap_or(Self(0)) }
    }

    unsafe fn unbox_nullable_arg(arg: Arg<'_, 'fcx>) -> pgrx::nullable::Nullable<Self> {
        // SAFETY: as the caller promises.
        unsafe { arg.unbox_arg_using_from_datum().into() }
    }
}

// SAFETY: the name of the type that the conversions above are for.
unsafe impl SqlTranslatable for Role {
    const TYPE_IDENT: &'static str = "pg_cache_role";
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("regrole"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("regrole")));
}
