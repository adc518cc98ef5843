//! Who acts: the role whose rights count at this moment, after SET ROLE and inside of SECURITY DEFINER functions.

#![allow(unsafe_code)]

use super::encoding::shown;
use super::local::check_thread;
use super::number::number_type;
use pgrx::prelude::*;
use std::ffi::{CStr, CString};

unsafe extern "C" {
    /// As it is: what is asked for with every access need not go through the guard for errors.
    fn GetUserId() -> pg_sys::Oid;
}

/// A role by its number; 0 is everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role(u32);

impl Role {
    /// The role whose rights count now.
    #[inline]
    pub fn current() -> Self {
        check_thread();
        // SAFETY: reads a variable, and raises no error.
        Self(unsafe { GetUserId() }.to_u32())
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

number_type!(Role, "regrole");
