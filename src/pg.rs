//! The interface to PostgreSQL: the only layer that uses the server's internals and knows the differences between its versions. It
//! imports no other layer of this library. `docs/architecture.md` says what each file is for.

pub mod allocator;
pub mod background;
pub mod catalog;
pub mod clock;
pub mod command;
pub mod condition;
pub mod context;
pub mod control_file;
pub mod definition;
pub mod encoding;
pub mod error;
pub mod executor;
pub mod fingerprint;
pub mod function;
pub mod interval;
pub mod jsonb;
pub mod local;
pub mod locks;
pub mod memory;
pub mod name_slot;
pub mod names;
pub mod observer;
pub mod oid_alias;
pub mod preload;
pub mod prepared;
pub mod query;
pub mod queue;
pub mod region_file;
pub mod relation;
pub mod restart;
pub mod role;
pub mod scan;
pub mod segment;
pub mod session;
pub mod settings;
pub mod shared;
pub mod size;
pub mod snapshot;
pub mod system;
#[cfg(debug_assertions)]
pub mod targets;
pub mod transaction;
pub mod transaction_events;
pub mod varlena;
pub mod worker_slot;
