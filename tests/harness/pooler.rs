//! A real pgbouncer in front of a cluster, in transaction mode: a client uses a server connection only for the duration of a
//! transaction. So two transactions of one client may have different sessions of the server.

use crate::cluster::Cluster;
use crate::home::Home;
use crate::server::run;
use crate::wait::wait_until;
use postgres::{Client, NoTls};
use std::path::Path;
use std::process::Command;

/// A pgbouncer on a Unix socket in a directory of its own. Dropping the value stops it and removes the directory.
#[derive(Debug)]
pub struct Pooler {
    home: Home,
    /// The major and minor version of pgbouncer.
    version: (u32, u32),
}

/// The first script of the keeper (see `Home::keep`): `$1` is the directory, `$2` the configuration without the directory of the
/// socket. `exec` hides the shell's message that its child was killed.
const BEGIN: &str = r#"
    exec 2>/dev/null
    printf '%sunix_socket_dir = %s\n' "$2" "$1" >"$1/ini"
    pgbouncer "$1/ini" </dev/null 2>"$1/log" &
"#;

/// The last script of the keeper. `$!` is pgbouncer.
const KILL: &str = "kill -KILL $!; wait";

impl Pooler {
    /// Starts a pooler with at most `connections` server connections per database, and waits until those of the database
    /// postgres are open.
    ///
    /// The pooler always uses the connection that has been idle longest. So with two or more connections, a session
    /// that is alone gets another server connection for each transaction.
    ///
    /// # Panics
    /// When there is no `pgbouncer`, or it does not start.
    pub fn start(cluster: &Cluster, connections: u32) -> Self {
        let version = version();
        let mut conf = format!(
            "[databases]\n\
             * = host={server} user=postgres pool_size={connections}\n\
             [pgbouncer]\n\
             listen_addr =\n\
             listen_port = 5432\n\
             auth_type = any\n\
             pool_mode = transaction\n\
             server_round_robin = 1\n\
             max_client_conn = 1000\n",
            server = cluster.socket_dir().display(),
        );
        if prepares(version) {
            conf += "max_prepared_statements = 100\n";
        }
        let pooler = Self { home: Home::keep(BEGIN, KILL, &[conf.as_ref()]), version };
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

    /// Returns whether this version of pgbouncer supports prepared statements across server connections. They are then switched
    /// on.
    pub fn prepares(&self) -> bool {
        prepares(self.version)
    }

    /// Opens a session in `database` as the superuser.
    ///
    /// # Panics
    /// If the pooler or the server refuses the session.
    pub fn connect(&self, database: &str) -> Client {
        let log = || std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
        self.try_connect(database).unwrap_or_else(|error| panic!("{error}\n{}", log()))
    }

    fn try_connect(&self, database: &str) -> Result<Client, postgres::Error> {
        postgres::Config::new().host_path(self.home.path()).user("postgres").dbname(database).connect(NoTls)
    }

    /// Returns the directory of the pooler's socket, which is also the `PGHOST` of a client program.
    pub fn socket_dir(&self) -> &Path {
        self.home.path()
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
