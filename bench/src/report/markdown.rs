//! Writes the results as Markdown tables, with all facts that a reader needs to judge them. A *contender* is one of the
//! alternatives that a measurement compares.

use super::notation::{count, digits, interval, rate, time, versions, with_interval};
use super::results::{Entry, Figure, Measured, Report};
use super::section::Goal;
use super::table::Table;
use super::text::{bullet, paragraph};
use crate::data::{KEYS, VALUE_BYTES};
use crate::plan::Shown;
use crate::statistics::Summary;

/// Writes the whole report.
pub fn write(report: &Report) -> String {
    let mut text = String::from("# pg_cache, side by side\n\n");
    text += &heading(report);
    if !report.measurements.is_empty() {
        text += &side_by_side(report);
    }
    for section in &report.sections {
        text += &format!("\n{}", section.markdown());
    }
    text
}

/// Writes the results of the plan: a table for each group, the costs, and how to read them.
fn side_by_side(report: &Report) -> String {
    let mut text = String::new();
    for group in report.groups() {
        let goals: String = group.iter().flat_map(|measured| &measured.goals).map(Goal::markdown).collect();
        let goals = if goals.is_empty() { goals } else { goals + "\n" };
        text += &format!("\n## {}\n\n{goals}{}", group[0].group, speed_table(group).align());
    }
    text += "\n## Server cost of an operation\n\n";
    text += &costs(report);
    text += "\n## How to read the figures\n\n";
    text += &reading(report);
    text += "\n## Equal and unequal conditions\n\n";
    text += &fairness(report);
    text
}

/// Writes when and on which machine the run was made, and warns if its figures must not be quoted.
fn heading(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = String::new();
    if report.quick {
        text += "**A quick run: it has fewer and shorter rounds, so do not quote its figures.**\n\n";
    }
    if let Some(part) = &report.only {
        text += &format!("**This report has only the measurements with `{part}` in their id.**\n\n");
    }
    text += &paragraph(&format!(
        "{}: {} cores{} of {}, {} GB, Linux {}. {}.",
        machine.finished,
        machine.cores,
        if machine.virtual_machine { " (virtual)" } else { "" },
        machine.processor,
        machine.memory_gb,
        machine.kernel,
        versions(machine),
    ));
    text.push('\n');
    text += &paragraph(&format!(
        "Before the run, the cores were {:.0} % busy with other work. During the run, the hypervisor took {:.1} % of their \
         time.{}",
        machine.busy_before * 100.0,
        machine.stolen * 100.0,
        if machine.busy_before > 0.1 { " **The machine was too busy for reliable figures.**" } else { "" },
    ));
    text
}

/// Returns the speeds of a group. The first measurement decides the columns. So all measurements of a group must show the same
/// figure first, and must have the same references, the contenders that the others are compared with.
fn speed_table(group: &[Measured]) -> Table {
    let first = &group[0];
    let mut head = vec![String::new(), "contender".into()];
    head.extend(match first.shown_as {
        Shown::Rate => vec!["operations/s".into(), "interval".into()],
        Shown::Time => vec!["one operation".into(), "interval".into(), "operations/s".into()],
    });
    head.extend(first.references.iter().map(|reference| format!("× {reference}")));
    let mut table = Table::new(2, head);
    for measured in group {
        for (place, entry) in measured.contenders.iter().enumerate() {
            let speed = &entry.operations_per_second;
            let title = if place == 0 { measured.title.clone() } else { String::new() };
            let mut row = vec![title, entry.name.clone()];
            row.extend(match first.shown_as {
                Shown::Rate => {
                    vec![rate(speed.summary.median), interval(speed.summary, rate).unwrap_or_default()]
                }
                Shown::Time => {
                    let one = speed.summary.inverted(1e9);
                    let range = interval(one, time).unwrap_or_default();
                    vec![time(one.median), range, rate(speed.summary.median)]
                }
            });
            row.extend(first.references.iter().map(|reference| ratio(&entry.name, reference, speed)));
            table.rows.push(row);
        }
    }
    table
}

