//! A query that reads one relation with the privileges of another role, as the server does for the relations of a view. A cached
//! view needs this: its hidden view is read with the privileges of the role that owns the public one (`view_owner.rs`).

#![allow(unsafe_code)]

use super::role::Role;
use super::{executor, memory};
use pgrx::prelude::*;
use std::ffi::{c_int, c_void};

/// The role with whose privileges a query reads one relation. With all others, it reads them as the current role does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    pub relation: u32,
    pub role: Role,
}

/// The argument of the parser hooks for a query that reads a relation as another role.
pub(super) struct Reading {
    reader: Reader,
    /// The current role and its security context, while the names in the FROM clause are looked up as the other role.
    current: (pg_sys::Oid, c_int),
}

impl Reading {
    /// Makes the argument of [`begin_reading`], in the current memory context.
    pub(super) fn of(reader: Reader) -> *mut c_void {
        let reading = memory::cleared(size_of::<Self>()).cast::<Self>();
        // SAFETY: the memory has this size, and is aligned for every type.
        unsafe { reading.write(Self { reader, current: (pg_sys::InvalidOid, 0) }) };
        reading.cast()
    }
}

/// Prepares the parser for a query that reads a relation as another role. The server calls this whenever it analyzes the query.
///
/// The names in the FROM clause are looked up as the other role, because the current role may lack a privilege on the schema: a
/// view needs none for what it names. Nothing else happens before the parser comes to the list of columns. If it raises an error
/// before, the server restores the current role when it ends the transaction or savepoint. The list of
/// columns must have the name of a relation, as in `v.*`: for a plain `*`, the parser never calls [`read_as`], and the other role
/// stays the current one.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn begin_reading(parser: *mut pg_sys::ParseState, reading: *mut c_void) {
    // SAFETY: the server's own state of the parser, and an argument that `Reading::of` has made.
    unsafe {
        (*parser).p_ref_hook_state = reading;
        (*parser).p_pre_columnref_hook = Some(read_as);
        let Reading { reader, current: (user, context) } = &mut *reading.cast::<Reading>();
        pg_sys::GetUserIdAndSecContext(user, context);
        let context = *context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as c_int;
        pg_sys::SetUserIdAndSecContext(reader.role.oid().into(), context);
    }
}

/// Makes a query read a relation as another role, as the server does for the relations of a view. The parser calls this once, when
/// it has analyzed the FROM clause and comes to the list of columns.
#[pg_guard]
unsafe extern "C-unwind" fn read_as(
    parser: *mut pg_sys::ParseState,
    _columns: *mut pg_sys::ColumnRef,
) -> *mut pg_sys::Node {
    // SAFETY: `begin_reading` has set the state. The list holds nodes of the type.
    unsafe {
        let Reading { reader, current } = &*(*parser).p_ref_hook_state.cast::<Reading>();
        pg_sys::SetUserIdAndSecContext(current.0, current.1);
        #[cfg(feature = "pg15")]
        let entries = executor::nodes::<pg_sys::RangeTblEntry>((*parser).p_rtable);
        #[cfg(not(feature = "pg15"))]
        let entries = executor::nodes::<pg_sys::RTEPermissionInfo>((*parser).p_rteperminfos);
        for entry in entries {
            let entry = &mut *(*entry).cast_mut();
            if entry.relid.to_u32() == reader.relation {
                entry.checkAsUser = reader.role.oid().into();
            }
        }
    }
    std::ptr::null_mut()
}
