//! Measures how well the tier keeps the entries that will be requested: compares its hit ratio with other caches, without a server.

pub mod command;
mod contenders;
pub mod traces;

use crate::pace::Pace;
use crate::report::section::{Goal, Section, Table};
use contenders::{NAMES, Outcome, TOLERANCE};
use serde::Serialize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use traces::Trace;

/// Capacities, in percent of the working set.
const PERCENTS: [u64; 4] = [1, 5, 10, 25];
/// How far our average may be below the average of the better of moka and quick_cache, in percentage points.
const BELOW_BEST_MAX: f64 = 0.5;
/// How far any of our cells may be below the cell of LRU, in percentage points.
const BELOW_LRU_MAX: f64 = 2.0;

/// Simulates the traces of the report.
pub fn measure(pace: &Pace) -> Section {
    simulate(&traces::made(pace.traces), 0)
}

/// Returns about how long the simulation takes: less than two microseconds for each request to each contender, trials included.
pub fn estimate(pace: &Pace) -> Duration {
    Duration::from_micros(u64::from(pace.traces.requests) * 6 * 4 * 2)
}

/// The results of all contenders for one trace at one capacity.
#[derive(Clone, Debug, Serialize)]
struct Cell {
    trace: String,
    percent: u64,
    /// The capacity, in bytes of values.
    capacity: u64,
    region_bytes: usize,
    hit_percent: Vec<f64>,
    /// Bytes of values kept, divided by the capacity.
    filled: Vec<f64>,
    entries: Vec<f64>,
    refused: Vec<u64>,
}

impl Cell {
    fn ours(&self) -> f64 {
        self.hit_percent[0]
    }
    fn lru(&self) -> f64 {
        self.hit_percent[1]
    }
    fn best(&self) -> f64 {
        self.hit_percent[2].max(self.hit_percent[3])
    }
    fn is_far_below_lru(&self) -> bool {
        self.ours() < self.lru() - BELOW_LRU_MAX
    }
    fn is_comparable(&self) -> bool {
        (self.filled[0] - 1.0).abs() <= TOLERANCE
    }
}

/// Replays traces at all capacities. With `shards` = 0, the tier chooses the number of shards by its size.
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
            let cell = cell(trace, *percent, capacity, sizes.bytes, &outcomes);
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

fn cell(trace: &Trace, percent: u64, capacity: u64, region_bytes: usize, outcomes: &[Outcome]) -> Cell {
    Cell {
        trace: trace.name.clone(),
        percent,
        capacity,
        region_bytes,
        hit_percent: outcomes.iter().map(|outcome| outcome.hit_percent).collect(),
        filled: outcomes.iter().map(|outcome| outcome.held / capacity as f64).collect(),
        entries: outcomes.iter().map(|outcome| outcome.entries).collect(),
        refused: outcomes.iter().map(|outcome| outcome.refused).collect(),
    }
}

fn section(cells: &[Cell]) -> Section {
    let average = |place: usize| -> f64 {
        cells.iter().map(|cell| cell.hit_percent[place]).sum::<f64>() / cells.len() as f64
    };
    let averages: Vec<f64> = (0..NAMES.len()).map(average).collect();
    let (ours, best) = (averages[0], averages[2].max(averages[3]));
    let worst = cells
        .iter()
        .min_by(|one, other| (one.ours() - one.lru()).total_cmp(&(other.ours() - other.lru())))
        .expect("there are traces");
    let missed = cells.iter().filter(|cell| cell.is_far_below_lru()).count();

    let mut head = vec!["trace".to_owned(), "capacity".into()];
    head.extend(NAMES.map(str::to_owned));
    head.extend(["− best", "− LRU", "", "entries", "content"].map(str::to_owned));
    let mut table = Table::new(2, head);
    let points = |points: f64| format!("{points:+.2}").replace('-', "−");
    for cell in cells {
        let mut row = vec![cell.trace.clone(), format!("{} %", cell.percent)];
        row.extend(cell.hit_percent.iter().map(|percent| format!("{percent:.2}")));
        row.push(points(cell.ours() - cell.best()));
        row.push(points(cell.ours() - cell.lru()));
        row.push(if cell.is_far_below_lru() { "⚠".into() } else { String::new() });
        row.push(format!("{:.0}", cell.entries[0]));
        row.push(format!("{:.1} %{}", cell.filled[0] * 100.0, if cell.is_comparable() { "" } else { " ⚠" }));
        table.rows.push(row);
    }
    let mut row = vec!["average".to_owned(), String::new()];
    row.extend(averages.iter().map(|percent| format!("{percent:.2}")));
    row.extend([points(ours - best), points(ours - averages[1])]);
    row.push(if ours < best - BELOW_BEST_MAX { "⚠".into() } else { String::new() });
    row.extend([String::new(), String::new()]);
    table.rows.push(row);

    Section {
        id: "eviction".into(),
        title: "Hit rate of eviction".into(),
        goals: vec![
            Goal {
                wanted: format!(
                    "the average is at most {BELOW_BEST_MAX} points below the better of moka's and quick_cache's"
                ),
                found: format!("{} points", points(ours - best)),
                met: ours >= best - BELOW_BEST_MAX,
            },
            Goal {
                wanted: format!("no hit rate is more than {BELOW_LRU_MAX} points below LRU"),
                found: format!(
                    "{missed} of {} are further below; the lowest is {} points ({}, {} %)",
                    cells.len(),
                    points(worst.ours() - worst.lru()),
                    worst.trace,
                    worst.percent
                ),
                met: missed == 0,
            },
        ],
        tables: vec![table],
        explained: vec![
            "Hits per 100 requests, starting with an empty cache. A missed value is stored. Capacities are in bytes of \
             values, as percent of the working set. `− best` is the difference to the better of moka and quick_cache in \
             that row, or on average. The number of shards of our tier follows from its size. quick_cache has the same \
             number of shards; moka and LRU have one. moka evicts after each insertion, and counts entries if all values \
             have one size."
                .into(),
            format!(
                "The size of our region was searched for, so that the tier keeps as many bytes of values as the others may \
                 (within {:.0} %). `entries` and `content` are averages over the second half of the trace. `content` is in \
                 percent of the capacity of the others.",
                TOLERANCE * 100.0
            ),
        ],
        figures: serde_json::json!({ "contenders": NAMES, "averages": averages, "cells": cells }),
    }
}
