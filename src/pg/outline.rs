//! Finds out from the syntax of a statement whether it is a query, and which relations it changes, for `cache_advise`
//! (`query/advise/`). This file parses a text and does not analyze it, because it reads texts of `pg_stat_statements`, whose
//! parameters have no types.

#![allow(unsafe_code)]

use super::{executor, memory, relation, tree};
use pgrx::prelude::*;
use std::ffi::{CStr, c_void};

/// The kind of a statement, as its syntax shows it.
#[derive(Debug, PartialEq, Eq)]
pub enum Outline {
    /// A query that changes nothing, as far as its syntax shows.
    Query(Constants),
    /// A statement that changes rows of the relations `targets`. If `counts_changes` is true, the number of rows that the server
    /// counts for the statement is the number of changed rows. A name that stands for no relation has no target; COPY TO counts as
    /// such a statement without targets.
    Writes {
        targets: Vec<u32>,
        counts_changes: bool,
    },
    Other,
}

/// The constants in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Constants {
    /// Whether the text contains a constant other than NULL.
    pub any: bool,
    /// Whether it contains a string. The analysis of a text with strings calls the input functions of types, and these call the
    /// constraints of domains: code of any role.
    pub strings: bool,
}

/// Parses a text, and looks up the relations whose rows it changes. Takes no locks. Raises the errors of the parser.
pub fn outline(text: &CStr) -> Outline {
    use pg_sys::NodeTag::*;
    let _scratch = memory::Scratch::new();
    // SAFETY: the parser's own function, called with a text that ends with a zero. Its result lives in the scratch memory. A node's
    // tag names its type.
    unsafe {
        let statements = pg_sys::pg_parse_query(text.as_ptr());
        let statement = match executor::nodes::<pg_sys::RawStmt>(statements).next() {
            Some(first) if (*statements).length == 1 => (**first).stmt,
            _ => return Outline::Other,
        };
        let mut targets = Vec::new();
        let mut add = |name: *const pg_sys::RangeVar| {
            let found = if name.is_null() { None } else { relation::find(name) };
            found.into_iter().for_each(|oid| memory::push(&mut targets, oid));
        };
        let with = match (*statement).type_ {
            T_SelectStmt => {
                if !(*statement.cast::<pg_sys::SelectStmt>()).intoClause.is_null() {
                    return Outline::Other;
                }
                (*statement.cast::<pg_sys::SelectStmt>()).withClause
            }
            T_CopyStmt => {
                let copy = statement.cast::<pg_sys::CopyStmt>();
                if (*copy).is_from {
                    add((*copy).relation);
                }
                return Outline::Writes { targets, counts_changes: true };
            }
            T_RefreshMatViewStmt => {
                add((*statement.cast::<pg_sys::RefreshMatViewStmt>()).relation);
                return Outline::Writes { targets, counts_changes: true };
            }
            T_TruncateStmt => {
                let list = (*statement.cast::<pg_sys::TruncateStmt>()).relations;
                executor::nodes::<pg_sys::RangeVar>(list).for_each(|name| add(*name));
                return Outline::Writes { targets, counts_changes: false };
            }
            _ => match target_of(statement) {
                Some((target, with)) => {
                    add(target);
                    with
                }
                None => return Outline::Other,
            },
        };
        let mut writes_beside = false;
        if !with.is_null() {
            for entry in executor::nodes::<pg_sys::CommonTableExpr>((*with).ctes) {
                if let Some((target, _)) = target_of((**entry).ctequery) {
                    add(target);
                    writes_beside = true;
                }
            }
        }
        match (*statement).type_ == T_SelectStmt && !writes_beside {
            true => Outline::Query(constants_of(statement)),
            false => Outline::Writes { targets, counts_changes: !writes_beside },
        }
    }
}

/// Returns the constants in a statement.
///
/// # Safety
/// The statement must be one that the parser has returned.
unsafe fn constants_of(statement: *mut pg_sys::Node) -> Constants {
    let mut found = Constants::default();
    // SAFETY: as the caller promises. The context is what `note_constant` expects.
    unsafe { note_constant(statement, (&raw mut found).cast()) };
    found
}

/// The server calls this for each node of a statement that the parser has returned. `context` is a [`Constants`].
#[pg_guard]
#[allow(ffi_unwind_calls)] // The guard catches the error, and no value on this stack needs to be dropped.
unsafe extern "C-unwind" fn note_constant(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: a node's tag names its type. The context is as in `constants_of`. The value of a constant is a node, too.
    unsafe {
        if (*node).type_ == pg_sys::NodeTag::T_A_Const {
            let constant = node.cast::<pg_sys::A_Const>();
            let found = &mut *context.cast::<Constants>();
            found.any |= !(*constant).isnull;
            found.strings |= !(*constant).isnull && (*constant).val.node.type_ == pg_sys::NodeTag::T_String;
            return false;
        }
        pg_sys::ffi::pg_guard_ffi_boundary(|| tree::raw_expression_tree_walker(node, note_constant, context))
    }
}

/// Returns the target of a statement that changes rows, and its WITH clause. None for other statements.
///
/// # Safety
/// The statement must be one that the parser has returned.
unsafe fn target_of(
    statement: *mut pg_sys::Node,
) -> Option<(*const pg_sys::RangeVar, *const pg_sys::WithClause)> {
    use pg_sys::NodeTag::*;
    // SAFETY: a node's tag names its type.
    unsafe {
        match (*statement).type_ {
            T_InsertStmt => {
                let insert = statement.cast::<pg_sys::InsertStmt>();
                Some(((*insert).relation, (*insert).withClause))
            }
            T_UpdateStmt => {
                let update = statement.cast::<pg_sys::UpdateStmt>();
                Some(((*update).relation, (*update).withClause))
            }
            T_DeleteStmt => {
                let delete = statement.cast::<pg_sys::DeleteStmt>();
                Some(((*delete).relation, (*delete).withClause))
            }
            T_MergeStmt => {
                let merge = statement.cast::<pg_sys::MergeStmt>();
                Some(((*merge).relation, (*merge).withClause))
            }
            _ => None,
        }
    }
}
