//! Inspects utility commands before they run, and some of them afterwards. It reports to a [`Watcher`] the effects that the server
//! reports in no other way:
//!
//! - a prepared transaction is prepared or ended. The hook does not see transactions that are prepared or ended without a command:
//!   a subscription with `two_phase` does both in C (`store/transaction/prepared/`);
//! - a transaction block begins and has no snapshot yet, or a transaction takes over the snapshot of another one;
//! - definitions change, which decide what a query means (`pg/altered.rs`). A command counts unless it is in the list of harmless
//!   ones (`kinds.rs`), the server reports its changes one by one (`pg/definition.rs`), or `hook.rs` treats its kind in another
//!   way. `pg/definition.rs` also sees every dropped object;
//! - a table is about to leave its parent, which the locks do not show afterwards; or a table gets a parent, which the transactions
//!   that write to the tables below it do not notice;
//! - a database is about to be dropped, and a new one may later get its OID; or a command needs a database to which no other
//!   process is connected.
//!
//! The hook also notes for other files what only a command shows: functions that are compiled, tables that are emptied, and writes
//! to a shared catalog by COPY.
//!
//! ```text
//! hook.rs         the hook: decides by the kind of a command what to report
//! kinds.rs        the kinds of commands that need no report
//! relations.rs    commands about relations
//! privileges.rs   commands about roles and privileges
//! databases.rs    commands about databases
//! afterwards.rs   the report that must follow a command
//! watcher.rs      the receiver of the reports
//! lists.rs        reads the lists of a parsed statement
//! ```

mod afterwards;
mod databases;
mod hook;
mod kinds;
mod lists;
mod privileges;
mod relations;
mod watcher;

pub use hook::watch;
pub use watcher::Watcher;
