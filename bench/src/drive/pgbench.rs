//! A statement over the wire, sent by pgbench.

use super::{Load, Run};
use crate::bed::{FIRST_KEY, FIRST_TEXT_KEY, FIRST_WRITTEN_KEY, KEYS, json, value};
use anyhow::{Context, Result, bail};
use pg_cache_testbed::Cluster;
use rustix::process::{Pid, Signal, kill_process};
use std::io::Write;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Sends `statement` with random keys from all clients for `span`.
pub fn run(cluster: &Cluster, load: Load, statement: &str, span: Duration) -> Result<Run> {
    // More threads than processors would only take turns.
    let threads =
        std::thread::available_parallelism().map_or(1, |cores| cores.get().min(load.clients as usize));
    let mut pgbench = cluster
        .client("pgbench")
        .args(["--no-vacuum", "--protocol=prepared", "--file=-"])
        .arg(format!("--client={}", load.clients))
        .arg(format!("--jobs={threads}"))
        .args([format!("--define=value={}", value()), format!("--define=json={}", json())])
        // Its own clock, which knows whole seconds only, is there in case we die before we end the run.
        .arg(format!("--time={}", span.as_secs() + 30))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("pgbench does not start")?;
    let mut input = pgbench.stdin.take().context("pgbench has no input")?;
    input.write_all(script(load, statement).as_bytes()).context("pgbench does not read its script")?;
    drop(input);
    end_after(&mut pgbench, load.clients, span)?;
    let output = pgbench.wait_with_output()?;
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("pgbench failed: {}", complained.trim().replace('\n', "; "));
    }
    parse(&said, load.pipeline).with_context(|| format!("pgbench said something unexpected: {said}"))
}

/// The script: one transaction is one operation, or one pipeline of them, each with a key of its own.
fn script(load: Load, statement: &str) -> String {
    let (variable, first) = [("text_key", FIRST_TEXT_KEY), ("written_key", FIRST_WRITTEN_KEY)]
        .into_iter()
        .find(|(variable, _)| statement.contains(&format!(":{variable}")))
        .unwrap_or(("key", FIRST_KEY));
    let last = first + KEYS - 1;
    let operation = format!("\\set {variable} random({first}, {last})\n{statement};\n");
    match load.pipeline {
        1 => operation,
        depth => format!("\\startpipeline\n{}\\endpipeline\n", operation.repeat(depth as usize)),
    }
}

/// Lets pgbench work for `span`, then ends the run as its own clock would, by SIGALRM: a fixed number of
/// transactions for each client would leave the last ones to run alone, with the machine to themselves.
fn end_after(pgbench: &mut Child, clients: u32, span: Duration) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    // Before it handles the signal it would die of it, and before it is connected there is nothing to measure.
    while !catches_alarm(pgbench.id()) || sockets(pgbench.id()) < clients as usize {
        // One that has ended has a reason to tell.
        if pgbench.try_wait()?.is_some() {
            return Ok(());
        }
        if Instant::now() > deadline {
            pgbench.kill()?;
            bail!("pgbench does not begin");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(span);
    // A child that was not waited for keeps its number, so this reaches pgbench or nobody.
    if let Some(pid) = Pid::from_raw(pgbench.id().cast_signed()) {
        kill_process(pid, Signal::ALARM).context("pgbench cannot be ended")?;
    }
    Ok(())
}

/// Whether a process handles SIGALRM by now.
fn catches_alarm(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    // Bit 0 is signal 1.
    caught & (1 << (Signal::ALARM.as_raw() - 1)) != 0
}

/// How many sockets a process has open.
fn sockets(pid: u32) -> usize {
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return 0 };
    let targets = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

fn parse(said: &str, pipeline: u32) -> Option<Run> {
    let number = |label: &str| {
        let rest = said.lines().find_map(|line| line.strip_prefix(label))?;
        rest.split([' ', '/']).next()?.parse::<f64>().ok()
    };
    let transactions = number("number of transactions actually processed: ")?;
    let per_second = number("tps = ")?;
    (transactions > 0.0 && number("number of failed transactions: ").unwrap_or(0.0) == 0.0).then(|| Run {
        operations: transactions as u64 * u64::from(pipeline),
        per_second: per_second * f64::from(pipeline),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "pgbench (15.20)\n\
        transaction type: -\n\
        number of transactions actually processed: 1000\n\
        number of failed transactions: 0 (0.000%)\n\
        latency average = 0.027 ms\n\
        initial connection time = 1.830 ms\n\
        tps = 37509.500000 (without initial connection time)\n";

    #[test]
    fn a_transaction_is_an_operation() {
        assert_eq!(parse(SAID, 1), Some(Run { operations: 1000, per_second: 37509.5 }));
    }

    #[test]
    fn or_a_pipeline_of_them() {
        assert_eq!(parse(SAID, 16), Some(Run { operations: 16_000, per_second: 600_152.0 }));
    }

    #[test]
    fn a_run_with_failures_or_without_work_is_none() {
        assert_eq!(parse(&SAID.replace("failed transactions: 0", "failed transactions: 3"), 1), None);
        assert_eq!(parse(&SAID.replace("processed: 1000", "processed: 0"), 1), None);
        assert_eq!(parse("pgbench: hello", 1), None);
    }

    #[test]
    fn each_operation_of_a_pipeline_has_its_own_key() {
        let script = script(Load { clients: 8, pipeline: 16, keys: 1 }, "SELECT :key");
        assert_eq!(
            script.matches("\\set key random(1000000000000, 1000000099999)\nSELECT :key;\n").count(),
            16
        );
        assert!(script.starts_with("\\startpipeline\n") && script.ends_with("\\endpipeline\n"));
    }
}
