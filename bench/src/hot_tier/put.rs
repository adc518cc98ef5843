//! The part `core-put` of the report: measures the cost of a *put*, which stores a value in a tier, the cache of the crate
//! `pg_cache_core`. One tier is half full, and another one is full, so that puts evict entries.
//!
//! The puts are done in *series*. After each series, the tier is made as full as it was before. A *round* has the same number of
//! series on each tier. A *shard* is a part of a tier with a lock of its own.

use super::duel::Duel;
use super::{Writer, megabytes};
use crate::eviction::traces::Random;
use crate::pace::Pace;
use crate::private_tier::{self, Memory, Spinning};
use crate::report::notation::{digits, time, with_interval};
use crate::report::section::{Goal, Section, Table};
use crate::rounds::turns;
use pg_cache_core::{Host, Tier};
use serde::Serialize;
use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// The size of a small value, in bytes.
const SMALL: usize = super::VALUE_BYTES;
/// The size of a large value, in bytes.
const LARGE: usize = megabytes(8);
/// At the median, a put into a full tier may take at most this many times as long as one into a half-full tier.
const RATIO_MAX: f64 = 3.0;

/// The entries in the tier, and the entries that are put into it.
struct Scenario {
    title: &'static str,
    /// The bytes of each tier.
    region: usize,
    /// The size of the values that are in the tier, in bytes.
    resident: usize,
    /// The size of the values that are put into it, in bytes.
    incoming: usize,
    /// The number of puts in a series, before the tier is restored to its earlier state.
    series: usize,
    /// The number of lookups before each put. They are not timed. An entry that was looked up is not evicted at once
    /// (`src/core/tier/eviction.rs`), so a put may pass several entries before it finds one to evict.
    reads: usize,
}

/// The scenarios of the report. A put of 8 MB evicts so many small values that the tier must be restored after each one.
const SCENARIOS: [Scenario; 4] = [
    Scenario {
        title: "100 B among 100 B",
        region: megabytes(32),
        resident: SMALL,
        incoming: SMALL,
        series: 1000,
        reads: 0,
    },
    Scenario {
        title: "100 B among 100 B, 4 reads for each put",
        region: megabytes(32),
        resident: SMALL,
        incoming: SMALL,
        series: 1000,
        reads: 4,
    },
    Scenario {
        title: "8 MB among 100 B",
        region: megabytes(192),
        resident: SMALL,
        incoming: LARGE,
        series: 1,
        reads: 0,
    },
    Scenario {
        title: "100 B among 8 MB",
        region: megabytes(192),
        resident: LARGE,
        incoming: SMALL,
        series: 100,
        reads: 0,
    },
];

/// The most attempts to fill the full tier up again after a series. If they are not enough, the next series starts with the tier as
/// it is.
const REFILLS_MAX: u32 = 1000;

/// Returns about how long the part takes.
pub fn estimate(pace: &Pace) -> Duration {
    // A round of all scenarios takes about 2 s. Filling the tiers takes about 6 s. The number of rounds is that of a reading
    // measurement. Measurements that write to tables need more rounds, because dead tuples make their rounds differ. Here all
    // rounds are alike, because each series leaves a tier as full as before.
    Duration::from_secs(6) + Duration::from_secs(2) * pace.read_rounds as u32
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let clock = clock_cost();
    let found: Vec<Found> = SCENARIOS.iter().map(|scenario| run(scenario, pace, clock)).collect();
    let mut table = Table::new(
        2,
        ["put", "tier", "median", "p99", "longest", "× half full", "99.9 % of holds", "longest hold"],
    );
    for found in &found {
        let sides = [(&found.full, found.duel.own_median), (&found.half, found.duel.other_median)];
        for (place, (side, median)) in sides.into_iter().enumerate() {
            table.rows.push(vec![
                if place == 0 { found.title.into() } else { String::new() },
                side.name.into(),
                with_interval(median, time),
                time(side.p99),
                time(side.longest),
                if place == 0 { with_interval(found.duel.ratio, digits) } else { "1".into() },
                time(side.hold_p999),
                time(side.longest_hold),
            ]);
        }
    }
    Section {
        id: "core-put".into(),
        title: "The core by itself: storing".into(),
        goals: found.iter().map(Found::goal).collect(),
        tables: vec![table],
        explained: vec![format!(
            "Each put is timed separately, with a new key. The {clock:.0} ns of the clock itself are subtracted. The half-full and the full \
             tier take turns in {} rounds. Medians and their ratio are over the rounds. p99 and the longest time are over all puts, and \
             include other work of the machine. After a series of puts, the tier is restored to its earlier state, untimed. Lock \
             hold times are measured in a separate pass: the longest one, and the one that 99.9 % do not exceed. Among 8 MB values, \
             only the first small put of a series must evict, because the evicted value leaves room for the others.",
            pace.read_rounds
        )],
        figures: serde_json::json!({ "clock_nanoseconds": clock, "scenarios": found }),
    }
}

