//! Changes of definitions, seen where the server makes them, by whatever command or C code: an extension may create objects, a command
//! may create others along with its own, and a dropped object takes its dependents with it (`command.rs` sees commands only).
//!
//! The server reports more than that, also in the middle of commands that leave every result as it is: indexes, temporary tables, the
//! table by way of which another is rewritten, settings and passwords of roles. What is reported decides, and not the command that it is
//! a part of, because any command may call any function.
//!
//! Most reports are calls of functions, which costs one comparison each.

#![allow(unsafe_code)]

use super::function;
use super::relation;
use super::system::{self, CLASSES, Class, ROLES, TYPES, Type, When, prefix};
use pgrx::prelude::*;
#[cfg(debug_assertions)]
use std::ffi::CStr;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

/// Called when names or rules have changed: who may do what in the cluster among them, or not. May raise errors.
type Tell = fn(roles: bool);

static TELL: OnceLock<Tell> = OnceLock::new();
static mut PREVIOUS: pg_sys::object_access_hook_type = None;

const RELATIONS: u32 = CLASSES.number();
const OF_TYPES: u32 = TYPES.number();
const SCHEMAS: u32 = 2615;
const OF_ROLES: u32 = ROLES.number();
const MEMBERSHIPS: u32 = 1261;
const POLICIES: u32 = 3256;
/// Which table inherits from which. It is reported by the child.
const INHERITANCE: u32 = 2611;

/// Catalogs of what a query can neither name nor be given another result by: defaults, constraints, indexes and triggers; statistics;
/// large objects; publications and subscriptions; event triggers; databases and tablespaces; settings of roles and databases.
const HARMLESS: [u32; 15] =
    [2604, 2606, 2610, 2620, 3381, 2613, 2995, 6100, 6104, 6106, 6237, 3466, 1262, 1213, 2964];

/// Catalogs that all databases share, and that decide who may do what: roles, memberships, databases with their owners and privileges,
/// tablespaces, privileges on settings.
const SHARED: [u32; 5] = [OF_ROLES, MEMBERSHIPS, 1262, 1213, 6243];

/// The name of the table by way of which another is rewritten begins with this.
const TRANSIENT: &[u8] = b"pg_temp_";

/// Tells from now on. To be called while the server loads us.
pub fn watch(tell: Tell) {
    if TELL.set(tell).is_ok() {
        // SAFETY: the postmaster runs this alone, before it has children. Whoever was hooked before is called by us.
        unsafe {
            PREVIOUS = pg_sys::object_access_hook;
            pg_sys::object_access_hook = Some(access);
        }
    }
}

/// Without a guard, so that an error of whoever was hooked before passes as it is: nothing on this stack is to be dropped.
#[allow(ffi_unwind_calls)]
unsafe extern "C-unwind" fn access(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: c_int,
    argument: *mut c_void,
) {
    use pg_sys::ObjectAccessType::*;
    // SAFETY: as the server would call it.
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

#[inline(never)]
#[pg_guard]
unsafe extern "C-unwind" fn changed(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    argument: *const c_void,
) {
    use pg_sys::ObjectAccessType::*;
    let Some(tell) = TELL.get() else { return };
    // SAFETY: what the server passes along with each of these.
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
        // There is nothing in a new one yet.
        SCHEMAS => access != OAT_POST_CREATE,
        // It is given other files, or a toast table another name.
        RELATIONS if is_internal && access == OAT_POST_ALTER => false,
        RELATIONS => relation_defines(object, is_internal),
        INHERITANCE => relation_defines(object, false),
        OF_TYPES => type_defines(object),
        OF_ROLES => role_defines(object),
        POLICIES => policy_defines(object),
        _ => true,
    };
    if defines {
        tell([OF_ROLES, MEMBERSHIPS].contains(&class));
    }
}

/// A plan or COPY that writes to a relation is about to run. If it is a catalog that all databases share, this is the only sign of it:
/// commands that leave every result as it is lock these catalogs in the same way.
pub fn catalog_written(catalog: u32) {
    if SHARED.contains(&catalog)
        && let Some(tell) = TELL.get()
    {
        tell(true);
    }
}

/// Whether a change of a role may change a result: everything but its password, and until when that is valid.
fn role_defines(number: pg_sys::Oid) -> bool {
    let read = |row: &pg_sys::FormData_pg_authid| {
        let flags = [row.rolsuper, row.rolinherit, row.rolcreaterole, row.rolcreatedb, row.rolcanlogin];
        (flags, row.rolreplication, row.rolbypassrls, row.rolconnlimit, row.rolname.data)
    };
    let [before, now] =
        [When::BeforeUs, When::AsWritten].map(|when| system::row(&ROLES, number.to_u32(), when, read));
    before.is_none() || before != now
}

/// A policy begins with its own number, its name, and the number of its table.
#[derive(Clone, Copy)]
#[repr(C)]
struct Policy {
    number: pg_sys::Oid,
    name: pg_sys::NameData,
    table: pg_sys::Oid,
}

/// A policy of a temporary table decides nothing for other sessions.
fn policy_defines(number: pg_sys::Oid) -> bool {
    // SAFETY: pg_policy and the index of its first column; a row begins with these columns.
    const BY_NUMBER: system::Catalog<Policy> =
        unsafe { system::Catalog::new(POLICIES, 3257, 1, prefix::<Policy>) };
    let table = |row: &Policy| row.table.to_u32();
    let found = [When::AsWritten, When::BeforeUs]
        .iter()
        .find_map(|when| system::row(&BY_NUMBER, number.to_u32(), *when, table));
    !found.is_some_and(relation::is_temporary)
}

fn relation_defines(number: pg_sys::Oid, is_internal: bool) -> bool {
    let defines = |row: &Class| {
        let is_part = [pg_sys::RELKIND_INDEX, pg_sys::RELKIND_PARTITIONED_INDEX, pg_sys::RELKIND_TOASTVALUE]
            .contains(&row.relkind);
        let is_temporary = row.relpersistence == pg_sys::RELPERSISTENCE_TEMP;
        let is_transient = is_internal && row.name().starts_with(TRANSIENT);
        !is_part && !is_temporary && !is_transient
    };
    system::row(&CLASSES, number.to_u32(), When::AsWritten, defines).unwrap_or(true)
}

/// The type of a table's rows comes and goes with the table, and that of arrays with the type of their elements.
fn type_defines(number: pg_sys::Oid) -> bool {
    let defines = |row: &Type| {
        let is_array = row.typelem != pg_sys::InvalidOid && row.typcategory == pg_sys::TYPCATEGORY_ARRAY;
        row.typrelid == pg_sys::InvalidOid && !is_array
    };
    system::row(&TYPES, number.to_u32(), When::AsWritten, defines).unwrap_or(true)
}

/// What an extension may do in C, for tests, in their builds only: `CREATE FUNCTION … AS '$libdir/pg_cache', 'rename_in_c_wrapper'`.
#[cfg(debug_assertions)]
#[pg_extern(sql = false)]
fn rename_in_c(relation: pg_sys::Oid, name: &CStr) {
    // SAFETY: the server's own function, which locks the relation and checks the name.
    unsafe { pg_sys::RenameRelationInternal(relation, name.as_ptr(), false, false) };
}
