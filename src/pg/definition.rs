//! Reports changes of definitions where the server makes them, in the object access hook, whether a command or C code makes them.
//! `command.rs` sees only commands, but an extension may create objects, a command may create further objects along with its own,
//! and dropping an object drops its dependents. The hook in turn does not see all changes: GRANT does not call it, for instance, so
//! `command.rs` reports those by command.
//!
//! The server also reports changes that leave every result as it is, sometimes in the middle of commands: indexes, temporary
//! tables, the transient table that a rewrite of a table uses, settings and passwords of roles. The decision depends on the changed
//! object, not on the command around it, because any command may call any function.
//!
//! Most calls of the hook announce that a function is about to be called. `function.rs` notes these.

#![allow(unsafe_code)]

use super::catalog;
use super::function;
use super::relation;
use super::system::{self, CLASSES, Class, ROLES, TYPES, Type, When, prefix};
use pgrx::prelude::*;
#[cfg(debug_assertions)]
use std::ffi::CStr;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

/// The extent of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Definitions of this database.
    Definitions,
    /// Definitions that concern all databases: a change of roles or memberships, or a direct write to a catalog in [`SHARED`].
    Roles,
    /// The extension pg_cache is dropped in this database.
    Extension,
}

/// Called in the command that changes definitions, once for each change. May raise errors.
type Report = fn(Changed);

static REPORT: OnceLock<Report> = OnceLock::new();
/// The hook that was installed before ours, if any.
static mut PREVIOUS: pg_sys::object_access_hook_type = None;

// OIDs of catalogs.
const RELATIONS: u32 = CLASSES.oid();
const OF_TYPES: u32 = TYPES.oid();
/// `pg_namespace`
const SCHEMAS: u32 = 2615;
const OF_ROLES: u32 = ROLES.oid();
/// `pg_auth_members`
const MEMBERSHIPS: u32 = 1261;
/// `pg_policy`
const POLICIES: u32 = 3256;
/// `pg_inherits`: which table inherits from which. The server reports a change with the OID of the child.
const INHERITANCE: u32 = 2611;
/// `pg_extension`
const EXTENSIONS: u32 = 3079;

/// Catalogs whose changes alter no result of a query, as far as the hook reports them. In this order: defaults, constraints,
/// indexes, triggers; extended statistics; large objects and their owners; subscriptions; publications with their tables and
/// schemas; event triggers; databases and tablespaces; settings of roles and databases. (`command.rs` reports new names, owners and
/// privileges of databases and tablespaces.)
const HARMLESS: [u32; 15] =
    [2604, 2606, 2610, 2620, 3381, 2613, 2995, 6100, 6104, 6106, 6237, 3466, 1262, 1213, 2964];

/// Catalogs that all databases share and that decide about privileges. In this order: roles, memberships, databases with their
/// owners and privileges, tablespaces, privileges on settings.
const SHARED: [u32; 5] = [OF_ROLES, MEMBERSHIPS, 1262, 1213, 6243];

/// The prefix of the name of the transient table that a rewrite of a table uses.
const TRANSIENT: &[u8] = b"pg_temp_";

/// Installs the hook and calls `report` from now on. Must be called while the server loads the library.
pub fn watch(report: Report) {
    if REPORT.set(report).is_ok() {
        // SAFETY: the postmaster runs this alone, before it has children. Our hook calls the previous hook.
        unsafe {
            PREVIOUS = pg_sys::object_access_hook;
            pg_sys::object_access_hook = Some(access);
        }
    }
}

/// The hook has no guard, so that errors of the previous hook pass through unchanged. No value on this stack needs to be dropped.
#[allow(ffi_unwind_calls)]
unsafe extern "C-unwind" fn access(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: c_int,
    argument: *mut c_void,
) {
    use pg_sys::ObjectAccessType::*;
    // SAFETY: the previous hook is called as the server would call it.
    unsafe {
        if let Some(previous) = PREVIOUS {
            previous(access, class, object, part, argument);
        }
        match access {
            OAT_FUNCTION_EXECUTE => function::note_call(object.to_u32()),
            OAT_POST_CREATE | OAT_DROP | OAT_POST_ALTER => changed(access, class, object, argument),
            _ => {}
        }
    }
}