/// The results of one scenario.
#[derive(Serialize)]
struct Found {
    title: &'static str,
    /// The medians of the rounds: the full tier against the half-full tier.
    duel: Duel,
    /// The times on the full tier.
    full: Spread,
    /// The times on the half-full tier.
    half: Spread,
}

impl Found {
    /// Returns the goal that a full tier is not much slower: see [`RATIO_MAX`].
    fn goal(&self) -> Goal {
        self.duel.goal(
            &format!("a put into a full tier takes as long as into a half-full one ({})", self.title),
            RATIO_MAX,
        )
    }
}

/// The distribution of times on one tier, in nanoseconds.
#[derive(Serialize)]
struct Spread {
    /// The name of the tier.
    name: &'static str,
    /// The time of a put that 99 % of the puts do not exceed.
    p99: f64,
    /// The time of the longest put.
    longest: f64,
    /// The time that 99.9 % of the holds of a lock do not exceed.
    hold_p999: f64,
    /// The time of the longest hold of a lock.
    longest_hold: f64,
}

/// Plays a scenario twice: the first pass measures the times of the puts, the second the times of the locks. `clock` is the time
/// that the clock adds to each of these times, in nanoseconds.
fn run(scenario: &Scenario, pace: &Pace, clock: f64) -> Found {
    let sizes = private_tier::sizes(scenario.region);
    let memories = [Memory::of_bytes(sizes.bytes), Memory::of_bytes(sizes.bytes)];
    let locks = Spinning::of(sizes);

    // In all pairs, the full tier comes first. `seen` is how many of the times belong to earlier rounds.
    let mut medians = [Vec::new(), Vec::new()];
    let mut times = [Vec::new(), Vec::new()];
    let mut seen = [0, 0];
    play(scenario, pace, &memories, &locks, |event| match event {
        Event::Put(place, put) => {
            let start = Instant::now();
            put();
            times[place].push((start.elapsed().as_nanos() as f64 - clock).max(0.0));
        }
        Event::RoundIsOver => {
            for place in 0..2 {
                medians[place].push(quantile(&times[place][seen[place]..], 0.5));
                seen[place] = times[place].len();
            }
        }
    });

    // Repeats the scenario with locks that record how long they are held.
    let watch = Watch { locks: &locks, since: Cell::new(None), holds: RefCell::new(Vec::new()) };
    let mut holds = [Vec::new(), Vec::new()];
    play(scenario, pace, &memories, &watch, |event| {
        if let Event::Put(place, put) = event {
            watch.holds.borrow_mut().clear();
            put();
            holds[place].append(&mut watch.holds.borrow_mut());
        }
    });

    let [full_medians, half_medians] = medians;
    let spread = |name, place: usize| Spread {
        name,
        p99: quantile(&times[place], 0.99),
        longest: quantile(&times[place], 1.0),
        hold_p999: (quantile(&holds[place], 0.999) - clock).max(0.0),
        longest_hold: (quantile(&holds[place], 1.0) - clock).max(0.0),
    };
    Found {
        title: scenario.title,
        duel: Duel::of(scenario.title, ("full".into(), full_medians), ("half full".into(), half_medians)),
        full: spread("full", 0),
        half: spread("half full", 1),
    }
}

/// An event during a scenario.
enum Event<'e> {
    /// A put into the full tier (0) or the half-full tier (1). The receiver of the event must call the function once: it does the
    /// put.
    Put(usize, &'e mut dyn FnMut()),
    /// All puts of a round are done.
    RoundIsOver,
}

