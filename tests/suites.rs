//! Runs PostgreSQL's own regression and isolation suites on a server that has loaded the library.
//!
//! The tests and their expected results come from PostgreSQL's source (`make/source.sh`), of the same release as the server.
//! `PG_CACHE_TEST_SOURCE` names the directory of that source. The output must equal PostgreSQL's expected output exactly: none
//! of the expected files is ours.

use pg_cache_testbed::{Cluster, Conf};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Instant;

/// A suite of PostgreSQL.
struct Suite {
    /// The name of the suite, which is its directory in `src/test`.
    name: &'static str,
    /// The file in that directory that lists the tests.
    schedule: &'static str,
    /// Further tests and options.
    arguments: &'static [&'static str],
    /// The program that runs the suite, in the directory of PGXS's test programs.
    program: &'static str,
}

const SUITES: [Suite; 2] = [
    Suite {
        name: "regress",
        schedule: "parallel_schedule",
        // The same limit as in PostgreSQL's own makefile.
        arguments: &["--max-concurrent-tests=20"],
        program: "regress/pg_regress",
    },
    Suite {
        name: "isolation",
        schedule: "isolation_schedule",
        // The schedule leaves these tests out, because they need a server with max_prepared_transactions > 0. Ours has that.
        arguments: &["prepared-transactions", "prepared-transactions-cic"],
        program: "isolation/pg_isolation_regress",
    },
];

/// The result of one test, as the output of the suite reports it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    /// The test failed, but the schedule says to ignore that.
    Ignored,
}

/// Runs the suites one after the other on one cluster, whose cache must be consistent afterwards. Fails if no test has passed.
fn main() -> ExitCode {
    // The only argument of cargo test that this program uses is the filter: a part of the name of a suite.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let source = std::env::var_os("PG_CACHE_TEST_SOURCE").expect("make/suites.sh names PostgreSQL's source");
    let source = Path::new(&source).join("src/test");

    // PostgreSQL's own outputs were made with autovacuum, which the harness switches off.
    let cluster = Cluster::start(&Conf::preloaded().set("autovacuum", "on"));
    // The tests load this library of C functions.
    cluster.server().compile("regress", &source.join("regress/regress.c"));
    let (mut passed, mut failures) = (0, Vec::new());
    for suite in SUITES.iter().filter(|suite| suite.name.contains(&filter)) {
        passed += suite.run(&source.join(suite.name), &cluster, &mut failures);
    }

    let mut session = cluster.connect("postgres");
    session.batch_execute("CREATE EXTENSION pg_cache").expect("the extension installs");
    for row in session.query("SELECT cache_check()", &[]).expect("the cache can be checked") {
        failures.push(format!("cache_check: {}", row.get::<_, String>(0)));
    }

    for failure in &failures {
        println!("FAILED: {failure}");
    }
    let verdict = if failures.is_empty() { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {passed} passed; {} failed", failures.len());
    if failures.is_empty() && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Suite {
    /// Runs the suite and returns the number of tests that passed. Adds a message to `failures` for each failure.
    fn run(&self, directory: &Path, cluster: &Cluster, failures: &mut Vec<String>) -> usize {
        let server = cluster.server();
        let schedule = directory.join(self.schedule);
        let extra = self.arguments.iter().filter(|argument| !argument.starts_with('-'));
        let scheduled = scheduled(&schedule) + extra.count();
        let started = Instant::now();
        // The server writes files into this directory, too.
        let output = cluster.make_directory(self.name);

        let mut command = server.pgxs_test_command(self.program);
        command
            .arg(format!("--inputdir={}", directory.display()))
            .arg(format!("--outputdir={}", output.display()))
            .arg(format!("--bindir={}", server.program("").display()))
            .arg(format!("--dlpath={}", server.libraries().display()))
            .arg(format!("--host={}", cluster.socket_dir().display()))
            .arg(format!("--schedule={}", schedule.display()))
            .args(["--user=postgres", "--no-locale", "--encoding=UTF8"])
            .args(self.arguments);
        let ran = command.stdin(Stdio::null()).output().expect("it starts");
        let text = String::from_utf8_lossy(&ran.stdout);
        let lines = || text.lines().map(|line| (line.trim(), verdict(line)));
        let count = |wanted| lines().filter(|(_, verdict)| *verdict == Some(wanted)).count();

        let (passed, failed) = (count(Verdict::Passed), count(Verdict::Failed));
        let failed_lines = lines().filter(|(_, verdict)| *verdict == Some(Verdict::Failed));
        failures.extend(failed_lines.map(|(line, _)| format!("{}: {line}", self.name)));
        if passed + failed + count(Verdict::Ignored) != scheduled {
            failures.push(format!("{}: {passed} tests of {scheduled} passed, {failed} failed", self.name));
        } else if !ran.status.success() && failed == 0 {
            failures.push(format!("{}: it ended with {}", self.name, ran.status));
        }
        if !ran.status.success() {
            lines().filter(|(_, verdict)| verdict.is_none()).for_each(|(line, _)| println!("{line}"));
            println!("{}", String::from_utf8_lossy(&ran.stderr));
            show_start(&output.join("regression.diffs"));
        }
        println!(
            "{}: {passed} passed, {failed} failed ({:.0} s)",
            self.name,
            started.elapsed().as_secs_f32()
        );
        passed
    }
}

/// Returns the number of tests that a schedule lists.
fn scheduled(schedule: &Path) -> usize {
    let text =
        std::fs::read_to_string(schedule).unwrap_or_else(|error| panic!("{}: {error}", schedule.display()));
    text.lines()
        .filter_map(|line| line.strip_prefix("test:"))
        .map(|tests| tests.split_whitespace().count())
        .sum()
}

/// Reads the result from a line of `pg_regress`, if the line has one. From PostgreSQL 16 on, the lines are in TAP format.
fn verdict(line: &str) -> Option<Verdict> {
    let after_name = line.split_once(" ... ").map(|(_, verdict)| verdict.trim_start());
    match after_name.unwrap_or(line).split_whitespace().next()? {
        "ok" => Some(Verdict::Passed),
        "not" if after_name.is_none() => Some(Verdict::Failed),
        "FAILED" if after_name.is_some() => Some(Verdict::Failed),
        "failed" if after_name.is_some() => Some(Verdict::Ignored),
        _ => None,
    }
}

/// Prints the first lines of a file of differences. After a crash every test differs, so the file can be long.
fn show_start(diffs: &Path) {
    let text = std::fs::read(diffs).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    for line in text.lines().take(400) {
        println!("{line}");
    }
    let rest = text.lines().count().saturating_sub(400);
    if rest > 0 {
        println!("... and {rest} more lines of differences");
    }
}
