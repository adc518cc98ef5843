//! Runs a contender of the plan (`plan.rs`) that is a command of Redis (`Work::Redis`), over the wire with redis-benchmark.

use super::load::{Load, Run};
use crate::data::{KEYS, REDIS_RANDOM_KEY, value};
use anyhow::{Context, Result, bail};
use pg_cache_testbed::Redis;
use std::process::Stdio;

/// Sends `command` from all clients until about `operations` operations are done, but at least one full pipeline for each client.
/// A request has `load.keys` keys, and each key counts as one operation. redis-benchmark counts requests, so the numbers are
/// converted.
///
/// In the words of `command`, `{key}` stands for a random key and `{value}` for the value.
///
/// redis-benchmark runs with one thread: with several threads, it checks only every 250 ms whether it is done.
pub fn run(redis: &Redis, load: Load, command: &[&str], operations: u64) -> Result<Run> {
    let keys = u64::from(load.keys);
    let requests = (operations / keys).max(u64::from(load.clients * load.pipeline));
    let output = redis
        .client("redis-benchmark")
        .args(["-c", &load.clients.to_string(), "-P", &load.pipeline.to_string()])
        .args(["-n", &requests.to_string(), "-r", &KEYS.to_string(), "--csv"])
        .args(command.iter().map(|word| word.replace("{key}", REDIS_RANDOM_KEY).replace("{value}", &value())))
        .stdin(Stdio::null())
        .output()
        .context("redis-benchmark does not start")?;
    let (csv, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("redis-benchmark failed: {} {}", csv.trim(), complained.trim());
    }
    let per_second = parse(&csv)
        .with_context(|| format!("redis-benchmark said something unexpected: {csv} {complained}"))?;
    Ok(Run { operations: requests * keys, per_second: per_second * keys as f64 })
}

/// Returns the requests per second in the last row of the CSV table, found by the name of its column, or `None` if the output has
/// no positive rate.
fn parse(csv: &str) -> Option<f64> {
    let (head, row) = csv.trim_end().rsplit_once('\n')?;
    let cells = |line: &str| -> Vec<String> {
        line.trim().trim_matches('"').split("\",\"").map(str::to_owned).collect()
    };
    let column = cells(head.lines().last()?).iter().position(|name| name == "rps")?;
    cells(row).get(column)?.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if the rate is taken from a fixed column.
    #[test]
    fn the_rate_is_found_by_its_name() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\"\n\"GET 1__rand_int__\",\"81234.77\",\"0.070\"\n";
        assert_eq!(parse(csv), Some(81234.77));
    }

    /// Fails if an error message or an infinite rate becomes a result.
    #[test]
    fn output_without_a_rate_has_no_result() {
        assert_eq!(parse("ERR unknown command"), None);
        assert_eq!(parse("\"test\",\"rps\"\n\"GET\",\"inf\"\n"), None);
    }
}
