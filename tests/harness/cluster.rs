//! A running PostgreSQL server in a temporary directory, which a test owns. It ends with its owner, also if the owner is killed
//! (`home.rs`). If its log has a failed assertion or a segmentation fault, that line is printed at the end, and `make/test.sh`
//! fails the stage.

use crate::home::Home;
use crate::server::{Server, as_server_user, run};
use crate::wait::wait_until;
use postgres::{Client, NoTls};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The shutdown modes of `pg_ctl` that tests use.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// Ends the sessions and writes a shutdown checkpoint.
    Fast,
    /// Ends all processes at once. The next start recovers as after a crash.
    Immediate,
}

/// How many seconds `pg_ctl` waits for the start or the end of a server. Its default of 60 is short for a busy machine.
const PATIENCE: &str = "300";

/// The settings of a cluster, in addition to those that all test clusters have (`Cluster::write_conf`). They override these.
#[derive(Clone, Debug, Default)]
pub struct Conf(Vec<(String, String)>);

impl Conf {
    /// Returns the settings of a cluster that preloads pg_cache. The sweep interval of an hour keeps pg_cache's background worker,
    /// the launcher, from removing dead entries while a test counts them. Results are stored also if their query took no time.
    pub fn preloaded() -> Self {
        Self::bare()
            .set("shared_preload_libraries", "pg_cache")
            .set("pg_cache.sweep_interval", "1h")
            .set("pg_cache.min_cost", "0")
    }

    /// Returns the settings of a cluster without pg_cache.
    pub fn bare() -> Self {
        Self::default()
    }

    /// Adds a setting. If a name is set twice, the later value counts.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.0.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A server with a data directory of its own. Dropping the value stops the server in immediate mode and removes the directory.
///
/// Unless it says otherwise, a method panics if a program that it runs fails.
#[derive(Debug)]
pub struct Cluster {
    server: Server,
    home: Home,
}

/// The last script of the keeper (see `Home::keep`): `$1` is the directory of the cluster, `$2` is `pg_ctl`.
const STOP_AND_REPORT: &str = r#"
    if [ -f "$1/data/postmaster.pid" ]; then "$2" stop --silent -m immediate -D "$1/data" >/dev/null 2>&1; fi
    # make/test.sh looks for these: a failed assertion or a crash that no test has noticed.
    grep -aE '^TRAP: |was terminated by signal 11' "$1/log" >&2 2>/dev/null
"#;

impl Cluster {
    /// Creates a cluster of the installation that the make target prepared, and starts it.
    pub fn start(conf: &Conf) -> Self {
        Self::start_on(&Server::from_env(), conf)
    }

    /// Creates a cluster of the given installation and starts it.
    pub fn start_on(server: &Server, conf: &Conf) -> Self {
        let home = Home::keep("", STOP_AND_REPORT, &[server.program("pg_ctl").as_os_str()]);
        let cluster = Self { server: server.clone(), home };
        run(server
            .command("initdb")
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(cluster.data()));
        cluster.write_conf(conf);
        cluster.resume();
        cluster
    }

    /// Starts the server, which must be stopped, and waits until it accepts connections.
    pub fn resume(&self) {
        self.start_program(&self.server.program("postgres"));
    }

