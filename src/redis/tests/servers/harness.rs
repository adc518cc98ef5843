//! Servers that a test owns, and shortcuts for the jobs of the client (`jobs.rs`). Each server is killed when its value is dropped,
//! or when the thread of the test ends.
//!
//! A test that starts a server must begin with `needs_redis!()`. A client answers every job with `Skipped` until [`connect`] has
//! succeeded, and again after each failure.

use pg_cache_redis::{Answer, Batch, Client, Facts, Job, SetAddition, Target, Value};
use rustix::process::{Pid, Signal, kill_process};
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than any wait of a test.
const LONG: Duration = Duration::from_secs(60);

/// Returns whether the machine has the programs. If not, says once that tests are skipped, on the real standard error: cargo shows
/// the captured output of failed tests only.
pub fn are_installed(programs: &[&str]) -> bool {
    static SAID: Once = Once::new();
    let missing = programs.iter().find(|program| Command::new(program).arg("--version").output().is_err());
    if let Some(program) = missing {
        SAID.call_once(|| {
            // The line must begin after the dots of the other tests.
            let why =
                format!("\nskipped, not passed: tests of the client of Redis: {program} is not installed");
            writeln!(std::io::stderr(), "{why}").expect("standard error is open");
        });
    }
    missing.is_none()
}

/// Returns the program that serves: `redis-server`, or the one that this variable names, such as `valkey-server`.
pub fn server() -> String {
    let program = std::env::var("PG_CACHE_TEST_REDIS_SERVER").ok();
    program.filter(|program| !program.is_empty()).unwrap_or("redis-server".to_owned())
}

/// Leaves the test if there is no Redis, or if another program that the test needs is missing.
macro_rules! needs_redis {
    ($($other:literal),*) => {
        if !crate::harness::are_installed(&[&crate::harness::server(), "redis-cli", $($other),*]) {
            return;
        }
    };
}
pub(crate) use needs_redis;

/// A server with a Unix socket, and also a port if the options say so. It writes nothing to disk.
pub struct Server {
    process: Child,
    directory: TempDir,
    port: u16,
    options: Vec<String>,
}

impl Server {
    /// Starts a server without a port.
    pub fn start(options: &[&str]) -> Self {
        Self::with_port(0, options)
    }

    /// Starts a server on a free port.
    pub fn on_port(options: &[&str]) -> Self {
        Self::with_port(free_port(), options)
    }

    fn with_port(port: u16, options: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("pg_cache-redis.").tempdir().expect("a directory");
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let process = launch(directory.path(), port, &options);
        let server = Self { process, directory, port, options };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&self) {
        wait_until("the server to answer", || {
            let output = self.cli_output(&["PING"]);
            let answer = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            answer.contains("PONG") || answer.contains("NOAUTH")
        });
    }

    /// Ends the server by SIGKILL and starts it again, empty.
    pub fn restart(&mut self) {
        self.kill();
        self.process = launch(self.directory.path(), self.port, &self.options);
        self.wait_until_ready();
    }

