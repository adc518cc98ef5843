//! The caches that the simulation compares, the *contenders*, behind one trait: our *tier* (the cache of the crate `pg_cache_core`,
//! which pg_cache keeps in shared memory), the plain LRU rule, and the crates moka and quick_cache. A contender that is asked for a
//! key says whether it had the value, and stores the value if it had not.
//!
//! The capacity is in bytes of values and is the same for all. A *shard* is a part of a cache with a lock and eviction queues of
//! its own; quick_cache has as many shards as our tier. The hash functions have fixed seeds, so that the same *trace*, a sequence
//! of requests, has the same outcome every time.

use super::traces::{Request, Trace};
use crate::private_tier::{self, Alone, Memory};
use pg_cache_core::{Cost, Counter, NewValue, Refusal, Scope, Sizes, Stamp, Tier};
use quick_cache::sync::DefaultLifecycle;
use serde::Serialize;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::Duration;

/// The hash function of all contenders, without a random seed.
type Hashing = BuildHasherDefault<DefaultHasher>;

/// The names of the contenders: our tier, the plain LRU rule, and the two caches that our tier is judged by. All lists of outcomes
/// have this order.
pub const NAMES: [&str; 4] = ["pg_cache", "LRU", "moka", "quick_cache"];

/// The outcome of replaying a trace on a contender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// Hits in 100 requests.
    pub hit_percent: f64,
    /// Bytes that were hit, in percent of the bytes that were requested.
    pub byte_percent: f64,
    /// The time to compute the values that were hit, in percent of the time to compute the values of all requests. 0 if no cost is
    /// known.
    pub cost_percent: f64,
    /// Bytes of values that the contender kept, on average over the second half of the trace.
    pub held: f64,
    /// Entries that the contender kept, on average over the second half of the trace.
    pub entries: f64,
    /// How many times a value was too large to be stored. moka and quick_cache do not count this: 0.
    pub refused: u64,
}

/// A contender. Its content is empty at the start of a replay.
trait Cache {
    /// Returns whether the cache had the value. If it had not, this stores the value, unless it is too large.
    fn ask(&mut self, request: Request) -> bool;
    /// Returns the number of entries and the bytes of values in the cache now.
    fn held(&self) -> (u64, u64);
    /// Returns how many times the cache refused a value because of its size. 0 for a cache that does not count this.
    fn refused(&self) -> u64 {
        0
    }
}

/// About how often the content is measured in the second half of a trace, at equal distances.
const LOOKS: usize = 8;

/// Asks an empty cache for all requests of a trace, one after the other. The trace must have a request.
fn replay(trace: &Trace, mut cache: impl Cache) -> Outcome {
    let length = trace.requests.len();
    let part = (length / 2 / LOOKS).max(1);
    let (mut hits, mut all) = (Sums::default(), Sums::default());
    let (mut looks, mut entries, mut held) = (0.0, 0, 0);
    for (place, request) in trace.requests.iter().enumerate() {
        all.add(request);
        if cache.ask(*request) {
            hits.add(request);
        }
        if (length - 1 - place).is_multiple_of(part) && place >= length / 2 {
            let now = cache.held();
            looks += 1.0;
            entries += now.0;
            held += now.1;
        }
    }
    Outcome {
        hit_percent: percent(hits.requests, all.requests),
        byte_percent: percent(hits.bytes, all.bytes),
        cost_percent: percent(hits.cost, all.cost),
        held: held as f64 / looks,
        entries: entries as f64 / looks,
        refused: cache.refused(),
    }
}

/// The totals of some requests.
#[derive(Default)]
struct Sums {
    /// The number of requests.
    requests: u64,
    /// The bytes of their values.
    bytes: u64,
    /// The costs of computing their values, in microseconds.
    cost: u64,
}

impl Sums {
    fn add(&mut self, request: &Request) {
        self.requests += 1;
        self.bytes += u64::from(request.size);
        self.cost += u64::from(request.cost);
    }
}

