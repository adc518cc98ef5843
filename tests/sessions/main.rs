//! Tests that need more than one session, or a server of their own. They run on real clusters and make real commits. `make test
//! ONLY=sessions` runs them. Each module says what it tests.
//!
//! A test that changes the settings of the server or stops it starts a `Cluster` of its own, mostly by `memory::cluster`. Any other
//! test takes a `Database`. No other test uses the cluster of that database meanwhile, but later tests use it, so the test must
//! drop the roles that it has created.

mod advise;
mod allocation;
mod capacity;
mod catalogs;
mod ddl_race;
mod definitions;
mod docs;
mod encoding;
mod environment;
mod events;
mod exhaustion;
mod fences;
mod fetch;
mod harness;
mod hunter;
mod identity;
mod lease;
mod limits;
mod memory;
mod metrics;
mod monitoring;
mod neighbours;
mod notify;
mod observe;
mod patterns;
mod preload;
mod prepared;
mod qualified;
mod query;
mod redis;
mod renewal;
mod replication;
mod restart;
mod row_tags;
mod savepoints;
mod scanner;
mod seen;
mod soundness;
mod spaces;
mod table_changes;
mod table_faults;
mod table_workers;
mod tables;
mod transaction;
mod twins;
mod upgrade;
mod watches;
mod writes;
