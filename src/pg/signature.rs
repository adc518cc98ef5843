//! The signature of a function of the user, and queries that call the function with typed parameters. `cache_call` runs such a
//! query and stores its value; `cache_wrap` makes a wrapper with the same arguments, which runs it and stores its rows
//! (`create.rs`).
//!
//! Order of the checks: [`Signature::of`] comes first. Before `cache_call` makes its query with [`Signature::value_query`], it must
//! call `require_types` and `require_arguments`. `cache_wrap` must call `require_owner` and `require_types`. Each call of the
//! wrapper must call `require_arguments` before [`Signature::rows_query`] (`cache_wrapped` in `api/call.rs`).

#![allow(unsafe_code)]

use super::encoding::shown;
use super::error::Refused;
use super::memory;
use super::oid_alias::oid_alias;
use super::role::Role;
use pgrx::prelude::*;
use std::ffi::{CStr, CString};

/// A function, by its OID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionOid(u32);

oid_alias!(FunctionOid, "regprocedure");

impl FunctionOid {
    /// Returns the function that a Datum of the type regprocedure names.
    pub(super) fn of(datum: pg_sys::Datum) -> Self {
        Self(datum.value() as u32)
    }

    pub fn get(self) -> u32 {
        self.0
    }
}

/// The parts of a function that its calls need.
#[derive(Debug)]
pub struct Signature {
    pub function: FunctionOid,
    schema: pg_sys::Oid,
    name: CString,
    pub owner: Role,
    /// The declared types of the arguments.
    arguments: Vec<pg_sys::Oid>,
    /// How many of the last arguments have a default.
    defaults: usize,
    is_variadic: bool,
    is_strict: bool,
    pub returns_set: bool,
    returns: pg_sys::Oid,
}

