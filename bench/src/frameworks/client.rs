//! Starts the script of a framework and sends it commands. The frameworks are Django, Rails, and keyv, an interface for key-value
//! stores in Node.js. Each has an API for caches, and *backends* that store the values of this API in pg_cache, in a table or in
//! Redis. The backends are the *contenders*, the alternatives that a measurement compares. A script (`django_client.py`, for
//! instance) is a process with all contenders of one framework.
//!
//! The script connects its contenders to their servers and fills their caches. Then it writes its [`Roster`] to its standard
//! output, as one line of JSON. After that, it reads commands from its standard input, one a line:
//! `CONTENDER OPERATION MILLISECONDS`. CONTENDER is the index in the roster, from 0, and OPERATION the id of an operation. The
//! script repeats the operation with the contender for this time. It answers with a line `CALLS NANOSECONDS`: how many calls it
//! made, and how long they took together. It ends when its input ends.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// The first line of a script's output: its contenders and operations.
#[derive(Debug, Deserialize)]
pub struct Roster {
    /// The names and versions of the framework and the drivers.
    pub versions: String,
    pub operations: Vec<Operation>,
    /// The contenders. The first is pg_cache, which must take part in every operation.
    pub contenders: Vec<Contender>,
    /// The contenders that are missing on this machine. Each string has a name, a colon, and the reason.
    pub missing: Vec<String>,
    /// Sentences about the settings of the framework.
    pub notes: Vec<String>,
}

/// An operation that contenders repeat, such as a get of one key.
#[derive(Debug, Deserialize)]
pub struct Operation {
    /// The name in the commands to the script, and in the lists of the contenders.
    pub id: String,
    /// The name in the report.
    pub title: String,
}

#[derive(Debug, Deserialize)]
pub struct Contender {
    pub name: String,
    /// The ids of the operations that the contender takes part in.
    operations: Vec<String>,
}

impl Contender {
    /// Returns whether the contender takes part in an operation.
    pub fn has(&self, operation: &str) -> bool {
        self.operations.iter().any(|own| own == operation)
    }
}

impl Roster {
    fn parse(line: &str) -> Result<Self> {
        let roster: Self = serde_json::from_str(line).with_context(|| format!("the script says: {line}"))?;
        let first = roster.contenders.first().context("the script has no contenders")?;
        ensure!(first.name == "pg_cache", "{} is the first contender", first.name);
        let lacking = roster.operations.iter().find(|operation| !first.has(&operation.id));
        ensure!(lacking.is_none(), "pg_cache has no operation {lacking:?}");
        Ok(roster)
    }
}

/// A running script. It ends when the value is dropped.
pub struct Client {
    child: Child,
    /// `None` while the value is dropped.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Client {
    /// Starts a script, and waits until it is ready. Its standard error is that of this process.
    pub fn start(mut command: Command) -> Result<(Self, Roster)> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{command:?} does not start"))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("the output is a pipe")?);
        let mut client = Self { child, input, output };
        let roster = Roster::parse(&client.line()?)?;
        Ok((client, roster))
    }

    /// Returns the ID of the process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Makes a contender repeat an operation for about `span`. Returns the mean time of a call, in nanoseconds.
    pub fn turn(&mut self, contender: usize, operation: &str, span: Duration) -> Result<f64> {
        let input = self.input.as_mut().context("the script has no input")?;
        writeln!(input, "{contender} {operation} {}", span.as_millis()).context("the script has ended")?;
        nanoseconds(&self.line()?)
    }

    /// Reads the next line. Returns an error if the script has ended.
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("the script writes no text")?;
        ensure!(!line.is_empty(), "the script has ended early: see its error above");
        Ok(line)
    }
}

impl Drop for Client {
    /// Closes the input, and waits for the end of the script.
    fn drop(&mut self) {
        drop(self.input.take());
        // The status of a script that has failed does not matter any more.
        let _ = self.child.wait();
    }
}

/// Returns the mean time of a call, in nanoseconds, from the answer of a script to a command.
fn nanoseconds(answer: &str) -> Result<f64> {
    let parsed = answer
        .trim()
        .split_once(' ')
        .and_then(|(calls, time)| Some((calls.parse::<u32>().ok()?, time.parse::<f64>().ok()?)));
    let (calls, time) = parsed.with_context(|| format!("the script answers: {answer}"))?;
    ensure!(calls > 0 && time > 0.0, "the script has done nothing: {answer}");
    Ok(time / f64::from(calls))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if the two numbers are mixed up, or if a malformed answer becomes a time.
    #[test]
    fn an_answer_has_calls_and_their_time() {
        assert!((nanoseconds("4 1000\n").expect("it is an answer") - 250.0).abs() < 1e-9);
        for wrong in ["", "4", "4 x", "x 4", "0 1000", "4 0", "-1 5"] {
            assert!(nanoseconds(wrong).is_err(), "{wrong}");
        }
    }

    fn roster(first: &str, operations: &str) -> Result<Roster> {
        Roster::parse(&format!(
            r#"{{"versions": "F 1", "operations": [{{"id": "get", "title": "`get`"}}], "missing": [], "notes": [],
                "contenders": [{{"name": "{first}", "operations": [{operations}]}}, {{"name": "b", "operations": []}}]}}"#
        ))
    }

    /// Fails if a contender takes part in an operation that its list does not have. Also fails if a roster is accepted whose first
    /// contender is not pg_cache, in which pg_cache lacks an operation, or which is not JSON.
    #[test]
    fn a_roster_begins_with_pg_cache() {
        let found = roster("pg_cache", r#""get""#).expect("it is a roster");
        assert_eq!(found.contenders.iter().map(|one| one.has("get")).collect::<Vec<_>>(), [true, false]);
        assert!(roster("b", r#""get""#).is_err() && roster("pg_cache", "").is_err());
        assert!(Roster::parse("hello").is_err());
    }

    /// A shell stands in for a script. It answers the first command, and ends after the second one. Fails if the command does not
    /// reach the script, or if the end of the script is not an error.
    #[test]
    fn a_script_is_told_its_turns() {
        let roster = r#"{"versions": "", "operations": [], "missing": [], "notes": [],
            "contenders": [{"name": "pg_cache", "operations": []}]}"#
            .replace('\n', "");
        let mut command = Command::new("sh");
        command.args([
            "-c",
            r#"echo "$1"; read -r a b c; test "$a $b $c" = "2 get 30" && echo 10 20; read -r a"#,
            "sh",
            &roster,
        ]);
        let (mut client, _) = Client::start(command).expect("it starts");
        let turn = |client: &mut Client| client.turn(2, "get", Duration::from_millis(30));
        assert!((turn(&mut client).expect("it answers") - 2.0).abs() < 1e-9);
        assert!(turn(&mut client).is_err());
    }
}
