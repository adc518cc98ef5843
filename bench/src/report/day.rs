//! The results of the part `day` of the report, and their chart: an SVG with two bars for each way to serve the dashboards.

use super::chart::escaped;
use super::notation::{digits, versions};
use super::results::Report;
use crate::machine::Machine;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// The measurements of the part `day`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Day {
    /// The factor by which five minutes were shortened: the time of `stale_ok`, for which `cache_query` may return outdated rows,
    /// the time to live of a row of the cache table, and the time from one refresh of the materialized views to the next.
    pub scale: f64,
    /// The number of sessions that ask for dashboards.
    pub sessions: u32,
    /// The number of dashboards.
    pub dashboards: usize,
    /// The number of orders that one session commits per second meanwhile.
    pub orders_per_second: u32,
    /// The results of each way to serve the dashboards.
    pub served: Vec<Served>,
}

/// The results of one way to serve the dashboards. Times are nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Served {
    /// The name of the way. Several ways may have the same name.
    pub name: String,
    /// The text that tells this way apart from the others of its name.
    pub detail: String,
    /// Whether the way is a call of `cache_query`. The chart emphasizes these.
    pub is_cache_query: bool,
    /// The number of requests.
    pub requests: u64,
    /// The number of requests per second.
    pub per_second: f64,
    /// The share of the requests that got a stored result, from 0 to 1.
    pub hits: f64,
    /// The share of the requests that waited for the run of another session, from 0 to 1.
    pub waited: f64,
    /// The number of runs of queries that the server has counted.
    pub executed: u64,
    /// The number of these runs per thousand requests.
    pub executed_per_thousand: f64,
    /// The median of the times of the requests.
    pub p50: f64,
    /// The time that 95 % of the requests do not exceed.
    pub p95: f64,
    /// The time that 99 % of the requests do not exceed.
    pub p99: f64,
    /// The number of outdated answers: each misses a commit that was acknowledged before its request.
    pub outdated: u64,
    /// The median of the times for which answers were outdated.
    pub age_p50: f64,
    /// The longest time for which an answer was outdated.
    pub age_max: f64,
    /// The duration of the warm-up, in seconds.
    pub warm_up_seconds: f64,
    /// Whether the hit ratio was level, that is, had hardly changed, at the end of the warm-up (`day/period.rs`).
    pub is_level: bool,
}

impl Day {
    /// Returns the results of the part in a report: the value `day` of the figures of its section, which `day/mod.rs` writes.
    /// Returns `None` if the part was not measured, or if the value lacks a field of this type.
    fn of(report: &Report) -> Option<Self> {
        let section = report.sections.iter().find(|section| section.id == "day")?;
        serde_json::from_value(section.figures.get("day")?.clone()).ok()
    }
}

/// The width of the picture. All lengths are in pixels.
const WIDTH: f64 = 800.0;
/// The empty space at the edges of the picture.
const MARGIN: f64 = 28.0;
/// The height of a row.
const ROW: f64 = 50.0;
/// The height of a bar.
const BAR: f64 = 20.0;
/// The left end of the bars of the times. The figure stands to the right of its bar.
const TIMES: f64 = 218.0;
/// The left end of the bars of the runs.
const RUNS: f64 = 430.0;
/// The length of the longest bar.
const LONGEST: f64 = 130.0;

/// The colours on a light and on a dark page. Programs that know no media queries draw the light ones.
const STYLE: &str = "\
    .page{fill:#ffffff;stroke:#d1d9e0}.ink{fill:#1f2328}.faint{fill:#59636e}\
    .own{fill:#0969da}.other{fill:#afb8c1}.line{stroke:#d1d9e0}.axis{stroke:#59636e}\
    @media (prefers-color-scheme:dark){\
    .page{fill:#0d1117;stroke:#3d444d}.ink{fill:#f0f6fc}.faint{fill:#9198a1}\
    .own{fill:#4493f8}.other{fill:#59626d}.line{stroke:#3d444d}.axis{stroke:#9198a1}}";

/// Draws the chart of a report. Returns `None` if the report has no results of the part.
pub fn draw(report: &Report) -> Option<String> {
    Some(draw_day(&Day::of(report)?, &report.machine, report.quick))
}