impl Signature {
    /// Returns the signature of a function that can be called in a query. Any other function is an error, also if the current role
    /// may not execute it.
    pub fn of(function: FunctionOid) -> Result<Self, Refused> {
        let oid = pg_sys::Oid::from(function.0);
        // SAFETY: a look-up in the server's cache of pg_proc. The entry is released after the last access.
        let (kind, signature) = unsafe {
            let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as i32, oid.into());
            if tuple.is_null() {
                let code = PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION;
                return Err(Refused::new(code, format!("function with OID {} does not exist", function.0)));
            }
            let row = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
            let count = row.pronargs.max(0) as usize;
            let signature = Self {
                function,
                schema: row.pronamespace,
                name: CStr::from_ptr(row.proname.data.as_ptr()).to_owned(),
                owner: Role::from_oid(row.proowner.to_u32()),
                arguments: memory::copy(std::slice::from_raw_parts(row.proargtypes.values.as_ptr(), count)),
                defaults: row.pronargdefaults.max(0) as usize,
                is_variadic: row.provariadic != pg_sys::InvalidOid,
                is_strict: row.proisstrict,
                returns_set: row.proretset,
                returns: row.prorettype,
            };
            let kind = row.prokind as u8;
            pg_sys::ReleaseSysCache(tuple);
            (kind, signature)
        };
        let what = match kind {
            pg_sys::PROKIND_FUNCTION => None,
            pg_sys::PROKIND_PROCEDURE => Some("a procedure"),
            pg_sys::PROKIND_AGGREGATE => Some("an aggregate"),
            _ => Some("a window function"),
        };
        if let Some(what) = what {
            let code = PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE;
            return Err(Refused::new(code, format!("cannot cache {}, which is {what}", signature.shown())));
        }
        signature.require_execute()?;
        Ok(signature)
    }

    /// Returns the function's name and types, for messages.
    pub fn shown(&self) -> String {
        // SAFETY: looks up catalogs. The server returns a new string that ends with a zero.
        let name = unsafe { CStr::from_ptr(pg_sys::format_procedure(self.function.0.into())) };
        shown(name.to_bytes()).into_owned()
    }

    /// Returns an error unless the current role may execute the function.
    fn require_execute(&self) -> Result<(), Refused> {
        let mode = pg_sys::ACL_EXECUTE as pg_sys::AclMode;
        // SAFETY: looks up catalogs, for a function that exists.
        let allowed = unsafe {
            #[cfg(feature = "pg15")]
            let allowed = pg_sys::pg_proc_aclcheck(self.function.0.into(), pg_sys::GetUserId(), mode);
            #[cfg(not(feature = "pg15"))]
            let allowed = pg_sys::object_aclcheck(
                pg_sys::ProcedureRelationId,
                self.function.0.into(),
                pg_sys::GetUserId(),
                mode,
            );
            allowed
        };
        if allowed == pg_sys::AclResult::ACLCHECK_OK {
            return Ok(());
        }
        let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
        Err(Refused::new(code, format!("permission denied for function {}", shown(self.name.to_bytes()))))
    }

    /// Returns an error unless the current role owns the function.
    pub fn require_owner(&self) -> Result<(), Refused> {
        if Role::current().has_rights_of(self.owner) {
            return Ok(());
        }
        let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
        Err(Refused::new(code, format!("must be owner of function {}", self.shown())))
    }

    /// Returns an error if the types of arguments depend on the call.
    pub fn require_types(&self) -> Result<(), Refused> {
        let pseudo = self.arguments.iter().find(|kind| is_pseudo(**kind));
        let Some(kind) = pseudo else { return Ok(()) };
        let code = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
        let (function, kind) = (self.shown(), shown(type_name(*kind).to_bytes()).into_owned());
        Err(Refused::new(code, format!("cannot cache {function}, which has an argument of type {kind}")))
    }

    /// Returns an error unless the function can be called with so many arguments.
    pub fn require_arguments(&self, count: usize) -> Result<(), Refused> {
        let most = self.arguments.len();
        let least = most.saturating_sub(self.defaults);
        if (least..=most).contains(&count) {
            return Ok(());
        }
        let expected = if least == most { most.to_string() } else { format!("{least} to {most}") };
        let code = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;
        let message = format!("wrong number of arguments for function {}", self.shown());
        Err(Refused::new(code, message).detail(format!("The number is {count}, and must be {expected}.")))
    }

    /// Returns the function that has another name and the same types of arguments, or 0.
    pub(super) fn find(&self, schema: pg_sys::Oid, name: &CStr) -> u32 {
        let cache = pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as i32;
        // SAFETY: looks up a catalog, by a name that ends with a zero, a vector of types, and a schema.
        unsafe {
            let types = pg_sys::buildoidvector(self.arguments.as_ptr(), self.arguments.len() as i32);
            let (oid, name) = (pg_sys::Anum_pg_proc_oid as i16, pg_sys::Datum::from(name.as_ptr()));
            pg_sys::GetSysCacheOid(cache, oid, name, types.into(), schema.into(), 0.into()).to_u32()
        }
    }

    /// Returns a call of the function with the parameters `$1` to `$count` as arguments.
    fn call(&self, count: usize) -> Vec<u8> {
        let mut text = Vec::new();
        // SAFETY: the server returns new strings that end with a zero.
        let name = unsafe {
            let schema = pg_sys::get_namespace_name(self.schema);
            CStr::from_ptr(pg_sys::quote_qualified_identifier(schema, self.name.as_ptr()))
        };
        text.extend_from_slice(name.to_bytes());
        for (at, kind) in self.arguments.iter().take(count).enumerate() {
            text.extend_from_slice(if at == 0 { b"(" } else { b", " });
            if self.is_variadic && at + 1 == self.arguments.len() {
                text.extend_from_slice(b"VARIADIC ");
            }
            text.extend_from_slice(format!("${}::", at + 1).as_bytes());
            text.extend_from_slice(type_name(*kind).to_bytes());
        }
        text.extend_from_slice(if count == 0 { b"()" } else { b")" });
        text
    }

    /// Returns a query for the result as one value: an array of JSON if the function returns a set.
    pub fn value_query(&self, count: usize) -> CString {
        let call = self.call(count);
        terminated(match self.returns_set {
            false => [b"SELECT ", &call[..]].concat(),
            true => [
                b"SELECT COALESCE(pg_catalog.jsonb_agg(r.value), '[]'::pg_catalog.jsonb) FROM (SELECT ",
                &call[..],
                b" AS value) AS r",
            ]
            .concat(),
        })
    }

    /// Returns a query for the rows that the function returns: one column, or the columns of its OUT parameters.
    pub fn rows_query(&self, count: usize) -> CString {
        let call = self.call(count);
        let begin = if self.returns == pg_sys::RECORDOID { "SELECT * FROM " } else { "SELECT " };
        terminated([begin.as_bytes(), &call[..]].concat())
    }

    /// Returns the types of the columns of [`rows_query`](Self::rows_query). An error if they depend on the call.
    fn columns(&self) -> Result<Vec<pg_sys::Oid>, Refused> {
        let mut columns = Vec::new();
        if self.returns == pg_sys::RECORDOID {
            let (mut kind, mut descriptor) = (pg_sys::InvalidOid, std::ptr::null_mut());
            // SAFETY: looks up the function, which exists. The descriptor lives as long as the statement.
            unsafe {
                pg_sys::get_func_result_type(self.function.0.into(), &raw mut kind, &raw mut descriptor);
                if !descriptor.is_null() {
                    let count = (*descriptor).natts;
                    columns = memory::collect((1..=count).map(|at| pg_sys::SPI_gettypeid(descriptor, at)));
                }
            }
        } else {
            columns.push(self.returns);
        }
        if columns.is_empty() || columns.iter().any(|kind| is_pseudo(*kind)) {
            let code = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
            let kind = shown(type_name(self.returns).to_bytes()).into_owned();
            let message = format!("cannot wrap {}, which returns {kind}", self.shown());
            return Err(Refused::new(code, message));
        }
        Ok(columns)
    }

    /// Returns the parts of the wrapper's definition.
    pub fn wrapper(&self) -> Result<Wrapper, Refused> {
        let columns = self.columns()?;
        let list = |with: &dyn Fn(usize, &pg_sys::Oid) -> Vec<u8>| {
            terminated(
                columns
                    .iter()
                    .enumerate()
                    .map(|(at, kind)| with(at + 1, kind))
                    .collect::<Vec<_>>()
                    .join(&b", "[..]),
            )
        };
        // SAFETY: the server returns a new string that ends with a zero.
        let name = unsafe {
            CStr::from_ptr(pg_sys::makeObjectName(self.name.as_ptr(), std::ptr::null(), c"cached".as_ptr()))
        };
        let parameters: Vec<_> = (1..=self.arguments.len()).map(|at| format!(", ${at}")).collect();
        Ok(Wrapper {
            schema: self.schema.to_u32(),
            name: name.to_owned(),
            selected: list(&|at, _| format!("r.c{at}").into_bytes()),
            columns: list(&|at, kind| [format!("c{at} ").as_bytes(), type_name(*kind).to_bytes()].concat()),
            parameters: terminated(parameters.concat().into_bytes()),
            strict: if self.is_strict { c"STRICT" } else { c"" }.to_owned(),
        })
    }
}

