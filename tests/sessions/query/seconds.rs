//! The share of calls that got a stored result, for each second of a load (`load.rs`), as numbers and as a picture; a test writes
//! both to `target/tmp`.

use super::slow::ensure;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// The width of the picture in pixels.
const WIDTH: f64 = 800.0;
/// The height of the picture.
const HEIGHT: f64 = 240.0;
/// The left margin.
const LEFT: f64 = 56.0;
/// The right margin.
const RIGHT: f64 = 24.0;
/// The upper margin.
const TOP: f64 = 56.0;
/// The lower margin.
const BOTTOM: f64 = 40.0;

/// The seconds of a load, in the order of time.
#[derive(Debug)]
pub struct Seconds {
    /// How many calls began in each second, and how many of these got a stored result.
    counts: Vec<(u32, u32)>,
    /// The beginning and the end of each run of the query, in seconds.
    runs: Vec<(f64, f64)>,
}

impl Seconds {
    /// Returns the record of a number of seconds without calls.
    pub fn new(seconds: usize) -> Self {
        Self { counts: vec![(0, 0); seconds], runs: Vec::new() }
    }

    /// Counts a call that began at this time after the beginning of the load. A call after the last second is not counted.
    pub fn count(&mut self, at: Duration, is_served: bool) {
        if let Some((calls, served)) = self.counts.get_mut(at.as_secs() as usize) {
            *calls += 1;
            *served += u32::from(is_served);
        }
    }

    /// Notes a call that ran the query, by its beginning and its duration.
    pub fn note_run(&mut self, at: Duration, took: Duration) {
        self.runs.push((at.as_secs_f64(), (at + took).as_secs_f64()));
    }

    /// Returns the share of served calls in each second, in percent. A second without calls has 0 %: all sessions were waiting.
    fn shares(&self) -> impl Iterator<Item = f64> {
        self.counts.iter().map(|(calls, served)| 100.0 * f64::from(*served) / f64::from((*calls).max(1)))
    }

    /// Returns an error unless at least this percentage of the calls was served in each second, except the first, in which the load
    /// begins.
    pub fn ensure_no_cliff(&self, least: f64) -> Result<(), String> {
        let low: Vec<_> = self.shares().enumerate().skip(1).filter(|(_, share)| *share < least).collect();
        ensure(low.is_empty(), || format!("seconds with less than {least} %: {low:?}\n{}", self.table()))
    }

    /// Returns the numbers as text: for each second, the calls, and the percentage of those that were served.
    fn table(&self) -> String {
        let mut text = String::from("second  calls  served %\n");
        for (second, ((calls, _), share)) in self.counts.iter().zip(self.shares()).enumerate() {
            let _ = writeln!(text, "{second:6} {calls:6} {share:9.1}");
        }
        text
    }

    /// Writes the picture and the numbers to `target/tmp`, as `name.svg` and `name.txt`.
    pub fn write(&self, name: &str, title: &str) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        for (ending, text) in [("svg", self.picture(title)), ("txt", self.table())] {
            let path = folder.join(format!("{name}.{ending}"));
            std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }

    /// Draws the shares as a line. Behind it, each run of the query is a bar of the full height.
    fn picture(&self, title: &str) -> String {
        let length = self.counts.len().max(1) as f64;
        let x = |second: f64| LEFT + second.clamp(0.0, length) / length * (WIDTH - LEFT - RIGHT);
        let y = |share: f64| HEIGHT - BOTTOM - share / 100.0 * (HEIGHT - TOP - BOTTOM);
        let mut body = format!(
            "<text x=\"{LEFT}\" y=\"22\" font-size=\"15\" font-weight=\"600\" fill=\"#1f2328\">{title}</text>
<text x=\"{LEFT}\" y=\"42\" fill=\"#59636e\">Calls of each second that got a stored result at once. Bars: a call runs the query.</text>\n"
        );
        for (begin, end) in &self.runs {
            let (begin, end) = (x(*begin), x(*end));
            let (width, height) = ((end - begin).max(1.0), y(0.0) - y(100.0));
            let _ = writeln!(
                body,
                "<rect x=\"{begin:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"#e8a33d\" opacity=\"0.4\"/>",
                y(100.0)
            );
        }
        for share in [0.0, 50.0, 100.0] {
            let at = y(share);
            let _ = writeln!(
                body,
                "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\" stroke=\"#d1d9e0\"/>
<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#59636e\">{share} %</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                at + 4.0
            );
        }
        let step = self.counts.len().div_ceil(10).next_multiple_of(if length > 50.0 { 10 } else { 1 }).max(1);
        for second in (0..=self.counts.len()).step_by(step) {
            let (at, below) = (x(second as f64), HEIGHT - BOTTOM + 18.0);
            let _ = writeln!(
                body,
                "<text x=\"{at:.1}\" y=\"{below:.1}\" text-anchor=\"middle\" fill=\"#59636e\">{second} s</text>"
            );
        }
        let points: String = self
            .shares()
            .enumerate()
            .map(|(second, share)| format!("{:.1},{:.1} ", x(second as f64 + 0.5), y(share)))
            .collect();
        let _ = writeln!(
            body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"#0969da\" stroke-width=\"2\"/>",
            points.trim_end()
        );
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">
<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>
{body}</svg>
"
        )
    }
}
