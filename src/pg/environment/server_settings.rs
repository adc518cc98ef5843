//! The settings of the server and its libraries: where their values are, and whether they have changed since the last look.
//! `digest.rs` computes digests of them, which the keys of query results contain.
//!
//! The server never frees the record of a setting, so a session may keep a pointer to it. The only exception is a *placeholder*, a
//! setting that no library has defined: the server frees its record when a library defines or reserves its name. So a pointer to
//! the record of a placeholder must be checked before each use (`Remembered::has_all_settings` in `digest.rs`).

#![allow(unsafe_code)]

use crate::pg::local::check_thread;
use crate::pg::memory;
use pgrx::pg_sys;
use sha2::{Digest as _, Sha256};
use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::atomic::AtomicBool;

unsafe extern "C" {
    // Called without pgrx's guard: they raise no errors, and run with every hit.
    #[cfg(feature = "pg15")]
    fn GetNumConfigOptions() -> c_int;
    fn strcmp(one: *const c_char, other: *const c_char) -> c_int;
}

/// Calls `call` with a list of the records of all settings, sorted by name. `call` must not call a function of the server, which
/// could move the list or free a placeholder.
pub fn with_settings(call: impl FnOnce(&[*const pg_sys::config_generic])) {
    check_thread();
    #[cfg(feature = "pg15")]
    // SAFETY: the server has an array of so many pointers.
    unsafe {
        let records = pg_sys::get_guc_variables().cast_const().cast();
        call(std::slice::from_raw_parts(records, count_settings() as usize));
    }
    #[cfg(not(feature = "pg15"))]
    // SAFETY: the server returns a new array of so many pointers.
    unsafe {
        let mut count = 0;
        let records = pg_sys::get_guc_variables(&raw mut count);
        call(std::slice::from_raw_parts(records.cast_const().cast(), count as usize));
        pg_sys::pfree(records.cast());
    }
}

/// Returns the number of settings, including placeholders.
#[cfg(feature = "pg15")]
pub(super) fn count_settings() -> c_int {
    check_thread();
    // SAFETY: reads a variable of the server.
    unsafe { GetNumConfigOptions() }
}

/// Returns the number of settings, including placeholders. The server makes a list of all settings for that. On PostgreSQL 15, the
/// function of the same name only reads a variable.
#[cfg(not(feature = "pg15"))]
pub(super) fn count_settings() -> c_int {
    let mut count = 0;
    with_settings(|records| count = records.len() as c_int);
    count
}

/// Returns whether the setting with this name is a placeholder now. False if there is no such setting.
pub(super) fn is_placeholder(name: &CStr) -> bool {
    // SAFETY: searches the server's settings by a name that ends with a zero. An unknown name has no flags.
    let flags = unsafe { pg_sys::GetConfigOptionFlags(name.as_ptr(), true) };
    flags & pg_sys::GUC_CUSTOM_PLACEHOLDER as c_int != 0
}

/// Binds the setting `transaction_read_only` of this process to another variable, for a worker that runs warmers. The server's own
/// variable can then forbid writing, while queries and digests see the setting as in a usual session: so the results get the keys
/// that sessions look for. Must be called before the first digest, because the session remembers the place of each value from then
/// on.
pub fn separate_read_only(variable: &'static AtomicBool) {
    with_settings(|records| {
        for record in records {
            // SAFETY: the server's record of a setting of this process, which the server itself changes, too. The new variable
            // lives as long as the process, and has the type of the setting.
            unsafe {
                let is_it = CStr::from_ptr((**record).name) == c"transaction_read_only";
                if is_it && (**record).vartype == pg_sys::config_type::PGC_BOOL {
                    (*record.cast_mut().cast::<pg_sys::config_bool>()).variable = variable.as_ptr();
                }
            }
        }
    });
}

/// Where the server keeps the value of a setting.
#[derive(Clone, Copy)]
pub(super) enum Place {
    Bool(*const bool),
    /// Also that of an enumeration.
    Int(*const c_int),
    Real(*const f64),
    Text(*const *mut c_char),
}

/// The value of a setting. A missing text is another value than an empty one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Value<'v> {
    Word(u64),
    Text(Option<&'v [u8]>),
}

/// A setting with its last value: the value at the last call of [`update`](Self::update).
pub(super) struct Setting {
    record: *const pg_sys::config_generic,
    place: Place,
    /// Where the compiled-in default is. None for a placeholder: a session that has not set it does not know the name, so each
    /// value of a placeholder counts as different from the default.
    pub(super) default: Option<Place>,
    /// The last value, if it is not a text.
    word: u64,
    /// The last value, if it is a text.
    text: Option<CString>,
}

