//! Forms the server's minimal tuples of the values of rows, and reads the values of a tuple. A stored tuple must have all values in
//! line, because a value that is stored out of line may be gone when the tuple is read.

#![allow(unsafe_code)]

use super::columns::attributes;
use crate::pg::multiset::{Fingerprint, Printer};
use pgrx::prelude::*;
use std::ffi::{CStr, c_int};

unsafe extern "C-unwind" {
    // Called without pgrx, for each row: one guard around all of them is enough.
    #[cfg(not(feature = "pg18"))]
    fn heap_form_minimal_tuple(
        descriptor: pg_sys::TupleDesc,
        values: *const pg_sys::Datum,
        nulls: *const bool,
    ) -> *mut pg_sys::MinimalTupleData;
    /// Since PostgreSQL 18, the caller may ask for extra bytes before the tuple.
    #[cfg(feature = "pg18")]
    fn heap_form_minimal_tuple(
        descriptor: pg_sys::TupleDesc,
        values: *const pg_sys::Datum,
        nulls: *const bool,
        extra: usize,
    ) -> *mut pg_sys::MinimalTupleData;
    pub(super) fn ExecStoreMinimalTuple(
        tuple: *mut pg_sys::MinimalTupleData,
        slot: *mut pg_sys::TupleTableSlot,
        free: bool,
    ) -> *mut pg_sys::TupleTableSlot;
    pub(super) fn slot_getsomeattrs_int(slot: *mut pg_sys::TupleTableSlot, attributes: c_int);
    fn pg_detoast_datum_packed(value: *mut pg_sys::varlena) -> *mut pg_sys::varlena;
    fn detoast_external_attr(value: *mut pg_sys::varlena) -> *mut pg_sys::varlena;
}

/// Returns a slot for minimal tuples with the columns of a descriptor, without dropped ones.
///
/// # Safety
/// The descriptor must be valid as long as the slot.
pub unsafe fn slot_for(descriptor: pg_sys::TupleDesc) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: as the caller promises. The new descriptor gets as many columns as it has room for.
    unsafe {
        let live = || attributes(descriptor).filter(|attribute| !attribute.attisdropped);
        let count = live().count() as c_int;
        let packed = if count == (*descriptor).natts {
            descriptor
        } else {
            let packed = pg_sys::CreateTemplateTupleDesc(count);
            for (at, attribute) in live().enumerate() {
                let (number, kind) = ((at + 1) as pg_sys::AttrNumber, attribute.atttypid);
                pg_sys::TupleDescInitEntry(packed, number, c"".as_ptr(), kind, attribute.atttypmod, 0);
            }
            packed
        };
        pg_sys::MakeSingleTupleTableSlot(packed, &raw const pg_sys::TTSOpsMinimalTuple)
    }
}

/// Forms a tuple of the values in a slot, with all values in line.
///
/// # Safety
/// The slot must hold a row with the columns of the descriptor. Must be called within a guard, while no value needs to be dropped.
/// The tuple is in memory of the current context.
#[allow(ffi_unwind_calls)] // A guard catches the error, and no value on this stack needs to be dropped.
#[inline]
pub unsafe fn form_of(
    slot: *mut pg_sys::TupleTableSlot,
    descriptor: pg_sys::TupleDesc,
) -> *mut pg_sys::MinimalTupleData {
    // SAFETY: as the caller promises.
    unsafe {
        let columns = (*descriptor).natts;
        if i32::from((*slot).tts_nvalid) < columns {
            slot_getsomeattrs_int(slot, columns);
        }
        let (values, nulls) = ((*slot).tts_values, (*slot).tts_isnull);
        match has_external(descriptor, values, nulls) {
            false => form(descriptor, values, nulls),
            true => form_inline(descriptor, values, nulls),
        }
    }
}

/// Returns whether a value of a row is stored out of line, or is in the form that only its creator can read.
///
/// # Safety
/// The arrays must have as many elements as the descriptor has columns.
unsafe fn has_external(
    descriptor: pg_sys::TupleDesc,
    values: *const pg_sys::Datum,
    nulls: *const bool,
) -> bool {
    // SAFETY: as the caller promises. A value of variable length is a pointer to a varlena.
    unsafe {
        attributes(descriptor)
            .enumerate()
            .any(|(at, attribute)| attribute.attlen == -1 && !*nulls.add(at) && is_external(*values.add(at)))
    }
}

