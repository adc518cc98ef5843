//! Counts the instructions of a transaction, for the part `tax` of the report. The count does not depend on other activity of the
//! machine, and needs no counters in the processor.
//!
//! All processes of the servers run under valgrind's callgrind, which counts every instruction outside the kernel. A session with
//! many transactions is compared with a session with few, so that the start and the end of a session cancel out.

use super::operation::Operation;
use super::sides::{PLAIN, Side, Sides};
use crate::drive::Load;
use crate::drive::wire::{Pool, Task, Until};
use crate::plan::Given;
use crate::report::notation::count;
use crate::report::section::Table;
use pg_cache_testbed::wait_until;
use serde::Serialize;
use std::process::Command;

/// Transactions of the short session: enough to include the work that a session does only once.
const FEW: u64 = 1000;
/// Transactions of the long session.
const MANY: u64 = 3000;
/// The text before the count in the file that callgrind writes when a process ends.
const COUNT: &str = "summary:";

/// The instructions of one transaction, which is one operation, on the server without the library and on the one with it.
#[derive(Serialize)]
pub struct Instructions {
    /// The name of the operation.
    operation: &'static str,
    /// The instructions on the server without the library.
    without: f64,
    /// The instructions on the server with the library.
    with: f64,
}

/// Returns whether valgrind is installed.
pub fn can_be_counted() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Counts the instructions. valgrind must be installed. Restarts the two servers, which keep running under callgrind afterwards, so
/// no time may be measured on them any more.
pub fn measure(sides: &Sides, operations: &'static [Operation]) -> Vec<Instructions> {
    for side in [&sides.without, &sides.with] {
        let files = format!("--callgrind-out-file={}", file(side, "%p"));
        side.restart_beneath(&["valgrind", "-q", "--tool=callgrind", "--trace-children=yes", &files]);
    }
    // The counted writes are to tables that cached values have depended on. A table gets its fences (`src/core/fence/mod.rs`) with
    // the first such value. The first write invalidates these values, so nearly all counted writes find them invalid.
    sides.depend();
    let all = operations.iter().map(|operation| Instructions {
        operation: operation.name,
        without: of(operation, &sides.without),
        with: of(operation, &sides.with),
    });
    all.collect()
}

/// Returns the path of callgrind's file for a process. `%p` stands for the ID of every process.
fn file(side: &Side, process: &str) -> String {
    side.cluster.data().join(format!("counted.{process}")).display().to_string()
}

/// Returns the instructions of one transaction on a server: the average over the transactions that only the long session does.
fn of(operation: &Operation, side: &Side) -> f64 {
    side.clear(PLAIN);
    let [few, many] = [FEW, MANY].map(|transactions| session(operation, side, transactions));
    (many - few) as f64 / (MANY - FEW) as f64
}

/// Returns all instructions of the backend of a session that does this many transactions and ends.
fn session(operation: &Operation, side: &Side, transactions: u64) -> u64 {
    let contender = operation.contender("", side, PLAIN);
    let load = Load { clients: 1, pipeline: 1, keys: 1 };
    let task = Task { statement: &contender.statement, given: Given::Row, load, seed: transactions };
    let mut pool = Pool::default();
    let done = pool.run(&side.cluster, task, Until::Done(transactions)).expect("it can be done");
    assert_eq!(done.operations, transactions, "transactions of one session");
    let process = pool.processes(&side.cluster, 1).expect("it is there")[0];
    drop(pool);
    let mut counted = None;
    wait_until("the count of a session that has ended", || {
        let text = std::fs::read_to_string(file(side, &process.to_string())).unwrap_or_default();
        counted = parse(&text);
        counted.is_some()
    });
    counted.expect("waited for")
}

/// Returns the count in a file, or `None` if the file is not complete yet.
fn parse(text: &str) -> Option<u64> {
    let summary = text.lines().find_map(|line| line.strip_prefix(COUNT))?;
    text.contains("\ntotals:").then(|| summary.trim().parse().ok())?
}

/// Returns the counts as a table.
pub fn table(counted: &[Instructions]) -> Table {
    let mut table = Table::new(
        1,
        ["instructions of one transaction", "without the library", "with pg_cache", "more", "× without"],
    );
    for Instructions { operation, without, with } in counted {
        let cells = [count(*without), count(*with), count(with - without), format!("{:.3}", with / without)];
        table.rows.push(std::iter::once((*operation).to_owned()).chain(cells).collect());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [`session`] may read the file while callgrind writes it. Fails if a file without its last line has a count.
    #[test]
    fn a_count_is_read_only_when_it_is_complete() {
        let text = "events: Ir\nsummary: 213409563\n\nfn=(1) a\n1 2\n";
        assert_eq!(parse(text), None);
        assert_eq!(parse(&format!("{text}\ntotals: 213409563\n")), Some(213_409_563));
    }
}
