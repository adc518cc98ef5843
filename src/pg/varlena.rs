//! Arguments and results of SQL functions in PostgreSQL's own form, a *varlena*: a header with the length, and the bytes. The bytes
//! of text, bytea and jsonb are taken, stored and returned without parsing.

#![allow(unsafe_code)]

use super::memory::{self, OutOfMemory};
use pg_cache_core::{Buffer, Meta};
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::nullable::Nullable;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;
use std::ptr::NonNull;

/// A value's copy with its header, in the memory of the running statement. It must have been allocated before it becomes a result:
/// without memory, its Datum is a null pointer.
#[derive(Debug, Default)]
pub struct Varlena {
    /// None before the memory is allocated, and if there was none.
    start: Option<NonNull<pg_sys::varlena>>,
    length: usize,
    /// Whether there was no memory for the copy.
    short: bool,
}

impl Buffer for Varlena {
    #[inline]
    fn allocate(&mut self, meta: &Meta) -> &mut [u8] {
        self.allocate(meta.value_len)
    }

    #[inline]
    fn was_allocated(&self) -> bool {
        !self.short
    }
}

impl Varlena {
    /// Copies bytes. Raises an error if there is no memory.
    pub fn of(bytes: &[u8]) -> Self {
        let mut varlena = Self::default();
        let room = varlena.allocate(bytes.len());
        if room.len() != bytes.len() {
            OutOfMemory.raise();
        }
        room.copy_from_slice(bytes);
        varlena
    }

    #[inline]
    /// Returns room for so many bytes behind the header, or no room if there is no memory. The same length again returns the same
    /// memory.
    fn allocate(&mut self, length: usize) -> &mut [u8] {
        if self.start.is_none() || self.length != length {
            let bytes = pg_sys::VARHDRSZ + length;
            (self.start, self.length) = (NonNull::new(memory::try_cleared(bytes).cast()), length);
            self.short = self.start.is_none();
            if let Some(start) = self.start {
                // SAFETY: the memory is zeroed and has room for the header.
                unsafe { pgrx::varlena::set_varsize_4b(start.as_ptr(), bytes as i32) };
            }
        }
        match self.start {
            // SAFETY: `length` bytes behind the header, which are zeroed above. Only this value refers to them.
            Some(start) => unsafe {
                std::slice::from_raw_parts_mut(start.as_ptr().cast::<u8>().add(pg_sys::VARHDRSZ), length)
            },
            None => &mut [],
        }
    }

    /// Returns the bytes behind the header.
    pub fn bytes(&self) -> &[u8] {
        let Some(start) = self.start else { return &[] };
        // SAFETY: `length` bytes behind the header, which only this value refers to.
        unsafe { std::slice::from_raw_parts(start.as_ptr().cast::<u8>().add(pg_sys::VARHDRSZ), self.length) }
    }

    /// Cuts bytes off at the end.
    #[must_use]
    pub fn shortened(mut self, by: usize) -> Self {
        self.length = self.length.saturating_sub(by);
        if let Some(start) = self.start {
            // SAFETY: the memory has room for the header and for more bytes than that.
            unsafe {
                pgrx::varlena::set_varsize_4b(start.as_ptr(), (pg_sys::VARHDRSZ + self.length) as i32);
            }
        }
        self
    }

    pub(super) fn into_datum(self) -> pg_sys::Datum {
        self.start.map_or(pg_sys::Datum::null(), |start| start.as_ptr().into())
    }
}

