//! Tests of `cache_query`: a cached result must always be what the query itself returns, and each call must say what it did. A test
//! that only compared results would also pass if nothing was ever cached, so the tests also expect a status of each call.
//!
//! - `equivalence`: random queries, queries that look alike, and changes of definitions, each compared with the queries themselves.
//! - `calls`: calls of `cache_query` beside the query itself, and the statuses that a test may expect.
//! - `isolation`: roles, tenants, search paths, time zones and privileges, each in every place where a query may read it.
//! - `breaks`: known ways to break a cache of query results, one test each.
//! - `refusals`: queries whose results must not be stored.
//! - `forms`: protocols, large results, transactions and restarts.
//! - `lifetimes`: how long results live.
//! - `views`: cached views and wrappers of functions.
//! - `warmers`, `keep_warm`: results that a background worker keeps stored, by name or because they are valuable.
//! - `warmer_days`: how warmers get along with crashes, locks, new databases and many roles.
//! - `changes`: every way to write to what a query reads.
//! - `tpch`: the queries of TPC-H.
//! - `flights`, `waits`, `taking`, `convoys`, `deadlocks`, `nested`, `storm`: many sessions ask for one result, and one of them
//!   runs the query. `slow` has their queries.
//! - `stale`: callers that accept an older result, and results that are computed again before they expire. `load` has the sessions
//!   that call and write all the time, and `seconds` the share of hits in each second.
//! - `verify`: hits whose query runs again, to find wrong results.
//! - `pool`: callers behind pgbouncer.

mod breaks;
pub mod calls;
mod changes;
mod convoys;
mod deadlocks;
mod equivalence;
mod flights;
mod forms;
mod isolation;
mod keep_warm;
mod lifetimes;
mod load;
mod nested;
mod pool;
mod refusals;
mod seconds;
mod slow;
mod stale;
mod storm;
mod taking;
mod tpch;
mod verify;
mod views;
mod waits;
mod warmer_days;
mod warmers;
