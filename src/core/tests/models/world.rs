//! The base of the models in `main.rs`: a tier with a few entries in words that *loom* watches, and a ledger of the results that
//! were seen. Loom is a library that runs a few threads in every order of their steps. Keys are numbers, and a *version* is the
//! number that a value carries. A *tier* is a cache in memory that several processes share.

use loom::model::Builder;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Arc, Mutex, MutexGuard};
use pg_cache_core::{
    Cost, Host, Key, Kind, Miss, NewValue, Region, Reservation, Scope, Sizes, StaleOk, Stamp, Tier,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

/// A region without reserved fences, without fences of relations, and with one fence for tags. So every dependency uses that one
/// fence, which means fewer words and fewer steps.
const SIZES: Sizes = Sizes {
    bytes: 0,
    reserved_fences: 0,
    relation_fences: 0,
    tag_fences: 1,
    backends: 4,
    shards: 1,
    locations: 0,
    journal_lines: 0,
    patterns: 0,
};
/// Room for ten entries of [`ENTRY_BYTES`].
const REGION_WORDS: usize = 664;
/// The size of an entry: a header of 56 bytes, a key of 8 and a value of 16. All entries have this size, except the one that may be
/// served stale. So a new entry fits into the blocks of an old one.
pub const ENTRY_BYTES: u64 = 80;

/// The state that all threads of a model share.
pub struct World {
    words: Vec<AtomicU64>,
    lock: Mutex<()>,
    /// The source that the transactions of a model change: the committed number. It is 1 at first.
    pub source: AtomicU64,
    /// The results of this and of all other interleavings.
    pub ledger: Ledger,
}

impl World {
    fn new(image: &[u64], ledger: Ledger) -> Self {
        Self {
            ledger,
            words: image.iter().map(|word| AtomicU64::new(*word)).collect(),
            lock: Mutex::new(()),
            source: AtomicU64::new(1),
        }
    }

    /// Returns the tier as one backend sees it. Each backend has a number of its own: 0 is that of the steps before the threads
    /// begin and after they have ended.
    pub fn tier(&self, backend: u32) -> Tier<'_, Backend<'_>> {
        Tier::attach(Region::of_words(&self.words), self.host(), backend).expect("it is formatted")
    }

    fn host(&self) -> Backend<'_> {
        Backend { lock: &self.lock, held: RefCell::new(None) }
    }
}

/// A backend's access to the one lock.
pub struct Backend<'w> {
    lock: &'w Mutex<()>,
    held: RefCell<Option<MutexGuard<'w, ()>>>,
}

impl Host for Backend<'_> {
    fn now(&self) -> u32 {
        1
    }
    fn lock(&self, shard: u32) {
        assert_eq!(shard, 0, "there is one shard");
        *self.held.borrow_mut() = Some(self.lock.lock().expect("nobody has panicked"));
    }
    fn unlock(&self, _shard: u32) {
        self.held.borrow_mut().take();
    }
}

