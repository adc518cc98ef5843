//! `make bench`: pg_cache side by side with a table and with Redis, in one run on one machine.
//!
//! The order of business: what is measured stands in [`plan`]; [`bed`] has the servers and their data;
//! [`rounds`] runs the contenders in turns, each through its program in [`drive`]; [`counters`] asks the
//! processor what an operation cost; [`statistics`] says what the numbers are worth; [`report`] writes them
//! down.

mod bed;
mod counters;
mod drive;
mod eviction;
mod machine;
mod pace;
mod plan;
mod progress;
mod report;
mod rounds;
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
    let mut plan = plan::measurements();
    if let Some(part) = &order.only {
        plan.retain(|measurement| measurement.id.contains(part));
        if plan.is_empty() {
            let ids: Vec<_> = plan::measurements().into_iter().map(|measurement| measurement.id).collect();
            bail!("no measurement has {part} in its id: there are {}", ids.join(", "));
        }
    }
    bed::check_tools()?;
    let pace = if order.quick { Pace::QUICK } else { Pace::FULL };
    let busy_before = machine::busy_share();

    let bed = bed::Bed::make()?;
    let counters = counters::Counters::of_process(bed.postmaster());
    let stolen = machine::StolenTime::since_now();
    let measured = rounds::run(&bed, &plan, &pace, &counters)?;
    bed.check_hits()?;
    let machine = machine::Machine::look(&bed, busy_before, stolen.share())?;
    Ok(Report::new(&plan, &pace, order, machine, counters.verdict(), &measured))
}
