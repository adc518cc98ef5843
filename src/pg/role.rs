//! Roles by their OIDs. The current role is the one whose privileges count at this moment, after SET ROLE and inside of SECURITY
//! DEFINER functions. A function that looks up a catalog must be called within a transaction, and may raise errors of the server.

#![allow(unsafe_code)]

use super::encoding::shown;
use super::local::check_thread;
use super::memory;
use super::oid_alias::oid_alias;
use pgrx::prelude::*;
use std::ffi::{CStr, CString};

unsafe extern "C" {
    /// Called without pgrx's guard: it runs with every access and raises no error.
    fn GetUserId() -> pg_sys::Oid;
}

/// A role, by its OID; 0 stands for PUBLIC, all roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role(u32);

impl Role {
    /// Returns the role whose privileges count now.
    #[inline]
    pub fn current() -> Self {
        check_thread();
        // SAFETY: reads a variable, and raises no error.
        Self(unsafe { GetUserId() }.to_u32())
    }

    /// The role whose members may read statistics.
    pub const MONITOR: Self = Self(pg_sys::ROLE_PG_MONITOR);

    /// The role whose members may read the text of the queries of other roles.
    pub const READS_QUERIES: Self = Self(pg_sys::ROLE_PG_READ_ALL_STATS);

    /// Makes a `Role` of a role's OID.
    pub fn from_oid(oid: u32) -> Self {
        Self(oid)
    }

    /// Returns the role's OID.
    #[inline]
    pub fn oid(self) -> u32 {
        self.0
    }

    /// Returns whether this stands for all roles.
    pub fn is_everybody(self) -> bool {
        self.0 == 0
    }

    /// Returns whether this role has all privileges of another role.
    pub fn has_rights_of(self, other: Self) -> bool {
        // SAFETY: looks up catalogs; a role that was dropped has no privileges.
        other.is_everybody() || unsafe { pg_sys::has_privs_of_role(self.0.into(), other.0.into()) }
    }

    /// Returns whether the role exists. A user may write the OID of a role that does not exist.
    pub fn exists(self) -> bool {
        self.name().is_some()
    }

    /// Returns whether the role may log in. False if it does not exist.
    pub fn may_log_in(self) -> bool {
        self.attribute(|role| role.rolcanlogin)
    }

    /// Returns whether the role has the attribute CREATEDB. False if it does not exist.
    pub fn may_create_databases(self) -> bool {
        self.attribute(|role| role.rolcreatedb)
    }

    /// Reads an attribute of the role. False if the role does not exist.
    fn attribute(self, read: impl FnOnce(&pg_sys::FormData_pg_authid) -> bool) -> bool {
        use pg_sys::SysCacheIdentifier::AUTHOID;
        let oid = pg_sys::Oid::from(self.0);
        // SAFETY: looks up a catalog, and reads the tuple before it is released.
        unsafe {
            let tuple = pg_sys::SearchSysCache1(AUTHOID as i32, oid.into());
            if tuple.is_null() {
                return false;
            }
            let has = read(&*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_authid>(tuple));
            pg_sys::ReleaseSysCache(tuple);
            has
        }
    }

    /// Returns whether the role is a superuser.
    pub fn is_superuser(self) -> bool {
        // SAFETY: looks up a catalog. A role that does not exist is no superuser.
        unsafe { pg_sys::superuser_arg(self.0.into()) }
    }

    /// Returns the role's name, without quotes.
    pub fn name(self) -> Option<CString> {
        // SAFETY: looks up a catalog; the server returns a new string or null.
        let name = unsafe { pg_sys::GetUserNameFromId(self.0.into(), true) };
        // SAFETY: not null, and ends with a zero.
        (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_owned())
    }

    /// Returns the role that a text names. `public` stands for all roles, as in GRANT, also in double quotes. Any other text is
    /// read as by `regrole`: a name, which may be quoted, an OID, or `-` for all roles. Raises the server's error if there is no
    /// role of that name. A role with that OID need not exist.
    pub fn from_text(text: &[u8]) -> Self {
        if text.eq_ignore_ascii_case(b"public") || text == b"\"public\"" {
            return Self(0);
        }
        let text = memory::terminated(text).unwrap_or_default();
        // SAFETY: calls the type's own input function, with a text that ends with a zero.
        let role = unsafe {
            pgrx::direct_function_call::<pg_sys::Oid>(pg_sys::regrolein, &[text.as_c_str().into_datum()])
        };
        Self(role.map_or(0, pg_sys::Oid::to_u32))
    }

    /// Returns the role with this name, without quotes, or the one that stands for all roles if the name is `public`. None if there
    /// is no such role.
    pub fn named(name: &[u8]) -> Option<Self> {
        if name == b"public" {
            return Some(Self(0));
        }
        let name = memory::terminated(name)?;
        // SAFETY: looks up a catalog, by a name that ends with a zero. The server returns 0 if there is none.
        let role = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
        (role != pg_sys::InvalidOid).then(|| Self(role.to_u32()))
    }

    /// Returns the role's name as an SQL identifier, for messages. For a role that does not exist, returns its OID.
    pub fn quoted(self) -> String {
        if self.is_everybody() {
            return "public".to_owned();
        }
        let Some(name) = self.name() else { return self.0.to_string() };
        identifier(&name)
    }
}

/// Quotes a name as an SQL identifier, where it needs quotes.
pub fn identifier(name: &CStr) -> String {
    // SAFETY: a string that ends with a zero. The server returns the same string, or another one in the memory of the statement.
    let quoted = unsafe { CStr::from_ptr(pg_sys::quote_identifier(name.as_ptr())) };
    shown(quoted.to_bytes()).into_owned()
}

/// Quotes text as an SQL literal. A text with a backslash becomes an escape string (`E'…'`) after a space, so that the E cannot
/// become a part of the word before it.
pub fn literal(text: &str) -> String {
    let escaped = text.replace('\'', "''");
    match text.contains('\\') {
        true => format!(" E'{}'", escaped.replace('\\', "\\\\")),
        false => format!("'{escaped}'"),
    }
}

oid_alias!(Role, "regrole");
