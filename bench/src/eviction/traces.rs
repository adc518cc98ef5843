//! *Traces*, the sequences of requests that the simulation of caches replays: either made by fixed rules, so that they are always
//! the same, or read from a file. This file makes the traces whose values have one size (`mixed.rs` has the others), and has the
//! generator of random numbers of the whole benchmark.

use anyhow::{Context, Result, ensure};
use std::collections::HashMap;
use std::io::BufRead;
use std::path::Path;

/// The size of all values in the traces that this file makes, in bytes.
const VALUE_BYTES: u32 = 100;

/// One request for a key, with the size and the cost of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The number of the key.
    pub key: u32,
    /// The size of the value, in bytes.
    pub size: u32,
    /// How long the value takes to compute, in microseconds. 0 means that it is not known.
    pub cost: u32,
}

/// A sequence of requests.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The name in the report.
    pub name: String,
    /// The requests, in order.
    pub requests: Vec<Request>,
    /// The total size of all values that are requested again and again, in bytes. Capacities are a share of this. Keys that a made
    /// trace requests only once do not belong to it.
    pub working_set: u64,
}

impl Trace {
    /// Returns the size of the values if it is the same for all requests, and otherwise `None`.
    pub fn equal_size(&self) -> Option<u32> {
        let size = self.requests.first()?.size;
        self.requests.iter().all(|request| request.size == size).then_some(size)
    }

    /// Returns whether at least one request has a known cost.
    pub fn has_costs(&self) -> bool {
        self.requests.iter().any(|request| request.cost > 0)
    }
}

/// The size of the made traces.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// The number of keys in the working set. Must be at least 1.
    pub keys: u32,
    /// The number of requests.
    pub requests: u32,
}

/// Returns all made traces of equal values, in the order of the report.
pub fn made(extent: Extent) -> Vec<Trace> {
    let trace = |name: &str, keys: Vec<u32>| Trace {
        name: name.into(),
        requests: keys.into_iter().map(|key| Request { key, size: VALUE_BYTES, cost: 0 }).collect(),
        working_set: u64::from(extent.keys) * u64::from(VALUE_BYTES),
    };
    vec![
        trace("Zipf 0.8", zipf(extent, 0.8)),
        trace("Zipf 1.0", zipf(extent, 1.0)),
        trace("Zipf 1.2", zipf(extent, 1.2)),
        trace("loop", cycle(extent)),
        trace("Zipf 1.0 with scans", polluted(extent)),
        trace("shifting hot set", shifting(extent)),
    ]
}

/// Draws keys by Zipf's law: the n-th key, counted from 1, is requested in proportion to n to the power of −`skew`.
fn zipf(extent: Extent, skew: f64) -> Vec<u32> {
    let ranks = Zipf::new(extent.keys, skew);
    let mut random = Random::of_seed(1 + (skew * 10.0) as u64);
    (0..extent.requests).map(|_| ranks.draw(&mut random)).collect()
}

/// Requests all keys one after the other, and then starts again from the first.
fn cycle(extent: Extent) -> Vec<u32> {
    (0..extent.requests).map(|place| place % extent.keys).collect()
}

/// Requests between two scans.
const BETWEEN_SCANS: u32 = 20_000;
/// Keys of a scan. So a fifth of the requests belong to scans.
const SCAN: u32 = 5_000;

/// Requests keys by Zipf's law with skew 1.0. From time to time, a scan reads keys that no other request asks for.
fn polluted(extent: Extent) -> Vec<u32> {
    let ranks = Zipf::new(extent.keys, 1.0);
    let mut random = Random::of_seed(2);
    let mut unseen = extent.keys;
    (0..extent.requests)
        .map(|place| {
            if place % (BETWEEN_SCANS + SCAN) < BETWEEN_SCANS {
                ranks.draw(&mut random)
            } else {
                unseen += 1;
                unseen - 1
            }
        })
        .collect()
}

/// The hot set is one in this many keys.
const HOT_SHARE: u32 = 20;
/// How many percent of the requests go to the hot set.
const HOT_PERCENT: u64 = 90;
/// How many phases the trace has. The hot set is a different one in each phase. There are as many phases as hot sets
/// ([`HOT_SHARE`]), so each key is hot in one phase.
const SHIFTS: u32 = 20;

/// Sends most requests to a small hot set, evenly, and the others to all keys. In each phase, the hot set consists of other keys.
pub fn shifting(extent: Extent) -> Vec<u32> {
    let mut random = Random::of_seed(3);
    let hot = (extent.keys / HOT_SHARE).max(1);
    let phase = (extent.requests / SHIFTS).max(1);
    (0..extent.requests)
        .map(|place| {
            let first = place / phase * hot;
            if random.below(100) < HOT_PERCENT {
                (first + random.below(hot.into()) as u32) % extent.keys
            } else {
                random.below(extent.keys.into()) as u32
            }
        })
        .collect()
}

