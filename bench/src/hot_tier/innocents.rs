//! The part `core-innocents` of the report: checks that unchanged entries stay in the tier (the cache of the crate `pg_cache_core`)
//! while a writer stores other entries. In the first measurement, the writer sets keys at a fixed rate, and the tier is full, so
//! each new entry evicts another one. In the second one, the writer is a transaction that commits many keys, and all entries have
//! room.
//!
//! The terms of the core: a *tag* is a name that an entry depends on, so that an invalidation of the tag makes the entry a miss. A
//! *fence* is a word in the tier that says when a tag was last invalidated. A *stamp* is a number on the clock of these
//! invalidations (`src/core/fence/mod.rs`). The memory of a tier is its *region*, and its *host* has the locks (`private_tier.rs`).

use super::{Shared, VALUE_BYTES, Writer, key_bytes, megabytes, size};
use crate::eviction::traces::Random;
use crate::pace::Pace;
use crate::private_tier::{self, Memory, Spinning, value};
use crate::report::section::{Goal, Section, Table};
use pg_cache_core::{NewValue, Reservation, Tier};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The entries under test, called innocents because no write concerns them. A reader reads them all the time. Each has a tag, so
/// that a hit also checks a fence, as hits of tagged values in a server do. Their tags share one fence: `Fences::tag` chooses it by
/// the upper half of the number, which is 0 for all of them. No tag is invalidated, so each miss is an entry that the tier has
/// lost.
const INNOCENTS: u64 = 10_000;
/// The first key of the other entries, which the writer stores. It is greater than the keys of all entries that are read.
const OTHERS: u64 = 1 << 32;

/// The bytes of the tier of the first measurement. It is full from the start.
const BESIDE_REGION: usize = megabytes(32);
/// The rate of the writer in the first measurement.
const SETS_PER_SECOND: u64 = 10_000;
/// The number of keys that the writer sets: about three times as many as fit. Most sets are of keys that are not in the tier, and
/// must evict an entry.
const SET_KEYS: u64 = 500_000;
/// The least share of the reads that must hit in the first measurement.
const HIT_PERCENT_MIN: f64 = 99.0;

/// The bytes of the tier of the second measurement. It has room for all entries.
const COMMIT_REGION: usize = megabytes(384);
/// The number of keys that the transaction of the second measurement sets.
const COMMIT_KEYS: u64 = 1_000_000;
/// Entries that are neither written nor tagged, called bystanders. In the second measurement, each is read as often as each of the
/// innocents. So the reads cover more of the tier, and entries that no fence of a tag can make a miss.
const BYSTANDERS: u64 = 200_000;
/// The hit rate must fall by less than this while the transaction commits, in percentage points.
const LOST_POINTS_MAX: f64 = 1.0;
/// How long the reader is watched before and after the transaction.
const AROUND: Duration = Duration::from_millis(500);

