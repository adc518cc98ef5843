//! The hook in which the server runs utility commands, which are all statements that have no plan. It decides by the kind of a
//! command what to report before the command runs, and which report must follow (`afterwards.rs`). `mod.rs` lists the reports.

#![allow(unsafe_code)]

use super::afterwards::{Afterwards, after};
use super::databases::{copies, drop_database, needs_alone};
use super::kinds::{is_harmless, is_reported_by_definition};
use super::lists::option;
use super::privileges::{define_members, grant, is_shared, note_owners};
use super::relations::{alter, move_parts, moved_parts};
use super::watcher::{WATCHER, Watcher};
use crate::pg::altered::Changed;
#[cfg(debug_assertions)]
use crate::pg::targets;
use crate::pg::{definition, found, function, prepared, relation, transaction};
use pgrx::prelude::*;
use std::ffi::CStr;

/// The hook that was installed before ours, if any.
static mut PREVIOUS: pg_sys::ProcessUtility_hook_type = None;

unsafe extern "C-unwind" {
    /// Called without pgrx, whose guard would rebuild errors and lose their position in the statement.
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const std::ffi::c_char,
        read_only: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        receiver: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// Installs the hook and reports to this watcher from now on. Must be called while the server loads the library.
pub fn watch(watcher: &'static dyn Watcher) {
    if WATCHER.set(watcher).is_ok() {
        // SAFETY: the postmaster runs this alone, before it has children. Our hook calls the previous hook.
        unsafe {
            PREVIOUS = pg_sys::ProcessUtility_hook;
            pg_sys::ProcessUtility_hook = Some(utility);
        }
    }
}

/// The hook has no guard, so that errors of a command pass through unchanged. No value on this stack needs to be dropped, and our
/// own functions have their own guards.
#[allow(ffi_unwind_calls)]
unsafe extern "C-unwind" fn utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const std::ffi::c_char,
    read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: a planned utility statement has a node, and every node begins with its tag. The next function is called as the server
    // would call it. The node is not accessed after that, because the command may have freed it.
    unsafe {
        let node = (*statement).utilityStmt;
        #[cfg(debug_assertions)]
        note_targets(node);
        let afterwards = match by_kind_alone(node) {
            Some(afterwards) => afterwards,
            None => before(node),
        };
        let next = match PREVIOUS {
            Some(previous) => previous,
            None => standard_ProcessUtility,
        };
        next(statement, text, read_only, context, parameters, environment, receiver, completion);
        if afterwards != Afterwards::Nothing {
            after(afterwards);
        }
    }
}

/// Notes the relations that the command names as its targets, for the check of `targets.rs`.
#[cfg(debug_assertions)]
#[pg_guard]
unsafe extern "C-unwind" fn note_targets(node: *const pg_sys::Node) {
    // SAFETY: a parsed statement.
    unsafe { targets::of_command(node) };
}

/// Decides commands whose kind alone says what to report; None for all others. It runs outside of the guard, which would cost more
/// than the rest, so it must not raise an error. `node` must be a statement.
unsafe fn by_kind_alone(node: *const pg_sys::Node) -> Option<Afterwards> {
    use pg_sys::NodeTag::*;
    use pg_sys::TransactionStmtKind::*;
    // SAFETY: every node begins with its tag, which says what it is.
    unsafe {
        match (*node).type_ {
            T_TransactionStmt => match &*node.cast::<pg_sys::TransactionStmt>() {
                begins if matches!(begins.kind, TRANS_STMT_BEGIN | TRANS_STMT_START) => {
                    Some(Afterwards::Began)
                }
                ends => ends.gid.is_null().then_some(Afterwards::Nothing),
            },
            // A table that is created as a partition or child of another one is reported afterwards.
            T_CreateStmt => {
                let is_part = !(*node.cast::<pg_sys::CreateStmt>()).inhRelations.is_null();
                (!is_part).then_some(Afterwards::Nothing)
            }
            tag => (is_harmless(tag) || is_reported_by_definition(tag)).then_some(Afterwards::Nothing),
        }
    }
}

