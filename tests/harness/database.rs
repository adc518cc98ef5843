//! A database of its own for each test, in a cluster that the tests of a process share. Tests that change roles use a
//! second shared cluster, because a change of roles invalidates results of queries in all databases of a cluster.

use crate::cluster::{Cluster, Conf};
use postgres::Client;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

// The first test that needs a cluster starts it. A static is never dropped: the keeper stops the cluster when the
// process ends.
static SHARED: OnceLock<Cluster> = OnceLock::new();
// The cluster for tests that change roles.
static WHERE_ROLES_CHANGE: OnceLock<Cluster> = OnceLock::new();

/// A database that is dropped with this value. It has the extension, unless it was created empty.
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

    /// Creates a database with the extension in the second cluster, for tests that change roles. Such a change
    /// invalidates results of queries in all databases of that cluster.
    pub fn create_where_roles_change() -> Self {
        Self::create_empty_where_roles_change().with_extension()
    }

    /// Creates a database without the extension in the cluster for tests that change roles.
    pub fn create_empty_where_roles_change() -> Self {
        Self::create_as(&WHERE_ROLES_CHANGE, "")
    }

    /// Creates a database with this encoding and with the extension, in the cluster for tests that change roles, because one of the
    /// tests of encodings creates roles.
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

    /// Creates a database with these options of `CREATE DATABASE`. Starts the cluster if this process has not started it yet.
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

    /// Returns its cluster, which also holds databases of other tests. A test must not stop it or change its settings.
    pub fn cluster(&self) -> &'static Cluster {
        self.cluster
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens a session in it as the superuser.
    pub fn connect(&self) -> Client {
        self.cluster().connect(&self.name)
    }

    /// Returns the command for a client program of the installation that connects to this database.
    pub fn client(&self, program: &str) -> Command {
        let mut command = self.cluster().client(program);
        command.env("PGDATABASE", &self.name);
        command
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Errors are ignored here: only the result of the test counts, and the cluster ends with the process anyway.
        if let Ok(mut session) = self.cluster().try_connect("postgres") {
            let _ = session.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        }
    }
}
