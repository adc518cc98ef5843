//! Reads the lists of a parsed statement.

#![allow(unsafe_code)]

use pgrx::pg_sys;
use std::ffi::CStr;

/// Returns the nodes of a list, which must be null or hold pointers to nodes of type `T`.
pub(super) unsafe fn nodes<T>(list: *const pg_sys::List) -> impl Iterator<Item = *const T> {
    // SAFETY: a list is an array of `length` pointers to nodes; an empty list is a null pointer.
    let count = if list.is_null() { 0 } else { unsafe { (*list).length as usize } };
    // SAFETY: as above.
    (0..count).map(move |at| unsafe { (*(*list).elements.add(at)).ptr_value.cast::<T>().cast_const() })
}

/// Returns the text of an option of a statement. None if the statement has no such option, or if the option has no value.
pub(super) unsafe fn option<'s>(options: *const pg_sys::List, name: &CStr) -> Option<&'s CStr> {
    // SAFETY: a list of options from a parsed statement, which lives as long as the caller uses it. The server's function returns
    // the text of any option with a value.
    unsafe {
        let mut found = nodes::<pg_sys::DefElem>(options)
            .filter(|option| CStr::from_ptr((**option).defname) == name && !(**option).arg.is_null());
        found.next().map(|option| CStr::from_ptr(pg_sys::defGetString(option.cast_mut())))
    }
}

/// Returns the names in a list of options.
pub(super) unsafe fn names<'s>(options: *const pg_sys::List) -> impl Iterator<Item = &'s CStr> {
    // SAFETY: a list of options from a parsed statement, which lives as long as the caller uses it.
    unsafe { nodes::<pg_sys::DefElem>(options).map(|option| CStr::from_ptr((*option).defname)) }
}
