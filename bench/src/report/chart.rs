//! Draws the results of the plan (`plan.rs`), the measurements that compare pg_cache with a table and with Redis, as an SVG. Each
//! group of measurements has a panel. Each contender has a horizontal bar for its speed, with the confidence interval of the median
//! as a *whisker*. The drawing is small enough to need no library.

use super::notation::{rate, time, versions};
use super::results::{Entry, Measured, Report};
use crate::data::{KEYS, VALUE_BYTES};
use crate::plan::Shown;
use std::fmt::Write;

/// The width of the picture. All lengths are in pixels.
const WIDTH: f64 = 800.0;
const MARGIN: f64 = 28.0;
/// The x position where names end and bars begin.
const AXIS: f64 = 226.0;
/// The length of the longest bar with its whisker. The space to the right of it is for the figures.
const LONGEST: f64 = 400.0;
/// The height of a row.
const ROW: f64 = 24.0;
/// The height of the bar in a row.
const BAR: f64 = 16.0;

/// The colour of texts.
const INK: &str = "#1f2328";
/// The colour of less important texts.
const FAINT: &str = "#59636e";
/// The colour of lines between panels.
const LINE: &str = "#d1d9e0";

/// The colour of each contender of the plan, chosen by the beginning of its name. Colour-blind readers can also distinguish the
/// colours. A test checks that each contender has a colour.
const COLOURS: [(&str, &str); 4] =
    [("pg_cache", "#0969da"), ("table", "#e8a33d"), ("Redis", "#c4432b"), ("no-op", "#afb8c1")];

/// Returns the colour of a contender. If the beginning of the name is unknown, the colour is `#8250df`, which no other name has.
fn colour(name: &str) -> &'static str {
    COLOURS.iter().find(|(start, _)| name.starts_with(start)).map_or("#8250df", |(_, colour)| colour)
}

/// Draws the chart.
pub fn draw(report: &Report) -> String {
    let mut canvas = Canvas { body: String::new(), y: MARGIN };
    canvas.title(report);
    for group in report.groups() {
        canvas.panel(group);
    }
    canvas.footer(report);
    canvas.finish()
}

/// The picture so far. `y` is the distance from the top of the picture to the next element: to its upper edge, or to the baseline
/// of a text.
struct Canvas {
    body: String,
    y: f64,
}

impl Canvas {
    /// Draws the title.
    fn title(&mut self, report: &Report) {
        let quick = if report.quick { " (quick run, not to quote)" } else { "" };
        self.y += 14.0;
        self.text(MARGIN, "start", 20.0, INK, "600", &format!("pg_cache, side by side{quick}"));
        self.y += 22.0;
        let what = format!(
            "{} keys, {VALUE_BYTES}-byte values. Operations per second: longer is better.",
            grouped(KEYS)
        );
        self.text(MARGIN, "start", 14.0, FAINT, "400", &what);
        self.y += 8.0;
    }

    /// Draws a group with its own scale: the longest bar of the group with its whisker is [`LONGEST`].
    fn panel(&mut self, group: &[Measured]) {
        self.y += 34.0;
        self.text(MARGIN, "start", 16.0, INK, "600", &group[0].group);
        self.y += 8.0;
        self.line(MARGIN, self.y, WIDTH - MARGIN, self.y, LINE, 1.0);
        self.y += 6.0;
        let ends = group.iter().flat_map(|measured| &measured.contenders);
        let top =
            ends.map(|entry| entry.operations_per_second.summary.high).fold(f64::MIN_POSITIVE, f64::max);
        for measured in group {
            // The title shares the line of the first contender's name. A group with one measurement needs no second heading.
            if group.len() > 1 {
                self.y += 18.0;
                self.text(MARGIN, "start", 13.0, INK, "600", &measured.title);
                self.y -= 14.0;
            }
            let begin = self.y;
            for entry in &measured.contenders {
                self.bar(entry, measured.shown_as, top);
            }
            self.line(AXIS, begin + 2.0, AXIS, self.y - 2.0, FAINT, 1.0);
            self.y += 8.0;
        }
        self.y -= 6.0;
    }

