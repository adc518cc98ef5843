//! The kinds of commands that need no report in `hook.rs`, because they change no definition, or because the server reports each of
//! their changes to `definition.rs`. For a kind that is neither here nor in `hook.rs`, the hook reports a change of definitions,
//! which invalidates more than needed. So a new kind of a later PostgreSQL is safe until it is added to a list. A kind must not
//! be in a list if one of its changes can change the meaning of a query and stays unreported.

use pgrx::pg_sys;

/// Returns whether a command is harmless: it changes no definition, so no query can mean something else after it. Default
/// privileges concern only objects that are created later.
pub(super) fn is_harmless(tag: pg_sys::NodeTag) -> bool {
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
pub(super) fn is_reported_by_definition(tag: pg_sys::NodeTag) -> bool {
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
