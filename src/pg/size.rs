//! Sizes in bytes, written as PostgreSQL writes the sizes of its settings: `10MB`, `1.5GB`, `1000000`. Options of spaces such as
//! `quota` are sizes.
//!
//! `Size` is the SQL type `pgcache.size`. A literal of any kind is read by the type's input function, and `sql/schema.sql` has
//! casts from numbers and texts. So a caller can pass `1000000`, `'10MB'` or a parameter without a cast.

#![allow(unsafe_code)]

use super::oid_alias::oid_alias;
use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::prelude::*;

/// The units, each with its bytes, from the largest to the smallest.
const UNITS: [(&str, i64); 5] =
    [("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10), ("B", 1)];

/// The hint that the server gives for a setting.
const UNITS_HINT: &str = "Valid units for this parameter are \"B\", \"kB\", \"MB\", \"GB\", and \"TB\".";

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub i64);

impl Size {
    /// Reads a number with an optional unit; without one, the number is in bytes. Fractions of a byte are rounded. The error is the
    /// text of a hint. Negative sizes are read: the caller must refuse them.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        let text = text.trim_ascii();
        let digits = text.find(|letter: char| !matches!(letter, '0'..='9' | '.' | '+' | '-'));
        let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
        let unit = if unit.is_empty() { "B" } else { unit.trim_ascii_start() };
        let (_, bytes) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(UNITS_HINT)?;
        if let Some(size) = number.parse::<i64>().ok().and_then(|number| number.checked_mul(*bytes)) {
            return Ok(Self(size));
        }
        let size = (number.parse::<f64>().map_err(|_| UNITS_HINT)? * *bytes as f64).round();
        if size.abs() < 2_f64.powi(63) { Ok(Self(size as i64)) } else { Err("Value exceeds bigint range.") }
    }
}

impl std::fmt::Display for Size {
    /// Writes the size in the largest unit in which it is a whole number.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fits = |(_, bytes): &&(&str, i64)| self.0 % bytes == 0;
        let (unit, bytes) = UNITS.iter().find(fits).filter(|_| self.0 != 0).unwrap_or(&("B", 1));
        write!(formatter, "{}{unit}", self.0 / bytes)
    }
}

impl FromDatum for Size {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        (!is_null).then(|| Self(datum.value() as i64))
    }
}

// SAFETY: the type is stored like a bigint, which is passed by value.
unsafe impl BoxRet for Size {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: a Datum of a type that is passed by value.
        unsafe { fcinfo.return_raw_datum(pg_sys::Datum::from(self.0)) }
    }
}

// `Self(0)` takes the place of a NULL in an argument that is not an `Option`, and is never used (`oid_alias.rs`).
oid_alias!(@argument Size, "pgcache.size", Self(0));
