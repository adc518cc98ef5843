//! The destination of the rows of a query. A [`Sink`] receives the rows of a running query one by one (`receiver.rs`). It puts each
//! row into its *result*, a tuplestore, and appends it to the bytes that are stored, until these exceed a limit. If another call
//! finds the stored bytes, [`Sink::replay`] puts their rows into the result of that call.
//!
//! There are three kinds of sinks:
//! - [`Sink::new`]: the result is that of a set-returning function, and must have the columns that its caller expects;
//! - [`Sink::of_any_columns`]: the result has the columns of the query, and can become a jsonb ([`Sink::to_jsonb`]);
//! - [`Sink::discarding`]: there is no result, only the bytes to store.
//!
//! The order of a run: [`Sink::keep`] and [`Sink::compare`] come first, if they are needed. [`Sink::require`] must accept the
//! columns of the query. Then the receiver calls `begin`, `take` for each row, and `finish`. The bytes of [`Sink::stored`] are
//! complete only after `finish`, which writes their checksum.

#![allow(unsafe_code)]

use super::columns::{self, Column, is_composite};
use super::room::Room;
use super::stored::{self, Damaged, Stored, Tuples};
use super::tuple::{self, ExecStoreMinimalTuple};
use super::tuplestore::Target;
use crate::pg::call_info::Call;
use crate::pg::error::Refused;
use crate::pg::memory::{self, Scratch};
use crate::pg::multiset::Multiset;
use crate::pg::reader::Reader;
use crate::pg::shared;
use pgrx::prelude::*;
use std::ffi::{CStr, c_int};

/// The destination of rows: the result, and the bytes to store.
#[derive(Debug)]
pub struct Sink {
    /// The call of the set-returning function whose result this is.
    call: Option<Call>,
    /// The result. Null if there is none, or before [`require`](Self::require) has made it.
    store: *mut pg_sys::Tuplestorestate,
    /// The descriptor of the result's rows. Null before [`require`](Self::require) has taken that of the query.
    descriptor: pg_sys::TupleDesc,
    /// Where the rows of the run go. None outside of a run.
    target: Option<Target>,
    /// A slot for tuples with the columns of the descriptor, without dropped ones. Null outside of a run whose rows are compared.
    slot: *mut pg_sys::TupleTableSlot,
    /// The bytes to store. None if nothing is to be stored, or if the rows exceed the limit.
    stored: Option<Vec<u8>>,
    /// The most bytes to store.
    most: usize,
    /// The number of rows that were received in the last run, or replayed.
    rows: u64,
    /// The name of the first column whose type is an anonymous record, or an array of them.
    anonymous_record: Option<Vec<u8>>,
    /// Whether a column contains composite values.
    has_composites: bool,
    /// A relation that the query reads as another role. The sink only carries it to the code that plans the query.
    reader: Option<Reader>,
    /// Whether there is no result: the rows only go into the bytes to store.
    discards: bool,
    /// The rows that were received, if they are to be compared with stored rows.
    content: Option<Multiset>,
}

/// Stored rows of at least so many bytes are put into a store for many rows.
const MANY_ROWS_BYTES: usize = 64 << 10;

/// What [`Sink::replay`] did with stored rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// The rows are in the result, or the sink has no result.
    Sent,
    /// The rows do not have the columns that the caller of the function expects. Nothing was sent.
    OtherColumns,
    /// The bytes are damaged. Nothing was sent.
    Damaged,
}

impl Sink {
    /// Makes the sink of a set-returning function. Raises an error if the function is called where it cannot return rows.
    pub fn new(call: Call) -> Self {
        let Some((store, descriptor)) = call.store_for_rows() else {
            let code = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
            Refused::new(code, "cache_query is called where it cannot return rows")
                .hint("Use SELECT * FROM cache_query(...) AS (column_name type, ...).")
                .raise();
        };
        Self { call: Some(call), ..Self::of(store, descriptor) }
    }

    /// Makes a sink whose result has the columns of the query. It is also used to learn about the columns of a query that does not
    /// run.
    pub fn of_any_columns() -> Self {
        Self::of(std::ptr::null_mut(), std::ptr::null_mut())
    }

