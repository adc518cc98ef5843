//! The logic of the cache: entries, transactions, leases and spaces.
//!
//! The layers `api` and `query` call this one. It uses `pg/` for the server, and the crate `pg_cache_core` for the *tier*: the
//! entries in shared memory. `docs/architecture.md` explains the words fence, stamp, flight and ledger.

pub mod broadcast;
pub mod cause;
pub mod changes;
pub mod command;
pub mod content;
pub mod counter;
pub mod definitions;
pub mod entry;
pub mod event;
pub mod export;
pub mod flights;
pub mod health;
pub mod journal;
pub mod kept;
pub mod keyspace;
pub mod kind;
pub mod latency;
pub mod lease;
pub mod metrics;
pub mod names;
pub mod near;
pub mod note;
pub mod prefetch;
pub mod results;
pub mod row_tags;
pub mod space;
pub mod status;
pub mod table;
pub mod template;
pub mod top;
pub mod transaction;
pub mod usage;
pub mod waiting;
pub mod warmer;
pub mod watch;
