//! Walks through the server's lists and trees of nodes. Every node begins with its tag, which names its type. Also tells which
//! columns of a table contain transaction data, such as `xmin` ([`is_transactional`]).

#![allow(unsafe_code)]

use pgrx::prelude::*;
use std::ffi::{c_int, c_void};

unsafe extern "C-unwind" {
    /// The server's walkers, which pgrx does not bind for every version. Each calls `walker` with the nodes right below a node, and
    /// stops when `walker` returns true; `walker` goes deeper by calling them again. They have no guard and may raise errors: a
    /// caller must wrap the call in `pg_guard_ffi_boundary`, and its `walker` must be a `#[pg_guard]` function.
    #[cfg_attr(not(feature = "pg15"), link_name = "query_tree_walker_impl")]
    pub fn query_tree_walker(
        query: *mut pg_sys::Query,
        walker: Walker,
        context: *mut c_void,
        flags: c_int,
    ) -> bool;
    #[cfg_attr(not(feature = "pg15"), link_name = "expression_tree_walker_impl")]
    pub fn expression_tree_walker(node: *mut pg_sys::Node, walker: Walker, context: *mut c_void) -> bool;
    #[cfg_attr(not(feature = "pg15"), link_name = "raw_expression_tree_walker_impl")]
    pub fn raw_expression_tree_walker(node: *mut pg_sys::Node, walker: Walker, context: *mut c_void) -> bool;
}

pub type Walker = unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut c_void) -> bool;

/// Returns the nodes of a list, as pointers to its cells. The list must be null or hold pointers to nodes of type `T`.
pub unsafe fn nodes<T>(list: *const pg_sys::List) -> impl Iterator<Item = *const *const T> {
    // SAFETY: a list is a length and an array of as many pointers; an empty list is a null pointer.
    let (cells, length) = unsafe {
        if list.is_null() { (std::ptr::null_mut(), 0) } else { ((*list).elements, (*list).length) }
    };
    // SAFETY: `index` is within the array, and a cell is a pointer to a node.
    (0..length as usize).map(move |index| unsafe { cells.add(index).cast::<*const T>().cast_const() })
}

/// Returns the OIDs of a list. The list must be null or hold OIDs.
pub unsafe fn oids(list: *const pg_sys::List) -> impl Iterator<Item = pg_sys::Oid> {
    // SAFETY: a list is a length and an array of as many values; an empty list is a null pointer.
    let length = if list.is_null() { 0 } else { unsafe { (*list).length as usize } };
    // SAFETY: `index` is within the array.
    (0..length).map(move |index| unsafe { (*(*list).elements.add(index)).oid_value })
}

/// Returns whether a column is one of the system columns `xmin`, `cmin`, `xmax` and `cmax`, by its number. A result of a query that
/// reads them is not stored: they say which transaction has written a row, and some change although the row does not. For instance,
/// an update that is rolled back changes `xmax` and `cmax`, and invalidates nothing. `ctid` and `tableoid` are not among them,
/// because they change only with commands that invalidate the results of the table, such as UPDATE or VACUUM FULL.
pub fn is_transactional(column: pg_sys::AttrNumber) -> bool {
    let least = pg_sys::MaxCommandIdAttributeNumber as pg_sys::AttrNumber;
    let greatest = pg_sys::MinTransactionIdAttributeNumber as pg_sys::AttrNumber;
    (least..=greatest).contains(&column)
}
