//! Accepts the catalog invalidations of other sessions, and drops the session's cached plans and catalog data before a query runs
//! whose result may be stored (`query/run.rs`). Otherwise the result could be computed with an outdated plan.

#![allow(unsafe_code)]

use pgrx::pg_sys;

/// Accepts all catalog invalidations that were announced so far. Must be called within a transaction, like all functions here.
pub fn accept_messages() {
    // SAFETY: the server's own function, called within a transaction.
    unsafe { pg_sys::AcceptInvalidationMessages() };
}

/// Drops the session's cached plans, its resolved search path, and its cached role memberships, as PostgreSQL does when schemas and
/// roles change. Running plans are not disturbed.
///
/// Memberships are dropped because PostgreSQL may keep an outdated list of them: it loses a message that arrives while it collects
/// the list.
pub fn forget_catalogs() {
    use pg_sys::SysCacheIdentifier::{AUTHMEMROLEMEM, NAMESPACEOID};
    accept_messages();
    let every_object = 0;
    for cache in [NAMESPACEOID, AUTHMEMROLEMEM] {
        // SAFETY: the server's own function, called within a transaction. It calls the callbacks that an invalidation message would
        // call.
        unsafe { pg_sys::CallSyscacheCallbacks(cache as i32, every_object) };
    }
}
