//! Writes the results as Markdown tables, with all facts that a reader needs to judge them.

use super::notation::{count, digits, interval, rate, time, versions, with_interval};
use super::section::Goal;
use super::table::Table;
use super::{Entry, Figure, Measured, Report};
use crate::bed::{KEYS, VALUE_BYTES};
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

fn side_by_side(report: &Report) -> String {
    let mut text = String::new();
    for group in report.groups() {
        let goals: String = group.iter().flat_map(|measured| &measured.goals).map(Goal::markdown).collect();
        let goals = if goals.is_empty() { goals } else { goals + "\n" };
        text += &format!("\n## {}\n\n{goals}{}", group[0].group, speed_table(group).align());
    }
    text += "\n## What an operation costs the server\n\n";
    text += &costs(report);
    text += "\n## How to read it\n\n";
    text += &reading(report);
    text += "\n## What is equal, and what is not\n\n";
    text += &fairness(report);
    text
}

fn heading(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = String::new();
    if report.quick {
        text += "**A quick run: fewer and shorter rounds, to look at and not to quote.**\n\n";
    }
    if let Some(part) = &report.only {
        text += &format!("**Only the measurements with `{part}` in their id.**\n\n");
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
        "Before the run the cores were {:.0} % busy with other work; during it the hypervisor kept {:.1} % of their \
         time from it.{}",
        machine.busy_before * 100.0,
        machine.stolen * 100.0,
        if machine.busy_before > 0.1 { " **Too busy for figures to rely on.**" } else { "" },
    ));
    text
}

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

/// Formats the ratio of a contender to the reference. The reference itself is 1; its interval would say nothing.
fn ratio(name: &str, reference: &str, figure: &Figure) -> String {
    match figure.ratio_to(reference) {
        Some(_) if name == reference => "1".into(),
        Some(summary) => with_interval(summary, digits),
        None => "–".into(),
    }
}

/// A kind of cost: the name of its column, the function that finds it, and the function that formats it.
type Kind = (&'static str, fn(&Entry) -> Option<&Figure>, fn(f64) -> String);

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
        "Less is better; `× reference` is the cost over that of the row with a 1. Medians of {} rounds, intervals with \
         {} confidence. {} It is the server's side alone, user and kernel. Where each run connects anew, as \
         redis-benchmark does, it is the difference between a longer and a shorter one, so that connecting cancels out.",
        report.counted_rounds,
        confidence(report.counted_rounds),
        report.counters,
    );
    table.align() + "\n" + &paragraph(&explained)
}

/// Returns the confidence of the intervals for this number of rounds.
fn confidence(rounds: usize) -> String {
    Summary::of(&vec![0.0; rounds])
        .map_or("no".into(), |summary| format!("{:.1} %", summary.confidence * 100.0))
}

fn reading(report: &Report) -> String {
    [
        format!(
            "Figures are medians of rounds: {} for reads, {} for writes. In a round each contender runs once, one \
             right after the other, in an order that changes from round to round, after a warm-up that does not count.",
            report.read_rounds, report.write_rounds
        ),
        format!(
            "Intervals hold the true median with {} (reads) and {} (writes) confidence. They are order statistics: \
             two of the rounds themselves, with no assumption about how rounds are distributed.",
            confidence(report.read_rounds),
            confidence(report.write_rounds)
        ),
        "`× somebody` is speed over that one's speed: more than 1 is faster. It is the median of the ratios of runs \
         in the same round, with the interval of that median, not the ratio of two medians."
            .into(),
        "An operation is one key, also where 16 or 100 of them travel together.".into(),
        "✓ is a goal that is reached by the median. What else is still acceptable stands in parentheses.".into(),
    ]
    .iter()
    .map(|point| bullet(point))
    .collect()
}

fn fairness(report: &Report) -> String {
    let equal = format!(
        "Equal: {} keys of 13 bytes, the same on every side, each asked for at random; values of {VALUE_BYTES} bytes of \
         text, which travel with every write and every read; Unix sockets; server and client on the same {} cores. Every \
         key asked for is there.",
        count(KEYS as f64),
        report.machine.cores,
    );
    let unequal = [
        "The no-op function looks nothing up and returns 8 bytes. It is the floor under every function of pg_cache, \
         not a contender. Beside writes it is sent the value, too.",
        "Clients are of one kind: a single thread that sends requests built once, in which it replaces the digits of the \
         keys, and that reads answers to their end without looking into them. For Redis that is redis-benchmark. They work \
         on the servers' cores; what an operation costs the server leaves them out.",
        "Redis serves all clients from one thread, PostgreSQL each from a process of its own. These sessions stay from run to run, \
         as those of a pool do: a new one pays for each page of shared memory that it touches for the first time. \
         redis-benchmark connects anew, and finds a process that has touched all of its memory.",
        "Each operation on PostgreSQL executes a prepared statement in a transaction of its own; pipelined, 16 statements \
         and their one synchronization are one transaction. Redis begins and ends no transaction in either case. 100 keys at a \
         time are one array for PostgreSQL, in binary form, and 100 words for Redis.",
        "pg_cache holds values as jsonb, which every read over the wire spells as text and every write parses, but for the rows \
         that say otherwise. Its writes have keys of their own.",
        "With one client, server and client are kept on one core, since only one of them works at a time: what it \
         takes to wake another core is the same for all, on a virtual machine more than the work itself, and left \
         out. With more clients the scheduler decides.",
        "PostgreSQL's client runs for a time, redis-benchmark a number of operations that take about as long.",
        "Inside SQL, keys *from a scan* are read from a table in random order. pg_cache then sees the next ones where the scan is, \
         and fetches their entries ahead; keys that are *computed* it cannot foresee.",
        "Inside SQL, an operation's time includes its share of reading the keys and counting the results, the same for \
         all contenders. The subquery is planned with the query around it, the PL/pgSQL function keeps a prepared \
         plan, the SQL function is set up anew at each call. Redis cannot take part.",
        "The table is UNLOGGED, with a B-tree on text in the C collation, the cheapest to compare. Writing it is an \
         upsert that leaves a dead row behind; autovacuum works as by default. A crash of the server empties it, as \
         it does Redis, which keeps nothing on disk here.",
        "PostgreSQL has 256 MB of shared_buffers, so that everything is in memory, no large pages, jit off, which would slow the \
         subquery down, and inside SQL no parallel query, so that one process does the work of all contenders. \
         Everything else, and all of Redis but persistence, is as by default.",
    ];
    let unequal: String = unequal.into_iter().map(bullet).collect();
    paragraph(&equal) + "\nNot equal, and to be kept in mind:\n\n" + &unequal
}

/// Returns a paragraph, wrapped.
pub fn paragraph(text: &str) -> String {
    wrapped(text, "", "")
}

/// Returns a list item, wrapped.
pub fn bullet(text: &str) -> String {
    wrapped(text, "- ", "  ")
}

/// Breaks lines between words, so that the text is also readable in a terminal.
fn wrapped(text: &str, first: &str, others: &str) -> String {
    const WIDTH: usize = 110;
    let mut lines = vec![first.to_owned()];
    let mut bare = true;
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always one");
        if !bare && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(format!("{others}{word}"));
            continue;
        }
        if !bare {
            line.push(' ');
        }
        line.push_str(word);
        bare = false;
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

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
