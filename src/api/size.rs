//! The input and output functions of the SQL type `pgcache.size`, a number of bytes such as `10MB`. `sql/schema.sql` creates the
//! type, and `pg/size.rs` reads and writes its text.

use super::arguments::invalid;
use crate::pg::encoding::shown;
use crate::pg::size::Size;
use pgrx::prelude::*;
use std::ffi::{CStr, CString};

/// Reads a size: a number with an optional unit, such as `10MB`. Raises an error for any other text.
#[pg_extern(sql = false)]
fn size_in(text: &CStr) -> Size {
    let text = shown(text.to_bytes());
    Size::read(&text).unwrap_or_else(|hint| invalid(format!("invalid size: \"{text}\"")).hint(hint).raise())
}

/// Writes a size in the largest unit in which it is a whole number.
#[pg_extern(sql = false)]
fn size_out(size: Size) -> CString {
    CString::new(size.to_string()).unwrap_or_default()
}
