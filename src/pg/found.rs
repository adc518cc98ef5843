//! Checks that a command has changed the relations that were found by its names before.
//!
//! A command looks its relations up itself. Meanwhile another session may have given the name to another relation, in particular
//! while the command waits for a lock. So the names are looked up again after the command. If a name still stands for the same
//! relation, that is the one that the command has changed.
//!
//! The same memory keeps other objects that a command names, until the command is over. Only `command/` uses this file.

#![allow(unsafe_code)]

use super::memory;
use super::relation;
use pgrx::pg_sys;

/// The relations that a command names. They lie in the server's memory, so that they are freed if the command fails.
#[derive(Debug)]
#[repr(C)]
pub struct Found {
    memory: pg_sys::MemoryContext,
    /// Copies of the names.
    names: *mut pg_sys::List,
    /// The OIDs of the relations, in the same order.
    oids: *mut pg_sys::List,
}

/// Remembers the relations, or other objects, that were found by names. The names are copied, because the command may free its
/// statement. The memory is that of the portal, if there is one: it also outlives a command that commits.
///
/// # Safety
/// The names must be nodes from a parsed statement.
pub unsafe fn remember<N>(objects: impl Iterator<Item = (*const N, u32)>) -> *mut Found {
    // SAFETY: follows the way in which the server keeps data in a memory context of its own. Nothing raises an error while the
    // context is current, except for want of memory: the server then sets the current context itself.
    unsafe {
        let before = pg_sys::CurrentMemoryContext;
        let above = if pg_sys::PortalContext.is_null() { before } else { pg_sys::PortalContext };
        let memory = pg_sys::AllocSetContextCreateInternal(
            above,
            c"pg_cache names".as_ptr(),
            pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
            pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
            pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
        );
        pg_sys::CurrentMemoryContext = memory;
        let found = pg_sys::palloc0(size_of::<Found>()).cast::<Found>();
        (*found).memory = memory;
        for (name, oid) in objects {
            let name = pg_sys::copyObjectImpl(name.cast());
            (*found).names = pg_sys::lappend((*found).names, name);
            (*found).oids = pg_sys::lappend_oid((*found).oids, oid.into());
        }
        pg_sys::CurrentMemoryContext = before;
        found
    }
}

/// Returns the OIDs, and frees the memory. May raise errors.
///
/// # Safety
/// `found` must be from [`remember`], and must not be used afterwards.
pub unsafe fn take(found: *mut Found) -> Vec<u32> {
    // SAFETY: as the caller promises. An empty list is a null pointer.
    unsafe {
        let oids = (*found).oids;
        let count = if oids.is_null() { 0 } else { (*oids).length as usize };
        let taken = memory::collect((0..count).map(|at| (*(*oids).elements.add(at)).oid_value.to_u32()));
        pg_sys::MemoryContextDelete((*found).memory);
        taken
    }
}

/// Returns whether all names still stand for the same relations, and frees the memory. May raise errors.
///
/// # Safety
/// `found` must be from [`remember`], called with the names of relations, and must not be used afterwards.
pub unsafe fn are_same(found: *mut Found) -> bool {
    // SAFETY: as the caller promises. Both lists have the same length; an empty list is a null pointer.
    unsafe {
        let (names, oids) = ((*found).names, (*found).oids);
        let count = if names.is_null() { 0 } else { (*names).length as usize };
        let are_same = (0..count).all(|at| {
            let name = (*(*names).elements.add(at)).ptr_value.cast::<pg_sys::RangeVar>();
            relation::find(name) == Some((*(*oids).elements.add(at)).oid_value.to_u32())
        });
        pg_sys::MemoryContextDelete((*found).memory);
        are_same
    }
}

/// Returns the relations for which the names stand now, and frees the memory. May raise errors.
///
/// # Safety
/// As for [`are_same`].
pub unsafe fn find_again(found: *mut Found) -> Vec<u32> {
    // SAFETY: as the caller promises. An empty list is a null pointer.
    unsafe {
        let names = (*found).names;
        let count = if names.is_null() { 0 } else { (*names).length as usize };
        let relations = (0..count).filter_map(|at| {
            relation::find((*(*names).elements.add(at)).ptr_value.cast::<pg_sys::RangeVar>())
        });
        let relations = memory::collect(relations);
        pg_sys::MemoryContextDelete((*found).memory);
        relations
    }
}