/// Reports a created, altered or dropped object, if that may alter the result of a query. `class` is the OID of its catalog, and
/// `object` its OID.
#[inline(never)]
#[pg_guard]
unsafe extern "C-unwind" fn changed(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    argument: *const c_void,
) {
    use pg_sys::ObjectAccessType::*;
    let Some(report) = REPORT.get() else { return };
    // SAFETY: the server passes an argument of this type with each kind of access.
    let is_internal = unsafe {
        match access {
            OAT_POST_CREATE => (*argument.cast::<pg_sys::ObjectAccessPostCreate>()).is_internal,
            OAT_POST_ALTER => (*argument.cast::<pg_sys::ObjectAccessPostAlter>()).is_internal,
            _ => {
                let flags = (*argument.cast::<pg_sys::ObjectAccessDrop>()).dropflags;
                flags & pg_sys::PERFORM_DELETION_INTERNAL as c_int != 0
            }
        }
    };
    let class = class.to_u32();
    let defines = match class {
        _ if HARMLESS.contains(&class) => false,
        // A new schema contains no objects yet.
        SCHEMAS => access != OAT_POST_CREATE,
        // An internal change gives the relation new files, or renames a toast table.
        RELATIONS if is_internal && access == OAT_POST_ALTER => false,
        RELATIONS => relation_defines(object, is_internal),
        INHERITANCE => relation_defines(object, false),
        OF_TYPES => type_defines(object),
        OF_ROLES => role_defines(object),
        POLICIES => policy_defines(object),
        _ => true,
    };
    if defines {
        report(match class {
            OF_ROLES | MEMBERSHIPS => Changed::Roles,
            EXTENSIONS if access == OAT_DROP && catalog::extension() == Some(object.to_u32()) => {
                Changed::Extension
            }
            _ => Changed::Definitions,
        });
    }
}

/// Reports a plan or COPY that is about to write to a relation, if the relation is a catalog that all databases share. Locks cannot
/// show such a write, because commands that leave every result as it is lock these catalogs in the same way.
pub fn catalog_written(catalog: u32) {
    if SHARED.contains(&catalog)
        && let Some(report) = REPORT.get()
    {
        report(Changed::Roles);
    }
}

/// Returns whether a change of a role may change a result: any change except that of its password and the password's expiry.
fn role_defines(oid: pg_sys::Oid) -> bool {
    let read = |row: &pg_sys::FormData_pg_authid| {
        let flags = [row.rolsuper, row.rolinherit, row.rolcreaterole, row.rolcreatedb, row.rolcanlogin];
        (flags, row.rolreplication, row.rolbypassrls, row.rolconnlimit, row.rolname.data)
    };
    let [before, now] =
        [When::BeforeUs, When::AsWritten].map(|when| system::row(&ROLES, oid.to_u32(), when, read));
    before.is_none() || before != now
}

/// The first columns of a row of `pg_policy`: the policy's OID, its name, and the OID of its table.
#[derive(Clone, Copy)]
#[repr(C)]
struct Policy {
    oid: pg_sys::Oid,
    name: pg_sys::NameData,
    table: pg_sys::Oid,
}

/// Returns whether a change of a policy matters. A policy of a temporary table affects no other session.
fn policy_defines(oid: pg_sys::Oid) -> bool {
    // SAFETY: the numbers of pg_policy and of the index of its first column; a row of pg_policy begins with these columns.
    const BY_OID: system::Catalog<Policy> =
        unsafe { system::Catalog::new(POLICIES, 3257, 1, prefix::<Policy>) };
    let table = |row: &Policy| row.table.to_u32();
    let found = [When::AsWritten, When::BeforeUs]
        .iter()
        .find_map(|when| system::row(&BY_OID, oid.to_u32(), *when, table));
    !found.is_some_and(relation::is_temporary)
}

/// Returns whether a change of a relation matters: not that of an index, a TOAST table, a temporary or a transient table. True if
/// the relation has no row in `pg_class`. `is_internal` says whether the server made the change as a part of another one.
fn relation_defines(oid: pg_sys::Oid, is_internal: bool) -> bool {
    let defines = |row: &Class| {
        let is_part = [pg_sys::RELKIND_INDEX, pg_sys::RELKIND_PARTITIONED_INDEX, pg_sys::RELKIND_TOASTVALUE]
            .contains(&row.relkind);
        let is_temporary = row.relpersistence == pg_sys::RELPERSISTENCE_TEMP;
        let is_transient = is_internal && row.name().starts_with(TRANSIENT);
        !is_part && !is_temporary && !is_transient
    };
    system::row(&CLASSES, oid.to_u32(), When::AsWritten, defines).unwrap_or(true)
}

/// Returns whether a change of a type matters. The row type of a table comes and goes with the table, and an array type with the
/// type of its elements.
fn type_defines(oid: pg_sys::Oid) -> bool {
    let defines = |row: &Type| {
        let is_array = row.typelem != pg_sys::InvalidOid && row.typcategory == pg_sys::TYPCATEGORY_ARRAY;
        row.typrelid == pg_sys::InvalidOid && !is_array
    };
    system::row(&TYPES, oid.to_u32(), When::AsWritten, defines).unwrap_or(true)
}

/// Renames a relation from C, as an extension may do. For tests, in debug builds only: `CREATE FUNCTION … AS '$libdir/pg_cache',
/// 'rename_in_c_wrapper'`.
#[cfg(debug_assertions)]
#[pg_extern(sql = false)]
fn rename_in_c(relation: pg_sys::Oid, name: &CStr) {
    // SAFETY: calls the server's own function, which locks the relation and checks the name.
    unsafe { pg_sys::RenameRelationInternal(relation, name.as_ptr(), false, false) };
}
