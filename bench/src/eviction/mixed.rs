//! Made *traces*, sequences of requests, whose values differ in size, and in two of the traces also in what they cost to compute.

use super::traces::{Extent, Random, Request, Trace, Zipf, shifting};

/// The smallest and the largest value, in bytes: a sector of a disk, and the largest request of common block traces.
const SIZES: (u32, u32) = (512, 69_632);
/// The lowest and the highest cost, in microseconds: a lookup by primary key, and a report.
const COSTS: (u32, u32) = (100, 2_000_000);
/// The skew of Zipf's law for the keys that [`popular`] draws. It is between the skews 0.8 and 1.0 of the traces of equal values.
const SKEW: f64 = 0.9;

/// Returns all traces of mixed values, in the order of the report. A cost of 0 means that it is not known. The traces have a fifth
/// of the keys and half of the requests of `extent`, because their values are much larger than the 100 bytes of the other traces:
/// 14 KB on average, and 40 KB in "blocks".
pub fn made(extent: Extent) -> Vec<Trace> {
    let extent = Extent { keys: (extent.keys / 5).max(20), requests: extent.requests / 2 };
    let trace = |name: &str, keys: Vec<u32>, value: &dyn Fn(u32) -> (u32, u32)| {
        let request = |key| {
            let (size, cost) = value(key);
            Request { key, size, cost }
        };
        Trace {
            name: name.into(),
            requests: keys.into_iter().map(request).collect(),
            working_set: (0..extent.keys).map(|key| u64::from(value(key).0)).sum(),
        }
    };
    let blocks = Blocks::of(extent.keys);
    vec![
        trace("mixed sizes", popular(extent), &|key| (spread(key, 1, SIZES), 0)),
        trace("blocks", blocks.requests(extent), &|key| (blocks.size(key), 0)),
        trace("shifting, mixed sizes", shifting(extent), &|key| (spread(key, 1, SIZES), 0)),
        trace("mixed costs", popular(extent), &|key| (spread(key, 1, SIZES), spread(key, 2, COSTS))),
        trace("cost by size", popular(extent), &|key| {
            let size = spread(key, 1, SIZES);
            // Ten microseconds for each byte, times a factor from 0.2 to 5.
            let cost = f64::from(size) * 10.0 * f64::from(spread(key, 2, (200, 5_000))) / 1_000.0;
            (size, (cost as u32).clamp(COSTS.0, COSTS.1))
        }),
    ]
}

/// Returns a number between two bounds, always the same for a key and a seed. The logarithms are distributed evenly, so that there
/// are as many small numbers as large ones. The seed, below 256, makes the sizes and the costs of the keys independent.
fn spread(key: u32, seed: u64, (least, most): (u32, u32)) -> u32 {
    let chance = Random::of_seed(u64::from(key) << 8 | seed).fraction();
    (f64::from(least) * (f64::from(most) / f64::from(least)).powf(chance)) as u32
}

/// Draws keys by Zipf's law.
fn popular(extent: Extent) -> Vec<u32> {
    let ranks = Zipf::new(extent.keys, SKEW);
    let mut random = Random::of_seed(4);
    (0..extent.requests).map(|_| ranks.draw(&mut random)).collect()
}

/// The keys of a trace like those that are recorded at disks. The size of a value depends on the kind of its key:
/// - *Records* of 512 bytes to 4 KB. Neighbours are requested together, each about twice within a short time, and then mostly not
///   again for a long time.
/// - *Pages* of 8 KB, requested at random with long distances in between.
/// - *Extents* of 60 to 68 KB. A file of extents is read from its beginning to its end, and seldom again.
///
/// The keys are numbered by kind: records, pages, extents. Each field is the key after the last of its kind, not a number of keys.
struct Blocks {
    records: u32,
    pages: u32,
    /// The key after the last extent of the working set. The extents from here on are requested once.
    keys: u32,
}

/// The number of records that lie next to each other and are requested together.
const NEIGHBOURS: u32 = 16;
/// The number of pages that are requested in one go.
const PAGES: u32 = 64;
/// The number of extents of a file. They lie next to each other.
const FILE: u32 = 64;

impl Blocks {
    /// Divides `keys` keys, at least 5: a fifth are records, another fifth are pages, and the others are extents.
    fn of(keys: u32) -> Self {
        Self { records: keys / 5, pages: keys / 5 * 2, keys }
    }

    /// Returns the size of a value in bytes.
    fn size(&self, key: u32) -> u32 {
        match key {
            key if key < self.records => 512 * (1 + Random::of_seed(key.into()).below(8) as u32),
            key if key < self.pages => 8192,
            key => 61_440 + 4096 * (Random::of_seed(key.into()).below(3) as u32),
        }
    }