    fn of(store: *mut pg_sys::Tuplestorestate, descriptor: pg_sys::TupleDesc) -> Self {
        Self {
            call: None,
            store,
            descriptor,
            target: None,
            slot: std::ptr::null_mut(),
            stored: None,
            most: 0,
            rows: 0,
            anonymous_record: None,
            has_composites: false,
            reader: None,
            discards: false,
            content: None,
        }
    }

    /// Makes a sink without a result. It takes rows with any columns, and only makes the bytes to store ([`keep`](Self::keep)).
    pub fn discarding() -> Self {
        Self { discards: true, ..Self::of_any_columns() }
    }

    /// Notes that the query must read a relation with the privileges of another role, as a view reads with those of its owner.
    pub fn read_as(&mut self, reader: Reader) {
        self.reader = Some(reader);
    }

    /// Returns the relation and the role that [`read_as`](Self::read_as) has noted.
    pub fn reader(&self) -> Option<Reader> {
        self.reader
    }

    /// From now on, keeps the bytes of the rows for storing, up to a limit.
    pub fn keep(&mut self, most: usize) {
        (self.stored, self.most) = (Some(Vec::new()), most);
    }

    /// From now on, notes the rows that are received, for [`has_rows_of`](Self::has_rows_of).
    pub fn compare(&mut self) {
        self.content = Some(Multiset::default());
    }

    /// Empties the result, so that stored rows can be put into it. Must be called after a run that has failed, before the next use
    /// of the sink. Does not change the bytes to store.
    pub fn start_anew(&mut self) {
        // SAFETY: the store lives as long as the statement. The slots were in the memory of the run, which is gone.
        unsafe {
            if !self.store.is_null() {
                pg_sys::tuplestore_clear(self.store);
            }
        }
        (self.target, self.slot, self.rows, self.content) = (None, std::ptr::null_mut(), 0, None);
    }

    /// Returns the bytes to store. None if [`keep`](Self::keep) was not called, if the rows exceed the limit, or if there was no
    /// memory.
    pub fn stored(&self) -> Option<&[u8]> {
        self.stored.as_deref()
    }

    /// Returns the name of the first column of the query whose type is an anonymous record, or an array of them. The rows of such a
    /// query must not be stored, because another session could not read the values.
    pub fn anonymous_record(&self) -> Option<&[u8]> {
        self.anonymous_record.as_deref()
    }

    /// Returns whether a column of the query contains composite values, also inside of arrays, ranges and domains.
    pub fn has_composites(&self) -> bool {
        self.has_composites
    }

    /// Returns the number of rows that were received in the last run, or replayed.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the columns that the caller expects, without dropped ones.
    fn expected(&self) -> impl Iterator<Item = Column> {
        // SAFETY: the descriptor lives as long as the statement.
        unsafe { columns::columns(self.descriptor) }
    }

    /// Prepares for the rows of a query. If the sink has no descriptor yet, it takes that of the query. Otherwise returns an error
    /// unless the query has the columns of the descriptor, which are those that the caller of the function expects.
    ///
    /// # Safety
    /// The descriptor must be valid.
    pub unsafe fn require(&mut self, query: pg_sys::TupleDesc) -> Result<(), Refused> {
        // SAFETY: as the caller promises. A name ends with a zero.
        unsafe {
            for attribute in columns::attributes(query) {
                if [pg_sys::RECORDOID, pg_sys::RECORDARRAYOID].contains(&attribute.atttypid) {
                    let name = CStr::from_ptr(attribute.attname.data.as_ptr()).to_bytes();
                    self.anonymous_record.get_or_insert_with(|| memory::copy(name));
                }
                self.has_composites |= is_composite(attribute.atttypid);
            }
        }
        if self.descriptor.is_null() {
            // SAFETY: as the caller promises. `work_mem` is a global of this session.
            unsafe {
                self.descriptor = pg_sys::CreateTupleDescCopy(query);
                if !self.discards {
                    self.store = pg_sys::tuplestore_begin_heap(false, false, pg_sys::work_mem);
                }
            }
            return Ok(());
        }
        // SAFETY: as the caller promises.
        unsafe { columns::require(self.descriptor, query) }
    }

