//! The rows of a query: how they reach the caller of a set-returning function, and how they are stored.
//!
//! ```text
//! sink.rs         the destination of rows: the result of a function, and the bytes to store
//! receiver.rs     runs a plan, and passes its rows to a sink
//! stored.rs       the form in which rows are stored
//! room.rs         the memory that stored values are read into
//! tuple.rs        forms and reads the server's tuples
//! tuplestore.rs   puts tuples into the result of a function
//! columns.rs      the types of columns, and which columns a caller expects
//! ```

pub mod columns;
pub mod receiver;
mod room;
mod sink;
mod stored;
mod tuple;
mod tuplestore;

pub use room::Room;
pub use sink::{Replayed, Sink};