/// Returns about how long the part takes.
pub fn estimate(pace: &Pace) -> Duration {
    // Besides the first measurement, about 5 s for filling the tiers and for the second measurement.
    pace.beside + Duration::from_secs(5)
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let beside = beside_sets(pace.beside);
    let commit = beside_commit(COMMIT_REGION, COMMIT_KEYS, BYSTANDERS);
    let mut writes = Table::new(1, ["load", "sets/s", "reads", "hits"]);
    writes.rows.push(vec![
        format!("sets of other keys for {} s", beside.seconds.round()),
        format!("{:.0}", beside.sets as f64 / beside.seconds),
        beside.reads.asked.to_string(),
        format!("{:.3} %", beside.reads.percent()),
    ]);
    let mut phases = Table::new(1, ["phase of a transaction of 1 000 000 keys", "time", "reads", "hits"]);
    for (name, phase) in PHASES.iter().zip(&commit) {
        phases.rows.push(vec![
            (*name).into(),
            format!("{:.2} s", phase.seconds),
            phase.reads.asked.to_string(),
            format!("{:.3} %", phase.reads.percent()),
        ]);
    }
    let least = commit[1..4].iter().map(|phase| phase.reads.percent()).fold(100.0, f64::min);
    let lost = commit[0].reads.percent() - least;
    Section {
        id: "core-innocents".into(),
        title: "The core by itself: hits beside writers".into(),
        goals: vec![
            Goal {
                wanted: format!(
                    "at least {HIT_PERCENT_MIN} % of the reads of {INNOCENTS} tagged entries hit while a writer makes {SETS_PER_SECOND} sets \
                     of other keys per second"
                ),
                found: format!("{:.3} %", beside.reads.percent()),
                met: beside.reads.percent() >= HIT_PERCENT_MIN && beside.kept_pace(),
            },
            Goal {
                wanted: format!(
                    "the commit of a transaction with {COMMIT_KEYS} keys lowers the hit rate of other keys by less than \
                     {LOST_POINTS_MAX} point"
                ),
                found: format!("{lost:.3} points"),
                met: lost < LOST_POINTS_MAX,
            },
        ],
        tables: vec![writes, phases],
        explained: vec![format!(
            "One thread reads and another one writes. The reader stores each missed value again. Each set is reserved, announced and \
             confirmed. The sets are of {SET_KEYS} keys, in a tier of {} that is full from the start and holds about a third \
             of these keys. The transaction reserves all its keys, then announces all, then confirms all, in a tier of {} \
             that has room for all entries. There, the reader also reads {BYSTANDERS} entries without tags.",
            size(BESIDE_REGION as f64),
            size(COMMIT_REGION as f64),
        )],
        figures: serde_json::json!({
            "beside_sets": {
                "seconds": beside.seconds,
                "sets": beside.sets,
                "reads": beside.reads.asked,
                "hits": beside.reads.hits,
            },
            "commit": PHASES.iter().zip(&commit).map(|(name, phase)| serde_json::json!({
                "phase": name,
                "seconds": phase.seconds,
                "reads": phase.reads.asked,
                "hits": phase.reads.hits,
            })).collect::<Vec<_>>(),
        }),
    }
}

/// The results of a reader.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Reads {
    asked: u64,
    hits: u64,
}

impl Reads {
    /// Returns the share of the reads that hit, in percent. 0 without reads.
    fn percent(&self) -> f64 {
        self.hits as f64 * 100.0 / self.asked.max(1) as f64
    }

    fn count(&mut self, hit: bool) {
        self.asked += 1;
        self.hits += u64::from(hit);
    }
}

/// The results of the first measurement. `sets` is how many entries the writer has stored in these seconds.
struct Beside {
    seconds: f64,
    sets: u64,
    reads: Reads,
}

impl Beside {
    /// Returns whether the writer kept its rate, within 1 %. A slower writer would prove less than the goal says.
    fn kept_pace(&self) -> bool {
        self.sets as f64 >= self.seconds * SETS_PER_SECOND as f64 * 0.99
    }
}