/// The parts of a wrapper's definition, as pieces of the command in `create.rs`.
#[derive(Debug)]
pub struct Wrapper {
    /// The OID of the schema: that of the function.
    pub schema: u32,
    /// The name of the wrapper: that of the function, with `_cached`, cut to 63 bytes.
    pub name: CString,
    /// The list behind SELECT, such as `r.c1, r.c2`.
    pub selected: CString,
    /// The columns of `r` with their types, such as `c1 integer, c2 pg_catalog.text`.
    pub columns: CString,
    /// The arguments of the wrapper, each with a comma before it, such as `, $1, $2`.
    pub parameters: CString,
    /// `STRICT`, or nothing.
    pub strict: CString,
}

/// Returns whether a type is none that a column can have.
fn is_pseudo(kind: pg_sys::Oid) -> bool {
    // SAFETY: looks up a catalog.
    unsafe { pg_sys::get_typtype(kind) as u8 == pg_sys::TYPTYPE_PSEUDO }
}

/// Returns the name of a type with its schema.
fn type_name(kind: pg_sys::Oid) -> CString {
    let flags = pg_sys::FORMAT_TYPE_FORCE_QUALIFY | pg_sys::FORMAT_TYPE_ALLOW_INVALID;
    // SAFETY: the server returns a new string that ends with a zero.
    unsafe { CStr::from_ptr(pg_sys::format_type_extended(kind, -1, flags as u16)) }.to_owned()
}

/// Adds the terminating zero to a text that contains no zero.
fn terminated(text: Vec<u8>) -> CString {
    memory::terminated(&text).unwrap_or_default()
}
