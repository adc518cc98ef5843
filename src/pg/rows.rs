//! The rows of a query: how they reach the caller of a set-returning function, and how they are stored.
//!
//! A [`Sink`] receives the rows of a running query one by one. It puts each into the result of the SQL function, and appends it to
//! the bytes that are stored, until these exceed a limit. [`Sink::replay`] later puts the stored rows into the result of another
//! call. Rows are stored as the server's *minimal tuples*, without pointers to out-of-line values, so nothing is parsed or
//! converted on either way.
//!
//! The stored form: [`Header`], then the type and the type modifier of each column as two 32-bit numbers, then padding to
//! [`ALIGNMENT`], then the tuples, each padded to [`ALIGNMENT`]. The form belongs to one build of the server, as the region does.

#![allow(unsafe_code)]

use super::encoding::shown;
use super::error::Refused;
use super::memory::{self, Scratch};
use super::multiset::{Fingerprint, Multiset, Printer};
use super::role::Role;
use super::shared;
use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use pg_cache_core::{Buffer, Meta};
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::nullable::Nullable;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;
use std::collections::BTreeSet;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::hash::Hasher;

/// The alignment of stored tuples, and of the memory that they are read into.
const ALIGNMENT: usize = pg_sys::MAXIMUM_ALIGNOF as usize;

/// The beginning of stored rows.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Header {
    columns: u32,
    /// A hash of everything behind the header. The server trusts the form of a tuple, so damaged bytes must not reach it.
    checksum: u32,
    rows: u64,
}

/// The bytes of a minimal tuple before its column values; a stored tuple must have at least so many.
const TUPLE_BYTES_MIN: usize = std::mem::offset_of!(pg_sys::MinimalTupleData, t_bits);

/// The call of a set-returning function: an argument that SQL does not see.
#[derive(Clone, Copy, Debug)]
pub struct Call(pg_sys::FunctionCallInfo);

impl Call {
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

/// The result of a set-returning function whose rows are in a [`Sink`]. The server does not use the value itself.
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

/// A column of a result: its type and its type modifier.
type Column = (u32, i32);

/// The role with whose privileges a query reads one relation. With all others, it reads them as the current role does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    pub relation: u32,
    pub role: Role,
}

/// The destination of rows: the result of a set-returning function, and the bytes to store.
#[derive(Debug)]
pub struct Sink {
    /// The store of the function's result.
    store: *mut pg_sys::Tuplestorestate,
    /// The descriptor of the result's rows.
    descriptor: pg_sys::TupleDesc,
    /// A slot for tuples with the columns of the query.
    slot: *mut pg_sys::TupleTableSlot,
    /// The bytes to store. None if nothing is to be stored, or if the rows exceed the limit.
    stored: Option<Vec<u8>>,
    /// The most bytes to store.
    most: usize,
    /// The number of rows that were sent.
    rows: u64,
    /// The name of the first column whose type is an anonymous record.
    anonymous_record: Option<Vec<u8>>,
    /// Whether a column contains composite values.
    has_composites: bool,
    reader: Option<Reader>,
    /// Whether the rows go nowhere but into the bytes to store.
    discards: bool,
    /// The rows that were received, if they are to be compared with stored rows.
    content: Option<Multiset>,
}

/// What [`Sink::replay`] did with stored rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// The rows are in the result.
    Sent,
    /// The rows do not have the columns that the caller of the function expects. Nothing was sent.
    OtherColumns,
    /// The bytes are damaged. Nothing was sent.
    Damaged,
}

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
    fn ExecStoreMinimalTuple(
        tuple: *mut pg_sys::MinimalTupleData,
        slot: *mut pg_sys::TupleTableSlot,
        free: bool,
    ) -> *mut pg_sys::TupleTableSlot;
    fn tuplestore_puttupleslot(store: *mut pg_sys::Tuplestorestate, slot: *mut pg_sys::TupleTableSlot);
    fn tuplestore_putvalues(
        store: *mut pg_sys::Tuplestorestate,
        descriptor: pg_sys::TupleDesc,
        values: *const pg_sys::Datum,
        nulls: *const bool,
    );
    fn slot_getsomeattrs_int(slot: *mut pg_sys::TupleTableSlot, attributes: c_int);
    fn pg_detoast_datum_packed(value: *mut pg_sys::varlena) -> *mut pg_sys::varlena;
    fn detoast_external_attr(value: *mut pg_sys::varlena) -> *mut pg_sys::varlena;
}

