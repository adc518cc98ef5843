//! One Redis server that a test owns: starts, pauses, kills and restarts it. It ends with its owner (`home.rs`).

use super::conf::RedisConf;
use super::connection::{Connection, Reply};
use crate::home::Home;
use crate::server::{as_server_user, run};
use crate::wait::wait_until;
use std::path::PathBuf;
use std::process::Command;

/// A Redis server in a directory of its own. Dropping the value stops the server and removes the directory.
#[derive(Debug)]
pub struct Redis {
    /// The directory of the server.
    home: Home,
    /// The settings of the server.
    conf: RedisConf,
    /// The option that follows the file of settings, such as `--sentinel`. Empty for an ordinary server.
    option: &'static str,
}

/// Names the program that the tests start in the place of `redis-server`, such as `valkey-server`.
const PROGRAM: &str = "PG_CACHE_TEST_REDIS_SERVER";

/// Returns the program that serves.
fn program() -> String {
    std::env::var(PROGRAM).ok().filter(|program| !program.is_empty()).unwrap_or("redis-server".to_owned())
}

/// Returns the script that starts the server in the directory `$1`.
fn start() -> String {
    START.replace("PROGRAM", &format!("'{}'", program()))
}

/// Starts the server in the directory `$1` and writes its process id to a file. `$2` is an option that follows the file of
/// settings. The shell may end while the server runs.
const START: &str = r#"
    rm -f "$1/socket"
    PROGRAM "$1/conf" $2 --dir "$1" --unixsocket "$1/socket" --logfile "$1/log" </dev/null >/dev/null 2>&1 &
    echo $! >"$1/pid"
"#;

/// The first script of the keeper (see `Home::keep`), before `START`: `$3` is the text of the settings.
const WRITE: &str = r#"printf '%s' "$3" >"$1/conf""#;

/// The last script of the keeper.
const KILL: &str = r#"kill -KILL "$(cat "$1/pid")" 2>/dev/null"#;

impl Redis {
    /// Starts a server that listens on a Unix socket only.
    ///
    /// # Panics
    /// When there is no `redis-server`, or it does not start.
    pub fn start() -> Self {
        Self::start_with(&RedisConf::socket())
    }

    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// When there is no `redis-server`, or it does not start.
    pub fn start_with(conf: &RedisConf) -> Self {
        Self::start_program(conf, "")
    }

    /// Starts a server with an option, such as `--sentinel`, or with none if `option` is empty.
    pub(super) fn start_program(conf: &RedisConf, option: &'static str) -> Self {
        run(Command::new(program()).arg("--version"));
        let text = conf.text();
        let begin = format!("{WRITE}\n{}", start());
        let home = Home::keep(&begin, KILL, &[option.as_ref(), text.as_ref()]);
        let redis = Self { home, conf: conf.clone(), option };
        redis.await_answer();
        redis
    }

    fn await_answer(&self) {
        wait_until("Redis to answer", || {
            if self.process().is_some_and(|process| state(process).is_none()) {
                panic!("Redis has ended:\n{}", self.log());
            }
            let reply = self.try_connect().and_then(|mut connection| connection.try_send(&["PING"]).ok());
            matches!(reply, Some(Reply::Text(_)))
        });
    }

    /// Returns the path of the server's socket. Every server listens there, also one with a port.
    pub fn socket(&self) -> PathBuf {
        self.home.path().join("socket")
    }

    /// Returns the TCP port.
    ///
    /// # Panics
    /// When the server has a socket only.
    pub fn port(&self) -> u16 {
        self.conf.port().expect("the server has a port")
    }

    /// Returns `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Returns the URL of the server, with user and password.
    pub fn url(&self) -> String {
        let Some(port) = self.conf.port() else { return format!("unix://{}", self.socket().display()) };
        self.url_at(&format!("127.0.0.1:{port}"))
    }

