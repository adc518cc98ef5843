//! Reports changes of *definitions*, on which the meaning of queries depends: relations, functions, types, schemas, roles and the
//! like. It sees them where the server makes them, in the object access hook, whether a command or C code makes them. `command/`
//! sees only commands, but an extension may create objects, a command may create further objects along with its own, and dropping
//! an object drops its dependents. The hook in turn does not see all changes: GRANT does not call it, for instance, so `command/`
//! reports those by command.
//!
//! The server also reports changes that leave every result as it is, sometimes in the middle of commands: indexes, temporary
//! tables, the transient table that a rewrite of a table uses, settings and passwords of roles. The decision depends on the changed
//! object, not on the command around it, because any command may call any function.
//!
//! Most calls of the hook announce that a function is about to be called. `function.rs` notes these.

#![allow(unsafe_code)]

use super::altered::{self, Changed, How, Report};
use super::catalog;
use super::function;
use super::system::{self, CLASSES, FUNCTIONS, POLICIES, ROLES, RULES, SCHEMAS, TYPES, When};
use pgrx::prelude::*;
#[cfg(debug_assertions)]
use std::ffi::CStr;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

static REPORT: OnceLock<Report> = OnceLock::new();
/// The hook that was installed before ours, if any.
static mut PREVIOUS: pg_sys::object_access_hook_type = None;

// OIDs of catalogs.
const OF_RELATIONS: u32 = CLASSES.oid();
const OF_TYPES: u32 = TYPES.oid();
const OF_FUNCTIONS: u32 = FUNCTIONS.oid();
const OF_SCHEMAS: u32 = SCHEMAS.oid();
const OF_ROLES: u32 = ROLES.oid();
const OF_POLICIES: u32 = POLICIES.oid();
const OF_RULES: u32 = RULES.oid();
/// `pg_auth_members`
const MEMBERSHIPS: u32 = 1261;
/// `pg_inherits`: which table inherits from which. The server reports a change with the OID of the child, and that of the parent as
/// its argument.
const INHERITANCE: u32 = 2611;
/// `pg_foreign_table`: options of foreign tables, by the OID of the relation.
const FOREIGN_TABLES: u32 = 3118;
/// `pg_depend`
const DEPENDENCIES: u32 = 2608;
/// `pg_extension`
const EXTENSIONS: u32 = 3079;

/// Catalogs whose changes alter no result of a query, as far as the hook reports them. In this order: defaults, constraints,
/// indexes, triggers; extended statistics; default privileges, which concern only later objects; large objects and their owners;
/// subscriptions; publications with their tables and schemas; event triggers; databases and tablespaces; settings of roles and
/// databases. (`command/` reports new names, owners and privileges of databases and tablespaces.)
const HARMLESS: [u32; 16] =
    [2604, 2606, 2610, 2620, 3381, 826, 2613, 2995, 6100, 6104, 6106, 6237, 3466, 1262, 1213, 2964];

/// Catalogs that all databases share and that decide about privileges. In this order: roles, memberships, databases with their
/// owners and privileges, tablespaces, privileges on settings.
const SHARED: [u32; 5] = [OF_ROLES, MEMBERSHIPS, 1262, 1213, 6243];

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
            OAT_POST_CREATE | OAT_DROP | OAT_POST_ALTER => {
                changed(access, class, object, part, argument);
            }
            _ => {}
        }
    }
}