/// Formats the ratio of a contender to the reference, or a dash if the reference has no such figure. The reference itself is 1; its
/// interval would say nothing.
fn ratio(name: &str, reference: &str, figure: &Figure) -> String {
    match figure.ratio_to(reference) {
        Some(_) if name == reference => "1".into(),
        Some(summary) => with_interval(summary, digits),
        None => "–".into(),
    }
}

/// A kind of cost: the name of its column, the function that finds it, and the function that formats it.
type Kind = (&'static str, fn(&Entry) -> Option<&Figure>, fn(f64) -> String);

/// Writes the table of the server's costs. A kind of cost that perf counted for no contender has no column.
fn costs(report: &Report) -> String {
    let all: [Kind; 3] = [
        ("processor time", |entry| entry.server_nanoseconds.as_ref(), time),
        ("instructions", |entry| entry.server_instructions.as_ref(), count),
        ("cycles", |entry| entry.server_cycles.as_ref(), count),
    ];
    let entries = || report.measurements.iter().flat_map(|measured| &measured.contenders);
    let kinds: Vec<Kind> =
        all.into_iter().filter(|(_, figure, _)| entries().any(|entry| figure(entry).is_some())).collect();
    if kinds.is_empty() {
        return paragraph(&report.counters);
    }
    let head = ["", "contender"].map(str::to_owned).into_iter();
    let head = head.chain(kinds.iter().flat_map(|(name, ..)| [(*name).to_owned(), "× reference".into()]));
    let mut table = Table::new(2, head);
    for measured in &report.measurements {
        let reference = measured.references.first().map_or("", String::as_str);
        let counted =
            measured.contenders.iter().filter(|entry| kinds.iter().any(|kind| kind.1(entry).is_some()));
        for (place, entry) in counted.enumerate() {
            let title = format!("{}, {}", measured.group, measured.title);
            let mut row = vec![if place == 0 { title } else { String::new() }, entry.name.clone()];
            for (_, figure, notation) in &kinds {
                row.extend(match figure(entry) {
                    Some(figure) => {
                        [with_interval(figure.summary, notation), ratio(&entry.name, reference, figure)]
                    }
                    None => ["–".into(), "–".into()],
                });
            }
            table.rows.push(row);
        }
    }
    let explained = format!(
        "Less is better. `× reference` is the cost divided by the cost of the row with a 1. The figures are medians of {} rounds, with \
         intervals of {} confidence. {} They count the server only, in user and kernel mode. redis-benchmark connects again in \
         each run, so its figure is the difference between a longer and a shorter run, in which the cost of connecting cancels out.",
        report.counted_rounds,
        confidence(report.counted_rounds),
        report.counters,
    );
    table.align() + "\n" + &paragraph(&explained)
}

/// Returns the confidence of the intervals for this number of rounds, in percent. It depends only on the number, so any samples do.
fn confidence(rounds: usize) -> String {
    Summary::of(&vec![0.0; rounds])
        .map_or("no".into(), |summary| format!("{:.1} %", summary.confidence * 100.0))
}

/// Explains how the figures of the plan were computed.
fn reading(report: &Report) -> String {
    [
        format!(
            "Figures are medians of rounds: {} rounds for reads, {} for writes. In a round, the contenders run once each, one after \
             the other. Their order changes from round to round. A warm-up before the rounds does not count.",
            report.read_rounds, report.write_rounds
        ),
        format!(
            "Intervals contain the true median with {} (reads) and {} (writes) confidence. The ends of an interval are two of the \
             measured rounds (order statistics), so no distribution of the rounds is assumed.",
            confidence(report.read_rounds),
            confidence(report.write_rounds)
        ),
        "`× contender` is the speed divided by the speed of that contender: more than 1 is faster. It is the median of the ratios of \
         runs in the same round, with the interval of that median. It is not the ratio of two medians."
            .into(),
        "An operation is one key, also if 16 or 100 keys are sent together.".into(),
        "✓ means that the median reaches the goal. The acceptable limit is in parentheses.".into(),
    ]
    .iter()
    .map(|point| bullet(point))
    .collect()
}

/// Lists the conditions that were equal for all contenders of the plan, and those that were not. The text must agree with the
/// servers (`test_servers.rs`, `setup.sql`) and the clients (`drive/`).
fn fairness(report: &Report) -> String {
    let equal = format!(
        "Equal: the same {} keys of 13 bytes for all contenders, requested in random order; values of {VALUE_BYTES} bytes of \
         text, sent with every write and every read; Unix sockets; server and client on the same {} cores. Every \
         requested key exists.",
        count(KEYS as f64),
        report.machine.cores,
    );
    let unequal = [
        "The no-op function looks up nothing and returns 8 bytes. No function of pg_cache can be faster. In the measurements of \
         writes, its parameters include the value.",
        "All clients work in the same way: a single thread builds the requests once, replaces the digits of the keys in them, and \
         reads each answer to its end without parsing the values. The client of Redis is redis-benchmark. The clients run on \
         the servers' cores. The server cost of an operation does not include them.",
        "Redis serves all clients from one thread, PostgreSQL serves each client from its own process. PostgreSQL's sessions stay \
         connected from run to run, like those of a connection pool, because a new session pays for each page of shared memory \
         that it touches first. redis-benchmark connects again in each run, to a process that has touched all of its memory.",
        "Each operation on PostgreSQL executes a prepared statement in its own transaction. In a pipeline, 16 statements \
         and one synchronization message are one transaction. Redis uses no transactions. A request for 100 keys has one array \
         in binary form for PostgreSQL, and 100 words for Redis.",
        "pg_cache stores values as jsonb, except in the rows whose names say text. Every read over the wire converts the jsonb to \
         text, and every write parses it. The writes of pg_cache use other keys than its reads.",
        "With one client, server and client share one core, because only one of them works at a time. This leaves out the time to \
         wake another core, which is the same for all contenders and longer than the work itself on a virtual machine. With more \
         clients, the scheduler chooses the cores.",
        "PostgreSQL's client runs for a fixed time. redis-benchmark runs a fixed number of operations that take about as long.",
        "Inside SQL, keys *from a scan* are read from a table in random order. pg_cache then finds the next keys in the scanned table \
         and prefetches their entries. It cannot prefetch *computed* keys.",
        "Inside SQL, an operation's time includes its share of reading the keys and counting the results, the same for \
         all contenders. The subquery is planned with the query around it, the PL/pgSQL function keeps a prepared \
         plan, and the SQL function is set up again at each call. Redis has no contender here.",
        "The table is UNLOGGED, with a B-tree on text in the C collation, which is the cheapest to compare. A write is an \
         upsert that leaves a dead row. Autovacuum has its default settings. A crash of the server empties the table. Redis loses \
         its data in a crash, too, because it stores nothing on disk here.",
        "PostgreSQL has 256 MB of shared_buffers, so all data is in memory, and no large pages. JIT is off, because it would slow \
         down the subquery. Inside SQL there is no parallel query, so one process does the work of each contender. \
         All other settings have their defaults, also those of Redis, except that persistence is off.",
    ];
    let unequal: String = unequal.into_iter().map(bullet).collect();
    paragraph(&equal) + "\nNot equal:\n\n" + &unequal
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tests `text.rs`. Fails if a line is too long, if a word is lost or repeated, or if a line of a list item is not indented.
    #[test]
    fn text_is_wrapped_between_words_and_indented() {
        let text = bullet("word ".repeat(40).trim_end());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("- word") && lines[1].starts_with("  word"));
        assert!(lines.iter().all(|line| line.len() <= 110));
        assert_eq!(text.matches("word").count(), 40);
    }
}