/// Does the puts of a scenario on two freshly formatted tiers in turns, and reports each event to `handle`. There are
/// `pace.read_rounds` rounds ([`estimate`] says why). On each tier, a round has one series for each 1000 of `pace.puts`, but at
/// least one series and at most 20, or at most 4 if a series is a single large put.
fn play<H: Host + Copy>(
    scenario: &Scenario,
    pace: &Pace,
    memories: &[Memory; 2],
    host: H,
    mut handle: impl FnMut(Event<'_>),
) {
    let sizes = private_tier::sizes(scenario.region);
    let [full, half] = memories
        .each_ref()
        .map(|memory| Tier::format(memory.region(), sizes, host, 0).expect("the tier is large enough"));
    let mut sides = [Side::fill(&full, scenario, true), Side::fill(&half, scenario, false)];
    let count = (pace.puts / 1000).clamp(1, if scenario.series > 1 { 20 } else { 4 });
    for round in 0..pace.read_rounds {
        for series in 0..count {
            for turn in turns(round + series, 2) {
                sides[turn].series(|put| handle(Event::Put(turn, put)));
            }
        }
        handle(Event::RoundIsOver);
    }
}

/// A tier that is kept full or half full.
struct Side<'s, 't, 'm, H> {
    scenario: &'s Scenario,
    writer: Writer<'t, 'm, H>,
    /// Whether the tier is kept full.
    full: bool,
    /// The bytes in use after the tier was filled.
    full_at: u64,
    /// The number of the next key.
    next: u64,
    random: Random,
}

impl<'s, 't, 'm, H: Host> Side<'s, 't, 'm, H> {
    /// Fills an empty tier with resident values, until it is full or half full.
    fn fill(tier: &'t Tier<'m, H>, scenario: &'s Scenario, full: bool) -> Self {
        let writer = Writer::new(tier);
        let mut side = Self { scenario, writer, full, full_at: 0, next: 0, random: Random::of_seed(6) };
        if full {
            // The values alone have the size of the region, and each entry needs some more bytes. So each shard becomes full and
            // begins to evict.
            side.put_residents(scenario.region);
        } else {
            let is_half_full = || {
                let usage = tier.usage();
                usage.used_bytes * 2 >= usage.block_bytes
            };
            while !is_half_full() {
                // A look at the usage of all shards for each entry would take longer than storing the entry. So it looks after each
                // half percent of the region.
                side.put_residents(scenario.resident.max(scenario.region / 200));
            }
        }
        side.full_at = tier.usage().used_bytes;
        side
    }

    /// Puts resident values under new keys, until they have at least this many bytes.
    fn put_residents(&mut self, bytes: usize) {
        for _ in 0..bytes.div_ceil(self.scenario.resident) {
            self.writer.put(self.next, self.scenario.resident);
            self.next += 1;
        }
    }

    /// Does a series of puts, and then restores the tier to its earlier state. `timed` gets a function for each put and must call
    /// it once. A full tier whose values have the size of the incoming ones stays as it is: it is still full.
    fn series(&mut self, mut timed: impl FnMut(&mut dyn FnMut())) {
        let first = self.next;
        for number in first..first + self.scenario.series as u64 {
            for _ in 0..self.scenario.reads {
                // Requests one of the 20 000 keys that were stored last, the latest ones most often. On the half-full tier, most of
                // these lookups miss, because the keys of earlier series were removed from it. That does not matter: the lookups
                // are for the full tier, where they protect entries from eviction.
                let reach = self.random.below(20_000) + 1;
                let back = self.random.below(reach) + 1;
                self.writer.ask(number.saturating_sub(back));
            }
            timed(&mut || self.writer.put(number, self.scenario.incoming));
        }
        self.next += self.scenario.series as u64;
        if self.full && self.scenario.incoming == self.scenario.resident {
            return;
        }
        for number in first..self.next {
            self.writer.remove(number);
        }
        if self.full {
            self.put_residents(self.scenario.series * self.scenario.incoming);
            // A put of a large value may have freed more space than it used. The tier is full if at most two resident values are
            // missing.
            let nearly = self.full_at - 2 * self.scenario.resident as u64;
            for _ in 0..REFILLS_MAX {
                if self.writer.tier.usage().used_bytes >= nearly {
                    break;
                }
                self.put_residents(self.scenario.resident.max(self.scenario.region / 2000));
            }
        }
    }
}