/// Reports the definitions that a created, altered or dropped object changes. `class` is the OID of its catalog, `object` its OID,
/// and `part` the number of a column of a relation, or 0.
#[inline(never)]
#[pg_guard]
unsafe extern "C-unwind" fn changed(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: c_int,
    argument: *const c_void,
) {
    use pg_sys::ObjectAccessType::*;
    if REPORT.get().is_none() {
        return;
    }
    // SAFETY: the server passes an argument of this type with each kind of access.
    let (how, is_internal, other) = unsafe {
        match access {
            OAT_POST_CREATE => {
                let argument = &*argument.cast::<pg_sys::ObjectAccessPostCreate>();
                (How::Created, argument.is_internal, 0)
            }
            OAT_POST_ALTER => {
                let argument = &*argument.cast::<pg_sys::ObjectAccessPostAlter>();
                (How::Altered, argument.is_internal, argument.auxiliary_id.to_u32())
            }
            _ => {
                let flags = (*argument.cast::<pg_sys::ObjectAccessDrop>()).dropflags;
                (How::Dropped, flags & pg_sys::PERFORM_DELETION_INTERNAL as c_int != 0, 0)
            }
        }
    };
    let oid = object.to_u32();
    match class.to_u32() {
        class if HARMLESS.contains(&class) => {}
        // An internal change gives the relation new files, or renames a toast table.
        OF_RELATIONS if is_internal && how == How::Altered => {}
        OF_RELATIONS => altered::relation(oid, part, how, is_internal, report),
        FOREIGN_TABLES => altered::relation(oid, 0, How::Altered, false, report),
        INHERITANCE => altered::inheritance(oid, other, report),
        OF_POLICIES => altered::rule(&POLICIES, oid, report),
        OF_RULES => altered::rule(&RULES, oid, report),
        OF_TYPES => altered::of_type(oid, how, report),
        OF_FUNCTIONS => altered::function(oid, how, report),
        OF_SCHEMAS => altered::schema(oid, report),
        // No result depends on a new role. `command/` reports its members.
        OF_ROLES if how == How::Created || how == How::Altered && !role_defines(oid) => {}
        // A role that is dropped has no privileges of its own. Its members lose those of the roles that it was a member of.
        OF_ROLES if how == How::Dropped && !system::had_members(oid) => {}
        OF_ROLES | MEMBERSHIPS => report(Changed::Roles),
        // The objects of an extension are reported by themselves.
        EXTENSIONS if how != How::Dropped || catalog::extension() != Some(oid) => {}
        EXTENSIONS => report(Changed::Extension),
        _ => report(Changed::Other),
    }
}

/// Reports a changed definition. May raise errors.
pub fn report(changed: Changed<'_>) {
    if let Some(report) = REPORT.get() {
        report(changed);
    }
}

/// Reports a plan or COPY that is about to write to a relation, if the relation is a catalog whose locks cannot show such a write:
/// commands that leave every result as it is lock it in the same way (`REPORTED` in `relation.rs`).
pub fn catalog_written(catalog: u32) {
    match catalog {
        OF_FUNCTIONS | OF_SCHEMAS | DEPENDENCIES => report(Changed::Other),
        _ if SHARED.contains(&catalog) => report(Changed::Roles),
        _ => {}
    }
}

/// Returns whether an altered role may change a result: by any change except that of its password and the password's expiry, unless
/// this transaction has created the role.
fn role_defines(oid: u32) -> bool {
    let read = |row: &pg_sys::FormData_pg_authid| {
        let flags = [row.rolsuper, row.rolinherit, row.rolcreaterole, row.rolcreatedb, row.rolcanlogin];
        (flags, row.rolreplication, row.rolbypassrls, row.rolconnlimit, row.rolname.data)
    };
    let [before, now] = [When::BeforeUs, When::AsWritten].map(|when| system::row(&ROLES, oid, when, read));
    before.is_some() && before != now
}

/// Renames a relation from C, as an extension may do. For tests, in debug builds only: `CREATE FUNCTION … AS '$libdir/pg_cache',
/// 'rename_in_c_wrapper'`.
#[cfg(debug_assertions)]
#[pg_extern(sql = false)]
fn rename_in_c(relation: pg_sys::Oid, name: &CStr) {
    // SAFETY: calls the server's own function, which locks the relation and checks the name.
    unsafe { pg_sys::RenameRelationInternal(relation, name.as_ptr(), false, false) };
}
