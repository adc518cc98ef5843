//! Connections to the server's programming interface (SPI), through which a library runs SQL, and the snapshots that queries run
//! on.

#![allow(unsafe_code)]

use crate::pg::invalidations::accept_messages;
use pgrx::prelude::*;

/// The snapshot that a query runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// A new snapshot: it sees all that is committed now.
    New,
    /// The transaction's own snapshot.
    Transaction,
    /// The snapshot of the enclosing query, where no new one may be taken: while that query runs in parallel.
    Active,
}

/// Calls `run` with an open connection to the server's programming interface (SPI), and a snapshot for planning.
pub fn within_spi<R>(on: Snapshot, run: impl FnOnce() -> R) -> R {
    // Definitions must be at least as new as the rows. Without this call, the session would learn of changes only when it next
    // locks a relation that it has not locked yet.
    accept_messages();
    on_snapshot(on, || {
        // SAFETY: follows the rules of the interface. An error closes the connection with the (sub)transaction.
        unsafe {
            if pg_sys::SPI_connect() != pg_sys::SPI_OK_CONNECT as i32 {
                pgrx::error!("cannot connect to the server's programming interface");
            }
            let result = run();
            pg_sys::SPI_finish();
            result
        }
    })
}

/// Calls `run` while a snapshot is active, and removes the snapshot when `run` returns. An error that is raised does not return
/// here: the server then removes all snapshots of the (sub)transaction and closes its SPI connections.
pub(super) fn on_snapshot<R>(on: Snapshot, run: impl FnOnce() -> R) -> R {
    // SAFETY: called within a transaction. If no snapshot is active, this asks for the transaction's snapshot. The server raises an
    // error if the transaction must not take one.
    unsafe {
        pg_sys::PushActiveSnapshot(match on {
            Snapshot::New => pg_sys::GetLatestSnapshot(),
            Snapshot::Active if pg_sys::ActiveSnapshotSet() => pg_sys::GetActiveSnapshot(),
            Snapshot::Active | Snapshot::Transaction => pg_sys::GetTransactionSnapshot(),
        });
    }
    let result = run();
    // SAFETY: removes the snapshot that was pushed above. `run` has removed every snapshot that it has pushed itself.
    unsafe { pg_sys::PopActiveSnapshot() };
    result
}
