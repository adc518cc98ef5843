//! The part `eviction` of the report: measures how well our *tier*, the cache of the crate `pg_cache_core`, keeps the entries that
//! will be requested. It replays *traces*, which are sequences of requests, on the tier and on other caches of the same capacity,
//! and compares their hit rates. It needs no server.
//!
//! [`traces`] makes the traces whose values have one size, and reads traces from files. `mixed` makes the traces whose values have
//! different sizes and costs. `contenders` has the caches: our tier, plain LRU, and the Rust crates moka and quick_cache. This file
//! compares the outcomes. [`command`] runs the comparison alone.
//!
//! A *shard* is a part of a cache with a lock of its own.

pub mod command;
mod contenders;
mod mixed;
pub mod traces;

use crate::pace::Pace;
use crate::report::section::{Goal, Section, Table};
use contenders::{NAMES, Outcome, TOLERANCE};
use serde::Serialize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use traces::{Extent, Trace};

/// Capacities, in percent of the working set ([`Trace::working_set`]).
const PERCENTS: [u64; 4] = [1, 5, 10, 25];
/// How far the average hit rate of our tier may be below that of moka or quick_cache, whichever is higher, in percentage points.
/// This limit and the next one are goals of the project, not results.
const BELOW_BEST_MAX: f64 = 0.5;
/// How far the hit rate of our tier may be below that of LRU for any trace at any capacity, in percentage points.
const BELOW_LRU_MAX: f64 = 2.0;
/// The smallest capacity, in percent, that the goal for the average of mixed values counts. A smaller cache holds few of the
/// largest values. The goal for LRU counts all capacities.
const MIXED_PERCENT_MIN: u64 = 5;

/// Simulates the traces of the report.
pub fn measure(pace: &Pace) -> Section {
    simulate(&made(pace.traces), 0)
}

/// Returns about how long the simulation takes. At each of the 4 capacities, a request takes 2 µs in one of the 6 traces of equal
/// values, and 10 µs in one of the 5 traces of mixed values. This is the time of all caches together. It includes the replays that
/// search for the size of our tier. The traces of mixed values have half as many requests, so each counts 5 µs for the full number.
pub fn estimate(pace: &Pace) -> Duration {
    Duration::from_micros(u64::from(pace.traces.requests) * 4 * (6 * 2 + 5 * 5))
}

/// Makes all traces, in the order of the report.
fn made(extent: Extent) -> Vec<Trace> {
    let mut traces = traces::made(extent);
    traces.extend(mixed::made(extent));
    traces
}

/// The quantity that a hit rate adds up: the requests themselves, the bytes of their values, or the cost of computing the values.
/// The hit rate is the sum over all hits, in percent of the sum over all requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum Share {
    Requests,
    Bytes,
    Cost,
}

impl Share {
    fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Bytes => "bytes",
            Self::Cost => "cost",
        }
    }

    /// Returns this hit rate of an outcome, in percent.
    fn of(self, outcome: &Outcome) -> f64 {
        match self {
            Self::Requests => outcome.hit_percent,
            Self::Bytes => outcome.byte_percent,
            Self::Cost => outcome.cost_percent,
        }
    }
}

/// The results of all contenders for one trace at one capacity. Functions that return a hit rate return percent.
#[derive(Clone, Debug, Serialize)]
struct Cell {
    trace: String,
    /// The capacity, in percent of the working set.
    percent: u64,
    /// The capacity, in bytes of values.
    capacity: u64,
    /// The size of our tier's memory at which it kept as many bytes of values as this capacity, or the closest to that.
    region_bytes: usize,
    /// The hit rates that the table shows. If all values have one size, the rates of the bytes and of the requests are equal, so
    /// the rate of the bytes is left out. The rate of the cost is left out if no cost is known.
    shares: Vec<Share>,
    /// The outcomes, in the order of [`NAMES`]: our tier, LRU, moka, quick_cache. The functions below rely on this order.
    outcomes: Vec<Outcome>,
}