/// A tier in words that loom watches.
pub type LoomTier<'w> = Tier<'w, Backend<'w>>;
/// The work of one backend in a model.
pub type Work = Box<dyn FnOnce(&LoomTier<'_>, &World) + Send>;

/// The words of a region after some preparation. It is made once and copied for each interleaving, so that each
/// interleaving begins with the first step that matters.
#[derive(Clone)]
pub struct Image(Vec<u64>);

impl Image {
    /// Returns a prepared tier without a journal.
    pub fn of(prepare: impl Fn(&LoomTier<'_>) + Send + Sync + 'static) -> Self {
        Self::with_journal(0, prepare)
    }

    /// Returns a prepared tier whose journal has this number of lines, or no journal if it is 0.
    pub fn with_journal(lines: u32, prepare: impl Fn(&LoomTier<'_>) + Send + Sync + 'static) -> Self {
        Self::with(Sizes { journal_lines: lines, ..SIZES }, prepare)
    }

    /// Returns a prepared tier with one slot for a pattern. Its spaces have fences of their own.
    pub fn with_patterns(prepare: impl Fn(&LoomTier<'_>) + Send + Sync + 'static) -> Self {
        Self::with(Sizes { reserved_fences: 2, patterns: 1, ..SIZES }, prepare)
    }

    /// Returns a prepared tier with a directory of one set of locations.
    pub fn with_directory(prepare: impl Fn(&LoomTier<'_>) + Send + Sync + 'static) -> Self {
        Self::with(Sizes { locations: 8, ..SIZES }, prepare)
    }

    /// Returns a prepared tier of these sizes. The region has additional memory for everything that is larger than in [`SIZES`].
    fn with(sizes: Sizes, prepare: impl Fn(&LoomTier<'_>) + Send + Sync + 'static) -> Self {
        let bytes = LoomTier::bytes_beside_entries(sizes) - LoomTier::bytes_beside_entries(SIZES);
        Self(once(vec![0; REGION_WORDS + bytes / 8], move |world| {
            let tier = Tier::format(Region::of_words(&world.words), sizes, world.host(), 0);
            prepare(&tier.expect("it fits"));
            world.words.iter().map(|word| word.load(Ordering::Relaxed)).collect()
        }))
    }

    /// Returns a full tier, and the key of one entry that has expired and may still be served stale.
    pub fn full_of_stale() -> (Self, u64) {
        let image = Self::of(|tier| {
            put_stale(tier, 1);
            (2..).take_while(|_| !is_full(tier)).for_each(|number| put(tier, number, 1));
        });
        (image, 1)
    }

    /// Returns a tier without room for one more entry, and the key that the next put will evict. All keys have version 1.
    pub fn full() -> (Self, u64) {
        let image = Self::of(move |tier| {
            (1..).take_while(|number| *number == 1 || !is_full(tier)).for_each(|number| put(tier, number, 1));
        });
        let victim = once(image.0.clone(), |world| {
            let tier = world.tier(0);
            let entries = tier.usage().entries;
            put(&tier, NEWCOMER, 1);
            (1..=entries).find(|number| get(&tier, *number) == Err(Miss::Absent)).expect("one had to go")
        });
        (image, victim)
    }
}

/// Returns whether the tier has no room for one more entry.
fn is_full(tier: &LoomTier<'_>) -> bool {
    let usage = tier.usage();
    usage.used_bytes + ENTRY_BYTES > usage.block_bytes
}

/// A key that has no value when a model begins.
pub const NEWCOMER: u64 = 99;

/// Runs a function with loom's words, without a second thread.
fn once<R: Send + 'static>(words: Vec<u64>, what: impl Fn(&World) -> R + Send + Sync + 'static) -> R {
    let result = std::sync::Arc::new(std::sync::Mutex::new(None));
    let slot = result.clone();
    builder().check(move || {
        let outcome = what(&World::new(&words, Ledger::default()));
        *slot.lock().expect("one thread") = Some(outcome);
    });
    let outcome = result.lock().expect("one thread").take();
    outcome.expect("it has run")
}

/// Returns loom's settings, which all models share.
fn builder() -> Builder {
    let mut builder = Builder::new();
    // Loom gives up after this many steps. It counts each step, even if there is no choice, so its own limit is too low.
    builder.max_branches = 100_000;
    builder
}

/// The results that were seen in all interleavings together. It uses the standard library's types, not loom's,
/// because it is outside of the model.
#[derive(Clone, Default)]
pub struct Ledger(std::sync::Arc<std::sync::Mutex<BTreeMap<String, u64>>>);

impl Ledger {
    /// Notes a result. Results are compared in their debug form.
    pub fn note(&self, what: impl std::fmt::Debug) {
        *self.0.lock().expect("nobody has panicked").entry(format!("{what:?}")).or_default() += 1;
    }
}

/// The maximum number of times that loom interrupts a thread where it does not wait: in the short run, and in the long one
/// (`PG_CACHE_TEST_LONG`). None means no limit.
pub type Preemptions = [Option<usize>; 2];

/// Runs a model in all orders that loom finds with this limit of preemptions, and with every value that loom lets a load return.
/// The noted results must be exactly `expected`, which must be sorted. Otherwise the model did not reach its subject, or reached a
/// result that is forbidden. `name` is printed with the results.
pub fn explore(
    name: &str,
    image: &Image,
    preemptions: Preemptions,
    expected: &[&str],
    model: impl Fn(&Arc<World>) + Send + Sync + 'static,
) {
    let long = std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty());
    let mut builder = builder();
    builder.preemption_bound = preemptions[usize::from(long)];
    let (image, ledger) = (image.clone(), Ledger::default());
    let (noted, executions) = (ledger.clone(), std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0)));
    let counted = executions.clone();
    builder.check(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        model(&Arc::new(World::new(&image.0, noted.clone())));
    });
    let seen = ledger.0.lock().expect("nobody has panicked").clone();
    println!("{name}: {} executions, {seen:?}", executions.load(std::sync::atomic::Ordering::Relaxed));
    assert_eq!(seen.keys().map(String::as_str).collect::<Vec<_>>(), expected, "{name}");
}

/// Runs backends, each in a thread of its own, until all are done. They have the numbers 1, 2 and so on.
///
/// Writers must come before readers in `work`. Loom looks for races only with the last access to a word. So a
/// writer's own load hides a reader's access from the store that follows, and loom does not try all orders. The
/// results of a reader are complete all the same. The first order that loom tries is the order of `work`. After all
/// writes, a load may still return each of the last seven stores that no ordering of the code under test forbids.
/// This leaves out only the effect of a reader on a writer, which is the visited bit of an entry.
pub fn together<const N: usize>(world: &Arc<World>, work: [Work; N]) {
    let mut backend = 0;
    let threads = work.map(|work| {
        backend += 1;
        let (world, number) = (world.clone(), backend);
        loom::thread::spawn(move || work(&world.tier(number), &world))
    });
    for thread in threads {
        thread.join().expect("it has not panicked");
    }
}

/// Calls `what` with the key of a number, which is also its hash.
pub fn with_key<R>(tier: &LoomTier<'_>, number: u64, what: impl FnOnce(&Key<'_>) -> R) -> R {
    let scope: Scope = tier.scope(1, 1, 0);
    what(&Key::new(scope, &number.to_le_bytes(), number).expect("a legal key"))
}