    /// Returns the requested keys in order. Of 8 draws, on average 3 request records, 2 pages, 2 a file that may return, and 1 a
    /// file that never returns. So a bit less than half of the requests are for extents.
    fn requests(&self, extent: Extent) -> Vec<u32> {
        let mut random = Random::of_seed(6);
        // Skews lower than SKEW spread the requests over more keys, so pages and files return only after long times.
        let places = Zipf::new((self.records / NEIGHBOURS).max(1), 0.6);
        let pages = Zipf::new(self.pages - self.records, 0.4);
        let files = Zipf::new(((self.keys - self.pages) / FILE).max(1), 0.4);
        let mut unseen = self.keys;
        let mut keys = Vec::with_capacity(extent.requests as usize + FILE as usize);
        while keys.len() < extent.requests as usize {
            match random.below(8) {
                0..3 => {
                    let first = places.draw(&mut random) * NEIGHBOURS;
                    keys.extend((0..2 * NEIGHBOURS).map(|_| first + random.below(NEIGHBOURS.into()) as u32));
                }
                3..5 => keys.extend((0..PAGES).map(|_| self.records + pages.draw(&mut random))),
                5..7 => {
                    let first = self.pages + files.draw(&mut random) * FILE;
                    keys.extend(first..(first + FILE).min(self.keys));
                }
                // A file that is read only once.
                _ => {
                    keys.extend(unseen..unseen + FILE);
                    unseen += FILE;
                }
            }
        }
        keys.truncate(extent.requests as usize);
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// The traces of mixed values then have 2000 keys and 50 000 requests.
    const EXTENT: Extent = Extent { keys: 10_000, requests: 100_000 };

    /// Returns the trace with this name.
    fn made_as(name: &str) -> Trace {
        made(EXTENT).into_iter().find(|trace| trace.name == name).expect("there is such a trace")
    }

    /// Fails if two runs of the program would replay different traces, if a key changes its value within a trace, or if a size or a
    /// known cost is out of its bounds.
    #[test]
    fn traces_are_the_same_every_time_and_a_key_keeps_its_size_and_cost() {
        for (one, other) in made(EXTENT).iter().zip(&made(EXTENT)) {
            assert_eq!(
                (&one.requests, one.working_set),
                (&other.requests, other.working_set),
                "{}",
                one.name
            );
            assert_eq!(one.requests.len(), 50_000, "{}", one.name);
            let mut values = HashMap::new();
            for request in &one.requests {
                let value = (request.size, request.cost);
                assert_eq!(*values.entry(request.key).or_insert(value), value, "{}", one.name);
                assert!((SIZES.0..=SIZES.1).contains(&request.size), "{}: {request:?}", one.name);
                let cost = COSTS.0..=COSTS.1;
                assert!(request.cost == 0 || cost.contains(&request.cost), "{}: {request:?}", one.name);
            }
        }
    }

    /// 5971 bytes and 14 142 microseconds are the geometric means of the bounds: about half of the keys are on each side. Fails if
    /// the share on one side is outside of 30 to 70 %, if the costs depend on the sizes where they should not, or if a large value
    /// has a small cost in the trace "cost by size".
    #[test]
    fn sizes_and_costs_are_spread_over_their_range() {
        let trace = made_as("mixed costs");
        let share = |is: &dyn Fn(&Request) -> bool| {
            let found = trace.requests.iter().filter(|request| is(request)).count();
            found as f64 / trace.requests.len() as f64
        };
        for (share, what) in [
            (share(&|request| request.size < 5_971), "sizes below the middle"),
            (share(&|request| request.cost < 14_142), "costs below the middle"),
            (share(&|request| (request.size < 5_971) == (request.cost < 14_142)), "both on the same side"),
        ] {
            assert!((0.3..0.7).contains(&share), "{what}: {share}");
        }
        let by_size = made_as("cost by size");
        let large = |request: &&Request| request.size > 50_000;
        assert!(by_size.requests.iter().filter(large).all(|request| request.cost >= 100_000));
    }

    /// The trace must be like one of a disk: about half of its requests are for extents, which hardly return. Fails if the median
    /// distance between two requests for the same key is not below 40 requests for records, above 500 for pages and above 2000 for
    /// extents. A first request counts as endlessly far. Also fails if the share of the requests for extents is outside of 30 to 70
    /// %.
    #[test]
    fn blocks_return_soon_late_or_never_depending_on_their_size() {
        let trace = made_as("blocks");
        let mut last = HashMap::new();
        let mut distances: HashMap<&str, Vec<usize>> = HashMap::new();
        for (place, request) in trace.requests.iter().enumerate() {
            let kind = match request.size {
                ..=4096 => "record",
                8192 => "page",
                _ => "extent",
            };
            let distances = distances.entry(kind).or_default();
            match last.insert(request.key, place) {
                Some(before) => distances.push(place - before),
                None => distances.push(usize::MAX),
            }
        }
        let mut median = |kind: &str| {
            let distances = distances.get_mut(kind).expect("there are some");
            distances.sort_unstable();
            (distances.len() as f64 / trace.requests.len() as f64, distances[distances.len() / 2])
        };
        let (records, pages, extents) = (median("record"), median("page"), median("extent"));
        assert!(records.1 < 40, "{records:?}");
        assert!(pages.1 > 500, "{pages:?}");
        assert!(extents.1 > 2_000, "{extents:?}");
        assert!((0.3..0.7).contains(&extents.0), "{extents:?}");
    }
}
