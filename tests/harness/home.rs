//! The temporary directory of a server (PostgreSQL, Redis or pgbouncer) that a test owns.
//!
//! The process that owns a server may die at any moment: by a failed assertion, Ctrl-C or SIGKILL. So each directory has a
//! *keeper*, a small shell process that reads a pipe. The owner holds the other end of the pipe open. When the pipe closes, for any
//! reason, the keeper stops the server and removes the directory. Dropping a [`Home`] closes the pipe.

use crate::server::{as_server_user, run};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// A directory of the server's account. Its path is short, because the path of a socket has at most 107 bytes.
#[derive(Debug)]
pub struct Home {
    /// The path of the directory.
    path: PathBuf,
    /// The process that removes the directory.
    keeper: Child,
}

impl Home {
    /// Makes a directory and starts its keeper. The keeper runs the script `begin` at once, and the script `end` after the
    /// owner has dropped the value or has died. Then it removes the directory. In both scripts, `$1` is the directory, and the
    /// words follow as `$2` and so on. `begin` must return. If it starts a server in the background, `end` finds the process
    /// id in `$!`.
    pub fn keep(begin: &str, end: &str, words: &[&OsStr]) -> Self {
        let made = run(as_server_user("mktemp").args(["-d", "/tmp/pg_cache-test.XXXXXX"]));
        let path = PathBuf::from(String::from_utf8_lossy(&made.stdout).trim());
        // `cat` ends when the pipe closes. A terminal's signals must not end the keeper, so it ignores them.
        let script = format!("trap '' INT TERM HUP\n{begin}\ncat >/dev/null\n{end}\nrm -rf \"$1\"\n");
        let keeper = as_server_user("sh")
            .args(["-c", &script, "keeper"])
            .arg(&path)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("sh starts");
        let home = Self { path, keeper };
        // A client of another account must be able to enter the directory.
        run(as_server_user("chmod").arg("755").arg(&home.path));
        home
    }

    /// Returns the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Home {
    /// Closes the pipe, and waits until the keeper has stopped the server and removed the directory.
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // If the keeper fails, a directory stays in /tmp. That must not hide the result of the test.
        let _ = self.keeper.wait();
    }
}
