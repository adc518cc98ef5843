//! Tests of all ways to write to a table, combined with all ways to end a transaction. Values that depend on the table
//! must never be served after a commit, and must be hits again after a rollback. If a way to write is missing from
//! `paths::paths`, that is a bug of these tests.
//!
//! - `paths`: the ways to write, and statements that are no writes.
//! - `table`: the schema, the table and the values of a test.
//! - `endings`: every way to write with every way to end the transaction.
//! - `rows`: every way to write beside entries that depend on single rows.
//! - `commit`: writes and other work in the middle of a commit.
//! - `no_ops`: statements that lock a table as a writer and change no row of it, beside writes to other tables.
//! - `trees`: partitions and inheritance change while a transaction writes.

mod commit;
mod endings;
mod no_ops;
pub mod paths;
mod rows;
pub mod table;
mod trees;
