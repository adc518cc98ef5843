//! Rust types for arguments of SQL functions: for the aliases of oid (regclass, regrole), which are OIDs written as names, and for
//! other SQL types that have a Rust type with a `FromDatum` of its own.

#![allow(unsafe_code)]

/// `oid_alias!(Type, "alias")` makes a type that is declared as `struct Type(u32)`, an OID, the Rust type for arguments of this
/// alias of oid.
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
    // Does the same for a type whose own `FromDatum` reads datums of the SQL type `$sql`. `$nothing` replaces NULL in an argument
    // that is not an `Option`. It is never used: a function must take such an argument as an `Option`, or be STRICT.
    (@argument $type:ident, $sql:literal, $nothing:expr) => {
        // SAFETY: both functions convert the argument by the type's `FromDatum`, which also handles NULL.
        unsafe impl<'fcx> pgrx::callconv::ArgAbi<'fcx> for $type {
            unsafe fn unbox_arg_unchecked(arg: pgrx::callconv::Arg<'_, 'fcx>) -> Self {
                // SAFETY: the caller promises an argument of the SQL type.
                unsafe { arg.unbox_arg_using_from_datum().unwrap_or($nothing) }
            }

            unsafe fn unbox_nullable_arg(
                arg: pgrx::callconv::Arg<'_, 'fcx>,
            ) -> pgrx::nullable::Nullable<Self> {
                // SAFETY: as above.
                unsafe { arg.unbox_arg_using_from_datum().into() }
            }
        }

        // SAFETY: names the SQL type whose datums the type's `FromDatum` reads.
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
