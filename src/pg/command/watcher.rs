//! The receiver of the reports about commands. `store/command.rs` implements it, and turns the reports into invalidations. A
//! *definition* is anything in the catalogs that decides what a query means (`pg/altered.rs`).

use crate::pg::altered::Changed;
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

pub(super) static WATCHER: OnceLock<&'static dyn Watcher> = OnceLock::new();
