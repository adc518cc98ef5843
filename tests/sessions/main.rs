//! Tests that need more than one session, or a server of their own: real clusters, real commits.

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
mod lease;
mod limits;
mod memory;
mod neighbours;
mod preload;
mod prepared;
mod qualified;
mod renewal;
mod replication;
mod soundness;
mod spaces;
mod transaction;
mod twins;
mod watches;
mod writes;
