//! The DDL race. A transaction that changes a name or a rule (a policy, a privilege, the body of a function or a view) becomes
//! visible before the server sends its catalog invalidation messages. A session that fills in between (runs the query of
//! `cache_fetch` or `cache_query` and stores the result) reads new rows with old catalogs. No other session may ever be given that
//! result, and neither may a later call of the same session. `docs/invalidation.md` explains the fences that prevent it.
//!
//! - `changes`: the changes, each with a query whose result changes.
//! - `stand`: a committing transaction waits after it has become visible and before it sends its messages, and another session
//!   fills. Deterministic.
//! - `applied`: the same for a prepared transaction that a subscription ends.
//! - `crowd`: transactions commit without a gate, while three sessions fill all the time. Statistical.

mod applied;
mod changes;
mod crowd;
mod stand;