    /// Returns the URL of the server, with another host and port, such as those of a proxy.
    pub fn url_at(&self, address: &str) -> String {
        let scheme = if self.conf.authority().is_some() { "rediss" } else { "redis" };
        format!("{scheme}://{}{address}", self.conf.credentials())
    }

    /// Returns the settings with which the server was started.
    pub(super) fn conf(&self) -> &RedisConf {
        &self.conf
    }

    /// Returns the command for a client program (`redis-cli`, `redis-benchmark`) that connects to this server as the default user.
    pub fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-s").arg(self.socket());
        command.envs(self.conf.default_password().map(|password| ("REDISCLI_AUTH", password)));
        command
    }

    /// Opens a connection as the default user.
    ///
    /// # Panics
    /// When the server does not listen.
    pub fn connect(&self) -> Connection {
        self.try_connect().unwrap_or_else(|| panic!("Redis does not listen:\n{}", self.log()))
    }

    fn try_connect(&self) -> Option<Connection> {
        let mut connection = Connection::open(&self.socket())?;
        if let Some(password) = self.conf.default_password() {
            connection.try_send(&["AUTH", password]).ok()?;
        }
        Some(connection)
    }

    /// Runs one command and returns the answer as text: empty for nil, and one line for each reply of a list.
    ///
    /// # Panics
    /// When Redis answers with an error.
    pub fn command(&self, words: &[&str]) -> String {
        match self.connect().send(words) {
            Reply::List(replies) => {
                let texts = replies.iter().map(|reply| reply.text().unwrap_or_default());
                texts.collect::<Vec<_>>().join("\n")
            }
            Reply::Error(error) => panic!("{words:?}: {error}"),
            reply => reply.text().unwrap_or_default(),
        }
    }

    /// Returns the value of one field of `INFO`, such as `redis_version`, or `None` if this version has no such field.
    pub fn info(&self, field: &str) -> Option<String> {
        let info = self.command(&["INFO", "everything"]);
        info.lines().find_map(|line| {
            let (name, value) = line.trim_end().split_once(':')?;
            (name == field).then(|| value.to_owned())
        })
    }

    /// Returns the role that the server says it has (`master` or `slave`), or `None` if it does not answer.
    pub fn role(&self) -> Option<String> {
        match self.try_connect()?.try_send(&["ROLE"]) {
            Ok(Reply::List(mut reply)) => reply.remove(0).text(),
            _ => None,
        }
    }

    /// Returns the log of the server.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    fn process(&self) -> Option<u32> {
        std::fs::read_to_string(self.home.path().join("pid")).ok()?.trim().parse().ok()
    }

    fn signal(&self, signal: &str) -> u32 {
        let process = self.process().expect("the server has a process");
        run(as_server_user("kill").args([signal, &process.to_string()]));
        process
    }

    /// Stops the process, as SIGSTOP does: its connections stay open, and nothing is answered.
    pub fn pause(&self) {
        let process = self.signal("-STOP");
        wait_until("Redis to stand still", || state(process) == Some('T'));
    }

    /// Lets the process go on after [`Redis::pause`].
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    /// Kills the process. Everything that was not saved is lost.
    pub fn kill(&self) {
        let process = self.signal("-KILL");
        wait_until("the end of Redis", || state(process).is_none());
    }

    /// Starts the killed server again, with the data of the last [`Redis::save`], or empty.
    pub fn restart(&self) {
        let mut shell = as_server_user("sh");
        run(shell.args(["-c", &start(), "start"]).arg(self.home.path()).arg(self.option));
        self.await_answer();
    }

    /// Saves the data to disk, for a later [`Redis::restart`].
    pub fn save(&self) {
        self.command(&["SAVE"]);
    }
}

/// Returns the state of a process as the kernel shows it, or `None` if the process has ended.
fn state(process: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program is in parentheses. It may contain anything, so the last one counts.
    let state = stat.rsplit(')').next()?.trim_start().chars().next()?;
    (!matches!(state, 'Z' | 'X')).then_some(state)
}