    /// Puts stored rows into the result. `room` must hold the bytes of rows that were stored by a sink.
    pub fn replay(&mut self, room: &Room) -> Replayed {
        if self.discards {
            return Replayed::Sent;
        }
        let Some(stored) = Stored::open(room.bytes()) else { return Replayed::Damaged };
        if !stored.fits(self.expected()) {
            return Replayed::OtherColumns;
        }
        let call = self.call.filter(|_| room.bytes().len() >= MANY_ROWS_BYTES);
        if let Some(store) = call.and_then(Call::store_for_many_rows) {
            self.store = store;
        }
        // SAFETY: `Stored` has compared the columns with those of the descriptor, and checks each tuple. The memory is aligned for
        // tuples.
        self.rows = unsafe { self.replay_tuples(stored.tuples()) };
        if self.rows != stored.rows {
            self.start_anew();
            return Replayed::Damaged;
        }
        Replayed::Sent
    }

    /// Returns whether the sink has received the rows that are stored in `room`: each row as often, in any order.
    /// [`compare`](Self::compare) must have been called before.
    #[allow(ffi_unwind_calls)] // As in `take`.
    pub fn has_rows_of(&self, room: &Room) -> bool {
        let Some(stored) = Stored::open(room.bytes()) else { return false };
        if !stored.fits(self.expected()) {
            return false;
        }
        let (mut rows, mut count, mut tuples) = (Multiset::default(), 0, stored.tuples());
        // SAFETY: as in `replay`. The slot is used for tuples of these columns, and dropped after the last one.
        unsafe {
            let slot = tuple::slot_for(self.descriptor);
            let scratch = Scratch::new();
            while let Ok(Some(tuple)) = tuples.next() {
                shared::check_for_interrupts();
                rows.add(pg_sys::ffi::pg_guard_ffi_boundary(|| {
                    ExecStoreMinimalTuple(tuple, slot, false);
                    tuple::fingerprint(slot)
                }));
                scratch.clear();
                count += 1;
            }
            drop(scratch);
            pg_sys::ExecDropSingleTupleTableSlot(slot);
        }
        count == stored.rows && self.content == Some(rows)
    }

    /// Puts tuples into the result, up to the end or the first damaged one. Returns their number.
    ///
    /// # Safety
    /// The tuples must have the columns of the descriptor, and must be aligned.
    #[allow(ffi_unwind_calls)] // As in `take`.
    unsafe fn replay_tuples(&mut self, mut tuples: Tuples<'_>) -> u64 {
        /// The number of rows that are put into the result between two checks for interrupts.
        const ROWS_AT_ONCE: u64 = 1024;
        let mut rows = 0;
        // SAFETY: as the caller promises. The closure has no value that needs to be dropped.
        unsafe {
            let target = Target::new(self.store, self.descriptor);
            loop {
                let tuples = &mut tuples;
                let put = pg_sys::ffi::pg_guard_ffi_boundary(|| {
                    for put in 0..ROWS_AT_ONCE {
                        match tuples.next() {
                            Ok(Some(tuple)) => target.put(tuple),
                            Ok(None) | Err(Damaged) => return put,
                        }
                    }
                    ROWS_AT_ONCE
                });
                rows += put;
                shared::check_for_interrupts();
                if put < ROWS_AT_ONCE {
                    break;
                }
            }
            target.close();
        }
        rows
    }

    /// Prepares for the first row of a run.
    ///
    /// # Safety
    /// The descriptor must be that of the rows, and [`require`](Self::require) must have accepted it.
    pub(super) unsafe fn begin(&mut self, query: pg_sys::TupleDesc) {
        // SAFETY: as the caller promises. The descriptor of the result lives as long as the statement.
        unsafe {
            let columns = memory::collect(columns::columns(query));
            self.target = Some(Target::new(self.store, self.descriptor));
            if self.content.is_some() {
                self.slot = tuple::slot_for(self.descriptor);
            }
            self.rows = 0;
            if self.stored.is_some() {
                self.stored = stored::begin(&columns);
            }
        }
    }

