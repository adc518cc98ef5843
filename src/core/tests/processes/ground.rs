//! The file that all processes map: its words for control, its locks, and the region. A *seat* is the number of a process: its
//! place in `PARTS`, or `HEIR`. `main.rs` explains the victim and the heir.
//!
//! A *shard* is a part of the tier with a lock of its own. A *hold* is the time from acquiring to releasing a lock. The *region* is
//! the memory of the tier, in words of 64 bits.

use crate::worker::{PARTS, with_key};
use pg_cache_core::testing::SIZES;
use pg_cache_core::{Host, Mapping, Region, Sizes, Stamp, Tier};
use std::cell::Cell;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The number of shards of the region, and so of locks.
pub const SHARDS: u32 = 2;
/// The size of the region: so small that the processes evict each other's entries.
pub const REGION_BYTES: usize = 192 * 1024;
/// The words before the region: those below, a line for each lock, and a line for each process. Fewer than 512 are used. With 512,
/// the region begins on a page of 4 KB.
pub const CONTROL_WORDS: usize = 512;
/// The word that tells the processes to end, unless it is 0.
pub const STOP: usize = 0;
/// The word with the present tick.
pub const TICK: usize = 1;
/// The first lock, on a line of 8 words like the others. A lock is 0 if it is free, and otherwise the seat of its holder plus 1.
pub const LOCKS: usize = 8;
/// The words of the first seat. Each seat has a line of 8 words.
pub const SEATS: usize = LOCKS + 8 * SHARDS as usize;
// The words of a seat: the address of the mapping, the number of operations and reads, and whether an operation is
// running. The heir also stores the number of findings of its check.
pub const ADDRESS: usize = 0;
pub const OPERATIONS: usize = 1;
pub const READS: usize = 2;
pub const BUSY: usize = 3;
pub const FINDINGS: usize = 4;
/// The time limit for anything that should take only a moment. Beyond it, the test assumes that it hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The seat of the process that is killed.
pub const VICTIM: usize = 0;

/// The seat of the heir, which starts when all others are gone.
pub const HEIR: usize = PARTS.len();

/// The file as one process sees it, and the seat of that process.
pub struct Ground {
    pub mapping: Mapping,
    pub seat: usize,
}

impl Ground {
    /// Maps the file for the process with this seat.
    pub fn of(path: &Path, seat: usize) -> Self {
        let file = File::options().read(true).write(true).open(path).expect("the file is there");
        // Reserve address space first, so that the processes map the file at different addresses, even without address
        // randomization.
        let other: Vec<_> = (0..seat).map(|_| Mapping::of(&file).expect("it can be mapped")).collect();
        let mapping = Mapping::of(&file).expect("it can be mapped");
        drop(other);
        Self { mapping, seat }
    }

    /// Creates the file, and maps it for the process that runs the test. That process has the seat of the heir: while
    /// the heir lives, the test only waits for it.
    pub fn new(directory: &Path) -> Self {
        let path = directory.join("region");
        let file = File::create_new(&path).expect("a new file");
        file.set_len((CONTROL_WORDS * 8 + REGION_BYTES) as u64).expect("it fits");
        Self::of(&path, HEIR)
    }

    /// Returns a word before the region.
    pub fn control(&self, at: usize) -> &AtomicU64 {
        &self.mapping.words()[..CONTROL_WORDS][at]
    }