    /// Ends the server by SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill().expect("the server is a child");
        self.process.wait().expect("the server is a child");
    }

    /// Stops the server's process: its sockets still accept connections and data.
    pub fn pause(&self) {
        kill_process(self.pid(), Signal::STOP).expect("the server is a child");
        let stat = format!("/proc/{}/stat", self.process.id());
        wait_until("the server to stop", || {
            let stat = std::fs::read_to_string(&stat).expect("the server is a child");
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
        });
    }

    /// Lets the server continue.
    pub fn resume(&self) {
        kill_process(self.pid(), Signal::CONT).expect("the server is a child");
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// Returns the URL of the server's Unix socket.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket())
    }

    fn socket(&self) -> String {
        self.directory.path().join("socket").to_str().expect("a UTF-8 path").to_owned()
    }

    /// Returns the server's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn cli_output(&self, words: &[&str]) -> Output {
        let mut command = Command::new("redis-cli");
        command.args(["-e", "-s", &self.socket()]).args(words);
        command.env_remove("REDISCLI_AUTH").stdin(Stdio::null()).output().expect("redis-cli starts")
    }

    /// Runs one command and returns the answer.
    pub fn cli(&self, words: &[&str]) -> String {
        let output = self.cli_output(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Returns the field of `INFO`.
    pub fn info(&self, field: &str) -> String {
        let info = self.cli(&["INFO", "everything"]);
        let found = info.lines().find_map(|line| line.trim_end().strip_prefix(field)?.strip_prefix(':'));
        found.unwrap_or_default().to_owned()
    }

    /// Returns how many connections have the name that a client without a name of its own gives them.
    pub fn connections(&self) -> usize {
        self.cli(&["CLIENT", "LIST"]).lines().filter(|line| line.contains("name=pg_cache ")).count()
    }

    /// Returns the number of keys.
    pub fn keys(&self) -> u64 {
        self.cli(&["DBSIZE"]).parse().expect("a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn launch(directory: &Path, port: u16, options: &Vec<String>) -> Child {
    let socket = directory.join("socket");
    // A killed server leaves its socket.
    let _ = std::fs::remove_file(&socket);
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", &server(), "--port", &port.to_string(), "--unixsocket"])
        .arg(&socket)
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(directory)
        .arg("--logfile")
        .arg(directory.join("log"))
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server starts")
}

/// Returns a port that is free at the moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it listens").port()
}

/// Polls until the condition holds. Fails after [`LONG`]; `what` is for the message.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns a client that has not connected.
pub fn client(url: &str) -> Client {
    client_with(url, Duration::from_millis(500), None)
}

/// Returns a client with a timeout and a certificate authority.
pub fn client_with(url: &str, timeout: Duration, ca_file: Option<&Path>) -> Client {
    let target = Target::parse(url, timeout, ca_file).expect("a valid URL");
    Client::start(target, 16).expect("a thread starts")
}

/// Returns a client that has connected.
pub fn connected(url: &str) -> Client {
    let client = client_with(url, Duration::from_secs(10), None);
    connect(&client);
    client
}

/// Executes one job.
pub fn execute(client: &Client, job: Job) -> Answer {
    client.send(job).expect("there is room");
    client.answer(LONG).expect("an answer in time")
}

/// Connects, which must succeed, and returns the facts about the servers.
pub fn connect(client: &Client) -> Facts {
    facts(execute(client, Job::Connect))
}

/// Returns the facts of an answer.
pub fn facts(answer: Answer) -> Facts {
    match answer {
        Answer::Facts(facts) => facts,
        answer => panic!("not facts, but {answer:?}"),
    }
}

/// Returns the text of a failure.
pub fn failure(answer: Answer) -> String {
    match answer {
        Answer::Failed(text) => {
            assert!(text.len() <= 200 && !text.contains('\n'), "{text}");
            text
        }
        answer => panic!("not a failure, but {answer:?}"),
    }
}

/// Writes a batch that must succeed, and returns whether sets were lost.
pub fn write(client: &Client, batch: Batch) -> bool {
    match execute(client, Job::Write(batch)) {
        Answer::Written { refused: None, lost_sets } => lost_sets,
        answer => panic!("not written: {answer:?}"),
    }
}

/// Returns a batch with these values, which live for a minute.
pub fn values<'v>(values: impl IntoIterator<Item = (&'v str, &'v str)>) -> Batch {
    let value = |(key, json): (&str, &str)| Value { key: key.into(), json: json.to_owned(), ttl_ms: 60_000 };
    Batch { values: values.into_iter().map(value).collect(), ..Batch::default() }
}

/// Returns an addition to a set that lives for a minute.
pub fn addition<'m>(set: &str, members: impl IntoIterator<Item = &'m str>, must_exist: bool) -> SetAddition {
    let members = members.into_iter().map(|member| member.as_bytes().to_vec()).collect();
    SetAddition { set: set.to_owned(), members, ttl_ms: 60_000, must_exist }
}

/// Scans all primaries and returns the keys, sorted and each once.
pub fn scan(client: &Client, pattern: Vec<u8>) -> Vec<String> {
    let (mut found, mut next) = (Vec::new(), Some((0, 0)));
    while let Some((node, cursor)) = next {
        match execute(client, Job::Scan { node, cursor, pattern: pattern.clone() }) {
            Answer::Scanned { next: then, keys } => {
                found.extend(keys.into_iter().map(|key| String::from_utf8(key).expect("UTF-8")));
                next = then;
            }
            answer => panic!("not a step of a scan, but {answer:?}"),
        }
    }
    found.sort();
    found.dedup();
    found
}