impl Cell {
    /// Returns the hit rate that the goals judge: that of the cost if a cost is known, and otherwise that of the requests.
    fn goal(&self) -> Share {
        if self.shares.contains(&Share::Cost) { Share::Cost } else { Share::Requests }
    }
    /// Returns whether all values have the same size, and no known cost.
    fn is_equal(&self) -> bool {
        self.shares == [Share::Requests]
    }
    fn ours(&self, share: Share) -> f64 {
        share.of(&self.outcomes[0])
    }
    fn lru(&self, share: Share) -> f64 {
        share.of(&self.outcomes[1])
    }
    /// Returns the hit rate of moka or quick_cache, whichever is higher.
    fn best(&self, share: Share) -> f64 {
        share.of(&self.outcomes[2]).max(share.of(&self.outcomes[3]))
    }
    /// Returns how far our tier is above LRU in the hit rate that the goals judge, in percentage points.
    fn above_lru(&self) -> f64 {
        self.ours(self.goal()) - self.lru(self.goal())
    }
    /// Returns the bytes of values that our tier kept, divided by the capacity. It may be above 1 (see [`TOLERANCE`]).
    fn filled(&self) -> f64 {
        self.outcomes[0].held / self.capacity as f64
    }
    /// Returns whether our tier kept about as many bytes as the capacity allows the other caches. Otherwise its hit rate proves
    /// little.
    fn is_comparable(&self) -> bool {
        (self.filled() - 1.0).abs() <= TOLERANCE
    }
}

/// Replays traces, at least one, at all capacities. `shards` is the number of shards of our tier (`contenders.rs`). With 0, the
/// tier chooses the number by its size. If there are two cores, two threads replay at the same time. They may disturb each other,
/// because no time is measured.
pub fn simulate(traces: &[Trace], shards: u32) -> Section {
    let cells: Vec<(&Trace, u64)> =
        traces.iter().flat_map(|trace| PERCENTS.map(|percent| (trace, percent))).collect();
    let done = Mutex::new(vec![None; cells.len()]);
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some((trace, percent)) = cells.get(place) else { break };
            let capacity = trace.working_set * percent / 100;
            let (outcomes, sizes) = contenders::run(trace, capacity, shards);
            let cell = cell(trace, *percent, capacity, sizes.bytes, outcomes);
            done.lock().expect("no thread has panicked")[place] = Some(cell);
        }
    };
    std::thread::scope(|threads| {
        for _ in 0..crate::machine::cores().min(2) {
            threads.spawn(work);
        }
    });
    let cells: Vec<Cell> = done.into_inner().expect("no thread has panicked").into_iter().flatten().collect();
    section(&cells)
}

/// Returns the cell of these outcomes, and chooses the hit rates that the table shows.
fn cell(trace: &Trace, percent: u64, capacity: u64, region_bytes: usize, outcomes: Vec<Outcome>) -> Cell {
    let mut shares = vec![Share::Requests];
    if trace.equal_size().is_none() {
        shares.push(Share::Bytes);
    }
    if trace.has_costs() {
        shares.push(Share::Cost);
    }
    Cell { trace: trace.name.clone(), percent, capacity, region_bytes, shares, outcomes }
}

/// Judges the cells and shows them in two tables: the [equal](Cell::is_equal) ones, and the others, which are *mixed*. There must
/// be at least one cell.
fn section(cells: &[Cell]) -> Section {
    let (equal, mixed): (Vec<&Cell>, Vec<&Cell>) = cells.iter().partition(|cell| cell.is_equal());
    let judged: Vec<&Cell> = mixed.iter().copied().filter(|cell| cell.percent >= MIXED_PERCENT_MIN).collect();
    let mut goals = Vec::new();
    if !equal.is_empty() {
        goals.push(near_best("the average", &equal));
    }
    if !judged.is_empty() {
        let what = format!(
            "with mixed values, the average at {MIXED_PERCENT_MIN} % and more, of the cost if it is known and else of the \
             requests,"
        );
        goals.push(near_best(&what, &judged));
    }
    goals.push(above_lru(cells));
    Section {
        id: "eviction".into(),
        title: "Hit rate of eviction".into(),
        goals,
        tables: [equal, mixed].iter().filter(|cells| !cells.is_empty()).map(|cells| table(cells)).collect(),
        explained: explained(),
        figures: serde_json::json!({ "contenders": NAMES, "cells": cells }),
    }
}

/// Returns the average of each contender over some cells, in the order of [`NAMES`]. There must be at least one cell.
fn averages<'c>(cells: &[&'c Cell], share: impl Fn(&'c Cell) -> Share) -> Vec<f64> {
    let average = |place: usize| {
        let sum: f64 = cells.iter().map(|cell| share(cell).of(&cell.outcomes[place])).sum();
        sum / cells.len() as f64
    };
    (0..NAMES.len()).map(average).collect()
}

/// Formats percentage points with their sign, and with a minus sign instead of a hyphen.
fn points(points: f64) -> String {
    format!("{points:+.2}").replace('-', "−")
}