    /// Receives a row, as a tuple in memory of the current context.
    ///
    /// # Safety
    /// The slot must hold a row with the columns of the descriptor, which must be that of [`begin`](Self::begin).
    #[allow(ffi_unwind_calls)] // A guard catches the error, and no value on this stack needs to be dropped.
    #[inline]
    pub(super) unsafe fn take(&mut self, slot: *mut pg_sys::TupleTableSlot, query: pg_sys::TupleDesc) {
        // SAFETY: as the caller promises. The closure has no value that needs to be dropped. The tuple lives until the caller
        // resets the memory.
        unsafe {
            let (target, compared) = (self.target, self.slot);
            let (tuple, print) = pg_sys::ffi::pg_guard_ffi_boundary(|| {
                let tuple = tuple::form_of(slot, query);
                if let Some(target) = target {
                    target.put(tuple);
                }
                if compared.is_null() {
                    return (tuple, None);
                }
                ExecStoreMinimalTuple(tuple, compared, false);
                (tuple, Some(tuple::fingerprint(compared)))
            });
            if let (Some(content), Some(print)) = (&mut self.content, print) {
                content.add(print);
            }
            self.rows += 1;
            let length = (*tuple).t_len as usize;
            self.append(std::slice::from_raw_parts(tuple.cast::<u8>(), length));
        }
    }

    /// Appends a tuple to the bytes to store, unless they would exceed the limit.
    fn append(&mut self, tuple: &[u8]) {
        let Some(stored) = &mut self.stored else { return };
        if !stored::append(stored, tuple, self.rows, self.most) {
            self.stored = None;
        }
    }

    /// Completes the bytes to store after the last row.
    ///
    /// # Safety
    /// [`begin`](Self::begin) must have been called.
    pub(super) unsafe fn finish(&mut self) {
        if let Some(stored) = &mut self.stored {
            stored::finish(stored);
        }
        self.target.take().into_iter().for_each(Target::close);
        let slot = std::mem::replace(&mut self.slot, std::ptr::null_mut());
        if !slot.is_null() {
            // SAFETY: `begin` has made the slot.
            unsafe { pg_sys::ExecDropSingleTupleTableSlot(slot) };
        }
    }

    /// Returns the collected rows as a jsonb: an array with an object for each row.
    ///
    /// # Safety
    /// An SPI connection must be open. The sink must have received the rows of a query in it.
    pub unsafe fn to_jsonb(&self) -> pg_sys::Datum {
        // SAFETY: as the caller promises. The server finds the rows by the name of the relation as long as the connection is open.
        unsafe {
            let relation = memory::cleared(size_of::<pg_sys::EphemeralNamedRelationData>())
                .cast::<pg_sys::EphemeralNamedRelationData>();
            (*relation).md.name = c"pg_cache_rows".as_ptr().cast_mut();
            (*relation).md.reliddesc = pg_sys::InvalidOid;
            (*relation).md.tupdesc = self.descriptor;
            (*relation).md.enrtype = pg_sys::EphemeralNameRelationType::ENR_NAMED_TUPLESTORE;
            (*relation).md.enrtuples = self.rows as f64;
            (*relation).reldata = self.store.cast();
            if pg_sys::SPI_register_relation(relation) != pg_sys::SPI_OK_REL_REGISTER as c_int {
                pgrx::error!("the rows cannot be named");
            }
            let statement = c"SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(pg_cache_rows.*)), '[]') FROM pg_cache_rows";
            let status = pg_sys::SPI_execute(statement.as_ptr(), true, 1);
            if status != pg_sys::SPI_OK_SELECT as c_int || pg_sys::SPI_processed != 1 {
                pgrx::error!("the rows cannot be made jsonb");
            }
            let (mut is_null, table) = (false, pg_sys::SPI_tuptable);
            pg_sys::SPI_getbinval(*(*table).vals, (*table).tupdesc, 1, &raw mut is_null)
        }
    }
}
