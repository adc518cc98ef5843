//! The test harness: private PostgreSQL servers that a test or a measurement owns. A server ends with its owner, also if the
//! owner is killed (`home.rs`).
//!
//! - [`Server`] is an installation of PostgreSQL: the private tree that `make/server.sh` creates.
//! - [`Installation`] is a copy of it, whose files of pg_cache a test may replace.
//! - [`Cluster`] is a data directory in a temporary directory, with a running server. Clients reach it through a Unix
//!   socket only, so clusters need no ports and any number of them can run side by side.
//! - [`Clusters`] are clusters that the tests of a process use one after the other.
//! - [`Database`] is a database of its own, in a cluster that no other test uses meanwhile.
//! - [`tpch`] has the tables and queries of the benchmark TPC-H.
//! - [`Pooler`] is a pgbouncer in front of a cluster, [`Redis`] is a Redis server (the directory `redis/` has more of them).

mod cluster;
mod clusters;
mod database;
mod home;
mod installation;
mod pooler;
mod redis;
mod server;
pub mod tpch;
mod wait;

pub use cluster::{Cluster, Conf, Stop};
pub use clusters::{Clusters, Taken};
pub use database::Database;
pub use installation::Installation;
pub use pooler::Pooler;
pub use redis::{
    Certificate, Connection, Proxy, Redis, RedisCluster, RedisConf, RedisSentinels, Reply, free_port,
};
pub use server::Server;
pub use wait::{wait_at_most, wait_until};
