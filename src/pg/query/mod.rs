//! Runs a caller's query with the caller's privileges, on a given snapshot, for the functions that store results of queries
//! (`query/`).
//!
//! All functions of this folder must be called within a transaction.
//!
//! ```text
//! statement.rs    a query with its arguments
//! running.rs      runs it
//! describing.rs   describes or checks it without running it
//! parsing.rs      parses it, and refuses statements that are no queries
//! preparing.rs    rewrites and plans it
//! binding.rs      converts its arguments to the types of its parameters
//! spi.rs          connections to the server's programming interface, and snapshots
//! cursors.rs      counts the cursors of the session
//! ```

mod binding;
mod cursors;
mod describing;
mod parsing;
mod preparing;
mod running;
mod spi;
mod statement;

pub use cursors::{Cursors, cursors};
pub use describing::{Described, Sketch, check, describe, is_unclear, require_view, sketch};
pub use running::{Value, json, rows, scalar};
pub use spi::{Snapshot, within_spi};
pub use statement::{Arguments, Query};
