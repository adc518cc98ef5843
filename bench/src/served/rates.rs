//! The part `rates` of the report: sends requests at a fixed rate for a while, and measures how long they take and whether the
//! server answers all of them.

use super::cluster;
use crate::data::{FIRST_KEY, KEYS, json};
use crate::pace::Pace;
use crate::report::notation::{count, time};
use crate::report::section::{Goal, Section, Table};
use crate::statistics::percentile;
use pg_cache_testbed::Cluster;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// The rates that are measured, in requests per second.
const RATES: [u64; 2] = [100, 10_000];
/// The connections of pgbench.
const CLIENTS: u32 = 8;
/// One request in this many sets a value.
const SETS: u32 = 10;

/// Returns about how long the part takes: at each rate, about 2 s more than requests are sent.
pub fn estimate(pace: &Pace) -> Duration {
    (pace.at_rate + Duration::from_secs(2)) * RATES.len() as u32
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let (cluster, mut session) = cluster("128MB");
    let fill = format!(
        "SELECT count(cache_set(({FIRST_KEY} + i)::text, '{}', '1 day')) FROM generate_series(0, {KEYS} - 1) AS i",
        json()
    );
    session.query_one(&fill, &[]).expect("pg_cache is filled");
    let mut table = Table::new(1, ["requests a second", "answered", "failed", "p50", "p99", "longest"]);
    let (mut goals, mut figures) = (Vec::new(), Vec::new());
    for rate in RATES {
        let outcome = run(&cluster, rate, pace.at_rate);
        let [median, most, longest] = [0.5, 0.99, 1.0].map(|part| outcome.percentile(part));
        let answered = outcome.microseconds.len() as u64;
        table.rows.push(vec![
            count(rate as f64),
            count(answered as f64),
            outcome.failed.to_string(),
            time(median),
            time(most),
            time(longest),
        ]);
        // pgbench draws the times of requests at random, so their number is right only on average: its standard deviation is the
        // square root of the number. Three standard deviations may be missing, and 2 % more.
        let due = rate * pace.at_rate.as_secs();
        let enough = due - due / 50 - 3 * due.isqrt();
        goals.push(Goal {
            wanted: format!(
                "{} requests a second for {} s, all answered",
                count(rate as f64),
                pace.at_rate.as_secs()
            ),
            found: format!("{answered} answered, {} failed, p99 {}", outcome.failed, time(most)),
            met: outcome.failed == 0 && answered >= enough,
        });
        figures.push(serde_json::json!({
            "rate": rate, "answered": answered, "failed": outcome.failed, "p50": median, "p99": most, "longest": longest,
        }));
    }
    Section {
        id: "rates".into(),
        title: "Requests at a fixed rate".into(),
        goals,
        tables: vec![table],
        explained: vec![format!(
            "pgbench with {CLIENTS} clients, prepared statements and {} random keys. One request in {SETS} sets a value of 100 bytes, the \
             others get one. Requests are scheduled at random moments, also if earlier requests are not answered yet. The time of a \
             request counts from its scheduled moment, so it includes waiting and pgbench's own work.",
            count(KEYS as f64)
        )],
        figures: figures.into(),
    }
}

/// The results of all requests of one rate.
#[derive(Default)]
struct Outcome {
    /// The requests without a time in the log.
    failed: u64,
    /// The times of the answered requests, from their scheduled moment on. `run` sorts them.
    microseconds: Vec<u32>,
}

impl Outcome {
    /// Returns the time in nanoseconds within which this fraction of the requests, from 0 to 1, was answered. The times must be
    /// sorted. 0 without answers.
    fn percentile(&self, part: f64) -> f64 {
        percentile(&self.microseconds, part).map_or(0.0, |time| f64::from(time) * 1e3)
    }

    /// Adds the requests of one of pgbench's logs, which has one line per request: client, number, time in microseconds or a word
    /// like `failed`, and more. The times are not sorted afterwards.
    fn read(&mut self, log: impl BufRead) {
        for line in log.lines().map_while(Result::ok) {
            match line.split(' ').nth(2).map(str::parse) {
                Some(Ok(time)) => self.microseconds.push(time),
                _ => self.failed += 1,
            }
        }
    }
}

/// A directory that is removed when this value is dropped.
struct Logs(PathBuf);

impl Drop for Logs {
    fn drop(&mut self) {
        // A file that stays in the temporary directory does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Lets pgbench send `rate` requests per second for `span`, and reads its logs, one for each of its threads. Only one call at a
/// time is allowed, because the directory of the logs is named after this process.
fn run(cluster: &Cluster, rate: u64, span: Duration) -> Outcome {
    let logs = Logs(std::env::temp_dir().join(format!("pg_cache-bench.{}", std::process::id())));
    std::fs::create_dir_all(&logs.0).expect("there is a temporary directory");
    let key = format!("\\set key random({FIRST_KEY}, {})\n", FIRST_KEY + KEYS - 1);
    let script = |name: &str, statement: &str| {
        let path = logs.0.join(name);
        let mut file = std::fs::File::create(&path).expect("a file can be made there");
        file.write_all(format!("{key}{statement};\n").as_bytes()).expect("and written");
        path
    };
    let get = script("get", "SELECT cache_get(:key)");
    let set = script("set", "SELECT cache_set(:key, :json, '1 day')");
    let weighted = |path: &Path, weight: u32| format!("--file={}@{weight}", path.display());
    let output = cluster
        .client("pgbench")
        .args(["--no-vacuum", "--protocol=prepared", "--log", "--jobs=2"])
        .args([weighted(&get, SETS - 1), weighted(&set, 1)])
        .arg(format!("--log-prefix={}", logs.0.join("log").display()))
        .arg(format!("--client={CLIENTS}"))
        .arg(format!("--rate={rate}"))
        .arg(format!("--time={}", span.as_secs()))
        .arg(format!("--define=json={}", json()))
        .stdin(Stdio::null())
        .output()
        .expect("pgbench starts");
    assert!(output.status.success(), "pgbench failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    let mut outcome = Outcome::default();
    for entry in std::fs::read_dir(&logs.0).expect("the logs are there").map_while(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with("log") {
            outcome.read(BufReader::new(std::fs::File::open(entry.path()).expect("a log can be read")));
        }
    }
    outcome.microseconds.sort_unstable();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a request that pgbench logs as failed counts as answered, or if microseconds are not converted to nanoseconds.
    #[test]
    fn times_and_failures_are_told_apart() {
        let mut outcome = Outcome::default();
        outcome.read(
            "0 1 250 0 1700000000 1 10\n0 2 failed 0 1700000000 2 10\n1 1 150 1 1700000000 3 5\n".as_bytes(),
        );
        outcome.microseconds.sort_unstable();
        assert_eq!((outcome.failed, &outcome.microseconds[..]), (1, &[150, 250][..]));
        assert_eq!((outcome.percentile(0.0), outcome.percentile(1.0)), (150_000.0, 250_000.0));
    }

    /// Fails if a rate at which no request was answered ends the part with a panic.
    #[test]
    fn percentiles_without_answers_are_zero() {
        assert_eq!(Outcome::default().percentile(0.99), 0.0);
    }
}
