//! A real Redis server that a test or a measurement owns.
//!
//! Like a [`Cluster`](crate::Cluster) it has a keeper, a shell that starts the server and ends it when the
//! pipe we hold open closes: on drop, or because we died.

use crate::server::{as_server_user, run};
use crate::wait::wait_until;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A Redis on a Unix socket in a directory of its own, with nothing on disk, stopped and removed on drop.
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
        // The directory itself must be passable for a client of another account.
        run(as_server_user("chmod").arg("755").arg(&redis.home));
        wait_until("Redis to answer", || {
            let ping = redis.client("redis-cli").arg("PING").output().expect("redis-cli starts");
            ping.stdout == b"PONG\n"
        });
        redis
    }

    /// Its socket, the only way in.
    pub fn socket(&self) -> PathBuf {
        self.home.join("socket")
    }

    /// A client program (`redis-cli`, `redis-benchmark`), pointed at this server.
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

    /// One line of what `INFO` says, such as `redis_version`.
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
        // A keeper that fails leaves a directory in /tmp: no reason to hide the test's own verdict.
        let _ = self.keeper.wait();
    }
}

/// Starts the process that runs the server, outlives us and cleans up.
fn start_keeper(home: &Path) -> Child {
    // `cat` ends when the pipe closes; the signals of a terminal reach us, not the keeper.
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
