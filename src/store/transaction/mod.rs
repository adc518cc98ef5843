//! The session's transaction: what it has changed in the cache and in tables, and how a commit publishes that.
//!
//! A transaction holds its changes back until it commits. The other files of the store use this module in five ways:
//! - [`pending`] records and looks up changes, leases and claims, and receives the events of the transaction. Behind it are the
//!   *ledger*, the list of changes (`ledger.rs`, `change.rs`, `own_patterns.rs`, `savepoint.rs`), the leases (`held_leases.rs`) and
//!   the steps of a commit (`commit.rs`);
//! - [`table_writes`] knows the tables that the transaction has written, by the fences that its commit must raise;
//! - [`reported_rows`] counts the changed rows that triggers have reported, for `table_writes`;
//! - [`safe_stamp`] knows which cached values the transaction may read;
//! - [`prepared`] handles transactions that are prepared for a two-phase commit.
//!
//! A *fence* is a word in shared memory that says when something that values depend on last changed, and a *stamp* is a number on
//! the clock of changes. A *lease* is the right to compute the value of a key, and a *claim* the right to set a key that has no
//! value. `docs/architecture.md` follows a commit through these files.

mod change;
mod commit;
mod held_leases;
mod ledger;
mod own_patterns;
pub mod pending;
pub mod prepared;
pub mod reported_rows;
pub mod safe_stamp;
mod savepoint;
pub mod table_writes;

pub use change::{Basis, JournalName, OwnKey, Value};
pub use held_leases::Kind as HeldKind;
pub use ledger::{NotRecorded, OwnState};
