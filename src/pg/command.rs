//! Commands, seen before they run: those of which the server tells nobody otherwise what they mean.
//!
//! - what becomes of a prepared transaction. One that is prepared or ended otherwise is not seen: a subscription with `two_phase`
//!   does both in C (`store/prepared.rs`);
//! - that a transaction begins, before it has looked at anything, or that it looks through the eyes of another one;
//! - that names or rules change. All commands do, but for a list of harmless ones, and for those of which the server tells what they
//!   change (`definition.rs`), as it does of what is dropped;
//! - that a table is about to be a part of another no more, which the locks do not tell afterwards; or that it becomes one, of which
//!   those do not learn who write to what is below it;
//! - that a database is about to be dropped, whose number another may be given.

#![allow(unsafe_code)]

use super::local::local;
use super::system::{self, Shared};
use super::{definition, function, memory, prepared, relation, transaction};
use pgrx::prelude::*;
use std::cell::RefCell;
use std::ffi::CStr;
use std::sync::OnceLock;

/// Who wants to know. Everything here may raise errors, and is told before the command runs, if it does not say otherwise.
pub trait Watcher: Sync {
    /// The transaction is to be prepared under this name, if nothing goes wrong until its end.
    fn preparing(&self, gid: &[u8]);
    /// A prepared transaction is about to be committed or rolled back by the next command.
    fn ending(&self, gid: &[u8], commits: bool);
    /// That has succeeded. If it does not, the transaction of the command aborts, and nothing is told here.
    fn ended(&self);
    /// A transaction has begun, and has not looked at the database yet. Told afterwards, of blocks, and of who says how to look.
    fn began(&self);
    /// The transaction takes over the snapshot of another.
    fn looks_back(&self);
    /// Names or rules are to change: who may do what in the cluster among them, or not.
    fn defining(&self, roles: bool);
    /// A relation is to leave the trees that it is a part of.
    fn leaving(&self, relation: u32);
    /// A relation is to be a part of another, and all that is below it, too, which others may be writing to.
    fn growing(&self);
    /// A database is to be dropped.
    fn dropping(&self, database: u32);
}

static WATCHER: OnceLock<&'static dyn Watcher> = OnceLock::new();
static mut PREVIOUS: pg_sys::ProcessUtility_hook_type = None;

unsafe extern "C-unwind" {
    /// Not by way of pgrx, whose guard would take errors apart and lose where in the statement they are.
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

/// Tells a watcher from now on. To be called while the server loads us.
pub fn watch(watcher: &'static dyn Watcher) {
    if WATCHER.set(watcher).is_ok() {
        // SAFETY: the postmaster runs this alone, before it has children. Whoever was hooked before is called by us.
        unsafe {
            PREVIOUS = pg_sys::ProcessUtility_hook;
            pg_sys::ProcessUtility_hook = Some(utility);
        }
    }
}

/// What is to be told after a command.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Afterwards {
    Nothing,
    /// It has ended a prepared transaction.
    Ended,
    /// It has begun a transaction block, or has said how one that has begun is to look at the database.
    Began,
    /// It has granted or revoked privileges on [`GRANTED`], if its role may do so.
    Granted,
    /// It has dropped or given away what belonged to [`OWNERS`], if anything did.
    Disowned,
}

local! {
    /// The shared objects of the GRANT or REVOKE that runs: the statement may be gone when it has run.
    static GRANTED: RefCell<Vec<(Shared, u32)>> = RefCell::new(Vec::new());
    /// The roles of the DROP OWNED or REASSIGN OWNED that runs.
    static OWNERS: RefCell<Vec<u32>> = RefCell::new(Vec::new());
}

/// Without a guard, so that an error in a command passes as it is: nothing on this stack is to be dropped, and what is ours is
/// guarded by itself.
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
    // SAFETY: a planned utility statement has one, and every node begins with its tag. What comes after is as the server would call
    // it, and does not look at the statement again, which the command may have freed.
    unsafe {
        let node = (*statement).utilityStmt;
        #[cfg(debug_assertions)]
        name_targets(node);
        let afterwards = match at_sight(node) {
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
    unsafe { super::targets::of_command(node) };
}

/// What is to be told of a command whose kind says all that is to be known: outside of the guard, which would cost more than the rest.
unsafe fn at_sight(node: *const pg_sys::Node) -> Option<Afterwards> {
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
            tag => (is_harmless(tag) || is_told(tag)).then_some(Afterwards::Nothing),
        }
    }
}

