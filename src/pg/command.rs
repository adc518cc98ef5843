//! Inspects utility commands before they run, and some of them afterwards. It reports to a [`Watcher`] the effects that the server
//! reports in no other way:
//!
//! - a prepared transaction is prepared or ended. The hook does not see transactions that are prepared or ended without a command:
//!   a subscription with `two_phase` does both in C (`store/transaction/prepared.rs`);
//! - a transaction block begins and has no snapshot yet, or a transaction takes over the snapshot of another one;
//! - definitions change. A command counts unless it is in the list of harmless ones (`is_harmless`), the server reports its changes
//!   one by one (`definition.rs`), or `before` treats its kind in another way. `definition.rs` also sees every dropped object;
//! - a table is about to leave its parent, which the locks do not show afterwards; or a table gets a parent, which the transactions
//!   that write to the tables below it do not notice;
//! - a database is about to be dropped, and a new one may later get its OID; or a command needs a database to which no other
//!   process is connected.
//!
//! The hook also notes for other files what only a command shows: functions that are compiled, tables that are emptied, and writes
//! to a shared catalog by COPY.

#![allow(unsafe_code)]

use super::altered::{self, Changed, How};
use super::definition;
use super::found::{self, Found};
use super::local::local;
use super::role::Role;
use super::system::{self, Shared};
#[cfg(debug_assertions)]
use super::targets;
use super::{function, memory, prepared, relation, transaction};
use pgrx::prelude::*;
use std::cell::RefCell;
use std::ffi::CStr;
use std::sync::OnceLock;

