//! Runs PostgreSQL's own two test programs, `pg_regress` and `pg_isolation_regress`, over `tests/pg_regress` and
//! `tests/isolation`.
//!
//! Each file runs in a database of its own, so that no test sees what another left behind. Several files run side by
//! side. A file with no expected output, or an expected output with no file, is a failure.
//!
//! Files that run at the same time have different clusters: the expected outputs have hits, and changes in another database of the
//! same cluster could make them misses. The next file takes the cluster over. A file that begins with the comment "Fills the
//! memory." gets a cluster for itself alone, because it would evict the values of later files.

use pg_cache_testbed::{Cluster, Conf};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::Instant;

/// A family of tests: the place of its files and the program that runs them.
struct Suite {
    /// The name that is printed, and the prefix of the databases.
    name: &'static str,
    /// The directory of the suite, in the directory of this file.
    directory: &'static str,
    /// The directory of the test files, in `directory`. The expected output is in `expected` beside it.
    inputs: &'static str,
    input_extension: &'static str,
    /// The program that runs a file, in the directory of PGXS's test programs.
    program: &'static str,
}

const SUITES: [Suite; 2] = [
    Suite {
        name: "regress",
        directory: "pg_regress",
        inputs: "sql",
        input_extension: "sql",
        program: "regress/pg_regress",
    },
    Suite {
        name: "isolation",
        directory: "isolation",
        inputs: "specs",
        input_extension: "spec",
        program: "isolation/pg_isolation_regress",
    },
];

/// Runs the files whose name contains the filter, as many at a time as there are processors. Prints a line for each, then the
/// failures.
fn main() -> ExitCode {
    // Of cargo's test arguments, this program supports only the filter: a part of `suite/test`.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let tests: Vec<(&Suite, String)> = SUITES
        .iter()
        .flat_map(|suite| suite.tests().into_iter().map(move |test| (suite, test)))
        .filter(|(suite, test)| format!("{}/{test}", suite.name).contains(&filter))
        .collect();

    let queue = Mutex::new(tests.iter());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                let mut cluster = None;
                while let Some((suite, test)) = { queue.lock().expect("no worker panics").next() } {
                    let started = Instant::now();
                    let start = || Cluster::start(&Conf::preloaded());
                    let own = suite.fills_memory(test).then(start);
                    let outcome = match &own {
                        Some(own) => suite.run(test, own),
                        None => suite.run(test, cluster.get_or_insert_with(start)),
                    };
                    let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
                    println!(
                        "test {}/{test} ... {verdict} ({:.1} s)",
                        suite.name,
                        started.elapsed().as_secs_f32()
                    );
                    if let Err(why) = outcome {
                        failures
                            .lock()
                            .expect("no worker panics")
                            .push(format!("---- {}/{test} ----\n{why}", suite.name));
                    }
                }
                // All tests of this cluster have ended, so the check sees the final state of its cache.
                for finding in cluster.as_ref().map(findings).unwrap_or_default() {
                    let mut failures = failures.lock().expect("no worker panics");
                    failures.push(format!("---- cache_check ----\n{finding}"));
                }
            });
        }
    });

    let failures = failures.into_inner().expect("no worker panics");
    for failure in &failures {
        println!("\n{failure}");
    }
    // The summary has the format of cargo's test binaries, so that `make/test.sh` can add it up.
    let verdict = if failures.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {} passed; {} failed",
        tests.len().saturating_sub(failures.len()),
        failures.len()
    );
    if failures.is_empty() && !tests.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Returns what `cache_check()` reports in a cluster.
fn findings(cluster: &Cluster) -> Vec<String> {
    let mut session = cluster.connect("postgres");
    session.batch_execute("CREATE EXTENSION pg_cache").expect("the extension installs");
    let rows = session.query("SELECT cache_check()", &[]).expect("the cache can be checked");
    rows.iter().map(|row| row.get(0)).collect()
}

impl Suite {
    /// Returns the directory of the suite.
    fn root(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(self.directory)
    }

    /// Returns the path of the test file.
    fn input(&self, test: &str) -> PathBuf {
        self.root().join(self.inputs).join(format!("{test}.{}", self.input_extension))
    }

    /// Returns the path of the expected output.
    fn answer(&self, test: &str) -> PathBuf {
        self.root().join("expected").join(format!("{test}.out"))
    }

    /// Returns all names that have an input, an answer, or both. An alternative answer (`name_1.out`) belongs to `name`.
    fn tests(&self) -> BTreeSet<String> {
        let inputs = stems(&self.root().join(self.inputs), self.input_extension);
        let answers = stems(&self.root().join("expected"), "out").into_iter().filter(|answer| {
            !answer
                .rsplit_once('_')
                .is_some_and(|(test, number)| number.parse::<u8>().is_ok() && inputs.contains(test))
        });
        answers.chain(inputs.iter().cloned()).collect()
    }

    /// Returns whether a test fills the memory, so that it would evict the values of other tests.
    fn fills_memory(&self, test: &str) -> bool {
        self.text(test).starts_with("-- Fills the memory.")
    }

    /// Returns the text of the input, or an empty text if there is none. `run` reports a missing input.
    fn text(&self, test: &str) -> String {
        std::fs::read_to_string(self.input(test)).unwrap_or_default()
    }

    /// Runs one test in a new database of the cluster. The error contains the output of the program and the differences.
    fn run(&self, test: &str, cluster: &Cluster) -> Result<(), String> {
        for file in [self.input(test), self.answer(test)] {
            if !file.is_file() {
                return Err(format!("{} is missing", file.display()));
            }
        }
        let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join(self.name).join(test);
        // Files of an earlier run would be read as the result of this one.
        let _ = std::fs::remove_dir_all(&output);
        std::fs::create_dir_all(&output).map_err(|error| error.to_string())?;

        let mut command = cluster.point_here(Command::new(cluster.server().pgxs_test_program(self.program)));
        command
            .arg(format!("--inputdir={}", self.root().display()))
            .arg(format!("--outputdir={}", output.display()))
            .arg(format!("--bindir={}", cluster.server().program("").display()))
            .arg(format!("--host={}", cluster.socket_dir().display()))
            .arg(format!("--dbname={}_{test}", self.name))
            .args(["--user=postgres", "--load-extension=pg_cache", test])
            .current_dir(&output)
            .stdin(Stdio::null());
        let ran = command.output().map_err(|error| format!("{command:?}: {error}"))?;
        if ran.status.success() {
            return Ok(());
        }
        let diffs = std::fs::read_to_string(output.join("regression.diffs")).unwrap_or_default();
        Err(format!(
            "{}{}{diffs}",
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr)
        ))
    }
}

/// Returns the names, without the extension, of the files with that extension in a directory.
fn stems(directory: &Path, extension: &str) -> BTreeSet<String> {
    std::fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("the directory can be read").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect()
}
