//! The text format of Prometheus, version 0.0.4: a sink of metrics that writes them as lines of text. `cache_metrics_text` returns
//! the text.

use super::family::{Family, Label, Owner, Sink, Value};
use crate::pg::memory;

/// An estimate of the bytes of a line.
const LINE_BYTES: usize = 96;

/// The text of metrics.
#[derive(Debug, Default)]
pub struct Text(pub Vec<u8>);

/// The most decimal digits of a u64.
const DIGITS: usize = 20;

impl Text {
    /// Adds pieces of a line. Raises an error if there is no memory.
    fn add(&mut self, pieces: &[&str]) {
        memory::reserve(&mut self.0, pieces.iter().map(|piece| piece.len()).sum());
        pieces.iter().for_each(|piece| self.0.extend_from_slice(piece.as_bytes()));
    }

    /// Adds the quotient of a number and a power of ten, as a decimal without zeros at the end of its fraction.
    fn add_number(&mut self, number: u64, by: u64) {
        let mut buffer = [b'0'; 2 * DIGITS];
        let (mut rest, mut at, mut by) = (number, buffer.len(), by);
        let mut end = at;
        while by > 1 {
            at -= 1;
            buffer[at] = b'0' + (rest % 10) as u8;
            if end == at + 1 && buffer[at] == b'0' {
                end = at;
            }
            (rest, by) = (rest / 10, by / 10);
        }
        if at < buffer.len() {
            at -= 1;
            // A number without a fraction is written without the point.
            end = if end == at + 1 { at } else { end };
            buffer[at] = b'.';
        }
        loop {
            at -= 1;
            buffer[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        memory::reserve(&mut self.0, end - at);
        self.0.extend_from_slice(&buffer[at..end]);
    }
}

impl Sink for Text {
    fn make_room(&mut self, metrics: usize) {
        memory::reserve(&mut self.0, metrics * LINE_BYTES);
    }

    fn family(&mut self, Family { name, kind, help }: &Family) {
        // Backslashes and line feeds would have to be escaped. The help texts of this library contain neither.
        self.add(&["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind.name(), "\n"]);
    }

    fn sample(&mut self, name: &'static str, owner: &Owner, labels: &[Label<'_>], value: Value) {
        self.add(&[name]);
        let mut opening = "{";
        if !owner.text.is_empty() {
            self.add(&[opening, &owner.text]);
            opening = ",";
        }
        for (label, value) in labels {
            self.add(&[opening, label, "=\"", value, "\""]);
            opening = ",";
        }
        self.add(&[if opening == "{" { " " } else { "} " }]);
        let (number, by) = value.parts();
        self.add_number(number, by);
        self.add(&["\n"]);
    }
}
