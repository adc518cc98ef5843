//! The parts of a metric, in the terms of Prometheus: a *family* is all metrics with the same name, and *labels* tell them apart.
//! `server.rs` and `spaces.rs` make metrics of these parts and pass them to a [`Sink`]: the text for Prometheus (`text.rs`), or the
//! rows of the view `cache_metrics`.

use serde_json::Value as Json;

/// The type of a metric, as Prometheus defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Counter,
    Gauge,
    Histogram,
}

impl Type {
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The metrics with the same name, which differ in their labels.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    pub name: &'static str,
    pub kind: Type,
    pub help: &'static str,
}

/// The name and the value of a label that a metric has in addition to the labels of its owner. The value must be printable ASCII
/// without quotes and backslashes.
pub type Label<'a> = (&'static str, &'a str);

/// The value of a metric, in the unit in which it is counted. The view and the text show it in base units: times in seconds.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    Number(u64),
    Millis(u64),
    Micros(u64),
    Nanos(u64),
}

impl Value {
    /// Returns the number and its divisor: their quotient is the value in base units.
    pub fn parts(self) -> (u64, u64) {
        match self {
            Self::Number(number) => (number, 1),
            Self::Millis(number) => (number, 1_000),
            Self::Micros(number) => (number, 1_000_000),
            Self::Nanos(number) => (number, 1_000_000_000),
        }
    }

    /// Returns the value in base units.
    pub fn number(self) -> f64 {
        let (number, by) = self.parts();
        number as f64 / by as f64
    }
}

/// The labels that name a database, or a space of it. They are written once for all metrics of the owner.
#[derive(Debug, Default)]
pub struct Owner {
    /// The labels in the text format of Prometheus, without braces.
    pub text: String,
    /// The labels as members of a JSON object, without braces.
    pub json: String,
}

impl Owner {
    /// Makes an owner from its labels. Escapes the values, so they may be any text. The caller must check for memory.
    pub fn of(labels: &[Label<'_>]) -> Self {
        let mut owner = Self::default();
        for (name, value) in labels {
            if !owner.text.is_empty() {
                owner.text.push(',');
                owner.json.push(',');
            }
            owner.text.extend([name, "=\""]);
            for letter in value.chars() {
                match letter {
                    '\\' => owner.text.push_str("\\\\"),
                    '"' => owner.text.push_str("\\\""),
                    '\n' => owner.text.push_str("\\n"),
                    letter => owner.text.push(letter),
                }
            }
            owner.text.push('"');
            owner.json.extend(["\"", name, "\":", &Json::from(*value).to_string()]);
        }
        owner
    }
}

/// A receiver of metrics. The caller must pass each family with [`family`](Self::family) first, and then all metrics of this
/// family.
pub trait Sink {
    /// Makes room for about this many metrics.
    fn make_room(&mut self, _metrics: usize) {}

    /// Begins a family. The metrics that follow belong to it.
    fn family(&mut self, family: &Family);

    /// Takes a metric of the last family. `name` is the name of the family, or for a histogram, that name with a suffix.
    fn sample(&mut self, name: &'static str, owner: &Owner, labels: &[Label<'_>], value: Value);

    /// Takes a family of one metric without labels.
    fn single(&mut self, name: &'static str, kind: Type, help: &'static str, value: Value) {
        self.family(&Family { name, kind, help });
        self.sample(name, &Owner::default(), &[], value);
    }
}