/// Returns the part in percent of the whole, or 0 if the whole is 0.
fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

/// How far our tier's content may differ from the capacity, as a fraction of the capacity. The report marks outcomes that differ
/// more.
pub const TOLERANCE: f64 = 0.01;
/// The most sizes of our tier's region that are tried. A size is good enough if the content then differs from the capacity by at
/// most half of [`TOLERANCE`]. If no size is, the one with the closest content counts.
const TRIALS: u32 = 12;

/// Replays a trace on all contenders, with a capacity in bytes of values. Returns the outcomes in the order of [`NAMES`], and the
/// sizes of our tier. With `shards` = 0, our tier chooses the number of shards.
pub fn run(trace: &Trace, capacity: u64, shards: u32) -> (Vec<Outcome>, Sizes) {
    let (ours, sizes, shards) = ours(trace, capacity, shards);
    // The number of entries is only a hint for quick_cache.
    let entries = (ours.entries as usize).max(1);
    let outcomes = vec![
        ours,
        replay(trace, Lru::new(capacity)),
        replay(trace, Moka::new(capacity, trace.equal_size())),
        replay(trace, Quick::new(capacity, entries, shards)),
    ];
    (outcomes, sizes)
}

/// Replays a trace on our tier, in a region whose size makes it keep as much as the others. The region's size is found by repeated
/// replays, because the content depends on the sizes of the entries and on the free space between them. Returns the outcome of the
/// trial whose content was closest to the capacity, the sizes of its tier, and the number of its shards.
fn ours(trace: &Trace, capacity: u64, shards: u32) -> (Outcome, Sizes, u32) {
    let fixed = Sizes { shards, ..private_tier::sizes(0) };
    // The first size is a guess. Beside a small value, its entry takes about as many bytes as the value, for the key and the
    // header. So the region gets twice the capacity, and 256 kB for parts of a fixed size such as the fences (`src/core/fence/`).
    let mut bytes = (capacity as f64 * 2.0) as usize + 256 * 1024;
    let mut best: Option<(f64, Outcome, Sizes, u32)> = None;
    for _ in 0..TRIALS {
        let sizes = Sizes { bytes, ..fixed };
        let memory = Memory::of_bytes(bytes);
        let Ok(tier) = Tier::format(memory.region(), sizes, Alone, 0) else { break };
        let usage = tier.usage();
        let outcome = replay(trace, Ours::new(tier));
        let error = (outcome.held - capacity as f64) / capacity as f64;
        if best.is_none_or(|(least, ..)| error.abs() < least) {
            best = Some((error.abs(), outcome, sizes, usage.shards));
        }
        if error.abs() <= TOLERANCE / 2.0 {
            break;
        }
        // The blocks, which hold the entries, grow with the content. The index of a shard grows by a few percent of its blocks:
        // hence the factor. The rest of the region does not grow. The size is rounded to cache lines of 64 bytes.
        let blocks = usage.block_bytes as f64;
        let wanted = blocks * capacity as f64 / outcome.held.max(1.0);
        bytes = (bytes as f64 + (wanted - blocks) * 1.03).max(4096.0) as usize / 64 * 64;
    }
    let (_, outcome, sizes, shards) = best.expect("the first trial is always large enough");
    (outcome, sizes, shards)
}

/// Our tier as a contender.
struct Ours<'m> {
    /// The tier.
    tier: Tier<'m, Alone>,
    /// The scope of all keys.
    scope: Scope,
    /// The hash function of the keys.
    hashing: Hashing,
    /// Bytes `x`, as many as the largest value so far has. The value of each request is a prefix of them.
    content: Vec<u8>,
}

impl<'m> Ours<'m> {
    fn new(tier: Tier<'m, Alone>) -> Self {
        let scope = private_tier::scope(&tier);
        Self { tier, scope, hashing: Hashing::default(), content: Vec::new() }
    }
}

