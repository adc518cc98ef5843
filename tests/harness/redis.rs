//! A real Redis server that a test or a measurement owns.
//!
//! Like a [`Cluster`](crate::Cluster), it has a keeper: a shell process that starts the server and kills it when a pipe
//! closes. The owner holds the pipe open until it drops the [`Redis`] or dies.

use crate::server::{as_server_user, run};
use crate::wait::wait_until;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A Redis server on a Unix socket in a directory of its own. It writes nothing to disk. Dropping the value stops the
/// server and removes the directory.
#[derive(Debug)]
pub struct Redis {
    home: PathBuf,
    keeper: Child,
}

impl Redis {
    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// When there is no `redis-server`, or it does not start.
    pub fn start() -> Self {
        run(Command::new("redis-server").arg("--version"));
        let made = run(as_server_user("mktemp").args(["-d", "/tmp/pg_cache-test.XXXXXX"]));
        let home = PathBuf::from(String::from_utf8_lossy(&made.stdout).trim());
        let redis = Self { keeper: start_keeper(&home), home };
        // A client of another account must be able to enter the directory.
        run(as_server_user("chmod").arg("755").arg(&redis.home));
        wait_until("Redis to answer", || {
            let ping = redis.client("redis-cli").arg("PING").output().expect("redis-cli starts");
            ping.stdout == b"PONG\n"
        });
        redis
    }

    /// Returns the path of the server's socket. The server accepts connections only there.
    pub fn socket(&self) -> PathBuf {
        self.home.join("socket")
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

    /// Returns the value of one field of `INFO`, such as `redis_version`.
    pub fn info(&self, field: &str) -> Option<String> {
        let info = self.command(&["INFO", "everything"]);
        info.lines().find_map(|line| {
            let (name, value) = line.trim_end().split_once(':')?;
            (name == field).then(|| value.to_owned())
        })
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // If the keeper fails, a directory stays in /tmp. That must not hide the result of the test.
        let _ = self.keeper.wait();
    }
}

/// Starts the keeper, which runs the server, outlives this process and removes the directory.
fn start_keeper(home: &Path) -> Child {
    // `cat` ends when the pipe closes. A terminal's signals must not end the keeper, so it ignores them.
    let script = r#"
        trap '' INT TERM HUP
        redis-server --port 0 --unixsocket "$1/socket" --unixsocketperm 777 \
            --save '' --appendonly no --dir "$1" --logfile "$1/log" </dev/null &
        cat >/dev/null
        kill -KILL $! 2>/dev/null
        wait
        rm -rf "$1"
    "#;
    as_server_user("sh")
        .args(["-c", script, "keeper"])
        .arg(home)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh starts")
}
