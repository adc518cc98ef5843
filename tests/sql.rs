//! Runs PostgreSQL's own two test programs over `tests/pg_regress` and `tests/isolation`.
//!
//! Every file is a run of its own in a database of its own, several side by side, so that no test sees what
//! another left behind. Roles are the whole cluster's: files that change some, and those with results of queries, which any such change
//! invalidates, take turns. So is the memory: a file that begins by saying that it fills it has a cluster of its own. A file without its counterpart (a test nobody wrote down the answer of, an answer to
//! no test) is a failure.

use pg_cache_testbed::{Cluster, Conf};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::Instant;

/// A family of tests: where its files are and which program runs them.
struct Suite {
    name: &'static str,
    directory: &'static str,
    inputs: &'static str,
    input_extension: &'static str,
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

fn main() -> ExitCode {
    // Of cargo's test arguments only the filter means something here.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let tests: Vec<(&Suite, String)> = SUITES
        .iter()
        .flat_map(|suite| suite.tests().into_iter().map(move |test| (suite, test)))
        .filter(|(suite, test)| format!("{}/{test}", suite.name).contains(&filter))
        .collect();

    let cluster = Cluster::start(&Conf::preloaded());
    let queue = Mutex::new(tests.iter());
    let roles = Mutex::new(());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some((suite, test)) = { queue.lock().expect("no worker panics").next() } {
                    let turn = suite.is_about_roles(test).then(|| roles.lock());
                    let started = Instant::now();
                    let own = suite.fills_memory(test).then(|| Cluster::start(&Conf::preloaded()));
                    let outcome = suite.run(test, own.as_ref().unwrap_or(&cluster));
                    drop(turn);
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
            });
        }
    });

    let mut failures = failures.into_inner().expect("no worker panics");
    // Now that it is quiet: what all the tests together have left of the cache.
    let mut session = cluster.connect("postgres");
    session.batch_execute("CREATE EXTENSION pg_cache").expect("the extension installs");
    for row in session.query("SELECT cache_check()", &[]).expect("the cache can be checked") {
        failures.push(format!("---- cache_check ----\n{}", row.get::<_, String>(0)));
    }
    for failure in &failures {
        println!("\n{failure}");
    }
    // The words in which cargo's own test binaries report, for whoever adds them up.
    let verdict = if failures.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {} passed; {} failed",
        tests.len().saturating_sub(failures.len()),
        failures.len()
    );
    if failures.is_empty() && !tests.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Suite {
    fn root(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(self.directory)
    }

    fn input(&self, test: &str) -> PathBuf {
        self.root().join(self.inputs).join(format!("{test}.{}", self.input_extension))
    }

    fn answer(&self, test: &str) -> PathBuf {
        self.root().join("expected").join(format!("{test}.out"))
    }

    /// Every name that has a test, an answer, or both. An alternative answer (`name_1.out`) belongs to `name`.
    fn tests(&self) -> BTreeSet<String> {
        let inputs = stems(&self.root().join(self.inputs), self.input_extension);
        let answers = stems(&self.root().join("expected"), "out").into_iter().filter(|answer| {
            !answer
                .rsplit_once('_')
                .is_some_and(|(test, number)| number.parse::<u8>().is_ok() && inputs.contains(test))
        });
        answers.chain(inputs.iter().cloned()).collect()
    }

    /// Whether a test changes roles, or finds out that somebody has changed some.
    fn is_about_roles(&self, test: &str) -> bool {
        let text = self.text(test);
        ["CREATE ROLE", "ALTER ROLE", "DROP ROLE", "cache_fetch("].iter().any(|word| text.contains(word))
    }

    /// Whether others would find their values sent away.
    fn fills_memory(&self, test: &str) -> bool {
        self.text(test).starts_with("-- Fills the memory.")
    }

    fn text(&self, test: &str) -> String {
        std::fs::read_to_string(self.input(test)).unwrap_or_default()
    }

    fn run(&self, test: &str, cluster: &Cluster) -> Result<(), String> {
        for file in [self.input(test), self.answer(test)] {
            if !file.is_file() {
                return Err(format!("{} is missing", file.display()));
            }
        }
        let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join(self.name).join(test);
        // What is left of an earlier run would be read as the result of this one.
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

/// The names, without the extension, of a directory's files.
fn stems(directory: &Path, extension: &str) -> BTreeSet<String> {
    std::fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("the directory can be read").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect()
}
