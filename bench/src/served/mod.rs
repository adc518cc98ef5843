//! The parts that start servers with pg_cache of their own, and do not measure the table tier (`tables` does).
//!
//! [`tags`] measures invalidations, [`sizes`] values of all sizes, [`rates`] requests at a fixed rate, [`tax`] what pg_cache costs
//! writers, [`walk`] the work of a commit, and [`rows`] watched rows and patterns.

pub mod rates;
pub mod rows;
pub mod sizes;
pub mod tags;
pub mod tax;
pub mod walk;

use crate::test_servers;
use pg_cache_testbed::Cluster;
use postgres::Client;

/// Starts a server with pg_cache installed and a hot tier, the cache in shared memory, of the given size (as in `postgresql.conf`:
/// `128MB`). Returns it with a superuser's session. The server stops when the cluster is dropped.
fn cluster(hot_size: &str) -> (Cluster, Client) {
    let cluster = Cluster::start(&test_servers::conf().set("pg_cache.hot_size", hot_size));
    let mut session = cluster.connect("postgres");
    session.batch_execute("CREATE EXTENSION pg_cache").expect("pg_cache is installed");
    (cluster, session)
}