/// Receives the reports. All methods may raise errors. All are called before the command runs, unless a method says otherwise.
pub trait Watcher: Sync {
    /// The transaction will be prepared under this name, if nothing fails until its end.
    fn preparing(&self, gid: &[u8]);
    /// The command is about to commit or roll back a prepared transaction.
    fn ending(&self, gid: &[u8], commits: bool);
    /// The command announced by `ending` has succeeded. If it fails, this session's transaction aborts, and this
    /// method is not called.
    fn ended(&self);
    /// A transaction has begun and has not taken a snapshot yet. Called after the command: after BEGIN, and after SET TRANSACTION,
    /// which may set the isolation level.
    fn began(&self);
    /// The transaction takes over the snapshot of another transaction.
    fn imports_snapshot(&self);
    /// A definition is about to change. After GRANT and REVOKE on databases and tablespaces, DROP OWNED and REASSIGN OWNED, this is
    /// called after the command instead, if it has changed anything.
    fn defining(&self, changed: Changed<'_>);
    /// A relation is about to leave the inheritance trees that it is a part of.
    fn leaving(&self, relation: u32);
    /// A relation is about to become a part of another one, together with all relations below it. Other transactions may be writing
    /// to these.
    fn growing(&self);
    /// A relation has got or lost a parent, or was created as a part of another relation. Called after the command, which still
    /// locks the relation against writers.
    fn moved(&self, relation: u32);
    /// A database is about to be dropped.
    fn dropping(&self, database: u32);
    /// The command will fail if another process is connected to the database: DROP, RENAME and SET TABLESPACE of it, and CREATE
    /// DATABASE with it as the template.
    fn needs_alone(&self, database: u32);
}

static WATCHER: OnceLock<&'static dyn Watcher> = OnceLock::new();
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

/// The report that must follow a command.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
enum Afterwards {
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
    /// The command has changed relations, and may have found other ones by their names than its announcement.
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
        name_targets(node);
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

#[cfg(debug_assertions)]
#[pg_guard]
unsafe extern "C-unwind" fn name_targets(node: *const pg_sys::Node) {
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
            // The relation may be created as a part of another one.
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

/// Reports the database that is about to be dropped.
unsafe fn drop_database(watcher: &dyn Watcher, statement: &pg_sys::DropdbStmt) {
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
unsafe fn needs_alone(watcher: &dyn Watcher, name: &CStr) {
    // SAFETY: looks up a catalog, by a name that ends with a zero.
    let database = unsafe { pg_sys::get_database_oid(name.as_ptr(), true) };
    if database != pg_sys::InvalidOid && is_owner_of(database) {
        watcher.needs_alone(database.to_u32());
    }
}

/// Reports a database that is about to be copied, as one to which no other process may be connected, if the current role may copy
/// it. Any role with CREATEDB may copy a template database.
unsafe fn copies(watcher: &dyn Watcher, name: &CStr) {
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

/// Returns the text of an option of a statement. None if the statement has no such option, or if the option has no value.
unsafe fn option<'s>(options: *const pg_sys::List, name: &CStr) -> Option<&'s CStr> {
    // SAFETY: a list of options from a parsed statement, which lives as long as the caller uses it. The server's function returns
    // the text of any option with a value.
    unsafe {
        let mut found = nodes::<pg_sys::DefElem>(options)
            .filter(|option| CStr::from_ptr((**option).defname) == name && !(**option).arg.is_null());
        found.next().map(|option| CStr::from_ptr(pg_sys::defGetString(option.cast_mut())))
    }
}

/// Returns whether objects of this kind are shared by all databases.
fn is_shared(kind: pg_sys::ObjectType::Type) -> bool {
    use pg_sys::ObjectType::*;
    [OBJECT_ROLE, OBJECT_DATABASE, OBJECT_TABLESPACE, OBJECT_PARAMETER_ACL].contains(&kind)
}

/// Reports a change of a relation, which the command names. None if there is no relation of this name.
fn alter(relation: Option<u32>) {
    match relation {
        Some(oid) => altered::relation(oid, 0, How::Altered, false, definition::report),
        None => definition::report(Changed::Other),
    }
}

/// Reports a change of definitions that concerns all databases, if the options of a role give it members, or take members from it.
unsafe fn define_members(watcher: &dyn Watcher, options: *const pg_sys::List) {
    // SAFETY: as the caller promises.
    if unsafe { names(options) }.any(|name| name == c"rolemembers" || name == c"adminmembers") {
        watcher.defining(Changed::Roles);
    }
}

/// Reports granted or revoked privileges, except those on temporary tables. Privileges on databases and tablespaces are compared
/// after the command: any role may run it, and it changes nothing if the role has no right to grant.
unsafe fn grant(watcher: &dyn Watcher, statement: &pg_sys::GrantStmt) -> Afterwards {
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
            GRANTED.replace(granted);
            return Afterwards::Granted;
        }
        let in_schemas = statement.targtype == pg_sys::GrantTargetType::ACL_TARGET_ALL_IN_SCHEMA;
        match kind {
            OBJECT_TABLE | OBJECT_SEQUENCE if by_name => {
                let names = || nodes::<pg_sys::RangeVar>(statement.objects);
                names().for_each(|name| alter(relation::find(name)));
                let found = names().filter_map(|name| Some((name, relation::find(name)?)));
                return Afterwards::Altered(found::remember(found));
            }
            // After the command: another session may be adding tables to the schemas.
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

/// Notes the roles of a DROP OWNED or REASSIGN OWNED.
unsafe fn note_owners(roles: *const pg_sys::List) -> Afterwards {
    let mut owners = Vec::new();
    // SAFETY: a parsed statement: a list of names of roles.
    for role in unsafe { nodes::<pg_sys::RoleSpec>(roles) } {
        // SAFETY: as above. If a role does not exist, the command itself raises the error.
        memory::push(&mut owners, unsafe { pg_sys::get_rolespec_oid(role, true) }.to_u32());
    }
    OWNERS.replace(owners);
    Afterwards::Disowned
}

/// Returns the nodes of a list, which must be null or hold pointers to nodes of type `T`.
unsafe fn nodes<T>(list: *const pg_sys::List) -> impl Iterator<Item = *const T> {
    // SAFETY: a list is an array of `length` pointers to nodes; an empty list is a null pointer.
    let count = if list.is_null() { 0 } else { unsafe { (*list).length as usize } };
    // SAFETY: as above.
    (0..count).map(move |at| unsafe { (*(*list).elements.add(at)).ptr_value.cast::<T>().cast_const() })
}

/// Returns the names in a list of options.
unsafe fn names<'s>(options: *const pg_sys::List) -> impl Iterator<Item = &'s CStr> {
    // SAFETY: a list of options from a parsed statement, which lives as long as the caller uses it.
    unsafe { nodes::<pg_sys::DefElem>(options).map(|option| CStr::from_ptr((*option).defname)) }
}

/// Returns whether a command is harmless: it changes no definition, so no query can mean something else after it. Default
/// privileges concern only objects that are created later.
fn is_harmless(tag: pg_sys::NodeTag) -> bool {
    use pg_sys::NodeTag::*;
    matches!(
        tag,
        T_DeclareCursorStmt
            | T_ClosePortalStmt
            | T_FetchStmt
            | T_DoStmt
            | T_CallStmt
            | T_NotifyStmt
            | T_ListenStmt
            | T_UnlistenStmt
            | T_LoadStmt
            | T_ClusterStmt
            | T_VacuumStmt
            | T_ExplainStmt
            | T_VariableShowStmt
            | T_DiscardStmt
            | T_CheckPointStmt
            | T_LockStmt
            | T_ConstraintsSetStmt
            | T_PrepareStmt
            | T_ExecuteStmt
            | T_DeallocateStmt
            | T_CommentStmt
            | T_IndexStmt
            | T_ReindexStmt
            | T_CreateStatsStmt
            | T_CreateTrigStmt
            | T_AlterStatsStmt
            | T_CreateEventTrigStmt
            | T_AlterEventTrigStmt
            | T_AlterDefaultPrivilegesStmt
            | T_AlterObjectDependsStmt
            | T_RefreshMatViewStmt
            | T_AlterDatabaseSetStmt
            | T_AlterRoleSetStmt
            | T_AlterSystemStmt
            | T_CreateTableSpaceStmt
            | T_DropTableSpaceStmt
            | T_CreatePublicationStmt
            | T_AlterPublicationStmt
            | T_CreateSubscriptionStmt
            | T_AlterSubscriptionStmt
            | T_DropSubscriptionStmt
    )
}

/// Returns whether `definition.rs` sees every change of this command. For a temporary object it then reports nothing.
fn is_reported_by_definition(tag: pg_sys::NodeTag) -> bool {
    use pg_sys::NodeTag::*;
    matches!(
        tag,
        T_CreateStmt
            | T_CreateTableAsStmt
            | T_CreateForeignTableStmt
            | T_ImportForeignSchemaStmt
            | T_ViewStmt
            | T_RuleStmt
            | T_CreatePolicyStmt
            | T_AlterPolicyStmt
            | T_CreateSeqStmt
            | T_AlterSeqStmt
            | T_CreateSchemaStmt
            | T_CompositeTypeStmt
            | T_CreateEnumStmt
            | T_CreateRangeStmt
            | T_CreateDomainStmt
            | T_DefineStmt
            | T_AlterFunctionStmt
            | T_AlterObjectSchemaStmt
            | T_AlterTableMoveAllStmt
            | T_CreateExtensionStmt
            | T_AlterExtensionStmt
            | T_AlterExtensionContentsStmt
            | T_DropRoleStmt
            | T_DropStmt
    )
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

/// Reports relations that leave a tree without locks that would show it, and trees that grow without locks on all relations below.
/// (DETACH PARTITION and NO INHERIT lock the part as a writer does. ATTACH PARTITION does that with all relations below, too.)
/// A partition that is attached or detached is a change of the tables above its new or old parent, too. `definition.rs` sees that,
/// except the first of the two transactions of DETACH PARTITION CONCURRENTLY.
unsafe fn move_parts(watcher: &dyn Watcher, statement: &pg_sys::AlterTableStmt, parent: Option<u32>) {
    // SAFETY: a parsed statement: a name, and a list of commands.
    unsafe {
        let count = if statement.cmds.is_null() { 0 } else { (*statement.cmds).length as usize };
        for at in 0..count {
            let command = (*(*statement.cmds).elements.add(at)).ptr_value.cast::<pg_sys::AlterTableCmd>();
            match (*command).subtype {
                pg_sys::AlterTableType::AT_AddInherit => watcher.growing(),
                pg_sys::AlterTableType::AT_DetachPartition => {
                    let detached = (*command).def.cast::<pg_sys::PartitionCmd>();
                    if (*detached).concurrent {
                        relation::find((*detached).name)
                            .into_iter()
                            .for_each(|relation| watcher.leaving(relation));
                        let above = parent.map(relation::ancestors).unwrap_or_default();
                        above.into_iter().for_each(|oid| watcher.defining(Changed::Relation(oid)));
                    }
                }
                _ => {}
            }
        }
    }
}

/// Returns the names of the relations that a command gives other parents.
unsafe fn moved_parts(statement: &pg_sys::AlterTableStmt) -> impl Iterator<Item = *const pg_sys::RangeVar> {
    use pg_sys::AlterTableType as Type;
    // SAFETY: a parsed statement: a name, and a list of commands. The definition of a command about a partition has its name.
    unsafe {
        nodes::<pg_sys::AlterTableCmd>(statement.cmds).filter_map(|command| match (*command).subtype {
            Type::AT_AddInherit | Type::AT_DropInherit => Some(statement.relation.cast_const()),
            Type::AT_AttachPartition | Type::AT_DetachPartition => {
                Some((*(*command).def.cast::<pg_sys::PartitionCmd>()).name.cast_const())
            }
            _ => None,
        })
    }
}

/// Makes the report that must follow a command. It is not called if the command has failed.
#[inline(never)]
#[pg_guard]
unsafe extern "C-unwind" fn after(what: Afterwards) {
    let Some(watcher) = WATCHER.get() else { return };
    // SAFETY: a plain global of this session.
    let has_looked = unsafe { pg_sys::FirstSnapshotSet };
    match what {
        Afterwards::Ended => watcher.ended(),
        Afterwards::Began if !has_looked => watcher.began(),
        Afterwards::Granted => {
            let mut granted = GRANTED.take().into_iter();
            let has_changed = granted.any(|(kind, oid)| system::has_changed_privileges(kind, oid));
            has_changed.then(|| watcher.defining(Changed::Roles));
        }
        // SAFETY: `before` has made it for this command.
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