/// Reads the innocents on another thread for `span`, while this thread stores other entries at a fixed rate.
fn beside_sets(span: Duration) -> Beside {
    let sizes = private_tier::sizes(BESIDE_REGION);
    let memory = Memory::of_bytes(sizes.bytes);
    let host = Spinning::of(sizes);
    let attach = |backend| Tier::attach(memory.region(), &host, backend).expect("it was formatted");
    let tier = Tier::format(memory.region(), sizes, &host, 0).expect("the tier is large enough");
    let mut reader = Reader::new(&tier, 0);
    let mut writer = Writer::new(&tier);
    for number in 0..SET_KEYS {
        writer.put(OTHERS + number, VALUE_BYTES);
    }
    (0..INNOCENTS).for_each(|number| reader.store(number));

    let stage = Stage::default();
    std::thread::scope(|threads| {
        let reads = threads.spawn(|| {
            let tier = attach(1);
            Reader::new(&tier, 0).read_on::<1>(&stage)
        });
        let end = EndOnDrop(&stage);
        let mut random = Random::of_seed(7);
        let start = Instant::now();
        let mut sets = 0;
        while start.elapsed() < span {
            let due = (start.elapsed().as_secs_f64() * SETS_PER_SECOND as f64) as u64;
            while sets < due {
                set(&mut writer, &[OTHERS + random.below(SET_KEYS)], || {});
                sets += 1;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let seconds = start.elapsed().as_secs_f64();
        stage.next();
        drop(end);
        let [reads] = reads.join().expect("the reader does not panic");
        Beside { seconds, sets, reads }
    })
}

/// The phases of the second measurement: the time before the transaction, its three steps, and the time after it.
const PHASES: [&str; 5] = ["before", "reserving", "announcing", "confirming", "after"];

/// The results of the reader in one phase.
#[derive(Clone, Copy, Debug, Default)]
struct Phase {
    /// The duration of the phase.
    seconds: f64,
    /// The reads in the phase.
    reads: Reads,
}

/// Reads innocents and bystanders on another thread, while this thread commits a transaction of `keys` keys in a tier of `region`
/// bytes. Returns the results of each of the [`PHASES`].
fn beside_commit(region: usize, keys: u64, bystanders: u64) -> [Phase; PHASES.len()] {
    let sizes = private_tier::sizes(region);
    let memory = Memory::of_bytes(sizes.bytes);
    let host = Spinning::of(sizes);
    let tier = Tier::format(memory.region(), sizes, &host, 0).expect("the tier is large enough");
    let mut reader = Reader::new(&tier, bystanders);
    (0..INNOCENTS + bystanders).for_each(|number| reader.store(number));

    let stage = Stage::default();
    let mut seconds = [0.0; PHASES.len()];
    let reads = std::thread::scope(|threads| {
        let reads = threads.spawn(|| {
            let tier = Tier::attach(memory.region(), &host, 1).expect("it was formatted");
            Reader::new(&tier, bystanders).read_on::<{ PHASES.len() }>(&stage)
        });
        let _end = EndOnDrop(&stage);
        let mut since = Instant::now();
        let mut next = || {
            seconds[stage.next()] = since.elapsed().as_secs_f64();
            since = Instant::now();
        };
        let numbers: Vec<u64> = (OTHERS..OTHERS + keys).collect();
        std::thread::sleep(AROUND);
        next();
        set(&mut Writer::new(&tier), &numbers, &mut next);
        std::thread::sleep(AROUND);
        next();
        reads.join().expect("the reader does not panic")
    });
    std::array::from_fn(|place| Phase { seconds: seconds[place], reads: reads[place] })
}

/// Sets keys as a transaction does, and calls `done` after each of its three steps: it *reserves* the space for all entries, and
/// writes them there; it *announces* the changes before they are visible, so that the keys are misses; and it *confirms* them after
/// the commit, so that readers find the new entries.
fn set(writer: &mut Writer<'_, '_, &Spinning>, numbers: &[u64], mut done: impl FnMut()) {
    let content = [b'y'; VALUE_BYTES];
    let tier = writer.tier;
    let mut reserved: Vec<(u64, Reservation)> = Vec::with_capacity(numbers.len());
    for number in numbers {
        let bytes = key_bytes(*number);
        // The default options: no quota, not served when stale, and no copy outside of the server.
        let reservation =
            tier.reserve(&writer.key(&bytes), &value(&content), Default::default()).expect("there is room");
        reserved.push((*number, reservation));
    }
    done();
    for (number, reservation) in &reserved {
        tier.announce(&writer.key(&key_bytes(*number)), reservation);
    }
    done();
    for (number, reservation) in reserved {
        tier.confirm(&writer.key(&key_bytes(number)), reservation);
    }
    done();
}

/// The state that the writer and the reader share. The writer works in phases. The reader reads in batches, and counts the reads of
/// each phase.
#[derive(Default)]
struct Stage {
    /// The current phase of the writer, from 0 on. `usize::MAX`: one of the two threads has ended, so the other must end, too.
    phase: AtomicUsize,
    /// How many batches the reader has read.
    batches: AtomicU64,
    /// The number of batches when the phase began.
    before: AtomicU64,
}

impl Stage {
    /// Ends a phase. Waits until the reader has read a batch in it, because a phase without reads would show nothing. Returns the
    /// number of the phase that has ended. Only the writer may call this. Panics if the reader has ended before.
    fn next(&self) -> usize {
        // The first batch of this phase may have begun in the phase before, so the reader must finish two.
        while self.batches.load(Ordering::Relaxed) < self.before.load(Ordering::Relaxed) + 2 {
            assert_ne!(
                self.phase.load(Ordering::Relaxed),
                usize::MAX,
                "the reader has ended before its time"
            );
            std::thread::yield_now();
        }
        self.before.store(self.batches.load(Ordering::Relaxed), Ordering::Relaxed);
        self.phase.fetch_add(1, Ordering::Relaxed)
    }
}

/// Makes the other thread end when dropped, also by a panic. Otherwise the other thread would wait forever. Each thread holds one.
struct EndOnDrop<'s>(&'s Stage);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.phase.store(usize::MAX, Ordering::Relaxed);
    }
}