/// Reads a trace: a CSV file with the columns time, key and size in bytes, and perhaps the cost in microseconds. The times must be
/// numbers and are not used; the order of the lines counts. If the first line has these names, it is skipped.
///
/// The working set is all keys of the trace, each with the size of its last request.
pub fn read(path: &Path) -> Result<Trace> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    parse(name, std::io::BufReader::new(file)).with_context(|| format!("{} is no trace", path.display()))
}

/// Reads a trace from its lines. An error names the line.
fn parse(name: String, lines: impl BufRead) -> Result<Trace> {
    let mut numbers: HashMap<String, u32> = HashMap::new();
    let mut sizes = Vec::new();
    let mut requests = Vec::new();
    for (number, line) in (1_u64..).zip(lines.lines()) {
        let line = line.with_context(|| format!("line {number}"))?;
        if number == 1 && is_header(&line) {
            continue;
        }
        let (key, size, cost) = parse_line(&line).with_context(|| format!("line {number}: {line:?}"))?;
        let next = u32::try_from(sizes.len()).context("more than four billion keys")?;
        let key = *numbers.entry(key.to_owned()).or_insert(next);
        if key == next {
            sizes.push(size);
        }
        sizes[key as usize] = size;
        requests.push(Request { key, size, cost });
    }
    ensure!(!requests.is_empty(), "there is nothing in it");
    Ok(Trace { name, requests, working_set: sizes.into_iter().map(u64::from).sum() })
}

/// Returns whether the line has exactly the names of the columns. The cost may be missing.
fn is_header(line: &str) -> bool {
    let columns = ["time", "key", "size", "cost"];
    let found: Vec<_> = line.split(',').map(str::trim).collect();
    found == columns || found == columns[..3]
}

/// Returns the key, the size and the cost of a line. The cost is 0 if the line has none.
fn parse_line(line: &str) -> Result<(&str, u32, u32)> {
    let columns: Vec<_> = line.split(',').map(str::trim).collect();
    let (time, key, size, cost) = match columns[..] {
        [time, key, size] => (time, key, size, "0"),
        [time, key, size, cost] => (time, key, size, cost),
        _ => anyhow::bail!("{} columns instead of time, key, size and perhaps cost", columns.len()),
    };
    let time: f64 = time.parse().context("the time is no number")?;
    ensure!(time.is_finite(), "the time is no number");
    ensure!(!key.is_empty(), "the key is empty");
    let size = size.parse().context("the size is no number of bytes")?;
    ensure!(size > 0, "a value has at least one byte");
    let cost = cost.parse().context("the cost is no number of microseconds")?;
    Ok((key, size, cost))
}

/// Draws ranks, starting at 0, by Zipf's law, using the cumulative probabilities.
pub struct Zipf {
    /// For each rank, the probability of this rank or a lower one.
    up_to: Vec<f64>,
}

impl Zipf {
    /// Creates the distribution over `ranks` ranks, at least one.
    pub fn new(ranks: u32, skew: f64) -> Self {
        let mut sum = 0.0;
        let mut up_to: Vec<f64> = (1..=ranks)
            .map(|rank| {
                sum += f64::from(rank).powf(-skew);
                sum
            })
            .collect();
        for bound in &mut up_to {
            *bound /= sum;
        }
        Self { up_to }
    }

    /// Draws the next rank.
    pub fn draw(&self, random: &mut Random) -> u32 {
        let chance = random.fraction();
        (self.up_to.partition_point(|bound| *bound <= chance) as u32).min(self.up_to.len() as u32 - 1)
    }
}

/// The random number generator SplitMix64. It gives the same numbers on every machine, forever.
pub struct Random(u64);

impl Random {
    /// Creates a generator. Another seed gives other numbers.
    pub fn of_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns any 64-bit number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Returns a number below `bound`, which must be at least 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// Returns a number from 0 to below 1.
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const EXTENT: Extent = Extent { keys: 1000, requests: 200_000 };

    /// Returns how often each key below `of` occurs.
    fn counts(keys: &[u32], of: u32) -> Vec<u32> {
        let mut counts = vec![0; of as usize];
        for key in keys.iter().filter(|key| **key < of) {
            counts[*key as usize] += 1;
        }
        counts
    }

    /// Fails if two runs of the program would replay different traces, or if their length or their working set is wrong.
    #[test]
    fn traces_are_the_same_every_time_and_as_long_as_asked_for() {
        let (one, other) = (made(EXTENT), made(EXTENT));
        assert_eq!(one.len(), 6);
        for (one, other) in one.iter().zip(&other) {
            assert_eq!(one.requests, other.requests, "{}", one.name);
            assert_eq!(one.requests.len(), EXTENT.requests as usize, "{}", one.name);
            assert_eq!((one.working_set, one.equal_size()), (100_000, Some(100)), "{}", one.name);
        }
    }