    /// Draws one contender: its name, its bar, and its figures. `top` is the operations per second that [`LONGEST`] stands for.
    fn bar(&mut self, entry: &Entry, shown_as: Shown, top: f64) {
        let speed = entry.operations_per_second.summary;
        let x = |per_second: f64| AXIS + per_second / top * LONGEST;
        let middle = self.y + ROW / 2.0;
        let _ = writeln!(
            self.body,
            "<rect x=\"{AXIS}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{}\"/>",
            middle - BAR / 2.0,
            (x(speed.median) - AXIS).max(1.0),
            colour(&entry.name),
        );
        if speed.samples > 1 {
            let (low, high) = (x(speed.low), x(speed.high));
            self.line(low, middle, high, middle, INK, 1.2);
            for end in [low, high] {
                self.line(end, middle - 4.0, end, middle + 4.0, INK, 1.2);
            }
        }
        let figure = match shown_as {
            Shown::Rate => format!("{}/s", rate(speed.median)),
            Shown::Time => format!("{}/s · {}", rate(speed.median), time(1e9 / speed.median)),
        };
        let weight = if entry.name.starts_with("pg_cache") { "600" } else { "400" };
        self.y = middle + 4.5;
        self.text(AXIS - 8.0, "end", 13.0, INK, weight, &entry.name);
        self.text(x(speed.high.max(speed.median)) + 8.0, "start", 13.0, INK, weight, &figure);
        self.y = middle + ROW / 2.0;
    }

    /// Draws the notes below the panels.
    fn footer(&mut self, report: &Report) {
        let machine = &report.machine;
        let lines = [
            format!(
                "Medians of {} interleaved rounds (writes: {}); whiskers: their interval, at least 95 % confidence.",
                report.read_rounds, report.write_rounds
            ),
            "The no-op function of pg_cache's library does nothing: it is the floor under all its functions.".into(),
            "Each panel has its own scale. Unix sockets, clients on the servers' cores; 1 client: both on one core."
                .into(),
            format!(
                "{} cores{} of {}, {} GB, Linux {}",
                machine.cores,
                if machine.virtual_machine { " (virtual)" } else { "" },
                machine.processor.replace("(R)", "").replace("(TM)", ""),
                machine.memory_gb,
                machine.kernel
            ),
            format!("{}. Measured {}.", versions(machine), machine.finished),
        ];
        self.y += 22.0;
        for line in lines {
            self.y += 18.0;
            self.text(MARGIN, "start", 12.0, FAINT, "400", &line);
        }
        self.y += MARGIN;
    }

    /// Draws text with its baseline at the current `y`.
    fn text(&mut self, x: f64, anchor: &str, size: f64, fill: &str, weight: &str, text: &str) {
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\" \
             font-weight=\"{weight}\" fill=\"{fill}\">{}</text>",
            self.y,
            escaped(text),
        );
    }

    fn line(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, stroke: &str, width: f64) {
        let _ = writeln!(
            self.body,
            "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"{stroke}\" stroke-width=\"{width}\"/>"
        );
    }

    /// Returns the complete SVG. It has its own background, because the page may be dark.
    fn finish(self) -> String {
        let (height, body) = (self.y.ceil(), self.body);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
             font-family=\"-apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n\
             <title>pg_cache side by side with a table and Redis</title>\n\
             <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\" fill=\"#ffffff\" stroke=\"{LINE}\"/>\n\
             {body}</svg>\n",
            WIDTH - 1.0,
            height - 1.0,
        )
    }
}

fn grouped(number: u64) -> String {
    super::notation::count(number as f64)
}

/// Escapes the characters that have a meaning in XML text.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a name begins with none of the words of `COLOURS`: its bar would have the colour for unknown names.
    #[test]
    fn every_contender_of_the_plan_has_a_colour() {
        for measurement in crate::plan::measurements() {
            for contender in measurement.contenders {
                assert_ne!(colour(contender.name), "#8250df", "{} has no colour", contender.name);
            }
        }
    }

    /// The title of a measurement is on the line of its first contender's name. The two share the space from [`MARGIN`] to
    /// [`AXIS`], about 200 pixels, and a letter takes less than 8. Fails if the two may overlap.
    #[test]
    fn the_first_name_leaves_room_for_the_title_beside_it() {
        let plan = crate::plan::measurements();
        for group in plan.chunk_by(|one, next| one.group == next.group).filter(|group| group.len() > 1) {
            for measurement in group {
                let letters =
                    measurement.title.chars().count() + measurement.contenders[0].name.chars().count();
                assert!(letters <= 25, "{}: give the title a line of its own", measurement.id);
            }
        }
    }

    /// Fails if a character that has a meaning in XML is not escaped.
    #[test]
    fn text_cannot_break_the_picture() {
        assert_eq!(escaped("a<b & c"), "a&lt;b &amp; c");
    }
}
