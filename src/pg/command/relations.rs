//! Commands about relations: reports changes of their definitions, and of the partition and inheritance trees that they are a part
//! of. A tree counts because a write to a table also invalidates the stored results of queries that have read a table above it.

#![allow(unsafe_code)]

use super::lists::nodes;
use super::watcher::Watcher;
use crate::pg::altered::{self, Changed, How};
use crate::pg::{definition, relation};
use pgrx::prelude::*;

/// Reports a change of a relation, which the command names. None if there is no relation of this name. Another session may create
/// one before the command looks it up. This file does not know that relation, so it reports a change of an unknown definition.
pub(super) fn alter(relation: Option<u32>) {
    match relation {
        Some(oid) => altered::relation(oid, 0, How::Altered, false, definition::report),
        None => definition::report(Changed::Other),
    }
}

/// Reports changes of trees that the locks of the transaction do not show at the commit (`locks.rs`): DETACH PARTITION
/// CONCURRENTLY, and INHERIT, which does not lock the relations below the new child. (DETACH PARTITION and NO INHERIT lock the part
/// as a writer does. ATTACH PARTITION does that with all relations below it, too.)
///
/// A partition that is attached or detached is a change of the tables above its new or old parent, too. `definition.rs` sees that,
/// except for the first of the two transactions of DETACH PARTITION CONCURRENTLY, so this function reports it.
///
/// The [`Watcher`] (`watcher.rs`) gets the reports: `growing` if a relation becomes a part of another one, `leaving` if a partition
/// leaves its tree, and `defining` for each table whose definition changes.
pub(super) unsafe fn move_parts(
    watcher: &dyn Watcher,
    statement: &pg_sys::AlterTableStmt,
    parent: Option<u32>,
) {
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
pub(super) unsafe fn moved_parts(
    statement: &pg_sys::AlterTableStmt,
) -> impl Iterator<Item = *const pg_sys::RangeVar> {
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
