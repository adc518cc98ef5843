//! The command `pg_cache_bench eviction`: replays *traces*, sequences of requests, on our *tier*, the cache of the crate
//! `pg_cache_core`, and on other caches, and compares their hit rates. `make bench` runs the same simulation as one part of the
//! report; this command runs it alone, also with traces from files.

use super::simulate;
use super::traces::{self, Extent};
use crate::pace::Pace;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::str::FromStr;

const USAGE: &str = "usage: pg_cache_bench eviction [--trace FILE.csv]... [--output DIRECTORY] [--keys NUMBER] \
                     [--requests NUMBER] [--shards NUMBER]";

/// Runs the command, prints the result, and writes it to files if there is `--output`. `words` are the arguments after `eviction`:
/// - `--trace` reads a trace from a file. It may be repeated. Without it, the program makes the traces of the report.
/// - `--output` writes `eviction.json` and `eviction.md` to a directory.
/// - `--keys` and `--requests` are the size of the traces that the program makes.
/// - `--shards` is the number of shards of our tier. With 0, the default, the tier chooses the number by its size.
pub fn run(mut words: impl Iterator<Item = String>) -> Result<()> {
    let (mut extent, mut shards) = (Pace::FULL.traces, 0);
    let mut files: Vec<PathBuf> = Vec::new();
    let mut output: Option<PathBuf> = None;
    while let Some(word) = words.next() {
        let mut next = || words.next().with_context(|| format!("{word} needs a value. {USAGE}"));
        match word.as_str() {
            "--trace" => files.push(next()?.into()),
            "--output" => output = Some(next()?.into()),
            "--keys" => extent.keys = number(&next()?)?,
            "--requests" => extent.requests = number(&next()?)?,
            "--shards" => shards = number(&next()?)?,
            other => bail!("what is {other}? {USAGE}"),
        }
    }
    // The smallest capacity is 1 % of the working set. In the traces that the program makes of values of one size, the working
    // set has one value for each key. So with fewer than 100 keys, the smallest cache could not hold a single value.
    let Extent { keys, requests } = extent;
    anyhow::ensure!(keys >= 100 && requests > 0, "that is too little to simulate");
    let traces = match files[..] {
        [] => super::made(extent),
        _ => files.iter().map(|file| traces::read(file)).collect::<Result<_>>()?,
    };
    let section = simulate(&traces, shards);
    print!("{}", section.markdown());
    match output {
        Some(directory) => write(&directory, &section),
        None => Ok(()),
    }
}

/// Parses the value of an option, which must be a number.
fn number<N: FromStr>(word: &str) -> Result<N> {
    word.parse().ok().with_context(|| format!("{word} is no number that fits. {USAGE}"))
}

/// Writes the section to `eviction.json` and `eviction.md` in a directory, and replaces those of an earlier run.
fn write(directory: &Path, section: &crate::report::section::Section) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let json = serde_json::to_string_pretty(section).context("the results are not JSON")? + "\n";
    for (ending, content) in [("json", json), ("md", section.markdown())] {
        let path = directory.join(format!("eviction.{ending}"));
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