    /// Fails if a key is not requested as often as Zipf's law says.
    #[test]
    fn zipf_requests_follow_the_power_law_of_the_skew() {
        for skew in [0.8, 1.0, 1.2] {
            let counts = counts(&zipf(EXTENT, skew), EXTENT.keys);
            let sum: f64 = (1..=EXTENT.keys).map(|rank| f64::from(rank).powf(-skew)).sum();
            for rank in [1, 2, 10] {
                let expected = f64::from(EXTENT.requests) * f64::from(rank).powf(-skew) / sum;
                let found = f64::from(counts[rank as usize - 1]);
                // The limit is about five standard deviations. The seed is fixed, so the test does not fail at random.
                assert!(
                    (found - expected).abs() < 5.0 * expected.sqrt(),
                    "{skew}, {rank}: {found} {expected}"
                );
            }
        }
    }

    /// Fails if a pass through the loop leaves a key out or changes the order.
    #[test]
    fn a_loop_requests_every_key_before_it_repeats_one() {
        let keys = cycle(EXTENT);
        for round in keys.chunks(EXTENT.keys as usize) {
            assert!(round.iter().copied().eq(0..EXTENT.keys));
        }
    }

    /// Fails if a scan asks for a key that another request asks for: the scan would not be pure pollution.
    #[test]
    fn keys_of_a_scan_are_requested_once() {
        let keys = polluted(EXTENT);
        let scanned: Vec<_> = keys.iter().filter(|key| **key >= EXTENT.keys).collect();
        assert_eq!(scanned.len(), 200_000 / (BETWEEN_SCANS + SCAN) as usize * SCAN as usize);
        assert_eq!(scanned.iter().collect::<HashSet<_>>().len(), scanned.len());
        // A scan is not interrupted by other requests.
        assert!(keys[BETWEEN_SCANS as usize..][..SCAN as usize].iter().all(|key| *key >= EXTENT.keys));
        assert!(keys[..BETWEEN_SCANS as usize].iter().all(|key| *key < EXTENT.keys));
    }

    /// Fails if a phase keeps the hot set of the one before, or if the hot set gets another share of the requests.
    #[test]
    fn the_hot_set_moves_on() {
        let keys = shifting(EXTENT);
        let hot = EXTENT.keys / HOT_SHARE;
        for (phase, keys) in keys.chunks((EXTENT.requests / SHIFTS) as usize).enumerate() {
            let first = phase as u32 * hot % EXTENT.keys;
            let inside = keys.iter().filter(|key| (first..first + hot).contains(key)).count();
            let share = inside as f64 / keys.len() as f64;
            // Of the remaining tenth of the requests, a twentieth falls into the hot set by chance.
            assert!((0.89..0.92).contains(&share), "phase {phase}: {share}");
        }
    }

    /// Fails if a header becomes a request, if spaces become part of a key, if the working set counts the first size of a key
    /// instead of the last, or if a missing cost is not 0.
    #[test]
    fn a_file_is_read_with_its_sizes() {
        let text = "time,key,size\n0,a,10\n0.5, b ,20\n2,a,30\n";
        let trace = parse("t".into(), text.as_bytes()).unwrap();
        let request = |key, size| Request { key, size, cost: 0 };
        assert_eq!(trace.requests, [request(0, 10), request(1, 20), request(0, 30)]);
        assert_eq!((trace.working_set, trace.equal_size()), (50, None));
        assert!(!trace.has_costs());
        let costly = parse("t".into(), "time,key,size,cost\n0,a,10,7\n0,b,10\n".as_bytes()).unwrap();
        assert_eq!(costly.requests.iter().map(|request| request.cost).collect::<Vec<_>>(), [7, 0]);
        assert!(costly.has_costs());
        // Without a header, the first line is a request like the others.
        assert_eq!(parse("t".into(), "0,a,10\n1,a,10".as_bytes()).unwrap().requests.len(), 2);
    }

    /// Fails if an invalid line is accepted or skipped, or if the error does not say which line it is and why.
    #[test]
    fn an_error_names_the_invalid_line() {
        for (line, why) in [
            ("1,a", "2 columns"),
            ("1,a,10,1,x", "5 columns"),
            ("1,a,10,dear", "cost is no number"),
            ("", "1 columns"),
            ("soon,a,10", "time is no number"),
            ("nan,a,10", "time is no number"),
            ("1,,10", "key is empty"),
            ("1,a,ten", "size is no number"),
            ("1,a,-1", "size is no number"),
            ("1,a,0", "at least one byte"),
            ("1,a,99999999999", "size is no number"),
            ("time,key,size", "time is no number"),
        ] {
            let error = parse("t".into(), format!("time,key,size\n0,a,1\n{line}\n0,b,1\n").as_bytes());
            let error = format!("{:#}", error.unwrap_err());
            assert!(error.contains("line 3") && error.contains(why), "{line:?}: {error}");
        }
        assert!(parse("t".into(), "time,key,size\n".as_bytes()).is_err());
        let broken = parse("t".into(), &b"0,a,1\n1,\xff,1\n"[..]).unwrap_err();
        assert!(format!("{broken:#}").contains("line 2"), "{broken:#}");
    }
}
