//! Private clusters: real servers that a test or a measurement owns, and that never outlive it.
//!
//! - [`Server`] is an installation to run: the private tree that `make/server.sh` lays out.
//! - [`Cluster`] is a data directory with a running server, in a temporary directory, reached through a
//!   Unix socket only, so that any number of them run side by side without a port between them.
//! - [`Database`] is a database of one's own in the cluster that the tests of a process share.
//! - [`Pooler`] is a pgbouncer in front of a cluster, [`Redis`] a Redis.

mod cluster;
mod database;
mod pooler;
mod redis;
mod server;
mod wait;

pub use cluster::{Cluster, Conf, Stop};
pub use database::Database;
pub use pooler::Pooler;
pub use redis::Redis;
pub use server::Server;
pub use wait::wait_until;
