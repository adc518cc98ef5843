//! A real Redis server that a test or a measurement owns.

use crate::home::Home;
use crate::server::run;
use crate::wait::wait_until;
use std::path::PathBuf;
use std::process::Command;

/// A Redis server on a Unix socket in a directory of its own. It writes nothing to disk. Dropping the value stops the
/// server and removes the directory.
#[derive(Debug)]
pub struct Redis {
    home: Home,
}

/// The first script of the keeper (see `Home::keep`): `$1` is the directory. `exec` hides the shell's message that its child was
/// killed.
const BEGIN: &str = r#"
    exec 2>/dev/null
    redis-server --port 0 --unixsocket "$1/socket" --unixsocketperm 777 \
        --save '' --appendonly no --dir "$1" --logfile "$1/log" </dev/null &
"#;

/// The last script of the keeper. `$!` is the Redis server.
const KILL: &str = "kill -KILL $!; wait";

impl Redis {
    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// When there is no `redis-server`, or it does not start.
    pub fn start() -> Self {
        run(Command::new("redis-server").arg("--version"));
        let redis = Self { home: Home::keep(BEGIN, KILL, &[]) };
        wait_until("Redis to answer", || {
            let ping = redis.client("redis-cli").arg("PING").output().expect("redis-cli starts");
            ping.stdout == b"PONG\n"
        });
        redis
    }

    /// Returns the path of the server's socket. The server accepts connections only there.
    pub fn socket(&self) -> PathBuf {
        self.home.path().join("socket")
    }

    /// Returns the command for a client program (`redis-cli`, `redis-benchmark`) that connects to this server.
    pub fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-s").arg(self.socket());
        command
    }

    /// Runs one command and returns the answer.
    ///
    /// # Panics
    /// When Redis answers with an error.
    pub fn command(&self, words: &[&str]) -> String {
        let output = run(self.client("redis-cli").arg("-e").args(words));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Returns the value of one field of `INFO`, such as `redis_version`, or `None` if this version has no such field.
    pub fn info(&self, field: &str) -> Option<String> {
        let info = self.command(&["INFO", "everything"]);
        info.lines().find_map(|line| {
            let (name, value) = line.trim_end().split_once(':')?;
            (name == field).then(|| value.to_owned())
        })
    }
}