/// Draws the chart.
fn draw_day(day: &Day, machine: &Machine, quick: bool) -> String {
    let mut body = String::new();
    let mut text = |x: f64, y: f64, anchor: &str, size: f64, weight: u32, class: &str, text: &str| {
        let _ = writeln!(
            body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\" font-weight=\"{weight}\" \
             class=\"{class}\">{}</text>",
            escaped(text)
        );
    };
    let right = WIDTH - MARGIN;
    let warning = if quick { " (quick run, not to quote)" } else { "" };
    text(MARGIN, 44.0, "start", 20.0, 600, "ink", &format!("A day with dashboards and orders{warning}"));
    let what = format!(
        "{} sessions ask for {} dashboards while {} orders per second arrive. Shorter is better.",
        day.sessions, day.dashboards, day.orders_per_second
    );
    text(MARGIN, 67.0, "start", 14.0, 400, "faint", &what);

    let head = 104.0;
    text(TIMES, head, "start", 13.0, 600, "ink", "p95 of the answer time");
    text(RUNS, head, "start", 13.0, 600, "ink", "queries run for 1000 requests");
    text(right, head, "end", 13.0, 600, "ink", "oldest answer");
    let top = head + 12.0;
    let mut bars = String::new();
    let longest = |of: fn(&Served) -> f64| day.served.iter().map(of).fold(f64::MIN_POSITIVE, f64::max);
    let [most_time, most_runs] =
        [longest(|served| served.p95), longest(|served| served.executed_per_thousand)];
    for (place, served) in day.served.iter().enumerate() {
        let middle = top + ROW * (place as f64 + 0.5);
        let (weight, class) = if served.is_cache_query { (600, "own") } else { (400, "other") };
        text(MARGIN, middle - 3.0, "start", 14.0, weight, "ink", &served.name);
        text(MARGIN, middle + 14.0, "start", 12.0, 400, "faint", &served.detail);
        let mut bar = |x: f64, part: f64, figure: &str| {
            let length = (part * LONGEST).max(2.0);
            let _ = writeln!(
                bars,
                "<rect x=\"{x}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\" class=\"{class}\"/>",
                middle - BAR / 2.0
            );
            text(x + length + 8.0, middle + 4.5, "start", 13.0, weight, "ink", figure);
        };
        bar(TIMES, served.p95 / most_time, &milliseconds(served.p95));
        bar(RUNS, served.executed_per_thousand / most_runs, &digits(served.executed_per_thousand));
        let age = if served.outdated == 0 { "up to date".into() } else { seconds(served.age_max) };
        text(right, middle + 4.5, "end", 13.0, weight, "ink", &age);
    }
    let bottom = top + ROW * day.served.len() as f64;
    for (x1, y1, x2, y2, class) in [
        (MARGIN, top, right, top, "line"),
        (TIMES, top + 8.0, TIMES, bottom - 8.0, "axis"),
        (RUNS, top + 8.0, RUNS, bottom - 8.0, "axis"),
        (MARGIN, bottom, right, bottom, "line"),
    ] {
        let _ = writeln!(bars, "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" class=\"{class}\"/>");
    }

    let hits = day.served.iter().filter(|served| served.hits > 0.0);
    let hits: Vec<String> =
        hits.map(|served| format!("{} {:.0} %", served.detail, served.hits * 100.0)).collect();
    // "The last three" are the ways whose answers may be outdated: they stand last in `Column::ALL` (`day/column.rs`).
    let notes = [
        format!("Answers from a stored result: {}.", hits.join(", ")),
        format!(
            "Five minutes are shortened to {} s, which lowers the hits of the last three. Oldest answer: since the first commit that it misses.",
            digits(300.0 / day.scale)
        ),
        format!(
            "{} cores{} of {}, {} GB. {}. Measured {}.",
            machine.cores,
            if machine.virtual_machine { " (virtual)" } else { "" },
            machine.processor.replace("(R)", "").replace("(TM)", ""),
            machine.memory_gb,
            versions(machine),
            machine.finished
        ),
    ];
    let mut y = bottom + 10.0;
    for note in &notes {
        for line in lines(note, 125) {
            y += 18.0;
            text(MARGIN, y, "start", 12.0, 400, "faint", &line);
        }
    }
    let height = (y + MARGIN).ceil();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         role=\"img\" font-family=\"-apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n\
         <title>Answer time and executed queries of five ways to serve dashboards</title>\n<style>{STYLE}</style>\n\
         <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\" class=\"page\"/>\n{bars}{body}</svg>\n",
        WIDTH - 1.0,
        height - 1.0,
    )
}

/// Formats nanoseconds as milliseconds.
fn milliseconds(nanoseconds: f64) -> String {
    format!("{} ms", digits(nanoseconds / 1e6))
}

/// Formats nanoseconds as seconds.
fn seconds(nanoseconds: f64) -> String {
    format!("{} s", digits(nanoseconds / 1e9))
}

/// Breaks a text at blanks into lines of at most `width` characters. A longer word has a line of its own.
fn lines(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(name: &str, p95: f64, executed_per_thousand: f64, outdated: u64) -> Served {
        Served {
            name: name.into(),
            detail: "5 < 6".into(),
            is_cache_query: name == "own",
            requests: 1000,
            per_second: 50.0,
            hits: 0.5,
            waited: 0.0,
            executed: 500,
            executed_per_thousand,
            p50: 1e6,
            p95,
            p99: 2e8,
            outdated,
            age_p50: 0.0,
            age_max: 4e9,
            warm_up_seconds: 1.0,
            is_level: true,
        }
    }

    /// Fails if a bar has another length than its share of the longest one, if a figure stands beside another bar, or if a text
    /// breaks the XML.
    #[test]
    fn bars_are_as_long_as_their_figures() {
        let day = Day {
            scale: 4.0,
            sessions: 100,
            dashboards: 500,
            orders_per_second: 30,
            served: vec![served("other", 1e8, 1000.0, 0), served("own", 2.5e7, 500.0, 3)],
        };
        let machine = Machine {
            finished: "now".into(),
            processor: "A & B".into(),
            ..Machine::look(None, 0.0, 0.0).expect("this machine can be described")
        };
        let svg = draw_day(&day, &machine, true);
        for expected in [
            "width=\"130.0\" height=\"20\" rx=\"2\" class=\"other\"",
            "width=\"32.5\" height=\"20\" rx=\"2\" class=\"own\"",
            "width=\"65.0\" height=\"20\" rx=\"2\" class=\"own\"",
            ">100 ms<",
            ">25.0 ms<",
            ">up to date<",
            ">4.00 s<",
            "5 &lt; 6",
            "A &amp; B",
            "not to quote",
            "75.0 s",
        ] {
            assert!(svg.contains(expected), "{expected}: {svg}");
        }
    }

    /// Fails if a note is longer than a line, or if a word is lost.
    #[test]
    fn notes_are_broken_at_blanks() {
        assert_eq!(lines("one two three", 7), ["one two", "three"]);
        assert_eq!(lines("longest one", 3), ["longest", "one"]);
    }
}