#[inline(never)]
#[pg_guard]
unsafe extern "C-unwind" fn before(node: *const pg_sys::Node) -> Afterwards {
    use pg_sys::NodeTag::*;
    let Some(watcher) = WATCHER.get() else { return Afterwards::Nothing };
    // SAFETY: every node begins with its tag, which says what it is.
    unsafe {
        match (*node).type_ {
            T_TransactionStmt => return transaction(*watcher, &*node.cast()),
            T_VariableSetStmt => {
                let set = &*node.cast::<pg_sys::VariableSetStmt>();
                if set.kind == pg_sys::VariableSetKind::VAR_SET_MULTI && !set.name.is_null() {
                    match CStr::from_ptr(set.name).to_bytes() {
                        b"TRANSACTION SNAPSHOT" => watcher.looks_back(),
                        // It may have begun without a block, in a procedure.
                        b"TRANSACTION" => return Afterwards::Began,
                        _ => {}
                    }
                }
            }
            T_CreateRoleStmt | T_DropRoleStmt | T_GrantRoleStmt => watcher.defining(true),
            T_DropOwnedStmt => return disown((*node.cast::<pg_sys::DropOwnedStmt>()).roles),
            T_ReassignOwnedStmt => return disown((*node.cast::<pg_sys::ReassignOwnedStmt>()).roles),
            // Of the role itself the server tells what has changed (`definition.rs`), and of its members nothing.
            T_AlterRoleStmt => {
                let options = (*node.cast::<pg_sys::AlterRoleStmt>()).options;
                if names(options).any(|name| name == c"rolemembers") {
                    watcher.defining(true);
                }
            }
            T_RenameStmt => {
                let statement = &*node.cast::<pg_sys::RenameStmt>();
                if statement.relation.is_null() {
                    watcher.defining(is_shared(statement.renameType));
                } else {
                    defining_of(*watcher, statement.relation);
                }
            }
            T_AlterOwnerStmt => {
                watcher.defining(is_shared((*node.cast::<pg_sys::AlterOwnerStmt>()).objectType))
            }
            T_GrantStmt => return grant(*watcher, &*node.cast()),
            T_CreatePolicyStmt => {
                defining_of(*watcher, (*node.cast::<pg_sys::CreatePolicyStmt>()).table);
            }
            T_AlterPolicyStmt => defining_of(*watcher, (*node.cast::<pg_sys::AlterPolicyStmt>()).table),
            T_AlterTableStmt => {
                let statement = &*node.cast::<pg_sys::AlterTableStmt>();
                // REFRESH MATERIALIZED VIEW CONCURRENTLY is among those who alter one.
                if !find(statement.relation).is_some_and(relation::is_temporary) {
                    move_parts(*watcher, statement);
                    watcher.defining(false);
                }
            }
            T_DropdbStmt => {
                let database = pg_sys::get_database_oid((*node.cast::<pg_sys::DropdbStmt>()).dbname, true);
                if database != pg_sys::InvalidOid {
                    watcher.dropping(database.to_u32());
                }
            }
            // Into a shared catalog, which it writes to without a plan.
            T_CopyStmt => {
                let copy = &*node.cast::<pg_sys::CopyStmt>();
                if copy.is_from && !copy.relation.is_null() {
                    find(copy.relation).into_iter().for_each(definition::catalog_written);
                }
            }
            T_CreateFunctionStmt => {
                function::note_compiling();
                watcher.defining(false);
            }
            T_TruncateStmt => transaction::note_change(),
            _ => watcher.defining(false),
        }
    }
    Afterwards::Nothing
}

/// Whether all databases share an object of this kind.
fn is_shared(kind: pg_sys::ObjectType::Type) -> bool {
    use pg_sys::ObjectType::*;
    [OBJECT_ROLE, OBJECT_DATABASE, OBJECT_TABLESPACE, OBJECT_PARAMETER_ACL].contains(&kind)
}

/// Reports a change of definitions, unless it is of a temporary table.
unsafe fn defining_of(watcher: &dyn Watcher, table: *const pg_sys::RangeVar) {
    // SAFETY: a name out of a parsed statement.
    if !unsafe { find(table) }.is_some_and(relation::is_temporary) {
        watcher.defining(false);
    }
}

