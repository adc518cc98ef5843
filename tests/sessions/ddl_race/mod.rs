//! The DDL race: a transaction that changes a name or a rule becomes visible before the server sends its catalog invalidation messages.
//! A session that fills in between reads new rows with old catalogs. No other session may be given that result.
//!
//! - `changes`: the changes, and how the result of a query changes with each.
//! - `stand`: a committing transaction stands between the two moments, and another session fills. Deterministic.
//! - `applied`: the same for a prepared transaction that a subscription ends.
//! - `crowd`: transactions commit without a stand while two sessions fill all the time. Statistical.

mod applied;
mod changes;
mod crowd;
mod stand;
