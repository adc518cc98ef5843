//! The parts about functions with keys (`cache_get`, `cache_set`) and about invalidation, each with servers of its own.
//!
//! [`tags`] measures the invalidation of tags, [`sizes`] values of all sizes, [`rates`] requests at a fixed rate, and [`tax`] how
//! much pg_cache slows down writes to tables. [`walk`] measures the work of a commit for the tables that it has written. [`rows`]
//! measures what exact invalidation costs: of the values that depend on single rows, and by patterns of keys.

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