impl Cache for Ours<'_> {
    fn ask(&mut self, request: Request) -> bool {
        let bytes = request.key.to_ne_bytes();
        let key = private_tier::key(self.scope, &bytes, self.hashing.hash_one(request.key));
        if self.tier.get(&key, Stamp::LATEST, &mut ()).is_ok() {
            return true;
        }
        let size = request.size as usize;
        if self.content.len() < size {
            self.content.resize(size, b'x');
        }
        let cost = Cost::of(Duration::from_micros(request.cost.into()));
        let value = NewValue { cost, ..private_tier::value(&self.content[..size]) };
        match self.tier.put(&key, &value) {
            Ok(_) | Err(Refusal::TooLarge) => false,
            Err(other) => panic!("the tier refuses a value: {other:?}"),
        }
    }

    fn held(&self) -> (u64, u64) {
        let entries = (0..).map_while(|bucket| self.tier.inspect(bucket).expect("there is memory")).flatten();
        entries.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.meta.value_len as u64))
    }

    fn refused(&self) -> u64 {
        self.tier.counted(Counter::RefusedSize)
    }
}

/// The plain rule: the entry that was not requested for the longest time is evicted first.
struct Lru {
    /// The sizes of the values, by key, in the order of their last requests.
    cache: lru::LruCache<u32, u32, Hashing>,
    /// The most bytes of values.
    capacity: u64,
    /// The bytes of all values in the cache.
    held: u64,
    /// The number of requests whose value was larger than the capacity.
    refused: u64,
}

impl Lru {
    fn new(capacity: u64) -> Self {
        let cache = lru::LruCache::unbounded_with_hasher(Hashing::default());
        Self { cache, capacity, held: 0, refused: 0 }
    }
}

impl Cache for Lru {
    fn ask(&mut self, request: Request) -> bool {
        if self.cache.get(&request.key).is_some() {
            return true;
        }
        let size = u64::from(request.size);
        if size > self.capacity {
            self.refused += 1;
            return false;
        }
        while self.held + size > self.capacity
            && let Some((_, victim)) = self.cache.pop_lru()
        {
            self.held -= u64::from(victim);
        }
        self.cache.put(request.key, request.size);
        self.held += size;
        false
    }

    fn held(&self) -> (u64, u64) {
        (self.cache.len() as u64, self.held)
    }

    fn refused(&self) -> u64 {
        self.refused
    }
}

/// The cache of the crate `moka`, with its default policy.
struct Moka {
    cache: moka::sync::Cache<u32, u32, Hashing>,
    /// The bytes that an entry of weight 1 stands for.
    unit: u64,
}

impl Moka {
    /// Creates the cache. If all values have the same size, moka counts entries: weights change its decisions even if they are
    /// equal, and most programs use it without weights.
    fn new(capacity: u64, equal_size: Option<u32>) -> Self {
        let unit = equal_size.map_or(1, u64::from);
        let builder = moka::sync::Cache::builder().max_capacity(capacity / unit);
        let builder = if equal_size.is_some() { builder } else { builder.weigher(|_, size| *size) };
        Self { cache: builder.build_with_hasher(Hashing::default()), unit }
    }
}

impl Cache for Moka {
    fn ask(&mut self, request: Request) -> bool {
        if self.cache.get(&request.key).is_some() {
            return true;
        }
        self.cache.insert(request.key, request.size);
        // Evicts at once. Otherwise moka keeps entries beyond its capacity for a while.
        self.cache.run_pending_tasks();
        false
    }

    fn held(&self) -> (u64, u64) {
        (self.cache.entry_count(), self.cache.weighted_size() * self.unit)
    }
}

/// The weight of an entry in quick_cache: the size of its value.
#[derive(Clone)]
struct BySize;

impl quick_cache::Weighter<u32, u32> for BySize {
    fn weight(&self, _: &u32, size: &u32) -> u64 {
        u64::from(*size)
    }
}

