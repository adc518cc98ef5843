//! A copy of the PostgreSQL installation under test. In the copy, a test may replace the files of pg_cache: its library, its
//! scripts and its control file.

use crate::home::Home;
use crate::server::{Server, as_server_user, run};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A copy of an installation in a temporary directory. Dropping the value removes the copy, so the clusters that run it must be
/// dropped first.
#[derive(Debug)]
pub struct Installation {
    /// The paths and the version of the copy.
    server: Server,
    /// The directory of the scripts and control files of extensions in the copy.
    scripts: PathBuf,
    /// The temporary directory. It removes itself when it is dropped.
    _home: Home,
}

impl Installation {
    /// Copies the installation that the make target prepared.
    pub fn copy() -> Self {
        let original = Server::from_env();
        // The directory needs no process to start or to stop.
        let home = Home::keep("", "", &[]);
        let share = original.scripts();
        // Programs find scripts and libraries by relative paths (make/server.sh). So the whole tree is copied, from the common
        // parent of programs and scripts on.
        let bin = original.program("");
        let top = bin.ancestors().find(|top| share.starts_with(top)).expect("they have a common parent");
        let copy = home.path().join("installation");
        // The copy belongs to the server's account, which removes it.
        run(as_server_user("cp").arg("-a").arg(top).arg(&copy));
        let moved = |path: &Path| copy.join(path.strip_prefix(top).expect("it is below the common parent"));
        let server = Server::new(&moved(&original.program("pg_config")));
        Self { scripts: moved(share), server, _home: home }
    }

    /// Returns the copy, for the start of a cluster.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Returns the text of a script or of the control file of the extension. `name` is the name of the file.
    pub fn read(&self, name: &str) -> String {
        let path = self.scripts.join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Writes a script or the control file of the extension. Replaces a file with the same name.
    pub fn write(&self, name: &str, text: &str) {
        self.replace(&self.scripts.join(name), text.as_bytes());
    }

    /// Replaces the library of pg_cache with one that says that its version is `to` instead of `from`. Both must have the same
    /// length. Nothing else in the library changes. As with a package manager, processes that have loaded the old library keep it.
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

    /// Replaces a file, or creates it. The content goes to a new file that is then renamed: it must never be written into the old
    /// file, because a server may have loaded that file.
    fn replace(&self, path: &Path, content: &[u8]) {
        let part = path.with_extension("part");
        std::fs::write(&part, content).expect("the copy can be written");
        // The test may run as another account than the server, which must be able to read the file.
        run(Command::new("chmod").arg("755").arg(&part));
        std::fs::rename(&part, path).expect("the copy can be written");
    }
}
