//! Tests that need more than one session, or a server of their own. They run on real clusters and make real commits. `make test
//! ONLY=sessions` runs them. Each module says what it tests.

mod allocation;
mod capacity;
mod catalogs;
mod ddl_race;
mod definitions;
mod docs;
mod encoding;
mod exhaustion;
mod fences;
mod fetch;
mod harness;
mod hunter;
mod identity;
mod lease;
mod limits;
mod memory;
mod monitoring;
mod neighbours;
mod notify;
mod preload;
mod prepared;
mod qualified;
mod renewal;
mod replication;
mod restart;
mod savepoints;
mod soundness;
mod spaces;
mod table_faults;
mod table_workers;
mod tables;
mod transaction;
mod twins;
mod watches;
mod writes;