/// Reports privileges that are granted or revoked, unless all of them are on temporary tables. Those on databases and tablespaces are
/// compared when the command has run: any role may run it, and without the right to grant it changes nothing.
unsafe fn grant(watcher: &dyn Watcher, statement: &pg_sys::GrantStmt) -> Afterwards {
    use pg_sys::ObjectType::*;
    let kind = statement.objtype;
    let by_name = statement.targtype == pg_sys::GrantTargetType::ACL_TARGET_OBJECT;
    let shared = match kind {
        OBJECT_DATABASE => Some(Shared::Database),
        OBJECT_TABLESPACE => Some(Shared::Tablespace),
        _ => None,
    };
    // SAFETY: a parsed statement: tables and sequences that are named one by one are a list of names, databases and tablespaces a list
    // of strings.
    unsafe {
        if let Some(shared) = shared.filter(|_| by_name) {
            let mut granted = Vec::new();
            for object in nodes::<pg_sys::String>(statement.objects) {
                let number = match shared {
                    Shared::Database => pg_sys::get_database_oid((*object).sval, true),
                    Shared::Tablespace => pg_sys::get_tablespace_oid((*object).sval, true),
                };
                memory::push(&mut granted, (shared, number.to_u32()));
            }
            GRANTED.replace(granted);
            return Afterwards::Granted;
        }
        let has_names = by_name && [OBJECT_TABLE, OBJECT_SEQUENCE].contains(&kind);
        let mut tables =
            nodes::<pg_sys::RangeVar>(if has_names { statement.objects } else { std::ptr::null() });
        let are_temporary = has_names && tables.all(|table| find(table).is_some_and(relation::is_temporary));
        if !are_temporary {
            watcher.defining(is_shared(kind));
        }
    }
    Afterwards::Nothing
}

/// Notes the roles of a DROP OWNED or REASSIGN OWNED.
unsafe fn disown(roles: *const pg_sys::List) -> Afterwards {
    let mut owners = Vec::new();
    // SAFETY: a parsed statement: a list of names of roles.
    for role in unsafe { nodes::<pg_sys::RoleSpec>(roles) } {
        // SAFETY: as above. A role that is not there the command will name.
        memory::push(&mut owners, unsafe { pg_sys::get_rolespec_oid(role, true) }.to_u32());
    }
    OWNERS.replace(owners);
    Afterwards::Disowned
}

/// The nodes of a list.
unsafe fn nodes<T>(list: *const pg_sys::List) -> impl Iterator<Item = *const T> {
    // SAFETY: a list is an array of as many pointers to nodes; an empty one is a null pointer.
    let count = if list.is_null() { 0 } else { unsafe { (*list).length as usize } };
    // SAFETY: as above.
    (0..count).map(move |at| unsafe { (*(*list).elements.add(at)).ptr_value.cast::<T>().cast_const() })
}

/// The names of a list of options.
unsafe fn names<'s>(options: *const pg_sys::List) -> impl Iterator<Item = &'s CStr> {
    // SAFETY: a list of options out of a parsed statement, which stands as long as the caller looks at it.
    unsafe { nodes::<pg_sys::DefElem>(options).map(|option| CStr::from_ptr((*option).defname)) }
}

/// Commands that change no name and no rule: nothing that a query could mean becomes another thing by them.
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
            | T_SecLabelStmt
            | T_IndexStmt
            | T_ReindexStmt
            | T_CreateStatsStmt
            | T_CreateTrigStmt
            | T_AlterStatsStmt
            | T_RefreshMatViewStmt
            | T_CreatedbStmt
            | T_AlterDatabaseStmt
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

/// Commands of which the server tells all that they change, and only that: nothing, if it is temporary.
fn is_told(tag: pg_sys::NodeTag) -> bool {
    use pg_sys::NodeTag::*;
    matches!(tag, T_CreateStmt | T_CreateTableAsStmt | T_CreateSeqStmt | T_AlterSeqStmt | T_DropStmt)
}

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
        // SAFETY: plain questions. Inside of a block the server refuses these, before it looks for the transaction.
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

/// The relation of a name, if there is one. Without a lock: a name that becomes another relation's in this moment is another's command.
pub unsafe fn find(name: *const pg_sys::RangeVar) -> Option<u32> {
    let missing_ok = pg_sys::RVROption::RVR_MISSING_OK;
    // SAFETY: a name out of a parsed statement. What of it is not there the command will say.
    let found = unsafe {
        pg_sys::RangeVarGetRelidExtended(name, pg_sys::NoLock as i32, missing_ok, None, std::ptr::null_mut())
    };
    (found != pg_sys::InvalidOid).then(|| found.to_u32())
}

/// Reports relations that leave a tree without locks that would tell, and trees that grow without locks on all that is below. (DETACH
/// PARTITION and NO INHERIT lock the part as a writer does, and ATTACH PARTITION all that is below it, too.)
unsafe fn move_parts(watcher: &dyn Watcher, statement: &pg_sys::AlterTableStmt) {
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
                        find((*detached).name).into_iter().for_each(|relation| watcher.leaving(relation));
                    }
                }
                _ => {}
            }
        }
    }
}

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
            if GRANTED.take().into_iter().any(|(kind, number)| system::has_changed_privileges(kind, number)) {
                watcher.defining(true);
            }
        }
        Afterwards::Disowned => {
            if OWNERS.take().into_iter().any(system::had_anything) {
                watcher.defining(true);
            }
        }
        _ => {}
    }
}
