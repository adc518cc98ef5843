//! Puts tuples into the result of a set-returning function, which the server keeps as a *tuplestore*: a list of rows in memory or
//! in a temporary file.

#![allow(unsafe_code)]

use super::columns::attributes;
use super::tuple::{ExecStoreMinimalTuple, slot_getsomeattrs_int};
use pgrx::prelude::*;

unsafe extern "C-unwind" {
    // Called without pgrx, for each row: one guard around all of them is enough.
    fn tuplestore_puttupleslot(store: *mut pg_sys::Tuplestorestate, slot: *mut pg_sys::TupleTableSlot);
    fn tuplestore_putvalues(
        store: *mut pg_sys::Tuplestorestate,
        descriptor: pg_sys::TupleDesc,
        values: *const pg_sys::Datum,
        nulls: *const bool,
    );
}

/// Where a tuple goes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The store of the function's result. Null if the rows are not kept.
    store: *mut pg_sys::Tuplestorestate,
    descriptor: pg_sys::TupleDesc,
    /// A slot for tuples with the columns of the descriptor, without dropped ones.
    pub slot: *mut pg_sys::TupleTableSlot,
    /// Whether the descriptor has dropped columns, so that the columns of a tuple must be moved.
    has_dropped: bool,
}

impl Target {
    /// # Safety
    /// The descriptor must be valid.
    pub unsafe fn new(
        store: *mut pg_sys::Tuplestorestate,
        descriptor: pg_sys::TupleDesc,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> Self {
        // SAFETY: as the caller promises.
        let has_dropped = unsafe { attributes(descriptor).any(|attribute| attribute.attisdropped) };
        Self { store, descriptor, slot, has_dropped }
    }

    /// Puts a tuple into the result, if there is one.
    ///
    /// # Safety
    /// The tuple must have the columns of the slot. Must be called within a guard, while no value needs to be dropped.
    #[allow(ffi_unwind_calls)] // A guard catches the error, and no value on this stack needs to be dropped.
    #[inline]
    pub unsafe fn put(&self, tuple: *mut pg_sys::MinimalTupleData) {
        if self.store.is_null() {
            return;
        }
        // SAFETY: as the caller promises. The store copies the tuple.
        unsafe {
            ExecStoreMinimalTuple(tuple, self.slot, false);
            if self.has_dropped {
                self.put_moved();
            } else {
                tuplestore_puttupleslot(self.store, self.slot);
            }
        }
    }

    /// Puts the tuple in the slot into the result, with nulls for dropped columns.
    ///
    /// # Safety
    /// As for [`put`](Self::put).
    #[allow(ffi_unwind_calls)] // A guard catches the error, and no value on this stack needs to be dropped.
    #[cold]
    unsafe fn put_moved(&self) {
        const COLUMNS_MAX: usize = pg_sys::MaxTupleAttributeNumber as usize;
        // SAFETY: as the caller promises. No descriptor has more columns than the arrays. The values of the slot are those of the
        // columns that were not dropped, in their order.
        unsafe {
            let mut values = [pg_sys::Datum::null(); COLUMNS_MAX];
            let mut nulls = [true; COLUMNS_MAX];
            slot_getsomeattrs_int(self.slot, (*(*self.slot).tts_tupleDescriptor).natts);
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
