//! A database of one's own in the cluster that the tests of a process share.

use crate::cluster::{Cluster, Conf};
use postgres::Client;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

// Each is started by the first test that asks. A static is never dropped: its keeper ends it with the process.
static SHARED: OnceLock<Cluster> = OnceLock::new();
static WHERE_ROLES_CHANGE: OnceLock<Cluster> = OnceLock::new();

/// A database with the extension in it, dropped with this value.
#[derive(Debug)]
pub struct Database {
    cluster: &'static Cluster,
    name: String,
}

impl Database {
    /// Creates a database with the extension in the shared cluster.
    pub fn create() -> Self {
        Self::create_empty().with_extension()
    }

    /// The same in another cluster, for tests that change roles: that invalidates results of queries in all of its databases.
    pub fn create_where_roles_change() -> Self {
        Self::create_empty_where_roles_change().with_extension()
    }

    /// The same without the extension.
    pub fn create_empty_where_roles_change() -> Self {
        Self::create_as(&WHERE_ROLES_CHANGE, "")
    }

    /// Creates a database of another encoding, with the extension, where roles change.
    pub fn create_encoded(encoding: &str) -> Self {
        Self::create_as(&WHERE_ROLES_CHANGE, &format!("ENCODING '{encoding}' TEMPLATE template0"))
            .with_extension()
    }

    /// Creates a database without the extension in the shared cluster.
    pub fn create_empty() -> Self {
        Self::create_as(&SHARED, "")
    }

    fn with_extension(self) -> Self {
        self.connect().batch_execute("CREATE EXTENSION pg_cache").expect("the extension installs");
        self
    }

    fn create_as(cluster: &'static OnceLock<Cluster>, options: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let database = Self { cluster: cluster.get_or_init(|| Cluster::start(&Conf::preloaded())), name };
        database
            .cluster
            .connect("postgres")
            .batch_execute(&format!("CREATE DATABASE {} {options}", database.name))
            .expect("the database is created");
        database
    }

    /// The cluster it lives in, together with other tests' databases.
    pub fn cluster(&self) -> &'static Cluster {
        self.cluster
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A new session in it, as the superuser.
    pub fn connect(&self) -> Client {
        self.cluster().connect(&self.name)
    }

    /// A client program of the installation, pointed at this database.
    pub fn client(&self, program: &str) -> Command {
        let mut command = self.cluster().client(program);
        command.env("PGDATABASE", &self.name);
        command
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The verdict of the test counts, not the state of a cluster that ends with the process.
        if let Ok(mut session) = self.cluster().try_connect("postgres") {
            let _ = session.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        }
    }
}
