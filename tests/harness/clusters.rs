//! Clusters that the tests of a process use one after the other. While a test has a cluster, no other test uses it.
//!
//! Databases of one cluster are not independent of each other for the cache. A change of roles invalidates results of queries in
//! all of them, tables that no result depends on yet share *fences* (the words in shared memory that say when something has changed
//! last), and a full cache evicts entries of any database. So a test that expects hits needs a cluster in which no other test
//! commits.

use crate::cluster::{Cluster, Conf, Stop};
use std::sync::{Mutex, PoisonError};

/// Clusters with the same settings. There are as many of them as tests that needed one at the same time.
#[derive(Debug)]
pub struct Clusters {
    conf: fn() -> Conf,
    /// The clusters that no test uses now, each with the number of tests that have used it.
    idle: Mutex<Vec<(&'static Cluster, u32)>>,
}

/// The most tests that use a cluster. Each database takes up to six places in shared memory, which are not given back. A cluster
/// has 1024 of them.
const USES_MAX: u32 = 64;

impl Clusters {
    /// Makes an empty list of clusters. Put it into a static.
    pub const fn new(conf: fn() -> Conf) -> Self {
        Self { conf, idle: Mutex::new(Vec::new()) }
    }

    /// Takes a cluster that no other test uses, and starts one if there is none.
    pub fn take(&'static self) -> Taken {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // The cluster is never dropped: the keeper stops it when the process ends.
        let (cluster, uses) =
            idle.unwrap_or_else(|| (Box::leak(Box::new(Cluster::start(&(self.conf)()))), 0));
        Taken { clusters: self, cluster, uses: uses + 1 }
    }
}

/// A cluster that one test has for itself. When the value is dropped, another test may take the cluster.
#[derive(Debug)]
pub struct Taken {
    clusters: &'static Clusters,
    cluster: &'static Cluster,
    /// The number of tests that have used the cluster, with this one.
    uses: u32,
}

impl Taken {
    /// Returns the cluster. A test must not stop it or change its settings.
    pub fn cluster(&self) -> &'static Cluster {
        self.cluster
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // A test that fails may leave roles and prepared transactions, so no other test gets its cluster.
        if std::thread::panicking() {
            return;
        }
        if self.uses == USES_MAX {
            self.cluster.stop(Stop::Fast);
            return;
        }
        self.clusters.idle.lock().unwrap_or_else(PoisonError::into_inner).push((self.cluster, self.uses));
    }
}
