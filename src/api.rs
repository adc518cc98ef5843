//! The SQL functions, one file for each family, and the checks that they share (`arguments.rs`). They check arguments and convert
//! values, and call `query` and `store`, which make all decisions about caching.
//!
//! Rules for a function:
//! - As a rule, it checks its arguments and privileges in a closure that returns a `Refused`, and raises this as an error in one
//!   place, with `or_raise` (`pg/error.rs`). An argument is None if the caller passed null.
//! - A function that runs or analyzes a caller's query, or writes to a table of the extension, is PARALLEL UNSAFE. The others are
//!   PARALLEL RESTRICTED, because a parallel worker does not know what the transaction has changed. Only those of `size.rs` are
//!   PARALLEL SAFE.
//! - A loop over data that allocates small pieces must call `memory::check` in each turn (`pg/memory.rs`).
//! - `sql/comments.sql` must have a comment for it. SQL in Rust code names the schema of everything that it uses (`sql/README.md`).

mod advise;
mod arguments;
mod call;
mod content;
mod counter;
#[cfg(debug_assertions)]
mod definition;
mod event;
mod fetch;
mod grant;
mod inspect;
mod invalidation;
mod journal;
mod lease;
mod many;
mod measure;
mod metrics;
mod observe;
mod query;
mod size;
mod space;
mod statistics;
mod top;
mod value;
mod version;
mod view;
mod warmer;
mod watch;
