//! Commands about roles and privileges: a change of these can change the rows that a query of a role returns, so it invalidates
//! stored results like a change of a definition. The functions here run before the command. They report to the [`Watcher`]
//! (`watcher.rs`), or return the report that must wait until the command has succeeded ([`Afterwards`], `afterwards.rs`).

#![allow(unsafe_code)]

use super::afterwards::Afterwards;
use super::lists::{names, nodes};
use super::relations::alter;
use super::watcher::Watcher;
use crate::pg::altered::{self, Changed, How};
use crate::pg::found;
use crate::pg::system::Shared;
use crate::pg::{definition, memory, relation};
use pgrx::prelude::*;
use std::ffi::CStr;

/// Returns whether objects of this kind are shared by all databases.
pub(super) fn is_shared(kind: pg_sys::ObjectType::Type) -> bool {
    use pg_sys::ObjectType::*;
    [OBJECT_ROLE, OBJECT_DATABASE, OBJECT_TABLESPACE, OBJECT_PARAMETER_ACL].contains(&kind)
}

/// Reports a change of definitions that concerns all databases, if the options of a role give it members, or take members from it.
pub(super) unsafe fn define_members(watcher: &dyn Watcher, options: *const pg_sys::List) {
    // SAFETY: as the caller promises.
    if unsafe { names(options) }.any(|name| name == c"rolemembers" || name == c"adminmembers") {
        watcher.defining(Changed::Roles);
    }
}

/// Reports granted or revoked privileges, except those on temporary tables, which `altered.rs` leaves out. A change of privileges
/// on a database or a tablespace invalidates results in all databases. So these privileges are compared after the command, and
/// reported only if they have changed: a GRANT of a role without the right to grant may change nothing.
pub(super) unsafe fn grant(watcher: &dyn Watcher, statement: &pg_sys::GrantStmt) -> Afterwards {
    use pg_sys::ObjectType::*;
    let kind = statement.objtype;
    let by_name = statement.targtype == pg_sys::GrantTargetType::ACL_TARGET_OBJECT;
    let shared = match kind {
        OBJECT_DATABASE => Some(Shared::Database),
        OBJECT_TABLESPACE => Some(Shared::Tablespace),
        _ => None,
    };
    // SAFETY: a parsed statement: tables and sequences that are named one by one are a list of names, functions a list of names
    // with arguments, databases, tablespaces and schemas a list of strings.
    unsafe {
        if let Some(shared) = shared.filter(|_| by_name) {
            let mut granted = Vec::new();
            for object in nodes::<pg_sys::String>(statement.objects) {
                let oid = match shared {
                    Shared::Database => pg_sys::get_database_oid((*object).sval, true),
                    Shared::Tablespace => pg_sys::get_tablespace_oid((*object).sval, true),
                };
                memory::push(&mut granted, (shared, oid.to_u32()));
            }
            return Afterwards::granted(granted);
        }
        let in_schemas = statement.targtype == pg_sys::GrantTargetType::ACL_TARGET_ALL_IN_SCHEMA;
        match kind {
            OBJECT_TABLE | OBJECT_SEQUENCE if by_name => {
                let names = || nodes::<pg_sys::RangeVar>(statement.objects);
                // While the command waits for a lock, another session may give a name to another table. So the names are looked up
                // again after the command (`found.rs`).
                names().for_each(|name| alter(relation::find(name)));
                let found = names().filter_map(|name| Some((name, relation::find(name)?)));
                return Afterwards::Altered(found::remember(found));
            }
            // The tables are listed and reported after the command, because another session may be adding tables to the schemas.
            OBJECT_TABLE if in_schemas => {
                let oid = |schema: *const pg_sys::String| {
                    (schema, pg_sys::get_namespace_oid((*schema).sval, true).to_u32())
                };
                let schemas = nodes::<pg_sys::String>(statement.objects).map(oid);
                return Afterwards::GrantedIn(found::remember(schemas));
            }
            OBJECT_SCHEMA if by_name => {
                for name in nodes::<pg_sys::String>(statement.objects) {
                    watcher.defining(Changed::Name(CStr::from_ptr((*name).sval).to_bytes()));
                }
            }
            OBJECT_FUNCTION | OBJECT_PROCEDURE | OBJECT_ROUTINE if by_name => {
                for name in nodes::<pg_sys::ObjectWithArgs>(statement.objects) {
                    let function = pg_sys::LookupFuncWithArgs(kind, name.cast_mut(), true).to_u32();
                    altered::function(function, How::Altered, definition::report);
                }
            }
            _ if is_shared(kind) => watcher.defining(Changed::Roles),
            _ => watcher.defining(Changed::Other),
        }
    }
    Afterwards::Nothing
}

/// Notes the roles of a DROP OWNED or REASSIGN OWNED, and returns the report that follows the command: a change of roles, if one of
/// these roles owned anything or had been granted anything.
pub(super) unsafe fn note_owners(roles: *const pg_sys::List) -> Afterwards {
    let mut owners = Vec::new();
    // SAFETY: a parsed statement: a list of names of roles.
    for role in unsafe { nodes::<pg_sys::RoleSpec>(roles) } {
        // SAFETY: as above. If a role does not exist, the command itself raises the error.
        memory::push(&mut owners, unsafe { pg_sys::get_rolespec_oid(role, true) }.to_u32());
    }
    Afterwards::disowned(owners)
}
