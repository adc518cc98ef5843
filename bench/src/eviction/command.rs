//! The command `pg_cache_bench eviction`: runs the simulation of caches alone, on made traces or on traces from files.

use super::simulate;
use super::traces::{self, Extent};
use crate::pace::Pace;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::str::FromStr;

const USAGE: &str = "usage: pg_cache_bench eviction [--trace FILE.csv]... [--output DIRECTORY] [--keys NUMBER] \
                     [--requests NUMBER] [--shards NUMBER]";

/// Simulates the traces that `words` ask for, the arguments after `eviction`. Prints the result, and with `--output` also writes it
/// to `eviction.json` and `eviction.md`. `--keys` and `--requests` size the made traces. `--shards` 0, the default, lets our tier
/// choose.
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
    // With fewer keys, the smallest capacity of the simulation, 1 % of them, would be less than one value of the traces of equal
    // values.
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

/// Returns the number that an option has as its value.
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
