//! A real pgbouncer in front of a cluster, in transaction mode: a client uses a server connection only for the duration of a
//! transaction.
//!
//! Like a [`Cluster`], it has a keeper: a shell process that starts pgbouncer and kills it when a pipe closes. The
//! owner holds the pipe open until it drops the [`Pooler`] or dies.

use crate::cluster::Cluster;
use crate::server::{as_server_user, run};
use crate::wait::wait_until;
use postgres::{Client, NoTls};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A pgbouncer on a Unix socket in a directory of its own. Dropping the value stops it and removes the directory.
#[derive(Debug)]
pub struct Pooler {
    home: PathBuf,
    keeper: Child,
    version: (u32, u32),
}

impl Pooler {
    /// Starts a pooler with `connections` server connections per database, and waits until those of the database
    /// postgres are open.
    ///
    /// The pooler always uses the connection that has been idle longest. So with two or more connections, a session
    /// that is alone gets another server connection for each transaction.
    ///
    /// # Panics
    /// When there is no `pgbouncer`, or it does not start.
    pub fn start(cluster: &Cluster, connections: u32) -> Self {
        let version = version();
        let made = run(as_server_user("mktemp").args(["-d", "/tmp/pg_cache-test.XXXXXX"]));
        let home = PathBuf::from(String::from_utf8_lossy(&made.stdout).trim());
        let mut conf = format!(
            "[databases]\n\
             * = host={server} user=postgres pool_size={connections}\n\
             [pgbouncer]\n\
             listen_addr =\n\
             unix_socket_dir = {home}\n\
             listen_port = 5432\n\
             auth_type = any\n\
             pool_mode = transaction\n\
             server_round_robin = 1\n\
             max_client_conn = 1000\n",
            server = cluster.socket_dir().display(),
            home = home.display(),
        );
        if prepares(version) {
            conf += "max_prepared_statements = 100\n";
        }
        let pooler = Self { keeper: start_keeper(&home, &conf), home, version };
        // A client of another account must be able to enter the directory.
        run(as_server_user("chmod").arg("755").arg(&pooler.home));
        wait_until("pgbouncer to answer", || pooler.try_connect("postgres").is_ok());
        pooler.open(connections);
        pooler
    }

    /// Makes the pooler open all server connections of the database postgres, with one concurrent transaction for each.
    fn open(&self, connections: u32) {
        let mut sessions: Vec<Client> = (0..connections).map(|_| self.connect("postgres")).collect();
        for command in ["BEGIN", "COMMIT"] {
            sessions.iter_mut().for_each(|session| session.batch_execute(command).expect("it is done"));
        }
    }

    /// Returns whether this version of pgbouncer supports prepared statements across server connections.
    pub fn prepares(&self) -> bool {
        prepares(self.version)
    }

    /// Opens a session in `database` as the superuser.
    ///
    /// # Panics
    /// If the pooler or the server refuses the session.
    pub fn connect(&self, database: &str) -> Client {
        let log = || std::fs::read_to_string(self.home.join("log")).unwrap_or_default();
        self.try_connect(database).unwrap_or_else(|error| panic!("{error}\n{}", log()))
    }

    fn try_connect(&self, database: &str) -> Result<Client, postgres::Error> {
        postgres::Config::new().host_path(&self.home).user("postgres").dbname(database).connect(NoTls)
    }

    /// Returns the directory of the pooler's socket, which is also the `PGHOST` of a client program.
    pub fn socket_dir(&self) -> &Path {
        &self.home
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // If the keeper fails, a directory stays in /tmp. That must not hide the result of the test.
        let _ = self.keeper.wait();
    }
}

/// Returns the major and minor version of the installed pgbouncer.
fn version() -> (u32, u32) {
    let said = run(Command::new("pgbouncer").arg("--version"));
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let number = said.split_whitespace().nth(1).unwrap_or_default();
    let mut parts = number.split('.').map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => panic!("no version in {said:?}"),
    }
}

/// Returns whether this version has the setting `max_prepared_statements`.
fn prepares(version: (u32, u32)) -> bool {
    version >= (1, 21)
}

/// Starts the keeper, which runs the pooler, outlives this process and removes the directory.
fn start_keeper(home: &Path, conf: &str) -> Child {
    // `cat` ends when the pipe closes. A terminal's signals must not end the keeper, so it ignores them.
    let script = r#"
        trap '' INT TERM HUP
        printf '%s' "$2" >"$1/ini"
        pgbouncer "$1/ini" </dev/null 2>"$1/log" &
        cat >/dev/null
        kill -KILL $! 2>/dev/null
        wait
        rm -rf "$1"
    "#;
    as_server_user("sh")
        .args(["-c", script, "keeper"])
        .arg(home)
        .arg(conf)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh starts")
}
