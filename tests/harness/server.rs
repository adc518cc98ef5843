//! An installation of PostgreSQL that contains the pg_cache build under test, and the account that runs its servers.
//! Programs that must run as that account are started through `as_server_user`, which also removes the caller's `PG*` variables,
//! except `PG_CACHE_TEST_PG_CONFIG`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The environment variable with the path of the private installation's `pg_config`. The make targets set it.
const PG_CONFIG: &str = "PG_CACHE_TEST_PG_CONFIG";

/// An installation of PostgreSQL from which a test may start servers.
#[derive(Clone, Debug)]
pub struct Server {
    /// The directory of the client and server programs.
    bin: PathBuf,
    /// The directory of the libraries that the server loads.
    libraries: PathBuf,
    /// The directory of the scripts and control files of extensions.
    scripts: PathBuf,
    /// The directory of the C header files of the server.
    headers: PathBuf,
    /// The directory of PGXS's test programs.
    pgxs_tests: PathBuf,
    /// The major version, such as 15.
    major: u32,
    /// Whether the server was configured with `--without-icu`.
    without_icu: bool,
}

impl Server {
    /// Returns the installation that the make target prepared.
    ///
    /// # Panics
    /// If the environment names none: `make test` and `make bench` set the variable.
    pub fn from_env() -> Self {
        let pg_config = std::env::var(PG_CONFIG).unwrap_or_else(|_| {
            panic!("{PG_CONFIG} is not set: run `make test`, or `. make/env.sh` for a single test")
        });
        Self::new(Path::new(&pg_config))
    }

    /// Returns the installation that `pg_config` belongs to. Panics if the program does not run.
    pub fn new(pg_config: &Path) -> Self {
        let pg_config_option = |option: &str| {
            let output = Command::new(pg_config).arg(option).output().expect("pg_config runs");
            assert!(output.status.success(), "{} {option} failed", pg_config.display());
            String::from_utf8(output.stdout).expect("pg_config speaks UTF-8").trim().to_owned()
        };
        let version = pg_config_option("--version");
        let major = version
            .split_whitespace()
            .nth(1)
            .and_then(|number| number.split(|c: char| !c.is_ascii_digit()).next())
            .and_then(|major| major.parse().ok())
            .unwrap_or_else(|| panic!("no major version in {version:?}"));
        let libraries = PathBuf::from(pg_config_option("--pkglibdir"));
        let scripts = PathBuf::from(pg_config_option("--sharedir")).join("extension");
        let pgxs_tests = libraries.join("pgxs/src/test");
        let headers = PathBuf::from(pg_config_option("--includedir-server"));
        let without_icu = pg_config_option("--configure").contains("--without-icu");
        Self {
            bin: PathBuf::from(pg_config_option("--bindir")),
            libraries,
            scripts,
            headers,
            pgxs_tests,
            major,
            without_icu,
        }
    }

    /// Returns the major version, 15 or later.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Returns whether the server was configured with `--without-icu` and so has no ICU collations. `make/assert.sh` gives this
    /// option for every version. Since version 16, PostgreSQL is built with ICU unless the option is given. A PostgreSQL 15 that
    /// was configured without any option for ICU has none either, but this returns false: the packages of version 15 have ICU.
    pub fn is_without_icu(&self) -> bool {
        self.without_icu
    }

    /// Returns whether a library of PostgreSQL's own sources (`library`, without `.so`) is missing. The server that
    /// `make/base.sh` unpacks for version 16 has no contrib modules. Tests then skip the parts that need the library.
    ///
    /// # Panics
    /// If PostgreSQL 15 lacks the library: everything must be tested on that major.
    pub fn lacks(&self, library: &str) -> bool {
        let lacks = !self.libraries.join(library).with_extension("so").is_file();
        assert!(!lacks || self.major != 15, "PostgreSQL 15 is to be tested with {library}");
        lacks
    }

    /// Compiles a C file to a server library, puts it into the server's library directory, and returns `name`, by which the
    /// server loads it.
    ///
    /// # Panics
    /// If it does not compile, or the directory is not writable.
    pub fn compile(&self, name: &str, source: &Path) -> String {
        let library = self.libraries.join(name).with_extension("so");
        // Other tests may compile or load the same library now. So it is compiled under a unique name and then renamed.
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let part = library.with_extension(format!("{}-{number}.part", std::process::id()));
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-I"]).arg(&self.headers);
        run(compiler.arg("-o").arg(&part).arg(source));
        std::fs::rename(&part, &library).expect("it can be put in its place");
        name.to_owned()
    }

    /// Returns the directory from which the server loads libraries.
    pub fn libraries(&self) -> &Path {
        &self.libraries
    }

    /// Returns the directory of the scripts and control files of extensions.
    pub fn scripts(&self) -> &Path {
        &self.scripts
    }

    /// Returns the path of a client or server program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Returns the path of a test program of PGXS, such as `regress/pg_regress`.
    pub fn pgxs_test_program(&self, name: &str) -> PathBuf {
        self.pgxs_tests.join(name)
    }

    /// Returns the command that runs a test program of PGXS as the account that owns the clusters.
    pub fn pgxs_test_command(&self, name: &str) -> Command {
        as_server_user(self.pgxs_test_program(name))
    }

    /// Returns the command that runs a program of the installation as the account that owns the clusters.
    pub fn command(&self, program: &str) -> Command {
        as_server_user(self.program(program))
    }
}

/// Returns the command that runs a program as the account that owns the servers. PostgreSQL refuses to run as root, so
/// root runs servers as `postgres`. Every other account runs them as itself.
pub(crate) fn as_server_user(program: impl AsRef<OsStr>) -> Command {
    let mut command = if runs_as_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    // The caller's variables, such as PGPORT or PGOPTIONS, must not reach our servers and clients.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") && name != PG_CONFIG {
            command.env_remove(name);
        }
    }
    // If this variable is set, errors that pass through pg_cache get a backtrace as their detail.
    command.env_remove("RUST_BACKTRACE");
    // The server's account may not be able to enter our working directory.
    command.current_dir("/");
    command
}

/// Returns whether this process runs as root.
pub(crate) fn runs_as_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Runs a command to its end, with an empty standard input, and returns its output.
///
/// # Panics
/// If the command cannot be started or ends with a non-zero status. The message then contains all its output.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().expect("the command starts");
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
