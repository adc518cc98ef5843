//! The columns of rows: their types, and whether the columns of a query are those that a caller expects. The caller of
//! `cache_query` writes a column definition list, such as `AS (id integer, name text)`, and gets an error if it does not fit.
//! A function that looks up a catalog must be called within a transaction, and may raise errors of the server.

#![allow(unsafe_code)]

use crate::pg::encoding::shown;
use crate::pg::error::Refused;
use crate::pg::memory;
use pgrx::prelude::*;
use std::collections::BTreeSet;
use std::ffi::CStr;

/// A column of a result: its type and its type modifier.
pub type Column = (u32, i32);

/// Returns the attributes of a descriptor.
///
/// # Safety
/// The descriptor must be valid as long as the iterator.
pub unsafe fn attributes<'d>(
    descriptor: pg_sys::TupleDesc,
) -> impl Iterator<Item = &'d pg_sys::FormData_pg_attribute> {
    // SAFETY: as the caller promises. A descriptor has `natts` attributes.
    unsafe {
        let count = (*descriptor).natts.max(0) as usize;
        let first = first_attribute(descriptor);
        (0..count).map(move |at| &*first.add(at))
    }
}

/// # Safety
/// The descriptor must be valid.
unsafe fn first_attribute(descriptor: pg_sys::TupleDesc) -> *const pg_sys::FormData_pg_attribute {
    // SAFETY: as the caller promises. Since PostgreSQL 18, the attributes are behind an array of their compact forms.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        return (*descriptor).attrs.as_ptr();
        #[cfg(feature = "pg18")]
        return (*descriptor).compact_attrs.as_ptr().add((*descriptor).natts as usize).cast();
    }
}

/// Returns the columns of a descriptor, without dropped ones.
///
/// # Safety
/// The descriptor must be valid as long as the iterator.
pub unsafe fn columns(descriptor: pg_sys::TupleDesc) -> impl Iterator<Item = Column> {
    // SAFETY: as the caller promises.
    let all = unsafe { attributes(descriptor) };
    let live = all.filter(|attribute| !attribute.attisdropped);
    live.map(|attribute| (attribute.atttypid.to_u32(), attribute.atttypmod))
}

/// Returns whether a column of a query can be returned as a column that the caller expects: the types are the same, or the query
/// returns a domain over the expected type, and the caller expects the same type modifier, or none. A driver reports a domain as
/// the type below it, and the values have the same form.
pub fn fits(expected: Column, found: Column) -> bool {
    let is_same = |found: Column| expected.0 == found.0 && [-1, found.1].contains(&expected.1);
    is_same(found) || is_same(base_of(found))
}

/// Returns the type below a domain. For another type, returns the column itself.
fn base_of((kind, mut modifier): Column) -> Column {
    // SAFETY: looks up a catalog.
    let base = unsafe { pg_sys::getBaseTypeAndTypmod(kind.into(), &raw mut modifier) };
    (base.to_u32(), modifier)
}

/// Returns whether values of a type are composite, or contain composite values.
pub fn is_composite(kind: pg_sys::Oid) -> bool {
    // SAFETY: looks up catalogs.
    unsafe {
        let kind = pg_sys::getBaseType(kind);
        let inner = [
            pg_sys::get_element_type(kind),
            pg_sys::get_range_subtype(kind),
            pg_sys::get_multirange_range(kind),
        ];
        pg_sys::get_typtype(kind) as u8 == pg_sys::TYPTYPE_COMPOSITE
            || inner.into_iter().any(|inner| inner != pg_sys::InvalidOid && is_composite(inner))
    }
}

/// Returns an error unless a query has the columns that the caller of a function expects.
///
/// # Safety
/// Both descriptors must be valid.
pub unsafe fn require(caller: pg_sys::TupleDesc, query: pg_sys::TupleDesc) -> Result<(), Refused> {
    // SAFETY: as the caller promises.
    let [expected, found] = unsafe { [columns(caller), columns(query)] }.map(memory::collect);
    let code = PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH;
    // SAFETY: as above.
    let hint = |refused: Refused| unsafe {
        refused.hint(format!("The columns of the query are: {}", definition_list(query)))
    };
    if expected.len() != found.len() {
        let (asked, returned) = (counted(expected.len()), counted(found.len()));
        let message = "the query does not return the columns that the caller expects";
        return Err(hint(
            Refused::new(code, message)
                .detail(format!("The query returns {returned}, and the caller expects {asked}.")),
        ));
    }
    for (at, (asked, returned)) in expected.iter().zip(&found).enumerate() {
        if !fits(*asked, *returned) {
            let number = at + 1;
            let (asked, returned) = (type_name(*asked), type_name(*returned));
            let message = "the query does not return the columns that the caller expects";
            return Err(hint(Refused::new(code, message).detail(format!(
                "The query returns type {returned} for column {number}, and the caller expects {asked}."
            ))));
        }
    }
    Ok(())
}

fn counted(columns: usize) -> String {
    format!("{columns} {}", if columns == 1 { "column" } else { "columns" })
}

/// Returns the name of a column's type in SQL.
pub fn type_name((kind, modifier): Column) -> String {
    // SAFETY: looks up a catalog. The server returns a new string that ends with a zero, `???` for an unknown type.
    unsafe {
        let flags = pg_sys::FORMAT_TYPE_TYPEMOD_GIVEN | pg_sys::FORMAT_TYPE_ALLOW_INVALID;
        let name = pg_sys::format_type_extended(kind.into(), modifier, flags as u16);
        shown(CStr::from_ptr(name).to_bytes()).to_string()
    }
}

/// Returns the columns of a query as a column definition list, such as `id integer, name text`.
///
/// # Safety
/// The descriptor must be valid.
pub unsafe fn definition_list(query: pg_sys::TupleDesc) -> String {
    let mut list = String::new();
    // SAFETY: as the caller promises. A name ends with a zero.
    for attribute in unsafe { attributes(query) } {
        // SAFETY: as above. The server returns the name itself, or a quoted copy.
        let name = unsafe { CStr::from_ptr(pg_sys::quote_identifier(attribute.attname.data.as_ptr())) };
        let kind = type_name((attribute.atttypid.to_u32(), attribute.atttypmod));
        let separator = if list.is_empty() { "" } else { ", " };
        list.push_str(&format!("{separator}{} {kind}", shown(name.to_bytes())));
    }
    list
}

/// Does the same as [`definition_list`], but gives a column another name if an earlier column has the same name, because a column
/// definition list must not have two equal names. Also returns whether all names were kept.
///
/// # Safety
/// The descriptor must be valid.
pub unsafe fn distinct_definition_list(query: pg_sys::TupleDesc) -> (String, bool) {
    let (mut list, mut names, mut is_distinct) = (String::new(), BTreeSet::new(), true);
    // SAFETY: as the caller promises. A name ends with a zero.
    for (at, attribute) in unsafe { attributes(query) }.enumerate() {
        // SAFETY: as above. The server returns the name itself, or a quoted copy.
        let name = unsafe { CStr::from_ptr(pg_sys::quote_identifier(attribute.attname.data.as_ptr())) };
        let mut name = shown(name.to_bytes()).into_owned();
        memory::check();
        if names.contains(&name) {
            name = format!("column_{}", at + 1);
            is_distinct = false;
        }
        let kind = type_name((attribute.atttypid.to_u32(), attribute.atttypmod));
        let separator = if list.is_empty() { "" } else { ", " };
        list.push_str(&format!("{separator}{name} {kind}"));
        names.insert(name);
    }
    (list, is_distinct)
}
