//! Commands about databases: reports which database is about to be dropped, and which database must have no other connections
//! during the command. The watcher then ends the background workers of pg_cache that are connected to it (`watcher.rs`).

#![allow(unsafe_code)]

use super::watcher::Watcher;
use crate::pg::role::Role;
use pgrx::prelude::*;
use std::ffi::CStr;

/// Reports the database that is about to be dropped.
pub(super) unsafe fn drop_database(watcher: &dyn Watcher, statement: &pg_sys::DropdbStmt) {
    // SAFETY: looks up a catalog, by the name from a parsed statement.
    let database = unsafe { pg_sys::get_database_oid(statement.dbname, true) };
    if database != pg_sys::InvalidOid {
        watcher.dropping(database.to_u32());
        if is_owner_of(database) {
            watcher.needs_alone(database.to_u32());
        }
    }
}

/// Reports a database to which no other process may be connected, if the current role owns it.
pub(super) unsafe fn needs_alone(watcher: &dyn Watcher, name: &CStr) {
    // SAFETY: looks up a catalog, by a name that ends with a zero.
    let database = unsafe { pg_sys::get_database_oid(name.as_ptr(), true) };
    if database != pg_sys::InvalidOid && is_owner_of(database) {
        watcher.needs_alone(database.to_u32());
    }
}

/// Reports a database that is about to be copied, as one to which no other process may be connected, if the current role may copy
/// it. Any role with CREATEDB may copy a template database.
pub(super) unsafe fn copies(watcher: &dyn Watcher, name: &CStr) {
    // SAFETY: looks up catalogs, by a name that ends with a zero. Reads the tuple before it is released.
    unsafe {
        let database = pg_sys::get_database_oid(name.as_ptr(), true);
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::DATABASEOID as i32, database.into());
        if tuple.is_null() {
            return;
        }
        let is_template =
            (*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_database>(tuple)).datistemplate;
        pg_sys::ReleaseSysCache(tuple);
        if is_owner_of(database) || is_template && Role::current().may_create_databases() {
            watcher.needs_alone(database.to_u32());
        }
    }
}

/// Returns whether the current role owns a database; superusers own all. The command of another role must not end a worker, because
/// it fails anyway.
fn is_owner_of(database: pg_sys::Oid) -> bool {
    // SAFETY: looks up catalogs.
    #[cfg(feature = "pg15")]
    return unsafe { pg_sys::pg_database_ownercheck(database, pg_sys::GetUserId()) };
    #[cfg(not(feature = "pg15"))]
    // SAFETY: as above.
    return unsafe { pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, database, pg_sys::GetUserId()) };
}