/// Reports what a command is about to do, and returns the report that must follow it. `node` must be a statement.
#[inline(never)]
#[pg_guard]
unsafe extern "C-unwind" fn before(node: *const pg_sys::Node) -> Afterwards {
    use pg_sys::NodeTag::*;
    let Some(watcher) = WATCHER.get() else { return Afterwards::Nothing };
    // SAFETY: every node begins with its tag, which says what it is.
    unsafe {
        match (*node).type_ {
            T_TransactionStmt => return transaction(*watcher, &*node.cast()),
            T_VariableSetStmt => return set_variable(*watcher, &*node.cast()),
            T_GrantRoleStmt => watcher.defining(Changed::Roles),
            T_DropOwnedStmt => return note_owners((*node.cast::<pg_sys::DropOwnedStmt>()).roles),
            T_ReassignOwnedStmt => return note_owners((*node.cast::<pg_sys::ReassignOwnedStmt>()).roles),
            // `definition.rs` sees what has changed in the role itself, but not a change of its members.
            T_CreateRoleStmt => define_members(*watcher, (*node.cast::<pg_sys::CreateRoleStmt>()).options),
            T_AlterRoleStmt => define_members(*watcher, (*node.cast::<pg_sys::AlterRoleStmt>()).options),
            // `definition.rs` sees the other objects.
            T_RenameStmt => {
                let statement = &*node.cast::<pg_sys::RenameStmt>();
                if statement.renameType == pg_sys::ObjectType::OBJECT_DATABASE {
                    needs_alone(*watcher, CStr::from_ptr(statement.subname));
                }
                if is_shared(statement.renameType) {
                    watcher.defining(Changed::Roles);
                }
            }
            T_AlterOwnerStmt => {
                if is_shared((*node.cast::<pg_sys::AlterOwnerStmt>()).objectType) {
                    watcher.defining(Changed::Roles);
                }
            }
            T_GrantStmt => return grant(*watcher, &*node.cast()),
            // A library may act on labels, for instance by another rule for a role.
            T_SecLabelStmt => {
                let is_shared = is_shared((*node.cast::<pg_sys::SecLabelStmt>()).objtype);
                watcher.defining(if is_shared { Changed::Roles } else { Changed::Other });
            }
            T_AlterTableStmt => {
                let statement = &*node.cast::<pg_sys::AlterTableStmt>();
                let altered = relation::find(statement.relation);
                // The table may be temporary. REFRESH MATERIALIZED VIEW CONCURRENTLY alters a temporary table, for instance.
                let is_temporary = altered.is_some_and(relation::is_temporary);
                if !is_temporary {
                    move_parts(*watcher, statement, altered);
                    alter(altered);
                }
                let altered = altered.map(|oid| (statement.relation.cast_const(), oid));
                let altered = found::remember(altered.into_iter());
                let mut moved = moved_parts(statement).peekable();
                if is_temporary || moved.peek().is_none() {
                    return Afterwards::Altered(altered);
                }
                return Afterwards::Moved(found::remember(moved.map(|name| (name, 0))), altered);
            }
            T_CreateStmt => {
                let created = (*node.cast::<pg_sys::CreateStmt>()).relation.cast_const();
                let created = found::remember(std::iter::once((created, 0)));
                return Afterwards::Moved(created, std::ptr::null_mut());
            }
            T_DropdbStmt => drop_database(*watcher, &*node.cast()),
            // CREATE DATABASE and ALTER DATABASE change no definition on which a result depends.
            T_CreatedbStmt => {
                let template = option((*node.cast::<pg_sys::CreatedbStmt>()).options, c"template");
                copies(*watcher, template.unwrap_or(c"template1"));
            }
            T_AlterDatabaseStmt => {
                let statement = &*node.cast::<pg_sys::AlterDatabaseStmt>();
                if option(statement.options, c"tablespace").is_some() {
                    needs_alone(*watcher, CStr::from_ptr(statement.dbname));
                }
            }
            // COPY into a shared catalog writes without a plan, so the executor's hook does not see it.
            T_CopyStmt => {
                let copy = &*node.cast::<pg_sys::CopyStmt>();
                if copy.is_from && !copy.relation.is_null() {
                    relation::find(copy.relation).into_iter().for_each(definition::catalog_written);
                }
            }
            T_CreateFunctionStmt => function::note_compiling(),
            T_TruncateStmt => transaction::note_change(),
            _ => watcher.defining(Changed::Other),
        }
    }
    Afterwards::Nothing
}

/// Reports that the transaction takes over a snapshot, or sets its isolation level.
unsafe fn set_variable(watcher: &dyn Watcher, set: &pg_sys::VariableSetStmt) -> Afterwards {
    if set.kind == pg_sys::VariableSetKind::VAR_SET_MULTI && !set.name.is_null() {
        // SAFETY: checked for NULL; the parser's own string.
        match unsafe { CStr::from_ptr(set.name) }.to_bytes() {
            b"TRANSACTION SNAPSHOT" => watcher.imports_snapshot(),
            // The transaction may have begun without a block, in a procedure.
            b"TRANSACTION" => return Afterwards::Began,
            _ => {}
        }
    }
    Afterwards::Nothing
}

/// Reports PREPARE TRANSACTION, COMMIT PREPARED and ROLLBACK PREPARED, if there is a cache and transactions can be prepared.
fn transaction(watcher: &dyn Watcher, statement: &pg_sys::TransactionStmt) -> Afterwards {
    use pg_sys::TransactionStmtKind::*;
    if statement.gid.is_null() || !prepared::is_there() {
        return Afterwards::Nothing;
    }
    // SAFETY: checked for NULL; the parser's own string.
    let gid = unsafe { CStr::from_ptr(statement.gid) }.to_bytes();
    let ends = match statement.kind {
        TRANS_STMT_PREPARE => {
            watcher.preparing(gid);
            return Afterwards::Nothing;
        }
        // SAFETY: these functions only read variables. Inside of a block the server refuses these commands before it looks for the
        // transaction.
        TRANS_STMT_COMMIT_PREPARED | TRANS_STMT_ROLLBACK_PREPARED => unsafe {
            !pg_sys::IsTransactionBlock() && !pg_sys::IsSubTransaction()
        },
        _ => false,
    };
    if !ends {
        return Afterwards::Nothing;
    }
    watcher.ending(gid, statement.kind == TRANS_STMT_COMMIT_PREPARED);
    Afterwards::Ended
}
