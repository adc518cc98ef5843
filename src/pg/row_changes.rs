//! Tells in which tables the transaction has changed rows, by the server's own counters.
//!
//! A write lock alone does not mean that rows have changed: `UPDATE … WHERE false` and `INSERT … ON CONFLICT DO NOTHING` take one,
//! too. The access method `heap` counts each row that it inserts, updates or deletes for the executor, COPY, C code, or logical
//! replication. These counters belong to the cumulative statistics system, which keeps them for each transaction until its end. It
//! has a stack of levels, one for each savepoint, and each level has a list of the tables that were counted in it. Releasing a
//! savepoint moves its tables to the level below; rolling it back removes them.
//!
//! The list is complete only if `track_counts` has been on since the transaction began, without interruption. The setting may
//! change at any moment, also inside of a function. So this file installs an assign hook for it.
//!
//! Two other ways to read the counters do not work. `find_tabstat_entry` returns a copy without them since PostgreSQL 16, and
//! `pgstat_fetch_pending_entry` returns a structure to which minor releases have added a field.

#![allow(unsafe_code)]

use super::local::{check_thread, local};
use super::memory;
use super::{environment, transaction};
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};

unsafe extern "C-unwind" {
    /// Returns the level of the statistics with this depth of savepoints. Creates a missing level, so it may raise an error.
    fn pgstat_get_xact_stack_level(nest_level: c_int) -> *mut Level;
}

/// A level of the transaction's statistics: `PgStat_SubXactStatus` of the server. It has this layout in all versions that we
/// support: since PostgreSQL 16, `drops` and `drops_count` are one field with the same two parts.
#[repr(C)]
struct Level {
    nest_level: c_int,
    /// The level of the savepoint around this one.
    previous: *const Level,
    drops: pg_sys::dlist_head,
    drops_count: c_int,
    /// The first table that was counted in this level.
    first: *const pg_sys::PgStat_TableXactStatus,
}

/// Returns the first table that was counted in a level, or null. `level` must be null or a level.
#[inline]
unsafe fn first_of(level: *const Level) -> *const pg_sys::PgStat_TableXactStatus {
    // SAFETY: as the caller promises.
    if level.is_null() { std::ptr::null() } else { unsafe { (*level).first } }
}

/// Returns the OID of the table that was counted.
#[inline]
fn table_of(counted: &pg_sys::PgStat_TableXactStatus) -> u32 {
    // SAFETY: the counts of a table have a parent, which says which table it is.
    unsafe {
        #[cfg(feature = "pg15")]
        let oid = (*counted.parent).t_id;
        #[cfg(not(feature = "pg15"))]
        let oid = (*counted.parent).id;
        oid.to_u32()
    }
}

/// The counters of the transaction. They are valid until the savepoint ends in which they were found.
#[derive(Clone, Copy, Debug)]
pub struct Counters(*const Level);

impl Counters {
    /// Counters that have counted nothing.
    pub const NONE: Self = Self(std::ptr::null());

    /// Finds the counters of the transaction. Must be called only if the transaction has written something, because it creates a
    /// missing level. The counters also show changes that are counted later in the same savepoint. Returns None if they are not
    /// complete. May raise errors.
    #[inline]
    pub fn find() -> Option<Self> {
        // SAFETY: the guard turns an error of the server into a panic.
        are_complete()
            .then(|| unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| Self::at_depth(transaction::depth())) })
    }

    /// Does the same as [`find`](Self::find), without pgrx's guard.
    ///
    /// # Safety
    /// An error of the server passes the caller as a longjmp: no value may need to be dropped in any frame between this one and the
    /// server's.
    #[inline]
    pub unsafe fn find_unguarded() -> Option<Self> {
        // SAFETY: as the caller promises.
        are_complete().then(|| unsafe { Self::at_depth(transaction::depth()) })
    }

    /// # Safety
    /// As for [`find_unguarded`](Self::find_unguarded), unless the call is guarded.
    #[inline]
    #[allow(ffi_unwind_calls)]
    unsafe fn at_depth(depth: c_int) -> Self {
        // SAFETY: called within a transaction, with its depth of savepoints, as the server does itself when it counts a row. A
        // level that is made here ends with its savepoint, like all others.
        Self(unsafe { pgstat_get_xact_stack_level(depth) })
    }

    /// Returns the tables for which changed rows were counted. A table may occur several times. Cannot fail.
    #[inline]
    pub fn relations(self) -> impl Iterator<Item = u32> {
        self.tables().map(table_of)
    }

    /// Returns the counts of all tables. A table may occur several times.
    #[inline]
    fn tables(self) -> impl Iterator<Item = &'static pg_sys::PgStat_TableXactStatus> {
        let mut level = self.0;
        // SAFETY: as the type says, the levels are still there.
        let mut next = unsafe { first_of(level) };
        std::iter::from_fn(move || {
            // SAFETY: as above. The last level and the last table of each list have a null pointer. The caller uses the counts at
            // once.
            unsafe {
                while next.is_null() {
                    if level.is_null() {
                        return None;
                    }
                    level = (*level).previous;
                    next = first_of(level);
                }
                let counted = &*next;
                next = counted.next;
                Some(counted)
            }
        })
    }

    /// Returns the number of old rows and the number of new rows of a table that were counted. An update has an old and a new row,
    /// an insert only a new one, and a delete only an old one. Returns None if the transaction has truncated or dropped the table.
    /// Cannot fail.
    pub fn rows(self, table: u32) -> Option<(u64, u64)> {
        let (mut old, mut new) = (0_i64, 0_i64);
        for counted in self.tables().filter(|counted| table_of(counted) == table) {
            if counted.truncdropped {
                return None;
            }
            old += counted.tuples_updated + counted.tuples_deleted;
            new += counted.tuples_inserted + counted.tuples_updated;
        }
        Some((u64::try_from(old).ok()?, u64::try_from(new).ok()?))
    }

    /// Writes the tables for which changed rows were counted to `found`. May raise errors.
    pub fn list(self, found: &mut Vec<u32>) {
        found.clear();
        self.relations().for_each(|oid| memory::push(found, oid));
    }
}

