//! Puts tuples into the result of a set-returning function, which the server keeps as a *tuplestore*: a list of rows in memory or
//! in a temporary file.

#![allow(unsafe_code)]

use super::columns::attributes;
use super::tuple::{self, ExecStoreMinimalTuple, slot_getsomeattrs_int};
use pgrx::prelude::*;

unsafe extern "C-unwind" {
    // Called without pgrx, for each row: one guard around all of them is enough.
    fn tuplestore_puttuple(store: *mut pg_sys::Tuplestorestate, tuple: pg_sys::HeapTuple);
    fn tuplestore_putvalues(
        store: *mut pg_sys::Tuplestorestate,
        descriptor: pg_sys::TupleDesc,
        values: *const pg_sys::Datum,
        nulls: *const bool,
    );
}

/// The number of bytes before a minimal tuple at which the same tuple with an ordinary head would begin.
const OFFSET: usize = std::mem::offset_of!(pg_sys::HeapTupleHeaderData, t_infomask2)
    - std::mem::offset_of!(pg_sys::MinimalTupleData, t_infomask2);

/// Where a tuple goes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The store of the function's result. Null if the rows are not kept.
    store: *mut pg_sys::Tuplestorestate,
    descriptor: pg_sys::TupleDesc,
    /// A slot for tuples with the columns of the descriptor, without dropped ones. Null if no column was dropped.
    slot: *mut pg_sys::TupleTableSlot,
}

impl Target {
    /// # Safety
    /// The descriptor must be valid as long as the target is used.
    pub unsafe fn new(store: *mut pg_sys::Tuplestorestate, descriptor: pg_sys::TupleDesc) -> Self {
        // SAFETY: as the caller promises.
        let slot = unsafe {
            match attributes(descriptor).any(|attribute| attribute.attisdropped) {
                true => tuple::slot_for(descriptor),
                false => std::ptr::null_mut(),
            }
        };
        Self { store, descriptor, slot }
    }

    /// Frees the memory of the target.
    pub fn close(self) {
        if !self.slot.is_null() {
            // SAFETY: `new` has made the slot.
            unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.slot) };
        }
    }

    /// Puts a tuple into the result, if there is one.
    ///
    /// # Safety
    /// The tuple must have the columns of the descriptor, without dropped ones. Must be called within a guard, while no value needs
    /// to be dropped.
    #[allow(ffi_unwind_calls)] // A guard catches the error, and no value on this stack needs to be dropped.
    #[inline]
    pub unsafe fn put(&self, tuple: *mut pg_sys::MinimalTupleData) {
        if self.store.is_null() {
            return;
        }
        // SAFETY: as the caller promises. The store copies the tuple. It wants the head of an ordinary tuple, and reads only the
        // part of it that a minimal tuple has, too.
        unsafe {
            if !self.slot.is_null() {
                return self.put_moved(tuple);
            }
            let mut head = pg_sys::HeapTupleData {
                t_len: (*tuple).t_len + OFFSET as u32,
                t_data: tuple.cast::<u8>().wrapping_sub(OFFSET).cast(),
                ..Default::default()
            };
            tuplestore_puttuple(self.store, &raw mut head);
        }
    }

    /// Puts a tuple into the result, with nulls for dropped columns.
    ///
    /// # Safety
    /// As for [`put`](Self::put).
    #[allow(ffi_unwind_calls)] // A guard catches the error, and no value on this stack needs to be dropped.
    #[cold]
    unsafe fn put_moved(&self, tuple: *mut pg_sys::MinimalTupleData) {
        const COLUMNS_MAX: usize = pg_sys::MaxTupleAttributeNumber as usize;
        // SAFETY: as the caller promises. No descriptor has more columns than the arrays. The values of the slot are those of the
        // columns that were not dropped, in their order.
        unsafe {
            let mut values = [pg_sys::Datum::null(); COLUMNS_MAX];
            let mut nulls = [true; COLUMNS_MAX];
            ExecStoreMinimalTuple(tuple, self.slot, false);
            let columns = (*(*self.slot).tts_tupleDescriptor).natts;
            // The server must not be asked for no columns at all.
            if columns > 0 {
                slot_getsomeattrs_int(self.slot, columns);
            }
            let mut from = 0;
            for (at, attribute) in attributes(self.descriptor).enumerate() {
                if !attribute.attisdropped {
                    values[at] = *(*self.slot).tts_values.add(from);
                    nulls[at] = *(*self.slot).tts_isnull.add(from);
                    from += 1;
                }
            }
            tuplestore_putvalues(self.store, self.descriptor, values.as_ptr(), nulls.as_ptr());
        }
    }
}