impl Setting {
    /// Makes a setting of its record, without reading the value: the last value is 0, or no text. Returns None if the type of the
    /// setting is unknown.
    ///
    /// # Safety
    /// The record must be valid.
    pub(super) unsafe fn of(record: *const pg_sys::config_generic) -> Option<Self> {
        use pg_sys::config_type::{PGC_BOOL, PGC_ENUM, PGC_INT, PGC_REAL, PGC_STRING};
        use pg_sys::{config_bool, config_enum, config_int, config_real, config_string};
        // SAFETY: the type tells of which structure the record is the beginning.
        let (place, default, flags) = unsafe {
            let (place, default) = match (*record).vartype {
                PGC_BOOL => {
                    let record = record.cast::<config_bool>();
                    (Place::Bool((*record).variable), Place::Bool(&raw const (*record).boot_val))
                }
                PGC_INT => {
                    let record = record.cast::<config_int>();
                    (Place::Int((*record).variable), Place::Int(&raw const (*record).boot_val))
                }
                PGC_REAL => {
                    let record = record.cast::<config_real>();
                    (Place::Real((*record).variable), Place::Real(&raw const (*record).boot_val))
                }
                PGC_STRING => {
                    let record = record.cast::<config_string>();
                    let default = &raw const (*record).boot_val;
                    (Place::Text((*record).variable), Place::Text(default.cast()))
                }
                PGC_ENUM => {
                    let record = record.cast::<config_enum>();
                    (Place::Int((*record).variable), Place::Int(&raw const (*record).boot_val))
                }
                _ => return None,
            };
            (place, default, (*record).flags)
        };
        let is_placeholder = flags & pg_sys::GUC_CUSTOM_PLACEHOLDER as c_int != 0;
        Some(Self { record, place, default: (!is_placeholder).then_some(default), word: 0, text: None })
    }

    /// Compares the value with the last value. If they differ, calls `on_change`, and the value becomes the last value.
    ///
    /// # Safety
    /// The record must be valid.
    #[inline]
    pub(super) unsafe fn update(&mut self, on_change: impl FnOnce()) {
        // SAFETY: the place is that of a valid record.
        if unsafe { self.place.holds(self.word, self.text.as_deref()) } {
            return;
        }
        on_change();
        // SAFETY: as above.
        match unsafe { self.place.value() } {
            Value::Word(word) => self.word = word,
            Value::Text(text) => self.text = text.and_then(memory::terminated),
        }
    }

    #[inline]
    fn last(&self) -> Value<'_> {
        match self.place {
            Place::Text(_) => Value::Text(self.text.as_deref().map(CStr::to_bytes)),
            _ => Value::Word(self.word),
        }
    }

    /// Adds the name and the last value to a hash, unless the last value is the compiled-in default. [`update`](Self::update) must
    /// be called before.
    ///
    /// # Safety
    /// The record must be valid.
    pub(super) unsafe fn add_to(&self, hash: &mut Sha256) {
        // SAFETY: as the caller promises. The name ends with a zero.
        let (name, default) =
            unsafe { (CStr::from_ptr((*self.record).name), self.default.map(|default| default.value())) };
        if default == Some(self.last()) {
            return;
        }
        hash.update(name.to_bytes_with_nul());
        match self.last() {
            Value::Word(word) => {
                hash.update([0]);
                hash.update(word.to_ne_bytes());
            }
            Value::Text(None) => hash.update([1]),
            Value::Text(Some(text)) => {
                hash.update([2]);
                hash.update(text.len().to_ne_bytes());
                hash.update(text);
            }
        }
    }
}

impl Place {
    /// Returns whether the value is the word or, if it is a text, the text. Every hit compares all settings in this way, so a text
    /// is read only up to the first difference.
    ///
    /// # Safety
    /// The place must be that of a valid record.
    #[inline]
    unsafe fn holds(self, word: u64, text: Option<&CStr>) -> bool {
        // SAFETY: as in `value`.
        unsafe {
            match self {
                Self::Bool(place) => u64::from(*place) == word,
                Self::Int(place) => *place as u64 == word,
                Self::Real(place) => (*place).to_bits() == word,
                Self::Text(place) => match (text, *place) {
                    (None, now) => now.is_null(),
                    (Some(text), now) => !now.is_null() && strcmp(now, text.as_ptr()) == 0,
                },
            }
        }
    }

    /// Returns the value. A text lives until the server is called again.
    ///
    /// # Safety
    /// The place must be that of a valid record.
    #[inline]
    unsafe fn value<'v>(self) -> Value<'v> {
        // SAFETY: as the caller promises. The server sets a text to null or to one that ends with a zero.
        unsafe {
            match self {
                Self::Bool(place) => Value::Word((*place).into()),
                Self::Int(place) => Value::Word(*place as u64),
                Self::Real(place) => Value::Word((*place).to_bits()),
                Self::Text(place) => {
                    let text = *place;
                    Value::Text((!text.is_null()).then(|| CStr::from_ptr(text).to_bytes()))
                }
            }
        }
    }
}