local! {
    /// Whether the assign hook is installed. Without it, nothing is known about the setting.
    static WATCHED: Cell<bool> = Cell::new(false);
    /// The local ID of the transaction in which the setting was last off, or was switched off or on.
    static LAST_OFF_IN: Cell<u32> = Cell::new(0);
    /// Grows whenever the setting is switched off or on.
    static SWITCHES: Cell<u64> = Cell::new(0);
}

/// The hook that was installed before ours, if any.
static mut PREVIOUS: pg_sys::GucBoolAssignHook = None;

/// Installs the hook. Must be called while the server loads the library.
pub fn hook() {
    const NAME: &CStr = c"track_counts";
    environment::with_settings(|records| {
        for record in records {
            // SAFETY: the server's records of settings, and a record of type bool is the beginning of a `config_bool`. The
            // postmaster runs this alone, before it has children. Records of the server's own settings are never freed.
            unsafe {
                let is_it = CStr::from_ptr((**record).name) == NAME
                    && (**record).vartype == pg_sys::config_type::PGC_BOOL;
                let record = record.cast_mut().cast::<pg_sys::config_bool>();
                if is_it && std::ptr::eq((*record).variable, &raw const pg_sys::pgstat_track_counts) {
                    PREVIOUS = (*record).assign_hook;
                    (*record).assign_hook = Some(assigned);
                    WATCHED.set(true);
                }
            }
        }
    });
}

/// Called when the server is about to assign a value to `track_counts`: on SET, at the end of a function, a savepoint or a
/// transaction that has set it, or when it reads the configuration files again.
#[pg_guard]
#[allow(ffi_unwind_calls)] // An assign hook raises no errors.
unsafe extern "C-unwind" fn assigned(on: bool, extra: *mut c_void) {
    if !on || !is_on() {
        LAST_OFF_IN.set(local_transaction_id());
        SWITCHES.set(switches() + 1);
    }
    // SAFETY: called as the server would call it.
    unsafe { PREVIOUS.into_iter().for_each(|previous| previous(on, extra)) };
}

fn is_on() -> bool {
    // SAFETY: reads a variable of the server.
    unsafe { pg_sys::pgstat_track_counts }
}

/// Returns the local ID of this session's transaction (`lxid`), which also a transaction without a transaction ID has. Returns 0
/// outside of transactions and after the commit. The IDs repeat after 2^32 transactions, which costs at most needless misses.
fn local_transaction_id() -> u32 {
    // SAFETY: reads our own PGPROC, if there is one. Only this process writes the ID.
    unsafe {
        let process = pg_sys::MyProc;
        if process.is_null() {
            return 0;
        }
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        let id = (*process).lxid;
        #[cfg(not(any(feature = "pg15", feature = "pg16")))]
        let id = (*process).vxid.lxid;
        id
    }
}

/// Returns whether the counters are complete: they have every change of a heap table, because `track_counts` has been on since the
/// transaction began, without interruption. Must be called before the transaction has committed.
#[inline]
fn are_complete() -> bool {
    check_thread();
    WATCHED.get() && is_on() && LAST_OFF_IN.get() != local_transaction_id()
}

/// Returns a number that grows whenever the setting is switched off or on. A commit remembers the number when it reads the
/// counters, and reads the counters again after the transaction has become visible. If the number has changed since, they may lack
/// rows. The local ID cannot tell that any more, because the transaction has none then.
#[inline]
pub fn switches() -> u64 {
    SWITCHES.get()
}
