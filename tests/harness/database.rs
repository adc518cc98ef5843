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
        let database = Self::create_empty();
        database.connect().batch_execute("CREATE EXTENSION pg_cache").expect("the extension installs");
        database
    }

    /// Creates a database without the extension in the shared cluster.
    pub fn create_empty() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let database = Self { name };
        database
            .cluster()
            .connect("postgres")
            .batch_execute(&format!("CREATE DATABASE {}", database.name))
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
