//! A database of its own for each test, in a cluster that no other test uses meanwhile (`clusters.rs`). So a test may also change
//! roles, which belong to the cluster, but must remove them before it ends.

use crate::cluster::{Cluster, Conf};
use crate::clusters::{Clusters, Taken};
use postgres::Client;
use std::cell::RefCell;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

static CLUSTERS: Clusters = Clusters::new(Conf::preloaded);

thread_local! {
    /// The cluster of the databases that this thread has created, while one of them is left. Each test runs in a thread of its own.
    static OF_THREAD: RefCell<Weak<Taken>> = const { RefCell::new(Weak::new()) };
}

/// A database that is dropped with this value. It has the extension, unless it was created empty.
#[derive(Debug)]
pub struct Database {
    // All databases that a test has at the same time are in one cluster.
    cluster: Arc<Taken>,
    name: String,
}

impl Database {
    /// Creates a database with the extension.
    pub fn create() -> Self {
        Self::create_empty().with_extension()
    }

    /// Creates a database with this encoding and with the extension.
    pub fn create_encoded(encoding: &str) -> Self {
        Self::create_as(&format!("ENCODING '{encoding}' TEMPLATE template0")).with_extension()
    }

    /// Creates a database without the extension.
    pub fn create_empty() -> Self {
        Self::create_as("")
    }

    fn with_extension(self) -> Self {
        self.connect().batch_execute("CREATE EXTENSION pg_cache").expect("the extension installs");
        self
    }

    /// Creates a database with these options of `CREATE DATABASE`, in the cluster of the other databases of this thread.
    fn create_as(options: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let cluster = OF_THREAD.with_borrow_mut(|of_thread| {
            of_thread.upgrade().unwrap_or_else(|| {
                let taken = Arc::new(CLUSTERS.take());
                *of_thread = Arc::downgrade(&taken);
                taken
            })
        });
        let database = Self { cluster, name };
        database
            .cluster()
            .connect("postgres")
            .batch_execute(&format!("CREATE DATABASE {} {options}", database.name))
            .expect("the database is created");
        database
    }

    /// Returns its cluster, which another test uses when this one has dropped its databases. A test must not stop it or change its
    /// settings.
    pub fn cluster(&self) -> &'static Cluster {
        self.cluster.cluster()
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
