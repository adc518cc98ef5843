//! The parts that need a server but do not compare the speeds of the contenders in the plan.

pub mod rates;
pub mod sizes;
pub mod tags;
pub mod tax;
pub mod walk;

use crate::bed;
use pg_cache_testbed::Cluster;
use postgres::Client;

/// Starts a server with pg_cache installed and a hot tier of the given size.
fn cluster(hot_size: &str) -> (Cluster, Client) {
    let cluster = Cluster::start(&bed::conf().set("pg_cache.hot_size", hot_size));
    let mut session = cluster.connect("postgres");
    session.batch_execute("CREATE EXTENSION pg_cache").expect("pg_cache is installed");
    (cluster, session)
}