    /// Starts the stopped server through another program, such as a debugger. `words` are that program and its arguments; the
    /// path of the server program and its own arguments follow them. The other program must become the server without a fork,
    /// because `pg_ctl` waits for the process that it has started.
    ///
    /// Call it at most once for a cluster: a second call only appends to the script of the first, whose `exec` still decides.
    pub fn resume_beneath(&self, words: &[&str]) {
        let script = self.home.path().join("beneath");
        let server = self.server.program("postgres");
        let quoted = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
        let words: Vec<_> = words.iter().copied().chain(server.to_str()).map(quoted).collect();
        self.append(&script, &format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")));
        run(as_server_user("chmod").arg("755").arg(&script));
        self.start_program(&script);
    }

    /// Starts `program` as the postmaster and waits until it accepts connections.
    fn start_program(&self, program: &Path) {
        let log = self.home.path().join("log");
        let mut command = self.server.command("pg_ctl");
        command
            .args(["start", "--wait", "--silent", "-t", PATIENCE, "-D"])
            .arg(self.data())
            .arg("-l")
            .arg(&log);
        command.arg("-p").arg(program);
        let status = command.stdin(Stdio::null()).status().expect("pg_ctl starts");
        assert!(status.success(), "the server does not start:\n{}", self.log());
    }

    /// Stops the server and waits for its end.
    pub fn stop(&self, mode: Stop) {
        let mode = match mode {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        run(self
            .server
            .command("pg_ctl")
            .args(["stop", "--wait", "--silent", "-t", PATIENCE, "-m", mode, "-D"])
            .arg(self.data()));
    }

    /// Stops the server, adds these settings to the earlier ones and starts it again.
    pub fn restart(&self, mode: Stop, conf: &Conf) {
        self.stop(mode);
        self.write_conf(conf);
        self.resume();
    }

    /// Makes the stopped server a standby without a primary. This takes effect at its next start.
    pub fn become_standby(&self) {
        run(as_server_user("touch").arg(self.data().join("standby.signal")));
    }

    /// Makes the stopped server a standby of `primary`, which must be running. Replaces the data directory by a base backup of
    /// the primary, with the primary's settings except the directory of the socket. This takes effect at the next start.
    pub fn follow(&self, primary: &Self) {
        run(as_server_user("rm").arg("-r").arg(self.data()));
        let mut backup = as_server_user(self.server.program("pg_basebackup"));
        backup.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--username=postgres", "-h"]);
        run(backup.arg(primary.socket_dir()).arg("-D").arg(self.data()));
        let socket = format!("unix_socket_directories = '{}'\n", self.home.path().display());
        self.append(&self.data().join("postgresql.auto.conf"), &socket);
    }

    /// Kills a process of the server with SIGKILL, as the kernel does when memory runs out.
    pub fn kill(&self, process: i32) {
        self.signal(process, "-KILL");
    }

    /// Sends a signal such as `-STOP` to a process of the server.
    pub fn signal(&self, process: i32, signal: &str) {
        run(as_server_user("kill").args([signal, &process.to_string()]));
    }

    /// Kills a process whose death makes the postmaster restart all processes, such as a backend, and waits until the server
    /// accepts sessions again. Until the postmaster notices the death, it still accepts sessions, and kills them a moment later.
    /// So this first waits until a session that was opened before has ended.
    pub fn crash(&self, process: i32) {
        let mut witness = self.connect("postgres");
        self.kill(process);
        wait_until("the end of all sessions", || witness.simple_query("").is_err());
        wait_until("the end of recovery", || self.try_connect("postgres").is_ok());
    }

    /// Limits the address space of a server process to its current size plus `more` bytes. Beyond that, its allocations fail.
    pub fn limit_address_space(&self, process: i32, more: u64) {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it has a status");
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("the kernel tells");
        let kilobytes: u64 = size.trim().trim_end_matches(" kB").parse().expect("it is a number");
        Self::set_address_space(process, &(kilobytes * 1024 + more).to_string());
    }

    /// Removes the limit of `limit_address_space`.
    pub fn free_address_space(&self, process: i32) {
        Self::set_address_space(process, "unlimited");
    }

    /// Sets the soft limit, in bytes or as `unlimited`. The server's account can raise a soft limit again, but not a hard one.
    fn set_address_space(process: i32, limit: &str) {
        run(as_server_user("prlimit").arg(format!("--pid={process}")).arg(format!("--as={limit}:")));
    }

    /// Opens a session in `database` as the superuser. Panics with the server's log if the server refuses it.
    pub fn connect(&self, database: &str) -> Client {
        self.try_connect(database).unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// Opens a session in `database` as the superuser, or returns the server's refusal.
    pub fn try_connect(&self, database: &str) -> Result<Client, postgres::Error> {
        postgres::Config::new().host_path(self.socket_dir()).user("postgres").dbname(database).connect(NoTls)
    }

    /// Returns the directory of the server's socket, which is also the `PGHOST` of a client program.
    pub fn socket_dir(&self) -> &Path {
        self.home.path()
    }

    /// Creates a directory that belongs to the server's account. It is removed with the cluster.
    pub fn make_directory(&self, name: &str) -> PathBuf {
        let directory = self.home.path().join(name);
        run(as_server_user("mkdir").arg(&directory));
        directory
    }

    /// Returns the data directory.
    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Returns the installation that this cluster runs.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Returns the server's log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// Returns the command for a client program of the installation, configured to connect to this cluster.
    pub fn client(&self, program: &str) -> Command {
        self.point_here(Command::new(self.server.program(program)))
    }

    /// Configures a client program to connect to this cluster. The `PG*` variables of the caller's environment, which
    /// may name another server, are removed.
    pub fn point_here(&self, mut command: Command) -> Command {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.env("PGHOST", self.socket_dir()).env("PGUSER", "postgres").env("PGDATABASE", "postgres");
        command
    }

    /// Appends the settings of all test clusters, then those of `conf`, to `postgresql.conf`. They take effect at the next start.
    fn write_conf(&self, conf: &Conf) {
        let bench: [(&str, String); 9] = [
            ("listen_addresses", String::new()),
            ("unix_socket_directories", self.home.path().display().to_string()),
            // A test's cluster ends with the test. Durability would only make it slow. The small sizes let many clusters run at
            // once.
            ("fsync", "off".into()),
            ("shared_buffers", "32MB".into()),
            ("max_wal_size", "256MB".into()),
            // An autovacuum worker would invalidate values, take locks and send messages at any moment of a test.
            ("autovacuum", "off".into()),
            // Tests prepare transactions and decode changes. `%b` writes the type of the process into each line of the log.
            ("max_prepared_transactions", "20".into()),
            ("wal_level", "logical".into()),
            ("log_line_prefix", "%m [%p] %b ".into()),
        ];
        let lines: String = bench
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .chain(conf.0.iter().map(|(name, value)| (name.as_str(), value.as_str())))
            .map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''")))
            .collect();
        // PostgreSQL uses the last line for a name.
        self.append(&self.data().join("postgresql.conf"), &lines);
    }

    /// Appends to a file of the server. The server's account does the write, because it owns the file.
    fn append(&self, file: &Path, text: &str) {
        let mut command = as_server_user("tee");
        command.arg("-a").arg(file);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("tee starts");
        let mut input = child.stdin.take().expect("its input is a pipe");
        std::io::Write::write_all(&mut input, text.as_bytes()).expect("tee reads");
        drop(input);
        assert!(child.wait().expect("tee ends").success(), "cannot write {}", file.display());
    }
}

impl Drop for Cluster {
    /// Prints the log of the server if a test has failed. `Home` stops the server.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of the cluster that saw it:\n{}", self.log());
        }
    }
}
