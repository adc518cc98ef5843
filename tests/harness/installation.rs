//! A copy of the installation under test, whose files of pg_cache a test may replace.

use crate::home::Home;
use crate::server::{Server, as_server_user, run};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A copy of an installation in a temporary directory. It is removed when the value is dropped, so a cluster of it must be dropped
/// first.
#[derive(Debug)]
pub struct Installation {
    /// The copy as an installation.
    server: Server,
    /// The directory of the scripts and control files of extensions in the copy.
    scripts: PathBuf,
    // Dropped last.
    _home: Home,
}

impl Installation {
    /// Copies the installation that the make target prepared.
    pub fn copy() -> Self {
        let original = Server::from_env();
        let home = Home::keep("", "", &[]);
        let share = original.scripts();
        // The private installation is a tree whose parts find each other by relative paths (make/server.sh).
        let bin = original.program("");
        let top = bin.ancestors().find(|top| share.starts_with(top)).expect("they have a common parent");
        let copy = home.path().join("installation");
        // The copy belongs to the server's account, which removes it.
        run(as_server_user("cp").arg("-a").arg(top).arg(&copy));
        let moved = |path: &Path| copy.join(path.strip_prefix(top).expect("it is below the common parent"));
        let server = Server::new(&moved(&original.program("pg_config")));
        Self { scripts: moved(share), server, _home: home }
    }

    /// Returns the copy.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Returns a script or the control file of the extension.
    pub fn read(&self, name: &str) -> String {
        let path = self.scripts.join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Writes a script or the control file of the extension.
    pub fn write(&self, name: &str, text: &str) {
        self.replace(&self.scripts.join(name), text.as_bytes());
    }

    /// Puts a library with another version in the place of the library, as a package manager does: the old file keeps its content
    /// for the processes that have loaded it. Only the text of the version differs.
    pub fn give_library_version(&self, from: &str, to: &str) {
        assert_eq!(from.len(), to.len(), "a text in a library cannot change its length");
        let path = self.server.libraries().join("pg_cache.so");
        let mut bytes = std::fs::read(&path).expect("the library can be read");
        let mut count = 0;
        for at in 0..bytes.len() - from.len() {
            if bytes[at..].starts_with(from.as_bytes()) {
                bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
                count += 1;
            }
        }
        assert!(count > 0, "the library does not contain its version");
        self.replace(&path, &bytes);
    }

    /// Puts a file with this content in the place of another one. A process that has opened the old file keeps it.
    fn replace(&self, path: &Path, content: &[u8]) {
        let part = path.with_extension("part");
        std::fs::write(&part, content).expect("the copy can be written");
        run(Command::new("chmod").arg("755").arg(&part));
        std::fs::rename(&part, path).expect("the copy can be written");
    }
}