/// Declares two Rust types for an SQL type: `Result, Argument = "name of the SQL type", OID of the type;`. With `(pub)` behind the
/// argument's type, any code can make an argument from bytes.
///
/// Only text and bytea may have `(pub)`. The bytes of a jsonb have a structure that the server trusts, so only the server may make
/// a jsonb argument.
macro_rules! sql_types {
    ($($(#[$doc:meta])* $returned:ident, $argument:ident $(($visible:vis))? = $sql:literal, $oid:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $returned(pub Varlena);

        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $argument<'a>($($visible)? &'a [u8]);

        impl<'a> $argument<'a> {
            /// Returns the bytes behind the header.
            #[inline]
            pub fn bytes(self) -> &'a [u8] {
                self.0
            }
        }

        sql_types!(@named $returned, $sql);
        sql_types!(@named $argument<'_>, $sql);

        // SAFETY: a varlena whose bytes were stored from a value of this type.
        unsafe impl BoxRet for $returned {
            unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
                // SAFETY: the Datum is a varlena in the current memory context.
                unsafe { fcinfo.return_raw_datum(self.0.into_datum()) }
            }
        }

        impl IntoDatum for $returned {
            fn into_datum(self) -> Option<pg_sys::Datum> {
                Some(self.0.into_datum())
            }

            fn type_oid() -> pg_sys::Oid {
                pg_sys::$oid
            }
        }

        // SAFETY: the argument of the function, which lives as long as the call.
        unsafe impl<'fcx> ArgAbi<'fcx> for $argument<'fcx> {
            unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
                // SAFETY: the caller promises a Datum of this type, which is a varlena.
                unsafe { passed(arg).map_or(Self(&[]), |datum| Self(content(datum))) }
            }

            unsafe fn unbox_nullable_arg(arg: Arg<'_, 'fcx>) -> Nullable<Self> {
                // SAFETY: as above.
                unsafe { passed(arg).map(|datum| Self(content(datum))).into() }
            }
        }
    )*};
    (@named $type:ty, $sql:literal) => {
        // SAFETY: the name of the SQL type whose Datum this type converts from or to.
        unsafe impl SqlTranslatable for $type {
            const TYPE_IDENT: &'static str = concat!("pg_cache::", stringify!($type));
            const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
            const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal($sql));
            const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal($sql)));
        }
    };
}

sql_types! {
    /// A jsonb, in its own binary form.
    Jsonb, JsonbArgument = "jsonb", JSONBOID;
    /// A text, in the database's encoding.
    Text, TextArgument(pub) = "text", TEXTOID;
    /// A bytea.
    Bytea, ByteaArgument(pub) = "bytea", BYTEAOID;
}

impl JsonbArgument<'_> {
    /// Parses a text of JSON. The result is in the memory of the running statement. Raises the server's error for a text that is no
    /// JSON.
    pub fn parse(text: TextArgument<'_>) -> Self {
        let text = memory::terminated(text.bytes()).unwrap_or_default();
        // SAFETY: the input function of jsonb, with a text that ends with a zero. Its result is a jsonb.
        unsafe {
            let input = pg_sys::F_JSONB_IN.into();
            let datum = pg_sys::OidInputFunctionCall(input, text.as_ptr().cast_mut(), pg_sys::InvalidOid, -1);
            Self(content(datum))
        }
    }
}

/// A copy of a jsonb that was read from a row.
#[derive(Clone, Debug)]
pub struct OwnedJsonb(Vec<u8>);

impl OwnedJsonb {
    /// # Safety
    /// The Datum must be a jsonb.
    pub(super) unsafe fn of(datum: pg_sys::Datum) -> Self {
        // SAFETY: as the caller promises.
        Self(memory::copy(unsafe { content(datum) }))
    }

    /// Copies bytes that must have come from [`JsonbArgument::bytes`].
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(memory::copy(bytes))
    }

    pub fn as_argument(&self) -> JsonbArgument<'_> {
        JsonbArgument(&self.0)
    }
}

/// The bytes of a text in a row, in the database's encoding.
#[derive(Debug)]
pub struct OwnedText(pub Vec<u8>);

impl FromDatum for OwnedText {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        // SAFETY: the caller promises a Datum of a text, which lives during the call.
        (!is_null).then(|| Self(memory::copy(unsafe { content(datum) })))
    }
}

// SAFETY: the result borrows nothing of the Datum.
unsafe impl pgrx::datum::UnboxDatum for OwnedText {
    type As<'src> = Self;

    unsafe fn unbox<'src>(datum: pgrx::datum::Datum<'src>) -> Self
    where
        Self: 'src,
    {
        // SAFETY: the caller promises a Datum of a text.
        Self(memory::copy(unsafe { content(datum.sans_lifetime()) }))
    }
}

impl IntoDatum for OwnedText {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(Varlena::of(&self.0).into_datum())
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TEXTOID
    }
}

/// The bytes of the texts of an array in a row, in the database's encoding. Nulls among them are left out.
#[derive(Debug, Default)]
pub struct OwnedTexts(pub Vec<Vec<u8>>);

impl FromDatum for OwnedTexts {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        // SAFETY: the caller promises a Datum of an array of texts, which lives during the call.
        let texts = || unsafe { contents(datum, pg_sys::TEXTOID) };
        (!is_null).then(|| Self(memory::collect(texts().into_iter().flatten().map(memory::copy))))
    }
}

// SAFETY: the result borrows nothing of the Datum.
unsafe impl pgrx::datum::UnboxDatum for OwnedTexts {
    type As<'src> = Self;

