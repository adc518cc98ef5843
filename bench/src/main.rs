//! `make bench`: measures pg_cache on one machine, in one run, and writes a report.
//!
//! The beginning of the report compares *contenders* that do the same work: pg_cache, a table, and Redis. [`plan`] lists these
//! measurements, [`data`] has their keys and values, and [`test_servers`] starts the servers and fills them. [`rounds`] runs the
//! contenders in turns, each through [`drive`]. [`counters`] counts what an operation costs the server.
//!
//! [`parts`] lists the other parts of the report. [`served`], [`queries`], [`day`], [`tables`], [`outward`] and [`frameworks`]
//! start servers of their own. [`hot_tier`] and [`eviction`] need none: they measure the crate `pg_cache_core`, the cache in shared
//! memory, in the memory of this process ([`private_tier`]).
//!
//! [`pace`] says how often and how long everything is measured, and [`progress`] shows how far the run is. [`statistics`] computes
//! medians and their confidence intervals. [`machine`] describes the machine. [`report`] writes the results.

mod counters;
mod data;
mod day;
mod drive;
mod eviction;
mod frameworks;
mod hot_tier;
mod machine;
mod outward;
mod pace;
mod parts;
mod plan;
mod private_tier;
mod progress;
mod queries;
mod report;
mod rounds;
mod served;
mod statistics;
mod tables;
mod test_servers;

use anyhow::{Context, Result, bail};
use pace::Pace;
use report::Report;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: pg_cache_bench --output DIRECTORY [--quick] [--only PART-OF-AN-ID] [--redraw]";

/// The options of the command line.
struct Options {
    /// The directory for the results.
    output: PathBuf,
    /// Use fewer and shorter rounds.
    quick: bool,
    /// Run only the measurements and parts whose id contains this text.
    only: Option<String>,
    /// Measure nothing, and write the tables and the chart again from the existing JSON. `--quick` and `--only` then have no
    /// effect.
    redraw: bool,
}

impl Options {
    /// Reads the arguments of the program. `--output` must be given.
    fn from_args(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let (mut output, mut quick, mut only, mut redraw) = (None, false, None, false);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--output" => output = words.next(),
                "--only" => only = words.next(),
                "--quick" => quick = true,
                "--redraw" => redraw = true,
                other => bail!("what is {other}? {USAGE}"),
            }
        }
        Ok(Self { output: PathBuf::from(output.context(USAGE)?), quick, only, redraw })
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pg_cache: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    // This word starts another command, with options of its own: the simulation of caches alone.
    if std::env::args().nth(1).as_deref() == Some("eviction") {
        return eviction::command::run(std::env::args().skip(2));
    }
    let options = Options::from_args(std::env::args().skip(1))?;
    let report = if options.redraw { Report::read(&options.output)? } else { measure(&options)? };
    report.write(&options.output)?;
    print!("{}", report.markdown());
    Ok(())
}

/// Measures what the options ask for. The servers of the plan come first, then the parts, in the order of the report.
fn measure(options: &Options) -> Result<Report> {
    let wanted = |id: &str| options.only.as_ref().is_none_or(|part| id.contains(part));
    let mut plan = plan::measurements();
    plan.retain(|measurement| wanted(&measurement.id));
    let parts: Vec<_> = parts::PARTS.into_iter().filter(|part| wanted(part.id)).collect();
    if plan.is_empty() && parts.is_empty() {
        let mut ids: Vec<_> = plan::measurements().into_iter().map(|measurement| measurement.id).collect();
        ids.extend(parts::PARTS.map(|part| part.id.into()));
        bail!(
            "nothing has {} in its id: there are {}",
            options.only.as_deref().unwrap_or(""),
            ids.join(", ")
        );
    }
    if !plan.is_empty() || parts.iter().any(|part| part.served) {
        test_servers::check_tools()?;
    }
    let pace = if options.quick { Pace::QUICK } else { Pace::FULL };
    let busy_before = machine::busy_share();
    let stolen = machine::StolenTime::since_now();
    let (side_by_side, servers) =
        if plan.is_empty() { Default::default() } else { measure_servers(plan, &pace)? };
    let sections = parts::run(&parts, &pace);
    let machine = machine::Machine::look(servers, busy_before, stolen.share())?;
    Ok(Report::new(&pace, options.quick, options.only.clone(), machine, side_by_side, sections))
}

/// Runs the measurements of the plan. Their servers have stopped when this returns, so later measurements have the machine for
/// themselves.
fn measure_servers(
    plan: Vec<plan::Measurement>,
    pace: &Pace,
) -> Result<(report::SideBySide, Option<machine::Servers>)> {
    let test_servers = test_servers::TestServers::make()?;
    let counters = counters::Counters::of_process(test_servers.postmaster());
    let samples = rounds::run(&test_servers, &plan, pace, &counters)?;
    test_servers.check_hits()?;
    let servers = machine::Servers::ask(&test_servers)?;
    Ok((report::SideBySide { plan, counters: counters.verdict(), samples }, Some(servers)))
}
