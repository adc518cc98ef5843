//! Real Redis servers that a test or a measurement owns.
//!
//! - [`Redis`] is one server, [`RedisConf`] its settings: TCP, TLS, a password, a limit of its memory, and so on.
//! - [`RedisCluster`] is a cluster of several servers, [`RedisSentinels`] a primary with a replica and three sentinels.
//! - [`Certificate`] is a certificate authority with the certificate of a server, for TLS.
//! - [`Proxy`] stands between a server and its clients, and delays or cuts their connections.
//! - [`free_port`] finds a TCP port for a server.
//! - [`Connection`] sends commands and returns [`Reply`]s, independent of any client library.

mod certificate;
mod cluster;
mod conf;
mod connection;
mod ports;
mod proxy;
mod sentinels;
mod server;

pub use certificate::Certificate;
pub use cluster::RedisCluster;
pub use conf::RedisConf;
pub use connection::{Connection, Reply};
pub use ports::free_port;
pub use proxy::Proxy;
pub use sentinels::RedisSentinels;
pub use server::Redis;
