//! What takes a server, and is not told by how fast contenders are beside each other.

pub mod rates;
pub mod sizes;
pub mod tags;
pub mod tax;
pub mod walk;

use crate::bed;
use pg_cache_testbed::Cluster;
use postgres::Client;

/// A server with pg_cache in its database, as large as a part needs it.
fn cluster(hot_size: &str) -> (Cluster, Client) {
    let cluster = Cluster::start(&bed::conf().set("pg_cache.hot_size", hot_size));
    let mut session = cluster.connect("postgres");
    session.batch_execute("CREATE EXTENSION pg_cache").expect("pg_cache is installed");
    (cluster, session)
}
