//! `make bench`: pg_cache side by side with a table and with Redis, and its hot tier by itself, in one run on one machine.
//!
//! The order of business: what is measured stands in [`plan`]; [`bed`] has the servers and their data;
//! [`rounds`] runs the contenders in turns, each by way of [`drive`]; [`counters`] asks the
//! processor what an operation cost. What speaks for itself stands in [`parts`]: [`served`] has servers of its own,
//! [`hot_tier`] measures the core by itself, [`eviction`] what it keeps. [`statistics`] says what the numbers are worth; [`report`] writes them down.

mod bed;
mod counters;
mod drive;
mod eviction;
mod hot_tier;
mod machine;
mod pace;
mod parts;
mod plan;
mod progress;
mod report;
mod rounds;
mod served;
mod statistics;
mod tier_bed;

use anyhow::{Context, Result, bail};
use pace::Pace;
use report::Report;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: pg_cache_bench --output DIRECTORY [--quick] [--only PART-OF-AN-ID] [--redraw]";

/// What the command line asks for.
struct Order {
    /// Where the results go.
    output: PathBuf,
    /// Fewer and shorter rounds.
    quick: bool,
    /// Only the measurements whose id contains this.
    only: Option<String>,
    /// Measure nothing: write table and chart again from the JSON that is there.
    redraw: bool,
}

impl Order {
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
    if std::env::args().nth(1).as_deref() == Some("eviction") {
        return eviction::command::run(std::env::args().skip(2));
    }
    let order = Order::from_args(std::env::args().skip(1))?;
    let report = if order.redraw { Report::read(&order.output)? } else { measure(&order)? };
    report.write(&order.output)?;
    print!("{}", report.markdown());
    Ok(())
}

fn measure(order: &Order) -> Result<Report> {
    let wanted = |id: &str| order.only.as_ref().is_none_or(|part| id.contains(part));
    let mut plan = plan::measurements();
    plan.retain(|measurement| wanted(&measurement.id));
    let parts: Vec<_> = parts::PARTS.into_iter().filter(|part| wanted(part.id)).collect();
    if plan.is_empty() && parts.is_empty() {
        let mut ids: Vec<_> = plan::measurements().into_iter().map(|measurement| measurement.id).collect();
        ids.extend(parts::PARTS.map(|part| part.id.into()));
        bail!("nothing has {} in its id: there are {}", order.only.as_deref().unwrap_or(""), ids.join(", "));
    }
    if !plan.is_empty() || parts.iter().any(|part| part.served) {
        bed::check_tools()?;
    }
    let pace = if order.quick { Pace::QUICK } else { Pace::FULL };
    let busy_before = machine::busy_share();
    let stolen = machine::StolenTime::since_now();
    let (side_by_side, servers) =
        if plan.is_empty() { Default::default() } else { measure_servers(plan, &pace)? };
    let sections = parts::run(&parts, &pace);
    let machine = machine::Machine::look(servers, busy_before, stolen.share())?;
    Ok(Report::new(&pace, order, machine, side_by_side, sections))
}

/// The servers are gone when this returns: what is measured after it has the machine for itself.
fn measure_servers(
    plan: Vec<plan::Measurement>,
    pace: &Pace,
) -> Result<(report::SideBySide, Option<machine::Servers>)> {
    let bed = bed::Bed::make()?;
    let counters = counters::Counters::of_process(bed.postmaster());
    let samples = rounds::run(&bed, &plan, pace, &counters)?;
    bed.check_hits()?;
    let servers = machine::Servers::ask(&bed)?;
    Ok((report::SideBySide { plan, counters: counters.verdict(), samples }, Some(servers)))
}
