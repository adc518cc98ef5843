//! Counts the processor time, instructions and cycles that the server spends on an operation, with `perf stat`.
//!
//! The throughput on shared cores also depends on the client and on other activity of the machine. The server's own cost depends on
//! these much less. So the measurements of the plan that ask for it (`counted` in `plan.rs`) are compared by this cost as well.

use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

/// The counted events, by perf's names. The kernel itself measures `task-clock`, so a machine without processor counters has it,
/// too.
const EVENTS: &str = "task-clock,instructions,cycles";

/// The cost of some processes and of the children that they start while perf counts, in total or for one operation. `None` means
/// that perf could not count the event.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Processor time in nanoseconds.
    pub nanoseconds: Option<f64>,
    /// Instructions, in user mode and, if the user may count them, in kernel mode.
    pub instructions: Option<f64>,
    /// Processor cycles, in the same modes.
    pub cycles: Option<f64>,
}

impl Counts {
    /// The counts of a process that did nothing.
    pub const NOTHING: Self = Self { nanoseconds: Some(0.0), instructions: Some(0.0), cycles: Some(0.0) };
}

/// Whether and what perf can count on this machine.
pub struct Counters {
    /// Whether perf can count any event.
    works: bool,
    /// A sentence for the report that says which events are counted and which are not, and why.
    verdict: String,
}

impl Counters {
    /// Counts the process `pid`, which must exist, for a moment. The answer is taken to hold for all processes that this user may
    /// count.
    pub fn of_process(pid: u32) -> Self {
        match Meter::start(&[pid]).and_then(Meter::stop) {
            Err(error) => Self { works: false, verdict: format!("Not counted: {error:#}.") },
            Ok(counts) => Self { works: counts != Counts::default(), verdict: verdict(&counts) },
        }
    }

    /// Returns whether perf can count any event.
    pub fn work(&self) -> bool {
        self.works
    }

    /// Returns the sentence for the report: which events are counted and which are not.
    pub fn verdict(&self) -> String {
        self.verdict.clone()
    }
}

/// Returns the verdict after counts that perf has returned without an error.
fn verdict(counts: &Counts) -> String {
    let kinds = [
        ("processor time", counts.nanoseconds),
        ("instructions", counts.instructions),
        ("cycles", counts.cycles),
    ];
    let list = |wanted: bool| -> String {
        let names: Vec<_> =
            kinds.iter().filter(|(_, count)| count.is_some() == wanted).map(|(name, _)| *name).collect();
        names.join(" and ")
    };
    match (list(true).as_str(), list(false).as_str()) {
        ("", _) => "Not counted: perf is there, but supports none of its events here.".into(),
        (counted, "") => format!("`perf stat` counts {counted}."),
        (counted, missing) => format!(
            "`perf stat` counts {counted}; {missing} are not supported on this machine, as on most virtual ones."
        ),
    }
}

/// A running `perf stat`.
///
/// perf counts as long as its child program runs. The child is `cat`. It answers as soon as the counters are attached, and it ends
/// when its input pipe closes: when this process stops counting, or dies.
pub struct Meter {
    perf: Child,
}

impl Meter {
    /// Starts to count the total cost of some processes and of their future children. There must be at least one process. Returns
    /// an error if perf is missing, or if it may not count one of them.
    pub fn start(processes: &[u32]) -> Result<Self> {
        let list: Vec<_> = processes.iter().map(u32::to_string).collect();
        let perf = Command::new("perf")
            .args(["stat", "-x", ",", "-e", EVENTS, "-p", &list.join(","), "--", "cat"])
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("perf does not start")?;
        let mut meter = Self { perf };
        let attached = meter.echo().unwrap_or(false);
        if !attached {
            let output = meter.perf.wait_with_output()?;
            let reason = String::from_utf8_lossy(&output.stderr).trim().lines().next().map(str::to_owned);
            anyhow::bail!("perf stat fails ({})", reason.unwrap_or_else(|| output.status.to_string()));
        }
        Ok(meter)
    }

    /// Sends a line to `cat`. Returns whether it came back.
    fn echo(&mut self) -> Result<bool> {
        let (input, output) = (self.perf.stdin.as_mut(), self.perf.stdout.as_mut());
        input.context("no input")?.write_all(b"attached?\n")?;
        let mut answer = String::new();
        BufReader::new(output.context("no output")?).read_line(&mut answer)?;
        Ok(answer == "attached?\n")
    }

    /// Stops counting, waits for the end of perf, and returns the counts since `start`.
    pub fn stop(mut self) -> Result<Counts> {
        drop(self.perf.stdin.take());
        let output = self.perf.wait_with_output()?;
        let report = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "perf stat fails ({})", report.trim());
        Ok(parse(&report))
    }
}

/// Parses perf's lines: value, unit, event, and more fields that are not needed. An event without a line, or whose value is no
/// number, stays `None`; only `<not counted>` is 0.
fn parse(report: &str) -> Counts {
    let mut counts = Counts::default();
    for line in report.lines() {
        let mut fields = line.split(',');
        let (Some(value), Some(_unit), Some(event)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let value: f64 = match value.parse() {
            Ok(value) => value,
            // The event could be counted, but the process did not run.
            Err(_) if value == "<not counted>" => 0.0,
            // The value is "<not supported>", or the line is not a count.
            Err(_) => continue,
        };
        // If the user may not count the kernel, perf reports `instructions:u`.
        match event.split(':').next() {
            // perf reports task-clock in milliseconds.
            Some("task-clock") => counts.nanoseconds = Some(value * 1e6),
            Some("instructions") => counts.instructions = Some(value),
            Some("cycles") => counts.cycles = Some(value),
            _ => {}
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a name with a suffix (`instructions:u`) is not recognized, if milliseconds are not converted, or if the sentence
    /// for the report leaves an event out.
    #[test]
    fn counters_are_read_with_and_without_the_kernel() {
        let report = "5.74,msec,task-clock,5736521,100.00,0.459,CPUs utilized\n\
                    123456,,instructions:u,5736521,100.00,1.20,insn per cycle\n\
                    100000,,cycles,5736521,100.00,,\n";
        let counts =
            Counts { nanoseconds: Some(5.74e6), instructions: Some(123_456.0), cycles: Some(100_000.0) };
        assert_eq!(parse(report), counts);
        assert_eq!(verdict(&counts), "`perf stat` counts processor time and instructions and cycles.");
    }

    /// Fails if an event that perf cannot count looks like a cost of 0, or if the sentence for the report does not name it.
    #[test]
    fn unsupported_counters_are_absent_and_reported() {
        let counts = parse(
            "<not counted>,msec,task-clock,0,100.00,,\n<not supported>,,instructions,0,100.00,,\n<not supported>,,cycles,0,,\n",
        );
        assert_eq!(counts, Counts { nanoseconds: Some(0.0), ..Counts::default() });
        assert!(verdict(&counts).contains("instructions and cycles are not supported"));
    }
}