/// # Safety
/// The value must be a varlena.
unsafe fn is_external(value: pg_sys::Datum) -> bool {
    // SAFETY: as the caller promises.
    unsafe { pgrx::varlena::varatt_is_1b_e(value.cast_mut_ptr()) }
}

/// Forms a tuple whose values are all in line.
///
/// # Safety
/// As for [`has_external`]. Must be called within a guard.
#[allow(ffi_unwind_calls)] // A guard catches the error, and no value on this stack needs to be dropped.
#[cold]
unsafe fn form_inline(
    descriptor: pg_sys::TupleDesc,
    values: *const pg_sys::Datum,
    nulls: *const bool,
) -> *mut pg_sys::MinimalTupleData {
    const COLUMNS_MAX: usize = pg_sys::MaxTupleAttributeNumber as usize;
    // SAFETY: as the caller promises. No descriptor has more columns than the array.
    unsafe {
        let mut inline = [pg_sys::Datum::null(); COLUMNS_MAX];
        for (at, attribute) in attributes(descriptor).enumerate() {
            let value = *values.add(at);
            inline[at] = match attribute.attlen == -1 && !*nulls.add(at) && is_external(value) {
                true => detoast_external_attr(value.cast_mut_ptr()).into(),
                false => value,
            };
        }
        form(descriptor, inline.as_ptr(), nulls)
    }
}

/// Forms a tuple of values.
///
/// # Safety
/// The values and the nulls must be those of a row with these columns. Must be called within a guard.
#[allow(ffi_unwind_calls)] // A guard catches the error, and no value on this stack needs to be dropped.
#[inline]
unsafe fn form(
    descriptor: pg_sys::TupleDesc,
    values: *const pg_sys::Datum,
    nulls: *const bool,
) -> *mut pg_sys::MinimalTupleData {
    // SAFETY: as the caller promises.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        return heap_form_minimal_tuple(descriptor, values, nulls);
        #[cfg(feature = "pg18")]
        return heap_form_minimal_tuple(descriptor, values, nulls, 0);
    }
}

/// Returns the fingerprint of the row in a slot. It depends on the values only, and not on whether they are compressed.
///
/// # Safety
/// The slot must hold a minimal tuple without values out of line. Must be called within a guard, while no value needs to be
/// dropped. Uses memory of the current context.
#[allow(ffi_unwind_calls)] // A guard catches the error, and no value on this stack needs to be dropped.
pub unsafe fn fingerprint(slot: *mut pg_sys::TupleTableSlot) -> Fingerprint {
    /// Stands for a null. No part has this length.
    const NULL: u64 = u64::MAX;
    let mut printer = Printer::new();
    // SAFETY: as the caller promises. A value has the form that its attribute tells.
    unsafe {
        let descriptor = (*slot).tts_tupleDescriptor;
        // The server must not be asked for no columns at all.
        if (*descriptor).natts > 0 {
            slot_getsomeattrs_int(slot, (*descriptor).natts);
        }
        for (at, attribute) in attributes(descriptor).enumerate() {
            let value = *(*slot).tts_values.add(at);
            if *(*slot).tts_isnull.add(at) {
                printer.add_number(NULL);
            } else if attribute.attbyval {
                printer.add_number(value.value() as u64);
            } else {
                let start = value.cast_mut_ptr::<u8>().cast_const();
                printer.add(match attribute.attlen {
                    -1 => {
                        let whole = pg_detoast_datum_packed(value.cast_mut_ptr());
                        let length = pgrx::varlena::varsize_any_exhdr(whole);
                        std::slice::from_raw_parts(pgrx::varlena::vardata_any(whole).cast(), length)
                    }
                    -2 => CStr::from_ptr(start.cast()).to_bytes(),
                    length => std::slice::from_raw_parts(start, length as usize),
                });
            }
        }
    }
    printer.finish()
}
