//! The part `core-get` of the report: measures the cost of a hit in our tier, the cache of the crate `pg_cache_core`, compared with
//! `quick_cache`, a cache for programs in Rust. `quick_cache` works inside one process and returns references to its values. The
//! measurement copies each of these values, because our tier copies each value, too.
//!
//! The memory of the tier is called its *region*. Its *host* has what PostgreSQL provides in a server: here, locks that spin
//! (`private_tier.rs`). `Tier::format` makes an empty tier, and each thread then attaches to it with a number of its own. A *stamp*
//! is a number on the clock of invalidations; a read with [`Stamp::LATEST`] may see all committed changes.

use super::duel::{Contender, Duel, compare, table};
use super::{Hashing, KEY_BYTES, Shared, VALUE_BYTES, Writer, key_bytes, megabytes};
use crate::eviction::traces::Random;
use crate::pace::Pace;
use crate::private_tier::{self, Memory, Spinning};
use crate::report::section::Section;
use pg_cache_core::{Stamp, Tier};
use quick_cache::UnitWeighter;
use quick_cache::sync::DefaultLifecycle;
use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

type Quick = quick_cache::sync::Cache<Box<[u8]>, Arc<[u8]>, UnitWeighter, Hashing>;

/// A number of keys so great that hits wait for memory.
const KEYS: u64 = 100_000;
/// A number of keys so small that all stay in the processor's caches.
const FEW_KEYS: u64 = 100;
/// Lookups of a thread in one round. Must be a multiple of the lengths of the lists of requested keys ([`asked`]).
const QUESTIONS: usize = 1 << 19;
/// Our hit may take at most this many times as long as a hit in quick_cache.
const RATIO_MAX: f64 = 1.5;

/// Returns about how long the part takes.
pub fn estimate(pace: &Pace) -> Duration {
    // A round of all three duels takes about 600 ms.
    Duration::from_millis(600) * pace.read_rounds as u32
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let sizes = private_tier::sizes(megabytes(32));
    let memory = Memory::of_bytes(sizes.bytes);
    let host = Spinning::of(sizes);
    let tier = Tier::format(memory.region(), sizes, &host, 0).expect("the tier is large enough");
    let quick = Quick::with(
        KEYS as usize * 2,
        KEYS * 2,
        UnitWeighter,
        Hashing::with_seeds(1, 2, 3, 4),
        DefaultLifecycle::default(),
    );
    let mut writer = Writer::new(&tier);
    for number in 0..KEYS {
        writer.put(number, VALUE_BYTES);
        quick.insert(key_bytes(number).into(), vec![b'x'; VALUE_BYTES].into());
    }

    let duel = |title: &str, keys: u64, threads: u32| -> Duel {
        let asked = asked(keys);
        let ours = Contender::new("pg_cache", || {
            timed(threads, |thread| {
                let tier = Tier::attach(memory.region(), &host, thread).expect("it was formatted");
                ask_tier(&tier, &asked);
            })
        });
        let theirs = Contender::new("quick_cache", || timed(threads, |_| ask_quick(&quick, &asked)));
        compare(title, pace.read_rounds, ours, theirs)
    };
    let duels = vec![
        duel("100 000 keys, one thread", KEYS, 1),
        duel("100 keys, one thread", FEW_KEYS, 1),
        duel("one key, two threads", 1, 2),
    ];
    Section {
        id: "core-get".into(),
        title: "The core by itself: hits".into(),
        goals: vec![
            duels[0].goal(
                "a hit among 100 000 keys takes as long as a hit of quick_cache with a copy",
                RATIO_MAX,
            ),
        ],
        tables: vec![table(&duels)],
        explained: vec![format!(
            "Keys of {KEY_BYTES} and values of {VALUE_BYTES} bytes. All keys exist and are requested at random. Each value is copied \
             into a reused buffer. quick_cache is `sync::Cache<Box<[u8]>, Arc<[u8]>>` with room for all entries. Both contenders \
             hash the key with the same function, in the measured time. `one operation` is the time of one thread for one hit. With \
             two threads, each does as many. The figures are medians of {} rounds. The contenders take turns.",
            pace.read_rounds
        )],
        figures: serde_json::json!({ "duels": duels }),
    }
}

/// Returns the requested keys in order. They are prepared in advance, so that choosing and formatting keys is not timed. The list
/// for many keys is long enough to request most of them; the one for few keys is short, so that it stays in the processor's caches.
fn asked(keys: u64) -> Vec<[u8; KEY_BYTES]> {
    let mut random = Random::of_seed(4);
    let length = if keys == KEYS { QUESTIONS / 2 } else { 1 << 12 };
    (0..length).map(|_| key_bytes(random.below(keys))).collect()
}

/// Returns the nanoseconds that a thread takes for one lookup, on average. All threads start at the same moment. `work` is called
/// once on each thread with the thread's number, from 0 on, and must do [`QUESTIONS`] lookups.
fn timed(threads: u32, work: impl Fn(u32) + Sync) -> f64 {
    let ready = Barrier::new(threads as usize);
    let sum: Duration = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (ready, work) = (&ready, &work);
                scope.spawn(move || {
                    ready.wait();
                    let start = Instant::now();
                    work(thread);
                    start.elapsed()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("nobody panics")).sum()
    });
    sum.as_nanos() as f64 / f64::from(threads) / QUESTIONS as f64
}

/// Looks up the keys of the list in order, again and again. Panics after a miss, because a fast miss is no hit.
fn ask_tier(tier: &Shared<'_, '_>, asked: &[[u8; KEY_BYTES]]) {
    let writer = Writer::new(tier);
    let mut buffer: Vec<u8> = Vec::new();
    let mut hits = 0;
    for _ in 0..QUESTIONS / asked.len() {
        for bytes in asked {
            hits += usize::from(tier.get(&writer.key(bytes), Stamp::LATEST, &mut buffer).is_ok());
            black_box(&buffer);
        }
    }
    assert_eq!(hits, QUESTIONS, "a fast miss is no hit");
}

/// Does for quick_cache what [`ask_tier`] does for our tier: looks up the keys of the list in order, again and again.
fn ask_quick(cache: &Quick, asked: &[[u8; KEY_BYTES]]) {
    let mut buffer: Vec<u8> = Vec::new();
    let mut hits = 0;
    for _ in 0..QUESTIONS / asked.len() {
        for bytes in asked {
            if let Some(value) = cache.get(&bytes[..]) {
                buffer.resize(value.len(), 0);
                buffer.copy_from_slice(&value);
                hits += 1;
            }
            black_box(&buffer);
        }
    }
    assert_eq!(hits, QUESTIONS, "a fast miss is no hit");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::BuildHasher;

    /// Fails if one contender hashes more than the bytes of the key: the measured times include the hashing.
    #[test]
    fn both_contenders_compute_the_same_hash() {
        let hashing = Hashing::with_seeds(1, 2, 3, 4);
        let bytes = key_bytes(17);
        let hash = |bytes: &[u8]| BuildHasher::hash_one(&hashing, bytes);
        assert_eq!(hash(&bytes[..]), BuildHasher::hash_one(&hashing, Box::<[u8]>::from(bytes)));
        assert_eq!(&bytes, b"00000000000000000017");
    }
}
