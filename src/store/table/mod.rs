//! The table tier: values that are saved in tables, so that they outlive their eviction from memory. `sql/segments.sql` creates the
//! tables in each database; each is a *segment*.
//!
//! An entry's value lies in memory, in a row, or in both. Only shared memory knows: the *directory* of the memory tier has the
//! *location* (segment and position) of each row that is in use (`tier/directory.rs` of the core). A row without a location does
//! not exist. So nothing is ever deleted from the tables: a table whose rows are no longer needed is truncated as a whole.
//!
//! ```text
//! record.rs     which table a segment is, and how full it is
//! holdings.rs   which segments each database has
//! row.rs        the form of a value in rows
//! reading.rs    a session reads a saved value, and brings it back into memory
//! saver/        the worker of a database saves values, and frees tables
//! listing.rs    an operator looks at all saved values
//! ```

pub mod holdings;
pub mod listing;
pub mod reading;
pub mod record;
mod row;
pub mod saver;