/// Returns the goal for the average hit rate of our tier over some cells ([`BELOW_BEST_MAX`]). `what` names the average in the
/// report.
fn near_best(what: &str, cells: &[&Cell]) -> Goal {
    let averages = averages(cells, Cell::goal);
    let above_best = averages[0] - averages[2].max(averages[3]);
    Goal {
        wanted: format!(
            "{what} is at most {BELOW_BEST_MAX} points below the better of moka's and quick_cache's"
        ),
        found: format!("{} points", points(above_best)),
        met: above_best >= -BELOW_BEST_MAX,
    }
}

/// Returns the goal that our tier is in no cell far below LRU ([`BELOW_LRU_MAX`]).
fn above_lru(cells: &[Cell]) -> Goal {
    let worst = cells
        .iter()
        .min_by(|one, other| one.above_lru().total_cmp(&other.above_lru()))
        .expect("there are traces");
    let missed = cells.iter().filter(|cell| cell.above_lru() < -BELOW_LRU_MAX).count();
    Goal {
        wanted: format!("no hit rate is more than {BELOW_LRU_MAX} points below LRU"),
        found: format!(
            "{missed} of {} are further below; the lowest is {} points ({}, {} %)",
            cells.len(),
            points(worst.above_lru()),
            worst.trace,
            worst.percent
        ),
        met: missed == 0,
    }
}

/// Returns the cells as a table, with averages at the end. A ⚠ in the column before `entries` marks a hit rate far below LRU. A ⚠
/// in the column `content` marks a cell in which our tier kept too much or too little ([`Cell::is_comparable`]).
fn table(cells: &[&Cell]) -> Table {
    let mut head = vec!["trace".to_owned(), "capacity".into(), "share of".into()];
    head.extend(NAMES.map(str::to_owned));
    head.extend(["− best", "− LRU", "", "entries", "content"].map(str::to_owned));
    let mut table = Table::new(3, head);
    let warning = |missed: bool| if missed { "⚠".to_owned() } else { String::new() };
    for cell in cells {
        for share in cell.shares.iter().copied() {
            let mut row = vec![cell.trace.clone(), format!("{} %", cell.percent), share.name().into()];
            row.extend(cell.outcomes.iter().map(|outcome| format!("{:.2}", share.of(outcome))));
            row.push(points(cell.ours(share) - cell.best(share)));
            row.push(points(cell.ours(share) - cell.lru(share)));
            row.push(warning(share == cell.goal() && cell.above_lru() < -BELOW_LRU_MAX));
            row.push(format!("{:.0}", cell.outcomes[0].entries));
            let strange = if cell.is_comparable() { "" } else { " ⚠" };
            row.push(format!("{:.1} %{strange}", cell.filled() * 100.0));
            table.rows.push(row);
        }
    }
    for share in [Share::Requests, Share::Bytes, Share::Cost] {
        let cells: Vec<_> = cells.iter().copied().filter(|cell| cell.shares.contains(&share)).collect();
        if cells.is_empty() {
            continue;
        }
        let averages = averages(&cells, |_| share);
        let mut row = vec!["average".to_owned(), String::new(), share.name().into()];
        row.extend(averages.iter().map(|percent| format!("{percent:.2}")));
        row.push(points(averages[0] - averages[2].max(averages[3])));
        row.push(points(averages[0] - averages[1]));
        row.resize(table.head.len(), String::new());
        table.rows.push(row);
    }
    table
}

/// Returns the paragraphs that explain the tables.
fn explained() -> Vec<String> {
    vec![
        "What was hit, in percent of what was requested, starting with an empty cache: requests, their bytes, and what their \
         values cost to compute. A missed value is stored. Capacities are in bytes of values, as percent of the working set. \
         `− best` is the difference to the better of moka and quick_cache in that row, or on average. The number of shards \
         of our tier follows from its size. quick_cache has the same number of shards; moka and LRU have one. moka evicts \
         after each insertion, and counts entries if all values have one size. With mixed sizes, the weight of an entry is \
         its size for both. Only our tier is told the cost."
            .into(),
        "The mixed values have 512 bytes to 68 KB and cost 0.1 ms to 2 s. \"Blocks\" is like a trace of a disk: small records \
         requested in bursts, pages requested at random after long times, and files of large extents that are read from the \
         begin to the end, some of them once. \"Mixed costs\" depend on nothing; \"cost by size\" is up to five times more or \
         less than in proportion to the size."
            .into(),
        format!(
            "The size of our region was searched for, so that the tier keeps as many bytes of values as the others may \
             (within {:.0} %). `entries` and `content` are averages over the second half of the trace. `content` is in \
             percent of the capacity of the others.",
            TOLERANCE * 100.0
        ),
    ]
}