/// The cache of the crate `quick_cache`. The weight of an entry is its size, and the capacity is a sum of weights.
struct Quick {
    cache: quick_cache::sync::Cache<u32, u32, BySize, Hashing>,
}

impl Quick {
    fn new(capacity: u64, entries: usize, shards: u32) -> Self {
        let options = quick_cache::OptionsBuilder::new()
            .shards(shards as usize)
            .estimated_items_capacity(entries)
            .weight_capacity(capacity)
            .build()
            .expect("the options are complete");
        let cache = quick_cache::sync::Cache::with_options(
            options,
            BySize,
            Hashing::default(),
            DefaultLifecycle::default(),
        );
        Self { cache }
    }
}

impl Cache for Quick {
    fn ask(&mut self, request: Request) -> bool {
        let hit = self.cache.get(&request.key).is_some();
        if !hit {
            self.cache.insert(request.key, request.size);
        }
        hit
    }

    fn held(&self) -> (u64, u64) {
        (self.cache.len() as u64, self.cache.weight())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eviction::traces::{Extent, made};

    /// Hit ratios can be compared only between caches that keep equally much. Fails if the content of a contender differs from its
    /// capacity by more than 1 %, or if a contender refuses a value.
    #[test]
    fn all_contenders_fill_their_capacity() {
        let extent = Extent { keys: 5000, requests: 50_000 };
        // The traces "loop" and "Zipf 1.0 with scans".
        for trace in &made(extent)[3..5] {
            for shards in [0, 4] {
                let capacity = trace.working_set / 10;
                let (outcomes, _) = run(trace, capacity, shards);
                for (name, outcome) in NAMES.iter().zip(&outcomes) {
                    let filled = outcome.held / capacity as f64;
                    assert!((filled - 1.0).abs() <= TOLERANCE, "{name}, {}: {filled}", trace.name);
                    assert_eq!(outcome.refused, 0);
                }
            }
        }
    }

    /// Fails if two replays of a trace have different outcomes, for instance because a hash function draws a random seed.
    #[test]
    fn outcomes_are_the_same_every_time() {
        let extent = Extent { keys: 2000, requests: 20_000 };
        // The trace "Zipf 1.0".
        let trace = &made(extent)[1];
        assert_eq!(run(trace, 20_000, 0), run(trace, 20_000, 0));
    }

    /// Fails if the LRU contender counts entries instead of bytes or stores a value that is too large, or if moka or quick_cache
    /// forgets a value although all have room.
    #[test]
    fn the_capacity_is_in_bytes() {
        let request = |key, size| Request { key, size, cost: key * 10 };
        // Two small values fit, or one large value.
        let requests = vec![request(0, 50), request(1, 50), request(0, 50), request(2, 100), request(0, 50)];
        let trace = Trace { name: "t".into(), requests, working_set: 200 };
        let lru = replay(&trace, Lru::new(100));
        assert_eq!(lru.hit_percent, 20.0);
        assert_eq!((lru.byte_percent.round(), lru.cost_percent), (17.0, 0.0));
        assert_eq!(replay(&trace, Lru::new(99)).refused, 1);
        assert_eq!(replay(&trace, Moka::new(1000, None)).hit_percent, 40.0);
        assert_eq!(replay(&trace, Quick::new(1000, 10, 1)).hit_percent, 40.0);
    }

    /// A value that is larger than our tier can store is counted as refused each time. Fails if it is not counted, or if it ends
    /// the replay.
    #[test]
    fn a_value_too_large_for_our_tier_is_counted() {
        let memory = Memory::of_bytes(256 * 1024);
        let tier = Tier::format(memory.region(), private_tier::sizes(0), Alone, 0).unwrap();
        let requests = vec![Request { key: 0, size: 200_000, cost: 0 }; 2];
        let outcome = replay(&Trace { name: "t".into(), requests, working_set: 200_000 }, Ours::new(tier));
        assert_eq!((outcome.hit_percent, outcome.refused, outcome.entries), (0.0, 2, 0.0));
    }
}