/// Requests innocents and bystanders at random, and stores missing entries again.
struct Reader<'t, 'm, 'l> {
    tier: &'t Shared<'m, 'l>,
    writer: Writer<'t, 'm, &'l Spinning>,
    /// How many bystanders there are. Their keys follow those of the innocents.
    bystanders: u64,
    random: Random,
}

impl<'t, 'm, 'l> Reader<'t, 'm, 'l> {
    fn new(tier: &'t Shared<'m, 'l>, bystanders: u64) -> Self {
        Self { tier, writer: Writer::new(tier), bystanders, random: Random::of_seed(8) }
    }

    /// Reads in batches of 100 until the last of `PHASES` phases has ended. Returns the results of each phase. A batch belongs to
    /// the phase in which it has begun.
    fn read_on<const PHASES: usize>(mut self, stage: &Stage) -> [Reads; PHASES] {
        let _end = EndOnDrop(stage);
        let mut reads = [Reads::default(); PHASES];
        while let Some(reads) = reads.get_mut(stage.phase.load(Ordering::Relaxed)) {
            for _ in 0..100 {
                reads.count(self.read());
            }
            stage.batches.fetch_add(1, Ordering::Relaxed);
        }
        reads
    }

    /// Reads one entry. Returns whether it was in the tier.
    fn read(&mut self) -> bool {
        let number = self.random.below(INNOCENTS + self.bystanders);
        let hit = self.writer.ask(number);
        if !hit {
            self.store(number);
        }
        hit
    }

    /// Stores an entry. An innocent depends on the fence of tags. The stamp is the present number of the clock: the entry is valid
    /// until its fence gets a greater one.
    fn store(&mut self, number: u64) {
        let tag = [self.tier.fences().tag(number)];
        let dependencies: &[_] = if number < INNOCENTS { &tag } else { &[] };
        let content = [b'x'; VALUE_BYTES];
        let stamp = self.tier.fences().now();
        let value = NewValue { stamp, dependencies, ..value(&content) };
        self.tier.put(&self.writer.key(&key_bytes(number)), &value).expect("there is room");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_cache_core::Counter;

    /// Counts the entries and the announced changes after each step. Fails if a step is left out, or does the work of another.
    #[test]
    fn a_transaction_sets_all_its_keys_in_three_steps() {
        let sizes = private_tier::sizes(megabytes(4));
        let memory = Memory::of_bytes(sizes.bytes);
        let host = Spinning::of(sizes);
        let tier = Tier::format(memory.region(), sizes, &host, 0).unwrap();
        let mut steps = Vec::new();
        let mut look = Vec::new();
        set(&mut Writer::new(&tier), &[1, 2, 3], || {
            let usage = tier.usage();
            steps.push((usage.entries, usage.announced));
        });
        for number in 1..=3 {
            look.push(Writer::new(&tier).ask(number));
        }
        assert_eq!((steps, look), (vec![(0, 0), (0, 3), (3, 0)], vec![true; 3]));
    }

    /// Fails if the entry stays valid after an invalidation of its tag, or if the miss has another reason.
    #[test]
    fn a_stored_entry_has_its_tag() {
        let sizes = private_tier::sizes(megabytes(4));
        let memory = Memory::of_bytes(sizes.bytes);
        let host = Spinning::of(sizes);
        let tier = Tier::format(memory.region(), sizes, &host, 0).unwrap();
        let mut reader = Reader::new(&tier, 0);
        reader.store(3);
        assert!(reader.writer.ask(3) && !reader.writer.ask(4));
        // A transaction that invalidates a tag raises its fence before the change is visible. Afterwards it lowers the fence, which
        // gives the fence a new number.
        let fence = tier.fences().tag(3);
        tier.fences().raise(fence);
        tier.fences().lower(fence);
        assert!(!reader.writer.ask(3));
        assert_eq!(tier.counted(Counter::MissFenced), 1);
    }

    /// The measurement must be able to fail. This test fails if a tier that is much too small shows a high hit rate before the
    /// transaction, or if a phase has no reads.
    #[test]
    fn the_hit_rate_shows_that_a_tier_is_too_small() {
        // No entry is read often enough to stay, because there are more than twice as many bystanders as fit.
        let phases = beside_commit(megabytes(8), 20_000, 100_000);
        assert!(phases.iter().all(|phase| phase.reads.asked > 0));
        assert!(phases[0].reads.percent() < 90.0, "{phases:?}");
    }
}
