//! The reports about a command that must wait until the command has succeeded. Before the command, `hook.rs` decides which report
//! follows ([`Afterwards`]); after it, [`after`] makes the report. A failed command has no report.
//!
//! The hook calls the command between the two, and an error of the command passes the hook as a longjmp. So [`Afterwards`] must not
//! need to be dropped: it has pointers to [`Found`], the relations that a command names (`pg/found.rs`), and its lists wait in
//! variables of the session. A list that a failed command has left is replaced by the next one.

#![allow(unsafe_code)]

use super::relations::alter;
use super::watcher::{WATCHER, Watcher};
use crate::pg::altered::Changed;
use crate::pg::found::{self, Found};
use crate::pg::local::local;
use crate::pg::system::{self, Shared};
use pgrx::prelude::*;
use std::cell::RefCell;

/// The report that must follow a command.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) enum Afterwards {
    Nothing,
    /// The command has ended a prepared transaction.
    Ended,
    /// The command has begun a transaction block, or has set the isolation level of a transaction that had begun.
    Began,
    /// The command was a GRANT or REVOKE on the objects in [`GRANTED`].
    Granted,
    /// The command was a GRANT or REVOKE on all tables in these schemas.
    GrantedIn(*mut Found),
    /// The command was a DROP OWNED or REASSIGN OWNED of the roles in [`OWNERS`].
    Disowned,
    /// The command has changed relations, and may have found other ones by their names than the hook did before it.
    Altered(*mut Found),
    /// The command has given the relations of the first list other parents, or has created them with parents. The second list is
    /// that of [`Altered`](Self::Altered); null if there is none.
    Moved(*mut Found, *mut Found),
}

local! {
    /// The shared objects that the running GRANT or REVOKE names. The command may free the statement.
    static GRANTED: RefCell<Vec<(Shared, u32)>> = RefCell::new(Vec::new());
    /// The roles that the running DROP OWNED or REASSIGN OWNED names.
    static OWNERS: RefCell<Vec<u32>> = RefCell::new(Vec::new());
}

impl Afterwards {
    /// Returns the report that must follow a GRANT or REVOKE on these shared objects.
    pub(super) fn granted(objects: Vec<(Shared, u32)>) -> Self {
        GRANTED.replace(objects);
        Self::Granted
    }

    /// Returns the report that must follow a DROP OWNED or REASSIGN OWNED of these roles.
    pub(super) fn disowned(owners: Vec<u32>) -> Self {
        OWNERS.replace(owners);
        Self::Disowned
    }
}

/// Makes the report that must follow a command. It is not called if the command has failed.
#[inline(never)]
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn after(what: Afterwards) {
    let Some(watcher) = WATCHER.get() else { return };
    // SAFETY: a plain global of this session.
    let has_snapshot = unsafe { pg_sys::FirstSnapshotSet };
    match what {
        Afterwards::Ended => watcher.ended(),
        Afterwards::Began if !has_snapshot => watcher.began(),
        Afterwards::Granted => {
            let mut granted = GRANTED.take().into_iter();
            let has_changed = granted.any(|(kind, oid)| system::has_changed_privileges(kind, oid));
            has_changed.then(|| watcher.defining(Changed::Roles));
        }
        Afterwards::GrantedIn(found) => {
            // SAFETY: `grant` has made it for this command.
            let schemas = unsafe { found::take(found) };
            let tables = schemas.into_iter().flat_map(system::tables_in);
            tables.for_each(|oid| alter(Some(oid)));
        }
        // SAFETY: `before` has made it for this command.
        Afterwards::Altered(found) => unsafe { check_names(*watcher, found) },
        Afterwards::Moved(moved, altered) => {
            if !altered.is_null() {
                // SAFETY: as above.
                unsafe { check_names(*watcher, altered) };
            }
            // SAFETY: as above.
            let moved = unsafe { found::find_again(moved) };
            moved.into_iter().for_each(|relation| watcher.moved(relation));
        }
        Afterwards::Disowned => {
            let had_anything = OWNERS.take().into_iter().any(system::had_anything);
            had_anything.then(|| watcher.defining(Changed::Roles));
        }
        _ => {}
    }
}

/// Reports a change of definitions, unless the names of the relations that a command has changed still stand for the same
/// relations. `found` must be from `before`.
unsafe fn check_names(watcher: &dyn Watcher, found: *mut Found) {
    // SAFETY: as the caller promises.
    if !unsafe { found::are_same(found) } {
        watcher.defining(Changed::Other);
    }
}
