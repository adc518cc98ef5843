//! Arguments of SQL types that are aliases of oid (regclass, regrole): an OID that is written as a name. Each becomes a Rust type
//! with one OID.

#![allow(unsafe_code)]

/// Makes a Rust type with one OID, `struct Type(u32)`, usable as an argument of an SQL type.
macro_rules! oid_alias {
    ($type:ident, $sql:literal) => {
        impl pgrx::FromDatum for $type {
            unsafe fn from_polymorphic_datum(
                datum: pgrx::pg_sys::Datum,
                is_null: bool,
                _: pgrx::pg_sys::Oid,
            ) -> Option<Self> {
                (!is_null).then(|| Self(datum.value() as u32))
            }
        }

        oid_alias!(@argument $type, $sql, Self(0));
    };
    // For types with a `FromDatum` of their own.
    (@argument $type:ident, $sql:literal, $nothing:expr) => {
        // SAFETY: converts the function's argument by the type's own `FromDatum`.
        unsafe impl<'fcx> pgrx::callconv::ArgAbi<'fcx> for $type {
            unsafe fn unbox_arg_unchecked(arg: pgrx::callconv::Arg<'_, 'fcx>) -> Self {
                // SAFETY: as the caller promises.
                unsafe { arg.unbox_arg_using_from_datum().unwrap_or($nothing) }
            }

            unsafe fn unbox_nullable_arg(
                arg: pgrx::callconv::Arg<'_, 'fcx>,
            ) -> pgrx::nullable::Nullable<Self> {
                // SAFETY: as the caller promises.
                unsafe { arg.unbox_arg_using_from_datum().into() }
            }
        }

        // SAFETY: the name of the SQL type that the conversions above are for.
        unsafe impl pgrx::pgrx_sql_entity_graph::metadata::SqlTranslatable for $type {
            const TYPE_IDENT: &'static str = concat!("pg_cache::", stringify!($type));
            const TYPE_ORIGIN: pgrx::pgrx_sql_entity_graph::metadata::TypeOrigin =
                pgrx::pgrx_sql_entity_graph::metadata::TypeOrigin::External;
            const ARGUMENT_SQL: Result<
                pgrx::pgrx_sql_entity_graph::metadata::SqlMappingRef,
                pgrx::pgrx_sql_entity_graph::metadata::ArgumentError,
            > = Ok(pgrx::pgrx_sql_entity_graph::metadata::SqlMappingRef::literal($sql));
            const RETURN_SQL: Result<
                pgrx::pgrx_sql_entity_graph::metadata::ReturnsRef,
                pgrx::pgrx_sql_entity_graph::metadata::ReturnsError,
            > = Ok(pgrx::pgrx_sql_entity_graph::metadata::ReturnsRef::One(
                pgrx::pgrx_sql_entity_graph::metadata::SqlMappingRef::literal($sql),
            ));
        }
    };
}
pub(crate) use oid_alias;