    /// Returns the region, which follows the words for control and the locks.
    pub fn region(&self) -> Region<'_> {
        Region::of_words(&self.mapping.words()[CONTROL_WORDS..])
    }

    /// Returns the word of a shard's lock: see [`LOCKS`].
    pub fn lock_word(&self, shard: u32) -> &AtomicU64 {
        self.control(LOCKS + 8 * shard as usize)
    }

    /// Returns a word of a seat: see [`note`](Self::note).
    pub fn seat_word(&self, seat: usize, word: usize) -> &AtomicU64 {
        self.control(SEATS + 8 * seat + word)
    }

    /// Stores a word of the own seat. `word` is one of the words of a seat, from `ADDRESS` to `FINDINGS`.
    pub fn note(&self, word: usize, value: u64) {
        self.seat_word(self.seat, word).store(value, Ordering::SeqCst);
    }

    /// Adds 1 to a word of the own seat.
    pub fn count(&self, word: usize) {
        self.seat_word(self.seat, word).fetch_add(1, Ordering::SeqCst);
    }

    /// Returns a word of a seat.
    pub fn noted(&self, seat: usize, word: usize) -> u64 {
        self.seat_word(seat, word).load(Ordering::SeqCst)
    }

    /// Returns whether the processes are told to end.
    pub fn stopped(&self) -> bool {
        self.control(STOP).load(Ordering::SeqCst) != 0
    }

    /// Returns the seat of the process that holds a lock, and None if the lock is free.
    pub fn holder(&self, shard: u32) -> Option<usize> {
        (self.lock_word(shard).load(Ordering::SeqCst) as usize).checked_sub(1)
    }

    /// Returns whether the process with a seat holds a lock.
    pub fn holds_a_lock(&self, seat: usize) -> bool {
        (0..SHARDS).any(|shard| self.holder(shard) == Some(seat))
    }
}

impl Host for &Ground {
    fn now(&self) -> u32 {
        self.control(TICK).load(Ordering::SeqCst) as u32
    }

    fn lock(&self, shard: u32) {
        let (word, me) = (self.lock_word(shard), self.seat as u64 + 1);
        if self.seat == HEIR {
            // The process that held the lock is dead. (The test itself has the seat of the heir, too. It takes a lock only
            // while no process of the crew runs.)
            word.store(me, Ordering::SeqCst);
            return;
        }
        while word.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            if self.stopped() {
                // A server process does the same when another process has crashed: it exits at once, without cleaning
                // up.
                std::process::exit(0);
            }
            std::thread::yield_now();
        }
    }

    fn unlock(&self, shard: u32) {
        self.lock_word(shard).store(0, Ordering::SeqCst);
    }
}

/// Looks at the work of a stopped or dead victim, without touching its locks. Only shards whose locks the victim
/// holds do not change meanwhile.
pub struct Probe<'m> {
    pub ground: &'m Ground,
    /// Whether a read has asked for a lock that the victim holds.
    pub waiting: Cell<bool>,
}

impl Host for &Probe<'_> {
    fn now(&self) -> u32 {
        1
    }
    fn lock(&self, shard: u32) {
        if self.ground.holder(shard) == Some(VICTIM) {
            self.waiting.set(true);
        }
    }
    fn unlock(&self, _: u32) {}
}

impl<'m> Probe<'m> {
    pub fn new(ground: &'m Ground) -> Self {
        Self { ground, waiting: Cell::new(false) }
    }

    /// Returns whether the victim is in the middle of a change. If it is, the shard's version is odd, so a reader has to ask for
    /// the lock.
    pub fn finds_a_change(&self) -> bool {
        let tier = Tier::attach(self.ground.region(), self, HEIR as u32).expect("it is formatted");
        self.waiting.set(false);
        // These are enough keys to reach every shard.
        for number in 0..40 {
            let _ = with_key(tier.scope(1, 1, 0), number, |key| tier.peek(key, Stamp::LATEST));
        }
        self.waiting.get()
    }

    /// Returns whether the victim has left a change half done, so that the check has a finding in the shard whose lock it holds.
    pub fn finds_damage(&self) -> bool {
        let shard = (0..SHARDS).find(|shard| self.ground.holder(*shard) == Some(VICTIM));
        let Some(shard) = shard.filter(|_| self.finds_a_change()) else { return false };
        let tier = Tier::attach(self.ground.region(), self, HEIR as u32).expect("it is formatted");
        tier.check().iter().any(|finding| finding.starts_with(&format!("shard {shard}:")))
    }
}

/// Returns the sizes of the region. Each process has a slot of statistics, by its seat.
pub fn sizes() -> Sizes {
    Sizes { reserved_fences: 8, tag_fences: 64, backends: HEIR as u32 + 1, shards: SHARDS, ..SIZES }
}