impl Sink {
    /// Makes the sink of a set-returning function. Raises an error if the function is called where it cannot return rows.
    pub fn new(call: Call) -> Self {
        if !call.takes_rows() {
            let code = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
            Refused::new(code, "cache_query is called where it cannot return rows")
                .hint("Use SELECT * FROM cache_query(...) AS (column_name type, ...).")
                .raise();
        }
        // SAFETY: pgrx passes the call of the function that is running. The server's function makes the store and the descriptor,
        // which live as long as the statement.
        unsafe {
            pg_sys::InitMaterializedSRF(call.0, pg_sys::MAT_SRF_USE_EXPECTED_DESC);
            let result = (*call.0).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            Self::of((*result).setResult, (*result).setDesc)
        }
    }

    /// Makes a sink that collects rows with any columns, until they are made a jsonb.
    pub(super) fn of_any_columns() -> Self {
        Self::of(std::ptr::null_mut(), std::ptr::null_mut())
    }

    fn of(store: *mut pg_sys::Tuplestorestate, descriptor: pg_sys::TupleDesc) -> Self {
        Self {
            store,
            descriptor,
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

    /// Makes a sink that only keeps the bytes to store of rows with any columns ([`keep`](Self::keep)).
    pub fn discarding() -> Self {
        Self { discards: true, ..Self::of_any_columns() }
    }

    /// Makes the query read a relation with the privileges of a role, as a view does with those of its owner.
    pub fn read_as(&mut self, reader: Reader) {
        self.reader = Some(reader);
    }

    pub(super) fn reader(&self) -> Option<Reader> {
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

    /// Forgets all rows, so that stored rows can be put into the result. Must be called after a run that has failed, before the
    /// next use of the sink.
    pub fn start_anew(&mut self) {
        // SAFETY: the store lives as long as the statement. The slot was in the memory of the run, which is gone.
        unsafe {
            if !self.store.is_null() {
                pg_sys::tuplestore_clear(self.store);
            }
        }
        (self.slot, self.rows, self.content) = (std::ptr::null_mut(), 0, None);
    }

    /// Returns the bytes to store. None if the rows exceed the limit, or if there was no memory.
    pub fn stored(&self) -> Option<&[u8]> {
        self.stored.as_deref()
    }

    /// Returns the name of a column of the query whose type is an anonymous record: another session could not read its values.
    pub fn anonymous_record(&self) -> Option<&[u8]> {
        self.anonymous_record.as_deref()
    }

    /// Returns whether a column of the query contains composite values, also inside of arrays, ranges and domains.
    pub fn has_composites(&self) -> bool {
        self.has_composites
    }

    /// Returns the number of rows that were sent.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the columns that the caller expects, without dropped ones.
    fn expected(&self) -> Vec<Column> {
        // SAFETY: the descriptor lives as long as the statement.
        unsafe { columns(self.descriptor) }
    }

    /// Prepares for the rows of a query. Returns an error unless they have the columns that the caller of the function expects.
    ///
    /// # Safety
    /// The descriptor must be valid.
    pub(super) unsafe fn require(&mut self, query: pg_sys::TupleDesc) -> Result<(), Refused> {
        // SAFETY: as the caller promises. A name ends with a zero.
        unsafe {
            for attribute in attributes(query) {
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
        let (expected, found) = unsafe { (columns(self.descriptor), columns(query)) };
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

    /// Runs a plan on the active snapshot, and receives its rows.
    ///
    /// # Safety
    /// An SPI connection must be open. The plan must belong to it and have as many parameters as there are types, values and nulls.
    pub(super) unsafe fn fill(
        &mut self,
        plan: pg_sys::SPIPlanPtr,
        types: &[pg_sys::Oid],
        values: &[pg_sys::Datum],
        nulls: &[c_char],
        writes: bool,
    ) -> Result<(), Refused> {
        // SAFETY: as the caller promises. The receiver lives on this stack while the query runs, and nothing keeps it afterwards.
        unsafe {
            let parameters = pg_sys::makeParamList(types.len() as c_int);
            for (at, ((kind, value), null)) in types.iter().zip(values).zip(nulls).enumerate() {
                let parameter = (*parameters).params.as_mut_ptr().add(at);
                (*parameter).value = *value;
                (*parameter).isnull = *null == b'n' as c_char;
                (*parameter).pflags = pg_sys::PARAM_FLAG_CONST as u16;
                (*parameter).ptype = *kind;
            }
            let mut receiver = Receiver {
                base: pg_sys::DestReceiver {
                    receiveSlot: Some(receive),
                    rStartup: Some(start_up),
                    rShutdown: Some(shut_down),
                    rDestroy: Some(nothing),
                    mydest: pg_sys::CommandDest::DestTuplestore,
                },
                sink: self,
                scratch: std::ptr::null_mut(),
                query: std::ptr::null_mut(),
            };
            let options = pg_sys::SPIExecuteOptions {
                params: if types.is_empty() { std::ptr::null_mut() } else { parameters },
                read_only: !writes,
                must_return_tuples: true,
                dest: (&raw mut receiver).cast(),
                ..Default::default()
            };
            let status = pg_sys::SPI_execute_plan_extended(plan, &raw const options);
            if status < 0 {
                pgrx::error!("the query cannot run: {status}");
            }
        }
        Ok(())
    }

    /// Puts stored rows into the result. `room` must hold the bytes of rows that were stored by a sink.
    pub fn replay(&mut self, room: &Room) -> Replayed {
        if self.discards {
            return Replayed::Sent;
        }
        let bytes = room.bytes();
        let Some((header, of_rows)) = header(bytes) else { return Replayed::Damaged };
        if header.1.len() != self.expected().len()
            || !self.expected().iter().zip(&header.1).all(|(asked, found)| fits(*asked, *found))
        {
            return Replayed::OtherColumns;
        }
        let Some(tuples) = tuples(&bytes[of_rows..], header.1.len()) else { return Replayed::Damaged };
        if tuples != header.0.rows {
            return Replayed::Damaged;
        }
        // SAFETY: `tuples` has checked the bytes: they are a sequence of minimal tuples with the number of columns of the
        // descriptor, whose types are the stored ones. The memory is aligned for tuples, and outlives the slot's use of it.
        unsafe { self.replay_tuples(bytes[of_rows..].as_ptr(), bytes.len() - of_rows) };
        self.rows = tuples;
        Replayed::Sent
    }

    /// Returns whether the sink has received the rows that are stored in `room`: each row as often, in any order.
    /// [`compare`](Self::compare) must have been called before.
    #[allow(ffi_unwind_calls)] // As in `put`.
    pub fn has_rows_of(&self, room: &Room) -> bool {
        let bytes = room.bytes();
        let Some((header, of_rows)) = header(bytes) else { return false };
        let expected = self.expected();
        let has_columns = header.1.len() == expected.len()
            && expected.iter().zip(&header.1).all(|(asked, found)| fits(*asked, *found));
        if !has_columns || tuples(&bytes[of_rows..], header.1.len()) != Some(header.0.rows) {
            return false;
        }
        let mut stored = Multiset::default();
        // SAFETY: as in `replay`. The slot is used for tuples of these columns, and dropped after the last one.
        unsafe {
            let slot = slot_for(self.descriptor);
            let scratch = Scratch::new();
            let (mut at, at_end) = (bytes[of_rows..].as_ptr(), bytes.as_ptr_range().end);
            while at < at_end {
                shared::check_for_interrupts();
                let tuple = at.cast::<pg_sys::MinimalTupleData>().cast_mut();
                stored.add(pg_sys::ffi::pg_guard_ffi_boundary(|| {
                    ExecStoreMinimalTuple(tuple, slot, false);
                    fingerprint(slot)
                }));
                scratch.clear();
                at = at.add(padded((*tuple).t_len as usize));
            }
            drop(scratch);
            pg_sys::ExecDropSingleTupleTableSlot(slot);
        }
        self.content == Some(stored)
    }

    /// Puts a sequence of tuples into the result.
    ///
    /// # Safety
    /// The bytes must be tuples with the columns of the descriptor, and must be aligned.
    #[allow(ffi_unwind_calls)] // As in `put`.
    unsafe fn replay_tuples(&mut self, first: *const u8, bytes: usize) {
        /// The number of rows that are put into the result between two checks for interrupts.
        const ROWS_AT_ONCE: usize = 1024;
        // SAFETY: as the caller promises. The slot refers to a tuple only until the next one is put into it.
        unsafe {
            self.slot = slot_for(self.descriptor);
            let (target, at_end) = (Target::of(self), first.add(bytes));
            let mut at = first;
            while at < at_end {
                at = pg_sys::ffi::pg_guard_ffi_boundary(|| {
                    let mut at = at;
                    for _ in 0..ROWS_AT_ONCE {
                        if at >= at_end {
                            break;
                        }
                        let tuple = at.cast::<pg_sys::MinimalTupleData>().cast_mut();
                        put(tuple, &target);
                        at = at.add(padded((*tuple).t_len as usize));
                    }
                    at
                });
                shared::check_for_interrupts();
            }
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            self.slot = std::ptr::null_mut();
        }
    }
}

impl Sink {
    /// Returns the collected rows as a jsonb: an array with an object for each row.
    ///
    /// # Safety
    /// An SPI connection must be open. The sink must have received the rows of a query in it.
    pub(super) unsafe fn to_jsonb(&self) -> pg_sys::Datum {
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

/// Where a tuple goes.
#[derive(Clone, Copy)]
struct Target {
    store: *mut pg_sys::Tuplestorestate,
    descriptor: pg_sys::TupleDesc,
    slot: *mut pg_sys::TupleTableSlot,
    /// Whether the descriptor has dropped columns, so that the columns of a tuple must be moved.
    has_dropped: bool,
}

impl Target {
    /// # Safety
    /// The descriptor must be valid.
    unsafe fn of(sink: &Sink) -> Self {
        // SAFETY: as the caller promises.
        let has_dropped = unsafe { attributes(sink.descriptor).any(|attribute| attribute.attisdropped) };
        Self { store: sink.store, descriptor: sink.descriptor, slot: sink.slot, has_dropped }
    }
}

/// Puts a tuple into the result, if there is one.
///
/// # Safety
/// The tuple must have the columns of the slot. Must be called within a guard, while no value needs to be dropped.
#[allow(ffi_unwind_calls)] // A guard catches the error, and no value on this stack needs to be dropped.
#[inline]
unsafe fn put(tuple: *mut pg_sys::MinimalTupleData, target: &Target) {
    if target.store.is_null() {
        return;
    }
    // SAFETY: as the caller promises. The store copies the tuple.
    unsafe {
        ExecStoreMinimalTuple(tuple, target.slot, false);
        if target.has_dropped {
            put_moved(target);
        } else {
            tuplestore_puttupleslot(target.store, target.slot);
        }
    }
}

/// Returns the fingerprint of the row in a slot. It depends on the values only, and not on whether they are compressed.
///
/// # Safety
/// The slot must hold a minimal tuple without values out of line. Must be called within a guard, while no value needs to be
/// dropped. Uses memory of the current context.
#[allow(ffi_unwind_calls)] // A guard catches the error, and no value on this stack needs to be dropped.
unsafe fn fingerprint(slot: *mut pg_sys::TupleTableSlot) -> Fingerprint {
    /// Stands for a null. No part has this length.
    const NULL: u64 = u64::MAX;
    let mut printer = Printer::new();
    // SAFETY: as the caller promises. A value has the form that its attribute tells.
    unsafe {
        let descriptor = (*slot).tts_tupleDescriptor;
        slot_getsomeattrs_int(slot, (*descriptor).natts);
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

/// Puts the tuple in the slot into the result, with nulls for dropped columns.
///
/// # Safety
/// As for [`put`].
#[allow(ffi_unwind_calls)] // A guard catches the error, and no value on this stack needs to be dropped.
#[cold]
unsafe fn put_moved(target: &Target) {
    const COLUMNS_MAX: usize = pg_sys::MaxTupleAttributeNumber as usize;
    // SAFETY: as the caller promises. No descriptor has more columns than the arrays. The values of the slot are those of the
    // columns that were not dropped, in their order.
    unsafe {
        let mut values = [pg_sys::Datum::null(); COLUMNS_MAX];
        let mut nulls = [true; COLUMNS_MAX];
        slot_getsomeattrs_int(target.slot, (*(*target.slot).tts_tupleDescriptor).natts);
        let mut from = 0;
        for (at, attribute) in attributes(target.descriptor).enumerate() {
            if !attribute.attisdropped {
                values[at] = *(*target.slot).tts_values.add(from);
                nulls[at] = *(*target.slot).tts_isnull.add(from);
                from += 1;
            }
        }
        tuplestore_putvalues(target.store, target.descriptor, values.as_ptr(), nulls.as_ptr());
    }
}

/// Receives the rows of a running query: what the server calls for each of them, and the sink that they go to.
#[repr(C)]
struct Receiver {
    base: pg_sys::DestReceiver,
    sink: *mut Sink,
    /// Memory for one row.
    scratch: pg_sys::MemoryContext,
    /// The descriptor of the query's rows.
    query: pg_sys::TupleDesc,
}

/// The server calls this before the first row.
#[pg_guard]
unsafe extern "C-unwind" fn start_up(
    receiver: *mut pg_sys::DestReceiver,
    _operation: c_int,
    query: pg_sys::TupleDesc,
) {
    // SAFETY: the receiver is ours, and its sink exists while the query runs.
    unsafe {
        let receiver = &mut *receiver.cast::<Receiver>();
        let sink = &mut *receiver.sink;
        let columns = columns(query);
        receiver.query = query;
        receiver.scratch = pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"pg_cache row".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        sink.slot = slot_for(sink.descriptor);
        sink.rows = 0;
        if sink.stored.is_some() {
            sink.stored = begin(&columns);
        }
    }
}

/// The server calls this for each row.
#[allow(ffi_unwind_calls)] // A guard catches the error, and no value on this stack needs to be dropped.
#[pg_guard]
unsafe extern "C-unwind" fn receive(
    slot: *mut pg_sys::TupleTableSlot,
    receiver: *mut pg_sys::DestReceiver,
) -> bool {
    // SAFETY: as above. The slot has the columns of the descriptor that `start_up` got. The closure has no value that needs to be
    // dropped. The tuple lives until the scratch memory is reset.
    unsafe {
        let receiver = &mut *receiver.cast::<Receiver>();
        let sink = &mut *receiver.sink;
        let target = Target::of(sink);
        let (query, scratch, compares) = (receiver.query, receiver.scratch, sink.content.is_some());
        let before = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = scratch;
        let (tuple, print) = pg_sys::ffi::pg_guard_ffi_boundary(|| {
            let columns = (*query).natts;
            if i32::from((*slot).tts_nvalid) < columns {
                slot_getsomeattrs_int(slot, columns);
            }
            let values = (*slot).tts_values;
            let tuple = match has_external(query, values, (*slot).tts_isnull) {
                false => form(query, values, (*slot).tts_isnull),
                true => form_inline(query, values, (*slot).tts_isnull),
            };
            put(tuple, &target);
            if !compares {
                return (tuple, None);
            }
            ExecStoreMinimalTuple(tuple, target.slot, false);
            (tuple, Some(fingerprint(target.slot)))
        });
        if let (Some(content), Some(print)) = (&mut sink.content, print) {
            content.add(print);
        }
        sink.rows += 1;
        let length = (*tuple).t_len as usize;
        sink.append(std::slice::from_raw_parts(tuple.cast::<u8>(), length));
        pg_sys::CurrentMemoryContext = before;
        pg_sys::MemoryContextReset(scratch);
    }
    true
}

/// The server calls this after the last row.
#[pg_guard]
unsafe extern "C-unwind" fn shut_down(receiver: *mut pg_sys::DestReceiver) {
    // SAFETY: as above. `start_up` has made both.
    unsafe {
        let receiver = &mut *receiver.cast::<Receiver>();
        let sink = &mut *receiver.sink;
        if let Some(stored) = &mut sink.stored {
            let (at, checksum) = (std::mem::offset_of!(Header, checksum), checksum(stored));
            stored[at..at + size_of::<u32>()].copy_from_slice(&checksum.to_ne_bytes());
        }
        pg_sys::ExecDropSingleTupleTableSlot(std::mem::replace(&mut sink.slot, std::ptr::null_mut()));
        pg_sys::MemoryContextDelete(receiver.scratch);
    }
}

/// The server calls this when it needs the receiver no more. It never does.
unsafe extern "C-unwind" fn nothing(_: *mut pg_sys::DestReceiver) {}

impl Sink {
    /// Appends a tuple to the bytes to store, unless they would exceed the limit.
    fn append(&mut self, tuple: &[u8]) {
        let Some(stored) = &mut self.stored else { return };
        let length = padded(tuple.len());
        if stored.len() + length > self.most || stored.try_reserve(length).is_err() {
            self.stored = None;
            return;
        }
        stored.extend_from_slice(tuple);
        stored.resize(padded(stored.len()), 0);
        let at = std::mem::offset_of!(Header, rows);
        stored[at..at + size_of::<u64>()].copy_from_slice(&self.rows.to_ne_bytes());
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

/// Returns the beginning of the bytes to store, before the first tuple. None if there is no memory.
fn begin(columns: &[Column]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve(padded(size_of::<Header>() + 8 * columns.len())).ok()?;
    bytes.extend_from_slice(&(columns.len() as u32).to_ne_bytes());
    bytes.resize(size_of::<Header>(), 0);
    for (kind, modifier) in columns {
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&modifier.to_ne_bytes());
    }
    bytes.resize(padded(bytes.len()), 0);
    Some(bytes)
}

/// Returns the header and the columns of stored rows, and where the tuples begin. None if the bytes are damaged.
fn header(bytes: &[u8]) -> Option<((Header, Vec<Column>), usize)> {
    let word = |at: usize| bytes.get(at..at + 4).and_then(|four| four.first_chunk().copied());
    let columns = u32::from_ne_bytes(word(0)?);
    let rows = u64::from_ne_bytes(*bytes.get(8..16)?.first_chunk()?);
    if columns > pg_sys::MaxTupleAttributeNumber {
        return None;
    }
    let mut found = Vec::new();
    found.try_reserve(columns as usize).ok()?;
    for at in 0..columns as usize {
        let at = size_of::<Header>() + 8 * at;
        found.push((u32::from_ne_bytes(word(at)?), i32::from_ne_bytes(word(at + 4)?)));
    }
    let end = padded(size_of::<Header>() + 8 * columns as usize);
    let header = Header { columns, checksum: u32::from_ne_bytes(word(4)?), rows };
    (end <= bytes.len() && header.checksum == checksum(bytes)).then_some(((header, found), end))
}

/// Returns the checksum of stored rows. It is the same in all processes.
fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = FoldHasher::with_seed(0, SharedSeed::global_fixed());
    hasher.write(bytes.get(size_of::<Header>()..).unwrap_or_default());
    hasher.finish() as u32
}

/// Returns the number of tuples in the bytes, if they are whole tuples with so many columns. None if they are damaged.
fn tuples(bytes: &[u8], columns: usize) -> Option<u64> {
    let (mut at, mut count) = (0, 0);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        let natts = std::mem::offset_of!(pg_sys::MinimalTupleData, t_infomask2);
        let natts = u16::from_ne_bytes(*rest.get(natts..)?.first_chunk()?) & pg_sys::HEAP_NATTS_MASK as u16;
        if length < TUPLE_BYTES_MIN || padded(length) > rest.len() || usize::from(natts) != columns {
            return None;
        }
        at += padded(length);
        count += 1;
    }
    Some(count)
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

/// Returns the attributes of a descriptor.
///
/// # Safety
/// The descriptor must be valid as long as the iterator.
unsafe fn attributes<'d>(
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
/// The descriptor must be valid.
unsafe fn columns(descriptor: pg_sys::TupleDesc) -> Vec<Column> {
    // SAFETY: as the caller promises.
    let all = unsafe { attributes(descriptor) };
    let live = all.filter(|attribute| !attribute.attisdropped);
    memory::collect(live.map(|attribute| (attribute.atttypid.to_u32(), attribute.atttypmod)))
}

/// Returns a slot for minimal tuples with the columns of a descriptor, without dropped ones.
///
/// # Safety
/// The descriptor must be valid as long as the slot.
unsafe fn slot_for(descriptor: pg_sys::TupleDesc) -> *mut pg_sys::TupleTableSlot {
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

/// Returns whether a column of a query can be returned as a column that the caller expects: the types are the same, or the query
/// returns a domain over the expected type, and the caller expects the same type modifier, or none. A driver reports a domain as
/// the type below it, and the values have the same form.
fn fits(expected: Column, found: Column) -> bool {
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
pub(super) fn is_composite(kind: pg_sys::Oid) -> bool {
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

fn counted(columns: usize) -> String {
    format!("{columns} {}", if columns == 1 { "column" } else { "columns" })
}

/// Returns the name of a column's type in SQL.
pub(super) fn type_name((kind, modifier): Column) -> String {
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
pub(super) unsafe fn definition_list(query: pg_sys::TupleDesc) -> String {
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
pub(super) unsafe fn distinct_definition_list(query: pg_sys::TupleDesc) -> (String, bool) {
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

/// Memory of the statement for the bytes of a stored value, aligned for tuples.
#[derive(Debug)]
pub struct Room {
    start: *mut c_void,
    length: usize,
    is_short: bool,
}

impl Default for Room {
    fn default() -> Self {
        Self { start: std::ptr::null_mut(), length: 0, is_short: false }
    }
}

impl Room {
    /// Returns the bytes of the value.
    pub fn bytes(&self) -> &[u8] {
        match self.start.is_null() {
            true => &[],
            // SAFETY: `length` bytes, which are zeroed when they are allocated. Only this value refers to them.
            false => unsafe { std::slice::from_raw_parts(self.start.cast(), self.length) },
        }
    }
}

impl Buffer for Room {
    fn allocate(&mut self, meta: &Meta) -> &mut [u8] {
        if self.start.is_null() || self.length != meta.value_len {
            self.start = memory::try_cleared(meta.value_len.max(1));
            self.length = meta.value_len;
            self.is_short = self.start.is_null();
        }
        match self.start.is_null() {
            true => &mut [],
            // SAFETY: as in `bytes`.
            false => unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.length) },
        }
    }

    fn was_allocated(&self) -> bool {
        !self.is_short
    }
}