/// Locks that record how long they were held. Only one thread may use them; a tier holds one lock at a time.
struct Watch<'l> {
    locks: &'l Spinning,
    /// When the lock that is held was acquired.
    since: Cell<Option<Instant>>,
    /// Nanoseconds of each hold.
    holds: RefCell<Vec<f64>>,
}

impl Host for &Watch<'_> {
    fn now(&self) -> u32 {
        self.locks.now()
    }
    fn lock(&self, shard: u32) {
        self.locks.lock(shard);
        self.since.set(Some(Instant::now()));
    }
    fn unlock(&self, shard: u32) {
        let held = self.since.take().map(|since| since.elapsed().as_nanos() as f64);
        self.locks.unlock(shard);
        self.holds.borrow_mut().extend(held);
    }
}

/// Returns the nanoseconds between two readings of the clock with nothing in between, at the median. This is the part of a measured
/// time that belongs to the clock.
fn clock_cost() -> f64 {
    let times: Vec<f64> =
        (0..10_001).map(|_| black_box(Instant::now()).elapsed().as_nanos() as f64).collect();
    quantile(&times, 0.5)
}

/// Returns the smallest sample that a `share` of the samples, from 0 to 1, does not exceed. 0 without samples.
fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_cache_core::Counter;

    /// Fails if a quantile lies between two samples, or is the sample before or after the right one.
    #[test]
    fn quantiles_are_samples() {
        let samples: Vec<f64> = (1..=1000).rev().map(f64::from).collect();
        assert_eq!(
            [0.5, 0.99, 0.999, 1.0].map(|share| quantile(&samples, share)),
            [500.0, 990.0, 999.0, 1000.0]
        );
        assert_eq!([0.09, 0.11, 0.99].map(|share| quantile(&[1.0, 2.0, 3.0], share)), [1.0, 1.0, 3.0]);
        assert_eq!(quantile(&[1.0, 2.0, 3.0], 0.34), 2.0);
    }

    /// Fails if the full tier is at most 85 % full before a series, or if the half-full tier is at least 60 % full before a put.
    /// Also fails if the half-full tier evicts, if the full one does not, or if the number of puts or of rounds is wrong.
    #[test]
    fn one_tier_is_full_before_each_series_and_the_other_never() {
        for (resident, incoming, series) in [(100, 100, 50), (100, 50_000, 1), (50_000, 100, 50)] {
            let scenario =
                Scenario { title: "t", region: megabytes(2), resident, incoming, series, reads: 1 };
            let sizes = private_tier::sizes(scenario.region);
            let memories = [Memory::of_bytes(sizes.bytes), Memory::of_bytes(sizes.bytes)];
            let locks = Spinning::of(sizes);
            let pace = Pace { read_rounds: 3, puts: 2000, ..Pace::QUICK };
            let mut puts = 0;
            let mut rounds = 0;
            play(&scenario, &pace, &memories, &locks, |event| match event {
                Event::Put(place, put) => {
                    let tier = Tier::attach(memories[place].region(), &locks, 0).unwrap();
                    let before = tier.usage();
                    put();
                    let used = before.used_bytes as f64 / before.block_bytes as f64;
                    // Within a series of small values, the tier of large values has free space, because the first put of the series
                    // evicted a large value.
                    let begins = puts % series == 0;
                    assert!(place == 1 || !begins || used > 0.85, "{resident}, full: {used}");
                    assert!(place == 0 || used < 0.6, "{resident}, half full: {used}");
                    assert_eq!(tier.counted(Counter::Evicted) > 0, place == 0);
                    puts += 1;
                }
                Event::RoundIsOver => rounds += 1,
            });
            assert_eq!((puts, rounds), (3 * 2 * 2 * series, 3));
        }
    }

    /// Fails if a hold of a lock is recorded before the unlock, or is not recorded at the unlock.
    #[test]
    fn a_hold_lasts_from_lock_to_unlock() {
        let locks = Spinning::of(private_tier::sizes(megabytes(1)));
        let watch = Watch { locks: &locks, since: Cell::new(None), holds: RefCell::new(Vec::new()) };
        (&watch).lock(0);
        assert!(watch.holds.borrow().is_empty());
        (&watch).unlock(0);
        (&watch).lock(0);
        (&watch).unlock(0);
        assert_eq!(watch.holds.borrow().len(), 2);
    }
}
