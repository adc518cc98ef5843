//! Runs a plan, and passes its rows to a *sink*, the destination of the rows (`sink.rs`). The server calls the functions of a
//! receiver for each row.

#![allow(unsafe_code)]

use super::sink::Sink;
use crate::pg::error::Refused;
use pgrx::prelude::*;
use std::ffi::{c_char, c_int};

/// Runs a plan and passes its rows to the sink. An element of `nulls` is `n` for a null. `writes` says whether the query may change
/// or lock rows. Without it, the plan runs read-only on the active snapshot. With it, SPI takes a new snapshot for the query.
///
/// # Safety
/// An SPI connection must be open. The plan must belong to it and have as many parameters as there are types, values and nulls.
/// [`Sink::require`] must have accepted the columns of the plan.
pub unsafe fn fill(
    sink: &mut Sink,
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
            sink,
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
        receiver.query = query;
        receiver.scratch = pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"pg_cache row".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        (*receiver.sink).begin(query);
    }
}

/// The server calls this for each row.
#[pg_guard]
unsafe extern "C-unwind" fn receive(
    slot: *mut pg_sys::TupleTableSlot,
    receiver: *mut pg_sys::DestReceiver,
) -> bool {
    // SAFETY: as above. The slot has the columns of the descriptor that `start_up` got.
    unsafe {
        let receiver = &mut *receiver.cast::<Receiver>();
        let before = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = receiver.scratch;
        (*receiver.sink).take(slot, receiver.query);
        pg_sys::CurrentMemoryContext = before;
        pg_sys::MemoryContextReset(receiver.scratch);
    }
    true
}

/// The server calls this after the last row.
#[pg_guard]
unsafe extern "C-unwind" fn shut_down(receiver: *mut pg_sys::DestReceiver) {
    // SAFETY: as above. `start_up` has made the memory for a row.
    unsafe {
        let receiver = &mut *receiver.cast::<Receiver>();
        (*receiver.sink).finish();
        pg_sys::MemoryContextDelete(receiver.scratch);
    }
}

/// The server calls this when it needs the receiver no more. It never does.
unsafe extern "C-unwind" fn nothing(_: *mut pg_sys::DestReceiver) {}
