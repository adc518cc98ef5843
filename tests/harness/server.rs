//! An installation of PostgreSQL with the build under test in it, and the account that runs it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Names the `pg_config` of the private installation; the make targets set it.
const PG_CONFIG: &str = "PG_CACHE_TEST_PG_CONFIG";

/// An installation of PostgreSQL that the caller may run servers of.
#[derive(Clone, Debug)]
pub struct Server {
    bin: PathBuf,
    libraries: PathBuf,
    headers: PathBuf,
    pgxs_tests: PathBuf,
    major: u32,
    without_icu: bool,
}

impl Server {
    /// The installation that the make target prepared.
    ///
    /// # Panics
    /// Outside of `make test` and `make bench`, when nobody named one.
    pub fn from_env() -> Self {
        let pg_config = std::env::var(PG_CONFIG).unwrap_or_else(|_| {
            panic!("{PG_CONFIG} is not set: run `make test`, or `. make/env.sh` for a single test")
        });
        Self::new(Path::new(&pg_config))
    }

    /// The installation that `pg_config` belongs to.
    pub fn new(pg_config: &Path) -> Self {
        let ask = |option: &str| {
            let output = Command::new(pg_config).arg(option).output().expect("pg_config runs");
            assert!(output.status.success(), "{} {option} failed", pg_config.display());
            String::from_utf8(output.stdout).expect("pg_config speaks UTF-8").trim().to_owned()
        };
        let version = ask("--version");
        let major = version
            .split_whitespace()
            .nth(1)
            .and_then(|number| number.split(|c: char| !c.is_ascii_digit()).next())
            .and_then(|major| major.parse().ok())
            .unwrap_or_else(|| panic!("no major version in {version:?}"));
        let libraries = PathBuf::from(ask("--pkglibdir"));
        let pgxs_tests = libraries.join("pgxs/src/test");
        let headers = PathBuf::from(ask("--includedir-server"));
        let without_icu = ask("--configure").contains("--without-icu");
        Self { bin: PathBuf::from(ask("--bindir")), libraries, headers, pgxs_tests, major, without_icu }
    }

    /// The major version, 15 and up.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Whether it was built to have no collations of ICU. PostgreSQL has them unless its builder says otherwise, from 16 on.
    pub fn is_without_icu(&self) -> bool {
        self.without_icu
    }

    /// Whether it comes without a library that PostgreSQL's own sources have, as an unpacked server does (`make/base.sh`): tests leave out
    /// there what needs it.
    ///
    /// # Panics
    /// If that is the server of the major that everything is proven on.
    pub fn lacks(&self, library: &str) -> bool {
        let lacks = !self.libraries.join(library).with_extension("so").is_file();
        assert!(!lacks || self.major != 15, "PostgreSQL 15 is to be tested with {library}");
        lacks
    }

    /// Makes a library for the server out of C, beside its own, and returns the name to load it by.
    ///
    /// # Panics
    /// When it does not compile.
    pub fn compile(&self, name: &str, source: &Path) -> String {
        let library = self.libraries.join(name).with_extension("so");
        // Others may be making it, or loading it.
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let part = library.with_extension(format!("{}-{number}.part", std::process::id()));
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-I"]).arg(&self.headers);
        run(compiler.arg("-o").arg(&part).arg(source));
        std::fs::rename(&part, &library).expect("it can be put in its place");
        name.to_owned()
    }

    /// The directory of the libraries that the server loads.
    pub fn libraries(&self) -> &Path {
        &self.libraries
    }

    /// The path of a client or server program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// The path of one of the test programs that come with PGXS, such as `regress/pg_regress`.
    pub fn pgxs_test_program(&self, name: &str) -> PathBuf {
        self.pgxs_tests.join(name)
    }

    /// The command that runs one of the test programs that come with PGXS as the account that owns the clusters.
    pub fn pgxs_test_command(&self, name: &str) -> Command {
        as_server_user(self.pgxs_test_program(name))
    }

    /// The command that runs a program of the installation as the account that owns the clusters.
    pub fn command(&self, program: &str) -> Command {
        as_server_user(self.program(program))
    }
}

/// PostgreSQL refuses to run as root: root runs servers as `postgres`, everybody else as themselves.
pub(crate) fn as_server_user(program: impl AsRef<OsStr>) -> Command {
    let mut command = if runs_as_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    // A caller's PGPORT or PGOPTIONS must not reach our servers and clients.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") && name != PG_CONFIG {
            command.env_remove(name);
        }
    }
    // Where it is set, every error that passes through the library has the way it took as its detail.
    command.env_remove("RUST_BACKTRACE");
    // The server's account may not be able to read our working directory.
    command.current_dir("/");
    command
}

/// Whether this process is root's.
pub(crate) fn runs_as_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Runs a command to its end and returns what it said.
///
/// # Panics
/// When it fails, with everything it printed.
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
