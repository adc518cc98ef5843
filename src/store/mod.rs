//! The logic of the cache: entries, transactions, leases and spaces. A *space* is a named cache with its own options, a set of keys
//! in one database.
//!
//! The layers `api` and `query` call this one. It uses `pg/` for the server, and the crate `pg_cache_core` for the *tier*: the
//! entries in shared memory. A *fence* is a word in shared memory that says when something that values depend on last changed, and
//! a *stamp* is a number on the clock of changes. A *flight* is the right to compute the value of a key; a *lease* is one. The
//! *ledger* is the list of the transaction's changes (`docs/architecture.md`).

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
pub mod observed;
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
