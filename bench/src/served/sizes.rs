//! The part `sizes` of the report: measures how long it takes to get and to set values of all sizes and kinds, inside SQL and over
//! the wire.

use super::cluster;
use crate::pace::Pace;
use crate::report::notation::{time, with_interval};
use crate::report::section::{Section, Table};
use crate::statistics::Summary;
use postgres::Client;
use postgres::types::{FromSql, Type};
use std::error::Error;
use std::time::{Duration, Instant};

/// The sizes of values: a label, and the bytes.
const SIZES: [(&str, usize); 5] =
    [("100 B", 100), ("1 KB", 1 << 10), ("10 KB", 10 << 10), ("100 KB", 100 << 10), ("3 MB", 3 << 20)];

/// The kinds of values: a label, the suffix of the functions, and an expression for a value of `$1` bytes (a jsonb string of `$1`
/// letters).
const KINDS: [(&str, &str, &str); 3] = [
    ("jsonb", "", "to_jsonb(repeat('x', $1))"),
    ("text", "_text", "repeat('x', $1)"),
    ("bytea", "_bytes", "convert_to(repeat('x', $1), 'UTF8')"),
];

/// The operations on a value, in the order of the columns: the functions `in_sql`, `get` and `set`.
const WAYS: [&str; 3] = ["get in SQL", "get over the wire", "set over the wire"];

/// Returns about how long the part takes: three times [`SPAN`] for each measurement, because large values take longer.
pub fn estimate(pace: &Pace) -> Duration {
    Duration::from_millis(60) * (SIZES.len() * KINDS.len() * WAYS.len() * (pace.read_rounds + 1)) as u32
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let (_cluster, mut session) = cluster("128MB");
    let mut table = Table::new(2, ["size", "kind"].into_iter().chain(WAYS));
    let mut figures = Vec::new();
    for (label, size) in SIZES {
        for (place, (kind, suffix, value)) in KINDS.into_iter().enumerate() {
            let mut row = vec![if place == 0 { label.to_owned() } else { String::new() }, kind.to_owned()];
            let key = format!("{kind} of {size}");
            let set = format!("SELECT cache_set{suffix}('{key}', {value}, '1 day')");
            let stored: bool = session.query_one(&set, &[&(size as i32)]).expect("a value can be set").get(0);
            assert!(stored, "{key} has room");
            let all: Vec<Summary> =
                [in_sql, get, self::set].map(|way| rounds(pace, || way(&mut session, suffix, &key))).into();
            row.extend(all.iter().map(|summary| with_interval(*summary, time)));
            table.rows.push(row);
            figures.push(serde_json::json!({ "size": size, "kind": kind, "ways": WAYS, "nanoseconds": all }));
        }
    }
    Section {
        id: "sizes".into(),
        title: "Values of all sizes and kinds".into(),
        goals: Vec::new(),
        tables: vec![table],
        explained: vec![
            "The time of one operation, in one session. Inside SQL, one SELECT reads the same key repeatedly. Over the wire, values are \
             sent in the binary form of their type. For jsonb this form is text, so its figures include formatting and parsing. A \
             set includes the commit that makes the value visible."
                .into(),
        ],
        figures: figures.into(),
    }
}

/// Returns the median over the rounds, after one run that does not count.
fn rounds(pace: &Pace, mut run: impl FnMut() -> f64) -> Summary {
    run();
    let times: Vec<f64> = (0..pace.read_rounds).map(|_| run()).collect();
    Summary::of(&times).expect("there is at least one round")
}

/// The time for one measurement: long enough that the resolution of the clock does not matter, and short enough to finish all
/// measurements soon.
const SPAN: Duration = Duration::from_millis(20);

/// Repeats an operation until `SPAN` is over, at least once. Returns the nanoseconds of one repetition.
fn repeat(mut once: impl FnMut()) -> f64 {
    let started = Instant::now();
    let mut count = 0;
    while count == 0 || started.elapsed() < SPAN {
        once();
        count += 1;
    }
    started.elapsed().as_secs_f64() * 1e9 / f64::from(count)
}

/// How often one SELECT reads the key.
const IN_SQL: i32 = 200;

/// Reads a key inside SQL. Returns the nanoseconds of one operation. The key must exist, and `suffix` must be that of the functions
/// for its kind: see [`KINDS`]. The same holds for the next two functions.
fn in_sql(session: &mut Client, suffix: &str, key: &str) -> f64 {
    let query = format!("SELECT count(cache_get{suffix}('{key}')) FROM generate_series(1, {IN_SQL})");
    let select = session.prepare(&query).expect("it can be prepared");
    let each = repeat(|| {
        let found: i64 = session.query_one(&select, &[]).expect("it is asked for").get(0);
        assert_eq!(found, i64::from(IN_SQL), "{key} is there");
    });
    each / f64::from(IN_SQL)
}

/// Reads a key over the wire.
fn get(session: &mut Client, suffix: &str, key: &str) -> f64 {
    let select = session.prepare(&format!("SELECT cache_get{suffix}($1)")).expect("it can be prepared");
    repeat(|| {
        let row = session.query_one(&select, &[&key]).expect("it is asked for");
        assert!(row.get::<_, Option<Unread>>(0).is_some(), "{key} is there");
    })
}

/// A value of any type whose bytes are not read.
struct Unread;

impl FromSql<'_> for Unread {
    fn from_sql(_: &Type, _: &[u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Sets a key over the wire. Takes the size of the value from the end of the key, after the last blank.
fn set(session: &mut Client, suffix: &str, key: &str) -> f64 {
    let value = if suffix.is_empty() { "$2::text::jsonb" } else { "$2" };
    let set = format!("SELECT cache_set{suffix}($1, {value}, '1 day')");
    let set = session.prepare(&set).expect("it can be prepared");
    let size: usize = key.rsplit(' ').next().and_then(|size| size.parse().ok()).expect("a size");
    let (json, text, bytes) = (format!("\"{}\"", "x".repeat(size)), "x".repeat(size), vec![b'x'; size]);
    repeat(|| {
        let stored = match suffix {
            "" => session.query_one(&set, &[&key, &json]),
            "_text" => session.query_one(&set, &[&key, &text]),
            _ => session.query_one(&set, &[&key, &bytes]),
        };
        assert!(stored.expect("a value can be set").get::<_, bool>(0), "{key} has room");
    })
}
