//! Counts the cursors of the session. A result is not stored if the query has opened or closed cursors, or may have read from one
//! whose rows the server keeps (`query/refusals.rs`).

#![allow(unsafe_code)]

use super::spi::{Snapshot, within_spi};
use crate::pg::observer;
use pgrx::pg_sys;
use std::ffi::CStr;

/// How many cursors the session has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursors {
    pub all: u64,
    /// The holdable ones among them. Reading from one runs no plan, so it cannot be observed.
    pub held: u64,
}

/// Returns how many cursors the session has.
pub fn cursors() -> Cursors {
    let count = |statement: &CStr| {
        // SAFETY: a statement of one command without parameters, while the connection is open.
        unsafe {
            match pg_sys::SPI_execute(statement.as_ptr(), true, 0) == pg_sys::SPI_OK_SELECT as i32 {
                true => pg_sys::SPI_processed,
                false => 0,
            }
        }
    };
    observer::apart(|| {
        within_spi(Snapshot::Active, || Cursors {
            all: count(c"SELECT FROM pg_catalog.pg_cursor()"),
            held: count(c"SELECT FROM pg_catalog.pg_cursor() WHERE is_holdable"),
        })
    })
}