    unsafe fn unbox<'src>(datum: pgrx::datum::Datum<'src>) -> Self
    where
        Self: 'src,
    {
        // SAFETY: the caller promises a Datum of an array of texts.
        unsafe { Self::from_polymorphic_datum(datum.sans_lifetime(), false, pg_sys::TEXTARRAYOID) }
            .unwrap_or_default()
    }
}

impl IntoDatum for OwnedTexts {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        memory::collect(self.0.into_iter().map(OwnedText)).into_datum()
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TEXTARRAYOID
    }
}

/// Returns the argument of a function, or None if it is null.
///
/// # Safety
/// The caller must keep the promises of [`ArgAbi`].
#[inline]
unsafe fn passed(arg: Arg<'_, '_>) -> Option<pg_sys::Datum> {
    // SAFETY: converts a Datum to a Datum, which is valid for every type.
    unsafe { arg.unbox_arg_using_from_datum() }
}

/// Returns the bytes behind a varlena's header.
///
/// # Safety
/// The Datum must be a varlena. The varlena and the current memory context must both live for `'a`.
#[inline]
pub(super) unsafe fn content<'a>(datum: pg_sys::Datum) -> &'a [u8] {
    // SAFETY: as the caller promises. The bytes are in the varlena itself, if it is in one piece and not compressed, or else in a
    // copy of it in the current context. The header may have either size: bytes need no alignment.
    unsafe {
        let mut varlena = datum.cast_mut_ptr();
        if pgrx::varlena::varatt_is_4b_c(varlena) || pgrx::varlena::varatt_is_1b_e(varlena) {
            varlena = whole(varlena);
        }
        let length = pgrx::varlena::varsize_any_exhdr(varlena);
        std::slice::from_raw_parts(pgrx::varlena::vardata_any(varlena).cast(), length)
    }
}

/// Returns a plain copy of a varlena that is compressed or stored outside of its row. This is a separate function because the
/// server's function may raise an error. Calls of such functions set a jump target, which costs more than the whole look-up of a
/// short key.
///
/// # Safety
/// The pointer must point to a varlena.
#[cold]
#[inline(never)]
unsafe fn whole(varlena: *mut pg_sys::varlena) -> *mut pg_sys::varlena {
    // SAFETY: as the caller promises.
    unsafe { pg_sys::pg_detoast_datum_packed(varlena) }
}

/// Returns the bytes of the elements of an array of texts or of byteas; None for a null.
///
/// # Safety
/// The Datum must be an array of the type `of`, text or bytea. The array and the current memory context must both live for `'a`.
pub(super) unsafe fn contents<'a>(datum: pg_sys::Datum, of: pg_sys::Oid) -> Vec<Option<&'a [u8]>> {
    let (mut elements, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
    // SAFETY: as the caller promises; the arguments describe both types. The server returns two arrays of `count` elements in the
    // current context. The elements are in the array itself, or in a copy of it in that context.
    unsafe {
        pg_sys::deconstruct_array(
            pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast(),
            of,
            -1,
            false,
            b'i' as std::ffi::c_char,
            &raw mut elements,
            &raw mut nulls,
            &raw mut count,
        );
        let element = |at| (!*nulls.add(at)).then(|| content(*elements.add(at)));
        memory::collect((0..count as usize).map(element))
    }
}

/// Declares a Rust type for an argument that is an array: `Argument = "name of the SQL type" of OID of its elements;`. The elements
/// must be of type text or bytea (`contents`).
macro_rules! array_arguments {
    ($($(#[$doc:meta])* $argument:ident = $sql:literal of $oid:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $argument<'a>(pub Vec<Option<&'a [u8]>>);

        sql_types!(@named $argument<'_>, $sql);

        // SAFETY: as for the other arguments.
        unsafe impl<'fcx> ArgAbi<'fcx> for $argument<'fcx> {
            unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
                // SAFETY: the caller promises a Datum of an array of this type.
                Self(unsafe { passed(arg).map_or(Vec::new(), |datum| contents(datum, pg_sys::$oid)) })
            }

            unsafe fn unbox_nullable_arg(arg: Arg<'_, 'fcx>) -> Nullable<Self> {
                // SAFETY: as above.
                unsafe { passed(arg).map(|datum| Self(contents(datum, pg_sys::$oid))).into() }
            }
        }
    )*};
}

array_arguments! {
    /// An argument that is an array of texts.
    TextsArgument = "text[]" of TEXTOID;
    /// An argument that is an array of byteas.
    ByteasArgument = "bytea[]" of BYTEAOID;
}