/// Reserves a value of two equal words, which contain the key's number and the version. The cost in the header is the version, too,
/// so a version must be small enough for a cost to be exact (below 2048).
pub fn reserve(tier: &LoomTier<'_>, number: u64, version: u64, stamp: Stamp) -> Reservation {
    let word = (number << 32 | version).to_le_bytes();
    let value = NewValue {
        bytes: &[word, word].concat(),
        note: &[],
        kind: Kind(1),
        stamp,
        expires: u32::MAX,
        cost: Cost::of(Duration::from_micros(version)),
        dependencies: &[],
    };
    with_key(tier, number, |key| tier.reserve(key, &value, Default::default()))
        .expect("there is room, or an entry can be evicted")
}

/// Sets a key to a version, as of now.
pub fn put(tier: &LoomTier<'_>, number: u64, version: u64) {
    let reservation = reserve(tier, number, version, tier.fences().now());
    with_key(tier, number, |key| tier.publish(key, reservation));
}

/// Stores a value of version 1 that has expired when it is stored, and that may be served stale.
fn put_stale(tier: &LoomTier<'_>, number: u64) {
    let word = (number << 32 | 1).to_le_bytes();
    let value = NewValue {
        bytes: &[word, word].concat(),
        note: &[],
        kind: Kind(1),
        stamp: Stamp::VOID,
        expires: 1,
        cost: Cost::of(Duration::from_micros(1)),
        dependencies: &[],
    };
    let stale_ok = Some(StaleOk { ticks: 100, valid_at: 1 });
    with_key(tier, number, |key| {
        let reservation = tier.reserve(key, &value, stale_ok.into()).expect("there is room");
        tier.publish(key, reservation);
    });
}

/// Removes a key. Returns whether it had a valid value.
pub fn remove(tier: &LoomTier<'_>, number: u64) -> bool {
    with_key(tier, number, |key| tier.remove(key))
}

/// Reads a key, verifies every byte of the value, and returns its version.
pub fn get(tier: &LoomTier<'_>, number: u64) -> Result<u64, Miss> {
    let mut value = Vec::new();
    with_key(tier, number, |key| tier.get(key, Stamp::LATEST, &mut value))?;
    Ok(version(number, &value))
}

/// Does the same, and accepts a stale value.
pub fn get_stale(tier: &LoomTier<'_>, number: u64) -> Result<u64, Miss> {
    let mut value = Vec::new();
    with_key(tier, number, |key| tier.get_stale(key, Stamp::LATEST, &mut value))?;
    Ok(version(number, &value))
}

/// Returns the version in a value. Fails if the value is torn or another key's.
fn version(number: u64, value: &[u8]) -> u64 {
    let words: Vec<u64> =
        value.chunks(8).map(|word| u64::from_le_bytes(word.try_into().expect("whole words"))).collect();
    assert!(words.len() == 2 && words[0] == words[1], "a torn value: {words:x?}");
    assert_eq!(words[0] >> 32, number, "another key's value");
    words[0] & u64::from(u32::MAX)
}

/// Returns the version of a key without reading the value: the header contains the version as the cost.
pub fn peek(tier: &LoomTier<'_>, number: u64) -> Result<u64, Miss> {
    with_key(tier, number, |key| tier.peek(key, Stamp::LATEST)).map(|meta| meta.cost.micros())
}

/// Asserts that all structures are sound, no block is lost, and no announcement or flight is left. Every entry must have the size
/// [`ENTRY_BYTES`].
pub fn settled(tier: &LoomTier<'_>) {
    assert_eq!(tier.check(), Vec::<String>::new());
    let usage = tier.usage();
    assert_eq!(usage.used_bytes, usage.entries * ENTRY_BYTES);
    assert_eq!((usage.announced, usage.flights), (0, 0));
}
