//! The running call of a function of this library, as the server passes it, and the result of a function that returns a set of
//! rows.

#![allow(unsafe_code)]

use super::rows::columns::is_composite;
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::nullable::Nullable;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;
use std::ffi::c_int;

/// The call of a set-returning function: an argument that SQL does not see.
#[derive(Clone, Copy, Debug)]
pub struct Call(pg_sys::FunctionCallInfo);

impl Call {
    /// Makes the store for the rows that the function returns. Returns the store, and the descriptor of the rows. Both live as long
    /// as the statement. The rows must have the columns of the descriptor, because the server does not check them. Returns None if
    /// the function is called where it cannot return rows.
    pub(super) fn store_for_rows(self) -> Option<(*mut pg_sys::Tuplestorestate, pg_sys::TupleDesc)> {
        // SAFETY: pgrx passes the call of the function that is running. The store must be in the memory of the caller's statement.
        // The result gets no descriptor of its own, so the server does not compare that with the expected one.
        self.takes_rows().then(|| unsafe {
            let result = (*self.0).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            (*result).returnMode = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
            let memory = (*(*result).econtext).ecxt_per_query_memory;
            (self.new_store(memory), (*result).expectedDesc)
        })
    }

    /// Replaces the store, which must be empty, by one for many rows, and returns it. Returns None if that has no advantage.
    ///
    /// The server allocates each row for itself. Before PostgreSQL 17, which has better stores, that takes up to twice the bytes of
    /// the row in the ordinary memory of the statement. Memory for objects of similar age takes no more than the row needs.
    pub(super) fn store_for_many_rows(self) -> Option<*mut pg_sys::Tuplestorestate> {
        if cfg!(not(any(feature = "pg15", feature = "pg16"))) {
            return None;
        }
        // SAFETY: as above. The memory lives as long as the call's information, which keeps its address for the next call. Before
        // that call, the server ends the store of this one.
        unsafe {
            let (result, info) = ((*self.0).resultinfo.cast::<pg_sys::ReturnSetInfo>(), (*self.0).flinfo);
            if (*info).fn_extra.is_null() {
                let context = pg_sys::GenerationContextCreate(
                    (*info).fn_mcxt,
                    c"pg_cache rows".as_ptr(),
                    pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
                );
                (*info).fn_extra = context.cast();
            }
            pg_sys::tuplestore_end((*result).setResult);
            Some(self.new_store((*info).fn_extra.cast()))
        }
    }

    /// # Safety
    /// The caller of the function must take rows. The memory must live as long as the statement.
    unsafe fn new_store(self, memory: pg_sys::MemoryContext) -> *mut pg_sys::Tuplestorestate {
        // SAFETY: as the caller promises.
        unsafe {
            let result = (*self.0).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            let is_random =
                (*result).allowedModes as u32 & pg_sys::SetFunctionReturnMode::SFRM_Materialize_Random != 0;
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = memory;
            (*result).setResult = pg_sys::tuplestore_begin_heap(is_random, false, pg_sys::work_mem);
            pg_sys::CurrentMemoryContext = before;
            (*result).setResult
        }
    }

    /// Returns whether the caller takes a set of rows and knows their columns.
    fn takes_rows(self) -> bool {
        // SAFETY: pgrx passes the call of the function that is running. The tag of a node names its type.
        unsafe {
            let result = (*self.0).resultinfo;
            !result.is_null() && (*result).type_ == pg_sys::NodeTag::T_ReturnSetInfo && {
                let result = result.cast::<pg_sys::ReturnSetInfo>();
                let modes = (*result).allowedModes as u32;
                modes & pg_sys::SetFunctionReturnMode::SFRM_Materialize != 0
                    && !(*result).expectedDesc.is_null()
            }
        }
    }

    /// Returns whether an argument is a domain over a composite type: the server does not check the rows of such a type.
    pub fn is_domain_over_composite(self, index: usize) -> bool {
        let kind = pg_sys::Oid::from(self.argument_type(index));
        // SAFETY: looks up a catalog.
        let is_domain = unsafe { pg_sys::get_typtype(kind) } as u8 == pg_sys::TYPTYPE_DOMAIN;
        is_domain && is_composite(kind)
    }

    /// Returns the type of an argument, counted from 0, as the caller has written it; 0 if it is unknown.
    pub fn argument_type(self, index: usize) -> u32 {
        // SAFETY: pgrx passes the call of the function that is running. The server returns 0 for an argument that does not exist.
        unsafe { pg_sys::get_fn_expr_argtype((*self.0).flinfo, index as c_int).to_u32() }
    }

    /// Returns the number of arguments.
    pub fn arguments(self) -> usize {
        // SAFETY: as above.
        usize::try_from(unsafe { (*self.0).nargs }).unwrap_or(0)
    }

    /// Returns an argument, counted from 0. None if it is null, or does not exist.
    pub(super) fn argument(self, index: usize) -> Option<pg_sys::Datum> {
        if index >= self.arguments() {
            return None;
        }
        // SAFETY: a call has as many arguments as it says.
        let argument = unsafe { *(*self.0).args.as_ptr().add(index) };
        (!argument.isnull).then_some(argument.value)
    }

    /// Returns the node that the server passes to the function besides its arguments, or null.
    pub(super) fn context(self) -> *mut pg_sys::Node {
        // SAFETY: as above.
        unsafe { (*self.0).context }
    }

    /// Returns the OID of the schema of the function.
    pub(super) fn schema(self) -> pg_sys::Oid {
        // SAFETY: as above. Looks up a catalog.
        unsafe { pg_sys::get_func_namespace((*(*self.0).flinfo).fn_oid) }
    }
}

// SAFETY: takes no argument of the SQL function. pgrx passes the call itself.
unsafe impl<'fcx> ArgAbi<'fcx> for Call {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: as the caller promises.
        Self(unsafe { <pg_sys::FunctionCallInfo as ArgAbi>::unbox_arg_unchecked(arg) })
    }

    unsafe fn unbox_nullable_arg(arg: Arg<'_, 'fcx>) -> Nullable<Self> {
        // SAFETY: as the caller promises.
        Nullable::Valid(unsafe { Self::unbox_arg_unchecked(arg) })
    }

    fn is_virtual_arg() -> bool {
        true
    }
}

// SAFETY: the argument has no SQL type.
unsafe impl SqlTranslatable for Call {
    const TYPE_IDENT: &'static str = "pg_cache::Call";
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::Skip);
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::Skip));
}

/// The result of a set-returning function whose rows are in its store ([`Call::store_for_rows`]). The server does not use the value
/// itself.
#[derive(Debug)]
pub struct Sent;

// SAFETY: returns a null, which is valid for every type.
unsafe impl BoxRet for Sent {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        fcinfo.return_null()
    }
}

// SAFETY: the SQL type is in the text of the function's definition.
unsafe impl SqlTranslatable for Sent {
    const TYPE_IDENT: &'static str = "pg_cache::Sent";
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::Skip);
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::Skip));
}
