//! A database of one's own in the cluster that the tests of a process share.

use crate::cluster::{Cluster, Conf};
use postgres::Client;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Started by the first test that asks. A static is never dropped: its keeper ends it with the process.
static SHARED: OnceLock<Cluster> = OnceLock::new();

/// A database with the extension in it, dropped with this value.
#[derive(Debug)]
pub struct Database {
    name: String,
}

impl Database {
    /// Creates a database with the extension in the shared cluster.
    pub fn create() -> Self {
        Self::create_empty().with_extension()
    }

    /// Creates a database of another encoding, with the extension, in the shared cluster.
    pub fn create_encoded(encoding: &str) -> Self {
        Self::create_as(&format!("ENCODING '{encoding}' TEMPLATE template0")).with_extension()
    }

    /// Creates a database without the extension in the shared cluster.
    pub fn create_empty() -> Self {
        Self::create_as("")
    }

    fn with_extension(self) -> Self {
        self.connect().batch_execute("CREATE EXTENSION pg_cache").expect("the extension installs");
        self
    }

    fn create_as(options: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let database = Self { name };
        database
            .cluster()
            .connect("postgres")
            .batch_execute(&format!("CREATE DATABASE {} {options}", database.name))
            .expect("the database is created");
        database
    }

    /// The cluster it lives in, together with other tests' databases.
    pub fn cluster(&self) -> &'static Cluster {
        SHARED.get_or_init(|| Cluster::start(&Conf::preloaded()))
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
